//! Posts JSON to a webhook. The URL often holds a token, so no error shows more of it than its host.

use std::time::Duration;

use serde_json::Value;

use crate::model::Sensitive;

/// Longest wait for one answer.
pub const POST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A webhook; cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhook {
    http: reqwest::Client,
    url: Sensitive<url::Url>,
    host: String,
}

/// Why a post did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL is none. It is not shown, for it may hold a token.
    #[error("notification url: {reason}")]
    Address {
        /// What is wrong with it.
        reason: String,
    },
    /// No answer: it may or may not have arrived.
    #[error("post to {host}: no answer: {reason}")]
    NoAnswer {
        /// The webhook's host.
        host: String,
        /// What happened instead.
        reason: String,
    },
    /// An answer that says no.
    #[error("post to {host}: answered {status}")]
    Refused {
        /// The webhook's host.
        host: String,
        /// HTTP status.
        status: u16,
    },
}

impl Error {
    /// True if the same post may arrive a moment later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Address { .. } => false,
            Self::NoAnswer { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status == 408 || *status >= 500,
        }
    }
}

impl Webhook {
    /// Takes an `http://` or `https://` URL.
    pub fn new(url: &Sensitive<String>) -> Result<Self, Error> {
        let address = |reason: String| Error::Address { reason };
        let url = url::Url::parse(url.reveal().trim()).map_err(|error| address(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(address("it begins neither with https:// nor with http://".to_owned()));
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        // Whoever is first installs it; the result only says who was.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(POST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect would turn the post into a get, or take the content elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("swarmkeeper/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| address(error.without_url().to_string()))?;
        Ok(Self { http, url: Sensitive::new(url), host })
    }

    /// The host, which may be shown.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Posts `body`; any 2xx will do. The answer's body is not read.
    pub async fn post(&self, body: &Value) -> Result<(), Error> {
        let host = || self.host.clone();
        let answer = self.http.post(self.url.reveal().clone()).json(body).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Error::Refused { host: host(), status: answer.status().as_u16() }),
            Err(error) => Err(Error::NoAnswer { host: host(), reason: causes(&error.without_url()) }),
        }
    }
}

/// An error and what caused it, in one line: reqwest alone says "error sending request".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
