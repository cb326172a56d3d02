//! Consul and its DNS.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use hickory_resolver::Resolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use serde_json::Value;
use time::OffsetDateTime;

use super::{World, seconds};

impl World {
    pub async fn consul_service(&self, node: usize, name: &str) -> Result<Value> {
        self.eventually(&format!("{name} is in Consul"), seconds(5), async || {
            let found = self.node(node).consul_get(&format!("/v1/catalog/service/{name}")).await?;
            found.get(0).cloned().ok_or_else(|| anyhow!("not there"))
        })
        .await
    }

    /// The addresses that Consul's DNS on `node` gives for `name` become `wanted`.
    pub async fn dns_answers(&self, node: usize, name: &str, wanted: &[&str], timeout: Duration) -> Result<()> {
        let wanted: BTreeSet<String> = wanted.iter().map(|&address| address.to_owned()).collect();
        self.eventually(&format!("{name} is {wanted:?} in DNS"), timeout, async || {
            let found = lookup(self.node(node).dns_address(), name).await?;
            ensure!(found == wanted, "it is {found:?}");
            Ok(())
        })
        .await
    }

    /// The places (`address:port`) that Consul's DNS on `node` gives for `name` become `wanted`.
    pub async fn dns_gives_places(&self, node: usize, name: &str, wanted: &[String], timeout: Duration) -> Result<()> {
        let wanted: BTreeSet<String> = wanted.iter().cloned().collect();
        self.eventually(&format!("{name} is at {wanted:?} by DNS"), timeout, async || {
            let found = places(self.node(node).dns_address(), name).await?;
            ensure!(found == wanted, "it is at {found:?}");
            Ok(())
        })
        .await
    }

    /// When a service's maintenance was first seen at `node`'s Consul agent.
    pub async fn maintenance_begins(&self, node: usize, id: &str, timeout: Duration) -> Result<OffsetDateTime> {
        let began = std::time::Instant::now();
        let check = format!("_service_maintenance:{id}");
        while began.elapsed() < timeout {
            if self.node(node).consul_get("/v1/agent/checks").await?.get(&check).is_some() {
                return Ok(OffsetDateTime::now_utc());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(anyhow!("{id} is not in maintenance after {timeout:?}"))
    }

    pub async fn register_by_hand(&self, node: usize, name: &str, address: &str, port: u16) -> Result<()> {
        let body = serde_json::json!({"ID": name, "Name": name, "Address": address, "Port": port}).to_string();
        self.node(node).consul_put("/v1/agent/service/register", body).await.map(drop)
    }

    pub async fn deregister_by_hand(&self, node: usize, name: &str) -> Result<()> {
        self.node(node).consul_put(&format!("/v1/agent/service/deregister/{name}"), "").await.map(drop)
    }

    pub async fn wipe_consul_kv(&self) -> Result<()> {
        self.node(1).consul_delete("/v1/kv/?recurse").await
    }

    pub async fn restart_consul(&self, node: usize) -> Result<()> {
        self.node(node).restart_consul().await
    }

    pub async fn restart_engine(&self, node: usize) -> Result<()> {
        self.node(node).restart_engine().await
    }

    pub async fn kill_engine(&self, node: usize) -> Result<()> {
        self.node(node).kill_engine().await
    }

    pub async fn start_engine(&self, node: usize) -> Result<()> {
        self.node(node).start_engine().await
    }

    pub async fn partition(&self, node: usize) -> Result<()> {
        self.node(node).partition().await
    }

    pub async fn heal(&self, node: usize) -> Result<()> {
        self.node(node).heal().await
    }

    /// Every running container with a published port is in its node's Consul, and nothing of ours that does not run.
    pub async fn everything_running_is_registered(&self, timeout: Duration) -> Result<()> {
        self.eventually("what runs is what is registered", timeout, async || {
            for node in 1..=4 {
                let running = self.node(node).docker(["ps", "--no-trunc", "--format", "{{.ID}} {{.Ports}}"]).await?;
                let running: BTreeSet<&str> = running
                    .lines()
                    .filter(|line| line.contains("->"))
                    .filter_map(|line| line.split(' ').next())
                    .collect();
                let services = self.node(node).consul_get("/v1/agent/services").await?;
                let registered: BTreeSet<&str> = services
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(_, service)| service["Meta"]["sk-owner"].is_string())
                    .filter_map(|(_, service)| service["Meta"]["sk-container"].as_str())
                    .collect();
                ensure!(
                    running.len() == registered.len()
                        && running.iter().all(|id| registered.iter().any(|short| id.starts_with(short))),
                    "on node {node} {running:?} run and {registered:?} are registered"
                );
            }
            Ok(())
        })
        .await
    }
    /// Neither a key of ours nor a registration is left.
    pub async fn nothing_of_ours_in_consul(&self, timeout: Duration) -> Result<()> {
        self.eventually("nothing of ours is in Consul", timeout, async || {
            let request = hyper::Request::get("/v1/kv/swarmkeeper/?keys").body(http_body_util::Full::default())?;
            let answer = self.node(1).consul(request).await?;
            ensure!(answer.status() == 404, "keys: {}", String::from_utf8_lossy(answer.body()));
            for node in 1..=4 {
                let services = self.node(node).consul_get("/v1/agent/services").await?;
                let ours: Vec<&String> = services
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(_, service)| service["Meta"]["sk-owner"].is_string())
                    .map(|(id, _)| id)
                    .collect();
                ensure!(ours.is_empty(), "on node {node}: {ours:?}");
            }
            Ok(())
        })
        .await
    }

    /// The git server refuses everybody, or is itself again.
    pub async fn git_is_up(&self, up: bool) -> Result<()> {
        let git = self.lab.git();
        if up { git.restore().await } else { git.break_with(swarmkeeper_lab::GitFault::Refuse).await }
    }
}

pub(super) async fn lookup(server: SocketAddr, name: &str) -> Result<BTreeSet<String>> {
    match resolver(server)?.ipv4_lookup(format!("{name}.")).await {
        Ok(found) => Ok(found.answers().iter().map(|record| record.data.to_string()).collect()),
        Err(error) if error.is_no_records_found() => Ok(BTreeSet::new()),
        Err(error) => Err(error.into()),
    }
}

/// As a client of SRV records sees it: each target's address, with the port.
async fn places(server: SocketAddr, name: &str) -> Result<BTreeSet<String>> {
    let resolver = resolver(server)?;
    let found = resolver.srv_lookup(format!("{name}.")).await?;
    let mut places = BTreeSet::new();
    for record in found.answers() {
        let RData::SRV(place) = &record.data else { continue };
        for address in lookup(server, place.target.to_utf8().trim_end_matches('.')).await? {
            places.insert(format!("{address}:{}", place.port));
        }
    }
    Ok(places)
}

/// One that asks `server` each time.
fn resolver(server: SocketAddr) -> Result<Resolver<TokioRuntimeProvider>> {
    let mut server_config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut server_config.connections {
        connection.port = server.port();
    }
    let mut options = ResolverOpts::default();
    options.attempts = 1;
    options.timeout = seconds(2);
    options.cache_size = 0;
    let config = ResolverConfig::from_parts(None, vec![], vec![server_config]);
    Ok(Resolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()?)
}
