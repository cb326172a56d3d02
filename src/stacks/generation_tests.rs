//! Generations of secrets and configs, on a model of a swarm.

use serde_json::json;

use super::plan::Plan;
use super::world::{World, namespace, service, stack, with_secret};
use crate::model::{DesiredStack, Location, Sensitive, Wanted};
use crate::spec::{ConfigSpec, Service, Task};
use crate::status::StackState as Verdict;

fn three(revision: &str, tag: &str) -> DesiredStack {
    stack(revision, &[&format!("api app:{tag} db"), "db app:1", "web app:1 api"])
}

/// A world where this stack has converged.
fn running(desired: &DesiredStack) -> World {
    let mut world = World::new();
    world.settle(Some(desired));
    world
}

fn verbs(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(|step| format!("{} {}", step.verb(), step.object().1)).collect()
}

/// The shop with a secret of this content in `api`.
fn at(revision: &str, content: &str) -> DesiredStack {
    with_secret(three(revision, "1"), "api", content)
}

fn secrets(world: &World) -> Vec<String> {
    world.observed.secrets.keys().cloned().collect()
}

#[test]
fn a_changed_secret_gets_a_hashed_name_and_the_last_two_generations_are_kept() {
    let mut world = running(&at("aaa", "hunter2"));
    assert_eq!(secrets(&world), ["shop_db"], "the CLI's name until it changes");
    world.settle(Some(&at("bbb", "hunter3")));
    let names = secrets(&world);
    assert_eq!(names.len(), 2);
    assert!(names[1].starts_with("shop_db_"));
    // Not even a service that nothing could bring back to it any more lets the one before go.
    world.service("shop_api").previous_spec = None;
    world.settle(Some(&at("bbb", "hunter3")));
    assert_eq!(secrets(&world), names);
    world.settle(Some(&at("ccc", "hunter4")));
    assert_eq!(world.observed.secrets.len(), 2);
    assert!(!secrets(&world).contains(&"shop_db".to_owned()) && secrets(&world).contains(&names[1]));
    let json = serde_json::to_string(world.state()).unwrap();
    assert!(!json.contains("hunter"));
}

#[test]
fn going_back_to_the_generation_before_makes_nothing_anew() {
    let mut world = running(&at("aaa", "hunter2"));
    world.settle(Some(&at("bbb", "hunter3")));
    let names = secrets(&world);
    assert_eq!(verbs(&world.pass(Some(&at("ccc", "hunter2")))), ["update shop_api"]);
    world.settle(Some(&at("ccc", "hunter2")));
    assert_eq!(secrets(&world), names);
    let used = &world.observed.services["shop_api"].spec.task_template.container_spec.secrets;
    assert_eq!(used.as_ref().unwrap()[0].secret_name, "shop_db");
}

#[test]
fn a_generation_that_anybody_uses_is_not_collected() {
    // A stranger's service, its spec before, a task that still ends: each keeps the oldest generation.
    let check = |uses: &dyn Fn(&mut World, &str)| {
        let mut world = running(&at("aaa", "hunter2"));
        let id = world.observed.secrets["shop_db"].id.clone();
        world.settle(Some(&at("bbb", "hunter3")));
        uses(&mut world, &id);
        world.settle(Some(&at("ccc", "hunter4")));
        assert_eq!(world.observed.secrets.len(), 3);
        world.observed.services.remove("strange");
        world.observed.tasks.retain(|id, _| id != "gone");
        world.settle(Some(&at("ccc", "hunter4")));
        assert_eq!(world.observed.secrets.len(), 2, "once nobody does, it is");
    };
    let stranger = |id: &str| {
        let mut spec = service("strange", "app:1");
        let reference = json!([{"SecretID": id, "SecretName": "shop_db"}]);
        spec.task_template.container_spec.secrets = serde_json::from_value(reference).unwrap();
        spec
    };
    let stranger_with =
        |spec, previous_spec| Service { id: "strange".into(), spec, previous_spec, ..Service::default() };
    check(&|world, id| drop(world.observed.services.insert("strange".into(), stranger_with(stranger(id), None))));
    check(&|world, id| {
        let service = stranger_with(stranger("other"), Some(Box::new(stranger(id))));
        world.observed.services.insert("strange".into(), service);
    });
    check(&|world, id| {
        let status = serde_json::from_value(json!({"State": "running"})).unwrap();
        let spec = stranger(id).task_template;
        let task = Task { spec, status, desired_state: "shutdown".into(), ..Task::default() };
        world.observed.tasks.insert("gone".into(), vec![task]);
    });
}

#[test]
fn a_secret_that_git_no_longer_has_goes_with_its_generations() {
    let mut world = running(&at("aaa", "hunter2"));
    world.settle(Some(&at("bbb", "hunter3")));
    world.settle(Some(&three("ccc", "1")));
    assert_eq!(world.observed.secrets.len(), 1, "swarm's own rollback would need it");
    world.settle(Some(&three("ddd", "2")));
    assert_eq!(secrets(&world), Vec::<String>::new());
}

#[test]
fn a_content_that_swarm_would_not_take_is_an_error_with_its_place() {
    let check = |size: usize, wanted: &str| {
        let mut desired = at("aaa", &"x".repeat(size));
        let place = Location { file: "compose.yml".into(), line: 40, column: 3 };
        desired.objects.sources.insert("secrets.db".into(), place);
        let plan = World::new().plan(Some(&desired));
        let found = plan.notes.first().map(|note| note.text.clone()).unwrap_or_default();
        assert_eq!(found, wanted);
    };
    check(511_999, "");
    check(512_000, "compose.yml:40:3: secret shop_db has 512000 bytes, and swarm takes at most 511999");
    check(0, "compose.yml:40:3: secret shop_db is empty, and swarm takes nothing empty");
}

#[test]
fn a_large_config_needs_managers_that_take_it() {
    let mut world = World::new();
    let mut desired = three("aaa", "1");
    let spec = ConfigSpec {
        name: "shop_large".into(),
        labels: Some(namespace()),
        data: Sensitive::new(vec![b'x'; 600_000]),
        ..ConfigSpec::default()
    };
    desired.objects.configs.insert("large".into(), Wanted::Own { spec, named: false });
    let mut manager = |name: &str, version: &str| {
        let node = json!({"ID": name, "ManagerStatus": {}, "Description": {"Engine": {"EngineVersion": version}}});
        world.observed.nodes.insert(name.into(), serde_json::from_value(node).unwrap());
        world.plan(Some(&desired)).verdict
    };
    assert_eq!(manager("m1", "28.5.1"), Verdict::Rolling);
    assert_eq!(manager("m2", "20.10.24"), Verdict::Error);
}
