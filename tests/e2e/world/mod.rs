//! The lab with our image deployed on it, and how a case looks at it: with Docker's CLI, Consul's API, DNS and the recorders, and
//! with our own CLI where a user would.

mod agents;
mod clients;
mod docker;
#[allow(dead_code, reason = "the fault suite uses what the others do not")]
pub mod faults;
#[allow(dead_code, reason = "the benchmarks use what the end-to-end tests do not")]
mod figures;
mod names;
mod record;
#[allow(dead_code, reason = "only the end-to-end tests secure anything")]
mod secured;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use secured::Trust;
use swarmkeeper_lab::layout::HOST;
use swarmkeeper_lab::{Dns, Image, Lab, Node, Options, Repo, keeper};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

/// The registry's private image; its tags are 1.0.0, 1.1.0 and `broken`, which exits with 1.
const IMAGE: &str = "app";

/// A push to the branch that our agents follow, as git hosts tell of it.
pub const PUSH: &[u8] = br#"{"ref":"refs/heads/main"}"#;

/// A manager beside the leader.
pub fn follower_of(leader: usize) -> usize {
    if leader == 1 { 2 } else { 1 }
}

/// A timeout.
pub fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A compose file with one service `web` of two tasks, `more` lines inside it and `rest` below.
///
/// Services answer by DNS round robin: the lab's kernel has no IPVS.
pub fn app(tag: &str, more: &str, rest: &str) -> String {
    format!(
        "services:\n  web:\n    image: 10.77.0.254:5000/{IMAGE}:{tag}\n{more}    deploy:\n      replicas: 2\n      endpoint_mode: dnsrr\n      \
         update_config: {{order: start-first, monitor: 2s, failure_action: rollback}}\n      restart_policy: {{delay: 1s}}\n{rest}"
    )
}

/// What a command of ours said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub struct World {
    lab: Lab,
    repo: Repo,
    client: reqwest::Client,
    trust: Trust,
    /// Where the agents tell people what became of their stacks.
    chat: MockServer,
}

impl World {
    pub async fn up() -> Result<Self> {
        Self::on(Self::lab().await?).await
    }

    async fn lab() -> Result<Lab> {
        // The nodes ask their Consul for names, so that git is found by name from inside an image from scratch.
        Lab::up(Options { dns: Dns::Consul, ..Options::default() }).await
    }

    async fn on(lab: Lab) -> Result<Self> {
        let repo = lab.repo("config").await?;
        let git = serde_json::json!({"Name": "git", "Address": "10.77.0.254", "Port": 2222}).to_string();
        // At every node: while one is cut off, the others still find it.
        for node in 1..=4 {
            lab.node(node).consul_put("/v1/agent/service/register", git.clone()).await?;
        }
        for tag in ["1.0.0", "1.1.0"] {
            lab.registry().push(IMAGE, tag).await?;
        }
        lab.registry().push_image(IMAGE, "broken", &Image::new().failing()).await?;
        repo.commit(&[("README.md", Some("A Config Repo.\n")), ("stacks/.keep", Some(""))], "Begin").await?;
        let chat = MockServer::builder().listener(std::net::TcpListener::bind((HOST, 0))?).start().await;
        chat.register(Mock::given(any()).respond_with(ResponseTemplate::new(200))).await;
        // A long poll interval: what a case sees soon, it sees because it asked for it.
        let more = format!("poll_interval: 1h\nnotify: [\"{}/hook\"]\n", chat.uri());
        let binary = Path::new(env!("CARGO_BIN_EXE_swarmkeeper"));
        keeper::deploy(&lab, binary, &checkout(), &git_url(&repo), &more).await?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let trust = Trust::new(lab.layout().dir()).await?;
        let world = Self { client: trust.client()?.build()?, lab, repo, trust, chat };
        world.agents_run(seconds(90)).await?;
        world.somebody_leads(seconds(60)).await?;
        // The tests pull the private image by hand on the node where they run containers.
        world.node(4).docker(["pull", "-q", &world.image("1.0.0")]).await?;
        Ok(world)
    }

    pub async fn down(self, keep: bool) {
        if keep {
            println!("LAB_KEEP: the lab stands until this program is interrupted");
            let _ = tokio::signal::ctrl_c().await;
        }
        if let Err(error) = self.lab.down().await {
            println!("the lab did not go down: {error:#}");
        }
    }

    /// What to look at after a failure.
    pub async fn evidence(&self) -> String {
        let mut text = String::new();
        for node in 1..=4 {
            let logs = self.agent_log(node).await.unwrap_or_else(|error| format!("{error:#}"));
            let lines: Vec<&str> = logs.lines().collect();
            text += &format!("--- node {node}\n{}\n", lines[lines.len().saturating_sub(25)..].join("\n"));
        }
        if let Ok(status) = self.keeper(&["status"]).await {
            text += &format!("--- status\n{}{}\n", status.out, status.err);
        }
        text
    }

    pub fn image(&self, tag: &str) -> String {
        self.lab.registry().reference(IMAGE, tag)
    }

    /// Pushes our image under a tag; another content has another digest, which it gives.
    pub async fn push(&self, tag: &str, content: &str) -> Result<String> {
        self.lab.registry().push_image(IMAGE, tag, &Image::new().content(content)).await
    }

    /// Removes what a tag names from the registry.
    pub async fn delete_image(&self, tag: &str) -> Result<()> {
        self.lab.registry().delete(IMAGE, tag).await
    }

    pub fn node_name(&self, number: usize) -> String {
        self.node(number).name().to_owned()
    }

    pub(super) fn node(&self, number: usize) -> &Node {
        self.lab.node(number)
    }

    /// Asks `look` until it is content.
    pub async fn eventually<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut look: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            match look().await {
                Ok(found) => return Ok(found),
                Err(error) if began.elapsed() > timeout => {
                    return Err(error.context(format!("{what}: not within {timeout:?}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    // --- git

    /// Commits files of one stack, wakes the leader, and gives the commit's id.
    pub async fn commit(&self, stack: &str, files: &[(&str, Option<&str>)]) -> Result<String> {
        let revision = self.commit_quietly(stack, files).await?;
        self.sync().await?;
        Ok(revision)
    }

    /// The same for a part of the swarm that cannot reach every node.
    pub async fn commit_for(&self, node: usize, stack: &str, files: &[(&str, Option<&str>)]) -> Result<String> {
        let revision = self.commit_quietly(stack, files).await?;
        let said = self.keeper_at(node, &["sync"]).await?;
        ensure!(said.code == 0, "sync at node {node}: {said:?}");
        Ok(revision)
    }

    /// Commits and tells nobody.
    pub async fn commit_quietly(&self, stack: &str, files: &[(&str, Option<&str>)]) -> Result<String> {
        let paths: Vec<String> = files.iter().map(|(name, _)| format!("stacks/{stack}/{name}")).collect();
        let files: Vec<(&str, Option<&str>)> =
            paths.iter().zip(files).map(|(path, (_, content))| (path.as_str(), *content)).collect();
        self.repo.commit(&files, &format!("Change {stack}")).await
    }

    pub async fn commit_all(&self, files: &[(&str, Option<&str>)]) -> Result<String> {
        let revision = self.repo.commit(files, "Change some").await?;
        self.sync().await?;
        Ok(revision)
    }

    pub async fn commit_at_root(&self, files: &[(&str, Option<&str>)]) -> Result<String> {
        self.commit_all(files).await
    }

    /// The repo's address for anybody.
    pub fn repo_over_http(&self) -> String {
        self.repo.http()
    }

    /// The `https://` address of the repo, and the CA of its server.
    pub fn repo_over_https(&self) -> (String, PathBuf) {
        (self.repo.https(), self.lab.git().ca())
    }

    pub async fn file(&self, path: &str) -> Result<String> {
        Ok(tokio::fs::read_to_string(self.repo.work().join(path)).await?)
    }
}

/// The repo's address with the git server's name instead of its address.
fn git_url(repo: &Repo) -> String {
    repo.ssh().replace("10.77.0.254", "git.service.consul")
}

/// Where this crate's sources are: the stack file is read from there.
fn checkout() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
