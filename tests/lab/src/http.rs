//! One HTTP request over a connection of its own, to wherever the lab's parts listen.

use crate::net;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::http::request::Builder;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

const REQUEST_SECONDS_MAX: u64 = 120;
/// How long one try of [`poll`] may take.
const POLL: Duration = Duration::from_secs(2);

/// Where a request goes.
#[derive(Debug, Clone)]
pub(crate) enum Via {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// From within a network namespace.
    Netns(&'static str, SocketAddr),
}

/// Sends a request and reads the whole answer.
pub(crate) async fn send(via: &Via, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
    let what = format!("{} {}", request.method(), request.uri());
    let exchange = async {
        match via {
            Via::Tcp(address) => exchange(TcpStream::connect(address).await?, request).await,
            Via::Unix(path) => exchange(UnixStream::connect(path).await?, request).await,
            Via::Netns(netns, address) => exchange(net::connect(netns, *address).await?, request).await,
        }
    };
    tokio::time::timeout(Duration::from_secs(REQUEST_SECONDS_MAX), exchange)
        .await
        .with_context(|| format!("{what}: no answer within {REQUEST_SECONDS_MAX} s"))?
        .with_context(|| what)
}

/// As [`send`], for asking again and again whether somebody answers: a try that hangs must not use up the time of the others.
pub(crate) async fn poll(via: &Via, request: Builder) -> Option<Response<Bytes>> {
    let request = request.body(Full::default()).ok()?;
    let answer = tokio::time::timeout(POLL, send(via, request)).await.ok()?.ok()?;
    answer.status().is_success().then_some(answer)
}

/// As [`send`], for what must succeed.
pub(crate) async fn send_ok(via: &Via, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
    let what = format!("{} {}", request.method(), request.uri());
    let response = send(via, request).await?;
    if !response.status().is_success() {
        bail!("{what}: {}: {}", response.status(), String::from_utf8_lossy(response.body()).trim());
    }
    Ok(response)
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    mut request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>> {
    if !request.headers().contains_key("host") {
        request.headers_mut().insert("host", "lab".parse()?);
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    let connection = tokio::spawn(connection);
    let response = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        anyhow::Ok(Response::from_parts(parts, body.collect().await?.to_bytes()))
    };
    let response = response.await;
    connection.abort();
    response
}
