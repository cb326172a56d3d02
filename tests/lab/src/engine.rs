//! A node's engine: its settings, its start, and the swarm that the engines form.

use crate::generation::Engine;
use crate::http::{Via, poll};
use crate::layout::CGROUP;
use crate::layout::SUBNET;
use crate::machine::Machine;
use anyhow::{Context, Result, bail};
use hyper::Request;
use std::path::PathBuf;
use std::time::Duration;

const DAEMON: &str = "dockerd";
const START_SECONDS_MAX: u64 = 30;
/// An engine gives its containers 10 s each, all at once.
const STOP_SECONDS_MAX: u64 = 40;
const CONTAINERD_SECONDS: u64 = 2;
const CONTAINERD_PID: &str = "/run/docker/containerd/containerd.pid";

/// The unrecorded socket.
pub(crate) fn socket(machine: &Machine) -> PathBuf {
    machine.run_dir().join("engine.sock")
}

/// Starts the engine and waits until it answers.
pub(crate) async fn start(machine: &Machine) -> Result<()> {
    let config = machine.dir.join("daemon.json");
    let settings = serde_json::json!({
        "data-root": machine.dir.join("docker"),
        "exec-root": "/run/docker",
        "hosts": ["unix:///run/engine.sock"],
        "pidfile": "/run/docker.pid",
        "insecure-registries": [SUBNET],
        "cgroup-parent": format!("/{CGROUP}/{}", machine.name),
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    });
    std::fs::write(&config, settings.to_string())?;
    // Numbers are small in a young machine: the one that a killed engine left may be somebody's.
    for stale in ["docker.pid", "docker/containerd/containerd.pid"] {
        let _ = std::fs::remove_file(machine.run_dir().join(stale));
    }
    let mut words = Engine::of(&machine.layout).enter(&machine.layout, &machine.dir);
    words.extend(["dockerd".to_owned(), "--config-file".to_owned(), config.display().to_string()]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    machine.start(DAEMON, &words).await?;
    let answered = tokio::time::timeout(Duration::from_secs(START_SECONDS_MAX), async {
        while !answers(machine).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if !machine.is_running(DAEMON).await {
                return false;
            }
        }
        true
    });
    if !answered.await.unwrap_or(false) {
        bail!("the engine of {} does not start:\n{}", machine.name, machine.log_end(DAEMON).await);
    }
    Ok(())
}

async fn answers(machine: &Machine) -> bool {
    poll(&Via::Unix(socket(machine)), Request::get("/_ping")).await.is_some()
}

/// Ends the engine in order; its containers end with it.
pub(crate) async fn stop(machine: &Machine) -> Result<()> {
    machine.signal(DAEMON, "TERM").await?;
    machine.wait_for_end(DAEMON, STOP_SECONDS_MAX).await
}

/// Kills the engine and its containerd. Containers go on, until the engine is started again and ends them.
pub(crate) async fn kill(machine: &Machine) -> Result<()> {
    machine.signal(DAEMON, "KILL").await?;
    machine.wait_for_end(DAEMON, STOP_SECONDS_MAX).await?;
    // An engine that starts beside the old containerd fails in odd ways.
    let end = tokio::time::Instant::now() + Duration::from_secs(CONTAINERD_SECONDS);
    while machine.pid_lives(CONTAINERD_PID).await {
        if tokio::time::Instant::now() > end {
            machine.run(&["sh", "-c", &format!("kill -KILL $(cat {CONTAINERD_PID})")]).await?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Freezes or thaws the engine.
pub(crate) async fn signal(machine: &Machine, signal: &str) -> Result<()> {
    machine.signal(DAEMON, signal).await
}

/// The words that tell a swarm where a node is, for `init` and `join` alike.
pub(crate) fn advertise(address: std::net::Ipv4Addr) -> [String; 4] {
    ["--advertise-addr".into(), address.to_string(), "--listen-addr".into(), format!("{address}:2377")]
}

/// The number of a container's main process inside the machine, out of what `docker inspect` printed.
pub(crate) fn container_pid(inspected: &str) -> Result<u32> {
    let pid = inspected.trim().parse().with_context(|| format!("no process number: {inspected}"))?;
    if pid == 0 {
        bail!("the container does not run");
    }
    Ok(pid)
}
