//! Bodies of the server's API: whatever comes is read without panic and in bounded memory, what is
//! accepted is finite and within its documented bounds, and what is refused says where.

#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use weir_model::metrics::Metrics;
use weir_server::error::{ApiError, Code};
use weir_server::ingest::custom::{self, Leaf};
use weir_server::ingest::time::{Clock, TOLERATED_AHEAD_MS};
use weir_server::ingest::{bodies, json};

/// Counts bytes that are allocated: at this moment, at most, and all together.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is left to the allocator of the system; only the sizes are added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TOTAL.fetch_add(layout.size(), Relaxed);
        PEAK.fetch_max(LIVE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as for the caller.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A reader may have so many bytes at once, and allocate so many, for every byte of the body: an object of one
/// byte-sized member takes a node of 632 bytes. What the builder of metrics begins with is added.
const PEAK_PER_BYTE: usize = 256;
const TOTAL_PER_BYTE: usize = 512;
const BEGIN_BYTES: usize = 256 << 10;

fn measured<T>(reader: &str, length: usize, read: impl FnOnce() -> Result<T, ApiError>) -> Option<T> {
    let (live, total) = (LIVE.load(Relaxed), TOTAL.load(Relaxed));
    PEAK.store(live, Relaxed);
    let result = read();
    let (peak, total) = (PEAK.load(Relaxed) - live, TOTAL.load(Relaxed) - total);
    assert!(peak <= BEGIN_BYTES + PEAK_PER_BYTE * length, "{reader}: {peak} bytes at once for {length}");
    assert!(total <= BEGIN_BYTES + TOTAL_PER_BYTE * length, "{reader}: {total} bytes in all for {length}");
    result.map_err(|error| says_where(reader, &error)).ok()
}

/// A refusal names the field; it is short and fits on a line, whatever the names in the body are.
fn says_where(reader: &str, error: &ApiError) {
    let error = error.body();
    assert!(error.message.len() <= 16 << 10, "{reader}: an error of {} bytes", error.message.len());
    assert!(!error.message.chars().any(char::is_control), "{reader}: {:?}", error.message);
    match error.code {
        Code::InvalidJson | Code::TooLarge => {}
        Code::InvalidField => {
            let field = error.field.as_deref().unwrap_or_default();
            assert!(!field.is_empty() && error.message.starts_with(field), "{reader}: {error:?}");
        }
        _ => panic!("{reader}: {error:?}"),
    }
}

/// 2026-01-01T12:00:00Z
const CLOCK: Clock = Clock { now_ms: 1_767_268_800_000, retention_ms: 30 * 86_400_000 };

const FRACTIONS: [&str; 4] =
    ["system.cpu.utilization", "system.memory.utilization", "system.filesystem.utilization", "agent.error_rate"];

fn are_sound(reader: &str, metrics: &Metrics, length: usize) {
    assert!(metrics.len() <= length, "{reader}: every value takes a byte");
    let (table, common) = (&metrics.table, &metrics.table.common);
    for point in metrics.numbers.iter() {
        let name = common.text(table.metric_of(point.series).expect("its metric").name);
        assert!(name.len() <= 257 && !name.chars().any(char::is_control), "{reader}: {name:?}");
        let value = point.value.as_f64().expect("a number");
        let is_in_range = match name {
            _ if FRACTIONS.contains(&name) => (0.0..=1.0).contains(&value),
            _ if ["custom.", "finops."].iter().any(|start| name.starts_with(start)) => value.is_finite(),
            _ => value.is_finite() && value >= 0.0,
        };
        assert!(is_in_range, "{reader}: {name} {value}");
        let ms = i64::try_from(point.time_unix_nano / 1_000_000).expect("a time");
        assert!((CLOCK.now_ms - CLOCK.retention_ms..=CLOCK.now_ms + TOLERATED_AHEAD_MS).contains(&ms), "{reader}: {ms}");
    }
    for attribute in &common.attributes {
        is_text(reader, &common.value_text(attribute.value), 256);
    }
}

fn is_text(reader: &str, text: &str, limit: usize) {
    assert!(text.len() <= limit && !text.contains('\0'), "{reader}: {text:?}");
}

fn is_name(reader: &str, text: &str, limit: usize) {
    is_text(reader, text, limit);
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "{reader}: {text:?}");
}

fn are_names<'a>(reader: &str, texts: impl IntoIterator<Item = &'a Option<String>>, limit: usize) {
    texts.into_iter().flatten().for_each(|text| is_name(reader, text, limit));
}

/// PostgreSQL keeps no NUL.
fn has_no_nul(reader: &str, value: &Value) {
    match value {
        Value::String(text) => is_text(reader, text, usize::MAX),
        Value::Array(items) => items.iter().for_each(|item| has_no_nul(reader, item)),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            is_text(reader, key, usize::MAX);
            has_no_nul(reader, value);
        }),
        _ => {}
    }
}

fn read_metrics(body: &Value, length: usize) {
    for (reader, read) in [
        ("agentops", bodies::agentops as fn(&Value, &Clock) -> Result<Metrics, ApiError>),
        ("agent_monitor", bodies::agent_monitor),
        ("openfinops", bodies::openfinops),
    ] {
        if let Some(metrics) = measured(reader, length, || read(body, &CLOCK)) {
            are_sound(reader, &metrics, length);
        }
    }
    if let Some(Some(metrics)) = measured("websocket", length, || bodies::websocket(body, &CLOCK)) {
        are_sound("websocket", &metrics, length);
    }
}

fn read_metadata(body: &Value, length: usize) {
    for alert in measured("alerts", length, || bodies::alerts(body, &CLOCK)).into_iter().flatten() {
        is_name("alerts", &alert.id, 32);
        assert!(!alert.title.is_empty());
        is_text("alerts", &alert.title, 1024);
        is_name("alerts", &alert.source, 1024);
        are_names("alerts", [&alert.severity, &alert.status, &alert.fingerprint], 1024);
        has_no_nul("alerts", &alert.body);
    }
    if let Some(read) = measured("registration", length, || bodies::registration(body)) {
        are_names("registration", [&read.agent.id], 128);
        is_name("registration", &read.agent.hostname, 255);
        let told = [&read.agent.agent_type, &read.agent.version, &read.environment, &read.location, &read.ip_address];
        are_names("registration", told, 255);
        assert!(read.agent.tags.len() <= 64);
        read.agent.tags.iter().for_each(|tag| is_name("registration", tag, 256));
        read.agent.attributes.iter().for_each(|(key, value)| {
            is_text("registration", key, usize::MAX);
            has_no_nul("registration", value);
        });
    }
    if let Some(kept) = measured("heartbeat", length, || bodies::heartbeat(body.clone())) {
        has_no_nul("heartbeat", &kept);
    }
    if let Some(new) = measured("server", length, || bodies::server(body)) {
        is_name("server", &new.hostname, 255);
        are_names("server", [&new.id, &new.ip_address, &new.environment, &new.location], 255);
        new.tags.iter().for_each(|tag| is_name("server", tag, 256));
    }
    if let Some(patch) = measured("server patch", length, || bodies::server_patch(body)) {
        are_names("server patch", [&patch.hostname], 255);
        are_names("server patch", [patch.ip_address, patch.environment, patch.location].iter().flatten(), 255);
    }
    if let Some(key) = measured("key", length, || bodies::key(body)) {
        is_name("key", &key.name, 200);
    }
    if let Some(token) = measured("token", length, || bodies::token(body)) {
        assert!((1..=1000).contains(&token.uses), "{}", token.uses);
        is_text("token", &token.name, 200);
    }
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(leaves).sum(),
        Value::Object(map) => map.values().map(leaves).sum(),
        _ => 1,
    }
}

/// Values under any names come back, every one.
fn come_back(body: &Value) {
    let mut found = std::collections::BTreeMap::new();
    if custom::flatten(body, "", "body", &mut found).is_err() {
        return;
    }
    let count = found.len();
    let values = found.into_iter().map(|(path, leaf)| {
        let value = match leaf {
            Leaf::Number(number) => custom::of_sample(None, None, number),
            Leaf::Bool(flag) => custom::of_sample(Some("bool"), None, f64::from(u8::from(flag))),
            Leaf::Text(text) => custom::of_sample(None, Some(&text), 1.0),
        };
        (path, value)
    });
    let nested = Value::Object(custom::nested(values.collect()));
    assert_eq!(leaves(&nested), count, "{nested}");
}

fuzz_target!(|bytes: &[u8]| {
    let Some(body) = measured("json", bytes.len(), || json::parse(bytes)) else { return };
    read_metrics(&body, bytes.len());
    read_metadata(&body, bytes.len());
    if let Some((steps, texts)) = measured("query", bytes.len(), || bodies::query(&body)) {
        assert!((1..=3000).contains(&steps), "{steps}");
        texts.iter().for_each(|text| is_text("query", text, 1024));
    }
    come_back(&body);
});
