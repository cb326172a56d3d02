//! What a file must be before anything is read from it: its version, names, and where null, numbers as keys and repeated items
//! may stand.
//!
//! The readers of the sections refuse unknown keys and wrong types. What of the CLI's version 3 schema is left, namely which
//! key came with which of 3.0 to 3.13, has its place here.

use super::read::Ctx;
use crate::model::Finding;
use crate::yaml::{Entry, Field, Node, Value, join};

const MINOR_VERSION_MAX: u8 = 13;

/// Lists whose items must differ.
const UNIQUE: [&str; 18] = [
    "aliases",
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
    "ports",
    "security_opt",
    "sysctls",
    "tmpfs",
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
        walk(node, &mut Vec::new(), "", ctx);
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

fn walk<'n>(node: &'n Node, keys: &mut Vec<&'n str>, path: &str, ctx: &Ctx<'_>) {
    if keys.iter().any(|key| key.starts_with("x-")) {
        return;
    }
    match &node.value {
        // A null that no source spells is a variable's that failed, and has its mistake.
        Value::Null if node.source.is_some() && !keys.is_empty() && !may_be_null(keys) => {
            ctx.problems.add(node.finding(path, "a value is missing", "write one, or remove the key"));
        }
        Value::Map(map) => {
            for entry in map {
                let path = join(path, &entry.key);
                if entry.key.is_empty() {
                    wrong_key(entry, &path, "a key is empty", "", ctx);
                } else if !entry.key_is_text {
                    let message = "a number, a boolean or a date cannot be a key";
                    wrong_key(entry, &path, message, "put it in quotes", ctx);
                }
                keys.push(&entry.key);
                walk(&entry.value, keys, &path, ctx);
                keys.pop();
            }
        }
        Value::Seq(items) => {
            check_unique(items, keys, path, ctx);
            for (n, item) in items.iter().enumerate() {
                keys.push("[]");
                walk(item, keys, &format!("{path}[{n}]"), ctx);
                keys.pop();
            }
        }
        _ => {}
    }
}

fn wrong_key(entry: &Entry, path: &str, message: &str, mend: &str, ctx: &Ctx<'_>) {
    let location = Some(entry.key_location.clone());
    let (path, message, mend) = (path.to_owned(), message.to_owned(), mend.to_owned());
    ctx.problems.add(Finding { location, path, message, mend });
}

fn may_be_null(keys: &[&str]) -> bool {
    matches!(
        keys,
        ["version"]
            | ["networks" | "volumes", _]
            | ["services", _, "deploy" | "pid"]
            | ["services", _, "networks", _]
            | [.., "environment" | "labels" | "extra_hosts" | "sysctls" | "args" | "options", _]
    )
}

fn check_unique(items: &[Node], keys: &[&str], path: &str, ctx: &Ctx<'_>) {
    if !keys.last().is_some_and(|key| UNIQUE.contains(key)) {
        return;
    }
    let mut seen = std::collections::HashMap::new();
    for (n, item) in items.iter().enumerate() {
        if let Some(first) = seen.insert(item.to_json().to_string(), n) {
            let message = format!("the same as {path}[{first}]");
            ctx.problems.add(item.finding(format!("{path}[{n}]"), message, "keep one of them"));
        }
    }
}
