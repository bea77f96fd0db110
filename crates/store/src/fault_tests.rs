//! What the store does at its limits: full and failing disks, damage, odd values, clocks that are wrong.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use weir_model::build::{Kind, MetricsBuilder, metric};
use weir_model::metrics::{Number, NumberPoint};

use crate::record::RecordWriter;
use crate::segment::{HEADER_BYTES, create_files};
use crate::tests::{Faults, NOW_MS, Push, everything, faulty, metrics, open, open_at, options, runtime, segments};
use crate::*;

#[test]
fn a_store_on_a_full_disk_can_be_read_and_stores_again_once_there_is_space() {
    let dir = TempDir::new().unwrap();
    let (runtime, faults, clock) = (runtime(), Faults::default(), Arc::new(AtomicI64::new(NOW_MS)));
    let store = open_at(dir.path(), &options(), &clock, faulty(&faults));
    runtime.block_on(store.append(&metrics(&[(1, 100, 1)]))).unwrap();
    drop(store);
    faults.create.store(true, Ordering::SeqCst);
    let store = open_at(dir.path(), &options(), &clock, faulty(&faults));
    assert_eq!(everything(&store).len(), 1);
    let append = || runtime.block_on(store.append(&metrics(&[(2, 90, 1)])));
    assert!(matches!(append(), Err(AppendError::Full { .. })));
    faults.create.store(false, Ordering::SeqCst);
    append().unwrap();
    let before = everything(&store);
    assert_eq!(before.len(), 2);
    drop(store);
    assert_eq!(everything(&open(dir.path())), before);
}

#[test]
fn what_could_not_be_synced_is_not_found_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (runtime, faults, clock) = (runtime(), Faults::default(), Arc::new(AtomicI64::new(NOW_MS)));
    let store = open_at(dir.path(), &options(), &clock, faulty(&faults));
    runtime.block_on(store.append(&metrics(&[(1, 100, 1)]))).unwrap();
    faults.sync.store(true, Ordering::SeqCst);
    runtime.block_on(store.append(&metrics(&[(2, 90, 1)]))).unwrap_err();
    let before = everything(&store);
    assert_eq!(before.len(), 1);
    drop(store);
    let store = open(dir.path());
    assert_eq!(everything(&store), before);
    assert_eq!(store.stats().damaged_records, 0);
}

#[test]
fn folders_that_are_missing_are_made_also_several_at_once() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a/b/c");
    let store = open(&path);
    runtime().block_on(store.append(&metrics(&[(1, 100, 1)]))).unwrap();
    drop(store);
    assert_eq!(everything(&open(&path)).len(), 1);
}

#[test]
fn samples_behind_damaged_definitions_are_found_if_the_segment_before_defines_their_series() {
    let dir = TempDir::new().unwrap();
    let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS)));
    let small = Options { segment_bytes: 100, ..options() };
    let store = open_at(dir.path(), &small, &clock, create_files());
    let append = |pushes: &[Push]| runtime.block_on(store.append(&metrics(pushes))).unwrap();
    append(&[(1, 100, 1), (2, 100, 1)]);
    append(&[(1, 90, 2), (2, 90, 2), (3, 90, 2)]);
    drop(store);
    let files = segments(dir.path());
    assert_eq!(files.len(), 2);
    // The first record of the second segment defines its series; the next one counts on that.
    let mut second = fs::read(&files[1]).unwrap();
    let mut writer = RecordWriter::default();
    (0..3).for_each(|id| writer.sample(id, NOW_MS - 80, 3.0f64.to_bits()));
    writer.end(&mut second, 0);
    second[HEADER_BYTES + 20] ^= 0xff;
    fs::write(&files[1], second).unwrap();
    let store = open_at(dir.path(), &options(), &clock, create_files());
    let found = everything(&store);
    let times: Vec<i64> = found["1"].keys().copied().collect();
    assert_eq!((times, found.len()), (vec![NOW_MS - 100, NOW_MS - 80], 2), "{found:?}");
    assert_eq!((store.stats().damaged_records, store.stats().orphaned), (1, 1));
}

#[test]
fn a_number_of_another_run_is_never_taken_for_the_same_series() {
    let dir = TempDir::new().unwrap();
    let (other, runtime) = (TempDir::new().unwrap(), runtime());
    // The same number for a series in both.
    for (dir, series) in [(&dir, 1), (&other, 2)] {
        let store = open(dir.path());
        runtime.block_on(store.append(&metrics(&[(series, 100, 1)]))).unwrap();
        runtime.block_on(store.append(&metrics(&[(series, 90, 1)]))).unwrap();
    }
    let mut second = fs::read(&segments(other.path())[0]).unwrap();
    second[HEADER_BYTES + 20] ^= 0xff;
    fs::write(dir.path().join("wal/00000002.wal"), second).unwrap();
    let store = open(dir.path());
    assert_eq!(everything(&store).keys().collect::<Vec<_>>(), ["1"]);
    assert_eq!(everything(&store)["1"].len(), 2);
    assert_eq!(store.stats().orphaned, 1);
}

#[test]
fn what_a_full_log_or_full_memory_drops_is_gone_before_and_after_a_restart() {
    let both = [(1 << 30, 25_000), (40_000, 1 << 30)];
    for (disk_bytes, memory_bytes) in both {
        let dir = TempDir::new().unwrap();
        let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS)));
        let segment_bytes = 4000;
        let bounded = Options { disk_bytes, memory_bytes, segment_bytes, sync: Sync::Never, ..options() };
        let store = open_at(dir.path(), &bounded, &clock, create_files());
        let mut appended = 0;
        for second in 0..3000i64 {
            // Values that hardly compress.
            let value = |series: i64| ((second * 7919 + series * 104_729) % 251) as u8;
            let pushes: Vec<Push> = (0..5).map(|n| (n, 3_000_000 - second * 1000, value(i64::from(n)))).collect();
            appended += runtime.block_on(store.append(&metrics(&pushes))).unwrap().samples;
        }
        runtime.block_on(store.maintain()).unwrap();
        let stats = store.stats();
        assert_eq!(stats.samples as u64 + stats.evicted, appended, "each is counted once: {stats:?}");
        assert!(stats.evicted > 0 && stats.samples > 0, "{stats:?}");
        let before = everything(&store);
        drop(store);
        let unbounded = Options { disk_bytes: 1 << 30, memory_bytes: 1 << 30, ..options() };
        let after = everything(&open_at(dir.path(), &unbounded, &clock, create_files()));
        let oldest =
            |model: &crate::tests::Model| model.values().filter_map(|s| Some(*s.keys().next()?)).min().unwrap();
        // A chunk and a segment are let go of as a whole: by so much they differ, of 3,000 seconds.
        let difference = (oldest(&before) - oldest(&after)).abs();
        assert!(difference <= 450_000, "{difference} ms, {} bytes on disk", stats.disk_bytes);
        assert_eq!(before["1"].keys().next_back(), after["1"].keys().next_back());
    }
}

#[test]
fn history_that_is_sent_after_memory_was_full_stays_in_the_log() {
    let dir = TempDir::new().unwrap();
    let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS)));
    let bounded = Options { memory_bytes: 25_000, segment_bytes: 1000, sync: Sync::Never, ..options() };
    let store = open_at(dir.path(), &bounded, &clock, create_files());
    let mut second = 0;
    while store.stats().evicted == 0 {
        second += 1;
        let pushes: Vec<Push> = (0..5).map(|n| (n, 3_000_000 - second * 1000, (second * 7919 % 251) as u8)).collect();
        runtime.block_on(store.append(&metrics(&pushes))).unwrap();
        runtime.block_on(store.maintain()).unwrap();
    }
    assert!(store.stats().oldest_ms > Some(NOW_MS - 2_999_000));
    // Older than all that is left, in segments of its own.
    for at in 0..100 {
        runtime.block_on(store.append(&metrics(&[(9, 3_300_000 - at, at as u8), (8, 3_300_000 - at, 1)]))).unwrap();
    }
    runtime.block_on(store.append(&metrics(&[(1, 0, 1)]))).unwrap();
    runtime.block_on(store.maintain()).unwrap();
    let before = everything(&store);
    assert_eq!(before["9"].len(), 100);
    drop(store);
    assert_eq!(everything(&open_at(dir.path(), &options(), &clock, create_files()))["9"], before["9"]);
}

#[test]
fn every_value_comes_back_bit_for_bit_also_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (runtime, store) = (runtime(), open(dir.path()));
    let values: Vec<u64> = [
        STALE_BITS,
        f64::NAN.to_bits(),
        0x7ff8_0000_0000_0001,
        0xfff8_dead_beef_0001,
        (-0.0f64).to_bits(),
        0.0f64.to_bits(),
        f64::INFINITY.to_bits(),
        f64::NEG_INFINITY.to_bits(),
        f64::MIN_POSITIVE.to_bits(),
        1,
        f64::MAX.to_bits(),
        f64::MIN.to_bits(),
        u64::MAX,
        (i64::MAX as f64).to_bits(),
        (i64::MIN as f64).to_bits(),
    ]
    .into();
    let mut builder = MetricsBuilder::new("test", Vec::new());
    builder.begin(1, 0);
    let mut record = |series: &str, time_ms: i64, value: Number| {
        let point = NumberPoint { time_unix_nano: (time_ms as u64) * 1_000_000, value, ..Default::default() };
        builder.record_point(&metric("m", "1", Kind::Gauge, ""), &[("series", series)], point);
    };
    for (at, bits) in (0i64..).zip(&values) {
        record("in order", NOW_MS - 1000 + at, Number::Double(f64::from_bits(*bits)));
        record("backwards", NOW_MS - 1000 - at, Number::Double(f64::from_bits(*bits)));
        // All at one time: the last counts.
        record("one time", NOW_MS, Number::Double(f64::from_bits(*bits)));
    }
    record("integers", NOW_MS - 1, Number::Int(i64::MIN));
    record("integers", NOW_MS, Number::Int(i64::MAX));
    let metrics = builder.finish();
    let appended = runtime.block_on(store.append(&metrics)).unwrap();
    assert_eq!((appended.samples, appended.duplicates, appended.refused), (3 * 15 + 2, 0, 0));
    let check = |store: &Store| {
        let found = everything(store);
        assert_eq!(found["in order"].values().copied().collect::<Vec<_>>(), values);
        assert_eq!(found["backwards"].values().rev().copied().collect::<Vec<_>>(), values);
        assert_eq!(found["one time"].values().copied().collect::<Vec<_>>(), values[14..]);
        let integers = found["integers"].values().map(|bits| f64::from_bits(*bits)).collect::<Vec<_>>();
        assert_eq!(integers, [i64::MIN as f64, i64::MAX as f64]);
    };
    check(&store);
    // A repeat changes nothing but the last of those that share a time, which comes last again.
    runtime.block_on(store.append(&metrics)).unwrap();
    check(&store);
    drop(store);
    check(&open(dir.path()));
}

#[test]
fn a_clock_that_is_set_back_ends_the_segment_and_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS + 3_000_000)));
    let store = open_at(dir.path(), &options(), &clock, create_files());
    runtime.block_on(store.append(&metrics(&[(1, -3_000_000, 1)]))).unwrap();
    clock.store(NOW_MS, Ordering::SeqCst);
    runtime.block_on(store.append(&metrics(&[(1, 0, 2), (2, 0, 2)]))).unwrap();
    assert_eq!(segments(dir.path()).len(), 2, "else the first would stay open until the clock has caught up");
    runtime.block_on(store.maintain()).unwrap();
    let before = everything(&store);
    assert_eq!(before.values().map(|samples| samples.len()).sum::<usize>(), 3);
    drop(store);
    assert_eq!(everything(&open(dir.path())), before);
}

#[test]
fn appends_of_one_group_are_each_told_their_own_counts_and_everything_is_selected_in_order() {
    let dir = TempDir::new().unwrap();
    let store = open(dir.path());
    let append = |first: u32, count: u32| {
        let mut builder = MetricsBuilder::new("test", Vec::new());
        builder.begin((NOW_MS as u64) * 1_000_000, 0);
        for n in first..first + count {
            builder.record(&metric("m", "1", Kind::Gauge, ""), &[("series", &format!("{n:06}"))], 1.0);
        }
        builder.finish()
    };
    // More than fits under one lock, each append overlapping by half with the one before.
    let batches: Vec<_> = (0..8).map(|at| append(at * 1000, 2000)).collect();
    let appended = runtime().block_on(futures_util::future::join_all(batches.iter().map(|batch| store.append(batch))));
    let counts: Vec<(u64, u64)> = appended.into_iter().map(|a| a.map(|a| (a.samples, a.duplicates)).unwrap()).collect();
    assert_eq!(counts[0], (2000, 0));
    assert!(counts[1..].iter().all(|counts| *counts == (1000, 1000)), "{counts:?}");
    let found = store.select(&Select::always(Vec::new())).unwrap();
    let names: Vec<String> = found.iter().map(|data| data.series.labels.get("series").unwrap().to_owned()).collect();
    assert_eq!(names, (0..9000).map(|n| format!("{n:06}")).collect::<Vec<_>>());
    assert_eq!(store.last(&Select::always(Vec::new())).unwrap().len(), 9000);
    assert_eq!(store.label_values("series", &Select::always(Vec::new())).unwrap(), names);
}

#[test]
fn short_lived_series_are_bounded_in_memory_and_old_ones_go_with_their_text() {
    let dir = TempDir::new().unwrap();
    let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS)));
    let bounded =
        Options { memory_bytes: 1 << 20, retention: Duration::from_hours(24), sync: Sync::Never, ..Options::default() };
    let store = open_at(dir.path(), &bounded, &clock, create_files());
    for minute in 0..200i64 {
        let mut builder = MetricsBuilder::new("test", vec![("host.name".to_owned(), "web-1".to_owned())]);
        builder.begin(((NOW_MS - (200 - minute) * 60_000) as u64) * 1_000_000, 0);
        for pid in 0..100 {
            let command = format!("{}{}", minute * 100 + pid, "x".repeat(50));
            builder.record(&metric("p", "1", Kind::Gauge, ""), &[("series", &command)], 1.0);
        }
        runtime.block_on(store.append(&builder.finish())).unwrap();
        // Bounds are kept after the answer.
        runtime.block_on(store.maintain()).unwrap();
        assert!(store.stats().memory_bytes <= 1 << 20);
    }
    // No more goes than must: two thirds of the bound are in use at least.
    let stats = store.stats();
    assert!(stats.memory_bytes > (1 << 20) * 2 / 3, "{stats:?}");
    assert_eq!(stats.samples as u64 + stats.evicted, 20_000);
    clock.fetch_add(48 * 3_600_000, Ordering::SeqCst);
    runtime.block_on(store.maintain()).unwrap();
    let stats = store.stats();
    assert!(stats.series == 0 && stats.memory_bytes < 2000, "{stats:?}");
}
