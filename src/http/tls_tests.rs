//! The API over TLS, over a real socket. On `0.0.0.0`, since loopback alone speaks plain HTTP.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::ca::Ca;
use super::tests::Server;
use super::tls::{Files, Tls};

/// A server with a certificate of `ca`, which lets in those who show one of `clients`.
async fn start(ca: &Ca, clients: Option<&Ca>) -> (Server, Arc<Tls>, Files) {
    let (cert, key) = ca.sign("server");
    let files = Files { cert, key, client_ca: clients.map(|ca| ca.path("ca.pem")) };
    let tls = Arc::new(Tls::new(files.clone()).unwrap());
    let server = Server::start_at(Ipv4Addr::UNSPECIFIED, |api| api.tls = Some(tls.clone())).await;
    (server, tls, files)
}

/// The status of an answer to a stranger who trusts `ca` and shows a certificate of `own`; none without an answer.
async fn ask(server: &Server, ca: &Ca, own: Option<&Ca>, path: &str, token: Option<&str>) -> Option<u16> {
    let roots = reqwest::Certificate::from_pem_bundle(&std::fs::read(ca.path("ca.pem")).unwrap()).unwrap();
    let mut http = reqwest::Client::builder().no_proxy().tls_certs_only(roots);
    if let Some(own) = own {
        let (cert, key) = own.sign("client");
        let pem = [std::fs::read(cert).unwrap(), std::fs::read(key).unwrap()].concat();
        http = http.identity(reqwest::Identity::from_pem(&pem).unwrap());
    }
    let url = format!("https://127.0.0.1:{}{path}", server.address.port());
    // By the header he is no process of this node's.
    let mut request = http.build().unwrap().get(url).header("x-forwarded-for", "127.0.0.1");
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    Some(request.send().await.ok()?.status().as_u16())
}

#[tokio::test]
async fn who_shows_a_certificate_of_the_clients_ca_needs_no_token() {
    let (ca, clients) = (Ca::new(), Ca::new());
    let (server, _, _) = start(&ca, Some(&clients)).await;
    assert_eq!(ask(&server, &ca, None, "/metrics", None).await, Some(200));
    assert_eq!(ask(&server, &ca, None, "/v1/status", None).await, Some(401));
    assert_eq!(ask(&server, &ca, None, "/v1/status", Some("api")).await, Some(200));
    assert_eq!(ask(&server, &ca, Some(&clients), "/v1/status", None).await, Some(200));
    assert_eq!(ask(&server, &ca, Some(&clients), "/v1/status", Some("wrong")).await, Some(401));
    assert_eq!(ask(&server, &ca, Some(&ca), "/v1/status", None).await, None, "a certificate of another CA");
    assert_eq!(ask(&server, &clients, None, "/v1/status", None).await, None, "a server that is not trusted");
}

#[tokio::test]
async fn without_a_clients_ca_a_certificate_says_nothing() {
    let ca = Ca::new();
    let (server, _, _) = start(&ca, None).await;
    assert_eq!(ask(&server, &ca, Some(&ca), "/v1/status", None).await, Some(401));
}

#[tokio::test]
async fn beyond_loopback_there_is_no_plain_http() {
    let ca = Ca::new();
    let (server, _, _) = start(&ca, None).await;
    let url = format!("http://127.0.0.1:{}/healthz", server.address.port());
    assert!(reqwest::get(url).await.is_err());
    assert!(server.asked().is_empty());
}

#[tokio::test]
async fn a_new_certificate_is_used_from_the_next_connection_on_and_a_bad_one_is_not() {
    let (ca, next) = (Ca::new(), Ca::new());
    let (server, tls, files) = start(&ca, None).await;
    assert_eq!(tls.renew(), Ok(false));
    std::fs::write(&files.cert, "s3cret").unwrap();
    let error = tls.renew().unwrap_err().to_string();
    assert!(error.contains("server.pem: there is no certificate") && !error.contains("s3cret"), "{error}");
    assert_eq!(ask(&server, &ca, None, "/healthz", None).await.map(|_| ()), Some(()));
    next.sign_into(&files.cert, &files.key);
    assert_eq!(tls.renew(), Ok(true));
    assert_eq!(ask(&server, &ca, None, "/metrics", None).await, None);
    assert_eq!(ask(&server, &next, None, "/metrics", None).await, Some(200));
}
