//! `swarmkeeper.ignore`, on a model of a swarm.

use super::images_to_resolve;
use super::world::{World, resolved, shop, stack};
use crate::model::{DesiredStack, Drift, LABEL_IGNORE};
use crate::spec::{ServiceSpec, TaskTemplate};
use crate::status::StackState as Verdict;

/// One service of two tasks whose label says what is ignored, drift to be corrected.
fn app(revision: &str, tag: &str, ignored: &str) -> DesiredStack {
    let mut desired = stack(revision, &[&format!("api app:{tag}")]);
    desired.settings.drift = Drift::Correct;
    let service = desired.objects.services.get_mut("api").unwrap();
    service.replicas_given = true;
    service.spec.mode.replicated.as_mut().unwrap().replicas = Some(2);
    service.spec.task_template.container_spec.env = Some(vec!["A=git".into(), "B=git".into()]);
    let labels = service.spec.labels.as_mut().unwrap();
    labels.insert("theirs".into(), "git".into());
    labels.insert(LABEL_IGNORE.into(), ignored.into());
    desired
}

fn live(world: &World) -> &ServiceSpec {
    &world.observed.services["shop_api"].spec
}

/// Another tool changes the service: that is no drift, and outlives git's next change of something else.
fn check(ignored: &str, by_hand: impl FnOnce(&mut ServiceSpec), is_kept: impl Fn(&ServiceSpec) -> bool) {
    let mut world = World::new();
    world.settle(Some(&app("aaa", "1", ignored)));
    assert!(!is_kept(live(&world)), "a new service gets git's value");
    world.by_hand("shop_api", by_hand);
    let writes = world.writes;
    let plan = world.settle(Some(&app("aaa", "1", ignored)));
    assert_eq!((plan.verdict, world.writes), (Verdict::Ok, writes), "{plan}");
    let mut desired = app("bbb", "1", ignored);
    desired.objects.services.get_mut("api").unwrap().spec.task_template.container_spec.user = Some("app".into());
    assert_eq!(world.settle(Some(&desired)).verdict, Verdict::Ok);
    assert_eq!(live(&world).task_template.container_spec.user.as_deref(), Some("app"));
    assert!(is_kept(live(&world)), "ignored: {ignored}");
}

fn env(template: &TaskTemplate) -> Vec<&str> {
    template.container_spec.env.iter().flatten().map(String::as_str).collect()
}

#[test]
fn what_is_ignored_keeps_its_live_value() {
    check(
        "replicas",
        |spec| spec.mode.replicated.as_mut().unwrap().replicas = Some(7),
        |spec| spec.mode.replicated.as_ref().unwrap().replicas == Some(7),
    );
    let limits = || serde_json::from_str(r#"{"Limits": {"MemoryBytes": 1000}}"#).unwrap();
    check(
        "image, resources",
        |spec| spec.task_template.resources = Some(limits()),
        |spec| spec.task_template.resources == Some(limits()),
    );
    let elsewhere = || Some(vec!["node.labels.zone == b".to_owned()]);
    check(
        "placement",
        |spec| spec.task_template.placement.as_mut().unwrap().constraints = elsewhere(),
        |spec| {
            let placement = spec.task_template.placement.as_ref().unwrap();
            placement.constraints == elsewhere() && placement.platforms == Some(resolved("x").platforms)
        },
    );
    check(
        "env",
        |spec| spec.task_template.container_spec.env = Some(vec!["C=theirs".into()]),
        |spec| env(&spec.task_template) == ["C=theirs"],
    );
    check(
        "env.B,env.C",
        |spec| spec.task_template.container_spec.env = Some(vec!["A=git".into(), "C=theirs".into()]),
        |spec| env(&spec.task_template) == ["A=git", "C=theirs"],
    );
    check(
        "labels.theirs",
        |spec| drop(spec.labels.as_mut().unwrap().insert("theirs".into(), "by hand".into())),
        |spec| spec.labels.as_ref().unwrap()["theirs"] == "by hand",
    );
    check(
        "labels",
        |spec| drop(spec.labels.as_mut().unwrap().remove("theirs")),
        |spec| !spec.labels.as_ref().unwrap().contains_key("theirs"),
    );
}

#[test]
fn what_is_not_ignored_is_drift_beside_it() {
    let mut world = World::new();
    let mut desired = app("aaa", "1", "env.B");
    desired.settings.drift = Drift::Report;
    world.settle(Some(&desired));
    let by_hand = vec!["A=by hand".to_owned(), "B=theirs".to_owned()];
    world.by_hand("shop_api", |spec| spec.task_template.container_spec.env = Some(by_hand));
    let plan = world.settle(Some(&desired));
    assert_eq!((plan.verdict, plan.notes[0].text.as_str()), (Verdict::Drift, "shop_api: variable A by hand"));
}

#[test]
fn an_image_that_is_left_to_others_is_neither_resolved_nor_written() {
    let mut world = World::new();
    world.settle(Some(&app("aaa", "1", "image")));
    let theirs = resolved("app:9");
    world.by_hand("shop_api", |spec| spec.task_template.container_spec.image.clone_from(&theirs.image));
    let desired = app("bbb", "2", "image");
    assert!(images_to_resolve(&desired, world.observed.stack(&shop())).is_empty());
    world.images.insert("app:2".into(), Err("registry down".into()));
    let writes = world.writes;
    let plan = world.settle(Some(&desired));
    assert_eq!(plan.verdict, Verdict::Ok, "{plan}");
    assert_eq!(live(&world).task_template.container_spec.image, theirs.image);
    assert!(world.writes > writes, "git's word is noted in the state");
    assert!(world.pass(Some(&desired)).is_empty());
}

#[test]
fn a_service_that_lives_needs_no_digest_of_an_ignored_image_to_go_back() {
    let mut world = World::new();
    for (revision, tag) in [("aaa", "1"), ("bbb", "2")] {
        let mut desired = app(revision, tag, "image");
        desired.objects.services.get_mut("api").unwrap().spec.task_template.container_spec.user = Some(tag.into());
        world.commits.push(desired.clone());
        world.settle(Some(&desired));
    }
    let head = world.commits[1].clone();
    world.go_back(&head, None).unwrap();
    world.settle(Some(&head));
    assert_eq!(live(&world).task_template.container_spec.user.as_deref(), Some("1"));
}

#[test]
fn an_unknown_word_is_an_error() {
    let plan = World::new().plan(Some(&app("aaa", "1", "replica")));
    insta::assert_snapshot!(plan.notes[0].text, @r#"compose.yml:3:3: service shop_api: label swarmkeeper.ignore: found "replica", accepted: replicas, image, resources, placement, env, env.NAME, labels, labels.NAME"#);
}
