//! The queue against a simple model of it, on a disk that crashes between any two operations.
//!
//! Everything follows from a seed. `WEIR_SEEDS=n` tries so many of them, `WEIR_SEED=n` one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use weir_model::{Batch, Encoding, Payload, Receipt, Signal, Verdict, Wire};

use crate::disk::simulated::{Faults, SimulatedDisk};
use crate::ledger::{Counts, Ledger, Reason};
use crate::options::WhenFull;
use crate::queue::durable::core::{Core, OpenReport};
use crate::queue::durable::options::{DiskQueueOptions, SyncPolicy};
use crate::queue::durable::state::Front;
use crate::queue::durable::{Exported, Key, export};
use crate::queue::{Entry, TakeLimits, Taken};

const SEEDS: u64 = 10_000;
const ORIGINS: [&str; 3] = ["otlp", "host", "journal/system"];
const START_MS: i64 = 1_700_000_000_000;

/// What follows from the number of an entry: signal, records, encoding, and the rest of the payload.
fn shape(id: u64) -> (Signal, usize, Encoding, fastrand::Rng) {
    let mut random = fastrand::Rng::with_seed(id);
    let (signal, records) = (Signal::ALL[random.usize(..3)], random.usize(1..20));
    let encoding = if random.bool() { Encoding::Protobuf } else { Encoding::Json };
    (signal, records, encoding, random)
}

/// Payloads carry their number.
fn payload(id: u64) -> Payload {
    let (signal, records, encoding, mut random) = shape(id);
    let length = if random.u8(..8) == 0 { random.usize(..3000) } else { random.usize(..200) };
    let mut bytes = vec![0; 8 + length];
    random.fill(&mut bytes);
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    Payload::from_wire(signal, Wire { encoding, bytes: Bytes::from(bytes) }, records)
}

fn records_of(id: u64) -> u64 {
    shape(id).1 as u64
}

fn id_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().unwrap())
}

fn origin_of(id: u64) -> &'static str {
    ORIGINS[fastrand::Rng::with_seed(id ^ 0x5eed).usize(..3)]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// In the queue, and its source was not told yet.
    Pushed,
    /// In the queue, and its source was told so.
    Stored,
    /// The exporter is done with it.
    Settled,
    /// Its source was told to send it again.
    Rejected,
}

struct Trial {
    random: fastrand::Rng,
    disk: SimulatedDisk,
    options: DiskQueueOptions,
    clock_ms: Arc<AtomicI64>,
    exporter: Arc<str>,
    next_id: Arc<AtomicU64>,
    /// What the sources heard.
    heard: Arc<Mutex<Vec<(u64, Verdict)>>>,
    fates: BTreeMap<u64, Fate>,
    /// What is never found again, because the disk knows that it was settled.
    known_settled: BTreeSet<u64>,
    /// Records of this life's ledger and those before that were dropped by a bound.
    dropped: u64,
}

/// One life of the process.
struct Life {
    core: Arc<Core>,
    ledger: Arc<Ledger>,
    held: Vec<(u64, Taken)>,
    /// Came back from the exporter.
    returned: BTreeSet<u64>,
    last_taken: Option<u64>,
    /// Records of writes that were never finished, found by their headers.
    unfinished: u64,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = SimulatedDisk::new(random.u64(..), u64::MAX);
        let mut options = DiskQueueOptions::new(random.u64(8 << 10..64 << 10));
        options.segment_bytes = random.u64(600..8000);
        options.head_bytes = [0, 1000, 10_000][random.usize(..3)];
        options.pending_bytes = random.usize(2000..20_000);
        options.reserve_bytes = 0;
        options.cursor_interval = Duration::ZERO;
        options.sync = [SyncPolicy::Group, SyncPolicy::Group, SyncPolicy::Each, SyncPolicy::Never][random.usize(..4)];
        options.key = (random.u8(..5) == 0).then(|| Key::new([3; 32]));
        if random.u8(..5) == 0 {
            options.when_full = WhenFull::DropOldest;
            options.limit_bytes = random.u64(6000..16_000);
        }
        if random.u8(..5) == 0 {
            options.max_age = Some(Duration::from_secs(random.u64(1..20)));
        }
        Self {
            random,
            disk,
            options,
            clock_ms: Arc::new(AtomicI64::new(START_MS)),
            exporter: Arc::from("backend"),
            next_id: Arc::new(AtomicU64::new(1)),
            heard: Arc::default(),
            fates: BTreeMap::new(),
            known_settled: BTreeSet::new(),
            dropped: 0,
        }
    }

    fn folder() -> PathBuf {
        PathBuf::from("queue")
    }

    fn drops(&self) -> bool {
        self.options.when_full == WhenFull::DropOldest || self.options.max_age.is_some()
    }

    /// Opens the queue and checks what is found; `None` if the machine crashes meanwhile.
    fn open(&mut self) -> Option<Life> {
        let ledger = Arc::new(Ledger::default());
        let clock = self.clock_ms.clone();
        let now_ms = Arc::new(move || clock.load(Ordering::Relaxed));
        let opened = Core::open(
            Arc::new(self.disk.clone()),
            Self::folder(),
            &self.exporter,
            ledger.clone(),
            self.options.clone(),
            now_ms,
        );
        let (core, report) = match opened {
            Ok(opened) => opened,
            Err(_) if self.disk.is_crashed() => return None,
            Err(error) => panic!("a queue must open after any crash: {error}"),
        };
        if self.disk.is_crashed() {
            return None;
        }
        let unfinished = self.check_found(&report, &ledger);
        let (held, returned) = (Vec::new(), BTreeSet::new());
        Some(Life { core: Arc::new(core), ledger, held, returned, last_taken: None, unfinished })
    }

    /// Compares what is there with the model. How many records only seem to be there.
    fn check_found(&mut self, report: &OpenReport, ledger: &Ledger) -> u64 {
        let (mut found, mut unfinished) = (Vec::new(), 0);
        let mut sums: BTreeMap<(String, Signal), u64> = BTreeMap::new();
        let look = |entry: Exported| {
            // The end of a write that was never finished may be damaged in any way.
            let Some(bytes) = &entry.payload else { return Ok(()) };
            let id = id_of(bytes);
            let expected = payload(id);
            assert!(self.fates.contains_key(&id), "{id} was invented");
            assert_eq!(*bytes, expected.wire().unwrap().bytes, "payload of {id}");
            assert_eq!(&*entry.origin, origin_of(id), "origin of {id}");
            assert_eq!((entry.signal, entry.records as usize), (expected.signal(), expected.len()), "header of {id}");
            *sums.entry((entry.origin.to_string(), entry.signal)).or_default() += u64::from(entry.records);
            found.push(id);
            Ok(())
        };
        let key = self.options.key.as_ref();
        self.disk.quietly(|| export(&self.disk, &Self::folder(), key, look)).unwrap();
        assert!(found.is_sorted_by(|a, b| a < b), "order: {found:?}");
        if self.options.sync != SyncPolicy::Never {
            let back = found.iter().find(|id| self.known_settled.contains(id));
            assert_eq!(back, None, "delivered again although the disk knew that it was settled");
            let reported: BTreeMap<(String, Signal), u64> =
                report.waiting.iter().map(|w| ((w.origin.to_string(), w.signal), w.records)).collect();
            // By their headers, payloads of writes that were never finished count too, until they are read.
            let is_there = |(key, records): (&(String, Signal), &u64)| reported.get(key).is_some_and(|r| r >= records);
            assert!(sums.iter().all(is_there), "reported {reported:?}, found {sums:?}");
            unfinished = reported.values().sum::<u64>() - sums.values().sum::<u64>();
        }
        let counted: u64 = ledger.snapshot().iter().map(|(_, counts)| counts.queued).sum();
        assert_eq!(counted, report.waiting.iter().map(|waiting| waiting.records).sum::<u64>());
        let found: BTreeSet<u64> = found.into_iter().collect();
        let lost = |(id, fate): (&u64, &Fate)| (*fate == Fate::Stored && !found.contains(id)).then_some(*id);
        let lost: Vec<u64> = self.fates.iter().filter_map(lost).collect();
        let lost_records: u64 = lost.iter().map(|id| records_of(*id)).sum();
        match self.options.sync {
            SyncPolicy::Never => {}
            _ if self.drops() => {
                assert!(lost_records <= self.dropped, "{lost_records} records are gone, {} counted", self.dropped);
                self.dropped -= lost_records;
            }
            _ => assert!(lost.is_empty(), "acknowledged and gone: {lost:?}"),
        }
        for (id, fate) in &mut self.fates {
            match (found.contains(id), *fate) {
                // Also what was settled, but not for the disk, and what its source sends again.
                (true, _) => *fate = Fate::Stored,
                (false, Fate::Pushed | Fate::Stored) => *fate = Fate::Settled,
                (false, _) => {}
            }
        }
        unfinished
    }

    fn hear(&mut self) {
        for (id, verdict) in self.heard.lock().unwrap().drain(..) {
            let fate = self.fates.get_mut(&id).unwrap();
            assert_eq!(*fate, Fate::Pushed, "{id} heard twice");
            *fate = if verdict == Verdict::Delivered { Fate::Stored } else { Fate::Rejected };
        }
    }

    fn push(&mut self, life: &Life) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let payload = payload(id);
        let origin: Arc<str> = Arc::from(origin_of(id));
        let row = life.ledger.row(&origin, &self.exporter, payload.signal());
        let heard = self.heard.clone();
        let receipt = Receipt::new(move |settled| heard.lock().unwrap().push((id, settled.verdict)));
        self.fates.insert(id, Fate::Pushed);
        let has_room = life.core.has_room(payload.size_bytes());
        let pushed = life.core.push(Entry {
            batch: Batch { origin, payload, receipt },
            row,
            since: tokio::time::Instant::now(),
        });
        if let Err(reason) = pushed {
            assert_eq!(reason, Reason::QueueFull);
            assert!(!has_room || self.options.when_full == WhenFull::Block);
        }
    }

    fn take(&mut self, life: &mut Life) {
        let (records, bytes) = (self.random.usize(1..60), self.random.usize(1..5000));
        let limits = TakeLimits { records, bytes, linger: Duration::ZERO };
        for _ in 0..100 {
            match life.core.grab(limits) {
                Front::Unread if life.core.refill(limits).is_ok() => {}
                Front::Taken(taken) => {
                    let signal = taken[0].payload.signal();
                    for taken in life.core.hand_out(taken) {
                        let batch = &taken.batch;
                        let id = id_of(&batch.payload.wire().unwrap().bytes);
                        assert_eq!(self.fates[&id], Fate::Stored, "{id} is not in the queue");
                        assert_eq!((&*batch.origin, batch.payload.signal()), (origin_of(id), signal));
                        if !life.returned.remove(&id) {
                            assert!(life.last_taken < Some(id), "order: {id} after {:?}", life.last_taken);
                            life.last_taken = Some(id);
                        }
                        life.held.push((id, taken));
                    }
                    return;
                }
                _ => return,
            }
            assert!(!self.disk.is_crashed() || life.held.len() < 1000);
            if self.disk.is_crashed() {
                return;
            }
        }
        panic!("the queue asks to be read again and again");
    }

    fn settle(&mut self, life: &mut Life, verdict: Verdict) {
        if life.held.is_empty() {
            return;
        }
        let (id, taken) = life.held.swap_remove(self.random.usize(..life.held.len()));
        let records = taken.batch.payload.len() as u64;
        match verdict {
            Verdict::Delivered => taken.account.deliver(records),
            Verdict::Refused => taken.account.drop_in_flight(records, Reason::Refused),
            Verdict::Retry => drop(life.returned.insert(id)),
        }
        if verdict != Verdict::Retry {
            self.fates.insert(id, Fate::Settled);
        }
        taken.batch.receipt.settle(verdict);
    }

    fn keep_house(&mut self, life: &Life) {
        life.core.keep_house(true);
        let state = life.core.state();
        if !self.disk.is_crashed() && state.written_cursor == state.cursor() {
            let is_open = |(_, fate): &(&u64, &Fate)| matches!(fate, Fate::Pushed | Fate::Stored);
            let first = self.fates.iter().find(is_open).map(|(id, _)| *id);
            let before = self.fates.range(..first.unwrap_or(u64::MAX));
            self.known_settled.extend(before.filter(|(_, fate)| **fate == Fate::Settled).map(|(id, _)| *id));
        }
    }

    /// The ledger adds up and says what the model says.
    fn check_ledger(&self, life: &Life) {
        let sum = |column: fn(&Counts) -> u64| life.ledger.snapshot().iter().map(|(_, c)| column(c)).sum::<u64>();
        for (key, counts) in life.ledger.snapshot() {
            assert_eq!(counts.difference(), 0, "{key:?}: {counts:?}");
        }
        let records = |id: &u64| records_of(*id);
        let held: u64 = life.held.iter().map(|(id, _)| records(id)).sum();
        assert_eq!(sum(|counts| counts.in_flight), held, "in flight");
        assert_eq!(sum(|counts| counts.queued), life.core.state().waiting_records(), "queued");
        if self.drops() || self.options.sync == SyncPolicy::Never {
            return;
        }
        let is_in = |(_, fate): &(&u64, &Fate)| matches!(fate, Fate::Pushed | Fate::Stored);
        let expected: u64 = self.fates.iter().filter(is_in).map(|(id, _)| records(id)).sum();
        let queued = sum(|counts| counts.queued) + held;
        assert!((expected..=expected + life.unfinished).contains(&queued), "{queued} queued, {expected} by the model");
    }

    fn dropped_by_bounds(life: &Life) -> u64 {
        let dropped = |counts: &Counts, reason| counts.dropped.get(&reason).copied().unwrap_or_default();
        let of = |counts: &Counts| dropped(counts, Reason::QueueFull) + dropped(counts, Reason::Expired);
        life.ledger.snapshot().iter().map(|(_, counts)| of(counts)).sum()
    }

    /// One life: until the crash, or to the end.
    fn live(&mut self, mut life: Life) {
        // A crash may bring back what was cut off.
        let bound = self.options.limit_bytes.max(life.core.state().disk_bytes()) + 1000;
        for _ in 0..self.random.usize(5..50) {
            let choice = self.random.u8(..100);
            self.clock_ms.fetch_add(self.random.i64(0..1000), Ordering::Relaxed);
            match choice {
                0..40 => self.push(&life),
                40..60 => drop(life.core.write_pending()),
                60..75 => self.take(&mut life),
                75..88 => self.settle(&mut life, Verdict::Delivered),
                88..90 => self.settle(&mut life, Verdict::Refused),
                90..93 => self.settle(&mut life, Verdict::Retry),
                _ => self.keep_house(&life),
            }
            self.hear();
            if self.disk.is_crashed() {
                break;
            }
            self.check_ledger(&life);
            let state = life.core.state();
            let files = state.disk_bytes();
            let is_alone = state.segments.iter().filter(|segment| segment.sequences.is_some()).count() <= 1;
            // Cursors of a few bytes are noted whatever the bound is.
            assert!(files <= bound || is_alone, "{files} bytes");
            assert!(state.ready_bytes <= self.options.head_bytes.max(1) + 60 * 260 + 20_000, "{}", state.ready_bytes);
        }
        if !self.disk.is_crashed() && self.random.bool() {
            // A stop in order: what is held comes back after it.
            life.core.stop();
            life.core.run();
            self.hear();
        }
        self.dropped += Self::dropped_by_bounds(&life);
        // What is held dies with the process: nobody settles it.
        let Life { core, held, .. } = life;
        core.close(true);
        drop(held);
    }

    /// After all crashes everything that is left is delivered, and nothing stays behind.
    fn drain(&mut self, mut life: Life) {
        for _ in 0..10_000 {
            let before = life.held.len();
            self.take(&mut life);
            if life.held.len() == before {
                break;
            }
        }
        while !life.held.is_empty() {
            self.settle(&mut life, Verdict::Delivered);
        }
        self.keep_house(&life);
        self.check_ledger(&life);
        assert!(life.core.state().is_settled());
        self.dropped += Self::dropped_by_bounds(&life);
        let left: Vec<u64> = self.fates.iter().filter(|(_, f)| **f == Fate::Stored).map(|(id, _)| *id).collect();
        let left_records: u64 = left.iter().map(|id| records_of(*id)).sum();
        if self.options.sync != SyncPolicy::Never {
            assert!(left_records <= if self.drops() { self.dropped } else { 0 }, "never delivered: {left:?}");
        }
        drop(life);
        let report = self.open().unwrap().core;
        assert_eq!(report.state().waiting_records(), 0);
        let files = report.state().disk_bytes();
        assert!(files <= self.options.segment_bytes.max(4000) * 2, "{files} bytes of settled entries");
    }

    fn run(mut self) {
        let faulty = self.random.u8(..3) == 0;
        for _ in 0..self.random.usize(1..5) {
            let short_read = if self.random.bool() { 0.2 } else { 0.0 };
            let rate = if faulty { 0.1 } else { 0.0 };
            self.disk.set_faults(Faults { sync: rate, full: rate, write: rate / 2.0, short_read });
            if self.random.u8(..4) != 0 {
                self.disk.crash_after(self.random.u64(..80));
            }
            if let Some(life) = self.open() {
                self.live(life);
            }
            self.heard.lock().unwrap().clear();
            self.disk.restart();
        }
        self.disk.set_faults(Faults::default());
        let life = self.open().unwrap();
        self.drain(life);
    }
}

fn try_seed(seed: u64) {
    let result = std::panic::catch_unwind(|| Trial::new(seed).run());
    if let Err(panic) = result {
        eprintln!("the seed is {seed}: repeat it with WEIR_SEED={seed} cargo test -p weir-pipeline any_crash");
        std::panic::resume_unwind(panic);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_invented_by_any_crash() {
    if let Some(seed) = number("WEIR_SEED") {
        return try_seed(seed);
    }
    let seeds = number("WEIR_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    try_seed(seed);
                }
            });
        }
    });
}
