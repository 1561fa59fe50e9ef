//! One address of an upstream: looked up if it is a name, resting after a failed connection.

use crate::config::{self, Protocol};
use arc_swap::ArcSwapOption;
use pingora::upstreams::peer::HttpPeer;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a peer rests after a connection to it failed (nginx's fail_timeout).
const REST_US: u64 = 10_000_000;

/// Requests on one HTTP/2 connection at once.
const STREAMS: usize = 100;

/// A name that takes longer to look up keeps its last address.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// One address of an upstream.
pub struct Peer {
    host: String,
    port: u16,
    takes_requests: bool,
    is_name: bool,
    settings: config::Upstream,
    target: ArcSwapOption<HttpPeer>,
    /// when the last connection failed; 0: it did not
    failed_us: AtomicU64,
}

impl Peer {
    /// A peer with the timeouts of its upstream.
    pub fn new(written: &config::Peer, settings: &config::Upstream) -> Self {
        let address = written.host.parse::<IpAddr>().ok();
        let peer = Peer {
            host: written.host.clone(),
            port: written.port,
            takes_requests: written.weight > 0,
            is_name: address.is_none(),
            settings: settings.clone(),
            target: ArcSwapOption::empty(),
            failed_us: AtomicU64::new(0),
        };
        if let Some(address) = address {
            peer.aim_at(SocketAddr::new(address, written.port));
        }
        peer
    }

    /// Where to connect to, ready for Pingora.
    pub fn target(&self) -> Option<Arc<HttpPeer>> {
        self.target.load_full()
    }

    /// Has it an address?
    pub fn has_address(&self) -> bool {
        self.target.load().is_some()
    }

    /// Has it a weight?
    pub fn takes_requests(&self) -> bool {
        self.takes_requests
    }

    /// Is it given by name?
    pub fn is_name(&self) -> bool {
        self.is_name
    }

    /// Did a connection to it fail lately?
    pub fn rests(&self, now_us: u64) -> bool {
        let failed_us = self.failed_us.load(Ordering::Relaxed);
        failed_us > 0 && now_us.saturating_sub(failed_us) < REST_US
    }

    /// A connection failed.
    pub fn failed(&self, now_us: u64) {
        self.failed_us.store(now_us.max(1), Ordering::Relaxed);
    }

    /// It answered.
    pub fn answered(&self) {
        if self.failed_us.load(Ordering::Relaxed) > 0 {
            self.failed_us.store(0, Ordering::Relaxed);
        }
    }

    /// Looks its name up; keeps the last address where that fails.
    pub async fn resolve(&self) {
        if !self.is_name {
            return;
        }
        let looked_up = tokio::time::timeout(
            LOOK_UP_TIMEOUT,
            tokio::net::lookup_host((self.host.as_str(), self.port)),
        );
        match looked_up.await {
            // names that have both are usually served on IPv4 (localhost): prefer it
            Ok(Ok(addresses)) => match addresses.min_by_key(SocketAddr::is_ipv6) {
                Some(address) => self.aim_at(address),
                None => self.complain("no address"),
            },
            Ok(Err(error)) => self.complain(&error.to_string()),
            Err(_) => self.complain("no answer in time"),
        }
    }

    fn complain(&self, why: &str) {
        let kept = if self.has_address() {
            "the last address is kept"
        } else {
            "it gets no requests"
        };
        tracing::warn!(
            host = self.host,
            port = self.port,
            "cannot look up a peer: {why}; {kept}"
        );
    }

    fn aim_at(&self, address: SocketAddr) {
        let unchanged = self
            .target
            .load()
            .as_ref()
            .is_some_and(|old| old._address.as_inet() == Some(&address));
        if unchanged {
            return;
        }
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = Some(self.settings.connect_timeout);
        peer.options.total_connection_timeout = Some(self.settings.connect_timeout);
        peer.options.read_timeout = Some(self.settings.read_timeout);
        peer.options.write_timeout = Some(self.settings.write_timeout);
        peer.options.idle_timeout = Some(self.settings.idle_timeout);
        if self.settings.protocol == Protocol::H2c {
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = STREAMS;
        }
        self.target.store(Some(Arc::new(peer)));
    }
}
