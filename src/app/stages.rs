//! The agent's loops, and the order in which they end.

use anyhow::{Result, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;

/// What ends in which order.
#[derive(Default)]
pub struct Stages {
    /// What deploys.
    pub work: CancellationToken,
    /// What holds the lock.
    pub lead: CancellationToken,
    /// What registers.
    pub register: CancellationToken,
    /// The API.
    pub serve: CancellationToken,
    /// Everything else.
    pub rest: CancellationToken,
}

impl Stages {
    /// Ends all loops in their order.
    pub async fn drain(&self, config: &Config, loops: &mut Loops) {
        end(&self.work, WORK, config, loops).await;
        self.sign_off(config, loops).await;
        end(&self.register, REGISTER, config, loops).await;
        end(&self.serve, SERVE, config, loops).await;
        end(&self.rest, &[], config, loops).await;
        info!("agent stopped");
    }

    /// Ends all that deploys or registers, and goes on holding the lock.
    pub async fn stop_working(&self, config: &Config, loops: &mut Loops) {
        end(&self.work, WORK, config, loops).await;
        end(&self.register, REGISTER, config, loops).await;
    }

    /// Gives the lock back.
    pub async fn sign_off(&self, config: &Config, loops: &mut Loops) {
        end(&self.lead, LEAD, config, loops).await;
    }
}

/// The loops of each stage but the last, which has all others.
const WORK: &[&str] = &["keeper", "git"];
/// See [`WORK`].
const LEAD: &[&str] = &["candidate", "wakes"];
/// See [`WORK`].
const REGISTER: &[&str] = &["registration"];
/// See [`WORK`].
const SERVE: &[&str] = &["http"];

/// Ends one stage and waits for its loops, all that are left without names, as long as the grace allows.
async fn end(stage: &CancellationToken, names: &[&str], config: &Config, loops: &mut Loops) {
    stage.cancel();
    if tokio::time::timeout(config.shutdown_grace, loops.ended(names)).await.is_err() {
        warn!(grace = ?config.shutdown_grace, running = ?loops.running, "not finished in time");
    }
}

/// The long-lived tasks by name.
#[derive(Default)]
pub struct Loops {
    tasks: JoinSet<&'static str>,
    running: Vec<&'static str>,
}

impl Loops {
    /// Runs `work` until it ends.
    pub fn spawn(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.running.push(name);
        self.tasks.spawn(async move {
            work.await;
            name
        });
    }

    /// Waits for `shutdown`, or for an essential loop that ends by itself, which is an error.
    pub async fn watch(&mut self, shutdown: &CancellationToken) -> Result<()> {
        loop {
            // Cancel-safe: `join_next` keeps what it has not given out.
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                ended = self.tasks.join_next() => match ended {
                    Some(Ok("signals")) => self.running.retain(|name| *name != "signals"),
                    Some(Ok(name)) if !shutdown.is_cancelled() => {
                        self.running.retain(|running| *running != name);
                        bail!("the {name} loop ended");
                    }
                    Some(Ok(name)) => self.running.retain(|running| *running != name),
                    Some(Err(error)) => bail!("a loop ended: {error}"),
                    None => bail!("no loop runs"),
                },
            }
        }
    }

    /// Waits until the named loops have ended; all of them without a name, `signals` aside.
    async fn ended(&mut self, names: &[&str]) {
        let waits_for = |name: &str| if names.is_empty() { name != "signals" } else { names.contains(&name) };
        while self.running.iter().any(|name| waits_for(name)) {
            match self.tasks.join_next().await {
                Some(Ok(name)) => self.running.retain(|running| *running != name),
                // A panic says no name; what is left ends with the process.
                Some(Err(_)) => {}
                None => return,
            }
        }
    }
}
