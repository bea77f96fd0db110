//! Decoding log records.

use bytes::Bytes;

use super::decode_common::{Decoder, Place, each_item, low_32_bits, low_signed};
use super::error::DecodeError;
use super::reader::{Range, WireType};
use crate::logs::{LogRecord, Logs};

struct LogsDecoder<'a> {
    decoder: Decoder<'a>,
    records: Vec<LogRecord>,
}

/// Decodes an `ExportLogsServiceRequest`.
pub(crate) fn decode(base: &Bytes) -> Result<Logs, DecodeError> {
    let mut logs = LogsDecoder { decoder: Decoder::new(base, base)?, records: Vec::new() };
    each_item(
        &mut logs,
        |logs| &mut logs.decoder,
        |logs, count| logs.records.reserve(count),
        |logs, range, place| logs.record(range, place),
    )?;
    Ok(Logs { common: logs.decoder.common, records: logs.records })
}

impl LogsDecoder<'_> {
    fn record(&mut self, range: Range, place: &mut Place) -> Result<(), DecodeError> {
        let decoder = &mut self.decoder;
        let mut record = LogRecord { scope: place.scope_index(decoder)?, ..LogRecord::default() };
        let mut body = None;
        let start = decoder.common.attributes.len();
        let mut reader = decoder.reader(range);
        while !reader.is_done() {
            match reader.key()? {
                (1, WireType::Fixed64) => record.time_unix_nano = reader.fixed64()?,
                (2, WireType::Varint) => record.severity_number = low_signed(reader.varint()?),
                (3, WireType::Length) => record.severity_text = decoder.text(&mut reader)?,
                (5, WireType::Length) => body = Some(reader.length()?),
                (6, WireType::Length) => decoder.attribute(reader.length()?)?,
                (7, WireType::Varint) => record.dropped_attributes_count = low_32_bits(reader.varint()?),
                (8, WireType::Fixed32) => record.flags = reader.fixed32()?,
                (9, WireType::Length) => record.trace_id = decoder.text(&mut reader)?,
                (10, WireType::Length) => record.span_id = decoder.text(&mut reader)?,
                (11, WireType::Fixed64) => record.observed_time_unix_nano = reader.fixed64()?,
                (12, WireType::Length) => record.event_name = decoder.text(&mut reader)?,
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        record.attributes = decoder.attributes_since(start)?;
        if let Some(body) = body {
            record.body = decoder.value(body)?;
        }
        self.records.push(record);
        Ok(())
    }
}
