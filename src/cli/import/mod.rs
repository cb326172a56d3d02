//! `import`: a running swarm as a Config Repo.
//!
//! What was written is read back and planned against the swarm before anything reaches the folder, so that whatever the compose format
//! cannot say is named, in the files and in the output.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use clap::{Args, ValueHint};
use time::OffsetDateTime;

use super::local;
use super::output::{self, Context, Exit, Failure};
use crate::app;
use crate::import::{self, Import, Seen};
use crate::io::files::Folder;
use crate::io::swarm::config_content;
use crate::model::StackName;
use crate::repo;
use crate::stacks::observe::{Observed, observe};
use crate::stacks::pass::{Pass, plan_all};
use crate::stacks::plan::{Action, Change, NoteKind};
use crate::stacks::{Held, Key, Plan, Policy, Resolutions};

/// Examples for `--help`.
pub const EXAMPLES: &str = "Examples:
  swarmkeeper import config-repo           on a manager; then look, commit, push
  swarmkeeper import --force config-repo   once more, over the files of last time
Exit codes: 0 what was written plans to nothing, 1 something cannot be expressed, or an error.";

/// Existing files named in a refusal.
const EXISTING_SHOWN_MAX: usize = 5;

/// `import DIR`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The Config Repo's folder; made if it is not there
    #[arg(value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
}

/// Reads the swarm, writes the files, and says what they cannot say.
pub async fn run(context: &Context, arguments: &Arguments) -> Result<Exit, Failure> {
    let swarm = local::swarm(context).await?;
    let observed = observe(&swarm).await.map_err(|error| local::engine(&error))?;
    let folder = app::render_options(&context.config).path;
    let (import, is_exact) = imported(&observed, &folder, OffsetDateTime::now_utc())?;
    let files = import.files(&folder);
    write(&arguments.dir, &files, arguments.force)?;
    output::result(&report(&import, files.len(), &arguments.dir));
    Ok(if is_exact { Exit::Done } else { Exit::Wrong })
}

/// The swarm as files, with a remark for everything that would differ; true if nothing would.
fn imported(observed: &Observed, folder: &str, now: OffsetDateTime) -> Result<(Import, bool), Failure> {
    let (services, networks, configs) = (&observed.services, &observed.networks, &observed.configs);
    let mut import = import::import(&Seen { services, networks, configs, content: config_content });
    let differences = differences(&import.files(folder), observed, folder, now)?;
    let is_exact = import.left_out.is_empty() && differences.values().all(Vec::is_empty);
    for (stack, differences) in differences {
        let Some(imported) = import.stacks.get_mut(&stack) else {
            import.left_out.extend(differences.into_iter().map(|difference| format!("{stack}: {difference}")));
            continue;
        };
        for difference in differences {
            imported.remark(format!("not as it lives: {difference}"));
        }
    }
    Ok((import, is_exact))
}

/// What would differ, by stack: the files are read as the leader would read them.
fn differences(
    files: &BTreeMap<String, Vec<u8>>,
    observed: &Observed,
    folder: &str,
    now: OffsetDateTime,
) -> Result<BTreeMap<StackName, Vec<String>>, Failure> {
    let place =
        tempfile::tempdir().map_err(|error| Failure::new(format!("no place for temporary files: {error}"), ""))?;
    write(place.path(), files, true)?;
    let options = repo::Options { path: folder.to_owned(), ..repo::Options::default() };
    std::fs::create_dir_all(place.path().join(folder)).map_err(|error| cannot_write(place.path(), &error))?;
    let rendered = repo::render(&Folder::new(place.path()), None, &options)
        .map_err(|findings| Failure::findings(&findings, "this is a mistake of swarmkeeper's"))?;
    let (desired, broken) = local::sorted(rendered);
    let plans = plan_all(&Pass {
        desired: &desired,
        broken: &broken,
        held: &Held::new(),
        observed,
        images: &Resolutions::new(),
        secrets: &BTreeMap::new(),
        key: observed.key.as_ref().unwrap_or(&Key::default()),
        now,
        policy: &Policy::default(),
    });
    Ok(plans.iter().map(|plan| (plan.stack.clone(), told(plan))).collect())
}

/// What a plan would change, without values.
fn told(plan: &Plan) -> Vec<String> {
    let notes = plan.notes.iter().filter(|note| matches!(note.kind, NoteKind::Error | NoteKind::Remark));
    let notes = notes.map(|note| note.text.clone());
    let change = |change: &Change| {
        let object = format!("{} {}", change.kind.word(), change.name);
        match change.action {
            Action::Create => format!("{object} would be made"),
            Action::Remove => format!("{object} would be removed"),
            Action::Update if change.differences.is_empty() => format!("{object}: its labels"),
            Action::Update | Action::Recreate => {
                let whats: BTreeSet<&str> =
                    change.differences.iter().map(|difference| difference.what.as_str()).collect();
                format!("{object}: {}", whats.into_iter().collect::<Vec<_>>().join(", "))
            }
        }
    };
    notes.chain(plan.changes.iter().map(change)).collect()
}

/// All files, or none if one is there already.
fn write(dir: &Path, files: &BTreeMap<String, Vec<u8>>, force: bool) -> Result<(), Failure> {
    let is_inside = |path: &&String| Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if let Some(path) = files.keys().find(|path| !is_inside(path)) {
        return Err(Failure::new(
            format!("{path} would be written outside of {}", dir.display()),
            "rename that object",
        ));
    }
    let there: Vec<&str> = files.keys().map(String::as_str).filter(|path| dir.join(path).exists()).collect();
    if !there.is_empty() && !force {
        let more = there.len().saturating_sub(EXISTING_SHOWN_MAX);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let shown = there.into_iter().take(EXISTING_SHOWN_MAX).collect::<Vec<_>>().join(", ");
        let message = format!("{}: {shown}{more} exist already; nothing was written", dir.display());
        return Err(Failure::new(message, "name an empty folder, or overwrite them with --force"));
    }
    for (path, content) in files {
        let path = dir.join(path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, content)).map_err(|error| cannot_write(&path, &error))?;
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()), "name a folder that can be written to")
}

/// A line a stack, then everything a person should know.
fn report(import: &Import, files: usize, dir: &Path) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (stack, imported) in &import.stacks {
        lines.push(format!("{stack}: {}", counted(imported.services, "service")));
        lines.extend(imported.remarks.iter().map(|remark| format!("  {remark}")));
    }
    for imported in import.singles.values() {
        lines.extend(imported.remarks.iter().cloned());
    }
    lines.extend(import.left_out.iter().map(|text| format!("left out: {text}")));
    lines.push(format!(
        "{} in {}, {} written. Next: look at them, commit, push; every stack then waits for `swarmkeeper adopt STACK`",
        counted(import.stacks.len(), "stack"),
        dir.display(),
        counted(files, "file"),
    ));
    lines.iter().map(|line| output::clean(line)).collect::<Vec<_>>().join("\n")
}

fn counted(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests;
