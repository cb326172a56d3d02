//! Restarts that a person asked for, on a model of a swarm.

use super::plan::{Event, Plan};
use super::world::{World, shop, stack};
use crate::model::{DesiredStack, Drift};
use crate::status::{Command, StackState as Verdict};

fn desired() -> DesiredStack {
    stack("aaa", &["api app:1 db", "db app:1", "web app:1 api"])
}

fn running() -> World {
    let mut world = World::new();
    world.settle(Some(&desired()));
    world
}

fn restart(world: &mut World, service: &str) {
    let wish = Command::Restart { stack: shop(), service: service.into(), reason: "leaks memory".into() };
    world.command(&wish);
}

fn task_of(world: &World, service: &str) -> String {
    world.observed.tasks[&world.observed.services[service].id][0].id.clone()
}

fn verbs(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{} {}", step.verb(), step.object().1)).collect()
}

#[test]
fn a_restart_replaces_the_tasks_of_exactly_that_service_and_is_told() {
    let mut world = running();
    let (api, web) = (task_of(&world, "shop_api"), task_of(&world, "shop_web"));
    restart(&mut world, "api");
    let plan = world.pass(Some(&desired()));
    insta::assert_snapshot!(plan, @r"
    plan shop   aaa0000
    ~ shop_api  RESTARTS 1 task, 1 at a time, stop-first
        restart  asked for: leaks memory
    = 4 unchanged, 2 writes
    ");
    assert_ne!(task_of(&world, "shop_api"), api);
    assert_eq!(task_of(&world, "shop_web"), web);
    let plan = world.pass(Some(&desired()));
    let told: Vec<(Event, &str)> = plan.tells.iter().map(|tell| (tell.event, tell.message.as_str())).collect();
    assert_eq!(told, [(Event::Restarted, "restarted: leaks memory")]);
    let plan = world.settle(Some(&desired()));
    assert!(plan.is_empty() && plan.tells.is_empty() && plan.verdict == Verdict::Ok);
    assert!(world.state().restarts.is_empty());
}

#[test]
fn a_restart_is_not_undone_later() {
    let mut world = running();
    restart(&mut world, "api");
    world.settle(Some(&desired()));
    let mut next = stack("bbb", &["api app:2 db", "db app:1", "web app:1 api"]);
    next.settings.drift = Drift::Correct;
    world.settle(Some(&next));
    assert_eq!(world.observed.services["shop_api"].spec.task_template.force_update, 1);
}

#[test]
fn a_restart_goes_together_with_what_git_changes() {
    let mut world = running();
    restart(&mut world, "api");
    let next = stack("bbb", &["api app:2 db", "db app:1", "web app:1 api"]);
    assert_eq!(verbs(&world.pass(Some(&next))), ["update shop_api"]);
    assert_eq!(world.settle(Some(&next)).verdict, Verdict::Ok);
    assert_eq!(world.observed.services["shop_api"].spec.task_template.force_update, 1);
    assert!(world.state().restarts.is_empty());
}

#[test]
fn a_restart_leaves_a_hand_edit_as_it_is() {
    let mut world = running();
    world.by_hand("shop_api", |spec| spec.task_template.container_spec.user = Some("root".into()));
    restart(&mut world, "api");
    assert_eq!(verbs(&world.pass(Some(&desired()))), ["restart shop_api"]);
    let plan = world.settle(Some(&desired()));
    assert_eq!(plan.verdict, Verdict::Drift, "{plan}");
    assert_eq!(world.observed.services["shop_api"].spec.task_template.container_spec.user.as_deref(), Some("root"));
}

#[test]
fn a_restarted_service_is_still_as_it_was_adopted() {
    let mut world = World::new();
    world.deploy_by_hand(&desired());
    world.by_hand("shop_api", |spec| spec.task_template.container_spec.user = Some("root".into()));
    world.command(&Command::Adopt { stack: shop() });
    let mut desired = desired();
    desired.settings.drift = Drift::Correct;
    world.settle(Some(&desired));
    restart(&mut world, "api");
    let plan = world.settle(Some(&desired));
    assert!(plan.is_empty() && plan.notes[0].text.ends_with("as adopted"), "{plan}");
}

#[test]
fn a_stack_that_is_paused_or_held_can_be_restarted() {
    let mut world = running();
    world.command(&Command::Pause { stack: shop(), reason: "night".into() });
    restart(&mut world, "api");
    let plan = world.pass(Some(&stack("bbb", &["api app:2 db", "db app:1", "web app:1 api"])));
    assert_eq!((verbs(&plan), plan.verdict), (vec!["restart shop_api".to_owned()], Verdict::Paused));
    world.pass(Some(&desired()));
    assert!(world.state().restarts.is_empty() && world.state().pause.is_some());
}

#[test]
fn a_successor_does_not_restart_once_more() {
    let mut world = running();
    restart(&mut world, "api");
    let plan = world.plan(Some(&desired()));
    let intent = plan.state.clone().unwrap();
    world.apply(&plan);
    // It died after its write: only what was saved before is known.
    world.observed.states.get_mut(&shop()).unwrap().state = intent;
    world.now += time::Duration::minutes(1);
    assert_eq!(verbs(&world.pass(Some(&desired()))), Vec::<String>::new());
    assert_eq!(world.observed.services["shop_api"].spec.task_template.force_update, 1);
}

#[test]
fn a_restart_whose_tasks_fail_is_told_and_no_failure_of_the_revision() {
    let mut world = running();
    world.broken.insert("app:1".into());
    restart(&mut world, "api");
    world.pass(Some(&desired()));
    let plan = world.pass(Some(&desired()));
    assert_eq!(plan.tells[0].message, "restarted (leaks memory), and failed: exit 1 on n17");
    assert_eq!(plan.tells[0].event, Event::Failed);
    let plan = world.settle(Some(&desired()));
    assert!(plan.is_empty() && world.state().failed.is_empty() && world.state().restarts.is_empty());
}

#[test]
fn a_restart_of_what_is_gone_is_forgotten() {
    let mut world = running();
    restart(&mut world, "web");
    let id = world.observed.services.remove("shop_web").unwrap().id;
    world.observed.tasks.remove(&id);
    let plan = world.pass(Some(&desired()));
    assert_eq!(verbs(&plan), Vec::<String>::new());
    assert!(world.state().restarts.is_empty());
}
