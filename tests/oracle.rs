//! The oracle: what `docker stack deploy` sends for a file is what we make of it.
//!
//! Each folder of `tests/oracle/` is a case: its `1.yml`, `2.yml`… are deployed by Docker's CLI to an engine that is none, which
//! records what it is told to create, and loaded by us. The two must be equal to the last field. So must the verdicts on
//! files that are wrong.
//!
//! Needs Docker's CLI, 28 or newer: the machine's own, the one that `lab install` fetches, or what the variable `DOCKER` names.

// A test's helpers fail as the test does: loudly. Clippy exempts only the functions marked as tests.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use swarmkeeper::compose::{self, Input, Mode, SourceFile};
use swarmkeeper::model::{Sensitive, StackName, Wanted};
use tokio::net::UnixListener;

/// What both sides see of the environment.
const ENVIRONMENT: [(&str, &str); 4] = [("HOST", "node-1"), ("N", "3"), ("EMPTY", ""), ("HOME", "/home/somebody")];

/// Bodies by kind and name.
type Created = BTreeMap<String, Value>;

#[tokio::test]
async fn we_send_what_docker_stack_deploy_sends() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle");
    let mut folders: Vec<_> = std::fs::read_dir(&cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    let mut differences = Vec::new();
    for folder in folders {
        let (output, theirs) = deploy(&folder).await;
        assert!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
        let ours = load(&folder).unwrap_or_else(|mistakes| panic!("{}: {mistakes}", folder.display()));
        let case = folder.file_name().unwrap().display().to_string();
        compare(&json!(ours), &json!(theirs), &case, &mut differences);
    }
    assert!(differences.is_empty(), "ours, and the CLI's:\n{}", differences.join("\n"));
}

/// Adds a line for each value that differs.
fn compare(ours: &Value, theirs: &Value, path: &str, differences: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => compare(a, b, &format!("{path}.{key}"), differences),
                    (a, b) => differences.push(format!("{path}.{key}: {a:?}, {b:?}")),
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                compare(a, b, &format!("{path}[{n}]"), differences);
            }
        }
        // Go writes 0 where we write 0.0.
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => {}
        _ if ours == theirs => {}
        _ => differences.push(format!("{path}: {ours}, {theirs}")),
    }
}

#[tokio::test]
async fn we_refuse_what_docker_stack_deploy_refuses() {
    let folder = tempfile::tempdir().unwrap();
    for wrong in [
        "name: top-level\nservices: {web: {image: a}}",
        "version: 3.8\nservices: {web: {image: a}}",
        "version: '2.4'\nservices: {web: {image: a}}",
        "services: {web: {image: a, depends_on: {web: {condition: service_healthy}}}}",
        "services: {web: {image: a, ports: [{target: 1, published: '80'}]}}",
        "services: {web: {image: a, deploy: {resources: {limits: {cpus: 0.5}}}}}",
        "services: {web: {image: a, environment: {A: true}}}",
        "services: {web: {image: a, cap_add: [A, A]}}",
        "services: {web: {image: a, image: b}}",
        "services: {web: {image: a, mem_limit: 5}}",
        "services: {web: {image: a, imagee: b}}",
        "services: {web: {image: a, deploy: {x-a: 1}}}",
        "services: {web: {image: a, init: }}",
        "services: {web: {image: Upper}}",
        "services: {web: {build: .}}",
        "services: {web: {image: a, networks: [undeclared]}}",
        "services: {web: {image: a, volumes: ['undeclared:/a']}}",
        "services: {web: {image: a, secrets: [undeclared]}}",
        "services: {web: {image: a, hostname: '$'}}",
        "services: {web: {image: a, hostname: '${UNSET?}'}}",
        "services: {web: {image: a, stop_grace_period: 10}}",
        "services: {web: {image: a, healthcheck: {disable: true, test: a}}}",
        "services: {web: {image: a, env_file: missing}}",
        "services: {web: {image: a}}\nsecrets: {s: {file: missing}}",
        "services: {'we b': {image: a}}",
    ] {
        std::fs::write(folder.path().join("1.yml"), wrong).unwrap();
        let (output, _) = deploy(folder.path()).await;
        assert!(!output.status.success(), "docker stack deploy takes {wrong}");
        assert!(load(folder.path()).is_err(), "we take {wrong}");
    }
}

/// What we make of the files in `folder`, as bodies.
fn load(folder: &Path) -> Result<Created, swarmkeeper::model::Findings> {
    let file = |path: &PathBuf| SourceFile {
        name: path.to_str().unwrap().to_owned(),
        text: std::fs::read_to_string(path).unwrap(),
    };
    let objects = compose::load(&Input {
        files: &compose_files(folder).iter().map(file).collect::<Vec<_>>(),
        stack: &StackName::new("s").unwrap(),
        environment: &ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        read_file: &|path| Ok(std::fs::read(path).ok()),
        folder: folder.to_str(),
        mode: Mode::Strict,
    })?
    .objects;
    let mut created = Created::new();
    let mut add = |kind: &str, text: String, data: Option<&Sensitive<Vec<u8>>>| {
        // By way of the text, as it goes over the wire: a Value would widen f32.
        let mut body: Value = serde_json::from_str(&text).unwrap();
        if let Some(data) = data.filter(|data| !data.reveal().is_empty()) {
            body["Data"] = json!(STANDARD.encode(data.reveal()));
        }
        created.insert(format!("{kind} {}", body["Name"]), normal(kind, body));
    };
    for service in objects.services.values() {
        add("services", serde_json::to_string(&service.spec).unwrap(), None);
    }
    for network in objects.networks.values() {
        if let Wanted::Own { spec, .. } = network {
            add("networks", serde_json::to_string(spec).unwrap(), None);
        }
    }
    for secret in objects.secrets.values() {
        if let Wanted::Own { spec, .. } = secret {
            add("secrets", serde_json::to_string(spec).unwrap(), Some(&spec.data));
        }
    }
    for config in objects.configs.values() {
        if let Wanted::Own { spec, .. } = config {
            add("configs", serde_json::to_string(spec).unwrap(), Some(&spec.data));
        }
    }
    Ok(created)
}

/// Lets Docker's CLI deploy the files in `folder` to a recording engine.
async fn deploy(folder: &Path) -> (Output, Created) {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("engine.sock");
    let created = Arc::new(Mutex::new(Created::new()));
    let listener = UnixListener::bind(&socket).unwrap();
    let engine = tokio::spawn(record(listener, Arc::clone(&created)));
    let docker = swarmkeeper_lab::docker_cli().unwrap_or_else(|error| panic!("{error:#}"));
    let mut command = tokio::process::Command::new(docker);
    command.args(["stack", "deploy", "--resolve-image", "never"]);
    for file in compose_files(folder) {
        command.arg("-c").arg(file);
    }
    let output = command
        .arg("s")
        .env_clear()
        .envs(ENVIRONMENT)
        .env("DOCKER_CONFIG", home.path())
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .output()
        .await
        .unwrap();
    engine.abort();
    let created = created.lock().unwrap().clone();
    (output, created)
}

fn compose_files(folder: &Path) -> Vec<PathBuf> {
    let paths = ["1.yml", "2.yml", "3.yml"].map(|name| folder.join(name));
    paths.into_iter().filter(|path| path.exists()).collect()
}

/// An engine that manages an empty swarm, where every external object is there.
async fn record(listener: UnixListener, created: Arc<Mutex<Created>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let created = Arc::clone(&created);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, Arc::clone(&created)));
            // The CLI closes its connections when it ends, which is no fault.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: Request<Incoming>, created: Arc<Mutex<Created>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().trim_start_matches("/v1.50").to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (status, body) = if request.method() == Method::POST {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let kind = path.trim_start_matches('/').trim_end_matches("/create").to_owned();
        created.lock().unwrap().insert(format!("{kind} {}", body["Name"]), normal(&kind, body));
        (201, json!({"ID": "id", "Id": "id"}))
    } else {
        match path.as_str() {
            "/_ping" => (200, json!("OK")),
            "/info" => {
                (200, json!({"Swarm": {"ControlAvailable": true, "LocalNodeState": "active"}, "OSType": "linux"}))
            }
            "/services" | "/networks" => (200, json!([])),
            "/secrets" | "/configs" => (200, wanted_names(&query)),
            _ => match path.strip_prefix("/networks/") {
                Some(name) => (200, json!({"Name": name, "Id": name, "Scope": "swarm"})),
                None => (404, json!({"message": "there is no such thing"})),
            },
        }
    };
    let response =
        Response::builder().status(status).header("Api-Version", "1.50").header("Content-Type", "application/json");
    Ok(response.body(Full::new(Bytes::from(body.to_string()))).unwrap())
}

/// A list with every name that the filter asks for.
fn wanted_names(query: &str) -> Value {
    let filters = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "filters");
    let filters: Value = filters.map_or(Value::Null, |(_, text)| serde_json::from_str(&text).unwrap());
    let names = filters["name"].as_object().into_iter().flat_map(|names| names.keys());
    names.map(|name| json!({"ID": "", "Spec": {"Name": name}})).collect()
}

/// Levels out what does not matter: the order of files of one name and of ports published on one port (Go's sort is not
/// stable), the ID that is not known yet, and, for networks, fields that say nothing.
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
    if let Some(config) = container.pointer_mut("/Privileges/CredentialSpec/Config") {
        *config = json!("");
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
