//! A length of time as people write it: `30s`, `1m30s`, `500ms`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::problem::{InvalidValue, read_text};

/// Units from the largest to the smallest, with their length in nanoseconds.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// A length of time with units: `500ms`, `30s`, `1m30s`, `2h`, `1d`.
///
/// Zero is allowed; a negative length or a number without a unit is not. It prints in the same
/// form, with the largest units that fit. Parts stand from the largest unit to the smallest, each
/// unit once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(std::time::Duration);

impl Duration {
    /// A length of zero.
    pub const ZERO: Duration = Duration(std::time::Duration::ZERO);

    /// A length of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Duration {
        Duration(std::time::Duration::from_secs(seconds))
    }

    /// A length of whole milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Duration {
        Duration(std::time::Duration::from_millis(milliseconds))
    }

    /// The length as the standard library knows it.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// Whether the length is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<std::time::Duration> for Duration {
    fn from(length: std::time::Duration) -> Duration {
        Duration(length)
    }
}

impl From<Duration> for std::time::Duration {
    fn from(length: Duration) -> std::time::Duration {
        length.0
    }
}

impl FromStr for Duration {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Duration, InvalidValue> {
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(InvalidValue::new("it is empty"));
        }
        if rest.starts_with('-') {
            return Err(InvalidValue::new("a duration cannot be negative"));
        }
        let mut total_nanoseconds: u128 = 0;
        let mut units_left: &[(&str, u128)] = &UNITS;
        while !rest.is_empty() {
            let (digits, after) = split_leading(rest, |c| c.is_ascii_digit());
            if digits.is_empty() {
                return Err(InvalidValue::new("a number must stand before each unit (d, h, m, s, ms, us, ns)"));
            }
            if after.starts_with('.') {
                return Err(InvalidValue::new(
                    "fractions are not understood, use a smaller unit: `1s500ms` instead of `1.5s`",
                ));
            }
            let (unit, after) = split_leading(after, char::is_alphabetic);
            units_left = units_after(units_left, unit)?;
            let nanoseconds = digits
                .parse::<u128>()
                .ok()
                .and_then(|count| count.checked_mul(length_of(unit)?))
                .and_then(|part| total_nanoseconds.checked_add(part));
            total_nanoseconds = nanoseconds.ok_or_else(too_long)?;
            rest = after;
        }
        let seconds = u64::try_from(total_nanoseconds / 1_000_000_000).map_err(|_| too_long())?;
        let below = u32::try_from(total_nanoseconds % 1_000_000_000).map_err(|_| too_long())?;
        Ok(Duration(std::time::Duration::new(seconds, below)))
    }
}

fn split_leading(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn length_of(unit: &str) -> Option<u128> {
    UNITS.iter().find(|(name, _)| *name == unit).map(|(_, length)| *length)
}

/// The units smaller than `unit`, which are those that may follow it.
fn units_after<'a>(left: &'a [(&'a str, u128)], unit: &str) -> Result<&'a [(&'a str, u128)], InvalidValue> {
    if unit.is_empty() {
        return Err(InvalidValue::new("a unit is missing: `s` for seconds, `ms` for milliseconds, `m` for minutes"));
    }
    match left.iter().position(|(name, _)| *name == unit) {
        Some(index) => Ok(left.get(index + 1..).unwrap_or_default()),
        None if length_of(unit).is_some() => {
            Err(InvalidValue::new("write the parts from the largest unit to the smallest, each once, as in `1m30s`"))
        }
        None => Err(InvalidValue::new("the units are d, h, m, s, ms, us and ns, as in `1m30s`")),
    }
}

fn too_long() -> InvalidValue {
    InvalidValue::new("it is too long")
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in UNITS {
            let count = rest / length;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest %= length;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        read_text(deserializer, "a duration such as `30s`")
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "duration",
            "pattern": "^([0-9]+(d|h|m|s|ms|us|ns))+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Duration, String> {
        text.parse::<Duration>().map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn every_documented_form_is_understood() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(parse("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse("0s"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_reason() {
        for (text, reason) in [
            ("30", "a unit is missing"),
            ("-5s", "cannot be negative"),
            ("", "empty"),
            ("s", "a number must stand before"),
            ("1.5s", "fractions"),
            ("30s1m", "largest unit to the smallest"),
            ("1s1s", "each once"),
            ("5 minutes", "a unit is missing"),
            ("5min", "the units are"),
            ("99999999999999999999999999999999999999999d", "too long"),
            ("340282366920938463463374607431768211455ns", "too long"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn prints_with_the_largest_units() {
        assert_eq!(Duration::from_secs(90).to_string(), "1m30s");
        assert_eq!(Duration::from_millis(1_500).to_string(), "1s500ms");
        assert_eq!(Duration::ZERO.to_string(), "0s");
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back_the_same(seconds in any::<u64>(), below in 0u32..1_000_000_000) {
            let duration = Duration(std::time::Duration::new(seconds, below));
            prop_assert_eq!(parse(&duration.to_string()), Ok(duration));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
