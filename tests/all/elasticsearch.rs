//! Records in a real OpenSearch: all of them, exactly once, whatever happens to the node; and what
//! it refuses is refused alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::delivery::letters;
use crate::harness::http::{get_json, send};
use crate::harness::lasting::Row;
use crate::harness::peers::{Peer, peer};
use crate::harness::process::Process;
use crate::harness::relay::{Relay, Texts, gauges, logs};
use crate::harness::weir::{ConfigFile, assert_calm, run, said};
use crate::harness::{free_port, seconds, wait_for};

/// 2026-01-01 00:00:00 UTC, unix nanoseconds.
const NEW_YEAR: u64 = 1_767_225_600_000_000_000;
/// A day in nanoseconds.
const DAY: u64 = 86_400_000_000_000;

/// A node that can be killed and started again on the same port with the same data.
struct OpenSearch {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    process: Process,
}

impl OpenSearch {
    async fn start(program: &Path) -> OpenSearch {
        Self::start_with(program, &[]).await
    }

    /// Starts a node with settings, each as `NAME=VALUE`.
    async fn start_with(program: &Path, settings: &[&str]) -> OpenSearch {
        let (folder, port) = (tempfile::tempdir().expect("a temporary folder"), free_port());
        let process = Self::launch(program, folder.path(), port, settings);
        let node = OpenSearch { program: program.to_owned(), folder, port, process };
        node.is_ready().await;
        node
    }

    fn launch(program: &Path, folder: &Path, port: u16, settings: &[&str]) -> Process {
        let classes = format!("{0}/lib/*:{0}", program.display());
        let mut command = Command::new("java");
        command.args([
            "-Xms256m",
            "-Xmx1g",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            &classes,
            "OpenSearchNode",
            &port.to_string(),
        ]);
        Process::start("OpenSearch", command.arg(folder).args(settings).current_dir(folder))
    }

    async fn is_ready(&self) {
        let health = self.url("_cluster/health?wait_for_status=yellow");
        wait_for("OpenSearch is ready", seconds(120), async || {
            get_json(&health).await.filter(|health| health["status"] != "red")
        })
        .await;
    }

    async fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.end(seconds(20)).await;
    }

    async fn start_again(&mut self) {
        self.process = Self::launch(&self.program, self.folder.path(), self.port, &[]);
        self.is_ready().await;
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    async fn put(&self, path: &str, body: Json) {
        let request = http::Request::put(self.url(path)).header("content-type", "application/json");
        let answer = send(request.body(Bytes::from(body.to_string())).expect("a good address")).await;
        let answer = answer.unwrap_or_else(|error| panic!("PUT {path}: {error}"));
        assert!(answer.status.is_success(), "PUT {path}: {}", answer.excerpt());
    }

    /// All documents of an index, which may not be there yet.
    async fn documents(&self, index: &str) -> Vec<Json> {
        let refreshed = get_json(&self.url(&format!("{index}/_refresh"))).await;
        let found = get_json(&self.url(&format!("{index}/_search?size=10000&track_total_hits=true"))).await;
        let (Some(_), Some(found)) = (refreshed, found) else { return Vec::new() };
        let hits: Vec<Json> =
            found["hits"]["hits"].as_array().expect("hits").iter().map(|hit| hit["_source"].clone()).collect();
        assert_eq!(found["hits"]["total"]["value"], hits.len(), "more than one search shows");
        hits
    }

    async fn wait_for_documents(&self, index: &str, count: usize) -> Vec<Json> {
        wait_for(&format!("{count} documents in {index}"), seconds(60), async || {
            Some(self.documents(index).await).filter(|found| found.len() >= count)
        })
        .await
    }

    /// Documents that an index was asked to store, and those of them that it refused.
    async fn indexed(&self, index: &str) -> (u64, u64) {
        let stats = get_json(&self.url(&format!("{index}/_stats/indexing"))).await.expect("statistics");
        let of = |name: &str| stats["_all"]["primaries"]["indexing"][name].as_u64().expect("a number");
        (of("index_total"), of("index_failed"))
    }

    fn exporter(&self, rest: &str) -> String {
        format!("elasticsearch:\n  endpoints: [\"{}\"]\n{rest}", self.url(""))
    }
}

fn messages(documents: &[Json]) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for document in documents {
        *counted.entry(document["message"].as_str().expect("a message").to_owned()).or_default() += 1;
    }
    counted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opensearch_holds_every_record_exactly_in_daily_indices_and_in_a_data_stream() {
    let Some(program) = peer(Peer::OpenSearch) else { return };
    let node = OpenSearch::start(&program).await;
    let template = json!({"index_patterns": ["logs-*"], "data_stream": {}, "priority": 200});
    node.put("_index_template/logs", template).await;
    let exporter = node.exporter("  index: \"telemetryflow-%Y.%m.%d\"\n  logs: false\n")
        + &node.exporter("  index: logs-weir-default\n  metrics: false\n").replacen(
            "elasticsearch:",
            "elasticsearch/logs:",
            1,
        );
    let relay = Relay::start(&exporter, "delivered").await;

    let values: Vec<f64> = (0..500).map(|at| f64::from(at) / 8.0).collect();
    for (batch, chunk) in values.chunks(50).enumerate() {
        let points = chunk.iter().enumerate().map(|(at, value)| {
            // The last batches are of the next day.
            let time = NEW_YEAR + DAY * (batch as u64 / 8) + (batch * 50 + at) as u64 * 1_000_000;
            ("test.load", [("unit.of", "a b")].as_slice(), time, *value)
        });
        assert_eq!(relay.send("metrics", &gauges(points)).await.rejected, 0);
    }
    let awkward = ["plain", "with \"quotes\" and \\", "line\nbreak\ttab", "世界 🌍 \u{0}", "{\"json\":1}"];
    let lines =
        (0..200).map(|at| (NEW_YEAR + at, format!("{} {at}", awkward[at as usize % 5]), [("code", "x")].as_slice()));
    // Twice, as from a sender whose answer was lost: it is taken, and stored once.
    let request = logs(lines);
    for _ in 0..2 {
        assert_eq!(relay.send("logs", &request).await.rejected, 0);
    }

    let first = node.wait_for_documents("telemetryflow-2026.01.01", 400).await;
    let second = node.wait_for_documents("telemetryflow-2026.01.02", 100).await;
    assert_eq!((first.len(), second.len()), (400, 100));
    let mut found: Vec<f64> =
        first.iter().chain(&second).map(|it| it["metric"]["value"].as_f64().expect("a value")).collect();
    found.sort_by(f64::total_cmp);
    assert_eq!(found, values);
    assert_eq!(first[0]["host.name"], "web-1");
    assert_eq!(first[0]["labels"], json!({"unit_of": "a b"}));
    let found = messages(&node.wait_for_documents("logs-weir-default", 200).await);
    let expected: BTreeMap<String, usize> = (0..200).map(|at| (format!("{} {at}", awkward[at % 5]), 1)).collect();
    assert_eq!(found, expected);
    let stream = get_json(&node.url("_data_stream/logs-weir-default")).await.expect("it is a data stream");
    assert_eq!(stream["data_streams"].as_array().map(Vec::len), Some(1));
    assert_calm(&relay.agent.process.stderr());
    let config = ConfigFile::new(&format!("integrations:\n  {}", node.exporter("").replace('\n', "\n  ")));
    let checked = said(&run(&["check", "--config", config.path()]));
    assert!(checked.contains("opensearch 2.19.1, cluster `weir-tests`"), "{checked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opensearch_refuses_exactly_the_records_that_its_mapping_does_not_take() {
    let Some(program) = peer(Peer::OpenSearch) else { return };
    let node = OpenSearch::start(&program).await;
    node.put("strict", json!({"mappings": {"properties": {"labels": {"properties": {"code": {"type": "long"}}}}}}))
        .await;
    let relay = Relay::start(&node.exporter("  index: strict\n"), "delivered").await;
    let (good, bad): (Texts<'_>, Texts<'_>) = (&[("code", "5")], &[("code", "five")]);
    let lines = (0..60).map(|at| (NEW_YEAR + at, format!("line {at}"), if at % 3 == 0 { bad } else { good }));
    let reply = relay.send("logs", &logs(lines)).await;
    assert_eq!(reply.rejected, 20, "{reply:?}");
    assert!(reply.message.contains("failed to parse field [labels.code] of type [long]"), "{reply:?}");
    let found = messages(&node.wait_for_documents("strict", 40).await);
    let expected: BTreeMap<String, usize> =
        (0..60).filter(|at| at % 3 != 0).map(|at| (format!("line {at}"), 1)).collect();
    assert_eq!(found, expected);
    let log = relay.agent.process.stderr();
    assert!(log.contains("20 records are refused for good"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_mapping_refuses_is_dead_letters_which_arrive_when_it_is_mended() {
    let Some(program) = peer(Peer::OpenSearch) else { return };
    let mut node = OpenSearch::start(&program).await;
    node.put("strict", json!({"mappings": {"properties": {"labels": {"properties": {"code": {"type": "long"}}}}}}))
        .await;
    let exporter = node.exporter("  index: strict\n  retry_delay: 200ms\n  retry_max_delay: 1s\n");
    let agent = letters::agent(&exporter).await;
    let (good, bad): (Texts<'_>, Texts<'_>) = (&[("code", "5")], &[("code", "five")]);
    let batch = |from: u64| {
        logs((from..from + 60).map(|at| (NEW_YEAR + at, format!("line {at}"), if at % 3 == 0 { bad } else { good })))
    };
    letters::send(&agent, "logs", &batch(0)).await;
    let row = letters::drained(&agent, seconds(30)).await;
    assert_eq!(row, Row { accepted: 60, delivered: 40, dead_lettered: 20, ..Row::default() });
    // The node dies in the middle of a flow; what it refuses is found out afterwards.
    for part in 1..10 {
        letters::send(&agent, "logs", &batch(part * 60)).await;
        if part == 3 {
            node.kill().await;
        }
    }
    node.start_again().await;
    let row = letters::drained(&agent, seconds(60)).await;
    assert_eq!(row, Row { accepted: 600, delivered: 400, dead_lettered: 200, ..Row::default() });
    let is_bad = |at: &u64| at.is_multiple_of(3);
    let why = "failed to parse field [labels.code] of type [long]";
    let lines =
        |texts: BTreeSet<String>| texts.into_iter().filter(|text| text.starts_with("line ")).collect::<Vec<_>>();
    let mut expected: Vec<String> = (0..600).filter(is_bad).map(|at| format!("line {at}")).collect();
    expected.sort_unstable();
    assert_eq!(lines(letters::texts(&agent, why)), expected, "exactly the bad ones");
    letters::replay_in_vain(&agent, 200).await;
    assert_eq!(lines(letters::texts(&agent, why)), expected);

    let lenient =
        json!({"properties": {"labels": {"properties": {"code": {"type": "long", "ignore_malformed": true}}}}});
    node.put("strict/_mapping", lenient).await;
    letters::replay(&agent).await;
    let found = messages(&node.wait_for_documents("strict", 600).await);
    assert_eq!(found, (0..600).map(|at| (format!("line {at}"), 1)).collect::<BTreeMap<String, usize>>());
    println!("documents that were stored, and refused, since the node began: {:?}", node.indexed("strict").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_opensearch_puts_off_is_sent_again_alone() {
    let Some(program) = peer(Peer::OpenSearch) else { return };
    let node = OpenSearch::start(&program).await;
    for index in ["day-2026.01.01", "day-2026.01.02"] {
        node.put(index, json!({})).await;
    }
    node.put("day-2026.01.02/_settings", json!({"index.blocks.write": true})).await;
    let exporter = node.exporter("  index: \"day-%Y.%m.%d\"\n  retry_delay: 200ms\n  retry_max_delay: 500ms\n");
    let relay = Relay::start(&exporter, "queued").await;
    let lines = (0..40).map(|at| (NEW_YEAR + DAY * (at % 2) + at, format!("line {at}"), [].as_slice()));
    assert_eq!(relay.send("logs", &logs(lines)).await.rejected, 0);
    node.wait_for_documents("day-2026.01.01", 20).await;
    let blocked = "blocked by: [FORBIDDEN/8/index write (api)]";
    wait_for("the reason in the log", seconds(20), async || {
        relay.agent.process.stderr().contains(blocked).then_some(())
    })
    .await;
    // Long enough for several attempts.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(node.documents("day-2026.01.02").await.len(), 0);
    node.put("day-2026.01.02/_settings", json!({"index.blocks.write": false})).await;
    let second = node.wait_for_documents("day-2026.01.02", 20).await;
    assert_eq!((second.len(), node.documents("day-2026.01.01").await.len()), (20, 20));
    assert_eq!(node.indexed("day-2026.01.01").await, (20, 0), "what was taken was never sent again");
    assert_eq!(node.indexed("day-2026.01.02").await, (20, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_overloaded_opensearch_rejects_is_sent_again_alone() {
    let Some(program) = peer(Peer::OpenSearch) else { return };
    // One thread and a queue of one for writes, and many shards: a request is too much at once.
    let node = OpenSearch::start_with(&program, &["thread_pool.write.size=1", "thread_pool.write.queue_size=1"]).await;
    node.put("busy", json!({"settings": {"number_of_shards": 20, "number_of_replicas": 0}})).await;
    let exporter = node.exporter("  index: busy\n  retry_delay: 100ms\n  retry_max_delay: 200ms\n");
    let relay = Relay::start(&exporter, "queued").await;
    let lines = (0..400).map(|at| (NEW_YEAR + at, format!("line {at}"), [].as_slice()));
    assert_eq!(relay.send("logs", &logs(lines)).await.rejected, 0);
    let found = messages(&node.wait_for_documents("busy", 400).await);
    assert_eq!(found, (0..400).map(|at| (format!("line {at}"), 1)).collect::<BTreeMap<String, usize>>());
    assert_eq!(node.indexed("busy").await, (400, 0), "what was taken was never sent again");
    let log = relay.agent.process.stderr();
    assert!(log.contains("rejected_execution_exception"), "nothing was rejected: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_when_opensearch_is_killed_and_started_again() {
    let Some(program) = peer(Peer::OpenSearch) else { return };
    let mut node = OpenSearch::start(&program).await;
    let exporter = node.exporter("  index: killed\n  retry_delay: 200ms\n  retry_max_delay: 1s\n");
    let relay = Relay::start(&exporter, "delivered").await;
    let sender = async {
        for batch in 0..60_u64 {
            // Equal lines with equal times are different events.
            let lines = (0..20).map(|at| (NEW_YEAR + batch, format!("batch {batch} line {}", at / 2), [].as_slice()));
            assert_eq!(relay.send("logs", &logs(lines)).await.rejected, 0);
        }
    };
    let killer = async {
        node.wait_for_documents("killed", 200).await;
        node.kill().await;
        node.start_again().await;
    };
    tokio::join!(sender, killer);
    let found = messages(&node.wait_for_documents("killed", 1200).await);
    let expected: BTreeMap<String, usize> =
        (0..60).flat_map(|batch| (0..10).map(move |line| (format!("batch {batch} line {line}"), 2))).collect();
    assert_eq!(found, expected);
}
