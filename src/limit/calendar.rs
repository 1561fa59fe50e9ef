//! Calendar windows: days, weeks from Monday and months of a time zone.

use crate::limit::algorithm::fixed_window::Span;
use arc_swap::ArcSwap;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, Zoned};
use std::sync::Arc;

/// The unit windows follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// from midnight to midnight
    Day,
    /// from Monday's midnight (ISO 8601)
    Week,
    /// from the first of the month
    Month,
}

/// Windows of one unit in one time zone; 23 or 25 hours where the clocks change.
#[derive(Clone, Debug)]
pub struct Calendar {
    unit: Unit,
    zone: TimeZone,
    /// the window found last: boundaries move once a day at most, finding them costs microseconds
    last: Arc<ArcSwap<Span>>,
    /// the boundaries found last
    boundaries: Arc<ArcSwap<[u64; 4]>>,
}

/// A time zone that is not in the database.
#[derive(Debug, thiserror::Error)]
#[error("unknown time zone {name:?}; use a name of the IANA database such as UTC or Europe/Berlin")]
pub struct UnknownZone {
    name: String,
}

impl Calendar {
    /// Windows of `unit` in the zone with an IANA name.
    pub fn new(unit: Unit, zone: &str) -> Result<Self, UnknownZone> {
        let zone = TimeZone::get(zone).map_err(|_| UnknownZone {
            name: zone.to_owned(),
        })?;
        let nothing = Span {
            start_us: 0,
            end_us: 0,
        };
        Ok(Calendar {
            unit,
            zone,
            last: Arc::new(ArcSwap::from_pointee(nothing)),
            boundaries: Arc::new(ArcSwap::from_pointee([0; 4])),
        })
    }

    /// The longest window of this unit in seconds, for headers.
    pub fn longest_seconds(&self) -> u64 {
        match self.unit {
            Unit::Day => 86_400,
            Unit::Week => 7 * 86_400,
            Unit::Month => 31 * 86_400,
        }
    }

    /// The window around an instant.
    pub fn around(&self, instant_us: u64) -> Span {
        let last = **self.last.load();
        if last.start_us <= instant_us && instant_us < last.end_us {
            return last;
        }
        let span = self
            .find(instant_us)
            .unwrap_or_else(|| far_away(instant_us));
        self.last.store(Arc::new(span));
        span
    }

    /// The starts of the window before the one around an instant, of that one and of the next, and
    /// the end of the next: what a script needs to find the window by its own clock.
    pub(crate) fn boundaries(&self, instant_us: u64) -> [u64; 4] {
        let known = **self.boundaries.load();
        let [_, start_us, end_us, _] = known;
        if start_us <= instant_us && instant_us < end_us {
            return known;
        }
        let Span { start_us, end_us } = self.around(instant_us);
        let before = self.find(start_us.saturating_sub(1));
        let after = self.find(end_us);
        let found = [
            before
                .unwrap_or_else(|| far_away(start_us.saturating_sub(1)))
                .start_us,
            start_us,
            end_us,
            after.unwrap_or_else(|| far_away(end_us)).end_us,
        ];
        self.boundaries.store(Arc::new(found));
        found
    }

    fn find(&self, instant_us: u64) -> Option<Span> {
        let instant = Timestamp::from_microsecond(i64::try_from(instant_us).ok()?).ok()?;
        let day = Zoned::new(instant, self.zone.clone()).date();
        let (first, next) = match self.unit {
            Unit::Day => (day, day.checked_add(1.day()).ok()?),
            Unit::Week => {
                let since_monday = i64::from(day.weekday().to_monday_zero_offset());
                let monday = day.checked_sub(since_monday.days()).ok()?;
                (monday, monday.checked_add(7.days()).ok()?)
            }
            Unit::Month => {
                let first = day.first_of_month();
                (first, first.checked_add(1.month()).ok()?)
            }
        };
        Some(Span {
            start_us: self.midnight_us(first)?,
            end_us: self.midnight_us(next)?,
        })
    }

    /// The first instant of a day; where the clocks skip midnight, the first that exists.
    fn midnight_us(&self, day: Date) -> Option<u64> {
        let start = day.to_zoned(self.zone.clone()).ok()?;
        u64::try_from(start.timestamp().as_microsecond()).ok()
    }
}

/// Beyond the calendar's range (the year 9999, the zone's first day in 1970): days of 24 hours.
fn far_away(instant_us: u64) -> Span {
    const DAY_US: u64 = 86_400_000_000;
    let start_us = instant_us - instant_us % DAY_US;
    Span {
        start_us,
        end_us: start_us.saturating_add(DAY_US),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_microsecond() as u64
    }

    fn span(unit: Unit, zone: &str, instant: &str) -> (u64, u64) {
        let span = Calendar::new(unit, zone).unwrap().around(us(instant));
        (span.start_us, span.end_us)
    }

    #[test]
    fn days_weeks_and_months_begin_at_midnight_of_the_zone() {
        let instant = "2026-11-20T23:30:00Z";
        assert_eq!(
            span(Unit::Day, "Europe/Berlin", instant),
            (us("2026-11-20T23:00:00Z"), us("2026-11-21T23:00:00Z"))
        );
        assert_eq!(
            span(Unit::Week, "UTC", instant),
            (us("2026-11-16T00:00:00Z"), us("2026-11-23T00:00:00Z"))
        );
        assert_eq!(
            span(Unit::Month, "UTC", instant),
            (us("2026-11-01T00:00:00Z"), us("2026-12-01T00:00:00Z"))
        );
    }

    #[test]
    fn the_day_the_clocks_go_back_has_25_hours() {
        let (start, end) = span(Unit::Day, "Europe/Berlin", "2026-10-25T12:00:00Z");
        assert_eq!(end - start, 25 * 3_600_000_000);
    }

    #[test]
    fn every_instant_lies_inside_its_window_however_odd() {
        let calendar = Calendar::new(Unit::Month, "America/Sao_Paulo").unwrap();
        for instant in [
            0,
            1,
            86_400_000_000,
            253_402_300_799_000_000,
            u64::MAX / 4,
            us("2018-11-04T02:59:00Z"),
        ] {
            let span = calendar.around(instant);
            assert!(
                span.start_us <= instant && instant < span.end_us,
                "{instant}: {span:?}"
            );
        }
    }

    #[test]
    fn an_unknown_zone_is_an_error_that_says_what_to_write() {
        let error = Calendar::new(Unit::Day, "Europe/Berlim").unwrap_err();
        assert!(error.to_string().contains("Europe/Berlin"));
    }
}
