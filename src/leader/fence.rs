//! May we write, now? Asked before every single write of a leader.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::clock::boottime;
use super::{Grant, Keys};
use crate::io::consul::txn::{Op, Outcome, split};
use crate::io::consul::{self, Consul};
use crate::io::{GateClosed, WriteGate, WritePermit};

/// Lets the leader's writes to the engine through and nobody else's; cheap to clone.
#[derive(Clone)]
pub struct Gate {
    grant: watch::Receiver<Option<Grant>>,
    notes: Arc<Notes>,
}

/// What those who write tell the candidate.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// A write was refused for want of the lock.
    pub doubt: Notify,
    /// A person wants another leader.
    pub step_down: Notify,
}

/// Lets the leader's writes to Consul's KV through and nobody else's; cheap to clone.
#[derive(Clone)]
pub struct Fence {
    gate: Gate,
    consul: Consul,
    lock_key: Arc<str>,
}

/// Why a fenced write was not made.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// We do not hold the lock, as far as we know.
    #[error(transparent)]
    Closed(#[from] GateClosed),
    /// Consul says that we do not hold the lock.
    #[error("not written: consul no longer has the lock with this node ({0})")]
    Lost(String),
    /// We hold the lock, and another condition of the transaction failed.
    #[error("not written: {0}")]
    Conflict(String),
    /// Consul failed; if the error is ambiguous, the write may have been made.
    #[error(transparent)]
    Consul(#[from] consul::Error),
}

impl Gate {
    pub(super) fn new(grant: watch::Receiver<Option<Grant>>, notes: Arc<Notes>) -> Self {
        Self { grant, notes }
    }

    /// Open while we lead, our predecessor's lease has ended, and ours has not.
    pub fn gate(&self) -> WriteGate {
        let gate = self.clone();
        Arc::new(move || gate.permit())
    }

    /// [`Self::gate`], asked once.
    pub fn permit(&self) -> Result<WritePermit, GateClosed> {
        self.held()?.permit(boottime())
    }

    /// Waits until the gate is open, which at the beginning of a leadership is when the predecessor's lease has ended.
    ///
    /// An error means that it never will be, because the candidacy has ended.
    pub async fn opened(&self) -> Result<WritePermit, GateClosed> {
        let mut grant = self.grant.clone();
        loop {
            let now = boottime();
            let opens = grant.borrow_and_update().as_ref().map(|grant| match grant.permit(now) {
                Ok(permit) => Ok(permit),
                // A lease that ended needs to be confirmed, which changes the grant.
                Err(_) if grant.writable_from <= now => Err(Duration::MAX),
                Err(_) => Err(grant.writable_from.saturating_sub(now)),
            });
            let pause = match opens {
                Some(Ok(permit)) => return Ok(permit),
                Some(Err(pause)) => pause,
                None => Duration::MAX,
            };
            tokio::select! {
                () = sleep(pause) => {}
                changed = grant.changed() => changed.map_err(|_| ended())?,
            }
        }
    }

    /// Asks the candidate to let another lead: it closes the gate at once, gives the lock back when no write can be under way any more,
    /// and does not stand before another one has led, or [`super::COOL_DOWN`] has passed. Does nothing unless we lead.
    pub fn step_down(&self) {
        self.notes.step_down.notify_one();
    }

    fn held(&self) -> Result<Grant, GateClosed> {
        if self.grant.has_changed().is_err() {
            return Err(ended());
        }
        self.grant.borrow().clone().ok_or_else(|| GateClosed("this node is not the leader".to_owned()))
    }
}

impl Fence {
    /// For the lock of `cluster` in `consul`, which `gate` is about.
    pub fn new(gate: Gate, consul: Consul, cluster: &str) -> Self {
        Self { gate, consul, lock_key: Keys::new(cluster).lock().into() }
    }

    /// Does `ops` in order, in as few transactions as Consul allows, each refused by Consul should the lock not be ours.
    ///
    /// All or nothing holds for one transaction: put what makes the others visible last.
    pub async fn kv_txn(&self, ops: Vec<Op>) -> Result<(), FenceError> {
        let Grant { token, session, .. } = self.gate.held()?;
        let key = self.lock_key.to_string();
        // A session may lose the lock and take it again: what it sent before is as stale as another's.
        let guards = [Op::CheckSession { key: key.clone(), session }, Op::CheckIndex { key, index: token }];
        for part in split(&guards, ops) {
            match self.consul.kv_txn(&part).await? {
                Outcome::Done { .. } => {}
                Outcome::Conflict { operation: 0 | 1, reason } => {
                    self.gate.notes.doubt.notify_one();
                    return Err(FenceError::Lost(reason));
                }
                Outcome::Conflict { reason, .. } => return Err(FenceError::Conflict(reason)),
            }
        }
        Ok(())
    }

    /// The token of the lock that we hold, whether or not we may write already.
    pub(super) fn token(&self) -> Result<u64, GateClosed> {
        self.gate.held().map(|grant| grant.token)
    }

    pub(super) fn consul(&self) -> &Consul {
        &self.consul
    }
}

fn ended() -> GateClosed {
    GateClosed("this node's candidacy has ended".to_owned())
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("grant", &*self.grant.borrow()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fence").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Grant {
    /// May we write to the engine at `now`?
    pub(super) fn permit(&self, now: Duration) -> Result<WritePermit, GateClosed> {
        let closed = match self.until {
            None => "it has yet to be confirmed that this node leads".to_owned(),
            Some(until) if now >= until => {
                let silent = now.saturating_sub(until).as_secs_f32();
                format!("the lease ended {silent:.1} s ago and has not been confirmed since")
            }
            Some(_) if now < self.writable_from => {
                let wait = self.writable_from.saturating_sub(now).as_secs_f32();
                format!("the previous leader's lease ends in {wait:.1} s")
            }
            Some(_) => return Ok(WritePermit { token: self.token }),
        };
        Err(GateClosed(closed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(writable_from: u64, until: Option<u64>, now: u64, words: &str) {
        let (writable_from, until) = (Duration::from_millis(writable_from), until.map(Duration::from_millis));
        let grant = Grant { token: 7, session: "s".to_owned(), writable_from, until };
        match grant.permit(Duration::from_millis(now)) {
            Ok(permit) => assert_eq!((permit.token, words), (7, "open")),
            Err(closed) => assert!(closed.to_string().contains(words), "{closed}"),
        }
    }

    #[test]
    fn it_is_open_inside_the_lease_and_after_the_predecessors() {
        check(0, Some(2000), 1000, "open");
        check(1000, Some(2000), 1000, "open");
        check(1500, Some(2000), 1000, "the previous leader's lease ends in 0.5 s");
        check(0, Some(2000), 2000, "the lease ended 0.0 s ago");
        check(0, None, 1000, "yet to be confirmed");
    }
}
