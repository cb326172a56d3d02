//! An engine that is none: it manages an empty swarm, where every external object is there, and records what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Output;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::process::Command;

use crate::ENVIRONMENT;

/// Bodies by kind and name.
pub type Created = BTreeMap<String, Value>;

/// What a deployment did.
pub struct Deployed {
    /// The verdict and words.
    pub output: Output,
    /// What it created.
    pub created: Created,
    /// The kinds of what it created, in order, each once.
    pub phases: Vec<String>,
}

#[derive(Debug, Default)]
struct Engine {
    created: Created,
    phases: Vec<String>,
    /// Names by kind, `networks` for one.
    there: BTreeMap<String, BTreeSet<String>>,
}

/// Lets Docker's CLI deploy `files` as the stack `s`.
pub async fn docker_deploys(files: &[PathBuf]) -> Deployed {
    let mut command = Command::new(docker());
    command.args(["stack", "deploy"]);
    deploy(command, files, Engine::default()).await
}

/// Lets us do the same, where `external` objects are there, names by kind.
pub async fn we_deploy(files: &[PathBuf], external: BTreeMap<String, BTreeSet<String>>) -> Deployed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmkeeper"));
    command.arg("deploy");
    deploy(command, files, Engine { there: external, ..Engine::default() }).await
}

async fn deploy(mut command: Command, files: &[PathBuf], engine: Engine) -> Deployed {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("engine.sock");
    let engine = Arc::new(Mutex::new(engine));
    let serving = tokio::spawn(serve(UnixListener::bind(&socket).unwrap(), Arc::clone(&engine)));
    command.args(["--detach=true", "--resolve-image", "never"]);
    for file in files {
        command.arg("-c").arg(file);
    }
    let output = command
        .arg("s")
        .env_clear()
        .envs(ENVIRONMENT)
        .env("DOCKER_CONFIG", home.path())
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .output()
        .await
        .unwrap();
    serving.abort();
    let Engine { created, phases, .. } = std::mem::take(&mut *engine.lock().unwrap());
    Deployed { output, created, phases }
}

/// Where Docker's CLI is.
pub fn docker() -> PathBuf {
    swarmkeeper_lab::docker_cli().unwrap_or_else(|error| panic!("{error:#}"))
}

async fn serve(listener: UnixListener, engine: Arc<Mutex<Engine>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&engine)));
            // A client closes its connections when it ends, which is no fault.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, engine: Arc<Mutex<Engine>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = request.method().clone();
    let uri = request.uri().clone();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let path = uri.path().trim_start_matches('/').trim_start_matches("v1.50/").to_owned();
    let (kind, name) = path.split_once('/').unwrap_or((&path, ""));
    let mut engine = engine.lock().unwrap();
    let (status, body) = match (kind, name) {
        ("_ping", _) => (200, json!("OK")),
        ("info", _) => {
            (200, json!({"Swarm": {"ControlAvailable": true, "LocalNodeState": "active"}, "OSType": "linux"}))
        }
        (kind, _) if method == Method::POST => (201, engine.create(kind, serde_json::from_slice(&body).unwrap())),
        ("secrets" | "configs", "") => (200, engine.list(kind, uri.query().unwrap_or_default())),
        ("networks", "") => (200, engine.list(kind, "")),
        ("services" | "tasks" | "nodes", "") => (200, json!([])),
        ("networks", name) => (200, object("networks", name)),
        _ => (404, json!({"message": "there is no such thing"})),
    };
    let response =
        Response::builder().status(status).header("Api-Version", "1.50").header("Content-Type", "application/json");
    Ok(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
}

impl Engine {
    fn create(&mut self, kind: &str, body: Value) -> Value {
        let name = body["Name"].as_str().unwrap().to_owned();
        if !self.phases.iter().any(|phase| phase == kind) {
            self.phases.push(kind.to_owned());
        }
        self.created.insert(format!("{kind} {name}"), normal(kind, body));
        let object = object(kind, &name);
        self.there.entry(kind.to_owned()).or_default().insert(name);
        object
    }

    /// All that is there, or whatever the filter names: every external object is there.
    fn list(&self, kind: &str, query: &str) -> Value {
        let filters = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "filters");
        let filters: Value = filters.map_or(Value::Null, |(_, text)| serde_json::from_str(&text).unwrap());
        match filters["name"].as_object() {
            Some(names) => names.keys().map(|name| object(kind, name)).collect(),
            None => self.there.get(kind).into_iter().flatten().map(|name| object(kind, name)).collect(),
        }
    }
}

/// An object as lists and inspections show it. Networks are known by their names, all others by an ID of their own.
fn object(kind: &str, name: &str) -> Value {
    if kind == "networks" {
        return json!({"Name": name, "Id": name, "Scope": "swarm", "Driver": "overlay"});
    }
    json!({"ID": format!("id-of-{name}"), "Spec": {"Name": name}})
}

/// Levels out what does not matter: the order of files of one name and of ports published on one port (Go's sort is not
/// stable), and, for networks, fields that say nothing.
fn normal(kind: &str, mut body: Value) -> Value {
    if kind == "networks" {
        strip(&mut body);
        return body;
    }
    if kind != "services" {
        return body;
    }
    if let Some(ports) = body.pointer_mut("/EndpointSpec/Ports").and_then(Value::as_array_mut) {
        ports.sort_by_key(|port| {
            (port["PublishedPort"].as_u64(), port["TargetPort"].as_u64(), port["Protocol"].to_string())
        });
    }
    let container = &mut body["TaskTemplate"]["ContainerSpec"];
    for files in ["Secrets", "Configs"] {
        if let Some(files) = container.get_mut(files).and_then(Value::as_array_mut) {
            files.sort_by_key(|file| {
                (file["SecretName"].to_string(), file["ConfigName"].to_string(), file["File"].to_string())
            });
        }
    }
    body
}

fn strip(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(strip);
        map.retain(|_, value| {
            !matches!(value, Value::Null | Value::Bool(false)) && *value != json!("") && *value != json!({})
        });
    }
}
