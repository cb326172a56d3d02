//! Containers → Consul, on every node.
//!
//! # Flow
//!
//! `observe` (what the engine runs, what the Consul agent has) → [`plan`](mod@plan) (pure) → one write after another. One loop, one
//! writer. Events of the engine only say which container to look at again and wake the loop; every pass lists anew, at the latest
//! after [`PASS_INTERVAL`].
//!
//! # Guarantees
//!
//! * A pass that finds everything as it should be writes nothing, apart from repeating TTL checks before they run out.
//! * Only entries that bear our owner are changed or removed, and only after a complete list of containers. While the engine is
//!   silent, nothing is removed; when we end, nothing is.
//! * A container that started is in Consul after one list, one inspection and one write; one that died leaves as fast, and one that is
//!   asked to stop is in maintenance, out of DNS, while its process still serves.
//! * Beside registrator every instance is there once. Its entries become ours, or go, when a person says so: see [`leftovers`].
//!
//! # Limits
//!
//! * Writes go one by one, since Consul takes no more at a time; a pass makes at most [`STEPS_MAX`] and the next goes on.
//! * `SERVICE_CHECK_DEREGISTER_AFTER` makes Consul forget an entry whose container still runs; the next pass registers it again.
//! * Ports of swarm's mesh and deploy labels stand on the service, which a node cannot read: the leader publishes them (see [`facts`]),
//!   at once for what it deploys itself and at its next pass for services made by hand. Until then a container is registered as what
//!   it shows of itself.

pub mod adopting;
pub mod convention;
mod entry;
pub mod facts;
pub mod leftovers;
pub mod observe;
mod offers;
pub mod own;
pub mod plan;
pub mod rules;
mod run;
pub mod wanted;

#[cfg(test)]
mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

pub use self::facts::FactKeys;
pub use self::observe::Engine;
pub use self::own::{DiskMarks, Role, SelfState, StackHealth, Trouble};
pub use self::plan::STEPS_MAX;
pub use self::rules::{Rules, TagTemplate};
pub use self::run::{DEBOUNCE, PASS_INTERVAL, RETRY_INTERVAL, run};

use self::entry::{Entry, Standing};
use self::facts::Facts;
use self::observe::{Node, Observer};
use self::own::{DiskLevel, LastPass, Told};
use self::plan::{Containers, Desired, Plan, Registered, Step, plan};
use self::rules::Deregister;
use self::wanted::{MAINTENANCE, Place, Remark, Running, STOPPING, Wanted, service_of};
use crate::io::consul::agent::{AgentWays, maintenance_check};
use crate::io::consul::{self, Consul};
use crate::io::{disk, docker};

/// What registration needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The node's name, as in the swarm: part of default IDs and of the agent's own.
    pub node: String,
    /// Marks our entries. It must stay the same for a node over restarts and updates, and differ from every other node's.
    pub owner: String,
    /// The cluster's name, a tag of the agent's service.
    pub cluster: String,
    /// The node's address for others; none: the one that the Consul agent advertises.
    pub node_address: Option<IpAddr>,
    /// What the operator wants registered, and how.
    pub rules: Rules,
    /// The port of the agent's HTTP API.
    pub http_port: u16,
    /// Where the leader publishes what agents need to know.
    pub facts: FactKeys,
    /// The disk to watch; none for none.
    pub disk: Option<DiskMarks>,
}

impl Options {
    /// Where entries stand, at a Consul agent with these ways.
    fn place(&self, ways: AgentWays) -> Place {
        Place {
            hostname: self.node.clone(),
            owner: self.owner.clone(),
            address: self.node_address.unwrap_or(ways.address),
            runs_scripts: ways.runs_scripts,
            rules: self.rules.clone(),
        }
    }
}

/// Why a pass could not be made, or not to its end; the next one begins anew.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is registered cannot be told, or Consul stopped answering.
    #[error("registrations are not kept: {0}")]
    Consul(#[from] consul::Error),
}

/// What a pass did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Services of containers that are registered by us now.
    pub registered: usize,
    /// Writes made, repeats of TTL checks not counted.
    pub written: usize,
    /// Repeats of TTL checks.
    pub repeated: usize,
    /// True if there was more to do than a pass does, or the pass was ended between two writes.
    pub unfinished: bool,
    /// Why the engine did not tell what it runs; none if it did.
    pub engine: Option<docker::Error>,
    /// What a person should know, as long as it lasts.
    pub remarks: BTreeSet<Remark>,
}

/// Keeps the registrations of one node; remembers nothing that it could not find out again.
#[derive(Debug)]
pub struct Registrar<E> {
    options: Options,
    engine: E,
    consul: Consul,
    observer: Observer,
    facts: Facts,
    /// The Consul agent's ways, until Consul fails.
    ways: Option<AgentWays>,
    disk: DiskLevel,
    last: LastPass,
    /// True once the maintenances of an earlier life have been looked at.
    looked_back: bool,
    /// When we last said how a check stands.
    reported: BTreeMap<String, Instant>,
}

impl<E: Engine> Registrar<E> {
    /// Nothing happens before the first pass.
    pub fn new(options: Options, engine: E, consul: Consul) -> Self {
        Self {
            options,
            engine,
            consul,
            observer: Observer::default(),
            facts: Facts::default(),
            ways: None,
            disk: DiskLevel::default(),
            last: LastPass::default(),
            looked_back: false,
            reported: BTreeMap::new(),
        }
    }

    /// The leader has published something: the next pass reads it.
    pub fn news(&mut self) {
        self.facts.outdated();
    }

    /// Something happened to a container: the next pass looks at it again.
    pub fn mark(&mut self, event: docker::Event, now: Instant) {
        self.observer.mark(event, now);
    }

    /// Observes, plans and writes, until done or, between two writes, `shutdown`.
    pub async fn pass(
        &mut self,
        state: &SelfState,
        now: Instant,
        shutdown: &CancellationToken,
    ) -> Result<Outcome, Error> {
        let outcome = self.try_pass(state, now, shutdown).await;
        if outcome.is_err() {
            // A Consul that was away may have lost everything: take nothing as said.
            self.ways = None;
            self.reported.clear();
        }
        outcome
    }

    async fn try_pass(
        &mut self,
        state: &SelfState,
        now: Instant,
        shutdown: &CancellationToken,
    ) -> Result<Outcome, Error> {
        // Nothing is half done when this is given up: it only reads.
        let observed = async {
            tokio::join!(
                self.observer.observe(&self.engine, now),
                self.consul.agent_services_as::<Entry>(),
                self.consul.agent_checks_as::<Standing>(),
                agent_ways(&self.consul, self.ways),
                self.consul.token_id(),
            )
        };
        let Some((node, services, checks, ways, token_id)) = shutdown.run_until_cancelled(observed).await else {
            return Ok(Outcome { unfinished: true, ..Outcome::default() });
        };
        let (services, checks, ways, token_id) = (services?, checks?, ways?, token_id?);
        self.ways = Some(ways);
        self.reported.retain(|check, _| checks.contains_key(check));
        self.look_back(&services, &checks, now);

        let place = self.options.place(ways);
        let mut outcome = Outcome::default();
        let own = self.own(place.address, &with_engine(state, node.as_ref().err())).made_with(token_id.as_deref());
        let own_id = own.registration.id.clone();
        let node = match node {
            Ok(node) => {
                let stay = self.learn(&node, &services, &mut outcome.remarks).await;
                Some((node, stay))
            }
            Err(error) => {
                outcome.engine = Some(error);
                None
            }
        };

        let reported = &self.reported;
        let registered = Registered { services: &services, checks: &checks, agent_address: ways.address, reported };
        let Plan { steps, remarks, is_cut } =
            self.plan(node.as_ref(), own, &place, token_id.as_deref(), &registered, now);
        outcome.remarks.extend(remarks);
        let ours = services.iter().filter(|(_, entry)| entry.is_of(&self.options.owner));
        let mut ours: BTreeSet<String> = ours.map(|(id, _)| id.clone()).collect();
        // Writing takes longest; nothing of this is needed for it.
        drop((services, checks, node));

        let result = self.apply(steps, is_cut, now, &mut outcome, &mut ours, shutdown).await;
        ours.remove(&own_id);
        outcome.registered = ours.len();
        if outcome.engine.is_none() {
            self.last = LastPass::with(outcome.remarks.iter());
        }
        result.map(|()| outcome)
    }

    /// A container whose stop began before we did is still stopping.
    fn look_back(&mut self, services: &BTreeMap<String, Entry>, checks: &BTreeMap<String, Standing>, now: Instant) {
        if std::mem::replace(&mut self.looked_back, true) {
            return;
        }
        for (id, entry) in services.iter().filter(|(_, entry)| entry.is_of(&self.options.owner)) {
            let reason = checks.get(&maintenance_check(id)).and_then(|check| check.notes.strip_prefix(MAINTENANCE));
            if let (Some(STOPPING), Some(container)) = (reason, &entry.container) {
                self.observer.was_asked_to_stop(container, now);
            }
        }
    }

    /// The agent's own service.
    fn own(&mut self, address: IpAddr, state: &SelfState) -> Wanted {
        let marks = self.options.disk.as_ref();
        let used = marks.and_then(|marks| Some((marks, disk::used_percent(&marks.path).ok()?)));
        let disk = used.map(|(marks, used)| marks.level(used, self.disk));
        self.disk = disk.unwrap_or_default();
        own::wanted(&self.options, address, &Told { state, disk, last: &self.last })
    }

    /// Learns what the leader has published of what runs here, and which containers' entries stay as they are.
    async fn learn(
        &mut self,
        node: &Node,
        services: &BTreeMap<String, Entry>,
        remarks: &mut BTreeSet<Remark>,
    ) -> BTreeSet<String> {
        let names =
            node.containers.iter().filter_map(|container| service_of(container)).map(ToOwned::to_owned).collect();
        if let Err(error) = self.facts.refresh(&self.consul, &self.options.facts, names).await {
            let text = format!("entries that were made with it stay as they are: {error}");
            remarks.insert(Remark { subject: own::SERVICE.to_owned(), text });
        }
        remarks.extend(node.unknown.iter().map(|(id, error)| Remark {
            subject: docker::short(id).to_owned(),
            text: format!("its registration stays as it is: {error}"),
        }));
        let mut stay: BTreeSet<String> = node.unknown.keys().cloned().collect();
        if self.options.rules.deregister == Deregister::OnSuccess {
            stay.extend(self.failed(node, services).await);
        }
        stay
    }

    /// What to write; `node` is what runs and whose entries stay, if the engine told.
    fn plan(
        &self,
        node: Option<&(Node, BTreeSet<String>)>,
        own: Wanted,
        place: &Place,
        token_id: Option<&str>,
        registered: &Registered<'_>,
        now: Instant,
    ) -> Plan {
        let stopping = self.observer.stopping();
        let unpublished = node.map(|(node, _)| wanted::unpublished(&node.containers, &self.facts)).unwrap_or_default();
        let mut said = Vec::new();
        let containers = node.map(|(node, stay)| {
            let running = Running { containers: &node.containers, stopping: &stopping, facts: &self.facts };
            let wanted = wanted::wanted(running, place, &mut said);
            let wanted = Box::new(wanted.map(|wanted| wanted.made_with(token_id)));
            Containers { wanted, unknown: stay, unpublished: &unpublished }
        });
        let mut plan = plan(Desired { owner: &self.options.owner, own, containers }, registered, now);
        plan.remarks.extend(said);
        plan
    }

    /// Containers with an entry that do not run because they failed, or of which that cannot be told.
    async fn failed(&self, node: &Node, services: &BTreeMap<String, Entry>) -> BTreeSet<String> {
        let running: BTreeSet<&str> = node.containers.iter().map(|container| container.id.as_str()).collect();
        let ours = services.values().filter(|entry| entry.is_of(&self.options.owner));
        let ended: BTreeSet<&str> = ours
            .filter_map(|entry| entry.container.as_deref())
            .filter(|id| !running.contains(id) && !node.unknown.contains_key(*id))
            .collect();
        let mut failed = BTreeSet::new();
        for id in ended {
            let stays = match self.engine.inspect(id).await {
                Ok(Some(container)) => container.exit_code.is_some_and(is_failure),
                Ok(None) => false,
                Err(_) => true,
            };
            if stays {
                failed.insert(id.to_owned());
            }
        }
        failed
    }

    /// Performs the steps; what Consul refuses is remarked and skipped, what it does not answer ends the pass.
    async fn apply(
        &mut self,
        steps: Vec<Step>,
        is_cut: bool,
        now: Instant,
        outcome: &mut Outcome,
        ours: &mut BTreeSet<String>,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let mut refused = 0;
        for step in steps {
            if shutdown.is_cancelled() {
                outcome.unfinished = true;
                return Ok(());
            }
            match perform(&self.consul, &step).await {
                Ok(()) => {}
                Err(error @ consul::Error::Refused { .. }) => {
                    refused += 1;
                    let (subject, text) = (step.subject().to_owned(), format!("consul refused it: {error}"));
                    outcome.remarks.insert(Remark { subject, text });
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            self.note(&step, now, outcome, ours);
        }
        // If everything was refused, trying again at once would not end.
        outcome.unfinished = is_cut && refused < STEPS_MAX;
        Ok(())
    }

    /// Remembers and logs a step that succeeded.
    fn note(&mut self, step: &Step, now: Instant, outcome: &mut Outcome, ours: &mut BTreeSet<String>) {
        match step {
            Step::Register { registration, reports, .. } => {
                ours.insert(registration.id.clone());
                self.reported.extend(reports.iter().map(|report| (report.check.clone(), now)));
            }
            Step::Report { report, .. } => drop(self.reported.insert(report.check.clone(), now)),
            Step::Maintain { .. } => {}
            Step::Deregister { id, .. } => drop(ours.remove(id)),
        }
        if matches!(step, Step::Report { before: None, .. }) {
            outcome.repeated += 1;
            tracing::trace!(service = step.subject(), "{step}");
        } else {
            outcome.written += 1;
            tracing::info!(service = step.subject(), "{step}");
        }
    }
}

/// Takes everything away that `owner` has registered at this node's Consul agent, and says how many entries that were.
pub async fn remove_own(consul: &Consul, owner: &str) -> Result<usize, consul::Error> {
    let services = consul.agent_services_as::<Entry>().await?;
    let mut removed = 0;
    for (id, _) in services.iter().filter(|(_, entry)| entry.is_of(owner)) {
        consul.deregister_service(id).await?;
        removed += 1;
    }
    Ok(removed)
}

async fn perform(consul: &Consul, step: &Step) -> Result<(), consul::Error> {
    match step {
        Step::Register { registration, reports, maintenance, .. } => {
            consul.register_service(registration).await?;
            for report in reports {
                consul.update_check(&report.check, report.status, &report.text).await?;
            }
            match maintenance {
                Some(reason) => consul.service_maintenance(&registration.id, Some(reason)).await,
                None => Ok(()),
            }
        }
        Step::Report { report, .. } => consul.update_check(&report.check, report.status, &report.text).await,
        Step::Maintain { id, reason, .. } => consul.service_maintenance(id, reason.as_deref()).await,
        Step::Deregister { id, .. } => consul.deregister_service(id).await,
    }
}

async fn agent_ways(consul: &Consul, known: Option<AgentWays>) -> Result<AgentWays, consul::Error> {
    match known {
        Some(ways) => Ok(ways),
        None => consul.agent_ways().await,
    }
}

/// An exit that is neither a success nor the end by a signal (registrator, `bridge/bridge.go`, `shouldRemove`).
fn is_failure(code: i64) -> bool {
    const BY_SIGNAL: i64 = 128;
    code != 0 && code & BY_SIGNAL == 0
}

/// The agent's state with what this pass has found out about the engine.
fn with_engine(state: &SelfState, error: Option<&docker::Error>) -> SelfState {
    let mut state = state.clone();
    if let Some(error) = error {
        let mend = "Registrations stay as they are; look at `systemctl status docker` on the node.".to_owned();
        state.engine = Err(Trouble { reason: error.to_string(), mend });
    }
    state
}

impl Step {
    /// The service or check that it is about.
    fn subject(&self) -> &str {
        match self {
            Self::Register { registration, .. } => &registration.name,
            Self::Report { report, .. } => &report.check,
            Self::Maintain { name, .. } | Self::Deregister { name, .. } => name,
        }
    }
}
