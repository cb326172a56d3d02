//! What the `lab` program prints about a lab.

use anyhow::Result;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use swarmkeeper_lab::{Lab, Owner, layout};

/// Prints a text as a whole. Whoever reads only its beginning (`lab writes | head`) has had enough.
pub(crate) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Where everything is, and something to try.
pub(crate) async fn addresses(lab: &Lab) -> Result<()> {
    let (registry, git) = (lab.registry(), lab.git());
    let repo = lab.repo("config").await?;
    let (user, password) = registry.credentials();
    let mut text = String::new();
    writeln!(text, "The lab is up in {}.\n", lab.layout().dir().display())?;
    for node in lab.nodes() {
        let role = if node.is_manager() { "manager" } else { "worker " };
        writeln!(
            text,
            "  {} {role} {}  netns {}  consul {}  dns {}  {}",
            node.name(),
            node.address(),
            node.netns(),
            node.consul_address(),
            node.dns_address(),
            node.docker_socket().display()
        )?;
    }
    writeln!(text, "\n  registry  {} ({user} / {password})", registry.address())?;
    writeln!(text, "  mirror    {}", registry.mirror_address())?;
    writeln!(text, "  git       {}", repo.http())?;
    writeln!(text, "            {}", repo.http_with_auth())?;
    writeln!(text, "            {}  (key {})", repo.ssh(), git.ssh_key().display())?;
    writeln!(text, "  recorded  {}", lab.record().path().display())?;
    writeln!(text, "\nTry:\n  eval \"$(lab env)\"; docker node ls; lab writes")?;
    print(&text)
}

/// Whether there is a lab, and how its nodes are.
pub(crate) async fn status() -> Result<()> {
    let Some(owner) = Owner::noted() else {
        return print("there is no lab\n");
    };
    let pid = owner.process.pid;
    let dir = owner.dir.display();
    if !owner.process.lives() {
        return print(&format!(
            "the lab in {dir} has lost its owner, process {pid}; `lab down` removes what is left\n"
        ));
    }
    if !owner.is_ready() {
        return print(&format!("the lab in {dir} is coming up or going down (process {pid}: {})\n", owner.program));
    }
    let mut text = String::new();
    writeln!(text, "the lab in {dir} is up (process {pid}: {})", owner.program)?;
    let lab = Lab::attach().await?;
    for node in lab.nodes() {
        let (engine, consul) = if node.is_alive() {
            let engine = node.docker(["version", "--format", "{{.Server.Version}}"]).await;
            let consul = node.consul_get("/v1/status/leader").await;
            (
                engine.unwrap_or_else(|_| "down".to_owned()),
                consul.map_or_else(|_| "down".to_owned(), |_| "up".to_owned()),
            )
        } else {
            ("off".to_owned(), "off".to_owned())
        };
        writeln!(text, "  {} {}  engine {engine}  consul {consul}", node.name(), node.address())?;
    }
    print(&text)
}

/// Shell exports. The engine and the Consul are the first manager's recorded ones.
pub(crate) async fn env() -> Result<()> {
    let lab = Lab::attach().await?;
    let node = lab.node(1);
    let repo = lab.repo("config").await?;
    let (user, password) = lab.registry().credentials();
    let mut text = String::new();
    for (name, value) in [
        ("LAB_DIR", lab.layout().dir().display().to_string()),
        ("LAB_REGISTRY", lab.registry().address()),
        ("LAB_MIRROR", lab.registry().mirror_address()),
        ("LAB_USER", user.to_owned()),
        ("LAB_PASSWORD", password.to_owned()),
        ("LAB_REPO_HTTP", repo.http()),
        ("LAB_REPO_SSH", repo.ssh()),
        ("LAB_HOST", layout::HOST.to_string()),
        ("DOCKER_HOST", format!("unix://{}", node.docker_socket().display())),
        ("DOCKER_CONFIG", lab.layout().docker_config().display().to_string()),
        ("CONSUL_HTTP_ADDR", format!("http://{}", node.consul_address())),
        ("GIT_SSH_COMMAND", lab.git().ssh_command()),
    ] {
        writeln!(text, "export {name}='{}'", value.replace('\'', r"'\''"))?;
    }
    print(&text)
}
