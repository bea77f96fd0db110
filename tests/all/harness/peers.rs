//! The programs that others wrote, as `tests/install.sh` leaves them. A test whose peer is missing
//! says so, is written to `TARGET/skipped-peers.txt`, and returns.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// A peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Debian's Prometheus 2, which speaks remote write 1.
    Prometheus2,
    /// Prometheus 3, which speaks remote write 2.
    Prometheus3,
    /// node_exporter.
    NodeExporter,
    /// The OpenTelemetry Collector.
    Collector,
    /// A Python with the OpenTelemetry SDK.
    PythonSdk,
    /// The right to mount, and FUSE in the kernel.
    Fuse,
}

impl Peer {
    fn name(self) -> &'static str {
        match self {
            Peer::Prometheus2 => "Prometheus 2 (prometheus)",
            Peer::Prometheus3 => "Prometheus 3 (prometheus-3)",
            Peer::NodeExporter => "node_exporter (prometheus-node-exporter)",
            Peer::Collector => "the OpenTelemetry Collector (otelcol)",
            Peer::PythonSdk => "the OpenTelemetry SDK for Python",
            Peer::Fuse => "root and /dev/fuse",
        }
    }

    fn place(self) -> Result<PathBuf, String> {
        match self {
            Peer::Prometheus2 => on_path("prometheus"),
            Peer::NodeExporter => on_path("prometheus-node-exporter"),
            Peer::Prometheus3 => built("prometheus/prometheus-3"),
            Peer::Collector => built("collector/otelcol"),
            Peer::PythonSdk => built("python/bin/python"),
            Peer::Fuse if !nix::unistd::geteuid().is_root() => Err("the tests do not run as root".to_owned()),
            Peer::Fuse => there(PathBuf::from("/dev/fuse")),
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
