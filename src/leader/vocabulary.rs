//! The vocabulary of the election: what it may ask for, and what may happen to it.

use std::time::Duration;

use time::OffsetDateTime;

use super::Error;
use super::record::Record;

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    Claim,
    Sweep,
    Probe,
    Register,
    Beat,
    CreateSession,
    Renew,
    Watch,
    Prove,
    Acquire,
    Release,
    Close,
}

/// All of them, in the order in which a plan names them.
pub const TASKS: [Task; 12] = [
    Task::Claim,
    Task::Sweep,
    Task::Probe,
    Task::Register,
    Task::Beat,
    Task::CreateSession,
    Task::Renew,
    Task::Watch,
    Task::Prove,
    Task::Acquire,
    Task::Release,
    Task::Close,
];

/// A request to send now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Compare the swarm's ID with the cluster's claim; make the claim if there is none.
    Claim,
    /// End the sessions that an earlier process of this node left behind.
    Sweep,
    /// Ask the engine for its services.
    Probe,
    /// Register the TTL check.
    Register,
    /// Give a sign of life.
    Beat {
        /// What we are, for people.
        note: String,
    },
    /// Make a session.
    CreateSession,
    /// Renew the session, or learn that it is gone.
    Renew {
        /// The session.
        session: String,
    },
    /// Wait for the lock to change.
    Watch {
        /// The index of the last answer.
        index: u64,
    },
    /// Read the lock consistently.
    Prove,
    /// Take the lock in the state we saw.
    Acquire {
        /// Our session.
        session: String,
        /// The lock's `modify_index`; none if there is no such key.
        expect: Option<u64>,
    },
    /// Give the lock back.
    Release {
        /// Our session.
        session: String,
        /// When we took it.
        since: OffsetDateTime,
        /// True if nothing of ours can be under way any more.
        signed_off: bool,
    },
    /// End the session and deregister the check.
    Close {
        /// Our session, if we have one.
        session: Option<String>,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The cluster is ours.
    Claimed,
    /// We may not stand here, and never will as things are.
    Barred(Error),
    /// No session of an earlier process is left.
    Swept,
    /// The engine answered.
    Probed,
    /// The check is registered.
    Registered,
    /// The agent took our sign of life.
    Beaten,
    /// The session exists.
    SessionMade(String),
    /// The session lives on, or is gone.
    Renewed(bool),
    /// The lock as the watch shows it; none if there is no such key.
    Watched {
        /// The lock.
        lock: Option<Lock>,
        /// What to wait for a change after: grows with every write of the lock.
        index: u64,
    },
    /// The lock as a consistent read shows it.
    Proven {
        /// When the read was sent.
        sent: Duration,
        /// The lock.
        lock: Option<Lock>,
    },
    /// The lock is ours.
    Acquired {
        /// When the request was sent.
        sent: Duration,
        /// The session it was taken with.
        session: String,
        /// The fencing token.
        token: u64,
        /// What our record says.
        since: OffsetDateTime,
    },
    /// It is held, in its lock delay, or not in the state we saw.
    NotAcquired,
    /// The lock is given back, or was not ours.
    Released,
    /// Nothing of ours is left there.
    Closed,
    /// A request failed.
    Failed(Task, Failure),
    /// We are to stop; nothing of ours writes any more.
    SignOff,
    /// A person wants another leader.
    StepDown,
    /// A fenced write was refused.
    Doubt,
}

/// How a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may have been carried out.
    Unknown,
    /// It was not.
    Refused,
}

/// The lock's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// Its last write.
    pub modify_index: u64,
    /// The session that holds it.
    pub session: Option<String>,
    /// Its value, if it can be read.
    pub record: Option<Record>,
    /// True if the lease of whoever held it last is over for certain, although it did not sign off.
    pub over: bool,
}

impl Event {
    /// The request that it ends; none for what comes from outside.
    pub fn task(&self) -> Option<Task> {
        Some(match self {
            Self::Claimed | Self::Barred(Error::OtherSwarm { .. }) => Task::Claim,
            Self::Swept => Task::Sweep,
            Self::Probed | Self::Barred(Error::Overruled { .. } | Error::Left) => Task::Probe,
            Self::Registered => Task::Register,
            Self::Beaten => Task::Beat,
            Self::SessionMade(_) => Task::CreateSession,
            Self::Renewed(_) => Task::Renew,
            Self::Watched { .. } => Task::Watch,
            Self::Proven { .. } => Task::Prove,
            Self::Acquired { .. } | Self::NotAcquired => Task::Acquire,
            Self::Released => Task::Release,
            Self::Closed => Task::Close,
            Self::Failed(task, _) => *task,
            Self::SignOff | Self::StepDown | Self::Doubt => return None,
        })
    }
}

impl Action {
    /// Its kind.
    pub fn task(&self) -> Task {
        match self {
            Self::Claim => Task::Claim,
            Self::Sweep => Task::Sweep,
            Self::Probe => Task::Probe,
            Self::Register => Task::Register,
            Self::Beat { .. } => Task::Beat,
            Self::CreateSession => Task::CreateSession,
            Self::Renew { .. } => Task::Renew,
            Self::Watch { .. } => Task::Watch,
            Self::Prove => Task::Prove,
            Self::Acquire { .. } => Task::Acquire,
            Self::Release { .. } => Task::Release,
            Self::Close { .. } => Task::Close,
        }
    }
}
