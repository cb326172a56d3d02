use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::spec::ServiceSpec;

/// As `docker stack deploy` sends it.
fn sent() -> Value {
    json!({
        "Name": "shop_api",
        "Labels": {"com.docker.stack.namespace": "shop", "com.docker.stack.image": "app:1", "empty": ""},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "app:1", "Args": ["sleep", ""], "Env": ["A=1", "B="], "Labels": {"x": "y"},
                "Privileges": {"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false},
                "Mounts": [{"Type": "volume", "Source": "shop_data", "Target": "/data", "VolumeOptions": {}}],
                "Secrets": [{"File": {"Name": "db", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "s1", "SecretName": "shop_db"}]
            },
            "Resources": {}, "Placement": {}, "ForceUpdate": 0,
            "Networks": [{"Target": "n1", "Aliases": ["api"]}]
        },
        "Mode": {"Replicated": {}},
        "UpdateConfig": {"Parallelism": 1, "MaxFailureRatio": 0, "Order": ""},
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}
    })
}

/// As swarm gives it back.
fn stored() -> Value {
    json!({
        "Name": "shop_api",
        "Labels": {"com.docker.stack.namespace": "shop", "com.docker.stack.image": "app:1", "empty": ""},
        "TaskTemplate": {
            "ContainerSpec": {
                "Image": "app:1", "Args": ["sleep", ""], "Env": ["A=1", "B="], "Labels": {"x": "y"},
                "Privileges": {"CredentialSpec": null, "SELinuxContext": null}, "Isolation": "default", "Init": null,
                "Mounts": [{"Type": "volume", "Source": "shop_data", "Target": "/data"}],
                "Secrets": [{"File": {"Name": "db", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "s1", "SecretName": "shop_db"}]
            },
            "Resources": {}, "Placement": {}, "ForceUpdate": 0, "Runtime": "container",
            "Networks": [{"Target": "n1", "Aliases": ["api"]}]
        },
        "Mode": {"Replicated": {"Replicas": 1}},
        "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "MaxFailureRatio": 0, "Order": "stop-first"},
        "EndpointSpec": {"Mode": "vip", "Ports": [
            {"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080, "PublishMode": "ingress"}]}
    })
}

fn check(change: impl FnOnce(&mut Value), wanted: &str) {
    let mut value = sent();
    change(&mut value);
    let (new, old): (ServiceSpec, ServiceSpec) =
        (serde_json::from_value(value).unwrap(), serde_json::from_value(stored()).unwrap());
    let sources: BTreeMap<String, Location> = [
        ("services.api".to_owned(), Location { file: "compose.yml".into(), line: 3, column: 3 }),
        ("services.api.image".to_owned(), Location { file: "compose.yml".into(), line: 7, column: 5 }),
    ]
    .into();
    let networks = |id: &str| if id == "n1" { "shop_default".to_owned() } else { id.to_owned() };
    let words = Words { key: "api", sources: &sources, networks: &networks };
    let lines: Vec<String> = differences(&new, &old, words)
        .iter()
        .map(|d| {
            let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "–".into());
            let line = d.location.as_ref().map_or(0, |location| location.line);
            let restarts = if d.restarts { "restarts" } else { "no restart" };
            format!("{}: {} → {} ({restarts}, line {line})", d.what, side(&d.old), side(&d.new))
        })
        .collect();
    assert_eq!(lines.join("\n"), wanted);
    assert_eq!(same(&new, &old), wanted.is_empty());
}

#[test]
fn what_swarm_adds_and_drops_is_no_difference() {
    check(|_| {}, "");
}

#[test]
fn what_swarm_adds_to_a_job_is_no_difference() {
    let spec =
        |mode: Value| serde_json::from_value::<ServiceSpec>(json!({"Name": "shop_migrate", "Mode": mode})).unwrap();
    let check = |sent: Value, stored: Value| {
        assert!(same(&spec(json!({"ReplicatedJob": sent})), &spec(json!({"ReplicatedJob": stored}))));
    };
    check(json!({}), json!({"MaxConcurrent": 1, "TotalCompletions": 1}));
    check(json!({"MaxConcurrent": 3}), json!({"MaxConcurrent": 3, "TotalCompletions": 3}));
}

#[test]
fn an_image_is_told_once_with_its_place_in_the_file() {
    check(
        |spec| {
            spec["TaskTemplate"]["ContainerSpec"]["Image"] = json!("app:2");
            spec["Labels"]["com.docker.stack.image"] = json!("app:2");
        },
        "image: app:1 → app:2 (restarts, line 7)",
    );
}

#[test]
fn a_variable_is_named_and_its_value_is_not_shown() {
    check(
        |spec| spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["A=hunter2", "B="]),
        "variable A: – → – (restarts, line 3)",
    );
}

#[test]
fn an_emptied_variable_is_not_an_absent_one() {
    check(
        |spec| spec["TaskTemplate"]["ContainerSpec"]["Env"] = json!(["A=1", "B"]),
        "variable B: – → – (restarts, line 3)",
    );
}

#[test]
fn a_label_of_the_service_restarts_nothing() {
    check(|spec| spec["Labels"]["traefik.enable"] = json!("true"), "label traefik.enable: – → – (no restart, line 3)");
}

#[test]
fn a_number_of_replicas_restarts_nothing_and_zero_is_a_number() {
    check(|spec| spec["Mode"]["Replicated"]["Replicas"] = json!(0), "replicas: 1 → 0 (no restart, line 3)");
}

#[test]
fn a_published_port_restarts_tasks() {
    check(
        |spec| spec["EndpointSpec"]["Ports"][0]["PublishMode"] = json!("host"),
        "ports: 8080:80/tcp → 8080:80/tcp host (restarts, line 3)",
    );
}

#[test]
fn a_secret_goes_by_the_names_of_its_objects() {
    check(
        |spec| {
            let secret = &mut spec["TaskTemplate"]["ContainerSpec"]["Secrets"][0];
            secret["SecretName"] = json!("shop_db_5e6f7788");
            secret["SecretID"] = json!("");
        },
        "secret: shop_db → shop_db_5e6f7788 (restarts, line 3)",
    );
}

#[test]
fn a_network_goes_by_its_name() {
    check(
        |spec| spec["TaskTemplate"]["Networks"] = json!([{"Target": "shop_back", "Aliases": ["api"]}]),
        "network shop_default: as api → – (restarts, line 3)\nnetwork shop_back: – → as api (restarts, line 3)",
    );
}

#[test]
fn an_init_process_that_is_refused_differs_from_one_not_asked_for() {
    check(|spec| spec["TaskTemplate"]["ContainerSpec"]["Init"] = json!(false), "init: – → false (restarts, line 3)");
}

#[test]
fn a_field_of_a_later_engine_is_named_but_not_shown() {
    check(|spec| spec["TaskTemplate"]["Later"] = json!({"X": 1}), "TaskTemplate.Later.X: – → – (restarts, line 3)");
}

#[test]
fn every_rule_is_used_by_its_own_path() {
    for rule in RULES {
        let path: Vec<String> = rule.path.iter().map(ToString::to_string).collect();
        let found = super::rule(&path).unwrap();
        assert_eq!((found.word, found.compose), (rule.word, rule.compose), "{path:?}");
    }
}
