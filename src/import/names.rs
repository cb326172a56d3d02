//! The top-level sections: which key stands for which live object, and what is said about it.

use std::collections::{BTreeMap, BTreeSet};

use super::yaml::Yaml;
use super::{Seen, namespace};
use crate::model::StackName;
use crate::spec::{LABEL_NAMESPACE, Labels, Mount, Network};

/// What the overlay driver adds by itself.
const OPTIONS_OF_SWARM: [&str; 1] = ["com.docker.network.driver.overlay.vxlanid_list"];

/// Subnets begin so that swarm gives out by itself, unless it was told otherwise when it was made.
const POOL_OF_SWARM: &str = "10.0.";

/// Definitions in the making.
pub(super) struct Names<'a> {
    seen: Seen<'a>,
    stack: Option<&'a StackName>,
    networks: Section,
    volumes: Section,
    secrets: Section,
    configs: Section,
    contents: BTreeMap<String, Vec<u8>>,
    remarks: Vec<String>,
}

/// One top-level section.
#[derive(Default)]
struct Section {
    /// By real name.
    keys: BTreeMap<String, String>,
    /// By key.
    definitions: BTreeMap<String, Yaml>,
}

/// A section's own part of a finished document.
pub(super) type Sections = Vec<(String, Yaml)>;

impl Section {
    /// The key of an object, without the stack's name in front if it may go; and whether it is new.
    fn key(&mut self, stack: Option<&StackName>, name: &str, own: bool) -> (String, bool) {
        if let Some(key) = self.keys.get(name) {
            return (key.clone(), false);
        }
        let scoped = stack.filter(|_| own).and_then(|stack| name.strip_prefix(&stack.scoped("")));
        let plain = scoped.filter(|key| !key.is_empty()).unwrap_or(name);
        // `x-…` is nobody's, and `default` is the stack's own network.
        let plain =
            if plain.starts_with("x-") || (plain == "default" && !own) { format!("_{plain}") } else { plain.into() };
        let taken: BTreeSet<&String> = self.keys.values().collect();
        let numbered = (2..).map(|n| format!("{plain}_{n}"));
        let key = std::iter::once(plain.clone()).chain(numbered).find(|key| !taken.contains(key)).unwrap_or(plain);
        self.keys.insert(name.to_owned(), key.clone());
        (key, true)
    }

    fn into_yaml(self) -> Option<Yaml> {
        let map: Vec<(String, Yaml)> = self.definitions.into_iter().collect();
        (!map.is_empty()).then_some(Yaml::Map(map))
    }
}

impl<'a> Names<'a> {
    pub fn new(seen: Seen<'a>, stack: Option<&'a StackName>) -> Self {
        Self {
            seen,
            stack,
            networks: Section::default(),
            volumes: Section::default(),
            secrets: Section::default(),
            configs: Section::default(),
            contents: BTreeMap::new(),
            remarks: Vec::new(),
        }
    }

    /// The stack.
    pub fn stack(&self) -> Option<&'a StackName> {
        self.stack
    }

    /// Says something at the head of the file.
    pub fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    /// The sections, the contents of configs by their paths, and the remarks.
    pub fn finish(self) -> (Sections, BTreeMap<String, Vec<u8>>, Vec<String>) {
        let sections = [
            ("networks", self.networks),
            ("volumes", self.volumes),
            ("secrets", self.secrets),
            ("configs", self.configs),
        ];
        let sections = sections.into_iter().filter_map(|(name, section)| Some((name.to_owned(), section.into_yaml()?)));
        (sections.collect(), self.contents, self.remarks)
    }

    /// The network of this ID or name; none if nobody knows it.
    pub fn network(&mut self, target: &str) -> Option<(String, &'a Network)> {
        let networks = self.seen.networks;
        let by_id = || networks.values().find(|network| network.id == target);
        let network = networks.get(target).or_else(by_id)?;
        let own = self.owns(network.labels.as_ref());
        let (key, is_new) = self.networks.key(self.stack, &network.name, own);
        if is_new {
            let definition = if own { own_network(network) } else { vec![] };
            let definition = self.named(&key, &network.name, own, definition);
            // A stack has a default network without saying so.
            if key != "default" || definition != Yaml::Map(Vec::new()) {
                self.networks.definitions.insert(key.clone(), definition);
            }
        }
        Some((key, network))
    }

    /// The volume of a mount.
    pub fn volume(&mut self, mount: &Mount) -> String {
        let options = mount.volume_options.as_ref();
        let labels = options.and_then(|options| options.labels.as_ref());
        let driver = options.and_then(|options| options.driver_config.as_ref());
        let own = self.owns(labels);
        let (key, is_new) = self.volumes.key(self.stack, &mount.source, own);
        if is_new {
            let mut definition = Vec::new();
            if let Some(driver) = driver.filter(|_| own) {
                put_text(&mut definition, "driver", &driver.name);
                put_map(&mut definition, "driver_opts", driver.options.as_ref());
            }
            if own {
                put_labels(&mut definition, labels);
            }
            let definition = self.named(&key, &mount.source, own, definition);
            self.volumes.definitions.insert(key.clone(), definition);
        }
        key
    }

    /// A secret; nobody can read its content, so it has to be there.
    pub fn secret(&mut self, name: &str) -> String {
        let (key, _) = self.secrets.key(self.stack, name, true);
        let definition = self.named(&key, name, false, vec![]);
        self.secrets.definitions.insert(key.clone(), definition);
        key
    }

    /// A config, with its content if it is the stack's.
    pub fn config(&mut self, name: &str) -> String {
        let seen = self.seen;
        let live = seen.configs.get(name).filter(|config| self.owns(config.spec.labels.as_ref()));
        let own = live.and_then(|config| Some((config, (seen.content)(config)?)));
        let (key, is_new) = self.configs.key(self.stack, name, own.is_some());
        if !is_new {
            return key;
        }
        let mut definition = Vec::new();
        let is_own = own.is_some();
        if let Some((config, content)) = own {
            let path = format!("configs/{key}");
            definition.push(("file".to_owned(), Yaml::text(&path)));
            if let Some(templating) = &config.spec.templating {
                put_text(&mut definition, "template_driver", &templating.name);
            }
            put_labels(&mut definition, config.spec.labels.as_ref());
            self.contents.insert(path, content);
        }
        let definition = self.named(&key, name, is_own, definition);
        self.configs.definitions.insert(key.clone(), definition);
        key
    }

    /// The config of this ID.
    pub fn config_of_id(&mut self, id: &str) -> Option<String> {
        let seen = self.seen;
        let name = seen.configs.iter().find(|(_, config)| config.id == id).map(|(name, _)| name)?;
        Some(self.config(name))
    }

    fn owns(&self, labels: Option<&Labels>) -> bool {
        self.stack.is_some_and(|stack| namespace(labels) == Some(stack.as_str()))
    }

    /// With what the key alone does not say: `external`, and the name.
    fn named(&self, key: &str, name: &str, own: bool, mut definition: Sections) -> Yaml {
        let implied = match self.stack {
            Some(stack) if own => stack.scoped(key),
            _ => key.to_owned(),
        };
        if !own {
            definition.push(("external".to_owned(), Yaml::raw(&true)));
        }
        if implied != name {
            definition.push(("name".to_owned(), Yaml::text(name)));
        }
        Yaml::Map(definition)
    }
}

fn own_network(network: &Network) -> Sections {
    let mut definition = Vec::new();
    if network.driver != "overlay" {
        put_text(&mut definition, "driver", &network.driver);
    }
    let mut options = network.options.clone().unwrap_or_default();
    options.retain(|name, _| !OPTIONS_OF_SWARM.contains(&name.as_str()));
    put_map(&mut definition, "driver_opts", Some(&options));
    for (key, is) in [("internal", network.internal), ("attachable", network.attachable)] {
        if is {
            definition.push((key.to_owned(), Yaml::raw(&true)));
        }
    }
    let configs = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    let subnets: Vec<&String> = configs.map(|config| &config.subnet).filter(|subnet| !subnet.is_empty()).collect();
    if subnets.iter().any(|subnet| !subnet.starts_with(POOL_OF_SWARM)) {
        let subnet = |subnet: &&String| Yaml::Map(vec![("subnet".to_owned(), Yaml::text(*subnet))]);
        let config = Yaml::List(subnets.iter().map(subnet).collect());
        definition.push(("ipam".to_owned(), Yaml::Map(vec![("config".to_owned(), config)])));
    }
    put_labels(&mut definition, network.labels.as_ref());
    definition
}

/// Puts a text that is not empty.
pub(super) fn put_text(map: &mut Sections, key: &str, text: &str) {
    if !text.is_empty() {
        map.push((key.to_owned(), Yaml::text(text)));
    }
}

/// Puts a map that is not empty.
pub(super) fn put_map(map: &mut Sections, key: &str, texts: Option<&Labels>) {
    let entries: Sections = texts.into_iter().flatten().map(|(key, text)| (key.clone(), Yaml::text(text))).collect();
    if !entries.is_empty() {
        map.push((key.to_owned(), Yaml::Map(entries)));
    }
}

/// Puts labels, but for those that say what stack it is.
pub(super) fn put_labels(map: &mut Sections, labels: Option<&Labels>) {
    let mut labels = labels.cloned().unwrap_or_default();
    labels.retain(|name, _| name != LABEL_NAMESPACE && name != crate::spec::LABEL_IMAGE);
    put_map(map, "labels", Some(&labels));
}
