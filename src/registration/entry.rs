//! What the node's Consul agent has, as much of it as a pass compares. Pure.
//!
//! A pass holds everything that is registered at once. Tags and Meta are most of an entry, and only have to be told from others: of
//! them a fingerprint is kept, beside the few pairs of Meta that we read.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde::Deserialize;

use super::wanted::{META_CONTAINER, META_FACTS, META_HASH, META_OWNER, META_SERVICE};
use crate::io::consul::agent::{AgentService, CheckStatus};

/// A registered service.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "AgentService")]
pub struct Entry {
    /// The name it is found by.
    pub name: Box<str>,
    /// Its address; empty stands for the node's.
    pub address: Box<str>,
    /// Its port.
    pub port: u16,
    /// Of its tags; none if others may change them.
    pub tags: Option<Fingerprint>,
    /// Of its Meta, without the hash.
    pub meta: Fingerprint,
    /// Whose it is; none for entries that are nobody's of ours.
    pub owner: Option<Box<str>>,
    /// The hash over everything that was wanted.
    pub hash: Option<Box<str>>,
    /// The container it is for.
    pub container: Option<Box<str>>,
    /// The swarm service it is for, if it stands for all tasks of a node.
    pub service: Option<Box<str>>,
    /// True if it holds what the leader has published.
    pub has_facts: bool,
}

/// A registered check.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Standing {
    /// How it stands.
    pub status: CheckStatus,
    /// What it means, for people; of a maintenance, its reason.
    #[serde(default)]
    pub notes: Box<str>,
    /// What it said last.
    #[serde(default)]
    pub output: Box<str>,
}

/// Differs, as good as surely, where what it was taken of does; means something in this process only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Of tags; their order and repetition mean nothing.
    pub fn of_tags(tags: &[String]) -> Self {
        let mut hasher = DefaultHasher::new();
        tags.iter().collect::<BTreeSet<_>>().hash(&mut hasher);
        Self(hasher.finish())
    }

    /// Of Meta without the hash, which says something of the whole entry.
    pub fn of_meta(meta: &BTreeMap<String, String>) -> Self {
        let mut hasher = DefaultHasher::new();
        for pair in meta.iter().filter(|(key, _)| key.as_str() != META_HASH) {
            pair.hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}

impl Entry {
    /// True if it is `owner`'s.
    pub fn is_of(&self, owner: &str) -> bool {
        self.owner.as_deref() == Some(owner)
    }
}

impl From<AgentService> for Entry {
    fn from(service: AgentService) -> Self {
        let AgentService { name, tags, meta, port, address, enable_tag_override, .. } = service;
        let value = |key: &str| meta.get(key).map(|value| value.as_str().into());
        Self {
            name: name.into(),
            address: address.into(),
            port,
            tags: (!enable_tag_override).then(|| Fingerprint::of_tags(&tags)),
            owner: value(META_OWNER),
            hash: value(META_HASH),
            container: value(META_CONTAINER),
            service: value(META_SERVICE),
            has_facts: meta.contains_key(META_FACTS),
            meta: Fingerprint::of_meta(&meta),
        }
    }
}
