//! Registration against a real Consul, with a make-believe engine.

// A test whose world cannot be set up has failed, and says why by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "registration/acl.rs"]
mod acl;
#[path = "support/ca.rs"]
mod ca;
#[path = "registration/dns.rs"]
mod dns;
#[path = "registration/engine.rs"]
mod engine;
#[path = "registration/secrets.rs"]
mod secrets;
#[path = "support/consul.rs"]
mod support;
#[path = "registration/swarm.rs"]
mod swarm;
#[path = "registration/switching.rs"]
mod switching;
#[path = "registration/thousand.rs"]
mod thousand;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::ConsulServer;
use swarmkeeper::io::consul::Consul;
use swarmkeeper::io::consul::agent::{AgentService, CheckStatus, Registration};
use swarmkeeper::io::docker::Health;
use swarmkeeper::registration::{
    FactKeys, Options, Outcome, Registrar, Role, Rules, SelfState, Trouble, own, remove_own, run,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use engine::{FakeEngine, container};

const OWN: &str = "swarmkeeper-node1";

fn options() -> Options {
    Options {
        node: "node1".to_owned(),
        owner: "owner1".to_owned(),
        cluster: "swarm".to_owned(),
        node_address: Some([10, 0, 0, 1].into()),
        rules: Rules::default(),
        http_port: 8070,
        facts: FactKeys {
            services: "swarmkeeper/v1/swarm/services/".to_owned(),
            generation: "swarmkeeper/v1/swarm/generation".to_owned(),
            drain: "swarmkeeper/v1/swarm/drains/node1".to_owned(),
        },
        disk: None,
    }
}

fn well() -> SelfState {
    SelfState { role: Role::Manager, leader: false, engine: Ok(()), agent: Ok(()), stacks: BTreeMap::new() }
}

/// A node with a Consul and an engine.
struct Node {
    server: ConsulServer,
    consul: Consul,
    engine: FakeEngine,
    registrar: Registrar<FakeEngine>,
}

impl Node {
    async fn start() -> Self {
        Self::start_with(json!({})).await
    }

    /// With more configuration of Consul.
    async fn start_with(mut more: Value) -> Self {
        more["log_level"] = json!("debug");
        let server = ConsulServer::start_with(more, None).await;
        let (consul, engine) = (server.client(), FakeEngine::default());
        let registrar = Registrar::new(options(), engine.clone(), consul.clone());
        Self { server, consul, engine, registrar }
    }

    async fn pass(&mut self) -> Outcome {
        self.pass_at(Instant::now()).await
    }

    async fn pass_at(&mut self, now: Instant) -> Outcome {
        self.registrar.pass(&well(), now, &CancellationToken::new()).await.unwrap()
    }

    /// IDs of all services but the agent's own.
    async fn ids(&self) -> Vec<String> {
        let services = self.consul.agent_services().await.unwrap();
        services.into_keys().filter(|id| id != OWN).collect()
    }

    async fn service(&self, id: &str) -> AgentService {
        self.consul.agent_services().await.unwrap().remove(id).unwrap()
    }

    async fn check(&self, id: &str) -> (CheckStatus, String) {
        let check = self.consul.agent_checks().await.unwrap().remove(id).unwrap();
        (check.status, check.output)
    }

    /// Waits until a check stands so.
    async fn until_check(&self, id: &str, status: CheckStatus) {
        let begin = Instant::now();
        while self.check(id).await.0 != status {
            assert!(begin.elapsed() < Duration::from_secs(10), "{id} is not {status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Requests that Consul has logged.
    fn requests(&self) -> usize {
        self.server.log().lines().filter(|line| line.contains("method=")).count()
    }

    /// PUT requests that Consul has logged.
    fn writes(&self) -> usize {
        self.server.log().lines().filter(|line| line.contains("method=PUT")).count()
    }

    /// The index that watchers of a service's health wait on.
    async fn health_index(&self, service: &str) -> String {
        let url = format!("{}/v1/health/service/{service}", self.server.address());
        let answer = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap();
        answer.headers()["X-Consul-Index"].to_str().unwrap().to_owned()
    }

    /// Runs the loop beside the test.
    fn run(&self) -> (tokio::task::JoinHandle<()>, watch::Sender<SelfState>, CancellationToken) {
        let (sender, receiver) = watch::channel(well());
        let shutdown = CancellationToken::new();
        let task = run(options(), self.engine.clone(), self.consul.clone(), receiver, shutdown.clone());
        (tokio::spawn(task), sender, shutdown)
    }

    /// Waits until the check of the engine stands so; a look at the engine by the timer alone would take too long.
    async fn until_engine(&self, status: CheckStatus) {
        let begin = Instant::now();
        while self.check("swarmkeeper-node1:engine").await.0 != status {
            assert!(begin.elapsed() < Duration::from_secs(5), "not {status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until the IDs are these, and says how long that took.
    async fn until(&self, ids: &[&str]) -> Duration {
        let begin = Instant::now();
        while self.consul.agent_services().await.is_err() || self.ids().await != ids {
            assert!(begin.elapsed() < Duration::from_secs(20), "{:?} instead of {ids:?}", self.ids().await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        begin.elapsed()
    }
}

fn entry(id: &str, port: u16) -> Registration {
    Registration {
        id: id.to_owned(),
        name: "theirs".to_owned(),
        tags: Vec::new(),
        meta: BTreeMap::new(),
        port,
        address: [10, 0, 0, 1].into(),
        checks: Vec::new(),
    }
}

#[tokio::test]
async fn an_unchanged_pass_makes_no_write() {
    let mut node = Node::start().await;
    let checked = container("web", 8080).label("SERVICE_CHECK_HTTP", "/up").label("SERVICE_TAGS", "b,a");
    node.engine.put(checked.label("SERVICE_REGION", "eu").health(Health::Healthy));
    node.engine.put(container("db", 5432));
    let now = Instant::now();
    let outcome = node.pass_at(now).await;
    assert_eq!((outcome.written, outcome.registered), (3, 2));
    let writes = node.writes();
    for _ in 0..3 {
        let outcome = node.pass_at(now).await;
        assert_eq!((outcome.written, outcome.repeated, outcome.registered), (0, 0, 2), "{outcome:?}");
    }
    assert_eq!(node.writes(), writes);
}

#[tokio::test]
async fn registrators_entry_at_the_same_place_is_respected() {
    let mut node = Node::start().await;
    node.consul.register_service(&entry("other-host:web:80", 8080)).await.unwrap();
    node.engine.put(container("web", 8080));
    let outcome = node.pass().await;
    assert_eq!(outcome.remarks.len(), 1);
    assert_eq!(node.ids().await, ["other-host:web:80"]);
    node.engine.remove("web");
    node.pass().await;
    assert_eq!(node.ids().await, ["other-host:web:80"]);
}

#[tokio::test]
async fn a_container_that_dies_leaves_consul_with_its_checks() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080).health(Health::Healthy));
    node.engine.put(container("db", 5432));
    node.pass().await;
    node.engine.remove("web");
    assert_eq!(node.pass().await.written, 1);
    assert_eq!(node.ids().await, ["node1:db:80"]);
    assert!(!node.consul.agent_checks().await.unwrap().contains_key("node1:web:80:health"));
}

#[tokio::test]
async fn a_check_that_is_no_longer_wanted_goes() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080).label("SERVICE_CHECK_TCP", "1"));
    node.pass().await;
    assert!(node.consul.agent_checks().await.unwrap().contains_key("service:node1:web:80"));
    node.engine.put(container("web", 8080));
    node.pass().await;
    assert!(!node.consul.agent_checks().await.unwrap().contains_key("service:node1:web:80"));
}

#[tokio::test]
async fn while_the_engine_is_silent_nothing_goes_and_the_agents_check_says_so() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080));
    node.pass().await;
    node.engine.silence(true);
    assert!(node.pass().await.engine.is_some());
    assert_eq!(node.ids().await, ["node1:web:80"]);
    let (status, text) = node.check("swarmkeeper-node1:engine").await;
    assert_eq!(status, CheckStatus::Critical);
    assert!(text.contains("systemctl status docker"), "{text}");
    node.engine.silence(false);
    node.pass().await;
    assert_eq!(node.check("swarmkeeper-node1:engine").await.0, CheckStatus::Passing);
}

#[tokio::test]
async fn a_verdict_arrives_and_its_repeats_wake_nobody() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080).health(Health::Starting));
    let mut now = Instant::now();
    node.pass_at(now).await;
    assert_eq!(node.check("node1:web:80:health").await.0, CheckStatus::Critical);
    node.engine.put(container("web", 8080).health(Health::Healthy));
    node.pass_at(now).await;
    let said = node.check("node1:web:80:health").await;
    assert_eq!(said, (CheckStatus::Passing, "The container's HEALTHCHECK passes.".to_owned()));
    let index = node.health_index("nginx").await;
    for _ in 0..3 {
        now += Duration::from_mins(5);
        assert_eq!(node.pass_at(now).await.repeated, 4);
    }
    assert_eq!(node.check("node1:web:80:health").await, said);
    assert_eq!(node.health_index("nginx").await, index);
}

#[tokio::test]
async fn a_maintenance_ordered_by_hand_outlives_a_change() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080));
    node.pass().await;
    node.consul.service_maintenance("node1:web:80", Some("disk swap")).await.unwrap();
    node.engine.put(container("web", 8080).label("SERVICE_TAGS", "new"));
    node.pass().await;
    assert_eq!(node.service("node1:web:80").await.tags, ["new"]);
    let checks = node.consul.agent_checks().await.unwrap();
    assert_eq!(checks["_service_maintenance:node1:web:80"].notes, "disk swap");
}

#[tokio::test]
async fn what_consul_refuses_stops_nothing_else() {
    let mut node = Node::start().await;
    // More hours than Go can count.
    let bad = container("bad", 8080).label("SERVICE_CHECK_TCP", "1").label("SERVICE_CHECK_INTERVAL", "99999999h");
    node.engine.put(bad);
    node.engine.put(container("web", 8081));
    for _ in 0..2 {
        let outcome = node.pass().await;
        assert_eq!((outcome.remarks.len(), outcome.registered), (1, 1), "{outcome:?}");
    }
    assert_eq!(node.ids().await, ["node1:web:80"]);
}

#[tokio::test]
async fn an_id_may_hold_anything() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080).label("SERVICE_ID", "a/b c?é").health(Health::Healthy));
    node.pass().await;
    assert_eq!(node.ids().await, ["a/b c?é"]);
    assert_eq!(node.check("a/b c?é:health").await.0, CheckStatus::Passing);
    node.engine.remove("web");
    node.pass().await;
    assert!(node.ids().await.is_empty());
}

#[tokio::test]
async fn leaving_takes_our_entries_away_and_no_others() {
    let mut node = Node::start().await;
    node.consul.register_service(&entry("theirs", 9999)).await.unwrap();
    node.engine.put(container("web", 8080));
    node.pass().await;
    assert_eq!(remove_own(&node.consul, "owner1").await.unwrap(), 2);
    let left: Vec<String> = node.consul.agent_services().await.unwrap().into_keys().collect();
    assert_eq!(left, ["theirs"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_leaves_everything_and_a_restart_only_repeats_the_checks() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080).health(Health::Healthy));
    let (task, _sender, _shutdown) = node.run();
    node.until(&["node1:web:80"]).await;
    // The last write of the first pass.
    while node.check("node1:web:80:health").await.1.is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    task.abort();
    let _ = task.await;
    assert_eq!(node.ids().await, ["node1:web:80"]);
    let outcome = node.pass().await;
    assert_eq!((outcome.written, outcome.registered), (0, 1), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_end_takes_nothing_away_and_is_quick() {
    let node = Node::start().await;
    node.engine.put(container("web", 8080));
    let (task, _sender, shutdown) = node.run();
    node.until(&["node1:web:80"]).await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(1), task).await.unwrap().unwrap();
    assert_eq!(node.ids().await, ["node1:web:80"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_in_consul_soon_after_its_start_and_out_soon_after_its_end() {
    let node = Node::start().await;
    let (_task, _sender, shutdown) = node.run();
    node.engine.listened().await;
    let mut times = Vec::new();
    for _ in 0..11 {
        node.engine.start(container("web", 8080).health(Health::Healthy));
        times.push(node.until(&["node1:web:80"]).await);
        node.engine.die("web");
        times.push(node.until(&[]).await);
    }
    shutdown.cancel();
    times.sort();
    println!("start or end → Consul: median {:?}, longest {:?}", times[11], times[21]);
    // Far above what it takes, since the machine may be busy; a pass by the timer alone would take seconds.
    assert!(times[11] < Duration::from_millis(500), "{times:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consul_that_was_away_is_brought_up_to_date() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080));
    let (_task, _sender, shutdown) = node.run();
    node.until(&["node1:web:80"]).await;
    node.server.kill();
    node.engine.start(container("db", 5432));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    node.server.start_again().await;
    let took = node.until(&["node1:db:80", "node1:web:80"]).await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    // An agent that lost everything, as one without a data directory does.
    remove_own(&node.consul, "owner1").await.unwrap();
    node.engine.start(container("db", 5432));
    node.until(&["node1:db:80", "node1:web:80"]).await;
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_goes_is_noticed_at_once_and_its_return_soon() {
    let node = Node::start().await;
    node.engine.put(container("web", 8080));
    let (_task, _sender, shutdown) = node.run();
    node.until(&["node1:web:80"]).await;
    node.engine.kill();
    node.until_engine(CheckStatus::Critical).await;
    assert_eq!(node.ids().await, ["node1:web:80"]);
    node.engine.silence(false);
    node.until_engine(CheckStatus::Passing).await;
    node.engine.listened().await;
    node.engine.die("web");
    node.until(&[]).await;
    shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leads_and_what_is_the_matter_show_in_the_agents_own_service() {
    let node = Node::start().await;
    let (_task, sender, shutdown) = node.run();
    let begin = Instant::now();
    while !node.consul.agent_services().await.unwrap().contains_key(OWN) {
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let trouble = Trouble { reason: "git does not answer".to_owned(), mend: "Look at the deploy key.".to_owned() };
    sender.send(SelfState { leader: true, agent: Err(trouble), ..well() }).unwrap();
    while node.service(OWN).await.tags != ["swarm", "manager", "leader"] {
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let expect = (CheckStatus::Critical, "git does not answer. Look at the deploy key.".to_owned());
    while node.check("swarmkeeper-node1:agent").await != expect {
        assert!(begin.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let name: Value = json!(own::SERVICE);
    assert_eq!(json!(node.service(OWN).await.name), name);
    shutdown.cancel();
}
