//! From a quota as written to one that counts, with the header text that announces it.

use crate::config::{self, Algorithm, CalendarUnit, Consistency, OnOutage, Window};
use crate::limit::calendar::{Calendar, Unit};
use crate::limit::decision::{OutageMode, Terms};
use crate::limit::quota::{BadQuota, Quota};
use http::HeaderValue;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// A quota and how it is announced to clients.
pub struct PolicyQuota {
    /// the numbers
    pub quota: Quota,
    /// the same as it was written
    pub written: config::Quota,
    /// how a shared store may count it
    pub terms: Terms,
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
        policy: &config::Policy,
        written: &config::Quota,
    ) -> Result<PolicyQuota, Impossible> {
        let (quota, window_seconds) = compile(policy.algorithm, written)?;
        let terms = terms(policy, written, &quota);
        let policy = &policy.name;
        let limit = quota.capacity();
        let announced = match window_seconds {
            Some(seconds) => format!("\"{policy}\";q={limit};w={seconds}"),
            None => format!("\"{policy}\";q={limit};qu=\"concurrent-requests\""),
        };
        Ok(PolicyQuota {
            quota,
            written: written.clone(),
            terms,
            limit,
            limit_header: HeaderValue::from(limit),
            announced,
        })
    }
}

/// Units of a sliding window are leased for a hundredth of its period at most: they enter its log
/// dated at the end of the lease.
const LEASES_IN_A_WINDOW: u64 = 100;

fn terms(policy: &config::Policy, written: &config::Quota, quota: &Quota) -> Terms {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let longest = match (quota, &written.window) {
        (Quota::LeakyBucket(_) | Quota::Concurrency(_), _) => 0,
        (Quota::SlidingWindow(_), Window::Period(period)) => micros(*period) / LEASES_IN_A_WINDOW,
        _ => u64::MAX,
    };
    let mut hasher = SipHasher13::new();
    hasher.write(format!("{:?} {written:?}", policy.algorithm).as_bytes());
    Terms {
        fingerprint: hasher.finish(),
        lease_ttl_us: match policy.consistency {
            Consistency::Leased => micros(policy.lease_ttl).min(longest),
            Consistency::Strict => 0,
        },
        on_outage: match policy.on_outage {
            OnOutage::Local => OutageMode::Local,
            OnOutage::Allow => OutageMode::Allow,
            OnOutage::Deny => OutageMode::Deny,
        },
        tally: 0,
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
        let policy = config::Policy {
            name: "p".into(),
            routes: None,
            key: vec![config::KeyPart::Global],
            algorithm,
            quota: written.clone(),
            tiers: Default::default(),
            overrides: Default::default(),
            cost: 1,
            consistency: Consistency::Strict,
            lease_ttl: Duration::from_millis(100),
            on_outage: OnOutage::Local,
            mode: config::Mode::Enforce,
            methods: None,
            ipv6_prefix: 64,
            status: 429,
        };
        PolicyQuota::compile(&policy, &written)
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
