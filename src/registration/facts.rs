//! What the leader published of this node's services, and whether the node is being drained.
//!
//! One key, `generation`, is watched; when it moves, the keys of the services that run here are read again, and no others. What was
//! known stays known while Consul or the key is silent: missing facts change no entry.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use crate::io::consul::kv::{Freshness, Pair};
use crate::io::consul::{self, Consul};
use crate::spec::ServiceFacts;

/// Keys read at a time.
const READS_MAX: usize = 8;

/// Longest wait for all of them: while Consul elects, containers that stop or fall ill are more urgent.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one blocking query waits.
const WATCH_WAIT: Duration = Duration::from_mins(5);

/// The pause after a failed look, and while the key is missing: a blocking query on a missing key answers at every unrelated write.
const WATCH_RETRY: Duration = Duration::from_secs(5);

/// Where the leader publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactKeys {
    /// Begins the keys of the services.
    pub services: String,
    /// Moves whenever something is published.
    pub generation: String,
    /// This node's drain, while there is one.
    pub drain: String,
}

/// Why it is not known what the leader publishes.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// Consul takes its time.
    #[error("what the leader publishes was not read within {} s", READ_TIMEOUT.as_secs())]
    Late,
    /// Consul failed.
    #[error("what the leader publishes cannot be read: {0}")]
    Consul(#[from] consul::Error),
}

/// What is known.
#[derive(Debug, Default)]
pub struct Facts {
    /// By the service's name; none where the leader has published nothing.
    known: BTreeMap<String, Option<ServiceFacts>>,
    draining: bool,
    fresh: bool,
}

impl Facts {
    /// Something was published: what is known is read again.
    pub fn outdated(&mut self) {
        self.fresh = false;
    }

    /// Reads what is not known of `services` and, after news, everything again. A failure leaves what was known, and is the answer.
    pub async fn refresh(
        &mut self,
        consul: &Consul,
        keys: &FactKeys,
        services: BTreeSet<String>,
    ) -> Result<(), Unread> {
        let fresh = std::mem::replace(&mut self.fresh, true);
        self.known.retain(|name, _| services.contains(name));
        let open = services.into_iter().filter(|name| !fresh || !self.known.contains_key(name)).collect();
        let read = tokio::time::timeout(READ_TIMEOUT, self.read(consul, keys, open, !fresh)).await;
        let result = read.unwrap_or(Err(Unread::Late));
        self.fresh = result.is_ok();
        result
    }

    async fn read(&mut self, consul: &Consul, keys: &FactKeys, open: Vec<String>, drain: bool) -> Result<(), Unread> {
        let reads =
            open.into_iter().map(|name| read_one(consul.clone(), keys.services.clone(), name)).collect::<Vec<_>>();
        let mut answers = stream::iter(reads).buffer_unordered(READS_MAX);
        while let Some((name, pair)) = answers.next().await {
            let facts = pair?.and_then(|pair| serde_json::from_slice(&pair.value).ok());
            let before = self.known.entry(name).or_default();
            // A key that is gone or cannot be read tells nothing.
            *before = facts.or(before.take());
        }
        if drain {
            self.draining = consul.kv_get(&keys.drain, Freshness::Default).await?.is_some();
        }
        Ok(())
    }

    /// What is known of a service.
    pub fn of(&self, service: &str) -> Option<&ServiceFacts> {
        self.known.get(service)?.as_ref()
    }

    /// True while this node is being drained.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// For tests: the facts of these services.
    #[cfg(test)]
    pub(super) fn made_up(services: &[(&str, ServiceFacts)], draining: bool) -> Self {
        let known = services.iter().map(|(name, facts)| ((*name).to_owned(), Some(facts.clone()))).collect();
        Self { known, draining, fresh: true }
    }
}

async fn read_one(consul: Consul, prefix: String, name: String) -> (String, Result<Option<Pair>, consul::Error>) {
    let pair = consul.kv_get(&format!("{prefix}{name}"), Freshness::Default).await;
    (name, pair)
}

/// Waits for news of the leader.
pub struct News {
    consul: Consul,
    key: String,
    seen: Option<Vec<u8>>,
    next: BoxFuture<'static, Look>,
}

/// What a look brought: the next index and the value, or nothing.
type Look = (u64, Option<Option<Pair>>);

impl News {
    /// Looks at `generation` through `consul`.
    pub fn new(consul: Consul, generation: String) -> Self {
        let next = look(consul.clone(), generation.clone(), 0);
        Self { consul, key: generation, seen: None, next }
    }

    /// Ends when the leader has published something since the last call. Cancel-safe: the request under way is kept.
    pub async fn next(&mut self) {
        loop {
            let (index, found) = (&mut self.next).await;
            self.next = look(self.consul.clone(), self.key.clone(), index);
            let Some(value) = found.map(|pair| pair.map(|pair| pair.value)) else { continue };
            if value != self.seen {
                self.seen = value;
                return;
            }
        }
    }
}

fn look(consul: Consul, key: String, index: u64) -> BoxFuture<'static, Look> {
    async move {
        match consul.kv_watch(&key, index, WATCH_WAIT).await {
            Ok(seen) if seen.now.is_some() => (seen.index, Some(seen.now)),
            Ok(_) => {
                tokio::time::sleep(WATCH_RETRY).await;
                (0, Some(None))
            }
            Err(_) => {
                tokio::time::sleep(WATCH_RETRY).await;
                (0, None)
            }
        }
    }
    .boxed()
}
