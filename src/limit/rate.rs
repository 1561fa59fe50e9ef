//! Units leaking at `count / period`, in whole numbers that a Lua double also holds exactly.

/// Micro-units in one unit of cost.
pub const MICRO: u64 = 1_000_000;

/// Largest count, burst or cost: its micro-units stay below 2^53 with room to add two of them.
pub const MAX_UNITS: u64 = 1_000_000_000;

/// Products of the numerator and the denominator stay below this, so that a script whose numbers
/// are doubles can split its multiplications and get the same whole numbers.
const EXACT: u64 = 1 << 53;

/// How fast a level falls: `numerator / denominator` micro-units per microsecond.
///
/// The fraction is reduced; where it would still be too large for exact doubles (a prime count over
/// a period of weeks in odd milliseconds) it is rounded *down* by less than one part in 100,000, so
/// a bound that holds for the rate as written holds for this one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    numerator: u64,
    denominator: u64,
}

impl Rate {
    /// `count` units every `period_us` microseconds; both at least 1, count at most [`MAX_UNITS`].
    pub fn new(count: u64, period_us: u64) -> Self {
        Rate::of(count.clamp(1, MAX_UNITS) * MICRO, period_us.max(1))
    }

    /// One of `parts` equal parts of it.
    pub fn divided(self, parts: u64) -> Self {
        Rate::of(
            self.numerator,
            self.denominator.saturating_mul(parts.max(1)).min(EXACT),
        )
    }

    fn of(mut numerator: u64, mut denominator: u64) -> Self {
        let divisor = greatest_common_divisor(numerator, denominator);
        numerator /= divisor;
        denominator /= divisor;
        while numerator > 1 && numerator.saturating_mul(denominator) >= EXACT {
            numerator /= 2;
            denominator = denominator.div_ceil(2);
        }
        Rate {
            numerator,
            denominator,
        }
    }

    /// Numerator and denominator, for the scripts.
    pub(crate) fn fraction(self) -> (u64, u64) {
        (self.numerator, self.denominator)
    }

    /// Micro-units that leak in `elapsed_us`, rounded down. Multiplied in two parts, as a script
    /// must, which is also faster than 128 bits.
    pub fn leaked(self, elapsed_us: u64) -> u64 {
        if elapsed_us == 0 {
            return 0;
        }
        let Rate {
            numerator,
            denominator,
        } = self;
        let (whole, rest) = (elapsed_us / denominator, elapsed_us % denominator);
        whole
            .saturating_mul(numerator)
            .saturating_add(rest.saturating_mul(numerator) / denominator)
    }

    /// The least time in microseconds after which at least `micro_units` have leaked.
    pub fn time_to_leak(self, micro_units: u64) -> u64 {
        let Rate {
            numerator,
            denominator,
        } = self;
        let (whole, rest) = (micro_units / numerator, micro_units % numerator);
        let part = rest.saturating_mul(denominator).div_ceil(numerator);
        whole.saturating_mul(denominator).saturating_add(part)
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ten_per_minute_is_a_unit_every_six_seconds() {
        let rate = Rate::new(10, 60_000_000);
        assert_eq!(rate.leaked(6_000_000), MICRO);
        assert_eq!(rate.leaked(5_999_999), MICRO - 1);
        assert_eq!(rate.time_to_leak(MICRO), 6_000_000);
    }

    #[test]
    fn seven_hundred_thousand_a_second_is_not_rounded_to_whole_microseconds() {
        let rate = Rate::new(700_000, 1_000_000);
        assert_eq!(rate.leaked(1_000_000), 700_000 * MICRO);
    }

    proptest! {
        #[test]
        fn waiting_the_time_to_leak_is_enough_and_the_least(
            count in 1..=MAX_UNITS, period_us in 1_000u64..=31_622_400_000_000, micro in 1..=MAX_UNITS * MICRO,
        ) {
            let rate = Rate::new(count, period_us);
            let wait = rate.time_to_leak(micro);
            prop_assert!(rate.leaked(wait) >= micro);
            prop_assert!(rate.leaked(wait - 1) < micro);
        }

        #[test]
        fn the_rate_is_never_above_the_one_written_and_hardly_below(
            count in 1..=MAX_UNITS, period_ms in 1u64..=31_622_400_000,
        ) {
            let rate = Rate::new(count, period_ms * 1_000);
            let leaked = u128::from(rate.leaked(period_ms * 1_000));
            let written = u128::from(count * MICRO);
            prop_assert!(leaked <= written);
            prop_assert!((written - leaked) * 100_000 <= written + 100_000);
            prop_assert!(rate.numerator == 1 || rate.numerator.saturating_mul(rate.denominator) < EXACT);
        }
    }
}
