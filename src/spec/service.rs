//! What we want of a service.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{Extra, Labels, is_default};

/// A service as wanted.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceSpec {
    /// `stack_key` for a service of a stack.
    pub name: String,
    /// `deploy.labels`, the namespace and the image as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// What its tasks are; any change restarts them.
    pub task_template: TaskTemplate,
    /// Replicated, global, or a job.
    pub mode: ServiceMode,
    /// How a rollout goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_config: Option<UpdateConfig>,
    /// How a rollback goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_config: Option<UpdateConfig>,
    /// Its ports and how it is resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_spec: Option<EndpointSpec>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What every task of a service is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskTemplate {
    /// The container.
    pub container_spec: ContainerSpec,
    /// Limits and reservations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// What follows an exit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<RestartPolicy>,
    /// Where it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The networks it joins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<NetworkAttachment>>,
    /// Where its output goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<Driver>,
    /// A counter; `docker service update --force` adds one.
    pub force_update: u64,
    /// `container` as swarm stores it; not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

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

/// Limits and reservations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ResourceRequirements {
    /// At most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// At least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservations: Option<Resources>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Amounts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resources {
    /// CPUs × 10⁹.
    #[serde(rename = "NanoCPUs", skip_serializing_if = "is_default")]
    pub nano_cpus: i64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_bytes: i64,
    /// Processes; limits only.
    #[serde(skip_serializing_if = "is_default")]
    pub pids: i64,
    /// Reservations only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generic_resources: Option<Vec<GenericResource>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A named resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GenericResource {
    /// By name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_resource_spec: Option<Value>,
    /// By number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub discrete_resource_spec: Option<DiscreteResource>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A counted resource.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DiscreteResource {
    /// Such as `gpu`.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: String,
    /// How many.
    #[serde(skip_serializing_if = "is_default")]
    pub value: i64,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What follows an exit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `none`, `on-failure` or `any`.
    #[serde(skip_serializing_if = "is_default")]
    pub condition: String,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<i64>,
    /// Within the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u64>,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<i64>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Where tasks may run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Placement {
    /// All must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Vec<String>>,
    /// Spread over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferences: Option<Vec<PlacementPreference>>,
    /// On one node; 0 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub max_replicas: u64,
    /// What the image runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<Platform>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One preference.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PlacementPreference {
    /// Spread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<SpreadOver>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Spread evenly over a node label's values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SpreadOver {
    /// Such as `node.labels.zone`.
    pub spread_descriptor: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// An image's platform.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Platform {
    /// Such as `amd64`; the engine also says `x86_64`.
    #[serde(skip_serializing_if = "is_default")]
    pub architecture: String,
    /// Such as `linux`.
    #[serde(rename = "OS", skip_serializing_if = "is_default")]
    pub os: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A network a task joins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkAttachment {
    /// The network's ID; its name until resolved.
    #[serde(skip_serializing_if = "is_default")]
    pub target: String,
    /// Names in that network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aliases: Option<Vec<String>>,
    /// Endpoint options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_opts: Option<Labels>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How many tasks; exactly one is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ServiceMode {
    /// A number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated: Option<Replicated>,
    /// One a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global: Option<Empty>,
    /// A number, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicated_job: Option<ReplicatedJob>,
    /// One a node, once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub global_job: Option<Empty>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// An empty object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Empty {
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Replicated mode.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Replicated {
    /// Absent means 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u64>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Replicated job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ReplicatedJob {
    /// At once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<u64>,
    /// In all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_completions: Option<u64>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How a rollout or a rollback goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateConfig {
    /// Tasks at once; 0 is all.
    pub parallelism: u64,
    /// Nanoseconds between groups.
    #[serde(skip_serializing_if = "is_default")]
    pub delay: i64,
    /// `pause`, `continue` or `rollback`.
    #[serde(skip_serializing_if = "is_default")]
    pub failure_action: String,
    /// Nanoseconds a task is watched.
    #[serde(skip_serializing_if = "is_default")]
    pub monitor: i64,
    /// Tolerated.
    #[serde(serialize_with = "shortest")]
    pub max_failure_ratio: f32,
    /// `stop-first` or `start-first`.
    pub order: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// The shortest number that means the same: as an `f64`, 0.3 would go out as 0.30000001192092896.
#[allow(clippy::trivially_copy_pass_by_ref)] // The signature is serde's.
fn shortest<S: Serializer>(ratio: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(ratio.to_string().parse().unwrap_or_else(|_| f64::from(*ratio)))
}

/// How a service is reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSpec {
    /// `vip` or `dnsrr`.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: String,
    /// Published ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortConfig>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortConfig {
    /// Unused by the CLI.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: String,
    /// In the container.
    #[serde(skip_serializing_if = "is_default")]
    pub target_port: u32,
    /// 0: swarm picks one.
    #[serde(skip_serializing_if = "is_default")]
    pub published_port: u32,
    /// `ingress` or `host`.
    #[serde(skip_serializing_if = "is_default")]
    pub publish_mode: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}
