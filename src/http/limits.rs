//! How much one peer may ask, so that a stranger on the network leaves room for others. This node's own processes are not counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Requests of one peer each second, in the long run.
pub const REQUESTS_PER_SECOND_MAX: u32 = 50;

/// Requests of one peer at once.
pub const REQUESTS_BURST_MAX: u32 = 200;

/// Open connections of one peer per listener.
pub const CONNECTIONS_PER_PEER_MAX: usize = 32;

/// Peers that are told apart; further ones share one allowance.
const PEERS_MAX: usize = 4096;

/// What each peer may still ask: a bucket of tokens that fills again with time.
#[derive(Debug, Default)]
pub(super) struct Rates {
    peers: HashMap<Option<IpAddr>, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rates {
    /// Counts a request; false if it is one too many.
    pub fn allow(&mut self, peer: IpAddr, now: Instant) -> bool {
        let Some(peer) = counted(peer) else { return true };
        if !self.peers.contains_key(&Some(peer)) && self.peers.len() >= PEERS_MAX {
            self.peers.retain(|_, bucket| bucket.at(now).tokens < f64::from(REQUESTS_BURST_MAX));
        }
        let is_known = self.peers.contains_key(&Some(peer)) || self.peers.len() < PEERS_MAX;
        let full = Bucket { tokens: f64::from(REQUESTS_BURST_MAX), at: now };
        let bucket = self.peers.entry(is_known.then_some(peer)).or_insert(full);
        *bucket = bucket.at(now);
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }
}

impl Bucket {
    /// Filled up to `now`.
    fn at(self, now: Instant) -> Self {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        let tokens = self.tokens + seconds * f64::from(REQUESTS_PER_SECOND_MAX);
        Self { tokens: tokens.min(f64::from(REQUESTS_BURST_MAX)), at: now }
    }
}

/// The open connections of each peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Seats(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One open connection; its place is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Seat(Option<(Seats, IpAddr)>);

impl Seats {
    /// A place for one more connection of `peer`, if it has any left.
    pub fn take(&self, peer: IpAddr) -> Option<Seat> {
        let Some(peer) = counted(peer) else { return Some(Seat(None)) };
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(peer).or_default();
        if *count >= CONNECTIONS_PER_PEER_MAX {
            return None;
        }
        *count += 1;
        Some(Seat(Some((self.clone(), peer))))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((Seats(taken), peer)) = self.0.take() else { return };
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&peer);
            }
        }
    }
}

/// Who is counted as one: an IPv4 address, or a /64 of IPv6, which one machine often has whole. None for this node's own processes.
fn counted(peer: IpAddr) -> Option<IpAddr> {
    let peer = peer.to_canonical();
    if peer.is_loopback() {
        return None;
    }
    Some(match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

    /// How many of `count` requests at one moment are allowed.
    fn allowed(rates: &mut Rates, peer: &str, now: Instant, count: u32) -> usize {
        let peer = peer.parse().unwrap();
        (0..count).filter(|_| rates.allow(peer, now)).count()
    }

    #[test]
    fn a_peer_has_a_burst_and_then_a_rate_and_takes_nothing_from_others() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        assert_eq!(allowed(&mut rates, "10.0.0.9", now, 1000), 200);
        assert_eq!(allowed(&mut rates, "10.0.0.9", now + Duration::from_secs(1), 1000), 50);
        assert_eq!(allowed(&mut rates, "::ffff:10.0.0.9", now + Duration::from_secs(1), 1), 0);
        assert_eq!(allowed(&mut rates, "10.0.0.8", now + Duration::from_secs(1), 1000), 200);
        assert_eq!(allowed(&mut rates, "10.0.0.9", now + Duration::from_mins(1), 1000), 200);
    }

    #[test]
    fn the_nodes_own_processes_are_not_counted_and_a_network_of_ipv6_is_one_peer() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        assert_eq!(allowed(&mut rates, "127.0.0.1", now, 1000), 1000);
        assert_eq!(allowed(&mut rates, "2001:db8::1", now, 1000), 200);
        assert_eq!(allowed(&mut rates, "2001:db8::2", now, 1), 0);
    }

    #[test]
    fn strangers_beyond_those_told_apart_share_one_allowance_until_there_is_room() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        for peer in 0..u32::try_from(PEERS_MAX).unwrap() {
            assert!(rates.allow(IpAddr::V4((0x0a00_0000 + peer).into()), now));
        }
        assert_eq!(allowed(&mut rates, "192.168.0.1", now, 150) + allowed(&mut rates, "192.168.0.2", now, 150), 200);
        assert!(rates.peers.len() <= PEERS_MAX + 1);
        assert_eq!(allowed(&mut rates, "192.168.0.1", now + Duration::from_mins(1), 1000), 200);
        assert!(rates.peers.len() < 10, "who has been quiet is forgotten");
    }

    #[test]
    fn a_peer_has_so_many_connections_until_one_ends() {
        let seats = Seats::default();
        let mut taken: Vec<Seat> = (0..CONNECTIONS_PER_PEER_MAX).map(|_| seats.take(STRANGER).unwrap()).collect();
        assert!(seats.take(STRANGER).is_none());
        assert!(seats.take("10.0.0.8".parse().unwrap()).is_some());
        taken.pop();
        assert!(seats.take(STRANGER).is_some());
        taken.clear();
        assert!(seats.0.lock().unwrap().is_empty());
    }
}
