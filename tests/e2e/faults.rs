//! What surrounds us fails and comes back: nothing that runs is touched, and afterwards all is as git says.

use anyhow::{Result, ensure};

use crate::world::{World, app, seconds};

pub async fn consul_restarted_on_every_node(world: &World) -> Result<()> {
    let tasks = world.all_running_tasks().await?;
    for node in 1..=4 {
        world.restart_consul(node).await?;
    }
    world.somebody_leads(seconds(60)).await?;
    ensure!(world.all_running_tasks().await? == tasks, "no task was touched");
    world.commit("after-consul", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("after-consul", "ok", seconds(90)).await?;
    world.everything_running_is_registered(seconds(60)).await
}

pub async fn a_node_cut_off_and_back(world: &World) -> Result<()> {
    let leader = world.somebody_leads(seconds(60)).await?;
    world.partition(leader).await?;
    let next = world.somebody_else_leads(leader, seconds(40)).await?;
    println!("node {leader} was cut off; node {next} leads");
    let done = async {
        world.commit_for(next, "meanwhile", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
        world.reaches_at(next, "meanwhile", "ok", seconds(90)).await
    }
    .await;
    world.heal(leader).await?;
    done?;
    world.nodes_ready(seconds(60)).await?;
    world.agents_run(seconds(90)).await?;
    world.settled().await?;
    world.everything_running_is_registered(seconds(60)).await
}

pub async fn an_engine_restarted(world: &World) -> Result<()> {
    let leader = world.somebody_leads(seconds(60)).await?;
    world.restart_engine(leader).await?;
    world.nodes_ready(seconds(60)).await?;
    world.agents_run(seconds(90)).await?;
    world.commit("after-engine", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("after-engine", "ok", seconds(90)).await?;
    world.everything_running_is_registered(seconds(60)).await
}

pub async fn a_swarm_without_quorum_is_left_alone_and_said(world: &World) -> Result<()> {
    world.settled().await?;
    let leader = world.somebody_leads(seconds(60)).await?;
    let others: Vec<usize> = (1..=3).filter(|node| *node != leader).collect();
    let mark = world.mark();
    for node in &others {
        world.kill_engine(*node).await?;
    }
    let said = async {
        world.says_problem_at(leader, "quorum", seconds(60)).await?;
        // Nobody leads a swarm that cannot be written to, and that is said as well.
        world.says_problem_at(leader, "nobody leads: ", seconds(90)).await?;
        world.no_service_writes(mark).await
    }
    .await;
    for node in &others {
        world.start_engine(*node).await?;
    }
    said?;
    world.nodes_ready(seconds(90)).await?;
    world.agents_run(seconds(90)).await?;
    world.somebody_leads(seconds(60)).await?;
    world.commit("after-quorum", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("after-quorum", "ok", seconds(90)).await?;
    world.everything_running_is_registered(seconds(60)).await
}
