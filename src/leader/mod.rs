//! Who leads: candidacy, lease and fencing.
//!
//! Every manager runs one [`Candidate`]. Those whose engine answers stand for leader; the holder of one lock leads. The lock is kept in
//! Consul ([`ByConsul`]) or in the swarm itself ([`BySwarm`]), behind one trait, [`Coordination`]. The decisions are in `plan` (a pure
//! state machine), [`lease`] and [`swarm::judge`]; `run` sends the requests and reports what came of them.
//!
//! ```text
//!          ┌────────── requests (at most one of each kind) ─────────┐
//!   Election::plan ──► Coordination, engine ──► Event ──► Election::observe
//!          │
//!          ├──► watch<Leadership>   for loops: start, pause, stop
//!          └──► Gate, Fence         asked before every single write
//! ```
//!
//! # What it promises
//!
//! | | lock in Consul | lock in the swarm |
//! |---|---|---|
//! | a leader proves that it leads by | a `?consistent` read of its lock | a compare-and-swap that the engine took |
//! | every | 1 s | 3 s, 20 Raft writes a minute |
//! | and may write after the proof was sent for | 2.5 s | 7.5 s |
//! | its lock is free when | Consul ended its session, and 5 s later | a contender saw no sign of life for 10 s by its own clock |
//! | a killed leader's successor writes after | at most 12 s | at most 11 s |
//! | one that stops cleanly hands over in | milliseconds | half a second |
//!
//! * Engine writes go out inside a lease only ([`Gate`]), and a leader makes none before its predecessor's lease has surely ended, or the
//!   predecessor signed off. The engine cannot check tokens: at most one write of a leader that lost its lock can still be under way
//!   then. It was sent inside the lease, waits 2 s at most, carries the version of the object it is about, and fails if anyone has changed
//!   that since.
//! * No stale KV write, ever: [`Fence::kv_txn`] puts a `check-session` on the lock into the transaction of every write, and a
//!   `check-index` for the token, since a session may lose the lock and take it again. With the lock in the swarm nothing is written to
//!   KV.
//! * A leader signs off for itself only: one that has not waited its predecessor's lease out leaves that to its successor.
//! * Tokens grow from leader to leader: `ModifyIndex` of the acquiring write in Consul, the successor of the config's version, which is
//!   swarm's Raft index, in the swarm.
//! * One coordination at a time: [`swarm::mandate`].
//! * Losing Consul, or the swarm's quorum, suspends the leader at the end of its lease and changes nothing that runs. Everything heals by
//!   itself: a restarted agent, a destroyed session, a deleted lock, a wiped KV.
//! * A leader that is told to stop signs off. One that is told to step down closes its gate, waits until no write can be under way,
//!   signs off, and does not stand before another one has led, or [`COOL_DOWN`] has passed.
//!
//! # What it survives
//!
//! Consul's own Raft elections: while its servers have no leader nothing can be proven, and the leader is suspended, for the 1 to 5 s that
//! they take with `raft_multiplier` 1. It keeps lock and token, because the session hangs on a check of 6 s that the node's own agent
//! answers without its servers, and on a TTL of 15 s that a new Raft leader starts anew. `tests/consul` kills the Raft leader of three
//! servers while 500 services are registered.
//!
//! The loss of a node with our leader on it, and with Consul's Raft leader as well: another one writes within 13 s. Nobody can before the
//! swarm itself takes writes again: where swarm's Raft leader was on that node too, its managers took 11 to 24 s.
//!
//! # What it assumes
//!
//! One candidate per node; a node name that no other node has; loops that write have ended when the candidate is told to stop; clocks
//! (CLOCK_BOOTTIME) that run at the same pace within the margin of 2.5 s in 10. A Consul whose whole state is lost starts its indexes
//! again, so tokens order leaders only as long as Consul keeps its data; a swarm made anew is another swarm.
//!
//! # Where it ends
//!
//! * A process that is stopped between asking its gate and sending the write sends it when it goes on, however late. That is the one
//!   write above: its object's version guards what was changed meanwhile, and a create is by a name that exists once.
//! * A client's timeout does not take a request back that the engine has read. The margin covers the 2 s that we wait; an engine that
//!   carries out later what it read before is guarded by the version again.
//! * [`Profile::FAST`] has a margin below those 2 s.
//! * A Consul agent that is telling its servers of something at the moment at which their Raft leader's node is lost answers no heartbeat
//!   until it notices, 30 s later (Consul 1.8 holds its state locked meanwhile): such a node stands, or leads, again after that.
//! * With the lock in the swarm, a change of swarm's Raft leader may make a leader take an old answer for the loss of its lock. It asks
//!   again at once, and goes on after a lock delay.

pub mod claim;
pub mod clock;
mod consul;
mod coordination;
mod fence;
pub mod keys;
pub mod lease;
mod plan;
pub mod publish;
mod record;
mod run;
#[cfg(test)]
mod simulation;
pub mod swarm;
mod vocabulary;
pub mod wake;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use consul::{ByConsul, SERVICE, current};
pub use coordination::{Coordination, Trouble};
pub use fence::{Fence, FenceError, Gate};
pub use keys::Keys;
pub use lease::Profile;
pub use plan::COOL_DOWN;
pub use record::{LeaderInfo, Record};
pub use run::{Candidate, SIGN_OFF_MAX, stand};
pub use swarm::BySwarm;

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

impl Options {
    /// What our lock says.
    fn record(&self, since: OffsetDateTime, signed_off: bool) -> Record {
        let Self { node, address, version, profile, .. } = self;
        Record {
            schema: record::SCHEMA,
            node: node.clone(),
            address: address.clone(),
            version: version.clone(),
            since,
            lock_delay_ms: u64::try_from(profile.lock_delay.as_millis()).unwrap_or(u64::MAX),
            signed_off,
        }
    }
}

/// Asks the engine for its services, and whether our coordination is the one in force.
pub type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Hindrance>> + Send + Sync>;

/// Why a candidate does not stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Hindrance {
    /// For now: the engine did not answer, or not as it should.
    #[error("{0}")]
    Engine(String),
    /// For good.
    #[error(transparent)]
    Barred(Error),
}

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
    /// The leader, but it was not confirmed in time: nothing may be written until it is.
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

/// Why a candidate may not stand, and never will as things are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// Another coordination is in force, or will be.
    #[error(
        "this agent coordinates by {ours}, and the swarm by {theirs} from now on: restart it with the settings of the others"
    )]
    Overruled {
        /// Ours.
        ours: &'static str,
        /// The swarm's.
        theirs: &'static str,
    },
    /// `swarmkeeper leave`.
    #[error("told to leave: this agent deploys nothing any more")]
    Left,
}

/// For people; a time that cannot be written is left out.
fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
