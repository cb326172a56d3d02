//! Compose files → service, network, secret and config specs. Pure: files and environment are handed in.
//!
//! # Flow
//!
//! For each file: [`crate::yaml::parse`] → `interpolate` → `schema` → read into a `file::ComposeFile`
//! (`services`, `deploy`, `ports`, `volumes`, `networks`, `files`, `env`). Then `merge` the files in order, and
//! `convert` the result into [`StackObjects`].
//!
//! # Guarantees
//!
//! * The specs are those that `docker stack deploy` (docker/cli 28.2.2) sends, field by field, down to which empty ones are left
//!   out; `tests/oracle.rs` compares the two. References are by name.
//! * All mistakes of all files are reported at once, each with its place. Nothing is dropped silently: a key, an option or a value
//!   without effect is a warning.
//! * Nothing but [`Input`] has an influence: no clock, no process environment, no file but through [`Input::read_file`].
//!
//! # Where we differ from the CLI on purpose
//!
//! * `depends_on` orders the rollout; the CLI ignores it.
//! * A `${V:?message}` that fails is an error even if a later substitution succeeds, and its message may hold a `-`.
//! * Values that the engine would refuse (`mode: ingres`, `condition: sometimes`) are mistakes here, with their place, and so are
//!   services that wait for each other (`tests/oracle/stricter` has them all).
//! * A credential spec may come from a config that has a `name:`; the CLI does not find it.
//! * [`Mode::Lenient`] accepts what compose-spec files hold today, and `tmpfs:` becomes a mount, which the CLI ignores.
//!
//! # Limits
//!
//! Those of [`crate::yaml`], [`PORTS_MAX`] published ports a service, [`FILE_BYTES_MAX`] for a secret or config.

mod convert;
mod deploy;
mod env;
mod file;
mod files;
mod interpolate;
mod keys;
mod limits;
mod merge;
mod networks;
mod order;
mod ports;
mod read;
mod schema;
mod services;
mod shell;
mod units;
mod volumes;

use std::collections::BTreeMap;

use crate::model::{Finding, Findings, Location, StackName, StackObjects};
use crate::yaml::{self, Node, join};
use read::Ctx;

pub use files::FILE_BYTES_MAX;
pub use keys::{SECTIONS, Section};
pub use ports::PORTS_MAX;

/// Reads a file that a compose file names: none if there is no such file, an error if it may not or cannot be read.
pub type ReadFile<'a> = dyn Fn(&str) -> Result<Option<Vec<u8>>, String> + 'a;

/// What stands deeper than such a path is known by the place of what it stands in: no key of the schema has one.
const PATH_BYTES_MAX: usize = 4096;

/// What a stack is loaded from.
pub struct Input<'a> {
    /// The compose files in order; later ones override.
    pub files: &'a [SourceFile],
    /// The stack's name.
    pub stack: &'a StackName,
    /// The declared environment, all that `${…}` and bare variables see.
    pub environment: &'a BTreeMap<String, String>,
    /// Reads `env_file`s and the `file:` of secrets and configs. Relative paths are given with the folder of the first file's name in
    /// front; the caller decides what may be read.
    pub read_file: &'a ReadFile<'a>,
    /// The absolute folder that relative bind mounts begin at. None where the file stands in no folder that a node has, as in
    /// a Config Repo: a relative bind mount is a mistake then.
    pub folder: Option<&'a str>,
    /// How strict to be.
    pub mode: Mode,
}

/// A compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// What locations call it; its folder is where relative paths begin.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// How strict to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As `docker stack deploy`: the version 3 schema.
    Strict,
    /// What compose-spec files hold today is accepted, and every key that has no effect is named.
    Lenient,
}

/// A stack's objects, and what there is to remark.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the files describe.
    pub objects: StackObjects,
    /// What has no effect, and what may surprise.
    pub warnings: Vec<Finding>,
}

/// Loads a stack, or says everything that is wrong with it.
pub fn load(input: &Input<'_>) -> Result<Loaded, Findings> {
    let ctx = Ctx::new(input);
    let mut unreadable = false;
    let mut sources = BTreeMap::new();
    let mut merged: Option<file::ComposeFile> = None;
    let mut version = None;
    for source in input.files {
        let node = match yaml::parse(&source.name, &source.text) {
            Ok(node) => interpolate::tree(&node, &ctx),
            Err(findings) => {
                ctx.problems.extend(findings);
                unreadable = true;
                continue;
            }
        };
        schema::check(&node, &mut version, &ctx);
        remember_places(&node, "", &mut sources);
        let read = file::read(&node, &ctx);
        merged = Some(match merged {
            None => read,
            Some(base) => merge::merge(base, read, &ctx),
        });
    }
    if input.files.is_empty() {
        ctx.problems.add(Finding {
            location: None,
            path: String::new(),
            message: "no compose file is given".to_owned(),
            mend: String::new(),
        });
    }
    // What an unreadable file says is missing now, and would only give rise to mistakes that are none.
    if unreadable {
        return ctx.into_result(StackObjects::default());
    }
    let objects = convert::objects(&merged.unwrap_or_default(), sources, &ctx);
    ctx.into_result(objects)
}

/// Where every key and list item stands, for plans and for mistakes that only show after merging.
fn remember_places(node: &Node, path: &str, sources: &mut BTreeMap<String, Location>) {
    if path.len() > PATH_BYTES_MAX {
        return;
    }
    for entry in node.as_map().into_iter().flatten() {
        let path = join(path, &entry.key);
        remember_places(&entry.value, &path, sources);
        sources.insert(path, entry.key_location.clone());
    }
    for (n, item) in node.as_seq().into_iter().flatten().enumerate() {
        let path = format!("{path}[{n}]");
        remember_places(item, &path, sources);
        sources.insert(path, item.location.clone());
    }
}

#[cfg(test)]
mod tests;
