//! Metrics of units taken in advance, by policy.

use super::register;
use parking_lot::RwLock;
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use std::collections::HashMap;
use std::sync::Arc;

/// Handles by policy; clones count into the same metrics.
#[derive(Clone)]
pub struct LeaseMetrics {
    held: IntGaugeVec,
    most: IntGaugeVec,
    bound: IntGaugeVec,
    known: Arc<RwLock<Known>>,
}

/// As many as there were names of leased policies, like the labels.
#[derive(Default)]
struct Known {
    numbers: HashMap<String, u32>,
    /// by number, from 1
    tallies: Vec<LeaseTally>,
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
        if let Some(number) = known.numbers.get(policy) {
            return *number;
        }
        known.tallies.push(LeaseTally {
            held: self.held.with_label_values(&[policy]),
            most: self.most.with_label_values(&[policy]),
        });
        let number = u32::try_from(known.tallies.len()).unwrap_or(u32::MAX);
        known.numbers.insert(policy.to_owned(), number);
        number
    }

    /// The handles of a policy; of 0, which is none, there are none.
    pub fn tally(&self, number: u32) -> Option<LeaseTally> {
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        Some(self.known.read().tallies.get(place)?.clone())
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
