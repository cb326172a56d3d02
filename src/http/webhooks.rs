//! Push events: a payload is a hint, and a valid one only wakes the loop, which asks git itself.
//!
//! A signature proves that the sender knows `webhook_secret`; it is checked over the raw body before a byte of it is
//! read as JSON. A replayed request wakes once more and changes nothing, so no nonce is kept.

use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

use super::answer::{Message, Refusal};
use super::{Api, auth};
use crate::model::Sensitive;

/// Largest body read, in bytes. GitHub's own limit is 25 MiB, but a push event of ours that large says nothing more.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Longest wait for a whole body.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// `X-Hub-Signature-256`, as GitHub, and those who imitate it, sign.
pub(super) async fn github(State(api): State<Api>, request: Request) -> Result<Message, Refusal> {
    let secret = configured(&api)?;
    let headers = request.headers().clone();
    let body = read_body(request).await?;
    verify(secret, header(&headers, "x-hub-signature-256"), &body)?;
    match header(&headers, "x-github-event") {
        "ping" => Ok(message("pong")),
        "push" => on_push(&api, &headers, &body),
        other => Ok(message(format!("nothing to do for event {other:?}; only push wakes"))),
    }
}

/// For everybody else: signed over the body, or with the secret as a bearer token.
pub(super) async fn generic(State(api): State<Api>, request: Request) -> Result<Message, Refusal> {
    let secret = configured(&api)?;
    let headers = request.headers().clone();
    let body = read_body(request).await?;
    match auth::bearer(&headers) {
        Some(shown) if auth::same(shown, secret) => {}
        Some(_) => return Err(unsigned("the bearer token is not webhook_secret")),
        None => verify(secret, header(&headers, "x-swarmkeeper-signature-256"), &body)?,
    }
    api.keeper.wake("webhook: generic".into());
    Ok(message("looking at git"))
}

/// A body within [`BODY_BYTES_MAX`] and [`BODY_READ_TIMEOUT`].
pub(super) async fn read_body(mut request: Request) -> Result<Bytes, Refusal> {
    let too_large = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {BODY_BYTES_MAX} bytes"),
            "send less: a push event needs its ref only",
        )
    };
    // By what it says of itself, before any of it is read.
    if request.body().size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    DefaultBodyLimit::max(BODY_BYTES_MAX).apply(&mut request);
    let read = tokio::time::timeout(BODY_READ_TIMEOUT, Bytes::from_request(request, &()));
    match read.await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_large()),
        Ok(Err(rejection)) => Err(Refusal::new(rejection.status(), rejection.body_text(), "send it again")),
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", BODY_READ_TIMEOUT.as_secs()),
            "send it again",
        )),
    }
}

/// What we read of a push event.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
}

fn on_push(api: &Api, headers: &HeaderMap, body: &[u8]) -> Result<Message, Refusal> {
    let form = header(headers, "content-type").starts_with("application/x-www-form-urlencoded");
    let push: Result<Push, _> = if form {
        let payload = url::form_urlencoded::parse(body).find(|(key, _)| key == "payload");
        serde_json::from_str(payload.map(|(_, value)| value).unwrap_or_default().as_ref())
    } else {
        serde_json::from_slice(body)
    };
    let push = push.map_err(|error| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("the push event cannot be read: {error}"),
            "set the webhook's content type to application/json",
        )
    })?;
    if push.reference.strip_prefix("refs/heads/") != Some(api.branch.as_str()) {
        return Ok(message(format!("nothing to do for {:?}; only {} wakes", push.reference, api.branch)));
    }
    api.keeper.wake("webhook: github push".into());
    Ok(message("looking at git"))
}

fn configured(api: &Api) -> Result<&Sensitive<String>, Refusal> {
    api.webhook_secret.as_ref().ok_or_else(|| {
        Refusal::new(
            StatusCode::FORBIDDEN,
            "webhooks are off: no webhook_secret is configured",
            "configure webhook_secret, here and at the sender; polling goes on without",
        )
    })
}

/// `shown` is `sha256=<hex>`, the HMAC of the body; compared in constant time.
fn verify(secret: &Sensitive<String>, shown: &str, body: &[u8]) -> Result<(), Refusal> {
    if shown.is_empty() {
        return Err(unsigned("the request is not signed"));
    }
    let signature = shown.strip_prefix("sha256=").and_then(|digits| hex::decode(digits).ok());
    let mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).ok();
    let is_right =
        mac.zip(signature).is_some_and(|(mac, signature)| mac.chain_update(body).verify_slice(&signature).is_ok());
    if is_right { Ok(()) } else { Err(unsigned("the signature does not match webhook_secret and the body")) }
}

fn unsigned(error: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, error, "set the sender's secret to what webhook_secret holds")
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn message(text: impl Into<String>) -> Message {
    Message { message: text.into() }
}
