//! An engine that is none: it answers for a swarm that lives in memory, to Docker's CLI and to us.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::process::Command;

use crate::ENVIRONMENT;
use crate::swarm::{Asked, Swarm, Writes};

/// A registry for which there is a login, should a deployment send it along.
const LOGIN: &str = r#"{"auths": {"registry.test": {"auth": "c29tZWJvZHk6c2VjcmV0"}}}"#;

/// What every deployment asks for unless it says otherwise.
pub const NO_REGISTRY: [&str; 2] = ["--resolve-image", "never"];

/// What a deployment did.
pub struct Deployed {
    /// The verdict and words.
    pub output: Output,
    /// What it wrote.
    pub writes: Writes,
    /// The kinds of what it wrote, in order, each once.
    pub phases: Vec<String>,
    /// The swarm as it left it.
    pub swarm: Swarm,
}

/// Lets Docker's CLI deploy `files` as the stack `s` to `swarm`.
pub async fn docker_deploys(files: &[PathBuf], flags: &[&str], swarm: Swarm) -> Deployed {
    let mut command = Command::new(docker());
    command.args(["stack", "deploy"]);
    deploy(command, files, flags, swarm).await
}

/// Lets us do the same.
pub async fn we_deploy(files: &[PathBuf], flags: &[&str], swarm: Swarm) -> Deployed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmkeeper"));
    command.arg("deploy");
    deploy(command, files, flags, swarm).await
}

async fn deploy(mut command: Command, files: &[PathBuf], flags: &[&str], swarm: Swarm) -> Deployed {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("engine.sock");
    std::fs::write(home.path().join("config.json"), LOGIN).unwrap();
    let swarm = Arc::new(Mutex::new(swarm));
    let serving = tokio::spawn(serve(UnixListener::bind(&socket).unwrap(), Arc::clone(&swarm)));
    command.arg("--detach=true").args(flags);
    for file in files {
        command.arg("-c").arg(file);
    }
    let output = command.arg("s").env_clear().envs(ENVIRONMENT).envs(ours_and_theirs(home.path(), &socket));
    let output = output.output().await.unwrap();
    serving.abort();
    let mut swarm = std::mem::take(&mut *swarm.lock().unwrap());
    let (writes, phases) = swarm.take_record();
    Deployed { output, writes, phases, swarm }
}

fn ours_and_theirs(home: &Path, socket: &Path) -> [(&'static str, String); 2] {
    [("DOCKER_CONFIG", home.display().to_string()), ("DOCKER_HOST", format!("unix://{}", socket.display()))]
}

/// Where Docker's CLI is.
pub fn docker() -> PathBuf {
    swarmkeeper_lab::docker_cli().unwrap_or_else(|error| panic!("{error:#}"))
}

async fn serve(listener: UnixListener, swarm: Arc<Mutex<Swarm>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let swarm = Arc::clone(&swarm);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&swarm)));
            // A client closes its connections when it ends, which is no fault.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, swarm: Arc<Mutex<Swarm>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = request.method().clone();
    let (uri, headers) = (request.uri().clone(), request.headers().clone());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let path = uri.path().trim_start_matches('/').trim_start_matches("v1.50/").to_owned();
    let (kind, rest) = path.split_once('/').unwrap_or((&path, ""));
    let asked = Asked { kind, query: query(&uri), login: login(&headers) };
    let mut swarm = swarm.lock().unwrap();
    let (status, answer) = match (method.as_str(), kind, rest) {
        (_, "_ping", _) => (200, json!("OK")),
        (_, "info", _) => {
            (200, json!({"Swarm": {"ControlAvailable": true, "LocalNodeState": "active"}, "OSType": "linux"}))
        }
        (_, "tasks" | "nodes", "") => (200, json!([])),
        (_, "distribution", image) => swarm.resolve(image.trim_end_matches("/json")),
        ("GET", _, "") => (200, swarm.list(&asked)),
        ("GET", _, name) => swarm.inspect(&asked, name),
        ("POST", _, "create") => swarm.create(&asked, body),
        ("POST", _, path) => swarm.update(&asked, path.trim_end_matches("/update"), body),
        ("DELETE", _, id) => swarm.remove(&asked, id),
        _ => (404, json!({"message": "there is no such thing"})),
    };
    let response =
        Response::builder().status(status).header("Api-Version", "1.50").header("Content-Type", "application/json");
    Ok(response.body(Full::new(Bytes::from(answer.to_string()))).unwrap())
}

fn query(uri: &Uri) -> Value {
    let pairs = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    pairs.map(|(key, value)| (key.into_owned(), Value::String(value.into_owned()))).collect()
}

/// The login that came along, as what it says: its spelling is its sender's.
fn login(headers: &HeaderMap) -> Value {
    use base64::Engine as _;
    let Some(header) = headers.get("X-Registry-Auth") else { return Value::Null };
    let text = base64::engine::general_purpose::URL_SAFE.decode(header).unwrap();
    serde_json::from_slice(&text).unwrap()
}
