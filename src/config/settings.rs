//! Every setting, as data: reading, suggestions, `--help` and the README's table come from this one table.

use std::fmt::Write;
use std::time::Duration;

/// A setting.
#[derive(Debug)]
pub struct Setting {
    /// Its place in the file: `poll_interval`, or `git.url` for `url` below `git`.
    pub key: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// As a file would say it; empty where there is none.
    pub default: &'static str,
    /// Environment variables of other programs that are read if ours is not set.
    pub also: &'static [&'static str],
    /// True if its value may stand in a file of its own: `<key>_file`, or the environment variable's `_FILE` twin.
    pub has_file_twin: bool,
    /// What it is for, in a line.
    pub about: &'static str,
}

/// What a setting accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A name that may stand in a KV path.
    Cluster,
    /// Names of stacks.
    Stacks,
    /// URLs.
    Urls,
    /// `http://host:port`, the scheme may be left out.
    Http,
    /// As [`Self::Http`], or `unix:///path`.
    HttpOrSocket,
    /// Where the Config Repo is.
    GitUrl,
    /// A branch's name.
    Branch,
    /// A folder inside the Config Repo.
    FolderInRepo,
    /// The engine's address.
    Engine,
    /// Where to listen: `:port`, `IP` or `IP:port`.
    Bind,
    /// `IP` or `IP:port`.
    Advertise,
    /// An absolute path on the node.
    Path,
    /// `true` or `false`.
    Switch,
    /// A whole number within these limits, both included.
    Number(u64, u64),
    /// A duration within these limits, both included.
    Duration(Duration, Duration),
    /// Names of networks.
    Networks,
    /// A Handlebars template.
    Template,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// A row of the table, without other programs' variables and without a file twin.
const fn row(key: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Setting {
    Setting { key, kind, default, also: &[], has_file_twin: false, about }
}

/// A row for what nobody should read over your shoulder.
const fn secret(key: &'static str, kind: Kind, about: &'static str) -> Setting {
    Setting { key, kind, default: "", also: &[], has_file_twin: true, about }
}

impl Setting {
    const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    /// Its environment variable.
    pub fn env(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }

    /// All its environment variables, ours first.
    pub fn envs(&self) -> impl Iterator<Item = String> {
        std::iter::once(self.env()).chain(self.also.iter().map(|&name| name.to_owned()))
    }
}

/// What our environment variables begin with.
pub const ENV_PREFIX: &str = "SWARMKEEPER_";

/// What the table's `election` and others accept.
pub const ROLES: &[&str] = &["auto", "manager", "worker"];
/// See [`ROLES`].
pub const COORDINATIONS: &[&str] = &["auto", "consul", "swarm"];
/// See [`ROLES`].
pub const ELECTIONS: &[&str] = &["default", "fast", "slow"];
/// See [`ROLES`].
pub const ORPHANS: &[&str] = &["keep", "remove"];
/// See [`ROLES`].
pub const STACK_NAMES: &[&str] = &["join", "apart"];
/// See [`ROLES`].
pub const DEREGISTER: &[&str] = &["always", "on-success"];
/// See [`ROLES`].
pub const AGENT_LOSS: &[&str] = &["keep", "critical"];
/// See [`ROLES`].
pub const HEALTH: &[&str] = &["open", "closed"];
/// See [`ROLES`].
pub const LOG_LEVELS: &[&str] = &["trace", "debug", "info", "warn", "error", "off"];
/// See [`ROLES`].
pub const LOG_FORMATS: &[&str] = &["text", "json"];

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const DAY: Duration = Duration::from_hours(24);

/// Every setting, in the order of the README.
pub const SETTINGS: &[Setting] = &[
    row("cluster", Kind::Cluster, "swarm", "This swarm's name in Consul; two swarms on one Consul need two names"),
    row("role", Kind::OneOf(ROLES), "auto", "`auto` asks the engine; a `worker` never stands for leader"),
    row("git.url", Kind::GitUrl, "", "The Config Repo, over https or ssh; only managers need it"),
    row("git.branch", Kind::Branch, "main", "The branch to follow"),
    row("git.path", Kind::FolderInRepo, "stacks", "The folder that holds the stacks"),
    row("git.username", Kind::Text, "", "For https; `git` with a password and without a name"),
    secret("git.password", Kind::Text, "For https: a password or an access token"),
    secret("git.ssh_key", Kind::Text, "For ssh: a private key without passphrase").also(&["SSH_PRIVATE_KEY"]),
    secret("git.known_hosts", Kind::Text, "For ssh: the server's lines of a known_hosts file"),
    row("git.require_fast_forward", Kind::Switch, "false", "Refuse a branch whose history was rewritten"),
    row("poll_interval", Kind::Duration(SECOND, DAY), "60s", "How often git is asked without a webhook"),
    row("stacks", Kind::Stacks, "", "Only these stacks of the Config Repo; empty: all"),
    row("orphans", Kind::OneOf(ORPHANS), "keep", "What becomes of a stack that disappears from git"),
    row(
        "brake.removes_max",
        Kind::Number(0, 10_000),
        "3",
        "A revision that removes more services of a stack waits for `approve`",
    ),
    row(
        "brake.restarts_percent_max",
        Kind::Number(0, 100),
        "30",
        "A revision that restarts more of a stack's services waits for `approve`",
    ),
    row("docker_host", Kind::Engine, "unix:///var/run/docker.sock", "The engine").also(&["DOCKER_HOST"]),
    row(
        "docker_config",
        Kind::Path,
        "",
        "Folder of docker's `config.json`, for registry credentials; else `~/.docker`",
    )
    .also(&["DOCKER_CONFIG"]),
    row(
        "registries_dir",
        Kind::Path,
        "/run/secrets/registries",
        "Registry credentials, a file per host: YAML with `username` and `password`",
    ),
    row("consul.address", Kind::HttpOrSocket, "http://127.0.0.1:8500", "The node's own Consul agent")
        .also(&["CONSUL_HTTP_ADDR"]),
    row("consul.https", Kind::Switch, "false", "A `consul.address` without a scheme means https")
        .also(&["CONSUL_HTTP_SSL"]),
    row(
        "consul.ca_file",
        Kind::Path,
        "",
        "For https: the CA of Consul's certificate; else those that the system trusts",
    )
    .also(&["CONSUL_CACERT"]),
    row("consul.cert_file", Kind::Path, "", "For https: our certificate").also(&["CONSUL_CLIENT_CERT"]),
    row("consul.key_file", Kind::Path, "", "For https: its key").also(&["CONSUL_CLIENT_KEY"]),
    secret(
        "consul.token",
        Kind::Text,
        "Consul's ACL token; in a file it may change at any time, as the certificates may",
    )
    .also(&["CONSUL_HTTP_TOKEN"]),
    row(
        "coordination",
        Kind::OneOf(COORDINATIONS),
        "auto",
        "Where the leader's lock is: in `consul`, or in the `swarm` itself; `auto` is Consul where one is configured or answers, and in any case what the swarm's first agent chose",
    ),
    row(
        "election",
        Kind::OneOf(ELECTIONS),
        "default",
        "With the lock in Consul, `fast` replaces a killed leader in 4 s instead of 12, and is lost to a slow Consul sooner; `slow`, in 16 s, suits Consul's default `raft_multiplier`",
    ),
    row("registration.enable", Kind::Switch, "true", "Register this node's containers in Consul"),
    row(
        "registration.internal",
        Kind::Switch,
        "false",
        "Register every exposed port at the container's own address (registrator's `-internal`)",
    ),
    row("registration.explicit", Kind::Switch, "false", "Register only what has a `SERVICE_NAME` (`-explicit`)"),
    row(
        "registration.ip_from_label",
        Kind::Text,
        "",
        "A container's label that holds the address to register (`-useIpFromLabel`)",
    ),
    row(
        "registration.tags",
        Kind::Template,
        "",
        "Tags for every service, such as `{{stack}},{{node}}`; also name, container, image, digest, port, protocol, service, slot, task (`-tags`)",
    ),
    row(
        "registration.networks",
        Kind::Networks,
        "",
        "For containers on several networks: whose address to register, the first first",
    ),
    row(
        "registration.stack_names",
        Kind::OneOf(STACK_NAMES),
        "join",
        "A name that two stacks use: both answer to it, or `apart`: each service is called `<stack>-<name>`",
    ),
    row(
        "registration.deregister",
        Kind::OneOf(DEREGISTER),
        "always",
        "When a container has ended: `on-success` keeps the entry of one that failed (`-deregister`)",
    ),
    row(
        "registration.agent_loss",
        Kind::OneOf(AGENT_LOSS),
        "keep",
        "Containers with a HEALTHCHECK whose agent is gone: `keep` for 15 minutes, or `critical` in half a minute",
    ),
    row(
        "registration.resync",
        Kind::Duration(SECOND, Duration::from_mins(5)),
        "10s",
        "How often everything is compared without an event (`-resync`)",
    ),
    row(
        "drain_wait",
        Kind::Duration(Duration::ZERO, Duration::from_mins(10)),
        "10s",
        "How long `drain` waits for clients to leave before swarm moves a node's tasks",
    ),
    row(
        "disk.warning",
        Kind::Number(1, 100),
        "80",
        "Per cent of the disk of `state_dir` in use from which on Consul's UI warns",
    ),
    row("disk.critical", Kind::Number(1, 100), "90", "The same, from which on the agent's service is critical"),
    row(
        "bind",
        Kind::Bind,
        ":7979",
        "Where health, metrics, API and webhooks listen; `:PORT` is the node's own address and loopback",
    ),
    row("advertise", Kind::Advertise, "", "Where other keepers reach this one; else the node's address in the swarm"),
    secret(
        "api_token",
        Kind::Text,
        "Opens the API to askers on other machines; without it only this node's processes may ask",
    ),
    row(
        "health",
        Kind::OneOf(HEALTH),
        "open",
        "Health and metrics: `open` to anybody, or `closed`: for who may ask the rest",
    ),
    row("tls.cert_file", Kind::Path, "", "The API's certificate; with it every address but loopback speaks https only"),
    row("tls.key_file", Kind::Path, "", "Its key"),
    row("tls.client_ca_file", Kind::Path, "", "Who shows a certificate of this CA needs no token"),
    row(
        "tls.ca_file",
        Kind::Path,
        "",
        "The CA by which keepers and commands trust each other's certificates; else those that the system trusts",
    ),
    secret("webhook_secret", Kind::Text, "What signs webhooks; without it there are none"),
    secret("notify", Kind::Urls, "URLs that are told when a stack needs a person, or no longer does"),
    row("state_dir", Kind::Path, "/var/lib/swarmkeeper", "Clones and caches; may be lost at any time"),
    row(
        "shutdown_grace",
        Kind::Duration(Duration::ZERO, MINUTE),
        "8s",
        "How long the step at hand may take at shutdown",
    ),
    row("agent_url", Kind::Http, "http://127.0.0.1:7979", "The agent that commands such as `status` ask"),
    row("log_level", Kind::OneOf(LOG_LEVELS), "info", "How much is logged"),
    row("log_format", Kind::OneOf(LOG_FORMATS), "text", "`json` for machines"),
];

/// The setting of `key`.
pub fn setting(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The README's table, without a final line break.
pub fn config_table() -> String {
    let mut table = String::from("| key | environment | default | |\n|---|---|---|---|");
    for setting in SETTINGS {
        let twin = if setting.has_file_twin { "[_FILE]" } else { "" };
        let envs = setting.envs().map(|env| format!("`{env}{twin}`")).collect::<Vec<_>>().join(", ");
        let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        // Writing to a String cannot fail.
        let _ = write!(table, "\n| `{}` | {envs} | {default} | {} |", setting.key, setting.about);
    }
    table
}

/// The settings for `agent --help`.
pub fn help_text() -> String {
    let mut text = String::from("Settings, in swarmkeeper.yml or as environment variables:\n");
    for setting in SETTINGS {
        let twin = if setting.has_file_twin { "[_FILE]" } else { "" };
        let default =
            if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
        let about = setting.about.replace('`', "");
        let _ = write!(text, "\n  {:<27} {}{twin}\n      {about}{default}", setting.key, setting.env());
    }
    let _ = write!(
        text,
        "\n  {:<27} (in the file only)\n      What each stack may do to the nodes: binds, images, networks, secrets, configs, volumes, capabilities, host_network",
        super::POLICY_KEY
    );
    text
}

impl Kind {
    /// What is accepted, for messages: "accepted: …".
    pub fn accepts(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Cluster => "letters, digits, '-' and '_', at most 63".into(),
            Self::Stacks => "a list of stacks' names".into(),
            Self::Urls => "a list of https:// or http:// addresses".into(),
            Self::Http => "an address such as http://127.0.0.1:7979".into(),
            Self::HttpOrSocket => "an address such as http://127.0.0.1:8500 or unix:///run/consul.sock".into(),
            Self::GitUrl => "https://…, ssh://…, user@host:path, or an absolute path".into(),
            Self::Branch => "a branch's name without refs/heads/".into(),
            Self::FolderInRepo => "a folder inside the Config Repo, without ..".into(),
            Self::Engine => "unix:///path or tcp://host:port".into(),
            Self::Bind => "a list of :PORT, IP or IP:PORT".into(),
            Self::Advertise => "IP or IP:PORT".into(),
            Self::Path => "an absolute path".into(),
            Self::Switch => "true or false".into(),
            Self::Number(min, max) => format!("a whole number from {min} to {max}"),
            Self::Duration(min, max) => format!(
                "a duration such as 90s or 5m, from {} to {}",
                humantime::format_duration(min),
                humantime::format_duration(max)
            ),
            Self::Networks => "a list of networks' names".into(),
            Self::Template => "a Handlebars template such as {{stack}},{{node}}".into(),
            Self::OneOf(words) => words.join(", "),
        }
    }

    /// True if several values may be given.
    pub fn is_list(self) -> bool {
        matches!(self, Self::Stacks | Self::Urls | Self::Bind | Self::Networks)
    }
}
