//! What the recorder wrote down, and what of it counts as a write.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A request that passed a recorder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// When it arrived, RFC 3339 with milliseconds.
    pub time: String,
    /// Whose engine or Consul it was: `m1` to `w1`.
    pub node: String,
    /// Engine or Consul.
    pub target: Target,
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// The `User-Agent` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// None: no answer came, or nobody waited for it; the request may have been carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The body of a request of at most [`BODY_BYTES_MAX`] bytes of text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The length of the body as far as it was sent when the answer began.
    pub body_bytes: u64,
    /// From the request's head to the answer's.
    pub millis: u64,
}

/// Longer bodies are recorded by their length only.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// Which API was spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The engine's.
    Engine,
    /// Consul's.
    Consul,
}

/// What a request does to the state of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing, whatever its method: logging in, waiting, running a command in a container.
    Read,
    /// It says "I live": a session renewed, a TTL check updated.
    Liveness,
    /// It changes something.
    Write,
}

impl Recorded {
    /// A request that has arrived at `time` (RFC 3339, UTC): without a body, and not answered yet.
    pub fn arrived(time: String, node: &str, target: Target, method: &str, path: &str) -> Self {
        Self {
            time,
            node: node.into(),
            target,
            method: method.into(),
            path: path.into(),
            user_agent: None,
            status: None,
            body: None,
            body_bytes: 0,
            millis: 0,
        }
    }

    /// The path without the query, and for the engine without its version.
    pub fn route(&self) -> &str {
        let path = self.path.split_once('?').map_or(self.path.as_str(), |(path, _)| path);
        match (self.target, path.strip_prefix("/v")) {
            (Target::Engine, Some(rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
                rest.find('/').map_or(path, |slash| &rest[slash..])
            }
            _ => path,
        }
    }

    /// Whether it changes something.
    pub fn effect(&self) -> Effect {
        if !matches!(self.method.as_str(), "POST" | "PUT" | "DELETE" | "PATCH") {
            return Effect::Read;
        }
        match self.target {
            Target::Engine => engine_effect(self.route()),
            Target::Consul => consul_effect(self.route(), self.body.as_deref()),
        }
    }

    /// [`Effect::Write`]. Signs of life are none.
    pub fn is_write(&self) -> bool {
        self.effect() == Effect::Write
    }

    /// A write to the swarm: services, tasks' secrets and configs, networks, nodes, the swarm itself.
    pub fn is_swarm_write(&self) -> bool {
        const SWARM: [&str; 6] = ["services", "secrets", "configs", "networks", "nodes", "swarm"];
        self.target == Target::Engine
            && self.is_write()
            && self.route().split('/').nth(1).is_some_and(|object| SWARM.contains(&object))
    }

    /// Whether its answer comes when there is news: the engine's events, a blocking query to Consul.
    pub fn waits_for_news(&self) -> bool {
        let asked = |name: &str| {
            let (_, query) = self.path.split_once('?').unwrap_or_default();
            query.split('&').any(|pair| pair.split('=').next() == Some(name))
        };
        match self.target {
            Target::Engine => self.method == "GET" && self.route() == "/events",
            Target::Consul => self.method == "GET" && asked("index") && asked("wait"),
        }
    }

    /// A write to Consul's KV, in a transaction or not.
    pub fn is_kv_write(&self) -> bool {
        self.target == Target::Consul
            && self.is_write()
            && (self.route().starts_with("/v1/kv/") || self.route() == "/v1/txn")
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = match self.target {
            Target::Engine => "engine",
            Target::Consul => "consul",
        };
        let status = self.status.map_or("---".to_owned(), |status| status.to_string());
        write!(f, "{} {} {target} {status} {} {}", self.time, self.node, self.method, self.path)?;
        match &self.user_agent {
            Some(agent) => write!(f, " ({agent}, {} ms)", self.millis),
            None => write!(f, " ({} ms)", self.millis),
        }
    }
}

fn engine_effect(route: &str) -> Effect {
    let words: Vec<&str> = route.split('/').filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        ["auth" | "session" | "grpc"]
        | ["exec", _, "start" | "resize"]
        | ["containers", _, "exec" | "wait" | "attach" | "resize"] => Effect::Read,
        _ => Effect::Write,
    }
}

fn consul_effect(route: &str, body: Option<&str>) -> Effect {
    let words: Vec<&str> = route.split('/').filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        ["v1", "session", "renew", ..] | ["v1", "agent", "check", "pass" | "warn" | "fail" | "update", ..] => {
            Effect::Liveness
        }
        ["v1", "txn"] if body.is_some_and(only_reads) => Effect::Read,
        _ => Effect::Write,
    }
}

/// Whether a transaction's operations are all of the kind that changes nothing.
fn only_reads(transaction: &str) -> bool {
    let Ok(serde_json::Value::Array(operations)) = serde_json::from_str(transaction) else { return false };
    operations.iter().all(|operation| {
        operation
            .as_object()
            .into_iter()
            .flat_map(|kinds| kinds.values())
            .filter_map(|operation| operation.get("Verb")?.as_str())
            .all(|verb| verb.starts_with("get") || verb.starts_with("check"))
    })
}

/// A moment in the record: what came later is what matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark(u64);

impl Mark {
    /// Before everything.
    pub const START: Self = Self(0);
}

/// The record of all nodes. A request is in it before its answer reaches the client.
#[derive(Debug, Clone)]
pub struct Record {
    path: PathBuf,
}

impl Record {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file, one JSON object a line.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Now.
    pub fn mark(&self) -> Result<Mark> {
        let meta = std::fs::metadata(&self.path).with_context(|| format!("cannot look at {}", self.path.display()))?;
        Ok(Mark(meta.len()))
    }

    /// Everything since a mark, in the order of the answers.
    pub fn requests(&self, since: Mark) -> Result<Vec<Recorded>> {
        let read = || -> Result<Vec<Recorded>> {
            let mut file = std::fs::File::open(&self.path)?;
            file.seek(SeekFrom::Start(since.0))?;
            let mut requests = Vec::new();
            for line in BufReader::new(file).lines() {
                requests.push(serde_json::from_str(&line?)?);
            }
            Ok(requests)
        };
        read().with_context(|| format!("cannot read {}", self.path.display()))
    }

    /// What changed anything since a mark; signs of life excluded.
    pub fn writes(&self, since: Mark) -> Result<Vec<Recorded>> {
        self.filtered(since, Recorded::is_write)
    }

    /// Writes to any engine since a mark.
    pub fn engine_writes(&self, since: Mark) -> Result<Vec<Recorded>> {
        self.filtered(since, |request| request.target == Target::Engine && request.is_write())
    }

    /// Writes to the swarm's objects since a mark.
    pub fn swarm_writes(&self, since: Mark) -> Result<Vec<Recorded>> {
        self.filtered(since, Recorded::is_swarm_write)
    }

    /// Writes to Consul's KV since a mark.
    pub fn consul_kv_writes(&self, since: Mark) -> Result<Vec<Recorded>> {
        self.filtered(since, Recorded::is_kv_write)
    }

    fn filtered(&self, since: Mark, wanted: impl Fn(&Recorded) -> bool) -> Result<Vec<Recorded>> {
        let mut requests = self.requests(since)?;
        requests.retain(wanted);
        Ok(requests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: Target, method: &str, path: &str, body: Option<&str>) -> Recorded {
        let arrived = Recorded::arrived(String::new(), "m1", target, method, path);
        Recorded { status: Some(200), body: body.map(Into::into), ..arrived }
    }

    fn check(target: Target, method: &str, path: &str, expect: Effect) {
        assert_eq!(request(target, method, path, None).effect(), expect, "{method} {path}");
    }

    #[test]
    fn an_engine_request_is_a_write_when_it_changes_something() {
        check(Target::Engine, "GET", "/v1.41/services", Effect::Read);
        check(Target::Engine, "HEAD", "/_ping", Effect::Read);
        check(Target::Engine, "POST", "/v1.41/services/create", Effect::Write);
        check(Target::Engine, "POST", "/services/abc/update?version=12", Effect::Write);
        check(Target::Engine, "DELETE", "/v1.41/configs/abc", Effect::Write);
        check(Target::Engine, "POST", "/v1.41/images/create?fromImage=app", Effect::Write);
        check(Target::Engine, "POST", "/auth", Effect::Read);
        check(Target::Engine, "POST", "/v1.41/containers/abc/exec", Effect::Read);
        check(Target::Engine, "POST", "/v1.41/exec/abc/start", Effect::Read);
        check(Target::Engine, "POST", "/v1.41/containers/abc/wait?condition=removed", Effect::Read);
    }

    #[test]
    fn a_sign_of_life_is_no_write() {
        check(Target::Consul, "PUT", "/v1/session/renew/abc", Effect::Liveness);
        check(Target::Consul, "PUT", "/v1/agent/check/pass/service:web", Effect::Liveness);
        check(Target::Consul, "PUT", "/v1/session/create", Effect::Write);
        check(Target::Consul, "PUT", "/v1/agent/service/register", Effect::Write);
        check(Target::Consul, "PUT", "/v1/kv/a?acquire=1", Effect::Write);
    }

    #[test]
    fn a_transaction_is_a_write_when_one_of_its_operations_is() {
        let txn = |body| request(Target::Consul, "PUT", "/v1/txn", Some(body));
        let reads = r#"[{"KV":{"Verb":"check-session","Key":"a"}},{"KV":{"Verb":"get-tree","Key":"b"}}]"#;
        assert!(!txn(reads).is_write());
        let writes = r#"[{"KV":{"Verb":"get","Key":"a"}},{"KV":{"Verb":"set","Key":"b"}}]"#;
        assert!(txn(writes).is_kv_write());
        assert!(txn("no json").is_kv_write());
    }

    #[test]
    fn events_and_blocking_queries_wait_for_news() {
        let waits = |target, path| request(target, "GET", path, None).waits_for_news();
        assert!(waits(Target::Engine, "/v1.41/events?filters=x"));
        assert!(waits(Target::Consul, "/v1/kv/a?wait=60s&index=7"));
        assert!(!waits(Target::Consul, "/v1/kv/a?consistent="));
        assert!(!waits(Target::Engine, "/v1.41/services"));
    }

    #[test]
    fn pulling_an_image_is_no_write_to_the_swarm() {
        assert!(request(Target::Engine, "POST", "/v1.41/services/create", None).is_swarm_write());
        assert!(!request(Target::Engine, "POST", "/v1.41/images/create", None).is_swarm_write());
    }

    #[test]
    fn a_mark_hides_what_came_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::new(dir.path().join("r.jsonl"));
        let line = |path| serde_json::to_string(&request(Target::Consul, "PUT", path, None)).unwrap() + "\n";
        std::fs::write(record.path(), line("/v1/kv/a")).unwrap();
        let mark = record.mark().unwrap();
        std::fs::write(record.path(), line("/v1/kv/a") + &line("/v1/kv/b")).unwrap();
        let paths: Vec<String> = record.writes(mark).unwrap().into_iter().map(|r| r.path).collect();
        assert_eq!(paths, ["/v1/kv/b"]);
        assert_eq!(record.writes(Mark::START).unwrap().len(), 2);
    }
}
