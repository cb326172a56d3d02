//! The Config Repo → what each stack should be. Pure over [`Files`].
//!
//! # Layout
//!
//! Below the folder [`Options::path`] (`stacks`), a stack is
//!
//! * a folder that holds a `stack.yml` or a compose file (`compose.yml`, `compose.yaml`, `docker-compose.yml`,
//!   `docker-compose.yaml`), named as the folder; or
//! * a single compose file `<name>.yml` or `<name>.yaml`.
//!
//! A compose file whose name goes on with `.hbs` is a Handlebars template, see [`template`]. `stack.yml` is described in
//! [`stack_file`].
//!
//! # Guarantees
//!
//! * A stack sees what its files say: the environment is the declared one, never the process's.
//! * A stack's mistakes stop that stack alone, and all of them are reported at once.
//! * A stack that may not do what it wants, by [`Permissions`], is a stack with mistakes.
//! * Nothing is remembered between two renders. One of 300 services takes milliseconds, so there is no cache that could be stale.

mod after;
mod discover;
mod env;
mod stack_file;
mod template;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::compose::{self, Input, Mode, SourceFile};
use crate::io::files::{FileError, Files};
use crate::model::{DesiredStack, Finding, Findings, Location, Revision, StackName, StackObjects, check_ignored};
use crate::policy::Permissions;
use crate::yaml::{self, Problems};

use discover::{Source, TEMPLATE_SUFFIX};
use stack_file::StackFile;

/// What to render of a Config Repo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The folder of stacks.
    pub path: String,
    /// The stacks to take; none takes all.
    pub stacks: Option<BTreeSet<StackName>>,
    /// Variables that every stack sees unless it declares its own.
    pub environment: BTreeMap<String, String>,
    /// What stacks may do; one that does more is as wrong as one that cannot be read.
    pub permissions: Permissions,
}

/// The folder of stacks, unless told otherwise.
pub const PATH_DEFAULT: &str = "stacks";

impl Default for Options {
    fn default() -> Self {
        Self {
            path: PATH_DEFAULT.to_owned(),
            stacks: None,
            environment: BTreeMap::new(),
            permissions: Permissions::default(),
        }
    }
}

/// A rendered Config Repo.
#[derive(Debug)]
pub struct ConfigRepo {
    /// Every stack, or what is wrong with it.
    pub stacks: BTreeMap<StackName, Result<DesiredStack, Findings>>,
    /// Remarks that belong to no stack, such as a folder that looks like a stack and is none.
    pub findings: Vec<Finding>,
}

/// Renders every stack of one state of the repo.
///
/// Fails only if the folder of stacks cannot be read: then nothing is known about any stack, which is not the same as a repo
/// without stacks.
pub fn render(files: &dyn Files, revision: Option<&Revision>, options: &Options) -> Result<ConfigRepo, Findings> {
    let mut found = discover::discover(files, &options.path)?;
    if let Some(wanted) = &options.stacks {
        for name in wanted.iter().filter(|name| !found.sources.contains_key(name)) {
            let message = format!("the stack {name} is to be deployed from here and is not in {}", options.path);
            found.findings.push(remark(None, message, ""));
        }
        found.sources.retain(|name, _| wanted.contains(name));
    }
    let stack_files: BTreeMap<_, _> = found
        .sources
        .iter()
        .filter_map(|(name, source)| Some((name.clone(), source.as_ref().ok()?.stack_file.clone()?)))
        .collect();
    let mut stacks: BTreeMap<_, _> = found
        .sources
        .into_iter()
        .map(|(name, source)| {
            let stack = source.and_then(|source| render_stack(files, &name, &source, revision, options));
            (name, stack)
        })
        .collect();
    after::check(&mut stacks, &stack_files);
    Ok(ConfigRepo { stacks, findings: found.findings })
}

fn render_stack(
    files: &dyn Files,
    name: &StackName,
    source: &Source,
    revision: Option<&Revision>,
    options: &Options,
) -> Result<DesiredStack, Findings> {
    let problems = Problems::default();
    let stack_file = match &source.stack_file {
        Some(path) => stack_file::read(files, path, &source.folder, &problems),
        None => StackFile::default(),
    };
    let StackFile { settings, compose, env, values, warnings } = stack_file;
    let desired = |objects, warnings| {
        let (name, revision) = (name.clone(), revision.cloned());
        DesiredStack { name, revision, settings: settings.clone(), objects, warnings }
    };
    // What is to go needs no compose file, and a mistake in one must not keep it.
    if settings.removed {
        return problems.into_result(desired(StackObjects::default(), warnings));
    }
    let chosen = compose.or_else(|| choose_compose(source, &problems)).unwrap_or_default();
    let sources: Vec<SourceFile> =
        chosen.iter().filter_map(|file| compose_source(files, file, &values, &problems)).collect();
    if !problems.is_empty() {
        return Err(Findings(problems.into_vec()));
    }
    let mut environment = options.environment.clone();
    environment.extend(env);
    let loaded = compose::load(&Input {
        files: &sources,
        stack: name,
        environment: &environment,
        read_file: &|path| files.read(path).map_err(|error| error.to_string()),
        folder: None,
        mode: Mode::Lenient,
    })?;
    let texts = sources.iter().map(|source| (source.name.as_str(), source.text.as_str())).collect();
    let mut refusals = options.permissions.refusals(name, &loaded.objects, &texts);
    refusals.extend(check_ignored(&loaded.objects));
    if !refusals.is_empty() {
        return Err(Findings(refusals));
    }
    Ok(desired(loaded.objects, warnings.into_iter().chain(loaded.warnings).collect()))
}

/// The one compose file of a folder whose `stack.yml` names none.
fn choose_compose(source: &Source, problems: &Problems) -> Option<Vec<Named>> {
    match source.compose.as_slice() {
        [one] => Some(vec![Named { path: one.clone(), location: None }]),
        [] => {
            let message = format!("{} holds no compose file", source.folder);
            problems.add(remark(
                source.stack_file.as_deref(),
                message,
                "add compose.yml, or name the files with compose:",
            ));
            None
        }
        several => {
            let message = format!("several compose files: {}", several.join(", "));
            problems.add(remark(Some(&source.folder), message, "name those that count in stack.yml, with compose:"));
            None
        }
    }
}

/// A file and who names it.
struct Named {
    /// From the repo's root.
    path: String,
    /// Where its name stands; none if it was found by its name.
    location: Option<Location>,
}

/// Reads a compose file, and renders it if it is a template.
fn compose_source(
    files: &dyn Files,
    file: &Named,
    values: &serde_json::Value,
    problems: &Problems,
) -> Option<SourceFile> {
    let text = read_text(files, file, problems)?;
    let path = &file.path;
    if !path.ends_with(TEMPLATE_SUFFIX) {
        return Some(SourceFile { name: path.clone(), text });
    }
    match template::render(path, &text, values) {
        // Lines count in what was rendered, and the name says so.
        Ok(text) => Some(SourceFile { name: format!("{path} (rendered)"), text }),
        Err(finding) => {
            problems.add(finding);
            None
        }
    }
}

/// Reads a file that must be there, as text.
fn read_text(files: &dyn Files, file: &Named, problems: &Problems) -> Option<String> {
    let path = &file.path;
    let named = |message: String| Finding { location: file.location.clone(), ..remark(None, message, "") };
    match files.read(path) {
        Ok(Some(bytes)) => match yaml::text(path, bytes) {
            Ok(text) => return Some(text),
            Err(findings) => problems.extend(findings),
        },
        Ok(None) => problems.add(named(format!("there is no file {path}"))),
        Err(error) => problems.add(named(error.to_string())),
    }
    None
}

fn unreadable(error: &FileError) -> Finding {
    remark(None, error.to_string(), "")
}

fn remark(file: Option<&str>, message: String, mend: &str) -> Finding {
    Finding { location: file.map(Location::file), path: String::new(), message, mend: mend.to_owned() }
}

/// `path` as seen from `folder`; [`Files`] resolves the `..` in it.
fn within(folder: &str, path: &str) -> String {
    if folder.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") }
}
