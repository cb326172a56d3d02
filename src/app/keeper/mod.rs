//! The leader's loop: git → rendered stacks → plan → swarm, and what people are told of it.
//!
//! One pass renders the revision that git has (if it is another than last time), carries out what people asked for, observes the swarm,
//! plans every stack, applies the plans, and tells: in the status, in Consul KV, in the log, and through notifications. It waits for
//! nothing: while a rollout is under way the next pass comes soon, otherwise late.
//!
//! A new leader's clone may be older than what its predecessor deployed, and to act on it would take services away or back. So it
//! asks git before its first pass. If git does not answer, it goes on with its clone only if that holds every revision that the
//! stacks' states speak of.

mod orders;
mod pins;
mod publishing;
mod rollback;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use super::agent::{Histories, Manager, Order};
use super::git::GitView;
use super::settings::Settings;
use super::waiters::Waiters;
use crate::image::ImageRef;
use crate::io::consul::Consul;
use crate::io::git::GitRepo;
use crate::io::registry::Credentials;
use crate::io::swarm::Swarm;
use crate::leader::publish::Board;
use crate::leader::swarm::slip::Kind;
use crate::leader::{self, Coordination, Fence, Gate, Leadership, Probe};
use crate::model::{Revision, Sensitive, StackName};
use crate::notify::Notifier;
use crate::reconcile::{self, After};
use crate::registration::SelfState;
use crate::repo::{self, ConfigRepo};
use crate::spec::ServiceFacts;
use crate::stacks::apply::{self, Outcome, apply, ensure_key};
use crate::stacks::observe::{observe, resolve, secrets_of_adoptions};
use crate::stacks::pass::{Pass, plan_all};
use crate::stacks::plan::critical_tasks;
use crate::stacks::status::status;
use crate::stacks::{Held, Key, Observed, Plan, Resolutions, images_to_resolve, targets};
use crate::status::{ClusterStatus, DrainStatus, StackState};
use crate::telemetry::{self, StackGauges};

/// The pause between two passes while nothing happens: what was changed by hand shows up after it.
const IDLE: Duration = Duration::from_secs(30);

/// The pause while a rollout is under way.
const ROLLING: Duration = Duration::from_millis(700);

/// The pause after a pass that wrote something, or whose write came too late: somebody else had changed the object.
const AGAIN: Duration = Duration::from_millis(50);

/// The pause after a failure of the engine.
const RETRY: Duration = Duration::from_secs(1);

/// A registry that did not tell a digest is asked again this long after.
const RESOLVE_RETRY: Duration = Duration::from_mins(1);

/// Orders that wait for the loop; further ones wait in their requests.
const ORDERS_MAX: usize = 16;

/// What the loop is built from.
pub struct Parts {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name.
    pub node: String,
    /// What of the configuration it needs.
    pub settings: Settings,
    /// The swarm, behind the fence's gate.
    pub swarm: Swarm,
    /// The Config Repo's clone.
    pub repo: Arc<GitRepo>,
    /// This node's Consul agent, if there is one.
    pub consul: Option<Consul>,
    /// What every write is asked of.
    pub gate: Gate,
    /// What every write to Consul's KV goes through; none where the lock is in the swarm.
    pub fence: Option<Fence>,
    /// Where the lock is.
    pub lock: Arc<dyn Coordination>,
    /// In one word.
    pub coordination: Kind,
    /// Where what keepers show each other is put.
    pub token: Arc<RwLock<Option<Sensitive<String>>>>,
    /// Who is told.
    pub notifier: Notifier,
    /// What we are.
    pub leadership: watch::Receiver<Leadership>,
    /// What git has.
    pub git: watch::Receiver<GitView>,
    /// Asks for a look at git.
    pub git_waiters: Arc<Waiters>,
    /// Where a webhook of this node is passed on.
    pub wakes: mpsc::Sender<()>,
    /// Asks the engine, when people want to know why nobody leads.
    pub probe: Probe,
    /// What this agent's own service in Consul tells.
    pub self_state: watch::Sender<SelfState>,
}

/// What is published in KV.
struct Boards {
    /// For people and pages.
    stacks: Board,
    /// For agents.
    services: Board,
    /// For the agents of nodes that are being drained.
    drains: Board,
}

/// The leader's loop.
pub struct Keeper {
    parts: Parts,
    /// What agents and people's tools read in KV; none where the lock is in the swarm, whose leader tells it by its API.
    boards: Option<Boards>,
    orders: mpsc::Receiver<Order>,
    waiters: Arc<Waiters>,
    status: watch::Sender<ClusterStatus>,
    histories: watch::Sender<Histories>,
    token: Arc<RwLock<Option<Sensitive<String>>>>,
    memory: Memory,
}

/// What one pass leaves to the next; losing it costs time only.
#[derive(Default)]
struct Memory {
    /// What git's head renders to.
    rendered: Option<(Revision, Rendered)>,
    /// Digests, and failures with when they happened.
    images: Resolutions,
    failed: BTreeMap<String, Instant>,
    /// The last state of every stack that people were told of.
    gauges: StackGauges,
    /// How many agents of ours run as tasks of the swarm.
    agents: usize,
    /// The first of a row of equal problems is said, and its end.
    problem: Option<String>,
    /// `leave` was asked for: this process deploys nothing any more.
    has_left: bool,
    /// Stacks that a rollback holds, as their commits have them.
    held: Held,
    /// The commits pinned in our clone, by name; none before we looked.
    pinned: Option<BTreeMap<String, Revision>>,
    /// What was wrong with credentials last time.
    credentials_said: String,
    /// What agents could not be told last time.
    unpublished: BTreeSet<&'static str>,
    /// Services as the last plans were about to write them.
    planned: BTreeMap<String, ServiceFacts>,
    /// Nodes that a person wants empty.
    drains: Vec<DrainStatus>,
    /// How soon a drain goes on.
    drain_pause: Option<Duration>,
}

/// A rendered Config Repo, sorted into what can be planned and what cannot.
#[derive(Default)]
struct Rendered {
    desired: Vec<crate::model::DesiredStack>,
    broken: BTreeMap<StackName, String>,
    /// The whole repo cannot be read.
    problem: Option<String>,
}

impl Keeper {
    /// The loop, and what the API needs of it.
    pub fn new(parts: Parts) -> (Self, Manager) {
        let waiters = Arc::new(Waiters::default());
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let (status, seen) = watch::channel(telling::nothing_known(&parts.cluster));
        let (histories, told) = watch::channel(Histories::new());
        let token = Arc::clone(&parts.token);
        let manager = Manager {
            leadership: parts.leadership.clone(),
            status: seen,
            histories: told,
            orders,
            passes: Arc::clone(&waiters),
            fetches: Arc::clone(&parts.git_waiters),
            wakes: parts.wakes.clone(),
            probe: Arc::clone(&parts.probe),
            token: Arc::clone(&token),
            lock: Arc::clone(&parts.lock),
            coordination: parts.coordination,
            gate: parts.gate.clone(),
        };
        let keys = leader::Keys::new(&parts.cluster);
        let boards = parts.fence.clone().map(|fence| {
            let board = |prefix: String| Board::new(fence.clone(), prefix);
            Boards {
                stacks: board(keys.stacks()),
                services: board(keys.services()).moving(keys.generation()),
                drains: board(keys.drains()).moving(keys.generation()),
            }
        });
        let memory = Memory::default();
        (Self { parts, boards, orders: ordered, waiters, status, histories, token, memory }, manager)
    }

    /// Passes until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let waiters = Arc::clone(&self.waiters);
        reconcile::run(&waiters.wake, &shutdown, &mut self).await;
    }

    /// What git has is known as of this leadership, or cannot be known better.
    fn has_asked_git(&self) -> bool {
        let since = match &*self.parts.leadership.borrow() {
            Leadership::Leading { since, .. } => *since,
            Leadership::Follower { .. } | Leadership::Suspended { .. } => return false,
        };
        self.parts.git.borrow().is_as_of(since)
    }

    /// The revisions of the states that our clone does not hold: it is older than what was deployed.
    fn unknown_revisions(&self, observed: &Observed) -> Vec<Revision> {
        let marks = observed.states.values().flat_map(|live| {
            let healthy = live.state.healthy.as_ref().and_then(|mark| mark.revision.clone());
            let intended = live.state.rollout.as_ref().and_then(|intent| intent.revision.clone());
            // A rollback holds against what git had then: an older head would look like a change.
            let withheld = live.state.rollback.as_ref().and_then(|rollback| rollback.git.revision.clone());
            [healthy, intended, withheld]
        });
        tokio::task::block_in_place(|| {
            marks.flatten().filter(|revision| self.parts.repo.commit(revision).is_err()).collect()
        })
    }

    /// One pass of the leader.
    async fn lead(&mut self, shutdown: &CancellationToken) -> After {
        if !self.has_asked_git() {
            // What comes of it wakes us.
            self.parts.git_waiters.wake.notify_one();
            return After(RETRY);
        }
        let answers = self.obey().await;
        if self.memory.has_left {
            for (answer, wanted) in answers {
                // Whoever asked may be gone.
                let _ = answer.send(wanted.in_words(&self.status.borrow()));
            }
            return After(IDLE);
        }
        let mut observed = match observe(&self.parts.swarm).await {
            Ok(observed) => observed,
            Err(error) => return self.outage(&error.to_string(), error.is_outage(), answers),
        };
        self.memory.agents = telling::agents_running(&observed);
        self.publish_services(&observed, None).await;
        self.drain(&observed).await;
        let key = match ensure_key(&self.parts.swarm, &observed).await {
            Ok(key) => key,
            Err(error) => return self.outage(&error.to_string(), false, answers),
        };
        let error = self.parts.git.borrow().error.clone();
        if let Some(error) = error
            && let Some(unknown) = self.unknown_revisions(&observed).first()
        {
            let problem = format!(
                "git does not answer, and this node's clone is older than what was deployed ({unknown}): {error}"
            );
            self.show_problem(problem, observed.nodes.len(), answers).await;
            return After(IDLE);
        }
        self.render();
        self.hold(&observed);
        let credentials = self.credentials();
        let auth = |image: &str| ImageRef::parse(image).ok().and_then(|image| credentials.for_image(image.domain()));
        self.resolve(&observed, &key, &auth).await;

        let now = OffsetDateTime::now_utc();
        // Without a head nothing is known of what git says, and nothing is an orphan because of that.
        let Some((_, rendered)) = &self.memory.rendered else {
            self.show_problem("git has told no revision yet".into(), observed.nodes.len(), answers).await;
            return After(IDLE);
        };
        if let Some(problem) = &rendered.problem {
            let problem = problem.clone();
            self.show_problem(problem, observed.nodes.len(), answers).await;
            return After(IDLE);
        }
        let secrets = match secrets_of_adoptions(&self.parts.swarm, &rendered.desired, &observed).await {
            Ok(secrets) => secrets,
            Err(error) => return self.outage(&error.to_string(), error.is_outage(), answers),
        };
        if rendered.desired.iter().any(|stack| stack.settings.consul_checks) {
            let asked = match &self.parts.consul {
                Some(consul) => consul.critical_instances().await.map_err(|error| error.to_string()),
                None => Err("there is no Consul to ask; set consul.address".to_owned()),
            };
            observed.critical = Some(asked.map(critical_tasks));
        }
        let plans = plan_all(&Pass {
            desired: &rendered.desired,
            broken: &rendered.broken,
            held: &self.memory.held,
            observed: &observed,
            images: &self.memory.images,
            secrets: &secrets,
            key: &key,
            now,
            policy: &self.parts.settings.policy,
        });
        self.publish_services(&observed, Some(&plans)).await;
        let (mut stacks, mut after, mut written) = (Vec::new(), IDLE, BTreeMap::new());
        let desired = self.memory.rendered.as_ref().map_or(&[][..], |(_, rendered)| &rendered.desired);
        let targets = targets(desired, &self.memory.held, &observed, &key);
        for plan in &plans {
            let desired = targets.iter().find(|stack| stack.name == plan.stack).copied();
            let outcome = self.apply(plan, &auth, shutdown).await;
            let error = outcome.error.as_ref().map(ToString::to_string);
            let stack = status(desired, observed.stack(&plan.stack), plan, error.as_deref(), now);
            self.tell(&stack, &outcome.told);
            after = after.min(pause(plan, &outcome));
            if outcome.error.is_none() && !outcome.conflict {
                written.extend(plan.state.as_ref().filter(|_| plan.saves_state).map(|state| (&plan.stack, state)));
            }
            stacks.push(stack);
        }
        self.pin(&observed);
        self.show_histories(&observed, written);
        self.show(stacks, observed.nodes.len(), answers).await;
        After(after)
    }

    async fn apply(&self, plan: &Plan, auth: &apply::Auth<'_>, shutdown: &CancellationToken) -> Outcome {
        let span = info_span!("stack", stack = %plan.stack, revision = plan.to.as_ref().map(tracing::field::display));
        let outcome = apply(plan, &self.parts.swarm, auth, shutdown).instrument(span).await;
        let result = match (&outcome.error, outcome.writes) {
            (Some(_), _) => "failed",
            (None, 0) => "unchanged",
            (None, _) => "changed",
        };
        metrics::counter!(telemetry::SYNC_TOTAL, "stack" => plan.stack.to_string(), "result" => result).increment(1);
        outcome
    }

    /// Renders git's head, if it is another than last time.
    fn render(&mut self) {
        let Some(head) = self.parts.git.borrow().head.clone() else { return };
        if self
            .memory
            .rendered
            .as_ref()
            .is_some_and(|(revision, rendered)| *revision == head && rendered.problem.is_none())
        {
            return;
        }
        let options = &self.parts.settings.render;
        // libgit2 reads from the disk; the other worker goes on meanwhile.
        let rendered = tokio::task::block_in_place(|| {
            let tree = self.parts.repo.tree(&head).map_err(|error| error.to_string())?;
            repo::render(&tree, Some(&head), options).map_err(|findings| findings.to_string())
        });
        let rendered = match rendered {
            Ok(repo) => sorted(repo, &head),
            Err(problem) => Rendered { problem: Some(problem), ..Rendered::default() },
        };
        self.memory.rendered = Some((head, rendered));
    }

    fn credentials(&mut self) -> Credentials {
        let (credentials, findings) = Credentials::load(&self.parts.settings.credentials);
        let said = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if said != self.memory.credentials_said {
            if !said.is_empty() {
                warn!(findings = said, "registry credentials");
            }
            self.memory.credentials_said = said;
        }
        credentials
    }

    /// Asks registries for the digests that planning needs and that are not known yet.
    async fn resolve(&mut self, observed: &Observed, key: &Key, auth: &apply::Auth<'_>) {
        let memory = &mut self.memory;
        let desired = memory.rendered.as_ref().map_or(&[][..], |(_, rendered)| &rendered.desired);
        let stacks = targets(desired, &memory.held, observed, key);
        let mut texts: BTreeSet<String> =
            stacks.iter().flat_map(|stack| images_to_resolve(stack, observed.stack(&stack.name))).collect();
        // What nobody asks for any more is forgotten, so that a text that comes back is asked anew.
        memory.images.retain(|text, _| texts.contains(text));
        memory.failed.retain(|text, at| texts.contains(text) && at.elapsed() < RESOLVE_RETRY);
        texts.retain(|text| !memory.failed.contains_key(text) && !matches!(memory.images.get(text), Some(Ok(_))));
        if texts.is_empty() {
            return;
        }
        for (text, answer) in resolve(&self.parts.swarm, texts, auth).await {
            if let Err(error) = &answer {
                warn!(image = text, error, "no digest");
                memory.failed.insert(text.clone(), Instant::now());
            }
            memory.images.insert(text, answer);
        }
    }

    /// What keepers show each other comes from what only managers can read; it changes when the swarm's join token does.
    async fn renew_token(&self) {
        if let Ok(swarm) = self.parts.swarm.swarm().await {
            let token = super::token::derive(&swarm.manager_token, &self.parts.cluster);
            *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
        }
    }
}

impl reconcile::Pass for Keeper {
    async fn pass(&mut self, shutdown: &CancellationToken) -> After {
        let _answered_at_the_end = self.waiters.begin();
        self.renew_token().await;
        let leads = self.parts.leadership.borrow().token();
        let Some(token) = leads else {
            self.refuse_orders();
            self.forget();
            return After(IDLE);
        };
        // Orders wait as well while our predecessor may still write.
        let Some(Ok(_)) = shutdown.run_until_cancelled(self.parts.gate.opened()).await else {
            return After(RETRY);
        };
        let began = Instant::now();
        let after = self.lead(shutdown).instrument(info_span!("pass", token)).await;
        metrics::histogram!(telemetry::RECONCILE_DURATION).record(began.elapsed().as_secs_f64());
        After(self.memory.drain_pause.map_or(after.0, |pause| pause.min(after.0)))
    }
}

fn sorted(repo: ConfigRepo, head: &Revision) -> Rendered {
    let mut rendered = Rendered::default();
    for finding in &repo.findings {
        warn!(revision = %head, "{finding}");
    }
    for (name, stack) in repo.stacks {
        match stack {
            Ok(stack) => rendered.desired.push(stack),
            Err(findings) => {
                warn!(stack = %name, revision = %head, "cannot be rendered; the last good state stays\n{findings}");
                rendered.broken.insert(name, findings.to_string());
            }
        }
    }
    rendered
}

/// When to look at this stack again.
fn pause(plan: &Plan, outcome: &Outcome) -> Duration {
    match (&outcome.error, outcome.again) {
        (Some(_), _) => RETRY,
        (None, true) => AGAIN,
        (None, false) if matches!(plan.verdict, StackState::Rolling | StackState::Waiting) => ROLLING,
        (None, false) => IDLE,
    }
}
