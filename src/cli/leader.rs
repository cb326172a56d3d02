//! `leader`: who leads, since when, in which term, and who could; `leader --step-down` lets another lead.

use clap::Args;
use time::OffsetDateTime;
use time::macros::format_description;

use super::ask;
use super::output::{self, Context, Exit, Failure, Format, clean, table};
use crate::status::{Candidate, Command, LeaderReport};

/// Examples for `--help`.
pub const EXAMPLES: &str = "Examples:
  swarmkeeper leader                   who leads and who could
  swarmkeeper leader --output json
  swarmkeeper leader --step-down       before the leader's node is taken down; another one leads then
Exit codes: 0 somebody leads, 1 nobody does.";

/// `leader`.
#[derive(Debug, Args)]
pub struct Leader {
    /// Ask the leader to hand over
    #[arg(long, conflicts_with = "output")]
    pub step_down: bool,
    /// Text for people or JSON for machines
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

/// Asks the agent and prints.
pub async fn run(context: &Context, args: &Leader) -> Result<Exit, Failure> {
    if args.step_down {
        return ask::run(context, Command::StepDown).await;
    }
    let report = ask::agent(context)?.leader().await?;
    match args.output {
        Format::Text => output::result(&text(&report)),
        Format::Json => output::json(&report)?,
    }
    Ok(if report.leader.is_some() { Exit::Done } else { Exit::Wrong })
}

/// The leader in a line, the candidates below it.
pub fn text(report: &LeaderReport) -> String {
    let by = if report.coordination.is_empty() { String::new() } else { format!(", by {}", report.coordination) };
    let mut lines = vec![match &report.leader {
        Some(leader) => {
            let since = leader.since.to_offset(time::UtcOffset::UTC);
            format!("{} leads {} since {}, term {}{by}", leader.node, report.cluster, when(since), leader.token)
        }
        None => format!("nobody leads {}{by}", report.cluster),
    }];
    if !report.candidates.is_empty() {
        let row = |Candidate { node, stands, note }: &Candidate| {
            vec![node.clone(), if *stands { "yes" } else { "NO" }.to_owned(), clean(note)]
        };
        let rows: Vec<_> = report.candidates.iter().map(row).collect();
        lines.extend(table(&["CANDIDATE", "STANDS", "NOTE"], &rows));
    }
    lines.extend(report.problem.iter().map(|problem| clean(problem)));
    lines.join("\n")
}

fn when(at: OffsetDateTime) -> String {
    at.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::status::LeaderStatus;

    fn report() -> LeaderReport {
        let candidate = |node: &str, stands, note: &str| Candidate { node: node.into(), stands, note: note.to_owned() };
        LeaderReport {
            cluster: "prod".into(),
            coordination: "consul".into(),
            leader: Some(LeaderStatus { node: "m2".into(), since: datetime!(2026-01-02 03:04:05 UTC), token: 4711 }),
            candidates: vec![
                candidate("m1", true, "candidate"),
                candidate("m2", true, "leading since 2026-01-02T03:04:05Z"),
                candidate("m3", false, "TTL expired\x1b[2J"),
            ],
            problem: None,
        }
    }

    #[test]
    fn the_leader_stands_first_and_the_candidates_below() {
        insta::assert_snapshot!(text(&report()), @r"
        m2 leads prod since 2026-01-02 03:04:05 UTC, term 4711, by consul
        CANDIDATE  STANDS  NOTE
        m1         yes     candidate
        m2         yes     leading since 2026-01-02T03:04:05Z
        m3         NO      TTL expired [2J
        ");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let problem = Some("this is a worker, and without Consul it does not know who leads: ask on a manager".into());
        let report =
            LeaderReport { coordination: String::new(), leader: None, candidates: Vec::new(), problem, ..report() };
        insta::assert_snapshot!(text(&report), @r"
        nobody leads prod
        this is a worker, and without Consul it does not know who leads: ask on a manager
        ");
    }
}
