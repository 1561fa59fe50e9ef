//! The immutable whole a request is decided by, and what outlives it: buckets, clock, metrics.

mod assemble;
pub mod buckets;
mod health;

pub use assemble::assemble;
pub use health::Health;

use crate::auth::failures::FailureGuard;
use crate::auth::{Authenticator, Client};
use crate::clock::Clock;
use crate::config::{HealthDetail, ResponseHeaders, RouteAuth, Shown};
use crate::database::Database;
use crate::limit::limiter::Limiter;
use crate::policy::Policy;
use crate::route::RouteTable;
use crate::telemetry::{Metrics, RouteMetrics};
use crate::upstream::Upstream;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Routes, policies, credentials and upstreams as one consistent whole. Indices of one part into
/// another are valid within the same snapshot.
pub struct Snapshot {
    /// from host, path and method to an index into `routes`
    pub table: RouteTable,
    /// settings by index
    pub routes: Vec<Route>,
    /// policies by index, those that are off left out
    pub policies: Vec<Policy>,
    /// upstreams by index
    pub upstreams: Vec<Arc<Upstream>>,
    /// who is calling
    pub authenticator: Authenticator,
    /// clients by id
    pub clients: HashMap<String, Arc<Client>>,
    /// networks whose `X-Forwarded-For` is believed
    pub trusted_proxies: Vec<IpNet>,
    /// which families of rate-limit headers are sent
    pub response_headers: ResponseHeaders,
    /// the name in the `Server` header of our own answers
    pub server_name: Option<http::HeaderValue>,
    /// where the health check answers
    pub health_path: Option<String>,
    /// how much it tells
    pub health_detail: HealthDetail,
    /// the configuration it was made of, to be shown
    pub shown: Shown,
}

impl Snapshot {
    /// The upstream of a route by its index.
    pub fn upstream_of(&self, route: usize) -> Option<&Upstream> {
        let route = self.routes.get(route)?;
        self.upstreams.get(route.upstream).map(Arc::as_ref)
    }
}

/// What happens to the requests of one route.
pub struct Route {
    /// its name, unique
    pub name: String,
    /// which requests it takes, in words
    pub takes: String,
    /// index into the snapshot's upstreams
    pub upstream: usize,
    /// whether credentials are looked at
    pub auth: RouteAuth,
    /// does a verified credential still go to the upstream?
    pub forward_credentials: bool,
    /// taken off the path before forwarding
    pub strip_prefix: Option<String>,
    /// largest request body in bytes
    pub max_body_bytes: Option<u64>,
    /// is the `Forwarded` header of RFC 7239 sent?
    pub forwarded_header: bool,
    /// indices of the policies that apply
    pub policies: Vec<usize>,
    /// `RateLimit-Policy` where all of them hold with their own quotas, the usual case
    pub announced: Option<http::HeaderValue>,
    /// its counters
    pub metrics: RouteMetrics,
}

/// A running gateway: the current snapshot and what stays when it changes.
pub struct Running {
    snapshot: ArcSwap<Snapshot>,
    /// the buckets
    pub limiter: Limiter,
    /// failed authentications per address
    pub failures: FailureGuard,
    /// the time
    pub clock: Clock,
    /// the counters
    pub metrics: Metrics,
    /// where policies, tiers, clients and keys are changed; absent: the file is all there is
    pub database: Option<Arc<Database>>,
    draining: AtomicBool,
}

impl Running {
    /// Starts with a snapshot.
    pub fn new(
        snapshot: Snapshot,
        limiter: Limiter,
        failures: FailureGuard,
        metrics: Metrics,
    ) -> Self {
        Running {
            snapshot: ArcSwap::from_pointee(snapshot),
            limiter,
            failures,
            clock: Clock::new(),
            metrics,
            database: None,
            draining: AtomicBool::new(false),
        }
    }

    /// The current snapshot; a request loads it once and keeps it.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// From now on the gateway only finishes what it has begun.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Is it about to stop?
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
