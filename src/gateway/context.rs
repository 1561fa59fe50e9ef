//! What has been learned about one request on its way through the phases.

use crate::admission::{Identified, Rejection, Spent};
use crate::auth::Client;
use crate::clock::Stopwatch;
use crate::limit::descriptor::BucketKey;
use crate::snapshot::{Route, Running, Snapshot};
use crate::upstream::Upstream;
use crate::upstream::concurrency::{NoPlace, Place};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// One request, from its header to its log line.
pub struct Context {
    running: Arc<Running>,
    /// loaded once: a request is decided by one snapshot from beginning to end
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) arrived: Stopwatch,
    request_id: u128,
    /// the other end of the connection
    pub(super) peer: IpAddr,
    pub(super) peer_trusted: bool,
    /// the client's address
    pub(super) ip: IpAddr,
    /// the host the request is for, as it came
    pub(super) host: String,
    /// does the request carry headers that only we may set?
    pub(super) spoofed: bool,
    pub(super) route: Option<usize>,
    /// who is calling, once it may pass
    pub(super) identity: Identified,
    /// who is calling, though refused
    pub(super) refused_client: Option<Arc<Client>>,
    pub(super) spent: Spent,
    /// when the request came to be decided, on our clock, microseconds since the Unix epoch
    pub(super) decided_us: u64,
    /// did it wait for the shared store?
    pub(super) waited: bool,
    /// the normalised path, where it is not the one that came
    pub(super) path: Option<String>,
    /// the body as announced
    pub(super) declared_bytes: u64,
    pub(super) body_bytes: u64,
    /// the status a refusal means, which gRPC hides behind a 200
    pub(super) refused_with: Option<u16>,
    /// the id a trusted proxy gave the request
    pub(super) given_request_id: Option<String>,
    /// index of the upstream that was chosen for the client
    pub(super) upstream: Option<usize>,
    /// a place among the route's requests in flight
    pub(super) route_place: Option<Place>,
    /// a place at the upstream, kept over retries
    pub(super) place: Option<Place>,
    pub(super) held: Option<Held>,
    pub(super) tries: u32,
    pub(super) upstream_peer: Option<usize>,
    /// why a later phase gave up
    pub(super) rejection: Option<Rejection>,
}

impl Context {
    pub(super) fn new(running: Arc<Running>) -> Self {
        running.metrics.in_flight.inc();
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Context {
            snapshot: running.snapshot(),
            running,
            arrived: Stopwatch::start(),
            request_id: fastrand::u128(..),
            peer: nobody,
            peer_trusted: false,
            ip: nobody,
            host: String::new(),
            spoofed: false,
            route: None,
            identity: Identified::default(),
            refused_client: None,
            spent: Spent::default(),
            decided_us: 0,
            waited: false,
            declared_bytes: 0,
            path: None,
            body_bytes: 0,
            refused_with: None,
            given_request_id: None,
            upstream: None,
            route_place: None,
            place: None,
            held: None,
            tries: 0,
            upstream_peer: None,
            rejection: None,
        }
    }

    /// What names this request in the answer, upstream and in the log: the id a trusted proxy gave
    /// it, or 32 hex digits.
    pub(super) fn request_id(&self) -> String {
        if let Some(given) = &self.given_request_id {
            return given.clone();
        }
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = vec![b'0'; 32];
        for (byte, pair) in self
            .request_id
            .to_be_bytes()
            .into_iter()
            .zip(text.chunks_exact_mut(2))
        {
            if let ([high, low], Some(h), Some(l)) = (
                pair,
                DIGITS.get(usize::from(byte >> 4)),
                DIGITS.get(usize::from(byte & 15)),
            ) {
                (*high, *low) = (*h, *l);
            }
        }
        String::from_utf8(text).unwrap_or_default()
    }

    pub(super) fn route(&self) -> Option<&Route> {
        self.route.and_then(|index| self.snapshot.routes.get(index))
    }

    /// The upstream for this request's client; chosen once, so that a retry does not move it.
    pub(super) fn upstream_for_client(&self) -> Option<usize> {
        let client = self.identity.client().map(|client| client.id.as_str());
        self.route()
            .map(|route| route.upstream_for(client, self.ip))
    }

    pub(super) fn upstream(&self) -> Option<&Upstream> {
        self.snapshot.upstream(self.upstream?)
    }
}

impl Drop for Context {
    /// Dropped after the answer has been sent, or when the connection's task is cancelled.
    fn drop(&mut self) {
        self.running.metrics.in_flight.dec();
    }
}

/// Units of `concurrency` buckets, given back when the request ends, however it ends.
pub(super) struct Held {
    running: Arc<Running>,
    keys: Vec<(BucketKey, u64)>,
}

impl Held {
    pub(super) fn new(running: &Arc<Running>, keys: Vec<(BucketKey, u64)>) -> Option<Self> {
        (!keys.is_empty()).then(|| Held {
            running: running.clone(),
            keys,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (key, cost) in &self.keys {
            self.running.limiter.release(key, *cost);
        }
    }
}

impl From<NoPlace> for Rejection {
    fn from(no_place: NoPlace) -> Self {
        match no_place {
            NoPlace::QueueFull => Rejection::QueueFull,
            NoPlace::TimedOut => Rejection::QueueTimedOut,
        }
    }
}
