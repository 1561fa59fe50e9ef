//! The YAML as people type it: every key, its description for editors, its range and its default.
//!
//! The shape check has seen the tree before serde does, and has taken out what is wrong. Therefore what must be there
//! is an `Option` all the same, and so is every element of a list: `None` means "reported already".

mod auth;
mod database;
mod policy;
mod route;
mod settings;
mod store;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::HealthDetail;
use super::notation::{
    ApiKey, Digest, HeaderText, HostName, ListenAddress, Network, ScopeName, SecretText, TimeSpan,
    UrlPath, Written,
};
pub(super) use auth::{Auth, Basic, Jwt, JwtKey};
pub(super) use database::Database;
pub(super) use policy::{DEFAULT_MAX_DELAY, DEFAULT_TIME_ZONE, Policy, Quota};
pub(super) use route::{DEFAULT_PATH, ForwardAuth, Match, Peer, Route, Upstream};
pub(super) use settings::Settings as RouteSettings;
pub(super) use store::{Mode as RedisMode, Redis, Store};

/// The configuration of Tidegate.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// The process itself.
    pub(super) server: Server,
    /// Addresses that accept downstream connections.
    #[schemars(with = "Vec<Listener>")]
    pub(super) listeners: Vec<Option<Listener>>,
    /// The admin listener; null switches it off.
    pub(super) admin: Option<Admin>,
    /// Where buckets live.
    pub(super) store: Store,
    /// Policies, tiers, clients and API keys in Postgres, beside those of this file.
    pub(super) database: Database,
    /// Networks whose X-Forwarded-For is believed.
    #[schemars(with = "Vec<Written<Network>>")]
    pub(super) trusted_proxies: Vec<Option<Written<Network>>>,
    /// Families of rate-limit headers that responses carry.
    #[schemars(with = "Vec<HeaderFamily>")]
    pub(super) response_headers: Vec<Option<HeaderFamily>>,
    /// How clients are recognised.
    pub(super) auth: Auth,
    /// Tiers (plans) by name; they have no settings of their own.
    #[schemars(extend("propertyNames" = { "format": "tidegate-name" }))]
    pub(super) tiers: BTreeMap<String, Tier>,
    /// Clients by id.
    #[schemars(extend("propertyNames" = { "format": "tidegate-client-id" }))]
    pub(super) clients: BTreeMap<String, Client>,
    /// Pools of peers by name.
    #[schemars(extend("propertyNames" = { "format": "tidegate-name" }))]
    pub(super) upstreams: BTreeMap<String, Upstream>,
    /// Where requests go; the most specific match wins, not the order.
    #[schemars(with = "Vec<Route>")]
    pub(super) routes: Vec<Option<Route>>,
    /// Limits by name; all that match a request apply together.
    #[schemars(extend("propertyNames" = { "format": "tidegate-name" }))]
    pub(super) policies: BTreeMap<String, Policy>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            server: Server::default(),
            listeners: vec![Some(Listener {
                address: Some(address("0.0.0.0:8080", Ipv4Addr::UNSPECIFIED, 8080)),
                http2: false,
            })],
            admin: Some(Admin::default()),
            store: Store::default(),
            database: Database::default(),
            trusted_proxies: Vec::new(),
            response_headers: vec![Some(HeaderFamily::XRatelimit), Some(HeaderFamily::Ietf)],
            auth: Auth::default(),
            tiers: BTreeMap::new(),
            clients: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            routes: Vec::new(),
            policies: BTreeMap::new(),
        }
    }
}

/// Settings of the process.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    /// Workers: threads with listening sockets and connections to upstreams of their own; 0: one per core.
    #[schemars(range(max = 1024))]
    pub(super) threads: usize,
    /// Whether a change of this file (or .env) is taken over without SIGHUP; looked for once a second.
    pub(super) watch: bool,
    /// Drain time at stop, such as 30s.
    pub(super) grace_period: Written<TimeSpan>,
    /// The Server header of our own responses; null sends none.
    pub(super) user_agent_header: Option<Written<HeaderText>>,
    /// The health check on every listener; never limited.
    pub(super) health: Health,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            threads: 0,
            watch: false,
            grace_period: span("30s", Duration::from_secs(30)),
            user_agent_header: Some(Written::known(
                "tidegate",
                HeaderText("tidegate".to_owned()),
            )),
            health: Health::default(),
        }
    }
}

/// The health check.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Health {
    /// Its path; null leaves it to the upstream.
    pub(super) path: Option<Written<UrlPath>>,
    /// How much it tells.
    pub(super) detail: HealthDetail,
}

impl Default for Health {
    fn default() -> Self {
        let path = Some(Written::known("/health", UrlPath("/health".to_owned())));
        Health {
            path,
            detail: HealthDetail::Full,
        }
    }
}

/// One address that accepts downstream connections.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// IP address and port, such as 0.0.0.0:8080.
    #[schemars(required)]
    pub(super) address: Option<Written<ListenAddress>>,
    /// Accept HTTP/2 without TLS (prior knowledge) beside HTTP/1.1, for gRPC clients.
    #[serde(default)]
    pub(super) http2: bool,
}

/// The admin listener: health and metrics.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    /// IP address and port.
    pub(super) address: Written<ListenAddress>,
    /// The bearer token; none (null or empty) is only allowed on a loopback address.
    pub(super) token: Option<Written<SecretText>>,
    /// Names accepted in the Host header beside the loopback ones.
    #[schemars(with = "Vec<Written<HostName>>")]
    pub(super) hosts: Vec<Option<Written<HostName>>>,
}

impl Default for Admin {
    fn default() -> Self {
        Admin {
            address: address("127.0.0.1:9180", Ipv4Addr::LOCALHOST, 9180),
            token: None,
            hosts: Vec::new(),
        }
    }
}

/// A family of rate-limit headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HeaderFamily {
    /// X-RateLimit-Limit, -Remaining, -Reset, -Strategy.
    XRatelimit,
    /// RateLimit and RateLimit-Policy of the IETF draft.
    Ietf,
    /// X-Tidegate-Decided-By: memory, redis, lease, remembered or outage.
    Debug,
}

/// A tier; written {}.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tier {}

/// A client.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Client {
    /// Its tier, one of `tiers`.
    pub(super) tier: Option<String>,
    /// Its API keys; several while one replaces another.
    #[schemars(with = "Vec<ClientKey>")]
    pub(super) api_keys: Vec<Option<ClientKey>>,
}

/// An API key: its SHA-256, or itself for development.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClientKey {
    /// The SHA-256 of the key, 64 hexadecimal digits.
    pub(super) sha256: Option<Written<Digest>>,
    /// The key itself; for development.
    pub(super) plain: Option<Written<ApiKey>>,
    /// Scopes that routes may ask for.
    #[schemars(with = "Vec<Written<ScopeName>>")]
    pub(super) scopes: Vec<Option<Written<ScopeName>>>,
}

fn span(text: &'static str, value: Duration) -> Written<TimeSpan> {
    Written::known(text, TimeSpan(value))
}

fn address(text: &'static str, ip: Ipv4Addr, port: u16) -> Written<ListenAddress> {
    Written::known(text, ListenAddress(SocketAddr::from((ip, port))))
}
