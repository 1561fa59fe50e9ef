//! Which tiers exist; a credential that names another one has none, which is said at a bounded rate.

use crate::telemetry::AuthMetrics;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One log line in this time.
const LOG_EVERY_US: u64 = 60_000_000;

/// The names of tiers.
pub(super) struct Tiers {
    names: HashSet<Arc<str>>,
    logged_us: AtomicU64,
}

impl Tiers {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        Tiers {
            names: names.into_iter().map(Arc::from).collect(),
            logged_us: AtomicU64::new(0),
        }
    }

    pub(super) fn is_same(&self, other: &Tiers) -> bool {
        self.names == other.names
    }

    /// A tier that exists.
    pub(super) fn named(&self, tier: &str) -> Option<&Arc<str>> {
        self.names.get(tier)
    }

    /// A client was found with a tier that does not exist.
    pub(super) fn missing(&self, client: &str, tier: &str, now_us: u64, metrics: &AuthMetrics) {
        metrics.unknown_tiers.inc();
        let logged_us = self.logged_us.load(Ordering::Relaxed);
        let due = logged_us == 0 || now_us.saturating_sub(logged_us) >= LOG_EVERY_US;
        let mine = due
            && self
                .logged_us
                .compare_exchange(logged_us, now_us, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if mine {
            let shown: String = tier.chars().take(64).collect();
            tracing::warn!(
                client,
                tier = shown,
                "a credential names a tier that does not exist, so policies' own quotas hold; define it under `tiers`"
            );
        }
    }
}
