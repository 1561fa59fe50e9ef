//! Metrics of the snapshot: how often it changed and what of the database is left out of it.

use super::register;
use prometheus::{IntCounter, IntGauge, Registry};

/// Handles of the snapshot's metrics.
#[derive(Clone)]
pub struct SnapshotMetrics {
    /// times a new snapshot was taken over
    pub published: IntCounter,
    /// times a change was refused as a whole
    pub refused: IntCounter,
    /// problems of rows that are left out now
    pub refused_rows: IntGauge,
}

impl SnapshotMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        Ok(SnapshotMetrics {
            published: counter(
                "tidegate_snapshot_published_total",
                "times a change of the file or the database was taken over",
            )?,
            refused: counter(
                "tidegate_snapshot_refused_total",
                "times a change of the file or the database was refused and the old configuration stayed",
            )?,
            refused_rows: register(
                registry,
                IntGauge::new(
                    "tidegate_snapshot_refused_rows",
                    "problems of rows of the database that are left out now",
                )?,
            )?,
        })
    }
}
