//! The node-local Consul agent over HTTP.
//!
//! A client of our own over reqwest: `consulrs` 0.1.0, the crate one would take, fails to decode services that have an address,
//! has no health, transaction or ACL endpoints, and encodes KV keys twice.

pub mod agent;
pub mod kv;
pub mod session;

use std::time::Duration;

use crate::model::Sensitive;

/// How to reach the agent.
#[derive(Debug, Clone)]
pub struct Options {
    /// Such as `http://127.0.0.1:8500` (`CONSUL_HTTP_ADDR`).
    pub address: String,
    /// The ACL token, if the cluster has ACLs.
    pub token: Option<Sensitive<String>>,
}

/// A client; cheap to clone.
#[derive(Debug, Clone)]
pub struct Consul {
    http: reqwest::Client,
    base: url::Url,
    token: Option<Sensitive<String>>,
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
    /// No answer: it may or may not have been done.
    #[error("{operation}: no answer from consul: {source:#}")]
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
        /// Its words, cut to 300 characters.
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

/// Largest answer read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 20;
