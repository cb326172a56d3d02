//! The Config Repo: a bare, warm clone of one branch, read commit by commit.
//!
//! # Flow
//!
//! [`GitRepo::fetch`] asks the server for the branch's commit, downloads what is missing, and moves our own ref;
//! [`GitRepo::tree`] reads a commit's files from the clone. There is no working copy.
//!
//! # Guarantees
//!
//! * A look that finds nothing new is one exchange and writes nothing.
//! * Revisions once fetched stay readable while they are on the branch or pinned ([`GitRepo::pin`]), server or no server.
//! * A damaged or half-made clone is set aside (one such is kept, `*.damaged`) and made anew. The clone's folder is named after the
//!   URL, so another URL is another clone; the former goes once the new one is there.
//! * ssh hosts must be known, TLS certificates valid; each credential is offered once, over HTTP only to the host of the URL.
//!
//! # Limits
//!
//! libgit2 has no timeout by default, and to set one takes `unsafe`, which this crate forbids. So each conversation has a thread of its
//! own, which is told to stop when the server gives no sign for [`SILENCE_MAX`] or after [`FETCH_MAX`], and is left behind where it
//! hangs in a system call. It ends when its connection does. [`HUNG_MAX`] such threads make [`Error::Hung`]; they never hinder the
//! process's end. libgit2 itself looks at `HOME`, `SSL_CERT_FILE` and the proxy variables.

mod address;
mod error;
mod fetch;
mod known_hosts;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use git2::{Oid, Repository};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::model::{Revision, Sensitive};

pub use error::Error;
pub use tree::Tree;

/// A server that gives no sign for so long has stopped to answer.
pub const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Longest fetch, a first clone over a slow line included.
pub const FETCH_MAX: Duration = Duration::from_mins(15);

/// Conversations that may hang in the network before no further one is begun.
pub const HUNG_MAX: usize = 16;

/// New commits told of a fetch.
pub const COMMITS_TOLD_MAX: usize = 50;

/// Branches named where the wanted one is missing.
pub const BRANCHES_NAMED_MAX: usize = 10;

/// Each fetch that brings something leaves a pack; so many are made one, and what no ref reaches goes.
pub const PACKS_MAX: usize = 50;

/// Ends the name of a clone that was set aside.
const DAMAGED: &str = "damaged";

/// Our refs, beside git's own.
const PINS: &str = "refs/swarmkeeper/";

/// Which repo, and how to get in.
#[derive(Clone)]
pub struct Options {
    /// `https://`, `ssh://`, `user@host:path`, `http://`, `file://` or a path. A login in it is taken out before it is shown anywhere.
    pub url: String,
    /// The branch followed, such as `main`.
    pub branch: String,
    /// The folder for clones, such as `/var/lib/swarmkeeper/git`. What lies in it is ours.
    pub path: PathBuf,
    /// How to get in.
    pub credentials: Credentials,
    /// Which ssh hosts are who they say.
    pub known_hosts: KnownHosts,
    /// True: a rewritten history is refused; otherwise it is followed with a warning.
    pub require_fast_forward: bool,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the URL, which may hold a token.
        f.debug_struct("Options").field("branch", &self.branch).field("path", &self.path).finish_non_exhaustive()
    }
}

/// How to get in; all of it is optional.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// For HTTP, and for ssh where the URL names no user. Servers that take a token as password care little; default `git`.
    pub username: Option<String>,
    /// A password or a token.
    pub password: Option<Sensitive<String>>,
    /// An ssh private key.
    pub ssh_key: Option<SshKey>,
    /// The key's passphrase.
    pub ssh_passphrase: Option<Sensitive<String>>,
}

/// An ssh private key.
#[derive(Debug, Clone)]
pub enum SshKey {
    /// Its text, in OpenSSH's or PEM's form (`SSH_PRIVATE_KEY`).
    Text(Sensitive<String>),
    /// A file, read at each conversation.
    File(PathBuf),
}

/// Which ssh hosts are who they say, beside libgit2's own `$HOME/.ssh/known_hosts`.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    /// Lines as in `known_hosts`.
    pub text: Option<String>,
    /// Files, read at each conversation; those that are absent are passed over.
    pub files: Vec<PathBuf>,
}

/// What a fetch found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The branch's commit.
    pub head: Revision,
    /// The branch's commit as of the fetch before; none at the first.
    pub previous: Option<Revision>,
    /// True if `head` does not contain `previous`: somebody rewrote the history.
    pub forced: bool,
    /// Commits in `head` that were not in `previous`, newest first, at most [`COMMITS_TOLD_MAX`]; at the first fetch the newest alone.
    pub commits: Vec<Commit>,
}

impl Fetched {
    /// True if there is something new.
    pub fn changed(&self) -> bool {
        self.previous.as_ref() != Some(&self.head)
    }
}

/// A commit, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub revision: Revision,
    /// The first line of its message.
    pub summary: String,
    /// Its author's name.
    pub author: String,
    /// When it was committed.
    pub at: OffsetDateTime,
}

/// A warm clone of one branch.
pub struct GitRepo {
    job: fetch::Job,
    /// One conversation at a time; those that hang do not count.
    turn: tokio::sync::Mutex<()>,
    threads: Arc<tokio::sync::Semaphore>,
    patience: Patience,
}

/// [`SILENCE_MAX`] and [`FETCH_MAX`], shorter in tests.
#[derive(Debug, Clone, Copy)]
struct Patience {
    silence: Duration,
    whole: Duration,
}

impl GitRepo {
    /// Takes the settings; asks no server and touches no file.
    pub fn open(mut options: Options) -> Result<Self, Error> {
        let address = address::parse(&options.url, &mut options.credentials)?;
        // What made up the URL is in the address and the credentials now.
        options.url.clear();
        if !git2::Reference::is_valid_name(&format!("refs/heads/{}", options.branch)) {
            return Err(Error::Address { reason: format!("{:?} cannot be a branch's name", options.branch) });
        }
        let path = options.path.join(format!("{}.git", name_of(&address.url)));
        let job = fetch::Job { address, options: Arc::new(options), path, damaged: Arc::new(AtomicBool::new(false)) };
        Ok(Self {
            job,
            turn: tokio::sync::Mutex::new(()),
            threads: Arc::new(tokio::sync::Semaphore::new(HUNG_MAX + 1)),
            patience: Patience { silence: SILENCE_MAX, whole: FETCH_MAX },
        })
    }

    /// The URL without secrets.
    pub fn url(&self) -> &str {
        &self.job.address.url
    }

    /// The branch followed.
    pub fn branch(&self) -> &str {
        &self.job.options.branch
    }

    /// Asks the server, and downloads what is new. Dropping the future stops the conversation.
    pub async fn fetch(&self) -> Result<Fetched, Error> {
        let _turn = self.turn.lock().await;
        let fetched = fetch::converse(&self.job, &self.threads, self.patience).await?;
        if fetched.forced {
            let from = fetched.previous.as_ref().map(Revision::as_str).unwrap_or_default();
            tracing::warn!(branch = self.branch(), from, revision = fetched.head.as_str(), "git history was rewritten");
        }
        Ok(fetched)
    }

    /// The branch's commit as of the last fetch, of this process or an earlier one; none before the first.
    pub fn head(&self) -> Option<Revision> {
        let repo = Repository::open_bare(&self.job.path).ok()?;
        fetch::tracked(&repo, self.branch()).map(revision)
    }

    /// The files of a commit that the clone holds.
    pub fn tree(&self, revision: &Revision) -> Result<Tree, Error> {
        let repo = self.clone()?;
        let root = self.commit_in(&repo, revision)?.tree_id();
        Ok(Tree { repo, root, damaged: self.job.damaged.clone() })
    }

    /// A commit that the clone holds.
    pub fn commit(&self, revision: &Revision) -> Result<Commit, Error> {
        Ok(told(&self.commit_in(&self.clone()?, revision)?))
    }

    /// Keeps a commit readable even when its branch is rewritten; one of the same name is replaced.
    pub fn pin(&self, name: &str, revision: &Revision) -> Result<(), Error> {
        let repo = self.clone()?;
        let id = self.commit_in(&repo, revision)?.id();
        repo.reference(&pin_ref(name), id, true, "pinned").map_err(|error| self.of_clone(&error))?;
        Ok(())
    }

    /// Lets a pinned commit go; an unknown name is no error.
    pub fn unpin(&self, name: &str) -> Result<(), Error> {
        let repo = self.clone()?;
        match repo.find_reference(&pin_ref(name)) {
            Ok(mut pin) => pin.delete().map_err(|error| self.of_clone(&error)),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(()),
            Err(error) => Err(self.of_clone(&error)),
        }
    }

    /// The pinned commits, by name.
    pub fn pins(&self) -> Result<BTreeMap<String, Revision>, Error> {
        let repo = self.clone()?;
        let refs = repo.references_glob(&format!("{PINS}*")).map_err(|error| self.of_clone(&error))?;
        let pins = refs.filter_map(Result::ok).filter_map(|pin| {
            let name = pin.name().ok()?.strip_prefix(PINS)?.replace("%2E", ".");
            Some((name, revision(pin.target()?)))
        });
        Ok(pins.collect())
    }

    fn clone(&self) -> Result<Repository, Error> {
        Repository::open_bare(&self.job.path).map_err(|error| self.of_clone(&error))
    }

    fn commit_in<'r>(&self, repo: &'r Repository, revision: &Revision) -> Result<git2::Commit<'r>, Error> {
        let absent = || Error::NoSuchRevision { revision: revision.as_str().to_owned() };
        let id = Oid::from_str(revision.as_str()).map_err(|_| absent())?;
        repo.find_commit(id).map_err(|error| match error.code() {
            git2::ErrorCode::NotFound => absent(),
            _ => self.of_clone(&error),
        })
    }

    fn of_clone(&self, error: &git2::Error) -> Error {
        error::of_clone(error, &self.job.path.display().to_string())
    }
}

/// A folder's name for a URL: its last part, for people, and eight digits, to be told from others.
fn name_of(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default().trim_end_matches(".git");
    let last: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(40).collect();
    let digits = hex::encode(Sha256::digest(url.as_bytes()).get(..4).unwrap_or_default());
    format!("{last}-{digits}")
}

/// A pin's name may hold dots in places where git's refs may not.
fn pin_ref(name: &str) -> String {
    format!("{PINS}{}", name.replace('.', "%2E"))
}

fn revision(id: Oid) -> Revision {
    Revision(id.to_string())
}

fn told(commit: &git2::Commit<'_>) -> Commit {
    let summary = commit.summary_bytes().map(|summary| String::from_utf8_lossy(summary).into_owned());
    Commit {
        revision: revision(commit.id()),
        summary: summary.unwrap_or_default(),
        author: String::from_utf8_lossy(commit.author().name_bytes()).into_owned(),
        at: OffsetDateTime::from_unix_timestamp(commit.time().seconds()).unwrap_or(OffsetDateTime::UNIX_EPOCH),
    }
}

/// Where a damaged clone goes; the one before it is removed.
fn set_aside(path: &Path, reason: &str) {
    let aside = path.with_extension(DAMAGED);
    let _ = std::fs::remove_dir_all(&aside).or_else(|_| std::fs::remove_file(&aside));
    match std::fs::rename(path, &aside) {
        Ok(()) => {
            tracing::warn!(clone = %path.display(), reason, "clone set aside and made anew; pinned commits are lost");
        }
        Err(error) => tracing::warn!(clone = %path.display(), reason, %error, "damaged clone cannot be set aside"),
    }
}
