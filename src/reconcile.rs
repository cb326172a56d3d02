//! The one loop: wake | timer | shutdown.
//!
//! Events only wake a pass, and every pass observes again, so that a lost event costs time and nothing else: the timer is always
//! there as a fallback. Shutdown is honoured between passes; a pass that should stop earlier looks at the token itself.

use std::future::Future;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// When to pass again, unless woken before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After(pub Duration);

/// What a loop does over and over.
pub trait Pass {
    /// Looks, decides and acts, once.
    fn pass(&mut self, shutdown: &CancellationToken) -> impl Future<Output = After> + Send;
}

/// Passes now, then at every wake-up and at latest after what the last pass asked for, until `shutdown`.
///
/// Wake-ups that come while a pass runs are kept as one, so nothing that happened after it looked goes unseen.
pub async fn run(wake: &Notify, shutdown: &CancellationToken, work: &mut impl Pass) {
    while !shutdown.is_cancelled() {
        let After(pause) = work.pass(shutdown).await;
        // Each arm is cancel-safe: `notified` keeps its permit until it is polled to its end, the others hold no state.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = wake.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    /// Counts its passes; during the first it does something.
    struct Counting<F> {
        passes: usize,
        during_the_first: F,
    }

    impl<F: Fn() + Send> Pass for Counting<F> {
        async fn pass(&mut self, _: &CancellationToken) -> After {
            self.passes += 1;
            if self.passes == 1 {
                (self.during_the_first)();
            }
            After(MINUTE)
        }
    }

    /// The passes within so many minutes.
    async fn check(minutes: f64, wake: Arc<Notify>, shutdown: CancellationToken, first: impl Fn() + Send) -> usize {
        let mut work = Counting { passes: 0, during_the_first: first };
        let _ = tokio::time::timeout(MINUTE.mul_f64(minutes), run(&wake, &shutdown, &mut work)).await;
        work.passes
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_wake_up_the_timer_passes_again() {
        assert_eq!(check(3.5, Arc::default(), CancellationToken::new(), || {}).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn wake_ups_during_a_pass_lead_to_one_more() {
        let wake = Arc::<Notify>::default();
        let twice = || {
            wake.notify_one();
            wake.notify_one();
        };
        assert_eq!(check(0.5, Arc::clone(&wake), CancellationToken::new(), twice).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn after_shutdown_no_pass_begins() {
        let shutdown = CancellationToken::new();
        assert_eq!(check(3.5, Arc::default(), shutdown.clone(), || shutdown.cancel()).await, 1);
    }
}
