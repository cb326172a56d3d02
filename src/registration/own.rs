//! The agent's own service, `swarmkeeper`: who is there, who leads, and what is the matter. Pure.
//!
//! Unlike the containers' checks, these run out soon after we do: an agent that is dead should be seen to be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Options;
use super::wanted::{Report, Wanted};
use crate::io::consul::agent::{CheckDefinition, CheckStatus, Probe, Registration};

/// The name of the agents' service in Consul.
pub const SERVICE: &str = "swarmkeeper";

/// How long the agent's checks stand without it.
pub const TTL: Duration = Duration::from_secs(30);

/// How often they are repeated.
pub const REFRESH: Duration = Duration::from_secs(10);

/// What the agent's service tells about it; the composition root keeps it current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfState {
    /// What the node is in its swarm.
    pub role: Role,
    /// True while this agent leads.
    pub leader: bool,
    /// What hinders work with the engine. Whether the engine lists its containers is found out here.
    pub engine: Result<(), Trouble>,
    /// What hinders the rest of the agent.
    pub agent: Result<(), Trouble>,
}

/// A node's part in its swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Keeps the swarm's state.
    Manager,
    /// Runs what it is given.
    Worker,
}

/// What is the matter, and the mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is the matter, in words that stay the same while it lasts.
    pub reason: String,
    /// What a person can do about it.
    pub mend: String,
}

/// The ID of the service of the agent on `node`.
pub fn service_id(node: &str) -> String {
    format!("{SERVICE}-{node}")
}

/// The agent's own registration.
pub fn wanted(options: &Options, address: IpAddr, state: &SelfState) -> Wanted {
    let id = service_id(&options.node);
    let checks = [
        Check {
            suffix: "agent",
            name: "swarmkeeper agent",
            notes: "Critical if the agent reports trouble, or nothing for 30 s: it is dead or cannot reach Consul.",
            well: "The agent runs and keeps this node's registrations.",
            state: &state.agent,
        },
        Check {
            suffix: "engine",
            name: "Docker engine",
            notes: "Critical if the node's engine does not answer the agent.",
            well: "The engine answers.",
            state: &state.engine,
        },
    ];
    let role = match state.role {
        Role::Manager => "manager",
        Role::Worker => "worker",
    };
    let leader = state.leader.then_some("leader");
    let meta = [("cluster", options.cluster.as_str()), ("node", &options.node), ("version", env!("CARGO_PKG_VERSION"))];
    let registration = Registration {
        name: SERVICE.to_owned(),
        tags: [options.cluster.as_str(), role].into_iter().chain(leader).map(ToOwned::to_owned).collect(),
        meta: meta.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>(),
        port: options.http_port,
        address,
        checks: checks.iter().map(|check| check.definition(&id)).collect(),
        id: id.clone(),
    };
    Wanted::sign(registration, checks.iter().map(|check| check.report(&id)).collect(), &options.owner)
}

/// One of the agent's checks.
struct Check<'a> {
    suffix: &'a str,
    name: &'a str,
    notes: &'a str,
    well: &'a str,
    state: &'a Result<(), Trouble>,
}

impl Check<'_> {
    fn definition(&self, id: &str) -> CheckDefinition {
        CheckDefinition {
            id: format!("{id}:{}", self.suffix),
            name: self.name.to_owned(),
            notes: self.notes.to_owned(),
            status: None,
            probe: Probe::Ttl { ttl: format!("{}s", TTL.as_secs()) },
            deregister_critical_service_after: None,
        }
    }

    fn report(&self, id: &str) -> Report {
        let (status, text) = match self.state {
            Ok(()) => (CheckStatus::Passing, self.well.to_owned()),
            Err(trouble) => (CheckStatus::Critical, format!("{}. {}", trouble.reason, trouble.mend)),
        };
        Report { check: format!("{id}:{}", self.suffix), status, text, every: REFRESH }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::fixture;

    #[test]
    fn the_agents_service_says_cluster_role_and_who_leads() {
        let mut state = fixture::well();
        let tags = |state: &SelfState| wanted(&fixture::options(), [10, 0, 0, 1].into(), state).registration.tags;
        assert_eq!(tags(&state), ["swarm", "manager"]);
        state.leader = true;
        assert_eq!(tags(&state), ["swarm", "manager", "leader"]);
        state.role = Role::Worker;
        state.leader = false;
        assert_eq!(tags(&state), ["swarm", "worker"]);
    }

    #[test]
    fn trouble_is_told_with_its_mend() {
        let trouble = Trouble { reason: "docker does not answer".to_owned(), mend: "Start it.".to_owned() };
        let state = SelfState { engine: Err(trouble), ..fixture::well() };
        let reports = wanted(&fixture::options(), [10, 0, 0, 1].into(), &state).reports;
        let said: Vec<String> = reports.iter().map(|report| format!("{} {}", report.status, report.text)).collect();
        assert_eq!(
            said,
            [
                "passing The agent runs and keeps this node's registrations.",
                "critical docker does not answer. Start it.",
            ]
        );
    }
}
