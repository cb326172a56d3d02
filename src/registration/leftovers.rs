//! What registrator has left in the node's Consul agent, and what becomes of it when a person says so. Pure.
//!
//! Registrator marks its entries by the shape of their IDs only, `<host>:<container>:<port>[:udp]`
//! (gliderlabs/registrator, `bridge/bridge.go`, `serviceIDPattern`). So nothing is done on that alone: an entry is *adopted* if a
//! container of that name runs here and we would register it at the same address and port, and *cleaned* if its host is one that the
//! person named and no container of that name runs here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use super::plan::Step;
use super::wanted::{META_OWNER, Wanted};
use crate::io::consul::agent::AgentService;

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct Inventory<'a> {
    /// All services of the agent.
    pub services: &'a BTreeMap<String, AgentService>,
    /// What we would register.
    pub wanted: &'a [Wanted],
    /// Names of the containers that run here.
    pub running: &'a BTreeSet<String>,
    /// The names by which registrator knew this host.
    pub hosts: &'a BTreeSet<String>,
    /// The address that an entry without one stands for.
    pub agent_address: IpAddr,
}

/// An entry of registrator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// Its ID.
    pub id: String,
    /// The service's name.
    pub name: String,
    /// The container that its ID names.
    pub container: String,
    /// What can be done.
    #[serde(flatten)]
    pub fate: Fate,
}

/// What can be done about an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fate")]
pub enum Fate {
    /// Its container runs and is ours to register: `adopt`.
    Adopt {
        /// The ID that it has from then on.
        new_id: String,
    },
    /// Its container is gone: `clean`.
    Clean,
    /// Neither.
    Keep {
        /// Why.
        reason: String,
    },
}

/// The parts of an ID in registrator's shape: host, container, and the port behind them.
fn parts(id: &str) -> Option<(&str, &str)> {
    let id = id.strip_suffix(":udp").unwrap_or(id);
    let (rest, port) = id.rsplit_once(':')?;
    let (host, container) = rest.rsplit_once(':')?;
    let number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let mut letters = container.bytes();
    let named = letters.next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && container.len() > 1
        && letters.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    (number && named && !host.is_empty()).then_some((host, container))
}

/// True if an ID has registrator's shape.
pub fn is_registrators(id: &str) -> bool {
    parts(id).is_some()
}

/// Every entry of registrator's shape that is nobody's of ours, and what can be done about it.
pub fn leftovers(inventory: &Inventory<'_>) -> Vec<Leftover> {
    let strangers = inventory.services.values().filter(|service| !service.meta.contains_key(META_OWNER));
    strangers.filter_map(|service| leftover(service, inventory)).collect()
}

fn leftover(service: &AgentService, inventory: &Inventory<'_>) -> Option<Leftover> {
    let (host, container) = parts(&service.id)?;
    let address = if service.address.is_empty() { Some(inventory.agent_address) } else { service.address.parse().ok() };
    let same_place =
        |wanted: &&Wanted| Some(wanted.registration.address) == address && wanted.registration.port == service.port;
    let fate = if inventory.running.contains(container) {
        match inventory.wanted.iter().find(same_place) {
            Some(wanted) => Fate::Adopt { new_id: wanted.registration.id.clone() },
            None => Fate::Keep {
                reason: format!("container {container} runs, and we register nothing of it at {}", place(service)),
            },
        }
    } else if inventory.hosts.contains(host) {
        Fate::Clean
    } else {
        Fate::Keep { reason: format!("host {host} is none of those named; --hostname {host} if it is this node") }
    };
    Some(Leftover { id: service.id.clone(), name: service.name.clone(), container: container.to_owned(), fate })
}

fn place(service: &AgentService) -> String {
    format!("{}:{}", service.address, service.port)
}

/// Takes over what can be: ours is there before theirs goes.
pub fn adopt(leftovers: &[Leftover], wanted: &[Wanted]) -> Vec<Step> {
    let mut done = BTreeSet::new();
    let (mut register, mut deregister) = (Vec::new(), Vec::new());
    for leftover in leftovers {
        let Fate::Adopt { new_id } = &leftover.fate else { continue };
        let Some(wanted) = wanted.iter().find(|wanted| wanted.registration.id == *new_id) else { continue };
        if done.insert(new_id) {
            let Wanted { registration, reports, maintenance, .. } = wanted.clone().as_reported();
            register.push(Step::Register {
                registration: Box::new(registration),
                reports,
                maintenance,
                changed: vec!["owner"],
            });
        }
        if leftover.id != *new_id {
            deregister.push(gone(leftover, "it is registered by us now"));
        }
    }
    register.into_iter().chain(deregister).collect()
}

/// Takes away what is left of containers that are gone.
pub fn clean(leftovers: &[Leftover]) -> Vec<Step> {
    let dead = leftovers.iter().filter(|leftover| leftover.fate == Fate::Clean);
    dead.map(|leftover| gone(leftover, "its container is gone")).collect()
}

fn gone(leftover: &Leftover, why: &'static str) -> Step {
    Step::Deregister { id: leftover.id.clone(), name: leftover.name.clone(), why }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registration::facts::Facts;
    use crate::registration::fixture::{self, Fixture};
    use crate::registration::wanted::{Running, wanted};

    /// Entries of strangers by ID and place, what runs, and then: the fates, and the steps of adopting and of cleaning.
    #[track_caller]
    fn check(entries: &[(&str, &str, u16)], running: &[Fixture], expect: &[&str]) {
        let containers: Vec<_> = running.iter().map(|container| Arc::new(container.clone().done())).collect();
        let (stopping, facts) = (BTreeSet::new(), Facts::default());
        let running = Running { containers: &containers, stopping: &stopping, facts: &facts };
        let wanted: Vec<Wanted> = wanted(running, &fixture::place(), &mut Vec::new()).collect();
        let entry = |(id, address, port): &(&str, &str, u16)| {
            let (id, address) = ((*id).to_owned(), (*address).to_owned());
            (id.clone(), AgentService { id, name: "nginx".to_owned(), address, port: *port, ..AgentService::default() })
        };
        let services = entries.iter().map(entry).collect();
        let names = containers.iter().map(|container| container.name.clone()).collect();
        let hosts = BTreeSet::from(["node1".to_owned()]);
        let inventory = Inventory {
            services: &services,
            wanted: &wanted,
            running: &names,
            hosts: &hosts,
            agent_address: [10, 0, 0, 1].into(),
        };
        let found = leftovers(&inventory);
        let kept = found.iter().filter_map(|leftover| match &leftover.fate {
            Fate::Keep { reason } => Some(format!("keep {}: {reason}", leftover.id)),
            _ => None,
        });
        let steps = adopt(&found, &wanted).into_iter().chain(clean(&found)).map(|step| step.to_string());
        assert_eq!(kept.chain(steps).collect::<Vec<_>>(), expect);
    }

    fn web() -> Fixture {
        fixture::container("web").published("80/tcp", "0.0.0.0", 8080)
    }

    #[test]
    fn an_entry_with_our_id_is_adopted_in_place() {
        check(
            &[("node1:web:80", "10.0.0.1", 8080)],
            &[web()],
            &["register nginx at 10.0.0.1:8080 as node1:web:80 (changed: owner)"],
        );
    }

    #[test]
    fn an_entry_with_another_host_goes_after_ours_is_there() {
        check(
            &[("3f2a9c:web:80", "", 8080)],
            &[web()],
            &[
                "register nginx at 10.0.0.1:8080 as node1:web:80 (changed: owner)",
                "deregister nginx, 3f2a9c:web:80 (it is registered by us now)",
            ],
        );
    }

    #[test]
    fn an_entry_whose_container_is_gone_is_cleaned_if_its_host_is_named() {
        check(
            &[("node1:old:80", "10.0.0.1", 9000), ("node2:old:80", "10.0.0.2", 9000)],
            &[web()],
            &[
                "keep node2:old:80: host node2 is none of those named; --hostname node2 if it is this node",
                "deregister nginx, node1:old:80 (its container is gone)",
            ],
        );
    }

    #[test]
    fn what_is_registered_elsewhere_than_we_would_is_kept() {
        check(
            &[("node1:web:80", "10.0.0.1", 9999)],
            &[web()],
            &["keep node1:web:80: container web runs, and we register nothing of it at 10.0.0.1:9999"],
        );
    }

    #[test]
    fn an_id_of_another_shape_is_nobodys_leftover() {
        for id in ["web", "node1:web", "node1:web:http", ":web:80", "node1:-x:80", "node1:web:80:tcp"] {
            assert!(!is_registrators(id), "{id}");
        }
        for id in ["node1:web:80", "node1:web:53:udp", "a:b:stack_web.1.x:80"] {
            assert!(is_registrators(id), "{id}");
        }
        check(&[("web", "10.0.0.1", 8080)], &[web()], &[]);
    }
}
