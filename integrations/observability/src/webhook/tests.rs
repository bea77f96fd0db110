//! Every answer against real loopback servers, bodies read by independent readers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use sha2::{Digest, Sha256};
use weir_config::Settings;
use weir_model::common::{Attribute, Resource, Scope};
use weir_model::logs::{LogRecord, Logs};
use weir_model::metrics::{Buckets, Distribution, ExponentialPoint, HistogramPoint, SummaryPoint};
use weir_model::traces::{Span, Status, Traces};
use weir_model::{MetricDescription, MetricsBuilder, Payload, Records, Value};
use weir_pipeline::{FaultKind, MetricKind, Open, Opened};

use super::endpoint::sign;
use super::*;

const NOON: u64 = 1_736_251_390_000_000_000;

const QUEUE: MetricDescription<'static> =
    MetricDescription { name: "queue.length", unit: "{job}", kind: MetricKind::Gauge, help: "Jobs that wait." };
const LATENCY: MetricDescription<'static> =
    MetricDescription { name: "latency", unit: "s", kind: MetricKind::Histogram, help: "Time per job." };

fn gauges(values: &[f64]) -> Payload {
    let mut out = MetricsBuilder::new("jobs", vec![("host.name".into(), "web-prod-01".into())]);
    out.begin(NOON, 0);
    for (at, value) in values.iter().enumerate() {
        out.record(&QUEUE, &[("queue", &format!("q{at}"))], *value);
    }
    Payload::from_records(Records::Metrics(out.finish()))
}

fn numbered(count: u32) -> Delivery {
    delivery(vec![gauges(&(0..count).map(f64::from).collect::<Vec<_>>())])
}

fn delivery(payloads: Vec<Payload>) -> Delivery {
    Delivery { signal: payloads[0].signal(), payloads, id: 0xfeed }
}

fn log(body: &str) -> Payload {
    let mut logs = Logs::default();
    let attributes = logs.common.add_texts([("host.name", "web-prod-01")]);
    logs.common.resources.push(Resource { attributes, ..Resource::default() });
    logs.common.scopes.push(Scope { present: true, ..Scope::default() });
    let start = logs.common.attributes.len();
    let key = logs.common.arena.add(b"retries");
    logs.common.attributes.push(Attribute { key, value: Value::Int(3) });
    let attributes = logs.common.attributes_since(start);
    let record = LogRecord {
        time_unix_nano: NOON + 123_000_000,
        severity_number: 17,
        body: Value::String(logs.common.arena.add(body.as_bytes())),
        trace_id: logs.common.arena.add(&[0xab; 16]),
        attributes,
        ..LogRecord::default()
    };
    logs.records.push(record);
    Payload::from_records(Records::Logs(logs))
}

fn span() -> Payload {
    let mut traces = Traces::default();
    traces.common.resources.push(Resource::default());
    traces.common.scopes.push(Scope::default());
    let span = Span {
        name: traces.common.arena.add(b"GET /"),
        trace_id: traces.common.arena.add(&[1; 16]),
        span_id: traces.common.arena.add(&[2; 8]),
        kind: 2,
        start_time_unix_nano: NOON,
        end_time_unix_nano: NOON + 12_000_000,
        status: Some(Status { code: 2, message: traces.common.arena.add(b"boom") }),
        ..Span::default()
    };
    traces.spans.push(span);
    Payload::from_records(Records::Traces(traces))
}

/// What a server saw of a request.
#[derive(Clone)]
struct Hit {
    method: Method,
    path: String,
    headers: HeaderMap,
    raw: Bytes,
}

impl Hit {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn body(&self) -> Bytes {
        let compression = Compression::from_header(self.header("content-encoding")).unwrap();
        compression.decompress(self.raw.clone(), 10 << 20).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body()).unwrap()
    }

    /// The `value` of every record.
    fn values(&self) -> Vec<f64> {
        self.json().as_array().unwrap().iter().map(|record| record["value"].as_f64().unwrap()).collect()
    }
}

/// A server on a port of its own; it answers the scripted statuses and then 200.
struct Server {
    url: String,
    hits: Arc<Mutex<Vec<Hit>>>,
}

type Answerer = dyn Fn(&Hit) -> (StatusCode, HeaderMap, &'static str) + Send + Sync;

impl Server {
    async fn answering(answer: Box<Answerer>) -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let hits = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer): (_, Arc<Answerer>) = (hits.clone(), answer.into());
        let handler = move |method: Method, uri: Uri, headers: HeaderMap, raw: Bytes| async move {
            let hit = Hit { method, path: uri.path().to_owned(), headers, raw };
            seen.lock().unwrap().push(hit.clone());
            answer(&hit)
        };
        let router = Router::new().fallback(handler);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Server { url, hits }
    }

    async fn scripted(statuses: &[u16]) -> Server {
        let script = Mutex::new(statuses.iter().copied().collect::<VecDeque<_>>());
        Server::answering(Box::new(move |_| {
            let status = script.lock().unwrap().pop_front().unwrap_or(200);
            (StatusCode::from_u16(status).unwrap(), HeaderMap::new(), "as told")
        }))
        .await
    }

    fn hits(&self) -> Vec<Hit> {
        self.hits.lock().unwrap().clone()
    }
}

fn context() -> Context {
    Context {
        data_folder: std::env::temp_dir().into(),
        name: "webhook".into(),
        interval: std::time::Duration::from_secs(10),
        timeout: std::time::Duration::from_secs(10),
        resource: Vec::new(),
        telemetry: Arc::default(),
    }
}

struct Token;

impl weir_config::Lookup for Token {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "WEBHOOK_TOKEN").then(|| "t0ken".to_owned())
    }

    fn file(&self, _: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

fn open(block: &str) -> Result<Opened, String> {
    let indented: String = block.lines().map(|line| format!("  {line}\n")).collect();
    let settings =
        Settings::parse("weir.yaml", &format!("integrations:\n{indented}"), &Token).map_err(|p| p.to_string())?;
    let context = context();
    KIND.open(Open { file: "weir.yaml", block: &settings.integrations[0], context: &context })
        .map_err(|p| p.to_string())
}

fn exporter(block: &str) -> Box<dyn weir_pipeline::role::DynExport> {
    match open(block) {
        Ok(Opened::Export(_, exporter)) => exporter,
        Ok(_) => panic!("not an exporter"),
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn the_documented_block_parses_as_it_stands() {
    let exporter = exporter(&ABOUT.sample.replace("webhook:\n", "webhook:\n  enabled: true\n"));
    assert_eq!(exporter.takes().signals, [Signal::Metrics, Signal::Logs], "traces: false");
}

#[test]
fn blocks_that_make_no_sense_are_refused_with_the_remedy() {
    for (block, expected) in [
        ("webhook:\n  endpoints: []", "nowhere to send to"),
        ("webhook:\n  url: http://a\n  endpoints: [{url: 'http://b'}]", "either `url` or `endpoints`"),
        ("webhook:\n  encoding: json\n  endpoints: [{url: 'http://b'}]", "`encoding` beside `endpoints`"),
        ("webhook:\n  url: http://a\n  encoding: text", "needs a `template`"),
        ("webhook:\n  url: http://a\n  template: x", "`encoding: text` only"),
        ("webhook:\n  url: http://a\n  encoding: text\n  template: '{{tmie}}'", "{{time}}"),
        ("webhook:\n  url: http://a\n  metrics: false\n  logs: false\n  traces: false", "nothing would be sent"),
        ("webhook:\n  url: http://a\n  headers: {'b ad': x}", "cannot be the name of a header"),
        ("webhook:\n  url: http://a\n  bearer_token: t\n  username: u", "exclude each other"),
        ("webhook:\n  url: http://a\n  bearer_token: t\n  headers: {authorization: x}", "keep one of them"),
        ("webhook:\n  url: http://a\n  signing_kee: k", "signing_key"),
        ("webhook:\n  endpoints: [{url: 'http://a', bacth_size: 1}]", "batch_size"),
    ] {
        let problems = open(block).err().unwrap_or_else(|| panic!("{block} was taken"));
        assert!(problems.contains(expected), "{block}\n{problems}");
    }
}

#[tokio::test]
async fn json_holds_one_readable_object_per_record() {
    let server = Server::scripted(&[]).await;
    let exporter = exporter(&format!("webhook:\n  url: {}/in", server.url));
    assert_eq!(
        exporter.export(&delivery(vec![gauges(&[4.5, f64::NAN]), gauges(&[f64::INFINITY])])).await,
        Outcome::Accepted
    );
    assert_eq!(exporter.export(&delivery(vec![log("disk \"full\"\n")])).await, Outcome::Accepted);
    assert_eq!(exporter.export(&delivery(vec![span()])).await, Outcome::Accepted);
    let hits = server.hits();
    assert_eq!((hits[0].header("content-type"), hits[0].path.as_str()), ("application/json", "/in"));
    let expected = serde_json::json!({
        "signal": "metric", "name": "queue.length", "unit": "{job}", "kind": "gauge", "value": 4.5,
        "time": "2025-01-07T12:03:10Z", "attributes": {"queue": "q0"}, "resource": {"host.name": "web-prod-01"}, "scope": "jobs",
    });
    assert_eq!(hits[0].json()[0], expected);
    assert_eq!(hits[0].json()[1]["value"], "NaN");
    assert_eq!(hits[0].json()[2]["value"], "Infinity");
    let expected = serde_json::json!([{
        "signal": "log", "time": "2025-01-07T12:03:10.123Z", "severity": "ERROR", "severity_number": 17,
        "body": "disk \"full\"\n", "trace_id": "ab".repeat(16), "attributes": {"retries": 3},
        "resource": {"host.name": "web-prod-01"},
    }]);
    assert_eq!(hits[1].json(), expected);
    let expected = serde_json::json!([{
        "signal": "span", "name": "GET /", "kind": "server", "time": "2025-01-07T12:03:10Z",
        "end_time": "2025-01-07T12:03:10.012Z", "duration_seconds": 0.012, "status": "error", "status_message": "boom",
        "trace_id": "01".repeat(16), "span_id": "02".repeat(8), "attributes": {}, "resource": {},
    }]);
    assert_eq!(hits[2].json(), expected);
}

#[test]
fn every_field_of_an_object_can_stand_in_a_template() {
    let mut out = MetricsBuilder::new("jobs", Vec::new());
    out.begin(NOON, 0);
    let distribution =
        Distribution { count: 3, sum: Some(0.5), min: Some(0.1), max: Some(f64::NAN), ..Distribution::default() };
    let point = HistogramPoint { distribution, explicit_bounds: vec![0.2], bucket_counts: vec![1, 2] };
    out.record_histogram(&LATENCY, &[], point);
    let histogram = Payload::from_records(Records::Metrics(out.finish()));
    let mut metrics = match gauges(&[1.0]).into_records() {
        Ok(Records::Metrics(metrics)) => metrics,
        other => panic!("{other:?}"),
    };
    let buckets = Some(Buckets { offset: 1, counts: vec![1] });
    metrics.exponential.push(ExponentialPoint { positive: buckets.clone(), negative: buckets, ..Default::default() });
    metrics.summaries.push(SummaryPoint { quantiles: vec![(0.5, 1.0)], ..Default::default() });
    for payload in [Payload::from_records(Records::Metrics(metrics)), histogram, gauges(&[1.0]), log("x"), span()] {
        for record in crate::readable::of(payload.records().unwrap()) {
            for (name, _) in serde_json::to_value(record).unwrap().as_object().unwrap() {
                assert!(crate::readable::FIELDS.contains(&name.as_str()), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn ndjson_and_text_hold_one_line_per_record() {
    let server = Server::scripted(&[]).await;
    let block = format!(
        "webhook:\n  endpoints:\n    - {{url: '{0}/n', encoding: ndjson, method: PUT}}\n    - {{url: '{0}/t', encoding: text, template: '{{{{time}}}} {{{{name}}}} {{{{value}}}} {{{{resource.host.name}}}}'}}",
        server.url
    );
    assert_eq!(exporter(&block).export(&numbered(2)).await, Outcome::Accepted);
    let hits = server.hits();
    let (lines, text) = if hits[0].path == "/n" { (&hits[0], &hits[1]) } else { (&hits[1], &hits[0]) };
    assert_eq!((&lines.method, lines.header("content-type")), (&Method::PUT, "application/x-ndjson"));
    let values: Vec<serde_json::Value> = lines
        .body()
        .split(|b| *b == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    assert_eq!((values.len(), &values[1]["value"]), (2, &serde_json::json!(1.0)));
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    let expected =
        "2025-01-07T12:03:10Z queue.length 0.0 web-prod-01\n2025-01-07T12:03:10Z queue.length 1.0 web-prod-01\n";
    assert_eq!(text.body(), expected);
}

#[tokio::test]
async fn otlp_json_is_read_by_the_official_types_also_in_pieces() {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::{metric::Data, number_data_point};
    let server = Server::scripted(&[]).await;
    let exporter =
        exporter(&format!("webhook:\n  endpoints: [{{url: '{}', encoding: otlp_json, batch_size: 3}}]", server.url));
    let both = delivery(vec![gauges(&[0.5, 1.5]), gauges(&[2.5, 3.5, 4.5])]);
    assert_eq!(exporter.export(&both).await, Outcome::Accepted);
    let mut requests = Vec::new();
    for hit in server.hits() {
        let request: ExportMetricsServiceRequest = serde_json::from_slice(&hit.body()).unwrap();
        let metrics = request.resource_metrics.iter().flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics);
        let points = metrics.flat_map(|metric| match &metric.data {
            Some(Data::Gauge(gauge)) => gauge.data_points.clone(),
            other => panic!("{other:?}"),
        });
        let values: Vec<f64> = points
            .map(|point| match point.value {
                Some(number_data_point::Value::AsDouble(value)) => value,
                other => panic!("{other:?}"),
            })
            .collect();
        requests.push(values);
    }
    assert_eq!(requests, [vec![0.5, 1.5, 2.5], vec![3.5, 4.5]]);
}

#[tokio::test]
async fn every_status_has_its_one_outcome() {
    for (status, expected) in [
        (200, "Accepted"),
        (204, "Accepted"),
        (301, "Never"),
        (400, "Never"),
        (401, "Unauthorized"),
        (403, "Unauthorized"),
        (404, "Never"),
        (408, "Later"),
        (425, "Later"),
        (429, "Later"),
        (500, "Later"),
        (503, "Later"),
    ] {
        let server = Server::scripted(&[status]).await;
        let outcome = exporter(&format!("webhook:\n  url: {}", server.url)).export(&numbered(2)).await;
        assert!(format!("{outcome:?}").starts_with(expected), "{status}: {outcome:?}");
        assert_eq!(server.hits().len(), 1, "{status}: one attempt is one request");
    }
}

#[tokio::test]
async fn a_retry_after_is_handed_to_the_runner_and_an_absent_server_is_later() {
    let server = Server::answering(Box::new(|_| {
        (StatusCode::TOO_MANY_REQUESTS, HeaderMap::from_iter([(http::header::RETRY_AFTER, "7".parse().unwrap())]), "")
    }))
    .await;
    let outcome = exporter(&format!("webhook:\n  url: {}", server.url)).export(&numbered(1)).await;
    assert!(matches!(outcome, Outcome::Later { after: Some(after), .. } if after.as_secs() == 7), "{outcome:?}");
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outcome = exporter(&format!("webhook:\n  url: http://{free}/secret-path")).export(&numbered(1)).await;
    let Outcome::Later { why, .. } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains("refuses the connection") && !why.contains("secret-path"), "{why}");
}

#[tokio::test]
async fn a_repeat_for_one_endpoint_does_not_reach_the_healthy_one_again() {
    let (sick, healthy) = (Server::scripted(&[503, 500]).await, Server::scripted(&[]).await);
    let exporter =
        exporter(&format!("webhook:\n  endpoints: [{{name: sick, url: '{}'}}, {{url: '{}'}}]", sick.url, healthy.url));
    let delivery = numbered(3);
    for _ in 0..2 {
        let outcome = exporter.export(&delivery).await;
        assert!(matches!(&outcome, Outcome::Later { why, .. } if why.contains("`sick`")), "{outcome:?}");
    }
    assert_eq!(exporter.export(&delivery).await, Outcome::Accepted);
    assert_eq!((sick.hits().len(), healthy.hits().len()), (3, 1));
    let keys: Vec<String> = sick.hits().iter().map(|hit| hit.header("idempotency-key").to_owned()).collect();
    assert!(keys.iter().all(|key| key == &keys[0]), "a repeat has the key of its first attempt: {keys:?}");
    assert_ne!(keys[0], healthy.hits()[0].header("idempotency-key"));
    assert_eq!(exporter.export(&delivery).await, Outcome::Accepted);
    assert_eq!(healthy.hits().len(), 2, "a settled delivery is forgotten");
}

#[tokio::test]
async fn a_page_that_something_else_answers_is_no_success_where_the_owner_has_said_what_one_is() {
    let pages = Mutex::new(vec!["<html>Please sign in</html>"]);
    let server = Server::answering(Box::new(move |_| {
        let page = pages.lock().unwrap().pop();
        (StatusCode::OK, HeaderMap::new(), page.unwrap_or(r#"{"ok": true}"#))
    }))
    .await;
    let block = format!("webhook:\n  url: {}\n  success: {{body: '\"ok\": *true'}}", server.url);
    let exporter = exporter(&block);
    let delivery = numbered(2);
    let outcome = exporter.export(&delivery).await;
    assert!(
        matches!(&outcome, Outcome::Later { why, .. } if why.contains("`success.body`") && why.contains("sign in")),
        "{outcome:?}"
    );
    assert_eq!(exporter.export(&delivery).await, Outcome::Accepted);
    assert_eq!(exporter.check().await.unwrap().split(": ").last(), Some("takes batches"));

    let portal = Server::answering(Box::new(|_| (StatusCode::OK, HeaderMap::new(), "<html>"))).await;
    let block = format!("webhook:\n  endpoints: [{{url: '{}', success: {{statuses: [201]}}}}]", portal.url);
    let fault = self::exporter(&block).check().await.unwrap_err();
    assert!(fault.message.contains("`success.statuses`"), "{fault}");
}

#[tokio::test]
async fn a_repeat_starts_at_the_piece_that_failed() {
    let server = Server::scripted(&[200, 503]).await;
    let exporter = exporter(&format!("webhook:\n  endpoints: [{{url: '{}', batch_size: 2}}]", server.url));
    let delivery = numbered(5);
    assert!(matches!(exporter.export(&delivery).await, Outcome::Later { .. }));
    assert_eq!(exporter.export(&delivery).await, Outcome::Accepted);
    let values: Vec<Vec<f64>> = server.hits().iter().map(Hit::values).collect();
    assert_eq!(values, [vec![0.0, 1.0], vec![2.0, 3.0], vec![2.0, 3.0], vec![4.0]]);
}

#[tokio::test]
async fn what_is_too_large_is_halved_and_a_single_record_that_is_too_large_is_refused() {
    let server = Server::answering(Box::new(|hit| {
        let values = hit.values();
        let fits = values.len() == 1 && values != [2.0];
        (if fits { StatusCode::OK } else { StatusCode::PAYLOAD_TOO_LARGE }, HeaderMap::new(), "")
    }))
    .await;
    let outcome = exporter(&format!("webhook:\n  url: {}", server.url)).export(&numbered(4)).await;
    assert!(matches!(&outcome, Outcome::Partly { refused: Refused::Records(at), .. } if at == &[2]), "{outcome:?}");
}

#[tokio::test]
async fn of_a_piece_that_is_refused_the_records_are_sent_again_without_the_others_until_they_are_all_there_is() {
    let server = Server::answering(Box::new(|hit| {
        let status = if hit.values().contains(&2.0) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
        (status, HeaderMap::new(), "look at it")
    }))
    .await;
    let exporter = exporter(&format!("webhook:\n  endpoints: [{{url: '{}', batch_size: 2}}]", server.url));
    let (outcome, answer) = answer_note::watch(exporter.export(&numbered(5))).await;
    assert!(
        matches!(&outcome, Outcome::Each { refused, later, after: Some(Duration::ZERO), .. }
            if refused.is_empty() && later == &[2, 3]),
        "{outcome:?}"
    );
    assert_eq!(answer.map(|answer| answer.status), Some(400), "not the success of the piece behind it");
    let values: Vec<Vec<f64>> = server.hits().iter().map(Hit::values).collect();
    assert_eq!(values, [vec![0.0, 1.0], vec![2.0, 3.0], vec![4.0]]);
    let again = Delivery { payloads: vec![gauges(&[2.0, 3.0])], id: 2, ..numbered(5) };
    assert!(matches!(exporter.export(&again).await, Outcome::Never { .. }));
}

#[tokio::test]
async fn an_endpoint_that_used_up_its_attempts_goes_without_and_the_others_keep_theirs() {
    let (sick, healthy) = (Server::scripted(&[500; 9]).await, Server::scripted(&[]).await);
    let exporter = exporter(&format!(
        "webhook:\n  endpoints: [{{name: sick, url: '{}', retry_attempts: 2}}, {{url: '{}'}}]",
        sick.url, healthy.url
    ));
    let delivery = numbered(2);
    assert!(matches!(exporter.export(&delivery).await, Outcome::Later { .. }));
    assert!(matches!(exporter.export(&delivery).await, Outcome::Later { .. }));
    let outcome = exporter.export(&delivery).await;
    assert!(
        matches!(&outcome, Outcome::Partly { refused: Refused::Records(at), why }
            if at == &[0, 1] && why.contains("after 3 attempts") && why.contains("`sick`")),
        "not to be tried in halves: {outcome:?}"
    );
    assert_eq!((sick.hits().len(), healthy.hits().len()), (3, 1));
}

#[tokio::test]
async fn an_endpoint_gets_only_the_signals_that_it_takes() {
    let (metrics, logs) = (Server::scripted(&[]).await, Server::scripted(&[]).await);
    let exporter = exporter(&format!(
        "webhook:\n  endpoints: [{{url: '{}', logs: false, traces: false}}, {{url: '{}', metrics: false, traces: false}}]",
        metrics.url, logs.url
    ));
    assert_eq!(exporter.takes().signals, [Signal::Metrics, Signal::Logs]);
    assert_eq!(exporter.export(&numbered(1)).await, Outcome::Accepted);
    assert_eq!((metrics.hits().len(), logs.hits().len()), (1, 0));
}

#[tokio::test]
async fn redirects_are_not_followed_and_the_other_server_never_sees_the_credentials() {
    let other = Server::scripted(&[]).await;
    let location = format!("{}/moved?token=abc", other.url);
    let first = Server::answering(Box::new(move |_| {
        let headers = HeaderMap::from_iter([(http::header::LOCATION, location.parse().unwrap())]);
        (StatusCode::TEMPORARY_REDIRECT, headers, "")
    }))
    .await;
    let exporter = exporter(&format!("webhook:\n  url: {}\n  bearer_token: s3cret", first.url));
    let outcome = exporter.export(&numbered(1)).await;
    let Outcome::Never { why } = outcome else { panic!("{outcome:?}") };
    assert!(why.contains(&other.url) && why.contains("not followed") && !why.contains("abc"), "{why}");
    assert_eq!(first.hits()[0].header("authorization"), "Bearer s3cret");
    assert!(other.hits().is_empty());
}

#[tokio::test]
async fn credentials_headers_and_compression_arrive_as_configured() {
    for (compression, header) in [("gzip", "gzip"), ("zstd", "zstd"), ("none", "")] {
        let server = Server::scripted(&[]).await;
        let block = format!(
            "webhook:\n  url: {}\n  username: weir\n  password: pa55\n  compression: {compression}\n  headers: {{X-Team: core, content-type: application/vnd.x}}",
            server.url
        );
        assert_eq!(exporter(&block).export(&numbered(2)).await, Outcome::Accepted);
        let hit = &server.hits()[0];
        assert_eq!(hit.header("authorization"), "Basic d2VpcjpwYTU1");
        assert_eq!((hit.header("x-team"), hit.header("content-type")), ("core", "application/vnd.x"));
        assert_eq!(hit.header("content-encoding"), header);
        assert_eq!(hit.values(), [0.0, 1.0]);
    }
}

/// HMAC as RFC 2104 defines it, written out: independent of the crate that signs.
fn hmac_by_definition(key: &[u8], message: &[u8]) -> String {
    let mut block = [0_u8; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::digest([block.map(|b| b ^ 0x36).as_slice(), message].concat());
    let outer = Sha256::digest([block.map(|b| b ^ 0x5c).as_slice(), &inner].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_signature_agrees_with_rfc_4231() {
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(sign(b"Jefe", [&b"what do ya want "[..], b"for nothing?"]).unwrap(), expected);
    assert_eq!(hmac_by_definition(b"Jefe", b"what do ya want for nothing?"), expected);
}

#[tokio::test]
async fn a_receiver_can_verify_the_signature_over_timestamp_and_sent_body() {
    let server = Server::scripted(&[]).await;
    let exporter = exporter(&format!("webhook:\n  url: {}\n  signing_key: k3y\n  compression: gzip", server.url));
    assert_eq!(exporter.export(&numbered(2)).await, Outcome::Accepted);
    let hit = &server.hits()[0];
    let timestamp: u64 = hit.header("x-timestamp").parse().unwrap();
    assert!(timestamp > 1_700_000_000, "unix seconds: {timestamp}");
    let signed = [timestamp.to_string().as_bytes(), b".", &hit.raw].concat();
    assert_eq!(hit.header("x-signature-256"), format!("sha256={}", hmac_by_definition(b"k3y", &signed)));
}

#[tokio::test]
async fn credentials_in_the_url_become_a_header() {
    let server = Server::scripted(&[]).await;
    let exporter = exporter(&format!("webhook:\n  url: {}", server.url.replace("http://", "http://weir:pa55@")));
    assert_eq!(exporter.export(&numbered(1)).await, Outcome::Accepted);
    assert_eq!(server.hits()[0].header("authorization"), "Basic d2VpcjpwYTU1");
}

#[tokio::test]
async fn check_tells_right_port_path_and_key_from_wrong_ones() {
    let check = |block: String| async move { exporter(&block).check().await };
    let server = Server::answering(Box::new(|hit| {
        let status = match (hit.path.as_str(), hit.header("authorization")) {
            ("/hook", "Bearer right") => StatusCode::OK,
            ("/hook", _) => StatusCode::UNAUTHORIZED,
            ("/strict", _) => StatusCode::BAD_REQUEST,
            ("/moved", _) => StatusCode::MOVED_PERMANENTLY,
            ("/down", _) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::NOT_FOUND,
        };
        (status, HeaderMap::new(), "")
    }))
    .await;
    let at = |path: &str| format!("webhook:\n  url: {}{path}\n  bearer_token: right", server.url);
    let proved = check(at("/hook")).await.unwrap();
    assert!(proved.contains("takes batches"), "{proved}");
    let hit = &server.hits()[0];
    assert_eq!((hit.body().as_ref(), hit.header("x-weir-check")), (b"[]".as_slice(), "1"));
    assert!(check(at("/strict")).await.unwrap().contains("address and path are right"));
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let wrong_port = format!("webhook:\n  url: http://{free}/hook");
    let wrong_key = format!("webhook:\n  url: {}/hook\n  bearer_token: wr0ng", server.url);
    let mut texts = std::collections::BTreeSet::new();
    for (block, kind, expected) in [
        (wrong_port, FaultKind::Unreachable, "port"),
        (wrong_key, FaultKind::Unauthorized, "credentials"),
        (at("/elsewhere"), FaultKind::NotFound, "path"),
        (at("/moved"), FaultKind::NotFound, "final address"),
        (at("/down"), FaultKind::Other, "503"),
    ] {
        let fault = check(block.clone()).await.expect_err(&block);
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(expected), "{fault}");
        assert!(!fault.message.contains("wr0ng"), "{fault}");
        texts.insert(fault.message);
    }
    assert_eq!(texts.len(), 5, "every mistake has a text of its own");
}

#[test]
fn only_a_bounded_number_of_deliveries_is_remembered() {
    let mut remembered = Remembered::default();
    for id in 0..5000 {
        remembered.of(id, 1);
    }
    assert_eq!(remembered.0.len(), REMEMBERED_DELIVERIES);
}
