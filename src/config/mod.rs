//! What an operator sets: flags > environment > file, each value read once, all mistakes reported at once.
//!
//! ```text
//! flags, environment, file → Layer (texts with their places) → Value (by the setting's kind) → Config
//! ```
//!
//! The settings are one table, [`settings::SETTINGS`]; the README shows it, and a test compares the two. A key or variable
//! that is nobody's is a mistake with the nearest known one. What only some nodes need is asked for by who
//! needs it: a worker's agent has no git settings, and [`Config::require_git`] is for managers.
//!
//! `policy:` is a map of its own and stands in the file only, see [`crate::policy`].
//!
//! Only this module reads the environment. Nothing here is ever printed with a secret in it: secrets are [`Sensitive`], and a
//! message about a secret does not quote it.

mod build;
mod legacy;
pub mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::io::consul;
use crate::model::{Finding, Findings, Location, Sensitive, StackName};
use crate::policy::Permissions;
use crate::yaml::{self, Field, Problems};

use sources::{Layer, Notes, Raw};

pub use settings::{config_table, help_text};

/// Looked for in this order when neither `--config` nor a variable names a file.
pub const DEFAULT_FILES: &[&str] =
    &["swarmkeeper.yml", "/etc/swarmkeeper.yml", "/run/secrets/swarmkeeper.yml", "/etc/swarm-sync.yml"];

/// The file's key for [`Permissions`]: no setting of the table, since it is a map and stands in the file only.
pub const POLICY_KEY: &str = "policy";

/// The variable that names the file.
pub const FILE_VARIABLE: &str = "SWARMKEEPER_CONFIG";

/// Larger files are refused: none of ours, and no secret of docker's (500 KB), comes near.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// What an operator set, validated.
#[derive(Debug, Clone)]
pub struct Config {
    /// This swarm's name in Consul.
    pub cluster: String,
    /// Whether this agent may lead.
    pub role: Role,
    /// The Config Repo; none without a URL.
    pub git: Option<Git>,
    /// How often git is asked without a webhook.
    pub poll_interval: Duration,
    /// Only these stacks; empty means all.
    pub stacks: Vec<StackName>,
    /// What becomes of a stack that disappears from git.
    pub orphans: Orphans,
    /// When a revision waits for a person.
    pub brake: Brake,
    /// What stacks of the Config Repo may do to the nodes.
    pub permissions: Permissions,
    /// The engine: `unix://…`, `tcp://…` or `http://…`.
    pub docker_host: String,
    /// Folder of docker's `config.json`.
    pub docker_config: Option<PathBuf>,
    /// Folder of registry credentials, a file per host.
    pub registries_dir: PathBuf,
    /// The node's own Consul agent.
    pub consul: consul::Options,
    /// True if somebody named Consul's address or token, rather than leave them at their defaults.
    pub consul_is_named: bool,
    /// Where the leader's lock is.
    pub coordination: Coordination,
    /// How soon a lost leader is replaced.
    pub election: Election,
    /// What of this node is registered in Consul.
    pub registration: Registration,
    /// How long a drain waits for clients to leave.
    pub drain_wait: Duration,
    /// When the agent's disk is too full.
    pub disk: Disk,
    /// Where to listen.
    pub bind: Vec<BindAddress>,
    /// Where other keepers reach this one; none: the node's address in the swarm.
    pub advertise: Option<Advertise>,
    /// Opens the API to askers elsewhere.
    pub api_token: Option<Sensitive<String>>,
    /// Whether anybody may ask for health and metrics.
    pub health_is_open: bool,
    /// The API over TLS.
    pub tls: Tls,
    /// Signs webhooks.
    pub webhook_secret: Option<Sensitive<String>>,
    /// URLs that are told when a stack needs a person.
    pub notify: Vec<Sensitive<String>>,
    /// Clones and caches.
    pub state_dir: PathBuf,
    /// How long the step at hand may take at shutdown.
    pub shutdown_grace: Duration,
    /// The agent that commands ask.
    pub agent_url: String,
    /// How much is logged: `trace` … `error`, `off`.
    pub log_level: &'static str,
    /// How it is logged.
    pub log_format: LogFormat,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

/// Whether this agent may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The engine knows.
    Auto,
    /// It may, and then needs the Config Repo.
    Manager,
    /// It never does.
    Worker,
}

/// The Config Repo and how to get at it.
#[derive(Debug, Clone)]
pub struct Git {
    /// Without credentials, so that it may be shown.
    pub url: String,
    /// The branch to follow.
    pub branch: String,
    /// The folder of the stacks, relative; empty or `.` for the whole repo.
    pub path: String,
    /// For https.
    pub username: Option<String>,
    /// For https.
    pub password: Option<Sensitive<String>>,
    /// For ssh: a private key in PEM, ending in a line break.
    pub ssh_key: Option<Sensitive<String>>,
    /// For ssh: lines of a known_hosts file.
    pub known_hosts: Option<String>,
    /// Refuse a rewritten history.
    pub require_fast_forward: bool,
}

/// What becomes of a stack that disappears from git.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// It is reported and kept.
    Keep,
    /// It is removed, its volumes kept.
    Remove,
}

/// When a revision waits for `approve`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brake {
    /// It removes more services of a stack than this.
    pub removes_max: usize,
    /// It restarts more of a stack's services than this.
    pub restarts_percent_max: u8,
}

/// Where the leader's lock is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordination {
    /// Where the swarm's first agent put it: in Consul if one is configured or answered.
    Auto,
    /// In Consul.
    Consul,
    /// In the swarm itself.
    Swarm,
}

/// How soon a lost leader is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election {
    /// Within 12 s.
    Default,
    /// Within 4 s, at the price of losing the lease to a slow Consul sooner.
    Fast,
    /// Within 16 s, for servers with Consul's default `raft_multiplier` of 5.
    Slow,
}

/// What of this node is registered in Consul.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the operator's")]
pub struct Registration {
    /// Anything at all.
    pub enable: bool,
    /// Every exposed port, at the container's own address.
    pub internal: bool,
    /// Only what has a name.
    pub explicit: bool,
    /// A container's label that holds the address.
    pub ip_from_label: Option<String>,
    /// Tags for every service, a template; may be empty.
    pub tags: String,
    /// Networks to prefer, the first first.
    pub networks: Vec<String>,
    /// True: the services of a stack carry its name in theirs.
    pub stacks_apart: bool,
    /// True: the entry of a container that failed stays.
    pub keep_failed: bool,
    /// True: a container whose agent is gone soon counts as critical, if it has a HEALTHCHECK.
    pub critical_without_agent: bool,
    /// How often everything is compared without an event.
    pub resync: Duration,
}

/// When the agent's disk is too full, in per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// From here on a warning.
    pub warning: u8,
    /// From here on critical.
    pub critical: u8,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindAddress {
    /// On the node's own address and on loopback, this port.
    NodeAndLoopback(u16),
    /// Just here.
    At(SocketAddr),
}

/// Where other keepers reach this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advertise {
    /// The address.
    pub ip: IpAddr,
    /// The port, if not the one it listens on.
    pub port: Option<u16>,
}

/// The API over TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The API's certificate and its key; without them it speaks plain HTTP.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Who shows a certificate of this CA needs no token.
    pub client_ca_file: Option<PathBuf>,
    /// The CA by which keepers and commands trust each other's certificates.
    pub ca_file: Option<PathBuf>,
}

/// How is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What was read, and remarks about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Remarks that stop nothing, such as keys of swarm-sync that have no effect.
    pub warnings: Vec<Finding>,
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// Settings by key, with the flag's name and the value.
    pub settings: BTreeMap<&'static str, (&'static str, String)>,
}

/// All that a configuration depends on.
pub struct Inputs<'a> {
    /// The command line.
    pub flags: &'a Flags,
    /// The environment.
    pub environment: &'a BTreeMap<String, String>,
    /// Reads a file.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// Reads this process' environment and files.
pub fn load(flags: &Flags) -> Result<Loaded, Findings> {
    resolve(&Inputs { flags, environment: &environment(), read: &read_file })
}

/// This process' environment, which `deploy -c` and `plan -c` interpolate as `docker stack deploy` does; the leader never does.
pub fn environment() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// True if `NO_COLOR` asks for none (<https://no-color.org>).
pub fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Everything but reading: the same inputs give the same configuration, or the same mistakes.
pub fn resolve(inputs: &Inputs<'_>) -> Result<Loaded, Findings> {
    let mut notes = Notes::default();
    let file = find_file(inputs, &mut notes);
    let (mut layer, permissions) =
        file.as_ref().map(|(path, text)| read_document(path, text, &mut notes)).unwrap_or_default();
    layer.append(&mut legacy::environment(inputs.environment, &mut notes));
    layer.append(&mut sources::environment(inputs.environment, &mut notes));
    layer.append(&mut flags(inputs.flags));
    let config = build::config(layer, file.map(|(path, _)| path), permissions, inputs, &mut notes);
    if config.role == Role::Manager
        && let Err(missing) = config.require_git()
    {
        notes.mistakes.extend(missing.0);
    }
    if notes.mistakes.is_empty() {
        return Ok(Loaded { config, warnings: notes.warnings });
    }
    notes.mistakes.sort_by(|a, b| a.location.cmp(&b.location));
    notes.mistakes.dedup();
    Err(Findings(notes.mistakes))
}

impl Config {
    /// The Config Repo, or what is missing for reading it; for agents on managers and commands that render stacks.
    pub fn require_git(&self) -> Result<&Git, Findings> {
        let location = self.file.as_ref().map(|file| Location::file(file.display().to_string()));
        let missing = |path: &str, message: &str, mend: &str| {
            let (path, message, mend) = (path.to_owned(), message.to_owned(), mend.to_owned());
            Findings(vec![Finding { location: location.clone(), path, message, mend }])
        };
        let Some(git) = &self.git else {
            let mend = "set `git: {url: …}` in swarmkeeper.yml, or SWARMKEEPER_GIT_URL";
            return Err(missing("git.url", "no Config Repo is configured, and a manager needs one", mend));
        };
        if git.is_ssh() && git.ssh_key.is_none() {
            let mend = "set SWARMKEEPER_GIT_SSH_KEY_FILE to a file with the private key, such as /run/secrets/swarmkeeper-ssh-key";
            return Err(missing("git.ssh_key", &format!("{} is reached over ssh, and there is no key", git.url), mend));
        }
        Ok(git)
    }
}

impl Git {
    /// True if the repo is reached over ssh.
    pub fn is_ssh(&self) -> bool {
        self.url.starts_with("ssh://") || (!self.url.contains("://") && !self.url.starts_with('/'))
    }
}

impl BindAddress {
    /// The sockets to open on a node with this address.
    pub fn sockets(self, node: IpAddr) -> Vec<SocketAddr> {
        match self {
            Self::At(address) => vec![address],
            Self::NodeAndLoopback(port) => {
                let mut ips = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), node];
                ips.dedup();
                ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
            }
        }
    }
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = std::fs::File::open(path)?.take(FILE_BYTES_MAX + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// The file to read and its text: the one that is named, else the first that is there.
fn find_file(inputs: &Inputs<'_>, notes: &mut Notes) -> Option<(PathBuf, String)> {
    let variable = |name: &str| inputs.environment.get(name).filter(|value| !value.is_empty());
    let named = inputs.flags.config.clone().map(|path| (path, "--config")).or_else(|| {
        let ours = variable(FILE_VARIABLE).map(|path| (path.into(), FILE_VARIABLE));
        ours.or_else(|| variable(legacy::FILE_VARIABLE).map(|path| (path.into(), legacy::FILE_VARIABLE)))
    });
    if let Some((path, origin)) = named {
        return match (inputs.read)(&path) {
            Ok(text) => Some((path, text)),
            Err(error) => {
                let message = format!("{}: {error}", path.display());
                notes.wrong(Location::file(origin), "", message, "name a file that can be read");
                None
            }
        };
    }
    for path in DEFAULT_FILES.iter().map(PathBuf::from) {
        match (inputs.read)(&path) {
            Ok(text) => return Some((path, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let mend = "make it readable for this user, or take it away";
                notes.wrong(Location::file(path.display().to_string()), "", error.to_string(), mend);
            }
        }
    }
    None
}

fn read_document(path: &Path, text: &str, notes: &mut Notes) -> (Layer, Permissions) {
    let name = path.display().to_string();
    let document = match yaml::parse(&name, text) {
        Ok(document) => document,
        Err(findings) => {
            notes.mistakes.extend(findings.0);
            return Default::default();
        }
    };
    let Some(map) = document.as_map() else {
        if !document.is_null() {
            let message = format!("found {}, accepted: a map", document.kind());
            notes.wrong(document.location.clone(), "", message, "begin with `cluster: …`");
        }
        return Default::default();
    };
    let mut layer = map.entry(legacy::TOP_KEY).map(|top| legacy::file(top, notes)).unwrap_or_default();
    layer.append(&mut sources::file(map, &[legacy::TOP_KEY, POLICY_KEY], notes));
    let problems = Problems::default();
    let permissions = map.get(POLICY_KEY).map(|policy| Permissions::read(&Field::new(policy, POLICY_KEY, &problems)));
    notes.mistakes.extend(problems.into_vec());
    (layer, permissions.unwrap_or_default())
}

fn flags(flags: &Flags) -> Layer {
    let mut layer = Layer::new();
    for (key, (flag, text)) in &flags.settings {
        if let Some(setting) = settings::setting(key) {
            let raw = Raw { location: Location::file(*flag), content: sources::split(setting, text) };
            layer.insert(setting.key, raw);
        }
    }
    layer
}
