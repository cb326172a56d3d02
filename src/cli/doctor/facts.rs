//! What this node answers when it is asked.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use futures_util::StreamExt;
use futures_util::stream;
use url::{Host, Url};

use super::SwarmFacts;
use crate::app::policies;
use crate::config::{Config, Coordination, Role};
use crate::io::consul::Consul;
use crate::io::consul::health::AgentSelf;
use crate::io::consul::kv::Freshness;
use crate::io::dns;
use crate::io::docker::{Docker, Info};
use crate::io::swarm;
use crate::leader::keys::Keys;
use crate::leader::swarm::mandate;
use crate::leader::swarm::slip::{Kind, Standing};
use crate::registration::own::SERVICE;

/// Consul's DNS port.
const DNS_PORT: u16 = 8600;

/// Containers inspected at once.
const INSPECTIONS_MAX: usize = 8;

/// What was found; every error is a text for people.
#[derive(Debug)]
pub struct Facts {
    /// The engine.
    pub engine: Result<Info, String>,
    /// Names and images of the containers on this node.
    pub containers: Vec<(String, String)>,
    /// The swarm; none on workers, which cannot ask.
    pub swarm: Option<Result<SwarmFacts, String>>,
    /// Consul.
    pub consul: Result<ConsulFacts, String>,
    /// Where the leader's lock is, as the swarm says; none if it says nothing, and on workers.
    pub coordination: Option<Kind>,
    /// The agents' addresses in Consul's DNS.
    pub dns: Result<Vec<IpAddr>, dns::Error>,
}

/// What Consul says.
#[derive(Debug)]
pub struct ConsulFacts {
    /// The agent's own words about itself.
    pub agent: AgentSelf,
    /// Who leads Consul's servers.
    pub raft_leader: Result<Option<String>, String>,
    /// The lines of the policy that our token lacks.
    pub rights_missing: Result<Vec<String>, String>,
    /// The ID of the swarm that claimed our cluster's name.
    pub claim: Result<Option<String>, String>,
    /// Consul nodes where an agent of ours passes, and those where there is one.
    pub agents: Result<(BTreeSet<String>, BTreeSet<String>), String>,
}

impl Facts {
    /// True if the engine says so; one that does not answer may be a manager's.
    pub fn is_worker(&self) -> bool {
        is_manager(&self.engine) == Some(false)
    }
}

/// Whether the engine is a manager's; none if it does not say.
fn is_manager(engine: &Result<Info, String>) -> Option<bool> {
    Some(engine.as_ref().ok()?.swarm.as_ref()?.manager)
}

/// Asks everybody; nothing is written anywhere.
pub async fn observe(config: &Config) -> Facts {
    let ((engine, containers), dns) = tokio::join!(engine(config), dns(config));
    let (swarm, coordination) = if is_manager(&engine) == Some(true) {
        match swarm(config).await {
            Ok((swarm, coordination)) => (Some(Ok(swarm)), coordination),
            Err(error) => (Some(Err(error.to_string())), None),
        }
    } else {
        (None, None)
    };
    // Which rights a token needs hangs on what the others say.
    let lock = coordination.or((config.coordination == Coordination::Swarm).then_some(Kind::Swarm));
    let consul = consul(config, is_manager(&engine), lock).await;
    Facts { engine, containers, swarm, consul, coordination, dns }
}

async fn swarm(config: &Config) -> Result<(SwarmFacts, Option<Kind>), swarm::Error> {
    let options = swarm::Options { host: config.docker_host.clone(), gate: None };
    let swarm = swarm::Swarm::connect(&options).await?;
    let (info, nodes, services) = tokio::try_join!(swarm.swarm(), swarm.nodes(), swarm.services())?;
    let coordination = match mandate::standing(&swarm).await {
        Ok(Some(Standing::InForce(kind) | Standing::Changing(kind))) => Some(kind),
        _ => None,
    };
    Ok((SwarmFacts { id: info.id, nodes, services }, coordination))
}

async fn engine(config: &Config) -> (Result<Info, String>, Vec<(String, String)>) {
    let docker = match Docker::connect(Some(&config.docker_host)) {
        Ok(docker) => docker,
        Err(error) => return (Err(error.to_string()), Vec::new()),
    };
    let info = docker.info().await.map_err(|error| error.to_string());
    // Which images run only serves a warning: what cannot be told is left out.
    let running = docker.running().await.unwrap_or_default();
    let inspected = stream::iter(running).map(|listed| {
        let docker = docker.clone();
        async move { docker.inspect(&listed.id).await.ok().flatten().map(|found| (listed.name, found.image)) }
    });
    let containers: Vec<_> = inspected.buffer_unordered(INSPECTIONS_MAX).filter_map(std::future::ready).collect().await;
    (info, containers)
}

async fn consul(config: &Config, is_manager: Option<bool>, lock: Option<Kind>) -> Result<ConsulFacts, String> {
    let consul = Consul::new(config.consul.clone()).map_err(|error| error.to_string())?;
    let agent = consul.agent_self().await.map_err(|error| error.to_string())?;
    let claim = Keys::new(&config.cluster).claim();
    let may_lead = match config.role {
        Role::Auto => is_manager != Some(false),
        Role::Manager => true,
        Role::Worker => false,
    };
    let policy = policies::own(config, &agent.node, may_lead, lock);
    let rights = policy.rights();
    let (raft_leader, rights_missing, claim, passing, all) = tokio::join!(
        consul.raft_leader(),
        consul.rights_missing(&rights),
        consul.kv_get(&claim, Freshness::Default),
        consul.health_nodes(SERVICE, true),
        consul.health_nodes(SERVICE, false),
    );
    let text = |error: crate::io::consul::Error| error.to_string();
    Ok(ConsulFacts {
        agent,
        raft_leader: raft_leader.map_err(text),
        rights_missing: rights_missing
            .map(|missing| policy.lines_of(&missing).map(ToString::to_string).collect())
            .map_err(text),
        claim: claim.map(|pair| pair.map(|pair| String::from_utf8_lossy(&pair.value).into_owned())).map_err(text),
        agents: passing.and_then(|passing| Ok((passing, all?))).map_err(text),
    })
}

async fn dns(config: &Config) -> Result<Vec<IpAddr>, dns::Error> {
    dns::addresses(dns_server(&config.consul.address), &format!("{SERVICE}.service.consul")).await
}

/// Consul's DNS is beside its HTTP; a name that is no address, and a socket, mean this node.
fn dns_server(consul_address: &str) -> SocketAddr {
    let ip = Url::parse(consul_address).ok().and_then(|url| match url.host()? {
        Host::Ipv4(ip) => Some(IpAddr::V4(ip)),
        Host::Ipv6(ip) => Some(IpAddr::V6(ip)),
        Host::Domain(_) => None,
    });
    SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), DNS_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_is_asked_where_consul_is() {
        for (address, expect) in [
            ("http://127.0.0.1:8500", "127.0.0.1:8600"),
            ("http://[::1]:8500", "[::1]:8600"),
            ("http://10.0.0.1", "10.0.0.1:8600"),
            ("http://localhost:8500", "127.0.0.1:8600"),
            ("unix:///run/consul.sock", "127.0.0.1:8600"),
        ] {
            assert_eq!(dns_server(address).to_string(), expect, "{address}");
        }
    }
}
