//! A peer's process: what it used, and that it ends with the benchmark.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running peer, killed when dropped.
pub struct Peer {
    child: Child,
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system CPU, seconds.
    pub cpu_s: f64,
    /// Resident memory now, MiB.
    pub rss_mib: f64,
    /// Largest resident memory so far, MiB.
    pub peak_mib: f64,
}

impl Peer {
    /// Starts a peer; its output goes to a file beside its configuration.
    pub fn start(program: &Path, arguments: &[&str], log: &Path) -> Peer {
        let file = std::fs::File::create(log).expect("the log file of a peer can be created");
        let errors = file.try_clone().expect("a file handle can be cloned");
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Peer { child: child.unwrap_or_else(|error| panic!("{} does not start: {error}", program.display())) }
    }

    /// What it has used so far (`/proc/PID/stat` fields 14 and 15 in ticks of 10 ms, `/proc/PID/status`).
    pub fn usage(&self) -> Usage {
        let pid = self.child.id();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        let field = |n: usize| after.split_whitespace().nth(n).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let kib = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0)
        };
        Usage {
            cpu_s: (field(11) + field(12)) / 100.0,
            rss_mib: kib("VmRSS:") / 1024.0,
            peak_mib: kib("VmHWM:") / 1024.0,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// Waits until something listens.
pub fn wait_for_port(port: u16) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing listens on {address} after 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where this run keeps configurations and logs of its peers.
pub fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("weir-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder is writable");
    folder
}

/// Writes a configuration file.
pub fn write(name: &str, text: &str) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, text).expect("the temporary folder is writable");
    path
}

/// The release binary of this checkout.
pub fn weir() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    own.with_file_name("weir")
}

/// A peer's program: below WEIR_PEERS, or on the PATH. `None` is said loudly.
pub fn peer(name: &str, below_peers: &str) -> Option<PathBuf> {
    let home = std::env::var("HOME").unwrap_or_default();
    let peers = std::env::var("WEIR_PEERS").unwrap_or(format!("{home}/.cache/weir/peers"));
    let built = Path::new(&peers).join(below_peers);
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(built).chain(std::env::split_paths(&on_path).map(|folder| folder.join(name)));
    let program = found.into_iter().find(|path| path.is_file());
    if program.is_none() {
        println!("SKIPPED {name}: not found (tests/install.sh builds the peers that can be built)");
    }
    program
}

/// Commit, processor and cores, for the head of a result.
pub fn conditions() -> String {
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find(|l| l.starts_with("model name"))
        .and_then(|l| l.split(": ").nth(1))
        .unwrap_or("unknown")
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("commit {commit} · {model} · {cores} cores · Linux {}", kernel.trim())
}
