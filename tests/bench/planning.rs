//! What planning costs: time inside one process, and memory of our command line.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use swarmkeeper::compose::{self, Input, Mode, SourceFile};
use swarmkeeper::io::swarm::{Options, Swarm};
use swarmkeeper::model::{DesiredStack, StackName, StackSettings};
use swarmkeeper::stacks::{self, Observed, Pass, Plan};
use time::OffsetDateTime;
use tokio::process::Command;

use super::world::World;
use super::{Figure, ROUNDS, deploy, median, resident_megabytes, services_file};

/// Services whose planning is timed.
const TIMED: usize = 300;

/// Services that are planned while memory is watched.
const WATCHED: usize = 1_000;

/// Between two looks at a process' memory; what counts is its high-water mark.
const LOOK_EVERY: Duration = Duration::from_millis(1);

pub async fn figures(world: &World) -> Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("compose.yml");
    let images = [world.image("1.0.0")];
    let text = services_file(TIMED, &images);
    std::fs::write(&file, &text)?;
    let first = timed_plan(&text, &Observed::default(), stacks::Policy::default(), TIMED)?;
    deploy(world, 1, &file).await?;
    let swarm = Swarm::connect(&Options { host: world.recorded_engine(1), gate: None }).await?;
    let observed = stacks::observe(&swarm).await?;
    let as_the_cli = stacks::Policy { mode: stacks::plan::Mode::Deploy { prune: false }, ..stacks::Policy::default() };
    let unchanged = timed_plan(&text, &observed, as_the_cli, 0)?;

    std::fs::write(&file, services_file(WATCHED, &images))?;
    let fresh = memory_of_planning(world, &file).await?;
    deploy(world, 1, &file).await?;
    let against_live = memory_of_planning(world, &file).await?;
    world.remove_bench().await?;
    Ok(vec![
        Figure::within("parse + convert + plan, 300 new services", "ms", first, 30.0),
        Figure::within("parse + convert + plan, 300 unchanged services", "ms", unchanged, 30.0),
        Figure::within("memory of planning 1,000 services", "MB", fresh.max(against_live), 100.0),
    ])
}

/// Milliseconds from the text to the plan, whose service changes are counted.
fn timed_plan(text: &str, observed: &Observed, policy: stacks::Policy, changes: usize) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let plan = plan(text, observed, &policy)?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        let services = plan.changes.iter().filter(|change| change.name.starts_with("bench_s")).count();
        ensure!(services == changes, "{plan}");
    }
    Ok(median(times))
}

fn plan(text: &str, observed: &Observed, policy: &stacks::Policy) -> Result<Plan> {
    let stack = StackName::new("bench").context("a name")?;
    let loaded = compose::load(&Input {
        files: &[SourceFile { name: "compose.yml".into(), text: text.into() }],
        stack: &stack,
        environment: &BTreeMap::new(),
        read_file: &|_| Ok(None),
        folder: None,
        mode: Mode::Strict,
    })
    .map_err(|findings| anyhow!("{findings}"))?;
    let (objects, warnings) = (loaded.objects, loaded.warnings);
    let desired = [DesiredStack { name: stack, revision: None, settings: StackSettings::default(), objects, warnings }];
    let images = desired[0].objects.services.values().map(|service| {
        let text = service.spec.task_template.container_spec.image.clone();
        let digest = format!("{text}@sha256:{:064}", 0);
        (text, Ok(stacks::state::Image { image: digest, platforms: Vec::new() }))
    });
    // What is live keeps its digest when nobody has asked for another.
    let images = if observed.services.is_empty() { images.collect() } else { stacks::Resolutions::new() };
    let mut plans = stacks::plan_all(&Pass {
        desired: &desired,
        broken: &BTreeMap::new(),
        held: &BTreeMap::new(),
        observed,
        images: &images,
        secrets: &BTreeMap::new(),
        key: &stacks::Key::random()?,
        now: OffsetDateTime::now_utc(),
        policy,
    });
    plans.pop().context("no plan")
}

/// The most memory, in MB, that `swarmkeeper plan` had.
async fn memory_of_planning(world: &World, file: &Path) -> Result<f64> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_swarmkeeper"))
        .args(["plan", "--compose-file"])
        .arg(file)
        .arg("bench")
        .env("DOCKER_HOST", world.recorded_engine(1))
        .env("DOCKER_CONFIG", world.docker_config())
        .stdout(Stdio::null())
        .spawn()?;
    let status = format!("/proc/{}/status", child.id().context("it has ended")?);
    let mut most: f64 = 0.0;
    loop {
        let looked = std::fs::read_to_string(&status).ok().and_then(|text| resident_megabytes(&text, "VmHWM:").ok());
        most = most.max(looked.unwrap_or_default());
        if let Ok(ended) = tokio::time::timeout(LOOK_EVERY, child.wait()).await {
            let code = ended?.code();
            ensure!(matches!(code, Some(0 | 2)), "plan ended with {code:?}");
            return Ok(most);
        }
    }
}
