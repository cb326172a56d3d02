//! `doctor`: what is missing on this node and how to mend it; read-only.
//!
//! `facts` asks, `diagnose` judges (pure), this file prints.

mod diagnose;
mod facts;
mod outside;

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;

use super::output::{self, Context, Exit, Failure, Format, Paint, clean};
use crate::spec::{Node, Service};

pub use diagnose::diagnose;
pub use facts::{ConsulFacts, Facts, observe};

/// `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Text for people or JSON for machines
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What was found.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// It is well.
    Pass {
        /// What was found.
        what: String,
    },
    /// It works, and should not stay so.
    Warn {
        /// What was found.
        what: String,
        /// What to do about it.
        mend: String,
    },
    /// It does not work.
    Fail {
        /// What was found.
        what: String,
        /// What to do about it.
        mend: String,
    },
}

/// What the swarm says, on managers.
#[derive(Debug, Clone, Default)]
pub struct SwarmFacts {
    /// Its cluster ID.
    pub id: String,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its services.
    pub services: Vec<Service>,
}

impl Check {
    /// It is well.
    pub fn pass(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Pass { what: what.into() } }
    }

    /// It works, and should not stay so.
    pub fn warn(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Warn { what: what.into(), mend: mend.into() } }
    }

    /// It does not work.
    pub fn fail(name: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, outcome: Outcome::Fail { what: what.into(), mend: mend.into() } }
    }
}

/// Looks, judges, prints.
pub async fn run(context: &Context, args: &Doctor) -> Result<Exit, Failure> {
    let facts = observe(&context.config).await;
    let mut checks = diagnose(&context.config, &facts);
    // A worker reads no git and asks no registry: it has neither keys nor logins, and must not be told to get them.
    if !facts.is_worker() {
        checks.extend(join_all(outside::checks(context)).await);
    }
    match args.output {
        Format::Json => output::json(&checks)?,
        Format::Text => output::result(&render(&checks, context.paint)),
    }
    Ok(exit(&checks))
}

/// A line per check, its mend below it, and a last line that sums up.
pub fn render(checks: &[Check], paint: Paint) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for Check { name, outcome } in checks {
        let (word, what, mend) = match outcome {
            Outcome::Pass { what } => (paint.good("ok  "), what, ""),
            Outcome::Warn { what, mend } => (paint.busy("warn"), what, mend.as_str()),
            Outcome::Fail { what, mend } => (paint.bad("FAIL"), what, mend.as_str()),
        };
        lines.push(format!("{word}  {name:<width$}  {}", clean(what)));
        if !mend.is_empty() {
            lines.push(format!("      {:<width$}  mend: {}", "", clean(mend)));
        }
    }
    let count = |fits: fn(&Outcome) -> bool| checks.iter().filter(|check| fits(&check.outcome)).count();
    let failed = count(|outcome| matches!(outcome, Outcome::Fail { .. }));
    let warned = count(|outcome| matches!(outcome, Outcome::Warn { .. }));
    lines.push(match (failed, warned) {
        (0, 0) => "all is well".to_owned(),
        _ => format!("{failed} failed, {warned} to look at"),
    });
    lines.join("\n")
}

/// 1 if anything does not work.
pub fn exit(checks: &[Check]) -> Exit {
    let failed = checks.iter().any(|check| matches!(check.outcome, Outcome::Fail { .. }));
    if failed { Exit::Wrong } else { Exit::Done }
}
