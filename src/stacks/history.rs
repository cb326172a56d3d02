//! How a stack's last rollouts ended, kept in its state: what people ask for at night, and what a rollback goes back to.
//!
//! An entry holds a commit, the digests it ran, how it ended, with the end of the failing task's log, and a keyed fingerprint of what
//! its files said; no content and no spec. An entry is appended when a rollout ends, so a pass that finds nothing to do appends nothing. The list is bounded by
//! [`ENTRIES_MAX`] and [`BYTES_MAX`]; the two newest entries that ran stay whatever failed after them, so that there is
//! something to go back to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::key::Key;
use super::state::StackState;
use crate::model::{DesiredStack, Revision, StackName, Wanted};
use crate::spec::Extra;
use crate::status::{HeldAt, HistoryEntry, Outcome, StackHistory};

/// Rollouts remembered for a stack.
pub const ENTRIES_MAX: usize = 10;

/// Largest history, as JSON; a small part of what a state may be.
pub const BYTES_MAX: usize = 200_000;

/// Characters of a reason that are remembered.
const REASON_CHARS_MAX: usize = 200;

/// Newest entries that ran and are never dropped.
const RAN_MIN: usize = 2;

/// How one rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The revision.
    pub revision: Option<Revision>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// How.
    pub outcome: Outcome,
    /// Why, in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Digests by the image's text in git. A text is missing if it ran by its tag.
    #[serde(default)]
    pub digests: BTreeMap<String, String>,
    /// See [`specs`].
    pub specs: String,
    /// True if a person brought the stack back to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rollback: bool,
    /// The last lines that the failing task printed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Entry {
    /// True if all of it ran.
    pub fn ran(&self) -> bool {
        self.outcome == Outcome::Ok
    }

    /// True if it runs, some services aside.
    pub fn runs(&self) -> bool {
        matches!(self.outcome, Outcome::Ok | Outcome::Partly)
    }

    /// Says why, in bounds.
    pub fn set_reason(&mut self, reason: &str) {
        self.reason = reason.chars().take(REASON_CHARS_MAX).collect();
    }

    /// The same again, such as a revision that was retried and failed as before.
    fn repeats(&self, other: &Self) -> bool {
        let what = |entry: &Self| (entry.outcome, entry.rollback);
        what(self) == what(other)
            && (&self.revision, &self.digests, &self.specs) == (&other.revision, &other.digests, &other.specs)
    }
}

/// Appends how a rollout ended; what is too old or too much goes.
pub fn append(history: &mut Vec<Entry>, mut entry: Entry) {
    let reason = std::mem::take(&mut entry.reason);
    entry.set_reason(&reason);
    if history.last().is_some_and(|last| last.repeats(&entry)) {
        history.pop();
    }
    history.push(entry);
    while history.len() > ENTRIES_MAX || bytes(history) > BYTES_MAX {
        let Some(index) = least_needed(history) else { return };
        history.remove(index);
    }
}

/// The oldest entry that is not needed to go back.
fn least_needed(history: &[Entry]) -> Option<usize> {
    let ran = history.iter().enumerate().rev().filter(|(_, entry)| entry.ran());
    let kept: Vec<usize> = ran.map(|(index, _)| index).take(RAN_MIN).collect();
    (0..history.len()).find(|index| !kept.contains(index))
}

fn bytes(history: &[Entry]) -> usize {
    serde_json::to_string(history).map_or(0, |json| json.len())
}

/// A keyed fingerprint of everything that a stack's files say, digests that we chose aside: the same commit renders to the same
/// one, unless something from outside the commit came in.
pub fn specs(desired: &DesiredStack, key: &Key) -> String {
    let objects = &desired.objects;
    let services: Vec<_> = objects
        .services
        .iter()
        .map(|(name, service)| (name, &service.spec, &service.depends_on, service.replicas_given))
        .collect();
    let networks = all_of(&objects.networks, |_| String::new());
    // A spec is serialised without its content.
    let secrets = all_of(&objects.secrets, |spec| key.content(spec.data.reveal(), &spec.name));
    let configs = all_of(&objects.configs, |spec| key.content(spec.data.reveal(), &spec.name));
    key.fingerprint("specs", &(services, networks, secrets, configs, desired.settings.removed))
}

/// Key, spec and content of one's own, and name of somebody else's.
type Member<'a, T> = (&'a String, Option<(&'a T, String, bool)>, Option<&'a String>);

fn all_of<T>(wanted: &BTreeMap<String, Wanted<T>>, content: impl Fn(&T) -> String) -> Vec<Member<'_, T>> {
    let mut members = Vec::new();
    for (key, wanted) in wanted {
        members.push(match wanted {
            Wanted::Own { spec, named } => (key, Some((spec, content(spec), *named)), None),
            Wanted::External(name) => (key, None, Some(name)),
        });
    }
    members
}

/// As people and machines are told it.
pub fn told(stack: &StackName, state: &StackState) -> StackHistory {
    let held = state.rollback.as_ref().map(|rollback| HeldAt {
        revision: rollback.revision.clone(),
        reason: rollback.reason.clone(),
        since: rollback.since,
    });
    let entry = |entry: &Entry| HistoryEntry {
        revision: entry.revision.clone(),
        at: entry.at,
        outcome: entry.outcome,
        reason: entry.reason.clone(),
        digests: entry.digests.clone(),
        log: entry.log.clone(),
    };
    StackHistory { name: stack.clone(), held, entries: state.history.iter().rev().map(entry).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::world::{stack, with_secret};

    /// Entries as `revision outcome`.
    fn history(entries: &[&str]) -> Vec<Entry> {
        let mut history = Vec::new();
        for text in entries {
            append(&mut history, entry(text));
        }
        history
    }

    fn entry(text: &str) -> Entry {
        let (revision, outcome) = text.split_once(' ').unwrap();
        Entry {
            revision: Some(Revision(revision.into())),
            at: OffsetDateTime::UNIX_EPOCH,
            outcome: serde_json::from_value(outcome.into()).unwrap(),
            reason: String::new(),
            digests: BTreeMap::new(),
            specs: revision.into(),
            rollback: false,
            log: Vec::new(),
            extra: Extra::default(),
        }
    }

    fn check(history: &[Entry], wanted: &[&str]) {
        let texts: Vec<String> = history
            .iter()
            .map(|entry| format!("{} {}", entry.revision.as_ref().unwrap().as_str(), entry.outcome.word()))
            .collect();
        assert_eq!(texts, wanted);
    }

    #[test]
    fn the_last_ten_are_kept() {
        let texts: Vec<String> = (0..12).map(|number| format!("r{number} ok")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        check(&history(&texts), &texts[2..]);
    }

    #[test]
    fn failures_push_nothing_out_that_one_could_go_back_to() {
        let mut texts = vec!["a ok".to_owned(), "b ok".to_owned()];
        texts.extend((0..12).map(|number| format!("r{number} failed")));
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let kept: Vec<&str> = texts[..2].iter().chain(&texts[6..]).copied().collect();
        check(&history(&texts), &kept);
    }

    #[test]
    fn what_fails_again_in_the_same_way_is_one_entry() {
        check(&history(&["a ok", "b failed", "b failed", "b rolled-back"]), &["a ok", "b failed", "b rolled-back"]);
    }

    #[test]
    fn a_history_of_many_images_stays_small() {
        let mut history = Vec::new();
        for number in 0..10 {
            let mut entry = entry(&format!("r{number} ok"));
            entry.reason = "x".repeat(1_000);
            entry.digests =
                (0..400).map(|image| (format!("registry.example.com/app{image}:1"), "f".repeat(71))).collect();
            append(&mut history, entry);
        }
        assert!(bytes(&history) <= BYTES_MAX && history.len() >= RAN_MIN, "{} of {}", bytes(&history), history.len());
        assert_eq!(history[0].reason.len(), REASON_CHARS_MAX);
    }

    #[test]
    fn the_same_files_have_the_same_fingerprint_and_any_other_content_another() {
        let key = Key::random().unwrap();
        let at = |revision: &str, content: &str| with_secret(stack(revision, &["api app:1"]), "api", content);
        let first = specs(&at("aaa", "one"), &key);
        assert_eq!(first, specs(&at("bbb", "one"), &key), "the commit itself does not count");
        assert_ne!(first, specs(&at("aaa", "two"), &key));
        assert_ne!(first, specs(&stack("aaa", &["api app:1"]), &key));
        assert_ne!(first, specs(&at("aaa", "one"), &Key::random().unwrap()), "it is keyed");
    }
}
