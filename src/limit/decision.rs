//! The limiter's answer for one request: allowed or not, and why, per bucket.

use super::algorithm::{Answer, Reading};
use super::descriptor::BucketKey;
use super::quota::Quota;
use smallvec::SmallVec;

/// One bucket a request wants to take units from.
#[derive(Clone, Copy, Debug)]
pub struct Charge<'a> {
    /// which bucket
    pub key: BucketKey,
    /// by which numbers
    pub quota: &'a Quota,
    /// how many units
    pub cost: u64,
    /// false: shadow. It never refuses, and is charged only where the request is admitted and
    /// the bucket has room
    pub enforce: bool,
}

/// What one bucket says, after the units were taken if they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketDecision {
    /// had it room?
    pub answer: Answer,
    /// what is left
    pub reading: Reading,
}

/// The whole decision; `buckets` in the order of the charges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// every enforcing bucket had room, and all were charged
    pub allowed: bool,
    /// per charge
    pub buckets: SmallVec<[BucketDecision; 2]>,
}

impl Decision {
    /// Nothing applies.
    pub fn free() -> Self {
        Decision {
            allowed: true,
            buckets: SmallVec::new(),
        }
    }

    /// The longest delay any bucket asks for, microseconds.
    pub fn delay_us(&self) -> u64 {
        let delays = self.buckets.iter().map(|bucket| match bucket.answer {
            Answer::Admit { delay_us } => delay_us,
            Answer::Refuse { .. } => 0,
        });
        delays.max().unwrap_or(0)
    }
}
