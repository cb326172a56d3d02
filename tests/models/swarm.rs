//! One swarm config as the engine keeps it: labels, and a version to compare and swap with.
//!
//! `tests/e2e/coordinating.rs` drives this and a real swarm with the same operations and compares the answers; the simulation of the
//! election runs on it, and so does the engine of `tests/support/engine.rs`.

/// The config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config<L> {
    pub id: String,
    pub version: u64,
    pub labels: L,
}

/// Why a write was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is one of this name.
    Exists,
    /// No such config.
    Missing,
    /// Another write came first.
    Stale,
}

/// The configs of one name: at most one.
#[derive(Debug, Clone)]
pub struct SwarmModel<L> {
    /// Swarm's Raft index: grows with every write, of whatever.
    index: u64,
    config: Option<Config<L>>,
}

impl<L: Clone> SwarmModel<L> {
    pub fn new() -> Self {
        Self { index: 100, config: None }
    }

    pub fn read(&self) -> Option<Config<L>> {
        self.config.clone()
    }

    /// Makes the config and gives its ID.
    pub fn create(&mut self, labels: L) -> Result<String, Refusal> {
        if self.config.is_some() {
            return Err(Refusal::Exists);
        }
        self.index += 1;
        let id = format!("c{}", self.index);
        self.config = Some(Config { id: id.clone(), version: self.index, labels });
        Ok(id)
    }

    /// Writes the labels if the version is still this.
    pub fn update(&mut self, id: &str, version: u64, labels: L) -> Result<(), Refusal> {
        let Some(config) = self.config.as_mut().filter(|config| config.id == id) else { return Err(Refusal::Missing) };
        if config.version != version {
            return Err(Refusal::Stale);
        }
        self.index += 1;
        config.version = self.index;
        config.labels = labels;
        Ok(())
    }

    /// Removes the config.
    pub fn remove(&mut self, id: &str) -> Result<(), Refusal> {
        self.config.take_if(|config| config.id == id).map(drop).ok_or(Refusal::Missing)
    }
}
