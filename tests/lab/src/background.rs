//! A thread with a runtime of its own: whoever started the lab may drop his runtime before the lab.

use anyhow::{Context, Result};
use tokio_util::sync::CancellationToken;

/// A service in the background, until dropped.
#[derive(Debug)]
pub(crate) struct Background {
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Background {
    /// Runs `prepare` on the new thread, and returns its error if it fails; then `serve` with what it made. All on one thread, so that
    /// `prepare` may move that into a namespace.
    pub(crate) fn start<T: 'static>(
        name: String,
        prepare: impl AsyncFnOnce() -> Result<T> + Send + 'static,
        serve: impl AsyncFnOnce(T) + Send + 'static,
    ) -> Result<Self> {
        let stop = CancellationToken::new();
        let token = stop.clone();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let prepared = || -> Result<_> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let made = runtime.block_on(prepare())?;
                Ok((runtime, made))
            };
            // The starter waits for exactly one message.
            match prepared() {
                Ok((runtime, made)) => {
                    let _ = sender.send(Ok(()));
                    runtime.block_on(token.run_until_cancelled_owned(serve(made)));
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                }
            }
        })?;
        receiver.recv().context("a thread of the lab ended early")??;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic has been printed already.
            let _ = thread.join();
        }
    }
}
