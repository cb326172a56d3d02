//! The mapping table, row by row; merging; lenience; mistakes. `tests/oracle.rs` compares whole stacks with Docker's CLI.

// Expectations are handed over as literals, which read better without a & each.
#![allow(clippy::needless_pass_by_value)]

use serde_json::{Value, json};

use super::*;
use crate::model::Wanted;

const STRICT: Mode = Mode::Strict;
const LENIENT: Mode = Mode::Lenient;

/// Loads `files`, the first of which is `stacks/s/compose.yml`.
fn load_files(files: &[&str], mode: Mode) -> Result<Loaded, Findings> {
    let name = |n: usize| if n == 0 { "stacks/s/compose.yml".to_owned() } else { format!("stacks/s/{n}.yml") };
    let file = |(n, text): (usize, &&str)| SourceFile { name: name(n), text: (*text).to_owned() };
    load(&Input {
        files: &files.iter().enumerate().map(file).collect::<Vec<_>>(),
        stack: &StackName::new("s").unwrap(),
        environment: &[("HOST", "node-1"), ("EMPTY", ""), ("N", "3"), ("PASSWORD", "hunter2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        read_file: &|path| match path {
            "stacks/s/web.env" => {
                Ok(Some(b"# comment\nFILE=\"quoted\" # kept\nHOST\nABSENT\nEMPTY=\nBOTH=file\n".to_vec()))
            }
            "stacks/s/bad.env" => Ok(Some(b"hunter2 is=here\n=hunter2\n".to_vec())),
            "stacks/shared/key.pem" => Ok(Some(b"hunter2".to_vec())),
            "/etc/shadow" => Err("it is outside of the repository".to_owned()),
            _ => Ok(None),
        },
        folder: None,
        mode,
    })
}

/// What the keys of a service, and sections behind them, change in the spec of a bare one.
fn changes(text: &str, mode: Mode) -> Value {
    let bare = "services:\n  web:\n    image: web";
    let mut spec = spec_of(&load_files(&[&format!("{bare}\n{text}")], mode).unwrap_or_else(|e| panic!("{text}\n{e}")));
    subtract(&mut spec, &spec_of(&load_files(&[bare], mode).unwrap()));
    spec
}

fn spec_of(loaded: &Loaded) -> Value {
    serde_json::to_value(&loaded.objects.services["web"].spec).unwrap()
}

fn subtract(value: &mut Value, base: &Value) {
    if let (Value::Object(value), Value::Object(base)) = (&mut *value, base) {
        for (key, base) in base {
            if value.get(key) == Some(base) {
                value.remove(key);
            } else if let Some(value) = value.get_mut(key) {
                subtract(value, base);
            }
        }
    }
}

fn check(text: &str, expected: Value) {
    assert_eq!(changes(text, STRICT), expected, "{text}");
}

/// The spec's container alone differs.
fn check_container(text: &str, expected: Value) {
    check(&format!("    {text}"), json!({"TaskTemplate": {"ContainerSpec": expected}}));
}

fn check_mount(volume: &str, expected: Value) {
    let volumes =
        "volumes: {vol: , ext: {external: true}, ren: {name: other}, drv: {driver_opts: {size: 10}, labels: [a=b]}}";
    check(
        &format!("    volumes: [{volume}]\n{volumes}"),
        json!({"TaskTemplate": {"ContainerSpec": {"Mounts": [expected]}}}),
    );
}

fn mistakes(text: &str, mode: Mode) -> String {
    load_files(&[text], mode).unwrap_err().to_string()
}

fn warnings(files: &[&str], mode: Mode) -> String {
    let loaded = load_files(files, mode).unwrap_or_else(|e| panic!("{files:?}\n{e}"));
    loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_bare_service_has_what_the_cli_always_sends() {
    let loaded = load_files(&["services: {web: {image: web}}"], STRICT).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&spec_of(&loaded)).unwrap(), @r#"
    {
      "EndpointSpec": {},
      "Labels": {
        "com.docker.stack.image": "web",
        "com.docker.stack.namespace": "s"
      },
      "Mode": {
        "Replicated": {}
      },
      "Name": "s_web",
      "TaskTemplate": {
        "ContainerSpec": {
          "Image": "web:latest",
          "Labels": {
            "com.docker.stack.namespace": "s"
          },
          "Privileges": {
            "CredentialSpec": null,
            "NoNewPrivileges": false,
            "SELinuxContext": null
          }
        },
        "ForceUpdate": 0,
        "Networks": [
          {
            "Aliases": [
              "web"
            ],
            "Target": "s_default"
          }
        ],
        "Placement": {},
        "Resources": {}
      }
    }
    "#);
    let Wanted::Own { spec, named } = &loaded.objects.networks["default"] else {
        panic!("the default network is ours")
    };
    assert_eq!((spec.name.as_str(), spec.driver.as_str(), *named), ("s_default", "overlay", false));
}

#[test]
fn container_keys_map_one_to_one() {
    for (text, expected) in [
        ("command: a \"b c\" # d", json!({"Args": ["a", "b c"]})),
        ("entrypoint: [a, 'b c']", json!({"Command": ["a", "b c"]})),
        ("hostname: h", json!({"Hostname": "h"})),
        ("user: \"1000\"", json!({"User": "1000"})),
        ("working_dir: /w", json!({"Dir": "/w"})),
        ("tty: true", json!({"TTY": true})),
        ("stdin_open: true", json!({"OpenStdin": true})),
        ("read_only: true", json!({"ReadOnly": true})),
        ("init: false", json!({"Init": false})),
        ("stop_signal: SIGINT", json!({"StopSignal": "SIGINT"})),
        ("isolation: hyperv", json!({"Isolation": "hyperv"})),
        ("stop_grace_period: 1m30s", json!({"StopGracePeriod": 90_000_000_000_i64})),
        ("extra_hosts: [\"b:1\", \"a=2\"]", json!({"Hosts": ["1 b", "2 a"]})),
        ("extra_hosts: {b: \"1\", a: \"2\"}", json!({"Hosts": ["2 a", "1 b"]})),
        ("dns: 1.1.1.1", json!({"DNSConfig": {"Nameservers": ["1.1.1.1"]}})),
        ("dns_search: [a, b]", json!({"DNSConfig": {"Search": ["a", "b"]}})),
        ("sysctls: [a=1, b]", json!({"Sysctls": {"a": "1", "b": ""}})),
        ("labels: {a: , b: 1.50, c: 0644, d: yes}", json!({"Labels": {"a": "", "b": "1.5", "c": "420", "d": "yes"}})),
        ("labels: [a, b=c=d]", json!({"Labels": {"a": "", "b": "c=d"}})),
    ] {
        check_container(text, expected);
    }
}

#[test]
fn capabilities_are_normalised() {
    for (text, expected) in [
        ("cap_add: [net_admin, CAP_A, A]", json!({"CapabilityAdd": ["CAP_A", "CAP_NET_ADMIN"]})),
        ("cap_add: [x, all]", json!({"CapabilityAdd": ["ALL"]})),
        ("cap_add: [b]\n    cap_drop: [b, a]", json!({"CapabilityAdd": ["CAP_B"], "CapabilityDrop": ["CAP_A"]})),
    ] {
        check_container(text, expected);
    }
}

#[test]
fn an_integer_ulimit_is_both_limits() {
    check_container(
        "ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}",
        json!({"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}, {"Name": "nproc", "Soft": 5, "Hard": 5}]}),
    );
}

#[test]
fn healthchecks_leave_out_what_is_zero() {
    for (text, expected) in [
        ("healthcheck: {test: curl x, interval: 0s}", json!({"Test": ["CMD-SHELL", "curl x"]})),
        ("healthcheck: {test: [CMD, a], retries: 3}", json!({"Test": ["CMD", "a"], "Retries": 3})),
        ("healthcheck: {disable: true}", json!({"Test": ["NONE"]})),
        ("healthcheck: {start_interval: 2s}", json!({"StartInterval": 2_000_000_000})),
    ] {
        check_container(text, json!({"Healthcheck": expected}));
    }
}

#[test]
fn environment_beats_env_file_and_empty_values_are_looked_up() {
    check_container(
        "env_file: web.env\n    environment: {BOTH: own, HOST: , N: '', OTHER: , ONE: 1}",
        json!({"Env": ["BOTH=own", "EMPTY=", "FILE=\"quoted\" # kept", "HOST=node-1", "N=3", "ONE=1", "OTHER"]}),
    );
}

#[test]
fn ports_are_sorted_by_published_port() {
    let port = |published: u32, target: u32| json!({"Protocol": "tcp", "PublishedPort": published, "TargetPort": target, "PublishMode": "ingress"});
    check(
        "    ports: ['90:1', '80-81:2-3', {target: 5, published: 85, mode: host}]",
        json!({"EndpointSpec": {"Ports": [
            port(80, 2), port(81, 3), {"TargetPort": 5, "PublishedPort": 85, "PublishMode": "host"}, port(90, 1),
        ]}}),
    );
}

#[test]
fn every_kind_of_volume_has_its_options() {
    let own = json!({"Labels": {"com.docker.stack.namespace": "s"}});
    for (volume, expected) in [
        ("vol:/t", json!({"Type": "volume", "Source": "s_vol", "Target": "/t", "VolumeOptions": own})),
        (
            "'ext:/t:ro'",
            json!({"Type": "volume", "Source": "ext", "Target": "/t", "ReadOnly": true, "VolumeOptions": {}}),
        ),
        (
            "'ren:/t:nocopy'",
            json!({"Type": "volume", "Source": "other", "Target": "/t", "VolumeOptions": {"NoCopy": true, "Labels": {"com.docker.stack.namespace": "s"}}}),
        ),
        (
            "drv:/t",
            json!({"Type": "volume", "Source": "s_drv", "Target": "/t", "VolumeOptions": {
                "Labels": {"a": "b", "com.docker.stack.namespace": "s"}, "DriverConfig": {"Options": {"size": "10"}}}}),
        ),
        ("/anonymous", json!({"Type": "volume", "Target": "/anonymous"})),
        (
            "'/a:/b:rshared'",
            json!({"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": "rshared"}}),
        ),
        (
            "{type: tmpfs, target: /t, tmpfs: {size: 5}}",
            json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 5}}),
        ),
        ("{type: npipe, source: a, target: b}", json!({"Type": "npipe", "Source": "a", "Target": "b"})),
        (
            "{type: cluster, source: 'group:g', target: /t}",
            json!({"Type": "cluster", "Source": "group:g", "Target": "/t", "ClusterOptions": {}}),
        ),
    ] {
        check_mount(volume, expected);
    }
}

#[test]
fn leniently_tmpfs_becomes_a_mount() {
    let text = "    tmpfs: ['/run:size=64m,mode=1777', /tmp]";
    assert_eq!(
        changes(text, LENIENT)["TaskTemplate"]["ContainerSpec"]["Mounts"],
        json!([
            {"Type": "tmpfs", "Target": "/run", "TmpfsOptions": {"SizeBytes": 67_108_864, "Mode": 0o1777}},
            {"Type": "tmpfs", "Target": "/tmp"},
        ])
    );
    check(text, json!({}));
}

#[test]
fn networks_are_attached_by_their_real_names() {
    let text = "    networks: {own: {aliases: [a]}, ext: , ren: , host: , default: }
networks: {own: , ext: {external: true}, ren: {name: aaa}, host: {external: true, name: host}}";
    check(
        text,
        json!({"TaskTemplate": {"Networks": [
            {"Target": "aaa", "Aliases": ["web"]},
            {"Target": "ext", "Aliases": ["web"]},
            {"Target": "host"},
            {"Target": "s_default", "Aliases": ["web"]},
            {"Target": "s_own", "Aliases": ["a", "web"]},
        ]}}),
    );
}

#[test]
fn only_networks_that_a_service_uses_are_made() {
    let text = "services: {web: {image: a, networks: [n]}}
networks: {n: {name: fixed, driver_opts: {mtu: 1400}, ipam: {config: [{subnet: 10.0.0.0/24}]}}, unused: }";
    let networks = load_files(&[text], STRICT).unwrap().objects.networks;
    assert_eq!(networks.keys().collect::<Vec<_>>(), ["n"]);
    let Wanted::Own { spec, named: true } = &networks["n"] else { panic!("{networks:?}") };
    assert_eq!(
        serde_json::to_value(spec).unwrap(),
        json!({"Name": "fixed", "Driver": "overlay", "Labels": {"com.docker.stack.namespace": "s"},
            "Options": {"mtu": "1400"}, "IPAM": {"Config": [{"Subnet": "10.0.0.0/24"}]}})
    );
}

#[test]
fn secrets_and_configs_are_referenced_by_name() {
    let text = "    secrets: [key, {source: ext, target: /t, uid: '1', mode: 0400}]
    configs: [key]
    credential_spec: {config: key}
secrets: {key: {file: ../shared/key.pem}, ext: {external: true, name: a}}
configs: {key: {file: ../shared/key.pem}}";
    let file = |name: &str| json!({"Name": name, "UID": "0", "GID": "0", "Mode": 0o444});
    check(
        text,
        json!({"TaskTemplate": {"ContainerSpec": {
            "Secrets": [
                {"File": {"Name": "/t", "UID": "1", "GID": "0", "Mode": 0o400}, "SecretID": "", "SecretName": "a"},
                {"File": file("key"), "SecretID": "", "SecretName": "s_key"},
            ],
            "Configs": [
                {"File": file("key"), "ConfigID": "", "ConfigName": "s_key"},
                {"Runtime": {}, "ConfigID": "", "ConfigName": "s_key"},
            ],
            "Privileges": {"CredentialSpec": {"Config": "s_key", "File": "", "Registry": ""}},
        }}}),
    );
}

#[test]
fn a_secrets_content_is_read_and_never_shown() {
    let text = "services: {web: {image: a}}\nsecrets: {key: {file: ../shared/key.pem, template_driver: golang}, d: {driver: vault}}";
    let loaded = load_files(&[text], STRICT).unwrap();
    let Wanted::Own { spec, named: false } = &loaded.objects.secrets["key"] else { panic!("it is ours") };
    assert_eq!(spec.data.reveal(), b"hunter2");
    assert_eq!(spec.templating.as_ref().unwrap().name, "golang");
    assert!(!format!("{loaded:?}").contains("hunter2"));
    let Wanted::Own { spec, .. } = &loaded.objects.secrets["d"] else { panic!("it is ours") };
    assert_eq!(spec.driver.as_ref().unwrap().name, "vault");
}

#[test]
fn deploy_maps_to_mode_updates_and_resources() {
    for (deploy, expected) in [
        ("replicas: 0", json!({"Mode": {"Replicated": {"Replicas": 0}}})),
        (
            "mode: replicated-job, replicas: 3",
            json!({"Mode": {"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3}}}),
        ),
        ("labels: [a=b]", json!({"Labels": {"a": "b"}})),
        ("endpoint_mode: DNSRR", json!({"EndpointSpec": {"Mode": "dnsrr"}})),
        ("update_config: {}", json!({"UpdateConfig": {"Parallelism": 1, "MaxFailureRatio": 0.0, "Order": ""}})),
        (
            "rollback_config: {parallelism: 0, monitor: 5s, max_failure_ratio: 0.5}",
            json!({"RollbackConfig": {"Parallelism": 0, "Monitor": 5_000_000_000_i64, "MaxFailureRatio": 0.5, "Order": ""}}),
        ),
        (
            "restart_policy: {condition: any, delay: 5s, max_attempts: 0, window: 1m}",
            json!({"TaskTemplate": {"RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0, "Window": 60_000_000_000_i64}}}),
        ),
        (
            "placement: {constraints: [a == b], preferences: [{spread: x}], max_replicas_per_node: 2}",
            json!({"TaskTemplate": {"Placement": {"Constraints": ["a == b"], "Preferences": [{"Spread": {"SpreadDescriptor": "x"}}], "MaxReplicas": 2}}}),
        ),
        (
            "resources: {limits: {cpus: '0.5', memory: 50M, pids: 5}, reservations: {generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]}}",
            json!({"TaskTemplate": {"Resources": {
                "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 52_428_800, "Pids": 5},
                "Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}]}}}}),
        ),
    ] {
        check(&format!("    deploy: {{{deploy}}}"), expected);
    }
    for mode in ["global", "global-job"] {
        let changed = changes(&format!("    deploy: {{mode: {mode}}}"), STRICT);
        let name = if mode == "global" { "Global" } else { "GlobalJob" };
        assert_eq!(changed, json!({"Mode": {name: {}}}));
    }
}

#[test]
fn the_old_restart_counts_where_no_policy_is_given() {
    for (restart, expected) in [
        ("always", json!({"TaskTemplate": {"RestartPolicy": {"Condition": "any"}}})),
        ("unless-stopped", json!({"TaskTemplate": {"RestartPolicy": {"Condition": "any"}}})),
        ("on-failure:3", json!({"TaskTemplate": {"RestartPolicy": {"Condition": "on-failure", "MaxAttempts": 3}}})),
        ("'no'", json!({})),
    ] {
        check(&format!("    restart: {restart}"), expected);
    }
    check(
        "    logging: {driver: d, options: {a: 1}}",
        json!({"TaskTemplate": {"LogDriver": {"Name": "d", "Options": {"a": "1"}}}}),
    );
}

#[test]
fn a_manual_scale_is_known_from_a_given_one() {
    let text = "services: {a: {image: a, deploy: {replicas: 1}}, b: {image: b}}";
    let services = load_files(&[text], STRICT).unwrap().objects.services;
    assert!(services["a"].replicas_given && !services["b"].replicas_given);
}

#[test]
fn depends_on_orders_services_in_either_form() {
    let text = "services: {web: {image: a, depends_on: {db: {condition: service_healthy, restart: true}, gone: {required: false}}}, db: {image: b}}";
    let loaded = load_files(&[text], LENIENT).unwrap();
    assert_eq!(loaded.objects.services["web"].depends_on, ["db"]);
    let text = "services: {a: {image: a, depends_on: [b]}, b: {image: b, depends_on: [c]}, c: {image: c, depends_on: [a, webb]}}";
    insta::assert_snapshot!(mistakes(text, LENIENT), @r#"
    stacks/s/compose.yml:1:26: services.a.depends_on: the services wait for each other: a → b → c → a
    stacks/s/compose.yml:1:90: services.c.depends_on: the service "webb" is not declared
    "#);
    let text = "services: {a: {image: a, depends_on: [webb]}}";
    insta::assert_snapshot!(warnings(&[text], STRICT), @r#"stacks/s/compose.yml:1:26: services.a.depends_on: the service "webb" is not declared"#);
}

#[test]
fn places_are_remembered_for_plans() {
    let text = "services:\n  web:\n    image: a\n    deploy:\n      replicas: 2\nsecrets:\n  k: {external: true}\n";
    let loaded = load_files(&[text, "services:\n  web:\n    image: b\n"], STRICT).unwrap();
    let place = |path: &str| loaded.objects.sources[path].to_string();
    assert_eq!(place("services.web.deploy.replicas"), "stacks/s/compose.yml:5:7");
    assert_eq!(place("secrets.k"), "stacks/s/compose.yml:7:3");
    assert_eq!(place("services.web.image"), "stacks/s/1.yml:3:5");
}

#[test]
fn later_files_override_key_by_key() {
    let base = "services: {web: {image: web, command: a, environment: {A: 1, B: 2}, ports: ['90:1', '80:1'], volumes: ['/b:/y'], tty: true}}";
    let over = "services: {web: {command: b, environment: {B: 3, A: }, ports: ['80:2'], volumes: ['/a:/x', '/c:/y'], tty: false}}";
    let loaded = load_files(&[base, over], STRICT).unwrap();
    let container = &loaded.objects.services["web"].spec.task_template.container_spec;
    assert_eq!(container.args.as_deref().unwrap(), ["b"]);
    assert_eq!(container.env.as_deref().unwrap(), ["A=1", "B=3"]);
    assert!(container.tty);
    let mounts: Vec<_> = container.mounts.iter().flatten().map(|m| format!("{}:{}", m.source, m.target)).collect();
    assert_eq!(mounts, ["/a:/x", "/c:/y"]);
    let ports = loaded.objects.services["web"].spec.endpoint_spec.as_ref().unwrap().ports.as_ref().unwrap();
    assert_eq!(ports.iter().map(|p| (p.published_port, p.target_port)).collect::<Vec<_>>(), [(80, 2), (90, 1)]);
}

#[test]
fn what_merging_loses_is_a_warning() {
    let base =
        "services: {web: {image: a, ports: ['53:53/tcp', '53:53/udp'], logging: {driver: d}, healthcheck: {test: a}}}";
    let over = "services: {web: {logging: {options: {a: b}}, healthcheck: {test: b}}}";
    insta::assert_snapshot!(warnings(&[base, over], STRICT), @"
    stacks/s/1.yml:1:28: services.web.logging.options: the options are lost, since the file before has none to merge them with (write an option in the first file too)
    stacks/s/1.yml:1:60: services.web.healthcheck.test: the tests of the files are joined to one command line, as docker stack deploy does (write the test in one file only)
    stacks/s/compose.yml:1:28: services.web.ports: 53/tcp is dropped: when files are merged, one port stays for each published one (53) (write all ports in one file and merge none into this service)
    ");
}

#[test]
fn leniently_what_compose_files_hold_today_is_accepted() {
    let text = "    user: 1000
    environment: {A: true, B: 1.10}
    ports: [{target: 80, published: '8080', name: http}]
    env_file: [{path: web.env}, {path: none.env, required: false}]
    init: 'true'
    deploy: {replicas: '2', resources: {limits: {cpus: 0.50, memory: 1048576}}}
    volumes: [{type: tmpfs, target: /t, tmpfs: {size: 5m, mode: 01777}}]
configs: {inline: {content: 'host ${HOST}'}}
secrets: {pw: {environment: PASSWORD}}";
    let changed = changes(text, LENIENT);
    let container = &changed["TaskTemplate"]["ContainerSpec"];
    assert_eq!(container["User"], "1000");
    assert_eq!(
        container["Env"],
        json!(["A=true", "B=1.1", "BOTH=file", "EMPTY=", "FILE=\"quoted\" # kept", "HOST=node-1"])
    );
    assert_eq!(container["Init"], true);
    assert_eq!(container["Mounts"][0]["TmpfsOptions"], json!({"SizeBytes": 5_242_880, "Mode": 0o1777}));
    assert_eq!(changed["EndpointSpec"]["Ports"][0]["PublishedPort"], 8080);
    assert_eq!(changed["Mode"]["Replicated"]["Replicas"], 2);
    assert_eq!(
        changed["TaskTemplate"]["Resources"]["Limits"],
        json!({"NanoCPUs": 500_000_000, "MemoryBytes": 1_048_576})
    );
    assert_eq!(
        mistakes(&format!("name: x\nversion: 3.8\nservices:\n  web:\n    image: a\n{text}"), STRICT).lines().count(),
        17
    );
}

#[test]
fn every_key_without_effect_is_named() {
    let text = "version: '2.4'
name: shop
services:
  web:
    image: web
    container_name: web
    build: .
    profiles: [debug]
    ports: ['127.0.0.1:80:80', {target: 1, host_ip: 1.2.3.4}]
    volumes: ['/a:/b:z', {type: bind, source: /a, target: /c, bind: {create_host_path: true}}]
    networks: {default: {ipv4_address: 10.0.0.1, priority: 5}}
    hostname: $UNSET
    restart: always
    deploy: {restart_policy: {condition: any}, resources: {reservations: {devices: [{capabilities: [gpu]}]}}}
    x-mine: {any: thing}
networks: {default: {enable_ipv6: true, ipam: {config: [{subnet: 10.0.0.0/24, gateway: 10.0.0.1}]}}}
";
    insta::assert_snapshot!(warnings(&[text], LENIENT), @r#"
    stacks/s/compose.yml:1:10: version: version 2.4 is read as 3.13 (remove the key)
    stacks/s/compose.yml:2:1: name: has no effect in a swarm (the stack's name is its folder's, or the command line's)
    stacks/s/compose.yml:6:5: services.web.container_name: has no effect in a swarm (the engine names a service's containers; other services reach it by its service name)
    stacks/s/compose.yml:7:5: services.web.build: has no effect in a swarm (build the image before, and push it)
    stacks/s/compose.yml:8:5: services.web.profiles: has no effect in a swarm (the service runs always)
    stacks/s/compose.yml:9:13: services.web.ports[0]: the address 127.0.0.1 has no effect: a published port listens on all addresses
    stacks/s/compose.yml:9:44: services.web.ports[1].host_ip: has no effect in a swarm (a published port listens on all addresses)
    stacks/s/compose.yml:10:15: services.web.volumes[0]: the option "z" has no effect in a swarm
    stacks/s/compose.yml:10:70: services.web.volumes[1].bind.create_host_path: has no effect in a swarm (the folder must be there on every node)
    stacks/s/compose.yml:11:26: services.web.networks.default.ipv4_address: has no effect in a swarm (swarm gives out the addresses)
    stacks/s/compose.yml:11:50: services.web.networks.default.priority: has no effect in a swarm
    stacks/s/compose.yml:12:15: services.web.hostname: the variable UNSET is not declared, so that it is empty here (declare it, or write ${UNSET:-})
    stacks/s/compose.yml:13:5: services.web.restart: has no effect beside deploy.restart_policy
    stacks/s/compose.yml:14:75: services.web.deploy.resources.reservations.devices: has no effect in a swarm (use generic_resources, and declare them on the engines)
    stacks/s/compose.yml:16:22: networks.default.enable_ipv6: has no effect in a swarm
    stacks/s/compose.yml:16:79: networks.default.ipam.config[0].gateway: has no effect in a swarm
    "#);
}

#[test]
fn strictly_ignored_keys_are_named_too() {
    let text = "services: {web: {image: a, privileged: true, expose: ['80'], extra_hosts: [nowhere]}}";
    insta::assert_snapshot!(warnings(&[text], STRICT), @"
    stacks/s/compose.yml:1:28: services.web.privileged: has no effect in a swarm (use cap_add)
    stacks/s/compose.yml:1:46: services.web.expose: has no effect in a swarm (services of one network reach each other on every port)
    stacks/s/compose.yml:1:76: services.web.extra_hosts[0]: a host without an address is left out (write host:ip)
    ");
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_places() {
    let text = "version: '3.8'
services:
  web:
    imgae: web
    enviroment: {A: 1}
    ports: ['80:80:80', {target: 1, published: '80', mode: ingres}, 70000]
    mem_limit: 5m
    deploy:
      replicas: many
      mode: globl
      resources: {limits: {cpus: 0.5, memory: much}}
      update_config: {order: first, delay: 5}
    volumes: [dat:/data, ./here:/there, {type: bind, target: /x}, {type: tmpfs, source: a, target: /t}, 'a:b:c:d']
    networks: [frnt]
    secrets: [pasword, {target: x}]
    env_file: [none.env, bad.env, /etc/shadow]
    healthcheck: {disable: true, test: a}
    restart: sometimes
    command: 'a \"b'
    hostname: '${HOSTNAME:?say it}'
    stop_grace_period: 10
    depends_on: db
  sidecar: {image: Upper/Case}
networks: {front: }
volumes: {data: , e: {external: true, driver: x}}
secrets: {password: {}, k: {file: /etc/shadow}}
extra: 1
";
    insta::assert_snapshot!(mistakes(text, STRICT), @r#"
    stacks/s/bad.env:1: white space in a variable's name (write NAME=value)
    stacks/s/bad.env:2: no variable's name before the = (write NAME=value)
    stacks/s/compose.yml:3:3: services.web: the service has no image: name one
    stacks/s/compose.yml:4:5: services.web.imgae: no such key (did you mean image?)
    stacks/s/compose.yml:5:5: services.web.enviroment: no such key (did you mean environment?)
    stacks/s/compose.yml:6:13: services.web.ports[0]: "80:80:80" is no port: "80" is no IP address (write [published:]target[/protocol])
    stacks/s/compose.yml:6:48: services.web.ports[1].published: found text, accepted: a whole number (remove the quotes)
    stacks/s/compose.yml:6:60: services.web.ports[1].mode: found "ingres", accepted: ingress, host (did you mean ingress?)
    stacks/s/compose.yml:6:69: services.web.ports[2]: "70000" is no port: "70000" is no number from 0 to 65535 (write [published:]target[/protocol])
    stacks/s/compose.yml:7:16: services.web.mem_limit: mem_limit is not supported in a swarm (use deploy.resources)
    stacks/s/compose.yml:9:17: services.web.deploy.replicas: found text, accepted: a whole number
    stacks/s/compose.yml:10:13: services.web.deploy.mode: found "globl", accepted: replicated, global, replicated-job, global-job (did you mean global?)
    stacks/s/compose.yml:11:34: services.web.deploy.resources.limits.cpus: found the number 0.5, accepted: text (put it in quotes)
    stacks/s/compose.yml:11:47: services.web.deploy.resources.limits.memory: "much" is no amount of memory (write a number and its unit, such as 64M or 1g)
    stacks/s/compose.yml:12:30: services.web.deploy.update_config.order: found "first", accepted: start-first, stop-first
    stacks/s/compose.yml:12:44: services.web.deploy.update_config.delay: found the number 5, accepted: a duration (write a number and its unit, such as 90s or 1m30s)
    stacks/s/compose.yml:13:15: services.web.volumes[0]: the volume "dat" is not declared, did you mean data?
    stacks/s/compose.yml:13:26: services.web.volumes[1]: the relative path "./here" names no folder on the nodes (write an absolute path, or use a volume or a config)
    stacks/s/compose.yml:13:41: services.web.volumes[2]: a bind mount needs a source (name a path on the nodes)
    stacks/s/compose.yml:13:67: services.web.volumes[3]: a tmpfs has no source
    stacks/s/compose.yml:13:105: services.web.volumes[4]: the relative path "a:b" names no folder on the nodes (write an absolute path, or use a volume or a config)
    stacks/s/compose.yml:14:5: services.web.networks.frnt: the network "frnt" is not declared, did you mean front?
    stacks/s/compose.yml:15:15: services.web.secrets[0]: the secret "pasword" is not declared, did you mean password?
    stacks/s/compose.yml:15:24: services.web.secrets[1]: source is missing
    stacks/s/compose.yml:16:16: services.web.env_file[0]: there is no file stacks/s/none.env
    stacks/s/compose.yml:16:35: services.web.env_file[2]: the file /etc/shadow cannot be read: it is outside of the repository
    stacks/s/compose.yml:17:5: services.web.healthcheck: disable and test contradict each other
    stacks/s/compose.yml:18:5: services.web.restart: found "sometimes", accepted: no, always, unless-stopped, on-failure[:N]
    stacks/s/compose.yml:19:14: services.web.command: a quote is opened and not closed
    stacks/s/compose.yml:20:15: services.web.hostname: the variable HOSTNAME is required and not declared: say it (declare it where the stack's variables are)
    stacks/s/compose.yml:21:24: services.web.stop_grace_period: found the number 10, accepted: a duration (write a number and its unit, such as 90s or 1m30s)
    stacks/s/compose.yml:22:17: services.web.depends_on: found text, accepted: a list of texts
    stacks/s/compose.yml:23:20: services.sidecar.image: "Upper/Case" is no image reference: the repository's name "Case" must be lower case
    stacks/s/compose.yml:25:22: volumes.e: an external volume takes no driver, driver_opts or labels (remove them, or external)
    stacks/s/compose.yml:26:11: secrets.password: nothing says where the secret's content comes from: file or external
    stacks/s/compose.yml:26:35: secrets.k.file: the file /etc/shadow cannot be read: it is outside of the repository
    stacks/s/compose.yml:27:1: extra: no such key
    "#);
}

#[test]
fn mistakes_never_show_a_secret() {
    for text in [
        "services: {web: {image: a, env_file: bad.env}}",
        "services: {web: {image: a, deploy: {replicas: '${PASSWORD}'}}}",
    ] {
        let mistakes = mistakes(text, STRICT);
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }
}

#[test]
fn mistakes_in_several_files_come_together() {
    let error = load_files(&["services: {web: {image: a, x: 1}}", "services: {a: 1, a: 2}"], STRICT).unwrap_err();
    insta::assert_snapshot!(error, @r#"
    stacks/s/1.yml:1:18: the key "a" stands here a second time; the first is at line 1 (keep one of them)
    stacks/s/compose.yml:1:28: services.web.x: no such key
    "#);
    assert_eq!(load_files(&[], STRICT).unwrap_err().0.len(), 1);
    insta::assert_snapshot!(mistakes("", STRICT), @"
    stacks/s/compose.yml:1:1: found nothing, accepted: a map with services
    ");
    insta::assert_snapshot!(mistakes("include: [a.yml]\nservices: {}", LENIENT), @"
    stacks/s/compose.yml:1:10: include: include is not supported (name all files, or merge them)
    stacks/s/compose.yml:2:1: services: the stack has no service
    ");
}

proptest::proptest! {
    #[test]
    fn no_value_whatever_ends_the_process(key in "[a-z_]{1,12}|ports|volumes|image|command|tmpfs|extra_hosts|env_file|restart|stop_grace_period", value in "[-a-z0-9:,&*$/=.~#{} \u{b5}é]{0,30}") {
        for mode in [STRICT, LENIENT] {
            let text = format!("services: {{web: {{image: a, {key}: ['{value}']}}, b: {{{key}: '{value}'}}}}");
            let _ = load_files(&[&text, &text], mode);
        }
    }
}
