//! Near its limit, a leased bucket is emptied in portions, not unit by unit: a call for each would be
//! far too many.
//!
//! A unit that comes back could be fetched at once, and of a hot bucket that is over its limit each would be.
//! So once little is left in a bucket, a gateway takes no more of it for the length of a portion, and
//! refuses what it has nothing in hand for. A bucket that refills loses nothing by that while it does not run
//! over; of a window, what stays behind to its end is lost, so that is very little.

use super::Shared;
use super::leasing::{Asked, Grant};
use crate::limit::algorithm::Answer;
use crate::limit::algorithm::fixed_window::Window;
use crate::limit::batch::SetId;
use crate::limit::decision::{Decision, Source};
use crate::limit::lease::Pause;
use crate::limit::quota::Quota;
use crate::limit::store::redis::wire::{Granted, Mode, Set};
use smallvec::SmallVec;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Longest time between two portions, microseconds.
const LONGEST_US: u64 = 40_000;

/// Of which buckets little is left, and for how long no more is taken, microseconds.
#[derive(Default)]
pub(super) struct Scarcity {
    /// 0: there is enough
    pub(super) portion_us: u64,
    pub(super) scarce: SmallVec<[bool; 2]>,
}

impl Scarcity {
    /// From the sending of the call that showed it.
    pub(super) fn pause(self, sent_us: u64, granted: &Arc<Grant>) -> Option<Pause<Grant>> {
        (self.portion_us > 0).then(|| Pause {
            until_us: sent_us + self.portion_us,
            scarce: self.scarce,
            granted: granted.clone(),
        })
    }
}

impl Shared {
    /// Whether a call has left little in the buckets of a set that may be leased. Who does not hear of resets
    /// waits for no portion.
    pub(super) fn scarcity(&self, asked: &Asked, set: &Set, granted: &Granted) -> Scarcity {
        if !asked.leasing || !self.listening.load(Ordering::Relaxed) {
            return Scarcity::default();
        }
        let left = granted.decision(set, granted.granted);
        let mut longest_us = 0;
        let buckets = set.buckets.iter().zip(&left.buckets);
        let scarce = buckets
            .map(|(wanted, bucket)| {
                let portion_us = portion_us(&wanted.quota, asked.lease_ttl_us);
                let is_little = bucket.reading.remaining <= left_behind(&wanted.quota, portion_us);
                let is_scarce = matches!(wanted.mode, Mode::Enforce)
                    && wanted.cost > 0
                    && (is_little || !bucket.answer.admits());
                if is_scarce {
                    // a new window is a new bucket
                    let window_us = wanted.quota.window_left(granted.now_us);
                    let portion_us = portion_us.min(window_us.unwrap_or(portion_us));
                    longest_us = portion_us.max(longest_us);
                }
                is_scarce
            })
            .collect();
        Scarcity {
            portion_us: longest_us,
            scarce,
        }
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
                    // `None`: no wait helps
                    Answer::Refuse { retry_after_us } => retry_after_us.map(|us| us.max(wait_us)),
                    Answer::Admit { .. } => Some(wait_us),
                };
                bucket.answer = Answer::Refuse { retry_after_us };
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
fn portion_us(quota: &Quota, lease_ttl_us: u64) -> u64 {
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

/// Units that may be left in a bucket while no more is taken: about what comes back in a portion, so that a
/// gateway that takes a part of it keeps up, and a two-hundredth of a full bucket at most, so that hardly
/// anything of what a quota allows stays behind.
fn left_behind(quota: &Quota, portion_us: u64) -> u64 {
    let earned = quota.earned(portion_us);
    let part = earned.max(1).min(quota.capacity() / 200);
    match period_us(quota) {
        // what stays in a window is never taken
        Some(_) => part,
        None => earned / 2 + part,
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
    fn there_are_twenty_five_portions_a_second_or_more() {
        for quota in [bucket(600, 600), window(6_000, 60 * SECOND_US)] {
            assert_eq!(portion_us(&quota, TTL_US), 40_000);
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
    fn what_is_left_behind_is_no_more_than_a_portion_and_a_half_and_little_of_a_window() {
        for (count, period_us) in [
            (600, 2 * SECOND_US),
            (10_000, 60 * SECOND_US),
            (10_000_000, 86_400 * SECOND_US),
        ] {
            for quota in [window(count, period_us), bucket(count, count)] {
                let portion_us = portion_us(&quota, TTL_US);
                let left = left_behind(&quota, portion_us);
                let earned = quota.earned(portion_us);
                assert!(left <= earned + earned / 2 + 1, "{left} of {earned}");
                assert!(left <= count / 200 + earned / 2, "{left} of {count}");
            }
        }
    }
}
