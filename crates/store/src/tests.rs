//! The store as a whole: against a plain map, over restarts, damage and failing disks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, io};

use proptest::prelude::*;
use tempfile::TempDir;
use weir_model::build::{Kind, MetricsBuilder, metric};
use weir_model::metrics::{Metrics, NO_RECORDED_VALUE, Number, NumberPoint};
use weir_model::{Payload, Records, Signal};
use weir_pipeline::{Delivery, Export, Outcome, Refused};

use crate::segment::{Create, HEADER_BYTES, LogFile, create_files};
use crate::*;

/// Some time in 2023.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

pub(crate) type Model = BTreeMap<String, BTreeMap<i64, u64>>;

/// One sample: number of the series, milliseconds before now, value.
pub(crate) type Push = (u8, i64, u8);

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub(crate) fn metrics(pushes: &[Push]) -> Metrics {
    let mut builder = MetricsBuilder::new("test", vec![("host.name".to_owned(), "web-1".to_owned())]);
    builder.begin(1, 0);
    for (series, before_ms, value) in pushes {
        let time_unix_nano = ((NOW_MS - before_ms) as u64) * 1_000_000;
        let point = NumberPoint { time_unix_nano, value: Number::Double(f64::from(*value)), ..Default::default() };
        builder.record_point(&metric("m", "1", Kind::Gauge, "help"), &[("series", &series.to_string())], point);
    }
    builder.finish()
}

pub(crate) fn options() -> Options {
    Options { retention: Duration::from_secs(3600), ..Options::default() }
}

pub(crate) fn open_at(dir: &Path, options: &Options, clock: &Arc<AtomicI64>, create: Create) -> Store {
    let clock = clock.clone();
    Store::open_with(dir, options, Arc::new(move || clock.load(Ordering::SeqCst)), create).unwrap()
}

pub(crate) fn open(dir: &Path) -> Store {
    open_at(dir, &options(), &Arc::new(AtomicI64::new(NOW_MS)), create_files())
}

pub(crate) fn everything(store: &Store) -> Model {
    let found = store.select(&Select::always(Vec::new())).unwrap();
    let entry = |data: &SeriesData| {
        let samples = data.samples.iter().map(|(time, value)| (time, value.to_bits())).collect();
        (data.series.labels.get("series").unwrap().to_owned(), samples)
    };
    let all: Model = found.iter().map(entry).collect();
    assert_eq!(all.len(), found.len(), "a series came twice");
    all
}

fn add(model: &mut Model, pushes: &[Push]) {
    for (series, before_ms, value) in pushes {
        let samples = model.entry(series.to_string()).or_default();
        samples.insert(NOW_MS - before_ms, f64::from(*value).to_bits());
    }
}

pub(crate) fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir.join("wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn push() -> impl Strategy<Value = Push> {
    (0u8..6, prop_oneof![0i64..50, 0i64..3_000_000], 0u8..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_appended_is_found_also_late_twice_and_after_restarts(
        groups in prop::collection::vec((prop::collection::vec(push(), 0..400), any::<bool>()), 1..8),
        segment_bytes in 100u64..20_000,
        range in (0i64..3_000_000, 0i64..3_000_000),
    ) {
        let dir = TempDir::new().unwrap();
        let runtime = runtime();
        let clock = Arc::new(AtomicI64::new(NOW_MS));
        let options = Options { segment_bytes, sync: Sync::Never, ..options() };
        let mut store = open_at(dir.path(), &options, &clock, create_files());
        let mut model = Model::new();
        for (pushes, restart) in &groups {
            let appended = runtime.block_on(store.append(&metrics(pushes))).unwrap();
            prop_assert_eq!(appended.samples + appended.duplicates, pushes.len() as u64);
            add(&mut model, pushes);
            if *restart {
                drop(store);
                store = open_at(dir.path(), &options, &clock, create_files());
                prop_assert_eq!(store.stats().damaged_records, 0);
            }
            prop_assert_eq!(&everything(&store), &model);
        }
        let (start_ms, end_ms) = (NOW_MS - range.0.max(range.1), NOW_MS - range.0.min(range.1));
        let select = Select { matchers: vec![Matcher::equal("series", "1")], start_ms, end_ms };
        let expected: Vec<(i64, f64)> = model.get("1").into_iter().flat_map(|s| s.range(start_ms..=end_ms)).map(|(t, v)| (*t, f64::from_bits(*v))).collect();
        let found: Vec<(i64, f64)> = store.select(&select).unwrap().iter().flat_map(|data| data.samples.to_vec()).collect();
        prop_assert_eq!(&found, &expected);
        let last: Vec<(i64, f64)> = store.last(&select).unwrap().into_iter().map(|(_, time, value)| (time, value)).collect();
        prop_assert_eq!(last, expected.last().copied().into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn flipped_bytes_take_only_what_they_damage_and_invent_nothing(
        groups in prop::collection::vec(prop::collection::vec(push(), 1..60), 1..6),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
    ) {
        let dir = TempDir::new().unwrap();
        let store = open(dir.path());
        let runtime = runtime();
        let mut model: BTreeMap<(String, i64), Vec<u64>> = BTreeMap::new();
        for pushes in &groups {
            runtime.block_on(store.append(&metrics(pushes))).unwrap();
            for (series, before, value) in pushes {
                model.entry((series.to_string(), NOW_MS - before)).or_default().push(f64::from(*value).to_bits());
            }
        }
        drop(store);
        let file = segments(dir.path()).remove(0);
        let mut bytes = fs::read(&file).unwrap();
        let before = bytes.clone();
        for (at, flip) in &flips {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        fs::write(&file, &bytes).unwrap();
        let store = open(dir.path());
        // Two flips of one byte may undo each other.
        let stats = store.stats();
        if bytes != before {
            let replayed = replay_bytes(&bytes);
            prop_assert!(replayed.torn.is_some() || !replayed.damaged.is_empty());
            prop_assert_eq!(stats.damaged_records as usize, replayed.damaged.len());
        }
        for (series, samples) in everything(&store) {
            for (time, value) in samples {
                prop_assert!(model.get(&(series.clone(), time)).is_some_and(|known| known.contains(&value)), "invented");
            }
        }
        // The store goes on, and the next start is quiet about what was cut off.
        runtime.block_on(store.append(&metrics(&[(9, 1, 1)]))).unwrap();
        prop_assert!(everything(&store).contains_key("9"));
    }

    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = replay_bytes(&bytes);
    }
}

#[test]
fn a_log_cut_at_any_byte_keeps_every_whole_group_and_goes_on() {
    let dir = TempDir::new().unwrap();
    let runtime = runtime();
    let (mut ends, mut models) = (vec![HEADER_BYTES as u64], vec![Model::new()]);
    let file = {
        let store = open(dir.path());
        for group in 0..4u8 {
            let pushes: Vec<Push> = (0..5).map(|at| (at % 3, i64::from(group) * 10 + i64::from(at), group)).collect();
            runtime.block_on(store.append(&metrics(&pushes))).unwrap();
            let mut model = models.last().unwrap().clone();
            add(&mut model, &pushes);
            models.push(model);
            ends.push(fs::metadata(&segments(dir.path())[0]).unwrap().len());
        }
        segments(dir.path()).remove(0)
    };
    let whole = fs::read(&file).unwrap();
    for length in 0..=whole.len() {
        for old in segments(dir.path()) {
            fs::remove_file(old).unwrap();
        }
        fs::write(&file, &whole[..length]).unwrap();
        let groups = ends.iter().filter(|end| **end <= length as u64).count().saturating_sub(1);
        let store = open(dir.path());
        assert_eq!(everything(&store), models[groups], "cut at {length}");
        assert_eq!(store.stats().damaged_records, 0, "cut at {length}");
        drop(store);
        // What was cut off is not found again.
        let left = fs::metadata(&file).map_or(0, |file| file.len());
        assert!(left == 0 || left == ends[groups], "cut at {length}: {left}");
    }
}

#[test]
fn a_damaged_record_in_the_middle_is_passed_over_and_the_rest_is_found() {
    let dir = TempDir::new().unwrap();
    let runtime = runtime();
    let store = open(dir.path());
    let mut ends = Vec::new();
    for at in 0..3 {
        runtime.block_on(store.append(&metrics(&[(1, 100 - at, 7)]))).unwrap();
        ends.push(fs::metadata(&segments(dir.path())[0]).unwrap().len() as usize);
    }
    drop(store);
    let file = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    // Its length: the worst that can happen to a record.
    bytes[ends[0] + 5] ^= 0xff;
    fs::write(&file, &bytes).unwrap();
    assert_eq!(replay_bytes(&bytes).damaged, [(ends[0], ends[1] - ends[0])]);
    let store = open(dir.path());
    assert_eq!(store.stats().damaged_records, 1);
    let times: Vec<i64> = everything(&store)["1"].keys().copied().collect();
    assert_eq!(times, [NOW_MS - 100, NOW_MS - 98]);
}

#[test]
fn many_appends_at_once_share_few_syncs() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let appended = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for series in 0..200u8 {
            let store = store.clone();
            tasks.spawn(async move {
                let mut builder = MetricsBuilder::new("test", Vec::new());
                builder.begin(0, 0);
                builder.record(&metric("m", "1", Kind::Gauge, ""), &[("series", &series.to_string())], 1.0);
                store.append(&builder.finish()).await.unwrap().samples
            });
        }
        tasks.join_all().await
    });
    assert_eq!(appended.iter().sum::<u64>(), 200);
    let stats = store.stats();
    assert_eq!((stats.series, stats.samples), (200, 200));
    assert!((1..=100).contains(&stats.syncs), "{} syncs", stats.syncs);
}

#[test]
fn a_second_store_in_the_same_folder_is_refused_until_the_first_is_closed() {
    let dir = TempDir::new().unwrap();
    let first = open(dir.path());
    let refused = Store::open(dir.path(), options()).err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }));
    assert!(refused.to_string().contains("stop it, or choose another with --data"), "{refused}");
    let runtime = runtime();
    runtime.block_on(first.append(&metrics(&[(1, 1, 1)]))).unwrap();
    first.close();
    assert_eq!(runtime.block_on(first.append(&metrics(&[(1, 0, 1)]))), Err(AppendError::Stopped));
    assert_eq!(everything(&first).len(), 1, "what is there can still be read");
    let second = open(dir.path());
    assert_eq!(everything(&second).len(), 1);
}

#[test]
fn a_file_where_the_folder_should_be_is_an_error_in_words() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("store");
    fs::write(&path, "").unwrap();
    let error = Store::open(&path, options()).err().unwrap();
    assert!(matches!(error, OpenError::NotAFolder { .. }), "{error}");
}

#[test]
fn what_is_older_than_the_retention_goes_from_memory_and_from_the_log() {
    let dir = TempDir::new().unwrap();
    let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS)));
    let store = open_at(dir.path(), &options(), &clock, create_files());
    let appended =
        runtime.block_on(store.append(&metrics(&[(1, 3_600_001, 1), (1, 3_600_000, 1), (2, 0, 1)]))).unwrap();
    assert_eq!((appended.samples, appended.outside), (2, 1));
    // A new segment begins when the old one spans an eighth of the retention.
    clock.fetch_add(600_000, Ordering::SeqCst);
    runtime.block_on(store.append(&metrics(&[(3, 0, 1), (3, -600_000, 2)]))).unwrap();
    assert_eq!(segments(dir.path()).len(), 2);
    runtime.block_on(store.maintain()).unwrap();
    assert_eq!(everything(&store).keys().collect::<Vec<_>>(), ["2", "3"], "series 1 is too old now");
    clock.fetch_add(3_600_000 - 600_000 + 1, Ordering::SeqCst);
    runtime.block_on(store.maintain()).unwrap();
    assert_eq!(everything(&store).keys().collect::<Vec<_>>(), ["3"]);
    assert_eq!(segments(dir.path()).len(), 1, "the first segment is too old as a whole");
    assert_eq!(store.stats().evicted, 0);
    clock.fetch_add(3_600_000, Ordering::SeqCst);
    runtime.block_on(store.maintain()).unwrap();
    assert_eq!((store.stats().series, store.stats().samples, store.stats().sample_bytes), (0, 0, 0));
}

#[test]
fn a_series_that_was_let_go_of_begins_anew_and_is_found_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS)));
    let store = open_at(dir.path(), &options(), &clock, create_files());
    runtime.block_on(store.append(&metrics(&[(1, 3_600_000, 1)]))).unwrap();
    clock.fetch_add(60_000, Ordering::SeqCst);
    runtime.block_on(store.maintain()).unwrap();
    assert_eq!(store.stats().series, 0);
    runtime.block_on(store.append(&metrics(&[(1, 0, 2)]))).unwrap();
    let before = everything(&store);
    drop(store);
    assert_eq!(everything(&open_at(dir.path(), &options(), &clock, create_files())), before);
}

#[test]
fn the_oldest_goes_when_the_log_or_memory_is_full_and_is_counted() {
    let dir = TempDir::new().unwrap();
    let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS)));
    let bounded = Options { disk_bytes: 20_000, memory_bytes: 25_000, sync: Sync::Never, ..options() };
    let store = open_at(dir.path(), &bounded, &clock, create_files());
    for second in 0..3000i64 {
        let pushes: Vec<Push> =
            (0..5).map(|series| (series, 3_000_000 - second * 1000, (second % 251) as u8)).collect();
        runtime.block_on(store.append(&metrics(&pushes))).unwrap();
        // Bounds are kept after the answer.
        runtime.block_on(store.maintain()).unwrap();
        let stats = store.stats();
        assert!(stats.disk_bytes <= 20_000 + 2_500 && stats.memory_bytes <= 25_000, "{stats:?}");
    }
    let stats = store.stats();
    assert!(stats.evicted > 0 && stats.oldest_ms > Some(NOW_MS - 3_000_000), "{stats:?}");
    assert_eq!(stats.newest_ms, Some(NOW_MS - 1000));
    let held: u64 = segments(dir.path()).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert_eq!(held, stats.disk_bytes);
}

#[test]
fn listeners_hear_what_was_stored_and_slow_ones_are_told_what_they_missed() {
    let dir = TempDir::new().unwrap();
    let (runtime, store) = (runtime(), open(dir.path()));
    let mut listener = store.subscribe();
    runtime.block_on(store.append(&metrics(&[(1, 5, 1), (1, 5, 1), (2, 4, 2)]))).unwrap();
    let heard = listener.try_recv().unwrap();
    let heard: Vec<_> = heard.samples.iter().map(|(s, t, v)| (s.labels.get("series").unwrap(), *t, *v)).collect();
    assert_eq!(heard, [("1", NOW_MS - 5, 1.0), ("2", NOW_MS - 4, 2.0)]);
    for at in 0..200 {
        runtime.block_on(store.append(&metrics(&[(3, 1000 - at, 1)]))).unwrap();
    }
    assert!(matches!(listener.try_recv(), Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_))));
}

/// A disk that can be told to fail.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    pub write: Arc<AtomicBool>,
    pub sync: Arc<AtomicBool>,
    pub cut: Arc<AtomicBool>,
    /// No file can be made, for the disk is full.
    pub create: Arc<AtomicBool>,
    pub created: Arc<AtomicU64>,
}

struct FaultyFile(fs::File, Faults);

pub(crate) fn fail(kind: io::ErrorKind) -> io::Result<()> {
    Err(io::Error::from(kind))
}

impl LogFile for FaultyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.1.write.load(Ordering::SeqCst) {
            // As when the disk becomes full: a part is written.
            self.0.write_at(&bytes[..bytes.len() / 2], offset)?;
            return fail(io::ErrorKind::StorageFull);
        }
        self.0.write_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.1.sync.load(Ordering::SeqCst) { fail(io::ErrorKind::Other) } else { self.0.sync() }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.1.cut.load(Ordering::SeqCst) { fail(io::ErrorKind::Other) } else { self.0.cut(length) }
    }
}

pub(crate) fn faulty(faults: &Faults) -> Create {
    let faults = faults.clone();
    Box::new(move |path| {
        if faults.create.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        faults.created.fetch_add(1, Ordering::SeqCst);
        let file = fs::OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Box::new(FaultyFile(file, faults.clone())))
    })
}

#[test]
fn a_failed_write_or_sync_is_answered_and_the_next_append_is_stored() {
    for (cut_fails, segments_made) in [(false, 2), (true, 3)] {
        let dir = TempDir::new().unwrap();
        let (runtime, faults) = (runtime(), Faults::default());
        let clock = Arc::new(AtomicI64::new(NOW_MS));
        let store = open_at(dir.path(), &options(), &clock, faulty(&faults));
        let append = |push: Push| runtime.block_on(store.append(&metrics(&[push])));
        append((1, 100, 1)).unwrap();
        faults.cut.store(cut_fails, Ordering::SeqCst);
        faults.write.store(true, Ordering::SeqCst);
        assert!(matches!(append((2, 90, 2)), Err(AppendError::Full { .. })));
        faults.write.store(false, Ordering::SeqCst);
        // The definition of series 2 was cut off with the rest and must be written again.
        append((2, 80, 2)).unwrap();
        faults.sync.store(true, Ordering::SeqCst);
        assert!(matches!(append((3, 70, 3)), Err(AppendError::Io { .. })));
        assert!(!everything(&store).contains_key("3"));
        faults.sync.store(false, Ordering::SeqCst);
        append((3, 70, 3)).unwrap();
        append((3, 60, 4)).unwrap();
        assert_eq!(faults.created.load(Ordering::SeqCst), segments_made);
        let before = everything(&store);
        drop(store);
        let store = open(dir.path());
        assert_eq!(everything(&store), before);
        assert_eq!(store.stats().damaged_records, 0);
    }
}

#[test]
fn a_full_disk_is_an_error_that_passes_when_there_is_space_again() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("small");
    fs::create_dir(&place).unwrap();
    let mount = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).arg(&place).status().is_ok_and(|status| status.success())
    };
    if !mount("mount", &["-t", "tmpfs", "-o", "size=512k", "tmpfs"]) {
        eprintln!("SKIPPED: a small file system cannot be mounted here (needs root)");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let runtime = runtime();
        let store = open(&place);
        let filler = place.join("filler");
        let written = fs::write(&filler, vec![0u8; 480 << 10]);
        let many: Vec<Push> = (0..20_000).map(|at| ((at % 6) as u8, at * 7, (at % 251) as u8)).collect();
        let refused = runtime.block_on(store.append(&metrics(&many)));
        assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?} {written:?}");
        assert!(everything(&store).is_empty());
        fs::remove_file(&filler).unwrap();
        runtime.block_on(store.append(&metrics(&many))).unwrap();
        let before = everything(&store);
        assert_eq!(before.values().map(BTreeMap::len).sum::<usize>(), 20_000);
        drop(store);
        let store = open(&place);
        assert_eq!(everything(&store), before);
        assert_eq!(store.stats().damaged_records, 0);
    });
    assert!(mount("umount", &[]));
    outcome.unwrap();
}

#[test]
fn an_exporter_stores_what_it_takes_and_names_what_it_cannot() {
    let dir = TempDir::new().unwrap();
    let (runtime, store) = (runtime(), open(dir.path()));
    let exporter = store.exporter();
    let mut points = metrics(&[(1, 5, 1), (2, 4, 2)]);
    let export = |metrics: &Metrics| {
        let payload = weir_model::Payload::from_records(weir_model::Records::Metrics(metrics.clone()));
        let delivery = Delivery { signal: weir_model::Signal::Metrics, payloads: vec![payload], id: 1 };
        runtime.block_on(exporter.export(&delivery))
    };
    assert_eq!(export(&points), Outcome::Accepted);
    assert_eq!(export(&points), Outcome::Accepted, "a repeat is accepted");
    assert_eq!(store.stats().duplicates, 2);
    points.numbers.value[0] = Number::None;
    assert!(matches!(export(&points), Outcome::Partly { refused, .. } if refused.count() == 1));
    points.numbers.flags[0] = NO_RECORDED_VALUE;
    points.numbers.time_unix_nano[0] += 1_000_000;
    assert_eq!(export(&points), Outcome::Accepted);
    let samples = &everything(&store)["1"];
    assert!(is_stale(f64::from_bits(*samples.values().next_back().unwrap())));
    assert!(runtime.block_on(exporter.check()).unwrap().contains("2 series"));
    store.close();
    assert!(matches!(export(&points), Outcome::Later { .. }));
}

#[test]
fn labels_and_metrics_can_be_listed() {
    let dir = TempDir::new().unwrap();
    let (runtime, store) = (runtime(), open(dir.path()));
    runtime.block_on(store.append(&metrics(&[(1, 50, 1), (2, 4, 2)]))).unwrap();
    let always = Select::always(Vec::new());
    assert_eq!(store.label_names(&always).unwrap(), [NAME, "host.name", "otel.scope.name", "series"]);
    assert_eq!(store.label_values("series", &always).unwrap(), ["1", "2"]);
    let late = Select { start_ms: NOW_MS - 10, ..always };
    assert_eq!(store.label_values("series", &late).unwrap(), ["2"]);
    let metrics = store.metrics();
    assert_eq!((metrics.len(), &*metrics[0].name, &*metrics[0].info.unit), (1, "m", "1"));
}

#[test]
fn points_of_another_age_are_refused_by_name_and_the_rest_is_stored() {
    let dir = TempDir::new().unwrap();
    let (runtime, clock) = (runtime(), Arc::new(AtomicI64::new(NOW_MS)));
    let store = open_at(dir.path(), &options(), &clock, create_files());
    let (year, good) = (365 * 86_400_000, metrics(&[(1, 0, 1)]));
    let deliver = |metrics: Metrics| {
        let payloads = vec![Payload::from_records(Records::Metrics(metrics))];
        let delivery = Delivery { signal: Signal::Metrics, payloads, id: 1 };
        runtime.block_on(store.exporter().export(&delivery))
    };
    assert!(matches!(deliver(good), Outcome::Accepted));
    // A clock that is a year ahead, and one a year behind, beside a good point.
    match deliver(metrics(&[(2, -year, 1), (3, year, 1), (4, 0, 1)])) {
        Outcome::Partly { refused: Refused::Count(2), why } => assert!(why.contains("ahead"), "{why}"),
        other => panic!("{other:?}"),
    }
    match deliver(metrics(&[(5, year, 1)])) {
        Outcome::Never { why } => assert!(why.contains("older than the retention"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(everything(&store).keys().collect::<Vec<_>>(), ["1", "4"]);
    assert_eq!(store.stats().outside, 3);
}
