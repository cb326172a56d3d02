//! swarmkeeper's coordination, and its use of a real Consul, found by `CONSUL`, in `PATH`, or where `make lab-install` puts it.

// A helper of a test fails by panicking, as the test does.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "consul/client.rs"]
mod client;
#[path = "consul/conformance.rs"]
mod conformance;
mod coordination;
#[path = "support/engine.rs"]
mod engine;
#[path = "consul/leader.rs"]
mod leader;
#[path = "consul/model.rs"]
mod model;
#[path = "consul/raft.rs"]
mod raft;
#[path = "support/consul.rs"]
mod support;
