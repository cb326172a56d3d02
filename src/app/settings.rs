//! Configuration → what the parts want to know of it.

use std::collections::BTreeMap;

use crate::config::{self, Config};
use crate::io::registry::Places;
use crate::repo;
use crate::stacks::{Policy, plan};

/// What of the configuration the loop needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The branch followed.
    pub branch: String,
    /// What of the Config Repo is rendered.
    pub render: repo::Options,
    /// What the operator allows.
    pub policy: Policy,
    /// Where registry credentials lie.
    pub credentials: Places,
    /// How long a drain waits for clients to leave.
    pub drain_wait: time::Duration,
}

impl Settings {
    /// Picks it out.
    pub fn of(config: &Config) -> Self {
        Self {
            branch: config.git.as_ref().map(|git| git.branch.clone()).unwrap_or_default(),
            render: render_options(config),
            policy: policy(config),
            credentials: credentials(config),
            drain_wait: config.drain_wait.try_into().unwrap_or(time::Duration::ZERO),
        }
    }
}

/// What of the Config Repo is rendered.
pub fn render_options(config: &Config) -> repo::Options {
    let path = config.git.as_ref().map_or_else(|| repo::PATH_DEFAULT.to_owned(), |git| git.path.clone());
    let stacks = (!config.stacks.is_empty()).then(|| config.stacks.iter().cloned().collect());
    repo::Options { path, stacks, environment: BTreeMap::new(), permissions: config.permissions.clone() }
}

/// What the operator allows.
pub fn policy(config: &Config) -> Policy {
    Policy {
        brake_removes_max: config.brake.removes_max,
        brake_restarts_percent_max: config.brake.restarts_percent_max.into(),
        orphans: match config.orphans {
            config::Orphans::Keep => plan::Orphans::Keep,
            config::Orphans::Remove => plan::Orphans::Remove,
        },
        ..Policy::default()
    }
}

/// Where registry credentials lie.
pub fn credentials(config: &Config) -> Places {
    Places { registries: config.registries_dir.clone(), docker: config.docker_config.clone() }
}
