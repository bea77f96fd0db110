//! The guarantees of the dead letters, and what the tests share.

mod damage;
mod use_of_it;

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use redb::backends::FileBackend;
use serde_json::json;
use weir_model::{Encoding, Payload, Signal, otlp};

use super::store::Store;
use super::*;

fn payload(signal: Signal, request: &serde_json::Value) -> Payload {
    otlp::accept(signal, Encoding::Json, request.to_string().into()).unwrap()
}

fn shared() -> serde_json::Value {
    json!({"attributes": [{"key": "host.name", "value": {"stringValue": "web-1"}}]})
}

/// Log records whose bodies are numbers.
pub(super) fn logs(numbers: Range<u32>) -> Payload {
    let records: Vec<_> = numbers
        .map(|number| {
            json!({"timeUnixNano": "1760000000000000000", "severityText": "ERROR", "body": {"stringValue": number.to_string()},
                "attributes": [{"key": "file", "value": {"stringValue": format!("/var/log/{}", number % 3)}}]})
        })
        .collect();
    let scopes = json!([{"scope": {"name": "app"}, "logRecords": records}]);
    payload(Signal::Logs, &json!({"resourceLogs": [{"resource": shared(), "scopeLogs": scopes}]}))
}

/// Points of two metrics, one of them with a series per point.
pub(super) fn points(numbers: Range<u32>) -> Payload {
    let point = |number: &u32| {
        let labels = json!([{"key": "at", "value": {"intValue": number.to_string()}}]);
        json!({"timeUnixNano": (u64::from(*number) + 1).to_string(), "asDouble": 1.5, "attributes": labels})
    };
    let (even, odd): (Vec<u32>, Vec<u32>) = numbers.partition(|number| number % 2 == 0);
    let gauge = json!({"name": "a", "unit": "By", "gauge": {"dataPoints": even.iter().map(point).collect::<Vec<_>>()}});
    let sum = json!({"name": "b", "sum": {"dataPoints": odd.iter().map(point).collect::<Vec<_>>(),
        "aggregationTemporality": 2, "isMonotonic": true}});
    let scopes = json!([{"scope": {"name": "app"}, "metrics": [gauge, sum]}]);
    payload(Signal::Metrics, &json!({"resourceMetrics": [{"resource": shared(), "scopeMetrics": scopes}]}))
}

/// Spans with an event each.
pub(super) fn spans(numbers: Range<u32>) -> Payload {
    let spans: Vec<_> = numbers
        .map(|number| {
            json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": format!("{:016x}", number + 1), "name": "GET",
                "startTimeUnixNano": "1", "endTimeUnixNano": "2", "events": [{"timeUnixNano": "1", "name": format!("e{number}")}]})
        })
        .collect();
    let scopes = json!([{"scope": {"name": "app"}, "spans": spans}]);
    payload(Signal::Traces, &json!({"resourceSpans": [{"resource": shared(), "scopeSpans": scopes}]}))
}

/// A letter of an exporter and a source.
pub(super) fn letter(exporter: &str, source: &str, payload: Payload, refused: u64) -> Letter {
    Letter {
        source: source.into(),
        exporter: exporter.into(),
        payload,
        refused,
        reason: "mapper_parsing_exception".into(),
        status: Some(400),
        grpc_status: None,
        answer: Some("{\"error\":\"failed to parse\"}".into()),
    }
}

/// All log records of the numbers, refused.
fn refused(numbers: Range<u32>) -> Vec<Letter> {
    let count = u64::from(numbers.end - numbers.start);
    vec![letter("sink", "app", logs(numbers), count)]
}

/// Every letter, newest first.
fn all(letters: &DeadLetters) -> Vec<Summary> {
    letters.blocking().list(&Filter { limit: usize::MAX, ..Filter::default() }).unwrap().letters
}

/// The numbers of all log records, oldest letter first.
fn numbers(letters: &DeadLetters) -> Vec<u32> {
    let mut found = Vec::new();
    let visit = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line)?;
        for record in line["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap() {
            found.push(record["body"]["stringValue"].as_str().unwrap().parse().unwrap());
        }
        Ok(())
    };
    letters.blocking().export(&Selection::All, visit).unwrap();
    found
}

/// What the disk below a [`Faulty`] file does.
#[derive(Debug)]
pub(super) struct Faults {
    /// So many operations still succeed.
    left: AtomicI64,
    error: ErrorKind,
    /// Whether reading fails too.
    dead: bool,
    /// What the writes since the last sync replaced.
    undo: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl Faults {
    fn new(error: ErrorKind, dead: bool) -> Arc<Self> {
        Arc::new(Self { left: AtomicI64::new(i64::MAX), error, dead, undo: Mutex::default() })
    }

    fn fail_after(&self, operations: i64) {
        self.left.store(operations, Ordering::SeqCst);
    }

    fn step(&self) -> io::Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 { Ok(()) } else { Err(self.error.into()) }
    }

    /// Takes writes back that were not synced, each with even chance.
    fn lose_unsynced(&self, path: &Path, random: &mut fastrand::Rng) {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        for (offset, old) in self.undo.lock().unwrap().drain(..).rev() {
            if random.bool() {
                file.write_all_at(&old, offset).unwrap();
            }
        }
    }
}

/// A file on a disk that fails.
#[derive(Debug)]
pub(super) struct Faulty {
    inner: FileBackend,
    faults: Arc<Faults>,
}

impl Faulty {
    pub fn new(inner: FileBackend, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.faults.dead && self.faults.left.load(Ordering::SeqCst) <= 0 {
            return Err(self.faults.error.into());
        }
        self.inner.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.faults.step()?;
        self.inner.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        // The machine does not die, so nothing has to reach its disk.
        self.faults.step()?;
        self.faults.undo.lock().unwrap().clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.faults.step()?;
        let mut old = vec![0; data.len()];
        self.inner.read(offset, &mut old)?;
        self.faults.undo.lock().unwrap().push((offset, old));
        self.inner.write(offset, data)
    }
}

fn on_faulty_disk(folder: &Path, faults: &Arc<Faults>) -> DeadLetters {
    let mut store = Store::in_folder(folder);
    store.faults = Some(faults.clone());
    DeadLetters::new(store, Limits::default(), unix_ms)
}
