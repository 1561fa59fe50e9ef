//! Durations such as `1m30s` and sizes such as `64KiB`.

use std::time::Duration;

use super::Notation;

/// The longest duration accepted, in milliseconds: a leap year.
const LONGEST_MS: u64 = 366 * 24 * 3_600_000;

/// A duration: whole numbers with `h`, `m`, `s`, `ms`, from the largest unit to the smallest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct TimeSpan(pub(in crate::config) Duration);

/// A duration as the configuration writes it, for the command line.
pub fn duration(text: &str) -> Result<Duration, String> {
    let hint = |hint: Option<String>| hint.unwrap_or_else(|| TimeSpan::HINT.to_owned());
    TimeSpan::parse(text).map(|span| span.0).map_err(hint)
}

impl Notation for TimeSpan {
    const FORMAT: &'static str = "tidegate-duration";
    const WHAT: &'static str = "a duration";
    const HINT: &'static str =
        "write whole numbers with units, such as `250ms`, `10s`, `1m30s` or `1h`";
    const PATTERN: Option<&'static str> = Some("^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        if is_number(text) {
            return Err(Some(format!("a unit is missing: `{text}s` or `{text}ms`")));
        }
        let (mut rest, mut total_ms, mut largest_ms) = (text, 0_u64, u64::MAX);
        while !rest.is_empty() {
            let (number, unit);
            (number, rest) = split(rest, |c| c.is_ascii_digit());
            (unit, rest) = split(rest, |c| !c.is_ascii_digit());
            let unit_ms = match unit {
                "h" => 3_600_000,
                "m" => 60_000,
                "s" => 1_000,
                "ms" => 1,
                "d" => return Err(Some("the largest unit is `h`: `24h` for a day".to_owned())),
                _ => return Err(None),
            };
            if number.is_empty() || unit_ms >= largest_ms {
                return Err(None);
            }
            largest_ms = unit_ms;
            total_ms = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(unit_ms))
                .and_then(|part| part.checked_add(total_ms))
                .filter(|total| *total <= LONGEST_MS)
                .ok_or_else(|| Some("at most 366 days (8784h)".to_owned()))?;
        }
        if text.is_empty() {
            Err(None)
        } else {
            Ok(TimeSpan(Duration::from_millis(total_ms)))
        }
    }
}

/// A duration as the file has it: `1m30s`.
pub(in crate::config) fn written(span: Duration) -> String {
    let mut rest_ms = span.as_millis();
    let mut text = String::new();
    for (unit, unit_ms) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if rest_ms >= unit_ms {
            text.push_str(&format!("{}{unit}", rest_ms / unit_ms));
            rest_ms %= unit_ms;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// A number of bytes: a whole number with `B`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Size(pub(in crate::config) u64);

impl Notation for Size {
    const FORMAT: &'static str = "tidegate-size";
    const WHAT: &'static str = "a size";
    const HINT: &'static str =
        "write a whole number with `B`, `KiB`, `MiB` or `GiB`, such as `64KiB` or `10MiB`";
    const PATTERN: Option<&'static str> = Some("^[0-9]+(B|KiB|MiB|GiB)$");

    fn parse(text: &str) -> Result<Self, Option<String>> {
        let (number, unit) = split(text, |c| c.is_ascii_digit());
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ if number.is_empty() => return Err(None),
            "" => {
                return Err(Some(format!(
                    "a unit is missing: `{number}B` or `{number}KiB`"
                )));
            }
            _ => {
                let meant = unit
                    .chars()
                    .next()
                    .map(|c| c.to_ascii_uppercase())
                    .filter(|c| "KMG".contains(*c));
                return Err(meant.map(|letter| format!("write `{number}{letter}iB`")));
            }
        };
        let bytes = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift));
        bytes
            .map(Size)
            .ok_or_else(|| Some("that is more than 64 bits hold".to_owned()))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// The longest start whose characters fit, and the rest.
fn split(text: &str, fits: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !fits(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::instead;
    use super::*;

    fn ms(text: &str) -> u128 {
        TimeSpan::parse(text)
            .map(|span| span.0.as_millis())
            .unwrap_or_else(|_| panic!("{text} refused"))
    }

    #[test]
    fn durations_read_as_documented() {
        assert_eq!(ms("250ms"), 250);
        assert_eq!(ms("10s"), 10_000);
        assert_eq!(ms("1m30s"), 90_000);
        assert_eq!(ms("1h"), 3_600_000);
        assert_eq!(ms("0s"), 0);
        assert_eq!(ms("8784h"), u128::from(LONGEST_MS));
        for text in [
            "",
            "s",
            "1",
            "1.5s",
            "-1s",
            "1s1m",
            "1s1s",
            "1 s",
            "1us",
            "8784h1ms",
            "99999999999999999999s",
            "١s",
        ] {
            assert!(TimeSpan::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            instead::<TimeSpan>("60"),
            "a unit is missing: `60s` or `60ms`"
        );
        assert!(instead::<TimeSpan>("1d").contains("24h"));
    }

    #[test]
    fn sizes_read_as_documented() {
        assert!(Size::parse("64KiB") == Ok(Size(65_536)));
        assert!(Size::parse("10MiB") == Ok(Size(10 << 20)));
        assert!(Size::parse("0B") == Ok(Size(0)));
        assert_eq!(instead::<Size>("10MB"), "write `10MiB`");
        assert_eq!(instead::<Size>("10k"), "write `10KiB`");
        assert_eq!(instead::<Size>("10"), "a unit is missing: `10B` or `10KiB`");
        assert!(Size::parse("99999999999GiB").is_err());
        assert!(Size::parse("").is_err());
    }

    #[test]
    fn the_patterns_for_editors_are_no_stricter_than_the_parsers() {
        let pattern = regex_automata::meta::Regex::new(TimeSpan::PATTERN.unwrap()).unwrap();
        assert!(
            ["250ms", "10s", "1m30s", "1h"]
                .iter()
                .all(|text| pattern.is_match(text))
        );
        assert!(
            regex_automata::meta::Regex::new(Size::PATTERN.unwrap())
                .unwrap()
                .is_match("64KiB")
        );
    }
}
