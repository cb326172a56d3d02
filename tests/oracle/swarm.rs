//! The swarm that the engine answers for: it keeps what it is told, as swarm keeps it, and records what it did.
//!
//! * Every external object is there: whatever a filter names, and what [`Swarm::with_external`] was told of.
//! * A write must carry the object's version, which it raises; a service's former spec becomes its `PreviousSpec`; of secrets and
//!   configs only labels can be changed. What is refused is not recorded.
//! * What swarm adds and drops when it stores a service, it adds and drops: the runtime, the isolation, a port's mode.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// What was written: `services s_web` as created, `services s_web update` with its query, `services s_web remove`.
pub type Writes = BTreeMap<String, Value>;

/// An engine's answer: status and body.
type Answer = (u16, Value);

/// The version of every object that was never updated.
const FIRST_VERSION: u64 = 41;

/// A request.
pub struct Asked<'a> {
    /// `services`, `secrets`, …
    pub kind: &'a str,
    /// The query's pairs.
    pub query: Value,
    /// The login for a registry that came along.
    pub login: Value,
}

/// A swarm.
#[derive(Debug, Clone, Default)]
pub struct Swarm {
    /// Objects as inspected, contents of secrets included, by kind and name.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    /// What the registry says of an image; of any other it says nothing.
    registry: BTreeMap<String, Value>,
    writes: Writes,
    phases: Vec<String>,
}

impl Swarm {
    /// The same swarm with these objects in it, names by kind, which belong to nobody.
    pub fn with_external(mut self, external: &BTreeMap<String, BTreeSet<String>>) -> Self {
        for (kind, names) in external {
            for name in names {
                let object = || object(kind, &json!({"Name": name}), FIRST_VERSION);
                self.objects.entry(kind.clone()).or_default().entry(name.clone()).or_insert_with(object);
            }
        }
        self
    }

    /// The same swarm before a registry with these images, each with its digest and platforms.
    pub fn with_registry(self, registry: BTreeMap<String, Value>) -> Self {
        Self { registry, ..self }
    }

    /// The same swarm after somebody changed services by hand: JSON merge patches of specs, by name. What is not there yet is made.
    pub fn with_services(mut self, patches: &Map<String, Value>) -> Self {
        for (name, patch) in patches {
            let services = self.objects.entry("services".to_owned()).or_default();
            let made = || object("services", &json!({"Name": name}), FIRST_VERSION);
            let service = services.entry(name.clone()).or_insert_with(made);
            service["PreviousSpec"] = service["Spec"].clone();
            merge(&mut service["Spec"], patch);
            service["Version"]["Index"] = json!(version(service) + 1);
        }
        self
    }

    /// The names of its services.
    pub fn services(&self) -> impl Iterator<Item = &String> {
        self.objects.get("services").into_iter().flat_map(BTreeMap::keys)
    }

    /// A service's spec.
    pub fn spec(&self, service: &str) -> &Value {
        &self.objects["services"][service]["Spec"]
    }

    /// What was written and in which order of kinds; the record begins anew.
    pub fn take_record(&mut self) -> (Writes, Vec<String>) {
        (std::mem::take(&mut self.writes), std::mem::take(&mut self.phases))
    }

    pub(crate) fn resolve(&self, image: &str) -> Answer {
        match self.registry.get(image) {
            Some(found) => (200, json!({"Descriptor": {"digest": found["digest"]}, "Platforms": found["platforms"]})),
            None => (500, json!({"message": format!("Get https://registry.test/v2/{image}: connection refused")})),
        }
    }

    /// All, those with a label, or whatever the filter names.
    pub(crate) fn list(&self, asked: &Asked<'_>) -> Value {
        let there = self.objects.get(asked.kind).into_iter().flat_map(BTreeMap::values);
        let filters = asked.query["filters"].as_str().map(|text| serde_json::from_str(text).unwrap());
        let filters: Value = filters.unwrap_or_default();
        if let Some(names) = filters["name"].as_object() {
            return names.keys().map(|name| self.inspect_or_make(asked.kind, name)).collect();
        }
        let label = filters["label"].as_object().and_then(|labels| labels.keys().next());
        let has = |object: &&Value| label.is_none_or(|label| has_label(object, label));
        there.filter(has).map(|object| shown(asked.kind, object)).collect()
    }

    pub(crate) fn inspect(&self, asked: &Asked<'_>, name: &str) -> Answer {
        let found = self.objects.get(asked.kind).and_then(|objects| objects.get(name));
        match (found, asked.kind) {
            (Some(object), kind) => (200, shown(kind, object)),
            (None, "networks") => (200, self.inspect_or_make("networks", name)),
            (None, kind) => (404, json!({"message": format!("no such {kind}: {name}")})),
        }
    }

    fn inspect_or_make(&self, kind: &str, name: &str) -> Value {
        let found = self.objects.get(kind).and_then(|objects| objects.get(name)).cloned();
        shown(kind, &found.unwrap_or_else(|| object(kind, &json!({"Name": name}), FIRST_VERSION)))
    }

    pub(crate) fn create(&mut self, asked: &Asked<'_>, body: Value) -> Answer {
        let kind = asked.kind;
        let name = body["Name"].as_str().unwrap().to_owned();
        let object = object(kind, &stored(kind, body.clone()), FIRST_VERSION);
        let made = json!({"ID": object["ID"], "Id": object["Id"]});
        self.objects.entry(kind.to_owned()).or_default().insert(name.clone(), object);
        self.record(kind, format!("{kind} {name}"), with_login(normal(kind, body), asked));
        (201, made)
    }

    pub(crate) fn update(&mut self, asked: &Asked<'_>, id: &str, body: Value) -> Answer {
        let kind = asked.kind;
        let Some((name, live)) = self.find(kind, id) else { return (404, json!({"message": "no such object"})) };
        let name = name.clone();
        // Swarm compares contents before it looks at the version.
        if ["secrets", "configs"].contains(&kind) && changes_more_than_labels(&body, &live["Spec"], kind) {
            return (
                400,
                json!({"message": "rpc error: code = InvalidArgument desc = only updates to Labels are allowed"}),
            );
        }
        let index = version(live);
        if asked.query["version"] != json!(index.to_string()) {
            return (500, json!({"message": "rpc error: code = Unknown desc = update out of sequence"}));
        }
        let mut spec = stored(kind, body.clone());
        if kind == "services" {
            live["PreviousSpec"] = live["Spec"].take();
        } else if spec["Data"].is_null() {
            spec["Data"] = live["Spec"]["Data"].clone();
        }
        live["Spec"] = spec;
        live["Version"]["Index"] = json!(index + 1);
        let mut written = with_login(normal(kind, body), asked);
        written["?"] = asked.query.clone();
        self.record(kind, format!("{kind} {name} update"), written);
        (200, json!({}))
    }

    pub(crate) fn remove(&mut self, asked: &Asked<'_>, id: &str) -> Answer {
        let Some(name) = self.find(asked.kind, id).map(|(name, _)| name.clone()) else {
            return (404, json!({"message": "no such object"}));
        };
        self.objects.get_mut(asked.kind).unwrap().remove(&name);
        let kind = asked.kind;
        self.record(&format!("remove {kind}"), format!("{kind} {name} remove"), json!({}));
        (200, json!({}))
    }

    fn find(&mut self, kind: &str, id: &str) -> Option<(&String, &mut Value)> {
        self.objects.get_mut(kind)?.iter_mut().find(|(_, object)| object["ID"] == id)
    }

    fn record(&mut self, phase: &str, key: String, write: Value) {
        if !self.phases.iter().any(|known| known == phase) {
            self.phases.push(phase.to_owned());
        }
        self.writes.insert(key, write);
    }
}

/// An object as inspected. Networks are known by their names, all others by an ID of their own.
fn object(kind: &str, spec: &Value, version: u64) -> Value {
    let name = spec["Name"].as_str().unwrap();
    if kind == "networks" {
        let mut network = json!({"Driver": "overlay"});
        merge(&mut network, spec);
        merge(&mut network, &json!({"Id": name, "ID": name, "Scope": "swarm"}));
        return network;
    }
    json!({"ID": format!("id-of-{name}"), "Version": {"Index": version}, "Spec": spec})
}

/// What swarm makes of what it is told.
fn stored(kind: &str, mut spec: Value) -> Value {
    if kind != "services" {
        return spec;
    }
    spec["TaskTemplate"]["Runtime"] = json!("container");
    let container = &mut spec["TaskTemplate"]["ContainerSpec"];
    if container["Isolation"].as_str().unwrap_or_default().is_empty() {
        container["Isolation"] = json!("default");
    }
    if let Some(privileges) = container["Privileges"].as_object_mut() {
        privileges.retain(|_, value| !matches!(value, Value::Null | Value::Bool(false)));
    }
    for port in spec["EndpointSpec"]["Ports"].as_array_mut().into_iter().flatten() {
        for (field, default) in [("Protocol", "tcp"), ("PublishMode", "ingress")] {
            if port[field].as_str().unwrap_or_default().is_empty() {
                port[field] = json!(default);
            }
        }
    }
    for config in ["UpdateConfig", "RollbackConfig"] {
        if spec[config].is_object() && spec[config]["FailureAction"].as_str().unwrap_or_default().is_empty() {
            spec[config]["FailureAction"] = json!("pause");
        }
    }
    spec
}

/// As an engine shows it: contents of secrets stay inside.
fn shown(kind: &str, object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(spec) = object.get_mut("Spec").and_then(Value::as_object_mut).filter(|_| kind == "secrets") {
        spec.remove("Data");
    }
    object
}

/// `name=value`, among a spec's labels or a network's own.
fn has_label(object: &Value, label: &str) -> bool {
    let (name, value) = label.split_once('=').unwrap_or((label, ""));
    [&object["Spec"]["Labels"], &object["Labels"]].into_iter().any(|labels| labels[name] == value)
}

/// A config's content must come along; a secret's may.
fn changes_more_than_labels(spec: &Value, live: &Value, kind: &str) -> bool {
    let is_silent = kind == "secrets" && spec["Data"].is_null();
    spec["Name"] != live["Name"] || (!is_silent && spec["Data"] != live["Data"])
}

fn version(object: &Value) -> u64 {
    object["Version"]["Index"].as_u64().unwrap()
}

fn with_login(mut body: Value, asked: &Asked<'_>) -> Value {
    if !asked.login.is_null() {
        body["?login"] = asked.login.clone();
    }
    body
}

/// RFC 7396.
fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        value.clone_from(patch);
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    let fields = value.as_object_mut().unwrap();
    for (name, patch) in patch {
        if patch.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), patch);
        }
    }
}

/// Levels out what does not matter: the order of files of one name and of ports published on one port (Go's sort is not
/// stable), and, for networks, fields that say nothing.
pub fn normal(kind: &str, mut body: Value) -> Value {
    if kind == "networks" {
        strip(&mut body);
        return body;
    }
    if kind != "services" {
        return body;
    }
    if let Some(ports) = body.pointer_mut("/EndpointSpec/Ports").and_then(Value::as_array_mut) {
        ports.sort_by_key(|port| {
            (port["PublishedPort"].as_u64(), port["TargetPort"].as_u64(), port["Protocol"].to_string())
        });
    }
    let container = &mut body["TaskTemplate"]["ContainerSpec"];
    for files in ["Secrets", "Configs"] {
        if let Some(files) = container.get_mut(files).and_then(Value::as_array_mut) {
            files.sort_by_key(|file| {
                (file["SecretName"].to_string(), file["ConfigName"].to_string(), file["File"].to_string())
            });
        }
    }
    body
}

/// Takes out what says nothing.
pub fn strip(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(strip);
        map.retain(|_, value| {
            !matches!(value, Value::Null | Value::Bool(false)) && *value != json!("") && *value != json!({})
        });
    }
}
