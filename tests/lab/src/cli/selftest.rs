//! Brings a lab up, breaks it in every way, removes it, and looks for leftovers.
//!
//! It is the lab's own integration test: run it twice in a row on a new machine, and a test suite may trust the lab there.

mod leftovers;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use std::process::Stdio;
use std::time::{Duration, Instant};
use swarmkeeper_lab::{Dns, GitFault, Image, Lab, Node, Options, Owner, Slow, Target};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// How long a swarm takes to notice a lost node, with room.
const NOTICE: Duration = Duration::from_mins(1);
const WEB_PORT: u16 = 18080;

pub(crate) async fn run() -> Result<()> {
    let start = Instant::now();
    let lab = Box::pin(Lab::up(Options::default())).await?;
    println!("ok    up ({:.1} s)", start.elapsed().as_secs_f32());
    let tested = Box::pin(test(&lab)).await;
    if let Err(error) = &tested {
        println!("FAIL  {error:#}");
        keep_logs(&lab);
    }
    lab.down().await.context("down")?;
    step("nothing is left after down", leftovers::expect_none()).await?;
    tested?;
    step("a killed owner leaves nothing", killed_owner()).await?;
    step("what a killed owner and a killed reaper left, the next lab removes", killed_reaper()).await?;
    println!("all is well ({:.0} s)", start.elapsed().as_secs_f32());
    Ok(())
}

async fn test(lab: &Lab) -> Result<()> {
    step("images are pushed, pulled with credentials, and mirrored", images(lab)).await?;
    step("what goes through the recorded socket is recorded, and the tests' own requests are not", recording(lab))
        .await?;
    step("streams, exec and build pass the recorder", streams(lab)).await?;
    step("Consul answers through its recorder, blocking queries too", consul(lab)).await?;
    step("the recorder looks down when the real part is", looks_down(lab)).await?;
    step("a killed container is replaced, a frozen one is not", containers(lab)).await?;
    step("failing images fail, sick ones are unhealthy", sick_images(lab)).await?;
    step("git is served over ssh and HTTP, and broken on purpose", git(lab)).await?;
    step("a second lab is refused", second_lab()).await?;
    step("a partitioned node is lost, and back when healed", partition(lab)).await?;
    step("a slow cable is slow", slow(lab)).await?;
    step("a dead node is lost, and back when revived", dead_node(lab)).await?;
    step("engines and Consul agents are killed, stopped and frozen", parts(lab)).await
}

async fn step(name: &str, test: impl Future<Output = Result<()>>) -> Result<()> {
    let start = Instant::now();
    Box::pin(test).await.with_context(|| name.to_owned())?;
    println!("ok    {name} ({:.1} s)", start.elapsed().as_secs_f32());
    Ok(())
}

/// The logs of a failed run would go away with the lab.
fn keep_logs(lab: &Lab) {
    let target = std::env::temp_dir().join("swarmkeeper-lab-failed");
    for (folder, name) in
        lab.nodes().iter().map(|node| (node.dir(), node.name())).chain([(lab.layout().host(), "host")])
    {
        let target = target.join(name);
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        for entry in entries.flatten().filter(|entry| entry.path().extension().is_some_and(|kind| kind == "log")) {
            // Best effort: the failure itself is reported.
            let _ = std::fs::create_dir_all(&target);
            let _ = std::fs::copy(entry.path(), target.join(entry.file_name()));
        }
    }
    println!("      logs are in {}", target.display());
}

/// The docker client as an agent would use it: on the recorded socket.
fn recorded_docker(node: &Node, arguments: &[&str]) -> Command {
    let mut command = node.recorded_docker_command(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn output(mut command: Command) -> Result<String> {
    let output = command.output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

async fn images(lab: &Lab) -> Result<()> {
    let registry = lab.registry();
    let (first, second) = (registry.push("app", "1.0.0").await?, registry.push("app", "1.1.0").await?);
    ensure!(first != second, "two tags have one digest");
    ensure!(registry.digest("app", "1.1.0").await? == Some(second), "the digest is another");
    registry.push_image("app", "moving", &Image::new().content("one")).await?;
    let moved = registry.push_image("app", "moving", &Image::new().content("two").padding(3_000_000)).await?;
    ensure!(registry.digest("app", "moving").await? == Some(moved), "the tag did not move");

    lab.node(2).docker(["pull", "--quiet", &registry.reference("app", "1.0.0")]).await?;
    let mirrored = format!("{}/app:1.1.0", registry.mirror_address());
    lab.node(4).docker(["pull", "--quiet", &mirrored]).await?;
    let mut anonymous = lab.node(3).docker_command(["pull", &registry.reference("app", "1.0.0")]);
    anonymous.env("DOCKER_CONFIG", "/nonexistent");
    ensure!(!anonymous.output().await?.status.success(), "the origin asks for no credentials");

    let context = lab.layout().dir().join("context");
    std::fs::create_dir_all(&context)?;
    std::fs::write(
        context.join("Dockerfile"),
        format!("FROM {}\nRUN echo built >/www/index.html\n", registry.reference("app", "1.0.0")),
    )?;
    let built = registry.push_context("built", "1", &context).await?;
    ensure!(built.starts_with("sha256:"), "no digest: {built}");

    registry.push_image("lab", "1", &Image::new().program(std::env::current_exe()?)).await?;
    let version = lab.node(1).docker(["run", "--rm", &registry.reference("lab", "1"), "--version"]).await?;
    ensure!(version == concat!("lab ", env!("CARGO_PKG_VERSION")), "the program in its image says {version}");

    registry.stop().await?;
    ensure!(
        lab.node(3).docker(["pull", &registry.reference("app", "1.0.0")]).await.is_err(),
        "the stopped registry answers"
    );
    registry.start().await
}

async fn recording(lab: &Lab) -> Result<()> {
    let (node, record) = (lab.node(1), lab.record());
    let mark = record.mark()?;
    let image = lab.registry().reference("app", "1.0.0");
    let publish = format!("mode=host,published={WEB_PORT},target=8080");
    let arguments = [
        "service",
        "create",
        "--with-registry-auth",
        "--detach",
        "--name",
        "web",
        "--mode",
        "global",
        "--publish",
        &publish,
    ];
    output(recorded_docker(node, &[&arguments[..], &[&image]].concat())).await?;
    node.docker(["config", "create", "unseen", "/etc/hostname"]).await?;
    let writes = record.swarm_writes(mark)?;
    let [create] = writes.as_slice() else { bail!("not one write but {writes:?}") };
    ensure!(create.node == "m1" && create.target == Target::Engine && create.method == "POST", "{create}");
    ensure!(create.route() == "/services/create" && create.status == Some(201), "{create}");
    let body: serde_json::Value = serde_json::from_str(create.body.as_deref().context("no body was recorded")?)?;
    ensure!(body["Name"] == "web", "the body is another's: {body}");
    ensure!(create.user_agent.as_ref().is_some_and(|agent| agent.contains("Docker")), "{create}");
    for node in lab.nodes() {
        lab.eventually(NOTICE, async || {
            let answer = node.http_get(WEB_PORT, "/").await?;
            ensure!(&answer.body()[..] == b"app 1.0.0\n", "{:?}", answer.body());
            Ok(())
        })
        .await
        .with_context(|| format!("web on {}", node.name()))?;
    }
    Ok(())
}

async fn streams(lab: &Lab) -> Result<()> {
    let node = lab.node(2);
    let mut events =
        recorded_docker(node, &["events", "--format", "{{.Type}} {{.Action}}"]).kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(events.stdout.take().context("no output")?).lines();
    let containers = node.containers("web").await?;
    let [container] = containers.as_slice() else { bail!("not one container of web but {containers:?}") };

    // Input, its end, and output, over an upgraded connection.
    let mut exec = recorded_docker(node, &["exec", "--interactive", container, "cat"]).stdin(Stdio::piped()).spawn()?;
    let mut stdin = exec.stdin.take().context("no input")?;
    stdin.write_all(b"there and back").await?;
    drop(stdin);
    let exec = tokio::time::timeout(NOTICE, exec.wait_with_output()).await.context("exec does not end")??;
    ensure!(exec.stdout == b"there and back", "exec printed {exec:?}");

    let seen = tokio::time::timeout(NOTICE, async {
        while let Some(line) = lines.next_line().await? {
            if line.contains("exec_start") {
                return anyhow::Ok(());
            }
        }
        bail!("the events ended")
    });
    seen.await.context("no event came through")??;
    events.kill().await?;

    let context = lab.layout().dir().join("context");
    let build = ["build", "--quiet", "--tag", "built-through-the-recorder", context.to_str().context("no UTF-8")?];
    let mut build = recorded_docker(node, &build);
    build.env("DOCKER_BUILDKIT", "0");
    output(build).await?;
    Ok(())
}

async fn consul(lab: &Lab) -> Result<()> {
    let (node, record) = (lab.node(4), lab.record());
    let mark = record.mark()?;
    let base = format!("http://{}/v1", node.consul_address());
    curl(node, &["-X", "PUT", "-d", "one", &format!("{base}/kv/selftest")]).await?;
    let session =
        curl(node, &["-X", "PUT", "-d", "{\"TTL\": \"60s\"}", "http://127.0.0.1:8500/v1/session/create"]).await?;
    let session: serde_json::Value = serde_json::from_str(&session)?;
    let id = session["ID"].as_str().context("no session")?;
    curl(node, &["-X", "PUT", &format!("{base}/session/renew/{id}")]).await?;
    node.consul_put("/v1/kv/selftest-unseen", "x").await?;
    let paths: Vec<String> = record.writes(mark)?.into_iter().map(|write| write.path).collect();
    ensure!(paths == ["/v1/kv/selftest", "/v1/session/create"], "recorded writes: {paths:?}");
    ensure!(record.consul_kv_writes(mark)?.len() == 1, "not one KV write");

    let entry = node.consul_get("/v1/kv/selftest").await?;
    let index = entry[0]["ModifyIndex"].as_u64().context("no index")?;
    let url = format!("{base}/kv/selftest?raw&wait=60s&index={index}");
    let waiting = tokio::spawn({
        let node = node.clone();
        async move { curl(&node, &[&url]).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    ensure!(!waiting.is_finished(), "the blocking query did not block");
    node.consul_put("/v1/kv/selftest", "two").await?;
    let value =
        tokio::time::timeout(Duration::from_secs(5), waiting).await.context("the blocking query sleeps on")???;
    ensure!(value == "two", "the blocking query answered {value}");
    Ok(())
}

/// busybox's wget speaks neither PUT nor DELETE, and curl may be missing: a few lines of hyper on the recorded address.
async fn curl(node: &Node, arguments: &[&str]) -> Result<String> {
    let (mut method, mut body) = ("GET", "");
    let mut rest = arguments;
    while let [flag, value, tail @ ..] = rest {
        match *flag {
            "-X" => method = value,
            _ => body = value,
        }
        rest = tail;
    }
    let [url] = rest else { bail!("one URL, please") };
    let uri: hyper::Uri = url.parse()?;
    let port = uri.port_u16().context("no port")?;
    let path = uri.path_and_query().context("no path")?.as_str();
    let request = Request::builder().method(method).uri(path).header("user-agent", "selftest");
    let answer = node.http(port, request.body(Full::new(Bytes::from(body.to_owned())))?).await?;
    ensure!(answer.status().is_success(), "{method} {url}: {}", answer.status());
    Ok(String::from_utf8_lossy(answer.body()).into_owned())
}

async fn looks_down(lab: &Lab) -> Result<()> {
    let node = lab.node(3);
    let mut events = recorded_docker(node, &["events"]).kill_on_drop(true).spawn()?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    ensure!(events.try_wait()?.is_none(), "the events ended early");
    node.kill_engine().await?;
    tokio::time::timeout(Duration::from_secs(5), events.wait()).await.context("the events outlive the engine")??;
    ensure!(output(recorded_docker(node, &["version"])).await.is_err(), "the killed engine answers");
    node.start_engine().await?;
    output(recorded_docker(node, &["version"])).await?;
    node.kill_consul().await?;
    let refused = tokio::time::timeout(Duration::from_secs(5), curl(node, &["http://127.0.0.1:8500/v1/status/leader"]));
    ensure!(refused.await.context("the killed Consul's recorder hangs")?.is_err(), "the killed Consul answers");
    node.start_consul().await?;
    curl(node, &["http://127.0.0.1:8500/v1/status/leader"]).await.map(drop)
}

async fn containers(lab: &Lab) -> Result<()> {
    let node = lab.node(4);
    let old = node.containers("web").await?;
    node.kill_container("web").await?;
    let web = async || {
        let new = node.containers("web").await?;
        ensure!(new.len() == 1 && new != old, "the container is still {new:?}");
        ensure!(node.http_get(WEB_PORT, "/").await?.status().is_success());
        Ok(())
    };
    lab.eventually(NOTICE, web).await?;
    node.pause_container("web").await?;
    let answer = tokio::time::timeout(Duration::from_secs(1), node.http_get(WEB_PORT, "/")).await;
    // The web server is a child of the frozen process and answers on; what matters is that nobody has replaced it.
    drop(answer);
    let frozen = node.containers("web").await?;
    node.resume_container("web").await?;
    ensure!(node.containers("web").await? == frozen, "a frozen container was replaced");
    Ok(())
}

async fn sick_images(lab: &Lab) -> Result<()> {
    let (registry, node) = (lab.registry(), lab.node(4));
    registry.push_image("broken", "1", &Image::new().failing()).await?;
    registry.push_image("checked", "1", &Image::new().healthcheck()).await?;
    let broken = node.docker_command(["run", "--rm", &registry.reference("broken", "1")]).output().await?;
    ensure!(broken.status.code() == Some(1), "the failing image: {broken:?}");
    node.docker(["run", "--detach", "--name", "checked", &registry.reference("checked", "1")]).await?;
    let health = async |expected: &str| {
        let health = node.docker(["inspect", "--format", "{{.State.Health.Status}}", "checked"]).await?;
        ensure!(health == expected, "the container is {health}, not {expected}");
        Ok(())
    };
    lab.eventually(NOTICE, async || health("healthy").await).await?;
    node.docker(["exec", "checked", "touch", "/tmp/sick"]).await?;
    lab.eventually(NOTICE, async || health("unhealthy").await).await?;
    let start = Instant::now();
    node.docker(["stop", "checked"]).await?;
    ensure!(start.elapsed() < Duration::from_secs(5), "the image does not end on SIGTERM");
    node.docker(["rm", "checked"]).await.map(drop)
}

async fn git(lab: &Lab) -> Result<()> {
    let (server, repo) = (lab.git(), lab.repo("selftest").await?);
    let first = repo.commit(&[("stacks/web.yml", Some("services: {}\n")), ("gone", Some("x"))], "First").await?;
    let second = repo.commit(&[("gone", None)], "Second").await?;
    ensure!(repo.head().await? == second, "HEAD is another");
    for url in [repo.http(), repo.http_with_auth(), repo.ssh(), repo.file()] {
        ensure!(remote_head(lab, &url).await? == second, "{url} has another HEAD");
    }
    ensure!(remote_head(lab, &repo.http_private()).await.is_err(), "no password was asked for");
    repo.reset(&first).await?;
    ensure!(remote_head(lab, &repo.ssh()).await? == first, "the reset is not seen");
    for fault in [GitFault::Refuse, GitFault::Error(503)] {
        server.break_with(fault).await?;
        ensure!(remote_head(lab, &repo.ssh()).await.is_err(), "ssh answers in spite of {fault:?}");
        ensure!(remote_head(lab, &repo.http()).await.is_err(), "HTTP answers in spite of {fault:?}");
    }
    server.break_with(GitFault::Hang).await?;
    for url in [repo.http(), repo.ssh()] {
        let hanging = tokio::time::timeout(Duration::from_secs(2), remote_head(lab, &url)).await;
        ensure!(hanging.is_err(), "{url} does not hang: {hanging:?}");
    }
    server.restore().await?;
    for url in [repo.http(), repo.ssh()] {
        ensure!(remote_head(lab, &url).await? == first, "{url} is not restored");
    }
    Ok(())
}

async fn remote_head(lab: &Lab, url: &str) -> Result<String> {
    let mut command = Command::new("git");
    command
        .args(["ls-remote", url, "HEAD"])
        .env("GIT_SSH_COMMAND", lab.git().ssh_command())
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .kill_on_drop(true);
    let text = output(command).await?;
    Ok(text.split_whitespace().next().context("no HEAD")?.to_owned())
}

async fn second_lab() -> Result<()> {
    let Err(error) = Lab::up(Options::default()).await else { bail!("it came up") };
    let (error, pid) = (format!("{error:#}"), std::process::id().to_string());
    ensure!(error.contains(&pid), "the error does not name process {pid}: {error}");
    Ok(())
}

async fn expect_node(lab: &Lab, name: &str, state: &str) -> Result<()> {
    lab.eventually(NOTICE, async || {
        let nodes =
            lab.node(1).docker(["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"]).await?;
        ensure!(nodes.lines().any(|line| line.trim() == format!("{name} {state}")), "{name} is not {state}:\n{nodes}");
        Ok(())
    })
    .await
}

async fn partition(lab: &Lab) -> Result<()> {
    lab.partition(4).await?;
    expect_node(lab, "w1", "Down").await?;
    // Inside, life goes on.
    ensure!(lab.node(4).http_get(WEB_PORT, "/").await?.status().is_success(), "its own containers are out of reach");
    lab.node(4).consul_get("/v1/agent/self").await?;
    lab.heal(4).await?;
    expect_node(lab, "w1", "Ready").await
}

async fn slow(lab: &Lab) -> Result<()> {
    let image = lab.registry().reference("app", "moving");
    lab.slow(4, Slow { kilobits: Some(8_000), ..Slow::default() }).await?;
    let start = Instant::now();
    lab.node(4).docker(["pull", "--quiet", &image]).await?;
    let slow = start.elapsed();
    lab.clear_slow(4).await?;
    // Three megabytes at one a second.
    ensure!(slow > Duration::from_secs(2), "the pull took {slow:?}");
    Ok(())
}

async fn dead_node(lab: &Lab) -> Result<()> {
    let node = lab.node(3);
    node.kill().await?;
    ensure!(!node.is_alive(), "it lives");
    ensure!(node.docker(["version"]).await.is_err(), "its engine answers");
    expect_node(lab, "m3", "Down Unreachable").await?;
    lab.node(1).consul_put("/v1/kv/selftest", "three").await?;
    node.revive().await?;
    expect_node(lab, "m3", "Ready Reachable").await?;
    lab.eventually(NOTICE, async || {
        ensure!(node.http_get(WEB_PORT, "/").await?.status().is_success());
        node.consul_get("/v1/kv/selftest").await?;
        Ok(())
    })
    .await
}

async fn parts(lab: &Lab) -> Result<()> {
    let node = lab.node(2);
    node.pause_engine().await?;
    let frozen = tokio::time::timeout(Duration::from_secs(1), node.docker(["version"])).await;
    node.resume_engine().await?;
    ensure!(frozen.is_err(), "the frozen engine answers");
    node.docker(["version"]).await?;
    node.pause_consul().await?;
    let frozen = tokio::time::timeout(Duration::from_secs(1), node.consul_get("/v1/agent/self")).await;
    node.resume_consul().await?;
    ensure!(frozen.is_err(), "the frozen Consul answers");
    node.restart_engine().await?;
    node.restart_consul().await?;
    node.exec(&["ip", "address", "show", "eth0"]).await?;
    node.spawn("sleeper", &["sleep", "60"]).await?;
    ensure!(node.is_running("sleeper").await, "the daemon does not run");
    node.signal("sleeper", "TERM").await?;
    lab.eventually(NOTICE, async || {
        ensure!(!node.is_running("sleeper").await, "the daemon does not end");
        Ok(())
    })
    .await?;
    expect_node(lab, "m2", "Ready Reachable").await
}

/// A lab of another process, to be killed.
async fn other_lab() -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("up").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let end = Instant::now() + Duration::from_mins(2);
    while !Owner::noted().is_some_and(|owner| Some(owner.process.pid) == child.id() && owner.is_ready()) {
        ensure!(child.try_wait()?.is_none(), "the other lab did not come up");
        ensure!(Instant::now() < end, "the other lab takes too long");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(child)
}

async fn killed_owner() -> Result<()> {
    let mut owner = other_lab().await?;
    // What a guest has started goes as well.
    let guest = Lab::attach().await?;
    guest.node(2).kill().await?;
    guest.node(2).revive().await?;
    guest.registry().push("app", "1").await?;
    owner.kill().await?;
    let end = Instant::now() + Duration::from_secs(30);
    while leftovers::expect_none().await.is_err() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    leftovers::expect_none().await
}

async fn killed_reaper() -> Result<()> {
    let mut owner = other_lab().await?;
    let reaper = leftovers::reaper_of(owner.id().context("the other lab ended")?)?;
    ensure!(Command::new("kill").args(["-KILL", &reaper.to_string()]).status().await?.success(), "the reaper is gone");
    owner.kill().await?;
    ensure!(leftovers::expect_none().await.is_err(), "nothing is left, though nobody removed it");
    let lab = Lab::up(Options { dns: Dns::Consul, say: std::sync::Arc::new(|_| {}), ..Options::default() }).await?;
    lab.registry().push("app", "1").await?;
    let lookup = ["run", "--rm", "--entrypoint", "nslookup", &lab.registry().reference("app", "1"), "m2.node.consul"];
    let answer = lab.node(1).docker(lookup).await?;
    lab.down().await?;
    ensure!(answer.contains("10.77.0.2"), "a container does not find m2.node.consul: {answer}");
    leftovers::expect_none().await
}
