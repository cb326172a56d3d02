//! What a lab may have left on a machine. Things of the same kinds that are somebody else's are not looked at.

use anyhow::{Context, Result, ensure};
use swarmkeeper_lab::layout::{CGROUP, Layout, NODES};
use tokio::process::Command;

/// What the names of the lab's network devices begin with.
const DEVICES: &str = "sklab";

/// Fails with what is there.
pub(crate) async fn expect_none() -> Result<()> {
    let found = find().await?;
    ensure!(found.is_empty(), "left behind: {found:#?}");
    Ok(())
}

async fn find() -> Result<Vec<String>> {
    let dir = Layout::new(None).dir().display().to_string();
    let mut found = Vec::new();
    for netns in names("/run/netns") {
        if NODES.iter().any(|node| node.netns == netns) {
            found.push(format!("network namespace {netns}"));
        }
    }
    for device in names("/sys/class/net").into_iter().filter(|device| device.starts_with(DEVICES)) {
        found.push(format!("network device {device}"));
    }
    let rules = Command::new("iptables").args(["-w", "-S"]).output().await.context("cannot list iptables' rules")?;
    for rule in String::from_utf8_lossy(&rules.stdout).lines().filter(|rule| rule.contains(DEVICES)) {
        found.push(format!("rule {rule}"));
    }
    for (pid, command) in processes() {
        // Whoever lives in a lab machine, or in a container there, has mounts out of the lab's folder.
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        if mounts.contains(&dir) || command.contains("lab-init") || command.contains("lab-teardown") {
            found.push(format!("process {pid}: {command}"));
        }
    }
    for mount in std::fs::read_to_string("/proc/self/mounts")?.lines().filter(|mount| mount.contains(&dir)) {
        found.push(format!("mount {mount}"));
    }
    let hierarchies = names("/sys/fs/cgroup").into_iter().map(|name| format!("/sys/fs/cgroup/{name}/{CGROUP}"));
    for path in hierarchies.chain([format!("/sys/fs/cgroup/{CGROUP}"), dir]) {
        if std::path::Path::new(&path).exists() {
            found.push(path);
        }
    }
    Ok(found)
}

/// The reaper among a process's children.
pub(crate) fn reaper_of(owner: u32) -> Result<u32> {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok())
    };
    let is_reaper = |(pid, command): &(u32, String)| command.contains("lab-teardown") && parent(*pid) == Some(owner);
    processes().into_iter().find(is_reaper).map(|(pid, _)| pid).context("there is no reaper")
}

fn processes() -> Vec<(u32, String)> {
    let pids = names("/proc").into_iter().filter_map(|name| name.parse().ok());
    let command = |pid: u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = String::from_utf8_lossy(&line).replace('\0', " ");
        Some((pid, words.trim_end().to_owned()))
    };
    pids.filter_map(command).collect()
}

fn names(folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
