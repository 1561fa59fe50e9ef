//! Sliding window counter: two weighted windows; up to `2 * count` in a trailing period at worst.

use super::{Answer, Reading};

/// `count` units, the window before weighted by how much of it the trailing period still covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingWindowCounter {
    pub(crate) count: u64,
    pub(crate) period_us: u64,
}

/// Units of the window of the last charge and of the one before it. The time of the last charge
/// stands for its window, so that an edited period finds the units it still covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TwoWindows {
    /// when units were last taken, microseconds
    pub ts_us: u64,
    /// units taken in the window of `ts_us`, at most [`MAX_UNITS`](crate::limit::rate::MAX_UNITS)
    pub current: u32,
    /// units taken in the window before
    pub previous: u32,
}

/// Steps in which the elapsed part of a window is measured, rounded down. Times the largest count
/// it stays a whole number for a double.
const STEPS: u64 = 1 << 20;

/// The two windows as they stand at one instant.
#[derive(Clone, Copy)]
struct View {
    instant: u64,
    start: u64,
    current: u64,
    previous: u64,
}

impl SlidingWindowCounter {
    fn view(&self, state: TwoWindows, now_us: u64) -> View {
        let instant = now_us.max(state.ts_us);
        let start = instant - instant % self.period_us;
        let (previous, current) = if state.ts_us >= start {
            (state.previous, state.current)
        } else if state.ts_us.saturating_add(self.period_us) >= start {
            (state.current, 0)
        } else {
            (0, 0)
        };
        View {
            instant,
            start,
            current: u64::from(current),
            previous: u64::from(previous),
        }
    }

    /// The window's length and a time within it, in ticks coarse enough for exact products.
    fn tick_bits(&self) -> u32 {
        (64 - self.period_us.leading_zeros()).saturating_sub(32)
    }

    fn period_ticks(&self) -> u64 {
        self.period_us.div_ceil(1 << self.tick_bits())
    }

    /// Elapsed part of the window in [`STEPS`], rounded down.
    fn elapsed_steps(&self, elapsed_us: u64) -> u64 {
        (elapsed_us >> self.tick_bits()) * STEPS / self.period_ticks()
    }

    /// Least time into a window at which `elapsed_steps` reaches `steps`.
    fn time_of_steps(&self, steps: u64) -> u64 {
        (steps * self.period_ticks()).div_ceil(STEPS) << self.tick_bits()
    }

    /// Used units, times [`STEPS`].
    fn used_steps(&self, view: View) -> u64 {
        let elapsed = self.elapsed_steps(view.instant - view.start);
        view.previous * (STEPS - elapsed.min(STEPS)) + view.current * STEPS
    }

    /// Used units, weighted and rounded up.
    pub(crate) fn used(&self, state: TwoWindows, now_us: u64) -> u64 {
        self.used_steps(self.view(state, now_us)).div_ceil(STEPS)
    }

    /// Is there room for `cost` units?
    pub fn answer(&self, state: TwoWindows, now_us: u64, cost: u64) -> Answer {
        let view = self.view(state, now_us);
        if cost == 0
            || self
                .used_steps(view)
                .saturating_add(cost.saturating_mul(STEPS))
                <= self.count * STEPS
        {
            return Answer::NOW;
        }
        let Some(room) = self.count.checked_sub(cost) else {
            return Answer::Refuse {
                retry_after_us: None,
            };
        };
        Answer::Refuse {
            retry_after_us: Some(self.room_at(view, room).saturating_sub(now_us)),
        }
    }

    /// The first instant at which the used units are at most `room`, if nobody takes any.
    fn room_at(&self, view: View, room: u64) -> u64 {
        let next = view.start + self.period_us;
        if let Some(time) = self.faded(view.previous, room.checked_sub(view.current)) {
            return view.start + time;
        }
        match self.faded(view.current, Some(room)) {
            Some(time) => next + time,
            None => next + self.period_us,
        }
    }

    /// Time into a window at which `previous`, weighted, is at most `room`; `None`: not within it.
    fn faded(&self, previous: u64, room: Option<u64>) -> Option<u64> {
        let room = room?;
        if previous <= room {
            return Some(0);
        }
        let time = self.time_of_steps(STEPS - room * STEPS / previous);
        (time < self.period_us).then_some(time)
    }

    /// Takes `cost` units at `now_us`.
    pub fn charge(&self, state: &mut TwoWindows, now_us: u64, cost: u64) {
        let View {
            instant,
            current,
            previous,
            ..
        } = self.view(*state, now_us);
        let units = |units: u64| u32::try_from(units).unwrap_or(u32::MAX);
        *state = TwoWindows {
            ts_us: instant,
            current: units(current.saturating_add(cost)),
            previous: units(previous),
        };
    }

    /// What to report.
    pub fn reading(&self, state: TwoWindows, now_us: u64) -> Reading {
        let view = self.view(state, now_us);
        let whole_at = match (view.current, view.previous) {
            (0, 0) => view.instant,
            (0, _) => view.start + self.period_us,
            _ => view.start + 2 * self.period_us,
        };
        Reading {
            remaining: (self.count * STEPS).saturating_sub(self.used_steps(view)) / STEPS,
            reset_after_us: if whole_at == view.instant {
                0
            } else {
                whole_at.saturating_sub(now_us)
            },
        }
    }

    /// When both windows have passed, microseconds.
    pub fn empty_at_us(&self, state: TwoWindows) -> u64 {
        let start = state.ts_us - state.ts_us % self.period_us;
        start.saturating_add(2 * self.period_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUNDRED_A_MINUTE: SlidingWindowCounter = SlidingWindowCounter {
        count: 100,
        period_us: 60_000_000,
    };

    #[test]
    fn half_way_through_a_window_half_of_the_one_before_still_counts() {
        let mut state = TwoWindows::default();
        HUNDRED_A_MINUTE.charge(&mut state, 30_000_000, 100);
        assert!(!HUNDRED_A_MINUTE.answer(state, 59_999_999, 1).admits());
        assert_eq!(HUNDRED_A_MINUTE.reading(state, 90_000_000).remaining, 50);
    }

    #[test]
    fn the_worst_case_is_just_under_twice_the_count_in_a_trailing_period() {
        let mut state = TwoWindows::default();
        HUNDRED_A_MINUTE.charge(&mut state, 0, 100);
        let mut admitted = 0;
        for ms in (60_000..120_000).step_by(10) {
            if HUNDRED_A_MINUTE.answer(state, ms * 1_000, 1).admits() {
                HUNDRED_A_MINUTE.charge(&mut state, ms * 1_000, 1);
                admitted += 1;
            }
        }
        assert_eq!(
            admitted, 99,
            "and 100 at the start of the period before: 199 in 120 s"
        );
    }

    #[test]
    fn the_weight_of_long_windows_is_measured_in_coarser_ticks() {
        let month = SlidingWindowCounter {
            count: 1_000,
            period_us: 31 * 86_400_000_000,
        };
        let mut state = TwoWindows::default();
        month.charge(&mut state, 0, 1_000);
        let half_way = month.period_us + month.period_us / 2;
        let remaining = month.reading(state, half_way).remaining;
        assert!((499..=500).contains(&remaining), "{remaining}");
    }
}
