//! Records through a real Kafka, in both directions, whatever happens to the broker and to readers: nothing is
//! lost, a clean stop doubles nothing, and what Kafka refuses is refused alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message as _;
use serde_json::json;

use crate::harness::capture::Capture;
use crate::harness::kafka::{Broker, Message, PASSWORD};
use crate::harness::peers::{Peer, peer};
use crate::harness::relay::{Relay, gauges, logs};
use crate::harness::weir::{Agent, ConfigFile, assert_calm, run, said};
use crate::harness::{seconds, wait_for};

/// 2026-01-01 00:00:00 UTC, unix nanoseconds.
const NEW_YEAR: u64 = 1_767_225_600_000_000_000;

/// How often each body of log records is there.
type Counted = BTreeMap<String, usize>;

fn count(requests: &[ExportLogsServiceRequest]) -> Counted {
    let mut counted = Counted::new();
    let scopes = requests.iter().flat_map(|it| &it.resource_logs).flat_map(|it| &it.scope_logs);
    for record in scopes.flat_map(|it| &it.log_records) {
        let body = record.body.as_ref().and_then(|body| body.value.clone());
        let Some(Value::StringValue(text)) = body else { panic!("no text: {body:?}") };
        *counted.entry(text).or_default() += 1;
    }
    counted
}

fn duplicates(counted: &Counted) -> usize {
    counted.values().map(|count| count - 1).sum()
}

/// A request with the records `from` to `to`, each with a number of its own.
fn numbered(from: u64, to: u64) -> serde_json::Value {
    logs((from..to).map(|at| (NEW_YEAR + at, format!("record {at}"), [].as_slice())))
}

fn numbers(from: u64, to: u64) -> Vec<String> {
    let mut all: Vec<String> = (from..to).map(|at| format!("record {at}")).collect();
    all.sort();
    all
}

/// A message with one of these records, as other programs write it.
fn message(at: u64) -> Bytes {
    let request: ExportLogsServiceRequest = serde_json::from_value(numbered(at, at + 1)).expect("OTLP/JSON");
    request.encode_to_vec().into()
}

/// An agent that reads a topic and passes on what it finds.
fn reader(broker: &Broker, sink: &Capture, more: &str) -> Agent {
    // Few records at once: slow enough to be met in the middle of its work.
    let exporter =
        sink.exporter("otlp").replace("compression: none", "compression: none, batch_size: 4, max_in_flight: 2");
    Agent::start(
        "reader",
        &format!(
            "delivery: {{queue: memory}}\nintegrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  \
             kafka_consumer:\n    brokers: [\"{}\"]\n    topics: [otlp_logs]\n    group_id: readers\n{more}{exporter}",
            broker.address(),
        ),
    )
}

/// Waits for records in a sink; how often each came.
async fn arrived(sink: &Capture, count_of: usize) -> Counted {
    wait_for(&format!("{count_of} records"), seconds(120), async || {
        Some(count(&sink.logs())).filter(|found| found.len() >= count_of)
    })
    .await
}

async fn stopped(mut agent: Agent) -> String {
    agent.process.signal(Signal::SIGTERM);
    let (status, _) = agent.process.end(seconds(15)).await;
    let log = agent.process.stderr();
    assert!(status.success(), "{log}");
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_signals_arrive_in_kafka_and_its_own_client_reads_every_compression_and_encoding() {
    let Some(program) = peer(Peer::Kafka) else { return };
    let broker = Broker::start(&program).await;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    let mut exporters = String::new();
    let mut topics: Vec<String> = Vec::new();
    for codec in codecs {
        let encoding = if codec == "gzip" { "json" } else { "otlp_proto" };
        let of = |signal: &str| format!("{codec}-{signal}");
        for signal in ["metrics", "logs", "traces"] {
            topics.push(of(signal));
        }
        exporters.push_str(&format!(
            "kafka/{codec}:\n  brokers: [\"{}\"]\n  topic: {}\n  logs_topic: {}\n  traces_topic: {}\n  compression: {codec}\n  \
             encoding: {encoding}\n  partition_key: hostname\n",
            broker.address(),
            of("metrics"),
            of("logs"),
            of("traces"),
        ));
    }
    broker.create(&topics.join(","), 1, &[]);
    let relay = Relay::start(&exporters, "delivered").await;
    let long = "the same words again and again; ".repeat(20);
    let lines = logs((0..200).map(|at| (NEW_YEAR + at, format!("{long} {at}"), [("code", "x")].as_slice())));
    assert_eq!(relay.send("logs", &lines).await.rejected, 0);
    let points = gauges((0..50).map(|at| ("load", [].as_slice(), NEW_YEAR + at, f64::from(at as u32))));
    assert_eq!(relay.send("metrics", &points).await.rejected, 0);
    let span = json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "GET /",
                      "startTimeUnixNano": "1", "endTimeUnixNano": "2"});
    let spans = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    assert_eq!(relay.send("traces", &spans).await.rejected, 0);

    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let found = broker.read(&names);
    for codec in codecs {
        let of = |signal: &str| -> Vec<&Message> {
            found.iter().filter(|it| it.topic == format!("{codec}-{signal}")).collect()
        };
        let is_json = codec == "gzip";
        let requests: Vec<ExportLogsServiceRequest> = of("logs").iter().map(|it| decoded(is_json, &it.body)).collect();
        let counted = count(&requests);
        assert_eq!((counted.len(), duplicates(&counted)), (200, 0), "{codec}");
        assert!(of("logs").iter().all(|it| it.key.as_deref() == Some("web-1") && it.headers.contains("signal=logs;")));
        let metrics: Vec<ExportMetricsServiceRequest> =
            of("metrics").iter().map(|it| decoded(is_json, &it.body)).collect();
        let values: Vec<f64> = metrics.iter().flat_map(crate::harness::points::points).map(|it| it.value).collect();
        assert_eq!(values, (0..50).map(f64::from).collect::<Vec<_>>(), "{codec}");
        let traces: Vec<ExportTraceServiceRequest> = of("traces").iter().map(|it| decoded(is_json, &it.body)).collect();
        assert_eq!(traces[0].resource_spans[0].scope_spans[0].spans[0].name, "GET /");
    }
    let plain = broker.size_bytes("none-logs");
    for codec in ["snappy", "lz4", "zstd"] {
        let size = broker.size_bytes(&format!("{codec}-logs"));
        assert!(size * 3 < plain, "{codec} takes {size} B where none takes {plain} B");
    }
    assert_calm(&relay.agent.process.stderr());
    let config = ConfigFile::new(&format!("integrations:\n  {}", exporters.replace('\n', "\n  ").trim_end()));
    let checked = said(&run(&["check", "--config", config.path()]));
    assert!(checked.contains("`zstd-traces` (1 partitions)"), "{checked}");
}

fn decoded<M>(is_json: bool, body: &Bytes) -> M
where
    M: prost::Message + Default + serde::de::DeserializeOwned,
{
    if is_json { serde_json::from_slice(body).expect("OTLP/JSON") } else { M::decode(body.clone()).expect("OTLP") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_trip_loses_nothing_when_the_broker_is_killed_and_doubles_nothing_over_a_clean_stop() {
    let Some(program) = peer(Peer::Kafka) else { return };
    let mut broker = Broker::start(&program).await;
    broker.create("otlp_logs", 4, &[]);
    let sink = Capture::start().await;
    let exporter =
        format!("kafka:\n  brokers: [\"{}\"]\n  retry_delay: 200ms\n  retry_max_delay: 1s\n", broker.address());
    let relay = Relay::start(&exporter, "delivered").await;
    let agent = reader(&broker, &sink, "");
    let sender = async {
        for batch in 0..100_u64 {
            assert_eq!(relay.send("logs", &numbered(batch * 20, batch * 20 + 20)).await.rejected, 0);
        }
    };
    let killer = async {
        // Often before the first commit of the group, which is the harder case.
        arrived(&sink, 40).await;
        broker.kill().await;
        broker.start_again().await;
    };
    tokio::join!(sender, killer);
    let found = arrived(&sink, 2000).await;
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), numbers(0, 2000), "nothing is lost");
    let written = |broker: &Broker| {
        let messages = broker.read(&["otlp_logs"]);
        let requests: Vec<ExportLogsServiceRequest> = messages.iter().map(|it| decoded(false, &it.body)).collect();
        (messages, duplicates(&count(&requests)))
    };
    let (messages, twice) = written(&broker);
    let partitions: BTreeSet<u32> = messages.iter().map(|it| it.partition).collect();
    assert!(partitions.len() > 1, "without a key they are spread: {partitions:?}");
    // The group gets well by itself.
    let begun = std::time::Instant::now();
    wait_for("all is committed", seconds(60), async || {
        (broker.committed("readers") == messages.len() as u64).then_some(())
    })
    .await;
    println!("all was committed {:.1} s after the last arrival was seen", begun.elapsed().as_secs_f32());
    println!(
        "broker killed in the middle of 2000 records: {twice} were written twice (their sender was not answered in \
         time and sent them again), {} read twice",
        duplicates(&count(&sink.logs())) - twice
    );
    // A clean stop commits all that arrived, however lately: the next life reads only what is new.
    for batch in 100..110 {
        relay.send("logs", &numbered(batch * 20, batch * 20 + 20)).await;
    }
    arrived(&sink, 2200).await;
    let log = stopped(agent).await;
    let (messages, _) = written(&broker);
    assert_eq!(broker.committed("readers"), messages.len() as u64, "every message is committed: {log}");
    for batch in 110..120 {
        relay.send("logs", &numbered(batch * 20, batch * 20 + 20)).await;
    }
    let second = Capture::start().await;
    let agent = reader(&broker, &second, "");
    let found = arrived(&second, 200).await;
    let log = stopped(agent).await;
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), numbers(2200, 2400), "only what is new");
    assert_eq!(duplicates(&count(&second.logs())), 0);
    assert_calm(&log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_come_and_go_and_die_lose_nothing() {
    let Some(program) = peer(Peer::Kafka) else { return };
    let broker = Broker::start(&program).await;
    broker.create("otlp_logs", 6, &[]);
    let sink = Capture::start().await;
    // A dead member is noticed after its session; the broker allows no shorter one.
    let session = "    options: {session.timeout.ms: 6000}\n";
    let broker = Arc::new(broker);
    let write = |from: u64, to: u64| {
        let broker = broker.clone();
        tokio::task::spawn_blocking(move || broker.write("otlp_logs", (from..to).map(message)))
    };
    let first = reader(&broker, &sink, session);
    let writing = write(0, 2_000);
    arrived(&sink, 300).await;
    let mut second = reader(&broker, &sink, session);
    writing.await.expect("written");
    arrived(&sink, 2_000).await;
    let writing = write(2_000, 4_000);
    arrived(&sink, 2_300).await;
    let log = stopped(first).await;
    assert!(log.contains("partitions go to other members") || log.contains("partitions are read here"), "{log}");
    writing.await.expect("written");
    arrived(&sink, 4_000).await;
    let before = duplicates(&count(&sink.logs()));
    let writing = write(4_000, 6_000);
    arrived(&sink, 4_300).await;
    second.process.signal(Signal::SIGKILL);
    second.process.end(seconds(10)).await;
    writing.await.expect("written");
    let third = reader(&broker, &sink, session);
    let found = arrived(&sink, 6_000).await;
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), numbers(0, 6_000), "nothing is lost");
    wait_for("the last commit", seconds(60), async || (broker.committed("readers") == 6_000).then_some(())).await;
    stopped(third).await;
    let after = duplicates(&count(&sink.logs()));
    println!("6000 records: {before} came twice over two rebalances, {} more over a kill -9", after - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_too_large_for_the_topic_is_refused_alone() {
    let Some(program) = peer(Peer::Kafka) else { return };
    let broker = Broker::start(&program).await;
    broker.create("otlp_logs", 1, &["max.message.bytes=20000"]);
    let exporter = format!("kafka: {{brokers: [\"{}\"], idempotent: false}}\n", broker.address());
    for exporter in [exporter.clone(), exporter.replace(", idempotent: false", "")] {
        let relay = Relay::start(&exporter, "delivered").await;
        let lines = (0..30).map(|at| {
            let filling = if at == 17 { 50_000 } else { 1000 };
            (NEW_YEAR + at, format!("record {at} {}", "x".repeat(filling)), [].as_slice())
        });
        let reply = relay.send("logs", &logs(lines)).await;
        assert_eq!(reply.rejected, 1, "{reply:?}");
        assert!(reply.message.contains("takes no messages of this size"), "{reply:?}");
    }
    let found: Vec<ExportLogsServiceRequest> =
        broker.read(&["otlp_logs"]).iter().map(|it| decoded(false, &it.body)).collect();
    let counted = count(&found);
    assert_eq!(counted.len(), 29);
    assert!(counted.values().all(|count| *count == 2), "once per exporter: {:?}", counted.values());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_right_password_may_write_and_read_and_a_wrong_one_is_told_so() {
    let Some(program) = peer(Peer::Kafka) else { return };
    let broker = Broker::start(&program).await;
    broker.create("otlp_logs", 1, &[]);
    let credentials = |password: &str| {
        format!(
            "brokers: [\"{}\"], security_protocol: sasl_plaintext, username: weir, password: {password}",
            broker.sasl_address()
        )
    };
    let exporter = |password: &str, more: &str| format!("kafka: {{{}{more}}}\n", credentials(password));
    let check = |password: &str| {
        let config =
            ConfigFile::new(&format!("integrations:\n  {}", exporter(password, ", signals: [logs], timeout: 3s")));
        said(&run(&["check", "--config", config.path()]))
    };
    let right = check(PASSWORD);
    assert!(right.contains("`otlp_logs` (1 partitions)"), "{right}");
    let wrong = check("hunter2-is-wrong");
    assert!(wrong.contains("Authentication failed") && !wrong.contains("hunter2"), "{wrong}");

    let relay = Relay::start(&exporter(PASSWORD, ""), "delivered").await;
    assert_eq!(relay.send("logs", &numbered(0, 10)).await.rejected, 0);
    let sink = Capture::start().await;
    let reading = Agent::start(
        "reader",
        &format!(
            "integrations:\n  host: {{enabled: false}}\n  internal: {{enabled: false}}\n  kafka_consumer: {{{}, topics: [otlp_logs]}}\n{}",
            credentials(PASSWORD),
            sink.exporter("otlp")
        ),
    );
    assert_eq!(arrived(&sink, 10).await.len(), 10);
    stopped(reading).await;

    let locked_out = Relay::start(&exporter("hunter2-is-wrong", ", timeout: 2s"), "queued").await;
    locked_out.send("logs", &numbered(0, 1)).await;
    let log = wait_for("the reason in the log", Duration::from_secs(20), async || {
        Some(locked_out.agent.process.stderr()).filter(|log| log.contains("Authentication failed"))
    })
    .await;
    assert!(!log.contains("hunter2"), "{log}");
}
