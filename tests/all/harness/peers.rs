//! The programs that others wrote, as `tests/install.sh` leaves them. A test whose peer is missing
//! says so, is written to `TARGET/skipped-peers.txt`, and returns.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Debian's Prometheus 2, which speaks remote write 1.
    Prometheus2,
    /// Prometheus 3, which speaks remote write 2.
    Prometheus3,
    /// node_exporter.
    NodeExporter,
    /// Alertmanager.
    Alertmanager,
    /// The OpenTelemetry Collector.
    Collector,
    /// A Python with the OpenTelemetry SDK.
    PythonSdk,
    /// A Python with `requests` and `psutil`, which the seeds' clients import.
    PythonClients,
    /// Schemathesis, which tries what an OpenAPI document promises.
    Schemathesis,
    /// Chromium, Node.js to steer it, and the packages of `tests/browser`.
    Browser,
    /// curl.
    Curl,
    /// logrotate.
    Logrotate,
    /// InfluxDB 1, which answers partial writes as such.
    InfluxDb,
    /// VictoriaMetrics, which takes both write APIs of InfluxDB.
    VictoriaMetrics,
    /// The folder with the classes and libraries of an OpenSearch node.
    OpenSearch,
    /// The folder with the classes and libraries of a Kafka broker.
    Kafka,
    /// PostgreSQL's `initdb` and `postgres`, and a user to run them.
    PostgreSql,
    /// The right to mount, and FUSE in the kernel.
    Fuse,
    /// The right to mount.
    Mount,
    /// The right to make a second machine of namespaces, and the tools for it.
    SecondMachine,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Peer::Prometheus2 => "Prometheus 2 (prometheus)",
            Peer::Prometheus3 => "Prometheus 3 (prometheus-3)",
            Peer::NodeExporter => "node_exporter (prometheus-node-exporter)",
            Peer::Alertmanager => "Alertmanager (prometheus-alertmanager)",
            Peer::Collector => "the OpenTelemetry Collector (otelcol)",
            Peer::PythonSdk => "the OpenTelemetry SDK for Python",
            Peer::PythonClients => "requests and psutil for Python",
            Peer::Schemathesis => "schemathesis",
            Peer::Browser => "Chromium and Node.js with the packages of tests/browser",
            Peer::Curl => "curl",
            Peer::Logrotate => "logrotate",
            Peer::InfluxDb => "InfluxDB 1 (influxdb)",
            Peer::VictoriaMetrics => "VictoriaMetrics (victoria-metrics)",
            Peer::OpenSearch => "OpenSearch with Java",
            Peer::Kafka => "Kafka with Java",
            Peer::PostgreSql => "PostgreSQL (postgresql)",
            Peer::Fuse => "root and /dev/fuse",
            Peer::Mount => "root, who may mount",
            Peer::SecondMachine => "root, who may make network namespaces, with unshare, nsenter, ip and curl",
        }
    }

    fn place(self) -> Result<PathBuf, String> {
        match self {
            Peer::Prometheus2 => on_path("prometheus"),
            Peer::NodeExporter => on_path("prometheus-node-exporter"),
            Peer::Alertmanager => on_path("prometheus-alertmanager"),
            Peer::Prometheus3 => built("prometheus/prometheus-3"),
            Peer::Collector => built("collector/otelcol"),
            Peer::PythonSdk => built("python/bin/python"),
            // Installed together with the packages, which are then there too.
            Peer::PythonClients => built("python/bin/schemathesis").and_then(|_| built("python/bin/python")),
            Peer::Schemathesis => built("python/bin/schemathesis"),
            Peer::Browser => on_path("chromium").and_then(|_| browser_packages()).and_then(|_| on_path("node")),
            Peer::Curl => on_path("curl"),
            Peer::Logrotate => on_path("logrotate").or_else(|_| there(PathBuf::from("/usr/sbin/logrotate"))),
            Peer::InfluxDb => on_path("influxd"),
            Peer::VictoriaMetrics => on_path("victoria-metrics"),
            Peer::OpenSearch => {
                on_path("java").and_then(|_| built("opensearch/installed")).and_then(|_| built("opensearch"))
            }
            Peer::Kafka => on_path("java").and_then(|_| built("kafka/installed")).and_then(|_| built("kafka")),
            Peer::PostgreSql => super::postgres::programs(),
            Peer::Fuse if !nix::unistd::geteuid().is_root() => Err("the tests do not run as root".to_owned()),
            Peer::Fuse => there(PathBuf::from("/dev/fuse")),
            Peer::Mount => tried(&["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]),
            Peer::SecondMachine => {
                for program in ["nsenter", "ip", "curl"] {
                    on_path(program)?;
                }
                // As the tests do it, but where it vanishes at once.
                tried(&[
                    "--net",
                    "--uts",
                    "--mount",
                    "--pid",
                    "--mount-proc",
                    "--fork",
                    "ip",
                    "link",
                    "add",
                    "type",
                    "veth",
                ])
            }
        }
    }
}

fn there(path: PathBuf) -> Result<PathBuf, String> {
    match std::fs::metadata(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn on_path(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| format!("{name} is not on PATH"))
}

/// Whether `unshare` may do this.
fn tried(arguments: &[&str]) -> Result<PathBuf, String> {
    let program = on_path("unshare")?;
    let output = Command::new(&program).args(arguments).output().map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() {
        return Ok(program);
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("`unshare {}` failed: {}", arguments.join(" "), why.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn browser_packages() -> Result<PathBuf, String> {
    there(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/browser/node_modules/playwright-core")))
}

fn built(place: &str) -> Result<PathBuf, String> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let peers = folder("WEIR_PEERS")
        .or_else(|| Some(folder("WEIR_CACHE")?.join("peers")))
        .or_else(|| Some(folder("HOME")?.join(".cache/weir/peers")));
    there(peers.ok_or("HOME is not set")?.join(place))
}

/// The program of a peer; `None` after saying that this test is skipped.
pub fn peer(peer: Peer) -> Option<PathBuf> {
    let why = match peer.place() {
        Ok(path) => return Some(path),
        Err(why) => why,
    };
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    eprintln!("SKIPPED: {test} needs {}: {why}; tests/install.sh installs it", peer.name());
    let file = super::weir::target_folder().join("skipped-peers.txt");
    let line = format!("{test}\t{}\t{why}\n", peer.name());
    let written =
        OpenOptions::new().create(true).append(true).open(&file).and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("a skipped test must be counted: {}: {error}", file.display()));
    None
}
