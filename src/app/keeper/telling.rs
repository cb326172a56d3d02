//! What the leader tells of its passes: status, metrics, Consul KV, log, and notifications.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use tracing::{info, warn};

use super::orders::Answers;
use super::{Keeper, RETRY};
use crate::http::CommandError;
use crate::leader::Leadership;
use crate::model::StackName;
use crate::notify::Notification;
use crate::reconcile::After;
use crate::stacks::plan::{Event, Tell};
use crate::stacks::{Observed, StackState, history};
use crate::status::{AgentCount, ClusterStatus, GitStatus, LeaderStatus, StackStatus};

/// The label of our own services in `stack/swarmkeeper.yml`.
const ROLE_LABEL: &str = "swarmkeeper.role";

impl Keeper {
    /// The swarm did not answer: said once, shown until it does.
    pub(super) fn outage(&mut self, error: &str, is_outage: bool, answers: Answers) -> After {
        let problem = if is_outage {
            format!("the swarm has no quorum or its engine does not answer: {error}")
        } else {
            error.to_owned()
        };
        if self.memory.problem.as_ref() != Some(&problem) {
            warn!(problem, "nothing is deployed meanwhile, and what runs is left alone");
            self.memory.problem = Some(problem.clone());
        }
        self.status.send_modify(|status| status.problems = vec![problem.clone()]);
        self.doubt_in_consul(&problem);
        for (answer, _) in answers {
            let error = CommandError::unavailable(problem.clone(), "ask again when the swarm answers");
            let _ = answer.send(Err(error));
        }
        After(RETRY)
    }

    /// Log and notifications: each event once.
    pub(super) fn tell(&self, stack: &StackStatus, told: &[Tell]) {
        for tell in told {
            let (service, revision) = (tell.service.as_deref(), tell.revision.as_ref().map(tracing::field::display));
            let event = tell.event;
            match event {
                Event::Failed | Event::RolledBack | Event::Held | Event::Braked | Event::Orphaned => {
                    warn!(stack = %tell.stack, service, revision, ?event, log = tell.log.join("\n"), "{}", tell.message);
                }
                Event::Started | Event::Converged | Event::Restarted | Event::Adopted | Event::Removed => {
                    info!(stack = %tell.stack, service, revision, ?event, "{}", tell.message);
                }
            }
            if event != Event::Started {
                self.parts.notifier.tell(&Notification {
                    cluster: self.parts.cluster.clone(),
                    stack: Some(tell.stack.clone()),
                    revision: tell.revision.clone(),
                    state: Some(stack.state),
                    service: tell.service.clone(),
                    message: tell.message.clone(),
                    at: OffsetDateTime::now_utc(),
                });
            }
        }
    }

    /// How the stacks' rollouts ended, for those who ask.
    /// `written` are the states that this pass has written, so that a history is never behind the status.
    pub(super) fn show_histories(&self, observed: &Observed, written: BTreeMap<&StackName, &StackState>) {
        let mut states: BTreeMap<_, _> = observed.states.iter().map(|(stack, live)| (stack, &live.state)).collect();
        states.extend(written);
        let told = states.into_iter().map(|(stack, state)| (stack.clone(), history::told(stack, state)));
        self.histories.send_replace(told.collect());
    }

    /// What a pass found: status, gauges, KV, and the answers to those who asked.
    pub(super) async fn show(&mut self, stacks: Vec<StackStatus>, nodes: usize, answers: Answers) {
        if self.memory.problem.take().is_some() {
            info!("the swarm answers again");
        }
        self.memory.gauges.show(&stacks);
        // What a task prints may be a secret, and Consul's KV has more readers than the API.
        let quiet = |stack: &StackStatus| StackStatus { log: Vec::new(), ..stack.clone() };
        let published =
            stacks.iter().filter_map(|stack| Some((stack.name.to_string(), serde_json::to_value(quiet(stack)).ok()?)));
        self.show_in_consul(&stacks);
        if let Some(boards) = &mut self.boards
            && let Err(error) = boards.stacks.publish(published.collect()).await
        {
            warn!(%error, "the stacks' status is not in consul");
        }
        self.answer(stacks, nodes, Vec::new(), answers).await;
    }

    /// Why a pass could not judge the stacks. What was published of them last stays.
    pub(super) async fn show_problem(&mut self, problem: String, nodes: usize, answers: Answers) {
        let stacks = self.status.borrow().stacks.clone();
        self.doubt_in_consul(&problem);
        self.answer(stacks, nodes, vec![problem], answers).await;
    }

    /// What is shown ends with leadership: another leader's stacks go on without us.
    pub(super) fn forget(&mut self) {
        self.memory.gauges.show(&[]);
        self.show_in_consul(&[]);
        (self.memory.drains, self.memory.drain_pause) = (Vec::new(), None);
        self.memory.planned.clear();
        self.status.send_replace(nothing_known(&self.parts.cluster));
    }

    async fn answer(&self, stacks: Vec<StackStatus>, nodes: usize, problems: Vec<String>, answers: Answers) {
        let status = self.cluster_status(stacks, nodes, problems).await;
        for (answer, wanted) in answers {
            // Whoever asked may be gone.
            let _ = answer.send(wanted.in_words(&status));
        }
        self.status.send_replace(status);
    }

    async fn cluster_status(&self, stacks: Vec<StackStatus>, nodes: usize, problems: Vec<String>) -> ClusterStatus {
        let git = self.parts.git.borrow().clone();
        let leader = match &*self.parts.leadership.borrow() {
            Leadership::Leading { token, since, .. } | Leadership::Suspended { token, since } => {
                Some(LeaderStatus { node: self.parts.node.clone(), since: *since, token: *token })
            }
            Leadership::Follower { .. } => None,
        };
        let passing = match &self.parts.consul {
            Some(consul) => consul.health_nodes("swarmkeeper", true).await.map_or(0, |nodes| nodes.len()),
            None => self.memory.agents,
        };
        ClusterStatus {
            cluster: self.parts.cluster.clone(),
            leader,
            git: Some(GitStatus {
                branch: self.parts.settings.branch.clone(),
                revision: git.head,
                checked: git.checked,
                error: git.error,
            }),
            agents: AgentCount { passing, nodes },
            stacks,
            problems,
            drains: self.memory.drains.clone(),
        }
    }
}

/// How many tasks of our own services run: what is known of the agents where no Consul is.
pub(super) fn agents_running(observed: &Observed) -> usize {
    let ours = observed
        .services
        .values()
        .filter(|service| service.spec.labels.as_ref().is_some_and(|labels| labels.contains_key(ROLE_LABEL)));
    let tasks = ours.filter_map(|service| observed.tasks.get(&service.id)).flatten();
    tasks.filter(|task| task.status.state == "running").count()
}

/// Before the first pass.
pub(super) fn nothing_known(cluster: &str) -> ClusterStatus {
    ClusterStatus {
        cluster: cluster.to_owned(),
        leader: None,
        git: None,
        agents: AgentCount::default(),
        stacks: Vec::new(),
        problems: vec!["no pass yet".to_owned()],
        drains: Vec::new(),
    }
}
