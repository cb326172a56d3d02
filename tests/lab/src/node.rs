//! A node: what a test sees of it, and what it does to it.

use crate::command::{output, run};
use crate::http::send;
use crate::layout::{CONSUL_PORT, CONSUL_REAL_PORT, DNS_PORT, Layout, NodeSpec, Role};
use crate::machine::Machine;
use crate::{consul, engine, install, net};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response};
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// A node of the lab. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Node {
    pub(crate) spec: NodeSpec,
    pub(crate) machine: Machine,
    pub(crate) layout: Layout,
}

impl Node {
    pub(crate) fn new(layout: &Layout, spec: NodeSpec) -> Self {
        let machine =
            Machine { name: spec.name, dir: layout.node(&spec), netns: Some(spec.netns), layout: layout.clone() };
        Self { spec, machine, layout: layout.clone() }
    }

    /// The host name, which is also the name in the swarm and in Consul: `m1`, `m2`, `m3`, `w1`.
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    /// 1 to 4.
    pub fn number(&self) -> u8 {
        self.spec.number
    }

    /// Whether it is a manager.
    pub fn is_manager(&self) -> bool {
        self.spec.role == Role::Manager
    }

    /// `10.77.0.<number>`.
    pub fn address(&self) -> Ipv4Addr {
        self.spec.address()
    }

    /// The network namespace's name, for `ip netns exec`.
    pub fn netns(&self) -> &'static str {
        self.spec.netns
    }

    /// The node's folder: logs, data, `run`.
    pub fn dir(&self) -> PathBuf {
        self.layout.node(&self.spec)
    }

    /// The recorded socket: on the node it is `/var/run/docker.sock`.
    pub fn docker_socket(&self) -> PathBuf {
        self.machine.run_dir().join("docker.sock")
    }

    /// The engine's own socket, which nobody records.
    pub fn engine_socket(&self) -> PathBuf {
        engine::socket(&self.machine)
    }

    /// The recorded Consul, as seen from other machines. On the node it is also `127.0.0.1:8500`.
    pub fn consul_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address()), CONSUL_PORT)
    }

    /// Consul itself, which nobody records. Out of reach while the cable is pulled; [`Node::consul`] is not.
    pub fn consul_real_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address()), CONSUL_REAL_PORT)
    }

    /// Consul's DNS.
    pub fn dns_address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address()), DNS_PORT)
    }

    /// Runs the docker client on the engine's own socket, with the origin's credentials. Returns what it prints.
    pub async fn docker<I, S>(&self, args: I) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        output(self.docker_command(args), None).await
    }

    /// As [`Node::docker`], with something on standard input: `docker stack deploy -c - web`.
    pub async fn docker_with_input<I, S>(&self, args: I, input: &str) -> Result<String>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        output(self.docker_command(args), Some(input.as_bytes())).await
    }

    /// The docker client on the engine's own socket, to be run by the caller.
    pub fn docker_command<I, S>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.docker_on(&self.engine_socket(), args)
    }

    /// The docker client on the recorded socket, as an agent or an operator would use it.
    pub fn recorded_docker_command<I, S>(&self, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.docker_on(&self.docker_socket(), args)
    }

    fn docker_on<I, S>(&self, socket: &Path, args: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        // What is missing is said when the lab comes up, not here.
        let mut command = Command::new(install::docker_cli().unwrap_or_else(|_| "docker".into()));
        command
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .args(args)
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_CONFIG", self.layout.docker_config());
        command
    }

    /// A request to the node's Consul, unrecorded, from within the node, with the right to do everything.
    pub async fn consul(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        if let Some(token) = consul::token(&self.machine) {
            request.headers_mut().insert("x-consul-token", token.parse()?);
        }
        send(&consul::via(&self.machine, &self.spec), request).await
    }

    /// `GET <path>` of the node's Consul, as JSON; an error unless it answers 200.
    pub async fn consul_get(&self, path: &str) -> Result<serde_json::Value> {
        let answer = self.consul(Request::get(path).body(Full::default())?).await?;
        if !answer.status().is_success() {
            bail!("Consul of {}: GET {path}: {}", self.name(), answer.status());
        }
        serde_json::from_slice(answer.body()).with_context(|| format!("Consul of {}: GET {path}: no JSON", self.name()))
    }

    /// `PUT <path>` of the node's Consul. Returns the answer's text; an error unless it is 200.
    pub async fn consul_put(&self, path: &str, body: impl Into<Bytes>) -> Result<String> {
        self.consul_write(Request::put(path).body(Full::new(body.into()))?).await
    }

    /// `DELETE <path>` of the node's Consul; an error unless the answer is 200.
    pub async fn consul_delete(&self, path: &str) -> Result<()> {
        self.consul_write(Request::delete(path).body(Full::default())?).await.map(drop)
    }

    async fn consul_write(&self, request: Request<Full<Bytes>>) -> Result<String> {
        let what = format!("{} {}", request.method(), request.uri());
        let answer = self.consul(request).await?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        if !answer.status().is_success() {
            bail!("Consul of {}: {what}: {}: {text}", self.name(), answer.status());
        }
        Ok(text)
    }

    /// A request to `127.0.0.1:<port>` within the node: reaches ports published in host mode, and the recorded Consul, also while the
    /// cable is pulled.
    pub async fn http(&self, port: u16, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        let via = crate::http::Via::Netns(self.spec.netns, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
        send(&via, request).await
    }

    /// `GET <path>` with [`Node::http`].
    pub async fn http_get(&self, port: u16, path: &str) -> Result<Response<Bytes>> {
        self.http(port, Request::get(path).body(Full::default())?).await
    }

    /// Runs a command on the node (its network, host name, `/run` and processes) to its end. Returns what it prints.
    pub async fn exec(&self, words: &[&str]) -> Result<String> {
        self.machine.run(words).await
    }

    /// A command that runs on the node, as a process of it that sees `/var/run/docker.sock` and `127.0.0.1:8500`. It gets no other
    /// environment than what the caller sets, and is killed with the command's own process.
    pub fn command(&self, program: &str) -> Result<Command> {
        self.machine.command(program)
    }

    /// Starts a daemon on the node; `log` names its log file and is its name for [`Node::signal`].
    pub async fn spawn(&self, log: &str, words: &[&str]) -> Result<()> {
        self.machine.start(log, words).await
    }

    /// Sends a signal (`TERM`, `KILL`, `STOP`, `CONT`, …) to a daemon that [`Node::spawn`] started.
    pub async fn signal(&self, log: &str, signal: &str) -> Result<()> {
        self.machine.signal(log, signal).await
    }

    /// Whether a daemon that [`Node::spawn`] started still runs.
    pub async fn is_running(&self, log: &str) -> bool {
        self.machine.is_running(log).await
    }

    /// Runs a command in the node's network only, in the caller's file system: works while the node is dead.
    pub async fn exec_in_netns(&self, words: &[&str]) -> Result<String> {
        let netns = format!("--net=/run/netns/{}", self.spec.netns);
        run("nsenter", [netns.as_str()].into_iter().chain(words.iter().copied())).await
    }

    /// SIGKILL to the engine and its containerd. Containers go on until the engine starts again.
    pub async fn kill_engine(&self) -> Result<()> {
        engine::kill(&self.machine).await
    }

    /// Ends the engine in order.
    pub async fn stop_engine(&self) -> Result<()> {
        engine::stop(&self.machine).await
    }

    /// Starts the engine, and waits until it answers.
    pub async fn start_engine(&self) -> Result<()> {
        engine::start(&self.machine).await
    }

    /// [`Node::stop_engine`], [`Node::start_engine`].
    pub async fn restart_engine(&self) -> Result<()> {
        self.stop_engine().await?;
        self.start_engine().await
    }

    /// Freezes the engine: it accepts connections and never answers.
    pub async fn pause_engine(&self) -> Result<()> {
        engine::signal(&self.machine, "STOP").await
    }

    /// Thaws the engine.
    pub async fn resume_engine(&self) -> Result<()> {
        engine::signal(&self.machine, "CONT").await
    }

    /// SIGKILL to the Consul agent.
    pub async fn kill_consul(&self) -> Result<()> {
        consul::kill(&self.machine).await
    }

    /// Ends the Consul agent in order; the worker's leaves the cluster.
    pub async fn stop_consul(&self) -> Result<()> {
        consul::stop(&self.machine).await
    }

    /// Starts the Consul agent, and waits until it knows a leader.
    pub async fn start_consul(&self) -> Result<()> {
        self.launch_consul().await?;
        consul::wait_for_leader(&self.machine, &self.spec).await
    }

    /// [`Node::stop_consul`], [`Node::start_consul`].
    pub async fn restart_consul(&self) -> Result<()> {
        self.stop_consul().await?;
        self.start_consul().await
    }

    /// Freezes the Consul agent.
    pub async fn pause_consul(&self) -> Result<()> {
        consul::signal(&self.machine, "STOP").await
    }

    /// Thaws the Consul agent.
    pub async fn resume_consul(&self) -> Result<()> {
        consul::signal(&self.machine, "CONT").await
    }

    /// The node dies as with its power: engine, containers, Consul, all at once; and nothing answers at its address.
    pub async fn kill(&self) -> Result<()> {
        net::partition(&self.spec).await?;
        self.machine.kill().await
    }

    /// Switches a dead node on again, with its cable plugged in: engine and Consul find the disks as they were.
    pub async fn revive(&self) -> Result<()> {
        net::heal(&self.spec).await?;
        self.machine.boot().await?;
        self.launch_consul().await?;
        self.start_engine().await
    }

    /// Whether the node is on.
    pub fn is_alive(&self) -> bool {
        self.machine.first_process().is_ok()
    }

    /// IDs of the running containers whose name contains `filter`: `web.1` for a task of a service `web`.
    pub async fn containers(&self, filter: &str) -> Result<Vec<String>> {
        let filter = format!("name={filter}");
        let ids = self.docker(["ps", "--quiet", "--no-trunc", "--filter", &filter]).await?;
        Ok(ids.lines().map(ToOwned::to_owned).collect())
    }

    /// SIGKILL to the main process of every container whose name contains `filter`, behind the engine's back. At least one must run.
    pub async fn kill_container(&self, filter: &str) -> Result<()> {
        self.signal_container(filter, "KILL").await
    }

    /// Freezes the main process of every such container: the engine does not know.
    pub async fn pause_container(&self, filter: &str) -> Result<()> {
        self.signal_container(filter, "STOP").await
    }

    /// Thaws them.
    pub async fn resume_container(&self, filter: &str) -> Result<()> {
        self.signal_container(filter, "CONT").await
    }

    async fn signal_container(&self, filter: &str, signal: &str) -> Result<()> {
        let containers = self.containers(filter).await?;
        if containers.is_empty() {
            bail!("no container of {} has a name with {filter}", self.name());
        }
        for container in containers {
            let pid = self.docker(["inspect", "--format", "{{.State.Pid}}", &container]).await?;
            self.machine.signal_pid(engine::container_pid(&pid)?, signal).await?;
        }
        Ok(())
    }

    pub(crate) async fn launch_consul(&self) -> Result<()> {
        consul::start(&self.machine, &self.spec, &install::consul_binary()?).await
    }

    /// Pulls the node's cable.
    pub async fn partition(&self) -> Result<()> {
        net::partition(&self.spec).await
    }

    /// Plugs the cable in again.
    pub async fn heal(&self) -> Result<()> {
        net::heal(&self.spec).await
    }

    /// Slows the cable down.
    pub async fn slow(&self, slow: net::Slow) -> Result<()> {
        net::slow(&self.spec, slow).await
    }

    /// Full speed again.
    pub async fn clear_slow(&self) -> Result<()> {
        net::clear(&self.spec).await
    }
}
