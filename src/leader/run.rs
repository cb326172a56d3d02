//! The effects of an election: sends what `plan` wants, and reports what came of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::FuturesUnordered;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock::boottime;
use super::coordination::{Coordination, Trouble};
use super::fence::Notes;
use super::plan::Election;
use super::vocabulary::{Action, Event, Failure, Task};
use super::{Error, Gate, Grant, Hindrance, Leadership, Options, Probe};

/// How long signing off may take; a stop signal leaves ten seconds in all.
pub const SIGN_OFF_MAX: Duration = Duration::from_secs(3);

/// How long the engine may take to list its services and to say which coordination is in force.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Prepares a candidate: what to run, what to watch, and what to ask before a write.
pub fn stand(
    lock: Arc<dyn Coordination>,
    options: Options,
    probe: Probe,
) -> (Candidate, watch::Receiver<Leadership>, Gate) {
    let (leadership, seen) = watch::channel(Leadership::Follower { leader: None });
    let (grant, granted) = watch::channel(None);
    let notes = Arc::new(Notes::default());
    let gate = Gate::new(granted, Arc::clone(&notes));
    let sender = Arc::new(Sender { lock, probe });
    (Candidate { options, sender, leadership, grant, notes, trouble: BTreeSet::new() }, seen, gate)
}

/// One manager's part in the election.
pub struct Candidate {
    options: Options,
    sender: Arc<Sender>,
    leadership: watch::Sender<Leadership>,
    grant: watch::Sender<Option<Grant>>,
    notes: Arc<Notes>,
    /// The kinds of request that failed last time.
    trouble: BTreeSet<Task>,
}

impl Candidate {
    /// Stands, leads and follows until `shutdown`, then signs off within [`SIGN_OFF_MAX`].
    ///
    /// Cancel `shutdown` when the loops that write have ended: signing off tells the successor that nothing of ours is under way.
    /// Ends by itself only if it may not stand; the error says why. What it told last, that this node follows, stays told for as long as
    /// the candidate is kept: keep it while anybody listens.
    pub async fn run(&mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut election = Election::new(self.options.profile);
        let mut under_way: FuturesUnordered<BoxFuture<'static, Result<Event, Failed>>> = FuturesUnordered::new();
        let mut stop_at: Option<Instant> = None;
        loop {
            let now = boottime();
            let plan = election.plan(now);
            under_way.extend(plan.actions.into_iter().map(|action| Arc::clone(&self.sender).send(action).boxed()));
            self.show(&election, now);
            if election.finished() {
                break;
            }
            let pause = plan.wake.map_or(Duration::MAX, |wake| wake.saturating_sub(now));
            // Every arm is cancel-safe: what is under way stays in its queue, and the others hold nothing.
            let event = tokio::select! {
                () = shutdown.cancelled(), if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + SIGN_OFF_MAX);
                    Some(Event::SignOff)
                }
                () = sleep_until(stop_at.unwrap_or_else(Instant::now)), if stop_at.is_some() => {
                    warn!(limit = ?SIGN_OFF_MAX, "not signed off in time; the lock is free when this node has been silent for long enough");
                    break;
                }
                Some(result) = under_way.next() => Some(self.report(result)),
                () = self.notes.doubt.notified() => Some(Event::Doubt),
                () = self.notes.step_down.notified() => Some(Event::StepDown),
                () = sleep(pause) => None,
            };
            if let Some(event) = event {
                election.observe(event, boottime());
            }
        }
        election.barred().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Tells everyone what we are; logs it if it is something else than before.
    fn show(&self, election: &Election, now: Duration) {
        // The grant first: nobody may hear of a leadership and find the gate of the one before.
        self.grant.send_replace(election.grant(now));
        let next = election.leadership(now);
        let changed = self.leadership.send_if_modified(|current| {
            let changed = *current != next;
            current.clone_from(&next);
            changed
        });
        if changed {
            let node = &self.options.node;
            match &next {
                Leadership::Leading { token, writable_from, .. } => {
                    let wait = writable_from.saturating_sub(now);
                    info!(%node, token, ?wait, "this node leads");
                }
                Leadership::Suspended { token, .. } => {
                    warn!(%node, token, "writes suspended: the lock was not confirmed in time");
                }
                Leadership::Follower { leader: Some(leader) } => {
                    info!(%node, leader = leader.node, token = leader.token, "this node follows");
                }
                Leadership::Follower { leader: None } => info!(%node, "no leader known"),
            }
        }
    }

    /// Logs the first failure and the recovery, not the repeats.
    fn report(&mut self, result: Result<Event, Failed>) -> Event {
        let node = &self.options.node;
        match result {
            Ok(event) => {
                let recovered = event.task().is_some_and(|task| self.trouble.remove(&task));
                if recovered && self.trouble.is_empty() {
                    info!(%node, "election: all is well again");
                }
                event
            }
            Err(Failed { task, failure, reason }) => {
                if self.trouble.insert(task) {
                    warn!(%node, %reason, "election: {task:?} failed; trying again");
                }
                Event::Failed(task, failure)
            }
        }
    }
}

/// A request that failed.
struct Failed {
    task: Task,
    failure: Failure,
    reason: String,
}

/// Who sends the requests.
struct Sender {
    lock: Arc<dyn Coordination>,
    probe: Probe,
}

impl Sender {
    async fn send(self: Arc<Self>, action: Action) -> Result<Event, Failed> {
        let task = action.task();
        let answer = match action {
            Action::Probe => self.probe().await,
            action => self.lock.perform(action, OffsetDateTime::now_utc()).await,
        };
        answer.map_err(|Trouble { failure, reason }| Failed { task, failure, reason })
    }

    async fn probe(&self) -> Result<Event, Trouble> {
        let refused = |reason| Err(Trouble { failure: Failure::Refused, reason });
        match timeout(PROBE_TIMEOUT, (self.probe)()).await {
            Ok(Ok(())) => Ok(Event::Probed),
            Ok(Err(Hindrance::Barred(error))) => Ok(Event::Barred(error)),
            Ok(Err(Hindrance::Engine(reason))) => refused(format!("the docker engine: {reason}")),
            Err(_) => refused(format!("the docker engine did not list its services within {PROBE_TIMEOUT:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Profile;
    use super::*;
    use crate::leader::LeaderInfo;
    use crate::status::Candidate as Standing;

    /// A lock that nobody gets to, but can be let go of.
    struct Unreachable;

    impl Coordination for Unreachable {
        fn perform(&self, action: Action, _now: OffsetDateTime) -> BoxFuture<'_, Result<Event, Trouble>> {
            async move {
                match action {
                    Action::Close { .. } => Ok(Event::Closed),
                    _ => Err(Trouble::unknown("out of reach")),
                }
            }
            .boxed()
        }

        fn current(&self) -> BoxFuture<'_, Result<Option<LeaderInfo>, Trouble>> {
            async { Ok(None) }.boxed()
        }

        fn candidates(&self) -> BoxFuture<'_, Result<Vec<Standing>, Trouble>> {
            async { Ok(Vec::new()) }.boxed()
        }
    }

    /// Loops that follow the leadership end when nobody can tell of it any more, and the agent with them: swarm would start another one,
    /// which would know nothing of having been told to leave.
    #[tokio::test]
    async fn what_a_barred_candidate_told_stays_told() {
        let options = Options {
            cluster: "lab".into(),
            node: "m1".into(),
            address: String::new(),
            version: String::new(),
            profile: Profile::DEFAULT,
            swarm_cluster_id: String::new(),
        };
        let probe: Probe = Arc::new(|| async { Err(Hindrance::Barred(Error::Left)) }.boxed());
        let (mut candidate, leadership, _gate) = stand(Arc::new(Unreachable), options, probe);
        assert_eq!(candidate.run(CancellationToken::new()).await, Err(Error::Left));
        assert!(leadership.has_changed().is_ok(), "somebody can still tell");
        assert_eq!(*leadership.borrow(), Leadership::Follower { leader: None });
    }
}
