//! What is logged and how: one line per transition, to stderr, so that stdout holds a command's result only.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config::LogFormat;

/// Installs the log for this process; the first call wins.
pub fn init(level: &str, format: LogFormat, may_colour: bool) {
    let ansi = may_colour && std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_ansi(ansi).with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_target(false).boxed(),
    };
    // A second call, as in tests, finds a log already: that one stays.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter(level))).try_init();
}

/// Ours at `level`, the libraries' warnings at most: theirs can hold request headers at lower levels.
fn filter(level: &str) -> Targets {
    let level = level.parse().unwrap_or(LevelFilter::INFO);
    Targets::new().with_target("swarmkeeper", level).with_default(level.min(LevelFilter::WARN))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a line of `target` at `level` is logged with `log_level: setting`.
    fn check(setting: &str, target: &str, level: tracing::Level, expect: bool) {
        assert_eq!(filter(setting).would_enable(target, &level), expect, "{setting}: {target} {level}");
    }

    #[test]
    fn libraries_never_say_more_than_warnings() {
        check("trace", "swarmkeeper::stacks", tracing::Level::TRACE, true);
        check("trace", "hyper::proto", tracing::Level::INFO, false);
        check("trace", "hyper::proto", tracing::Level::WARN, true);
        check("error", "hyper::proto", tracing::Level::WARN, false);
    }

    #[test]
    fn off_is_off() {
        check("off", "swarmkeeper", tracing::Level::ERROR, false);
        check("off", "hyper", tracing::Level::ERROR, false);
    }
}
