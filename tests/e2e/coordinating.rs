//! The lock in the swarm itself: everything but registration without any Consul of ours.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use swarmkeeper::io::swarm::Error;
use swarmkeeper::model::Sensitive;
use swarmkeeper::spec::{ConfigSpec, Labels};

use crate::world::{World, app, follower_of, seconds};

#[path = "../models/swarm.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod model;

use model::{Refusal, SwarmModel};

/// Operations that the model and the swarm are compared by.
const OPERATIONS: u64 = 200;

/// The config that they are about.
const CONFIG: &str = "model-lock";

pub async fn the_model_answers_as_the_swarm_does(world: &World) -> Result<()> {
    // Two managers: each answer of one is to hold for the other.
    let swarms = [world.swarm(1).await?, world.swarm(2).await?];
    let mut model = SwarmModel::new();
    // What each calls a config and its version: the model's and the swarm's.
    let mut ids = vec![("no such".to_owned(), "nosuchconfig".to_owned())];
    let mut versions = vec![(0, 0)];
    let mut random = 11_u64;
    for step in 0..OPERATIONS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (what, which) = ((random >> 33) % 12, usize::try_from((random >> 40) % 4)?);
        let swarm = &swarms[usize::try_from((random >> 50) % 2)?];
        let labels = Labels::from([("step".to_owned(), step.to_string())]);
        // The newest mostly, an older one now and then.
        let id = ids[ids.len() - 1 - if which == 3 { ids.len() / 2 } else { 0 }].clone();
        let version = versions[versions.len() - 1 - which.min(versions.len() - 1)];
        let data = Sensitive::new(b"x".to_vec());
        let spec = ConfigSpec { name: CONFIG.into(), labels: Some(labels.clone()), data, ..ConfigSpec::default() };
        let (ours, theirs) = match what {
            0 | 1 => {
                let theirs = swarm.config_create(&spec).await;
                let ours = model.create(labels);
                if let (Ok(ours), Ok(theirs)) = (&ours, &theirs) {
                    ids.push((ours.clone(), theirs.clone()));
                }
                (ours.map(drop), theirs.map(drop))
            }
            2 => (model.remove(&id.0), swarm.config_remove(&id.1).await),
            _ => {
                let spec = ConfigSpec { data: Sensitive::default(), ..spec };
                (model.update(&id.0, version.0, labels), swarm.config_update(&id.1, version.1, &spec).await)
            }
        };
        ensure!(ours == refusal(&theirs)?, "step {step}, {what} on {id:?} at {version:?}: {ours:?}, and {theirs:?}");
        let ours = model.read();
        let theirs = match swarms[0].config(CONFIG).await {
            Ok(config) => Some(config),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let shown = ours.as_ref().map(|config| config.labels.clone());
        ensure!(
            shown == theirs.as_ref().and_then(|config| config.spec.labels.clone()),
            "step {step}: {ours:?}, {theirs:?}"
        );
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            let (now, last) = ((ours.version, theirs.version.index), versions[versions.len() - 1]);
            // It grows with every write, also over a config's end and its successor's beginning.
            ensure!((now.0 > last.0) == (now.1 > last.1), "step {step}: {last:?} → {now:?}");
            if now != last {
                versions.push(now);
            }
        }
    }
    if let Some(config) = model.read() {
        let theirs = ids.iter().find(|(ours, _)| *ours == config.id).map(|(_, theirs)| theirs.clone());
        swarms[0].config_remove(&theirs.unwrap_or_default()).await?;
    }
    Ok(())
}

fn refusal(answer: &Result<(), Error>) -> Result<Result<(), Refusal>> {
    Ok(match answer {
        Ok(()) => Ok(()),
        Err(Error::AlreadyExists { .. }) => Err(Refusal::Exists),
        Err(Error::NotFound { .. }) => Err(Refusal::Missing),
        Err(Error::Conflict { .. }) => Err(Refusal::Stale),
        Err(other) => anyhow::bail!("{other}"),
    })
}

pub async fn without_consul_the_swarm_elects_a_leader_that_deploys(world: &World) -> Result<()> {
    world.coordinate_by_the_swarm().await?;
    // A change from Consul waits until every leader there has surely stopped.
    let leader = world.somebody_leads(seconds(150)).await?;
    world.agents_run(seconds(60)).await?;
    let report = leader_report(world).await?;
    ensure!(report["coordination"] == "swarm", "{report}");
    ensure!(report["candidates"].as_array().is_some_and(|all| all.len() == 3), "{report}");
    world.commit("alone", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("alone", "ok", seconds(60)).await?;

    // A webhook at a follower reaches the leader through its API.
    world.push_and_tell(follower_of(leader), "alone", &app("1.1.0", "", "")).await?;
    world.image_becomes("alone_web", "1.1.0", seconds(60)).await?;
    let said = world.keeper_inside(leader, &["doctor"]).await?;
    ensure!(said.out.contains("none is configured"), "the doctor says what needs Consul: {said:?}");
    Ok(())
}

pub async fn without_consul_a_killed_leader_is_replaced(world: &World) -> Result<()> {
    world.coordinate_by_the_swarm().await?;
    let leader = world.somebody_leads(seconds(150)).await?;
    let (mark, term) = (world.mark(), world.term().await?);
    let killed = Instant::now();
    world.kill_agent(leader).await?;
    let next = world.a_new_term_begins(term, seconds(30)).await?;
    let took = killed.elapsed();
    println!("node {leader} was killed; node {next} leads after {took:?}");
    ensure!(took < seconds(15), "{took:?}");
    world.commit("orphaned", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("orphaned", "ok", seconds(60)).await?;
    world.one_writer_at_a_time(mark).await?;
    world.agents_run(seconds(60)).await
}

pub async fn a_leader_that_steps_down_is_followed_by_another(world: &World) -> Result<()> {
    let leader = world.somebody_leads(seconds(150)).await?;
    let began = Instant::now();
    let said = world.keeper_ok(&["leader", "--step-down"]).await?;
    ensure!(said.contains("hands over"), "{said}");
    let next = world.somebody_else_leads(leader, seconds(15)).await?;
    println!("node {leader} stepped down; node {next} leads after {:?}", began.elapsed());
    tokio::time::sleep(Duration::from_secs(5)).await;
    ensure!(world.leader().await? == next, "the one that followed stays");
    let report = leader_report(world).await?;
    ensure!(report["leader"]["token"].is_u64(), "{report}");
    Ok(())
}

async fn leader_report(world: &World) -> Result<Value> {
    Ok(serde_json::from_str(&world.keeper_ok(&["leader", "--output", "json"]).await?)?)
}
