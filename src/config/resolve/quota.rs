//! Quotas: each holds what its policy's algorithm uses, and a request's cost fits into its bucket.

use super::Review;
use crate::config::model::{Algorithm, Quota, Window};
use crate::config::place::Place;
use crate::config::raw;

/// The exact log keeps every request; more than this many per bucket would cost too much memory.
const SLIDING_WINDOW_MAX_COUNT: u64 = 10_000;

/// What a quota inherits from its policy.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    /// Absent where it was wrong; then only what holds for every algorithm is checked.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) cost: u32,
}

pub(super) fn resolve(
    raw: &raw::Quota,
    frame: Frame,
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> Option<Quota> {
    if let Some(period) = &raw.period {
        review.positive(period, &place.then("period"));
    }
    let algorithm = frame.algorithm?;
    foreign_keys(raw, algorithm, place, review);
    let window = window(raw, algorithm, place, review);
    let count = raw.count?;
    if algorithm == Algorithm::SlidingWindow && count > SLIDING_WINDOW_MAX_COUNT {
        let place = place.then("count");
        let message = format!(
            "{} is too much for sliding_window, which keeps every request",
            review.shown(&place)
        );
        let hint = format!(
            "write at most {SLIDING_WINDOW_MAX_COUNT}, or use sliding_window_counter or token_bucket"
        );
        review.error(&place, message, hint);
    }
    cost_fits(raw, algorithm, count, frame.cost, place, review);
    let max_delay = raw
        .max_delay
        .as_ref()
        .map_or(raw::DEFAULT_MAX_DELAY, |delay| delay.value.0);
    Some(Quota {
        count,
        window: window?,
        burst: raw.burst.filter(|_| algorithm == Algorithm::TokenBucket),
        max_delay: (algorithm == Algorithm::LeakyBucket).then_some(max_delay),
    })
}

fn foreign_keys(
    raw: &raw::Quota,
    algorithm: Algorithm,
    place: &Place<'_>,
    review: &mut Review<'_>,
) {
    let given = [
        (
            "period",
            raw.period.is_some(),
            "every algorithm but concurrency",
        ),
        ("burst", raw.burst.is_some(), "token_bucket"),
        ("calendar", raw.calendar.is_some(), "fixed_window"),
        (
            "time_zone",
            raw.time_zone.is_some(),
            "fixed_window with calendar",
        ),
        ("max_delay", raw.max_delay.is_some(), "leaky_bucket"),
    ];
    for (key, _, owner) in given
        .into_iter()
        .filter(|(key, given, _)| *given && !algorithm.uses().contains(key))
    {
        let message = format!("`{key}` does not belong to {algorithm}");
        review.error(
            &place.then(key),
            message,
            format!("remove it; it belongs to {owner}"),
        );
    }
}

fn window(
    raw: &raw::Quota,
    algorithm: Algorithm,
    place: &Place<'_>,
    review: &mut Review<'_>,
) -> Option<Window> {
    if algorithm == Algorithm::Concurrency {
        return Some(Window::None);
    }
    let fixed = algorithm == Algorithm::FixedWindow;
    match (&raw.period, raw.calendar.filter(|_| fixed)) {
        (Some(_), Some(_)) => {
            review.error(
                &place.then("calendar"),
                "`calendar` and `period` are both given",
                "keep one of the two",
            );
            None
        }
        (Some(period), None) => {
            if fixed && raw.time_zone.is_some() {
                let hint = "remove it, or write `calendar: day` instead of the period";
                review.error(
                    &place.then("time_zone"),
                    "`time_zone` has no meaning with a period",
                    hint,
                );
            }
            Some(Window::Period(period.value.0))
        }
        (None, Some(unit)) => {
            let zone = raw
                .time_zone
                .as_ref()
                .map_or(raw::DEFAULT_TIME_ZONE, |zone| zone.value.0.as_str());
            Some(Window::Calendar {
                unit,
                time_zone: zone.to_owned(),
            })
        }
        (None, None) => {
            let hint = if fixed {
                "add `period: 60s` or `calendar: day`"
            } else {
                "add `period: 60s`"
            };
            // Something wrong in its place has been reported; nothing in its place has not.
            if !review.is_broken(&place.then("period"))
                && !review.is_broken(&place.then("calendar"))
            {
                review.error_even_if_broken(place, format!("{algorithm} needs a period"), hint);
            }
            None
        }
    }
}

/// A request that costs more than its bucket can ever hold would be refused for ever. A leaky bucket has no such
/// bound: a larger cost only spaces the requests further apart.
fn cost_fits(
    raw: &raw::Quota,
    algorithm: Algorithm,
    count: u64,
    cost: u32,
    place: &Place<'_>,
    review: &mut Review<'_>,
) {
    let (key, capacity) = match algorithm {
        Algorithm::TokenBucket => match raw.burst {
            Some(burst) => ("burst", burst),
            None => ("count", count),
        },
        _ => ("count", count),
    };
    if u64::from(cost) > capacity && !review.is_broken(&place.then("burst")) {
        let place = place.then(key);
        let message = format!(
            "{} is less than the policy's cost, so every request would be refused",
            review.shown(&place)
        );
        review.error(&place, message, "raise it, or lower `cost`");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::model::CalendarUnit;
    use crate::config::testing::{errors, loaded, with_policy};

    fn lines(algorithm: &str, quota: &str, rest: &str) -> String {
        with_policy(&format!(
            "key: [client]\nalgorithm: {algorithm}\nquota: {{ {quota} }}\n{rest}"
        ))
    }

    fn wrong(algorithm: &str, quota: &str, rest: &str) -> Vec<String> {
        errors(&lines(algorithm, quota, rest))
    }

    fn read(algorithm: &str, quota: &str) -> Quota {
        loaded(&lines(algorithm, quota, "")).config.policies["p"]
            .quota
            .clone()
    }

    #[test]
    fn keys_of_other_algorithms_are_refused() {
        for (algorithm, quota, key) in [
            ("sliding_window", "count: 5, period: 1s, burst: 5", "burst"),
            (
                "token_bucket",
                "count: 5, period: 1s, calendar: day",
                "calendar",
            ),
            (
                "token_bucket",
                "count: 5, period: 1s, time_zone: UTC",
                "time_zone",
            ),
            (
                "fixed_window",
                "count: 5, period: 1s, max_delay: 1s",
                "max_delay",
            ),
            ("concurrency", "count: 5, period: 1s", "period"),
        ] {
            let found = wrong(algorithm, quota, "");
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(
                found[0].ends_with(&format!(
                    "policies.p.quota.{key}: `{key}` does not belong to {algorithm}"
                )),
                "{found:?}"
            );
        }
    }

    #[test]
    fn windows_are_periods_or_calendar_units() {
        assert_eq!(read("concurrency", "count: 5").window, Window::None);
        assert_eq!(
            read("token_bucket", "count: 5, period: 1m").window,
            Window::Period(Duration::from_secs(60))
        );
        let day = Window::Calendar {
            unit: CalendarUnit::Day,
            time_zone: "UTC".into(),
        };
        assert_eq!(read("fixed_window", "count: 5, calendar: day").window, day);
        assert!(
            wrong("fixed_window", "count: 5, calendar: day, period: 1s", "")[0]
                .contains("both given")
        );
        assert!(
            wrong("fixed_window", "count: 5, period: 1s, time_zone: UTC", "")[0]
                .contains("no meaning")
        );
        assert!(wrong("fixed_window", "count: 5", "")[0].ends_with("fixed_window needs a period"));
        assert!(
            wrong("token_bucket", "count: 5, period: 0s", "")[0].contains("`0s` is not allowed")
        );
        assert!(wrong("token_bucket", "count: 5, period: 8785h", "")[0].contains("not a duration"));
    }

    #[test]
    fn a_leaky_bucket_delays_a_second_unless_told_otherwise() {
        assert_eq!(
            read("leaky_bucket", "count: 5, period: 1s").max_delay,
            Some(Duration::from_secs(1))
        );
        assert_eq!(
            read("leaky_bucket", "count: 5, period: 1s, max_delay: 0s").max_delay,
            Some(Duration::ZERO)
        );
        assert_eq!(read("token_bucket", "count: 5, period: 1s").max_delay, None);
    }

    #[test]
    fn an_exact_window_is_bounded() {
        assert!(wrong("sliding_window", "count: 10000, period: 1s", "").is_empty());
        assert!(
            wrong("sliding_window", "count: 10001, period: 1s", "")[0]
                .contains("`10001` is too much")
        );
        assert!(
            wrong("token_bucket", "count: 1000000001, period: 1s", "")[0].contains("not allowed")
        );
    }

    #[test]
    fn the_cost_fits_into_every_quota_of_the_policy() {
        let rest = "cost: 6\ntiers: { pro: { count: 5, period: 1s } }\noverrides: { acme: { count: 9, period: 1s, burst: 5 } }";
        let places: Vec<_> = wrong("token_bucket", "count: 5, period: 1s, burst: 6", rest)
            .iter()
            .map(|text| text.split(": ").next().unwrap().to_owned())
            .collect();
        assert_eq!(
            places,
            [
                "11:28 policies.p.tiers.pro.count",
                "12:55 policies.p.overrides.acme.burst"
            ]
        );
        assert!(
            wrong("leaky_bucket", "count: 5, period: 1s", "cost: 6")[0]
                .contains("less than the policy's cost")
        );
        assert!(
            wrong("concurrency", "count: 5", "cost: 6")[0].contains("less than the policy's cost")
        );
    }
}
