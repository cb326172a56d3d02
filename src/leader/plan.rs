//! The election as a pure state machine: what is known, what happened, what to do next.
//!
//! [`Election::observe`] takes one event, [`Election::plan`] says which requests to send now and when to look again, and
//! [`Election::leadership`] and [`Election::grant`] say what it all means. Every time is a parameter.
//!
//! At most one request of each [`Task`] is under way. A request that failed is sent again after a bounded back-off, except the
//! signs of life, the proofs and the probes, which keep their own pace.
//!
//! Four rules carry the safety:
//!
//! * Only a consistent read sent after our last own change of the lock proves anything ([`Event::Proven`]); a watch may be late.
//! * A lock is taken only in the very state we saw (`check-index` in the same transaction), so what that state says of the predecessor
//!   is true at the moment of taking it.
//! * A predecessor that did not sign off may write until its lease ends. That is at most its lock delay after the moment we *first saw*
//!   the lock free, in a state unchanged since; where we saw no such state, after the moment of taking it. Where the lock is free
//!   *because* its holder was silent that long ([`Lock::over`]), the time is over already.
//! * Who closes its gate by itself, to step down, gives the lock back a margin later, when no write can be under way any more.

use std::collections::BTreeMap;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use time::OffsetDateTime;

use super::lease::{Lease, Profile};
use super::record::Record;
use super::vocabulary::{Action, Event, Failure, Lock, TASKS, Task};
use super::{Error, Grant, Leadership};

/// How often the engine is asked for its services.
pub const PROBE_EVERY: Duration = Duration::from_secs(10);

/// How often by who does not lead, after a failure: swarm's managers may have elected a leader meanwhile.
pub const PROBE_AGAIN_EVERY: Duration = Duration::from_secs(1);

/// How many probes in a row a leader may fail.
pub const PROBE_FAILURES_MAX: u32 = 3;

/// How long the engine's word counts that it answers and that our coordination is the one in force; see [`super::mandate`].
pub const MANDATE: Duration = Duration::from_secs(45);

/// How long a leader that stepped down, or whose engine failed, does not stand again, unless another one has led in the meantime.
pub const COOL_DOWN: Duration = Duration::from_mins(1);

/// The session's own TTL, a backstop behind its checks.
pub const SESSION_TTL: Duration = Duration::from_secs(15);

/// Shortest and longest pause before a failed request is sent again.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// A blocking query on a missing key answers at every unrelated write; this bounds how often we ask.
const WATCH_MISSING_EVERY: Duration = Duration::from_millis(250);

/// What the note of a candidate that is not to be elected begins with.
pub const NOT_STANDING: &str = "not standing";

/// What to do now, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Requests to send at once, side by side.
    pub actions: Vec<Action>,
    /// When to plan again, should nothing happen before; none if only an event can change anything.
    pub wake: Option<Duration>,
}

/// Everything we know about the election.
#[derive(Debug)]
// Each is a fact of its own: no two of them make a state.
#[allow(clippy::struct_excessive_bools)]
pub struct Election {
    profile: Profile,
    slots: BTreeMap<Task, Slot>,
    claimed: bool,
    barred: Option<Error>,
    swept: bool,
    registered: bool,
    session: Option<String>,
    engine: Engine,
    watch_index: u64,
    /// None until it was read for the first time.
    seen: Option<Seen>,
    attempt: Option<Attempt>,
    held: Option<Held>,
    /// When we last changed the lock ourselves; reads that are older prove nothing.
    changed: Duration,
    retry_at: Duration,
    prove_now: bool,
    renew_now: bool,
    signing_off: bool,
    /// When nothing of ours is under way any more, should we close the gate ourselves.
    quiet_from: Duration,
    /// True from a step-down until the lock is given back.
    resigned: bool,
    finished: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    busy: bool,
    started: Option<Duration>,
    failures: u32,
    not_before: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Engine {
    answered: bool,
    /// When the last probe that succeeded was sent.
    asked: Duration,
    failures: u32,
    cool_until: Duration,
}

#[derive(Debug)]
struct Seen {
    lock: Option<Lock>,
    /// Since when we know the lock to be free, in the state of `lock`; none if it is held or missing.
    free_since: Option<Duration>,
}

/// What an acquiring write under way would mean.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// When the predecessor's lease has surely ended; none if only the moment of taking the lock can tell.
    clear: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    token: u64,
    since: OffsetDateTime,
    writable_from: Duration,
    lease: Lease,
}

impl Election {
    /// A candidate that knows nothing yet.
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            slots: BTreeMap::new(),
            claimed: false,
            barred: None,
            swept: false,
            registered: false,
            session: None,
            engine: Engine::default(),
            watch_index: 0,
            seen: None,
            attempt: None,
            held: None,
            changed: Duration::ZERO,
            retry_at: Duration::ZERO,
            prove_now: false,
            renew_now: false,
            signing_off: false,
            quiet_from: Duration::ZERO,
            resigned: false,
            finished: false,
        }
    }

    /// Takes one event.
    pub fn observe(&mut self, event: Event, now: Duration) {
        if let Some(task) = event.task() {
            self.finish(task, matches!(event, Event::Failed(..)), now);
        }
        match event {
            Event::Claimed => self.claimed = true,
            Event::Barred(error) => {
                self.barred = Some(error);
                self.signing_off = true;
                self.quiet_from = now + self.profile.margin;
            }
            Event::Swept => self.swept = true,
            Event::Probed => {
                let asked = self.slots.get(&Task::Probe).and_then(|slot| slot.started).unwrap_or_default();
                self.engine = Engine { answered: true, asked, failures: 0, ..self.engine };
            }
            Event::Registered => {
                self.registered = true;
                // A check that was gone took the session with it.
                self.renew_now = self.session.is_some();
            }
            Event::SessionMade(session) => self.session = Some(session),
            Event::Renewed(true) => self.renew_now = false,
            Event::Renewed(false) => {
                self.renew_now = false;
                self.session = None;
                self.held = None;
            }
            Event::Watched { lock, index } => self.watched(lock, index, now),
            Event::Proven { sent, lock } => self.proven(lock, sent, now),
            Event::Acquired { sent, session, token, since } => self.acquired(sent, session, token, since, now),
            Event::NotAcquired => self.not_acquired(now),
            Event::Released => {
                self.held = None;
                self.resigned = false;
                self.changed = now;
            }
            Event::Closed => self.finished = true,
            Event::Failed(task, failure) => self.failed(task, failure, now),
            Event::SignOff => {
                self.signing_off = true;
                self.quiet_from = now;
            }
            Event::StepDown if self.held.is_some() && !self.signing_off => {
                self.resigned = true;
                self.engine.cool_until = now + COOL_DOWN;
                self.quiet_from = now + self.profile.margin;
            }
            Event::Beaten | Event::StepDown => {}
            Event::Doubt => {
                if let Some(held) = &mut self.held {
                    held.lease.doubt();
                    self.prove_now = true;
                }
            }
        }
    }

    /// What to do now.
    pub fn plan(&mut self, now: Duration) -> Plan {
        let mut actions = Vec::new();
        let mut wake = self.lease_end().filter(|end| *end > now);
        for task in TASKS {
            let slot = self.slots.get(&task).copied().unwrap_or_default();
            let Some(due) = self.due(task, now, slot).filter(|_| !slot.busy) else { continue };
            let due = due.max(slot.not_before);
            if due > now {
                wake = Some(wake.map_or(due, |wake| wake.min(due)));
            } else if let Some(action) = self.action(task, now) {
                self.begin(task, now);
                actions.push(action);
            }
        }
        Plan { actions, wake }
    }

    /// What it means for everyone else.
    pub fn leadership(&self, now: Duration) -> Leadership {
        match &self.held {
            Some(Held { token, since, writable_from, lease }) if self.stays(now) => {
                let (token, since, writable_from) = (*token, *since, *writable_from);
                if lease.holds(now, &self.profile) && now < self.mandate_end() {
                    Leadership::Leading { token, since, writable_from }
                } else {
                    Leadership::Suspended { token, since }
                }
            }
            _ => Leadership::Follower { leader: self.other_leader() },
        }
    }

    /// What the fence works with; none while we do not hold the lock.
    pub fn grant(&self, now: Duration) -> Option<Grant> {
        let (held, session) = (self.held.as_ref()?, self.session.as_ref()?);
        self.stays(now).then(|| Grant {
            token: held.token,
            session: session.clone(),
            writable_from: held.writable_from,
            until: self.until(&held.lease),
        })
    }

    /// True when nothing is left to do, after [`Event::SignOff`] or because we may not stand.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// Why we may not stand.
    pub fn barred(&self) -> Option<&Error> {
        self.barred.as_ref()
    }

    /// True if a leader may go on.
    fn stays(&self, now: Duration) -> bool {
        !self.signing_off && now >= self.engine.cool_until
    }

    /// True if we may take the lock.
    fn stands(&self, now: Duration) -> bool {
        self.stays(now) && self.claimed && self.engine.answered
    }

    /// When `task` should begin, were nothing of its kind under way; none if there is no reason for it.
    fn due(&self, task: Task, now: Duration, slot: Slot) -> Option<Duration> {
        let every = |pace: Duration| slot.started.map_or(Duration::ZERO, |started| started + pace);
        let at = |wanted: bool, when: Duration| wanted.then_some(when);
        if self.signing_off && !matches!(task, Task::Release | Task::Close) {
            return None;
        }
        match task {
            Task::Claim => at(!self.claimed, now),
            // Before the claim is clear, nothing may touch what could be another swarm's.
            Task::Sweep => at(self.claimed && !self.swept, now),
            Task::Probe if self.engine.failures > 0 && self.held.is_none() => Some(every(PROBE_AGAIN_EVERY)),
            Task::Probe => Some(every(PROBE_EVERY)),
            Task::Register => at(self.claimed && !self.registered, now),
            Task::Beat => at(self.registered, every(self.profile.heartbeat)),
            Task::CreateSession => at(self.session.is_none() && self.registered && self.swept, now),
            Task::Renew => {
                let when = if self.renew_now { now } else { every(SESSION_TTL / 3) };
                at(self.session.is_some(), when)
            }
            Task::Watch => match &self.seen {
                Some(Seen { lock: None, .. }) => Some(every(WATCH_MISSING_EVERY)),
                _ => Some(now),
            },
            Task::Prove => {
                let when = if self.prove_now { now } else { every(self.profile.heartbeat) };
                at(self.prove_now || self.held.is_some(), when)
            }
            Task::Acquire => at(self.stands(now) && self.session.is_some() && self.wants_lock(), self.retry_at),
            Task::Release => at(self.held.is_some() && !self.stays(now), self.quiet_from),
            Task::Close => {
                let settled = ![Task::Acquire, Task::CreateSession, Task::Release].iter().any(|task| self.busy(*task));
                at(self.signing_off && !self.finished && self.held.is_none() && settled, now)
            }
        }
    }

    /// True if the lock is free, or ours with a stranger's value in it.
    fn wants_lock(&self) -> bool {
        match (&self.seen, &self.held) {
            (None, _) => false,
            (Some(seen), None) => seen.lock.as_ref().is_none_or(|lock| lock.session.is_none()),
            (Some(seen), Some(held)) => {
                seen.lock.as_ref().is_some_and(|lock| lock.session == self.session && lock.modify_index > held.token)
            }
        }
    }

    fn action(&mut self, task: Task, now: Duration) -> Option<Action> {
        let session = self.session.clone();
        Some(match task {
            Task::Claim => Action::Claim,
            Task::Sweep => Action::Sweep,
            Task::Probe => Action::Probe,
            Task::Register => Action::Register,
            Task::Beat => Action::Beat { note: self.note() },
            Task::CreateSession => Action::CreateSession,
            Task::Renew => Action::Renew { session: session? },
            Task::Watch => Action::Watch { index: self.watch_index },
            Task::Prove => {
                self.prove_now = false;
                Action::Prove
            }
            Task::Acquire => {
                self.attempt = Some(Attempt { clear: self.clear() });
                let lock = self.seen.as_ref()?.lock.as_ref();
                Action::Acquire { session: session?, expect: lock.map(|lock| lock.modify_index) }
            }
            // Not before `quiet_from`: nothing of ours is under way any more. An engine that fails says no such thing, and who has not
            // waited its predecessor's lease out cannot speak for that one.
            Task::Release => {
                let held = self.held?;
                let signed_off = (self.signing_off || self.resigned) && held.writable_from <= now;
                Action::Release { session: session?, since: held.since, signed_off }
            }
            Task::Close => Action::Close { session },
        })
    }

    /// When the predecessor's lease has surely ended, as far as the state we saw tells.
    fn clear(&self) -> Option<Duration> {
        let seen = self.seen.as_ref()?;
        let lock = seen.lock.as_ref()?;
        let record = lock.record.as_ref();
        if lock.over || record.is_some_and(|record| record.signed_off) {
            return Some(Duration::ZERO);
        }
        let theirs = record.map_or(Duration::ZERO, Record::lock_delay);
        Some(seen.free_since? + self.profile.lock_delay.max(theirs))
    }

    fn probe_failed(&mut self, now: Duration) {
        self.engine.answered = false;
        self.engine.failures = self.engine.failures.saturating_add(1);
        if self.held.is_some() && self.engine.failures >= PROBE_FAILURES_MAX {
            self.engine.cool_until = now + COOL_DOWN;
            self.quiet_from = now;
            self.resigned = false;
        }
    }

    fn watched(&mut self, lock: Option<Lock>, index: u64, now: Duration) {
        self.watch_index = index;
        let ours = self.is_ours(lock.as_ref());
        match &self.held {
            // The watch may still tell of the time before we took it.
            Some(held) if !ours && index <= held.token => return,
            Some(_) if !ours => self.held = None,
            // Perhaps the answer of an acquiring write was lost; only a consistent read may say so. One that is under way knows more:
            // when the predecessor's lease ended.
            None if ours && !self.busy(Task::Acquire) => self.prove_now = true,
            _ => {}
        }
        self.see(lock, now);
    }

    fn proven(&mut self, lock: Option<Lock>, sent: Duration, now: Duration) {
        if sent < self.changed {
            self.prove_now = true;
            return;
        }
        let ours = self.is_ours(lock.as_ref());
        match (&mut self.held, ours) {
            (Some(held), true) => held.lease.prove(sent),
            (held @ None, true) => {
                // We hold it without having been told so; nothing is known of the time before.
                let token = lock.as_ref().map_or(0, |lock| lock.modify_index);
                let since = lock.as_ref().and_then(|lock| lock.record.as_ref()).map(|record| record.since);
                let mut lease = Lease::default();
                lease.prove(sent);
                *held = Some(Held {
                    token,
                    since: since.unwrap_or(OffsetDateTime::UNIX_EPOCH),
                    writable_from: now + self.profile.lock_delay,
                    lease,
                });
            }
            (held, false) => *held = None,
        }
        self.see(lock, now);
    }

    fn acquired(&mut self, sent: Duration, session: String, token: u64, since: OffsetDateTime, now: Duration) {
        let clear = self.attempt.take().and_then(|attempt| attempt.clear);
        self.changed = now;
        if self.session.as_ref() != Some(&session) {
            // The session ended meanwhile, and with it the lock.
            return;
        }
        let mut lease = Lease::default();
        lease.prove(sent);
        // Held already: a stranger's value was overwritten, and nobody else has held it in between.
        let writable_from = match &self.held {
            Some(held) => held.writable_from,
            None => clear.unwrap_or(now + self.profile.lock_delay),
        };
        self.held = Some(Held { token, since, writable_from, lease });
        let lock = Lock { modify_index: token, session: Some(session), record: None, over: false };
        self.seen = Some(Seen { lock: Some(lock), free_since: None });
    }

    fn not_acquired(&mut self, now: Duration) {
        self.attempt = None;
        self.changed = now;
        // Should it be our session that is at fault, this tells.
        self.renew_now = self.session.is_some();
        let delay_ends =
            self.seen.as_ref().and_then(|seen| seen.free_since).map(|since| since + self.profile.lock_delay);
        self.retry_at = delay_ends.filter(|end| *end > now).unwrap_or(now + RETRY);
    }

    fn failed(&mut self, task: Task, failure: Failure, now: Duration) {
        match task {
            Task::Probe => self.probe_failed(now),
            // The agent was restarted and has forgotten the check, or somebody took it away.
            Task::Beat if failure == Failure::Refused => self.registered = false,
            Task::Acquire => {
                self.attempt = None;
                self.changed = now;
                self.prove_now = failure == Failure::Unknown;
            }
            Task::Prove if self.held.is_none() => self.prove_now = true,
            // Ending the session, which comes next, releases the lock as well, after its delay.
            Task::Release if self.signing_off => self.held = None,
            Task::Close => self.finished = true,
            _ => {}
        }
    }

    fn see(&mut self, lock: Option<Lock>, now: Duration) {
        let before = self.seen.as_ref();
        let same = before.is_some_and(|seen| seen.lock == lock);
        if same {
            return;
        }
        if lock.is_none() && before.is_some_and(|seen| seen.lock.is_some()) {
            // Somebody wiped our keys, the claim perhaps among them.
            self.claimed = false;
        }
        let free = lock.as_ref().is_some_and(|lock| lock.session.is_none());
        if self.held.is_none() && lock.as_ref().is_some_and(|lock| self.is_anothers(lock)) {
            // Another one has had its turn. Should it be lost, everyone is needed.
            self.engine.cool_until = now;
        }
        self.retry_at = now;
        self.seen = Some(Seen { lock, free_since: free.then_some(now) });
    }

    fn is_ours(&self, lock: Option<&Lock>) -> bool {
        lock.is_some_and(|lock| lock.session.is_some() && lock.session == self.session)
    }

    fn is_anothers(&self, lock: &Lock) -> bool {
        lock.session.is_some() && lock.session != self.session
    }

    fn other_leader(&self) -> Option<super::LeaderInfo> {
        let lock = self.seen.as_ref()?.lock.as_ref().filter(|lock| self.is_anothers(lock))?;
        lock.record.as_ref().map(|record| record.info(lock.modify_index))
    }

    /// Constant while nothing changes: Consul wakes every watcher of a check whose text changes.
    fn note(&self) -> String {
        match &self.held {
            Some(held) => format!("leading since {}", super::rfc3339(held.since)),
            None if self.engine.failures > 0 => {
                format!("{NOT_STANDING}: the docker engine does not list its services, or says that nobody is to lead")
            }
            None => "candidate".to_owned(),
        }
    }

    fn lease_end(&self) -> Option<Duration> {
        self.until(&self.held.as_ref()?.lease)
    }

    /// The end of the lease, or of the mandate if that comes first.
    fn until(&self, lease: &super::lease::Lease) -> Option<Duration> {
        lease.until(&self.profile).map(|until| until.min(self.mandate_end()))
    }

    fn mandate_end(&self) -> Duration {
        self.engine.asked + MANDATE
    }

    fn busy(&self, task: Task) -> bool {
        self.slots.get(&task).is_some_and(|slot| slot.busy)
    }

    fn begin(&mut self, task: Task, now: Duration) {
        let slot = self.slots.entry(task).or_default();
        slot.busy = true;
        slot.started = Some(now);
    }

    fn finish(&mut self, task: Task, failed: bool, now: Duration) {
        let slot = self.slots.entry(task).or_default();
        slot.busy = false;
        slot.failures = if failed { slot.failures.saturating_add(1) } else { 0 };
        slot.not_before = match task {
            _ if !failed => Duration::ZERO,
            Task::Beat | Task::Prove | Task::Probe => now + RETRY,
            _ => now + backoff(slot.failures),
        };
    }
}

/// The pause after so many failures in a row.
fn backoff(failures: u32) -> Duration {
    let pauses = ExponentialBuilder::new().with_min_delay(RETRY).with_max_delay(RETRY_MAX).without_max_times();
    pauses.build().take(failures.min(16) as usize).last().unwrap_or(RETRY)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
