//! Prometheus shows this machine's metrics as an agent sent them by remote write, and they agree
//! with node_exporter, scraped by the same Prometheus at the same time, and with `/proc`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value as Json;

use crate::delivery::letters;
use crate::harness::lasting::Row;
use crate::harness::peers::{Peer, peer};
use crate::harness::prometheus::{NodeExporter, Prometheus};
use crate::harness::relay::{Gauge, gauges};
use crate::harness::tap::Tap;
use crate::harness::victoria_metrics::{SILENT_CUTS, VictoriaMetrics};
use crate::harness::weir::{Agent, assert_calm};
use crate::harness::{seconds, wait_for};

/// How far two readings of one thing may lie apart, because they are not of the same moment.
#[derive(Clone, Copy)]
struct Apart {
    absolute: f64,
    relative: f64,
}

const SAME: Apart = Apart { absolute: 0.0, relative: 0.0 };
const MEBIBYTE: f64 = 1_048_576.0;

/// What is compared: a title, Weir's metric, node_exporter's, and how far they may lie apart. All
/// queries sum, so that each finds one number.
const COMPARED: &[(&str, &str, &str, Apart)] = &[
    ("memory, total", "sum(system_memory_limit_bytes)", "sum(node_memory_MemTotal_bytes)", SAME),
    (
        "memory, free",
        "sum(system_memory_usage_bytes{system_memory_state='free'})",
        "sum(node_memory_MemFree_bytes)",
        Apart { absolute: 768.0 * MEBIBYTE, relative: 0.02 },
    ),
    (
        "memory, available",
        "sum(system_memory_linux_available_bytes)",
        "sum(node_memory_MemAvailable_bytes)",
        Apart { absolute: 768.0 * MEBIBYTE, relative: 0.02 },
    ),
    ("CPUs", "sum(system_cpu_logical_count)", "count(node_cpu_seconds_total{mode='idle'})", SAME),
    (
        "CPU time, all modes",
        "sum(system_cpu_time_seconds_total)",
        "sum(node_cpu_seconds_total)",
        Apart { absolute: 6.0, relative: 0.0 },
    ),
    (
        "CPU time, idle",
        "sum(system_cpu_time_seconds_total{cpu_mode='idle'})",
        "sum(node_cpu_seconds_total{mode='idle'})",
        Apart { absolute: 6.0, relative: 0.0 },
    ),
    (
        "CPU time, user",
        "sum(system_cpu_time_seconds_total{cpu_mode='user'})",
        "sum(node_cpu_seconds_total{mode='user'})",
        Apart { absolute: 6.0, relative: 0.0 },
    ),
    (
        "CPU time, system",
        "sum(system_cpu_time_seconds_total{cpu_mode='system'})",
        "sum(node_cpu_seconds_total{mode='system'})",
        Apart { absolute: 6.0, relative: 0.0 },
    ),
    (
        "CPU time, interrupts",
        "sum(system_cpu_time_seconds_total{cpu_mode='interrupt'})",
        "sum(node_cpu_seconds_total{mode=~'irq|softirq'})",
        Apart { absolute: 6.0, relative: 0.0 },
    ),
    ("load, 1 min", "sum(system_cpu_load_average_1m)", "sum(node_load1)", Apart { absolute: 1.0, relative: 0.2 }),
    ("load, 15 min", "sum(system_cpu_load_average_15m)", "sum(node_load15)", Apart { absolute: 0.3, relative: 0.1 }),
    (
        "uptime",
        "sum(system_uptime_seconds)",
        "time() - sum(node_boot_time_seconds)",
        Apart { absolute: 6.0, relative: 0.0 },
    ),
    (
        "filesystem /, size",
        "sum(system_filesystem_limit_bytes{system_filesystem_mountpoint='/'})",
        "sum(node_filesystem_size_bytes{mountpoint='/'})",
        SAME,
    ),
    (
        "filesystem /, free",
        "sum(system_filesystem_usage_bytes{system_filesystem_mountpoint='/',system_filesystem_state='free'})",
        "sum(node_filesystem_avail_bytes{mountpoint='/'})",
        Apart { absolute: 512.0 * MEBIBYTE, relative: 0.0 },
    ),
    (
        "network, received on lo",
        "sum(system_network_io_bytes_total{network_interface_name='lo',network_io_direction='receive'})",
        "sum(node_network_receive_bytes_total{device='lo'})",
        Apart { absolute: 64.0 * MEBIBYTE, relative: 0.01 },
    ),
    (
        "network, sent, all interfaces",
        "sum(system_network_io_bytes_total{network_io_direction='transmit'})",
        "sum(node_network_transmit_bytes_total)",
        Apart { absolute: 64.0 * MEBIBYTE, relative: 0.01 },
    ),
    (
        "disks, written, those that both know",
        "sum(system_disk_io_bytes_total{disk_io_direction='write'})",
        "sum(node_disk_written_bytes_total{device!~'(loop|ram|zram|fd|sr).*'})",
        Apart { absolute: 256.0 * MEBIBYTE, relative: 0.02 },
    ),
    ("processes", "sum(system_process_count)", "sum(node_processes_pids)", Apart { absolute: 40.0, relative: 0.1 }),
    (
        "processes, created",
        "sum(system_process_created_total)",
        "sum(node_forks_total)",
        Apart { absolute: 4000.0, relative: 0.0 },
    ),
    (
        "page faults, all",
        "sum(system_paging_faults_total)",
        "sum(node_vmstat_pgfault)",
        Apart { absolute: 4e6, relative: 0.02 },
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_2_shows_the_host_by_remote_write_1_as_node_exporter_does() {
    let (Some(prometheus), Some(exporter)) = (peer(Peer::Prometheus2), peer(Peer::NodeExporter)) else { return };
    compare(&prometheus, &exporter, "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_3_shows_the_host_by_remote_write_2_as_node_exporter_does() {
    let (Some(prometheus), Some(exporter)) = (peer(Peer::Prometheus3), peer(Peer::NodeExporter)) else { return };
    compare(&prometheus, &exporter, "2").await;
}

async fn compare(prometheus: &Path, exporter: &Path, version: &str) {
    let exporter = NodeExporter::start(exporter).await;
    let configuration = format!(
        "scrape_configs:\n- job_name: beside\n  scrape_interval: 1s\n  static_configs: [{{targets: ['{}']}}]\n",
        exporter.address
    );
    let prometheus = Prometheus::start(prometheus, &configuration, &[]).await;
    let tap = Tap::start(&prometheus.address).await;
    let agent = Agent::start(
        "weir",
        &format!(
            "agent: {{interval: 1s}}\n\
             integrations:\n\
             \x20 host: {{exclude_interfaces: []}}\n\
             \x20 prometheus: {{endpoint: \"{}/api/v1/write\"}}\n",
            tap.url()
        ),
    );
    let first = wait_for("the agent's memory in prometheus", seconds(30), async || {
        prometheus.number("sum(system_memory_limit_bytes)").await
    })
    .await;
    let rows =
        wait_for("all compared metrics on both sides", seconds(30), async || read_all(&prometheus).await.ok()).await;
    let (table, wrong) = judge(&rows);
    println!("{table}");
    assert!(wrong.is_empty(), "they do not agree: {wrong:?}\n{table}");
    assert_eq!(first, mem_total_bytes(), "MemTotal in /proc/meminfo");
    assert_monotone(&prometheus).await;
    assert_version(&tap, version);
    assert_calm(&agent.process.stderr());
}

/// Both numbers of every row, or the title of one that is not there yet.
async fn read_all(prometheus: &Prometheus) -> Result<Vec<(f64, f64)>, String> {
    let mut rows = Vec::new();
    for (title, ours, theirs, _) in COMPARED {
        let pair = (prometheus.number(ours).await, prometheus.number(theirs).await);
        let (Some(ours), Some(theirs)) = pair else { return Err(format!("{title}: {pair:?}")) };
        rows.push((ours, theirs));
    }
    Ok(rows)
}

fn judge(rows: &[(f64, f64)]) -> (String, Vec<&'static str>) {
    let mut table = format!("{:<38} {:>20} {:>20}\n", "", "weir", "node_exporter");
    let mut wrong = Vec::new();
    for ((title, _, _, apart), (ours, theirs)) in COMPARED.iter().zip(rows) {
        let allowed = apart.absolute + apart.relative * theirs.abs();
        let agrees = (ours - theirs).abs() <= allowed;
        if !agrees {
            wrong.push(*title);
        }
        writeln!(table, "{title:<38} {ours:>20.3} {theirs:>20.3}").expect("a String takes everything");
    }
    (table, wrong)
}

fn mem_total_bytes() -> f64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").expect("Linux");
    let kibibytes = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    kibibytes.and_then(|number| number.parse::<f64>().ok()).expect("a number") * 1024.0
}

/// What only grows never falls, and what we cause ourselves arrives.
async fn assert_monotone(prometheus: &Prometheus) {
    let received = "sum(system_network_io_bytes_total{network_interface_name='lo',network_io_direction='receive'})";
    let before = prometheus.number(received).await.expect("it was there");
    // Our own questions go over lo, so it must grow.
    wait_for("bytes on lo grow", seconds(20), async || prometheus.number(received).await.filter(|now| *now > before))
        .await;
    for counter in ["system_network_io_bytes_total", "system_cpu_time_seconds_total", "system_disk_io_bytes_total"] {
        let falls = prometheus.query(&format!("resets({counter}[1m]) > 0")).await.expect("it answers");
        assert!(falls.is_empty(), "{counter} fell: {falls:?}");
    }
}

/// The version that was really spoken, and that both sides counted the same samples.
fn assert_version(tap: &Tap, version: &str) {
    let exchanges: Vec<_> = tap.exchanges().into_iter().filter(|exchange| exchange.status.is_success()).collect();
    assert!(!exchanges.is_empty(), "nothing was accepted");
    let last = exchanges.last().expect("not empty");
    let header =
        |name: &str| last.request.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    assert_eq!(header("content-encoding"), "snappy");
    match version {
        "1" => assert_eq!(header("x-prometheus-remote-write-version"), "0.1.0"),
        _ => {
            assert_eq!(header("x-prometheus-remote-write-version"), "2.0.0");
            assert_eq!(header("content-type"), "application/x-protobuf;proto=io.prometheus.write.v2.Request");
            let written = last.answer.get("x-prometheus-remote-write-samples-written");
            let written: u64 = written.and_then(|value| value.to_str().ok()?.parse().ok()).expect("version 2 counts");
            assert!(written > 0, "nothing was written");
        }
    }
}

/// VictoriaMetrics says of no sample that it does not take it: what it cuts, merges or drops counts as delivered. The
/// guide of the exporter says what that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victoria_metrics_gets_every_sample_and_does_not_say_what_it_cuts_or_leaves_out() {
    let Some(program) = peer(Peer::VictoriaMetrics) else { return };
    let server = VictoriaMetrics::start(&program, &["-retentionPeriod=1y"]).await;
    let agent = letters::agent(&format!("prometheus: {{endpoint: \"{}/api/v1/write\"}}\n", server.url)).await;
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).expect("after 1970") * 1_000_000;
    let (long, name) = ("v".repeat(20_000), "n".repeat(300));
    let [long, cut] = [[("a", long.as_str())], [(name.as_str(), "v")]];
    let same: Vec<String> = (0..30).map(|at| format!("a{at:02}")).collect();
    let numbers: Vec<String> = (0..3).map(|at| format!("{at}")).collect();
    let clashes: Vec<Vec<(&str, &str)>> = numbers
        .iter()
        .map(|number| same.iter().map(|key| (key.as_str(), "x")).chain([("z", number.as_str())]).collect())
        .collect();
    let day = 86_400_000_000_000;
    let mut list: Vec<Gauge<'_>> = vec![
        ("good", &[], now, 1.0),
        ("", &[], now, 1.0),
        ("long", &long, now, 1.0),
        ("cut", &cut, now, 1.0),
        ("old", &[], now - 700 * day, 1.0),
        ("early", &[], now + 5 * day, 1.0),
        ("none", &[], now, f64::NAN),
        ("odd \"name\",=é", &[("odd key", "v\n\\\"")], now, 1.0),
    ];
    list.extend(clashes.iter().map(|labels| ("clash", labels.as_slice(), now, 1.0)));
    letters::send(&agent, "metrics", &gauges(list)).await;
    let row = letters::drained(&agent, seconds(60)).await;
    assert_eq!(row, Row { accepted: 11, delivered: 10, dead_lettered: 1, ..Row::default() });
    letters::texts(&agent, "the metric has no name");

    assert_eq!(server.one("good").await["metric"]["instance"], "web-1");
    let odd = server.one("odd_name").await;
    assert_eq!(odd["metric"]["odd_key"], "v\n\\\"", "{odd}");
    // Cut or gone in silence.
    assert_eq!(server.one("long").await["metric"]["a"].as_str().map(str::len), Some(16_384));
    let cut = server.one("cut").await;
    assert_eq!(cut["metric"].as_object().expect("labels").keys().map(String::len).max(), Some(256), "{cut}");
    assert!(server.series("old|early|none").await.is_empty());
    let merged = server.one("clash").await;
    assert_eq!(merged["timestamps"].as_array().map(Vec::len), Some(3), "three series are one: {merged}");
    assert_eq!(merged["metric"]["instance"], Json::Null, "and nobody's: {merged}");
    for counter in SILENT_CUTS {
        assert!(server.counter(counter).await >= 1, "{counter}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victoria_metrics_that_takes_less_at_once_gets_the_same_in_smaller_requests() {
    let Some(program) = peer(Peer::VictoriaMetrics) else { return };
    let server = VictoriaMetrics::start(&program, &["-retentionPeriod=1y", "-maxInsertRequestSize=4096"]).await;
    let agent = letters::agent(&format!("prometheus: {{endpoint: \"{}/api/v1/write\"}}\n", server.url)).await;
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).expect("after 1970") * 1_000_000;
    let names: Vec<String> = (0..500).map(|at| format!("m{at:03}")).collect();
    let large = "v".repeat(5_000);
    let mut list: Vec<Gauge<'_>> = names.iter().map(|name| (name.as_str(), [].as_slice(), now, 1.0)).collect();
    let with_large = [("a", large.as_str())];
    list.insert(250, ("large", &with_large, now, 1.0));
    letters::send(&agent, "metrics", &gauges(list)).await;
    let row = letters::drained(&agent, seconds(60)).await;
    assert_eq!(row, Row { accepted: 501, delivered: 500, dead_lettered: 1, ..Row::default() });
    assert!(letters::texts(&agent, "maxInsertRequestSize").contains("large"));
    // What is new is found a moment after it was taken.
    wait_for("500 series", seconds(60), async || (server.series("m[0-9]+").await.len() == 500).then_some(())).await;
}
