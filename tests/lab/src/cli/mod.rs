//! The verbs of the `lab` program.

mod progress;
mod selftest;
mod show;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand, ValueEnum};
use std::process::Stdio;
use std::time::Duration;
use swarmkeeper_lab::{Dns, Engine, Lab, Mark, Options, Owner};
use tokio::signal::unix::{SignalKind, signal};

/// How long a detached lab may take to come up, installing included.
const DETACHED_SECONDS_MAX: u64 = 900;

/// A real Docker swarm on one machine: three managers, a worker, Consul, registries, a git server, and a recorder before every API.
#[derive(Debug, Parser)]
#[command(
    name = "lab",
    version,
    after_help = "\
Examples:
  sudo lab up                       until Ctrl-C
  sudo lab up --detach              until `sudo lab down`
  eval \"$(lab env)\"; docker node ls
  sudo lab writes                   what anybody changed through the recorders
  sudo lab selftest                 prove that it works here, and leaves nothing behind

Environment:
  LAB_DIR     the lab's folder, /var/tmp/swarmkeeper-lab by default
  LAB_ENGINE  which engines, as --engine
  CONSUL      a Consul binary, instead of Debian's 1.8.7"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring it up, and hold it until Ctrl-C
    Up {
        /// Return when it is up; `lab down` ends it
        #[arg(long)]
        detach: bool,
        /// Refuse to install packages
        #[arg(long)]
        no_install: bool,
        /// What the nodes ask for names
        #[arg(long, value_enum, default_value_t = DnsChoice::Refusing)]
        dns: DnsChoice,
        /// The engines: `machine`, this machine's own, or `sid`, Debian sid's in a root file system of its own
        #[arg(long, env = "LAB_ENGINE", default_value_t)]
        engine: Engine,
    },
    /// Remove it, whoever holds it; also what a killed one left
    Down,
    /// Say whether there is one, and how its nodes are
    Status,
    /// Print what passed the recorders and changed something
    Writes {
        /// Only what came after this mark, which --mark prints
        #[arg(long, value_name = "MARK")]
        since: Option<String>,
        /// Print the mark of now, for --since
        #[arg(long)]
        mark: bool,
        /// Everything, reads too
        #[arg(long)]
        all: bool,
        /// The recorded JSON lines, bodies included
        #[arg(long)]
        json: bool,
    },
    /// Install the packages and Consul, and nothing more
    Install {
        /// What `up --engine` will name
        #[arg(long, env = "LAB_ENGINE", default_value_t)]
        engine: Engine,
    },
    /// Print shell exports for the docker client, Consul and git
    Env,
    /// Bring one up, break it in every way, remove it, and look for leftovers
    Selftest,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DnsChoice {
    /// A resolver that refuses at once
    Refusing,
    /// The node's Consul
    Consul,
}

pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    match arguments.verb {
        Verb::Up { detach: true, no_install, dns, engine } => detach(no_install, dns, engine).await,
        Verb::Up { detach: false, no_install, dns, engine } => up(no_install, dns, engine).await,
        Verb::Down => down().await,
        Verb::Status => show::status().await,
        Verb::Writes { since, mark, all, json } => writes(since.as_deref(), mark, all, json).await,
        Verb::Install { engine } => install(engine).await,
        Verb::Env => show::env().await,
        Verb::Selftest => selftest::run().await,
    }
}

async fn up(no_install: bool, dns: DnsChoice, engine: Engine) -> Result<()> {
    // Before anything is made: a signal during the start must not pass unseen.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let progress = progress::Progress::new();
    let dns = match dns {
        DnsChoice::Refusing => Dns::Refusing,
        DnsChoice::Consul => Dns::Consul,
    };
    let options =
        Options { install: !no_install, dns, engine: Some(engine), say: progress.say(), ..Options::default() };
    let lab = tokio::select! {
        lab = Lab::up(options) => lab?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    };
    progress.end();
    show::addresses(&lab).await?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("removing the lab");
    lab.down().await
}

/// Starts this program again, in the background, and waits until its lab is up.
async fn detach(no_install: bool, dns: DnsChoice, engine: Engine) -> Result<()> {
    let log = std::env::temp_dir().join(format!("swarmkeeper-lab-{}.log", std::process::id()));
    let file = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut command = tokio::process::Command::new(std::env::current_exe()?);
    command.arg("up").args(no_install.then_some("--no-install")).args([
        "--dns",
        dns_word(dns),
        "--engine",
        &engine.to_string(),
    ]);
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    let mut child = command.spawn()?;
    let pid = child.id();
    let end = tokio::time::Instant::now() + Duration::from_secs(DETACHED_SECONDS_MAX);
    loop {
        if child.try_wait()?.is_some() {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            std::fs::remove_file(&log)?;
            bail!("the lab did not come up:\n{}", said.trim_end());
        }
        if Owner::noted().is_some_and(|owner| Some(owner.process.pid) == pid && owner.is_ready()) {
            std::fs::remove_file(&log)?;
            return show::addresses(&Lab::attach().await?).await;
        }
        if tokio::time::Instant::now() > end {
            bail!("the lab is not up after {DETACHED_SECONDS_MAX} s; see {}", log.display());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn dns_word(dns: DnsChoice) -> &'static str {
    match dns {
        DnsChoice::Refusing => "refusing",
        DnsChoice::Consul => "consul",
    }
}

async fn down() -> Result<()> {
    show::print(if swarmkeeper_lab::down().await? { "the lab is gone\n" } else { "there is no lab\n" })
}

async fn install(engine: Engine) -> Result<()> {
    swarmkeeper_lab::install(engine, &|step| eprintln!("lab: {step}")).await?;
    show::print("everything is there\n")
}

async fn writes(since: Option<&str>, mark: bool, all: bool, json: bool) -> Result<()> {
    let lab = Lab::attach().await?;
    let record = lab.record();
    if mark {
        return show::print(&format!("{}\n", serde_json::to_string(&record.mark()?)?));
    }
    let since =
        since.map_or(Ok(Mark::START), serde_json::from_str).context("no mark; `lab writes --mark` prints one")?;
    let mut text = String::new();
    for request in if all { record.requests(since)? } else { record.writes(since)? } {
        text += &if json { serde_json::to_string(&request)? } else { request.to_string() };
        text.push('\n');
    }
    show::print(&text)
}
