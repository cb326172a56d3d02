//! The engine itself, the swarm as a whole, its nodes, and what a registry says about an image.

use base64::Engine;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, REGISTRY_TIMEOUT, Swarm, Write, auth_header, decode, encode};
use crate::model::Sensitive;
use crate::spec::{Node, NodeSpec, Platform};

/// What we need to know about the engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineInfo {
    /// The node's host name.
    pub name: String,
    /// The engine's release, such as `20.10.24`.
    pub server_version: String,
    /// Its place in a swarm.
    pub swarm: EngineSwarm,
}

/// An engine's place in a swarm.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EngineSwarm {
    /// The node's ID; empty outside a swarm.
    #[serde(rename = "NodeID")]
    pub node_id: String,
    /// The node's address in the swarm.
    pub node_addr: String,
    /// `active`, `inactive`, `pending`, `error` or `locked`.
    pub local_node_state: String,
    /// True on a manager.
    pub control_available: bool,
    /// What is wrong, if anything.
    pub error: String,
}

/// The swarm.
#[derive(Debug, Clone)]
pub struct SwarmInfo {
    /// Its cluster ID.
    pub id: String,
    /// What a worker joins with.
    pub worker_token: Sensitive<String>,
    /// What a manager joins with.
    pub manager_token: Sensitive<String>,
}

/// What a registry says about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// `sha256:…`, of the manifest or of the index.
    pub digest: String,
    /// What it runs on.
    pub platforms: Vec<(String, String)>,
}

impl Distribution {
    /// The platforms as a service's placement holds them.
    ///
    /// A manifest says `arm` where a node says `armv7l`, and swarm compares the texts: without the word, any architecture will do.
    pub fn placement(&self) -> Vec<Platform> {
        let platform = |(architecture, os): &(String, String)| Platform {
            architecture: if architecture == "arm" { String::new() } else { architecture.clone() },
            os: os.clone(),
            ..Platform::default()
        };
        self.platforms.iter().map(platform).collect()
    }
}

impl Swarm {
    /// The engine.
    pub async fn info(&self) -> Result<EngineInfo, Error> {
        self.read("/info", &[]).await
    }

    /// The swarm's ID and join tokens; managers only.
    pub async fn swarm(&self) -> Result<SwarmInfo, Error> {
        let answer: Value = self.read("/swarm", &[]).await?;
        let text = |path: &str| answer.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let info = SwarmInfo {
            id: text("/ID"),
            worker_token: Sensitive::new(text("/JoinTokens/Worker")),
            manager_token: Sensitive::new(text("/JoinTokens/Manager")),
        };
        if info.id.is_empty() {
            return Err(Error::Answer { operation: "GET /swarm".into(), reason: "no cluster ID in it".into() });
        }
        Ok(info)
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<Node>, Error> {
        self.read("/nodes", &[]).await
    }

    /// Changes what is wanted of a node that is still at `version`.
    pub async fn node_update(&self, id: &str, version: u64, spec: &NodeSpec) -> Result<(), Error> {
        let path = format!("/nodes/{id}/update");
        let query = vec![("version", version.to_string())];
        let body = Some(encode(&path, spec)?);
        self.write(Write { query, body, ..Write::new(Method::POST, path) }).await.map(drop)
    }

    /// Tries a login, in the form of `X-Registry-Auth`, at its registry; nothing is kept.
    pub async fn log_in(&self, login: &Sensitive<String>) -> Result<(), Error> {
        let (operation, request) = self.request(Method::POST, "/auth");
        let body = base64::engine::general_purpose::URL_SAFE
            .decode(login.reveal())
            .map_err(|_| Error::Answer { operation: operation.clone(), reason: "the login is no base64".into() })?;
        let request = request.header(reqwest::header::CONTENT_TYPE, "application/json").body(body);
        self.read_bytes(operation, request, REGISTRY_TIMEOUT).await.map(drop)
    }

    /// Asks the image's registry, through the engine, for its digest and platforms.
    pub async fn distribution(&self, image: &str, auth: Option<&Sensitive<String>>) -> Result<Distribution, Error> {
        let (operation, mut request) = self.request(Method::GET, &format!("/distribution/{image}/json"));
        if let Some(auth) = auth {
            request = request.header(super::REGISTRY_AUTH, auth_header(auth, &operation)?);
        }
        let body = self.read_bytes(operation.clone(), request, REGISTRY_TIMEOUT).await?;
        let answer: Value = decode(operation.clone(), &body)?;
        distribution(&answer).ok_or(Error::Answer { operation, reason: "no digest in it".into() })
    }
}

fn distribution(answer: &Value) -> Option<Distribution> {
    let digest = answer.pointer("/Descriptor/digest")?.as_str()?.to_owned();
    let text = |platform: &Value, key: &str| platform.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let platforms = answer.get("Platforms").and_then(Value::as_array).into_iter().flatten();
    let platforms = platforms.map(|platform| (text(platform, "architecture"), text(platform, "os"))).collect();
    Some(Distribution { digest, platforms })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_distribution_gives_digest_and_platforms() {
        let answer =
            json!({"Descriptor": {"digest": "sha256:ab"}, "Platforms": [{"architecture": "amd64", "os": "linux"}]});
        let found = distribution(&answer).unwrap();
        assert_eq!(found.digest, "sha256:ab");
        assert_eq!(found.placement()[0].architecture, "amd64");
        assert!(distribution(&json!({})).is_none());
    }
}
