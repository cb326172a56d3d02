//! A running swarm → a Config Repo that plans to nothing against it. Pure; the inverse of [`crate::compose`].
//!
//! ```text
//! stacks/shop/compose.yml     every service with the label of the stack shop
//! stacks/shop/stack.yml       adopt: ask
//! stacks/shop/configs/site    the content of a config
//! single-services/redis.yml   a service without a stack, to be moved by hand
//! ```
//!
//! * Secrets give out no content: they are `external` by their live names. So is everything that is not labelled as the stack's.
//! * Images go by the text that the CLI recorded in their label, so that the planner keeps the digests that live.
//! * Subnets out of swarm's own pool are left out: swarm chose them, and may choose again.
//! * A single service can be in no stack as it lives, since a stack's service is called `stack_key` and has the stack's label. It is
//!   written beside the folder of stacks, where nothing is planned from it.
//!
//! What the compose format cannot say is left out here. Whoever writes the files plans them against the swarm and adds what differs with
//! [`Imported::remark`]; so nothing that is lost goes unnamed.

mod names;
mod service;
mod yaml;

use std::collections::BTreeMap;

use crate::model::StackName;
use crate::spec::{Config, LABEL_NAMESPACE, Labels, Network, Service};

use names::Names;
use yaml::Yaml;

/// Where services without a stack are written.
pub const SINGLES: &str = "single-services";

/// What lives, by name.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Services.
    pub services: &'a BTreeMap<String, Service>,
    /// Networks of the swarm, and predefined ones that services are on.
    pub networks: &'a BTreeMap<String, Network>,
    /// Configs.
    pub configs: &'a BTreeMap<String, Config>,
    /// The content of a config.
    pub content: fn(&Config) -> Option<Vec<u8>>,
}

/// What the swarm is as a Config Repo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// By the stack's name.
    pub stacks: BTreeMap<StackName, Imported>,
    /// Services without a stack, by name.
    pub singles: BTreeMap<String, Imported>,
    /// What could not be imported at all.
    pub left_out: Vec<String>,
}

/// One compose file with what it reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    compose: String,
    /// Contents of configs, by their paths beside the compose file.
    configs: BTreeMap<String, Vec<u8>>,
    /// How many services it holds.
    pub services: usize,
    /// What a person should know of it.
    pub remarks: Vec<String>,
}

/// Describes the swarm.
pub fn import(seen: &Seen<'_>) -> Import {
    let mut import = Import::default();
    let mut stacks: BTreeMap<StackName, Vec<(&str, &Service)>> = BTreeMap::new();
    for (name, service) in seen.services {
        let Some(namespace) = namespace(service.spec.labels.as_ref()) else {
            let mut single = imported(seen, None, &[(name, service)]);
            single.remark(format!(
                "{name} belongs to no stack. In one it would be called STACK_{name}: to move it, remove the service, put this file into a folder \
                 of its own below the stacks, and it is made anew"
            ));
            import.singles.insert(name.clone(), single);
            continue;
        };
        let stack = StackName::new(namespace);
        let key = name.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('_'));
        match (stack, key.filter(|key| !key.is_empty() && !key.starts_with("x-"))) {
            (Ok(stack), Some(key)) => stacks.entry(stack).or_default().push((key, service)),
            (Err(bad), _) => import.left_out.push(format!("service {name}: {bad}")),
            (Ok(stack), None) => import.left_out.push(format!(
                "service {name} has the label of the stack {stack}, whose services are called {stack}_…"
            )),
        }
    }
    for (stack, services) in stacks {
        let imported = imported(seen, Some(&stack), &services);
        import.stacks.insert(stack, imported);
    }
    import
}

impl Import {
    /// All files by their paths, the stacks below `folder`.
    pub fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let below = |path: String| if folder.is_empty() || folder == "." { path } else { format!("{folder}/{path}") };
        for (stack, imported) in &self.stacks {
            let text = format!(
                "# The stack runs already: it waits for `swarmkeeper adopt {stack}`, which restarts nothing.\nadopt: ask\n"
            );
            files.insert(below(format!("{stack}/stack.yml")), text.into_bytes());
            files.insert(below(format!("{stack}/compose.yml")), imported.text().into_bytes());
            for (path, content) in &imported.configs {
                files.insert(below(format!("{stack}/{path}")), content.clone());
            }
        }
        for (service, imported) in &self.singles {
            files.insert(format!("{SINGLES}/{service}.yml"), imported.text().into_bytes());
        }
        files
    }
}

impl Imported {
    /// Says something at the head of the file.
    pub fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }

    fn text(&self) -> String {
        let mut head = String::from("# Imported from the running swarm by `swarmkeeper import`.\n");
        for remark in &self.remarks {
            // Texts from elsewhere could end the comment, and go on as YAML.
            let line =
                remark.chars().map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c });
            head.push_str("# ");
            head.extend(line);
            head.push('\n');
        }
        format!("{head}{}", self.compose)
    }
}

fn imported(seen: &Seen<'_>, stack: Option<&StackName>, services: &[(&str, &Service)]) -> Imported {
    let mut names = Names::new(*seen, stack);
    let definitions: Vec<(String, Yaml)> = services
        .iter()
        .map(|(key, service)| ((*key).to_owned(), service::yaml(key, &service.spec, &mut names)))
        .collect();
    let mut document = vec![("services".to_owned(), Yaml::Map(definitions))];
    let (sections, configs, remarks) = names.finish();
    document.extend(sections);
    Imported { compose: Yaml::Map(document).document(), configs, services: services.len(), remarks }
}

fn namespace(labels: Option<&Labels>) -> Option<&str> {
    labels?.get(LABEL_NAMESPACE).map(String::as_str)
}
