//! A TTL check of our own on the local agent: the sign of life that a session hangs on.
//!
//! It belongs to a service and not to the node, because a check of the node would need `node` write in the ACL policy, which is the
//! right to register anything for this node.

use std::time::Duration;

use reqwest::Method;
use serde::Serialize;

use super::{Consul, Error};

/// A service whose only purpose is its TTL check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The ID of the service and of its check.
    pub id: String,
    /// The service's name in the catalog.
    pub service: String,
    /// The check's name, for people.
    pub name: String,
    /// What the check means, for people.
    pub notes: String,
    /// How long it stays passing without a [`Consul::heartbeat_pass`].
    pub ttl: Duration,
    /// How long a critical one is kept before the agent forgets the service; Consul takes a minute at least.
    pub forgotten_after: Duration,
}

impl Consul {
    /// Registers the service with its check, passing at once; replaces what has the same ID.
    pub async fn heartbeat_register(&self, heartbeat: &Heartbeat) -> Result<(), Error> {
        let body = Service {
            id: &heartbeat.id,
            name: &heartbeat.service,
            check: Check {
                id: &heartbeat.id,
                name: &heartbeat.name,
                notes: &heartbeat.notes,
                ttl: format!("{}ms", heartbeat.ttl.as_millis()),
                status: "passing",
                deregister_critical_service_after: format!("{}s", heartbeat.forgotten_after.as_secs()),
            },
        };
        let request = self.request(Method::PUT, ["agent", "service", "register"]).json(&body)?;
        let request = request.query("replace-existing-checks", "true").needs("service", &heartbeat.service, "write");
        request.send().await.map(drop)
    }

    /// Says that we live. Keep `note` constant: a changed text wakes every watcher of the check.
    pub async fn heartbeat_pass(&self, id: &str, note: &str, timeout: Duration) -> Result<(), Error> {
        let request = self.request(Method::PUT, ["agent", "check", "pass", id]);
        request.query("note", note).timeout(timeout).send().await.map(drop)
    }

    /// Takes the service and its check away; an unknown one is fine.
    pub async fn heartbeat_deregister(&self, id: &str) -> Result<(), Error> {
        let request = self.request(Method::PUT, ["agent", "service", "deregister", id]);
        request.send_unless_missing().await.map(drop)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Service<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    check: Check<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Check<'a> {
    #[serde(rename = "CheckID")]
    id: &'a str,
    name: &'a str,
    notes: &'a str,
    #[serde(rename = "TTL")]
    ttl: String,
    status: &'a str,
    deregister_critical_service_after: String,
}
