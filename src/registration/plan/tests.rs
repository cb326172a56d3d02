//! The plan's rules, one a test.

use std::sync::Arc;

use super::*;
use crate::io::consul::agent::{AgentCheck, AgentService};
use crate::io::docker::Health;
use crate::registration::facts::Facts;
use crate::registration::fixture::{self, Fixture};
use crate::registration::rules::AgentLoss;
use crate::registration::wanted::{Running, unpublished, wanted};
use crate::registration::{SelfState, own};
use crate::spec::{IngressPort, ServiceFacts};

/// A node, its engine and its Consul agent, as far as the plan sees them; applying a plan is what Consul would do.
struct World {
    containers: Option<Vec<Fixture>>,
    unknown: BTreeSet<String>,
    stopping: BTreeSet<String>,
    facts: Facts,
    state: SelfState,
    services: BTreeMap<String, AgentService>,
    checks: BTreeMap<String, AgentCheck>,
    reported: BTreeMap<String, Instant>,
    now: Instant,
}

impl World {
    /// A world in which the agent's own service is registered and said to be well.
    fn new(containers: Vec<Fixture>) -> Self {
        let mut world = Self {
            containers: Some(Vec::new()),
            unknown: BTreeSet::new(),
            stopping: BTreeSet::new(),
            facts: Facts::default(),
            state: fixture::well(),
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
            reported: BTreeMap::new(),
            now: Instant::now(),
        };
        world.settle();
        world.containers = Some(containers);
        world
    }

    fn plan(&self) -> Plan {
        let place = fixture::place();
        let made: Vec<_> =
            self.containers.iter().flatten().map(|container| Arc::new(container.clone().done())).collect();
        let unpublished = unpublished(&made, &self.facts);
        let own = own::wanted(
            &fixture::options(),
            place.address,
            &own::Told { state: &self.state, disk: None, last: &own::LastPass::default() },
        );
        let running = Running { containers: &made, stopping: &self.stopping, facts: &self.facts };
        let mut said = Vec::new();
        let containers = self.containers.as_ref().map(|_| Containers {
            wanted: Box::new(wanted(running, &place, &mut said)),
            unknown: &self.unknown,
            unpublished: &unpublished,
        });
        let services = self.services.iter().map(|(id, service)| (id.clone(), Entry::from(service.clone()))).collect();
        let standing = |check: &AgentCheck| Standing {
            status: check.status,
            notes: check.notes.as_str().into(),
            output: check.output.as_str().into(),
        };
        let checks = self.checks.iter().map(|(id, check)| (id.clone(), standing(check))).collect();
        let registered =
            Registered { services: &services, checks: &checks, agent_address: place.address, reported: &self.reported };
        plan(Desired { owner: &place.owner, own, containers }, &registered, self.now)
    }

    /// Applies the plan.
    fn settle(&mut self) {
        for step in self.plan().steps {
            match step {
                Step::Register { registration, reports, maintenance, .. } => {
                    self.checks.retain(|_, check| check.service_id != registration.id);
                    for check in &registration.checks {
                        let status = check.status.unwrap_or(CheckStatus::Critical);
                        self.checks.insert(check.id.clone(), agent_check(&check.id, &registration.id, status));
                    }
                    let Registration { id, name, tags, meta, port, address, .. } = *registration;
                    let address = address.to_string();
                    let service =
                        AgentService { id: id.clone(), name, tags, meta, port, address, enable_tag_override: false };
                    self.services.insert(id.clone(), service);
                    self.maintain(&id, maintenance);
                    for report in reports {
                        self.report(report);
                    }
                }
                Step::Report { report, .. } => self.report(report),
                Step::Maintain { id, reason, .. } => self.maintain(&id, reason),
                Step::Deregister { id, .. } => {
                    self.services.remove(&id);
                    self.checks.retain(|_, check| check.service_id != id);
                }
            }
        }
    }

    fn report(&mut self, report: Report) {
        let check = self.checks.get_mut(&report.check).unwrap();
        (check.status, check.output) = (report.status, report.text);
        self.reported.insert(report.check, self.now);
    }

    fn maintain(&mut self, id: &str, reason: Option<String>) {
        let check = maintenance_check(id);
        self.checks.remove(&check);
        if let Some(notes) = reason {
            let made = AgentCheck { notes, ..agent_check(&check, id, CheckStatus::Critical) };
            self.checks.insert(check, made);
        }
    }

    fn stranger(&mut self, id: &str, address: &str, port: u16) {
        let (id, name, address) = (id.to_owned(), "theirs".to_owned(), address.to_owned());
        self.services.insert(id.clone(), AgentService { id, name, port, address, ..AgentService::default() });
    }

    /// The plan, a step or remark a line.
    #[track_caller]
    fn check(&self, expect: &[&str]) {
        let plan = self.plan();
        let remarks = plan.remarks.iter().map(|remark| format!("{}: {}", remark.subject, remark.text));
        let lines: Vec<String> = plan.steps.iter().map(ToString::to_string).chain(remarks).collect();
        assert_eq!(lines, expect);
    }
}

fn agent_check(id: &str, service_id: &str, status: CheckStatus) -> AgentCheck {
    AgentCheck {
        id: id.to_owned(),
        name: String::new(),
        status,
        notes: String::new(),
        output: String::new(),
        service_id: service_id.to_owned(),
    }
}

fn web() -> Fixture {
    fixture::container("web").published("80/tcp", "0.0.0.0", 8080)
}

const REGISTER_WEB: &str = "register nginx at 10.0.0.1:8080 as node1:web:80 (new)";

#[test]
fn a_settled_world_has_an_empty_plan() {
    let mut world = World::new(vec![web().health(Some(Health::Healthy)), fixture::container("db")]);
    world.check(&[REGISTER_WEB]);
    world.settle();
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn who_leads_is_written_before_anything_else() {
    let mut world = World::new(vec![web()]);
    world.state.leader = true;
    world.check(&["register swarmkeeper at 10.0.0.1:8070 as swarmkeeper-node1 (changed: tags)", REGISTER_WEB]);
}

#[test]
fn the_agents_own_container_is_not_registered_twice() {
    World::new(vec![fixture::container("agent").host_network().exposed("8070/tcp")]).check(&[]);
}

#[test]
fn a_container_that_is_gone_is_deregistered() {
    let mut world = World::new(vec![web()]);
    world.settle();
    world.containers = Some(Vec::new());
    world.check(&["deregister nginx, node1:web:80 (its container does not run or is not registered any more)"]);
}

#[test]
fn a_new_id_is_registered_before_the_old_one_goes() {
    let mut world = World::new(vec![web()]);
    world.settle();
    world.containers = Some(vec![web().labels(&[("SERVICE_ID", "mine")])]);
    world.check(&[
        "register nginx at 10.0.0.1:8080 as mine (new)",
        "deregister nginx, node1:web:80 (its container is registered otherwise now)",
    ]);
}

#[test]
fn while_the_engine_is_silent_nothing_is_deregistered_and_the_agent_still_reports() {
    let mut world = World::new(vec![web()]);
    world.settle();
    world.containers = None;
    world.now += own::REFRESH;
    world.check(&[
        "repeat swarmkeeper-node1:agent passing",
        "repeat swarmkeeper-node1:engine passing",
        "repeat swarmkeeper-node1:pass passing",
    ]);
}

#[test]
fn the_entry_of_a_container_that_cannot_be_inspected_stays() {
    let mut world = World::new(vec![web()]);
    world.settle();
    world.containers = Some(Vec::new());
    world.unknown.insert("c-web".to_owned());
    world.check(&[]);
}

#[test]
fn what_others_registered_is_never_touched() {
    let mut world = World::new(Vec::new());
    world.stranger("theirs", "10.0.0.1", 9999);
    world.check(&[]);
}

#[test]
fn beside_a_strangers_entry_at_the_same_place_none_is_made() {
    let expect = [
        "nginx: not registered: 10.0.0.1:8080 is registered as theirs already, and not by us; stop what made it and take it away with \
         `consul services deregister -id=node1:web:80:x`",
    ];
    for address in ["10.0.0.1", ""] {
        let mut world = World::new(vec![web()]);
        world.stranger("node1:web:80:x", address, 8080);
        world.check(&expect);
    }
}

#[test]
fn an_entry_of_ours_stays_when_a_stranger_comes_to_its_place() {
    let mut world = World::new(vec![web()]);
    world.settle();
    world.stranger("late", "10.0.0.1", 8080);
    world.check(&[]);
}

#[test]
fn an_id_that_a_stranger_holds_is_left_to_him() {
    let mut world = World::new(vec![web()]);
    world.stranger("node1:web:80", "10.9.9.9", 1);
    world.check(&[
        "nginx: not registered: the entry node1:web:80 is not ours; if it is registrator's, stop that and `swarmkeeper consul adopt` \
         takes it over",
    ]);
}

#[test]
fn of_two_containers_with_one_id_the_first_is_registered() {
    let id = [("SERVICE_ID", "one")];
    let other = fixture::container("other").published("80/tcp", "0.0.0.0", 8081);
    let world = World::new(vec![web().labels(&id), other.labels(&id)]);
    world.check(&[
        "register nginx at 10.0.0.1:8080 as one (new)",
        "nginx: not registered: another container on this node has the ID one too; give each a SERVICE_ID of its own",
    ]);
}

#[test]
fn a_change_by_anothers_hand_is_mended_and_named() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut AgentService), what: &str) {
        let mut world = World::new(vec![web().labels(&[("SERVICE_TAGS", "a,b")])]);
        world.settle();
        change(world.services.get_mut("node1:web:80").unwrap());
        let line = format!("register nginx at 10.0.0.1:8080 as node1:web:80 (changed: {what})");
        let lines = if what.is_empty() { Vec::new() } else { vec![line.as_str()] };
        world.check(&lines);
    }
    check(|service| service.port = 1, "port");
    check(|service| service.address = String::new(), "address");
    check(|service| service.name.push('x'), "name");
    check(|service| service.tags.push("x".to_owned()), "tags");
    check(|service| drop(service.meta.insert("x".to_owned(), "y".to_owned())), "meta");
    check(|service| drop(service.meta.insert(META_HASH.to_owned(), "0".to_owned())), "checks");
    check(|service| service.tags.reverse(), "");
    check(|service| (service.tags, service.enable_tag_override) = (Vec::new(), true), "");
}

#[test]
fn a_check_that_consul_lost_is_registered_again() {
    let mut world = World::new(vec![web().health(Some(Health::Healthy))]);
    world.settle();
    world.checks.remove("node1:web:80:health");
    world.check(&["register nginx at 10.0.0.1:8080 as node1:web:80 (changed: missing checks)"]);
}

#[test]
fn a_new_verdict_is_reported_at_once_and_an_old_one_repeated_in_time() {
    let mut world = World::new(vec![web().health(Some(Health::Starting))]);
    world.settle();
    world.containers = Some(vec![web().health(Some(Health::Healthy))]);
    world.check(&["report node1:web:80:health passing (was critical): The container's HEALTHCHECK passes."]);
    world.settle();
    let own_is_reported = |world: &mut World| {
        world.now += own::REFRESH;
        world.containers = None;
        world.settle();
        world.containers = Some(vec![web().health(Some(Health::Healthy))]);
    };
    let begin = world.now;
    while world.now + own::REFRESH < begin + AgentLoss::Keep.times(own::REFRESH).1 {
        own_is_reported(&mut world);
        world.check(&[]);
    }
    own_is_reported(&mut world);
    world.check(&["repeat node1:web:80:health passing"]);
}

#[test]
fn after_our_own_restart_every_verdict_is_repeated_once() {
    let mut world = World::new(vec![web().health(Some(Health::Healthy))]);
    world.settle();
    world.reported.clear();
    world.check(&[
        "repeat swarmkeeper-node1:agent passing",
        "repeat swarmkeeper-node1:engine passing",
        "repeat swarmkeeper-node1:pass passing",
        "repeat node1:web:80:health passing",
    ]);
}

#[test]
fn a_verdict_that_ran_out_is_reported_anew() {
    let mut world = World::new(vec![web().health(Some(Health::Healthy))]);
    world.settle();
    world.checks.get_mut("node1:web:80:health").unwrap().status = CheckStatus::Critical;
    world.check(&["report node1:web:80:health passing (was critical): The container's HEALTHCHECK passes."]);
}

#[test]
fn a_maintenance_outlives_a_new_registration() {
    let mut world = World::new(vec![web()]);
    world.settle();
    let id = maintenance_check("node1:web:80");
    let check = AgentCheck { notes: "disk swap".to_owned(), ..agent_check(&id, "node1:web:80", CheckStatus::Critical) };
    world.checks.insert(id, check);
    world.containers = Some(vec![web().labels(&[("SERVICE_TAGS", "new")])]);
    let steps = world.plan().steps;
    assert!(matches!(&steps[..], [Step::Register { maintenance: Some(reason), .. }] if reason == "disk swap"));
}

#[test]
fn a_stopping_container_is_in_maintenance_once_and_comes_back_if_it_goes_on() {
    let mut world = World::new(vec![web()]);
    world.settle();
    world.stopping.insert("c-web".to_owned());
    world.check(&["take nginx, node1:web:80, out of DNS (swarmkeeper: the container is stopping)"]);
    world.settle();
    world.check(&[]);
    world.stopping.clear();
    world.check(&["bring nginx, node1:web:80, back into DNS"]);
}

#[test]
fn a_drained_node_has_all_its_containers_in_maintenance_and_a_persons_own_stays() {
    let mut world = World::new(vec![web(), fixture::container("db").published("5432/tcp", "0.0.0.0", 5432)]);
    world.settle();
    world.maintain("node1:db:5432", Some("disk swap".to_owned()));
    world.facts = Facts::made_up(&[], true);
    world.check(&["take nginx, node1:web:80, out of DNS (swarmkeeper: the node is drained)"]);
    world.settle();
    world.facts = Facts::default();
    world.check(&["bring nginx, node1:web:80, back into DNS"]);
}

/// A task of the service `shop_web`.
fn task(slot: u8) -> Fixture {
    let task = format!("shop_web.{slot}.t{slot}");
    fixture::container(&task).labels(&[
        ("com.docker.stack.namespace", "shop"),
        ("com.docker.swarm.service.name", "shop_web"),
        ("com.docker.swarm.task.name", &task),
    ])
}

fn published(labels: &[(&str, &str)], port: u16) -> Facts {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let ingress = vec![IngressPort { target: 80, published: port, protocol: "tcp".to_owned() }];
    Facts::made_up(&[("shop_web", ServiceFacts { labels, ingress })], false)
}

#[test]
fn a_port_of_the_mesh_is_one_instance_however_many_tasks_a_node_has() {
    let mut world = World::new(vec![task(1), task(2)]);
    world.facts = published(&[("SERVICE_NAME", "shop")], 8080);
    world.check(&["register shop at 10.0.0.1:8080 as node1:shop_web:80 (new)"]);
    world.settle();
    world.containers = Some(vec![task(2)]);
    world.check(&[]);
    world.stopping.insert("c-shop_web.2.t2".to_owned());
    world.check(&["take shop, node1:shop_web:80, out of DNS (swarmkeeper: the container is stopping)"]);
    world.containers = Some(Vec::new());
    world.check(&["deregister shop, node1:shop_web:80 (its container does not run or is not registered any more)"]);
}

#[test]
fn a_port_of_the_mesh_passes_while_one_task_does() {
    let mut world = World::new(vec![task(1).health(Some(Health::Healthy)), task(2).health(Some(Health::Healthy))]);
    world.facts = published(&[], 8080);
    world.settle();
    world.containers = Some(vec![task(1).health(Some(Health::Healthy)), task(2).health(Some(Health::Unhealthy))]);
    world.check(&[]);
    world.stopping.insert("c-shop_web.1.t1".to_owned());
    let steps = world.plan().steps;
    assert!(
        matches!(&steps[..], [Step::Report { report, before: Some(CheckStatus::Passing) }] if report.status == CheckStatus::Critical),
        "{steps:?}"
    );
}

#[test]
fn what_the_leader_publishes_enriches_and_its_silence_takes_nothing_back() {
    let named = |state| task(1).published("80/tcp", "0.0.0.0", 8081).health(Some(state));
    let mut world = World::new(vec![named(Health::Healthy)]);
    world.check(&["register nginx at 10.0.0.1:8081 as node1:shop_web.1.t1:80 (new)"]);
    world.settle();
    world.facts = Facts::made_up(
        &[(
            "shop_web",
            ServiceFacts { labels: BTreeMap::from([("SERVICE_NAME".into(), "shop".into())]), ingress: vec![] },
        )],
        false,
    );
    world.check(&["register shop at 10.0.0.1:8081 as node1:shop_web.1.t1:80 (changed: name, meta)"]);
    world.settle();
    world.facts = Facts::default();
    world.check(&[]);
    world.containers = Some(vec![named(Health::Starting)]);
    let steps = world.plan().steps;
    assert!(matches!(&steps[..], [Step::Report { before: Some(CheckStatus::Passing), .. }]), "{steps:?}");
}

#[test]
fn a_port_of_the_mesh_stays_when_the_leaders_word_is_lost_and_goes_with_its_last_task() {
    let mut world = World::new(vec![task(1)]);
    world.facts = published(&[], 8080);
    world.settle();
    world.facts = Facts::default();
    world.check(&[]);
    world.containers = Some(Vec::new());
    world.check(&["deregister nginx, node1:shop_web:80 (its container does not run or is not registered any more)"]);
}

#[test]
fn an_instance_that_registrator_registers_too_is_there_once() {
    let mut world = World::new(vec![web()]);
    world.settle();
    world.stranger("3f2a9c:web:80", "10.0.0.1", 8080);
    world.services.get_mut("3f2a9c:web:80").unwrap().name = "nginx".to_owned();
    world.check(&[
        "deregister nginx, node1:web:80 (its container is registered otherwise now)",
        "nginx: registered by registrator at 10.0.0.1:8080; once registrator has stopped, `swarmkeeper consul adopt` takes it over \
         without a gap",
    ]);
}

#[test]
fn more_than_a_plan_takes_is_left_for_the_next_one() {
    let many = (0..300).map(|n| fixture::container(&format!("c{n}")).published("80/tcp", "0.0.0.0", 10_000 + n));
    let mut world = World::new(many.collect());
    let plan = world.plan();
    assert_eq!((plan.steps.len(), plan.is_cut), (STEPS_MAX, true));
    world.settle();
    let plan = world.plan();
    assert_eq!((plan.steps.len(), plan.is_cut), (300 - STEPS_MAX, false));
}

proptest::proptest! {
    #[test]
    fn what_a_plan_does_needs_no_second_one(
        before in proptest::collection::vec((0_u16..6, 0_u16..4, proptest::bool::ANY), 0..6),
        after in proptest::collection::vec((0_u16..6, 0_u16..4, proptest::bool::ANY), 0..6),
    ) {
        let containers = |all: Vec<(u16, u16, bool)>| {
            let by_name: BTreeMap<u16, (u16, bool)> = all.into_iter().map(|(name, id, well)| (name, (id, well))).collect();
            by_name.into_iter().map(|(name, (id, well))| {
                let health = if well { Health::Healthy } else { Health::Unhealthy };
                let container = fixture::container(&format!("c{name}")).published("80/tcp", "0.0.0.0", 8000 + name);
                container.health(Some(health)).labels(&[("SERVICE_ID", &format!("id{id}"))])
            }).collect::<Vec<_>>()
        };
        let mut world = World::new(containers(before));
        world.stranger("id3", "10.0.0.1", 8001);
        world.settle();
        world.containers = Some(containers(after));
        world.settle();
        proptest::prop_assert_eq!(world.plan().steps, []);
    }
}
