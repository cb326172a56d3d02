//! Networks, secrets and configs: which live object a name in the file stands for, and what has to be made.

use std::collections::BTreeMap;

use super::{Action, Change, Mode, Planner, Step, creating};
use crate::model::{DesiredStack, Location, Wanted};
use crate::spec::{ConfigSpec, Labels, Network, NetworkSpec, Node, SecretSpec};
use crate::stacks::key::{hashed_name, is_hashed_name};
use crate::stacks::observe::in_namespace;
use crate::stacks::state::{Content, Generation, Kind};

/// Content of a secret or config must be smaller than this. Swarm refuses exactly so many bytes as well, and none at all.
const CONTENT_BYTES_LIMIT: usize = 500 * 1024;

/// The same for configs where every manager's engine is of [`LARGE_CONFIGS_SINCE`] or later.
const LARGE_CONFIG_BYTES_LIMIT: usize = 1000 * 1024;

/// The engine whose managers take larger configs (API 1.48).
const LARGE_CONFIGS_SINCE: u32 = 28;

/// Networks that are there without being made.
const PREDEFINED: [&str; 3] = ["host", "bridge", "none"];

/// What the names in a stack's service specs stand for.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// By kind and name in the file: name in the swarm.
    live: BTreeMap<(Kind, String), String>,
    /// By kind and name in the file: fingerprint of the content, for secrets and configs of our own.
    pub(super) contents: BTreeMap<(Kind, String), String>,
}

impl Names {
    /// The name in the swarm of what a spec calls `name`.
    pub(super) fn live(&self, kind: Kind, name: &str) -> String {
        self.live.get(&(kind, name.to_owned())).cloned().unwrap_or_else(|| name.to_owned())
    }
}

/// What secrets and configs have in common.
struct ContentObject<'a> {
    kind: Kind,
    key: &'a str,
    name: &'a str,
    /// True where the file gives the name, so that no hash may be put behind it.
    keeps_name: bool,
    labels: Option<&'a Labels>,
    hash: String,
    /// False where the content comes from a driver.
    has_content: bool,
    size: usize,
    location: Option<Location>,
}

/// A live secret or config.
struct LiveObject {
    id: String,
    version: u64,
    labels: Option<Labels>,
    /// Known for configs only.
    hash: Option<String>,
}

impl<'a> Planner<'a> {
    /// Settles what names stand for, and plans what has to be made.
    pub(super) fn objects(&mut self, desired: &'a DesiredStack) -> Names {
        let mut names = Names::default();
        for (key, wanted) in &desired.objects.networks {
            match wanted {
                Wanted::External(name) => self.external(Kind::Network, name),
                Wanted::Own { spec, .. } => self.network(desired, key, spec),
            }
        }
        for (key, wanted) in &desired.objects.secrets {
            match wanted {
                Wanted::External(name) => self.external(Kind::Secret, name),
                Wanted::Own { spec, named } => self.secret(desired, key, spec, *named, &mut names),
            }
        }
        for (key, wanted) in &desired.objects.configs {
            match wanted {
                Wanted::External(name) => self.external(Kind::Config, name),
                Wanted::Own { spec, named } => self.config(desired, key, spec, *named, &mut names),
            }
        }
        names
    }

    /// The ID of a live object.
    pub(super) fn live_id(&self, kind: Kind, name: &str) -> Option<String> {
        let swarm = self.input.observed.swarm;
        match kind {
            Kind::Service => swarm.services.get(name).map(|service| service.id.clone()),
            Kind::Network => swarm.networks.get(name).map(|network| network.id.clone()),
            Kind::Secret => swarm.secrets.get(name).map(|secret| secret.id.clone()),
            Kind::Config => swarm.configs.get(name).map(|config| config.id.clone()),
        }
    }

    /// Somebody else's object: it must be there before anything is written.
    fn external(&mut self, kind: Kind, name: &str) {
        match self.live_id(kind, name) {
            Some(id) => drop(self.plan.ids.insert((kind, name.to_owned()), id)),
            // Every node has these, and no list of the swarm's does.
            None if kind == Kind::Network && PREDEFINED.contains(&name) => {}
            None if kind == Kind::Network
                && let Some(maker) = self.input.makers.get(name) =>
            {
                self.awaited.push((name.to_owned(), maker.clone()));
            }
            None => {
                let word = kind.word();
                let scope = if kind == Kind::Network { " of scope swarm" } else { "" };
                self.errors.push(format!(
                    "external {word} {name:?} does not exist{scope}: make it with `docker {word} create`, or take `external` away"
                ));
            }
        }
    }

    fn network(&mut self, desired: &DesiredStack, key: &str, spec: &NetworkSpec) {
        let location = place(desired, "networks", key);
        let Some(live) = self.input.observed.swarm.networks.get(&spec.name) else {
            self.create(Kind::Network, &spec.name, Step::NetworkCreate(spec.clone()), location);
            return;
        };
        self.plan.ids.insert((Kind::Network, spec.name.clone()), live.id.clone());
        let namespaced = in_namespace(live.labels.as_ref(), self.input.stack.as_str());
        if !self.found(Kind::Network, &spec.name, &live.id, namespaced) {
            return;
        }
        let differences = network_differences(spec, live);
        if differences.is_empty() {
            self.plan.unchanged += 1;
        } else {
            let id = live.id.clone();
            self.network_changed(spec, &id, differences, location);
        }
    }

    fn secret(&mut self, desired: &DesiredStack, key: &str, spec: &SecretSpec, keeps_name: bool, names: &mut Names) {
        let about = serde_json::to_string(&(&spec.driver, &spec.templating)).unwrap_or_default();
        let object = ContentObject {
            kind: Kind::Secret,
            key,
            name: &spec.name,
            keeps_name,
            labels: spec.labels.as_ref(),
            hash: self.input.key.content(spec.data.reveal(), &about),
            has_content: spec.driver.is_none(),
            size: spec.data.reveal().len(),
            location: place(desired, "secrets", key),
        };
        let live = |name: &str| {
            let live = self.input.observed.swarm.secrets.get(name)?;
            let (id, version, labels) = (live.id.clone(), live.version.index, live.spec.labels.clone());
            Some(LiveObject { id, version, labels, hash: None })
        };
        let name = self.content_name(&object, &live, names);
        let live = name.as_ref().and_then(|name| live(name));
        let Some(name) = name else { return };
        let spec = SecretSpec { name: name.clone(), ..spec.clone() };
        let relabel = live.as_ref().map(|live| Step::SecretLabels {
            id: live.id.clone(),
            version: live.version,
            spec: SecretSpec { data: crate::model::Sensitive::default(), ..spec.clone() },
        });
        let create = Step::SecretCreate(spec);
        self.write_content(&object, &name, live.as_ref(), create, relabel);
    }

    fn config(&mut self, desired: &DesiredStack, key: &str, spec: &ConfigSpec, keeps_name: bool, names: &mut Names) {
        let about = serde_json::to_string(&((), &spec.templating)).unwrap_or_default();
        let object = ContentObject {
            kind: Kind::Config,
            key,
            name: &spec.name,
            keeps_name,
            labels: spec.labels.as_ref(),
            hash: self.input.key.content(spec.data.reveal(), &about),
            has_content: true,
            size: spec.data.reveal().len(),
            location: place(desired, "configs", key),
        };
        let key_of = self.input.key;
        let live = |name: &str| {
            let live = self.input.observed.swarm.configs.get(name)?;
            let (id, version, labels) = (live.id.clone(), live.version.index, live.spec.labels.clone());
            let about = serde_json::to_string(&((), &live.spec.templating)).unwrap_or_default();
            let hash = crate::io::swarm::config_content(live).map(|content| key_of.content(&content, &about));
            Some(LiveObject { id, version, labels, hash })
        };
        let name = self.content_name(&object, &live, names);
        let live = name.as_ref().and_then(|name| live(name));
        let Some(name) = name else { return };
        let spec = ConfigSpec { name: name.clone(), ..spec.clone() };
        // The engine wants the same content again with the new labels.
        let relabel = live.as_ref().map(|live| {
            let data =
                self.input.observed.swarm.configs.get(&name).map(|live| live.spec.extra.clone()).unwrap_or_default();
            Step::ConfigLabels {
                id: live.id.clone(),
                version: live.version,
                spec: ConfigSpec { extra: data, data: crate::model::Sensitive::default(), ..spec.clone() },
            }
        });
        let create = Step::ConfigCreate(spec);
        self.write_content(&object, &name, live.as_ref(), create, relabel);
    }

    /// The name that a secret or config goes by: the CLI's until its content first changes, then with the content's hash.
    fn content_name(
        &mut self,
        object: &ContentObject<'_>,
        live: &dyn Fn(&str) -> Option<LiveObject>,
        names: &mut Names,
    ) -> Option<String> {
        if let Some(text) = self.wrong_size(object) {
            self.errors.push(text);
            return None;
        }
        let hashes = self.manages() && !object.keeps_name && object.has_content;
        let recorded = self.state.contents.get(&object.id()).filter(|_| self.manages()).cloned();
        let (name, previous) = match recorded {
            Some(content) if content.hash == object.hash => (content.name, content.previous),
            Some(content) if hashes => {
                let back = content.previous.as_ref().filter(|previous| previous.hash == object.hash);
                let name = back.map_or_else(|| hashed_name(object.name, &object.hash), |back| back.name.clone());
                (name, Some(content.as_generation()))
            }
            Some(_) => return self.refuse_content(object),
            // Deploying as the CLI does, and adopting, nothing is recorded yet.
            None => match (live(object.name), self.unrecorded(object, live)) {
                (_, Some(name)) => (name, None),
                (None, None) => (object.name.to_owned(), None),
                (Some(plain), None) if hashes => {
                    // The plain name has other content: it is ours all the same, and the generation before.
                    let namespaced = in_namespace(plain.labels.as_ref(), self.input.stack.as_str());
                    self.found(object.kind, object.name, &plain.id, namespaced);
                    let before = Generation { hash: String::new(), name: object.name.to_owned() };
                    (hashed_name(object.name, &object.hash), Some(before))
                }
                (Some(_), None) => return self.refuse_content(object),
            },
        };
        names.live.insert((object.kind, object.name.to_owned()), name.clone());
        names.contents.insert((object.kind, object.name.to_owned()), object.hash.clone());
        self.contents.insert(object.id(), Content { hash: object.hash.clone(), name: name.clone(), previous });
        Some(name)
    }

    /// Why swarm would not take the content, with its place; none if it would.
    fn wrong_size(&self, object: &ContentObject<'_>) -> Option<String> {
        let limit = match object.kind {
            Kind::Config if self.takes_large_configs() => LARGE_CONFIG_BYTES_LIMIT,
            _ => CONTENT_BYTES_LIMIT,
        };
        let what = match object.size {
            // Deploying as the CLI does, what a live object holds may be meant, and the engine says so itself.
            0 if object.has_content && self.manages() => "is empty, and swarm takes nothing empty".to_owned(),
            size if size >= limit => format!("has {size} bytes, and swarm takes at most {}", limit - 1),
            _ => return None,
        };
        let place = object.location.as_ref().map(|location| format!("{location}: ")).unwrap_or_default();
        Some(format!("{place}{} {} {what}", object.kind.word(), object.name))
    }

    /// True if whichever manager comes to lead swarm takes larger configs.
    fn takes_large_configs(&self) -> bool {
        let nodes = self.input.observed.swarm.nodes.values();
        let mut managers = nodes.filter(|node| node.manager_status.is_some()).peekable();
        let is_new = |node: &Node| {
            let engine = node.description.extra.get("Engine").and_then(|engine| engine.get("EngineVersion"));
            let version = engine.and_then(serde_json::Value::as_str).unwrap_or_default();
            let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
            major.is_some_and(|major| major >= LARGE_CONFIGS_SINCE)
        };
        managers.peek().is_some() && managers.all(is_new)
    }

    /// A live object with the wanted content, by the plain name or a hashed one of former times. Configs show their content; of secrets
    /// the engine was asked, and where it was not, the plain one counts as right.
    fn unrecorded(&self, object: &ContentObject<'_>, live: &dyn Fn(&str) -> Option<LiveObject>) -> Option<String> {
        let swarm = self.input.observed.swarm;
        let is_right = |name: &str| {
            let found = live(name)?;
            let of_secret = || self.input.secrets.get(name).copied().unwrap_or(name == object.name);
            found.hash.map_or_else(of_secret, |hash| hash == object.hash).then(|| name.to_owned())
        };
        let is_candidate = |name: &&String| self.manages() && is_hashed_name(name, object.name);
        let names: Vec<&String> = match object.kind {
            Kind::Secret => swarm.secrets.keys().filter(is_candidate).collect(),
            _ => swarm.configs.keys().filter(is_candidate).collect(),
        };
        is_right(object.name).or_else(|| names.into_iter().find_map(|name| is_right(name)))
    }

    /// Swarm cannot change a content, and the name is not ours to choose.
    fn refuse_content(&mut self, object: &ContentObject<'_>) -> Option<String> {
        self.errors.push(changed_content(object, self.input.policy.mode));
        None
    }

    fn write_content(
        &mut self,
        object: &ContentObject<'_>,
        name: &str,
        live: Option<&LiveObject>,
        create: Step,
        relabel: Option<Step>,
    ) {
        let location = object.location.clone();
        let Some(live) = live else { return self.create(object.kind, name, create, location) };
        self.plan.ids.insert((object.kind, name.to_owned()), live.id.clone());
        let namespaced = in_namespace(live.labels.as_ref(), self.input.stack.as_str());
        if !self.found(object.kind, name, &live.id, namespaced) {
            return;
        }
        let empty = Labels::new();
        let same_labels = live.labels.as_ref().unwrap_or(&empty) == object.labels.unwrap_or(&empty);
        match relabel {
            Some(step) if !same_labels => {
                self.plan.changes.push(Change {
                    kind: object.kind,
                    name: name.to_owned(),
                    action: Action::Update,
                    differences: Vec::new(),
                    restarts: None,
                    waits: None,
                    location,
                });
                self.plan.steps.push(step);
            }
            _ => self.plan.unchanged += 1,
        }
    }

    /// Notes whose an object is; true if it is ours.
    fn found(&mut self, kind: Kind, name: &str, id: &str, namespaced: bool) -> bool {
        if self.owns(kind, name, id, namespaced) {
            if self.manages() {
                self.state.owned.of_mut(kind).insert(name.to_owned(), id.to_owned());
            }
            return true;
        }
        if namespaced {
            self.foreign.push((kind, name.to_owned(), id.to_owned()));
        } else {
            self.errors.push(format!(
                "{} {name:?} exists and does not belong to stack {}: declare it `external: true`, or rename it",
                kind.word(),
                self.input.stack
            ));
        }
        false
    }

    pub(super) fn create(&mut self, kind: Kind, name: &str, step: Step, location: Option<Location>) {
        self.plan.changes.push(Change {
            kind,
            name: name.to_owned(),
            action: Action::Create,
            differences: Vec::new(),
            restarts: None,
            waits: None,
            location,
        });
        self.plan.steps.push(step);
    }

    /// Names the objects about to be made in the rollout's record.
    pub(super) fn record_creations(&mut self) {
        let made = |step: &Step| match step {
            Step::NetworkCreate(spec) => Some(creating(Kind::Network, &spec.name)),
            Step::SecretCreate(spec) => Some(creating(Kind::Secret, &spec.name)),
            Step::ConfigCreate(spec) => Some(creating(Kind::Config, &spec.name)),
            Step::ServiceCreate(write) => Some(creating(Kind::Service, &write.spec.name)),
            _ => None,
        };
        let names: Vec<String> = self.plan.steps.iter().filter_map(made).collect();
        let new_service = |step: &Step| match step {
            // One that was removed by hand, or taken off a network, was there before.
            Step::ServiceCreate(write) if !self.state.baselines.contains_key(&write.spec.name) => {
                Some(write.spec.name.clone()).filter(|name| self.kept(name).is_none())
            }
            _ => None,
        };
        let new_services: Vec<String> = self.plan.steps.iter().filter_map(new_service).collect();
        if let Some(intent) = &mut self.state.rollout {
            intent.creating.extend(names);
            intent.made.extend(new_services);
        }
    }

    /// Adoption notes which object holds which content.
    pub(super) fn accept_contents(&mut self) {
        self.state.contents.append(&mut self.contents);
    }
}

impl ContentObject<'_> {
    /// As the state names it.
    fn id(&self) -> String {
        content_id(self.kind, self.key)
    }
}

/// As [`crate::stacks::StackState::contents`] names a secret or config.
pub(super) fn content_id(kind: Kind, key: &str) -> String {
    format!("{}/{key}", kind.word())
}

fn changed_content(object: &ContentObject<'_>, mode: Mode) -> String {
    let (word, name) = (object.kind.word(), object.name);
    let mend = match mode {
        Mode::ConfigRepo if object.keeps_name => {
            format!("give it another `name:`, or leave `name:` out, and {word}s are renamed by content")
        }
        Mode::ConfigRepo => "its content comes from a driver; rename it".to_owned(),
        Mode::Deploy { .. } => format!("rename it in the file, as in `{}_2`", object.key),
    };
    format!("{word} {name:?} has other content than the live one, and swarm cannot change a {word}: {mend}")
}

fn place(desired: &DesiredStack, section: &str, key: &str) -> Option<Location> {
    desired.objects.sources.get(&format!("{section}.{key}")).cloned()
}

/// What differs between a network as wanted and as it lives; swarm's own additions (subnets it chose, driver options) do not count.
fn network_differences(wanted: &NetworkSpec, live: &Network) -> Vec<&'static str> {
    let empty = Labels::new();
    let options = wanted.options.as_ref().unwrap_or(&empty);
    let live_options = live.options.as_ref().unwrap_or(&empty);
    let subnets = |ipam: Option<&crate::spec::Ipam>| -> Vec<String> {
        let configs = ipam.and_then(|ipam| ipam.config.as_ref()).into_iter().flatten();
        configs.map(|config| config.subnet.clone()).filter(|subnet| !subnet.is_empty()).collect()
    };
    let wanted_subnets = subnets(wanted.ipam.as_ref());
    let driver = if wanted.driver.is_empty() { "overlay" } else { &wanted.driver };
    let checks = [
        ("driver", driver != live.driver),
        ("driver_opts", options.iter().any(|(name, value)| live_options.get(name) != Some(value))),
        ("internal", wanted.internal != live.internal),
        ("attachable", wanted.attachable != live.attachable),
        ("ipam", !wanted_subnets.is_empty() && wanted_subnets != subnets(live.ipam.as_ref())),
        ("labels", wanted.labels.as_ref().unwrap_or(&empty) != live.labels.as_ref().unwrap_or(&empty)),
    ];
    checks.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}
