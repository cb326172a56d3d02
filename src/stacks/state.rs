//! What binds us about a stack: one swarm config per stack, `swarmkeeper-state-<stack>`, its JSON in a label.
//!
//! Everything that a decision depends on and that git and the swarm do not say stands here: what we own, pauses and holds, what
//! failed, what was approved, chosen digests. It survives the loss of Consul and of us. A config's labels can be changed, with its
//! version as compare-and-swap, so of two writers one wins. It carries no namespace label (`docker stack rm` leaves it alone) and no
//! secret: contents and specs are there as keyed fingerprints only.
//!
//! Fields that this version does not know survive a rewrite. A state with a newer *schema* is not touched at all.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::history::Entry;
use super::rollback::Rollback;
use crate::model::{Revision, StackName};
use crate::spec::{ConfigSpec, Extra, Labels, Platform};
use crate::status::Command;

/// Names of state configs begin so.
pub const STATE_PREFIX: &str = "swarmkeeper-state-";

/// The label that holds the JSON.
const LABEL_STATE: &str = "swarmkeeper.state";

/// Grows when an older version must no longer write the state.
const SCHEMA: u32 = 1;

/// Failures remembered for a stack; the oldest go.
const FAILURES_MAX: usize = 10;

/// Approvals remembered for a stack; the oldest go.
const APPROVALS_MAX: usize = 10;

/// Fewest digits of a revision that a person may approve by.
const REVISION_DIGITS_MIN: usize = 7;

/// Longest reason that a person may give, in characters.
const REASON_CHARS_MAX: usize = 500;

/// Largest state written. The engine takes 1.4 MB in labels.
pub const STATE_BYTES_MAX: usize = 1_000_000;

/// Everything that binds us about a stack.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StackState {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// What we own.
    pub owned: Owned,
    /// Per service, by its full name: what was last applied or accepted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub baselines: BTreeMap<String, Baseline>,
    /// Per own secret (`secret/key`) and config (`config/key`): its content and the name it lives under.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub contents: BTreeMap<String, Content>,
    /// Chosen images by the text in git.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, Image>,
    /// The rollout on its way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Intent>,
    /// The last revision that converged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthy: Option<Mark>,
    /// What failed, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failure>,
    /// Services that somebody rolled back by hand, by full name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub holds: BTreeMap<String, Hold>,
    /// Left alone by a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// How the last rollouts ended, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Entry>,
    /// A person brought the stack back to a revision, where it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Networks that were made anew, by name, with a fingerprint of the definition: never twice for the same.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub remade: BTreeMap<String, String>,
    /// Services that a person wants restarted, by full name; gone when that is done.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub restarts: BTreeMap<String, RestartWish>,
    /// Revisions let through the brake, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approved: Vec<String>,
    /// A person said `adopt`, and it has not been done yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
    /// A person said `remove`, and it has not been done yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub remove: bool,
    /// What a person was last asked for or told, so that it is told once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What we own: names to IDs, by kind. The *ID* is what counts; the name serves people and a stack that git no longer has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Owned {
    /// Services.
    pub services: BTreeMap<String, String>,
    /// Networks.
    pub networks: BTreeMap<String, String>,
    /// Secrets, superseded generations included.
    pub secrets: BTreeMap<String, String>,
    /// Configs, superseded generations included.
    pub configs: BTreeMap<String, String>,
}

impl Owned {
    /// The names and IDs of one kind.
    pub fn of(&self, kind: Kind) -> &BTreeMap<String, String> {
        match kind {
            Kind::Service => &self.services,
            Kind::Network => &self.networks,
            Kind::Secret => &self.secrets,
            Kind::Config => &self.configs,
        }
    }

    /// The same, to change.
    pub fn of_mut(&mut self, kind: Kind) -> &mut BTreeMap<String, String> {
        match kind {
            Kind::Service => &mut self.services,
            Kind::Network => &mut self.networks,
            Kind::Secret => &mut self.secrets,
            Kind::Config => &mut self.configs,
        }
    }

    /// True if this very object is ours.
    pub fn has(&self, kind: Kind, name: &str, id: &str) -> bool {
        self.of(kind).get(name).is_some_and(|owned| owned == id)
    }

    /// True if nothing is ours.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.networks.is_empty() && self.secrets.is_empty() && self.configs.is_empty()
    }
}

/// The four kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A service.
    Service,
    /// A network.
    Network,
    /// A secret.
    Secret,
    /// A config.
    Config,
}

impl Kind {
    /// All of them, in the order in which they are removed.
    pub const ALL: [Self; 4] = [Self::Service, Self::Network, Self::Secret, Self::Config];

    /// The kind as people write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Network => "network",
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }
}

/// What was last applied to a service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Baseline {
    /// Fingerprint of what git said. While it is the same, a difference to what lives is not git's doing.
    pub desired: String,
    /// Only where adoption accepted a service that differs from git: the fingerprint of how it lived then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<String>,
    /// Full names of the services that it depends on, for removing in the right order when git no longer says it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub depends_on: BTreeSet<String>,
}

/// A secret's or config's content and the name it lives under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Keyed fingerprint.
    pub hash: String,
    /// The live object's name.
    pub name: String,
    /// The one before it, which is kept: to come back to it makes nothing anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Generation>,
}

/// A former content of a secret or config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Keyed fingerprint; empty where it was never known.
    pub hash: String,
    /// The live object's name.
    pub name: String,
}

impl Content {
    /// What a content leaves behind when this one takes its place.
    pub fn as_generation(&self) -> Generation {
        Generation { hash: self.hash.clone(), name: self.name.clone() }
    }
}

/// A chosen image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// `name:tag@digest`.
    pub image: String,
    /// What it runs on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<Platform>,
}

/// A rollout, recorded before its first write, so that a successor goes on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Intent {
    /// The revision.
    pub revision: Option<Revision>,
    /// The stack's fingerprint.
    pub fingerprint: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// When it counts as failed.
    #[serde(with = "time::serde::rfc3339")]
    pub deadline: OffsetDateTime,
    /// Full names of the services it changes.
    #[serde(default)]
    pub services: BTreeSet<String>,
    /// Objects about to be made, as `kind/name`: found alive with these names they are ours, even if we died before noting their IDs.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub creating: BTreeSet<String>,
    /// Full names of the services that were not there before it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub made: BTreeSet<String>,
    /// Networks that are being made anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaking: Option<Remaking>,
}

/// Networks that are being made anew, recorded before the first service is taken off one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Remaking {
    /// Names, and the IDs of the networks that have to go.
    pub networks: BTreeMap<String, String>,
    /// The services that are taken off, by full name.
    pub services: BTreeMap<String, Kept>,
}

/// What git does not say of a service, for when it is made anew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// How many tasks it had.
    pub replicas: Option<u64>,
    /// Its counter of forced restarts.
    pub force_update: u64,
    /// Its image's text in the file.
    pub text: String,
    /// Its image.
    pub image: Image,
}

/// A revision with the stack's fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The revision.
    pub revision: Option<Revision>,
    /// The stack's fingerprint.
    pub fingerprint: String,
}

/// A rollout that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The revision.
    pub revision: Option<Revision>,
    /// The stack's fingerprint: the same one is not tried again.
    pub fingerprint: String,
    /// Why, by the full name of each service that failed.
    pub services: BTreeMap<String, ServiceFailure>,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl Failure {
    /// The first service's reason, for one line.
    pub fn reason(&self) -> String {
        let reason = self.services.iter().next().map(|(name, failure)| format!("{name} {}", failure.reason));
        reason.unwrap_or_else(|| "failed".into())
    }

    /// The first service's log: that of the one whose reason is told.
    pub fn log(&self) -> &[String] {
        self.services.values().next().map_or(&[], |failure| &failure.log)
    }
}

/// Why a service failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFailure {
    /// Fingerprint of what git said about it.
    pub fingerprint: String,
    /// The task's own error, or the deadline.
    pub reason: String,
    /// The last lines that the task printed, in the bounds of [`crate::stacks::apply`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// A service that somebody rolled back by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Fingerprint of what git said about it: the hold ends when git says something else.
    pub fingerprint: String,
    /// When we saw it.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// A stack left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Why.
    pub reason: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// True if all stacks were paused together: they are resumed together.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// A restart that a person asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartWish {
    /// Why.
    pub reason: String,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The service's ForceUpdate when it is done. Noted before the write, so that a successor does not restart once more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force_update: Option<u64>,
}

/// A state that cannot be read: the stack is left alone until a person looks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state of stack {stack}: {reason}")]
pub struct BadState {
    /// The stack.
    pub stack: String,
    /// What is wrong with it.
    pub reason: String,
}

impl StackState {
    /// The name of a stack's state config.
    pub fn config_name(stack: &StackName) -> String {
        format!("{STATE_PREFIX}{stack}")
    }

    /// The state config to write; no namespace label, no content to speak of.
    pub fn encode(&self, stack: &StackName) -> Result<ConfigSpec, BadState> {
        let bad = |reason: String| BadState { stack: stack.to_string(), reason };
        let state = Self { schema: SCHEMA.max(self.schema), ..self.clone() };
        let json = serde_json::to_string(&state).map_err(|error| bad(error.to_string()))?;
        if json.len() > STATE_BYTES_MAX {
            return Err(bad(format!("{} bytes, more than {STATE_BYTES_MAX}", json.len())));
        }
        Ok(ConfigSpec {
            name: Self::config_name(stack),
            labels: Some(Labels::from([(LABEL_STATE.to_owned(), json)])),
            // The engine wants some content; it says whose this is.
            data: crate::model::Sensitive::new(b"swarmkeeper keeps its state in this config's labels\n".to_vec()),
            ..ConfigSpec::default()
        })
    }

    /// Reads a state config.
    pub fn decode(spec: &ConfigSpec) -> Result<Self, BadState> {
        let stack = spec.name.strip_prefix(STATE_PREFIX).unwrap_or(&spec.name).to_owned();
        let bad = |reason: String| BadState { stack: stack.clone(), reason };
        let json = spec.labels.as_ref().and_then(|labels| labels.get(LABEL_STATE));
        let json = json.ok_or_else(|| bad(format!("label {LABEL_STATE} is missing")))?;
        let state: Self = serde_json::from_str(json).map_err(|error| bad(error.to_string()))?;
        if state.schema > SCHEMA {
            return Err(bad(format!("schema {} is newer than {SCHEMA}, the newest known here", state.schema)));
        }
        Ok(state)
    }

    /// The failure of exactly this fingerprint, if it failed.
    pub fn failure_of(&self, fingerprint: &str) -> Option<&Failure> {
        self.failed.iter().rev().find(|failure| failure.fingerprint == fingerprint)
    }

    /// Why this service failed with exactly this fingerprint, if it did.
    pub fn service_failure(&self, service: &str, fingerprint: &str) -> Option<&ServiceFailure> {
        let of = |failure| Failure::service(failure, service);
        self.failed.iter().rev().filter_map(of).find(|failure| failure.fingerprint == fingerprint)
    }

    /// Remembers a failure.
    pub fn remember(&mut self, failure: Failure) {
        self.failed.push(failure);
        let surplus = self.failed.len().saturating_sub(FAILURES_MAX);
        self.failed.drain(..surplus);
    }

    /// The history's last failure says what the failure that is remembered says: its reason is completed by a log.
    pub fn retell_last_failure(&mut self) {
        let Some(failure) = self.failed.last() else { return };
        let entry = self.history.last_mut().filter(|entry| entry.revision == failure.revision && !entry.runs());
        if let Some(entry) = entry {
            entry.set_reason(&failure.reason());
            entry.log = failure.log().to_vec();
        }
    }

    /// True if a person let this revision through the brake.
    pub fn approves(&self, revision: Option<&Revision>) -> bool {
        revision
            .is_some_and(|revision| self.approved.iter().any(|prefix| revision.as_str().starts_with(prefix.as_str())))
    }
}

impl Failure {
    fn service<'a>(&'a self, service: &str) -> Option<&'a ServiceFailure> {
        self.services.get(service)
    }
}

/// What a person's command makes of a stack's state. Without a state yet, only what makes sense then is accepted.
pub fn command(state: Option<&StackState>, command: &Command, now: OffsetDateTime) -> Result<StackState, String> {
    let mut new = state.cloned().unwrap_or_default();
    match command {
        Command::Adopt { .. } => new.adopt = true,
        Command::Pause { reason, .. } => {
            new.pause = Some(Pause { reason: checked(reason)?, since: now, all: false });
        }
        Command::PauseAll { reason } => {
            // Who paused one stack had a reason that outlives this one.
            if new.pause.is_none() {
                new.pause = Some(Pause { reason: checked(reason)?, since: now, all: true });
            }
        }
        Command::ResumeAll => drop(new.pause.take_if(|pause| pause.all)),
        Command::Restart { stack, service, reason } => {
            let restart = RestartWish { reason: checked(reason)?, since: now, force_update: None };
            new.restarts.insert(owned_service(&new, stack, service)?, restart);
        }
        Command::Remove { stack } => {
            state.ok_or_else(|| {
                format!("swarmkeeper does not manage stack {stack}; `docker stack rm {stack}` removes it")
            })?;
            new.remove = true;
        }
        Command::Approve { stack, revision } => approve(&mut new, stack, revision)?,
        Command::Retry { stack } => {
            if new.failed.is_empty() {
                return Err(format!("nothing of stack {stack} has failed"));
            }
            forget_failures(&mut new);
            // A tag that failed may have been pushed again. A rollback has its own digests, and those of git's head wait meanwhile.
            if new.rollback.is_none() {
                new.images.clear();
            }
        }
        Command::Resume { stack } => {
            if new.pause.is_none() && new.holds.is_empty() && new.rollback.is_none() {
                return Err(format!("stack {stack} is neither paused nor held"));
            }
            new.pause = None;
            new.rollback = None;
            // Without its baseline what git says counts as new, and is applied.
            for service in std::mem::take(&mut new.holds).into_keys() {
                new.baselines.remove(&service);
            }
        }
        Command::Rollback { .. } => return Err("a rollback is checked before it is taken".into()),
        Command::Sync | Command::Leave | Command::StepDown | Command::Wake | Command::Drain { .. } => {
            return Err("this command is about no single stack".into());
        }
    }
    Ok(new)
}

/// A reason in one line, of a length that a state can bear.
pub(super) fn checked(reason: &str) -> Result<String, String> {
    let length = reason.chars().count();
    if length <= REASON_CHARS_MAX {
        Ok(reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    } else {
        Err(format!("the reason has {length} characters: at most {REASON_CHARS_MAX}"))
    }
}

/// The full name of a service that is ours.
fn owned_service(state: &StackState, stack: &StackName, key: &str) -> Result<String, String> {
    let name = stack.scoped(key);
    if state.owned.services.contains_key(&name) {
        return Ok(name);
    }
    let prefix = stack.scoped("");
    let known: Vec<&str> = state.owned.services.keys().filter_map(|name| name.strip_prefix(&prefix)).collect();
    if known.is_empty() {
        return Err(format!("swarmkeeper manages no service of stack {stack}"));
    }
    Err(format!("stack {stack} has no service {key:?}; it has {}", known.join(", ")))
}

fn approve(state: &mut StackState, stack: &StackName, revision: &str) -> Result<(), String> {
    let revision = revision.trim().to_ascii_lowercase();
    if revision.len() < REVISION_DIGITS_MIN || !revision.chars().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(format!(
            "{revision:?} is no revision: give at least {REVISION_DIGITS_MIN} digits of the commit that `swarmkeeper status {stack}` shows"
        ));
    }
    if !state.approved.contains(&revision) {
        state.approved.push(revision);
    }
    let surplus = state.approved.len().saturating_sub(APPROVALS_MAX);
    state.approved.drain(..surplus);
    Ok(())
}

fn forget_failures(state: &mut StackState) {
    for failure in std::mem::take(&mut state.failed) {
        for service in failure.services.into_keys() {
            state.baselines.remove(&service);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn shop() -> StackName {
        StackName::new("shop").unwrap()
    }

    fn failed() -> StackState {
        let mut state = StackState::default();
        state.baselines.insert("shop_api".into(), Baseline::default());
        state.remember(Failure {
            revision: None,
            fingerprint: "f".into(),
            services: [(
                "shop_api".to_owned(),
                ServiceFailure { fingerprint: "s".into(), reason: "exit 1".into(), log: Vec::new() },
            )]
            .into(),
            at: NOW,
        });
        state
    }

    #[test]
    fn a_state_survives_its_config_with_fields_of_a_later_version() {
        let mut state = failed();
        state.extra.insert("later".into(), serde_json::json!({"x": 1}));
        let spec = state.encode(&shop()).unwrap();
        assert_eq!(spec.name, "swarmkeeper-state-shop");
        let back = StackState::decode(&spec).unwrap();
        assert_eq!(back, StackState { schema: SCHEMA, ..state });
    }

    #[test]
    fn a_state_of_a_newer_schema_is_left_alone() {
        let spec = StackState { schema: SCHEMA + 1, ..StackState::default() }.encode(&shop()).unwrap();
        insta::assert_snapshot!(StackState::decode(&spec).unwrap_err(), @"state of stack shop: schema 2 is newer than 1, the newest known here");
    }

    #[test]
    fn retry_forgets_the_failure_and_makes_git_count_as_new() {
        let state = command(Some(&failed()), &Command::Retry { stack: shop() }, NOW).unwrap();
        assert!(state.failed.is_empty() && state.baselines.is_empty());
        assert!(command(None, &Command::Retry { stack: shop() }, NOW).is_err());
    }

    #[test]
    fn approval_takes_seven_digits_and_matches_by_prefix() {
        let approve =
            |revision: &str| command(None, &Command::Approve { stack: shop(), revision: revision.into() }, NOW);
        assert!(approve("9f2c1").is_err() && approve("not hex").is_err());
        let state = approve("9f2c1ab").unwrap();
        assert!(state.approves(Some(&Revision("9f2c1ab77aa".into()))));
        assert!(!state.approves(Some(&Revision("77d0e1277aa".into()))));
        assert!(!state.approves(None));
    }

    #[test]
    fn pause_and_resume_undo_each_other() {
        let paused = command(None, &Command::Pause { stack: shop(), reason: "migration".into() }, NOW).unwrap();
        assert_eq!(paused.pause.as_ref().unwrap().reason, "migration");
        let resumed = command(Some(&paused), &Command::Resume { stack: shop() }, NOW).unwrap();
        assert_eq!(resumed, StackState::default());
        assert!(command(Some(&resumed), &Command::Resume { stack: shop() }, NOW).is_err());
    }

    #[test]
    fn what_was_paused_by_itself_outlasts_a_pause_of_all() {
        let all = Command::PauseAll { reason: "freeze".into() };
        let alone = command(None, &Command::Pause { stack: shop(), reason: "migration".into() }, NOW).unwrap();
        assert_eq!(command(Some(&alone), &all, NOW).unwrap(), alone);
        assert_eq!(command(Some(&alone), &Command::ResumeAll, NOW).unwrap(), alone);
        let together = command(None, &all, NOW).unwrap();
        assert_eq!(together.pause.as_ref().unwrap().reason, "freeze");
        assert_eq!(command(Some(&together), &Command::ResumeAll, NOW).unwrap(), StackState::default());
        assert_eq!(command(Some(&together), &Command::Resume { stack: shop() }, NOW).unwrap(), StackState::default());
    }

    #[test]
    fn a_restart_needs_a_service_of_ours() {
        let mut state = StackState::default();
        let restart = |state: &StackState, service: &str, reason: &str| {
            let wish = Command::Restart { stack: shop(), service: service.into(), reason: reason.into() };
            command(Some(state), &wish, NOW)
        };
        assert_eq!(restart(&state, "api", "").unwrap_err(), "swarmkeeper manages no service of stack shop");
        state.owned.services.insert("shop_api".into(), "id".into());
        state.owned.services.insert("shop_web".into(), "id".into());
        assert_eq!(restart(&state, "db", "").unwrap_err(), "stack shop has no service \"db\"; it has api, web");
        assert!(restart(&state, "api", &"x".repeat(REASON_CHARS_MAX + 1)).is_err());
        assert_eq!(restart(&state, "api", "a leak").unwrap().restarts["shop_api"].reason, "a leak");
    }

    #[test]
    fn remove_needs_a_stack_that_we_manage() {
        assert!(command(None, &Command::Remove { stack: shop() }, NOW).is_err());
        assert!(command(Some(&failed()), &Command::Remove { stack: shop() }, NOW).unwrap().remove);
    }
}
