//! Every rule of conduct, on a model of a swarm.

use std::collections::BTreeSet;

use super::*;
use crate::model::{Drift, OnFailure, Revision};
use crate::stacks::world::{World, shop, stack, with_secret};
use crate::status::Command;

/// A world where this stack has converged.
fn running(desired: &DesiredStack) -> World {
    let mut world = World::new();
    let plan = world.settle(Some(desired));
    assert_eq!(plan.verdict, Verdict::Ok, "{plan}");
    world
}

fn verbs(plan: &Plan) -> Vec<String> {
    let verb = |step: &Step| {
        let (kind, name) = step.object();
        format!("{} {kind} {name}", step.verb()).trim_end().to_owned()
    };
    plan.steps.iter().map(verb).collect()
}

fn events(plan: &Plan) -> Vec<Event> {
    plan.tells.iter().map(|tell| tell.event).collect()
}

fn three(revision: &str, tag: &str) -> DesiredStack {
    stack(revision, &[&format!("api app:{tag} db"), "db app:1", "web app:1 api"])
}

#[test]
fn a_first_deploy_goes_in_the_order_of_dependencies_and_ends_in_an_empty_plan() {
    let (mut world, desired) = (World::new(), three("aaa", "1"));
    let first = world.pass(Some(&desired));
    assert_eq!(verbs(&first), ["create network shop_default", "create service shop_db"]);
    assert_eq!(events(&first), [Event::Started]);
    insta::assert_snapshot!(first, @r"
    plan shop   nothing → aaa0000
    + shop_default  network created
    + shop_db       CREATED
    + shop_api      CREATED — not now: after shop_db
    + shop_web      CREATED — not now: after shop_api
    = 0 unchanged, 3 writes
    ");
    assert_eq!(verbs(&world.pass(Some(&desired))), ["create service shop_api"]);
    assert_eq!(verbs(&world.pass(Some(&desired))), ["create service shop_web"]);
    let last = world.pass(Some(&desired));
    assert_eq!((events(&last), last.verdict, last.settled), (vec![Event::Converged], Verdict::Ok, true));
    let writes = world.writes;
    let plan = world.pass(Some(&desired));
    assert!(plan.is_empty() && plan.tells.is_empty());
    assert_eq!(world.writes, writes);
    insta::assert_snapshot!(plan, @r"
    plan shop   aaa0000
    = 4 unchanged, 0 writes
    ");
}

#[test]
fn a_changed_image_restarts_only_that_service() {
    let mut world = running(&three("aaa", "1"));
    let plan = world.pass(Some(&three("bbb", "2")));
    assert_eq!(verbs(&plan), ["update service shop_api"]);
    insta::assert_snapshot!(plan, @r"
    plan shop   aaa0000 → bbb0000
    ~ shop_api  RESTARTS 1 task, 1 at a time, stop-first
        image  1@6170703a3100 → 2@6170703a3200     (compose.yml:3)
    = 3 unchanged, 2 writes
    ");
    assert_eq!(world.settle(Some(&three("bbb", "2"))).verdict, Verdict::Ok);
}

#[test]
fn a_commit_that_changes_nothing_of_the_stack_writes_nothing() {
    let world = running(&three("aaa", "1"));
    assert!(world.plan(Some(&three("bbb", "1"))).is_empty());
}

#[test]
fn a_label_restarts_nothing() {
    let world = running(&three("aaa", "1"));
    let mut desired = three("bbb", "1");
    let labels = &mut desired.objects.services.get_mut("web").unwrap().spec.labels;
    labels.as_mut().unwrap().insert("traefik.enable".into(), "hunter2".into());
    let plan = world.plan(Some(&desired));
    insta::assert_snapshot!(plan, @r"
    plan shop   aaa0000 → bbb0000
    ~ shop_web  no restart: label traefik.enable
    = 3 unchanged, 2 writes
    ");
    assert!(!serde_json::to_string(&plan).unwrap().contains("hunter2"), "no value of a label in the JSON form");
}

#[test]
fn a_changed_secret_with_a_name_of_its_own_is_an_error_before_any_write() {
    let mut desired = with_secret(three("aaa", "1"), "api", "one");
    let world = running(&desired);
    desired = with_secret(three("bbb", "2"), "api", "two");
    if let Some(crate::model::Wanted::Own { named, .. }) = desired.objects.secrets.get_mut("db") {
        *named = true;
    }
    let plan = world.plan(Some(&desired));
    assert!(plan.is_empty());
    assert_eq!(plan.verdict, Verdict::Error);
    insta::assert_snapshot!(plan.notes[0].text, @r#"secret "shop_db" has other content than the live one, and swarm cannot change a secret: give it another `name:`, or leave `name:` out, and secrets are renamed by content"#);
}

#[test]
fn a_missing_external_network_is_an_error_before_any_write() {
    let mut desired = three("aaa", "1");
    desired.objects.networks.insert("edge".into(), crate::model::Wanted::External("edge".into()));
    let plan = World::new().plan(Some(&desired));
    assert!(plan.is_empty() && plan.verdict == Verdict::Error, "{plan}");
}

#[test]
fn an_image_that_cannot_be_resolved_is_never_deployed_by_its_tag() {
    let mut world = running(&three("aaa", "1"));
    world.images.insert("app:2".into(), Err("registry down".into()));
    let plan = world.plan(Some(&three("bbb", "2")));
    assert!(plan.is_empty() && plan.verdict == Verdict::Error, "{plan}");
    // What has not changed does not need the registry.
    world.images.insert("app:1".into(), Err("registry down".into()));
    assert!(world.plan(Some(&three("aaa", "1"))).is_empty());
    assert!(crate::stacks::images_to_resolve(&three("aaa", "1"), world.observed.stack(&shop())).is_empty());
    let asked = crate::stacks::images_to_resolve(&three("bbb", "2"), world.observed.stack(&shop()));
    assert_eq!(asked, BTreeSet::from(["app:2".to_owned()]));
}

#[test]
fn going_back_in_git_goes_back_to_the_digest_that_ran() {
    let mut world = running(&three("aaa", "1"));
    world.settle(Some(&three("bbb", "2")));
    world.images.insert("app:1".into(), Err("registry down".into()));
    let plan = world.settle(Some(&three("ccc", "1")));
    assert_eq!(plan.verdict, Verdict::Ok, "{plan}");
}

#[test]
fn a_removed_service_goes_last_when_the_others_have_converged() {
    let mut world = running(&three("aaa", "1"));
    let desired = stack("bbb", &["api app:2 db", "db app:1"]);
    let plan = world.pass(Some(&desired));
    assert_eq!(verbs(&plan), ["update service shop_api"]);
    assert_eq!(verbs(&world.pass(Some(&desired))), ["remove service shop_web"]);
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
    assert!(!world.state().owned.services.contains_key("shop_web"));
}

#[test]
fn what_is_not_ours_is_never_removed() {
    let mut world = running(&three("aaa", "1"));
    world.deploy_by_hand_beside("shop_stranger");
    let plan = world.settle(Some(&stack("bbb", &["api app:1", "db app:1"])));
    assert_eq!(plan.verdict, Verdict::Ok);
    assert!(world.observed.services.contains_key("shop_stranger"), "its label says shop, but it is not in our list");
}

#[test]
fn a_stack_that_runs_already_waits_to_be_adopted_and_adopting_writes_no_service() {
    let mut world = World::new();
    world.deploy_by_hand(&with_secret(three("aaa", "1"), "api", "hunter2"));
    let mut desired = with_secret(three("bbb", "2"), "api", "hunter2");
    let plan = world.pass(Some(&desired));
    assert!(plan.is_empty() && plan.verdict == Verdict::Adopt, "{plan}");
    let before = world.observed.services.clone();
    world.command(&Command::Adopt { stack: shop() });
    let plan = world.pass(Some(&desired));
    assert_eq!((verbs(&plan).len(), events(&plan)), (0, vec![Event::Adopted]));
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Drift, "the file says app:2, app:1 lives");
    assert_eq!(world.observed.services, before);
    // Not even correcting drift touches what was so at adoption.
    desired.settings.drift = Drift::Correct;
    world.settle(Some(&desired));
    assert_eq!(world.observed.services, before);
    // The service's next change in git brings it over.
    let mut desired = with_secret(three("ccc", "3"), "api", "hunter2");
    assert_eq!(verbs(&world.pass(Some(&desired))), ["update service shop_api"]);
    desired.revision = None;
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
}

#[test]
fn adoption_finds_the_secret_with_the_right_content_again() {
    let desired = with_secret(three("bbb", "1"), "api", "hunter3");
    let mut world = running(&with_secret(three("aaa", "1"), "api", "hunter2"));
    world.settle(Some(&desired));
    // As after `leave`: nothing is remembered, a plain and a hashed name live, and the hashed one has the content.
    world.observed.states.clear();
    let hashed = world.observed.secrets.keys().next_back().unwrap().clone();
    world.secrets = [("shop_db".to_owned(), false), (hashed, true)].into();
    let before = world.observed.services.clone();
    world.command(&Command::Adopt { stack: shop() });
    let plan = world.settle(Some(&desired));
    assert_eq!(plan.verdict, Verdict::Ok, "{plan}");
    assert_eq!(world.observed.services, before);
}

#[test]
fn adopting_a_secret_with_other_content_waits_for_the_service_to_change() {
    let mut world = World::new();
    world.deploy_by_hand(&with_secret(three("aaa", "1"), "api", "hunter2"));
    world.secrets = [("shop_db".to_owned(), false)].into();
    let before = world.observed.services.clone();
    world.command(&Command::Adopt { stack: shop() });
    let plan = world.settle(Some(&with_secret(three("bbb", "1"), "api", "hunter3")));
    assert_eq!((plan.verdict, &world.observed.services), (Verdict::Drift, &before), "{plan}");
    world.settle(Some(&with_secret(three("ccc", "2"), "api", "hunter3")));
    let secrets = world.observed.services["shop_api"].spec.task_template.container_spec.secrets.as_ref().unwrap();
    assert!(secrets[0].secret_name.starts_with("shop_db_"));
}

#[test]
fn adopt_auto_does_not_wait() {
    let mut world = World::new();
    let mut desired = three("aaa", "1");
    world.deploy_by_hand(&desired);
    desired.settings.adopt = crate::model::Adopt::Auto;
    let before = world.observed.services.clone();
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
    assert_eq!(world.observed.services, before);
}

#[test]
fn drift_is_reported_and_left() {
    let mut world = running(&three("aaa", "1"));
    world.by_hand("shop_api", |spec| spec.mode.replicated.as_mut().unwrap().replicas = Some(5));
    assert!(world.plan(Some(&three("aaa", "1"))).is_empty(), "replicas are nobody's while the file gives none");
    let mut desired = three("aaa", "1");
    world.by_hand("shop_web", |spec| spec.task_template.container_spec.user = Some("root".into()));
    let plan = world.pass(Some(&desired));
    assert!(plan.is_empty());
    assert_eq!(plan.verdict, Verdict::Drift);
    insta::assert_snapshot!(plan.notes[0].text, @"shop_web: user by hand");
    desired.settings.drift = Drift::Correct;
    assert_eq!(verbs(&world.pass(Some(&desired))), ["update service shop_web"]);
}

#[test]
fn a_forced_restart_is_no_drift() {
    let mut world = running(&three("aaa", "1"));
    world.by_hand("shop_api", |spec| spec.task_template.force_update = 7);
    assert!(world.plan(Some(&three("aaa", "1"))).is_empty());
}

#[test]
fn a_service_rolled_back_by_hand_is_held_until_git_changes_or_resume() {
    let mut desired = three("bbb", "2");
    desired.settings.drift = Drift::Correct;
    let mut world = running(&three("aaa", "1"));
    world.settle(Some(&desired));
    world.roll_back("shop_api");
    let plan = world.pass(Some(&desired));
    assert_eq!((plan.steps.len(), plan.verdict, events(&plan)), (0, Verdict::Held, vec![Event::Held]));
    let plan = world.pass(Some(&desired));
    assert!(plan.is_empty() && plan.tells.is_empty() && plan.verdict == Verdict::Held, "told once");
    let mut resumed = world.clone();
    resumed.command(&Command::Resume { stack: shop() });
    assert_eq!(verbs(&resumed.pass(Some(&desired))), ["update service shop_api"]);
    assert_eq!(verbs(&world.pass(Some(&three("ccc", "3")))), ["update service shop_api"]);
}

#[test]
fn a_revision_that_fails_is_rolled_back_told_once_and_not_tried_again() {
    let mut world = running(&three("aaa", "1"));
    world.broken.insert("app:2".into());
    let desired = three("bbb", "2");
    world.pass(Some(&desired));
    let plan = world.pass(Some(&desired));
    assert_eq!(verbs(&plan), ["roll-back service shop_api"]);
    assert_eq!(events(&plan), [Event::RolledBack]);
    assert_eq!(plan.tells[0].message, "rolled back: exit 1 on n17");
    let writes = world.writes;
    let plan = world.settle(Some(&desired));
    assert_eq!((plan.verdict, plan.tells.len(), world.writes), (Verdict::Held, 0, writes));
    insta::assert_snapshot!(plan, @r"
    plan shop   aaa0000 → bbb0000
    ~ shop_api  RESTARTS 1 task, 1 at a time, stop-first — not now: failed: exit 1 on n17
        image  1@6170703a3100 → 2@6170703a3200     (compose.yml:3)
    ! held: bbb0000 failed: shop_api exit 1 on n17
    = 3 unchanged, 0 writes
    ");
    // Another part of the stack may go on; the failed service stays as it is.
    let mut other = desired.clone();
    other.revision = Some(Revision("d".repeat(40)));
    other.objects.services.get_mut("web").unwrap().spec.task_template.container_spec.image = "app:3".into();
    let mut later = world.clone();
    assert_eq!(verbs(&later.pass(Some(&other))), ["update service shop_web"]);
    assert_eq!(later.settle(Some(&other)).verdict, Verdict::Held);
    // And `retry` tries again.
    world.broken.clear();
    world.command(&Command::Retry { stack: shop() });
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
}

#[test]
fn a_rollback_by_swarm_itself_is_a_failure_of_the_revision() {
    let mut world = running(&three("aaa", "1"));
    let desired = three("bbb", "2");
    world.pass(Some(&desired));
    world.roll_back("shop_api");
    let plan = world.pass(Some(&desired));
    assert_eq!((verbs(&plan).len(), events(&plan)), (0, vec![Event::RolledBack]));
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Held);
    // Back in git: nothing to write, and well again.
    assert_eq!(world.settle(Some(&three("ccc", "1"))).verdict, Verdict::Ok);
}

#[test]
fn on_failure_says_what_goes_back() {
    let check = |on_failure: OnFailure, wanted: &[&str]| {
        let mut world = running(&three("aaa", "1"));
        world.policy.brake_restarts_percent_max = 100;
        world.broken.insert("app:2".into());
        let mut desired = stack("bbb", &["api app:2", "db app:3", "web app:1"]);
        desired.settings.on_failure = on_failure;
        world.pass(Some(&desired));
        let plan = world.pass(Some(&desired));
        assert_eq!(verbs(&plan), wanted, "{plan}");
        world.settle(Some(&desired));
        assert_eq!(world.pass(Some(&desired)).verdict, Verdict::Held);
    };
    check(OnFailure::RollbackService, &["roll-back service shop_api"]);
    check(OnFailure::RollbackStack, &["roll-back service shop_api", "roll-back service shop_db"]);
    check(OnFailure::Stop, &[]);
}

#[test]
fn the_brake_waits_for_approval_of_that_revision() {
    let at = |revision: &str, tag: &str| {
        stack(revision, &[&format!("a app:{tag}"), &format!("b app:{tag}"), "c app:1", "d app:1"])
    };
    let mut world = running(&at("aaa", "1"));
    let desired = at("bbbbbbb", "2");
    let plan = world.pass(Some(&desired));
    assert_eq!((plan.steps.len(), plan.verdict, events(&plan)), (0, Verdict::Approve, vec![Event::Braked]));
    insta::assert_snapshot!(plan.notes[0].text, @"would restart 2 of 4 services, more than 30 %");
    let plan = world.pass(Some(&desired));
    assert!(plan.is_empty() && plan.tells.is_empty(), "told once");
    world.command(&Command::Approve { stack: shop(), revision: "bbbbbbb".into() });
    assert_eq!(verbs(&world.pass(Some(&desired))), ["update service shop_a", "update service shop_b"]);
}

#[test]
fn the_brake_stops_a_revision_that_removes_too_much() {
    let mut world = running(&stack("aaa", &["a app:1", "b app:1", "c app:1", "d app:1", "e app:1"]));
    let plan = world.pass(Some(&stack("bbb", &["a app:1"])));
    assert_eq!(plan.verdict, Verdict::Approve);
    assert_eq!(world.observed.services.len(), 5);
}

#[test]
fn a_small_stack_is_not_braked_for_restarts() {
    let world = running(&stack("aaa", &["a app:1", "b app:1"]));
    assert_eq!(world.plan(Some(&stack("bbb", &["a app:2", "b app:2"]))).steps.len(), 2);
}

#[test]
fn what_drifted_does_not_count_for_the_brake() {
    let at = |revision: &str, tag: &str| stack(revision, &[&format!("a app:{tag}"), "b app:1", "c app:1", "d app:1"]);
    let mut world = running(&at("aaa", "1"));
    for name in ["shop_b", "shop_c"] {
        world.by_hand(name, |spec| spec.task_template.container_spec.user = Some("root".into()));
    }
    let plan = world.pass(Some(&at("bbb", "2")));
    assert_eq!(verbs(&plan), ["update service shop_a"], "{plan}");
}

#[test]
fn an_orphan_is_kept_and_told_once_until_somebody_removes_it() {
    let mut world = running(&three("aaa", "1"));
    let plan = world.pass(None);
    assert_eq!((plan.steps.len(), plan.verdict, events(&plan)), (0, Verdict::Orphan, vec![Event::Orphaned]));
    assert!(world.pass(None).is_empty());
    world.command(&Command::Remove { stack: shop() });
    let order = ["remove service shop_web", "remove service shop_api", "remove service shop_db"];
    assert_eq!(verbs(&world.pass(None)), order);
    let plan = world.pass(None);
    assert_eq!(verbs(&plan), ["remove network shop_default", "forget state"]);
    assert_eq!(events(&plan), [Event::Removed]);
    assert!(world.observed.states.is_empty() && world.observed.services.is_empty());
}

#[test]
fn a_network_waits_until_the_tasks_on_it_are_gone() {
    let mut world = running(&three("aaa", "1"));
    let ghosts = world.observed.tasks.clone();
    world.policy.orphans = Orphans::Remove;
    world.pass(None);
    world.observed.tasks = ghosts;
    let plan = world.pass(None);
    assert!(plan.steps.is_empty() && plan.verdict == Verdict::Rolling, "{plan}");
    world.observed.tasks.clear();
    assert_eq!(verbs(&world.pass(None)).len(), 2);
}

#[test]
fn removed_true_removes_only_what_is_ours() {
    let mut desired = three("aaa", "1");
    let mut world = running(&desired);
    desired.settings.removed = true;
    world.settle(Some(&desired));
    assert!(world.observed.services.is_empty() && world.observed.states.is_empty());
    world.deploy_by_hand(&three("aaa", "1"));
    assert!(world.pass(Some(&desired)).is_empty());
}

#[test]
fn a_paused_stack_is_left_alone() {
    let mut world = running(&three("aaa", "1"));
    world.command(&Command::Pause { stack: shop(), reason: "migration".into() });
    let plan = world.pass(Some(&three("bbb", "2")));
    assert!(plan.is_empty() && plan.verdict == Verdict::Paused);
    world.command(&Command::Resume { stack: shop() });
    assert_eq!(world.plan(Some(&three("bbb", "2"))).steps.len(), 1);
}

#[test]
fn a_stack_waits_for_those_it_comes_after() {
    let world = World::new();
    let plan = world.plan_after(Some(&three("aaa", "1")), &[StackName::new("base").unwrap()]);
    assert!(plan.is_empty() && plan.verdict == Verdict::Waiting);
    insta::assert_snapshot!(plan.notes[0].text, @"waits until base has converged");
}

#[test]
fn a_successor_takes_over_what_its_predecessor_made_and_could_not_note() {
    let (mut world, desired) = (World::new(), three("aaa", "1"));
    let plan = world.plan(Some(&desired));
    let intent = plan.state.clone().unwrap();
    world.apply(&plan);
    // It died after its writes: only what was saved before them is known.
    world.observed.states.get_mut(&shop()).unwrap().state = intent;
    world.now += time::Duration::minutes(1);
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
    assert_eq!(world.state().owned.services.len(), 3);
}

#[test]
fn a_rollout_that_does_not_end_fails_at_its_deadline() {
    let mut world = running(&three("aaa", "1"));
    let desired = three("bbb", "2");
    world.pass(Some(&desired));
    let id = world.service("shop_api").id.clone();
    world.observed.tasks.get_mut(&id).unwrap()[0].status.state = "pending".into();
    assert_eq!(world.pass(Some(&desired)).verdict, Verdict::Rolling);
    world.now += time::Duration::minutes(10);
    let plan = world.pass(Some(&desired));
    assert_eq!(verbs(&plan), ["roll-back service shop_api"]);
    assert_eq!(plan.tells[0].message, "rolled back: 0/1 tasks after 10m, one is pending");
}

#[test]
fn a_service_that_changes_its_mode_is_an_error() {
    let world = running(&three("aaa", "1"));
    let mut desired = three("bbb", "1");
    desired.objects.services.get_mut("web").unwrap().spec.mode = serde_json::from_str(r#"{"Global":{}}"#).unwrap();
    let plan = world.plan(Some(&desired));
    assert!(plan.is_empty() && plan.verdict == Verdict::Error, "{plan}");
}

#[test]
fn a_state_that_cannot_be_read_stops_its_stack_only() {
    let mut world = running(&three("aaa", "1"));
    let bad = crate::stacks::state::BadState { stack: "shop".into(), reason: "schema 2".into() };
    world.observed.states.clear();
    world.observed.bad_states.push(bad);
    let plan = world.plan(Some(&three("bbb", "2")));
    assert!(plan.is_empty() && plan.verdict == Verdict::Error);
}

#[test]
fn a_service_removed_by_hand_is_reported_or_made_again() {
    let mut world = running(&three("aaa", "1"));
    let id = world.observed.services.remove("shop_web").unwrap().id;
    world.observed.tasks.remove(&id);
    let mut desired = three("aaa", "1");
    let plan = world.settle(Some(&desired));
    assert_eq!((plan.verdict, plan.notes[0].text.as_str()), (Verdict::Drift, "shop_web: removed by hand"));
    desired.settings.drift = Drift::Correct;
    assert_eq!(verbs(&world.pass(Some(&desired))), ["create service shop_web"]);
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
}

#[test]
fn drift_outlasts_a_commit_that_changes_another_service() {
    let mut world = running(&three("aaa", "1"));
    world.by_hand("shop_web", |spec| spec.task_template.container_spec.user = Some("root".into()));
    let plan = world.settle(Some(&three("bbb", "2")));
    assert_eq!(plan.verdict, Verdict::Drift, "{plan}");
    assert_eq!(world.observed.services["shop_web"].spec.task_template.container_spec.user.as_deref(), Some("root"));
}

#[test]
fn a_hold_is_of_one_service_and_the_others_go_on() {
    let mut world = running(&three("aaa", "1"));
    world.settle(Some(&three("bbb", "2")));
    world.roll_back("shop_api");
    world.settle(Some(&three("bbb", "2")));
    let mut desired = three("ccc", "2");
    desired.objects.services.get_mut("web").unwrap().spec.task_template.container_spec.image = "app:3".into();
    assert_eq!(verbs(&world.pass(Some(&desired))), ["update service shop_web"]);
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Held);
}

/// The form that the README documents: a change here is a change of what people's programs read.
#[test]
fn the_json_form_is_stable() {
    let mut world = World::new();
    // A random one would give another name to the secret each time.
    world.observed.key = Some(crate::stacks::Key::default());
    world.settle(Some(&with_secret(three("aaa", "1"), "api", "hunter2")));
    world.policy.brake_restarts_percent_max = 100;
    let mut desired = with_secret(stack("bbb", &["api app:2 db", "db app:1"]), "api", "hunter3");
    if let Some(crate::model::Wanted::Own { spec, .. }) = desired.objects.networks.get_mut("default") {
        spec.internal = true;
    }
    insta::assert_snapshot!(serde_json::to_string_pretty(&world.plan(Some(&desired))).unwrap(), @r#"
    {
      "schema": 1,
      "stack": "shop",
      "from": "aaa0000000000000000000000000000000000000",
      "to": "bbb0000000000000000000000000000000000000",
      "verdict": "rolling",
      "changes": [
        {
          "kind": "secret",
          "name": "shop_db_10d54594",
          "action": "create",
          "differences": [],
          "restarts": null,
          "waits": null,
          "location": null
        },
        {
          "kind": "service",
          "name": "shop_api",
          "action": "update",
          "differences": [
            {
              "what": "image",
              "old": "app:1@sha256:6170703a31000000000000000000000000000000000000000000000000000000",
              "new": "app:2@sha256:6170703a32000000000000000000000000000000000000000000000000000000",
              "location": {
                "file": "compose.yml",
                "line": 3,
                "column": 3
              },
              "restarts": true
            },
            {
              "what": "secret",
              "old": "shop_db",
              "new": "shop_db_10d54594",
              "location": {
                "file": "compose.yml",
                "line": 2,
                "column": 3
              },
              "restarts": true
            }
          ],
          "restarts": {
            "tasks": 1,
            "parallelism": 1,
            "order": "stop-first",
            "again": false
          },
          "waits": null,
          "location": {
            "file": "compose.yml",
            "line": 2,
            "column": 3
          }
        },
        {
          "kind": "network",
          "name": "shop_default",
          "action": "recreate",
          "differences": [
            {
              "what": "internal",
              "old": null,
              "new": null,
              "location": null,
              "restarts": false
            }
          ],
          "restarts": null,
          "waits": "only with `recreate: true` in stack.yml",
          "location": null
        },
        {
          "kind": "service",
          "name": "shop_web",
          "action": "remove",
          "differences": [],
          "restarts": null,
          "waits": "when the others have converged",
          "location": null
        }
      ],
      "unchanged": 1,
      "notes": [
        {
          "kind": "drift",
          "text": "network shop_default needs recreate (internal): only with `recreate: true` in stack.yml"
        }
      ],
      "steps": [
        {
          "do": "create",
          "kind": "secret",
          "name": "shop_db_10d54594"
        },
        {
          "do": "update",
          "kind": "service",
          "name": "shop_api"
        }
      ],
      "saves_state": true,
      "tells": [
        {
          "event": "started",
          "stack": "shop",
          "service": null,
          "revision": "bbb0000000000000000000000000000000000000",
          "message": "rollout of bbb0000 began",
          "log": []
        }
      ],
      "settled": false
    }
    "#);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// A stack of up to six services with images, dependencies on earlier ones, and a secret.
    fn any_stack() -> impl Strategy<Value = DesiredStack> {
        let service = (any::<bool>(), 1..4_u8, any::<[bool; 6]>());
        (proptest::collection::vec(service, 6), proptest::option::of(0..3_u8), "[a-f]{8}").prop_map(
            |(services, secret, revision)| {
                let mut texts = Vec::new();
                let mut keys: Vec<String> = Vec::new();
                for (index, (is_there, tag, needs)) in services.into_iter().enumerate() {
                    if !is_there && index > 0 {
                        continue;
                    }
                    let needs: Vec<String> =
                        keys.iter().zip(needs).filter(|(_, need)| *need).map(|(key, _)| key.clone()).collect();
                    let key = format!("s{index}");
                    texts.push(format!("{key} app:{tag} {}", needs.join(",")).trim_end().to_owned());
                    keys.push(key);
                }
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let desired = stack(&revision, &texts);
                match secret {
                    Some(content) => with_secret(desired, "s0", &content.to_string()),
                    None => desired,
                }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn after_it_is_applied_a_plan_is_empty_and_writes_nothing(stacks in proptest::collection::vec(any_stack(), 1..5)) {
            let mut world = World::new();
            world.policy.brake_removes_max = usize::MAX;
            world.policy.brake_restarts_percent_max = 100;
            for desired in &stacks {
                let plan = world.settle(Some(desired));
                prop_assert_eq!(plan.verdict, Verdict::Ok);
                let writes = world.writes;
                prop_assert!(world.pass(Some(desired)).is_empty());
                prop_assert_eq!(writes, world.writes);
                let names: BTreeSet<&String> = world.observed.services.keys().collect();
                let wanted: BTreeSet<&String> = desired.objects.services.values().map(|service| &service.spec.name).collect();
                prop_assert_eq!(names, wanted);
            }
            world.policy.orphans = Orphans::Remove;
            world.settle_without(&mut 10);
            prop_assert!(world.observed.services.is_empty() && world.observed.networks.is_empty() && world.observed.secrets.is_empty());
        }
    }
}
