//! What to do about one stack: pure, total, the place where behaviour lives.
//!
//! The order of a rollout, over as many passes as it needs (nothing here waits):
//!
//! 1. everything is validated before the first write;
//! 2. the rollout is recorded in the state, so that a successor goes on with it;
//! 3. networks, secrets and configs are made; services are written, each once those it depends on run;
//! 4. when every service runs what it should, changed networks are made anew, if that is asked for (`remake.rs`);
//! 5. last, what git no longer has is removed: services first, then, when their tasks are gone, the
//!    networks, secrets and configs that nothing uses. Volumes never.
//!
//! **Whose change is it?** The state holds, per service, a fingerprint of what git said when it was last applied, its *baseline*. If git now says
//! something else, every difference is applied. If it says the same, a difference is not git's doing: it is *drift*, and reported, or corrected with
//! `drift: correct`. Adoption takes what git says as the baseline: what differs then is shown as drift, never corrected (not even with `drift:
//! correct`), and applied with that service's next change in git.

mod checks;
mod image;
mod kept;
mod leftovers;
mod objects;
mod progress;
mod remake;
mod removal;
mod restart;
mod services;
mod types;

use std::collections::{BTreeMap, BTreeSet};

use time::OffsetDateTime;

use super::observe::LiveState;
use super::rollback::Rollback;
use super::rollout::Window;
use super::state::{Content, Image, Intent, Kind, StackState};
use crate::model::{Adopt, DesiredStack, StackName, StackSettings};
use crate::status::StackState as Verdict;

pub use checks::critical_tasks;
pub use types::*;

use remake::ChangedNetwork;

/// Version of a plan's JSON form.
pub(super) const SCHEMA: u32 = 1;

/// Plans one stack.
pub fn plan(input: Input<'_>) -> Plan {
    let mut planner = Planner::new(input);
    planner.run();
    planner.restarts();
    planner.finish()
}

/// Plans a stack of which it cannot be known what it should be: nothing is done but restarts that a person asked for.
pub fn plan_broken(input: Input<'_>, reason: &str) -> Plan {
    let mut planner = Planner::new(input);
    planner.stop(NoteKind::Error, reason.to_owned());
    planner.restarts();
    planner.finish()
}

/// A plan in the making.
struct Planner<'a> {
    input: Input<'a>,
    /// The state as it shall be before the steps.
    state: StackState,
    plan: Plan,
    /// Objects with our names that are not ours.
    foreign: Vec<(Kind, String, String)>,
    /// What makes the stack impossible to write.
    errors: Vec<String>,
    /// Full names of services that have been, or shall be, written in this rollout and are not as wanted yet.
    pending: BTreeSet<String>,
    /// Fingerprints of what git says, by full name.
    fingerprints: BTreeMap<String, String>,
    /// Services of this rollout that live as they did before it: swarm brought them back.
    rolled_back: BTreeSet<String>,
    /// Contents of own secrets and configs, as the state keeps them.
    contents: BTreeMap<String, Content>,
    /// Images that were resolved for this plan.
    resolved: BTreeMap<String, Image>,
    /// The digests of all images, by their text in git.
    digests: BTreeMap<String, String>,
    /// Networks that are not as git says.
    changed_networks: Vec<ChangedNetwork>,
    /// Those of them that are to be made anew.
    remakes: Vec<ChangedNetwork>,
    /// Full names of the services that are on these.
    taken_off: BTreeSet<String>,
    /// External networks that are still to be made, and by whom.
    awaited: Vec<(String, StackName)>,
    /// Full names of jobs that failed and are not run again.
    failed_jobs: BTreeSet<String>,
}

impl<'a> Planner<'a> {
    fn new(input: Input<'a>) -> Self {
        let live = input.observed.live;
        let plan = Plan {
            schema: SCHEMA,
            stack: input.stack.clone(),
            from: input.observed.healthy_revision().cloned(),
            to: input.desired.and_then(|desired| desired.revision.clone()),
            verdict: Verdict::Ok,
            changes: Vec::new(),
            unchanged: 0,
            notes: Vec::new(),
            steps: Vec::new(),
            state: None,
            saves_state: false,
            state_at: live.map(|live| StateAt { id: live.id.clone(), version: live.version }),
            tells: Vec::new(),
            settled: false,
            ids: BTreeMap::new(),
        };
        Self {
            input,
            state: live.map(|live| live.state.clone()).unwrap_or_default(),
            plan,
            foreign: Vec::new(),
            errors: Vec::new(),
            pending: BTreeSet::new(),
            fingerprints: BTreeMap::new(),
            rolled_back: BTreeSet::new(),
            contents: BTreeMap::new(),
            resolved: BTreeMap::new(),
            digests: BTreeMap::new(),
            changed_networks: Vec::new(),
            remakes: Vec::new(),
            taken_off: BTreeSet::new(),
            awaited: Vec::new(),
            failed_jobs: BTreeSet::new(),
        }
    }

    fn run(&mut self) {
        if let Some(bad) =
            self.input.observed.swarm.bad_states.iter().find(|bad| bad.stack == self.input.stack.as_str())
        {
            return self.stop(NoteKind::Error, bad.to_string());
        }
        if let Some(pause) = &self.state.pause {
            let text = format!("paused: {}", if pause.reason.is_empty() { "no reason given" } else { &pause.reason });
            return self.stop(NoteKind::Paused, text);
        }
        match self.input.desired {
            None => self.orphan(),
            Some(desired) if desired.settings.removed || self.state.remove => self.remove_all(),
            Some(desired) => self.bring_to(desired),
        }
    }

    fn finish(mut self) -> Plan {
        let before = self.input.observed.live.map(|live| &live.state);
        let forgets = self.plan.steps.contains(&Step::Forget);
        let is_new = before.is_none() && self.state == StackState::default();
        self.plan.saves_state = self.manages() && !forgets && !is_new && before != Some(&self.state);
        if self.manages() && !is_new {
            self.plan.state = Some(self.state);
        }
        self.plan
    }

    /// Git has the stack: make it so.
    fn bring_to(&mut self, desired: &'a DesiredStack) {
        if !self.input.held {
            // Git has changed the stack since a person rolled it back. If it came to the same revision, so do the digests.
            let over = self.state.rollback.take().filter(|over| Some(&over.revision) == desired.revision.as_ref());
            self.state.images.extend(over.into_iter().flat_map(|over| over.images));
        }
        let names = self.objects(desired);
        self.services(desired, &names);
        self.list_remakes(desired);
        if !self.errors.is_empty() {
            self.plan.steps.clear();
            for text in std::mem::take(&mut self.errors) {
                self.note(NoteKind::Error, text);
            }
            self.restore();
            self.plan.verdict = Verdict::Error;
            return;
        }
        if self.waits_for_networks() {
            return;
        }
        if !self.manages() {
            self.prune_as_the_cli_does(desired);
            self.plan.settled = self.plan.changes.is_empty();
            self.plan.verdict = if self.plan.settled { Verdict::Ok } else { Verdict::Rolling };
            return;
        }
        self.note_leftovers();
        if !self.foreign.is_empty() {
            return self.adopt(desired);
        }
        // A person's `adopt` with nothing to take over is done.
        self.state.adopt = false;
        let fingerprint = self.stack_fingerprint(desired);
        if let Some(failure) = self.state.failure_of(&fingerprint) {
            let text = format!("{} failed: {}", revision_word(failure.revision.as_ref()), failure.reason());
            // It names the service too.
            self.plan.notes.retain(|note| note.kind != NoteKind::Held);
            return self.stop(NoteKind::Held, text);
        }
        self.list_removals(desired);
        let removes = |change: &Change| change.action == Action::Remove;
        let is_writing =
            !self.plan.steps.is_empty() || !self.remakes.is_empty() || self.plan.changes.iter().any(removes);
        let unproven = self.unproven(desired, &fingerprint);
        let is_begun = self.state.rollout.as_ref().is_some_and(|intent| intent.fingerprint == fingerprint);
        if is_writing && !is_begun {
            if self.waits_for_stacks() || self.is_braked(&fingerprint) {
                return;
            }
            self.begin(desired, &fingerprint, unproven);
        } else if !unproven.is_empty() {
            self.begin(desired, &fingerprint, unproven);
        }
        self.go_on(desired, &fingerprint);
    }

    /// The rollout is recorded; its first writes follow in the same pass.
    fn begin(&mut self, desired: &DesiredStack, fingerprint: &str, unproven: Vec<String>) {
        let since = self.input.now;
        self.state.images.append(&mut self.resolved);
        self.state.contents.append(&mut self.contents);
        // What an earlier rollout left undone is of this one now.
        let (carried, made, remaking) =
            self.state.rollout.take().map(|intent| (intent.services, intent.made, intent.remaking)).unwrap_or_default();
        let known = |name: &String| self.fingerprints.contains_key(name);
        let services = carried.into_iter().filter(known).chain(self.pending.clone()).chain(unproven);
        self.state.rollout = Some(Intent {
            revision: desired.revision.clone(),
            fingerprint: fingerprint.to_owned(),
            since,
            deadline: deadline(since, &desired.settings),
            services: services.collect(),
            creating: BTreeSet::new(),
            made,
            remaking,
        });
        self.state.told = None;
        let text = match self.rollback() {
            Some(rollback) => format!("begins to be {}", rollback.in_words()),
            None => format!("rollout of {} began", revision_word(desired.revision.as_ref())),
        };
        self.tell(Event::Started, None, text);
    }

    /// The rollback that holds the stack, if one does.
    fn rollback(&self) -> Option<&Rollback> {
        self.state.rollback.as_ref().filter(|_| self.input.held)
    }

    /// Objects with our names run already: take them over, or wait to be told.
    fn adopt(&mut self, desired: &DesiredStack) {
        let is_asked = self.state.adopt || desired.settings.adopt == Adopt::Auto;
        let foreign = std::mem::take(&mut self.foreign);
        let what = count_by_kind(&foreign);
        if !is_asked {
            let text = format!("{what} run already and are not ours; adopting restarts nothing");
            return self.stop(NoteKind::Adopt, text);
        }
        self.restore();
        self.state.adopt = false;
        for (kind, name, id) in foreign {
            if kind == Kind::Service {
                self.accept_as_it_lives(desired, &name);
            }
            self.state.owned.of_mut(kind).insert(name, id);
        }
        self.accept_contents();
        self.plan.steps.clear();
        self.plan.verdict = Verdict::Waiting;
        self.note(NoteKind::Adopt, format!("takes over {what}; nothing restarts"));
        self.tell(Event::Adopted, None, what);
    }

    /// External networks that another stack of the Config Repo is about to make.
    fn waits_for_networks(&mut self) -> bool {
        if self.awaited.is_empty() {
            return false;
        }
        let words = |(network, stack): &(String, StackName)| format!("network {network}, which stack {stack} makes");
        let text = self.awaited.iter().map(words).collect::<Vec<_>>().join(", ");
        self.stop(NoteKind::Waiting, format!("waits for {text}"));
        true
    }

    /// `after:`.
    fn waits_for_stacks(&mut self) -> bool {
        // A person who rolls back does not want to wait.
        if self.input.unsettled.is_empty() || self.input.held {
            return false;
        }
        let names: Vec<&str> = self.input.unsettled.iter().map(StackName::as_str).collect();
        let text = format!("waits until {} has converged", names.join(", "));
        self.stop(NoteKind::Waiting, text);
        true
    }

    /// A revision that removes or restarts too much waits for a person. The first deploy is never braked.
    fn is_braked(&mut self, fingerprint: &str) -> bool {
        let policy = self.input.policy;
        let revision = self.plan.to.clone();
        // A person's rollback is a person's approval.
        if self.state.healthy.is_none()
            || self.state.owned.services.is_empty()
            || self.state.approves(revision.as_ref())
            || self.input.held
        {
            return false;
        }
        let services = self.state.owned.services.len();
        let of_services = || self.plan.changes.iter().filter(|change| change.kind == Kind::Service);
        let removes = of_services().filter(|change| change.action == Action::Remove).count();
        // What drifted restarts nothing: only what this revision writes counts. A service that is changed and goes with its network
        // is one all the same.
        let is_written = |name: &&String| self.pending.contains(*name) || self.taken_off.contains(*name);
        let restarted = of_services().filter(|change| change.restarts.is_some()).map(|change| &change.name);
        let restarts = restarted.filter(is_written).collect::<BTreeSet<_>>().len();
        let too_many_removed = removes > policy.brake_removes_max;
        let too_many_restarted =
            services > policy.brake_services_min && restarts * 100 > policy.brake_restarts_percent_max * services;
        if !too_many_removed && !too_many_restarted {
            return false;
        }
        let text = if too_many_removed {
            format!("would remove {removes} services, more than {}", policy.brake_removes_max)
        } else {
            format!(
                "would restart {restarts} of {services} services, more than {} %",
                policy.brake_restarts_percent_max
            )
        };
        self.stop(NoteKind::Braked, text.clone());
        self.tell_once(Event::Braked, &format!("braked {fingerprint}"), text);
        true
    }

    /// Says why nothing is done, and does nothing: neither steps nor a changed state.
    fn stop(&mut self, kind: NoteKind, text: String) {
        self.plan.steps.clear();
        self.plan.tells.clear();
        self.restore();
        self.plan.verdict = kind.verdict().unwrap_or(self.plan.verdict);
        self.note(kind, text);
    }

    fn restore(&mut self) {
        self.state = self.input.observed.live.map(|live: &LiveState| live.state.clone()).unwrap_or_default();
    }

    fn note(&mut self, kind: NoteKind, text: impl Into<String>) {
        let note = Note { kind, text: text.into() };
        if !self.plan.notes.contains(&note) {
            self.plan.notes.push(note);
        }
    }

    fn tell(&mut self, event: Event, service: Option<&str>, message: impl Into<String>) {
        self.plan.tells.push(Tell {
            event,
            stack: self.input.stack.clone(),
            service: service.map(str::to_owned),
            revision: self.plan.to.clone(),
            message: message.into(),
            task: None,
            log: Vec::new(),
        });
    }

    /// Tells it unless the state says that it was told already.
    fn tell_once(&mut self, event: Event, mark: &str, message: String) {
        if self.state.told.as_deref() != Some(mark) {
            self.state.told = Some(mark.to_owned());
            self.tell(event, None, message);
        }
    }

    /// True if the stack is git's, with a state of its own.
    fn manages(&self) -> bool {
        self.input.policy.mode == Mode::ConfigRepo
    }

    /// True if this very object is ours, or was about to be made by a predecessor that died before it could note its ID.
    fn owns(&self, kind: Kind, name: &str, id: &str, namespaced: bool) -> bool {
        if !self.manages() {
            return namespaced;
        }
        let was_being_made = || {
            let intent = self.state.rollout.as_ref();
            intent.is_some_and(|intent| intent.creating.contains(&creating(kind, name)))
        };
        self.state.owned.has(kind, name, id) || (namespaced && was_being_made())
    }

    fn window(&self) -> Option<Window> {
        self.state.rollout.as_ref().map(|intent| Window { since: intent.since, deadline: intent.deadline })
    }
}

/// `3 services, 1 network`.
fn count_by_kind(objects: &[(Kind, String, String)]) -> String {
    let count = |kind: Kind| objects.iter().filter(|(of, ..)| *of == kind).count();
    let words = |(kind, count): (Kind, usize)| format!("{count} {}{}", kind.word(), if count == 1 { "" } else { "s" });
    let counts = Kind::ALL.into_iter().map(|kind| (kind, count(kind))).filter(|(_, count)| *count > 0);
    counts.map(words).collect::<Vec<_>>().join(", ")
}

/// As [`Intent::creating`] names an object.
fn creating(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.word())
}

fn deadline(since: OffsetDateTime, settings: &StackSettings) -> OffsetDateTime {
    since + settings.timeout
}

fn revision_word(revision: Option<&crate::model::Revision>) -> String {
    revision.map_or_else(|| "this revision".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests;
