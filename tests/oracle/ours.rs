//! What we make of the same files, and the comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use swarmkeeper::compose::{self, Input, Loaded, Mode, SourceFile};
use swarmkeeper::model::{Findings, StackName, StackObjects, Wanted};

use crate::ENVIRONMENT;
use crate::engine::Deployed;

/// What we make of `files`, which stand in `folder`.
pub fn load(files: &[PathBuf], folder: &Path) -> Result<StackObjects, Findings> {
    load_as(files, folder, Mode::Strict).map(|loaded| loaded.objects)
}

/// The same, as strict as the mode says, with what there is to remark.
pub fn load_as(files: &[PathBuf], folder: &Path, mode: Mode) -> Result<Loaded, Findings> {
    let file = |path: &PathBuf| SourceFile {
        name: path.to_str().unwrap().to_owned(),
        text: std::fs::read_to_string(path).unwrap(),
    };
    compose::load(&Input {
        files: &files.iter().map(file).collect::<Vec<_>>(),
        stack: &StackName::new("s").unwrap(),
        environment: &ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        read_file: &|path| Ok(std::fs::read(path).ok()),
        folder: folder.to_str(),
        mode,
    })
}

/// The names of external objects, by kind.
pub fn external(objects: &StackObjects) -> BTreeMap<String, BTreeSet<String>> {
    fn names<T>(wanted: &BTreeMap<String, Wanted<T>>) -> BTreeSet<String> {
        let name = |wanted: &Wanted<T>| if let Wanted::External(name) = wanted { Some(name.clone()) } else { None };
        wanted.values().filter_map(name).collect()
    }
    let kinds = [
        ("networks", names(&objects.networks)),
        ("secrets", names(&objects.secrets)),
        ("configs", names(&objects.configs)),
    ];
    kinds.map(|(kind, names)| (kind.to_owned(), names)).into()
}

/// A line for each value that differs, ours first, and for an order that does.
///
/// The order is that of the kinds which both write.
pub fn differences(ours: &Deployed, theirs: &Deployed) -> Vec<String> {
    if !ours.output.status.success() {
        let [plan, words] = [&ours.output.stdout, &ours.output.stderr].map(|text| String::from_utf8_lossy(text));
        return vec![format!("we do not deploy it: {plan}{words}")];
    }
    let mut differences = Vec::new();
    let keys: BTreeSet<_> = ours.writes.keys().chain(theirs.writes.keys()).collect();
    for key in keys {
        match (ours.writes.get(key), theirs.writes.get(key)) {
            (Some(a), Some(b)) => compare(a, b, key, &mut differences),
            (Some(_), None) => differences.push(format!("{key}: only ours")),
            (None, _) => differences.push(format!("{key}: only the CLI's")),
        }
    }
    let of_both = |phases: &[String]| -> Vec<String> {
        let is_of_both = |phase: &&String| ours.phases.contains(phase) && theirs.phases.contains(phase);
        phases.iter().filter(is_of_both).cloned().collect()
    };
    let (ours, theirs) = (of_both(&ours.phases), of_both(&theirs.phases));
    if ours != theirs {
        differences.push(format!("the order is {}; {}", ours.join(", "), theirs.join(", ")));
    }
    differences
}

fn compare(ours: &Value, theirs: &Value, path: &str, differences: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => compare(a, b, &format!("{path}.{key}"), differences),
                    (a, b) => differences.push(format!("{path}.{key}: {}, {}", text(a), text(b))),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                compare(a, b, &format!("{path}[{n}]"), differences);
            }
        }
        // Go writes 0 where we write 0.0.
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => {}
        _ if ours == theirs => {}
        _ => differences.push(format!("{path}: {ours}, {theirs}")),
    }
}

fn text(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), Value::to_string)
}
