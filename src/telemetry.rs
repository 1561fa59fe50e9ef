//! Every metric, in one block; handles are made once, so counting a request looks nothing up.

mod auth;
mod database;
mod leases;
mod snapshot;
mod store;

pub use auth::{AuthMetrics, Method, Outcome};
pub use database::DatabaseMetrics;
pub use leases::{LeaseMetrics, LeaseTally};
pub use snapshot::SnapshotMetrics;
pub use store::StoreMetrics;

use once_cell::race::OnceBox;
use prometheus::core::{AtomicU64, GenericGauge};
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

/// Upper bounds of the latency buckets, seconds.
const LATENCY_SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0,
];

/// Statuses counted without a look-up; others take one.
const COMMON_STATUSES: [u16; 20] = [
    101, 200, 201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 413, 429, 500, 502, 503,
    504,
];

/// The label of requests that matched no route.
const NO_ROUTE: &str = "-";

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    latency: HistogramVec,
    decisions: IntCounterVec,
    no_route: RouteMetrics,
    /// requests being handled now
    pub in_flight: IntGauge,
    /// failed authentications
    pub auth_failures: IntCounter,
    /// requests refused because their address had failed to authenticate too often
    pub auth_guarded: IntCounter,
    /// requests refused because an upstream's queue was full or the wait too long
    pub queue_refused: IntCounter,
    /// authentication
    pub auth: AuthMetrics,
    /// the shared store
    pub store: StoreMetrics,
    /// the configuration as it changes
    pub snapshot: SnapshotMetrics,
    /// the database
    pub database: DatabaseMetrics,
    /// buckets held in process
    pub buckets: GenericGauge<AtomicU64>,
    /// buckets forgotten because the store was full
    pub evicted: GenericGauge<AtomicU64>,
}

/// Requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// answered in any way
    pub requests: u64,
    /// answered without an error
    pub passed: u64,
    /// answered 429
    pub limited: u64,
}

/// Handles of one route.
pub struct RouteMetrics {
    name: String,
    requests: IntCounterVec,
    by_status: [OnceBox<IntCounter>; COMMON_STATUSES.len()],
    latency: OnceBox<Histogram>,
    latencies: HistogramVec,
}

/// Handles of one policy.
pub struct PolicyMetrics {
    /// it had room and the request was admitted by it
    pub allowed: IntCounter,
    /// it refused
    pub refused: IntCounter,
    /// it is a shadow and would have refused
    pub would_refuse: IntCounter,
}

impl Metrics {
    /// Registers everything; fails only if two metrics had one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new(
                "tidegate_requests_total",
                "requests answered, by route and status",
            ),
            &["route", "status"],
        )?;
        let latency = HistogramVec::new(
            HistogramOpts::new(
                "tidegate_request_duration_seconds",
                "time from a request's header to the end of its answer, by route",
            )
            .buckets(LATENCY_SECONDS.to_vec()),
            &["route"],
        )?;
        let decisions = IntCounterVec::new(
            Opts::new(
                "tidegate_decisions_total",
                "decisions of the limiter, by policy and outcome (allowed, refused, would_refuse)",
            ),
            &["policy", "outcome"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(latency.clone()))?;
        registry.register(Box::new(decisions.clone()))?;
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help)?);
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help)?);
        let count = |name: &str, help: &str| {
            register(&registry, GenericGauge::<AtomicU64>::new(name, help)?)
        };
        Ok(Metrics {
            no_route: RouteMetrics::new(NO_ROUTE, &requests, &latency),
            in_flight: gauge("tidegate_requests_in_flight", "requests being handled now")?,
            auth_failures: counter("tidegate_auth_failures_total", "failed authentications")?,
            auth_guarded: counter(
                "tidegate_auth_guarded_total",
                "requests refused because their address failed to authenticate too often",
            )?,
            queue_refused: counter(
                "tidegate_upstream_queue_refused_total",
                "requests refused because an upstream's queue was full or the wait in it too long",
            )?,
            auth: AuthMetrics::new(&registry)?,
            store: StoreMetrics::new(&registry)?,
            snapshot: SnapshotMetrics::new(&registry)?,
            database: DatabaseMetrics::new(&registry)?,
            buckets: count("tidegate_store_buckets", "buckets held in process")?,
            evicted: count(
                "tidegate_store_evicted",
                "buckets forgotten because the store was full",
            )?,
            registry,
            requests,
            latency,
            decisions,
        })
    }

    /// Handles for a route.
    pub fn route(&self, name: &str) -> RouteMetrics {
        RouteMetrics::new(name, &self.requests, &self.latency)
    }

    /// The handles of requests that matched no route.
    pub fn no_route(&self) -> &RouteMetrics {
        &self.no_route
    }

    /// Handles for a policy.
    pub fn policy(&self, name: &str) -> PolicyMetrics {
        PolicyMetrics {
            allowed: self.decisions.with_label_values(&[name, "allowed"]),
            refused: self.decisions.with_label_values(&[name, "refused"]),
            would_refuse: self.decisions.with_label_values(&[name, "would_refuse"]),
        }
    }

    /// Requests so far, over all routes.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for family in prometheus::core::Collector::collect(&self.requests) {
            for metric in family.get_metric() {
                let count = metric.get_counter().get_value() as u64;
                let status = metric
                    .get_label()
                    .iter()
                    .find(|label| label.get_name() == "status");
                totals.requests += count;
                match status.map(|label| label.get_value()) {
                    Some("429") => totals.limited += count,
                    Some(status) if status.starts_with(['1', '2', '3']) => totals.passed += count,
                    _ => (),
                }
            }
        }
        totals
    }

    /// Everything in Prometheus' text format 0.0.4.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl RouteMetrics {
    fn new(name: &str, requests: &IntCounterVec, latencies: &HistogramVec) -> Self {
        RouteMetrics {
            name: name.to_owned(),
            requests: requests.clone(),
            by_status: std::array::from_fn(|_| OnceBox::new()),
            latency: OnceBox::new(),
            latencies: latencies.clone(),
        }
    }

    /// Counts one answered request.
    pub fn observe(&self, status: u16, took: std::time::Duration) {
        self.count(status);
        let latency = || Box::new(self.latencies.with_label_values(&[&self.name]));
        self.latency
            .get_or_init(latency)
            .observe(took.as_secs_f64());
    }

    fn count(&self, status: u16) {
        let labelled = || {
            self.requests
                .with_label_values(&[&self.name, &status.to_string()])
        };
        let common = COMMON_STATUSES
            .binary_search(&status)
            .ok()
            .and_then(|index| self.by_status.get(index));
        match common {
            Some(handle) => handle.get_or_init(|| Box::new(labelled())).inc(),
            None => labelled().inc(),
        }
    }
}

fn register<M>(registry: &Registry, metric: M) -> Result<M, prometheus::Error>
where
    M: prometheus::core::Collector + Clone + 'static,
{
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn requests_are_counted_by_route_and_status_common_or_not() {
        let metrics = Metrics::new().unwrap();
        let route = metrics.route("search");
        route.observe(200, Duration::from_millis(3));
        route.observe(200, Duration::from_millis(3));
        route.observe(418, Duration::from_millis(3));
        metrics.policy("p").would_refuse.inc();
        let text = metrics.render().unwrap();
        for line in [
            "tidegate_requests_total{route=\"search\",status=\"200\"} 2",
            "tidegate_requests_total{route=\"search\",status=\"418\"} 1",
            "tidegate_request_duration_seconds_bucket{route=\"search\",le=\"0.005\"} 3",
            "tidegate_decisions_total{outcome=\"would_refuse\",policy=\"p\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_common_statuses_are_sorted_for_the_search() {
        assert!(COMMON_STATUSES.is_sorted());
    }
}
