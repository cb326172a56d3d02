//! Tells people, through webhooks, what became of a stack.
//!
//! [`Notifier::tell`] puts a message into a bounded queue per webhook and returns at once; [`Deliveries::run`] empties the queues.
//! A queue that is full drops its newest message and says so: no reconciliation waits for a chat server.
//!
//! The body is JSON of our own with a `text` in it, which is what Slack and its likes show.

use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::io::webhook::{Error, Webhook};
use crate::model::{Revision, Sensitive, StackName};
use crate::status::StackState;

/// Messages that may wait for one webhook.
pub const QUEUE_MAX: usize = 256;

/// Attempts after the first, at growing distances of about 1 s to 30 s.
pub const RETRIES_MAX: usize = 5;

/// Longest distance between two attempts.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);

/// What became of a stack.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notification {
    /// The cluster.
    pub cluster: String,
    /// The stack; none if it is about the cluster as a whole.
    pub stack: Option<StackName>,
    /// The revision it is about.
    pub revision: Option<Revision>,
    /// The stack's state.
    pub state: Option<StackState>,
    /// The service, if it is about one.
    pub service: Option<String>,
    /// What happened, in one line without secrets.
    pub message: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

impl Notification {
    /// The line that a chat shows, such as `prod/shop (3c2a9f1): held: …`.
    pub fn text(&self) -> String {
        let stack = self.stack.as_ref().map(|stack| format!("/{stack}")).unwrap_or_default();
        let service = self.service.as_ref().map(|service| format!(" {service}")).unwrap_or_default();
        let revision = self.revision.as_ref().map(|revision| format!(" ({revision})")).unwrap_or_default();
        let state = self.state.and_then(word).map(|state| format!(" {state}:")).unwrap_or_default();
        format!("{}{stack}{service}{revision}:{state} {}", self.cluster, self.message)
    }

    fn body(&self) -> Value {
        let mut body = serde_json::to_value(self).unwrap_or_default();
        if let Value::Object(fields) = &mut body {
            fields.insert("text".to_owned(), Value::String(self.text()));
        }
        body
    }
}

/// Where messages are handed in; cheap to clone. Without webhooks it does nothing.
#[derive(Debug, Clone)]
pub struct Notifier {
    queues: Vec<mpsc::Sender<Arc<Value>>>,
}

/// What brings the messages to their webhooks.
#[derive(Debug)]
pub struct Deliveries {
    queues: Vec<(Webhook, mpsc::Receiver<Arc<Value>>)>,
    retry: ExponentialBuilder,
}

impl Notifier {
    /// Takes the webhooks' URLs. A URL that is none is an error, which does not show it.
    pub fn new(urls: &[Sensitive<String>]) -> Result<(Self, Deliveries), Error> {
        let mut notifier = Self { queues: Vec::new() };
        let retry =
            ExponentialBuilder::default().with_jitter().with_max_delay(RETRY_DELAY_MAX).with_max_times(RETRIES_MAX);
        let mut deliveries = Deliveries { queues: Vec::new(), retry };
        for url in urls {
            let (sender, receiver) = mpsc::channel(QUEUE_MAX);
            notifier.queues.push(sender);
            deliveries.queues.push((Webhook::new(url)?, receiver));
        }
        Ok((notifier, deliveries))
    }

    /// Hands a message in. Never waits.
    pub fn tell(&self, notification: &Notification) {
        if self.queues.is_empty() {
            return;
        }
        let body = Arc::new(notification.body());
        for queue in &self.queues {
            // After the deliveries have ended nobody is left to tell.
            if let Err(mpsc::error::TrySendError::Full(_)) = queue.try_send(body.clone()) {
                tracing::warn!(waiting = QUEUE_MAX, "notification dropped: its queue is full");
            }
        }
    }
}

impl Deliveries {
    /// Delivers until `shutdown`, each webhook for itself, so that a slow one holds nobody up.
    pub async fn run(self, shutdown: CancellationToken) {
        let retry = self.retry;
        join_all(self.queues.into_iter().map(|(webhook, queue)| deliver(webhook, queue, retry, &shutdown))).await;
    }
}

async fn deliver(
    webhook: Webhook,
    mut queue: mpsc::Receiver<Arc<Value>>,
    retry: ExponentialBuilder,
    shutdown: &CancellationToken,
) {
    let mut failing = false;
    loop {
        let body = tokio::select! {
            // Cancel-safe: a message is taken or it stays.
            body = queue.recv() => match body {
                Some(body) => body,
                None => return,
            },
            () = shutdown.cancelled() => return,
        };
        let post = || webhook.post(&body);
        let delivered = tokio::select! {
            delivered = post.retry(retry).when(Error::is_passing) => delivered,
            () = shutdown.cancelled() => return,
        };
        match &delivered {
            Ok(()) if failing => tracing::info!(host = webhook.host(), "notifications arrive again"),
            Err(error) if !failing => {
                tracing::warn!(%error, "notification lost; further losses are not logged until one arrives");
            }
            Ok(()) | Err(_) => {}
        }
        failing = delivered.is_err();
    }
}

/// A state as `status` prints it.
fn word(state: StackState) -> Option<String> {
    serde_json::to_value(state).ok()?.as_str().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wiremock::matchers::{body_json, method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    fn held() -> Notification {
        Notification {
            cluster: "prod".to_owned(),
            stack: Some(StackName::new("shop").unwrap()),
            revision: Some(Revision("3c2a9f1d00000000000000000000000000000000".to_owned())),
            state: Some(StackState::Held),
            service: Some("web".to_owned()),
            message: "the rollout failed: exit 1".to_owned(),
            at: OffsetDateTime::from_unix_timestamp(1_767_323_045).unwrap(),
        }
    }

    /// Runs deliveries against `server`, with pauses of a millisecond, until the messages are through.
    async fn deliver_all(url: String, messages: &[Notification]) {
        let (notifier, mut deliveries) = Notifier::new(&[Sensitive::new(url)]).unwrap();
        deliveries.retry =
            deliveries.retry.with_min_delay(Duration::from_millis(1)).with_max_delay(Duration::from_millis(1));
        for message in messages {
            notifier.tell(message);
        }
        drop(notifier);
        deliveries.run(CancellationToken::new()).await;
    }

    #[tokio::test]
    async fn a_message_arrives_as_json_with_a_line_for_chats() {
        let server = MockServer::start().await;
        let expected = json!({
            "cluster": "prod",
            "stack": "shop",
            "revision": "3c2a9f1d00000000000000000000000000000000",
            "state": "held",
            "service": "web",
            "message": "the rollout failed: exit 1",
            "at": "2026-01-02T03:04:05Z",
            "text": "prod/shop web (3c2a9f1): held: the rollout failed: exit 1",
        });
        let mock = Mock::given(method("POST")).and(path("/hook")).and(body_json(expected));
        mock.respond_with(ResponseTemplate::new(200)).expect(1).mount(&server).await;
        deliver_all(format!("{}/hook?token=hunter2", server.uri()), &[held()]).await;
    }

    #[tokio::test]
    async fn a_server_on_a_bad_day_is_asked_again_and_one_that_says_no_is_not() {
        for (status, posts) in [(503, 1 + RETRIES_MAX as u64), (429, 1 + RETRIES_MAX as u64), (404, 1), (302, 1)] {
            let server = MockServer::start().await;
            let answer = ResponseTemplate::new(status).insert_header("Location", "/elsewhere");
            Mock::given(method("POST")).respond_with(answer).expect(posts).mount(&server).await;
            deliver_all(server.uri(), &[held()]).await;
        }
    }

    #[tokio::test]
    async fn telling_never_waits_even_when_nobody_delivers() {
        let (notifier, deliveries) = Notifier::new(&[Sensitive::new("http://127.0.0.1:1/".to_owned())]).unwrap();
        for _ in 0..=QUEUE_MAX {
            notifier.tell(&held());
        }
        assert_eq!(deliveries.queues[0].1.len(), QUEUE_MAX);
    }

    #[tokio::test]
    async fn shutdown_ends_the_deliveries_between_two_attempts() {
        let (notifier, deliveries) = Notifier::new(&[Sensitive::new("http://127.0.0.1:1/".to_owned())]).unwrap();
        notifier.tell(&held());
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(deliveries.run(shutdown.clone()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(1), task).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn no_error_shows_the_url() {
        let error = Webhook::new(&Sensitive::new("http://127.0.0.1:1/hunter2".to_owned())).unwrap();
        let error = error.post(&json!({})).await.unwrap_err().to_string();
        assert!(error.starts_with("post to 127.0.0.1: no answer: ") && !error.contains("hunter2"), "{error}");
        for url in ["hunter2", "ftp://h/hunter2"] {
            let error = Notifier::new(&[Sensitive::new(url.to_owned())]).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_message_about_the_cluster_names_no_stack() {
        let cluster = Notification { stack: None, revision: None, state: None, service: None, ..held() };
        assert_eq!(cluster.text(), "prod: the rollout failed: exit 1");
    }
}
