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

/// One stack or all, and a reason.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    which: Which,
    /// Why, shown in `status` to whoever wonders
    #[arg(long)]
    reason: String,
}

/// One stack or all.
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    which: Which,
}

/// Which stacks.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The stack
    #[arg(value_parser = stack_name)]
    stack: Option<StackName>,
    /// Every stack that is known now, in git or running; one that git names later is not meant
    #[arg(long)]
    all: bool,
}

impl From<Pause> for Command {
    fn from(Pause { which, reason }: Pause) -> Self {
        match which.stack {
            Some(stack) => Self::Pause { stack, reason },
            None => Self::PauseAll { reason },
        }
    }
}

impl From<Resume> for Command {
    fn from(Resume { which }: Resume) -> Self {
        match which.stack {
            Some(stack) => Self::Resume { stack },
            None => Self::ResumeAll,
        }
    }
}

/// A stack and where to go back to.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The stack
    #[arg(value_parser = stack_name)]
    stack: StackName,
    /// The revision, as `history` shows it [default: the one that ran before the present one]
    #[arg(value_parser = revision)]
    revision: Option<String>,
    /// Why, shown in `status` to whoever wonders
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

impl From<Rollback> for Command {
    fn from(Rollback { stack, revision, reason }: Rollback) -> Self {
        Self::Rollback { stack, revision, reason }
    }
}

/// A service and a reason.
#[derive(Debug, Args)]
pub struct Restart {
    /// The service, by its key in the compose file
    #[arg(value_name = "STACK/SERVICE", value_parser = service)]
    service: (StackName, String),
    /// Why, told with the restart
    #[arg(long)]
    reason: String,
}

impl From<Restart> for Command {
    fn from(Restart { service: (stack, service), reason }: Restart) -> Self {
        Self::Restart { stack, service, reason }
    }
}

/// Asks for `command` and prints the answer.
pub async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    let answer = agent(context)?.command(&command).await?;
    output::result(&output::clean(&answer));
    Ok(Exit::Done)
}

/// A client for the agent that the configuration names.
pub fn agent(context: &Context) -> Result<Keeper, Failure> {
    let config = &context.config;
    Ok(Keeper::trusting(&config.agent_url, config.api_token.clone(), config.tls.ca_file.as_deref())?)
}

/// For clap.
pub fn stack_name(text: &str) -> Result<StackName, String> {
    StackName::new(text).map_err(|error| error.to_string())
}

/// `shop/web`.
fn service(text: &str) -> Result<(StackName, String), String> {
    match text.split_once('/') {
        Some((stack, service)) if !service.is_empty() => Ok((stack_name(stack)?, service.to_owned())),
        _ => Err("a stack and its service are wanted, such as shop/web".to_owned()),
    }
}

/// At least seven hexadecimal digits: fewer could mean another commit tomorrow.
fn revision(text: &str) -> Result<String, String> {
    let fits = (7..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit());
    if fits { Ok(text.to_lowercase()) } else { Err("a commit id of at least seven digits is wanted".to_owned()) }
}
