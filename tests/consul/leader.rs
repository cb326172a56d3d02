//! The election with a real Consul, beyond what [`crate::coordination`] asks of every lock: fenced writes, sessions and checks, the claim,
//! wake-ups, what is published, rights, and Raft elections of Consul's own servers.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use swarmkeeper::io::consul::Consul;
use swarmkeeper::io::consul::kv::Freshness;
use swarmkeeper::io::consul::txn::Op;
use swarmkeeper::leader::publish::Board;
use swarmkeeper::leader::{ByConsul, Fence, FenceError, Keys, Profile, wake};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::coordination::{self, CLUSTER, PATIENCE, options};
use crate::support::ConsulServer;

/// A candidate with its fence.
struct Candidate {
    candidate: coordination::Candidate,
    fence: Fence,
}

impl Deref for Candidate {
    type Target = coordination::Candidate;

    fn deref(&self) -> &Self::Target {
        &self.candidate
    }
}

impl Candidate {
    fn stand(consul: Consul, node: &str) -> Self {
        Self::stand_with(consul, node, "swarm-1", Profile::FAST)
    }

    fn stand_with(consul: Consul, node: &str, swarm: &str, profile: Profile) -> Self {
        let options = options(node, swarm, profile);
        let lock = Arc::new(ByConsul::new(consul.clone(), options.clone()));
        let candidate = coordination::Candidate::stand_at(lock, options);
        let fence = Fence::new(candidate.gate.clone(), consul, CLUSTER);
        Self { candidate, fence }
    }
}

fn lock_key() -> String {
    Keys::new(CLUSTER).lock()
}

fn set(key: &str) -> Vec<Op> {
    vec![Op::Set { key: format!("swarmkeeper/v1/{CLUSTER}/{key}"), value: b"1".to_vec() }]
}

#[tokio::test]
async fn nothing_that_a_killed_leader_left_gets_through() {
    let server = ConsulServer::start().await;
    let first = Candidate::stand(server.client(), "n1");
    first.opens().await;
    first.fence.kv_txn(set("before")).await.unwrap();
    first.task.abort();
    let begin = Instant::now();
    while first.fence.kv_txn(set("after")).await.is_ok() {
        assert!(begin.elapsed() < PATIENCE);
    }
    assert!(matches!(first.fence.kv_txn(set("after")).await, Err(FenceError::Closed(_))));
}

#[tokio::test]
async fn a_deposed_leader_writes_nothing_and_heals() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let leader = Candidate::stand(server.client(), "n1");
    let before = leader.opens().await;
    leader.fence.kv_txn(set("before")).await.unwrap();
    let lock = consul.kv_get(&lock_key(), Freshness::Consistent).await.unwrap().unwrap();
    consul.session_destroy(&lock.session.unwrap()).await.unwrap();
    // Whether it has heard of it by now or not: if not, Consul refuses.
    let refused = leader.fence.kv_txn(set("stale")).await;
    assert!(matches!(refused, Err(FenceError::Lost(_) | FenceError::Closed(_))), "{refused:?}");
    assert_eq!(consul.kv_get("swarmkeeper/v1/test/stale", Freshness::Consistent).await.unwrap(), None);
    leader.opens_anew(before).await;
    leader.fence.kv_txn(set("healed")).await.unwrap();
}

#[tokio::test]
async fn a_wiped_kv_is_claimed_and_led_again() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let leader = Candidate::stand(server.client(), "n1");
    let before = leader.opens().await;
    consul.kv_delete_all("").await.unwrap();
    assert!(leader.opens_anew(before).await > before);
    let claim = consul.kv_get(&Keys::new(CLUSTER).claim(), Freshness::Consistent).await.unwrap().unwrap();
    assert_eq!(claim.value, b"swarm-1");
}

#[tokio::test]
async fn a_candidate_that_signs_off_leaves_nothing_behind() {
    let server = ConsulServer::start().await;
    let leader = Candidate::stand(server.client(), "n1");
    leader.opens().await;
    leader.candidate.sign_off().await;
    let consul = server.client();
    assert_eq!(swarmkeeper::leader::current(&consul, CLUSTER).await.unwrap(), None);
    assert!(consul.session_list().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_agent_that_forgot_the_check_is_told_again() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let leader = Candidate::stand(server.client(), "n1");
    let before = leader.opens().await;
    consul.heartbeat_deregister("swarmkeeper-leader:test:n1").await.unwrap();
    leader.opens_anew(before).await;
}

#[tokio::test]
async fn another_swarm_with_the_same_name_is_refused_and_disturbs_nobody() {
    let server = ConsulServer::start().await;
    let first = Candidate::stand(server.client(), "n1");
    let before = first.opens().await;
    let second = Candidate::stand_with(server.client(), "n2", "swarm-2", Profile::FAST);
    let error = tokio::time::timeout(PATIENCE, second.candidate.task).await.unwrap().unwrap().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("belongs to another swarm (ID swarm-1, ours is swarm-2)"), "{text}");
    assert!(text.contains("set `cluster`"), "{text}");
    assert_eq!(first.opens().await, before);
}

#[tokio::test]
async fn a_follower_wakes_the_leader_and_its_other_news_does_not() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let leader = Candidate::stand(server.client(), "n1");
    leader.opens().await;
    wake::prepare(&consul, CLUSTER, "n2").await.unwrap();
    let (sender, mut wakes) = mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let (cluster, node) = (CLUSTER.to_owned(), "n1".to_owned());
    let watching =
        tokio::spawn(wake::run(consul.clone(), cluster, node, leader.leadership.clone(), sender, shutdown.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let key = Keys::new(CLUSTER).node("n2");
    consul.kv_put(&key, br#"{"schema":1,"wake":0,"images":["a"]}"#.to_vec()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(wakes.try_recv().is_err());
    let begin = Instant::now();
    wake::wake(&consul, CLUSTER, "n2").await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, wakes.recv()).await.unwrap().as_deref(), Some("n2"));
    println!("wake-up after {:?}", begin.elapsed());
    let value = consul.kv_get(&key, Freshness::Consistent).await.unwrap().unwrap().value;
    assert_eq!(value, br#"{"images":["a"],"schema":1,"wake":1}"#, "what others wrote survives");
    shutdown.cancel();
    watching.await.unwrap();
}

#[tokio::test]
async fn status_is_published_once_and_orphans_go() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let leader = Candidate::stand(server.client(), "n1");
    leader.opens().await;
    let prefix = Keys::new(CLUSTER).stacks();
    consul.kv_put(&format!("{prefix}gone"), b"{}".to_vec()).await.unwrap();
    let mut board = Board::new(leader.fence.clone(), prefix.clone());
    let wanted = |n: u32| (0..n).map(|n| (format!("s{n}"), json!({"state": "ok", "n": n}))).collect();
    // More than one transaction takes.
    assert_eq!(board.publish(wanted(100)).await.unwrap(), 101);
    assert_eq!(board.publish(wanted(100)).await.unwrap(), 0);
    assert_eq!(board.publish(wanted(99)).await.unwrap(), 1);
    assert_eq!(consul.kv_list(&prefix).await.unwrap().len(), 99);
}

#[tokio::test]
async fn agents_are_told_of_a_change_by_one_key_and_of_nothing_else() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let leader = Candidate::stand(server.client(), "n1");
    leader.opens().await;
    let keys = Keys::new(CLUSTER);
    let generation =
        async || consul.kv_get(&keys.generation(), Freshness::Default).await.unwrap().unwrap().modify_index;
    let board = || Board::new(leader.fence.clone(), keys.services()).moving(keys.generation());
    let mut services = board();
    // The key is there from the beginning, for agents to wait on.
    assert_eq!(services.publish(BTreeMap::new()).await.unwrap(), 0);
    let first = generation().await;
    let web = || BTreeMap::from([("web".to_owned(), json!({"labels": {}}))]);
    services.publish(web()).await.unwrap();
    let second = generation().await;
    assert!(second > first);
    services.publish(web()).await.unwrap();
    // As after a failure, when what is there is read again.
    board().publish(web()).await.unwrap();
    assert_eq!(generation().await, second);
}

#[tokio::test]
async fn the_smallest_documented_policy_is_enough_and_a_smaller_one_says_what_is_missing() {
    let server = ConsulServer::start_denying().await;
    let rules = r#"
        service_prefix "" { policy = "write" }
        node_prefix ""    { policy = "read" }
        agent "consul-test"   { policy = "read" }
        session "consul-test" { policy = "write" }
        key_prefix "swarmkeeper/v1/test/" { policy = "write" }
    "#;
    let token = server.token(rules).await;
    let leader = Candidate::stand(server.client_with(Some(&token)), "n1");
    leader.opens().await;
    leader.fence.kv_txn(set("allowed")).await.unwrap();
    let elsewhere = vec![Op::Set { key: "elsewhere".to_owned(), value: Vec::new() }];
    let denied = leader.fence.kv_txn(elsewhere).await.unwrap_err().to_string();
    assert!(denied.contains("the token needs key_prefix"), "{denied}");
    let nobody = server.client_with(None).kv_put(&lock_key(), Vec::new()).await.unwrap_err().to_string();
    assert!(nobody.contains(r#"key_prefix "swarmkeeper/v1/test/" { policy = "write" }"#), "{nobody}");
}
