//! Verbs that ask the agent on this node, or the one that `--agent` names; a follower hands the question to the leader.

use clap::Args;

use super::output::{self, Context, Exit, Failure};
use crate::io::keeper::Keeper;
use crate::model::StackName;
use crate::status::Command;

/// One stack.
#[derive(Debug, Args)]
pub struct OneStack {
    /// The stack
    #[arg(value_parser = stack_name)]
    pub stack: StackName,
}

/// A stack and a revision of it.
#[derive(Debug, Args)]
pub struct Approve {
    /// The stack
    #[arg(value_parser = stack_name)]
    pub stack: StackName,
    /// The revision, as `status` shows it
    #[arg(value_name = "REV", value_parser = revision)]
    pub revision: String,
}

/// A stack and a reason.
#[derive(Debug, Args)]
pub struct Pause {
    /// The stack
    #[arg(value_parser = stack_name)]
    pub stack: StackName,
    /// Why, shown in `status` to whoever wonders
    #[arg(long)]
    pub reason: String,
}

/// Asks for `command` and prints the answer.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    let answer = agent(context)?.command(&command).await?;
    output::result(&output::clean(&answer));
    Ok(Exit::Done)
}

/// A client for the agent that the configuration names.
pub fn agent(context: &Context) -> Result<Keeper, Failure> {
    Ok(Keeper::new(&context.config.agent_url, context.config.api_token.clone())?)
}

/// For clap.
pub fn stack_name(text: &str) -> Result<StackName, String> {
    StackName::new(text).map_err(|error| error.to_string())
}

/// At least seven hexadecimal digits: fewer could mean another commit tomorrow.
fn revision(text: &str) -> Result<String, String> {
    let fits = (7..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit());
    if fits { Ok(text.to_lowercase()) } else { Err("a commit id of at least seven digits is wanted".to_owned()) }
}
