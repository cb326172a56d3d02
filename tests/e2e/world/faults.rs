//! Faults that only the fault suite makes, and what undoes them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use swarmkeeper_lab::{Mark, Recorded, Slow, keeper};

use super::{World, checkout, seconds};

/// The agents' volume, as `stack/swarmkeeper.yml` names it.
const VOLUME: &str = "swarmkeeper_data";

/// The size of the disk that it is on.
const DISK: &str = "size=48m";

/// The service of a manager's agent that is of another version than ours.
const PREVIOUS: &str = "swarmkeeper_previous";

/// Where the stranger's services are that take the names of ours.
const THIEF: &str = "10.77.0.250";

/// Where a node's packets are dropped: those that it sends, and those that it is sent.
pub const SENDS: [&str; 3] = ["OUTPUT", "-o", "eth0"];
pub const HEARS: [&str; 3] = ["INPUT", "-i", "eth0"];

impl World {
    /// As [`World::up`], with the agents' state on disks that are soon full.
    pub async fn up_with_small_disks() -> Result<Self> {
        let lab = Self::lab().await?;
        for node in lab.nodes() {
            let disk = node.dir().join("agent-disk");
            tokio::fs::create_dir_all(&disk).await?;
            let disk = disk.display().to_string();
            node.exec(&["mount", "-t", "tmpfs", "-o", DISK, "agent-disk", &disk]).await?;
            let device = format!("device={disk}");
            let options = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
            node.docker(["volume", "create"].iter().chain(&options).chain(&[VOLUME])).await?;
        }
        Self::on(lab).await
    }

    /// Has another binary of ours be the agent of one manager from now on.
    pub async fn manager_runs(&self, node: usize, binary: &Path) -> Result<()> {
        let image = keeper::push_image(&self.lab, binary, &checkout(), "previous").await?;
        // The service below is made without credentials for the registry.
        self.node(node).docker(["pull", "--quiet", &image]).await?;
        let swarm = self.swarm(1).await?;
        let keeper = swarm.service("swarmkeeper_keeper").await?;
        let mut spec = keeper.spec.clone();
        spec.name = PREVIOUS.into();
        spec.task_template.container_spec.image = image;
        let placement = spec.task_template.placement.get_or_insert_default();
        placement.constraints.get_or_insert_default().push(format!("node.hostname == {}", self.node_name(node)));
        let elsewhere = format!("node.hostname!={}", self.node_name(node));
        self.docker(&["service", "update", "--quiet", "--constraint-add", &elsewhere, "swarmkeeper_keeper"]).await?;
        swarm.service_create(&spec, None).await?;
        self.eventually("the previous version runs", seconds(60), async || {
            let agent = self.agent(node).await?;
            ensure!(agent.starts_with(PREVIOUS), "{agent} runs");
            Ok(())
        })
        .await?;
        self.agents_run(seconds(60)).await
    }

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

    /// Drops the packets that a node sends, or those that it is sent.
    pub async fn one_way(&self, node: usize, packets: [&str; 3], time: Duration) -> Result<()> {
        self.firewall(node, "-I", packets).await?;
        tokio::time::sleep(time).await;
        self.firewall(node, "-D", packets).await
    }

    async fn firewall(&self, node: usize, verb: &str, [chain, direction, device]: [&str; 3]) -> Result<()> {
        let rule = ["iptables", "-w", verb, chain, direction, device, "-j", "DROP"];
        self.node(node).exec_in_netns(&rule).await.map(drop)
    }

    /// A link of 1 Mbit/s.
    pub async fn link_is_slow(&self, node: usize, time: Duration) -> Result<()> {
        self.node(node).slow(Slow { kilobits: Some(1_000), ..Slow::default() }).await?;
        tokio::time::sleep(time).await;
        self.node(node).clear_slow().await
    }

    /// Breaks off the engine's events and the blocking queries to Consul, on every node.
    pub fn drop_streams(&self) -> Result<()> {
        (1..=4).try_for_each(|node| self.lab.drop_streams(node))
    }

    /// Leaves not a byte of room on the disk of a node's agent.
    pub async fn disk_is_filled(&self, node: usize) -> Result<()> {
        // `dd` ends with an error when the disk is full, which is what it is for.
        let fill = format!("dd if=/dev/zero of={} bs=64k 2>/dev/null", self.filler(node).display());
        self.node(node).exec(&["sh", "-c", &format!("! {fill}")]).await.context("the disk did not fill")?;
        Ok(())
    }

    pub async fn disk_is_emptied(&self, node: usize) -> Result<()> {
        self.node(node).exec(&["rm", "-f", &self.filler(node).display().to_string()]).await.map(drop)
    }

    fn filler(&self, node: usize) -> PathBuf {
        self.node(node).dir().join("agent-disk/full")
    }

    /// A stranger deletes the leaders' lock.
    pub async fn delete_lock(&self) -> Result<()> {
        self.node(1).consul_delete("/v1/kv/swarmkeeper/v1/lab/leader").await
    }

    /// A stranger registers something else under the IDs of a node's registrations. As long as it does, they are the stranger's.
    pub async fn take_our_names(&self, node: usize) -> Result<()> {
        let services = self.node(node).consul_get("/v1/agent/services").await?;
        let ours =
            services.as_object().into_iter().flatten().filter(|(_, service)| service["Meta"]["sk-owner"].is_string());
        for (id, service) in ours {
            let body = serde_json::json!({"ID": id, "Name": service["Service"], "Address": THIEF, "Port": 1});
            self.node(node).consul_put("/v1/agent/service/register", body.to_string()).await?;
        }
        Ok(())
    }

    /// The stranger takes that away again.
    pub async fn thief_leaves(&self) -> Result<()> {
        for node in 1..=4 {
            let services = self.node(node).consul_get("/v1/agent/services").await?;
            for (id, _) in services.as_object().into_iter().flatten().filter(|(_, service)| service["Address"] == THIEF)
            {
                self.deregister_by_hand(node, id).await?;
            }
        }
        Ok(())
    }

    /// How many instances Consul's servers know of each service whose name begins so.
    pub async fn instances(&self, prefix: &str) -> Result<BTreeMap<String, usize>> {
        let mut instances = BTreeMap::new();
        for node in 1..=4 {
            let found = self.node(1).consul_get(&format!("/v1/catalog/node/{}", self.node_name(node))).await?;
            for (_, service) in found["Services"].as_object().into_iter().flatten() {
                let name = service["Service"].as_str().unwrap_or_default();
                if name.starts_with(prefix) {
                    *instances.entry(name.to_owned()).or_default() += 1;
                }
            }
        }
        Ok(instances)
    }

    /// Undoes what any fault does to a node, also one that was interrupted; a node that is whole stays as it is.
    pub async fn undo_faults(&self, number: usize) -> Result<()> {
        let node = self.node(number);
        node.heal().await?;
        node.clear_slow().await?;
        for packets in [SENDS, HEARS] {
            // Fails if there is no such rule.
            let _ = self.firewall(number, "-D", packets).await;
        }
        self.disk_is_emptied(number).await?;
        if node.is_running("consul").await {
            node.resume_consul().await?;
        } else {
            node.start_consul().await?;
        }
        if node.is_running("dockerd").await {
            node.resume_engine().await?;
        } else {
            node.start_engine().await?;
        }
        // Fails if swarm has not started the agent again.
        let _ = node.resume_container("swarmkeeper_").await;
        Ok(())
    }

    /// Engines and Consul answer on every node.
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
