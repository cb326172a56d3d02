//! Configuration → what registration wants to know of it.

use anyhow::{Result, anyhow};

use super::start::Place;
use crate::config::Config;
use crate::leader::Keys;
use crate::registration::rules::{AgentLoss, Deregister, StackNames};
use crate::registration::{DiskMarks, FactKeys, Options, Rules, TagTemplate};

/// What registration on the node at `place` needs, the agent's API being at `http_port`.
pub fn options(config: &Config, place: &Place, http_port: u16) -> Result<Options> {
    let keys = Keys::new(&config.cluster);
    Ok(Options {
        node: place.node.clone(),
        owner: place.engine_id.clone(),
        cluster: config.cluster.clone(),
        node_address: Some(place.address),
        rules: rules(config)?,
        http_port,
        facts: FactKeys { services: keys.services(), generation: keys.generation(), drain: keys.drain(&place.node) },
        disk: Some(DiskMarks {
            path: config.state_dir.clone(),
            warning: config.disk.warning,
            critical: config.disk.critical,
        }),
    })
}

fn rules(config: &Config) -> Result<Rules> {
    let set = &config.registration;
    Ok(Rules {
        internal: set.internal,
        explicit: set.explicit,
        ip_from_label: set.ip_from_label.clone(),
        tags: TagTemplate::new(&set.tags).map_err(|reason| anyhow!("registration.tags: {reason}"))?,
        networks: set.networks.clone(),
        stack_names: if set.stacks_apart { StackNames::Apart } else { StackNames::Join },
        deregister: if set.keep_failed { Deregister::OnSuccess } else { Deregister::Always },
        agent_loss: if set.critical_without_agent { AgentLoss::Critical } else { AgentLoss::Keep },
        resync: set.resync,
    })
}
