//! From a commit to what runs.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::world::{World, app, seconds};

pub async fn a_commit_becomes_running_services(world: &World) -> Result<()> {
    // The registry wants a user and a password: this image is private.
    world
        .commit(
            "shop",
            &[
                (
                    "compose.yml",
                    Some(&app("1.0.0", "    configs: [greeting]\n", "configs: {greeting: {file: greeting.txt}}\n")),
                ),
                ("greeting.txt", Some("hello\n")),
            ],
        )
        .await?;
    world.reaches("shop", "ok", seconds(60)).await?;
    let tasks = world.running_tasks("shop_web").await?;
    ensure!(tasks.len() == 2, "two tasks run, not {tasks:?}");
    let image = world.service_image("shop_web").await?;
    ensure!(image.contains("app:1.0.0@sha256:"), "runs by digest: {image}");
    let greeting = world.config_content("shop_greeting").await?;
    ensure!(greeting == "hello\n", "the config came along: {greeting:?}");
    Ok(())
}

pub async fn a_second_sync_writes_nothing(world: &World) -> Result<()> {
    world.settled().await?;
    let mark = world.mark();
    world.sync().await?;
    world.sync().await?;
    world.no_writes(mark).await
}

pub async fn a_commit_that_touches_only_a_readme_writes_nothing(world: &World) -> Result<()> {
    world.settled().await?;
    let mark = world.mark();
    let revision = world.commit_at_root(&[("README.md", Some("words\n"))]).await?;
    world.has_seen(&revision).await?;
    world.sync().await?;
    world.no_writes(mark).await?;
    let shop = world.stack("shop").await?;
    ensure!(shop["revision"] != json!(revision), "the stack keeps the revision that made it: {shop}");
    Ok(())
}

pub async fn a_changed_config_is_rolled_out_under_a_new_name(world: &World) -> Result<()> {
    let before = world.running_tasks("shop_web").await?;
    world.commit("shop", &[("greeting.txt", Some("good day\n"))]).await?;
    world.converges("shop", seconds(60)).await?;
    let spec = world.service_spec("shop_web").await?;
    let name =
        spec["TaskTemplate"]["ContainerSpec"]["Configs"][0]["ConfigName"].as_str().unwrap_or_default().to_owned();
    ensure!(name.starts_with("shop_greeting_"), "a name with a hash: {name:?}");
    ensure!(world.config_content(&name).await? == "good day\n", "with the new content");
    ensure!(world.config_content("shop_greeting").await? == "hello\n", "the old one stays for a rollback");
    let after = world.running_tasks("shop_web").await?;
    ensure!(before.iter().all(|task| !after.contains(task)), "its tasks were restarted for it");
    Ok(())
}

pub async fn a_template_is_rendered_with_its_values(world: &World) -> Result<()> {
    let template = app("{{tag}}", "    environment: {GREETING: \"{{greeting}}\"}\n", "");
    world
        .commit(
            "rendered",
            &[
                ("compose.yml.hbs", Some(&template)),
                ("values.yml", Some("tag: 1.0.0\ngreeting: from a file\n")),
                ("stack.yml", Some("values_file: values.yml\nvalues: {greeting: from the stack}\n")),
            ],
        )
        .await?;
    world.reaches("rendered", "ok", seconds(60)).await?;
    let spec = world.service_spec("rendered_web").await?;
    let environment = &spec["TaskTemplate"]["ContainerSpec"]["Env"];
    ensure!(*environment == json!(["GREETING=from the stack"]), "{environment}");
    Ok(())
}

pub async fn a_stack_waits_for_the_one_it_comes_after(world: &World) -> Result<()> {
    let slow = app("1.0.0", "    healthcheck: {test: [\"CMD\", \"true\"], interval: 4s}\n", "");
    world
        .commit_all(&[
            ("stacks/first/compose.yml", Some(&slow)),
            ("stacks/second/compose.yml", Some(&app("1.0.0", "", ""))),
            ("stacks/second/stack.yml", Some("after: [first]\n")),
        ])
        .await?;
    world.reaches("second", "waiting", seconds(20)).await?;
    world.reaches("second", "ok", seconds(60)).await?;
    let first_ran = world.first_running("first_web").await?;
    let second_made = world.created_at("second_web").await?;
    ensure!(first_ran <= second_made, "first ran at {first_ran}, second was made at {second_made}");
    Ok(())
}

pub async fn a_service_removed_from_git_is_removed_and_its_volume_stays(world: &World) -> Result<()> {
    let with = format!(
        "{}  keeper:\n    image: {}\n    volumes: [\"data:/data\"]\n    deploy: {{endpoint_mode: dnsrr}}\nvolumes: {{data: {{}}}}\n",
        app("1.0.0", "", ""),
        world.image("1.0.0")
    );
    world.commit("shrinking", &[("compose.yml", Some(&with))]).await?;
    world.reaches("shrinking", "ok", seconds(60)).await?;
    let node = world.node_of("shrinking_keeper").await?;
    let without = format!("{}volumes: {{data: {{}}}}\n", app("1.0.0", "", ""));
    let web = world.running_tasks("shrinking_web").await?;
    world.commit("shrinking", &[("compose.yml", Some(&without))]).await?;
    world.gone("shrinking_keeper", seconds(30)).await?;
    world.reaches("shrinking", "ok", seconds(30)).await?;
    ensure!(world.running_tasks("shrinking_web").await? == web, "the other service's tasks were left alone");
    let volumes = world.docker_on(node, &["volume", "ls", "-q"]).await?;
    ensure!(volumes.contains("shrinking_data"), "the volume stays: {volumes}");
    Ok(())
}

pub async fn deploy_and_the_docker_cli_agree(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("compose.yml");
    std::fs::write(&file, app("1.0.0", "    environment: {A: b}\n    labels: {c: d}\n", ""))?;
    let file = file.to_string_lossy().into_owned();
    world.docker(&["stack", "deploy", "--with-registry-auth", "-c", &file, "bycli"]).await?;
    world.task_runs("bycli_web", seconds(60)).await?;
    let plan = world.keeper(&["plan", "-c", &file, "bycli"]).await?;
    ensure!(plan.code == 0, "after the CLI's deploy nothing is left to do: {plan:?}");
    let mark = world.mark();
    let deploy = world.keeper(&["deploy", "--with-registry-auth", "-c", &file, "bycli"]).await?;
    ensure!(deploy.code == 0, "{deploy:?}");
    world.no_engine_writes(mark).await?;

    let deploy = world.keeper(&["deploy", "--with-registry-auth", "-c", &file, "byus"]).await?;
    ensure!(deploy.code == 0, "{deploy:?}");
    let tasks = world.running_tasks("byus_web").await?;
    ensure!(tasks.len() == 2, "deploy waited until it ran: {tasks:?}");
    world.docker(&["stack", "deploy", "--with-registry-auth", "-c", &file, "byus"]).await?;
    ensure!(world.running_tasks("byus_web").await? == tasks, "the CLI's deploy of the same file restarts nothing");
    Ok(())
}

/// Whatever an engine makes of what it stores, the plan after the deployment is empty, whoever deployed.
pub async fn a_stack_that_uses_every_kind_of_key_is_written_once(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("content"), "content\n")?;
    for (stack, by_us, subnet) in [("bothbycli", false, "10.99.0.0/24"), ("bothbyus", true, "10.98.0.0/24")] {
        let file = folder.path().join(format!("{stack}.yml"));
        std::fs::write(&file, WIDE.replace("IMAGE", &world.image("1.0.0")).replace("SUBNET", subnet))?;
        let file = file.to_string_lossy().into_owned();
        let deploy = ["deploy", "--detach", "--with-registry-auth", "-c", &file, stack];
        if by_us {
            let said = world.keeper(&deploy).await?;
            ensure!(said.code == 0, "{said:?}");
        } else {
            world.docker(&["stack", "deploy", "--with-registry-auth", "-c", &file, stack]).await?;
        }
        let plan = world.keeper(&["plan", "-c", &file, stack]).await?;
        ensure!(plan.code == 0, "after the deployment nothing is left to do: {plan:?}");
        // Not the recorder's writes: the engine is asked about the secret's content by an update that it refuses.
        let service = format!("{stack}_web");
        let before = world.service_version(&service).await?;
        let again = world.keeper(&deploy).await?;
        ensure!(again.code == 0 && again.out.contains("0 writes"), "{again:?}");
        ensure!(world.service_version(&service).await? == before, "{service} is written again");
        world.docker(&["stack", "rm", stack]).await?;
        world.gone(&format!("{stack}_ingress"), seconds(30)).await?;
    }
    Ok(())
}

/// One key of every kind that ends in a service's spec. The tasks need not run.
const WIDE: &str = "
services:
  web:
    image: IMAGE
    hostname: web
    user: '0:0'
    working_dir: /
    command: [a, '']
    entrypoint: [/app]
    environment: {A: '', B: 'x=y'}
    labels: {l: ''}
    tty: true
    stdin_open: true
    read_only: true
    init: false
    stop_signal: SIGQUIT
    stop_grace_period: 0s
    extra_hosts: ['db:10.0.0.1']
    dns: [10.0.0.1]
    dns_search: [a.test]
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    sysctls: {net.core.somaxconn: 1024}
    ulimits: {nofile: {soft: 5, hard: 6}, core: -1}
    healthcheck: {test: a, interval: 5s, retries: 3, start_period: 0s}
    logging: {driver: json-file, options: {max-size: 1m}}
    ports: [{target: 80, published: 18080, mode: host}, {target: 81, mode: host, protocol: udp}]
    volumes:
      - data:/data
      - /anonymous
      - {type: tmpfs, target: /t, tmpfs: {size: 1000}}
      - {type: bind, source: /, target: /b, read_only: true, bind: {propagation: rslave}}
      - {type: volume, source: data, target: /n, volume: {nocopy: true}}
    networks: {default: {aliases: [x]}, back: {}}
    secrets: [{source: s, target: t, uid: '5', mode: 0400}]
    configs: [c]
    isolation: default
    deploy:
      replicas: 0
      labels: {d: ''}
      endpoint_mode: dnsrr
      update_config: {parallelism: 0, delay: 1s, order: start-first}
      rollback_config: {}
      restart_policy: {condition: on-failure, delay: 0s, max_attempts: 0, window: 1m}
      placement: {constraints: [node.role==worker], preferences: [{spread: node.labels.z}], max_replicas_per_node: 1}
      resources:
        limits: {cpus: '0.5', memory: 10M, pids: 5}
        reservations: {memory: 5M, generic_resources: [{discrete_resource_spec: {kind: gpu, value: 1}}]}
  plain: {image: IMAGE, deploy: {replicas: 0, resources: {}, placement: {}, update_config: {}, restart_policy: {}}}
  everywhere: {image: IMAGE, networks: [hostnet], deploy: {mode: global, placement: {constraints: [node.role==nobody]}}}
  job: {image: IMAGE, deploy: {mode: replicated-job, replicas: 0}}
  ingress: {image: IMAGE, ports: ['18081:81', '18082:82/udp', '83'], deploy: {replicas: 0}}
networks:
  back: {driver_opts: {a: b}, internal: true, attachable: true, ipam: {config: [{subnet: SUBNET}]}, labels: {n: ''}}
  hostnet: {external: true, name: host}
volumes: {data: {driver_opts: {type: tmpfs, device: tmpfs}, labels: {v: x}}}
secrets: {s: {file: ./content, labels: {s: ''}}}
configs: {c: {file: ./content, template_driver: golang}}
";

pub async fn git_over_https_is_read_from_a_trusted_server_only(world: &World) -> Result<()> {
    world.commit("trusted", &[("compose.yml", Some(&app("1.0.0", "", "")))]).await?;
    world.reaches("trusted", "ok", seconds(60)).await?;
    let (url, ca) = world.repo_over_https();
    let url = format!("SWARMKEEPER_GIT_URL={url}");
    let ca = format!("{}:/ca.pem:ro", ca.display());
    let mut options = vec!["-e", "SWARMKEEPER_CLUSTER=lab", "-e", &url, "-v", &ca];
    let said = world.keeper_in_image(&options, &["plan", "trusted"]).await?;
    ensure!(said.code == 1 && said.err.contains("certificate that is not trusted"), "{said:?}");
    options.extend(["-e", "SSL_CERT_FILE=/ca.pem"]);
    let said = world.keeper_in_image(&options, &["plan", "trusted"]).await?;
    ensure!(said.code == 0 && said.out.contains("trusted") && said.out.contains("0 writes"), "{said:?}");
    Ok(())
}

pub async fn what_a_policy_forbids_is_refused_with_its_line(world: &World) -> Result<()> {
    let file = app("1.0.0", "    volumes: [/var/run/docker.sock:/s]\n", "");
    world.commit("sly", &[("compose.yml", Some(&file))]).await?;
    world.reaches("sly", "ok", seconds(60)).await?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("swarmkeeper.yml");
    let url = world.repo_over_http();
    std::fs::write(
        &config,
        format!(
            "cluster: lab\ngit: {{url: \"{url}\"}}\nstate_dir: {0}\npolicy: {{sly: {{images: [\"**\"]}}}}\n",
            folder.path().display()
        ),
    )?;
    let config = config.to_string_lossy();
    let said = world.keeper(&["--config", &config, "plan", "sly"]).await?;
    let all = format!("{}{}", said.out, said.err);
    ensure!(said.code == 1 && all.contains("stacks/sly/compose.yml:4") && all.contains("/run/docker.sock"), "{said:?}");
    Ok(())
}

pub async fn an_imported_stack_is_adopted_as_it_is(world: &World) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("by-hand.yml");
    let more = "    configs: [motd]\n    environment: {A: \"1\", B: \"$$x\"}\n    networks: {back: {aliases: [w]}}\n";
    let rest = "networks: {back: {attachable: true}}\nconfigs: {motd: {file: motd.txt}}\n";
    std::fs::write(&file, app("1.0.0", more, rest))?;
    std::fs::write(folder.path().join("motd.txt"), "by hand\n")?;
    world.docker(&["stack", "deploy", "--with-registry-auth", "-c", &file.to_string_lossy(), "handmade"]).await?;
    world.task_runs("handmade_web", seconds(60)).await?;
    let (tasks, version) = (world.running_tasks("handmade_web").await?, world.service_version("handmade_web").await?);

    let mark = world.mark();
    let repo = folder.path().join("repo");
    let said = world.keeper(&["import", &repo.to_string_lossy()]).await?;
    world.no_engine_writes(mark).await?;
    let imported = repo.join("stacks/handmade");
    ensure!(imported.join("compose.yml").is_file(), "{said:?}");
    let mut files = Vec::new();
    for name in ["compose.yml", "stack.yml", "configs/motd"] {
        files.push((name, std::fs::read_to_string(imported.join(name))?));
    }
    let files: Vec<(&str, Option<&str>)> = files.iter().map(|(name, text)| (*name, Some(text.as_str()))).collect();
    world.commit("handmade", &files).await?;
    world.reaches("handmade", "adopt", seconds(30)).await?;
    world.keeper_ok(&["adopt", "handmade"]).await?;
    world.reaches("handmade", "ok", seconds(30)).await?;
    ensure!(world.running_tasks("handmade_web").await? == tasks, "no task was restarted");
    ensure!(world.service_version("handmade_web").await? == version, "the service was not even written");
    Ok(())
}

pub async fn a_rollout_waits_for_consuls_checks_if_it_is_asked_to(world: &World) -> Result<()> {
    let file = |path: &str| {
        format!(
            "services:\n  web:\n    image: {}\n    ports: [{{target: 8080, published: 18099, mode: host}}]\n    labels: {{SERVICE_8080_CHECK_HTTP: {path}, SERVICE_8080_CHECK_INTERVAL: 1s}}\n    deploy: {{endpoint_mode: dnsrr}}\n",
            world.image("1.0.0")
        )
    };
    let (good, bad) = (file("/"), file("/missing"));
    let settings = "consul_checks: true\ntimeout: 12s\n";
    world.commit("checked", &[("compose.yml", Some(&good)), ("stack.yml", Some(settings))]).await?;
    world.reaches("checked", "ok", seconds(60)).await?;
    world.commit("checked", &[("compose.yml", Some(&bad))]).await?;
    world.reaches("checked", "held", seconds(60)).await?;
    let note = world.stack("checked").await?["note"].to_string();
    ensure!(note.contains("Consul's check") && note.contains("is critical"), "it says what Consul says: {note}");
    let spec = world.service_spec("checked_web").await?;
    let path = &spec["TaskTemplate"]["ContainerSpec"]["Labels"]["SERVICE_8080_CHECK_HTTP"];
    ensure!(*path == "/", "the service went back: {path}");
    world.commit("checked", &[("compose.yml", Some(&good))]).await?;
    world.reaches("checked", "ok", seconds(60)).await
}
