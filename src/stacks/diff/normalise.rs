//! One shape for a service as wanted and as it lives, so that equal means equal.
//!
//! Swarm stores more than it was sent and drops some of it: `Runtime: container`, `Isolation: default`, `Protocol` and `PublishMode`
//! of a port, `FailureAction: pause` and `Order: stop-first` in a config that was sent, `Mode: vip`; a `NoNewPrivileges: false` or an empty
//! list disappears. Here defaults are put in or taken out on both sides, what is empty goes, and lists whose members have a key of
//! their own (variables, mounts, networks, secrets, …) become maps by that key, so that a difference has a name.

use serde_json::{Map, Value, json};

use crate::spec::ServiceSpec;

/// Fields where zero, false or empty says something else than absence.
const MEANINGFUL_WHEN_EMPTY: [&str; 7] =
    ["Replicas", "Init", "Delay", "Window", "StopGracePeriod", "MaxConcurrent", "TotalCompletions"];

/// Maps of names to texts: an empty text is a value there.
const TEXT_MAPS: [&str; 5] = ["Labels", "Options", "Sysctls", "DriverOpts", "Env"];

/// A service's comparable shape.
pub fn service(spec: &ServiceSpec) -> Value {
    // Plain data always serialises; a failure would make both sides null, and so equal: nothing would be written.
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    if let Some(template) = value.get_mut("TaskTemplate") {
        task_template(template);
    }
    let mut mode = value.get_mut("Mode").map(Value::take).unwrap_or_default();
    if mode.as_object().is_none_or(Map::is_empty) {
        mode = json!({"Replicated": {}});
    }
    fill_in(&mut mode, "Replicated", &[("Replicas", json!(1))]);
    fill_in(&mut mode, "ReplicatedJob", &[("MaxConcurrent", json!(1))]);
    // Swarm runs as many as may run at once, unless told otherwise.
    if let Some(at_once) = mode.pointer("/ReplicatedJob/MaxConcurrent").cloned() {
        fill_in(&mut mode, "ReplicatedJob", &[("TotalCompletions", at_once)]);
    }
    for field in ["UpdateConfig", "RollbackConfig"] {
        fill_in(&mut value, field, &[("FailureAction", json!("pause")), ("Order", json!("stop-first"))]);
    }
    endpoint(&mut value);
    strip(&mut value, false);
    set(&mut value, "Mode", mode);
    value
}

fn task_template(template: &mut Value) {
    drop_if(template, "Runtime", &json!("container"));
    if let Some(container) = template.get_mut("ContainerSpec") {
        drop_if(container, "Isolation", &json!("default"));
        variables(container);
        keyed(container, "Mounts", "/Target");
        keyed(container, "Secrets", "/File/Name");
        keyed(container, "Configs", "/File/Name");
        keyed(container, "Ulimits", "/Name");
    }
    fill_in(template, "RestartPolicy", &[("Condition", json!("any"))]);
    keyed(template, "Networks", "/Target");
}

fn endpoint(value: &mut Value) {
    if value.get("EndpointSpec").is_none() {
        set(value, "EndpointSpec", json!({}));
    }
    fill_in(value, "EndpointSpec", &[("Mode", json!("vip"))]);
    let ports = value.pointer_mut("/EndpointSpec/Ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten() {
        fill(port, &[("Protocol", json!("tcp")), ("PublishMode", json!("ingress"))]);
    }
    if let Some(Value::Array(ports)) = value.pointer_mut("/EndpointSpec/Ports") {
        let mut texts: Vec<String> = ports.iter().map(port_text).collect();
        texts.sort();
        *ports = texts.into_iter().map(Value::String).collect();
    }
}

/// A port as people write it: `8080:80/tcp`, with `host` where it is published on the node itself.
fn port_text(port: &Value) -> String {
    let number = |key: &str| port.get(key).and_then(Value::as_u64).unwrap_or_default();
    let text = |key: &str| port.get(key).and_then(Value::as_str).unwrap_or_default();
    let published = match number("PublishedPort") {
        0 => String::new(),
        published => format!("{published}:"),
    };
    let host = if text("PublishMode") == "ingress" { String::new() } else { format!(" {}", text("PublishMode")) };
    format!("{published}{}/{}{host}", number("TargetPort"), text("Protocol"))
}

/// `["A=1"]` → `{"A": "1"}`.
fn variables(container: &mut Value) {
    let Some(Value::Array(lines)) = container.get_mut("Env").map(Value::take) else { return };
    let pair = |line: &Value| {
        let line = line.as_str().unwrap_or_default();
        let (name, value) = line.split_once('=').map_or((line, Value::Bool(true)), |(n, v)| (n, Value::from(v)));
        (name.to_owned(), value)
    };
    set(container, "Env", Value::Object(lines.iter().map(pair).collect()));
}

/// A list of objects → a map by the text found at `key` in each; members without one keep their place as key.
fn keyed(parent: &mut Value, field: &str, key: &str) {
    let Some(Value::Array(members)) = parent.get_mut(field).map(Value::take) else { return };
    let mut map = Map::new();
    for (index, member) in members.into_iter().enumerate() {
        let name = member.pointer(key).and_then(Value::as_str).map_or_else(|| format!("#{index}"), str::to_owned);
        map.insert(name, member);
    }
    set(parent, field, Value::Object(map));
}

fn set(parent: &mut Value, field: &str, value: Value) {
    if let Some(fields) = parent.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

/// [`fill`]s a member of `parent`, if it has it.
fn fill_in(parent: &mut Value, field: &str, defaults: &[(&str, Value)]) {
    if let Some(object) = parent.get_mut(field) {
        fill(object, defaults);
    }
}

/// Puts a default where the field is absent or an empty text; a zero is a value.
fn fill(object: &mut Value, defaults: &[(&str, Value)]) {
    let Some(fields) = object.as_object_mut() else { return };
    for (name, default) in defaults {
        let field = fields.entry(*name).or_insert(Value::Null);
        if is_empty(field) && field.as_u64().is_none() {
            field.clone_from(default);
        }
    }
}

fn drop_if(parent: &mut Value, field: &str, default: &Value) {
    if let Some(fields) = parent.as_object_mut()
        && fields.get(field) == Some(default)
    {
        fields.remove(field);
    }
}

/// Takes out what is empty, from the leaves up. Members of lists stay: an empty argument is an argument.
fn strip(value: &mut Value, texts: bool) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                strip(field, TEXT_MAPS.contains(&name.as_str()));
            }
            fields.retain(|name, field| texts || MEANINGFUL_WHEN_EMPTY.contains(&name.as_str()) || !is_empty(field));
        }
        Value::Array(members) => members.iter_mut().for_each(|member| strip(member, false)),
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(members) => members.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
