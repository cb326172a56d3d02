//! What the lab needs on the machine, and getting it.
//!
//! Debian's packages, without starting anything they bring; and what this release of Debian does not have, unpacked into a cache
//! without touching the machine's sources: Consul, a client of Docker that is not older than the tests, and a Prometheus that asks Consul.
//! What cannot be had is named together with what to do about it.

use crate::command::{output, run};
use crate::generation::Engine;
use crate::sources::mirrors;
use anyhow::{Context, Result, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tokio::process::Command;

/// Where fetched packages are kept between runs.
const CACHE: &str = "/var/cache/swarmkeeper-lab";
/// Asked before services are started or stopped by a package: 101 forbids it.
const POLICY: &str = "/usr/sbin/policy-rc.d";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A program, and the Debian package that brings it.
const PROGRAMS: [(&str, &str); 20] = [
    ("apt-get", "apt"),
    ("awk", "mawk"),
    ("busybox", "busybox-static"),
    ("containerd", "containerd"),
    ("dnsmasq", "dnsmasq-base"),
    ("docker", CLIENT),
    ("docker-registry", "docker-registry"),
    ("dockerd", "docker.io"),
    ("git", "git"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("runc", "runc"),
    ("setpriv", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
    ("tc", "iproute2"),
    ("unshare", "util-linux"),
];
/// The client: since Debian 13 a package of its own, part of docker.io before.
const CLIENT: &str = "docker-cli";
/// Units that those packages would have started at the next boot.
const UNITS: [&str; 7] = [
    "docker.service",
    "docker.socket",
    "containerd.service",
    "docker-registry.service",
    "haproxy.service",
    "ssh.service",
    "ssh.socket",
];

/// Gets what a lab with this engine needs, if it is not there; `say` hears of each step. Starts no service.
pub async fn install(engine: Engine, say: &(dyn Fn(&str) + Send + Sync)) -> Result<()> {
    require_root()?;
    install_programs(&PROGRAMS, say).await?;
    if std::env::var_os(CONSUL.variable).is_none() && consul_binary().is_err() {
        say("fetching Consul");
        CONSUL.fetch().await?;
    }
    if std::env::var_os(DOCKER.variable).is_none() && docker_cli().is_err() {
        say("fetching a newer client of Docker");
        DOCKER.fetch().await?;
    }
    if std::env::var_os(PROMETHEUS.variable).is_none() && prometheus().is_err() {
        say("fetching a Prometheus that asks Consul");
        PROMETHEUS.fetch().await?;
    }
    engine.install(say).await?;
    check(engine)
}

/// Gets the packages of programs that are not there.
pub(crate) async fn install_programs(
    programs: &[(&str, &'static str)],
    say: &(dyn Fn(&str) + Send + Sync),
) -> Result<()> {
    let packages = missing_packages(programs);
    if packages.is_empty() {
        return Ok(());
    }
    require_debian(&packages)?;
    say(&format!("installing {}", packages.join(", ")));
    install_packages(&packages).await
}

/// Fails with a list of what is missing and how to mend it.
pub(crate) fn check(engine: Engine) -> Result<()> {
    require_root()?;
    engine.check()?;
    let packages = missing_packages(&PROGRAMS);
    if !packages.is_empty() {
        bail!(
            "these packages are missing: {0}\n  run `lab install`, or `apt-get install --no-install-recommends {0}`",
            packages.join(" ")
        );
    }
    consul_binary()?;
    prometheus()?;
    docker_cli().map(drop)
}

/// The Prometheus to find agents with: `PROMETHEUS`, or the cache's.
pub fn prometheus() -> Result<PathBuf> {
    PROMETHEUS.binary()
}

/// The Consul to run: `CONSUL`, or the cache's.
pub(crate) fn consul_binary() -> Result<PathBuf> {
    CONSUL.binary()
}

/// The Docker CLI that tests compare us with, at least 28: `DOCKER`, or the machine's own, or the cache's.
pub fn docker_cli() -> Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Ok(found.clone());
    }
    let own = if std::env::var_os(DOCKER.variable).is_none() { own_docker_cli() } else { None };
    let found = own.map_or_else(|| DOCKER.binary(), Ok)?;
    Ok(FOUND.get_or_init(|| found).clone())
}

fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab needs root, for network namespaces and engines; run it with sudo");
    }
    Ok(())
}

fn require_debian(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!("this machine has no apt-get; provide the equivalents of Debian's packages {}", packages.join(", "));
    }
    Ok(())
}

/// Where what was fetched is kept between runs.
pub(crate) fn cache() -> PathBuf {
    CACHE.into()
}

/// Where Debian's packages come from on this machine.
pub(crate) fn debian_mirrors() -> Result<Vec<String>> {
    let codename = codename()?;
    let mirrors = mirrors(&source_texts(), &codename);
    if mirrors.is_empty() {
        bail!("apt's sources name no mirror of Debian {codename}");
    }
    Ok(mirrors)
}

fn missing_packages(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    packages.dedup();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|path| path.is_file())
}

async fn install_packages(packages: &[&str]) -> Result<()> {
    let policy = Policy::forbid_services()?;
    let mut installed = apt_install(packages).await;
    if installed.is_err() {
        // The lists may be old or missing.
        run("apt-get", ["update", "-qq"]).await.context("cannot update the package lists")?;
        installed = apt_install(packages).await;
    }
    drop(policy);
    installed.with_context(|| format!("cannot install {}", packages.join(" ")))?;
    disable_new_units(packages).await
}

async fn apt_install(packages: &[&str]) -> Result<()> {
    let mut packages = packages.to_vec();
    if packages.contains(&CLIENT) && run("apt-cache", ["show", "--quiet=2", CLIENT]).await.is_err() {
        packages.retain(|package| *package != CLIENT);
        packages.push("docker.io");
    }
    let mut command = Command::new("apt-get");
    // Nothing of the machine's may go for a test's sake.
    command.args(["install", "-y", "-qq", "--no-install-recommends", "--no-remove"]);
    command.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    output(command, None).await.map(drop)
}

/// A package enables its units for the next boot. Those that were not there before are none of the user's.
async fn disable_new_units(packages: &[&str]) -> Result<()> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    let package_of = |unit: &str| match unit {
        unit if unit.starts_with("docker-registry") => "docker-registry",
        unit if unit.starts_with("docker") => "docker.io",
        unit if unit.starts_with("containerd") => "containerd",
        unit if unit.starts_with("haproxy") => "haproxy",
        _ => "openssh-server",
    };
    for unit in UNITS {
        // docker.io brings containerd with it.
        let owner = package_of(unit);
        if packages.contains(&owner) {
            // Not every release has every unit.
            let _ = run("systemctl", ["disable", "--quiet", unit]).await;
        }
    }
    Ok(())
}

/// Forbids package scripts to start services, until dropped; puts back what was there.
struct Policy {
    aside: Option<PathBuf>,
}

impl Policy {
    fn forbid_services() -> Result<Self> {
        let policy = Path::new(POLICY);
        let aside = policy.with_extension("d.lab-saved");
        let existed = policy.exists();
        if existed {
            std::fs::rename(policy, &aside).context("cannot set policy-rc.d aside")?;
        }
        let made = Self { aside: existed.then_some(aside) };
        std::fs::write(policy, "#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        std::fs::set_permissions(policy, std::fs::Permissions::from_mode(0o755))?;
        Ok(made)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        let restored = match &self.aside {
            Some(aside) => std::fs::rename(aside, POLICY),
            None => std::fs::remove_file(POLICY),
        };
        if let Err(error) = restored {
            eprintln!("cannot restore {POLICY}: {error}; remove it, or no service will be started by packages");
        }
    }
}

/// A package of another release than the machine's, checked with Debian's keys and unpacked into the cache.
struct Fetched {
    package: &'static str,
    suite: &'static str,
    /// The program in it.
    program: &'static str,
    /// Names another binary instead.
    variable: &'static str,
}

/// Bookworm has none.
const CONSUL: Fetched = Fetched { package: "consul", suite: "bullseye", program: "usr/bin/consul", variable: "CONSUL" };

/// Bookworm's is of the year 2020 and refuses stack files without a `version`. Sid's runs there.
const DOCKER: Fetched = Fetched { package: "docker-cli", suite: "sid", program: "usr/bin/docker", variable: "DOCKER" };

/// Since bookworm Debian builds it without Consul's service discovery.
const PROMETHEUS: Fetched =
    Fetched { package: "prometheus", suite: "bullseye", program: "usr/bin/prometheus", variable: "PROMETHEUS" };

/// The first major version of Docker's CLI that tests are written against.
const DOCKER_MAJOR_MIN: u32 = 28;

impl Fetched {
    /// What the variable names, or what is in the cache.
    fn binary(&self) -> Result<PathBuf> {
        let Self { package, program, variable, .. } = self;
        if let Some(binary) = std::env::var_os(variable).map(PathBuf::from) {
            if !binary.is_file() {
                bail!("{variable} names {}, which is no file", binary.display());
            }
            return Ok(std::path::absolute(binary)?);
        }
        let cached = Path::new(CACHE).join(package).join(program);
        if cached.is_file() {
            return Ok(cached);
        }
        bail!("there is no {package}; run `lab install`, or set {variable} to a binary")
    }

    async fn fetch(&self) -> Result<()> {
        let Self { package, suite, variable, .. } = self;
        if find("apt-get").is_none() || find("dpkg").is_none() {
            bail!("{package} comes from Debian's {suite}, and this machine has no apt-get; set {variable} to a binary");
        }
        let mirrors = debian_mirrors().with_context(|| format!("no {package}; set {variable} to a binary"))?;
        let mut errors = Vec::new();
        for mirror in mirrors {
            match self.fetch_from(&mirror).await {
                Ok(()) => return Ok(()),
                Err(error) => errors.push(format!("{mirror}: {error:#}")),
            }
        }
        bail!("cannot fetch {package}; set {variable} to a binary\n{}", errors.join("\n"))
    }

    async fn fetch_from(&self, mirror: &str) -> Result<()> {
        let cache = Path::new(CACHE);
        let scratch = cache.join(format!("fetch-{}", std::process::id()));
        std::fs::create_dir_all(scratch.join("lists/partial"))
            .with_context(|| format!("cannot make {}", scratch.display()))?;
        let fetched = self.fetch_into(&scratch, mirror).await;
        if fetched.is_ok() {
            // Renamed when complete: a killed run leaves no half of it.
            let target = cache.join(self.package);
            if target.exists() {
                std::fs::remove_dir_all(&target)?;
            }
            std::fs::rename(scratch.join("root"), target)?;
        }
        std::fs::remove_dir_all(&scratch)?;
        fetched
    }

    async fn fetch_into(&self, scratch: &Path, mirror: &str) -> Result<()> {
        let signed =
            if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}]") } else { "[trusted=yes]".to_owned() };
        let list = scratch.join("suite.list");
        std::fs::write(&list, format!("deb {signed} {mirror} {} main\n", self.suite))?;
        // Nothing counts as installed: apt would look for the machine's own version, and in vain.
        let status = scratch.join("status");
        std::fs::write(&status, "")?;
        let options = [
            format!("Dir::Etc::sourcelist={}", list.display()),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::Lists={}", scratch.join("lists").display()),
            format!("Dir::State::status={}", status.display()),
            // The machine's own package cache is not for another suite.
            format!("Dir::Cache::pkgcache={}", scratch.join("pkgcache.bin").display()),
            format!("Dir::Cache::srcpkgcache={}", scratch.join("srcpkgcache.bin").display()),
            "APT::Sandbox::User=root".to_owned(),
            // A mirror may be frozen. Its signature counts, its age does not: a test's tool need not be the newest.
            "Acquire::Check-Valid-Until=false".to_owned(),
        ];
        let apt = |words: &[&str]| {
            let mut command = Command::new("apt-get");
            command.current_dir(scratch).arg("-qq").args(options.iter().flat_map(|option| ["-o", option])).args(words);
            output(command, None)
        };
        apt(&["update"]).await?;
        apt(&["download", self.package]).await?;
        let package = std::fs::read_dir(scratch)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get downloaded nothing")?;
        run("dpkg", [Path::new("-x"), &package, &scratch.join("root")]).await.map(drop)
    }
}

/// The machine's own Docker CLI, if it is new enough.
fn own_docker_cli() -> Option<PathBuf> {
    let program = find("docker")?;
    let output = std::process::Command::new(&program).arg("--version").output().ok()?;
    (major_version(&String::from_utf8_lossy(&output.stdout))? >= DOCKER_MAJOR_MIN).then_some(program)
}

/// Of `Docker version 28.5.2, build 1234567`.
fn major_version(text: &str) -> Option<u32> {
    text.strip_prefix("Docker version ")?.split('.').next()?.parse().ok()
}

fn codename() -> Result<String> {
    let release = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let line = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(line.context("/etc/os-release names no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

fn source_texts() -> Vec<String> {
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        paths.extend(entries.flatten().map(|entry| entry.path()));
    }
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_age_is_known_by_its_major_version() {
        assert_eq!(major_version("Docker version 20.10.24+dfsg1, build 297e128\n"), Some(20));
        assert_eq!(major_version("Docker version 28.2.2, build e6534b4\n"), Some(28));
        assert_eq!(major_version("podman version 5.0\n"), None);
    }
}
