//! What swarm would refuse of a stack, though every key of it is sound: names that are too long, and ports published twice.
//!
//! Swarm says so service by service, in the middle of a deployment; here it is said before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{DesiredService, Finding, StackObjects, Wanted};

/// Longest name of a service or a network, in characters: it becomes a DNS label.
const NAME_MAX: usize = 63;

/// Longest name of a secret or a config.
const CONTENT_NAME_MAX: usize = 64;

const INGRESS: &str = "ingress";

/// Mistakes, without their places.
pub(super) fn check(objects: &StackObjects) -> Vec<Finding> {
    let mut mistakes = Vec::new();
    for (key, service) in &objects.services {
        name(&format!("services.{key}"), &service.spec.name, NAME_MAX, &mut mistakes);
    }
    let own = |path: String, name: Option<&str>, max: usize, mistakes: &mut Vec<Finding>| {
        if let Some(of) = name {
            self::name(&path, of, max, mistakes);
        }
    };
    for (key, network) in &objects.networks {
        let name = if let Wanted::Own { spec, .. } = network { Some(spec.name.as_str()) } else { None };
        own(format!("networks.{key}"), name, NAME_MAX, &mut mistakes);
    }
    for (key, secret) in &objects.secrets {
        let name = if let Wanted::Own { spec, .. } = secret { Some(spec.name.as_str()) } else { None };
        own(format!("secrets.{key}"), name, CONTENT_NAME_MAX, &mut mistakes);
    }
    for (key, config) in &objects.configs {
        let name = if let Wanted::Own { spec, .. } = config { Some(spec.name.as_str()) } else { None };
        own(format!("configs.{key}"), name, CONTENT_NAME_MAX, &mut mistakes);
    }
    ports(&objects.services, &mut mistakes);
    mistakes
}

fn name(path: &str, name: &str, max: usize, mistakes: &mut Vec<Finding>) {
    let length = name.chars().count();
    if length > max {
        let message = format!("the name {name:?} has {length} characters, and swarm takes {max}");
        mistakes.push(mistake(path, message, "shorten the key or the stack's name"));
    }
}

/// A service publishes a port of a protocol once, and no two publish the same one on all nodes.
fn ports(services: &BTreeMap<String, DesiredService>, mistakes: &mut Vec<Finding>) {
    let mut taken: BTreeMap<(u32, &str), &str> = BTreeMap::new();
    for (key, service) in services {
        let ports = service.spec.endpoint_spec.iter().flat_map(|endpoint| endpoint.ports.iter().flatten());
        let mut own = BTreeSet::new();
        for port in ports.filter(|port| port.published_port > 0) {
            let protocol = if port.protocol.is_empty() { "tcp" } else { port.protocol.as_str() };
            let published = (port.published_port, protocol);
            let word = format!("port {}/{protocol}", port.published_port);
            let path = format!("services.{key}.ports");
            if !own.insert(published) {
                mistakes.push(mistake(&path, format!("{word} is published twice"), "publish it once"));
            } else if let Some(other) = taken.get(&published).filter(|_| is_ingress(&port.publish_mode)) {
                let message = format!("{word} is published by the service {other} too, and both on all nodes");
                mistakes.push(mistake(&path, message, "publish another port, or `mode: host`"));
            } else if is_ingress(&port.publish_mode) {
                taken.insert(published, key);
            }
        }
    }
}

fn is_ingress(mode: &str) -> bool {
    mode.is_empty() || mode == INGRESS
}

fn mistake(path: &str, message: String, mend: &str) -> Finding {
    Finding { location: None, path: path.to_owned(), message, mend: mend.to_owned() }
}
