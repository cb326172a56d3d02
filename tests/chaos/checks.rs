//! What must be true after the storm.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::load::Load;
use super::world::{World, app, seconds};

/// What nobody may touch: a stranger's stack and registration, and a stack of ours that no commit changes.
pub struct Before {
    versions: BTreeMap<&'static str, Value>,
}

const STRANGERS: &str = "stranger_web";
const OURS_AT_REST: &str = "resting_web";
const REGISTRATION: &str = "strangers-own";

/// A node whose Consul holds the stranger's registration. Consul keeps it over restarts.
const REGISTRATION_NODE: usize = 4;

impl Before {
    /// Makes them, and notes how they are.
    pub async fn make(world: &World) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("compose.yml");
        std::fs::write(&file, app("1.0.0", "", ""))?;
        world.docker(&["stack", "deploy", "--with-registry-auth", "-c", &file.to_string_lossy(), "stranger"]).await?;
        world.register_by_hand(REGISTRATION_NODE, REGISTRATION, "10.77.0.200", 9).await?;
        world.commit("resting", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
        world.reaches("resting", "ok", seconds(90)).await?;
        world.task_runs(STRANGERS, seconds(60)).await?;
        let mut versions = BTreeMap::new();
        for name in [STRANGERS, OURS_AT_REST] {
            versions.insert(name, world.service_spec(name).await?);
        }
        Ok(Self { versions })
    }

    /// They are as they were: no task of theirs was restarted by us, since that takes a changed spec.
    pub async fn is_untouched(&self, world: &World) -> Result<()> {
        for (name, before) in &self.versions {
            ensure!(world.service_spec(name).await? == *before, "{name} was changed");
        }
        let found = world.consul_service(REGISTRATION_NODE, REGISTRATION).await?;
        ensure!(found["ServiceAddress"] == "10.77.0.200", "a stranger's registration: {found}");
        Ok(())
    }
}

/// How often a stack is retried whose task an engine refused.
const RETRIES_MAX: usize = 3;

/// What the note of such a stack says.
const REFUSED: &str = "rejected on";

/// Every stack runs its last commit.
pub async fn swarm_is_as_head_says(world: &World, load: &Load) -> Result<()> {
    for (stack, number) in load.last() {
        retry_what_an_engine_refused(world, &stack).await?;
        world.reaches(&stack, "ok", seconds(60)).await?;
        let service = format!("{stack}_web");
        let spec = world.service_spec(&service).await?;
        let found = &spec["TaskTemplate"]["ContainerSpec"]["Env"];
        ensure!(*found == serde_json::json!([format!("COMMIT={number}")]), "{service} has {found}, not {number}");
        world.task_runs(&service, seconds(30)).await?;
    }
    Ok(())
}

/// An engine that was killed may refuse tasks for what it left behind, such as a network's interface. Swarm then rolls the service back,
/// and we hold the revision until a person says otherwise: here this one does, as the status tells it to.
async fn retry_what_an_engine_refused(world: &World, stack: &str) -> Result<()> {
    for _ in 0..RETRIES_MAX {
        let found = world.stack(stack).await?;
        let note = found["note"].as_str().unwrap_or_default();
        if found["state"] != "held" || !note.contains(REFUSED) {
            break;
        }
        println!("{stack} is retried, since an engine refused its task: {note}");
        world.keeper_ok(&["retry", stack]).await?;
        world.settled().await?;
    }
    Ok(())
}

/// What runs is what Consul knows, and its DNS answers.
pub async fn what_runs_is_registered(world: &World) -> Result<()> {
    world.everything_running_is_registered(seconds(30)).await?;
    for name in ["churn0", "churn1", "churn2"] {
        let addresses = world.addresses_of_running(name).await?;
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        world.dns_answers(1, &format!("{name}.service.consul"), &addresses, seconds(30)).await?;
    }
    Ok(())
}
