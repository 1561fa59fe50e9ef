//! Metrics of units taken in advance, by policy.

use super::register;
use parking_lot::RwLock;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use std::sync::Arc;

/// Handles by policy; clones count into the same metrics.
#[derive(Clone)]
pub struct LeaseMetrics {
    held: IntGaugeVec,
    most: IntGaugeVec,
    bound: IntGaugeVec,
    /// by number, from 1; as many as there were names of leased policies, like the labels
    known: Arc<RwLock<Vec<(String, LeaseTally)>>>,
}

/// Handles of one policy.
#[derive(Clone)]
pub struct LeaseTally {
    held: IntGauge,
    most: IntGauge,
}

impl LeaseMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["policy"])?;
            register(registry, gauges)
        };
        Ok(LeaseMetrics {
            held: gauges(
                "tidegate_lease_units",
                "units taken in advance that this gateway holds now, by policy",
            )?,
            most: gauges(
                "tidegate_lease_units_most",
                "most units of one bucket that this gateway ever held in advance, by policy",
            )?,
            bound: gauges(
                "tidegate_lease_units_bound",
                "most units of one bucket that all gateways together may hold in advance, by policy; \
                 admissions exceed a quota by no more",
            )?,
            known: Arc::default(),
        })
    }

    /// The number of a policy, from 1, of which all gateways may hold so many units in advance.
    pub fn number_of(&self, policy: &str, bound: u64) -> u32 {
        let gauge = self.bound.with_label_values(&[policy]);
        gauge.set(i64::try_from(bound).unwrap_or(i64::MAX));
        let mut known = self.known.write();
        let place = known.iter().position(|(name, _)| name == policy);
        let place = place.unwrap_or_else(|| {
            let tally = LeaseTally {
                held: self.held.with_label_values(&[policy]),
                most: self.most.with_label_values(&[policy]),
            };
            known.push((policy.to_owned(), tally));
            known.len() - 1
        });
        u32::try_from(place + 1).unwrap_or(u32::MAX)
    }

    /// The handles of a policy; of 0, which is none, there are none.
    pub fn tally(&self, number: u32) -> Option<LeaseTally> {
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        Some(self.known.read().get(place)?.1.clone())
    }
}

impl LeaseTally {
    /// So many units more are held, of their bucket now so many.
    pub fn takes(&self, units: u64, of_bucket: u64) {
        self.held.add(i64::try_from(units).unwrap_or(i64::MAX));
        let of_bucket = i64::try_from(of_bucket).unwrap_or(i64::MAX);
        if of_bucket > self.most.get() {
            self.most.set(of_bucket);
        }
    }

    /// So many are not held any more.
    pub fn lets_go(&self, units: u64) {
        self.held.sub(i64::try_from(units).unwrap_or(i64::MAX));
    }
}
