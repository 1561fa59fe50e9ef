//! Policies: a named quota each, whom and what it applies to, and how it behaves.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::config::notation::written;

/// A named quota, whom and what it applies to, and how it behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Names of the routes it applies to, all known; absent: every route.
    pub routes: Option<Vec<String>>,
    /// The descriptor; never empty.
    pub key: Vec<KeyPart>,
    /// How it counts.
    pub algorithm: Algorithm,
    /// What it allows.
    pub quota: Quota,
    /// Replaces the quota for a tier.
    pub tiers: BTreeMap<String, Quota>,
    /// Replaces the quota for a client.
    pub overrides: BTreeMap<String, Override>,
    /// Units one request takes.
    pub cost: u32,
    /// Whether every request is counted at once; never leased for `leaky_bucket` and `concurrency`.
    pub consistency: Consistency,
    /// How long leased units live at most, 10 ms to 10 s. For `sliding_window` a hundredth of the period is the most,
    /// whatever is written here.
    pub lease_ttl: Duration,
    /// What it does while the store does not answer.
    pub on_outage: OnOutage,
    /// Whether it is in force.
    pub mode: Mode,
    /// Methods it applies to (GET implies HEAD); absent: all.
    pub methods: Option<Vec<http::Method>>,
    /// The prefix by which IPv6 clients are counted, 1 to 128.
    pub ipv6_prefix: u8,
    /// The status of its refusals, 400 to 599.
    pub status: u16,
}

/// One entry of a descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// `client`: the client's id, or its IP where nobody is authenticated.
    Client,
    /// `ip`
    Ip,
    /// `route`
    Route,
    /// `tier`
    Tier,
    /// `method`
    Method,
    /// `host`, as routed.
    Host,
    /// `path`, as routed.
    Path,
    /// `header:<name>`
    Header(http::HeaderName),
    /// `jwt:<claim>`; without a token the client's IP.
    JwtClaim(String),
    /// `global`: one bucket for all.
    Global,
}

/// How a policy counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// Refills steadily up to the burst.
    TokenBucket,
    /// Exact: `count` in any period; keeps every request's time.
    SlidingWindow,
    /// Two weighted windows; approximate, constant memory.
    SlidingWindowCounter,
    /// Aligned windows, also calendar ones.
    FixedWindow,
    /// Delays instead of refusing, up to `max_delay`.
    LeakyBucket,
    /// Requests in flight.
    Concurrency,
}

impl Algorithm {
    /// The name in the file, in headers and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Algorithm::TokenBucket => "token_bucket",
            Algorithm::SlidingWindow => "sliding_window",
            Algorithm::SlidingWindowCounter => "sliding_window_counter",
            Algorithm::FixedWindow => "fixed_window",
            Algorithm::LeakyBucket => "leaky_bucket",
            Algorithm::Concurrency => "concurrency",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much is allowed; holds only what its policy's algorithm uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Units per window, or requests in flight; 1 to 1,000,000,000.
    pub count: u64,
    /// The time the count refers to.
    pub window: Window,
    /// `token_bucket` only, and as written: absent means `count`.
    pub burst: Option<u64>,
    /// `leaky_bucket` only, and always there for it.
    pub max_delay: Option<Duration>,
}

/// A client's own quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// What is allowed.
    pub quota: Quota,
    /// When it ends to hold, microseconds since the Unix epoch; absent: never.
    pub expires_us: Option<u64>,
}

impl Serialize for Quota {
    /// As the file has it: `{"count":30,"period":"1m"}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("count", &self.count)?;
        match &self.window {
            Window::Period(period) => map.serialize_entry("period", &written(*period))?,
            Window::Calendar { unit, time_zone } => {
                map.serialize_entry("calendar", unit)?;
                map.serialize_entry("time_zone", time_zone)?;
            }
            Window::None => (),
        }
        if let Some(burst) = self.burst {
            map.serialize_entry("burst", &burst)?;
        }
        if let Some(max_delay) = self.max_delay {
            map.serialize_entry("max_delay", &written(max_delay))?;
        }
        map.end()
    }
}

/// The time a quota's count refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Window {
    /// 1 ms to 366 days.
    Period(Duration),
    /// A calendar unit (`fixed_window` only).
    Calendar {
        /// Which one.
        unit: CalendarUnit,
        /// A time zone's name as written; not checked here.
        time_zone: String,
    },
    /// None: `concurrency` counts what is in flight.
    None,
}

/// The calendar unit of a fixed window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CalendarUnit {
    /// Midnight to midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    Month,
}

/// Whether every request is counted at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// Every request is counted in the store.
    Strict,
    /// Units of hot keys are taken in advance, within a stated bound.
    Leased,
}

/// What a policy does while the store does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnOutage {
    /// Count in process, with this gateway's share.
    Local,
    /// Let everything through.
    Allow,
    /// Answer 503.
    Deny,
}

/// Whether a policy is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It refuses.
    Enforce,
    /// It reports what it would refuse.
    Shadow,
    /// It does nothing.
    Off,
}
