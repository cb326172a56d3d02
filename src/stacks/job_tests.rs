//! One-shot jobs, which gate what depends on them, and `on_failure: rollback-stack`, on a model of a swarm.

use serde_json::json;

use super::plan::{Event, Plan};
use super::world::{World, shop, stack};
use crate::model::{DesiredStack, OnFailure};
use crate::spec::RestartPolicy;
use crate::status::{Command, StackState as Verdict};

/// `web` after the job `migrate`, and `worker` after `web`.
fn migrated(revision: &str, job: &str, web: &str) -> DesiredStack {
    let services = [&format!("migrate job:{job}"), &format!("web app:{web} migrate"), "worker app:1 web"];
    let mut desired = stack(revision, &services.map(|text: &str| text));
    let spec = &mut desired.objects.services.get_mut("migrate").unwrap().spec;
    spec.mode = serde_json::from_value(json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}})).unwrap();
    spec.task_template.restart_policy = Some(RestartPolicy { condition: "none".into(), ..RestartPolicy::default() });
    desired
}

fn verbs(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{} {}", step.verb(), step.object().1)).collect()
}

/// A world where this stack has converged.
fn running(desired: &DesiredStack) -> World {
    let mut world = World::new();
    world.pass(Some(desired));
    world.complete("shop_migrate");
    assert_eq!(world.settle(Some(desired)).verdict, Verdict::Ok);
    world
}

fn image_of(world: &World, service: &str) -> String {
    let image = &world.observed.services[service].spec.task_template.container_spec.image;
    image.split_once('@').unwrap().0.to_owned()
}

#[test]
fn what_depends_on_a_job_waits_until_it_is_complete() {
    let (mut world, desired) = (World::new(), migrated("aaa", "1", "1"));
    assert_eq!(verbs(&world.pass(Some(&desired))), ["create shop_default", "create shop_migrate"]);
    assert_eq!(verbs(&world.pass(Some(&desired))), Vec::<String>::new());
    world.complete("shop_migrate");
    assert_eq!(verbs(&world.pass(Some(&desired))), ["create shop_web"]);
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
}

#[test]
fn a_changed_image_runs_a_job_again_and_gates_again() {
    let mut world = running(&migrated("aaa", "1", "1"));
    let desired = migrated("bbb", "2", "2");
    let plan = world.pass(Some(&desired));
    insta::assert_snapshot!(plan, @r"
    plan shop   aaa0000 → bbb0000
    ~ shop_migrate  RUNS AGAIN
        image  1@6a6f623a3100 → 2@6a6f623a3200     (compose.yml:3)
    ~ shop_web      RESTARTS 1 task, 1 at a time, stop-first — not now: after shop_migrate
        image  1@6170703a3100 → 2@6170703a3200     (compose.yml:13)
    = 2 unchanged, 2 writes
    ");
    assert_eq!(verbs(&world.pass(Some(&desired))), Vec::<String>::new());
    world.complete("shop_migrate");
    assert_eq!(verbs(&world.pass(Some(&desired))), ["update shop_web"]);
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
}

#[test]
fn an_unchanged_job_does_not_run_again() {
    let mut world = running(&migrated("aaa", "1", "1"));
    let desired = migrated("bbb", "1", "2");
    assert_eq!(verbs(&world.pass(Some(&desired))), ["update shop_web"]);
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
}

#[test]
fn any_update_of_a_job_runs_it_again_and_the_plan_says_so() {
    let world = running(&migrated("aaa", "1", "1"));
    let mut desired = migrated("bbb", "1", "1");
    let labels = &mut desired.objects.services.get_mut("migrate").unwrap().spec.labels;
    labels.as_mut().unwrap().insert("owner".into(), "me".into());
    let plan = world.plan(Some(&desired));
    assert!(plan.to_string().contains("~ shop_migrate  RUNS AGAIN"), "{plan}");
}

#[test]
fn a_job_that_fails_fails_the_rollout_and_its_dependents_are_not_written() {
    let mut world = running(&migrated("aaa", "1", "1"));
    world.broken.insert("job:2".into());
    let desired = migrated("bbb", "2", "2");
    world.pass(Some(&desired));
    let plan = world.pass(Some(&desired));
    // To bring a job back would run the former migration once more.
    assert_eq!(verbs(&plan), Vec::<String>::new());
    let told: Vec<(Event, &str)> = plan.tells.iter().map(|tell| (tell.event, tell.message.as_str())).collect();
    assert_eq!(told, [(Event::Failed, "failed: exit 1 on n17")]);
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Held);
    assert_eq!(image_of(&world, "shop_web"), "app:1");

    // Neither does the next commit write them while the job is the same.
    let writes = world.observed.services.clone();
    let next = migrated("ccc", "2", "3");
    let plan = world.settle(Some(&next));
    assert_eq!((plan.verdict, &world.observed.services), (Verdict::Held, &writes), "{plan}");
    insta::assert_snapshot!(plan, @r"
    plan shop   ccc0000
    ~ shop_web  RESTARTS 1 task, 1 at a time, stop-first — not now: waits for shop_migrate, which failed
        image  1@6170703a3100 → 3@6170703a3300     (compose.yml:13)
    ! held: shop_migrate failed: exit 1 on n17
    ! held: shop_web waits for shop_migrate, which failed
    = 3 unchanged, 0 writes
    ");

    // A mended job runs, and they follow.
    let mended = migrated("ddd", "3", "3");
    assert_eq!(verbs(&world.pass(Some(&mended))), ["update shop_migrate"]);
    world.complete("shop_migrate");
    assert_eq!(world.settle(Some(&mended)).verdict, Verdict::Ok);
    assert_eq!(image_of(&world, "shop_web"), "app:3");
}

#[test]
fn retry_runs_a_failed_job_again() {
    let mut world = running(&migrated("aaa", "1", "1"));
    world.broken.insert("job:2".into());
    let desired = migrated("bbb", "2", "2");
    world.settle(Some(&desired));
    world.broken.clear();
    world.command(&Command::Retry { stack: shop() });
    assert_eq!(verbs(&world.pass(Some(&desired))), ["update shop_migrate"]);
    world.complete("shop_migrate");
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
    assert_eq!(image_of(&world, "shop_web"), "app:2");
}

#[test]
fn removal_goes_in_reverse() {
    let mut world = running(&migrated("aaa", "1", "1"));
    world.command(&Command::Remove { stack: shop() });
    assert_eq!(verbs(&world.pass(None)), ["remove shop_worker", "remove shop_web", "remove shop_migrate"]);
}

#[test]
fn rollback_stack_brings_back_what_was_changed_and_removes_what_was_made() {
    let before = stack("aaa", &["api app:1", "db db:1"]);
    let mut world = World::new();
    world.settle(Some(&before));
    world.policy.brake_restarts_percent_max = 100;
    world.broken.insert("bad:1".into());
    let mut desired = stack("bbb", &["api app:2", "db db:1", "extra app:1 api", "late bad:1 extra"]);
    desired.settings.on_failure = OnFailure::RollbackStack;
    let plan = world.settle(Some(&desired));
    assert_eq!(plan.verdict, Verdict::Held, "{plan}");
    assert_eq!(world.observed.services.keys().collect::<Vec<_>>(), ["shop_api", "shop_db"]);
    assert_eq!(image_of(&world, "shop_api"), "app:1");
    assert_eq!(world.state().history.last().unwrap().outcome.word(), "rolled-back");
    assert_eq!(world.state().owned.services.len(), 2);
    // As before, to the last field.
    assert!(world.pass(Some(&stack("ccc", &["api app:1", "db db:1"]))).steps.is_empty());
}

#[test]
fn rollback_stack_never_removes_what_was_there_before() {
    // Made a moment before the revision that fails, and removed by hand in between.
    let mut world = World::new();
    world.pass(Some(&stack("aaa", &["api app:1", "db db:1"])));
    world.pass(Some(&stack("aaa", &["api app:1", "db db:1"])));
    world.now -= time::Duration::minutes(2);
    let id = world.observed.services.remove("shop_db").unwrap().id;
    world.observed.tasks.remove(&id);
    world.broken.insert("bad:1".into());
    let mut desired = stack("bbb", &["api bad:1", "db db:2"]);
    desired.settings.on_failure = OnFailure::RollbackStack;
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Held);
    assert_eq!(world.observed.services.keys().collect::<Vec<_>>(), ["shop_api", "shop_db"]);
}

#[test]
fn a_first_deploy_that_fails_is_left_for_a_look() {
    let mut world = World::new();
    world.broken.insert("bad:1".into());
    let mut desired = stack("aaa", &["api bad:1", "db db:1"]);
    desired.settings.on_failure = OnFailure::RollbackStack;
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Held);
    assert_eq!(world.observed.services.len(), 2);
}
