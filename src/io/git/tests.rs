//! Against real repos made by the git command, over file, HTTP (`git http-backend`) and ssh (a private sshd on loopback).

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use base64::Engine as _;
use tempfile::TempDir;

use super::*;
use crate::io::files::{Entry, EntryKind, FileError, Files};

/// A repo on a server, and a place for our clone.
struct Server {
    dir: TempDir,
}

impl Server {
    fn new() -> Self {
        let server = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(server.origin()).unwrap();
        server.git(&["init", "-q", "-b", "main"]);
        server
    }

    fn origin(&self) -> PathBuf {
        self.dir.path().join("origin")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn clone_path(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.cache()).unwrap().map(|entry| entry.unwrap().path());
        entries.find(|path| path.extension().is_some_and(|extension| extension == "git")).unwrap()
    }

    fn git(&self, args: &[&str]) -> String {
        let identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false"];
        let output = Command::new("git").current_dir(self.origin()).args(identity).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.origin().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn commit(&self, message: &str) -> Revision {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        Revision(self.git(&["rev-parse", "HEAD"]))
    }

    fn options(&self, url: &str) -> Options {
        Options {
            url: url.to_owned(),
            branch: "main".to_owned(),
            path: self.cache(),
            credentials: Credentials::default(),
            known_hosts: KnownHosts::default(),
            require_fast_forward: false,
        }
    }

    fn local(&self) -> Options {
        self.options(&format!("file://{}", self.origin().display()))
    }

    fn repo(&self) -> GitRepo {
        GitRepo::open(self.local()).unwrap()
    }
}

fn summaries(fetched: &Fetched) -> Vec<&str> {
    fetched.commits.iter().map(|commit| commit.summary.as_str()).collect()
}

#[tokio::test]
async fn the_first_fetch_clones_and_the_next_brings_what_is_new() {
    let server = Server::new();
    server.write("a.txt", "one");
    let first = server.commit("First");
    let repo = server.repo();
    assert_eq!(repo.head(), None);

    let fetched = repo.fetch().await.unwrap();
    assert_eq!((&fetched.head, &fetched.previous, fetched.forced), (&first, &None, false));
    assert_eq!(summaries(&fetched), ["First"]);
    assert_eq!(fetched.commits[0].author, "Ann");

    let idle = repo.fetch().await.unwrap();
    assert!(!idle.changed() && idle.commits.is_empty(), "{idle:?}");

    server.write("a.txt", "two");
    server.commit("Second");
    let third = server.commit("Third");
    let fetched = repo.fetch().await.unwrap();
    assert_eq!((&fetched.head, &fetched.previous, fetched.forced), (&third, &Some(first.clone()), false));
    assert_eq!(summaries(&fetched), ["Third", "Second"]);

    // What was fetched before stays readable, and another process finds it without a server.
    fs::remove_dir_all(server.origin()).unwrap();
    let repo = server.repo();
    assert_eq!(repo.head(), Some(third.clone()));
    assert_eq!(repo.tree(&first).unwrap().read("a.txt").unwrap().unwrap(), b"one");
    assert_eq!(repo.tree(&third).unwrap().read("a.txt").unwrap().unwrap(), b"two");
    assert_eq!(repo.commit(&first).unwrap().summary, "First");
    let error = repo.fetch().await.unwrap_err();
    assert!(matches!(error, Error::NoSuchRepo { .. }), "{error}");
}

#[tokio::test]
async fn a_branch_that_does_not_exist_is_named_with_those_that_do() {
    let server = Server::new();
    server.commit("First");
    server.git(&["branch", "production"]);
    let repo = GitRepo::open(Options { branch: "prod".to_owned(), ..server.local() }).unwrap();
    let error = repo.fetch().await.unwrap_err();
    assert!(error.stalls());
    let words = error.to_string();
    assert!(
        words.ends_with("has no branch \"prod\"; it has main, production: push that branch, or set another"),
        "{words}"
    );
}

#[tokio::test]
async fn an_empty_repo_says_that_it_is_empty() {
    let server = Server::new();
    let error = server.repo().fetch().await.unwrap_err();
    assert!(error.to_string().ends_with("it has none: push one first"), "{error}");
}

#[tokio::test]
async fn a_rewritten_history_is_followed_and_said() {
    let server = Server::new();
    server.commit("First");
    let dropped = server.commit("Dropped");
    let repo = server.repo();
    repo.fetch().await.unwrap();
    server.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let kept = server.commit("Kept");
    let fetched = repo.fetch().await.unwrap();
    assert_eq!((fetched.head, fetched.previous, fetched.forced), (kept, Some(dropped), true));
}

#[tokio::test]
async fn a_rewritten_history_is_refused_where_fast_forward_is_required() {
    let server = Server::new();
    server.commit("First");
    let kept = server.commit("Kept");
    let repo = GitRepo::open(Options { require_fast_forward: true, ..server.local() }).unwrap();
    repo.fetch().await.unwrap();
    server.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "Rewritten"]);
    for _ in 0..2 {
        let error = repo.fetch().await.unwrap_err();
        assert!(matches!(error, Error::Forced { .. }) && error.stalls(), "{error}");
        assert_eq!(repo.head(), Some(kept.clone()));
    }
    server.git(&["reset", "-q", "--hard", kept.as_str()]);
    let next = server.commit("Next");
    assert_eq!(repo.fetch().await.unwrap().head, next);
}

#[tokio::test]
async fn pinned_commits_outlive_a_rewritten_history_and_a_repack() {
    let server = Server::new();
    server.commit("First");
    server.write("a.txt", "kept");
    let pinned = server.commit("Pinned");
    let repo = server.repo();
    repo.fetch().await.unwrap();
    repo.pin("shop..eu", &pinned).unwrap();
    server.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "Gone soon"]);
    let gone = repo.fetch().await.unwrap().head;
    server.git(&["commit", "-q", "--amend", "--allow-empty", "-m", "Rewritten"]);
    let head = repo.fetch().await.unwrap().head;

    fetch::repack(&Repository::open_bare(server.clone_path()).unwrap(), 1).unwrap();
    assert_eq!(repo.pins().unwrap(), BTreeMap::from([("shop..eu".to_owned(), pinned.clone())]));
    assert_eq!(repo.tree(&pinned).unwrap().read("a.txt").unwrap().unwrap(), b"kept");
    assert!(repo.tree(&head).is_ok());
    assert!(matches!(repo.tree(&gone), Err(Error::NoSuchRevision { .. })));
    let packs = fs::read_dir(server.clone_path().join("objects/pack")).unwrap();
    let packs = packs.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|e| e == "pack"));
    assert_eq!(packs.count(), 1);

    repo.unpin("shop..eu").unwrap();
    repo.unpin("shop..eu").unwrap();
    assert!(repo.pins().unwrap().is_empty());
    server.commit("After the repack");
    assert_eq!(summaries(&repo.fetch().await.unwrap()), ["After the repack"]);
}

#[tokio::test]
async fn a_damaged_clone_is_set_aside_and_made_anew() {
    type Damage = fn(PathBuf);
    let damages: [Damage; 4] = [
        // Never finished.
        |clone| fs::remove_file(clone.join("HEAD")).unwrap(),
        // Objects lost.
        |clone| fs::remove_dir_all(clone.join("objects/pack")).unwrap(),
        // Objects overwritten.
        |clone| {
            for entry in fs::read_dir(clone.join("objects/pack")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|e| e == "pack") {
                    let length = fs::metadata(&path).unwrap().len();
                    fs::remove_file(&path).unwrap();
                    fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap();
                }
            }
        },
        // Something else entirely.
        |clone| {
            fs::remove_dir_all(&clone).unwrap();
            fs::write(clone, "a file").unwrap();
        },
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        let server = Server::new();
        server.write("a.txt", "one");
        let head = server.commit("First");
        server.repo().fetch().await.unwrap();
        damage(server.clone_path());
        let repo = server.repo();
        let fetched = repo.fetch().await.unwrap_or_else(|error| panic!("damage {index}: {error}"));
        assert_eq!(fetched.head, head, "damage {index}");
        assert_eq!(repo.tree(&head).unwrap().read("a.txt").unwrap().unwrap(), b"one", "damage {index}");
    }
}

#[tokio::test]
async fn a_lock_that_a_killed_process_left_does_not_stop_us() {
    let server = Server::new();
    server.commit("First");
    server.repo().fetch().await.unwrap();
    fs::write(server.clone_path().join("refs/remotes/origin/main.lock"), "").unwrap();
    let head = server.commit("Second");
    assert_eq!(server.repo().fetch().await.unwrap().head, head);
}

#[tokio::test]
async fn a_damage_that_only_a_reader_meets_is_mended_by_the_next_fetch() {
    let server = Server::new();
    server.write("a.txt", "one");
    let head = server.commit("First");
    let repo = server.repo();
    repo.fetch().await.unwrap();
    // Loose objects let one be removed alone.
    let clone = server.clone_path();
    let blob = server.git(&["rev-parse", "HEAD:a.txt"]);
    let mut pack = fs::read_dir(clone.join("objects/pack")).unwrap().map(|e| e.unwrap().path());
    let pack = pack.find(|p| p.extension().is_some_and(|e| e == "pack")).unwrap();
    let moved = server.dir.path().join("moved.pack");
    fs::rename(&pack, &moved).unwrap();
    fs::remove_file(pack.with_extension("idx")).unwrap();
    let unpack = format!("git --git-dir {} unpack-objects -q < {}", clone.display(), moved.display());
    assert!(Command::new("sh").args(["-c", &unpack]).status().unwrap().success());
    fs::remove_file(clone.join("objects").join(&blob[..2]).join(&blob[2..])).unwrap();

    assert!(!repo.fetch().await.unwrap().changed());
    assert!(matches!(repo.tree(&head).unwrap().read("a.txt"), Err(FileError::Unreadable { .. })));
    assert_eq!(repo.fetch().await.unwrap().head, head);
    assert_eq!(repo.tree(&head).unwrap().read("a.txt").unwrap().unwrap(), b"one");
}

#[tokio::test]
async fn another_url_is_another_clone_and_the_former_goes() {
    let (server, other) = (Server::new(), Server::new());
    let first = server.commit("First");
    let theirs = other.commit("Theirs");
    server.repo().fetch().await.unwrap();
    let former = server.clone_path();
    let repo = GitRepo::open(Options { path: server.cache(), ..other.local() }).unwrap();
    assert_eq!(repo.head(), None);
    let fetched = repo.fetch().await.unwrap();
    assert_eq!((fetched.head, fetched.previous, fetched.forced), (theirs, None, false));
    assert!(!former.exists());
    assert!(repo.commit(&first).is_err());
}

#[tokio::test]
async fn files_are_read_inside_the_tree_alone() {
    let server = Server::new();
    server.write("stacks/web/compose.yml", "services: {}");
    server.write("shared/common.env", "A=1");
    server.write("big.bin", &"x".repeat(5 << 20));
    server.write("key", "\0GITCRYPT\0abc");
    for (link, target) in [
        ("stacks/web/common.env", "../../shared/common.env"),
        ("alias", "stacks/web"),
        ("out", "../../etc/passwd"),
        ("absolute", "/etc/passwd"),
        ("loop", "loop"),
    ] {
        std::os::unix::fs::symlink(target, server.origin().join(link)).unwrap();
    }
    let head = server.commit("First");
    let repo = server.repo();
    repo.fetch().await.unwrap();
    let tree = repo.tree(&head).unwrap();

    let read = |path| tree.read(path).map(|content| content.map(|bytes| String::from_utf8(bytes).unwrap()));
    assert_eq!(read("stacks/web/compose.yml"), Ok(Some("services: {}".to_owned())));
    assert_eq!(read("stacks/web/../../shared/common.env"), Ok(Some("A=1".to_owned())));
    assert_eq!(read("stacks/web/common.env"), Ok(Some("A=1".to_owned())));
    assert_eq!(read("alias/common.env"), Ok(Some("A=1".to_owned())));
    assert_eq!(read("nothing"), Ok(None));
    assert_eq!(read("stacks/web/compose.yml/deeper"), Ok(None));
    for path in ["../x", "/etc/passwd", "out", "absolute"] {
        assert!(matches!(read(path), Err(FileError::Outside { .. })), "{path}");
    }
    assert!(matches!(read("loop"), Err(FileError::NotAFile { .. })));
    assert!(matches!(read("stacks"), Err(FileError::NotAFile { .. })));
    assert!(matches!(read("big.bin"), Err(FileError::TooLarge { .. })));
    assert!(matches!(read("key"), Err(FileError::StandIn { .. })));

    let entry = |name: &str, kind| Entry { name: name.to_owned(), kind };
    let web = vec![entry("common.env", EntryKind::File), entry("compose.yml", EntryKind::File)];
    assert_eq!(tree.list("stacks/web").unwrap(), Some(web.clone()));
    assert_eq!(tree.list("alias").unwrap(), Some(web));
    assert_eq!(tree.list("stacks").unwrap(), Some(vec![entry("web", EntryKind::Folder)]));
    assert_eq!(tree.list("nothing").unwrap(), None);
    let root = tree.list("").unwrap().unwrap();
    assert!(
        root.contains(&entry("alias", EntryKind::Folder)) && root.contains(&entry("out", EntryKind::Other)),
        "{root:?}"
    );
}

/// Serves `root` as a git web server does; asks for `login` if there is one.
async fn serve_http(root: PathBuf, login: Option<&'static str>) -> String {
    let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
        let root = root.clone();
        async move { git_http_backend(&root, login, &method, &uri, &headers, &body) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(handler)).await });
    format!("http://{address}")
}

fn git_http_backend(
    root: &Path,
    login: Option<&str>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Response<Body> {
    use std::io::Write;
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    if let Some(login) = login
        && header("authorization") != format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login))
    {
        let no = Response::builder().status(StatusCode::UNAUTHORIZED).header("WWW-Authenticate", "Basic realm=\"git\"");
        return no.body(Body::empty()).unwrap();
    }
    let mut cgi = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method.as_str())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    cgi.stdin.take().unwrap().write_all(body).unwrap();
    let output = cgi.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut response = Response::builder();
    for line in std::str::from_utf8(&output[..end]).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            _ => response.header(name, value),
        };
    }
    response.body(Body::from(output[end + 4..].to_vec())).unwrap()
}

#[tokio::test]
async fn over_http_a_login_is_offered_once_and_shown_nowhere() {
    let server = Server::new();
    let head = server.commit("First");
    let base = serve_http(server.dir.path().to_owned(), Some("ann:hunter2")).await;
    let with_login = |login: &str| base.replace("http://", &format!("http://{login}"));

    let repo = GitRepo::open(server.options(&format!("{}/origin/.git", with_login("ann:hunter2@")))).unwrap();
    assert_eq!(repo.url(), format!("{base}/origin/.git"));
    assert_eq!(repo.fetch().await.unwrap().head, head);
    let next = server.commit("Second");
    assert_eq!(repo.fetch().await.unwrap().head, next);

    let wrong = GitRepo::open(server.options(&format!("{}/origin/.git", with_login("ann:hunter3@")))).unwrap();
    let error = wrong.fetch().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{base}/origin/.git lets us not in: it refused the credentials; check that they are current and may read the repo"
        )
    );
    let none = GitRepo::open(server.options(&format!("{base}/origin/.git"))).unwrap();
    let error = none.fetch().await.unwrap_err();
    assert!(error.to_string().contains("none is set") && error.stalls(), "{error}");
}

#[tokio::test]
async fn only_the_wanted_branch_is_fetched() {
    let server = Server::new();
    server.commit("First");
    server.git(&["checkout", "-q", "-b", "other"]);
    let other = server.commit("Elsewhere");
    server.git(&["tag", "v1"]);
    // Over file:// libgit2 copies every branch's objects; it is the wire that counts.
    let base = serve_http(server.dir.path().to_owned(), None).await;
    let repo = GitRepo::open(server.options(&format!("{base}/origin/.git"))).unwrap();
    repo.fetch().await.unwrap();
    assert_eq!(repo.commit(&other), Err(Error::NoSuchRevision { revision: other.as_str().to_owned() }));
}

#[tokio::test]
async fn over_http_an_unknown_repo_and_a_sick_server_are_told_apart() {
    let server = Server::new();
    server.commit("First");
    let base = serve_http(server.dir.path().to_owned(), None).await;
    let error = GitRepo::open(server.options(&format!("{base}/nothing.git"))).unwrap().fetch().await.unwrap_err();
    assert!(matches!(error, Error::NoSuchRepo { .. }), "{error}");

    let sick = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/origin/.git", sick.local_addr().unwrap());
    drop(sick);
    let error = GitRepo::open(server.options(&url)).unwrap().fetch().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && !error.stalls(), "{error}");
}

#[tokio::test]
async fn a_server_that_gives_no_sign_is_given_up_and_the_next_attempt_is_free() {
    let server = Server::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/origin/.git", silent.local_addr().unwrap());
    let mut repo = GitRepo::open(server.options(&url)).unwrap();
    repo.patience.silence = Duration::from_millis(300);
    repo.threads = Arc::new(tokio::sync::Semaphore::new(2));
    for _ in 0..2 {
        let error = repo.fetch().await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }) && !error.stalls(), "{error}");
    }
    assert!(matches!(repo.fetch().await, Err(Error::Hung { .. })));
    // The server's end frees the threads.
    drop(silent);
    for _ in 0..100 {
        if repo.threads.available_permits() == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the threads still hang");
}

/// A private sshd; ended with its value.
struct Sshd {
    child: Child,
    port: u16,
    host_key_line: String,
    client_key: String,
}

impl Sshd {
    fn start(dir: &Path) -> Self {
        for (name, passphrase) in [("host", ""), ("client", "sesame")] {
            let keygen = ["-q", "-t", "ed25519", "-N", passphrase, "-C", name, "-f"];
            assert!(Command::new("ssh-keygen").args(keygen).arg(dir.join(name)).status().unwrap().success());
        }
        fs::create_dir_all("/run/sshd").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/client.pub\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n",
            dir.display()
        );
        fs::write(dir.join("sshd_config"), config).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-f"]).arg(dir.join("sshd_config")).stderr(Stdio::null());
        let child = sshd.spawn().unwrap();
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let host_key = read("host.pub").split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let sshd =
            Self { child, port, host_key_line: format!("[127.0.0.1]:{port} {host_key}"), client_key: read("client") };
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return sshd;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("sshd does not listen");
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn over_ssh_the_host_must_be_known_and_the_key_must_fit() {
    let server = Server::new();
    let head = server.commit("First");
    let sshd = Sshd::start(server.dir.path());
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let url = format!("ssh://{}@127.0.0.1:{}{}", user.trim(), sshd.port, server.origin().display());
    let options = |known: &str, key: Option<&str>, passphrase: &str| Options {
        credentials: Credentials {
            ssh_key: key.map(|key| SshKey::Text(Sensitive::new(key.to_owned()))),
            ssh_passphrase: Some(Sensitive::new(passphrase.to_owned())),
            ..Credentials::default()
        },
        known_hosts: KnownHosts { text: Some(known.to_owned()), files: Vec::new() },
        ..server.options(&url)
    };
    let fetch = async |options: Options| GitRepo::open(options).unwrap().fetch().await;

    // As an environment variable gives it: without the last line's end.
    let key = sshd.client_key.trim();
    let fetched = fetch(options(&sshd.host_key_line, Some(key), "sesame")).await.unwrap();
    assert_eq!(fetched.head, head);

    let error = fetch(options("", Some(key), "sesame")).await.unwrap_err();
    let words = error.to_string();
    assert!(matches!(error, Error::HostKey { .. }) && error.stalls(), "{words}");
    assert!(words.contains("SHA256:") && words.ends_with(&sshd.host_key_line), "{words}");

    let changed = format!("[127.0.0.1]:{} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFhX", sshd.port);
    let error = fetch(options(&changed, Some(key), "sesame")).await.unwrap_err();
    assert!(error.to_string().contains("somebody may be in between"), "{error}");

    let wrong_passphrase = fetch(options(&sshd.host_key_line, Some(key), "sisyphus")).await.unwrap_err();
    assert!(matches!(wrong_passphrase, Error::Auth { .. }), "{wrong_passphrase}");

    let none = fetch(options(&sshd.host_key_line, None, "")).await.unwrap_err();
    assert!(none.to_string().contains("it asks for an ssh key, and none is set"), "{none}");

    let keygen = ["-q", "-t", "ed25519", "-N", "", "-f"];
    let stranger = server.dir.path().join("stranger");
    assert!(Command::new("ssh-keygen").args(keygen).arg(&stranger).status().unwrap().success());
    let stranger = fs::read_to_string(stranger).unwrap();
    let error = fetch(options(&sshd.host_key_line, Some(&stranger), "")).await.unwrap_err();
    assert!(error.to_string().contains("refused the credentials for the user"), "{error}");

    let nowhere = Options { url: format!("{url}-nothing"), ..options(&sshd.host_key_line, Some(key), "sesame") };
    let error = fetch(nowhere).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchRepo { .. }), "{error:?}");
}

#[test]
fn the_options_debug_shows_no_secret() {
    let options = Server::new().options("https://ann:hunter2@h/r");
    assert!(!format!("{options:?}").contains("hunter2"));
}
