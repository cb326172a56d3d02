//! Everything secured at once, as our own files say: Consul by the security parts of `consul/*.hcl`, its tokens by what
//! `swarmkeeper consul policies` prints, the API by certificates.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use swarmkeeper_lab::layout::HOST;
use swarmkeeper_lab::{Authority, Holder, Identity, Secured};

use super::{World, checkout, seconds};

/// What `consul acl bootstrap` would give.
const MANAGEMENT_TOKEN: &str = "6b0c1f9e-3d52-4d0e-9a57-0d1c2b3a4f5e";

/// What `consul keygen` would give.
const GOSSIP_KEY: &str = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=";

/// Consul's own, whom everybody is who shows no token.
const ANONYMOUS: &str = "00000000-0000-0000-0000-000000000002";

/// Where Consul speaks TLS.
const CONSUL_PORT: u16 = 8501;

/// A folder of each node, where its agent's secrets are: outside, seen from the node, and seen from the agent.
const FOLDER: [&str; 3] = ["run/swarmkeeper", "/run/swarmkeeper", "/etc/swarmkeeper"];

/// The API over TLS.
const API: [(&str, &str); 4] = [
    ("SWARMKEEPER_TLS_CERT_FILE", "cert.pem"),
    ("SWARMKEEPER_TLS_KEY_FILE", "key.pem"),
    ("SWARMKEEPER_TLS_CA_FILE", "ca.pem"),
    ("SWARMKEEPER_TLS_CLIENT_CA_FILE", "people.pem"),
];

/// The way to Consul; its address is none of the files.
const CONSUL: [(&str, &str); 4] = [
    ("SWARMKEEPER_CONSUL_CA_FILE", "ca.pem"),
    ("SWARMKEEPER_CONSUL_CERT_FILE", "cert.pem"),
    ("SWARMKEEPER_CONSUL_KEY_FILE", "key.pem"),
    ("SWARMKEEPER_CONSUL_TOKEN_FILE", "consul-token"),
];
const CONSUL_ADDRESS: &str = "SWARMKEEPER_CONSUL_ADDRESS";

/// Who is trusted, once certificates are asked for.
pub struct Trust {
    /// Consul's agents and ours.
    agents: Authority,
    /// People and scripts.
    people: Authority,
    /// True while our agents' API speaks TLS.
    is_on: AtomicBool,
}

impl Trust {
    pub async fn new(dir: &Path) -> Result<Self> {
        let (agents, people) =
            tokio::try_join!(Authority::new(dir.join("agents-ca")), Authority::new(dir.join("people-ca")))?;
        Ok(Self { agents, people, is_on: AtomicBool::new(false) })
    }

    /// By which our agents' certificates are trusted.
    pub fn ca(&self) -> PathBuf {
        self.agents.ca()
    }

    pub fn scheme(&self) -> &'static str {
        if self.is_on.load(Ordering::Relaxed) { "https" } else { "http" }
    }

    fn turn(&self, on: bool) {
        self.is_on.store(on, Ordering::Relaxed);
    }

    /// A client that trusts our agents.
    pub fn client(&self) -> Result<reqwest::ClientBuilder> {
        let ca = Certificate::from_pem(&std::fs::read(self.ca())?)?;
        Ok(Client::builder().no_proxy().tls_certs_only([ca]).timeout(seconds(10)))
    }
}

impl World {
    /// Secures Consul, the agents' way to it, and their API.
    pub async fn secure_everything(&self) -> Result<()> {
        self.secure_consul().await?;
        for node in 1..=4 {
            self.certify_agent(node).await?;
            // As it is printed.
            self.consul_acl("policy", self.policy_of_agent(node).await?).await?;
            self.new_token_of_agent(node).await?;
        }
        let address = format!("{CONSUL_ADDRESS}=https://127.0.0.1:{CONSUL_PORT}");
        let settings = settings(API.iter().chain(&CONSUL));
        self.agents_get(settings.into_iter().chain([address]).collect()).await
    }

    /// Secures nothing but the agents' API.
    pub async fn secure_api(&self) -> Result<()> {
        for node in 1..=4 {
            self.certify_agent(node).await?;
        }
        self.agents_get(settings(&API)).await
    }

    /// Takes it all back.
    pub async fn open_everything(&self) -> Result<()> {
        let names = API.iter().chain(&CONSUL).map(|(name, _)| *name).chain([CONSUL_ADDRESS]);
        let mut words = vec!["--mount-rm", FOLDER[2]];
        words.extend(names.flat_map(|name| ["--env-rm", name]));
        // While the leader can still sign off.
        self.all_agents_change(&words).await?;
        self.trust.turn(false);
        self.lab.secure_consul(|_| None).await?;
        for service in ["swarmkeeper_keeper", "swarmkeeper_agent"] {
            self.docker(&["service", "update", "--quiet", "--detach", "--update-parallelism", "1", service]).await?;
        }
        self.agents_run(seconds(60)).await?;
        // Its own word: servers of Consul that all start again answer for a moment from a past that they are reading from their log, and
        // refuse the lock for its delay after that.
        self.eventually("a leader syncs", seconds(60), async || self.keeper_ok(&["sync"]).await.map(drop)).await
    }

    async fn agents_get(&self, settings: Vec<String>) -> Result<()> {
        let mount = format!("type=bind,source={},target={},readonly", FOLDER[1], FOLDER[2]);
        let mut words = vec!["--mount-add", &mount];
        words.extend(settings.iter().flat_map(|setting| ["--env-add", setting.as_str()]));
        self.all_agents_change(&words).await?;
        self.trust.turn(true);
        self.agents_run(seconds(60)).await
    }

    /// All at once: those of one kind do not speak to the others.
    async fn all_agents_change(&self, words: &[&str]) -> Result<()> {
        let change = async |service| {
            let fixed = ["service", "update", "--quiet", "--update-parallelism", "0"];
            self.docker(&[&fixed, words, &[service]].concat()).await?;
            let update = self.inspect(service).await?["UpdateStatus"].clone();
            ensure!(update["State"] == "completed", "{service}: {update}");
            Ok(())
        };
        tokio::try_join!(change("swarmkeeper_keeper"), change("swarmkeeper_agent")).map(drop)
    }

    /// Gives the agent on `node` another token and another certificate while it runs, and takes the old token away.
    pub async fn secrets_change(&self, node: usize) -> Result<()> {
        let new = self.new_token_of_agent(node).await?;
        self.certify_agent(node).await?;
        self.eventually("the new secrets are in use", seconds(30), async || {
            let log = self.agent_log(node).await?;
            for words in ["consul's new token or certificate is in use", "the API's new certificate is in use"] {
                ensure!(log.contains(words), "{log}");
            }
            Ok(())
        })
        .await?;
        let policy = self.policy_of_agent(node).await?["Name"].clone();
        let tokens = self.node(1).consul_get("/v1/acl/tokens").await?;
        for token in tokens.as_array().into_iter().flatten() {
            if token["Policies"][0]["Name"] == policy && token["AccessorID"] != new {
                let path = format!("/v1/acl/token/{}", token["AccessorID"].as_str().unwrap_or_default());
                self.node(1).consul_delete(&path).await?;
            }
        }
        self.agents_run(seconds(20)).await
    }

    /// Who shows nothing is told that an agent is well, and nothing else; who shows a person's certificate is told all.
    pub async fn doors_are_closed(&self, node: usize) -> Result<()> {
        let stranger = self.trust.client()?.build()?;
        let status = async |client: &Client, path| {
            let answer = client.get(self.api(node, path)).send().await?;
            anyhow::Ok(answer.status().as_u16())
        };
        for (path, expected) in [("/healthz", 200), ("/metrics", 200), ("/v1/status", 401)] {
            let found = status(&stranger, path).await?;
            ensure!(found == expected, "{path} answers a stranger with {found}");
        }
        let found = status(&self.client_of(&self.trust.people).await?, "/v1/status").await?;
        ensure!(found == 200, "a person's certificate is answered with {found}");

        let address = self.node(node).address();
        let lock = format!("https://{address}:{CONSUL_PORT}/v1/kv/swarmkeeper/v1/lab/leader");
        let found = self.client_of(&self.trust.agents).await?.get(lock).send().await?.status();
        ensure!(found == 403, "Consul answers a certificate without a token with {found}");
        for closed in [
            self.api(node, "/healthz").replace("https://", "http://"),
            format!("http://{address}:8500/v1/status/leader"),
            format!("https://{address}:{CONSUL_PORT}/v1/status/leader"),
        ] {
            ensure!(
                !stranger.get(&closed).send().await.is_ok_and(|answer| answer.status().is_success()),
                "{closed} is open"
            );
        }
        Ok(())
    }

    /// A client that shows a certificate of `authority`.
    async fn client_of(&self, authority: &Authority) -> Result<Client> {
        let Identity { cert, key } = authority.issue(Holder::Client, HOST).await?;
        let identity = reqwest::Identity::from_pem(format!("{cert}{key}").as_bytes())?;
        Ok(self.trust.client()?.identity(identity).build()?)
    }

    /// No agent complains of what Consul or another agent refuses it.
    pub async fn nobody_was_denied(&self) -> Result<()> {
        for node in 1..=4 {
            let log = self.agent_log(node).await?;
            for words in ["lacks a right", "Permission denied", "ACL not found", "could not be woken"] {
                ensure!(!log.contains(words), "node {node} says {words:?}: {log}");
            }
        }
        Ok(())
    }

    /// A certificate for our agent on `node`, for its API and for Consul.
    async fn certify_agent(&self, number: usize) -> Result<()> {
        let node = self.node(number);
        let identity = self.trust.agents.issue(Holder::Client, node.address()).await?;
        self.write_secret(number, "cert.pem", identity.cert)?;
        self.write_secret(number, "key.pem", identity.key)?;
        self.write_secret(number, "ca.pem", std::fs::read_to_string(self.trust.ca())?)?;
        self.write_secret(number, "people.pem", std::fs::read_to_string(self.trust.people.ca())?)
    }

    /// For root only, and in place of an older one at once.
    fn write_secret(&self, node: usize, name: &str, content: String) -> Result<()> {
        let folder = self.node(node).dir().join(FOLDER[0]);
        std::fs::create_dir_all(&folder)?;
        let new = folder.join("new");
        std::fs::write(&new, content)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        Ok(std::fs::rename(&new, folder.join(name))?)
    }

    async fn secure_consul(&self) -> Result<()> {
        let mut configs = Vec::new();
        for node in self.lab.nodes() {
            configs.push(self.consul_config(node).await?);
        }
        let secured = |config: &String| Secured { config: config.clone(), token: MANAGEMENT_TOKEN.to_owned() };
        self.lab.secure_consul(|node| configs.get(usize::from(node.number()) - 1).map(secured)).await?;
        self.eventually("Consul takes policies", seconds(40), async || {
            // What `consul/*.hcl` say of tokens.
            let everybody = r#"service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }"#;
            self.consul_acl("policy", json!({"Name": "everybody", "Rules": everybody})).await
        })
        .await?;
        self.consul_acl(&format!("token/{ANONYMOUS}"), json!({"Policies": [{"Name": "everybody"}]})).await?;
        for node in self.lab.nodes() {
            let policy = format!("consul-{}", node.name());
            let rules =
                format!(r#"node "{}" {{ policy = "write" }} service_prefix "" {{ policy = "read" }}"#, node.name());
            self.consul_acl("policy", json!({"Name": policy, "Rules": rules})).await?;
            let token = self.consul_acl("token", json!({"Policies": [{"Name": policy}]})).await?;
            let token = json!({"Token": token["SecretID"]}).to_string();
            self.eventually("Consul's agent takes its token", seconds(40), async || {
                node.consul_put("/v1/agent/token/agent", token.clone()).await
            })
            .await?;
        }
        Ok(())
    }

    /// The security part of the node's file in `consul/`, filled in.
    async fn consul_config(&self, node: &swarmkeeper_lab::Node) -> Result<String> {
        let (file, holder, word) = if node.is_manager() {
            ("server.hcl", Holder::Server, "server")
        } else {
            ("client.hcl", Holder::Client, "client")
        };
        let folder = node.dir().join("consul-tls");
        std::fs::create_dir_all(&folder)?;
        let identity = self.trust.agents.issue(holder, node.address()).await?;
        std::fs::write(folder.join(format!("dc1-{word}-consul-0.pem")), identity.cert)?;
        std::fs::write(folder.join(format!("dc1-{word}-consul-0-key.pem")), identity.key)?;
        std::fs::copy(self.trust.ca(), folder.join("consul-agent-ca.pem"))?;
        let mut config = security_part(file)?;
        let management = format!("\"deny\"\n  tokens {{ master = {MANAGEMENT_TOKEN:?} }}");
        for (shown, meant) in [
            // Not kept on disk: the next start may be without it.
            (r#"encrypt                 = "…""#, format!("encrypt = {GOSSIP_KEY:?}\ndisable_keyring_file = true")),
            (r#"group = "…""#, r#"group = "0""#.to_owned()),
            ("/etc/consul.d", folder.display().to_string()),
            // Off would be the socket, too.
            ("http = -1", "http = 8500".to_owned()),
            (r#""deny""#, management),
        ] {
            ensure!(config.contains(shown), "consul/{file} has no {shown}");
            config = config.replace(shown, &meant);
        }
        ensure!(config.contains(Secured::SOCKET), "consul/{file} has no socket");
        Ok(config)
    }

    async fn consul_acl(&self, path: &str, body: Value) -> Result<Value> {
        let answer = self.node(1).consul_put(&format!("/v1/acl/{path}"), body.to_string()).await?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// The policy that our command line prints for the agent on `node`.
    async fn policy_of_agent(&self, node: usize) -> Result<Value> {
        let role = if self.node(node).is_manager() { "keeper" } else { "agent" };
        let name = self.node_name(node);
        let words = ["consul", "policies", "--node", &name, "--role", role, "--output", "json"];
        let said = self.keeper_inside(node, &words).await?;
        ensure!(said.code == 0, "{said:?}");
        serde_json::from_str::<Vec<Value>>(&said.out)?.pop().context("a policy")
    }

    /// Puts a new token of that policy where the agent on `node` looks; gives its accessor.
    async fn new_token_of_agent(&self, node: usize) -> Result<String> {
        let policy = self.policy_of_agent(node).await?;
        let token = self.consul_acl("token", json!({"Policies": [{"Name": policy["Name"]}]})).await?;
        let [secret, accessor] = ["SecretID", "AccessorID"].map(|key| token[key].as_str().map(ToOwned::to_owned));
        self.write_secret(node, "consul-token", secret.context("a token")?)?;
        accessor.context("its accessor")
    }
}

/// The settings that a file of `consul/` shows commented out.
fn security_part(file: &str) -> Result<String> {
    let text = std::fs::read_to_string(checkout().join("consul").join(file))?;
    let (_, security) = text.split_once("--- Security").with_context(|| format!("consul/{file} says nothing of it"))?;
    let is_name = |word: &str| word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
    let is_setting = |line: &&str| {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("}"), None) => true,
            (Some(name), Some("=" | "{")) => is_name(name),
            _ => false,
        }
    };
    Ok(security.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_setting).collect::<Vec<_>>().join("\n"))
}

fn settings<'a>(files: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Vec<String> {
    files.into_iter().map(|(name, file)| format!("{name}={}/{file}", FOLDER[2])).collect()
}
