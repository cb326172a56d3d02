//! What keepers of one cluster show each other when they hand a person's command on.
//!
//! It is derived from the swarm's join token for managers, which only managers can read: nobody has to set anything, and it changes
//! when the join token is rotated.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::model::Sensitive;

/// The token of `cluster`.
pub fn derive(manager_token: &Sensitive<String>, cluster: &str) -> Option<Sensitive<String>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(manager_token.reveal().as_bytes()).ok()?;
    mac.update(b"swarmkeeper api ");
    mac.update(cluster.as_bytes());
    Some(Sensitive::new(hex::encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_of_one_cluster_agree_and_others_do_not() {
        let token = |manager: &str, cluster: &str| {
            derive(&Sensitive::new(manager.to_owned()), cluster).unwrap().reveal().clone()
        };
        assert_eq!(token("SWMTKN-1-a", "prod"), token("SWMTKN-1-a", "prod"));
        assert_ne!(token("SWMTKN-1-a", "prod"), token("SWMTKN-1-a", "test"));
        assert_ne!(token("SWMTKN-1-a", "prod"), token("SWMTKN-1-b", "prod"));
    }
}
