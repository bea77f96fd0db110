//! The agent is killed again and again while programs send and a file grows: everything that was
//! acknowledged arrives at every backend, and the ledger adds up after every start. Again comes at most one
//! window of an exporter: as many records as its requests under way can hold.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::oracle::{self, Found, Sent};
use crate::harness::backend::{Backend, Manner};
use crate::harness::chance::Chance;
use crate::harness::lasting::{Lasting, Row};
use crate::harness::numbered::line;
use crate::harness::sender::{Manners, Sender, Then};
use crate::harness::{seconds, wait_for};

/// How often it is killed where `WEIR_CRASH_ROUNDS` does not say it.
const ROUNDS: usize = 100;

/// It is killed this long after it listens: mostly soon, in every tenth round late.
const KILLED_AFTER_MS: (u64, u64) = (10, 350);
const KILLED_LATE_AFTER_MS: (u64, u64) = (1200, 2000);

/// Most records in a request to a backend.
const BATCH: usize = 50;
/// Most requests under way to the fast backend; the slow one gets one after the other.
const IN_FLIGHT: usize = 4;

/// The source that is a file.
const FILE: u16 = 9;

const DELIVER_SOON: &str = "retry_delay: 20ms, retry_max_delay: 200ms, signals: [logs]";

fn rounds() -> usize {
    std::env::var("WEIR_CRASH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS)
}

/// Lines that are written to a file, a few every 10 ms.
struct Lines {
    sent: Arc<Sent>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Lines {
    fn start(path: &Path) -> Lines {
        let (sent, stop) = (Arc::new(Sent::in_a_file(FILE)), Arc::new(AtomicBool::new(false)));
        let (writing, stopped) = (sent.clone(), stop.clone());
        let mut file = File::create(path).expect("writable");
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Acquire) {
                let lines = writing.next(3);
                let text: String = lines.iter().map(|one| line(FILE, one.number, 120) + "\n").collect();
                file.write_all(text.as_bytes()).expect("writable");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Lines { sent, stop, task }
    }

    async fn stop(self) -> Arc<Sent> {
        self.stop.store(true, Ordering::Release);
        self.task.await.expect("the task does not panic");
        self.sent
    }
}

fn senders(url: &str) -> Vec<Sender> {
    let manners = |records, milliseconds, then| Manners {
        records,
        bytes: 200,
        interval: Duration::from_millis(milliseconds),
        then,
    };
    let all = [
        manners(5, 20, Then::SendsAgain),
        manners(1, 7, Then::SendsAgain),
        manners(20, 60, Then::SendsAgain),
        manners(5, 25, Then::GoesOn),
        manners(2, 15, Then::GoesOn),
    ];
    (1..).zip(all).map(|(source, manners)| Sender::start(source, url, manners)).collect()
}

/// What the ledger says after a start, with how many records had been acknowledged before: it adds up, and
/// none of these is missing in it.
fn assert_ledger(agent: &Lasting, acknowledged: u64, round: usize) {
    let ledger = agent.ledger();
    for exporter in ["otlp/fast", "otlp/slow"] {
        let own = |row: &&Json| row["source"] == "otlp_receiver" && row["exporter"] == exporter;
        let row = Row::of(ledger.iter().filter(own));
        assert!(
            row.accepted >= acknowledged,
            "round {round}: {exporter}: {row:?}, but {acknowledged} were acknowledged"
        );
        assert_eq!((row.dead_lettered, row.dropped), (0, 0), "round {round}: {exporter}: {row:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_reaches_every_backend_over_a_hundred_kills() {
    let begun = Instant::now();
    let (fast, slow) = (Backend::start(), Backend::start());
    slow.set(Manner { delay: Duration::from_millis(8), busy_every: 5, ..Manner::default() });
    let mut agent = Lasting::new();
    let file = agent.folder().join("app.log");
    agent.configure(
        "",
        &format!(
            "  logs: {{paths: [\"{}\"], builtin_patterns: false}}\n{}{}",
            file.display(),
            fast.exporter("otlp/fast", &format!("batch_size: {BATCH}, max_in_flight: {IN_FLIGHT}, {DELIVER_SOON}")),
            slow.exporter("otlp/slow", &format!("batch_size: {BATCH}, max_in_flight: 1, {DELIVER_SOON}")),
        ),
    );
    agent.start().await;
    let lines = Lines::start(&file);
    let senders = senders(&agent.url());
    let acknowledged = || senders.iter().map(|sender| sender.sent.acknowledged()).sum::<u64>();
    let mut chance = Chance::new();
    let (mut at_fast, mut at_slow, mut slowest_start) = (Vec::new(), Vec::new(), Duration::ZERO);
    for round in 1..=rounds() {
        let after_ms = chance.between(if round % 10 == 0 { KILLED_LATE_AFTER_MS } else { KILLED_AFTER_MS });
        tokio::time::sleep(Duration::from_millis(after_ms)).await;
        agent.kill().await;
        at_fast.push(fast.count());
        at_slow.push(slow.count());
        let acknowledged = acknowledged();
        let started = Instant::now();
        agent.start().await;
        slowest_start = slowest_start.max(started.elapsed());
        assert_ledger(&agent, acknowledged, round);
    }
    let killing = begun.elapsed();

    let lines = lines.stop().await;
    let mut sent = Vec::new();
    for sender in senders {
        sent.push(sender.stop(seconds(20)).await);
    }
    wait_for("every line is delivered", seconds(60), async || {
        let is_last =
            |backend: &Backend| backend.arrivals().iter().any(|a| a.source == FILE && a.number == lines.count());
        (is_last(&fast) && is_last(&slow)).then_some(())
    })
    .await;
    let total: u64 = sent.iter().map(|sent| sent.count()).sum();
    let network: Vec<&Sent> = sent.iter().map(|sent| &**sent).collect();
    for (name, backend, kills, in_flight) in
        [("otlp/fast", &fast, at_fast, IN_FLIGHT), ("otlp/slow", &slow, at_slow, 1)]
    {
        let all = agent.drained(name, seconds(60)).await;
        let arrivals = backend.arrivals();
        let (of_file, of_network): (Vec<_>, Vec<_>) = arrivals.iter().partition(|arrival| arrival.source == FILE);
        let read = oracle::check(name, &of_file, &[&lines]);
        let found = oracle::check(name, &of_network, &network);
        assert_eq!(all, Row::all_delivered(read.distinct + found.distinct), "{name}: every arrival was accepted once");
        assert_eq!(agent.row("otlp_receiver", name), Row::all_delivered(found.distinct), "{name}");
        assert_eq!(agent.row("logs", name), Row::all_delivered(read.distinct), "{name}");
        let repeats = oracle::repeats(name, &arrivals, &kills);
        // What a source hands in at once, as lines of a file after a pause, travels in one request.
        let window = in_flight * BATCH.max(backend.largest_request());
        report(name, read, found, &repeats, window);
        let most = repeats.iter().max().copied().unwrap_or(0);
        assert!(most <= window, "{name}: {most} records came again after one kill, {window} may");
        // Several requests under way at once have no order.
        if in_flight == 1 {
            oracle::check_order(name, &arrivals);
        }
    }
    println!(
        "{} kills in {killing:?}: {} of {total} records acknowledged, {} lines; slowest start {slowest_start:?}",
        rounds(),
        sent.iter().map(|sent| sent.acknowledged()).sum::<u64>(),
        lines.count(),
    );
    // What is told of a folder on which nothing runs is the same.
    let running = agent.ledger();
    agent.stop().await;
    assert_eq!(agent.ledger(), running);
}

fn report(name: &str, lines: Found, records: Found, repeats: &[usize], window: usize) {
    println!(
        "{name}: {} records on {} ways; {} lines read {} times; delivered again {} (after one kill at most {}; a window is {window})",
        records.records,
        records.distinct,
        lines.records,
        lines.distinct,
        lines.repeats + records.repeats,
        repeats.iter().max().copied().unwrap_or(0),
    );
}
