//! What the leader publishes for agents, and the drains that it carries out by that.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use time::OffsetDateTime;
use tracing::{info, warn};

use super::orders::unavailable;
use super::{Keeper, ROLLING};
use crate::http::{CommandError, CommandErrorKind};
use crate::registration::StackHealth;
use crate::spec::ServiceFacts;
use crate::stacks::drain::{self, NodeWrite};
use crate::stacks::{Observed, Plan};
use crate::status::{DrainPhase, StackState, StackStatus};

impl Keeper {
    /// Tells agents what they need to know of every service, those that `plans` are about to write included: a task may start before
    /// anyone knows more of its service than its name.
    ///
    /// Without `plans`, what the last ones were about to write still counts: one that fails again and again must not make agents look
    /// twice at every pass.
    pub(super) async fn publish_services(&mut self, observed: &Observed, plans: Option<&[Plan]>) {
        let endpoint = |name: &String| observed.services.get(name).and_then(|live| live.endpoint.as_ref());
        if let Some(plans) = plans {
            let writes = plans.iter().flat_map(Plan::service_writes);
            self.memory.planned =
                writes.map(|spec| (spec.name.clone(), ServiceFacts::of(spec, endpoint(&spec.name)))).collect();
        }
        let live = observed.services.values().map(|live| &live.spec);
        let mut facts: BTreeMap<String, ServiceFacts> =
            live.map(|spec| (spec.name.clone(), ServiceFacts::of(spec, endpoint(&spec.name)))).collect();
        facts.extend(self.memory.planned.clone());
        let values = facts.into_iter().filter_map(|(name, facts)| Some((name, serde_json::to_value(facts).ok()?)));
        let Some(boards) = &mut self.boards else { return };
        let result = boards.services.publish(values.collect()).await;
        self.say_published("services", result.map_err(|error| error.to_string()));
    }

    /// Publishes drains, and lets swarm move the tasks of nodes whose clients have had their time.
    pub(super) async fn drain(&mut self, observed: &Observed) {
        let plan = drain::drains(observed, self.parts.settings.drain_wait, OffsetDateTime::now_utc());
        let values: BTreeMap<String, Value> = plan.drains.iter().map(|drain| (drain.node.clone(), json!({}))).collect();
        // Without Consul there is nobody to tell.
        let published = match &mut self.boards {
            Some(boards) => boards.drains.publish(values).await,
            None => Ok(0),
        };
        let is_published = published.is_ok();
        self.say_published("drains", published.map_err(|error| error.to_string()));
        let moving = plan.drains.iter().any(|drain| drain.phase == DrainPhase::Moving);
        let next = plan.next.and_then(|next| next.try_into().ok());
        self.memory.drain_pause =
            [next, (moving || !plan.due.is_empty()).then_some(ROLLING)].into_iter().flatten().min();
        self.memory.drains = plan.drains;
        // Clients that were never told have had no time.
        for write in plan.due.iter().filter(|_| is_published) {
            match self.write_node(write).await {
                Ok(()) => info!(node = write.name, "drained: swarm moves its tasks now"),
                Err(error) => warn!(node = write.name, error = error.error, "not drained yet"),
            }
        }
    }

    /// Begins or ends a drain.
    pub(super) async fn obey_drain(&self, node: &str, undo: bool) -> Result<String, CommandError> {
        let nodes = self.parts.swarm.nodes().await.map_err(|error| unavailable(error.to_string()))?;
        let write = if undo { drain::end(&nodes, node) } else { drain::begin(&nodes, node, OffsetDateTime::now_utc()) };
        let write = write.map_err(|error| CommandError {
            kind: CommandErrorKind::NotFound,
            error,
            next: "`docker node ls` lists the nodes".into(),
        })?;
        if let Some(write) = &write {
            self.write_node(write).await?;
            info!(node = write.name, undo, "drain ordered");
        }
        let wait = self.parts.settings.drain_wait.whole_seconds();
        Ok(match (undo, write.is_some()) {
            (false, true) => format!("{node} leaves DNS now; swarm moves its tasks in {wait} s"),
            (false, false) => format!("{node} is being drained already"),
            (true, true) => format!("{node} is active again"),
            (true, false) => format!("{node} was not drained"),
        })
    }

    async fn write_node(&self, NodeWrite { id, version, spec, .. }: &NodeWrite) -> Result<(), CommandError> {
        self.parts.swarm.node_update(id, *version, spec).await.map_err(|error| unavailable(error.to_string()))
    }

    /// Shows the stacks in Consul's UI, as checks of this agent's service.
    pub(super) fn show_in_consul(&self, stacks: &[StackStatus]) {
        let stacks: BTreeMap<String, StackHealth> =
            stacks.iter().map(|stack| (stack.name.to_string(), health(stack))).collect();
        self.parts.self_state.send_if_modified(|state| {
            let changes = state.stacks != stacks;
            state.stacks = stacks;
            changes
        });
    }

    /// What is known of the stacks may not be so any more.
    pub(super) fn doubt_in_consul(&self, problem: &str) {
        self.parts.self_state.send_if_modified(|state| {
            let doubted = StackHealth { is_well: false, text: format!("not known: {problem}") };
            let changes = state.stacks.values().any(|health| *health != doubted);
            state.stacks.values_mut().for_each(|health| health.clone_from(&doubted));
            changes
        });
    }

    /// Says the first of a row of failures, and its end.
    fn say_published(&mut self, what: &'static str, result: Result<usize, String>) {
        match result {
            Ok(_) if self.memory.unpublished.remove(what) => info!(what, "agents hear of it again"),
            Err(error) if self.memory.unpublished.insert(what) => {
                warn!(what, error, "agents do not hear of it; their entries stay as they are");
            }
            _ => {}
        }
    }
}

fn health(stack: &StackStatus) -> StackHealth {
    let revision = stack.revision.as_ref().map_or_else(|| "no revision".to_owned(), ToString::to_string);
    let note = &stack.note;
    let text = match stack.state {
        StackState::Ok => format!("{revision}, in sync: {note}"),
        state => format!("{revision}, {}: {note}", state.word()),
    };
    StackHealth { is_well: !stack.state.needs_a_person(), text }
}
