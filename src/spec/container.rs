//! What we want of a service's containers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Extra, Labels, is_default};

/// A task's container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSpec {
    /// `name:tag@digest`.
    pub image: String,
    /// The container's labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Compose's `entrypoint`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Compose's `command`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// The host name inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `NAME=value`, sorted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Compose's `working_dir`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// User, or `user:group`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Further groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// Always sent by the CLI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privileges: Option<Privileges>,
    /// An init process in front.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// Instead of SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// A terminal.
    #[serde(rename = "TTY", skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Standard input stays open.
    #[serde(skip_serializing_if = "is_default")]
    pub open_stdin: bool,
    /// A read-only root.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// In the file's order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<Mount>>,
    /// Nanoseconds between signal and kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_period: Option<i64>,
    /// HEALTHCHECK.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// `ip host` lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// Name servers.
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// Files from secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<SecretReference>>,
    /// Files from configs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub configs: Option<Vec<ConfigReference>>,
    /// Windows; `default` as swarm stores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// Kernel parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sysctls: Option<Labels>,
    /// Capabilities added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability_add: Option<Vec<String>>,
    /// Capabilities dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capability_drop: Option<Vec<String>>,
    /// Sorted by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ulimits: Option<Vec<Ulimit>>,
    /// API 1.46.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i64>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Security options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Privileges {
    /// Windows; `null` is sent.
    pub credential_spec: Option<CredentialSpec>,
    /// `null` is sent.
    #[serde(rename = "SELinuxContext")]
    pub se_linux_context: Option<Value>,
    /// Swarm drops a `false`.
    pub no_new_privileges: bool,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A Windows credential spec.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CredentialSpec {
    /// ID of a config.
    pub config: String,
    /// A file's path.
    pub file: String,
    /// A registry key.
    pub registry: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// `bind`, `volume`, `tmpfs`, `npipe` or `cluster`.
    #[serde(rename = "Type", skip_serializing_if = "is_default")]
    pub kind: String,
    /// A path or a volume's name.
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// Where in the container.
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    /// Not writable.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    /// As in the file; Linux ignores it.
    #[serde(skip_serializing_if = "is_default")]
    pub consistency: String,
    /// For `bind`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// For `volume`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// For `tmpfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
    /// For `cluster`; an empty object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_options: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Options of a bind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// `rprivate` and so on.
    #[serde(skip_serializing_if = "is_default")]
    pub propagation: String,
    /// Without submounts.
    #[serde(skip_serializing_if = "is_default")]
    pub non_recursive: bool,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Options of a volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// Do not fill it from the image.
    #[serde(skip_serializing_if = "is_default")]
    pub no_copy: bool,
    /// The volume's labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// A folder in the volume, API 1.45.
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: String,
    /// Its driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<Driver>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Options of a tmpfs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub size_bytes: i64,
    /// Permission bits.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A driver with its options.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Driver {
    /// The driver.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Its options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Labels>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// HEALTHCHECK; times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", s]` or `["NONE"]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    /// Between two checks.
    #[serde(skip_serializing_if = "is_default")]
    pub interval: i64,
    /// For one check.
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: i64,
    /// Failures do not count before.
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: i64,
    /// Between checks while starting, API 1.44.
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval: i64,
    /// Failures in a row until unhealthy.
    #[serde(skip_serializing_if = "is_default")]
    pub retries: i64,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Name servers of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsConfig {
    /// Addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nameservers: Option<Vec<String>>,
    /// Search domains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Vec<String>>,
    /// Resolver options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Where a secret or config appears.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FileTarget {
    /// Path.
    pub name: String,
    /// Owner.
    #[serde(rename = "UID")]
    pub uid: String,
    /// Group.
    #[serde(rename = "GID")]
    pub gid: String,
    /// Permission bits.
    pub mode: u32,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A secret in a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SecretReference {
    /// Where.
    pub file: Option<FileTarget>,
    /// Empty until resolved.
    #[serde(rename = "SecretID")]
    pub secret_id: String,
    /// Its name in the swarm.
    pub secret_name: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A config in a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ConfigReference {
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTarget>,
    /// For a credential spec: an empty object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Value>,
    /// Empty until resolved.
    #[serde(rename = "ConfigID")]
    pub config_id: String,
    /// Its name in the swarm.
    pub config_name: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A resource limit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    /// Such as `nofile`.
    pub name: String,
    /// Hard limit.
    pub hard: i64,
    /// Soft limit.
    pub soft: i64,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}
