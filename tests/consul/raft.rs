//! Consul's own Raft leader is killed in the middle of 500 registrations: ours is suspended at most, and keeps its lock. And where it is
//! lost together with ours, the next leader of ours comes as soon as after any other node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use swarmkeeper::leader::{ByConsul, Profile};

use crate::coordination::{Candidate, PATIENCE, options};
use crate::support::ConsulServer;

const SERVICES: usize = 500;

/// When the Raft leader is killed.
const KILLED_AFTER: usize = 100;

/// Registrations at once.
const AT_ONCE: usize = 8;

/// Longest time for all registrations: those at the time of the election are repeated.
const REGISTERED_MAX: Duration = Duration::from_mins(2);

/// From the loss of a leader's node to the first write of the next.
const LOST_MAX: Duration = Duration::from_secs(13);

#[tokio::test]
async fn a_leader_lost_with_consuls_raft_leader_is_replaced_as_soon_as_any() {
    let (raft_leader, others) = cluster().await;
    let lost = stand(&raft_leader, "n1");
    let before = lost.opens().await;
    let mut follower = stand(&others[0], "n2");
    follower.follows("n1").await;
    // Consul's agent holds everything up while it tells its servers of something, here of the follower's check, and would do so until it
    // notices that they are lost. A session is made when they know the check.
    let consul = others[0].client();
    let stood = Instant::now();
    while !consul.session_list().await.unwrap().iter().any(|session| session.name.ends_with(":n2")) {
        assert!(stood.elapsed() < PATIENCE, "the follower has no session");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let begin = Instant::now();
    raft_leader.freeze();
    let after = follower.opens().await;
    let took = begin.elapsed();
    println!("replaced after {took:?}");
    assert!(took < LOST_MAX, "{took:?}");
    assert!(!lost.is_open() && after > before);
}

#[tokio::test]
async fn a_raft_election_in_a_burst_of_registrations_costs_no_leadership() {
    let (mut killed, servers) = cluster().await;
    let ours = &servers[0];
    let raft_leader = ours.client().raft_leader().await.unwrap().unwrap();
    let leader = stand(ours, "n1");
    let token = leader.opens().await;

    let registered = AtomicUsize::new(0);
    let http =
        reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(10)).build().unwrap();
    let url = format!("{}/v1/agent/service/register", ours.address());
    let begin = Instant::now();
    let register = async |number: usize| {
        let body = json!({
            "Name": format!("burst-{number}"),
            "Port": 1000 + number,
            "Check": {"TTL": "15m", "Status": "passing"},
        });
        loop {
            let answer = http.put(&url).json(&body).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break registered.fetch_add(1, Ordering::Relaxed);
            }
            assert!(begin.elapsed() < REGISTERED_MAX, "{registered:?} are registered");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let burst = stream::iter(0..SERVICES).map(register).buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let watch = async {
        while registered.load(Ordering::Relaxed) < KILLED_AFTER {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        killed.kill();
        let mut closed = Duration::ZERO;
        // Until the servers have another Raft leader, and ours has proven again that it leads.
        let consul = ours.client();
        let mut elected = false;
        while !elected || !leader.is_open() || registered.load(Ordering::Relaxed) < SERVICES {
            let step = Instant::now();
            let was_open = leader.is_open();
            tokio::time::sleep(Duration::from_millis(20)).await;
            let found = consul.raft_leader().await.ok().flatten();
            elected = found.is_some_and(|found| found != raft_leader);
            closed += if was_open { Duration::ZERO } else { step.elapsed() };
            assert!(
                begin.elapsed() < REGISTERED_MAX,
                "elected: {elected}, {registered:?} registered, {:?}",
                leader.gate
            );
        }
        closed
    };
    let (_, closed) = tokio::join!(burst, watch);
    println!("{SERVICES} services and a Raft election in {:?}, {closed:?} of it suspended", begin.elapsed());
    // Long enough for a check or a session to have ended meanwhile.
    tokio::time::sleep(Profile::DEFAULT.check_ttl).await;
    assert_eq!(leader.opens().await, token, "the same leadership goes on");
}

/// Consul's Raft leader, and the two others.
async fn cluster() -> (ConsulServer, Vec<ConsulServer>) {
    let mut servers = ConsulServer::start_cluster(3).await;
    let leader = servers[0].client().raft_leader().await.unwrap().unwrap();
    let at = servers.iter().position(|server| leader.ends_with(&format!(":{}", server.server_port()))).unwrap();
    (servers.swap_remove(at), servers)
}

fn stand(at: &ConsulServer, node: &str) -> Candidate {
    let options = options(node, "swarm-1", Profile::DEFAULT);
    Candidate::stand_at(Arc::new(ByConsul::new(at.client(), options.clone())), options)
}
