//! `swarmkeeper leave`: how every agent hears of it.
//!
//! The leader writes it down, in Consul for all agents and in the swarm for managers. Every agent looks every [`LOOK_EVERY`], stops its
//! loops, takes its registrations away and stays idle until it is stopped or restarted. When all have had the time to look, the managers
//! take the whole of our KV and the note in the swarm away.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_util::sync::CancellationToken;

use crate::io::consul::Consul;
use crate::io::consul::kv::Freshness;
use crate::io::swarm::Swarm;
use crate::leader::Keys;
use crate::leader::swarm::mandate;
use crate::leader::swarm::slip::Standing;

/// How often an agent looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// After this time every agent that is well has looked.
pub const ALL_HAVE_LOOKED: Duration = Duration::from_secs(25);

/// Tells every agent to leave.
pub async fn say(consul: Option<&Consul>, swarm: &Swarm, cluster: &str) -> Result<(), String> {
    if let Some(consul) = consul {
        let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
        consul.kv_put(&key(cluster), now.into_bytes()).await.map_err(|error| error.to_string())?;
    }
    mandate::leave(swarm).await.map_err(|error| error.to_string())
}

/// Ends when the agents are told to leave after `started`, or with `shutdown`; true if it was the former.
pub async fn told(
    consul: Option<&Consul>,
    swarm: Option<&Swarm>,
    cluster: &str,
    started: OffsetDateTime,
    shutdown: &CancellationToken,
) -> bool {
    let key = key(cluster);
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        // Who cannot ask is told later, or never: then it did not leave.
        if let Some(consul) = consul
            && let Ok(Some(pair)) = consul.kv_get(&key, Freshness::Default).await
            && since(&pair.value).is_some_and(|since| since > started)
        {
            return true;
        }
        // A note from before we started was overwritten when we did.
        if let Some(swarm) = swarm
            && let Ok(Some(Standing::Left)) = mandate::standing(swarm).await
        {
            return true;
        }
    }
    false
}

fn key(cluster: &str) -> String {
    format!("{}left", Keys::new(cluster).root())
}

fn since(value: &[u8]) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(std::str::from_utf8(value).ok()?, &Rfc3339).ok()
}
