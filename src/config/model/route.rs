//! Upstreams and the routes that lead to them.

use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A pool of peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its addresses; at least one, and at least one has a weight.
    pub peers: Vec<Peer>,
    /// How a peer is chosen.
    pub balance: Balance,
    /// The version of HTTP its peers speak.
    pub protocol: Protocol,
    /// Requests in flight at most, per gateway; absent: no limit.
    pub max_concurrent: Option<u32>,
    /// Requests that may wait for one of `max_concurrent` places.
    pub queue_size: u32,
    /// How long they wait at most.
    pub queue_timeout: Duration,
    /// Limit for establishing a connection.
    pub connect_timeout: Duration,
    /// Limit between two reads.
    pub read_timeout: Duration,
    /// Limit between two writes.
    pub write_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Further attempts after a failed connection.
    pub retries: u32,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// An IP address (IPv6 without brackets) or a host name.
    pub host: String,
    /// Its port, not 0.
    pub port: u16,
    /// Its share; 0 takes nothing.
    pub weight: u32,
}

/// How a peer is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// One after the other, by weight.
    RoundRobin,
    /// At random, by weight.
    Random,
}

/// The version of HTTP an upstream's peers speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 without TLS (prior knowledge), for gRPC.
    H2c,
}

/// What a request must look like, and where it then goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name, unique.
    pub name: String,
    /// Hosts in lower case, `*.example.com` for every subdomain; empty: any.
    pub hosts: Vec<String>,
    /// The path it takes.
    pub path: PathPattern,
    /// Methods it takes (GET implies HEAD); absent: all.
    pub methods: Option<Vec<http::Method>>,
    /// Whether `%2f`, `%00`, `\` and empty segments are let through as they came.
    pub raw_path: bool,
    /// The upstream's name; it exists.
    pub upstream: String,
    /// Whether credentials are looked at.
    pub auth: RouteAuth,
    /// Networks it takes requests from; absent: all.
    pub allow: Option<Vec<IpNet>>,
    /// Networks it refuses, also those that `allow` has.
    pub deny: Vec<IpNet>,
    /// Scopes a client needs, all of them.
    pub scopes: Vec<String>,
    /// The URL that is asked about every request; absent: none.
    pub forward_auth: Option<ForwardAuth>,
    /// Whether a credential that was verified here still goes to the upstream.
    pub forward_credentials: bool,
    /// A prefix taken off the path before forwarding.
    pub strip_prefix: Option<String>,
    /// The largest request body in bytes; absent: no limit.
    pub max_body_bytes: Option<u64>,
    /// Whether the `Forwarded` header of RFC 7239 is sent upstream.
    pub forwarded_header: bool,
    /// What is changed while it runs.
    pub settings: RouteSettings,
}

/// What is changed about a route while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Whether it serves at all; if not, what it matches is answered with 404.
    pub enabled: bool,
    /// Whether everything is answered with 503.
    pub maintenance: bool,
    /// The upstream in place of the route's; it exists.
    pub upstream: Option<String>,
    /// An upstream that takes some of the clients.
    pub canary: Option<Canary>,
    /// Limit between two reads, in place of the upstream's.
    pub timeout: Option<Duration>,
    /// Requests in flight at most, per gateway.
    pub max_concurrent: Option<u32>,
    /// By how much the cost in every policy is multiplied.
    pub cost: u32,
}

/// An upstream that takes some of the clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    /// The upstream's name; it exists.
    pub upstream: String,
    /// Per cent of the clients, 0 to 100.
    pub percent: u8,
}

/// A URL that is asked whether a request may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Where to ask.
    pub url: String,
    /// How long to wait for the answer.
    pub timeout: Duration,
    /// Headers of the request that it gets.
    pub headers: Vec<http::HeaderName>,
    /// Headers of its answer that the upstream gets.
    pub copy_headers: Vec<http::HeaderName>,
    /// The header of its answer that names the client.
    pub client_header: Option<http::HeaderName>,
    /// The header of its answer that names the client's tier.
    pub tier_header: Option<http::HeaderName>,
    /// How long an answer holds for the same `headers`; zero: it is asked every time.
    pub cache: Duration,
}

/// The path a route takes, in normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathPattern {
    /// Whole segments from the start; `/` takes every path.
    Prefix(String),
    /// Exactly this path.
    Exact(String),
    /// A regular expression that compiles.
    Regex(String),
}

/// Whether a route looks at credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteAuth {
    /// Credentials are ignored and pass untouched; the client is the IP.
    None,
    /// No credentials: anonymous; bad ones: 401.
    Optional,
    /// No or bad credentials: 401.
    Required,
}
