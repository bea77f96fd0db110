//! Encoding log records as OTLP/JSON.

use super::encode_logs::RECORD_DEPTH;
use super::json_decode_common::LOGS_KEYS;
use super::json_encode_common::{JsonContainers, any_value, attributes};
use super::json_writer::JsonWriter;
use crate::common::{Common, Value};
use crate::logs::{LogRecord, Logs};

/// Encodes an `ExportLogsServiceRequest`.
pub(crate) fn encode(logs: &Logs) -> Vec<u8> {
    let common = &logs.common;
    let mut out = JsonWriter::with_capacity(2 * common.arena.len() + 256);
    let mut containers = JsonContainers::new(&mut out, common, &LOGS_KEYS);
    for log in &logs.records {
        containers.enter(&mut out, log.scope);
        record(&mut out, common, log);
    }
    containers.finish(&mut out);
    out.finish()
}

fn record(out: &mut JsonWriter, common: &Common, record: &LogRecord) {
    out.open(b'{');
    out.long("timeUnixNano", record.time_unix_nano);
    out.long("observedTimeUnixNano", record.observed_time_unix_nano);
    out.number("severityNumber", record.severity_number.into());
    out.text("severityText", common.text(record.severity_text));
    if !matches!(record.body, Value::Empty) {
        out.key("body");
        any_value(out, common, record.body, RECORD_DEPTH + 1);
    }
    attributes(out, common, "attributes", record.attributes, RECORD_DEPTH);
    out.number("droppedAttributesCount", record.dropped_attributes_count.into());
    out.number("flags", record.flags.into());
    out.id("traceId", common.arena.bytes(record.trace_id));
    out.id("spanId", common.arena.bytes(record.span_id));
    out.text("eventName", common.text(record.event_name));
    out.close(b'}');
}
