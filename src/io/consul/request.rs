//! One request and its answer: what all of Consul's endpoints share.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::acl::Right;
use super::{ANSWER_BYTES_MAX, Consul, Error, REQUEST_TIMEOUT};

/// What the client waits longer than Consul promises to, in a blocking query.
const BLOCKING_MARGIN: Duration = Duration::from_secs(3);

/// Most characters of Consul's words that an error repeats.
const WORDS_MAX: usize = 300;

/// A request being put together.
#[derive(Debug)]
pub(super) struct Request<'a> {
    consul: &'a Consul,
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Bytes>,
    timeout: Duration,
    needs: Option<Right>,
}

/// An answer with status 200, or 404 where [`Request::send_unless_missing`] allows it.
#[derive(Debug)]
pub(super) struct Answer {
    operation: String,
    needs: Option<Right>,
    /// `X-Consul-Index`, for the next blocking query; 0 if there is none.
    pub index: u64,
    /// The whole body.
    pub body: Bytes,
}

impl Consul {
    /// `method /v1/<path>`; each element of `path` is one segment, encoded here.
    pub(super) fn request<P>(&self, method: Method, path: P) -> Request<'_>
    where
        P: IntoIterator,
        P::Item: Into<String>,
    {
        let path = path.into_iter().map(Into::into).collect();
        Request { consul: self, method, path, query: Vec::new(), body: None, timeout: REQUEST_TIMEOUT, needs: None }
    }

    /// Reads `path` as JSON.
    pub(super) async fn get_json<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&'static str, &str)],
    ) -> Result<T, Error> {
        self.request(Method::GET, path.iter().copied()).queries(query).send().await?.json()
    }

    /// `PUT path` without a body, for its effect.
    pub(super) async fn put(&self, path: &[&str], query: &[(&'static str, &str)]) -> Result<(), Error> {
        self.request(Method::PUT, path.iter().copied()).queries(query).send().await.map(drop)
    }

    /// `PUT path` with a JSON body.
    pub(super) async fn put_json(
        &self,
        path: &[&str],
        query: &[(&'static str, &str)],
        body: &(impl Serialize + Sync),
    ) -> Result<Answer, Error> {
        self.request(Method::PUT, path.iter().copied()).queries(query).json(body)?.send().await
    }
}

impl Request<'_> {
    /// Adds a query parameter; for Consul, an empty value is a flag.
    pub(super) fn query(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.query.push((key, value.into()));
        self
    }

    /// Adds several.
    pub(super) fn queries(mut self, query: &[(&'static str, &str)]) -> Self {
        self.query.extend(query.iter().map(|(key, value)| (*key, (*value).to_owned())));
        self
    }

    /// Sends `body` as it is.
    pub(super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends `body` as JSON.
    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Self, Error> {
        let text = serde_json::to_vec(body)
            .map_err(|error| Error::Answer { operation: self.operation(), reason: format!("our request: {error}") })?;
        self.body = Some(text.into());
        Ok(self)
    }

    /// Names the right without which Consul refuses it, where the path does not tell.
    pub(super) fn needs(mut self, resource: &'static str, segment: &str, access: &'static str) -> Self {
        self.needs = Some(Right { resource, segment: segment.to_owned(), access });
        self
    }

    /// Waits for an answer no longer than this instead of [`REQUEST_TIMEOUT`].
    pub(super) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes it a blocking query: Consul answers when something is newer than `index`, or after `wait` and up to a sixteenth more.
    pub(super) fn blocking(self, index: u64, wait: Duration) -> Self {
        let timeout = wait + wait / 16 + BLOCKING_MARGIN;
        self.query("index", index.to_string()).query("wait", format!("{}ms", wait.as_millis())).timeout(timeout)
    }

    /// Sends it; anything but success is an error.
    pub(super) async fn send(self) -> Result<Answer, Error> {
        let operation = self.operation();
        match self.exchange().await? {
            (200, answer) => Ok(answer),
            (status, answer) => Err(answer.refused(operation, status)),
        }
    }

    /// Sends it; `Err` of the answer's index if what it names does not exist.
    pub(super) async fn send_unless_missing(self) -> Result<Result<Answer, u64>, Error> {
        let operation = self.operation();
        match self.exchange().await? {
            (200, answer) => Ok(Ok(answer)),
            (404, answer) => Ok(Err(answer.index)),
            (status, answer) => Err(answer.refused(operation, status)),
        }
    }

    /// Sends it and returns whatever the status is.
    pub(super) async fn exchange(self) -> Result<(u16, Answer), Error> {
        let operation = self.operation();
        let url = self.url().ok_or_else(|| Error::Path { operation: operation.clone() })?;
        let no_answer = |source: reqwest::Error| Error::NoAnswer {
            operation: operation.clone(),
            // The operation says where; the URL would repeat it.
            source: source.without_url(),
        };
        let mut request = self.consul.link.http().request(self.method.clone(), url).timeout(self.timeout);
        if let Some(body) = self.body {
            request = request.body(body);
        }
        let mut response = request.send().await.map_err(no_answer)?;
        let status = response.status().as_u16();
        let index = response
            .headers()
            .get("X-Consul-Index")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or_default();
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(no_answer)? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let reason = format!("it is larger than {ANSWER_BYTES_MAX} bytes");
                return Err(Error::Answer { operation, reason });
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, Answer { operation, needs: self.needs, index, body: body.freeze() }))
    }

    fn operation(&self) -> String {
        format!("{} /v1/{}", self.method, self.path.join("/"))
    }

    /// None if a segment would not arrive as it is: Consul's router cleans such paths, and the request would mean another key.
    fn url(&self) -> Option<url::Url> {
        let inner = self.path.len().saturating_sub(1);
        let bad = |(at, part): (usize, &String)| part == "." || part == ".." || (part.is_empty() && at < inner);
        if self.path.iter().enumerate().any(bad) {
            return None;
        }
        let mut url = self.consul.base.clone();
        url.path_segments_mut().ok()?.pop_if_empty().push("v1").extend(&self.path);
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Some(url)
    }
}

impl Answer {
    /// The body as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| self.unreadable(error.to_string()))
    }

    /// An answer that we cannot read, and why.
    pub(super) fn unreadable(&self, reason: String) -> Error {
        Error::Answer { operation: self.operation.clone(), reason }
    }

    /// The error of an answer that says no.
    pub(super) fn refused(&self, operation: String, status: u16) -> Error {
        let words = String::from_utf8_lossy(&self.body);
        let mut body: String = words.trim().chars().take(WORDS_MAX).collect();
        if status == FORBIDDEN {
            let line = self.needs.as_ref().map_or_else(|| right(&operation), ToString::to_string);
            body = format!("{body} (the token needs {line})");
        }
        Error::Refused { operation, status, body }
    }
}

/// Consul's answer to a token that may not.
pub(super) const FORBIDDEN: u16 = 403;

/// The line of our ACL policies without which Consul refuses `operation`.
fn right(operation: &str) -> String {
    let (method, path) = operation.split_once(" /v1/").unwrap_or(("", operation));
    let policy = if method == "GET" { "read" } else { "write" };
    let (what, subject) = path.split_once('/').unwrap_or((path, ""));
    match (what, subject) {
        ("kv", key) => key_right(key, policy),
        ("session", _) => format!("session \"<node>\" {{ policy = \"{policy}\" }}"),
        ("agent", "self") => "agent \"<node>\" { policy = \"read\" }".to_owned(),
        ("agent", _) => format!("service_prefix \"\" {{ policy = \"{policy}\" }}"),
        ("acl" | "internal", _) => "to be one that consul knows".to_owned(),
        _ => "service_prefix \"\" and node_prefix \"\", both with policy \"read\"".to_owned(),
    }
}

/// The line for a key: one line for all keys of a cluster, as our policies have it.
pub(super) fn key_right(key: &str, policy: &str) -> String {
    /// What our keys begin with: `swarmkeeper/v1/<cluster>/`.
    const OURS: &str = "swarmkeeper/v1/";
    let cluster = key.strip_prefix(OURS).and_then(|rest| rest.split_once('/'));
    let prefix = cluster.map_or_else(|| key.to_owned(), |(cluster, _)| format!("{OURS}{cluster}/"));
    format!("key_prefix \"{prefix}\" {{ policy = \"{policy}\" }}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::consul::Options;

    fn consul(address: &str) -> Consul {
        Consul::new(Options { address: address.to_owned(), ..Options::default() }).unwrap()
    }

    #[track_caller]
    fn check(base: &str, path: &[&str], expect: Option<&str>) {
        let consul = consul(base);
        let url = consul.request(Method::GET, path.iter().copied()).url();
        assert_eq!(url.as_ref().map(url::Url::as_str), expect);
    }

    #[test]
    fn a_key_is_encoded_once_and_keeps_its_slashes() {
        check("http://c:8500", &["kv", "a", "b c%/é"], Some("http://c:8500/v1/kv/a/b%20c%25%2F%C3%A9"));
        check("http://c:8500/sub/", &["kv", "a", ""], Some("http://c:8500/sub/v1/kv/a/"));
    }

    #[test]
    fn a_path_that_consul_would_clean_is_not_sent() {
        check("http://c:8500", &["kv", "a", "..", "b"], None);
        check("http://c:8500", &["kv", "a", "", "b"], None);
    }

    #[test]
    fn a_denial_names_the_rule_that_is_missing() {
        let cluster = "key_prefix \"swarmkeeper/v1/a/\" { policy = \"write\" }";
        assert_eq!(right("PUT /v1/kv/swarmkeeper/v1/a/leader"), cluster);
        assert_eq!(right("GET /v1/kv/other/b"), "key_prefix \"other/b\" { policy = \"read\" }");
        assert_eq!(right("PUT /v1/session/create"), "session \"<node>\" { policy = \"write\" }");
        assert_eq!(right("GET /v1/agent/services"), "service_prefix \"\" { policy = \"read\" }");
    }

    #[tokio::test]
    async fn a_consul_that_is_not_there_leaves_the_outcome_open_and_says_why() {
        let consul = consul("http://127.0.0.1:1");
        let error = consul.put(&["agent", "check", "pass", "x"], &[]).await.unwrap_err();
        assert!(error.is_ambiguous());
        let text = error.to_string();
        assert!(text.starts_with("PUT /v1/agent/check/pass/x: no answer from consul"), "{text}");
        assert!(text.contains("refused"), "{text}");
    }
}
