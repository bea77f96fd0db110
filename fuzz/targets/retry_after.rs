//! `Retry-After`: seconds as they stand there, dates never in the past.

#![no_main]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
use libfuzzer_sys::fuzz_target;
use weir_net::retry_after;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let delay = retry_after(&headers, now);
    assert_eq!(retry_after(&headers, now), delay, "it depends on nothing else");
    if let Some(seconds) = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<u64>().ok()) {
        assert_eq!(delay, Some(Duration::from_secs(seconds)));
    }
});
