//! How often a key was seen lately, in constant memory: never too few, often too many.
//!
//! A count-min sketch only over-counts, so an estimate never refuses anybody. It is used where too
//! many is harmless: to tell keys that are surely cold from those worth remembering.

use pingora_limits::estimator::Estimator;
use std::hash::Hash;

/// Rows and slots a row: 2 MiB. With 20,000 busy keys hardly one is over-counted.
const ROWS: usize = 4;
const SLOTS: usize = 65_536;

/// Counts since the last [`Estimate::start_over`].
pub struct Estimate(Estimator);

impl Default for Estimate {
    fn default() -> Self {
        Estimate(Estimator::new(ROWS, SLOTS))
    }
}

impl Estimate {
    /// A smaller one, of `slots` slots a row.
    pub fn with_slots(slots: usize) -> Self {
        Estimate(Estimator::new(ROWS, slots))
    }

    /// Counts a key and says how often it was counted, at least.
    pub fn count(&self, key: impl Hash, times: u64) -> u64 {
        let times = isize::try_from(times).unwrap_or(isize::MAX / 2);
        u64::try_from(self.0.incr(key, times)).unwrap_or(0)
    }

    /// How often a key was counted, at most; 0: never.
    pub fn of(&self, key: impl Hash) -> u64 {
        u64::try_from(self.0.get(key)).unwrap_or(0)
    }

    /// Forgets everything.
    pub fn start_over(&self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_counts_too_few() {
        let estimate = Estimate::with_slots(1_024);
        for key in 0..5_000u32 {
            estimate.count(key, 2);
        }
        assert!((0..5_000u32).all(|key| estimate.of(key) >= 2));
        estimate.start_over();
        assert_eq!(estimate.of(7u32), 0);
    }
}
