//! What goes: services that git no longer has, what nothing uses any more, and whole stacks. Only what we own, and never a volume.

use std::collections::{BTreeMap, BTreeSet};

use super::objects::content_id;
use super::{Action, Change, Event, NoteKind, Orphans, Planner, Step};
use crate::model::{DesiredStack, Wanted};
use crate::spec::{Task, TaskTemplate};
use crate::stacks::order::layers;
use crate::stacks::state::Kind;
use crate::status::StackState as Verdict;

/// Where a removal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// Nothing is left to remove, or what is left is planned now.
    Done,
    /// Tasks of removed services still end.
    Waits,
}

impl Planner<'_> {
    /// Git no longer has the stack: kept, unless somebody or the policy says otherwise.
    pub(super) fn orphan(&mut self) {
        let is_wanted = self.state.remove || self.input.policy.orphans == Orphans::Remove;
        if is_wanted || self.state.owned.is_empty() {
            return self.remove_all();
        }
        let services = self.state.owned.services.len();
        let text = format!("not in git any more; its {services} services are kept");
        self.stop(NoteKind::Orphan, text.clone());
        self.tell_once(Event::Orphaned, "orphaned", text);
    }

    /// Removes all that we own of the stack, and then its state.
    pub(super) fn remove_all(&mut self) {
        self.plan.to = None;
        if self.input.observed.live.is_none() {
            let strangers = self.input.observed.services().count();
            if strangers > 0 {
                let stack = self.input.stack;
                let text =
                    format!("{strangers} services run that are not ours; `docker stack rm {stack}` removes them");
                self.note(NoteKind::Remark, text);
            }
            self.plan.settled = true;
            return;
        }
        self.plan.verdict = Verdict::Rolling;
        for name in self.services_in_removal_order() {
            self.remove_if_owned(Kind::Service, &name);
        }
        if !self.plan.steps.is_empty() {
            return;
        }
        let all = |kind: Kind| self.state.owned.of(kind).keys().cloned().collect::<Vec<_>>();
        let names: Vec<(Kind, Vec<String>)> = Kind::ALL.into_iter().map(|kind| (kind, all(kind))).collect();
        if self.remove_objects(&names, &Kind::ALL) == Removal::Done {
            self.plan.steps.push(Step::Forget);
            self.tell(Event::Removed, None, "removed; its volumes are kept");
        }
    }

    /// Lists the services that git no longer has; they are removed last.
    pub(super) fn list_removals(&mut self, desired: &DesiredStack) {
        for (name, id) in self.unwanted_services(desired) {
            if self.input.observed.swarm.services.get(&name).is_some_and(|live| live.id == id) {
                let mut change = removal(Kind::Service, &name);
                change.waits = Some("when the others have converged".into());
                self.plan.changes.push(change);
            } else {
                self.state.owned.services.remove(&name);
            }
        }
    }

    /// Removes what git no longer has, all else having converged; true when nothing is left of it.
    pub(super) fn prune(&mut self, desired: &DesiredStack) -> bool {
        let order = self.services_in_removal_order();
        let unwanted: BTreeMap<String, String> = self.unwanted_services(desired).into_iter().collect();
        self.plan.changes.retain(|change| change.action != Action::Remove);
        for name in order.iter().filter(|name| unwanted.contains_key(*name)) {
            self.remove_if_owned(Kind::Service, name);
        }
        self.plan.steps.is_empty() && self.prune_objects(desired)
    }

    /// Removes networks, secrets and configs of ours that git no longer has and nothing uses; false while tasks still end.
    pub(super) fn prune_objects(&mut self, desired: &DesiredStack) -> bool {
        let wanted = self.wanted_names(desired);
        let unwanted = |kind: Kind| {
            let of_kind = wanted.get(&kind).cloned().unwrap_or_default();
            self.state.owned.of(kind).keys().filter(|name| !of_kind.contains(*name)).cloned().collect::<Vec<_>>()
        };
        let names: Vec<_> =
            [Kind::Network, Kind::Secret, Kind::Config].into_iter().map(|kind| (kind, unwanted(kind))).collect();
        // A secret that a task still reads is left for a later pass. A network is waited for: its subnet may be wanted again.
        self.remove_objects(&names, &[Kind::Network]) == Removal::Done
    }

    fn remove_objects(&mut self, names: &[(Kind, Vec<String>)], waited_for: &[Kind]) -> Removal {
        let (by_services, by_tasks) = self.in_use();
        let mut removal = Removal::Done;
        for (kind, names) in names.iter().filter(|(kind, _)| *kind != Kind::Service) {
            for name in names {
                let Some(id) = self.state.owned.of(*kind).get(name).cloned() else { continue };
                if by_services.contains(&id) {
                    // A service still refers to it, or swarm's own rollback would.
                    continue;
                }
                if !by_tasks.contains(&id) {
                    self.remove_if_owned(*kind, name);
                } else if waited_for.contains(kind) {
                    self.note(NoteKind::Waiting, format!("{} {name}: tasks that use it still end", kind.word()));
                    removal = Removal::Waits;
                }
            }
        }
        removal
    }

    /// IDs that services of the whole swarm refer to, now or in the spec before, and IDs that tasks use which may still run.
    fn in_use(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let swarm = self.input.observed.swarm;
        let (mut by_services, mut by_tasks) = (BTreeSet::new(), BTreeSet::new());
        for service in swarm.services.values() {
            collect_ids(&service.spec.task_template, &mut by_services);
            if let Some(previous) = &service.previous_spec {
                collect_ids(&previous.task_template, &mut by_services);
            }
        }
        for task in swarm.tasks.values().flatten().filter(|task| self.may_run(task)) {
            collect_ids(&task.spec, &mut by_tasks);
        }
        (by_services, by_tasks)
    }

    /// True unless a task has ended, or is to end on a node that is down, which cannot tell.
    pub(super) fn may_run(&self, task: &Task) -> bool {
        let state = task.status.state.as_str();
        let has_ended = matches!(state, "complete" | "shutdown" | "failed" | "rejected" | "orphaned" | "remove");
        let node = self.input.observed.swarm.nodes.get(&task.node_id);
        let is_to_end = matches!(task.desired_state.as_str(), "shutdown" | "remove");
        let cannot_tell = is_to_end && node.is_some_and(|node| node.status.state == "down");
        !has_ended && !cannot_tell
    }

    /// Removes an object that is ours by ID; one that is gone, or that another took the name of, is only forgotten.
    fn remove_if_owned(&mut self, kind: Kind, name: &str) {
        let Some(id) = self.state.owned.of(kind).get(name).cloned() else { return };
        if self.live_id(kind, name).as_ref() == Some(&id) {
            self.remove(kind, name, &id);
        } else {
            self.state.owned.of_mut(kind).remove(name);
        }
    }

    pub(super) fn remove(&mut self, kind: Kind, name: &str, id: &str) {
        self.plan.changes.push(removal(kind, name));
        self.plan.steps.push(Step::Remove { kind, id: id.to_owned(), name: name.to_owned() });
    }

    fn unwanted_services(&self, desired: &DesiredStack) -> Vec<(String, String)> {
        let wanted: BTreeSet<&str> =
            desired.objects.services.values().map(|service| service.spec.name.as_str()).collect();
        let owned = self.state.owned.services.iter();
        owned.filter(|(name, _)| !wanted.contains(name.as_str())).map(|(n, id)| (n.clone(), id.clone())).collect()
    }

    /// Those that depend on others go first.
    pub(super) fn services_in_removal_order(&self) -> Vec<String> {
        let edges: BTreeMap<&str, BTreeSet<&str>> = self
            .state
            .owned
            .services
            .keys()
            .map(|name| {
                let needs = self.state.baselines.get(name).into_iter().flat_map(|baseline| &baseline.depends_on);
                (name.as_str(), needs.map(String::as_str).collect())
            })
            .collect();
        layers(&edges).into_iter().rev().flatten().map(str::to_owned).collect()
    }

    /// Names in the swarm of what git wants, by kind.
    fn wanted_names(&self, desired: &DesiredStack) -> BTreeMap<Kind, BTreeSet<String>> {
        let mut names: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
        for wanted in desired.objects.networks.values() {
            if let Wanted::Own { spec, .. } = wanted {
                names.entry(Kind::Network).or_default().insert(spec.name.clone());
            }
        }
        for (kind, name) in self.plan.ids.keys() {
            names.entry(*kind).or_default().insert(name.clone());
        }
        for (kind, name) in self.previous_generations(desired) {
            names.entry(kind).or_default().insert(name);
        }
        names
    }

    /// The generations before the present ones, of secrets and configs that git still has.
    fn previous_generations(&self, desired: &DesiredStack) -> Vec<(Kind, String)> {
        let of = |kind: Kind, key: &String| {
            let content = self.state.contents.get(&content_id(kind, key))?;
            Some((kind, content.previous.as_ref()?.name.clone()))
        };
        let secrets = desired.objects.secrets.keys().filter_map(|key| of(Kind::Secret, key));
        let configs = desired.objects.configs.keys().filter_map(|key| of(Kind::Config, key));
        secrets.chain(configs).collect()
    }
}

fn removal(kind: Kind, name: &str) -> Change {
    Change {
        kind,
        name: name.to_owned(),
        action: Action::Remove,
        differences: Vec::new(),
        restarts: None,
        waits: None,
        location: None,
    }
}

/// IDs of networks, secrets and configs that tasks of this kind use.
fn collect_ids(template: &TaskTemplate, ids: &mut BTreeSet<String>) {
    let container = &template.container_spec;
    ids.extend(template.networks.iter().flatten().map(|network| network.target.clone()));
    ids.extend(container.secrets.iter().flatten().map(|secret| secret.secret_id.clone()));
    ids.extend(container.configs.iter().flatten().map(|config| config.config_id.clone()));
    let credentials = container.privileges.as_ref().and_then(|privileges| privileges.credential_spec.as_ref());
    ids.extend(credentials.map(|credentials| credentials.config.clone()));
}
