//! From a quota as written to one that counts, with the header text that announces it.

use crate::config::{self, Algorithm, CalendarUnit, Window};
use crate::limit::calendar::{Calendar, Unit};
use crate::limit::quota::{BadQuota, Quota};
use http::HeaderValue;

/// A quota and how it is announced to clients.
pub struct PolicyQuota {
    /// the numbers
    pub quota: Quota,
    /// `X-RateLimit-Limit`: the burst of a token bucket, otherwise the count
    pub limit: u64,
    /// the same, ready to be sent
    pub limit_header: HeaderValue,
    /// its item of the `RateLimit-Policy` list, such as `"search";q=30;w=60`
    pub announced: String,
}

/// A quota that cannot be: the key it is about, and why.
pub(super) struct Impossible {
    pub(super) field: &'static str,
    pub(super) message: String,
}

/// The letter of an algorithm in bucket keys.
pub(super) fn letter(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::TokenBucket => b't',
        Algorithm::SlidingWindow => b's',
        Algorithm::SlidingWindowCounter => b'n',
        Algorithm::FixedWindow => b'f',
        Algorithm::LeakyBucket => b'l',
        Algorithm::Concurrency => b'c',
    }
}

impl PolicyQuota {
    pub(super) fn compile(
        policy: &str,
        algorithm: Algorithm,
        written: &config::Quota,
    ) -> Result<PolicyQuota, Impossible> {
        let (quota, window_seconds) = compile(algorithm, written)?;
        let limit = quota.capacity();
        let announced = match window_seconds {
            Some(seconds) => format!("\"{policy}\";q={limit};w={seconds}"),
            None => format!("\"{policy}\";q={limit};qu=\"concurrent-requests\""),
        };
        Ok(PolicyQuota {
            quota,
            limit,
            limit_header: HeaderValue::from(limit),
            announced,
        })
    }
}

fn compile(
    algorithm: Algorithm,
    written: &config::Quota,
) -> Result<(Quota, Option<u64>), Impossible> {
    let count = written.count;
    let period = match &written.window {
        Window::Period(period) => u64::try_from(period.as_micros()).unwrap_or(u64::MAX),
        Window::Calendar { unit, time_zone } => {
            let calendar = calendar(*unit, time_zone)?;
            let seconds = calendar.longest_seconds();
            return Quota::calendar(count, calendar)
                .map(|quota| (quota, Some(seconds)))
                .map_err(impossible);
        }
        Window::None => {
            return Quota::concurrency(count)
                .map(|quota| (quota, None))
                .map_err(impossible);
        }
    };
    let seconds = |units: u64| {
        let exact =
            (u128::from(period) * u128::from(units)).div_ceil(u128::from(count.max(1)) * 1_000_000);
        Some(u64::try_from(exact).unwrap_or(u64::MAX))
    };
    let quota = match algorithm {
        Algorithm::TokenBucket => {
            let quota = Quota::token_bucket(count, period, written.burst).map_err(impossible)?;
            let window = seconds(quota.capacity());
            return Ok((quota, window));
        }
        Algorithm::SlidingWindow => Quota::sliding_window(count, period),
        Algorithm::SlidingWindowCounter => Quota::sliding_window_counter(count, period),
        Algorithm::FixedWindow => Quota::fixed_window(count, period),
        Algorithm::LeakyBucket => {
            let max_delay = written.max_delay.unwrap_or_default().as_micros();
            Quota::leaky_bucket(count, period, u64::try_from(max_delay).unwrap_or(u64::MAX))
        }
        Algorithm::Concurrency => Quota::concurrency(count),
    };
    quota
        .map(|quota| (quota, seconds(count)))
        .map_err(impossible)
}

fn calendar(unit: CalendarUnit, time_zone: &str) -> Result<Calendar, Impossible> {
    let unit = match unit {
        CalendarUnit::Day => Unit::Day,
        CalendarUnit::Week => Unit::Week,
        CalendarUnit::Month => Unit::Month,
    };
    Calendar::new(unit, time_zone).map_err(|error| Impossible {
        field: "time_zone",
        message: error.to_string(),
    })
}

fn impossible(bad: BadQuota) -> Impossible {
    let field = match bad {
        BadQuota::Count | BadQuota::LogTooLong => "count",
        BadQuota::Period => "period",
    };
    Impossible {
        field,
        message: bad.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn announced(algorithm: Algorithm, count: u64, period_ms: u64, burst: Option<u64>) -> String {
        let window = Window::Period(Duration::from_millis(period_ms));
        let written = config::Quota {
            count,
            window,
            burst,
            max_delay: None,
        };
        PolicyQuota::compile("p", algorithm, &written)
            .map(|quota| quota.announced)
            .unwrap_or_default()
    }

    #[test]
    fn the_announced_window_is_the_time_a_full_burst_takes_to_refill() {
        assert_eq!(
            announced(Algorithm::TokenBucket, 30, 60_000, None),
            "\"p\";q=30;w=60"
        );
        assert_eq!(
            announced(Algorithm::TokenBucket, 30, 60_000, Some(100)),
            "\"p\";q=100;w=200"
        );
        assert_eq!(
            announced(Algorithm::TokenBucket, 3, 1_000, Some(1)),
            "\"p\";q=1;w=1"
        );
        assert_eq!(
            announced(Algorithm::SlidingWindow, 5, 1_500, None),
            "\"p\";q=5;w=2"
        );
    }

    #[test]
    fn the_window_is_exact_where_count_does_not_divide_the_period() {
        assert_eq!(
            announced(Algorithm::FixedWindow, 7, 60_000, None),
            "\"p\";q=7;w=60"
        );
    }
}
