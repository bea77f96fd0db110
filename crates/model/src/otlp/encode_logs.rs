//! Encoding log records.

use bytes::Bytes;

use super::encode_common::{Containers, any_value, attributes};
use super::writer::Writer;
use crate::common::{Attribute, Attributes, Common, Value};
use crate::logs::{LogRecord, Logs};

/// Depth of a record, counted as in [`super::encode_common`].
pub(crate) const RECORD_DEPTH: u32 = 3;

/// Encodes an `ExportLogsServiceRequest`.
pub(crate) fn encode(logs: &Logs) -> Bytes {
    let common = &logs.common;
    // A guess that fits most: text once, and some bytes of keys and lengths around it.
    let once = common.arena.len() + 8 * common.attributes.len() + 80 * logs.records.len();
    let mut out = Writer::with_capacity(once + repeated_bytes(logs));
    let mut containers = Containers::new(common);
    for log in logs.records.iter().rev() {
        containers.enter(&mut out, log.scope);
        record(&mut out, common, log);
    }
    containers.finish(&mut out);
    out.finish()
}

/// Bytes of the attributes that records share with the one before: they are written again for each.
fn repeated_bytes(logs: &Logs) -> usize {
    let (mut shared, mut bytes, mut repeated) = (Attributes::EMPTY, 0, 0_usize);
    for record in &logs.records {
        if record.attributes == shared {
            repeated = repeated.saturating_add(bytes);
        } else {
            shared = record.attributes;
            bytes = logs.common.list(shared).iter().map(attribute_bytes).sum();
        }
    }
    repeated
}

/// About what an attribute takes; nested values are counted as if they were short.
fn attribute_bytes(attribute: &Attribute) -> usize {
    let value = match attribute.value {
        Value::String(text) | Value::Bytes(text) => text.len(),
        _ => 8,
    };
    attribute.key.len() + value + 12
}

fn record(out: &mut Writer, common: &Common, record: &LogRecord) {
    let arena = &common.arena;
    let end = out.begin();
    out.bytes_unless_empty(12, arena.bytes(record.event_name));
    out.fixed64(11, record.observed_time_unix_nano);
    out.bytes_unless_empty(10, arena.bytes(record.span_id));
    out.bytes_unless_empty(9, arena.bytes(record.trace_id));
    out.fixed32(8, record.flags);
    out.unsigned(7, record.dropped_attributes_count);
    attributes(out, common, 6, record.attributes, RECORD_DEPTH);
    if !matches!(record.body, Value::Empty) {
        any_value(out, common, 5, record.body, RECORD_DEPTH + 1);
    }
    out.bytes_unless_empty(3, arena.bytes(record.severity_text));
    out.signed(2, record.severity_number);
    out.fixed64(1, record.time_unix_nano);
    out.message(2, end);
}
