//! The engine's swarm API: services, tasks, networks, secrets, configs, nodes.
//!
//! A thin client of our own over reqwest. bollard 0.21 does for containers and images, but loses `Healthcheck` and every field it
//! does not know when a service is read and written back, and encodes registry credentials in the wrong alphabet.
//!
//! * The API version is negotiated once ([`Swarm::connect`]): the engine's newest, at most the newest that we know.
//! * Every write asks the [`WriteGate`] first, carries the fencing token in its User-Agent, and through a gate waits 2 s at most:
//!   a lease is longer than that, so no write of ours is in flight after it. Updates carry the object's version.
//! * Reads wait [`READ_TIMEOUT`] at most, and no answer above [`ANSWER_BYTES_MAX`] is read.
//! * A read of what the managers know is asked again every [`ASK_AGAIN`] beside the first, and the first to end counts. An engine hands
//!   such a read on to swarm's Raft leader; one that it handed to a leader that is lost ends with its timeout, although the managers
//!   have elected another meanwhile, who answers at once.

mod cluster;
mod error;
mod objects;
mod services;

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use super::WriteGate;
use crate::model::Sensitive;

pub use cluster::{Distribution, EngineInfo, EngineSwarm, SwarmInfo};
pub use error::Error;
pub use objects::config_content;

/// Longest wait for a read.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer is waited for before the same is asked once more. Two questions at most are open, since an engine may also be slow.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Longest wait for a registry to answer through the engine.
pub const REGISTRY_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for a write that a lease covers.
pub const FENCED_WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for a write that a person started.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Oldest API that has all we need (Docker 20.10).
pub const API_FLOOR: ApiVersion = ApiVersion { major: 1, minor: 41 };

/// Newest API that we know.
pub const API_NEWEST: ApiVersion = ApiVersion { major: 1, minor: 51 };

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Connections kept open: as many as `stacks` writes at once.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// The header that carries registry credentials.
const REGISTRY_AUTH: HeaderName = HeaderName::from_static("x-registry-auth");

/// How to reach the engine.
#[derive(Clone)]
pub struct Options {
    /// As `DOCKER_HOST`: `unix:///var/run/docker.sock`, or `tcp://host:port` without TLS.
    pub host: String,
    /// The leader's lease; none for a command that a person runs.
    pub gate: Option<WriteGate>,
}

/// A client; cheap to clone.
#[derive(Clone)]
pub struct Swarm {
    http: reqwest::Client,
    base: url::Url,
    version: ApiVersion,
    gate: Option<WriteGate>,
}

/// A version of the engine's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// Always 1 so far.
    pub major: u32,
    /// Grows with the engine's releases.
    pub minor: u32,
}

impl ApiVersion {
    /// Reads `1.41`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl fmt::Debug for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarm")
            .field("base", &self.base.as_str())
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Swarm {
    /// Reaches the engine and agrees on an API version.
    pub async fn connect(options: &Options) -> Result<Self, Error> {
        let bad = |reason: String| Error::Address { address: options.host.clone(), reason };
        // reqwest wants a TLS provider even for plain HTTP; an earlier client may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            // No TLS here, and reading the machine's CA roots would take longer than the first request.
            .tls_certs_only([])
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        let (builder, base) = match options.host.split_once("://") {
            Some(("unix", path)) => (builder.unix_socket(path), "http://engine".to_owned()),
            Some(("tcp" | "http", address)) => (builder, format!("http://{address}")),
            _ => return Err(bad("expected unix:///path or tcp://host:port".into())),
        };
        let http = builder.build().map_err(|error| bad(format!("{error:#}")))?;
        let base = url::Url::parse(&base).map_err(|error| bad(error.to_string()))?;
        let mut swarm = Self { http, base, version: API_FLOOR, gate: options.gate.clone() };
        swarm.version = swarm.negotiate().await?;
        Ok(swarm)
    }

    /// The API version agreed on.
    pub fn api_version(&self) -> ApiVersion {
        self.version
    }

    /// The same client with another gate.
    #[must_use]
    pub fn with_gate(&self, gate: Option<WriteGate>) -> Self {
        Self { gate, ..self.clone() }
    }

    async fn negotiate(&self) -> Result<ApiVersion, Error> {
        let operation = "GET /_ping".to_owned();
        let mut url = self.base.clone();
        url.set_path("/_ping");
        let request = self.http.get(url).timeout(READ_TIMEOUT);
        let (headers, _) = send(operation.clone(), READ_TIMEOUT, request).await?;
        let offered = headers.get("api-version").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let version = ApiVersion::parse(offered).ok_or_else(|| Error::Answer {
            operation,
            reason: format!("no API version in its headers ({offered:?}); is this a Docker engine?"),
        })?;
        if version < API_FLOOR {
            return Err(Error::TooOld { offered: version.to_string(), floor: API_FLOOR.to_string() });
        }
        Ok(version.min(API_NEWEST))
    }

    fn request(&self, method: Method, path: &str) -> (String, RequestBuilder) {
        let mut url = self.base.clone();
        url.set_path(&format!("/v{}{path}", self.version));
        (format!("{method} {path}"), self.http.request(method, url))
    }

    /// Reads JSON.
    async fn read<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Error> {
        let ask = || {
            let (operation, request) = self.request(Method::GET, path);
            Box::pin(self.read_bytes(operation, request.query(query), READ_TIMEOUT))
        };
        let mut first = ask();
        let mut answered = timeout(ASK_AGAIN, &mut first).await.ok();
        let body = loop {
            if let Some(body) = answered {
                break body?;
            }
            // Cancel-safe: the first is kept, and of a read nothing is lost.
            answered = tokio::select! {
                body = &mut first => Some(body),
                again = timeout(ASK_AGAIN, ask()) => again.ok(),
            };
        };
        decode(format!("GET {path}"), &body)
    }

    async fn read_bytes(&self, operation: String, request: RequestBuilder, limit: Duration) -> Result<Vec<u8>, Error> {
        let request = request.timeout(limit).header(reqwest::header::USER_AGENT, user_agent(None));
        Ok(send(operation, limit, request).await?.1)
    }

    /// Writes, if the gate lets us, and gives the answer's body.
    async fn write(&self, write: Write<'_>) -> Result<Vec<u8>, Error> {
        let (operation, mut request) = self.request(write.method, &write.path);
        let (token, limit) = match &self.gate {
            None => (None, WRITE_TIMEOUT),
            Some(gate) => match gate() {
                Ok(permit) => (Some(permit.token), FENCED_WRITE_TIMEOUT),
                Err(source) => return Err(Error::Closed { operation, source }),
            },
        };
        request = request.timeout(limit).query(&write.query).header(reqwest::header::USER_AGENT, user_agent(token));
        if let Some(auth) = write.auth {
            request = request.header(REGISTRY_AUTH, auth_header(auth, &operation)?);
        }
        if let Some(body) = write.body {
            request = request.json(&body);
        }
        Ok(send(operation, limit, request).await?.1)
    }

    /// Creates an object and gives its ID.
    async fn create(&self, path: &str, body: Value, auth: Option<&Sensitive<String>>) -> Result<String, Error> {
        let write = Write { auth, body: Some(body), ..Write::new(Method::POST, path.to_owned()) };
        let operation = format!("POST {path}");
        let answer: Value = decode(operation.clone(), &self.write(write).await?)?;
        match answer.get("ID").or_else(|| answer.get("Id")).and_then(Value::as_str) {
            Some(id) if !id.is_empty() => Ok(id.to_owned()),
            _ => Err(Error::Answer { operation, reason: "no ID in it".into() }),
        }
    }

    async fn remove(&self, path: String) -> Result<(), Error> {
        self.write(Write::new(Method::DELETE, path)).await.map(drop)
    }
}

/// One write.
struct Write<'a> {
    method: Method,
    path: String,
    query: Vec<(&'a str, String)>,
    auth: Option<&'a Sensitive<String>>,
    body: Option<Value>,
}

impl Write<'_> {
    fn new(method: Method, path: String) -> Self {
        Self { method, path, query: Vec::new(), auth: None, body: None }
    }
}

/// `swarmkeeper/0.1.0`, with the fencing token where there is one, so that a recording shows who wrote.
fn user_agent(token: Option<u64>) -> String {
    let name = concat!("swarmkeeper/", env!("CARGO_PKG_VERSION"));
    token.map_or_else(|| name.to_owned(), |token| format!("{name} (token={token})"))
}

fn auth_header(auth: &Sensitive<String>, operation: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(auth.reveal()).map_err(|_| Error::Answer {
        operation: operation.to_owned(),
        reason: "the registry credentials are no header value".into(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sends a request and reads its answer to the end, whatever comes first: the end, the limit in time, or the limit in size.
async fn send(operation: String, limit: Duration, request: RequestBuilder) -> Result<(HeaderMap, Vec<u8>), Error> {
    let unreachable = |source| Error::Unreachable { operation: operation.clone(), limit, source };
    let mut response: Response = request.send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Error::Answer { operation, reason: format!("more than {ANSWER_BYTES_MAX} bytes") });
        }
        body.extend_from_slice(&chunk);
    }
    let status = response.status();
    if status.is_success() {
        return Ok((response.headers().clone(), body));
    }
    let message = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|json| json.get("message").and_then(Value::as_str).map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned());
    Err(error::classify(operation, status.as_u16(), &message))
}

fn decode<T: DeserializeOwned>(operation: String, body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Answer { operation, reason: error.to_string() })
}

fn encode(operation: &str, value: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(value)
        .map_err(|error| Error::Answer { operation: operation.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use wiremock::matchers::{header, method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::io::{GateClosed, WritePermit};

    async fn engine(api: &str) -> MockServer {
        let server = MockServer::start().await;
        Mock::given(path("/_ping"))
            .respond_with(ResponseTemplate::new(200).insert_header("Api-Version", api))
            .mount(&server)
            .await;
        server
    }

    async fn client(server: &MockServer, gate: Option<WriteGate>) -> Result<Swarm, Error> {
        Swarm::connect(&Options { host: format!("tcp://{}", server.address()), gate }).await
    }

    #[tokio::test]
    async fn the_newest_version_that_both_know_is_spoken() {
        let newer = client(&engine("1.99").await, None).await.unwrap();
        assert_eq!(newer.api_version(), API_NEWEST);
        let older = client(&engine("1.41").await, None).await.unwrap();
        assert_eq!(older.api_version(), API_FLOOR);
    }

    #[tokio::test]
    async fn an_engine_that_is_too_old_is_named() {
        let error = client(&engine("1.40").await, None).await.unwrap_err();
        insta::assert_snapshot!(error, @"the engine speaks API 1.40, swarmkeeper needs 1.41 or newer (Docker 20.10)");
    }

    #[tokio::test]
    async fn a_write_asks_the_gate_and_carries_its_token() {
        let server = engine("1.41").await;
        Mock::given(method("DELETE"))
            .and(header("user-agent", format!("swarmkeeper/{} (token=7)", env!("CARGO_PKG_VERSION")).as_str()))
            .respond_with(ResponseTemplate::new(200))
            .expect(1)
            .mount(&server)
            .await;
        let open = Arc::new(AtomicBool::new(true));
        let gate: WriteGate = {
            let open = open.clone();
            Arc::new(move || {
                if open.load(Ordering::Relaxed) {
                    Ok(WritePermit { token: 7 })
                } else {
                    Err(GateClosed("not the leader".into()))
                }
            })
        };
        let swarm = client(&server, Some(gate)).await.unwrap();
        swarm.service_remove("abc").await.unwrap();
        open.store(false, Ordering::Relaxed);
        let error = swarm.service_remove("abc").await.unwrap_err();
        insta::assert_snapshot!(error, @"DELETE /services/abc: not written: not the leader");
    }

    #[tokio::test]
    async fn a_read_that_went_to_a_lost_leader_is_asked_again_beside_the_first() {
        let server = engine("1.41").await;
        let services = || Mock::given(method("GET")).and(path("/v1.41/services"));
        let lost = ResponseTemplate::new(200).set_body_raw("[]", "application/json").set_delay(READ_TIMEOUT);
        services().respond_with(lost).up_to_n_times(1).mount(&server).await;
        let elected = ResponseTemplate::new(200).set_body_raw("[]", "application/json");
        services().respond_with(elected).expect(1).mount(&server).await;
        let swarm = client(&server, None).await.unwrap();
        let found = timeout(READ_TIMEOUT / 2, swarm.services()).await.expect("the second answers");
        assert!(found.unwrap().is_empty());
    }

    #[tokio::test]
    async fn credentials_are_in_no_error() {
        let server = engine("1.41").await;
        let swarm = client(&server, None).await.unwrap();
        let auth = Sensitive::new("c2VjcmV0".to_owned());
        let error = swarm.service_create(&crate::spec::ServiceSpec::default(), Some(&auth)).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("c2VjcmV0"));
    }
}
