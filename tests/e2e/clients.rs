//! Clients as people run them: DNS by itself, HAProxy and Prometheus.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::world::{World, seconds};

/// Where the clients run.
const NODE: usize = 1;

/// An address of every node, in order.
const NODES: [&str; 4] = ["10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4"];

pub async fn agents_are_found_by_name_by_role_and_by_who_leads(world: &World) -> Result<()> {
    world.agents_run(seconds(60)).await?;
    let leader = world.leader().await?;
    world.dns_answers(NODE, "swarmkeeper.service.consul", &NODES, seconds(15)).await?;
    world.dns_answers(NODE, "manager.swarmkeeper.service.consul", &NODES[..3], seconds(5)).await?;
    world.dns_answers(NODE, "worker.swarmkeeper.service.consul", &NODES[3..], seconds(5)).await?;
    world.dns_answers(NODE, "leader.swarmkeeper.service.consul", &[NODES[leader - 1]], seconds(5)).await?;
    let everywhere = NODES.map(|address| format!("{address}:7979"));
    world.dns_gives_places(NODE, "swarmkeeper.service.consul", &everywhere, seconds(5)).await?;
    world.dns_gives_places(NODE, "_swarmkeeper._worker.service.consul", &everywhere[3..], seconds(5)).await?;
    // The name follows the leader.
    world.stop_agent(leader).await?;
    let next = world.somebody_else_leads(leader, seconds(20)).await?;
    world.dns_answers(NODE, "leader.swarmkeeper.service.consul", &[NODES[next - 1]], seconds(5)).await?;
    world.agents_run(seconds(60)).await
}

pub async fn haproxy_fails_no_request_while_a_service_rolls(world: &World) -> Result<()> {
    world.commit("rolled", &[("compose.yml", Some(&rolled("1.0.0", "start-first", POLITE)))]).await?;
    world.reaches("rolled", "ok", seconds(60)).await?;
    world.haproxy_starts(NODE).await?;
    for (tag, order, process) in [
        ("1.1.0", "start-first", POLITE),
        ("1.0.0", "stop-first", POLITE),
        ("1.1.0", "start-first", ABRUPT),
        // Its old tasks are those that end at once.
        ("1.0.0", "stop-first", ABRUPT),
    ] {
        let before = world.running_tasks("rolled_web").await?;
        let roll = async {
            tokio::time::sleep(seconds(2)).await;
            world.commit("rolled", &[("compose.yml", Some(&rolled(tag, order, process)))]).await?;
            world.tasks_are_others("rolled_web", &before, seconds(120)).await?;
            world.reaches("rolled", "ok", seconds(60)).await?;
            // HAProxy has heard of the last one.
            tokio::time::sleep(seconds(3)).await;
            Ok(())
        };
        let ((), load) = world.under_load(NODE, roll).await?;
        println!("{order} to {tag}: {:?}, {} failed", load.answers, load.failures.len());
        let complaints = world.haproxy_complaints(NODE).await;
        ensure!(load.failures.is_empty(), "{:#?}\nHAProxy: {complaints}", load.failures);
        for tag in ["1.0.0", "1.1.0"] {
            let count = load.answers.get(&format!("app {tag}")).copied().unwrap_or_default();
            ensure!(count >= 100, "{count} answers of {tag}");
        }
    }
    world.client_ends(NODE, "haproxy").await?;
    // Its instances are out of Consul before another case looks there.
    world.docker(&["service", "scale", "--detach", "rolled_web=0"]).await?;
    world.dns_answers(NODE, "web.service.consul", &[], seconds(60)).await
}

pub async fn prometheus_scrapes_every_agent(world: &World) -> Result<()> {
    world.agents_run(seconds(60)).await?;
    let name = |node| world.node_name(node);
    let everyone: BTreeSet<String> = (1..=4).map(name).collect();
    world.prometheus_starts(NODE).await?;
    world.prometheus_finds_up(NODE, &everyone, seconds(60)).await?;
    // What it scraped says who leads.
    let leads = world.prometheus_says(NODE, "swarmkeeper_leader%3D%3D1").await?;
    let leader = name(world.leader().await?);
    ensure!(leads.keys().eq([&leader]), "{leads:?} instead of {leader}");
    let up = world.prometheus_says(NODE, "up").await?;
    let found = up.keys().cloned().collect::<BTreeSet<_>>();
    ensure!(found == everyone && up.values().all(|value| value == "1"), "{up:?}");
    world.client_ends(NODE, "prometheus").await.context("after all was well")
}

/// Serves on for 4 s after SIGTERM, as one that lets its clients finish.
const POLITE: &str = "trap 'sleep 4; exit 0' TERM; httpd -f -p 8080 -h /www & while :; do sleep 1 & wait $$!; done";

/// Ends at SIGTERM, whoever is being served.
const ABRUPT: &str = "trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait $$!";

/// Three tasks of one image, each at a port of its own that its engine picks.
fn rolled(tag: &str, order: &str, process: &str) -> String {
    format!(
        r#"services:
  web:
    image: 10.77.0.254:5000/app:{tag}
    entrypoint: ["/bin/sh", "-c", "{process}"]
    environment: {{SERVICE_NAME: web}}
    stop_grace_period: 10s
    ports:
      - {{target: 8080, mode: host}}
    deploy:
      replicas: 3
      endpoint_mode: dnsrr
      update_config: {{order: {order}, parallelism: 1, monitor: 2s, failure_action: rollback}}
      restart_policy: {{delay: 1s}}
"#
    )
}
