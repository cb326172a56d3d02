//! Who asks: nobody is believed for where a header says he is, only for his socket or for what he knows.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::answer::Refusal;
use super::{Api, Asker};
use crate::model::Sensitive;

/// Where a request came from; [`super::server`] puts it into every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// The address of the socket.
    pub address: SocketAddr,
    /// True if the peer showed a certificate of `tls.client_ca_file`.
    pub is_certified: bool,
}

/// Lets a request through with its [`Asker`], or answers 401.
pub(super) async fn require(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    match identify(peer, request.headers(), api.api_token.as_ref(), (api.cluster_token)().as_ref()) {
        Ok(asker) => {
            request.extensions_mut().insert(asker);
            next.run(request).await
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// A bearer is judged by his token alone, even on loopback: a wrong token is a mistake that its owner wants to hear of.
fn identify(
    peer: Peer,
    headers: &HeaderMap,
    api_token: Option<&Sensitive<String>>,
    cluster_token: Option<&Sensitive<String>>,
) -> Result<Asker, Refusal> {
    if let Some(shown) = bearer(headers) {
        if cluster_token.is_some_and(|token| same(shown, token)) {
            return Ok(Asker::Keeper);
        }
        if api_token.is_some_and(|token| same(shown, token)) {
            return Ok(Asker::Person);
        }
        return Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "the bearer token is not this cluster's api_token",
            "show the token that api_token holds, or ask on the node itself without any",
        ));
    }
    let is_local = peer.address.ip().to_canonical().is_loopback() && is_direct(headers);
    if is_local || peer.is_certified {
        return Ok(Asker::Person);
    }
    Err(match api_token {
        Some(_) => Refusal::new(
            StatusCode::UNAUTHORIZED,
            "this request shows no token",
            "send `Authorization: Bearer <api_token>`, or ask on the node itself over loopback",
        ),
        None => Refusal::new(
            StatusCode::UNAUTHORIZED,
            "no api_token is configured, so only this node's own processes may ask",
            "ask on the node itself over loopback, or configure api_token",
        ),
    })
}

/// True if the loopback peer is the asker himself: a reverse proxy on the node would make the whole world loopback, and a
/// page in a browser on the node could send its user's requests (`Origin`) or name us by a host of its own (`Host`).
fn is_direct(headers: &HeaderMap) -> bool {
    let relayed = ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // Browsers say so of requests without an `Origin` too, such as an image's.
    let by_a_page = headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    !relayed && !by_a_page && !headers.contains_key(header::ORIGIN) && names_loopback(host)
}

fn names_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The token of `Authorization: Bearer …`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Compares in constant time, so that the time of an answer tells nothing of the token but its length.
pub(super) fn same(shown: &str, secret: &Sensitive<String>) -> bool {
    shown.as_bytes().ct_eq(secret.reveal().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a peer with these headers passes, where `api_token` is `api` and the cluster's is `internal`.
    fn check(peer: &str, headers: &[(&'static str, &'static str)], expect: Option<Asker>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let (api, internal) = (Sensitive::new("api".to_owned()), Sensitive::new("internal".to_owned()));
        let found = identify(at(peer), &map, Some(&api), Some(&internal)).ok();
        assert_eq!(found, expect, "{peer} with {headers:?}");
    }

    fn at(ip: &str) -> Peer {
        Peer { address: SocketAddr::new(ip.parse().unwrap(), 40000), is_certified: false }
    }

    #[test]
    fn a_process_of_this_node_needs_no_token() {
        check("127.0.0.1", &[("host", "127.0.0.1:7979")], Some(Asker::Person));
        check("127.0.0.1", &[("host", "localhost")], Some(Asker::Person));
        check("::1", &[("host", "[::1]:7979")], Some(Asker::Person));
        check("::ffff:127.0.0.1", &[("host", "localhost:7979")], Some(Asker::Person));
    }

    #[test]
    fn a_stranger_needs_the_token() {
        check("10.0.0.9", &[("host", "localhost")], None);
        check("10.0.0.9", &[("host", "localhost"), ("authorization", "Bearer wrong")], None);
        check("10.0.0.9", &[("authorization", "Basic api")], None);
        check("10.0.0.9", &[("authorization", "bearer api")], Some(Asker::Person));
        check("10.0.0.9", &[("authorization", "Bearer internal")], Some(Asker::Keeper));
    }

    #[test]
    fn a_wrong_token_is_refused_even_on_loopback() {
        check("127.0.0.1", &[("host", "localhost"), ("authorization", "Bearer wrong")], None);
    }

    #[test]
    fn a_proxy_on_the_node_makes_nobody_local() {
        for relayed in ["forwarded", "x-forwarded-for", "x-real-ip", "via"] {
            check("127.0.0.1", &[("host", "localhost"), (relayed, "203.0.113.7")], None);
        }
    }

    #[test]
    fn a_page_in_a_browser_on_the_node_is_not_its_user() {
        check("127.0.0.1", &[("host", "localhost:7979"), ("origin", "https://evil.example")], None);
        check("127.0.0.1", &[("host", "localhost:7979"), ("sec-fetch-site", "cross-site")], None);
        check("127.0.0.1", &[("host", "rebound.evil.example:7979")], None);
        check("127.0.0.1", &[], None);
    }

    #[test]
    fn without_tokens_only_loopback_passes() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer ".parse().unwrap());
        let refusal = identify(at("10.0.0.9"), &HeaderMap::new(), None, None).unwrap_err();
        assert_eq!(refusal.status, StatusCode::UNAUTHORIZED);
        assert!(refusal.next.contains("api_token"), "{}", refusal.next);
        assert!(identify(at("10.0.0.9"), &headers, None, None).is_err());
    }
}
