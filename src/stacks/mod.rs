//! Stacks: what git says → what the swarm runs.
//!
//! One pass is [`observe()`] → [`plan()`](plan::plan) per stack → [`apply`](apply::apply). A pass waits for nothing: a rollout goes on over as many passes as
//! it needs, and every pass looks again. What must be remembered between passes, and across leaders, is in the stack's [`state`].
//!
//! # Guarantees
//!
//! * What is as wanted is not written; a plan without steps and state makes no write call.
//! * Only objects whose IDs the state lists are changed or removed, and volumes never are.
//! * The rollout is recorded before its first write. A revision that failed is not tried again until git changes or somebody says `retry`.
//! * A person's rollback holds until git changes the stack, and is only taken if it can succeed as far as one can see.
//! * The last two generations of every secret and config are kept; an older one goes when no service of the swarm, no spec that swarm
//!   would roll one back to, and no task that may still run uses it.
//! * No secret's content, and no value of a variable or label, is in a plan, a state, a status or a log.
//!
//! # Limits
//!
//! * A changed network is made anew only with `recreate: true`, with the services on it; see `plan/remake.rs`. A service's mode cannot be
//!   changed at all.
//! * `on_failure` brings a service back to swarm's own previous spec. A service that two revisions changed before either had converged goes
//!   back to the first of them.
//! * A job is never rolled back: swarm would run the former one again.

pub mod apply;
#[cfg(test)]
mod apply_tests;
pub mod deploy;
pub mod diff;
mod display;
pub mod drain;
#[cfg(test)]
mod generation_tests;
pub mod history;
#[cfg(test)]
mod ignore_tests;
pub mod images;
#[cfg(test)]
mod job_tests;
pub mod key;
pub mod observe;
mod order;
pub mod pass;
pub mod plan;
#[cfg(test)]
mod remake_tests;
#[cfg(test)]
mod restart_tests;
pub mod rollback;
#[cfg(test)]
mod rollback_tests;
pub mod rollout;
pub mod state;
pub mod status;
#[cfg(test)]
mod world;

pub use apply::{Outcome, apply};
pub use images::{Resolutions, images_to_resolve};
pub use key::Key;
pub use observe::{
    Observed, ObservedStack, SecretContents, compare_secrets, is_adopting, observe, resolve, secrets_of_adoptions,
    unrecorded_secrets,
};
pub use pass::{Held, Pass, plan_all, targets};
pub use plan::{Input, Plan, Policy, plan};
pub use state::StackState;
