//! What every coordination promises: one suite for the lock in Consul and the lock in the swarm.
//!
//! A [`Ground`] is where the lock is; [`suite!`] makes a test of each promise on it.

// A helper of a test fails by panicking, as the test does.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, select_all};
use swarmkeeper::leader::{self, Coordination, Error, Gate, Leadership, Options, Probe, Profile};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const CLUSTER: &str = "test";

/// Longest wait for something that should be a matter of seconds, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Where a lock is, and what may happen to it there.
pub trait Ground: Sized {
    /// How quick candidates are.
    const PROFILE: Profile;
    /// How long after a leader's death another writes, at most.
    const REPLACED_MAX: Duration;
    /// How long a clean hand-over takes, at most.
    const HANDED_OVER_MAX: Duration;

    /// A new one, without a leader.
    fn new() -> BoxFuture<'static, Self>;
    /// The lock, for the candidate of `options`.
    fn lock(&self, options: Options) -> BoxFuture<'_, Arc<dyn Coordination>>;
    /// A stranger deletes the lock.
    fn delete(&self) -> BoxFuture<'_, ()>;
    /// The store answers nobody for so long.
    fn outage(&mut self, long: Duration) -> BoxFuture<'_, ()>;
}

pub struct Candidate {
    pub node: String,
    pub leadership: watch::Receiver<Leadership>,
    pub gate: Gate,
    pub lock: Arc<dyn Coordination>,
    pub shutdown: CancellationToken,
    pub task: JoinHandle<Result<(), Error>>,
}

pub fn options(node: &str, swarm: &str, profile: Profile) -> Options {
    Options {
        cluster: CLUSTER.to_owned(),
        node: node.to_owned(),
        address: format!("http://{node}:7000"),
        version: "1.2.3".to_owned(),
        profile,
        swarm_cluster_id: swarm.to_owned(),
    }
}

impl Candidate {
    pub async fn stand<G: Ground>(ground: &G, node: &str) -> Self {
        let options = options(node, "swarm-1", G::PROFILE);
        Self::stand_at(ground.lock(options.clone()).await, options)
    }

    pub fn stand_at(lock: Arc<dyn Coordination>, options: Options) -> Self {
        let probe: Probe = Arc::new(|| async { Ok(()) }.boxed());
        let node = options.node.clone();
        let (mut candidate, leadership, gate) = leader::stand(Arc::clone(&lock), options, probe);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { candidate.run(shutdown).await }
        });
        Self { node, leadership, gate, lock, shutdown, task }
    }

    pub fn is_open(&self) -> bool {
        self.gate.permit().is_ok()
    }

    pub async fn becomes(&mut self, what: impl FnMut(&Leadership) -> bool) -> Leadership {
        let waited = tokio::time::timeout(PATIENCE, self.leadership.wait_for(what)).await;
        waited.unwrap_or_else(|_| panic!("{}: {:?}", self.node, self.gate)).unwrap().clone()
    }

    /// Waits until it may write; its token.
    pub async fn opens(&self) -> u64 {
        let opened = tokio::time::timeout(PATIENCE, self.gate.opened()).await;
        opened.unwrap_or_else(|_| panic!("{}: {:?}", self.node, self.gate)).unwrap().token
    }

    /// Waits until it may write with another token than this.
    pub async fn opens_anew(&self, before: u64) -> u64 {
        let begin = Instant::now();
        loop {
            let token = self.opens().await;
            if token != before {
                return token;
            }
            assert!(begin.elapsed() < PATIENCE, "{}: {:?}", self.node, self.gate);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn follows(&mut self, leader: &str) {
        self.becomes(|now| matches!(now, Leadership::Follower { leader: Some(info) } if info.node == leader)).await;
    }

    pub async fn sign_off(self) {
        self.shutdown.cancel();
        tokio::time::timeout(leader::SIGN_OFF_MAX + Duration::from_secs(1), self.task).await.unwrap().unwrap().unwrap();
    }
}

/// The position of the first whose gate is open.
pub async fn first_open(candidates: &[Candidate]) -> usize {
    let begin = Instant::now();
    loop {
        if let Some(at) = candidates.iter().position(Candidate::is_open) {
            return at;
        }
        assert!(begin.elapsed() < PATIENCE, "nobody leads after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Three candidates that all know who leads, and the leader apart.
async fn three<G: Ground>(ground: &G) -> (Candidate, Vec<Candidate>) {
    let mut candidates = Vec::new();
    for node in ["n1", "n2", "n3"] {
        candidates.push(Candidate::stand(ground, node).await);
    }
    let at = first_open(&candidates).await;
    let leader = candidates.swap_remove(at);
    for follower in &mut candidates {
        follower.follows(&leader.node).await;
        assert!(!follower.is_open());
    }
    (leader, candidates)
}

async fn first_to_open(candidates: &[Candidate]) -> (u64, String) {
    let (permit, at, _) = select_all(candidates.iter().map(|follower| follower.gate.opened().boxed())).await;
    (permit.unwrap().token, candidates[at].node.clone())
}

pub async fn one_of_three_leads_and_hands_over_cleanly<G: Ground>() {
    let ground = G::new().await;
    let (leader, followers) = three(&ground).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = leader.opens().await;
    let info = followers[0].lock.current().await.unwrap().unwrap();
    assert_eq!((info.node, info.token, info.version.as_str()), (leader.node.clone(), before, "1.2.3"));
    assert_eq!(info.address, format!("http://{}:7000", leader.node));
    let candidates = leader.lock.candidates().await.unwrap();
    assert_eq!(candidates.iter().filter(|candidate| candidate.stands).count(), 3, "{candidates:?}");

    let begin = Instant::now();
    let ((after, took), ()) = tokio::join!(
        async {
            let (token, _) = first_to_open(&followers).await;
            (token, begin.elapsed())
        },
        leader.sign_off()
    );
    println!("clean hand-over: {took:?}");
    assert!(took < G::HANDED_OVER_MAX, "{took:?}");
    assert!(after > before);
}

pub async fn a_killed_leader_is_replaced_and_its_gate_is_closed<G: Ground>() {
    let ground = G::new().await;
    let (leader, followers) = three(&ground).await;
    let before = leader.opens().await;
    leader.task.abort();
    let begin = Instant::now();
    let (after, _) = tokio::time::timeout(PATIENCE, first_to_open(&followers)).await.unwrap();
    let took = begin.elapsed();
    println!("killed leader replaced after {took:?}");
    assert!(took < G::REPLACED_MAX + Duration::from_secs(2), "{took:?}");
    assert!(!leader.is_open() && after > before);
}

pub async fn a_leader_that_steps_down_hands_over_and_is_there_when_it_is_needed_again<G: Ground>() {
    let ground = G::new().await;
    let (mut leader, followers) = three(&ground).await;
    let before = leader.opens().await;
    let begin = Instant::now();
    leader.gate.step_down();
    leader.becomes(|now| matches!(now, Leadership::Follower { .. })).await;
    assert!(!leader.is_open(), "the gate closes before the lock is given back");
    let (after, next) = tokio::time::timeout(PATIENCE, first_to_open(&followers)).await.unwrap();
    let took = begin.elapsed();
    println!("stepped down and handed over in {took:?}");
    assert!(took >= G::PROFILE.margin, "no write can be under way any more: {took:?}");
    assert!(took < G::PROFILE.margin + G::HANDED_OVER_MAX, "{took:?}");
    assert!(after > before && next != leader.node);
    // Another one has led since: it stands again when nobody else is left.
    leader.follows(&next).await;
    for follower in followers {
        follower.sign_off().await;
    }
    leader.opens().await;
}

pub async fn a_lock_deleted_by_a_stranger_never_lets_two_write<G: Ground>() {
    let ground = G::new().await;
    let (leader, mut candidates) = three(&ground).await;
    let before = leader.opens().await;
    candidates.push(leader);
    ground.delete().await;
    let begin = Instant::now();
    let mut closed = false;
    let after = loop {
        let open: Vec<u64> = candidates.iter().filter_map(|c| Some(c.gate.permit().ok()?.token)).collect();
        assert!(open.len() < 2, "{open:?}");
        closed |= open.is_empty();
        match open.first() {
            Some(token) if *token != before => break *token,
            _ => assert!(begin.elapsed() < PATIENCE),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert!(closed && after > before);
}

pub async fn an_outage_suspends_the_leader_and_then_there_is_one_again<G: Ground>() {
    let mut ground = G::new().await;
    let mut leader = Candidate::stand(&ground, "n1").await;
    leader.opens().await;
    let mut leadership = leader.leadership.clone();
    let (suspended, ()) = tokio::join!(
        tokio::time::timeout(PATIENCE, async {
            let lost = |now: &Leadership| now.token().is_none();
            leadership.wait_for(lost).await.map(|_| ()).unwrap();
        }),
        ground.outage(G::PROFILE.lease() + Duration::from_secs(2))
    );
    suspended.unwrap();
    leader.becomes(|now| now.token().is_some()).await;
    leader.opens().await;
    leader.sign_off().await;
}

pub async fn a_candidate_that_comes_back_on_its_node_is_another_one<G: Ground>() {
    let ground = G::new().await;
    let first = Candidate::stand(&ground, "n1").await;
    let before = first.opens().await;
    first.task.abort();
    let again = Candidate::stand(&ground, "n1").await;
    let begin = Instant::now();
    assert!(again.opens().await > before);
    let took = begin.elapsed();
    println!("came back after {took:?}");
    assert!(took < G::REPLACED_MAX + Duration::from_secs(2), "{took:?}");
}

/// A test of every promise, on the ground named.
#[macro_export]
macro_rules! suite {
    ($ground:ty) => {
        $crate::suite! { $ground:
            one_of_three_leads_and_hands_over_cleanly
            a_killed_leader_is_replaced_and_its_gate_is_closed
            a_leader_that_steps_down_hands_over_and_is_there_when_it_is_needed_again
            a_lock_deleted_by_a_stranger_never_lets_two_write
            an_outage_suspends_the_leader_and_then_there_is_one_again
            a_candidate_that_comes_back_on_its_node_is_another_one
        }
    };
    ($ground:ty: $($promise:ident)*) => {
        $(#[tokio::test]
        async fn $promise() {
            $crate::coordination::$promise::<$ground>().await;
        })*
    };
}
