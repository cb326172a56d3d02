//! Consul's own Raft leader is killed in the middle of 500 registrations: ours is suspended at most, and keeps its lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use swarmkeeper::leader::{ByConsul, Profile};

use crate::coordination::{Candidate, options};
use crate::support::ConsulServer;

const SERVICES: usize = 500;

/// When the Raft leader is killed.
const KILLED_AFTER: usize = 100;

/// Registrations at once.
const AT_ONCE: usize = 8;

/// Longest time for all registrations: those at the time of the election are repeated.
const REGISTERED_MAX: Duration = Duration::from_mins(2);

#[tokio::test]
async fn a_raft_election_in_a_burst_of_registrations_costs_no_leadership() {
    let mut servers = ConsulServer::start_cluster(3).await;
    let raft_leader = servers[0].client().raft_leader().await.unwrap().unwrap();
    let at = servers.iter().position(|server| raft_leader.ends_with(&format!(":{}", server.server_port()))).unwrap();
    let mut killed = servers.swap_remove(at);

    let ours = &servers[0];
    let options = options("n1", "swarm-1", Profile::DEFAULT);
    let leader = Candidate::stand_at(Arc::new(ByConsul::new(ours.client(), options.clone())), options);
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
