//! Who is to be woken by what.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::git::GitView;
use super::waiters::Waiters;
use crate::http::ClusterToken;
use crate::io::consul::Consul;
use crate::io::keeper;
use crate::leader::{self, Leadership};
use crate::status::Command;

/// Turns what happened elsewhere into wake-ups of the right loop.
pub struct Relay {
    /// How the leader is woken.
    pub road: Road,
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
    /// Nodes whose webhooks Consul told us of; nothing, where the lock is in the swarm.
    pub others: mpsc::Receiver<String>,
}

/// How a follower's wake-up reaches the leader.
pub enum Road {
    /// Through Consul's KV, which the leader watches.
    Consul {
        /// This node's agent.
        consul: Consul,
        /// The cluster's name.
        cluster: String,
        /// This node's name.
        node: String,
    },
    /// Through the leader's API, at the address in its lock.
    Api {
        /// What keepers of this cluster show each other.
        token: ClusterToken,
        /// By which the leader's certificate is trusted.
        ca_file: Option<PathBuf>,
    },
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

    /// A wake-up that reaches nobody is not lost: a new leader looks by itself.
    async fn tell_leader(&self) {
        let Leadership::Follower { leader } = self.leadership.borrow().clone() else { return };
        let told = match &self.road {
            Road::Consul { consul, cluster, node } => {
                leader::wake::wake(consul, cluster, node).await.map_err(|error| error.to_string())
            }
            Road::Api { token, ca_file } => match leader {
                Some(leader) => {
                    let told = tell_by_api(&leader.address, token, ca_file.as_deref()).await;
                    told.map_err(|error| error.to_string())
                }
                None => Err("nobody leads at the moment".to_owned()),
            },
        };
        if let Err(error) = told {
            warn!(error, "the leader could not be woken; it will look by itself");
        }
    }
}

async fn tell_by_api(address: &str, token: &ClusterToken, ca_file: Option<&Path>) -> Result<(), keeper::Error> {
    keeper::Keeper::trusting(address, token(), ca_file)?.command(&Command::Wake).await.map(drop)
}
