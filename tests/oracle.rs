//! The oracle: what `docker stack deploy` sends for a file is what we make of it.
//!
//! Each case (`tests/oracle/case.rs` says how they are written) is deployed by Docker's CLI and by `swarmkeeper deploy` to an
//! engine that is none, which records what it is told to create. The two must be equal to the last field, and in their order. So
//! must the verdicts on files that are wrong, and ours say where. No key of the CLI's schema may be without a case, and none
//! without effect goes unnamed.
//!
//! Updates (`tests/oracle/updates.rs`) are compared in the same way, on a swarm where the stack has been deployed before: bodies and
//! queries of every write, the order of their kinds, logins sent along. Where we differ on purpose, the case says so.
//! Reads are free: we ask for whole lists, the CLI for one object after the other.
//!
//! Needs Docker's CLI, 28 or newer: the machine's own, the one that `lab install` fetches, or what the variable `DOCKER` names.

// A test's helpers fail as the test does: loudly. Clippy exempts only the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "oracle/case.rs"]
mod case;
#[path = "oracle/coverage.rs"]
mod coverage;
#[path = "oracle/effects.rs"]
mod effects;
#[path = "oracle/engine.rs"]
mod engine;
#[path = "oracle/generated.rs"]
mod generated;
#[path = "oracle/ours.rs"]
mod ours;
#[path = "oracle/schema.rs"]
mod schema;
#[path = "oracle/swarm.rs"]
mod swarm;
#[path = "oracle/updates.rs"]
mod updates;

use case::Case;
use coverage::Coverage;
use engine::NO_REGISTRY;
use futures_util::StreamExt as _;
use swarm::Swarm;
use swarmkeeper::compose::Mode;

/// What both sides see of the environment.
const ENVIRONMENT: [(&str, &str); 5] =
    [("HOST", "node-1"), ("N", "3"), ("EMPTY", ""), ("HOME", "/home/somebody"), ("_x1", "underscored")];

/// The CLI spends its time starting up.
const CLI_AT_ONCE: usize = 4;

const CASES_MIN: usize = 150;
const UPDATES_MIN: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn we_send_what_docker_stack_deploy_sends() {
    let cases = case::all("same");
    let mut coverage = Coverage::new();
    for case in &cases {
        coverage.add(case.texts());
    }
    let differences = in_parallel(cases.clone(), same).await;
    println!("{} cases use these keys of the schema:\n{coverage}", cases.len());
    assert!(differences.is_empty(), "ours, and the CLI's:\n{}", differences.join("\n"));
    assert!(cases.len() >= CASES_MIN);
    assert!(coverage.missing().is_empty(), "no case uses {:?}", coverage.missing());
}

#[tokio::test(flavor = "multi_thread")]
async fn we_refuse_what_docker_stack_deploy_refuses() {
    let complaints = in_parallel(case::all("refused"), |case| refused(case, true)).await;
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn we_refuse_what_the_cli_would_send_in_vain() {
    let complaints = in_parallel(case::all("stricter"), |case| refused(case, false)).await;
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn we_update_what_docker_stack_deploy_updates() {
    let cases = case::all("updates");
    assert!(cases.len() >= UPDATES_MIN);
    let differences = in_parallel(cases, updates::as_the_case_says).await;
    assert!(differences.is_empty(), "ours, and the CLI's:\n{}", differences.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deployed_is_not_written_again_and_hand_edits_are_undone_alike() {
    let differences = in_parallel(case::all("same"), redeployed).await;
    assert!(differences.is_empty(), "ours, and the CLI's:\n{}", differences.join("\n"));
}

#[test]
fn our_keys_are_those_of_the_clis_schemas() {
    let (ours, theirs) = (schema::of_ours(), schema::of_the_cli());
    for (minor, theirs) in theirs {
        assert_eq!(ours[&minor], theirs, "3.{minor}");
    }
}

#[test]
fn every_key_without_effect_is_named() {
    for mode in [Mode::Strict, Mode::Lenient] {
        let silent: Vec<_> = case::all("same").iter().flat_map(|case| effects::silent_keys(case, mode)).collect();
        assert!(silent.is_empty(), "{mode:?}: nothing is said of\n{}", silent.join("\n"));
    }
}

#[test]
fn generated_stacks_come_out_alike() {
    generated::compare();
}

/// How what we send differs from what the CLI sends.
async fn same(case: Case) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let files = case.write(folder.path());
    let theirs = engine::docker_deploys(&files, &NO_REGISTRY, Swarm::default()).await;
    if !theirs.output.status.success() {
        return vec![format!("{}: the CLI refuses it: {}", case.name, String::from_utf8_lossy(&theirs.output.stderr))];
    }
    match ours::load(&files, folder.path()) {
        Ok(objects) => {
            let swarm = Swarm::default().with_external(&ours::external(&objects));
            let ours = engine::we_deploy(&files, &NO_REGISTRY, swarm).await;
            case.named(ours::differences(&ours, &theirs))
        }
        Err(mistakes) => vec![format!("{}: we refuse it: {mistakes}", case.name)],
    }
}

/// What is wrong with the second deploy of a case, and with one after hand edits.
async fn redeployed(case: Case) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let files = case.write(folder.path());
    let Ok(objects) = ours::load(&files, folder.path()) else { return vec![format!("{}: we refuse it", case.name)] };
    let swarm = engine::docker_deploys(&files, &NO_REGISTRY, Swarm::default()).await.swarm;
    case.named(updates::of_what_was_deployed(&files, swarm.with_external(&ours::external(&objects))).await)
}

/// Whether we refuse the case, and say where; and whether the CLI does, or not.
async fn refused(case: Case, by_the_cli: bool) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let files = case.write(folder.path());
    let mut complaints = Vec::new();
    let theirs = engine::docker_deploys(&files, &NO_REGISTRY, Swarm::default()).await.output;
    if theirs.status.success() == by_the_cli {
        let verdict = if by_the_cli { "takes" } else { "refuses" };
        let words = String::from_utf8_lossy(&theirs.stderr);
        complaints.push(format!("{}: the CLI {verdict} it: {words}", case.name));
    }
    let Err(mistakes) = ours::load(&files, folder.path()) else {
        complaints.push(format!("{}: we take it", case.name));
        return complaints;
    };
    let placed = mistakes.0.iter().all(|mistake| mistake.location.as_ref().is_some_and(|at| at.line > 0));
    if !placed {
        complaints.push(format!("{}: no line is named: {mistakes}", case.name));
    }
    let at = case.at.unwrap_or_default();
    if !mistakes.0.iter().any(|mistake| mistake.path == at) {
        complaints.push(format!("{}: not found at {at:?}: {mistakes}", case.name));
    }
    complaints
}

/// `check` of every case, a few at once.
async fn in_parallel<F: Future<Output = Vec<String>>>(cases: Vec<Case>, check: impl Fn(Case) -> F) -> Vec<String> {
    let checks = futures_util::stream::iter(cases.into_iter().map(check));
    let mut lines: Vec<String> = checks.buffer_unordered(CLI_AT_ONCE).collect::<Vec<_>>().await.concat();
    lines.sort();
    lines
}
