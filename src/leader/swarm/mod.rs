//! The lock in the swarm itself: the labels of one config, changed by compare-and-swap on its version.
//!
//! A leader writes a sign of life every [`super::Profile::SWARM`] heartbeat, 3 s: 20 Raft writes of some 500 bytes a minute for the whole
//! swarm, whatever its size. Each is also the proof that a lease is made of, since the engine takes it only from who holds the lock.
//! Followers read the config twice a second.

pub mod judge;
pub mod mandate;
pub mod slip;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};

use super::Options;
use super::clock::boottime;
use super::coordination::{Coordination, Trouble};
use super::record::LeaderInfo;
use super::vocabulary::{Action, Event, Lock};
use crate::io::WritePermit;
use crate::io::swarm::{Error, Swarm};
use crate::status::Candidate;

use judge::Judge;
use slip::{Found, Kind, NAME, Slip};

/// How often a follower looks at the lock; half of it is what a clean hand-over takes.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a watch goes on without news.
const WATCH_WAIT: Duration = Duration::from_mins(1);

/// Longest wait for a read; one that takes longer is as good as lost.
const READ_TIMEOUT: Duration = Duration::from_secs(3);

/// How often giving the lock back is tried when other writes come between.
const RELEASES_MAX: usize = 3;

/// The swarm's own coordination.
pub struct BySwarm {
    swarm: Swarm,
    options: Options,
    memory: Mutex<Memory>,
}

/// What this process knows; losing it costs a leader its lock and nobody anything else.
#[derive(Default)]
struct Memory {
    judge: Judge,
    /// Our own name as a holder.
    session: Option<String>,
    /// The lock as the election was told last.
    told: Option<Told>,
}

/// A lock, or that there is none.
#[derive(Debug, PartialEq)]
struct Told(Option<Lock>);

impl BySwarm {
    /// For the candidate of `options`; `swarm` is a manager's engine without a gate.
    pub fn new(swarm: Swarm, options: Options) -> Self {
        Self { swarm, options, memory: Mutex::default() }
    }
}

impl Coordination for BySwarm {
    fn perform(&self, action: Action, now: OffsetDateTime) -> BoxFuture<'_, Result<Event, Trouble>> {
        async move {
            Ok(match action {
                // The swarm's lock is the swarm's own: there is no name to claim, no check and no session to keep.
                Action::Claim => Event::Claimed,
                Action::Sweep => Event::Swept,
                Action::Probe => Event::Probed,
                Action::Register => Event::Registered,
                Action::Beat { .. } => Event::Beaten,
                Action::Renew { .. } => Event::Renewed(true),
                Action::Close { .. } => Event::Closed,
                Action::CreateSession => {
                    // No other process has it: nodes differ by name, and a node's processes by when they were made.
                    let made = now.unix_timestamp_nanos() ^ i128::try_from(boottime().as_nanos()).unwrap_or_default();
                    let session = format!("{}-{made:x}", self.options.node);
                    self.memory().session = Some(session.clone());
                    Event::SessionMade(session)
                }
                Action::Watch { .. } => self.watch().await?,
                Action::Prove => self.prove().await?,
                Action::Acquire { session, expect } => self.acquire(session, expect, now).await?,
                Action::Release { session, since, signed_off } => self.release(session, since, signed_off).await?,
            })
        }
        .boxed()
    }

    fn current(&self) -> BoxFuture<'_, Result<Option<LeaderInfo>, Trouble>> {
        async {
            let found = read(&self.swarm).await?;
            let held = found.map(|found| found.slip).filter(|slip| slip.holder.is_some());
            Ok(held.and_then(|slip| Some(slip.record?.info(slip.term))))
        }
        .boxed()
    }

    fn candidates(&self) -> BoxFuture<'_, Result<Vec<Candidate>, Trouble>> {
        async {
            let nodes = self.swarm.nodes().await?;
            let managers = nodes.into_iter().filter_map(|node| {
                let reachability = node.manager_status?.reachability;
                let stands = reachability == "reachable";
                Some(Candidate { node: node.description.hostname, stands, note: format!("a manager, {reachability}") })
            });
            Ok(managers.collect())
        }
        .boxed()
    }
}

impl BySwarm {
    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks until the lock is another than the election was told.
    async fn watch(&self) -> Result<Event, Trouble> {
        let begun = boottime();
        loop {
            let found = read(&self.swarm).await?;
            let now = boottime();
            let over_at = {
                let mut memory = self.memory();
                let (lock, over_at) = memory.judge.see(found.as_ref(), self.options.profile.lock_delay, now);
                let told = Told(lock.clone());
                if memory.told.as_ref() != Some(&told) || now > begun + WATCH_WAIT {
                    memory.told = Some(told);
                    return Ok(Event::Watched { lock, index: found.map_or(0, |found| found.version) });
                }
                over_at
            };
            // A silent holder's lock is looked at again the moment it may be taken.
            let until_over = over_at.map_or(LOOK_EVERY, |over_at| over_at.saturating_sub(now));
            sleep(LOOK_EVERY.min(until_over)).await;
        }
    }

    /// Gives a sign of life if we hold the lock: only the engine's taking it proves that we do.
    async fn prove(&self) -> Result<Event, Trouble> {
        let found = read(&self.swarm).await?;
        let ours = self.memory().session.clone();
        let sent = boottime();
        let beaten = found.as_ref().and_then(|found| Some((found, found.beaten(ours.as_deref()?)?)));
        let lock = match beaten {
            Some((found, slip)) => {
                match write(&self.swarm, &found.id, found.version, &slip).await {
                    Ok(()) => {}
                    // Somebody else's write came between; what it was, the next look tells.
                    Err(error) if error.is_conflict() => return Err(Trouble::unknown(error.to_string())),
                    Err(error) => return Err(error.into()),
                }
                Some(Lock { modify_index: slip.term, session: ours, record: slip.record, over: false })
            }
            None => self.memory().judge.see(found.as_ref(), self.options.profile.lock_delay, sent).0,
        };
        Ok(Event::Proven { sent, lock })
    }

    async fn acquire(&self, session: String, expect: Option<u64>, since: OffsetDateTime) -> Result<Event, Trouble> {
        let found = read(&self.swarm).await?;
        if found.is_none() && expect.is_none() {
            // Somebody took the lock away. Who held it may still write, so nobody signed off.
            mandate::make_again(&self.swarm, Kind::Swarm, &self.options, since).await?;
        }
        let taken = found
            .as_ref()
            .and_then(|found| Some((found, found.taken(expect?, &session, self.options.record(since, false))?)));
        let Some((found, slip)) = taken else { return Ok(Event::NotAcquired) };
        let sent = boottime();
        match write(&self.swarm, &found.id, found.version, &slip).await {
            Ok(()) => Ok(Event::Acquired { sent, session, token: slip.term, since }),
            Err(error) if error.is_conflict() => Ok(Event::NotAcquired),
            Err(error) => Err(error.into()),
        }
    }

    async fn release(&self, session: String, since: OffsetDateTime, signed_off: bool) -> Result<Event, Trouble> {
        let record = self.options.record(since, signed_off);
        let mut attempts = 0;
        loop {
            let found = read(&self.swarm).await?;
            let slip = found.as_ref().and_then(|found| Some((found, found.given_back(&session, record.clone())?)));
            let Some((found, slip)) = slip else { return Ok(Event::Released) };
            attempts += 1;
            match write(&self.swarm, &found.id, found.version, &slip).await {
                Ok(()) => return Ok(Event::Released),
                // A sign of life of our own was under way.
                Err(error) if error.is_conflict() && attempts < RELEASES_MAX => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What the config says; none if there is none.
pub(super) async fn read(swarm: &Swarm) -> Result<Option<Found>, Trouble> {
    match timeout(READ_TIMEOUT, swarm.config(NAME)).await {
        Ok(Ok(config)) => Ok(Some(config.into())),
        Ok(Err(Error::NotFound { .. })) => Ok(None),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Trouble::unknown(format!("the engine did not show config {NAME} within {READ_TIMEOUT:?}"))),
    }
}

/// Writes the labels if the config's version is still this.
async fn write(swarm: &Swarm, id: &str, version: u64, slip: &Slip) -> Result<(), Error> {
    signed(swarm, slip.term).config_update(id, version, &slip.change()).await
}

/// Makes the config; an error if there is one already.
async fn create(swarm: &Swarm, slip: &Slip) -> Result<(), Error> {
    signed(swarm, slip.term).config_create(&slip.spec()).await.map(drop)
}

/// A client whose writes carry `token` and wait as briefly as a lease's do. No gate is asked: the lock's own version guards its writes.
fn signed(swarm: &Swarm, token: u64) -> Swarm {
    swarm.with_gate(Some(Arc::new(move || Ok(WritePermit { token }))))
}
