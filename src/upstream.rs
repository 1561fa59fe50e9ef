//! Upstreams: pools of peers, which of them takes a request, and how many requests they get at once.

pub mod balance;
pub mod concurrency;
pub mod peer;

use crate::config;
use balance::Balancer;
use concurrency::Admission;
use peer::Peer;
use pingora::upstreams::peer::HttpPeer;
use std::sync::Arc;

/// A pool of peers behind one name.
pub struct Upstream {
    name: String,
    settings: config::Upstream,
    peers: Vec<Peer>,
    balancer: Balancer,
    admission: Admission,
    retries: u32,
}

impl Upstream {
    /// Makes the pool; host names have no address until [`Upstream::resolve`] has run.
    pub fn new(name: &str, settings: &config::Upstream) -> Self {
        let weights: Vec<u32> = settings.peers.iter().map(|peer| peer.weight).collect();
        Upstream {
            name: name.to_owned(),
            settings: settings.clone(),
            peers: settings
                .peers
                .iter()
                .map(|peer| Peer::new(peer, settings))
                .collect(),
            balancer: Balancer::new(settings.balance, &weights),
            admission: Admission::new(
                settings.max_concurrent,
                settings.queue_size,
                settings.queue_timeout,
            ),
            retries: settings.retries,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it was made of.
    pub fn settings(&self) -> &config::Upstream {
        &self.settings
    }

    /// Further attempts after a failed connection.
    pub fn retries(&self) -> u32 {
        self.retries
    }

    /// The bound on requests in flight.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    /// The peer for the next attempt: the balancer's choice, or the next one that is usable. Peers
    /// that failed to connect lately are used only if no other is left. `None`: no peer has an address.
    pub fn choose(&self, now_us: u64) -> Option<(usize, Arc<HttpPeer>)> {
        let first = self.balancer.next();
        let in_turn = || (0..self.peers.len()).map(|step| (first + step) % self.peers.len());
        let target = |index: usize| {
            self.peers
                .get(index)
                .and_then(Peer::target)
                .map(|peer| (index, peer))
        };
        let usable = |index: &usize| {
            self.peers
                .get(*index)
                .is_some_and(|peer| peer.takes_requests() && !peer.rests(now_us))
        };
        in_turn().filter(usable).find_map(target).or_else(|| {
            in_turn()
                .filter(|index| self.peers.get(*index).is_some_and(Peer::takes_requests))
                .find_map(target)
        })
    }

    /// Notes that a connection to a peer failed.
    pub fn failed(&self, index: usize, now_us: u64) {
        if let Some(peer) = self.peers.get(index) {
            peer.failed(now_us);
        }
    }

    /// Notes that a peer answered.
    pub fn answered(&self, index: usize) {
        if let Some(peer) = self.peers.get(index) {
            peer.answered();
        }
    }

    /// Peers that have an address and did not fail lately, of all that take requests.
    pub fn healthy(&self, now_us: u64) -> (usize, usize) {
        let taking = self.peers.iter().filter(|peer| peer.takes_requests());
        let healthy = taking
            .clone()
            .filter(|peer| peer.has_address() && !peer.rests(now_us))
            .count();
        (healthy, taking.count())
    }

    /// Looks up the addresses of peers given by host name; a failed look-up keeps the last address.
    pub async fn resolve(&self) {
        for peer in &self.peers {
            peer.resolve().await;
        }
    }

    /// Is any peer given by host name?
    pub fn has_names(&self) -> bool {
        self.peers.iter().any(Peer::is_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn upstream(peers: &[(&str, u32)]) -> Upstream {
        let second = Duration::from_secs(1);
        let peer = |&(host, weight): &(&str, u32)| config::Peer {
            host: host.into(),
            port: 9001,
            weight,
        };
        Upstream::new(
            "u",
            &config::Upstream {
                peers: peers.iter().map(peer).collect(),
                balance: config::Balance::RoundRobin,
                protocol: config::Protocol::Http1,
                max_concurrent: None,
                queue_size: 0,
                queue_timeout: second,
                connect_timeout: second,
                read_timeout: second,
                write_timeout: second,
                idle_timeout: second,
                retries: 1,
            },
        )
    }

    fn chosen(upstream: &Upstream, now_us: u64) -> Vec<usize> {
        (0..6)
            .filter_map(|_| upstream.choose(now_us))
            .map(|(index, _)| index)
            .collect()
    }

    #[test]
    fn a_peer_that_failed_to_connect_rests_and_comes_back() {
        let upstream = upstream(&[("127.0.0.1", 1), ("127.0.0.2", 1)]);
        upstream.failed(0, 1_000_000);
        assert_eq!(chosen(&upstream, 1_000_001), [1; 6]);
        assert_eq!(upstream.healthy(1_000_001), (1, 2));
        assert_eq!(upstream.healthy(60_000_000), (2, 2));
        upstream.failed(0, 60_000_000);
        upstream.answered(0);
        assert_eq!(upstream.healthy(60_000_001), (2, 2));
    }

    #[test]
    fn when_all_peers_failed_they_are_tried_all_the_same() {
        let upstream = upstream(&[("127.0.0.1", 1), ("127.0.0.2", 0)]);
        upstream.failed(0, 5);
        assert_eq!(chosen(&upstream, 6), [0; 6]);
    }

    #[tokio::test]
    async fn a_host_name_has_no_address_until_it_is_looked_up() {
        let upstream = upstream(&[("localhost", 1)]);
        assert!(upstream.choose(1).is_none());
        upstream.resolve().await;
        assert!(upstream.choose(1).is_some());
    }
}
