//! A real Docker swarm on one machine, for tests.
//!
//! Four engines in network namespaces on a bridge: managers `m1`, `m2`, `m3` with Consul servers, a worker `w1` with a Consul client;
//! on the host's end of the bridge a registry with basic auth, a mirror of it, and a git server. A recorder stands before every
//! engine and every Consul and writes down who asked what. Nothing listens on any other address of the machine, and whatever
//! happens to the process that owns the lab, a reaper removes it all.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use swarmkeeper_lab::{Lab, Options};
//! let lab = Lab::up(Options::default()).await?;
//! lab.registry().push("app", "1.0.0").await?;
//! let mark = lab.record().mark()?;
//! lab.node(1).docker(["service", "create", "--name", "web", "10.77.0.254:5000/app:1.0.0"]).await?;
//! // The tests' own commands go past the recorder; an agent's do not.
//! assert!(lab.record().swarm_writes(mark)?.is_empty());
//! lab.node(3).kill().await?;
//! lab.down().await?;
//! # Ok(())
//! # }
//! ```
//!
//! It runs as root on Debian; `lab install` says what else it needs. The `lab` program does the same by hand.

mod authority;
mod background;
mod command;
mod consul;
mod engine;
mod generation;
mod git;
mod git_http;
mod http;
mod image;
mod install;
pub mod keeper;
mod lab;
pub mod layout;
mod machine;
mod net;
mod node;
mod record;
mod recorder;
mod registry;
mod sources;
mod state;

pub use authority::{Authority, Holder, Identity};
pub use consul::Secured;
pub use generation::Engine;
pub use git::{BRANCH, GitFault, GitServer, Repo};
pub use image::{APP_PORT, Behaviour, Image};
pub use install::{docker_cli, install, prometheus};
pub use lab::{Dns, Lab, Options, Say};
pub use net::Slow;
pub use node::Node;
pub use record::{BODY_BYTES_MAX, Effect, Mark, Record, Recorded, Target};
pub use registry::Registry;
pub use state::{Owner, ProcessId, down};
