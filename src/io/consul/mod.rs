//! The node-local Consul agent over HTTP.
//!
//! A client of our own over reqwest: `consulrs` 0.1.0, the crate one would take, fails to decode services that have an address,
//! has no health, transaction or ACL endpoints, and encodes KV keys twice.
//!
//! Every request states a timeout and the most it reads. A failure is one of three things, because three things can be done next:
//! [`Error::NoAnswer`] leaves open whether a write was done (read back), [`Error::Refused`] is a clear no, and [`Error::Answer`] is
//! a Consul that does not keep its API. A 403 names the ACL rule that is missing, since Consul 1.8 says "Permission denied" only.
//!
//! Token and certificates may change while the process runs, see [`link`].

pub mod acl;
pub mod agent;
pub mod check;
pub mod health;
pub mod kv;
mod link;
mod request;
pub mod session;
pub mod txn;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Sensitive;

pub use link::Renewal;

/// How to reach the agent.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `http://127.0.0.1:8500`, `https://…`, `unix:///run/consul.sock`, or `host:port` as in Consul's own `CONSUL_HTTP_ADDR`.
    pub address: String,
    /// The ACL token, if the cluster has ACLs.
    pub token: Option<Sensitive<String>>,
    /// The file that the token stands in, to be read again.
    pub token_file: Option<PathBuf>,
    /// For https: the CA of Consul's certificate; else those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// For https: our own certificate, with those that lead to its CA.
    pub cert_file: Option<PathBuf>,
    /// For https: its key.
    pub key_file: Option<PathBuf>,
}

/// A client; cheap to clone, and all clones use the same token and certificates.
#[derive(Debug, Clone)]
pub struct Consul {
    link: Arc<link::Link>,
    base: url::Url,
}

/// What Consul said or did not say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is no address.
    #[error("consul address {address:?}: {reason}")]
    Address {
        /// As configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A token or a certificate that cannot be used.
    #[error("{file}: {reason}")]
    Secret {
        /// The setting and its file.
        file: String,
        /// What is wrong with it, without its content.
        reason: String,
    },
    /// A key or an ID that no URL can carry; nothing was sent.
    #[error("{operation}: a part of this path is empty, \".\" or \"..\", which consul's URLs cannot express")]
    Path {
        /// Method and path.
        operation: String,
    },
    /// No answer: it may or may not have been done.
    #[error("{operation}: no answer from consul: {}", causes(.source))]
    NoAnswer {
        /// Method and path.
        operation: String,
        /// What happened instead.
        source: reqwest::Error,
    },
    /// An answer that says no.
    #[error("{operation}: consul answered {status}: {body}")]
    Refused {
        /// Method and path.
        operation: String,
        /// HTTP status.
        status: u16,
        /// Its words, cut to 300 characters; for a 403 with the ACL rule that the token needs.
        body: String,
    },
    /// An answer that we cannot read.
    #[error("{operation}: consul's answer is not what its API promises: {reason}")]
    Answer {
        /// Method and path.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Longest wait for an ordinary request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Largest answer read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;

impl Consul {
    /// A client for the agent at `options.address`; reads the files and connects to nothing yet.
    pub fn new(options: Options) -> Result<Self, Error> {
        let bad = |reason: String| Error::Address { address: options.address.clone(), reason };
        let (base, socket) = resolve(&options.address).map_err(bad)?;
        let link = link::Link::new(options, base.scheme() == "https", socket)?;
        Ok(Self { link: Arc::new(link), base })
    }
}

impl Error {
    /// True if the request may have been carried out although nobody told us.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Answer { .. })
    }

    /// The status of an answer that says no.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// The base URL, and the path of the socket if the address names one.
fn resolve(address: &str) -> Result<(url::Url, Option<std::path::PathBuf>), String> {
    let address = address.trim();
    if let Some(path) = address.strip_prefix("unix://") {
        if !path.starts_with('/') {
            return Err("write the socket's absolute path, such as unix:///run/consul.sock".to_owned());
        }
        let base = url::Url::parse("http://localhost/").map_err(|error| error.to_string())?;
        return Ok((base, Some(path.into())));
    }
    let text = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let base = url::Url::parse(&text).map_err(|error| error.to_string())?;
    match base.scheme() {
        "http" | "https" if base.has_host() => Ok((base, None)),
        other => Err(format!("{other:?} is not supported; use http, https or unix")),
    }
}

/// An error with its causes: reqwest's own text ends before the interesting part.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expect: Result<&str, &str>) {
        let got = resolve(address).map(|(base, socket)| match socket {
            Some(path) => format!("{base} at {}", path.display()),
            None => base.to_string(),
        });
        match expect {
            Ok(base) => assert_eq!(got.as_deref(), Ok(base)),
            Err(part) => assert!(got.clone().unwrap_err().contains(part), "{got:?}"),
        }
    }

    #[test]
    fn an_address_may_be_a_url_a_host_with_port_or_a_socket() {
        check("http://127.0.0.1:8500", Ok("http://127.0.0.1:8500/"));
        check("https://consul.example/sub", Ok("https://consul.example/sub"));
        check("127.0.0.1:8500", Ok("http://127.0.0.1:8500/"));
        check("unix:///run/consul.sock", Ok("http://localhost/ at /run/consul.sock"));
    }

    #[test]
    fn an_address_that_cannot_work_says_what_would() {
        check("unix://run/consul.sock", Err("absolute path"));
        check("ftp://x", Err("use http, https or unix"));
        check("", Err("empty host"));
    }

    #[test]
    fn a_token_never_shows() {
        let token = Some(Sensitive::new("s3cret".to_owned()));
        let address = "http://127.0.0.1:8500".to_owned();
        let consul = Consul::new(Options { address, token, ..Options::default() }).unwrap();
        assert!(!format!("{consul:?}").contains("s3cret"));
    }
}
