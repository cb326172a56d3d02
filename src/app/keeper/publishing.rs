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
    pub(super) async fn publish_services(&mut self, observed: &Observed, plans: &[Plan]) {
        let live = observed.services.values();
        let mut facts: BTreeMap<&str, ServiceFacts> =
            live.map(|live| (live.spec.name.as_str(), ServiceFacts::of(&live.spec, live.endpoint.as_ref()))).collect();
        for spec in plans.iter().flat_map(Plan::service_writes) {
            let endpoint = observed.services.get(&spec.name).and_then(|live| live.endpoint.as_ref());
            facts.insert(&spec.name, ServiceFacts::of(spec, endpoint));
        }
        let values =
            facts.into_iter().filter_map(|(name, facts)| Some((name.to_owned(), serde_json::to_value(facts).ok()?)));
        let result = self.boards.services.publish(values.collect()).await.map(drop).map_err(|error| error.to_string());
        self.say_published(result);
    }

    /// Publishes drains, and lets swarm move the tasks of nodes whose clients have had their time.
    pub(super) async fn drain(&mut self, observed: &Observed) {
        let plan = drain::drains(observed, self.parts.settings.drain_wait, OffsetDateTime::now_utc());
        let values: BTreeMap<String, Value> = plan.drains.iter().map(|drain| (drain.node.clone(), json!({}))).collect();
        let published = self.boards.drains.publish(values).await.map(drop).map_err(|error| error.to_string());
        let is_published = published.is_ok();
        self.say_published(published);
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

    fn say_published(&mut self, result: Result<(), String>) {
        let problem = result.err();
        match (&self.memory.publishing, &problem) {
            (None, Some(error)) => {
                warn!(error, "agents do not hear of services and drains; their entries stay as they are");
            }
            (Some(_), None) => info!("agents hear of services and drains again"),
            _ => {}
        }
        self.memory.publishing = problem;
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
