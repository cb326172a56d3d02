//! Keys and values.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::{Deserialize, Deserializer};

use super::request::{Answer, Request};
use super::{Consul, Error};

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pair {
    /// The whole key.
    pub key: String,
    /// The value as bytes.
    #[serde(default, deserialize_with = "from_base64")]
    pub value: Vec<u8>,
    /// The index of its last write; a number to compare and swap with.
    pub modify_index: u64,
    /// The session that holds it as a lock.
    #[serde(default)]
    pub session: Option<String>,
}

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// From the Raft leader, which may have been deposed a moment ago.
    #[default]
    Default,
    /// From a leader that has just proved to be one; needs a quorum.
    Consistent,
    /// From any server, also without a leader.
    Stale,
}

/// What a blocking query brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// What is there now.
    pub now: T,
    /// For the next call.
    pub index: u64,
}

impl Consul {
    /// The value of `key`; none if there is no such key.
    pub async fn kv_get(&self, key: &str, freshness: Freshness) -> Result<Option<Pair>, Error> {
        pair(self.key(Method::GET, key).fresh(freshness).send_unless_missing().await?).map(|seen| seen.now)
    }

    /// [`Self::kv_get`], consistent and with a timeout of its own: what a lease is proven with.
    pub async fn kv_prove(&self, key: &str, timeout: Duration) -> Result<Option<Pair>, Error> {
        let request = self.key(Method::GET, key).fresh(Freshness::Consistent).timeout(timeout);
        pair(request.send_unless_missing().await?).map(|seen| seen.now)
    }

    /// Waits up to `wait` for `key` to change after `index`. A missing key answers at every unrelated write: create it first.
    pub async fn kv_watch(&self, key: &str, index: u64, wait: Duration) -> Result<Seen<Option<Pair>>, Error> {
        let request = self.key(Method::GET, key).blocking(index, wait);
        pair(request.send_unless_missing().await?).map(|seen| Seen { index: next(index, seen.index), ..seen })
    }

    /// Every key that begins with `prefix`.
    pub async fn kv_list(&self, prefix: &str) -> Result<Vec<Pair>, Error> {
        pairs(self.key(Method::GET, prefix).query("recurse", "").send_unless_missing().await?).map(|seen| seen.now)
    }

    /// Waits up to `wait` for anything under `prefix` to change after `index`.
    pub async fn kv_watch_list(&self, prefix: &str, index: u64, wait: Duration) -> Result<Seen<Vec<Pair>>, Error> {
        let request = self.key(Method::GET, prefix).query("recurse", "").blocking(index, wait);
        pairs(request.send_unless_missing().await?).map(|seen| Seen { index: next(index, seen.index), ..seen })
    }

    /// Writes `key`, whoever wrote it before.
    pub async fn kv_put(&self, key: &str, value: Vec<u8>) -> Result<(), Error> {
        self.key(Method::PUT, key).body(value).send().await.map(drop)
    }

    /// Writes `key` if its `modify_index` is still this, 0 for a key that does not exist; false if it is not.
    pub async fn kv_cas(&self, key: &str, value: Vec<u8>, modify_index: u64) -> Result<bool, Error> {
        self.key(Method::PUT, key).query("cas", modify_index.to_string()).body(value).send().await?.json()
    }

    /// Gives the lock back and leaves `value` in it, in one write and without a lock delay; false if it was not ours.
    pub async fn kv_release(&self, key: &str, value: Vec<u8>, session: &str) -> Result<bool, Error> {
        self.key(Method::PUT, key).query("release", session).body(value).send().await?.json()
    }

    /// Deletes `key`; a key that does not exist is fine.
    pub async fn kv_delete(&self, key: &str) -> Result<(), Error> {
        self.key(Method::DELETE, key).send().await.map(drop)
    }

    /// Deletes everything that begins with `prefix`.
    pub async fn kv_delete_all(&self, prefix: &str) -> Result<(), Error> {
        self.key(Method::DELETE, prefix).query("recurse", "").send().await.map(drop)
    }

    fn key(&self, method: Method, key: &str) -> Request<'_> {
        self.request(method, std::iter::once("kv").chain(key.split('/')))
    }
}

impl Request<'_> {
    fn fresh(self, freshness: Freshness) -> Self {
        match freshness {
            Freshness::Default => self,
            Freshness::Consistent => self.query("consistent", ""),
            Freshness::Stale => self.query("stale", ""),
        }
    }
}

/// The index for the next blocking query: one that goes backwards means a Consul that was restored, so start again.
fn next(asked: u64, answered: u64) -> u64 {
    if answered < asked { 0 } else { answered }
}

fn pair(answer: Result<Answer, u64>) -> Result<Seen<Option<Pair>>, Error> {
    pairs(answer).map(|seen| Seen { now: seen.now.into_iter().next(), index: seen.index })
}

fn pairs(answer: Result<Answer, u64>) -> Result<Seen<Vec<Pair>>, Error> {
    match answer {
        Ok(answer) => Ok(Seen { now: answer.json()?, index: answer.index }),
        Err(index) => Ok(Seen { now: Vec::new(), index }),
    }
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    STANDARD.decode(text.unwrap_or_default()).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_value_and_a_free_lock_are_read_as_such() {
        let text = r#"{"Key":"a/b","Value":null,"Flags":0,"LockIndex":2,"CreateIndex":7,"ModifyIndex":9}"#;
        let pair: Pair = serde_json::from_str(text).unwrap();
        assert_eq!(pair, Pair { key: "a/b".to_owned(), value: Vec::new(), modify_index: 9, session: None });
    }

    #[test]
    fn an_index_that_goes_backwards_starts_again() {
        assert_eq!((next(7, 9), next(7, 7), next(7, 6)), (9, 7, 0));
    }
}
