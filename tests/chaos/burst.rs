//! Consul's Raft leader is killed in the middle of 500 registrations: our leader keeps its lock, and each is registered once.
//!
//! One container with 500 exposed ports makes its node's agent write 500 services. Killed is nothing but the Consul of another node, and
//! not the one beside our leader, whose loss would be the loss of a node. Without a leader Consul's servers take no write and prove no
//! lease, for the second or two that their election takes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use swarmkeeper::leader::Profile;

use super::faults::Broken;
use super::world::{World, seconds};

/// The ports, each of which becomes a service.
const SERVICES: usize = 500;

/// Those that the container is given; its image exposes one more.
const PORTS: &str = "20001-20499";

/// When the Raft leader is killed.
const KILLED_AFTER: usize = 100;

/// How long it stays away.
const AWAY: Duration = Duration::from_secs(4);

/// The container, and what its services' names begin with.
const NAME: &str = "burst";

/// Which nodes take part.
struct Stage {
    /// Consul's Raft leader.
    raft: usize,
    /// Ours.
    leader: usize,
    /// Where the 500 are registered.
    registers: usize,
}

pub async fn raft_leader_is_killed(world: &World) -> Result<String> {
    let stage = set(world).await.context("the stage is not set")?;
    let outcome = play(world, &stage).await.context(Broken);
    let _ = world.docker_on(stage.registers, &["rm", "-f", NAME]).await;
    outcome?;
    let gone = world.eventually("the 500 are gone", seconds(60), async || {
        let left = world.instances(NAME).await?;
        ensure!(left.is_empty(), "{} are there", left.len());
        Ok(())
    });
    gone.await.context(Broken)?;
    let Stage { raft, leader, registers } = stage;
    Ok(format!("node {raft}, {SERVICES} registered at node {registers}, node {leader} went on leading"))
}

/// Whole servers, agents that run, and our leader elsewhere than Consul's.
async fn set(world: &World) -> Result<Stage> {
    world.consul_is_whole(seconds(60)).await?;
    world.agents_run(seconds(60)).await?;
    let (raft, _) = world.consul_leader_and_follower().await?;
    let mut leader = world.somebody_leads(seconds(30)).await?;
    if leader == raft {
        world.keeper_ok(&["leader", "--step-down"]).await?;
        leader = world.somebody_else_leads(raft, seconds(30)).await?;
    }
    let registers = (1..=3).find(|node| *node != raft && *node != leader).context("a third manager")?;
    // A run that was broken off may have left one.
    let _ = world.docker_on(registers, &["rm", "-f", NAME]).await;
    Ok(Stage { raft, leader, registers })
}

async fn play(world: &World, stage: &Stage) -> Result<()> {
    let term = world.term().await?;
    let (name, image) = (format!("SERVICE_NAME={NAME}"), world.image("1.0.0"));
    let network = ["--network", "bridge", "--label", "swarmkeeper.network=bridge"];
    let run = ["run", "-d", "--name", NAME, "--expose", PORTS, "-e", &name];
    let words: Vec<&str> = run.iter().chain(&network).copied().chain([image.as_str()]).collect();
    world.docker_on(stage.registers, &words).await?;
    world.registered_at_least(stage.registers, NAME, KILLED_AFTER, seconds(20)).await?;
    world.consul_is_killed(stage.raft, AWAY).await?;
    world
        .eventually("each of the 500 is registered once", seconds(60), async || each_is_there_once(world).await)
        .await?;
    // A leader whose check or session suffered has lost the lock by then.
    tokio::time::sleep(Profile::DEFAULT.check_ttl).await;
    let after = world.eventually("somebody says who leads", seconds(20), async || world.term().await).await?;
    ensure!(after == term, "the leadership was lost: term {term} before the election, {after} after it");
    Ok(())
}

async fn each_is_there_once(world: &World) -> Result<()> {
    let found = world.instances(NAME).await?;
    let twice: BTreeMap<_, _> = found.iter().filter(|(_, count)| **count != 1).collect();
    ensure!(found.len() == SERVICES && twice.is_empty(), "{} are, more than once {twice:?}", found.len());
    Ok(())
}
