//! Where the lock is kept: all that an election asks of Consul, or of the swarm itself.
//!
//! Both pass one suite of tests, `tests/coordination`, and one simulation.

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::record::LeaderInfo;
use super::vocabulary::{Action, Event, Failure};
use crate::io::{consul, swarm};
use crate::status::Candidate;

/// One lock, in one place.
pub trait Coordination: Send + Sync + 'static {
    /// Carries out one request of the election, any but [`Action::Probe`]; `now` is what a record shall say.
    fn perform(&self, action: Action, now: OffsetDateTime) -> BoxFuture<'_, Result<Event, Trouble>>;

    /// Who leads at the moment.
    fn current(&self) -> BoxFuture<'_, Result<Option<LeaderInfo>, Trouble>>;

    /// Who stands, for people.
    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Candidate>, Trouble>>;
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Trouble {
    /// Whether it may have been carried out all the same.
    pub failure: Failure,
    /// What happened.
    pub reason: String,
}

impl Trouble {
    /// It may have been carried out.
    pub(super) fn unknown(reason: impl Into<String>) -> Self {
        Self { failure: Failure::Unknown, reason: reason.into() }
    }
}

impl From<consul::Error> for Trouble {
    fn from(error: consul::Error) -> Self {
        let failure = if error.is_ambiguous() { Failure::Unknown } else { Failure::Refused };
        Self { failure, reason: error.to_string() }
    }
}

impl From<swarm::Error> for Trouble {
    fn from(error: swarm::Error) -> Self {
        use swarm::Error::{Answer, NoQuorum, Unreachable};
        // Without a quorum the engine waits for one, and may find it after it has given us up.
        let unknown = matches!(error, Unreachable { .. } | NoQuorum { .. } | Answer { .. });
        let failure = if unknown { Failure::Unknown } else { Failure::Refused };
        Self { failure, reason: error.to_string() }
    }
}
