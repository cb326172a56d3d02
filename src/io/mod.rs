//! The only code that talks to the outside.
//!
//! Every client states its timeouts and its limits, and every error names the operation and its subject. Nothing here decides
//! anything about the product: it asks, it answers, it classifies failures by what can be done next.

pub mod consul;
pub mod disk;
pub mod dns;
pub mod docker;
pub mod files;
pub mod git;
pub mod keeper;
pub mod registry;
pub mod swarm;
pub mod webhook;

use std::sync::Arc;

/// Asked before every write to the swarm: may we write now?
///
/// The leader's gate is its lease (see [`crate::leader`]); a command that a person runs has none.
pub type WriteGate = Arc<dyn Fn() -> Result<WritePermit, GateClosed> + Send + Sync>;

/// A write may go out now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WritePermit {
    /// The fencing token, sent along in the User-Agent so that a recording shows who wrote.
    pub token: u64,
}

/// No write may go out: we are not, or no longer surely, the leader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not written: {0}")]
pub struct GateClosed(pub String);
