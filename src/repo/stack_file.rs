//! `stack.yml`: what a stack's folder says beside its compose files.
//!
//! ```yaml
//! compose: [compose.yml, compose.prod.yml]  # default: the folder's one compose file; a list merges
//! env_file: ../../env/prod.env              # KEY=value lines; one file or a list
//! env: {LOG_LEVEL: info}                    # beats env_file; all that ${…} sees
//! values_file: values.yml                   # for templates; one file or a list, later ones win
//! values: {replicas: 2}                     # beats values_file; maps merge, lists are replaced
//! after: [database]                         # stacks that must have converged before
//! adopt: ask                                # ask | auto: a stack that runs already
//! drift: report                             # report | correct: changes made by hand
//! on_failure: rollback-service              # rollback-service | rollback-stack | stop
//! consul_checks: false                       # true: a task counts once no check in Consul calls it critical
//! recreate: false                           # true makes a changed network anew, with the services on it
//! timeout: 10m                              # for one rollout
//! removed: false                            # true removes the stack, its volumes kept
//! ```
//!
//! Paths are relative to the stack's folder and may lead anywhere in the repo.

use std::collections::BTreeMap;

use serde_json::{Map as JsonMap, Value as Json};

use super::{Named, env, read_text, template, within};
use crate::io::files::Files;
use crate::model::{Adopt, Drift, Finding, OnFailure, StackName, StackSettings};
use crate::yaml::{self, Field, MapReader, Problems, Value};

/// A `stack.yml` with the files it names read in. It has no `Debug`: environment and values hold secrets.
pub(super) struct StackFile {
    pub settings: StackSettings,
    /// None if the file names none.
    pub compose: Option<Vec<Named>>,
    pub env: BTreeMap<String, String>,
    pub values: Json,
    pub warnings: Vec<Finding>,
}

impl Default for StackFile {
    fn default() -> Self {
        Self {
            settings: StackSettings::default(),
            compose: None,
            env: BTreeMap::new(),
            values: Json::Object(JsonMap::new()),
            warnings: Vec::new(),
        }
    }
}

/// Reads the `stack.yml` at `path`, whose relative paths begin at `folder`.
pub(super) fn read(files: &dyn Files, path: &str, folder: &str, problems: &Problems) -> StackFile {
    let mut stack = StackFile::default();
    let file = Named { path: path.to_owned(), location: None };
    let Some(text) = read_text(files, &file, problems) else { return stack };
    let node = match yaml::parse(path, &text) {
        Ok(node) => node,
        Err(findings) => {
            problems.extend(findings);
            return stack;
        }
    };
    let mut map = MapReader::new(&node, "", problems);
    refuse_packs(&mut map);
    stack.settings = settings(&mut map);
    stack.compose = map.take("compose").map(|field| files_in(folder, &field));
    for file in map.take("env_file").map(|field| files_in(folder, &field)).unwrap_or_default() {
        if let Some(text) = read_text(files, &file, problems) {
            env::read(&file.path, &text, &mut stack.env, &mut stack.warnings, problems);
        }
    }
    stack.env.extend(map.take("env").and_then(|field| field.string_map()).unwrap_or_default());
    for file in map.take("values_file").map(|field| files_in(folder, &field)).unwrap_or_default() {
        let Some(text) = read_text(files, &file, problems) else { continue };
        match yaml::parse(&file.path, &text) {
            Ok(node) => add_values(&mut stack.values, &Field::new(&node, "", problems)),
            Err(findings) => problems.extend(findings),
        }
    }
    if let Some(values) = map.take("values") {
        add_values(&mut stack.values, &values);
    }
    map.finish();
    stack
}

/// Packs are swarm-pack's parametrised stacks. They are recognised, so that a repo of swarm-sync's is told what is the matter.
fn refuse_packs(map: &mut MapReader<'_, '_>) {
    if let Some(packs) = map.take_any("packs") {
        packs.wrong("packs come with a later version", "until then, render them into a compose file");
    }
}

fn settings(map: &mut MapReader<'_, '_>) -> StackSettings {
    let default = StackSettings::default();
    let after = map.take("after").map(|field| stack_names(&field));
    StackSettings {
        after: after.unwrap_or_default(),
        adopt: map.one_of("adopt", &[("ask", Adopt::Ask), ("auto", Adopt::Auto)]).unwrap_or(default.adopt),
        removed: map.bool("removed").unwrap_or(default.removed),
        drift: map.one_of("drift", &[("report", Drift::Report), ("correct", Drift::Correct)]).unwrap_or(default.drift),
        on_failure: map
            .one_of(
                "on_failure",
                &[
                    ("rollback-service", OnFailure::RollbackService),
                    ("rollback-stack", OnFailure::RollbackStack),
                    ("stop", OnFailure::Stop),
                ],
            )
            .unwrap_or(default.on_failure),
        consul_checks: map.bool("consul_checks").unwrap_or(default.consul_checks),
        recreate: map.bool("recreate").unwrap_or(default.recreate),
        timeout: map.take("timeout").and_then(|field| timeout(&field)).unwrap_or(default.timeout),
    }
}

fn timeout(field: &Field<'_, '_>) -> Option<std::time::Duration> {
    let timeout = field.duration()?;
    if timeout.is_zero() {
        field.wrong("no rollout ends at once", "write a time such as 10m");
        return None;
    }
    Some(timeout)
}

fn stack_names(field: &Field<'_, '_>) -> Vec<StackName> {
    let mut names = Vec::new();
    for name in texts(field) {
        match name.string().map(StackName::new) {
            Some(Ok(stack)) => names.push(stack),
            Some(Err(error)) => name.wrong(error.to_string(), ""),
            None => {}
        }
    }
    names
}

/// Files that are named relative to `folder`.
fn files_in(folder: &str, field: &Field<'_, '_>) -> Vec<Named> {
    let named = |field: &Field<'_, '_>| {
        let path = within(folder, &field.string()?);
        Some(Named { path, location: Some(field.node.location.clone()) })
    };
    texts(field).iter().filter_map(named).collect()
}

/// A text, or a list of texts.
fn texts<'n, 'p>(field: &Field<'n, 'p>) -> Vec<Field<'n, 'p>> {
    match field.node.value {
        Value::Seq(_) => field.items("a list of texts").unwrap_or_default(),
        _ => vec![field.clone()],
    }
}

fn add_values(values: &mut Json, field: &Field<'_, '_>) {
    match field.node.value {
        Value::Null => {}
        Value::Map(_) => template::merge(values, template::value_of(field.node)),
        _ => field.expected("a map"),
    }
}
