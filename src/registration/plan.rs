//! What to write into Consul: the difference between what should be registered and what is. Pure.
//!
//! * An entry is ours if its Meta names our owner, and only such entries are changed or removed.
//! * An entry of somebody else with the same ID, or with the same address and port, is left alone, and ours is not made beside it. One
//!   of ours that is there already stays, so that a stranger's entry never takes a running service out of DNS.
//! * While registrator runs beside us an instance is there once: where its entry says the same as ours, ours goes.
//! * Order: the agent's own service, maintenance, verdicts, entries of containers that are gone, new entries, entries that another has
//!   replaced. So a service whose ID changes is registered anew before its old entry goes.
//! * What is not known is not removed: nothing while the engine is silent, and no entry of a container that could not be inspected.
//!   Its verdict is not repeated either, so that its TTL runs out if the silence lasts. While what the leader publishes is missing,
//!   an entry that was made with it stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use super::leftovers::is_registrators;
use super::wanted::{
    MAINTENANCE, META_CONTAINER, META_FACTS, META_HASH, META_OWNER, META_SERVICE, Remark, Report, Wanted, health_check,
};
use crate::io::consul::agent::{AgentCheck, AgentService, CheckStatus, Registration, maintenance_check};

/// What should be registered.
#[derive(Debug, Clone, Copy)]
pub struct Desired<'a> {
    /// Whose entries these are.
    pub owner: &'a str,
    /// The agent's own service.
    pub own: &'a Wanted,
    /// The containers; none while the engine does not answer.
    pub containers: Option<Containers<'a>>,
}

/// The node's containers.
#[derive(Debug, Clone, Copy)]
pub struct Containers<'a> {
    /// What they should have.
    pub wanted: &'a [Wanted],
    /// IDs of those whose entries stay although nothing is wanted for them: they could not be inspected, or failed and are to be seen.
    pub unknown: &'a BTreeSet<String>,
    /// Names of services, and IDs of their tasks' containers, of which the leader has published nothing.
    pub unpublished: &'a BTreeSet<String>,
}

/// What is registered.
#[derive(Debug, Clone, Copy)]
pub struct Registered<'a> {
    /// All services of the agent.
    pub services: &'a BTreeMap<String, AgentService>,
    /// All its checks.
    pub checks: &'a BTreeMap<String, AgentCheck>,
    /// The address that an entry without one stands for.
    pub agent_address: IpAddr,
    /// When we last said how a check stands.
    pub reported: &'a BTreeMap<String, Instant>,
}

/// What to do, in order, and what a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Writes.
    pub steps: Vec<Step>,
    /// Entries that are not made, and why.
    pub remarks: Vec<Remark>,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Register a service with its checks, then say how they stand.
    Register {
        /// The service, its checks standing as in `reports`.
        registration: Box<Registration>,
        /// What to say.
        reports: Vec<Report>,
        /// The maintenance that it shall be in, by its reason; one that a person has ordered stays: registering ends it, so it is
        /// ordered again.
        maintenance: Option<String>,
        /// What differs; empty for a new one.
        changed: Vec<&'static str>,
    },
    /// Say how a check stands.
    Report {
        /// What to say.
        report: Report,
        /// How it stood; none if this only repeats it.
        before: Option<CheckStatus>,
    },
    /// Begin or end a maintenance of ours.
    Maintain {
        /// The service's ID.
        id: String,
        /// Its name.
        name: String,
        /// Why it begins; none to end it.
        reason: Option<String>,
    },
    /// Take a service away.
    Deregister {
        /// Its ID.
        id: String,
        /// Its name.
        name: String,
        /// Why.
        why: &'static str,
    },
}

/// Compares. `now` is what the times of [`Registered::reported`] are measured against.
pub fn plan(desired: &Desired<'_>, registered: &Registered<'_>, now: Instant) -> Plan {
    let mut plan = Plan::default();
    let mut writes = Writes::default();
    let strangers = Strangers::of(desired.owner, registered);
    let mut ids = BTreeSet::from([desired.own.registration.id.as_str()]);

    if strangers.hold_id(&desired.own.registration.id) {
        plan.remarks.push(taken_id(&desired.own.registration));
    } else {
        bring(desired.own, registered, now, &mut writes);
        plan.steps.extend(std::mem::take(&mut writes).in_order());
    }
    let Some(containers) = desired.containers else { return plan };

    for wanted in containers.wanted {
        let registration = &wanted.registration;
        if same_place(registration, &desired.own.registration) {
            // The agent's own container; its service is there already.
            continue;
        }
        if wanted.is_provisional
            && let better @ [_, ..] = &published_before(desired.owner, registration, registered)[..]
        {
            ids.extend(better.iter().map(|service| service.id.as_str()));
            writes.verdicts.extend(better.iter().filter_map(|service| carried_over(wanted, service, registered, now)));
        } else if strangers.has_twin(registration) {
            plan.remarks.push(twin(registration));
        } else if !ids.insert(&registration.id) {
            plan.remarks.push(repeated_id(registration));
        } else if strangers.hold_id(&registration.id) {
            plan.remarks.push(taken_id(registration));
        } else if let Some(other) = strangers.at(registration)
            && !registered.services.contains_key(&registration.id)
        {
            plan.remarks.push(taken_place(registration, other));
        } else {
            bring(wanted, registered, now, &mut writes);
        }
    }
    let alive: BTreeSet<&str> =
        containers.wanted.iter().filter_map(|wanted| container(&wanted.registration.meta)).collect();
    for service in registered.services.values().filter(|service| is_owned_by(desired.owner, service)) {
        if ids.contains(service.id.as_str()) {
            continue;
        }
        let step = |why| Step::Deregister { id: service.id.clone(), name: service.name.clone(), why };
        match container(&service.meta) {
            Some(id) if containers.unknown.contains(id) => {}
            _ if containers.is_unpublished(service) => {}
            Some(id) if alive.contains(id) => writes.replaced.push(step("its container is registered otherwise now")),
            // One that could not be inspected may be a task of this service.
            None if service.meta.contains_key(META_SERVICE) && !containers.unknown.is_empty() => {}
            _ => writes.gone.push(step("its container does not run or is not registered any more")),
        }
    }
    plan.steps.extend(writes.in_order());
    plan
}

impl Containers<'_> {
    /// True for an entry that was made when the leader's word was known, which it is not now.
    fn is_unpublished(&self, service: &AgentService) -> bool {
        let subject = service.meta.get(META_SERVICE).or_else(|| service.meta.get(META_CONTAINER));
        service.meta.contains_key(META_FACTS) && subject.is_some_and(|subject| self.unpublished.contains(subject))
    }
}

/// Steps by their kind.
#[derive(Default)]
struct Writes {
    maintenance: Vec<Step>,
    verdicts: Vec<Step>,
    gone: Vec<Step>,
    entries: Vec<Step>,
    replaced: Vec<Step>,
}

impl Writes {
    fn in_order(self) -> impl Iterator<Item = Step> {
        [self.maintenance, self.verdicts, self.gone, self.entries, self.replaced].into_iter().flatten()
    }
}

/// Entries for the same container, or the same service, that were made when the leader's word was known.
fn published_before<'a>(owner: &str, wanted: &Registration, registered: &Registered<'a>) -> Vec<&'a AgentService> {
    let same = |service: &&AgentService| {
        let key = |meta: &BTreeMap<String, String>| meta.get(META_CONTAINER).cloned();
        let for_container = key(&service.meta).is_some() && key(&service.meta) == key(&wanted.meta);
        let for_service = service.meta.get(META_SERVICE).is_some_and(|name| wanted.meta.get("service") == Some(name));
        service.meta.contains_key(META_FACTS) && (for_container || for_service)
    };
    registered.services.values().filter(|service| is_owned_by(owner, service)).filter(same).collect()
}

/// The container's verdict for an entry that stays as it is; one that stands for several containers waits for the leader's word.
fn carried_over(wanted: &Wanted, service: &AgentService, registered: &Registered<'_>, now: Instant) -> Option<Step> {
    container(&service.meta)?;
    let (check, own) = (health_check(&service.id), health_check(&wanted.registration.id));
    let report = wanted.reports.iter().find(|report| report.check == own)?;
    verdict(&Report { check, ..report.clone() }, registered, now)
}

/// Entries that are not ours.
struct Strangers<'a> {
    by_id: BTreeMap<&'a str, &'a AgentService>,
    by_place: BTreeMap<(IpAddr, u16), &'a AgentService>,
}

impl<'a> Strangers<'a> {
    fn of(owner: &str, registered: &Registered<'a>) -> Self {
        let strangers = || registered.services.values().filter(|service| !is_owned_by(owner, service));
        let place = |service: &AgentService| {
            let address =
                if service.address.is_empty() { Some(registered.agent_address) } else { service.address.parse().ok() };
            Some((address?, service.port)).filter(|(_, port)| *port != 0)
        };
        Self {
            by_id: strangers().map(|service| (service.id.as_str(), service)).collect(),
            by_place: strangers().filter_map(|service| Some((place(service)?, service))).collect(),
        }
    }

    /// True if registrator has registered the same, under an ID of its own.
    fn has_twin(&self, registration: &Registration) -> bool {
        self.at(registration).is_some_and(|other| {
            is_registrators(&other.id) && other.id != registration.id && other.name == registration.name
        })
    }

    fn hold_id(&self, id: &str) -> bool {
        self.by_id.contains_key(id)
    }

    fn at(&self, registration: &Registration) -> Option<&'a AgentService> {
        self.by_place.get(&(registration.address, registration.port)).copied()
    }
}

/// Adds what brings one entry, its maintenance and its verdicts to what they should be.
fn bring(wanted: &Wanted, registered: &Registered<'_>, now: Instant, writes: &mut Writes) {
    let Registration { id, name, .. } = &wanted.registration;
    let service = registered.services.get(id);
    let changed = service.map(|service| differences(&wanted.registration, service, registered.checks));
    let ordered = registered.checks.get(&maintenance_check(id)).map(|check| check.notes.as_str());
    let by_a_person = ordered.filter(|reason| !reason.starts_with(MAINTENANCE));
    let maintenance = by_a_person.or(wanted.maintenance.as_deref());
    if changed.as_ref().is_none_or(|changed| !changed.is_empty()) {
        writes.entries.push(Step::Register {
            registration: Box::new(wanted.registration_as_reported()),
            reports: wanted.reports.clone(),
            maintenance: maintenance.map(ToOwned::to_owned),
            changed: changed.unwrap_or_default(),
        });
        return;
    }
    // Consul keeps the reason of a maintenance that has begun.
    if maintenance.is_some() != ordered.is_some() {
        let reason = maintenance.map(ToOwned::to_owned);
        writes.maintenance.push(Step::Maintain { id: id.clone(), name: name.clone(), reason });
    }
    writes.verdicts.extend(wanted.reports.iter().filter_map(|report| verdict(report, registered, now)));
}

/// What to say of a check that does not stand as it should, or that runs out.
fn verdict(report: &Report, registered: &Registered<'_>, now: Instant) -> Option<Step> {
    let check = registered.checks.get(&report.check)?;
    let stands = check.status == report.status && check.output == report.text;
    let due = registered.reported.get(&report.check).is_none_or(|at| now.duration_since(*at) >= report.every);
    (!stands || due).then(|| Step::Report { report: report.clone(), before: (!stands).then_some(check.status) })
}

fn differences(
    wanted: &Registration,
    service: &AgentService,
    checks: &BTreeMap<String, AgentCheck>,
) -> Vec<&'static str> {
    let tags = |tags: &[String]| tags.iter().cloned().collect::<BTreeSet<_>>();
    let meta = |meta: &BTreeMap<String, String>| {
        let pairs = meta.iter().filter(|(key, _)| key.as_str() != META_HASH);
        pairs.map(|(key, value)| (key.clone(), value.clone())).collect::<BTreeMap<_, _>>()
    };
    // A check of ours that Consul no longer has, or one that the definition has changed: only the hash tells of the latter.
    let missing = wanted.checks.iter().any(|check| !checks.contains_key(&check.id));
    let mut differences: Vec<&'static str> = [
        ("name", wanted.name != service.name),
        ("address", service.address.parse() != Ok(wanted.address)),
        ("port", wanted.port != service.port),
        ("tags", !service.enable_tag_override && tags(&wanted.tags) != tags(&service.tags)),
        ("meta", meta(&wanted.meta) != meta(&service.meta)),
        ("missing checks", missing),
    ]
    .into_iter()
    .filter_map(|(what, differs)| differs.then_some(what))
    .collect();
    if differences.is_empty() && wanted.meta.get(META_HASH) != service.meta.get(META_HASH) {
        differences.push("checks");
    }
    differences
}

fn is_owned_by(owner: &str, service: &AgentService) -> bool {
    service.meta.get(META_OWNER).is_some_and(|name| name == owner)
}

fn container(meta: &BTreeMap<String, String>) -> Option<&str> {
    meta.get(META_CONTAINER).map(String::as_str)
}

fn same_place(one: &Registration, other: &Registration) -> bool {
    (one.address, one.port) == (other.address, other.port)
}

fn twin(registration: &Registration) -> Remark {
    let Registration { name, address, port, .. } = registration;
    let text = format!(
        "registered by registrator at {address}:{port}; once registrator has stopped, `swarmkeeper consul adopt` takes it over without a gap"
    );
    Remark { subject: name.clone(), text }
}

fn repeated_id(registration: &Registration) -> Remark {
    let Registration { name, id, .. } = registration;
    let text = format!(
        "not registered: another container on this node has the ID {id} too; give each a SERVICE_ID of its own"
    );
    Remark { subject: name.clone(), text }
}

fn taken_id(registration: &Registration) -> Remark {
    let Registration { name, id, .. } = registration;
    let text = if is_registrators(id) {
        format!(
            "not registered: the entry {id} is not ours; if it is registrator's, stop that and `swarmkeeper consul adopt` takes it over"
        )
    } else {
        format!(
            "not registered: the entry {id} is not ours; stop what made it and take it away with `consul services deregister -id={id}`"
        )
    };
    Remark { subject: name.clone(), text }
}

fn taken_place(registration: &Registration, other: &AgentService) -> Remark {
    let Registration { name, address, port, .. } = registration;
    let text = format!(
        "not registered: {address}:{port} is registered as {} already, and not by us; stop what made it and take it away with `consul services deregister -id={}`",
        other.name, other.id
    );
    Remark { subject: name.clone(), text }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register { registration, changed, .. } => {
                let Registration { id, name, address, port, .. } = registration.as_ref();
                let why =
                    if changed.is_empty() { "new".to_owned() } else { format!("changed: {}", changed.join(", ")) };
                write!(f, "register {name} at {address}:{port} as {id} ({why})")
            }
            Self::Report { report: Report { check, status, text, .. }, before: Some(before) } => {
                write!(f, "report {check} {status} (was {before}): {text}")
            }
            Self::Report { report: Report { check, status, .. }, before: None } => {
                write!(f, "repeat {check} {status}")
            }
            Self::Maintain { id, name, reason: Some(reason) } => {
                write!(f, "take {name}, {id}, out of DNS ({reason})")
            }
            Self::Maintain { id, name, reason: None } => write!(f, "bring {name}, {id}, back into DNS"),
            Self::Deregister { id, name, why } => write!(f, "deregister {name}, {id} ({why})"),
        }
    }
}

#[cfg(test)]
mod tests;
