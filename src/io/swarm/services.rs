//! Services, their tasks, and what these print.

use reqwest::Method;
use serde_json::json;

use super::{Error, READ_TIMEOUT, Swarm, Write, encode};
use crate::model::Sensitive;
use crate::spec::{Service, ServiceSpec, Task};

/// Most lines asked of a log.
const LOG_LINES_MAX: usize = 200;

/// Length of the header in front of each piece of a log.
const LOG_HEADER_BYTES: usize = 8;

impl Swarm {
    /// All services.
    pub async fn services(&self) -> Result<Vec<Service>, Error> {
        self.read("/services", &[]).await
    }

    /// One service, by ID or name, without defaults put in.
    pub async fn service(&self, id: &str) -> Result<Service, Error> {
        self.read(&format!("/services/{id}"), &[("insertDefaults", "false")]).await
    }

    /// Creates a service and gives its ID.
    pub async fn service_create(&self, spec: &ServiceSpec, auth: Option<&Sensitive<String>>) -> Result<String, Error> {
        self.create("/services/create", encode("POST /services/create", spec)?, auth).await
    }

    /// Updates a service that is still at `version`. Without `auth` the credentials it has are kept.
    pub async fn service_update(
        &self,
        id: &str,
        version: u64,
        spec: &ServiceSpec,
        auth: Option<&Sensitive<String>>,
    ) -> Result<(), Error> {
        let path = format!("/services/{id}/update");
        let query = vec![("version", version.to_string())];
        let body = Some(encode(&path, spec)?);
        self.write(Write { query, auth, body, ..Write::new(Method::POST, path) }).await.map(drop)
    }

    /// Brings a service that is still at `version` back to its previous spec, as `docker service rollback` does.
    pub async fn service_rollback(&self, id: &str, version: u64, spec: &ServiceSpec) -> Result<(), Error> {
        let path = format!("/services/{id}/update");
        let query = vec![("version", version.to_string()), ("rollback", "previous".to_owned())];
        let body = Some(encode(&path, spec)?);
        self.write(Write { query, body, ..Write::new(Method::POST, path) }).await.map(drop)
    }

    /// Removes a service.
    pub async fn service_remove(&self, id: &str) -> Result<(), Error> {
        self.remove(format!("/services/{id}")).await
    }

    /// All tasks, the finished ones that swarm still remembers included.
    pub async fn tasks(&self) -> Result<Vec<Task>, Error> {
        self.read("/tasks", &[]).await
    }

    /// What stands for plain containers that joined networks of the swarm; no list of tasks has them otherwise.
    pub async fn attachments(&self) -> Result<Vec<Task>, Error> {
        self.read("/tasks", &[("filters", r#"{"runtime":["attachment"]}"#)]).await
    }

    /// The tasks of some services, by ID.
    pub async fn tasks_of(&self, services: &[&str]) -> Result<Vec<Task>, Error> {
        let filters = json!({ "service": services }).to_string();
        self.read("/tasks", &[("filters", &filters)]).await
    }

    /// The last lines that a task printed.
    pub async fn task_log(&self, task: &str, lines: usize) -> Result<Vec<String>, Error> {
        self.log(&format!("/tasks/{task}/logs"), lines).await
    }

    /// The last lines that a service's tasks printed.
    pub async fn service_log(&self, service: &str, lines: usize) -> Result<Vec<String>, Error> {
        self.log(&format!("/services/{service}/logs"), lines).await
    }

    async fn log(&self, path: &str, lines: usize) -> Result<Vec<String>, Error> {
        let (operation, request) = self.request(Method::GET, path);
        let tail = lines.min(LOG_LINES_MAX).to_string();
        let request = request.query(&[("stdout", "true"), ("stderr", "true"), ("tail", tail.as_str())]);
        let body = self.read_bytes(operation, request, READ_TIMEOUT).await?;
        let text = demultiplex(&body);
        Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
    }
}

/// Takes the pieces of a log out of their frames; a container with a terminal has none, and its log is the text itself.
fn demultiplex(mut body: &[u8]) -> String {
    let mut text = Vec::with_capacity(body.len());
    while let Some((header, rest)) = body.split_at_checked(LOG_HEADER_BYTES) {
        let [0..=2, 0, 0, 0, size @ ..] = header else { break };
        let size = size.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte)).min(rest.len());
        let (piece, rest) = rest.split_at(size);
        text.extend_from_slice(piece);
        body = rest;
    }
    text.extend_from_slice(body);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_taken_out_of_its_frames() {
        let framed = [&[1, 0, 0, 0, 0, 0, 0, 3][..], b"ab\n", &[2, 0, 0, 0, 0, 0, 0, 2], b"c\n"].concat();
        assert_eq!(demultiplex(&framed), "ab\nc\n");
        assert_eq!(demultiplex(b"plain text of a terminal\n"), "plain text of a terminal\n");
        assert_eq!(demultiplex(&[1, 0, 0, 0, 0, 0, 0, 9, b'x']), "x", "a frame that was cut off");
    }
}
