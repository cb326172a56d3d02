//! Containers for tests, built in a line.

use std::collections::BTreeMap;

use super::rules::Rules;
use super::wanted::Place;
use crate::io::docker::{Container, Health, Published, State};

/// The container `name`, running `nginx` with ID `c-<name>`; see the methods of [`Fixture`].
pub(super) fn container(name: &str) -> Fixture {
    Fixture(Container {
        id: format!("c-{name}"),
        name: name.to_owned(),
        image: "nginx".to_owned(),
        labels: BTreeMap::new(),
        env: BTreeMap::new(),
        state: State::Running,
        health: None,
        host_network: false,
        network_of: None,
        stop_signal: 15,
        exit_code: None,
        exposed: Vec::new(),
        published: Vec::new(),
        networks: BTreeMap::new(),
    })
}

/// The node `node1` at 10.0.0.1, whose owner is `owner1` and who prefers the network `preferred`.
pub(super) fn place() -> Place {
    Place {
        hostname: "node1".to_owned(),
        owner: "owner1".to_owned(),
        address: [10, 0, 0, 1].into(),
        runs_scripts: true,
        rules: Rules { networks: vec!["preferred".to_owned()], ..Rules::default() },
    }
}

#[derive(Clone)]
pub(super) struct Fixture(Container);

impl Fixture {
    pub(super) fn done(self) -> Container {
        self.0
    }

    pub(super) fn env(mut self, env: &[(&str, &str)]) -> Self {
        self.0.env.extend(env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self
    }

    pub(super) fn labels(mut self, labels: &[(&str, &str)]) -> Self {
        self.0.labels.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self
    }

    pub(super) fn image(mut self, image: &str) -> Self {
        image.clone_into(&mut self.0.image);
        self
    }

    pub(super) fn state(mut self, state: State) -> Self {
        self.0.state = state;
        self
    }

    pub(super) fn health(mut self, health: Option<Health>) -> Self {
        self.0.health = health;
        self
    }

    pub(super) fn host_network(mut self) -> Self {
        self.0.host_network = true;
        self
    }

    pub(super) fn stop_signal(mut self, signal: u16) -> Self {
        self.0.stop_signal = signal;
        self
    }

    pub(super) fn network_of(mut self, container: &str) -> Self {
        self.0.network_of = Some(container.to_owned());
        self
    }

    pub(super) fn exposed(mut self, port: &str) -> Self {
        self.0.exposed.push(port.parse().unwrap());
        self
    }

    pub(super) fn published(mut self, port: &str, address: &str, host_port: u16) -> Self {
        let address: std::net::IpAddr = address.parse().unwrap();
        self.0.exposed.push(port.parse().unwrap());
        self.0.published.push(Published {
            port: port.parse().unwrap(),
            address: Some(address).filter(|address| !address.is_unspecified()),
            v6: address.is_ipv6(),
            host_port,
        });
        self
    }

    pub(super) fn network(mut self, name: &str, address: &str) -> Self {
        self.0.networks.insert(name.to_owned(), Some(address.parse().unwrap()));
        self
    }
}

/// Options of the node of [`place`].
pub(super) fn options() -> super::Options {
    let place = place();
    super::Options {
        node: place.hostname,
        owner: place.owner,
        cluster: "swarm".to_owned(),
        node_address: Some(place.address),
        rules: place.rules,
        http_port: 8070,
        facts: super::FactKeys {
            services: "facts/services/".to_owned(),
            generation: "facts/generation".to_owned(),
            drain: "facts/drain".to_owned(),
        },
        disk: None,
    }
}

/// A manager that is well and does not lead.
pub(super) fn well() -> super::SelfState {
    super::SelfState {
        role: super::Role::Manager,
        leader: false,
        engine: Ok(()),
        agent: Ok(()),
        stacks: BTreeMap::new(),
    }
}

/// The line of the list that belongs to `container`.
pub(super) fn listed(container: &Container) -> crate::io::docker::Listed {
    crate::io::docker::Listed {
        id: container.id.clone(),
        name: container.name.clone(),
        state: container.state,
        health: container.health,
        published: container.published.clone(),
        networks: container.networks.clone(),
    }
}
