//! The rules of conduct: what lets an operator trust it.

use anyhow::{Result, ensure};

use crate::world::{World, app, seconds};

pub async fn a_stack_deployed_by_the_docker_cli_is_adopted_with_no_task_restarted(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("compose.yml");
    let content = app("1.0.0", "    configs: [motd]\n", "configs: {motd: {file: motd.txt}}\n");
    std::fs::write(&file, &content)?;
    std::fs::write(folder.path().join("motd.txt"), "by hand\n")?;
    world.docker(&["stack", "deploy", "--with-registry-auth", "-c", &file.to_string_lossy(), "legacy"]).await?;
    world.task_runs("legacy_web", seconds(60)).await?;
    let tasks = world.running_tasks("legacy_web").await?;
    let version = world.service_version("legacy_web").await?;

    world.commit("legacy", &[("compose.yml", Some(&content)), ("motd.txt", Some("by hand\n"))]).await?;
    world.reaches("legacy", "adopt", seconds(30)).await?;
    let mark = world.mark();
    world.keeper_ok(&["adopt", "legacy"]).await?;
    world.reaches("legacy", "ok", seconds(30)).await?;
    ensure!(world.running_tasks("legacy_web").await? == tasks, "no task was restarted");
    ensure!(world.service_version("legacy_web").await? == version, "the service was not even written");
    world.no_service_writes(mark).await?;

    world.commit("legacy", &[("compose.yml", Some(&content.replace("1.0.0", "1.1.0")))]).await?;
    world.converges("legacy", seconds(60)).await?;
    ensure!(world.service_image("legacy_web").await?.contains("app:1.1.0@"), "from now on git decides");
    Ok(())
}

pub async fn a_broken_commit_changes_nothing_and_is_reported(world: &World) -> Result<()> {
    world.settled().await?;
    let tasks = world.running_tasks("shop_web").await?;
    let good = world.file("stacks/shop/compose.yml").await?;
    let mark = world.mark();
    world.commit("shop", &[("compose.yml", Some(&good.replace("    image:", "    imagee:")))]).await?;
    world.reaches("shop", "error", seconds(30)).await?;
    let note = world.stack("shop").await?["note"].to_string();
    ensure!(
        note.contains("stacks/shop/compose.yml:") && note.contains("imagee"),
        "file, line and key are named: {note}"
    );
    world.no_engine_writes(mark).await?;
    ensure!(world.running_tasks("shop_web").await? == tasks, "what ran goes on");
    // The others are none the worse for it.
    world.commit("bystander", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("bystander", "ok", seconds(60)).await?;
    world.commit("shop", &[("compose.yml", Some(&good))]).await?;
    world.reaches("shop", "ok", seconds(30)).await
}

pub async fn a_git_server_that_is_down_leaves_everything_as_it_is(world: &World) -> Result<()> {
    world.settled().await?;
    let before = world.status().await?;
    let mark = world.mark();
    world.git_is_up(false).await?;
    let said = world.keeper(&["sync"]).await;
    let status = world.status().await;
    world.git_is_up(true).await?;
    let (said, status) = (said?, status?);
    ensure!(said.code == 1 && said.err.contains("git"), "the command says so: {said:?}");
    ensure!(
        status["git"]["error"].is_string() && status["git"]["revision"] == before["git"]["revision"],
        "{}",
        status["git"]
    );
    ensure!(status["stacks"] == before["stacks"], "every stack is as it was");
    world.no_engine_writes(mark).await?;
    world.sync().await
}

pub async fn a_failing_image_is_rolled_back_and_not_tried_again(world: &World) -> Result<()> {
    let good = app("1.0.0", "", "");
    world.commit("fragile", &[("compose.yml", Some(&good))]).await?;
    world.reaches("fragile", "ok", seconds(60)).await?;
    let bad = world.commit("fragile", &[("compose.yml", Some(&good.replace("1.0.0", "broken")))]).await?;
    world.reaches("fragile", "held", seconds(90)).await?;
    let status = world.stack("fragile").await?;
    let note = status["note"].to_string();
    ensure!(
        note.contains(&bad[..7]) && note.contains("exit"),
        "the revision and the task's own error are named: {note}"
    );
    world.image_becomes("fragile_web", "app:1.0.0@", seconds(60)).await?;
    world.task_runs("fragile_web", seconds(60)).await?;
    world.settled().await?;
    let mark = world.mark();
    world.sync().await?;
    world.sync().await?;
    world.no_engine_writes(mark).await?;

    world.commit("fragile", &[("compose.yml", Some(&good.replace("1.0.0", "1.1.0")))]).await?;
    world.reaches("fragile", "ok", seconds(60)).await?;
    ensure!(world.service_image("fragile_web").await?.contains("app:1.1.0@"), "a new commit is tried");
    Ok(())
}

pub async fn a_stack_removed_from_git_is_orphaned(world: &World) -> Result<()> {
    world.commit("leaving", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("leaving", "ok", seconds(60)).await?;
    let tasks = world.running_tasks("leaving_web").await?;
    world.commit("leaving", &[("compose.yml", None)]).await?;
    world.reaches("leaving", "orphan", seconds(30)).await?;
    ensure!(world.running_tasks("leaving_web").await? == tasks, "nothing was removed");
    world.keeper_ok(&["remove", "leaving"]).await?;
    world.gone("leaving_web", seconds(30)).await?;
    world.network_gone("leaving_default", seconds(60)).await
}

pub async fn the_brake_holds(world: &World) -> Result<()> {
    let services = |names: &[&str]| {
        let mut file = String::from("services:\n");
        for name in names {
            file += &format!(
                "  {name}:\n    image: {}\n    deploy: {{replicas: 0, endpoint_mode: dnsrr}}\n",
                world.image("1.0.0")
            );
        }
        file
    };
    world.commit("wide", &[("compose.yml", Some(&services(&["a", "b", "c", "d", "e", "f"])))]).await?;
    world.reaches("wide", "ok", seconds(60)).await?;
    let mark = world.mark();
    let revision = world.commit("wide", &[("compose.yml", Some(&services(&["a", "b"])))]).await?;
    world.reaches("wide", "approve", seconds(30)).await?;
    world.no_service_writes(mark).await?;
    world.keeper_ok(&["approve", "wide", &revision[..7]]).await?;
    world.gone("wide_f", seconds(30)).await?;
    world.reaches("wide", "ok", seconds(30)).await
}

pub async fn drift_is_reported_and_not_corrected(world: &World) -> Result<()> {
    world.docker(&["service", "update", "--detach", "--env-add", "BY=hand", "bystander_web"]).await?;
    world.reaches("bystander", "drift", seconds(60)).await?;
    let mark = world.mark();
    world.sync().await?;
    world.no_service_writes(mark).await?;
    world.docker(&["service", "update", "--detach", "--env-rm", "BY", "bystander_web"]).await?;
    world.reaches("bystander", "ok", seconds(60)).await
}

pub async fn a_paused_stack_stays_paused_when_consul_forgets_everything(world: &World) -> Result<()> {
    world.keeper_ok(&["pause", "shop", "--reason", "an audit"]).await?;
    world.reaches("shop", "paused", seconds(20)).await?;
    world.wipe_consul_kv().await?;
    world.somebody_leads(seconds(40)).await?;
    let content = world.file("stacks/shop/compose.yml").await?;
    let mark = world.mark();
    world.commit("shop", &[("compose.yml", Some(&content.replace("1.0.0", "1.1.0")))]).await?;
    world.reaches("shop", "paused", seconds(30)).await?;
    world.no_service_writes(mark).await?;
    world.keeper_ok(&["resume", "shop"]).await?;
    world.converges("shop", seconds(60)).await?;
    ensure!(world.service_image("shop_web").await?.contains("app:1.1.0@"), "resumed, it follows git");
    Ok(())
}

pub async fn what_became_of_a_stack_is_told_once(world: &World) -> Result<()> {
    let good = app("1.0.0", "", "");
    world.commit("news", &[("compose.yml", Some(&good))]).await?;
    world.reaches("news", "ok", seconds(60)).await?;
    let bad = world.commit("news", &[("compose.yml", Some(&good.replace("1.0.0", "broken")))]).await?;
    world.reaches("news", "held", seconds(90)).await?;
    world.settled().await?;
    let told = world.told("news").await?;
    let texts: Vec<&str> = told.iter().filter_map(|message| message["text"].as_str()).collect();
    ensure!(
        texts.iter().filter(|text| text.contains(&bad[..7])).count() >= 1,
        "the failed revision is named: {texts:?}"
    );
    ensure!(told.iter().filter(|message| message["state"] == "ok").count() == 1, "once that it runs: {texts:?}");
    ensure!(told.iter().filter(|message| message["state"] == "held").count() == 1, "once that it does not: {texts:?}");

    // Neither another look nor another leader says it again.
    world.sync().await?;
    world.stop_agent(world.somebody_leads(seconds(60)).await?).await?;
    world.somebody_leads(seconds(30)).await?;
    world.agents_run(seconds(60)).await?;
    world.sync().await?;
    world.settled().await?;
    let again = world.told("news").await?;
    ensure!(again.len() == told.len(), "nothing new was to be told: {again:?}");
    world.commit("news", &[("compose.yml", Some(&good))]).await?;
    world.reaches("news", "ok", seconds(60)).await
}

pub async fn the_doctor_finds_every_node_well_and_names_a_rival(world: &World) -> Result<()> {
    world.settled().await?;
    let mark = world.mark();
    for node in 1..=4 {
        let said = world.keeper_inside(node, &["doctor"]).await?;
        ensure!(said.code == 0 && said.out.contains("all is well"), "node {node}: {said:?}");
    }
    world.no_engine_writes(mark).await?;
    let (image, rival) = (world.image("1.0.0"), "gliderlabs/registrator:v7");
    world.docker_on(4, &["tag", &image, rival]).await?;
    world.docker_on(4, &["run", "-d", "--name", "registrator", rival]).await?;
    let said = world.keeper_inside(4, &["doctor"]).await;
    world.docker_on(4, &["rm", "-f", "registrator"]).await?;
    let said = said?;
    ensure!(said.out.contains("registrator") && said.out.contains("warn"), "{said:?}");
    Ok(())
}
