//! Token bucket: at most `burst + rate * t` units in any interval of length t.

use super::{Answer, Reading};
use crate::limit::rate::{MICRO, Rate};

/// `burst` units at once, refilled at `count / period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    pub(crate) burst: u64,
    pub(crate) rate: Rate,
}

/// Used micro-units and when they were written. Units, not a time: an edited quota meets the units
/// as they are, whereas a theoretical arrival time (GCRA) would still refuse after a raise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// used micro-units at `ts_us`
    pub micro: u64,
    /// when `micro` was written, microseconds
    pub ts_us: u64,
}

impl Level {
    /// What is left of the level at `now_us`, leaking at `rate`.
    pub fn at(self, rate: Rate, now_us: u64) -> u64 {
        self.micro
            .saturating_sub(rate.leaked(now_us.saturating_sub(self.ts_us)))
    }

    /// Adds `cost` units at `now_us`. Refusals never come here, so they write nothing.
    pub fn raise(&mut self, rate: Rate, now_us: u64, cost: u64) {
        self.micro = self
            .at(rate, now_us)
            .saturating_add(cost.saturating_mul(MICRO));
        self.ts_us = self.ts_us.max(now_us);
    }

    /// Microseconds from `now_us` until the level has fallen to `target` micro-units.
    ///
    /// Counted from when the level was written, so that rounding is not added to rounding and a
    /// clock that stepped back lengthens the wait by the step.
    pub fn time_until(self, rate: Rate, now_us: u64, target: u64) -> u64 {
        let above = self.micro.saturating_sub(target);
        if above == 0 {
            return 0;
        }
        self.ts_us
            .saturating_add(rate.time_to_leak(above))
            .saturating_sub(now_us)
    }

    /// When the level has fallen to nothing, microseconds.
    pub fn empty_at_us(self, rate: Rate) -> u64 {
        self.ts_us.saturating_add(rate.time_to_leak(self.micro))
    }
}

impl TokenBucket {
    /// Is there room for `cost` units?
    pub fn answer(&self, level: Level, now_us: u64, cost: u64) -> Answer {
        let (cost_micro, burst_micro) = (cost.saturating_mul(MICRO), self.burst * MICRO);
        if cost == 0 || level.at(self.rate, now_us).saturating_add(cost_micro) <= burst_micro {
            return Answer::NOW;
        }
        let retry_after_us = burst_micro
            .checked_sub(cost_micro)
            .map(|target| level.time_until(self.rate, now_us, target));
        Answer::Refuse { retry_after_us }
    }

    /// What to report.
    pub fn reading(&self, level: Level, now_us: u64) -> Reading {
        Reading {
            remaining: self.remaining(level, now_us),
            reset_after_us: level.time_until(self.rate, now_us, 0),
        }
    }

    /// Whole units that could be taken now.
    pub fn remaining(&self, level: Level, now_us: u64) -> u64 {
        (self.burst * MICRO).saturating_sub(level.at(self.rate, now_us)) / MICRO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thirty_a_minute() -> TokenBucket {
        TokenBucket {
            burst: 30,
            rate: Rate::new(30, 60_000_000),
        }
    }

    #[test]
    fn one_unit_taken_is_back_after_two_seconds() {
        let bucket = thirty_a_minute();
        let mut level = Level::default();
        level.raise(bucket.rate, 1_000, 1);
        assert_eq!(
            bucket.reading(level, 1_000),
            Reading {
                remaining: 29,
                reset_after_us: 2_000_000
            }
        );
        assert_eq!(
            bucket.reading(level, 2_001_000),
            Reading {
                remaining: 30,
                reset_after_us: 0
            }
        );
    }

    #[test]
    fn a_cost_above_the_burst_is_refused_for_ever() {
        let answer = thirty_a_minute().answer(Level::default(), 5, 31);
        assert_eq!(
            answer,
            Answer::Refuse {
                retry_after_us: None
            }
        );
    }

    #[test]
    fn a_raised_quota_lets_the_exhausted_go_on_and_keeps_what_they_used() {
        let ten = TokenBucket {
            burst: 10,
            rate: Rate::new(10, 60_000_000),
        };
        let hundred = TokenBucket {
            burst: 100,
            rate: Rate::new(100, 60_000_000),
        };
        let mut level = Level::default();
        level.raise(ten.rate, 7, 10);
        assert!(!ten.answer(level, 7, 1).admits());
        assert!(hundred.answer(level, 7, 1).admits());
        assert_eq!(hundred.reading(level, 7).remaining, 90);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_and_takes_nothing() {
        let bucket = thirty_a_minute();
        let mut level = Level::default();
        level.raise(bucket.rate, 100_000_000, 30);
        assert_eq!(
            bucket.answer(level, 90_000_000, 1),
            Answer::Refuse {
                retry_after_us: Some(12_000_000)
            }
        );
        assert_eq!(bucket.reading(level, 90_000_000).remaining, 0);
    }
}
