//! Git repositories, served over ssh, over HTTP with and without a password, over HTTPS, and as folders.

use crate::background::Background;
use crate::command::{output, run};
use crate::git_http;
use crate::layout::{GIT_HTTP_PORT, GIT_HTTPS_PORT, HOST, Layout, PASSWORD, SSH_PORT, USER};
use crate::machine::Machine;
use crate::net;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::Command;

const DAEMON: &str = "sshd";
const SHELL: &str = include_str!("scripts/git-shell.sh");
const START_SECONDS_MAX: u64 = 10;
/// The branch that repositories start with.
pub const BRANCH: &str = "main";

/// How the git server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GitFault {
    /// Nobody listens: ssh is refused, HTTP connections are closed.
    Refuse,
    /// Connections are accepted and never answered.
    Hang,
    /// HTTP answers with this status; ssh logins end with an error.
    Error(u16),
}

/// The server of all repositories.
#[derive(Debug, Clone)]
pub struct GitServer {
    pub(crate) machine: Machine,
    pub(crate) layout: Layout,
}

impl GitServer {
    /// A repository, made on first use.
    pub async fn repo(&self, name: &str) -> Result<Repo> {
        let repo = Repo { name: name.to_owned(), root: self.layout.git() };
        if !repo.bare().exists() {
            repo.create().await?;
        }
        Ok(repo)
    }

    /// The private key that may log in over ssh.
    pub fn ssh_key(&self) -> PathBuf {
        self.layout.git().join("id_ed25519")
    }

    /// A `known_hosts` file with the server's key.
    pub fn known_hosts(&self) -> PathBuf {
        self.layout.git().join("known_hosts")
    }

    /// The CA of the HTTPS server's certificate, as PEM.
    pub fn ca(&self) -> PathBuf {
        self.layout.git().join("ca.pem")
    }

    /// A value for `GIT_SSH_COMMAND` with this key and nothing of the user's.
    pub fn ssh_command(&self) -> String {
        format!(
            "ssh -F none -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile={} -i {}",
            self.known_hosts().display(),
            self.ssh_key().display()
        )
    }

    /// Breaks both ways in, until [`GitServer::restore`].
    pub async fn break_with(&self, fault: GitFault) -> Result<()> {
        self.restore().await?;
        match fault {
            GitFault::Refuse => {
                self.machine.signal(DAEMON, "KILL").await?;
                self.machine.wait_for_end(DAEMON, START_SECONDS_MAX).await?;
            }
            GitFault::Hang => self.machine.signal(DAEMON, "STOP").await?,
            GitFault::Error(_) => {}
        }
        std::fs::write(fault_file(&self.layout), serde_json::to_string(&fault)?)?;
        Ok(())
    }

    /// All is well again.
    pub async fn restore(&self) -> Result<()> {
        let file = fault_file(&self.layout);
        if file.exists() {
            std::fs::remove_file(file)?;
        }
        if self.machine.is_running(DAEMON).await {
            self.machine.signal(DAEMON, "CONT").await
        } else {
            start_sshd(&self.machine, &self.layout).await
        }
    }
}

/// The fault in force. Written by whoever holds the lab, read by the server at every connection and request.
pub(crate) fn fault(layout: &Layout) -> Option<GitFault> {
    serde_json::from_str(&std::fs::read_to_string(fault_file(layout)).ok()?).ok()
}

fn fault_file(layout: &Layout) -> PathBuf {
    layout.git().join("fault")
}

/// Makes keys and starts both servers.
pub(crate) async fn up(layout: &Layout, machine: &Machine) -> Result<[Background; 2]> {
    let git = layout.git();
    std::fs::create_dir_all(&git)?;
    for (key, comment) in [("id_ed25519", "lab client"), ("host_ed25519", "lab host")] {
        let path = git.join(key);
        run("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", &path.to_string_lossy()]).await?;
    }
    std::fs::copy(git.join("id_ed25519.pub"), git.join("authorized_keys"))?;
    let host_key = std::fs::read_to_string(git.join("host_ed25519.pub"))?;
    std::fs::write(git.join("known_hosts"), format!("[{HOST}]:{SSH_PORT} {host_key}"))?;
    let shell = git.join("git-shell.sh");
    std::fs::write(&shell, SHELL)?;
    std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(git.join("sshd_config"), sshd_config(&git))?;
    let both = [git_http::start(layout)?, git_http::start_tls(layout)?];
    start_sshd(machine, layout).await?;
    Ok(both)
}

fn sshd_config(git: &Path) -> String {
    let git = git.display();
    format!(
        "Port {SSH_PORT}\nListenAddress {HOST}\nHostKey {git}/host_ed25519\nAuthorizedKeysFile {git}/authorized_keys\n\
         AllowUsers git\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\n\
         ForceCommand {git}/git-shell.sh {git}\nAcceptEnv GIT_PROTOCOL\nPidFile none\nPrintMotd no\nUseDNS no\n"
    )
}

/// The machine's users, and `git`: visible on the lab's machine only, and able to do only what the forced command does.
pub(crate) fn write_users(machine: &Machine) -> Result<()> {
    for (name, line) in [("passwd", "git:x:0:0:lab:/:/bin/sh\n"), ("shadow", "git:*:19000:0:99999:7:::\n")] {
        let source = format!("/etc/{name}");
        let own = std::fs::read_to_string(&source).with_context(|| format!("cannot read {source}"))?;
        let others: String =
            own.lines().filter(|line| !line.starts_with("git:")).flat_map(|line| [line, "\n"]).collect();
        std::fs::write(machine.dir.join(name), others + line)?;
    }
    std::fs::set_permissions(machine.dir.join("shadow"), std::fs::Permissions::from_mode(0o600))?;
    Ok(())
}

async fn start_sshd(machine: &Machine, layout: &Layout) -> Result<()> {
    net::require_free(SSH_PORT).await?;
    // Where it locks itself up before a login.
    std::fs::create_dir_all(machine.run_dir().join("sshd"))?;
    let config = layout.git().join("sshd_config");
    machine.start(DAEMON, &["/usr/sbin/sshd", "-D", "-e", "-f", &config.to_string_lossy()]).await?;
    let end = tokio::time::Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    while TcpStream::connect((HOST, SSH_PORT)).await.is_err() {
        if tokio::time::Instant::now() > end {
            bail!("sshd does not start:\n{}", machine.log_end(DAEMON).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Repo {
    name: String,
    root: PathBuf,
}

impl Repo {
    /// `http://…`, for anybody.
    pub fn http(&self) -> String {
        format!("http://{HOST}:{GIT_HTTP_PORT}/{}.git", self.name)
    }

    /// `http://…`, which asks for the lab's user and password.
    pub fn http_private(&self) -> String {
        format!("http://{HOST}:{GIT_HTTP_PORT}/private/{}.git", self.name)
    }

    /// `https://…`, for anybody who trusts [`GitServer::ca`].
    pub fn https(&self) -> String {
        format!("https://{HOST}:{GIT_HTTPS_PORT}/{}.git", self.name)
    }

    /// [`Repo::http_private`] with the password in it.
    pub fn http_with_auth(&self) -> String {
        format!("http://{USER}:{PASSWORD}@{HOST}:{GIT_HTTP_PORT}/private/{}.git", self.name)
    }

    /// `ssh://…`, for [`GitServer::ssh_key`].
    pub fn ssh(&self) -> String {
        format!("ssh://git@{HOST}:{SSH_PORT}/{}.git", self.name)
    }

    /// `file://…`, on any node.
    pub fn file(&self) -> String {
        format!("file://{}", self.bare().display())
    }

    /// Writes (or with None, deletes) files and commits to [`BRANCH`]. Returns the commit.
    pub async fn commit(&self, changes: &[(&str, Option<&str>)], message: &str) -> Result<String> {
        for (path, content) in changes {
            let path = self.work().join(path);
            match content {
                Some(content) => {
                    if let Some(parent) = path.parent() {
                        std::fs::create_dir_all(parent)?;
                    }
                    std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
                }
                None => std::fs::remove_file(&path).with_context(|| format!("cannot delete {}", path.display()))?,
            }
        }
        self.git(&["add", "--all"]).await?;
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]).await?;
        self.push().await
    }

    /// Sets [`BRANCH`] to a commit, as a forced push does. Later commits build upon it.
    pub async fn reset(&self, commit: &str) -> Result<String> {
        self.git(&["reset", "--quiet", "--hard", commit]).await?;
        self.push().await
    }

    /// The newest commit.
    pub async fn head(&self) -> Result<String> {
        let bare = self.bare();
        run("git", ["--git-dir", &bare.to_string_lossy(), "rev-parse", BRANCH]).await
    }

    /// The folder of a working copy, in which any git command may be run with [`Repo::git`].
    pub fn work(&self) -> PathBuf {
        self.root.join("work").join(&self.name)
    }

    /// Runs git in the working copy.
    pub async fn git(&self, arguments: &[&str]) -> Result<String> {
        output(self.git_command(arguments), None).await
    }

    /// Publishes the working copy's HEAD. Returns the commit.
    pub async fn push(&self) -> Result<String> {
        let bare = self.bare();
        self.git(&["push", "--quiet", "--force", &bare.to_string_lossy(), &format!("HEAD:refs/heads/{BRANCH}")])
            .await?;
        self.git(&["rev-parse", "HEAD"]).await
    }

    fn bare(&self) -> PathBuf {
        self.root.join(format!("{}.git", self.name))
    }

    async fn create(&self) -> Result<()> {
        if self.name.is_empty() || !self.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            bail!("a repository's name is made of letters, digits, - and _; {:?} is not", self.name);
        }
        let (bare, work) = (self.bare(), self.work());
        std::fs::create_dir_all(&work)?;
        self.git(&["init", "--quiet", "--bare", "--initial-branch", BRANCH, &bare.to_string_lossy()]).await?;
        self.git(&["init", "--quiet", "--initial-branch", BRANCH]).await?;
        Ok(())
    }

    /// Git without the user's settings.
    fn git_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(self.work())
            .args(arguments)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env_remove("GIT_DIR");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "lab").env(format!("GIT_{who}_EMAIL"), "lab@localhost");
        }
        command
    }
}
