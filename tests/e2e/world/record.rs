//! What the recorders saw.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use swarmkeeper_lab::{Mark, Recorded, Target};

use super::World;

impl World {
    pub fn mark(&self) -> Mark {
        self.lab.record().mark().expect("the record can be read")
    }

    /// Neither an engine nor Consul was written to.
    pub async fn no_writes(&self, mark: Mark) -> Result<()> {
        none("writes", self.lab.record().writes(mark)?)
    }

    pub async fn no_engine_writes(&self, mark: Mark) -> Result<()> {
        none("writes to an engine", self.lab.record().engine_writes(mark)?)
    }

    pub async fn no_service_writes(&self, mark: Mark) -> Result<()> {
        let writes = self.lab.record().engine_writes(mark)?;
        none("writes to services", writes.into_iter().filter(is_service_write).collect())
    }

    pub async fn no_registrations(&self, mark: Mark) -> Result<()> {
        let writes = self.lab.record().writes(mark)?;
        none(
            "registrations",
            writes.into_iter().filter(|write| write.target == Target::Consul && write.is_write()).collect(),
        )
    }

    pub async fn first_service_write(&self, mark: Mark, timeout: Duration) -> Result<String> {
        self.eventually("a service is written", timeout, async || {
            let writes = self.lab.record().engine_writes(mark)?;
            let first = writes.into_iter().find(is_service_write).ok_or_else(|| anyhow!("no write yet"))?;
            Ok(format!("{} {} at {}", first.method, first.path, first.time))
        })
        .await
    }

    /// No write with an older token came after one with a newer token.
    pub async fn one_writer_at_a_time(&self, mark: Mark) -> Result<()> {
        let mut newest = 0;
        for write in self.lab.record().engine_writes(mark)? {
            let agent = write.user_agent.clone().unwrap_or_default();
            let Some(token) =
                agent.split("token=").nth(1).and_then(|rest| rest.trim_end_matches(')').parse::<u64>().ok())
            else {
                continue;
            };
            ensure!(token >= newest, "a write of token {token} came after one of {newest}: {write:?}");
            newest = token;
        }
        ensure!(newest > 0, "the leaders' writes carry their token");
        Ok(())
    }
}

fn none(what: &str, found: Vec<Recorded>) -> Result<()> {
    let lines: Vec<String> =
        found.iter().map(|write| format!("{} {} {} {:?}", write.node, write.method, write.path, write.body)).collect();
    ensure!(lines.is_empty(), "{} {what} where none should be:\n{}", lines.len(), lines.join("\n"));
    Ok(())
}

pub(super) fn is_service_write(write: &Recorded) -> bool {
    write.is_swarm_write() && write.route().starts_with("/services/")
}
