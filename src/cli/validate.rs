//! `validate`: a Config Repo checked without a swarm, for CI.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use serde::Serialize;

use super::local;
use super::output::{self, Context, Exit, Failure, Format, Paint, clean};
use crate::model::Finding;
use crate::repo::ConfigRepo;

/// Examples for `--help`.
pub const EXAMPLES: &str = "Examples:
  swarmkeeper validate .                   in the Config Repo's CI
  swarmkeeper validate --config swarmkeeper.yml .     with your policy
  swarmkeeper validate --output json stacks";

/// `validate DIR`.
#[derive(Debug, Args)]
pub struct Validate {
    /// The Config Repo's folder
    #[arg(default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// Text for people or JSON for machines
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many stacks were rendered.
    pub stacks: usize,
    /// What keeps stacks from being deployed.
    pub mistakes: Vec<Finding>,
    /// What has no effect.
    pub warnings: Vec<Finding>,
}

impl Report {
    fn of(rendered: ConfigRepo) -> Self {
        let mut report = Self { stacks: rendered.stacks.len(), mistakes: Vec::new(), warnings: rendered.findings };
        for stack in rendered.stacks.into_values() {
            match stack {
                Ok(stack) => report.warnings.extend(stack.warnings),
                Err(findings) => report.mistakes.extend(findings.0),
            }
        }
        report
    }

    /// A line per finding, in the form that editors and CI systems turn into links, and a last line that sums up.
    pub fn render(&self, paint: Paint) -> String {
        let line = |word: String, finding: &Finding| format!("{word} {}", clean(&finding.to_string()));
        let mistakes = self.mistakes.iter().map(|finding| line(paint.bad("error:"), finding));
        let warnings = self.warnings.iter().map(|finding| line(paint.busy("warning:"), finding));
        let sum = match self.mistakes.len() {
            0 => paint.good(&format!("{} well", counted(self.stacks, "stack"))),
            mistakes => paint.bad(&format!("{} in {}", counted(mistakes, "mistake"), counted(self.stacks, "stack"))),
        };
        mistakes.chain(warnings).chain([sum]).collect::<Vec<_>>().join("\n")
    }

    /// 1 if there are mistakes.
    pub fn exit(&self) -> Exit {
        if self.mistakes.is_empty() { Exit::Done } else { Exit::Wrong }
    }
}

/// Renders the folder and prints what was found.
pub fn run(context: &Context, arguments: &Validate) -> Result<Exit, Failure> {
    let report = Report::of(local::folder(&arguments.dir, &context.config)?);
    match arguments.output {
        Format::Text => output::result(&report.render(context.paint)),
        Format::Json => output::json(&report)?,
    }
    Ok(report.exit())
}

fn counted(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Location;

    #[test]
    fn mistakes_come_first_and_the_last_line_sums_up() {
        let location = Location { file: "stacks/shop/compose.yml".into(), line: 7, column: 5 };
        let finding = |message: &str, mend: &str| Finding {
            location: Some(location.clone()),
            path: "services.api".into(),
            message: message.into(),
            mend: mend.into(),
        };
        let report = Report {
            stacks: 2,
            mistakes: vec![finding("no such key", "did you mean image?")],
            warnings: vec![finding("privileged has no effect in a swarm", "")],
        };
        assert_eq!(report.exit(), Exit::Wrong);
        insta::assert_snapshot!(report.render(Paint::PLAIN), @r#"
error: stacks/shop/compose.yml:7:5: services.api: no such key (did you mean image?)
warning: stacks/shop/compose.yml:7:5: services.api: privileged has no effect in a swarm
1 mistake in 2 stacks
"#);
        let well = Report { stacks: 1, ..Report::default() };
        assert_eq!((well.exit(), well.render(Paint::PLAIN).as_str()), (Exit::Done, "1 stack well"));
    }
}
