//! `kafka` against a real broker behind a wire that stalls, breaks and trickles, and against what brokers refuse:
//! nothing is lost, what is refused is a dead letter and nothing else is, and the ledger is exact.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value as Json;

use super::faults::{RECORDS, SIGNALS, send};
use crate::harness::kafka::wire::WireFault;
use crate::harness::kafka::{Broker, PASSWORD};
use crate::harness::lasting::{Lasting, Row};
use crate::harness::liar::Mark;
use crate::harness::peers::{Peer, peer};
use crate::harness::relay::logs;
use crate::harness::{http, seconds, wait_for};

/// Longest time for one round: a refused user is asked about again after 30 s.
const LONGEST_ROUND: Duration = seconds(90);

const ROUNDS: [WireFault; 8] = [
    WireFault::None,
    WireFault::ResetInRequest,
    WireFault::ResetInAnswer,
    WireFault::NoAnswer,
    WireFault::StallRequest,
    WireFault::StallAnswer,
    WireFault::TrickleRequest,
    WireFault::TrickleAnswer,
];

/// How long each of them lasts.
const HOLDS: Duration = seconds(5);

/// The round of records that are too large for their topic.
const TOO_LARGE: u8 = 50;

/// The topics of the exporter behind the wire, for all signals.
const TOPICS: [&str; 3] = ["otlp_metrics", "otlp_logs", "otlp_spans"];

/// All of an exporter's records in the ledger.
fn row(agent: &Lasting, exporter: &str) -> Row {
    let rows = agent.ledger();
    Row::of(rows.iter().filter(|row| row["exporter"] == exporter && row["source"] == "otlp_receiver"))
}

async fn drained(agent: &Lasting, exporter: &str, what: &str) -> Row {
    wait_for(&format!("{what}: nothing waits"), LONGEST_ROUND, async || {
        Some(row(agent, exporter)).filter(|row| row.waiting == 0)
    })
    .await
}

fn letters(agent: &Lasting) -> Vec<Json> {
    let page = agent.json(&["dead-letters", "list", "--json", "--limit", "1000"]);
    page["dead_letters"].as_array().expect("a list").clone()
}

/// How often each record is in some topics.
fn written(broker: &Broker, topics: &[&str]) -> BTreeMap<Mark, u32> {
    let mut found = BTreeMap::new();
    for message in broker.read(topics) {
        for mark in Mark::all_in(&message.body) {
            *found.entry(mark).or_default() += 1;
        }
    }
    found
}

/// That every one of these records is there; how many copies there are besides.
fn assert_there(found: &BTreeMap<Mark, u32>, marks: &[Mark], what: &str) -> u32 {
    let missing: Vec<String> = marks.iter().filter(|mark| !found.contains_key(*mark)).map(Mark::to_string).collect();
    assert_eq!(missing, Vec::<String>::new(), "{what}: these are lost");
    marks.iter().map(|mark| found[mark] - 1).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_delivers_everything_through_every_fault_and_keeps_what_is_refused() {
    let Some(program) = peer(Peer::Kafka) else { return };
    let broker = Broker::start(&program).await;
    broker.create(&format!("{},locked", TOPICS.join(",")), 2, &[]);
    broker.forbid("locked", true);
    let (wire, address) = broker.wire().await;
    let mut agent = Lasting::new();
    let often = "timeout: 3s, retry_delay: 50ms, retry_max_delay: 300ms";
    let (plain, sasl) = (broker.address(), broker.sasl_address());
    let blocks = format!(
        "  kafka: {{brokers: [\"{address}\"], {often}}}\n  \
         kafka/new: {{brokers: [\"{plain}\"], logs_topic: later, signals: [logs], {often}}}\n  \
         kafka/locked: {{brokers: [\"{sasl}\"], logs_topic: locked, signals: [logs], {often},\n    \
         security_protocol: sasl_plaintext, username: weir, password: {PASSWORD}}}\n"
    );
    agent.configure("", &blocks);
    agent.start().await;

    let (mut accepted, mut sent, mut said) = (0, Vec::new(), Vec::new());
    for (round, fault) in (0..).zip(ROUNDS) {
        let (begun, what) = (Instant::now(), format!("kafka with {fault:?}"));
        wire.set(fault);
        let mut marks = Vec::new();
        for signal in SIGNALS {
            marks.extend(send(&agent, round, signal).await);
        }
        if fault != WireFault::None {
            // Longer than the exporter waits: also what is sent again meets it.
            let is_met = || begun.elapsed() > HOLDS && wire.faulted() > 1;
            wait_for(&format!("{what}: it is met"), LONGEST_ROUND, async || is_met().then_some(())).await;
            wire.set(WireFault::None);
        }
        accepted += marks.len() as u64;
        let row = drained(&agent, "kafka", &what).await;
        assert_eq!(row, Row::all_delivered(accepted), "{what}: {:?}\n{}", letters(&agent), agent.process().stderr());
        said.push((fault, wire.faulted(), begun.elapsed().as_secs_f64()));
        sent.push(marks);
    }
    assert_eq!(letters(&agent), Vec::<Json>::new(), "no record is at fault");
    let found = written(&broker, &TOPICS);
    for ((fault, met, took), marks) in said.iter().zip(&sent) {
        let twice = assert_there(&found, marks, &format!("{fault:?}"));
        println!("  {fault:?}: met {met}, {twice} of {} records twice, {took:.1} s", marks.len());
        assert!(twice == 0 || fault.loses_answers(), "{fault:?}: the broker wrote what it did not get whole");
    }
    assert_eq!(found.len(), sent.iter().map(Vec::len).sum::<usize>(), "nobody sent the others");

    let too_large = refuses_alone(&agent, &broker, accepted).await;
    let mut logs: Vec<Mark> = sent.into_iter().flatten().filter(|mark| mark.signal == b'l').collect();
    logs.extend(too_large);
    opens(&agent, &broker, &logs).await;
    let log = agent.stop().await;
    assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
}

/// Records that are too large for their topic become dead letters, each alone, and arrive when it takes them.
async fn refuses_alone(agent: &Lasting, broker: &Broker, accepted: u64) -> Vec<Mark> {
    broker.set("otlp_logs", "max.message.bytes=20000");
    let marks: Vec<Mark> = (0..RECORDS).map(|number| Mark { round: TOO_LARGE, signal: b'l', number }).collect();
    let bad: Vec<Mark> = marks.iter().copied().filter(|mark| mark.is_bad()).collect();
    let now = u64::try_from(jiff::Timestamp::now().as_nanosecond()).expect("after 1970");
    let body = |mark: &Mark| format!("{mark} {}", "x".repeat(if mark.is_bad() { 30_000 } else { 10 }));
    let request = logs(marks.iter().map(|mark| (now, body(mark), [].as_slice())));
    let url = format!("{}/v1/logs", agent.url());
    let answer = http::post(&url, "application/json", Bytes::from(request.to_string())).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.excerpt());
    let dead_lettered = bad.len() as u64;
    let accepted = accepted + marks.len() as u64;
    let row = drained(agent, "kafka", "too large").await;
    let expected = Row { accepted, delivered: accepted - dead_lettered, dead_lettered, ..Row::default() };
    assert_eq!(row, expected, "{}", agent.process().stderr());
    let mut found = Vec::new();
    for letter in letters(agent) {
        let shown = agent.json(&["dead-letters", "show", letter["id"].as_str().expect("an id")]);
        found.extend(Mark::all_in(shown["payload"].to_string().as_bytes()));
        let reason = letter["reason"].as_str().expect("a reason");
        assert!(letter["exporter"] == "kafka" && reason.contains("takes no messages of this size"), "{letter}");
        assert_eq!((&letter["records"], &letter["of"]), (&Json::from(1), &Json::from(1)), "{letter}");
    }
    found.sort_unstable();
    assert_eq!(found, bad, "exactly the bad records are dead letters");
    broker.set("otlp_logs", "max.message.bytes=1048588");
    let said = agent.says(&["dead-letters", "replay", "--all"]);
    assert!(said.contains("handed on again"), "{said}");
    wait_for("no dead letter is left", LONGEST_ROUND, async || letters(agent).is_empty().then_some(())).await;
    let twice = assert_there(&written(broker, &TOPICS), &marks, "too large");
    println!("  too large: {} dead letters, replayed; {twice} records twice", bad.len());
    marks
}

/// What waits for a topic that is not there, or that may not be written to, arrives when it is and may.
async fn opens(agent: &Lasting, broker: &Broker, logs: &[Mark]) {
    let count = logs.len() as u64;
    for (exporter, topic) in [("kafka/new", "later"), ("kafka/locked", "locked")] {
        let waiting = row(agent, exporter);
        assert_eq!(waiting, Row { accepted: count, waiting: count, ..Row::default() }, "{exporter}");
        let begun = Instant::now();
        if topic == "later" {
            broker.create(topic, 2, &[])
        } else {
            broker.forbid(topic, false)
        }
        let row = drained(agent, exporter, exporter).await;
        assert_eq!(row, Row::all_delivered(count), "{exporter}");
        let twice = assert_there(&written(broker, &[topic]), logs, exporter);
        let took = begun.elapsed().as_secs_f64();
        println!("  {exporter}: {count} records waited and arrived in {took:.1} s, {twice} twice");
    }
    assert_eq!(letters(agent), Vec::<Json>::new(), "no record was at fault");
    let log = agent.process().stderr();
    assert!(log.contains("topic `later`") && log.contains("topic `locked` is not allowed"), "{log}");
}
