//! A real Consul for tests: one server on loopback, with free ports and a data directory of its own, killed when dropped.

// Each test binary that includes this file uses a part of it.
#![allow(dead_code)]
// A test that cannot start its server has failed, and says why by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use swarmkeeper::io::consul::{Consul, Options};
use swarmkeeper::model::Sensitive;

/// Where `make lab-install` unpacks Consul.
const LAB: &str = "/var/cache/swarmkeeper-lab/consul/usr/bin/consul";

/// How long a server may take until it leads itself; a loaded machine of two cores took 9 s.
const START_MAX: Duration = Duration::from_mins(1);

/// How often a start is tried with other ports, should somebody take one between our look and Consul's.
const ATTEMPTS_MAX: usize = 3;

/// The token that may do everything, where ACLs are on.
pub const ROOT: &str = "root";

/// The node's name of a server that is alone.
const NAME: &str = "consul-test";

/// A running server; the name of its node is `consul-test`, unless it is one of several.
#[derive(Debug)]
pub struct ConsulServer {
    child: Child,
    dir: tempfile::TempDir,
    name: String,
    ports: Ports,
    token: Option<String>,
}

impl ConsulServer {
    /// Starts a server without ACLs and waits until it is ready for sessions.
    pub async fn start() -> Self {
        Self::start_with(json!({}), None).await
    }

    /// Starts a server with more configuration; `token` is what [`Self::client`] and the wait for readiness use.
    pub async fn start_with(more: Value, token: Option<&str>) -> Self {
        for _ in 0..ATTEMPTS_MAX {
            let mut server = Self::spawn(NAME.to_owned(), Ports::free(), &more);
            server.token = token.map(ToOwned::to_owned);
            if server.ready().await {
                return server;
            }
        }
        panic!("consul did not start in {ATTEMPTS_MAX} attempts");
    }

    /// Starts a server that denies what no policy allows; [`Self::client`] may do everything.
    pub async fn start_denying() -> Self {
        Self::start_with(Self::denying(), Some(ROOT)).await
    }

    /// The configuration of a server that denies what no policy allows.
    pub fn denying() -> Value {
        json!({"acl": {"enabled": true, "default_policy": "deny", "tokens": {"master": ROOT, "agent": ROOT}}})
    }

    /// Makes a policy with these lines, and a token that has it.
    pub async fn token(&self, rules: &str) -> String {
        // Two of one name are refused.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.acl(reqwest::Method::PUT, "policy", json!({"Name": name, "Rules": rules})).await;
        let token = self.acl(reqwest::Method::PUT, "token", json!({"Policies": [{"Name": name}]})).await;
        token["SecretID"].as_str().unwrap().to_owned()
    }

    /// Deletes a token.
    pub async fn delete_token(&self, token: &str) {
        let id = self.client_with(Some(token)).token_self().await.unwrap().unwrap();
        self.acl(reqwest::Method::DELETE, &format!("token/{id}"), Value::Null).await;
    }

    async fn acl(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let request = http.request(method, format!("{}/v1/acl/{path}", self.address())).header("X-Consul-Token", ROOT);
        let answer = request.json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
        answer.json().await.unwrap()
    }

    /// Starts servers that elect their Raft leader among them.
    pub async fn start_cluster(count: usize) -> Vec<Self> {
        for _ in 0..ATTEMPTS_MAX {
            let ports: Vec<Ports> = (0..count).map(|_| Ports::free()).collect();
            let join: Vec<String> = ports.iter().map(|ports| format!("127.0.0.1:{}", ports.serf)).collect();
            let more =
                json!({"bootstrap": false, "bootstrap_expect": count, "retry_join": join, "retry_interval": "1s"});
            let spawn = |(number, ports)| Self::spawn(format!("{NAME}-{number}"), ports, &more);
            let mut servers: Vec<Self> = ports.into_iter().enumerate().map(spawn).collect();
            let mut ready = 0;
            for server in &mut servers {
                ready += usize::from(server.ready().await);
            }
            if ready == count {
                return servers;
            }
        }
        panic!("{count} consul servers did not start in {ATTEMPTS_MAX} attempts");
    }

    fn spawn(name: String, ports: Ports, more: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_config(dir.path(), &name, ports, more);
        Self { child: spawn(dir.path()), dir, name, ports, token: None }
    }

    /// Such as `http://127.0.0.1:34567`.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.http)
    }

    /// By which the servers know each other.
    pub fn server_port(&self) -> u16 {
        self.ports.server
    }

    /// Such as `https://127.0.0.1:34568`; it answers there if its configuration names a certificate.
    pub fn https_address(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.https)
    }

    /// Where it answers DNS, on loopback.
    pub fn dns_port(&self) -> u16 {
        self.ports.dns
    }

    /// A client with the server's token.
    pub fn client(&self) -> Consul {
        self.client_with(self.token.as_deref())
    }

    /// A client with another token.
    pub fn client_with(&self, token: Option<&str>) -> Consul {
        let token = token.map(|token| Sensitive::new(token.to_owned()));
        Consul::new(Options { address: self.address(), token, ..Options::default() }).unwrap()
    }

    /// Kills the server as a power cut would; its data stays.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops the server where it stands, for good: to the others it is a node that is lost, whose connections nobody closes.
    pub fn freeze(&self) {
        let stopped = Command::new("kill").args(["-STOP", &self.child.id().to_string()]).status();
        assert!(stopped.unwrap().success());
    }

    /// Starts it again on the same ports with the same data.
    pub async fn start_again(&mut self) {
        self.child = spawn(self.dir.path());
        assert!(self.ready().await, "consul did not come back:\n{}", self.log());
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// False if the process ended, which a port that was taken does.
    async fn ready(&mut self) -> bool {
        let begin = Instant::now();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build();
        // The library's client has installed the TLS provider that this one needs.
        let http = http.unwrap();
        let url = format!("{}/v1/health/node/{}", self.address(), self.name);
        while begin.elapsed() < START_MAX {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            let mut request = http.get(&url);
            if let Some(token) = &self.token {
                request = request.header("X-Consul-Token", token);
            }
            // A session needs serfHealth, which the server writes after it has become the Raft leader.
            if let Ok(answer) = request.send().await
                && answer.text().await.is_ok_and(|text| text.contains("serfHealth"))
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("consul was not ready within {START_MAX:?}:\n{}", self.log());
    }
}

impl Drop for ConsulServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    http: u16,
    dns: u16,
    server: u16,
    serf: u16,
    https: u16,
}

impl Ports {
    fn free() -> Self {
        Self { http: free_port(), dns: free_port(), server: free_port(), serf: free_port(), https: free_port() }
    }
}

fn write_config(dir: &Path, name: &str, Ports { http, dns, server, serf, https }: Ports, more: &Value) {
    let https_or_none = if more.get("cert_file").is_some() { i32::from(https) } else { -1 };
    let mut config = json!({
        "node_name": name,
        "server": true,
        "bootstrap": true,
        "bind_addr": "127.0.0.1",
        "client_addr": "127.0.0.1",
        "data_dir": dir.join("data"),
        "disable_update_check": true,
        "performance": { "raft_multiplier": 1 },
        "ports": {
            "http": http, "dns": dns, "server": server, "serf_lan": serf,
            "serf_wan": -1, "grpc": -1, "https": https_or_none
        },
    });
    let (Some(config_map), Some(more)) = (config.as_object_mut(), more.as_object()) else { unreachable!() };
    config_map.extend(more.clone());
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
}

fn spawn(dir: &Path) -> Child {
    // A client of the library installs the process's TLS provider.
    drop(Consul::new(Options { address: "127.0.0.1:1".to_owned(), ..Options::default() }));
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    Command::new(binary())
        .arg("agent")
        .arg("-config-file")
        .arg(dir.join("config.json"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// `CONSUL`, else what is in `PATH`, else what the lab has unpacked.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CONSUL") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join("consul"))
        .chain([PathBuf::from(LAB)])
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("no consul: run `make lab-install`, or set CONSUL to the path of a consul binary"))
}

/// A port that is free for TCP and UDP alike.
pub fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
