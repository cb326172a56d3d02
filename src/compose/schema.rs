//! What a file must be before anything is read from it: its version, names, the keys that its version knows, and where null,
//! numbers as keys and repeated items may stand.
//!
//! The keys are those of [`super::keys`]. The readers of the sections refuse wrong types; the types of keys that nobody reads
//! are checked here. Leniently, versions mean nothing and the readers themselves refuse the keys that they do not know.

use super::keys::Section;
use super::read::Ctx;
use super::services;
use crate::model::Finding;
use crate::yaml::{Entry, Field, Node, Value, join, nearest};

const MINOR_VERSION_MAX: u8 = 13;

/// Lists whose items must differ.
const UNIQUE: [&str; 22] = [
    "aliases",
    "args",
    "cache_from",
    "cap_add",
    "cap_drop",
    "depends_on",
    "devices",
    "dns",
    "dns_search",
    "env_file",
    "environment",
    "expose",
    "external_links",
    "extra_hosts",
    "labels",
    "links",
    "networks",
    "ports",
    "security_opt",
    "segments",
    "sysctls",
    "tmpfs",
];

/// What a value has to be that nobody reads.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Text,
    TextOrNumber,
    TextOrMap,
    TextOrTexts,
    Bool,
    Whole,
    Texts,
    TextsOrNumbers,
    Mapping,
    Map,
}

/// Keys without effect, whose values the schema checks all the same.
const UNREAD: &[(Shape, &str, &str)] = &[
    (Shape::TextOrMap, "services.*", "build"),
    (
        Shape::Text,
        "services.*",
        "cgroup_parent cgroupns_mode container_name domainname ipc mac_address network_mode pid shm_size userns_mode",
    ),
    (Shape::Texts, "services.*", "devices external_links links security_opt"),
    (Shape::TextsOrNumbers, "services.*", "expose"),
    (Shape::TextOrTexts, "services.*", "tmpfs"),
    (Shape::Bool, "services.*", "privileged"),
    (Shape::Whole, "services.*", "oom_score_adj"),
    (Shape::Text, "services.*.build", "context dockerfile network target"),
    (Shape::Mapping, "services.*.build", "args labels extra_hosts"),
    (Shape::Texts, "services.*.build", "cache_from"),
    (Shape::TextOrNumber, "services.*.build", "shm_size"),
    (Shape::Text, "services.*.networks.*", "ipv4_address ipv6_address"),
    (Shape::Map, "volumes.*", "x-cluster-spec"),
];

/// Checks `node`, a whole file; `version` is what the files before it said.
pub(super) fn check(node: &Node, version: &mut Option<String>, ctx: &Ctx<'_>) {
    let Some(root) = node.as_map() else {
        Field::new(node, "", &ctx.problems).expected("a map with services");
        return;
    };
    let said = root.get("version").filter(|node| !node.is_null());
    let found = said.and_then(|node| check_version(&Field::new(node, "version", &ctx.problems), ctx));
    let found = found.unwrap_or_else(|| format!("3.{MINOR_VERSION_MAX}"));
    match version {
        None => *version = Some(found),
        Some(first) if *first != found && !ctx.lenient() => {
            let message = format!("the files before say version {first}, this one {found}");
            ctx.problems.add(said.unwrap_or(node).finding("version", message, "say the same in all files"));
        }
        Some(_) => {}
    }
    check_names(root.iter(), ctx);
    if !ctx.lenient() {
        let minor = version.as_deref().and_then(minor).unwrap_or(MINOR_VERSION_MAX);
        Walk { minor, ctx }.map(node, &Place::default());
    }
}

/// The version as `3.x`; leniently, it is a remark at most.
fn check_version(field: &Field<'_, '_>, ctx: &Ctx<'_>) -> Option<String> {
    if ctx.lenient() {
        let text = field.node.spelled().unwrap_or_default();
        if !text.is_empty() && minor(text).is_none() {
            ctx.warn_field(field, format!("version {text} is read as 3.{MINOR_VERSION_MAX}"), "remove the key");
        }
        return None;
    }
    let text = field.string().filter(|text| !text.is_empty())?;
    let minor = minor(&text);
    if minor.is_none() {
        field.wrong(format!("version {text} is none of 3, 3.0 to 3.{MINOR_VERSION_MAX}"), "");
    }
    minor.map(|minor| format!("3.{minor}"))
}

fn minor(version: &str) -> Option<u8> {
    if version == "3" {
        return Some(MINOR_VERSION_MAX);
    }
    let minor = version.strip_prefix("3.")?;
    (0..=MINOR_VERSION_MAX).find(|known| known.to_string() == minor)
}

/// Names of services and so on: letters, digits, `.`, `_` and `-`.
fn check_names<'n>(root: impl Iterator<Item = &'n Entry>, ctx: &Ctx<'_>) {
    let sections = ["services", "networks", "volumes", "secrets", "configs"];
    for section in root.filter(|entry| sections.contains(&entry.key.as_str())) {
        for entry in section.value.as_map().into_iter().flatten() {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if entry.key.is_empty() || !entry.key.chars().all(fits) {
                ctx.problems.add(Finding {
                    location: Some(entry.key_location.clone()),
                    path: section.key.clone(),
                    message: format!("{:?} cannot be a name", entry.key),
                    mend: "use letters, digits, '.', '_' and '-'".to_owned(),
                });
            }
        }
    }
}

/// Where the walk is.
#[derive(Debug, Clone, Default)]
struct Place {
    /// For mistakes: `services.web.ports[1]`.
    path: String,
    /// For the tables: `services.*.ports[]`.
    pattern: String,
}

impl Place {
    fn below(&self, key: &str) -> Self {
        let fixed = Section::at(&self.pattern).is_some();
        Self { path: join(&self.path, key), pattern: join(&self.pattern, if fixed { key } else { "*" }) }
    }

    fn item(&self, n: usize) -> Self {
        Self { path: format!("{}[{n}]", self.path), pattern: format!("{}[]", self.pattern) }
    }
}

/// A walk through a whole file, which docker/cli calls its validation.
struct Walk<'a> {
    minor: u8,
    ctx: &'a Ctx<'a>,
}

impl Walk<'_> {
    fn value(&self, node: &Node, place: &Place) {
        self.check_unread(node, place);
        match &node.value {
            // A null that no source spells is a variable's that failed, and has its mistake.
            Value::Null if node.source.is_some() && !may_be_null(&place.pattern) => {
                self.ctx.problems.add(node.finding(&place.path, "a value is missing", "write one, or remove the key"));
            }
            Value::Float(f) if !f.is_finite() => {
                self.ctx.problems.add(node.finding(&place.path, "no such number can be sent", "put it in quotes"));
            }
            Value::Map(_) => self.map(node, place),
            Value::Seq(items) => {
                self.check_unique(items, place);
                for (n, item) in items.iter().enumerate() {
                    self.value(item, &place.item(n));
                }
            }
            _ => {}
        }
    }

    fn map(&self, node: &Node, place: &Place) {
        let section = Section::at(&place.pattern);
        for entry in node.as_map().into_iter().flatten() {
            let below = place.below(&entry.key);
            if entry.key.is_empty() {
                self.wrong_key(entry, &below, "a key is empty", String::new());
            } else if !entry.key_is_text {
                let message = "a number, a boolean or a date cannot be a key";
                self.wrong_key(entry, &below, message, "put it in quotes".to_owned());
            }
            if section.is_none_or(|section| self.knows(section, entry, &below)) {
                self.value(&entry.value, &below);
            }
        }
    }

    /// Is `entry` a key of the schema? One that nobody knows is a mistake, unless anything may stand there.
    fn knows(&self, section: &Section, entry: &Entry, place: &Place) -> bool {
        let brought = section.keys().find(|(key, _)| *key == entry.key).map(|(_, minor)| minor);
        if brought.is_some_and(|minor| minor <= self.minor) {
            return true;
        }
        let own = entry.key.starts_with("x-") && section.is_extensible(self.minor);
        // The reader has a better word for these.
        let forbidden = section.path == "services.*" && services::is_forbidden(&entry.key);
        if own || forbidden || section.is_open(self.minor) {
            return false;
        }
        if let Some(minor) = brought {
            let message = format!("the key came with version 3.{minor}; this file is of version 3.{}", self.minor);
            self.wrong_key(entry, place, &message, "remove version".to_owned());
        } else {
            let known: Vec<_> = section.keys().map(|(key, _)| key).collect();
            let mend = nearest(&entry.key, &known).map(|near| format!("did you mean {near}?"));
            self.wrong_key(entry, place, "no such key", mend.unwrap_or_default());
        }
        false
    }

    fn wrong_key(&self, entry: &Entry, place: &Place, message: &str, mend: String) {
        let (location, path, message) = (Some(entry.key_location.clone()), place.path.clone(), message.to_owned());
        self.ctx.problems.add(Finding { location, path, message, mend });
    }

    fn check_unread(&self, node: &Node, place: &Place) {
        let is_here = |(_, section, keys): &&(Shape, &str, &str)| {
            let key = place.pattern.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
            key.is_some_and(|key| keys.split_whitespace().any(|unread| unread == key))
        };
        if let Some((shape, ..)) = UNREAD.iter().find(is_here) {
            shape.check(&Field::new(node, &place.path, &self.ctx.problems), self.ctx);
        }
    }

    fn check_unique(&self, items: &[Node], place: &Place) {
        let key = place.pattern.rsplit('.').next().unwrap_or_default();
        // With the long form, 3.2 lost this for volumes.
        let unique = UNIQUE.contains(&key) || (key == "volumes" && self.minor < 2);
        if !unique {
            return;
        }
        let mut seen = std::collections::HashMap::new();
        for (n, item) in items.iter().enumerate() {
            if let Some(first) = seen.insert(item.to_json().to_string(), n) {
                let message = format!("the same as {}[{first}]", place.path);
                self.ctx.problems.add(item.finding(place.item(n).path, message, "keep one of them"));
            }
        }
    }
}

impl Shape {
    fn check(self, field: &Field<'_, '_>, ctx: &Ctx<'_>) {
        let is_number = |node: &Node| matches!(node.value, Value::Int(_) | Value::Float(_));
        match self {
            Self::TextOrNumber if is_number(field.node) => {}
            Self::TextOrMap if field.node.as_map().is_some() => {}
            Self::Text | Self::TextOrNumber | Self::TextOrMap => drop(field.string()),
            Self::TextOrTexts => drop(ctx.text_or_texts(field)),
            Self::Bool => drop(field.bool()),
            Self::Whole => drop(field.integer::<i64>()),
            Self::Texts => drop(ctx.texts(field)),
            Self::TextsOrNumbers => {
                let items = field.items("a list of texts and numbers").unwrap_or_default();
                items.iter().filter(|item| !is_number(item.node)).for_each(|item| drop(item.string()));
            }
            Self::Mapping => drop(ctx.mapping(field)),
            Self::Map => drop(field.map()),
        }
    }
}

fn may_be_null(pattern: &str) -> bool {
    if matches!(pattern, "networks.*" | "volumes.*" | "services.*.deploy" | "services.*.pid" | "services.*.networks.*")
    {
        return true;
    }
    let free = ["environment", "labels", "extra_hosts", "sysctls", "args", "options", "segments"];
    pattern.strip_suffix(".*").and_then(|map| map.rsplit('.').next()).is_some_and(|map| free.contains(&map))
}
