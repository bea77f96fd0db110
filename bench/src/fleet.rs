//! A fleet of simulated agents that post host metrics every 10 s to one server on one core: what
//! the server uses, how long ingestion and the Hosts page take, and what a series costs in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use weir_model::build::{Kind, MetricDescription, metric};
use weir_model::{MetricsBuilder, Records, otlp};
use weir_net::{Client, HttpOptions};

use crate::process::{Peer, conditions, folder, free_port, wait_for_port, weir};

const INTERVAL: Duration = Duration::from_secs(10);

/// What the agents log in with.
const KEY: &str = "bench-admin-key-0123456789abcdef";

const CPU_TIME: MetricDescription<'static> = metric("system.cpu.time", "s", Kind::Counter, "");
const CPU: MetricDescription<'static> = metric("system.cpu.utilization", "1", Kind::Gauge, "");
const MEMORY: MetricDescription<'static> = metric("system.memory.usage", "By", Kind::UpDownCounter, "");
const MEMORY_PART: MetricDescription<'static> = metric("system.memory.utilization", "1", Kind::Gauge, "");
const MEMORY_LIMIT: MetricDescription<'static> = metric("system.memory.limit", "By", Kind::UpDownCounter, "");
const DISK_IO: MetricDescription<'static> = metric("system.disk.io", "By", Kind::Counter, "");
const DISK_OPERATIONS: MetricDescription<'static> = metric("system.disk.operations", "{operation}", Kind::Counter, "");
const FILESYSTEM: MetricDescription<'static> = metric("system.filesystem.usage", "By", Kind::UpDownCounter, "");
const FILESYSTEM_PART: MetricDescription<'static> = metric("system.filesystem.utilization", "1", Kind::Gauge, "");
const NETWORK: MetricDescription<'static> = metric("system.network.io", "By", Kind::Counter, "");
const PACKETS: MetricDescription<'static> = metric("system.network.packet.count", "{packet}", Kind::Counter, "");
const LOAD: MetricDescription<'static> = metric("system.linux.cpu.load_1m", "{run}", Kind::Gauge, "");
const UPTIME: MetricDescription<'static> = metric("system.uptime", "s", Kind::Gauge, "");
const PROCESSES: MetricDescription<'static> = metric("system.process.count", "{process}", Kind::UpDownCounter, "");
const PROCESS_CPU: MetricDescription<'static> = metric("process.cpu.utilization", "1", Kind::Gauge, "");
const PROCESS_MEMORY: MetricDescription<'static> = metric("process.memory.usage", "By", Kind::UpDownCounter, "");

const MODES: [&str; 8] = ["user", "system", "nice", "idle", "iowait", "interrupt", "softirq", "steal"];
const STATES: [&str; 5] = ["used", "free", "buffers", "cached", "slab"];

/// One simulated machine: 8 CPUs, 2 disks, 2 filesystems, 2 interfaces, 10 processes.
struct Agent {
    builder: MetricsBuilder,
    random: u64,
    rounds: u64,
}

impl Agent {
    fn new(number: u64) -> Agent {
        let resource = vec![("host.name".to_owned(), format!("fleet-{number:04}"))];
        Agent { builder: MetricsBuilder::new("host", resource), random: number * 7919 + 1, rounds: 0 }
    }

    /// A fraction that jumps as real ones do (xorshift64).
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % 10_000) as f64 / 10_000.0
    }

    fn poll(&mut self) -> (Bytes, u64) {
        self.rounds += 1;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.builder.begin(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), 1);
        let rounds = self.rounds as f64;
        for cpu in ["0", "1", "2", "3", "4", "5", "6", "7"] {
            for mode in MODES {
                let labels = [("cpu.logical_number", cpu), ("cpu.mode", mode)];
                let part = self.fraction() / 8.0;
                self.builder.record(&CPU_TIME, &labels, rounds * 1.25 + part);
                self.builder.record(&CPU, &labels, part);
            }
        }
        for state in STATES {
            let part = self.fraction() / 5.0;
            let labels = [("system.memory.state", state)];
            self.builder.record(&MEMORY, &labels, (part * 6.4e10).round());
            self.builder.record(&MEMORY_PART, &labels, part);
        }
        self.builder.record(&MEMORY_LIMIT, &[], 6.4e10);
        for device in ["nvme0n1", "nvme1n1"] {
            for direction in ["read", "write"] {
                let labels = [("system.device", device), ("disk.io.direction", direction)];
                let amount = (rounds * 1e6 + self.fraction() * 1e6).round();
                self.builder.record(&DISK_IO, &labels, amount);
                self.builder.record(&DISK_OPERATIONS, &labels, (amount / 4096.0).round());
            }
        }
        for mount in ["/", "/data"] {
            let labels = [("system.filesystem.mountpoint", mount), ("system.filesystem.state", "used")];
            let part = 0.4 + self.fraction() / 100.0;
            self.builder.record(&FILESYSTEM, &labels, (part * 5e11).round());
            self.builder.record(&FILESYSTEM_PART, &[("system.filesystem.mountpoint", mount)], part);
        }
        for interface in ["eth0", "eth1"] {
            for direction in ["receive", "transmit"] {
                let labels = [("network.interface.name", interface), ("network.io.direction", direction)];
                let amount = (rounds * 5e6 + self.fraction() * 1e6).round();
                self.builder.record(&NETWORK, &labels, amount);
                self.builder.record(&PACKETS, &labels, (amount / 900.0).round());
            }
        }
        let load = self.fraction() * 8.0;
        self.builder.record(&LOAD, &[], load);
        self.builder.record(&UPTIME, &[], rounds * 10.0);
        self.builder.record(&PROCESSES, &[], 180.0);
        for pid in ["101", "102", "103", "104", "105", "106", "107", "108", "109", "110"] {
            let labels = [("process.pid", pid), ("process.executable.name", "worker")];
            let part = self.fraction() / 10.0;
            self.builder.record(&PROCESS_CPU, &labels, part);
            self.builder.record(&PROCESS_MEMORY, &labels, (part * 1e9).round());
        }
        let points = self.builder.len() as u64;
        (otlp::encode_protobuf(&Records::Metrics(self.builder.finish())), points)
    }
}

#[derive(Default)]
struct Seen {
    ingest: Mutex<Vec<Duration>>,
    hosts: Mutex<Vec<Duration>>,
    points: AtomicU64,
    failed: AtomicU64,
}

/// Lets `agents` post for `seconds` after one round of warm-up.
pub fn run(agents: u64, seconds: u64) {
    println!("{}", conditions());
    let (port, data) = (free_port(), folder().join("fleet-data"));
    // The server has one core, the agents have the other one.
    let server = Peer::start(
        std::path::Path::new("taskset"),
        &[
            "--cpu-list",
            "0",
            "env",
            &format!("WEIR_ADMIN_KEY={KEY}"),
            &weir().display().to_string(),
            "server",
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--data",
            &data.display().to_string(),
        ],
        &folder().join("fleet.log"),
    );
    wait_for_port(port);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let seen = Arc::new(Seen::default());
    let client = Client::new(&HttpOptions::default()).expect("a client without files");
    let base = format!("http://127.0.0.1:{port}");
    let (before, after, began) = runtime.block_on(async {
        for number in 0..agents {
            tokio::spawn(post(number, agents, client.clone(), base.clone(), seen.clone()));
        }
        tokio::spawn(look(client.clone(), base.clone(), seen.clone()));
        tokio::time::sleep(INTERVAL * 2).await;
        seen.ingest.lock().expect("nobody panics").clear();
        seen.hosts.lock().expect("nobody panics").clear();
        let (before, began) = (server.usage(), Instant::now());
        let points = seen.points.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        (before, (server.usage(), seen.points.load(Ordering::Relaxed) - points), began.elapsed().as_secs_f64())
    });
    let (after, points) = after;
    let status = runtime.block_on(get(&client, &format!("{base}/api/v1/status"))).expect("the server answers");
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    let series = status["store"]["series"].as_f64().unwrap_or_default();
    let memory = status["store"]["memory_bytes"].as_f64().unwrap_or_default();
    println!(
        "{agents} agents, one request each every {} s, {seconds} s after {} s of warm-up; every request answered after its fsync",
        INTERVAL.as_secs(),
        2 * INTERVAL.as_secs()
    );
    println!("requests that failed: {}", seen.failed.load(Ordering::Relaxed));
    println!("| what | figure |\n|---|---|");
    println!("| points per second | {:.0} |", points as f64 / began);
    println!("| CPU, % of one core | {:.1} |", 100.0 * (after.cpu_s - before.cpu_s) / began);
    println!("| RSS, MiB (peak) | {:.1} ({:.1}) |", after.rss_mib, after.peak_mib);
    println!("| series | {series} |");
    println!(
        "| store, bytes per series with {} samples each | {:.0} |",
        seconds / INTERVAL.as_secs() + 2,
        memory / series.max(1.0)
    );
    println!("| whole process, bytes per series | {:.0} |", after.rss_mib * 1024.0 * 1024.0 / series.max(1.0));
    percentiles("ingest", &seen.ingest);
    percentiles("GET /api/v1/hosts", &seen.hosts);
}

fn percentiles(what: &str, durations: &Mutex<Vec<Duration>>) {
    let mut all = durations.lock().expect("nobody panics").clone();
    all.sort();
    let at = |part: f64| {
        let index = ((all.len() as f64 * part) as usize).min(all.len().saturating_sub(1));
        all.get(index).map_or(0.0, |duration| duration.as_secs_f64() * 1000.0)
    };
    println!("| {what}: p50, p99, max of {}, ms | {:.1}, {:.1}, {:.1} |", all.len(), at(0.5), at(0.99), at(1.0));
}

async fn post(number: u64, agents: u64, client: Client, base: String, seen: Arc<Seen>) {
    // Spread over the interval, as agents that were started at different times are.
    tokio::time::sleep(INTERVAL.mul_f64(number as f64 / agents as f64)).await;
    let mut agent = Agent::new(number);
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tick.tick().await;
        let (body, points) = agent.poll();
        let request = http::Request::post(format!("{base}/v1/metrics"))
            .header("content-type", "application/x-protobuf")
            .header("authorization", format!("Bearer {KEY}"))
            .body(body)
            .expect("a valid request");
        let begun = Instant::now();
        match client.send(request, 1 << 20).await {
            Ok(answer) if answer.status == 200 => {
                seen.ingest.lock().expect("nobody panics").push(begun.elapsed());
                seen.points.fetch_add(points, Ordering::Relaxed);
            }
            _ => {
                seen.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Somebody who looks at the Hosts page all the time.
async fn look(client: Client, base: String, seen: Arc<Seen>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let begun = Instant::now();
        if get(&client, &format!("{base}/api/v1/hosts")).await.is_some() {
            seen.hosts.lock().expect("nobody panics").push(begun.elapsed());
        } else {
            seen.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn get(client: &Client, url: &str) -> Option<Bytes> {
    let request = http::Request::get(url).header("authorization", format!("Bearer {KEY}")).body(Bytes::new()).ok()?;
    let answer = client.send(request, 64 << 20).await.ok()?;
    (answer.status == 200).then_some(answer.body)
}
