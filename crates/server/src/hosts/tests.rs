//! The table, fed as the store feeds it: with numbered series and their labels.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Instant;

use weir_config::{Environment, Settings};
use weir_model::MetricDescription;
use weir_model::build::{Kind, metric};
use weir_model::metrics::Metrics;
use weir_pipeline::plan::{Input, Member, Plan};

use super::host::Published;
use super::liveness::Gap;
use super::profile::{AgentProfile, Profile};
use super::row::{HostRow, Reporter, Status};
use super::table::{Applied, HostTable, Sample, SeriesLabels};

/// Metric and labels, resource included.
type Key = (String, BTreeMap<String, String>);

/// Labels that count how often they are looked at.
#[derive(Clone, Copy)]
struct Labels<'a>(&'a Key, &'a Cell<usize>);

impl SeriesLabels for Labels<'_> {
    fn metric(&self) -> &str {
        self.1.set(self.1.get() + 1);
        &self.0.0
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.0.1.get(name).map(String::as_str)
    }
}

/// A sample by its series' number.
#[derive(Clone, Copy)]
struct Numbered {
    series: u32,
    time_ms: i64,
    value: f64,
}

/// Numbers series as the store does, and feeds a table.
#[derive(Default)]
struct Store {
    table: HostTable,
    series: Vec<Key>,
    asked: Cell<usize>,
}

impl Store {
    fn number(&mut self, key: Key) -> u32 {
        let at = self.series.iter().position(|known| *known == key).unwrap_or_else(|| {
            self.series.push(key);
            self.series.len() - 1
        });
        at as u32
    }

    fn commit(&mut self, samples: Vec<Numbered>, arrived_ms: Option<i64>) -> Applied {
        let samples = samples.into_iter().map(|Numbered { series, time_ms, value }| Sample {
            series,
            labels: Labels(&self.series[series as usize], &self.asked),
            time_ms,
            value,
        });
        self.table.apply(samples, arrived_ms)
    }

    /// One sample of one series of one host, that arrives when it is measured.
    fn one(&mut self, host: &str, metric: &str, labels: &[(&str, &str)], time_ms: i64, value: f64) -> Applied {
        let sample = self.sample(host, metric, labels, time_ms, value);
        self.commit(vec![sample], Some(time_ms))
    }

    fn sample(&mut self, host: &str, metric: &str, labels: &[(&str, &str)], time_ms: i64, value: f64) -> Numbered {
        let mut all: BTreeMap<String, String> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        all.insert("host.name".to_owned(), host.to_owned());
        let series = self.number((metric.to_owned(), all));
        Numbered { series, time_ms, value }
    }

    /// A batch as the pipeline delivers it.
    fn metrics(&mut self, metrics: &Metrics) -> Applied {
        let table = &metrics.table;
        let text = |at| table.common.text(at).to_owned();
        let mut newest = 0;
        let mut samples = Vec::new();
        for point in metrics.numbers.iter() {
            let of = table.metric_of(point.series).unwrap();
            let scope = table.common.scopes[of.scope as usize];
            let resource = table.common.resources[scope.resource as usize].attributes;
            let own = table.series[point.series as usize].attributes;
            let labels = [resource, own].into_iter().flat_map(|range| table.common.list(range));
            let labels = labels.map(|a| (text(a.key), table.common.value_text(a.value))).collect();
            let time_ms = (point.time_unix_nano / 1_000_000) as i64;
            newest = newest.max(time_ms);
            let series = self.number((text(of.name), labels));
            samples.push(Numbered { series, time_ms, value: point.value.as_f64().unwrap() });
        }
        self.commit(samples, Some(newest))
    }

    fn row(&self, host: &str, now_ms: i64) -> HostRow {
        self.published(host, now_ms).row.clone()
    }

    fn published(&self, host: &str, now_ms: i64) -> std::sync::Arc<Published> {
        self.table.row(host, now_ms).unwrap()
    }
}

fn about(value: Option<f64>, wanted: f64) -> bool {
    value.is_some_and(|value| (value - wanted).abs() < 1e-9)
}

/// The collectors of this machine, opened as the agent opens them.
pub(crate) fn collectors(text: &str) -> Vec<Member> {
    let (settings, problems) = Settings::inspect("test.yaml", text, &Environment);
    let kinds: Vec<_> = weir_system::ALL.to_vec();
    let resource = vec![("host.name".to_owned(), "this".to_owned())];
    let input = Input {
        file: "test.yaml",
        settings: &settings,
        problems,
        kinds: &kinds,
        planned: &[],
        added: &[],
        resource,
        data_folder: std::env::temp_dir().into(),
        control: Default::default(),
    };
    Plan::new(input).unwrap().members
}

#[tokio::test]
async fn a_row_shows_what_the_collectors_of_this_machine_measure() {
    let mut store = Store::default();
    let mut members = collectors("integrations: {host: {interval: 1s}, console: {enabled: false}}\n");
    let start_ms = 1_700_000_000_000_u64;
    for poll in 0..3_u64 {
        // The collector needs time to pass, or there is no CPU use to tell.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        for member in &mut members {
            let Member::Collect { collector, builder, .. } = member else { continue };
            builder.begin((start_ms + poll * 1000) * 1_000_000, 0);
            collector.collect(builder).await.ok();
            store.metrics(&builder.finish());
        }
    }
    let now = (start_ms + 2500) as i64;
    let row = store.row("this", now);
    assert_eq!(row.status, Status::Up);
    assert_eq!(row.interval_seconds, Some(1.0));
    let cpus = std::thread::available_parallelism().unwrap().get() as f64;
    assert!(row.cpu_count.is_some_and(|count| count >= cpus), "{row:?}");
    assert!(row.cpu.is_some_and(|cpu| (0.0..=1.0).contains(&cpu)), "{row:?}");
    assert!(row.memory.is_some_and(|memory| memory > 0.0 && memory < 1.0), "{row:?}");
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total_kib: f64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(row.memory_total_bytes, Some(total_kib * 1024.0));
    assert!(row.load1.is_some() && row.load15.is_some() && row.uptime_seconds.is_some_and(|uptime| uptime > 0.0));
    assert!(row.process_count.is_some_and(|count| count > 0.0));
    assert!(row.sparkline.iter().flatten().count() >= 1);
    if let Some(mount) = &row.disk_mount {
        assert!(
            row.disk.is_some_and(|disk| (0.0..=1.0).contains(&disk)) && row.disk_total_bytes > Some(0.0),
            "{mount}"
        );
    }
    assert_eq!(store.asked.get(), store.series.len(), "labels are read once a series");
}

#[test]
fn a_row_shows_what_a_client_of_agentops_sends() {
    let mut store = Store::default();
    for (name, labels, value) in [
        ("system.cpu.utilization", &[][..], 0.452),
        ("system.memory.utilization", &[("system.memory.state", "used")], 0.678),
        ("system.memory.limit", &[], 16384.0 * 1_048_576.0),
        ("system.filesystem.utilization", &[("system.filesystem.mountpoint", "/")], 0.34),
        ("system.filesystem.limit", &[("system.filesystem.mountpoint", "/")], 500e9),
        ("network.latency", &[], 0.0125),
        ("network.throughput", &[], 125.5e6),
        ("system.process.count", &[], 156.0),
    ] {
        store.one("web-1", name, labels, 60_000, value);
    }
    let row = store.row("web-1", 61_000);
    assert_eq!((row.cpu, row.memory, row.disk), (Some(0.452), Some(0.678), Some(0.34)));
    assert_eq!(row.disk_mount.as_deref(), Some("/"));
    assert_eq!((row.memory_total_bytes, row.disk_total_bytes), (Some(17_179_869_184.0), Some(500e9)));
    assert_eq!((row.network_bits_per_second, row.process_count), (Some(125.5e6), Some(156.0)));
    assert_eq!(row.network_receive_bytes_per_second, None, "what nobody sent is absent, not 0");
    assert_eq!(store.published("web-1", 61_000).latency_seconds, Some(0.0125));
    assert!((row.sparkline[59].unwrap() - 0.452).abs() < 1e-3);
}

/// What hostmetricsreceiver 0.149 sends by default: no utilization, older attribute names.
fn collector_poll(store: &mut Store, time_ms: i64, seconds: f64) {
    let mut send = |metric: &str, labels: &[(&str, &str)], value: f64| {
        store.one("otel", metric, labels, time_ms, value);
    };
    for cpu in ["cpu0", "cpu1"] {
        // 25 % user, 5 % system, 60 % idle, 10 % wait.
        for (state, share) in [("user", 0.25), ("system", 0.05), ("idle", 0.6), ("wait", 0.1)] {
            send("system.cpu.time", &[("cpu", cpu), ("state", state)], 1000.0 + seconds * share);
        }
    }
    for (state, bytes) in [("used", 3e9), ("free", 1e9), ("cached", 3e9), ("buffered", 1e9), ("slab_reclaimable", 5e8)]
    {
        send("system.memory.usage", &[("state", state)], bytes);
    }
    for (mount, used, free, reserved) in [("/", 30e9, 60e9, 10e9), ("/data", 95e9, 5e9, 0.0)] {
        let labels = |state| {
            [("device", "/dev/sda1"), ("mode", "rw"), ("mountpoint", mount), ("type", "ext4"), ("state", state)]
        };
        send("system.filesystem.usage", &labels("used"), used);
        send("system.filesystem.usage", &labels("free"), free);
        send("system.filesystem.usage", &labels("reserved"), reserved);
    }
    for (device, rate) in [("eth0", 1000.0), ("eth1", 500.0), ("lo", 9e9)] {
        send("system.network.io", &[("device", device), ("direction", "receive")], seconds * rate);
        send("system.network.io", &[("device", device), ("direction", "transmit")], seconds * rate * 2.0);
    }
    send("system.cpu.load_average.1m", &[], 0.5);
    for (status, count) in [("running", 3.0), ("sleeping", 97.0)] {
        send("system.processes.count", &[("status", status)], count);
    }
}

#[test]
fn a_row_shows_what_the_opentelemetry_collector_sends() {
    let mut store = Store::default();
    for poll in 0..4 {
        collector_poll(&mut store, poll * 10_000, poll as f64 * 10.0);
    }
    let row = store.row("otel", 30_000);
    assert!(about(row.cpu, 0.3), "{:?}", row.cpu);
    assert_eq!(row.cpu_count, Some(2.0));
    assert!(about(row.memory, 3.0 / 8.0), "{:?}", row.memory);
    assert_eq!(row.memory_total_bytes, Some(8e9));
    assert!(about(row.disk, 30.0 / 90.0), "{:?}", row.disk);
    assert_eq!((row.disk_mount.as_deref(), row.disk_total_bytes), (Some("/"), Some(100e9)));
    assert!(about(row.network_receive_bytes_per_second, 1500.0));
    assert!(about(row.network_transmit_bytes_per_second, 3000.0));
    assert_eq!((row.process_count, row.load1, row.load5), (Some(100.0), Some(0.5), None));
    assert_eq!((row.status, row.interval_seconds), (Status::Up, Some(10.0)));
}

#[test]
fn without_a_root_filesystem_the_fullest_one_is_shown() {
    let mut store = Store::default();
    for (mount, used) in [("/a", 0.2), ("/b", 0.9), ("/c", 0.5)] {
        store.one("h", "system.filesystem.utilization", &[("system.filesystem.mountpoint", mount)], 1000, used);
    }
    let row = store.row("h", 1000);
    assert_eq!((row.disk, row.disk_mount.as_deref()), (Some(0.9), Some("/b")));
}

#[test]
fn a_counter_that_is_reset_makes_no_negative_rate_and_no_spike() {
    let mut store = Store::default();
    let labels = [("network.interface.name", "eth0"), ("network.io.direction", "receive")];
    for (time, value, wanted) in
        [(0, 5000.0, None), (10_000, 6000.0, Some(100.0)), (20_000, 300.0, Some(30.0)), (30_000, 1300.0, Some(100.0))]
    {
        store.one("h", "system.network.io", &labels, time, value);
        assert_eq!(store.row("h", time).network_receive_bytes_per_second, wanted, "at {time}");
    }
}

#[test]
fn old_samples_do_not_make_a_row_jump_back() {
    let mut store = Store::default();
    let now = 10_000_000;
    for back in [20_000, 10_000, 0] {
        store.one("h", "system.cpu.utilization", &[], now - back, 0.5);
    }
    let before = store.row("h", now);
    // Out of order by one poll, then a back-filled hour that arrives now.
    let late = store.sample("h", "system.cpu.utilization", &[], now - 15_000, 0.9);
    store.commit(vec![late], Some(now));
    let old = (1..=60).map(|minute| store.sample("h", "system.cpu.utilization", &[], now - minute * 60_000, 0.1));
    let old = old.collect();
    assert!(store.commit(old, Some(now)).gaps.is_empty());
    let after = store.row("h", now);
    assert_eq!(after.cpu, Some(0.5));
    assert_eq!((after.status, after.last_seen_ms, after.interval_seconds), (Status::Up, Some(now), Some(10.0)));
    assert_eq!(before.status_since_ms, after.status_since_ms);
}

#[test]
fn samples_of_one_commit_count_in_the_order_of_their_times() {
    let mut store = Store::default();
    let labels = [("network.interface.name", "eth0"), ("network.io.direction", "receive")];
    let samples = [(30_000, 3000.0), (10_000, 1000.0), (20_000, 2000.0)];
    let samples = samples.map(|(time, value)| store.sample("h", "system.network.io", &labels, time, value));
    store.commit(samples.to_vec(), Some(30_000));
    assert_eq!(store.row("h", 30_000).network_receive_bytes_per_second, Some(100.0));
}

#[test]
fn a_series_that_ends_leaves_the_row() {
    let mut store = Store::default();
    let mount = |mount| [("system.filesystem.mountpoint", mount)];
    for poll in 0..3 {
        let time = poll * 10_000;
        store.one("h", "system.filesystem.utilization", &mount("/a"), time, 0.5);
        store.one("h", "system.filesystem.utilization", &mount("/b"), time, 0.9);
    }
    assert_eq!(store.row("h", 20_000).disk_mount.as_deref(), Some("/b"));
    store.one("h", "system.filesystem.utilization", &mount("/b"), 30_000, f64::NAN);
    assert_eq!(store.row("h", 30_000).disk_mount.as_deref(), Some("/a"), "a staleness marker ends it at once");
    for poll in 3..12 {
        store.one("h", "system.cpu.utilization", &[], poll * 10_000, 0.1);
    }
    assert_eq!(store.row("h", 110_000).disk, None, "without a marker it ends a minute after its last sample");
}

#[test]
fn a_gap_is_told_once() {
    let mut store = Store::default();
    let mut gaps = Vec::new();
    for time in [0, 10_000, 20_000, 30_000, 130_000, 140_000, 150_000] {
        gaps.extend(store.one("h", "system.cpu.utilization", &[], time, 0.5).gaps);
    }
    assert_eq!(gaps, [("h".to_owned(), Gap { from_ms: 30_000, to_ms: 130_000 })]);
    assert_eq!(store.row("h", 150_000).status_since_ms, Some(130_000));
}

#[test]
fn samples_that_are_read_again_change_nothing_and_tell_no_gap() {
    let mut store = Store::default();
    let times = [0, 10_000, 20_000];
    let samples: Vec<Numbered> =
        times.iter().map(|time| store.sample("h", "system.cpu.utilization", &[], *time, 0.5)).collect();
    store.commit(samples.clone(), None);
    let before = store.row("h", 21_000);
    assert!(store.commit(samples, None).gaps.is_empty());
    assert_eq!(store.row("h", 21_000), before);
}

#[test]
fn only_rows_that_changed_are_told_and_time_changes_rows_too() {
    let mut store = Store::default();
    for host in ["a", "b", "c"] {
        for time in [0, 10_000, 20_000] {
            store.one(host, "system.cpu.utilization", &[], time, 0.5);
        }
    }
    let names = |changes: &super::table::Changes| -> Vec<String> {
        changes.rows.iter().map(|row| row.row.name.clone()).collect()
    };
    let first = store.table.changes_since(0, 20_000);
    assert_eq!(names(&first), ["a", "b", "c"]);
    let none = store.table.changes_since(first.version, 21_000);
    assert!(none.rows.is_empty() && none.version == first.version);
    store.one("b", "system.cpu.utilization", &[], 30_000, 0.6);
    let second = store.table.changes_since(first.version, 30_000);
    assert_eq!(names(&second), ["b"]);
    assert_eq!(second.rows[0].data_version, second.rows[0].version);
    let third = store.table.changes_since(second.version, 45_001);
    assert_eq!(names(&third), ["a", "c"], "they are late now");
    assert!(third.rows.iter().all(|row| row.row.status == Status::Late && row.data_version < row.version));
    assert_eq!(names(&store.table.changes_since(first.version, 45_001)), ["a", "b", "c"], "who slept gets all at once");
}

#[test]
fn a_forgotten_host_is_told_and_new_data_makes_it_new() {
    let mut store = Store::default();
    store.one("a", "system.cpu.utilization", &[], 0, 0.5);
    store.table.set_profile("a", Profile { id: "1".into(), ..Profile::default() }, AgentProfile::default());
    let version = store.table.changes_since(0, 0).version;
    store.table.forget("a");
    let changes = store.table.changes_since(version, 0);
    assert_eq!((changes.removed.as_slice(), changes.rows.len(), changes.lost), (&["a".to_owned()][..], 0, false));
    let applied = store.one("a", "system.cpu.utilization", &[], 10_000, 0.7);
    assert_eq!(applied.unknown, ["a"], "its record is gone, so it needs a new one");
    let again = store.table.changes_since(changes.version, 10_000);
    assert_eq!((again.rows.len(), again.removed.len()), (1, 0));
    assert_eq!(again.rows[0].row.cpu, Some(0.7));
}

#[test]
fn who_missed_more_removals_than_are_remembered_begins_anew() {
    let table = HostTable::default();
    table.set_profile("first", Profile::default(), AgentProfile::default());
    let version = table.changes_since(0, 0).version;
    for number in 0..5000 {
        let name = format!("h{number}");
        table.set_profile(&name, Profile::default(), AgentProfile::default());
        table.forget(&name);
    }
    let changes = table.changes_since(version, 0);
    assert!(changes.lost);
    assert!(!table.changes_since(changes.version, 0).lost);
}

#[test]
fn the_metadata_of_a_host_is_shown_before_and_after_its_first_data() {
    let mut store = Store::default();
    let profile = Profile { id: "7".into(), kind: Reporter::Weir, tags: vec!["web".into()], ..Profile::default() };
    let agent = AgentProfile { interval_ms: Some(15_000), ..AgentProfile::default() };
    store.table.set_profile("h", profile.clone(), agent.clone());
    let row = store.row("h", 0);
    assert_eq!(
        (row.status, row.id.as_str(), row.kind, row.interval_seconds),
        (Status::Unknown, "7", Reporter::Weir, Some(15.0))
    );
    let applied = store.one("h", "system.cpu.utilization", &[], 1000, 0.5);
    assert!(applied.unknown.is_empty());
    let version = store.table.changes_since(0, 1000).version;
    store.table.set_profile("h", profile.clone(), agent);
    assert_eq!(store.table.changes_since(version, 1000).version, version, "the same metadata changes nothing");
    store.table.set_profile("h", profile, AgentProfile::default());
    assert_eq!(store.row("h", 1000).interval_seconds, None, "what a deleted agent said is gone");
}

#[test]
fn series_of_no_host_and_unusable_names_make_no_row() {
    let mut store = Store::default();
    let series = store.number(("x".into(), BTreeMap::new()));
    store.commit(vec![Numbered { series, time_ms: 0, value: 1.0 }], Some(0));
    store.one("", "x", &[], 0, 1.0);
    let applied = store.one(&"n".repeat(300), "x", &[], 0, 1.0);
    assert_eq!((store.table.len(), applied.refused), (0, 1));
}

#[test]
fn what_weir_says_of_itself_makes_no_row_and_counts_for_one() {
    let mut store = Store::default();
    store.one("h", "weir.process.memory", &[], 1_000, 1.0);
    assert!(store.table.is_empty());
    store.one("h", "up", &[], 2_000, 1.0);
    store.one("h", "weir.process.memory", &[], 3_000, 1.0);
    assert_eq!(store.row("h", 3_000).last_seen_ms, Some(3_000));
}

#[test]
fn any_series_of_a_host_shows_that_it_lives() {
    let mut store = Store::default();
    for time in [0, 10_000, 20_000] {
        store.one("h", "custom.queue", &[], time, 1.0);
    }
    let row = store.row("h", 30_000);
    assert_eq!((row.status, row.interval_seconds, row.cpu), (Status::Up, Some(10.0), None));
}

#[test]
fn series_that_come_and_go_neither_grow_a_host_without_end_nor_mix_up() {
    let mut store = Store::default();
    for number in 0..3000_i64 {
        let mount = format!("/m{number}");
        let label = [("system.filesystem.mountpoint", mount.as_str())];
        store.one("h", "system.filesystem.utilization", &label, number * 60_000, 0.5);
    }
    let now = 3000 * 60_000;
    store.one("h", "system.filesystem.utilization", &[("system.filesystem.mountpoint", "/m0")], now, 0.9);
    let row = store.row("h", now);
    assert_eq!((row.disk, row.disk_mount.as_deref()), (Some(0.9), Some("/m0")), "the returned one is read anew");
}

type OwnLabels = Vec<(String, String)>;

/// The series of one host as Weir's agent sends them.
fn fleet_series() -> Vec<(MetricDescription<'static>, OwnLabels)> {
    let mut series = Vec::new();
    for mode in ["user", "system", "nice", "idle", "iowait", "interrupt", "steal"] {
        series.push((metric("system.cpu.utilization", "1", Kind::Gauge, ""), vec![("cpu.mode".into(), mode.into())]));
        for cpu in 0..4 {
            let labels = vec![("cpu.mode".into(), mode.into()), ("cpu.logical_number".into(), cpu.to_string())];
            series.push((metric("system.cpu.time", "s", Kind::Counter, ""), labels));
        }
    }
    let used = vec![("system.memory.state".to_owned(), "used".to_owned())];
    series.push((metric("system.memory.utilization", "1", Kind::Gauge, ""), used));
    series.push((metric("system.memory.limit", "By", Kind::UpDownCounter, ""), Vec::new()));
    let root = vec![("system.filesystem.mountpoint".to_owned(), "/".to_owned())];
    series.push((metric("system.filesystem.utilization", "1", Kind::Gauge, ""), root.clone()));
    series.push((metric("system.filesystem.limit", "By", Kind::UpDownCounter, ""), root));
    for direction in ["receive", "transmit"] {
        let labels = vec![
            ("network.interface.name".to_owned(), "eth0".to_owned()),
            ("network.io.direction".to_owned(), direction.to_owned()),
        ];
        series.push((metric("system.network.io", "By", Kind::Counter, ""), labels));
    }
    for other in 0..40 {
        let labels = vec![("n".to_owned(), other.to_string())];
        series.push((metric("system.disk.operations", "1", Kind::Counter, ""), labels));
    }
    series
}

/// Run with `cargo test --release -p weir-server -- --ignored --nocapture two_thousand`.
#[test]
#[ignore = "measures, and prints what it measured"]
fn two_thousand_hosts_cost() {
    let mut keys: Vec<Key> = Vec::new();
    let mut by_host = Vec::new();
    for host in 0..2000 {
        let series = fleet_series();
        let start = keys.len();
        for (description, labels) in series {
            let mut labels: BTreeMap<String, String> = labels.into_iter().collect();
            labels.insert("host.name".into(), format!("host-{host:04}"));
            keys.push((description.name.to_owned(), labels));
        }
        by_host.push(start..keys.len());
    }
    let table = HostTable::default();
    let looks = Cell::new(0);
    let commit = |hosts: std::ops::Range<usize>, time_ms: i64| {
        let series = hosts.flat_map(|host| by_host[host].clone());
        let value = time_ms as f64 / 7.0 % 0.9;
        let labels = |series: usize| Labels(&keys[series], &looks);
        let samples = series.map(|series| Sample { series: series as u32, labels: labels(series), time_ms, value });
        table.apply(samples, Some(time_ms))
    };
    let begin = Instant::now();
    commit(0..2000, 0);
    println!("first commit, {} series: {:?}", keys.len(), begin.elapsed());
    let mut version = table.changes_since(0, 0).version;
    let begin = Instant::now();
    for second in 1..=60_i64 {
        // Every host every 10 s: 200 hosts a second.
        let from = (second as usize * 200) % 2000;
        commit(from..from + 200, second * 1000);
        let changes = table.changes_since(version, second * 1000);
        version = changes.version;
        assert!(changes.rows.len() >= 200);
    }
    println!("2,000 hosts every 10 s and one dashboard: {:?} a second", begin.elapsed() / 60);
    let begin = Instant::now();
    for second in 0..100 {
        std::hint::black_box(table.changes_since(version, 61_000 + second).rows.len());
    }
    println!("idle, one dashboard: {:?} a look", begin.elapsed() / 100);
    let begin = Instant::now();
    let body: String = table.rows(61_000).iter().map(|row| row.json.as_str()).collect::<Vec<_>>().join(",");
    println!("GET /api/v1/hosts: {:?}, {} bytes", begin.elapsed(), body.len());
    commit(0..2000, 70_000);
    let begin = Instant::now();
    let rows = table.rows(70_000).len();
    println!("GET /api/v1/hosts after all {rows} changed: {:?}", begin.elapsed());
}
