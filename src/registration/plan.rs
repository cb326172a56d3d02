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

use super::entry::{Entry, Fingerprint, Standing};
use super::leftovers::is_registrators;
use super::wanted::{MAINTENANCE, META_CONTAINER, META_HASH, Remark, Report, Wanted, health_check};
use crate::io::consul::agent::{CheckStatus, Registration, maintenance_check};

/// Most steps of a plan; what is left is planned again at once, so that events and the agent's own checks never wait long. A thousand
/// first registrations take Consul 6 to 11 s.
pub const STEPS_MAX: usize = 256;

/// What should be registered.
pub struct Desired<'a> {
    /// Whose entries these are.
    pub owner: &'a str,
    /// The agent's own service.
    pub own: Wanted,
    /// The containers; none while the engine does not answer.
    pub containers: Option<Containers<'a>>,
}

/// The node's containers.
pub struct Containers<'a> {
    /// What they should have.
    pub wanted: Box<dyn Iterator<Item = Wanted> + 'a>,
    /// IDs of those whose entries stay although nothing is wanted for them: they could not be inspected, or failed and are to be seen.
    pub unknown: &'a BTreeSet<String>,
    /// Names of services, and IDs of their tasks' containers, of which the leader has published nothing.
    pub unpublished: &'a BTreeSet<String>,
}

/// What is registered.
#[derive(Debug, Clone, Copy)]
pub struct Registered<'a> {
    /// All services of the agent.
    pub services: &'a BTreeMap<String, Entry>,
    /// All its checks.
    pub checks: &'a BTreeMap<String, Standing>,
    /// The address that an entry without one stands for.
    pub agent_address: IpAddr,
    /// When we last said how a check stands.
    pub reported: &'a BTreeMap<String, Instant>,
}

/// What to do, in order, and what a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Writes, at most [`STEPS_MAX`].
    pub steps: Vec<Step>,
    /// True if there are more.
    pub is_cut: bool,
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
pub fn plan(desired: Desired<'_>, registered: &Registered<'_>, now: Instant) -> Plan {
    let Desired { owner, own, containers } = desired;
    let mut plan = Plan::default();
    let mut writes = Writes::default();
    let strangers = Strangers::of(owner, registered);
    let own_place = place(&own.registration);
    let mut ids = BTreeSet::from([own.registration.id.clone()]);

    if strangers.hold_id(&own.registration.id) {
        plan.remarks.push(taken_id(&own.registration));
    } else {
        bring(own, registered, now, &mut writes);
        plan.take(std::mem::take(&mut writes));
    }
    let Some(Containers { wanted, unknown, unpublished }) = containers else { return plan };

    let mut alive = BTreeSet::new();
    for wanted in wanted {
        let registration = &wanted.registration;
        alive.extend(container(registration).filter(|id| !alive.contains(*id)).map(ToOwned::to_owned));
        if place(registration) == own_place {
            // The agent's own container; its service is there already.
            continue;
        }
        if wanted.is_provisional
            && let better @ [_, ..] = &published_before(owner, registration, registered)[..]
        {
            ids.extend(better.iter().map(|(id, _)| (*id).to_owned()));
            writes.verdicts.extend(better.iter().filter_map(|entry| carried_over(&wanted, *entry, registered, now)));
        } else if strangers.has_twin(registration) {
            plan.remarks.push(twin(registration));
        } else if !ids.insert(registration.id.clone()) {
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
    for (id, entry) in registered.services.iter().filter(|(id, entry)| entry.is_of(owner) && !ids.contains(*id)) {
        let step = |why| Step::Deregister { id: id.clone(), name: entry.name.to_string(), why };
        match entry.container.as_deref() {
            Some(id) if unknown.contains(id) => {}
            _ if is_unpublished(entry, unpublished) => {}
            Some(id) if alive.contains(id) => writes.replaced.push(step("its container is registered otherwise now")),
            // One that could not be inspected may be a task of this service.
            None if entry.service.is_some() && !unknown.is_empty() => {}
            _ => writes.gone.push(step("its container does not run or is not registered any more")),
        }
    }
    plan.take(writes);
    plan
}

impl Plan {
    /// Adds steps in their order, as far as there is room.
    fn take(&mut self, writes: Writes) {
        let Writes { maintenance, verdicts, gone, entries, replaced, has_more } = writes;
        self.steps.extend([maintenance, verdicts, gone, entries, replaced].into_iter().flatten());
        self.is_cut |= has_more || self.steps.len() > STEPS_MAX;
        self.steps.truncate(STEPS_MAX);
    }
}

/// True for an entry that was made when the leader's word was known, which it is not now.
fn is_unpublished(entry: &Entry, unpublished: &BTreeSet<String>) -> bool {
    let subject = entry.service.as_deref().or(entry.container.as_deref());
    entry.has_facts && subject.is_some_and(|subject| unpublished.contains(subject))
}

/// Steps by their kind.
#[derive(Default)]
struct Writes {
    maintenance: Vec<Step>,
    verdicts: Vec<Step>,
    gone: Vec<Step>,
    /// At most [`STEPS_MAX`]: these are large, and no more fit into a plan.
    entries: Vec<Step>,
    replaced: Vec<Step>,
    /// True if there are more entries.
    has_more: bool,
}

/// Entries for the same container, or the same service, that were made when the leader's word was known, with their IDs.
fn published_before<'a>(owner: &str, wanted: &Registration, registered: &Registered<'a>) -> Vec<(&'a str, &'a Entry)> {
    let service = wanted.meta.get("service").map(String::as_str);
    let same = |(_, entry): &(&str, &Entry)| {
        let for_container = entry.container.is_some() && entry.container.as_deref() == container(wanted);
        let for_service = entry.service.is_some() && entry.service.as_deref() == service;
        entry.is_of(owner) && entry.has_facts && (for_container || for_service)
    };
    registered.services.iter().map(|(id, entry)| (id.as_str(), entry)).filter(same).collect()
}

/// The container's verdict for an entry that stays as it is; one that stands for several containers waits for the leader's word.
fn carried_over(
    wanted: &Wanted,
    (id, entry): (&str, &Entry),
    registered: &Registered<'_>,
    now: Instant,
) -> Option<Step> {
    entry.container.as_ref()?;
    let (check, own) = (health_check(id), health_check(&wanted.registration.id));
    let report = wanted.reports.iter().find(|report| report.check == own)?;
    verdict(Report { check, ..report.clone() }, registered, now)
}

/// Entries that are not ours, with their IDs.
struct Strangers<'a> {
    by_id: BTreeSet<&'a str>,
    by_place: BTreeMap<(IpAddr, u16), (&'a str, &'a Entry)>,
}

impl<'a> Strangers<'a> {
    fn of(owner: &str, registered: &Registered<'a>) -> Self {
        let all = registered.services.iter().map(|(id, entry)| (id.as_str(), entry));
        let strangers = all.filter(|(_, entry)| !entry.is_of(owner));
        let place = |entry: &Entry| {
            let address =
                if entry.address.is_empty() { Some(registered.agent_address) } else { entry.address.parse().ok() };
            Some((address?, entry.port)).filter(|(_, port)| *port != 0)
        };
        Self {
            by_id: strangers.clone().map(|(id, _)| id).collect(),
            by_place: strangers.filter_map(|stranger| Some((place(stranger.1)?, stranger))).collect(),
        }
    }

    /// True if registrator has registered the same, under an ID of its own.
    fn has_twin(&self, registration: &Registration) -> bool {
        self.at(registration).is_some_and(|(id, entry)| {
            is_registrators(id) && id != registration.id && *entry.name == *registration.name
        })
    }

    fn hold_id(&self, id: &str) -> bool {
        self.by_id.contains(id)
    }

    fn at(&self, registration: &Registration) -> Option<(&'a str, &'a Entry)> {
        self.by_place.get(&place(registration)).copied()
    }
}

/// Adds what brings one entry, its maintenance and its verdicts to what they should be.
fn bring(wanted: Wanted, registered: &Registered<'_>, now: Instant, writes: &mut Writes) {
    let Registration { id, name, .. } = &wanted.registration;
    let entry = registered.services.get(id);
    let changed = entry.map(|entry| differences(&wanted.registration, entry, registered.checks));
    let ordered = registered.checks.get(&maintenance_check(id)).map(|check| &*check.notes);
    let by_a_person = ordered.filter(|reason| !reason.starts_with(MAINTENANCE));
    let maintenance = by_a_person.or(wanted.maintenance.as_deref()).map(ToOwned::to_owned);
    if changed.as_ref().is_none_or(|changed| !changed.is_empty()) {
        if writes.entries.len() == STEPS_MAX {
            writes.has_more = true;
            return;
        }
        let Wanted { registration, reports, .. } = wanted.as_reported();
        let (registration, changed) = (Box::new(registration), changed.unwrap_or_default());
        writes.entries.push(Step::Register { registration, reports, maintenance, changed });
        return;
    }
    // Consul keeps the reason of a maintenance that has begun.
    if maintenance.is_some() != ordered.is_some() {
        writes.maintenance.push(Step::Maintain { id: id.clone(), name: name.clone(), reason: maintenance });
    }
    writes.verdicts.extend(wanted.reports.into_iter().filter_map(|report| verdict(report, registered, now)));
}

/// What to say of a check that does not stand as it should, or that runs out.
fn verdict(report: Report, registered: &Registered<'_>, now: Instant) -> Option<Step> {
    let check = registered.checks.get(&report.check)?;
    let stands = check.status == report.status && *check.output == *report.text;
    let due = registered.reported.get(&report.check).is_none_or(|at| now.duration_since(*at) >= report.every);
    (!stands || due).then(|| Step::Report { report, before: (!stands).then_some(check.status) })
}

fn differences(wanted: &Registration, entry: &Entry, checks: &BTreeMap<String, Standing>) -> Vec<&'static str> {
    // A check of ours that Consul no longer has, or one that the definition has changed: only the hash tells of the latter.
    let missing = wanted.checks.iter().any(|check| !checks.contains_key(&check.id));
    let mut differences: Vec<&'static str> = [
        ("name", *wanted.name != *entry.name),
        ("address", entry.address.parse() != Ok(wanted.address)),
        ("port", wanted.port != entry.port),
        ("tags", entry.tags.is_some_and(|tags| tags != Fingerprint::of_tags(&wanted.tags))),
        ("meta", entry.meta != Fingerprint::of_meta(&wanted.meta)),
        ("missing checks", missing),
    ]
    .into_iter()
    .filter_map(|(what, differs)| differs.then_some(what))
    .collect();
    if differences.is_empty() && wanted.meta.get(META_HASH).map(String::as_str) != entry.hash.as_deref() {
        differences.push("checks");
    }
    differences
}

fn container(registration: &Registration) -> Option<&str> {
    registration.meta.get(META_CONTAINER).map(String::as_str)
}

fn place(registration: &Registration) -> (IpAddr, u16) {
    (registration.address, registration.port)
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

fn taken_place(registration: &Registration, (other, entry): (&str, &Entry)) -> Remark {
    let Registration { name, address, port, .. } = registration;
    let text = format!(
        "not registered: {address}:{port} is registered as {} already, and not by us; stop what made it and take it away with `consul services deregister -id={other}`",
        entry.name
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
