//! Swarms that were there before us, with all that months of hands leave behind.

use anyhow::{Result, ensure};

use crate::world::{World, seconds};

/// The services of the stack `attic`, in the file's order.
const SERVICES: [&str; 5] = ["attic_web", "attic_edited", "attic_scaled", "attic_forced", "attic_free"];

/// The stack's file as its people kept it: secrets and configs are renamed by hand at every change.
fn file(world: &World, version: u8, more: &str) -> String {
    let service = |name: &str, tag: &str, rest: &str| {
        format!("  {name}:\n    image: {}\n    deploy: {{endpoint_mode: dnsrr{rest}}}\n", world.image(tag))
    };
    let mut text = String::from("version: \"3.7\"\nservices:\n");
    text += &service("web", "aged", ", replicas: 2");
    text += "    secrets: [{source: pw, target: password}]\n    configs: [motd]\n";
    text += &service("edited", "1.0.0", "");
    text += &service("scaled", "1.0.0", ", replicas: 1");
    text += &service("forced", "1.0.0", "");
    text += &service("free", "1.0.0", "");
    text += more;
    text + &format!(
        "secrets: {{pw: {{name: attic_pw_v{version}, file: pw.txt}}}}\nconfigs: {{motd: {{name: attic_motd_v{version}, file: motd.txt}}}}\n"
    )
}

pub async fn a_swarm_deployed_long_ago_is_adopted_as_it_has_become(world: &World) -> Result<()> {
    let ran = world.push("aged", "of old").await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("compose.yml");
    let deploy = async |text: &str, content: &str| {
        for (name, text) in [("compose.yml", text), ("pw.txt", content), ("motd.txt", content)] {
            std::fs::write(folder.path().join(name), text)?;
        }
        world.docker(&["stack", "deploy", "--with-registry-auth", "-c", &path.to_string_lossy(), "attic"]).await
    };
    let relic = format!("  relic:\n    image: {}\n    deploy: {{endpoint_mode: dnsrr}}\n", world.image("1.0.0"));
    deploy(&file(world, 1, &relic), "first\n").await?;
    let now = file(world, 2, "");
    deploy(&now, "second\n").await?;
    // What hands have done since.
    world.docker(&["service", "update", "-q", "--env-add", "HAND=1", "--label-add", "by=hand", "attic_edited"]).await?;
    world.docker(&["service", "update", "-q", "--force", "attic_forced"]).await?;
    world.docker(&["service", "scale", "attic_scaled=3", "attic_free=2"]).await?;
    let moved = world.push("aged", "moved").await?;
    ensure!(moved != ran, "the tag has moved");
    for service in SERVICES {
        world.task_runs(service, seconds(60)).await?;
    }
    let before = all(world).await?;

    let secret = "second\n";
    let files = [("compose.yml", Some(now.as_str())), ("pw.txt", Some(secret)), ("motd.txt", Some(secret))];
    let mark = world.mark();
    world.commit("attic", &files).await?;
    world.reaches("attic", "adopt", seconds(30)).await?;
    world.keeper_ok(&["adopt", "attic"]).await?;
    world.reaches("attic", "drift", seconds(30)).await?;
    world.sync().await?;
    ensure!(all(world).await? == before, "no task was restarted and no service written");
    world.no_service_writes(mark).await?;
    let status = world.keeper(&["status", "attic"]).await?.out;
    for told in ["attic_scaled: replicas 1→3", "attic_edited", "attic_relic", "attic_pw_v1", "attic_motd_v1"] {
        ensure!(status.contains(told), "{told} is told: {status}");
    }
    for kept in ["attic_free:", "attic_forced:", "attic_web:"] {
        ensure!(!status.contains(kept), "{kept} is as git has it: {status}");
    }

    // A change of one service is a change of that one; a moved tag and a forced restart are none.
    let changed = now.replacen("    secrets:", "    environment: {NEW: \"1\"}\n    secrets:", 1);
    world.commit("attic", &[("compose.yml", Some(&changed))]).await?;
    world.tasks_are_others("attic_web", &before[0].0, seconds(60)).await?;
    world.reaches("attic", "drift", seconds(60)).await?;
    let after = all(world).await?;
    ensure!(after[0] != before[0] && after[1..] == before[1..], "web alone: {before:?} {after:?}");
    ensure!(world.service_image("attic_web").await?.ends_with(&ran), "it keeps the digest it had");
    ensure!(world.running_tasks("attic_relic").await?.len() == 1, "what git does not name is left alone");
    Ok(())
}

/// Each service's tasks and version.
async fn all(world: &World) -> Result<Vec<(Vec<String>, serde_json::Value)>> {
    let mut found = Vec::new();
    for service in SERVICES {
        found.push((world.running_tasks(service).await?, world.service_version(service).await?));
    }
    Ok(found)
}
