//! How soon the next leader writes, by what became of the one before.

use std::time::Duration;

use anyhow::Result;
use swarmkeeper::io::swarm::Error;
use swarmkeeper::model::Sensitive;
use swarmkeeper::spec::ConfigSpec;
use time::OffsetDateTime;
use tokio::time::timeout;

use super::world::{PUSH, World, app, seconds};
use super::{Figure, ROUNDS, median};

/// A node that was cut off takes its time to come back.
const LOST_ROUNDS: usize = 3;

/// Longest time from the loss of a node to the next leader's first write, in seconds.
const NODE_LOST: f64 = 13.0;

/// How long after anybody can write ours may be, where the swarm alone takes longer than that.
const AFTER_THE_SWARM: f64 = 2.0;

/// The config by which the swarm is asked whether it takes writes.
const PROBE: &str = "bench-takes-writes";

/// Longest wait for an engine to take it; one that still believes in a lost Raft leader never answers.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// From the leader's release of the lock to the acquisition by the next, as the recorders saw them.
pub async fn hand_over(world: &World) -> Result<Figure> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let leader = world.leader().await?;
        let mark = world.mark();
        world.stop_agent(leader).await?;
        world.somebody_else_leads(leader, seconds(20)).await?;
        times.push(world.release_to_acquire(mark).await? * 1000.0);
        world.agents_run(seconds(90)).await?;
    }
    Ok(Figure::within("clean hand-over", "ms", median(times), 50.0))
}

/// From the kill of the leader to the first write of the next one; `how` it came to that.
pub async fn killed(world: &World, how: &str, limit: f64) -> Result<Figure> {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let stack = format!("killed{limit:.0}-{round}");
        let (leader, term) = (world.leader().await?, world.term().await?);
        world.commit_quietly(&stack, &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
        let mark = world.mark();
        let began = world.now();
        world.kill_agent(leader).await?;
        let next = world.a_new_term_begins(term, seconds(30)).await?;
        world.webhook_at(next, "github", PUSH).await?;
        times.push(world.until_service_write(mark, began).await?);
        world.agents_run(seconds(90)).await?;
        world.reaches(&stack, "ok", seconds(60)).await?;
    }
    Ok(Figure::within(&format!("leader {how} → next leader's first write"), "s", median(times), limit))
}

/// From the moment at which the leader's node is cut off to the first write of the next leader.
///
/// Where swarm's Raft leader is on that node too, the swarm takes no write at all before it has elected another, whoever writes: so
/// that time is measured beside ours.
pub async fn node_lost(world: &World) -> Result<Vec<Figure>> {
    let name = "leader's node lost → next leader's first write";
    let (elsewhere, _) = lost(world, false).await?;
    let (here, swarm) = lost(world, true).await?;
    let with_raft = Figure {
        peer: Some(swarm),
        ratio: Some(swarm / here),
        goal: format!("≤ {NODE_LOST}, or {AFTER_THE_SWARM} after anybody's write"),
        met: here <= f64::max(NODE_LOST, swarm + AFTER_THE_SWARM),
        ..Figure::within(&format!("{name}, swarm's Raft leader on it too"), "s", here, NODE_LOST)
    };
    Ok(vec![Figure::within(name, "s", elsewhere, NODE_LOST), with_raft])
}

/// Seconds, medians, until the next leader's first write, and until the swarm takes any.
async fn lost(world: &World, with_raft: bool) -> Result<(f64, f64)> {
    let (mut ours, mut swarms) = (Vec::new(), Vec::new());
    for round in 0..LOST_ROUNDS {
        let stack = format!("lost-{with_raft}-{round}");
        let raft = world.raft_leader().await?;
        let leader = world.leader_moves(|node| (node == raft) == with_raft).await?;
        world.commit_quietly(&stack, &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
        let mark = world.mark();
        let began = world.now();
        world.partition(leader).await?;
        let first_write = async {
            let next = world.somebody_else_leads(leader, seconds(40)).await?;
            eprintln!("  node {next} leads after {:.1} s", seconds_since(began));
            world.webhook_at(next, "github", PUSH).await?;
            world.until_service_write(mark, began).await
        };
        let (our, swarm) = tokio::join!(first_write, takes_writes(world, leader, began));
        world.heal(leader).await?;
        let (our, swarm) = (our?, swarm?);
        eprintln!("  first write after {our:.1} s, the swarm takes writes after {swarm:.1} s");
        ours.push(our);
        swarms.push(swarm);
        world.consul_is_whole(seconds(60)).await?;
        world.nodes_ready(seconds(60)).await?;
        world.docker(&["config", "rm", PROBE]).await?;
        world.agents_run(seconds(90)).await?;
        world.reaches(&stack, "ok", seconds(90)).await?;
    }
    Ok((median(ours), median(swarms)))
}

/// Seconds until a manager other than `lost` takes a write.
async fn takes_writes(world: &World, lost: usize, began: OffsetDateTime) -> Result<f64> {
    let mut engines = Vec::new();
    for node in (1..=3).filter(|node| *node != lost) {
        engines.push(world.swarm(node).await?);
    }
    let probe = ConfigSpec { name: PROBE.to_owned(), data: Sensitive::new(b"x".to_vec()), ..ConfigSpec::default() };
    world
        .eventually("the swarm takes writes", seconds(60), async || {
            for engine in &engines {
                // One that was not answered may have been carried out all the same.
                if let Ok(Ok(_) | Err(Error::AlreadyExists { .. })) =
                    timeout(PROBE_TIMEOUT, engine.config_create(&probe)).await
                {
                    return Ok(seconds_since(began));
                }
            }
            anyhow::bail!("it does not")
        })
        .await
}

fn seconds_since(began: OffsetDateTime) -> f64 {
    (OffsetDateTime::now_utc() - began).as_seconds_f64()
}
