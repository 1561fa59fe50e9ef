//! A quota: the numbers of one algorithm, valid by construction, and the state they work on.

use super::algorithm::concurrency::Concurrency;
use super::algorithm::fixed_window::{Counted, FixedWindow, Window};
use super::algorithm::leaky_bucket::LeakyBucket;
use super::algorithm::sliding_window::{Log, MAX_LOG, SlidingWindow};
use super::algorithm::sliding_window_counter::{SlidingWindowCounter, TwoWindows};
use super::algorithm::token_bucket::{Level, TokenBucket};
use super::algorithm::{Answer, Reading};
use super::calendar::Calendar;
use super::rate::{MAX_UNITS, Rate};

/// Shortest and longest period, microseconds: 1 ms and 366 days.
pub const PERIOD_US: std::ops::RangeInclusive<u64> = 1_000..=366 * 86_400 * 1_000_000;

/// How much of what may be taken, by which algorithm.
#[derive(Clone, Debug)]
pub enum Quota {
    /// see [`TokenBucket`]
    TokenBucket(TokenBucket),
    /// see [`SlidingWindow`]
    SlidingWindow(SlidingWindow),
    /// see [`SlidingWindowCounter`]
    SlidingWindowCounter(SlidingWindowCounter),
    /// see [`FixedWindow`]
    FixedWindow(FixedWindow),
    /// see [`LeakyBucket`]
    LeakyBucket(LeakyBucket),
    /// see [`Concurrency`]
    Concurrency(Concurrency),
}

/// Numbers no bucket can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuota {
    /// zero or too many units
    #[error("must be between 1 and {MAX_UNITS}")]
    Count,
    /// an exact log that would be too long
    #[error(
        "must be at most {MAX_LOG} for sliding_window, which keeps every admitted request; sliding_window_counter has no such bound"
    )]
    LogTooLong,
    /// too short or too long a period
    #[error("must be between 1ms and 366 days")]
    Period,
}

/// What a bucket holds. The default of each kind is the empty bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// token bucket, leaky bucket
    Level(Level),
    /// sliding window
    Log(Box<Log>),
    /// sliding window counter
    TwoWindows(TwoWindows),
    /// fixed window
    Counted(Counted),
    /// concurrency
    InFlight(u64),
}

impl Quota {
    /// A token bucket of `burst` units (absent: `count`).
    pub fn token_bucket(count: u64, period_us: u64, burst: Option<u64>) -> Result<Self, BadQuota> {
        let burst = burst.unwrap_or(count);
        check(count, period_us)?;
        check(burst, period_us)?;
        Ok(Quota::TokenBucket(TokenBucket {
            burst,
            rate: Rate::new(count, period_us),
        }))
    }

    /// An exact log of `count` units per period.
    pub fn sliding_window(count: u64, period_us: u64) -> Result<Self, BadQuota> {
        check(count, period_us)?;
        if count > MAX_LOG {
            return Err(BadQuota::LogTooLong);
        }
        Ok(Quota::SlidingWindow(SlidingWindow { count, period_us }))
    }

    /// Two weighted windows.
    pub fn sliding_window_counter(count: u64, period_us: u64) -> Result<Self, BadQuota> {
        check(count, period_us)?;
        Ok(Quota::SlidingWindowCounter(SlidingWindowCounter {
            count,
            period_us,
        }))
    }

    /// A window aligned to the epoch.
    pub fn fixed_window(count: u64, period_us: u64) -> Result<Self, BadQuota> {
        check(count, period_us)?;
        Ok(Quota::FixedWindow(FixedWindow {
            count,
            window: Window::Aligned { period_us },
        }))
    }

    /// A window of the calendar.
    pub fn calendar(count: u64, calendar: Calendar) -> Result<Self, BadQuota> {
        check(count, *PERIOD_US.start())?;
        Ok(Quota::FixedWindow(FixedWindow {
            count,
            window: Window::Calendar(calendar),
        }))
    }

    /// A shaper that delays up to `max_delay_us`.
    pub fn leaky_bucket(count: u64, period_us: u64, max_delay_us: u64) -> Result<Self, BadQuota> {
        check(count, period_us)?;
        let max_delay_us = max_delay_us.min(*PERIOD_US.end());
        Ok(Quota::LeakyBucket(LeakyBucket {
            count,
            rate: Rate::new(count, period_us),
            max_delay_us,
        }))
    }

    /// A bound on requests in flight.
    pub fn concurrency(count: u64) -> Result<Self, BadQuota> {
        check(count, *PERIOD_US.start())?;
        Ok(Quota::Concurrency(Concurrency { count }))
    }

    /// The largest cost the bucket can ever hold.
    pub fn capacity(&self) -> u64 {
        match self {
            Quota::TokenBucket(quota) => quota.burst,
            Quota::SlidingWindow(quota) => quota.count,
            Quota::SlidingWindowCounter(quota) => quota.count,
            Quota::FixedWindow(quota) => quota.count,
            Quota::LeakyBucket(quota) => quota.count,
            Quota::Concurrency(quota) => quota.count,
        }
    }

    /// Does a bucket of this quota stay charged until it is released?
    pub fn is_concurrency(&self) -> bool {
        matches!(self, Quota::Concurrency(_))
    }

    /// The empty bucket.
    pub fn empty(&self) -> State {
        match self {
            Quota::TokenBucket(_) | Quota::LeakyBucket(_) => State::Level(Level::default()),
            Quota::SlidingWindow(_) => State::Log(Box::default()),
            Quota::SlidingWindowCounter(_) => State::TwoWindows(TwoWindows::default()),
            Quota::FixedWindow(_) => State::Counted(Counted::default()),
            Quota::Concurrency(_) => State::InFlight(0),
        }
    }

    /// Is there room for `cost` units? A state of another algorithm counts as empty.
    pub fn answer(&self, state: &State, now_us: u64, cost: u64) -> Answer {
        match (self, state) {
            (Quota::TokenBucket(quota), State::Level(level)) => quota.answer(*level, now_us, cost),
            (Quota::LeakyBucket(quota), State::Level(level)) => quota.answer(*level, now_us, cost),
            (Quota::SlidingWindow(quota), State::Log(log)) => quota.answer(log, now_us, cost),
            (Quota::SlidingWindowCounter(quota), State::TwoWindows(two)) => {
                quota.answer(*two, now_us, cost)
            }
            (Quota::FixedWindow(quota), State::Counted(counted)) => {
                quota.answer(*counted, now_us, cost)
            }
            (Quota::Concurrency(quota), State::InFlight(in_flight)) => {
                quota.answer(*in_flight, cost)
            }
            _ => self.answer(&self.empty(), now_us, cost),
        }
    }

    /// Takes `cost` units at `now_us`; a cost of 0 changes nothing.
    pub fn charge(&self, state: &mut State, now_us: u64, cost: u64) {
        if cost == 0 {
            return;
        }
        match (self, &mut *state) {
            (Quota::TokenBucket(quota), State::Level(level)) => {
                level.raise(quota.rate, now_us, cost)
            }
            (Quota::LeakyBucket(quota), State::Level(level)) => {
                level.raise(quota.rate, now_us, cost)
            }
            (Quota::SlidingWindow(quota), State::Log(log)) => quota.charge(log, now_us, cost),
            (Quota::SlidingWindowCounter(quota), State::TwoWindows(two)) => {
                quota.charge(two, now_us, cost)
            }
            (Quota::FixedWindow(quota), State::Counted(counted)) => {
                quota.charge(counted, now_us, cost)
            }
            (Quota::Concurrency(_), State::InFlight(in_flight)) => {
                *in_flight = in_flight.saturating_add(cost)
            }
            _ => {
                *state = self.empty();
                self.charge(state, now_us, cost);
            }
        }
    }

    /// What to report.
    pub fn reading(&self, state: &State, now_us: u64) -> Reading {
        match (self, state) {
            (Quota::TokenBucket(quota), State::Level(level)) => quota.reading(*level, now_us),
            (Quota::LeakyBucket(quota), State::Level(level)) => quota.reading(*level, now_us),
            (Quota::SlidingWindow(quota), State::Log(log)) => quota.reading(log, now_us),
            (Quota::SlidingWindowCounter(quota), State::TwoWindows(two)) => {
                quota.reading(*two, now_us)
            }
            (Quota::FixedWindow(quota), State::Counted(counted)) => quota.reading(*counted, now_us),
            (Quota::Concurrency(quota), State::InFlight(in_flight)) => quota.reading(*in_flight),
            _ => self.reading(&self.empty(), now_us),
        }
    }

    /// What to report right after a charge, when the time at which the state will equal the empty
    /// one has just been computed.
    pub fn reading_after(&self, state: &State, now_us: u64, empty_at_us: u64) -> Reading {
        match (self, state) {
            (Quota::TokenBucket(quota), State::Level(level)) => Reading {
                remaining: quota.remaining(*level, now_us),
                reset_after_us: empty_at_us.saturating_sub(now_us),
            },
            _ => self.reading(state, now_us),
        }
    }

    /// When the state equals the empty one, so that it may be forgotten, microseconds.
    pub fn empty_at_us(&self, state: &State) -> u64 {
        match (self, state) {
            (Quota::TokenBucket(quota), State::Level(level)) => level.empty_at_us(quota.rate),
            (Quota::LeakyBucket(quota), State::Level(level)) => level.empty_at_us(quota.rate),
            (Quota::SlidingWindow(quota), State::Log(log)) => quota.empty_at_us(log),
            (Quota::SlidingWindowCounter(quota), State::TwoWindows(two)) => quota.empty_at_us(*two),
            (Quota::FixedWindow(quota), State::Counted(counted)) => quota.empty_at_us(*counted),
            (Quota::Concurrency(_), State::InFlight(in_flight)) if *in_flight > 0 => u64::MAX,
            _ => 0,
        }
    }
}

fn check(count: u64, period_us: u64) -> Result<(), BadQuota> {
    if !(1..=MAX_UNITS).contains(&count) {
        return Err(BadQuota::Count);
    }
    if !PERIOD_US.contains(&period_us) {
        return Err(BadQuota::Period);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_no_bucket_can_be_made_of_are_refused() {
        assert_eq!(
            Quota::token_bucket(0, 1_000, None).unwrap_err(),
            BadQuota::Count
        );
        assert_eq!(
            Quota::token_bucket(1, 1_000, Some(0)).unwrap_err(),
            BadQuota::Count
        );
        assert_eq!(Quota::fixed_window(1, 999).unwrap_err(), BadQuota::Period);
        assert_eq!(
            Quota::sliding_window(10_001, 1_000).unwrap_err(),
            BadQuota::LogTooLong
        );
    }

    #[test]
    fn a_state_is_small_enough_for_a_million_of_them() {
        assert!(size_of::<State>() <= 24, "{}", size_of::<State>());
    }
}
