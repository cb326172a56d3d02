//! A plan as people read it: in the log, in `swarmkeeper plan`, and in snapshot tests.

use std::fmt;

use super::diff::Difference;
use super::images::{digest, short, without_digest};
use super::plan::{Action, Change, NoteKind, Plan, RESTART, Restart};
use super::state::Kind;
use crate::model::Revision;

/// Widest column that names are padded to.
const NAME_COLUMN_MAX: usize = 32;

/// Widest column that values are padded to, before the place in the file.
const VALUE_COLUMN: usize = 34;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan {}", self.stack)?;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) if from == to => write!(f, "   {to}")?,
            (None, None) => {}
            (from, to) => write!(f, "   {} → {}", revision(from.as_ref()), revision(to.as_ref()))?,
        }
        writeln!(f)?;
        let width = self.changes.iter().map(|change| change.name.chars().count()).max().unwrap_or_default();
        for change in &self.changes {
            write_change(f, change, width.min(NAME_COLUMN_MAX))?;
        }
        for note in &self.notes {
            writeln!(f, "! {}{}", word(note.kind), note.text)?;
        }
        let writes = self.writes();
        write!(f, "= {} unchanged, {writes} write{}", self.unchanged, if writes == 1 { "" } else { "s" })
    }
}

fn write_change(f: &mut fmt::Formatter<'_>, change: &Change, width: usize) -> fmt::Result {
    let sign = match change.action {
        Action::Create => '+',
        Action::Update => '~',
        Action::Remove => '-',
        Action::Recreate => '±',
    };
    write!(f, "{sign} {:width$}  {}", change.name, effect(change))?;
    if let Some(reason) = &change.waits {
        write!(f, " — not now: {reason}")?;
    }
    writeln!(f)?;
    let is_told = change.action != Action::Recreate;
    if is_told && (change.restarts.is_some() || change.differences.iter().any(|difference| difference.new.is_some())) {
        let whats = change.differences.iter().map(|difference| difference.what.chars().count());
        let width = whats.max().unwrap_or_default().min(NAME_COLUMN_MAX);
        for difference in &change.differences {
            write_difference(f, difference, width)?;
        }
    }
    Ok(())
}

fn effect(change: &Change) -> String {
    match (change.kind, change.action, &change.restarts) {
        (Kind::Service, Action::Create, _) => "CREATED".to_owned(),
        (Kind::Service, Action::Remove, _) => "REMOVED, volumes kept".to_owned(),
        (kind, Action::Create, _) => format!("{} created", kind.word()),
        (kind, Action::Remove, _) => format!("{} removed", kind.word()),
        (Kind::Service, Action::Update, Some(restart)) => restarts(restart),
        (Kind::Service, Action::Update, None) => format!("no restart: {}", whats(change)),
        (Kind::Service, Action::Recreate, _) => {
            format!("RECREATED, all its tasks restart: {}", whats(change))
        }
        (kind, Action::Recreate, _) => {
            let word = if change.waits.is_some() { "NEEDS RECREATE" } else { "RECREATED" };
            format!("{} {word}: {}", kind.word(), whats(change))
        }
        (kind, Action::Update, _) => format!("{} labels", kind.word()),
    }
}

fn whats(change: &Change) -> String {
    change.differences.iter().map(|difference| difference.what.as_str()).collect::<Vec<_>>().join(", ")
}

fn restarts(restart: &Restart) -> String {
    if restart.again {
        return "RUNS AGAIN".to_owned();
    }
    let tasks = if restart.tasks == 1 { "1 task".to_owned() } else { format!("{} tasks", restart.tasks) };
    let at_once = match restart.parallelism {
        0 => "all at once".to_owned(),
        number => format!("{number} at a time"),
    };
    format!("RESTARTS {tasks}, {at_once}, {}", restart.order)
}

fn write_difference(f: &mut fmt::Formatter<'_>, difference: &Difference, width: usize) -> fmt::Result {
    let values = values(difference);
    write!(f, "    {:width$}  ", difference.what)?;
    let place = match (&difference.location, difference.what.as_str()) {
        (_, "secret" | "config") if difference.old.is_some() && difference.new.is_some() => {
            Some("content changed".to_owned())
        }
        (Some(location), _) => Some(format!("{}:{}", location.file, location.line)),
        (None, _) => None,
    };
    match place {
        Some(place) => writeln!(f, "{values:VALUE_COLUMN$}  ({place})"),
        None => writeln!(f, "{values}"),
    }
}

fn values(difference: &Difference) -> String {
    match (&difference.old, &difference.new) {
        (Some(old), Some(new)) if difference.what == "image" => image(old, new),
        (Some(old), Some(new)) => format!("{old} → {new}"),
        (None, Some(new)) if difference.what == RESTART => format!("asked for: {new}"),
        (None, Some(new)) => format!("+ {new}"),
        (Some(old), None) => format!("- {old}"),
        (None, None) => "changed".to_owned(),
    }
}

/// `1.4.1@aa… → 1.4.2@bb…` of one repository; both in full where the repository changes.
fn image(old: &str, new: &str) -> String {
    let repository = |image: &str| without_digest(image).rsplit_once(':').map(|(name, _)| name.to_owned());
    let tag = |image: &str| {
        let tag = without_digest(image).rsplit_once(':').map_or("", |(_, tag)| tag);
        short(&digest(image).map_or_else(|| tag.to_owned(), |digest| format!("{tag}@{digest}")))
    };
    if repository(old).is_some() && repository(old) == repository(new) {
        format!("{} → {}", tag(old), tag(new))
    } else {
        format!("{} → {}", short(old), short(new))
    }
}

fn revision(revision: Option<&Revision>) -> String {
    revision.map_or_else(|| "nothing".to_owned(), ToString::to_string)
}

fn word(kind: NoteKind) -> &'static str {
    match kind {
        NoteKind::Waiting => "waiting: ",
        NoteKind::Braked => "BRAKE: ",
        NoteKind::Held => "held: ",
        NoteKind::Drift => "drift: ",
        NoteKind::Orphan => "orphan: ",
        NoteKind::Adopt => "adopt: ",
        NoteKind::Paused | NoteKind::Remark | NoteKind::Leftover => "",
        NoteKind::Error => "error: ",
    }
}
