//! What OTLP servers say besides data: `google.rpc.Status`, `RetryInfo` and partial success.
//!
//! Four messages of two or three fields each, so they are written by hand instead of generated.
//! Sources: googleapis `google/rpc/{status,code,error_details}.proto`, opentelemetry-proto
//! `collector/*/v1/*_service.proto`.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use weir_model::{Encoding, Signal};

/// A canonical code of gRPC (`google/rpc/code.proto`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// Codes in the order of their numbers, with the names that people find in documentation.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "CANCELLED"),
    (Code::Unknown, "UNKNOWN"),
    (Code::InvalidArgument, "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (Code::NotFound, "NOT_FOUND"),
    (Code::AlreadyExists, "ALREADY_EXISTS"),
    (Code::PermissionDenied, "PERMISSION_DENIED"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION"),
    (Code::Aborted, "ABORTED"),
    (Code::OutOfRange, "OUT_OF_RANGE"),
    (Code::Unimplemented, "UNIMPLEMENTED"),
    (Code::Internal, "INTERNAL"),
    (Code::Unavailable, "UNAVAILABLE"),
    (Code::DataLoss, "DATA_LOSS"),
    (Code::Unauthenticated, "UNAUTHENTICATED"),
];

impl Code {
    /// The code of a number; numbers that nobody has defined are UNKNOWN, as gRPC asks for.
    pub(super) fn of_number(number: u64) -> Code {
        CODES.iter().find(|(code, _)| code.number() == number).map_or(Code::Unknown, |(code, _)| *code)
    }

    /// Its number on the wire.
    pub(super) fn number(self) -> u64 {
        self as u64
    }

    /// Its name, for example `UNAVAILABLE`.
    pub(super) fn name(self) -> &'static str {
        CODES.iter().find(|(code, _)| *code == self).map_or("UNKNOWN", |(_, name)| name)
    }
}

impl fmt::Display for Code {
    /// For example `UNAVAILABLE (14)`: documentation names codes in both ways.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.number())
    }
}

/// A `google.rpc.Status`, of its details only the `RetryInfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The class of the error.
    pub code: Code,
    /// What happened, for people.
    pub message: String,
    /// The delay that the server asks for.
    pub retry_after: Option<Duration>,
}

/// The type under which a `RetryInfo` stands among a status's details.
const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";

impl Status {
    /// A status without details.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The status as the body of an HTTP answer.
    pub(super) fn encode(&self, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Protobuf => self.to_protobuf(),
            Encoding::Json => self.to_json(),
        }
    }

    fn to_protobuf(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, 1, self.code.number());
        put_bytes(&mut out, 2, self.message.as_bytes());
        if let Some(delay) = self.retry_after {
            let (mut duration, mut info, mut any) = (Vec::new(), Vec::new(), Vec::new());
            put_varint(&mut duration, 1, delay.as_secs());
            put_varint(&mut duration, 2, delay.subsec_nanos().into());
            put_bytes(&mut info, 1, &duration);
            put_bytes(&mut any, 1, RETRY_INFO.as_bytes());
            put_bytes(&mut any, 2, &info);
            put_bytes(&mut out, 3, &any);
        }
        out
    }

    fn to_json(&self) -> Vec<u8> {
        let mut status = serde_json::Map::new();
        status.insert("code".into(), self.code.number().into());
        status.insert("message".into(), self.message.as_str().into());
        if let Some(delay) = self.retry_after {
            let delay = format!("{}.{:09}s", delay.as_secs(), delay.subsec_nanos());
            status.insert("details".into(), json!([{ "@type": RETRY_INFO, "retryDelay": delay }]));
        }
        Value::Object(status).to_string().into_bytes()
    }

    /// The status in the body of an HTTP answer; `None` if it is none.
    pub(super) fn decode(encoding: Encoding, body: &[u8]) -> Option<Status> {
        match encoding {
            Encoding::Protobuf => Self::of_protobuf(body),
            Encoding::Json => Self::of_json(body),
        }
    }

    /// A status as it stands in `grpc-status-details-bin` and in protobuf bodies.
    pub(super) fn of_protobuf(bytes: &[u8]) -> Option<Status> {
        let mut status = Status::new(Code::Unknown, "");
        for field in fields(bytes)? {
            match field {
                (1, Field::Varint(code)) => status.code = Code::of_number(code),
                (2, Field::Bytes(text)) => status.message = String::from_utf8(text.to_vec()).ok()?,
                (3, Field::Bytes(any)) => status.retry_after = status.retry_after.or(retry_delay(any)),
                _ => {}
            }
        }
        Some(status)
    }

    fn of_json(body: &[u8]) -> Option<Status> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let message = value.get("message")?.as_str()?;
        let code = value.get("code").and_then(Value::as_u64).unwrap_or(Code::Unknown.number());
        let details = value.get("details").and_then(Value::as_array);
        let delay = details.into_iter().flatten().find_map(|detail| detail.get("retryDelay")?.as_str());
        let retry_after = delay.and_then(|text| {
            let seconds = text.strip_suffix('s')?.parse::<f64>().ok()?;
            Duration::try_from_secs_f64(seconds).ok()
        });
        Some(Status { code: Code::of_number(code), message: message.to_owned(), retry_after })
    }
}

/// The delay of a `RetryInfo` in a `google.protobuf.Any`.
fn retry_delay(any: &[u8]) -> Option<Duration> {
    let any = fields(any)?;
    let type_url = any.iter().find_map(|field| field.bytes_of(1))?;
    if !type_url.ends_with(b"google.rpc.RetryInfo") {
        return None;
    }
    let info = fields(any.iter().find_map(|field| field.bytes_of(2))?)?;
    let mut delay = Duration::ZERO;
    for field in fields(info.iter().find_map(|field| field.bytes_of(1))?)? {
        match field {
            // A negative number comes as a huge one: no delay that anybody meant.
            (1, Field::Varint(seconds)) => delay += Duration::from_secs(u32::try_from(seconds).ok()?.into()),
            (2, Field::Varint(nanos)) => delay += Duration::from_nanos(u32::try_from(nanos).ok()?.into()),
            _ => {}
        }
    }
    Some(delay)
}

/// The part of a successful answer that says what was not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PartialSuccess {
    /// How many data points, log records or spans were refused for good.
    pub rejected: u64,
    /// Why, or a warning where nothing was refused.
    pub message: String,
}

impl PartialSuccess {
    /// The answer to an export request of this signal, as a message of its own.
    pub(super) fn encode(&self, signal: Signal, encoding: Encoding) -> Vec<u8> {
        match encoding {
            Encoding::Protobuf => {
                let (mut inner, mut out) = (Vec::new(), Vec::new());
                put_varint(&mut inner, 1, self.rejected);
                put_bytes(&mut inner, 2, self.message.as_bytes());
                put_bytes(&mut out, 1, &inner);
                out
            }
            Encoding::Json => {
                let mut inner = serde_json::Map::new();
                // 64-bit integers are strings in proto3 JSON.
                inner.insert(rejected_name(signal).into(), self.rejected.to_string().into());
                inner.insert("errorMessage".into(), self.message.as_str().into());
                json!({ "partialSuccess": inner }).to_string().into_bytes()
            }
        }
    }

    /// The partial success in an answer; nothing where there is none, or no OTLP answer at all.
    pub(super) fn decode(signal: Signal, encoding: Encoding, body: &[u8]) -> Option<PartialSuccess> {
        match encoding {
            Encoding::Protobuf => Self::of_protobuf(body),
            Encoding::Json => Self::of_json(signal, body),
        }
    }

    fn of_protobuf(body: &[u8]) -> Option<PartialSuccess> {
        let mut found = None;
        for (number, field) in fields(body)? {
            let (1, Field::Bytes(inner)) = (number, field) else { continue };
            let partial = found.get_or_insert_with(PartialSuccess::default);
            for field in fields(inner)? {
                match field {
                    // A negative count is nothing that was refused.
                    (1, Field::Varint(count)) => {
                        partial.rejected = if i64::try_from(count).is_ok() { count } else { 0 }
                    }
                    (2, Field::Bytes(text)) => partial.message = String::from_utf8_lossy(text).into_owned(),
                    _ => {}
                }
            }
        }
        found
    }

    fn of_json(signal: Signal, body: &[u8]) -> Option<PartialSuccess> {
        let value: Value = serde_json::from_slice(body).ok()?;
        let partial = value.get("partialSuccess").or_else(|| value.get("partial_success"))?.as_object()?;
        let rejected = partial.get(rejected_name(signal)).and_then(|count| match count {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        });
        let message = partial.get("errorMessage").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(PartialSuccess { rejected: rejected.unwrap_or(0), message })
    }
}

/// The JSON name of the count of refused records.
fn rejected_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Metrics => "rejectedDataPoints",
        Signal::Logs => "rejectedLogRecords",
        Signal::Traces => "rejectedSpans",
    }
}

/// The value of a protobuf field, as far as the messages here have such.
#[derive(Clone, Copy, Debug)]
enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// Picks the bytes of a field by its number.
trait Numbered<'a> {
    fn bytes_of(&self, number: u64) -> Option<&'a [u8]>;
}

impl<'a> Numbered<'a> for (u64, Field<'a>) {
    fn bytes_of(&self, number: u64) -> Option<&'a [u8]> {
        match self {
            (own, Field::Bytes(bytes)) if *own == number => Some(bytes),
            _ => None,
        }
    }
}

/// All fields of a message in order; `None` if the bytes are no protobuf message.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Field<'_>)>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let field = match key & 7 {
            0 => Field::Varint(take_varint(&mut bytes)?),
            1 => take(&mut bytes, 8).map(|_| Field::Fixed)?,
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => take(&mut bytes, 4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        if key >> 3 == 0 {
            return None;
        }
        all.push((key >> 3, field));
    }
    Some(all)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_varint(out: &mut Vec<u8>, number: u8, value: u64) {
    // Zero is the default of proto3 and is left out.
    if value != 0 {
        out.push(number << 3);
        put_number(out, value);
    }
}

fn put_bytes(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_back_in_both_encodings() {
        for retry_after in [None, Some(Duration::from_millis(1500)), Some(Duration::from_secs(300))] {
            let status = Status { code: Code::Unavailable, message: "the queue is full: \u{e4}".into(), retry_after };
            for encoding in [Encoding::Protobuf, Encoding::Json] {
                assert_eq!(Status::decode(encoding, &status.encode(encoding)), Some(status.clone()), "{encoding:?}");
            }
        }
    }

    #[test]
    fn a_status_has_the_bytes_of_the_schema() {
        // protoc: Status{code: 3, message: "no"}
        assert_eq!(Status::new(Code::InvalidArgument, "no").to_protobuf(), [8, 3, 18, 2, b'n', b'o']);
        assert_eq!(Status::new(Code::InvalidArgument, "no").to_json(), br#"{"code":3,"message":"no"}"#);
    }

    #[test]
    fn partial_success_comes_back_for_every_signal_and_encoding() {
        let partial = PartialSuccess { rejected: 300, message: "too old".into() };
        for signal in Signal::ALL {
            for encoding in [Encoding::Protobuf, Encoding::Json] {
                let body = partial.encode(signal, encoding);
                assert_eq!(PartialSuccess::decode(signal, encoding, &body), Some(partial.clone()));
            }
        }
    }

    #[test]
    fn partial_success_reads_what_other_servers_write() {
        let decode = |text: &str| PartialSuccess::decode(Signal::Traces, Encoding::Json, text.as_bytes());
        let expected = Some(PartialSuccess { rejected: 2, message: String::new() });
        assert_eq!(decode(r#"{"partialSuccess":{"rejectedSpans":2}}"#), expected);
        assert_eq!(decode(r#"{"partialSuccess":{"rejectedSpans":"2"}}"#), expected);
        assert_eq!(decode("{}"), None);
        assert_eq!(decode("<html>ok</html>"), None);
        // An unset field is an empty inner message.
        let empty = PartialSuccess::decode(Signal::Logs, Encoding::Protobuf, &[10, 0]);
        assert_eq!(empty, Some(PartialSuccess::default()));
        assert_eq!(PartialSuccess::decode(Signal::Logs, Encoding::Protobuf, b"<html>ok</html>"), None);
        // rejected = -1 as protobuf writes it.
        let negative = [10, 11, 8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(
            PartialSuccess::decode(Signal::Logs, Encoding::Protobuf, &negative),
            Some(PartialSuccess::default())
        );
    }

    #[test]
    fn no_prefix_of_a_message_is_read_as_more_than_it_is() {
        let status = Status { code: Code::Aborted, message: "again".into(), retry_after: Some(Duration::from_secs(9)) };
        let whole = status.to_protobuf();
        for length in 0..whole.len() {
            let part = Status::of_protobuf(&whole[..length]);
            assert_ne!(part, Some(status.clone()), "{length} bytes of {}", whole.len());
        }
        assert_eq!(fields(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).map(|f| f.len()), None);
    }

    #[test]
    fn every_code_has_its_own_number_and_name() {
        for (at, (code, name)) in CODES.iter().enumerate() {
            assert_eq!(code.number(), at as u64);
            assert_eq!(Code::of_number(at as u64), *code);
            assert_eq!(code.name(), *name);
        }
        assert_eq!(Code::of_number(99), Code::Unknown);
    }
}
