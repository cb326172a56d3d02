//! Does what a plan says: one step after the other, deciding nothing.
//!
//! * The state is saved first, then the steps are done, then what they made (IDs, baselines) is saved, whatever came in between.
//! * The first error ends the stack's pass. A conflict is no error: somebody wrote first, and the next pass looks again.
//! * Service writes that do not depend on each other go [`WRITES_AT_ONCE`] at a time.
//! * Shutdown is honoured between steps, not inside one.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::key::{KEY_CONFIG, Key};
use super::observe::Observed;
use super::plan::{Plan, ServiceWrite, StateAt, Step, Tell};
use super::state::{BadState, Kind, STATE_PREFIX, StackState, command};
use crate::io::swarm::{Error, Swarm, config_content};
use crate::model::{Sensitive, StackName};
use crate::spec::{ConfigSpec, ServiceSpec};
use crate::status::Command;

/// Services written at once within one layer.
pub const WRITES_AT_ONCE: usize = 8;

/// So many times a command is decided anew because the state was written at the same time.
const COMMAND_ATTEMPTS_MAX: usize = 5;

/// Lines of a failed task's log that are told and remembered.
pub const LOG_LINES: usize = 10;

/// Characters of each of them.
const LOG_WIDTH_CHARS: usize = 300;

/// Characters of a log's last line that are remembered as a reason.
const LOG_LINE_CHARS: usize = 120;

/// Gives the credentials for an image's registry, as `X-Registry-Auth` wants them.
pub type Auth<'a> = dyn Fn(&str) -> Option<Sensitive<String>> + Send + Sync + 'a;

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Write calls that succeeded.
    pub writes: usize,
    /// The first error; the rest was not tried.
    pub error: Option<ApplyError>,
    /// True if another pass should follow at once: something was written, or somebody else wrote first.
    pub again: bool,
    /// True if somebody else wrote first, so that this plan was not done to its end.
    pub conflict: bool,
    /// What people are to be told.
    pub told: Vec<Tell>,
}

/// Why a plan was not done to its end.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The engine.
    #[error("{verb} {kind} {name}: {source}")]
    Engine {
        /// What was tried.
        verb: &'static str,
        /// On what.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What it said.
        source: Error,
    },
    /// The state cannot be written.
    #[error(transparent)]
    State(#[from] BadState),
}

impl ApplyError {
    /// True if the swarm as a whole does not answer, so that no stack is to blame.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Engine { source, .. } if source.is_outage())
    }

    fn is_conflict(&self) -> bool {
        matches!(self, Self::Engine { source, .. } if source.is_conflict())
    }
}

/// Does what `plan` says.
pub async fn apply(plan: &Plan, swarm: &Swarm, auth: &Auth<'_>, shutdown: &CancellationToken) -> Outcome {
    let mut outcome = Outcome::default();
    if plan.is_empty() {
        return outcome;
    }
    let mut run = Run {
        plan,
        swarm,
        auth,
        shutdown,
        state: plan.state.clone().unwrap_or_default(),
        saved: None,
        tells: plan.tells.clone(),
        state_at: plan.state_at.clone(),
        ids: plan.ids.clone(),
        writes: 0,
    };
    let result = run.all().await;
    // What was made is noted even after an error: it is ours from the moment it exists.
    let noted = if plan.state.is_some() { run.note_what_was_done().await } else { Ok(()) };
    outcome.writes = run.writes;
    match result.and(noted) {
        Ok(()) => outcome.again = true,
        Err(error) if error.is_conflict() => {
            info!(stack = %plan.stack, %error, "somebody else wrote first; looking again");
            outcome.again = true;
            outcome.conflict = true;
            return outcome;
        }
        Err(error) => outcome.error = Some(error),
    }
    // Without a saved state the same would be told again on the next pass.
    if run.saved.is_some() || plan.state.is_none() || plan.steps.contains(&Step::Forget) {
        outcome.told = run.tells;
    }
    outcome
}

/// A plan being done.
/// A step with what came of it, if it was tried.
type Attempt<'s> = (&'s Step, Option<Result<Option<String>, Error>>);

struct Run<'a> {
    plan: &'a Plan,
    swarm: &'a Swarm,
    auth: &'a Auth<'a>,
    shutdown: &'a CancellationToken,
    /// The state with what was done so far.
    state: StackState,
    /// As it was last saved.
    saved: Option<StackState>,
    tells: Vec<Tell>,
    state_at: Option<StateAt>,
    /// IDs by name, of what lives and of what was made.
    ids: Ids,
    writes: usize,
}

impl Run<'_> {
    async fn all(&mut self) -> Result<(), ApplyError> {
        self.read_logs().await;
        if self.plan.saves_state {
            self.save().await?;
        } else {
            self.saved.clone_from(&self.plan.state);
        }
        let mut steps = self.plan.steps.iter().peekable();
        while let Some(step) = steps.next() {
            if self.shutdown.is_cancelled() {
                return Ok(());
            }
            let mut batch = vec![step];
            while let Some(next) = steps.next_if(|next| layer(step).is_some() && layer(next) == layer(step)) {
                batch.push(next);
            }
            self.batch(batch).await?;
        }
        Ok(())
    }

    /// Steps that do not depend on each other. After an error no further one begins; those under way are waited for and noted.
    async fn batch(&mut self, steps: Vec<&Step>) -> Result<(), ApplyError> {
        let stop = CancellationToken::new();
        let (run, stop) = (&*self, &stop);
        let attempts: Vec<_> = steps.into_iter().map(|step| run.attempt(step, stop)).collect();
        let results: Vec<_> = stream::iter(attempts).buffer_unordered(WRITES_AT_ONCE).collect().await;
        let mut first_error = Ok(());
        for (step, result) in results {
            match result {
                None => {}
                Some(Ok(id)) => self.done(step, id),
                Some(Err(source)) => {
                    let (kind, name) = step.object();
                    let error = ApplyError::Engine { verb: step.verb(), kind, name: name.to_owned(), source };
                    first_error = first_error.and(Err(error));
                }
            }
        }
        first_error
    }

    /// One step, unless another failed meanwhile. Boxed: inside a stream's closure the compiler cannot prove it `Send`.
    fn attempt<'s, 'p: 's>(&'s self, step: &'p Step, halt: &'s CancellationToken) -> BoxFuture<'s, Attempt<'p>> {
        async move {
            if halt.is_cancelled() || self.shutdown.is_cancelled() {
                return (step, None);
            }
            let result = self.step(step).await;
            if result.is_err() {
                halt.cancel();
            }
            (step, Some(result))
        }
        .boxed()
    }

    /// One step; gives the ID of what it made.
    async fn step(&self, step: &Step) -> Result<Option<String>, Error> {
        let swarm = self.swarm;
        match step {
            Step::NetworkCreate(spec) => swarm.network_create(spec).await.map(Some),
            Step::SecretCreate(spec) => swarm.secret_create(spec).await.map(Some),
            Step::ConfigCreate(spec) => swarm.config_create(spec).await.map(Some),
            Step::SecretLabels { id, version, spec } => swarm.secret_update(id, *version, spec).await.map(|()| None),
            Step::ConfigLabels { id, version, spec } => swarm.config_update(id, *version, spec).await.map(|()| None),
            Step::ServiceCreate(write) => {
                let spec = with_ids(&write.spec, &self.ids);
                swarm.service_create(&spec, self.credentials(&spec).as_ref()).await.map(Some)
            }
            Step::ServiceUpdate { id, version, write } => {
                let spec = with_ids(&write.spec, &self.ids);
                swarm.service_update(id, *version, &spec, self.credentials(&spec).as_ref()).await.map(|()| None)
            }
            Step::ServiceRollback { id, version, spec } => {
                swarm.service_rollback(id, *version, spec).await.map(|()| None)
            }
            Step::ServiceRestart { id, version, spec, .. } => {
                swarm.service_update(id, *version, spec, self.credentials(spec).as_ref()).await.map(|()| None)
            }
            Step::Remove { kind, id, .. } => gone(remove(swarm, *kind, id).await).map(|()| None),
            Step::Forget => match &self.state_at {
                Some(at) => gone(swarm.config_remove(&at.id).await).map(|()| None),
                None => Ok(None),
            },
        }
    }

    fn credentials(&self, spec: &ServiceSpec) -> Option<Sensitive<String>> {
        (self.auth)(&spec.task_template.container_spec.image)
    }

    /// Notes what a step did.
    fn done(&mut self, step: &Step, id: Option<String>) {
        self.writes += 1;
        let (kind, name) = step.object();
        info!(stack = %self.plan.stack, kind, name, "{}", step.verb());
        note(&mut self.state, &mut self.ids, step, id);
    }

    async fn note_what_was_done(&mut self) -> Result<(), ApplyError> {
        let forgets = self.plan.steps.contains(&Step::Forget);
        if forgets || self.saved.is_none() || self.saved.as_ref() == Some(&self.state) {
            return Ok(());
        }
        self.save().await
    }

    async fn save(&mut self) -> Result<(), ApplyError> {
        let at = save_state(self.swarm, &self.plan.stack, &self.state, self.state_at.as_ref()).await?;
        self.writes += 1;
        self.state_at = Some(at);
        self.saved = Some(self.state.clone());
        Ok(())
    }

    /// Puts the end of a failed task's log to what is told, and its last line to the reason that is remembered.
    async fn read_logs(&mut self) {
        for tell in &mut self.tells {
            let Some(task) = &tell.task else { continue };
            match self.swarm.task_log(task, LOG_LINES).await {
                Ok(lines) => tell.log = bounded(lines),
                // A log is a help, not a duty: the task's own error is told anyway.
                Err(error) => warn!(stack = %tell.stack, %error, "log of the failed task not read"),
            }
            let Some(line) = tell.log.iter().rev().find(|line| !line.trim().is_empty()) else { continue };
            let line: String = line.trim().chars().take(LOG_LINE_CHARS).collect();
            tell.message = format!("{} {line:?}", tell.message);
            let failure = self.state.failed.last_mut().filter(|failure| failure.revision == tell.revision);
            let service = failure.and_then(|failure| failure.services.get_mut(tell.service.as_ref()?));
            if let Some(service) = service {
                service.reason = format!("{} {line:?}", service.reason);
                service.log.clone_from(&tell.log);
            }
            self.state.retell_last_failure();
        }
    }
}

/// A log's last lines, in bounds: they go into the state, and a program may print without end.
pub fn bounded(lines: Vec<String>) -> Vec<String> {
    let surplus = lines.len().saturating_sub(LOG_LINES);
    lines.into_iter().skip(surplus).map(|line| line.chars().take(LOG_WIDTH_CHARS).collect()).collect()
}

/// Names to IDs, by kind.
pub(super) type Ids = BTreeMap<(Kind, String), String>;

/// Puts in the IDs of what earlier steps made.
pub(super) fn with_ids(spec: &ServiceSpec, ids: &Ids) -> ServiceSpec {
    let id = |kind: Kind, name: &str| ids.get(&(kind, name.to_owned())).cloned();
    let mut spec = spec.clone();
    for network in spec.task_template.networks.iter_mut().flatten() {
        network.target = id(Kind::Network, &network.target).unwrap_or(std::mem::take(&mut network.target));
    }
    let container = &mut spec.task_template.container_spec;
    for secret in container.secrets.iter_mut().flatten().filter(|secret| secret.secret_id.is_empty()) {
        secret.secret_id = id(Kind::Secret, &secret.secret_name).unwrap_or_default();
    }
    for config in container.configs.iter_mut().flatten().filter(|config| config.config_id.is_empty()) {
        config.config_id = id(Kind::Config, &config.config_name).unwrap_or_default();
    }
    let privileges = container.privileges.as_mut();
    if let Some(credentials) = privileges.and_then(|privileges| privileges.credential_spec.as_mut()) {
        credentials.config = id(Kind::Config, &credentials.config).unwrap_or(std::mem::take(&mut credentials.config));
    }
    spec
}

/// What the state says once a step is done; `id` is that of what it made.
pub(super) fn note(state: &mut StackState, ids: &mut Ids, step: &Step, id: Option<String>) {
    let made = match step {
        Step::NetworkCreate(_) => Some(Kind::Network),
        Step::SecretCreate(_) => Some(Kind::Secret),
        Step::ConfigCreate(_) => Some(Kind::Config),
        Step::ServiceCreate(_) => Some(Kind::Service),
        _ => None,
    };
    if let (Some(kind), Some(id)) = (made, id) {
        let (_, name) = step.object();
        ids.insert((kind, name.to_owned()), id.clone());
        state.owned.of_mut(kind).insert(name.to_owned(), id);
    }
    match step {
        Step::ServiceCreate(ServiceWrite { spec, baseline, .. })
        | Step::ServiceUpdate { write: ServiceWrite { spec, baseline, .. }, .. } => {
            state.baselines.insert(spec.name.clone(), baseline.clone());
        }
        Step::Remove { kind, name, .. } => {
            state.owned.of_mut(*kind).remove(name);
            if *kind == Kind::Service {
                state.baselines.remove(name);
            }
        }
        _ => {}
    }
}

/// Service writes of one layer may go together; everything else goes alone.
fn layer(step: &Step) -> Option<usize> {
    match step {
        Step::ServiceCreate(write) | Step::ServiceUpdate { write, .. } => Some(write.layer),
        _ => None,
    }
}

async fn remove(swarm: &Swarm, kind: Kind, id: &str) -> Result<(), Error> {
    match kind {
        Kind::Service => swarm.service_remove(id).await,
        Kind::Network => swarm.network_remove(id).await,
        Kind::Secret => swarm.secret_remove(id).await,
        Kind::Config => swarm.config_remove(id).await,
    }
}

/// What is gone already was to be gone.
fn gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

/// Writes a stack's state: made if it has no place yet, else with compare-and-swap.
async fn save_state(
    swarm: &Swarm,
    stack: &StackName,
    state: &StackState,
    at: Option<&StateAt>,
) -> Result<StateAt, ApplyError> {
    let spec = state.encode(stack)?;
    let failed = |source| ApplyError::Engine { verb: "save", kind: "state", name: spec.name.clone(), source };
    let id = match at {
        None => swarm.config_create(&spec).await.map_err(failed)?,
        Some(at) => {
            // The engine takes an update without content, or with the same one.
            let spec = ConfigSpec { data: Sensitive::default(), ..spec.clone() };
            swarm.config_update(&at.id, at.version, &spec).await.map_err(failed)?;
            at.id.clone()
        }
    };
    let config = swarm.config(&id).await.map_err(failed)?;
    Ok(StateAt { id, version: config.version.index })
}

/// The swarm's key for fingerprints; made once, by whoever comes first.
pub async fn ensure_key(swarm: &Swarm, observed: &Observed) -> Result<Key, KeyError> {
    if let Some(key) = &observed.key {
        return Ok(key.clone());
    }
    let key = Key::random()?;
    let spec = ConfigSpec { name: KEY_CONFIG.into(), data: Sensitive::new(key.encode()), ..ConfigSpec::default() };
    match swarm.config_create(&spec).await {
        Ok(_) => Ok(key),
        Err(Error::AlreadyExists { .. }) => {
            let config = swarm.config(KEY_CONFIG).await?;
            config_content(&config).and_then(|content| Key::decode(&content)).ok_or(KeyError::NoKey)
        }
        Err(error) => Err(error.into()),
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The engine.
    #[error("the key for fingerprints: {0}")]
    Engine(#[from] Error),
    /// The kernel.
    #[error("the key for fingerprints: /dev/urandom: {0}")]
    Random(#[from] std::io::Error),
    /// The config holds something else.
    #[error("config {KEY_CONFIG} holds no key; if it is not swarmkeeper's, remove it")]
    NoKey,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It makes no sense for this stack now.
    #[error("{0}")]
    Refused(String),
    /// It could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// Carries out a person's command about one stack: its state changes, and the next pass does the rest. True if it did change.
pub async fn carry_out(
    swarm: &Swarm,
    stack: &StackName,
    wish: &Command,
    now: OffsetDateTime,
) -> Result<bool, CommandError> {
    let changed = change_state(swarm, stack, &|state| command(state, wish, now)).await?;
    if changed {
        info!(%stack, ?wish, "command taken");
    }
    Ok(changed)
}

/// Gives what a state becomes, or why it does not.
pub type Decide<'a> = dyn Fn(Option<&StackState>) -> Result<StackState, String> + Send + Sync + 'a;

/// Changes a stack's state; true if that took a write. When a pass, or another person, writes it at the same time, it is read and
/// decided again.
pub async fn change_state(swarm: &Swarm, stack: &StackName, decide: &Decide<'_>) -> Result<bool, CommandError> {
    for _ in 0..COMMAND_ATTEMPTS_MAX {
        match change_state_once(swarm, stack, decide).await {
            Err(CommandError::Apply(error)) if error.is_conflict() => {}
            result => return result,
        }
    }
    Err(CommandError::Refused(format!("the state of stack {stack} changes all the time; try again")))
}

async fn change_state_once(swarm: &Swarm, stack: &StackName, decide: &Decide<'_>) -> Result<bool, CommandError> {
    let name = StackState::config_name(stack);
    let live = match swarm.config(&name).await {
        Ok(config) => Some(config),
        Err(Error::NotFound { .. }) => None,
        Err(source) => return Err(ApplyError::Engine { verb: "read", kind: "state", name, source }.into()),
    };
    let before = live.as_ref().map(|config| StackState::decode(&config.spec)).transpose().map_err(ApplyError::from)?;
    let after = decide(before.as_ref()).map_err(CommandError::Refused)?;
    if before.as_ref() == Some(&after) {
        return Ok(false);
    }
    let at = live.map(|config| StateAt { id: config.id, version: config.version.index });
    save_state(swarm, stack, &after, at.as_ref()).await?;
    Ok(true)
}

/// `swarmkeeper leave`: takes away our states and key, and nothing else. Gives how many configs went.
pub async fn leave(swarm: &Swarm) -> Result<usize, Error> {
    let ours = |name: &str| name == KEY_CONFIG || name.starts_with(STATE_PREFIX);
    let configs: Vec<_> = swarm.configs().await?.into_iter().filter(|config| ours(&config.spec.name)).collect();
    for config in &configs {
        gone(swarm.config_remove(&config.id).await)?;
    }
    Ok(configs.len())
}
