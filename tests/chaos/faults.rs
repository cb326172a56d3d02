//! The faults: each is done, lasts, and is mended. All of them stay inside the lab.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fastrand::Rng;

use super::world::{World, seconds};

/// Between two faults.
const PAUSE: std::ops::Range<u64> = 2..7;

/// Containers registered while Consul loses its Raft leader.
const BURST: usize = 500;

/// Longer than any lease of the default profile.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    AgentKilled,
    LeaderKilled,
    LeaderFrozen,
    AgentFrozen,
    ConsulKilled,
    ConsulFrozen,
    RaftLeaderKilled,
    RaftLeaderKilledInABurst,
    EngineRestarted,
    EngineKilled,
    EngineFrozen,
    CutOff,
    CannotSend,
    CannotHear,
    Slow,
    KvWiped,
    LockDeleted,
    NamesTaken,
    QuorumLost,
}

const ALL: [Fault; 19] = [
    Fault::AgentKilled,
    Fault::LeaderKilled,
    Fault::LeaderFrozen,
    Fault::AgentFrozen,
    Fault::ConsulKilled,
    Fault::ConsulFrozen,
    Fault::RaftLeaderKilled,
    Fault::RaftLeaderKilledInABurst,
    Fault::EngineRestarted,
    Fault::EngineKilled,
    Fault::EngineFrozen,
    Fault::CutOff,
    Fault::CannotSend,
    Fault::CannotHear,
    Fault::Slow,
    Fault::KvWiped,
    Fault::LockDeleted,
    Fault::NamesTaken,
    Fault::QuorumLost,
];

/// One fault after another, each kind once before any comes again, until there are enough or the time is over. Gives their number.
pub async fn inflict(world: &World, rng: &mut Rng, count: usize, deadline: Instant) -> Result<usize> {
    let mut done = 0;
    let mut bag = Vec::new();
    while done < count && Instant::now() < deadline {
        if bag.is_empty() {
            bag = ALL.to_vec();
            rng.shuffle(&mut bag);
        }
        let Some(fault) = bag.pop() else { break };
        let began = Instant::now();
        match one(world, fault, rng).await {
            Ok(what) => println!("{:>4}  {fault:?} {what} ({} s)", done + 1, began.elapsed().as_secs()),
            // Such as a leader to kill while nobody leads: the next fault will do.
            Err(error) => println!("      {fault:?} could not be done: {error:#}"),
        }
        mend_now(world).await?;
        done += 1;
        tokio::time::sleep(seconds(rng.u64(PAUSE))).await;
    }
    Ok(done)
}

/// Does one fault and gives what it hit.
async fn one(world: &World, fault: Fault, rng: &mut Rng) -> Result<String> {
    let node = rng.usize(1..=4);
    let manager = rng.usize(1..=3);
    let hit = match fault {
        Fault::AgentKilled => {
            world.kill_agent(node).await?;
            node
        }
        Fault::LeaderKilled => {
            let leader = world.leader().await?;
            world.kill_agent(leader).await?;
            leader
        }
        Fault::LeaderFrozen => {
            let leader = world.leader().await?;
            let frozen = world.freeze_agent(leader).await?;
            tokio::time::sleep(LONGER_THAN_A_LEASE).await;
            world.thaw_agent(frozen).await?;
            leader
        }
        Fault::AgentFrozen => {
            let frozen = world.freeze_agent(node).await?;
            tokio::time::sleep(seconds(6)).await;
            world.thaw_agent(frozen).await?;
            node
        }
        Fault::ConsulKilled => {
            world.consul_is_killed(node, seconds(4)).await?;
            node
        }
        Fault::ConsulFrozen => {
            world.consul_is_frozen(node, seconds(6)).await?;
            node
        }
        Fault::RaftLeaderKilled => {
            let (leader, _) = world.consul_leader_and_follower().await?;
            world.consul_is_killed(leader, seconds(4)).await?;
            leader
        }
        Fault::RaftLeaderKilledInABurst => {
            let (leader, _) = world.consul_leader_and_follower().await?;
            let other = leader % 3 + 1;
            let burst = world.registration_burst(other, BURST);
            let kill = async {
                tokio::time::sleep(seconds(1)).await;
                world.consul_is_killed(leader, seconds(4)).await
            };
            let (registered, killed) = tokio::join!(burst, kill);
            killed?;
            let registered = registered?;
            return Ok(format!("node {leader}, {registered} registrations at node {other}"));
        }
        Fault::EngineRestarted => {
            world.restart_engine(node).await?;
            node
        }
        Fault::EngineKilled => {
            world.kill_engine(manager).await?;
            tokio::time::sleep(seconds(5)).await;
            world.start_engine(manager).await?;
            manager
        }
        Fault::EngineFrozen => {
            world.engine_is_frozen(manager, seconds(8)).await?;
            manager
        }
        Fault::CutOff => {
            world.partition(node).await?;
            tokio::time::sleep(seconds(rng.u64(5..18))).await;
            world.heal(node).await?;
            node
        }
        Fault::CannotSend => {
            world.one_way(manager, "OUTPUT", "-o", seconds(12)).await?;
            manager
        }
        Fault::CannotHear => {
            world.one_way(manager, "INPUT", "-i", seconds(12)).await?;
            manager
        }
        Fault::Slow => {
            world.link_is_slow(manager, seconds(10)).await?;
            manager
        }
        Fault::KvWiped => {
            world.wipe_consul_kv().await?;
            return Ok(String::new());
        }
        Fault::LockDeleted => {
            world.delete_lock().await?;
            return Ok(String::new());
        }
        Fault::NamesTaken => {
            world.take_our_names(node).await?;
            node
        }
        Fault::QuorumLost => {
            let down = [manager, manager % 3 + 1];
            for node in down {
                world.kill_engine(node).await?;
            }
            tokio::time::sleep(seconds(8)).await;
            for node in down {
                world.start_engine(node).await?;
            }
            return Ok(format!("nodes {down:?}"));
        }
    };
    Ok(format!("node {hit}"))
}

/// Undoes what an interrupted fault may have left, and gives the parts a little time; our own agents get none.
async fn mend_now(world: &World) -> Result<()> {
    for attempt in 0..3 {
        match world.parts_stand().await {
            Ok(()) => return Ok(()),
            Err(error) if attempt == 2 => bail!("the lab does not stand again: {error:#}"),
            Err(_) => tokio::time::sleep(seconds(5)).await,
        }
    }
    Ok(())
}

/// Everything is as at the beginning but for what the load did.
pub async fn mend(world: &World) -> Result<()> {
    world.nodes_ready(seconds(90)).await?;
    world.agents_run(seconds(120)).await?;
    world.somebody_leads(seconds(60)).await?;
    // The last webhook may have been lost with the leader that took it.
    world.sync().await
}
