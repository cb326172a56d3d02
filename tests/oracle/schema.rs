//! The schemas that Docker's CLI carries inside, reduced to what our table of keys says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use swarmkeeper::compose::SECTIONS;
use swarmkeeper::yaml::join;

use crate::engine;

/// The newest minor version of 3.
const MINOR_MAX: u8 = 13;

/// What one version's schema says of a map.
#[derive(Debug, Default, PartialEq)]
pub struct Map {
    keys: BTreeSet<String>,
    /// Others may stand there.
    open: bool,
    /// `x-*` may stand there.
    extensible: bool,
}

/// Maps by their place.
type Maps = BTreeMap<String, Map>;

/// By minor version, as the CLI has it.
pub fn of_the_cli() -> BTreeMap<u8, Maps> {
    let binary = std::fs::read(engine::docker()).unwrap();
    let schema = |minor| {
        let mark = format!("\"id\": \"config_schema_v3.{minor}.json\"");
        let at = find(&binary, mark.as_bytes()).unwrap_or_else(|| panic!("the CLI has no schema for 3.{minor}"));
        let begin = binary[..at].iter().rposition(|byte| *byte == b'{').unwrap();
        let mut documents = serde_json::Deserializer::from_slice(&binary[begin..]).into_iter();
        let root: Value = documents.next().unwrap().unwrap();
        let mut maps = Maps::new();
        walk(&root, &root, "", &mut maps);
        // Maps without keys of their own hold what anybody likes.
        maps.retain(|_, map| !map.keys.is_empty());
        (minor, maps)
    };
    (0..=MINOR_MAX).map(schema).collect()
}

/// By minor version, as our table has it.
pub fn of_ours() -> BTreeMap<u8, Maps> {
    let maps = |minor| {
        let sections = SECTIONS.iter().map(|section| {
            let keys = section.keys().filter(|(_, since)| *since <= minor).map(|(key, _)| key.to_owned()).collect();
            let (open, extensible) = (section.is_open(minor), section.is_extensible(minor));
            (section.path.to_owned(), Map { keys, open, extensible })
        });
        (minor, sections.filter(|(_, map)| !map.keys.is_empty()).collect())
    };
    (0..=MINOR_MAX).map(maps).collect()
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

fn walk(root: &Value, schema: &Value, path: &str, maps: &mut Maps) {
    if let Some(reference) = schema["$ref"].as_str() {
        return walk(root, root.pointer(reference.trim_start_matches('#')).unwrap(), path, maps);
    }
    for either in schema["oneOf"].as_array().into_iter().flatten() {
        walk(root, either, path, maps);
    }
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        let map = maps.entry(path.to_owned()).or_default();
        map.keys.insert(key.clone());
        map.open = schema["additionalProperties"] != Value::Bool(false);
        map.extensible = map.open || schema["patternProperties"].get("^x-").is_some();
        walk(root, below, &join(path, key), maps);
    }
    for (_, below) in schema["patternProperties"].as_object().into_iter().flatten() {
        walk(root, below, &join(path, "*"), maps);
    }
    if let Some(items) = schema.get("items") {
        walk(root, items, &format!("{path}[]"), maps);
    }
}
