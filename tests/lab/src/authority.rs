//! A certificate authority made as `consul/server.hcl` tells people to make theirs: with Consul's own commands.

use crate::command::output;
use crate::install;
use anyhow::{Context, Result};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use tokio::process::Command;

const CA: &str = "consul-agent-ca.pem";
const CA_KEY: &str = "consul-agent-ca-key.pem";

/// A CA with a folder for its files.
#[derive(Debug, Clone)]
pub struct Authority {
    dir: PathBuf,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

/// For whom a certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A Consul server of the datacenter.
    Server,
    /// Anybody else.
    Client,
}

impl Authority {
    /// A new one.
    pub async fn new(dir: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        tls(&dir, &["ca", "create"]).await?;
        Ok(Self { dir })
    }

    /// The file of its certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join(CA)
    }

    /// A new certificate for whoever answers at `address` and on loopback.
    pub async fn issue(&self, holder: Holder, address: Ipv4Addr) -> Result<Identity> {
        let word = match holder {
            Holder::Server => "server",
            Holder::Client => "client",
        };
        // Consul's command counts the files that are there up.
        let scratch = self.dir.join("issued");
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch)?;
        let (ca, key) = (self.ca().display().to_string(), self.dir.join(CA_KEY).display().to_string());
        let address = address.to_string();
        let fixed = ["cert", "create", "-dc", "dc1", "-ca", &ca, "-key", &key, "-additional-ipaddress", &address];
        tls(&scratch, &[&fixed[..], &[&format!("-{word}")]].concat()).await?;
        let read = |end: &str| std::fs::read_to_string(scratch.join(format!("dc1-{word}-consul-0{end}.pem")));
        Ok(Identity { cert: read("")?, key: read("-key")? })
    }
}

/// Runs `consul tls …`, which writes into the folder that it runs in.
async fn tls(dir: &Path, words: &[&str]) -> Result<()> {
    let mut command = Command::new(install::consul_binary()?);
    command.arg("tls").args(words).current_dir(dir);
    output(command, None).await.map(drop)
}
