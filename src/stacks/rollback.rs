//! A person's rollback of a stack: to which revision, whether it can succeed, and how long it holds. Pure.
//!
//! The stack's files are taken from the commit as it was, its digests from the [`history`](super::history); no registry is asked
//! for new ones. The rollback is a *hold*: the stack stays at that revision until git says something else about the stack than
//! it did when the rollback was taken, or a person says `resume`. A commit that leaves the stack alone ends nothing.
//!
//! A rollback is only taken if a plan of it has no error (names in use, external objects that are gone, modes that swarm cannot
//! change) and every digest is there. What cannot be checked: that the program still starts, and what a migration did to its data.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::history::{self, Entry};
use super::images::{Resolutions, digest, is_left_to_others, live_text};
use super::key::Key;
use super::observe::{LiveState, Observed, ObservedStack, SecretContents};
use super::plan::{Input, Makers, Plan, Policy, plan};
use super::state::{Image, Kind, Mark, StackState, checked};
use crate::model::{DesiredStack, Revision, StackName};
use crate::spec::{Extra, ServiceSpec};
use crate::status::StackState as Verdict;

/// A stack held at a revision of its history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollback {
    /// The revision.
    pub revision: Revision,
    /// Why; may be empty.
    #[serde(default)]
    pub reason: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// Images by their text in git, where another one would be chosen otherwise.
    #[serde(default)]
    pub images: BTreeMap<String, Image>,
    /// What git said when the rollback was taken: its revision, and [`history::specs`] of the stack, empty where there was none.
    pub git: Mark,
    /// True if the commit renders to something else than what ran then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Rollback {
    /// True if git says something else about the stack than it did then. Both count: a new commit need not touch the stack, and
    /// another version of ours may render the same commit to something else.
    pub fn is_over(&self, head: &DesiredStack, key: &Key) -> bool {
        head.revision != self.git.revision && history::specs(head, key) != self.git.fingerprint
    }

    /// `rolled back to 77d0e12: reason`.
    pub fn in_words(&self) -> String {
        let reason = if self.reason.is_empty() { "no reason given" } else { &self.reason };
        let differs = if self.differs { " (it renders differently than it ran then)" } else { "" };
        format!("{ROLLED_BACK}{}{differs}: {reason}", self.revision)
    }
}

/// How [`Rollback::in_words`] begins.
pub const ROLLED_BACK: &str = "rolled back to ";

/// The entry to go back to: that of the revision given, else the one that ran before the present one.
pub fn choose<'s>(stack: &StackName, state: &'s StackState, wanted: Option<&str>) -> Result<&'s Entry, String> {
    match wanted {
        Some(wanted) => chosen(stack, &state.history, wanted),
        None => before_the_present(stack, state),
    }
}

fn chosen<'s>(stack: &StackName, history: &'s [Entry], wanted: &str) -> Result<&'s Entry, String> {
    let wanted = wanted.trim().to_ascii_lowercase();
    let is_wanted = |revision: &&Revision| !wanted.is_empty() && revision.as_str().starts_with(&wanted);
    let mut revisions: Vec<&Revision> =
        history.iter().filter_map(|entry| entry.revision.as_ref()).filter(is_wanted).collect();
    revisions.sort();
    revisions.dedup();
    let revision = match revisions.as_slice() {
        [] => {
            return Err(format!(
                "{wanted:?} is not in the history of stack {stack}; `swarmkeeper history {stack}` shows it"
            ));
        }
        [one] => *one,
        _ => return Err(format!("{wanted} is several revisions of stack {stack}: give more digits")),
    };
    let mut entries = history.iter().rev().filter(|entry| entry.revision.as_ref() == Some(revision)).peekable();
    let newest = entries.peek().copied();
    entries.find(|entry| entry.ran()).ok_or_else(|| {
        let how = newest.map_or_else(String::new, |entry| match entry.reason.as_str() {
            "" => entry.outcome.word().to_owned(),
            reason => format!("{}: {reason}", entry.outcome.word()),
        });
        format!("{revision} never ran as a whole ({how}): only a revision that did can be gone back to")
    })
}

/// Who goes back twice goes further back, and who goes back from what fails comes to what ran last.
fn before_the_present<'s>(stack: &StackName, state: &'s StackState) -> Result<&'s Entry, String> {
    let history = &state.history;
    let held = state.rollback.as_ref().map(|rollback| &rollback.revision);
    let rolling = || state.rollout.as_ref().and_then(|intent| intent.revision.as_ref());
    let last = || history.last().and_then(|entry| entry.revision.as_ref());
    let present = held.or_else(rolling).or_else(last);
    let is_present = |entry: &Entry| entry.revision.as_ref() == present && !entry.rollback;
    let end = history.iter().rposition(is_present).unwrap_or(history.len());
    let earlier = history.iter().take(end).rev();
    let mut fitting =
        earlier.filter(|entry| entry.ran() && entry.revision.is_some() && entry.revision.as_ref() != present);
    fitting.next().ok_or_else(|| {
        let present = present.map_or_else(|| "the present one".to_owned(), ToString::to_string);
        format!("the history of stack {stack} has nothing that ran before {present}")
    })
}

/// The images that must still be there, `name:tag@digest` by their text in the files.
pub fn images(entry: &Entry, target: &DesiredStack, observed: &Observed) -> Result<BTreeMap<String, String>, String> {
    let mut images = BTreeMap::new();
    for service in target.objects.services.values() {
        let text = &service.spec.task_template.container_spec.image;
        let live = observed.services.get(&service.spec.name);
        if live.is_some() && is_left_to_others(&service.spec) {
            continue;
        }
        if digest(text).is_some() {
            images.insert(text.clone(), text.clone());
        } else if let Some(digest) = entry.digests.get(text) {
            images.insert(text.clone(), format!("{text}@{digest}"));
        } else if live.is_none_or(|live| live_text(&live.spec) != text) {
            return Err(format!("the history has no digest of image {text}, and a floating tag is not deployed"));
        }
    }
    Ok(images)
}

/// All that a rollback is decided on.
#[derive(Debug, Clone, Copy)]
pub struct Preparation<'a> {
    /// The stack.
    pub stack: &'a StackName,
    /// What lives.
    pub observed: &'a Observed,
    /// What to go back to.
    pub entry: &'a Entry,
    /// The stack as that revision's commit has it now.
    pub target: &'a DesiredStack,
    /// Git's present revision.
    pub head: Option<&'a Revision>,
    /// The stack as git has it at present; none if it does not have it, or not in a form that can be read.
    pub wanted: Option<&'a DesiredStack>,
    /// What the registry said about [`images`].
    pub images: &'a Resolutions,
    /// Why.
    pub reason: &'a str,
    /// What fingerprints are made with.
    pub key: &'a Key,
    /// The moment.
    pub now: OffsetDateTime,
    /// What is allowed.
    pub policy: &'a Policy,
}

/// A rollback that can succeed, as far as one can see beforehand.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// What the state will say.
    pub rollback: Rollback,
    /// Images that run now without being noted, so that `resume` finds them again.
    pub noted: BTreeMap<String, Image>,
    /// True if a pause ends with it.
    pub ends_pause: bool,
    /// What would be done at once.
    pub plan: Plan,
}

impl Prepared {
    /// What a state becomes. A pause ends, since the person who rolls back says what shall be; so do failures of that revision.
    pub fn enter(&self, state: Option<&StackState>) -> Result<StackState, String> {
        let state = state.ok_or("swarmkeeper does not manage this stack")?;
        if state.remove {
            return Err("the stack is being removed".into());
        }
        Ok(entered(state, &self.rollback, &self.noted))
    }

    /// What the person who asked is told.
    pub fn in_words(&self) -> String {
        let rollback = &self.rollback;
        let stack = &self.plan.stack;
        let services = self.plan.changes.iter().filter(|change| change.kind == Kind::Service).count();
        let what = match services {
            0 => "no service changes".to_owned(),
            1 => "1 service changes".to_owned(),
            many => format!("{many} services change"),
        };
        let differs = if rollback.differs {
            "; beware, the commit renders differently than it ran then: something outside it has changed"
        } else {
            ""
        };
        let paused = if self.ends_pause { "; its pause has ended" } else { "" };
        format!(
            "{stack} goes back to {}: {what}{differs}{paused}; it stays there until git changes the stack or `swarmkeeper resume {stack}`",
            rollback.revision
        )
    }
}

fn entered(state: &StackState, rollback: &Rollback, noted: &BTreeMap<String, Image>) -> StackState {
    let mut new = state.clone();
    new.pause = None;
    new.failed.retain(|failure| failure.revision.as_ref() != Some(&rollback.revision));
    for (text, image) in noted {
        new.images.entry(text.clone()).or_insert_with(|| image.clone());
    }
    new.rollback = Some(rollback.clone());
    new
}

/// Settles the rollback, or says why it could not succeed.
pub fn prepare(preparation: &Preparation<'_>) -> Result<Prepared, String> {
    let Preparation { stack, observed, entry, target, key, .. } = *preparation;
    let live = observed.states.get(stack).ok_or_else(|| format!("swarmkeeper does not manage stack {stack}"))?;
    let revision = entry.revision.clone().ok_or("a rollback needs a commit")?;
    if target.settings.removed {
        return Err(format!("{revision} has the stack as `removed: true`"));
    }
    let missing: Vec<String> = preparation
        .images
        .iter()
        .filter_map(|(image, answer)| Some(format!("{image}: {}", answer.as_ref().err()?)))
        .collect();
    if !missing.is_empty() {
        return Err(format!("{revision} cannot be pulled: {}", missing.join("; ")));
    }
    let (images, noted) = other_images(preparation, &live.state);
    let git = Mark {
        revision: preparation.head.cloned(),
        fingerprint: preparation.wanted.map(|wanted| history::specs(wanted, key)).unwrap_or_default(),
    };
    let differs = history::specs(target, key) != entry.specs;
    let rollback = Rollback {
        revision,
        reason: checked(preparation.reason)?,
        since: preparation.now,
        images,
        git,
        differs,
        extra: Extra::default(),
    };
    let plan = try_out(preparation, live, &rollback, &noted)?;
    Ok(Prepared { rollback, noted, ends_pause: live.state.pause.is_some(), plan })
}

/// Images that the recorded digest differs from what would be chosen for, and what runs of those without being noted.
fn other_images(
    preparation: &Preparation<'_>,
    state: &StackState,
) -> (BTreeMap<String, Image>, BTreeMap<String, Image>) {
    let (mut other, mut noted) = (BTreeMap::new(), BTreeMap::new());
    for service in preparation.target.objects.services.values() {
        let text = &service.spec.task_template.container_spec.image;
        let Some(wanted) = preparation.entry.digests.get(text).filter(|_| digest(text).is_none()) else { continue };
        let live = preparation.observed.services.get(&service.spec.name).map(|live| &live.spec);
        if live.is_some() && is_left_to_others(&service.spec) {
            continue;
        }
        let running = live.filter(|spec| live_text(spec) == text).map(running_image);
        let chosen = state.images.get(text).or(running.as_ref());
        if chosen.and_then(|image| digest(&image.image)) == Some(wanted.as_str()) {
            continue;
        }
        let image = format!("{text}@{wanted}");
        let told = preparation.images.get(&image).and_then(|answer| answer.as_ref().ok());
        let platforms = told.map(|image| image.platforms.clone()).unwrap_or_default();
        other.insert(text.clone(), Image { image, platforms });
        if let Some(running) = running.filter(|image| digest(&image.image).is_some()) {
            noted.insert(text.clone(), running);
        }
    }
    (other, noted)
}

fn running_image(spec: &ServiceSpec) -> Image {
    let platforms = spec.task_template.placement.as_ref().and_then(|placement| placement.platforms.clone());
    Image { image: spec.task_template.container_spec.image.clone(), platforms: platforms.unwrap_or_default() }
}

/// Plans it as if it were taken, and takes nothing that has an error.
fn try_out(
    preparation: &Preparation<'_>,
    live: &LiveState,
    rollback: &Rollback,
    noted: &BTreeMap<String, Image>,
) -> Result<Plan, String> {
    let live = LiveState { state: entered(&live.state, rollback, noted), ..live.clone() };
    let plan = plan(Input {
        stack: preparation.stack,
        desired: Some(preparation.target),
        held: true,
        observed: ObservedStack { name: preparation.stack, swarm: preparation.observed, live: Some(&live) },
        images: &Resolutions::new(),
        unsettled: &[],
        makers: &Makers::new(),
        secrets: &SecretContents::new(),
        key: preparation.key,
        now: preparation.now,
        policy: preparation.policy,
    });
    if !matches!(plan.verdict, Verdict::Error | Verdict::Adopt) {
        return Ok(plan);
    }
    let hindrances = plan.notes.iter().filter(|note| note.kind.verdict() == Some(plan.verdict));
    let reasons: Vec<&str> = hindrances.map(|note| note.text.as_str()).collect();
    Err(format!("{} cannot be deployed now: {}", rollback.revision, reasons.join("; ")))
}
