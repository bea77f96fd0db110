//! Exporters that send to no address: a file that cannot be written, a disk that is full, a console
//! that nobody reads.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use tokio::net::unix::pipe::{self, Receiver};

use super::faults::{RECORDS, send};
use crate::harness::lasting::{Lasting, Row};
use crate::harness::liar::Mark;
use crate::harness::peers::{Peer, peer};
use crate::harness::process::Process;
use crate::harness::weir::program;
use crate::harness::{seconds, wait_for};

/// The records of a file of readable lines, each line whole.
fn marks_of(text: &str) -> BTreeMap<Mark, u32> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let record: Json = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for mark in Mark::all_in(record.to_string().as_bytes()) {
            *found.entry(mark).or_default() += 1;
        }
    }
    found
}

/// Every record of these rounds once.
fn all_once(rounds: std::ops::RangeInclusive<u8>) -> BTreeMap<Mark, u32> {
    let marks = rounds.flat_map(|round| (0..RECORDS).map(move |number| (Mark { round, signal: b'l', number }, 1)));
    marks.collect()
}

async fn wait_for_words(agent: &Lasting, words: &str) {
    wait_for(words, seconds(20), async || agent.process().stderr().contains(words).then_some(())).await;
}

const LOGS: (&str, u8) = ("logs", b'l');

/// An exporter with a queue on disk, which gets nothing: an agent with queues in memory alone has no
/// ledger that could be asked for.
const WITH_LEDGER: &str = "  otlp: {endpoint: \"http://127.0.0.1:9\", signals: [traces]}\n";

/// Records of one signal in a round.
const SENT: u64 = RECORDS as u64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_written_gets_every_record_once_when_it_can() {
    let mut agent = Lasting::new();
    let folder = agent.folder().join("there");
    let path = folder.join("out.jsonl");
    let options = "queue: disk, retry_delay: 50ms, retry_max_delay: 300ms";
    agent.configure("", &format!("  file: {{path: \"{}\", {options}}}\n", path.display()));
    agent.start().await;
    // No folder, a folder in its place, and a device that is full.
    send(&agent, 1, LOGS).await;
    wait_for_words(&agent, "create its folder").await;
    std::fs::create_dir_all(&path).expect("writable");
    // The log says one reason a minute: long enough for some attempts.
    tokio::time::sleep(seconds(1)).await;
    std::fs::remove_dir(&path).expect("empty");
    assert_eq!(agent.drained("file", seconds(20)).await, Row::all_delivered(SENT));
    assert_eq!(marks_of(&std::fs::read_to_string(&path).expect("it is there")), all_once(1..=1));
    std::fs::rename(&path, folder.join("first")).expect("writable");
    std::os::unix::fs::symlink("/dev/full", &path).expect("writable");
    send(&agent, 2, LOGS).await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(agent.row("otlp_receiver", "file").waiting, SENT);
    std::fs::remove_file(&path).expect("writable");
    assert_eq!(agent.drained("file", seconds(20)).await, Row::all_delivered(2 * SENT));
    assert_eq!(marks_of(&std::fs::read_to_string(&path).expect("it is there")), all_once(2..=2));
}

/// Fills a file system from within.
fn fill(place: &Path) {
    let block = vec![0_u8; 1 << 20];
    let mut file = std::fs::File::create(place).expect("writable");
    for size in [1 << 20, 4096, 1] {
        while std::io::Write::write(&mut file, &block[..size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_on_a_full_disk_has_no_torn_line_and_every_record_once_when_there_is_room() {
    if peer(Peer::Mount).is_none() {
        return;
    }
    let mut agent = Lasting::on_small_disk(8 << 20);
    let (path, other) = (agent.data().join("out.jsonl"), agent.data().join("somebody-elses"));
    // A queue on that disk would take no more either.
    let options = "queue: memory, retry_delay: 50ms, retry_max_delay: 300ms";
    let exporter = format!("{WITH_LEDGER}  file: {{path: \"{}\", {options}}}\n", path.display());
    agent.configure("delivery: {acknowledge: queued}\nlimits: {disk_reserve: 0B}", &exporter);
    agent.start().await;
    send(&agent, 1, LOGS).await;
    assert_eq!(agent.drained("file", seconds(20)).await, Row::all_delivered(SENT));
    let filled = other.clone();
    agent.inside(move || fill(&filled));
    // More than fits into the last page of the file.
    for round in 2..=5 {
        send(&agent, round, LOGS).await;
    }
    wait_for_words(&agent, "free space on its disk").await;
    let read = path.clone();
    let torn = agent.inside(move || std::fs::read_to_string(read).expect("it is there"));
    assert!(torn.ends_with('\n'), "a torn line: {torn}");
    agent.inside(move || std::fs::remove_file(other).expect("it is there"));
    assert_eq!(agent.drained("file", seconds(20)).await, Row::all_delivered(5 * SENT));
    let text = agent.inside(move || std::fs::read_to_string(path).expect("it is there"));
    assert_eq!(marks_of(&text), all_once(1..=5));
}

/// Reads a pipe until there is `enough`.
async fn read_pipe(pipe: &Receiver, enough: impl Fn(&BTreeMap<Mark, u32>) -> bool) -> BTreeMap<Mark, u32> {
    let mut text = Vec::new();
    wait_for("enough stands in the pipe", seconds(20), async || {
        let mut block = vec![0; 1 << 16];
        while let Ok(read) = pipe.try_read(&mut block) {
            text.extend_from_slice(&block[..read]);
        }
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let found = marks_of(std::str::from_utf8(&text[..whole]).expect("text"));
        Some(found).filter(&enough)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_console_that_nobody_reads_holds_its_records_and_one_that_is_gone_makes_dead_letters() {
    let agent = Lasting::new();
    let place = agent.folder().join("console");
    nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).expect("writable");
    let exporter = "  console: {format: json, retry_delay: 50ms, retry_max_delay: 300ms}\n";
    agent.configure("delivery: {acknowledge: queued}", &format!("{WITH_LEDGER}{exporter}"));
    // Somebody holds it open, and does not read.
    let reader = pipe::OpenOptions::new().open_receiver(&place).expect("a pipe");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec \"$0\" agent > \"$1\""]).arg(program()).arg(&place);
    command.env("WEIR_CONFIG", agent.folder().join("weir.yaml")).env("WEIR_DATA", agent.data()).env_remove("RUST_LOG");
    let process = Process::start("weir", &mut command);
    wait_for("the agent listens", seconds(20), async || {
        tokio::net::TcpStream::connect(("127.0.0.1", agent.port())).await.ok()
    })
    .await;
    // More than a pipe holds (64 KiB).
    let rounds = 10;
    for round in 1..=rounds {
        send(&agent, round, LOGS).await;
    }
    let sent = u64::from(rounds) * SENT;
    let row = agent.row("otlp_receiver", "console");
    println!("{row:?} while nobody reads");
    assert!(row.accepted == sent && row.waiting > 0, "{row:?}");
    let found = read_pipe(&reader, |found| found.len() as u64 == sent).await;
    assert_eq!(found, all_once(1..=rounds));
    assert_eq!(agent.drained("console", seconds(20)).await, Row::all_delivered(sent));

    // Now nobody has it open.
    drop(reader);
    send(&agent, 50, LOGS).await;
    let row = agent.drained("console", seconds(20)).await;
    let letters = agent.json(&["dead-letters", "list", "--json"]);
    println!("{row:?} when nobody has it open: {letters}");
    assert_eq!((row.accepted, row.delivered), (sent + SENT, sent), "{letters}");
    assert_eq!(row.dead_lettered + row.dropped, SENT, "{letters}");
    assert!(process.stderr().contains("nobody reads the console's output any more"), "{}", process.stderr());
}
