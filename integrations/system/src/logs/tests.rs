//! Real files, rotated in every way, against an oracle of numbered lines.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use weir_config::{Acknowledge, Document, Environment};
use weir_model::metrics::Metrics;
use weir_model::{Payload, Records};
use weir_pipeline::options::ExportOptions;
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Member, Plan};
use weir_pipeline::role::{Delivery, Export, Takes};
use weir_pipeline::{Outcome, Problems};

use super::checkpoint::{Left, Positions};
use super::*;

fn context(folder: &Path) -> Context {
    Context {
        data_folder: folder.join("data").into(),
        name: Arc::from("logs"),
        interval: Duration::from_secs(3600),
        timeout: Duration::from_secs(10),
        resource: vec![("host.name".into(), "test".into())],
        telemetry: Arc::default(),
    }
}

fn config(yaml: &str) -> Result<LogsConfig, Problems> {
    let node = Document::parse("test.yaml", yaml, &Environment)?;
    weir_config::read("test.yaml", &node, "logs")
}

fn open(folder: &Path, yaml: &str) -> Result<Logs, String> {
    let yaml = yaml.replace("DIR", &folder.display().to_string());
    let config = config(&yaml).map_err(|problems| problems.to_string())?;
    Logs::new(config, &context(folder)).map_err(|fault| fault.to_string())
}

/// The bodies of log records.
fn bodies(payload: &Payload) -> Vec<String> {
    let Ok(Records::Logs(logs)) = payload.records() else { panic!("no logs") };
    logs.records.iter().map(|record| logs.common.value_text(record.body)).collect()
}

/// A folder with logs, and a watch on it that is driven step by step.
struct Bench {
    folder: tempfile::TempDir,
    yaml: String,
    watch: Watch,
    positions: Positions,
    lines: Vec<String>,
    payloads: Vec<Payload>,
    written: usize,
    /// When folders were last looked at.
    looked: u64,
}

impl Bench {
    fn new(yaml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (watch, positions) = Self::watch(folder.path(), yaml, Left::default());
        Bench {
            folder,
            yaml: yaml.into(),
            watch,
            positions,
            lines: Vec::new(),
            payloads: Vec::new(),
            written: 0,
            looked: 0,
        }
    }

    fn watch(folder: &Path, yaml: &str, left: Left) -> (Watch, Positions) {
        let logs = open(folder, yaml).unwrap();
        Watch::new(logs.settings, logs.rules, left, Duration::from_secs(3600))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Appends numbered lines.
    fn write(&mut self, name: &str, count: usize) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        for _ in 0..count {
            self.written += 1;
            writeln!(file, "line {} of the log of a shop", self.written).unwrap();
        }
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap().write_all(text.as_ref()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// What logrotate does with `copytruncate`, while the writer is quiet.
    fn copy_and_truncate(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
        File::options().write(true).open(self.path(from)).unwrap().set_len(0).unwrap();
    }

    /// Compresses a file into several members and removes it.
    fn gzip(&self, name: &str) {
        let bytes = fs::read(self.path(name)).unwrap();
        let mut archive = File::create(self.path(&format!("{name}.gz"))).unwrap();
        for part in bytes.chunks(bytes.len() / 2 + 1) {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(part).unwrap();
            archive.write_all(&encoder.finish().unwrap()).unwrap();
        }
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Looks at the folder and reads everything there is.
    fn read(&mut self) -> &mut Self {
        self.watch.look_now();
        self.looked = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        self.read_on()
    }

    /// Reads everything there is in the files that are known.
    fn read_on(&mut self) -> &mut Self {
        loop {
            let batch = self.watch.step();
            if let Some(logs) = batch.logs {
                self.lines.extend(bodies(&logs));
                self.payloads.push(logs);
            }
            self.positions.extend(batch.moves.positions);
            if !batch.more {
                return self;
            }
        }
    }

    /// A clean stop and a start, through the file.
    fn restart(&mut self) -> &mut Self {
        let path = self.path("positions.json");
        checkpoint::write(&path, &self.positions, self.looked);
        (self.watch, self.positions) = Self::watch(self.folder.path(), &self.yaml, checkpoint::load(&path));
        self
    }

    /// Lets time pass without waiting for it: everything that happened lies further back.
    fn pass(&mut self, seconds: u64) {
        let by = Duration::from_secs(seconds);
        let folder = self.folder.path().to_owned();
        for path in folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).chain([folder]) {
            let file = File::open(path).unwrap();
            file.set_modified(file.metadata().unwrap().modified().unwrap() - by).unwrap();
        }
        self.looked -= u64::try_from(by.as_nanos()).unwrap();
        self.positions.values_mut().for_each(|entry| entry.age(by));
        self.watch.age(by);
    }

    /// Every line that was written came exactly once.
    fn assert_complete(&self) {
        if let Err(why) = self.complete() {
            panic!("{why}");
        }
    }

    fn complete(&self) -> Result<(), String> {
        let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
        for line in &self.lines {
            let number = line.split(' ').nth(1).and_then(|number| number.parse().ok());
            let whole = number.filter(|number| *line == format!("line {number} of the log of a shop"));
            *seen.entry(whole.ok_or_else(|| format!("torn line {line:?}"))?).or_default() += 1;
        }
        let lost: Vec<usize> = (1..=self.written).filter(|number| !seen.contains_key(number)).collect();
        let twice: Vec<usize> = seen.iter().filter(|(_, count)| **count > 1).map(|(number, _)| *number).collect();
        if lost.is_empty() && twice.is_empty() {
            return Ok(());
        }
        Err(format!("{} lost: {:?}; {} twice: {:?}", lost.len(), lost.first(), twice.len(), twice.first()))
    }
}

/// With and without a pattern for rotated files.
const PATTERNS: [&str; 2] = ["paths: [DIR/app.log]", "paths: ['DIR/app.log*']"];

#[test]
fn rotation_by_renaming_loses_and_repeats_nothing() {
    for pattern in PATTERNS {
        let mut bench = Bench::new(pattern);
        for round in 0..20 {
            bench.write("app.log", 3);
            if round % 3 != 0 {
                bench.read();
            }
            // Daemons write into the renamed file until they reopen their log.
            bench.rename("app.log", &format!("app.log.{}", 100 - round));
            bench.write(&format!("app.log.{}", 100 - round), 2);
            if round % 2 == 0 {
                bench.read();
            }
        }
        bench.write("app.log", 1);
        bench.read().assert_complete();
    }
}

#[test]
fn a_burst_of_1000_rotations_between_two_looks_loses_nothing() {
    for pattern in PATTERNS {
        let mut bench = Bench::new(pattern);
        bench.write("app.log", 1);
        bench.read();
        for round in 0..1_000 {
            bench.write("app.log", 2);
            bench.rename("app.log", &format!("app.log.{round}"));
        }
        bench.write("app.log", 2);
        bench.read().read().assert_complete();
    }
}

#[test]
fn a_copy_that_is_looked_at_while_it_is_being_written_repeats_nothing() {
    for pattern in PATTERNS {
        for written in [0, 1, 50, 500, 1_000, 1_500, 2_900] {
            for restarts in [false, true] {
                let mut bench = Bench::new(pattern);
                bench.write("app.log", 100);
                bench.read();
                bench.write("app.log", 3);
                let whole = fs::read(bench.path("app.log")).unwrap();
                bench.append("app.log.1", &whole[..written]);
                bench.read();
                if restarts {
                    bench.restart().read();
                }
                bench.append("app.log.1", &whole[written..]);
                File::options().write(true).open(bench.path("app.log")).unwrap().set_len(0).unwrap();
                bench.write("app.log", 2);
                bench.read().read();
                if let Err(why) = bench.complete() {
                    panic!("{pattern}, {written} bytes, restart: {restarts}: {why}");
                }
            }
        }
    }
}

#[test]
fn a_log_that_is_written_to_between_its_copy_and_its_truncation_is_not_read_again_from_the_copy() {
    for pattern in PATTERNS {
        for (looks, restart) in [(true, None), (false, None), (true, Some(0)), (true, Some(1)), (false, Some(1))] {
            let mut bench = Bench::new(pattern);
            bench.write("app.log", 60);
            bench.read();
            fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
            bench.write("app.log", 3);
            if looks {
                bench.read();
            } else {
                // Its turn comes, and no look at the folder.
                bench.read_on();
            }
            if restart == Some(0) {
                bench.restart().read();
            }
            File::options().write(true).open(bench.path("app.log")).unwrap().set_len(0).unwrap();
            bench.write("app.log", 2);
            if restart == Some(1) {
                bench.restart();
            }
            bench.read().read();
            bench.pass(70);
            bench.read();
            if let Err(why) = bench.complete() {
                panic!("{pattern}, looks: {looks}, restart: {restart:?}: {why}");
            }
        }
    }
}

#[test]
fn rotation_by_copying_and_truncating_loses_and_repeats_nothing() {
    for pattern in PATTERNS {
        let mut bench = Bench::new(pattern);
        for round in 0..12 {
            bench.write("app.log", 4);
            if round % 2 == 0 {
                bench.read();
            }
            bench.write("app.log", round % 3);
            bench.copy_and_truncate("app.log", &format!("app.log.{}", 90 - round));
            if round % 3 == 0 {
                bench.write("app.log", 50);
            }
            bench.read();
        }
        bench.read().read().assert_complete();
    }
}

#[test]
fn a_copy_that_is_seen_before_its_original_is_truncated_is_not_read_twice() {
    let mut bench = Bench::new(PATTERNS[1]);
    bench.write("app.log", 5);
    bench.read();
    bench.write("app.log", 5);
    fs::copy(bench.path("app.log"), bench.path("app.log.1")).unwrap();
    bench.read();
    File::options().write(true).open(bench.path("app.log")).unwrap().set_len(0).unwrap();
    bench.write("app.log", 1);
    bench.read().read().assert_complete();
}

#[test]
fn a_file_that_is_deleted_while_unread_is_read_to_its_end() {
    let mut bench = Bench::new(PATTERNS[0]);
    bench.write("app.log", 1);
    bench.read();
    bench.write("app.log", 20_000);
    fs::remove_file(bench.path("app.log")).unwrap();
    bench.read().assert_complete();
    bench.write("app.log", 3);
    bench.read().assert_complete();
}

#[test]
fn rotations_and_compression_while_nobody_looks_are_caught_up() {
    for pattern in PATTERNS {
        let mut bench = Bench::new(pattern);
        bench.write("app.log", 10);
        bench.read();
        bench.write("app.log", 10);
        // Two rotations, the older file compressed, as logrotate leaves them.
        bench.rename("app.log", "app.log.1");
        bench.write("app.log", 10);
        bench.rename("app.log.1", "app.log.2");
        bench.gzip("app.log.2");
        bench.rename("app.log", "app.log.1");
        bench.write("app.log", 10);
        bench.restart().read().assert_complete();
        bench.restart().read().assert_complete();
    }
}

#[test]
fn a_file_that_is_compressed_while_it_is_followed_is_not_read_twice() {
    let mut bench = Bench::new(PATTERNS[1]);
    bench.write("app.log", 10);
    bench.read();
    bench.rename("app.log", "app.log.1");
    bench.write("app.log", 10);
    bench.read();
    bench.gzip("app.log.1");
    bench.write("app.log", 1);
    bench.read().read().assert_complete();
    bench.restart().read().assert_complete();
}

#[derive(Clone, Debug)]
enum Happening {
    Write(usize),
    Rename,
    CopyTruncate,
    Compress,
    Delete,
    Read,
    Restart,
    Pass(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (1_usize..8).prop_map(Happening::Write),
        2 => Just(Happening::Rename),
        1 => Just(Happening::CopyTruncate),
        1 => Just(Happening::Compress),
        1 => Just(Happening::Delete),
        3 => Just(Happening::Read),
        1 => Just(Happening::Restart),
        2 => prop::sample::select(vec![1, 3, 6, 70]).prop_map(Happening::Pass),
    ];
    prop::collection::vec(one, 1..40)
}

/// Lets things happen to a log; every line must come once.
fn happen(happenings: &[Happening], pattern: &str) -> Result<(), String> {
    let mut bench = Bench::new(pattern);
    let mut rotated = 1_000;
    // A log that no pattern names any more can only be followed if it was seen before.
    bench.write("app.log", 1);
    bench.read();
    for happening in happenings {
        let there = bench.path("app.log").metadata().is_ok_and(|metadata| metadata.len() > 0);
        let oldest = bench.path(&format!("app.log.{rotated}"));
        match happening {
            Happening::Write(count) => bench.write("app.log", *count),
            Happening::Rename if there => {
                rotated -= 1;
                bench.rename("app.log", &format!("app.log.{rotated}"));
            }
            Happening::CopyTruncate if there => {
                rotated -= 1;
                bench.copy_and_truncate("app.log", &format!("app.log.{rotated}"));
            }
            Happening::Compress if oldest.is_file() => bench.gzip(&format!("app.log.{rotated}")),
            Happening::Delete if oldest.is_file() => {
                // What nobody could read is no loss of a reader.
                bench.read();
                fs::remove_file(oldest).unwrap();
            }
            Happening::Read => {
                bench.read();
            }
            Happening::Restart => {
                bench.restart();
            }
            Happening::Pass(seconds) => bench.pass(*seconds),
            _ => {}
        }
    }
    bench.read().read();
    bench.complete()
}

#[test]
fn what_once_happened_to_files_and_went_wrong_loses_and_repeats_nothing() {
    use Happening::{Compress, CopyTruncate, Delete, Pass, Read, Rename, Restart, Write};
    let [log, all] = PATTERNS;
    for (pattern, happenings) in [
        // A log that was gone before a restart was written and rotated before it was seen again.
        (log, vec![Rename, Delete, Restart, Read, Restart, Write(1), Rename, Delete]),
        // The same after it was gone for long.
        (log, vec![Rename, Delete, Pass(70), Write(1), Pass(1), Rename]),
        // An archive got the inode of a file that had been empty.
        (
            all,
            vec![
                CopyTruncate,
                Read,
                Restart,
                Write(4),
                Rename,
                Pass(6),
                Write(15),
                Compress,
                Read,
                Rename,
                Compress,
                Pass(3),
                Read,
                Write(11),
                Restart,
                CopyTruncate,
            ],
        ),
    ] {
        assert_eq!(happen(&happenings, pattern), Ok(()), "{happenings:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_to_files_every_line_that_was_readable_comes_once(happenings in happenings(), pattern in prop::sample::select(&PATTERNS[..])) {
        prop_assert_eq!(happen(&happenings, pattern), Ok(()), "{:?} {:?}", pattern, happenings);
    }
}

#[test]
fn a_file_written_anew_with_the_same_beginning_is_read_again_and_one_rewritten_in_place_too() {
    let mut bench = Bench::new(PATTERNS[0]);
    let banner = "#".repeat(1_500) + "\n";
    bench.append("app.log", format!("{banner}one\ntwo\n"));
    bench.read();
    // Longer than before, so its size does not give it away.
    fs::write(bench.path("app.log"), format!("{banner}three\nfour\nfive\n")).unwrap();
    bench.read();
    assert_eq!(bench.lines[1..3], ["one", "two"]);
    assert_eq!(bench.lines[4..], ["three", "four", "five"]);
    fs::remove_file(bench.path("app.log")).unwrap();
    fs::write(bench.path("new"), format!("{banner}six\nseven\neight\nnine\n")).unwrap();
    bench.rename("new", "app.log");
    bench.restart().read();
    assert_eq!(bench.lines[8..], ["six", "seven", "eight", "nine"]);
}

#[test]
fn two_logs_with_the_same_beginning_are_both_read() {
    let mut bench = Bench::new("paths: [DIR/messages, DIR/syslog]");
    bench.append("messages", "same\nsame\n");
    bench.append("syslog", "same\nsame\n");
    bench.read().restart().read();
    assert_eq!(bench.lines.len(), 4);
    bench.append("syslog", "new\n");
    bench.read();
    assert_eq!(bench.lines.len(), 5);
}

#[test]
fn links_and_several_patterns_lead_to_a_file_once_and_what_is_no_file_is_passed_over() {
    let mut bench = Bench::new("paths: ['DIR/*', DIR/app.log]\nexclude: ['*.tmp']");
    bench.write("app.log", 2);
    bench.append("x.tmp", "no\n");
    fs::create_dir(bench.path("folder")).unwrap();
    std::os::unix::fs::symlink(bench.path("app.log"), bench.path("link")).unwrap();
    std::os::unix::fs::symlink(bench.path("loop"), bench.path("loop")).unwrap();
    nix::unistd::mkfifo(&bench.path("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    bench.read().assert_complete();
    let Ok(Records::Logs(logs)) = bench.payloads[0].records() else { unreachable!() };
    let path = logs.common.find(logs.records[0].attributes, "log.file.path").unwrap();
    assert_eq!(logs.common.value_text(path), bench.path("app.log").display().to_string());
}

#[test]
fn a_last_line_waits_for_its_end_until_the_time_is_over() {
    let mut bench = Bench::new("paths: [DIR/a]\nunfinished_timeout: 50ms");
    bench.append("a", "half");
    bench.read();
    assert_eq!(bench.lines, Vec::<String>::new());
    bench.append("a", " and half\nrest");
    bench.read();
    assert_eq!(bench.lines, ["half and half"]);
    let begun = Instant::now();
    while bench.lines.len() < 2 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        bench.read();
    }
    assert!(begun.elapsed() >= Duration::from_millis(45));
    assert_eq!(bench.lines[1], "rest");
    bench.append("a", "?\n");
    bench.read();
    assert_eq!(bench.lines[2], "?");
}

#[test]
fn an_unfinished_line_is_read_from_its_beginning_after_a_restart() {
    let mut bench = Bench::new("paths: [DIR/a]\nmultiline: indent");
    bench.append("a", "one\n more\ntwo\n mo");
    bench.read();
    assert_eq!(bench.lines, ["one\n more"]);
    bench.restart();
    bench.append("a", "re\nthree\n");
    bench.read();
    assert_eq!(bench.lines, ["one\n more", "two\n more"]);
}

#[test]
fn the_first_run_begins_where_it_is_told_and_later_files_at_their_beginning() {
    let mut bench = Bench::new("paths: ['DIR/*.log']\nfrom: end");
    bench.append("a.log", "old\nhalf");
    bench.read();
    bench.append("a.log", " done\nnew\n");
    bench.append("b.log", "first\n");
    bench.read();
    assert_eq!(bench.lines, ["half done", "new", "first"]);

    let mut bench = Bench::new("paths: ['DIR/*.log']\nignore_older: 1h");
    bench.append("old.log", "long ago\n");
    let old = SystemTime::now() - Duration::from_secs(7200);
    File::options().write(true).open(bench.path("old.log")).unwrap().set_modified(old).unwrap();
    bench.append("new.log", "recent\n");
    bench.read();
    bench.append("old.log", "now\n");
    bench.read();
    assert_eq!(bench.lines, ["recent", "now"]);
}

#[test]
fn files_beyond_the_limit_of_open_ones_are_read_all_the_same() {
    let mut bench = Bench::new("paths: ['DIR/*.log']\nmax_open_files: 3");
    for round in 0..3 {
        for file in 0..20 {
            bench.write(&format!("{file}.log"), 2);
        }
        bench.read();
        assert_eq!(bench.lines.len(), 40 * (round + 1));
    }
    bench.assert_complete();
}

#[test]
fn what_is_no_text_is_kept_and_said_and_long_records_are_cut_and_said() {
    let mut bench = Bench::new("paths: [DIR/a]\nmax_line_size: 64B\noriginal: true");
    bench.append("a", b"bad \xff byte\r\n\r\n");
    bench.append("a", "x".repeat(100) + "\n");
    bench.read();
    let Ok(Records::Logs(logs)) = bench.payloads[0].records() else { unreachable!() };
    let shown: Vec<String> = logs
        .records
        .iter()
        .map(|record| {
            let attributes = logs.common.list(record.attributes).iter().skip(2);
            let named: Vec<String> = attributes
                .map(|a| format!("{}={}", logs.common.text(a.key), logs.common.value_text(a.value)))
                .collect();
            format!("{} {}", logs.common.value_text(record.body), named.join(" "))
        })
        .collect();
    let hex = "62616420ff2062797465";
    let (x64, original) = ("x".repeat(64), "log.record.original");
    assert_eq!(
        shown,
        [
            format!("{hex} log.record.invalid_text=true {original}={hex}"),
            format!("{x64} log.record.cut_bytes=36 {original}={x64}")
        ]
    );
    assert!(logs.records.iter().all(|record| record.observed_time_unix_nano > 1_700_000_000_000_000_000));
}

/// Points as `name{key=value,...} number`.
fn points(metrics: &Metrics) -> Vec<String> {
    let table = &metrics.table;
    let name = |series: u32| {
        let metric = table.metric_of(series).unwrap();
        let labels: Vec<String> = table
            .common
            .list(table.series[series as usize].attributes)
            .iter()
            .map(|a| format!("{}={}", table.common.text(a.key), table.common.value_text(a.value)))
            .collect();
        format!("{}{{{}}}", table.common.text(metric.name), labels.join(","))
    };
    let numbers = metrics.numbers.iter().map(|p| format!("{} {}", name(p.series), p.value.as_f64().unwrap()));
    let histograms = metrics.histograms.iter().map(|p| {
        format!(
            "{} n={} sum={} {:?}",
            name(p.distribution.series),
            p.distribution.count,
            p.distribution.sum.unwrap(),
            p.bucket_counts
        )
    });
    let mut all: Vec<String> = numbers.chain(histograms).filter(|line| line.starts_with("log.event")).collect();
    all.sort();
    all
}

#[test]
fn rules_count_records_and_numbers_with_a_bounded_number_of_series() {
    let rules: Vec<config::RuleConfig> = {
        let yaml = "
paths: [/x]
patterns:
  - {name: slow, regex: 'took (?<ms>[0-9.]+) ms by (?<user>\\w+)', value: ms, unit: ms, buckets: [1, 10], labels: [user], max_series: 2}
";
        config(yaml).unwrap().patterns
    };
    let mut rules = Rules::new(&rules, true, &context(Path::new("/tmp"))).unwrap();
    let file: Arc<str> = Arc::from("/x");
    let clock = parse::time::Clock { zone: jiff::tz::TimeZone::UTC, now_unix_nano: 0 };
    let parser = parse::Parser {
        container: None,
        grammar: parse::Grammar::Raw,
        severity_field: None,
        time_field: None,
        time_format: parse::time::TimeFormat::Auto,
        message_field: None,
    };
    for text in [
        "took 0.5 ms by a",
        "took 5 ms by a",
        "ERROR took 50 ms by b",
        "took 7 ms by c",
        "took 8 ms by d",
        "Out of memory: Killed process 12 (x)",
        "nothing",
    ] {
        rules.see(text, &parser.parse(text, &clock), &file);
    }
    let metrics = rules.report(5, |_| {});
    assert_eq!(
        points(&metrics),
        [
            "log.event.value{rule=slow,level=error,file=/x,user=b} n=1 sum=50 [0, 0, 1]",
            "log.event.value{rule=slow,level=unset,file=/x,user=a} n=2 sum=5.5 [1, 1, 0]",
            "log.event.value{rule=slow,otel.metric.overflow=true} n=2 sum=15 [0, 2, 0]",
            "log.events{rule=out_of_memory,level=unset,file=/x} 1",
            "log.events{rule=severity,level=error,file=/x} 1",
            "log.events{rule=slow,level=error,file=/x,user=b} 1",
            "log.events{rule=slow,level=unset,file=/x,user=a} 2",
            "log.events{rule=slow,otel.metric.overflow=true} 2",
        ]
    );
}

#[test]
fn wrong_configurations_say_what_to_do() {
    for (yaml, word) in [
        ("{}", "no `paths`"),
        ("paths: [a.log]", "begin with `/`"),
        ("{paths: [/a], format: regex}", "need `pattern`"),
        ("{paths: [/a], format: regex, pattern: 'x'}", "named groups"),
        ("{paths: [/a], pattern: 'x'}", "is for the formats"),
        ("{paths: [/a], content_format: json}", "for the formats `cri`"),
        ("{paths: [/a], max_line_size: 1B}", "64B"),
        ("{paths: [/a], multiline: '('}", "regular expression"),
        ("{paths: [/a], time_format: iso}", "time_format"),
        ("{paths: [/a], patterns: [{regex: x}]}", "no `name`"),
        ("{paths: [/a], patterns: [{name: a, regex: ''}]}", "matches every record"),
        ("{paths: [/a], patterns: [{name: a, regex: x, value: ms}]}", "(?<ms>"),
        ("{paths: [/a], patterns: [{name: a, regex: x}, {name: a, regex: y}]}", "two `patterns`"),
        ("{paths: [/a], path: [/b]}", "paths"),
    ] {
        let problem = open(Path::new("/tmp"), yaml).err().unwrap_or_else(|| panic!("{yaml} was accepted"));
        assert!(problem.contains(word), "{yaml}: {problem}");
    }
}

/// A backend that keeps what it gets, or takes nothing.
#[derive(Clone, Default)]
struct Sink {
    lines: Arc<Mutex<Vec<String>>>,
    is_away: Arc<AtomicBool>,
}

impl Export for Sink {
    type Config = LogsConfig;

    fn new(_: LogsConfig, _: &Context) -> Result<Self, Fault> {
        Ok(Sink::default())
    }

    fn takes(&self) -> Takes {
        Takes { ordered: true, ..Takes::EVERYTHING }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        if self.is_away.load(Ordering::Acquire) {
            return Outcome::Later { after: Some(Duration::from_millis(20)), why: "away".into() };
        }
        for payload in delivery.payloads.iter().filter(|payload| payload.signal() == Signal::Logs) {
            self.lines.lock().unwrap().extend(bodies(payload));
        }
        Outcome::Accepted
    }

    async fn check(&self) -> Result<String, Fault> {
        Ok(String::new())
    }
}

async fn start(folder: &Path, sink: &Sink, acknowledge: Acknowledge, memory_bytes: usize) -> Pipeline {
    let logs = open(folder, "paths: ['DIR/*.log']").unwrap();
    let members =
        vec![Member::receiver("logs", logs), Member::exporter("sink", ExportOptions::default(), sink.clone())];
    let plan = Plan { members, acknowledge, memory_bytes, ..Plan::default() };
    Pipeline::start(plan).await.unwrap_or_else(|error| panic!("{error}"))
}

async fn until_lines(sink: &Sink, count: usize) {
    let begun = Instant::now();
    while sink.lines.lock().unwrap().len() < count {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} of {count} lines", sink.lines.lock().unwrap().len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_the_pipeline_lines_arrive_in_order_once_over_clean_restarts_and_full_queues() {
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    let mut written = 0;
    let mut write = |count: usize| {
        let mut file = OpenOptions::new().append(true).create(true).open(folder.path().join("a.log")).unwrap();
        for _ in 0..count {
            writeln!(file, "{written} {}", "x".repeat(200)).unwrap();
            written += 1;
        }
        written
    };
    for acknowledge in [Acknowledge::Durable, Acknowledge::Queued] {
        sink.is_away.store(true, Ordering::Release);
        let total = write(20_000);
        // Room for a part of it only: the file waits.
        let pipeline = start(folder.path(), &sink, acknowledge, 1 << 20).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        sink.is_away.store(false, Ordering::Release);
        until_lines(&sink, total).await;
        pipeline.stop().await;
        let pipeline = start(folder.path(), &sink, acknowledge, 1 << 20).await;
        let total = write(10);
        until_lines(&sink, total).await;
        pipeline.stop().await;
        let lines = sink.lines.lock().unwrap().clone();
        let numbers: Vec<usize> = lines.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (0..total).collect::<Vec<_>>(), "{acknowledge:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_of_positions_is_survived() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("data/logs")).unwrap();
    fs::write(folder.path().join("data/logs/logs.json"), "{\"version\":1,\"files\":").unwrap();
    fs::write(folder.path().join("a.log"), "one\n").unwrap();
    let sink = Sink::default();
    let pipeline = start(folder.path(), &sink, Acknowledge::Durable, 1 << 20).await;
    until_lines(&sink, 1).await;
    pipeline.stop().await;
    assert!(folder.path().join("data/logs/logs.damaged").is_file());
    let text = fs::read_to_string(folder.path().join("data/logs/logs.json")).unwrap();
    assert!(text.contains("\"offset\":4"), "{text}");
}
