//! The host collector as a whole, on a captured machine and on the one that runs the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;

use tempfile::TempDir;
use weir_model::metrics::Metrics;

use super::filesystem::{Space, ask_kernel};
use super::*;

const SECOND: u64 = 1_000_000_000;

/// The time of polls of the captured machine: after its start.
const NOW: u64 = 1_795_270_000 * SECOND;
const BOOT: u64 = 1_795_262_083 * SECOND;

/// A copy of the captured machine that a test may change.
struct Machine(TempDir);

impl Machine {
    fn new() -> Machine {
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/machine"), folder.path());
        Machine(folder)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn change(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        assert!(text.contains(from), "{file} has no {from:?}");
        fs::write(self.path(file), text.replace(from, to)).unwrap();
    }

    fn config(&self) -> Config {
        Config { root_path: self.0.path().to_str().unwrap().to_owned(), ..Config::default() }
    }

    fn host(&self) -> Host {
        self.host_with(&self.config())
    }

    fn host_with(&self, config: &Config) -> Host {
        Host::with(config, &context(), Arc::new(|_: &Path| Ok(SPACE))).unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

const SPACE: Space =
    Space { block_bytes: 4096, blocks: 1000, blocks_free: 400, blocks_available: 300, inodes: 100, inodes_free: 90 };

fn context() -> Context {
    Context {
        data_folder: std::env::temp_dir().into(),
        name: "host".into(),
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(15),
        resource: Vec::new(),
        telemetry: Arc::default(),
    }
}

/// A point: metric, attributes as `key=value`, value, start.
type Point = (String, BTreeSet<String>, f64, u64);

fn points(metrics: &Metrics) -> Vec<Point> {
    let table = &metrics.table;
    let of = |point: weir_model::metrics::NumberPoint| {
        let metric = table.metric_of(point.series).unwrap();
        let attributes = table.common.list(table.series[point.series as usize].attributes);
        let attributes = attributes
            .iter()
            .map(|a| format!("{}={}", table.common.arena.text(a.key), table.common.value_text(a.value)))
            .collect();
        let value = point.value.as_f64().unwrap();
        (table.common.text(metric.name).to_owned(), attributes, value, point.start_time_unix_nano)
    };
    metrics.numbers.iter().map(of).collect()
}

/// Polls; answers the points and the fault.
async fn poll(host: &mut Host, out: &mut MetricsBuilder, now: u64) -> (Vec<Point>, Option<Fault>) {
    out.begin(now, NOW);
    let fault = host.collect(out).await.err();
    (points(&out.finish()), fault)
}

fn builder() -> MetricsBuilder {
    MetricsBuilder::new("host", Vec::new())
}

/// The only value of a metric that has all these attributes.
fn value(points: &[Point], metric: &str, attributes: &[&str]) -> Option<f64> {
    let fits = |p: &&Point| p.0 == metric && attributes.iter().all(|a| p.1.contains(*a));
    let found: Vec<_> = points.iter().filter(fits).collect();
    assert!(found.len() < 2, "{metric} {attributes:?} is there {} times", found.len());
    found.first().map(|point| point.2)
}

#[tokio::test]
async fn every_metric_of_the_list_comes_from_the_captured_machine_and_no_other() {
    let machine = Machine::new();
    let (release, hang) = channel::<()>();
    let hang = std::sync::Mutex::new(hang);
    let mut config = machine.config();
    // A mount of another type that may hang, so that `hung` is there too.
    let line = "50 27 0:50 / /mnt/dead rw - fuse.sshfs host:/ rw\n";
    let mounts = fs::read_to_string(machine.path("proc/1/mountinfo")).unwrap() + line;
    fs::write(machine.path("proc/1/mountinfo"), mounts).unwrap();
    config.connection_states = true;
    let ask: AskSpace = Arc::new(move |path: &Path| {
        if path.ends_with("mnt/dead") {
            let _ = hang.lock().unwrap().recv();
        }
        Ok(SPACE)
    });
    let short = Context { timeout: Duration::from_millis(200), ..context() };
    let mut host = Host::with(&config, &short, ask).unwrap();
    let mut out = builder();
    let (first, _) = poll(&mut host, &mut out, NOW).await;
    machine.change("proc/stat", "cpu  76609 152514 33535 608546", "cpu  76709 152514 33585 608846");
    let (second, fault) = poll(&mut host, &mut out, NOW + 15 * SECOND).await;
    drop(release);
    assert!(fault.unwrap().message.contains("/mnt/dead"));

    let names = |points: &[Point]| points.iter().map(|p| p.0.clone()).collect::<BTreeSet<_>>();
    let listed: BTreeSet<_> = METRICS.iter().map(|m| m.name.to_owned()).collect();
    assert_eq!(names(&second), listed);
    let mut missing_at_first: Vec<_> = listed.difference(&names(&first)).cloned().collect();
    missing_at_first.sort();
    assert_eq!(missing_at_first, ["system.cpu.utilization"], "the second poll adds only what needs two");
    assert!(first.iter().all(|p| p.2.is_finite() && p.3 <= NOW));
}

#[tokio::test]
async fn values_of_the_captured_machine_have_the_documented_units() {
    let machine = Machine::new();
    let mut host = machine.host();
    let (found, fault) = poll(&mut host, &mut builder(), NOW).await;
    assert_eq!(fault, None);
    let get = |metric: &str, attributes: &[&str]| value(&found, metric, attributes);

    assert_eq!(get("system.cpu.time", &["cpu.mode=user", "cpu.logical_number=0"]), Some(350.66));
    assert_eq!(get("system.cpu.logical.count", &[]), Some(2.0));
    assert_eq!(get("system.cpu.physical.count", &[]), Some(2.0));
    assert_eq!(get("system.memory.limit", &[]), Some(24_684_084.0 * 1024.0));
    assert_eq!(get("system.paging.usage", &["system.paging.state=used"]), Some((2_097_148.0 - 1_572_861.0) * 1024.0));
    assert_eq!(get("system.paging.operations", &["system.paging.direction=out"]), Some(345.0));
    assert_eq!(get("system.disk.io", &["system.device=sda", "disk.io.direction=read"]), Some(56.0 * 512.0));
    assert_eq!(get("system.disk.io_time", &["system.device=sda"]), Some(4_294_967.0));
    assert_eq!(get("system.process.count", &[]), Some(5.0));
    assert_eq!(get("hw.network.bandwidth.limit", &[]), Some(125e6), "1000 Mbit/s; -1 of eth0 is no speed");
    assert_eq!(get("hw.network.up", &["hw.id=eth0"]), Some(1.0));
    assert_eq!(get("hw.temperature", &["hw.id=coretemp/coretemp.0/temp1"]), Some(45.5));
    assert_eq!(get("hw.temperature", &["hw.id=coretemp/coretemp.0/temp2"]), Some(-2.5));
    assert_eq!(get("hw.temperature", &["hw.id=coretemp/coretemp.0/temp3"]), None, "a sensor without a reading");

    let root = "system.filesystem.mountpoint=/";
    assert_eq!(get("system.filesystem.usage", &[root, "system.filesystem.state=used"]), Some(600.0 * 4096.0));
    assert_eq!(get("system.filesystem.usage", &[root, "system.filesystem.state=reserved"]), Some(100.0 * 4096.0));
    assert_eq!(get("system.filesystem.utilization", &[root]), Some(600.0 / 900.0));
    let share = "system.filesystem.mountpoint=/mnt/my share";
    assert_eq!(get("system.filesystem.limit", &[share, "system.filesystem.type=nfs4"]), Some(1000.0 * 4096.0));

    let labels = |key: &str| {
        let values = found.iter().flat_map(|p| &p.1).filter_map(|a| a.strip_prefix(key)).collect::<BTreeSet<_>>();
        values.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(labels("network.interface.name="), ["eth0", "eth1"]);
    assert_eq!(labels("system.filesystem.mountpoint="), ["/", "/mnt/my share"]);
    let disks: BTreeSet<_> = found.iter().filter(|p| p.0 == "system.disk.io").flat_map(|p| &p.1).collect();
    assert!(disks.contains(&"system.device=vda".to_owned()) && !disks.contains(&"system.device=vda1".to_owned()));
}

#[tokio::test]
async fn counters_start_at_boot_and_after_a_reset_at_the_poll_before_it() {
    let machine = Machine::new();
    let mut host = machine.host();
    let mut out = builder();
    let starts = |found: &[Point], metric: &str, attribute: &str| {
        let of = found.iter().filter(|p| p.0 == metric && p.1.contains(attribute));
        of.map(|p| p.3).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let (first, _) = poll(&mut host, &mut out, NOW).await;
    assert_eq!(starts(&first, "system.network.io", "network.interface.name=eth1"), [BOOT]);
    assert_eq!(starts(&first, "system.disk.io_time", "system.device=sda"), [BOOT]);
    assert!(first.iter().filter(|p| p.0 == "system.memory.usage").all(|p| p.3 == 0), "values of now have no start");

    // eth1 is taken out and put in again; the busy time of sda wraps; btime moves with the clock.
    machine.change("proc/1/net/dev", "eth1: 1000 10 1 2 0 0 0 0 2000 20", "eth1: 7 1 0 0 0 0 0 0 9 1");
    machine.change("proc/diskstats", "sda 7 1 56 4294967290 9 2 72 40 0 4294967000", "sda 8 1 64 10 9 2 72 40 0 500");
    machine.change("proc/stat", "btime 1795262083", "btime 1795262084");
    let (second, _) = poll(&mut host, &mut out, NOW + 15 * SECOND).await;
    assert_eq!(starts(&second, "system.network.io", "network.interface.name=eth1"), [NOW]);
    assert_eq!(starts(&second, "system.network.io", "network.interface.name=eth0"), [BOOT]);
    assert_eq!(starts(&second, "system.disk.io_time", "system.device=sda"), [BOOT]);
    assert_eq!(value(&second, "system.disk.io_time", &["system.device=sda"]), Some(4_294_967.796));
    let reading = ["system.device=sda", "disk.io.direction=read"];
    assert_eq!(value(&second, "system.disk.operation_time", &reading), Some(4_294_967.306));
}

#[tokio::test]
async fn a_clock_that_was_set_back_before_boot_makes_no_invalid_start() {
    let machine = Machine::new();
    let (found, _) = poll(&mut machine.host(), &mut builder(), BOOT - SECOND).await;
    assert!(found.iter().all(|p| p.3 == 0));
}

#[tokio::test]
async fn a_cpu_that_is_unplugged_is_absent_and_comes_back() {
    let machine = Machine::new();
    let mut host = machine.host();
    let mut out = builder();
    let second_core = ["cpu.mode=user", "cpu.logical_number=1"];
    let whole = fs::read_to_string(machine.path("proc/stat")).unwrap();
    poll(&mut host, &mut out, NOW).await;
    let unplugged: String = whole.lines().filter(|l| !l.starts_with("cpu1 ")).map(|l| format!("{l}\n")).collect();
    fs::write(machine.path("proc/stat"), &unplugged).unwrap();
    fs::remove_dir_all(machine.path("sys/devices/system/cpu/cpu1/topology")).unwrap();
    let (found, fault) = poll(&mut host, &mut out, NOW + SECOND).await;
    assert_eq!(fault, None);
    assert_eq!(value(&found, "system.cpu.time", &second_core), None);
    assert_eq!(value(&found, "system.cpu.logical.count", &[]), Some(1.0));
    assert_eq!(value(&found, "system.cpu.physical.count", &[]), Some(1.0));
    fs::write(machine.path("proc/stat"), &whole).unwrap();
    let (found, _) = poll(&mut host, &mut out, NOW + 2 * SECOND).await;
    assert_eq!(value(&found, "system.cpu.time", &second_core), Some(415.42));
}

#[tokio::test]
async fn a_hung_mount_is_named_at_once_and_delays_only_the_first_poll() {
    let machine = Machine::new();
    let (release, hang) = channel::<()>();
    let hang = std::sync::Mutex::new(hang);
    let ask: AskSpace = Arc::new(move |path: &Path| {
        if path.ends_with("my share") {
            let _ = hang.lock().unwrap().recv();
        }
        Ok(SPACE)
    });
    let patient = Context { timeout: Duration::from_secs(2), ..context() };
    let mut host = Host::with(&machine.config(), &patient, ask).unwrap();
    let mut out = builder();
    let share = "system.filesystem.mountpoint=/mnt/my share";

    let begun = Instant::now();
    let (found, fault) = poll(&mut host, &mut out, NOW).await;
    assert!(begun.elapsed() >= Duration::from_millis(500), "a quarter of the timeout");
    let fault = fault.unwrap();
    assert_eq!(fault.kind, FaultKind::TimedOut);
    let expected = "mount /mnt/my share (nfs4) does not answer statvfs since 0 s; everything else was collected";
    assert_eq!(fault.message, expected);
    assert_eq!(value(&found, "system.filesystem.hung", &[share]), Some(1.0));
    assert_eq!(value(&found, "system.filesystem.limit", &[share]), None);
    assert!(value(&found, "system.filesystem.limit", &["system.filesystem.mountpoint=/"]).is_some());
    assert!(value(&found, "system.memory.limit", &[]).is_some());

    let begun = Instant::now();
    let (found, fault) = poll(&mut host, &mut out, NOW + SECOND).await;
    assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(value(&found, "system.filesystem.hung", &[share]), Some(1.0));
    assert!(fault.is_some());

    drop(release);
    let mut now = NOW + SECOND;
    loop {
        now += SECOND;
        let (found, fault) = poll(&mut host, &mut out, now).await;
        if fault.is_none() {
            assert_eq!(value(&found, "system.filesystem.hung", &[share]), None);
            assert!(value(&found, "system.filesystem.limit", &[share]).is_some(), "it is asked again");
            break;
        }
        assert!(now < NOW + 1000 * SECOND, "it never comes back");
    }
}

#[tokio::test]
async fn mounts_of_others_are_no_fault_and_broken_ones_are() {
    let machine = Machine::new();
    let ask: AskSpace = Arc::new(|path: &Path| {
        let code = if path.ends_with("my share") { nix::errno::Errno::ESTALE } else { nix::errno::Errno::EACCES };
        Err(std::io::Error::from(code))
    });
    let mut host = Host::with(&machine.config(), &context(), ask).unwrap();
    let (_, fault) = poll(&mut host, &mut builder(), NOW).await;
    let message = fault.unwrap().message;
    assert!(message.contains("mount /mnt/my share (nfs4)") && message.contains("exclude_mounts"), "{message}");
    assert!(!message.contains("mount / "), "{message}");
}

#[tokio::test]
async fn what_is_missing_from_the_start_is_not_watched_and_what_breaks_later_is_a_fault() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.path("proc/pressure")).unwrap();
    fs::remove_dir_all(machine.path("sys/class/hwmon")).unwrap();
    let mut host = machine.host();
    let watching = host.watching();
    assert_eq!(watching.watched[0], "2 CPUs");
    assert!(watching.watched.contains(&"2 disks".to_owned()), "{:?}", watching.watched);
    assert!(watching.watched.contains(&"2 filesystems".to_owned()), "{:?}", watching.watched);
    let not: Vec<_> = watching.not_watched.iter().map(|(what, _)| what.as_str()).collect();
    assert_eq!(not, ["pressure", "temperature"]);

    let mut out = builder();
    let (found, fault) = poll(&mut host, &mut out, NOW).await;
    assert_eq!(fault, None);
    assert!(!found.iter().any(|p| p.0 == "system.linux.pressure.stall_time"));

    fs::write(machine.path("proc/meminfo"), "nothing here\n").unwrap();
    let (found, fault) = poll(&mut host, &mut out, NOW + SECOND).await;
    let fault = fault.unwrap();
    assert_eq!(fault.kind, FaultKind::Decode);
    assert!(fault.message.contains("proc/meminfo is not as expected: it has no MemTotal"), "{}", fault.message);
    assert!(found.iter().any(|p| p.0 == "system.network.io"), "everything else is still collected");
}

#[tokio::test]
async fn a_wrong_root_says_so() {
    let config = Config { root_path: "/nothing/here".to_owned(), ..Config::default() };
    let mut host = Host::new(config, &context()).unwrap();
    assert!(host.watching().watched.is_empty());
    let (found, fault) = poll(&mut host, &mut builder(), NOW).await;
    assert!(found.is_empty());
    assert!(fault.unwrap().message.contains("root_path"));
    let config = Config { root_path: "host".to_owned(), ..Config::default() };
    assert!(Host::new(config, &context()).err().unwrap().message.contains("must begin with `/`"));
}

#[tokio::test]
async fn disabled_groups_and_excluded_devices_are_absent() {
    let machine = Machine::new();
    let owned = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let config = Config {
        disable: vec![Group::Cpu, Group::Filesystem, Group::Temperature],
        interfaces: owned(&["lo", "veth*"]),
        exclude_devices: Some(owned(&["sd*", "loop*"])),
        ..machine.config()
    };
    let (found, fault) = poll(&mut machine.host_with(&config), &mut builder(), NOW).await;
    assert_eq!(fault, None);
    for group in ["system.cpu.time", "system.filesystem", "hw.temperature"] {
        assert!(!found.iter().any(|p| p.0.starts_with(group)), "{group}");
    }
    assert!(value(&found, "system.process.created", &[]).is_some(), "also without the CPU group");
    let received = |name: &str| value(&found, "system.network.io", &[name, "network.io.direction=receive"]);
    assert!(received("network.interface.name=lo").is_some() && received("network.interface.name=veth1").is_some());
    assert_eq!(received("network.interface.name=eth0"), None);
    assert!(value(&found, "system.disk.io_time", &["system.device=zram0"]).is_some());
    assert_eq!(value(&found, "system.disk.io_time", &["system.device=sda"]), None);
}

#[tokio::test]
async fn this_machine_agrees_with_an_independent_reading() {
    let mut host = Host::new(Config::default(), &context()).unwrap();
    let mut out = builder();
    let now = || {
        u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()).unwrap()
    };
    // The kernel's own view, read with other means, before and after.
    let busy = || {
        let text = fs::read_to_string("/proc/stat").unwrap();
        let fields: Vec<f64> =
            text.lines().next().unwrap().split_whitespace().skip(1).map(|f| f.parse().unwrap()).collect();
        fields[..8].iter().sum::<f64>() / ticks()
    };
    let memory_total = || {
        let text = fs::read_to_string("/proc/meminfo").unwrap();
        let line = text.lines().find(|l| l.starts_with("MemTotal:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
    };
    let cpu_seconds = |found: &[Point]| found.iter().filter(|p| p.0 == "system.cpu.time").map(|p| p.2).sum::<f64>();

    let before = busy();
    let (first, fault) = poll(&mut host, &mut out, now()).await;
    let middle = busy();
    assert_eq!(fault, None);
    // Two ticks per mode and CPU between the whole and the sum of the CPUs.
    let tolerance = 0.02 * 7.0 * value(&first, "system.cpu.logical.count", &[]).unwrap();
    assert!((before - tolerance..=middle + tolerance).contains(&cpu_seconds(&first)));
    assert_eq!(value(&first, "system.memory.limit", &[]), Some(memory_total()));
    let uptime: f64 = fs::read_to_string("/proc/uptime").unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!((value(&first, "system.uptime", &[]).unwrap() - uptime).abs() < 5.0);

    tokio::time::sleep(Duration::from_millis(300)).await;
    let (second, fault) = poll(&mut host, &mut out, now()).await;
    assert_eq!(fault, None);
    assert!(cpu_seconds(&second) > cpu_seconds(&first));
    for point in &first {
        if let Some(later) = second.iter().find(|p| p.0 == point.0 && p.1 == point.1) {
            let is_counter = METRICS.iter().any(|m| m.name == point.0 && m.kind == weir_pipeline::MetricKind::Counter);
            assert!(!is_counter || later.2 >= point.2, "{point:?} fell to {}", later.2);
        }
    }
    let fractions: Vec<_> = second.iter().filter(|p| p.0 == "system.cpu.utilization").map(|p| p.2).collect();
    assert_eq!(fractions.len(), 7);
    assert!((fractions.iter().sum::<f64>() - 1.0).abs() < 1e-9);

    let space = ask_kernel(Path::new("/")).unwrap();
    if let Some(limit) = value(&second, "system.filesystem.limit", &["system.filesystem.mountpoint=/"]) {
        assert_eq!(limit, (space.blocks * space.block_bytes) as f64);
    }
}

fn ticks() -> f64 {
    cpu::ticks_per_second()
}

#[test]
fn the_own_sample_is_understood() {
    let document = weir_config::Document::parse("sample", ABOUT.sample, &weir_config::Environment).unwrap();
    let (_, own) = document.get("host").unwrap().split(&["interval"]);
    let config: Config = weir_config::read("sample", &own, "host").unwrap();
    assert_eq!(config.disable, [Group::Temperature]);
}

#[tokio::test]
#[ignore = "a measurement: cargo test --release -p weir-system --lib -- --ignored --nocapture cost"]
async fn cost_of_a_poll_of_this_machine() {
    let mut host = Host::new(Config::default(), &context()).unwrap();
    println!("{:?}", host.watching());
    let mut out = builder();
    let mut now = NOW;
    let mut measure = async |polls: u32| {
        let begun = Instant::now();
        let mut count = 0;
        for _ in 0..polls {
            now += SECOND;
            out.begin(now, NOW);
            host.collect(&mut out).await.unwrap();
            count = out.finish().len();
        }
        (begun.elapsed() / polls, count)
    };
    measure(10).await;
    let (each, count) = measure(1000).await;
    println!("one poll: {each:?}, {count} points");
    assert!(each < Duration::from_millis(3));
}
