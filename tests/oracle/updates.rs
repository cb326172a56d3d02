//! The second deployment: what is there already is updated as the CLI updates it, but for what we do better.
//!
//! Three things are checked of every case, and of the generated stacks:
//!
//! * a second deployment of the same file writes nothing. The CLI writes every service, secret and config again; that this
//!   changes nothing is proved on what it sends;
//! * when somebody has edited every service by hand, both bring it back with the same bodies and versions;
//! * the hand-written updates of `tests/oracle/updates/` differ in exactly what they say is better.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::case::Case;
use crate::engine::{self, Deployed, NO_REGISTRY};
use crate::ours;
use crate::swarm::{Swarm, strip};

/// A label that nobody's file has.
const HAND: &str = "edited-by-hand";

/// How ours differs from the CLI's, beyond what the case says, and what of that is not true.
pub async fn as_the_case_says(case: Case) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let files = case.write(folder.path());
    let before = case.before(folder.path()).map_or_else(|| files.clone(), |before| vec![before]);
    let first = engine::docker_deploys(&before, &NO_REGISTRY, Swarm::default()).await;
    if !first.output.status.success() {
        return case.named(vec![format!("the CLI refuses what was before: {}", words(&first))]);
    }
    let objects = match ours::load(&files, folder.path()) {
        Ok(objects) => objects,
        Err(mistakes) => return case.named(vec![format!("we refuse it: {mistakes}")]),
    };
    let swarm = first.swarm.with_external(&ours::external(&objects));
    let swarm = swarm.with_services(&case.json("live.json")).with_registry(case.json("registry.json"));
    let flags: Vec<&str> = case.flags.iter().map(String::as_str).collect();
    let (ours, theirs) = tokio::join!(
        engine::we_deploy(&files, &flags, swarm.clone()),
        engine::docker_deploys(&files, &flags, swarm.clone()),
    );
    if let Some(reason) = &case.refused {
        return case.named(refused(&ours, &theirs, reason));
    }
    if !theirs.output.status.success() {
        return case.named(vec![format!("the CLI refuses it: {}", words(&theirs))]);
    }
    let found = ours::differences(&ours, &theirs);
    let unsaid = found.iter().filter(|line| !case.better.contains(line)).cloned();
    let untrue = case.better.iter().filter(|line| !found.contains(line)).map(|line| format!("not so: {line}"));
    let mut complaints: Vec<String> = unsaid.chain(untrue).collect();
    complaints.extend(written_again(&files, &flags, ours).await);
    case.named(complaints)
}

/// What is wrong with deploying once more what the CLI has deployed to `swarm`: as it is, and after hand edits.
pub async fn of_what_was_deployed(files: &[PathBuf], swarm: Swarm) -> Vec<String> {
    let edited = swarm.clone().with_services(&hand_edits(&swarm));
    let (ours, theirs, ours_edited, theirs_edited) = tokio::join!(
        engine::we_deploy(files, &NO_REGISTRY, swarm.clone()),
        engine::docker_deploys(files, &NO_REGISTRY, swarm.clone()),
        engine::we_deploy(files, &NO_REGISTRY, edited.clone()),
        engine::docker_deploys(files, &NO_REGISTRY, edited),
    );
    let mut complaints = Vec::new();
    if !ours.output.status.success() || !ours.writes.is_empty() {
        complaints.push(format!("deployed twice, we write {:?}: {}", ours.writes, words(&ours)));
    }
    complaints.extend(theirs.writes.iter().filter_map(|(key, body)| not_the_same(key, body, &swarm)));
    // Secrets and configs were not edited, and so are the CLI's affair.
    let found = ours::differences(&ours_edited, &theirs_edited);
    complaints.extend(found.into_iter().filter(|line| !line.ends_with(" update: only the CLI's")));
    let missed = swarm.services().filter(|name| !ours_edited.writes.contains_key(&format!("services {name} update")));
    complaints.extend(missed.map(|name| format!("the hand edit of {name} stays")));
    complaints
}

/// A label, a variable and a forced restart for each service: the first two go again, the third stays.
fn hand_edits(swarm: &Swarm) -> Map<String, Value> {
    let edit = |name: &String| {
        let template = json!({"ForceUpdate": 3, "ContainerSpec": {"Env": ["EDITED=by-hand"]}});
        (name.clone(), json!({"Labels": {HAND: "yes"}, "TaskTemplate": template}))
    };
    swarm.services().map(edit).collect()
}

/// What the CLI writes of an unchanged service says what is there already.
fn not_the_same(key: &str, body: &Value, swarm: &Swarm) -> Option<String> {
    let service = key.strip_prefix("services ")?.strip_suffix(" update")?;
    let (mut sent, mut live) = (body.clone(), swarm.spec(service).clone());
    sent.as_object_mut().unwrap().remove("?");
    // What swarm puts in.
    live["TaskTemplate"].as_object_mut().unwrap().remove("Runtime");
    for spec in [&mut sent, &mut live] {
        let container = &mut spec["TaskTemplate"]["ContainerSpec"];
        if container["Isolation"] == "default" {
            container["Isolation"] = Value::Null;
        }
        for config in ["UpdateConfig", "RollbackConfig"] {
            if spec[config]["FailureAction"] == "pause" {
                spec[config]["FailureAction"] = Value::Null;
            }
        }
        spec["EndpointSpec"]["Ports"] = Value::Null;
        *spec = crate::swarm::normal("services", spec.take());
        strip(spec);
    }
    (sent != live).then(|| format!("{key}: we leave it alone, yet the CLI changes it: {sent}, {live}"))
}

/// After our deployment, a second one writes nothing.
async fn written_again(files: &[PathBuf], flags: &[&str], ours: Deployed) -> Option<String> {
    let again = engine::we_deploy(files, flags, ours.swarm).await;
    (!again.writes.is_empty()).then(|| format!("deployed twice, we write {:?}", again.writes))
}

/// Both fail; we before anything is written, and for this reason.
fn refused(ours: &Deployed, theirs: &Deployed, reason: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    if theirs.output.status.success() {
        complaints.push("the CLI takes it".to_owned());
    }
    if ours.output.status.success() || !words(ours).contains(reason) {
        complaints.push(format!("we do not say {reason:?}: {}", words(ours)));
    }
    if !ours.writes.is_empty() {
        complaints.push(format!("we write before we refuse: {:?}", ours.writes));
    }
    complaints
}

fn words(deployed: &Deployed) -> String {
    let [result, words] = [&deployed.output.stdout, &deployed.output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{result}{words}")
}
