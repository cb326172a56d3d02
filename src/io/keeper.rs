//! Another keeper over HTTP: what the commands of a person ask this node's agent, and what a follower asks the leader.

use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Method, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use url::Url;

use crate::model::{Sensitive, StackName};
use crate::status::{ClusterStatus, Command, LeaderReport, StackHistory};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for an answer; above the server's own limit, so that its words arrive.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(65);

/// Largest answer read, in bytes: the status of 1,000 stacks of 50 services each is below it.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// A client for one agent; cheap to clone.
#[derive(Debug, Clone)]
pub struct Keeper {
    http: reqwest::Client,
    base: Url,
    token: Option<Sensitive<String>>,
}

/// What the agent said or did not say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is no address, or no client can be made.
    #[error("agent address {address:?}: {reason}")]
    Address {
        /// As configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer: it may or may not have been done.
    #[error("{operation}: no answer: {}", cause(.source))]
    NoAnswer {
        /// Method and address.
        operation: String,
        /// What happened instead.
        source: reqwest::Error,
    },
    /// An answer that says no.
    #[error("{error}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What is the matter.
        error: String,
        /// What to do about it; may be empty.
        next: String,
    },
    /// An answer that is not ours.
    #[error("{operation}: the answer is not a keeper's: {reason}")]
    Answer {
        /// Method and address.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Keeper {
    /// For the agent at `address`, such as `http://127.0.0.1:7979`.
    pub fn new(address: &str, token: Option<Sensitive<String>>) -> Result<Self, Error> {
        Self::trusting(address, token, None)
    }

    /// The same; over https it trusts certificates of the CA in this file only, if one is named.
    pub fn trusting(address: &str, token: Option<Sensitive<String>>, ca_file: Option<&Path>) -> Result<Self, Error> {
        let bad = |reason: String| Error::Address { address: address.to_owned(), reason };
        let base = Url::parse(address).map_err(|error| bad(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad("it must begin with http:// or https://".into()));
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // The token goes to the agent named, neither to a proxy nor to where an answer points.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if base.scheme() == "http" {
            // Otherwise building the client fails where no CA roots are installed, as in an image from scratch.
            http = http.tls_certs_only([]);
        } else if let Some(path) = ca_file {
            let bad = |reason: String| bad(format!("tls.ca_file {}: {reason}", path.display()));
            let pem = std::fs::read(path).map_err(|error| bad(error.to_string()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if roots.is_empty() {
                return Err(bad("there is no certificate in it".into()));
            }
            http = http.tls_certs_only(roots);
        }
        let http = http.build().map_err(|error| bad(error.to_string()))?;
        Ok(Self { http, base, token })
    }

    /// The whole cluster.
    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        self.request(Method::GET, &["v1", "status"], None).await
    }

    /// Who leads and who could.
    pub async fn leader(&self) -> Result<LeaderReport, Error> {
        self.request(Method::GET, &["v1", "leader"], None).await
    }

    /// How a stack's last rollouts ended.
    pub async fn history(&self, stack: &StackName) -> Result<StackHistory, Error> {
        self.request(Method::GET, &["v1", "stacks", stack.as_str(), "history"], None).await
    }

    /// Asks for `command`; the answer is one line for the person.
    pub async fn command(&self, command: &Command) -> Result<String, Error> {
        /// What the server calls a message.
        #[derive(Deserialize)]
        struct Message {
            message: String,
        }
        let (path, body) = route(command);
        let Message { message } = self.request(Method::POST, &path, body).await?;
        Ok(message)
    }

    async fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<serde_json::Value>,
    ) -> Result<T, Error> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let operation = format!("{method} {url}");
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let no_answer = |source: reqwest::Error| Error::NoAnswer {
            operation: operation.clone(),
            // The operation has the address already.
            source: source.without_url(),
        };
        let response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let bytes = read(response, &operation).await?;
        if !status.is_success() {
            return Err(refused(status.as_u16(), &bytes, &operation));
        }
        serde_json::from_slice(&bytes).map_err(|error| Error::Answer { operation, reason: error.to_string() })
    }
}

/// Where a command goes, and its arguments that are not in the path.
fn route(command: &Command) -> (Vec<&str>, Option<serde_json::Value>) {
    let (stack, verb, body) = match command {
        Command::Sync => return (vec!["v1", "sync"], None),
        Command::Leave => return (vec!["v1", "leave"], None),
        Command::StepDown => return (vec!["v1", "leader", "step-down"], None),
        Command::Wake => return (vec!["v1", "wake"], None),
        Command::PauseAll { reason } => return (vec!["v1", "pause"], Some(json!({ "reason": reason }))),
        Command::ResumeAll => return (vec!["v1", "resume"], None),
        Command::Drain { node, undo } => {
            return (vec!["v1", "nodes", node, if *undo { "activate" } else { "drain" }], None);
        }
        Command::Adopt { stack } => (stack, "adopt", None),
        Command::Approve { stack, revision } => (stack, "approve", Some(json!({ "revision": revision }))),
        Command::Remove { stack } => (stack, "remove", None),
        Command::Retry { stack } => (stack, "retry", None),
        Command::Rollback { stack, revision, reason } => {
            (stack, "rollback", Some(json!({ "revision": revision, "reason": reason })))
        }
        Command::Restart { stack, service, reason } => {
            (stack, "restart", Some(json!({ "service": service, "reason": reason })))
        }
        Command::Pause { stack, reason } => (stack, "pause", Some(json!({ "reason": reason }))),
        Command::Resume { stack } => (stack, "resume", None),
    };
    (vec!["v1", "stacks", stack.as_str(), verb], body)
}

async fn read(response: Response, operation: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk
            .map_err(|source| Error::NoAnswer { operation: operation.to_owned(), source: source.without_url() })?;
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            let reason = format!("it is larger than {ANSWER_BYTES_MAX} bytes");
            return Err(Error::Answer { operation: operation.to_owned(), reason });
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn refused(status: u16, body: &[u8], operation: &str) -> Error {
    /// What the server calls a refusal.
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        #[serde(default)]
        next: String,
    }
    match serde_json::from_slice(body) {
        Ok(Refusal { error, next }) => Error::Refused { status, error, next },
        Err(_) => Error::Answer { operation: operation.to_owned(), reason: format!("HTTP {status} without our words") },
    }
}

/// The innermost cause, which says "connection refused" where reqwest says "error sending request".
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_timeout() { "timed out".to_owned() } else { cause.to_string() }
}
