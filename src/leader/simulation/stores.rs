//! Where the lock is kept in a simulated world: what reaches it, and what it answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use time::OffsetDateTime;

use super::super::record::Record;
use super::super::swarm::slip::{Found, Kind, Slip, Standing};
use super::super::vocabulary::{Action, Event, Lock};
use super::consul_model::{ConsulModel, Pair};
use super::swarm_model::{Config, SwarmModel};

/// How far swarm's engines may be behind in what they show.
const BEHIND_MAX: u64 = 5000;

/// Consul, or the swarm.
pub enum Store {
    Consul(ConsulStore),
    Swarm(SwarmStore),
}

pub struct ConsulStore {
    pub model: ConsulModel<Option<Record>>,
    pub watchers: Vec<(usize, u64)>,
    renewed: BTreeMap<String, u64>,
}

pub struct SwarmStore {
    model: SwarmModel<Slip>,
    /// What was there before, and since when.
    past: VecDeque<(u64, Option<Config<Slip>>)>,
    /// The largest term written.
    term: u64,
}

impl Store {
    pub fn new(kind: Kind, lock_delay: u64) -> Self {
        match kind {
            Kind::Consul => Self::Consul(ConsulStore {
                model: ConsulModel::new(lock_delay),
                watchers: Vec::new(),
                renewed: BTreeMap::new(),
            }),
            Kind::Swarm => {
                let mut model = SwarmModel::new();
                let slip = Slip::free(Standing::InForce(Kind::Swarm), Some(record(true, lock_delay)));
                let _ = model.create(slip);
                Self::Swarm(SwarmStore { model, past: VecDeque::new(), term: 0 })
            }
        }
    }

    /// A stranger deletes the lock.
    pub fn delete(&mut self, now: u64) {
        match self {
            Self::Consul(store) => store.model.delete(),
            Self::Swarm(store) => {
                if let Some(config) = store.model.read() {
                    store.remember(now);
                    let _ = store.model.remove(&config.id);
                }
            }
        }
    }

    /// A stranger writes into the lock.
    pub fn overwrite(&mut self, now: u64) {
        match self {
            Self::Consul(store) if store.model.read().is_some() => store.model.put(None),
            Self::Consul(_) => {}
            Self::Swarm(store) => {
                if let Some(config) = store.model.read() {
                    store.remember(now);
                    let _ = store.model.update(&config.id, config.version, Slip { record: None, ..config.labels });
                }
            }
        }
    }
}

impl ConsulStore {
    pub fn serve(&mut self, node: usize, action: Action, sent: Duration, delay: u64, now: u64) -> Event {
        let model = &mut self.model;
        match action {
            Action::Claim => Event::Claimed,
            Action::Register => Event::Registered,
            Action::Sweep => {
                for id in model.sessions_of(node) {
                    model.session_end(&id, now);
                }
                Event::Swept
            }
            Action::CreateSession => {
                let id = model.session_create(node);
                self.renewed.insert(id.clone(), now);
                Event::SessionMade(id)
            }
            Action::Renew { session } => {
                let exists = model.session_exists(&session);
                self.renewed.insert(session, now);
                Event::Renewed(exists)
            }
            Action::Prove => Event::Proven { sent, lock: model.read().map(lock) },
            Action::Acquire { session, expect } => {
                match model.acquire(&session, expect, Some(record(false, delay)), now) {
                    Some(token) => Event::Acquired { sent, session, token, since: OffsetDateTime::UNIX_EPOCH },
                    None => Event::NotAcquired,
                }
            }
            Action::Release { session, signed_off, .. } => {
                model.release(&session, Some(record(signed_off, delay)));
                Event::Released
            }
            Action::Close { session } => {
                if let Some(id) = &session {
                    model.session_end(id, now);
                }
                Event::Closed
            }
            Action::Probe | Action::Beat { .. } | Action::Watch { .. } => unreachable!("they do not come here"),
        }
    }

    /// Ends the sessions that `over` says, and those that nobody renewed.
    pub fn expire(&mut self, now: u64, over: &dyn Fn(usize) -> bool) {
        let late = |id: &String| self.renewed.get(id).is_some_and(|renewed| now > renewed + 30_000);
        let ended: Vec<String> = (0..super::world::NODES)
            .flat_map(|node| self.model.sessions_of(node).into_iter().filter(move |id| over(node) || late(id)))
            .collect();
        for id in &ended {
            self.model.session_end(id, now);
        }
    }

    /// The watchers to answer, and what with.
    pub fn answers(&mut self) -> Vec<(usize, Event)> {
        let index = self.model.watch_index();
        let lock = self.model.read().map(lock);
        let (due, waiting) = std::mem::take(&mut self.watchers).into_iter().partition(|(_, known)| *known != index);
        self.watchers = waiting;
        let due: Vec<(usize, u64)> = due;
        due.into_iter().map(|(node, _)| (node, Event::Watched { lock: lock.clone(), index })).collect()
    }
}

impl SwarmStore {
    /// What an engine shows that is `behind` by so much.
    pub fn read(&self, behind: u64, now: u64) -> Option<Found> {
        let at = now.saturating_sub(behind.min(BEHIND_MAX));
        let then = self.past.iter().find(|(until, _)| *until > at).map(|(_, config)| config.clone());
        then.unwrap_or_else(|| self.model.read()).map(found)
    }

    /// Writes, if the version is still this.
    pub fn write(&mut self, id: &str, version: u64, slip: Slip, now: u64) -> bool {
        let before = self.model.read();
        let term = slip.term;
        let written = self.model.update(id, version, slip).is_ok();
        if written {
            self.past.push_back((now, before));
            assert!(term >= self.term, "at {now}: term {term} is written after {}", self.term);
            self.term = term;
        }
        written
    }

    /// Makes the config that somebody took away.
    pub fn make_again(&mut self, delay: u64, now: u64) {
        self.remember(now);
        let _ = self.model.create(Slip::free(Standing::InForce(Kind::Swarm), Some(record(false, delay))));
    }

    fn remember(&mut self, now: u64) {
        self.past.push_back((now, self.model.read()));
        while self.past.front().is_some_and(|(until, _)| until + BEHIND_MAX < now) {
            self.past.pop_front();
        }
    }
}

pub fn record(signed_off: bool, lock_delay_ms: u64) -> Record {
    Record {
        schema: 1,
        node: "n".to_owned(),
        address: String::new(),
        version: String::new(),
        since: OffsetDateTime::UNIX_EPOCH,
        lock_delay_ms,
        signed_off,
    }
}

fn lock(pair: Pair<Option<Record>>) -> Lock {
    Lock { modify_index: pair.index, session: pair.session, record: pair.value, over: false }
}

fn found(config: Config<Slip>) -> Found {
    Found { id: config.id, version: config.version, slip: config.labels }
}
