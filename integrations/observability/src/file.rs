//! Telemetry in a local file, one record or one OTLP/JSON request per line.
//!
//! A delivery is one append: it is in the file whole, or the file is as it was before. So a repeat
//! neither doubles nor tears lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::ByteSize;
use weir_model::Signal;
use weir_pipeline::{About, Context, Delivery, Export, Fault, FaultKind, Kind, Outcome, Takes};

use crate::readable;

/// Options of `file`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file to append to, for example `/var/log/weir/telemetry.jsonl`. Required; its folder must exist.
    path: Option<PathBuf>,
    /// A line: `json`, a readable object per record; `otlp_json`, an OTLP/JSON request, without loss. Default: `json`.
    format: Format,
    /// The file is rotated before a delivery would make it larger than this; `0` = never. Default: `100MiB`.
    rotate_size: ByteSize,
    /// How many rotated files are kept, as `path.1` (the newest), `path.2`, ...; `0` = none. Default: `5`.
    keep: u32,
    /// `each`: a delivery counts once it is on the disk (fsync). `never`: once the system has it. Default: `never`.
    sync: Fsync,
}

impl Default for Config {
    fn default() -> Self {
        let rotate_size = ByteSize::from_mebibytes(100);
        Self { path: None, format: Format::Json, rotate_size, keep: 5, sync: Fsync::Never }
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// The readable object of a record.
    Json,
    /// An OTLP/JSON export request.
    OtlpJson,
}

/// When the disk is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Fsync {
    /// Not at all.
    Never,
    /// After each delivery.
    Each,
}

const ABOUT: About = About {
    name: "file",
    summary: "Writes metrics, logs and traces to a local file, one JSON object per line",
    details: r#"Appends what it gets to one file, in order: to keep a copy, or to hand it to another program or network.

**Formats.** `json` writes one object per metric point, log record or span, as the encoding `ndjson` of `webhook` does.
`otlp_json` writes OTLP/JSON export requests, the format of the OpenTelemetry "file exporter", which the Collector reads
with `otlpjsonfile`. That specification wants one signal per file: use a block for each (`file/logs`, `file/traces`) and
routes that name its `signals`.

**Rotation.** Before a delivery would make the file larger than `rotate_size`, `path` becomes `path.1`, `path.1` becomes
`path.2`, and so on; the oldest of `keep` files is removed. A larger delivery gets a file of its own. Files beyond a
lowered `keep` stay. Where logrotate does this, set `rotate_size: 0`; Weir notices that the file was renamed or removed.

**Needs.** A folder that exists and in which Weir may create and rename files. New files have mode 0640, less the umask.
The file must have no other writer: two blocks need two paths. `weir check` creates the file if there is none.

**What can be lost.** When the disk is full or a write fails, what was written of the delivery is cut off again, and it
is repeated until `retry_max_age` ends (`0s` = without end). With `sync: never` a crash of Weir loses nothing that was
delivered, but a crash of the machine can take what Linux had not written back yet, usually the last half minute. With
`sync: each` it takes nothing, at the price of one fsync per delivery. A crash in the middle of a write can leave a torn
line, which stays a line of its own; the records of that delivery may be sent again and then stand twice.
"#,
    sample: r#"file:
  path: /var/log/weir/telemetry.jsonl
  format: json
  rotate_size: 100MiB
  keep: 5
  sync: never
"#,
    metrics: &[],
    signals: &Signal::ALL,
};

/// The kind `file`.
pub const KIND: Kind = Kind::export::<FileExporter>(ABOUT);

/// The exporter.
pub struct FileExporter {
    format: Format,
    appender: Arc<Mutex<Appender>>,
}

impl Format {
    /// The lines of a delivery, each with its end.
    ///
    /// # Errors
    /// If records cannot be decoded.
    fn lines(self, delivery: &Delivery) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let mut lines = Vec::new();
        if self == Format::Json {
            for payload in &delivery.payloads {
                for record in readable::of(&*payload.records_once()?) {
                    serde_json::to_writer(&mut lines, &record)?;
                    lines.push(b'\n');
                }
            }
            return Ok(lines);
        }
        for payload in &delivery.payloads {
            // A request that was received as JSON stands as its sender wrote it, perhaps over many lines.
            // A line end in a text is escaped (RFC 8259, section 7), so these are only space between tokens.
            let space = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
            lines.extend(payload.to_json()?.iter().map(space));
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

/// The file, and what is done with it. All of it blocks.
#[derive(Debug)]
struct Appender {
    path: PathBuf,
    rotate_bytes: u64,
    keep: u32,
    sync: Fsync,
    /// The file of the delivery before; `None` at first and after a failure.
    file: Option<File>,
}

impl Appender {
    /// Appends all of the lines, or none of them.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let current = self.file.take().filter(|file| self.is_at_path(file));
        let mut file = current.map_or_else(|| self.begin(), Ok)?;
        let found = file.metadata()?;
        let would_be_bytes = found.len().saturating_add(lines.len() as u64);
        if self.rotate_bytes > 0 && found.is_file() && found.len() > 0 && would_be_bytes > self.rotate_bytes {
            self.rotate()?;
            file = self.begin()?;
        }
        self.write(&file, lines)?;
        self.file = Some(file);
        Ok(())
    }

    /// Whether the path still names this file; logrotate and people rename and remove it.
    fn is_at_path(&self, file: &File) -> bool {
        // Where one of them cannot be looked at, opening the file again tells why.
        let (Ok(named), Ok(opened)) = (fs::metadata(&self.path), file.metadata()) else { return false };
        (named.dev(), named.ino()) == (opened.dev(), opened.ino())
    }

    /// Opens the file for appending; makes it if there is none.
    fn open(&self) -> io::Result<File> {
        // Opening a named pipe would wait for its reader, and a disk device must not be written over.
        let found = fs::metadata(&self.path).map(|found| found.file_type());
        if found.is_ok_and(|found| !found.is_file() && !found.is_char_device()) {
            return Err(io::Error::new(ErrorKind::IsADirectory, "it is a folder, a pipe or a device"));
        }
        // Telemetry can hold what not everybody should read.
        OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(&self.path)
    }

    /// Opens the file and makes sure that the next line starts a line, also after a crash in the middle of one.
    fn begin(&self) -> io::Result<File> {
        let mut file = self.open()?;
        let found = file.metadata()?;
        if let Some(last) = found.len().checked_sub(1).filter(|_| found.is_file()) {
            let mut byte = [0];
            file.read_exact_at(&mut byte, last)?;
            if byte != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        if self.sync == Fsync::Each && found.is_file() {
            // The name of a new file is on the disk only after this (fsync(2)).
            let folder = self.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()?;
        }
        Ok(file)
    }

    /// Frees the path for a new file.
    fn rotate(&self) -> io::Result<()> {
        if self.keep == 0 {
            return fs::remove_file(&self.path);
        }
        let numbered = |number: u32| self.path.with_added_extension(number.to_string());
        // Up to the first number that is free, or the last, whose file is replaced by the one before it.
        let is_free = |number: &u32| numbered(*number).try_exists().is_ok_and(|exists| !exists);
        let free = (1..self.keep).find(is_free).unwrap_or(self.keep);
        for number in (1..free).rev() {
            fs::rename(numbered(number), numbered(number + 1))?;
        }
        fs::rename(&self.path, numbered(1))
    }

    /// Writes the lines at the end; after a failure the file is as long as before.
    fn write(&self, mut file: &File, lines: &[u8]) -> io::Result<()> {
        let before = file.metadata()?;
        let waits = self.sync == Fsync::Each && before.is_file();
        let written = file.write_all(lines).and_then(|()| if waits { file.sync_data() } else { Ok(()) });
        let Err(error) = written else { return Ok(()) };
        // A file that is not longer was emptied by somebody else meanwhile; it must not be filled with zeros.
        // Should this fail too, the next attempt ends the torn line.
        if before.is_file() && file.metadata()?.len() > before.len() {
            file.set_len(before.len())?;
        }
        Err(error)
    }

    /// What failed, where, and what to do about it.
    fn fault(&self, error: &io::Error) -> Fault {
        let (kind, remedy) = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                (FaultKind::Other, "free space on its disk, or lower `rotate_size` and `keep`")
            }
            ErrorKind::PermissionDenied => (FaultKind::Permission, "let Weir's user write to the file and its folder"),
            ErrorKind::ReadOnlyFilesystem => {
                (FaultKind::Permission, "choose another path, or add its folder to `ReadWritePaths=` of the service")
            }
            ErrorKind::NotFound | ErrorKind::NotADirectory => (FaultKind::NotFound, "create its folder"),
            ErrorKind::IsADirectory => (FaultKind::Configuration, "let `path` name a regular file"),
            _ => (FaultKind::Other, "look at its disk and at the messages of the kernel (`dmesg`)"),
        };
        Fault::new(kind, format!("cannot write to {}: {error}: {remedy}", self.path.display()))
    }
}

impl FileExporter {
    /// Does something with the file where it may block.
    async fn with_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Appender) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Fault> {
        let appender = self.appender.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut appender = appender.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut appender).map_err(|error| appender.fault(&error))
        });
        done.await.map_err(|error| Fault::new(FaultKind::Other, format!("writing to the file broke off: {error}")))?
    }
}

impl Export for FileExporter {
    type Config = Config;

    fn new(config: Config, _: &Context) -> Result<Self, Fault> {
        let path = config.path.unwrap_or_default();
        if path.file_name().is_none() || path.as_os_str().as_encoded_bytes().ends_with(b"/") {
            let wrong = if path.as_os_str().is_empty() { "is missing" } else { "is a folder" };
            let example = "`path: /var/log/weir/telemetry.jsonl`";
            return Err(Fault::configuration(format!("`path` {wrong}: name the file to write to, such as {example}")));
        }
        let rotate_bytes = config.rotate_size.bytes();
        let appender = Appender { path, rotate_bytes, keep: config.keep, sync: config.sync, file: None };
        Ok(Self { format: config.format, appender: Arc::new(Mutex::new(appender)) })
    }

    fn takes(&self) -> Takes {
        // One at a time: what is taken back after a failure must be one's own.
        Takes { ordered: true, ..Takes::EVERYTHING }
    }

    async fn export(&self, delivery: &Delivery) -> Outcome {
        let lines = match self.format.lines(delivery) {
            Ok(lines) => lines,
            Err(error) => return Outcome::Never { why: format!("the records cannot be read: {error}") },
        };
        match self.with_file(move |appender| appender.append(&lines)).await {
            Ok(()) => Outcome::Accepted,
            Err(fault) => Outcome::Later { after: None, why: fault.message },
        }
    }

    async fn check(&self) -> Result<String, Fault> {
        self.with_file(|appender| {
            let size = appender.open()?.metadata()?.len();
            Ok(format!("can append to {} ({size} bytes)", appender.path.display()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use serde_json::Value as Json;
    use weir_model::logs::{LogRecord, Logs};
    use weir_model::{Encoding, MetricDescription, MetricsBuilder, Payload, Records, Resource, Scope, Value, otlp};
    use weir_pipeline::role::DynExport;
    use weir_pipeline::{MetricKind, Open, Opened};

    use super::*;

    /// A folder of one test, removed after it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("weir-file-{test}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn names(&self) -> Vec<String> {
            let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }

        /// The bodies of the logs in a file, each line read for itself.
        fn bodies(&self, name: &str) -> Vec<String> {
            let body = |line| serde_json::from_str::<Json>(line).unwrap()["body"].as_str().unwrap().to_owned();
            self.read(name).lines().map(body).collect()
        }

        fn exporter(&self, options: &str) -> Box<dyn DynExport> {
            exporter(&format!("file:\n  path: {}/out.jsonl\n{options}", self.0.display()))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn open(block: &str) -> Result<Opened, String> {
        let indented: String = block.lines().map(|line| format!("  {line}\n")).collect();
        let text = format!("integrations:\n{indented}");
        let settings = weir_config::Settings::parse("weir.yaml", &text, &weir_config::Environment);
        let settings = settings.map_err(|problems| problems.to_string())?;
        let context = Context {
            data_folder: std::env::temp_dir().into(),
            name: "file".into(),
            interval: std::time::Duration::from_secs(10),
            timeout: std::time::Duration::from_secs(10),
            resource: Vec::new(),
            telemetry: Arc::default(),
        };
        let open = Open { file: "weir.yaml", block: &settings.integrations[0], context: &context };
        KIND.open(open).map_err(|problems| problems.to_string())
    }

    fn exporter(block: &str) -> Box<dyn DynExport> {
        match open(block) {
            Ok(Opened::Export(_, exporter)) => exporter,
            Ok(_) => panic!("not an exporter"),
            Err(problems) => panic!("{problems}"),
        }
    }

    fn log(body: &str) -> Payload {
        let mut logs = Logs::default();
        logs.common.resources.push(Resource::default());
        logs.common.scopes.push(Scope::default());
        let body = Value::String(logs.common.arena.add(body.as_bytes()));
        logs.records.push(LogRecord { body, time_unix_nano: 1_736_251_390_000_000_000, ..LogRecord::default() });
        Payload::from_records(Records::Logs(logs))
    }

    fn metrics() -> Payload {
        let metric = MetricDescription { name: "queue", unit: "{job}", kind: MetricKind::Gauge, help: "" };
        let mut out = MetricsBuilder::new("jobs", vec![("host.name".into(), "web-prod-01".into())]);
        out.begin(1_736_251_390_000_000_000, 0);
        out.record(&metric, &[("queue", "a\nb")], 1_u64);
        out.record(&metric, &[("queue", "c")], 2_u64);
        Payload::from_records(Records::Metrics(out.finish()))
    }

    fn delivery(payloads: Vec<Payload>) -> Delivery {
        Delivery { signal: payloads[0].signal(), payloads, id: 1 }
    }

    /// Why a delivery is to be repeated.
    async fn why_later(exporter: &dyn DynExport) -> String {
        match exporter.export(&delivery(vec![log("late")])).await {
            Outcome::Later { after: None, why } => why,
            other => panic!("{other:?}"),
        }
    }

    async fn write_log(exporter: &dyn DynExport, body: &str) {
        assert_eq!(exporter.export(&delivery(vec![log(body)])).await, Outcome::Accepted);
    }

    #[tokio::test]
    async fn json_has_one_readable_object_per_record_and_line_in_order() {
        let folder = Folder::new("json");
        let exporter = folder.exporter("");
        assert!(exporter.takes().ordered);
        assert_eq!(exporter.export(&delivery(vec![metrics(), metrics()])).await, Outcome::Accepted);
        write_log(&*exporter, "two\nlines").await;
        let text = folder.read("out.jsonl");
        let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let values: Vec<_> = lines.iter().map(|line| line["value"].as_u64()).collect();
        assert_eq!(values, [Some(1), Some(2), Some(1), Some(2), None]);
        assert_eq!(lines[0]["attributes"]["queue"], "a\nb");
        assert_eq!(lines[4]["body"], "two\nlines");
        assert!(text.ends_with('\n'));
    }

    #[tokio::test]
    async fn otlp_json_has_one_request_per_line_also_when_its_sender_wrote_it_over_many() {
        let folder = Folder::new("otlp");
        let exporter = folder.exporter("  format: otlp_json\n");
        let pretty = "{\r\n \"resourceLogs\": [{\"scopeLogs\": [{\n\"logRecords\": [{\"body\": {\"stringValue\": \"a\\nb\"}}]}]}]\n}\n";
        let received = otlp::accept(Signal::Logs, Encoding::Json, pretty.into()).unwrap();
        assert_eq!(exporter.export(&delivery(vec![metrics(), metrics()])).await, Outcome::Accepted);
        assert_eq!(exporter.export(&delivery(vec![received])).await, Outcome::Accepted);
        let text = folder.read("out.jsonl");
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        assert_eq!(lines.len(), 3, "{text}");
        for line in &lines[..2] {
            let request: ExportMetricsServiceRequest = serde_json::from_str(line).unwrap();
            assert_eq!(request.resource_metrics[0].scope_metrics[0].metrics[0].name, "queue");
        }
        let request: ExportLogsServiceRequest = serde_json::from_str(lines[2]).unwrap();
        let body = &request.resource_logs[0].scope_logs[0].log_records[0].body;
        assert!(format!("{body:?}").contains(r"a\nb"), "{body:?}");
    }

    #[tokio::test]
    async fn rotation_keeps_exactly_as_many_files_as_asked_and_loses_no_newer_line() {
        for (keep, expected) in [(0, &["out.jsonl"] as &[_]), (2, &["out.jsonl", "out.jsonl.1", "out.jsonl.2"])] {
            let folder = Folder::new(&format!("rotation-{keep}"));
            let exporter = folder.exporter(&format!("  rotate_size: 1\n  keep: {keep}\n"));
            for number in 0..5 {
                write_log(&*exporter, &number.to_string()).await;
            }
            assert_eq!(folder.names(), expected);
            for (name, body) in expected.iter().zip(["4", "3", "2"]) {
                assert_eq!(folder.bodies(name), [body], "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_grows_up_to_its_size_and_not_beyond_also_over_a_restart() {
        let folder = Folder::new("size");
        write_log(&*folder.exporter(""), "a").await;
        let line = folder.read("out.jsonl").len();
        for body in ["b", "c", "d"] {
            let exporter = folder.exporter(&format!("  rotate_size: {}\n  sync: each\n", 2 * line));
            write_log(&*exporter, body).await;
        }
        assert_eq!(folder.bodies("out.jsonl.1"), ["a", "b"]);
        assert_eq!(folder.bodies("out.jsonl"), ["c", "d"]);
    }

    #[tokio::test]
    async fn a_file_that_was_renamed_removed_or_emptied_by_others_is_noticed() {
        let folder = Folder::new("logrotate");
        let exporter = folder.exporter("  rotate_size: 0\n");
        let path = folder.0.join("out.jsonl");
        write_log(&*exporter, "a").await;
        fs::rename(&path, folder.0.join("old")).unwrap();
        write_log(&*exporter, "b").await;
        assert_eq!((folder.bodies("old"), folder.bodies("out.jsonl")), (vec!["a".into()], vec!["b".into()]));
        fs::remove_file(&path).unwrap();
        write_log(&*exporter, "c").await;
        assert_eq!(folder.bodies("out.jsonl"), ["c"]);
        File::create(&path).unwrap();
        write_log(&*exporter, "d").await;
        assert_eq!(folder.bodies("out.jsonl"), ["d"]);
    }

    #[tokio::test]
    async fn a_line_torn_by_a_crash_does_not_spoil_the_next_one() {
        let folder = Folder::new("torn");
        fs::write(folder.0.join("out.jsonl"), "{\"half\":").unwrap();
        let exporter = folder.exporter("");
        exporter.check().await.unwrap();
        assert_eq!(folder.read("out.jsonl"), "{\"half\":", "the check changes nothing");
        write_log(&*exporter, "a").await;
        write_log(&*exporter, "b").await;
        let text = folder.read("out.jsonl");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "{\"half\":"));
        assert!(lines[1..].iter().all(|line| serde_json::from_str::<Json>(line).is_ok()), "{text}");
    }

    #[tokio::test]
    async fn a_full_disk_means_later_with_what_to_do() {
        let why = why_later(&*exporter("file: {path: /dev/full, sync: each}")).await;
        assert!(why.contains("/dev/full") && why.contains("os error 28") && why.contains("free space"), "{why}");
    }

    /// Runs itself again with a limit on the size of files, which is what makes a write stop half-way.
    #[test]
    fn a_write_that_stops_half_way_is_taken_back_so_that_its_repeat_is_whole() {
        const LIMITED: &str = "WEIR_TEST_FOLDER_WITH_LIMITED_FILES";
        const NAME: &str = "file::tests::a_write_that_stops_half_way_is_taken_back_so_that_its_repeat_is_whole";
        let Some(folder) = std::env::var_os(LIMITED).map(PathBuf::from) else {
            let folder = Folder::new("limited");
            // A unit is 512 or 1024 bytes, as the shell likes.
            let run = "trap '' XFSZ; ulimit -f 8 && exec \"$@\"";
            let mut command = Command::new("sh");
            command.args(["-c", run, "sh"]).arg(std::env::current_exe().unwrap()).args(["--exact", NAME]);
            let output = command.env(LIMITED, &folder.0).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            assert_eq!(folder.bodies("out.jsonl"), ["a", "b"]);
            return;
        };
        let mut appender =
            Appender { path: folder.join("out.jsonl"), rotate_bytes: 0, keep: 0, sync: Fsync::Never, file: None };
        let lines = |body: &str| Format::Json.lines(&delivery(vec![log(body)])).unwrap();
        appender.append(&lines("a")).unwrap();
        let error = appender.append(&lines(&"x".repeat(10_000))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert_eq!(fs::read(&appender.path).unwrap(), lines("a"));
        appender.append(&lines("b")).unwrap();
    }

    #[tokio::test]
    async fn a_folder_that_vanishes_means_later_and_the_file_is_back_with_it() {
        let folder = Folder::new("vanished");
        let exporter = folder.exporter("");
        write_log(&*exporter, "a").await;
        fs::remove_dir_all(&folder.0).unwrap();
        let why = why_later(&*exporter).await;
        assert!(why.contains("create its folder") && why.contains(&folder.0.display().to_string()), "{why}");
        assert_eq!(exporter.check().await.unwrap_err().kind, FaultKind::NotFound);
        fs::create_dir(&folder.0).unwrap();
        write_log(&*exporter, "b").await;
        assert_eq!(folder.bodies("out.jsonl"), ["b"]);
    }

    #[tokio::test]
    async fn what_is_not_a_file_is_named_and_never_waited_for() {
        let folder = Folder::new("kinds");
        fs::create_dir(folder.0.join("out.jsonl")).unwrap();
        let exporter = folder.exporter("");
        assert!(why_later(&*exporter).await.contains("it is a folder, a pipe"));
        assert_eq!(exporter.check().await.unwrap_err().kind, FaultKind::Configuration);
        fs::remove_dir(folder.0.join("out.jsonl")).unwrap();
        assert!(Command::new("mkfifo").arg(folder.0.join("out.jsonl")).status().unwrap().success());
        assert!(why_later(&*exporter).await.contains("it is a folder, a pipe"));
    }

    #[tokio::test]
    async fn the_check_creates_the_file_and_names_what_the_system_forbids() {
        let folder = Folder::new("check");
        let said = folder.exporter("").check().await.unwrap();
        assert!(said.contains("out.jsonl (0 bytes)"), "{said}");
        assert_eq!(folder.names(), ["out.jsonl"]);
        // Nobody may create files there, not even root.
        let fault = exporter("file: {path: /proc/weir.jsonl}").check().await.unwrap_err();
        assert!(fault.message.contains("/proc/weir.jsonl"), "{fault}");
        let appender = Appender { path: "out.jsonl".into(), rotate_bytes: 0, keep: 0, sync: Fsync::Never, file: None };
        for (kind, remedy) in
            [(ErrorKind::PermissionDenied, "Weir's user"), (ErrorKind::ReadOnlyFilesystem, "ReadWritePaths=")]
        {
            let fault = appender.fault(&kind.into());
            assert!(fault.kind == FaultKind::Permission && fault.message.contains(remedy), "{fault}");
        }
    }

    #[test]
    fn a_path_that_is_missing_or_a_folder_is_a_problem_of_the_configuration() {
        assert!(open("file: {format: json}").err().unwrap().contains("`path` is missing"));
        assert!(open("file:\n  path: \"\"").err().unwrap().contains("`path` is missing"));
        for folder in ["/var/log/", "/", ".."] {
            let problem = open(&format!("file: {{path: {folder}}}")).err().unwrap();
            assert!(problem.contains("`path` is a folder: name the file"), "{problem}");
        }
        assert!(open(ABOUT.sample).is_ok());
    }
}
