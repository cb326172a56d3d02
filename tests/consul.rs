//! swarmkeeper against a real Consul, found by `CONSUL`, in `PATH`, or where `make lab-install` puts it.

// A helper of a test fails by panicking, as the test does.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "consul/client.rs"]
mod client;
#[path = "consul/leader.rs"]
mod leader;
#[path = "support/consul.rs"]
mod support;
