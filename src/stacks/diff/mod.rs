//! What differs between a service as wanted and as it lives, in words a person can follow to the file.
//!
//! Values that may be passwords (variables, labels, commands, driver options) are named, never shown: a plan goes into logs,
//! Consul and chat.

mod normalise;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::Location;
use crate::spec::{LABEL_IMAGE, ServiceSpec};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What differs, as a person calls it: `image`, `variable LOG_LEVEL`, `label traefik.enable`.
    pub what: String,
    /// As it lives; none where it does not, or where it is not shown.
    pub old: Option<String>,
    /// As wanted; none where it goes, or where it is not shown.
    pub new: Option<String>,
    /// Where the file says so.
    pub location: Option<Location>,
    /// True if swarm replaces the service's tasks for it.
    pub restarts: bool,
}

/// What turns IDs and paths into words.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    /// The service's compose key.
    pub key: &'a str,
    /// Where each compose path stands.
    pub sources: &'a BTreeMap<String, Location>,
    /// Network IDs to names.
    pub networks: &'a dyn Fn(&str) -> String,
}

/// True if nothing would be written.
pub fn same(wanted: &ServiceSpec, live: &ServiceSpec) -> bool {
    normalise::service(wanted) == normalise::service(live)
}

/// All differences, in the order of the spec's fields.
pub fn differences(wanted: &ServiceSpec, live: &ServiceSpec, words: Words<'_>) -> Vec<Difference> {
    let (new, old) = (normalise::service(wanted), normalise::service(live));
    if new == old {
        return Vec::new();
    }
    let mut found = Vec::new();
    walk(&mut Vec::new(), Some(&old), Some(&new), &mut |path, old, new| {
        found.push(difference(path, old, new, words));
    });
    let image_changed = found.iter().any(|difference| difference.what == "image");
    // The label repeats the image's text, which is told already.
    found.retain(|difference| !(image_changed && difference.what == format!("label {LABEL_IMAGE}")));
    found
}

/// True if an update to `wanted` replaces tasks.
pub fn restarts(differences: &[Difference]) -> bool {
    differences.iter().any(|difference| difference.restarts)
}

type Report<'a> = dyn FnMut(&[String], Option<&Value>, Option<&Value>) + 'a;

fn walk(path: &mut Vec<String>, old: Option<&Value>, new: Option<&Value>, report: &mut Report<'_>) {
    if old == new {
        return;
    }
    let empty = Map::new();
    let fields = |value: Option<&Value>| value.and_then(Value::as_object).cloned();
    let (old_fields, new_fields) = (fields(old), fields(new));
    let is_leaf = rule(path).is_some_and(|rule| rule.whole && path.len() > rule.path.len())
        || (old_fields.is_none() && new_fields.is_none());
    if is_leaf {
        report(path, old, new);
        return;
    }
    let (old, new) = (old_fields.as_ref().unwrap_or(&empty), new_fields.as_ref().unwrap_or(&empty));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        path.push(name.clone());
        walk(path, old.get(name), new.get(name), report);
        path.pop();
    }
}

/// How a part of a spec is called.
struct Rule {
    /// Its path in the spec.
    path: &'static [&'static str],
    /// What people call it; a member's name follows where there is one.
    word: &'static str,
    /// Its path in a compose file, below the service.
    compose: &'static str,
    /// Whether old and new may be shown.
    shown: bool,
    /// Whether its members are told as a whole, not field by field.
    whole: bool,
}

const fn rule_of(path: &'static [&'static str], word: &'static str, compose: &'static str) -> Rule {
    Rule { path, word, compose, shown: true, whole: false }
}

const fn hidden(path: &'static [&'static str], word: &'static str, compose: &'static str) -> Rule {
    Rule { path, word, compose, shown: false, whole: true }
}

const fn members(path: &'static [&'static str], word: &'static str, compose: &'static str) -> Rule {
    Rule { path, word, compose, shown: true, whole: true }
}

/// The longest path wins; what no rule knows is called by its field and not shown.
const RULES: &[Rule] = &[
    hidden(&["Labels"], "label", "deploy.labels"),
    rule_of(&["Mode"], "mode", "deploy.mode"),
    rule_of(&["Mode", "Replicated", "Replicas"], "replicas", "deploy.replicas"),
    rule_of(&["Mode", "ReplicatedJob"], "job", "deploy.replicas"),
    rule_of(&["UpdateConfig"], "update", "deploy.update_config"),
    rule_of(&["RollbackConfig"], "rollback", "deploy.rollback_config"),
    rule_of(&["EndpointSpec", "Mode"], "endpoint mode", "deploy.endpoint_mode"),
    rule_of(&["EndpointSpec", "Ports"], "ports", "ports"),
    rule_of(&["TaskTemplate", "ContainerSpec", "Image"], "image", "image"),
    hidden(&["TaskTemplate", "ContainerSpec", "Labels"], "container label", "labels"),
    hidden(&["TaskTemplate", "ContainerSpec", "Command"], "entrypoint", "entrypoint"),
    hidden(&["TaskTemplate", "ContainerSpec", "Args"], "command", "command"),
    hidden(&["TaskTemplate", "ContainerSpec", "Env"], "variable", "environment"),
    rule_of(&["TaskTemplate", "ContainerSpec", "Hostname"], "hostname", "hostname"),
    rule_of(&["TaskTemplate", "ContainerSpec", "Dir"], "working_dir", "working_dir"),
    rule_of(&["TaskTemplate", "ContainerSpec", "User"], "user", "user"),
    rule_of(&["TaskTemplate", "ContainerSpec", "Init"], "init", "init"),
    rule_of(&["TaskTemplate", "ContainerSpec", "StopSignal"], "stop_signal", "stop_signal"),
    rule_of(&["TaskTemplate", "ContainerSpec", "TTY"], "tty", "tty"),
    rule_of(&["TaskTemplate", "ContainerSpec", "OpenStdin"], "stdin_open", "stdin_open"),
    rule_of(&["TaskTemplate", "ContainerSpec", "ReadOnly"], "read_only", "read_only"),
    rule_of(&["TaskTemplate", "ContainerSpec", "StopGracePeriod"], "stop_grace_period", "stop_grace_period"),
    hidden(&["TaskTemplate", "ContainerSpec", "Mounts"], "mount", "volumes"),
    hidden(&["TaskTemplate", "ContainerSpec", "Healthcheck"], "healthcheck", "healthcheck"),
    rule_of(&["TaskTemplate", "ContainerSpec", "Hosts"], "extra_hosts", "extra_hosts"),
    rule_of(&["TaskTemplate", "ContainerSpec", "DNSConfig"], "dns", "dns"),
    members(&["TaskTemplate", "ContainerSpec", "Secrets"], "secret", "secrets"),
    members(&["TaskTemplate", "ContainerSpec", "Configs"], "config", "configs"),
    rule_of(&["TaskTemplate", "ContainerSpec", "Sysctls"], "sysctl", "sysctls"),
    rule_of(&["TaskTemplate", "ContainerSpec", "CapabilityAdd"], "cap_add", "cap_add"),
    rule_of(&["TaskTemplate", "ContainerSpec", "CapabilityDrop"], "cap_drop", "cap_drop"),
    rule_of(&["TaskTemplate", "ContainerSpec", "Ulimits"], "ulimit", "ulimits"),
    rule_of(&["TaskTemplate", "Resources"], "resources", "deploy.resources"),
    rule_of(&["TaskTemplate", "RestartPolicy"], "restart policy", "deploy.restart_policy"),
    rule_of(&["TaskTemplate", "Placement"], "placement", "deploy.placement"),
    members(&["TaskTemplate", "Networks"], "network", "networks"),
    hidden(&["TaskTemplate", "LogDriver"], "logging", "logging"),
    rule_of(&["TaskTemplate", "ForceUpdate"], "force update", ""),
];

fn rule(path: &[String]) -> Option<&'static Rule> {
    let fits = |rule: &&Rule| path.len() >= rule.path.len() && rule.path.iter().zip(path).all(|(a, b)| a == b);
    RULES.iter().filter(fits).max_by_key(|rule| rule.path.len())
}

fn difference(path: &[String], old: Option<&Value>, new: Option<&Value>, words: Words<'_>) -> Difference {
    let restarts = matches!(path.first().map(String::as_str), Some("TaskTemplate" | "EndpointSpec"));
    let Some(rule) = rule(path) else {
        return Difference { what: path.join("."), old: None, new: None, location: source(words, ""), restarts };
    };
    let member = path.get(rule.path.len()..).unwrap_or_default().join(".");
    let member = match rule.word {
        "network" => (words.networks)(&member),
        _ => member,
    };
    // Secrets and configs go by the names of their objects, which change with their content; the file's name stays.
    let by_name = |value: Option<&Value>, field: &str| value?.get(field)?.as_str().map(str::to_owned);
    let (what, old, new) = match rule.word {
        "secret" => (rule.word.to_owned(), by_name(old, "SecretName"), by_name(new, "SecretName")),
        "config" => (rule.word.to_owned(), by_name(old, "ConfigName"), by_name(new, "ConfigName")),
        "network" => (format!("network {member}"), presence(old), presence(new)),
        word => {
            let what = if member.is_empty() { word.to_owned() } else { format!("{word} {member}") };
            let show = |value: Option<&Value>| value.filter(|_| rule.shown).map(text);
            (what, show(old), show(new))
        }
    };
    let location = source(words, &format!("{}.{member}", rule.compose)).or_else(|| source(words, rule.compose));
    Difference { what, old, new, location, restarts }
}

/// The nearest place in the file: the path itself, or what it stands in.
fn source(words: Words<'_>, compose: &str) -> Option<Location> {
    let mut path = format!("services.{}.{compose}", words.key);
    loop {
        let trimmed = path.trim_end_matches('.');
        if let Some(location) = words.sources.get(trimmed) {
            return Some(location.clone());
        }
        let cut = trimmed.rfind('.')?;
        path.truncate(cut);
        if path == "services" {
            return None;
        }
    }
}

fn presence(value: Option<&Value>) -> Option<String> {
    value.map(|value| {
        let aliases = value.get("Aliases").and_then(Value::as_array);
        let aliases: Vec<&str> = aliases.into_iter().flatten().filter_map(Value::as_str).collect();
        if aliases.is_empty() { "joined".to_owned() } else { format!("as {}", aliases.join(", ")) }
    })
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(members) => members.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
