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

/// Runs `pass` now, then at every wake-up and at latest after what the last pass asked for, until `shutdown`.
///
/// Wake-ups that come while a pass runs are kept as one, so nothing that happened after it looked goes unseen.
pub async fn run<F, P>(wake: &Notify, shutdown: &CancellationToken, mut pass: F)
where
    F: FnMut() -> P,
    P: Future<Output = After>,
{
    while !shutdown.is_cancelled() {
        let After(pause) = pass().await;
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
    use std::cell::Cell;

    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn without_a_wake_up_the_timer_passes_again() {
        let (wake, shutdown, passes) = (Notify::new(), CancellationToken::new(), Cell::new(0));
        let looped = run(&wake, &shutdown, async || {
            passes.set(passes.get() + 1);
            After(MINUTE)
        });
        let _ = tokio::time::timeout(MINUTE * 3 + MINUTE / 2, looped).await;
        assert_eq!(passes.get(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wake_up_during_a_pass_leads_to_one_more() {
        let (wake, shutdown, passes) = (Notify::new(), CancellationToken::new(), Cell::new(0));
        let looped = run(&wake, &shutdown, async || {
            if passes.replace(passes.get() + 1) == 0 {
                wake.notify_one();
                wake.notify_one();
            }
            After(MINUTE)
        });
        let _ = tokio::time::timeout(MINUTE / 2, looped).await;
        assert_eq!(passes.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn after_shutdown_no_pass_begins() {
        let (wake, shutdown, passes) = (Notify::new(), CancellationToken::new(), Cell::new(0));
        run(&wake, &shutdown, async || {
            passes.set(passes.get() + 1);
            shutdown.cancel();
            After(MINUTE)
        })
        .await;
        assert_eq!(passes.get(), 1);
    }
}
