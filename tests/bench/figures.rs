//! Figures: ours beside what a user would otherwise use, on the same lab in the same run, medians of five, the two sides in turn,
//! the same flags. Printed as a table and written to `target/bench.json` as a list of `{name, unit, ours, peer, ratio, goal, met}`.

// As in the end-to-end tests: a case fails by its error or a panic, every step of a case is awaited alike, and texts are built once.
// Figures are small numbers.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::unused_async,
    clippy::unused_self,
    clippy::format_push_string,
    clippy::needless_pass_by_value
)]

#[path = "../e2e/world/mod.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod world;

mod leading;
mod naming;
mod planning;

use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use tokio::process::Command;
use world::{PUSH, World, app, seconds};

/// Each figure is the median of so many measurements.
const ROUNDS: usize = 5;

/// Containers started for the time from start to DNS.
const STARTS: usize = 40;

/// Containers on the node whose agent's memory and CPU are measured.
const CONTAINERS: usize = 50;

/// How long the idle agent is watched.
const IDLE: Duration = Duration::from_mins(1);

/// Different images in a large stack.
const IMAGES: usize = 30;

#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    unit: &'static str,
    ours: f64,
    peer: Option<f64>,
    ratio: Option<f64>,
    goal: String,
    met: bool,
}

impl Figure {
    /// Against a peer: how many times faster we are to be.
    fn against(name: String, ours: f64, peer: f64, goal: f64) -> Self {
        let ratio = peer / ours;
        Self {
            name,
            unit: "s",
            ours,
            peer: Some(peer),
            ratio: Some(ratio),
            goal: format!("≥ {goal}×"),
            met: ratio >= goal,
        }
    }

    /// Against nothing else: a limit.
    fn within(name: &str, unit: &'static str, ours: f64, limit: f64) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            ours,
            peer: None,
            ratio: None,
            goal: format!("≤ {limit}"),
            met: ours <= limit,
        }
    }
}

/// `make bench` measures all; `cargo bench --profile dev --bench figures -- idle` measures one part.
#[tokio::main]
async fn main() -> Result<()> {
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let world = World::up().await?;
    let mut figures = Vec::new();
    let measured = measure(&world, part.as_deref(), &mut figures).await;
    if measured.is_err() {
        eprintln!("{}", world.evidence().await);
    }
    world.down(false).await;
    // What was measured before a failure is worth showing.
    print(&figures);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("bench.json"), serde_json::to_vec_pretty(&figures)?)?;
    measured
}

/// One part after another; those that disturb the agents come last.
async fn measure(world: &World, part: Option<&str>, figures: &mut Vec<Figure>) -> Result<()> {
    let wanted = |name: &str| {
        let wanted = part.is_none_or(|part| part == name);
        if wanted {
            eprintln!("measuring: {name}");
        }
        wanted
    };
    if wanted("deploy") {
        for (services, first, unchanged) in [(20, 2.0, 1.0), (100, 2.0, 1.0), (300, 2.0, 15.0)] {
            figures.extend(deploys(world, services, &[world.image("1.0.0")], (first, unchanged)).await?);
        }
    }
    if wanted("images") {
        let mut images = Vec::new();
        for number in 0..IMAGES {
            let tag = format!("bench{number}");
            world.push(&tag, &tag).await?;
            images.push(world.image(&tag));
        }
        figures.extend(deploys(world, 300, &images, (5.0, 15.0)).await?);
    }
    if wanted("plan") {
        figures.extend(planning::figures(world).await?);
    }
    if wanted("dns") {
        figures.extend(starts(world).await?);
    }
    if wanted("resync") {
        figures.extend(naming::unchanged(world).await?);
    }
    if wanted("thousand") {
        figures.push(naming::memory(world).await?);
    }
    if wanted("crowded") {
        figures.extend(naming::starts_among_neighbours(world).await?);
    }
    if wanted("push") {
        figures.push(push_to_write(world).await?);
    }
    if wanted("idle") {
        figures.extend(idle(world).await?);
    }
    if wanted("hand-over") {
        figures.push(leading::hand_over(world).await?);
    }
    if wanted("killed") {
        figures.push(leading::killed(world, "killed", 12.0).await?);
    }
    if wanted("lost") {
        figures.extend(leading::node_lost(world).await?);
    }
    if wanted("fast") {
        world.keepers_get("SWARMKEEPER_ELECTION=fast").await?;
        figures.push(leading::killed(world, "killed, `election: fast`", 3.5).await?);
    }
    if wanted("killed-swarm") {
        world.coordinate_by_the_swarm().await?;
        // A change from Consul waits until every leader there has surely stopped.
        world.somebody_leads(seconds(150)).await?;
        world.agents_run(seconds(90)).await?;
        figures.push(leading::killed(world, "killed, `coordination: swarm`", 15.0).await?);
    }
    Ok(())
}

/// A stack of so many services without replicas, with these images in turn.
fn services_file(services: usize, images: &[String]) -> String {
    let mut text = String::from("version: \"3.8\"\nservices:\n");
    for (number, image) in (0..services).zip(images.iter().cycle()) {
        text += &format!(
            "  s{number:03}:\n    image: {image}\n    environment: {{NUMBER: \"{number}\"}}\n    deploy: {{replicas: 0, endpoint_mode: dnsrr}}\n"
        );
    }
    text
}

/// First and unchanged deploys, by `docker stack deploy` and by `swarmkeeper deploy`, and how many times faster ours are to be. Both
/// resolve every image (`--resolve-image always`, the default) at the lab's registry.
async fn deploys(world: &World, services: usize, images: &[String], goals: (f64, f64)) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("compose.yml");
    std::fs::write(&file, services_file(services, images))?;
    let (mut first, mut unchanged) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for _ in 0..ROUNDS {
        for side in [0, 1] {
            first[side].push(timed(deploy(world, side, &file)).await?);
            unchanged[side].push(timed(deploy(world, side, &file)).await?);
            if side == 1 {
                let mark = world.mark();
                deploy(world, side, &file).await?;
                world.no_engine_writes(mark).await.context("an unchanged deploy of ours")?;
            }
            world.remove_bench().await?;
        }
    }
    let [peer_first, our_first] = first.map(median);
    let [peer_unchanged, our_unchanged] = unchanged.map(median);
    let (first_goal, unchanged_goal) = goals;
    let what = match images.len() {
        1 => format!("{services} services"),
        images => format!("{services} services, {images} images"),
    };
    Ok(vec![
        Figure::against(format!("first deploy, {what}"), our_first, peer_first, first_goal),
        Figure::against(format!("unchanged deploy, {what}"), our_unchanged, peer_unchanged, unchanged_goal),
    ])
}

/// One deploy: side 0 is Docker's CLI, side 1 ours. Both go through the recorded socket.
async fn deploy(world: &World, side: usize, file: &Path) -> Result<()> {
    let (program, arguments) = [
        (swarmkeeper_lab::docker_cli()?, ["stack", "deploy"].as_slice()),
        (env!("CARGO_BIN_EXE_swarmkeeper").into(), ["deploy", "--detach"].as_slice()),
    ][side]
        .clone();
    let mut command = Command::new(&program);
    command.args(arguments).arg("--compose-file").arg(file).arg("bench");
    command.env("DOCKER_HOST", world.recorded_engine(1)).env("DOCKER_CONFIG", world.docker_config());
    let output = command.output().await?;
    ensure!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// From the start of a container without HEALTHCHECK to the answer of Consul's DNS.
///
/// Consul's followers, which answer for themselves, learn of what the leader committed 50 to 100 ms later (the commit timeout of its
/// Raft library), whoever registers and however quickly. So both are shown.
async fn starts(world: &World) -> Result<Vec<Figure>> {
    let (leader, follower) = world.consul_leader_and_follower().await?;
    let (p50, p99) = starts_asked_at(world, leader).await?;
    let (late_p50, late_p99) = starts_asked_at(world, follower).await?;
    Ok(vec![
        Figure::within("start → DNS at Consul's leader, p50", "ms", p50, 50.0),
        Figure::within("start → DNS at Consul's leader, p99", "ms", p99, 250.0),
        Figure::within("start → DNS at a follower, p50", "ms", late_p50, 50.0),
        Figure::within("start → DNS at a follower, p99", "ms", late_p99, 250.0),
    ])
}

/// Median and 99th percentile, in milliseconds.
async fn starts_asked_at(world: &World, asked: usize) -> Result<(f64, f64)> {
    let mut times = Vec::new();
    for number in 0..STARTS {
        let (name, port) = (format!("start{asked}-{number}"), format!("{}:8080", 20_000 + number));
        let variable = format!("SERVICE_NAME={name}");
        let create = ["create", "-p", &port, "-e", &variable, &world.image("1.0.0")];
        let id = world.docker_on(4, &create).await?;
        times.push(world.start_to_dns(4, asked, id.trim(), &format!("{name}.service.consul")).await?);
        world.docker_on(4, &["rm", "-f", id.trim()]).await?;
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize] * 1000.0;
    Ok((at(0.5), at(0.99)))
}

async fn push_to_write(world: &World) -> Result<Figure> {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let stack = format!("pushed{round}");
        world.commit_quietly(&stack, &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
        let mark = world.mark();
        let began = world.now();
        world.webhook_at(2, "github", PUSH).await?;
        times.push(world.until_service_write(mark, began).await?);
        world.reaches(&stack, "ok", seconds(60)).await?;
    }
    Ok(Figure::within("push to webhook → first service write", "s", median(times), 1.0))
}

async fn idle(world: &World) -> Result<Vec<Figure>> {
    let mut started = Vec::new();
    for number in 0..CONTAINERS {
        let port = format!("{}:8080", 21_000 + number);
        let name = format!("SERVICE_NAME=idle{}", number % 5);
        started.push(world.docker_on(4, &["run", "-d", "-p", &port, "-e", &name, &world.image("1.0.0")]).await?);
    }
    tokio::time::sleep(seconds(15)).await;
    let before = cpu_seconds(&world.agent_proc(4, "stat").await?)?;
    let began = Instant::now();
    tokio::time::sleep(IDLE).await;
    let share = (cpu_seconds(&world.agent_proc(4, "stat").await?)? - before) / began.elapsed().as_secs_f64() * 100.0;
    let memory = resident_megabytes(&world.agent_proc(4, "status").await?, "VmRSS:")?;
    let remove: Vec<&str> = ["rm", "-f"].into_iter().chain(started.iter().map(|id| id.trim())).collect();
    world.docker_on(4, &remove).await?;
    Ok(vec![
        Figure::within("idle agent's memory, 50 containers", "MB", memory, 20.0),
        Figure::within("idle agent's CPU, 50 containers", "% of a core", share, 0.2),
    ])
}

async fn timed(work: impl Future<Output = Result<()>>) -> Result<f64> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// User and system time of a process, fields 14 and 15 of its `stat` in ticks of 10 ms.
fn cpu_seconds(stat: &str) -> Result<f64> {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}

/// A line of a process' `status`, in MB: `VmRSS:` is what of it is in memory, `VmHWM:` the most there ever was.
fn resident_megabytes(status: &str, line: &str) -> Result<f64> {
    let found = status.lines().find_map(|found| found.strip_prefix(line)).with_context(|| format!("no {line}"))?;
    let kilobytes: f64 = found.split_whitespace().next().context("no number")?.parse()?;
    Ok(kilobytes / 1024.0)
}

fn print(figures: &[Figure]) {
    println!("{:<44} {:>12} {:>12} {:>8} {:>9}", "", "ours", "peer", "ratio", "goal");
    for figure in figures {
        let peer = figure.peer.map(|peer| format!("{peer:.3}")).unwrap_or_default();
        let ratio = figure.ratio.map(|ratio| format!("{ratio:.1}×")).unwrap_or_default();
        let met = if figure.met { "" } else { "  NOT MET" };
        let ours = format!("{:.3} {}", figure.ours, figure.unit);
        println!("{:<44} {ours:>12} {peer:>12} {ratio:>8} {:>9}{met}", figure.name, figure.goal);
    }
}
