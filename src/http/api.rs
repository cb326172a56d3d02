//! Health, metrics, status and commands.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::answer::{Message, Refusal};
use super::server::REQUEST_TIMEOUT;
use super::webhooks::read_body;
use super::{Api, Asker};
use crate::model::StackName;
use crate::status::{ClusterStatus, Command, LeaderReport, StackHistory, StackStatus};

/// The process lives: what Docker's HEALTHCHECK and Consul ask.
pub(super) async fn healthz(State(api): State<Api>) -> Response {
    let health = api.keeper.health();
    (if health.live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(health)).into_response()
}

/// It does its work: engine, Consul and the first pass.
pub(super) async fn readyz(State(api): State<Api>) -> Response {
    let health = api.keeper.health();
    let is_ready = health.live && health.ready;
    (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(health)).into_response()
}

/// In Prometheus' text format.
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], api.metrics.render()).into_response()
}

/// The whole cluster.
pub(super) async fn status(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Json<ClusterStatus> {
    Json(api.keeper.status(asker).await)
}

/// Every stack.
pub(super) async fn stacks(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Json<Vec<StackStatus>> {
    Json(api.keeper.status(asker).await.stacks)
}

/// One stack.
pub(super) async fn stack(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
) -> Result<Json<StackStatus>, Refusal> {
    let stacks = api.keeper.status(asker).await.stacks;
    let known = stacks.iter().map(|stack| stack.name.to_string()).collect::<Vec<_>>().join(", ");
    stacks.into_iter().find(|stack| stack.name.as_str() == name).map(Json).ok_or_else(|| {
        let next = if known.is_empty() { "no stack is known yet".into() } else { format!("known stacks: {known}") };
        Refusal::new(StatusCode::NOT_FOUND, format!("there is no stack {name:?}"), next)
    })
}

/// How one stack's last rollouts ended.
pub(super) async fn history(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
) -> Result<Json<StackHistory>, Refusal> {
    Ok(Json(api.keeper.history(stack_name(name)?, asker).await?))
}

/// Leave every stack alone.
pub(super) async fn pause_all(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Result<Message, Refusal> {
    let body = read_body(request).await?;
    let Pause { reason } = arguments(&body, PAUSE)?;
    run(&api, Command::PauseAll { reason }, asker).await
}

/// End the pauses that began together.
pub(super) async fn resume_all(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Result<Message, Refusal> {
    run(&api, Command::ResumeAll, asker).await
}

/// Look at git now.
pub(super) async fn sync(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Result<Message, Refusal> {
    run(&api, Command::Sync, asker).await
}

/// Forget this swarm.
pub(super) async fn leave(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Result<Message, Refusal> {
    run(&api, Command::Leave, asker).await
}

/// Who leads and who could.
pub(super) async fn leader(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Json<LeaderReport> {
    Json(api.keeper.leader(asker).await)
}

/// Let another lead.
pub(super) async fn step_down(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Result<Message, Refusal> {
    run(&api, Command::StepDown, asker).await
}

/// What another keeper was told: look at git soon.
pub(super) async fn wake(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Result<Message, Refusal> {
    run(&api, Command::Wake, asker).await
}

/// `adopt`, `approve`, `remove`, `retry`, `rollback`, `restart`, `pause`, `resume` or `sync` of one stack.
pub(super) async fn stack_command(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path((name, verb)): Path<(String, String)>,
    request: Request,
) -> Result<Message, Refusal> {
    let stack = stack_name(name)?;
    let body = read_body(request).await?;
    run(&api, parse(stack, &verb, &body)?, asker).await
}

/// `drain` or `activate` of one node.
pub(super) async fn node_command(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path((node, verb)): Path<(String, String)>,
) -> Result<Message, Refusal> {
    let undo = match verb.as_str() {
        "drain" => false,
        "activate" => true,
        other => {
            let error = format!("a node cannot be asked to {other:?}");
            return Err(Refusal::new(StatusCode::NOT_FOUND, error, "it can be asked to drain or activate"));
        }
    };
    run(&api, Command::Drain { node, undo }, asker).await
}

/// Nothing here.
pub(super) async fn not_found(uri: Uri) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()), "see /v1/status")
}

/// Something here, but not for this method.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    let error = format!("{method} {} is not possible", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, error, "read with GET, ask for something to be done with POST")
}

/// Ends a request that takes longer than [`REQUEST_TIMEOUT`].
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()),
            "it may have been done all the same: see /v1/status",
        )
        .into_response(),
    }
}

/// A command's arguments that are not in the path; read for the verbs that need them only.
#[derive(Deserialize)]
struct Approve {
    revision: String,
}

#[derive(Deserialize)]
struct Pause {
    reason: String,
}

/// What a body of [`Pause`] looks like.
const PAUSE: &str = r#"{"reason": "why"}"#;

/// Without a body, to the revision that ran before.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Rollback {
    revision: Option<String>,
    reason: String,
}

#[derive(Deserialize)]
struct Restart {
    service: String,
    reason: String,
}

async fn run(api: &Api, command: Command, asker: Asker) -> Result<Message, Refusal> {
    let message = api.keeper.command(command, asker).await?;
    Ok(Message { message })
}

fn parse(stack: StackName, verb: &str, body: &Bytes) -> Result<Command, Refusal> {
    Ok(match verb {
        "adopt" => Command::Adopt { stack },
        "approve" => {
            let Approve { revision } = arguments(body, r#"{"revision": "9f2c1ab"}"#)?;
            Command::Approve { stack, revision }
        }
        "remove" => Command::Remove { stack },
        "retry" => Command::Retry { stack },
        "pause" => {
            let Pause { reason } = arguments(body, PAUSE)?;
            Command::Pause { stack, reason }
        }
        "rollback" => {
            let example = r#"{"revision": "9f2c1ab", "reason": "why"}, or nothing"#;
            let Rollback { revision, reason } =
                if body.is_empty() { Rollback::default() } else { arguments(body, example)? };
            Command::Rollback { stack, revision, reason }
        }
        "restart" => {
            let Restart { service, reason } = arguments(body, r#"{"service": "web", "reason": "why"}"#)?;
            Command::Restart { stack, service, reason }
        }
        "resume" => Command::Resume { stack },
        // A pass looks at every stack, as cheaply as at one: the path is for those who expect it there.
        "sync" => Command::Sync,
        other => {
            return Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("a stack cannot be asked to {other:?}"),
                "it can be asked to adopt, approve, remove, retry, rollback, restart, pause, resume or sync",
            ));
        }
    })
}

fn stack_name(name: String) -> Result<StackName, Refusal> {
    StackName::new(name).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string(), ""))
}

fn arguments<'a, T: Deserialize<'a>>(body: &'a Bytes, example: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, format!("the body: {error}"), format!("send JSON such as {example}"))
    })
}
