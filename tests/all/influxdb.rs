//! Points in a real InfluxDB 1 and in VictoriaMetrics through both write APIs: all of them with
//! their exact values; and what InfluxDB leaves out of a request is refused alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::delivery::letters;
use crate::harness::http::{get, get_json, post, send};
use crate::harness::lasting::Row;
use crate::harness::peers::{Peer, peer};
use crate::harness::process::Process;
use crate::harness::relay::{Gauge, Relay, gauges};
use crate::harness::victoria_metrics::{SILENT_CUTS, VictoriaMetrics};
use crate::harness::weir::{ConfigFile, assert_calm, run, said};
use crate::harness::{free_port, seconds, wait_for};

/// 2026-01-01 00:00:00 UTC, unix nanoseconds.
const NEW_YEAR: u64 = 1_767_225_600_000_000_000;

/// An InfluxDB 1 that can be stopped and started again on the same port with the same data.
struct InfluxDb {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    process: Process,
}

impl InfluxDb {
    async fn start(program: &Path) -> InfluxDb {
        let (folder, port) = (tempfile::tempdir().expect("a temporary folder"), free_port());
        let at = folder.path().display();
        let configuration = format!(
            "reporting-disabled = true\nbind-address = \"127.0.0.1:{}\"\n[meta]\n  dir = \"{at}/meta\"\n\
             [data]\n  dir = \"{at}/data\"\n  wal-dir = \"{at}/wal\"\n[http]\n  bind-address = \"127.0.0.1:{port}\"\n\
             [monitor]\n  store-enabled = false\n",
            free_port()
        );
        std::fs::write(folder.path().join("influxdb.conf"), configuration).expect("writable");
        let process = Self::launch(program, folder.path());
        let server = InfluxDb { program: program.to_owned(), folder, port, process };
        server.is_ready().await;
        server
    }

    fn launch(program: &Path, folder: &Path) -> Process {
        Process::start("InfluxDB", Command::new(program).args(["run", "-config"]).arg(folder.join("influxdb.conf")))
    }

    async fn is_ready(&self) {
        let ping = format!("{}/ping", self.url());
        wait_for("InfluxDB answers", seconds(60), async || get(&ping).await).await;
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn ask(&self, text: &str, accept: &str) -> Bytes {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let request = http::Request::post(format!("{}/query?db=d&epoch=ns&q={encoded}", self.url()));
        let request = request.header("accept", accept).body(Bytes::new()).expect("a good address");
        let answer = send(request).await.expect("an answer");
        assert!(answer.status.is_success(), "{text}: {}", answer.excerpt());
        answer.body
    }

    async fn query(&self, text: &str) -> Json {
        let answer: Json = serde_json::from_slice(&self.ask(text, "application/json").await).expect("JSON");
        assert_eq!(answer["results"][0]["error"], Json::Null, "{text}");
        answer["results"][0]["series"].clone()
    }

    /// Time and value of every point of a measurement. Read from text, because this JSON reader rounds.
    async fn gauge(&self, measurement: &str) -> BTreeMap<u64, f64> {
        let rows = self.ask(&format!("SELECT gauge FROM \"{measurement}\""), "application/csv").await;
        let rows = std::str::from_utf8(&rows).expect("text").lines().skip(1);
        let point = |row: &str| {
            let (time, value) = row.rsplit_once(',').expect("columns");
            let time = time.rsplit(',').next().and_then(|time| time.parse().ok()).expect("a time");
            (time, value.parse().expect("a number"))
        };
        rows.map(point).collect()
    }

    fn exporter(&self, database: &str) -> String {
        format!(
            "influxdb:\n  endpoint: \"{}\"\n  database: {database}\n  retry_delay: 200ms\n  retry_max_delay: 500ms\n",
            self.url()
        )
    }
}

/// Points of one series, one nanosecond apart.
fn points(from: u64, values: &[f64]) -> BTreeMap<u64, f64> {
    values.iter().enumerate().map(|(at, value)| (NEW_YEAR + from + at as u64, *value)).collect()
}

fn request(name: &str, points: &BTreeMap<u64, f64>) -> Json {
    gauges(points.iter().map(|(time, value)| (name, [].as_slice(), *time, *value)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn influxdb_1_holds_every_point_with_its_exact_value() {
    let Some(program) = peer(Peer::InfluxDb) else { return };
    let server = InfluxDb::start(&program).await;
    server.query("CREATE DATABASE d").await;
    let relay = Relay::start(&server.exporter("d"), "delivered").await;
    let values: Vec<f64> = (0..500).map(|at| f64::from(at) / 7.0 * 10_f64.powi(at % 40 - 20)).collect();
    let expected = points(0, &values);
    assert_eq!(relay.send("metrics", &request("test.load", &expected)).await.rejected, 0);
    let found = server.gauge("test.load").await;
    let wrong: Vec<_> = expected.iter().filter(|(time, value)| found.get(time) != Some(value)).collect();
    assert!(
        wrong.is_empty() && found.len() == expected.len(),
        "{} points; missing or different: {wrong:?}",
        found.len()
    );

    let awkward = [("a b", "x,y=z \"w\""), ("path", "C:\\temp\\dir"), ("世界", "🌍")];
    let one = gauges([("disk, used = x", awkward.as_slice(), NEW_YEAR, 1.0)]);
    assert_eq!(relay.send("metrics", &one).await.rejected, 0);
    let series = server.query("SELECT * FROM \"disk, used = x\"").await;
    let (columns, row) =
        (series[0]["columns"].as_array().expect("columns"), series[0]["values"][0].as_array().expect("a row"));
    let found: BTreeMap<&str, &Json> = columns.iter().filter_map(Json::as_str).zip(row).collect();
    for (key, value) in awkward.iter().chain(&[("host.name", "web-1"), ("otel.library.name", "test")]) {
        assert_eq!(found.get(key), Some(&&json!(value)), "{found:?}");
    }

    let with_nan = gauges([
        ("n", [].as_slice(), NEW_YEAR, 1.0),
        ("n", &[], NEW_YEAR + 1, f64::NAN),
        ("n", &[], NEW_YEAR + 2, 3.0),
    ]);
    let reply = relay.send("metrics", &with_nan).await;
    assert!(reply.rejected == 1 && reply.message.contains("NaN"), "{reply:?}");
    assert_eq!(server.gauge("n").await, BTreeMap::from([(NEW_YEAR, 1.0), (NEW_YEAR + 2, 3.0)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn influxdb_1_refuses_exactly_the_points_that_it_leaves_out() {
    let Some(program) = peer(Peer::InfluxDb) else { return };
    let server = InfluxDb::start(&program).await;
    server.query("CREATE DATABASE d").await;
    for name in ["whole", "number"] {
        let line = format!("{name} gauge=1i {NEW_YEAR}\n");
        assert_eq!(post(&format!("{}/write?db=d", server.url()), "text/plain", line).await.status.as_u16(), 204);
    }
    let relay = Relay::start(&server.exporter("d"), "delivered").await;
    // One measurement in conflict: the answer names it. Two: halves find them.
    for (bad, offset) in [(vec!["whole"], 0), (vec!["whole", "number"], 1000)] {
        let mut list: Vec<Gauge<'_>> = Vec::new();
        for at in 0..30_u64 {
            list.push(("good", &[], NEW_YEAR + offset + at, 0.5));
            let name = bad[at as usize % bad.len()];
            if at % 5 < 2 {
                list.push((name, &[], NEW_YEAR + offset + at, 0.5));
            }
        }
        let reply = relay.send("metrics", &gauges(list)).await;
        assert_eq!(reply.rejected, 12, "{reply:?}");
        assert!(reply.message.contains("field type conflict"), "{reply:?}");
    }
    assert_eq!(server.gauge("good").await.len(), 60);
    for name in ["whole", "number"] {
        assert_eq!(server.gauge(name).await, BTreeMap::from([(NEW_YEAR, 1.0)]), "{name}");
    }

    server.query("CREATE RETENTION POLICY short ON d DURATION 1h REPLICATION 1 DEFAULT").await;
    let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("after 1970");
    let list = (0..40).map(|at| ("kept", [].as_slice(), if at % 4 == 0 { NEW_YEAR + at } else { now + at }, 1.0));
    let reply = relay.send("metrics", &gauges(list)).await;
    assert!(reply.rejected == 10 && reply.message.contains("beyond retention policy"), "{reply:?}");
    assert_eq!(server.gauge("kept").await.len(), 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_influxdb_leaves_out_is_dead_letters_which_arrive_when_the_conflict_is_gone() {
    let Some(program) = peer(Peer::InfluxDb) else { return };
    let mut server = InfluxDb::start(&program).await;
    server.query("CREATE DATABASE d").await;
    for name in ["whole", "number"] {
        let line = format!("{name} gauge=1i {NEW_YEAR}\n");
        assert_eq!(post(&format!("{}/write?db=d", server.url()), "text/plain", line).await.status.as_u16(), 204);
    }
    let agent = letters::agent(&server.exporter("d")).await;
    // In the middle of it the server dies.
    for batch in 0..10_u64 {
        let list = (0..30_u64).map(|at| {
            let name = match at % 10 {
                3 => "whole",
                7 => "number",
                _ => "good",
            };
            (name, [].as_slice(), NEW_YEAR + 1000 * (batch + 1) + at, 0.5)
        });
        letters::send(&agent, "metrics", &gauges(list)).await;
        if batch == 4 {
            server.process.signal(Signal::SIGKILL);
            server.process.end(seconds(20)).await;
        }
    }
    server.process = InfluxDb::launch(&server.program, server.folder.path());
    server.is_ready().await;
    let row = letters::drained(&agent, seconds(60)).await;
    assert_eq!(row, Row { accepted: 300, delivered: 240, dead_lettered: 60, ..Row::default() });
    assert_eq!(server.gauge("good").await.len(), 240);
    assert_eq!(letters::records(&agent), 60);
    let texts = letters::texts(&agent, "field type conflict");
    assert!(texts.contains("whole") && texts.contains("number") && !texts.contains("good"), "{texts:?}");
    letters::replay_in_vain(&agent, 60).await;
    for name in ["whole", "number"] {
        server.query(&format!("DROP MEASUREMENT {name}")).await;
    }
    letters::replay(&agent).await;
    for name in ["whole", "number"] {
        wait_for("the points", seconds(20), async || (server.gauge(name).await.len() == 30).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn points_wait_until_the_database_is_there_and_the_check_says_what_is_wrong() {
    let Some(program) = peer(Peer::InfluxDb) else { return };
    let server = InfluxDb::start(&program).await;
    let relay = Relay::start(&server.exporter("d"), "queued").await;
    let expected = points(0, &[1.0, 2.5]);
    relay.send("metrics", &request("m", &expected)).await;
    wait_for("the reason in the log", seconds(20), async || {
        relay.agent.process.stderr().contains("database not found").then_some(())
    })
    .await;
    let check = |block: &str| {
        let config = ConfigFile::new(&format!("integrations:\n  {}", block.replace('\n', "\n  ")));
        said(&run(&["check", "--config", config.path()]))
    };
    let checked = check(&server.exporter("d"));
    assert!(checked.contains("database not found") && checked.contains("create it"), "{checked}");
    let checked = check(&format!("influxdb:\n  endpoint: \"{}\"\n  bucket: d\n", server.url()));
    assert!(checked.contains("`version: 1`"), "{checked}");
    server.query("CREATE DATABASE d").await;
    wait_for("the points", seconds(20), async || (server.gauge("m").await == expected).then_some(())).await;
    let checked = check(&server.exporter("d"));
    assert!(checked.contains("takes writes"), "{checked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_influxdb_is_killed_and_started_again() {
    let Some(program) = peer(Peer::InfluxDb) else { return };
    let mut server = InfluxDb::start(&program).await;
    server.query("CREATE DATABASE d").await;
    let relay = Relay::start(&server.exporter("d"), "delivered").await;
    let mut expected = BTreeMap::new();
    for batch in 0..60_u64 {
        let own = points(batch * 100, &[batch as f64; 20]);
        if batch == 20 {
            server.process.signal(Signal::SIGKILL);
            server.process.end(seconds(20)).await;
            assert_eq!(relay.send_once("metrics", &request("m", &own)).await, None, "nobody is there to take it");
            server.process = InfluxDb::launch(&server.program, server.folder.path());
        }
        assert_eq!(relay.send("metrics", &request("m", &own)).await.rejected, 0);
        expected.extend(own);
    }
    server.is_ready().await;
    assert_eq!(server.gauge("m").await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victoria_metrics_holds_every_point_of_both_write_apis() {
    let Some(program) = peer(Peer::VictoriaMetrics) else { return };
    let server = VictoriaMetrics::start(&program, &["-retentionPeriod=100y"]).await;
    let url = &server.url;
    for (name, options) in [("v1", "database: d"), ("v2", "org: o\n  bucket: b\n  token: t\n  precision: ms")] {
        let relay = Relay::start(&format!("influxdb:\n  endpoint: \"{url}\"\n  {options}\n"), "delivered").await;
        // It keeps milliseconds.
        let expected: BTreeMap<u64, f64> =
            (0..300_u64).map(|at| (NEW_YEAR / 1_000_000 + at * 1000, at as f64 / 8.0)).collect();
        let list = expected.iter().map(|(time, value)| (name, [("mode", "a b")].as_slice(), time * 1_000_000, *value));
        assert_eq!(relay.send("metrics", &gauges(list)).await.rejected, 0);
        let export = format!("{url}/api/v1/export?start=0&match[]={name}_gauge");
        let found = wait_for("the points", seconds(30), async || {
            let series = get_json(&export).await?;
            let list = |name: &str| series[name].as_array().cloned().unwrap_or_default();
            let times = list("timestamps").into_iter().filter_map(|time| time.as_u64());
            let found: BTreeMap<u64, f64> =
                times.zip(list("values").into_iter().filter_map(|value| value.as_f64())).collect();
            (found.len() == expected.len()).then_some((found, series["metric"].clone()))
        })
        .await;
        assert_eq!(found.0, expected);
        assert_eq!((&found.1["mode"], &found.1["host.name"]), (&json!("a b"), &json!("web-1")), "{}", found.1);
        assert_calm(&relay.agent.process.stderr());
    }
}

/// Name, attributes and time of a point.
type NamedPoint<'a> = (String, Vec<(&'a str, &'a str)>, u64);

/// What VictoriaMetrics says that it does not take is a dead letter; what it cuts, merges or drops in silence counts
/// as delivered, because nothing in its answer tells. The guide of the exporter says which that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victoria_metrics_refuses_a_line_that_is_too_long_alone_and_does_not_say_what_else_it_leaves_out() {
    let Some(program) = peer(Peer::VictoriaMetrics) else { return };
    let server = VictoriaMetrics::start(&program, &["-retentionPeriod=1y"]).await;
    let options = ["database: d", "org: o\n  bucket: b\n  token: t"];
    for (round, options) in options.into_iter().enumerate() {
        let round = round as u64;
        let exporter = format!("influxdb:\n  endpoint: \"{}\"\n  {options}\n", server.url);
        let agent = letters::agent(&exporter).await;
        let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("after 1970");
        let now = now - now % 1_000_000;
        let (huge, long, name) = ("v".repeat(300_000), "v".repeat(20_000), "n".repeat(300));
        let [huge, long] = [[("a", huge.as_str())], [("a", long.as_str())]];
        let cut = [(name.as_str(), "v")];
        let with_huge = [("b", "c"), huge[0]];
        let clashes: Vec<_> = (0..3).map(silently_equal).collect();
        let day = 86_400_000_000_000;
        let mut list: Vec<NamedPoint<'_>> = Vec::new();
        for at in 0..20 {
            list.push((format!("good{round}"), Vec::new(), now + at * 1_000_000));
        }
        list.insert(7, (format!("huge{round}"), huge.to_vec(), now));
        list.insert(15, (format!("huge{round}"), with_huge.to_vec(), now));
        list.push((format!("long{round}"), long.to_vec(), now));
        list.push((format!("cut{round}"), cut.to_vec(), now));
        list.push((format!("old{round}"), Vec::new(), now - 700 * day));
        list.push((format!("early{round}"), Vec::new(), now + 5 * day));
        for clash in &clashes {
            let labels = clash.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            list.push((format!("clash{round}"), labels, now));
        }
        let sent = gauges(list.iter().map(|(name, texts, time)| (name.as_str(), texts.as_slice(), *time, 1.0)));
        letters::send(&agent, "metrics", &sent).await;
        let row = letters::drained(&agent, seconds(60)).await;
        assert_eq!(row, Row { accepted: 29, delivered: 27, dead_lettered: 2, ..Row::default() });
        let texts = letters::texts(&agent, "too long line");
        let huge = format!("huge{round}");
        assert!(texts.contains(&huge) && !texts.contains(&format!("good{round}")), "{}", texts.len());

        let times = |series: &Json| series["timestamps"].as_array().map_or(0, Vec::len);
        let good = server.one(&format!("good{round}_gauge")).await;
        let distinct: BTreeSet<_> = good["timestamps"].as_array().expect("times").iter().map(Json::to_string).collect();
        assert_eq!(distinct.len(), 20, "what was halved until it was found may be stored more than once: {good}");
        assert!(server.series(&format!("{huge}.*")).await.is_empty());
        // Cut or gone in silence.
        assert_eq!(server.one(&format!("long{round}_gauge")).await["metric"]["a"].as_str().map(str::len), Some(16_384));
        let cut = server.one(&format!("cut{round}_gauge")).await;
        let keys = cut["metric"].as_object().expect("labels").keys().map(String::len);
        assert_eq!(keys.max(), Some(256), "{cut}");
        assert!(server.series(&format!("(old|early){round}.*")).await.is_empty());
        let merged = server.one(&format!("clash{round}_gauge")).await;
        assert!(times(&merged) >= 3 && merged["metric"]["host.name"] == Json::Null, "three series are one: {merged}");
    }
    for counter in SILENT_CUTS {
        assert!(server.counter(counter).await >= 2, "{counter}");
    }
}

/// Labels of a series that differ behind the 30 that VictoriaMetrics keeps.
fn silently_equal(at: usize) -> Vec<(String, String)> {
    let same = (0..31).map(|at| (format!("a{at:02}"), "x".to_owned()));
    same.chain([("z".to_owned(), at.to_string())]).collect()
}
