//! The model of Consul's lock, on which the simulation of the election runs, and a real Consul: the same operations, the same answers.

use std::time::{Duration, Instant};

use swarmkeeper::io::consul::Consul;
use swarmkeeper::io::consul::kv::{Freshness, Pair};
use swarmkeeper::io::consul::session::NewSession;
use swarmkeeper::io::consul::txn::{Op, Outcome};

use crate::support::ConsulServer;

#[path = "../models/consul.rs"]
#[allow(dead_code, reason = "the simulation uses more of it")]
mod consul;

use consul::ConsulModel;

const KEY: &str = "model/lock";

/// Operations in all.
const OPERATIONS: usize = 400;

/// The shortest lock delay that Consul takes.
const LOCK_DELAY: Duration = Duration::from_secs(1);

/// What the two clocks may differ by, at the end of a lock delay; nothing is asked then.
const UNSURE: Duration = Duration::from_millis(300);

/// Both, with what each calls things.
struct Both {
    consul: Consul,
    model: ConsulModel<Vec<u8>>,
    begin: Instant,
    /// Sessions that exist or existed: the model's name and Consul's.
    sessions: Vec<(String, String)>,
    /// Until when a session's end keeps the lock from everybody.
    delayed_until: Option<Instant>,
    /// The key's index as both said it last.
    seen: Option<(u64, u64)>,
}

#[tokio::test]
async fn the_model_answers_as_consul_does() {
    let server = ConsulServer::start().await;
    let mut both = Both {
        consul: server.client(),
        model: ConsulModel::new(1000),
        begin: Instant::now(),
        sessions: Vec::new(),
        delayed_until: None,
        seen: None,
    };
    let mut random = 7_u64;
    let mut below = |end: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % end
    };
    for step in 0..OPERATIONS {
        let (what, which) = (below(24), below(3));
        let told = both.step(what, which).await;
        both.same_key(&format!("step {step}: {told}")).await;
    }
}

impl Both {
    async fn step(&mut self, what: usize, which: usize) -> String {
        let value = format!("{what}-{which}").into_bytes();
        if self.sessions.len() <= which {
            return self.create_session().await;
        }
        let (ours, theirs) = self.sessions[self.sessions.len() - 1 - which].clone();
        let now = self.now();
        match what {
            0 => self.create_session().await,
            1 | 2 => {
                let held = self.model.holds(&ours);
                self.model.session_end(&ours, now);
                self.consul.session_destroy(&theirs).await.unwrap();
                if held {
                    self.delayed_until = Some(Instant::now() + LOCK_DELAY);
                }
                format!("session {ours} ends")
            }
            3 => {
                assert_eq!(self.model.session_exists(&ours), self.consul.session_renew(&theirs).await.unwrap());
                format!("session {ours} is renewed, if it exists")
            }
            4 | 5 => {
                let released = self.model.release(&ours, value.clone());
                assert_eq!(released, self.consul.kv_release(KEY, value, &theirs).await.unwrap(), "release by {ours}");
                format!("release by {ours}: {released}")
            }
            6 => {
                self.model.put(value.clone());
                self.consul.kv_put(KEY, value).await.unwrap();
                "a stranger writes".to_owned()
            }
            7 => {
                self.model.delete();
                self.consul.kv_delete(KEY).await.unwrap();
                "a stranger deletes".to_owned()
            }
            8 => {
                // Through the lock delay, if there is one.
                self.settle(true).await;
                "waited".to_owned()
            }
            9..=12 => {
                let (our_token, their_token) = self.seen.unwrap_or((1, 1));
                let session = Op::CheckSession { key: KEY.to_owned(), session: theirs };
                let token = Op::CheckIndex { key: KEY.to_owned(), index: their_token };
                let set = Op::Set { key: "model/behind".to_owned(), value };
                let done = matches!(self.consul.kv_txn(&[session, token, set]).await.unwrap(), Outcome::Done { .. });
                assert_eq!(self.model.lets_through(&ours, our_token), done, "a fenced write by {ours}");
                format!("fenced write by {ours}: {done}")
            }
            _ => {
                self.settle(false).await;
                // In the state seen last, which may be an older one; or where there should be none.
                let seen = self.seen.filter(|_| what > 13);
                self.acquire(&ours, theirs, seen, value).await
            }
        }
    }

    async fn acquire(&mut self, ours: &str, theirs: String, seen: Option<(u64, u64)>, value: Vec<u8>) -> String {
        let unchanged = match seen {
            Some((_, index)) => Op::CheckIndex { key: KEY.to_owned(), index },
            None => Op::CheckNotExists { key: KEY.to_owned() },
        };
        let now = self.now();
        let expect = self.model.acquire(ours, seen.map(|(index, _)| index), value.clone(), now);
        let lock = Op::Lock { key: KEY.to_owned(), value, session: theirs };
        // A session that is gone is an error to Consul, and a no to us.
        let got = match self.consul.kv_txn(&[unchanged, lock]).await {
            Ok(Outcome::Done { index }) => Some(index),
            Ok(Outcome::Conflict { .. }) => None,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(expect.is_some(), got.is_some(), "{ours} takes the lock in the state {seen:?}");
        format!("{ours} takes the lock in the state {seen:?}: {}", got.is_some())
    }

    async fn create_session(&mut self) -> String {
        let ours = self.model.session_create(self.sessions.len());
        let new = NewSession {
            name: ours.clone(),
            checks: vec!["serfHealth".to_owned()],
            ttl: Duration::from_mins(1),
            lock_delay: LOCK_DELAY,
        };
        let theirs = self.consul.session_create(&new).await.unwrap();
        self.sessions.push((ours.clone(), theirs));
        format!("session {ours} is made")
    }

    /// Waits until it is certain whether there is a lock delay, or until there is none.
    async fn settle(&mut self, to_the_end: bool) {
        let Some(until) = self.delayed_until else { return };
        let left = until.saturating_duration_since(Instant::now());
        if to_the_end || left < UNSURE {
            tokio::time::sleep(left + UNSURE).await;
            self.delayed_until = None;
        }
    }

    /// Both hold the same, and the index moved in both or in neither.
    async fn same_key(&mut self, after: &str) {
        let ours = self.model.read();
        let theirs: Option<Pair> = self.consul.kv_get(KEY, Freshness::Consistent).await.unwrap();
        let name = |id: &str| self.sessions.iter().find(|(_, theirs)| theirs == id).map(|(ours, _)| ours.clone());
        let shown = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        assert_eq!(
            ours.as_ref().map(|pair| (shown(&pair.value), pair.session.clone())),
            theirs.as_ref().map(|pair| (shown(&pair.value), pair.session.as_deref().and_then(name))),
            "after {after}"
        );
        let indexes = ours.zip(theirs).map(|(ours, theirs)| (ours.index, theirs.modify_index));
        if let (Some(now), Some(before)) = (indexes, self.seen) {
            assert_eq!(now.0 == before.0, now.1 == before.1, "the index after {after}: {before:?} → {now:?}");
        }
        // Only what was looked at now and then is expected later: so some expectations are stale.
        if indexes.is_some_and(|(ours, _)| ours % 3 != 0) || self.seen.is_none() {
            self.seen = indexes;
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begin.elapsed().as_millis()).unwrap()
    }
}
