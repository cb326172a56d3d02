//! Coming from registrator: side by side, adopting, cleaning, and its options.

use std::collections::BTreeSet;

use swarmkeeper::io::consul::agent::Registration;
use swarmkeeper::io::docker::Health;
use swarmkeeper::registration::adopting::{Wish, carry_out, review};
use swarmkeeper::registration::rules::Deregister;
use swarmkeeper::registration::{Options, Registrar, Rules};

use crate::engine::container;
use crate::{Node, entry, options};

/// What registrator would have registered.
fn registrators(id: &str, name: &str, port: u16) -> Registration {
    Registration { name: name.to_owned(), ..entry(id, port) }
}

/// Does what a wish comes to, and says it.
async fn wish(node: &Node, wish: Wish) -> Vec<String> {
    let hosts = BTreeSet::from(["node1".to_owned()]);
    let review = review(wish, &options(), &node.engine, &node.consul, &hosts).await.unwrap();
    for step in &review.steps {
        carry_out(&node.consul, step).await.unwrap();
    }
    review.steps.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn beside_registrator_an_instance_is_there_once_and_adopting_leaves_no_gap() {
    let mut node = Node::start().await;
    node.engine.put(container("web", 8080).health(Health::Healthy));
    node.pass().await;
    assert_eq!(node.ids().await, ["node1:web:80"]);
    // Registrator comes: its own container's name is its hostname.
    node.consul.register_service(&registrators("3f2a9c:web:80", "nginx", 8080)).await.unwrap();
    for _ in 0..3 {
        node.pass().await;
        assert_eq!(node.ids().await, ["3f2a9c:web:80"]);
    }
    // Registrator has gone.
    let steps = wish(&node, Wish::Adopt).await;
    assert_eq!(steps.len(), 2, "{steps:?}");
    assert_eq!(node.ids().await, ["node1:web:80"]);
    let outcome = node.pass().await;
    assert_eq!((outcome.written, outcome.registered, outcome.remarks.len()), (0, 1, 0), "{outcome:?}");
}

#[tokio::test]
async fn an_entry_under_our_id_is_adopted_in_place() {
    let mut node = Node::start().await;
    node.consul.register_service(&registrators("node1:web:80", "nginx", 8080)).await.unwrap();
    node.engine.put(container("web", 8080));
    let outcome = node.pass().await;
    assert_eq!((outcome.registered, outcome.remarks.len()), (0, 1), "{outcome:?}");
    assert_eq!(wish(&node, Wish::Adopt).await.len(), 1);
    // The check of the last pass still tells of the one before it.
    node.pass().await;
    node.pass().await;
    let outcome = node.pass().await;
    assert_eq!((outcome.written, outcome.registered), (0, 1), "{outcome:?}");
    assert!(wish(&node, Wish::Adopt).await.is_empty(), "a second time there is nothing to do");
}

#[tokio::test]
async fn cleaning_takes_away_what_is_left_of_containers_that_are_gone_and_nothing_else() {
    let node = Node::start().await;
    node.engine.put(container("web", 8080));
    for (id, port) in [("node1:old:80", 1), ("node2:old:80", 2), ("node1:web:80", 8080), ("theirs", 3)] {
        node.consul.register_service(&entry(id, port)).await.unwrap();
    }
    let steps = wish(&node, Wish::Clean).await;
    assert_eq!(steps, ["deregister theirs, node1:old:80 (its container is gone)"]);
    assert_eq!(node.ids().await, ["node1:web:80", "node2:old:80", "theirs"]);
}

#[tokio::test]
async fn on_success_keeps_the_entry_of_a_container_that_failed_while_the_engine_remembers_it() {
    let mut node = Node::start().await;
    let rules = Rules { deregister: Deregister::OnSuccess, ..Rules::default() };
    node.registrar = Registrar::new(Options { rules, ..options() }, node.engine.clone(), node.consul.clone());
    for (name, port) in [("well", 1), ("failed", 2), ("killed", 3)] {
        node.engine.put(container(name, port));
    }
    node.pass().await;
    node.engine.fail("well", 0);
    node.engine.fail("failed", 1);
    node.engine.fail("killed", 137);
    node.pass().await;
    assert_eq!(node.ids().await, ["node1:failed:80"]);
    node.engine.prune();
    node.pass().await;
    assert!(node.ids().await.is_empty());
}

#[tokio::test]
async fn a_script_is_a_check_where_consul_runs_scripts_and_a_remark_elsewhere() {
    let script = || container("web", 8080).label("SERVICE_CHECK_SCRIPT", "exit 2");
    let mut node = Node::start().await;
    node.engine.put(script());
    let outcome = node.pass().await;
    assert_eq!((outcome.registered, outcome.remarks.len()), (1, 1), "{outcome:?}");
    let mut node = Node::start_with(serde_json::json!({"enable_script_checks": true})).await;
    node.engine.put(script().label("SERVICE_CHECK_INTERVAL", "1s").label("SERVICE_CHECK_INITIAL_STATUS", "passing"));
    let outcome = node.pass().await;
    assert_eq!((outcome.registered, outcome.remarks.len()), (1, 0), "{outcome:?}");
    node.until_check("service:node1:web:80", swarmkeeper::io::consul::agent::CheckStatus::Critical).await;
}

#[tokio::test]
async fn every_kind_of_check_is_one_that_consul_takes() {
    let mut node = Node::start_with(serde_json::json!({"enable_script_checks": true})).await;
    let kinds = ["HTTP", "HTTPS", "CMD", "SCRIPT", "TTL", "TCP", "GRPC"];
    for (port, kind) in (8000..).zip(kinds) {
        let value = if kind == "TTL" { "30s" } else { "/up" };
        let container = container(&kind.to_ascii_lowercase(), port).label(&format!("SERVICE_CHECK_{kind}"), value);
        let modified = container
            .label("SERVICE_CHECK_TIMEOUT", "1s")
            .label("SERVICE_CHECK_DEREGISTER_AFTER", "10m")
            .label("SERVICE_CHECK_GRPC_USE_TLS", "1")
            .label("SERVICE_CHECK_TLS_SKIP_VERIFY", "1");
        node.engine.put(modified);
    }
    let outcome = node.pass().await;
    assert_eq!((outcome.registered, outcome.remarks.len()), (kinds.len(), 0), "{outcome:?}");
    let outcome = node.pass().await;
    assert_eq!(outcome.written, 0, "{outcome:?}");
}
