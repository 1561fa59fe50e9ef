//! The validated configuration: what the rest of Tidegate works with, every default already resolved.

mod auth;
mod database;
mod policy;
mod route;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use auth::{Auth, Basic, FailureGuard, Jwt, JwtAlgorithm, JwtKey, JwtKeySource};
pub use database::Database;
pub use policy::{
    Algorithm, CalendarUnit, Consistency, KeyPart, Mode, OnOutage, Override, Policy, Quota, Window,
};
pub use route::{
    Balance, Canary, ForwardAuth, PathPattern, Peer, Protocol, Route, RouteAuth, RouteSettings,
    Upstream,
};
pub use store::{Redis, RedisMode, Store};

/// The whole configuration; references between its parts are known to hold.
#[derive(Debug, Clone)]
pub struct Config {
    /// The process itself.
    pub server: Server,
    /// Addresses that accept downstream connections; no address occurs twice.
    pub listeners: Vec<Listener>,
    /// The admin listener; absent when switched off.
    pub admin: Option<Admin>,
    /// Where buckets live.
    pub store: Store,
    /// Where else policies, tiers and clients live; absent: nowhere.
    pub database: Option<Database>,
    /// Networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Which families of rate-limit headers are sent.
    pub response_headers: ResponseHeaders,
    /// How clients are recognised.
    pub auth: Auth,
    /// Names of the tiers that exist.
    pub tiers: BTreeSet<String>,
    /// Clients by id.
    pub clients: BTreeMap<String, Client>,
    /// Upstreams by name.
    pub upstreams: BTreeMap<String, Upstream>,
    /// Routes in the order of the file; names are unique.
    pub routes: Vec<Route>,
    /// Policies by name.
    pub policies: BTreeMap<String, Policy>,
}

/// Settings of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Worker threads; 0 (one per core) is resolved by the caller.
    pub threads: usize,
    /// Whether a change of the file is taken over by itself.
    pub watch: bool,
    /// How long a stop waits for requests in flight.
    pub grace_period: Duration,
    /// The `Server` header of our own responses; none when absent.
    pub user_agent_header: Option<String>,
    /// The path of the health check on every listener; absent: the upstream answers it.
    pub health_path: Option<String>,
    /// How much the health check tells.
    pub health_detail: HealthDetail,
}

/// How much the health check tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthDetail {
    /// The state of the store, the database and every upstream.
    Full,
    /// The overall status only.
    Status,
}

/// One address that accepts downstream connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it also takes HTTP/2 without TLS.
    pub http2: bool,
}

/// The admin listener.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens.
    pub address: SocketAddr,
    /// The bearer token; absent only on a loopback address, never empty.
    pub token: Option<Secret>,
    /// Names accepted in `Host` beside the loopback ones, lower case.
    pub hosts: Vec<String>,
}

/// A text that never shows itself in logs or errors.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(in crate::config) fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The secret itself; for comparing, never for printing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Which families of rate-limit headers are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHeaders {
    /// `X-RateLimit-Limit` and its siblings.
    pub x_ratelimit: bool,
    /// `RateLimit` and `RateLimit-Policy` of the IETF draft.
    pub ietf: bool,
    /// `X-Tidegate-Decided-By`, for operators.
    pub debug: bool,
}

/// A client of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// Its tier, one of `Config::tiers`.
    pub tier: Option<String>,
    /// Its API keys; no other client has any of them.
    pub api_keys: Vec<ClientKey>,
}

/// An API key of the file.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientKey {
    /// Its SHA-256.
    pub digest: [u8; 32],
    /// What it may be used for, where routes ask.
    pub scopes: Vec<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A digest of a short key can be reversed by trying, so none is printed.
        f.debug_struct("Client")
            .field("tier", &self.tier)
            .field("api_keys", &format_args!("[*** x {}]", self.api_keys.len()))
            .finish()
    }
}
