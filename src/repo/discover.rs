//! Which stacks a Config Repo holds, by the names of its files and folders.

use std::collections::BTreeMap;

use super::{remark, unreadable, within};
use crate::io::files::{Entry, EntryKind, Files};
use crate::model::{Finding, Findings, StackName};

/// Ends the name of a template.
pub(super) const TEMPLATE_SUFFIX: &str = ".hbs";

const COMPOSE_NAMES: [&str; 4] = ["compose.yml", "compose.yaml", "docker-compose.yml", "docker-compose.yaml"];
const STACK_NAMES: [&str; 2] = ["stack.yml", "stack.yaml"];

/// Where a stack is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// Where its relative paths begin.
    pub folder: String,
    /// Its `stack.yml`.
    pub stack_file: Option<String>,
    /// Compose files that count unless `stack.yml` names others.
    pub compose: Vec<String>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    /// By name; an error where the name has several sources.
    pub sources: BTreeMap<StackName, Result<Source, Findings>>,
    /// Remarks.
    pub findings: Vec<Finding>,
}

/// Lists the stacks below `path`; fails if it cannot.
pub(super) fn discover(files: &dyn Files, path: &str) -> Result<Found, Findings> {
    let failed = |finding| Findings(vec![finding]);
    let path = path.trim_matches('/');
    let path = if path == "." { "" } else { path };
    let entries = files.list(path).map_err(|error| failed(unreadable(&error)))?.ok_or_else(|| {
        failed(remark(None, format!("the repo has no folder {path}"), "set git.path to the folder of stacks"))
    })?;
    let mut found = Search::default();
    for entry in entries.iter().filter(|entry| !entry.name.starts_with('.')) {
        let place = within(path, &entry.name);
        match entry.kind {
            EntryKind::Folder => found.folder(files, &entry.name, &place),
            EntryKind::File => found.file(&entry.name, path, &place),
            EntryKind::Other => found.findings.push(remark(
                Some(&place),
                "neither file nor folder of this repo, so no stack".to_owned(),
                "submodules are not fetched; links must lead inside the repo",
            )),
        }
    }
    let sources = found.sources.into_iter().map(|(name, sources)| (name, only_one(sources))).collect();
    Ok(Found { sources, findings: found.findings })
}

/// The sources of one name, each with its place.
type Sources = Vec<(String, Result<Source, Findings>)>;

/// A search on its way.
#[derive(Default)]
struct Search {
    sources: BTreeMap<StackName, Sources>,
    findings: Vec<Finding>,
}

impl Search {
    fn folder(&mut self, files: &dyn Files, name: &str, place: &str) {
        let entries = match files.list(place) {
            Ok(entries) => entries.unwrap_or_default(),
            Err(error) => return self.add(name, place, Err(Findings(vec![unreadable(&error)]))),
        };
        let those_named = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
            let files = entries.iter().filter(|entry| entry.kind == EntryKind::File && wanted(&entry.name));
            files.map(|entry| within(place, &entry.name)).collect()
        };
        let mut stack_files = those_named(&|name| STACK_NAMES.contains(&name));
        let compose = those_named(&|name| COMPOSE_NAMES.contains(&without_suffix(name)));
        if stack_files.len() > 1 {
            let message = format!("two stack files: {}", stack_files.join(", "));
            return self.add(name, place, Err(Findings(vec![remark(Some(place), message, "keep one")])));
        }
        if stack_files.is_empty() && compose.is_empty() {
            // A folder without YAML is somebody's; with it, it may be a stack with a slip in a name.
            if entries.iter().any(looks_like_yaml) {
                let mend = format!("name its compose file {}, or add a stack.yml", COMPOSE_NAMES[0]);
                self.findings.push(remark(
                    Some(place),
                    "no stack: neither stack.yml nor a compose file".to_owned(),
                    &mend,
                ));
            }
            return;
        }
        let source = Source { folder: place.to_owned(), stack_file: stack_files.pop(), compose };
        self.add(name, place, Ok(source));
    }

    fn file(&mut self, name: &str, folder: &str, place: &str) {
        let Some(stem) = yaml_stem(name) else { return };
        let source = Source { folder: folder.to_owned(), stack_file: None, compose: vec![place.to_owned()] };
        self.add(stem, place, Ok(source));
    }

    fn add(&mut self, name: &str, place: &str, source: Result<Source, Findings>) {
        match StackName::new(name) {
            Ok(name) => self.sources.entry(name).or_default().push((place.to_owned(), source)),
            Err(error) => self.findings.push(remark(Some(place), error.to_string(), "rename it")),
        }
    }
}

fn only_one(sources: Sources) -> Result<Source, Findings> {
    match <[_; 1]>::try_from(sources) {
        Ok([(_, source)]) => source,
        Err(sources) => {
            let places: Vec<String> = sources.into_iter().map(|(place, _)| place).collect();
            let message = format!("several sources of this stack: {}", places.join(", "));
            Err(Findings(vec![remark(None, message, "keep one of them")]))
        }
    }
}

fn looks_like_yaml(entry: &Entry) -> bool {
    entry.kind == EntryKind::File && yaml_stem(&entry.name).is_some()
}

/// `web` of `web.yml`, `web.yaml`, and either with `.hbs`.
fn yaml_stem(name: &str) -> Option<&str> {
    let name = without_suffix(name);
    name.strip_suffix(".yml").or_else(|| name.strip_suffix(".yaml"))
}

fn without_suffix(name: &str) -> &str {
    name.strip_suffix(TEMPLATE_SUFFIX).unwrap_or(name)
}
