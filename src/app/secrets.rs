//! Tokens and certificates that change while the agent runs: looked at every [`LOOK_EVERY`], tried, then used.
//!
//! What cannot be used is said once and the old goes on being used. At the start, and with every new token, the rights that it lacks are said, each
//! as the line that its policy needs: Consul leaves out what a token may not see without a word, and we would work without knowing why.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::policies::{self, Policy};
use super::start::Place;
use crate::config::Config;
use crate::http::tls::Tls;
use crate::io::consul::{Consul, Error, Renewal};
use crate::leader::swarm::slip::Kind;

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Keeps the secrets current until `shutdown`: Consul's where there is one, and the API's if it has any.
pub async fn run(mut consul: Option<Watch>, tls: Option<Arc<Tls>>, shutdown: CancellationToken) {
    let mut tls_said = None;
    loop {
        let look = async {
            if let Some(watch) = &mut consul {
                watch.look().await;
            }
            if let Some(tls) = &tls {
                let renewed = tls.renew().map_err(|error| error.to_string());
                match once(&mut tls_said, renewed.clone().err()) {
                    Some(error) => warn!(error, "the API's new certificate cannot be used; the old one stays in use"),
                    None if renewed == Ok(true) => info!("the API's new certificate is in use"),
                    None => {}
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        // Nothing is half done when this is given up: a replacement happens at once or not.
        if shutdown.run_until_cancelled(look).await.is_none() {
            return;
        }
    }
}

/// Consul's token and certificates, and what the token has to allow.
pub struct Watch {
    consul: Consul,
    config: Config,
    /// The node's name, the engine's until Consul has told its own.
    node: String,
    may_lead: bool,
    /// Where the leader's lock is; workers do not know.
    lock: Option<Kind>,
    named_by_consul: bool,
    /// True until the rights of the token in use have been looked at.
    wants_rights: bool,
    said: Option<String>,
}

impl Watch {
    /// For the agent at `place`; `lock` is where the leader's lock is, which workers do not know.
    pub fn new(consul: Consul, config: &Config, place: &Place, lock: Option<Kind>) -> Self {
        Self {
            consul,
            config: config.clone(),
            node: place.node.clone(),
            may_lead: place.manager,
            lock,
            named_by_consul: false,
            wants_rights: true,
            said: None,
        }
    }

    async fn look(&mut self) {
        if !self.named_by_consul
            && let Ok(agent) = self.consul.agent_self().await
        {
            (self.node, self.named_by_consul) = (agent.node, true);
        }
        let policy = policies::own(&self.config, &self.node, self.may_lead, self.lock);
        let renewed = self.consul.renew(&policy.rights()).await;
        let trouble = match &renewed {
            Ok(Renewal::Unchanged) => None,
            Ok(Renewal::Renewed) => {
                self.wants_rights = true;
                None
            }
            Ok(Renewal::Lacking(rights)) => {
                Some(format!("it lacks what the old one has: {}", lines(policy.lines_of(rights))))
            }
            Err(error) => Some(error.to_string()),
        };
        match once(&mut self.said, trouble) {
            Some(error) => warn!(error, "consul's new token or certificate cannot be used; the old one stays in use"),
            None if matches!(renewed, Ok(Renewal::Renewed)) => {
                info!("consul's new token or certificate is in use; the old one may go in a minute");
            }
            None => {}
        }
        if self.wants_rights {
            self.wants_rights = self.say_missing(&policy).await.is_err();
        }
    }

    /// Says what the token lacks. An error is Consul's, which others tell of.
    async fn say_missing(&self, policy: &Policy) -> Result<(), Error> {
        let missing = self.consul.rights_missing(&policy.rights()).await?;
        for rule in policy.lines_of(&missing) {
            warn!(right = %rule, "consul's token lacks a right that is needed for {}", rule.why);
        }
        Ok(())
    }
}

fn lines<'a>(rules: impl Iterator<Item = &'a policies::Rule>) -> String {
    rules.map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What is to be said: a trouble that has not been said yet.
fn once(said: &mut Option<String>, trouble: Option<String>) -> Option<String> {
    let is_new = trouble.is_some() && *said != trouble;
    said.clone_from(&trouble);
    trouble.filter(|_| is_new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_said_once_until_it_is_another() {
        let mut said = None;
        let mut say = |trouble: Option<&str>| once(&mut said, trouble.map(ToOwned::to_owned));
        assert_eq!(say(Some("a")).as_deref(), Some("a"));
        assert_eq!(say(Some("a")), None);
        assert_eq!(say(Some("b")).as_deref(), Some("b"));
        assert_eq!(say(None), None);
        assert_eq!(say(Some("b")).as_deref(), Some("b"));
    }
}
