//! The recording proxies: one before every engine's socket, one before every node's Consul.
//!
//! One thread a node, in the node's network namespace, with a runtime of its own: whoever started the lab may drop his. A client's
//! connection gets one connection to the real server, and shares its fate: when the real one is down, refuses or breaks off, so does the
//! proxy. Streams, blocking queries and upgraded connections (`docker exec`, `docker build`) pass untouched, unless a test drops the
//! streams.

use crate::background::Background;
use crate::layout::{CONSUL_PORT, CONSUL_REAL_PORT, Layout, NodeSpec};
use crate::net;
use crate::record::{BODY_BYTES_MAX, Recorded, Target};
use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::{Duration, Instant, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Notify;

/// After an error of `accept` (too many open files), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Listens for a node. The real servers need not be there yet.
pub(crate) fn start(layout: &Layout, node: NodeSpec) -> Result<(Background, Streams)> {
    let layout = layout.clone();
    let streams = Streams::default();
    let dropped = streams.clone();
    let open = async move || {
        net::enter(node.netns)?;
        Listeners::open(&layout, &node, &dropped).await
    };
    Ok((Background::start(format!("recorder-{}", node.name), open, Listeners::serve)?, streams))
}

/// Drops the connections of a node that wait for news: the engine's events, and blocking queries to Consul.
#[derive(Debug, Clone, Default)]
pub(crate) struct Streams(Arc<Notify>);

impl Streams {
    pub fn drop_all(&self) {
        self.0.notify_waiters();
    }

    /// Waits until they are dropped at a moment when `waits` is true.
    async fn dropped(&self, waits: &AtomicBool) {
        loop {
            self.0.notified().await;
            if waits.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

struct Listeners {
    engine: UnixListener,
    consul: [TcpListener; 2],
    to_engine: Arc<Proxy>,
    to_consul: Arc<Proxy>,
}

impl Listeners {
    async fn open(layout: &Layout, node: &NodeSpec, streams: &Streams) -> Result<Self> {
        let run = layout.node(node).join("run");
        std::fs::create_dir_all(&run)?;
        let socket = run.join("docker.sock");
        let engine = UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660))?;
        let path = layout.record();
        let file = File::options().append(true).create(true).open(&path);
        let file = Arc::new(file.with_context(|| format!("cannot write {}", path.display()))?);
        let listen = async |address: Ipv4Addr| {
            let listener = TcpListener::bind((address, CONSUL_PORT)).await;
            listener.with_context(|| format!("cannot listen on {address}:{CONSUL_PORT} in {}", node.netns))
        };
        let consul = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), CONSUL_REAL_PORT);
        let proxy = |target, upstream| {
            let (file, streams) = (file.clone(), streams.clone());
            Arc::new(Proxy { node: node.name, target, upstream, file, streams })
        };
        Ok(Self {
            engine,
            consul: [listen(Ipv4Addr::LOCALHOST).await?, listen(node.address()).await?],
            to_engine: proxy(Target::Engine, Upstream::Unix(run.join("engine.sock"))),
            to_consul: proxy(Target::Consul, Upstream::Tcp(consul)),
        })
    }

    async fn serve(self) {
        let [local, public] = &self.consul;
        // Each `accept` loses nothing when another arm wins.
        loop {
            let accepted = tokio::select! {
                accepted = self.engine.accept() => accepted.map(|(io, _)| self.to_engine.spawn(io)),
                accepted = local.accept() => accepted.map(|(io, _)| self.to_consul.spawn_tcp(io)),
                accepted = public.accept() => accepted.map(|(io, _)| self.to_consul.spawn_tcp(io)),
            };
            if accepted.is_err() {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Upstream {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

struct Proxy {
    node: &'static str,
    target: Target,
    upstream: Upstream,
    file: Arc<File>,
    streams: Streams,
}

/// What a connection is about at the moment.
#[derive(Default)]
struct State {
    /// It leaves HTTP.
    upgrading: AtomicBool,
    /// It waits for news.
    waits: AtomicBool,
}

impl Proxy {
    fn spawn_tcp(self: &Arc<Self>, client: TcpStream) {
        // A proxy must not add delays of its own.
        let _ = client.set_nodelay(true);
        self.spawn(client);
    }

    fn spawn(self: &Arc<Self>, client: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let proxy = self.clone();
        tokio::spawn(async move {
            // A server that is down closes the door: the client is dropped without a word.
            match &proxy.upstream {
                Upstream::Unix(path) => {
                    if let Ok(server) = UnixStream::connect(path).await {
                        proxy.clone().join(client, server).await;
                    }
                }
                Upstream::Tcp(address) => {
                    if let Ok(server) = TcpStream::connect(address).await {
                        let _ = server.set_nodelay(true);
                        proxy.clone().join(client, server).await;
                    }
                }
            }
        });
    }

    /// Serves one client's connection with one connection to the server.
    async fn join(
        self: Arc<Self>,
        client: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        server: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) {
        let handshake =
            hyper::client::conn::http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(server)).await;
        let Ok((sender, connection)) = handshake else { return };
        let mut upstream = tokio::spawn(connection.with_upgrades());
        let sender = Arc::new(tokio::sync::Mutex::new(sender));
        let state = Arc::new(State::default());
        let service = service_fn(|request| self.clone().forward(request, sender.clone(), state.clone()));
        let mut serving = std::pin::pin!(
            hyper::server::conn::http1::Builder::new()
                .preserve_header_case(true)
                .serve_connection(TokioIo::new(client), service)
                .with_upgrades()
        );
        tokio::select! {
            // How a client's connection ends is between him and the server.
            _ = &mut serving => {}
            () = self.streams.dropped(&state.waits) => {}
            _ = &mut upstream => {
                // An upgrade ends the HTTP connection as well; then the client's half ends by itself.
                if !state.upgrading.load(Ordering::Acquire) {
                    serving.as_mut().graceful_shutdown();
                }
                let _ = serving.await;
                return;
            }
        }
        if !state.upgrading.load(Ordering::Acquire) {
            upstream.abort();
        }
    }

    async fn forward(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        sender: Arc<tokio::sync::Mutex<SendRequest<Tee>>>,
        state: Arc<State>,
    ) -> hyper::Result<Response<Incoming>> {
        let copy = Arc::new(Mutex::new(BodyCopy::default()));
        let pending = Pending::new(self.clone(), &request, copy.clone());
        let wants_upgrade = request.headers().contains_key("upgrade");
        let client = wants_upgrade.then(|| hyper::upgrade::on(&mut request));
        state.upgrading.store(wants_upgrade, Ordering::Release);
        state.waits.store(pending.recorded.waits_for_news(), Ordering::Release);

        *request.version_mut() = hyper::Version::HTTP_11;
        let request = request.map(|body| Tee { body, copy });
        let mut sender = sender.lock().await;
        // The connection may still be busy with the end of the last answer.
        let mut answer = match sender.ready().await {
            Ok(()) => sender.send_request(request).await,
            Err(error) => Err(error),
        };

        pending.ended(answer.as_ref().ok().map(Response::status));
        // Events go on after the head of the answer; a blocking query has what it waited for.
        if self.target == Target::Consul {
            state.waits.store(false, Ordering::Release);
        }
        match (client, &mut answer) {
            (Some(client), Ok(answer)) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let server = hyper::upgrade::on(answer);
                tokio::spawn(async move {
                    if let (Ok(client), Ok(server)) = tokio::join!(client, server) {
                        // Either side may break off at any time; the other then sees the end.
                        let _ =
                            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await;
                    }
                });
            }
            _ => state.upgrading.store(false, Ordering::Release),
        }
        answer
    }

    fn write(&self, recorded: &Recorded) {
        // One write call a line: threads append to the same file.
        let written = serde_json::to_string(recorded)
            .map_err(std::io::Error::from)
            .and_then(|line| (&*self.file).write_all((line + "\n").as_bytes()));
        if let Err(error) = written {
            eprintln!("the recorder cannot write: {error}");
        }
    }
}

/// A request without an answer so far. It is written down in any case: a client that gives up does not take back what the server read.
struct Pending {
    proxy: Arc<Proxy>,
    recorded: Recorded,
    body: Arc<Mutex<BodyCopy>>,
    start: Instant,
}

impl Pending {
    fn new(proxy: Arc<Proxy>, request: &Request<Incoming>, body: Arc<Mutex<BodyCopy>>) -> Self {
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let user_agent = request.headers().get("user-agent").map(text);
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let recorded = Recorded::arrived(time, proxy.node, proxy.target, request.method().as_str(), path);
        let recorded = Recorded { user_agent, ..recorded };
        Self { proxy, recorded, body, start: Instant::now() }
    }

    fn ended(mut self, status: Option<StatusCode>) {
        self.recorded.status = status.map(|status| status.as_u16());
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        (self.recorded.body, self.recorded.body_bytes) =
            self.body.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.recorded.millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.proxy.write(&self.recorded);
    }
}

/// The beginning of a body that passed.
#[derive(Default)]
struct BodyCopy {
    bytes: BytesMut,
    length: u64,
}

impl BodyCopy {
    fn add(&mut self, data: &Bytes) {
        self.length += data.len() as u64;
        if self.bytes.len() + data.len() <= BODY_BYTES_MAX {
            self.bytes.extend_from_slice(data);
        }
    }

    /// The text, if it is one and complete, and the length.
    fn take(&mut self) -> (Option<String>, u64) {
        let bytes = std::mem::take(&mut self.bytes);
        let complete = self.length > 0 && bytes.len() as u64 == self.length;
        let text = complete.then(|| String::from_utf8(bytes.into()).ok()).flatten();
        (text, self.length)
    }
}

/// A body that is copied as it passes.
struct Tee {
    body: Incoming,
    copy: Arc<Mutex<BodyCopy>>,
}

impl Body for Tee {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.copy.lock().unwrap_or_else(PoisonError::into_inner).add(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
