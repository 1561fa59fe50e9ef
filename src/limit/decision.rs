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
    /// how a shared store may count it
    pub terms: Terms,
}

/// How a shared store may count a charge, and what holds while it does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// tells quotas apart that the same bucket has had: a hash of the numbers
    pub fingerprint: u64,
    /// longest life of units taken in advance, microseconds; 0: every request is counted in the
    /// store
    pub lease_ttl_us: u64,
    /// while the store does not answer
    pub on_outage: OutageMode,
    /// where units held in advance are added up
    /// ([`LeaseMetrics::number_of`](crate::telemetry::LeaseMetrics::number_of)); 0: nowhere
    pub tally: u32,
}

impl Terms {
    /// Strictly counted; decided in process during an outage.
    pub const STRICT: Terms = Terms {
        fingerprint: 0,
        lease_ttl_us: 0,
        on_outage: OutageMode::Local,
        tally: 0,
    };
}

/// What a policy does while the shared store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageMode {
    /// counts in process, by this gateway's share of the quota
    Local,
    /// lets requests through
    Allow,
    /// refuses them
    Deny,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// the store of this process
    Memory,
    /// the shared store, asked for this request
    Redis,
    /// the shared store, asked in advance: units of a lease
    Lease,
    /// the shared store, asked before: a refusal that still holds
    Remembered,
    /// this gateway alone, because the shared store did not answer
    Outage,
    /// nobody: a policy refuses while the shared store does not answer
    Denied,
}

impl Source {
    /// Its name, as operators read it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Memory => "memory",
            Source::Redis => "redis",
            Source::Lease => "lease",
            Source::Remembered => "remembered",
            Source::Outage | Source::Denied => "outage",
        }
    }

    /// Were the units taken from buckets that all gateways share?
    pub fn is_shared(self) -> bool {
        matches!(self, Source::Redis | Source::Lease | Source::Remembered)
    }
}

/// What one bucket says, after the units were taken if they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketDecision {
    /// had it room?
    pub answer: Answer,
    /// what is left
    pub reading: Reading,
    /// false: nobody has counted, so nothing is known of what is left
    pub counted: bool,
}

/// The whole decision; `buckets` in the order of the charges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// every enforcing bucket had room, and all were charged
    pub allowed: bool,
    /// per charge
    pub buckets: SmallVec<[BucketDecision; 2]>,
    /// when, on the store's clock, microseconds since the Unix epoch
    pub now_us: u64,
    /// who decided
    pub source: Source,
}

impl Decision {
    /// Nobody has a chance earlier than that, microseconds.
    pub fn wait_at_least(&mut self, pause_us: u64) {
        for bucket in &mut self.buckets {
            if let Answer::Refuse {
                retry_after_us: Some(after_us),
            } = &mut bucket.answer
            {
                *after_us = (*after_us).max(pause_us);
            }
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
