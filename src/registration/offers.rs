//! Which ports of a container may be registered, and where each is reached. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::convention::Settings;
use super::rules::Rules;
use super::wanted::Place;
use crate::io::docker::{Container, Port, Published};
use crate::spec::{IngressPort, ServiceFacts};

/// The label by which a container on several networks says which one its registered address belongs to. On the service, or on a
/// container that publishes nothing, it also asks for that address to be registered.
pub const LABEL_NETWORK: &str = "swarmkeeper.network";

/// Networks whose addresses nobody outside the engine reaches.
const NETWORKS_OF_NO_USE: [&str; 2] = ["ingress", "docker_gwbridge"];

/// A port that may be registered.
pub struct Offer {
    /// The container's.
    pub port: Port,
    /// Where others reach it.
    pub place: OfferedAt,
    /// True if the container offers others of the same kind, which then need a number in their names.
    pub several: bool,
}

/// Where others reach a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferedAt {
    /// At a port of the host, at one of its addresses or at all of them.
    Host {
        /// The one address.
        address: Option<IpAddr>,
        /// The host's port.
        port: u16,
    },
    /// At every node, by swarm's mesh.
    Ingress {
        /// The nodes' port.
        port: u16,
    },
    /// At the container's own address.
    Container {
        /// What is asked of those who want it.
        asked: Asked,
    },
}

/// How a container asks for its own address to be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It has: by the operator's rule or by its network's name.
    Already,
    /// By a name.
    ByName,
    /// By a name for this very port.
    ByPortsName,
}

impl Offer {
    /// True if this port is to be registered, as far as names decide it.
    pub fn is_asked_for(&self, settings: &Settings, rules: &Rules) -> bool {
        let named = settings.get("NAME").is_some();
        let asked = match self.place {
            OfferedAt::Host { .. } | OfferedAt::Ingress { .. } | OfferedAt::Container { asked: Asked::Already } => true,
            OfferedAt::Container { asked: Asked::ByName } => named,
            OfferedAt::Container { asked: Asked::ByPortsName } => named && settings.is_of_port("NAME"),
        };
        asked && (named || !rules.explicit)
    }

    /// Where others reach it, or why they do not.
    pub fn address(&self, container: &Container, network: Option<&str>, place: &Place) -> Result<SocketAddr, String> {
        let (address, port) = match self.place {
            OfferedAt::Host { address, port } => (Ok(address.unwrap_or(place.address)), port),
            OfferedAt::Ingress { port } => return Ok(SocketAddr::new(place.address, port)),
            OfferedAt::Container { .. } => {
                (container_address(container, network, &place.rules.networks), self.port.number)
            }
        };
        let address = match labelled(container, &place.rules) {
            Some(address) => address?,
            None => address?,
        };
        Ok(SocketAddr::new(address, port))
    }
}

/// The network that a container's address shall belong to, by its service's label or its own.
pub fn network<'a>(container: &'a Container, facts: Option<&'a ServiceFacts>) -> Option<&'a str> {
    let of_service = facts.and_then(|facts| facts.labels.get(LABEL_NETWORK));
    of_service.or_else(|| container.labels.get(LABEL_NETWORK)).map(String::as_str)
}

/// All ports that may be registered.
pub fn offers(container: &Container, facts: Option<&ServiceFacts>, rules: &Rules) -> Vec<Offer> {
    let mut outside: BTreeMap<Port, OfferedAt> = BTreeMap::new();
    let network = network(container, facts);
    if !rules.internal {
        if network.is_none() {
            outside.extend(facts.iter().flat_map(|facts| &facts.ingress).filter_map(ingress));
        }
        for port in container.published.iter().map(|binding| binding.port) {
            let bindings = container.published.iter().filter(|binding| binding.port == port);
            if let Some(binding) = bindings.min_by_key(|binding| preference(binding)) {
                outside.insert(port, OfferedAt::Host { address: binding.address, port: binding.host_port });
            }
        }
    }
    if container.host_network {
        let at = |port: &Port| OfferedAt::Host { address: None, port: port.number };
        outside.extend(container.exposed.iter().map(|port| (*port, at(port))));
    }
    let asked = match outside.len() {
        0 if rules.internal || network.is_some() || container.network_of.is_some() => Asked::Already,
        0 => Asked::ByName,
        _ => Asked::ByPortsName,
    };
    let meshed = facts.iter().flat_map(|facts| &facts.ingress).filter_map(port_of);
    let mut exposed: Vec<Port> =
        container.exposed.iter().copied().chain(meshed).filter(|port| !outside.contains_key(port)).collect();
    exposed.sort();
    exposed.dedup();
    let (published, several) = (outside.len(), exposed.len() > 1);
    let inside = exposed.into_iter().map(|port| Offer { port, place: OfferedAt::Container { asked }, several });
    let outside = outside.into_iter().map(|(port, place)| Offer { port, place, several: published > 1 });
    outside.chain(inside).collect()
}

fn ingress(port: &IngressPort) -> Option<(Port, OfferedAt)> {
    Some((port_of(port)?, OfferedAt::Ingress { port: port.published }))
}

fn port_of(port: &IngressPort) -> Option<Port> {
    format!("{}/{}", port.target, port.protocol).parse().ok()
}

/// The binding that others reach best: IPv4 and all addresses, then one address, loopback last.
fn preference(binding: &Published) -> (bool, bool, Published) {
    (binding.address.is_some_and(|address| address.is_loopback()), binding.v6, *binding)
}

/// The address in the label that the operator has named, `10.0.0.9` or `10.0.0.9/24`; none if the container has no such label.
fn labelled(container: &Container, rules: &Rules) -> Option<Result<IpAddr, String>> {
    let label = rules.ip_from_label.as_ref()?;
    let text = container.labels.get(label).filter(|text| !text.is_empty())?;
    let address = text.rsplit_once('/').map_or(text.as_str(), |(address, _)| address);
    Some(address.parse().map_err(|_| format!("label {label}={text} is no address")))
}

/// The container's address: on the network that its label names, else on the first configured one that it is on, else on its only one.
fn container_address(container: &Container, network: Option<&str>, preferred: &[String]) -> Result<IpAddr, String> {
    let candidates: BTreeMap<&str, IpAddr> = container
        .networks
        .iter()
        .filter(|(name, _)| !NETWORKS_OF_NO_USE.contains(&name.as_str()))
        .filter_map(|(name, address)| Some((name.as_str(), (*address)?)))
        .collect();
    if let Some(name) = network {
        let missing = || format!("label {LABEL_NETWORK}={name} names a network where it has no address");
        // A stack's file calls its network `back` where the engine has `shop_back`.
        let scoped = container.labels.get(super::wanted::LABEL_STACK).map(|stack| format!("{stack}_{name}"));
        let names = [Some(name), scoped.as_deref()];
        return names.into_iter().flatten().find_map(|name| candidates.get(name).copied()).ok_or_else(missing);
    }
    if let Some(address) = preferred.iter().find_map(|name| candidates.get(name.as_str())) {
        return Ok(*address);
    }
    let mut addresses = candidates.values();
    match (addresses.next(), addresses.next()) {
        (Some(address), None) => Ok(*address),
        (None, _) => Err("it has no address that others could reach".to_owned()),
        (Some(_), Some(_)) => {
            let names = candidates.into_keys().collect::<Vec<_>>().join(", ");
            Err(format!("it is on several networks ({names}): name one in its label {LABEL_NETWORK}"))
        }
    }
}
