//! A rendered stack → what of it is not allowed, each with its place.

use std::collections::BTreeMap;

use super::pattern::{self, Pattern};
use super::sources::{Source, of_mount};
use super::{Permissions, Rule, Texts};
use crate::model::{DesiredService, Finding, Location, StackName, StackObjects, Wanted};
use crate::spec::NetworkSpec;

/// The network that is none of the swarm's.
const HOST_NETWORK: &str = "host";

/// Allows what no other pattern can foresee, too.
const EVERYTHING: &str = "**";

/// Swarmkeeper's own configs begin so: who makes one could forge what a stack owns.
const NAMES_OF_OURS: &str = "swarmkeeper-";

/// Drivers whose networks are the swarm's own; any other reaches the node's interfaces.
const DRIVERS_OF_SWARM: [&str; 2] = ["", "overlay"];

impl Permissions {
    /// What of `stack` is not allowed; empty if all is. `texts` serves to find the very item of a list.
    pub fn refusals(&self, stack: &StackName, objects: &StackObjects, texts: &Texts<'_>) -> Vec<Finding> {
        if self.entries.is_none() {
            return Vec::new();
        }
        let places = Places { sources: &objects.sources, texts };
        let refused = uses(stack, objects).into_iter().filter(|used| !self.allows(stack, &used.source));
        let mut findings: Vec<Finding> = refused.map(|used| self.finding(stack, &used, &places)).collect();
        findings.sort_by(|a, b| a.location.cmp(&b.location));
        findings.dedup();
        findings
    }

    fn allows(&self, stack: &StackName, source: &Source) -> bool {
        if source.rule == Rule::HostNetwork {
            return self.matching(stack).any(|entry| entry.host_network);
        }
        let matches = |pattern: &Pattern| source.names.iter().any(|name| pattern.matches(name));
        self.patterns(stack, source.rule).any(|pattern| pattern.text() == EVERYTHING || matches(pattern))
    }

    fn finding(&self, stack: &StackName, used: &Use, places: &Places<'_>) -> Finding {
        let Source { rule, written, names, .. } = &used.source;
        let (path, location) = places.find(&used.wheres);
        let key = rule.key();
        let (name, policy) = (names.first().unwrap_or(written), format!("policy.{stack}.{key}"));
        let allowed: Vec<&str> = self.patterns(stack, *rule).map(Pattern::text).collect();
        let allowed = match (rule, allowed.is_empty()) {
            (Rule::HostNetwork, _) => "which the policy does not allow this stack".to_owned(),
            (_, true) => format!("and the policy allows this stack no {key}"),
            (_, false) => format!("and the policy allows this stack the {key} {}", allowed.join(", ")),
        };
        let found = match rule {
            Rule::HostNetwork if written == HOST_NETWORK => "the host's network".to_owned(),
            Rule::Binds if name != written => format!("{} {written}, that is {name}", rule.noun()),
            _ => format!("{} {written}", rule.noun()),
        };
        let mend = if *rule == Rule::HostNetwork {
            format!("to allow it, set {policy}: true in {}", self.file)
        } else if names.is_empty() {
            "it could become anything: write it out, without {{…}} and ..".to_owned()
        } else {
            format!("to allow it, add {:?} to {policy} in {}", name, self.file)
        };
        Finding { location, path, message: format!("found {found}, {allowed}"), mend }
    }
}

/// Something that has to be allowed, and where the file may say it: the first of these that is there.
struct Use {
    source: Source,
    wheres: Vec<Where>,
}

/// A path in the compose file.
enum Where {
    /// The key itself.
    Key(String),
    /// The item of a list with this text in it.
    Item { list: String, text: String },
}

/// Everything in the stack that has to be allowed.
fn uses(stack: &StackName, objects: &StackObjects) -> Vec<Use> {
    let mut uses = Vec::new();
    for (key, service) in &objects.services {
        of_service(stack, key, service, &mut uses);
    }
    for (key, network) in &objects.networks {
        let source = of_network(network);
        uses.extend(source.map(|source| Use { source, wheres: definition("networks", key) }));
    }
    for (key, secret) in &objects.secrets {
        let name = match secret {
            Wanted::External(name) => Some(name.clone()),
            // A driver fetches the content from wherever it is.
            Wanted::Own { spec, .. } => spec.driver.as_ref().map(|driver| format!("{}:{}", driver.name, spec.name)),
        };
        let source = name.map(|name| Source::new(Rule::Secrets, name));
        uses.extend(source.map(|source| Use { source, wheres: definition("secrets", key) }));
    }
    for (key, config) in &objects.configs {
        let name = match config {
            Wanted::External(name) => Some(name),
            Wanted::Own { spec, .. } => Some(&spec.name).filter(|name| name.starts_with(NAMES_OF_OURS)),
        };
        let source = name.map(|name| Source::new(Rule::Configs, name));
        uses.extend(source.map(|source| Use { source, wheres: definition("configs", key) }));
    }
    uses
}

fn of_service(stack: &StackName, key: &str, service: &DesiredService, uses: &mut Vec<Use>) {
    let path = |part: &str| format!("services.{key}.{part}");
    let container = &service.spec.task_template.container_spec;
    let image = Source::new(Rule::Images, &container.image);
    uses.push(Use { source: image, wheres: vec![Where::Key(path("image"))] });
    for capability in container.capability_add.iter().flatten() {
        let source = Source::new(Rule::Capabilities, capability);
        let text = pattern::capability(capability);
        uses.push(Use { source, wheres: vec![Where::Item { list: path("cap_add"), text }] });
    }
    for mount in container.mounts.iter().flatten() {
        let item = |list: &str| Where::Item { list: path(list), text: mount.target.clone() };
        for source in of_mount(stack, mount) {
            let volume = mount.source.strip_prefix(&stack.scoped("")).filter(|_| source.defined);
            let defined = volume.map(|volume| ["driver_opts", "driver"].map(|key| format!("volumes.{volume}.{key}")));
            let defined = defined.into_iter().flatten().map(Where::Key);
            uses.push(Use { source, wheres: defined.chain([item("volumes")]).collect() });
        }
    }
    let credentials = container.privileges.as_ref().and_then(|privileges| privileges.credential_spec.as_ref());
    // They lie on the node, as files or in its registry.
    for file in credentials.into_iter().flat_map(|spec| [&spec.file, &spec.registry]).filter(|file| !file.is_empty()) {
        let source = Source::new(Rule::Binds, format!("credential_spec:{file}"));
        uses.push(Use { source, wheres: vec![Where::Key(path("credential_spec"))] });
    }
}

fn of_network(network: &Wanted<NetworkSpec>) -> Option<Source> {
    match network {
        Wanted::External(name) if name != HOST_NETWORK => Some(Source::new(Rule::Networks, name)),
        Wanted::External(_) => Some(Source::new(Rule::HostNetwork, HOST_NETWORK)),
        Wanted::Own { spec, .. } if spec.name == HOST_NETWORK => Some(Source::new(Rule::HostNetwork, HOST_NETWORK)),
        Wanted::Own { spec, .. } if !DRIVERS_OF_SWARM.contains(&spec.driver.as_str()) => {
            Some(Source::new(Rule::HostNetwork, &spec.driver))
        }
        Wanted::Own { .. } => None,
    }
}

/// Where a top-level object says what it is.
fn definition(section: &str, key: &str) -> Vec<Where> {
    let path = format!("{section}.{key}");
    ["name", "external", "driver"].iter().map(|part| Where::Key(format!("{path}.{part}"))).collect()
}

/// Finds places in the stack's files.
struct Places<'a> {
    sources: &'a BTreeMap<String, Location>,
    texts: &'a Texts<'a>,
}

impl Places<'_> {
    /// The first of these that is there; else the nearest part of the document above it.
    fn find(&self, wheres: &[Where]) -> (String, Option<Location>) {
        let exact = wheres.iter().find_map(|place| match place {
            Where::Key(path) => Some((path.clone(), self.sources.get(path)?.clone())),
            Where::Item { list, text } => self.item(list, text),
        });
        if let Some((path, location)) = exact {
            return (path, Some(location));
        }
        let mut path = match wheres.last() {
            Some(Where::Key(path) | Where::Item { list: path, .. }) => path.as_str(),
            None => "",
        };
        while !self.sources.contains_key(path)
            && let Some(end) = path.rfind('.')
        {
            path = path.get(..end).unwrap_or_default();
        }
        (path.to_owned(), self.sources.get(path).cloned())
    }

    /// The item of `list` that has `text` in it. With several files only the items of the last are known by their index.
    fn item(&self, list: &str, text: &str) -> Option<(String, Location)> {
        let text = text.to_lowercase();
        (0..)
            .map(|n| format!("{list}[{n}]"))
            .map_while(|path| self.sources.get(&path).map(|location| (path, location)))
            .find(|(path, location)| self.text_of(path, location).is_some_and(|item| item.contains(&text)))
            .map(|(path, location)| (path, location.clone()))
    }

    /// The lower-case text from an item's beginning to the next item's.
    fn text_of(&self, path: &str, start: &Location) -> Option<String> {
        let below = |other: &&Location| other.file == start.file;
        let inside = self.sources.range(format!("{path}.")..format!("{path}/")).map(|(_, location)| location);
        let last = inside.filter(below).map(|location| location.line).max().unwrap_or(start.line);
        let text = self.texts.get(start.file.as_str())?;
        let lines = text.lines().skip(start.line.checked_sub(1)?).take((last + 1).checked_sub(start.line)?);
        let mut lines: Vec<String> = lines.map(str::to_lowercase).collect();
        if let Some(first) = lines.first_mut() {
            let skipped = start.column.saturating_sub(1);
            let until = self.next_on_the_line(path, start).map_or(usize::MAX, |next| next.saturating_sub(start.column));
            *first = first.chars().skip(skipped).take(until).collect();
        }
        Some(lines.join("\n"))
    }

    /// The column of the next item of the same list, if it stands on the same line: `[a, b]`.
    fn next_on_the_line(&self, path: &str, start: &Location) -> Option<usize> {
        let (list, index) = path.strip_suffix(']')?.rsplit_once('[')?;
        let next = self.sources.get(&format!("{list}[{}]", index.parse::<usize>().ok()? + 1))?;
        (next.file == start.file && next.line == start.line).then_some(next.column)
    }
}
