//! What is registered at the local agent: services, their checks, and their maintenance.
//!
//! Reads are answered from the agent's memory. Writes that change something wait until the servers have taken the change, or until
//! the agent gave up telling them (it then tries by itself), so they are made one after another.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use reqwest::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use super::{Consul, Error};

/// A service as the agent tells it; check definitions are not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentService {
    /// Unique at this agent.
    #[serde(rename = "ID")]
    pub id: String,
    /// The name it is found by.
    #[serde(rename = "Service")]
    pub name: String,
    /// Its tags.
    #[serde(deserialize_with = "null_is_default")]
    pub tags: Vec<String>,
    /// What else was said about it.
    #[serde(deserialize_with = "null_is_default")]
    pub meta: BTreeMap<String, String>,
    /// Its port.
    pub port: u16,
    /// Its address; empty stands for the node's.
    pub address: String,
    /// True if others may change the tags in the catalog.
    pub enable_tag_override: bool,
}

/// What registrations depend on at the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentWays {
    /// The address by which it is known to the others; that of services without one.
    pub address: IpAddr,
    /// True if it runs scripts that it is told over HTTP.
    pub runs_scripts: bool,
}

/// A check as the agent tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentCheck {
    /// Unique at this agent.
    #[serde(rename = "CheckID")]
    pub id: String,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// How it stands.
    pub status: CheckStatus,
    /// What it means, for people.
    #[serde(default)]
    pub notes: String,
    /// What it said last.
    #[serde(default)]
    pub output: String,
    /// The service it belongs to; empty if to the node.
    #[serde(rename = "ServiceID", default)]
    pub service_id: String,
}

/// How a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// Well.
    Passing,
    /// Well enough to be found.
    Warning,
    /// Out of DNS. A status that we do not know counts as this one.
    #[serde(other)]
    Critical,
}

/// A service to register, with its checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Registration {
    /// Unique at this agent.
    #[serde(rename = "ID")]
    pub id: String,
    /// The name it is found by.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// What else is to be said about it.
    pub meta: BTreeMap<String, String>,
    /// Its port.
    pub port: u16,
    /// Its address.
    pub address: IpAddr,
    /// Its checks.
    pub checks: Vec<CheckDefinition>,
}

/// A check of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CheckDefinition {
    /// Unique at this agent.
    #[serde(rename = "CheckID")]
    pub id: String,
    /// For people.
    pub name: String,
    /// What it means, for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// How it stands before its first result; Consul takes critical if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<CheckStatus>,
    /// What is looked at.
    #[serde(flatten)]
    pub probe: Probe,
    /// How long it may be critical before the agent forgets the service, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deregister_critical_service_after: Option<String>,
}

/// What a check looks at; durations are Go's (`1m30s`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Probe {
    /// Somebody reports; silence for this long is critical.
    #[serde(rename_all = "PascalCase")]
    Ttl {
        /// The time.
        #[serde(rename = "TTL")]
        ttl: String,
    },
    /// The agent makes an HTTP request: 2xx passes, 429 warns.
    #[serde(rename_all = "PascalCase")]
    Http {
        /// What to ask for.
        #[serde(rename = "HTTP")]
        url: String,
        /// GET if none.
        #[serde(skip_serializing_if = "Option::is_none")]
        method: Option<String>,
        /// True to take any certificate; the address is an IP, which certificates seldom name.
        #[serde(rename = "TLSSkipVerify", skip_serializing_if = "std::ops::Not::not")]
        tls_skip_verify: bool,
        /// How often.
        interval: String,
        /// How long an answer may take; Consul's default is 10 s.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
    },
    /// The agent asks the standard gRPC health service.
    #[serde(rename_all = "PascalCase")]
    Grpc {
        /// `host:port`, or `host:port/service` for one service of the server.
        #[serde(rename = "GRPC")]
        address: String,
        /// True for TLS.
        #[serde(rename = "GRPCUseTLS", skip_serializing_if = "std::ops::Not::not")]
        use_tls: bool,
        /// True to take any certificate.
        #[serde(rename = "TLSSkipVerify", skip_serializing_if = "std::ops::Not::not")]
        tls_skip_verify: bool,
        /// How often.
        interval: String,
        /// How long an answer may take; Consul's default is 10 s.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
    },
    /// The agent runs a program on its own machine: 0 passes, 1 warns. Refused unless `enable_script_checks` is set there.
    #[serde(rename_all = "PascalCase")]
    Script {
        /// The program and its arguments.
        args: Vec<String>,
        /// How often.
        interval: String,
        /// How long it may take; Consul's default is 30 s.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
    },
    /// The agent opens a connection.
    #[serde(rename_all = "PascalCase")]
    Tcp {
        /// `host:port`.
        #[serde(rename = "TCP")]
        address: String,
        /// How often.
        interval: String,
        /// How long an answer may take; Consul's default is 10 s.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
    },
}

impl Consul {
    /// All services of the local agent, by ID.
    pub async fn agent_services(&self) -> Result<BTreeMap<String, AgentService>, Error> {
        self.agent_services_as().await
    }

    /// The same, of each what `T` keeps of it: a thousand whole ones are megabytes.
    pub async fn agent_services_as<T: DeserializeOwned>(&self) -> Result<BTreeMap<String, T>, Error> {
        self.get_json(&["agent", "services"], &[]).await
    }

    /// All checks of the local agent, those of the node among them, by ID.
    pub async fn agent_checks(&self) -> Result<BTreeMap<String, AgentCheck>, Error> {
        self.agent_checks_as().await
    }

    /// The same, of each what `T` keeps of it.
    pub async fn agent_checks_as<T: DeserializeOwned>(&self) -> Result<BTreeMap<String, T>, Error> {
        self.get_json(&["agent", "checks"], &[]).await
    }

    /// What registrations depend on at the local agent.
    pub async fn agent_ways(&self) -> Result<AgentWays, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Told {
            member: Member,
            #[serde(default)]
            debug_config: DebugConfig,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Member {
            addr: IpAddr,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "PascalCase", default)]
        struct DebugConfig {
            enable_remote_script_checks: bool,
        }
        let Told { member, debug_config } = self.get_json(&["agent", "self"], &[]).await?;
        Ok(AgentWays { address: member.addr, runs_scripts: debug_config.enable_remote_script_checks })
    }

    /// Registers a service with exactly these checks, or changes it into that.
    pub async fn register_service(&self, registration: &Registration) -> Result<(), Error> {
        // Without the parameter a check that is no longer wanted would survive.
        let query = [("replace-existing-checks", "true")];
        let request = self.request(Method::PUT, ["agent", "service", "register"]).queries(&query).json(registration)?;
        request.needs("service", &registration.name, "write").send().await.map(drop)
    }

    /// Takes a service and its checks away; an unknown one is fine.
    pub async fn deregister_service(&self, id: &str) -> Result<(), Error> {
        self.request(Method::PUT, ["agent", "service", "deregister", id]).send_unless_missing().await.map(drop)
    }

    /// Says how a TTL check stands. Keep `output` constant: a changed text wakes every watcher of the check.
    pub async fn update_check(&self, id: &str, status: CheckStatus, output: &str) -> Result<(), Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Update<'a> {
            status: CheckStatus,
            output: &'a str,
        }
        self.put_json(&["agent", "check", "update", id], &[], &Update { status, output }).await.map(drop)
    }

    /// Puts a service into maintenance, which takes it out of DNS at once, giving the reason; `None` ends it.
    pub async fn service_maintenance(&self, id: &str, reason: Option<&str>) -> Result<(), Error> {
        let enable = if reason.is_some() { "true" } else { "false" };
        let query = [("enable", enable), ("reason", reason.unwrap_or_default())];
        self.put(&["agent", "service", "maintenance", id], &query).await
    }
}

/// The ID of the check by which Consul notes that a service is in maintenance; its notes hold the reason.
pub fn maintenance_check(service_id: &str) -> String {
    format!("_service_maintenance:{service_id}")
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        })
    }
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_without_tags_and_meta_is_read() {
        let service: AgentService =
            serde_json::from_value(json!({"ID": "a", "Service": "b", "Tags": null, "Meta": null, "Port": 0})).unwrap();
        assert_eq!((service.id.as_str(), service.tags.len(), service.meta.len()), ("a", 0, 0));
    }

    #[test]
    fn a_registration_is_written_in_consuls_words() {
        let check = CheckDefinition {
            id: "web:check".to_owned(),
            name: "HTTP".to_owned(),
            notes: String::new(),
            status: Some(CheckStatus::Passing),
            probe: Probe::Http {
                url: "http://10.0.0.1:80/".to_owned(),
                method: None,
                tls_skip_verify: false,
                interval: "10s".to_owned(),
                timeout: None,
            },
            deregister_critical_service_after: None,
        };
        let registration = Registration {
            id: "web".to_owned(),
            name: "web".to_owned(),
            tags: vec!["a".to_owned()],
            meta: BTreeMap::new(),
            port: 80,
            address: [10, 0, 0, 1].into(),
            checks: vec![check],
        };
        let expect = json!({
            "ID": "web", "Name": "web", "Tags": ["a"], "Meta": {}, "Port": 80, "Address": "10.0.0.1",
            "Checks": [{"CheckID": "web:check", "Name": "HTTP", "Status": "passing", "HTTP": "http://10.0.0.1:80/", "Interval": "10s"}],
        });
        assert_eq!(serde_json::to_value(registration).unwrap(), expect);
    }
}
