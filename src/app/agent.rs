//! What stands behind the HTTP API on every node: answers for itself, or asks the leader.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use super::start::Place;
use super::waiters::Waiters;
use crate::config::Config;
use crate::http::{ASK_AGAIN, Asker, ClusterToken, CommandError, CommandErrorKind, Health, Keeper as Api};
use crate::io::consul::Consul;
use crate::io::keeper;
use crate::leader::swarm::slip::Kind;
use crate::leader::{self, Coordination, Gate, Leadership, Probe};
use crate::model::{Sensitive, StackName};
use crate::registration::SelfState;
use crate::status::{ClusterStatus, Command, LeaderReport, LeaderStatus, StackHistory, StackStatus};

/// A command for the leader's loop, with where its answer goes.
pub type Order = (Command, oneshot::Sender<Result<String, CommandError>>);

/// How the stacks' rollouts ended.
pub type Histories = BTreeMap<StackName, StackHistory>;

/// What a manager's agent has beside what every agent has.
pub struct Manager {
    /// What this manager is.
    pub leadership: watch::Receiver<Leadership>,
    /// The cluster as this manager knows it while it leads.
    pub status: watch::Receiver<ClusterStatus>,
    /// The stacks' histories, while this manager leads.
    pub histories: watch::Receiver<Histories>,
    /// Commands for the leader's loop.
    pub orders: mpsc::Sender<Order>,
    /// Asks the leader's loop for a pass.
    pub passes: Arc<Waiters>,
    /// Asks for a look at git.
    pub fetches: Arc<Waiters>,
    /// Tells the leader that somebody woke us.
    pub wakes: mpsc::Sender<()>,
    /// Asks the engine, when people want to know why nobody leads.
    pub probe: Probe,
    /// What keepers show each other.
    pub token: Arc<RwLock<Option<Sensitive<String>>>>,
    /// Where the lock is.
    pub lock: Arc<dyn Coordination>,
    /// In one word.
    pub coordination: Kind,
    /// What a step-down is asked of.
    pub gate: Gate,
}

/// This node's agent.
pub struct Agent {
    cluster: String,
    consul: Option<Consul>,
    api_token: Option<Sensitive<String>>,
    /// By which the leader's certificate is trusted.
    ca_file: Option<PathBuf>,
    self_state: watch::Receiver<SelfState>,
    place: Place,
    manager: Option<Manager>,
}

impl Agent {
    /// Puts together what the API needs.
    pub fn new(
        config: &Config,
        place: &Place,
        consul: Option<Consul>,
        self_state: watch::Receiver<SelfState>,
        manager: Option<Manager>,
    ) -> Self {
        Self {
            cluster: config.cluster.clone(),
            consul,
            api_token: config.api_token.clone(),
            ca_file: config.tls.ca_file.clone(),
            self_state,
            place: place.clone(),
            manager,
        }
    }

    /// What keepers of this cluster show each other.
    pub fn cluster_token(&self) -> ClusterToken {
        self.manager.as_ref().map_or_else(|| Arc::new(|| None) as ClusterToken, |manager| cluster_token(&manager.token))
    }

    /// The manager's part while it leads.
    fn leading(&self) -> Option<&Manager> {
        let manager = self.manager.as_ref()?;
        (!matches!(*manager.leadership.borrow(), Leadership::Follower { .. })).then_some(manager)
    }

    /// Who leads, as far as this node can find out.
    async fn leader(&self) -> Option<leader::LeaderInfo> {
        let known = self.manager.as_ref().and_then(|manager| match &*manager.leadership.borrow() {
            // This node follows nobody by the name of itself: that was the process before, and the lock may tell of another one by now.
            Leadership::Follower { leader } => leader.clone().filter(|leader| leader.node != self.place.node),
            Leadership::Leading { .. } | Leadership::Suspended { .. } => None,
        });
        match (known, &self.manager, &self.consul) {
            (Some(leader), _, _) => Some(leader),
            (None, Some(manager), _) => manager.lock.current().await.ok().flatten(),
            (None, None, Some(consul)) => leader::current(consul, &self.cluster).await.ok().flatten(),
            (None, None, None) => None,
        }
    }

    /// A swarm without quorum has no leader of ours either, and the engine says so best.
    async fn why_nobody_leads(&self) -> String {
        let hindered = match &self.manager {
            Some(manager) => (manager.probe)().await.err().map(|hindrance| hindrance.to_string()),
            None => None,
        };
        match hindered {
            Some(reason) => format!("nobody leads: {reason}"),
            None if self.manager.is_none() && self.consul.is_none() => {
                "this is a worker, and without Consul it does not know who leads: ask on a manager".to_owned()
            }
            None => "nobody leads at the moment".to_owned(),
        }
    }

    /// A client for the leader; none while nobody else leads.
    async fn ask_leader(&self) -> Result<(leader::LeaderInfo, keeper::Keeper), CommandError> {
        let Some(leader) = self.leader().await.filter(|leader| leader.node != self.place.node) else {
            return Err(CommandError::unavailable(
                self.why_nobody_leads().await,
                "wait for the election, some 12 s; `swarmkeeper doctor` on a manager says what hinders it",
            ));
        };
        let token = self.cluster_token()().or_else(|| self.api_token.clone());
        if token.is_none() {
            let error = format!("this is a worker; the leader is {}", leader.node);
            return Err(CommandError::unavailable(error, "ask on a manager, or set `api_token` on every node"));
        }
        let client = keeper::Keeper::trusting(&leader.address, token, self.ca_file.as_deref());
        let client = client.map_err(CommandError::from)?;
        Ok((leader, client))
    }

    /// What is left to know without a leader that answers: what it published.
    async fn published(&self, problem: String) -> ClusterStatus {
        let leader = self.leader().await.map(LeaderStatus::from);
        let prefix = leader::Keys::new(&self.cluster).stacks();
        let pairs = match &self.consul {
            Some(consul) => consul.kv_list(&prefix).await.unwrap_or_default(),
            None => Vec::new(),
        };
        let stacks = pairs.iter().filter_map(|pair| serde_json::from_slice::<StackStatus>(&pair.value).ok()).collect();
        ClusterStatus {
            cluster: self.cluster.clone(),
            leader,
            git: None,
            agents: crate::status::AgentCount::default(),
            stacks,
            problems: vec![problem],
            drains: Vec::new(),
        }
    }
}

impl Agent {
    /// Who leads and who could, as this manager finds it.
    async fn leader_report(&self, manager: &Manager) -> LeaderReport {
        let leadership = manager.leadership.borrow().clone();
        let leader = match leadership {
            Leadership::Leading { token, since, .. } | Leadership::Suspended { token, since } => {
                Some(LeaderStatus { node: self.place.node.clone(), since, token })
            }
            Leadership::Follower { .. } => self.leader().await.map(LeaderStatus::from),
        };
        let (candidates, problem) = match manager.lock.candidates().await {
            Ok(mut candidates) => {
                candidates.sort();
                (candidates, None)
            }
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let coordination = manager.coordination.word().to_owned();
        LeaderReport { cluster: self.cluster.clone(), coordination, leader, candidates, problem }
    }

    /// Hands over, if somebody is there to take over.
    async fn step_down(&self, manager: &Manager) -> Result<String, CommandError> {
        let report = self.leader_report(manager).await;
        let node = &self.place.node;
        if !report.candidates.iter().any(|candidate| candidate.stands && candidate.node != *node) {
            return Err(CommandError {
                kind: CommandErrorKind::Conflict,
                error: report.problem.unwrap_or_else(|| format!("nobody but {node} stands for leader")),
                next: "`swarmkeeper leader` shows the candidates; start an agent on another manager".into(),
            });
        }
        manager.gate.step_down();
        let cool_down = leader::COOL_DOWN.as_secs();
        Ok(format!("{node} hands over, and does not stand for {cool_down} s unless its successor is lost"))
    }
}

impl Api for Agent {
    fn leader(&self, asker: Asker) -> BoxFuture<'_, LeaderReport> {
        async move {
            if let Some(manager) = &self.manager {
                return self.leader_report(manager).await;
            }
            let unknown = |problem| LeaderReport {
                cluster: self.cluster.clone(),
                coordination: String::new(),
                leader: None,
                candidates: Vec::new(),
                problem: Some(problem),
            };
            if asker == Asker::Keeper {
                return unknown(format!("{} is a worker", self.place.node));
            }
            match self.ask_leader().await {
                Ok((_, client)) => client.leader().await.unwrap_or_else(|error| unknown(error.to_string())),
                Err(error) => unknown(error.error),
            }
        }
        .boxed()
    }

    fn status(&self, asker: Asker) -> BoxFuture<'_, ClusterStatus> {
        async move {
            if let Some(manager) = self.leading() {
                return manager.status.borrow().clone();
            }
            if asker == Asker::Keeper {
                return self.published(format!("{} does not lead", self.place.node)).await;
            }
            match self.ask_leader().await {
                Ok((leader, client)) => match client.status().await {
                    Ok(status) => status,
                    Err(error) => self.published(format!("the leader {} does not answer: {error}", leader.node)).await,
                },
                Err(error) => self.published(error.error).await,
            }
        }
        .boxed()
    }

    fn history(&self, stack: StackName, asker: Asker) -> BoxFuture<'_, Result<StackHistory, CommandError>> {
        async move {
            let Some(manager) = self.leading() else {
                if asker == Asker::Keeper {
                    return Err(CommandError::leads_no_more(&self.place.node));
                }
                let (_, client) = self.ask_leader().await?;
                return client.history(&stack).await.map_err(CommandError::from);
            };
            let found = manager.histories.borrow().get(&stack).cloned();
            found.ok_or_else(|| CommandError {
                kind: CommandErrorKind::NotFound,
                error: format!("stack {stack} has no history: nothing of it was deployed from git"),
                next: "`swarmkeeper status` lists the stacks".into(),
            })
        }
        .boxed()
    }

    fn command(&self, command: Command, asker: Asker) -> BoxFuture<'_, Result<String, CommandError>> {
        async move {
            let Some(manager) = self.leading() else {
                if asker == Asker::Keeper {
                    return Err(CommandError::leads_no_more(&self.place.node));
                }
                let (_, client) = self.ask_leader().await?;
                return client.command(&command).await.map_err(CommandError::from);
            };
            match command {
                Command::StepDown => return self.step_down(manager).await,
                Command::Wake => {
                    manager.fetches.wake.notify_one();
                    return Ok("woken".to_owned());
                }
                Command::Sync => manager.fetches.pass().await,
                _ => {}
            }
            let (answer, answered) = oneshot::channel();
            let gone =
                || CommandError::unavailable("this agent is stopping", format!("{ASK_AGAIN}: another takes over"));
            manager.orders.send((command, answer)).await.map_err(|_| gone())?;
            manager.passes.wake.notify_one();
            answered.await.map_err(|_| gone())?
        }
        .boxed()
    }

    fn wake(&self, reason: String) {
        let Some(manager) = &self.manager else {
            warn!(reason, "this worker cannot wake the leader: send webhooks to a manager");
            return;
        };
        tracing::info!(reason, "woken");
        manager.fetches.wake.notify_one();
        // Full: a wake-up is on its way already.
        let _ = manager.wakes.try_send(());
    }

    fn health(&self) -> Health {
        let state = self.self_state.borrow();
        let problems: Vec<String> = [&state.engine, &state.agent]
            .into_iter()
            .filter_map(|part| part.as_ref().err())
            .map(|trouble| format!("{}; {}", trouble.reason, trouble.mend))
            .collect();
        Health { live: true, ready: problems.is_empty(), problems }
    }
}

impl From<leader::LeaderInfo> for LeaderStatus {
    fn from(leader: leader::LeaderInfo) -> Self {
        Self { node: leader.node, since: leader.since, token: leader.token }
    }
}

/// What keepers of this cluster show each other, once it is known.
pub fn cluster_token(token: &Arc<RwLock<Option<Sensitive<String>>>>) -> ClusterToken {
    let token = Arc::clone(token);
    Arc::new(move || read(&token))
}

fn read(token: &RwLock<Option<Sensitive<String>>>) -> Option<Sensitive<String>> {
    token.read().unwrap_or_else(PoisonError::into_inner).clone()
}
