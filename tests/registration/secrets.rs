//! TLS, the unix socket, and tokens and certificates that change while everything runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use swarmkeeper::app::policies::{self, Names, Policy, Role};
use swarmkeeper::io::consul::{Consul, Options, Renewal};
use swarmkeeper::io::docker::Health;
use swarmkeeper::leader::{self, ByConsul, Probe, Profile};
use swarmkeeper::registration::Registrar;
use tokio_util::sync::CancellationToken;

use crate::ca::Ca;
use crate::engine::{FakeEngine, container};
use crate::support::{ConsulServer, ROOT};
use crate::{options, well};

/// Consul with TLS that wants to see a certificate of `ca`.
async fn start_tls(ca: &Ca) -> ConsulServer {
    let (cert, key) = ca.sign("server");
    let tls = json!({"ca_file": ca.path("ca.pem"), "cert_file": cert, "key_file": key, "verify_incoming": true});
    ConsulServer::start_with(tls, None).await
}

fn with_tls(server: &ConsulServer, ca: &Ca) -> Options {
    Options { address: server.https_address(), ca_file: Some(ca.path("ca.pem")), ..Options::default() }
}

fn policy() -> Policy {
    let names = Names { cluster: "swarm".to_owned(), node: Some("consul-test".to_owned()), ..Names::default() };
    policies::policy(Role::Keeper, &names)
}

#[tokio::test]
async fn consul_is_reached_over_tls_with_our_own_ca_and_certificate() {
    let (ca, other) = (Ca::new(), Ca::new());
    let server = start_tls(&ca).await;
    let (cert, key) = ca.sign("agent");
    let both = Options { cert_file: Some(cert), key_file: Some(key), ..with_tls(&server, &ca) };
    assert_eq!(Consul::new(both.clone()).unwrap().agent_self().await.unwrap().node, "consul-test");

    let error = Consul::new(with_tls(&server, &ca)).unwrap().agent_self().await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("certificate"), "without ours: {error}");
    let distrusting = Options { ca_file: Some(other.path("ca.pem")), ..both };
    let error = Consul::new(distrusting).unwrap().agent_self().await.unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn consul_is_reached_by_its_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("consul.sock");
    let addresses = format!("127.0.0.1 unix://{}", socket.display());
    let _server = ConsulServer::start_with(json!({"addresses": {"http": addresses}}), None).await;
    let options = Options { address: format!("unix://{}", socket.display()), ..Options::default() };
    let consul = Consul::new(options).unwrap();
    assert_eq!(consul.agent_self().await.unwrap().node, "consul-test");
    consul.kv_put("a/b", b"1".to_vec()).await.unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_used_if_consul_takes_it() {
    let (ca, other) = (Ca::new(), Ca::new());
    let server = start_tls(&ca).await;
    let (cert, key) = ca.sign("agent");
    let options = Options { cert_file: Some(cert.clone()), key_file: Some(key.clone()), ..with_tls(&server, &ca) };
    let consul = Consul::new(options).unwrap();
    let rights = policy().rights();
    assert_eq!(consul.renew(&rights).await.unwrap(), Renewal::Unchanged);
    consul.agent_self().await.unwrap();

    // The certificate has been replaced, and the key not yet; then both are a stranger's; then garbage.
    let old_key = std::fs::read(&key).unwrap();
    ca.sign_into(&cert, &key);
    std::fs::write(&key, &old_key).unwrap();
    consul.renew(&rights).await.unwrap_err();
    other.sign_into(&cert, &key);
    consul.renew(&rights).await.unwrap_err();
    std::fs::write(&cert, "s3cret").unwrap();
    let error = consul.renew(&rights).await.unwrap_err().to_string();
    assert!(error.contains("agent.pem") && !error.contains("s3cret"), "{error}");
    consul.agent_self().await.unwrap();
    assert_eq!(consul.renewals(), 0);

    ca.sign_into(&cert, &key);
    assert_eq!(consul.renew(&rights).await.unwrap(), Renewal::Renewed);
    assert_eq!(consul.renew(&rights).await.unwrap(), Renewal::Unchanged);
    consul.agent_self().await.unwrap();
}

/// A Consul that denies by default, an agent of ours with a token in a file, and its engine.
struct World {
    server: ConsulServer,
    consul: Consul,
    engine: FakeEngine,
    registrar: Registrar<FakeEngine>,
    dir: tempfile::TempDir,
    token: String,
}

impl World {
    async fn start() -> Self {
        let server = ConsulServer::start_denying().await;
        let dir = tempfile::tempdir().unwrap();
        let token = server.token(&policy().hcl()).await;
        std::fs::write(dir.path().join("token"), format!("{token}\n")).unwrap();
        let token_file = Some(dir.path().join("token"));
        let consul = Consul::new(Options { address: server.address(), token_file, ..Options::default() }).unwrap();
        let engine = FakeEngine::default();
        let registrar = Registrar::new(options(), engine.clone(), consul.clone());
        Self { server, consul, engine, registrar, dir, token }
    }

    async fn pass(&mut self) -> usize {
        let outcome = self.registrar.pass(&well(), Instant::now(), &CancellationToken::new()).await.unwrap();
        assert!(outcome.remarks.is_empty(), "{outcome:?}");
        outcome.written
    }

    async fn says(&mut self, token: &str) -> Result<Renewal, swarmkeeper::io::consul::Error> {
        std::fs::write(self.dir.path().join("token"), token).unwrap();
        self.consul.renew(&policy().rights()).await
    }

    /// Waits until the servers, not only the agent, say so of service `web`: its instances by how they stand.
    async fn until_catalog(&self, expect: &[&str]) {
        let begin = Instant::now();
        let url = format!("{}/v1/health/service/web", self.server.address());
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        loop {
            let answer = http.get(&url).header("X-Consul-Token", ROOT).send().await.unwrap();
            let entries: Vec<Value> = answer.json().await.unwrap();
            let status = |entry: &Value| {
                let checks = entry["Checks"].as_array().unwrap();
                let all_pass = checks.iter().all(|check| check["Status"] == "passing");
                if all_pass { "passing" } else { "critical" }
            };
            let found: Vec<_> = entries.iter().map(status).collect();
            if found == expect {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(15), "{found:?} instead of {expect:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn web(health: Health) -> crate::engine::Made {
    container("web", 8080).label("SERVICE_NAME", "web").health(health)
}

#[tokio::test]
async fn a_token_is_rotated_and_the_old_one_deleted_without_a_restart() {
    let mut world = World::start().await;
    world.engine.put(web(Health::Healthy));
    world.pass().await;
    world.until_catalog(&["passing"]).await;
    world.pass().await;
    assert_eq!(world.pass().await, 0);

    let next = world.server.token(&policy().hcl()).await;
    assert_eq!(world.says(&next).await.unwrap(), Renewal::Renewed);
    // Consul's agent speaks for each entry with the token that it came with.
    assert_eq!(world.pass().await, 2, "the agent's own entry and the container's are registered again");
    world.pass().await;
    assert_eq!(world.pass().await, 0);
    world.server.delete_token(&world.token).await;

    world.engine.put(web(Health::Unhealthy));
    world.pass().await;
    world.until_catalog(&["critical"]).await;
    world.engine.remove("web");
    world.pass().await;
    world.until_catalog(&[]).await;
}

#[tokio::test]
async fn an_agent_that_starts_with_another_token_registers_anew_what_came_with_the_old_one() {
    let mut world = World::start().await;
    world.engine.put(web(Health::Healthy));
    world.pass().await;
    world.until_catalog(&["passing"]).await;
    let next = world.server.token(&policy().hcl()).await;
    world.registrar = Registrar::new(options(), world.engine.clone(), world.server.client_with(Some(&next)));
    assert_eq!(world.pass().await, 2);
    world.server.delete_token(&world.token).await;
    world.engine.remove("web");
    world.pass().await;
    world.until_catalog(&[]).await;
}

#[tokio::test]
async fn a_token_that_is_no_good_is_not_used() {
    let mut world = World::start().await;
    let stranger = "11111111-2222-3333-4444-555555555555";
    let error = world.says(stranger).await.unwrap_err().to_string();
    assert!(error.contains("ACL not found") && !error.contains(stranger), "{error}");
    let error = world.says("").await.unwrap_err().to_string();
    assert!(error.contains("is empty"), "{error}");
    let mut rules = policy().rules;
    let session = rules.remove(3);
    let lesser = rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let lesser = world.server.token(&lesser).await;
    let Renewal::Lacking(rights) = world.says(&lesser).await.unwrap() else { panic!("it is used") };
    assert_eq!(policy().lines_of(&rights).collect::<Vec<_>>(), [&session]);
    world.consul.agent_self().await.unwrap();
    assert_eq!(world.consul.renewals(), 0);
    // Where the old one does not work any more, any that Consul knows is better.
    world.server.delete_token(&world.token).await;
    let begin = Instant::now();
    while world.says(&lesser).await.unwrap() != Renewal::Renewed {
        assert!(begin.elapsed() < Duration::from_secs(40), "consul still takes the deleted token");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.consul.agent_self().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_leads_on_in_the_same_term_while_its_token_is_rotated() {
    let mut world = World::start().await;
    let options = leader::Options {
        cluster: "swarm".to_owned(),
        node: "node1".to_owned(),
        address: "http://10.0.0.1:7979".to_owned(),
        version: "1.0.0".to_owned(),
        profile: Profile::FAST,
        swarm_cluster_id: "swarm-1".to_owned(),
    };
    let probe: Probe = Arc::new(|| async { Ok(()) }.boxed());
    let lock = Arc::new(ByConsul::new(world.consul.clone(), options.clone()));
    let (mut candidate, _leadership, gate) = leader::stand(lock, options, probe);
    let shutdown = CancellationToken::new();
    let task = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { candidate.run(shutdown).await }
    });
    let term = tokio::time::timeout(Duration::from_secs(30), gate.opened()).await.unwrap().unwrap().token;
    let next = world.server.token(&policy().hcl()).await;
    assert_eq!(world.says(&next).await.unwrap(), Renewal::Renewed);
    // A beat later the check has been registered with the new token.
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.server.delete_token(&world.token).await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(6) {
        assert_eq!(gate.permit().unwrap().token, term);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shutdown.cancel();
    task.await.unwrap().unwrap();
    // With the old token Consul's agent could not have told its servers that the check is gone.
    let begin = Instant::now();
    while !world.server.client().health_nodes(leader::SERVICE, false).await.unwrap().is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the candidate's check is still in the catalog");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
