//! Times as logs write them.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, fmt::strtime};

/// How a time is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimeFormat {
    /// ISO 8601 with its many relatives, RFC 3164, or the common log format: told apart by looking.
    Auto,
    /// Unix time in units of this many nanoseconds, perhaps with a fraction.
    Unix(u32),
    /// A strftime pattern.
    Pattern(String),
}

impl TimeFormat {
    /// The format that a configuration names.
    ///
    /// # Errors
    /// What is wrong with a pattern.
    pub fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "" | "auto" => TimeFormat::Auto,
            "unix" => TimeFormat::Unix(1_000_000_000),
            "unix_ms" => TimeFormat::Unix(1_000_000),
            "unix_us" => TimeFormat::Unix(1_000),
            "unix_ns" => TimeFormat::Unix(1),
            pattern if pattern.contains('%') => TimeFormat::Pattern(pattern.to_owned()),
            other => {
                return Err(format!(
                    "`time_format` is `{other}`: use `auto`, `unix`, `unix_ms`, `unix_us`, `unix_ns` or a pattern such as `%Y-%m-%d %H:%M:%S`"
                ));
            }
        })
    }

    /// The time that a text says, unix nanoseconds.
    pub fn read(&self, text: &str, clock: &Clock) -> Option<u64> {
        match self {
            TimeFormat::Auto => clock.leading(text.trim_start()).map(|(time, _)| time),
            TimeFormat::Unix(unit) => unix(text.trim(), *unit),
            TimeFormat::Pattern(pattern) => clock.by_pattern(pattern, text),
        }
    }
}

/// Decimal digits and fraction, exactly: a double would lose nanoseconds.
fn unix(text: &str, unit_nanoseconds: u32) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut nanoseconds = whole.parse::<u64>().ok()?.checked_mul(u64::from(unit_nanoseconds))?;
    let mut unit = unit_nanoseconds;
    for digit in fraction.chars() {
        unit /= 10;
        nanoseconds = nanoseconds.checked_add(u64::from(digit.to_digit(10)?.checked_mul(unit)?))?;
    }
    Some(nanoseconds)
}

/// What is needed to complete a time that leaves out its zone or year.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The zone of times without one.
    pub zone: TimeZone,
    /// Now, unix nanoseconds.
    pub now_unix_nano: u64,
}

impl Clock {
    /// The time at the beginning of a text, unix nanoseconds, and where it ends.
    pub fn leading(&self, text: &str) -> Option<(u64, usize)> {
        let first = *text.as_bytes().first()?;
        if first.is_ascii_digit() {
            return self.iso(text).or_else(|| self.common_log(text));
        }
        if first.is_ascii_uppercase() { self.rfc3164(text) } else { None }
    }

    /// `2026-01-02T03:04:05.678Z` and relatives: `/` in the date, a blank for the `T`, `,` before the
    /// fraction, offsets with and without colon or blank, no zone.
    fn iso(&self, text: &str) -> Option<(u64, usize)> {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
        let year = reader.digits(4)?;
        let separator = reader.one_of(b"-/.")?;
        let month = reader.digits(2)?;
        reader.one_of(&[separator])?;
        let day = reader.digits(2)?;
        reader.one_of(b"Tt _")?;
        let time = reader.time()?;
        let date = date(year, month, day)?;
        let end = reader.at;
        match reader.offset() {
            Some(offset) => Some((at_offset(date.to_datetime(time), offset)?, reader.at)),
            None => Some((self.local(date.to_datetime(time))?, end)),
        }
    }

    /// `02/Jan/2026:03:04:05 +0100`, as access logs write it.
    pub fn common_log(&self, text: &str) -> Option<(u64, usize)> {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
        let day = reader.digits(2)?;
        reader.one_of(b"/")?;
        let month = reader.month()?;
        reader.one_of(b"/")?;
        let year = reader.digits(4)?;
        reader.one_of(b":")?;
        let time = reader.time()?;
        let offset = reader.offset()?;
        Some((at_offset(date(year, month, day)?.to_datetime(time), offset)?, reader.at))
    }

    /// `Jan  2 03:04:05` in the receiver's zone. The year is the last one in which that moment is not
    /// more than a day ahead: a line of New Year's Eve is often read on New Year's Day.
    pub fn rfc3164(&self, text: &str) -> Option<(u64, usize)> {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
        let month = reader.month()?;
        reader.one_of(b" ")?;
        let day = match reader.one_of(b" ") {
            Some(_) => reader.digits(1)?,
            None => reader.digits(2).or_else(|| reader.digits(1))?,
        };
        reader.one_of(b" ")?;
        let time = reader.time()?;
        let now = Timestamp::from_nanosecond(i128::from(self.now_unix_nano)).ok()?;
        let this_year = now.to_zoned(self.zone.clone()).year();
        let tomorrow = self.now_unix_nano.saturating_add(86_400_000_000_000);
        // 29 February is only in some years: look back as far as the longest gap between two.
        (0..=8)
            .find_map(|back| {
                let date = Date::new(this_year - back, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
                self.local(date.to_datetime(time)).filter(|time| *time <= tomorrow)
            })
            .map(|time| (time, reader.at))
    }

    fn by_pattern(&self, pattern: &str, text: &str) -> Option<u64> {
        let parsed = strtime::parse(pattern, text).ok()?;
        if let Ok(time) = parsed.to_timestamp() {
            return nanoseconds(time);
        }
        self.local(parsed.to_datetime().ok()?)
    }

    fn local(&self, time: DateTime) -> Option<u64> {
        nanoseconds(self.zone.to_ambiguous_timestamp(time).compatible().ok()?)
    }
}

fn date(year: u32, month: u32, day: u32) -> Option<Date> {
    Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

fn at_offset(time: DateTime, offset: Offset) -> Option<u64> {
    nanoseconds(offset.to_timestamp(time).ok()?)
}

fn nanoseconds(time: Timestamp) -> Option<u64> {
    u64::try_from(time.as_nanosecond()).ok()
}

/// Reads a time byte by byte.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + count)?;
        let number = digits
            .iter()
            .try_fold(0_u32, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u32::from(*digit - b'0')))?;
        self.at += count;
        Some(number)
    }

    fn one_of(&mut self, expected: &[u8]) -> Option<u8> {
        let found = self.peek().filter(|byte| expected.contains(byte))?;
        self.at += 1;
        Some(found)
    }

    fn month(&mut self) -> Option<u32> {
        const MONTHS: [&[u8; 3]; 12] =
            [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
        let name = self.bytes.get(self.at..self.at + 3)?;
        let month = MONTHS.iter().position(|month| *month == name)?;
        self.at += 3;
        u32::try_from(month + 1).ok()
    }

    /// `03:04:05` with a fraction of up to nine digits behind `.` or `,`.
    fn time(&mut self) -> Option<Time> {
        let hour = self.digits(2)?;
        self.one_of(b":")?;
        let minute = self.digits(2)?;
        self.one_of(b":")?;
        let second = self.digits(2)?;
        let mut nanosecond = 0;
        if matches!(self.peek(), Some(b'.' | b',')) && self.bytes.get(self.at + 1).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
            let mut unit = 100_000_000;
            while let Some(digit) = self.digits(1) {
                nanosecond += i32::try_from(digit).ok()? * unit;
                unit /= 10;
            }
        }
        let part = |number: u32| i8::try_from(number).ok();
        Time::new(part(hour)?, part(minute)?, part(second)?, nanosecond).ok()
    }

    /// `Z`, `+01:00`, `+0100` or `+01`, perhaps behind a blank.
    fn offset(&mut self) -> Option<Offset> {
        let start = self.at;
        let offset = self.offset_here();
        if offset.is_none() {
            self.at = start;
        }
        offset
    }

    fn offset_here(&mut self) -> Option<Offset> {
        self.one_of(b" ");
        if self.one_of(b"Zz").is_some() {
            return Some(Offset::UTC);
        }
        let sign = self.one_of(b"+-")?;
        let hours = self.digits(2)?;
        let colon = self.one_of(b":").is_some();
        let minutes = match self.digits(2) {
            Some(minutes) => minutes,
            None if colon => return None,
            None => 0,
        };
        let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
        Offset::from_seconds(if sign == b'-' { -seconds } else { seconds }).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        Clock { zone: TimeZone::get("Europe/Berlin").unwrap(), now_unix_nano: nanoseconds(now).unwrap() }
    }

    fn utc(text: &str) -> u64 {
        nanoseconds(text.parse::<Timestamp>().unwrap()).unwrap()
    }

    #[test]
    fn every_way_to_write_a_time_is_told_apart_by_looking() {
        for (text, expected) in [
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
            ("2026-01-02T03:04:05.123456789+01:00 x", "2026-01-02T02:04:05.123456789Z"),
            ("2026-01-02 03:04:05,123 ERROR", "2026-01-02T02:04:05.123Z"),
            ("2026/01/02 03:04:05 [error]", "2026-01-02T02:04:05Z"),
            ("2026-01-02 03:04:05 +0530", "2026-01-01T21:34:05Z"),
            ("02/Jan/2026:03:04:05 -0800", "2026-01-02T11:04:05Z"),
            ("Jan  2 03:04:05 host", "2026-01-02T02:04:05Z"),
            ("Jan 02 03:04:05 host", "2026-01-02T02:04:05Z"),
            ("Dec 31 23:59:59 host", "2025-12-31T22:59:59Z"),
            ("Feb 29 00:00:00 host", "2024-02-28T23:00:00Z"),
            ("Jan  3 11:00:00 ahead", "2026-01-03T10:00:00Z"),
        ] {
            assert_eq!(clock().leading(text).map(|found| found.0), Some(utc(expected)), "{text}");
        }
        for text in ["", "2026-13-02T03:04:05Z", "2026-01-02", "Jam  2 03:04:05", "99:99", "ü", "2026-01-02T25:00:00Z"]
        {
            assert_eq!(clock().leading(text), None, "{text}");
        }
    }

    #[test]
    fn unix_times_keep_every_digit() {
        let read = |name: &str, text: &str| TimeFormat::named(name).unwrap().read(text, &clock());
        assert_eq!(read("unix", "1767323045.123456789"), Some(1_767_323_045_123_456_789));
        assert_eq!(read("unix_ms", "1767323045123"), Some(1_767_323_045_123_000_000));
        assert_eq!(read("unix_us", "1767323045123456"), Some(1_767_323_045_123_456_000));
        assert_eq!(read("unix_ns", "1767323045123456789"), Some(1_767_323_045_123_456_789));
        assert_eq!(read("unix", "-5"), None);
        assert_eq!(read("unix", "99999999999999"), None);
        assert_eq!(read("%d.%m.%Y %H:%M:%S", "02.01.2026 03:04:05"), Some(utc("2026-01-02T02:04:05Z")));
        assert_eq!(read("%Y-%m-%d %H:%M:%S %z", "2026-01-02 03:04:05 +0000"), Some(utc("2026-01-02T03:04:05Z")));
        assert!(TimeFormat::named("rfc").is_err());
    }
}
