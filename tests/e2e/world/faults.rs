//! Faults that only the fault suite makes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use swarmkeeper_lab::{Mark, Recorded, Slow};

use super::{World, seconds};

impl World {
    /// Everything that passed the recorders since.
    pub fn recorded(&self, since: Mark) -> Result<Vec<Recorded>> {
        self.lab.record().requests(since)
    }

    /// Kills a node's Consul and starts it again.
    pub async fn consul_is_killed(&self, node: usize, time: Duration) -> Result<()> {
        self.node(node).kill_consul().await?;
        tokio::time::sleep(time).await;
        self.node(node).start_consul().await
    }

    /// Stops a node's Consul where it stands, and thaws it.
    pub async fn consul_is_frozen(&self, node: usize, time: Duration) -> Result<()> {
        self.node(node).pause_consul().await?;
        tokio::time::sleep(time).await;
        self.node(node).resume_consul().await
    }

    /// The same with its engine.
    pub async fn engine_is_frozen(&self, node: usize, time: Duration) -> Result<()> {
        self.node(node).pause_engine().await?;
        tokio::time::sleep(time).await;
        self.node(node).resume_engine().await
    }

    /// Drops what a node sends (`OUTPUT`, `-o`) or what it is sent (`INPUT`, `-i`).
    pub async fn one_way(&self, node: usize, chain: &str, direction: &str, time: Duration) -> Result<()> {
        let rule = |verb| ["iptables", "-w", verb, chain, direction, "eth0", "-j", "DROP"];
        self.node(node).exec_in_netns(&rule("-I")).await?;
        tokio::time::sleep(time).await;
        self.node(node).exec_in_netns(&rule("-D")).await.map(drop)
    }

    /// A link of 1 Mbit/s.
    pub async fn link_is_slow(&self, node: usize, time: Duration) -> Result<()> {
        self.node(node).slow(Slow { kilobits: Some(1_000), ..Slow::default() }).await?;
        tokio::time::sleep(time).await;
        self.node(node).clear_slow().await
    }

    /// A stranger deletes the leaders' lock.
    pub async fn delete_lock(&self) -> Result<()> {
        let request =
            hyper::Request::delete("/v1/kv/swarmkeeper/v1/lab/leader").body(http_body_util::Full::default())?;
        let answer = self.node(1).consul(request).await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        Ok(())
    }

    /// A stranger registers something else under the IDs of a node's registrations.
    pub async fn take_our_names(&self, node: usize) -> Result<()> {
        let services = self.node(node).consul_get("/v1/agent/services").await?;
        let ours =
            services.as_object().into_iter().flatten().filter(|(_, service)| service["Meta"]["sk-owner"].is_string());
        for (id, service) in ours {
            let body = serde_json::json!({"ID": id, "Name": service["Service"], "Address": "10.77.0.250", "Port": 1});
            self.node(node).consul_put("/v1/agent/service/register", body.to_string()).await?;
        }
        Ok(())
    }

    /// Registers and deregisters so many services at a node's Consul; gives how many were taken.
    pub async fn registration_burst(&self, node: usize, count: usize) -> Result<usize> {
        let mut taken = 0;
        for number in 0..count {
            let name = format!("burst{number}");
            let registered = self.register_by_hand(node, &name, "10.77.0.251", 2);
            taken += usize::from(matches!(tokio::time::timeout(seconds(2), registered).await, Ok(Ok(()))));
        }
        for number in 0..count {
            self.deregister_by_hand(node, &format!("burst{number}")).await?;
        }
        Ok(taken)
    }

    /// Engines and Consul answer on every node, and every cable is in.
    pub async fn parts_stand(&self) -> Result<()> {
        for node in 1..=4 {
            self.node(node).docker(["info", "--format", "{{.ID}}"]).await?;
            self.node(node).consul_get("/v1/agent/self").await?;
        }
        Ok(())
    }

    /// The addresses of nodes that run a container with this `SERVICE_NAME`.
    pub async fn addresses_of_running(&self, name: &str) -> Result<BTreeSet<String>> {
        let mut addresses = BTreeSet::new();
        for node in 1..=4 {
            let ids = self.node(node).docker(["ps", "-q", "--filter", "label=churn"]).await?;
            for id in ids.lines() {
                let env = self.node(node).docker(["inspect", "--format", "{{json .Config.Env}}", id]).await?;
                if env.contains(&format!("\"SERVICE_NAME={name}\"")) {
                    addresses.insert(self.node(node).address().to_string());
                }
            }
        }
        Ok(addresses)
    }
}
