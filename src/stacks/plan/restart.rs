//! Restarts that a person asked for: the tasks of one service are replaced, and nothing else of it changes.
//!
//! A service is restarted *as it lives*: what was changed by hand, or waits to be changed, stays so. The counter that swarm
//! compares (ForceUpdate) is kept as it lives ever after, so the restart is neither undone nor seen as drift. The counter wished
//! for is in the state before the write, so a successor restarts nothing twice. A restart needs no rollout: whatever
//! else holds the stack back, a pause too, does not hold it back.

use time::Duration;

use super::services::restart;
use super::{Action, Change, Event, NoteKind, Planner, RESTART, Step};
use crate::spec::Service;
use crate::stacks::diff::Difference;
use crate::stacks::rollout::{Progress, Window, judge};
use crate::stacks::state::{Kind, RestartWish};
use crate::status::StackState as Verdict;

/// Tasks that do not run so long after the restart are told as a failure.
const RESTART_MAX: Duration = Duration::minutes(10);

impl Planner<'_> {
    /// Plans or follows every restart that was asked for.
    pub(super) fn restarts(&mut self) {
        for (name, wish) in self.state.restarts.clone() {
            let live = self.input.observed.swarm.services.get(&name);
            let live = live.filter(|live| self.state.owned.has(Kind::Service, &name, &live.id));
            match (live, wish.force_update) {
                // Gone meanwhile, or not ours any more.
                (None, _) => drop(self.state.restarts.remove(&name)),
                (Some(live), Some(to)) if live.spec.task_template.force_update >= to => {
                    self.follow_restart(&name, live, &wish);
                }
                (Some(live), _) => self.restart(&name, live, &wish),
            }
        }
    }

    fn restart(&mut self, name: &str, live: &Service, wish: &RestartWish) {
        let to = wish.force_update.unwrap_or(live.spec.task_template.force_update + 1);
        let of_service = |step: &&mut Step| step.object() == (Kind::Service.word(), name);
        match self.plan.steps.iter_mut().find(of_service) {
            Some(Step::ServiceUpdate { write, .. }) => write.spec.task_template.force_update = to,
            // It is written otherwise now: restarted in a later pass, if it is still there.
            Some(_) => return,
            None => {
                let mut spec = Box::new(live.spec.clone());
                spec.task_template.force_update = to;
                let (id, version) = (live.id.clone(), live.version.index);
                self.plan.steps.push(Step::ServiceRestart { id, version, spec });
            }
        }
        self.state.restarts.insert(name.to_owned(), RestartWish { force_update: Some(to), ..wish.clone() });
        let difference = Difference {
            what: RESTART.to_owned(),
            old: None,
            new: Some(wish.reason.clone()),
            location: None,
            restarts: true,
        };
        self.plan.changes.push(Change {
            kind: Kind::Service,
            name: name.to_owned(),
            action: Action::Update,
            differences: vec![difference],
            restarts: Some(restart(live, self.input.observed.tasks(&live.id))),
            waits: None,
            location: None,
        });
    }

    /// The restart was written: it is told when its tasks run, or do not.
    fn follow_restart(&mut self, name: &str, live: &Service, wish: &RestartWish) {
        let window = Window { since: wish.since, deadline: wish.since + RESTART_MAX };
        let tasks = self.input.observed.tasks(&live.id);
        match judge(live, tasks, &self.input.observed.swarm.nodes, Some(window), self.input.now) {
            Progress::Going(count) => {
                self.note(NoteKind::Waiting, format!("{name} restarts: {}/{} tasks", count.running, count.wanted));
                if self.plan.verdict == Verdict::Ok {
                    self.plan.verdict = Verdict::Waiting;
                }
            }
            Progress::Converged(_) => {
                self.state.restarts.remove(name);
                self.tell(Event::Restarted, Some(name), format!("restarted: {}", wish.reason));
            }
            Progress::RolledBack(trouble) | Progress::Paused(trouble) | Progress::Failed(trouble) => {
                self.state.restarts.remove(name);
                let text = format!("restarted ({}), and failed: {}", wish.reason, trouble.reason);
                self.tell(Event::Failed, Some(name), text);
                if let Some(tell) = self.plan.tells.last_mut() {
                    tell.task = trouble.task;
                }
            }
        }
    }
}
