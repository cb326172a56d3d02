//! Which generation of Docker's engine the nodes run: the machine's own, or Debian sid's from a root file system of its own.
//!
//! Debian sid's engine needs sid's libraries, so it gets a mount namespace whose root is an overlay over the root in the cache, into
//! which the node's `/run` and `/etc/docker` and the lab's folder are bound. The cache stays as it was made, and the mounts end with the
//! engine and its containers.

use crate::command::{output, run};
use crate::install::{cache, debian_mirrors, install_programs};
use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio::process::Command;

/// The variable that names the generation where nobody else does.
const VARIABLE: &str = "LAB_ENGINE";
const SUITE: &str = "sid";
const PACKAGES: &str = "docker.io,iptables,ca-certificates";
const ENTER: &str = include_str!("scripts/enter.sh");

/// A generation of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// The machine's own: 20.10 on Debian 12.
    #[default]
    Machine,
    /// Debian sid's: 28 or newer.
    Sid,
}

impl FromStr for Engine {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "machine" => Ok(Self::Machine),
            "sid" => Ok(Self::Sid),
            _ => bail!("{word:?} is no engine of the lab's: machine or sid"),
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "machine",
            Self::Sid => "sid",
        })
    }
}

impl Engine {
    /// What `LAB_ENGINE` says, or the machine's.
    pub fn from_environment() -> Result<Self> {
        std::env::var(VARIABLE).map_or(Ok(Self::default()), |word| word.parse().context(VARIABLE))
    }

    /// The generation of the lab that runs in `layout`.
    pub(crate) fn of(layout: &Layout) -> Self {
        let word = std::fs::read_to_string(layout.engine()).unwrap_or_default();
        word.parse().unwrap_or_default()
    }

    /// Notes it for a lab that comes up.
    pub(crate) fn note(self, layout: &Layout) -> Result<()> {
        Ok(std::fs::write(layout.engine(), self.to_string())?)
    }

    /// The words before `dockerd` on a machine of the lab.
    pub(crate) fn enter(self, layout: &Layout, node: &Path) -> Vec<String> {
        match self {
            Self::Machine => Vec::new(),
            Self::Sid => {
                let paths = [&root(), layout.dir(), node].map(|path| path.display().to_string());
                ["unshare", "--mount", "sh", "-c", ENTER, "lab-enter"]
                    .map(str::to_owned)
                    .into_iter()
                    .chain(paths)
                    .collect()
            }
        }
    }

    /// Whether what it needs is there.
    pub(crate) fn check(self) -> Result<()> {
        if self == Self::Sid && !root().is_dir() {
            bail!("there is no root file system with {SUITE}'s engine; run `lab install --engine sid`");
        }
        Ok(())
    }

    /// Gets it, if it is not there: 600 MB and a minute or two for sid's.
    pub(crate) async fn install(self, say: &(dyn Fn(&str) + Send + Sync)) -> Result<()> {
        if self == Self::Machine || root().is_dir() {
            return Ok(());
        }
        install_programs(&[("debootstrap", "debootstrap")], say).await?;
        say("making a root file system with Debian sid's engine");
        let made = cache().join(format!("engine-{}", std::process::id()));
        let mut errors = Vec::new();
        for mirror in debian_mirrors()? {
            let mut command = Command::new("debootstrap");
            command.args(["--variant=minbase", &format!("--include={PACKAGES}"), SUITE]).arg(&made).arg(&mirror);
            match output(command, None).await {
                // Renamed when complete: a killed run leaves no half of it.
                Ok(_) => return Ok(std::fs::rename(&made, root())?),
                Err(error) => errors.push(format!("{mirror}: {error:#}")),
            }
            run("rm", ["-rf".as_ref(), made.as_os_str()]).await?;
        }
        bail!("cannot make a root file system of Debian's {SUITE}\n{}", errors.join("\n"))
    }
}

fn root() -> PathBuf {
    cache().join("engine-sid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_read_as_it_is_written() {
        for engine in [Engine::Machine, Engine::Sid] {
            assert_eq!(engine.to_string().parse::<Engine>().unwrap(), engine);
        }
        assert!("28".parse::<Engine>().is_err());
    }
}
