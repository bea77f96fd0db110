//! The real `journalctl`, on journals that systemd-journal-remote writes from the export format.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal as ProcessSignal, kill};
use nix::unistd::Pid;
use weir_config::{Acknowledge, Document, Environment};
use weir_model::Value;
use weir_pipeline::health::State;
use weir_pipeline::options::ExportOptions;
use weir_pipeline::pipeline::Pipeline;
use weir_pipeline::plan::{Member, Plan};
use weir_pipeline::role::{Delivery, Export, Takes};
use weir_pipeline::telemetry::Telemetry;
use weir_pipeline::{Outcome, Problems};

use super::*;

fn config(yaml: &str) -> Result<JournaldConfig, Problems> {
    let node = Document::parse("test.yaml", yaml, &Environment)?;
    weir_config::read("test.yaml", &node, "journald")
}

fn open(folder: &Path, yaml: &str, telemetry: &Arc<Telemetry>) -> Result<Journald, String> {
    let yaml = yaml.replace("DIR", &folder.display().to_string());
    let context = Context {
        data_folder: folder.join("data").into(),
        name: Arc::from("journald"),
        interval: Duration::from_secs(3600),
        timeout: Duration::from_secs(10),
        resource: vec![("host.name".into(), "agent".into()), ("team".into(), "core".into())],
        telemetry: telemetry.clone(),
    };
    let config = config(&yaml).map_err(|problems| problems.to_string())?;
    Journald::new(config, &context).map_err(|fault| fault.to_string())
}

/// A journal in a folder, or `None`, said loudly, where the tools are missing.
struct Journal {
    folder: tempfile::TempDir,
    remote: PathBuf,
    ids: usize,
}

impl Journal {
    fn new(test: &str) -> Option<Journal> {
        let found = ["/lib/systemd/systemd-journal-remote", "/usr/lib/systemd/systemd-journal-remote"]
            .iter()
            .map(PathBuf::from)
            .find(|path| path.is_file());
        let has_journalctl = Command::new("journalctl").arg("--version").output().is_ok();
        let Some(remote) = found.filter(|_| has_journalctl) else {
            eprintln!(
                "SKIPPED: {test} needs journalctl and systemd-journal-remote: not installed; tests/install.sh installs it"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("journal")).unwrap();
        Some(Journal { folder, remote, ids: 0 })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Adds entries from the export format to a file of the journal.
    fn add(&self, file: &str, entries: &[u8]) {
        let file = self.path().join("journal").join(file);
        let mut child = Command::new(&self.remote)
            .args(["-o", &file.display().to_string(), "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(entries).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Adds numbered entries from now on; how many there are altogether.
    fn write(&mut self, file: &str, count: usize) -> usize {
        let now = u64::try_from(unix_now().as_micros()).unwrap();
        self.write_at(file, count, now)
    }

    fn write_at(&mut self, file: &str, count: usize, microseconds: u64) -> usize {
        let mut text = Vec::new();
        for at in 0..count {
            let time = microseconds + at as u64;
            let filling = "x".repeat(200);
            writeln!(text, "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={time}").unwrap();
            writeln!(text, "_BOOT_ID=0123456789abcdef0123456789abcdef\nMESSAGE={} {filling}\n", self.ids).unwrap();
            self.ids += 1;
        }
        self.add(file, &text);
        self.ids
    }

    /// A program in place of journalctl.
    fn script(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }
}

/// A backend that keeps what it gets, or takes nothing.
#[derive(Clone, Default)]
struct Sink {
    payloads: Arc<Mutex<Vec<Payload>>>,
    is_away: Arc<AtomicBool>,
    /// When the first entry was tried to be delivered last.
    first_tried: Arc<Mutex<Option<Instant>>>,
}

impl Export for Sink {
    type Config = JournaldConfig;

    fn new(_: JournaldConfig, _: &Context) -> Result<Self, Fault> {
        Ok(Sink::default())
    }

    fn takes(&self) -> Takes {
        Takes { ordered: true, ..Takes::EVERYTHING }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        let has_first = |payload: &Payload| bodies_of(payload).iter().any(|body| body.starts_with("0 "));
        if delivery.payloads.iter().filter(|payload| payload.signal() == Signal::Logs).any(has_first) {
            *self.first_tried.lock().unwrap() = Some(Instant::now());
        }
        if self.is_away.load(Ordering::Acquire) {
            return Outcome::Later { after: Some(Duration::from_millis(20)), why: "away".into() };
        }
        let logs = delivery.payloads.iter().filter(|payload| payload.signal() == Signal::Logs);
        self.payloads.lock().unwrap().extend(logs.cloned());
        Outcome::Accepted
    }

    async fn check(&self) -> Result<String, Fault> {
        Ok(String::new())
    }
}

impl Sink {
    fn len(&self) -> usize {
        self.payloads.lock().unwrap().iter().map(Payload::len).sum()
    }

    async fn until(&self, count: usize) {
        let begun = Instant::now();
        while self.len() < count {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} of {count} records", self.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Service, host, severity, body and attributes of every record.
    fn records(&self) -> Vec<String> {
        let mut out = Vec::new();
        for payload in self.payloads.lock().unwrap().iter() {
            let Ok(Records::Logs(logs)) = payload.records() else { panic!("no logs") };
            let common = &logs.common;
            for record in &logs.records {
                let scope = common.scopes[record.scope as usize];
                let resource = common.resources[scope.resource as usize];
                let of_resource =
                    |key| common.find(resource.attributes, key).map_or("-".into(), |v| common.value_text(v));
                let attributes: Vec<String> = common
                    .list(record.attributes)
                    .iter()
                    .map(|a| format!("{}={}", common.text(a.key), common.value_text(a.value)))
                    .collect();
                let body = match record.body {
                    Value::Bytes(_) => format!("0x{}", common.value_text(record.body)),
                    body => common.value_text(body),
                };
                out.push(format!(
                    "{}@{} {}{} {} {body} {}",
                    of_resource("service.name"),
                    of_resource("host.name"),
                    record.severity_number,
                    common.text(record.severity_text),
                    record.time_unix_nano,
                    attributes.join(" ")
                ));
            }
        }
        out
    }

    /// The numbers of the entries, in the order in which they came.
    fn ids(&self) -> Vec<usize> {
        self.bodies().iter().map(|body| body.split(' ').next().unwrap().parse().unwrap()).collect()
    }

    fn bodies(&self) -> Vec<String> {
        self.payloads.lock().unwrap().iter().flat_map(bodies_of).collect()
    }
}

fn bodies_of(payload: &Payload) -> Vec<String> {
    let Ok(Records::Logs(logs)) = payload.records() else { panic!("no logs") };
    logs.records.iter().map(|record| logs.common.value_text(record.body)).collect()
}

struct Running {
    pipeline: Pipeline,
    telemetry: Arc<Telemetry>,
}

async fn start(folder: &Path, yaml: &str, sink: &Sink, acknowledge: Acknowledge, memory_bytes: usize) -> Running {
    let control = weir_pipeline::control::Control::default();
    let telemetry = control.telemetry().clone();
    let journald = open(folder, yaml, &telemetry).unwrap();
    let (retry_delay, retry_max_delay) = (Duration::from_millis(20).into(), Duration::from_millis(50).into());
    let options = ExportOptions { retry_delay, retry_max_delay, ..ExportOptions::default() };
    let members = vec![Member::receiver("journald", journald), Member::exporter("sink", options, sink.clone())];
    let plan = Plan { members, acknowledge, memory_bytes, control, ..Plan::default() };
    let pipeline = Pipeline::start(plan).await.unwrap_or_else(|error| panic!("{error}"));
    Running { pipeline, telemetry }
}

impl Running {
    /// Waits until it is unhealthy, and gives the reason.
    async fn unhealthy(&self) -> String {
        let begun = Instant::now();
        loop {
            let health = self.telemetry.health.snapshot().remove("journald").unwrap();
            if health.state == State::Unhealthy {
                return health.reason.unwrap();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it stays {:?}", health.state);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const FOLLOW: &str = "directory: DIR/journal";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_arrive_in_order_once_over_clean_restarts_full_queues_and_while_more_are_added() {
    let Some(mut journal) = Journal::new("entries_arrive_in_order_once") else { return };
    let sink = Sink::default();
    for acknowledge in [Acknowledge::Durable, Acknowledge::Queued] {
        sink.is_away.store(true, Ordering::Release);
        let total = journal.write("a.journal", 5_000);
        // Room for a part of it only: the journal waits.
        let running = start(journal.path(), FOLLOW, &sink, acknowledge, 1 << 20).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        sink.is_away.store(false, Ordering::Release);
        sink.until(total).await;
        let total = journal.write("a.journal", 10);
        sink.until(total).await;
        running.pipeline.stop().await;
        journal.write("a.journal", 7);
        let total = journal.write("b.journal", 7);
        let running = start(journal.path(), FOLLOW, &sink, acknowledge, 1 << 20).await;
        sink.until(total).await;
        running.pipeline.stop().await;
        assert_eq!(sink.ids(), (0..total).collect::<Vec<_>>(), "{acknowledge:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_given_back_are_not_overtaken_by_later_ones() {
    let Some(mut journal) = Journal::new("entries_that_are_given_back") else { return };
    let sink = Sink::default();
    sink.is_away.store(true, Ordering::Release);
    journal.write("a.journal", 10);
    let running = start(journal.path(), FOLLOW, &sink, Acknowledge::Durable, 1 << 20).await;
    let since_tried = || sink.first_tried.lock().unwrap().map(|at| at.elapsed());
    let begun = Instant::now();
    while since_tried().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing is tried");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A batch of its own, which is given back a while after the first one.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let total = journal.write("a.journal", 10);
    while since_tried().unwrap() < Duration::from_millis(700) {
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing is given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sink.is_away.store(false, Ordering::Release);
    sink.until(total).await;
    running.pipeline.stop().await;
    assert_eq!(sink.ids(), (0..total).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_while_nothing_is_delivered_loses_nothing() {
    let Some(mut journal) = Journal::new("a_stop_while_nothing_is_delivered") else { return };
    let sink = Sink::default();
    let total = journal.write("a.journal", 3_000);
    for _ in 0..3 {
        sink.is_away.store(true, Ordering::Release);
        let running = start(journal.path(), FOLLOW, &sink, Acknowledge::Durable, 1 << 20).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        running.pipeline.stop().await;
    }
    sink.is_away.store(false, Ordering::Release);
    let running = start(journal.path(), FOLLOW, &sink, Acknowledge::Durable, 1 << 20).await;
    sink.until(total).await;
    running.pipeline.stop().await;
    assert_eq!(sink.ids(), (0..total).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_entry_of_the_cursor_is_gone_the_oldest_entry_that_is_left_comes_next() {
    let Some(mut journal) = Journal::new("when_the_entry_of_the_cursor_is_gone") else { return };
    let sink = Sink::default();
    let total = journal.write("a.journal", 5);
    let running = start(journal.path(), FOLLOW, &sink, Acknowledge::Durable, 1 << 20).await;
    sink.until(total).await;
    running.pipeline.stop().await;
    // Rotated away, and so are three entries that nobody read.
    journal.write("a.journal", 3);
    journal.write("b.journal", 4);
    fs::remove_file(journal.path().join("journal/a.journal")).unwrap();
    let running = start(journal.path(), FOLLOW, &sink, Acknowledge::Durable, 1 << 20).await;
    sink.until(9).await;
    running.pipeline.stop().await;
    assert_eq!(sink.ids(), [0, 1, 2, 3, 4, 8, 9, 10, 11]);
    // Another journal, in which everything is older than what was read last.
    fs::remove_file(journal.path().join("journal/b.journal")).unwrap();
    let yesterday = u64::try_from(unix_now().as_micros()).unwrap() - 86_400_000_000;
    journal.write_at("c.journal", 4, yesterday);
    let running = start(journal.path(), FOLLOW, &sink, Acknowledge::Durable, 1 << 20).await;
    sink.until(13).await;
    running.pipeline.stop().await;
    assert_eq!(sink.ids()[9..], [12, 13, 14, 15]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_is_killed_is_started_again_and_nothing_is_lost_or_read_twice() {
    let Some(mut journal) = Journal::new("a_child_that_is_killed") else { return };
    let sink = Sink::default();
    let pid = journal.path().join("pid");
    let script = format!(
        "case \"$*\" in *--follow*) echo $$ >{}.new; mv {0}.new {0};; esac\nexec journalctl \"$@\"",
        pid.display()
    );
    let yaml = format!("{FOLLOW}\njournalctl: {}", journal.script("journalctl", &script));
    let total = journal.write("a.journal", 100);
    let running = start(journal.path(), &yaml, &sink, Acknowledge::Durable, 1 << 20).await;
    sink.until(total).await;
    let child: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(child), ProcessSignal::SIGKILL).unwrap();
    let reason = running.unhealthy().await;
    assert!(reason.contains("signal: 9") && reason.contains("again in 1 s"), "{reason}");
    let total = journal.write("a.journal", 100);
    sink.until(total).await;
    assert_eq!(running.telemetry.health.snapshot()["journald"].state, State::Healthy);
    running.pipeline.stop().await;
    assert_eq!(sink.ids(), (0..total).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_child_says_last_is_the_reason_and_a_missing_program_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::default();
    let script = folder.path().join("journalctl");
    fs::write(
        &script,
        "#!/bin/sh\necho first >&2\necho 'No journal files were opened due to insufficient permissions.' >&2\nexit 3\n",
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    for (yaml, words) in [
        ("journalctl: DIR/journalctl", ["first; No journal files", "group systemd-journal", "status: 3"]),
        ("journalctl: DIR/absent", ["absent` is not there", "install it", "tried again"]),
    ] {
        let running = start(folder.path(), yaml, &sink, Acknowledge::Durable, 1 << 20).await;
        let reason = running.unhealthy().await;
        assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
        running.pipeline.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_is_no_journal_is_named_and_the_child_does_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("journalctl");
    let pid = folder.path().join("pid");
    fs::write(
        &script,
        format!("#!/bin/sh\necho $$ >{}\nprintf 'A\\n\\1\\0\\0\\0\\0\\0\\0\\0xyz'\nexec sleep 1000\n", pid.display()),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let running =
        start(folder.path(), "journalctl: DIR/journalctl", &Sink::default(), Acknowledge::Durable, 1 << 20).await;
    let reason = running.unhealthy().await;
    assert!(reason.contains("not the journal's export format"), "{reason}");
    running.pipeline.stop().await;
    let child: i32 = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    assert!(kill(Pid::from_raw(child), None).is_err(), "the child still runs");
}

/// One entry of everything there is.
const RICH: &[u8] =
    b"__REALTIME_TIMESTAMP=1700000000000123\n__MONOTONIC_TIMESTAMP=1\n_BOOT_ID=0123456789abcdef0123456789abcdef
MESSAGE=hello\nPRIORITY=3\n_SYSTEMD_UNIT=shop.service\nSYSLOG_IDENTIFIER=shopd\n_PID=42\n_UID=1000\n_HOSTNAME=web-9
SYSLOG_FACILITY=3\nORDER=7\nORDER=8\nBLOB\n\x03\0\0\0\0\0\0\0\n\xff\0\n_TRANSPORT=syslog\nCODE_LINE=12\n\n";
const KERNEL: &[u8] =
    b"__REALTIME_TIMESTAMP=1700000000000124\n__MONOTONIC_TIMESTAMP=2\n_BOOT_ID=1123456789abcdef0123456789abcdef
MESSAGE\n\x05\0\0\0\0\0\0\0a\nb\xffc\nPRIORITY=6\n_TRANSPORT=kernel\nSYSLOG_IDENTIFIER=kernel\n_HOSTNAME=web-9\n\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_become_what_opentelemetry_calls_them() {
    let Some(journal) = Journal::new("fields_become_what_opentelemetry_calls_them") else { return };
    journal.add("a.journal", RICH);
    journal.add("a.journal", KERNEL);
    let known =
        "syslog.severity.code=3 systemd.unit=shop.service syslog.appname=shopd process.pid=42 process.user.id=1000";
    let boot = "journald.boot_id=0123456789abcdef0123456789abcdef";
    for (options, rich) in [
        ("fields: known", format!("{boot} {known} syslog.facility=3 journald.transport=syslog code.line.number=12")),
        (
            "fields: own",
            format!(
                "{boot} {known} syslog.facility=3 journald.ORDER=[7, 8] journald.BLOB=0aff00 journald.transport=syslog code.line.number=12"
            ),
        ),
        (
            "fields: all",
            format!(
                "{boot} {known} journald._HOSTNAME=web-9 syslog.facility=3 journald.ORDER=[7, 8] journald.BLOB=0aff00 journald.transport=syslog code.line.number=12"
            ),
        ),
    ] {
        let sink = Sink::default();
        let yaml = format!("{FOLLOW}\nignore_older: 0s\n{options}");
        let running = start(journal.path(), &yaml, &sink, Acknowledge::Durable, 1 << 20).await;
        sink.until(2).await;
        running.pipeline.stop().await;
        fs::remove_dir_all(journal.path().join("data")).unwrap();
        let mut records = sink.records();
        let (head, attributes) =
            records[0].split_at(records[0].find("journald.boot").or(records[0].find("syslog.")).unwrap());
        assert_eq!(head, "shop@web-9 17err 1700000000000123000 hello ");
        let sorted = |text: &str| {
            let mut parts: Vec<String> = text.replace(", ", ",").split(' ').map(str::to_owned).collect();
            parts.sort_unstable();
            parts
        };
        assert_eq!(sorted(attributes), sorted(&rich), "{options}");
        let kernel = records.remove(1);
        assert!(kernel.starts_with("kernel@web-9 9info 1700000000000124000 0x610a62ff63 "), "{kernel}");
        assert!(kernel.ends_with("log.record.invalid_text=true"), "{kernel}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_severities_fields_and_the_kernel_are_told_apart() {
    let Some(journal) = Journal::new("units_severities_fields_and_the_kernel") else { return };
    journal.add("a.journal", RICH);
    journal.add("a.journal", KERNEL);
    journal.add("a.journal", b"__REALTIME_TIMESTAMP=1700000000000125\n__MONOTONIC_TIMESTAMP=3\n_BOOT_ID=1123456789abcdef0123456789abcdef\nMESSAGE=last\nPRIORITY=0\n_SYSTEMD_UNIT=a.service\n_UID=1\n\n");
    let invalid = "610a62ff63";
    for (options, expected) in [
        ("kernel: false", &["hello", "last"][..]),
        ("units: [shop.service]", &["hello"]),
        ("units: [shop.service, a]", &["hello", "last"]),
        ("identifiers: [kernel, other]", &[invalid]),
        ("priority: err", &["hello", "last"]),
        ("matches: [_UID=1, _UID=1000, PRIORITY=3]", &["hello"]),
    ] {
        let sink = Sink::default();
        let yaml = format!("{FOLLOW}\nignore_older: 0s\n{options}");
        let running = start(journal.path(), &yaml, &sink, Acknowledge::Durable, 1 << 20).await;
        sink.until(expected.len()).await;
        // More would come with them: they are in one batch.
        running.pipeline.stop().await;
        assert_eq!(sink.bodies(), expected, "{options}");
        fs::remove_dir_all(journal.path().join("data")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_run_begins_where_it_is_told_and_the_second_where_the_first_ended() {
    let Some(mut journal) = Journal::new("the_first_run_begins_where_it_is_told") else { return };
    let now = u64::try_from(unix_now().as_micros()).unwrap();
    journal.write_at("a.journal", 3, now - 7_200_000_000);
    journal.write("a.journal", 2);
    for (options, expected) in
        [("ignore_older: 0s", vec![0, 1, 2, 3, 4]), ("ignore_older: 1h", vec![3, 4]), ("from: end", vec![])]
    {
        let (sink, yaml) = (Sink::default(), format!("{FOLLOW}\n{options}"));
        let running = start(journal.path(), &yaml, &sink, Acknowledge::Durable, 1 << 20).await;
        let cursor = journal.path().join("data/journald/journald.json");
        let begun = Instant::now();
        while sink.len() < expected.len() || !cursor.is_file() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{options}: {} records", sink.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running.pipeline.stop().await;
        assert_eq!(sink.ids(), expected, "{options}");
        let first = journal.write("z.journal", 1) - 1;
        let running = start(journal.path(), &yaml, &sink, Acknowledge::Durable, 1 << 20).await;
        sink.until(expected.len() + 1).await;
        running.pipeline.stop().await;
        assert_eq!(sink.ids()[expected.len()..], [first], "{options}");
        fs::remove_dir_all(journal.path().join("data")).unwrap();
        fs::remove_file(journal.path().join("journal/z.journal")).unwrap();
    }
}

#[test]
fn wrong_configurations_say_what_to_do() {
    for (yaml, word) in [
        ("matches: [uid=1]", "FIELD=value"),
        ("matches: ['--rotate']", "FIELD=value"),
        ("matches: ['=x']", "FIELD=value"),
        ("units: ['']", "empty name"),
        ("journalctl: ' '", "on `PATH`"),
        ("max_field_size: 1B", "64B"),
        ("{directory: /x, namespace: y}", "exclude each other"),
        ("priority: warn", "warning"),
        ("unit: x", "units"),
    ] {
        let problem =
            open(Path::new("/tmp"), yaml, &Arc::default()).err().unwrap_or_else(|| panic!("{yaml} was accepted"));
        assert!(problem.contains(word), "{yaml}: {problem}");
    }
}
