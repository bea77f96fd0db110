//! Log files that are rotated in every way while real processes read them: every line whose bytes
//! could still be read arrives, and after clean stops none arrives twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::oracle::{self, Sent};
use crate::harness::backend::Backend;
use crate::harness::chance::Chance;
use crate::harness::lasting::{Lasting, Row};
use crate::harness::numbered::{self, Numbered};
use crate::harness::peers::{Peer, peer};
use crate::harness::process::Process;
use crate::harness::weir::program;
use crate::harness::{seconds, wait_for};

/// Bytes of a line.
const LINE_BYTES: usize = 120;

/// Longest time until the last line has arrived.
const LONGEST: Duration = seconds(90);

/// How long something that comes twice is waited for: longer than a look at the folders takes to come.
const LATE: Duration = Duration::from_millis(2500);

/// A log, and the program that writes it.
struct Log {
    sent: Sent,
    source: u16,
    path: PathBuf,
    file: File,
}

impl Log {
    fn create(folder: &Path, name: &str, source: u16) -> Log {
        let path = folder.join(name);
        let file = Log::open(&path);
        Log { sent: Sent::in_a_file(source), source, path, file }
    }

    fn open(path: &Path) -> File {
        OpenOptions::new().append(true).create(true).open(path).expect("writable")
    }

    /// Appends lines.
    fn write(&mut self, lines: usize) {
        let mut text = String::new();
        for record in self.sent.next(lines) {
            text.push_str(&numbered::line(self.source, record.number, LINE_BYTES));
            text.push('\n');
        }
        self.file.write_all(text.as_bytes()).expect("writable");
    }

    fn named(&self, ending: &str) -> PathBuf {
        PathBuf::from(format!("{}{ending}", self.path.display()))
    }

    /// Begins a new file, the old one having got this ending.
    fn rename(&mut self, ending: &str) {
        std::fs::rename(&self.path, self.named(ending)).expect("writable");
        self.file = Log::open(&self.path);
    }

    /// Copies the file to one of this ending, and empties it.
    fn copy_and_truncate(&mut self, ending: &str) {
        std::fs::copy(&self.path, self.named(ending)).expect("writable");
        self.file.set_len(0).expect("writable");
    }
}

/// An agent that reads `*.log` of a folder, and the backend that it sends to.
struct Reader {
    agent: Lasting,
    backend: Backend,
}

impl Reader {
    async fn start() -> Reader {
        let mut reader = Reader::stopped();
        reader.agent.start().await;
        reader
    }

    /// One that is not started yet.
    fn stopped() -> Reader {
        let (agent, backend) = (Lasting::new(), Backend::start());
        let folder = agent.folder().join("logs");
        std::fs::create_dir(&folder).expect("writable");
        let exporter = backend.exporter("otlp", "signals: [logs], retry_delay: 50ms, retry_max_delay: 300ms");
        agent.configure("", &format!("  logs: {{paths: [\"{}/*.log\"]}}\n{exporter}", folder.display()));
        Reader { agent, backend }
    }

    fn folder(&self) -> PathBuf {
        self.agent.folder().join("logs")
    }

    /// How many of the lines of a log arrived.
    fn arrived(&self, log: &Log) -> usize {
        let mut numbers: Vec<u64> =
            self.backend.arrivals().iter().filter(|it| it.source == log.source).map(|it| it.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.len()
    }

    async fn wait_for(&self, log: &Log) {
        let begun = Instant::now();
        while self.arrived(log) < log.sent.count() as usize && begun.elapsed() < LONGEST {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// That all lines of the logs arrived, and nothing else; how many arrived again.
    async fn check(&self, what: &str, logs: &[&Log]) -> u64 {
        for log in logs {
            self.wait_for(log).await;
        }
        tokio::time::sleep(LATE).await;
        let sent: Vec<&Sent> = logs.iter().map(|log| &log.sent).collect();
        let arrivals = self.backend.arrivals();
        let found = oracle::check(what, &arrivals, &sent);
        let twice = arrivals.len() as u64 - found.records;
        println!("{what}: {} lines arrived, {twice} of them again: {:?}", found.records, ranges_of_repeats(&arrivals));
        twice
    }

    /// That the ledger says what the backend has seen; what the queue delivered again was accepted once.
    async fn assert_ledger(&self) {
        self.agent.drained("otlp", seconds(20)).await;
        let row = self.agent.row("logs", "otlp");
        let reads: BTreeSet<Numbered> = self.backend.arrivals().into_iter().collect();
        assert_eq!(row, Row::all_delivered(reads.len() as u64));
    }
}

/// The lines that came more than once: source, first and last.
fn ranges_of_repeats(arrivals: &[Numbered]) -> Vec<(u16, u64, u64)> {
    let mut seen = BTreeSet::new();
    let again: BTreeSet<(u16, u64)> =
        arrivals.iter().map(|it| (it.source, it.number)).filter(|line| !seen.insert(*line)).collect();
    let mut ranges: Vec<(u16, u64, u64)> = Vec::new();
    for (source, number) in again {
        match ranges.last_mut() {
            Some((of, _, last)) if *of == source && *last + 1 == number => *last = number,
            _ => ranges.push((source, number, number)),
        }
    }
    ranges
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renamed_logs_arrive_whole_and_once() {
    let reader = Reader::start().await;
    let (mut log, mut chance) = (Log::create(&reader.folder(), "app.log", 1), Chance::new());
    for rotation in 1..=40 {
        log.write(chance.between((1, 300)) as usize);
        tokio::time::sleep(Duration::from_millis(chance.between((0, 250)))).await;
        let before = log.file.try_clone().expect("a descriptor");
        log.rename(&format!(".{rotation}"));
        // As daemons do until they are told to open their log anew.
        if chance.between((0, 1)) == 1 {
            let after = std::mem::replace(&mut log.file, before);
            log.write(20);
            log.file = after;
        }
    }
    log.write(10);
    assert_eq!(reader.check("renamed", &[&log]).await, 0);
    reader.assert_ledger().await;
}

/// Writes and rotates, with pauses of so many milliseconds between.
async fn copies_and_truncates(log: &mut Log, chance: &mut Chance, rotations: u32, pauses_ms: (u64, u64)) {
    for rotation in 1..=rotations {
        log.write(chance.between((1, 300)) as usize);
        tokio::time::sleep(Duration::from_millis(chance.between(pauses_ms))).await;
        log.copy_and_truncate(&format!(".{rotation}"));
        println!("{rotation}: copied and truncated with lines up to {}", log.sent.count());
        if chance.between((0, 1)) == 1 {
            log.write(chance.between((1, 50)) as usize);
        }
        tokio::time::sleep(Duration::from_millis(chance.between(pauses_ms))).await;
    }
    log.write(10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_are_copied_and_truncated_arrive_whole_and_once() {
    let reader = Reader::start().await;
    let (mut log, mut chance) = (Log::create(&reader.folder(), "app.log", 1), Chance::new());
    copies_and_truncates(&mut log, &mut chance, 12, (1100, 1400)).await;
    assert_eq!(reader.check("copied and truncated", &[&log]).await, 0);
    reader.assert_ledger().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_are_copied_and_truncated_faster_than_anybody_looks_arrive_whole() {
    let reader = Reader::start().await;
    let (mut log, mut chance) = (Log::create(&reader.folder(), "app.log", 1), Chance::new());
    copies_and_truncates(&mut log, &mut chance, 40, (0, 200)).await;
    reader.check("copied and truncated in a hurry", &[&log]).await;
    reader.assert_ledger().await;
}

/// Rotates with the real program.
fn logrotate(program: &Path, folder: &Path, options: &str, log: &Log) {
    let (config, state) = (folder.join("logrotate.conf"), folder.join("logrotate.state"));
    let text = format!("{} {{\n  rotate 100\n  missingok\n{options}\n}}\n", log.path.display());
    std::fs::write(&config, text).expect("writable");
    std::fs::set_permissions(&config, Permissions::from_mode(0o644)).expect("ours");
    let output = Command::new(program).arg("--force").arg("--state").arg(&state).arg(&config).output();
    let output = output.expect("logrotate runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_logrotate_rotates_arrive_whole_and_once() {
    let Some(program) = peer(Peer::Logrotate) else { return };
    let ways = [
        ("create", "  create"),
        ("create and gzip", "  create\n  compress"),
        ("create and gzip later", "  create\n  compress\n  delaycompress"),
        ("create with a date", "  create\n  dateext\n  dateformat -%Y%m%d-%s"),
        ("copytruncate", "  copytruncate"),
        ("copytruncate and gzip", "  copytruncate\n  compress"),
        ("copytruncate and gzip later", "  copytruncate\n  compress\n  delaycompress"),
    ];
    let reader = Reader::start().await;
    let mut chance = Chance::new();
    let mut logs: Vec<Log> =
        (1..).zip(ways).map(|(source, _)| Log::create(&reader.folder(), &format!("{source}.log"), source)).collect();
    for _ in 1..=12 {
        // Names with a date have whole seconds.
        let a_second = tokio::time::sleep(Duration::from_millis(1100));
        for (log, (way, options)) in logs.iter_mut().zip(ways) {
            log.write(chance.between((1, 300)) as usize);
            tokio::time::sleep(Duration::from_millis(chance.between((0, 200)))).await;
            logrotate(&program, reader.agent.folder(), options, log);
            if way.starts_with("create") {
                log.file = Log::open(&log.path);
            }
        }
        a_second.await;
    }
    for log in &mut logs {
        log.write(10);
        reader.wait_for(log).await;
    }
    let arrived: BTreeMap<&str, (usize, u64)> =
        logs.iter().zip(ways).map(|(log, (way, _))| (way, (reader.arrived(log), log.sent.count()))).collect();
    println!("arrived and written: {arrived:?}");
    assert_eq!(reader.check("logrotate", &logs.iter().collect::<Vec<_>>()).await, 0);
    reader.assert_ledger().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_1000_rotations_loses_nothing() {
    let reader = Reader::start().await;
    let mut log = Log::create(&reader.folder(), "app.log", 1);
    log.write(5);
    reader.wait_for(&log).await;
    let begun = Instant::now();
    for rotation in 1..=1000 {
        log.rename(&format!("-{rotation:06}"));
        log.write(3);
    }
    println!("1000 rotations in {:?}", begun.elapsed());
    assert_eq!(reader.check("a burst", &[&log]).await, 0);
    reader.assert_ledger().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_deleted_while_it_is_unread_is_read_to_its_end() {
    let reader = Reader::start().await;
    let mut log = Log::create(&reader.folder(), "app.log", 1);
    log.write(5);
    reader.wait_for(&log).await;
    for _ in 0..5 {
        log.write(20_000);
        std::fs::remove_file(&log.path).expect("it is there");
        // Whoever holds it goes on for a moment.
        log.write(100);
        log.file = Log::open(&log.path);
        log.write(5);
        // The descriptor of the new file is the agent's before that is deleted.
        reader.wait_for(&log).await;
    }
    assert_eq!(reader.check("deleted", &[&log]).await, 0);
    reader.assert_ledger().await;
}

/// Renames, perhaps packs, or leaves it.
fn rotate(log: &mut Log, chance: &mut Chance, number: u32) {
    let way = chance.between((0, 2));
    let word = ["renamed", "renamed and packed", "left"][way as usize];
    println!("{number}: {word} with lines up to {}", log.sent.count());
    if way < 2 {
        log.rename(&format!(".{number}"));
    }
    if way == 1 {
        let packed = Command::new("gzip").arg(log.named(&format!(".{number}"))).status().expect("gzip runs");
        assert!(packed.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_stops_among_rotations_lose_nothing_and_repeat_nothing() {
    let mut reader = Reader::stopped();
    let (mut log, mut chance) = (Log::create(&reader.folder(), "app.log", 1), Chance::new());
    for round in 1..=10 {
        reader.agent.start().await;
        for at in 0..5 {
            log.write(chance.between((1, 400)) as usize);
            tokio::time::sleep(Duration::from_millis(chance.between((0, 150)))).await;
            rotate(&mut log, &mut chance, round * 20 + at);
        }
        let said = reader.agent.stop().await;
        assert!(!said.contains("lost"), "{said}");
        // What happens while nobody looks.
        log.write(chance.between((1, 400)) as usize);
        rotate(&mut log, &mut chance, round * 20 + 9);
        log.write(chance.between((0, 5)) as usize);
    }
    reader.agent.start().await;
    assert_eq!(reader.check("clean stops", &[&log]).await, 0);
    reader.assert_ledger().await;
}

/// Copies a log to `.1` and empties it, the copies before having got the next numbers, as logrotate does.
fn shift_copy_and_truncate(log: &mut Log, number: u64) {
    for older in (1..number).rev() {
        let (from, to) = (log.named(&format!(".{older}")), log.named(&format!(".{}", older + 1)));
        std::fs::rename(from, to).expect("writable");
    }
    log.copy_and_truncate(".1");
    println!("{number}: copied and truncated with lines up to {}", log.sent.count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_stops_among_copies_and_truncations_lose_nothing_and_repeat_nothing() {
    let mut reader = Reader::stopped();
    let (mut log, mut chance) = (Log::create(&reader.folder(), "app.log", 1), Chance::new());
    let mut rotations = 1..;
    let mut rotate = |log: &mut Log| shift_copy_and_truncate(log, rotations.next().expect("there are more"));
    for round in 1..=8 {
        reader.agent.start().await;
        let pauses_ms = if round % 2 == 0 { (0, 700) } else { (0, 120) };
        for _ in 0..5 {
            log.write(chance.between((1, 400)) as usize);
            tokio::time::sleep(Duration::from_millis(chance.between(pauses_ms))).await;
            rotate(&mut log);
            log.write(chance.between((0, 50)) as usize);
            tokio::time::sleep(Duration::from_millis(chance.between(pauses_ms))).await;
        }
        let said = reader.agent.stop().await;
        assert!(!said.contains("lost"), "{said}");
        println!("{round}: stopped with lines up to {}", log.sent.count());
        // What happens while nobody looks.
        for _ in 0..chance.between((0, 3)) {
            log.write(chance.between((1, 400)) as usize);
            rotate(&mut log);
            log.write(chance.between((0, 5)) as usize);
        }
    }
    reader.agent.start().await;
    assert_eq!(reader.check("clean stops among copies", &[&log]).await, 0);
    reader.assert_ledger().await;
}

/// What the queue has taken is noted within this time, on a busy machine too.
const NOTED_WITHIN: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_among_rotations_lose_nothing_and_repeat_only_what_was_under_way() {
    let mut reader = Reader::stopped();
    let (mut log, mut chance) = (Log::create(&reader.folder(), "app.log", 1), Chance::new());
    let mut kills = Vec::new();
    for round in 1..=8 {
        reader.agent.start().await;
        for at in 0..16 {
            log.write(chance.between((1, 200)) as usize);
            tokio::time::sleep(Duration::from_millis(chance.between((0, 500)))).await;
            rotate(&mut log, &mut chance, round * 20 + at);
        }
        // A line is noted before its delivery begins, or soon after.
        let known = reader.backend.count_at(Instant::now() - NOTED_WITHIN);
        reader.agent.kill().await;
        let unix_nano = jiff::Timestamp::now().as_nanosecond();
        kills.push(KilledAt { unix_nano: u64::try_from(unix_nano).expect("after 1970"), known });
        log.write(10);
    }
    reader.agent.start().await;
    let again = reader.check("kills", &[&log]).await;
    let repeats = read_again(&reader.backend.arrivals(), &kills);
    println!("{again} lines came again; read again after each kill: {repeats:?}");
    reader.assert_ledger().await;
}

/// A kill, by the clock that tells when lines were read.
struct KilledAt {
    unix_nano: u64,
    /// How many arrivals there were a while before: these lines were noted.
    known: usize,
}

/// How many lines were read again after each kill: only some that were not noted by then.
fn read_again(arrivals: &[Numbered], kills: &[KilledAt]) -> Vec<usize> {
    // When each line was read, and where it stands among the arrivals. What the queue delivers again was read once.
    let mut reads: BTreeMap<(u16, u64), BTreeMap<u64, usize>> = BTreeMap::new();
    for (at, line) in arrivals.iter().enumerate() {
        reads.entry((line.source, line.number)).or_default().entry(line.attempt).or_insert(at);
    }
    let mut again = vec![0; kills.len()];
    for (line, reads) in &reads {
        for ((read, at), (read_again, _)) in reads.iter().zip(reads.iter().skip(1)) {
            let kill = kills.partition_point(|kill| kill.unix_nano <= *read);
            let killed = kills.get(kill).filter(|kill| kill.unix_nano <= *read_again);
            let known = killed.unwrap_or_else(|| panic!("{line:?} was read twice without a kill")).known;
            assert!(*at >= known, "{line:?} was read again: arrival {at}, {known} were noted at the kill");
            again[kill] += 1;
        }
    }
    again
}

/// The health of `logs`, as an agent says it on its control socket.
fn health_of_logs(data: &Path) -> Json {
    let mut socket = UnixStream::connect(data.join("control.sock")).expect("the agent listens");
    socket.write_all(b"GET /api/v1/pipeline HTTP/1.0\r\n\r\n").expect("the agent listens");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("the agent answers");
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    let view: Json = serde_json::from_str(body).expect("JSON");
    let source = view["sources"].as_array().expect("sources").iter().find(|source| source["name"] == "logs");
    source.expect("logs")["health"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_may_not_be_read_is_named_and_the_others_are_read() {
    if !nix::unistd::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        println!("only root can give up the right to read everything, with setpriv");
        return;
    }
    const NOBODY: u32 = 65534;
    let reader = Reader::stopped();
    let folder = reader.folder();
    let (mut open, mut closed) = (Log::create(&folder, "open.log", 1), Log::create(&folder, "closed.log", 2));
    for place in [reader.agent.folder(), &folder] {
        std::fs::set_permissions(place, Permissions::from_mode(0o755)).expect("ours");
    }
    std::fs::create_dir(reader.agent.data()).expect("writable");
    chown(reader.agent.data(), Some(NOBODY), Some(NOBODY)).expect("root may");
    let may_read = |log: &Log, mode| std::fs::set_permissions(&log.path, Permissions::from_mode(mode)).expect("ours");
    may_read(&open, 0o644);
    may_read(&closed, 0o600);
    open.write(100);
    closed.write(100);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program()).arg("agent");
    command.env("WEIR_CONFIG", reader.agent.folder().join("weir.yaml")).env("WEIR_DATA", reader.agent.data());
    let process = Process::start("weir", command.env_remove("RUST_LOG"));
    reader.wait_for(&open).await;
    assert_eq!((reader.arrived(&open), reader.arrived(&closed)), (100, 0));
    let named = format!("cannot read {}: Permission denied", closed.path.display());
    wait_for("it is named", seconds(10), async || process.stderr().contains(&named).then_some(())).await;
    let remedy = "give the agent's user the right to read it, for example by the group `adm`";
    wait_for("it shows in the health", seconds(10), async || {
        let health = health_of_logs(&reader.agent.data());
        let reason = health["reason"].as_str()?;
        Some(()).filter(|()| health["state"] == "unhealthy" && reason.contains(&named) && reason.contains(remedy))
    })
    .await;
    open.write(100);
    reader.wait_for(&open).await;
    may_read(&closed, 0o644);
    assert_eq!(reader.check("may not be read", &[&open, &closed]).await, 0);
    assert_eq!(health_of_logs(&reader.agent.data())["state"], "healthy");
    // Rights that are taken away while it is read do no harm: it is open.
    may_read(&open, 0o600);
    open.write(100);
    assert_eq!(reader.check("may not be read any more", &[&open, &closed]).await, 0);
    reader.assert_ledger().await;
}
