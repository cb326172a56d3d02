//! What the engine said or did not say, sorted by what can be done next.

use std::time::Duration;

use crate::io::GateClosed;

/// Longest part of an engine's message that is kept.
const MESSAGE_CHARS_MAX: usize = 400;

/// A request that did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is no address: a person has to mend the configuration.
    #[error("engine address {address:?}: {reason}")]
    Address {
        /// As configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The engine is too old: a person has to update it.
    #[error("the engine speaks API {offered}, swarmkeeper needs {floor} or newer (Docker 20.10)")]
    TooOld {
        /// Its newest version.
        offered: String,
        /// Our oldest.
        floor: String,
    },
    /// Not asked at all: we may not write now.
    #[error("{operation}: {source}")]
    Closed {
        /// Method and path.
        operation: String,
        /// Why.
        source: GateClosed,
    },
    /// Somebody else wrote, or removed, in between: read again and decide again.
    #[error("{operation}: changed by somebody else in the meantime")]
    Conflict {
        /// Method and path.
        operation: String,
    },
    /// There is no such thing.
    #[error("{operation}: not found: {message}")]
    NotFound {
        /// Method and path.
        operation: String,
        /// The engine's words.
        message: String,
    },
    /// The name is taken.
    #[error("{operation}: exists already: {message}")]
    AlreadyExists {
        /// Method and path.
        operation: String,
        /// The engine's words.
        message: String,
    },
    /// This node is no manager (any more).
    #[error("{operation}: this node is not a swarm manager: {message}")]
    NotManager {
        /// Method and path.
        operation: String,
        /// The engine's words.
        message: String,
    },
    /// The managers have no majority: wait.
    #[error("{operation}: the swarm has no quorum: {message}")]
    NoQuorum {
        /// Method and path.
        operation: String,
        /// The engine's words.
        message: String,
    },
    /// No answer: a write may or may not have been done; the next look tells.
    #[error("{operation}: no answer from the engine within {}: {source:#}", humantime::format_duration(*.limit))]
    Unreachable {
        /// Method and path.
        operation: String,
        /// How long we waited at most.
        limit: Duration,
        /// What happened instead.
        source: reqwest::Error,
    },
    /// An answer that says no; asking again says it again.
    #[error("{operation}: the engine refused ({status}): {message}")]
    Refused {
        /// Method and path.
        operation: String,
        /// HTTP status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// An answer that we cannot read.
    #[error("{operation}: the engine's answer is not what its API promises: {reason}")]
    Answer {
        /// Method and path.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// True if somebody else's write came first, so that looking again is all that is needed.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::AlreadyExists { .. })
    }

    /// True if the swarm as a whole does not answer: no stack is to blame, and all of them wait.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::NoQuorum { .. } | Self::Unreachable { .. } | Self::NotManager { .. } | Self::Closed { .. })
    }
}

/// Sorts an answer that is not a success.
pub(super) fn classify(operation: String, status: u16, message: &str) -> Error {
    let message: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
    let says = |needle: &str| message.contains(needle);
    // A network that was being removed while we read: what a service refers to is gone by the time it is written.
    let lost_network = status == 500 && says("network") && says("not found");
    if says("update out of sequence") || lost_network {
        return Error::Conflict { operation };
    }
    // A manager without a majority answers 500 or 503 with one of these, depending on where the request waited.
    if says("does not have a leader") || says("lost quorum") || says("context deadline exceeded") {
        return Error::NoQuorum { operation, message };
    }
    match status {
        404 => Error::NotFound { operation, message },
        409 => Error::AlreadyExists { operation, message },
        503 if says("manager") || says("swarm") => Error::NotManager { operation, message },
        _ => Error::Refused { operation, status, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, message: &str, wanted: &str) {
        let error = classify("GET /x".into(), status, message);
        assert!(format!("{error:?}").starts_with(wanted), "{status} {message}: {error:?}");
    }

    #[test]
    fn an_answer_is_sorted_by_what_can_be_done_next() {
        check(500, "rpc error: code = Unknown desc = update out of sequence", "Conflict");
        check(500, "network 3qe5lwrwae6wt3790r8yrgd1b not found", "Conflict");
        check(500, "rpc error: code = DeadlineExceeded desc = context deadline exceeded", "NoQuorum");
        check(500, "rpc error: code = Unknown desc = The swarm does not have a leader.", "NoQuorum");
        check(503, "This node is not a swarm manager. Worker nodes can't be used", "NotManager");
        check(404, "service x not found", "NotFound");
        check(409, "rpc error: code = AlreadyExists desc = secret s already exists", "AlreadyExists");
        check(400, "only updates to Labels are allowed", "Refused");
    }

    #[test]
    fn an_outage_blames_no_stack() {
        assert!(classify("x".into(), 500, "does not have a leader").is_outage());
        assert!(!classify("x".into(), 400, "invalid mount").is_outage());
    }
}
