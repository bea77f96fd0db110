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
    /// Resident memory now that is no file's, MiB: without mapped databases and programs.
    pub anonymous_mib: f64,
    /// What it had written to disks so far, MiB.
    pub written_mib: f64,
}

impl Peer {
    /// Starts a peer; its output goes to a file beside its configuration.
    pub fn start(program: &Path, arguments: &[&str], log: &Path) -> Peer {
        let file = std::fs::File::create(log).expect("the log file of a peer can be created");
        let errors = file.try_clone().expect("a file handle can be cloned");
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Peer { child: child.unwrap_or_else(|error| panic!("{} does not start: {error}", program.display())) }
    }

    /// What it and the processes below it have used so far.
    pub fn usage(&self) -> Usage {
        usage_of(self.child.id())
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        // One that ended and is not waited for has no memory any more.
        self.usage().rss_mib > 0.0
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// What a process and those below it have used so far, ended ones included: `/proc/PID/stat` fields
/// 14 to 17 in ticks of 10 ms, `/proc/PID/status`, `/proc/PID/io`.
pub fn usage_of(pid: u32) -> Usage {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let stat = read("stat");
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks: f64 = after.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    let (status, io) = (read("status"), read("io"));
    let number = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0)
    };
    let own = Usage {
        cpu_s: ticks / 100.0,
        rss_mib: number(&status, "VmRSS:") / 1024.0,
        peak_mib: number(&status, "VmHWM:") / 1024.0,
        anonymous_mib: number(&status, "RssAnon:") / 1024.0,
        written_mib: number(&io, "write_bytes:") / 1024.0 / 1024.0,
    };
    children_of(pid).into_iter().map(usage_of).fold(own, |sum, below| Usage {
        cpu_s: sum.cpu_s + below.cpu_s,
        rss_mib: sum.rss_mib + below.rss_mib,
        peak_mib: sum.peak_mib + below.peak_mib,
        anonymous_mib: sum.anonymous_mib + below.anonymous_mib,
        written_mib: sum.written_mib + below.written_mib,
    })
}

fn children_of(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
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
    assert!(listens(port, || true), "nothing listens on port {port} after 30 s");
}

/// Waits at most 30 s, while `runs`, until something listens, and says whether it does.
pub fn listens(port: u16, runs: impl Fn() -> bool) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) && runs() {
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// How busy a core was since the start of the machine, seconds, whoever used it: also the kernel's
/// threads that write for a process (`/proc/stat`: user, nice, system, irq, softirq).
pub fn core_busy_s(core: &str) -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu")?.strip_prefix(core)?.strip_prefix(' '));
    let ticks: Vec<f64> = line.unwrap_or_default().split(' ').filter_map(|field| field.parse().ok()).collect();
    [0, 1, 2, 5, 6].iter().filter_map(|at| ticks.get(*at)).sum::<f64>() / 100.0
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
    let commit =
        Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]).output();
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
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("commit {commit} · {model} · {cores} cores · Linux {} · load before {load}", kernel.trim())
}

/// The filesystem and the disk of a folder, for the head of a result that depends on them.
pub fn disk_of(folder: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let [device, at, kind, options, ..] = fields[..] else { return None };
        folder.starts_with(at).then_some((at.len(), device, kind, options))
    });
    let Some((_, device, kind, options)) = mount.max_by_key(|(length, ..)| *length) else { return "unknown".into() };
    let name = device.trim_start_matches("/dev/").trim_end_matches(|c: char| c.is_ascii_digit());
    let queue = |file: &str| std::fs::read_to_string(format!("/sys/block/{name}/queue/{file}")).unwrap_or_default();
    format!("{kind} ({options}) on {device}, write cache: {}", queue("write_cache").trim())
}
