//! What goes on all the while: commits to stacks, and containers that come and go.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use super::world::{World, app, seconds};

/// Stacks that commits change.
const STACKS: usize = 4;

/// Between two commits.
const COMMIT_EVERY: Duration = Duration::from_secs(4);

/// Between two containers.
const CHURN_EVERY: Duration = Duration::from_secs(2);

/// So many containers beside the stacks' live at once.
const CONTAINERS_MAX: usize = 8;

/// Stacks, and the last commit's number of each.
pub struct Load {
    last: Mutex<BTreeMap<String, u64>>,
}

impl Load {
    /// Commits the stacks, and waits until they run.
    pub async fn begin(world: &World) -> Result<Self> {
        let load = Self { last: Mutex::default() };
        for number in 0..STACKS {
            let stack = format!("storm{number}");
            world.commit(&stack, &[("compose.yml", Some(&file(0)))]).await?;
            load.note(&stack, 0);
        }
        for stack in load.last().keys() {
            world.reaches(stack, "ok", seconds(90)).await?;
        }
        Ok(load)
    }

    /// The number that each stack's last commit has.
    pub fn last(&self) -> BTreeMap<String, u64> {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn note(&self, stack: &str, number: u64) {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(stack.to_owned(), number);
    }

    /// Commits until told to stop; a webhook that nobody takes is lost, as in life. Gives the number of commits.
    pub async fn commits(&self, world: &World, seed: u64, stop: &CancellationToken) -> Result<u64> {
        let mut rng = Rng::with_seed(seed ^ 1);
        let mut number = 0;
        while stop.run_until_cancelled(tokio::time::sleep(COMMIT_EVERY)).await.is_some() {
            number += 1;
            let stack = format!("storm{}", rng.usize(..STACKS));
            world.commit_quietly(&stack, &[("compose.yml", Some(&file(number)))]).await?;
            self.note(&stack, number);
            // Nobody may be there to take it; then the next one, or the next look at git, brings this commit too.
            let _ = tokio::time::timeout(seconds(3), world.webhook_somewhere()).await;
        }
        Ok(number)
    }
}

/// A stack whose service says which commit made it.
fn file(number: u64) -> String {
    app("1.0.0", &format!("    environment: {{COMMIT: \"{number}\"}}\n"), "")
}

/// Starts and removes containers with names in Consul until told to stop. An engine that is down is left alone.
pub async fn churn(world: &World, seed: u64, stop: &CancellationToken) {
    let mut rng = Rng::with_seed(seed ^ 2);
    let mut alive: Vec<(usize, String)> = Vec::new();
    let mut number = 0;
    while stop.run_until_cancelled(tokio::time::sleep(CHURN_EVERY)).await.is_some() {
        number += 1;
        let (node, port) = (rng.usize(1..=4), 22_000 + number % 5_000);
        let (publish, name) = (format!("{port}:8080"), format!("SERVICE_NAME=churn{}", rng.u8(..3)));
        let image = world.image("1.0.0");
        let run = ["run", "-d", "--label", "churn=1", "-p", &publish, "-e", &name, &image];
        if let Ok(Ok(id)) = tokio::time::timeout(seconds(10), world.docker_on(node, &run)).await {
            alive.push((node, id.trim().to_owned()));
        }
        if alive.len() > CONTAINERS_MAX {
            let (node, id) = alive.swap_remove(rng.usize(..alive.len()));
            let _ = tokio::time::timeout(seconds(10), world.docker_on(node, &["rm", "-f", &id])).await;
        }
    }
}
