//! Going: what is ours goes, what runs stays.

use anyhow::{Result, ensure};

use crate::world::{World, app, seconds};

pub async fn leave_takes_our_things_away_and_nothing_else(world: &World) -> Result<()> {
    let file = app("1.0.0", "    configs: [words]\n", "configs: {words: {file: words.txt}}\n");
    world.commit("parting", &[("compose.yml", Some(&file)), ("words.txt", Some("goodbye\n"))]).await?;
    world.reaches("parting", "ok", seconds(60)).await?;
    world.settled().await?;
    let tasks = world.all_running_tasks().await?;
    let configs = world.docker(&["config", "ls", "--format", "{{.Name}}"]).await?;
    ensure!(configs.contains("swarmkeeper-state-parting"), "there is something to take away: {configs}");
    let agents = world.running_tasks("swarmkeeper_keeper").await?;
    world.keeper_ok(&["leave"]).await?;
    world.nothing_of_ours_in_consul(seconds(90)).await?;
    let configs = || world.docker(&["config", "ls", "--format", "{{.Name}}"]);
    world
        .eventually("no state, key or note of ours is in the swarm", seconds(60), async || {
            let configs = configs().await?;
            let ours = configs.lines().filter(|name| name.starts_with("swarmkeeper-"));
            let ours: Vec<&str> = ours.collect();
            ensure!(ours.is_empty(), "{ours:?}");
            Ok(())
        })
        .await?;
    let configs = configs().await?;
    ensure!(configs.contains("parting_words"), "the stacks' configs stay: {configs}");
    ensure!(world.all_running_tasks().await? == tasks, "what ran runs");
    ensure!(world.running_tasks("swarmkeeper_keeper").await? == agents, "an agent that is restarted begins anew");
    Ok(())
}
