//! Who leads, and what happens when the leader goes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::world::{PUSH, World, app, seconds};

pub async fn a_webhook_with_a_bad_signature_does_nothing(world: &World) -> Result<()> {
    world.settled().await?;
    let mark = world.mark();
    let status = world.webhook("github", PUSH, "the wrong secret").await?;
    ensure!(status == 401, "refused with {status}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.no_writes(mark).await
}

pub async fn a_signed_webhook_deploys_at_once(world: &World) -> Result<()> {
    world.reaches("shop", "ok", seconds(30)).await?;
    let revision = world.commit_quietly("hooked", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    let mark = world.mark();
    let pushed = Instant::now();
    // Whichever node receives it wakes the leader.
    for node in [1, 2, 3] {
        let status = world.webhook_at(node, "github", PUSH).await?;
        ensure!(status == 202 || status == 200, "answered {status}");
    }
    world.has_seen(&revision).await?;
    let write = world.first_service_write(mark, seconds(10)).await?;
    println!("push → webhook → first service write: {:?} after the push, {write}", pushed.elapsed());
    world.reaches("hooked", "ok", seconds(60)).await
}

pub async fn a_leader_that_is_told_to_stop_hands_over_at_once(world: &World) -> Result<()> {
    let leader = world.somebody_leads(seconds(60)).await?;
    let began = Instant::now();
    world.stop_agent(leader).await?;
    let next = world.somebody_else_leads(leader, seconds(10)).await?;
    ensure!(began.elapsed() < Duration::from_secs(10), "handed over after {:?}", began.elapsed());
    println!("node {leader} handed over to node {next}");
    world.agents_run(seconds(60)).await?;
    // What it had registered was not taken out.
    world.settled().await
}

pub async fn our_own_update_loses_no_sync(world: &World) -> Result<()> {
    world.settled().await?;
    let mark = world.mark();
    world.update_keepers().await?;
    let mut stacks = Vec::new();
    // Git's server announces each push once, to whichever manager answers; nobody polls within an hour.
    while world.keepers_update().await? != "completed" || stacks.len() < 3 {
        let stack = format!("during{}", stacks.len());
        world.commit_quietly(&stack, &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
        world.webhook_somewhere().await?;
        stacks.push(stack);
        ensure!(stacks.len() < 60, "the update does not end");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    world.agents_run(seconds(60)).await?;
    for stack in &stacks {
        world.reaches(stack, "ok", seconds(60)).await?;
    }
    println!("{} commits during the update", stacks.len());
    world.one_writer_at_a_time(mark).await
}

pub async fn a_leader_killed_in_the_middle_of_a_deploy_is_replaced_and_the_deploy_finished(
    world: &World,
) -> Result<()> {
    let mut file = String::from("services:\n");
    for number in 0..12 {
        file += &format!(
            "  s{number:02}:\n    image: {}\n    deploy: {{replicas: 1, endpoint_mode: dnsrr}}\n{}",
            world.image("1.0.0"),
            if number == 0 { String::new() } else { format!("    depends_on: [s{:02}]\n", number - 1) }
        );
    }
    let mark = world.mark();
    world.commit("chain", &[("compose.yml", Some(&file))]).await?;
    world.service_exists("chain_s02", seconds(60)).await?;
    let (leader, term) = (world.somebody_leads(seconds(60)).await?, world.term().await?);
    let killed = Instant::now();
    world.kill_agent(leader).await?;
    let next = world.a_new_term_begins(term, seconds(30)).await?;
    println!("node {leader} was killed; node {next} leads after {:?}", killed.elapsed());
    world.reaches("chain", "ok", seconds(120)).await?;
    world.one_writer_at_a_time(mark).await?;
    for number in 0..12 {
        world.task_runs(&format!("chain_s{number:02}"), seconds(10)).await?;
    }
    world.agents_run(seconds(60)).await
}
