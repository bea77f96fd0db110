//! OTLP/JSON by hand: the rules of the specification that generated requests do not reach.

use bytes::Bytes;
use weir_model::otlp;
use weir_model::{Encoding, Payload, Records, Signal, Value};

fn log(record: &str) -> Result<Payload, String> {
    let text = format!("{{\"resourceLogs\":[{{\"scopeLogs\":[{{\"logRecords\":[{record}]}}]}}]}}");
    otlp::accept(Signal::Logs, Encoding::Json, Bytes::from(text)).map_err(|error| error.to_string())
}

fn with_log<T>(record: &str, read: impl FnOnce(&weir_model::logs::Logs, &weir_model::logs::LogRecord) -> T) -> T {
    let payload = log(record).unwrap();
    let Records::Logs(logs) = payload.records().unwrap() else { panic!("not logs") };
    read(logs, &logs.records[0])
}

#[test]
fn the_example_of_the_specification_decodes() {
    let text = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"db"}}]},
        "scopeLogs":[{"scope":{"name":"tfo"},"logRecords":[{"timeUnixNano":"1767225600000000000","severityNumber":9,
        "severityText":"INFO","body":{"stringValue":"up"},"traceId":"0af7651916cd43dd8448eb211c80319c",
        "spanId":"b7ad6b7169203331"}]}]}]}"#;
    let payload = otlp::accept(Signal::Logs, Encoding::Json, Bytes::from_static(text.as_bytes())).unwrap();
    assert_eq!(payload.len(), 1);
    assert_eq!(payload.to_json().unwrap(), text, "the received bytes are kept");
    let Records::Logs(logs) = payload.records().unwrap() else { panic!("not logs") };
    let record = &logs.records[0];
    assert_eq!(record.time_unix_nano, 1_767_225_600_000_000_000);
    assert_eq!(record.severity_number, 9);
    assert_eq!(logs.common.value_text(record.body), "up");
    assert_eq!(logs.common.arena.bytes(record.span_id), [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    let resource = logs.common.resources[0].attributes;
    assert!(matches!(logs.common.find(resource, "service.name"), Some(Value::String(_))));
    let Records::Logs(again) = otlp::decode(
        Signal::Logs,
        &weir_model::Wire { encoding: Encoding::Json, bytes: otlp::encode_json(payload.records().unwrap()) },
    )
    .unwrap() else {
        panic!("not logs")
    };
    assert_eq!(again.records.len(), 1);
}

#[test]
fn ids_are_hexadecimal_in_either_case_and_nothing_else() {
    with_log(r#"{"traceId":"5B8EFFF798038103D269B633813FC60C"}"#, |logs, record| {
        assert_eq!(logs.common.arena.bytes(record.trace_id)[..2], [0x5b, 0x8e]);
    });
    for bad in [r#"{"traceId":"5B8"}"#, r#"{"traceId":"zz"}"#, r#"{"spanId":"W47/95gDgQM="}"#, r#"{"spanId":7}"#] {
        assert!(log(bad).is_err(), "{bad}");
    }
}

#[test]
fn unknown_keys_and_original_field_names_are_ignored_and_null_is_absent() {
    with_log(
        r#"{"time_unix_nano":"5","futureField":{"a":[1,{"b":null}]},"body":null,"attributes":null,"flags":3,"timeUnixNano":null}"#,
        |_, record| {
            assert_eq!(record.time_unix_nano, 0);
            assert_eq!(record.body, Value::Empty);
            assert_eq!(record.flags, 3);
        },
    );
}

#[test]
fn bytes_are_base64_of_either_alphabet_with_or_without_padding() {
    for text in ["+/8=", "-_8=", "+/8", "-_8"] {
        with_log(&format!("{{\"body\":{{\"bytesValue\":\"{text}\"}}}}"), |logs, record| {
            let Value::Bytes(bytes) = record.body else { panic!("not bytes") };
            assert_eq!(logs.common.arena.bytes(bytes), [0xfb, 0xff]);
        });
    }
    assert!(log(r#"{"body":{"bytesValue":"%"}}"#).is_err());
}

#[test]
fn enumerations_are_integers_only() {
    assert!(log(r#"{"severityNumber":"SEVERITY_NUMBER_INFO"}"#).is_err());
    with_log(r#"{"severityNumber":24}"#, |_, record| assert_eq!(record.severity_number, 24));
}

#[test]
fn errors_name_the_path_of_the_value() {
    let error = log(r#"{"flags":1},{"attributes":[{"key":"a"},{"key":7}]}"#).unwrap_err();
    assert!(
        error.starts_with("resourceLogs[0].scopeLogs[0].logRecords[1].attributes[1].key at byte ")
            && error.ends_with("expected a string, found a number"),
        "{error}"
    );
    let error = log(r#"{"flags":1,}"#).unwrap_err();
    assert!(error.contains("expected a key in quotation marks"), "{error}");
    let not_text = otlp::accept(Signal::Logs, Encoding::Json, Bytes::from_static(b"{\"\xff\":1}")).unwrap_err();
    assert!(not_text.to_string().contains("UTF-8"), "{not_text}");
}

#[test]
fn a_metric_with_two_kinds_of_data_is_refused() {
    let text = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":{"dataPoints":[{}]},"sum":{"dataPoints":[{}]}}]}]}]}"#;
    let error = otlp::accept(Signal::Metrics, Encoding::Json, Bytes::from_static(text.as_bytes())).unwrap_err();
    assert!(error.to_string().contains("found a second one"), "{error}");
}

#[test]
fn entity_references_of_a_resource_survive_both_encodings() {
    let text = r#"{"resourceLogs":[{"resource":{"entityRefs":[{"schemaUrl":"","type":"host","idKeys":["host.id"],"descriptionKeys":[]}]},"scopeLogs":[{"logRecords":[{}]}]}]}"#;
    let payload = otlp::accept(Signal::Logs, Encoding::Json, Bytes::from_static(text.as_bytes())).unwrap();
    let payload = otlp::accept(Signal::Logs, Encoding::Protobuf, payload.to_protobuf().unwrap()).unwrap();
    assert_eq!(payload.to_json().unwrap(), text);
}
