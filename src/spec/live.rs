//! What lives in the swarm, as the engine answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ConfigSpec, Extra, Ipam, Labels, Platform, SecretSpec, ServiceSpec, TaskTemplate, is_default};

/// An object's version, its compare-and-swap.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    /// Grows with every write.
    pub index: u64,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A service as it lives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Service {
    /// Its ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub version: Version,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub created_at: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub updated_at: String,
    /// What is wanted of it.
    pub spec: ServiceSpec,
    /// What was wanted before the last update: swarm's own rollback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_spec: Option<Box<ServiceSpec>>,
    /// Ports and addresses in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Value>,
    /// How the last update goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_status: Option<UpdateStatus>,
    /// For jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_status: Option<JobStatus>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How an update goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateStatus {
    /// `updating`, `paused`, `completed`, `rollback_started`, `rollback_paused`, `rollback_completed`.
    #[serde(skip_serializing_if = "is_default")]
    pub state: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<String>,
    /// Swarm's words.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A job's iteration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct JobStatus {
    /// Counts runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<Version>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_execution: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A task as it lives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Task {
    /// Its ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub version: Version,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub created_at: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub updated_at: String,
    /// The template it was made from.
    pub spec: TaskTemplate,
    /// Its service.
    #[serde(rename = "ServiceID", skip_serializing_if = "is_default")]
    pub service_id: String,
    /// Its slot; 0 for global services.
    #[serde(skip_serializing_if = "is_default")]
    pub slot: u64,
    /// Its node; empty before it is assigned.
    #[serde(rename = "NodeID", skip_serializing_if = "is_default")]
    pub node_id: String,
    /// What it does.
    pub status: TaskStatus,
    /// What it should do.
    #[serde(skip_serializing_if = "is_default")]
    pub desired_state: String,
    /// For jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_iteration: Option<Version>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a task does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TaskStatus {
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub timestamp: String,
    /// `new` … `running`, `complete`, `shutdown`, `failed`, `rejected`, `orphaned`.
    #[serde(skip_serializing_if = "is_default")]
    pub state: String,
    /// Swarm's words.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    /// The task's own error.
    #[serde(skip_serializing_if = "is_default")]
    pub err: String,
    /// Its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_status: Option<ContainerStatus>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A task's container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerStatus {
    /// Its ID.
    #[serde(rename = "ContainerID", skip_serializing_if = "is_default")]
    pub container_id: String,
    /// Process ID.
    #[serde(rename = "PID", skip_serializing_if = "is_default")]
    pub pid: i64,
    /// Exit code.
    #[serde(skip_serializing_if = "is_default")]
    pub exit_code: i64,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A secret as it lives, without content.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Secret {
    /// Its ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub version: Version,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub created_at: String,
    /// Name and labels.
    pub spec: SecretSpec,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A config as it lives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Its ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub version: Version,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub created_at: String,
    /// Name and labels.
    pub spec: ConfigSpec,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A network as it lives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Network {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    /// `swarm` or `local`.
    #[serde(skip_serializing_if = "is_default")]
    pub scope: String,
    /// Its labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Driver options, ours and the driver's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Labels>,
    /// No way out.
    #[serde(skip_serializing_if = "is_default")]
    pub internal: bool,
    /// Plain containers may join.
    #[serde(skip_serializing_if = "is_default")]
    pub attachable: bool,
    /// The mesh itself.
    #[serde(skip_serializing_if = "is_default")]
    pub ingress: bool,
    /// Address plan.
    #[serde(rename = "IPAM", skip_serializing_if = "Option::is_none")]
    pub ipam: Option<Ipam>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A node of the swarm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// Its ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its version.
    pub version: Version,
    /// What is wanted of it.
    pub spec: NodeSpec,
    /// What it is.
    pub description: NodeDescription,
    /// How it is.
    pub status: NodeStatus,
    /// For managers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manager_status: Option<ManagerStatus>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What is wanted of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeSpec {
    /// `manager` or `worker`.
    #[serde(skip_serializing_if = "is_default")]
    pub role: String,
    /// `active`, `pause` or `drain`.
    #[serde(skip_serializing_if = "is_default")]
    pub availability: String,
    /// Node labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a node is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeDescription {
    /// Its host name.
    #[serde(skip_serializing_if = "is_default")]
    pub hostname: String,
    /// Its platform.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// How a node is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeStatus {
    /// `ready`, `down`, `unknown` or `disconnected`.
    #[serde(skip_serializing_if = "is_default")]
    pub state: String,
    /// Swarm's words.
    #[serde(skip_serializing_if = "is_default")]
    pub message: String,
    /// Its address.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A manager's part.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ManagerStatus {
    /// Swarm's own leader.
    #[serde(skip_serializing_if = "is_default")]
    pub leader: bool,
    /// `reachable` or `unreachable`.
    #[serde(skip_serializing_if = "is_default")]
    pub reachability: String,
    /// address:port.
    #[serde(skip_serializing_if = "is_default")]
    pub addr: String,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}
