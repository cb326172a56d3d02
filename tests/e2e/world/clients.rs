//! Clients of the swarm's services that are none of ours: from Debian's packages, with the files of `consul/` as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use serde_json::Value;

use super::{World, checkout, seconds};

/// How many clients ask at the same time, each one request after the other.
const CLIENTS: usize = 4;

/// Between two requests of a client.
const PAUSE: Duration = Duration::from_millis(10);

/// Where HAProxy listens for the service, as its file says.
const HAPROXY_PORT: u16 = 80;

const PROMETHEUS_PORT: u16 = 9090;

/// What clients got.
#[derive(Debug, Default)]
pub struct Load {
    /// Answers with status 200, by their content.
    pub answers: BTreeMap<String, usize>,
    /// What a user would have complained about.
    pub failures: Vec<String>,
}

impl World {
    /// HAProxy on `node` with `consul/haproxy.cfg`, up when it passes requests on.
    pub async fn haproxy_starts(&self, node: usize) -> Result<()> {
        // The file leaves the process's own settings to its user.
        let global = self.node(node).dir().join("haproxy-global.cfg");
        tokio::fs::write(&global, "global\n    log stdout format raw daemon\n").await?;
        let (global, ours) = (global.display().to_string(), sample("haproxy.cfg"));
        self.node(node).spawn("haproxy", &["haproxy", "-db", "-f", &global, "-f", &ours]).await?;
        self.eventually("HAProxy answers", seconds(20), async || {
            let answer = self.node(node).http_get(HAPROXY_PORT, "/").await?;
            ensure!(answer.status() == 200, "{}", answer.status());
            Ok(())
        })
        .await
        .with_context(|| self.client_log(node, "haproxy"))
    }

    /// What HAProxy said of requests that did not go well.
    pub async fn haproxy_complaints(&self, node: usize) -> String {
        let log = tokio::fs::read_to_string(self.node(node).dir().join("haproxy.log")).await.unwrap_or_default();
        log.lines().filter(|line| !line.contains(" 200 ")).collect::<Vec<_>>().join("\n")
    }

    /// Prometheus on `node` with `consul/prometheus.yml`.
    pub async fn prometheus_starts(&self, node: usize) -> Result<()> {
        let program = swarmkeeper_lab::prometheus()?.display().to_string();
        let file = format!("--config.file={}", sample("prometheus.yml"));
        let data = format!("--storage.tsdb.path={}", self.node(node).dir().join("prometheus").display());
        let listen = format!("--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}");
        self.node(node).spawn("prometheus", &[&program, &file, &data, &listen]).await
    }

    /// Nodes by the label that Prometheus gives them, of the targets that it finds up.
    pub async fn prometheus_finds_up(&self, node: usize, wanted: &BTreeSet<String>, timeout: Duration) -> Result<()> {
        self.eventually("Prometheus finds every agent up", timeout, async || {
            let answer = self.node(node).http_get(PROMETHEUS_PORT, "/api/v1/targets?state=active").await?;
            let answer: Value = serde_json::from_slice(answer.body())?;
            let targets = answer["data"]["activeTargets"].as_array().context("no targets")?;
            let up = targets.iter().filter(|target| target["health"] == "up");
            let up: BTreeSet<String> = up.map(|target| text(&target["labels"]["node"])).collect();
            ensure!(up == *wanted && targets.len() == wanted.len(), "{targets:#?}");
            Ok(())
        })
        .await
        .with_context(|| self.client_log(node, "prometheus"))
    }

    /// The values of a query, by the label `node`.
    pub async fn prometheus_says(&self, node: usize, query: &str) -> Result<BTreeMap<String, String>> {
        let path = format!("/api/v1/query?query={query}");
        let answer = self.node(node).http_get(PROMETHEUS_PORT, &path).await?;
        let answer: Value = serde_json::from_slice(answer.body())?;
        let found = answer["data"]["result"].as_array().with_context(|| format!("{query}: {answer}"))?;
        Ok(found.iter().map(|one| (text(&one["metric"]["node"]), text(&one["value"][1]))).collect())
    }

    /// Ends a client that was started on `node`.
    pub async fn client_ends(&self, node: usize, client: &str) -> Result<()> {
        self.node(node).signal(client, "TERM").await?;
        self.eventually(&format!("{client} ends"), seconds(20), async || {
            ensure!(!self.node(node).is_running(client).await, "it runs");
            Ok(())
        })
        .await
    }

    /// Does `work` while clients ask HAProxy on `node` all the time.
    pub async fn under_load<T>(&self, node: usize, work: impl Future<Output = Result<T>>) -> Result<(T, Load)> {
        let url = format!("http://{}:{HAPROXY_PORT}/", self.node(node).address());
        let done = AtomicBool::new(false);
        let clients = (0..CLIENTS).map(|_| self.ask_until(&done, &url));
        let work = async {
            let outcome = work.await;
            done.store(true, Ordering::Relaxed);
            outcome
        };
        let (outcome, loads) = tokio::join!(work, join_all(clients));
        let mut all = Load::default();
        for load in loads {
            all.failures.extend(load.failures);
            for (content, count) in load.answers {
                *all.answers.entry(content).or_default() += count;
            }
        }
        Ok((outcome?, all))
    }

    async fn ask_until(&self, done: &AtomicBool, url: &str) -> Load {
        let mut load = Load::default();
        while !done.load(Ordering::Relaxed) {
            let asked = async {
                let answer = self.client.get(url).send().await?;
                let status = answer.status();
                Ok::<_, reqwest::Error>((status, answer.text().await?))
            };
            match asked.await {
                Ok((status, content)) if status == 200 => {
                    *load.answers.entry(content.trim().to_owned()).or_default() += 1;
                }
                Ok((status, content)) => load.failures.push(format!("{} {status} {content}", self.now())),
                Err(error) => load.failures.push(format!("{} {error:?}", self.now())),
            }
            tokio::time::sleep(PAUSE).await;
        }
        load
    }

    fn client_log(&self, node: usize, client: &str) -> String {
        let log = std::fs::read_to_string(self.node(node).dir().join(format!("{client}.log"))).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("{client} says: {}", lines[lines.len().saturating_sub(15)..].join("\n"))
    }
}

/// The file of `consul/` of this name.
fn sample(name: &str) -> String {
    let path: PathBuf = checkout().join("consul").join(name);
    path.display().to_string()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
