//! Emptying a node without losing a request: its instances leave DNS first, swarm moves its tasks after that. Pure.
//!
//! What is intended stands on the node itself, as the label [`LABEL`] with the time of the order. So it survives leaders, Consul and
//! us, and `--undo` needs nothing else. The leader publishes it, the node's agent puts its registrations into maintenance, and when the
//! wait is over the leader sets swarm's availability.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::observe::Observed;
use crate::spec::{Node, NodeSpec};
use crate::status::{DrainPhase, DrainStatus};

/// The node label that says since when the node is being drained.
pub const LABEL: &str = "swarmkeeper.drain";

/// Availabilities of a node, in swarm's words.
const ACTIVE: &str = "active";
const DRAINED: &str = "drain";

/// Shortest prefix of an ID that names a node.
const ID_PREFIX_MIN: usize = 6;

/// A change of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeWrite {
    /// Its ID.
    pub id: String,
    /// Its version, the compare-and-swap.
    pub version: u64,
    /// Its host name.
    pub name: String,
    /// What is wanted of it.
    pub spec: NodeSpec,
}

/// What is to be done about all drains, and when to look again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DrainPlan {
    /// Every drain, for people and for the node's agent.
    pub drains: Vec<DrainStatus>,
    /// Nodes whose clients have had their time.
    pub due: Vec<NodeWrite>,
    /// When the next one is due; none if none waits.
    pub next: Option<Duration>,
}

/// The write that begins a drain of the node that `name` names; none if it is under way already.
pub fn begin(nodes: &[Node], name: &str, now: OffsetDateTime) -> Result<Option<NodeWrite>, String> {
    let node = find(nodes, name)?;
    if since(node).is_some() {
        return Ok(None);
    }
    let mut write = NodeWrite::of(node);
    let since = now.format(&Rfc3339).unwrap_or_default();
    write.spec.labels.get_or_insert_default().insert(LABEL.to_owned(), since);
    Ok(Some(write))
}

/// The write that makes the node active again, whoever drained it; none if it is.
pub fn end(nodes: &[Node], name: &str) -> Result<Option<NodeWrite>, String> {
    let node = find(nodes, name)?;
    if since(node).is_none() && node.spec.availability != DRAINED {
        return Ok(None);
    }
    let mut write = NodeWrite::of(node);
    if let Some(labels) = &mut write.spec.labels {
        labels.remove(LABEL);
    }
    ACTIVE.clone_into(&mut write.spec.availability);
    Ok(Some(write))
}

/// How all drains stand, and which nodes swarm is to drain now, `wait` after the order.
pub fn drains(observed: &Observed, wait: Duration, now: OffsetDateTime) -> DrainPlan {
    let mut plan = DrainPlan::default();
    for node in observed.nodes.values() {
        let Some(since) = since(node) else { continue };
        let tasks = tasks_on(observed, &node.id);
        // A clock that was set back must not make a drain wait for ever.
        let left = (since + wait - now).min(wait);
        let phase = match node.spec.availability.as_str() {
            DRAINED if tasks == 0 => DrainPhase::Done,
            DRAINED => DrainPhase::Moving,
            _ => DrainPhase::Leaving,
        };
        if phase == DrainPhase::Leaving && left <= Duration::ZERO {
            plan.due.push(NodeWrite::of(node).drained());
        } else if phase == DrainPhase::Leaving {
            plan.next = Some(plan.next.map_or(left, |next| next.min(left)));
        }
        let (name, id) = (node.description.hostname.clone(), node.id.clone());
        plan.drains.push(DrainStatus { node: name, id, phase, tasks });
    }
    plan.drains.sort_by(|one, other| one.node.cmp(&other.node));
    plan
}

impl NodeWrite {
    fn of(node: &Node) -> Self {
        let name = node.description.hostname.clone();
        Self { id: node.id.clone(), version: node.version.index, name, spec: node.spec.clone() }
    }

    fn drained(mut self) -> Self {
        DRAINED.clone_into(&mut self.spec.availability);
        self
    }
}

fn since(node: &Node) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(node.spec.labels.as_ref()?.get(LABEL)?, &Rfc3339).ok()
}

/// By host name, else by ID or the beginning of one.
fn find<'a>(nodes: &'a [Node], name: &str) -> Result<&'a Node, String> {
    let named: Vec<&Node> = nodes.iter().filter(|node| node.description.hostname == name).collect();
    let by_id = |node: &&Node| node.id == name || (name.len() >= ID_PREFIX_MIN && node.id.starts_with(name));
    let found = if named.is_empty() { nodes.iter().filter(by_id).collect() } else { named };
    match found[..] {
        [node] => Ok(node),
        [] => {
            let known: Vec<&str> = nodes.iter().map(|node| node.description.hostname.as_str()).collect();
            Err(format!("there is no node {name}; known nodes: {}", known.join(", ")))
        }
        _ => {
            let ids: Vec<&str> = found.iter().map(|node| node.id.as_str()).collect();
            Err(format!("{name} names several nodes; say which by its ID: {}", ids.join(", ")))
        }
    }
}

/// Tasks that still run on a node.
fn tasks_on(observed: &Observed, node: &str) -> usize {
    let alive = ["running", "starting", "preparing", "ready", "assigned", "accepted"];
    let on_node = observed.tasks.values().flatten().filter(|task| task.node_id == node);
    on_node.filter(|task| alive.contains(&task.status.state.as_str())).count()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::spec::Task;

    const NOW: OffsetDateTime = datetime!(2026-01-02 03:04:05 UTC);
    const WAIT: Duration = Duration::seconds(10);

    fn node(name: &str, availability: &str, label: Option<&str>) -> Node {
        let labels = label.map(|since| json!({LABEL: since}));
        serde_json::from_value(json!({
            "ID": format!("id-{name}"), "Version": {"Index": 7},
            "Spec": {"Name": "kept", "Role": "worker", "Availability": availability, "Labels": labels},
            "Description": {"Hostname": name},
        }))
        .unwrap()
    }

    fn observed(node: &Node, running: usize) -> Observed {
        let task = |n| Task { id: format!("t{n}"), node_id: node.id.clone(), ..Task::default() };
        let tasks = (0..running).map(|n| {
            let mut task = task(n);
            "running".clone_into(&mut task.status.state);
            task
        });
        Observed::new(Vec::new(), tasks.collect(), Vec::new(), Vec::new(), Vec::new(), vec![node.clone()])
    }

    /// The phase, the availability that is written, and the seconds until the next look.
    #[track_caller]
    fn check(node: &Node, running: usize, expect: (DrainPhase, Option<&str>, Option<i64>)) {
        let plan = drains(&observed(node, running), WAIT, NOW);
        let written = plan.due.first().map(|write| write.spec.availability.as_str());
        assert_eq!((plan.drains[0].phase, written, plan.next.map(Duration::whole_seconds)), expect);
    }

    #[test]
    fn clients_have_their_time_before_swarm_moves_anything() {
        check(&node("n1", "active", Some("2026-01-02T03:04:01Z")), 2, (DrainPhase::Leaving, None, Some(6)));
        check(&node("n1", "active", Some("2026-01-02T03:03:55Z")), 2, (DrainPhase::Leaving, Some("drain"), None));
        check(&node("n1", "drain", Some("2026-01-02T03:03:55Z")), 2, (DrainPhase::Moving, None, None));
        check(&node("n1", "drain", Some("2026-01-02T03:03:55Z")), 0, (DrainPhase::Done, None, None));
        // The clock was set back by an hour.
        check(&node("n1", "active", Some("2026-01-02T04:04:05Z")), 0, (DrainPhase::Leaving, None, Some(10)));
    }

    #[test]
    fn an_order_is_written_once_and_undone_with_what_was_there_before() {
        let write = begin(&[node("n1", "active", None)], "n1", NOW).unwrap().unwrap();
        assert_eq!((write.id.as_str(), write.version, write.spec.availability.as_str()), ("id-n1", 7, "active"));
        assert_eq!(write.spec.labels.unwrap()[LABEL], "2026-01-02T03:04:05Z");
        assert_eq!(write.spec.extra["Name"], "kept");
        let drained = [node("n1", "drain", Some("2026-01-02T03:04:05Z"))];
        assert_eq!(begin(&drained, "n1", NOW).unwrap(), None);
        let undone = end(&drained, "n1").unwrap().unwrap().spec;
        assert_eq!((undone.availability.as_str(), undone.labels.unwrap().len()), ("active", 0));
        assert_eq!(end(&[node("n1", "active", None)], "n1").unwrap(), None);
    }

    #[test]
    fn a_node_is_named_by_host_or_id() {
        let nodes = [node("n1", "active", None), node("n2", "active", None), node("n2", "active", None)];
        assert!(begin(&nodes, "id-n1", NOW).unwrap().is_some());
        assert_eq!(begin(&nodes, "n3", NOW).unwrap_err(), "there is no node n3; known nodes: n1, n2, n2");
        assert_eq!(begin(&nodes, "n2", NOW).unwrap_err(), "n2 names several nodes; say which by its ID: id-n2, id-n2");
    }
}
