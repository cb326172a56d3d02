//! What registrator never could: the leader's word about services, maintenance before the end, drains.

use std::time::{Duration, Instant};

use serde_json::json;
use swarmkeeper::io::consul::agent::CheckStatus;
use swarmkeeper::io::docker::Health;
use swarmkeeper::registration::Registrar;

use crate::engine::container;
use crate::{Node, options};

const SERVICE_KEY: &str = "swarmkeeper/v1/swarm/services/shop_web";

impl Node {
    /// Publishes as the leader does.
    async fn publish(&self, key: &str, value: serde_json::Value) {
        self.consul.kv_put(key, value.to_string().into_bytes()).await.unwrap();
        let generation = format!("{:?}", Instant::now()).into_bytes();
        self.consul.kv_put(&options().facts.generation, generation).await.unwrap();
    }

    async fn in_maintenance(&self, id: &str) -> bool {
        self.consul.agent_checks().await.unwrap().contains_key(&format!("_service_maintenance:{id}"))
    }

    async fn until_maintenance(&self, id: &str, expect: bool) -> Duration {
        let begin = Instant::now();
        while self.in_maintenance(id).await != expect {
            assert!(begin.elapsed() < Duration::from_secs(10), "{id} does not become {expect}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        begin.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_asked_to_stop_is_in_maintenance_while_its_process_still_serves() {
    let node = Node::start().await;
    let (_task, _sender, shutdown) = node.run();
    node.engine.listened().await;
    let mut times = Vec::new();
    for _ in 0..5 {
        node.engine.start(container("web", 8080).health(Health::Healthy));
        node.until(&["node1:web:80"]).await;
        node.engine.ask_to_stop("web");
        times.push(node.until_maintenance("node1:web:80", true).await);
        node.engine.die("web");
        node.until(&[]).await;
    }
    shutdown.cancel();
    times.sort();
    println!("asked to stop → in maintenance: median {:?}, longest {:?}", times[2], times[4]);
    assert!(times[2] < Duration::from_millis(300), "{times:?}");
}

#[tokio::test]
async fn a_stop_outlives_our_own_restart_and_a_start_ends_it() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080));
    node.pass().await;
    let event = |action| swarmkeeper::io::docker::Event { container: "c-web".to_owned(), action };
    node.registrar.mark(event(swarmkeeper::io::docker::Action::Kill(Some(15))), Instant::now());
    assert_eq!(node.pass().await.written, 1);
    assert!(node.in_maintenance("node1:web:80").await);
    node.registrar = Registrar::new(options(), node.engine.clone(), node.consul.clone());
    assert_eq!(node.pass().await.written, 0);
    assert!(node.in_maintenance("node1:web:80").await);
    node.registrar.mark(event(swarmkeeper::io::docker::Action::Start), Instant::now());
    node.pass().await;
    assert!(!node.in_maintenance("node1:web:80").await);
}

#[tokio::test]
async fn a_paused_container_is_critical() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080));
    node.pass().await;
    node.engine.put(container("web", 8080).paused());
    node.pass().await;
    assert_eq!(node.check("node1:web:80:health").await.0, CheckStatus::Critical);
    node.engine.put(container("web", 8080));
    node.pass().await;
    assert!(!node.consul.agent_checks().await.unwrap().contains_key("node1:web:80:health"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_leader_publishes_arrives_at_once_and_its_loss_changes_nothing() {
    let node = Node::start().await;
    let task = || container("shop_web.1.t1", 1).of_service("shop_web").unpublished();
    node.engine.put(task());
    let (_task, _sender, shutdown) = node.run();
    node.publish(
        SERVICE_KEY,
        json!({"schema": 1, "labels": {"SERVICE_NAME": "shop"}, "ingress": [{"target": 80, "published": 8080, "protocol": "tcp"}]}),
    )
    .await;
    let took = node.until(&["node1:shop_web:80"]).await;
    println!("published → registered: {took:?}");
    let service = node.service("node1:shop_web:80").await;
    assert_eq!((service.name.as_str(), service.port), ("shop", 8080));
    assert_eq!(service.meta.get("service").map(String::as_str), Some("shop_web"));
    shutdown.cancel();

    // Everything in KV is lost, and the agent restarts: it knows nothing, and takes nothing away.
    node.consul.kv_delete_all("swarmkeeper/").await.unwrap();
    let mut node = Node { registrar: Registrar::new(options(), node.engine.clone(), node.consul.clone()), ..node };
    assert_eq!(node.pass().await.written, 0);
    assert_eq!(node.ids().await, ["node1:shop_web:80"]);
    node.engine.remove("shop_web.1.t1");
    node.pass().await;
    assert!(node.ids().await.is_empty(), "without a task there is nothing to keep");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_is_out_of_dns_until_it_is_not() {
    let node = Node::start().await;
    node.engine.put(container("web", 8080));
    let (_task, _sender, shutdown) = node.run();
    node.until(&["node1:web:80"]).await;
    node.publish(&options().facts.drain, json!({"schema": 1})).await;
    node.until_maintenance("node1:web:80", true).await;
    assert!(!node.in_maintenance(crate::OWN).await, "the agent itself still works");
    node.consul.kv_delete(&options().facts.drain).await.unwrap();
    node.publish("swarmkeeper/v1/swarm/services/other", json!({})).await;
    node.until_maintenance("node1:web:80", false).await;
    shutdown.cancel();
}
