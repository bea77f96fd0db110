//! What several fuzz targets assert of records that came from outside.

use bytes::Bytes;
use weir_model::{Encoding, Payload, Records, Signal, Wire, otlp};

/// Encodes accepted records and reads them again: nothing may be refused, lost or changed. Gives
/// the records.
pub fn encode_and_accept_again(payload: &Payload) -> &Records {
    let records = payload.records().expect("what was accepted decodes");
    assert_eq!(records.len(), payload.len(), "accepting counts what decoding finds");
    let protobuf = otlp::encode_protobuf(records);
    let again = accept(records.signal(), Encoding::Protobuf, &protobuf);
    assert_eq!(again.len(), payload.len());
    let decoded = again.records().expect("what was accepted decodes");
    assert_eq!(otlp::encode_protobuf(decoded), protobuf, "a second round changes nothing");
    // JSON has one NaN only, so its own rounds are compared.
    let json = through_json(records);
    let again = accept(records.signal(), Encoding::Json, &json);
    let decoded = again.records().expect("what was accepted decodes");
    let second = through_json(decoded);
    // Fields of a resource that no schema names have no form in JSON: the first round drops them.
    if !has_unknown_fields(records) {
        assert_eq!(otlp::encode_json(records), second, "a round through JSON changes nothing");
    }
    assert_eq!(json, second, "a second round through JSON changes nothing");
    records
}

/// The JSON form of what the JSON form of these records says.
fn through_json(records: &Records) -> Bytes {
    let again = accept(records.signal(), Encoding::Json, &otlp::encode_json(records));
    assert_eq!(again.len(), records.len(), "JSON keeps every record");
    otlp::encode_json(again.records().expect("what was accepted decodes"))
}

fn has_unknown_fields(records: &Records) -> bool {
    let common = match records {
        Records::Metrics(metrics) => &metrics.table.common,
        Records::Logs(logs) => &logs.common,
        Records::Traces(traces) => &traces.common,
    };
    common.resources.iter().any(|resource| !resource.unknown.is_empty())
}

/// Halves records as a refused delivery is halved: both halves encode, and hold all records.
pub fn halve(records: &Records) {
    let (first, second) = records.split_at(records.len() / 2);
    assert_eq!(first.len() + second.len(), records.len());
    let both = [otlp::encode_protobuf(&first), otlp::encode_protobuf(&second)].concat();
    assert_eq!(accept(records.signal(), Encoding::Protobuf, &both).len(), records.len());
}

/// Accepts what Weir has encoded.
pub fn accept(signal: Signal, encoding: Encoding, bytes: &[u8]) -> Payload {
    let bytes = Bytes::copy_from_slice(bytes);
    otlp::accept(signal, encoding, bytes.clone()).unwrap_or_else(|error| {
        let wire = Wire { encoding, bytes };
        panic!("what Weir encodes must be accepted: {error}: {signal:?} {wire:?}")
    })
}
