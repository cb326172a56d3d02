//! Consul's lock as the election uses it: one key, sessions, a lock delay. Virtual time, in milliseconds.
//!
//! `tests/consul/model.rs` drives this and a real Consul with the same operations and compares the answers; the simulation of the
//! election runs on it.

use std::collections::BTreeMap;

/// The key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<V> {
    /// Its last write.
    pub index: u64,
    /// Who holds it.
    pub session: Option<String>,
    /// What it holds.
    pub value: V,
}

/// A key-value store with one key that is a lock, and one counter that is written behind it.
#[derive(Debug, Clone)]
pub struct ConsulModel<V> {
    lock_delay: u64,
    index: u64,
    pair: Option<Pair<V>>,
    /// Sessions, with whose they are.
    sessions: BTreeMap<String, usize>,
    delay_until: u64,
}

impl<V: Clone + PartialEq> ConsulModel<V> {
    /// An empty store whose sessions all have this lock delay.
    pub fn new(lock_delay: u64) -> Self {
        Self { lock_delay, index: 10, pair: None, sessions: BTreeMap::new(), delay_until: 0 }
    }

    pub fn read(&self) -> Option<Pair<V>> {
        self.pair.clone()
    }

    /// What a blocking query waits after.
    pub fn watch_index(&self) -> u64 {
        self.pair.as_ref().map_or(self.index, |pair| pair.index)
    }

    /// Makes a session.
    pub fn session_create(&mut self, owner: usize) -> String {
        self.index += 1;
        let id = format!("s{}", self.index);
        self.sessions.insert(id.clone(), owner);
        id
    }

    pub fn session_exists(&self, id: &str) -> bool {
        self.sessions.contains_key(id)
    }

    pub fn sessions_of(&self, owner: usize) -> Vec<String> {
        self.sessions.iter().filter(|(_, of)| **of == owner).map(|(id, _)| id.clone()).collect()
    }

    /// Ends a session; a lock that it held is free, and nobody's for the lock delay.
    pub fn session_end(&mut self, id: &str, now: u64) {
        if self.sessions.remove(id).is_none() {
            return;
        }
        if let Some(pair) = self.pair.as_mut().filter(|pair| pair.session.as_deref() == Some(id)) {
            self.index += 1;
            pair.index = self.index;
            pair.session = None;
            self.delay_until = now + self.lock_delay;
        }
    }

    /// A transaction: the key is as `expect` says (its index; none: there is no key), and is taken. The index of the write.
    pub fn acquire(&mut self, session: &str, expect: Option<u64>, value: V, now: u64) -> Option<u64> {
        let unchanged = self.pair.as_ref().map(|pair| pair.index) == expect;
        let holder = self.pair.as_ref().and_then(|pair| pair.session.as_deref());
        let takeable = holder.is_none_or(|holder| holder == session);
        // The delay keeps others away, and the holder has none.
        let delayed = now < self.delay_until;
        if !unchanged || !takeable || delayed || !self.session_exists(session) {
            return None;
        }
        self.write(Some(session.to_owned()), value);
        self.pair.as_ref().map(|pair| pair.index)
    }

    /// Gives the lock back, without a delay; false if it was not held by `session`.
    pub fn release(&mut self, session: &str, value: V) -> bool {
        let held = self.pair.as_ref().is_some_and(|pair| pair.session.as_deref() == Some(session));
        if held {
            self.write(None, value);
        }
        held
    }

    /// A transaction with `check-session` and `check-index`: would a write behind the lock be made?
    pub fn lets_through(&self, session: &str, token: u64) -> bool {
        self.holds(session) && self.pair.as_ref().is_some_and(|pair| pair.index == token)
    }

    /// The same with `check-session` alone.
    pub fn holds(&self, session: &str) -> bool {
        self.pair.as_ref().is_some_and(|pair| pair.session.as_deref() == Some(session))
    }

    /// A stranger's write; whoever holds the lock goes on holding it.
    pub fn put(&mut self, value: V) {
        let session = self.pair.as_ref().and_then(|pair| pair.session.clone());
        self.write(session, value);
    }

    /// A stranger's delete.
    pub fn delete(&mut self) {
        if self.pair.take().is_some() {
            self.index += 1;
        }
    }

    /// Writing what is there already is no write to Consul: the index stays.
    fn write(&mut self, session: Option<String>, value: V) {
        if self.pair.as_ref().is_some_and(|pair| pair.session == session && pair.value == value) {
            return;
        }
        self.index += 1;
        self.pair = Some(Pair { index: self.index, session, value });
    }
}
