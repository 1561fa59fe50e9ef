//! Metrics of the shared store.

use super::{LeaseMetrics, register};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// Upper bounds of the buckets for calls to the store, seconds.
const CALL_SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// Handles of one shared store; clones count into the same metrics.
#[derive(Clone)]
pub struct StoreMetrics {
    /// 1: counting is shared; 0: outage modes decide
    pub up: IntGauge,
    /// live gateways, this one included
    pub gateways: IntGauge,
    /// requests waiting for the store
    pub waiting: IntGauge,
    /// buckets held in process during an outage
    pub outage_buckets: IntGauge,
    /// calls made to take units or hand them back
    pub calls: IntCounter,
    /// calls that failed
    pub errors: IntCounter,
    /// time from sending a call to its reply
    pub call_seconds: Histogram,
    /// requests decided by the store
    pub decided: IntCounter,
    /// requests that stopped waiting at their deadline
    pub deadlines: IntCounter,
    /// requests decided by outage mode at once, because too many waited already
    pub crowded: IntCounter,
    /// requests decided by outage mode
    pub outage: IntCounter,
    /// times the breaker opened
    pub trips: IntCounter,
    /// units handed back because nobody waited for them any more
    pub refunded: IntCounter,
    /// buckets charged after an outage with what they held in process
    pub settled: IntCounter,
    /// what is decided without a call
    pub ahead: AheadMetrics,
}

impl StoreMetrics {
    /// Registers everything; fails only if two metrics had one name.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help)?);
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let call_seconds = HistogramOpts::new(
            "tidegate_store_call_duration_seconds",
            "time from sending a call to the shared store to its reply",
        )
        .buckets(CALL_SECONDS.to_vec());
        Ok(StoreMetrics {
            up: gauge(
                "tidegate_store_up",
                "1: counting is shared; 0: outage modes decide, or there is no shared store",
            )?,
            gateways: gauge(
                "tidegate_store_gateways",
                "live gateways, this one included",
            )?,
            waiting: gauge("tidegate_store_waiting", "requests waiting for the store")?,
            outage_buckets: gauge(
                "tidegate_store_outage_buckets",
                "buckets held in process during an outage",
            )?,
            calls: counter(
                "tidegate_store_calls_total",
                "calls made to the shared store to take units or hand them back",
            )?,
            errors: counter("tidegate_store_errors_total", "calls that failed")?,
            call_seconds: register(registry, Histogram::with_opts(call_seconds)?)?,
            decided: counter(
                "tidegate_store_decided_total",
                "requests decided by the shared store",
            )?,
            deadlines: counter(
                "tidegate_store_deadlines_total",
                "requests that stopped waiting for the store at their deadline",
            )?,
            crowded: counter(
                "tidegate_store_crowded_total",
                "requests decided by outage mode because too many waited already",
            )?,
            outage: counter(
                "tidegate_store_outage_total",
                "requests decided by outage mode",
            )?,
            trips: counter("tidegate_store_trips_total", "times the breaker opened")?,
            refunded: counter(
                "tidegate_store_refunded_total",
                "units handed back because nobody waited for them any more",
            )?,
            settled: counter(
                "tidegate_store_settled_total",
                "buckets charged after an outage with what they held in process",
            )?,
            ahead: AheadMetrics::new(registry)?,
        })
    }
}

/// Handles of what a gateway decides without a call: leases and remembered refusals.
#[derive(Clone)]
pub struct AheadMetrics {
    /// requests served from a lease
    pub served: IntCounter,
    /// units held in leases
    pub leased: IntGauge,
    /// most units ever held in leases
    pub leased_most: IntGauge,
    /// the same by policy
    pub leases: LeaseMetrics,
    /// requests refused by a remembered refusal, or until the next portion of a leased bucket
    pub refused_here: IntCounter,
    /// refusals remembered
    pub remembered: IntGauge,
}

impl AheadMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help)?);
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        Ok(AheadMetrics {
            served: counter(
                "tidegate_store_lease_served_total",
                "requests decided by units taken from the shared store in advance",
            )?,
            leased: gauge(
                "tidegate_store_leased_units",
                "units taken in advance that are held now",
            )?,
            leased_most: gauge(
                "tidegate_store_leased_units_most",
                "most units taken in advance that were ever held at once, of all buckets",
            )?,
            leases: LeaseMetrics::new(registry)?,
            refused_here: counter(
                "tidegate_store_remembered_refusals_total",
                "requests refused by what the shared store was known to hold, without asking it",
            )?,
            remembered: gauge(
                "tidegate_store_remembered_refusals",
                "refusals that are remembered now",
            )?,
        })
    }
}
