//! A cluster's name belongs to one swarm.
//!
//! Two swarms may share one Consul. Did both use one name, their leaders would fight over one lock and take each other's published facts
//! for their own; so the first to start claims the name with its swarm's ID, and every start compares.

use super::keys::Keys;
use super::vocabulary::Event;
use super::{Error, Options};
use crate::io::consul;
use crate::io::consul::Consul;
use crate::io::consul::kv::Freshness;

/// Makes the claim if there is none; tells if it is another swarm's.
pub async fn claim(consul: &Consul, options: &Options) -> Result<Event, consul::Error> {
    let Options { cluster, swarm_cluster_id: ours, .. } = options;
    let key = Keys::new(cluster).claim();
    let mut found = consul.kv_get(&key, Freshness::Consistent).await?;
    if found.is_none() {
        if consul.kv_cas(&key, ours.clone().into_bytes(), 0).await? {
            return Ok(Event::Claimed);
        }
        // Another candidate was quicker.
        found = consul.kv_get(&key, Freshness::Consistent).await?;
    }
    let theirs = found.map(|pair| String::from_utf8_lossy(&pair.value).into_owned()).unwrap_or_default();
    if theirs == *ours {
        return Ok(Event::Claimed);
    }
    Ok(Event::Barred(Error::OtherSwarm { cluster: cluster.clone(), ours: ours.clone(), theirs, key }))
}
