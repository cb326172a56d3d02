//! Containers in Consul, asked for by DNS as any client would.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use time::OffsetDateTime;

use crate::world::{World, seconds};

const NODE: usize = 4;

pub async fn a_container_is_in_dns_while_it_runs(world: &World) -> Result<()> {
    let image = world.image("1.0.0");
    let id = world
        .docker_on(
            NODE,
            &["run", "-d", "-p", "18080:8080", "-e", "SERVICE_NAME=plain", "-e", "SERVICE_TAGS=blue,green", &image],
        )
        .await?;
    world.dns_answers(NODE, "plain.service.consul", &["10.77.0.4"], seconds(5)).await?;
    world.dns_answers(NODE, "blue.plain.service.consul", &["10.77.0.4"], seconds(5)).await?;
    let service = world.consul_service(NODE, "plain").await?;
    ensure!(service["ServicePort"] == 18080, "{service}");
    world.docker_on(NODE, &["rm", "-f", id.trim()]).await?;
    world.dns_answers(NODE, "plain.service.consul", &[], seconds(5)).await
}

pub async fn a_healthcheck_decides_what_dns_answers(world: &World) -> Result<()> {
    let image = world.image("1.0.0");
    let id = world
        .docker_on(
            NODE,
            &[
                "run",
                "-d",
                "-p",
                "18081:8080",
                "-e",
                "SERVICE_NAME=sickly",
                "--health-interval",
                "1s",
                "--health-retries",
                "1",
                "--health-cmd",
                "test -e /tmp/well",
                &image,
            ],
        )
        .await?;
    let id = id.trim().to_owned();
    // Registered at once, and critical: it is in the catalogue and not in DNS.
    world.consul_service(NODE, "sickly").await?;
    world.dns_answers(NODE, "sickly.service.consul", &[], seconds(3)).await?;
    world.docker_on(NODE, &["exec", &id, "touch", "/tmp/well"]).await?;
    world.dns_answers(NODE, "sickly.service.consul", &["10.77.0.4"], seconds(10)).await?;
    world.docker_on(NODE, &["exec", &id, "rm", "/tmp/well"]).await?;
    world.dns_answers(NODE, "sickly.service.consul", &[], seconds(10)).await?;
    world.docker_on(NODE, &["rm", "-f", &id]).await?;
    Ok(())
}

pub async fn an_unchanged_node_writes_nothing_to_consul(world: &World) -> Result<()> {
    world.settled().await?;
    let mark = world.mark();
    // Longer than the re-list interval of 30 s.
    tokio::time::sleep(Duration::from_secs(35)).await;
    world.no_registrations(mark).await
}

pub async fn a_strangers_registration_is_left_alone(world: &World) -> Result<()> {
    world.register_by_hand(NODE, "stranger", "10.77.0.4", 18082).await?;
    let image = world.image("1.0.0");
    let id = world.docker_on(NODE, &["run", "-d", "-p", "18082:8080", "-e", "SERVICE_NAME=mine", &image]).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.dns_answers(NODE, "mine.service.consul", &[], seconds(3)).await?;
    world.docker_on(NODE, &["rm", "-f", id.trim()]).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.dns_answers(NODE, "stranger.service.consul", &["10.77.0.4"], seconds(3)).await?;
    world.deregister_by_hand(NODE, "stranger").await
}

pub async fn a_dead_agent_takes_nothing_out_of_dns(world: &World) -> Result<()> {
    let image = world.image("1.0.0");
    let id = world.docker_on(NODE, &["run", "-d", "-p", "18083:8080", "-e", "SERVICE_NAME=steady", &image]).await?;
    world.dns_answers(NODE, "steady.service.consul", &["10.77.0.4"], seconds(5)).await?;
    let agent = world.freeze_agent(NODE).await?;
    let until = std::time::Instant::now() + Duration::from_secs(40);
    while std::time::Instant::now() < until {
        world.dns_answers(NODE, "steady.service.consul", &["10.77.0.4"], seconds(1)).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    world.thaw_agent(agent).await?;
    world.docker_on(NODE, &["rm", "-f", id.trim()]).await?;
    world.dns_answers(NODE, "steady.service.consul", &[], seconds(40)).await
}

/// Serves for 5 s after SIGTERM, as one that lets its clients finish.
const LINGERS: &str = "trap 'sleep 5; exit 0' TERM; httpd -f -p 8080 -h /www & while :; do sleep 1 & wait $!; done";

pub async fn a_stopping_container_is_out_of_dns_while_its_process_still_serves(world: &World) -> Result<()> {
    let image = world.image("1.0.0");
    let run = ["run", "-d", "-p", "18084:8080", "-e", "SERVICE_NAME=lingering", "--entrypoint", "/bin/sh"];
    let id = world.docker_on(NODE, &[&run[..], &[&image, "-c", LINGERS]].concat()).await?;
    let id = id.trim();
    world.dns_answers(NODE, "lingering.service.consul", &["10.77.0.4"], seconds(5)).await?;
    let service = world.consul_service(NODE, "lingering").await?;
    let service_id = service["ServiceID"].as_str().context("an ID")?.to_owned();
    let stop = ["stop", "-t", "20", id];
    let gone = async {
        let checks = world.maintenance_begins(NODE, &service_id, seconds(4)).await?;
        let running = world.docker_on(NODE, &["inspect", "--format", "{{.State.Running}}", id]).await?;
        ensure!(running.trim() == "true", "its process was gone before");
        world.dns_answers(NODE, "lingering.service.consul", &[], seconds(1)).await?;
        Ok(checks)
    };
    let (_, noticed) = tokio::try_join!(world.docker_on(NODE, &stop), gone)?;
    let filters = ["--since", "1m", "--until", "0s", "--filter", "event=kill", "--format", "{{.TimeNano}}"];
    let container = format!("container={id}");
    let events = world.docker_on(NODE, &[&["events"][..], &filters, &["--filter", &container]].concat()).await?;
    let killed = events.lines().next().context("a kill event")?.parse::<i128>()?;
    let took = noticed - OffsetDateTime::from_unix_timestamp_nanos(killed)?;
    println!("kill event → maintenance: {took}");
    ensure!(took.whole_milliseconds() <= 300, "{took} after the kill event");
    world.docker_on(NODE, &["rm", "-f", id]).await?;
    world.dns_answers(NODE, "lingering.service.consul", &[], seconds(5)).await
}

pub async fn a_service_made_by_hand_is_registered_by_its_labels_once_per_node(world: &World) -> Result<()> {
    let image = world.image("1.0.0");
    let constraint = format!("node.hostname=={}", world.node(NODE).name());
    let create = ["service", "create", "--detach", "--name", "byhand", "--replicas", "2", "--constraint", &constraint];
    let told = ["--label", "SERVICE_NAME=mesh", "--label", "SERVICE_TAGS=blue", "--publish", "18090:8080", &image];
    world.docker(&[&create[..], &told].concat()).await?;
    // The leader looks at least every 30 s.
    world.dns_answers(1, "blue.mesh.service.consul", &["10.77.0.4"], seconds(60)).await?;
    let service = world.consul_service(NODE, "mesh").await?;
    ensure!(service["ServicePort"] == 18090, "{service}");
    let meta = &service["ServiceMeta"];
    ensure!(meta["service"] == "byhand" && meta["node"] == world.node(NODE).name(), "{meta}");
    // Labels change without a restart.
    world.docker(&["service", "update", "--detach", "--label-add", "SERVICE_TAGS=green", "byhand"]).await?;
    world.dns_answers(1, "green.mesh.service.consul", &["10.77.0.4"], seconds(60)).await?;
    world.docker(&["service", "rm", "byhand"]).await?;
    world.dns_answers(1, "mesh.service.consul", &[], seconds(30)).await
}

pub async fn a_drained_node_leaves_dns_before_its_tasks_move(world: &World) -> Result<()> {
    let image = world.image("1.0.0");
    let id = world.docker_on(NODE, &["run", "-d", "-p", "18085:8080", "-e", "SERVICE_NAME=drained", &image]).await?;
    world.dns_answers(NODE, "drained.service.consul", &["10.77.0.4"], seconds(5)).await?;
    let name = world.node(NODE).name().to_owned();
    let availability = async || world.docker(&["node", "inspect", &name, "--format", "{{.Spec.Availability}}"]).await;
    world.keeper_ok(&["drain", &name]).await?;
    world.dns_answers(NODE, "drained.service.consul", &[], seconds(5)).await?;
    ensure!(availability().await?.trim() == "active", "clients have had no time");
    let said = world.keeper_ok(&["drain", &name, "--wait"]).await?;
    ensure!(said.contains("nothing runs there any more"), "{said}");
    ensure!(availability().await?.trim() == "drain", "swarm was not told");
    world.keeper_ok(&["drain", &name, "--undo"]).await?;
    ensure!(availability().await?.trim() == "active", "it stays drained");
    world.agents_run(seconds(90)).await?;
    // The container is none of swarm's, and ran all the time.
    world.dns_answers(NODE, "drained.service.consul", &["10.77.0.4"], seconds(30)).await?;
    world.docker_on(NODE, &["rm", "-f", id.trim()]).await.map(drop)
}
