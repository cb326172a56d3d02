//! The accept loop: hyper's HTTP/1 with limits that `axum::serve` has no way to set.
//!
//! Each connection is a task of a [`JoinSet`] that the loop owns, so none outlives [`serve`]: at shutdown the listeners close,
//! idle connections end at once, and a request in flight has [`DRAIN_TIMEOUT`] to be answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use futures_util::future::join_all;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::auth::Peer;
use super::{Api, router};

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

/// Serves all listeners until `shutdown`, then drains.
pub async fn serve(listeners: Vec<TcpListener>, api: Api, shutdown: CancellationToken) {
    let routes = router(api);
    join_all(listeners.into_iter().map(|listener| accept(listener, routes.clone(), shutdown.clone()))).await;
}

async fn accept(listener: TcpListener, routes: Router, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // Every arm is cancel-safe: a permit or a connection is either handed out or still in its queue.
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = next(&listener, &slots) => match accepted {
                Ok((slot, stream, peer)) => {
                    connections.spawn(converse(slot, stream, peer, routes.clone(), shutdown.clone()));
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
    _slot: OwnedSemaphorePermit,
    stream: TcpStream,
    peer: SocketAddr,
    routes: Router,
    shutdown: CancellationToken,
) {
    let service = TowerToHyperService::new(routes.layer(Extension(Peer(peer))));
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
