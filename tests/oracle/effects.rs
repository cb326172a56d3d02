//! Nothing is dropped silently: a key without which the same comes out has a warning, or says what holds anyway.

use std::path::Path;

use serde_json::Value;
use swarmkeeper::compose::{Loaded, Mode, Section};
use swarmkeeper::yaml::{self, join};

use crate::case::Case;
use crate::ours;

/// Keys whose value may be what holds without them.
const DEFAULTS: &[(&str, &str)] = &[
    ("networks.*.driver", "\"overlay\""),
    ("networks.*.external", "\"${UNSET:-false}\""),
    ("networks.*.name", "\"host\""),
    ("services.*.configs[].target", "\"a\""),
    ("services.*.deploy.mode", "\"replicated\""),
    ("services.*.env_file", "\"./empty.env\""),
    ("services.*.healthcheck.disable", "\"${UNSET:-false}\""),
    ("services.*.networks", "[\"default\"]"),
    ("services.*.read_only", "\"${UNSET:-n}\""),
    ("services.*.restart", "\"no\""),
    ("services.*.secrets[].target", "\"a\""),
    ("services.*.volumes[].volume", "{\"nocopy\":\"${UNSET:-off}\"}"),
    ("services.*.volumes[].volume.nocopy", "\"${UNSET:-off}\""),
    // A cluster's volume is somebody else's either way.
    ("volumes.*.driver", "\"csi\""),
    ("volumes.*.external", "true"),
];

/// The keys of a case, by path, that have no effect and no warning.
pub fn silent_keys(case: &Case, mode: Mode) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    case.write(folder.path());
    let texts: Vec<String> = case.texts().collect();
    let [text] = texts.as_slice() else { return Vec::new() };
    let Ok(node) = yaml::parse("case", text) else { return Vec::new() };
    let document = node.to_json();
    let Some(whole) = load(&document, folder.path(), mode) else { return Vec::new() };
    let mut silent = Vec::new();
    for place in places(&document, "", "", "") {
        let mut without = document.clone();
        let Some(Value::Object(map)) = without.pointer_mut(&place.map) else { continue };
        let value = map.remove(&place.key).unwrap();
        let alike = load(&without, folder.path(), mode).is_some_and(|rest| said(&rest) == said(&whole));
        // What is said of a part or of the whole holds for the key.
        let about = |path: &str| place.path.starts_with(path) || path.starts_with(&place.path);
        let named = whole.warnings.iter().any(|warning| about(&warning.path));
        // The version says how strict the schema is, and no more.
        let default =
            place.key == "version" || DEFAULTS.contains(&(place.pattern.as_str(), value.to_string().as_str()));
        if alike && !named && !default && !says_nothing(&value) {
            silent.push(format!("{}: {} = {value}", case.name, place.path));
        }
    }
    silent
}

fn load(document: &Value, folder: &Path, mode: Mode) -> Option<Loaded> {
    let file = folder.join("1.yml");
    std::fs::write(&file, document.to_string()).unwrap();
    ours::load_as(&[file], folder, mode).ok()
}

/// All but the places.
fn said(loaded: &Loaded) -> String {
    let objects = &loaded.objects;
    format!("{:?}{:?}{:?}{:?}", objects.services, objects.networks, objects.secrets, objects.configs)
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(items) => items.iter().all(says_nothing),
        Value::Object(map) => map.iter().all(|(key, value)| key.starts_with("x-") || says_nothing(value)),
    }
}

/// A key of the schema in a document.
struct Place {
    /// JSON pointer of the map that it stands in.
    map: String,
    key: String,
    path: String,
    pattern: String,
}

fn places(value: &Value, pointer: &str, path: &str, pattern: &str) -> Vec<Place> {
    let mut found = Vec::new();
    match value {
        Value::Object(map) => {
            let section = Section::at(pattern);
            // What begins so is an extension, or, leniently, taken for one.
            for (key, below) in map.iter().filter(|(key, _)| !key.starts_with("x-")) {
                let (path, pattern) = (join(path, key), join(pattern, if section.is_some() { key } else { "*" }));
                let escaped = key.replace('~', "~0").replace('/', "~1");
                found.extend(places(below, &format!("{pointer}/{escaped}"), &path, &pattern));
                if section.is_some() {
                    found.push(Place { map: pointer.to_owned(), key: key.clone(), path, pattern });
                }
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                let (pointer, path) = (format!("{pointer}/{n}"), format!("{path}[{n}]"));
                found.extend(places(item, &pointer, &path, &format!("{pattern}[]")));
            }
        }
        _ => {}
    }
    found
}
