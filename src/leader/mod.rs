//! Who leads: candidacy, lease and fencing.
//!
//! Every manager runs one [`Candidate`]. Those whose engine answers stand for leader; the holder of one Consul lock leads. The
//! decisions are in `plan` (a pure state machine) and [`lease`]; `run` sends its requests and reports what came of them.
//!
//! ```text
//!          ┌────────── requests (at most one of each kind) ─────────┐
//!   Election::plan ──► Consul, engine ──► Event ──► Election::observe
//!          │
//!          ├──► watch<Leadership>   for loops: start, pause, stop
//!          └──► Fence               asked before every single write
//! ```
//!
//! # What it promises
//!
//! * No stale KV write, ever: [`Fence::kv_txn`] puts a `check-session` on the lock into the transaction of every write.
//! * The engine cannot check tokens, so writes to it go out inside a lease only ([`Fence::gate`]), and a leader makes none before its
//!   predecessor's lease has surely ended. At most one write of a leader that lost its lock can still be under way then; it carries
//!   the version of the object it is about and fails if anyone has changed that since.
//! * Losing Consul suspends the leader at the end of its lease and changes nothing that runs. Everything heals by itself when Consul is
//!   back: a restarted agent, a destroyed session, a deleted lock, a wiped KV.
//! * A leader that is told to stop signs off, and its successor begins within milliseconds.
//!
//! # What it assumes
//!
//! One candidate per node; a node name that no other node has; loops that write have ended when the candidate is told to stop. A Consul
//! whose whole state is lost starts its indexes again, so tokens order leaders only as long as Consul keeps its data.

pub mod claim;
pub mod clock;
mod fence;
pub mod keys;
pub mod lease;
mod plan;
pub mod publish;
mod record;
mod run;
#[cfg(test)]
mod simulation;
mod vocabulary;
pub mod wake;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use fence::{Fence, FenceError};
pub use keys::Keys;
pub use lease::Profile;
pub use record::{LeaderInfo, Record};
pub use run::{Candidate, SERVICE, SIGN_OFF_MAX, stand};

use crate::io::consul;
use crate::io::consul::Consul;
use crate::io::consul::kv::Freshness;

/// Who we are and how quick to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name; no other candidate has it.
    pub node: String,
    /// Where this node's HTTP API answers, for followers and people.
    pub address: String,
    /// Our version.
    pub version: String,
    /// How quickly a lost leader is noticed.
    pub profile: Profile,
    /// The ID of the swarm this node is in.
    pub swarm_cluster_id: String,
}

/// Asks the engine for its services; the error says why it did not answer.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What we are at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Not the leader.
    Follower {
        /// Who is, as far as we know.
        leader: Option<LeaderInfo>,
    },
    /// The leader. Whether this very moment allows a write, [`Fence::gate`] tells.
    Leading {
        /// The fencing token.
        token: u64,
        /// When we took the lock.
        since: OffsetDateTime,
        /// From when on we write, by [`clock::boottime`]: until then our predecessor may.
        writable_from: Duration,
    },
    /// The leader, but Consul has not confirmed it in time: nothing may be written until it does.
    Suspended {
        /// The fencing token.
        token: u64,
        /// When we took the lock.
        since: OffsetDateTime,
    },
}

impl Leadership {
    /// The fencing token while we lead and are not suspended.
    pub fn token(&self) -> Option<u64> {
        match self {
            Self::Leading { token, .. } => Some(*token),
            Self::Follower { .. } | Self::Suspended { .. } => None,
        }
    }
}

/// What the fence needs to know of the lock that we hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    token: u64,
    session: String,
    writable_from: Duration,
    /// The end of the lease; none while nothing is proven.
    until: Option<Duration>,
}

/// Why a candidate ended, or could not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two swarms with one name.
    #[error(
        "cluster {cluster:?} belongs to another swarm (ID {theirs}, ours is {ours}): set `cluster` to a name that no other swarm on \
         this consul has; if that swarm is gone for good, delete the key {key}"
    )]
    OtherSwarm {
        /// The cluster's name.
        cluster: String,
        /// The ID of the swarm we are in.
        ours: String,
        /// The ID of the swarm that claimed the name.
        theirs: String,
        /// Where the claim is.
        key: String,
    },
    /// Consul failed.
    #[error(transparent)]
    Consul(#[from] consul::Error),
}

/// Who leads `cluster` at the moment, for those who do not stand themselves.
pub async fn current(consul: &Consul, cluster: &str) -> Result<Option<LeaderInfo>, consul::Error> {
    let pair = consul.kv_get(&Keys::new(cluster).lock(), Freshness::Default).await?;
    Ok(pair
        .filter(|pair| pair.session.is_some())
        .and_then(|pair| Some(Record::read(&pair.value)?.info(pair.modify_index))))
}

/// For people; a time that cannot be written is left out.
fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
