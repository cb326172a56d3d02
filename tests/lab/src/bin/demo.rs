//! The main job on real parts: a git commit becomes running services on four nodes, and what runs is in Consul.
//!
//! It takes the lab that is up (`make demo` raises one), deploys the given binary on it as a user would, serves the sample Config
//! Repo, and then looks with docker, dig and curl, not with our own words.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use swarmkeeper_lab::{Lab, keeper};
use tokio::process::Command;

/// How long the stacks of the sample repo may take to run.
const SYNC_MAX: Duration = Duration::from_mins(3);

/// The stacks of the sample repo.
const SAMPLE: &str = "stack/config-repo";

#[tokio::main]
async fn main() -> Result<()> {
    let binary = std::env::args().nth(1).context("usage: demo BINARY, from the top of the checkout")?;
    let checkout = std::env::current_dir()?;
    let lab = Lab::attach().await.context("no lab is up: `make lab` raises one")?;

    step("the sample's images, pushed to the lab's registry");
    for tag in ["1.0.0", "1.1.0"] {
        lab.registry().push("app", tag).await?;
    }

    step("the sample Config Repo, served over ssh");
    let repo = lab.repo("config").await?;
    let files = files_below(&checkout.join(SAMPLE)).await?;
    let changes: Vec<(&str, Option<&str>)> =
        files.iter().map(|(path, text)| (path.as_str(), Some(text.as_str()))).collect();
    let revision = repo.commit(&changes, "The sample Config Repo").await?;

    // So that the line to try next can simply push.
    repo.git(&["remote", "add", "origin", &repo.file()]).await?;
    repo.git(&["push", "--quiet", "--set-upstream", "origin", "main"]).await?;

    step("stack/swarmkeeper.yml, deployed with docker stack deploy");
    keeper::deploy(&lab, Path::new(&binary), &checkout, &repo.ssh(), "poll_interval: 5s\n").await?;

    step("waiting for the commit to become running services");
    wait_until_all_run(&lab).await?;

    show(&lab, &revision).await?;
    println!(
        "\nTry next:\n  cd {work} && sed -i 's/1\\.0\\.0/1.1.0/' stacks/hello.yml env/lab.env && git commit -qam 'app 1.1.0' && git push -q && sleep 10 && \
         DOCKER_HOST=unix://{socket} docker service ls\n\nConsul's UI   http://{address}:8500/ui\nour status    SWARMKEEPER_API_TOKEN={token} \
         {binary} --agent http://{address}:{port} status\ntake it away  make lab-down",
        work = repo.work().display(),
        socket = lab.node(1).engine_socket().display(),
        address = lab.node(1).address(),
        token = keeper::API_TOKEN,
        port = keeper::PORT,
    );
    Ok(())
}

fn step(what: &str) {
    println!("==> {what}");
}

/// Every file below `folder`, with its path relative to it.
async fn files_below(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let mut entries = tokio::fs::read_dir(&next).await.with_context(|| next.display().to_string())?;
        while let Some(entry) = entries.next_entry().await? {
            if entry.file_type().await?.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let path = entry.path().strip_prefix(folder)?.to_string_lossy().into_owned();
            files.push((path, tokio::fs::read_to_string(entry.path()).await?));
        }
    }
    Ok(files)
}

/// Services as docker counts them: `name running/wanted`.
async fn services(lab: &Lab) -> Result<Vec<(String, String)>> {
    let listed = lab.node(1).docker(["service", "ls", "--format", "{{.Name}} {{.Replicas}}"]).await?;
    let services = listed.lines().filter_map(|line| line.split_once(' '));
    Ok(services.map(|(name, replicas)| (name.to_owned(), replicas.to_owned())).collect())
}

async fn wait_until_all_run(lab: &Lab) -> Result<()> {
    let began = Instant::now();
    let mut said = String::new();
    loop {
        let services = services(lab).await?;
        let runs = |replicas: &str| {
            replicas.split(' ').next().and_then(|counts| counts.split_once('/')).is_some_and(|(a, b)| a == b)
        };
        let ours = services.iter().filter(|(name, _)| !name.starts_with("swarmkeeper_"));
        let (running, all) =
            ours.fold((0, 0), |(running, all), (_, replicas)| (running + usize::from(runs(replicas)), all + 1));
        let line = format!("    {running} of {all} services run");
        if line != said {
            println!("{line}");
            said = line;
        }
        let settled = all > 0 && running == all && stacks(&services) >= stacks_of_the_sample();
        if settled {
            return Ok(());
        }
        if began.elapsed() > SYNC_MAX {
            bail!("not within {SYNC_MAX:?}; the leader's log: docker service logs swarmkeeper_keeper");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn stacks(services: &[(String, String)]) -> usize {
    let mut names: Vec<&str> = services
        .iter()
        .filter_map(|(name, _)| name.split_once('_'))
        .map(|(stack, _)| stack)
        .filter(|stack| *stack != "swarmkeeper")
        .collect();
    names.sort_unstable();
    names.dedup();
    names.len()
}

fn stacks_of_the_sample() -> usize {
    std::fs::read_dir(Path::new(SAMPLE).join("stacks")).map_or(1, Iterator::count)
}

/// What runs where, by docker, dig and curl.
async fn show(lab: &Lab, revision: &str) -> Result<()> {
    println!("\nRevision {} runs.\n\n$ docker service ls", revision.get(..7).unwrap_or(revision));
    println!(
        "{}",
        lab.node(1)
            .docker(["service", "ls", "--format", "table {{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}"])
            .await?
    );
    println!("$ docker ps, on each node");
    for node in lab.nodes() {
        let names = node.docker(["ps", "--format", "{{.Names}}"]).await?;
        let names: Vec<&str> = names.lines().filter_map(|name| name.rsplit_once('.')).map(|(name, _)| name).collect();
        println!("{:<4}{}", node.name(), names.join("  "));
    }
    let dns = lab.node(1).dns_address();
    let (server, port) = (format!("@{}", dns.ip()), dns.port().to_string());
    let catalogue = lab.node(1).consul_get("/v1/catalog/services").await?;
    let names: Vec<&str> = catalogue.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    println!("\n$ curl http://{}:8500/v1/catalog/services\n{}", lab.node(1).address(), names.join("  "));
    for name in names.iter().filter(|name| !matches!(**name, "consul" | "swarmkeeper-leader")) {
        let question = format!("{name}.service.consul");
        let answer = run("dig", &[&server, "-p", &port, "+short", "SRV", &question]).await?;
        println!("\n$ dig {server} -p {port} +short SRV {question}\n{}", answer.trim_end());
    }
    let leader = run("dig", &[&server, "-p", &port, "+short", "leader.swarmkeeper.service.consul"]).await?;
    ensure!(!leader.trim().is_empty(), "leader.swarmkeeper.service.consul has no answer");
    let ready = format!("http://{}:{}/readyz", leader.trim(), keeper::PORT);
    println!("\n$ curl {ready}\n{}", run("curl", &["-s", "-S", "--max-time", "5", &ready]).await?);
    Ok(())
}

async fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
