//! The process collector on a captured machine and on the one that runs the tests.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use weir_model::metrics::Metrics;
use weir_pipeline::FaultKind;

use super::*;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_795_270_000 * SECOND;
const BOOT: u64 = 1_795_262_083 * SECOND;

fn captured() -> Config {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/machine");
    Config { root_path: root.to_str().unwrap().to_owned(), ..Config::default() }
}

fn processes(config: Config) -> Result<Processes, Fault> {
    let context = Context {
        data_folder: std::env::temp_dir().into(),
        name: "process".into(),
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(15),
        resource: vec![("host.name".into(), "a".into())],
        telemetry: std::sync::Arc::default(),
    };
    Processes::new(config, &context)
}

/// What is recorded, by `pid metric label=value`; a point without a process has no pid. Values and starts.
type Found = BTreeMap<String, (f64, u64)>;

fn found(metrics: &Metrics) -> Found {
    let table = &metrics.table;
    let common = &table.common;
    let mut found = Found::new();
    for point in metrics.numbers.iter() {
        let metric = table.metric_of(point.series).unwrap();
        let resource = common.scopes[metric.scope as usize].resource;
        let of_resource = common.resources[resource as usize].attributes;
        let mut key = common.find(of_resource, "process.pid").map(|v| common.value_text(v)).unwrap_or_default();
        key = format!("{key} {}", common.text(metric.name));
        for attribute in common.list(table.series[point.series as usize].attributes) {
            key += &format!(" {}={}", common.text(attribute.key), common.value_text(attribute.value));
        }
        let value = (point.value.as_f64().unwrap(), point.start_time_unix_nano);
        assert_eq!(found.insert(key.clone(), value), None, "{key} is there twice");
    }
    found
}

fn pids(found: &Found) -> Vec<u32> {
    let mut pids: Vec<u32> = found.keys().filter_map(|key| key.split(' ').next()?.parse().ok()).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

async fn poll(processes: &mut Processes, out: &mut MetricsBuilder, now: u64) -> Metrics {
    out.begin(now, NOW);
    processes.collect(out).await.unwrap();
    out.finish()
}

fn builder() -> MetricsBuilder {
    MetricsBuilder::new("process", vec![("host.name".into(), "a".into())])
}

fn resource(metrics: &Metrics, pid: &str, key: &str) -> Option<String> {
    let common = &metrics.table.common;
    let of_process = |r: &&weir_model::Resource| {
        common.find(r.attributes, "process.pid").is_some_and(|value| common.value_text(value) == pid)
    };
    let resource = common.resources.iter().find(of_process)?;
    common.find(resource.attributes, key).map(|value| common.value_text(value))
}

#[tokio::test]
async fn the_first_poll_ranks_by_cpu_since_start_and_by_memory() {
    let mut one = processes(Config { top: 1, ..captured() }).unwrap();
    let metrics = poll(&mut one, &mut builder(), NOW).await;
    // 42 used most CPU time, 1 has most memory.
    assert_eq!(pids(&found(&metrics)), [1, 42]);
}

#[tokio::test]
async fn values_of_a_process_have_the_documented_units_and_start() {
    let mut all = processes(captured()).unwrap();
    let metrics = poll(&mut all, &mut builder(), NOW).await;
    let found = found(&metrics);
    assert_eq!(pids(&found), [1, 42, 77, 78], "a kernel thread without memory and CPU time is none of the top");
    let hz = ticks_per_second() as u64;
    let start = BOOT + 10_077 * SECOND / hz;
    assert_eq!(found["77 process.cpu.time cpu.mode=user"], (50.0 / hz as f64, start));
    assert_eq!(found["77 process.disk.io disk.io.direction=write"], (8192.0, start));
    assert_eq!(found["77 process.paging.faults system.paging.fault.type=major"], (30.0, start));
    assert_eq!(found["77 process.context_switches process.context_switch.type=voluntary"], (377.0, start));
    assert_eq!(found["77 process.memory.virtual"], (800_000.0, 0));
    assert_eq!(found["77 process.memory.usage"].0 % 200.0, 0.0);
    assert!(found.contains_key("77 process.unix.file_descriptor.count"));
    assert!(!found.contains_key("42 process.disk.io disk.io.direction=read"), "no right, no point");
    assert!(!found.keys().any(|key| key.contains("utilization")), "it needs two polls");

    assert_eq!(resource(&metrics, "77", "process.executable.name").as_deref(), Some("nginx"));
    assert_eq!(resource(&metrics, "77", "process.owner").as_deref(), Some("www-data"));
    assert_eq!(resource(&metrics, "42", "process.executable.name").as_deref(), Some("a) R 1 (b (c)"));
    assert_eq!(resource(&metrics, "42", "process.owner").as_deref(), Some("1000"), "a user without a name");
    assert_eq!(resource(&metrics, "77", "process.command_line"), None, "secrets stay here unless asked for");
    assert_eq!(resource(&metrics, "77", "host.name").as_deref(), Some("a"));
}

#[tokio::test]
async fn patterns_count_and_report_whatever_their_rank() {
    let names = ["ngin*", "postgres", "kworker*"].map(str::to_owned).to_vec();
    let mut named = processes(Config { top: 0, names, command_line: true, ..captured() }).unwrap();
    let metrics = poll(&mut named, &mut builder(), NOW).await;
    let found = found(&metrics);
    let count = |pattern: &str| found[&format!(" process.matched.count process.matched.pattern={pattern}")].0;
    assert_eq!((count("ngin*"), count("postgres"), count("kworker*")), (2.0, 0.0, 1.0));
    assert_eq!(pids(&found), [77, 78, 900]);
    let line = resource(&metrics, "77", "process.command_line");
    assert_eq!(line.as_deref(), Some("nginx: worker process --token=secret"));
}

#[tokio::test]
async fn the_limit_bounds_what_patterns_match_but_not_the_count() {
    let mut bounded = processes(Config { names: vec!["*".to_owned()], limit: 2, ..captured() }).unwrap();
    let found = found(&poll(&mut bounded, &mut builder(), NOW).await);
    assert_eq!(pids(&found).len(), 2);
    assert_eq!(found[" process.matched.count process.matched.pattern=*"].0, 5.0);
}

/// A process that this test started and ends.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn this_machine_shows_a_busy_process_and_forgets_it_when_it_ends() {
    // A loop of the shell's own, so that it runs in this one process.
    let child = Child(std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap());
    let pid = child.0.id();
    let own = std::process::id();
    let mut all = processes(Config { top: 1000, limit: 5000, ..Config::default() }).unwrap();
    assert!(all.watching().watched[0].ends_with("processes"));
    let mut out = builder();
    poll(&mut all, &mut out, NOW).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = found(&poll(&mut all, &mut out, NOW + SECOND).await);
    let cpus = online(&std::fs::read("/proc/stat").unwrap()) as f64;
    let used = |mode| second[&format!("{pid} process.cpu.utilization cpu.mode={mode}")].0 * cpus;
    let used = used("user") + used("system");
    assert!((0.05..=1.1).contains(&used), "one thread that runs all the time used {used} of a CPU");
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as f64;
    let counted = second[&format!("{own} process.unix.file_descriptor.count")].0;
    assert!((counted - open).abs() <= 8.0, "{counted} {open}: other tests open files too");
    let listed: std::collections::BTreeSet<_> = METRICS.iter().map(|m| m.name).collect();
    let recorded: std::collections::BTreeSet<_> = second.keys().filter_map(|k| k.split(' ').nth(1)).collect();
    let missing: Vec<_> = listed.difference(&recorded).collect();
    assert_eq!(missing, [&"process.matched.count"], "that one needs a pattern");
    assert!(recorded.is_subset(&listed));

    drop(child);
    let third = found(&poll(&mut all, &mut out, NOW + 2 * SECOND).await);
    assert!(!pids(&third).contains(&pid));
    assert!(!all.known.contains_key(&pid));
}

#[test]
fn a_number_that_is_used_again_is_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("proc/7");
    std::fs::create_dir_all(&own).unwrap();
    let stat = |start: u64, ticks: u64| {
        let line = format!("7 (x) S 1 7 7 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {start} 10 20 0");
        std::fs::write(own.join("stat"), line).unwrap();
    };
    let config = Config { root_path: folder.path().to_str().unwrap().to_owned(), ..Config::default() };
    let mut processes = processes(config).unwrap();
    stat(100, 500);
    assert_eq!(processes.meet(7, &mut []).unwrap().recent, None);
    stat(100, 530);
    assert_eq!(processes.meet(7, &mut []).unwrap().recent, Some((30, 0)));
    stat(900, 40);
    let reused = processes.meet(7, &mut []).unwrap();
    assert_eq!((reused.recent, reused.rank_ticks), (None, 40));
    std::fs::remove_file(own.join("stat")).unwrap();
    assert!(processes.meet(7, &mut []).is_none(), "gone between listing and reading");
}

#[tokio::test]
async fn configurations_that_report_nothing_and_wrong_roots_are_refused() {
    let refused = |config| processes(config).err().unwrap().message;
    assert!(refused(Config { limit: 0, ..Config::default() }).contains("`limit`"));
    assert!(refused(Config { top: 0, ..Config::default() }).contains("`names`"));
    let mut nowhere = processes(Config { root_path: "/nothing/here".to_owned(), ..Config::default() }).unwrap();
    assert_eq!(nowhere.watching().not_watched[0].0, "processes");
    let mut out = builder();
    out.begin(NOW, NOW);
    let fault = nowhere.collect(&mut out).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::NotFound);
    assert!(fault.message.contains("/nothing/here/proc"), "{}", fault.message);
}

#[test]
fn the_own_sample_is_understood() {
    let document = weir_config::Document::parse("sample", ABOUT.sample, &weir_config::Environment).unwrap();
    let config: Config = weir_config::read("sample", document.get("process").unwrap(), "process").unwrap();
    assert_eq!((config.top, config.names.len(), config.limit), (5, 2, 100));
}

#[tokio::test]
#[ignore = "a measurement: cargo test --release -p weir-system --lib -- --ignored --nocapture cost"]
async fn cost_of_a_poll_of_this_machine() {
    let mut all = processes(Config::default()).unwrap();
    println!("{:?}", all.watching());
    let mut out = builder();
    poll(&mut all, &mut out, NOW).await;
    let begun = std::time::Instant::now();
    for at in 1..=200 {
        poll(&mut all, &mut out, NOW + at * SECOND).await;
    }
    println!("one poll of processes: {:?}", begun.elapsed() / 200);
}
