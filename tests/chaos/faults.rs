//! The faults: each is done, lasts, and is mended. All of them stay inside the lab.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;

use super::burst;
use super::world::faults::{HEARS, SENDS};
use super::world::{World, seconds};

/// Between two faults.
const PAUSE: std::ops::Range<u64> = 2..7;

/// Longer than any lease of the default profile.
const LONGER_THAN_A_LEASE: Duration = Duration::from_secs(20);

/// While streams are dropped, each lives no longer than this.
const STREAMS_LIVE: Duration = Duration::from_millis(400);

/// For a fault that takes a leader, one is waited for: the last fault may have taken the one before.
const ELECTED: Duration = Duration::from_secs(30);

/// So often may faults turn out to be impossible, such as a leader to kill while nobody leads.
const IMPOSSIBLE_MAX: usize = 5;

/// A promise did not hold. Context of an error that ends the run, while a fault that could not be done is followed by another.
#[derive(Debug)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a promise was broken")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    DiskFull,
    StreamsDropped,
}

const ALL: [Fault; 21] = [
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
    Fault::DiskFull,
    Fault::StreamsDropped,
];

/// One fault after another, each kind once before any comes again, until there are enough or the time is over. Gives their number.
pub async fn inflict(world: &World, rng: &mut Rng, count: usize, deadline: Instant) -> Result<usize> {
    let (mut done, mut impossible) = (0, 0);
    let mut kinds = BTreeSet::new();
    let mut bag = Vec::new();
    while done < count && Instant::now() < deadline {
        if bag.is_empty() {
            bag = ALL.to_vec();
            rng.shuffle(&mut bag);
        }
        let Some(fault) = bag.pop() else { break };
        let began = Instant::now();
        match one(world, fault, rng).await {
            Ok(what) => {
                done += 1;
                kinds.insert(fault);
                println!("{done:>4}  {fault:?} {what} ({} s)", began.elapsed().as_secs());
            }
            Err(error) if error.is::<Broken>() => return Err(error),
            Err(error) => {
                println!("      {fault:?} could not be done: {error:#}");
                impossible += 1;
                ensure!(impossible <= IMPOSSIBLE_MAX, "too many faults could not be done");
                // Its turn comes again, after another's.
                bag.insert(bag.len().saturating_sub(1), fault);
            }
        }
        undo_all(world).await?;
        tokio::time::sleep(seconds(rng.u64(PAUSE))).await;
    }
    println!("{} of {} kinds of faults", kinds.len(), ALL.len());
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
            let leader = world.somebody_leads(ELECTED).await?;
            world.kill_agent(leader).await?;
            leader
        }
        Fault::LeaderFrozen => {
            let leader = world.somebody_leads(ELECTED).await?;
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
        Fault::RaftLeaderKilledInABurst => return burst::raft_leader_is_killed(world).await,
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
            world.one_way(manager, SENDS, seconds(12)).await?;
            manager
        }
        Fault::CannotHear => {
            world.one_way(manager, HEARS, seconds(12)).await?;
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
            tokio::time::sleep(seconds(6)).await;
            world.thief_leaves().await?;
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
        Fault::DiskFull => {
            world.disk_is_filled(node).await?;
            tokio::time::sleep(seconds(6)).await;
            // Swarm starts another, which finds the disk as full.
            world.kill_agent(node).await?;
            tokio::time::sleep(seconds(8)).await;
            world.disk_is_emptied(node).await?;
            node
        }
        Fault::StreamsDropped => {
            let end = Instant::now() + seconds(8);
            while Instant::now() < end {
                world.drop_streams()?;
                tokio::time::sleep(STREAMS_LIVE).await;
            }
            return Ok("on all nodes".to_owned());
        }
    };
    Ok(format!("node {hit}"))
}

/// Undoes what the fault has left, also one that was interrupted, and gives the parts a little time; our own agents get none.
async fn undo_all(world: &World) -> Result<()> {
    world
        .eventually("the lab stands again", seconds(60), async || {
            for node in 1..=4 {
                world.undo_faults(node).await?;
            }
            world.parts_stand().await
        })
        .await
}

/// Everything is as at the beginning but for what the load did.
pub async fn mend(world: &World) -> Result<()> {
    world.nodes_ready(seconds(90)).await?;
    world.agents_run(seconds(120)).await?;
    world.somebody_leads(seconds(60)).await?;
    // The last webhook may have been lost with the leader that took it.
    world.sync().await
}
