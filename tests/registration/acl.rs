//! Consul that denies by default: the policies suffice, each of their lines is needed, and a token without one says which.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde_json::json;
use swarmkeeper::app::policies::{self, Names, Policy, Role, Rule};
use swarmkeeper::io::consul::Consul;
use swarmkeeper::io::consul::kv::Freshness;
use swarmkeeper::io::docker::Health;
use swarmkeeper::leader::publish::Board;
use swarmkeeper::leader::{self, ByConsul, Coordination, Fence, Gate, Keys, Leadership, Probe, Profile, wake};
use swarmkeeper::registration::adopting::{Wish, carry_out, review};
use swarmkeeper::registration::{Registrar, own};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine::{FakeEngine, container};
use crate::support::{ConsulServer, ROOT};
use crate::{entry, options, well};

/// Longest wait for what is denied for good; a leader begins within a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Somebody else's service.
const STRANGER: &str = "a-strangers";

fn names(services: &[&str]) -> Names {
    let services = services.iter().map(|&prefix| prefix.to_owned()).collect();
    Names { cluster: "swarm".to_owned(), node: Some("consul-test".to_owned()), services, lock_in_swarm: false }
}

/// A client whose token has these lines only.
async fn client(server: &ConsulServer, rules: &[Rule]) -> Consul {
    let lines = rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    server.client_with(Some(&server.token(&lines).await))
}

/// Everything an agent does; the first thing that goes wrong.
async fn work_as_agent(consul: &Consul, service: &str) -> Result<(), String> {
    let engine = FakeEngine::default();
    engine.put(container(service, 8080).label("SERVICE_NAME", service).health(Health::Healthy));
    engine.put(container(&format!("{service}-task.1.t1"), 1).of_service(&format!("{service}-task")).unpublished());
    let mut registrar = Registrar::new(options(), engine.clone(), consul.clone());
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let shutdown = CancellationToken::new();
    for _ in 0..2 {
        registrar.news();
        let outcome = registrar.pass(&well(), Instant::now(), &shutdown).await.map_err(|error| text(&error))?;
        if let Some(remark) = outcome.remarks.first() {
            return Err(remark.text.clone());
        }
        if outcome.registered == 0 {
            return Err("nothing is registered".to_owned());
        }
    }
    let found = consul.agent_services().await.map_err(|error| text(&error))?;
    for wanted in [own::SERVICE, service, "theirs"] {
        if !found.values().any(|found| found.name == wanted) {
            return Err(format!("{wanted} is not to be seen"));
        }
    }
    let id = format!("node1:{service}:80");
    consul.service_maintenance(&id, Some("drained")).await.map_err(|error| text(&error))?;
    consul.service_maintenance(&id, None).await.map_err(|error| text(&error))?;
    // Drains, orders to leave, the leader, its published status.
    consul.kv_get(&options().facts.drain, Freshness::Default).await.map_err(|error| text(&error))?;
    leader::current(consul, "swarm").await.map_err(|error| text(&error))?;
    consul.kv_list(&Keys::new("swarm").stacks()).await.map_err(|error| text(&error))?;
    engine.remove(service);
    let outcome = registrar.pass(&well(), Instant::now(), &shutdown).await.map_err(|error| text(&error))?;
    match outcome.remarks.first() {
        Some(remark) => Err(remark.text.clone()),
        None => adopt_and_clean(consul, &engine, service).await,
    }
}

/// Registrator's leftovers.
async fn adopt_and_clean(consul: &Consul, engine: &FakeEngine, service: &str) -> Result<(), String> {
    let leftover = |id: &str| {
        let entry = entry(&format!("node1:{service}{id}:80"), 9000);
        swarmkeeper::io::consul::agent::Registration { name: service.to_owned(), ..entry }
    };
    engine.put(container(service, 9000).label("SERVICE_NAME", service));
    let hosts = BTreeSet::from(["node1".to_owned()]);
    for (wish, id) in [(Wish::Adopt, ""), (Wish::Clean, "-old")] {
        consul.register_service(&leftover(id)).await.map_err(|error| error.to_string())?;
        let review = review(wish, &options(), engine, consul, &hosts).await.map_err(|error| error.to_string())?;
        if review.steps.is_empty() {
            return Err("a leftover is not to be seen".to_owned());
        }
        for step in &review.steps {
            carry_out(consul, step).await.map_err(|error| error.to_string())?;
        }
    }
    engine.remove(service);
    swarmkeeper::registration::remove_own(consul, "owner1").await.map(drop).map_err(|error| error.to_string())
}

/// Everything that a leader does besides; the first thing that goes wrong.
async fn work_as_leader(consul: &Consul) -> Result<(), String> {
    let options = leader::Options {
        cluster: "swarm".to_owned(),
        node: "node1".to_owned(),
        address: "http://10.0.0.1:7979".to_owned(),
        version: "1.0.0".to_owned(),
        profile: Profile::FAST,
        swarm_cluster_id: "swarm-1".to_owned(),
    };
    let probe: Probe = Arc::new(|| async { Ok(()) }.boxed());
    let lock = Arc::new(ByConsul::new(consul.clone(), options.clone()));
    let (mut candidate, leadership, gate) = leader::stand(Arc::clone(&lock) as _, options, probe);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { candidate.run(shutdown).await }
    });
    let result = lead(consul, &*lock, gate, leadership).await;
    shutdown.cancel();
    let _ = task.await;
    result?;
    look_and_leave(consul).await
}

async fn lead(
    consul: &Consul,
    lock: &dyn Coordination,
    gate: Gate,
    leadership: watch::Receiver<Leadership>,
) -> Result<(), String> {
    let opened = tokio::time::timeout(PATIENCE, gate.opened()).await;
    opened.map_err(|_| format!("it does not lead: {:?}", leadership.borrow().clone()))?.map_err(|e| e.to_string())?;
    let fence = Fence::new(gate, consul.clone(), "swarm");
    let keys = Keys::new("swarm");
    for prefix in [keys.services(), keys.drains(), keys.stacks()] {
        let mut board = Board::new(fence.clone(), prefix).moving(keys.generation());
        let wanted = BTreeMap::from([("web".to_owned(), json!({"labels": {}}))]);
        board.publish(wanted).await.map_err(|error| error.to_string())?;
    }
    wake::wake(consul, "swarm", "node1").await.map_err(|error| error.to_string())?;
    let candidates = lock.candidates().await.map_err(|trouble| trouble.reason)?;
    if !candidates.iter().any(|candidate| candidate.node == "node1" && candidate.stands) {
        return Err(format!("it does not see itself stand: {candidates:?}"));
    }
    Ok(())
}

/// What a leader needs of Consul wherever its lock is.
async fn look_and_leave(consul: &Consul) -> Result<(), String> {
    // How many agents are well; it is enough that a service of any name is.
    let nodes = consul.health_nodes("consul", true).await.map_err(|error| error.to_string())?;
    // A rollout may wait for Consul's checks.
    let critical = consul.critical_instances().await.map_err(|error| error.to_string())?;
    if nodes.is_empty() || !critical.iter().any(|(id, _)| id == STRANGER) {
        return Err("Consul hides services or their checks".to_owned());
    }
    let keys = Keys::new("swarm");
    consul.kv_put(&format!("{}left", keys.root()), Vec::new()).await.map_err(|error| error.to_string())?;
    consul.kv_delete_all(keys.root()).await.map_err(|error| error.to_string())
}

async fn work(role: Role, names: &Names, consul: &Consul, service: &str) -> Result<(), String> {
    work_as_agent(consul, service).await?;
    match role {
        Role::Agent => Ok(()),
        Role::Keeper if names.lock_in_swarm => look_and_leave(consul).await,
        Role::Keeper => work_as_leader(consul).await,
    }
}

/// A denying server with somebody else's service, which is critical.
async fn start() -> ConsulServer {
    let server = ConsulServer::start_denying().await;
    let root = server.client();
    root.register_service(&entry(STRANGER, 1)).await.unwrap();
    root.service_maintenance(STRANGER, Some("broken")).await.unwrap();
    server
}

/// All lines suffice, and without any one of them something fails; Consul says so of that line, and of no other.
async fn check(role: Role, names: &Names, service: &str) {
    let server = start().await;
    let policy = policies::policy(role, names);
    let Policy { rules, .. } = policy.clone();
    let all = client(&server, &rules).await;
    work(role, names, &all, service).await.unwrap();
    assert_eq!(all.rights_missing(&policy.rights()).await.unwrap(), []);
    for at in 0..rules.len() {
        let mut fewer = rules.clone();
        let without = fewer.remove(at);
        let consul = client(&server, &fewer).await;
        let failure = work(role, names, &consul, service).await.expect_err(&format!("{without} is not needed"));
        println!("without {without}: {failure}");
        let missing = consul.rights_missing(&policy.rights()).await.unwrap();
        let lines: Vec<_> = policy.lines_of(&missing).collect();
        assert_eq!(lines, [&without]);
        // For the next one nothing is there.
        let root = server.client();
        swarmkeeper::registration::remove_own(&root, "owner1").await.unwrap();
        root.kv_delete_all("swarmkeeper/").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_on_a_worker_needs_every_line_of_its_policy_and_no_more() {
    check(Role::Agent, &names(&[]), "web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_on_a_manager_needs_every_line_of_its_policy_and_no_more() {
    check(Role::Keeper, &names(&[]), "web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_may_be_limited_to_some_names() {
    check(Role::Keeper, &names(&["shop-"]), "shop-web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manager_whose_lock_is_in_the_swarm_needs_fewer_lines() {
    check(Role::Keeper, &Names { lock_in_swarm: true, ..names(&["shop-"]) }, "shop-web").await;
}

#[tokio::test]
async fn a_policy_for_any_node_suffices_too() {
    let server = start().await;
    let names = Names { node: None, ..names(&[]) };
    let consul = client(&server, &policies::policy(Role::Keeper, &names).rules).await;
    work(Role::Keeper, &names, &consul, "web").await.unwrap();
}

#[tokio::test]
async fn what_is_denied_names_the_operation_and_the_line_that_is_missing() {
    let server = ConsulServer::start_denying().await;
    let consul = client(&server, &[]).await;
    let key = Keys::new("swarm").lock();
    let set = swarmkeeper::io::consul::txn::Op::Set { key: key.clone(), value: Vec::new() };
    let new = swarmkeeper::io::consul::session::NewSession {
        name: "x".to_owned(),
        checks: Vec::new(),
        ttl: Duration::from_secs(10),
        lock_delay: Duration::ZERO,
    };
    let cluster = r#"key_prefix "swarmkeeper/v1/swarm/" { policy = "#;
    for (error, operation, line) in [
        (consul.kv_get(&key, Freshness::Default).await.unwrap_err(), "GET /v1/kv/swarmkeeper", cluster),
        (consul.kv_put(&key, Vec::new()).await.unwrap_err(), "PUT /v1/kv/swarmkeeper", cluster),
        (consul.kv_txn(&[set]).await.unwrap_err(), "PUT /v1/txn, key \"swarmkeeper/v1/swarm/leader\"", cluster),
        (consul.agent_ways().await.unwrap_err(), "GET /v1/agent/self", "agent \"<node>\" { policy = \"read\" }"),
        (consul.session_create(&new).await.unwrap_err(), "PUT /v1/session/create", "session \"<node>\""),
        (
            consul.register_service(&entry("web", 1)).await.unwrap_err(),
            "PUT /v1/agent/service/register",
            "service \"theirs\" { policy = \"write\" }",
        ),
    ] {
        assert_eq!(error.status(), Some(403), "{error}");
        let text = error.to_string();
        assert!(text.contains(operation) && text.contains(line), "{text}");
    }
    let stranger = server.client_with(Some("11111111-2222-3333-4444-555555555555"));
    let error = stranger.token_self().await.unwrap_err().to_string();
    assert!(error.contains("ACL not found") && !error.contains("2222"), "{error}");
    assert_eq!(server.client_with(Some(ROOT)).token_self().await.unwrap().unwrap().len(), 36);
}
