//! What a rollout does with jobs, whole stacks, networks, generations of secrets, and what other tools change.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::world::{World, app, seconds};

/// `web` after a job that exits with this code after some seconds.
fn migrated(world: &World, code: u8, seconds: u8, tag: &str) -> String {
    format!(
        "{}    depends_on: [migrate]\n  migrate:\n    image: {}\n    entrypoint: [sh, -c, \"echo adding column price; sleep {seconds}; exit {code}\"]\n    \
         deploy: {{mode: replicated-job, endpoint_mode: dnsrr, restart_policy: {{condition: none}}}}\n",
        app(tag, "", ""),
        world.image("1.0.0")
    )
}

pub async fn a_migration_job_gates_its_service(world: &World) -> Result<()> {
    world.commit("gated", &[("compose.yml", Some(&migrated(world, 0, 3, "1.0.0")))]).await?;
    world.service_exists("gated_migrate", seconds(20)).await?;
    ensure!(world.service_spec("gated_web").await.is_err(), "the service waits for its migration");
    world.reaches("gated", "ok", seconds(60)).await?;
    let completed = world.completed_at("gated_migrate").await?;
    let made = world.created_at("gated_web").await?;
    ensure!(completed <= made, "the job was complete at {completed}, the service was made at {made}");
    let version = world.service_version("gated_migrate").await?;
    world.commit("gated", &[("compose.yml", Some(&migrated(world, 0, 3, "1.1.0")))]).await?;
    world.converges("gated", seconds(60)).await?;
    ensure!(world.service_version("gated_migrate").await? == version, "an unchanged job does not run again");
    Ok(())
}

pub async fn a_failing_migration_leaves_the_old_service_running(world: &World) -> Result<()> {
    world.commit("unmigrated", &[("compose.yml", Some(&migrated(world, 0, 0, "1.0.0")))]).await?;
    world.reaches("unmigrated", "ok", seconds(60)).await?;
    let tasks = world.running_tasks("unmigrated_web").await?;
    world.commit("unmigrated", &[("compose.yml", Some(&migrated(world, 3, 0, "1.1.0")))]).await?;
    world.reaches("unmigrated", "held", seconds(60)).await?;
    ensure!(world.running_tasks("unmigrated_web").await? == tasks, "what depends on it was not written");
    // The log is read when the failure is; the pass after that one tells it.
    world.sync().await?;
    let status = world.stack("unmigrated").await?;
    let note = status["note"].to_string();
    ensure!(note.contains("unmigrated_migrate exit 3 on ") && note.contains("adding column price"), "{note}");
    ensure!(status["log"].to_string().contains("adding column price"), "{status}");
    let history = world.keeper_ok(&["history", "unmigrated"]).await?;
    ensure!(history.contains("exit 3") && history.contains("| adding column price"), "{history}");
    Ok(())
}

pub async fn a_stack_goes_back_as_a_whole(world: &World) -> Result<()> {
    let settings = ("stack.yml", Some("on_failure: rollback-stack\n"));
    world.commit("whole", &[("compose.yml", Some(&app("1.0.0", "", ""))), settings]).await?;
    world.reaches("whole", "ok", seconds(60)).await?;
    let more = format!(
        "{}  extra:\n    image: {}\n    depends_on: [web]\n    deploy: {{endpoint_mode: dnsrr, restart_policy: {{delay: 500ms}}}}\n",
        app("1.1.0", "", ""),
        world.image("broken")
    );
    world.commit("whole", &[("compose.yml", Some(&more))]).await?;
    world.reaches("whole", "held", seconds(90)).await?;
    world.gone("whole_extra", seconds(30)).await?;
    world.image_becomes("whole_web", "app:1.0.0@", seconds(30)).await?;
    world.task_runs("whole_web", seconds(60)).await
}

pub async fn a_changed_network_is_made_anew_if_asked_for(world: &World) -> Result<()> {
    let on = |internal: bool| {
        app(
            "1.0.0",
            "    networks: [back]\n",
            &format!("networks: {{back: {{internal: {internal}, attachable: true}}}}\n"),
        )
    };
    world.commit("rewired", &[("compose.yml", Some(&on(false)))]).await?;
    world.reaches("rewired", "ok", seconds(60)).await?;
    world.docker(&["service", "scale", "--detach", "rewired_web=2"]).await?;
    let tasks = world.running_tasks("rewired_web").await?;
    world.commit("rewired", &[("compose.yml", Some(&on(true)))]).await?;
    world.reaches("rewired", "drift", seconds(30)).await?;
    ensure!(world.running_tasks("rewired_web").await? == tasks, "nothing is done unasked");

    // A plain container on it is in the way, and is named.
    let network = "rewired_back";
    let joined = ["run", "-d", "--name", "joined", "--network", network, &world.image("1.0.0")].map(str::to_owned);
    let joined: Vec<&str> = joined.iter().map(String::as_str).collect();
    let container = world.docker_on(4, &joined).await?;
    world.commit("rewired", &[("stack.yml", Some("recreate: true\n"))]).await?;
    let waits = world
        .eventually("the container is named", seconds(30), async || {
            let note = world.stack("rewired").await?["note"].to_string();
            ensure!(note.contains(&format!("container {}", &container[..12])), "{note}");
            Ok(())
        })
        .await;
    world.docker_on(4, &["rm", "-f", "joined"]).await?;
    waits?;
    ensure!(world.running_tasks("rewired_web").await? == tasks, "nothing was taken off it");

    world.sync().await?;
    world
        .eventually("the network is internal", seconds(90), async || {
            let internal = world.docker(&["network", "inspect", "--format", "{{.Internal}}", network]).await?;
            ensure!(internal.trim() == "true", "{internal}");
            world.sync().await
        })
        .await?;
    world.reaches("rewired", "ok", seconds(60)).await?;
    world.task_runs("rewired_web", seconds(30)).await?;
    world.settled().await?;
    let mark = world.mark();
    world.sync().await?;
    world.no_engine_writes(mark).await
}

pub async fn two_generations_of_a_secret_are_kept(world: &World) -> Result<()> {
    let file = app("1.0.0", "    secrets: [token]\n", "secrets: {token: {file: token.txt}}\n");
    world.commit("generations", &[("compose.yml", Some(&file)), ("token.txt", Some("one"))]).await?;
    world.reaches("generations", "ok", seconds(60)).await?;
    let mut used = vec!["generations_token".to_owned()];
    for content in ["two", "three"] {
        world.commit("generations", &[("token.txt", Some(content))]).await?;
        world.converges("generations", seconds(60)).await?;
        let spec = world.service_spec("generations_web").await?;
        let name = &spec["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["SecretName"];
        used.push(name.as_str().unwrap_or_default().to_owned());
    }
    world
        .eventually("the first generation is collected", seconds(60), async || {
            world.sync().await?;
            let names = world.docker(&["secret", "ls", "--format", "{{.Name}}"]).await?;
            let mut kept: Vec<&str> = names.lines().filter(|name| name.starts_with("generations_")).collect();
            let mut wanted: Vec<&str> = used[1..].iter().map(String::as_str).collect();
            kept.sort_unstable();
            wanted.sort_unstable();
            ensure!(kept == wanted, "{kept:?} are there, of {used:?}");
            Ok(())
        })
        .await
}

pub async fn ignored_replicas_survive_a_scale_and_an_update(world: &World) -> Result<()> {
    let file = |tag: &str| {
        app(tag, "", "")
            .replace("      replicas: 2\n", "      replicas: 2\n      labels: {swarmkeeper.ignore: replicas}\n")
    };
    world.commit("scaled", &[("compose.yml", Some(&file("1.0.0")))]).await?;
    world.reaches("scaled", "ok", seconds(60)).await?;
    world.docker(&["service", "scale", "--detach", "scaled_web=3"]).await?;
    let mark = world.mark();
    world.task_runs("scaled_web", seconds(60)).await?;
    world.sync().await?;
    world.reaches("scaled", "ok", seconds(30)).await?;
    world.no_service_writes(mark).await?;
    world.commit("scaled", &[("compose.yml", Some(&file("1.1.0")))]).await?;
    world.converges("scaled", seconds(60)).await?;
    let spec: Value = world.service_spec("scaled_web").await?;
    ensure!(spec["Mode"]["Replicated"]["Replicas"] == 3, "{}", spec["Mode"]);
    ensure!(world.service_image("scaled_web").await?.contains("app:1.1.0@"), "and git decides the rest");
    Ok(())
}
