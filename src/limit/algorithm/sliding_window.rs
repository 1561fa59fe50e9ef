//! Sliding window, exact log: at most `count` units in any interval of one period.

use super::{Answer, Reading};
use std::collections::VecDeque;

/// Largest `count` of an exact log: its state grows with what it admits.
pub const MAX_LOG: u64 = 10_000;

/// `count` units within any `period_us` microseconds, half open: `(now - period, now]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindow {
    pub(crate) count: u64,
    pub(crate) period_us: u64,
}

/// When units were taken, oldest first; units of one instant share an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    entries: VecDeque<Taken>,
    /// units of all entries
    units: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    at_us: u64,
    units: u64,
}

impl Log {
    /// A log of units that were all taken at one instant; without units, an empty one.
    pub(crate) fn of(units: u64, at_us: u64) -> Self {
        let entry = (units > 0).then_some(Taken { at_us, units });
        Log {
            entries: entry.into_iter().collect(),
            units,
        }
    }

    /// The instant decisions are made at: time does not run backwards past the newest entry.
    fn instant(&self, now_us: u64) -> u64 {
        self.entries
            .back()
            .map_or(now_us, |newest| newest.at_us.max(now_us))
    }

    /// Entries that have left the window, oldest first.
    fn outside(&self, now_us: u64, period_us: u64) -> impl Iterator<Item = &Taken> {
        let instant = self.instant(now_us);
        self.entries
            .iter()
            .take_while(move |taken| taken.at_us.saturating_add(period_us) <= instant)
    }

    /// Entries still inside the window, oldest first.
    fn inside(&self, now_us: u64, period_us: u64) -> impl Iterator<Item = &Taken> {
        self.entries
            .iter()
            .skip(self.outside(now_us, period_us).count())
    }

    /// Bytes on the heap, for the statement of memory per bucket.
    pub fn heap_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Taken>()
    }
}

impl SlidingWindow {
    /// Walks only what has left the window, which the next charge drops: the cost of a decision
    /// does not grow with `count`.
    pub(crate) fn used(&self, log: &Log, now_us: u64) -> u64 {
        log.units
            - log
                .outside(now_us, self.period_us)
                .map(|taken| taken.units)
                .sum::<u64>()
    }

    /// Is there room for `cost` units?
    pub fn answer(&self, log: &Log, now_us: u64, cost: u64) -> Answer {
        let used = self.used(log, now_us);
        if cost == 0 || used.saturating_add(cost) <= self.count {
            return Answer::NOW;
        }
        let Some(target) = self.count.checked_sub(cost) else {
            return Answer::Refuse {
                retry_after_us: None,
            };
        };
        // the entry with whose end the rest fits
        let mut left = used;
        let freeing = log.inside(now_us, self.period_us).find(|taken| {
            left -= taken.units;
            left <= target
        });
        let retry_after_us = freeing.map(|taken| self.end_of(taken, now_us));
        Answer::Refuse { retry_after_us }
    }

    /// Takes `cost` units at `now_us`; what has left the window is dropped.
    pub fn charge(&self, log: &mut Log, now_us: u64, cost: u64) {
        let instant = log.instant(now_us);
        while let Some(oldest) = log.entries.front()
            && oldest.at_us.saturating_add(self.period_us) <= instant
        {
            log.units -= oldest.units;
            log.entries.pop_front();
        }
        log.units += cost;
        match log.entries.back_mut() {
            Some(newest) if newest.at_us == instant => newest.units += cost,
            _ => log.entries.push_back(Taken {
                at_us: instant,
                units: cost,
            }),
        }
    }

    /// What to report.
    pub fn reading(&self, log: &Log, now_us: u64) -> Reading {
        let newest = log.entries.back();
        Reading {
            remaining: self.count.saturating_sub(self.used(log, now_us)),
            reset_after_us: newest.map_or(0, |taken| self.end_of(taken, now_us)),
        }
    }

    /// When the newest entry leaves the window, microseconds.
    pub fn empty_at_us(&self, log: &Log) -> u64 {
        log.entries
            .back()
            .map_or(0, |newest| newest.at_us.saturating_add(self.period_us))
    }

    fn end_of(&self, taken: &Taken, now_us: u64) -> u64 {
        taken
            .at_us
            .saturating_add(self.period_us)
            .saturating_sub(now_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_A_MINUTE: SlidingWindow = SlidingWindow {
        count: 10,
        period_us: 60_000_000,
    };

    #[test]
    fn a_unit_comes_back_exactly_one_period_after_it_was_taken() {
        let mut log = Log::default();
        for second in 0..10 {
            assert!(TEN_A_MINUTE.answer(&log, second * 1_000_000, 1).admits());
            TEN_A_MINUTE.charge(&mut log, second * 1_000_000, 1);
        }
        let refused = Answer::Refuse {
            retry_after_us: Some(50_000_000),
        };
        assert_eq!(TEN_A_MINUTE.answer(&log, 10_000_000, 1), refused);
        assert!(!TEN_A_MINUTE.answer(&log, 59_999_999, 1).admits());
        assert!(TEN_A_MINUTE.answer(&log, 60_000_000, 1).admits());
        assert_eq!(
            TEN_A_MINUTE.reading(&log, 10_000_000).reset_after_us,
            59_000_000
        );
    }

    #[test]
    fn a_costly_request_waits_for_as_many_units_as_it_needs() {
        let mut log = Log::default();
        TEN_A_MINUTE.charge(&mut log, 1_000_000, 4);
        TEN_A_MINUTE.charge(&mut log, 2_000_000, 4);
        assert_eq!(
            TEN_A_MINUTE.answer(&log, 3_000_000, 7),
            Answer::Refuse {
                retry_after_us: Some(59_000_000)
            }
        );
        assert_eq!(
            TEN_A_MINUTE.answer(&log, 3_000_000, 11),
            Answer::Refuse {
                retry_after_us: None
            }
        );
    }

    #[test]
    fn units_of_one_instant_share_an_entry() {
        let mut log = Log::default();
        for _ in 0..10 {
            TEN_A_MINUTE.charge(&mut log, 5, 1);
        }
        assert_eq!(log.entries.len(), 1);
    }

    #[test]
    fn after_a_step_back_of_the_clock_the_log_stays_sorted_and_the_wait_is_true() {
        let mut log = Log::default();
        TEN_A_MINUTE.charge(&mut log, 100_000_000, 9);
        TEN_A_MINUTE.charge(&mut log, 90_000_000, 1);
        let Answer::Refuse {
            retry_after_us: Some(wait),
        } = TEN_A_MINUTE.answer(&log, 90_000_000, 1)
        else {
            panic!("must refuse")
        };
        assert_eq!(wait, 70_000_000);
        assert!(TEN_A_MINUTE.answer(&log, 90_000_000 + wait, 1).admits());
    }
}
