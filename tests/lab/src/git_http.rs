//! `git http-backend` behind a little HTTP server on the bridge's address.

use crate::background::Background;
use crate::git::{GitFault, fault};
use crate::layout::{GIT_HTTP_PORT, GIT_HTTPS_PORT, HOST, Layout, PASSWORD, USER};
use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A pushed pack may not be longer.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
/// After an error of `accept` (too many open files), before the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Below this path the lab's user and password are asked for.
const PRIVATE: &str = "/private/";

type Answer = Response<Full<Bytes>>;

/// Listens on the bridge.
pub(crate) fn start(layout: &Layout) -> Result<Background> {
    let layout = layout.clone();
    let listen = async || listen(GIT_HTTP_PORT).await;
    Background::start("git-http".to_owned(), listen, async move |listener| serve(listener, None, layout).await)
}

/// The same with TLS. Leaves its CA where [`crate::GitServer::ca`] says.
pub(crate) fn start_tls(layout: &Layout) -> Result<Background> {
    let (acceptor, ca) = certified()?;
    std::fs::write(layout.git().join("ca.pem"), ca)?;
    let layout = layout.clone();
    let listen = async || listen(GIT_HTTPS_PORT).await;
    let serve = async move |listener| serve(listener, Some(acceptor), layout).await;
    Background::start("git-https".to_owned(), listen, serve)
}

async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((HOST, port)).await.with_context(|| format!("cannot listen on {HOST}:{port}"))
}

/// A new CA, and a server's end of TLS with a certificate of it.
fn certified() -> Result<(TlsAcceptor, String)> {
    let mut params = CertificateParams::new([])?;
    // With rcgen's name for everything, OpenSSL takes the server's certificate for its own issuer.
    params.distinguished_name.push(DnType::CommonName, "lab CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([HOST.to_string()])?.signed_by(&key, &ca)?;
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!(error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    Ok((TlsAcceptor::from(Arc::new(config)), ca.pem()))
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, layout: Layout) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if fault(&layout) == Some(GitFault::Refuse) {
            continue;
        }
        let (tls, layout) = (tls.clone(), layout.clone());
        tokio::spawn(async move {
            match tls {
                None => converse(stream, &layout).await,
                // A client that does not trust us goes away.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, &layout).await;
                    }
                }
            }
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, layout: &Layout) {
    let service = service_fn(|request| answer(request, layout));
    // How a client's connection ends is the client's business.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, layout: &Layout) -> Result<Answer> {
    match fault(layout) {
        Some(GitFault::Hang) => std::future::pending().await,
        // An error of the service closes the connection.
        Some(GitFault::Refuse) => anyhow::bail!("refused on purpose"),
        Some(GitFault::Error(status)) => Ok(plain(StatusCode::from_u16(status)?, "broken on purpose\n")),
        None => backend(request, layout).await,
    }
}

/// Runs git's CGI program.
async fn backend(request: Request<Incoming>, layout: &Layout) -> Result<Answer> {
    let path = request.uri().path();
    let private = path.starts_with(PRIVATE);
    if private && !is_authorised(&request) {
        let mut answer = plain(StatusCode::UNAUTHORIZED, "user and password, please\n");
        answer.headers_mut().insert("www-authenticate", "Basic realm=\"lab\"".parse()?);
        return Ok(answer);
    }
    let path = if private { &path[PRIVATE.len() - 1..] } else { path };
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", layout.git())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("PATH_INFO", path)
        .env("REQUEST_METHOD", request.method().as_str())
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("REMOTE_ADDR", "127.0.0.1");
    if private {
        // git-receive-pack is served to those who have a name.
        command.env("REMOTE_USER", USER);
    }
    for (header, variables) in [
        ("content-type", &["CONTENT_TYPE"][..]),
        ("content-encoding", &["HTTP_CONTENT_ENCODING"]),
        ("git-protocol", &["HTTP_GIT_PROTOCOL", "GIT_PROTOCOL"]),
    ] {
        if let Some(value) = request.headers().get(header).and_then(|value| value.to_str().ok()) {
            for variable in variables {
                command.env(variable, value);
            }
        }
    }
    let collected = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    let body = collected.map_err(|error| anyhow::anyhow!("cannot read the request: {error}"))?.to_bytes();
    command.env("CONTENT_LENGTH", body.len().to_string());
    parse_cgi(&crate::command::output_bytes(command, Some(&body)).await?)
}

fn is_authorised(request: &Request<Incoming>) -> bool {
    let expected = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    request.headers().get("authorization").is_some_and(|value| value.as_bytes() == expected.as_bytes())
}

/// Turns what a CGI program printed into an answer.
fn parse_cgi(printed: &[u8]) -> Result<Answer> {
    let end = printed.windows(4).position(|four| four == b"\r\n\r\n").context("git http-backend printed no headers")?;
    let mut answer = Response::builder();
    for line in String::from_utf8_lossy(&printed[..end]).lines() {
        let (name, value) = line.split_once(':').with_context(|| format!("no header: {line}"))?;
        answer = match (name, value.trim()) {
            ("Status", status) => answer.status(status.split(' ').next().unwrap_or(status)),
            (name, value) => answer.header(name, value),
        };
    }
    Ok(answer.body(Full::from(printed[end + 4..].to_vec()))?)
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgi_status_becomes_the_answers() {
        let answer =
            parse_cgi(b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nnothing\r\n\r\nhere").unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert_eq!(answer.headers()["content-type"], "text/plain");
        assert_eq!(parse_cgi(b"Content-Type: a/b\r\n\r\n").unwrap().status(), StatusCode::OK);
        assert!(parse_cgi(b"no headers").is_err());
    }
}
