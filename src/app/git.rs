//! The loop that keeps this candidate's clone warm: by timer, and whenever somebody asks.
//!
//! It only fetches. What it found goes through a `watch` to the leader's loop, so that a git server that hangs holds up no rollout.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::waiters::Waiters;
use crate::io::git::GitRepo;
use crate::model::Revision;
use crate::reconcile::{self, After, Pass};

/// After a failure that may pass by itself, git is asked again this soon, if the poll interval is longer.
const RETRY: Duration = Duration::from_secs(15);

/// What is known of the Config Repo.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitView {
    /// The last good revision.
    pub head: Option<Revision>,
    /// When the last look that was answered began: everything pushed before is in `head`.
    pub checked: Option<OffsetDateTime>,
    /// Why the last look failed.
    pub error: Option<String>,
}

impl GitView {
    /// True if git was asked since a leader began, and answered, or failed to: there is nothing better to be known.
    pub fn is_as_of(&self, since: OffsetDateTime) -> bool {
        self.error.is_some() || self.checked.is_some_and(|checked| checked >= since)
    }
}

/// Keeps one clone warm.
pub struct Fetching {
    /// The clone.
    pub repo: Arc<GitRepo>,
    /// How long git is left alone if nobody asks.
    pub poll: Duration,
    /// Those who ask.
    pub waiters: Arc<Waiters>,
    /// Where it is told what git has.
    pub view: watch::Sender<GitView>,
}

impl Fetching {
    /// Fetches until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.view.send_modify(|view| view.head = self.repo.head());
        let waiters = Arc::clone(&self.waiters);
        reconcile::run(&waiters.wake, &shutdown, &mut self).await;
    }
}

impl Pass for Fetching {
    async fn pass(&mut self, shutdown: &CancellationToken) -> After {
        let _answered_at_the_end = self.waiters.begin();
        let began = OffsetDateTime::now_utc();
        // Dropping the fetch stops the conversation.
        let Some(fetched) = shutdown.run_until_cancelled(self.repo.fetch()).await else { return After(self.poll) };
        match fetched {
            Ok(fetched) => {
                if fetched.changed() {
                    let summary = fetched.commits.first().map(|commit| commit.summary.as_str()).unwrap_or_default();
                    info!(revision = %fetched.head, branch = self.repo.branch(), summary, "git has a new revision");
                } else if self.view.borrow().error.is_some() {
                    info!(url = self.repo.url(), "git answers again");
                }
                self.view.send_replace(GitView { head: Some(fetched.head), checked: Some(began), error: None });
                After(self.poll)
            }
            Err(error) => {
                let text = error.to_string();
                if self.view.borrow().error.as_ref() != Some(&text) {
                    warn!(url = self.repo.url(), error = text, "git cannot be read; the last good revision stays");
                }
                self.view.send_modify(|view| view.error = Some(text));
                After(self.poll.min(RETRY))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const SINCE: OffsetDateTime = datetime!(2026-01-02 03:04:05 UTC);

    fn check(checked: Option<OffsetDateTime>, error: Option<&str>, is_as_of: bool) {
        let view = GitView { head: Some(Revision("9f2c1ab".into())), checked, error: error.map(str::to_owned) };
        assert_eq!(view.is_as_of(SINCE), is_as_of, "{view:?}");
    }

    #[test]
    fn a_new_leader_does_not_trust_what_it_knew_as_a_follower() {
        check(None, None, false);
        check(Some(SINCE - Duration::from_secs(1)), None, false);
        check(Some(SINCE + Duration::from_millis(20)), None, true);
    }

    #[test]
    fn a_git_server_that_is_down_is_waited_for_once() {
        check(Some(SINCE - Duration::from_hours(1)), Some("connection refused"), true);
    }
}
