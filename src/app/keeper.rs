//! The leader's loop: git → rendered stacks → plan → swarm, and what people are told of it.
//!
//! One pass renders the revision that git has (if it is another than last time), carries out what people asked for, observes the swarm,
//! plans every stack, applies the plans, and tells: in the status, in Consul KV, in the log, and through notifications. It waits for
//! nothing: while a rollout is under way the next pass comes soon, otherwise late.
//!
//! A new leader's clone may be older than what its predecessor deployed, and to act on it would take services away or back. So it
//! asks git before its first pass. If git does not answer, it goes on with its clone only if that holds every revision that the
//! stacks' states speak of.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};

use super::agent::{Manager, Order};
use super::git::GitView;
use super::relay::Relay;
use super::settings::Settings;
use super::waiters::Waiters;
use crate::http::{CommandError, CommandErrorKind};
use crate::image::ImageRef;
use crate::io::consul::Consul;
use crate::io::git::GitRepo;
use crate::io::registry::Credentials;
use crate::io::swarm::Swarm;
use crate::leader::publish::Board;
use crate::leader::{self, Fence, Leadership};
use crate::model::{Revision, Sensitive, StackName};
use crate::notify::{Notification, Notifier};
use crate::reconcile::After;
use crate::repo::{self, ConfigRepo};
use crate::stacks::apply::{self, Outcome, apply, carry_out, ensure_key};
use crate::stacks::observe::{observe, resolve, secrets_of_adoptions};
use crate::stacks::pass::{Pass, plan_all};
use crate::stacks::plan::{Event, Tell};
use crate::stacks::status::status;
use crate::stacks::{Observed, Plan, Resolutions, images_to_resolve};
use crate::status::{AgentCount, ClusterStatus, Command, GitStatus, LeaderStatus, StackState, StackStatus};
use crate::telemetry::{self, StackGauges};

/// The pause between two passes while nothing happens: what was changed by hand shows up after it.
const IDLE: Duration = Duration::from_secs(30);

/// The pause while a rollout is under way.
const ROLLING: Duration = Duration::from_millis(700);

/// The pause after a pass that wrote something, or whose write came too late: somebody else had changed the object.
const AGAIN: Duration = Duration::from_millis(50);

/// The pause after a failure of the engine.
const RETRY: Duration = Duration::from_secs(3);

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
    /// This node's Consul agent.
    pub consul: Consul,
    /// What every write is asked of.
    pub fence: Fence,
    /// Who is told.
    pub notifier: Notifier,
    /// What we are.
    pub leadership: watch::Receiver<Leadership>,
    /// What git has.
    pub git: watch::Receiver<GitView>,
    /// Asks for a look at git.
    pub git_waiters: Arc<Waiters>,
}

/// The leader's loop.
pub struct Keeper {
    parts: Parts,
    board: Board,
    orders: mpsc::Receiver<Order>,
    waiters: Arc<Waiters>,
    wakes: mpsc::Receiver<()>,
    status: watch::Sender<ClusterStatus>,
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
    /// The first of a row of equal problems is said, and its end.
    problem: Option<String>,
    /// `leave` was asked for: this process deploys nothing any more.
    has_left: bool,
    /// The revisions pinned in our clone.
    pinned: BTreeMap<StackName, Revision>,
    /// What was wrong with credentials last time.
    credentials_said: String,
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
        let (wakes, woken) = mpsc::channel(1);
        let (status, seen) = watch::channel(nothing_known(&parts.cluster));
        let token = Arc::new(RwLock::new(None));
        let manager = Manager {
            leadership: parts.leadership.clone(),
            status: seen,
            orders,
            passes: Arc::clone(&waiters),
            fetches: Arc::clone(&parts.git_waiters),
            wakes,
            token: Arc::clone(&token),
        };
        let board = Board::new(parts.fence.clone(), leader::Keys::new(&parts.cluster).stacks());
        let memory = Memory::default();
        (Self { parts, board, orders: ordered, waiters, wakes: woken, status, token, memory }, manager)
    }

    /// Passes until `shutdown`. `woken` brings the names of nodes that saw a webhook.
    pub async fn run(mut self, woken: mpsc::Receiver<String>, shutdown: CancellationToken) {
        let relay = Relay {
            consul: self.parts.consul.clone(),
            cluster: self.parts.cluster.clone(),
            node: self.parts.node.clone(),
            leadership: self.parts.leadership.clone(),
            git: self.parts.git.clone(),
            passes: Arc::clone(&self.waiters),
            fetches: Arc::clone(&self.parts.git_waiters),
            ours: std::mem::replace(&mut self.wakes, mpsc::channel(1).1),
            others: woken,
        };
        // The relay ends with the passes; it holds nothing that a pass does not find out by itself.
        tokio::select! {
            () = self.passes(&shutdown) => {}
            () = relay.run() => {}
        }
    }

    async fn passes(&mut self, shutdown: &CancellationToken) {
        let waiters = Arc::clone(&self.waiters);
        while !shutdown.is_cancelled() {
            let After(pause) = self.pass(shutdown).await;
            // Cancel-safe: a notification stays until it is taken. The outcome does not matter, the loop looks itself.
            let _ = tokio::time::timeout(pause, shutdown.run_until_cancelled(waiters.wake.notified())).await;
        }
    }

    async fn pass(&mut self, shutdown: &CancellationToken) -> After {
        let _answered_at_the_end = self.waiters.begin();
        self.renew_token().await;
        let leads = self.parts.leadership.borrow().token();
        let Some(token) = leads else {
            self.refuse_orders();
            self.memory.gauges.show(&[]);
            return After(IDLE);
        };
        // Orders wait as well while our predecessor may still write.
        let Some(Ok(_)) = shutdown.run_until_cancelled(self.parts.fence.opened()).await else {
            return After(RETRY);
        };
        let began = Instant::now();
        let after = self.lead(shutdown).instrument(info_span!("pass", token)).await;
        metrics::histogram!(telemetry::RECONCILE_DURATION).record(began.elapsed().as_secs_f64());
        after
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
            [healthy, intended]
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
        let observed = match observe(&self.parts.swarm).await {
            Ok(observed) => observed,
            Err(error) => return self.outage(&error.to_string(), error.is_outage(), answers),
        };
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
            self.show(Vec::new(), observed.nodes.len(), vec![problem], answers).await;
            return After(IDLE);
        }
        self.render();
        let credentials = self.credentials();
        let auth = |image: &str| ImageRef::parse(image).ok().and_then(|image| credentials.for_image(image.domain()));
        self.resolve(&observed, &auth).await;

        let now = OffsetDateTime::now_utc();
        let nothing = Rendered::default();
        let rendered = self.memory.rendered.as_ref().map_or(&nothing, |(_, rendered)| rendered);
        // What git says is not known: nothing is an orphan because of that.
        if rendered.problem.is_some() || self.memory.rendered.is_none() {
            let problem = rendered.problem.clone();
            self.show(Vec::new(), observed.nodes.len(), problem.into_iter().collect(), answers).await;
            return After(IDLE);
        }
        let secrets = match secrets_of_adoptions(&self.parts.swarm, &rendered.desired, &observed).await {
            Ok(secrets) => secrets,
            Err(error) => return self.outage(&error.to_string(), error.is_outage(), answers),
        };
        let plans = plan_all(&Pass {
            desired: &rendered.desired,
            broken: &rendered.broken,
            observed: &observed,
            images: &self.memory.images,
            secrets: &secrets,
            key: &key,
            now,
            policy: &self.parts.settings.policy,
        });
        let (mut stacks, mut after) = (Vec::new(), IDLE);
        for plan in &plans {
            let desired = rendered.desired.iter().find(|stack| stack.name == plan.stack);
            let outcome = self.apply(plan, &auth, shutdown).await;
            let error = outcome.error.as_ref().map(ToString::to_string);
            let stack = status(desired, observed.stack(&plan.stack), plan, error.as_deref(), now);
            self.tell(&stack, &outcome.told);
            after = after.min(pause(plan, &outcome));
            stacks.push(stack);
        }
        self.pin(&observed);
        self.show(stacks, observed.nodes.len(), Vec::new(), answers).await;
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

    /// Carries out what people asked for; their answers are given when the pass has ended.
    async fn obey(&mut self) -> Answers {
        let mut answers = Vec::new();
        while let Ok((command, answer)) = self.orders.try_recv() {
            let result = match stack_of(&command) {
                None if command == Command::Leave => Answer::Said(self.leave().await),
                None => Answer::Summary,
                Some(stack) => match self.obey_one(stack, &command).await {
                    Ok(()) => Answer::Stack(stack.clone()),
                    Err(error) => Answer::Said(Err(error)),
                },
            };
            answers.push((answer, result));
        }
        answers
    }

    async fn obey_one(&self, stack: &StackName, command: &Command) -> Result<(), CommandError> {
        let failed =
            |kind: CommandErrorKind, error: String, next: &str| CommandError { kind, error, next: next.into() };
        let now = OffsetDateTime::now_utc();
        carry_out(&self.parts.swarm, stack, command, now).await.map_err(|error| match error {
            apply::CommandError::Refused(reason) => {
                failed(CommandErrorKind::Conflict, reason, "`swarmkeeper status` shows what can be done")
            }
            apply::CommandError::Apply(error) => {
                failed(CommandErrorKind::Unavailable, error.to_string(), "ask again in a few seconds")
            }
        })
    }

    /// Takes our states and KV away, and tells every agent to take its registrations away.
    async fn leave(&mut self) -> Result<String, CommandError> {
        let failed = |error: String| CommandError {
            kind: CommandErrorKind::Unavailable,
            error,
            next: "ask again: what is gone already is no error".into(),
        };
        super::leaving::say(&self.parts.consul, &self.parts.cluster)
            .await
            .map_err(|error| failed(error.to_string()))?;
        // From here on no pass may make anew what is taken away.
        self.memory.has_left = true;
        let configs = apply::leave(&self.parts.swarm).await.map_err(|error| failed(error.to_string()))?;
        info!(configs, "left: nothing that runs was touched");
        Ok(format!(
            "{configs} configs of ours removed, every agent takes its registrations away and stays idle; now remove the stack: docker \
             stack rm swarmkeeper"
        ))
    }

    fn refuse_orders(&mut self) {
        while let Ok((_, answer)) = self.orders.try_recv() {
            // Whoever asked may be gone.
            let _ = answer.send(Err(CommandError {
                kind: CommandErrorKind::Unavailable,
                error: format!("{} does not lead any more", self.parts.node),
                next: "ask again in a few seconds".into(),
            }));
        }
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

    /// Keeps what the stacks' healthy revisions were made of readable, even when the branch is rewritten.
    fn pin(&mut self, observed: &Observed) {
        for (stack, live) in &observed.states {
            let Some(revision) = live.state.healthy.as_ref().and_then(|mark| mark.revision.as_ref()) else { continue };
            if self.memory.pinned.get(stack) == Some(revision) {
                continue;
            }
            let name = format!("healthy/{stack}");
            match tokio::task::block_in_place(|| self.parts.repo.pin(&name, revision)) {
                Ok(()) => drop(self.memory.pinned.insert(stack.clone(), revision.clone())),
                // A clone made after the branch was rewritten does not have it: nothing is lost that was there.
                Err(error) => tracing::debug!(%stack, %revision, %error, "not pinned"),
            }
        }
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
    async fn resolve(&mut self, observed: &Observed, auth: &apply::Auth<'_>) {
        let memory = &mut self.memory;
        let desired = memory.rendered.as_ref().map_or(&[][..], |(_, rendered)| &rendered.desired);
        let mut texts: std::collections::BTreeSet<String> =
            desired.iter().flat_map(|stack| images_to_resolve(stack, observed.stack(&stack.name))).collect();
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

    /// The swarm did not answer: said once, shown until it does.
    fn outage(&mut self, error: &str, is_outage: bool, answers: Answers) -> After {
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
        for (answer, _) in answers {
            let error = CommandError {
                kind: CommandErrorKind::Unavailable,
                error: problem.clone(),
                next: "ask again when the swarm answers".into(),
            };
            let _ = answer.send(Err(error));
        }
        After(RETRY)
    }

    /// Log and notifications: each event once.
    fn tell(&self, stack: &StackStatus, told: &[Tell]) {
        for tell in told {
            let (service, revision) = (tell.service.as_deref(), tell.revision.as_ref().map(tracing::field::display));
            let event = tell.event;
            match event {
                Event::Failed | Event::RolledBack | Event::Held | Event::Braked | Event::Orphaned => {
                    warn!(stack = %tell.stack, service, revision, ?event, log = tell.log.join("\n"), "{}", tell.message);
                }
                Event::Started | Event::Converged | Event::Adopted | Event::Removed => {
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

    /// Status, gauges, KV, and the answers to those who asked.
    async fn show(&mut self, stacks: Vec<StackStatus>, nodes: usize, problems: Vec<String>, answers: Answers) {
        if self.memory.problem.take().is_some() && problems.is_empty() {
            info!("the swarm answers again");
        }
        self.memory.gauges.show(&stacks);
        let published =
            stacks.iter().filter_map(|stack| Some((stack.name.to_string(), serde_json::to_value(stack).ok()?)));
        if let Err(error) = self.board.publish(published.collect()).await {
            warn!(%error, "the stacks' status is not in consul");
        }
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
        let passing = self.parts.consul.health_nodes("swarmkeeper", true).await.map_or(0, |nodes| nodes.len());
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

/// Those who asked, and what each is told.
type Answers = Vec<(oneshot::Sender<Result<String, CommandError>>, Answer)>;

/// What somebody who asked is told at the end of the pass.
enum Answer {
    /// How all stacks are.
    Summary,
    /// How one stack is.
    Stack(StackName),
    /// This.
    Said(Result<String, CommandError>),
}

impl Answer {
    fn in_words(self, status: &ClusterStatus) -> Result<String, CommandError> {
        match self {
            Self::Said(answer) => answer,
            Self::Stack(name) => {
                let stack = status.stacks.iter().find(|stack| stack.name == name);
                Ok(stack.map_or_else(|| format!("{name}: done"), |stack| format!("{name}: {}", stack.note)))
            }
            Self::Summary => {
                let git = status.git.as_ref();
                if let Some(error) = git.and_then(|git| git.error.as_ref()) {
                    return Err(CommandError {
                        kind: CommandErrorKind::Unavailable,
                        error: format!("git: {error}"),
                        next: "the last good revision stays; `swarmkeeper doctor` looks closer".into(),
                    });
                }
                let revision = git.and_then(|git| git.revision.as_ref()).map(ToString::to_string).unwrap_or_default();
                let need = status.stacks.iter().filter(|stack| stack.state.needs_a_person()).count();
                Ok(format!("at {revision}: {} stacks, {need} need you", status.stacks.len()))
            }
        }
    }
}

fn stack_of(command: &Command) -> Option<&StackName> {
    match command {
        Command::Adopt { stack }
        | Command::Approve { stack, .. }
        | Command::Remove { stack }
        | Command::Retry { stack }
        | Command::Pause { stack, .. }
        | Command::Resume { stack } => Some(stack),
        Command::Sync | Command::Leave => None,
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

fn nothing_known(cluster: &str) -> ClusterStatus {
    ClusterStatus {
        cluster: cluster.to_owned(),
        leader: None,
        git: None,
        agents: AgentCount::default(),
        stacks: Vec::new(),
        problems: vec!["no pass yet".to_owned()],
    }
}
