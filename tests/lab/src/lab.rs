//! Bringing the lab up, and holding it.

use crate::background::Background;
use crate::consul::Secured;
use crate::generation::Engine;
use crate::git::{self, GitServer, Repo};
use crate::image::Busybox;
use crate::layout::{CGROUP, Layout, NODES};
use crate::machine::Machine;
use crate::net::{self, Slow};
use crate::node::Node;
use crate::record::{Mark, Record, Recorded};
use crate::recorder::Streams;
use crate::registry::{self, Registry};
use crate::state::{Made, Owner, Ownership, note};
use crate::{consul, engine, install, recorder};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Between two tries of [`Lab::eventually`].
const RETRY: Duration = Duration::from_millis(200);

/// Hears of each step.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// How to bring the lab up.
#[derive(Clone)]
pub struct Options {
    /// The folder; else `LAB_DIR`, else `/var/tmp/swarmkeeper-lab`.
    pub dir: Option<PathBuf>,
    /// Install missing packages (else: refuse, and say which).
    pub install: bool,
    /// What the nodes ask for names.
    pub dns: Dns,
    /// The engine's generation; else what `LAB_ENGINE` names, else the machine's own.
    pub engine: Option<Engine>,
    /// Hears of each step. By default lines on standard error.
    pub say: Say,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            install: true,
            dns: Dns::default(),
            engine: None,
            say: Arc::new(|step| eprintln!("lab: {step}")),
        }
    }
}

/// What stands in the nodes' `resolv.conf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dns {
    /// A resolver that refuses at once. One that drops packets would cost engines half a minute a task.
    #[default]
    Refusing,
    /// The node's Consul, on port 53 of the node's address: knows `*.consul`, and refuses the rest.
    Consul,
}

/// A running lab. When the one from [`Lab::up`] is dropped, the lab goes down.
#[derive(Debug)]
pub struct Lab {
    layout: Layout,
    nodes: [Node; 4],
    registry: Registry,
    git: GitServer,
    record: Record,
    held: Option<Held>,
}

/// What only the owner has. Fields are dropped in this order: listeners in the nodes' networks before the networks.
#[derive(Debug)]
struct Held {
    /// By node.
    streams: Vec<Streams>,
    background: Vec<Background>,
    ownership: Ownership,
}

impl Lab {
    /// Brings a lab up. It needs root; there can be one on a machine.
    pub async fn up(options: Options) -> Result<Self> {
        let say = &*options.say;
        let engine = options.engine.map_or_else(Engine::from_environment, Ok)?;
        if options.install {
            install::install(engine, say).await?;
        } else {
            install::check(engine)?;
        }
        let layout = Layout::new(options.dir.clone());
        check_socket_length(&layout)?;
        let mut held = Held { streams: Vec::new(), background: Vec::new(), ownership: Ownership::take(&layout).await? };
        engine.note(&layout)?;
        let lab = Self::describe(&layout).await?;
        match Box::pin(lab.bring_up(&options, &mut held)).await {
            Ok(()) => Ok(Self { held: Some(held), ..lab }),
            Err(error) => {
                // Removing it takes a while, and must not take the caller's runtime.
                tokio::task::spawn_blocking(move || drop(held)).await?;
                Err(error)
            }
        }
    }

    /// Joins the lab that somebody else holds: all of its functions but going down.
    pub async fn attach() -> Result<Self> {
        let owner = Owner::noted().filter(|owner| owner.process.lives());
        let owner = owner.context("there is no lab; start one with `lab up`")?;
        let layout = Layout::new(Some(owner.dir));
        if !layout.ready().exists() {
            bail!("the lab in {} is not up yet (or not any more)", layout.dir().display());
        }
        Self::describe(&layout).await
    }

    /// Takes it all down. Nothing happens for a lab that was only attached to.
    pub async fn down(mut self) -> Result<()> {
        let Some(held) = self.held.take() else { return Ok(()) };
        tokio::task::spawn_blocking(move || {
            let Held { background, mut ownership, .. } = held;
            drop(background);
            ownership.end()
        })
        .await?
    }

    /// A node, 1 to 4; others are none.
    ///
    /// # Panics
    ///
    /// For another number.
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node; 4] {
        &self.nodes
    }

    /// The node of this name.
    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name() == name)
    }

    /// The engines' release, such as `20.10.24`.
    pub async fn engine_version(&self) -> Result<String> {
        let [first, ..] = &self.nodes;
        first.docker(["version", "--format", "{{.Server.Version}}"]).await
    }

    /// The registry and its mirror.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The git server.
    pub fn git(&self) -> &GitServer {
        &self.git
    }

    /// A git repository, made on first use.
    pub async fn repo(&self, name: &str) -> Result<Repo> {
        self.git.repo(name).await
    }

    /// What the recorders wrote.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// All writes, to engines and Consul, since a mark; signs of life excluded.
    pub fn writes(&self, since: Mark) -> Result<Vec<Recorded>> {
        self.record.writes(since)
    }

    /// The lab's folder and files.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Pulls a node's cable.
    pub async fn partition(&self, node: usize) -> Result<()> {
        self.node(node).partition().await
    }

    /// Plugs it in again.
    pub async fn heal(&self, node: usize) -> Result<()> {
        self.node(node).heal().await
    }

    /// Slows a node's cable down.
    pub async fn slow(&self, node: usize, slow: Slow) -> Result<()> {
        self.node(node).slow(slow).await
    }

    /// Drops a node's streams and nothing else: the engine's events, and blocking queries to Consul that wait for news.
    pub fn drop_streams(&self, node: usize) -> Result<()> {
        let streams = self.held.as_ref().and_then(|held| held.streams.get(node - 1));
        streams.context("only who holds the lab can drop streams")?.drop_all();
        Ok(())
    }

    /// Restarts every node's Consul, secured as `secured` says for it, or open where that is none.
    ///
    /// All at once, because those of one kind do not speak to the others; and killed, because a client that ends in order leaves the
    /// cluster.
    pub async fn secure_consul(&self, secured: impl Fn(&Node) -> Option<Secured>) -> Result<()> {
        for node in &self.nodes {
            node.kill_consul().await?;
            consul::secure(&node.machine, secured(node).as_ref())?;
        }
        for node in &self.nodes {
            node.launch_consul().await?;
        }
        for node in &self.nodes {
            consul::wait_for_leader(&node.machine, &node.spec).await?;
        }
        Ok(())
    }

    /// Full speed again.
    pub async fn clear_slow(&self, node: usize) -> Result<()> {
        self.node(node).clear_slow().await
    }

    /// Tries until it succeeds; after `timeout`, fails with the last error.
    pub async fn eventually<T>(&self, timeout: Duration, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let start = tokio::time::Instant::now();
        let mut last = None;
        let mut tries = 0;
        while start.elapsed() < timeout {
            tries += 1;
            match tokio::time::timeout(timeout.saturating_sub(start.elapsed()), attempt()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => last = Some(error),
                Err(_) if last.is_none() => last = Some(anyhow::anyhow!("the attempt did not end")),
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
        let last = last.unwrap_or_else(|| anyhow::anyhow!("there was no time for an attempt"));
        Err(last.context(format!("not within {} ({tries} tries)", humantime::format_duration(timeout))))
    }

    async fn describe(layout: &Layout) -> Result<Self> {
        let nodes = NODES.map(|spec| Node::new(layout, spec));
        let host = Machine { name: "lab-host", dir: layout.host(), netns: None, layout: layout.clone() };
        let [_, _, _, worker] = &nodes;
        Ok(Self {
            registry: Registry { machine: host.clone(), busybox: Busybox::read().await?, builder: worker.clone() },
            git: GitServer { machine: host, layout: layout.clone() },
            record: Record::new(layout.record()),
            layout: layout.clone(),
            nodes,
            held: None,
        })
    }

    async fn bring_up(&self, options: &Options, held: &mut Held) -> Result<()> {
        let say = &*options.say;
        say("wiring the network");
        note(&self.layout, &Made::Cgroup(CGROUP.to_owned()))?;
        net::up(&self.layout).await?;
        say("starting registries, git server and four nodes");
        for node in NODES {
            let (recorder, streams) = recorder::start(&self.layout, node)?;
            held.background.push(recorder);
            held.streams.push(streams);
        }
        let host = async {
            let machine = &self.git.machine;
            std::fs::create_dir_all(&machine.dir)?;
            std::fs::write(machine.dir.join("resolv.conf"), "nameserver 127.0.0.1\n")?;
            git::write_users(machine)?;
            machine.boot().await?;
            let ((), git) = tokio::try_join!(registry::up(&self.layout, machine), git::up(&self.layout, machine))?;
            anyhow::Ok(git)
        };
        let [m1, m2, m3, w1] = &self.nodes;
        let nodes =
            async { tokio::try_join!(start(m1, options), start(m2, options), start(m3, options), start(w1, options)) };
        let (git, _) = tokio::try_join!(host, nodes)?;
        held.background.extend(git);
        say("forming the swarm, electing Consul's leader");
        let consul = async {
            for node in &self.nodes {
                consul::wait_for_leader(&node.machine, &node.spec).await?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(self.form_swarm(), consul)?;
        std::fs::write(self.layout.ready(), "")?;
        say(&format!("up, with engine {}", self.engine_version().await?));
        Ok(())
    }

    async fn form_swarm(&self) -> Result<()> {
        let [first, others @ ..] = &self.nodes;
        let words = |verb: &str, node: &Node| {
            let mut words = vec!["swarm".to_owned(), verb.to_owned()];
            words.extend(engine::advertise(node.address()));
            words
        };
        first.docker(words("init", first)).await?;
        for node in others {
            let role = if node.is_manager() { "manager" } else { "worker" };
            let token = first.docker(["swarm", "join-token", "--quiet", role]).await?;
            let mut words = words("join", node);
            words.extend(["--token".to_owned(), token, format!("{}:2377", first.address())]);
            node.docker(words).await.with_context(|| format!("{} cannot join the swarm", node.name()))?;
        }
        self.eventually(Duration::from_secs(30), async || {
            let states = first.docker(["node", "ls", "--format", "{{.Hostname}} {{.Status}}"]).await?;
            if states.lines().filter(|line| line.ends_with(" Ready")).count() == NODES.len() {
                Ok(())
            } else {
                bail!("not all nodes are ready:\n{states}")
            }
        })
        .await
    }
}

async fn start(node: &Node, options: &Options) -> Result<()> {
    let name_server = match options.dns {
        Dns::Refusing => "127.0.0.1".to_owned(),
        Dns::Consul => node.address().to_string(),
    };
    std::fs::create_dir_all(node.dir())?;
    std::fs::write(node.dir().join("resolv.conf"), format!("nameserver {name_server}\n"))?;
    if options.dns == Dns::Consul {
        redirect_dns(node).await?;
    }
    node.machine.boot().await?;
    node.launch_consul().await?;
    node.start_engine().await
}

/// Lets Consul answer on port 53, where a `resolv.conf` looks; containers, which come from other interfaces, included.
async fn redirect_dns(node: &Node) -> Result<()> {
    let address = node.address().to_string();
    let consul = node.dns_address().to_string();
    for chain in ["PREROUTING", "OUTPUT"] {
        for protocol in ["udp", "tcp"] {
            let queries = ["-d", &address, "-p", protocol, "--dport", "53"];
            let words = ["iptables", "-w", "-t", "nat", "-A", chain].into_iter().chain(queries);
            let words: Vec<&str> = words.chain(["-j", "DNAT", "--to-destination", &consul]).collect();
            node.exec_in_netns(&words).await?;
        }
    }
    Ok(())
}

/// A unix socket's path may have 107 bytes.
fn check_socket_length(layout: &Layout) -> Result<()> {
    let [node, ..] = NODES;
    let socket = layout.node(&node).join("run/docker.sock");
    if socket.as_os_str().len() > 107 {
        bail!("{} is too long a path for a socket; name a shorter folder with LAB_DIR", socket.display());
    }
    Ok(())
}
