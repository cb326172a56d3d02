//! Sessions: what a lock is held with.

use std::time::Duration;

use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::{Consul, Error};

/// What a session is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// For people, and to find our own again.
    pub name: String,
    /// Checks on this node, of the node or of a service, that must not be critical.
    pub checks: Vec<String>,
    /// How long it lives without a renewal; Consul takes 10 s to a day and may take twice as long.
    pub ttl: Duration,
    /// How long nobody may take a lock that this session lost.
    pub lock_delay: Duration,
}

/// A session that exists.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Session {
    /// Its ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// The Consul node it belongs to.
    pub node: String,
}

impl Consul {
    /// Makes a session on this node that releases its locks when it ends; its ID.
    pub async fn session_create(&self, new: &NewSession) -> Result<String, Error> {
        let body = CreateBody {
            name: &new.name,
            checks: &new.checks,
            ttl: format!("{}s", new.ttl.as_secs()),
            lock_delay: format!("{}ms", new.lock_delay.as_millis()),
            behavior: "release",
        };
        let created: Created = self.put_json(&["session", "create"], &[], &body).await?.json()?;
        Ok(created.id)
    }

    /// Ends a session; its locks are released after their delay.
    pub async fn session_destroy(&self, id: &str) -> Result<(), Error> {
        self.put(&["session", "destroy", id], &[]).await
    }

    /// Starts the session's TTL again; false if there is no such session any more.
    pub async fn session_renew(&self, id: &str) -> Result<bool, Error> {
        let request = self.request(Method::PUT, ["session", "renew", id]);
        request.send_unless_missing().await.map(|answer| answer.is_ok())
    }

    /// The session; none if there is no such session any more.
    pub async fn session_info(&self, id: &str) -> Result<Option<Session>, Error> {
        let found: Vec<Session> = self.get_json(&["session", "info", id], &[]).await?;
        Ok(found.into_iter().next())
    }

    /// Every session that the token may read.
    pub async fn session_list(&self) -> Result<Vec<Session>, Error> {
        self.get_json(&["session", "list"], &[]).await
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateBody<'a> {
    name: &'a str,
    checks: &'a [String],
    #[serde(rename = "TTL")]
    ttl: String,
    lock_delay: String,
    behavior: &'a str,
}

#[derive(Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}
