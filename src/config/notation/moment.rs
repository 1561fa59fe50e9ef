//! Points in time such as `2026-12-31T23:59:59Z`.

use super::Notation;

/// A point in time (RFC 3339), in microseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Moment(pub(in crate::config) u64);

impl Notation for Moment {
    const FORMAT: &'static str = "tidegate-moment";
    const WHAT: &'static str = "a point in time";
    const HINT: &'static str =
        "write date, time and zone, such as `2026-12-31T23:59:59Z` or `2027-01-01T00:00:00+01:00`";
    const PATTERN: Option<&'static str> =
        Some("^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2})?.*[Zz0-9]$");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let moment: jiff::Timestamp = text.parse().map_err(|_| None)?;
        u64::try_from(moment.as_microsecond())
            .map(Moment)
            .map_err(|_| Some("write a time after 1970".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::instead;
    use super::*;

    #[test]
    fn moments_need_a_zone() {
        let us = |text| Moment::parse(text).ok().map(|moment| moment.0);
        assert_eq!(us("1970-01-01T00:00:01Z"), Some(1_000_000));
        assert_eq!(us("1970-01-01T01:00:01.5+01:00"), Some(1_500_000));
        for text in [
            "",
            "tomorrow",
            "2026-12-31",
            "2026-12-31T00:00:00",
            "2026-13-01T00:00:00Z",
        ] {
            instead::<Moment>(text);
        }
        assert_eq!(
            instead::<Moment>("1969-01-01T00:00:00Z"),
            "write a time after 1970"
        );
    }
}
