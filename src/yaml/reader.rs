//! Typed values out of the tree, with all mistakes collected.
//!
//! ```
//! use swarmkeeper::yaml::{self, MapReader, Problems};
//!
//! let node = yaml::parse("stack.yml", "adopt: auto\ntimeuot: 5m\nafter: db\n").unwrap();
//! let problems = Problems::default();
//! let mut reader = MapReader::new(&node, "", &problems);
//! let adopt = reader.one_of("adopt", &[("ask", 0), ("auto", 1)]);
//! let timeout = reader.duration("timeout");
//! let after = reader.strings("after");
//! reader.finish();
//! assert_eq!((adopt, timeout, after), (Some(1), None, None));
//! assert_eq!(
//!     problems.into_result(()).unwrap_err().to_string(),
//!     "stack.yml:2:1: timeuot: no such key (did you mean timeout?)\n\
//!      stack.yml:3:8: after: found text, accepted: a list of texts"
//! );
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::{Entry, Node, Value};
use crate::model::{Finding, Findings, Location};

/// More mistakes than this are not told.
pub const PROBLEMS_MAX: usize = 1000;

/// The mistakes found so far. Shared by reference, so that readers of different places can be held at once.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Finding>>);

impl Problems {
    /// Adds one, unless there are [`PROBLEMS_MAX`] already: nobody reads more, and a file may have one per value.
    pub fn add(&self, finding: Finding) {
        let mut findings = self.0.borrow_mut();
        if findings.len() < PROBLEMS_MAX {
            findings.push(finding);
        }
    }

    /// Adds all of another document's.
    pub fn extend(&self, findings: Findings) {
        findings.0.into_iter().for_each(|finding| self.add(finding));
    }

    /// Gives those without a place the one that `place` knows for their path.
    pub fn place(&self, place: impl Fn(&str) -> Option<Location>) {
        for finding in self.0.borrow_mut().iter_mut().filter(|finding| finding.location.is_none()) {
            finding.location = place(&finding.path);
        }
    }

    /// True while there are none.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// All of them, in the order of their places.
    pub fn into_vec(self) -> Vec<Finding> {
        let mut findings = self.0.into_inner();
        findings.sort_by(|a, b| a.location.cmp(&b.location));
        findings.dedup();
        findings
    }

    /// `value` if there are none, else all of them.
    pub fn into_result<T>(self, value: T) -> Result<T, Findings> {
        if self.is_empty() { Ok(value) } else { Err(Findings(self.into_vec())) }
    }
}

/// A value at a path, and where to say what is wrong with it.
///
/// Every typed accessor gives none and adds a problem if the value is something else; null is nothing at all and
/// no problem.
#[derive(Debug, Clone)]
pub struct Field<'n, 'p> {
    /// The value.
    pub node: &'n Node,
    /// Its path, such as `services.web.ports[1]`.
    pub path: String,
    problems: &'p Problems,
}

impl<'n, 'p> Field<'n, 'p> {
    /// The value `node` at `path`.
    pub fn new(node: &'n Node, path: impl Into<String>, problems: &'p Problems) -> Self {
        Self { node, path: path.into(), problems }
    }

    /// Adds a problem about this value.
    pub fn wrong(&self, message: impl Into<String>, mend: impl Into<String>) {
        self.problems.add(self.node.finding(self.path.clone(), message, mend));
    }

    /// Adds the problem that this value is of another kind than `accepted`.
    pub fn expected(&self, accepted: &str) {
        self.wrong(format!("found {}, accepted: {accepted}", self.node.kind()), "");
    }

    /// Text. Numbers and booleans are not text; the mend says to quote them.
    pub fn string(&self) -> Option<String> {
        match &self.node.value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Timestamp(_) => {
                self.wrong(format!("found {}, accepted: text", self.node.kind()), "put it in quotes");
                None
            }
            Value::Seq(_) | Value::Map(_) => {
                self.expected("text");
                None
            }
        }
    }

    /// Any scalar, as the file spells it.
    pub fn scalar(&self) -> Option<String> {
        if self.node.is_null() {
            return None;
        }
        let text = self.node.spelled().map(str::to_owned);
        if text.is_none() {
            self.expected("text or a number");
        }
        text
    }

    /// `true` or `false`.
    pub fn bool(&self) -> Option<bool> {
        match &self.node.value {
            Value::Null => None,
            Value::Bool(b) => Some(*b),
            Value::String(text) if matches!(text.to_ascii_lowercase().as_str(), "yes" | "no" | "on" | "off") => {
                self.wrong(format!("found the text {text}, accepted: true or false"), "write true or false");
                None
            }
            _ => {
                self.expected("true or false");
                None
            }
        }
    }

    /// A whole number in the range of `T`.
    pub fn integer<T: TryFrom<i128>>(&self) -> Option<T> {
        match &self.node.value {
            Value::Null => None,
            Value::Int(i) => {
                let number = T::try_from(*i).ok();
                if number.is_none() {
                    self.wrong(format!("the number {i} is out of range"), "");
                }
                number
            }
            _ => {
                self.expected("a whole number");
                None
            }
        }
    }

    /// A duration such as `30s`, `5m` or `1h 30m`.
    pub fn duration(&self) -> Option<Duration> {
        let text = match &self.node.value {
            Value::Null => return None,
            Value::String(text) => text,
            _ => {
                self.expected("a duration with its unit, such as 30s or 5m");
                return None;
            }
        };
        let duration = humantime::parse_duration(text).ok();
        if duration.is_none() {
            self.wrong(format!("{text:?} is no duration"), "write a number and its unit, such as 30s or 5m");
        }
        duration
    }

    /// Text that `T` parses; its error is the problem.
    pub fn parsed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        match self.string()?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.wrong(error.to_string(), "");
                None
            }
        }
    }

    /// One of some words.
    pub fn one_of<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let text = self.string()?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let accepted = words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
            let mend = nearest(&text, &accepted).map_or_else(String::new, |near| format!("did you mean {near}?"));
            self.wrong(format!("found {text:?}, accepted: {}", accepted.join(", ")), mend);
        }
        found
    }

    /// The items of a list; a single value is no list.
    pub fn items(&self, accepted: &str) -> Option<Vec<Field<'n, 'p>>> {
        match &self.node.value {
            Value::Null => None,
            Value::Seq(items) => {
                let field =
                    |(n, item): (usize, &'n Node)| Field::new(item, format!("{}[{n}]", self.path), self.problems);
                Some(items.iter().enumerate().map(field).collect())
            }
            _ => {
                self.expected(accepted);
                None
            }
        }
    }

    /// A list of texts.
    pub fn strings(&self) -> Option<Vec<String>> {
        Some(self.items("a list of texts")?.iter().filter_map(Self::string).collect())
    }

    /// The keys and values of a map, in the file's order.
    pub fn entries(&self, accepted: &str) -> Option<Vec<(&'n Entry, Field<'n, 'p>)>> {
        match &self.node.value {
            Value::Null => None,
            Value::Map(map) => Some(map.iter().map(|entry| (entry, self.child(&entry.key, &entry.value))).collect()),
            _ => {
                self.expected(accepted);
                None
            }
        }
    }

    /// A map of scalars to texts, as the file spells them.
    pub fn string_map(&self) -> Option<BTreeMap<String, String>> {
        let entries = self.entries("a map of texts")?;
        Some(entries.iter().map(|(entry, field)| (entry.key.clone(), field.scalar().unwrap_or_default())).collect())
    }

    /// A reader of this map.
    pub fn map(&self) -> MapReader<'n, 'p> {
        MapReader::new(self.node, self.path.clone(), self.problems)
    }

    fn child(&self, key: &str, node: &'n Node) -> Self {
        Field::new(node, join(&self.path, key), self.problems)
    }
}

/// Reads a map key by key. [`MapReader::finish`] names what nobody asked for, with the nearest key that somebody did ask for.
#[derive(Debug)]
pub struct MapReader<'n, 'p> {
    node: &'n Node,
    path: String,
    problems: &'p Problems,
    asked: Vec<&'static str>,
}

impl<'n, 'p> MapReader<'n, 'p> {
    /// Reads `node` at `path` (empty for a whole document). Null reads as an empty map; anything but a map is a problem and
    /// then reads as an empty map too.
    pub fn new(node: &'n Node, path: impl Into<String>, problems: &'p Problems) -> Self {
        let reader = Self { node, path: path.into(), problems, asked: Vec::new() };
        if !node.is_null() && node.as_map().is_none() {
            reader.this().expected("a map");
        }
        reader
    }

    /// Where the map stands.
    pub fn location(&self) -> &'n Location {
        &self.node.location
    }

    /// The map itself as a field, for problems about the whole of it.
    pub fn this(&self) -> Field<'n, 'p> {
        Field::new(self.node, self.path.clone(), self.problems)
    }

    /// The value of `key`; none if it is absent or null.
    pub fn take(&mut self, key: &'static str) -> Option<Field<'n, 'p>> {
        self.take_any(key).filter(|field| !field.node.is_null())
    }

    /// The value of `key`, null too.
    pub fn take_any(&mut self, key: &'static str) -> Option<Field<'n, 'p>> {
        self.asked.push(key);
        let node = self.node.as_map()?.get(key)?;
        Some(Field::new(node, join(&self.path, key), self.problems))
    }

    /// The value of `key`; its absence is a problem.
    pub fn required(&mut self, key: &'static str) -> Option<Field<'n, 'p>> {
        let field = self.take(key);
        // Something that is no map has its problem already.
        if field.is_none() && (self.node.is_null() || self.node.as_map().is_some()) {
            self.this().wrong(format!("{key} is missing"), "");
        }
        field
    }

    /// [`Field::string`] of `key`.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        self.take(key)?.string()
    }

    /// [`Field::bool`] of `key`.
    pub fn bool(&mut self, key: &'static str) -> Option<bool> {
        self.take(key)?.bool()
    }

    /// [`Field::integer`] of `key`.
    pub fn integer<T: TryFrom<i128>>(&mut self, key: &'static str) -> Option<T> {
        self.take(key)?.integer()
    }

    /// [`Field::duration`] of `key`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.take(key)?.duration()
    }

    /// [`Field::parsed`] of `key`.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, key: &'static str) -> Option<T> {
        self.take(key)?.parsed()
    }

    /// [`Field::one_of`] of `key`.
    pub fn one_of<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.take(key)?.one_of(words)
    }

    /// [`Field::strings`] of `key`.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        self.take(key)?.strings()
    }

    /// [`Field::string_map`] of `key`.
    pub fn string_map(&mut self, key: &'static str) -> Option<BTreeMap<String, String>> {
        self.take(key)?.string_map()
    }

    /// A reader of the map at `key`.
    pub fn map(&mut self, key: &'static str) -> Option<MapReader<'n, 'p>> {
        Some(self.take(key)?.map())
    }

    /// The keys that nobody asked for so far.
    pub fn rest(&self) -> impl Iterator<Item = &'n Entry> + use<'n, '_, 'p> {
        let map = self.node.as_map();
        map.into_iter().flatten().filter(|entry| !self.asked.contains(&entry.key.as_str()))
    }

    /// Counts `keys` as asked for: they are known, whoever reads them.
    pub fn know(&mut self, keys: impl IntoIterator<Item = &'static str>) {
        self.asked.extend(keys);
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        self.finish_except(|_| false);
    }

    /// Reports the keys that nobody asked for, save those that `pass`.
    pub fn finish_except(self, pass: impl Fn(&str) -> bool) {
        for entry in self.rest().filter(|entry| !pass(&entry.key)) {
            let mend =
                nearest(&entry.key, &self.asked).map_or_else(String::new, |near| format!("did you mean {near}?"));
            self.problems.add(Finding {
                location: Some(entry.key_location.clone()),
                path: join(&self.path, &entry.key),
                message: "no such key".to_owned(),
                mend,
            });
        }
    }
}

/// The known word nearest to `word`, if one is near enough to be a slip of it.
pub fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |candidate: &str| strsim::damerau_levenshtein(word, candidate);
    let near_enough = |candidate: &str| distance(candidate) <= 1 + candidate.len().min(word.len()) / 4;
    known.iter().copied().filter(|&candidate| near_enough(candidate)).min_by_key(|&candidate| distance(candidate))
}

/// The path of `key` in the map at `path`.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::parse;

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_what_is_accepted() {
        let node = parse("f.yml", "a: {}\nb: 5\nc: yes\nd: [1]\ne: 5 minutes ago\nf: -1\n").unwrap();
        let problems = Problems::default();
        let mut reader = MapReader::new(&node, "top", &problems);
        assert_eq!(reader.string("a"), None);
        assert_eq!(reader.string("b"), None);
        assert_eq!(reader.bool("c"), None);
        assert_eq!(reader.strings("d"), Some(vec![]));
        assert_eq!(reader.duration("e"), None);
        assert_eq!(reader.integer::<u64>("f"), None);
        assert!(reader.required("g").is_none());
        reader.finish();
        insta::assert_snapshot!(problems.into_result(()).unwrap_err(), @r#"
        f.yml:1:1: top: g is missing
        f.yml:1:4: top.a: found a map, accepted: text
        f.yml:2:4: top.b: found the number 5, accepted: text (put it in quotes)
        f.yml:3:4: top.c: found the text yes, accepted: true or false (write true or false)
        f.yml:4:5: top.d[0]: found the number 1, accepted: text (put it in quotes)
        f.yml:5:4: top.e: "5 minutes ago" is no duration (write a number and its unit, such as 30s or 5m)
        f.yml:6:4: top.f: the number -1 is out of range
        "#);
    }

    #[test]
    fn null_is_nothing() {
        let node = parse("f.yml", "a:\nb: ~\n").unwrap();
        let problems = Problems::default();
        let mut reader = MapReader::new(&node, "", &problems);
        assert!(reader.string("a").is_none() && reader.map("b").is_none());
        reader.finish();
        assert!(problems.is_empty());
    }

    #[test]
    fn the_nearest_known_word_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("enviroment", &["image", "environment"]), Some("environment"));
        assert_eq!(nearest("portss", &["ports", "configs"]), Some("ports"));
        assert_eq!(nearest("zebra", &["ports", "configs"]), None);
    }
}
