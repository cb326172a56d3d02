//! What runs, as Docker's CLI sees it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;

use super::World;

impl World {
    /// Runs Docker's CLI on the first manager whose engine answers, not recorded.
    pub async fn docker(&self, args: &[&str]) -> Result<String> {
        let mut last = anyhow!("no manager");
        for node in 1..=3 {
            match self.node(node).docker(["node", "ls", "-q"]).await {
                Ok(_) => return self.node(node).docker(args).await,
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub async fn docker_on(&self, node: usize, args: &[&str]) -> Result<String> {
        self.node(node).docker(args).await
    }

    pub(super) async fn inspect(&self, service: &str) -> Result<Value> {
        let text = self.docker(&["service", "inspect", service]).await?;
        let mut found: Vec<Value> = serde_json::from_str(&text)?;
        found.pop().ok_or_else(|| anyhow!("no service {service}"))
    }

    pub async fn service_spec(&self, service: &str) -> Result<Value> {
        Ok(self.inspect(service).await?["Spec"].clone())
    }

    pub async fn service_version(&self, service: &str) -> Result<Value> {
        Ok(self.inspect(service).await?["Version"]["Index"].clone())
    }

    pub async fn service_image(&self, service: &str) -> Result<String> {
        let spec = self.service_spec(service).await?;
        Ok(spec["TaskTemplate"]["ContainerSpec"]["Image"].as_str().unwrap_or_default().to_owned())
    }

    pub async fn image_becomes(&self, service: &str, part: &str, timeout: Duration) -> Result<()> {
        self.eventually(&format!("{service} runs {part}"), timeout, async || {
            let image = self.service_image(service).await?;
            ensure!(image.contains(part), "it runs {image}");
            Ok(())
        })
        .await
    }

    pub async fn created_at(&self, service: &str) -> Result<String> {
        Ok(self.inspect(service).await?["CreatedAt"].as_str().unwrap_or_default().to_owned())
    }

    pub async fn service_exists(&self, service: &str, timeout: Duration) -> Result<()> {
        self.eventually(&format!("{service} is made"), timeout, async || self.inspect(service).await.map(drop)).await
    }

    /// IDs of the tasks of `service` that run, in order.
    pub async fn running_tasks(&self, service: &str) -> Result<Vec<String>> {
        let text = self
            .docker(&[
                "service",
                "ps",
                service,
                "--no-trunc",
                "-f",
                "desired-state=running",
                "--format",
                "{{.ID}} {{.CurrentState}}",
            ])
            .await?;
        let mut tasks: Vec<String> = text
            .lines()
            .filter(|line| line.contains(" Running"))
            .filter_map(|line| line.split(' ').next())
            .map(str::to_owned)
            .collect();
        tasks.sort();
        Ok(tasks)
    }

    pub async fn task_runs(&self, service: &str, timeout: Duration) -> Result<()> {
        let wanted = self.service_spec(service).await?["Mode"]["Replicated"]["Replicas"].as_u64().unwrap_or(1);
        self.eventually(&format!("{wanted} tasks of {service} run"), timeout, async || {
            let tasks = self.running_tasks(service).await?;
            ensure!(tasks.len() as u64 == wanted, "{tasks:?}");
            Ok(())
        })
        .await
    }

    /// As many tasks run as before, and none of them is one of `before`.
    pub async fn tasks_are_others(&self, service: &str, before: &[String], timeout: Duration) -> Result<()> {
        self.eventually(&format!("the tasks of {service} are others"), timeout, async || {
            let tasks = self.running_tasks(service).await?;
            ensure!(tasks.len() == before.len() && tasks.iter().all(|task| !before.contains(task)), "{tasks:?}");
            Ok(())
        })
        .await
    }

    /// All running tasks of all services but our own, which may restart.
    pub async fn all_running_tasks(&self) -> Result<BTreeSet<String>> {
        let services = self.docker(&["service", "ls", "--format", "{{.Name}}"]).await?;
        let mut tasks = BTreeSet::new();
        for service in services.lines().filter(|name| !name.starts_with("swarmkeeper_")) {
            tasks.extend(self.running_tasks(service).await?);
        }
        Ok(tasks)
    }

    /// When the first task of `service` came to run.
    pub async fn first_running(&self, service: &str) -> Result<String> {
        let tasks = self.running_tasks(service).await?;
        let mut times = Vec::new();
        for task in tasks {
            times.push(
                self.docker(&["inspect", "--format", "{{.Status.Timestamp}}", &task])
                    .await?
                    .trim()
                    .replacen(' ', "T", 1),
            );
        }
        times.into_iter().min().ok_or_else(|| anyhow!("no task of {service} runs"))
    }

    /// When the one task of a job came to its end.
    pub async fn completed_at(&self, service: &str) -> Result<String> {
        let tasks = self.docker(&["service", "ps", service, "--no-trunc", "-q"]).await?;
        let task = tasks.lines().next().ok_or_else(|| anyhow!("{service} has no task"))?;
        let format = "{{.Status.State}} {{.Status.Timestamp.Format \"2006-01-02T15:04:05.999999999Z07:00\"}}";
        let told = self.docker(&["inspect", "--type", "task", "--format", format, task]).await?;
        let (state, at) = told.trim().split_once(' ').ok_or_else(|| anyhow!("{told:?}"))?;
        ensure!(state == "complete", "{service}: {told}");
        Ok(at.to_owned())
    }

    /// The number of the node that runs the one task of `service`.
    pub async fn node_of(&self, service: &str) -> Result<usize> {
        let name =
            self.docker(&["service", "ps", service, "-f", "desired-state=running", "--format", "{{.Node}}"]).await?;
        (1..=4)
            .find(|number| self.node(*number).name() == name.trim())
            .ok_or_else(|| anyhow!("{service} runs on {name:?}"))
    }

    pub async fn gone(&self, service: &str, timeout: Duration) -> Result<()> {
        self.eventually(&format!("{service} is removed"), timeout, async || {
            let names = self.docker(&["service", "ls", "--format", "{{.Name}}"]).await?;
            ensure!(!names.lines().any(|name| name == service), "it is still there");
            Ok(())
        })
        .await
    }

    pub async fn network_gone(&self, network: &str, timeout: Duration) -> Result<()> {
        self.eventually(&format!("network {network} is removed"), timeout, async || {
            let names = self.docker(&["network", "ls", "--format", "{{.Name}}"]).await?;
            ensure!(!names.lines().any(|name| name == network), "it is still there");
            Ok(())
        })
        .await
    }

    pub async fn config_content(&self, config: &str) -> Result<String> {
        let text = self.docker(&["config", "inspect", "--format", "{{printf \"%s\" .Spec.Data}}", config]).await?;
        Ok(format!("{}\n", text.trim_end()))
    }

    pub async fn nodes_ready(&self, timeout: Duration) -> Result<()> {
        self.eventually("four nodes are ready", timeout, async || {
            let states = self.docker(&["node", "ls", "--format", "{{.Status}}"]).await?;
            ensure!(states.lines().filter(|state| *state == "Ready").count() == 4, "{states}");
            Ok(())
        })
        .await
    }
}
