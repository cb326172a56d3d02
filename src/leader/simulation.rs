//! Candidates against a model of Consul in virtual time, with everything going wrong that can.
//!
//! The claim under test: whatever happens, no two candidates have an open gate, or one an open gate while another's write is still
//! under way. And when the trouble is over, one of them leads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use time::OffsetDateTime;

use super::lease::Profile;
use super::plan::Election;
use super::record::Record;
use super::vocabulary::{Action, Event, Failure, Lock, Task};

const NODES: usize = 3;
const PROFILE: Profile = Profile::DEFAULT;
const TICK: u64 = 50;
const TROUBLE: u64 = 150_000;
const QUIET: u64 = 150_000;
/// Longest write to the engine.
const WRITE_MAX: u64 = 2000;
/// How soon Consul's gossip gives up a node that is cut off.
const GOSSIP: u64 = 5000;

#[test]
fn nobody_writes_beside_another_and_in_the_end_somebody_leads() {
    for seed in 0..150 {
        let mut world = World::new(seed);
        world.run_until(TROUBLE);
        world.calm();
        world.run_until(TROUBLE + QUIET);
        let open: Vec<usize> = (0..NODES).filter(|&node| world.may_write(node)).collect();
        assert_eq!(open.len(), 1, "seed {seed}: {open:?} may write after the trouble is over");
    }
}

#[test]
fn without_trouble_the_first_leader_stays() {
    let mut world = World::new(1);
    world.trouble = false;
    world.run_until(20_000);
    let tokens = world.tokens.clone();
    assert_eq!(tokens.len(), 1);
    world.run_until(200_000);
    assert_eq!(world.tokens, tokens);
}

#[test]
fn a_killed_leader_is_replaced_within_twelve_seconds() {
    let mut world = World::new(2);
    world.trouble = false;
    world.run_until(20_000);
    let leader = (0..NODES).find(|&node| world.may_write(node)).unwrap();
    world.nodes[leader].paused_until = u64::MAX;
    world.run_until(20_000 + 12_200);
    assert!((0..NODES).any(|node| node != leader && world.may_write(node)));
}

#[test]
fn a_leader_that_signs_off_is_replaced_at_once() {
    let mut world = World::new(3);
    world.trouble = false;
    world.run_until(20_000);
    let leader = (0..NODES).find(|&node| world.may_write(node)).unwrap();
    world.nodes[leader].draining = true;
    world.run_until(20_000 + WRITE_MAX + 200);
    assert!((0..NODES).any(|node| node != leader && world.may_write(node)));
}

/// A key-value store with one lock, sessions, and an unreliable way to each node.
struct World {
    now: u64,
    random: Random,
    queue: BTreeMap<(u64, u64), Item>,
    queued: u64,
    nodes: Vec<Node>,
    index: u64,
    lock: Option<Lock>,
    sessions: BTreeMap<String, Session>,
    delay_until: u64,
    watchers: Vec<(usize, u64)>,
    trouble: bool,
    /// Every token that a gate was open with.
    tokens: BTreeSet<u64>,
}

struct Node {
    election: Election,
    /// Counts the processes of this node; what a former one asked for is answered to nobody.
    process: u64,
    cut_since: Option<u64>,
    paused_until: u64,
    engine: bool,
    beaten: u64,
    writing_until: u64,
    /// Told to stop: begins no write, and signs off when the last has ended.
    draining: bool,
    /// Events that wait for a paused process.
    inbox: Vec<Event>,
}

struct Session {
    node: usize,
    renewed: u64,
}

enum Item {
    Arrive { node: usize, process: u64, action: Action, sent: u64 },
    Answer { node: usize, process: u64, event: Event },
}

impl World {
    fn new(seed: u64) -> Self {
        let node = || Node {
            election: Election::new(PROFILE),
            process: 0,
            cut_since: None,
            paused_until: 0,
            engine: true,
            beaten: 0,
            writing_until: 0,
            draining: false,
            inbox: Vec::new(),
        };
        Self {
            now: 0,
            random: Random(seed),
            queue: BTreeMap::new(),
            queued: 0,
            nodes: (0..NODES).map(|_| node()).collect(),
            index: 10,
            lock: None,
            sessions: BTreeMap::new(),
            delay_until: 0,
            watchers: Vec::new(),
            trouble: true,
            tokens: BTreeSet::new(),
        }
    }

    fn run_until(&mut self, end: u64) {
        while self.now < end {
            let tick = self.now - self.now % TICK + TICK;
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 < tick) {
                self.now = entry.key().0.max(self.now);
                let item = entry.remove();
                self.handle(item);
            }
            self.now = tick;
            self.expire();
            if self.trouble {
                self.make_trouble();
            }
            for node in 0..NODES {
                self.wake(node);
            }
            self.check();
        }
    }

    fn may_write(&self, node: usize) -> bool {
        let now = at(self.now);
        let Node { election, paused_until, .. } = &self.nodes[node];
        self.now >= *paused_until && election.grant(now).is_some_and(|grant| grant.permit(now).is_ok())
    }

    /// The claim. An open gate also begins a write now and then, which then must end before anyone else's gate opens.
    fn check(&mut self) {
        for node in (0..NODES).filter(|&node| self.may_write(node)).collect::<Vec<_>>() {
            for other in (0..NODES).filter(|&other| other != node) {
                assert!(!self.may_write(other), "at {}: {node} and {other} may write", self.now);
                let until = self.nodes[other].writing_until;
                assert!(until <= self.now, "at {}: {node} may write while {other} does until {until}", self.now);
            }
            self.tokens.extend(self.nodes[node].election.grant(at(self.now)).map(|grant| grant.token));
            let long = self.random.below(WRITE_MAX);
            let Node { writing_until, draining, .. } = &mut self.nodes[node];
            if !*draining {
                *writing_until = (*writing_until).max(self.now + long);
            }
        }
    }

    fn calm(&mut self) {
        self.trouble = false;
        for node in &mut self.nodes {
            node.cut_since = None;
            node.paused_until = 0;
            node.engine = true;
        }
    }

    fn make_trouble(&mut self) {
        let node = usize::try_from(self.random.below(NODES as u64)).unwrap();
        let long = self.random.below(20_000);
        match self.random.below(900) {
            0 => self.nodes[node].cut_since = Some(self.now),
            1..=8 => self.nodes[node].cut_since = None,
            9 => self.nodes[node].paused_until = self.now + long,
            10 => self.restart(node),
            // A stranger deletes the lock, overwrites it, or destroys a session.
            11 => {
                self.lock = None;
                self.touched();
            }
            12 => self.overwrite(),
            13 => {
                if let Some(id) = self.sessions.keys().next().cloned() {
                    self.end_session(&id);
                }
            }
            14 => self.nodes[node].draining = true,
            15 => self.nodes[node].engine = false,
            16..=20 => self.nodes[node].engine = true,
            _ => {}
        }
    }

    fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.election = Election::new(PROFILE);
        node.process += 1;
        node.draining = false;
        node.inbox.clear();
    }

    fn overwrite(&mut self) {
        self.index += 1;
        let modify_index = self.index;
        if let Some(lock) = &mut self.lock {
            *lock = Lock { modify_index, record: None, session: lock.session.take(), over: false };
            self.touched();
        }
    }

    fn event(&mut self, node: usize, event: Event) {
        let now = at(self.now);
        if self.now < self.nodes[node].paused_until {
            self.nodes[node].inbox.push(event);
            return;
        }
        self.nodes[node].election.observe(event, now);
        self.wake(node);
    }

    fn wake(&mut self, node: usize) {
        if self.now < self.nodes[node].paused_until {
            return;
        }
        let now = at(self.now);
        for event in std::mem::take(&mut self.nodes[node].inbox) {
            self.nodes[node].election.observe(event, now);
        }
        if self.nodes[node].draining && self.nodes[node].writing_until <= self.now {
            self.nodes[node].election.observe(Event::SignOff, now);
        }
        if self.nodes[node].election.finished() {
            // Its successor on the same node.
            self.restart(node);
        }
        let plan = self.nodes[node].election.plan(now);
        let process = self.nodes[node].process;
        for action in plan.actions {
            let item = Item::Arrive { node, process, action, sent: self.now };
            self.after_a_while(item);
        }
    }

    fn after_a_while(&mut self, item: Item) {
        let slow = if self.trouble && self.random.below(50) == 0 { 4000 } else { 20 };
        let at = self.now + 1 + self.random.below(slow);
        self.queued += 1;
        self.queue.insert((at, self.queued), item);
    }

    fn handle(&mut self, item: Item) {
        match item {
            Item::Arrive { node, process, action, sent } => {
                let task = action.task();
                let answer = match action {
                    Action::Watch { index } => return self.watch(node, index),
                    // These two do not leave the node.
                    Action::Probe if self.nodes[node].engine => Event::Probed,
                    Action::Beat { .. } => {
                        self.nodes[node].beaten = self.now;
                        Event::Beaten
                    }
                    _ if task == Task::Probe || self.is_cut(node) => Event::Failed(task, Failure::Unknown),
                    action => self.serve(node, action, sent),
                };
                self.after_a_while(Item::Answer { node, process, event: answer });
            }
            Item::Answer { node, process, event } => {
                let local = matches!(event, Event::Beaten | Event::Probed);
                // The answer was lost on its way: whatever was done is done.
                let event = match event.task() {
                    Some(task) if self.is_cut(node) && !local => Event::Failed(task, Failure::Unknown),
                    _ => event,
                };
                if self.nodes[node].process == process {
                    self.event(node, event);
                }
            }
        }
    }

    fn is_cut(&self, node: usize) -> bool {
        self.nodes[node].cut_since.is_some()
    }

    fn serve(&mut self, node: usize, action: Action, sent: u64) -> Event {
        match action {
            Action::Claim => Event::Claimed,
            Action::Register => Event::Registered,
            Action::Sweep => {
                let old: Vec<String> = self.sessions_of(node);
                for id in &old {
                    self.end_session(id);
                }
                Event::Swept
            }
            Action::CreateSession => {
                self.index += 1;
                let id = format!("s{}", self.index);
                self.sessions.insert(id.clone(), Session { node, renewed: self.now });
                Event::SessionMade(id)
            }
            Action::Renew { session } => match self.sessions.get_mut(&session) {
                Some(found) => {
                    found.renewed = self.now;
                    Event::Renewed(true)
                }
                None => Event::Renewed(false),
            },
            Action::Prove => Event::Proven { sent: at(sent), lock: self.lock.clone() },
            Action::Acquire { session, expect } => self.acquire(session, expect, sent),
            Action::Release { session, signed_off, .. } => {
                if self.lock.as_ref().is_some_and(|lock| lock.session.as_ref() == Some(&session)) {
                    self.index += 1;
                    self.lock = Some(Lock {
                        modify_index: self.index,
                        session: None,
                        record: Some(record(signed_off)),
                        over: false,
                    });
                    self.touched();
                }
                Event::Released
            }
            Action::Close { session } => {
                if let Some(id) = &session {
                    self.end_session(id);
                }
                Event::Closed
            }
            Action::Probe | Action::Beat { .. } | Action::Watch { .. } => unreachable!("handled before"),
        }
    }

    fn acquire(&mut self, session: String, expect: Option<u64>, sent: u64) -> Event {
        let unchanged = self.lock.as_ref().map(|lock| lock.modify_index) == expect;
        let holder = self.lock.as_ref().and_then(|lock| lock.session.clone());
        let takeable = holder.as_ref().is_none_or(|holder| *holder == session);
        if !unchanged || !takeable || self.now < self.delay_until || !self.sessions.contains_key(&session) {
            return Event::NotAcquired;
        }
        self.index += 1;
        let token = self.index;
        self.lock = Some(Lock {
            modify_index: token,
            session: Some(session.clone()),
            record: Some(record(false)),
            over: false,
        });
        self.touched();
        Event::Acquired { sent: at(sent), session, token, since: OffsetDateTime::UNIX_EPOCH }
    }

    fn watch(&mut self, node: usize, index: u64) {
        self.watchers.push((node, index));
        self.answer_watchers();
    }

    fn touched(&mut self) {
        if self.lock.is_none() {
            self.index += 1;
        }
        self.answer_watchers();
    }

    fn answer_watchers(&mut self) {
        let index = self.lock.as_ref().map_or(self.index, |lock| lock.modify_index);
        for (node, known) in std::mem::take(&mut self.watchers) {
            if known == index {
                self.watchers.push((node, known));
                continue;
            }
            let event = Event::Watched { lock: self.lock.clone(), index };
            let process = self.nodes[node].process;
            self.after_a_while(Item::Answer { node, process, event });
        }
    }

    fn expire(&mut self) {
        let over = |session: &Session| {
            let node = &self.nodes[session.node];
            let silent = self.now > node.beaten + ms(PROFILE.check_ttl);
            let gone = node.cut_since.is_some_and(|since| self.now > since + GOSSIP);
            gone || (silent && node.cut_since.is_none()) || self.now > session.renewed + 30_000
        };
        let ended: Vec<String> =
            self.sessions.iter().filter(|(_, session)| over(session)).map(|(id, _)| id.clone()).collect();
        for id in &ended {
            self.end_session(id);
        }
    }

    fn sessions_of(&self, node: usize) -> Vec<String> {
        self.sessions.iter().filter(|(_, session)| session.node == node).map(|(id, _)| id.clone()).collect()
    }

    fn end_session(&mut self, id: &str) {
        self.sessions.remove(id);
        if let Some(lock) = &mut self.lock
            && lock.session.as_deref() == Some(id)
        {
            self.index += 1;
            *lock = Lock { modify_index: self.index, session: None, record: lock.record.take(), over: false };
            self.delay_until = self.now + ms(PROFILE.lock_delay);
            self.touched();
        }
    }
}

/// SplitMix64: the same seed, the same world.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }
}

fn record(signed_off: bool) -> Record {
    Record {
        schema: 1,
        node: "n".to_owned(),
        address: String::new(),
        version: String::new(),
        since: OffsetDateTime::UNIX_EPOCH,
        lock_delay_ms: ms(PROFILE.lock_delay),
        signed_off,
    }
}

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}
