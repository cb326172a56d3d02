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
//! * No secret's content, and no value of a variable or label, is in a plan, a state, a status or a log.
//!
//! # Limits
//!
//! * A change of a network needs a person (swarm cannot change one), and so does a change of a service's mode.
//! * Secrets that a rolled back service would need are kept, older generations are not.

pub mod apply;
#[cfg(test)]
mod apply_tests;
pub mod deploy;
pub mod diff;
mod display;
pub mod drain;
pub mod history;
pub mod images;
pub mod key;
pub mod observe;
mod order;
pub mod pass;
pub mod plan;
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
