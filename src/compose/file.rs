//! A compose file as read, before merging: what the sections say, typed, and no more resolved than one file can be.

use std::collections::BTreeMap;

use super::networks::{self, NetworkDef};
use super::read::{Ctx, Ignored};
use super::services::{self, Service};
use super::volumes::{self, VolumeDef};
use super::{
    files::{self, FileDef},
    read::Mapping,
};
use crate::spec::{Driver, Labels};
use crate::yaml::{Field, MapReader, Node};

/// One file, or several merged.
#[derive(Debug, Default)]
pub(super) struct ComposeFile {
    pub services: BTreeMap<String, Service>,
    pub networks: BTreeMap<String, NetworkDef>,
    pub volumes: BTreeMap<String, VolumeDef>,
    pub secrets: BTreeMap<String, FileDef>,
    pub configs: BTreeMap<String, FileDef>,
}

const IGNORED_BY_LENIENT: &[Ignored] =
    &[("name", "the stack's name is its folder's, or the command line's"), ("models", "")];

/// Reads a whole file.
pub(super) fn read(node: &Node, ctx: &Ctx<'_>) -> ComposeFile {
    // Anything but a map has its mistake from the schema check.
    if node.as_map().is_none() {
        return ComposeFile::default();
    }
    let mut root = MapReader::new(node, "", &ctx.problems);
    root.know(["version"]);
    if ctx.lenient()
        && let Some(include) = root.take("include")
    {
        include.wrong("include is not supported", "name all files, or merge them");
    }
    let file = ComposeFile {
        services: section(&mut root, "services", ctx, |_, field| services::read(field, ctx)),
        networks: section(&mut root, "networks", ctx, |key, field| networks::read(key, field, ctx)),
        volumes: section(&mut root, "volumes", ctx, |key, field| volumes::read(key, field, ctx)),
        secrets: section(&mut root, "secrets", ctx, |key, field| files::read(key, field, files::Kind::Secret, ctx)),
        configs: section(&mut root, "configs", ctx, |key, field| files::read(key, field, files::Kind::Config, ctx)),
    };
    ctx.finish(root, &[], IGNORED_BY_LENIENT);
    file
}

fn section<'n, 'p, T>(
    root: &mut MapReader<'n, 'p>,
    key: &'static str,
    ctx: &Ctx<'_>,
    read: impl Fn(&str, &Field<'n, 'p>) -> T,
) -> BTreeMap<String, T> {
    let entries = root.take(key).and_then(|field| field.entries("a map")).unwrap_or_default();
    // Leniently, `x-*` is anybody's own, between networks as between keys; for the CLI it is a name as any other.
    let own = entries.iter().filter(|(entry, _)| !ctx.lenient() || !entry.key.starts_with("x-"));
    own.map(|(entry, field)| (entry.key.clone(), read(&entry.key, field))).collect()
}

/// What of a definition is not ours to make.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Naming {
    /// `name:`, or the name of the external object; empty if the file gives none.
    pub name: String,
    /// Somebody else's.
    pub external: bool,
}

/// Reads `name` and `external`, the latter also in its old form `external: {name: …}`.
pub(super) fn naming(reader: &mut MapReader<'_, '_>, key: &str, ctx: &Ctx<'_>) -> Naming {
    let name = reader.take("name").and_then(|field| ctx.text(&field)).unwrap_or_default();
    let Some(external) = reader.take("external") else { return Naming { name, external: false } };
    if external.node.as_map().is_none() {
        let external = ctx.flag(&external).unwrap_or_default();
        let name = if external && name.is_empty() { key.to_owned() } else { name };
        return Naming { name, external };
    }
    let mut old = external.map();
    let old_name = old.take("name").and_then(|field| ctx.text(&field)).unwrap_or_default();
    ctx.finish(old, &[], &[]);
    if !old_name.is_empty() && !name.is_empty() {
        external.wrong("external.name and name say two names", "keep name");
    }
    if !old_name.is_empty() {
        ctx.warn_field(&external, "external.name is deprecated", "write external: true and name");
    }
    let name = [old_name, name].into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| key.to_owned());
    Naming { name, external: true }
}

/// Labels as the engine gets them: with the stack's namespace.
pub(super) fn with_namespace(mut labels: Labels, ctx: &Ctx<'_>) -> Labels {
    labels.insert(crate::spec::LABEL_NAMESPACE.to_owned(), ctx.input.stack.to_string());
    labels
}

/// None for an empty list, as Go's `omitempty` leaves it out.
pub(super) fn unless_empty<T>(list: Vec<T>) -> Option<Vec<T>> {
    if list.is_empty() { None } else { Some(list) }
}

/// No options instead of empty ones, as Go's `omitempty` leaves them out; merging still told them apart.
pub(super) fn without_empty_options(driver: Driver) -> Driver {
    Driver { options: driver.options.filter(|options| !options.is_empty()), ..driver }
}

/// None for an empty text, as Go's `omitempty` leaves it out.
pub(super) fn unless_blank(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

/// `NAME=value` lines, sorted; a bare name where there is no value.
pub(super) fn lines(mapping: &Mapping) -> Vec<String> {
    let mut lines: Vec<_> = mapping
        .iter()
        .map(|(key, value)| match value {
            Some(value) => format!("{key}={value}"),
            None => key.clone(),
        })
        .collect();
    lines.sort_unstable();
    lines
}
