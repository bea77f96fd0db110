//! Who is compared: programs, their committed configurations, what they promise, and what they use
//! while they run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::process::{Peer, folder, free_port, peer, usage_of, weir, write};

/// The core of the peer under test.
pub const PEER_CORE: &str = "0";
/// The core of load and sink.
const HARNESS_CORE: &str = "1";
/// How often memory and disk are looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// What the Collector is built from.
const COLLECTOR_MANIFEST: &str = include_str!("../../../tests/peers/collector.yaml");

/// Set to `memory`, Weir runs with its queue in memory, to see what the disk costs; the result says so
/// and judges no goal.
const WEIR_QUEUE: &str = "WEIR_BENCH_QUEUE";

const GROUP: &str = "queue_sync: group, answered after fdatasync";
const FSYNC: &str = "file_storage, fsync of every write";
const FSYNC_BATCHED: &str = "the same, but up to 8192 records wait in memory before it";
const FULL: &str = "storage.sync full";
const HALF_SECOND: &str = "disk buffer, fsync every 500 ms";

/// One program with one configuration.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// The program: `weir`, `otelcol`, `fluent-bit` or `vector`.
    pub program: &'static str,
    /// Its configuration below `bench/peers/PROGRAM/`, without `.yaml`.
    pub configuration: &'static str,
    /// What leaves it.
    pub format: &'static str,
    /// When what it took is on disk.
    pub sync: &'static str,
    /// Whether it may lose what it took when it is killed: shown for comparison, not for the goals.
    pub forgets: bool,
}

const fn contender(
    program: &'static str,
    configuration: &'static str,
    format: &'static str,
    sync: &'static str,
) -> Contender {
    Contender { program, configuration, format, sync, forgets: false }
}

/// From a file.
pub const TAIL: &[Contender] = &[
    contender("weir", "tail-json", "JSON", GROUP),
    contender("otelcol", "tail-json", "JSON", FSYNC),
    contender("fluent-bit", "tail-json", "JSON", FULL),
    contender("vector", "tail-json", "JSON", HALF_SECOND),
    contender("weir", "tail-otlp", "OTLP", GROUP),
    contender("otelcol", "tail-otlp", "OTLP", FSYNC),
    Contender { forgets: true, ..contender("otelcol", "tail-otlp-batched", "OTLP", FSYNC_BATCHED) },
];

/// From OTLP.
pub const OTLP: &[Contender] = &[
    contender("weir", "otlp", "OTLP", GROUP),
    contender("otelcol", "otlp", "OTLP", FSYNC),
    contender("fluent-bit", "otlp", "OTLP", FULL),
    contender("vector", "otlp", "OTLP", HALF_SECOND),
    Contender { forgets: true, ..contender("otelcol", "otlp-batched", "OTLP", FSYNC_BATCHED) },
];

/// Weir alone with a healthy backend, and with a second exporter beside it.
pub const ALONE: Contender = contender("weir", "otlp", "OTLP", GROUP);
/// See [`ALONE`].
pub const BESIDE: Contender = contender("weir", "otlp-beside", "OTLP", GROUP);

/// Into a backend that stalls.
pub const STALL: &[Contender] = &[
    contender("weir", "otlp", "OTLP", GROUP),
    contender("otelcol", "otlp", "OTLP", FSYNC),
    contender("fluent-bit", "otlp", "OTLP", FULL),
    contender("vector", "otlp", "OTLP", HALF_SECOND),
];

/// Where one run of a peer happens; removed when dropped.
pub struct Place {
    /// The log file to read.
    pub file: PathBuf,
    /// The peer's queue and positions.
    pub data: PathBuf,
    /// The port to listen on.
    pub listen: u16,
    /// The port of a second backend, for configurations that have one. Nothing listens there yet.
    pub other: u16,
    folder: PathBuf,
}

impl Place {
    /// A new folder with nothing in it.
    pub fn new() -> Place {
        let folder = folder().join("delivery");
        // What an earlier run left, if it left something.
        let _ = std::fs::remove_dir_all(&folder);
        let data = folder.join("data");
        std::fs::create_dir_all(&data).expect("the temporary folder is writable");
        Place { file: folder.join("app.log"), data, listen: free_port(), other: free_port(), folder }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The next run removes what is left.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether Weir is asked to run without its queue on disk.
pub fn weir_without_disk() -> bool {
    std::env::var(WEIR_QUEUE).is_ok_and(|value| value == "memory")
}

impl Contender {
    /// Name in tables.
    pub fn name(&self) -> String {
        format!("{} ({})", self.program, self.configuration)
    }

    /// When what it took is on disk, as it runs here.
    pub fn sync_mode(&self) -> &'static str {
        if self.program == "weir" && weir_without_disk() { "NONE: queue in memory" } else { self.sync }
    }

    /// Its program, if it is installed. An absent one is said loudly.
    pub fn find(&self) -> Option<PathBuf> {
        match self.program {
            "weir" => Some(weir()),
            "otelcol" => peer("otelcol", "collector/otelcol"),
            other => peer(other, other),
        }
    }

    /// What the program says about its version.
    pub fn version(&self) -> String {
        let Some(program) = self.find() else { return "not found".into() };
        if self.program == "otelcol" {
            // One that the builder made knows no version of its own; its parts have one.
            let version = COLLECTOR_MANIFEST.split_whitespace().find(|word| word.starts_with("v0."));
            return version.unwrap_or("unknown").trim_end_matches('}').to_owned();
        }
        let said = Command::new(program).arg("--version").output().map(|out| out.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).lines().next().unwrap_or("unknown").trim().to_owned()
    }

    fn configuration_file(&self) -> PathBuf {
        let committed = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("peers")
            .join(self.program)
            .join(format!("{}.yaml", self.configuration));
        if self.program != "weir" || !weir_without_disk() {
            return committed;
        }
        let text = std::fs::read_to_string(&committed).expect("the configuration is committed");
        let kept = text.lines().filter(|line| !line.contains("queue_sync:") && !line.contains("queue_size:"));
        let lines: Vec<String> = kept.map(|line| line.replace("queue: disk", "queue: memory")).collect();
        write(&format!("{}-memory.yaml", self.configuration), &(lines.join("\n") + "\n"))
    }

    /// Starts it on its core.
    pub fn start(&self, program: &Path, place: &Place, sink: u16) -> Peer {
        let file = self.configuration_file().display().to_string();
        let mut arguments: Vec<String> = ["--cpu-list", PEER_CORE, "env"].map(str::to_owned).to_vec();
        for (name, value) in [
            ("BENCH_FILE", place.file.display().to_string()),
            ("BENCH_DATA", place.data.display().to_string()),
            ("BENCH_LISTEN", place.listen.to_string()),
            ("BENCH_LISTEN_GRPC", free_port().to_string()),
            ("BENCH_SINK", sink.to_string()),
            ("BENCH_OTHER", place.other.to_string()),
            // Vector 0.57 and later reads variables in its configuration only when told so.
            ("VECTOR_DANGEROUSLY_ALLOW_ENV_VAR_INTERPOLATION", "true".into()),
        ] {
            arguments.push(format!("{name}={value}"));
        }
        arguments.push(program.display().to_string());
        match self.program {
            "weir" => arguments.extend(["agent".into(), "--config".into(), file]),
            _ => arguments.extend(["--config".into(), file]),
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Peer::start(Path::new("taskset"), &arguments, &self.log())
    }

    /// Where its messages go.
    pub fn log(&self) -> PathBuf {
        folder().join(format!("{}-{}.log", self.program, self.configuration))
    }

    /// The last of its messages, for a run that failed.
    pub fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().next_back().unwrap_or("(it said nothing)").replace('|', "/")
    }
}

/// Load and sink stay on their core, so that they take nothing from the peer. Threads that are
/// started later inherit it.
pub fn pin_harness() {
    let pid = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["--cpu-list", "--pid", HARNESS_CORE, &pid]).output();
    assert!(pinned.is_ok_and(|done| done.status.success()), "taskset works and there are two cores");
}

/// Memory and disk of a peer at one time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Seconds since the watch began.
    pub at_s: f64,
    /// Resident memory, MiB.
    pub rss_mib: f64,
    /// Resident memory that is no file's, MiB.
    pub anonymous_mib: f64,
    /// What its data folder takes on disk, MiB.
    pub disk_mib: f64,
}

/// Looks at a peer again and again until it is told to end.
pub struct Watch {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Watch {
    /// Begins to look.
    pub fn begin(peer: &Peer, data: &Path) -> Watch {
        let ends = Arc::new(AtomicBool::new(false));
        let (pid, data, told, begun) = (peer.pid(), data.to_owned(), ends.clone(), Instant::now());
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let usage = usage_of(pid);
                samples.push(Sample {
                    at_s: begun.elapsed().as_secs_f64(),
                    rss_mib: usage.rss_mib,
                    anonymous_mib: usage.anonymous_mib,
                    disk_mib: disk_usage(&data) as f64 / (1 << 20) as f64,
                });
                std::thread::sleep(SAMPLE_INTERVAL);
            }
            samples
        });
        Watch { ends, thread }
    }

    /// Ends, and gives all samples.
    pub fn end(self) -> Vec<Sample> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("looking does not panic")
    }
}

/// The largest value of all samples.
pub fn peak(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    samples.iter().map(of).fold(0.0, f64::max)
}

/// Bytes that the blocks of all files below a folder take. Files that vanish meanwhile count nothing.
fn disk_usage(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_usage(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}
