//! Our agents and our command line.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;
use swarmkeeper::io::swarm::{Options, Swarm};
use swarmkeeper_lab::keeper;

use super::{PUSH, Said, World, seconds};

const IMAGE_OF_SERVICE: &str = "{{.Spec.TaskTemplate.ContainerSpec.Image}}";

impl World {
    /// Runs our CLI beside the first manager whose agent answers.
    pub async fn keeper(&self, args: &[&str]) -> Result<Said> {
        for node in 1..=3 {
            if self.answers(node).await {
                return self.keeper_at(node, args).await;
            }
        }
        bail!("no manager's agent answers")
    }

    pub async fn keeper_at(&self, node: usize, args: &[&str]) -> Result<Said> {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_swarmkeeper"))
            .args(args)
            .env("SWARMKEEPER_AGENT_URL", self.api(node, ""))
            .env("SWARMKEEPER_API_TOKEN", keeper::API_TOKEN)
            .env("SWARMKEEPER_TLS_CA_FILE", self.trust.ca())
            .env("DOCKER_HOST", format!("unix://{}", self.node(node).docker_socket().display()))
            .env("DOCKER_CONFIG", self.lab.layout().docker_config())
            .stdin(Stdio::null())
            .output()
            .await?;
        Ok(said(&output))
    }

    /// Runs a command of ours in our image, from scratch, on the first manager: it has the engine's socket and `options`.
    pub async fn keeper_in_image(&self, options: &[&str], args: &[&str]) -> Result<Said> {
        let image = self.docker(&["service", "inspect", "swarmkeeper_keeper", "--format", IMAGE_OF_SERVICE]).await?;
        let fixed = ["run", "--rm", "--network", "host", "--volume", "/var/run/docker.sock:/var/run/docker.sock"];
        let words = fixed.iter().chain(options).copied().chain([image.trim()]).chain(args.iter().copied());
        let output = self.node(1).docker_command(words).stdin(Stdio::null()).output().await?;
        Ok(said(&output))
    }

    /// Runs a command of ours inside the agent's container on `node`, with the agent's own configuration and secrets.
    pub async fn keeper_inside(&self, node: usize, args: &[&str]) -> Result<Said> {
        let agent = self.agent(node).await?;
        let words = ["exec", &agent, "/swarmkeeper"].into_iter().chain(args.iter().copied());
        let output = self.node(node).docker_command(words).stdin(Stdio::null()).output().await?;
        Ok(said(&output))
    }

    pub async fn keeper_ok(&self, args: &[&str]) -> Result<String> {
        let said = self.keeper(args).await?;
        ensure!(said.code == 0, "swarmkeeper {}: {said:?}", args.join(" "));
        Ok(said.out)
    }

    /// Asked again for a while: of a leader that has just been elected, followers hear half a second later.
    pub async fn sync(&self) -> Result<()> {
        self.eventually("a leader syncs", seconds(5), async || self.keeper_ok(&["sync"]).await.map(drop)).await
    }

    pub(super) async fn status_at(&self, node: usize) -> Result<Value> {
        let said = self.keeper_at(node, &["status", "--output", "json"]).await?;
        ensure!(said.code == 0, "{said:?}");
        serde_json::from_str(&said.out).with_context(|| said.out.clone())
    }

    pub async fn status(&self) -> Result<Value> {
        let said = self.keeper_ok(&["status", "--output", "json"]).await?;
        serde_json::from_str(&said).context(said)
    }

    pub async fn stack(&self, name: &str) -> Result<Value> {
        stack_in(&self.status().await?, name)
    }

    /// The status that `node` shows names a problem with these words.
    pub async fn says_problem_at(&self, node: usize, words: &str, timeout: Duration) -> Result<()> {
        self.eventually(&format!("node {node} says {words:?}"), timeout, async || {
            let said = self.keeper_at(node, &["status"]).await?;
            ensure!(said.out.contains(words) || said.err.contains(words), "{said:?}");
            Ok(())
        })
        .await
    }

    pub async fn reaches(&self, stack: &str, state: &str, timeout: Duration) -> Result<()> {
        self.eventually(&format!("{stack} becomes {state}"), timeout, async || {
            let found = self.stack(stack).await?;
            ensure!(found["state"] == state, "it is {found}");
            Ok(())
        })
        .await
    }

    pub async fn reaches_at(&self, node: usize, stack: &str, state: &str, timeout: Duration) -> Result<()> {
        self.eventually(&format!("{stack} becomes {state} for node {node}"), timeout, async || {
            let found = stack_in(&self.status_at(node).await?, stack)?;
            ensure!(found["state"] == state, "it is {found}");
            Ok(())
        })
        .await
    }

    /// `stack` has converged on the repo's head.
    pub async fn converges(&self, stack: &str, timeout: Duration) -> Result<()> {
        let head = self.repo.head().await?;
        self.eventually(&format!("{stack} converges on {}", &head[..7]), timeout, async || {
            let found = self.stack(stack).await?;
            ensure!(found["state"] == "ok" && found["revision"] == head.trim(), "it is {found}");
            Ok(())
        })
        .await
    }

    /// The leader has fetched `revision`.
    pub async fn has_seen(&self, revision: &str) -> Result<()> {
        self.eventually("the commit is seen", seconds(30), async || {
            let status = self.status().await?;
            ensure!(status["git"]["revision"] == revision, "{}", status["git"]);
            Ok(())
        })
        .await
    }

    /// Nothing rolls any more.
    pub async fn settled(&self) -> Result<()> {
        self.eventually("all rollouts end", seconds(90), async || {
            let status = self.status().await?;
            for stack in status["stacks"].as_array().into_iter().flatten() {
                ensure!(stack["state"] != "rolling" && stack["state"] != "waiting", "{stack}");
            }
            Ok(())
        })
        .await?;
        tokio::time::sleep(seconds(2)).await;
        Ok(())
    }

    pub(super) fn api(&self, node: usize, path: &str) -> String {
        format!("{}://{}:{}{path}", self.trust.scheme(), self.node(node).address(), keeper::PORT)
    }

    pub(super) async fn answers(&self, node: usize) -> bool {
        let asked = self.client.get(self.api(node, "/healthz")).timeout(seconds(2)).send().await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    pub async fn agents_run(&self, timeout: Duration) -> Result<()> {
        self.eventually("every agent is ready", timeout, async || {
            for node in 1..=4 {
                let answer = self.client.get(self.api(node, "/readyz")).timeout(seconds(2)).send().await?;
                let status = answer.status();
                ensure!(status.is_success(), "node {node}: {status} {}", answer.text().await.unwrap_or_default());
            }
            Ok(())
        })
        .await
    }

    /// The name of the container of our agent on `node`.
    pub(super) async fn agent(&self, node: usize) -> Result<String> {
        let names = self.node(node).docker(["ps", "--format", "{{.Names}}", "--filter", "name=swarmkeeper_"]).await?;
        names.lines().next().map(str::to_owned).ok_or_else(|| anyhow!("no agent runs on node {node}"))
    }

    pub(super) async fn agent_log(&self, node: usize) -> Result<String> {
        let agent = self.agent(node).await?;
        let output =
            self.node(node).docker_command(["logs", "--tail", "1000", &agent]).stdin(Stdio::null()).output().await?;
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    /// Has every agent coordinate by the swarm itself, if it does not yet.
    pub async fn coordinate_by_the_swarm(&self) -> Result<()> {
        for service in ["swarmkeeper_keeper", "swarmkeeper_agent"] {
            let spec = self.service_spec(service).await?;
            let setting = "SWARMKEEPER_COORDINATION=swarm";
            if !spec["TaskTemplate"]["ContainerSpec"]["Env"].to_string().contains(setting) {
                self.docker(&["service", "update", "--quiet", "--env-add", setting, service]).await?;
            }
        }
        Ok(())
    }

    /// A client for a manager's engine, not recorded.
    pub async fn swarm(&self, node: usize) -> Result<Swarm> {
        let host = format!("unix://{}", self.node(node).engine_socket().display());
        Ok(Swarm::connect(&Options { host, gate: None }).await?)
    }

    pub async fn leader(&self) -> Result<usize> {
        let status = self.status().await?;
        self.number_of(&status["leader"]["node"])
    }

    pub(super) fn number_of(&self, name: &Value) -> Result<usize> {
        (1..=4).find(|number| *name == self.node(*number).name()).ok_or_else(|| anyhow!("no leader: {name}"))
    }

    pub async fn somebody_leads(&self, timeout: Duration) -> Result<usize> {
        self.eventually("somebody leads", timeout, async || self.leader().await).await
    }

    pub async fn somebody_else_leads(&self, than: usize, timeout: Duration) -> Result<usize> {
        let name = self.node(than).name();
        let others = (1..=3).filter(|number| *number != than).collect();
        let is_another = |leader: &Value| leader["node"].is_string() && leader["node"] != name;
        self.leader_by(&format!("a node other than {than} leads"), others, timeout, is_another).await
    }

    /// The fencing token of the present leader, by its own word; a later leader has a larger one.
    pub async fn term(&self) -> Result<u64> {
        let status = self.status().await?;
        status["leader"]["token"].as_u64().ok_or_else(|| anyhow!("no leader: {}", status["leader"]))
    }

    /// Somebody leads with a larger token than `term`: another node, or the same one with an agent that swarm started anew.
    pub async fn a_new_term_begins(&self, term: u64, timeout: Duration) -> Result<usize> {
        let is_later = |leader: &Value| leader["token"].as_u64().is_some_and(|token| token > term);
        self.leader_by(&format!("somebody leads after term {term}"), (1..=3).collect(), timeout, is_later).await
    }

    /// The leader as soon as one of `asked` shows one that fits.
    async fn leader_by(
        &self,
        what: &str,
        asked: Vec<usize>,
        timeout: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<usize> {
        self.eventually(what, timeout, async || {
            let mut last = anyhow!("nobody answers");
            for node in &asked {
                match self.status_at(*node).await {
                    Ok(status) if fits(&status["leader"]) => return self.number_of(&status["leader"]["node"]),
                    Ok(status) => last = anyhow!("the leader is {}", status["leader"]),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
        .await
    }

    /// Asks the agent to stop, as swarm does; swarm starts another in its place.
    pub async fn stop_agent(&self, node: usize) -> Result<()> {
        let agent = self.agent(node).await?;
        self.node(node).docker(["stop", "--time", "15", &agent]).await.map(drop)
    }

    pub async fn kill_agent(&self, node: usize) -> Result<()> {
        let agent = self.agent(node).await?;
        self.node(node).kill_container(&agent).await
    }

    /// Stops the agent's process where it stands; the handle thaws it.
    pub async fn freeze_agent(&self, node: usize) -> Result<(usize, String)> {
        let agent = self.agent(node).await?;
        self.node(node).pause_container(&agent).await?;
        Ok((node, agent))
    }

    pub async fn thaw_agent(&self, (node, agent): (usize, String)) -> Result<()> {
        self.node(node).resume_container(&agent).await
    }

    pub async fn webhook(&self, kind: &str, body: &[u8], secret: &str) -> Result<u16> {
        self.post_webhook(1, kind, body, secret).await
    }

    pub async fn webhook_at(&self, node: usize, kind: &str, body: &[u8]) -> Result<u16> {
        self.post_webhook(node, kind, body, keeper::WEBHOOK_SECRET).await
    }

    /// Commits a file of one stack, tells nobody but `node`, and waits until the leader knows.
    pub async fn push_and_tell(&self, node: usize, stack: &str, file: &str) -> Result<()> {
        let revision = self.commit_quietly(stack, &[("compose.yml", Some(file))]).await?;
        let status = self.webhook_at(node, "github", PUSH).await?;
        ensure!(status == 202 || status == 200, "answered {status}");
        self.has_seen(&revision).await
    }

    /// Sends a signed push event to the first manager that accepts it, as a load balancer would.
    pub async fn webhook_somewhere(&self) -> Result<()> {
        self.eventually("a manager accepts a webhook", seconds(20), async || {
            let mut last = anyhow!("no manager");
            for node in 1..=3 {
                match self.webhook_at(node, "github", PUSH).await {
                    Ok(200 | 202) => return Ok(()),
                    Ok(status) => last = anyhow!("node {node} answers {status}"),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
        .await
    }

    /// Begins a rolling update of our own agents on the managers, and does not wait for it.
    pub async fn update_keepers(&self) -> Result<()> {
        self.docker(&["service", "update", "--quiet", "--force", "--detach", "swarmkeeper_keeper"]).await.map(drop)
    }

    /// How the last update of our own agents stands, such as `updating` or `completed`.
    pub async fn keepers_update(&self) -> Result<String> {
        let state = self
            .docker(&[
                "service",
                "inspect",
                "swarmkeeper_keeper",
                "--format",
                "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}",
            ])
            .await?;
        Ok(state.trim().to_owned())
    }

    /// What people were told of `stack`, in order.
    pub async fn told(&self, stack: &str) -> Result<Vec<Value>> {
        let requests = self.chat.received_requests().await.ok_or_else(|| anyhow!("requests are not recorded"))?;
        let mut told = Vec::new();
        for request in requests {
            let message: Value = request.body_json()?;
            if message["stack"] == stack {
                told.push(message);
            }
        }
        Ok(told)
    }

    pub(super) async fn post_webhook(&self, node: usize, kind: &str, body: &[u8], secret: &str) -> Result<u16> {
        use hmac::{KeyInit, Mac};
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes())?;
        mac.update(body);
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        let answer = self
            .client
            .post(self.api(node, &format!("/v1/webhooks/{kind}")))
            .header("X-GitHub-Event", "push")
            .header("X-Hub-Signature-256", signature)
            .body(body.to_vec())
            .send()
            .await?;
        Ok(answer.status().as_u16())
    }
}

fn said(output: &std::process::Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn stack_in(status: &Value, name: &str) -> Result<Value> {
    let stacks = status["stacks"].as_array().ok_or_else(|| anyhow!("no stacks in {status}"))?;
    stacks.iter().find(|stack| stack["name"] == name).cloned().ok_or_else(|| anyhow!("no stack {name} in the status"))
}
