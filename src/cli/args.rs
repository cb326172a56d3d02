//! The command line as types, and which function does which verb.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use super::ask::{self, Approve, OneStack, Pause, Restart, Resume, Rollback};
use super::consul;
use super::deploy::{self, Deploy};
use super::doctor::{self, Doctor};
use super::drain::{self, Drain};
use super::history::{self, History};
use super::import;
use super::leader;
use super::output::{Context, Exit, Failure};
use super::plan::{self, Plan};
use super::status::{self, Status};
use super::validate::{self, Validate};
use crate::config::{self, Flags};
use crate::status::Command;

/// Keeps a Docker Swarm as its git repository says
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
    /// Flags of every verb
    #[command(flatten)]
    pub global: Global,
}

const EXIT_CODES: &str = "Exit codes: 0 done (plan: nothing to do), 1 not done or something is wrong, \
2 plan found something to do, 64 a wrong command line.
Ask `swarmkeeper VERB --help` for examples.";

/// Flags of every verb; each beats the environment, which beats the file.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The configuration file [default: swarmkeeper.yml here, in /etc or in /run/secrets, /etc/swarm-sync.yml]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The engine: unix:///path or tcp://host:port
    #[arg(short = 'H', long = "host", global = true, value_name = "ADDRESS")]
    pub host: Option<String>,
    /// The agent to ask [default: http://127.0.0.1:7979]
    #[arg(long, global = true, value_name = "URL")]
    pub agent: Option<String>,
    /// trace, debug, info, warn, error or off
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// text or json
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl Global {
    /// As the configuration's first source.
    pub fn flags(&self) -> Flags {
        let given = [
            ("docker_host", "--host", &self.host),
            ("agent_url", "--agent", &self.agent),
            ("log_level", "--log-level", &self.log_level),
            ("log_format", "--log-format", &self.log_format),
        ];
        let given = given.into_iter().filter_map(|(key, flag, value)| Some((key, (flag, value.clone()?))));
        Flags { config: self.config.clone(), settings: given.collect() }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run on this node: what the service does on every node
    #[command(
        after_help = "Examples:\n  swarmkeeper agent --config swarmkeeper.yml\n`swarmkeeper agent --help` lists every setting.",
        after_long_help = config::help_text()
    )]
    Agent,
    /// Deploy compose files as `docker stack deploy` does, then wait and report
    #[command(after_help = deploy::EXAMPLES)]
    Deploy(Deploy),
    /// What would be done, read-only
    #[command(after_help = plan::EXAMPLES)]
    Plan(Plan),
    /// Check a Config Repo without a swarm
    #[command(after_help = validate::EXAMPLES)]
    Validate(Validate),
    /// Write a Config Repo from what runs
    #[command(after_help = import::EXAMPLES)]
    Import(import::Arguments),
    /// How everything is, and what needs you
    #[command(after_help = "Examples:
  swarmkeeper status                   every stack in a line
  swarmkeeper status shop              its services, remarks and the next command
  swarmkeeper status --output json     for machines")]
    Status(Status),
    /// What is missing on this node, and how to mend it
    #[command(after_help = "Examples:
  swarmkeeper doctor                   before the first deploy, and whenever something is odd
  docker exec CONTAINER /swarmkeeper doctor
Exit codes: 0 nothing fails, 1 something does.")]
    Doctor(Doctor),
    /// Look at git now
    #[command(after_help = "Examples:
  swarmkeeper sync                     after a push, if there is no webhook
  swarmkeeper sync --agent http://m1:7979")]
    Sync,
    /// Take over a stack that runs already; restarts nothing
    #[command(after_help = "Examples:
  swarmkeeper plan shop                what would be done after adopting
  swarmkeeper adopt shop")]
    Adopt(OneStack),
    /// Let a revision through that removes or restarts much
    #[command(after_help = "Examples:
  swarmkeeper plan shop                what it would do
  swarmkeeper approve shop 9f2c1ab")]
    Approve(Approve),
    /// Remove a stack that is absent from git; volumes stay
    #[command(after_help = "Examples:
  swarmkeeper status legacy            what it still runs
  swarmkeeper remove legacy")]
    Remove(OneStack),
    /// Try a failed revision again
    #[command(after_help = "Examples:
  swarmkeeper status billing           why it failed
  swarmkeeper retry billing")]
    Retry(OneStack),
    /// How a stack's last ten rollouts ended
    #[command(after_help = history::EXAMPLES)]
    History(History),
    /// Bring a stack back to a revision that ran, and hold it there until git changes the stack or `resume`
    #[command(after_help = "Examples:
  swarmkeeper rollback shop            to what ran before
  swarmkeeper history shop
  swarmkeeper rollback shop 77d0e12 --reason 'orders are lost'
  swarmkeeper resume shop              back to what git says
The commit is rendered again, with the digests that it ran. Refused with the reason if a digest or an external object is gone.")]
    Rollback(Rollback),
    /// Replace the tasks of one service; nothing else of it changes
    #[command(after_help = "Examples:
  swarmkeeper restart shop/web --reason 'leaks memory'")]
    Restart(Restart),
    /// Leave a stack alone until `resume`
    #[command(after_help = "Examples:
  swarmkeeper pause shop --reason 'black friday'
  swarmkeeper resume shop
  swarmkeeper pause --all --reason 'an audit'
  swarmkeeper resume --all             those that --all paused; others stay paused")]
    Pause(Pause),
    /// End a pause, a rollback or a hold
    #[command(after_help = "Examples:
  swarmkeeper resume shop
  swarmkeeper resume --all             what `pause --all` paused; rollbacks and holds stay")]
    Resume(Resume),
    /// Empty a node without losing a request: out of DNS first, then swarm moves its tasks
    #[command(after_help = drain::EXAMPLES)]
    Drain(Drain),
    /// Registrator's leftovers on this node, and the ACL policies that tokens need
    #[command(after_help = consul::EXAMPLES)]
    Consul(consul::Arguments),
    /// Who leads and who could; or let another lead
    #[command(after_help = leader::EXAMPLES)]
    Leader(leader::Leader),
    /// Forget this swarm: our state and registrations go, whatever runs goes on
    #[command(after_help = "Examples:
  swarmkeeper leave                    then `docker stack rm swarmkeeper`")]
    Leave,
}

pub(super) async fn dispatch(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    let command = match verb {
        Verb::Agent => return super::agent(context).await,
        Verb::Deploy(args) => return deploy::run(context, &args).await,
        Verb::Plan(args) => return plan::run(context, &args).await,
        Verb::Validate(args) => return validate::run(context, &args),
        Verb::Import(args) => return import::run(context, &args).await,
        Verb::Doctor(args) => return doctor::run(context, &args).await,
        Verb::Status(args) => return status::run(context, &args).await,
        Verb::Leader(args) => return leader::run(context, &args).await,
        Verb::History(args) => return history::run(context, &args).await,
        Verb::Drain(args) => return drain::run(context, &args).await,
        Verb::Consul(args) => return consul::run(context, &args).await,
        Verb::Sync => Command::Sync,
        Verb::Adopt(OneStack { stack }) => Command::Adopt { stack },
        Verb::Approve(Approve { stack, revision }) => Command::Approve { stack, revision },
        Verb::Remove(OneStack { stack }) => Command::Remove { stack },
        Verb::Retry(OneStack { stack }) => Command::Retry { stack },
        Verb::Rollback(args) => args.into(),
        Verb::Restart(args) => args.into(),
        Verb::Pause(args) => args.into(),
        Verb::Resume(args) => args.into(),
        Verb::Leave => Command::Leave,
    };
    ask::run(context, command).await
}
