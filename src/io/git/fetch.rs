//! One conversation with the server, on a thread of its own.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, Cred, CredentialType, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, ProxyOptions,
    RemoteCallbacks, Repository, RepositoryInitOptions,
};
use tokio::sync::{Semaphore, oneshot};

use super::address::{Address, Transport};
use super::known_hosts::{self, HostKey, Verdict};
use super::{
    BRANCHES_NAMED_MAX, COMMITS_TOLD_MAX, DAMAGED, Error, Fetched, HUNG_MAX, KnownHosts, Options, PACKS_MAX, Patience,
    SshKey, error, revision, set_aside, told,
};

/// What a conversation needs to know; cheap to clone.
#[derive(Clone)]
pub(super) struct Job {
    pub address: Address,
    pub options: Arc<Options>,
    /// The clone.
    pub path: PathBuf,
    /// Raised by a reader of the clone that met a damaged object.
    pub damaged: Arc<AtomicBool>,
}

/// How often the conversation's signs of life are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(250);

/// Holds a conversation and watches over it.
pub(super) async fn converse(job: &Job, threads: &Arc<Semaphore>, patience: Patience) -> Result<Fetched, Error> {
    let url = || job.address.url.clone();
    let Ok(permit) = threads.clone().try_acquire_owned() else {
        return Err(Error::Hung { url: url(), attempts: HUNG_MAX });
    };
    let signs = Arc::new(Signs::new());
    // However this future ends, the thread learns that nobody waits for it.
    let _stop = StopOnDrop(signs.clone());
    let (done, mut result) = oneshot::channel();
    let (job, watched) = (job.clone(), signs.clone());
    // No `spawn_blocking`: a runtime waits for its blocking tasks, and this one may hang for ever.
    let thread = std::thread::Builder::new().name("git-fetch".to_owned()).spawn(move || {
        let fetched = fetch(&job, &watched);
        drop(permit);
        let _ = done.send(fetched);
    });
    if let Err(reason) = thread {
        return Err(Error::Unreachable { url: url(), reason: format!("no thread for it: {reason}") });
    }
    loop {
        // Cancel-safe: a oneshot receiver keeps its value.
        tokio::select! {
            fetched = &mut result => {
                return fetched.unwrap_or_else(|_| Err(Error::Unreachable { url: url(), reason: "its thread ended".to_owned() }));
            }
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        let (silent, after) = (signs.silent_for(), signs.begun.elapsed());
        if silent >= patience.silence || after >= patience.whole {
            return Err(Error::TimedOut { url: url(), silent, after });
        }
    }
}

/// Signs of life one way, the wish to stop the other.
struct Signs {
    begun: Instant,
    last_ms: AtomicU64,
    stopped: AtomicBool,
}

impl Signs {
    fn new() -> Self {
        Self { begun: Instant::now(), last_ms: AtomicU64::new(0), stopped: AtomicBool::new(false) }
    }

    /// Notes a sign of life; false if it should stop.
    fn go_on(&self) -> bool {
        self.last_ms.store(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        !self.stopped.load(Ordering::Relaxed)
    }

    fn silent_for(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

struct StopOnDrop(Arc<Signs>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

/// The conversation; a damaged clone is set aside once, and the conversation begins anew.
fn fetch(job: &Job, signs: &Signs) -> Result<Fetched, Error> {
    if job.damaged.swap(false, Ordering::Relaxed) {
        set_aside(&job.path, "an object is missing or unreadable");
    }
    match fetch_once(job, signs) {
        Err(Error::Damaged { reason, .. }) => {
            set_aside(&job.path, &reason);
            fetch_once(job, signs)
        }
        other => other,
    }
}

fn fetch_once(job: &Job, signs: &Signs) -> Result<Fetched, Error> {
    let of_clone = |error: git2::Error| error::of_clone(&error, &job.path.display().to_string());
    let branch = &job.options.branch;
    let repo = open_or_make(job)?;
    let previous = tracked(&repo, branch);
    let head = download(job, &repo, signs)?;
    // The tree must be there too: a commit alone would be found out only at its first use.
    repo.find_commit(head).and_then(|commit| commit.tree().map(drop)).map_err(of_clone)?;
    let forced = match previous {
        Some(previous) if previous != head => !repo.graph_descendant_of(head, previous).map_err(of_clone)?,
        _ => false,
    };
    if let (true, true, Some(previous)) = (forced, job.options.require_fast_forward, previous) {
        let (branch, from, to) = (branch.clone(), revision(previous).to_string(), revision(head).to_string());
        return Err(Error::Forced { branch, from, to });
    }
    if !signs.go_on() {
        return Err(Error::Unreachable { url: job.address.url.clone(), reason: "stopped".to_owned() });
    }
    if previous != Some(head) {
        repo.reference(&tracking_ref(branch), head, true, "fetched").map_err(of_clone)?;
        tidy(job, &repo);
    }
    let commits = commits_since(&repo, head, previous).map_err(of_clone)?;
    Ok(Fetched { head: revision(head), previous: previous.map(revision), forced, commits })
}

/// The branch's commit as of the last fetch, if it is there with its tree.
pub(super) fn tracked(repo: &Repository, branch: &str) -> Option<Oid> {
    let commit = repo.find_reference(&tracking_ref(branch)).ok()?.peel_to_commit().ok()?;
    commit.tree().ok().map(|_| commit.id())
}

fn tracking_ref(branch: &str) -> String {
    format!("refs/remotes/origin/{branch}")
}

fn open_or_make(job: &Job) -> Result<Repository, Error> {
    if job.path.exists() {
        match Repository::open_bare(&job.path) {
            Ok(repo) => return Ok(repo),
            // No memory or no file handle left says nothing about the clone.
            Err(error) if error.class() == ErrorClass::Os => {
                return Err(error::of_clone(&error, &job.path.display().to_string()));
            }
            Err(error) => set_aside(&job.path, error.message()),
        }
    }
    let path = || job.path.display().to_string();
    std::fs::create_dir_all(&job.options.path)
        .map_err(|error| Error::Clone { path: path(), reason: error.to_string() })?;
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false);
    Repository::init_opts(&job.path, &options).map_err(|error| error::of_clone(&error, &path()))
}

/// Asks for the branch's commit, and downloads it if it is not there yet.
fn download(job: &Job, repo: &Repository, signs: &Signs) -> Result<Oid, Error> {
    let guard = Guard::new(job);
    let of_server = |error: git2::Error| guard.explain(&error);
    let branch = &job.options.branch;
    let wanted = format!("refs/heads/{branch}");

    let mut remote = repo.remote_anonymous(&job.address.url).map_err(of_server)?;
    let callbacks = callbacks(job, &guard, signs);
    let mut connection = remote.connect_auth(Direction::Fetch, Some(callbacks), Some(proxy())).map_err(of_server)?;
    signs.go_on();
    let advertised = connection.list().map_err(of_server)?;
    let Some(head) = advertised.iter().find(|head| head.name() == wanted).map(git2::RemoteHead::oid) else {
        let branches = advertised.iter().filter_map(|head| head.name().strip_prefix("refs/heads/"));
        let there = branches.take(BRANCHES_NAMED_MAX).map(ToOwned::to_owned).collect();
        return Err(Error::NoSuchBranch { url: job.address.url.clone(), branch: branch.clone(), there });
    };
    // A pack appears in the clone as a whole or not at all, so a commit that is there is there with all it needs.
    if !repo.odb().map_err(of_server)?.exists(head) {
        let mut options = FetchOptions::new();
        options.download_tags(AutotagOption::None).update_fetchhead(false).proxy_options(proxy());
        options.remote_callbacks(self::callbacks(job, &guard, signs));
        let wanted = format!("+{wanted}:{}", tracking_ref(branch));
        connection.remote().download(&[wanted], Some(&mut options)).map_err(of_server)?;
    }
    Ok(head)
}

fn proxy<'a>() -> ProxyOptions<'a> {
    let mut proxy = ProxyOptions::new();
    proxy.auto();
    proxy
}

fn callbacks<'a>(job: &'a Job, guard: &'a Guard<'_>, signs: &'a Signs) -> RemoteCallbacks<'a> {
    let mut callbacks = RemoteCallbacks::new();
    callbacks.transfer_progress(|_| signs.go_on());
    callbacks.sideband_progress(|_| signs.go_on());
    callbacks.credentials(move |url, user, allowed| {
        signs.go_on();
        guard.credential(url, user, allowed)
    });
    callbacks.certificate_check(move |certificate, _host| {
        signs.go_on();
        // TLS: passing means that OpenSSL's own verdict stands. `CertificateOk` would overrule it.
        let (Some(shown), Transport::Ssh { host, port }) =
            (certificate.as_hostkey().and_then(git2::cert::CertHostkey::hostkey), &job.address.transport)
        else {
            return Ok(git2::CertificateCheckStatus::CertificatePassthrough);
        };
        guard.host_key(&HostKey { host: host.clone(), port: *port, key: shown.to_vec() })
    });
    callbacks
}

/// Decides about credentials and host keys, and remembers why it said no: libgit2's own words for that are few.
struct Guard<'a> {
    job: &'a Job,
    offered: RefCell<CredentialType>,
    refusal: RefCell<Option<Error>>,
}

impl<'a> Guard<'a> {
    fn new(job: &'a Job) -> Self {
        Self { job, offered: RefCell::new(CredentialType::empty()), refusal: RefCell::default() }
    }

    /// Our own refusal if there is one, else libgit2's error.
    fn explain(&self, error: &git2::Error) -> Error {
        let own = self.refusal.borrow_mut().take();
        own.unwrap_or_else(|| error::of_server(error, &self.job.address.url, &self.job.path.display().to_string()))
    }

    fn refuse(&self, code: ErrorCode, error: Error) -> git2::Error {
        let message = error.to_string();
        *self.refusal.borrow_mut() = Some(error);
        git2::Error::new(code, ErrorClass::Callback, message)
    }

    /// Offers each kind of credential once: libgit2 asks for ever, and a server counts wrong passwords.
    fn credential(&self, url: &str, user: Option<&str>, allowed: CredentialType) -> Result<Cred, git2::Error> {
        // Credentials are asked for after the host key was accepted, if only by libgit2's own known_hosts.
        self.refusal.borrow_mut().take();
        let credentials = &self.job.options.credentials;
        let user = user.or(credentials.username.as_deref()).unwrap_or("git");
        if allowed.is_username() {
            return Cred::username(user);
        }
        let first = |kind: CredentialType| {
            let mut offered = self.offered.borrow_mut();
            let first = allowed.contains(kind) && !offered.contains(kind);
            if first {
                offered.insert(kind);
            }
            first
        };
        if let Some(key) = &credentials.ssh_key
            && first(CredentialType::SSH_KEY)
        {
            let key = self.key_text(key)?;
            let passphrase = credentials.ssh_passphrase.as_ref().map(|passphrase| passphrase.reveal().as_str());
            return Cred::ssh_key_from_memory(user, None, &key, passphrase);
        }
        if let Some(password) = &credentials.password
            && self.is_ours(url)
            && first(CredentialType::USER_PASS_PLAINTEXT)
        {
            return Cred::userpass_plaintext(user, password.reveal());
        }
        let reason = self.why_nothing_is_left(url, user, allowed);
        Err(self.refuse(ErrorCode::Auth, Error::Auth { url: self.job.address.url.clone(), reason }))
    }

    fn why_nothing_is_left(&self, url: &str, user: &str, allowed: CredentialType) -> String {
        let asked = match &self.job.address.transport {
            Transport::Ssh { .. } if allowed.is_ssh_key() => "an ssh key",
            _ => "a username and a password or token",
        };
        if !self.is_ours(url) {
            return "it redirects to another host, which asks for credentials; set the URL that it redirects to"
                .to_owned();
        }
        if self.offered.borrow().is_empty() {
            return format!("it asks for {asked}, and none is set; set one that may read the repo");
        }
        let user = if matches!(self.job.address.transport, Transport::Ssh { .. }) {
            format!(" for the user {user:?}")
        } else {
            String::new()
        };
        format!("it refused the credentials{user}; check that they are current and may read the repo")
    }

    /// Over HTTP a redirect may lead to another host, which must not get our credentials.
    fn is_ours(&self, url: &str) -> bool {
        let Transport::Http { host } = &self.job.address.transport else { return true };
        url::Url::parse(url).is_ok_and(|url| url.host_str().is_some_and(|found| found.trim_matches(['[', ']']) == host))
    }

    fn key_text(&self, key: &SshKey) -> Result<String, git2::Error> {
        let text = match key {
            SshKey::Text(text) => text.reveal().clone(),
            SshKey::File(path) => std::fs::read_to_string(path).map_err(|error| {
                let reason = format!("the ssh key {} cannot be read: {error}", path.display());
                self.refuse(ErrorCode::Auth, Error::Auth { url: self.job.address.url.clone(), reason })
            })?,
        };
        // A key that went through an environment variable has often lost its last line's end, without which it does not parse.
        Ok(format!("{}\n", text.replace("\r\n", "\n").trim()))
    }

    fn host_key(&self, shown: &HostKey) -> Result<git2::CertificateCheckStatus, git2::Error> {
        let known = known_hosts_text(&self.job.options.known_hosts);
        let verdict = known_hosts::look_up(&known, shown);
        let whose = format!("{}:{} shows the {} key {}", shown.host, shown.port, shown.kind(), shown.fingerprint());
        let add = format!(
            "compare the fingerprint with what the host's owner publishes, then add this line to known_hosts: {}",
            shown.line()
        );
        let reason = match verdict {
            Verdict::Known => return Ok(git2::CertificateCheckStatus::CertificateOk),
            Verdict::Changed => format!(
                "{whose}, and known_hosts has another: somebody may be in between; if the host's owner says that the key was changed, \
                 replace the line by: {}",
                shown.line()
            ),
            Verdict::Revoked => format!("{whose}, which known_hosts marks as revoked"),
            Verdict::Unknown { other_kinds, hashed } => {
                let reason = if !other_kinds.is_empty() {
                    format!("{whose}, and known_hosts has only its {}; {add}", other_kinds.join(" and "))
                } else if hashed > 0 {
                    format!(
                        "{whose}, which is not known ({hashed} hashed lines in known_hosts were passed over); {add}"
                    )
                } else {
                    format!("{whose}, which is not known; {add}")
                };
                // libgit2 may still find it in $HOME/.ssh/known_hosts; if not, this is why.
                *self.refusal.borrow_mut() = Some(Error::HostKey { reason });
                return Ok(git2::CertificateCheckStatus::CertificatePassthrough);
            }
        };
        Err(self.refuse(ErrorCode::Certificate, Error::HostKey { reason }))
    }
}

fn known_hosts_text(known_hosts: &KnownHosts) -> String {
    let mut text = known_hosts.text.clone().unwrap_or_default();
    for file in &known_hosts.files {
        if let Ok(content) = std::fs::read_to_string(file) {
            text.push('\n');
            text.push_str(&content);
        }
    }
    text
}

fn commits_since(repo: &Repository, head: Oid, previous: Option<Oid>) -> Result<Vec<super::Commit>, git2::Error> {
    let mut walk = repo.revwalk()?;
    walk.push(head)?;
    if let Some(previous) = previous {
        walk.hide(previous)?;
    }
    let told_max = if previous.is_some() { COMMITS_TOLD_MAX } else { 1 };
    walk.take(told_max).map(|id| Ok(told(&repo.find_commit(id?)?))).collect()
}

/// Keeps the folder small. Failing to do so is no failure of the fetch.
fn tidy(job: &Job, repo: &Repository) {
    if let Err(error) = repack(repo, PACKS_MAX) {
        tracing::warn!(clone = %job.path.display(), error = error.message(), "clone not repacked");
    }
    for entry in std::fs::read_dir(&job.options.path).into_iter().flatten().flatten() {
        let path = entry.path();
        // Clones of former URLs; this one has just proved to be good.
        let is_clone = path.extension().is_some_and(|extension| extension == "git" || extension == DAMAGED);
        if is_clone && path.file_stem() != job.path.file_stem() {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Makes one pack of many. What no ref reaches is left out, and so is gone.
pub(super) fn repack(repo: &Repository, packs_max: usize) -> Result<(), git2::Error> {
    let folder = repo.path().join("objects/pack");
    let old = files_of_packs(&folder);
    if old.iter().filter(|path| path.extension().is_some_and(|extension| extension == "pack")).count() <= packs_max {
        return Ok(());
    }
    let mut walk = repo.revwalk()?;
    walk.push_glob("refs/*")?;
    let mut builder = repo.packbuilder()?;
    builder.insert_walk(&mut walk)?;
    builder.write(&folder, 0)?;
    let new = format!("pack-{}", builder.name()?.unwrap_or_default());
    // Readers that have an old pack open keep it open; those that look for it anew find the new one.
    for path in old.iter().filter(|path| path.file_stem().is_none_or(|stem| stem != new.as_str())) {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

fn files_of_packs(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pack-"))).collect()
}
