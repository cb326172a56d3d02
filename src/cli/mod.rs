//! Arguments → command → exit code.
//!
//! A verb is a function in its family's file: it gets a [`Context`], prints its result to stdout and returns an [`Exit`], or a
//! [`Failure`] that says what is the matter and what to do next. Logs and remarks go to stderr.
//!
//! | exit code | |
//! |---|---|
//! | 0 | done; for `plan`: nothing to do |
//! | 1 | not done, or something is wrong |
//! | 2 | `plan` only: there is something to do |
//! | 64 | the command line makes no sense (clap's own 2 would look like a plan with changes) |

mod args;
pub mod ask;
pub mod consul;
pub mod deploy;
pub mod doctor;
pub mod drain;
pub mod history;
pub mod import;
pub mod leader;
mod local;
pub mod output;
pub mod plan;
pub mod status;
pub mod validate;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

pub use args::{Cli, Global, Verb};
pub use output::{Context, Exit, Failure, Format, Paint};

use crate::{app, config, log};

/// Threads of the agent's runtime.
const AGENT_THREADS: usize = 2;

/// What commands other than the agent log, unless `--log-level` says otherwise: their result is on stdout.
const COMMAND_LOG_LEVEL: &str = "warn";

/// Arguments → command → exit code.
pub fn main() -> ExitCode {
    // The one TLS provider of the process; a second call would find it there.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match args::Cli::try_parse() {
        Ok(cli) => run(cli).unwrap_or_else(|failure| failure.print(Paint::for_stderr())).into(),
        Err(error) => {
            let _ = error.print();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Done.into(),
                _ => Exit::Usage.into(),
            }
        }
    }
}

fn run(cli: Cli) -> Result<Exit, Failure> {
    let loaded = config::load(&cli.global.flags()).map_err(|mistakes| Failure::configuration(&mistakes))?;
    let is_agent = matches!(cli.verb, Verb::Agent);
    let level = if is_agent || cli.global.log_level.is_some() { loaded.config.log_level } else { COMMAND_LOG_LEVEL };
    log::init(level, loaded.config.log_format, !config::no_color());
    for warning in &loaded.warnings {
        output::remark(&warning.to_string());
    }
    let context = Context { config: loaded.config, paint: Paint::for_stdout() };
    runtime(is_agent)?.block_on(args::dispatch(cli.verb, &context))
}

/// The agent; its problems are in the log.
async fn agent(context: &Context) -> Result<Exit, Failure> {
    match app::run(context.config.clone()).await {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Failure::new(format!("{error:#}"), "`swarmkeeper doctor` on this node looks closer")),
    }
}

/// Two threads for the agent, so that rendering holds up no registration; one for a command.
fn runtime(is_agent: bool) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = if is_agent {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(AGENT_THREADS);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let built = builder.enable_all().build();
    built.map_err(|error| Failure::new(format!("cannot start: {error}"), "free some memory or file descriptors"))
}

#[cfg(test)]
mod tests;
