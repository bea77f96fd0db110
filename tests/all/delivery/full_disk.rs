//! A file system of 64 MiB that fills to its last byte: nobody hears of success for what is not on it, and
//! everything goes on by itself when there is room.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::oracle::{self, Sent};
use crate::harness::backend::Backend;
use crate::harness::lasting::{Lasting, Row};
use crate::harness::peers::{Peer, peer};
use crate::harness::sender::{Answers, Manners, Sender, Then, send};
use crate::harness::{seconds, wait_for};

const DISK_BYTES: u64 = 64 << 20;

const MANNERS: Manners =
    Manners { records: 64, bytes: 1024, interval: Duration::from_millis(5), then: Then::SendsAgain };

/// An agent whose data folder is small, with a backend for logs and one for its polls.
async fn start(backend: &Backend, polls: &Backend, reserve: &str) -> Lasting {
    let mut agent = Lasting::on_small_disk(DISK_BYTES);
    agent.configure(
        &format!("agent: {{interval: 1s}}\nlimits: {{disk_reserve: {reserve}}}"),
        &format!(
            "  exec: {{commands: [{{name: works, command: \"echo 42\"}}]}}\n{}{}",
            backend.exporter("otlp/logs", "signals: [logs], retry_delay: 100ms, retry_max_delay: 500ms"),
            polls.exporter("otlp/polls", "signals: [metrics], queue: memory"),
        ),
    );
    agent.start().await;
    agent
}

/// Bytes that are free where the data folder is.
fn free_bytes(agent: &Lasting) -> u64 {
    let data = agent.data();
    agent.inside(move || {
        let stat = nix::sys::statvfs::statvfs(&data).expect("it is mounted");
        stat.blocks_available() as u64 * stat.fragment_size() as u64
    })
}

/// Takes what is left of the disk.
fn fill(agent: &Lasting) -> PathBuf {
    let path = agent.data().join("somebody-elses");
    let file = path.clone();
    agent.inside(move || {
        let mut file = File::create(file).expect("an inode is left");
        for block in [1 << 20, 4096, 1] {
            let block = vec![0; block];
            loop {
                match file.write(&block) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    path
}

fn remove(agent: &Lasting, file: PathBuf) {
    agent.inside(move || std::fs::remove_file(file).expect("it is there"));
}

/// Waits until every sender is told to come later, and none of success: a sender waits 8 s at most.
async fn wait_until_refused(agent: &Lasting, senders: &[Sender]) {
    let seen = |answers: &Answers| (answers.taken.load(Ordering::Relaxed), answers.later.load(Ordering::Relaxed));
    let mut before: Vec<(u64, u64)> = senders.iter().map(|sender| seen(&sender.answers)).collect();
    wait_for("nothing more is taken", seconds(90), async || {
        tokio::time::sleep(seconds(9)).await;
        let now: Vec<(u64, u64)> = senders.iter().map(|sender| seen(&sender.answers)).collect();
        let is_refused = now.iter().zip(&before).all(|(now, before)| now.0 == before.0 && now.1 > before.1);
        before = now;
        is_refused.then_some(())
    })
    .await;
    println!("refused with {} KiB free", free_bytes(agent) >> 10);
}

async fn assert_polls_go_on(polls: &Backend) {
    let before = polls.requests_with_metrics();
    wait_for("polls are delivered", seconds(10), async || (polls.requests_with_metrics() >= before + 3).then_some(()))
        .await;
}

/// That everything acknowledged arrives, each record once, and nothing else.
async fn assert_all_there(agent: &Lasting, backend: &Backend, senders: Vec<Sender>) {
    let mut sent = Vec::new();
    for sender in senders {
        sent.push(sender.stop(seconds(60)).await);
    }
    let row = agent.drained("otlp/logs", seconds(60)).await;
    let sent: Vec<&Sent> = sent.iter().map(|sent| &**sent).collect();
    let found = oracle::check("otlp/logs", &backend.arrivals(), &sent);
    println!("{found:?} {row:?}, {} KiB free", free_bytes(agent) >> 10);
    // What a full disk did not take is counted as such, and was sent again.
    assert_eq!((row.delivered, row.dead_lettered), (found.distinct, 0), "{row:?}");
}

fn senders(agent: &Lasting) -> Vec<Sender> {
    (1..=3).map(|source| Sender::start(source, &agent.url(), MANNERS)).collect()
}

fn acknowledged(senders: &[Sender]) -> u64 {
    senders.iter().map(|sender| sender.sent.acknowledged()).sum()
}

/// Waits until so many more records are taken.
async fn wait_until_taken(senders: &[Sender], before: u64) {
    wait_for("new records are taken", seconds(60), async || (acknowledged(senders) > before + 1000).then_some(()))
        .await;
}

/// The backend is away until the disk is full; with `by_others`, another file takes the last byte.
async fn fill_and_deliver(by_others: bool) {
    let (mut backend, polls) = (Backend::away(), Backend::start());
    let mut agent = start(&backend, &polls, "0B").await;
    let senders = senders(&agent);
    wait_until_refused(&agent, &senders).await;
    let before = acknowledged(&senders);
    println!("{before} records of 1 KiB acknowledged");
    assert!(before > 48 << 10, "the queue uses the disk: {before} KiB");
    assert!(free_bytes(&agent) < 1 << 20, "{}", free_bytes(&agent));
    if by_others {
        fill(&agent);
        assert_eq!(free_bytes(&agent), 0);
    }
    assert_polls_go_on(&polls).await;
    agent.ledger();

    // A start in that state.
    agent.kill().await;
    agent.start().await;
    assert!(agent.row("otlp_receiver", "otlp/logs").accepted >= before, "{:?}", agent.ledger());
    assert_polls_go_on(&polls).await;
    assert_eq!(backend.count(), 0);

    backend.come_back();
    wait_until_taken(&senders, before).await;
    assert_all_there(&agent, &backend, senders).await;
    assert!(agent.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_fills_its_disk_delivers_everything_when_the_backend_returns() {
    if peer(Peer::Mount).is_some() {
        fill_and_deliver(false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_others_fill_to_the_last_byte_is_emptied_when_the_backend_returns() {
    if peer(Peer::Mount).is_some() {
        fill_and_deliver(true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_others_fill_is_used_again_when_they_let_go() {
    if peer(Peer::Mount).is_none() {
        return;
    }
    let (mut backend, polls) = (Backend::away(), Backend::start());
    let mut agent = start(&backend, &polls, "0B").await;
    let senders = senders(&agent);
    wait_for("records are taken", seconds(20), async || {
        senders.iter().all(|sender| sender.sent.acknowledged() > 500).then_some(())
    })
    .await;
    let file = fill(&agent);
    wait_until_refused(&agent, &senders).await;
    assert_polls_go_on(&polls).await;
    let before = acknowledged(&senders);
    remove(&agent, file);
    // The backend is still away.
    wait_until_taken(&senders, before).await;
    backend.come_back();
    assert_all_there(&agent, &backend, senders).await;
    assert!(agent.is_running());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reserve_is_left_to_others() {
    if peer(Peer::Mount).is_none() {
        return;
    }
    let (mut backend, polls) = (Backend::away(), Backend::start());
    let agent = start(&backend, &polls, "16MiB").await;
    let senders = senders(&agent);
    wait_until_refused(&agent, &senders).await;
    let (free, before) = (free_bytes(&agent), acknowledged(&senders));
    // A write that is smaller than what was asked about, and the cursor, which is written all the same.
    assert!((15 << 20..20 << 20).contains(&free), "{free} bytes free");
    let status = agent.json(&["queue", "status", "--json"]);
    let queue = status["queues"].as_array().and_then(|queues| queues.iter().find(|one| one["exporter"] == "otlp/logs"));
    let why = queue.and_then(|queue| queue["short_of"].as_str()).unwrap_or_else(|| panic!("{status}"));
    assert!(why.contains("16 MiB") && why.contains("free space"), "{why}");
    backend.come_back();
    wait_until_taken(&senders, before).await;
    assert_all_there(&agent, &backend, senders).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_oldest_make_room_the_newest_arrive_and_the_others_are_counted() {
    let mut backend = Backend::away();
    let mut agent = Lasting::new();
    agent.configure(
        "",
        &backend.exporter(
            "otlp",
            "queue_size: 1MiB, when_full: drop_oldest, retry_delay: 100ms, batch_size: 100, max_in_flight: 1",
        ),
    );
    agent.start().await;
    let sent = Sent::over_the_network(1);
    // 4 MiB, every request of it acknowledged.
    send(&agent.url(), &sent, 2000).await;
    agent.kill().await;
    agent.start().await;
    backend.come_back();
    let row = agent.drained("otlp", seconds(20)).await;
    let ledger = agent.ledger();
    let dropped = ledger[0]["dropped"]["queue_full"].as_u64().unwrap_or_else(|| panic!("{ledger:?}"));
    let arrivals = backend.arrivals();
    let mut numbers: Vec<u64> = arrivals.iter().map(|arrival| arrival.number).collect();
    numbers.sort_unstable();
    // The request that is tried again and again is not among those that make room; and what stands in one file
    // with it (256 KiB) is found again after a kill.
    let oldest = numbers.iter().zip(1..).take_while(|(number, expected)| **number == *expected).count();
    assert!(oldest <= 1300, "{oldest} of the oldest are there");
    let newest = 20_001 - (numbers.len() - oldest) as u64..=20_000;
    assert_eq!(numbers[oldest..], newest.collect::<Vec<_>>(), "the newest, each once");
    assert!(arrivals.len() > 1000, "{}", arrivals.len());
    assert_eq!(row, Row { accepted: 20_000, delivered: arrivals.len() as u64, dropped, ..Row::default() });
}
