//! The effects of an election: sends what `plan` wants, and reports what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock::boottime;
use super::plan::{Election, SESSION_TTL};
use super::record::{Record, SCHEMA};
use super::vocabulary::{Action, Event, Failure, Lock, Task};
use super::{Error, Fence, Grant, Keys, Leadership, Options, Probe, claim};
use crate::io::consul::check::Heartbeat;
use crate::io::consul::kv::Pair;
use crate::io::consul::session::NewSession;
use crate::io::consul::txn::{Op, Outcome};
use crate::io::consul::{self, Consul};

/// How long signing off may take; a stop signal leaves ten seconds in all.
pub const SIGN_OFF_MAX: Duration = Duration::from_secs(3);

/// How long the engine may take to list its services.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one blocking query on the lock waits.
const WATCH_WAIT: Duration = Duration::from_mins(1);

/// How long the agent keeps the check of a candidate that is gone; the shortest that Consul takes.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);

/// The service that candidates' checks belong to.
pub const SERVICE: &str = "swarmkeeper-leader";

/// Prepares a candidate: what to run, what to watch, and what to ask before a write.
pub fn stand(consul: Consul, options: Options, probe: Probe) -> (Candidate, watch::Receiver<Leadership>, Fence) {
    let (leadership, seen) = watch::channel(Leadership::Follower { leader: None });
    let (grant, granted) = watch::channel(None);
    let doubt = Arc::new(Notify::new());
    let keys = Keys::new(&options.cluster);
    let fence = Fence::new(consul.clone(), keys.lock(), granted, Arc::clone(&doubt));
    // With the cluster in it: two swarms on one Consul may have a node of the same name each.
    let id = format!("{SERVICE}:{}:{}", options.cluster, options.node);
    let sender = Sender { consul, options, keys, id, probe, registered_at: AtomicU64::new(0) };
    (Candidate { sender: Arc::new(sender), leadership, grant, doubt, trouble: BTreeSet::new() }, seen, fence)
}

/// One manager's part in the election.
pub struct Candidate {
    sender: Arc<Sender>,
    leadership: watch::Sender<Leadership>,
    grant: watch::Sender<Option<Grant>>,
    doubt: Arc<Notify>,
    /// The kinds of request that failed last time.
    trouble: BTreeSet<Task>,
}

impl Candidate {
    /// Stands, leads and follows until `shutdown`, then signs off within [`SIGN_OFF_MAX`].
    ///
    /// Cancel `shutdown` when the loops that write have ended: signing off tells the successor that nothing of ours is under way.
    /// Ends by itself only if another swarm has the cluster's name.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut election = Election::new(self.sender.options.profile);
        let mut under_way: FuturesUnordered<BoxFuture<'static, Result<Event, Failed>>> = FuturesUnordered::new();
        let mut stop_at: Option<Instant> = None;
        loop {
            let now = boottime();
            let plan = election.plan(now);
            under_way.extend(plan.actions.into_iter().map(|action| Arc::clone(&self.sender).send(action).boxed()));
            self.show(&election, now);
            if election.finished() {
                break;
            }
            let pause = plan.wake.map_or(Duration::MAX, |wake| wake.saturating_sub(now));
            // Every arm is cancel-safe: what is under way stays in its queue, and the others hold nothing.
            let event = tokio::select! {
                () = shutdown.cancelled(), if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + SIGN_OFF_MAX);
                    Some(Event::SignOff)
                }
                () = sleep_until(stop_at.unwrap_or_else(Instant::now)), if stop_at.is_some() => {
                    warn!(limit = ?SIGN_OFF_MAX, "not signed off in time; the lock is released when its check expires");
                    break;
                }
                Some(result) = under_way.next() => Some(self.report(result)),
                () = self.doubt.notified() => Some(Event::Doubt),
                () = sleep(pause) => None,
            };
            if let Some(event) = event {
                election.observe(event, boottime());
            }
        }
        match election.other_swarm() {
            None => Ok(()),
            Some(theirs) => Err(self.sender.other_swarm(theirs.to_owned())),
        }
    }

    /// Tells everyone what we are; logs it if it is something else than before.
    fn show(&self, election: &Election, now: Duration) {
        // The grant first: nobody may hear of a leadership and find the gate of the one before.
        self.grant.send_replace(election.grant(now));
        let next = election.leadership(now);
        let changed = self.leadership.send_if_modified(|current| {
            let changed = *current != next;
            current.clone_from(&next);
            changed
        });
        if changed {
            let node = &self.sender.options.node;
            match &next {
                Leadership::Leading { token, writable_from, .. } => {
                    let wait = writable_from.saturating_sub(now);
                    info!(%node, token, ?wait, "this node leads");
                }
                Leadership::Suspended { token, .. } => {
                    warn!(%node, token, "writes suspended: consul has not confirmed the lock in time");
                }
                Leadership::Follower { leader: Some(leader) } => {
                    info!(%node, leader = leader.node, token = leader.token, "this node follows");
                }
                Leadership::Follower { leader: None } => info!(%node, "no leader known"),
            }
        }
    }

    /// Logs the first failure and the recovery, not the repeats.
    fn report(&mut self, result: Result<Event, Failed>) -> Event {
        let node = &self.sender.options.node;
        match result {
            Ok(event) => {
                let recovered = event.task().is_some_and(|task| self.trouble.remove(&task));
                if recovered && self.trouble.is_empty() {
                    info!(%node, "election: all is well again");
                }
                event
            }
            Err(Failed { task, failure, reason }) => {
                if self.trouble.insert(task) {
                    warn!(%node, %reason, "election: {task:?} failed; trying again");
                }
                Event::Failed(task, failure)
            }
        }
    }
}

/// A request that failed.
struct Failed {
    task: Task,
    failure: Failure,
    reason: String,
}

/// Why it did.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Consul(#[from] consul::Error),
    #[error("the docker engine: {0}")]
    Engine(String),
}

/// Who sends the requests.
struct Sender {
    consul: Consul,
    options: Options,
    keys: Keys,
    /// Of our service, its check and our sessions.
    id: String,
    probe: Probe,
    /// [`Consul::renewals`] when the check was registered.
    registered_at: AtomicU64,
}

impl Sender {
    async fn send(self: Arc<Self>, action: Action) -> Result<Event, Failed> {
        let task = action.task();
        self.perform(action).await.map_err(|cause| {
            let unknown = matches!(&cause, Cause::Consul(error) if error.is_ambiguous());
            let failure = if unknown { Failure::Unknown } else { Failure::Refused };
            Failed { task, failure, reason: cause.to_string() }
        })
    }

    async fn perform(&self, action: Action) -> Result<Event, Cause> {
        let consul = &self.consul;
        let profile = &self.options.profile;
        // A request that takes longer is as good as lost: the next one is due.
        let brief = profile.check_ttl / 3;
        Ok(match action {
            Action::Claim => match claim::claim(consul, &self.options).await {
                Ok(()) => Event::Claimed,
                Err(Error::OtherSwarm { theirs, .. }) => Event::ClaimedByOther(theirs),
                Err(Error::Consul(error)) => return Err(error.into()),
            },
            Action::Sweep => self.sweep().await?,
            Action::Probe => {
                self.probe().await.map_err(Cause::Engine)?;
                Event::Probed
            }
            Action::Register => {
                self.register().await?;
                Event::Registered
            }
            // Consul's agent would go on telling its servers about the check with the token of the time before.
            Action::Beat { .. } if consul.renewals() != self.registered_at.load(Ordering::Relaxed) => {
                self.register().await?;
                Event::Beaten
            }
            Action::Beat { note } => {
                consul.heartbeat_pass(&self.id, &note, brief).await?;
                Event::Beaten
            }
            Action::CreateSession => Event::SessionMade(consul.session_create(&self.session()).await?),
            Action::Renew { session } => Event::Renewed(consul.session_renew(&session).await?),
            Action::Watch { index } => {
                let seen = consul.kv_watch(&self.keys.lock(), index, WATCH_WAIT).await?;
                Event::Watched { lock: seen.now.map(lock), index: seen.index }
            }
            Action::Prove => {
                let sent = boottime();
                let pair = consul.kv_prove(&self.keys.lock(), brief).await?;
                Event::Proven { sent, lock: pair.map(lock) }
            }
            Action::Acquire { session, expect } => self.acquire(session, expect).await?,
            Action::Release { session, since, signed_off } => {
                let value = self.record(since, signed_off);
                consul.kv_release(&self.keys.lock(), value, &session).await?;
                Event::Released
            }
            Action::Close { session } => {
                if let Some(session) = session {
                    consul.session_destroy(&session).await?;
                }
                consul.heartbeat_deregister(&self.id).await?;
                Event::Closed
            }
        })
    }

    /// Registers the check, passing, which is a sign of life too.
    async fn register(&self) -> Result<(), consul::Error> {
        let renewals = self.consul.renewals();
        self.consul.heartbeat_register(&self.heartbeat()).await?;
        self.registered_at.store(renewals, Ordering::Relaxed);
        Ok(())
    }

    /// An earlier process that crashed left a session behind, which our heartbeats on the same check would keep alive.
    async fn sweep(&self) -> Result<Event, consul::Error> {
        for old in self.consul.session_list().await?.into_iter().filter(|session| session.name == self.id) {
            self.consul.session_destroy(&old.id).await?;
        }
        Ok(Event::Swept)
    }

    async fn probe(&self) -> Result<(), String> {
        let late = |_| Err(format!("the engine did not list its services within {PROBE_TIMEOUT:?}"));
        timeout(PROBE_TIMEOUT, (self.probe)()).await.unwrap_or_else(late)
    }

    async fn acquire(&self, session: String, expect: Option<u64>) -> Result<Event, consul::Error> {
        let key = self.keys.lock();
        let since = OffsetDateTime::now_utc();
        let unchanged = match expect {
            Some(index) => Op::CheckIndex { key: key.clone(), index },
            None => Op::CheckNotExists { key: key.clone() },
        };
        let take = Op::Lock { key, value: self.record(since, false), session: session.clone() };
        let sent = boottime();
        Ok(match self.consul.kv_txn(&[unchanged, take]).await? {
            Outcome::Done { index: token } => Event::Acquired { sent, session, token, since },
            Outcome::Conflict { .. } => Event::NotAcquired,
        })
    }

    fn record(&self, since: OffsetDateTime, signed_off: bool) -> Vec<u8> {
        let Options { node, address, version, profile, .. } = &self.options;
        let record = Record {
            schema: SCHEMA,
            node: node.clone(),
            address: address.clone(),
            version: version.clone(),
            since,
            lock_delay_ms: u64::try_from(profile.lock_delay.as_millis()).unwrap_or(u64::MAX),
            signed_off,
        };
        // A struct of texts and numbers always can be written.
        serde_json::to_vec(&record).unwrap_or_default()
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            id: self.id.clone(),
            service: SERVICE.to_owned(),
            name: format!("swarmkeeper on {}, candidate for leader", self.options.node),
            notes: format!(
                "Passes while swarmkeeper runs on this node. The leader of cluster {} holds the lock {}.",
                self.options.cluster,
                self.keys.lock()
            ),
            ttl: self.options.profile.check_ttl,
            forgotten_after: FORGOTTEN_AFTER,
        }
    }

    fn session(&self) -> NewSession {
        NewSession {
            name: self.id.clone(),
            checks: vec!["serfHealth".to_owned(), self.id.clone()],
            ttl: SESSION_TTL,
            lock_delay: self.options.profile.lock_delay,
        }
    }

    fn other_swarm(&self, theirs: String) -> Error {
        let Options { cluster, swarm_cluster_id: ours, .. } = &self.options;
        Error::OtherSwarm { cluster: cluster.clone(), ours: ours.clone(), theirs, key: self.keys.claim() }
    }
}

fn lock(pair: Pair) -> Lock {
    Lock { modify_index: pair.modify_index, session: pair.session, record: Record::read(&pair.value) }
}
