//! One container → the registrations it should have. Pure.
//!
//! Which ports: those published on the host, and all that are exposed if the container shares the node's network. A port that is
//! only exposed is registered if the container asks for it by name: `SERVICE_<port>_NAME`, or `SERVICE_NAME` where nothing is
//! published at all; it then gets the container's own address.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::convention::{META_PAIRS_MAX, META_VALUE_BYTES_MAX, Settings};
use crate::io::consul::agent::{CheckDefinition, CheckStatus, Probe, Registration};
use crate::io::docker::{Container, Health, Port, Published, State};

/// How long the verdict of a HEALTHCHECK stands without us: a crash-looping or updating agent takes nothing out of DNS, and a lost
/// node is the business of serfHealth.
pub const HEALTH_TTL: Duration = Duration::from_mins(15);

/// How often the verdict is repeated.
pub const HEALTH_REFRESH: Duration = Duration::from_mins(5);

/// The Meta key that says whose an entry is.
pub const META_OWNER: &str = "sk-owner";

/// The Meta key of the hash over everything wanted; `/agent/services` does not tell check definitions.
pub const META_HASH: &str = "sk-hash";

/// The Meta key of the container's full ID.
pub const META_CONTAINER: &str = "sk-container";

/// The label by which a container on several networks says which one its registered address belongs to.
pub const LABEL_NETWORK: &str = "swarmkeeper.network";

/// Networks whose addresses nobody outside the engine reaches.
const NETWORKS_OF_NO_USE: [&str; 2] = ["ingress", "docker_gwbridge"];

/// Labels of swarm and the Meta keys they become, unless the container sets the key itself.
const META_OF_LABELS: [(&str, &str); 4] = [
    ("com.docker.stack.namespace", "stack"),
    ("com.docker.swarm.service.name", "service"),
    ("com.docker.swarm.task.id", "task"),
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
    /// Networks to prefer for containers that are on several, the first first.
    pub networks: Vec<String>,
}

/// A registration that should be, and how its TTL checks stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The service; its Meta holds the owner and the hash.
    pub registration: Registration,
    /// What is to be said to those of its checks that wait for us.
    pub reports: Vec<Report>,
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
        Self { registration, reports }
    }

    /// The registration with its checks standing as reported, so that it appears in Consul as it is and not as critical.
    pub fn registration_as_reported(&self) -> Registration {
        let mut registration = self.registration.clone();
        for check in &mut registration.checks {
            if let Some(report) = self.reports.iter().find(|report| report.check == check.id) {
                check.status = Some(report.status);
            }
        }
        registration
    }
}

/// The registrations that `container` should have at `place`, by port; what could not be followed goes into `remarks`.
pub fn wanted(container: &Container, place: &Place, remarks: &mut Vec<Remark>) -> Vec<Wanted> {
    if container.state == State::Stopped {
        return Vec::new();
    }
    let mut said = Vec::new();
    let mut all = Vec::new();
    let offers = offers(container);
    for offer in &offers {
        let settings = Settings::of(container, offer.port.number);
        if settings.ignored() || !offer.is_asked_for(&settings) {
            continue;
        }
        match offer.address(container, place) {
            Ok(address) => all.push(registration(container, offer, address, &settings, place, &mut said)),
            Err(reason) => said.push(format!("port {} is not registered: {reason}", offer.port.number)),
        }
    }
    said.sort();
    said.dedup();
    remarks.extend(said.into_iter().map(|text| Remark { subject: container.name.clone(), text }));
    all
}

/// A port that may be registered.
struct Offer {
    port: Port,
    place: OfferedAt,
    /// True if the container offers others of the same kind, which then need a number in their names.
    several: bool,
}

enum OfferedAt {
    /// A port of the host, at one of its addresses or at all of them.
    Host { address: Option<IpAddr>, port: u16 },
    /// The container's own address, for those who ask by name; `by_port` if only a name for this very port counts.
    Container { by_port: bool },
}

impl Offer {
    fn is_asked_for(&self, settings: &Settings) -> bool {
        match self.place {
            OfferedAt::Host { .. } => true,
            OfferedAt::Container { by_port } => {
                settings.get("NAME").is_some() && (!by_port || settings.is_of_port("NAME"))
            }
        }
    }

    fn address(&self, container: &Container, place: &Place) -> Result<SocketAddr, String> {
        match self.place {
            OfferedAt::Host { address, port } => Ok(SocketAddr::new(address.unwrap_or(place.address), port)),
            OfferedAt::Container { .. } => {
                Ok(SocketAddr::new(container_address(container, &place.networks)?, self.port.number))
            }
        }
    }
}

fn offers(container: &Container) -> Vec<Offer> {
    let mut hosts: BTreeMap<Port, OfferedAt> = BTreeMap::new();
    if container.host_network {
        let at = |port: &Port| OfferedAt::Host { address: None, port: port.number };
        hosts.extend(container.exposed.iter().map(|port| (*port, at(port))));
    }
    for port in container.published.iter().map(|binding| binding.port) {
        let bindings = container.published.iter().filter(|binding| binding.port == port);
        if let Some(binding) = bindings.min_by_key(|binding| preference(binding)) {
            hosts.insert(port, OfferedAt::Host { address: binding.address, port: binding.host_port });
        }
    }
    let published = hosts.len();
    let exposed: Vec<Port> = container.exposed.iter().copied().filter(|port| !hosts.contains_key(port)).collect();
    let several = exposed.len() > 1;
    let inside = exposed.into_iter().map(|port| {
        let place = OfferedAt::Container { by_port: published > 0 };
        Offer { port, place, several }
    });
    let hosts = hosts.into_iter().map(|(port, place)| Offer { port, place, several: published > 1 });
    hosts.chain(inside).collect()
}

/// The binding that others reach best: IPv4 and all addresses, then one address, loopback last.
fn preference(binding: &Published) -> (bool, bool, Published) {
    (binding.address.is_some_and(|address| address.is_loopback()), binding.v6, *binding)
}

/// The container's address: on the network that its label names, else on the first configured one that it is on, else on its only one.
fn container_address(container: &Container, preferred: &[String]) -> Result<IpAddr, String> {
    let candidates: BTreeMap<&str, IpAddr> = container
        .networks
        .iter()
        .filter(|(name, _)| !NETWORKS_OF_NO_USE.contains(&name.as_str()))
        .filter_map(|(name, address)| Some((name.as_str(), (*address)?)))
        .collect();
    if let Some(name) = container.labels.get(LABEL_NETWORK) {
        let missing = || format!("label {LABEL_NETWORK}={name} names a network where it has no address");
        return candidates.get(name.as_str()).copied().ok_or_else(missing);
    }
    if let Some(address) = preferred.iter().find_map(|name| candidates.get(name.as_str())) {
        return Ok(*address);
    }
    let mut addresses = candidates.values();
    match (addresses.next(), addresses.next()) {
        (Some(address), None) => Ok(*address),
        (None, _) => Err("it has no address that others could reach".to_owned()),
        (Some(_), Some(_)) => {
            let names = candidates.into_keys().collect::<Vec<_>>().join(", ");
            Err(format!("it is on several networks ({names}): name one in its label {LABEL_NETWORK}"))
        }
    }
}

fn registration(
    container: &Container,
    offer: &Offer,
    address: SocketAddr,
    settings: &Settings,
    place: &Place,
    said: &mut Vec<String>,
) -> Wanted {
    let id = settings.id(&place.hostname, &container.name, offer.port);
    let (health, reports) = health(container, &id).unzip();
    let asked = settings.check(&id, address, said);
    let registration = Registration {
        name: settings.name(&container.image, offer.port, offer.several),
        tags: settings.tags(offer.port.protocol),
        meta: meta(container, settings, said),
        port: address.port(),
        address: address.ip(),
        checks: asked.into_iter().chain(health).collect(),
        id,
    };
    Wanted::sign(registration, reports.into_iter().collect(), &place.owner)
}

fn meta(container: &Container, settings: &Settings, said: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut meta = BTreeMap::from([(META_CONTAINER.to_owned(), container.id.clone())]);
    let theirs = settings.meta(said);
    let ours = META_OF_LABELS
        .iter()
        .filter_map(|(label, key)| Some((*key, container.labels.get(*label)?.clone())))
        .chain(slot(container).map(|slot| ("slot", slot)))
        .chain([("image", container.image.clone())])
        .chain(container.image.split_once('@').map(|(_, digest)| ("digest", digest.to_owned())));
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
fn slot(container: &Container) -> Option<String> {
    let service = container.labels.get("com.docker.swarm.service.name")?;
    let task = container.labels.get("com.docker.swarm.task.name")?;
    let (slot, _) = task.strip_prefix(service.as_str())?.strip_prefix('.')?.split_once('.')?;
    slot.parse::<u64>().ok().map(|slot| slot.to_string())
}

/// The HEALTHCHECK as a TTL check, and how it stands; a frozen container has one even without a HEALTHCHECK.
fn health(container: &Container, id: &str) -> Option<(CheckDefinition, Report)> {
    let (status, text) = match (container.state, container.health) {
        (State::Paused, _) => {
            (CheckStatus::Critical, "The container is paused; `docker unpause` lets it go on.".to_owned())
        }
        (_, None) => return None,
        (_, Some(Health::Healthy)) => (CheckStatus::Passing, "The container's HEALTHCHECK passes.".to_owned()),
        (_, Some(Health::Starting)) => {
            (CheckStatus::Critical, "The container starts; its HEALTHCHECK has not passed yet.".to_owned())
        }
        (_, Some(Health::Unhealthy)) => {
            let text = format!(
                "The container's HEALTHCHECK fails; `docker inspect {}` on its node shows what it said.",
                container.name
            );
            (CheckStatus::Critical, text)
        }
    };
    let check = CheckDefinition {
        id: format!("{id}:health"),
        name: "Docker HEALTHCHECK".to_owned(),
        notes: "Reported by swarmkeeper, which runs on the container's node.".to_owned(),
        status: None,
        probe: Probe::Ttl { ttl: format!("{}s", HEALTH_TTL.as_secs()) },
        deregister_critical_service_after: None,
    };
    let report = Report { check: check.id.clone(), status, text, every: HEALTH_REFRESH };
    Some((check, report))
}

/// The first 16 digits of the SHA-256 over the registration as it is sent.
fn hash(registration: &Registration) -> String {
    let text = serde_json::to_vec(registration).unwrap_or_default();
    let mut digits = hex::encode(Sha256::digest(text));
    digits.truncate(16);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registration::fixture::{self, Fixture};

    fn place() -> Place {
        fixture::place()
    }

    /// `id name address:port` of each registration, then the remarks.
    #[track_caller]
    fn check(container: Fixture, expect: &[&str]) {
        let mut remarks = Vec::new();
        let wanted = wanted(&container.done(), &place(), &mut remarks);
        let services = wanted.iter().map(|wanted| {
            let Registration { id, name, address, port, .. } = &wanted.registration;
            format!("{id} {name} {address}:{port}")
        });
        let remarks = remarks.iter().map(|remark| format!("{}: {}", remark.subject, remark.text));
        assert_eq!(services.chain(remarks).collect::<Vec<_>>(), expect);
    }

    fn container() -> Fixture {
        fixture::container("web")
    }

    fn only(container: Fixture) -> Wanted {
        let mut all = wanted(&container.done(), &place(), &mut Vec::new());
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn a_published_port_is_registered_at_the_nodes_address() {
        check(container().published("80/tcp", "0.0.0.0", 8080), &["node1:web:80 nginx 10.0.0.1:8080"]);
    }

    #[test]
    fn a_port_bound_to_one_address_is_registered_there() {
        check(container().published("80/tcp", "10.9.9.9", 8080), &["node1:web:80 nginx 10.9.9.9:8080"]);
    }

    #[test]
    fn of_several_bindings_the_one_that_others_reach_best_is_taken() {
        let both = container().published("80/tcp", "::", 8081).published("80/tcp", "0.0.0.0", 8080);
        check(both, &["node1:web:80 nginx 10.0.0.1:8080"]);
        let loopback = container().published("80/tcp", "127.0.0.1", 80).published("80/tcp", "10.9.9.9", 81);
        check(loopback, &["node1:web:80 nginx 10.9.9.9:81"]);
    }

    #[test]
    fn several_ports_get_their_numbers_and_udp_its_mark() {
        let dns = container().published("53/tcp", "0.0.0.0", 53).published("53/udp", "0.0.0.0", 53);
        check(dns, &["node1:web:53 nginx-53 10.0.0.1:53", "node1:web:53:udp nginx-53 10.0.0.1:53"]);
    }

    #[test]
    fn an_ignored_port_still_counts_as_one_of_several() {
        let labels = [("SERVICE_443_IGNORE", "yes")];
        let two = container().published("80/tcp", "0.0.0.0", 80).published("443/tcp", "0.0.0.0", 443);
        check(two.labels(&labels), &["node1:web:80 nginx-80 10.0.0.1:80"]);
    }

    #[test]
    fn what_is_not_published_and_not_asked_for_is_not_registered() {
        check(container().exposed("80/tcp"), &[]);
        let other = container().exposed("9000/tcp").published("80/tcp", "0.0.0.0", 80);
        check(other.labels(&[("SERVICE_NAME", "shop")]), &["node1:web:80 shop 10.0.0.1:80"]);
    }

    #[test]
    fn an_exposed_port_that_is_asked_for_by_name_is_registered_at_the_containers_address() {
        let named = container().exposed("80/tcp").network("shop_net", "10.5.0.7").labels(&[("SERVICE_NAME", "shop")]);
        check(named, &["node1:web:80 shop 10.5.0.7:80"]);
        let beside = container().exposed("9000/tcp").published("80/tcp", "0.0.0.0", 80).network("shop_net", "10.5.0.7");
        check(
            beside.labels(&[("SERVICE_9000_NAME", "admin")]),
            &["node1:web:80 nginx 10.0.0.1:80", "node1:web:9000 admin 10.5.0.7:9000"],
        );
    }

    #[test]
    fn the_network_is_the_labels_then_the_configured_then_the_only_one() {
        let on_two = || {
            let named = container().exposed("80/tcp").labels(&[("SERVICE_NAME", "shop")]);
            named.network("ingress", "10.255.0.3").network("back", "10.6.0.7").network("front", "10.5.0.7")
        };
        check(
            on_two(),
            &[
                "web: port 80 is not registered: it is on several networks (back, front): name one in its label swarmkeeper.network",
            ],
        );
        check(
            on_two().labels(&[("SERVICE_NAME", "shop"), (LABEL_NETWORK, "back")]),
            &["node1:web:80 shop 10.6.0.7:80"],
        );
        check(on_two().network("preferred", "10.7.0.7"), &["node1:web:80 shop 10.7.0.7:80"]);
        check(
            on_two().labels(&[("SERVICE_NAME", "shop"), (LABEL_NETWORK, "ingress")]),
            &[
                "web: port 80 is not registered: label swarmkeeper.network=ingress names a network where it has no address",
            ],
        );
    }

    #[test]
    fn on_the_nodes_network_every_exposed_port_is_the_nodes() {
        check(container().exposed("80/tcp").host_network(), &["node1:web:80 nginx 10.0.0.1:80"]);
    }

    #[test]
    fn a_container_that_does_not_run_has_no_registration() {
        check(container().published("80/tcp", "0.0.0.0", 80).state(State::Stopped), &[]);
    }

    #[test]
    fn meta_names_stack_service_task_slot_image_and_digest() {
        let labels = [
            ("com.docker.stack.namespace", "shop"),
            ("com.docker.swarm.service.name", "shop_web"),
            ("com.docker.swarm.task.id", "t1"),
            ("com.docker.swarm.task.name", "shop_web.3.t1"),
        ];
        let container = container().published("80/tcp", "0.0.0.0", 80).image("nginx:1@sha256:ab").labels(&labels);
        let mut meta = only(container).registration.meta;
        assert_eq!(meta.remove(META_HASH).map(|hash| hash.len()), Some(16));
        let meta: Vec<String> = meta.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            meta,
            [
                "digest=sha256:ab",
                "image=nginx:1@sha256:ab",
                "service=shop_web",
                "sk-container=c-web",
                "sk-owner=owner1",
                "slot=3",
                "stack=shop",
                "task=t1",
            ]
        );
    }

    #[test]
    fn the_containers_own_meta_wins_over_ours_and_never_over_the_owner() {
        let labels = [("SERVICE_IMAGE", "pretty"), ("SERVICE_SK-OWNER", "me")];
        let meta = only(container().published("80/tcp", "0.0.0.0", 80).labels(&labels)).registration.meta;
        assert_eq!((meta["image"].as_str(), meta[META_OWNER].as_str()), ("pretty", "owner1"));
    }

    #[test]
    fn more_meta_than_consul_takes_is_cut_with_a_remark() {
        let labels: Vec<(String, String)> = (0..80).map(|n| (format!("SERVICE_K{n}"), n.to_string())).collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut remarks = Vec::new();
        let container = container().published("80/tcp", "0.0.0.0", 80).labels(&labels).done();
        let all = wanted(&container, &place(), &mut remarks);
        assert_eq!(all[0].registration.meta.len(), META_PAIRS_MAX);
        assert_eq!(remarks[0].text, "20 pairs are left out of Meta: consul takes no more than 64");
    }

    #[test]
    fn a_healthcheck_becomes_a_ttl_check_that_stands_as_docker_says() {
        #[track_caller]
        fn check(state: State, health: Option<Health>, expect: Option<CheckStatus>) {
            let wanted = only(container().published("80/tcp", "0.0.0.0", 80).state(state).health(health));
            assert_eq!(wanted.reports.first().map(|report| report.status), expect);
            assert_eq!(wanted.registration_as_reported().checks.first().and_then(|check| check.status), expect);
        }
        check(State::Running, None, None);
        check(State::Running, Some(Health::Starting), Some(CheckStatus::Critical));
        check(State::Running, Some(Health::Unhealthy), Some(CheckStatus::Critical));
        check(State::Running, Some(Health::Healthy), Some(CheckStatus::Passing));
        check(State::Paused, Some(Health::Healthy), Some(CheckStatus::Critical));
        check(State::Paused, None, Some(CheckStatus::Critical));
    }

    #[test]
    fn a_new_verdict_does_not_change_the_hash_and_a_new_check_does() {
        let hash = |container: Fixture| only(container).registration.meta[META_HASH].clone();
        let container = || container().published("80/tcp", "0.0.0.0", 80);
        let healthy = hash(container().health(Some(Health::Healthy)));
        assert_eq!(healthy, hash(container().health(Some(Health::Unhealthy))));
        assert_ne!(healthy, hash(container().health(Some(Health::Healthy)).labels(&[("SERVICE_CHECK_TCP", "1")])));
        assert_ne!(healthy, hash(container()));
    }
}
