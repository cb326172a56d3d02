//! What Consul's checks say about the tasks of a rollout: `consul_checks: true` of `stack.yml`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Planner;
use crate::spec::Task;
use crate::stacks::rollout::{Progress, judge};

/// The tasks of critical instances, with the check's name, by the IDs that we and registrator register instances with:
/// `<node>:<stack>_<service>.<slot>.<task>:<port>`. One with a `SERVICE_ID` of its own is not known to be a task's.
pub fn critical_tasks(instances: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let task = |id: &str| Some(id.split(':').nth(1)?.rsplit_once('.')?.1.to_owned());
    instances.into_iter().filter_map(|(id, check)| Some((task(&id)?, check))).collect()
}

impl Planner<'_> {
    /// How a live service's rollout goes.
    pub(super) fn progress_of(&self, name: &str) -> Option<Progress> {
        let swarm = self.input.observed.swarm;
        let service = swarm.services.get(name)?;
        let tasks = self.input.observed.tasks(&service.id);
        let asks = self.input.desired.is_some_and(|desired| desired.settings.consul_checks);
        let tasks = match swarm.critical.as_ref().filter(|_| asks) {
            Some(critical) => Cow::Owned(as_consul_sees_them(tasks, critical)),
            None => Cow::Borrowed(tasks),
        };
        Some(judge(service, &tasks, &swarm.nodes, self.window(), self.input.now))
    }
}

/// Swarm's own word for a task whose HEALTHCHECK has not passed yet is `starting`; so it is with one that Consul calls critical.
/// While Consul does not say, none has passed.
fn as_consul_sees_them(tasks: &[Task], critical: &Result<BTreeMap<String, String>, String>) -> Vec<Task> {
    let why_not = |task: &Task| match critical {
        Ok(critical) => critical.get(&task.id).map(|check| format!("Consul's check {check:?} is critical")),
        Err(reason) => Some(format!("Consul's checks are not known: {reason}")),
    };
    let mut tasks = tasks.to_vec();
    for task in tasks.iter_mut().filter(|task| task.status.state == "running") {
        if let Some(reason) = why_not(task) {
            "starting".clone_into(&mut task.status.state);
            task.status.err = reason;
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stacks::world::{World, stack};
    use crate::status::StackState as Verdict;

    #[test]
    fn an_instance_is_a_tasks_by_its_id() {
        let instances = [
            ("m1:shop_api.1.x7hqd:8080", "Service 'api' check"),
            ("m1:by-hand:80", "a container"),
            ("own-id", "somebody's"),
        ];
        let found = critical_tasks(instances.map(|(id, check)| (id.to_owned(), check.to_owned())));
        assert_eq!(found, [("x7hqd".to_owned(), "Service 'api' check".to_owned())].into());
    }

    #[test]
    fn a_rollout_waits_for_consuls_checks_if_it_is_asked_to() {
        let at = |revision: &str, tag: &str, asked: bool| {
            let mut desired = stack(revision, &[&format!("api app:{tag}")]);
            desired.settings.consul_checks = asked;
            desired
        };
        let mut world = World::new();
        world.settle(Some(&at("aaa", "1", true)));
        world.pass(Some(&at("bbb", "2", true)));
        let tasks: Vec<String> = world.observed.tasks.values().flatten().map(|task| task.id.clone()).collect();
        world.observed.critical = Some(Ok(tasks.into_iter().map(|task| (task, "alive".to_owned())).collect()));
        world.now += time::Duration::minutes(1);
        assert_eq!(world.pass(Some(&at("bbb", "2", true))).verdict, Verdict::Rolling);
        world.now += time::Duration::minutes(30);
        let plan = world.pass(Some(&at("bbb", "2", true)));
        assert_eq!(plan.verdict, Verdict::Held);
        assert!(plan.to_string().contains("one is starting: Consul's check \"alive\" is critical"), "{plan}");
        assert_eq!(world.settle(Some(&at("ccc", "3", false))).verdict, Verdict::Ok, "nobody asked Consul");
    }
}
