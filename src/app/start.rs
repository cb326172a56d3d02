//! What has to be there before an agent can work, waited for patiently: the engine, its place in a swarm, and on managers the swarm.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, Coordination, Git, Role};
use crate::io::consul::Consul;
use crate::io::docker::{Docker, Info};
use crate::io::git::{Credentials, KnownHosts, Options as GitOptions, SshKey};
use crate::io::swarm::{Options as SwarmOptions, Swarm};
use crate::leader::swarm::mandate::{self, Mandate, Wish};
use crate::leader::swarm::slip::Kind;
use crate::leader::{self, Hindrance, Probe};
use crate::registration::{Role as NodeRole, SelfState};
use crate::stacks::key::KEY_CONFIG;
use crate::stacks::state::STATE_PREFIX;

/// Between two looks.
const RETRY: Duration = Duration::from_secs(2);

/// Where this agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The node's host name.
    pub node: String,
    /// The engine's own ID: marks this node's registrations, and outlives restarts, updates and swarms.
    pub engine_id: String,
    /// The node's address for others.
    pub address: IpAddr,
    /// True if this agent may lead.
    pub manager: bool,
}

impl Place {
    /// What Consul is told at first.
    pub fn self_state(&self) -> SelfState {
        let role = if self.manager { NodeRole::Manager } else { NodeRole::Worker };
        SelfState { role, leader: false, engine: Ok(()), agent: Ok(()), stacks: BTreeMap::new() }
    }
}

/// Waits for the engine to say where we are; none if `shutdown` comes first.
pub async fn place(docker: &Docker, config: &Config, shutdown: &CancellationToken) -> Option<Place> {
    patiently("the engine", shutdown, async || {
        let info = docker.info().await.map_err(|error| error.to_string())?;
        place_of(&info, config)
    })
    .await
}

/// What the engine's words mean for us.
pub fn place_of(info: &Info, config: &Config) -> Result<Place, String> {
    let swarm = info.swarm.as_ref().ok_or_else(|| {
        format!("node {} is in no swarm; `docker swarm init` makes one, `docker swarm join` joins one", info.name)
    })?;
    let advertised = config.advertise.map(|advertise| advertise.ip);
    let address = advertised.or(swarm.address).ok_or("the swarm tells no address of this node; set `advertise`")?;
    let manager = match config.role {
        Role::Auto => swarm.manager,
        Role::Manager => true,
        Role::Worker => false,
    };
    Ok(Place { node: info.name.clone(), engine_id: info.engine_id.clone(), address, manager })
}

/// Waits for the swarm to answer; gives a client without a gate and the swarm's cluster ID.
pub async fn swarm(config: &Config, shutdown: &CancellationToken) -> Option<(Swarm, String)> {
    patiently("the swarm", shutdown, async || {
        let options = SwarmOptions { host: config.docker_host.clone(), gate: None };
        let swarm = Swarm::connect(&options).await.map_err(|error| error.to_string())?;
        let id = swarm.swarm().await.map_err(|error| error.to_string())?.id;
        Ok((swarm, id))
    })
    .await
}

/// Waits until it is settled where the leader's lock is.
pub async fn coordination(
    config: &Config,
    swarm: &Swarm,
    consul: &Consul,
    options: &leader::Options,
    shutdown: &CancellationToken,
) -> Option<Kind> {
    patiently("the coordination", shutdown, async || {
        let wish = match config.coordination {
            Coordination::Consul => Wish::Set(Kind::Consul),
            Coordination::Swarm => Wish::Set(Kind::Swarm),
            Coordination::Auto => {
                // Who names a Consul means it, whether it answers already or not.
                Wish::Auto { consul_answers: config.consul_is_named || consul.agent_self().await.is_ok() }
            }
        };
        let configs = swarm.configs().await.map_err(|error| error.to_string())?;
        let led_before = configs.iter().any(|config| {
            let name = &config.spec.name;
            name == KEY_CONFIG || name.starts_with(STATE_PREFIX)
        });
        mandate::settle(swarm, wish, led_before, options, OffsetDateTime::now_utc()).await
    })
    .await
}

/// True if this agent has to do with Consul; `kind` is where the lock is, which workers do not know.
pub fn uses_consul(config: &Config, kind: Option<Kind>) -> bool {
    let by_lock = match kind {
        Some(kind) => kind == Kind::Consul,
        None => config.coordination != Coordination::Swarm,
    };
    config.consul_is_named || by_lock
}

/// What a candidate asks before it stands, and a leader while it leads.
pub fn probe(swarm: &Swarm, mandate: Mandate) -> Probe {
    let (swarm, mandate) = (swarm.clone(), Arc::new(mandate));
    Arc::new(move || {
        let (swarm, mandate) = (swarm.clone(), Arc::clone(&mandate));
        async move {
            swarm.services().await.map_err(|error| Hindrance::Engine(error.to_string()))?;
            mandate.confirm(OffsetDateTime::now_utc()).await
        }
        .boxed()
    })
}

/// The Config Repo's clone.
pub fn git_options(config: &Config, git: &Git) -> GitOptions {
    GitOptions {
        url: git.url.clone(),
        branch: git.branch.clone(),
        path: config.state_dir.join("git"),
        credentials: Credentials {
            username: git.username.clone(),
            password: git.password.clone(),
            ssh_key: git.ssh_key.clone().map(SshKey::Text),
            ssh_passphrase: None,
        },
        known_hosts: KnownHosts { text: git.known_hosts.clone(), files: Vec::new() },
        require_fast_forward: git.require_fast_forward,
    }
}

/// Tries until it works; says the first failure, every other one, and the success after one.
async fn patiently<T>(
    what: &str,
    shutdown: &CancellationToken,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> Option<T> {
    let mut said = None;
    while !shutdown.is_cancelled() {
        match attempt().await {
            Ok(found) => {
                if said.is_some() {
                    info!("{what} answers");
                }
                return Some(found);
            }
            Err(error) if said.as_ref() != Some(&error) => {
                warn!(error, "waiting for {what}");
                said = Some(error);
            }
            Err(_) => {}
        }
        shutdown.run_until_cancelled(tokio::time::sleep(RETRY)).await;
    }
    None
}
