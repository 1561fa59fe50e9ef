//! What travels between a gateway and the scripts: sets of buckets there, what was granted back.

mod decode;
mod encode;

pub use decode::{BadReply, announced, decode, decode_peek, time};
pub use encode::{Call, announce, keep, peek, refund, release, renew, reset, spend};

use crate::limit::algorithm::sliding_window::Log;
use crate::limit::algorithm::token_bucket::Level;
use crate::limit::algorithm::{Answer, Reading};
use crate::limit::decision::{BucketDecision, Charge, Decision, Source};
use crate::limit::descriptor::BucketKey;
use crate::limit::quota::{Quota, State};
use crate::limit::rate::MICRO;
use smallvec::SmallVec;
use std::sync::Arc;

/// How a bucket takes part in a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// refuses what it has no room for
    Enforce,
    /// shadow: never refuses, charged for as many of the granted requests as it has room for
    Shadow,
    /// charged for all granted requests, but never beyond its capacity: to settle up after an outage
    Force,
}

/// One bucket of a set.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// which bucket
    pub key: BucketKey,
    /// by which numbers
    pub quota: Quota,
    /// units of one request
    pub cost: u64,
    /// whether it refuses
    pub mode: Mode,
}

impl Wanted {
    /// What a request wants of one bucket.
    pub fn of(charge: &Charge<'_>) -> Self {
        Wanted {
            key: charge.key,
            quota: charge.quota.clone(),
            cost: charge.cost,
            mode: if charge.enforce {
                Mode::Enforce
            } else {
                Mode::Shadow
            },
        }
    }
}

/// The buckets of a set: distinct, in the order of the charges.
pub type Buckets = SmallVec<[Wanted; 2]>;

/// Requests with the same buckets and the same costs.
#[derive(Clone, Debug)]
pub struct Set {
    /// where all of them are charged, or none
    pub buckets: Arc<Buckets>,
    /// requests waiting
    pub requests: u64,
    /// further requests wanted for a lease; 0 in strict
    pub extra: u64,
    /// microseconds by which a sliding window dates the units later if a lease is granted; 0 in strict
    pub lease_us: u64,
}

/// What all sets of a call share.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// id of this gateway
    pub gateway: &'a str,
    /// microseconds after which requests in flight count no more unless renewed
    pub permit_ttl_us: u64,
    /// live gateways, at least 1
    pub gateways: u64,
}

/// Units to give back to one bucket.
#[derive(Clone, Debug)]
pub struct Refund {
    /// which bucket
    pub key: BucketKey,
    /// by which numbers
    pub quota: Quota,
    /// how many
    pub units: u64,
    /// the store's time at which they were charged ([`Granted::now_us`]), microseconds
    pub at_us: u64,
    /// [`Granted::dated_ahead_us`] of the set they were charged in, microseconds
    pub lease_us: u64,
}

/// What the script answered for one set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// the store's time, microseconds
    pub now_us: u64,
    /// requests granted, those of a lease included
    pub granted: u64,
    /// per bucket of the set
    pub buckets: SmallVec<[Bucket; 2]>,
}

/// What the script answered for one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// requests charged here
    pub taken: u64,
    /// the state after that
    pub state: After,
}

/// A bucket's state after a spend, as far as it is needed to compute what to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// token bucket, fixed window, sliding window counter, concurrency: the state itself
    State(State),
    /// leaky bucket
    Backlog {
        /// the state itself
        backlog: Level,
        /// delay of the first request of the set, microseconds
        first_delay_us: u64,
    },
    /// sliding window
    Log {
        /// units within the period
        used: u64,
        /// date of the newest entry, microseconds; 0: there is none
        newest_us: u64,
        /// microseconds until one more request fits; 0: it does, or never will
        retry_after_us: u64,
    },
}

impl Granted {
    /// The decision of the `nth` request of the set, counted from 0 in the order of arrival:
    /// exactly what the in-process store would have answered, had they come one after the other.
    /// From `requests` on it is that of the requests of a lease. After a peek every request reads
    /// like the first.
    pub fn decision(&self, set: &Set, nth: u64) -> Decision {
        let allowed = nth < self.granted;
        let buckets = self.buckets.iter().zip(set.buckets.iter());
        Decision {
            allowed,
            buckets: buckets
                .map(|(bucket, wanted)| bucket.decision(wanted, self.now_us, nth))
                .collect(),
            now_us: self.now_us,
            source: Source::Redis,
        }
    }

    /// Microseconds by which a sliding window dated the units of this set later than
    /// [`Granted::now_us`].
    pub fn dated_ahead_us(&self, set: &Set) -> u64 {
        if self.granted > set.requests {
            set.lease_us
        } else {
            0
        }
    }
}

/// What to give back when `requests` of the granted ones were of no use, the last of them in each
/// bucket. Requests in flight are not among them: they are [released](release).
pub fn refunds(set: &Set, granted: &Granted, requests: u64) -> Vec<Refund> {
    let used = granted.granted.saturating_sub(requests);
    let of_bucket = |(wanted, bucket): (&Wanted, &Bucket)| Refund {
        key: wanted.key,
        quota: wanted.quota.clone(),
        units: bucket
            .taken
            .saturating_sub(used)
            .saturating_mul(wanted.cost),
        at_us: granted.now_us,
        lease_us: granted.dated_ahead_us(set),
    };
    let buckets = set.buckets.iter().zip(&granted.buckets);
    let refunds = buckets.map(of_bucket);
    refunds
        .filter(|refund| refund.units > 0 && !refund.quota.is_concurrency())
        .collect()
}

impl Bucket {
    fn decision(&self, wanted: &Wanted, now_us: u64, nth: u64) -> BucketDecision {
        let taken_before = self.taken.min(nth);
        let charged = nth < self.taken && wanted.cost > 0;
        let before = (self.taken - taken_before).saturating_mul(wanted.cost);
        let after = (self.taken - taken_before - u64::from(charged)).saturating_mul(wanted.cost);
        BucketDecision {
            answer: if charged {
                self.admitted(wanted, now_us, nth, before)
            } else {
                self.state.answer(wanted, now_us)
            },
            reading: self.state.reading(&wanted.quota, now_us, after),
            counted: true,
        }
    }

    /// The answer to a request that was charged, when `not_yet` units were still to come, its own
    /// included.
    fn admitted(&self, wanted: &Wanted, now_us: u64, nth: u64, not_yet: u64) -> Answer {
        match (&self.state, &wanted.quota) {
            (After::Backlog { first_delay_us, .. }, _) if nth == 0 => Answer::Admit {
                delay_us: *first_delay_us,
            },
            (After::Backlog { backlog, .. }, Quota::LeakyBucket(quota)) => Answer::Admit {
                delay_us: lower(*backlog, not_yet).time_until(quota.rate, now_us, 0),
            },
            _ => Answer::NOW,
        }
    }
}

impl After {
    /// A state that reads alike. Of a sliding window, which is not told entry by entry, it is the one
    /// in which all units were taken at the newest date: it frees them last.
    pub fn rebuilt(&self) -> State {
        match self {
            After::State(state) => state.clone(),
            After::Backlog { backlog, .. } => State::Level(*backlog),
            After::Log {
                used, newest_us, ..
            } => State::Log(Box::new(Log::of(*used, *newest_us))),
        }
    }

    /// Whether there is room for one more request in this state.
    fn answer(&self, wanted: &Wanted, now_us: u64) -> Answer {
        match self {
            After::State(state) => wanted.quota.answer(state, now_us, wanted.cost),
            After::Backlog { backlog, .. } => {
                wanted
                    .quota
                    .answer(&State::Level(*backlog), now_us, wanted.cost)
            }
            After::Log {
                used,
                retry_after_us,
                ..
            } => {
                let count = wanted.quota.capacity();
                if wanted.cost == 0 || used.saturating_add(wanted.cost) <= count {
                    return Answer::NOW;
                }
                Answer::Refuse {
                    retry_after_us: (wanted.cost <= count).then_some(*retry_after_us),
                }
            }
        }
    }

    /// What there was to report before the last `units` were taken.
    fn reading(&self, quota: &Quota, now_us: u64, units: u64) -> Reading {
        match (self, quota) {
            (After::State(state), _) => quota.reading(&without(state, units), now_us),
            (After::Backlog { backlog, .. }, _) => {
                quota.reading(&State::Level(lower(*backlog, units)), now_us)
            }
            (
                After::Log {
                    used, newest_us, ..
                },
                Quota::SlidingWindow(quota),
            ) => Reading {
                remaining: quota.count.saturating_sub(used.saturating_sub(units)),
                reset_after_us: match newest_us {
                    0 => 0,
                    newest_us => newest_us
                        .saturating_add(quota.period_us)
                        .saturating_sub(now_us),
                },
            },
            (After::Log { .. }, _) => Reading::default(),
        }
    }
}

/// A state before the last `units` were taken at the instant of the last charge.
fn without(state: &State, units: u64) -> State {
    let mut state = state.clone();
    match &mut state {
        State::Level(level) => *level = lower(*level, units),
        State::TwoWindows(two) => {
            let units = u32::try_from(units).unwrap_or(u32::MAX);
            two.current = two.current.saturating_sub(units);
        }
        State::Counted(counted) => counted.units = counted.units.saturating_sub(units),
        State::InFlight(in_flight) => *in_flight = in_flight.saturating_sub(units),
        State::Log(_) => {}
    }
    state
}

fn lower(level: Level, units: u64) -> Level {
    Level {
        micro: level.micro.saturating_sub(units.saturating_mul(MICRO)),
        ..level
    }
}
