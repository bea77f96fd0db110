//! Whatever prost writes comes back from the model unchanged.

use bytes::Bytes;
use proptest::prelude::*;
use weir_model::otlp;
use weir_model::{Encoding, Payload, Records};

use crate::normal::Request;
use crate::requests::{Doubles, cases, logs, metrics, traces};

/// The payload of a request that prost wrote.
pub fn accepted<R: Request>(request: &R) -> Payload {
    let bytes = Bytes::from(request.encode_to_vec());
    otlp::accept(R::SIGNAL, Encoding::Protobuf, bytes).unwrap()
}

/// Compared as prost's bytes, so that NaN equals NaN bit by bit.
fn same<R: Request>(left: &R, right: &R) -> bool {
    left.encode_to_vec() == right.encode_to_vec()
}

fn survives<R: Request>(request: &R) -> Result<(), TestCaseError> {
    let payload = accepted(request);
    prop_assert_eq!(payload.len(), request.count(), "counted without decoding");
    let records = payload.records().unwrap();
    prop_assert_eq!(records.len(), request.count(), "decoded");
    let back = R::decode(otlp::encode_protobuf(records)).unwrap();
    prop_assert!(same(&back, &request.normal()), "\n{:?}\n{:?}", back, request.normal());
    Ok(())
}

fn survives_json<R: Request>(request: &R) -> Result<(), TestCaseError> {
    let payload = accepted(request);
    let records = payload.records().unwrap();
    let again = otlp::accept(R::SIGNAL, Encoding::Json, otlp::encode_json(records)).unwrap();
    prop_assert_eq!(again.len(), request.count());
    let back = R::decode(again.to_protobuf().unwrap()).unwrap();
    prop_assert!(same(&back, &request.normal()), "\n{:?}\n{:?}", back, request.normal());
    Ok(())
}

fn is_understood_as_json<R: Request>(request: &R) -> Result<(), TestCaseError> {
    let json = otlp::encode_json(accepted(request).records().unwrap());
    let back: R = serde_json::from_slice(&json).unwrap();
    prop_assert!(same(&back, &request.normal()), "\n{:?}\n{:?}", back, request.normal());
    Ok(())
}

fn is_understood_from_json<R: Request>(request: &R) -> Result<(), TestCaseError> {
    let json = Bytes::from(serde_json::to_vec(request).unwrap());
    let payload = otlp::accept(R::SIGNAL, Encoding::Json, json).unwrap();
    prop_assert_eq!(payload.len(), request.count());
    let back = R::decode(payload.to_protobuf().unwrap()).unwrap();
    prop_assert!(same(&back, &request.normal()), "\n{:?}\n{:?}", back, request.normal());
    Ok(())
}

fn merge_is_concatenation<R: Request>(first: &R, second: &R) -> Result<(), TestCaseError> {
    let chunks = otlp::merge(&[accepted(first), accepted(second)]).unwrap();
    let bytes = Bytes::from(chunks.concat());
    let payload = otlp::accept(R::SIGNAL, Encoding::Protobuf, bytes.clone()).unwrap();
    prop_assert_eq!(payload.len(), first.count() + second.count());
    // Merging into a message is what prost calls decoding behind what is there.
    let mut both = first.clone();
    both.merge(second.encode_to_vec().as_slice()).unwrap();
    prop_assert!(same(&R::decode(bytes).unwrap(), &both));
    let back = R::decode(otlp::encode_protobuf(payload.records().unwrap())).unwrap();
    prop_assert!(same(&back, &both.normal()));
    Ok(())
}

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn logs_survive_decoding_and_encoding(request in logs(Doubles::All)) {
        survives(&request)?;
        survives_json(&request)?;
    }

    #[test]
    fn traces_survive_decoding_and_encoding(request in traces(Doubles::All)) {
        survives(&request)?;
        survives_json(&request)?;
    }

    #[test]
    fn metrics_survive_decoding_and_encoding(request in metrics(Doubles::All)) {
        survives(&request)?;
        survives_json(&request)?;
    }

    #[test]
    fn logs_in_json_mean_the_same_to_an_independent_reader_and_writer(request in logs(Doubles::Finite)) {
        is_understood_as_json(&request)?;
        is_understood_from_json(&request)?;
    }

    #[test]
    fn traces_in_json_mean_the_same_to_an_independent_reader_and_writer(request in traces(Doubles::Finite)) {
        is_understood_as_json(&request)?;
        is_understood_from_json(&request)?;
    }

    #[test]
    fn metrics_in_json_mean_the_same_to_an_independent_reader_and_writer(request in metrics(Doubles::Finite)) {
        is_understood_as_json(&request)?;
        is_understood_from_json(&request)?;
    }

    #[test]
    fn merged_requests_hold_the_records_of_both(first in logs(Doubles::All), second in logs(Doubles::All)) {
        merge_is_concatenation(&first, &second)?;
    }

    #[test]
    fn merged_metrics_hold_the_points_of_both(first in metrics(Doubles::All), second in metrics(Doubles::All)) {
        merge_is_concatenation(&first, &second)?;
    }
}

#[test]
fn the_empty_request_is_valid_in_both_encodings() {
    for signal in weir_model::Signal::ALL {
        for (encoding, bytes) in [(Encoding::Protobuf, ""), (Encoding::Json, "{}"), (Encoding::Json, " {\n} ")] {
            let payload = otlp::accept(signal, encoding, Bytes::from_static(bytes.as_bytes())).unwrap();
            assert!(payload.is_empty());
            let empty: &Records = payload.records().unwrap();
            assert!(otlp::encode_protobuf(empty).is_empty());
        }
    }
}

#[test]
fn requests_that_cannot_be_concatenated_are_not_merged() {
    use weir_model::Signal;
    let empty = |signal, encoding, text: &'static str| {
        otlp::accept(signal, encoding, Bytes::from_static(text.as_bytes())).unwrap()
    };
    let logs = empty(Signal::Logs, Encoding::Protobuf, "");
    assert!(otlp::merge(&[logs.clone(), logs.clone()]).is_some());
    assert!(otlp::merge(&[logs.clone(), empty(Signal::Logs, Encoding::Json, "{}")]).is_none());
    assert!(otlp::merge(&[logs.clone(), empty(Signal::Traces, Encoding::Protobuf, "")]).is_none());
    assert!(otlp::merge(&[logs.clone(), Payload::from_records(logs.records().unwrap().clone())]).is_none());
}
