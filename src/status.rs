//! What people and machines are told: the shape of `/v1/status` and `/v1/stacks`, of `status --output json`, and of the
//! stacks' values in Consul KV.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::model::{Revision, StackName};

/// The whole cluster, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// Who leads and since when; none while nobody does.
    pub leader: Option<LeaderStatus>,
    /// The Config Repo; none before the first look at it.
    pub git: Option<GitStatus>,
    /// Agents passing in Consul, of nodes in the swarm.
    pub agents: AgentCount,
    /// Every stack in git, and every orphan, by name.
    pub stacks: Vec<StackStatus>,
    /// What hinders the leader as a whole, such as a lost quorum; empty when all is well.
    pub problems: Vec<String>,
    /// Nodes that are being drained, and those that are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drains: Vec<DrainStatus>,
}

/// A node that a person wants empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// The node's name.
    pub node: String,
    /// Its ID.
    pub id: String,
    /// How far it is.
    pub phase: DrainPhase,
    /// Tasks that still run there.
    pub tasks: usize,
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainPhase {
    /// Out of DNS; its clients have their time.
    Leaving,
    /// Swarm moves its tasks.
    Moving,
    /// Nothing runs there any more.
    Done,
}

/// The leader, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaderStatus {
    /// The node's name.
    pub node: String,
    /// When it took the lock.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The fencing token: later leaders have larger ones.
    pub token: u64,
}

/// Who leads and who could: the shape of `/v1/leader` and of `leader --output json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaderReport {
    /// The cluster's name.
    pub cluster: String,
    /// Where the lock is kept: `consul` or `swarm`.
    pub coordination: String,
    /// Who leads and since when; none while nobody does.
    pub leader: Option<LeaderStatus>,
    /// The managers' agents, by node.
    pub candidates: Vec<Candidate>,
    /// Why something is missing here; none if nothing is.
    pub problem: Option<String>,
}

/// One who may lead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Candidate {
    /// The node's name.
    pub node: String,
    /// False if it would not be elected now.
    pub stands: bool,
    /// What it says of itself, or what is said of it.
    pub note: String,
}

/// The Config Repo, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GitStatus {
    /// The branch followed.
    pub branch: String,
    /// The revision last fetched; the last good one while the repo cannot be reached.
    pub revision: Option<Revision>,
    /// When the repo last answered.
    #[serde(with = "time::serde::rfc3339::option")]
    pub checked: Option<OffsetDateTime>,
    /// Why the last look failed; none if it did not.
    pub error: Option<String>,
}

/// How many agents are well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentCount {
    /// Agents whose checks pass in Consul.
    pub passing: usize,
    /// Nodes of the swarm.
    pub nodes: usize,
}

/// One stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackStatus {
    /// The stack.
    pub name: StackName,
    /// In one word.
    pub state: StackState,
    /// The last healthy revision, or the one being rolled out.
    pub revision: Option<Revision>,
    /// One line: what is the matter, or how many services run.
    pub note: String,
    /// What a person can do, as a command; none if nothing is needed.
    pub next: Option<String>,
    /// Its services.
    pub services: Vec<ServiceStatus>,
    /// Everything the plan had to remark, one line each; `note` is the first of them.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Remarks, such as keys without effect.
    pub warnings: Vec<String>,
    /// While a failure holds it: the last lines that the failing task printed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// A stack's state in one word, as `status` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StackState {
    /// As git says, and healthy.
    Ok,
    /// A rollout is on its way.
    Rolling,
    /// Waits for another stack, or for the engine.
    Waiting,
    /// Runs already and is not ours: waits for `adopt`.
    Adopt,
    /// The brake: waits for `approve`.
    Approve,
    /// A revision failed and is not tried again.
    Held,
    /// Changed by hand.
    Drift,
    /// Absent from git; nothing removed.
    Orphan,
    /// Paused by a person.
    Paused,
    /// Cannot be rendered or planned.
    Error,
}

impl StackState {
    /// The word, as JSON and metrics spell it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Rolling => "rolling",
            Self::Waiting => "waiting",
            Self::Adopt => "adopt",
            Self::Approve => "approve",
            Self::Held => "held",
            Self::Drift => "drift",
            Self::Orphan => "orphan",
            Self::Paused => "paused",
            Self::Error => "error",
        }
    }

    /// True if a person has to do something.
    pub fn needs_a_person(self) -> bool {
        matches!(self, Self::Adopt | Self::Approve | Self::Held | Self::Drift | Self::Orphan | Self::Error)
    }
}

/// One service of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The service's full name, `stack_key`.
    pub name: String,
    /// The image with its digest, as it runs.
    pub image: String,
    /// Tasks running the current spec.
    pub running: u64,
    /// Tasks wanted.
    pub wanted: u64,
    /// What is the matter; none if nothing is.
    pub problem: Option<String>,
}

/// How a stack's last rollouts ended: the shape of `/v1/stacks/NAME/history` and of `history --output json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackHistory {
    /// The stack.
    pub name: StackName,
    /// Where a person's `rollback` holds it; none if nothing does.
    pub held: Option<HeldAt>,
    /// Newest first.
    pub entries: Vec<HistoryEntry>,
}

/// A revision that a person brought a stack back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAt {
    /// The revision.
    pub revision: Revision,
    /// Why.
    pub reason: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// How one rollout ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The git commit; none if it came from elsewhere.
    pub revision: Option<Revision>,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// How.
    pub outcome: Outcome,
    /// Why, in one line; empty where there is nothing to say.
    pub reason: String,
    /// The digests that it ran or tried, by the image's text in git.
    pub digests: BTreeMap<String, String>,
    /// The last lines that the failing task printed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Everything ran.
    Ok,
    /// The rest ran, but some services were held back.
    Partly,
    /// It failed, and something of it was left as it was.
    Failed,
    /// It failed, and what failed was brought back.
    RolledBack,
}

impl Outcome {
    /// The word, as JSON spells it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partly => "partly",
            Self::Failed => "failed",
            Self::RolledBack => "rolled-back",
        }
    }
}

/// What a person may ask of the leader about a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "command")]
pub enum Command {
    /// Look at git now, all stacks.
    Sync,
    /// Take over a stack that runs already.
    Adopt {
        /// The stack.
        stack: StackName,
    },
    /// Let a braked revision through.
    Approve {
        /// The stack.
        stack: StackName,
        /// The revision, whole or a prefix of at least seven digits.
        revision: String,
    },
    /// Remove an orphan, its volumes kept.
    Remove {
        /// The stack.
        stack: StackName,
    },
    /// Try a failed revision again.
    Retry {
        /// The stack.
        stack: StackName,
    },
    /// Bring a stack back to a revision of its history and hold it there.
    Rollback {
        /// The stack.
        stack: StackName,
        /// The revision, whole or a prefix of at least seven digits; none is the healthy one before the present one.
        revision: Option<String>,
        /// Why, shown in `status`; may be empty.
        reason: String,
    },
    /// Restart one service's tasks as they are.
    Restart {
        /// The stack.
        stack: StackName,
        /// The service's key in the compose file.
        service: String,
        /// Why, told with the restart.
        reason: String,
    },
    /// Leave a stack alone until `resume`.
    Pause {
        /// The stack.
        stack: StackName,
        /// Why, shown in `status`.
        reason: String,
    },
    /// End a pause or a hold.
    Resume {
        /// The stack.
        stack: StackName,
    },
    /// Leave every stack alone that is known now.
    PauseAll {
        /// Why, shown in `status`.
        reason: String,
    },
    /// End the pauses that `PauseAll` began.
    ResumeAll,
    /// Empty a node: out of DNS first, swarm's availability after that.
    Drain {
        /// The node, by its name or ID.
        node: String,
        /// Make it active again instead.
        undo: bool,
    },
    /// Let another lead: the leader hands over, and does not stand for a while.
    StepDown,
    /// Look at git soon, without an answer about it: what a follower passes on.
    Wake,
    /// Forget this swarm: take our state, KV and registrations away and nothing else.
    Leave,
}
