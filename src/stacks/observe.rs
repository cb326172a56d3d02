//! What lives in the swarm, read with six list calls at once for all stacks.
//!
//! 300 services cost the same six requests as three do. Everything is indexed once by what planning asks for: names for the
//! objects that a file can name, service IDs for tasks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::{StreamExt, stream};

use super::apply::Auth;
use super::images::{Resolutions, digest};
use super::key::{KEY_CONFIG, Key, is_hashed_name};
use super::state::{BadState, Image, Kept, STATE_PREFIX, StackState};
use crate::io::swarm::{Error, Swarm, config_content};
use crate::model::{Adopt, DesiredStack, Revision, StackName, Wanted};
use crate::spec::{Config, LABEL_NAMESPACE, Labels, Network, Node, Secret, SecretSpec, Service, Task};

/// Networks asked for one by one in a pass; there are two that no list has.
const UNLISTED_NETWORKS_MAX: usize = 8;

/// Registries asked at once.
const RESOLUTIONS_AT_ONCE: usize = 4;

/// The whole swarm at one moment.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// By name.
    pub services: BTreeMap<String, Service>,
    /// By their service's ID.
    pub tasks: HashMap<String, Vec<Task>>,
    /// What joined networks without being a service's: one for each plain container.
    pub attachments: Vec<Task>,
    /// By name, those of the swarm, without the mesh.
    pub networks: BTreeMap<String, Network>,
    /// By name.
    pub secrets: BTreeMap<String, Secret>,
    /// By name, without our own.
    pub configs: BTreeMap<String, Config>,
    /// By ID.
    pub nodes: BTreeMap<String, Node>,
    /// The states of the stacks that we manage or were told about.
    pub states: BTreeMap<StackName, LiveState>,
    /// States that cannot be read.
    pub bad_states: Vec<BadState>,
    /// Tasks that a check in Consul says are critical, with the check's name, or why Consul does not say; none if no
    /// stack asks for it.
    pub critical: Option<Result<BTreeMap<String, String>, String>>,
    /// The key for fingerprints; none before the first leader made it.
    pub key: Option<Key>,
}

/// A stack's state with what is needed to write it back.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveState {
    /// The state.
    pub state: StackState,
    /// Its config's ID.
    pub id: String,
    /// Its config's version, the compare-and-swap.
    pub version: u64,
}

/// What one stack's planning looks at: the swarm, through that stack's eyes.
#[derive(Debug, Clone, Copy)]
pub struct ObservedStack<'a> {
    /// The stack.
    pub name: &'a StackName,
    /// The whole swarm.
    pub swarm: &'a Observed,
    /// Its state, if there is one.
    pub live: Option<&'a LiveState>,
}

/// Reads the swarm.
pub async fn observe(swarm: &Swarm) -> Result<Observed, Error> {
    let (services, tasks, networks, secrets, configs, nodes) = tokio::try_join!(
        swarm.services(),
        swarm.tasks(),
        swarm.networks(),
        swarm.secrets(),
        swarm.configs(),
        swarm.nodes(),
    )?;
    let mut observed = Observed::new(services, tasks, networks, secrets, configs, nodes);
    // Plain containers can be on no others; most swarms have none, and no seventh request.
    if observed.networks.values().any(|network| network.attachable) {
        observed.attachments = swarm.attachments().await?;
    }
    for id in observed.unlisted_networks() {
        match swarm.network(&id).await {
            Ok(network) => drop(observed.networks.insert(network.name.clone(), network)),
            // Removed in the meantime, or one that no engine knows: the comparison shows it by its ID.
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(observed)
}

/// Asks registries, through the engine, for the digests of images; of one that names its digest, whether that is there.
pub async fn resolve(swarm: &Swarm, texts: BTreeSet<String>, auth: &Auth<'_>) -> Resolutions {
    stream::iter(texts)
        .map(|text| async move {
            let answer = swarm.distribution(&text, auth(&text).as_ref()).await;
            let image = answer.map(|found| {
                let image = if digest(&text).is_some() { text.clone() } else { format!("{text}@{}", found.digest) };
                Image { image, platforms: found.placement() }
            });
            (text, image.map_err(|error| error.to_string()))
        })
        .buffer_unordered(RESOLUTIONS_AT_ONCE)
        .collect()
        .await
}

/// Whether live secrets, by name, have the content that their stack wants. Secrets of which nobody asked are missing.
pub type SecretContents = BTreeMap<String, bool>;

/// Live secrets that may be a stack's own and whose content the state says nothing about: what it wants, by their names.
///
/// Asked about when a stack is about to be adopted, and when deploying without a state. After `leave` the hashed names of former
/// times are found again so.
pub fn unrecorded_secrets<'a>(
    desired: &'a DesiredStack,
    observed: ObservedStack<'a>,
) -> BTreeMap<&'a str, &'a SecretSpec> {
    let recorded =
        |key: &str| observed.live.is_some_and(|live| live.state.contents.contains_key(&format!("secret/{key}")));
    let mut found = BTreeMap::new();
    for (key, wanted) in &desired.objects.secrets {
        let Wanted::Own { spec, .. } = wanted else { continue };
        if spec.driver.is_some() || recorded(key) {
            continue;
        }
        let live = observed.swarm.secrets.range(spec.name.clone()..);
        let live = live.take_while(|(name, _)| name.starts_with(&spec.name));
        let ours = live.filter(|(name, secret)| {
            let namespaced = in_namespace(secret.spec.labels.as_ref(), observed.name.as_str());
            **name == spec.name || (namespaced && is_hashed_name(name, &spec.name))
        });
        found.extend(ours.map(|(name, _)| (name.as_str(), spec)));
    }
    found
}

/// True if a stack is about to be adopted, so that its secrets' contents matter.
pub fn is_adopting(desired: &DesiredStack, observed: ObservedStack<'_>) -> bool {
    let is_asked = observed.live.is_some_and(|live| live.state.adopt);
    is_asked || (desired.settings.adopt == Adopt::Auto && observed.live.is_none())
}

/// Asks about the secrets of all stacks that are about to be adopted; usually there is none, and no request.
pub async fn secrets_of_adoptions(
    swarm: &Swarm,
    desired: &[DesiredStack],
    observed: &Observed,
) -> Result<SecretContents, Error> {
    let adopting = desired.iter().filter(|stack| is_adopting(stack, observed.stack(&stack.name)));
    let wanted = adopting.flat_map(|stack| unrecorded_secrets(stack, observed.stack(&stack.name))).collect();
    compare_secrets(swarm, observed, wanted).await
}

/// Asks the engine about the contents of secrets, without writing.
pub async fn compare_secrets(
    swarm: &Swarm,
    observed: &Observed,
    wanted: BTreeMap<&str, &SecretSpec>,
) -> Result<SecretContents, Error> {
    let mut contents = SecretContents::new();
    for (name, spec) in wanted {
        let Some(live) = observed.secrets.get(name) else { continue };
        let wanted = SecretSpec { name: name.to_owned(), ..spec.clone() };
        contents.insert(name.to_owned(), swarm.secret_content_is(&live.id, &wanted).await?);
    }
    Ok(contents)
}

impl Observed {
    /// Indexes what the lists say.
    pub fn new(
        services: Vec<Service>,
        tasks: Vec<Task>,
        networks: Vec<Network>,
        secrets: Vec<Secret>,
        configs: Vec<Config>,
        nodes: Vec<Node>,
    ) -> Self {
        let mut observed = Self {
            services: services.into_iter().map(|service| (service.spec.name.clone(), service)).collect(),
            secrets: secrets.into_iter().map(|secret| (secret.spec.name.clone(), secret)).collect(),
            nodes: nodes.into_iter().map(|node| (node.id.clone(), node)).collect(),
            ..Self::default()
        };
        for task in tasks {
            observed.tasks.entry(task.service_id.clone()).or_default().push(task);
        }
        for network in networks {
            if !network.ingress {
                observed.networks.insert(network.name.clone(), network);
            }
        }
        for config in configs {
            observed.take_config(config);
        }
        observed
    }

    /// One stack's view.
    pub fn stack<'a>(&'a self, name: &'a StackName) -> ObservedStack<'a> {
        ObservedStack { name, swarm: self, live: self.states.get(name) }
    }

    /// Networks that services are on and no list has: `host` and `bridge` go by IDs of the swarm's own.
    fn unlisted_networks(&self) -> Vec<String> {
        let listed: BTreeSet<&str> = self.networks.values().map(|network| network.id.as_str()).collect();
        let used = self.services.values().flat_map(|service| service.spec.task_template.networks.iter().flatten());
        let unlisted: BTreeSet<&str> =
            used.map(|network| network.target.as_str()).filter(|id| !listed.contains(id)).collect();
        unlisted.into_iter().take(UNLISTED_NETWORKS_MAX).map(str::to_owned).collect()
    }

    fn take_config(&mut self, config: Config) {
        let name = config.spec.name.clone();
        if name == KEY_CONFIG {
            self.key = config_content(&config).and_then(|content| Key::decode(&content));
            return;
        }
        let Some(stack) = name.strip_prefix(STATE_PREFIX) else {
            self.configs.insert(name, config);
            return;
        };
        let bad = |reason: String| BadState { stack: stack.to_owned(), reason };
        let state = StackState::decode(&config.spec);
        match (StackName::new(stack).map_err(|error| bad(error.to_string())), state) {
            (Ok(stack), Ok(state)) => {
                self.states.insert(stack, LiveState { state, id: config.id, version: config.version.index });
            }
            (Err(bad), _) | (_, Err(bad)) => self.bad_states.push(bad),
        }
    }
}

impl<'a> ObservedStack<'a> {
    /// Its services by the namespace label, whoever owns them.
    pub fn services(&self) -> impl Iterator<Item = &'a Service> + use<'a> {
        let namespace = self.name.as_str();
        self.swarm.services.values().filter(move |service| in_namespace(service.spec.labels.as_ref(), namespace))
    }

    /// A service's tasks.
    pub fn tasks(&self, service_id: &str) -> &'a [Task] {
        self.swarm.tasks.get(service_id).map_or(&[], Vec::as_slice)
    }

    /// What is remembered of a service that was taken off a network.
    pub fn kept(&self, service: &str) -> Option<&'a Kept> {
        self.live?.state.rollout.as_ref()?.remaking.as_ref()?.services.get(service)
    }

    /// The revision that was last healthy.
    pub fn healthy_revision(&self) -> Option<&'a Revision> {
        self.live?.state.healthy.as_ref()?.revision.as_ref()
    }
}

/// True if an object's labels put it into this namespace.
pub fn in_namespace(labels: Option<&Labels>, namespace: &str) -> bool {
    labels.and_then(|labels| labels.get(LABEL_NAMESPACE)).is_some_and(|value| value == namespace)
}
