//! What the codec costs, measured. Run in release, on a quiet machine:
//! `cargo test --release -p weir-model --test otlp -- --ignored --nocapture cost`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use weir_model::otlp;
use weir_model::{Encoding, MetricDescription, MetricsBuilder, Records, Signal, Wire};

const RECORDS: usize = 512;

fn pair(key: &str, value: String) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..KeyValue::default()
    }
}

/// 512 records with a body of 300 bytes and three text attributes.
fn request() -> Bytes {
    let record = |at: usize| LogRecord {
        time_unix_nano: 1_767_225_600_000_000_000 + at as u64,
        observed_time_unix_nano: 1_767_225_600_000_000_000,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue("GET /index.html ".repeat(19).split_off(4))) }),
        attributes: vec![
            pair("http.request.method", "GET".to_owned()),
            pair("url.path", format!("/index/{at}")),
            pair("log.file.name", "access.log".to_owned()),
        ],
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        ..LogRecord::default()
    };
    let scope = ScopeLogs { log_records: (0..RECORDS).map(record).collect(), ..ScopeLogs::default() };
    let resource = Resource { attributes: vec![pair("service.name", "web".to_owned())], ..Resource::default() };
    let container = ResourceLogs { resource: Some(resource), scope_logs: vec![scope], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![container] }.encode_to_vec().into()
}

/// The fastest of many runs: what the code costs when nothing else wants the processor.
fn fastest<T>(mut run: impl FnMut() -> T) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..2000 {
        let start = Instant::now();
        black_box(run());
        best = best.min(start.elapsed());
    }
    best
}

#[test]
#[ignore = "a measurement: means something in release on a quiet machine only"]
fn cost_of_the_codec() {
    let bytes = request();
    let wire = Wire { encoding: Encoding::Protobuf, bytes: bytes.clone() };
    let records = otlp::decode(Signal::Logs, &wire).unwrap();
    let json = otlp::encode_json(&records);
    println!("{} log records, {} bytes of protobuf, {} of JSON", records.len(), bytes.len(), json.len());
    let accept = fastest(|| otlp::accept(Signal::Logs, Encoding::Protobuf, bytes.clone()).unwrap());
    let decode = fastest(|| otlp::decode(Signal::Logs, &wire).unwrap());
    let encode = fastest(|| otlp::encode_protobuf(&records));
    println!("accept {accept:?}, decode {decode:?}, encode {encode:?}");
    let accept_json = fastest(|| otlp::accept(Signal::Logs, Encoding::Json, json.clone()).unwrap());
    let encode_json = fastest(|| otlp::encode_json(&records));
    println!("JSON: accept {accept_json:?}, encode {encode_json:?}");
    let message = ExportLogsServiceRequest::decode(bytes.clone()).unwrap();
    let prost_decode = fastest(|| ExportLogsServiceRequest::decode(bytes.clone()).unwrap());
    let prost_encode = fastest(|| message.encode_to_vec());
    println!("prost: decode {prost_decode:?}, encode {prost_encode:?}");

    let mut out = MetricsBuilder::new("test", vec![("host.name".into(), "a".into())]);
    let name = |at: usize| format!("system.metric.{}", at % 40);
    let names: Vec<String> = (0..1000).map(name).collect();
    out.begin(7, 1);
    for (at, name) in names.iter().enumerate() {
        let metric = MetricDescription { name, unit: "By", kind: weir_model::Kind::Gauge, help: "A metric." };
        out.record(&metric, &[("device", &at.to_string()), ("direction", "read")], at as f64);
    }
    let metrics = Records::Metrics(out.finish());
    let encode_metrics = fastest(|| otlp::encode_protobuf(&metrics));
    let bytes = otlp::encode_protobuf(&metrics);
    let accept_metrics = fastest(|| otlp::accept(Signal::Metrics, Encoding::Protobuf, bytes.clone()).unwrap());
    let wire = Wire { encoding: Encoding::Protobuf, bytes };
    let decode_metrics = fastest(|| otlp::decode(Signal::Metrics, &wire).unwrap());
    println!(
        "1000 points, {} bytes: accept {accept_metrics:?}, decode {decode_metrics:?}, encode {encode_metrics:?}",
        wire.bytes.len()
    );

    assert!(accept < Duration::from_micros(60), "accepting {RECORDS} records took {accept:?}");
    let both = (decode + encode) / RECORDS as u32;
    assert!(both < Duration::from_nanos(600), "decoding and encoding took {both:?} per record");
}
