//! Fixed window, aligned or by the calendar: at most `count * (floor(t / period) + 2)` in time t.

use super::{Answer, Reading};
use crate::limit::calendar::Calendar;

/// `count` units per window.
#[derive(Clone, Debug)]
pub struct FixedWindow {
    pub(crate) count: u64,
    pub(crate) window: Window,
}

/// Where windows begin and end.
#[derive(Clone, Debug)]
pub enum Window {
    /// every `period_us` microseconds since the Unix epoch
    Aligned {
        /// length, microseconds
        period_us: u64,
    },
    /// days, weeks or months of a time zone
    Calendar(Calendar),
}

/// From `start_us` (inside) to `end_us` (outside), microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// first instant inside
    pub start_us: u64,
    /// first instant after
    pub end_us: u64,
}

/// Units taken in the window of the last charge; the time of that charge stands for its window, so
/// an edited period finds the units it still covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// when units were last taken, microseconds
    pub ts_us: u64,
    /// units taken in the window of `ts_us`
    pub units: u64,
}

impl Window {
    /// The window around an instant.
    pub fn around(&self, instant_us: u64) -> Span {
        match self {
            Window::Aligned { period_us } => {
                let start_us = instant_us - instant_us % period_us;
                Span {
                    start_us,
                    end_us: start_us.saturating_add(*period_us),
                }
            }
            Window::Calendar(calendar) => calendar.around(instant_us),
        }
    }
}

impl FixedWindow {
    /// Units used in the window of now, and that window. A clock that stepped back stays in the
    /// window of the last charge.
    fn view(&self, state: Counted, now_us: u64) -> (u64, Span) {
        let span = self.window.around(now_us.max(state.ts_us));
        (
            if state.ts_us >= span.start_us {
                state.units
            } else {
                0
            },
            span,
        )
    }

    /// Units used in the window of now.
    pub(crate) fn used(&self, state: Counted, now_us: u64) -> u64 {
        self.view(state, now_us).0
    }

    /// Is there room for `cost` units?
    pub fn answer(&self, state: Counted, now_us: u64, cost: u64) -> Answer {
        let (used, span) = self.view(state, now_us);
        if cost == 0 || used.saturating_add(cost) <= self.count {
            return Answer::NOW;
        }
        let retry_after_us = (cost <= self.count).then(|| span.end_us.saturating_sub(now_us));
        Answer::Refuse { retry_after_us }
    }

    /// Takes `cost` units at `now_us`.
    pub fn charge(&self, state: &mut Counted, now_us: u64, cost: u64) {
        let (used, _) = self.view(*state, now_us);
        *state = Counted {
            ts_us: state.ts_us.max(now_us),
            units: used.saturating_add(cost),
        };
    }

    /// What to report.
    pub fn reading(&self, state: Counted, now_us: u64) -> Reading {
        let (used, span) = self.view(state, now_us);
        Reading {
            remaining: self.count.saturating_sub(used),
            reset_after_us: if used == 0 {
                0
            } else {
                span.end_us.saturating_sub(now_us)
            },
        }
    }

    /// When the window of the last charge ends, microseconds.
    pub fn empty_at_us(&self, state: Counted) -> u64 {
        self.window.around(state.ts_us).end_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five_a_minute() -> FixedWindow {
        FixedWindow {
            count: 5,
            window: Window::Aligned {
                period_us: 60_000_000,
            },
        }
    }

    #[test]
    fn a_window_ends_at_the_full_minute_whenever_it_was_entered() {
        let window = five_a_minute();
        let mut state = Counted::default();
        window.charge(&mut state, 119_000_000, 5);
        assert_eq!(
            window.answer(state, 119_500_000, 1),
            Answer::Refuse {
                retry_after_us: Some(500_000)
            }
        );
        assert!(window.answer(state, 120_000_000, 5).admits());
        assert_eq!(
            window.reading(state, 120_000_000),
            Reading {
                remaining: 5,
                reset_after_us: 0
            }
        );
    }

    #[test]
    fn an_edit_of_the_period_keeps_the_units_it_still_covers() {
        let hour = FixedWindow {
            count: 5,
            window: Window::Aligned {
                period_us: 3_600_000_000,
            },
        };
        let mut state = Counted::default();
        five_a_minute().charge(&mut state, 100_000_000, 4);
        assert_eq!(hour.reading(state, 130_000_000).remaining, 1);
    }

    #[test]
    fn a_clock_that_steps_back_into_the_window_before_opens_no_fresh_one() {
        let window = five_a_minute();
        let mut state = Counted::default();
        window.charge(&mut state, 120_000_001, 5);
        assert_eq!(
            window.answer(state, 119_000_000, 1),
            Answer::Refuse {
                retry_after_us: Some(61_000_000)
            }
        );
    }
}
