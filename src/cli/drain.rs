//! `drain`: empties a node without losing a request.

use std::time::{Duration, Instant};

use clap::Args;

use super::ask;
use super::output::{self, Context, Exit, Failure};
use crate::status::{Command, DrainPhase, DrainStatus};

/// Examples for `--help`.
pub const EXAMPLES: &str = "Examples:
  swarmkeeper drain n17 --wait         before its kernel update
  swarmkeeper drain n17 --undo         and afterwards
Its instances leave DNS, clients have `drain_wait` (10s) to leave, then swarm moves its tasks. Our own agent is one of them: ask another
node's. Exit codes: 0 ordered (--wait: nothing runs there any more), 1 not.";

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it waits at most.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// `drain NODE`.
#[derive(Debug, Args)]
pub struct Drain {
    /// The node, by its name or ID as in `docker node ls`
    pub node: String,
    /// Wait until nothing runs there any more
    #[arg(long, conflicts_with = "undo")]
    pub wait: bool,
    /// Make it active again
    #[arg(long)]
    pub undo: bool,
}

/// Asks the agent, and waits if asked to.
pub async fn run(context: &Context, args: &Drain) -> Result<Exit, Failure> {
    let agent = ask::agent(context)?;
    let command = Command::Drain { node: args.node.clone(), undo: args.undo };
    let answer = agent.command(&command).await?;
    if !args.wait {
        output::result(&output::clean(&answer));
        return Ok(Exit::Done);
    }
    output::progress(&answer);
    let begin = Instant::now();
    let mut said = None;
    while begin.elapsed() < WAIT_MAX {
        let drains = agent.status().await?.drains;
        // The order was taken: what is not listed yet will be after the leader's next pass.
        if let Some(drain) = drains.iter().find(|drain| drain.node == args.node || drain.id.starts_with(&args.node)) {
            if drain.phase == DrainPhase::Done {
                output::result(&words(drain));
                return Ok(Exit::Done);
            }
            let now = words(drain);
            if said.as_ref() != Some(&now) {
                output::progress(&now);
                said = Some(now);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(Failure::new(
        format!("{} is not empty after {} minutes", args.node, WAIT_MAX.as_secs() / 60),
        format!("docker node ps {}", args.node),
    ))
}

/// How a drain stands, in a line.
pub fn words(DrainStatus { node, phase, tasks, .. }: &DrainStatus) -> String {
    match phase {
        DrainPhase::Leaving => format!("{node}: out of DNS, clients have their time, {tasks} tasks run"),
        DrainPhase::Moving => format!("{node}: swarm moves its tasks, {tasks} are left"),
        DrainPhase::Done => format!("{node}: drained, nothing runs there any more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_has_its_words() {
        let said = [DrainPhase::Leaving, DrainPhase::Moving, DrainPhase::Done]
            .map(|phase| words(&DrainStatus { node: "n1".into(), id: "abc".into(), phase, tasks: 2 }));
        insta::assert_snapshot!(said.join("\n"), @r"
        n1: out of DNS, clients have their time, 2 tasks run
        n1: swarm moves its tasks, 2 are left
        n1: drained, nothing runs there any more
        ");
    }
}
