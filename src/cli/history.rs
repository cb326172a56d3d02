//! `history`: how a stack's last rollouts ended, newest first.

use clap::Args;
use time::OffsetDateTime;
use time::macros::format_description;

use super::ask;
use super::output::{self, Context, Exit, Failure, Format, clean, table};
use crate::model::StackName;
use crate::status::{HistoryEntry, StackHistory};

/// Examples for `--help`.
pub const EXAMPLES: &str = "Examples:
  swarmkeeper history shop                 what ran, what failed and why, and the digests
  swarmkeeper history shop --output json
  swarmkeeper rollback shop 77d0e12        to one that ended with `ok`
Outcomes: ok, partly (some services were held back), failed, rolled-back.";

/// Digits of a digest that are shown: enough to compare two by eye.
const DIGEST_DIGITS: usize = 12;

/// `history STACK`.
#[derive(Debug, Args)]
pub struct History {
    /// The stack
    #[arg(value_parser = ask::stack_name)]
    pub stack: StackName,
    /// Text for people or JSON for machines
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

/// Asks the agent and prints.
pub async fn run(context: &Context, args: &History) -> Result<Exit, Failure> {
    let history = ask::agent(context)?.history(&args.stack).await?;
    match args.output {
        Format::Text => output::result(&text(&history)),
        Format::Json => output::json(&history)?,
    }
    Ok(Exit::Done)
}

/// The whole history; an entry has a line for each of its images. The newest failure shows the end of its log.
pub fn text(history: &StackHistory) -> String {
    let mut lines = Vec::new();
    if let Some(held) = &history.held {
        let reason = if held.reason.is_empty() { "no reason given" } else { &held.reason };
        lines.push(format!("rolled back to {} since {}: {}", held.revision, when(held.since), clean(reason)));
    }
    if history.entries.is_empty() {
        lines.push(format!("no rollout of {} has ended yet", history.name));
    } else {
        let rows: Vec<_> = history.entries.iter().flat_map(rows).collect();
        lines.extend(table(&["REVISION", "ENDED", "OUTCOME", "IMAGES", "REASON"], &rows));
        if let Some(failed) = history.entries.iter().find(|entry| !entry.log.is_empty()) {
            let revision = failed.revision.as_ref().map(ToString::to_string).unwrap_or_default();
            lines.push(format!("the last lines of what failed in {revision}:"));
            lines.extend(failed.log.iter().map(|line| format!("  | {}", clean(line))));
        }
    }
    if history.held.is_some() {
        lines.push(format!("Next: swarmkeeper resume {}", history.name));
    }
    lines.join("\n")
}

fn rows(entry: &HistoryEntry) -> Vec<Vec<String>> {
    let mut images = entry.digests.iter().map(|(text, digest)| image(text, digest));
    let first = vec![
        entry.revision.as_ref().map(ToString::to_string).unwrap_or_default(),
        when(entry.at),
        entry.outcome.word().to_owned(),
        images.next().unwrap_or_default(),
        clean(&entry.reason),
    ];
    let more = images.map(|image| vec![String::new(), String::new(), String::new(), image]);
    std::iter::once(first).chain(more).collect()
}

/// `app:1.4.2@0123456789ab`; a text that names its digest is told once.
fn image(text: &str, digest: &str) -> String {
    let name = text.split_once('@').map_or(text, |(name, _)| name);
    let digits = digest.split_once(':').map_or(digest, |(_, digits)| digits);
    format!("{name}@{}", digits.get(..DIGEST_DIGITS).unwrap_or(digits))
}

fn when(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    at.format(format_description!("[year]-[month]-[day] [hour]:[minute] UTC")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::model::Revision;
    use crate::status::{HeldAt, Outcome};

    fn entry(revision: &str, hour: u8, outcome: Outcome, reason: &str, images: &[&str]) -> HistoryEntry {
        HistoryEntry {
            revision: Some(Revision(format!("{revision}aaaaaaa"))),
            at: datetime!(2026-01-02 00:04 UTC) + time::Duration::hours(i64::from(hour)),
            outcome,
            reason: reason.into(),
            digests: images.iter().map(|image| ((*image).to_owned(), "sha256:0123456789abcdef".to_owned())).collect(),
            log: Vec::new(),
        }
    }

    fn shop() -> StackHistory {
        StackHistory {
            name: StackName::new("shop").unwrap(),
            held: None,
            entries: vec![
                entry("9f2c1ab", 3, Outcome::RolledBack, "shop_api exit 1 on n17\x1b[2J", &["app:1.4.2", "web:7"]),
                entry("77d0e12", 2, Outcome::Ok, "", &["app:1.4.1", "web@sha256:0123456789abcdef"]),
            ],
        }
    }

    #[test]
    fn the_newest_stands_first_and_every_image_has_its_digest() {
        insta::assert_snapshot!(text(&shop()), @r"
        REVISION  ENDED                 OUTCOME      IMAGES                  REASON
        9f2c1ab   2026-01-02 03:04 UTC  rolled-back  app:1.4.2@0123456789ab  shop_api exit 1 on n17 [2J
                                                     web:7@0123456789ab
        77d0e12   2026-01-02 02:04 UTC  ok           app:1.4.1@0123456789ab
                                                     web@0123456789ab
        ");
    }

    #[test]
    fn a_rollback_stands_above_with_what_ends_it_below() {
        let mut history = shop();
        history.entries.remove(0);
        history.held = Some(HeldAt {
            revision: Revision("77d0e12aaaaaaa".into()),
            reason: "orders are lost".into(),
            since: datetime!(2026-01-02 04:05 UTC),
        });
        insta::assert_snapshot!(text(&history), @r"
        rolled back to 77d0e12 since 2026-01-02 04:05 UTC: orders are lost
        REVISION  ENDED                 OUTCOME  IMAGES                  REASON
        77d0e12   2026-01-02 02:04 UTC  ok       app:1.4.1@0123456789ab
                                                 web@0123456789ab
        Next: swarmkeeper resume shop
        ");
    }

    #[test]
    fn the_end_of_the_last_failures_log_stands_below() {
        let mut history = shop();
        history.entries[0].log = vec!["no such table".into(), "\x1b[2Jbye".into()];
        history.entries.truncate(1);
        insta::assert_snapshot!(text(&history), @r"
        REVISION  ENDED                 OUTCOME      IMAGES                  REASON
        9f2c1ab   2026-01-02 03:04 UTC  rolled-back  app:1.4.2@0123456789ab  shop_api exit 1 on n17 [2J
                                                     web:7@0123456789ab
        the last lines of what failed in 9f2c1ab:
          | no such table
          |  [2Jbye
        ");
    }

    #[test]
    fn a_stack_without_a_history_says_so() {
        let history = StackHistory { entries: Vec::new(), ..shop() };
        assert_eq!(text(&history), "no rollout of shop has ended yet");
    }
}
