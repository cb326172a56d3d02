//! Who is to be woken by what.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::git::GitView;
use super::waiters::Waiters;
use crate::io::consul::Consul;
use crate::leader::{self, Leadership};

/// Turns what happened elsewhere into wake-ups of the right loop.
pub struct Relay {
    /// Where the leader is woken.
    pub consul: Consul,
    /// The cluster's name.
    pub cluster: String,
    /// This node's name.
    pub node: String,
    /// What we are.
    pub leadership: watch::Receiver<Leadership>,
    /// What git has.
    pub git: watch::Receiver<GitView>,
    /// The leader's loop.
    pub passes: Arc<Waiters>,
    /// The loop that fetches.
    pub fetches: Arc<Waiters>,
    /// Webhooks that this node saw.
    pub ours: mpsc::Receiver<()>,
    /// Nodes whose webhooks Consul told us of.
    pub others: mpsc::Receiver<String>,
}

impl Relay {
    /// Runs until `shutdown`, which comes after the last webhook was answered: what was accepted is passed on.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            // Every arm is cancel-safe: channels and watches keep what is not taken.
            tokio::select! {
                Ok(()) = self.leadership.changed() => self.passes.wake.notify_one(),
                Ok(()) = self.git.changed() => self.passes.wake.notify_one(),
                Some(from) = self.others.recv() => {
                    info!(from, "woken");
                    self.fetches.wake.notify_one();
                }
                Some(()) = self.ours.recv() => self.tell_leader().await,
                () = shutdown.cancelled() => break,
            }
        }
        if self.ours.try_recv().is_ok() {
            self.tell_leader().await;
        }
    }

    async fn tell_leader(&self) {
        let follows = matches!(*self.leadership.borrow(), Leadership::Follower { .. });
        if follows && let Err(error) = leader::wake::wake(&self.consul, &self.cluster, &self.node).await {
            warn!(%error, "the leader could not be woken; it will look by itself");
        }
    }
}
