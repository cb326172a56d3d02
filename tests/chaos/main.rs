//! Faults, drawn by a seed, on the real lab, under a continuous load of commits and of containers that come and go.
//!
//!     make chaos                         30 faults in at most 12 minutes
//!     SEED=7 MINUTES=90 make chaos       the same faults in the same order, for as long
//!     PREVIOUS=./swarmkeeper make chaos  with the agent of one manager from another binary of ours, such as the last release
//!
//! `faults` does and mends them, `load` goes on meanwhile, `burst` is the one fault with a story of its own.
//!
//! When the time is over everything is mended, a minute of quiet follows, and then what must be true is checked (`checks`): the
//! swarm is as the branch's head says, what runs is what Consul knows, nothing of a stranger's was touched, and the recorders saw no
//! write that breaks the promises of `swarmkeeper::leader` (`history`).
//!
//! There is no earlier release to be found by itself, so two versions run side by side only with `PREVIOUS`; then they do from the first
//! fault to the last, and every promise is to hold for both.

// As in the end-to-end tests: a case fails by its error or a panic.
#![allow(
    clippy::expect_used,
    clippy::unused_async,
    clippy::unused_self,
    clippy::format_push_string,
    clippy::needless_pass_by_value
)]

mod burst;
mod checks;
mod faults;
mod history;
mod load;
#[path = "../e2e/world/mod.rs"]
#[expect(dead_code, reason = "the end-to-end tests use the rest")]
mod world;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use history::Leaders;
use tokio_util::sync::CancellationToken;
use world::{World, seconds};

/// So many faults, unless `MINUTES` says how long instead.
const FAULTS: usize = 30;

/// So long at most for those.
const MINUTES: u64 = 12;

/// After the faults nothing is done for so long before anything is checked.
const QUIET: Duration = Duration::from_mins(1);

/// The end of the last fault leaves so much of the time for mending and the quiet.
const RESERVE: Duration = Duration::from_mins(2);

/// The manager whose agent is of the previous version, if there is one.
const PREVIOUS_NODE: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test` asks every test target for its list.
    if std::env::args().any(|argument| argument == "--list") {
        return Ok(());
    }
    let minutes: Option<u64> = variable("MINUTES")?;
    let seed = variable("SEED")?.unwrap_or_else(|| fastrand::u64(..10_000));
    println!("SEED={seed}");
    let began = Instant::now();
    let world = World::up_with_small_disks().await?;
    let outcome = storm(&world, seed, minutes, began).await;
    if outcome.is_err() {
        eprintln!("{}", world.evidence().await);
    }
    world.down(outcome.is_err() && std::env::var_os("LAB_KEEP").is_some()).await;
    outcome.with_context(|| format!("SEED={seed}"))
}

/// A number from the environment.
fn variable(name: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else { return Ok(None) };
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).with_context(|| format!("{name}={text}: a number"))
}

async fn storm(world: &World, seed: u64, minutes: Option<u64>, began: Instant) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let previous = std::env::var_os("PREVIOUS").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(binary) = &previous {
        world.manager_runs(PREVIOUS_NODE, binary).await?;
        println!("node {PREVIOUS_NODE} runs {}", binary.display());
    }
    let before = checks::Before::make(world).await?;
    let load = load::Load::begin(world).await?;
    let mark = world.mark();
    let stop = CancellationToken::new();
    let deadline = began + Duration::from_mins(minutes.unwrap_or(MINUTES)).saturating_sub(RESERVE);
    let count = if minutes.is_some() { usize::MAX } else { FAULTS };
    let faults = async {
        let done = faults::inflict(world, &mut rng, count, deadline).await;
        stop.cancel();
        done
    };
    let (done, commits, ()) = tokio::join!(faults, load.commits(world, seed, &stop), load::churn(world, seed, &stop));
    let done = done?;
    let commits = commits?;
    println!("{done} faults in {}; {commits} commits", humantime::format_duration(seconds(began.elapsed().as_secs())));
    ensure!(minutes.is_some() || done == FAULTS, "{done} faults in the time, {FAULTS} are wanted");

    faults::mend(world).await?;
    tokio::time::sleep(QUIET).await;
    checks::swarm_is_as_head_says(world, &load).await?;
    checks::what_runs_is_registered(world).await?;
    before.is_untouched(world).await?;
    let record = world.recorded(mark)?;
    let leaders = if previous.is_some() { Leaders::Mixed } else { Leaders::Ours };
    for line in history::judge(&record, leaders)? {
        println!("{line}");
    }
    Ok(())
}
