//! The Engine API's objects as data: what we send and what we read.
//!
//! Field for field as in the engine's `api/types/swarm` (API 1.41 to 1.51), with Go's `omitempty` rules, so that what we send is
//! what `docker stack deploy` sends. Fields that we do not know are kept in `extra`, so that reading an object and writing it
//! back loses nothing. Durations are nanoseconds.

mod container;
mod facts;
mod live;
mod objects;
mod service;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use container::*;
pub use facts::*;
pub use live::*;
pub use objects::*;
pub use service::*;

/// Fields that this version does not know.
pub type Extra = Map<String, Value>;

/// Names to values, in order.
pub type Labels = BTreeMap<String, String>;

/// The label by which Docker's CLI knows a stack's objects.
pub const LABEL_NAMESPACE: &str = "com.docker.stack.namespace";

/// The label that holds a service's image as its file says it.
pub const LABEL_IMAGE: &str = "com.docker.stack.image";

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
