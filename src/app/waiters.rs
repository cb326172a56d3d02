//! Asking a loop for a pass and waiting for its end.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

/// Those who wait for a pass of a level-triggered loop that begins after they asked.
#[derive(Debug, Default)]
pub struct Waiters {
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    /// Wakes the loop.
    pub wake: Notify,
}

impl Waiters {
    /// Wakes the loop and waits until a pass that began after this call has ended; also ends when the loop does.
    pub async fn pass(&self) {
        let (done, ended) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(done);
        self.wake.notify_one();
        // An error is the loop's end: there is nothing left to wait for.
        let _ = ended.await;
    }

    /// For the loop: call it first in a pass, and drop what it gives when the pass has ended.
    pub fn begin(&self) -> Vec<oneshot::Sender<()>> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
