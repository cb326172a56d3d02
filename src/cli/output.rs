//! What a command prints and how it ends.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::config::{self, Config};
use crate::io::keeper;
use crate::model::Findings;

/// What every verb gets.
#[derive(Debug)]
pub struct Context {
    /// The settings.
    pub config: Config,
    /// Colours for stdout, or none.
    pub paint: Paint,
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done; for `plan`: nothing to do.
    Done,
    /// 1: not done, or something is wrong.
    Wrong,
    /// 2: `plan` only: there is something to do.
    Changes,
    /// 64, `EX_USAGE` of sysexits.h: the command line makes no sense.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Wrong => 1,
            Exit::Changes => 2,
            Exit::Usage => 64,
        })
    }
}

/// Text for people, or JSON for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

/// Why a command was not done, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What is the matter; several lines for several mistakes.
    pub errors: Vec<String>,
    /// What to do next; empty if the errors say it.
    pub next: String,
}

impl Failure {
    /// One error.
    pub fn new(error: impl Into<String>, next: impl Into<String>) -> Self {
        Self { errors: vec![error.into()], next: next.into() }
    }

    /// Mistakes in files, one a line.
    pub fn findings(findings: &Findings, next: impl Into<String>) -> Self {
        Self { errors: findings.0.iter().map(ToString::to_string).collect(), next: next.into() }
    }

    /// Mistakes in the configuration.
    pub fn configuration(findings: &Findings) -> Self {
        Self::findings(findings, "mend the configuration; `swarmkeeper agent --help` lists every setting")
    }

    /// As `error: …` and `next: …` lines.
    pub fn render(&self, paint: Paint) -> String {
        let mut lines: Vec<_> =
            self.errors.iter().map(|error| format!("{} {}", paint.bad("error:"), clean(error))).collect();
        if !self.next.is_empty() {
            lines.push(format!("{} {}", paint.strong("next:"), clean(&self.next)));
        }
        lines.join("\n")
    }

    pub(super) fn print(&self, paint: Paint) -> Exit {
        to_stderr(&self.render(paint));
        Exit::Wrong
    }
}

impl From<keeper::Error> for Failure {
    fn from(error: keeper::Error) -> Self {
        match error {
            keeper::Error::Refused { error, next, .. } => Self::new(error, next),
            other => Self::new(
                other.to_string(),
                "see that the agent runs on this node, or name another one: --agent http://HOST:7979",
            ),
        }
    }
}

/// Puts colours around words, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    is_on: bool,
}

impl Paint {
    /// No colours.
    pub const PLAIN: Self = Self { is_on: false };

    /// Colours.
    #[cfg(test)]
    pub const ON: Self = Self { is_on: true };

    /// Colours if stdout is a terminal and nobody minds.
    pub fn for_stdout() -> Self {
        Self { is_on: std::io::stdout().is_terminal() && !config::no_color() }
    }

    /// Colours if stderr is a terminal and nobody minds.
    pub fn for_stderr() -> Self {
        Self { is_on: std::io::stderr().is_terminal() && !config::no_color() }
    }

    /// What is well.
    pub fn good(self, text: &str) -> String {
        self.sgr("32", text)
    }

    /// What is on its way.
    pub fn busy(self, text: &str) -> String {
        self.sgr("33", text)
    }

    /// What needs a person.
    pub fn bad(self, text: &str) -> String {
        self.sgr("1;31", text)
    }

    /// What stands out.
    pub fn strong(self, text: &str) -> String {
        self.sgr("1", text)
    }

    fn sgr(self, code: &str, text: &str) -> String {
        if self.is_on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Writes a result, and a line break if it has none. A reader that has gone away (`| head`) is no error.
pub fn result(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let _ = write!(stdout, "{text}{end}").and_then(|()| stdout.flush());
}

/// Writes a result as JSON.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(format!("the result cannot be written as JSON: {error}"), ""))?;
    result(&text);
    Ok(())
}

/// Says in a line what goes on.
pub fn progress(text: &str) {
    to_stderr(&clean(text));
}

/// Writes a remark that stops nothing.
pub fn remark(text: &str) {
    to_stderr(&format!("{} {}", Paint::for_stderr().busy("warning:"), clean(text)));
}

/// Text from elsewhere, such as a container's error, without what could steer a terminal, on one line.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Rows with a heading as left-aligned columns, two spaces between; the last column is as long as it is.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let heading: Vec<String> = heading.iter().map(|&word| word.to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&heading).chain(rows).collect();
    let width = |column: usize| {
        all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |row: &&Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all.iter().map(line).collect()
}

fn to_stderr(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
