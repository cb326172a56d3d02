//! What planning takes and gives: plain data.
//!
//! [`Plan`] serialises to the JSON form that the README documents and people's programs read. `SCHEMA` grows when a field changes its
//! meaning or goes; a new field, or a new word, is no new schema. What is for `apply` only is not serialised, and of a step its
//! object is: a spec holds passwords.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use crate::model::{DesiredStack, Location, Revision, StackName};
use crate::spec::{ConfigSpec, NetworkSpec, SecretSpec, ServiceSpec};
use crate::stacks::diff::Difference;
use crate::stacks::images::Resolutions;
use crate::stacks::key::Key;
use crate::stacks::observe::{ObservedStack, SecretContents};
use crate::stacks::state::{Baseline, Kind, StackState};
use crate::status::StackState as Verdict;

/// What the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// A revision that removes more services than this waits for approval.
    pub brake_removes_max: usize,
    /// A revision that restarts more than this share of a stack's services waits for approval.
    pub brake_restarts_percent_max: usize,
    /// Stacks of at most so many services are not braked for restarts: one service of two is half of them.
    pub brake_services_min: usize,
    /// What becomes of a stack that git no longer has.
    pub orphans: Orphans,
    /// Whose stacks these are.
    pub mode: Mode,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            brake_removes_max: 3,
            brake_restarts_percent_max: 30,
            brake_services_min: 3,
            orphans: Orphans::Keep,
            mode: Mode::ConfigRepo,
        }
    }
}

/// `orphans:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// Report it, keep it running.
    Keep,
    /// Remove it, its volumes kept.
    Remove,
}

/// Whose stacks these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Git's: with a state, and with all rules of conduct.
    ConfigRepo,
    /// A person's, as `docker stack deploy` treats them: no state, ownership by namespace label, names without hash.
    Deploy {
        /// Remove services that the file does not have.
        prune: bool,
    },
}

/// All that one stack's planning looks at.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The stack.
    pub stack: &'a StackName,
    /// What git says; none if it has no such stack (any more).
    pub desired: Option<&'a DesiredStack>,
    /// True if that is not git's head but the commit at which a person's rollback holds the stack.
    pub held: bool,
    /// What lives.
    pub observed: ObservedStack<'a>,
    /// What registries said about [`crate::stacks::images_to_resolve`].
    pub images: &'a Resolutions,
    /// Stacks of `after:` that have not converged.
    pub unsettled: &'a [StackName],
    /// Which other stack makes which network, by its name in the swarm.
    pub makers: &'a Makers,
    /// What the engine said about the contents of [`crate::stacks::observe::unrecorded_secrets`].
    pub secrets: &'a SecretContents,
    /// What fingerprints are made with.
    pub key: &'a Key,
    /// The moment.
    pub now: OffsetDateTime,
    /// What is allowed.
    pub policy: &'a Policy,
}

/// Networks by their names in the swarm, and the stacks that make them.
pub type Makers = BTreeMap<String, StackName>;

/// What to do about one stack, and why. See [`Plan::is_empty`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Of this JSON form.
    pub schema: u32,
    /// The stack.
    pub stack: StackName,
    /// The last healthy revision.
    pub from: Option<Revision>,
    /// The revision planned for.
    pub to: Option<Revision>,
    /// In one word.
    pub verdict: Verdict,
    /// What differs, whether or not it is done now.
    pub changes: Vec<Change>,
    /// Objects that are as they should be.
    pub unchanged: usize,
    /// What holds it up, and what a person should know.
    pub notes: Vec<Note>,
    /// What is done now, in this order.
    pub steps: Vec<Step>,
    /// The stack's state as it shall be before the steps; none where there is none.
    #[serde(skip)]
    pub state: Option<StackState>,
    /// True if that state differs from the live one and is written first.
    pub saves_state: bool,
    /// The state's place, for compare-and-swap.
    #[serde(skip)]
    pub state_at: Option<StateAt>,
    /// What people are to be told once.
    pub tells: Vec<Tell>,
    /// True if the stack is as wanted and converged, so that those `after:` it may go on.
    pub settled: bool,
    /// IDs of live objects by name, for specs that name them.
    #[serde(skip)]
    pub ids: BTreeMap<(Kind, String), String>,
}

/// Where a state lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateAt {
    /// Its config's ID.
    pub id: String,
    /// Its config's version.
    pub version: u64,
}

impl Plan {
    /// True if applying it writes nothing at all.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && !self.saves_state
    }

    /// What makes the stack impossible to write.
    pub fn errors(&self) -> Vec<String> {
        let errors = self.notes.iter().filter(|note| note.kind == NoteKind::Error);
        errors.map(|note| note.text.clone()).collect()
    }

    /// How many write calls applying it takes at least.
    pub fn writes(&self) -> usize {
        self.steps.len() + usize::from(self.saves_state)
    }

    /// True if git and the swarm differ, whether or not something is done about it now.
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }
}

/// One object that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is.
    pub kind: Kind,
    /// Its full name.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// For an update: what differs.
    pub differences: Vec<Difference>,
    /// The tasks that are replaced, if any are.
    pub restarts: Option<Restart>,
    /// Why it is not done now; none if it is.
    pub waits: Option<String>,
    /// Where the file says so.
    pub location: Option<Location>,
}

/// What becomes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Made.
    Create,
    /// Changed.
    Update,
    /// Taken away.
    Remove,
    /// Taken away and made anew, because swarm cannot change it.
    Recreate,
}

/// How a service's tasks are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restart {
    /// Tasks.
    pub tasks: u64,
    /// At once; 0 is all.
    pub parallelism: u64,
    /// `start-first` or `stop-first`.
    pub order: String,
    /// True for a job: swarm runs it once more, whatever the change is.
    pub again: bool,
}

/// A remark of planning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What sort.
    pub kind: NoteKind,
    /// One line.
    pub text: String,
}

/// What a difference is called that is none of the spec, but a person's wish.
pub const RESTART: &str = "restart";

/// Sorts of remarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteKind {
    /// Waits for another stack, a service, or tasks that end.
    Waiting,
    /// The brake.
    Braked,
    /// A revision or a service that failed, or was rolled back by hand.
    Held,
    /// Changed by hand.
    Drift,
    /// Not in git.
    Orphan,
    /// Runs already and is not ours.
    Adopt,
    /// A person's pause.
    Paused,
    /// Cannot be planned.
    Error,
    /// Of the stack's namespace, but neither in git nor ours.
    Leftover,
    /// Worth knowing.
    Remark,
}

impl NoteKind {
    /// The verdict on a stack whose plan stops for such a note; none if no plan stops for it.
    pub fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Waiting => Some(Verdict::Waiting),
            Self::Braked => Some(Verdict::Approve),
            Self::Held => Some(Verdict::Held),
            Self::Drift => Some(Verdict::Drift),
            Self::Orphan => Some(Verdict::Orphan),
            Self::Adopt => Some(Verdict::Adopt),
            Self::Paused => Some(Verdict::Paused),
            Self::Error => Some(Verdict::Error),
            Self::Remark | Self::Leftover => None,
        }
    }
}

/// One thing to do; plain data that carry all they need.
///
/// A spec may still *name* an object that an earlier step of the same plan makes, where its ID would stand.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make a network.
    NetworkCreate(NetworkSpec),
    /// Make a secret.
    SecretCreate(SecretSpec),
    /// Make a config.
    ConfigCreate(ConfigSpec),
    /// Change a secret's labels.
    SecretLabels {
        /// Its ID.
        id: String,
        /// Its version.
        version: u64,
        /// With the new labels.
        spec: SecretSpec,
    },
    /// Change a config's labels.
    ConfigLabels {
        /// Its ID.
        id: String,
        /// Its version.
        version: u64,
        /// With the new labels.
        spec: ConfigSpec,
    },
    /// Make a service.
    ServiceCreate(ServiceWrite),
    /// Change a service.
    ServiceUpdate {
        /// Its ID.
        id: String,
        /// Its version.
        version: u64,
        /// To what.
        write: ServiceWrite,
    },
    /// Bring a service back to its previous spec.
    ServiceRollback {
        /// Its ID.
        id: String,
        /// Its version.
        version: u64,
        /// As it lives.
        spec: Box<ServiceSpec>,
    },
    /// Replace a service's tasks, because a person asked for it.
    ServiceRestart {
        /// Its ID.
        id: String,
        /// Its version.
        version: u64,
        /// As it lives, its ForceUpdate aside.
        spec: Box<ServiceSpec>,
    },
    /// Take an object away.
    Remove {
        /// What it is.
        kind: Kind,
        /// Its ID.
        id: String,
        /// Its name.
        name: String,
    },
    /// Forget the stack: remove its state.
    Forget,
}

/// A service to write.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceWrite {
    /// The spec.
    pub spec: Box<ServiceSpec>,
    /// What the state then says about it.
    pub baseline: Baseline,
    /// Writes of one layer do not depend on each other.
    pub layer: usize,
}

impl Plan {
    /// The services as this plan writes them.
    pub fn service_writes(&self) -> impl Iterator<Item = &ServiceSpec> {
        self.steps.iter().filter_map(|step| match step {
            Step::ServiceCreate(write) | Step::ServiceUpdate { write, .. } => Some(write.spec.as_ref()),
            _ => None,
        })
    }
}

impl Step {
    /// The verb, stable for machines.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::NetworkCreate(_) | Self::SecretCreate(_) | Self::ConfigCreate(_) | Self::ServiceCreate(_) => "create",
            Self::SecretLabels { .. } | Self::ConfigLabels { .. } => "relabel",
            Self::ServiceUpdate { .. } => "update",
            Self::ServiceRollback { .. } => "roll-back",
            Self::ServiceRestart { .. } => "restart",
            Self::Remove { .. } => "remove",
            Self::Forget => "forget",
        }
    }

    /// The kind and name of its object.
    pub fn object(&self) -> (&'static str, &str) {
        match self {
            Self::NetworkCreate(spec) => ("network", &spec.name),
            Self::SecretCreate(spec) | Self::SecretLabels { spec, .. } => ("secret", &spec.name),
            Self::ConfigCreate(spec) | Self::ConfigLabels { spec, .. } => ("config", &spec.name),
            Self::ServiceCreate(write) | Self::ServiceUpdate { write, .. } => ("service", &write.spec.name),
            Self::ServiceRollback { spec, .. } | Self::ServiceRestart { spec, .. } => ("service", &spec.name),
            Self::Remove { kind, name, .. } => (kind.word(), name),
            Self::Forget => ("state", ""),
        }
    }
}

impl Serialize for Step {
    /// Verb, kind and name: a spec may hold passwords in its environment.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, name) = self.object();
        let mut step = serializer.serialize_struct("Step", 3)?;
        step.serialize_field("do", self.verb())?;
        step.serialize_field("kind", kind)?;
        step.serialize_field("name", name)?;
        step.end()
    }
}

/// What people are to be told once, for the log and `notify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tell {
    /// What happened.
    pub event: Event,
    /// The stack.
    pub stack: StackName,
    /// The service, if it is about one.
    pub service: Option<String>,
    /// The revision, if it is about one.
    pub revision: Option<Revision>,
    /// One line.
    pub message: String,
    /// The task to read the log of.
    #[serde(skip)]
    pub task: Option<String>,
    /// The end of that log.
    pub log: Vec<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A rollout began.
    Started,
    /// A revision runs.
    Converged,
    /// Swarm, or we, brought a service back.
    RolledBack,
    /// A rollout failed.
    Failed,
    /// Somebody rolled a service back by hand; it is left alone.
    Held,
    /// A restart that a person asked for is done.
    Restarted,
    /// The brake waits for approval.
    Braked,
    /// A running stack was taken over.
    Adopted,
    /// Git no longer has the stack.
    Orphaned,
    /// A stack is gone.
    Removed,
}
