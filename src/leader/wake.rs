//! Wake-ups: a node that was told something, such as a webhook, tells the leader to look.
//!
//! Each node counts up `wake` in its own key, which nobody else writes; the leader watches all of them and compares the counters, so
//! that other news in those keys wakes nobody. A wake-up says only *look*: what there is to see, every pass observes for itself.
//! One that arrives while nobody leads is not lost, because a new leader looks anyway.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::consul::WATCH_WAIT;
use super::{Keys, Leadership};
use crate::io::consul::kv::{Freshness, Pair};
use crate::io::consul::{Consul, Error};

/// The schema number of a node's key.
const SCHEMA: u32 = 1;

/// How often a write is tried when the node's other reports come between.
const ATTEMPTS_MAX: usize = 5;

/// The pause after a failed look at the nodes' keys.
const RETRY: Duration = Duration::from_secs(1);

/// Wakes the leader on behalf of `node`. Unknown fields of the key survive.
pub async fn wake(consul: &Consul, cluster: &str, node: &str) -> Result<(), Error> {
    edit(consul, cluster, node, |fields| {
        let count = counter(fields).wrapping_add(1);
        fields.insert("wake".to_owned(), count.into());
    })
    .await
}

/// Makes `node`'s key, if there is none: a blocking query on keys that do not exist answers at every unrelated write.
pub async fn prepare(consul: &Consul, cluster: &str, node: &str) -> Result<(), Error> {
    let key = Keys::new(cluster).node(node);
    if consul.kv_get(&key, Freshness::Default).await?.is_none() {
        // `edit` writes the schema number, which is all there is to say.
        edit(consul, cluster, node, |_| {}).await?;
    }
    Ok(())
}

/// While we lead, sends the name of every node that wakes us into `wakes`, until `shutdown`.
///
/// `wakes` may have a capacity of one: while it is full, a wake-up is on its way already.
pub async fn run(
    consul: Consul,
    cluster: String,
    node: String,
    mut leadership: watch::Receiver<Leadership>,
    wakes: mpsc::Sender<String>,
    shutdown: CancellationToken,
) {
    let work = async {
        let leads = |now: &Leadership| !matches!(now, Leadership::Follower { .. });
        while leadership.wait_for(leads).await.is_ok() {
            tokio::select! {
                // Cancel-safe: a pass keeps nothing that the next one does not read again.
                () = watch_nodes(&consul, &cluster, &node, &wakes) => return,
                ended = leadership.wait_for(|now| !leads(now)) => if ended.is_err() { return },
            }
        }
    };
    shutdown.run_until_cancelled(work).await;
}

/// Ends only when nobody listens any more.
async fn watch_nodes(consul: &Consul, cluster: &str, node: &str, wakes: &mpsc::Sender<String>) {
    let prefix = Keys::new(cluster).nodes();
    let mut known: Option<BTreeMap<String, u64>> = None;
    let mut index = 0;
    let mut failing = false;
    while !wakes.is_closed() {
        let seen = match prepare(consul, cluster, node).await {
            Ok(()) => consul.kv_watch_list(&prefix, index, WATCH_WAIT).await,
            Err(error) => Err(error),
        };
        match seen {
            Ok(seen) => {
                failing = false;
                index = seen.index;
                let now = counters(&prefix, &seen.now);
                for node in known.as_ref().map(|before| woken(before, &now)).unwrap_or_default() {
                    // Full: somebody is about to look, and will see this as well.
                    let _ = wakes.try_send(node);
                }
                known = Some(now);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!(%error, "wake-ups of other nodes cannot be seen; trying again");
                }
                sleep(RETRY).await;
            }
        }
    }
}

/// The nodes whose counter changed; a node that is new has woken us if it has counted at all.
fn woken(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Vec<String> {
    let changed = |(node, count): &(&String, &u64)| before.get(*node).copied().unwrap_or_default() != **count;
    now.iter().filter(changed).map(|(node, _)| node.clone()).collect()
}

fn counters(prefix: &str, pairs: &[Pair]) -> BTreeMap<String, u64> {
    let one = |pair: &Pair| Some((pair.key.strip_prefix(prefix)?.to_owned(), counter(&fields(&pair.value))));
    pairs.iter().filter_map(one).collect()
}

fn counter(fields: &Map<String, Value>) -> u64 {
    fields.get("wake").and_then(Value::as_u64).unwrap_or_default()
}

/// A value that is no object is a stranger's and counts as none.
fn fields(value: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(value).unwrap_or_default()
}

/// Reads, changes and writes the node's key, again if somebody wrote in between.
async fn edit(
    consul: &Consul,
    cluster: &str,
    node: &str,
    change: impl Fn(&mut Map<String, Value>),
) -> Result<(), Error> {
    let key = Keys::new(cluster).node(node);
    for _ in 0..ATTEMPTS_MAX {
        let found = consul.kv_get(&key, Freshness::Consistent).await?;
        let (mut value, index) = found.map(|pair| (fields(&pair.value), pair.modify_index)).unwrap_or_default();
        value.entry("schema").or_insert_with(|| SCHEMA.into());
        change(&mut value);
        if consul.kv_cas(&key, Value::Object(value).to_string().into_bytes(), index).await? {
            return Ok(());
        }
    }
    let body = format!("somebody else writes it: {ATTEMPTS_MAX} attempts failed");
    Err(Error::Refused { operation: format!("PUT /v1/kv/{key}"), status: 409, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &[(&str, u64)], now: &[(&str, u64)], expect: &[&str]) {
        let map = |counts: &[(&str, u64)]| counts.iter().map(|(node, count)| ((*node).to_owned(), *count)).collect();
        assert_eq!(woken(&map(before), &map(now)), expect);
    }

    #[test]
    fn a_counter_that_moved_wakes() {
        check(&[("a", 1), ("b", 4)], &[("a", 2), ("b", 4)], &["a"]);
        check(&[("a", 9)], &[("a", 1)], &["a"]);
    }

    #[test]
    fn a_new_node_and_one_that_left_wake_nobody() {
        check(&[("a", 1)], &[("a", 1), ("b", 0)], &[]);
        check(&[("a", 1), ("b", 3)], &[("a", 1)], &[]);
    }

    #[test]
    fn a_strangers_value_counts_as_none() {
        assert_eq!(counter(&fields(b"hello")), 0);
        assert_eq!(counter(&fields(br#"{"wake":3,"images":[]}"#)), 3);
    }
}
