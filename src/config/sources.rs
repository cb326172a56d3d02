//! Flags, environment and file → what was written for each setting, and where; nothing is typed here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::POLICY_KEY;
use super::settings::{ENV_PREFIX, SETTINGS, Setting};
use crate::model::{Finding, Location};
use crate::yaml::{Entry, Map, Node, nearest};

/// What one source says, by the setting's key.
pub(super) type Layer = BTreeMap<&'static str, Raw>;

/// A value as somebody wrote it.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    /// The file's line, the variable's or the flag's name.
    pub location: Location,
    /// What it holds, or where that stands.
    pub content: Content,
}

/// A value, or the file that holds it.
#[derive(Clone)]
pub(super) enum Content {
    Texts(Vec<String>),
    File(PathBuf),
}

impl std::fmt::Debug for Content {
    /// Nobody knows yet whether it is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Texts(_) => f.write_str("***"),
            Self::File(path) => path.fmt(f),
        }
    }
}

/// Mistakes and remarks, in the order of their discovery.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub mistakes: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

/// Variables that begin as ours do and are read elsewhere: by `load`, and by `stack/swarmkeeper.yml`.
const OTHER_VARIABLES: &[&str] = &["SWARMKEEPER_CONFIG", "SWARMKEEPER_IMAGE"];

/// A value of swarm-sync's files and variables that begins so is the name of a docker secret.
const DOCKER_SECRET: &str = "DOCKER-SECRET->";

impl Content {
    /// One text, or what a `DOCKER-SECRET->name` stands for.
    pub fn of(text: impl Into<String>) -> Self {
        let text = text.into();
        match text.strip_prefix(DOCKER_SECRET) {
            Some(name) => Self::File(PathBuf::from("/run/secrets").join(name.trim())),
            None => Self::Texts(vec![text]),
        }
    }
}

impl Notes {
    /// Adds a mistake.
    pub fn wrong(&mut self, location: Location, path: &str, message: impl Into<String>, mend: impl Into<String>) {
        self.mistakes.push(finding(location, path, message, mend));
    }

    /// Adds a remark.
    pub fn remark(&mut self, location: Location, path: &str, message: impl Into<String>, mend: impl Into<String>) {
        self.warnings.push(finding(location, path, message, mend));
    }
}

/// What the environment says. An empty variable counts as none: compose files often pass `${VAR}` on.
pub(super) fn environment(variables: &BTreeMap<String, String>, notes: &mut Notes) -> Layer {
    let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    let mut layer = Layer::new();
    for setting in SETTINGS {
        let raws = setting.envs().filter_map(|name| {
            let twin = format!("{name}_FILE");
            let path = set(&twin).filter(|_| setting.has_file_twin);
            if set(&name).is_some() && path.is_some() {
                notes.wrong(Location::file(&twin), setting.key, format!("set beside {name}"), "set one of the two");
            }
            let text = set(&name).map(|text| Raw { location: Location::file(&name), content: split(setting, text) });
            text.or_else(|| {
                path.map(|path| Raw { location: Location::file(&twin), content: Content::File(path.into()) })
            })
        });
        // All are looked at, for their mistakes; ours comes first.
        if let Some(raw) = raws.collect::<Vec<_>>().into_iter().next() {
            layer.insert(setting.key, raw);
        }
    }
    for name in variables.keys().filter(|name| name.starts_with(ENV_PREFIX) && set(name).is_some()) {
        unknown_variable(name, notes);
    }
    layer
}

/// What a file of ours says, the top keys `skip` aside.
pub(super) fn file(document: &Map, skip: &[&str], notes: &mut Notes) -> Layer {
    let mut layer = Layer::new();
    read_map(document, "", skip, &mut layer, notes);
    layer
}

/// A value's texts: a list kind may be written as one text with commas or lines.
pub(super) fn split(setting: &Setting, text: &str) -> Content {
    match Content::of(text) {
        Content::Texts(_) if setting.kind.is_list() => {
            let items = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
            Content::Texts(items.map(str::to_owned).collect())
        }
        other => other,
    }
}

fn read_map(map: &Map, group: &str, skip: &[&str], layer: &mut Layer, notes: &mut Notes) {
    for entry in map.iter().filter(|entry| !group.is_empty() || !skip.contains(&entry.key.as_str())) {
        let key = if group.is_empty() { entry.key.clone() } else { format!("{group}.{}", entry.key) };
        if let Some(setting) = super::settings::setting(&key) {
            read_value(setting, &entry.value, &key, layer, notes);
        } else if let Some(setting) = file_twin(&key) {
            read_twin(setting, entry, &key, layer, notes);
        } else if is_group(&key) {
            match (entry.value.as_map(), entry.value.is_null()) {
                (Some(inner), _) => read_map(inner, &key, skip, layer, notes),
                (None, true) => {}
                (None, false) => {
                    let message = format!("found {}, accepted: a map", entry.value.kind());
                    notes.wrong(entry.value.location.clone(), &key, message, group_example(&key));
                }
            }
        } else {
            unknown_key(entry, &key, notes);
        }
    }
}

fn read_value(setting: &'static Setting, node: &Node, path: &str, layer: &mut Layer, notes: &mut Notes) {
    if node.is_null() {
        return;
    }
    let items = node.as_seq().filter(|_| setting.kind.is_list());
    let texts = items.and_then(|items| items.iter().map(|item| item.spelled().map(str::to_owned)).collect());
    let content = node.spelled().map(|text| split(setting, text)).or(texts.map(Content::Texts));
    if let Some(content) = content {
        insert(setting, Raw { location: node.location.clone(), content }, path, layer, notes);
    } else {
        let message = format!("found {}, accepted: {}", node.kind(), setting.kind.accepts());
        notes.wrong(node.location.clone(), path, message, "");
    }
}

fn read_twin(setting: &'static Setting, entry: &Entry, path: &str, layer: &mut Layer, notes: &mut Notes) {
    let location = entry.value.location.clone();
    match entry.value.as_str() {
        Some(file) => insert(setting, Raw { location, content: Content::File(file.into()) }, path, layer, notes),
        None if entry.value.is_null() => {}
        None => notes.wrong(location, path, format!("found {}, accepted: a path", entry.value.kind()), ""),
    }
}

fn insert(setting: &'static Setting, raw: Raw, path: &str, layer: &mut Layer, notes: &mut Notes) {
    let location = raw.location.clone();
    if layer.insert(setting.key, raw).is_some() {
        let message = format!("{0} and {0}_file are both set", setting.key);
        notes.wrong(location, path, message, "set one of the two");
    }
}

fn unknown_key(entry: &Entry, key: &str, notes: &mut Notes) {
    let groups = SETTINGS.iter().filter_map(|setting| setting.key.split_once('.')).map(|(group, _)| group);
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.key).chain(groups).chain([POLICY_KEY]).collect();
    let mend = nearest(key, &known).or_else(|| same_last_word(key)).map_or_else(String::new, |near| {
        let example = near.split_once('.').map(|(group, name)| format!(", that is `{group}: {{{name}: …}}`"));
        format!("did you mean {near}{}?", example.filter(|_| !key.contains('.')).unwrap_or_default())
    });
    notes.wrong(entry.key_location.clone(), key, "no such setting", mend);
}

/// `branch` or `repo.branch` where `git.branch` is meant.
fn same_last_word(key: &str) -> Option<&'static str> {
    let word = key.rsplit('.').next()?;
    SETTINGS.iter().map(|setting| setting.key).find(|known| known.rsplit('.').next() == Some(word))
}

fn unknown_variable(name: &str, notes: &mut Notes) {
    let twin = |setting: &&Setting| setting.has_file_twin;
    let ours = SETTINGS.iter().map(Setting::env);
    let twins = SETTINGS.iter().filter(twin).map(|setting| setting.env() + "_FILE");
    let others = OTHER_VARIABLES.iter().map(|&name| name.to_owned());
    let known: Vec<String> = ours.chain(twins).chain(others).collect();
    if known.iter().any(|known| known == name) {
        return;
    }
    if name.strip_prefix(ENV_PREFIX).is_some_and(|word| word.eq_ignore_ascii_case(POLICY_KEY)) {
        // Whoever sets it believes that something is forbidden.
        let mend = "write `policy: {…}` into swarmkeeper.yml";
        notes.wrong(Location::file(name), "", "the policy stands in the file only", mend);
        return;
    }
    let words: Vec<&str> = known.iter().filter_map(|known| known.strip_prefix(ENV_PREFIX)).collect();
    let word = name.strip_prefix(ENV_PREFIX).unwrap_or(name);
    match nearest(word, &words) {
        Some(near) => {
            notes.wrong(Location::file(name), "", "no such setting", format!("did you mean {ENV_PREFIX}{near}?"));
        }
        // Not a slip: it may be meant for a script beside us.
        None => notes.remark(Location::file(name), "", "no such setting; it has no effect", ""),
    }
}

fn file_twin(key: &str) -> Option<&'static Setting> {
    super::settings::setting(key.strip_suffix("_file")?).filter(|setting| setting.has_file_twin)
}

fn is_group(key: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.key.split_once('.').is_some_and(|(group, _)| group == key))
}

fn group_example(group: &str) -> String {
    let first = SETTINGS.iter().find_map(|setting| setting.key.strip_prefix(group)?.strip_prefix('.'));
    format!("such as `{group}: {{{}: …}}`", first.unwrap_or("…"))
}

fn finding(location: Location, path: &str, message: impl Into<String>, mend: impl Into<String>) -> Finding {
    Finding { location: Some(location), path: path.to_owned(), message: message.into(), mend: mend.into() }
}
