//! Who is well, and who we are talking to.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::agent::CheckStatus;
use super::{Consul, Error};

/// What the local agent says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSelf {
    /// The agent's node name in Consul.
    pub node: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Consul's version.
    pub version: String,
}

/// A check of a service's instance.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ServiceCheck {
    /// The instance's ID.
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    /// `passing`, `warning` or `critical`.
    pub status: String,
    /// What was said last.
    #[serde(default)]
    pub output: String,
}

impl Consul {
    /// The checks of all instances of `service`, those of their nodes aside.
    pub async fn health_checks(&self, service: &str) -> Result<Vec<ServiceCheck>, Error> {
        self.get_json(&["health", "checks", service], &[]).await
    }

    /// The Consul nodes with an instance of `service`; if `usable`, those only with one that DNS answers with, a warning being no hindrance.
    pub async fn health_nodes(&self, service: &str, usable: bool) -> Result<BTreeSet<String>, Error> {
        let entries: Vec<Entry> = self.get_json(&["health", "service", service], &[]).await?;
        let is_usable = |entry: &Entry| entry.checks.iter().all(|check| check.status != CheckStatus::Critical);
        let wanted = entries.into_iter().filter(|entry| !usable || is_usable(entry));
        Ok(wanted.map(|entry| entry.node.node).collect())
    }

    /// The critical checks of service instances, as the IDs of those and the checks' names.
    pub async fn critical_instances(&self) -> Result<Vec<(String, String)>, Error> {
        let checks: Vec<StateEntry> = self.get_json(&["health", "state", "critical"], &[]).await?;
        let of_services = checks.into_iter().filter(|check| !check.service_id.is_empty());
        Ok(of_services.map(|check| (check.service_id, check.name)).collect())
    }

    /// The local agent's node name, datacenter and version.
    pub async fn agent_self(&self) -> Result<AgentSelf, Error> {
        let body: SelfBody = self.get_json(&["agent", "self"], &[]).await?;
        let SelfConfig { node_name, datacenter, version } = body.config;
        Ok(AgentSelf { node: node_name, datacenter, version })
    }

    /// The Raft leader's address as the local agent knows it; none while there is no leader.
    pub async fn raft_leader(&self) -> Result<Option<String>, Error> {
        let address: String = self.get_json(&["status", "leader"], &[]).await?;
        Ok(Some(address).filter(|address| !address.is_empty()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: EntryNode,
    #[serde(default)]
    checks: Vec<EntryCheck>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryCheck {
    status: CheckStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryNode {
    node: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StateEntry {
    #[serde(rename = "ServiceID", default)]
    service_id: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SelfBody {
    config: SelfConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SelfConfig {
    node_name: String,
    datacenter: String,
    version: String,
}
