//! A model of a swarm for tests: it stores specs as an engine does, makes tasks, and does what plans say.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use super::apply::{note, with_ids};
use super::images::{Resolutions, digest};
use super::key::Key;
use super::observe::{LiveState, Observed, SecretContents};
use super::plan::{Input, Makers, Plan, Policy, Step, plan};
use super::rollback::{self, Preparation, choose, prepare};
use super::state::{Image, Kind, StackState, command};
use crate::model::{
    DesiredService, DesiredStack, Location, Revision, Sensitive, StackName, StackObjects, StackSettings, Wanted,
};
use crate::spec::{Config, Labels, Network, NetworkSpec, Node, Secret, SecretSpec, Service, ServiceSpec, Task};
use crate::status::Command;

/// The model.
#[derive(Clone)]
pub struct World {
    pub observed: Observed,
    pub policy: Policy,
    pub images: Resolutions,
    pub now: OffsetDateTime,
    /// What the engine says about contents of secrets.
    pub secrets: SecretContents,
    /// Images whose tasks fail.
    pub broken: BTreeSet<String>,
    /// Networks of other stacks.
    pub makers: Makers,
    /// What the commits of rollbacks have.
    pub commits: Vec<DesiredStack>,
    /// Writes made so far.
    pub writes: usize,
    next: u64,
}

pub fn shop() -> StackName {
    StackName::new("shop").unwrap()
}

/// A stack at a revision: `name image [dependency,…]` per service.
pub fn stack(revision: &str, services: &[&str]) -> DesiredStack {
    let mut objects = StackObjects::default();
    let network = NetworkSpec {
        name: "shop_default".into(),
        driver: "overlay".into(),
        labels: Some(namespace()),
        ..NetworkSpec::default()
    };
    objects.networks.insert("default".into(), Wanted::Own { spec: network, named: false });
    for (index, text) in services.iter().enumerate() {
        let mut words = text.split(' ');
        let (key, image) = (words.next().unwrap(), words.next().unwrap());
        let depends_on = words.next().into_iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
        objects
            .services
            .insert(key.into(), DesiredService { spec: service(key, image), depends_on, replicas_given: false });
        let place = |line: usize| Location { file: "compose.yml".into(), line, column: 3 };
        objects.sources.insert(format!("services.{key}"), place(index * 10 + 2));
        objects.sources.insert(format!("services.{key}.image"), place(index * 10 + 3));
    }
    DesiredStack {
        name: shop(),
        revision: Some(Revision(format!("{revision:0<40}"))),
        settings: StackSettings::default(),
        objects,
        warnings: Vec::new(),
    }
}

pub fn namespace() -> Labels {
    [("com.docker.stack.namespace".to_owned(), "shop".to_owned())].into()
}

pub fn service(key: &str, image: &str) -> ServiceSpec {
    serde_json::from_value(json!({
        "Name": format!("shop_{key}"),
        "Labels": {"com.docker.stack.namespace": "shop", "com.docker.stack.image": image},
        "TaskTemplate": {
            "ContainerSpec": {"Image": image, "Labels": {"com.docker.stack.namespace": "shop"},
                "Privileges": {"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false}},
            "Resources": {}, "Placement": {}, "ForceUpdate": 0,
            "Networks": [{"Target": "shop_default", "Aliases": [key]}]
        },
        "Mode": {"Replicated": {}},
        "EndpointSpec": {}
    }))
    .unwrap()
}

/// Gives a service a secret with this content.
pub fn with_secret(mut desired: DesiredStack, service: &str, content: &str) -> DesiredStack {
    let spec = SecretSpec {
        name: "shop_db".into(),
        labels: Some(namespace()),
        data: Sensitive::new(content.as_bytes().to_vec()),
        ..SecretSpec::default()
    };
    desired.objects.secrets.insert("db".into(), Wanted::Own { spec, named: false });
    let reference =
        json!([{"File": {"Name": "db", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "", "SecretName": "shop_db"}]);
    let service = desired.objects.services.get_mut(service).unwrap();
    service.spec.task_template.container_spec.secrets = Some(serde_json::from_value(reference).unwrap());
    desired
}

impl World {
    pub fn new() -> Self {
        let node: Node = serde_json::from_value(json!({
            "ID": "n1", "Description": {"Hostname": "n17"}, "Status": {"State": "ready"}, "Spec": {"Availability": "active"}
        }))
        .unwrap();
        let mut observed = Observed { key: Key::random().ok(), ..Observed::default() };
        observed.nodes.insert("n1".into(), node);
        Self {
            observed,
            policy: Policy::default(),
            images: Resolutions::new(),
            now: super::rollout::timestamp("2026-01-02T03:00:00Z").unwrap(),
            secrets: SecretContents::new(),
            broken: BTreeSet::new(),
            makers: Makers::new(),
            commits: Vec::new(),
            writes: 0,
            next: 1,
        }
    }

    /// What would be done.
    pub fn plan(&self, desired: Option<&DesiredStack>) -> Plan {
        self.plan_after(desired, &[])
    }

    pub fn plan_after(&self, desired: Option<&DesiredStack>, unsettled: &[StackName]) -> Plan {
        let name = shop();
        let rollback = self.observed.states.get(&name).and_then(|live| live.state.rollback.as_ref());
        let key = self.observed.key.as_ref().unwrap();
        let holds = rollback.filter(|rollback| desired.is_some_and(|head| !rollback.is_over(head, key)));
        let held = holds.map(|rollback| self.commit(&rollback.revision));
        let desired = held.or(desired);
        // A registry that knows every image, unless a test says otherwise.
        let mut images = self.images.clone();
        for service in desired.into_iter().flat_map(|desired| desired.objects.services.values()) {
            let text = &service.spec.task_template.container_spec.image;
            if digest(text).is_none() {
                images.entry(text.clone()).or_insert_with(|| Ok(resolved(text)));
            }
        }
        plan(Input {
            stack: &name,
            desired,
            held: held.is_some(),
            observed: self.observed.stack(&name),
            images: &images,
            unsettled,
            makers: &self.makers,
            secrets: &self.secrets,
            key,
            now: self.now,
            policy: &self.policy,
        })
    }

    fn commit(&self, revision: &Revision) -> &DesiredStack {
        self.commits.iter().find(|stack| stack.revision.as_ref() == Some(revision)).unwrap()
    }

    /// `rollback [REVISION]` while git has `head`; every digest is there unless `images` says otherwise.
    pub fn go_back(&mut self, head: &DesiredStack, wanted: Option<&str>) -> Result<String, String> {
        let (name, state) = (shop(), self.state().clone());
        let entry = choose(&name, &state, wanted)?;
        let target = self.commit(entry.revision.as_ref().unwrap());
        let images = rollback::images(entry, target, &self.observed)?;
        let found = |image: &String| Ok(Image { image: image.clone(), platforms: resolved("x").platforms });
        let answers = images.into_values().map(|image| {
            let answer = self.images.get(&image).cloned().unwrap_or_else(|| found(&image));
            (image, answer)
        });
        let prepared = prepare(&Preparation {
            stack: &name,
            observed: &self.observed,
            entry,
            target,
            head: head.revision.as_ref(),
            wanted: Some(head),
            images: &answers.collect(),
            reason: "it leaks",
            key: self.observed.key.as_ref().unwrap(),
            now: self.now,
            policy: &self.policy,
        })?;
        let state = prepared.enter(Some(&state))?;
        self.save(&state);
        Ok(prepared.in_words())
    }

    /// One pass: plan, do, and a minute goes by.
    pub fn pass(&mut self, desired: Option<&DesiredStack>) -> Plan {
        let plan = self.plan(desired);
        self.apply(&plan);
        self.now += Duration::minutes(1);
        plan
    }

    /// Passes until nothing is written any more; the last plan.
    pub fn settle(&mut self, desired: Option<&DesiredStack>) -> Plan {
        for _ in 0..30 {
            let plan = self.pass(desired);
            if plan.is_empty() && plan.verdict != crate::status::StackState::Rolling {
                return plan;
            }
        }
        panic!("does not settle: {}", self.plan(desired));
    }

    pub fn command(&mut self, wish: &Command) {
        let live = self.observed.states.get(&shop());
        let state = command(live.map(|live| &live.state), wish, self.now).unwrap();
        self.save(&state);
    }

    pub fn state(&self) -> &StackState {
        &self.observed.states[&shop()].state
    }

    pub fn service(&mut self, name: &str) -> &mut Service {
        self.observed.services.get_mut(name).unwrap()
    }

    /// Deploys as somebody else would.
    pub fn deploy_by_hand(&mut self, desired: &DesiredStack) {
        let mut other = Self { observed: self.observed.clone(), ..Self::new() };
        other.settle(Some(desired));
        other.observed.states.clear();
        self.observed = other.observed;
    }

    /// A service with the stack's label that somebody else made.
    pub fn deploy_by_hand_beside(&mut self, name: &str) {
        let spec = ServiceSpec { name: name.into(), ..stored(&service("stranger", "app:1")) };
        let service = Service { id: fresh_id(), spec, ..Service::default() };
        self.observed.services.insert(name.into(), service);
        self.make_tasks(name);
    }

    /// Passes without the stack in git until its state is gone.
    pub fn settle_without(&mut self, passes: &mut usize) {
        while !self.observed.states.is_empty() {
            *passes = passes.checked_sub(1).unwrap();
            self.pass(None);
        }
    }

    /// `docker service update`, as a person does it.
    pub fn by_hand(&mut self, name: &str, change: impl FnOnce(&mut ServiceSpec)) {
        let mut spec = self.service(name).spec.clone();
        change(&mut spec);
        self.update(name, &spec);
    }

    /// `docker service rollback`.
    pub fn roll_back(&mut self, name: &str) {
        let previous = *self.service(name).previous_spec.clone().unwrap();
        self.update(name, &previous);
        self.service(name).update_status =
            Some(serde_json::from_value(json!({"State": "rollback_completed"})).unwrap());
    }

    pub fn apply(&mut self, plan: &Plan) {
        self.writes += plan.writes();
        if plan.is_empty() {
            return;
        }
        let mut state = plan.state.clone().unwrap_or_default();
        let mut ids = plan.ids.clone();
        for step in &plan.steps {
            let id = self.step(step, &ids);
            note(&mut state, &mut ids, step, Some(id));
        }
        if plan.steps.contains(&Step::Forget) {
            self.observed.states.remove(&shop());
        } else if plan.state.is_some() {
            self.save(&state);
        }
    }

    fn save(&mut self, state: &StackState) {
        let id = fresh_id();
        // Through its config and back, as a real one goes.
        let state = StackState::decode(&state.encode(&shop()).unwrap()).unwrap();
        self.observed.states.insert(shop(), LiveState { state, id, version: self.next });
    }

    fn step(&mut self, step: &Step, ids: &super::apply::Ids) -> String {
        let id = fresh_id();
        match step {
            Step::NetworkCreate(spec) => {
                let network = json!({"Id": id, "Name": spec.name, "Driver": spec.driver, "Scope": "swarm", "Labels": spec.labels,
                    "Internal": spec.internal, "Attachable": spec.attachable, "Options": spec.options});
                let network: Network = serde_json::from_value(network).unwrap();
                assert!(self.observed.networks.insert(spec.name.clone(), network).is_none());
            }
            Step::SecretCreate(spec) => {
                let secret = Secret { id: id.clone(), spec: spec.clone(), ..Secret::default() };
                assert!(self.observed.secrets.insert(spec.name.clone(), secret).is_none());
            }
            Step::ConfigCreate(spec) => {
                let config = Config { id: id.clone(), spec: spec.clone(), ..Config::default() };
                assert!(self.observed.configs.insert(spec.name.clone(), config).is_none());
            }
            Step::SecretLabels { spec, .. } => self.observed.secrets.get_mut(&spec.name).unwrap().spec = spec.clone(),
            Step::ConfigLabels { spec, .. } => self.observed.configs.get_mut(&spec.name).unwrap().spec = spec.clone(),
            Step::ServiceCreate(write) => {
                let spec = stored(&with_ids(&write.spec, ids));
                let (created_at, updated_at) = (self.time(), self.time());
                let service = Service { id: id.clone(), created_at, updated_at, spec, ..Service::default() };
                assert!(self.observed.services.insert(write.spec.name.clone(), service).is_none());
                self.make_tasks(&write.spec.name);
            }
            Step::ServiceUpdate { version, write, .. } => {
                assert_eq!(self.service(&write.spec.name).version.index, *version);
                self.update(&write.spec.name, &with_ids(&write.spec, ids));
            }
            Step::ServiceRollback { spec, .. } => self.roll_back(&spec.name),
            Step::ServiceRestart { version, spec, .. } => {
                assert_eq!(self.service(&spec.name).version.index, *version);
                self.update(&spec.name, spec);
            }
            Step::Remove { kind: Kind::Service, name, id } => {
                self.observed.services.remove(name).unwrap();
                self.observed.tasks.remove(id);
            }
            Step::Remove { kind: Kind::Network, name, .. } => drop(self.observed.networks.remove(name).unwrap()),
            Step::Remove { kind: Kind::Secret, name, .. } => drop(self.observed.secrets.remove(name).unwrap()),
            Step::Remove { kind: Kind::Config, name, .. } => drop(self.observed.configs.remove(name).unwrap()),
            Step::Forget => {}
        }
        id
    }

    fn update(&mut self, name: &str, spec: &ServiceSpec) {
        let (time, version) = (self.time(), self.next);
        self.next += 1;
        let service = self.service(name);
        let is_job = spec.mode.replicated_job.is_some();
        let scales = stored(spec).mode != service.spec.mode;
        let restarts = is_job || stored(spec).task_template != service.spec.task_template;
        service.previous_spec = Some(Box::new(std::mem::replace(&mut service.spec, stored(spec))));
        service.version.index = version;
        service.updated_at = time;
        service.update_status = restarts.then(|| serde_json::from_value(json!({"State": "completed"})).unwrap());
        if is_job {
            let job = service.job_status.get_or_insert_default();
            job.job_iteration.get_or_insert_default().index += 1;
        }
        if restarts || scales {
            self.make_tasks(name);
        }
    }

    /// The tasks of a job come to their end.
    pub fn complete(&mut self, name: &str) {
        let id = self.observed.services[name].id.clone();
        for task in self.observed.tasks.get_mut(&id).into_iter().flatten() {
            task.status.state = "complete".into();
        }
    }

    /// Running tasks; failing ones of a broken image, which swarm brings back if the service says so.
    pub fn make_tasks(&mut self, name: &str) {
        let service = self.observed.services[name].clone();
        let is_broken =
            self.broken.iter().any(|image| service.spec.task_template.container_spec.image.starts_with(image));
        let mode = &service.spec.mode;
        let is_job = mode.replicated_job.is_some();
        let wanted = mode.replicated.as_ref().and_then(|replicated| replicated.replicas).unwrap_or(1);
        let (states, exit) = match (is_broken, is_job) {
            (true, _) => (vec!["failed"; 3], 1),
            // A job runs until a test says otherwise.
            (false, _) => (vec!["running"; usize::try_from(wanted).unwrap()], 0),
        };
        let desired = |state: &str| match (state, is_job) {
            ("failed", _) => "shutdown",
            (_, true) => "complete",
            (_, false) => "running",
        };
        let iteration = service.job_status.as_ref().and_then(|job| job.job_iteration.clone());
        let tasks = states.iter().map(|state| Task {
            id: fresh_id(),
            service_id: service.id.clone(),
            node_id: "n1".into(),
            spec: service.spec.task_template.clone(),
            desired_state: desired(state).into(),
            job_iteration: iteration.clone(),
            status: serde_json::from_value(json!({
                "State": state, "Timestamp": self.time(),
                "Err": if exit == 0 { "" } else { "task: non-zero exit (1)" }, "ContainerStatus": {"ExitCode": exit}
            }))
            .unwrap(),
            ..Task::default()
        });
        let tasks: Vec<Task> = tasks.collect();
        self.observed.tasks.insert(service.id, tasks);
    }

    fn time(&self) -> String {
        self.now.format(&time::format_description::well_known::Rfc3339).unwrap()
    }
}

fn fresh_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("id{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub fn resolved(text: &str) -> Image {
    let digits = hex::encode(text);
    let platforms = serde_json::from_value(json!([{"Architecture": "amd64", "OS": "linux"}])).unwrap();
    Image { image: format!("{text}@sha256:{digits:0<64}"), platforms }
}

/// A spec as an engine stores it.
fn stored(spec: &ServiceSpec) -> ServiceSpec {
    let mut value = serde_json::to_value(spec).unwrap();
    value["TaskTemplate"]["Runtime"] = json!("container");
    value["TaskTemplate"]["ContainerSpec"]["Isolation"] = json!("default");
    if let Some(privileges) = value["TaskTemplate"]["ContainerSpec"]["Privileges"].as_object_mut() {
        privileges.remove("NoNewPrivileges");
    }
    if value["Mode"]["Replicated"].is_object() && value["Mode"]["Replicated"]["Replicas"].is_null() {
        value["Mode"]["Replicated"]["Replicas"] = json!(1);
    }
    value["EndpointSpec"]["Mode"] = json!("vip");
    for field in ["UpdateConfig", "RollbackConfig"] {
        if let Some(config) = value.get_mut(field).and_then(Value::as_object_mut) {
            config.entry("FailureAction").or_insert(json!("pause"));
            if config["Order"] == json!("") {
                config.insert("Order".into(), json!("stop-first"));
            }
        }
    }
    serde_json::from_value(value).unwrap()
}
