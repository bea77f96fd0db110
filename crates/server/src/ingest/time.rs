//! Timestamps as clients write them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::json::{self, Object};
use crate::error::{ApiError, Code};

/// Clocks of senders may be ahead by this much, milliseconds.
pub const TOLERATED_AHEAD_MS: i64 = 5 * 60 * 1000;

/// Numbers above these are milliseconds, microseconds, nanoseconds; in seconds they would be the year 5138 and later.
const MILLISECONDS_ABOVE: f64 = 1e11;
const MICROSECONDS_ABOVE: f64 = 1e14;
const NANOSECONDS_ABOVE: f64 = 1e17;

/// Which timestamps are taken.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Now, unix milliseconds.
    pub now_ms: i64,
    /// How long metrics are kept, milliseconds.
    pub retention_ms: i64,
}

/// When something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instant {
    /// Unix milliseconds.
    pub ms: i64,
    /// Whether it lay so far in the future that it was set to now.
    pub clamped: bool,
}

impl Clock {
    /// The time of a member, or now.
    ///
    /// # Errors
    /// If it is no time, or older than what is kept.
    pub fn instant(&self, object: &Object<'_>, key: &str) -> Result<Instant, ApiError> {
        let Some(value) = object.value(key) else { return Ok(Instant { ms: self.now_ms, clamped: false }) };
        let expected = "a time in ISO 8601 or seconds since 1970";
        let ms = unix_ms(value).ok_or_else(|| json::wrong(&object.path_of(key), expected, value))?;
        if ms > self.now_ms.saturating_add(TOLERATED_AHEAD_MS) {
            return Ok(Instant { ms: self.now_ms, clamped: true });
        }
        if ms < self.now_ms.saturating_sub(self.retention_ms) {
            let days = self.retention_ms / 86_400_000;
            let expected = format!("a time within the last {days} days, which is how long metrics are kept");
            return Err(json::wrong(&object.path_of(key), &expected, value));
        }
        Ok(Instant { ms, clamped: false })
    }
}

/// Unix milliseconds of ISO 8601 text (without an offset it is UTC) or of a number since 1970, whose
/// unit its size tells.
pub fn unix_ms(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => of_number(number.as_f64()?),
        Value::String(text) => of_text(text.trim()),
        _ => None,
    }
}

fn of_number(number: f64) -> Option<i64> {
    let ms = match number {
        n if n > NANOSECONDS_ABOVE => n / 1e6,
        n if n > MICROSECONDS_ABOVE => n / 1e3,
        n if n > MILLISECONDS_ABOVE => n,
        n => n * 1e3,
    };
    // The range is checked: nothing is cut off.
    (ms.is_finite() && ms > 0.0 && ms < 9e15).then(|| ms.round() as i64)
}

fn of_text(text: &str) -> Option<i64> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.as_millisecond());
    }
    if let Ok(naive) = text.parse::<DateTime>() {
        return naive.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond());
    }
    of_number(text.parse().ok()?)
}

/// RFC 3339 in UTC.
pub fn rfc3339(unix_ms: i64) -> String {
    // Times in the store were checked when they came; the year 1970 stands for what cannot be shown.
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// The milliseconds of a query's `hours`.
///
/// # Errors
/// If it is not above 0, or longer than a hundred years.
pub fn hours_ms(hours: f64) -> Result<i64, ApiError> {
    if hours > 0.0 && hours <= 876_600.0 {
        return Ok((hours * 3_600_000.0) as i64);
    }
    let expected = "hours above 0, at most 876600";
    let mut error = ApiError::field("hours", expected, &hours.to_string());
    if !hours.is_finite() {
        error = ApiError::new(Code::InvalidField, format!("hours: expected {expected}"));
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOON_MS: i64 = 1_767_268_800_000; // 2026-01-01T12:00:00Z
    const CLOCK: Clock = Clock { now_ms: NOON_MS, retention_ms: 30 * 86_400_000 };

    fn taken(value: Value) -> Result<Instant, ApiError> {
        let body = json!({"timestamp": value});
        CLOCK.instant(&Object::of(&body, "metrics[1]").unwrap(), "timestamp")
    }

    #[test]
    fn every_spelling_of_a_time_is_the_same_instant() {
        for value in [
            json!("2026-01-01T12:00:00Z"),
            json!("2026-01-01T12:00:00"),
            json!("2026-01-01 12:00:00.000"),
            json!("2026-01-01T13:00:00+01:00"),
            json!(1_767_268_800),
            json!(1_767_268_800.0),
            json!("1767268800"),
            json!(NOON_MS),
            json!(1_767_268_800_000_000_000_u64),
            Value::Null,
        ] {
            assert_eq!(taken(value.clone()).unwrap(), Instant { ms: NOON_MS, clamped: false }, "{value}");
        }
        // What Python's datetime.utcnow().isoformat() writes.
        assert_eq!(taken(json!("2026-01-01T11:59:59.123456")).unwrap().ms, NOON_MS - 877);
    }

    #[test]
    fn a_time_ahead_is_kept_within_tolerance_and_set_to_now_beyond() {
        assert_eq!(taken(json!("2026-01-01T12:05:00Z")).unwrap().ms, NOON_MS + 300_000);
        assert_eq!(taken(json!("2026-01-01T12:05:01Z")).unwrap(), Instant { ms: NOON_MS, clamped: true });
        assert_eq!(taken(json!("2031-01-01T12:05:01Z")).unwrap(), Instant { ms: NOON_MS, clamped: true });
    }

    #[test]
    fn a_time_before_the_retention_is_refused_with_its_path() {
        let error = taken(json!("2025-11-01T12:00:00")).unwrap_err();
        assert_eq!(error.body().field.as_deref(), Some("metrics[1].timestamp"));
        assert!(error.body().message.contains("within the last 30 days"));
        for broken in [json!("yesterday"), json!([]), json!(-5), json!(""), json!(true), json!(1e300)] {
            assert!(taken(broken).is_err());
        }
    }

    #[test]
    fn hours_have_bounds() {
        assert_eq!(hours_ms(24.0).unwrap(), 86_400_000);
        for wrong in [0.0, -1.0, 1e9, f64::NAN, f64::INFINITY] {
            assert!(hours_ms(wrong).is_err());
        }
    }
}
