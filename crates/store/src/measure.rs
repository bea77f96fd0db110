//! Measurements: how fast, how much memory, how long others wait.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use weir_model::build::{Kind, MetricsBuilder, metric};
use weir_model::metrics::Metrics;

use crate::segment::create_files;
use crate::tests::{NOW_MS, open_at, runtime};
use crate::*;

/// Run with `cargo test --release -p weir-store -- --ignored --nocapture measure`.
#[test]
#[ignore = "measures for about ten seconds; meaningful in a release build only"]
fn measure_append_replay_select_and_memory() {
    const SERIES: usize = 50_000;
    const ROUNDS: i64 = 120;
    let dir = TempDir::new().unwrap();
    let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS)));
    let options = Options { retention: Duration::from_hours(24), ..Options::default() };
    let resident = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    };
    let resource: Vec<(String, String)> =
        ["host.name", "host.arch", "os.type", "os.version", "service.name", "deployment.environment"]
            .map(|key| (key.to_owned(), format!("value of {key}")))
            .into();
    let mut builders: Vec<MetricsBuilder> = (0..100)
        .map(|host| {
            let mut resource = resource.clone();
            resource[0].1 = format!("web-{host}");
            MetricsBuilder::new("measure", resource)
        })
        .collect();
    // Of all threads; says more than the clock where others work too.
    let processor_seconds = || {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let ticks: Vec<f64> = stat.split_whitespace().skip(13).take(2).map(|ticks| ticks.parse().unwrap()).collect();
        (ticks[0] + ticks[1]) / 100.0
    };
    let before = resident();
    let store = open_at(dir.path(), &options, &clock, create_files());
    let (mut append, mut noise) = (Duration::ZERO, 1u64);
    for round in 0..ROUNDS {
        for builder in &mut builders {
            builder.begin(((NOW_MS - (ROUNDS - round) * 15_000) as u64) * 1_000_000, 0);
            for series in 0..SERIES / 100 {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let value = match series % 4 {
                    0 => 42.0,
                    1 => (round * 1000 + (noise >> 56) as i64) as f64,
                    2 => (noise >> 40) as f64 / 16_777_216.0,
                    _ => ((noise >> 44) * 4096) as f64,
                };
                let labels = [("device", ["sda", "sdb", "eth0", "eth1"][series % 4]), ("n", &(series / 4).to_string())];
                builder.record(&metric("system.measured", "By", Kind::Gauge, "measured"), &labels, value);
            }
            let metrics = builder.finish();
            let started = std::time::Instant::now();
            runtime.block_on(store.append(&metrics)).unwrap();
            append += started.elapsed();
        }
    }
    let stats = store.stats();
    let samples = stats.samples as f64;
    println!("append: {:.2} M samples/s, {} syncs", samples / append.as_secs_f64() / 1e6, stats.syncs);
    println!(
        "counted: {:.0} B/series, {:.2} B/sample, {} MB",
        stats.bytes_per_series(),
        stats.bytes_per_sample(),
        stats.memory_bytes >> 20
    );
    println!("resident: {} MB more than before", (resident() - before) >> 20);
    println!("log: {:.2} B/sample", stats.disk_bytes as f64 / samples);
    let started = std::time::Instant::now();
    let found = store.select(&Select::always(vec![Matcher::equal("device", "sda")])).unwrap();
    let read: usize = found.iter().map(|data| data.samples.iter().count()).sum();
    println!("select: {} series, {:.1} M samples/s", found.len(), read as f64 / started.elapsed().as_secs_f64() / 1e6);
    drop(found);
    let started = std::time::Instant::now();
    let last = store.last(&Select::always(vec![Matcher::name("system.measured")])).unwrap();
    println!("last: {} series in {:?}", last.len(), started.elapsed());
    drop(last);
    drop(store);
    let (started, used) = (std::time::Instant::now(), processor_seconds());
    let store = open_at(dir.path(), &options, &clock, create_files());
    println!("replay: {:.2} M samples/s", samples / started.elapsed().as_secs_f64() / 1e6);
    println!("replay: {:.2} M samples per processor second", samples / (processor_seconds() - used) / 1e6);
    assert_eq!((store.stats().samples, store.stats().series), (stats.samples, SERIES));
}

/// One sample of one series each, so that the series are known after the first round.
fn single(series: usize, time_ms: i64) -> Metrics {
    let mut builder = MetricsBuilder::new("measure", vec![("host.name".to_owned(), "web-1".to_owned())]);
    builder.begin((time_ms as u64) * 1_000_000, 0);
    builder.record(&metric("m", "1", Kind::Gauge, ""), &[("series", &series.to_string())], 1.0);
    builder.finish()
}

fn print_latencies(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    println!("{what}: {} times, p50 {:?}, p99 {:?}, max {:?}", latencies.len(), at(0.5), at(0.99), at(1.0));
}

/// How long a plain sync of a small write takes here: nothing that waits for the disk can be faster.
fn print_disk(folder: &Path) {
    use std::io::Write;
    let mut file = fs::File::create(folder.join("plain")).unwrap();
    let mut write = || {
        let started = Instant::now();
        file.write_all(&[7; 40]).unwrap();
        file.sync_data().unwrap();
        started.elapsed()
    };
    print_latencies("disk: write and sync", (0..300).map(|_| write()).collect());
}

/// Run with `cargo test --release -p weir-store -- --ignored --nocapture measure`.
#[test]
#[ignore = "measures for about ten seconds; meaningful in a release build only"]
fn measure_how_long_an_append_waits() {
    let dir = TempDir::new().unwrap();
    print_disk(dir.path());
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let alone: Vec<Duration> = (0..500)
        .map(|at| {
            let started = Instant::now();
            runtime.block_on(store.append(&single(0, now_ms + at))).unwrap();
            started.elapsed()
        })
        .collect();
    print_latencies("append of one sample, alone", alone);
    let before = store.stats().syncs;
    let together = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for series in 0..50 {
            let store = store.clone();
            tasks.spawn(async move {
                let mut latencies = Vec::new();
                for at in 0..100 {
                    let metrics = single(series, now_ms + at);
                    let started = Instant::now();
                    store.append(&metrics).await.unwrap();
                    latencies.push(started.elapsed());
                }
                latencies
            });
        }
        tasks.join_all().await.concat()
    });
    print_latencies("append of one sample, 50 at once", together);
    println!("syncs: {} for 5000 appends of 50 at once", store.stats().syncs - before);

    // 50,000 series in appends of 500, while somebody asks for everything again and again.
    let stop = Arc::new(AtomicBool::new(false));
    let asking = {
        let (store, stop) = (store.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut latencies = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                drop(store.select(&Select::always(Vec::new())).unwrap());
                latencies.push(started.elapsed());
            }
            latencies
        })
    };
    let mut waits = Vec::new();
    for round in 0..6 {
        for host in 0..100 {
            let mut builder = MetricsBuilder::new("measure", vec![("host.name".to_owned(), format!("web-{host}"))]);
            builder.begin(((now_ms + round) as u64) * 1_000_000, 0);
            for series in 0..500 {
                builder.record(&metric("n", "1", Kind::Gauge, ""), &[("series", &series.to_string())], round as f64);
            }
            let metrics = builder.finish();
            let started = Instant::now();
            runtime.block_on(store.append(&metrics)).unwrap();
            waits.push(started.elapsed());
        }
    }
    stop.store(true, Ordering::Relaxed);
    print_latencies("append of 500 samples while everything is asked for", waits);
    print_latencies("select of up to 50,000 series meanwhile", asking.join().unwrap());
    // What a day of many short-lived processes leaves behind: letting go of it must not stop the others.
    let clock = Arc::new(AtomicI64::new(NOW_MS));
    let dir = TempDir::new().unwrap();
    let options = Options { memory_bytes: 100 << 20, sync: Sync::Never, ..Options::default() };
    let store = open_at(dir.path(), &options, &clock, create_files());
    let (reader, stop) = (store.clone(), Arc::new(AtomicBool::new(false)));
    let reading = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut latencies = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                drop(reader.last(&Select::always(vec![Matcher::equal("series", "1")])).unwrap());
                latencies.push(started.elapsed());
                std::thread::park_timeout(Duration::from_millis(1));
            }
            latencies
        })
    };
    let runtime = self::runtime();
    let mut most = 0;
    for minute in 0..400 {
        let mut builder = MetricsBuilder::new("measure", vec![("host.name".to_owned(), "web-1".to_owned())]);
        builder.begin(((NOW_MS - (400 - minute) * 60_000) as u64) * 1_000_000, 0);
        for pid in 0..1000 {
            let pid = (minute * 1000 + pid).to_string();
            builder.record(&metric("p", "1", Kind::Gauge, ""), &[("process.pid", &pid)], 1.0);
        }
        runtime.block_on(store.append(&builder.finish())).unwrap();
        most = most.max(store.stats().memory_bytes);
    }
    stop.store(true, Ordering::Relaxed);
    let stats = store.stats();
    println!(
        "churn: {} series of 400,000 held in {} MB (most {} MB, bound 100 MB)",
        stats.series,
        stats.memory_bytes >> 20,
        most >> 20
    );
    print_latencies("look-up of one series meanwhile", reading.join().unwrap());
}
