//! What a leader publishes in KV: one key for each name, written only if it changed, removed when its name is gone.
//!
//! Every write is fenced. What is there is read once in each leadership and remembered from then on; after a failure it is read again.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tracing::warn;

use super::{Fence, FenceError};
use crate::io::consul::kv::Freshness;
use crate::io::consul::txn::Op;

/// The schema number that values without one are given.
const SCHEMA: u32 = 1;

/// Largest value that is published, in bytes: in a transaction of 512 KB it is there as base64, beside the check.
pub const VALUE_BYTES_MAX: usize = 380 << 10;

/// The keys under one prefix, all of them the leader's.
#[derive(Debug)]
pub struct Board {
    fence: Fence,
    prefix: String,
    /// The key that moves with every change, for those who watch.
    generation: Option<String>,
    known: Option<Known>,
    /// Names whose value is too large, so that each is logged once.
    too_large: Vec<String>,
}

/// What is in KV, as far as this leadership knows.
#[derive(Debug)]
struct Known {
    token: u64,
    /// How often this leadership has moved the generation.
    count: u64,
    values: BTreeMap<String, Vec<u8>>,
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Plan {
    /// Names with what to write; none to delete the key.
    changes: Vec<(String, Option<Vec<u8>>)>,
    /// Names whose value is too large to publish.
    too_large: Vec<String>,
}

impl Board {
    /// The keys under `prefix`, which ends with `/`, such as [`super::Keys::stacks`].
    pub fn new(fence: Fence, prefix: String) -> Self {
        Self { fence, prefix, generation: None, known: None, too_large: Vec::new() }
    }

    /// The same, with a key that is written after every change: agents watch it alone, and read only the keys that they need.
    #[must_use]
    pub fn moving(self, generation: String) -> Self {
        Self { generation: Some(generation), ..self }
    }

    /// Makes the keys say `wanted`, by name; the number of keys written or removed.
    ///
    /// An object without a `schema` is given one. A value that is too large is left out, and logged.
    pub async fn publish(&mut self, wanted: BTreeMap<String, Value>) -> Result<usize, FenceError> {
        let token = self.fence.token()?;
        let (values, count, mut is_news) = match self.known.take() {
            Some(known) if known.token == token => (known.values, known.count, false),
            _ => (self.read().await?, 0, self.lacks_generation().await?),
        };
        let Plan { changes, too_large } = plan(&values, wanted);
        if too_large != self.too_large {
            for name in &too_large {
                warn!(key = %format!("{}{name}", self.prefix), limit = VALUE_BYTES_MAX, "not published: the value is too large");
            }
            self.too_large = too_large;
        }
        let changed = changes.len();
        let mut ops: Vec<Op> =
            changes.iter().map(|(name, value)| op(format!("{}{name}", self.prefix), value.clone())).collect();
        is_news |= changed > 0;
        let count = count + u64::from(is_news);
        if let Some(key) = self.generation.as_ref().filter(|_| is_news) {
            let by = &self.prefix;
            let value = json!({ "schema": SCHEMA, "token": token, "by": by, "count": count }).to_string().into_bytes();
            // Last: whoever sees it sees the rest.
            ops.push(Op::Set { key: key.clone(), value });
        }
        self.fence.kv_txn(ops).await?;
        self.known = Some(Known { token, count, values: after(values, changes) });
        Ok(changed)
    }

    /// True if the key that others watch is not there: a blocking query on a missing key answers at every unrelated write.
    async fn lacks_generation(&self) -> Result<bool, FenceError> {
        match &self.generation {
            Some(key) => Ok(self.fence.consul().kv_get(key, Freshness::Default).await?.is_none()),
            None => Ok(false),
        }
    }

    async fn read(&self) -> Result<BTreeMap<String, Vec<u8>>, FenceError> {
        let pairs = self.fence.consul().kv_list(&self.prefix).await?;
        let named = |key: &str| key.strip_prefix(&self.prefix).map(ToOwned::to_owned);
        Ok(pairs.into_iter().filter_map(|pair| Some((named(&pair.key)?, pair.value))).collect())
    }
}

/// Which keys to write so that what is `known` becomes what is `wanted`.
fn plan(known: &BTreeMap<String, Vec<u8>>, wanted: BTreeMap<String, Value>) -> Plan {
    let gone = known.keys().filter(|name| !wanted.contains_key(*name)).map(|name| (name.clone(), None));
    let mut plan = Plan { changes: gone.collect(), too_large: Vec::new() };
    for (name, value) in wanted {
        let text = with_schema(value).to_string().into_bytes();
        if text.len() > VALUE_BYTES_MAX {
            plan.too_large.push(name);
        } else if known.get(&name) != Some(&text) {
            plan.changes.push((name, Some(text)));
        }
    }
    plan
}

fn after(mut values: BTreeMap<String, Vec<u8>>, changes: Vec<(String, Option<Vec<u8>>)>) -> BTreeMap<String, Vec<u8>> {
    for (name, value) in changes {
        match value {
            Some(value) => drop(values.insert(name, value)),
            None => drop(values.remove(&name)),
        }
    }
    values
}

fn op(key: String, value: Option<Vec<u8>>) -> Op {
    match value {
        Some(value) => Op::Set { key, value },
        None => Op::Delete { key },
    }
}

fn with_schema(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.entry("schema").or_insert_with(|| SCHEMA.into());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(values: &[(&str, Value)]) -> BTreeMap<String, Value> {
        values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    /// Publishes `first`, then `second`: what the second writes, by name, and that a third time writes nothing.
    #[track_caller]
    fn check(first: &[(&str, Value)], second: &[(&str, Value)], expect: &[(&str, Option<&str>)]) {
        let known = after(BTreeMap::new(), plan(&BTreeMap::new(), wanted(first)).changes);
        let changes = plan(&known, wanted(second)).changes;
        let text = |value: &Option<Vec<u8>>| value.clone().map(|value| String::from_utf8(value).unwrap());
        let got: Vec<(String, Option<String>)> =
            changes.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        let expect: Vec<(String, Option<String>)> =
            expect.iter().map(|(name, value)| ((*name).to_owned(), value.map(ToOwned::to_owned))).collect();
        assert_eq!(got, expect);
        assert_eq!(plan(&after(known, changes), wanted(second)).changes, []);
    }

    #[test]
    fn what_did_not_change_is_not_written() {
        check(&[("shop", json!({"state": "ok"}))], &[("shop", json!({"state": "ok"}))], &[]);
    }

    #[test]
    fn only_what_changed_is_written_with_a_schema_number() {
        check(
            &[("shop", json!({"state": "ok"})), ("blog", json!({"state": "ok"}))],
            &[("shop", json!({"state": "rolling"})), ("blog", json!({"state": "ok"}))],
            &[("shop", Some(r#"{"schema":1,"state":"rolling"}"#))],
        );
    }

    #[test]
    fn a_name_that_is_gone_loses_its_key() {
        check(&[("shop", json!({})), ("blog", json!({}))], &[("blog", json!({}))], &[("shop", None)]);
    }

    #[test]
    fn a_schema_number_that_is_there_stays() {
        check(&[], &[("shop", json!({"schema": 7}))], &[("shop", Some(r#"{"schema":7}"#))]);
    }

    #[test]
    fn a_value_that_is_too_large_is_named_and_hinders_no_other() {
        let large = Value::String("x".repeat(VALUE_BYTES_MAX));
        let plan = plan(&BTreeMap::new(), wanted(&[("blog", json!({})), ("shop", large)]));
        assert_eq!(plan.too_large, ["shop"]);
        assert_eq!(plan.changes.len(), 1);
    }
}
