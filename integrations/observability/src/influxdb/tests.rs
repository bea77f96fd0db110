use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use proptest::prelude::*;
use serde_json::{Value as Json, json};
use weir_model::{Encoding, Payload, otlp};
use weir_net::Answer;

use super::*;

/// 2026-01-01 00:00:00 UTC, unix nanoseconds.
const NEW_YEAR: u64 = 1_767_225_600_000_000_000;

fn exporter(config: Config) -> Result<InfluxDb, String> {
    let context = Context {
        name: Arc::from("influxdb"),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        resource: Vec::new(),
        telemetry: Arc::default(),
        data_folder: std::env::temp_dir().into(),
    };
    InfluxDb::new(config, &context).map_err(|fault| fault.message)
}

fn delivery(list: &[Json]) -> Delivery {
    let request = json!({"resourceMetrics": [{
        "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": "web 1"}}]},
        "scopeMetrics": [{"scope": {"name": "host"}, "metrics": list}],
    }]});
    let payload = otlp::accept(Signal::Metrics, Encoding::Json, serde_json::to_vec(&request).unwrap().into()).unwrap();
    Delivery { signal: Signal::Metrics, payloads: vec![payload], id: 1 }
}

fn gauge(name: &str, values: &[f64]) -> Json {
    let points: Vec<Json> = values
        .iter()
        .enumerate()
        .map(|(at, value)| {
            let value =
                if value.is_finite() { json!(value) } else { json!(value.to_string().replace("inf", "Infinity")) };
            json!({"timeUnixNano": (NEW_YEAR + at as u64).to_string(), "asDouble": value})
        })
        .collect();
    json!({"name": name, "gauge": {"dataPoints": points}})
}

fn lines(list: &[Json]) -> Lines {
    Lines::of(&delivery(list), Form::default()).unwrap()
}

fn text(lines: &Lines) -> String {
    String::from_utf8(lines.body().to_vec()).unwrap()
}

#[test]
fn every_kind_of_point_is_a_line_as_telegraf_writes_it() {
    let (time, attributes) = (NEW_YEAR.to_string(), json!([{"key": "cpu.mode", "value": {"stringValue": "user"}}]));
    let list = [
        gauge("load", &[0.5]),
        json!({"name": "system.cpu.time", "sum": {"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": [
            {"timeUnixNano": time, "asInt": "81", "attributes": attributes}]}}),
        json!({"name": "queue", "sum": {"aggregationTemporality": 2, "dataPoints": [{"timeUnixNano": time, "asDouble": 1e21}]}}),
        json!({"name": "d", "histogram": {"aggregationTemporality": 2, "dataPoints": [
            {"timeUnixNano": time, "count": "6", "sum": 9.5, "min": 0.1, "max": "NaN", "explicitBounds": [0.5, 3],
             "bucketCounts": ["1", "2", "3"]}]}}),
        json!({"name": "e", "exponentialHistogram": {"aggregationTemporality": 2, "dataPoints": [
            {"timeUnixNano": time, "count": "6", "scale": 0, "zeroCount": "1", "positive": {"offset": 1, "bucketCounts": ["2", "0", "1"]},
             "negative": {"offset": 0, "bucketCounts": ["2"]}}]}}),
        json!({"name": "s", "summary": {"dataPoints": [
            {"timeUnixNano": time, "count": "2", "sum": 3.0, "quantileValues": [{"quantile": 0.5, "value": 1.5}, {"quantile": 0.9, "value": "NaN"}]}]}}),
    ];
    assert_eq!(
        text(&lines(&list)),
        "load,host.name=web\\ 1,otel.library.name=host gauge=0.5 1767225600000000000\n\
         system.cpu.time,cpu.mode=user,host.name=web\\ 1,otel.library.name=host counter=81 1767225600000000000\n\
         queue,host.name=web\\ 1,otel.library.name=host gauge=1000000000000000000000 1767225600000000000\n\
         d,host.name=web\\ 1,otel.library.name=host count=6,sum=9.5,min=0.1,0.5=1,3=3,+Inf=6 1767225600000000000\n\
         e,host.name=web\\ 1,otel.library.name=host count=6,-1=2,0=3,4=5,16=6,+Inf=6 1767225600000000000\n\
         s,host.name=web\\ 1,otel.library.name=host count=2,sum=3,0.5=1.5 1767225600000000000\n"
    );
    let form = Form { precision: Precision::Ms, integers: true };
    let integers = text(&Lines::of(&delivery(&list[1..2]), form).unwrap());
    assert!(integers.ends_with(" counter=81i 1767225600000\n"), "{integers}");
}

#[test]
fn what_line_protocol_gives_a_meaning_is_escaped() {
    let point = json!({"timeUnixNano": NEW_YEAR.to_string(), "asDouble": 1.0, "attributes": [
        {"key": "a b,c=d", "value": {"stringValue": "x y,z=\"w\""}},
        {"key": "path", "value": {"stringValue": "C:\\temp\\"}},
        {"key": "lines", "value": {"stringValue": "one\ntwo"}},
        {"key": "time", "value": {"stringValue": "noon"}},
        {"key": "empty", "value": {"stringValue": ""}},
        {"key": "host.name", "value": {"stringValue": "own"}},
        {"key": "number", "value": {"intValue": "5"}},
    ]});
    let metric = json!({"name": "disk, used=\\", "gauge": {"dataPoints": [point]}});
    assert_eq!(
        text(&lines(&[metric])),
        "disk\\,\\ used=,a\\ b\\,c\\=d=x\\ y\\,z\\=\"w\",host.name=own,lines=one\\ntwo,number=5,otel.library.name=host,path=C:\\temp,time_=noon \
         gauge=1 1767225600000000000\n"
    );
}

#[test]
fn what_has_no_form_is_refused_and_the_end_of_a_series_is_left_out() {
    let ended = json!({"name": "gone", "gauge": {"dataPoints": [{"timeUnixNano": NEW_YEAR.to_string(), "flags": 1}]}});
    let timeless = json!({"name": "when", "gauge": {"dataPoints": [{"asDouble": 1.0}]}});
    let list = [ended, gauge("a", &[1.0, f64::NAN, f64::INFINITY, 4.0]), timeless, gauge("#a", &[1.0])];
    let lines = lines(&list);
    assert_eq!(lines.positions().collect::<Vec<_>>(), [1, 4]);
    assert_eq!(lines.refused.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [2, 3, 5, 6]);
    assert!(text(&lines).lines().all(|line| line.starts_with("a,")), "{}", text(&lines));
    let Outcome::Each { refused, later, .. } = judge::all_taken(&lines) else { panic!() };
    assert_eq!((refused.len(), later.len()), (4, 0));
}

fn answer(status: u16, body: &str) -> Answer {
    let body = Bytes::from(body.to_owned());
    Answer { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body }
}

fn error(text: &str) -> String {
    json!({ "error": text }).to_string()
}

/// Refused records, and those to send again, of a judged answer.
fn each(outcome: Outcome) -> (BTreeSet<u32>, Vec<u32>) {
    match outcome {
        Outcome::Each { refused, later, .. } => (refused.into_iter().map(|(at, _)| at).collect(), later),
        other => panic!("{other:?}"),
    }
}

/// Texts of InfluxDB 1.6.7.
#[test]
fn a_partial_write_refuses_exactly_the_lines_that_the_answer_tells() {
    let lines = lines(&[gauge("ok", &[1.0, 2.0]), gauge("m x", &[1.0, 2.0]), gauge("m", &[7.0])]);
    let judged = |text: &str| judge::judge(Version::V1, &lines, &answer(400, &error(text)));
    let conflict = "partial write: field type conflict: input field \"gauge\" on measurement \"m x\" is type float, already exists as type integer";
    assert_eq!(each(judged(&format!("{conflict} dropped=2"))), (BTreeSet::from([2, 3]), vec![]));
    // More were left out than that measurement has: the halves will tell.
    assert!(matches!(judged(&format!("{conflict} dropped=3")), Outcome::Split { .. }));
    // Times are NEW_YEAR and one later; three lines have the older one.
    let beyond = "partial write: points beyond retention policy dropped=3";
    assert_eq!(each(judged(beyond)), (BTreeSet::from([0, 2, 4]), vec![]));
    assert!(matches!(judged("partial write: points beyond retention policy dropped=5"), Outcome::Never { .. }));
    let text = text(&lines);
    let line = |at: usize| text.lines().nth(at).unwrap();
    let quoted = format!(
        "partial write: unable to parse '{}': invalid number\nunable to parse '{}': bad dropped=0",
        line(1),
        line(4)
    );
    assert_eq!(each(judged(&quoted)), (BTreeSet::from([1, 4]), vec![]));
    assert!(matches!(judged("partial write: unable to parse 'not ours': bad dropped=0"), Outcome::Split { .. }));
    assert!(matches!(judged("partial write: max-series limit exceeded dropped=1"), Outcome::Split { .. }));
}

#[test]
fn version_2_stores_nothing_of_a_malformed_request_so_the_good_lines_go_again() {
    let lines = lines(&[gauge("a", &[1.0, 2.0, 3.0])]);
    let text = text(&lines);
    let bad = text.lines().nth(1).unwrap();
    let body = json!({"code": "invalid", "message": format!("unable to parse '{bad}': invalid number")}).to_string();
    assert_eq!(each(judge::judge(Version::V2, &lines, &answer(400, &body))), (BTreeSet::from([1]), vec![0, 2]));
    let body = json!({"code": "unprocessable entity", "message": "failure writing points to database: partial write: points beyond retention policy dropped=1"});
    assert_eq!(each(judge::judge(Version::V2, &lines, &answer(422, &body.to_string()))), (BTreeSet::from([0]), vec![]));
}

#[test]
fn every_status_has_its_outcome() {
    let (many, one) = (lines(&[gauge("a", &[1.0, 2.0])]), lines(&[gauge("a", &[1.0])]));
    let judged = |lines: &Lines, status: u16, body: &str| judge::judge(Version::V1, lines, &answer(status, body));
    assert_eq!(judged(&many, 204, ""), Outcome::Accepted);
    assert!(matches!(judged(&many, 200, "<html>"), Outcome::Later { .. }));
    assert!(matches!(judged(&many, 400, "no"), Outcome::Split { .. }));
    assert_eq!(judged(&one, 400, &error("bad")), Outcome::Never { why: "bad".into() });
    assert!(matches!(judged(&many, 401, ""), Outcome::Unauthorized { .. }));
    assert!(matches!(judged(&many, 413, ""), Outcome::Split { .. }));
    for status in [302, 404, 415, 429, 500, 503] {
        assert!(matches!(judged(&many, status, ""), Outcome::Later { .. }), "{status}");
    }
    let missing = judged(&many, 404, &error("database not found: \"x\""));
    assert!(matches!(&missing, Outcome::Later { why, .. } if why.contains("create it")), "{missing:?}");
    // A single line beside a point that has no form: both are refused, by position.
    let beside = lines(&[gauge("a", &[f64::NAN, 1.0])]);
    assert_eq!(each(judged(&beside, 400, &error("bad"))).0, BTreeSet::from([0, 1]));
}

#[test]
fn the_address_has_what_the_version_needs_and_no_secret() {
    let text = |text: &str| Some(text.to_owned());
    let v1 = Config {
        endpoint: Some("http://influx:8086/base".parse().unwrap()),
        database: text("my db"),
        retention_policy: text("short"),
        username: text("u"),
        password: Some(Secret::new("hunter2")),
        precision: Precision::Us,
        ..Config::default()
    };
    let v1 = exporter(v1).unwrap();
    assert_eq!(v1.uri, "http://influx:8086/base/write?db=my+db&rp=short&precision=u");
    assert!(v1.headers[AUTHORIZATION].to_str().unwrap().starts_with("Basic "));
    let v2 = Config {
        token: Some(Secret::new("hunter2")),
        org: text("o"),
        bucket: text("b"),
        precision: Precision::Us,
        ..Config::default()
    };
    let v2 = exporter(v2).unwrap();
    assert_eq!(v2.uri, "http://localhost:8086/api/v2/write?org=o&bucket=b&precision=us");
    assert_eq!(v2.headers[AUTHORIZATION], "Token hunter2");
    assert!(v2.headers[AUTHORIZATION].is_sensitive());
}

#[test]
fn options_of_the_other_version_and_missing_ones_are_named() {
    let text = |text: &str| Some(text.to_owned());
    for (config, words) in [
        (Config::default(), "`bucket` is missing"),
        (Config { version: Some(1), ..Config::default() }, "`database` is missing"),
        (Config { version: Some(3), bucket: text("b"), ..Config::default() }, "no version 3"),
        (Config { database: text("d"), bucket: text("b"), ..Config::default() }, "`bucket` belongs to version 2"),
        (
            Config { version: Some(2), bucket: text("b"), username: text("u"), ..Config::default() },
            "`username` belongs to version 1",
        ),
        (Config { bucket: text("b"), compression: Compression::Zstd, ..Config::default() }, "gzip"),
    ] {
        let message = exporter(config).err().unwrap();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_check_tells_a_missing_database_from_a_wrong_version() {
    let check = |version, status, body: &str| {
        judge::check(version, &answer(status, body), "http://h").map_err(|fault| fault.message)
    };
    assert!(check(Version::V1, 204, "").is_ok());
    assert!(check(Version::V2, 400, r#"{"code":"invalid","message":"writing requires points"}"#).is_ok());
    assert!(check(Version::V1, 404, &error("database not found: \"x\"")).unwrap_err().contains("create it"));
    assert!(check(Version::V2, 404, "404 page not found").unwrap_err().contains("`version: 1`"));
    assert!(check(Version::V1, 401, "").unwrap_err().contains("credentials"));
    assert!(check(Version::V1, 200, "<html>").unwrap_err().contains("web page"));
}

/// Reads a line as InfluxDB's parser does: a backslash escapes `,` and space, in tags `=` too, and nothing else.
fn read_key(line: &str) -> Vec<(String, String)> {
    let (mut parts, mut text, mut characters) = (vec![Vec::new()], String::new(), line.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters
                .peek()
                .is_some_and(|next| matches!(next, ',' | ' ') || (*next == '=' && parts.len() > 1)) =>
            {
                text.extend(characters.next());
            }
            ',' => {
                parts.last_mut().unwrap().push(std::mem::take(&mut text));
                parts.push(Vec::new());
            }
            '=' if parts.len() > 1 && parts.last().unwrap().is_empty() => {
                parts.last_mut().unwrap().push(std::mem::take(&mut text))
            }
            ' ' => break,
            other => text.push(other),
        }
    }
    parts.last_mut().unwrap().push(text);
    parts
        .into_iter()
        .map(|mut part| {
            let last = part.pop().unwrap();
            (part.pop().unwrap_or_default(), last)
        })
        .collect()
}

proptest! {
    /// Whatever names and values are: one line per point, and what InfluxDB reads is what was written.
    #[test]
    fn any_text_is_read_back_as_it_was(name in "[a-z ,=\\\\\"é]{1,12}", key in "[a-z ,=\\\\\"é]{1,8}", value in "[a-z ,=\\\\\"é]{1,12}") {
        let point = json!({"timeUnixNano": "1", "asDouble": 1.0, "attributes": [{"key": key, "value": {"stringValue": value}}]});
        let request = json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": name, "gauge": {"dataPoints": [point]}}]}]}]});
        let payload: Payload = otlp::accept(Signal::Metrics, Encoding::Json, serde_json::to_vec(&request).unwrap().into()).unwrap();
        let lines = Lines::of(&Delivery { signal: Signal::Metrics, payloads: vec![payload], id: 1 }, Form::default()).unwrap();
        let (kept, trimmed) = (|text: &str| text.trim_end_matches('\\').to_owned(), name.trim_end_matches('\\'));
        if !trimmed.is_empty() {
            let text = text(&lines);
            prop_assert_eq!(text.lines().count(), 1);
            let mut expected = vec![(String::new(), kept(&name))];
            if !kept(&key).is_empty() && !kept(&value).is_empty() {
                expected.push((kept(&key), kept(&value)));
            }
            prop_assert_eq!(read_key(&text), expected);
        }
    }
}
