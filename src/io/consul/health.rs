//! Who is well, and who we are talking to.

use std::collections::BTreeSet;

use reqwest::Method;
use serde::Deserialize;

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

    /// The Consul nodes with an instance of `service`, those with a passing one only if `passing`.
    pub async fn health_nodes(&self, service: &str, passing: bool) -> Result<BTreeSet<String>, Error> {
        let mut request = self.request(Method::GET, ["health", "service", service]);
        if passing {
            request = request.query("passing", "true");
        }
        let entries: Vec<Entry> = request.send().await?.json()?;
        Ok(entries.into_iter().map(|entry| entry.node.node).collect())
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
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryNode {
    node: String,
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
