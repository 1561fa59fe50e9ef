//! One gateway's share of a quota, for the time in which nobody counts for all of them.

use super::algorithm::concurrency::Concurrency;
use super::algorithm::fixed_window::{FixedWindow, Window};
use super::algorithm::leaky_bucket::LeakyBucket;
use super::algorithm::sliding_window::SlidingWindow;
use super::algorithm::sliding_window_counter::SlidingWindowCounter;
use super::algorithm::token_bucket::TokenBucket;
use super::quota::{PERIOD_US, Quota, State};
use super::rate::MICRO;

impl Quota {
    /// What one of `gateways` may admit, so that all together admit the quota: the same burst or
    /// count divided by them, at least 1, and where that rounds up a longer period. A window of the
    /// calendar keeps its length; with more gateways than units they admit one each.
    pub fn share(&self, gateways: u64) -> Quota {
        let gateways = gateways.max(1);
        let part = |units: u64| (units / gateways).max(1);
        // count per period = part per (period * gateways * part / count)
        let period = |period_us: u64, count: u64| {
            let exact = (u128::from(period_us) * u128::from(gateways) * u128::from(part(count)))
                .div_ceil(u128::from(count.max(1)));
            u64::try_from(exact)
                .unwrap_or(u64::MAX)
                .clamp(*PERIOD_US.start(), *PERIOD_US.end())
        };
        match self {
            Quota::TokenBucket(quota) => Quota::TokenBucket(TokenBucket {
                burst: part(quota.burst),
                rate: quota.rate.divided(gateways),
            }),
            Quota::LeakyBucket(quota) => Quota::LeakyBucket(LeakyBucket {
                count: quota.count,
                rate: quota.rate.divided(gateways),
                max_delay_us: quota.max_delay_us,
            }),
            Quota::SlidingWindow(quota) => Quota::SlidingWindow(SlidingWindow {
                count: part(quota.count),
                period_us: period(quota.period_us, quota.count),
            }),
            Quota::SlidingWindowCounter(quota) => {
                Quota::SlidingWindowCounter(SlidingWindowCounter {
                    count: part(quota.count),
                    period_us: period(quota.period_us, quota.count),
                })
            }
            Quota::FixedWindow(quota) => Quota::FixedWindow(FixedWindow {
                count: part(quota.count),
                window: match &quota.window {
                    Window::Aligned { period_us } => Window::Aligned {
                        period_us: period(*period_us, quota.count),
                    },
                    calendar => calendar.clone(),
                },
            }),
            Quota::Concurrency(quota) => Quota::Concurrency(Concurrency {
                count: part(quota.count),
            }),
        }
    }

    /// Units that come back in `elapsed_us`, rounded down; 0 where none come back by themselves.
    pub fn earned(&self, elapsed_us: u64) -> u64 {
        let of = |count: u64, period_us: u64| {
            let units = u128::from(count) * u128::from(elapsed_us) / u128::from(period_us.max(1));
            u64::try_from(units).unwrap_or(u64::MAX)
        };
        match self {
            Quota::TokenBucket(quota) => quota.rate.leaked(elapsed_us) / MICRO,
            Quota::SlidingWindow(quota) => of(quota.count, quota.period_us),
            Quota::SlidingWindowCounter(quota) => of(quota.count, quota.period_us),
            Quota::FixedWindow(quota) => match &quota.window {
                Window::Aligned { period_us } => of(quota.count, *period_us),
                Window::Calendar(calendar) => {
                    of(quota.count, calendar.longest_seconds() * 1_000_000)
                }
            },
            Quota::LeakyBucket(_) | Quota::Concurrency(_) => 0,
        }
    }

    /// Microseconds until the present window ends, for algorithms that have windows.
    pub fn window_left(&self, now_us: u64) -> Option<u64> {
        match self {
            Quota::SlidingWindowCounter(quota) => Some(quota.period_us - now_us % quota.period_us),
            Quota::FixedWindow(quota) => {
                Some(quota.window.around(now_us).end_us.saturating_sub(now_us))
            }
            _ => None,
        }
    }

    /// Units a bucket holds at `now_us`, rounded up.
    pub fn used(&self, state: &State, now_us: u64) -> u64 {
        match (self, state) {
            (Quota::TokenBucket(quota), State::Level(level)) => {
                level.at(quota.rate, now_us).div_ceil(MICRO)
            }
            (Quota::LeakyBucket(quota), State::Level(level)) => {
                level.at(quota.rate, now_us).div_ceil(MICRO)
            }
            (Quota::SlidingWindow(quota), State::Log(log)) => quota.used(log, now_us),
            (Quota::SlidingWindowCounter(quota), State::TwoWindows(two)) => {
                quota.used(*two, now_us)
            }
            (Quota::FixedWindow(quota), State::Counted(counted)) => quota.used(*counted, now_us),
            (Quota::Concurrency(_), State::InFlight(in_flight)) => *in_flight,
            _ => 0,
        }
    }

    /// The state of this share that corresponds to a state of the `whole` quota: as full, rounded
    /// up.
    pub fn seeded(&self, whole: &Quota, state: &State, now_us: u64) -> State {
        let (used, capacity) = (whole.used(state, now_us), whole.capacity().max(1));
        let own = (u128::from(used) * u128::from(self.capacity())).div_ceil(u128::from(capacity));
        let mut seeded = self.empty();
        let units = u64::try_from(own).unwrap_or(u64::MAX);
        self.charge(&mut seeded, now_us, units.min(self.capacity()));
        seeded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quotas(count: u64, period_us: u64) -> Vec<Quota> {
        vec![
            Quota::token_bucket(count, period_us, None).unwrap(),
            Quota::sliding_window(count.min(10_000), period_us).unwrap(),
            Quota::sliding_window_counter(count, period_us).unwrap(),
            Quota::fixed_window(count, period_us).unwrap(),
        ]
    }

    /// Units admitted by a bucket that is asked all the time from `from_us` to `to_us`.
    fn admitted(quota: &Quota, from_us: u64, to_us: u64, step_us: u64) -> u64 {
        let mut state = quota.empty();
        let mut admitted = 0;
        for now_us in (from_us..to_us).step_by(step_us as usize) {
            while quota.answer(&state, now_us, 1).admits() {
                quota.charge(&mut state, now_us, 1);
                admitted += 1;
            }
        }
        admitted
    }

    #[test]
    fn ten_a_minute_among_four_is_two_at_once_and_ten_a_minute_together() {
        let share = Quota::token_bucket(10, 60_000_000, None).unwrap().share(4);
        assert_eq!(share.capacity(), 2);
        let hour = admitted(&share, 0, 3_600_000_000, 1_000_000);
        assert!((149..=152).contains(&hour), "{hour}");
    }

    #[test]
    fn more_gateways_than_units_get_one_each_less_often() {
        let share = Quota::sliding_window(2, 1_000_000).unwrap().share(8);
        assert_eq!(share.capacity(), 1);
        assert_eq!(admitted(&share, 0, 8_000_000, 1_000), 2);
    }

    #[test]
    fn a_share_starts_as_full_as_the_whole_was_seen() {
        for whole in quotas(100, 60_000_000) {
            let share = whole.share(4);
            let mut state = whole.empty();
            whole.charge(&mut state, 120_000_000, 80);
            let seeded = share.seeded(&whole, &state, 120_000_000);
            assert_eq!(share.reading(&seeded, 120_000_000).remaining, 5);
        }
    }

    proptest! {
        #[test]
        fn all_shares_together_admit_no_more_than_the_quota_and_a_burst_each(
            count in 1u64..200, gateways in 1u64..9,
        ) {
            for whole in quotas(count, 1_000_000) {
                let share = whole.share(gateways);
                let in_ten = admitted(&share, 0, 10_000_000, 1_000) * gateways;
                let bursts = 2 * count.max(gateways);
                prop_assert!(in_ten <= 10 * count + bursts, "{whole:?}: {in_ten}");
            }
        }
    }
}
