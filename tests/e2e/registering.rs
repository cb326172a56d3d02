//! Containers in Consul, asked for by DNS as any client would.

use std::time::Duration;

use anyhow::{Result, ensure};

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
