//! Requests that pass an agent undecoded, and those that it has to change.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Summary, SummaryDataPoint, number_data_point,
    summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::*;

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A request with the corners of the format: an unknown field, a summary, a value that is not a number.
fn metrics_request() -> Bytes {
    let gauge = Gauge {
        data_points: vec![NumberDataPoint {
            attributes: vec![pair("bytes", Value::BytesValue(vec![0, 255, 1]))],
            time_unix_nano: 1,
            value: Some(number_data_point::Value::AsDouble(f64::NAN)),
            flags: 1,
            ..NumberDataPoint::default()
        }],
    };
    let summary = Summary {
        data_points: vec![SummaryDataPoint {
            count: 3,
            sum: 4.5,
            quantile_values: vec![ValueAtQuantile { quantile: 0.5, value: 1.0 }],
            ..SummaryDataPoint::default()
        }],
    };
    let metric = |name: &str, data| Metric { name: name.to_owned(), data: Some(data), ..Metric::default() };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![pair("service.name", Value::StringValue("passed".into()))],
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics: vec![metric("gauge", Data::Gauge(gauge)), metric("summary", Data::Summary(summary))],
                schema_url: "https://opentelemetry.io/schemas/1.44.0".into(),
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    };
    let mut bytes = request.encode_to_vec();
    // Field 1000, wire type 2, three bytes: a field of a later version of the protocol.
    bytes.extend([0xc2, 0x3e, 3, b'n', b'e', b'w']);
    bytes.into()
}

fn logs_request() -> ExportLogsServiceRequest {
    let record = LogRecord {
        time_unix_nano: 5,
        observed_time_unix_nano: 6,
        body: Some(AnyValue { value: Some(Value::StringValue("line".into())) }),
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        dropped_attributes_count: 2,
        attributes: vec![pair("answer", Value::IntValue(i64::MAX))],
        ..LogRecord::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: vec![pair("service.name", Value::StringValue("json".into()))],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    }
}

/// An agent between an OTLP receiver over HTTP and a capture, with further lines of configuration.
async fn between(capture: &Capture, more: &str) -> (Agent, String) {
    let http = free_port();
    let agent = Agent::start(
        "weir",
        &format!(
            "{more}delivery: {{queue: memory}}\nintegrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  \
             otlp_receiver: {{grpc: null, http: \"127.0.0.1:{http}\"}}\n{}",
            capture.exporter("otlp")
        ),
    );
    listens(http).await;
    (agent, format!("http://127.0.0.1:{http}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_protobuf_request_that_nobody_reads_goes_on_byte_for_byte() {
    let capture = Capture::start().await;
    let (_agent, url) = between(&capture, "").await;
    let sent = metrics_request();
    let answer = post(&format!("{url}/v1/metrics"), "application/x-protobuf", sent.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.excerpt());
    // Success is answered after delivery, so it has arrived by now.
    let arrived = capture.requests("/v1/metrics");
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].body, sent);
    assert_eq!(arrived[0].headers["content-type"], "application/x-protobuf");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_json_request_arrives_with_the_same_records() {
    let capture = Capture::start().await;
    let (_agent, url) = between(&capture, "").await;
    let body = serde_json::to_vec(&logs_request()).expect("JSON");
    let answer = post(&format!("{url}/v1/logs"), "application/json", body).await;
    assert_eq!(answer.status, 200, "{}", answer.excerpt());
    assert_eq!(capture.logs(), [logs_request()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_sets_an_attribute_changes_nothing_else() {
    let capture = Capture::start().await;
    let route = "routes: [{from: [otlp_receiver], set: {team: blue}, to: [otlp]}]\n";
    let (_agent, url) = between(&capture, route).await;
    let sent = logs_request();
    let answer = post(&format!("{url}/v1/logs"), "application/x-protobuf", sent.encode_to_vec()).await;
    assert_eq!(answer.status, 200, "{}", answer.excerpt());
    let mut wanted = sent;
    let resource = wanted.resource_logs[0].resource.as_mut().expect("a resource");
    resource.attributes.push(pair("team", Value::StringValue("blue".into())));
    assert_eq!(capture.logs(), [wanted]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_otlp_are_refused_and_nothing_is_sent_on() {
    let capture = Capture::start().await;
    let (_agent, url) = between(&capture, "").await;
    let answer = post(&format!("{url}/v1/metrics"), "application/x-protobuf", "this is text, not protobuf").await;
    assert_eq!(answer.status, 400, "{}", answer.excerpt());
    let answer = post(&format!("{url}/v1/metricz"), "application/x-protobuf", metrics_request()).await;
    assert_eq!(answer.status, 404, "{}", answer.excerpt());
    assert!(capture.requests("/v1/metrics").is_empty());
}
