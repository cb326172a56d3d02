//! A rollout on its way: is it done, has it failed, what follows.

use std::collections::BTreeMap;

use super::services::is_job;
use super::{Event, Note, NoteKind, Planner, Step};
use crate::model::{DesiredStack, OnFailure};
use crate::spec::{Extra, LABEL_IMAGE, Service};
use crate::stacks::history::{self, Entry};
use crate::stacks::images::familiar_live_text;
use crate::stacks::rollback::{self, Rollback};
use crate::stacks::rollout::{CLOCK_SKEW, Count, Progress, Trouble, timestamp};
use crate::stacks::state::{Failure, Intent, Kind, Mark, ServiceFailure};
use crate::status::{Outcome, StackState as Verdict};

impl Planner<'_> {
    /// Judges the rollout and plans what follows from it.
    pub(super) fn go_on(&mut self, desired: &DesiredStack, fingerprint: &str) {
        let Some(intent) = self.state.rollout.clone() else {
            self.prune_objects(desired);
            return self.rest(desired, fingerprint);
        };
        self.record_creations();
        if let Some(intent) = &mut self.state.rollout {
            // Git has moved on to something that needs no write, such as a revert: what is on its way is judged as that.
            fingerprint.clone_into(&mut intent.fingerprint);
            intent.revision.clone_from(&desired.revision);
            intent.services.extend(self.pending.iter().chain(&self.taken_off).cloned());
        }
        if self.go_on_remaking() {
            return self.note_rollback();
        }
        self.restart_clock(desired);
        let (mut troubles, mut going) = (BTreeMap::new(), Vec::new());
        for name in &intent.services {
            match self.outcome_of(name) {
                Some(Progress::RolledBack(trouble)) => drop(troubles.insert(name.clone(), (trouble, true))),
                Some(Progress::Failed(trouble) | Progress::Paused(trouble)) => {
                    troubles.insert(name.clone(), (trouble, false));
                }
                Some(Progress::Going(Count { running, wanted })) => going.push(format!("{name} {running}/{wanted}")),
                Some(Progress::Converged(_)) | None => {}
            }
        }
        if !troubles.is_empty() {
            return self.fail(desired, fingerprint, &intent, &troubles);
        }
        self.plan.verdict = Verdict::Rolling;
        self.note_rollback();
        if !going.is_empty() {
            self.note(NoteKind::Waiting, format!("tasks: {}", going.join(", ")));
        }
        if going.is_empty() && self.pending.is_empty() && !self.begin_to_remake() && self.prune(desired) {
            self.converged(desired, fingerprint);
        }
    }

    /// Services that were taken off a network have their whole time from when they come back.
    fn restart_clock(&mut self, desired: &DesiredStack) {
        let is_remade = |step: &Step| match (step, self.state.rollout.as_ref().and_then(|i| i.remaking.as_ref())) {
            (Step::NetworkCreate(spec), Some(remaking)) => remaking.networks.contains_key(&spec.name),
            _ => false,
        };
        if self.plan.steps.iter().any(is_remade)
            && let Some(intent) = &mut self.state.rollout
        {
            intent.since = self.input.now;
            intent.deadline = super::deadline(self.input.now, &desired.settings);
        }
    }

    /// How a service of this rollout goes; none while it waits for its own write, or is held.
    fn outcome_of(&self, name: &str) -> Option<Progress> {
        let progress = self.progress_of(name);
        if self.rolled_back.contains(name) {
            return progress;
        }
        let applied = self.state.baselines.get(name).map(|baseline| &baseline.desired) == self.fingerprints.get(name);
        let lives_as_wanted = !self.pending.contains(name) && applied;
        match progress {
            // It lives as wanted, so an earlier rollback is over, and whoever came back to this spec meant it.
            Some(Progress::RolledBack(trouble)) if trouble.count.running >= trouble.count.wanted => {
                lives_as_wanted.then_some(Progress::Converged(trouble.count))
            }
            Some(Progress::RolledBack(trouble)) => lives_as_wanted.then_some(Progress::Going(trouble.count)),
            other => other.filter(|_| lives_as_wanted),
        }
    }

    fn converged(&mut self, desired: &DesiredStack, fingerprint: &str) {
        self.state.rollout = None;
        let text = match self.rollback() {
            Some(rollback) => {
                format!("{}; held until git changes the stack or somebody says `resume`", rollback.in_words())
            }
            None => format!("{} runs", super::revision_word(desired.revision.as_ref())),
        };
        self.tell(Event::Converged, None, text);
        self.rest(desired, fingerprint);
    }

    /// Says that the stack is held elsewhere than where git has it.
    fn note_rollback(&mut self) {
        if let Some(text) = self.rollback().map(Rollback::in_words) {
            self.note(NoteKind::Held, text);
        }
    }

    /// A rollout that ended goes into the history.
    fn remember_end(&mut self, desired: &DesiredStack, outcome: Outcome, reason: String) {
        let entry = Entry {
            revision: desired.revision.clone(),
            at: self.input.now,
            outcome,
            reason,
            digests: self.digests.clone(),
            specs: history::specs(desired, self.input.key),
            rollback: self.input.held,
            log: Vec::new(),
            extra: Extra::default(),
        };
        history::append(&mut self.state.history, entry);
    }

    /// The stack runs, apart from services that are held back.
    fn remember_success(&mut self, desired: &DesiredStack) {
        let is_of_service = |note: &&Note| note.kind == NoteKind::Held && !note.text.starts_with(rollback::ROLLED_BACK);
        let held_back = self.plan.notes.iter().find(is_of_service).map(|note| note.text.clone());
        let by_person = self.rollback().map(Rollback::in_words);
        let outcome = if held_back.is_some() { Outcome::Partly } else { Outcome::Ok };
        self.remember_end(desired, outcome, held_back.or(by_person).unwrap_or_default());
    }

    /// Nothing is on its way: the stack rests, as git says or held or drifted.
    fn rest(&mut self, desired: &DesiredStack, fingerprint: &str) {
        let is_new = self.state.healthy.as_ref().is_none_or(|mark| mark.fingerprint != fingerprint);
        // Back at what was healthy before a failure, nothing is new, and that it runs ends the history all the same.
        let is_told = self.state.history.last().is_some_and(Entry::runs);
        if (is_new || !is_told) && self.pending.is_empty() {
            self.remember_success(desired);
        }
        self.note_rollback();
        if is_new && self.pending.is_empty() {
            self.state.healthy = Some(Mark { revision: desired.revision.clone(), fingerprint: fingerprint.to_owned() });
            self.state.told = None;
            self.forget_unused(desired);
        }
        let has = |kind: NoteKind| self.plan.notes.iter().any(|note| note.kind == kind);
        self.plan.verdict = if has(NoteKind::Held) {
            Verdict::Held
        } else if has(NoteKind::Drift) {
            Verdict::Drift
        } else {
            Verdict::Ok
        };
        self.plan.settled = matches!(self.plan.verdict, Verdict::Ok | Verdict::Drift);
    }

    /// Keeps chosen images only for texts that git has, or that swarm's own rollback would come back to.
    fn forget_unused(&mut self, desired: &DesiredStack) {
        let previous = |name: &String| {
            let spec = self.input.observed.swarm.services.get(name)?.previous_spec.as_deref()?;
            spec.labels.as_ref()?.get(LABEL_IMAGE)?;
            Some(familiar_live_text(spec))
        };
        let mut texts: Vec<String> = self.state.owned.services.keys().filter_map(previous).collect();
        texts.extend(desired.objects.services.values().map(|s| s.spec.task_template.container_spec.image.clone()));
        // What git's head chose is needed again when a rollback ends.
        if !self.input.held {
            self.state.images.retain(|text, _| texts.contains(text));
        }
        let is_wanted = |id: &String| match id.split_once('/') {
            Some(("secret", key)) => desired.objects.secrets.contains_key(key),
            Some((_, key)) => desired.objects.configs.contains_key(key),
            None => true,
        };
        self.state.contents.retain(|id, _| self.input.held || is_wanted(id));
        self.state.baselines.retain(|name, _| self.fingerprints.contains_key(name));
        self.state.holds.retain(|name, _| self.fingerprints.contains_key(name));
        let is_network = |name: &String| self.plan.ids.contains_key(&(Kind::Network, name.clone()));
        self.state.remade.retain(|name, _| is_network(name));
    }

    /// Remembers the failure and brings back what `on_failure` says.
    fn fail(
        &mut self,
        desired: &DesiredStack,
        fingerprint: &str,
        intent: &Intent,
        troubles: &BTreeMap<String, (Trouble, bool)>,
    ) {
        self.plan.steps.clear();
        self.state.rollout = None;
        let on_failure = desired.settings.on_failure;
        let mut services = BTreeMap::new();
        for (name, (trouble, already_back)) in troubles {
            let brings_back = on_failure != OnFailure::Stop && self.was_updated_since(name, intent);
            let goes = on_failure == OnFailure::RollbackStack && self.was_made_by(intent, name);
            let brought_back = *already_back || goes || (brings_back && self.roll_back(name));
            self.state.baselines.remove(name);
            let of_service = self.fingerprints.get(name).cloned().unwrap_or_default();
            services.insert(
                name.clone(),
                ServiceFailure { fingerprint: of_service, reason: trouble.reason.clone(), log: Vec::new() },
            );
            let (event, what) =
                if brought_back { (Event::RolledBack, "rolled back") } else { (Event::Failed, "failed") };
            self.tell(event, Some(name), format!("{what}: {}", trouble.reason));
            if let Some(tell) = self.plan.tells.last_mut() {
                tell.task.clone_from(&trouble.task);
            }
        }
        if on_failure == OnFailure::RollbackStack {
            self.roll_back_the_others(intent, troubles);
        }
        let revision = desired.revision.clone();
        let failure = Failure { revision, fingerprint: fingerprint.to_owned(), services, at: self.input.now };
        self.note(
            NoteKind::Held,
            format!("{} failed: {}", super::revision_word(desired.revision.as_ref()), failure.reason()),
        );
        let all_back = self.plan.tells.iter().all(|tell| tell.event == Event::RolledBack);
        let outcome = if all_back { Outcome::RolledBack } else { Outcome::Failed };
        self.remember_end(desired, outcome, failure.reason());
        self.state.remember(failure);
        self.plan.verdict = Verdict::Held;
    }

    /// Brings back what this rollout changed besides what failed, and removes what it made, dependents first.
    fn roll_back_the_others(&mut self, intent: &Intent, troubles: &BTreeMap<String, (Trouble, bool)>) {
        for name in intent.services.iter().filter(|name| !troubles.contains_key(*name)) {
            if self.was_updated_since(name, intent) && self.roll_back(name) {
                self.state.baselines.remove(name);
            }
        }
        for name in self.services_in_removal_order() {
            if intent.services.contains(&name) && self.was_made_by(intent, &name) {
                let id = self.state.owned.services.get(&name).cloned().unwrap_or_default();
                self.plan.steps.push(Step::Remove { kind: Kind::Service, id, name });
            }
        }
    }

    /// True if this rollout made the service, and the stack was healthy without it. Only its record tells: clocks differ, and a
    /// service that was there before must not go.
    fn was_made_by(&self, intent: &Intent, name: &str) -> bool {
        let live = self.input.observed.swarm.services.get(name);
        let is_ours = live.is_some_and(|live| self.state.owned.has(Kind::Service, name, &live.id));
        is_ours && intent.made.contains(name) && self.state.healthy.is_some()
    }

    /// Plans swarm's own rollback; false for a service that has no previous spec, and for a job: swarm would run the former one again.
    fn roll_back(&mut self, name: &str) -> bool {
        let live = self.input.observed.swarm.services.get(name);
        let can_go_back = |live: &&Service| live.previous_spec.is_some() && !is_job(&live.spec.mode);
        let Some(live) = live.filter(can_go_back) else { return false };
        self.plan.steps.push(Step::ServiceRollback {
            id: live.id.clone(),
            version: live.version.index,
            spec: Box::new(live.spec.clone()),
        });
        true
    }

    /// Services of a revision that is not known as healthy, with nothing on its way, that do not run as they should: they are
    /// followed as a rollout is, though nothing has to be written.
    pub(super) fn unproven(&self, desired: &DesiredStack, fingerprint: &str) -> Vec<String> {
        let is_known = self.state.healthy.as_ref().is_some_and(|mark| mark.fingerprint == fingerprint);
        if is_known || self.state.rollout.is_some() {
            return Vec::new();
        }
        // A job that is not complete says nothing about this revision: it may have failed long ago.
        let services = desired.objects.services.values().filter(|service| !is_job(&service.spec.mode));
        let names = services.map(|service| &service.spec.name);
        let is_behind = |name: &&String| matches!(self.progress_of(name), Some(Progress::Going(_)));
        names.filter(is_behind).cloned().collect()
    }

    /// True if this rollout updated the service: only then is its previous spec worth going back to.
    fn was_updated_since(&self, name: &str, intent: &Intent) -> bool {
        let live = self.input.observed.swarm.services.get(name);
        let applied = self.state.baselines.get(name).map(|baseline| &baseline.desired) == self.fingerprints.get(name);
        applied && live.and_then(|live| timestamp(&live.updated_at)).is_some_and(|at| at + CLOCK_SKEW >= intent.since)
    }
}
