//! The loop: pass, wait, pass.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::facts::News;
use super::wanted::Remark;
use super::{Engine, Error, Options, Outcome, Registrar, SelfState};
use crate::io::consul::Consul;
use crate::io::docker;

/// A pass is made at the latest this long after the last, unless the operator says otherwise: it repeats the agent's own checks, and
/// finds what events did not tell.
pub const PASS_INTERVAL: Duration = super::own::REFRESH;

/// How soon a pass, or the stream of events, is tried again after a failure.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long events are collected after the first before a pass is made.
pub const DEBOUNCE: Duration = Duration::from_millis(2);

/// The signal that ends a container at once.
const SIGKILL: u16 = 9;

/// Most events collected before a pass is made.
const EVENTS_MAX: usize = 1024;

/// Keeps the node's registrations until `shutdown`, and takes none away then.
pub async fn run<E: Engine>(
    options: Options,
    engine: E,
    consul: Consul,
    mut self_state: watch::Receiver<SelfState>,
    shutdown: CancellationToken,
) {
    let resync = options.rules.resync;
    let mut news = News::new(consul.clone(), options.facts.generation.clone());
    let mut registrar = Registrar::new(options, engine, consul);
    let mut said = Said::default();
    let mut events = Events::default();
    let mut watched = true;
    let mut answers = true;
    loop {
        // Before the list, so that nothing falls between the two.
        events.keep_open(&registrar.engine, answers, Instant::now());
        let state = self_state.borrow_and_update().clone();
        let outcome = registrar.pass(&state, Instant::now(), &shutdown).await;
        if shutdown.is_cancelled() {
            return;
        }
        said.say(&outcome);
        answers = outcome.as_ref().is_ok_and(|outcome| outcome.engine.is_none());
        let sleep = tokio::time::sleep(pause(&outcome, events.lost, resync));

        // Every arm is cancel-safe: a token, a watch, a stream, a kept request and a timer lose nothing when another arm is taken.
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = self_state.changed(), if watched => watched = changed.is_ok(),
            event = events.next() => {
                if let Some(event) = event {
                    registrar.mark(event, Instant::now());
                    events.collect(|event| registrar.mark(event, Instant::now())).await;
                }
            }
            () = news.next() => registrar.news(),
            () = sleep => {}
        }
    }
}

/// The time after which something must be looked at although nothing happened.
fn pause(outcome: &Result<Outcome, Error>, events_lost: bool, resync: Duration) -> Duration {
    match outcome {
        Ok(outcome) if outcome.unfinished => Duration::ZERO,
        Ok(outcome) if outcome.engine.is_none() && !events_lost => resync,
        _ => RETRY_INTERVAL,
    }
}

/// The stream of events, while there is one.
#[derive(Default)]
struct Events {
    stream: Option<BoxStream<'static, Result<docker::Event, docker::Error>>>,
    /// When the stream was opened last.
    opened: Option<Instant>,
    /// True from the stream's end until a new one has held for [`RETRY_INTERVAL`] with an engine that answers.
    lost: bool,
}

impl Events {
    /// Opens a stream if there is none, but not more often than every [`RETRY_INTERVAL`]; `answers` is what the last pass found.
    fn keep_open(&mut self, engine: &impl Engine, answers: bool, now: Instant) {
        if self.opened.is_some_and(|at| now.duration_since(at) < RETRY_INTERVAL) {
            return;
        }
        if self.stream.is_none() {
            self.stream = Some(engine.events());
            self.opened = Some(now);
        } else if answers && std::mem::take(&mut self.lost) {
            tracing::info!("events from the engine are back");
        }
    }

    /// The next event, `None` when the stream ends, and never anything while there is none.
    ///
    /// SIGKILL is left out: the container's end follows at once, and a pass in between would hold up the news of it.
    async fn next(&mut self) -> Option<docker::Event> {
        let Some(stream) = &mut self.stream else { return std::future::pending().await };
        let reason = loop {
            match stream.next().await {
                Some(Ok(docker::Event { action: docker::Action::Kill(Some(SIGKILL)), .. })) => {}
                Some(Ok(event)) => return Some(event),
                Some(Err(error)) => break error.to_string(),
                None => break "the engine ended them".to_owned(),
            }
        };
        self.stream = None;
        if !std::mem::replace(&mut self.lost, true) {
            tracing::warn!(reason, "no events from the engine; looking every second until they are back");
        }
        None
    }

    /// Takes what arrives within [`DEBOUNCE`], since an event seldom comes alone.
    async fn collect(&mut self, mut take: impl FnMut(docker::Event)) {
        let all = async {
            for _ in 0..EVENTS_MAX {
                let Some(event) = self.next().await else { return };
                take(event);
            }
        };
        // Cancel-safe: what was taken from the stream has been passed on.
        let _ = tokio::time::timeout(DEBOUNCE, all).await;
    }
}

/// What has been logged, so that only changes are.
#[derive(Default)]
struct Said {
    consul: bool,
    engine: bool,
    remarks: BTreeSet<Remark>,
    registered: Option<usize>,
}

impl Said {
    fn say(&mut self, outcome: &Result<Outcome, Error>) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                if !std::mem::replace(&mut self.consul, true) {
                    tracing::warn!(%error, "trying again every second; what is registered stays");
                }
                return;
            }
        };
        if std::mem::take(&mut self.consul) {
            tracing::info!("consul answers again");
        }
        match &outcome.engine {
            Some(error) if !std::mem::replace(&mut self.engine, true) => {
                tracing::warn!(%error, "the engine does not answer; registrations stay as they are");
            }
            None if std::mem::take(&mut self.engine) => tracing::info!("the engine answers again"),
            _ => {}
        }
        // A pass without a list knows of no container to remark upon; what was said of them is still so.
        if outcome.engine.is_none() {
            for Remark { subject, text } in outcome.remarks.difference(&self.remarks) {
                tracing::warn!(service = subject.as_str(), "{text}");
            }
            self.remarks.clone_from(&outcome.remarks);
        }
        if outcome.unfinished {
            tracing::info!(registered = outcome.registered, "more to write");
        }
        if self.registered.replace(outcome.registered) != Some(outcome.registered) {
            #[allow(clippy::cast_precision_loss)] // a node has fewer than 2^52 services
            metrics::gauge!(crate::telemetry::REGISTERED_SERVICES).set(outcome.registered as f64);
        }
    }
}
