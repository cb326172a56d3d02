//! As much of an engine as the swarm's lock needs, over HTTP: one config with the engine's compare-and-swap.
//!
//! It runs on the model that `tests/e2e/coordinating.rs` compares with a real swarm.

// Each test binary that includes this file uses a part of it.
#![allow(dead_code)]
// A test that cannot start its server has failed, and says why by panicking.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use swarmkeeper::io::swarm::{Options, Swarm};

#[path = "../models/swarm.rs"]
mod model;

use model::{Config, Refusal, SwarmModel};

/// An engine on loopback; its clients may be cut off from it.
#[derive(Clone)]
pub struct Engine {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    model: Mutex<SwarmModel<Value>>,
    answers: AtomicBool,
    writes: Mutex<Vec<String>>,
}

impl Engine {
    /// Starts one.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared {
            model: Mutex::new(SwarmModel::new()),
            answers: AtomicBool::new(true),
            writes: Mutex::default(),
        });
        let router = Router::new()
            .route("/_ping", get(|| async { ([("api-version", "1.41")], "OK") }))
            .route("/v1.41/nodes", get(|| async { axum::Json(nodes()) }))
            .route("/v1.41/configs/{name}", get(read).delete(remove))
            .route("/v1.41/configs/create", post(create))
            .route("/v1.41/configs/{id}/update", post(update))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), note))
            .with_state(Arc::clone(&shared));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared }
    }

    /// A client.
    pub async fn client(&self) -> Swarm {
        Swarm::connect(&Options { host: self.address.clone(), gate: None }).await.unwrap()
    }

    /// Answers from now on, or has no quorum.
    pub fn set_answers(&self, answers: bool) {
        self.shared.answers.store(answers, Ordering::SeqCst);
    }

    /// Who wrote so far, by their User-Agents.
    pub fn writes(&self) -> Vec<String> {
        self.shared.writes.lock().unwrap().clone()
    }
}

fn nodes() -> Value {
    let manager = |name: &str| json!({"ID": name, "Description": {"Hostname": name}, "ManagerStatus": {"Reachability": "reachable"}});
    json!([manager("n1"), manager("n2"), manager("n3")])
}

async fn note(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if !shared.answers.load(Ordering::SeqCst) {
        let body = json!({"message": "rpc error: code = Unknown desc = The swarm does not have a leader."});
        return (StatusCode::INTERNAL_SERVER_ERROR, axum::Json(body)).into_response();
    }
    if request.method() != axum::http::Method::GET {
        let agent = request.headers().get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        shared.writes.lock().unwrap().push(agent.to_owned());
    }
    next.run(request).await
}

async fn read(State(shared): State<Arc<Shared>>, Path(_): Path<String>) -> Response {
    match shared.model.lock().unwrap().read() {
        Some(config) => axum::Json(body(&config)).into_response(),
        None => refused(Refusal::Missing),
    }
}

async fn create(State(shared): State<Arc<Shared>>, axum::Json(spec): axum::Json<Value>) -> Response {
    match shared.model.lock().unwrap().create(spec["Labels"].clone()) {
        Ok(id) => (StatusCode::CREATED, axum::Json(json!({"ID": id}))).into_response(),
        Err(refusal) => refused(refusal),
    }
}

async fn update(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Query(query): Query<BTreeMap<String, u64>>,
    axum::Json(spec): axum::Json<Value>,
) -> Response {
    match shared.model.lock().unwrap().update(&id, query["version"], spec["Labels"].clone()) {
        Ok(()) => StatusCode::OK.into_response(),
        Err(refusal) => refused(refusal),
    }
}

async fn remove(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    match shared.model.lock().unwrap().remove(&id) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refused(refusal),
    }
}

fn body(config: &Config<Value>) -> Value {
    json!({
        "ID": config.id,
        "Version": {"Index": config.version},
        "Spec": {"Name": "swarmkeeper-leader", "Labels": config.labels, "Data": "eA=="},
    })
}

fn refused(refusal: Refusal) -> Response {
    let (status, message) = match refusal {
        Refusal::Exists => (StatusCode::CONFLICT, "rpc error: code = AlreadyExists desc = config exists already"),
        Refusal::Missing => (StatusCode::NOT_FOUND, "config not found"),
        Refusal::Stale => {
            (StatusCode::INTERNAL_SERVER_ERROR, "rpc error: code = Unknown desc = update out of sequence")
        }
    };
    (status, axum::Json(json!({"message": message}))).into_response()
}
