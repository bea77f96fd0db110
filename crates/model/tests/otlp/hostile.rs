//! Bytes from anywhere: no panic, no surprise, and the same judgement as prost.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;
use weir_model::otlp;
use weir_model::{Encoding, Signal};

use crate::normal::Request;
use crate::requests::{Doubles, cases, logs, metrics, traces};

/// The most memory that decoding takes, per byte of the request: an empty span takes two bytes on
/// the wire and its whole row in memory.
const MEMORY_PER_BYTE: usize = 128;

#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Truncate(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let huge = prop_oneof![
        Just(vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        Just(vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        Just(vec![0xff; 11]),
        Just(vec![0x0b, 0x0c]),
        Just(vec![0xf8, 0x01, 0x05]),
        proptest::collection::vec(any::<u8>(), 1..6),
    ];
    prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        1 => any::<Index>().prop_map(Damage::Truncate),
        2 => (any::<Index>(), huge).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<Index>(), 1..5_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.is_empty() {
        return;
    }
    match damage {
        Damage::Flip(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Damage::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        Damage::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Remove(at, length) => {
            let at = at.index(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.drain(at..end);
        }
        Damage::Repeat(from, to) => {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let copy = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.extend(copy);
        }
    }
}

fn damaged(message: &impl Message, damages: &[Damage]) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    damages.iter().for_each(|damage| apply(&mut bytes, damage));
    bytes
}

/// Judged as prost judges; what is accepted decodes to as many records, in bounded memory, and
/// encodes to something that prost reads and counts the same.
fn judged_as_by_prost<R: Request>(bytes: Vec<u8>) -> Result<bool, TestCaseError> {
    let bytes = Bytes::from(bytes);
    let reference = R::decode(bytes.clone());
    let ours = otlp::accept(R::SIGNAL, Encoding::Protobuf, bytes.clone());
    prop_assert_eq!(
        ours.is_ok(),
        reference.is_ok(),
        "ours: {:?}, prost: {:?}",
        ours.as_ref().err().map(ToString::to_string),
        reference.as_ref().err()
    );
    let (Ok(payload), Ok(reference)) = (ours, reference) else { return Ok(false) };
    prop_assert_eq!(payload.len(), reference.count());
    let records = payload.records().unwrap();
    prop_assert_eq!(records.len(), payload.len());
    prop_assert!(
        records.size_bytes() <= MEMORY_PER_BYTE * bytes.len(),
        "{} bytes became {}",
        bytes.len(),
        records.size_bytes()
    );
    prop_assert_eq!(R::decode(otlp::encode_protobuf(records)).unwrap().count(), payload.len());
    Ok(true)
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn damaged_logs_are_judged_as_by_prost(
        request in logs(Doubles::All),
        damages in proptest::collection::vec(damage(), 1..3),
    ) {
        judged_as_by_prost::<ExportLogsServiceRequest>(damaged(&request, &damages))?;
    }

    #[test]
    fn damaged_traces_are_judged_as_by_prost(
        request in traces(Doubles::All),
        damages in proptest::collection::vec(damage(), 1..3),
    ) {
        judged_as_by_prost::<ExportTraceServiceRequest>(damaged(&request, &damages))?;
    }

    #[test]
    fn damaged_metrics_are_judged_as_by_prost(
        request in metrics(Doubles::All),
        damages in proptest::collection::vec(damage(), 1..3),
    ) {
        judged_as_by_prost::<ExportMetricsServiceRequest>(damaged(&request, &damages))?;
    }

    #[test]
    fn decoding_without_accepting_first_never_panics(
        request in metrics(Doubles::All),
        damages in proptest::collection::vec(damage(), 1..4),
    ) {
        let bytes = Bytes::from(damaged(&request, &damages));
        let wire = weir_model::Wire { encoding: Encoding::Protobuf, bytes };
        for signal in Signal::ALL {
            if let Ok(records) = otlp::decode(signal, &wire) {
                otlp::encode_protobuf(&records);
                otlp::encode_json(&records);
            }
        }
    }

    #[test]
    fn damaged_json_never_panics_and_is_never_looser_than_the_grammar(
        request in metrics(Doubles::Finite),
        damages in proptest::collection::vec(damage(), 1..3),
    ) {
        let mut bytes = otlp::encode_json(crate::round_trip::accepted(&request).records().unwrap()).to_vec();
        damages.iter().for_each(|damage| apply(&mut bytes, damage));
        let bytes = Bytes::from(bytes);
        match otlp::accept(Signal::Metrics, Encoding::Json, bytes.clone()) {
            Ok(payload) => {
                let grammatical = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes);
                prop_assert!(grammatical.is_ok(), "{:?}", grammatical.err());
                let again = otlp::accept(Signal::Metrics, Encoding::Json, otlp::encode_json(payload.records().unwrap()));
                prop_assert_eq!(again.unwrap().len(), payload.len());
            }
            Err(error) => prop_assert!(error.offset().is_some_and(|offset| offset <= bytes.len()), "{}", error),
        }
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn random_bytes_are_judged_as_by_prost(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        judged_as_by_prost::<ExportLogsServiceRequest>(bytes.clone())?;
        judged_as_by_prost::<ExportTraceServiceRequest>(bytes.clone())?;
        judged_as_by_prost::<ExportMetricsServiceRequest>(bytes)?;
    }

    /// Small numbers are what keys and lengths look like, so these get deeper into the schema.
    #[test]
    fn plausible_bytes_are_judged_as_by_prost(
        bytes in proptest::collection::vec(prop_oneof![4 => Just(0x0a_u8), 4 => Just(0x12), 4 => 0..20_u8, 1 => any::<u8>()], 0..24)
    ) {
        judged_as_by_prost::<ExportLogsServiceRequest>(bytes.clone())?;
        judged_as_by_prost::<ExportTraceServiceRequest>(bytes.clone())?;
        judged_as_by_prost::<ExportMetricsServiceRequest>(bytes)?;
    }
}

/// A field with a message of so many bytes in it.
fn field(number: u8, content: Vec<u8>) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend(content);
    bytes
}

#[test]
fn requests_of_nothing_but_empty_messages_take_bounded_memory() {
    let many = |number: u8| [number << 3 | 2, 0].repeat(10_000);
    let item = |content: Vec<u8>| field(1, field(2, field(2, content)));
    judged_as_by_prost::<ExportLogsServiceRequest>(field(1, field(2, many(2)))).unwrap();
    judged_as_by_prost::<ExportLogsServiceRequest>(item(many(6))).unwrap();
    judged_as_by_prost::<ExportLogsServiceRequest>(item(field(5, field(5, many(1))))).unwrap();
    judged_as_by_prost::<ExportLogsServiceRequest>(item(field(5, field(6, many(1))))).unwrap();
    judged_as_by_prost::<ExportTraceServiceRequest>(field(1, field(2, many(2)))).unwrap();
    judged_as_by_prost::<ExportTraceServiceRequest>(item(many(11))).unwrap();
    judged_as_by_prost::<ExportTraceServiceRequest>(item(many(13))).unwrap();
    for data in [5, 7, 9, 10, 11] {
        judged_as_by_prost::<ExportMetricsServiceRequest>(item(field(data, many(1)))).unwrap();
    }
    judged_as_by_prost::<ExportMetricsServiceRequest>(item(field(5, field(1, many(5))))).unwrap();
    judged_as_by_prost::<ExportMetricsServiceRequest>(item(field(11, field(1, many(6))))).unwrap();
}

#[test]
fn of_two_kinds_of_data_in_one_metric_the_last_counts_and_one_kind_twice_counts_together() {
    let points = |kind: u8, count: usize| field(kind, [0x0a, 0].repeat(count));
    let metric = |data: Vec<Vec<u8>>| field(1, field(2, field(2, data.concat())));
    for (data, expected) in [
        (vec![points(5, 2), points(7, 1)], 1),
        (vec![points(7, 2), points(7, 1)], 3),
        (vec![points(5, 2), points(7, 1), points(5, 4)], 4),
        (vec![points(5, 2), points(9, 0)], 0),
    ] {
        let bytes = metric(data);
        assert!(judged_as_by_prost::<ExportMetricsServiceRequest>(bytes.clone()).unwrap());
        assert_eq!(otlp::accept(Signal::Metrics, Encoding::Protobuf, bytes.into()).unwrap().len(), expected);
    }
}

#[test]
fn numbers_beyond_64_bits_are_refused_as_by_prost() {
    for (last, fits) in [(1, true), (2, false), (9, false), (0x81, false)] {
        let mut bytes = vec![0xf8, 0x01];
        bytes.extend([0xff; 9]);
        bytes.extend([last, 0]);
        bytes.truncate(12);
        assert_eq!(judged_as_by_prost::<ExportLogsServiceRequest>(bytes).unwrap(), fits);
    }
}

fn with_body(body: AnyValue) -> ExportLogsServiceRequest {
    let record = LogRecord { body: Some(body), ..LogRecord::default() };
    let scope = ScopeLogs { log_records: vec![record], ..ScopeLogs::default() };
    let resource = ResourceLogs { scope_logs: vec![scope], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource] }
}

fn nested(levels: usize, in_lists_of_pairs: bool) -> AnyValue {
    let mut value = AnyValue { value: Some(Value::BoolValue(true)) };
    for _ in 0..levels {
        let next = if in_lists_of_pairs {
            let pair = KeyValue { value: Some(value), ..KeyValue::default() };
            Value::KvlistValue(KeyValueList { values: vec![pair] })
        } else {
            Value::ArrayValue(ArrayValue { values: vec![value] })
        };
        value = AnyValue { value: Some(next) };
    }
    value
}

#[test]
fn values_may_be_nested_as_deep_as_prost_allows_and_not_deeper() {
    for (deepest, in_lists_of_pairs) in [(48, false), (32, true)] {
        let request = with_body(nested(deepest, in_lists_of_pairs));
        assert!(judged_as_by_prost::<ExportLogsServiceRequest>(request.encode_to_vec()).unwrap());
        let json = otlp::encode_json(crate::round_trip::accepted(&request).records().unwrap());
        let payload = otlp::accept(Signal::Logs, Encoding::Json, json.clone()).unwrap();
        assert_eq!(payload.to_protobuf().unwrap(), request.encode_to_vec());

        let request = with_body(nested(deepest + 1, in_lists_of_pairs));
        assert!(!judged_as_by_prost::<ExportLogsServiceRequest>(request.encode_to_vec()).unwrap());
        let error = otlp::accept(Signal::Logs, Encoding::Protobuf, request.encode_to_vec().into()).unwrap_err();
        assert!(error.to_string().contains("nested deeper than 100 levels"), "{error}");
    }
}

#[test]
fn json_nested_without_end_is_refused_and_not_a_stack_overflow() {
    for (open, place) in [("[", "unknown"), ("{\"a\":", "unknown"), ("{\"resourceLogs\":[", "")] {
        let text = match place {
            "" => open.repeat(100_000),
            _ => format!("{{\"x\":{}", open.repeat(100_000)),
        };
        let error = otlp::accept(Signal::Logs, Encoding::Json, text.into()).unwrap_err();
        assert!(error.to_string().len() < 20_000, "the path of an error is bounded");
    }
    let body = "{\"arrayValue\":{\"values\":[".repeat(1000);
    let text = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{{\"body\":{body}");
    let error = otlp::accept(Signal::Logs, Encoding::Json, text.into()).unwrap_err();
    assert!(error.to_string().contains("nested deeper than 100 levels"), "{error}");
}

#[test]
fn an_error_says_where_and_what() {
    let request = with_body(AnyValue { value: Some(Value::StringValue("hello".to_owned())) });
    let mut bytes = request.encode_to_vec();
    let length = bytes.len();
    bytes[length - 6] = 0x7f;
    let error = otlp::accept(Signal::Logs, Encoding::Protobuf, bytes.clone().into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "resource_logs.scope_logs.log_records.body.string_value at byte {}: length 127 runs past the end of the \
             message, which has 5 bytes left",
            length - 6
        )
    );
    bytes[length - 6] = 5;
    bytes[length - 2] = 0xff;
    let error = otlp::accept(Signal::Logs, Encoding::Protobuf, bytes.into()).unwrap_err();
    let expected = format!("body.string_value at byte {}: text is not valid UTF-8", length - 2);
    assert!(error.to_string().ends_with(&expected), "{error}");
}
