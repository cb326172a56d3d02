//! The one smoke test of doing, against an engine that answers what it is told to.

use serde_json::json;
use wiremock::matchers::{method, path, path_regex};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::apply::{apply, carry_out};
use super::plan::{Event, Plan};
use super::world::{World, shop, stack};
use crate::io::swarm::{Options, Swarm};
use tokio_util::sync::CancellationToken;

/// An engine that makes everything, but for services, which it treats as told.
async fn engine(services: ResponseTemplate) -> (MockServer, Swarm) {
    let server = MockServer::start().await;
    let answer = |body: serde_json::Value| ResponseTemplate::new(200).set_body_json(body);
    let mocks = [
        Mock::given(path("/_ping")).respond_with(ResponseTemplate::new(200).insert_header("Api-Version", "1.41")),
        Mock::given(method("POST")).and(path("/v1.41/configs/create")).respond_with(answer(json!({"ID": "state"}))),
        Mock::given(method("GET"))
            .and(path_regex("/v1.41/configs/.*"))
            .respond_with(answer(json!({"ID": "state", "Version": {"Index": 5}}))),
        Mock::given(method("POST")).and(path("/v1.41/configs/state/update")).respond_with(ResponseTemplate::new(200)),
        Mock::given(method("POST")).and(path("/v1.41/networks/create")).respond_with(answer(json!({"Id": "net1"}))),
        Mock::given(method("POST")).and(path("/v1.41/services/create")).respond_with(services),
        Mock::given(method("POST"))
            .and(path_regex("/v1.41/services/.*/update"))
            .respond_with(answer(json!({"Warnings": null}))),
        Mock::given(method("GET"))
            .and(path("/v1.41/distribution/app:1@sha256:aa/json"))
            .respond_with(answer(json!({"Descriptor": {"digest": "sha256:aa"}, "Platforms": []}))),
        Mock::given(method("GET"))
            .and(path("/v1.41/distribution/app:1@sha256:bb/json"))
            .respond_with(refused(500, "manifest unknown")),
    ];
    for mock in mocks {
        mock.mount(&server).await;
    }
    let swarm = Swarm::connect(&Options { host: format!("tcp://{}", server.address()), gate: None }).await.unwrap();
    (server, swarm)
}

/// Method, path and body of every write.
async fn writes(server: &MockServer) -> Vec<(String, serde_json::Value)> {
    let requests = server.received_requests().await.unwrap();
    let posts = requests.into_iter().filter(|request| request.method.as_str() != "GET");
    posts.map(|request| (request.url.path().replace("/v1.41", ""), request.body_json().unwrap_or_default())).collect()
}

fn first_deploy() -> Plan {
    World::new().plan(Some(&stack("aaa", &["api app:1"])))
}

fn created() -> ResponseTemplate {
    ResponseTemplate::new(201).set_body_json(json!({"ID": "svc1"}))
}

fn refused(status: u16, message: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({"message": message}))
}

#[tokio::test]
async fn the_state_is_written_first_and_what_was_made_is_noted_last() {
    let (server, swarm) = engine(created()).await;
    let outcome = apply(&first_deploy(), &swarm, &|_| None, &CancellationToken::new()).await;
    assert!(outcome.error.is_none() && outcome.again && outcome.writes == 4);
    assert_eq!(outcome.told[0].event, Event::Started);
    let writes = writes(&server).await;
    let paths: Vec<&str> = writes.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/configs/create", "/networks/create", "/services/create", "/configs/state/update"]);
    assert_eq!(writes[2].1["TaskTemplate"]["Networks"][0]["Target"], "net1", "the ID of what an earlier step made");
    let state = writes[3].1["Labels"]["swarmkeeper.state"].as_str().unwrap();
    assert!(state.contains(r#""services":{"shop_api":"svc1"}"#), "{state}");
}

#[tokio::test]
async fn the_first_error_ends_it_and_what_was_made_is_noted_all_the_same() {
    let (server, swarm) = engine(refused(400, "invalid mount")).await;
    let outcome = apply(&first_deploy(), &swarm, &|_| None, &CancellationToken::new()).await;
    let error = outcome.error.unwrap();
    insta::assert_snapshot!(error, @"create service shop_api: POST /services/create: the engine refused (400): invalid mount");
    assert!(!outcome.again);
    let (path, body) = writes(&server).await.pop().unwrap();
    assert_eq!(path, "/configs/state/update");
    assert!(body["Labels"]["swarmkeeper.state"].as_str().unwrap().contains(r#""networks":{"shop_default":"net1"}"#));
}

#[tokio::test]
async fn somebody_elses_write_is_no_error_but_a_reason_to_look_again() {
    let (_server, swarm) = engine(refused(500, "rpc error: update out of sequence")).await;
    let outcome = apply(&first_deploy(), &swarm, &|_| None, &CancellationToken::new()).await;
    assert!(outcome.error.is_none() && outcome.again && outcome.conflict && outcome.told.is_empty());
}

#[tokio::test]
async fn shutdown_is_honoured_between_steps() {
    let (server, swarm) = engine(created()).await;
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    apply(&first_deploy(), &swarm, &|_| None, &shutdown).await;
    let paths: Vec<String> = writes(&server).await.into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/configs/create"], "the rollout is recorded, and a successor goes on");
}

#[tokio::test]
async fn an_empty_plan_makes_no_call() {
    let (server, swarm) = engine(created()).await;
    let mut world = World::new();
    let desired = stack("aaa", &["api app:1"]);
    world.settle(Some(&desired));
    let before = server.received_requests().await.unwrap().len();
    let plan = world.plan(Some(&desired));
    let outcome = apply(&plan, &swarm, &|_| None, &CancellationToken::new()).await;
    assert!(outcome.writes == 0 && !outcome.again);
    assert_eq!(server.received_requests().await.unwrap().len(), before);
    assert_eq!(plan.stack, shop());
}

#[tokio::test]
async fn a_command_that_meets_another_write_is_decided_again() {
    let server = MockServer::start().await;
    let state = super::StackState::default().encode(&shop()).unwrap();
    let config = json!({"ID": "state", "Version": {"Index": 5}, "Spec": state});
    let update = || Mock::given(method("POST")).and(path("/v1.41/configs/state/update"));
    let mocks = [
        Mock::given(path("/_ping")).respond_with(ResponseTemplate::new(200).insert_header("Api-Version", "1.41")),
        Mock::given(method("GET")).respond_with(ResponseTemplate::new(200).set_body_json(config)),
        update().respond_with(refused(500, "update out of sequence")).up_to_n_times(1).with_priority(1),
        update().respond_with(ResponseTemplate::new(200)),
    ];
    for mock in mocks {
        mock.mount(&server).await;
    }
    let swarm = Swarm::connect(&Options { host: format!("tcp://{}", server.address()), gate: None }).await.unwrap();
    let pause = crate::status::Command::Pause { stack: shop(), reason: "night".into() };
    carry_out(&swarm, &shop(), &pause, time::OffsetDateTime::UNIX_EPOCH).await.unwrap();
    let writes = writes(&server).await;
    assert_eq!(writes.len(), 2);
    assert!(writes[1].1["Labels"]["swarmkeeper.state"].as_str().unwrap().contains("night"));
}

#[tokio::test]
async fn a_restart_writes_the_service_as_it_lives_and_its_wish_first() {
    let (server, swarm) = engine(created()).await;
    let mut world = World::new();
    let desired = stack("aaa", &["api app:1"]);
    world.settle(Some(&desired));
    let wish = crate::status::Command::Restart { stack: shop(), service: "api".into(), reason: "leaks memory".into() };
    world.command(&wish);
    let mut plan = world.plan(Some(&desired));
    // The state of the model lives in no engine.
    plan.state_at = None;
    let outcome = apply(&plan, &swarm, &|_| None, &CancellationToken::new()).await;
    assert!(outcome.error.is_none() && outcome.told.is_empty(), "{:?}", outcome.error);
    let writes = writes(&server).await;
    let paths: Vec<&str> = writes.iter().map(|(path, _)| path.as_str()).collect();
    let id = &world.observed.services["shop_api"].id;
    assert_eq!(paths, ["/configs/create".to_owned(), format!("/services/{id}/update")]);
    let state = writes[0].1["Labels"]["swarmkeeper.state"].as_str().unwrap();
    assert!(state.contains(r#""force_update":1"#), "{state}");
    let live = &world.observed.services["shop_api"].spec.task_template.container_spec.image;
    assert_eq!(writes[1].1["TaskTemplate"]["ForceUpdate"], 1);
    assert_eq!(writes[1].1["TaskTemplate"]["ContainerSpec"]["Image"], json!(live));
}

#[tokio::test]
async fn a_digest_is_asked_for_by_itself() {
    let (_server, swarm) = engine(created()).await;
    let images = ["app:1@sha256:aa", "app:1@sha256:bb"].map(str::to_owned);
    let found = super::observe::resolve(&swarm, images.into(), &|_| None).await;
    assert_eq!(found["app:1@sha256:aa"].as_ref().unwrap().image, "app:1@sha256:aa");
    assert!(found["app:1@sha256:bb"].as_ref().unwrap_err().contains("manifest unknown"));
}
