//! What agents need to know of a service and cannot read from the engine: a worker's answers no question about services.
//!
//! The leader publishes it in Consul KV, by the service's name. Of the labels only those are in it that registration reads: others hold
//! other people's passwords.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PortConfig, ServiceSpec};

/// Labels by these prefixes are published, all others never.
const LABEL_PREFIXES: [&str; 2] = ["SERVICE_", "swarmkeeper."];

/// A service, as far as registration needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceFacts {
    /// `deploy.labels` that registration reads.
    pub labels: BTreeMap<String, String>,
    /// Ports that swarm's mesh publishes on every node.
    pub ingress: Vec<IngressPort>,
}

/// A port that swarm's mesh publishes on every node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IngressPort {
    /// In the container.
    pub target: u16,
    /// On the nodes.
    pub published: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

impl ServiceFacts {
    /// Of a spec, with the `endpoint` of the live service for ports that swarm has picked.
    pub fn of(spec: &ServiceSpec, endpoint: Option<&Value>) -> Self {
        let labels = spec.labels.iter().flatten();
        let kept = |name: &String| LABEL_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let picked: Vec<PortConfig> = endpoint
            .and_then(|endpoint| serde_json::from_value(endpoint.get("Ports")?.clone()).ok())
            .unwrap_or_default();
        let asked = spec.endpoint_spec.iter().flat_map(|endpoint| endpoint.ports.iter().flatten());
        let mut ingress: Vec<IngressPort> = asked.filter_map(|port| ingress_port(port, &picked)).collect();
        ingress.sort();
        ingress.dedup();
        Self {
            labels: labels.filter(|(name, _)| kept(name)).map(|(name, value)| (name.clone(), value.clone())).collect(),
            ingress,
        }
    }
}

/// None for a port that is published by the task itself, or whose number swarm has yet to pick.
fn ingress_port(port: &PortConfig, picked: &[PortConfig]) -> Option<IngressPort> {
    if port.publish_mode == "host" {
        return None;
    }
    let protocol = |port: &PortConfig| {
        if port.protocol.is_empty() { "tcp".to_owned() } else { port.protocol.clone() }
    };
    let same = |other: &&PortConfig| other.target_port == port.target_port && protocol(other) == protocol(port);
    let published = Some(port.published_port).filter(|number| *number != 0);
    let published = published.or_else(|| picked.iter().find(same).map(|port| port.published_port))?;
    Some(IngressPort {
        target: port.target_port.try_into().ok()?,
        published: published.try_into().ok().filter(|number| *number != 0)?,
        protocol: protocol(port),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(spec: Value, endpoint: &Value) -> Value {
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        serde_json::to_value(ServiceFacts::of(&spec, Some(endpoint))).unwrap()
    }

    #[test]
    fn only_labels_that_registration_reads_are_published() {
        let spec =
            json!({"Labels": {"SERVICE_NAME": "shop", "swarmkeeper.network": "back", "traefik.auth": "hunter2"}});
        let expect = json!({"labels": {"SERVICE_NAME": "shop", "swarmkeeper.network": "back"}, "ingress": []});
        assert_eq!(facts(spec, &Value::Null), expect);
    }

    #[test]
    fn ports_of_the_mesh_are_published_and_those_that_swarm_picked_are_found() {
        let spec = json!({"EndpointSpec": {"Ports": [
            {"TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress", "Protocol": "tcp"},
            {"TargetPort": 53, "Protocol": "udp"},
            {"TargetPort": 99, "PublishedPort": 99, "PublishMode": "host"},
            {"TargetPort": 7},
        ]}});
        let endpoint = json!({"Ports": [{"TargetPort": 53, "Protocol": "udp", "PublishedPort": 30001}]});
        let expect = json!([
            {"target": 53, "published": 30001, "protocol": "udp"},
            {"target": 80, "published": 8080, "protocol": "tcp"},
        ]);
        assert_eq!(facts(spec, &endpoint)["ingress"], expect);
    }
}
