//! `swarmkeeper consul adopt|clean`: registrator's leftovers on this node, taken over or taken away because a person says so.
//!
//! Safe beside a running agent: what is written is what the agent would write, and an entry of a stranger is touched only as
//! [`leftovers`](super::leftovers) decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::{Facts, Unread};
use super::leftovers::{Inventory, Leftover, adopt, clean, leftovers};
use super::plan::Step;
use super::wanted::{Running, Wanted, service_of, wanted};
use super::{Engine, Options, perform};
use crate::io::consul::{self, Consul};
use crate::io::docker::{self, Container};

/// What a person wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Make ours what is ours to register.
    Adopt,
    /// Take away what belongs to containers that are gone.
    Clean,
}

/// What is there, and what a wish would do about it.
#[derive(Debug)]
pub struct Review {
    /// Every leftover with what can be done.
    pub leftovers: Vec<Leftover>,
    /// What the wish comes to.
    pub steps: Vec<Step>,
}

/// Why there is no review.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What runs cannot be told for sure.
    #[error("what runs on this node is not known: {0}")]
    Engine(#[from] docker::Error),
    /// What swarm services say of themselves is not known.
    #[error(transparent)]
    Facts(#[from] Unread),
    /// Consul failed.
    #[error(transparent)]
    Consul(#[from] consul::Error),
}

/// Looks at engine and Consul; writes nothing. `hosts` are the names by which registrator knew this node.
pub async fn review(
    wish: Wish,
    options: &Options,
    engine: &impl Engine,
    consul: &Consul,
    hosts: &BTreeSet<String>,
) -> Result<Review, Error> {
    let (containers, names) = running(engine).await?;
    let (services, ways) = tokio::try_join!(consul.agent_services(), consul.agent_ways())?;
    let mut facts = Facts::default();
    let services_here =
        containers.iter().filter_map(|container| service_of(container)).map(ToOwned::to_owned).collect();
    facts.refresh(consul, &options.facts, services_here).await?;
    let place = options.place(ways);
    let stopping = BTreeSet::new();
    let running = Running { containers: &containers, stopping: &stopping, facts: &facts };
    let wanted: Vec<Wanted> = wanted(running, &place, &mut Vec::new()).collect();
    let inventory =
        Inventory { services: &services, wanted: &wanted, running: &names, hosts, agent_address: ways.address };
    let leftovers = leftovers(&inventory);
    let steps = match wish {
        Wish::Adopt => adopt(&leftovers, &wanted),
        Wish::Clean => clean(&leftovers),
    };
    Ok(Review { leftovers, steps })
}

/// Does one step of a review.
pub async fn carry_out(consul: &Consul, step: &Step) -> Result<(), consul::Error> {
    perform(consul, step).await
}

/// Everything that runs, and all names: of one that cannot be inspected the name is known all the same.
async fn running(engine: &impl Engine) -> Result<(Vec<Arc<Container>>, BTreeSet<String>), Error> {
    let listed = engine.running().await?;
    let mut containers = BTreeMap::new();
    for one in &listed {
        if let Some(container) = engine.inspect(&one.id).await? {
            containers.insert(one.id.clone(), Arc::new(container));
        }
    }
    Ok((containers.into_values().collect(), listed.into_iter().map(|one| one.name).collect()))
}
