//! The election with a real Consul: one leader, handed over, replaced, deposed and healed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use serde_json::json;
use swarmkeeper::io::consul::Consul;
use swarmkeeper::io::consul::kv::Freshness;
use swarmkeeper::io::consul::txn::Op;
use swarmkeeper::leader::publish::Board;
use swarmkeeper::leader::{self, Error, Fence, FenceError, Keys, Leadership, Options, Probe, Profile, wake};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::ConsulServer;

const CLUSTER: &str = "test";

/// Longest wait for something that should be a matter of seconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(40);

struct Candidate {
    node: String,
    leadership: watch::Receiver<Leadership>,
    fence: Fence,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

impl Candidate {
    fn stand(consul: Consul, node: &str) -> Self {
        Self::stand_with(consul, node, "swarm-1", Profile::FAST)
    }

    fn stand_with(consul: Consul, node: &str, swarm: &str, profile: Profile) -> Self {
        let options = Options {
            cluster: CLUSTER.to_owned(),
            node: node.to_owned(),
            address: format!("http://{node}:7000"),
            version: "1.2.3".to_owned(),
            profile,
            swarm_cluster_id: swarm.to_owned(),
        };
        let probe: Probe = Arc::new(|| async { Ok(()) }.boxed());
        let (candidate, leadership, fence) = leader::stand(consul, options, probe);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(candidate.run(shutdown.clone()));
        Self { node: node.to_owned(), leadership, fence, shutdown, task }
    }

    fn is_open(&self) -> bool {
        self.fence.permit().is_ok()
    }

    async fn becomes(&mut self, what: impl FnMut(&Leadership) -> bool) -> Leadership {
        let waited = tokio::time::timeout(PATIENCE, self.leadership.wait_for(what)).await;
        waited.unwrap_or_else(|_| panic!("{}: {:?}", self.node, self.fence)).unwrap().clone()
    }

    /// Waits until it may write; its token.
    async fn opens(&self) -> u64 {
        let opened = tokio::time::timeout(PATIENCE, self.fence.opened()).await;
        opened.unwrap_or_else(|_| panic!("{}: {:?}", self.node, self.fence)).unwrap().token
    }

    async fn sign_off(self) {
        self.shutdown.cancel();
        tokio::time::timeout(leader::SIGN_OFF_MAX + Duration::from_secs(1), self.task).await.unwrap().unwrap().unwrap();
    }
}

/// The position of the first whose gate is open.
async fn first_open(candidates: &[Candidate]) -> usize {
    let begin = Instant::now();
    loop {
        if let Some(at) = candidates.iter().position(Candidate::is_open) {
            return at;
        }
        assert!(begin.elapsed() < PATIENCE, "nobody leads after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn lock_key() -> String {
    Keys::new(CLUSTER).lock()
}

fn set(key: &str) -> Vec<Op> {
    vec![Op::Set { key: format!("swarmkeeper/v1/{CLUSTER}/{key}"), value: b"1".to_vec() }]
}

#[tokio::test]
async fn one_of_three_leads_and_a_clean_hand_over_takes_milliseconds() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let mut candidates: Vec<Candidate> =
        ["n1", "n2", "n3"].map(|node| Candidate::stand(server.client(), node)).into_iter().collect();
    let at = first_open(&candidates).await;
    // Sessions are warm when all know who leads.
    let leader = candidates.swap_remove(at);
    for follower in &mut candidates {
        let node = leader.node.clone();
        follower.becomes(|now| matches!(now, Leadership::Follower { leader: Some(info) } if info.node == node)).await;
        assert!(!follower.is_open());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = leader.opens().await;
    let info = leader::current(&consul, CLUSTER).await.unwrap().unwrap();
    assert_eq!((info.node, info.token, info.version.as_str()), (leader.node.clone(), before, "1.2.3"));

    let begin = Instant::now();
    let ((after, took), ()) = tokio::join!(
        async {
            let (permit, ..) = select_all(candidates.iter().map(|follower| follower.fence.opened().boxed())).await;
            (permit.unwrap().token, begin.elapsed())
        },
        leader.sign_off()
    );
    println!("clean hand-over: {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(after > before);
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_nothing_it_left_gets_through() {
    let server = ConsulServer::start().await;
    let profile = Profile::FAST;
    let first = Candidate::stand(server.client(), "n1");
    first.opens().await;
    let mut second = Candidate::stand(server.client(), "n2");
    second.becomes(|now| matches!(now, Leadership::Follower { leader: Some(_) })).await;
    first.fence.kv_txn(set("before")).await.unwrap();

    first.task.abort();
    let begin = Instant::now();
    second.opens().await;
    let took = begin.elapsed();
    println!("killed leader replaced after {took:?}");
    assert!(took < profile.check_ttl + profile.lock_delay + Duration::from_secs(2), "{took:?}");
    assert!(!first.is_open());
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
    let begin = Instant::now();
    while leader.opens().await == before {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    leader.fence.kv_txn(set("healed")).await.unwrap();
}

#[tokio::test]
async fn a_wiped_kv_is_claimed_and_led_again() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let mut leader = Candidate::stand(server.client(), "n1");
    let before = leader.opens().await;
    consul.kv_delete_all("").await.unwrap();
    leader.becomes(|now| now.token().is_none_or(|token| token != before)).await;
    assert!(leader.opens().await > before);
    let claim = consul.kv_get(&Keys::new(CLUSTER).claim(), Freshness::Consistent).await.unwrap().unwrap();
    assert_eq!(claim.value, b"swarm-1");
}

#[tokio::test]
async fn a_lock_deleted_by_a_stranger_never_lets_two_write() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let candidates = ["n1", "n2"].map(|node| Candidate::stand(server.client(), node));
    let at = first_open(&candidates).await;
    let before = candidates[at].opens().await;
    consul.kv_delete(&lock_key()).await.unwrap();
    let begin = Instant::now();
    let mut closed = false;
    let after = loop {
        let open: Vec<u64> = candidates.iter().filter_map(|c| Some(c.fence.permit().ok()?.token)).collect();
        assert!(open.len() < 2, "{open:?}");
        closed |= open.is_empty();
        match open.first() {
            Some(token) if *token != before => break *token,
            _ => assert!(begin.elapsed() < PATIENCE),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert!(closed && after > before);
}

#[tokio::test]
async fn a_restarted_consul_suspends_the_leader_and_then_has_one_again() {
    let mut server = ConsulServer::start().await;
    let mut leader = Candidate::stand(server.client(), "n1");
    leader.opens().await;
    server.kill();
    leader.becomes(|now| matches!(now, Leadership::Suspended { .. })).await;
    assert!(!leader.is_open());
    server.start_again().await;
    leader.opens().await;
    leader.fence.kv_txn(set("again")).await.unwrap();
    leader.sign_off().await;
    let consul = server.client();
    assert_eq!(leader::current(&consul, CLUSTER).await.unwrap(), None);
    assert!(consul.session_list().await.unwrap().is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn an_agent_that_forgot_the_check_is_told_again() {
    let server = ConsulServer::start().await;
    let consul = server.client();
    let leader = Candidate::stand(server.client(), "n1");
    let before = leader.opens().await;
    consul.heartbeat_deregister("swarmkeeper-leader:test:n1").await.unwrap();
    let begin = Instant::now();
    while leader.opens().await == before {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_candidate_that_comes_back_on_its_node_does_not_keep_its_own_old_lock_alive() {
    let server = ConsulServer::start().await;
    let first = Candidate::stand(server.client(), "n1");
    first.opens().await;
    first.task.abort();
    let begin = Instant::now();
    let again = Candidate::stand(server.client(), "n1");
    again.opens().await;
    let took = begin.elapsed();
    println!("came back after {took:?}");
    assert!(took < Duration::from_secs(5), "the session's own TTL would be 15 s: {took:?}");
}

#[tokio::test]
async fn another_swarm_with_the_same_name_is_refused_and_disturbs_nobody() {
    let server = ConsulServer::start().await;
    let first = Candidate::stand(server.client(), "n1");
    let before = first.opens().await;
    let second = Candidate::stand_with(server.client(), "n2", "swarm-2", Profile::FAST);
    let error = tokio::time::timeout(PATIENCE, second.task).await.unwrap().unwrap().unwrap_err();
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
