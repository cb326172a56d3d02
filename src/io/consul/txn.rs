//! Transactions: several operations on keys, all or none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::request::{FORBIDDEN, key_right};
use super::{Consul, Error};

/// Most operations in one transaction, Consul's own limit.
pub const OPERATIONS_MAX: usize = 64;

/// Largest body of one transaction, in bytes, Consul's own limit; values are in it as base64.
pub const BODY_BYTES_MAX: usize = 512 << 10;

/// What one operation costs in a body besides its key and value: names, quotes and brackets.
const FRAME_BYTES: usize = 128;

/// One operation on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Fails unless `session` holds the key.
    CheckSession {
        /// The key.
        key: String,
        /// The session.
        session: String,
    },
    /// Fails unless the key's last write was this one.
    CheckIndex {
        /// The key.
        key: String,
        /// Its `modify_index`.
        index: u64,
    },
    /// Fails if the key exists.
    CheckNotExists {
        /// The key.
        key: String,
    },
    /// Takes the key as a lock; fails if another session holds it, or it is still in its lock delay.
    Lock {
        /// The key.
        key: String,
        /// What to write into it.
        value: Vec<u8>,
        /// Who takes it.
        session: String,
    },
    /// Writes a key.
    Set {
        /// The key.
        key: String,
        /// What to write.
        value: Vec<u8>,
    },
    /// Deletes a key.
    Delete {
        /// The key.
        key: String,
    },
}

/// What became of a transaction that Consul answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was done; the highest `modify_index` of the keys written or checked.
    Done {
        /// For a [`Op::Lock`], its fencing token.
        index: u64,
    },
    /// Nothing was done.
    Conflict {
        /// The position of the first operation that failed.
        operation: usize,
        /// Consul's words.
        reason: String,
    },
}

impl Consul {
    /// Does all of `ops` or none.
    pub async fn kv_txn(&self, ops: &[Op]) -> Result<Outcome, Error> {
        let body: Vec<Value> = ops.iter().map(Op::body).collect();
        let (status, answer) = self.request(Method::PUT, ["txn"]).json(&body)?.exchange().await?;
        match status {
            200 => {
                let done: Done = answer.json()?;
                let index = done.results.iter().filter_map(|result| Some(result.kv.as_ref()?.modify_index)).max();
                Ok(Outcome::Done { index: index.unwrap_or_default() })
            }
            409 => {
                let conflict: Conflict = answer.json()?;
                let first = conflict.errors.into_iter().min_by_key(|error| error.op_index);
                let Some(Failure { op_index, what }) = first else {
                    return Err(answer.unreadable("a conflict without a reason".to_owned()));
                };
                // Consul hides an ACL denial among the conflicts.
                if what.contains("Permission denied") {
                    let key = ops.get(op_index).map(Op::key).unwrap_or_default();
                    let operation = format!("PUT /v1/txn, key {key:?}");
                    let body = format!("{what} (the token needs {})", key_right(key, "write"));
                    return Err(Error::Refused { operation, status: FORBIDDEN, body });
                }
                Ok(Outcome::Conflict { operation: op_index, reason: what })
            }
            other => Err(answer.refused("PUT /v1/txn".to_owned(), other)),
        }
    }
}

impl Op {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::CheckSession { key, .. }
            | Self::CheckIndex { key, .. }
            | Self::CheckNotExists { key }
            | Self::Lock { key, .. }
            | Self::Set { key, .. }
            | Self::Delete { key } => key,
        }
    }

    fn body(&self) -> Value {
        let kv = match self {
            Self::CheckSession { key, session } => json!({"Verb": "check-session", "Key": key, "Session": session}),
            Self::CheckIndex { key, index } => json!({"Verb": "check-index", "Key": key, "Index": index}),
            Self::CheckNotExists { key } => json!({"Verb": "check-not-exists", "Key": key}),
            Self::Lock { key, value, session } => {
                json!({"Verb": "lock", "Key": key, "Value": STANDARD.encode(value), "Session": session})
            }
            Self::Set { key, value } => json!({"Verb": "set", "Key": key, "Value": STANDARD.encode(value)}),
            Self::Delete { key } => json!({"Verb": "delete", "Key": key}),
        };
        json!({"KV": kv})
    }

    /// An upper bound of what it takes in a body.
    fn bytes(&self) -> usize {
        let content = match self {
            Self::Set { value, .. } => value.len().div_ceil(3) * 4,
            Self::Lock { value, session, .. } => value.len().div_ceil(3) * 4 + session.len(),
            Self::CheckSession { session, .. } => session.len(),
            _ => 0,
        };
        FRAME_BYTES + self.key().len() + content
    }
}

/// Splits `ops` into transactions that Consul takes, each beginning with `guards`.
///
/// An operation that is too large on its own is in a transaction of its own, for Consul to refuse: whoever writes it names it.
pub fn split(guards: &[Op], ops: Vec<Op>) -> Vec<Vec<Op>> {
    let mut all: Vec<Vec<Op>> = Vec::new();
    let mut bytes = 0;
    for op in ops {
        let size = op.bytes();
        match all.last_mut() {
            Some(last) if last.len() < OPERATIONS_MAX && bytes + size <= BODY_BYTES_MAX => {
                bytes += size;
                last.push(op);
            }
            _ => {
                bytes = guards.iter().map(Op::bytes).sum::<usize>() + size;
                all.push(guards.iter().cloned().chain([op]).collect());
            }
        }
    }
    all
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Done {
    #[serde(default, deserialize_with = "null_is_empty")]
    results: Vec<DoneOne>,
}

#[derive(Deserialize)]
struct DoneOne {
    #[serde(rename = "KV")]
    kv: Option<DoneKv>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DoneKv {
    modify_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Conflict {
    #[serde(default, deserialize_with = "null_is_empty")]
    errors: Vec<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failure {
    op_index: usize,
    what: String,
}

/// Go writes an empty list as `null`.
fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Op {
        Op::CheckSession { key: "lock".to_owned(), session: "s".to_owned() }
    }

    fn set(bytes: usize) -> Op {
        Op::Set { key: "k".to_owned(), value: vec![b'x'; bytes] }
    }

    #[track_caller]
    fn check(ops: Vec<Op>, expect: &[usize]) {
        let parts = split(&[guard()], ops);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), expect);
        for part in &parts {
            assert_eq!(part.first(), Some(&guard()), "each transaction is fenced on its own");
            let body: Vec<Value> = part.iter().map(Op::body).collect();
            let bytes = serde_json::to_vec(&body).unwrap().len();
            assert!(part.len() <= OPERATIONS_MAX && (bytes <= BODY_BYTES_MAX || part.len() == 2), "{bytes}");
        }
    }

    #[test]
    fn nothing_to_write_needs_no_transaction() {
        check(vec![], &[]);
    }

    #[test]
    fn sixty_three_writes_fit_beside_the_check() {
        check(vec![set(10); 63], &[64]);
        check(vec![set(10); 64], &[64, 2]);
    }

    #[test]
    fn large_values_are_split_by_their_size_in_base64() {
        check(vec![set(150 << 10); 4], &[3, 3]);
    }

    #[test]
    fn a_value_too_large_for_any_transaction_takes_no_other_with_it() {
        check(vec![set(10), set(600 << 10), set(10)], &[2, 2, 2]);
    }
}
