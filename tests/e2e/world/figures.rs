//! What the benchmarks measure with.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use swarmkeeper_lab::{Mark, Recorded};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::names::lookup;
use super::record::is_service_write;
use super::{World, seconds};

impl World {
    pub fn recorded_engine(&self, node: usize) -> String {
        format!("unix://{}", self.node(node).docker_socket().display())
    }

    pub fn docker_config(&self) -> PathBuf {
        self.lab.layout().docker_config()
    }

    /// Takes the stack `bench` away and waits until it is gone.
    pub async fn remove_bench(&self) -> Result<()> {
        self.docker(&["stack", "rm", "bench"]).await?;
        self.network_gone("bench_default", seconds(120)).await
    }

    /// Consul's API on `node`, without a recorder in between.
    pub fn consul_unrecorded(&self, node: usize) -> String {
        format!("http://{}", self.node(node).consul_real_address())
    }

    /// Consul's servers can lose one of them again.
    pub async fn consul_is_whole(&self, timeout: Duration) -> Result<()> {
        self.eventually("Consul's servers are whole", timeout, async || {
            let health = self.node(1).consul_get("/v1/operator/autopilot/health").await?;
            ensure!(health["Healthy"] == true && health["FailureTolerance"] == 1, "{health}");
            Ok(())
        })
        .await
    }

    /// So many services whose name begins so are in Consul at `node`.
    pub async fn registered_at_least(&self, node: usize, prefix: &str, number: usize, timeout: Duration) -> Result<()> {
        self.eventually(&format!("{number} services {prefix}* are registered"), timeout, async || {
            let services = self.node(node).consul_get("/v1/agent/services").await?;
            let names =
                services.as_object().into_iter().flatten().filter_map(|(_, service)| service["Service"].as_str());
            let found = names.filter(|name| name.starts_with(prefix)).count();
            ensure!(found >= number, "{found} are");
            Ok(())
        })
        .await
    }

    /// Gives the agents on managers one more variable, one node after the other.
    pub async fn keepers_get(&self, variable: &str) -> Result<()> {
        self.docker(&["service", "update", "--quiet", "--detach", "--env-add", variable, "swarmkeeper_keeper"]).await?;
        self.eventually("the agents on managers are new", seconds(120), async || {
            let state = self.keepers_update().await?;
            ensure!(state == "completed", "their update is {state}");
            Ok(())
        })
        .await?;
        self.agents_run(seconds(60)).await
    }

    /// The recorders' clock: they run on this machine.
    pub fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    /// Seconds from `began` to the first write to a service after `mark`.
    pub async fn until_service_write(&self, mark: Mark, began: OffsetDateTime) -> Result<f64> {
        self.eventually("a service is written", seconds(40), async || {
            let writes = self.lab.record().engine_writes(mark)?;
            let first = writes.into_iter().find(is_service_write).ok_or_else(|| anyhow!("no write yet"))?;
            Ok((recorded_at(&first)? - began).as_seconds_f64())
        })
        .await
    }

    /// Seconds from the release of the leader's lock to its next successful acquisition.
    pub async fn release_to_acquire(&self, mark: Mark) -> Result<f64> {
        let requests = self.lab.record().requests(mark)?;
        let find = |what: &str, fits: &dyn Fn(&Recorded) -> bool| {
            let mut found = requests.iter().filter(|request| fits(request) && request.status == Some(200));
            found.next_back().ok_or_else(|| anyhow!("no {what}")).and_then(|request| {
                // Answered, not asked: a successor's request may have waited for the release.
                Ok(recorded_at(request)? + Duration::from_millis(request.millis))
            })
        };
        let locks = |request: &Recorded| request.body.as_ref().is_some_and(|body| body.contains("\"Verb\":\"lock\""));
        let acquired = find("acquisition", &locks)?;
        Ok((acquired - find("release", &|request| request.path.contains("release="))?).as_seconds_f64())
    }

    /// The node whose Consul leads the servers, and one that follows.
    pub async fn consul_leader_and_follower(&self) -> Result<(usize, usize)> {
        let leader = self.node(1).consul_get("/v1/status/leader").await?;
        let address = leader.as_str().unwrap_or_default();
        let leads = |node: &usize| address.starts_with(&format!("{}:", self.node(*node).address()));
        let leader = (1..=3).find(leads).ok_or_else(|| anyhow!("Consul's leader is {address:?}"))?;
        Ok((leader, leader % 3 + 1))
    }

    /// Starts a container on `node` and asks Consul's DNS on `asked` until it knows it; seconds from the engine's `StartedAt` to
    /// the answer.
    pub async fn start_to_dns(&self, node: usize, asked: usize, id: &str, name: &str) -> Result<f64> {
        // Asked from the beginning: Docker's CLI comes back some time after the container has started.
        let began = Instant::now();
        let known = async {
            while lookup(self.node(asked).dns_address(), name).await?.is_empty() {
                ensure!(began.elapsed() < seconds(5), "{name} is not in DNS");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(OffsetDateTime::now_utc())
        };
        let start = ["start", id];
        let (_, answered) = tokio::try_join!(self.docker_on(node, &start), known)?;
        let started = self.docker_on(node, &["inspect", "--format", "{{.State.StartedAt}}", id]).await?;
        let started = OffsetDateTime::parse(started.trim(), &Rfc3339)?;
        Ok((answered - started).as_seconds_f64())
    }

    /// A file of the agent's process on `node`, such as `stat` or `status` (proc(5)).
    pub async fn agent_proc(&self, node: usize, file: &str) -> Result<String> {
        let agent = self.agent(node).await?;
        let pid = self.node(node).docker(["inspect", "--format", "{{.State.Pid}}", &agent]).await?;
        // The engine counts processes as its own machine does.
        self.node(node).exec(&["cat", &format!("/proc/{}/{file}", pid.trim())]).await
    }
}

fn recorded_at(request: &Recorded) -> Result<OffsetDateTime> {
    Ok(OffsetDateTime::parse(&request.time, &Rfc3339)?)
}
