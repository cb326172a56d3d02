//! `status`: how everything is, for people at three in the morning: what needs them is upper case and has its next command.

use std::time::Duration;

use clap::Args;
use time::OffsetDateTime;

use super::ask;
use super::drain;
use super::output::{self, Context, Exit, Failure, Format, Paint, clean, table};
use crate::model::StackName;
use crate::status::{ClusterStatus, GitStatus, ServiceStatus, StackState, StackStatus};

/// `status [STACK]`.
#[derive(Debug, Args)]
pub struct Status {
    /// Only this stack, with its services
    #[arg(value_parser = ask::stack_name)]
    pub stack: Option<StackName>,
    /// Text for people or JSON for machines
    #[arg(long, value_enum, default_value_t)]
    pub output: Format,
}

/// Asks the agent and prints.
pub async fn run(context: &Context, args: &Status) -> Result<Exit, Failure> {
    let status = ask::agent(context)?.status().await?;
    match (&args.stack, args.output) {
        (None, Format::Json) => output::json(&status)?,
        (None, Format::Text) => output::result(&cluster(&status, OffsetDateTime::now_utc(), context.paint)),
        (Some(name), format) => match (find(&status, name)?, format) {
            (found, Format::Json) => output::json(found)?,
            (found, Format::Text) => output::result(&stack(found, context.paint)),
        },
    }
    Ok(Exit::Done)
}

/// The whole cluster.
pub fn cluster(status: &ClusterStatus, now: OffsetDateTime, paint: Paint) -> String {
    let mut lines = vec![headline(status, now, paint)];
    lines.extend(
        status
            .git
            .as_ref()
            .and_then(|git| git.error.as_ref())
            .map(|error| format!("{} git: {}", paint.bad("problem:"), clean(error))),
    );
    lines.extend(status.problems.iter().map(|problem| format!("{} {}", paint.bad("problem:"), clean(problem))));
    lines.extend(status.drains.iter().map(|drain| format!("{} {}", paint.busy("drain:"), clean(&drain::words(drain)))));
    if status.stacks.is_empty() {
        lines.push("no stacks yet".to_owned());
    } else {
        lines.extend(stacks(&status.stacks, paint));
    }
    let waiting: Vec<_> = status.stacks.iter().filter(|stack| stack.state.needs_a_person()).collect();
    if let Some(first) = waiting.first() {
        let need = if waiting.len() == 1 { "1 needs".to_owned() } else { format!("{} need", waiting.len()) };
        let next = paint.strong(&format!("swarmkeeper status {}", first.name));
        lines.push(format!("{need} you. Next: {next}"));
    }
    lines.join("\n")
}

/// One stack with its services.
pub fn stack(status: &StackStatus, paint: Paint) -> String {
    let revision = status.revision.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut lines = vec![
        [status.name.to_string(), state(status.state, paint), revision, clean(&status.note)]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join("  "),
    ];
    if !status.services.is_empty() {
        let rows: Vec<_> = status.services.iter().map(service).collect();
        lines.extend(table(&["SERVICE", "TASKS", "IMAGE", "PROBLEM"], &rows));
    }
    // One note stands in the first line already.
    let notes = status.notes.iter().filter(|note| **note != status.note);
    lines.extend(notes.map(|note| format!("! {}", clean(note))));
    lines.extend(status.log.iter().map(|line| format!("  | {}", clean(line))));
    lines.extend(status.warnings.iter().map(|warning| format!("{} {}", paint.busy("warning:"), clean(warning))));
    lines.extend(status.next.iter().map(|next| format!("Next: {}", paint.strong(&clean(next)))));
    lines.join("\n")
}

fn find<'a>(status: &'a ClusterStatus, name: &StackName) -> Result<&'a StackStatus, Failure> {
    status.stacks.iter().find(|stack| stack.name == *name).ok_or_else(|| {
        let names: Vec<&str> = status.stacks.iter().map(|stack| stack.name.as_str()).collect();
        let near = crate::yaml::nearest(name.as_str(), &names);
        let next = near.map_or_else(|| "swarmkeeper status".to_owned(), |near| format!("swarmkeeper status {near}"));
        Failure::new(format!("there is no stack {name} in git, and none was deployed from it"), next)
    })
}

/// `prod-eu  leader m2 (6d)  git main@9f2c1ab 38s ago  agents 30/30`.
fn headline(status: &ClusterStatus, now: OffsetDateTime, paint: Paint) -> String {
    let leader = match &status.leader {
        Some(leader) => format!("leader {} ({})", leader.node, age(now - leader.since)),
        None => paint.bad("NO LEADER"),
    };
    let git = status.git.as_ref().map_or_else(|| "git not read yet".to_owned(), |git| self::git(git, now));
    let agents = format!("agents {}/{}", status.agents.passing, status.agents.nodes);
    let agents = if status.agents.passing < status.agents.nodes { paint.bad(&agents) } else { agents };
    [paint.strong(&status.cluster), leader, git, agents].join("  ")
}

fn git(git: &GitStatus, now: OffsetDateTime) -> String {
    let revision = git.revision.as_ref().map(|revision| format!("@{revision}")).unwrap_or_default();
    let checked = git.checked.map(|checked| format!(" {} ago", age(now - checked))).unwrap_or_default();
    format!("git {}{revision}{checked}", git.branch)
}

/// The table; a state is coloured after the widths are known, since colours have no width.
fn stacks(stacks: &[StackStatus], paint: Paint) -> Vec<String> {
    let rows: Vec<_> = stacks.iter().map(row).collect();
    let mut lines = table(&["STACK", "STATE", "REVISION", "NOTE"], &rows);
    for (line, stack) in lines.iter_mut().skip(1).zip(stacks) {
        let plain = state(stack.state, Paint::PLAIN);
        // The name may contain the state's word, so only what follows it is looked at.
        let (name, rest) = line.split_at(stack.name.as_str().len());
        *line = format!("{name}{}", rest.replacen(&plain, &state(stack.state, paint), 1));
    }
    lines
}

fn row(stack: &StackStatus) -> Vec<String> {
    let revision = stack.revision.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![stack.name.to_string(), state(stack.state, Paint::PLAIN), revision, clean(&stack.note)]
}

fn service(service: &ServiceStatus) -> Vec<String> {
    let tasks = format!("{}/{}", service.running, service.wanted);
    vec![
        service.name.clone(),
        tasks,
        short_image(&service.image),
        clean(service.problem.as_deref().unwrap_or_default()),
    ]
}

/// States that need a person are upper case, so that they are found without colours too.
fn state(state: StackState, paint: Paint) -> String {
    let word = state.word();
    match state {
        _ if state.needs_a_person() => paint.bad(&word.to_uppercase()),
        StackState::Ok => paint.good(word),
        _ => paint.busy(word),
    }
}

/// An image with the first digits of its digest, which are enough to compare two by eye.
fn short_image(image: &str) -> String {
    const DIGEST_DIGITS: usize = 12;
    match image.split_once("@sha256:") {
        Some((name, digest)) => format!("{name}@{}", digest.get(..DIGEST_DIGITS).unwrap_or(digest)),
        None => image.to_owned(),
    }
}

/// In one unit, the way people say it; a clock that runs ahead of ours counts as now.
fn age(age: time::Duration) -> String {
    let seconds = Duration::try_from(age).unwrap_or_default().as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Revision;
    use crate::status::{AgentCount, LeaderStatus};

    fn now() -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
    }

    fn one(name: &str, state: StackState, revision: &str, note: &str) -> StackStatus {
        StackStatus {
            name: StackName::new(name).unwrap(),
            state,
            revision: (!revision.is_empty()).then(|| Revision(revision.into())),
            note: note.into(),
            next: None,
            services: vec![],
            notes: vec![],
            log: Vec::new(),
            warnings: vec![],
        }
    }

    fn prod() -> ClusterStatus {
        ClusterStatus {
            cluster: "prod-eu".into(),
            leader: Some(LeaderStatus { node: "m2".into(), since: now() - time::Duration::days(6), token: 7 }),
            git: Some(GitStatus {
                branch: "main".into(),
                revision: Some(Revision("9f2c1ab0123".into())),
                checked: Some(now() - time::Duration::seconds(38)),
                error: None,
            }),
            agents: AgentCount { passing: 30, nodes: 30 },
            stacks: vec![
                one("shop", StackState::Ok, "9f2c1ab0", "14/14 services"),
                one("billing", StackState::Held, "77d0e120", "9f2c1ab failed: api exit 1 on n17 \"no such table\""),
                one("ingress", StackState::Drift, "9f2c1ab0", "traefik: replicas 3→5 by hand"),
                one("legacy", StackState::Orphan, "61aa0c30", "absent from git; nothing removed"),
            ],
            problems: vec![],
            drains: Vec::new(),
        }
    }

    #[test]
    fn the_whole_cluster_fits_a_screen_and_names_the_next_command() {
        insta::assert_snapshot!(cluster(&prod(), now(), Paint::PLAIN), @r#"
prod-eu  leader m2 (6d)  git main@9f2c1ab 38s ago  agents 30/30
STACK    STATE   REVISION  NOTE
shop     ok      9f2c1ab   14/14 services
billing  HELD    77d0e12   9f2c1ab failed: api exit 1 on n17 "no such table"
ingress  DRIFT   9f2c1ab   traefik: replicas 3→5 by hand
legacy   ORPHAN  61aa0c3   absent from git; nothing removed
3 need you. Next: swarmkeeper status billing
"#);
    }

    #[test]
    fn what_hinders_everything_stands_above_the_stacks() {
        let mut status = prod();
        status.leader = None;
        status.agents.passing = 29;
        status.stacks.truncate(1);
        status.problems = vec!["swarm has no quorum: 1 of 3 managers answers".into()];
        let git = status.git.as_mut().unwrap();
        git.error = Some("git.example.com: connection\nrefused".into());
        insta::assert_snapshot!(cluster(&status, now(), Paint::PLAIN), @r#"
prod-eu  NO LEADER  git main@9f2c1ab 38s ago  agents 29/30
problem: git: git.example.com: connection refused
problem: swarm has no quorum: 1 of 3 managers answers
STACK  STATE  REVISION  NOTE
shop   ok     9f2c1ab   14/14 services
"#);
    }

    #[test]
    fn an_empty_cluster_says_so() {
        let status = ClusterStatus {
            cluster: "swarm".into(),
            leader: None,
            git: None,
            agents: AgentCount::default(),
            stacks: vec![],
            problems: vec![],
            drains: Vec::new(),
        };
        insta::assert_snapshot!(cluster(&status, now(), Paint::PLAIN), @r#"
swarm  NO LEADER  git not read yet  agents 0/0
no stacks yet
"#);
    }

    #[test]
    fn one_stack_shows_its_services_remarks_and_the_next_command() {
        let mut billing = prod().stacks.remove(1);
        billing.next = Some("mend it in git, or swarmkeeper retry billing".into());
        billing.notes = vec![billing.note.clone(), "billing_db: replicas 1→3 by hand".into()];
        billing.warnings = vec!["compose.yml:7:5: services.api.privileged: has no effect in a swarm".into()];
        billing.services = vec![
            ServiceStatus {
                name: "billing_api".into(),
                image: "r.example.com:5000/api:1.4.1@sha256:0123456789abcdef0123".into(),
                running: 5,
                wanted: 6,
                problem: Some("task 3 on n17: exit 1\x1b[2J".into()),
            },
            ServiceStatus {
                name: "billing_db".into(),
                image: "postgres:16".into(),
                running: 1,
                wanted: 1,
                problem: None,
            },
        ];
        insta::assert_snapshot!(stack(&billing, Paint::PLAIN), @r#"
billing  HELD  77d0e12  9f2c1ab failed: api exit 1 on n17 "no such table"
SERVICE      TASKS  IMAGE                                      PROBLEM
billing_api  5/6    r.example.com:5000/api:1.4.1@0123456789ab  task 3 on n17: exit 1 [2J
billing_db   1/1    postgres:16
! billing_db: replicas 1→3 by hand
warning: compose.yml:7:5: services.api.privileged: has no effect in a swarm
Next: mend it in git, or swarmkeeper retry billing
"#);
    }

    #[test]
    fn colours_change_no_letter() {
        let painted = Paint::ON;
        let strip = |text: &str| {
            let mut plain = text.to_owned();
            while let Some(start) = plain.find('\x1b') {
                let end = plain[start..].find('m').unwrap() + start;
                plain.replace_range(start..=end, "");
            }
            plain
        };
        let mut status = prod();
        status.stacks.push(one("held-okay", StackState::Ok, "", "HELD"));
        let coloured = cluster(&status, now(), painted);
        assert_ne!(coloured, strip(&coloured));
        assert_eq!(strip(&coloured), cluster(&status, now(), Paint::PLAIN));
    }

    #[test]
    fn ages_are_said_in_one_unit() {
        for (seconds, expect) in
            [(-5, "0s"), (59, "59s"), (60, "1m"), (3_599, "59m"), (7_200, "2h"), (86_400 * 6, "6d")]
        {
            assert_eq!(age(time::Duration::seconds(seconds)), expect);
        }
    }

    #[test]
    fn a_stack_that_is_not_there_has_a_near_one() {
        let status = prod();
        let missing = find(&status, &StackName::new("biling").unwrap()).unwrap_err();
        assert_eq!(missing.next, "swarmkeeper status billing");
    }
}
