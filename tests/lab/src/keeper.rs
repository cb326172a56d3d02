//! swarmkeeper on the lab, deployed as a user would: its image pushed, its config and secrets made, its stack deployed with
//! Docker's CLI. The lab knows nothing else of it.

use std::path::Path;

use anyhow::{Context, Result};

use crate::Lab;

/// Opens the agents' API from elsewhere than their own node.
pub const API_TOKEN: &str = "lab-api-token";

/// Signs webhooks.
pub const WEBHOOK_SECRET: &str = "lab-webhook-secret";

/// Where agents listen.
pub const PORT: u16 = 7979;

/// The image's name in the lab's registry.
const IMAGE: &str = "swarmkeeper";

/// Deploys `binary` as `stack/swarmkeeper.yml` of `checkout` says, following the branch `main` of the repo at `url`; `more` are
/// further lines of `swarmkeeper.yml`.
pub async fn deploy(lab: &Lab, binary: &Path, checkout: &Path, url: &str, more: &str) -> Result<()> {
    let image = push_image(lab, binary, checkout, "dev").await?;
    let registry = lab.registry();
    let (user, password) = registry.credentials();
    let git = lab.git();
    let ssh_key = tokio::fs::read_to_string(git.ssh_key()).await.context("the git server's key")?;
    let known_hosts = tokio::fs::read_to_string(git.known_hosts()).await.context("the git server's host key")?;
    let known_hosts = known_also_as(&known_hosts, url);
    let secrets = [
        ("lab-git-key", ssh_key),
        ("lab-known-hosts", known_hosts),
        ("lab-registry", format!("username: {user}\npassword: {password}\n")),
        ("lab-api-token", API_TOKEN.to_owned()),
        ("lab-webhook-secret", WEBHOOK_SECRET.to_owned()),
    ];
    let manager = lab.node(1);
    for (name, content) in secrets {
        manager.docker_with_input(["secret", "create", name, "-"], &content).await?;
    }
    let config = format!("cluster: lab\ngit:\n  url: {url}\n  branch: main\n{more}");
    manager.docker_with_input(["config", "create", "swarmkeeper.yml", "-"], &config).await?;

    // What `stack/swarmkeeper.yml` leaves to its user: the secrets of this place.
    let ours = lab.layout().dir().join("swarmkeeper-lab.yml");
    tokio::fs::write(&ours, secrets_of_the_lab(&registry.address())).await?;
    let mut command = manager.docker_command(["stack", "deploy", "--with-registry-auth", "--compose-file"]);
    command.arg(checkout.join("stack/swarmkeeper.yml")).arg("--compose-file").arg(&ours).arg("swarmkeeper");
    let output = command.env("SWARMKEEPER_IMAGE", image).output().await.context("docker stack deploy")?;
    anyhow::ensure!(output.status.success(), "docker stack deploy: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Packs the binary as `make image` does, and pushes it under a tag. Gives the image's whole name.
pub async fn push_image(lab: &Lab, binary: &Path, checkout: &Path, tag: &str) -> Result<String> {
    let folder = lab.layout().dir().join("swarmkeeper-image");
    let packed =
        tokio::process::Command::new(checkout.join("tests/image.sh")).arg(binary).arg(&folder).output().await?;
    anyhow::ensure!(packed.status.success(), "tests/image.sh: {}", String::from_utf8_lossy(&packed.stderr));
    let image = lab.registry().reference(IMAGE, tag);
    let manager = lab.node(1);
    let dockerfile = checkout.join("Dockerfile");
    let mut command = manager.docker_command(["build", "--quiet", "--target", "prebuilt", "--tag", &image, "--file"]);
    // The classic builder: it needs no plugin, and stops at the stage it is told.
    let output =
        command.arg(dockerfile).arg(&folder).env("DOCKER_BUILDKIT", "0").output().await.context("docker build")?;
    anyhow::ensure!(output.status.success(), "docker build: {}", String::from_utf8_lossy(&output.stderr));
    manager.docker(["push", "--quiet", &image]).await?;
    Ok(image)
}

/// The server's lines, and the same for the name by which `url` calls it.
fn known_also_as(known_hosts: &str, url: &str) -> String {
    let host = url.split('@').next_back().and_then(|rest| rest.split([':', '/']).next()).unwrap_or_default();
    let address = crate::layout::HOST.to_string();
    format!("{known_hosts}{}", known_hosts.replace(&address, host))
}

fn secrets_of_the_lab(registry: &str) -> String {
    format!(
        r#"version: "3.8"
services:
  keeper:
    secrets:
      - {{source: lab-git-key, target: git-key, mode: 0400}}
      - {{source: lab-known-hosts, target: known-hosts, mode: 0400}}
      - {{source: lab-registry, target: "registries/{registry}", mode: 0400}}
      - {{source: lab-api-token, target: api-token, mode: 0400}}
      - {{source: lab-webhook-secret, target: webhook-secret, mode: 0400}}
    environment:
      SWARMKEEPER_GIT_SSH_KEY_FILE: /run/secrets/git-key
      SWARMKEEPER_GIT_KNOWN_HOSTS_FILE: /run/secrets/known-hosts
      SWARMKEEPER_API_TOKEN_FILE: /run/secrets/api-token
      SWARMKEEPER_WEBHOOK_SECRET_FILE: /run/secrets/webhook-secret
secrets:
  lab-git-key: {{external: true}}
  lab-known-hosts: {{external: true}}
  lab-registry: {{external: true}}
  lab-api-token: {{external: true}}
  lab-webhook-secret: {{external: true}}
"#
    )
}
