//! Near its limit, a leased bucket is emptied in portions, not unit by unit: a call for each would be
//! far too many.
//!
//! A unit that comes back could be fetched at once, and of a hot bucket that is over its limit each would be.
//! So once little is left in a bucket, a gateway takes no more of it for the length of a portion, and
//! refuses what it has nothing in hand for. What stays behind meanwhile is not lost: a bucket that refills
//! only must not run over, and from a window it is taken in time.

use super::leasing::Grant;
use super::{Shared, Wants};
use crate::limit::algorithm::Answer;
use crate::limit::algorithm::fixed_window::Window;
use crate::limit::batch::{SetId, Turn};
use crate::limit::decision::{Decision, Source};
use crate::limit::lease::Pause;
use crate::limit::quota::Quota;
use crate::limit::store::redis::wire::{Granted, Mode, Set};
use smallvec::SmallVec;
use std::sync::Arc;

/// Longest time between two portions, microseconds.
const LONGEST_US: u64 = 50_000;

/// Of which buckets little is left, and for how long no more is taken, microseconds.
pub(super) struct Scarcity {
    portion_us: u64,
    scarce: SmallVec<[bool; 2]>,
}

impl Scarcity {
    /// From the sending of the call that showed it.
    pub(super) fn pause(self, sent_us: u64, granted: Arc<Grant>) -> Pause<Grant> {
        Pause {
            until_us: sent_us + self.portion_us,
            scarce: self.scarce,
            granted,
        }
    }
}

impl Shared {
    /// Whether little is left in the buckets of a set.
    pub(super) fn scarcity(
        &self,
        turn: &Turn<Wants>,
        set: &Set,
        granted: &Granted,
    ) -> Option<Scarcity> {
        let left = granted.decision(set, granted.granted);
        let mut longest_us = 0;
        let buckets = set.buckets.iter().zip(&left.buckets);
        let scarce = buckets
            .map(|(wanted, bucket)| {
                let portion_us = portion_us(&wanted.quota, turn.buckets.lease_ttl_us);
                let is_scarce = matches!(wanted.mode, Mode::Enforce)
                    && wanted.cost > 0
                    && bucket.reading.remaining <= left_behind(&wanted.quota, portion_us);
                if is_scarce {
                    longest_us = portion_us.max(longest_us);
                }
                is_scarce
            })
            .collect();
        (longest_us > 0).then_some(Scarcity {
            portion_us: longest_us,
            scarce,
        })
    }

    /// A refusal of so many requests until the next portion of a set may be taken, where it has to
    /// wait for that.
    pub(super) fn wait_for_portion(
        &self,
        id: SetId,
        requests: u64,
        here_us: u64,
        store_us: u64,
    ) -> Option<Decision> {
        let pause = self.leases.paused(id, here_us)?;
        let Grant { set, granted } = pause.granted.as_ref();
        let mut decision = granted.decision(set, granted.granted);
        let wait_us = pause.until_us - here_us;
        let buckets = decision.buckets.iter_mut().zip(set.buckets.iter());
        for ((bucket, wanted), is_scarce) in buckets.zip(&pause.scarce) {
            if *is_scarce {
                let retry_after_us = match bucket.answer {
                    Answer::Refuse { retry_after_us } => retry_after_us?.max(wait_us),
                    Answer::Admit { .. } => wait_us,
                };
                bucket.answer = Answer::Refuse {
                    retry_after_us: Some(retry_after_us),
                };
                // what is left is not for this gateway now
                bucket.reading.remaining = 0;
                self.refusals.count(&wanted.key, requests);
            }
        }
        decision.allowed = false;
        decision.now_us = store_us;
        decision.source = Source::Remembered;
        Some(decision)
    }
}

/// How long a portion is awaited, microseconds. A bucket must not run over meanwhile, and the later a unit of a window is
/// taken, the later it comes back.
pub(super) fn portion_us(quota: &Quota, lease_ttl_us: u64) -> u64 {
    let longest_us = LONGEST_US.min(lease_ttl_us / 2);
    let longest_us = match period_us(quota) {
        Some(period_us) => longest_us.min(period_us / 800),
        None => longest_us,
    };
    let (earned, most) = (quota.earned(longest_us), (quota.capacity() / 8).max(1));
    match earned > most {
        true => longest_us.saturating_mul(most) / earned,
        false => longest_us,
    }
}

/// Units that may be left in a bucket while no more is taken: half of what comes back in a portion, and a
/// two-hundredth of a full bucket, so that hardly anything of what a quota allows stays behind.
fn left_behind(quota: &Quota, portion_us: u64) -> u64 {
    let part = quota.capacity() / 200;
    match period_us(quota) {
        // what stays in a window that slides is never taken
        Some(_) => part,
        None => quota.earned(portion_us) / 2 + part,
    }
}

/// The length of a window, microseconds.
fn period_us(quota: &Quota) -> Option<u64> {
    match quota {
        Quota::SlidingWindow(quota) => Some(quota.period_us),
        Quota::SlidingWindowCounter(quota) => Some(quota.period_us),
        Quota::FixedWindow(quota) => match quota.window {
            Window::Aligned { period_us } => Some(period_us),
            Window::Calendar(_) => Some(CALENDAR_US),
        },
        Quota::TokenBucket(_) | Quota::LeakyBucket(_) | Quota::Concurrency(_) => None,
    }
}

/// The shortest window of the calendar, nearly: a day when clocks are put forward.
const CALENDAR_US: u64 = 23 * 3_600 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::algorithm::sliding_window::SlidingWindow;
    use crate::limit::algorithm::token_bucket::TokenBucket;
    use crate::limit::rate::Rate;

    const TTL_US: u64 = 100_000;
    const SECOND_US: u64 = 1_000_000;

    fn bucket(count: u64, burst: u64) -> Quota {
        Quota::TokenBucket(TokenBucket {
            burst,
            rate: Rate::new(count, SECOND_US),
        })
    }

    fn window(count: u64, period_us: u64) -> Quota {
        Quota::SlidingWindow(SlidingWindow { count, period_us })
    }

    #[test]
    fn there_are_twenty_portions_a_second_or_more() {
        for quota in [bucket(600, 600), window(6_000, 60 * SECOND_US)] {
            assert_eq!(portion_us(&quota, TTL_US), 50_000);
        }
        assert_eq!(
            portion_us(&bucket(600, 600), 40_000),
            20_000,
            "of a short lease"
        );
    }

    #[test]
    fn a_bucket_does_not_run_over_within_a_portion() {
        for (count, burst) in [(600, 200), (600, 20), (1_000_000, 8), (5, 1)] {
            let quota = bucket(count, burst);
            let portion_us = portion_us(&quota, TTL_US);
            let left = left_behind(&quota, portion_us);
            let earned = quota.earned(portion_us);
            assert!(left + earned <= burst, "{left} and {earned} of {burst}");
        }
    }

    #[test]
    fn what_is_left_behind_of_a_window_is_less_than_a_hundredth() {
        for (count, period_us) in [
            (600, 2 * SECOND_US),
            (10_000, 60 * SECOND_US),
            (100, SECOND_US),
        ] {
            let quota = window(count, period_us);
            let portion_us = portion_us(&quota, TTL_US);
            assert!(portion_us * 200 <= period_us);
            assert!(left_behind(&quota, portion_us) * 200 <= count);
        }
    }
}
