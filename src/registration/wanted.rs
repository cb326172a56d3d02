//! What runs on the node → the registrations it should have. Pure.
//!
//! Which ports: those published on the host, those that swarm's mesh publishes, and all that are exposed if the container shares the
//! node's network. A port that is only exposed is registered if the container asks for it by name: `SERVICE_<port>_NAME`, or
//! `SERVICE_NAME` where nothing is published at all; it then gets the container's own address.
//!
//! A port of the mesh answers on every node, and is one instance per node and service, however many tasks the node runs: see
//! [`Subject::Service`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::convention::{CheckOf, META_PAIRS_MAX, META_VALUE_BYTES_MAX, Settings};
use super::facts::Facts;
use super::offers::{self, Offer, OfferedAt, offers};
use super::rules::{Rules, StackNames, TagFacts};
use crate::io::consul::agent::{CheckDefinition, CheckStatus, Probe, Registration};
use crate::io::docker::{Container, Health, Protocol, State};
use crate::spec::ServiceFacts;

/// The Meta key that says whose an entry is.
pub const META_OWNER: &str = "sk-owner";

/// The Meta key of the hash over everything wanted; `/agent/services` does not tell check definitions.
pub const META_HASH: &str = "sk-hash";

/// The Meta key of the container's full ID.
pub const META_CONTAINER: &str = "sk-container";

/// The Meta key, on entries that stand for all tasks of a node, of their swarm service.
pub const META_SERVICE: &str = "sk-service";

/// The Meta key of entries that hold what the leader has published.
pub const META_FACTS: &str = "sk-facts";

/// What a maintenance of ours gives as its reason begins with this; a person's does not.
pub const MAINTENANCE: &str = "swarmkeeper: ";

/// Why a container that was asked to stop is in maintenance, behind [`MAINTENANCE`].
pub const STOPPING: &str = "the container is stopping";

/// Why all of a drained node are, behind [`MAINTENANCE`].
pub const DRAINING: &str = "the node is drained";

/// The label of a container's stack.
pub(super) const LABEL_STACK: &str = "com.docker.stack.namespace";

const LABEL_SERVICE: &str = "com.docker.swarm.service.name";
const LABEL_TASK: &str = "com.docker.swarm.task.id";

/// Labels of swarm and the Meta keys they become, unless the container sets the key itself.
const META_OF_LABELS: [(&str, &str); 4] = [
    (LABEL_STACK, "stack"),
    (LABEL_SERVICE, "service"),
    (LABEL_TASK, "task"),
    ("com.docker.swarm.node.id", "swarm-node"),
];

/// What registrations need to know of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host's name, as it stands in default IDs.
    pub hostname: String,
    /// Whose registrations these are.
    pub owner: String,
    /// The node's address.
    pub address: IpAddr,
    /// True if the node's Consul agent runs scripts.
    pub runs_scripts: bool,
    /// What the operator wants.
    pub rules: Rules,
}

/// What runs on the node.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// Inspected containers.
    pub containers: &'a [Arc<Container>],
    /// IDs of those that were asked to stop.
    pub stopping: &'a BTreeSet<String>,
    /// What the leader has published.
    pub facts: &'a Facts,
}

/// A registration that should be, and how its TTL checks stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The service; its Meta holds the owner and the hash.
    pub registration: Registration,
    /// What is to be said to those of its checks that wait for us.
    pub reports: Vec<Report>,
    /// Why it is to be out of DNS although it runs; none if it is not.
    pub maintenance: Option<String>,
    /// True if the leader has not published what belongs to it: an entry that was made with that knowledge is the better one.
    pub is_provisional: bool,
}

/// How a TTL check stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The check's ID.
    pub check: String,
    /// How it stands.
    pub status: CheckStatus,
    /// Why, in a text that stays the same while the reason does.
    pub text: String,
    /// How often this is repeated to keep the check alive.
    pub every: Duration,
}

/// Something that a person should know, said once while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The container or service.
    pub subject: String,
    /// What about it.
    pub text: String,
}

impl Wanted {
    /// Signs `registration` as `owner`'s and notes the hash of the whole.
    pub fn sign(mut registration: Registration, reports: Vec<Report>, owner: &str) -> Self {
        registration.meta.insert(META_OWNER.to_owned(), owner.to_owned());
        registration.meta.insert(META_HASH.to_owned(), hash(&registration));
        Self { registration, reports, maintenance: None, is_provisional: false }
    }

    /// Notes in the hash with which token it is registered, so that another token registers it again: Consul's agent goes on using
    /// the one that a registration came with, also when that has been deleted.
    #[must_use]
    pub fn made_with(mut self, token_id: Option<&str>) -> Self {
        if let Some(id) = token_id
            && let Some(hash) = self.registration.meta.get_mut(META_HASH)
        {
            *hash = digits(format!("{hash} {id}").as_bytes());
        }
        self
    }

    /// The same with its checks standing as reported, so that it appears in Consul as it is and not as critical.
    #[must_use]
    pub fn as_reported(mut self) -> Self {
        for check in &mut self.registration.checks {
            if let Some(report) = self.reports.iter().find(|report| report.check == check.id) {
                check.status = Some(report.status);
            }
        }
        self
    }
}

/// The swarm service whose task a container is.
pub fn service_of(container: &Container) -> Option<&str> {
    container.labels.get(LABEL_SERVICE).map(String::as_str)
}

/// Names of services, and IDs of their tasks' containers, of which the leader has published nothing.
pub fn unpublished(containers: &[Arc<Container>], facts: &Facts) -> BTreeSet<String> {
    let tasks = containers.iter().filter_map(|container| Some((container, service_of(container)?)));
    let unpublished = tasks.filter(|(_, service)| facts.of(service).is_none());
    unpublished.flat_map(|(container, service)| [container.id.clone(), service.to_owned()]).collect()
}

/// The registrations that the node should have at `place`; what could not be followed goes into `remarks`.
///
/// Made as they are taken, since a thousand are megabytes and few differ from what is registered already.
pub fn wanted<'a>(
    running: Running<'a>,
    place: &'a Place,
    remarks: &'a mut Vec<Remark>,
) -> impl Iterator<Item = Wanted> + 'a {
    subjects(running).into_iter().flat_map(move |subject| of_subject(&subject, &running, place, remarks))
}

/// All containers, then all services.
fn subjects(running: Running<'_>) -> Vec<Subject<'_>> {
    let alive = || running.containers.iter().map(Arc::as_ref).filter(|container| container.state != State::Stopped);
    let networks: BTreeMap<&str, &Container> =
        alive().filter(|one| one.network_of.is_none()).map(|one| (one.id.as_str(), one)).collect();
    let mut all = Vec::new();
    let mut services: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
    for container in alive() {
        if let Some(service) = service_of(container) {
            services.entry(service).or_default().push(container);
        }
        let lender = container.network_of.as_ref().and_then(|id| networks.get(id.as_str()));
        all.push(Subject::Container(match lender {
            Some(lender) => Cow::Owned(Container { networks: lender.networks.clone(), ..container.clone() }),
            None => Cow::Borrowed(container),
        }));
    }
    all.extend(services.into_iter().map(|(service, mut tasks)| {
        let goes_on = |task: &&Container| !running.stopping.contains(&task.id);
        if tasks.iter().any(goes_on) {
            tasks.retain(goes_on);
        }
        Subject::Service { service, tasks }
    }));
    all
}

/// Whom a registration is for.
enum Subject<'a> {
    /// A container.
    Container(Cow<'a, Container>),
    /// The tasks of a service on this node, which swarm's mesh stands before: those that go on, or all if all are stopping.
    Service { service: &'a str, tasks: Vec<&'a Container> },
}

impl Subject<'_> {
    /// The container that speaks for it.
    fn speaker(&self) -> Option<&Container> {
        match self {
            Self::Container(container) => Some(container),
            Self::Service { tasks, .. } => tasks.iter().copied().min_by_key(|task| task.id.as_str()),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Container(container) => &container.name,
            Self::Service { service, .. } => service,
        }
    }

    /// True if this port is for a subject of this kind.
    fn offers(&self, offer: &Offer) -> bool {
        matches!(offer.place, OfferedAt::Ingress { .. }) == matches!(self, Self::Service { .. })
    }

    /// Containers that all stop are out of DNS before their processes are gone.
    fn is_stopping(&self, stopping: &BTreeSet<String>) -> bool {
        match self {
            Self::Container(container) => stopping.contains(&container.id),
            Self::Service { tasks, .. } => tasks.iter().all(|task| stopping.contains(&task.id)),
        }
    }

    /// How it is; none if nothing says so. A service's port of the mesh works while one of its tasks does.
    fn verdict(&self) -> Option<Verdict> {
        match self {
            Self::Container(container) => verdict(container),
            Self::Service { tasks, .. } => {
                let verdicts: Option<Vec<Verdict>> = tasks.iter().map(|task| verdict(task)).collect();
                verdicts?.into_iter().min()
            }
        }
    }
}

fn of_subject(subject: &Subject<'_>, running: &Running<'_>, place: &Place, remarks: &mut Vec<Remark>) -> Vec<Wanted> {
    let Some(container) = subject.speaker() else { return Vec::new() };
    let service = service_of(container);
    let facts = service.and_then(|service| running.facts.of(service));
    let no_labels = BTreeMap::new();
    let labels = facts.map_or(&no_labels, |facts| &facts.labels);
    let maintenance = if subject.is_stopping(running.stopping) {
        Some(STOPPING)
    } else {
        running.facts.draining().then_some(DRAINING)
    };
    let mut said = Vec::new();
    let mut all = Vec::new();
    for offer in offers(container, facts, &place.rules).iter().filter(|offer| subject.offers(offer)) {
        let settings = Settings::of(container, labels, offer.port.number);
        if settings.ignored() || !offer.is_asked_for(&settings, &place.rules) {
            continue;
        }
        match offer.address(container, offers::network(container, facts), place) {
            Ok(address) => {
                let instance = Instance { subject, container, facts, offer, address, settings: &settings };
                let wanted = instance.wanted(place, &mut said);
                all.push(Wanted {
                    maintenance: maintenance.map(|reason| format!("{MAINTENANCE}{reason}")),
                    is_provisional: service.is_some() && facts.is_none(),
                    ..wanted
                });
            }
            Err(reason) => said.push(format!("port {} is not registered: {reason}", offer.port.number)),
        }
    }
    said.sort();
    said.dedup();
    remarks.extend(said.into_iter().map(|text| Remark { subject: subject.name().to_owned(), text }));
    all
}

/// One instance of a service in Consul, about to be described.
struct Instance<'a> {
    subject: &'a Subject<'a>,
    container: &'a Container,
    facts: Option<&'a ServiceFacts>,
    offer: &'a Offer,
    address: SocketAddr,
    settings: &'a Settings,
}

impl Instance<'_> {
    fn wanted(&self, place: &Place, said: &mut Vec<String>) -> Wanted {
        let Self { container, offer, address, settings, .. } = *self;
        let id = settings.id(&place.hostname, self.subject.name(), offer.port);
        let name = self.name(place.rules.stack_names);
        let (health, reports) =
            self.subject.verdict().map(|verdict| verdict.check(&id, container, &place.rules)).unzip();
        let of =
            CheckOf { id: &id, container: &container.id, port: offer.port, address, runs_scripts: place.runs_scripts };
        let registration = Registration {
            tags: settings.tags(offer.port.protocol, &self.extra_tags(&name, place)),
            meta: self.meta(place, said),
            port: address.port(),
            address: address.ip(),
            checks: settings.check(&of, said).into_iter().chain(health).collect(),
            name,
            id,
        };
        Wanted::sign(registration, reports.into_iter().collect(), &place.owner)
    }

    fn name(&self, names: StackNames) -> String {
        let name = self.settings.name(&self.container.image, self.offer.port, self.offer.several);
        match (names, self.container.labels.get(LABEL_STACK)) {
            (StackNames::Apart, Some(stack)) => format!("{stack}-{name}"),
            _ => name,
        }
    }

    fn extra_tags(&self, name: &str, place: &Place) -> String {
        let label = |label: &str| self.container.labels.get(label).map_or("", String::as_str);
        let slot = self.slot().unwrap_or_default();
        let protocol = match self.offer.port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        place.rules.tags.render(&TagFacts {
            name,
            node: &place.hostname,
            container: &self.container.name,
            image: &self.container.image,
            digest: digest(self.container).unwrap_or_default(),
            port: self.offer.port.number,
            protocol,
            stack: label(LABEL_STACK),
            service: label(LABEL_SERVICE),
            slot: &slot,
            task: if self.is_of_service() { "" } else { label(LABEL_TASK) },
        })
    }

    fn meta(&self, place: &Place, said: &mut Vec<String>) -> BTreeMap<String, String> {
        let container = self.container;
        let mut meta = BTreeMap::new();
        match self.subject {
            Subject::Container(_) => meta.insert(META_CONTAINER.to_owned(), container.id.clone()),
            Subject::Service { service, .. } => meta.insert(META_SERVICE.to_owned(), (*service).to_owned()),
        };
        if self.facts.is_some() {
            meta.insert(META_FACTS.to_owned(), "1".to_owned());
        }
        let theirs = self.settings.meta(said);
        let ours = META_OF_LABELS
            .iter()
            .filter(|(label, _)| *label != LABEL_TASK || !self.is_of_service())
            .filter_map(|(label, key)| Some((*key, container.labels.get(*label)?.clone())))
            .chain(self.slot().map(|slot| ("slot", slot)))
            .chain([("node", place.hostname.clone()), ("image", container.image.clone())])
            .chain(digest(container).map(|digest| ("digest", digest.to_owned())));
        // Two pairs are added when the registration is signed.
        let room = META_PAIRS_MAX - 2;
        let mut left_out = 0_usize;
        for (key, value) in theirs.into_iter().chain(ours.map(|(key, value)| (key.to_owned(), value))) {
            if meta.contains_key(&key) || value.len() > META_VALUE_BYTES_MAX {
                continue;
            }
            if meta.len() < room { drop(meta.insert(key, value)) } else { left_out += 1 }
        }
        if left_out > 0 {
            said.push(format!("{left_out} pairs are left out of Meta: consul takes no more than {META_PAIRS_MAX}"));
        }
        meta
    }

    /// The slot of a replicated task, from its name `service.slot.task`; global tasks have their node's ID in its place.
    fn slot(&self) -> Option<String> {
        if self.is_of_service() {
            return None;
        }
        let task = self.container.labels.get("com.docker.swarm.task.name")?;
        let (slot, _) = task.strip_prefix(service_of(self.container)?)?.strip_prefix('.')?.split_once('.')?;
        slot.parse::<u64>().ok().map(|slot| slot.to_string())
    }

    fn is_of_service(&self) -> bool {
        matches!(self.subject, Subject::Service { .. })
    }
}

fn digest(container: &Container) -> Option<&str> {
    container.image.split_once('@').map(|(_, digest)| digest)
}

/// What the engine says about a container's health, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Healthy,
    Starting,
    Unhealthy,
    Paused,
}

/// A frozen container has a verdict even without a HEALTHCHECK.
fn verdict(container: &Container) -> Option<Verdict> {
    Some(match (container.state, container.health) {
        (State::Paused, _) => Verdict::Paused,
        (_, None) => return None,
        (_, Some(Health::Healthy)) => Verdict::Healthy,
        (_, Some(Health::Starting)) => Verdict::Starting,
        (_, Some(Health::Unhealthy)) => Verdict::Unhealthy,
    })
}

impl Verdict {
    /// The verdict as a TTL check of the service `id`, and how it stands.
    fn check(self, id: &str, container: &Container, rules: &Rules) -> (CheckDefinition, Report) {
        let (ttl, every) = rules.agent_loss.times(rules.resync);
        let text = match self {
            Self::Healthy => "The container's HEALTHCHECK passes.".to_owned(),
            Self::Starting => "The container starts; its HEALTHCHECK has not passed yet.".to_owned(),
            Self::Paused => "The container is paused; `docker unpause` lets it go on.".to_owned(),
            Self::Unhealthy => {
                let name = &container.name;
                format!("The container's HEALTHCHECK fails; `docker inspect {name}` on its node shows what it said.")
            }
        };
        let check = CheckDefinition {
            id: health_check(id),
            name: "Docker HEALTHCHECK".to_owned(),
            notes: "Reported by swarmkeeper, which runs on the container's node.".to_owned(),
            status: None,
            probe: Probe::Ttl { ttl: format!("{}s", ttl.as_secs()) },
            deregister_critical_service_after: None,
        };
        let status = if self == Self::Healthy { CheckStatus::Passing } else { CheckStatus::Critical };
        (check, Report { check: health_check(id), status, text, every })
    }
}

/// The ID of the check that tells the HEALTHCHECK of the service `id`.
pub(super) fn health_check(id: &str) -> String {
    format!("{id}:health")
}

/// The first 16 digits of the SHA-256 over the registration as it is sent.
fn hash(registration: &Registration) -> String {
    digits(&serde_json::to_vec(registration).unwrap_or_default())
}

fn digits(text: &[u8]) -> String {
    let mut digits = hex::encode(Sha256::digest(text));
    digits.truncate(16);
    digits
}

#[cfg(test)]
mod tests;
