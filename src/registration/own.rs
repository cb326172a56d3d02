//! The agent's own service, `swarmkeeper`: who is there, who leads, how the node and the stacks are. Pure.
//!
//! Consul's UI shows it as the health of the cluster, so every check says what it means and what to do. Unlike the containers'
//! checks, these run out soon after we do: an agent that is dead should be seen to be.
//!
//! A text changes only when what it tells does: no times, no counts that drift, no percentages. A stack's check is a warning at worst,
//! because a critical check takes the whole instance out of DNS, and a stack in need takes nothing away from its leader.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Options;
use super::wanted::{Remark, Report, Wanted};
use crate::io::consul::agent::{CheckDefinition, CheckStatus, Probe, Registration};

/// The name of the agents' service in Consul.
pub const SERVICE: &str = "swarmkeeper";

/// How often the agent's checks are repeated, unless passes are made more seldom.
pub const REFRESH: Duration = Duration::from_secs(10);

/// How many repeats may be missed before the checks say that the agent is gone.
const REPEATS_MISSED_MAX: u32 = 3;

/// How long a check stands that a pass repeats, and how often it does.
pub fn times(resync: Duration) -> (Duration, Duration) {
    let every = resync.max(REFRESH);
    (every * REPEATS_MISSED_MAX, every)
}

/// Remarks of a pass that its check repeats; the log has all.
const REMARKS_MAX: usize = 3;

/// Most characters of a check's text; Consul cuts at 4 KB, and a text that it cut would look like another.
const TEXT_MAX: usize = 1000;

/// What the agent's service tells about it; the composition root keeps it current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfState {
    /// What the node is in its swarm.
    pub role: Role,
    /// True while this agent leads.
    pub leader: bool,
    /// What hinders work with the engine. Whether the engine lists its containers is found out here.
    pub engine: Result<(), Trouble>,
    /// What hinders the rest of the agent.
    pub agent: Result<(), Trouble>,
    /// While this agent leads: every stack by its name.
    pub stacks: BTreeMap<String, StackHealth>,
}

/// A node's part in its swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Keeps the swarm's state.
    Manager,
    /// Runs what it is given.
    Worker,
}

/// What is the matter, and the mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What is the matter, in words that stay the same while it lasts.
    pub reason: String,
    /// What a person can do about it.
    pub mend: String,
}

/// How a stack is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackHealth {
    /// True if it is as git says, or on its way there.
    pub is_well: bool,
    /// Its revision, and that it is in sync or why it is not.
    pub text: String,
}

/// When a disk is too full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskMarks {
    /// Any path on it.
    pub path: PathBuf,
    /// Per cent in use from which on it is a warning.
    pub warning: u8,
    /// Per cent in use from which on it is critical.
    pub critical: u8,
}

/// How full a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DiskLevel {
    /// Below both marks.
    #[default]
    Low,
    /// At the warning mark or above.
    Warning,
    /// At the critical mark or above.
    Critical,
}

impl DiskMarks {
    /// The level of a disk that is `used` per cent full. It falls a little later than it rises, so that a disk at its mark does not
    /// change its mind all the time.
    pub fn level(&self, used: u8, before: DiskLevel) -> DiskLevel {
        const SLACK: u8 = 2;
        let above = |mark: u8, level: DiskLevel| {
            let mark = if before >= level { mark.saturating_sub(SLACK) } else { mark };
            (used >= mark).then_some(level)
        };
        above(self.critical, DiskLevel::Critical)
            .or_else(|| above(self.warning, DiskLevel::Warning))
            .unwrap_or_default()
    }
}

/// What the last pass found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LastPass {
    /// What a person should know, the first few of it.
    said: Vec<String>,
    /// How many there are more.
    more: usize,
}

impl LastPass {
    /// After a pass with these remarks.
    pub fn with<'a>(remarks: impl ExactSizeIterator<Item = &'a Remark>) -> Self {
        let more = remarks.len().saturating_sub(REMARKS_MAX);
        let said = remarks.take(REMARKS_MAX).map(|Remark { subject, text }| format!("{subject}: {text}"));
        Self { said: said.collect(), more }
    }
}

/// All that the agent's service tells.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// What the agent knows.
    pub state: &'a SelfState,
    /// The disk, if it is watched and can be looked at.
    pub disk: Option<DiskLevel>,
    /// The last pass.
    pub last: &'a LastPass,
}

/// The ID of the service of the agent on `node`.
pub fn service_id(node: &str) -> String {
    format!("{SERVICE}-{node}")
}

/// The agent's own registration.
pub fn wanted(options: &Options, address: IpAddr, told: &Told<'_>) -> Wanted {
    let id = service_id(&options.node);
    let state = told.state;
    let (checks, (ttl, every)) = (checks(options, told), times(options.rules.resync));
    let role = match state.role {
        Role::Manager => "manager",
        Role::Worker => "worker",
    };
    let leader = state.leader.then_some("leader");
    let meta = [("cluster", options.cluster.as_str()), ("node", &options.node), ("version", env!("CARGO_PKG_VERSION"))];
    let registration = Registration {
        name: SERVICE.to_owned(),
        tags: [options.cluster.as_str(), role].into_iter().chain(leader).map(ToOwned::to_owned).collect(),
        meta: meta.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>(),
        port: options.http_port,
        address,
        checks: checks.iter().map(|check| check.definition(&id, ttl)).collect(),
        id: id.clone(),
    };
    Wanted::sign(registration, checks.iter().map(|check| check.report(&id, every)).collect(), &options.owner)
}

/// One of the agent's checks.
struct Check {
    suffix: String,
    name: String,
    notes: &'static str,
    status: CheckStatus,
    text: String,
}

fn checks(options: &Options, told: &Told<'_>) -> Vec<Check> {
    let agent = by_trouble(
        "agent",
        "swarmkeeper agent",
        "Critical if the agent reports trouble, or nothing at all: it is dead or cannot reach Consul.",
        "The agent runs and keeps this node's registrations.",
        &told.state.agent,
    );
    let engine = by_trouble(
        "engine",
        "Docker engine",
        "Critical if the node's engine does not answer the agent.",
        "The engine answers.",
        &told.state.engine,
    );
    let disk = options.disk.as_ref().zip(told.disk).map(|(marks, level)| disk(marks, level));
    let stacks = told.state.stacks.iter().map(|(name, health)| stack(name, health));
    [agent, engine].into_iter().chain(disk).chain([pass(told.last)]).chain(stacks).collect()
}

fn by_trouble(suffix: &str, name: &str, notes: &'static str, well: &str, state: &Result<(), Trouble>) -> Check {
    let (status, text) = match state {
        Ok(()) => (CheckStatus::Passing, well.to_owned()),
        Err(trouble) => (CheckStatus::Critical, format!("{}. {}", trouble.reason, trouble.mend)),
    };
    Check { suffix: suffix.to_owned(), name: name.to_owned(), notes, status, text }
}

fn disk(marks: &DiskMarks, level: DiskLevel) -> Check {
    let DiskMarks { path, warning, critical } = marks;
    let path = path.display();
    let mend = "`docker system df` shows what images, containers and volumes take.";
    let (status, text) = match level {
        DiskLevel::Low => (CheckStatus::Passing, format!("Less than {warning} % of the disk of {path} are in use.")),
        DiskLevel::Warning => {
            (CheckStatus::Warning, format!("{warning} % of the disk of {path} or more are in use. {mend}"))
        }
        DiskLevel::Critical => {
            (CheckStatus::Critical, format!("{critical} % of the disk of {path} or more are in use. {mend}"))
        }
    };
    let notes = "The marks are swarmkeeper's settings disk.warning and disk.critical.";
    Check { suffix: "disk".to_owned(), name: "Disk".to_owned(), notes, status, text }
}

fn pass(last: &LastPass) -> Check {
    let (status, text) = match (&last.said[..], last.more) {
        ([], _) => (CheckStatus::Passing, "What runs on this node is registered.".to_owned()),
        (said, 0) => (CheckStatus::Warning, said.join("\n")),
        (said, more) => (CheckStatus::Warning, format!("{}\nand {more} more in the agent's log", said.join("\n"))),
    };
    let notes = "A warning if something on this node is not registered as its settings say.";
    Check { suffix: "pass".to_owned(), name: "Last pass".to_owned(), notes, status, text }
}

fn stack(name: &str, health: &StackHealth) -> Check {
    let status = if health.is_well { CheckStatus::Passing } else { CheckStatus::Warning };
    let notes = "A warning if the stack is not as git says; `swarmkeeper status` says more. Never critical.";
    Check { suffix: format!("stack:{name}"), name: format!("Stack {name}"), notes, status, text: health.text.clone() }
}

impl Check {
    fn definition(&self, id: &str, ttl: Duration) -> CheckDefinition {
        CheckDefinition {
            id: format!("{id}:{}", self.suffix),
            name: self.name.clone(),
            notes: self.notes.to_owned(),
            status: None,
            probe: Probe::Ttl { ttl: format!("{}s", ttl.as_secs()) },
            deregister_critical_service_after: None,
        }
    }

    fn report(&self, id: &str, every: Duration) -> Report {
        let text = self.text.chars().take(TEXT_MAX).collect();
        Report { check: format!("{id}:{}", self.suffix), status: self.status, text, every }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::fixture;

    fn told(options: &Options, told: &Told<'_>) -> Wanted {
        wanted(options, [10, 0, 0, 1].into(), told)
    }

    /// The checks as `suffix status text`.
    #[track_caller]
    fn check(state: &SelfState, disk: Option<DiskLevel>, last: &LastPass, expect: &[&str]) {
        let marks = DiskMarks { path: "/data".into(), warning: 80, critical: 90 };
        let options = Options { disk: Some(marks), ..fixture::options() };
        let reports = told(&options, &Told { state, disk, last }).reports;
        let lines = reports.iter().map(|report| {
            format!("{} {} {}", report.check.trim_start_matches("swarmkeeper-node1:"), report.status, report.text)
        });
        assert_eq!(lines.collect::<Vec<_>>(), expect);
    }

    #[test]
    fn the_agents_service_says_cluster_role_and_who_leads() {
        let mut state = fixture::well();
        let last = LastPass::default();
        let tags =
            |state: &SelfState| told(&fixture::options(), &Told { state, disk: None, last: &last }).registration.tags;
        assert_eq!(tags(&state), ["swarm", "manager"]);
        state.leader = true;
        assert_eq!(tags(&state), ["swarm", "manager", "leader"]);
        state.role = Role::Worker;
        state.leader = false;
        assert_eq!(tags(&state), ["swarm", "worker"]);
    }

    #[test]
    fn a_node_that_is_well_says_so_check_by_check() {
        check(
            &fixture::well(),
            Some(DiskLevel::Low),
            &LastPass::default(),
            &[
                "agent passing The agent runs and keeps this node's registrations.",
                "engine passing The engine answers.",
                "disk passing Less than 80 % of the disk of /data are in use.",
                "pass passing What runs on this node is registered.",
            ],
        );
    }

    #[test]
    fn trouble_is_told_with_its_mend_and_a_stack_in_need_is_a_warning() {
        let trouble = Trouble { reason: "docker does not answer".to_owned(), mend: "Start it.".to_owned() };
        let stacks = [("blog", true, "9f2c1ab, in sync"), ("shop", false, "9f2c1ab held: api exit 1")];
        let stacks =
            stacks.map(|(name, is_well, text)| (name.to_owned(), StackHealth { is_well, text: text.to_owned() }));
        let state = SelfState { engine: Err(trouble), stacks: stacks.into(), ..fixture::well() };
        let remark = |n: u8| Remark { subject: format!("web{n}"), text: "port 80 is not registered".to_owned() };
        let remarks: Vec<Remark> = (1..=4).map(remark).collect();
        check(
            &state,
            Some(DiskLevel::Critical),
            &LastPass::with(remarks.iter()),
            &[
                "agent passing The agent runs and keeps this node's registrations.",
                "engine critical docker does not answer. Start it.",
                "disk critical 90 % of the disk of /data or more are in use. `docker system df` shows what images, containers and volumes \
                 take.",
                "pass warning web1: port 80 is not registered\nweb2: port 80 is not registered\nweb3: port 80 is not registered\nand 1 \
                 more in the agent's log",
                "stack:blog passing 9f2c1ab, in sync",
                "stack:shop warning 9f2c1ab held: api exit 1",
            ],
        );
    }

    #[test]
    fn a_disk_rises_at_its_mark_and_falls_a_little_below() {
        let marks = DiskMarks { path: "/".into(), warning: 80, critical: 90 };
        let mut level = DiskLevel::Low;
        for (used, expect) in [
            (79, DiskLevel::Low),
            (80, DiskLevel::Warning),
            (79, DiskLevel::Warning),
            (90, DiskLevel::Critical),
            (88, DiskLevel::Critical),
            (87, DiskLevel::Warning),
            (77, DiskLevel::Low),
        ] {
            level = marks.level(used, level);
            assert_eq!(level, expect, "{used} %");
        }
    }
}
