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
    let json = otlp::encode_json(records);
    let again = accept(records.signal(), Encoding::Json, &json);
    assert_eq!(again.len(), payload.len());
    let decoded = again.records().expect("what was accepted decodes");
    assert_eq!(otlp::encode_json(decoded), json, "a second round through JSON changes nothing");
    records
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
