//! The keys of upstreams and routes.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RouteSettings, span};
use crate::config::model::{Balance, Protocol, RouteAuth};
use crate::config::notation::{
    HeaderField, HostPattern, MethodName, Name, Network, PathRegex, PeerAddress, ScopeName, Size,
    TimeSpan, UrlPath, WebUrl, Written,
};

/// A pool of peers.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["peers"]))]
pub(in crate::config) struct Upstream {
    /// Its addresses.
    #[schemars(required, with = "Vec<Peer>")]
    pub(in crate::config) peers: Option<Vec<Option<Peer>>>,
    /// How a peer is chosen.
    pub(in crate::config) balance: Balance,
    /// The version of HTTP its peers speak.
    pub(in crate::config) protocol: Protocol,
    /// Requests in flight at most, per gateway; null: no limit.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) max_concurrent: Option<u32>,
    /// Requests that wait for one of max_concurrent places.
    pub(in crate::config) queue: Queue,
    /// Limit for establishing a connection.
    pub(in crate::config) connect_timeout: Written<TimeSpan>,
    /// Limit between two reads from the peer.
    pub(in crate::config) read_timeout: Written<TimeSpan>,
    /// Limit between two writes to the peer.
    pub(in crate::config) write_timeout: Written<TimeSpan>,
    /// How long an unused connection is kept for reuse.
    pub(in crate::config) idle_timeout: Written<TimeSpan>,
    /// Further attempts after a failed connection.
    #[schemars(range(max = 10))]
    pub(in crate::config) retries: u32,
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream {
            peers: None,
            balance: Balance::RoundRobin,
            protocol: Protocol::Http1,
            max_concurrent: None,
            queue: Queue::default(),
            connect_timeout: span("1s", Duration::from_secs(1)),
            read_timeout: span("60s", Duration::from_secs(60)),
            write_timeout: span("60s", Duration::from_secs(60)),
            idle_timeout: span("60s", Duration::from_secs(60)),
            retries: 1,
        }
    }
}

/// One address of an upstream.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(in crate::config) struct Peer {
    /// Host (name or IP) and port.
    #[schemars(required)]
    pub(in crate::config) address: Option<Written<PeerAddress>>,
    /// Its share; 0 takes nothing.
    #[schemars(range(max = 65_535))]
    pub(in crate::config) weight: u32,
}

impl Default for Peer {
    fn default() -> Self {
        Peer {
            address: None,
            weight: 1,
        }
    }
}

/// Requests that wait for one of max_concurrent places.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Queue {
    /// How many wait at most; 0: none, 503 at once.
    #[schemars(range(max = 1_000_000))]
    pub(in crate::config) size: u32,
    /// How long they wait at most.
    pub(in crate::config) timeout: Written<TimeSpan>,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            size: 0,
            timeout: span("1s", Duration::from_secs(1)),
        }
    }
}

/// Which requests go where.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "upstream"]))]
pub(in crate::config) struct Route {
    /// A unique name; policies, metrics and logs use it.
    #[schemars(required)]
    pub(in crate::config) name: Option<Written<Name>>,
    /// What a request must look like; absent: anything.
    #[serde(rename = "match")]
    pub(in crate::config) matches: Match,
    /// The upstream's name.
    #[schemars(required)]
    pub(in crate::config) upstream: Option<String>,
    /// Whether credentials are looked at.
    pub(in crate::config) auth: RouteAuth,
    /// Networks whose requests are taken, others get 403; null: all.
    #[schemars(with = "Option<Vec<Written<Network>>>")]
    pub(in crate::config) allow: Option<Vec<Option<Written<Network>>>>,
    /// Networks whose requests get 403, also those that allow has.
    #[schemars(with = "Vec<Written<Network>>")]
    pub(in crate::config) deny: Vec<Option<Written<Network>>>,
    /// Scopes that the API key or the token must have, all of them; otherwise 403.
    #[schemars(with = "Vec<Written<ScopeName>>")]
    pub(in crate::config) scopes: Vec<Option<Written<ScopeName>>>,
    /// A URL that is asked about every request (nginx's auth_request).
    pub(in crate::config) forward_auth: ForwardAuth,
    /// Whether a credential that Tidegate verified still goes to the upstream.
    pub(in crate::config) forward_credentials: bool,
    /// Changes to the request.
    pub(in crate::config) rewrite: Rewrite,
    /// The largest request body, such as 10MiB; null: no limit.
    pub(in crate::config) max_body: Option<Written<Size>>,
    /// Whether the Forwarded header of RFC 7239 goes to the upstream.
    pub(in crate::config) forwarded_header: bool,
    /// What is changed while it runs.
    pub(in crate::config) settings: RouteSettings,
}

impl Default for Route {
    fn default() -> Self {
        Route {
            name: None,
            matches: Match::default(),
            upstream: None,
            auth: RouteAuth::None,
            allow: None,
            deny: Vec::new(),
            scopes: Vec::new(),
            forward_auth: ForwardAuth::default(),
            forward_credentials: false,
            rewrite: Rewrite::default(),
            max_body: None,
            forwarded_header: false,
            settings: RouteSettings::default(),
        }
    }
}

/// A URL that is asked about every request: 2xx lets it pass, 401 and 403 refuse it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ForwardAuth {
    /// Where to ask; null or empty: nowhere.
    pub(in crate::config) url: Option<Written<WebUrl>>,
    /// How long to wait for the answer, 10ms to 1m; then 503.
    pub(in crate::config) timeout: Written<TimeSpan>,
    /// Headers of the request that it gets, beside X-Forwarded-Method, -Proto, -Host, -Uri and -For.
    #[schemars(with = "Vec<Written<HeaderField>>")]
    pub(in crate::config) headers: Vec<Option<Written<HeaderField>>>,
    /// Headers of its answer that the upstream gets, in place of the client's own.
    #[schemars(with = "Vec<Written<HeaderField>>")]
    pub(in crate::config) copy_headers: Vec<Option<Written<HeaderField>>>,
    /// The header of its answer that names the client; null: none.
    pub(in crate::config) client_header: Option<Written<HeaderField>>,
    /// The header of its answer that names the client's tier; null: none.
    pub(in crate::config) tier_header: Option<Written<HeaderField>>,
    /// How long an answer holds for requests with the same `headers`, at most 1h; 0s: it is asked every time.
    pub(in crate::config) cache: Written<TimeSpan>,
}

impl Default for ForwardAuth {
    fn default() -> Self {
        let header = |text, name| Some(Written::known(text, HeaderField(name)));
        ForwardAuth {
            url: None,
            timeout: span("1s", Duration::from_secs(1)),
            headers: vec![
                header("Authorization", http::header::AUTHORIZATION),
                header("Cookie", http::header::COOKIE),
            ],
            copy_headers: Vec::new(),
            client_header: None,
            tier_header: None,
            cache: span("0s", Duration::ZERO),
        }
    }
}

/// What a request must look like; at most one of path, path_exact and path_regex.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Match {
    /// Hosts without port, *.example.com for all subdomains; empty: any.
    #[schemars(with = "Vec<Written<HostPattern>>")]
    pub(in crate::config) hosts: Vec<Option<Written<HostPattern>>>,
    /// A prefix by whole segments; / takes every path and is the default.
    pub(in crate::config) path: Option<Written<UrlPath>>,
    /// Exactly this path.
    pub(in crate::config) path_exact: Option<Written<UrlPath>>,
    /// A regular expression over the path.
    pub(in crate::config) path_regex: Option<Written<PathRegex>>,
    /// Methods (GET implies HEAD); null: all.
    #[schemars(with = "Option<Vec<Written<MethodName>>>")]
    pub(in crate::config) methods: Option<Vec<Option<Written<MethodName>>>>,
    /// Whether %2f, %00, \ and empty segments are let through instead of answered with 400.
    pub(in crate::config) raw_path: bool,
}

/// The prefix / of routes that give no path.
pub(in crate::config) const DEFAULT_PATH: &str = "/";

/// Changes to the request on its way to the upstream.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Rewrite {
    /// A prefix taken off the path; null: none.
    pub(in crate::config) strip_prefix: Option<Written<UrlPath>>,
}
