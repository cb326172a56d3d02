//! What containers are registered as, one rule a test.

use super::*;
use crate::registration::fixture::{self, Fixture};
use crate::registration::offers::LABEL_NETWORK;
use crate::registration::rules::TagTemplate;

fn place() -> Place {
    fixture::place()
}

/// `id name address:port` of each registration, then the remarks.
#[track_caller]
fn check(container: Fixture, expect: &[&str]) {
    check_by(&Rules { networks: vec!["preferred".to_owned()], ..Rules::default() }, &[container], expect);
}

/// The same by the operator's rules.
#[track_caller]
fn check_by(rules: &Rules, containers: &[Fixture], expect: &[&str]) {
    let mut remarks = Vec::new();
    let wanted = of(containers, &Place { rules: rules.clone(), ..place() }, &mut remarks);
    let services = wanted.iter().map(|wanted| {
        let Registration { id, name, address, port, .. } = &wanted.registration;
        format!("{id} {name} {address}:{port}")
    });
    let remarks = remarks.iter().map(|remark| format!("{}: {}", remark.subject, remark.text));
    assert_eq!(services.chain(remarks).collect::<Vec<_>>(), expect);
}

fn of(containers: &[Fixture], place: &Place, remarks: &mut Vec<Remark>) -> Vec<Wanted> {
    let containers: Vec<_> = containers.iter().map(|container| Arc::new(container.clone().done())).collect();
    let (stopping, facts) = (BTreeSet::new(), Facts::default());
    wanted(Running { containers: &containers, stopping: &stopping, facts: &facts }, place, remarks).collect()
}

fn container() -> Fixture {
    fixture::container("web")
}

fn only(container: Fixture) -> Wanted {
    let mut all = of(&[container], &place(), &mut Vec::new());
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
    check(on_two().labels(&[("SERVICE_NAME", "shop"), (LABEL_NETWORK, "back")]), &["node1:web:80 shop 10.6.0.7:80"]);
    check(on_two().network("preferred", "10.7.0.7"), &["node1:web:80 shop 10.7.0.7:80"]);
    check(
        on_two().labels(&[("SERVICE_NAME", "shop"), (LABEL_NETWORK, "ingress")]),
        &["web: port 80 is not registered: label swarmkeeper.network=ingress names a network where it has no address"],
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
            "node=node1",
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
    let container = container().published("80/tcp", "0.0.0.0", 80).labels(&labels);
    let all = of(&[container], &place(), &mut remarks);
    assert_eq!(all[0].registration.meta.len(), META_PAIRS_MAX);
    assert_eq!(remarks[0].text, "21 pairs are left out of Meta: consul takes no more than 64");
}

#[test]
fn a_healthcheck_becomes_a_ttl_check_that_stands_as_docker_says() {
    #[track_caller]
    fn check(state: State, health: Option<Health>, expect: Option<CheckStatus>) {
        let wanted = only(container().published("80/tcp", "0.0.0.0", 80).state(state).health(health));
        assert_eq!(wanted.reports.first().map(|report| report.status), expect);
        assert_eq!(wanted.as_reported().registration.checks.first().and_then(|check| check.status), expect);
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

// registrator.go: -internal; bridge.go, newService: ExposedIP and ExposedPort.
#[test]
fn internal_registers_every_exposed_port_at_the_containers_address() {
    let rules = Rules { internal: true, ..Rules::default() };
    let both = container().published("80/tcp", "0.0.0.0", 8080).exposed("9000/tcp").network("net", "10.5.0.7");
    check_by(&rules, &[both], &["node1:web:80 nginx-80 10.5.0.7:80", "node1:web:9000 nginx-9000 10.5.0.7:9000"]);
}

// registrator.go: -explicit; bridge.go, newService: Explicit.
#[test]
fn explicit_registers_what_has_a_name_only() {
    let rules = Rules { explicit: true, ..Rules::default() };
    let web = || container().published("80/tcp", "0.0.0.0", 8080);
    check_by(&rules, &[web()], &[]);
    check_by(&rules, &[web().labels(&[("SERVICE_NAME", "shop")])], &["node1:web:80 shop 10.0.0.1:8080"]);
}

// registrator.go: -useIpFromLabel; bridge.go, newService: UseIpFromLabel.
#[test]
fn the_address_may_stand_in_a_label() {
    let rules = Rules { ip_from_label: Some("ip".to_owned()), ..Rules::default() };
    let web = || container().published("80/tcp", "0.0.0.0", 8080);
    check_by(&rules, &[web()], &["node1:web:80 nginx 10.0.0.1:8080"]);
    check_by(&rules, &[web().labels(&[("ip", "10.9.0.3/24")])], &["node1:web:80 nginx 10.9.0.3:8080"]);
    check_by(
        &rules,
        &[web().labels(&[("ip", "eth0")])],
        &["web: port 80 is not registered: label ip=eth0 is no address"],
    );
}

// registrator.go: -tags; bridge.go, newService: combineTags with ForceTags.
#[test]
fn every_service_gets_the_operators_tags() {
    let rules = Rules { tags: TagTemplate::new("{{node}},{{stack}},p{{port}}").unwrap(), ..Rules::default() };
    let web = container().published("80/udp", "0.0.0.0", 80).labels(&[("SERVICE_TAGS", "a")]);
    let all = of(&[web], &Place { rules, ..place() }, &mut Vec::new());
    assert_eq!(all[0].registration.tags, ["a", "node1", "p80", "udp"]);
}

// bridge.go, newService: NetworkMode `container:`.
#[test]
fn a_container_on_anothers_network_is_at_that_ones_address() {
    let lender = fixture::container("pause").network("net", "10.5.0.9");
    let web = container().exposed("80/tcp").network_of("c-pause");
    check_by(&Rules::default(), &[lender, web], &["node1:web:80 nginx 10.5.0.9:80"]);
}

#[test]
fn a_networks_label_asks_for_the_containers_address_and_may_leave_the_stack_out() {
    let labels = [(LABEL_NETWORK, "back"), ("com.docker.stack.namespace", "shop")];
    let web = container().exposed("80/tcp").network("shop_back", "10.6.0.7").network("front", "10.5.0.7");
    check(web.labels(&labels), &["node1:web:80 nginx 10.6.0.7:80"]);
}

#[test]
fn a_name_that_two_stacks_share_is_joined_or_told_apart() {
    let of_stack = |name: &str, stack: &str, port| {
        let labels = [("com.docker.stack.namespace", stack), ("SERVICE_NAME", "api")];
        fixture::container(name).published("80/tcp", "0.0.0.0", port).labels(&labels)
    };
    let both = [of_stack("a", "shop", 81), of_stack("b", "blog", 82)];
    check_by(&Rules::default(), &both, &["node1:a:80 api 10.0.0.1:81", "node1:b:80 api 10.0.0.1:82"]);
    let apart = Rules { stack_names: StackNames::Apart, ..Rules::default() };
    check_by(&apart, &both, &["node1:a:80 shop-api 10.0.0.1:81", "node1:b:80 blog-api 10.0.0.1:82"]);
}
