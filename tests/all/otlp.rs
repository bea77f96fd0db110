//! OTLP in and out: what OpenTelemetry's own SDK sends arrives behind two agents and behind a real
//! Collector with every attribute, and bytes that nobody has to read go on as they came.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use serde_json::{Value as Json, json};

use crate::harness::capture::Capture;
use crate::harness::http::post;
use crate::harness::peers::{Peer, peer};
use crate::harness::points::{attributes_json, json_of};
use crate::harness::process::Process;
use crate::harness::weir::Agent;
use crate::harness::{free_port, seconds, wait_for};

mod bytes_pass;

/// One of each kind of value that SDKs let people set.
fn attributes() -> Json {
    json!({
        "test.text": "grüße, 世界 \"quoted\"\n",
        "test.empty": "",
        "test.int": -9_007_199_254_740_993_i64,
        "test.double": 0.1,
        "test.true": true,
        "test.false": false,
        "test.texts": ["a", "b"],
        "test.ints": [1, 2, 3],
        "test.doubles": [1.5, -2.5],
        "test.bools": [true, false],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_python_sdk_sends_over_grpc_arrives_whole_behind_two_agents_and_the_collector() {
    let (Some(python), Some(collector)) = (peer(Peer::PythonSdk), peer(Peer::Collector)) else { return };
    relay(&python, &collector, "grpc").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_python_sdk_sends_over_http_arrives_whole_behind_two_agents_and_the_collector() {
    let (Some(python), Some(collector)) = (peer(Peer::PythonSdk), peer(Peer::Collector)) else { return };
    relay(&python, &collector, "http").await;
}

/// SDK → first agent → (second agent → capture, Collector → capture).
async fn relay(python: &Path, collector: &Path, protocol: &str) {
    let (behind_agent, behind_collector) = (Capture::start().await, Capture::start().await);
    let collector = Collector::start(collector, &behind_collector).await;
    let (second_grpc, second_http) = (free_port(), free_port());
    let second = format!(
        "integrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  \
         otlp_receiver: {{grpc: \"127.0.0.1:{second_grpc}\", http: \"127.0.0.1:{second_http}\"}}\n{}",
        behind_agent.exporter("otlp")
    );
    let _second = Agent::start("second weir", &second);
    let (grpc, http) = (free_port(), free_port());
    let first = Agent::start(
        "first weir",
        &format!(
            "integrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  \
             otlp_receiver: {{grpc: \"127.0.0.1:{grpc}\", http: \"127.0.0.1:{http}\"}}\n  \
             otlp/agent: {{protocol: grpc, endpoint: \"http://127.0.0.1:{second_grpc}\"}}\n  \
             otlp/collector: {{endpoint: \"http://127.0.0.1:{}\"}}\n",
            collector.http
        ),
    );
    listens(second_http).await;
    listens(http).await;
    let port = if protocol == "grpc" { grpc } else { http };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/send_otlp.py");
    let sent = Command::new(python)
        .arg(script)
        .args([protocol, &format!("http://127.0.0.1:{port}"), &attributes().to_string()])
        .output()
        .expect("Python runs");
    assert!(sent.status.success(), "the SDK: {}", String::from_utf8_lossy(&sent.stderr));
    for (behind, capture) in [("the second agent", &behind_agent), ("the Collector", &behind_collector)] {
        wait_for(&format!("three signals behind {behind}"), seconds(20), async || {
            let paths = ["/v1/metrics", "/v1/logs", "/v1/traces"];
            paths.iter().all(|path| !capture.requests(path).is_empty()).then_some(())
        })
        .await;
        assert_metrics(behind, &capture.metrics());
        assert_logs(behind, capture);
        assert_traces(behind, &capture.traces());
    }
    assert_eq!(first.process.stderr().matches("WARN").count(), 0, "{}", first.process.stderr());
}

/// A real Collector that takes OTLP over HTTP and passes it to a capture.
struct Collector {
    http: u16,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Collector {
    async fn start(program: &Path, capture: &Capture) -> Collector {
        let (http, folder) = (free_port(), tempfile::tempdir().expect("a temporary folder"));
        let file = folder.path().join("collector.yaml");
        let configuration = format!(
            "receivers: {{otlp: {{protocols: {{http: {{endpoint: \"127.0.0.1:{http}\"}}}}}}}}\n\
             exporters: {{otlphttp: {{endpoint: \"{}\", compression: none}}}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
             metrics: {{receivers: [otlp], exporters: [otlphttp]}}\n    \
             logs: {{receivers: [otlp], exporters: [otlphttp]}}\n    \
             traces: {{receivers: [otlp], exporters: [otlphttp]}}\n",
            capture.url()
        );
        std::fs::write(&file, configuration).expect("writable");
        let process = Process::start("collector", Command::new(program).arg("--config").arg(&file));
        listens(http).await;
        Collector { http, _process: process, _folder: folder }
    }
}

/// Waits until something listens on a port of this machine.
async fn listens(port: u16) {
    wait_for(&format!("a listener on port {port}"), seconds(20), async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()
    })
    .await;
}

/// That an object has all of these keys with these values; others may be there too.
fn assert_has(what: &str, found: &Json, wanted: &Json) {
    for (key, value) in wanted.as_object().expect("an object") {
        assert_eq!(&found[key], value, "{what}: attribute {key} of {found}");
    }
}

fn assert_metrics(behind: &str, requests: &[ExportMetricsServiceRequest]) {
    let resources = requests.iter().flat_map(|request| &request.resource_metrics);
    let mut seen = Vec::new();
    for resource in resources {
        let of_resource = resource.resource.as_ref().map(|resource| attributes_json(&resource.attributes));
        let of_resource = of_resource.unwrap_or_default();
        for scope in &resource.scope_metrics {
            for metric in scope.metrics.iter().filter(|metric| metric.name.starts_with("sent.")) {
                let what = format!("{} behind {behind}", metric.name);
                assert_has(&what, &of_resource, &attributes());
                let named = scope.scope.as_ref().expect("a scope");
                assert_eq!((named.name.as_str(), named.version.as_str()), ("sender.meter", "1.2.3"), "{what}");
                assert_has(&what, &one_point(&what, metric.data.as_ref().expect("data")), &attributes());
                seen.push((metric.name.as_str(), metric.unit.as_str()));
            }
        }
    }
    seen.sort_unstable();
    seen.dedup();
    let wanted = [
        ("sent.counter", "{item}"),
        ("sent.exponential", "s"),
        ("sent.gauge", ""),
        ("sent.histogram", "s"),
        ("sent.level", ""),
    ];
    assert_eq!(seen, wanted, "metrics behind {behind}");
}

/// Checks the numbers of a metric, and gives the attributes of its only point.
fn one_point(what: &str, data: &Data) -> Json {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
    match data {
        Data::Gauge(gauge) => {
            assert_eq!(gauge.data_points.len(), 1, "{what}");
            assert_eq!(gauge.data_points[0].value, Some(Value::AsDouble(2.5)), "{what}");
            attributes_json(&gauge.data_points[0].attributes)
        }
        Data::Sum(sum) => {
            assert_eq!(sum.data_points.len(), 1, "{what}");
            let wanted = if sum.is_monotonic { 41 } else { -7 };
            assert_eq!(sum.data_points[0].value, Some(Value::AsInt(wanted)), "{what}");
            assert!(sum.data_points[0].start_time_unix_nano > 0, "{what}");
            attributes_json(&sum.data_points[0].attributes)
        }
        Data::Histogram(histogram) => {
            let point = &histogram.data_points[0];
            assert_eq!(
                (point.count, point.sum, point.min, point.max),
                (1, Some(0.25), Some(0.25), Some(0.25)),
                "{what}"
            );
            assert_eq!(point.bucket_counts.iter().sum::<u64>(), 1, "{what}");
            attributes_json(&point.attributes)
        }
        Data::ExponentialHistogram(histogram) => {
            let point = &histogram.data_points[0];
            let positive = point.positive.as_ref().expect("buckets");
            assert_eq!(
                (point.count, point.sum, positive.bucket_counts.iter().sum::<u64>()),
                (1, Some(1.5), 1),
                "{what}"
            );
            attributes_json(&point.attributes)
        }
        Data::Summary(_) => panic!("{what}: no summary was sent"),
    }
}

fn assert_logs(behind: &str, capture: &Capture) {
    let requests = capture.logs();
    let resources: Vec<_> = requests.iter().flat_map(|request| &request.resource_logs).collect();
    let records: Vec<&LogRecord> =
        resources.iter().flat_map(|resource| &resource.scope_logs).flat_map(|scope| &scope.log_records).collect();
    assert_eq!(records.len(), 1, "logs behind {behind}");
    let (record, what) = (records[0], format!("the log record behind {behind}"));
    assert_has(&what, &attributes_json(&resources[0].resource.as_ref().expect("a resource").attributes), &attributes());
    assert_has(&what, &attributes_json(&record.attributes), &attributes());
    assert_eq!(record.time_unix_nano, 1_700_000_000_000_000_001, "{what}");
    assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "WARN"), "{what}");
    assert_eq!(record.event_name, "sent.event", "{what}");
    let body = record.body.as_ref().map(json_of);
    assert_eq!(body, Some(json!({"text": "hello", "numbers": [1, 2.5, true]})), "{what}");
    assert_eq!((record.trace_id.len(), record.span_id.len()), (16, 8), "{what}: it was written within a span");
}

fn assert_traces(behind: &str, requests: &[ExportTraceServiceRequest]) {
    let resources: Vec<_> = requests.iter().flat_map(|request| &request.resource_spans).collect();
    let spans: Vec<&Span> =
        resources.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).collect();
    let find = |name: &str| {
        *spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} behind {behind}"))
    };
    assert_eq!(spans.len(), 2, "spans behind {behind}");
    let (parent, child) = (find("parent"), find("child"));
    let what = format!("the spans behind {behind}");
    assert_has(&what, &attributes_json(&resources[0].resource.as_ref().expect("a resource").attributes), &attributes());
    for span in [parent, child] {
        assert_has(&what, &attributes_json(&span.attributes), &attributes());
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0, "{what}");
    }
    assert_eq!((&child.trace_id, &child.parent_span_id), (&parent.trace_id, &parent.span_id), "{what}");
    assert_eq!(child.kind, 3, "{what}: CLIENT");
    let status = child.status.as_ref().expect("a status");
    assert_eq!((status.code(), status.message.as_str()), (StatusCode::Error, "as planned"), "{what}");
    assert_eq!((child.links.len(), child.events.len()), (1, 1), "{what}");
    assert_eq!(child.links[0].span_id, parent.span_id, "{what}");
    assert_has(&what, &attributes_json(&child.links[0].attributes), &attributes());
    assert_eq!(child.events[0].name, "event", "{what}");
    assert_has(&what, &attributes_json(&child.events[0].attributes), &attributes());
}
