//! YAML whose mistakes can be located: every file that people write and we read goes through here.
//!
//! [`parse`] turns a text into a tree of [`Node`]s that know their line and column; [`MapReader`] and [`Field`] read typed
//! values out of it and collect *all* mistakes as [`Finding`]s, unknown keys with the nearest known one.
//!
//! # Why not serde_yaml
//!
//! serde_yaml (here serde_norway, its continuation) hands out values without positions, stops at the first mistake, rejects a
//! duplicate key without saying where, and resolves scalars by YAML 1.2 (`0644` is 644), whereas `docker stack deploy` reads
//! with Go's yaml.v3. So the tree is built over `saphyr-parser`'s events, which carry spans. serde_yaml remains the tool
//! for *writing* YAML.
//!
//! # What is read
//!
//! * Scalars as yaml.v3 resolves them: `0644` and `0o644` are 420, `0x1f`, `0b1`, `1_000`, `.inf`; `yes`, `off` stay text; `~`,
//!   `null` and nothing are null; an unquoted date is a timestamp. Quoted scalars are text. Numbers keep their spelling
//!   ([`Node::source`]), so that a version `5.10` does not become `5.1`.
//! * `<<` merges, of one map or of a list of maps; a map's own keys win, then the first map that has the key.
//! * Anchors and aliases; an aliased node has the place of its anchor, where its text stands.
//! * The first document only, as yaml.v3 does.
//! * Tags of the core schema (`!!str` and so on); any other tag is a mistake, since nobody would act on it.
//!
//! # Limits
//!
//! [`BYTES_MAX`] of text, [`DEPTH_MAX`] levels, [`NODES_MAX`] nodes after aliases are expanded ("billion laughs"), [`COPIED_BYTES_MAX`]
//! of memory for what anchors keep and aliases repeat, keys of [`KEY_BYTES_MAX`].

mod parse;
mod reader;
mod scalar;

use std::fmt;

use serde_json::{Number, Value as Json};

use crate::model::{Finding, Location};

pub use parse::{parse, parse_bytes, text};
pub use reader::{Field, MapReader, Problems, join, nearest};

/// A text longer than this is refused.
pub const BYTES_MAX: usize = 4 << 20;

/// Deeper nesting is refused.
pub const DEPTH_MAX: usize = 64;

/// Anchors and aliases that copy more than this are refused: a long text under one anchor can stand for gigabytes.
pub const COPIED_BYTES_MAX: usize = 64 << 20;

/// A longer key is refused; YAML's own limit for a key on one line.
pub const KEY_BYTES_MAX: usize = 1024;

/// More nodes, aliases expanded, are refused.
pub const NODES_MAX: usize = 200_000;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub location: Location,
    /// What it is.
    pub value: Value,
    /// The text of a plain scalar that is no text, as the file spells it: `5.10`, `0644`, `~`.
    pub source: Option<String>,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `~`, `null`, or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer in the range of i64 or u64.
    Int(i128),
    /// A floating-point number.
    Float(f64),
    /// Text.
    String(String),
    /// An unquoted date or time, as the file spells it.
    Timestamp(String),
    /// A list.
    Seq(Vec<Node>),
    /// A map.
    Map(Map),
}

/// A map in the file's order, without duplicates, its merges applied (merged keys come last).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map(Vec<Entry>);

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The key as text; `8080:` is the key `8080`.
    pub key: String,
    /// False if the key was a number, a boolean, a date or null, which `docker stack deploy` refuses.
    pub key_is_text: bool,
    /// Where the key stands.
    pub key_location: Location,
    /// The value.
    pub value: Node,
}

impl Node {
    /// What the node is, with an article, for messages: "a map", "the number 5".
    pub fn kind(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(b) => format!("the boolean {b}"),
            Value::Int(_) | Value::Float(_) => format!("the number {}", self.source.as_deref().unwrap_or("?")),
            Value::String(_) => "text".to_owned(),
            Value::Timestamp(text) => format!("the date {text}"),
            Value::Seq(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }

    /// True for `~`, `null` and nothing.
    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    /// The text, if it is text.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }

    /// The map, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Value::Map(map) = &self.value { Some(map) } else { None }
    }

    /// The list, if it is one.
    pub fn as_seq(&self) -> Option<&[Node]> {
        if let Value::Seq(items) = &self.value { Some(items) } else { None }
    }

    /// A scalar as Go's `fmt.Sprint` prints what yaml.v3 makes of it (`0644` → `420`, `1.50` → `1.5`); none for null, lists and maps.
    pub fn go_text(&self) -> Option<String> {
        match &self.value {
            Value::Null | Value::Seq(_) | Value::Map(_) => None,
            Value::Bool(b) => Some(b.to_string()),
            Value::Int(i) => Some(i.to_string()),
            Value::Float(f) => Some(scalar::go_float(*f)),
            Value::String(text) => Some(text.clone()),
            Value::Timestamp(text) => Some(scalar::go_timestamp(text).unwrap_or_else(|| text.clone())),
        }
    }

    /// A scalar as the file spells it; none for null, lists and maps.
    pub fn spelled(&self) -> Option<&str> {
        match &self.value {
            Value::Null | Value::Seq(_) | Value::Map(_) => None,
            Value::String(text) => Some(text),
            _ => self.source.as_deref(),
        }
    }

    /// The tree as JSON; numbers that JSON does not have (`.inf`, `.nan`) and dates become text.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(i) => Number::from_i128(*i).map_or(Json::Null, Json::Number),
            Value::Float(f) => Number::from_f64(*f).map_or_else(|| Json::String(self.spelling()), Json::Number),
            Value::String(text) | Value::Timestamp(text) => Json::String(text.clone()),
            Value::Seq(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(map) => Json::Object(map.iter().map(|e| (e.key.clone(), e.value.to_json())).collect()),
        }
    }

    fn spelling(&self) -> String {
        self.source.clone().unwrap_or_default()
    }

    /// A finding about this node.
    pub fn finding(&self, path: impl Into<String>, message: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { location: Some(self.location.clone()), path: path.into(), message: message.into(), mend: mend.into() }
    }
}

impl Map {
    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The entry of `key`.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.key == key)
    }

    /// The entries in the file's order.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.0.iter()
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<Entry>> for Map {
    /// Takes entries whose keys differ.
    fn from(entries: Vec<Entry>) -> Self {
        Self(entries)
    }
}

impl IntoIterator for Map {
    type Item = Entry;
    type IntoIter = std::vec::IntoIter<Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Map {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Node {
    /// Compact JSON, for tests and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_json())
    }
}
