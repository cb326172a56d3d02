//! The origin registry, its pull-through mirror, and pushing to the origin.

use crate::http::{Via, poll, send, send_ok};
use crate::image::{Built, Busybox, Image, MANIFEST, digest, layer_of};
use crate::layout::{HOST, Layout, MIRROR_PORT, ORIGIN_PORT, PASSWORD, UPSTREAM_PORT, USER};
use crate::machine::Machine;
use crate::net;
use crate::node::Node;
use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

const ORIGIN: &str = "registry";
const MIRROR: &str = "mirror";
/// The origin's content once more, to be read without credentials: distribution 2.8 in proxy mode has none for an upstream that asks for
/// basic auth (it knows tokens only).
const UPSTREAM: &str = "upstream";
const START_SECONDS_MAX: u64 = 15;
/// What `htpasswd -B` makes of [`USER`] and [`PASSWORD`].
const HTPASSWD: &str = "lab:$2y$05$3xltqAr1QE3x8qx0T1OkeuQKFc5uvcoQGTn2BXbowIX2kLaK9TitG\n";

/// The registries.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(crate) machine: Machine,
    pub(crate) busybox: Busybox,
    /// Builds images from a Dockerfile.
    pub(crate) builder: Node,
}

impl Registry {
    /// The origin, as it stands in an image's name: `10.77.0.254:5000`.
    pub fn address(&self) -> String {
        format!("{HOST}:{ORIGIN_PORT}")
    }

    /// The mirror: `10.77.0.254:5001`. It asks for no credentials.
    pub fn mirror_address(&self) -> String {
        format!("{HOST}:{MIRROR_PORT}")
    }

    /// User and password of the origin.
    pub fn credentials(&self) -> (&'static str, &'static str) {
        (USER, PASSWORD)
    }

    /// The text of a `config.json` with the origin's credentials.
    pub fn docker_config(&self) -> String {
        docker_config()
    }

    /// `10.77.0.254:5000/<name>:<tag>`.
    pub fn reference(&self, name: &str, tag: &str) -> String {
        format!("{}/{name}:{tag}", self.address())
    }

    /// Pushes the ordinary little image, which answers with `<name> <tag>` on port 8080. Returns its digest.
    pub async fn push(&self, name: &str, tag: &str) -> Result<String> {
        self.push_image(name, tag, &Image::new()).await
    }

    /// Pushes a little image of another kind. Returns its digest.
    pub async fn push_image(&self, name: &str, tag: &str, image: &Image) -> Result<String> {
        self.upload(name, tag, &image.build(name, tag, &self.busybox).await?).await
    }

    /// Pushes a folder as an image of one layer. `config` is the image's config as an engine shows it: `{"Entrypoint": […]}`.
    pub async fn push_rootfs(
        &self,
        name: &str,
        tag: &str,
        rootfs: &Path,
        config: &serde_json::Value,
    ) -> Result<String> {
        let rootfs = rootfs.to_owned();
        let layer = tokio::task::spawn_blocking(move || layer_of(&rootfs)).await??;
        self.upload(name, tag, &Built::new(config, vec![layer])).await
    }

    /// Builds a folder with a Dockerfile (from scratch, or from an image of the origin) on the worker's engine, pushes it, and removes
    /// it from that engine. Returns its digest.
    pub async fn push_context(&self, name: &str, tag: &str, context: &Path) -> Result<String> {
        let reference = self.reference(name, tag);
        let context = context.to_str().context("the folder's name is not UTF-8")?;
        let builder = &self.builder;
        let mut build = builder.docker_command(["build", "--quiet", "--tag", &reference, context]);
        // The builder that every engine has; the other one is a plug-in of the client.
        build.env("DOCKER_BUILDKIT", "0");
        crate::command::output(build, None).await?;
        builder.docker(["push", "--quiet", &reference]).await?;
        builder.docker(["image", "rm", "--force", &reference]).await?;
        self.digest(name, tag).await?.with_context(|| format!("{reference} is not there after the push"))
    }

    /// The digest behind a tag, if there is one.
    pub async fn digest(&self, name: &str, tag: &str) -> Result<Option<String>> {
        let request = request(Method::HEAD, &format!("/v2/{name}/manifests/{tag}")).header("accept", MANIFEST);
        let answer = send(&origin(), request.body(Full::default())?).await?;
        match answer.status().as_u16() {
            404 => Ok(None),
            200 => Ok(Some(header(&answer, "docker-content-digest")?)),
            _ => bail!("cannot read the digest of {name}:{tag}: {}", answer.status()),
        }
    }

    /// Removes a tag's manifest from the origin.
    pub async fn delete(&self, name: &str, tag: &str) -> Result<()> {
        let digest = self.digest(name, tag).await?.with_context(|| format!("there is no {name}:{tag}"))?;
        let request = request(Method::DELETE, &format!("/v2/{name}/manifests/{digest}"));
        send_ok(&origin(), request.body(Full::default())?).await.map(drop)
    }

    /// Kills the origin, for the mirror too. What it holds stays.
    pub async fn stop(&self) -> Result<()> {
        self.kill(ORIGIN).await?;
        self.kill(UPSTREAM).await
    }

    /// Starts the origin again.
    pub async fn start(&self) -> Result<()> {
        start_origin(&self.machine).await
    }

    /// Kills the mirror.
    pub async fn stop_mirror(&self) -> Result<()> {
        self.kill(MIRROR).await
    }

    /// Starts the mirror again; the origin must run.
    pub async fn start_mirror(&self) -> Result<()> {
        start(&self.machine, MIRROR, MIRROR_PORT).await
    }

    async fn kill(&self, daemon: &str) -> Result<()> {
        self.machine.signal(daemon, "KILL").await?;
        self.machine.wait_for_end(daemon, START_SECONDS_MAX).await
    }

    async fn upload(&self, name: &str, tag: &str, built: &Built) -> Result<String> {
        for blob in built.layers.iter().chain([&built.config]) {
            upload_blob(name, blob).await.with_context(|| format!("cannot push {name}:{tag}"))?;
        }
        let request = request(Method::PUT, &format!("/v2/{name}/manifests/{tag}")).header("content-type", MANIFEST);
        let answer = send_ok(&origin(), request.body(Full::from(built.manifest.clone()))?).await?;
        header(&answer, "docker-content-digest")
    }
}

/// Writes both settings and starts both registries.
pub(crate) async fn up(layout: &Layout, machine: &Machine) -> Result<()> {
    std::fs::create_dir_all(layout.docker_config())?;
    std::fs::write(layout.docker_config().join("config.json"), docker_config())?;
    let htpasswd = machine.dir.join("htpasswd");
    std::fs::write(&htpasswd, HTPASSWD)?;
    let auth = format!("auth: {{htpasswd: {{realm: lab, path: {}}}}}\n", quoted(&htpasswd));
    let proxy = format!("proxy: {{remoteurl: 'http://{HOST}:{UPSTREAM_PORT}'}}\n");
    for (daemon, port, storage, rest) in [
        (ORIGIN, ORIGIN_PORT, ORIGIN, auth.as_str()),
        (UPSTREAM, UPSTREAM_PORT, ORIGIN, ""),
        (MIRROR, MIRROR_PORT, MIRROR, &proxy),
    ] {
        let storage = quoted(&machine.dir.join(storage));
        let settings = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{delete: {{enabled: true}}, filesystem: {{rootdirectory: {storage}}}}}\n\
             http: {{addr: '{HOST}:{port}'}}\n{rest}"
        );
        std::fs::write(machine.dir.join(format!("{daemon}.yml")), settings)?;
    }
    start_origin(machine).await?;
    // In proxy mode it looks at its upstream when it starts.
    start(machine, MIRROR, MIRROR_PORT).await
}

async fn start_origin(machine: &Machine) -> Result<()> {
    tokio::try_join!(start(machine, ORIGIN, ORIGIN_PORT), start(machine, UPSTREAM, UPSTREAM_PORT)).map(drop)
}

async fn start(machine: &Machine, daemon: &str, port: u16) -> Result<()> {
    let settings = machine.dir.join(format!("{daemon}.yml"));
    net::require_free(port).await?;
    machine.start(daemon, &["docker-registry", "serve", &settings.to_string_lossy()]).await?;
    let via = Via::Tcp(SocketAddr::new(IpAddr::V4(HOST), port));
    let end = tokio::time::Instant::now() + Duration::from_secs(START_SECONDS_MAX);
    while poll(&via, request(Method::GET, "/v2/")).await.is_none() {
        if tokio::time::Instant::now() > end {
            bail!("the {daemon} does not start:\n{}", machine.log_end(daemon).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn upload_blob(name: &str, blob: &[u8]) -> Result<()> {
    let digest = digest(blob);
    let exists = request(Method::HEAD, &format!("/v2/{name}/blobs/{digest}")).body(Full::default())?;
    if send(&origin(), exists).await?.status().is_success() {
        return Ok(());
    }
    let begin = request(Method::POST, &format!("/v2/{name}/blobs/uploads/")).body(Full::default())?;
    let location = header(&send_ok(&origin(), begin).await?, "location")?;
    // The location is absolute; the connection is ours already.
    let path = location
        .split_once("://")
        .and_then(|(_, rest)| rest.find('/').map(|slash| &rest[slash..]))
        .unwrap_or(&location);
    let separator = if path.contains('?') { '&' } else { '?' };
    let finish = request(Method::PUT, &format!("{path}{separator}digest={digest}"))
        .header("content-type", "application/octet-stream")
        .body(Full::from(blob.to_vec()))?;
    send_ok(&origin(), finish).await.map(drop)
}

fn origin() -> Via {
    Via::Tcp(SocketAddr::new(IpAddr::V4(HOST), ORIGIN_PORT))
}

fn request(method: Method, path: &str) -> hyper::http::request::Builder {
    let basic = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    Request::builder().method(method).uri(path).header("authorization", format!("Basic {basic}"))
}

fn header(answer: &hyper::Response<Bytes>, name: &str) -> Result<String> {
    let value = answer.headers().get(name).with_context(|| format!("the registry's answer has no {name}"))?;
    Ok(value.to_str()?.to_owned())
}

fn docker_config() -> String {
    let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
    serde_json::json!({ "auths": { format!("{HOST}:{ORIGIN_PORT}"): { "auth": auth } } }).to_string()
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display())
}
