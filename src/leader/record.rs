//! The lock's value: who leads, for candidates, agents and people.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The schema that this version writes. It reads every schema, as long as the fields below are there.
pub const SCHEMA: u32 = 1;

/// The lock's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The schema of this value; later ones may have more fields.
    pub schema: u32,
    /// The node that leads.
    pub node: String,
    /// Where its HTTP API answers.
    pub address: String,
    /// The version of swarmkeeper that runs there.
    pub version: String,
    /// When it took the lock.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The lock delay that its lease relies on, in milliseconds: a successor with a shorter one of its own must wait as long.
    pub lock_delay_ms: u64,
    /// True if it gave the lock back and writes no more: its successor need not wait.
    #[serde(default)]
    pub signed_off: bool,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderInfo {
    /// Its node.
    pub node: String,
    /// Where its HTTP API answers.
    pub address: String,
    /// The version of swarmkeeper that runs there.
    pub version: String,
    /// When it took the lock.
    pub since: OffsetDateTime,
    /// Its fencing token.
    pub token: u64,
}

impl Record {
    /// None if the value is not ours, as after a stranger's write.
    pub fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    /// As [`Self::read`] takes it.
    pub fn write(&self) -> Vec<u8> {
        // A struct of texts and numbers always can be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The lock delay that its lease relies on.
    pub fn lock_delay(&self) -> Duration {
        Duration::from_millis(self.lock_delay_ms)
    }

    /// For those who want to know whom to ask.
    pub fn info(&self, token: u64) -> LeaderInfo {
        LeaderInfo {
            node: self.node.clone(),
            address: self.address.clone(),
            version: self.version.clone(),
            since: self.since,
            token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_a_later_version_is_read_and_a_strangers_is_not() {
        let later = br#"{"schema":2,"node":"n1","address":"http://10.0.0.1:7000","version":"9.0.0",
            "since":"2026-01-02T03:04:05Z","lock_delay_ms":5000,"mood":"good"}"#;
        let record = Record::read(later).unwrap();
        assert_eq!((record.node.as_str(), record.signed_off), ("n1", false));
        assert_eq!(Record::read(b"mine now"), None);
    }
}
