//! What we want of a service.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{ContainerSpec, Driver, Extra, Labels, is_default};

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
