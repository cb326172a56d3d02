//! Networks whose definition changed: swarm cannot change one, so it is made anew, if `recreate: true` says so.
//!
//! That comes last, when everything else of the revision has converged, and takes these passes:
//!
//! 1. what is about to be done is recorded, with what git does not say of the services on the network, and they are removed;
//! 2. when their tasks have ended the network is removed;
//! 3. when it is gone it is made as git says, and the services come back, all at once: they ran together before.
//!
//! A successor finds in the record what is still to be done. Nothing fails at a deadline before the services are back: to give up half-way
//! would leave them away. A network is not made anew while somebody else's service or a plain container is on it, while one of our own
//! services on it is held or was changed by hand (it would come back as git says), nor twice for the same definition: swarm may store
//! it otherwise than we compare it.

use std::collections::BTreeSet;

use super::{Action, Change, NoteKind, Planner, Step};
use crate::model::{DesiredStack, Location};
use crate::spec::{NetworkSpec, Service, ServiceSpec, Task, TaskTemplate};
use crate::stacks::diff::Difference;
use crate::stacks::images::familiar_live_text;
use crate::stacks::state::{Image, Kept, Kind, Remaking};
use crate::status::StackState as Verdict;

/// Digits of a container's ID that people are shown.
const CONTAINER_DIGITS: usize = 12;

/// A network that is not as git says.
#[derive(Debug, Clone)]
pub(super) struct ChangedNetwork {
    pub name: String,
    pub id: String,
    /// What differs.
    pub differences: Vec<&'static str>,
    /// Fingerprint of the definition in git.
    pub fingerprint: String,
    pub location: Option<Location>,
}

impl<'a> Planner<'a> {
    /// Notes that a network is not as git says; its services are not known yet.
    pub(super) fn network_changed(
        &mut self,
        spec: &NetworkSpec,
        id: &str,
        differences: Vec<&'static str>,
        location: Option<Location>,
    ) {
        let is_under_way =
            self.remaking().is_some_and(|remaking| remaking.networks.get(&spec.name).is_some_and(|old| old == id));
        if is_under_way {
            return;
        }
        let fingerprint = self.input.key.fingerprint("network", spec);
        let (name, id) = (spec.name.clone(), id.to_owned());
        self.changed_networks.push(ChangedNetwork { name, id, differences, fingerprint, location });
    }

    /// Shows every changed network, and the services that go with it, or why it stays.
    pub(super) fn list_remakes(&mut self, desired: &DesiredStack) {
        let mut shown = BTreeSet::new();
        for network in std::mem::take(&mut self.changed_networks) {
            let waits = self.why_not_remade(desired, &network);
            self.plan.changes.push(change(Kind::Network, &network.name, &network, waits.clone()));
            if let Some(reason) = waits {
                let kind = if self.manages() { NoteKind::Drift } else { NoteKind::Remark };
                self.note(
                    kind,
                    format!("network {} needs recreate ({}): {reason}", network.name, network.differences.join(", ")),
                );
                continue;
            }
            for service in self.services_on(&network.id) {
                let name = service.spec.name.clone();
                if shown.insert(name.clone()) {
                    let restart = super::services::restart(service, self.input.observed.tasks(&service.id));
                    let waits = Some("when the others have converged".to_owned());
                    let change = change(Kind::Service, &name, &network, waits);
                    self.plan.changes.push(Change { restarts: Some(restart), ..change });
                }
                self.taken_off.insert(name);
            }
            self.remakes.push(network);
        }
    }

    fn why_not_remade(&self, desired: &DesiredStack, network: &ChangedNetwork) -> Option<String> {
        if !self.manages() {
            return Some(
                "swarm cannot change a network: remove the services on it and the network, and deploy again".to_owned(),
            );
        }
        if !desired.settings.recreate {
            return Some("only with `recreate: true` in stack.yml".to_owned());
        }
        if self.state.remade.get(&network.name) == Some(&network.fingerprint) {
            return Some("it was made anew so already, and swarm made something else of it".to_owned());
        }
        for service in self.services_on(&network.id) {
            let name = &service.spec.name;
            if !self.state.owned.has(Kind::Service, name, &service.id) {
                return Some(format!("service {name}, which is not this stack's, is on it"));
            }
            let of_service = |change: &&Change| change.kind == Kind::Service && change.name == *name;
            let change = self.plan.changes.iter().find(of_service);
            if let Some(reason) =
                change.filter(|_| !self.pending.contains(name)).and_then(|change| change.waits.as_ref())
            {
                return Some(format!("{name}, which is on it, is not as git says: {reason}"));
            }
        }
        self.container_on(&network.id).map(|container| format!("{container} is on it"))
    }

    /// Services of the whole swarm that are on a network.
    fn services_on(&self, id: &str) -> Vec<&'a Service> {
        self.input.observed.swarm.services.values().filter(|service| is_on(&service.spec.task_template, id)).collect()
    }

    /// True if a task is on a network and may still run.
    fn may_use(&self, task: &Task, id: &str) -> bool {
        is_on(&task.spec, id) && self.may_run(task)
    }

    /// A container that no service made and that joined the network.
    fn container_on(&self, id: &str) -> Option<String> {
        let swarm = self.input.observed.swarm;
        let task = swarm.attachments.iter().find(|task| self.may_use(task, id))?;
        let container = task.spec.extra.get("NetworkAttachmentSpec").and_then(|spec| spec.get("ContainerID"));
        let container = container.and_then(serde_json::Value::as_str).unwrap_or_default();
        let container = container.get(..CONTAINER_DIGITS).unwrap_or(container);
        let node = swarm.nodes.get(&task.node_id).map_or("", |node| node.description.hostname.as_str());
        Some(format!("container {container} on {node}"))
    }

    /// Takes the services off the networks to be made anew, all else having converged; false if there is no such network.
    pub(super) fn begin_to_remake(&mut self) -> bool {
        let networks = std::mem::take(&mut self.remakes);
        if networks.is_empty() {
            return false;
        }
        let swarm = self.input.observed.swarm;
        let taken = self.taken_off.iter().filter_map(|name| swarm.services.get(name));
        let services = taken.map(|live| (live.spec.name.clone(), kept(&live.spec))).collect();
        let remaking = Remaking {
            networks: networks.iter().map(|network| (network.name.clone(), network.id.clone())).collect(),
            services,
        };
        for network in networks {
            self.state.remade.insert(network.name, network.fingerprint);
        }
        for change in &mut self.plan.changes {
            change.waits.take_if(|_| change.action == Action::Recreate);
        }
        if let Some(intent) = &mut self.state.rollout {
            intent.remaking = Some(remaking);
        }
        self.go_on_remaking()
    }

    /// Removes what has to go before the networks can be made anew; false once the old ones are gone.
    pub(super) fn go_on_remaking(&mut self) -> bool {
        let Some(remaking) = self.remaking().cloned() else { return false };
        let old: Vec<(&String, &String)> = remaking.networks.iter().filter(|(name, id)| self.lives(name, id)).collect();
        if old.is_empty() {
            return false;
        }
        let order = self.services_in_removal_order();
        for name in order {
            let live = self.input.observed.swarm.services.get(&name);
            let is_on_one = |live: &&Service| old.iter().any(|(_, id)| is_on(&live.spec.task_template, id));
            if let Some(live) =
                live.filter(|live| self.state.owned.has(Kind::Service, &name, &live.id)).filter(is_on_one)
            {
                let (kind, id) = (Kind::Service, live.id.clone());
                self.plan.steps.push(Step::Remove { kind, id, name });
            }
        }
        for (name, id) in old {
            let mut tasks = self.input.observed.swarm.tasks.values().flatten();
            let is_used = !self.services_on(id).is_empty() || tasks.any(|task| self.may_use(task, id));
            if is_used {
                self.note(NoteKind::Waiting, format!("network {name} is made anew when the tasks on it have ended"));
            } else {
                self.plan.steps.push(Step::Remove { kind: Kind::Network, id: id.clone(), name: name.clone() });
            }
        }
        self.plan.verdict = Verdict::Rolling;
        true
    }

    /// The network that services wait for, because it is about to be removed and made anew.
    pub(super) fn network_in_the_way(&self) -> Option<String> {
        let networks = &self.remaking()?.networks;
        networks.iter().find(|(name, id)| self.lives(name, id)).map(|(name, _)| name.clone())
    }

    /// What git does not say of a service that was taken off a network, until it lives again.
    pub(super) fn kept(&self, service: &str) -> Option<&Kept> {
        self.remaking()?.services.get(service)
    }

    fn remaking(&self) -> Option<&Remaking> {
        self.state.rollout.as_ref()?.remaking.as_ref()
    }

    /// True if the network of this name is still this very one.
    fn lives(&self, name: &str, id: &str) -> bool {
        self.input.observed.swarm.networks.get(name).is_some_and(|network| network.id == id)
    }
}

fn is_on(template: &TaskTemplate, network: &str) -> bool {
    template.networks.iter().flatten().any(|attachment| attachment.target == network)
}

fn kept(spec: &ServiceSpec) -> Kept {
    let placement = spec.task_template.placement.as_ref();
    let platforms = placement.and_then(|placement| placement.platforms.clone()).unwrap_or_default();
    Kept {
        replicas: spec.mode.replicated.as_ref().and_then(|replicated| replicated.replicas),
        force_update: spec.task_template.force_update,
        text: familiar_live_text(spec),
        image: Image { image: spec.task_template.container_spec.image.clone(), platforms },
    }
}

fn change(kind: Kind, name: &str, network: &ChangedNetwork, waits: Option<String>) -> Change {
    let difference = |what: String| Difference {
        what,
        old: None,
        new: None,
        location: network.location.clone(),
        restarts: kind == Kind::Service,
    };
    let whats = match kind {
        Kind::Service => vec![format!("network {}", network.name)],
        _ => network.differences.iter().map(|what| (*what).to_owned()).collect(),
    };
    Change {
        kind,
        name: name.to_owned(),
        action: Action::Recreate,
        differences: whats.into_iter().map(difference).collect(),
        restarts: None,
        waits,
        location: network.location.clone(),
    }
}
