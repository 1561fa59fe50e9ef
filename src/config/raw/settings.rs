//! The keys of what is changed about a route while it runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::notation::{TimeSpan, Written};

/// What is changed about a route while it runs; the database's row replaces the whole.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "RouteSettings")]
pub(in crate::config) struct Settings {
    /// false: what the route matches is answered with 404.
    pub(in crate::config) enabled: bool,
    /// true: everything is answered with 503.
    pub(in crate::config) maintenance: bool,
    /// Another upstream in place of the route's; null: the route's.
    pub(in crate::config) upstream: Option<String>,
    /// An upstream that takes some of the clients; null: none.
    pub(in crate::config) canary: Option<Canary>,
    /// Limit between two reads from the peer, in place of the upstream's read_timeout; null: the upstream's.
    pub(in crate::config) timeout: Option<Written<TimeSpan>>,
    /// Requests in flight at most, per gateway, beyond that 503; null: no limit.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) max_concurrent: Option<u32>,
    /// By how much the cost in every policy is multiplied; 0: nothing is charged.
    #[schemars(range(max = 1_000_000))]
    pub(in crate::config) cost: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            enabled: true,
            maintenance: false,
            upstream: None,
            canary: None,
            timeout: None,
            max_concurrent: None,
            cost: 1,
        }
    }
}

/// An upstream that takes some of the clients.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["upstream", "weight"]))]
pub(in crate::config) struct Canary {
    /// The upstream's name.
    #[schemars(required)]
    pub(in crate::config) upstream: Option<String>,
    /// Per cent of the clients; each client always gets the same upstream.
    #[schemars(required, range(max = 100))]
    pub(in crate::config) weight: Option<u8>,
}
