//! What the swarm config `swarmkeeper-leader` says: which coordination is in force, and who holds the swarm's own lock.
//!
//! It stands in labels, for `docker config inspect swarmkeeper-leader` to show. Labels of others survive.

use super::super::record::Record;
use crate::model::Sensitive;
use crate::spec::{Config, ConfigSpec, Labels};

/// The config's name.
pub const NAME: &str = "swarmkeeper-leader";

const COORDINATION: &str = "swarmkeeper.coordination";
const HOLDER: &str = "swarmkeeper.holder";
const TERM: &str = "swarmkeeper.term";
const BEAT: &str = "swarmkeeper.beat";
const RECORD: &str = "swarmkeeper.record";

/// Where a lock may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In Consul.
    Consul,
    /// In the swarm.
    Swarm,
}

/// Which coordination is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// This one.
    InForce(Kind),
    /// None any more; this one after [`super::mandate::SWITCH_WAIT`].
    Changing(Kind),
    /// None: `swarmkeeper leave`.
    Left,
    /// What this version does not know.
    Unknown(String),
}

/// The labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slip {
    /// Which coordination is in force.
    pub standing: Standing,
    /// Who holds the swarm's lock: one process's own word; none if it is free.
    pub holder: Option<String>,
    /// The fencing token of who holds it, or held it last.
    pub term: u64,
    /// Counts the holder's signs of life.
    pub beat: u64,
    /// Who holds it, or held it last, for successors and people.
    pub record: Option<Record>,
    /// Labels that are not ours.
    pub others: Labels,
}

/// The labels with what is needed to write them back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The config's ID.
    pub id: String,
    /// The compare-and-swap. It grows with every write, and with the swarm: a config made anew has a larger one than the one before.
    pub version: u64,
    /// What it says.
    pub slip: Slip,
}

impl Kind {
    /// As settings and labels spell it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Consul => "consul",
            Self::Swarm => "swarm",
        }
    }
}

impl Standing {
    fn read(text: &str) -> Self {
        match text {
            "consul" => Self::InForce(Kind::Consul),
            "swarm" => Self::InForce(Kind::Swarm),
            "to-consul" => Self::Changing(Kind::Consul),
            "to-swarm" => Self::Changing(Kind::Swarm),
            "left" => Self::Left,
            other => Self::Unknown(other.to_owned()),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::InForce(kind) => kind.word().to_owned(),
            Self::Changing(kind) => format!("to-{}", kind.word()),
            Self::Left => "left".to_owned(),
            Self::Unknown(text) => text.clone(),
        }
    }
}

impl Found {
    /// What `session` writes as its next sign of life; none if it does not hold the lock.
    pub fn beaten(&self, session: &str) -> Option<Slip> {
        let beat = self.slip.beat.wrapping_add(1);
        self.held_by(session).then(|| Slip { beat, ..self.slip.clone() })
    }

    /// What `session` writes to take the lock, found free in the state with this version; its term is the token. Whether it *is* free
    /// was judged then, and writing is a compare-and-swap on that version.
    pub fn taken(&self, expect: u64, session: &str, record: Record) -> Option<Slip> {
        let fits = self.version == expect && self.slip.standing == Standing::InForce(Kind::Swarm);
        fits.then(|| Slip {
            holder: Some(session.to_owned()),
            // Larger than every token before: each was the successor of a version, and versions grow.
            term: self.version + 1,
            beat: 0,
            record: Some(record),
            ..self.slip.clone()
        })
    }

    /// What `session` writes to give the lock back; none if it does not hold it.
    pub fn given_back(&self, session: &str, record: Record) -> Option<Slip> {
        self.held_by(session).then(|| Slip { holder: None, record: Some(record), ..self.slip.clone() })
    }

    fn held_by(&self, session: &str) -> bool {
        self.slip.holder.as_deref() == Some(session) && self.slip.standing == Standing::InForce(Kind::Swarm)
    }
}

impl Slip {
    /// Nobody holds anything; `record` tells the first one who does whether it has to wait.
    pub fn free(standing: Standing, record: Option<Record>) -> Self {
        Self { standing, holder: None, term: 0, beat: 0, record, others: Labels::default() }
    }

    /// The config to create.
    pub fn spec(&self) -> ConfigSpec {
        let data = b"swarmkeeper keeps in this config's labels who leads\n".to_vec();
        ConfigSpec { data: Sensitive::new(data), ..self.change() }
    }

    /// The config to update: the engine takes one without content.
    pub fn change(&self) -> ConfigSpec {
        let mut labels = self.others.clone();
        let mut set = |label: &str, value: String| drop(labels.insert(label.to_owned(), value));
        set(COORDINATION, self.standing.write());
        set(TERM, self.term.to_string());
        set(BEAT, self.beat.to_string());
        if let Some(holder) = &self.holder {
            set(HOLDER, holder.clone());
        }
        if let Some(record) = &self.record {
            set(RECORD, String::from_utf8_lossy(&record.write()).into_owned());
        }
        ConfigSpec { name: NAME.to_owned(), labels: Some(labels), ..ConfigSpec::default() }
    }

    fn read(mut labels: Labels) -> Self {
        let number = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or_default();
        Self {
            standing: Standing::read(&labels.remove(COORDINATION).unwrap_or_default()),
            holder: labels.remove(HOLDER),
            term: number(labels.remove(TERM)),
            beat: number(labels.remove(BEAT)),
            record: labels.remove(RECORD).and_then(|text| Record::read(text.as_bytes())),
            others: labels,
        }
    }
}

impl From<Config> for Found {
    fn from(config: Config) -> Self {
        let slip = Slip::read(config.spec.labels.unwrap_or_default());
        Self { id: config.id, version: config.version.index, slip }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(slip: &Slip) {
        assert_eq!(Slip::read(slip.change().labels.unwrap()), *slip);
    }

    #[test]
    fn what_is_written_is_read() {
        for standing in [
            Standing::InForce(Kind::Consul),
            Standing::Changing(Kind::Swarm),
            Standing::Left,
            Standing::Unknown("moon".into()),
        ] {
            check(&Slip::free(standing, None));
        }
        let others = Labels::from([("team".to_owned(), "ops".to_owned())]);
        let holder = Some("n1-7".to_owned());
        check(&Slip { holder, term: 12, beat: 7, others, ..Slip::free(Standing::InForce(Kind::Swarm), None) });
    }

    #[test]
    fn a_strangers_labels_are_no_standing_of_ours() {
        let slip = Slip::read(Labels::from([(TERM.to_owned(), "many".to_owned())]));
        assert_eq!(slip, Slip::free(Standing::Unknown(String::new()), None));
    }
}
