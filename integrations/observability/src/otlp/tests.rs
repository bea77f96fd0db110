//! Exporter and receiver against each other over loopback, and each against servers and clients
//! that behave badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use weir_config::{ByteSize, Environment, Secret, Settings};
use weir_model::{Encoding, Payload, Signal, otlp};
use weir_net::{Client, Compression, HttpOptions};
use weir_pipeline::role::{Delivery, DynExport};
use weir_pipeline::{Answer, Context, Fault, FaultKind, Open, Opened, Outcome, Refused};

use super::receiver::{Config, Endpoint, Sink, router};
use super::status::{Code, PartialSuccess, Status};
use super::{EXPORTER, RECEIVER, grpc, grpc_path, http_path};

/// A pipeline's place: remembers what it was offered and answers what it was told to.
#[derive(Clone)]
struct Recorder {
    offered: Arc<Mutex<Vec<Payload>>>,
    answer: Answer,
}

impl Recorder {
    fn answering(answer: Answer) -> Self {
        Self { offered: Arc::default(), answer }
    }

    fn take(&self) -> Vec<Payload> {
        std::mem::take(&mut self.offered.lock().unwrap())
    }
}

impl Sink for Recorder {
    async fn offer(&self, payload: Payload) -> Answer {
        self.offered.lock().unwrap().push(payload);
        self.answer.clone()
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(weir_net::serve(listener, router, std::future::pending()));
    address
}

async fn receiver(config: &Config, recorder: &Recorder) -> SocketAddr {
    let limit = usize::try_from(config.max_request_size.bytes()).unwrap();
    serve(router(&Arc::new(Endpoint::new(config, limit, recorder.clone())))).await
}

fn open(kind: &weir_pipeline::Kind, options: &str) -> Result<Opened, String> {
    let indented = options.lines().map(|line| format!("    {line}\n")).collect::<String>();
    let text = format!("integrations:\n  {}:\n{indented}", kind.name());
    let settings = Settings::parse("test.yaml", &text, &Environment).map_err(|problems| problems.to_string())?;
    let context = Context {
        data_folder: std::env::temp_dir().into(),
        name: kind.name().into(),
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(10),
        resource: Vec::new(),
        telemetry: Arc::default(),
    };
    let open = Open { file: "test.yaml", block: &settings.integrations[0], context: &context };
    kind.open(open).map_err(|problems| problems.to_string())
}

fn exporter(options: &str) -> Box<dyn DynExport> {
    match open(&EXPORTER, options).unwrap() {
        Opened::Export(_, exporter) => exporter,
        _ => panic!("not an exporter"),
    }
}

fn text(value: &str) -> Option<AnyValue> {
    Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) })
}

fn resource() -> Option<Resource> {
    let attributes = vec![KeyValue { key: "service.name".into(), value: text("shop"), ..Default::default() }];
    Some(Resource { attributes, ..Default::default() })
}

fn log_request(records: usize) -> ExportLogsServiceRequest {
    let record = |at: usize| LogRecord {
        time_unix_nano: 1_700_000_000_000_000_000,
        body: text(&format!("line {at}")),
        ..Default::default()
    };
    let scope_logs = vec![ScopeLogs { log_records: (0..records).map(record).collect(), ..Default::default() }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource: resource(), scope_logs, ..Default::default() }],
    }
}

fn metric_request(points: usize) -> ExportMetricsServiceRequest {
    let point = |at: usize| NumberDataPoint {
        time_unix_nano: 1_700_000_000_000_000_000,
        value: Some(number_data_point::Value::AsDouble(at as f64)),
        ..Default::default()
    };
    let data = Some(metric::Data::Gauge(Gauge { data_points: (0..points).map(point).collect() }));
    let metrics = vec![Metric { name: "load".into(), unit: "1".into(), data, ..Default::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource: resource(), scope_metrics, ..Default::default() }],
    }
}

fn trace_request(spans: usize) -> ExportTraceServiceRequest {
    let span = |at: usize| Span {
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        name: format!("GET /{at}"),
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..spans).map(span).collect(), ..Default::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: resource(), scope_spans, ..Default::default() }],
    }
}

/// A request as another implementation writes it.
fn request(signal: Signal, encoding: Encoding, records: usize) -> Bytes {
    match (signal, encoding) {
        (Signal::Metrics, Encoding::Protobuf) => metric_request(records).encode_to_vec().into(),
        (Signal::Logs, Encoding::Protobuf) => log_request(records).encode_to_vec().into(),
        (Signal::Traces, Encoding::Protobuf) => trace_request(records).encode_to_vec().into(),
        (Signal::Metrics, Encoding::Json) => serde_json::to_vec(&metric_request(records)).unwrap().into(),
        (Signal::Logs, Encoding::Json) => serde_json::to_vec(&log_request(records)).unwrap().into(),
        (Signal::Traces, Encoding::Json) => serde_json::to_vec(&trace_request(records)).unwrap().into(),
    }
}

fn payload(signal: Signal, encoding: Encoding, records: usize) -> Payload {
    otlp::accept(signal, encoding, request(signal, encoding, records)).unwrap()
}

fn delivery(payloads: Vec<Payload>) -> Delivery {
    Delivery { signal: payloads[0].signal(), payloads, id: 1 }
}

fn logs(records: usize) -> Delivery {
    delivery(vec![payload(Signal::Logs, Encoding::Protobuf, records)])
}

const PROTOCOLS: [(&str, Encoding); 3] =
    [("http/protobuf", Encoding::Protobuf), ("http/json", Encoding::Json), ("grpc", Encoding::Protobuf)];

#[tokio::test]
async fn what_is_sent_is_received_byte_for_byte() {
    let recorder = Recorder::answering(Answer::Stored);
    let address = receiver(&Config::default(), &recorder).await;
    for (protocol, encoding) in PROTOCOLS {
        for compression in ["none", "gzip", "zstd"] {
            let exporter =
                exporter(&format!("endpoint: http://{address}\nprotocol: {protocol}\ncompression: {compression}"));
            for signal in Signal::ALL {
                let case = format!("{protocol} {compression} {}", signal.name());
                let sent = payload(signal, encoding, 1000);
                assert_eq!(sent.len(), 1000, "{case}");
                assert_eq!(exporter.export(&delivery(vec![sent.clone()])).await, Outcome::Accepted, "{case}");
                let received = recorder.take();
                assert_eq!(received.len(), 1, "{case}");
                assert_eq!((received[0].signal(), received[0].len()), (signal, 1000), "{case}");
                assert_eq!(received[0].wire().unwrap().encoding, encoding, "{case}");
                assert_eq!(received[0].wire().unwrap().bytes, sent.wire().unwrap().bytes, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn several_payloads_arrive_as_one_request_whatever_they_were() {
    let recorder = Recorder::answering(Answer::Stored);
    let address = receiver(&Config::default(), &recorder).await;
    for (protocol, encoding) in PROTOCOLS {
        let exporter = exporter(&format!("endpoint: http://{address}\nprotocol: {protocol}\ncompression: none"));
        for signal in Signal::ALL {
            let mixed = vec![
                payload(signal, Encoding::Protobuf, 3),
                payload(signal, Encoding::Json, 4),
                payload(signal, Encoding::Protobuf, 5),
            ];
            assert_eq!(exporter.export(&delivery(mixed)).await, Outcome::Accepted);
            let received = recorder.take();
            assert_eq!(received.iter().map(Payload::len).collect::<Vec<_>>(), [12], "{protocol} {}", signal.name());
            assert_eq!(received[0].wire().unwrap().encoding, encoding);
        }
    }
}

#[tokio::test]
async fn protobuf_payloads_are_only_put_behind_each_other() {
    let recorder = Recorder::answering(Answer::Stored);
    let address = receiver(&Config::default(), &recorder).await;
    for protocol in ["http/protobuf", "grpc"] {
        for compression in ["none", "gzip"] {
            let exporter =
                exporter(&format!("endpoint: http://{address}\nprotocol: {protocol}\ncompression: {compression}"));
            let payloads =
                vec![payload(Signal::Logs, Encoding::Protobuf, 700), payload(Signal::Logs, Encoding::Protobuf, 2)];
            let expected =
                [payloads[0].wire().unwrap().bytes.clone(), payloads[1].wire().unwrap().bytes.clone()].concat();
            assert_eq!(exporter.export(&delivery(payloads)).await, Outcome::Accepted);
            assert_eq!(recorder.take()[0].wire().unwrap().bytes, expected, "{protocol} {compression}");
        }
    }
}

#[tokio::test]
async fn a_full_queue_reaches_the_sender_with_its_delay() {
    let answer = Answer::Later { after: Duration::from_millis(2500), why: "the queue of datadog is full".into() };
    let address = receiver(&Config::default(), &Recorder::answering(answer)).await;
    for (protocol, delay) in [("http/protobuf", 3000), ("http/json", 3000), ("grpc", 2500)] {
        let exporter = exporter(&format!("endpoint: http://{address}\nprotocol: {protocol}"));
        let Outcome::Later { after, why } = exporter.export(&logs(3)).await else { panic!("{protocol}: not later") };
        // Over HTTP the header has whole seconds and wins.
        assert_eq!(after, Some(Duration::from_millis(delay)), "{protocol}");
        assert!(why.contains("the queue of datadog is full"), "{why}");
    }
}

#[tokio::test]
async fn refused_records_reach_the_sender_with_their_number_and_reason() {
    let answer = Answer::Refused { records: 99, why: "too old".into() };
    let address = receiver(&Config::default(), &Recorder::answering(answer)).await;
    for (protocol, _) in PROTOCOLS {
        let exporter = exporter(&format!("endpoint: http://{address}\nprotocol: {protocol}"));
        for signal in Signal::ALL {
            let outcome = exporter.export(&delivery(vec![payload(signal, Encoding::Protobuf, 5)])).await;
            let expected = Outcome::Partly { refused: Refused::Count(5), why: "too old".into() };
            assert_eq!(outcome, expected, "{protocol} {}", signal.name());
        }
    }
}

#[tokio::test]
async fn only_the_right_key_opens() {
    let config = Config {
        bearer_token: Some(Secret::new("open sesame")),
        api_key: Some(Secret::new("k-1")),
        ..Config::default()
    };
    let recorder = Recorder::answering(Answer::Stored);
    let address = receiver(&config, &recorder).await;
    for (protocol, _) in PROTOCOLS {
        for (key, is_right) in [
            ("bearer_token: open sesame", true),
            ("headers: {Authorization: bearer open sesame}", true),
            ("headers: {x-api-key: k-1}", true),
            ("headers: {x-api-key: k-2}", false),
            ("headers: {x-api-key: \"\"}", false),
            ("bearer_token: open sesam", false),
            ("bearer_token: k-1", false),
            ("headers: {authorization: open sesame}", false),
            ("compression: none", false),
        ] {
            let exporter = exporter(&format!("endpoint: http://{address}\nprotocol: {protocol}\n{key}"));
            let outcome = exporter.export(&logs(1)).await;
            assert_eq!(outcome == Outcome::Accepted, is_right, "{protocol} {key}: {outcome:?}");
            assert_eq!(matches!(outcome, Outcome::Unauthorized { .. }), !is_right, "{protocol} {key}: {outcome:?}");
            assert_eq!(recorder.take().len(), usize::from(is_right), "{protocol} {key}");
        }
    }
}

type Headers<'a> = Vec<(&'a str, &'a str)>;

/// Sends a request as it stands, over HTTP/1.1.
async fn raw(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> weir_net::Answer {
    let mut request = http::Request::builder().method(method).uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Client::new(&HttpOptions::default()).unwrap().send(request.body(body.into()).unwrap(), 1 << 20).await.unwrap()
}

#[tokio::test]
async fn every_bad_http_request_gets_a_status_that_helps() {
    let recorder = Recorder::answering(Answer::Stored);
    let config = Config { max_request_size: ByteSize::from_bytes(100_000), ..Config::default() };
    let address = receiver(&config, &recorder).await;
    let protobuf = ("content-type", "application/x-protobuf");
    let (gzip, zstd) = (("content-encoding", "gzip"), ("content-encoding", "zstd"));
    let truncated = {
        let whole = Compression::Gzip.compress(request(Signal::Logs, Encoding::Protobuf, 100)).unwrap();
        whole.slice(..whole.len() / 2)
    };
    let bomb = |compression: Compression| compression.compress(vec![0_u8; 5 << 20].into()).unwrap();
    let half = request(Signal::Logs, Encoding::Protobuf, 1).slice(..20);
    let cases: Vec<(&str, &str, Headers<'_>, Bytes, u16, &str)> = vec![
        ("POST", "/v1/logs", vec![protobuf], half, 400, "byte"),
        ("POST", "/v1/logs", vec![protobuf, gzip], truncated, 400, "gzip"),
        ("POST", "/v1/logs", vec![protobuf, zstd], "not zstd".into(), 400, "zstd"),
        ("POST", "/v1/logs", vec![protobuf, gzip], bomb(Compression::Gzip), 413, "after decompression"),
        ("POST", "/v1/logs", vec![protobuf, zstd], bomb(Compression::Zstd), 413, "after decompression"),
        ("POST", "/v1/logs", vec![protobuf], vec![0_u8; 100_001].into(), 413, "max_request_size"),
        ("POST", "/v1/logs", vec![protobuf, ("content-encoding", "br")], "x".into(), 415, "use gzip, zstd or none"),
        ("POST", "/v1/logs", vec![("content-type", "text/plain")], "x".into(), 415, "application/json"),
        ("POST", "/v1/logs", vec![], "x".into(), 415, "application/x-protobuf"),
        ("GET", "/v1/logs", vec![], "".into(), 405, "POST"),
        ("POST", "/v1/log", vec![protobuf], "".into(), 404, "/v1/metrics, /v1/logs or /v1/traces"),
        ("GET", "/", vec![], "".into(), 404, "/v1/metrics, /v1/logs or /v1/traces"),
        ("POST", grpc_path(Signal::Logs), vec![("content-type", "application/grpc")], "".into(), 505, "HTTP/2"),
    ];
    for (method, path, headers, body, status, words) in cases {
        let case = format!("{method} {path} {headers:?}");
        let answer = raw(address, method, path, &headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{case}: {}", answer.excerpt());
        let encoding = if headers.contains(&protobuf) { Encoding::Protobuf } else { Encoding::Json };
        let told = Status::decode(encoding, &answer.body)
            .unwrap_or_else(|| panic!("{case}: no status in {}", answer.excerpt()));
        assert!(told.message.contains(words), "{case}: {}", told.message);
    }
    assert!(recorder.take().is_empty(), "nothing of this may reach the pipeline");
}

#[tokio::test]
async fn an_empty_request_is_a_success_and_nothing_to_store() {
    let recorder = Recorder::answering(Answer::Stored);
    let address = receiver(&Config::default(), &recorder).await;
    for (content_type, body, expected) in
        [("application/x-protobuf", "", ""), ("application/json; charset=utf-8", "{}", "{}")]
    {
        for signal in Signal::ALL {
            let answer = raw(address, "POST", http_path(signal), &[("content-type", content_type)], body).await;
            assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, expected.as_bytes()));
            assert_eq!(answer.headers["content-type"], content_type.split(';').next().unwrap());
        }
    }
    assert!(recorder.take().is_empty());
}

/// Calls a gRPC method with a body as it stands, over HTTP/2.
async fn raw_call(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (StatusCode, Option<Status>) {
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let mut request = client.post(format!("http://{address}{path}")).body(body.into());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, body) = http::Response::from(request.send().await.unwrap()).into_parts();
    let trailers = grpc::read_unary(body, 1 << 20).await.map(|unary| unary.trailers).unwrap_or_default();
    (parts.status, grpc::status_of(&parts.headers, &trailers))
}

fn framed(flag: u8, message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag][..], &length, message].concat().into()
}

#[tokio::test]
async fn every_bad_grpc_call_gets_a_status_that_helps() {
    let recorder = Recorder::answering(Answer::Stored);
    let config = Config { max_request_size: ByteSize::from_bytes(100_000), ..Config::default() };
    let address = receiver(&config, &recorder).await;
    let good = request(Signal::Logs, Encoding::Protobuf, 1);
    let bomb = Compression::Gzip.compress(vec![0_u8; 5 << 20].into()).unwrap();
    let path = grpc_path(Signal::Logs);
    let cases: Vec<(&str, Headers<'_>, Bytes, Code, &str)> = vec![
        (path, vec![], framed(0, &good[..20]), Code::InvalidArgument, "byte"),
        (path, vec![], framed(0, &good).slice(..15), Code::InvalidArgument, "breaks off"),
        (
            path,
            vec![],
            [framed(0, &good), framed(0, &good)].concat().into(),
            Code::InvalidArgument,
            "exactly one message",
        ),
        (path, vec![], framed(7, &good), Code::InvalidArgument, "compression flag"),
        (path, vec![], Bytes::new(), Code::InvalidArgument, "no message"),
        (path, vec![("grpc-encoding", "gzip")], framed(1, b"not gzip"), Code::InvalidArgument, "not valid gzip"),
        (path, vec![("grpc-encoding", "gzip")], framed(1, &bomb), Code::ResourceExhausted, "after decompression"),
        (path, vec![("grpc-encoding", "br")], framed(1, &good), Code::Unimplemented, "use gzip, zstd or identity"),
        (path, vec![], framed(0, &vec![0; 100_001]), Code::ResourceExhausted, "max_request_size"),
        (path, vec![], Bytes::from_static(&[0, 255, 255, 255, 255]), Code::ResourceExhausted, "4294967295"),
        (
            "/opentelemetry.proto.collector.profiles.v1.ProfilesService/Export",
            vec![],
            framed(0, b""),
            Code::Unimplemented,
            "metrics, logs and traces",
        ),
    ];
    for (path, mut headers, body, code, words) in cases {
        headers.push(("content-type", "application/grpc"));
        let case = format!("{path} {headers:?} {} bytes", body.len());
        let (http, status) = raw_call(address, path, &headers, body).await;
        let status = status.unwrap_or_else(|| panic!("{case}: no status"));
        assert_eq!((http, status.code), (StatusCode::OK, code), "{case}: {}", status.message);
        assert!(status.message.contains(words), "{case}: {}", status.message);
    }
    assert!(recorder.take().is_empty(), "nothing of this may reach the pipeline");
    let (http, status) = raw_call(address, path, &[("content-type", "text/plain")], framed(0, &good)).await;
    assert_eq!((http, status), (StatusCode::UNSUPPORTED_MEDIA_TYPE, None));
    let (_, status) = raw_call(address, path, &[("content-type", "application/grpc+proto")], framed(0, &good)).await;
    assert_eq!(status, Some(Status::new(Code::Ok, "")));
    assert_eq!(recorder.take().len(), 1);
}

/// A server that answers every request the same.
async fn always(make: impl Fn() -> Response + Clone + Send + Sync + 'static) -> SocketAddr {
    serve(Router::new().fallback(move |request: Request| {
        let make = make.clone();
        async move {
            // Whoever answers before the request is read may break the connection of the sender.
            let _ = axum::body::to_bytes(request.into_body(), 1 << 20).await;
            make()
        }
    }))
    .await
}

fn response(status: u16, headers: &[(&'static str, &'static str)], body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

#[tokio::test]
async fn http_answers_become_their_outcomes() {
    let protobuf = [("content-type", "application/x-protobuf")];
    let partial = PartialSuccess { rejected: 2, message: "too old".into() }.encode(Signal::Logs, Encoding::Protobuf);
    let warning = PartialSuccess { rejected: 0, message: "deprecated".into() }.encode(Signal::Logs, Encoding::Protobuf);
    let status = Status::new(Code::InvalidArgument, "bad \u{fc}").encode(Encoding::Protobuf);
    let outcome = |response: Box<dyn Fn() -> Response + Send + Sync>| async move {
        let response: Arc<dyn Fn() -> Response + Send + Sync> = response.into();
        let address = always(move || response()).await;
        exporter(&format!("endpoint: http://{address}")).export(&logs(5)).await
    };
    let accepted = Outcome::Accepted;
    assert_eq!(outcome(Box::new(|| response(202, &[], "fine"))).await, accepted);
    let page = outcome(Box::new(|| response(200, &[], "<html>sign in</html>"))).await;
    assert!(matches!(&page, Outcome::Later { after: None, why } if why.contains("web page")), "{page:?}");
    assert_eq!(outcome(Box::new(move || response(200, &protobuf, warning.clone()))).await, accepted);
    let expected = Outcome::Partly { refused: Refused::Count(2), why: "too old".into() };
    assert_eq!(outcome(Box::new(move || response(200, &protobuf, partial.clone()))).await, expected);
    let expected =
        Outcome::Later { after: Some(Duration::from_secs(11)), why: "429 Too Many Requests: slow down".into() };
    assert_eq!(outcome(Box::new(|| response(429, &[("retry-after", "11")], "slow down"))).await, expected);
    let expected = Outcome::Never { why: "400 Bad Request: bad \u{fc}".into() };
    assert_eq!(outcome(Box::new(move || response(400, &protobuf, status.clone()))).await, expected);
    let expected = Outcome::Split { why: "413 Payload Too Large".into() };
    assert_eq!(outcome(Box::new(|| response(413, &[], ""))).await, expected);
}

#[tokio::test]
async fn grpc_answers_become_their_outcomes() {
    let status =
        Status { code: Code::ResourceExhausted, message: "quota".into(), retry_after: Some(Duration::from_secs(5)) };
    let address = always(move || grpc::failure(&status)).await;
    let outcome = exporter(&format!("endpoint: http://{address}\nprotocol: grpc")).export(&logs(5)).await;
    assert_eq!(
        outcome,
        Outcome::Later { after: Some(Duration::from_secs(5)), why: "RESOURCE_EXHAUSTED: quota".into() }
    );

    let address = always(|| response(502, &[], "bad gateway")).await;
    let outcome = exporter(&format!("endpoint: http://{address}\nprotocol: grpc")).export(&logs(5)).await;
    assert!(matches!(&outcome, Outcome::Later { why, .. } if why.contains("502")), "{outcome:?}");

    let address = always(|| grpc::failure(&Status::new(Code::InvalidArgument, "line 1\n100 %"))).await;
    let outcome = exporter(&format!("endpoint: http://{address}\nprotocol: grpc")).export(&logs(5)).await;
    assert_eq!(outcome, Outcome::Never { why: "INVALID_ARGUMENT: line 1 100 %".into() });
}

/// A server that reads something and then does `then`, on every connection.
async fn rude(then: &'static [u8], keeps_open: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut some = [0_u8; 1024];
            let _ = stream.read(&mut some).await;
            let _ = stream.write_all(then).await;
            if keeps_open {
                open.push(stream);
            }
        }
    });
    address
}

/// An address where nothing listens any more.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn without_an_answer_the_records_are_sent_again_later() {
    let silent = rude(b"", true).await;
    let half = rude(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", false).await;
    let closing = rude(b"", false).await;
    for protocol in ["http/protobuf", "grpc"] {
        for (address, words) in [
            (silent, "within the timeout"),
            (half, if protocol == "grpc" { "gRPC server" } else { "closed the connection" }),
            (closing, if protocol == "grpc" { "gRPC server" } else { "closed the connection" }),
            (nobody().await, "refuses the connection"),
        ] {
            let exporter = exporter(&format!("endpoint: http://{address}\nprotocol: {protocol}\ntimeout: 500ms"));
            let outcome = exporter.export(&logs(1)).await;
            let Outcome::Later { after: None, why } = &outcome else { panic!("{protocol}: {outcome:?}") };
            assert!(why.contains(words), "{protocol}, expected `{words}`: {why}");
        }
    }
}

#[tokio::test]
async fn a_check_tells_right_target_wrong_port_wrong_path_and_wrong_key_apart() {
    let config = Config { bearer_token: Some(Secret::new("right")), ..Config::default() };
    let recorder = Recorder::answering(Answer::Stored);
    let address = receiver(&config, &recorder).await;
    let check = async |options: String| exporter(&options).check().await;
    let kind = |result: Result<String, Fault>| result.map_err(|fault| (fault.kind, fault.message));
    for (protocol, _) in PROTOCOLS {
        let fine = kind(
            check(format!(
                "endpoint: http://{address}\nprotocol: {protocol}\nbearer_token: right\nsignals: [traces, logs]"
            ))
            .await,
        );
        assert!(
            fine.as_ref().is_ok_and(|told| told.contains("takes logs, traces") && told.contains(protocol)),
            "{fine:?}"
        );

        let key = kind(check(format!("endpoint: http://{address}\nprotocol: {protocol}\nbearer_token: hunter2")).await)
            .unwrap_err();
        assert!(
            key.0 == FaultKind::Unauthorized && key.1.contains("bearer_token") && !key.1.contains("hunter2"),
            "{key:?}"
        );

        let path =
            kind(check(format!("endpoint: http://{address}/otlp\nprotocol: {protocol}\nbearer_token: right")).await)
                .unwrap_err();
        assert!(path.0 == FaultKind::NotFound, "{path:?}");

        let port = kind(
            check(format!("endpoint: http://{}\nprotocol: {protocol}\nbearer_token: right", nobody().await)).await,
        )
        .unwrap_err();
        assert!(port.0 == FaultKind::Unreachable && port.1.contains("is the port right?"), "{port:?}");
    }
    assert!(recorder.take().is_empty(), "checks send no records");
}

#[tokio::test]
async fn a_check_notices_a_page_and_a_server_of_the_other_transport() {
    let page = always(|| response(200, &[("content-type", "text/html; charset=utf-8")], "<html>Welcome</html>")).await;
    let fault = exporter(&format!("endpoint: http://{page}")).check().await.unwrap_err();
    assert!(fault.kind == FaultKind::NotFound && fault.message.contains("page"), "{fault:?}");

    let old = rude(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", false).await;
    let fault = exporter(&format!("endpoint: http://{old}\nprotocol: grpc")).check().await.unwrap_err();
    assert!(
        fault.kind == FaultKind::Unreachable && fault.message.contains("does a gRPC server listen at this port"),
        "{fault:?}"
    );

    // The SETTINGS frame with which an HTTP/2 server begins (RFC 9113 section 3.4).
    let new = rude(b"\0\0\0\x04\0\0\0\0\0", false).await;
    let fault = exporter(&format!("endpoint: http://{new}")).check().await.unwrap_err();
    assert!(fault.message.contains("`protocol: grpc`"), "{fault:?}");

    let plain = always(|| response(404, &[], "404 page not found")).await;
    let fault = exporter(&format!("endpoint: http://{plain}\nprotocol: grpc")).check().await.unwrap_err();
    assert!(fault.kind == FaultKind::NotFound && fault.message.contains("4317"), "{fault:?}");
}

/// A server that remembers where requests went and what they carried.
async fn remembering() -> (SocketAddr, Arc<Mutex<Vec<(String, HeaderMap)>>>) {
    let seen: Arc<Mutex<Vec<(String, HeaderMap)>>> = Arc::default();
    let sink = seen.clone();
    let router = Router::new().fallback(move |request: Request| {
        let sink = sink.clone();
        async move {
            sink.lock().unwrap().push((request.uri().to_string(), request.headers().clone()));
            StatusCode::OK
        }
    });
    (serve(router).await, seen)
}

#[tokio::test]
async fn paths_are_added_to_the_base_but_not_to_an_address_of_its_own() {
    let (address, seen) = remembering().await;
    let exporter = exporter(&format!(
        "endpoint: http://user:pass%20word@{address}/otlp/\ntraces_endpoint: http://{address}/mine?tenant=7\ncompression: zstd\nheaders: {{X-Scope-OrgID: \"42\"}}"
    ));
    for signal in Signal::ALL {
        assert_eq!(exporter.export(&delivery(vec![payload(signal, Encoding::Protobuf, 1)])).await, Outcome::Accepted);
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let paths: Vec<&str> = seen.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["/otlp/v1/metrics", "/otlp/v1/logs", "/mine?tenant=7"]);
    for (_, headers) in &seen {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["content-encoding"], "zstd");
        assert_eq!(headers["x-scope-orgid"], "42");
        assert!(headers["user-agent"].to_str().unwrap().starts_with("weir/"));
    }
    // RFC 7617: base64 of `user:pass word`.
    assert_eq!(seen[0].1["authorization"], "Basic dXNlcjpwYXNzIHdvcmQ=");
    assert!(seen[2].1.get("authorization").is_none(), "the user belongs to one address");
}

#[test]
fn signals_choose_what_is_taken() {
    let takes = |options: &str| exporter(options).takes().signals;
    assert_eq!(takes("signals: []"), Signal::ALL);
    assert_eq!(takes("signals: [traces, metrics, traces]"), [Signal::Metrics, Signal::Traces]);
    assert_eq!(takes("signals: [logs]"), [Signal::Logs]);
    assert_eq!(takes("signals: [traces, logs, metrics]"), Signal::ALL);
}

#[test]
fn wrong_options_are_named_without_their_secrets() {
    for (kind, options, words) in [
        (&EXPORTER, "protocol: http", "http/protobuf"),
        (&EXPORTER, "endpiont: http://a", "endpoint"),
        (&EXPORTER, "timeuot: 5s", "timeout"),
        (&EXPORTER, "bearer_token: hunter2\nheaders: {Authorization: hunter2}", "given twice"),
        (&EXPORTER, "headers: {\"bad name\": hunter2}", "bad name"),
        (&EXPORTER, "headers: {x-key: \"hunter2\\n\"}", "x-key"),
        (&EXPORTER, "ca_file: /nowhere/ca.pem", "/nowhere/ca.pem"),
        (&EXPORTER, "protocol: grpc\nca_file: /nowhere/ca.pem", "/nowhere/ca.pem"),
        (&RECEIVER, "grpc: null\nhttp: null", "both off"),
        (&RECEIVER, "max_request_size: 0", "max_request_size"),
    ] {
        let error = open(kind, options).err().unwrap_or_else(|| panic!("{options} was taken"));
        assert!(error.contains(words), "{options}: {error}");
        assert!(!error.contains("hunter2"), "{options}: {error}");
    }
}

#[test]
fn the_samples_parse() {
    for kind in [&EXPORTER, &RECEIVER] {
        let (first, options) = kind.about.sample.split_once('\n').unwrap();
        assert_eq!(first, format!("{}:", kind.name()));
        let unindented = options.lines().map(|line| line.strip_prefix("  ").unwrap()).collect::<Vec<_>>().join("\n");
        assert!(open(kind, &unindented).is_ok());
        assert!(open(kind, "").is_ok(), "no key is required");
    }
}

/// Sends to a real receiver: `WEIR_OTLP_TARGET=127.0.0.1 cargo test -- --ignored real_receiver`, with gRPC
/// on 4317 and HTTP on 4318 (or `WEIR_OTLP_GRPC_PORT` and `WEIR_OTLP_HTTP_PORT`).
#[tokio::test]
#[ignore = "needs an OpenTelemetry Collector"]
async fn a_real_receiver_takes_everything() {
    let host = std::env::var("WEIR_OTLP_TARGET").unwrap();
    let port = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    for (protocol, _) in PROTOCOLS {
        let port =
            if protocol == "grpc" { port("WEIR_OTLP_GRPC_PORT", "4317") } else { port("WEIR_OTLP_HTTP_PORT", "4318") };
        for compression in ["none", "gzip", "zstd"] {
            let exporter =
                exporter(&format!("endpoint: http://{host}:{port}\nprotocol: {protocol}\ncompression: {compression}"));
            exporter.check().await.unwrap();
            for signal in Signal::ALL {
                let payloads = vec![payload(signal, Encoding::Protobuf, 3), payload(signal, Encoding::Protobuf, 4)];
                assert_eq!(exporter.export(&delivery(payloads)).await, Outcome::Accepted, "{protocol} {compression}");
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs an OpenTelemetry Collector"]
async fn a_real_receiver_refuses_as_expected() {
    let host = std::env::var("WEIR_OTLP_TARGET").unwrap();
    let port = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let (grpc, http) = (port("WEIR_OTLP_GRPC_PORT", "4317"), port("WEIR_OTLP_HTTP_PORT", "4318"));
    for (options, kind) in [
        (format!("endpoint: http://{host}:{grpc}"), FaultKind::Other),
        (format!("endpoint: http://{host}:{http}\nprotocol: grpc"), FaultKind::Unreachable),
        (format!("endpoint: http://{host}:{http}/otlp"), FaultKind::NotFound),
        (format!("endpoint: http://{host}:{grpc}/otlp\nprotocol: grpc"), FaultKind::NotFound),
    ] {
        let fault = exporter(&options).check().await.unwrap_err();
        println!("{options:?}: {:?}: {}", fault.kind, fault.message);
        assert_eq!(fault.kind, kind, "{options}: {}", fault.message);
    }
    // A Collector takes 4 MiB in one message over gRPC, and 20 MiB over HTTP.
    for (options, records) in [
        (format!("endpoint: http://{host}:{grpc}\nprotocol: grpc"), 300_000),
        (format!("endpoint: http://{host}:{http}\ncompression: none"), 1_100_000),
    ] {
        let outcome = exporter(&options).export(&logs(records)).await;
        println!("{options:?}: {outcome:?}");
        assert!(matches!(outcome, Outcome::Split { .. }), "{options}: {outcome:?}");
    }
}

/// Waits for requests of a real sender at `WEIR_OTLP_LISTEN` until `WEIR_OTLP_REQUESTS` have come, and
/// shows what came: `cargo test -- --ignored --nocapture real_sender`.
#[tokio::test]
#[ignore = "needs an OpenTelemetry SDK"]
async fn a_real_sender_is_understood() {
    let expected: usize = std::env::var("WEIR_OTLP_REQUESTS").unwrap().parse().unwrap();
    let address: weir_config::SocketAddress = std::env::var("WEIR_OTLP_LISTEN").unwrap().parse().unwrap();
    let recorder = Recorder::answering(Answer::Stored);
    let endpoint = Endpoint::new(&Config::default(), 64 << 20, recorder.clone());
    let listener = weir_net::bind(&address).await.unwrap();
    tokio::spawn(weir_net::serve(listener, router(&Arc::new(endpoint)), std::future::pending()));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
    let mut seen = 0;
    while seen < expected {
        assert!(tokio::time::Instant::now() < deadline, "only {seen} requests came");
        tokio::time::sleep(Duration::from_millis(50)).await;
        for payload in recorder.take() {
            seen += 1;
            let wire = payload.wire().unwrap();
            println!(
                "{}: {} records, {} bytes of {:?}",
                payload.signal().name(),
                payload.len(),
                wire.bytes.len(),
                wire.encoding
            );
            assert!(!payload.is_empty());
            assert_eq!(payload.records().unwrap().len(), payload.len());
        }
    }
}
