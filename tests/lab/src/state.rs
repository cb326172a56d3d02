//! Who owns the lab, and what it has made: the lock, the state file and the reaper.
//!
//! The state file is a list of lines, appended *before* or just after a thing is made. The teardown is one shell script that
//! reads it; the same script runs in three places: in the reaper (a shell that waits for the end of a pipe whose other end only
//! the lab's owner holds, and so acts when the owner ends in whatever way), in [`tear_down`] for a lab whose reaper was killed as well, and
//! so also before a new lab starts. The reaper holds the lock as long as it works.

use crate::layout::Layout;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

const TEARDOWN: &str = include_str!("scripts/teardown.sh");
/// One lab a machine: the bridge's name and the addresses are the same for all.
const LOCK: &str = "/run/swarmkeeper-lab.lock";
/// Where the teardown complains. It cannot be in the lab's folder, which goes away.
const LOG: &str = "/run/swarmkeeper-lab.teardown.log";
/// How long a teardown may take: killing, unmounting, removing gigabytes of layers.
const TEARDOWN_SECONDS_MAX: u64 = 90;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The number, as this process sees it.
    pub pid: u32,
    /// The start, in clock ticks since boot.
    pub start: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
        let (_, ticks) = parse_stat(&stat).with_context(|| format!("cannot read /proc/{pid}/stat"))?;
        Ok(Self { pid, start: ticks })
    }

    /// Whether it has not ended. A zombie has.
    pub fn lives(self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .ok()
            .and_then(|stat| parse_stat(&stat))
            .is_some_and(|(state, start)| state != 'Z' && start == self.start)
    }
}

/// State letter and start time out of `/proc/<pid>/stat`. The name in it may hold blanks and parentheses.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// One thing to undo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Made {
    /// The boot in which the rest was made.
    Boot(String),
    /// The lab's folder.
    Dir(PathBuf),
    /// The first process of a PID namespace, and whose it is.
    Process(ProcessId, String),
    Netns(String),
    Link(String),
    /// A rule of iptables, as after `-A`.
    Rule(String),
    Cgroup(String),
}

impl fmt::Display for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot(id) => write!(f, "boot {id}"),
            Self::Dir(dir) => write!(f, "dir {}", dir.display()),
            Self::Process(id, what) => write!(f, "pid {} {} {what}", id.pid, id.start),
            Self::Netns(name) => write!(f, "netns {name}"),
            Self::Link(name) => write!(f, "link {name}"),
            Self::Rule(rule) => write!(f, "iptables {rule}"),
            Self::Cgroup(name) => write!(f, "cgroup {name}"),
        }
    }
}

/// Appends to a lab's state file.
pub(crate) fn note(layout: &Layout, made: &Made) -> Result<()> {
    let path = layout.state();
    let append = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
        file.write_all(format!("{made}\n").as_bytes())
    };
    append().with_context(|| format!("cannot write {}", path.display()))
}

/// Who runs the lab: written into the lock file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Owner {
    /// The process.
    pub process: ProcessId,
    /// Its command line.
    pub program: String,
    /// The lab's folder.
    pub dir: PathBuf,
}

impl Owner {
    /// The owner of the last lab, alive or not. None after an orderly end.
    pub fn noted() -> Option<Self> {
        let owner: Self = serde_json::from_str(&std::fs::read_to_string(LOCK).ok()?).ok()?;
        owner.dir.exists().then_some(owner)
    }

    /// Whether the lab is up, as against coming up or going down.
    pub fn is_ready(&self) -> bool {
        self.process.lives() && Layout::new(Some(self.dir.clone())).ready().exists()
    }
}

/// The right to have a lab, until dropped; and the reaper, which shares it.
#[derive(Debug)]
pub(crate) struct Ownership {
    /// Its end is the reaper's signal.
    signal: Option<ChildStdin>,
    reaper: Child,
    state: PathBuf,
    _lock: File,
}

impl Ownership {
    /// Takes the lock, removes what an earlier lab left, makes the folder, starts the reaper.
    ///
    /// Waits for the teardown of a lab whose owner is gone; refuses at once when the owner lives.
    pub(crate) async fn take(layout: &Layout) -> Result<Self> {
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(LOCK)
            .with_context(|| format!("cannot open {LOCK}"))?;
        wait_for_lock(&lock).await?;
        if let Some(earlier) = Owner::noted() {
            tear_down(&Layout::new(Some(earlier.dir))).await?;
        }
        tear_down(layout).await?;
        make_folder(layout)?;
        let owner = Owner {
            process: ProcessId::of(std::process::id())?,
            program: std::env::args().collect::<Vec<_>>().join(" "),
            dir: layout.dir().to_owned(),
        };
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(serde_json::to_string(&owner)?.as_bytes())?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").context("cannot read the boot's ID")?;
        note(layout, &Made::Boot(boot.trim().to_owned()))?;
        note(layout, &Made::Dir(layout.dir().to_owned()))?;
        let mut reaper = teardown_command(&layout.state())?
            .arg("--wait")
            .stdin(Stdio::piped())
            // Never written to: it keeps the lock while the reaper works.
            .stdout(lock.try_clone()?)
            .process_group(0)
            .spawn()
            .context("cannot start the reaper")?;
        Ok(Self { signal: reaper.stdin.take(), reaper, state: layout.state(), _lock: lock })
    }

    /// Tears down and waits for the end of it. Blocks.
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.signal.take().is_none() {
            return Ok(());
        }
        let status = wait_for(&mut self.reaper)?;
        if status.is_none_or(|status| !status.success()) || self.state.exists() {
            bail!("the lab could not be removed: {}", complaints());
        }
        Ok(())
    }
}

impl Drop for Ownership {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Removes what the state file in the folder names. Nothing, if there is none.
pub(crate) async fn tear_down(layout: &Layout) -> Result<()> {
    let state = layout.state();
    if !state.exists() || !layout.marker().exists() {
        return Ok(());
    }
    let mut child =
        teardown_command(&state)?.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start sh")?;
    let status = tokio::task::spawn_blocking(move || wait_for(&mut child)).await??;
    if status.is_none_or(|status| !status.success()) {
        bail!("the earlier lab in {} could not be removed: {}", layout.dir().display(), complaints());
    }
    Ok(())
}

/// Removes the lab that some other process owns, or owned. A living owner is asked to end; `false` says that there was no lab.
pub async fn down() -> Result<bool> {
    let Some(owner) = Owner::noted() else { return Ok(false) };
    if is_locked() {
        crate::machine::kill(owner.process, rustix::process::Signal::TERM)?;
        let end = Instant::now() + Duration::from_secs(TEARDOWN_SECONDS_MAX);
        while is_locked() {
            if Instant::now() > end {
                bail!(
                    "the lab of process {} is still there after {TEARDOWN_SECONDS_MAX} s: {}",
                    owner.process.pid,
                    complaints()
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let layout = Layout::new(Some(owner.dir));
    // Still there only if the reaper was killed, or failed.
    tear_down(&layout).await?;
    Ok(true)
}

/// Whether somebody holds the lock: an owner, or a reaper at work.
fn is_locked() -> bool {
    File::open(LOCK).is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

async fn wait_for_lock(lock: &File) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(TEARDOWN_SECONDS_MAX);
    while flock(lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        if let Some(owner) = Owner::noted()
            && owner.process.lives()
        {
            bail!(
                "there is a lab already, and a machine holds one: process {} ({}) runs it in {}; end it with `lab down` or Ctrl-C there",
                owner.process.pid,
                owner.program,
                owner.dir.display()
            );
        }
        if Instant::now() > end {
            bail!("an earlier lab is still being removed after {TEARDOWN_SECONDS_MAX} s: {}", complaints());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn make_folder(layout: &Layout) -> Result<()> {
    let dir = layout.dir();
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let occupied = std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?.next().is_some();
    if occupied && !layout.marker().exists() {
        bail!("{} holds things that are not the lab's; name another folder with LAB_DIR", dir.display());
    }
    // A folder without state is what a reboot or a very early death left.
    for entry in std::fs::read_dir(dir)?.flatten() {
        let path = entry.path();
        if path != layout.marker() {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    std::fs::write(layout.marker(), "made by swarmkeeper's lab, which removes this folder\n")?;
    Ok(())
}

fn teardown_command(state: &Path) -> Result<Command> {
    let log = File::create(LOG).with_context(|| format!("cannot write {LOG}"))?;
    let mut command = Command::new("sh");
    // The script removes the log if it has nothing to complain about.
    command.args(["-c", TEARDOWN, "lab-teardown"]).arg(state).env("LAB_TEARDOWN_LOG", LOG).stderr(log);
    Ok(command)
}

fn wait_for(child: &mut Child) -> Result<Option<std::process::ExitStatus>> {
    let end = Instant::now() + Duration::from_secs(TEARDOWN_SECONDS_MAX);
    while Instant::now() < end {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(None)
}

fn complaints() -> String {
    let mut text = String::new();
    if let Ok(mut log) = File::open(LOG) {
        let _ = log.read_to_string(&mut text);
    }
    if text.is_empty() { format!("see {LOG}") } else { text.trim_end().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_start_time() {
        let stat = "42 (a) (b c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3";
        assert_eq!(parse_stat(stat), Some(('S', 987_654)));
    }

    #[test]
    fn this_process_lives_and_one_with_another_start_does_not() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.lives());
        assert!(!ProcessId { start: me.start + 1, ..me }.lives());
    }

    /// Runs the script on a state file and returns whether the folder is still there.
    fn survives(marker: bool, lines: &[Made]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let lab = dir.path().join("lab");
        std::fs::create_dir(&lab).unwrap();
        if marker {
            std::fs::write(lab.join(crate::layout::MARKER), "").unwrap();
        }
        let state = lab.join("state");
        let text: String =
            lines.iter().chain([&Made::Dir(lab.clone())]).map(|line| format!("{line}\n")).collect::<Vec<_>>().concat();
        std::fs::write(&state, text).unwrap();
        let status = Command::new("sh").args(["-c", TEARDOWN, "teardown"]).arg(&state).status().unwrap();
        assert!(status.success());
        lab.exists()
    }

    #[test]
    fn only_a_folder_with_the_marker_is_removed() {
        assert!(!survives(true, &[]));
        assert!(survives(false, &[]));
    }

    fn boot() -> Made {
        Made::Boot(std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned())
    }

    #[test]
    fn a_process_is_killed_only_with_its_start_time_and_in_its_boot() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id()).unwrap();
        survives(true, &[boot(), Made::Process(ProcessId { start: id.start + 1, ..id }, "another".into())]);
        survives(true, &[Made::Boot("another".into()), Made::Process(id, "sleep".into())]);
        assert!(id.lives());
        survives(true, &[boot(), Made::Process(id, "sleep".into())]);
        assert!(!id.lives());
        child.wait().unwrap();
    }
}
