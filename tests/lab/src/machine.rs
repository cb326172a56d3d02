//! A machine: namespaces whose processes all die with the first one.
//!
//! Its own mount, host name and PID namespaces, with a folder of its own over `/run`, and (for nodes) a network
//! namespace that outlives it, as a cable does. Daemons become children of the first process, which does nothing but reap. So killing
//! one process, which the state file names, is the power switch: engine, containers, shims, Consul and their mounts are gone when it is.

use crate::command::{output, run};
use crate::layout::Layout;
use crate::state::{Made, ProcessId, note};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

const INIT: &str = include_str!("scripts/init.sh");
/// What daemons find, whatever the caller's environment is: a proxy named there must not reach the engines.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const BOOT_SECONDS_MAX: u64 = 10;
/// How long a process may take to be gone after a SIGKILL.
const KILL_SECONDS_MAX: u64 = 20;

/// A machine of the lab.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub name: &'static str,
    pub dir: PathBuf,
    /// None: the host's network.
    pub netns: Option<&'static str>,
    pub layout: Layout,
}

impl Machine {
    /// The folder that processes of the machine see as `/run`.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Switches it on. `/run` is emptied first, as by a reboot, but for the recorder's socket, which is older.
    pub async fn boot(&self) -> Result<()> {
        if self.first_process().is_ok() {
            bail!("{} is on already", self.name);
        }
        self.prepare_folders()?;
        let mut command = match self.netns {
            Some(netns) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{netns}")).arg("unshare");
                command
            }
            None => Command::new("unshare"),
        };
        command
            .args([
                "--mount",
                "--uts",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
                "-c",
                INIT,
                "lab-init",
                self.name,
            ])
            .arg(&self.dir)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(self.dir.join("boot.log"))?)
            .process_group(0);
        let mut outer = command.spawn().context("cannot run unshare")?;
        let outer_pid = outer.id().context("unshare ended at once")?;
        let first = tokio::time::timeout(Duration::from_secs(BOOT_SECONDS_MAX), child_of(outer_pid))
            .await
            .with_context(|| format!("{}: unshare made no process: {}", self.name, self.boot_log()))??;
        note(&self.layout, &Made::Process(first, self.name.to_owned()))?;
        std::fs::write(self.first_process_file(), serde_json::to_string(&first)?)?;
        if let Some(mut stdin) = outer.stdin.take() {
            stdin
                .write_all(b"go\n")
                .await
                .with_context(|| format!("{} did not boot: {}", self.name, self.boot_log()))?;
        }
        let mut line = String::new();
        if let Some(stdout) = outer.stdout.take() {
            let mut lines = BufReader::new(stdout);
            let read = tokio::time::timeout(Duration::from_secs(BOOT_SECONDS_MAX), lines.read_line(&mut line)).await;
            read.with_context(|| format!("{} does not boot", self.name))??;
        }
        if line.trim() != "ready" {
            bail!("{} did not boot: {}", self.name, self.boot_log());
        }
        // Whoever drops the handle of a child that lives must see that it is waited for: unshare ends with the machine.
        tokio::spawn(async move { outer.wait().await });
        Ok(())
    }

    /// Switches it off without warning.
    pub async fn kill(&self) -> Result<()> {
        let first = self.first_process()?;
        kill(first, Signal::KILL)?;
        let end = tokio::time::Instant::now() + Duration::from_secs(KILL_SECONDS_MAX);
        while first.lives() {
            if tokio::time::Instant::now() > end {
                bail!("{} is not gone {KILL_SECONDS_MAX} s after SIGKILL", self.name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The first process, if the machine is on.
    pub fn first_process(&self) -> Result<ProcessId> {
        let text = std::fs::read_to_string(self.first_process_file())
            .with_context(|| format!("{} was never on", self.name))?;
        let first: ProcessId = serde_json::from_str(&text)?;
        if !first.lives() {
            bail!("{} is off", self.name);
        }
        Ok(first)
    }

    /// A command that will run inside. It dies with the command that this returns.
    pub fn command(&self, program: &str) -> Result<Command> {
        let first = self.first_process()?;
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &first.pid.to_string(), "--mount", "--uts", "--net", "--pid", "--"])
            .args(["setpriv", "--pdeathsig", "KILL", "--"])
            .arg(program)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root");
        Ok(command)
    }

    /// Runs a command inside to its end.
    pub async fn run(&self, words: &[&str]) -> Result<String> {
        let (program, arguments) = words.split_first().context("no command")?;
        let mut command = self.command(program)?;
        command.args(arguments);
        output(command, None).await
    }

    /// Starts a daemon inside, which logs to `<log>.log` in the machine's folder and writes its number to `/run/lab-<log>.pid`.
    pub async fn start(&self, log: &str, words: &[&str]) -> Result<()> {
        let first = self.first_process()?;
        let log_file = self.dir.join(format!("{log}.log"));
        let script = r#"log=$1 pid=$2; shift 2; rm -f "$pid"
            setsid sh -c 'echo $$ >"$0"; exec "$@"' "$pid" "$@" </dev/null >>"$log" 2>&1 &
            tries=0
            while [ ! -s "$pid" ]; do
                tries=$((tries + 1)); [ "$tries" -lt 1000 ] || { echo "it did not start" >&2; exit 1; }
                sleep 0.01
            done"#;
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &first.pid.to_string(),
                "--mount",
                "--uts",
                "--net",
                "--pid",
                "--",
                "sh",
                "-c",
                script,
                "lab-start",
            ])
            .arg(&log_file)
            .arg(pid_file_inside(log))
            .args(words)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root");
        output(command, None).await.map(drop)
    }

    /// Signals a daemon that [`Machine::start`] started.
    pub async fn signal(&self, daemon: &str, signal: &str) -> Result<()> {
        let script = r#"kill -s "$1" "$(cat "$2")""#;
        self.run(&["sh", "-c", script, "lab-signal", signal, &pid_file_inside(daemon)])
            .await
            .map(drop)
            .with_context(|| format!("cannot send SIG{signal} to {daemon} of {}", self.name))
    }

    /// Signals a process by its number inside.
    pub async fn signal_pid(&self, pid: u32, signal: &str) -> Result<()> {
        self.run(&["sh", "-c", r#"kill -s "$1" "$2""#, "lab-signal", signal, &pid.to_string()]).await.map(drop)
    }

    /// Whether a daemon runs.
    pub async fn is_running(&self, daemon: &str) -> bool {
        self.pid_lives(&pid_file_inside(daemon)).await
    }

    /// Whether there is a process with the number that the file (as seen inside) holds.
    ///
    /// A zombie counts: its other threads may still hold the sockets. The first process reaps it when they are gone.
    pub async fn pid_lives(&self, pid_file: &str) -> bool {
        let script = r#"read -r pid <"$1" && kill -0 "$pid""#;
        self.run(&["sh", "-c", script, "lab-lives", pid_file]).await.is_ok()
    }

    /// Waits until a daemon has ended.
    pub async fn wait_for_end(&self, daemon: &str, seconds: u64) -> Result<()> {
        let end = tokio::time::Instant::now() + Duration::from_secs(seconds);
        while self.is_running(daemon).await {
            if tokio::time::Instant::now() > end {
                bail!("{daemon} of {} has not ended after {seconds} s", self.name);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The end of a daemon's log, for error messages.
    pub async fn log_end(&self, daemon: &str) -> String {
        let path = self.dir.join(format!("{daemon}.log"));
        run("tail", [Path::new("-n"), Path::new("15"), &path]).await.unwrap_or_else(|error| format!("{error:#}"))
    }

    fn first_process_file(&self) -> PathBuf {
        self.dir.join("first-process")
    }

    fn boot_log(&self) -> String {
        std::fs::read_to_string(self.dir.join("boot.log")).unwrap_or_default().trim_end().to_owned()
    }

    fn prepare_folders(&self) -> Result<()> {
        let run = self.run_dir();
        // The engine would write its key there, and one machine must not share it with another.
        std::fs::create_dir_all(self.dir.join("etc-docker"))?;
        std::fs::create_dir_all("/etc/docker").context("cannot make /etc/docker, where the engines' key goes")?;
        std::fs::create_dir_all(&run)?;
        for entry in std::fs::read_dir(&run)?.flatten() {
            let path = entry.path();
            if path.file_name().is_some_and(|name| name == "docker.sock") {
                continue;
            }
            let removed =
                if entry.file_type()?.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }
}

/// Where a daemon's number stands, as seen inside.
fn pid_file_inside(daemon: &str) -> String {
    format!("/run/lab-{daemon}.pid")
}

/// Signals a process if it still is the one.
pub(crate) fn kill(process: ProcessId, signal: Signal) -> Result<()> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw).context("no process number")?;
    if process.lives() {
        kill_process(pid, signal).with_context(|| format!("cannot signal process {}", process.pid))?;
    }
    Ok(())
}

/// Waits for the first child of a process.
async fn child_of(parent: u32) -> Result<ProcessId> {
    let children = format!("/proc/{parent}/task/{parent}/children");
    loop {
        let mut text = String::new();
        tokio::fs::File::open(&children)
            .await
            .with_context(|| format!("cannot open {children} (the kernel needs CONFIG_PROC_CHILDREN)"))?
            .read_to_string(&mut text)
            .await?;
        if let Some(pid) = text.split_ascii_whitespace().next().and_then(|pid| pid.parse().ok()) {
            return ProcessId::of(pid);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
