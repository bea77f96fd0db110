use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use http::StatusCode;
use serde_json::{Value as Json, json};
use weir_model::{Encoding, Payload, otlp};

use super::*;

/// 2026-01-01 00:00:00 UTC, unix nanoseconds.
const NEW_YEAR: u64 = 1_767_225_600_000_000_000;

fn context() -> Context {
    Context {
        name: Arc::from("elasticsearch"),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        resource: Vec::new(),
        telemetry: Arc::default(),
        data_folder: std::env::temp_dir().into(),
    }
}

fn exporter(config: Config) -> Result<Elasticsearch, String> {
    Elasticsearch::new(config, &context()).map_err(|fault| fault.message)
}

fn payload(signal: Signal, request: &Json) -> Payload {
    otlp::accept(signal, Encoding::Json, serde_json::to_vec(request).unwrap().into()).unwrap()
}

fn resource() -> Json {
    json!({"attributes": [
        {"key": "host.name", "value": {"stringValue": "web-1"}},
        {"key": "deployment.environment.name", "value": {"stringValue": "test"}},
        {"key": "process.pid", "value": {"intValue": "7"}},
        {"key": "team", "value": {"stringValue": "core"}},
        {"key": "host", "value": {"stringValue": "a tag"}},
        {"key": "metric.value", "value": {"stringValue": "ours"}},
    ]})
}

fn logs(records: &[Json]) -> Payload {
    let request = json!({"resourceLogs": [{"resource": resource(), "scopeLogs": [{"scope": {"name": "app"}, "logRecords": records}]}]});
    payload(Signal::Logs, &request)
}

fn log(time: u64, body: &str) -> Json {
    json!({"timeUnixNano": time.to_string(), "body": {"stringValue": body}})
}

fn metrics(list: &[Json]) -> Payload {
    let request = json!({"resourceMetrics": [{"resource": resource(), "scopeMetrics": [{"scope": {"name": "host"}, "metrics": list}]}]});
    payload(Signal::Metrics, &request)
}

fn gauge(values: &[f64]) -> Json {
    let points: Vec<Json> = values
        .iter()
        .enumerate()
        .map(|(at, value)| {
            let value = if value.is_nan() { json!("NaN") } else { json!(value) };
            json!({"timeUnixNano": (NEW_YEAR + at as u64).to_string(), "asDouble": value})
        })
        .collect();
    json!({"name": "load", "unit": "1", "gauge": {"dataPoints": points}})
}

fn delivery(payloads: Vec<Payload>) -> Delivery {
    Delivery { signal: payloads[0].signal(), payloads, id: 1 }
}

fn bulk(delivery: &Delivery) -> Bulk {
    let index = IndexName::parse(DEFAULT_INDEX).unwrap();
    bulk::write(delivery, &index, true, Timestamp::UNIX_EPOCH).unwrap()
}

/// The lines of a request: what to do, and the document, for every record.
fn lines(bulk: &Bulk) -> Vec<(Json, Json)> {
    assert!(bulk.body.ends_with(b"\n"), "the last line needs its end");
    let lines: Vec<Json> = bulk
        .body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    lines.chunks(2).map(|pair| (pair[0]["create"].clone(), pair[1].clone())).collect()
}

fn documents(bulk: &Bulk) -> Vec<Json> {
    lines(bulk).into_iter().map(|(_, document)| document).collect()
}

fn ids(bulk: &Bulk) -> Vec<String> {
    lines(bulk).into_iter().map(|(action, _)| action["_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_log_record_is_a_document_with_the_names_of_ecs() {
    let record = json!({
        "timeUnixNano": (NEW_YEAR + 123_000_000).to_string(), "observedTimeUnixNano": (NEW_YEAR + 1_000_000_000).to_string(),
        "severityNumber": 17, "severityText": "Err", "body": {"stringValue": "disk \"full\"\n"},
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "eventName": "disk.full",
        "attributes": [
            {"key": "thread.name", "value": {"stringValue": "main"}},
            {"key": "thread_name", "value": {"stringValue": "other"}},
            {"key": "queue.size", "value": {"intValue": "12"}},
            {"key": "is.bad", "value": {"boolValue": true}},
            {"key": "", "value": {"stringValue": "no name"}},
            {"key": "list", "value": {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "1"}]}}},
            {"key": "exception.type", "value": {"stringValue": "IOError"}},
            {"key": "log.file.path", "value": {"stringValue": "/var/log/app.log"}},
            {"key": "team", "value": {"stringValue": "own"}},
        ],
    });
    let bulk = bulk(&delivery(vec![logs(&[record])]));
    let (action, document) = lines(&bulk).remove(0);
    assert_eq!(action["_index"], "weir-logs-2026.01.01");
    assert_eq!(
        document,
        json!({
            "@timestamp": "2026-01-01T00:00:00.123Z", "message": "disk \"full\"\n", "log.level": "error", "event.severity": 17,
            "event.action": "disk.full", "event.created": "2026-01-01T00:00:01Z",
            "trace.id": "0af7651916cd43dd8448eb211c80319c", "span.id": "b7ad6b7169203331",
            "host.name": "web-1", "service.environment": "test", "process.pid": 7, "otel.scope.name": "app",
            "error.type": "IOError", "log.file.path": "/var/log/app.log",
            "labels": {"_": "no name", "host": "a tag", "is_bad": "true", "list": ["a", "1"], "metric_value": "ours", "team": "own",
                       "thread_name": ["main", "other"]},
            "numeric_labels": {"queue_size": 12},
        })
    );
}

#[test]
fn every_kind_of_point_is_a_document() {
    let time = NEW_YEAR.to_string();
    let start = (NEW_YEAR - 1_000_000_000).to_string();
    let list = [
        json!({"name": "io", "unit": "By", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
            {"timeUnixNano": time, "startTimeUnixNano": start, "asInt": "5", "attributes": [{"key": "io.direction", "value": {"stringValue": "read"}}]},
            {"timeUnixNano": time, "asInt": "9007199254740993"}]}}),
        json!({"name": "d", "histogram": {"aggregationTemporality": 1, "dataPoints": [
            {"timeUnixNano": time, "count": "6", "sum": 9.5, "explicitBounds": [1, 3], "bucketCounts": ["1", "2", "3"]}]}}),
        json!({"name": "e", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
            {"timeUnixNano": time, "count": "6", "scale": 0, "zeroCount": "1", "positive": {"offset": 1, "bucketCounts": ["2", "0", "1"]},
             "negative": {"offset": 0, "bucketCounts": ["2"]}}]}}),
        json!({"name": "s", "summary": {"dataPoints": [
            {"timeUnixNano": time, "count": "2", "sum": 3.0, "quantileValues": [{"quantile": 0.5, "value": 1.5}, {"quantile": 0.9, "value": "NaN"}]}]}}),
    ];
    let bulk = bulk(&delivery(vec![metrics(&list)]));
    let found = documents(&bulk);
    assert_eq!(
        found[0],
        json!({
            "@timestamp": "2026-01-01T00:00:00Z",
            "metric": {"name": "io", "type": "counter", "unit": "By", "temporality": "cumulative", "value": 5.0,
                       "start_time": "2025-12-31T23:59:59Z"},
            "host.name": "web-1", "service.environment": "test", "process.pid": 7, "otel.scope.name": "host",
            "labels": {"host": "a tag", "io_direction": "read", "metric_value": "ours", "team": "core"},
        })
    );
    // The text, because a parsed 5 and 5.0 are equal: an integer would make the field one.
    assert!(std::str::from_utf8(&bulk.body).unwrap().contains("\"value\":5.0"));
    assert_eq!(found[1]["metric"]["value"], json!(9_007_199_254_740_993_i64));
    assert_eq!(
        found[2]["metric"],
        json!({"name": "d", "type": "histogram", "temporality": "delta", "count": 6, "sum": 9.5, "bounds": [1.0, 3.0],
               "bucket_counts": [1, 2, 3], "histogram": {"values": [0.5, 2.0, 3.0], "counts": [1, 2, 3]}})
    );
    assert_eq!(
        found[3]["metric"],
        json!({"name": "e", "type": "exponential_histogram", "temporality": "cumulative", "count": 6, "scale": 0, "zero_count": 1,
               "histogram": {"values": [-1.5, 0.0, 3.0, 12.0], "counts": [2, 1, 2, 1]}})
    );
    assert_eq!(
        found[4]["metric"],
        json!({"name": "s", "type": "summary", "count": 2, "sum": 3.0, "quantiles": [{"quantile": 0.5, "value": 1.5}]})
    );
}

#[test]
fn a_span_is_a_document_with_its_events_and_links() {
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "parentSpanId": "00f067aa0ba902b7",
        "name": "GET /", "kind": 2, "startTimeUnixNano": NEW_YEAR.to_string(), "endTimeUnixNano": (NEW_YEAR + 12_000_000).to_string(),
        "status": {"code": 2, "message": "boom"},
        "attributes": [{"key": "http.response.status_code", "value": {"intValue": "500"}}],
        "events": [{"timeUnixNano": (NEW_YEAR + 1).to_string(), "name": "exception",
                    "attributes": [{"key": "exception.message", "value": {"stringValue": "no"}}]}],
        "links": [{"traceId": "1af7651916cd43dd8448eb211c80319c", "spanId": "a7ad6b7169203331"}],
    }]}]}]});
    let found = documents(&bulk(&delivery(vec![payload(Signal::Traces, &request)])));
    assert_eq!(
        found,
        [json!({
            "@timestamp": "2026-01-01T00:00:00Z", "span.name": "GET /", "span.kind": "server", "event.duration": 12_000_000,
            "event.outcome": "failure", "event.reason": "boom", "trace.id": "0af7651916cd43dd8448eb211c80319c",
            "span.id": "b7ad6b7169203331", "parent.id": "00f067aa0ba902b7",
            "span.events": [{"@timestamp": "2026-01-01T00:00:00.000000001Z", "name": "exception", "error.message": "no"}],
            "span.links": [{"trace.id": "1af7651916cd43dd8448eb211c80319c", "span.id": "a7ad6b7169203331"}],
            "numeric_labels": {"http_response_status_code": 500},
        })]
    );
}

#[test]
fn the_index_has_the_date_of_the_record_and_not_of_the_request() {
    let index = IndexName::parse("telemetryflow-%Y.%m.%d").unwrap();
    let records = [log(NEW_YEAR - 1, "old"), log(NEW_YEAR, "new"), json!({"body": {"stringValue": "no time"}})];
    let written =
        bulk::write(&delivery(vec![logs(&records)]), &index, true, Timestamp::from_second(86_400).unwrap()).unwrap();
    let names: Vec<Json> = lines(&written).into_iter().map(|(action, _)| action["_index"].clone()).collect();
    assert_eq!(names, ["telemetryflow-2025.12.31", "telemetryflow-2026.01.01", "telemetryflow-1970.01.02"]);
}

#[test]
fn names_that_no_index_can_have_are_refused_with_the_reason() {
    for (pattern, reason) in [
        ("", "needs a name"),
        ("Logs-%Y", "lowercase"),
        ("_logs", "cannot start"),
        ("logs %Y", "` ` cannot"),
        ("logs-%!", "no pattern of a date"),
        ("logs-%B", "lowercase"),
        ("a/b", "`/` cannot"),
    ] {
        let error = IndexName::parse(pattern).unwrap_err();
        assert!(error.contains(reason), "{pattern}: {error}");
    }
    for pattern in ["logs-weir-default", "weir-{signal}-%Y.%m.%d", "a-%G.w%V", "telemetryflow-%Y.%m.%d-%H"] {
        IndexName::parse(pattern).unwrap();
    }
}

#[test]
fn an_id_stays_when_records_are_sent_again_and_differs_for_equal_logs_of_one_request() {
    let records = [log(NEW_YEAR, "retrying"), log(NEW_YEAR, "retrying")];
    let first = ids(&bulk(&delivery(vec![logs(&records)])));
    assert_ne!(first[0], first[1], "two equal lines are two events");
    // Sent again by its sender, in another delivery and behind another batch.
    let again = Delivery { id: 2, ..delivery(vec![logs(&[log(NEW_YEAR, "other")]), logs(&records)]) };
    assert_eq!(ids(&bulk(&again))[1..], first);
    // The same lines beside others came at another time.
    let other = ids(&bulk(&delivery(vec![logs(&[log(NEW_YEAR, "retrying"), log(NEW_YEAR + 1, "x")])])));
    assert_ne!(other[0], first[0]);
}

#[test]
fn logs_without_a_time_are_never_taken_for_those_of_another_delivery() {
    let untimed = || vec![logs(&[json!({"body": {"stringValue": "tick"}})])];
    let first = ids(&bulk(&delivery(untimed())));
    assert_eq!(ids(&bulk(&delivery(untimed()))), first, "the same delivery");
    assert_ne!(ids(&bulk(&Delivery { id: 2, ..delivery(untimed()) })), first);
}

#[test]
fn points_have_the_id_of_their_content_wherever_they_travel() {
    let both = ids(&bulk(&delivery(vec![metrics(&[gauge(&[1.0, 2.0])])])));
    let alone = metrics(&[gauge(&[1.0, 2.0])]).records().unwrap().select(|at| at == 1);
    assert_eq!(ids(&bulk(&delivery(vec![Payload::from_records(alone)]))), both[1..]);
    assert_ne!(both[0], both[1]);
}

#[test]
fn what_json_cannot_say_is_refused_and_the_end_of_a_series_is_left_out() {
    let ended = json!({"name": "gone", "gauge": {"dataPoints": [{"timeUnixNano": NEW_YEAR.to_string(), "flags": 1}]}});
    let timeless = json!({"name": "when", "gauge": {"dataPoints": [{"asDouble": 1.0}]}});
    let bulk = bulk(&delivery(vec![metrics(&[ended, gauge(&[1.0, f64::NAN, 3.0]), timeless])]));
    assert_eq!(bulk.records, [1, 3]);
    let refused: Vec<(u32, bool)> = bulk.refused.iter().map(|(at, why)| (*at, why.contains("NaN"))).collect();
    assert_eq!(refused, [(2, true), (4, false)]);
    let Outcome::Each { refused, later, .. } = judge::all_taken(bulk) else { panic!() };
    assert_eq!((refused.len(), later.len()), (2, 0));
}

fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Answer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: body.into() }
}

/// The answer of OpenSearch 2.19 to six records, as `filter_path` leaves it.
const MIXED: &str = r#"{"errors":true,"items":[{"create":{"status":201}},
 {"create":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"failed to parse field [a] of type [long] in document with id '1'",
  "caused_by":{"type":"illegal_argument_exception","reason":"For input string: \"x\""}}}},
 {"create":{"status":429,"error":{"type":"rejected_execution_exception","reason":"rejected execution of coordinating operation"}}},
 {"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[1]: version conflict, document already exists"}}},
 {"create":{"status":403,"error":{"type":"cluster_block_exception","reason":"index [a] blocked by: [FORBIDDEN/8/index write (api)];"}}},
 {"create":{"status":201}}]}"#;

fn six() -> Bulk {
    bulk(&delivery(vec![metrics(&[gauge(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])])]))
}

#[test]
fn every_item_of_an_answer_has_its_own_fate() {
    let Outcome::Each { refused, later, why, .. } = judge::judge(&six(), &answer(200, MIXED)) else { panic!() };
    assert_eq!(later, [2, 4]);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, 1);
    assert!(refused[0].1.contains("[a] of type [long]") && refused[0].1.contains("For input string"), "{refused:?}");
    assert!(why.contains("rejected execution") && why.contains("mapper_parsing"), "{why}");
    // Without ids of our own a conflict is another document at that place.
    let without = Bulk { has_ids: false, ..six() };
    let Outcome::Each { refused, .. } = judge::judge(&without, &answer(200, MIXED)) else { panic!() };
    assert_eq!(refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn positions_in_the_answer_are_those_of_the_documents_and_not_of_the_records() {
    let bulk = bulk(&delivery(vec![metrics(&[gauge(&[f64::NAN, 2.0, 3.0])])]));
    let body = r#"{"errors":true,"items":[{"create":{"status":503}},{"create":{"status":201}}]}"#;
    let Outcome::Each { refused, later, .. } = judge::judge(&bulk, &answer(200, body)) else { panic!() };
    assert_eq!((refused[0].0, later), (0, vec![1]));
}

#[test]
fn a_request_of_which_nothing_was_taken_stays_as_it_is() {
    let items = r#"{"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"busy"}}}"#;
    let body = format!(r#"{{"errors":true,"items":[{}]}}"#, [items; 6].join(","));
    let outcome = judge::judge(&six(), &answer(200, body));
    assert!(matches!(&outcome, Outcome::Later { why, .. } if why.contains("busy")), "{outcome:?}");
}

#[test]
fn every_status_has_its_outcome() {
    let bulk = six();
    let judged = |status, body: &'static str| judge::judge(&bulk, &answer(status, body));
    assert_eq!(judged(200, r#"{"errors":false}"#), Outcome::Accepted);
    for body in ["<html>", "", "{}", r#"{"errors":true,"items":[]}"#] {
        assert!(matches!(judged(200, body), Outcome::Later { .. }), "{body}");
    }
    assert!(matches!(judged(400, "bad"), Outcome::Never { .. }));
    assert!(matches!(judged(401, ""), Outcome::Unauthorized { .. }));
    assert!(matches!(judged(413, ""), Outcome::Split { .. }));
    for status in [302, 404, 405, 406, 429, 500, 503] {
        assert!(matches!(judged(status, ""), Outcome::Later { .. }), "{status}");
    }
}

#[test]
fn contradictory_options_are_refused_without_their_secrets() {
    let key = || Some(Secret::new("hunter2:x"));
    for (config, words) in [
        (Config { api_key: key(), username: Some("a".into()), ..Config::default() }, "api_key excludes"),
        (Config { metrics: false, logs: false, traces: false, ..Config::default() }, "nothing would be sent"),
        (Config { index: "UPPER".into(), ..Config::default() }, "lowercase"),
        (Config { compression: Compression::Zstd, ..Config::default() }, "gzip"),
    ] {
        let message = exporter(config).err().unwrap();
        assert!(message.contains(words) && !message.contains("hunter2"), "{message}");
    }
    let made = exporter(Config { api_key: key(), ..Config::default() }).unwrap();
    assert_eq!(made.nodes[0].headers[AUTHORIZATION], format!("ApiKey {}", STANDARD.encode("hunter2:x")));
    assert!(made.nodes[0].headers[AUTHORIZATION].is_sensitive());
}

type Requests = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A server that answers every request with this status and body.
async fn server(status: u16, body: &'static str) -> (String, Requests) {
    let seen = Requests::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move |State(seen): State<Requests>, headers: HeaderMap, body_of_request: Bytes| async move {
        seen.lock().unwrap().push((headers, body_of_request));
        (StatusCode::from_u16(status).unwrap(), body)
    };
    let router = Router::new().fallback(answer).with_state(seen.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, seen)
}

fn to(endpoints: &[&str]) -> Elasticsearch {
    let endpoints = endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect();
    exporter(Config { endpoints, ..Config::default() }).unwrap()
}

#[tokio::test]
async fn an_absent_node_is_passed_over_and_remembered() {
    let (alive, seen) = server(200, r#"{"errors":false}"#).await;
    let exporter = to(&["http://127.0.0.1:1", &alive.replace("http://", "http://user:pw@")]);
    let delivery = delivery(vec![logs(&[log(NEW_YEAR, "a")])]);
    for _ in 0..2 {
        assert_eq!(exporter.export(&delivery).await, Outcome::Accepted);
        assert_eq!(exporter.current.load(Ordering::Relaxed), 1);
    }
    let (headers, body) = seen.lock().unwrap()[0].clone();
    assert_eq!(headers[CONTENT_TYPE], "application/x-ndjson");
    assert_eq!(headers[AUTHORIZATION], format!("Basic {}", STANDARD.encode("user:pw")));
    let plain = Compression::Gzip.decompress(body, 1 << 20).unwrap();
    assert_eq!(plain, bulk(&delivery).body);
}

#[tokio::test]
async fn a_gateway_without_its_node_answers_later_and_the_next_attempt_goes_elsewhere() {
    let (away, seen_away) = server(503, "").await;
    let (alive, seen_alive) = server(200, r#"{"errors":false}"#).await;
    let exporter = to(&[&away, &alive]);
    let delivery = delivery(vec![logs(&[log(NEW_YEAR, "a")])]);
    assert!(matches!(exporter.export(&delivery).await, Outcome::Later { .. }));
    assert_eq!(exporter.export(&delivery).await, Outcome::Accepted);
    assert_eq!((seen_away.lock().unwrap().len(), seen_alive.lock().unwrap().len()), (1, 1));
}

#[tokio::test]
async fn a_check_names_product_version_and_cluster() {
    let root = r#"{"name":"n","cluster_name":"c1","version":{"distribution":"opensearch","number":"2.19.1"}}"#;
    let (url, _) = server(200, root).await;
    assert_eq!(to(&[&url]).check().await.unwrap(), format!("{url}/ is opensearch 2.19.1, cluster `c1`"));
    let (page, _) = server(200, "<html></html>").await;
    assert!(to(&[&page]).check().await.unwrap_err().message.contains("neither Elasticsearch nor OpenSearch"));
}
