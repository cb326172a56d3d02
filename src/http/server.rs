//! The accept loop: hyper's HTTP/1 with limits that `axum::serve` has no way to set.
//!
//! Where the API has a certificate, a listener on loopback speaks plain HTTP all the same, for this node's own processes, and every
//! other one TLS only.
//!
//! Each connection is a task of a [`JoinSet`] that the loop owns, so none outlives [`serve`]: at shutdown the listeners close,
//! idle connections end at once, and a request in flight has [`DRAIN_TIMEOUT`] to be answered.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use axum::{Extension, Router};
use futures_util::future::join_all;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::auth::Peer;
use super::limits::{Rates, Seat, Seats};
use super::tls::Tls;
use super::{Api, answer, router};

/// Open connections per listener, and with HTTP/1 requests in flight; further ones wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 128;

/// Longest wait for a request's headers, and longest idle time of a kept connection.
pub const HEADERS_READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for a request, its answer included; a command waits for the leader's answer, not for a rollout.
pub const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// How long a request in flight may go on after shutdown.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause after a failed accept, which is a lack of file descriptors more often than not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Largest header block, in bytes.
const HEADERS_BYTES_MAX: usize = 32 << 10;

/// Longest wait for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = HEADERS_READ_TIMEOUT;

/// Serves all listeners until `shutdown`, then drains.
pub async fn serve(listeners: Vec<TcpListener>, api: Api, shutdown: CancellationToken) {
    let tls = api.tls.clone();
    let rates = Arc::new(Mutex::new(Rates::default()));
    let limit = axum::middleware::from_fn_with_state(rates, within_rate);
    let routes = router(api).layer(limit);
    let accept = |listener: TcpListener| {
        let is_private = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let tls = tls.clone().filter(|_| !is_private);
        accept(listener, tls, routes.clone(), shutdown.clone())
    };
    join_all(listeners.into_iter().map(accept)).await;
}

/// Answers 429 to a peer that asks too much.
async fn within_rate(
    State(rates): State<Arc<Mutex<Rates>>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let allowed = rates.lock().unwrap_or_else(PoisonError::into_inner).allow(peer.address.ip(), Instant::now());
    if allowed { next.run(request).await } else { answer::too_many() }
}

async fn accept(listener: TcpListener, tls: Option<Arc<Tls>>, routes: Router, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let seats = Seats::default();
    let mut connections = JoinSet::new();
    loop {
        // Every arm is cancel-safe: a permit or a connection is either handed out or still in its queue.
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = next(&listener, &slots) => match accepted {
                Ok((slot, stream, peer)) => {
                    // One that has too many already is closed without a word.
                    let Some(seat) = seats.take(peer.ip()) else { continue };
                    let (tls, routes, shutdown) = (tls.clone(), routes.clone(), shutdown.clone());
                    connections.spawn(converse((slot, seat), stream, peer, tls, routes, shutdown));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((slot, stream, peer))
}

async fn converse(
    _place: (OwnedSemaphorePermit, Seat),
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    routes: Router,
    shutdown: CancellationToken,
) {
    let Some(tls) = tls else {
        return answer_all(stream, Peer { address, is_certified: false }, routes, shutdown).await;
    };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream));
    // A handshake that fails, or is late, is the peer's affair: nobody can be told.
    let Some(Ok(Ok(stream))) = shutdown.run_until_cancelled(handshake).await else { return };
    // What is shown has been verified: a certificate of another CA ends the handshake.
    let is_certified = stream.get_ref().1.peer_certificates().is_some_and(|shown| !shown.is_empty());
    answer_all(stream, Peer { address, is_certified }, routes, shutdown).await;
}

async fn answer_all(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    routes: Router,
    shutdown: CancellationToken,
) {
    let service = TowerToHyperService::new(routes.layer(Extension(peer)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_READ_TIMEOUT)
        .max_header_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // An error here is the peer's: it went away or spoke no HTTP. Nobody can be told.
    let ended = tokio::select! {
        _ = connection.as_mut() => true,
        () = shutdown.cancelled() => false,
    };
    if !ended {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, connection).await;
    }
}
