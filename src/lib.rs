//! swarmkeeper keeps a Docker Swarm as its git repository says.
//!
//! One agent runs on every node. Each registers its node's containers in the node-local Consul agent; those on
//! managers elect a leader, and the leader brings the swarm to what git says.
//!
//! # The map
//!
//! | module | runs on | what it does |
//! |---|---|---|
//! | [`app`] | every node | builds the parts, spawns the loops, drains them |
//! | [`leader`] | managers | candidacy, lease and fencing: who may write |
//! | [`repo`] | the leader | Config Repo → rendered stacks |
//! | [`compose`] | pure | compose file → service, network, secret and config specs |
//! | [`policy`] | pure | what a stack may do to the nodes |
//! | [`stacks`] | the leader | specs → swarm: observe, plan, apply, follow the rollout |
//! | [`import`] | pure | a running swarm → a Config Repo |
//! | [`registration`] | every node | containers → Consul |
//! | [`http`] | every node | health, metrics, API, webhooks |
//! | [`io`] | | the only code that talks to the outside |
//! | [`cli`] | | one file per verb family |
//! | [`config`] | | flags, environment, file → validated settings |
//! | [`log`], [`telemetry`] | | what is logged and measured |
//!
//! # One way through
//!
//! `io → Observed → plan(desired, observed, now, policy) → Plan → apply(Plan) → Outcome`
//!
//! Events only *wake* a loop; every pass observes again. `plan` is synchronous and total: no I/O, no clock, no
//! environment, no logging. `apply` performs one step at a time and decides nothing.
//!
//! # Invariants
//!
//! * An identical desired state yields an empty plan, and an empty plan makes no write call.
//! * What we own is the list of object IDs in a stack's state, never a label that anyone may have set.
//! * A leader writes inside its lease only. Losing Consul or the swarm's quorum never touches what runs.
//! * Only [`io`] makes network calls, only [`config`] reads the environment, only [`app`] spawns long-lived tasks,
//!   and features do not import each other. `tests/tidy.rs` proves it on the source.

pub mod app;
pub mod cli;
pub mod compose;
pub mod config;
pub mod http;
pub mod image;
pub mod import;
pub mod io;
pub mod leader;
pub mod log;
pub mod model;
pub mod notify;
pub mod policy;
pub mod reconcile;
pub mod registration;
pub mod repo;
pub mod spec;
pub mod stacks;
pub mod status;
pub mod telemetry;
pub mod yaml;
