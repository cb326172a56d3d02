//! What a stack ran, and going back to it.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::world::{World, app, seconds};

pub async fn history_shows_what_ran(world: &World) -> Result<()> {
    let first = world.commit("past", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("past", "ok", seconds(60)).await?;
    let second = world.commit("past", &[("compose.yml", Some(&app("1.1.0", "", "")))]).await?;
    world.converges("past", seconds(60)).await?;
    let history = history(world, "past").await?;
    let told: Vec<(&Value, &Value)> =
        entries(&history).iter().map(|entry| (&entry["revision"], &entry["outcome"])).collect();
    ensure!(told.len() == 2 && *told[0].0 == second && *told[1].0 == first, "newest first: {history}");
    ensure!(told.iter().all(|(_, outcome)| **outcome == "ok"), "{history}");
    let digests = entries(&history)[0]["digests"].to_string();
    ensure!(digests.contains("app:1.1.0") && digests.contains("sha256:"), "{digests}");
    let text = world.keeper_ok(&["history", "past"]).await?;
    ensure!(text.contains(&first[..7]) && text.contains("app:1.0.0@"), "{text}");
    Ok(())
}

pub async fn a_rollback_returns_to_the_digest_though_the_tag_has_moved(world: &World) -> Result<()> {
    let ran = world.push("floating", "one").await?;
    let file = app("floating", "", "");
    let first = world.commit("returning", &[("compose.yml", Some(&file))]).await?;
    world.reaches("returning", "ok", seconds(60)).await?;
    ensure!(world.service_image("returning_web").await?.ends_with(&ran), "the first digest runs");

    let moved = world.push("floating", "two").await?;
    ensure!(moved != ran, "the tag has moved");
    world.commit("returning", &[("compose.yml", Some(&app("1.1.0", "", "")))]).await?;
    world.converges("returning", seconds(60)).await?;

    let said = world.keeper_ok(&["rollback", "returning", &first[..7], "--reason", "orders are lost"]).await?;
    ensure!(said.contains(&first[..7]), "{said}");
    world.reaches("returning", "held", seconds(60)).await?;
    let note = world.stack("returning").await?["note"].to_string();
    ensure!(note.contains("orders are lost"), "the status says why: {note}");
    ensure!(world.service_image("returning_web").await?.ends_with(&ran), "the digest that ran, not the tag's");
    let held = history(world, "returning").await?;
    ensure!(held["held"]["revision"] == first && entries(&held)[0]["revision"] == first, "{held}");

    // Neither another look nor another leader ends it, nor a commit that leaves the stack alone.
    world.settled().await?;
    let mark = world.mark();
    world.sync().await?;
    world.commit_at_root(&[("README.md", Some("More words.\n"))]).await?;
    world.stop_agent(world.somebody_leads(seconds(60)).await?).await?;
    world.somebody_leads(seconds(40)).await?;
    world.agents_run(seconds(60)).await?;
    world.sync().await?;
    world.reaches("returning", "held", seconds(30)).await?;
    world.no_service_writes(mark).await?;

    world.keeper_ok(&["resume", "returning"]).await?;
    world.reaches("returning", "ok", seconds(60)).await?;
    ensure!(world.service_image("returning_web").await?.contains("app:1.1.0@"), "resumed, it follows git");
    Ok(())
}

pub async fn a_rollback_to_a_digest_that_is_gone_is_refused(world: &World) -> Result<()> {
    world.push("fleeting", "soon gone").await?;
    let first = world.commit("refused", &[("compose.yml", Some(&app("fleeting", "", "")))]).await?;
    world.reaches("refused", "ok", seconds(60)).await?;
    world.commit("refused", &[("compose.yml", Some(&app("1.1.0", "", "")))]).await?;
    world.converges("refused", seconds(60)).await?;
    world.delete_image("fleeting").await?;
    let mark = world.mark();
    let said = world.keeper(&["rollback", "refused"]).await?;
    ensure!(said.code == 1 && said.err.contains("cannot be pulled"), "{said:?}");
    ensure!(said.err.contains(&first[..7]) && said.err.contains("app:fleeting@"), "what and why: {said:?}");
    world.no_engine_writes(mark).await?;
    world.reaches("refused", "ok", seconds(30)).await
}

pub async fn a_restart_replaces_the_tasks_of_exactly_that_service(world: &World) -> Result<()> {
    let two = format!(
        "{}  other:\n    image: {}\n    deploy: {{endpoint_mode: dnsrr}}\n",
        app("1.0.0", "", ""),
        world.image("1.0.0")
    );
    world.commit("restarted", &[("compose.yml", Some(&two))]).await?;
    world.reaches("restarted", "ok", seconds(60)).await?;
    let (web, other) = (world.running_tasks("restarted_web").await?, world.running_tasks("restarted_other").await?);
    let refused = world.keeper(&["restart", "restarted/nobody", "--reason", "x"]).await?;
    ensure!(refused.code == 1 && refused.err.contains("other, web"), "its services are named: {refused:?}");

    world.keeper_ok(&["restart", "restarted/web", "--reason", "leaks memory"]).await?;
    world.tasks_are_others("restarted_web", &web, seconds(60)).await?;
    world
        .eventually("people are told why", seconds(60), async || {
            let told = world.told("restarted").await?;
            ensure!(told.iter().any(|message| message["message"] == "restarted: leaks memory"), "{told:?}");
            Ok(())
        })
        .await?;
    world.reaches("restarted", "ok", seconds(60)).await?;
    ensure!(world.running_tasks("restarted_other").await? == other, "the other service was left alone");

    let after = world.running_tasks("restarted_web").await?;
    let mark = world.mark();
    world.sync().await?;
    world.no_service_writes(mark).await?;
    ensure!(world.running_tasks("restarted_web").await? == after, "once, and it is no drift");
    Ok(())
}

pub async fn all_stacks_are_paused_and_resumed_together(world: &World) -> Result<()> {
    world.commit("frozen", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("frozen", "ok", seconds(60)).await?;
    world.settled().await?;
    world.keeper_ok(&["pause", "--all", "--reason", "an audit"]).await?;
    world.reaches("frozen", "paused", seconds(20)).await?;
    let mark = world.mark();
    world.commit("frozen", &[("compose.yml", Some(&app("1.1.0", "", "")))]).await?;
    world.no_service_writes(mark).await?;
    let status = world.status().await?;
    let running = status["stacks"].as_array().into_iter().flatten().find(|stack| stack["state"] != "paused");
    ensure!(running.is_none(), "every stack is paused: {running:?}");
    world.keeper_ok(&["resume", "--all"]).await?;
    world.converges("frozen", seconds(60)).await?;
    ensure!(world.service_image("frozen_web").await?.contains("app:1.1.0@"), "resumed, it follows git");
    world.settled().await
}

async fn history(world: &World, stack: &str) -> Result<Value> {
    let said = world.keeper_ok(&["history", stack, "--output", "json"]).await?;
    Ok(serde_json::from_str(&said)?)
}

fn entries(history: &Value) -> &[Value] {
    history["entries"].as_array().map_or(&[], Vec::as_slice)
}
