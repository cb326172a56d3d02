//! The names, numbers and folders that the lab's parts agree on.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The bridge that joins the nodes.
pub const BRIDGE: &str = "sklab0";
/// The lab's network, which engines use for insecure registries.
pub const SUBNET: &str = "10.77.0.0/24";
/// The host's address on the bridge: registries and the git server listen here and nowhere else.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// The origin registry, with basic auth.
pub const ORIGIN_PORT: u16 = 5000;
/// The pull-through mirror of the origin, without auth.
pub const MIRROR_PORT: u16 = 5001;
/// Where the mirror reads the origin.
pub const UPSTREAM_PORT: u16 = 5002;
/// Git over ssh.
pub const SSH_PORT: u16 = 2222;
/// Git over HTTP.
pub const GIT_HTTP_PORT: u16 = 8088;
/// Git over HTTPS, with a certificate of a CA of the lab's own.
pub const GIT_HTTPS_PORT: u16 = 8443;
/// Where agents find their Consul, which is the recorder.
pub const CONSUL_PORT: u16 = 8500;
/// Where the real Consul answers, unrecorded.
pub const CONSUL_REAL_PORT: u16 = 8510;
/// Consul's DNS.
pub const DNS_PORT: u16 = 8600;
/// Everything the engines' containers run in lives below this control group.
pub const CGROUP: &str = "swarmkeeper-lab";
/// The user of the registry, of git over HTTP with auth, and of nothing else.
pub const USER: &str = "lab";
/// [`USER`]'s password. A test's password: it protects an address that only this machine can reach.
pub const PASSWORD: &str = "lab-password";

const DEFAULT_DIR: &str = "/var/tmp/swarmkeeper-lab";
/// Says that a folder was made by the lab, and so may be removed by it.
pub(crate) const MARKER: &str = ".swarmkeeper-lab";

/// What a node does in the swarm and in Consul.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A manager of the swarm and a Consul server.
    Manager,
    /// A worker of the swarm and a Consul client.
    Worker,
}

/// A node's fixed facts.
#[derive(Debug, Clone, Copy)]
pub struct NodeSpec {
    /// 1 to 4.
    pub number: u8,
    /// The host name: `m1`, `m2`, `m3`, `w1`.
    pub name: &'static str,
    /// The network namespace: `n1` to `n4`.
    pub netns: &'static str,
    /// The host's end of the node's cable.
    pub veth: &'static str,
    /// Manager or worker.
    pub role: Role,
}

impl NodeSpec {
    /// `10.77.0.<number>`.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number)
    }
}

/// The four nodes.
pub const NODES: [NodeSpec; 4] = [
    NodeSpec { number: 1, name: "m1", netns: "n1", veth: "sklab-v1", role: Role::Manager },
    NodeSpec { number: 2, name: "m2", netns: "n2", veth: "sklab-v2", role: Role::Manager },
    NodeSpec { number: 3, name: "m3", netns: "n3", veth: "sklab-v3", role: Role::Manager },
    NodeSpec { number: 4, name: "w1", netns: "n4", veth: "sklab-v4", role: Role::Worker },
];

/// The lab's folder and what lies where in it.
#[derive(Debug, Clone)]
pub struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// A lab in `dir`, or in `LAB_DIR`, or in the default folder.
    pub fn new(dir: Option<PathBuf>) -> Self {
        let dir = dir.or_else(|| std::env::var_os("LAB_DIR").map(PathBuf::from)).unwrap_or_else(|| DEFAULT_DIR.into());
        Self { dir: std::path::absolute(&dir).unwrap_or(dir) }
    }

    /// The root of it all.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the lab has made so far, for the teardown.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub(crate) fn marker(&self) -> PathBuf {
        self.dir.join(MARKER)
    }

    /// Exists once everything is up.
    pub(crate) fn ready(&self) -> PathBuf {
        self.dir.join("ready")
    }

    /// A node's folder, named after its network namespace.
    pub fn node(&self, node: &NodeSpec) -> PathBuf {
        self.dir.join(node.netns)
    }

    /// The folder of the machine that the registries and sshd run on.
    pub fn host(&self) -> PathBuf {
        self.dir.join("host")
    }

    /// Which generation of the engine the nodes run.
    pub(crate) fn engine(&self) -> PathBuf {
        self.dir.join("engine")
    }

    /// The recorder's lines.
    pub fn record(&self) -> PathBuf {
        self.dir.join("recorded.jsonl")
    }

    /// The folder for `DOCKER_CONFIG`, with the origin's credentials.
    pub fn docker_config(&self) -> PathBuf {
        self.dir.join("docker-config")
    }

    /// Bare repositories, keys and the server's mode.
    pub fn git(&self) -> PathBuf {
        self.dir.join("git")
    }
}
