//! Has the holder of the swarm's lock gone silent? Pure: every time is a parameter, from [`crate::leader::clock::boottime`].
//!
//! The swarm does not end a lock by itself, as Consul does. So each contender watches the holder's signs of life with its own clock: a
//! holder that gave none for its whole lock delay has none of its lease left, and its lock counts as free.
//!
//! Why it is safe. The last sign of life that the engine took was sent before we first saw it, so the lease it proves ends within the
//! lock delay of that moment. Had there been another since, the version would be another one, and taking the lock is a compare-and-swap
//! on the version. No clock is compared with any other, only their pace.

use std::time::Duration;

use super::super::vocabulary::Lock;
use super::slip::{Found, Kind, Standing};

/// Who holds a lock that is not in force.
const NOBODY: &str = "-";

/// What one contender remembers.
#[derive(Debug, Default)]
pub struct Judge {
    last: Option<(Sign, Duration)>,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sign {
    holder: String,
    term: u64,
    beat: u64,
}

impl Judge {
    /// The lock as the election is to see it, read at `now` or before, with the moment at which it would be silent for too long.
    pub fn see(
        &mut self,
        found: Option<&Found>,
        lock_delay: Duration,
        now: Duration,
    ) -> (Option<Lock>, Option<Duration>) {
        let Some(Found { version, slip, .. }) = found else { return (None, None) };
        let free = Lock { modify_index: *version, session: None, record: slip.record.clone(), over: false };
        if slip.standing != Standing::InForce(Kind::Swarm) {
            return (Some(Lock { session: Some(NOBODY.to_owned()), record: None, ..free }), None);
        }
        let Some(holder) = slip.holder.clone() else { return (Some(free), None) };
        let sign = Sign { holder: holder.clone(), term: slip.term, beat: slip.beat };
        let since = match &self.last {
            Some((last, since)) if *last == sign => *since,
            _ => now,
        };
        self.last = Some((sign, since));
        let theirs = slip.record.as_ref().map(super::super::record::Record::lock_delay).unwrap_or_default();
        let over_at = since + lock_delay.max(theirs);
        if now >= over_at {
            return (Some(Lock { over: true, ..free }), None);
        }
        (Some(Lock { modify_index: slip.term, session: Some(holder), ..free }), Some(over_at))
    }
}

#[cfg(test)]
mod tests {
    use super::super::slip::Slip;
    use super::*;

    const DELAY: Duration = Duration::from_secs(10);

    fn found(version: u64, beat: u64) -> Found {
        let slip =
            Slip { holder: Some("n1".into()), term: 5, beat, ..Slip::free(Standing::InForce(Kind::Swarm), None) };
        Found { id: "c".into(), version, slip }
    }

    /// What a contender takes the lock for that looked at these times, seeing these beats.
    #[track_caller]
    fn check(looks: &[(u64, u64)], expect: &str) {
        let mut judge = Judge::default();
        let mut seen = String::new();
        for (second, beat) in looks {
            let (lock, _) = judge.see(Some(&found(100 + second, *beat)), DELAY, Duration::from_secs(*second));
            let lock = lock.unwrap();
            seen = match (&lock.session, lock.over) {
                (Some(holder), false) => format!("held by {holder} with {}", lock.modify_index),
                (None, true) => format!("silent at {}", lock.modify_index),
                other => format!("{other:?}"),
            };
        }
        assert_eq!(seen, expect);
    }

    #[test]
    fn a_holder_that_beats_is_alive_and_one_that_stopped_is_silent_after_the_lock_delay() {
        check(&[(0, 1), (9, 1)], "held by n1 with 5");
        check(&[(0, 1), (10, 1)], "silent at 110");
        check(&[(0, 1), (9, 2), (18, 2)], "held by n1 with 5");
        check(&[(0, 1), (9, 2), (19, 2)], "silent at 119");
    }

    #[test]
    fn who_comes_late_waits_from_its_own_first_look() {
        check(&[(1000, 1)], "held by n1 with 5");
    }

    #[test]
    fn a_sign_that_comes_from_a_manager_behind_the_others_starts_the_wait_again() {
        check(&[(0, 2), (5, 1), (10, 2), (19, 2)], "held by n1 with 5");
    }

    #[test]
    fn a_longer_lock_delay_of_the_holder_is_waited_for() {
        let mut judge = Judge::default();
        let mut found = found(7, 1);
        let text = br#"{"schema":1,"node":"n1","address":"","version":"9","since":"2026-01-02T03:04:05Z","lock_delay_ms":20000}"#;
        found.slip.record = super::super::super::Record::read(text);
        let mut session_at = |second| judge.see(Some(&found), DELAY, Duration::from_secs(second)).0.unwrap().session;
        assert_eq!((session_at(0), session_at(19), session_at(20)), (Some("n1".into()), Some("n1".into()), None));
    }

    #[test]
    fn a_lock_that_is_not_in_force_is_never_free() {
        let mut judge = Judge::default();
        let slip = Slip::free(Standing::Changing(Kind::Swarm), None);
        let lock = judge.see(Some(&Found { id: "c".into(), version: 9, slip }), DELAY, DELAY).0.unwrap();
        assert!(lock.session.is_some() && lock.record.is_none());
    }
}
