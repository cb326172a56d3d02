//! From bollard's types to ours.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings, EventMessage,
    EventMessageTypeEnum, HealthStatusEnum, LocalNodeState, PortMap, PortSummaryTypeEnum, SystemInfo,
};

use super::{
    Action, Container, ENV_PREFIX, Event, Health, Info, LABEL_PREFIXES, Listed, Port, Protocol, Published, State,
    Swarm, SwarmState,
};

impl From<SystemInfo> for Info {
    fn from(info: SystemInfo) -> Self {
        let swarm = info.swarm.and_then(|swarm| {
            let state = match swarm.local_node_state? {
                LocalNodeState::PENDING => SwarmState::Pending,
                LocalNodeState::ACTIVE => SwarmState::Active,
                LocalNodeState::ERROR => SwarmState::Error,
                LocalNodeState::LOCKED => SwarmState::Locked,
                LocalNodeState::EMPTY | LocalNodeState::INACTIVE => return None,
            };
            Some(Swarm {
                node_id: swarm.node_id.unwrap_or_default(),
                address: address(swarm.node_addr.as_deref()),
                state,
                manager: swarm.control_available.unwrap_or_default(),
                cluster_id: swarm.cluster.and_then(|cluster| cluster.id).filter(|id| !id.is_empty()),
            })
        });
        Self {
            engine_id: info.id.unwrap_or_default(),
            name: info.name.unwrap_or_default(),
            version: info.server_version.unwrap_or_default(),
            data_root: info.docker_root_dir.unwrap_or_default(),
            swarm,
        }
    }
}

/// A line of the list; none if it has no ID.
pub(super) fn listed(summary: ContainerSummary) -> Option<Listed> {
    let ports = summary.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let protocol = match port.typ {
            Some(PortSummaryTypeEnum::UDP) => Protocol::Udp,
            Some(PortSummaryTypeEnum::SCTP) => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        published(Port { number: port.private_port, protocol }, port.ip.as_deref(), port.public_port?)
    });
    let status = summary.status.unwrap_or_default();
    Some(Listed {
        id: summary.id?,
        name: plain_name(summary.names.unwrap_or_default().into_iter().next()),
        state: match summary.state {
            Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::STOPPING) => State::Running,
            Some(ContainerSummaryStateEnum::PAUSED) => State::Paused,
            _ => State::Stopped,
        },
        // Engines before 28 tell the health in the status text only: `Up 5 minutes (healthy)`.
        health: [
            ("(healthy)", Health::Healthy),
            ("(unhealthy)", Health::Unhealthy),
            ("(health: starting)", Health::Starting),
        ]
        .into_iter()
        .find_map(|(words, health)| status.contains(words).then_some(health)),
        published: sorted(ports),
        networks: networks(summary.network_settings.and_then(|settings| settings.networks)),
    })
}

/// An inspection, without what nobody but its owner should see.
pub(super) fn container(id: &str, response: ContainerInspectResponse, label: Option<&str>) -> Container {
    let config = response.config.unwrap_or_default();
    let state = response.state.unwrap_or_default();
    let settings = response.network_settings.unwrap_or_default();
    let network_mode = response.host_config.and_then(|host| host.network_mode).unwrap_or_default();
    let kept =
        |name: &String| LABEL_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || label == Some(name.as_str());
    let env = config.env.unwrap_or_default();
    Container {
        id: response.id.unwrap_or_else(|| id.to_owned()),
        name: plain_name(response.name),
        image: config.image.unwrap_or_default(),
        labels: config.labels.unwrap_or_default().into_iter().filter(|(name, _)| kept(name)).collect(),
        env: env
            .iter()
            .filter(|pair| pair.starts_with(ENV_PREFIX))
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        state: if state.restarting == Some(true) || state.running != Some(true) {
            State::Stopped
        } else if state.paused == Some(true) {
            State::Paused
        } else {
            State::Running
        },
        health: state.health.and_then(|health| match health.status? {
            HealthStatusEnum::STARTING => Some(Health::Starting),
            HealthStatusEnum::HEALTHY => Some(Health::Healthy),
            HealthStatusEnum::UNHEALTHY => Some(Health::Unhealthy),
            HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
        }),
        host_network: network_mode == "host",
        network_of: network_mode.strip_prefix("container:").map(ToOwned::to_owned),
        stop_signal: config.stop_signal.as_deref().and_then(signal).unwrap_or(SIGTERM),
        exit_code: state.exit_code.filter(|_| state.running == Some(false)),
        exposed: sorted(config.exposed_ports.unwrap_or_default().iter().filter_map(|text| text.parse().ok())),
        published: sorted(bindings(settings.ports.unwrap_or_default())),
        networks: networks(settings.networks),
    }
}

/// What a container is sent to stop, unless it says otherwise.
const SIGTERM: u16 = 15;

/// `SIGQUIT`, `QUIT` or `3`. Of the names, those that images are known to ask for.
fn signal(text: &str) -> Option<u16> {
    const NAMES: [(&str, u16); 8] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("TERM", SIGTERM),
        ("WINCH", 28),
    ];
    let text = text.trim().to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let realtime = || Some(34 + name.strip_prefix("RTMIN+")?.parse::<u16>().ok()?);
    let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named.or_else(|| name.parse().ok()).or_else(realtime)
}

fn bindings(ports: PortMap) -> impl Iterator<Item = Published> {
    ports.into_iter().flat_map(|(port, bindings)| {
        let port = port.parse::<Port>().ok();
        bindings
            .unwrap_or_default()
            .into_iter()
            .filter_map(move |binding| published(port?, binding.host_ip.as_deref(), binding.host_port?.parse().ok()?))
    })
}

fn published(port: Port, host_ip: Option<&str>, host_port: u16) -> Option<Published> {
    // Port 0 stands for "not bound".
    let host_port = (host_port != 0).then_some(host_port)?;
    let bound = address(host_ip);
    Some(Published {
        port,
        address: bound.filter(|address| !address.is_unspecified()),
        v6: bound.is_some_and(|address| address.is_ipv6()),
        host_port,
    })
}

fn networks(networks: Option<HashMap<String, EndpointSettings>>) -> BTreeMap<String, Option<IpAddr>> {
    let settings = networks.unwrap_or_default().into_iter();
    settings
        .map(|(name, endpoint)| {
            let v4 = address(endpoint.ip_address.as_deref());
            (name, v4.or_else(|| address(endpoint.global_ipv6_address.as_deref())))
        })
        .collect()
}

/// An event that we understand.
pub(super) fn event(message: EventMessage) -> Option<Event> {
    let actor = message.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    if message.typ == Some(EventMessageTypeEnum::NETWORK) {
        return Some(Event { container: attributes.get("container")?.clone(), action: Action::Network });
    }
    let name = message.action?;
    let action = match name.split_once(':').map_or(name.as_str(), |(verb, _)| verb) {
        "start" => Action::Start,
        "kill" => Action::Kill(attributes.get("signal").and_then(|signal| signal.parse().ok())),
        "die" => Action::Die,
        "destroy" => Action::Destroy,
        "health_status" => Action::Health,
        "pause" => Action::Pause,
        "unpause" => Action::Unpause,
        "rename" => Action::Rename,
        _ => return None,
    };
    Some(Event { container: actor.id?, action })
}

fn plain_name(name: Option<String>) -> String {
    let name = name.unwrap_or_default();
    name.strip_prefix('/').unwrap_or(&name).to_owned()
}

fn address(text: Option<&str>) -> Option<IpAddr> {
    text?.parse().ok()
}

fn sorted<T: Ord>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort();
    items.dedup();
    items
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn inspected(value: serde_json::Value) -> Container {
        container("abc", serde_json::from_value(value).unwrap(), None)
    }

    #[test]
    fn of_environment_and_labels_only_what_we_read_passes_the_boundary() {
        let container = inspected(json!({"Config": {
            "Env": ["SERVICE_NAME=web", "PASSWORD=hunter2", "SERVICE_TAGS=a=b", "PATH"],
            "Labels": {"SERVICE_80_NAME": "front", "com.docker.swarm.service.name": "shop_web", "traefik.auth": "hunter2"},
        }}));
        assert_eq!(
            container.env.into_iter().collect::<Vec<_>>(),
            [("SERVICE_NAME".to_owned(), "web".to_owned()), ("SERVICE_TAGS".to_owned(), "a=b".to_owned())]
        );
        assert_eq!(
            container.labels.into_keys().collect::<Vec<_>>(),
            ["SERVICE_80_NAME", "com.docker.swarm.service.name"]
        );
    }

    #[test]
    fn an_inspected_container_tells_its_ports_networks_and_state() {
        let container = inspected(json!({
            "Id": "abc", "Name": "/web", "HostConfig": {"NetworkMode": "bridge"},
            "State": {"Running": true, "Paused": false, "Restarting": false, "Health": {"Status": "starting"}},
            "Config": {"Image": "nginx:1", "ExposedPorts": {"80/tcp": {}, "53/udp": {}}},
            "NetworkSettings": {
                "Ports": {"80/tcp": [{"HostIp": "::", "HostPort": "8080"}, {"HostIp": "0.0.0.0", "HostPort": "8080"}], "53/udp": null},
                "Networks": {"bridge": {"IPAddress": "172.17.0.2"}, "ingress": {"IPAddress": ""}},
            },
        }));
        assert_eq!((container.state, container.health), (State::Running, Some(Health::Starting)));
        let http = Port { number: 80, protocol: Protocol::Tcp };
        assert_eq!(container.exposed, [Port { number: 53, protocol: Protocol::Udp }, http]);
        assert_eq!(
            container.published,
            [
                Published { port: http, address: None, v6: false, host_port: 8080 },
                Published { port: http, address: None, v6: true, host_port: 8080 },
            ]
        );
        assert_eq!(container.networks["bridge"], Some("172.17.0.2".parse().unwrap()));
        assert_eq!(container.networks["ingress"], None);
    }

    #[test]
    fn a_stop_signal_is_read_by_name_or_number() {
        #[track_caller]
        fn check(said: Option<&str>, expect: u16) {
            assert_eq!(inspected(json!({"Config": {"StopSignal": said}})).stop_signal, expect, "{said:?}");
        }
        check(None, 15);
        check(Some("SIGWINCH"), 28);
        check(Some("quit"), 3);
        check(Some("12"), 12);
        check(Some("SIGRTMIN+3"), 37);
        check(Some("nonsense"), 15);
    }

    #[test]
    fn one_more_label_is_kept_if_it_is_asked_for() {
        let response = json!({"Config": {"Labels": {"ip": "10.0.0.9/24", "other": "x"}}});
        let container = container("abc", serde_json::from_value(response).unwrap(), Some("ip"));
        assert_eq!(container.labels.into_keys().collect::<Vec<_>>(), ["ip"]);
    }

    #[test]
    fn a_container_that_waits_for_its_restart_does_not_run() {
        let waiting = inspected(json!({"State": {"Running": true, "Restarting": true}}));
        assert_eq!(waiting.state, State::Stopped);
    }

    #[test]
    fn the_list_tells_health_in_its_status_text() {
        #[track_caller]
        fn check(status: &str, expect: Option<Health>) {
            let summary = json!({"Id": "abc", "Names": ["/web"], "State": "running", "Status": status});
            assert_eq!(listed(serde_json::from_value(summary).unwrap()).unwrap().health, expect, "{status}");
        }
        check("Up 5 minutes", None);
        check("Up 5 minutes (healthy)", Some(Health::Healthy));
        check("Up 5 minutes (unhealthy)", Some(Health::Unhealthy));
        check("Up 1 second (health: starting)", Some(Health::Starting));
    }

    #[test]
    fn an_event_names_its_container_and_what_happened() {
        #[track_caller]
        fn check(message: serde_json::Value, expect: Option<Action>) {
            let got = event(serde_json::from_value(message).unwrap());
            assert_eq!(got, expect.map(|action| Event { container: "abc".to_owned(), action }));
        }
        let container = |action: &str| json!({"Type": "container", "Action": action, "Actor": {"ID": "abc"}});
        check(container("start"), Some(Action::Start));
        check(container("health_status: unhealthy"), Some(Action::Health));
        check(container("exec_create: sh"), None);
        let actor = json!({"ID": "abc", "Attributes": {"signal": "15"}});
        check(json!({"Type": "container", "Action": "kill", "Actor": actor}), Some(Action::Kill(Some(15))));
        let actor = json!({"ID": "net", "Attributes": {"container": "abc"}});
        check(json!({"Type": "network", "Action": "connect", "Actor": actor}), Some(Action::Network));
    }
}
