//! Decoding log records from OTLP/JSON.

use bytes::Bytes;

use super::error::DecodeError;
use super::json_decode_common::{JsonDecoder, LOGS_KEYS, decode_with};
use crate::logs::{LogRecord, Logs};

/// Decodes an `ExportLogsServiceRequest`.
pub(crate) fn decode(bytes: &Bytes) -> Result<Logs, DecodeError> {
    let (common, records) = decode_with(bytes, |decoder| {
        let mut records = Vec::new();
        decoder.each_item(&LOGS_KEYS, &mut |decoder, scope| {
            records.push(record(decoder, scope)?);
            Ok(1)
        })?;
        Ok(records)
    })?;
    Ok(Logs { common, records })
}

fn record(decoder: &mut JsonDecoder<'_>, scope: u32) -> Result<LogRecord, DecodeError> {
    let mut record = LogRecord { scope, ..LogRecord::default() };
    let mut object = decoder.json.object()?;
    while let Some(key) = decoder.json.key(&mut object)? {
        match &*key {
            "timeUnixNano" => record.time_unix_nano = decoder.json.u64()?,
            "observedTimeUnixNano" => record.observed_time_unix_nano = decoder.json.u64()?,
            "severityNumber" => record.severity_number = decoder.json.i32()?,
            "severityText" => record.severity_text = decoder.text()?,
            "body" => record.body = decoder.value()?,
            "attributes" => record.attributes = decoder.attributes()?,
            "droppedAttributesCount" => record.dropped_attributes_count = decoder.json.u32()?,
            "flags" => record.flags = decoder.json.u32()?,
            "traceId" => record.trace_id = decoder.id()?,
            "spanId" => record.span_id = decoder.id()?,
            "eventName" => record.event_name = decoder.text()?,
            _ => decoder.json.skip()?,
        }
    }
    Ok(record)
}
