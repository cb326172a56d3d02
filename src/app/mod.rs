//! The composition root of `agent`: builds the parts, spawns the loops, drains them.
//!
//! ```text
//!  every node   registration ── Consul          http ── Agent ──┬── status, commands
//!                                                               │
//!  managers     candidate ──► Leadership, Gate ───► keeper ◄────┤
//!               git ──────────► GitView ───────────► │          │
//!               wakes (KV) ◄── followers' webhooks   └► Consul KV, notify, metrics
//! ```
//!
//! Without Consul the lock is in the swarm, followers' webhooks reach the leader through its API, and the status is there only.
//!
//! # Shutdown
//!
//! In order, each within its bound: the leader's loop finishes the step at hand; the candidate signs off, so that the next leader
//! begins at once; the API answers its last request; everything else ends, and a webhook that was accepted has been passed on. Nothing
//! that still runs is deregistered.

mod agent;
mod commit;
mod git;
mod keeper;
mod leaving;
pub mod policies;
pub mod registering;
mod relay;
mod secrets;
mod settings;
mod stages;
pub mod start;
mod token;
mod waiters;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use backon::{ConstantBuilder, Retryable as _};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::{Config, Coordination as Coordinated, Election};
use crate::http::tls::{Files, Tls};
use crate::http::{self, Api};
use crate::io::consul::Consul;
use crate::io::docker::Docker;
use crate::io::git::GitRepo;
use crate::io::swarm::Swarm;
use crate::leader::swarm::mandate::{self, Mandate};
use crate::leader::swarm::slip::Kind;
use crate::leader::{self, ByConsul, BySwarm, Coordination, Fence, Leadership, Profile};
use crate::notify::Notifier;
use crate::registration::{self, SelfState};
use crate::stacks::apply;
use crate::telemetry;

pub use commit::stack_at;
pub use settings::{credentials, policy, render_options};
pub use start::git_options;

use agent::{Agent, Manager};
use git::{Fetching, GitView};
use keeper::Keeper;
use relay::{Relay, Road};
use stages::{Loops, Stages};
use start::Place;
use waiters::Waiters;

/// How often, and how many times, a port is tried again that another process has: longer than an agent takes to end.
const LISTEN_RETRY: Duration = Duration::from_millis(500);
/// See [`LISTEN_RETRY`].
const LISTEN_RETRIES_MAX: usize = 20;

/// Runs the agent until SIGTERM or SIGINT. An error, or an essential loop that ends by itself, ends the process: swarm starts another.
pub async fn run(config: Config) -> Result<()> {
    let metrics = telemetry::install().context("metrics")?;
    let shutdown = CancellationToken::new();
    let mut loops = Loops::default();
    loops.spawn("signals", wait_for_signal(shutdown.clone()));

    let docker = Docker::connect(Some(&config.docker_host)).context("docker_host")?;
    let Some(place) = start::place(&docker, &config, &shutdown).await else { return Ok(()) };
    let consul = Consul::new(config.consul.clone()).context("consul")?;
    let tls = tls(&config).context("tls")?.map(Arc::new);
    let listeners = listen(&config, place.address).await?;
    let port = listeners.first().and_then(|listener| listener.local_addr().ok()).map_or(0, |address| address.port());
    let (self_state, seen_by_consul) = watch::channel(place.self_state());

    let stages = Stages::default();
    let lead = if place.manager {
        let Some((swarm, swarm_cluster_id)) = start::swarm(&config, &shutdown).await else { return Ok(()) };
        let options = candidate(&config, &place, port, swarm_cluster_id);
        let settled = start::coordination(&config, &swarm, &consul, &options, &shutdown).await;
        let Some(kind) = settled else { return Ok(()) };
        Some(Lead { swarm, options, kind })
    } else {
        None
    };
    let lock = lead.as_ref().map(|lead| lead.kind);
    let consul = start::uses_consul(&config, lock).then_some(consul);
    let swarm = lead.as_ref().map(|lead| lead.swarm.clone());
    let manager = match lead {
        Some(lead) => Some(stand(&config, &place, consul.as_ref(), lead, &self_state, &stages, &mut loops)?),
        None => None,
    };
    let agent = Arc::new(Agent::new(&config, &place, consul.clone(), seen_by_consul.clone(), manager));

    match &consul {
        Some(consul) if config.registration.enable => {
            let options = registering::options(&config, &place, port)?;
            let docker = docker.keeping_label(config.registration.ip_from_label.as_deref());
            let work = registration::run(options, docker, consul.clone(), seen_by_consul, stages.register.clone());
            loops.spawn("registration", work);
        }
        Some(_) => {}
        None => info!("registration, DNS and prefetch need Consul, and none is configured; all else works without"),
    }
    let token = consul.clone().map(|consul| secrets::Watch::new(consul, &config, &place, lock));
    loops.spawn("secrets", secrets::run(token, tls.clone(), stages.rest.clone()));
    let api = Api {
        keeper: Arc::clone(&agent) as _,
        metrics,
        api_token: config.api_token.clone(),
        cluster_token: agent.cluster_token(),
        webhook_secret: config.webhook_secret.clone(),
        branch: config.git.as_ref().map(|git| git.branch.clone()).unwrap_or_default(),
        health_is_open: config.health_is_open,
        tls,
    };
    loops.spawn("http", http::serve(listeners, api, stages.serve.clone()));
    info!(node = %place.node, address = %place.address, manager = place.manager, cluster = config.cluster, "agent started");

    let started = OffsetDateTime::now_utc();
    // Cancel-safe: the loops go on in their tasks, and looking at a key holds nothing.
    let ended = tokio::select! {
        ended = loops.watch(&shutdown) => ended,
        left = leaving::told(consul.as_ref(), swarm.as_ref(), &config.cluster, started, &shutdown) => {
            if left {
                leave(&config, &place, consul.as_ref(), swarm.as_ref(), &stages, &mut loops, &shutdown).await;
            }
            Ok(())
        }
    };
    stages.drain(&config, &mut loops).await;
    ended
}

/// What only managers have.
struct Lead {
    /// The swarm, without a gate.
    swarm: Swarm,
    /// Who we are for the others.
    options: leader::Options,
    /// Where the lock is.
    kind: Kind,
}

/// Takes this node's registrations away and waits, idle, for its end.
async fn leave(
    config: &Config,
    place: &Place,
    consul: Option<&Consul>,
    swarm: Option<&Swarm>,
    stages: &Stages,
    loops: &mut Loops,
    shutdown: &CancellationToken,
) {
    warn!("told to leave: this agent registers and deploys nothing any more");
    stages.stop_working(config, loops).await;
    if let Some(consul) = consul {
        match registration::remove_own(consul, &place.engine_id).await {
            Ok(services) => info!(services, "registrations taken away; what runs goes on running"),
            Err(error) => error!(%error, "registrations stay in consul"),
        }
    }
    // Nobody can take over any more; managers clean up when all have heard of it.
    let all_have_looked = shutdown.run_until_cancelled(tokio::time::sleep(leaving::ALL_HAVE_LOOKED)).await.is_some();
    stages.sign_off(config, loops).await;
    if let Some(swarm) = swarm.filter(|_| all_have_looked) {
        if let Some(consul) = consul {
            match consul.kv_delete_all(leader::Keys::new(&config.cluster).root()).await {
                Ok(()) => info!("our keys in consul are gone"),
                Err(error) => error!(%error, "our keys stay in consul"),
            }
        }
        // Again: between the order and its own look, somebody may have led on and saved a state.
        if let Err(error) = apply::leave(swarm).await {
            error!(%error, "configs of ours stay in the swarm");
        }
        if let Err(error) = mandate::forget(swarm).await {
            error!(%error, "our note in the swarm stays");
        }
    }
    shutdown.cancelled().await;
}

/// Who we are for the other candidates.
fn candidate(config: &Config, place: &Place, port: u16, swarm_cluster_id: String) -> leader::Options {
    let advertised = config.advertise.map_or(SocketAddr::new(place.address, port), |advertise| {
        SocketAddr::new(advertise.ip, advertise.port.unwrap_or(port))
    });
    leader::Options {
        cluster: config.cluster.clone(),
        node: place.node.clone(),
        address: format!("{}://{advertised}", if config.tls.certificate.is_some() { "https" } else { "http" }),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        profile: match config.election {
            Election::Default => Profile::DEFAULT,
            Election::Fast => Profile::FAST,
            Election::Slow => Profile::SLOW,
        },
        swarm_cluster_id,
    }
}

/// What only managers run; gives what the API needs of it.
fn stand(
    config: &Config,
    place: &Place,
    consul: Option<&Consul>,
    Lead { swarm, options, kind }: Lead,
    self_state: &watch::Sender<SelfState>,
    stages: &Stages,
    loops: &mut Loops,
) -> Result<Manager> {
    let git_settings = config.require_git()?;
    let repo = Arc::new(GitRepo::open(start::git_options(config, git_settings)).context("git")?);
    let (notifier, deliveries) = Notifier::new(&config.notify).context("notify")?;

    let in_consul = consul.filter(|_| kind == Kind::Consul);
    let (lock, options): (Arc<dyn Coordination>, _) = if let Some(consul) = in_consul {
        (Arc::new(ByConsul::new(consul.clone(), options.clone())), options)
    } else {
        let options = leader::Options { profile: Profile::SWARM, ..options };
        (Arc::new(BySwarm::new(swarm.clone(), options.clone())), options)
    };
    let probe = start::probe(&swarm, Mandate::new(swarm.clone(), kind, options.clone()));
    let (candidate, leadership, gate) = leader::stand(Arc::clone(&lock), options, Arc::clone(&probe));
    loops.spawn("candidate", run_candidate(candidate, config.coordination, stages.lead.clone()));

    let (wakes, others) = mpsc::channel(1);
    let token = Arc::default();
    let road = match in_consul {
        Some(consul) => {
            let (consul, cluster, node) = (consul.clone(), config.cluster.clone(), place.node.clone());
            let (leadership, stop) = (leadership.clone(), stages.lead.clone());
            loops.spawn(
                "wakes",
                leader::wake::run(consul.clone(), cluster.clone(), node.clone(), leadership, wakes, stop),
            );
            Road::Consul { consul, cluster, node }
        }
        None => Road::Api { token: agent::cluster_token(&token), ca_file: config.tls.ca_file.clone() },
    };
    // Without webhooks there is nothing to deliver, and the loop would end at once.
    if !config.notify.is_empty() {
        loops.spawn("deliveries", deliveries.run(stages.rest.clone()));
    }

    let (view, git_view) = watch::channel(GitView::default());
    let git_waiters = Arc::new(Waiters::default());
    let fetching =
        Fetching { repo: Arc::clone(&repo), poll: config.poll_interval, waiters: Arc::clone(&git_waiters), view };
    loops.spawn("git", fetching.run(stages.work.clone()));

    let (wakes, ours) = mpsc::channel(1);
    let (keeper, manager) = Keeper::new(keeper::Parts {
        cluster: config.cluster.clone(),
        node: place.node.clone(),
        settings: settings::Settings::of(config),
        swarm: swarm.with_gate(Some(gate.gate())),
        repo,
        consul: consul.cloned(),
        fence: in_consul.map(|consul| Fence::new(gate.clone(), consul.clone(), &config.cluster)),
        gate,
        lock,
        coordination: kind,
        token,
        notifier,
        leadership: leadership.clone(),
        git: git_view.clone(),
        git_waiters,
        wakes,
        probe,
        self_state: self_state.clone(),
    });
    loops.spawn("keeper", keeper.run(stages.work.clone()));
    let relay = Relay {
        road,
        leadership: leadership.clone(),
        git: git_view,
        passes: Arc::clone(&manager.passes),
        fetches: Arc::clone(&manager.fetches),
        ours,
        others,
    };
    loops.spawn("relay", relay.run(stages.rest.clone()));
    loops.spawn("self", tell_leadership(leadership, self_state.clone(), stages.rest.clone()));
    Ok(manager)
}

/// Stands until `stop`. What bars a candidate for good ends the process where the next one would do better; elsewhere it idles.
async fn run_candidate(mut candidate: leader::Candidate, coordination: Coordinated, stop: CancellationToken) {
    let Err(error) = candidate.run(stop.clone()).await else { return };
    error!(%error, "not a candidate any more");
    let another_would_stand = match error {
        // Perhaps the other swarm is gone by then.
        leader::Error::OtherSwarm { .. } => true,
        leader::Error::Overruled { .. } => coordination == Coordinated::Auto,
        leader::Error::Left => false,
    };
    if !another_would_stand {
        stop.cancelled().await;
    }
}

/// Keeps the agent's own registration saying whether it leads.
async fn tell_leadership(
    mut leadership: watch::Receiver<Leadership>,
    state: watch::Sender<SelfState>,
    stop: CancellationToken,
) {
    loop {
        let leads = matches!(&*leadership.borrow_and_update(), Leadership::Leading { .. });
        if state.send_if_modified(|state| std::mem::replace(&mut state.leader, leads) != leads) {
            metrics::counter!(telemetry::LEADER_TRANSITIONS).increment(1);
        }
        metrics::gauge!(telemetry::LEADER).set(if leads { 1.0 } else { 0.0 });
        // Cancel-safe: a watch loses nothing.
        let changed = stop.run_until_cancelled(leadership.changed()).await;
        if !matches!(changed, Some(Ok(()))) {
            return;
        }
    }
}

/// What the API is secured with.
fn tls(config: &Config) -> Result<Option<Tls>, http::tls::Error> {
    let Some((cert, key)) = config.tls.certificate.clone() else { return Ok(None) };
    Tls::new(Files { cert, key, client_ca: config.tls.client_ca_file.clone() }).map(Some)
}

async fn listen(config: &Config, node: IpAddr) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for address in config.bind.iter().flat_map(|bind| bind.sockets(node)) {
        let listener = listen_at(address).await;
        listeners.push(listener.with_context(|| format!("cannot listen on {address}: set `bind` to a free port"))?);
    }
    Ok(listeners)
}

/// Swarm may start an agent on a node that has come back before the one there has ended.
async fn listen_at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let pauses = ConstantBuilder::new().with_delay(LISTEN_RETRY).with_max_times(LISTEN_RETRIES_MAX);
    let is_taken = |error: &std::io::Error| error.kind() == ErrorKind::AddrInUse;
    (|| TcpListener::bind(address)).retry(pauses).when(is_taken).await
}

async fn wait_for_signal(shutdown: CancellationToken) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        error!("signals cannot be received");
        return;
    };
    // Cancel-safe: nothing is lost when the other arm is taken.
    tokio::select! {
        _ = term.recv() => info!("SIGTERM: finishing the step at hand"),
        _ = int.recv() => info!("SIGINT: finishing the step at hand"),
    }
    shutdown.cancel();
}
