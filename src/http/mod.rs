//! Health, metrics, the API and webhooks, on every node.
//!
//! ```text
//! listener → server (limits) → auth (who asks?) → api | webhooks → Keeper → JSON
//! ```
//!
//! The listeners and the shutdown are arguments, so a test speaks to a real socket on port 0. Everything behind the
//! requests is one trait, [`Keeper`], so this module knows neither leader nor swarm.
//!
//! # Who may ask what
//!
//! * `/healthz`, `/readyz` and `/metrics` are open, unless a setting closes them: they name no secret and change nothing.
//! * Webhooks prove themselves with `webhook_secret` and can only *wake*: git is asked again, so a stranger's payload, a replayed
//!   one or a forged branch changes nothing that runs.
//! * Everything else is for this node's own processes (a loopback peer, no proxy and no browser's page in between), for a bearer of
//!   `api_token`, for who shows a certificate of `tls.client_ca_file`, and for other keepers of the cluster.
//!
//! # Limits
//!
//! Connections per listener, bytes of a body and the time for headers, body and answer are constants of [`server`] and
//! [`webhooks`]. HTTP/1 has one request in flight per connection, so the limit of connections is also that of requests;
//! each listener has its own, so strangers on the network cannot starve this node's health checks. One peer's connections and its
//! requests in a second are limited by [`limits`].

mod answer;
mod api;
mod auth;
pub mod limits;
pub mod server;
pub mod tls;
pub mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use futures_util::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::io::keeper;
use crate::model::{Sensitive, StackName};
use crate::status::{ClusterStatus, Command, LeaderReport, StackHistory};

pub use server::serve;
use tls::Tls;

/// What stands behind the requests: the agent on this node.
pub trait Keeper: Send + Sync + 'static {
    /// What is known of the cluster: a leader knows it all, a follower asks the leader and else says what it knows.
    fn status(&self, asker: Asker) -> BoxFuture<'_, ClusterStatus>;

    /// Who leads and who could; a follower asks the leader and else says what it knows.
    fn leader(&self, asker: Asker) -> BoxFuture<'_, LeaderReport>;

    /// How a stack's last rollouts ended; a follower asks the leader.
    fn history(&self, stack: StackName, asker: Asker) -> BoxFuture<'_, Result<StackHistory, CommandError>>;

    /// Does what a person asks, or hands it to the leader; the answer is one line for the person.
    fn command(&self, command: Command, asker: Asker) -> BoxFuture<'_, Result<String, CommandError>>;

    /// Something may have changed in git: look now. Called for every valid webhook, so it must be cheap and may coalesce.
    fn wake(&self, reason: String);

    /// How this agent is.
    fn health(&self) -> Health;
}

/// Who asks. What a keeper asks is never handed on, or two followers that each take the other for the leader would ask for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A person or a script; a follower hands the request to the leader.
    Person,
    /// Another keeper, on behalf of its own asker.
    Keeper,
}

/// How this agent is, for `/healthz` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct Health {
    /// The process does its work; if false, restarting it may help.
    pub live: bool,
    /// The engine and Consul answer and the first pass is over.
    pub ready: bool,
    /// What is the matter; no secret.
    pub problems: Vec<String>,
}

/// Why a command was not done, and what the person can do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct CommandError {
    /// What kind of no.
    pub kind: CommandErrorKind,
    /// What is the matter, naming the operation and its subject.
    pub error: String,
    /// What to do next; empty where nothing helps but waiting.
    pub next: String,
}

impl CommandError {
    /// It cannot be done at the moment; `next` is what to do about it.
    pub fn unavailable(error: impl Into<String>, next: impl Into<String>) -> Self {
        Self { kind: CommandErrorKind::Unavailable, error: error.into(), next: next.into() }
    }

    /// Somebody was taken for the leader who is none now.
    pub fn leads_no_more(node: &str) -> Self {
        Self::unavailable(format!("{node} does not lead any more"), ASK_AGAIN)
    }
}

/// What helps where only a little time does.
pub const ASK_AGAIN: &str = "ask again in a few seconds";

/// The kinds of no, each an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandErrorKind {
    /// The request itself makes no sense (400).
    Invalid,
    /// There is no such stack (404).
    NotFound,
    /// Not in the state it is in, such as approving what waits for nothing (409).
    Conflict,
    /// Nobody leads, or the leader cannot be reached (503).
    Unavailable,
    /// Our own fault (500).
    Internal,
}

/// What the server needs to know.
#[derive(Clone)]
pub struct Api {
    /// The agent.
    pub keeper: Arc<dyn Keeper>,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Opens the API to askers elsewhere; none: only this node's processes may ask.
    pub api_token: Option<Sensitive<String>>,
    /// What keepers of this cluster show each other; a function, since it is known only once Consul has answered.
    pub cluster_token: ClusterToken,
    /// Signs webhooks; none: there are no webhooks.
    pub webhook_secret: Option<Sensitive<String>>,
    /// The branch whose pushes wake us.
    pub branch: String,
    /// False: who asks for health and metrics needs what the rest needs.
    pub health_is_open: bool,
    /// What listeners beyond loopback are secured with; none: nothing.
    pub tls: Option<Arc<Tls>>,
}

/// Gives what keepers of this cluster show each other, once it is known.
pub type ClusterToken = Arc<dyn Fn() -> Option<Sensitive<String>> + Send + Sync>;

/// All routes.
pub fn router(api: Api) -> Router {
    let health = Router::new()
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz))
        .route("/metrics", get(api::metrics));
    let (open, closed) = if api.health_is_open { (health, Router::new()) } else { (Router::new(), health) };
    let guarded = closed
        .route("/v1/status", get(api::status))
        .route("/v1/stacks", get(api::stacks))
        .route("/v1/stacks/{name}", get(api::stack))
        .route("/v1/stacks/{name}/history", get(api::history))
        .route("/v1/stacks/{name}/{verb}", post(api::stack_command))
        .route("/v1/sync", post(api::sync))
        .route("/v1/pause", post(api::pause_all))
        .route("/v1/resume", post(api::resume_all))
        .route("/v1/nodes/{name}/{verb}", post(api::node_command))
        .route("/v1/leave", post(api::leave))
        .route("/v1/leader", get(api::leader))
        .route("/v1/leader/step-down", post(api::step_down))
        .route("/v1/wake", post(api::wake))
        .layer(axum::middleware::from_fn_with_state(api.clone(), auth::require));
    open.route("/v1/webhooks/github", post(webhooks::github))
        .route("/v1/webhooks/generic", post(webhooks::generic))
        .merge(guarded)
        .fallback(api::not_found)
        .method_not_allowed_fallback(api::method_not_allowed)
        .layer(axum::middleware::from_fn(api::in_time))
        .with_state(api)
}

impl From<keeper::Error> for CommandError {
    /// What the leader answered to a follower is what the follower answers.
    fn from(error: keeper::Error) -> Self {
        match error {
            keeper::Error::Refused { status, error, next } => {
                let kind = match status {
                    400 => CommandErrorKind::Invalid,
                    404 => CommandErrorKind::NotFound,
                    409 => CommandErrorKind::Conflict,
                    _ => CommandErrorKind::Unavailable,
                };
                Self { kind, error, next }
            }
            other => Self::unavailable(
                format!("the leader cannot be asked: {other}"),
                format!("{ASK_AGAIN}: another keeper takes over when the leader is gone"),
            ),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/support/ca.rs"]
mod ca;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
