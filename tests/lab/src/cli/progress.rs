//! Progress: a spinner on a terminal, lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};
use swarmkeeper_lab::Say;

pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, start: Instant::now() }
    }

    /// What the lab tells its steps to.
    pub(crate) fn say(&self) -> Say {
        if let Some(bar) = self.bar.clone() {
            return Arc::new(move |step| bar.set_message(step.to_owned()));
        }
        let start = self.start;
        Arc::new(move |step| eprintln!("{:5.1} s  {step}", start.elapsed().as_secs_f32()))
    }

    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
