//! Candidates, their nodes, and an unreliable way from each to where the lock is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter::Sum;
use std::time::Duration;

use time::OffsetDateTime;

use super::super::lease::Profile;
use super::super::plan::Election;
use super::super::swarm::judge::Judge;
use super::super::swarm::slip::{Found, Kind, Slip};
use super::super::vocabulary::{Action, Event, Failure, Lock, Task};
use super::stores::{Store, record};

pub const NODES: usize = 3;
/// Objects that leaders write: enough that some stay untouched for a while.
const OBJECTS: usize = 200;
/// Longest write to the engine.
pub const WRITE_MAX: u64 = 2000;
const TICK: u64 = 100;
/// How soon Consul's gossip gives up a node that is cut off.
const GOSSIP: u64 = 5000;
/// How long a request is waited for.
const TIMEOUT: u64 = 2000;
/// How often a follower looks at the swarm's lock.
const LOOK_EVERY: u64 = 500;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// All but clocks.
    Plain,
    /// Clocks too: they jump, and stand still while a machine is stopped from outside.
    WithClocks,
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Leaderships.
    terms: u64,
    /// Writes to KV that came and were made, or were refused for want of the lock.
    kv: (u64, u64),
    /// Writes that their process was stopped before sending: all, refused by the object's version, made after a newer leader's.
    stalled: (u64, u64, u64),
    /// Moments at which two might write, in worlds whose clocks misbehave.
    doubled: u64,
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            terms: a.terms + b.terms,
            kv: (a.kv.0 + b.kv.0, a.kv.1 + b.kv.1),
            stalled: (a.stalled.0 + b.stalled.0, a.stalled.1 + b.stalled.1, a.stalled.2 + b.stalled.2),
            doubled: a.doubled + b.doubled,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { terms, kv, stalled, doubled } = self;
        write!(
            f,
            "{terms} leaderships; KV writes: {} made, {} refused, none out of order; residual: {} engine writes stopped before they were \
             sent, of which {} were refused by the version and {} came after a newer leader's, to objects that it had not changed; \
             {doubled} ticks with two writers where clocks jumped",
            kv.0, kv.1, stalled.0, stalled.1, stalled.2
        )
    }
}

pub struct World {
    pub now: u64,
    pub tally: Tally,
    /// Every token that a gate was open with.
    pub tokens: BTreeSet<u64>,
    profile: Profile,
    random: Random,
    queue: BTreeMap<(u64, u64), Item>,
    queued: u64,
    nodes: Vec<Node>,
    store: Store,
    trouble: Trouble,
    calm: bool,
    /// The largest token that was written to KV.
    kv_token: u64,
    /// The versions of some objects of the swarm.
    objects: [u64; OBJECTS],
    /// The largest token that one of them was written with.
    newest: u64,
}

struct Node {
    election: Election,
    /// Counts the processes of this node; what a former one asked for is answered to nobody.
    process: u64,
    /// What its clock is ahead of the world's.
    ahead: u64,
    cut: Option<u64>,
    paused_until: u64,
    engine: bool,
    beaten: u64,
    writing_until: u64,
    /// A write whose process was stopped before it was sent.
    stalled: Option<Stalled>,
    /// Told to stop: begins no write, and signs off when the last has ended.
    draining: bool,
    /// When to plan, should nothing happen before.
    wake: u64,
    /// Answers that wait for a paused process.
    inbox: Vec<Reply>,
    judge: Judge,
    told: Option<Told>,
    session: Option<String>,
}

/// A lock, or that there is none.
#[derive(PartialEq)]
struct Told(Option<Lock>);

#[derive(Debug, Clone, Copy)]
struct Stalled {
    token: u64,
    object: usize,
    version: u64,
}

#[allow(clippy::large_enum_variant, reason = "a few are in the queue at a time")]
enum Item {
    Arrive { node: usize, process: u64, request: Request, is_waited_for: bool },
    Answer { node: usize, process: u64, reply: Reply },
}

/// What a process sends.
#[allow(clippy::large_enum_variant, reason = "a few are in the queue at a time")]
enum Request {
    /// Consul does it at once.
    Consul { action: Action, sent: Duration },
    /// Read the swarm's lock, to go on with the action.
    Read(Action),
    /// Write the swarm's lock: the action's second half.
    Cas { found: Found, slip: Slip, task: Task, done: Event },
    /// Make the swarm's lock again.
    MakeAgain,
    /// A fenced write to KV.
    Kv { session: String, token: u64 },
}

/// What a process hears.
enum Reply {
    Event(Event),
    Read(Action, Option<Found>),
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, node) in self.nodes.iter().enumerate() {
            writeln!(f, "{number} at {:?}, to wake at {}: {:?}", self.clock(number), node.wake, node.election)?;
        }
        write!(f, "{}", self.now)
    }
}

impl World {
    pub fn new(kind: Kind, seed: u64, trouble: Trouble) -> Self {
        let profile = if kind == Kind::Consul { Profile::DEFAULT } else { Profile::SWARM };
        let mut random = Random(seed);
        let nodes = (0..NODES).map(|_| Node::new(profile, random.below(1_000_000_000))).collect();
        Self {
            now: 0,
            tally: Tally::default(),
            tokens: BTreeSet::new(),
            profile,
            random,
            queue: BTreeMap::new(),
            queued: 0,
            nodes,
            store: Store::new(kind, ms(profile.lock_delay)),
            trouble,
            calm: trouble == Trouble::None,
            kv_token: 0,
            objects: [1; OBJECTS],
            newest: 0,
        }
    }

    pub fn run_until(&mut self, end: u64) {
        while self.now < end {
            let tick = self.now - self.now % TICK + TICK;
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 < tick) {
                self.now = entry.key().0.max(self.now);
                let item = entry.remove();
                self.handle(item);
            }
            self.now = tick;
            self.expire();
            if !self.calm {
                self.make_trouble();
            }
            for node in 0..NODES {
                self.wake(node);
            }
            self.check();
        }
    }

    /// Who may write now.
    pub fn open(&self) -> Vec<usize> {
        (0..NODES).filter(|&node| self.may_write(node).is_some()).collect()
    }

    pub fn stop(&mut self, node: usize) {
        self.nodes[node].paused_until = u64::MAX;
    }

    pub fn drain(&mut self, node: usize) {
        self.nodes[node].draining = true;
        self.nodes[node].wake = 0;
    }

    pub fn step_down(&mut self, node: usize) {
        let now = self.clock(node);
        self.nodes[node].election.observe(Event::StepDown, now);
        self.nodes[node].wake = 0;
    }

    pub fn calm(&mut self) {
        self.calm = true;
        for node in &mut self.nodes {
            node.cut = None;
            node.paused_until = node.paused_until.min(self.now);
            node.engine = true;
        }
    }

    /// The token, if the node's gate is open.
    fn may_write(&self, node: usize) -> Option<u64> {
        let now = self.clock(node);
        let Node { election, paused_until, .. } = &self.nodes[node];
        let grant = election.grant(now).filter(|_| self.now >= *paused_until)?;
        grant.permit(now).ok().map(|permit| permit.token)
    }

    fn clock(&self, node: usize) -> Duration {
        at(self.now + self.nodes[node].ahead)
    }

    /// The claims. An open gate also begins a write now and then, which then must end before anyone else's gate opens.
    fn check(&mut self) {
        for node in 0..NODES {
            let Some(token) = self.may_write(node) else { continue };
            for other in (0..NODES).filter(|&other| other != node) {
                let until = self.nodes[other].writing_until;
                if self.may_write(other).is_some() || until > self.now {
                    assert_eq!(self.trouble, Trouble::WithClocks, "at {}: {node} and {other} may write", self.now);
                    self.tally.doubled += 1;
                }
            }
            if self.tokens.insert(token) {
                self.tally.terms += 1;
            }
            if !self.nodes[node].draining && self.random.below(4) == 0 {
                self.begin_write(node, token);
            }
            if matches!(self.store, Store::Consul(_)) && self.random.below(10) == 0 {
                let grant = self.nodes[node].election.grant(self.clock(node));
                let session = grant.map(|grant| grant.session).unwrap_or_default();
                self.send(node, Request::Kv { session, token }, Task::Close);
            }
        }
    }

    fn begin_write(&mut self, node: usize, token: u64) {
        let long = self.random.below(WRITE_MAX);
        let Node { writing_until, .. } = &mut self.nodes[node];
        *writing_until = (*writing_until).max(self.now + long);
        let newest = self.newest;
        assert!(
            token >= newest || self.trouble == Trouble::WithClocks,
            "at {}: {token} writes after {newest}",
            self.now
        );
        let object = self.any_object();
        self.objects[object] += 1;
        self.newest = newest.max(token);
    }

    fn any_object(&mut self) -> usize {
        usize::try_from(self.random.below(OBJECTS as u64)).unwrap()
    }

    fn make_trouble(&mut self) {
        let node = usize::try_from(self.random.below(NODES as u64)).unwrap();
        let long = self.random.below(20_000);
        match self.random.below(450) {
            0 => self.nodes[node].cut = Some(self.now),
            1..=8 => self.nodes[node].cut = None,
            9 => self.pause(node, long),
            10 => self.restart(node),
            11 => self.store.delete(self.now),
            12 => self.store.overwrite(self.now),
            // A stranger destroys a session.
            13 => {
                if let Store::Consul(store) = &mut self.store
                    && let Some(id) = store.model.sessions_of(node).first()
                {
                    store.model.session_end(id, self.now);
                }
            }
            14 => self.drain(node),
            15 => self.nodes[node].engine = false,
            16..=20 => self.nodes[node].engine = true,
            21 => self.step_down(node),
            22 if self.trouble == Trouble::WithClocks => self.nodes[node].ahead += long,
            // The whole machine stood still, its clock too.
            23 if self.trouble == Trouble::WithClocks => {
                self.pause(node, long);
                self.nodes[node].ahead = self.nodes[node].ahead.saturating_sub(long);
            }
            _ => {}
        }
        self.answer_watchers();
    }

    /// Stops a process for so long, perhaps between asking its gate and sending its write.
    fn pause(&mut self, node: usize, long: u64) {
        let token = self.may_write(node).filter(|_| self.random.below(2) == 0);
        let object = self.any_object();
        let version = self.objects[object];
        let node = &mut self.nodes[node];
        node.paused_until = node.paused_until.max(self.now + long);
        node.stalled = token.map(|token| Stalled { token, object, version }).or(node.stalled);
    }

    fn restart(&mut self, node: usize) {
        let Node { process, ahead, cut, engine, beaten, writing_until, .. } = self.nodes[node];
        self.nodes[node] =
            Node { process: process + 1, cut, engine, beaten, writing_until, ..Node::new(self.profile, ahead) };
    }

    fn hear(&mut self, node: usize, reply: Reply) {
        if self.now < self.nodes[node].paused_until {
            self.nodes[node].inbox.push(reply);
            return;
        }
        self.take(node, reply);
        self.nodes[node].wake = 0;
        self.wake(node);
    }

    fn take(&mut self, node: usize, reply: Reply) {
        let now = self.clock(node);
        match reply {
            Reply::Event(event) => {
                if let Event::SessionMade(session) = &event {
                    self.nodes[node].session = Some(session.clone());
                }
                self.nodes[node].election.observe(event, now);
            }
            Reply::Read(action, found) => self.go_on(node, action, found, now),
        }
    }

    fn wake(&mut self, node: usize) {
        if self.now < self.nodes[node].paused_until {
            return;
        }
        for reply in std::mem::take(&mut self.nodes[node].inbox) {
            self.take(node, reply);
            self.nodes[node].wake = 0;
        }
        if let Some(stalled) = self.nodes[node].stalled.take() {
            self.land(stalled);
        }
        let now = self.clock(node);
        if self.nodes[node].draining && self.nodes[node].writing_until <= self.now {
            self.nodes[node].election.observe(Event::SignOff, now);
            self.nodes[node].wake = 0;
        }
        if self.nodes[node].election.finished() {
            // Its successor on the same node.
            self.restart(node);
        }
        if self.now < self.nodes[node].wake {
            return;
        }
        let plan = self.nodes[node].election.plan(now);
        let pause = plan.wake.map_or(u64::MAX / 2, |wake| ms(wake.saturating_sub(now)));
        self.nodes[node].wake = self.now + pause;
        for action in plan.actions {
            self.begin(node, action);
        }
    }

    /// A write that was stopped on its way comes at last; the engine compares the version.
    fn land(&mut self, Stalled { token, object, version }: Stalled) {
        self.tally.stalled.0 += 1;
        if version == self.objects[object] {
            self.tally.stalled.2 += u64::from(token < self.newest);
            self.objects[object] += 1;
        } else {
            self.tally.stalled.1 += 1;
        }
    }

    fn begin(&mut self, node: usize, action: Action) {
        let task = action.task();
        let local = match (&action, &self.store) {
            (Action::Probe, _) if self.nodes[node].engine => Some(Event::Probed),
            (Action::Probe, _) => Some(Event::Failed(Task::Probe, Failure::Refused)),
            (Action::Beat { .. }, _) => {
                self.nodes[node].beaten = self.now;
                Some(Event::Beaten)
            }
            (_, Store::Consul(_)) => None,
            (Action::Claim, _) => Some(Event::Claimed),
            (Action::Sweep, _) => Some(Event::Swept),
            (Action::Register, _) => Some(Event::Registered),
            (Action::Renew { .. }, _) => Some(Event::Renewed(true)),
            (Action::Close { .. }, _) => Some(Event::Closed),
            (Action::CreateSession, _) => {
                Some(Event::SessionMade(format!("{node}-{}-{}", self.nodes[node].process, self.now)))
            }
            (_, Store::Swarm(_)) => None,
        };
        match (local, &self.store) {
            (Some(event), _) => self.answer(node, Reply::Event(event), 1),
            (None, Store::Consul(_)) => {
                let sent = self.clock(node);
                self.send(node, Request::Consul { action, sent }, task);
            }
            (None, Store::Swarm(_)) => self.send(node, Request::Read(action), task),
        }
    }

    /// The second half of what takes a read and a write in the swarm; [`super::super::BySwarm`] does the same.
    fn go_on(&mut self, node: usize, action: Action, found: Option<Found>, now: Duration) {
        let task = action.task();
        let lock_delay = self.profile.lock_delay;
        let delay = ms(lock_delay);
        let session = self.nodes[node].session.clone();
        let cas = |found: &Found, slip: Slip, done| Request::Cas { found: found.clone(), slip, task, done };
        let request = match (&action, &found) {
            (Action::Watch { .. }, _) => {
                let Node { judge, told, .. } = &mut self.nodes[node];
                let (lock, over_at) = judge.see(found.as_ref(), lock_delay, now);
                let now_told = Told(lock.clone());
                if told.as_ref() == Some(&now_told) {
                    let until_over = over_at.map_or(LOOK_EVERY, |over_at| ms(over_at.saturating_sub(now)));
                    let pause = LOOK_EVERY.min(until_over);
                    return self.send_after(node, Request::Read(action), Task::Watch, pause);
                }
                *told = Some(now_told);
                let event = Event::Watched { lock, index: found.map_or(0, |found| found.version) };
                return self.nodes[node].election.observe(event, now);
            }
            (Action::Prove, Some(found)) => session.as_deref().and_then(|ours| {
                let slip = found.beaten(ours)?;
                let record = slip.record.clone();
                let lock = Lock { modify_index: slip.term, session: session.clone(), record, over: false };
                Some(cas(found, slip, Event::Proven { sent: now, lock: Some(lock) }))
            }),
            (Action::Acquire { session, expect: Some(expect) }, Some(found)) => {
                found.taken(*expect, session, record(false, delay)).map(|slip| {
                    let (session, token, since) = (session.clone(), slip.term, OffsetDateTime::UNIX_EPOCH);
                    cas(found, slip, Event::Acquired { sent: now, session, token, since })
                })
            }
            (Action::Acquire { expect: None, .. }, None) => Some(Request::MakeAgain),
            (Action::Release { session, signed_off, .. }, Some(found)) => {
                found.given_back(session, record(*signed_off, delay)).map(|slip| cas(found, slip, Event::Released))
            }
            _ => None,
        };
        match (request, action) {
            (Some(request), _) => self.send(node, request, task),
            (None, Action::Prove) => {
                let lock = self.nodes[node].judge.see(found.as_ref(), lock_delay, now).0;
                self.nodes[node].election.observe(Event::Proven { sent: now, lock }, now);
            }
            (None, Action::Release { .. }) => self.nodes[node].election.observe(Event::Released, now),
            (None, _) => self.nodes[node].election.observe(Event::NotAcquired, now),
        }
    }

    fn send(&mut self, node: usize, request: Request, task: Task) {
        self.send_after(node, request, task, 0);
    }

    /// Sends; one that takes long counts as lost for its sender, and arrives all the same. KV writes nobody waits for.
    fn send_after(&mut self, node: usize, request: Request, task: Task, pause: u64) {
        let process = self.nodes[node].process;
        let slow = if !self.calm && self.random.below(50) == 0 { 6000 } else { 20 };
        let delay = 1 + self.random.below(slow);
        let is_kv = matches!(request, Request::Kv { .. });
        let is_lost = delay > TIMEOUT;
        if is_lost && !is_kv {
            self.answer(node, Reply::Event(Event::Failed(task, Failure::Unknown)), pause + TIMEOUT);
        }
        let is_waited_for = !is_lost && !is_kv;
        self.put(Item::Arrive { node, process, request, is_waited_for }, pause + delay);
    }

    fn answer(&mut self, node: usize, reply: Reply, delay: u64) {
        let process = self.nodes[node].process;
        self.put(Item::Answer { node, process, reply }, delay);
    }

    fn put(&mut self, item: Item, delay: u64) {
        self.queued += 1;
        self.queue.insert((self.now + delay, self.queued), item);
    }

    fn handle(&mut self, item: Item) {
        match item {
            Item::Arrive { node, process, request, is_waited_for } => {
                let task = request.task();
                let is_lost = self.nodes[node].cut.is_some();
                let reply = if is_lost { None } else { self.serve(node, request) };
                // The answer may be lost on its way: whatever was done is done.
                let is_lost = is_lost || (!self.calm && self.random.below(100) == 0);
                let reply = match reply {
                    _ if is_lost => Some(Reply::Event(Event::Failed(task, Failure::Unknown))),
                    reply => reply,
                };
                if let Some(reply) = reply.filter(|_| is_waited_for) {
                    let delay = 1 + self.random.below(20);
                    self.put(Item::Answer { node, process, reply }, delay);
                }
                self.answer_watchers();
            }
            Item::Answer { node, process, reply } => {
                if self.nodes[node].process == process {
                    self.hear(node, reply);
                }
            }
        }
    }

    /// What the store does; none if the answer comes later.
    fn serve(&mut self, node: usize, request: Request) -> Option<Reply> {
        let delay = ms(self.profile.lock_delay);
        // A manager may be behind the others, but not by much, and not for long.
        let behind = if !self.calm && self.random.below(20) == 0 { self.random.below(5000) } else { 0 };
        let now = self.now;
        Some(Reply::Event(match (&mut self.store, request) {
            (Store::Consul(store), Request::Consul { action: Action::Watch { index }, .. }) => {
                store.watchers.push((node, index));
                return None;
            }
            (Store::Consul(store), Request::Consul { action, sent }) => store.serve(node, action, sent, delay, now),
            (Store::Consul(store), Request::Kv { session, token }) => {
                if store.model.lets_through(&session, token) {
                    assert!(token >= self.kv_token, "at {now}: KV is written with {token} after {}", self.kv_token);
                    self.kv_token = token;
                    self.tally.kv.0 += 1;
                } else {
                    self.tally.kv.1 += 1;
                }
                return None;
            }
            (Store::Swarm(store), Request::Read(action)) => {
                return Some(Reply::Read(action, store.read(behind, now)));
            }
            (Store::Swarm(store), Request::Cas { found, slip, task, done }) => {
                match (store.write(&found.id, found.version, slip, now), task) {
                    (true, _) => done,
                    (false, Task::Acquire) => Event::NotAcquired,
                    (false, _) => Event::Failed(task, Failure::Unknown),
                }
            }
            (Store::Swarm(store), Request::MakeAgain) => {
                store.make_again(delay, now);
                Event::NotAcquired
            }
            _ => unreachable!("what is asked of one store does not go to the other"),
        }))
    }

    fn answer_watchers(&mut self) {
        let Store::Consul(store) = &mut self.store else { return };
        for (node, event) in store.answers() {
            // A watch of a node that is cut off fails; one of a former process is answered to nobody.
            let reply = match self.nodes[node].cut {
                Some(_) => Event::Failed(Task::Watch, Failure::Unknown),
                None => event,
            };
            let delay = 1 + self.random.below(20);
            self.answer(node, Reply::Event(reply), delay);
        }
    }

    fn expire(&mut self) {
        let (now, nodes, check_ttl) = (self.now, &self.nodes, ms(self.profile.check_ttl));
        let over = |node: usize| match nodes[node].cut {
            Some(since) => now > since + GOSSIP,
            None => now > nodes[node].beaten + check_ttl,
        };
        if let Store::Consul(store) = &mut self.store {
            store.expire(now, &over);
        }
        self.answer_watchers();
    }
}

impl Node {
    fn new(profile: Profile, ahead: u64) -> Self {
        Self {
            election: Election::new(profile),
            process: 0,
            ahead,
            cut: None,
            paused_until: 0,
            engine: true,
            beaten: 0,
            writing_until: 0,
            stalled: None,
            draining: false,
            wake: 0,
            inbox: Vec::new(),
            judge: Judge::default(),
            told: None,
            session: None,
        }
    }
}

impl Request {
    fn task(&self) -> Task {
        match self {
            Self::Consul { action, .. } | Self::Read(action) => action.task(),
            Self::Cas { task, .. } => *task,
            Self::MakeAgain => Task::Acquire,
            Self::Kv { .. } => Task::Close,
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

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap()
}
