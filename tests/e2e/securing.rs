//! Everything secured at once: Consul with TLS, encrypted gossip and ACLs that deny by default, agents with certificates and the smallest
//! tokens, the API over TLS.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};

use crate::world::{World, app, follower_of, seconds};

/// The worker, which has the smaller policy.
const WORKER: usize = 4;

/// An address of every node, in order.
const NODES: [&str; 4] = ["10.77.0.1", "10.77.0.2", "10.77.0.3", "10.77.0.4"];

pub async fn everything_works_where_everything_is_secured(world: &World) -> Result<()> {
    let outcome = match work_secured(world).await {
        // The agents that say why are gone after this.
        Err(error) => Err(anyhow!("{error:#}\n\nwhile all was secured:\n{}", world.evidence().await)),
        Ok(()) => Ok(()),
    };
    let opened = world.open_everything().await;
    outcome.and(opened)
}

async fn work_secured(world: &World) -> Result<()> {
    let began = Instant::now();
    world.secure_everything().await?;
    let leader = world.somebody_leads(seconds(60)).await?;
    println!("node {leader} leads {:?} after everything began to be secured", began.elapsed());
    let follower = follower_of(leader);

    // A follower hands commands on over https, and wakes the leader through Consul; every node registers what it runs.
    world.commit_for(follower, "guarded", &[("compose.yml", Some(&guarded("1.0.0")))]).await?;
    world.reaches_at(follower, "guarded", "ok", seconds(60)).await?;
    world.dns_answers(WORKER, "guarded.service.consul", &NODES, seconds(15)).await?;
    world.push_and_tell(follower, "guarded", &guarded("1.1.0")).await?;
    world.image_becomes("guarded_web", "1.1.0", seconds(60)).await?;
    for node in 1..=4 {
        let said = world.keeper_inside(node, &["doctor"]).await?;
        ensure!(said.code == 0 && said.out.contains("all is well"), "node {node}: {said:?}");
        world.doors_are_closed(node).await?;
    }
    world.nobody_was_denied().await?;

    // Secrets change while the agents run.
    for node in [leader, WORKER] {
        world.secrets_change(node).await?;
    }
    ensure!(world.leader().await? == leader, "the leader went on leading");
    world.commit_for(follower, "guarded", &[("compose.yml", Some(&guarded("1.0.0")))]).await?;
    world.reaches_at(follower, "guarded", "ok", seconds(60)).await?;
    world.dns_answers(1, "guarded.service.consul", &NODES, seconds(15)).await?;
    world.nobody_was_denied().await
}

pub async fn without_consul_a_webhook_at_a_follower_reaches_the_leader_over_https(world: &World) -> Result<()> {
    world.coordinate_by_the_swarm().await?;
    world.secure_api().await?;
    let follower = follower_of(world.somebody_leads(seconds(150)).await?);
    world.commit_for(follower, "relayed", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches_at(follower, "relayed", "ok", seconds(60)).await?;
    world.push_and_tell(follower, "relayed", &app("1.1.0", "", "")).await?;
    world.image_becomes("relayed_web", "1.1.0", seconds(60)).await?;
    world.nobody_was_denied().await
}

/// One task on every node, at a port of the node.
fn guarded(tag: &str) -> String {
    format!(
        "services:\n  web:\n    image: 10.77.0.254:5000/app:{tag}\n    environment: {{SERVICE_NAME: guarded}}\n    \
         stop_grace_period: 1s\n    ports: [{{target: 8080, published: 18095, mode: host}}]\n    deploy:\n      mode: global\n      \
         endpoint_mode: dnsrr\n      update_config: {{parallelism: 0, monitor: 1s}}\n"
    )
}
