//! How long a leader may write without asking Consul again. Pure: every time is a parameter, from [`super::clock::boottime`].
//!
//! Why it is safe, with the lock in Consul ([`super::swarm::judge`] says it for the swarm). A consistent read that was *sent* at `s` and showed our session proves that we held the lock at some moment after
//! `s`. Consul gives a lock that was not signed off to nobody else before the lock delay is over, and a successor that cannot tell
//! waits as long by itself. So nobody else writes before `s + lock_delay`, and we stop at `s + lock_delay - margin`, the margin
//! being longer than a write can be under way.
//!
//! A heartbeat of the TTL check proves nothing here: the node's own agent answers it, also when it is cut off from the servers.

use std::time::Duration;

/// How quickly a lost leader is noticed, and what that costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// How long a candidate may be silent before Consul ends its session.
    pub check_ttl: Duration,
    /// How often it gives a sign of life, and, leading, proves that it holds the lock.
    pub heartbeat: Duration,
    /// How long Consul keeps a lock that was not signed off from others; whole seconds at least one.
    pub lock_delay: Duration,
    /// How long before the end of the lock delay a leader stops writing.
    pub margin: Duration,
}

impl Profile {
    /// A killed leader is replaced after at most 12 s. The margin is above the 2 s that a write to the engine may take.
    pub const DEFAULT: Self = Self {
        check_ttl: Duration::from_secs(6),
        heartbeat: Duration::from_secs(1),
        lock_delay: Duration::from_secs(5),
        margin: Duration::from_millis(2500),
    };

    /// A killed leader is replaced after at most 3.5 s. Two prices: heartbeats that stall while Consul elects its own leader cost the
    /// lock, and a write to the engine that takes longer than the margin may still be under way when the successor begins; the
    /// object's version then decides which of the two counts.
    pub const FAST: Self = Self {
        check_ttl: Duration::from_secs(2),
        heartbeat: Duration::from_millis(250),
        lock_delay: Duration::from_secs(1),
        margin: Duration::from_millis(300),
    };

    /// A killed leader is replaced after at most 16 s: Consul's default `raft_multiplier` of 5 lets its elections take so long that
    /// heartbeats stall.
    pub const SLOW: Self = Self { check_ttl: Duration::from_secs(10), ..Self::DEFAULT };

    /// With the lock in the swarm: a killed leader is replaced after at most 11 s. A proof is a Raft write, so there are few of them.
    pub const SWARM: Self = Self {
        check_ttl: Duration::from_secs(10),
        heartbeat: Duration::from_secs(3),
        lock_delay: Duration::from_secs(10),
        margin: Duration::from_millis(2500),
    };

    /// How long a proof lasts.
    pub fn lease(&self) -> Duration {
        self.lock_delay.saturating_sub(self.margin)
    }
}

/// What is proven about our holding the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    proven: Option<Duration>,
}

impl Lease {
    /// A request sent at `sent` was answered with proof that the lock was ours.
    pub fn prove(&mut self, sent: Duration) {
        self.proven = self.proven.max(Some(sent));
    }

    /// Something speaks against it: nothing counts until the next proof.
    pub fn doubt(&mut self) {
        self.proven = None;
    }

    /// When it ends; none if nothing is proven.
    pub fn until(&self, profile: &Profile) -> Option<Duration> {
        self.proven.map(|proven| proven + profile.lease())
    }

    /// True while we may write.
    pub fn holds(&self, now: Duration, profile: &Profile) -> bool {
        self.until(profile).is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[track_caller]
    fn check(proofs: &[u64], now: u64, expect: bool) {
        let mut lease = Lease::default();
        for &sent in proofs {
            lease.prove(at(sent));
        }
        assert_eq!(lease.holds(at(now), &Profile::DEFAULT), expect);
    }

    #[test]
    fn nothing_proven_is_no_lease() {
        check(&[], 0, false);
    }

    #[test]
    fn a_proof_counts_from_when_it_was_asked_for_and_ends_a_margin_before_the_lock_delay() {
        check(&[1000], 1000, true);
        check(&[1000], 3499, true);
        check(&[1000], 3500, false);
    }

    #[test]
    fn an_answer_that_overtakes_an_older_one_is_not_undone_by_it() {
        check(&[2000, 1000], 4400, true);
    }

    #[test]
    fn a_doubt_ends_it_until_the_next_proof() {
        let mut lease = Lease::default();
        lease.prove(at(1000));
        lease.doubt();
        assert!(!lease.holds(at(1001), &Profile::DEFAULT));
        lease.prove(at(1002));
        assert!(lease.holds(at(1003), &Profile::DEFAULT));
    }

    #[test]
    fn a_lease_is_renewed_several_times_before_it_ends_and_a_check_before_it_expires() {
        for profile in [Profile::DEFAULT, Profile::FAST, Profile::SWARM] {
            assert!(profile.heartbeat * 2 < profile.lease());
            assert!(profile.heartbeat * 3 < profile.check_ttl);
        }
    }
}
