//! The words that all parts share: names, revisions, remarks about files, and what a stack should be.

mod ignore;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::spec::{ConfigSpec, NetworkSpec, SecretSpec, ServiceSpec};

pub use ignore::{Field, Ignored, LABEL_IGNORE, check_ignored};

/// A stack's name, the namespace of its objects.
///
/// Docker's own rule (`docker/cli` `cli/compose/convert` and `stack/swarm`): not blank, no white space. Ours is the narrower one that
/// also makes valid object names: it starts with a letter or a digit and goes on with letters, digits, `_`, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct StackName(String);

/// Why a text is not a stack's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a stack's name: use letters, digits, '-', '_' and '.', begin with a letter or a digit, and stay below 64 characters"
)]
pub struct BadStackName(pub String);

impl StackName {
    /// Takes a text that obeys the rule above.
    pub fn new(name: impl Into<String>) -> Result<Self, BadStackName> {
        let name = name.into();
        let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        let goes_on_well = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if starts_well && goes_on_well && name.len() < 64 { Ok(Self(name)) } else { Err(BadStackName(name)) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `stack_key`, as `docker stack deploy` names a stack's objects.
    pub fn scoped(&self, key: &str) -> String {
        format!("{}_{key}", self.0)
    }
}

impl fmt::Display for StackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for StackName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// A git commit id in full; shown by its first seven digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub String);

impl Revision {
    /// The whole commit id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.get(..7).unwrap_or(&self.0))
    }
}

/// Content that must reach no log, plan, metric, error, label, KV value or API answer: it prints as `***` and
/// cannot be serialised.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Sensitive<T>(T);

impl<T> Sensitive<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The content itself; every use is a place to look at when asking where secrets go.
    pub fn reveal(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A place in a file; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Location {
    /// Path as its reader knows it: relative to the Config Repo, or as given on the command line.
    pub file: String,
    /// Line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// Column, from 1; 0 where the whole line is meant.
    pub column: usize,
}

impl Location {
    /// The whole of `file`.
    pub fn file(file: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => write!(f, "{}", self.file),
            (line, 0) => write!(f, "{}:{line}", self.file),
            (line, column) => write!(f, "{}:{line}:{column}", self.file, column = column),
        }
    }
}

/// A mistake in a file, or a remark about it: where, what, and the mend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where in which file, if known.
    pub location: Option<Location>,
    /// The path inside the document, such as `services.web.ports[1]`; empty for the whole document.
    pub path: String,
    /// What was found and what is accepted.
    pub message: String,
    /// What to do about it; empty where the message says it all.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if !self.mend.is_empty() {
            write!(f, " ({})", self.mend)?;
        }
        Ok(())
    }
}

/// All mistakes of one document or folder, never empty; as an error it prints one a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Findings(pub Vec<Finding>);

/// What one stack should be, rendered from one revision.
#[derive(Debug, Clone)]
pub struct DesiredStack {
    /// The stack.
    pub name: StackName,
    /// The commit it was rendered from; none for `deploy -c` and `plan -c`.
    pub revision: Option<Revision>,
    /// What `stack.yml` says about it.
    pub settings: StackSettings,
    /// Services, networks, secrets and configs.
    pub objects: StackObjects,
    /// Remarks that do not stop it, such as keys without effect.
    pub warnings: Vec<Finding>,
}

/// A stack's settings, from its `stack.yml`; the defaults are those of a stack without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackSettings {
    /// Stacks that must have converged before this one is written.
    pub after: Vec<StackName>,
    /// What to do with objects of this name that run already and are not ours.
    pub adopt: Adopt,
    /// True: the stack is to be removed, its volumes kept.
    pub removed: bool,
    /// What to do about changes made by hand.
    pub drift: Drift,
    /// What to do when a rollout fails.
    pub on_failure: OnFailure,
    /// True: a task of a rollout is healthy only while no check in Consul says that it is critical.
    pub consul_checks: bool,
    /// True: a network whose definition changed is removed and made anew, with the services on it.
    pub recreate: bool,
    /// How long a rollout may take before it counts as failed.
    pub timeout: Duration,
}

impl Default for StackSettings {
    fn default() -> Self {
        Self {
            after: Vec::new(),
            adopt: Adopt::Ask,
            removed: false,
            drift: Drift::Report,
            on_failure: OnFailure::RollbackService,
            consul_checks: false,
            recreate: false,
            timeout: Duration::from_mins(10),
        }
    }
}

/// `adopt:` of `stack.yml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adopt {
    /// Show the plan and wait for `swarmkeeper adopt STACK`.
    Ask,
    /// Adopt at once; adopting restarts nothing.
    Auto,
}

/// `drift:` of `stack.yml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Drift {
    /// Say it, leave it.
    Report,
    /// Bring it back to what git says.
    Correct,
}

/// `on_failure:` of `stack.yml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Bring the failed service back to its previous spec; the others stay.
    RollbackService,
    /// Bring every service that this rollout changed back to its previous spec, and remove those that it made.
    RollbackStack,
    /// Leave everything as it is and wait for a person.
    Stop,
}

/// A stack's objects as a compose file describes them, with the names that `docker stack deploy` gives them.
///
/// References inside service specs are by *name* here (`Networks[].Target`, `Secrets[].SecretName`,
/// `Configs[].ConfigName`, the IDs empty); [`crate::stacks`] puts the IDs in.
#[derive(Debug, Clone, Default)]
pub struct StackObjects {
    /// By compose key.
    pub services: BTreeMap<String, DesiredService>,
    /// By compose key; only those that a service uses.
    pub networks: BTreeMap<String, Wanted<NetworkSpec>>,
    /// By compose key.
    pub secrets: BTreeMap<String, Wanted<SecretSpec>>,
    /// By compose key.
    pub configs: BTreeMap<String, Wanted<ConfigSpec>>,
    /// Where each compose path stands, such as `services.web.image` → `compose.yml:7:5`.
    pub sources: BTreeMap<String, Location>,
}

/// A service with what the engine knows nothing of.
#[derive(Debug, Clone)]
pub struct DesiredService {
    /// The spec to send, its references by name.
    pub spec: ServiceSpec,
    /// Compose keys of services in the same stack that go first.
    pub depends_on: Vec<String>,
    /// True if the file says `deploy.replicas`; otherwise a live number of replicas is kept.
    pub replicas_given: bool,
}

/// An object that the stack makes, or one that must be there already.
#[derive(Debug, Clone)]
pub enum Wanted<T> {
    /// The stack's own.
    Own {
        /// What to create. Its name is the one `docker stack deploy` would give.
        spec: T,
        /// True if the file gives the name itself (`name:`), so that no hash may be put behind it.
        named: bool,
    },
    /// Somebody else's, by its name in the swarm.
    External(String),
}
