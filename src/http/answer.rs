//! Answers: JSON, and errors that say what to do next.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::{CommandError, CommandErrorKind};

/// A no, with what to do next.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    #[serde(skip)]
    pub status: StatusCode,
    /// What is the matter.
    pub error: String,
    /// What to do about it.
    pub next: String,
}

impl Refusal {
    pub fn new(status: StatusCode, error: impl Into<String>, next: impl Into<String>) -> Self {
        Self { status, error: error.into(), next: next.into() }
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let status = match error.kind {
            CommandErrorKind::Invalid => StatusCode::BAD_REQUEST,
            CommandErrorKind::NotFound => StatusCode::NOT_FOUND,
            CommandErrorKind::Conflict => StatusCode::CONFLICT,
            CommandErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            CommandErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.error, error.next)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(&self)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// To a peer that asks more often than [`super::limits`] allow.
pub(super) fn too_many() -> Response {
    let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address", "ask more seldom");
    let mut response = refusal.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}

/// A yes: one line for the person who asked.
#[derive(Debug, Serialize)]
pub(super) struct Message {
    pub message: String,
}

impl IntoResponse for Message {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
