//! Little images, written without an engine: a static busybox and a script.
//!
//! They go straight to a registry, so that no node holds an image before it pulls it.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The port on which a served image answers.
pub const APP_PORT: u16 = 8080;

/// Makes an answer of `GET /` that names the image; touch `/tmp/sick` to turn the HEALTHCHECK.
const SERVE: &str = "trap 'exit 0' TERM INT\nhttpd -f -p \"${PORT:-8080}\" -h /www &\nwait $!\n";

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

/// What an image does when it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Behaviour {
    /// Answers `GET /` on `$PORT`, or [`APP_PORT`], with its content; ends at once on SIGTERM.
    #[default]
    Serve,
    /// Runs for some seconds, then exits.
    Exit {
        /// The exit code.
        code: u8,
        /// How long it pretends to work.
        after_seconds: u8,
    },
}

/// An image to push. Images of different content have different digests.
#[derive(Debug, Clone)]
pub struct Image {
    behaviour: Behaviour,
    program: Option<PathBuf>,
    content: Option<String>,
    healthcheck: bool,
    ports: Vec<u16>,
    environment: Vec<String>,
    labels: BTreeMap<String, String>,
    padding_bytes: usize,
}

impl Image {
    /// One that serves its content.
    pub fn new() -> Self {
        Self {
            behaviour: Behaviour::Serve,
            program: None,
            content: None,
            healthcheck: false,
            ports: vec![APP_PORT],
            environment: Vec::new(),
            labels: BTreeMap::new(),
            padding_bytes: 0,
        }
    }

    /// A program of this machine as the entry point, at `/bin/<its name>`, with the libraries that it is linked to and the machine's CA
    /// certificates; a busybox is there as well.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self.ports.clear();
        self
    }

    /// What it does when run.
    #[must_use]
    pub fn behaviour(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = behaviour;
        self
    }

    /// One that exits with 1 at once.
    #[must_use]
    pub fn failing(self) -> Self {
        self.behaviour(Behaviour::Exit { code: 1, after_seconds: 0 })
    }

    /// What `GET /` answers, instead of `<name> <tag>`: to move a tag to another digest.
    #[must_use]
    pub fn content(mut self, content: impl Into<String>) -> Self {
        self.content = Some(content.into());
        self
    }

    /// A HEALTHCHECK every second, healthy unless there is a file `/tmp/sick`.
    #[must_use]
    pub fn healthcheck(mut self) -> Self {
        self.healthcheck = true;
        self
    }

    /// One more exposed port.
    #[must_use]
    pub fn expose(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// `NAME=value` in the image's environment.
    #[must_use]
    pub fn env(mut self, variable: impl Into<String>) -> Self {
        self.environment.push(variable.into());
        self
    }

    /// A label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// A layer of so many bytes that do not compress, different for every content.
    #[must_use]
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding_bytes = bytes;
        self
    }

    pub(crate) async fn build(&self, name: &str, tag: &str, busybox: &Busybox) -> Result<Built> {
        let content = self.content.clone().unwrap_or_else(|| format!("{name} {tag}"));
        let mut layer = Layer::new();
        layer.file("app", self.script().as_bytes(), 0o755)?;
        layer.directory("www")?;
        layer.file("www/index.html", format!("{content}\n").as_bytes(), 0o644)?;
        let mut layers = vec![busybox.layer.clone(), layer.end()?];
        let mut entrypoint = vec!["/bin/sh".to_owned(), "/app".to_owned()];
        if let Some(program) = &self.program {
            let (layer, inside) = program_layer(program).await?;
            layers.push(layer);
            entrypoint = vec![inside];
        }
        if self.padding_bytes > 0 {
            let mut layer = Layer::new();
            layer.file("padding", &noise(&content, self.padding_bytes), 0o644)?;
            layers.push(layer.end()?);
        }
        let mut environment = vec!["PATH=/bin".to_owned()];
        environment.extend(self.environment.iter().cloned());
        let ports: serde_json::Map<String, Value> =
            self.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
        let mut config = json!({
            "Entrypoint": entrypoint,
            "Env": environment,
            "ExposedPorts": ports,
            "Labels": self.labels,
        });
        if self.healthcheck {
            let second = 1_000_000_000_u64;
            config["Healthcheck"] = json!({ "Test": ["CMD-SHELL", "test ! -e /tmp/sick"], "Interval": second, "Timeout": 2 * second, "Retries": 2 });
        }
        Ok(Built::new(&config, layers))
    }

    fn script(&self) -> String {
        match self.behaviour {
            Behaviour::Serve => SERVE.to_owned(),
            Behaviour::Exit { code, after_seconds } => {
                format!(
                    "trap 'exit 143' TERM INT\necho \"about to exit with {code}\"\nsleep {after_seconds} &\nwait $!\nexit {code}\n"
                )
            }
        }
    }
}

/// The layer that all little images share.
#[derive(Debug, Clone)]
pub(crate) struct Busybox {
    layer: Vec<u8>,
}

impl Busybox {
    /// Reads the machine's busybox, which must be the static one.
    pub(crate) async fn read() -> Result<Self> {
        let path = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
        let path = path.context("there is no busybox; install busybox-static")?;
        let binary = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        // The name of the dynamic loader stands in the first page of a dynamic program.
        if binary.iter().take(4096).collect::<Vec<_>>().windows(3).any(|w| w == [&b'l', &b'd', &b'-']) {
            bail!("{} is dynamic; install busybox-static", path.display());
        }
        let mut layer = Layer::new();
        layer.directory("bin")?;
        layer.file("bin/busybox", &binary, 0o755)?;
        let applets = crate::command::run(&path.to_string_lossy(), ["--list"]).await?;
        for applet in applets.lines().filter(|applet| *applet != "busybox") {
            layer.link(&format!("bin/{applet}"), "busybox")?;
        }
        for directory in ["etc", "root", "var", "run"] {
            layer.directory(directory)?;
        }
        layer.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", 0o644)?;
        layer.file("etc/group", b"root:x:0:\n", 0o644)?;
        layer.world_writable("tmp")?;
        Ok(Self { layer: layer.end()? })
    }
}

/// An image as a registry wants it.
#[derive(Debug)]
pub(crate) struct Built {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
}

impl Built {
    /// `config` is what an engine calls the image's config: `Entrypoint`, `Env`, …
    pub(crate) fn new(config: &Value, layers: Vec<Vec<u8>>) -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        // The layers are not compressed, so a layer's digest is also its diff ID.
        let digests: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": digests },
            "history": digests.iter().map(|_| json!({ "created": "2024-01-01T00:00:00Z", "created_by": "lab" })).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        let blob = |kind: &str, bytes: &[u8], digest: &str| json!({ "mediaType": kind, "size": bytes.len(), "digest": digest });
        let layer_kind = "application/vnd.docker.image.rootfs.diff.tar";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blob("application/vnd.docker.container.image.v1+json", &config, &digest(&config)),
            "layers": layers.iter().zip(&digests).map(|(layer, digest)| blob(layer_kind, layer, digest)).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        Self { config, layers, manifest }
    }
}

/// The manifest's media type.
pub(crate) const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// `sha256:…`.
pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A program and what it needs, and its path inside.
async fn program_layer(program: &Path) -> Result<(Vec<u8>, String)> {
    let name = program.file_name().and_then(|name| name.to_str()).context("the program has no name")?;
    let inside = format!("bin/{name}");
    let mut layer = Layer::new();
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    layer.file(&inside, &read(program)?, 0o755)?;
    // A static program has none, and ldd says so with an error.
    let libraries = crate::command::run("ldd", [program]).await.unwrap_or_default();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        layer.file(library.trim_start_matches('/'), &read(Path::new(library))?, 0o755)?;
    }
    let certificates = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if certificates.exists() {
        layer.file("etc/ssl/certs/ca-certificates.crt", &read(certificates)?, 0o644)?;
    }
    Ok((layer.end()?, format!("/{inside}")))
}

/// A folder as a layer.
pub(crate) fn layer_of(rootfs: &Path) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.follow_symlinks(false);
    tar.append_dir_all(".", rootfs).with_context(|| format!("cannot pack {}", rootfs.display()))?;
    Ok(tar.into_inner()?)
}

/// A layer in the making; the same content always gives the same bytes.
struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn file(&mut self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        let mut header = header(tar::EntryType::Regular, mode);
        header.set_size(content.len() as u64);
        Ok(self.0.append_data(&mut header, path, content)?)
    }

    fn directory(&mut self, path: &str) -> Result<()> {
        Ok(self.0.append_data(&mut header(tar::EntryType::Directory, 0o755), path, std::io::empty())?)
    }

    fn world_writable(&mut self, path: &str) -> Result<()> {
        Ok(self.0.append_data(&mut header(tar::EntryType::Directory, 0o1777), path, std::io::empty())?)
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        Ok(self.0.append_link(&mut header(tar::EntryType::Symlink, 0o777), path, target)?)
    }

    fn end(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

fn header(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let mut noise = Vec::with_capacity(bytes + 32);
    let mut block = Sha256::digest(seed);
    while noise.len() < bytes {
        noise.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    noise.truncate(bytes);
    noise
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(image: &Image, tag: &str) -> String {
        let busybox = Busybox { layer: vec![0; 1024] };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        digest(&runtime.block_on(image.build("app", tag, &busybox)).unwrap().manifest)
    }

    #[test]
    fn tags_differ_in_their_digest_and_a_repetition_does_not() {
        let image = Image::new();
        assert_eq!(manifest(&image, "1"), manifest(&image, "1"));
        assert_ne!(manifest(&image, "1"), manifest(&image, "2"));
        assert_ne!(manifest(&image, "1"), manifest(&image.clone().content("moved"), "1"));
        assert_ne!(manifest(&image, "1"), manifest(&image.clone().failing(), "1"));
    }
}
