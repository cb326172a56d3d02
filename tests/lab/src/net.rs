//! The bridge, the cables and the network namespaces; and their faults.

use crate::command::{output, run};
use crate::layout::{BRIDGE, HOST, Layout, NODES, NodeSpec, SUBNET};
use crate::state::{Made, note};
use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::process::Command;

const CONNECT_SECONDS_MAX: u64 = 5;

/// How a cable is slowed down, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slow {
    /// Kilobits a second.
    pub kilobits: Option<u32>,
    /// Milliseconds added to each packet. Needs the kernel's `netem`.
    pub delay_ms: Option<u32>,
    /// Packets lost, in percent. Needs the kernel's `netem`.
    pub loss_percent: Option<f32>,
}

/// Makes the bridge, and a namespace with a cable to it for every node.
pub(crate) async fn up(layout: &Layout) -> Result<()> {
    refuse_foreign().await?;
    note(layout, &Made::Link(BRIDGE.to_owned()))?;
    for node in NODES {
        note(layout, &Made::Netns(node.netns.to_owned()))?;
        note(layout, &Made::Link(node.veth.to_owned()))?;
        run("ip", ["netns", "add", node.netns])
            .await
            .context("cannot make a network namespace (the kernel needs CONFIG_NET_NS)")?;
    }
    let mut script = format!("link add {BRIDGE} type bridge\naddr add {HOST}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n");
    for node in NODES {
        let NodeSpec { netns, veth, .. } = node;
        for line in [
            format!("link add {veth} type veth peer name eth0 netns {netns}\n"),
            format!("link set {veth} master {BRIDGE} up\n"),
        ] {
            script.push_str(&line);
        }
    }
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    output(command, Some(script.as_bytes()))
        .await
        .context("cannot make the bridge (the kernel needs bridge and veth)")?;
    for node in NODES {
        let mut command = Command::new("ip");
        command.args(["-n", node.netns, "-batch", "-"]);
        let script = format!("link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n", node.address());
        output(command, Some(script.as_bytes())).await?;
    }
    require_vxlan().await?;
    // An engine on the host sets FORWARD to DROP, and bridged packets pass through it.
    let rule = format!("FORWARD -i {BRIDGE} -o {BRIDGE} -j ACCEPT");
    note(layout, &Made::Rule(rule.clone()))?;
    run("iptables", ["-w", "-I"].into_iter().chain(rule.split(' ')))
        .await
        .context("cannot let the bridge's packets through")?;
    Ok(())
}

/// Overlay networks need it, and an engine would only say so when the first task starts.
async fn require_vxlan() -> Result<()> {
    let [node, ..] = NODES;
    let mut command = Command::new("ip");
    command.args(["-n", node.netns, "-batch", "-"]);
    let script = "link add probe type vxlan id 1 dstport 4789\nlink delete probe\n";
    let made = output(command, Some(script.as_bytes())).await;
    made.map(drop).context("cannot make a VXLAN device (the kernel needs CONFIG_VXLAN)")
}

/// Fails if the bridge's address would not be ours alone at this port: some listen on all of a machine's addresses.
pub(crate) async fn require_free(port: u16) -> Result<()> {
    let bound = tokio::net::TcpListener::bind((HOST, port)).await;
    bound
        .map(drop)
        .with_context(|| format!("port {port} is taken by another program of this machine; `ss -ltnp` names it"))
}

/// The names and the network must be free: what is there is somebody else's.
async fn refuse_foreign() -> Result<()> {
    for node in NODES {
        if std::path::Path::new("/run/netns").join(node.netns).exists() {
            bail!(
                "there is a network namespace {} that is not the lab's; remove it with `ip netns delete {0}`",
                node.netns
            );
        }
    }
    let routes = run("ip", ["-4", "route", "show", "root", SUBNET, "table", "all"]).await?;
    if !routes.trim().is_empty() {
        bail!("the lab needs the network {SUBNET}, and this machine uses it: {}", routes.trim());
    }
    Ok(())
}

/// Pulls the cable.
pub(crate) async fn partition(node: &NodeSpec) -> Result<()> {
    run("ip", ["link", "set", node.veth, "down"]).await.map(drop)
}

/// Plugs it in again.
pub(crate) async fn heal(node: &NodeSpec) -> Result<()> {
    run("ip", ["link", "set", node.veth, "up"]).await.map(drop)
}

/// Slows the cable down; a second call replaces the first.
pub(crate) async fn slow(node: &NodeSpec, slow: Slow) -> Result<()> {
    let discipline = discipline(slow);
    for end in both_ends(node) {
        let words = end.iter().copied().chain(["root"]).chain(discipline.split(' '));
        run("tc", tc_words("replace", words)).await.with_context(|| {
            if discipline.starts_with("netem") {
                "cannot delay or lose packets (the kernel needs CONFIG_NET_SCH_NETEM; a rate alone does not)"
            } else {
                "cannot limit the rate (the kernel needs CONFIG_NET_SCH_TBF)"
            }
        })?;
    }
    Ok(())
}

/// Full speed again.
pub(crate) async fn clear(node: &NodeSpec) -> Result<()> {
    for end in both_ends(node) {
        // Fails when the cable never was slow, which is what was asked for.
        let _ = run("tc", tc_words("delete", end.iter().copied().chain(["root"]))).await;
    }
    Ok(())
}

fn discipline(slow: Slow) -> String {
    if slow.delay_ms.is_none() && slow.loss_percent.is_none() {
        return format!("tbf rate {}kbit burst 64kb latency 400ms", slow.kilobits.unwrap_or(1_000_000));
    }
    let delay = slow.delay_ms.map(|delay| format!(" delay {delay}ms"));
    let loss = slow.loss_percent.map(|loss| format!(" loss {loss}%"));
    let rate = slow.kilobits.map(|kilobits| format!(" rate {kilobits}kbit"));
    ["netem".to_owned()].into_iter().chain(delay).chain(loss).chain(rate).collect()
}

/// The words that name the cable's two ends to `tc`: namespace options first.
fn both_ends(node: &NodeSpec) -> [Vec<&'static str>; 2] {
    [vec!["dev", node.veth], vec!["-n", node.netns, "dev", "eth0"]]
}

/// `tc [-n NETNS] qdisc VERB dev …`.
fn tc_words<'a>(verb: &'a str, words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        ["-n", netns, rest @ ..] => ["-n", netns, "qdisc", verb].into_iter().chain(rest.iter().copied()).collect(),
        rest => ["qdisc", verb].into_iter().chain(rest.iter().copied()).collect(),
    }
}

/// Moves the calling thread into a network namespace, for good: sockets that it makes belong there.
pub(crate) fn enter(netns: &str) -> Result<()> {
    let path = format!("/run/netns/{netns}");
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter {path}"))
}

/// Connects from within a network namespace, so also to a node whose cable is pulled.
pub(crate) async fn connect(netns: &'static str, address: SocketAddr) -> Result<tokio::net::TcpStream> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let connect = || -> Result<TcpStream> {
            enter(netns)?;
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(CONNECT_SECONDS_MAX))
                .with_context(|| format!("cannot connect to {address} in {netns}"))?;
            stream.set_nonblocking(true)?;
            Ok(stream)
        };
        // Nobody waits any more: then nobody wants the connection.
        let _ = sender.send(connect());
    });
    Ok(tokio::net::TcpStream::from_std(receiver.await??)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_alone_needs_no_netem() {
        let rate = Slow { kilobits: Some(512), ..Slow::default() };
        assert_eq!(discipline(rate), "tbf rate 512kbit burst 64kb latency 400ms");
        let lossy = Slow { delay_ms: Some(20), loss_percent: Some(1.5), kilobits: Some(9) };
        assert_eq!(discipline(lossy), "netem delay 20ms loss 1.5% rate 9kbit");
    }

    #[test]
    fn the_namespace_goes_before_the_object() {
        let words = ["-n", "n1", "dev", "eth0", "root"].into_iter();
        assert_eq!(tc_words("delete", words), ["-n", "n1", "qdisc", "delete", "dev", "eth0", "root"]);
    }
}
