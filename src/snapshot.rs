//! The immutable whole a request is decided by, and what outlives it: buckets, clock, metrics.

mod addresses;
mod assemble;
pub mod buckets;
mod compile;
mod health;
mod origins;
mod routes;
mod watch;

pub use addresses::Addresses;
pub use assemble::assemble;
pub use compile::{Compiled, compile};
pub use health::Health;
pub use origins::{Applied, Beginning, Origins, rows_from, rows_of};
pub use watch::{LastGood, Seen, seen, watch};

use crate::auth::failures::FailureGuard;
use crate::auth::forward_auth::ForwardAuth;
use crate::auth::{Authenticator, Client, Sources};
use crate::clock::Clock;
use crate::config::{HealthDetail, Problem, ResponseHeaders, RouteAuth, Shown};
use crate::database::Database;
use crate::limit::limiter::Limiter;
use crate::limit::quota::Quota;
use crate::policy::Policy;
use crate::route::RouteTable;
use crate::telemetry::{Metrics, RouteMetrics};
use crate::upstream::Upstream;
use crate::upstream::concurrency::Admission as Gate;
use arc_swap::ArcSwap;
use ipnet::IpNet;
use siphasher::sip::SipHasher13;
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

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
    pub authenticator: Arc<Authenticator>,
    /// failed authentications that are tolerated from one address
    pub failures: Quota,
    /// clients by id
    pub clients: HashMap<String, Arc<Client>>,
    /// names of tiers
    pub tiers: BTreeSet<String>,
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
    /// what cannot be meant but has a defined outcome
    pub conflicts: Vec<Problem>,
    /// the configuration it was made of, to be shown
    pub shown: Shown,
}

impl Snapshot {
    /// An upstream by its index.
    pub fn upstream(&self, index: usize) -> Option<&Upstream> {
        self.upstreams.get(index).map(Arc::as_ref)
    }

    /// What it remembers of credentials is needed no more, except for what `next` has taken over.
    fn forget_what_is_not_in(&self, next: &Snapshot) {
        self.authenticator
            .forget_what_is_not_in(&next.authenticator);
        let asked = |route: &Route| route.forward_auth.clone();
        let kept: Vec<_> = next.routes.iter().filter_map(asked).collect();
        for old in self.routes.iter().filter_map(asked) {
            if !kept.iter().any(|kept| Arc::ptr_eq(kept, &old)) {
                old.forget();
            }
        }
    }
}

/// What happens to the requests of one route.
pub struct Route {
    /// its name, unique
    pub name: String,
    /// which requests it takes, in words
    pub takes: String,
    /// does it serve?
    pub state: RouteState,
    /// index into the snapshot's upstreams
    pub upstream: usize,
    /// the upstream that takes some of the clients
    pub canary: Option<Canary>,
    /// limit between two reads from the peer, in place of the upstream's
    pub read_timeout: Option<Duration>,
    /// the bound on its requests in flight
    pub gate: Option<Arc<Gate>>,
    /// by how much the cost in every policy is multiplied
    pub cost: u64,
    /// whose requests it takes
    pub addresses: Addresses,
    /// whether credentials are looked at
    pub auth: RouteAuth,
    /// what they must be good for, all of it
    pub scopes: Vec<String>,
    /// whom to ask about every request
    pub forward_auth: Option<Arc<ForwardAuth>>,
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

/// Does a route serve?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteState {
    /// yes
    Enabled,
    /// what it matches is answered as if nothing were there
    Disabled,
    /// everything is answered with 503
    Maintenance,
}

/// An upstream that takes some of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// index into the snapshot's upstreams
    pub upstream: usize,
    /// per cent of the clients, 0 to 100
    pub percent: u8,
}

impl Route {
    /// The upstream for a client, the same one each time: `client` is its id, `ip` its address where nobody is
    /// authenticated.
    pub fn upstream_for(&self, client: Option<&str>, ip: IpAddr) -> usize {
        match self.canary {
            Some(canary) if hundredth(client, ip) < canary.percent => canary.upstream,
            _ => self.upstream,
        }
    }
}

/// Which hundredth of all clients one belongs to, the same on every gateway.
fn hundredth(client: Option<&str>, ip: IpAddr) -> u8 {
    let mut hasher = SipHasher13::new();
    match client {
        Some(client) => hasher.write(client.as_bytes()),
        None => ip.hash(&mut hasher),
    }
    (hasher.finish() % 100) as u8
}

/// A running gateway: the current snapshot and what stays when it changes.
pub struct Running {
    snapshot: ArcSwap<Snapshot>,
    /// what it is made of; absent: it never changes
    pub origins: Option<Origins>,
    /// where policies, tiers, clients and keys are changed; absent: the file is all there is
    pub database: Option<Arc<Database>>,
    /// somebody wants the file to be read again
    pub reload_wanted: Notify,
    /// is a change of the file taken over by itself?
    pub watches_file: bool,
    /// the buckets
    pub limiter: Limiter,
    /// failed authentications per address
    pub failures: FailureGuard,
    /// where identities come from outside of this process
    pub sources: Arc<Sources>,
    /// the time
    pub clock: Clock,
    /// the counters
    pub metrics: Metrics,
    draining: AtomicBool,
}

impl Running {
    /// Starts with a snapshot.
    pub fn new(
        snapshot: Snapshot,
        limiter: Limiter,
        sources: Arc<Sources>,
        metrics: Metrics,
    ) -> Self {
        Running {
            snapshot: ArcSwap::from_pointee(snapshot),
            origins: None,
            database: None,
            reload_wanted: Notify::new(),
            watches_file: false,
            limiter,
            failures: FailureGuard::default(),
            sources,
            clock: Clock::new(),
            metrics,
            draining: AtomicBool::new(false),
        }
    }

    /// The same with what its snapshot is made of, so that it can change.
    pub fn with_origins(
        mut self,
        origins: Origins,
        database: Option<Arc<Database>>,
        watches_file: bool,
    ) -> Self {
        self.origins = Some(origins);
        self.database = database;
        self.watches_file = watches_file;
        self
    }

    /// From now on requests are decided by this; those under way end with the one they began with.
    fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let replaced = self.snapshot.swap(snapshot.clone());
        replaced.forget_what_is_not_in(&snapshot);
        self.limiter.policies_changed();
        self.metrics.snapshot.published.inc();
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
