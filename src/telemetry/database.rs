//! Metrics of the database.

use super::register;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// Upper bounds of the buckets for look-ups, seconds.
const LOOK_UP_SECONDS: [f64; 11] = [
    0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0,
];

/// Handles of the database; clones count into the same metrics.
#[derive(Clone)]
pub struct DatabaseMetrics {
    /// 1: it answers and its schema fits
    pub up: IntGauge,
    /// connections of the pool, idle or in use
    pub connections: IntGauge,
    /// times the listening connection was made
    pub connects: IntCounter,
    /// changes that were read
    pub changes: IntCounter,
    /// times everything had to be looked up anew
    pub expired_all: IntCounter,
    /// keys and clients in memory
    pub known: IntGauge,
    /// keys and clients known not to exist
    pub absent: IntGauge,
    /// look-ups that asked the database
    pub look_ups: IntCounter,
    /// look-ups that failed
    pub look_ups_failed: IntCounter,
    /// look-ups refused because too many were under way
    pub look_ups_refused: IntCounter,
    /// answers from memory that could not be checked because the database was away
    pub stale: IntCounter,
    /// time of a look-up
    pub look_up_seconds: Histogram,
}

impl DatabaseMetrics {
    /// Registers everything; fails only if two metrics had one name.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(name, help)?);
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let look_up_seconds = HistogramOpts::new(
            "tidegate_database_look_up_duration_seconds",
            "time from asking the database for a key or client to its answer",
        )
        .buckets(LOOK_UP_SECONDS.to_vec());
        Ok(DatabaseMetrics {
            up: gauge(
                "tidegate_database_up",
                "1: the database answers and its schema fits; 0: it does not, or there is none",
            )?,
            connections: gauge(
                "tidegate_database_connections",
                "connections of the pool, idle or in use",
            )?,
            connects: counter(
                "tidegate_database_connects_total",
                "times the listening connection was made",
            )?,
            changes: counter(
                "tidegate_database_changes_total",
                "changes that were read from the database",
            )?,
            expired_all: counter(
                "tidegate_database_expired_all_total",
                "times every key and client had to be looked up anew",
            )?,
            known: gauge("tidegate_directory_known", "keys and clients in memory")?,
            absent: gauge(
                "tidegate_directory_absent",
                "keys and clients known not to exist",
            )?,
            look_ups: counter(
                "tidegate_directory_look_ups_total",
                "look-ups of keys and clients that asked the database",
            )?,
            look_ups_failed: counter(
                "tidegate_directory_look_ups_failed_total",
                "look-ups that the database did not answer",
            )?,
            look_ups_refused: counter(
                "tidegate_directory_look_ups_refused_total",
                "look-ups refused because too many were under way",
            )?,
            stale: counter(
                "tidegate_directory_stale_total",
                "answers from memory that the database could not confirm",
            )?,
            look_up_seconds: register(registry, Histogram::with_opts(look_up_seconds)?)?,
        })
    }
}
