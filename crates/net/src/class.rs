//! Classes of HTTP answers, the same for every backend unless it documents otherwise.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

/// What an HTTP status asks the sender to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// 2xx: taken.
    Success,
    /// 408, 425, 429 and 5xx: the same request may be taken later.
    Retry,
    /// 413: the request is too large, smaller ones may be taken.
    TooLarge,
    /// 401 and 403: the credentials are not right (yet).
    Unauthorized,
    /// Everything else: the same request will never be taken.
    Never,
}

impl StatusClass {
    /// The class of a status (RFC 9110 §15; 425 is RFC 8470, 429 is RFC 6585).
    pub fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            200..=299 => StatusClass::Success,
            401 | 403 => StatusClass::Unauthorized,
            413 => StatusClass::TooLarge,
            408 | 425 | 429 | 500..=599 => StatusClass::Retry,
            _ => StatusClass::Never,
        }
    }
}

/// The delay that a `Retry-After` header asks for, in seconds or as an HTTP date (RFC 9110 §10.2.3).
/// No delay (zero, a date in the past) and an unreadable value are none.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds)).filter(|delay| !delay.is_zero());
    }
    let at = httpdate::parse_http_date(value).ok()?;
    at.duration_since(now).ok().filter(|delay| !delay.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())])
    }

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(retry_after(&header("120"), now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(&header("Sun, 06 Nov 1994 08:50:07 GMT"), now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after(&header("Sun, 06 Nov 1994 08:00:00 GMT"), now), None);
        assert_eq!(retry_after(&header("0"), now), None);
        assert_eq!(retry_after(&header("soon"), now), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn statuses_fall_into_the_documented_classes() {
        for (status, class) in [
            (202, StatusClass::Success),
            (403, StatusClass::Unauthorized),
            (413, StatusClass::TooLarge),
            (429, StatusClass::Retry),
            (503, StatusClass::Retry),
            (301, StatusClass::Never),
            (404, StatusClass::Never),
        ] {
            assert_eq!(StatusClass::of(StatusCode::from_u16(status).unwrap()), class, "{status}");
        }
    }
}
