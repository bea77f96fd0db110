//! OTLP, protobuf and JSON, both directions. Schema: opentelemetry-proto 1.9.
//!
//! The codec is Weir's own for two reasons. Decoding text as ranges of the received buffer allocates
//! nothing per record; and requests that pass through undecoded still need to be checked and
//! counted, which [`accept`] does in one walk.
//!
//! What is kept and what is not:
//! - Every field of metrics, logs and traces survives, in order. Fields of a resource that the model
//!   does not name (`entity_refs`) are kept as wire bytes; other unknown fields are dropped when a
//!   batch is decoded and encoded again, and survive in pass-through.
//! - Containers without records (a resource without scopes, a scope without records, a metric without
//!   points) are not records and are not kept.
//! - A resource message with no content equals none; so do an attribute without value and one with
//!   an empty value. A scope message with no content is kept.
//! - A field that appears twice: the last one wins, for numbers, text and single messages alike;
//!   protobuf would merge two messages of one field, which no encoder produces. A metric's data is
//!   the exception, because its points are counted: the same field twice is one list.
//! - An aggregation temporality that the schema does not name becomes unspecified. Other
//!   enumerations keep their numbers.
//!
//! Accepting agrees with prost, the reference decoder for Rust: what one takes, the other takes. So
//! messages may be nested 100 levels below the request, in JSON too: a log body holds 48 arrays or
//! 32 key and value lists inside each other.

mod decode_common;
mod decode_logs;
mod decode_metrics;
mod decode_traces;
mod encode_common;
mod encode_logs;
mod encode_metrics;
mod encode_traces;
mod error;
mod grouping;
mod json_decode_common;
mod json_decode_logs;
mod json_decode_metrics;
mod json_decode_traces;
mod json_encode_common;
mod json_encode_logs;
mod json_encode_metrics;
mod json_encode_traces;
mod json_reader;
mod json_writer;
mod reader;
mod schema;
mod walk;
mod writer;

use bytes::Bytes;

use crate::batch::{Encoding, Payload, Records, Signal, Wire};

pub use error::DecodeError;
use error::Fault;

/// Checks an export request completely and counts its records. Protobuf stays undecoded; JSON is
/// decoded, because checking it costs as much. The payload keeps the bytes in both cases.
///
/// # Errors
/// [`DecodeError`] if the bytes are not an export request of that signal.
pub fn accept(signal: Signal, encoding: Encoding, bytes: Bytes) -> Result<Payload, DecodeError> {
    // Ranges are 32 bits wide.
    u32::try_from(bytes.len()).map_err(|_| DecodeError::new(Fault::TooLarge))?;
    let wire = Wire { encoding, bytes };
    match encoding {
        Encoding::Protobuf => {
            let records = walk::check(signal, &wire.bytes)?;
            Ok(Payload::from_wire(signal, wire, records))
        }
        Encoding::Json => {
            let records = decode(signal, &wire)?;
            Ok(Payload::from_decoded_wire(wire, records))
        }
    }
}

/// Decodes an export request. Text of protobuf is not checked to be UTF-8 again: [`accept`] did.
///
/// # Errors
/// [`DecodeError`] if the bytes are not an export request of that signal.
pub fn decode(signal: Signal, wire: &Wire) -> Result<Records, DecodeError> {
    match wire.encoding {
        Encoding::Protobuf => {
            let decoded = match signal {
                Signal::Metrics => decode_metrics::decode(&wire.bytes).map(Records::Metrics),
                Signal::Logs => decode_logs::decode(&wire.bytes).map(Records::Logs),
                Signal::Traces => decode_traces::decode(&wire.bytes).map(Records::Traces),
            };
            // The walk knows where the damage is; decoding only knows the byte.
            decoded.map_err(|error| walk::check(signal, &wire.bytes).err().unwrap_or(error))
        }
        Encoding::Json => match signal {
            Signal::Metrics => json_decode_metrics::decode(&wire.bytes).map(Records::Metrics),
            Signal::Logs => json_decode_logs::decode(&wire.bytes).map(Records::Logs),
            Signal::Traces => json_decode_traces::decode(&wire.bytes).map(Records::Traces),
        },
    }
}

/// Encodes records as a protobuf export request.
pub fn encode_protobuf(records: &Records) -> Bytes {
    match records {
        Records::Metrics(metrics) => encode_metrics::encode(metrics),
        Records::Logs(logs) => encode_logs::encode(logs),
        Records::Traces(traces) => encode_traces::encode(traces),
    }
}

/// Encodes records as an OTLP/JSON export request.
pub fn encode_json(records: &Records) -> Bytes {
    let json = match records {
        Records::Metrics(metrics) => json_encode_metrics::encode(metrics),
        Records::Logs(logs) => json_encode_logs::encode(logs),
        Records::Traces(traces) => json_encode_traces::encode(traces),
    };
    Bytes::from(json)
}

/// The chunks of one protobuf request that holds the records of all payloads, to be sent one after
/// another: a request is one repeated field, so concatenation merges. Copies nothing.
///
/// `None` if there is a payload without protobuf wire form, or if the signals differ.
pub fn merge(payloads: &[Payload]) -> Option<Vec<Bytes>> {
    let signal = payloads.first()?.signal();
    payloads
        .iter()
        .map(|payload| match payload.wire() {
            Some(Wire { encoding: Encoding::Protobuf, bytes }) if payload.signal() == signal => Some(bytes.clone()),
            _ => None,
        })
        .collect()
}
