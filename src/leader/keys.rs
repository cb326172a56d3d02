//! Where a cluster's values are in Consul KV.

/// The keys of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    root: String,
}

impl Keys {
    /// The keys of the cluster with this name, which has no `/`.
    pub fn new(cluster: &str) -> Self {
        Self { root: format!("swarmkeeper/v1/{cluster}/") }
    }

    /// What all keys of the cluster begin with.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The swarm's ID, claimed once.
    pub fn claim(&self) -> String {
        format!("{}cluster", self.root)
    }

    /// The lock.
    pub fn lock(&self) -> String {
        format!("{}leader", self.root)
    }

    /// What the status keys of stacks begin with.
    pub fn stacks(&self) -> String {
        format!("{}stacks/", self.root)
    }

    /// What the keys of published services begin with.
    pub fn services(&self) -> String {
        format!("{}services/", self.root)
    }

    /// What the keys of nodes that are being drained begin with.
    pub fn drains(&self) -> String {
        format!("{}drains/", self.root)
    }

    /// One node's drain.
    pub fn drain(&self, node: &str) -> String {
        format!("{}drains/{node}", self.root)
    }

    /// Moves whenever something was published that agents read.
    pub fn generation(&self) -> String {
        format!("{}generation", self.root)
    }

    /// What the nodes' own keys begin with.
    pub fn nodes(&self) -> String {
        format!("{}nodes/", self.root)
    }

    /// One node's own key.
    pub fn node(&self, node: &str) -> String {
        format!("{}nodes/{node}", self.root)
    }
}
