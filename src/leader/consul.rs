//! The lock in Consul: a key, held by a session that ends with this node or with this process's signs of life.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use super::clock::boottime;
use super::coordination::{Coordination, Trouble};
use super::plan::{NOT_STANDING, SESSION_TTL};
use super::record::{LeaderInfo, Record};
use super::vocabulary::{Action, Event, Lock};
use super::{Keys, Options, claim};
use crate::io::consul::check::Heartbeat;
use crate::io::consul::kv::{Freshness, Pair};
use crate::io::consul::session::NewSession;
use crate::io::consul::txn::{Op, Outcome};
use crate::io::consul::{self, Consul};
use crate::status::Candidate;

/// How long one blocking query waits. Consul's agent hands it to its servers' Raft leader, and takes 30 s to notice that the node of that
/// one is lost (the keepalive of its connections), while the query hangs: the next query goes to the leader that was elected meanwhile.
pub(super) const WATCH_WAIT: Duration = Duration::from_secs(2);

/// How long the agent keeps the check of a candidate that is gone; the shortest that Consul takes.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(1);

/// The service that candidates' checks belong to.
pub const SERVICE: &str = "swarmkeeper-leader";

/// Consul's coordination.
pub struct ByConsul {
    consul: Consul,
    options: Options,
    keys: Keys,
    /// Of our service, its check and our sessions.
    id: String,
    /// [`Consul::renewals`] when the check was registered.
    registered_at: AtomicU64,
}

impl ByConsul {
    /// For the candidate of `options`.
    pub fn new(consul: Consul, options: Options) -> Self {
        let keys = Keys::new(&options.cluster);
        // With the cluster in it: two swarms on one Consul may have a node of the same name each.
        let id = format!("{}{}", id_prefix(&options.cluster), options.node);
        Self { consul, options, keys, id, registered_at: AtomicU64::new(0) }
    }
}

impl Coordination for ByConsul {
    fn perform(&self, action: Action, now: OffsetDateTime) -> BoxFuture<'_, Result<Event, Trouble>> {
        async move { Ok(self.send(action, now).await?) }.boxed()
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<LeaderInfo>, Trouble>> {
        async { Ok(super::current(&self.consul, &self.options.cluster).await?) }.boxed()
    }

    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Candidate>, Trouble>> {
        async {
            let ours = id_prefix(&self.options.cluster);
            let checks = self.consul.health_checks(SERVICE).await?;
            let of_this_cluster = checks.into_iter().filter_map(|check| {
                let node = check.service_id.strip_prefix(&ours)?.to_owned();
                let stands = check.status == "passing" && !check.output.starts_with(NOT_STANDING);
                Some(Candidate { node, stands, note: check.output })
            });
            Ok(of_this_cluster.collect())
        }
        .boxed()
    }
}

impl ByConsul {
    async fn send(&self, action: Action, now: OffsetDateTime) -> Result<Event, consul::Error> {
        let consul = &self.consul;
        // A request that takes longer is as good as lost: the next one is due.
        let brief = self.options.profile.check_ttl / 3;
        Ok(match action {
            Action::Claim => claim::claim(consul, &self.options).await?,
            Action::Sweep => self.sweep().await?,
            // The candidate's own affair.
            Action::Probe => Event::Probed,
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
            Action::Acquire { session, expect } => self.acquire(session, expect, now).await?,
            Action::Release { session, since, signed_off } => {
                let value = self.options.record(since, signed_off).write();
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

    async fn acquire(
        &self,
        session: String,
        expect: Option<u64>,
        since: OffsetDateTime,
    ) -> Result<Event, consul::Error> {
        let key = self.keys.lock();
        let unchanged = match expect {
            Some(index) => Op::CheckIndex { key: key.clone(), index },
            None => Op::CheckNotExists { key: key.clone() },
        };
        let value = self.options.record(since, false).write();
        let take = Op::Lock { key, value, session: session.clone() };
        let sent = boottime();
        Ok(match self.consul.kv_txn(&[unchanged, take]).await? {
            Outcome::Done { index: token } => Event::Acquired { sent, session, token, since },
            Outcome::Conflict { .. } => Event::NotAcquired,
        })
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
}

/// What the IDs of a cluster's candidates begin with.
fn id_prefix(cluster: &str) -> String {
    format!("{SERVICE}:{cluster}:")
}

/// Who leads `cluster` at the moment, for those who do not stand themselves.
pub async fn current(consul: &Consul, cluster: &str) -> Result<Option<LeaderInfo>, consul::Error> {
    let pair = consul.kv_get(&Keys::new(cluster).lock(), Freshness::Default).await?;
    Ok(pair
        .filter(|pair| pair.session.is_some())
        .and_then(|pair| Some(Record::read(&pair.value)?.info(pair.modify_index))))
}

fn lock(pair: Pair) -> Lock {
    Lock { modify_index: pair.modify_index, session: pair.session, record: Record::read(&pair.value), over: false }
}
