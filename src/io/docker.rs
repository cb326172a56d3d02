//! The node's engine over bollard: what it is, which containers run, and what happens to them.
//!
//! Only plain data leaves this module. A container's environment and labels hold other people's passwords, so everything but
//! `SERVICE_*` variables and the labels that we read (see [`LABEL_PREFIXES`]) is dropped here, at the boundary, and cannot reach a log.
//!
//! Each call opens its own connection (bollard pools none on a socket), is cut off by the timeout stated at its constant, and may run
//! beside others; the caller says how many. Nothing is retried here: [`Docker::events`] ends when the engine does, and
//! reconnecting is the caller's job. A missing socket is no error before the first call, so that an agent may start before its engine.

mod read;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bollard::errors::Error as Cause;
use bollard::query_parameters::{EventsOptions, InspectContainerOptions, ListContainersOptions};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

/// A directive that every log filter must end with: at `debug`, bollard prints whole answers, with every container's environment.
pub const LOG_DIRECTIVE: &str = "bollard=info";

/// Where the engine listens unless told otherwise.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Longest wait for `info` and for the list of containers.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for one container. Inspecting takes the container's lock, which a stuck storage or network driver may hold for ever.
pub const INSPECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Labels by these prefixes are kept, all others dropped.
pub const LABEL_PREFIXES: [&str; 4] = ["SERVICE_", "com.docker.stack.", "com.docker.swarm.", "swarmkeeper."];

/// Environment variables by this prefix are kept, all others dropped.
pub const ENV_PREFIX: &str = "SERVICE_";

/// The node's engine; cheap to clone.
#[derive(Debug, Clone)]
pub struct Docker {
    host: Host,
    client: Arc<OnceLock<bollard::Docker>>,
    /// A label kept beside those of [`LABEL_PREFIXES`].
    label: Option<Arc<str>>,
}

/// What the engine said or did not say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The address is no address.
    #[error("docker host {host:?}: {reason}")]
    Host {
        /// As configured.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer, or not in time.
    #[error("{operation}: no answer from docker: {reason}")]
    NoAnswer {
        /// What was asked of which container.
        operation: String,
        /// What happened instead.
        reason: String,
    },
    /// An answer that says no.
    #[error("{operation}: docker answered {status}: {words}")]
    Refused {
        /// What was asked of which container.
        operation: String,
        /// HTTP status.
        status: u16,
        /// The engine's words.
        words: String,
    },
    /// An answer that we cannot read.
    #[error("{operation}: docker's answer is not what its API promises: {reason}")]
    Answer {
        /// What was asked of which container.
        operation: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The engine and its place in a swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The engine's own ID; outlives swarms, but not the engine's data root.
    pub engine_id: String,
    /// The host's name.
    pub name: String,
    /// The engine's version, such as `20.10.24`.
    pub version: String,
    /// Where the engine keeps images and containers.
    pub data_root: String,
    /// The swarm, as this node sees it; none if it is in none.
    pub swarm: Option<Swarm>,
}

/// A node's place in its swarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swarm {
    /// This node's ID.
    pub node_id: String,
    /// The address by which the other nodes know it.
    pub address: Option<IpAddr>,
    /// How this node stands.
    pub state: SwarmState,
    /// True on managers that can answer for the swarm.
    pub manager: bool,
    /// The swarm's cluster ID; only managers know it.
    pub cluster_id: Option<String>,
}

/// `Swarm.LocalNodeState` of `docker info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwarmState {
    /// Joining.
    Pending,
    /// A member.
    Active,
    /// A member that cannot reach its swarm.
    Error,
    /// A manager whose keys wait to be unlocked.
    Locked,
}

/// A line of the list of running containers: enough to see whether what an inspection told may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The container's ID, in full.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// Whether it runs.
    pub state: State,
    /// The state of its HEALTHCHECK; none if it has none.
    pub health: Option<Health>,
    /// Host ports given to it.
    pub published: Vec<Published>,
    /// Its address in each network.
    pub networks: BTreeMap<String, Option<IpAddr>>,
}

/// A container, inspected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The container's ID, in full.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// The image as it was asked for, `name:tag@digest` for tasks of a swarm.
    pub image: String,
    /// Labels by [`LABEL_PREFIXES`], and the one that [`Docker::keeping_label`] names; never others.
    pub labels: BTreeMap<String, String>,
    /// Variables by [`ENV_PREFIX`]; never others.
    pub env: BTreeMap<String, String>,
    /// Whether it runs.
    pub state: State,
    /// The state of its HEALTHCHECK; none if it has none.
    pub health: Option<Health>,
    /// True if it shares the node's network, where every port it opens is the node's.
    pub host_network: bool,
    /// The ID of the container whose network it shares; none if it has its own.
    pub network_of: Option<String>,
    /// The signal that asks it to stop.
    pub stop_signal: u16,
    /// How it ended, if it did.
    pub exit_code: Option<i64>,
    /// Ports that the image or the container declares, in order.
    pub exposed: Vec<Port>,
    /// Ports published on the host, in order; a swarm's ingress ports are not among them.
    pub published: Vec<Published>,
    /// Its address in each network, by the network's name.
    pub networks: BTreeMap<String, Option<IpAddr>>,
}

/// Whether a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It does not run: not yet, not any more, or not before its next restart.
    Stopped,
}

/// State of a HEALTHCHECK.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// No verdict yet.
    Starting,
    /// Passed.
    Healthy,
    /// Failed as often as it may.
    Unhealthy,
}

/// A container's port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// Its number inside the container.
    pub number: u16,
    /// TCP unless stated.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port published on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Published {
    /// The container's port.
    pub port: Port,
    /// The one address it is bound to; none if to all of the host's.
    pub address: Option<IpAddr>,
    /// True if this binding serves IPv6 (an engine lists one binding for each family).
    pub v6: bool,
    /// The host's port.
    pub host_port: u16,
}

/// Something happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The container's ID, in full.
    pub container: String,
    /// What happened.
    pub action: Action,
}

/// What may happen to a container, as far as we ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Started.
    Start,
    /// Was sent a signal; `None` where the engine does not say which. Comes before [`Action::Die`].
    Kill(Option<u16>),
    /// Its process ended.
    Die,
    /// Removed.
    Destroy,
    /// Its HEALTHCHECK has a new verdict.
    Health,
    /// Frozen.
    Pause,
    /// Thawed.
    Unpause,
    /// Renamed.
    Rename,
    /// Connected to a network, or disconnected from one.
    Network,
}

impl Docker {
    /// The engine at `host`, in the form of `DOCKER_HOST` ([`DEFAULT_HOST`] if none); connects to nothing yet.
    pub fn connect(host: Option<&str>) -> Result<Self, Error> {
        Ok(Self { host: host.unwrap_or(DEFAULT_HOST).parse()?, client: Arc::default(), label: None })
    }

    /// The same client, which lets one more label of containers through.
    #[must_use]
    pub fn keeping_label(&self, name: Option<&str>) -> Self {
        Self { label: name.map(Arc::from), ..self.clone() }
    }

    /// What the engine is.
    pub async fn info(&self) -> Result<Info, Error> {
        let operation = "docker info";
        let client = self.client(operation)?;
        within(REQUEST_TIMEOUT, operation, client.info()).await.map(Info::from)
    }

    /// All containers that run, are paused or wait for a restart; complete, or an error.
    pub async fn running(&self) -> Result<Vec<Listed>, Error> {
        let operation = "docker container list";
        let client = self.client(operation)?;
        let options = ListContainersOptions { all: false, ..ListContainersOptions::default() };
        let list = within(REQUEST_TIMEOUT, operation, client.list_containers(Some(options))).await?;
        list.into_iter()
            .map(|summary| {
                let reason = "a container without ID".to_owned();
                read::listed(summary).ok_or_else(|| Error::Answer { operation: operation.to_owned(), reason })
            })
            .collect()
    }

    /// The container `id`; none if it is gone.
    pub async fn inspect(&self, id: &str) -> Result<Option<Container>, Error> {
        let operation = format!("docker inspect {}", short(id));
        let client = self.client(&operation)?;
        let inspected = client.inspect_container(id, None::<InspectContainerOptions>);
        match within(INSPECT_TIMEOUT, &operation, inspected).await {
            Ok(response) => Ok(Some(read::container(id, response, self.label.as_deref()))),
            Err(Error::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Events of containers from `since` on, until the engine ends the stream.
    ///
    /// A hint and no more: the engine replays at most 256 events of every kind, and drops some for a slow reader without a word. An
    /// event that we do not understand is left out, a broken stream is an error and then the end.
    pub fn events(&self, since: SystemTime) -> BoxStream<'static, Result<Event, Error>> {
        const OPERATION: &str = "docker events";
        let client = match self.client(OPERATION) {
            Ok(client) => client,
            Err(error) => return futures_util::stream::once(async { Err(error) }).boxed(),
        };
        let seconds = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let filters = [("type", &["container", "network"][..]), ("event", &EVENTS[..])];
        let filters =
            filters.map(|(name, values)| (name.to_owned(), values.iter().map(|&value| value.to_owned()).collect()));
        let options = EventsOptions { since: Some(seconds.to_string()), until: None, filters: Some(filters.into()) };
        client
            .events(Some(options))
            .filter_map(|message| async {
                match message {
                    Ok(message) => read::event(message).map(Ok),
                    Err(cause) => Some(Err(classify(OPERATION, cause))),
                }
            })
            .boxed()
    }

    fn client(&self, operation: &str) -> Result<bollard::Docker, Error> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        // bollard's own timeout ends the wait for an answer's head only; `within` bounds the whole.
        let seconds = REQUEST_TIMEOUT.as_secs();
        let client = match &self.host {
            Host::Socket(path) => bollard::Docker::connect_with_unix(path, seconds, bollard::API_DEFAULT_VERSION),
            Host::Tcp(address) => bollard::Docker::connect_with_http(address, seconds, bollard::API_DEFAULT_VERSION),
        };
        let client = client.map_err(|cause| classify(operation, cause))?;
        Ok(self.client.get_or_init(|| client).clone())
    }
}

/// The first twelve digits of an ID, as Docker shows it.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The names of the events that [`Action`] knows, as the engine's filter takes them.
const EVENTS: [&str; 10] =
    ["start", "kill", "die", "destroy", "health_status", "pause", "unpause", "rename", "connect", "disconnect"];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Socket(String),
    Tcp(String),
}

impl FromStr for Host {
    type Err = Error;

    fn from_str(host: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Error::Host { host: host.to_owned(), reason: reason.to_owned() };
        match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Socket(path.to_owned())),
            Some(("unix", _)) => Err(bad("the socket's path must be absolute, as in unix:///var/run/docker.sock")),
            Some(("tcp" | "http", address)) if !address.is_empty() => Ok(Self::Tcp(format!("tcp://{address}"))),
            Some(("https" | "ssh", _)) => {
                Err(bad("only unix:// and plain tcp:// are supported: use the node's own socket"))
            }
            _ => Err(bad("write unix:///path/to/docker.sock or tcp://host:port")),
        }
    }
}

async fn within<T>(
    limit: Duration,
    operation: &str,
    request: impl Future<Output = Result<T, Cause>>,
) -> Result<T, Error> {
    let Ok(answer) = tokio::time::timeout(limit, request).await else {
        let reason = format!("none within {} s", limit.as_secs());
        return Err(Error::NoAnswer { operation: operation.to_owned(), reason });
    };
    answer.map_err(|cause| classify(operation, cause))
}

fn classify(operation: &str, cause: Cause) -> Error {
    let operation = operation.to_owned();
    match cause {
        Cause::DockerResponseServerError { status_code, message } => {
            Error::Refused { operation, status: status_code, words: message }
        }
        // The decoder's own words may quote what it stumbled over, which may be somebody's password.
        Cause::JsonDataError { column, .. } => {
            Error::Answer { operation, reason: format!("JSON of another shape, at column {column}") }
        }
        Cause::JsonSerdeError { err } => {
            Error::Answer { operation, reason: format!("broken JSON, at column {}", err.column()) }
        }
        Cause::SocketNotFoundError(path) => Error::NoAnswer { operation, reason: format!("there is no socket {path}") },
        other => {
            // bollard and hyper say that something failed; what it was, the innermost cause says.
            let mut innermost: &dyn std::error::Error = &other;
            while let Some(cause) = innermost.source() {
                innermost = cause;
            }
            Error::NoAnswer { operation, reason: innermost.to_string() }
        }
    }
}

impl FromStr for Port {
    type Err = std::num::ParseIntError;

    /// `80/tcp`, `53/udp`, or `80`, which is TCP.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol {
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        Ok(Self { number: number.parse()?, protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_socket_or_a_plain_address_and_anything_else_says_what_would_do() {
        #[track_caller]
        fn check(host: Option<&str>, expect: Result<Host, &str>) {
            match (Docker::connect(host), expect) {
                (Ok(docker), Ok(host)) => assert_eq!(docker.host, host),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, _) => panic!("{got:?}"),
            }
        }
        check(None, Ok(Host::Socket("/var/run/docker.sock".to_owned())));
        check(Some("tcp://10.0.0.1:2375"), Ok(Host::Tcp("tcp://10.0.0.1:2375".to_owned())));
        check(Some("unix://docker.sock"), Err("must be absolute"));
        check(Some("ssh://root@host"), Err("only unix:// and plain tcp://"));
        check(Some("10.0.0.1"), Err("write unix:///"));
    }

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_an_error_of_the_call_and_not_of_the_start() {
        let docker = Docker::connect(Some("unix:///nowhere/docker.sock")).unwrap();
        let error = docker.running().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "docker container list: no answer from docker: there is no socket /nowhere/docker.sock"
        );
        assert!(docker.events(SystemTime::UNIX_EPOCH).next().await.unwrap().is_err());
    }
}
