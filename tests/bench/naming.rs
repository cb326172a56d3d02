//! What registration costs with a thousand services, and how soon a start is in DNS on a full node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use swarmkeeper::io::consul::agent::{CheckDefinition, Probe, Registration};
use swarmkeeper::io::consul::{Consul, Options as At};
use swarmkeeper::io::docker::Health;
use swarmkeeper::registration::{FactKeys, Options, Registrar, Role, Rules, SelfState, remove_own};
use tokio_util::sync::CancellationToken;

use self::engine::{FakeEngine, container};
use super::world::{World, seconds};
use super::{Figure, ROUNDS, median, starts_asked_at};

#[path = "../registration/engine.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "the tests of registration use the rest, and fail by a panic")]
mod engine;

const SERVICES: usize = 1_000;

/// The node whose Consul and agent are measured.
const NODE: usize = 4;

/// Containers beside the one that starts.
const NEIGHBOURS: u16 = 100;

/// Containers started at the same time.
const AT_ONCE: usize = 4;

/// Containers that stand for a thousand services: each has so many ports, and no proxy of the engine's for them.
const CONTAINERS: usize = 10;

/// Passes until everything is registered and nothing is left to say.
const PASSES_MAX: usize = 200;

/// A thousand services of one node that have not changed: a pass of ours, and as registrator does it, which registers each anew.
pub async fn unchanged(world: &World) -> Result<Vec<Figure>> {
    let consul = Consul::new(At { address: world.consul_unrecorded(NODE), ..At::default() })?;
    let engine = FakeEngine::default();
    for (number, port) in (0..SERVICES).zip(10_000..) {
        let made = container(&format!("bench{number}"), port).label("SERVICE_NAME", &format!("bench{}", number % 100));
        engine.put(made.label("SERVICE_TAGS", "a,b").health(Health::Healthy));
    }
    let mut registrar = Registrar::new(options(), engine, consul.clone());
    let measured = passes_and_blind_ones(&mut registrar, &consul).await;
    remove_own(&consul, OWNER).await?;
    let (ours, blind) = measured?;
    Ok(vec![
        Figure::within("unchanged re-sync, 1,000 services", "ms", ours * 1000.0, 100.0),
        Figure::against("re-sync against registering anew, 1,000 services".to_owned(), ours, blind, 10.0),
    ])
}

/// Medians in seconds, the two in turn.
async fn passes_and_blind_ones(registrar: &mut Registrar<FakeEngine>, consul: &Consul) -> Result<(f64, f64)> {
    let (mut ours, mut blind) = (Vec::new(), Vec::new());
    let now = Instant::now();
    for _ in 0..ROUNDS {
        // Also mends what registering anew has done to the checks.
        settle(registrar, now).await?;
        let began = Instant::now();
        let written = pass(registrar, now).await?;
        ours.push(began.elapsed().as_secs_f64());
        ensure!(written == 0, "{written} writes in an unchanged pass");
        let registrations = registrations(consul).await?;
        ensure!(registrations.len() == SERVICES, "{} are registered", registrations.len());
        let began = Instant::now();
        for registration in &registrations {
            consul.register_service(registration).await?;
        }
        blind.push(began.elapsed().as_secs_f64());
    }
    Ok((median(ours), median(blind)))
}

async fn settle(registrar: &mut Registrar<FakeEngine>, now: Instant) -> Result<()> {
    for _ in 0..PASSES_MAX {
        if pass(registrar, now).await? == 0 {
            return Ok(());
        }
    }
    anyhow::bail!("there is always more to write")
}

/// The number of its writes.
async fn pass(registrar: &mut Registrar<FakeEngine>, now: Instant) -> Result<usize> {
    let well = SelfState { role: Role::Worker, leader: false, engine: Ok(()), agent: Ok(()), stacks: BTreeMap::new() };
    let outcome = registrar.pass(&well, now, &CancellationToken::new()).await?;
    Ok(outcome.written + outcome.repeated)
}

/// What the bench has registered, with a check each, as one would send it again.
async fn registrations(consul: &Consul) -> Result<Vec<Registration>> {
    let services = consul.agent_services().await?;
    let ours = services.into_values().filter(|service| service.name.starts_with("bench"));
    ours.map(|service| {
        let check = CheckDefinition {
            id: format!("{}:health", service.id),
            name: "HEALTHCHECK".to_owned(),
            notes: String::new(),
            status: None,
            probe: Probe::Ttl { ttl: "900s".to_owned() },
            deregister_critical_service_after: None,
        };
        let address = service.address.parse().with_context(|| service.address.clone())?;
        let (id, name, tags, meta, port) = (service.id, service.name, service.tags, service.meta, service.port);
        Ok(Registration { id, name, tags, meta, port, address, checks: vec![check] })
    })
    .collect()
}

const OWNER: &str = "bench";

fn options() -> Options {
    Options {
        node: "bench".to_owned(),
        owner: OWNER.to_owned(),
        cluster: "bench".to_owned(),
        node_address: Some([10, 77, 0, 4].into()),
        rules: Rules::default(),
        http_port: 9,
        facts: FactKeys {
            services: "bench/services/".to_owned(),
            generation: "bench/generation".to_owned(),
            drain: "bench/drain".to_owned(),
        },
        disk: None,
    }
}

/// What the agent on a node needs more for a thousand services, all of its caches filled.
pub async fn memory(world: &World) -> Result<Figure> {
    let image = world.image("1.0.0");
    let before = resident_megabytes(world).await?;
    let per_container = SERVICES / CONTAINERS;
    let mut started = Vec::new();
    for number in 0..CONTAINERS {
        let first = 30_000 + number * 1_000;
        let expose = format!("--expose={first}-{}", first + per_container - 1);
        let name = format!("SERVICE_NAME=many{number}");
        // The image's own port is one more.
        let run = ["run", "-d", "--network", "host", &expose, "-e", &name, "-e", "SERVICE_8080_IGNORE=1"];
        started.push(world.docker_on(NODE, &[&run[..], &["--entrypoint", "/bin/sleep", &image, "1h"]].concat()).await?);
    }
    let registered = world.registered_at_least(NODE, "many", SERVICES, seconds(120)).await;
    // A few passes more.
    tokio::time::sleep(seconds(30)).await;
    let after = resident_megabytes(world).await?;
    remove(world, &started).await?;
    registered?;
    Ok(Figure::within("memory per 1,000 registered services", "MB", after - before, 5.0))
}

async fn resident_megabytes(world: &World) -> Result<f64> {
    let status = world.agent_proc(NODE, "status").await?;
    super::resident_megabytes(&status, "VmRSS:")
}

/// As the part `dns`, on a node that has its hands full.
pub async fn starts_among_neighbours(world: &World) -> Result<Vec<Figure>> {
    let (leader, _) = world.consul_leader_and_follower().await?;
    let image = world.image("1.0.0");
    let mut started = Vec::new();
    let ports: Vec<u16> = (22_000..22_000 + NEIGHBOURS).collect();
    for ports in ports.chunks(AT_ONCE) {
        let run = |port: &u16| {
            let (port, name) = (format!("{port}:8080"), format!("SERVICE_NAME=neighbour{}", port % 10));
            let image = &image;
            async move { world.docker_on(NODE, &["run", "-d", "-p", &port, "-e", &name, image]).await }
        };
        started.extend(try_join_all(ports.iter().map(run)).await?);
    }
    world.registered_at_least(NODE, "neighbour", usize::from(NEIGHBOURS), seconds(60)).await?;
    let measured = starts_asked_at(world, leader).await;
    remove(world, &started).await?;
    let (p50, p99) = measured?;
    Ok(vec![
        Figure::within("start → DNS among 100 containers, p50", "ms", p50, 50.0),
        Figure::within("start → DNS among 100 containers, p99", "ms", p99, 250.0),
    ])
}

async fn remove(world: &World, containers: &[String]) -> Result<()> {
    let words: Vec<&str> = ["rm", "-f"].into_iter().chain(containers.iter().map(|id| id.trim())).collect();
    world.docker_on(NODE, &words).await?;
    // The agent has seen it.
    tokio::time::sleep(Duration::from_secs(5)).await;
    Ok(())
}
