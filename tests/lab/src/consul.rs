//! A node's Consul: servers on the managers, a client on the worker.
//!
//! Its API is open to everybody on TCP, until a case has it secured: then what the case configures decides who is spoken to, and the lab
//! itself asks at a socket, with a token.

use crate::http::{Via, poll};
use crate::layout::{CONSUL_REAL_PORT, DNS_PORT, NODES, NodeSpec, Role};
use crate::machine::Machine;
use anyhow::{Context, Result, bail};
use hyper::Request;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DAEMON: &str = "consul";
const LEADER_SECONDS_MAX: u64 = 40;
const STOP_SECONDS_MAX: u64 = 20;

/// Further configuration of a secured agent, and the lab's token for it, in the node's folder.
const SECURED: [&str; 2] = ["consul-secured.hcl", "consul-token"];

/// How a node's Consul is secured.
#[derive(Clone)]
pub struct Secured {
    /// Further configuration, as HCL. The API without TLS is to be at [`Secured::SOCKET`].
    pub config: String,
    /// A token that may do everything.
    pub token: String,
}

impl Secured {
    /// Where the lab goes on asking, as seen on the node.
    pub const SOCKET: &str = "/run/consul/consul.sock";
}

/// Has the agent be secured from its next start on, or open.
pub(crate) fn secure(machine: &Machine, secured: Option<&Secured>) -> Result<()> {
    let [config, token] = SECURED.map(|name| machine.dir.join(name));
    if let Some(secured) = secured {
        std::fs::create_dir_all(socket(machine).parent().context("the socket's folder")?)?;
        std::fs::write(config, &secured.config)?;
        std::fs::write(token, &secured.token)?;
    } else {
        for path in [config, token].iter().filter(|path| path.exists()) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The lab's token; none where everybody may do everything.
pub(crate) fn token(machine: &Machine) -> Option<String> {
    let [_, token] = SECURED;
    std::fs::read_to_string(machine.dir.join(token)).ok()
}

/// The socket from outside the node.
fn socket(machine: &Machine) -> PathBuf {
    machine.run_dir().join(Secured::SOCKET.trim_start_matches("/run/"))
}

/// The unrecorded HTTP API, from within the node: it answers there even when the cable is pulled.
pub(crate) fn via(machine: &Machine, node: &NodeSpec) -> Via {
    match token(machine) {
        Some(_) => Via::Unix(socket(machine)),
        None => Via::Netns(node.netns, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), CONSUL_REAL_PORT)),
    }
}

/// Starts the agent. It is ready when [`wait_for_leader`] says so.
pub(crate) async fn start(machine: &Machine, node: &NodeSpec, binary: &Path) -> Result<()> {
    let servers: Vec<String> =
        NODES.iter().filter(|node| node.role == Role::Manager).map(|node| node.address().to_string()).collect();
    let mut settings = serde_json::json!({
        "node_name": node.name,
        "data_dir": machine.dir.join("consul"),
        "bind_addr": node.address(),
        "client_addr": format!("127.0.0.1 {}", node.address()),
        "ports": { "http": CONSUL_REAL_PORT, "dns": DNS_PORT },
        "retry_join": servers,
        "retry_interval": "1s",
        // Elections as quick as on a production cluster that follows Consul's advice.
        "performance": { "raft_multiplier": 1 },
        "disable_update_check": true,
        "log_level": "INFO",
    });
    if node.role == Role::Manager {
        settings["server"] = true.into();
        settings["bootstrap_expect"] = servers.len().into();
    }
    let config = machine.dir.join("consul.json");
    std::fs::write(&config, settings.to_string())?;
    let [secured, _] = SECURED.map(|name| machine.dir.join(name));
    let (binary, config, secured) = (binary.to_string_lossy(), config.to_string_lossy(), secured.display().to_string());
    let mut words = vec![&*binary, "agent", "-ui", "-config-file", &config];
    if token(machine).is_some() {
        words.extend(["-config-file", &secured]);
    }
    machine.start(DAEMON, &words).await
}

/// Waits until the agent knows a leader.
pub(crate) async fn wait_for_leader(machine: &Machine, node: &NodeSpec) -> Result<()> {
    let end = tokio::time::Instant::now() + Duration::from_secs(LEADER_SECONDS_MAX);
    loop {
        // Without a leader the answer is an empty JSON string.
        if let Some(answer) = poll(&via(machine, node), Request::get("/v1/status/leader")).await
            && answer.body().len() > 2
        {
            return Ok(());
        }
        if tokio::time::Instant::now() > end {
            bail!(
                "Consul of {} knows no leader after {LEADER_SECONDS_MAX} s:\n{}",
                node.name,
                machine.log_end(DAEMON).await
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Ends the agent in order: a client leaves the cluster, a server does not.
pub(crate) async fn stop(machine: &Machine) -> Result<()> {
    machine.signal(DAEMON, "TERM").await?;
    machine.wait_for_end(DAEMON, STOP_SECONDS_MAX).await
}

/// Kills the agent.
pub(crate) async fn kill(machine: &Machine) -> Result<()> {
    machine.signal(DAEMON, "KILL").await?;
    machine.wait_for_end(DAEMON, STOP_SECONDS_MAX).await
}

/// Freezes or thaws the agent.
pub(crate) async fn signal(machine: &Machine, signal: &str) -> Result<()> {
    machine.signal(DAEMON, signal).await
}
