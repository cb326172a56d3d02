//! `swarmkeeper leave`: how every agent hears of it.
//!
//! The leader writes one key; every agent looks at it every [`LOOK_EVERY`], stops its loops, takes its registrations away and stays idle until
//! it is stopped or restarted. When all have had the time to look, the leader's agent takes the whole of our KV away.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use crate::io::consul::kv::Freshness;
use crate::io::consul::{Consul, Error};
use crate::leader::Keys;

/// How often an agent looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// After this time every agent that is well has looked.
pub const ALL_HAVE_LOOKED: Duration = Duration::from_secs(25);

/// Tells every agent to leave.
pub async fn say(consul: &Consul, cluster: &str) -> Result<(), Error> {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    consul.kv_put(&key(cluster), now.into_bytes()).await
}

/// Ends when the agents are told to leave after `started`, or with `shutdown`; true if it was the former.
pub async fn told(consul: &Consul, cluster: &str, started: OffsetDateTime, shutdown: &CancellationToken) -> bool {
    let key = key(cluster);
    loop {
        if shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
            return false;
        }
        // Who cannot ask is told later, or never: then it did not leave.
        let Ok(Some(pair)) = consul.kv_get(&key, Freshness::Default).await else { continue };
        if since(&pair.value).is_some_and(|since| since > started) {
            return true;
        }
    }
}

fn key(cluster: &str) -> String {
    format!("{}left", Keys::new(cluster).root())
}

fn since(value: &[u8]) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(std::str::from_utf8(value).ok()?, &Rfc3339).ok()
}
