//! Over a real socket on port 0.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::{Revision, StackName};
use crate::status::{AgentCount, Candidate, HeldAt, HistoryEntry, Outcome, StackState, StackStatus};

const SECRET: &str = "hook-secret";

/// A keeper that writes down what it is asked.
#[derive(Default)]
struct Recorder {
    asked: Mutex<Vec<String>>,
    health: Mutex<Health>,
}

impl Keeper for Recorder {
    fn status(&self, _: Asker) -> BoxFuture<'_, ClusterStatus> {
        async { cluster() }.boxed()
    }

    fn leader(&self, _: Asker) -> BoxFuture<'_, LeaderReport> {
        let candidates = vec![Candidate { node: "m1".into(), stands: true, note: "candidate".into() }];
        let (cluster, coordination) = ("prod".into(), "consul".into());
        async { LeaderReport { cluster, coordination, leader: None, candidates, problem: None } }.boxed()
    }

    fn history(&self, stack: StackName, _: Asker) -> BoxFuture<'_, Result<StackHistory, CommandError>> {
        async move { Ok(history(stack)) }.boxed()
    }

    fn command(&self, command: Command, asker: Asker) -> BoxFuture<'_, Result<String, CommandError>> {
        self.asked.lock().unwrap().push(format!("{command:?} by {asker:?}"));
        async move {
            match command {
                Command::Retry { stack } => Err(CommandError {
                    kind: CommandErrorKind::Conflict,
                    error: format!("{stack}: nothing failed"),
                    next: format!("swarmkeeper status {stack}"),
                }),
                Command::Leave => std::future::pending().await,
                _ => Ok("asked".to_owned()),
            }
        }
        .boxed()
    }

    fn wake(&self, reason: String) {
        self.asked.lock().unwrap().push(reason);
    }

    fn health(&self) -> Health {
        self.health.lock().unwrap().clone()
    }
}

fn history(name: StackName) -> StackHistory {
    let at = time::OffsetDateTime::UNIX_EPOCH;
    let entry = HistoryEntry {
        revision: Some(Revision("9f2c1ab".into())),
        at,
        outcome: Outcome::RolledBack,
        reason: "shop_api exit 1".into(),
        digests: [("app:1".to_owned(), "sha256:ab".to_owned())].into(),
        log: vec!["no such table".into()],
    };
    let held = Some(HeldAt { revision: Revision("77d0e12".into()), reason: "it leaks".into(), since: at });
    StackHistory { name, held, entries: vec![entry] }
}

fn cluster() -> ClusterStatus {
    ClusterStatus {
        cluster: "prod".into(),
        leader: None,
        git: None,
        agents: AgentCount { passing: 1, nodes: 1 },
        stacks: vec![StackStatus {
            name: StackName::new("shop").unwrap(),
            state: StackState::Ok,
            revision: None,
            note: "2/2 services".into(),
            next: None,
            services: vec![],
            notes: vec![],
            log: Vec::new(),
            warnings: vec![],
        }],
        problems: vec![],
        drains: Vec::new(),
    }
}

/// A server on port 0, its keeper, and a way to end it.
pub(super) struct Server {
    pub address: SocketAddr,
    keeper: Arc<Recorder>,
    shutdown: CancellationToken,
    done: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        Self::start_with(Some(SECRET)).await
    }

    async fn start_with(webhook_secret: Option<&str>) -> Self {
        let secret = webhook_secret.map(|secret| Sensitive::new(secret.into()));
        Self::start_at(Ipv4Addr::LOCALHOST, |api| api.webhook_secret = secret).await
    }

    /// With other settings than usual.
    pub async fn start_at(ip: Ipv4Addr, change: impl FnOnce(&mut Api)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let keeper = Arc::new(Recorder::default());
        let mut api = Api {
            keeper: keeper.clone(),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            api_token: Some(Sensitive::new("api".into())),
            cluster_token: Arc::new(|| Some(Sensitive::new("internal".into()))),
            webhook_secret: None,
            branch: "main".into(),
            health_is_open: true,
            tls: None,
        };
        change(&mut api);
        let shutdown = CancellationToken::new();
        let done = tokio::spawn(serve(vec![listener], api, shutdown.clone()));
        Self { address, keeper, shutdown, done }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn post(
        &self,
        path: &str,
        headers: &[(&'static str, String)],
        body: impl Into<reqwest::Body>,
    ) -> (u16, Value) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, HeaderValue::from_str(value).unwrap());
        }
        let response = reqwest::Client::new().post(self.url(path)).headers(map).body(body).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub fn asked(&self) -> Vec<String> {
        self.keeper.asked.lock().unwrap().clone()
    }
}

fn sign(body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

fn push(branch: &str) -> String {
    json!({"ref": format!("refs/heads/{branch}"), "after": "9f2c1ab"}).to_string()
}

#[tokio::test]
async fn the_leader_is_shown_asked_to_step_down_and_woken() {
    let server = Server::start().await;
    let report = keeper::Keeper::new(&server.url("/"), None).unwrap().leader().await.unwrap();
    assert_eq!((report.coordination.as_str(), report.candidates[0].node.as_str()), ("consul", "m1"));
    let keeper = [(AUTHORIZATION.as_str(), "Bearer internal".to_owned())];
    assert_eq!(server.post("/v1/leader/step-down", &[], "").await.0, 200);
    assert_eq!(server.post("/v1/wake", &keeper, "").await.0, 200);
    assert_eq!(server.asked(), ["StepDown by Person", "Wake by Keeper"]);
}

#[tokio::test]
async fn health_says_whether_it_lives_and_whether_it_works() {
    let server = Server::start().await;
    for (health, healthz, readyz) in [
        (Health { live: true, ready: true, problems: vec![] }, 200, 200),
        (Health { live: true, ready: false, problems: vec!["consul does not answer".into()] }, 200, 503),
        (Health { live: false, ready: true, problems: vec![] }, 503, 503),
    ] {
        *server.keeper.health.lock().unwrap() = health.clone();
        for (path, expect) in [("/healthz", healthz), ("/readyz", readyz)] {
            let response = reqwest::get(server.url(path)).await.unwrap();
            assert_eq!(response.status().as_u16(), expect, "{path} of {health:?}");
        }
    }
}

#[tokio::test]
async fn every_command_of_the_client_arrives_as_it_was_asked() {
    let server = Server::start().await;
    let client = keeper::Keeper::new(&server.url("/"), None).unwrap();
    let stack = StackName::new("shop").unwrap();
    let commands = [
        Command::Sync,
        Command::StepDown,
        Command::Wake,
        Command::Adopt { stack: stack.clone() },
        Command::Approve { stack: stack.clone(), revision: "9f2c1ab".into() },
        Command::Remove { stack: stack.clone() },
        Command::Pause { stack: stack.clone(), reason: "black \"friday\"".into() },
        Command::PauseAll { reason: "freeze".into() },
        Command::ResumeAll,
        Command::Rollback { stack: stack.clone(), revision: Some("9f2c1ab".into()), reason: "it leaks".into() },
        Command::Rollback { stack: stack.clone(), revision: None, reason: String::new() },
        Command::Restart { stack: stack.clone(), service: "web".into(), reason: "a leak".into() },
        Command::Resume { stack: stack.clone() },
    ];
    for command in &commands {
        assert_eq!(client.command(command).await.unwrap(), "asked");
    }
    assert_eq!(server.asked(), commands.iter().map(|c| format!("{c:?} by Person")).collect::<Vec<_>>());
    assert_eq!(client.status().await.unwrap(), cluster());
    assert_eq!(client.history(&stack).await.unwrap(), history(stack));
}

#[tokio::test]
async fn a_no_comes_with_what_to_do_next() {
    let server = Server::start().await;
    let client = keeper::Keeper::new(&server.url(""), Some(Sensitive::new("internal".into()))).unwrap();
    let error = client.command(&Command::Retry { stack: StackName::new("shop").unwrap() }).await.unwrap_err();
    let error = CommandError::from(error);
    assert_eq!(error.kind, CommandErrorKind::Conflict);
    assert_eq!((error.error.as_str(), error.next.as_str()), ("shop: nothing failed", "swarmkeeper status shop"));
    assert!(server.asked()[0].ends_with("by Keeper"));
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_named() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let error = keeper::Keeper::new("http://127.0.0.1:1", None).unwrap().status().await.unwrap_err();
    assert_eq!(error.to_string(), "GET http://127.0.0.1:1/v1/status: no answer: Connection refused (os error 111)");
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_told_why() {
    let server = Server::start().await;
    for (path, body, status, error, next) in [
        ("/v1/stacks/-x/adopt", "", 400, "cannot be a stack's name", ""),
        ("/v1/stacks/shop/explode", "", 404, "\"explode\"", "adopt, approve"),
        ("/v1/stacks/shop/approve", "", 400, "the body", "revision"),
        ("/v1/stacks/shop/pause", "{}", 400, "`reason`", "reason"),
        ("/v1/pause", "", 400, "the body", "reason"),
        ("/v1/stacks/shop/rollback", "[", 400, "the body", "or nothing"),
        ("/v1/stacks/shop/restart", r#"{"reason": "x"}"#, 400, "`service`", "service"),
        ("/v1/stacks/shop/history", "", 405, "POST", "GET"),
        ("/v1/nothing", "", 404, "/v1/nothing", "/v1/status"),
        ("/v1/status", "", 405, "POST /v1/status", "GET"),
    ] {
        let (found, answer) = server.post(path, &[], body).await;
        assert_eq!(found, status, "{path}: {answer}");
        assert!(answer["error"].as_str().unwrap().contains(error), "{path}: {answer}");
        assert!(answer["next"].as_str().unwrap().contains(next), "{path}: {answer}");
    }
    let response = reqwest::get(server.url("/v1/stacks/shopp")).await.unwrap();
    assert_eq!(response.status().as_u16(), 404);
    assert!(response.text().await.unwrap().contains("known stacks: shop"));
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_token_does_nothing() {
    let server = Server::start().await;
    let (status, answer) = server.post("/v1/sync", &[(AUTHORIZATION.as_str(), "Bearer wrong".into())], "").await;
    assert_eq!(status, 401, "{answer}");
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_signed_push_of_our_branch_wakes() {
    let server = Server::start().await;
    let (body, form) = (
        push("main"),
        format!("payload={}", url::form_urlencoded::byte_serialize(push("main").as_bytes()).collect::<String>()),
    );
    for (kind, body) in [("application/json", body), ("application/x-www-form-urlencoded", form)] {
        let headers = [
            ("x-hub-signature-256", sign(&body)),
            ("x-github-event", "push".into()),
            ("content-type", kind.to_owned()),
        ];
        let (status, answer) = server.post("/v1/webhooks/github", &headers, body).await;
        assert_eq!((status, answer), (200, json!({"message": "looking at git"})), "{kind}");
    }
    assert_eq!(server.asked(), ["webhook: github push", "webhook: github push"]);
}

#[tokio::test]
async fn a_signed_request_that_is_no_push_of_ours_wakes_nobody() {
    let server = Server::start().await;
    for (event, body, status, message) in [
        ("ping", "{}".to_owned(), 200, "pong"),
        ("push", push("feature/main"), 200, "only main wakes"),
        ("push", json!({"ref": "refs/tags/main"}).to_string(), 200, "only main wakes"),
        ("issues", "{}".into(), 200, "only push wakes"),
        ("push", "{".into(), 400, "cannot be read"),
    ] {
        let headers = [("x-hub-signature-256", sign(&body)), ("x-github-event", event.to_owned())];
        let (found, answer) = server.post("/v1/webhooks/github", &headers, body).await;
        assert_eq!(found, status, "{answer}");
        assert!(answer.to_string().contains(message), "{answer}");
    }
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn a_request_with_a_bad_signature_does_nothing() {
    let server = Server::start().await;
    let body = push("main");
    let mut flipped = sign(&body).into_bytes();
    let last = flipped.len() - 1;
    flipped[last] = if flipped[last] == b'0' { b'1' } else { b'0' };
    for signature in [
        String::new(),
        "sha256=".into(),
        "sha256=zz".into(),
        sign("another body"),
        sign(&body).replace("sha256=", "sha1="),
        sign(&body)[..40].to_owned(),
        String::from_utf8(flipped).unwrap(),
    ] {
        for (path, name) in [("github", "x-hub-signature-256"), ("generic", "x-swarmkeeper-signature-256")] {
            let headers = [(name, signature.clone()), ("x-github-event", "push".to_owned())];
            let (status, answer) = server.post(&format!("/v1/webhooks/{path}"), &headers, body.clone()).await;
            assert_eq!(status, 401, "{path} {signature:?}: {answer}");
        }
    }
    assert_eq!(server.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn anybody_who_knows_the_secret_may_wake() {
    let server = Server::start().await;
    let signed = [("x-swarmkeeper-signature-256", sign("anything"))];
    assert_eq!(server.post("/v1/webhooks/generic", &signed, "anything").await.0, 200);
    let bearer = |token: &str| [(AUTHORIZATION.as_str(), format!("Bearer {token}"))];
    assert_eq!(server.post("/v1/webhooks/generic", &bearer(SECRET), "").await.0, 200);
    assert_eq!(server.post("/v1/webhooks/generic", &bearer("api"), "").await.0, 401);
    assert_eq!(server.asked(), ["webhook: generic", "webhook: generic"]);
}

#[tokio::test]
async fn without_a_secret_there_are_no_webhooks() {
    let server = Server::start_with(None).await;
    for path in ["/v1/webhooks/github", "/v1/webhooks/generic"] {
        let (status, answer) = server.post(path, &[("x-hub-signature-256", sign(""))], "").await;
        assert_eq!(status, 403, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("webhook_secret"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let server = Server::start().await;
    let largest = "x".repeat(webhooks::BODY_BYTES_MAX);
    let signed = |body: &str| [("x-swarmkeeper-signature-256", sign(body))];
    assert_eq!(server.post("/v1/webhooks/generic", &signed(&largest), largest.clone()).await.0, 200);
    // By its stated length already, before any of it is read.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let length = largest.len() + 1;
    let head = format!("POST /v1/webhooks/generic HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 256];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn a_request_that_sends_no_headers_is_cut_off() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut answer = [0; 1024];
    let cut = tokio::time::timeout(server::HEADERS_READ_TIMEOUT + Duration::from_secs(3), stream.read(&mut answer));
    assert_eq!(cut.await.expect("cut off in time").unwrap_or(0), 0);
}

#[tokio::test]
async fn strangers_beyond_the_limit_wait_for_their_turn() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..server::CONNECTIONS_MAX {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    let one_more = reqwest::get(server.url("/metrics"));
    let mut one_more = std::pin::pin!(one_more);
    assert!(tokio::time::timeout(Duration::from_millis(300), one_more.as_mut()).await.is_err());
    idle.clear();
    assert_eq!(one_more.await.unwrap().status().as_u16(), 200);
}

#[tokio::test]
async fn shutdown_ends_idle_connections_at_once_and_gives_a_request_its_time() {
    let server = Server::start().await;
    let _idle = TcpStream::connect(server.address).await.unwrap();
    let url = server.url("/v1/leave");
    let hanging = tokio::spawn(async move { reqwest::Client::new().post(url).send().await });
    while server.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = std::time::Instant::now();
    server.shutdown.cancel();
    server.done.await.unwrap();
    let took = started.elapsed();
    assert!(took >= server::DRAIN_TIMEOUT && took < server::DRAIN_TIMEOUT * 2, "{took:?}");
    assert!(hanging.await.unwrap().is_err());
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn health_and_metrics_can_be_closed() {
    for (is_open, expect) in [(true, 200), (false, 401)] {
        let server = Server::start_at(Ipv4Addr::LOCALHOST, |api| api.health_is_open = is_open).await;
        *server.keeper.health.lock().unwrap() = Health { live: true, ready: true, problems: vec![] };
        for path in ["/healthz", "/readyz", "/metrics"] {
            // A stranger: somebody's proxy hands him on.
            let ask = || reqwest::Client::new().get(server.url(path)).header("via", "1.1 proxy");
            assert_eq!(ask().send().await.unwrap().status().as_u16(), expect, "{path}");
            assert_eq!(ask().bearer_auth("api").send().await.unwrap().status().as_u16(), 200, "{path}");
            let own = reqwest::get(server.url(path)).await.unwrap();
            assert_eq!(own.status().as_u16(), 200, "{path}");
        }
    }
}
