//! Stacks as the CLI would have deployed them, imported and planned again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::sample::subsequence;
use serde_json::json;
use time::macros::datetime;
use wiremock::matchers::path;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;
use crate::cli::output::Paint;
use crate::compose::{self, Input, Mode, SourceFile};
use crate::config::{self, Flags, Inputs};
use crate::image::ImageRef;
use crate::model::{StackObjects, Wanted};
use crate::spec::{Config, Labels, Network, NetworkSpec, Secret, Service};

const NOW: OffsetDateTime = datetime!(2026-01-02 03:04:05 UTC);

/// Every key of a service that the compose format can say and swarm keeps, with values that are odd to write.
const SERVICE: &[&str] = &[
    "command: [sh, -c, 'echo $$HOME', '', yes, '0644', '1_000', \"a\\nb\"]",
    "entrypoint: /bin/tini -- 'a b'",
    "hostname: 'h{{.Task.Slot}}'",
    "user: '1000:1000'",
    "working_dir: /srv/my app",
    "stop_signal: SIGQUIT",
    "tty: true",
    "stdin_open: true",
    "read_only: true",
    "init: false",
    "stop_grace_period: 1m30s",
    "environment: {PRICE: '5$$', EMPTY: '', DATE: '2001-01-01', YES: 'yes', BARE: }",
    "labels: {a: '', 'b.c/d': 'x: y #z'}",
    "healthcheck: {test: 'curl -f http://x || exit 1', interval: 1500ms, timeout: 2s, start_period: 1h, retries: 3}",
    "healthcheck: {disable: true}",
    "extra_hosts: ['db:10.0.0.1', 'six:::1']",
    "dns: [1.1.1.1]\n    dns_search: [example.com]",
    "cap_add: [net_admin, CAP_SYS_TIME]\n    cap_drop: [ALL]",
    "sysctls: {net.core.somaxconn: 1024}",
    "ulimits: {nofile: {soft: 1024, hard: 2048}, nproc: 64}",
    "logging: {driver: json-file, options: {max-size: 10m}}",
    "ports: ['80', '9000/udp', {target: 443, mode: host, published: 8443}, '53']",
    "tmpfs: ['/run:size=64m,mode=1777']",
    "secrets: [token, {source: named, target: /etc/token, uid: '33', gid: '33', mode: 0400}]",
    "configs: [site, {source: named, target: /etc/site.conf, mode: 0440}, theirs]",
    "credential_spec: {registry: my-spec}",
    "restart: on-failure:3",
    "x-own: {anything: goes}",
];

/// The same below `deploy`.
const DEPLOY: &[&str] = &[
    "labels: {traefik.enable: 'true', rule: 'Host(`x`) && Path(`/$$a`)'}",
    "update_config: {parallelism: 0, delay: 10s, order: start-first, max_failure_ratio: 0.3, failure_action: rollback}",
    "rollback_config: {monitor: 90s}",
    "restart_policy: {condition: on-failure, delay: 0s, max_attempts: 5, window: 2m}",
    "placement: {constraints: ['node.role == worker'], preferences: [{spread: node.labels.zone}], max_replicas_per_node: 2}",
    "resources: {limits: {cpus: '0.25', memory: 64M, pids: 10}, reservations: {memory: 1000, cpus: '1.5'}}",
    "endpoint_mode: dnsrr",
];

const MODES: &[&str] =
    &["", "replicas: 3", "replicas: 0", "mode: global", "mode: replicated-job\n      replicas: 4", "mode: global-job"];

const VOLUMES: &[&str] = &[
    "'data:/data:ro'",
    "'named:/named'",
    "'theirs:/theirs'",
    "'/srv/x:/x:rshared'",
    "'/anonymous'",
    "{type: bind, source: '/srv/{{.Node.Hostname}}/$$y', target: /y, read_only: true}",
    "{type: volume, source: opts, target: /opts, volume: {nocopy: true}}",
    "{type: tmpfs, target: /t, tmpfs: {size: 1000}}",
];

const NETWORKS: &[&str] = &[
    "",
    "networks: [default]",
    "networks: [front, back]",
    "networks: [host]",
    "networks: {back: {aliases: [api, db]}, front: {driver_opts: {a: b}}, theirs: {}}",
];

const REST: &str = "
networks:
  default: {attachable: true, driver_opts: {encrypted: ''}}
  front: {internal: true, labels: {x: y}, ipam: {config: [{subnet: 172.30.0.0/24}]}}
  back: {name: backbone}
  theirs: {external: true, name: default}
  host: {external: true}
volumes:
  data: {labels: {backup: 'yes'}}
  named: {name: precious}
  opts: {driver: local, driver_opts: {type: nfs, o: addr=nas, device: ':/x'}}
  theirs: {external: true}
secrets:
  token: {file: token}
  named: {file: named, name: token_v2}
configs:
  site: {file: site, template_driver: golang, labels: {a: b}}
  named: {file: named, name: site_v7}
  theirs: {external: true, name: site}
";

fn load(compose: &str) -> StackObjects {
    let loaded = compose::load(&Input {
        files: &[SourceFile { name: "compose.yml".to_owned(), text: compose.to_owned() }],
        stack: &StackName::new("shop").unwrap(),
        environment: &BTreeMap::new(),
        read_file: &|path| Ok(Some(format!("content of {path}\0").into_bytes())),
        folder: None,
        mode: Mode::Lenient,
    });
    loaded.unwrap_or_else(|findings| panic!("{findings}\n{compose}")).objects
}

/// The swarm after `docker stack deploy`, with what swarm adds by itself.
fn live(objects: &StackObjects) -> Observed {
    let mut networks: Vec<Network> = objects.networks.values().map(live_network).collect();
    // Another stack's.
    networks.push(live_network(&Wanted::External("billing_default".to_owned())));
    let secrets = objects.secrets.values().map(|secret| {
        let (name, labels) = match secret {
            Wanted::External(name) => (name.clone(), None),
            Wanted::Own { spec, .. } => (spec.name.clone(), spec.labels.clone()),
        };
        let mut live = Secret { id: format!("id-{name}"), ..Secret::default() };
        (live.spec.name, live.spec.labels) = (name, labels);
        live
    });
    let configs: Vec<Config> = objects.configs.values().map(live_config).collect();
    let services = objects.services.values().map(|service| live_service(&service.spec)).collect();
    Observed::new(services, Vec::new(), networks, secrets.collect(), configs, Vec::new())
}

fn live_network(network: &Wanted<NetworkSpec>) -> Network {
    let (name, spec) = match network {
        Wanted::External(name) => (name.clone(), NetworkSpec { driver: "overlay".into(), ..NetworkSpec::default() }),
        Wanted::Own { spec, .. } => (spec.name.clone(), spec.clone()),
    };
    let mut options = spec.options.unwrap_or_default();
    options.insert("com.docker.network.driver.overlay.vxlanid_list".into(), "4097".into());
    let chosen = serde_json::from_value(json!({"Driver": "default", "Config": [{"Subnet": "10.0.1.0/24"}]})).unwrap();
    Network {
        id: format!("id-{name}"),
        name,
        driver: spec.driver,
        scope: "swarm".into(),
        labels: spec.labels,
        options: Some(options),
        internal: spec.internal,
        attachable: spec.attachable,
        ipam: spec.ipam.or(Some(chosen)),
        ..Network::default()
    }
}

fn live_config(config: &Wanted<crate::spec::ConfigSpec>) -> Config {
    let spec = match config {
        Wanted::External(name) => crate::spec::ConfigSpec { name: name.clone(), ..crate::spec::ConfigSpec::default() },
        Wanted::Own { spec, .. } => spec.clone(),
    };
    let mut live = Config { id: format!("id-{}", spec.name), ..Config::default() };
    let data = STANDARD.encode(spec.data.reveal());
    live.spec = spec;
    live.spec.extra.insert("Data".into(), data.into());
    live
}

fn live_service(spec: &crate::spec::ServiceSpec) -> Service {
    let mut spec = spec.clone();
    let template = &mut spec.task_template;
    for network in template.networks.iter_mut().flatten() {
        network.target = format!("id-{}", network.target);
    }
    template.runtime = Some("container".into());
    template.force_update = 3;
    let container = &mut template.container_spec;
    let digest = format!("sha256:{}", "0a".repeat(32)).parse().unwrap();
    container.image = ImageRef::parse(&container.image).unwrap().with_digest(&digest).familiar();
    container.isolation = Some("default".into());
    for secret in container.secrets.iter_mut().flatten() {
        secret.secret_id = format!("id-{}", secret.secret_name);
    }
    for config in container.configs.iter_mut().flatten() {
        config.config_id = format!("id-{}", config.config_name);
    }
    Service { id: format!("id-{}", spec.name), spec, ..Service::default() }
}

/// The import of the swarm that this compose file was deployed to.
fn import_of(compose: &str) -> (Import, bool) {
    imported(&live(&load(compose)), "stacks", NOW).unwrap_or_else(|failure| panic!("{failure:?}"))
}

fn file(import: &Import, path: &str) -> String {
    String::from_utf8(import.files("stacks")[path].clone()).unwrap()
}

fn a_service(key: &'static str) -> impl Strategy<Value = String> {
    let image = prop::sample::select(vec!["nginx", "app:1.2", "registry.example.com:5000/team/app:v1"]);
    (
        image,
        subsequence(SERVICE, 0..SERVICE.len()),
        subsequence(DEPLOY, 0..=DEPLOY.len()),
        prop::sample::select(MODES),
        subsequence(VOLUMES, 0..=VOLUMES.len()),
        prop::sample::select(NETWORKS),
    )
        .prop_map(move |(image, keys, deploy, mode, volumes, networks)| {
            let mut lines = vec![format!("image: {image}")];
            let mut seen = BTreeSet::new();
            lines.extend(keys.iter().filter(|line| seen.insert(line.split(':').next())).map(|line| (*line).to_owned()));
            if !networks.is_empty() {
                lines.push(networks.to_owned());
            }
            if !volumes.is_empty() {
                lines.push(format!("volumes: [{}]", volumes.join(", ")));
            }
            let deploy: Vec<&str> = deploy.into_iter().chain([mode]).filter(|line| !line.is_empty()).collect();
            if !deploy.is_empty() {
                lines.push(format!("deploy:\n      {}", deploy.join("\n      ")));
            }
            format!("  {key}:\n    {}\n", lines.join("\n    "))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_cli_deployed_is_imported_so_that_nothing_would_change(web in a_service("web"), api in a_service("a.p-i")) {
        let compose = format!("services:\n{web}{api}{REST}");
        let (import, is_exact) = import_of(&compose);
        prop_assert_eq!(import.stacks.values().map(|stack| stack.services).sum::<usize>(), 2);
        prop_assert!(is_exact, "{:#?}\n{}\n{compose}", import.stacks.values(), file(&import, "stacks/shop/compose.yml"));
    }
}

#[test]
fn an_imported_stack_reads_as_a_person_would_have_written_it() {
    let compose = "services:
  web:
    image: nginx:1.27
    ports: ['80:80']
    environment: {A: '1'}
    configs: [{source: site, target: /etc/nginx/conf.d/site.conf}]
    secrets: [tls]
    volumes: ['data:/data']
    deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 64M}}}
configs: {site: {file: site}}
secrets: {tls: {file: tls}}
volumes: {data: {}}
";
    let (import, is_exact) = import_of(compose);
    assert!(is_exact);
    insta::assert_snapshot!(file(&import, "stacks/shop/compose.yml"), @r#"
    # Imported from the running swarm by `swarmkeeper import`.
    services:
      web:
        image: nginx:1.27
        environment:
          - "A=1"
        ports:
          - target: 80
            published: 80
        volumes:
          - type: volume
            source: data
            target: /data
        secrets:
          - tls
        configs:
          - source: site
            target: /etc/nginx/conf.d/site.conf
        deploy:
          replicas: 2
          resources:
            limits:
              cpus: "0.5"
              memory: "64M"
    volumes:
      data: {}
    secrets:
      tls:
        external: true
        name: shop_tls
    configs:
      site:
        file: configs/site
    "#);
    insta::assert_snapshot!(file(&import, "stacks/shop/stack.yml"), @r#"
    # The stack runs already: it waits for `swarmkeeper adopt shop`, which restarts nothing.
    adopt: ask
    "#);
    let paths: Vec<String> = import.files("stacks").into_keys().collect();
    assert_eq!(paths, ["stacks/shop/compose.yml", "stacks/shop/configs/site", "stacks/shop/stack.yml"]);
    assert_eq!(import.files("stacks")["stacks/shop/configs/site"], b"content of site\0");
}

#[test]
fn what_the_format_cannot_say_is_named_in_the_file_and_in_the_output() {
    let mut observed = live(&load("services:\n  web:\n    image: nginx\n"));
    let web = observed.services.get_mut("shop_web").unwrap();
    web.spec.task_template.container_spec.groups = Some(vec!["docker".into()]);
    web.spec.task_template.networks.as_mut().unwrap()[0].target = "gone\rservices: {}".into();
    web.spec.labels.as_mut().unwrap().insert("com.docker.stack.image".into(), "nginx:1.26".into());
    let (import, is_exact) = imported(&observed, "stacks", NOW).unwrap();
    assert!(!is_exact);
    insta::assert_snapshot!(report(&import, 2, Path::new("repo")), @"
    shop: 1 service
      web was deployed as nginx:1.26 and updated by hand to nginx:latest; that is what lives, and stays
      web is on the network gone services: {}, which nobody knows
      not as it lives: service shop_web: TaskTemplate.ContainerSpec.Groups, network gone services: {}, network shop_default
    1 stack in repo, 2 files written. Next: look at them, commit, push; every stack then waits for `swarmkeeper adopt STACK`
    ");
    assert!(!file(&import, "stacks/shop/compose.yml").contains('\r'));
}

#[test]
fn a_service_without_a_stack_is_written_where_nothing_is_planned_from_it() {
    let mut observed = live(&load("services:\n  web:\n    image: nginx\n"));
    let mut single = observed.services["shop_web"].clone();
    single.spec.name = "redis".into();
    single.spec.labels = Some(Labels::new());
    single.spec.task_template.container_spec.labels = None;
    let mut lost = single.clone();
    lost.spec.name = "other_web".into();
    lost.spec.labels = Some([("com.docker.stack.namespace".to_owned(), "shop".to_owned())].into());
    observed.services.insert("redis".into(), single);
    observed.services.insert("other_web".into(), lost);
    let (import, is_exact) = imported(&observed, "stacks", NOW).unwrap();
    assert!(!is_exact);
    assert_eq!(
        import.left_out,
        ["service other_web has the label of the stack shop, whose services are called shop_…"]
    );
    insta::assert_snapshot!(file(&import, "single-services/redis.yml"), @r#"
    # Imported from the running swarm by `swarmkeeper import`.
    # redis belongs to no stack. In one it would be called STACK_redis: to move it, remove the service, put this file into a folder of its own below the stacks, and it is made anew
    services:
      redis:
        image: nginx:latest@sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a
        networks:
          shop_default:
            aliases:
              - web
    networks:
      shop_default:
        external: true
    "#);
}

#[tokio::test]
async fn importing_asks_the_engine_and_writes_to_the_folder_alone() {
    let observed = live(&load("services:\n  web:\n    image: nginx\n    secrets: [t]\nsecrets: {t: {file: t}}\n"));
    let server = MockServer::start().await;
    let ping = ResponseTemplate::new(200).insert_header("Api-Version", "1.41");
    Mock::given(path("/_ping")).respond_with(ping).mount(&server).await;
    for (list, body) in [
        ("services", json!(observed.services.values().collect::<Vec<_>>())),
        ("networks", json!(observed.networks.values().collect::<Vec<_>>())),
        ("secrets", json!(observed.secrets.values().collect::<Vec<_>>())),
        ("configs", json!([])),
        ("tasks", json!([])),
        ("nodes", json!([])),
    ] {
        let answer = ResponseTemplate::new(200).set_body_json(body);
        Mock::given(path(format!("/v1.41/{list}"))).respond_with(answer).mount(&server).await;
    }
    let environment = BTreeMap::from([("DOCKER_HOST".to_owned(), format!("tcp://{}", server.address()))]);
    let read = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let inputs = Inputs { flags: &Flags::default(), environment: &environment, read: &read };
    let context = Context { config: config::resolve(&inputs).unwrap().config, paint: Paint::PLAIN };
    let dir = tempfile::tempdir().unwrap();
    let arguments = Arguments { dir: dir.path().join("repo"), force: false };
    assert_eq!(run(&context, &arguments).await.unwrap(), Exit::Done);
    let compose = std::fs::read_to_string(dir.path().join("repo/stacks/shop/compose.yml")).unwrap();
    assert!(compose.contains("image: nginx\n") && compose.contains("name: shop_t\n"), "{compose}");
    assert!(run(&context, &arguments).await.unwrap_err().errors[0].contains("exist already"));
    let requests = server.received_requests().await.unwrap();
    assert!(requests.iter().all(|request| request.method == "GET"), "{requests:?}");
}

#[test]
fn files_that_are_there_are_kept_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let files = BTreeMap::from([("a/b".to_owned(), b"new".to_vec()), ("c".to_owned(), b"new".to_vec())]);
    std::fs::write(dir.path().join("c"), "old").unwrap();
    let failure = write(dir.path(), &files, false).unwrap_err();
    assert!(failure.errors[0].ends_with(": c exist already; nothing was written"), "{failure:?}");
    assert!(!dir.path().join("a").exists());
    write(dir.path(), &files, true).unwrap();
    assert_eq!(std::fs::read(dir.path().join("c")).unwrap(), b"new");
    let outside = BTreeMap::from([("../x".to_owned(), Vec::new())]);
    assert!(write(dir.path(), &outside, true).is_err());
}
