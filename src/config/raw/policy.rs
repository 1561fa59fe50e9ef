//! The keys of policies and quotas.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::span;
use crate::config::model::{Algorithm, CalendarUnit, Consistency, Mode, OnOutage};
use crate::config::notation::{Descriptor, MethodName, Moment, TimeSpan, Written, ZoneName};

/// A named quota, whom and what it applies to, and how it behaves.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["key", "algorithm", "quota"]))]
pub(in crate::config) struct Policy {
    /// Names of the routes it applies to; null: every route.
    pub(in crate::config) routes: Option<Vec<Option<String>>>,
    /// What is counted: client, ip, route, tier, method, host, path, header:<name>, jwt:<claim>, global.
    #[schemars(required, with = "Vec<Written<Descriptor>>")]
    pub(in crate::config) key: Option<Vec<Option<Written<Descriptor>>>>,
    /// How it is counted.
    #[schemars(required)]
    pub(in crate::config) algorithm: Option<Algorithm>,
    /// What is allowed.
    #[schemars(required)]
    pub(in crate::config) quota: Option<Quota>,
    /// Replaces the quota for a tier, by the tier's name.
    pub(in crate::config) tiers: BTreeMap<String, Quota>,
    /// Replaces the quota for a client, by the client's id.
    pub(in crate::config) overrides: BTreeMap<String, Quota>,
    /// Units one request takes; 0 is always allowed.
    #[schemars(range(max = 1_000_000_000))]
    pub(in crate::config) cost: u32,
    /// Whether every request is counted in Redis, or units of hot keys are taken in advance (never for leaky_bucket
    /// and concurrency); without Redis every request is counted.
    pub(in crate::config) consistency: Consistency,
    /// How long units taken in advance live at most, 10ms to 10s; for sliding_window a hundredth of the period where
    /// that is less.
    pub(in crate::config) lease_ttl: Written<TimeSpan>,
    /// What happens while Redis does not answer; without Redis, nothing.
    pub(in crate::config) on_outage: OnOutage,
    /// Whether it is in force.
    pub(in crate::config) mode: Mode,
    /// Methods it applies to (GET implies HEAD); null: all.
    #[schemars(with = "Option<Vec<Written<MethodName>>>")]
    pub(in crate::config) methods: Option<Vec<Option<Written<MethodName>>>>,
    /// The prefix by which IPv6 clients are counted.
    #[schemars(range(min = 1, max = 128))]
    pub(in crate::config) ipv6_prefix: u8,
    /// The status of refusals.
    #[schemars(range(min = 400, max = 599))]
    pub(in crate::config) status: u16,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            routes: None,
            key: None,
            algorithm: None,
            quota: None,
            tiers: BTreeMap::new(),
            overrides: BTreeMap::new(),
            cost: 1,
            consistency: Consistency::Strict,
            lease_ttl: span("100ms", Duration::from_millis(100)),
            on_outage: OnOutage::Local,
            mode: Mode::Enforce,
            methods: None,
            ipv6_prefix: 64,
            status: 429,
        }
    }
}

/// What is allowed. Which keys belong here depends on the policy's algorithm.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["count"]))]
pub(in crate::config) struct Quota {
    /// Units per period, or requests in flight.
    #[schemars(required, range(min = 1, max = 1_000_000_000))]
    pub(in crate::config) count: Option<u64>,
    /// The period, 1ms to 366 days, such as 60s; not for concurrency.
    pub(in crate::config) period: Option<Written<TimeSpan>>,
    /// Units that may be taken at once (token_bucket only); null: count.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub(in crate::config) burst: Option<u64>,
    /// A calendar unit instead of a period (fixed_window only).
    pub(in crate::config) calendar: Option<CalendarUnit>,
    /// The time zone of the calendar (with calendar only); null: UTC.
    pub(in crate::config) time_zone: Option<Written<ZoneName>>,
    /// The longest delay before a refusal (leaky_bucket only); null: 1s.
    pub(in crate::config) max_delay: Option<Written<TimeSpan>>,
    /// When it ends to hold (in overrides only), such as 2026-12-31T23:59:59Z; null: never.
    pub(in crate::config) expires: Option<Written<Moment>>,
}

/// The time zone of a calendar window that gives none.
pub(in crate::config) const DEFAULT_TIME_ZONE: &str = "UTC";
/// The delay of a leaky bucket that gives none.
pub(in crate::config) const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(1);
