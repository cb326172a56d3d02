//! Networks, secrets and configs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::Value;

use super::{Error, Swarm, Write, encode};
use crate::model::Sensitive;
use crate::spec::{Config, ConfigSpec, Network, NetworkSpec, Secret, SecretSpec};

impl Swarm {
    /// All networks of the swarm, but for the predefined ones (`host`, `bridge`), which no list has.
    pub async fn networks(&self) -> Result<Vec<Network>, Error> {
        self.read("/networks", &[("filters", r#"{"scope":["swarm"]}"#)]).await
    }

    /// One network of the swarm, by ID or name, the predefined ones included.
    pub async fn network(&self, id: &str) -> Result<Network, Error> {
        self.read(&format!("/networks/{id}"), &[("scope", "swarm")]).await
    }

    /// Creates a network and gives its ID.
    pub async fn network_create(&self, spec: &NetworkSpec) -> Result<String, Error> {
        self.create("/networks/create", encode("POST /networks/create", spec)?, None).await
    }

    /// Removes a network; refused while a task is attached to it.
    pub async fn network_remove(&self, id: &str) -> Result<(), Error> {
        self.remove(format!("/networks/{id}")).await
    }

    /// All secrets, without content.
    pub async fn secrets(&self) -> Result<Vec<Secret>, Error> {
        self.read("/secrets", &[]).await
    }

    /// Creates a secret and gives its ID.
    pub async fn secret_create(&self, spec: &SecretSpec) -> Result<String, Error> {
        let body = with_data(encode("POST /secrets/create", spec)?, spec.driver.is_none().then_some(&spec.data));
        self.create("/secrets/create", body, None).await
    }

    /// Changes a secret's labels, its only changeable part.
    pub async fn secret_update(&self, id: &str, version: u64, spec: &SecretSpec) -> Result<(), Error> {
        self.update_labels(format!("/secrets/{id}/update"), version, encode(id, spec)?).await
    }

    /// Asks whether a secret's content is that of `spec`, without writing.
    ///
    /// The engine never gives content out, but it compares it on an update, and does so *before* it looks at the version: an
    /// update with a version that no object has is refused either way, with different words.
    pub async fn secret_content_is(&self, id: &str, spec: &SecretSpec) -> Result<bool, Error> {
        let path = format!("/secrets/{id}/update");
        let body = Some(with_data(encode(&path, spec)?, Some(&spec.data)));
        let query = vec![("version", "0".to_owned())];
        match self.write(Write { query, body, ..Write::new(Method::POST, path) }).await {
            Ok(_) | Err(Error::Conflict { .. }) => Ok(true),
            Err(Error::Refused { message, .. }) if message.contains("only updates to Labels") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a secret; refused while a service uses it.
    pub async fn secret_remove(&self, id: &str) -> Result<(), Error> {
        self.remove(format!("/secrets/{id}")).await
    }

    /// All configs, with content (see [`config_content`]).
    pub async fn configs(&self) -> Result<Vec<Config>, Error> {
        self.read("/configs", &[]).await
    }

    /// One config, by ID or name.
    pub async fn config(&self, id: &str) -> Result<Config, Error> {
        self.read(&format!("/configs/{id}"), &[]).await
    }

    /// Creates a config and gives its ID.
    pub async fn config_create(&self, spec: &ConfigSpec) -> Result<String, Error> {
        let body = with_data(encode("POST /configs/create", spec)?, Some(&spec.data));
        self.create("/configs/create", body, None).await
    }

    /// Changes a config's labels, its only changeable part.
    pub async fn config_update(&self, id: &str, version: u64, spec: &ConfigSpec) -> Result<(), Error> {
        self.update_labels(format!("/configs/{id}/update"), version, encode(id, spec)?).await
    }

    /// Removes a config; refused while a service uses it.
    pub async fn config_remove(&self, id: &str) -> Result<(), Error> {
        self.remove(format!("/configs/{id}")).await
    }

    async fn update_labels(&self, path: String, version: u64, body: Value) -> Result<(), Error> {
        let query = vec![("version", version.to_string())];
        self.write(Write { query, body: Some(body), ..Write::new(Method::POST, path) }).await.map(drop)
    }
}

/// A live config's content, which `spec.data` does not hold after reading.
pub fn config_content(config: &Config) -> Option<Vec<u8>> {
    STANDARD.decode(config.spec.extra.get("Data")?.as_str()?).ok()
}

fn with_data(mut body: Value, data: Option<&Sensitive<Vec<u8>>>) -> Value {
    // An empty one is left out, as Go leaves it out.
    if let (Some(fields), Some(data)) = (body.as_object_mut(), data.filter(|data| !data.reveal().is_empty())) {
        fields.insert("Data".into(), Value::String(STANDARD.encode(data.reveal())));
    }
    body
}
