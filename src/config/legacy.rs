//! swarm-sync's config file and variables, understood as our own settings; what we cannot do is named, never ignored.

use std::collections::BTreeMap;

use super::settings::setting;
use super::sources::{Content, Layer, Notes, Raw, split};
use crate::model::Location;
use crate::yaml::{Entry, Map, Node};

/// The file's one top key.
pub(super) const TOP_KEY: &str = "swarm-sync";

/// Where swarm-sync's users say which file.
pub(super) const FILE_VARIABLE: &str = "SWARM_SYNC_CONFIG_FILE";

const LEVEL_VARIABLE: &str = "SWARM_SYNC_LOGLEVEL";

const STATE_VARIABLE: &str = "SWARM_SYNC_STATE_FILE";

/// Bunyan-like levels by their number, 0 first.
const LEVELS: &[&str] = &["trace", "debug", "info", "warn", "error", "off"];

/// What stands below `swarm-sync:`.
pub(super) fn file(top: &Entry, notes: &mut Notes) -> Layer {
    let mut layer = Layer::new();
    let Some(map) = top.value.as_map() else {
        let message = format!("found {}, accepted: a map", top.value.kind());
        notes.wrong(top.value.location.clone(), TOP_KEY, message, "");
        return layer;
    };
    for entry in map {
        let path = format!("{TOP_KEY}.{}", entry.key);
        match entry.key.as_str() {
            "stacks" => copy("stacks", &entry.value, &path, &mut layer, notes),
            "updateInterval" => interval(entry, &path, &mut layer, notes),
            "git" => git(entry, &path, &mut layer, notes),
            "docker" => docker(entry, &path, &mut layer, notes),
            "repositories" | "git_crypt" => not_yet(entry, &path, notes),
            _ => no_effect(entry, &path, notes),
        }
    }
    layer
}

/// swarm-sync's variables; ours beat them.
pub(super) fn environment(variables: &BTreeMap<String, String>, notes: &mut Notes) -> Layer {
    let mut layer = Layer::new();
    let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    if let Some(level) = set(LEVEL_VARIABLE) {
        let location = Location::file(LEVEL_VARIABLE);
        let by_number = level.parse::<usize>().ok().and_then(|number| LEVELS.get(number).copied());
        let level = by_number.unwrap_or(if level == "silent" { "off" } else { level });
        layer.insert("log_level", Raw { location, content: Content::of(level) });
    }
    if set(STATE_VARIABLE).is_some() {
        let message = "has no effect: state lives in the swarm, caches in state_dir";
        notes.remark(Location::file(STATE_VARIABLE), "", message, "");
    }
    layer
}

fn git(top: &Entry, path: &str, layer: &mut Layer, notes: &mut Notes) {
    let Some(map) = group(top, path, notes) else { return };
    for entry in map {
        let path = format!("{path}.{}", entry.key);
        match entry.key.as_str() {
            "url" => copy("git.url", &entry.value, &path, layer, notes),
            "branch" => copy("git.branch", &entry.value, &path, layer, notes),
            _ => no_effect(entry, &path, notes),
        }
    }
    if map.get("branch").is_none() {
        let message = "no branch is named: swarm-sync took the repo's default branch, swarmkeeper follows main";
        notes.remark(top.key_location.clone(), path, message, "name it: `branch: master`");
    }
}

fn docker(top: &Entry, path: &str, layer: &mut Layer, notes: &mut Notes) {
    let Some(map) = group(top, path, notes) else { return };
    let text = |key: &str| map.get(key).and_then(Node::spelled);
    let address = match (text("socketPath"), text("host")) {
        (Some(socket), _) => Some(format!("unix://{socket}")),
        (None, Some(host)) => {
            let host = host.split_once("://").map_or(host, |(_, host)| host);
            Some(format!("tcp://{host}:{}", text("port").unwrap_or("2375")))
        }
        (None, None) => None,
    };
    if let Some(address) = address {
        let location = top.value.location.clone();
        layer.insert("docker_host", Raw { location, content: Content::of(address) });
    }
    if let Some(entry) = map.entry("protocol").filter(|entry| !matches!(entry.value.spelled(), Some("http"))) {
        not_yet(entry, &format!("{path}.protocol"), notes);
    }
    for entry in map {
        if !matches!(entry.key.as_str(), "socketPath" | "host" | "port" | "protocol") {
            no_effect(entry, &format!("{path}.{}", entry.key), notes);
        }
    }
}

/// Milliseconds.
fn interval(entry: &Entry, path: &str, layer: &mut Layer, notes: &mut Notes) {
    let location = entry.value.location.clone();
    if let Some(milliseconds) = entry.value.spelled().and_then(|text| text.parse::<u64>().ok()) {
        let content = Content::of(format!("{milliseconds}ms"));
        layer.insert("poll_interval", Raw { location, content });
    } else {
        let message = format!("found {}, accepted: a number of milliseconds", entry.value.kind());
        notes.wrong(location, path, message, "");
    }
}

fn copy(key: &'static str, node: &Node, path: &str, layer: &mut Layer, notes: &mut Notes) {
    let Some(setting) = setting(key) else { return };
    let location = node.location.clone();
    let content = match node.as_seq() {
        Some(items) => {
            items.iter().map(|item| item.spelled().map(str::to_owned)).collect::<Option<_>>().map(Content::Texts)
        }
        None => node.spelled().map(|text| split(setting, text)),
    };
    match content {
        Some(content) => _ = layer.insert(key, Raw { location, content }),
        None if node.is_null() => {}
        None => {
            let message = format!("found {}, accepted: {}", node.kind(), setting.kind.accepts());
            notes.wrong(location, path, message, "");
        }
    }
}

fn group<'a>(entry: &'a Entry, path: &str, notes: &mut Notes) -> Option<&'a Map> {
    let map = entry.value.as_map();
    if map.is_none() && !entry.value.is_null() {
        let message = format!("found {}, accepted: a map", entry.value.kind());
        notes.wrong(entry.value.location.clone(), path, message, "");
    }
    map
}

fn not_yet(entry: &Entry, path: &str, notes: &mut Notes) {
    notes.remark(entry.key_location.clone(), path, "swarmkeeper cannot do this yet; it has no effect", "");
}

fn no_effect(entry: &Entry, path: &str, notes: &mut Notes) {
    notes.remark(entry.key_location.clone(), path, "has no effect in swarmkeeper", "");
}
