//! Networks whose definition changed, and networks of other stacks, on a model of a swarm.

use serde_json::json;

use super::pass::{Held, Pass, plan_all};
use super::plan::{Event, Plan, Step};
use super::world::{World, shop, stack};
use crate::model::{DesiredStack, StackName, Wanted};
use crate::spec::Task;
use crate::status::{Command, StackState as Verdict};

/// Three services on the stack's network, which is internal or not.
fn on_network(revision: &str, tag: &str, internal: bool, recreate: bool) -> DesiredStack {
    let mut desired = stack(revision, &[&format!("api app:{tag} db"), "db app:1", "web app:1 api"]);
    desired.settings.recreate = recreate;
    if let Some(Wanted::Own { spec, .. }) = desired.objects.networks.get_mut("default") {
        spec.internal = internal;
    }
    desired
}

fn running() -> World {
    let mut world = World::new();
    world.policy.brake_restarts_percent_max = 100;
    world.settle(Some(&on_network("aaa", "1", false, false)));
    world
}

fn verbs(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{} {}", step.verb(), step.object().1)).collect()
}

#[test]
fn a_changed_network_needs_to_be_made_anew_and_stays_without_recreate() {
    let mut world = running();
    let desired = on_network("bbb", "1", true, false);
    let plan = world.settle(Some(&desired));
    insta::assert_snapshot!(plan, @r"
    plan shop   bbb0000
    ± shop_default  network NEEDS RECREATE: internal — not now: only with `recreate: true` in stack.yml
    ! drift: network shop_default needs recreate (internal): only with `recreate: true` in stack.yml
    = 3 unchanged, 0 writes
    ");
    assert_eq!((plan.verdict, plan.settled), (Verdict::Drift, true));
    let json = serde_json::to_value(&plan).unwrap();
    assert_eq!(json["changes"][0]["action"], "recreate");
}

#[test]
fn a_network_is_made_anew_last_and_its_services_come_back_as_they_were() {
    let mut world = running();
    world.by_hand("shop_web", |spec| {
        spec.mode.replicated.as_mut().unwrap().replicas = Some(4);
        spec.task_template.force_update = 7;
    });
    let image = world.observed.services["shop_db"].spec.task_template.container_spec.image.clone();
    let old = world.observed.networks["shop_default"].id.clone();
    let desired = on_network("bbb", "2", true, true);
    let plan = world.pass(Some(&desired));
    insta::assert_snapshot!(plan, @r"
    plan shop   aaa0000 → bbb0000
    ~ shop_api      RESTARTS 1 task, 1 at a time, stop-first
        image  1@6170703a3100 → 2@6170703a3200     (compose.yml:3)
    ± shop_default  network RECREATED: internal
    ± shop_api      RECREATED, all its tasks restart: network shop_default — not now: when the others have converged
    ± shop_db       RECREATED, all its tasks restart: network shop_default — not now: when the others have converged
    ± shop_web      RECREATED, all its tasks restart: network shop_default — not now: when the others have converged
    = 2 unchanged, 2 writes
    ");
    assert_eq!(verbs(&world.pass(Some(&desired))), ["remove shop_web", "remove shop_api", "remove shop_db"]);
    assert_eq!(verbs(&world.pass(Some(&desired))), ["remove shop_default"]);
    let plan = world.pass(Some(&desired));
    // All at once: they ran together before.
    assert_eq!(verbs(&plan), ["create shop_default", "create shop_db", "create shop_api", "create shop_web"]);
    let last = world.pass(Some(&desired));
    assert_eq!((last.tells[0].event, last.verdict), (Event::Converged, Verdict::Ok), "{last}");
    let web = &world.observed.services["shop_web"].spec;
    assert_eq!((web.mode.replicated.as_ref().unwrap().replicas, web.task_template.force_update), (Some(4), 7));
    assert_eq!(world.observed.services["shop_db"].spec.task_template.container_spec.image, image);
    let network = &world.observed.networks["shop_default"];
    assert!(network.internal && network.id != old);
    assert!(world.pass(Some(&desired)).is_empty());
}

#[test]
fn the_network_waits_for_tasks_but_not_for_those_of_a_node_that_is_down() {
    let mut world = running();
    let desired = on_network("bbb", "1", true, true);
    let mut ghosts = world.observed.tasks.clone();
    assert_eq!(verbs(&world.pass(Some(&desired))).len(), 3);
    for task in ghosts.values_mut().flatten() {
        task.desired_state = "remove".into();
    }
    world.observed.tasks = ghosts;
    world.now += time::Duration::hours(1);
    let plan = world.pass(Some(&desired));
    assert!(plan.steps.is_empty() && plan.verdict == Verdict::Rolling, "no deadline leaves the services away: {plan}");
    insta::assert_snapshot!(plan.notes[0].text, @"network shop_default is made anew when the tasks on it have ended");
    world.observed.nodes.get_mut("n1").unwrap().status.state = "down".into();
    assert_eq!(verbs(&world.pass(Some(&desired))), ["remove shop_default"]);
    world.observed.nodes.get_mut("n1").unwrap().status.state = "ready".into();
    world.observed.tasks.clear();
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
}

#[test]
fn a_successor_goes_on_wherever_its_predecessor_died() {
    let desired = on_network("bbb", "1", true, true);
    for passes in 0..4 {
        for steps in 0..4 {
            let mut world = running();
            world.by_hand("shop_web", |spec| spec.mode.replicated.as_mut().unwrap().replicas = Some(4));
            for _ in 0..passes {
                world.pass(Some(&desired));
            }
            // It dies in the middle: only what was saved before its writes is known.
            let mut plan = world.plan(Some(&desired));
            plan.steps.truncate(steps);
            let intent = plan.state.clone().unwrap();
            world.apply(&plan);
            world.observed.states.get_mut(&shop()).unwrap().state = intent;
            world.now += time::Duration::minutes(1);
            let plan = world.settle(Some(&desired));
            assert_eq!(plan.verdict, Verdict::Ok, "died in pass {passes} after {steps} steps: {plan}");
            assert!(world.observed.networks["shop_default"].internal);
            assert_eq!(world.observed.services.len(), 3);
            let web = &world.observed.services["shop_web"].spec;
            assert_eq!(web.mode.replicated.as_ref().unwrap().replicas, Some(4), "{passes}/{steps}");
        }
    }
}

#[test]
fn git_may_go_on_while_a_network_is_made_anew() {
    let mut world = running();
    world.pass(Some(&on_network("bbb", "1", true, true)));
    assert!(world.observed.services.is_empty());
    let next = on_network("ccc", "2", true, true);
    assert_eq!(world.settle(Some(&next)).verdict, Verdict::Ok);
    assert_eq!(world.observed.services.len(), 3);
}

#[test]
fn a_network_with_somebody_else_on_it_is_left_alone_and_they_are_named() {
    let desired = on_network("bbb", "1", true, true);
    let check = |prepare: &dyn Fn(&mut World), wanted: &str| {
        let mut world = running();
        prepare(&mut world);
        let services = world.observed.services.clone();
        let plan = world.settle(Some(&desired));
        assert_eq!((plan.verdict, &world.observed.services), (Verdict::Drift, &services), "{plan}");
        let text = &plan.notes.iter().find(|note| note.text.starts_with("network")).unwrap().text;
        assert_eq!(text.split_once("(internal): ").unwrap().1, wanted);
    };
    check(
        &|world| {
            world.deploy_by_hand_beside("strange");
            let id = world.observed.networks["shop_default"].id.clone();
            world.service("strange").spec.task_template.networks.as_mut().unwrap()[0].target = id;
        },
        "service strange, which is not this stack's, is on it",
    );
    check(
        &|world| {
            let id = &world.observed.networks["shop_default"].id;
            let spec =
                json!({"NetworkAttachmentSpec": {"ContainerID": "0123456789abcdef"}, "Networks": [{"Target": id}]});
            let task: Task =
                serde_json::from_value(json!({"NodeID": "n1", "Spec": spec, "Status": {"State": "running"}})).unwrap();
            world.observed.attachments.push(task);
        },
        "container 0123456789ab on n17 is on it",
    );
    check(
        &|world| world.by_hand("shop_web", |spec| spec.task_template.container_spec.user = Some("root".into())),
        "shop_web, which is on it, is not as git says: changed by hand",
    );
}

#[test]
fn a_network_that_swarm_makes_otherwise_is_not_made_anew_twice() {
    let mut world = running();
    let desired = on_network("bbb", "1", true, true);
    for _ in 0..5 {
        let mut plan = world.plan(Some(&desired));
        for step in &mut plan.steps {
            if let Step::NetworkCreate(spec) = step {
                spec.internal = false;
            }
        }
        world.apply(&plan);
        world.now += time::Duration::minutes(1);
    }
    let writes = world.writes;
    let plan = world.settle(Some(&desired));
    assert_eq!(plan.verdict, Verdict::Drift, "{plan}");
    world.settle(Some(&desired));
    assert!(world.writes <= writes + 1 && world.observed.services.len() == 3);
}

#[test]
fn the_brake_counts_the_services_on_a_network_that_is_made_anew() {
    let at = |revision: &str, internal: bool| {
        let mut desired = stack(revision, &["a app:1", "b app:1", "c app:1", "d app:1"]);
        desired.settings.recreate = true;
        if let Some(Wanted::Own { spec, .. }) = desired.objects.networks.get_mut("default") {
            spec.internal = internal;
        }
        desired
    };
    let mut world = World::new();
    world.settle(Some(&at("aaa", false)));
    let plan = world.pass(Some(&at("bbbbbbb", true)));
    assert_eq!(plan.verdict, Verdict::Approve, "{plan}");
    assert!(plan.to_string().contains("would restart 4 of 4 services"), "{plan}");
    world.command(&Command::Approve { stack: shop(), revision: "bbbbbbb".into() });
    assert_eq!(world.settle(Some(&at("bbbbbbb", true))).verdict, Verdict::Ok);
}

#[test]
fn a_stack_waits_for_a_network_that_another_stack_makes() {
    let mut user = stack("aaa", &["web app:1@sha256:aa"]);
    user.name = StackName::new("user").unwrap();
    user.objects.networks.insert("shop".into(), Wanted::External("shop_default".into()));
    if let Some(Wanted::Own { spec, .. }) = user.objects.networks.get_mut("default") {
        spec.name = "user_default".into();
    }
    let maker = stack("aaa", &["api app:1@sha256:aa"]);
    let check = |desired: &[DesiredStack], verdict: Verdict, wanted: &str| {
        let world = World::new();
        let plans = plan_all(&Pass {
            desired,
            broken: &std::collections::BTreeMap::new(),
            held: &Held::new(),
            observed: &world.observed,
            images: &world.images,
            secrets: &world.secrets,
            key: world.observed.key.as_ref().unwrap(),
            now: world.now,
            policy: &world.policy,
        });
        let plan = plans.iter().find(|plan| plan.stack == user.name).unwrap();
        assert_eq!((plan.verdict, plan.is_empty()), (verdict, true));
        assert_eq!(plan.notes[0].text, wanted);
    };
    let waits = "waits for network shop_default, which stack shop makes";
    check(&[maker, user.clone()], Verdict::Waiting, waits);
    let missing = "external network \"shop_default\" does not exist of scope swarm: make it with `docker network create`, or take `external` away";
    check(std::slice::from_ref(&user), Verdict::Error, missing);
}
