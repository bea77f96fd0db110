//! One guarantee of the queue on disk per test.

mod model;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_model::{Batch, Encoding, Payload, Receipt, Signal, Verdict, Wire};

use crate::disk::simulated::{Faults, SimulatedDisk};
use crate::disk::{Disk, RealDisk};
use crate::ledger::{Counts, Ledger, LedgerFile, Reason, Row, read};
use crate::memory_budget::MemoryBudget;
use crate::options::WhenFull;
use crate::queue::durable::core::{Core, OpenReport};
use crate::queue::durable::options::{DiskQueueOptions, SharedQuota, SyncPolicy};
use crate::queue::durable::record::{Header, Kind, Parsed, Place};
use crate::queue::durable::shortage::Shortage;
use crate::queue::durable::state::{Awaited, Front, Repeats};
use crate::queue::durable::survey::{Depth, SegmentSurvey, survey};
use crate::queue::durable::writer::Wrote;
use crate::queue::durable::{DiskQueue, Key, OpenError, export, inspect, ledger_rows, segment, verify};
use crate::queue::{Entry, Queue, TakeLimits, Taken};

const LIMITS: TakeLimits = TakeLimits { records: 1, bytes: 1, linger: Duration::ZERO };
const ALL: TakeLimits = TakeLimits { records: usize::MAX, bytes: usize::MAX, linger: Duration::ZERO };

fn folder() -> PathBuf {
    PathBuf::from("queue")
}

fn options() -> DiskQueueOptions {
    DiskQueueOptions { reserve_bytes: 0, cursor_interval: Duration::ZERO, ..DiskQueueOptions::new(1 << 30) }
}

fn payload(bytes: impl Into<Bytes>, records: usize) -> Payload {
    Payload::from_wire(Signal::Logs, Wire { encoding: Encoding::Protobuf, bytes: bytes.into() }, records)
}

struct Fixture {
    core: Arc<Core>,
    ledger: Arc<Ledger>,
    report: OpenReport,
    heard: Arc<Mutex<Vec<Verdict>>>,
}

fn try_open(
    disk: Arc<dyn Disk>,
    folder: &Path,
    options: DiskQueueOptions,
    now_ms: Arc<AtomicI64>,
) -> Result<Fixture, OpenError> {
    let ledger = Arc::new(Ledger::default());
    let clock = Arc::new(move || now_ms.load(Ordering::Relaxed));
    let (core, report) = Core::open(disk, folder.to_owned(), &Arc::from("backend"), ledger.clone(), options, clock)?;
    Ok(Fixture { core: Arc::new(core), ledger, report, heard: Arc::default() })
}

fn open(disk: &SimulatedDisk, options: DiskQueueOptions) -> Fixture {
    try_open(Arc::new(disk.clone()), &folder(), options, Arc::new(AtomicI64::new(1000))).unwrap()
}

impl Fixture {
    fn entry(&self, bytes: impl Into<Bytes>, records: usize) -> Entry {
        let origin: Arc<str> = Arc::from("source");
        let row = self.ledger.row(&origin, &Arc::from("backend"), Signal::Logs);
        let heard = self.heard.clone();
        let receipt = Receipt::new(move |settled| heard.lock().unwrap().push(settled.verdict));
        Entry {
            batch: Batch { origin, payload: payload(bytes, records), receipt },
            row,
            since: tokio::time::Instant::now(),
        }
    }

    fn push(&self, bytes: impl Into<Bytes>, records: usize) -> Result<(), Reason> {
        self.core.push(self.entry(bytes, records))
    }

    fn store(&self, bytes: impl Into<Bytes>, records: usize) {
        self.push(bytes, records).unwrap();
        assert_eq!(self.core.write_pending(), Wrote::Group);
    }

    fn heard(&self) -> Vec<Verdict> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }

    fn take(&self, limits: TakeLimits) -> Vec<Taken> {
        loop {
            match self.core.grab(limits) {
                Front::Taken(taken) => return self.core.hand_out(taken),
                Front::Unread => self.core.refill(limits).unwrap(),
                _ => return Vec::new(),
            }
        }
    }

    /// Takes and delivers everything; the payloads.
    fn drain(&self) -> Vec<Bytes> {
        let mut payloads = Vec::new();
        loop {
            let taken = self.take(ALL);
            if taken.is_empty() {
                return payloads;
            }
            for Taken { batch, account, .. } in taken {
                account.deliver(batch.payload.len() as u64);
                payloads.push(batch.payload.wire().unwrap().bytes.clone());
                batch.receipt.settle(Verdict::Delivered);
            }
        }
    }

    fn counts(&self) -> Counts {
        let counts = self.ledger.row(&Arc::from("source"), &Arc::from("backend"), Signal::Logs).counts();
        assert_eq!(counts.difference(), 0, "{counts:?}");
        counts
    }

    fn dropped(&self, reason: Reason) -> u64 {
        self.counts().dropped.get(&reason).copied().unwrap_or_default()
    }
}

fn text(at: usize) -> Bytes {
    Bytes::from(format!("payload number {at:06}").into_bytes())
}

fn texts(at: std::ops::Range<usize>) -> Vec<Bytes> {
    at.map(text).collect()
}

#[test]
fn a_source_hears_only_after_the_sync_and_a_group_shares_one() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    (0..10).for_each(|at| queue.push(text(at), 1).unwrap());
    assert_eq!((queue.heard(), disk.syncs()), (vec![], 0));
    assert_eq!(queue.core.write_pending(), Wrote::Group);
    assert_eq!((queue.heard(), disk.syncs()), (vec![Verdict::Delivered; 10], 1));
    let each = open(&SimulatedDisk::new(1, u64::MAX), DiskQueueOptions { sync: SyncPolicy::Each, ..options() });
    (0..3).for_each(|at| each.push(text(at), 1).unwrap());
    assert_eq!(each.core.write_pending(), Wrote::Group);
    assert_eq!(each.heard().len(), 1);
}

#[test]
fn what_was_not_settled_is_found_again_and_counted_again() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    (0..10).for_each(|at| queue.store(text(at), 2));
    let taken = queue.take(TakeLimits { records: 8, ..ALL });
    assert_eq!(taken.len(), 4);
    for (at, Taken { batch, account, .. }) in taken.into_iter().enumerate() {
        // The third is still under way; the fourth does not wait for it.
        if at != 2 {
            account.deliver(2);
            batch.receipt.settle(Verdict::Delivered);
        } else {
            std::mem::forget(batch.receipt);
        }
    }
    queue.core.keep_house(true);
    let again = open(&disk, options());
    assert_eq!(again.report.waiting.iter().map(|found| (found.entries, found.records)).collect::<Vec<_>>(), [(7, 14)]);
    let counts = again.counts();
    assert_eq!((counts.accepted, counts.delivered, counts.queued), (20, 6, 14));
    assert_eq!(again.drain(), [texts(2..3), texts(4..10)].concat());
    assert_eq!(again.counts().delivered, 20);
}

#[test]
fn a_kill_repeats_at_most_one_window_behind_a_stuck_entry_and_that_costs_no_syncs() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let hour = Duration::from_secs(3600);
    let queue = open(&disk, DiskQueueOptions { cursor_interval: hour, ..options() });
    (0..40).for_each(|at| queue.store(text(at), 2));
    queue.core.state().repeats = Some(Repeats { after_kill: 8, after_crash: 1000 });
    let (mut waited, mut delivered) = (0, Vec::new());
    let syncs = disk.syncs();
    let stuck = queue.take(LIMITS);
    while delivered.len() < 30 {
        let Some(Taken { batch, account, .. }) = queue.take(LIMITS).pop() else {
            assert_eq!(queue.core.state().awaited, Some(Awaited::Written), "nothing else holds it up");
            queue.core.keep_house(false);
            waited += 1;
            continue;
        };
        account.deliver(2);
        delivered.push(batch.payload.wire().unwrap().bytes.clone());
        batch.receipt.settle(Verdict::Delivered);
    }
    assert_eq!((waited, disk.syncs()), (9, syncs), "three entries of two records for each that was written");
    std::mem::forget(stuck);
    disk.restart_process();
    let again = open(&disk, options());
    let waiting: u64 = again.report.waiting.iter().map(|found| found.records).sum();
    assert_eq!(waiting, 2 + 3 * 2 + 9 * 2, "the stuck one, one window, and what was never given");
    assert_eq!((again.counts().accepted, again.counts().delivered), (80, 54));
    let found = again.drain();
    assert_eq!(found.iter().filter(|bytes| delivered.contains(bytes)).count(), 3);
    assert_eq!(found[0], text(0));
}

#[test]
fn what_comes_back_from_a_worker_is_taken_again_and_first() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    (0..4).for_each(|at| queue.store(text(at), 1));
    let first = queue.take(LIMITS);
    let second = queue.take(LIMITS);
    drop(second);
    drop(first);
    assert_eq!(queue.counts().queued, 4);
    assert_eq!(queue.drain(), texts(0..4));
}

#[test]
fn what_was_settled_behind_an_entry_that_came_back_is_not_read_again_when_memory_is_short() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, DiskQueueOptions { head_bytes: 0, ..options() });
    (0..4).for_each(|at| queue.store(text(at), 1));
    let mut taken = queue.take(TakeLimits { records: 3, ..ALL });
    let Taken { batch, account, .. } = taken.pop().unwrap();
    account.deliver(1);
    batch.receipt.settle(Verdict::Delivered);
    drop(taken);
    queue.core.refill(LIMITS).unwrap();
    queue.core.shrink_head();
    assert_eq!(queue.drain(), [text(0), text(1), text(3)]);
    assert_eq!((queue.counts().delivered, queue.counts().queued), (4, 0));
}

#[test]
fn what_its_sender_gave_up_before_it_was_written_is_never_delivered() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    let (receipt, claim) = Receipt::with_claim(|_| {});
    let mut entry = queue.entry(text(0), 2);
    entry.batch.receipt = receipt;
    queue.core.push(entry).unwrap();
    queue.push(text(1), 1).unwrap();
    claim.withdraw();
    assert_eq!(queue.core.write_pending(), Wrote::Group);
    assert_eq!((queue.drain(), queue.dropped(Reason::Withdrawn)), (texts(1..2), 2));
}

#[test]
fn after_close_what_comes_back_waits_for_the_next_opening() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    queue.store(text(0), 1);
    let taken = queue.take(LIMITS);
    queue.core.close(false);
    assert_eq!(queue.push(text(1), 1), Err(Reason::Stopped));
    drop(taken);
    assert!(matches!(queue.core.grab(LIMITS), Front::Ended));
    queue.core.keep_house(true);
    assert_eq!(open(&disk, options()).drain(), texts(0..1));
}

#[test]
fn memory_is_bounded_whatever_waits() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, DiskQueueOptions { head_bytes: 10_000, segment_bytes: 100_000, ..options() });
    let big = |at: u8| Bytes::from(vec![at; 5000]);
    (0..200).for_each(|at| queue.store(big(at), 1));
    assert!(queue.core.state().ready_bytes <= 10_000);
    assert!(queue.core.state().segments.len() > 5);
    let limits = TakeLimits { records: 3, ..ALL };
    for at in 0..200_u8 {
        let taken = queue.take(TakeLimits { records: 1, ..limits });
        assert_eq!(taken[0].batch.payload.wire().unwrap().bytes, big(at));
        assert!(queue.core.state().ready_bytes <= 20_000);
        taken.into_iter().for_each(|taken| taken.batch.receipt.settle(Verdict::Delivered));
    }
    queue.core.keep_house(true);
    assert_eq!(queue.core.state().segments.len(), 1, "what is settled is removed");
}

#[test]
fn a_flipped_bit_costs_one_record_and_its_place_is_reported() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    (0..5).for_each(|at| queue.store(text(at), 1));
    drop(queue);
    let path = segment::path(&folder(), 1);
    let bits = disk.content(&path).len() * 8;
    for bit in 0..bits {
        disk.flip(&path, bit);
        let whole = verify(&disk, &folder()).unwrap();
        let damage = &whole.damage;
        assert_eq!(damage.len(), 1, "bit {bit}: {damage:?}");
        assert!(damage[0].offset * 8 <= bit as u64 && (bit as u64) < (damage[0].offset + damage[0].bytes) * 8);
        // Looked at headers only, the damage of a payload is found when it is read.
        let mut found = Vec::new();
        export(&disk, &folder(), None, |entry| {
            found.extend(entry.payload);
            Ok(())
        })
        .unwrap();
        assert!(found.len() >= 4, "bit {bit}");
        assert!(found.iter().all(|payload| texts(0..5).contains(payload)), "bit {bit}");
        disk.flip(&path, bit);
    }
    assert!(verify(&disk, &folder()).unwrap().damage.is_empty());
}

#[test]
fn every_segment_begins_with_a_cursor_so_that_opening_need_not_look_further_back() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, DiskQueueOptions { segment_bytes: 300, ..options() });
    (0..10).for_each(|at| queue.store(text(at), 1));
    let listed = disk.list(&folder()).unwrap();
    assert!(listed.len() > 2, "{listed:?}");
    for file in listed {
        let content = disk.content(&folder().join(&file.name));
        let place = Place { segment: segment::number(&file.name).unwrap(), offset: segment::BEGINNING_BYTES as u64 };
        let first = Header::read(&content[segment::BEGINNING_BYTES..], place);
        assert!(matches!(first, Parsed::Whole(Header { kind: Kind::Cursor, .. })), "{first:?}");
    }
}

#[test]
fn the_end_of_a_write_that_was_never_finished_is_reported_once_and_cut_off() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    (0..2).for_each(|at| queue.store(text(at), 1));
    let path = segment::path(&folder(), 1);
    let whole = disk.content(&path);
    queue.store(text(2), 1);
    disk.truncate(&path, disk.content(&path).len() as u64 - 1).unwrap();
    let again = open(&disk, options());
    assert!(matches!(again.report.damage.as_slice(), [damage] if damage.is_torn), "{:?}", again.report.damage);
    assert_eq!(disk.content(&path), whole);
    assert_eq!((open(&disk, options()).report.damage, again.drain()), (vec![], texts(0..2)));
}

#[test]
fn damage_behind_the_newest_segment_is_counted_as_unreadable_when_it_is_read() {
    for in_header in [true, false] {
        let disk = SimulatedDisk::new(1, u64::MAX);
        let small = DiskQueueOptions { segment_bytes: 300, head_bytes: 0, ..options() };
        let queue = open(&disk, small.clone());
        (0..20).for_each(|at| queue.store(text(at), 3));
        let entry_at = inspect(&disk, &folder()).unwrap().segments[0].first_waiting.unwrap() as usize;
        disk.flip(&segment::path(&folder(), 1), (entry_at + if in_header { 10 } else { 50 }) * 8);
        let found = queue.drain();
        assert_eq!((found.len(), queue.dropped(Reason::Unreadable)), (19, 3), "in header: {in_header}");
        let counts = queue.counts();
        assert_eq!((counts.delivered, counts.queued), (57, 0));
    }
}

#[test]
fn what_a_segment_says_at_its_end_is_what_a_walk_through_it_finds() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, DiskQueueOptions { segment_bytes: 700, ..options() });
    (0..30).for_each(|at| queue.store(text(at), 1 + at % 3));
    let taken = queue.take(TakeLimits { records: 30, ..ALL });
    taken.into_iter().enumerate().filter(|(at, _)| at % 5 != 0).for_each(|(_, taken)| {
        taken.account.deliver(taken.batch.payload.len() as u64);
        taken.batch.receipt.settle(Verdict::Delivered);
    });
    queue.core.finish();
    let said = |depth| {
        let found = survey(&disk, &folder(), depth).unwrap();
        assert!(found.damage.is_empty(), "{:?}", found.damage);
        let text = |segment: &SegmentSurvey| format!("{segment:?}");
        (found.segments.iter().map(text).collect::<Vec<_>>(), found.waiting())
    };
    assert!(said(Depth::Headers).0.len() > 3);
    assert_eq!(said(Depth::Headers), said(Depth::Everything));
}

#[test]
fn a_bit_that_flips_after_a_stop_is_counted_also_in_the_newest_segment() {
    for in_header in [true, false] {
        let disk = SimulatedDisk::new(1, u64::MAX);
        let queue = open(&disk, options());
        (0..9).for_each(|at| queue.store(text(at), 3));
        queue.core.finish();
        let entry_at = inspect(&disk, &folder()).unwrap().segments[0].first_waiting.unwrap() as usize;
        disk.flip(&segment::path(&folder(), 1), (entry_at + if in_header { 10 } else { 50 }) * 8);
        let again = open(&disk, options());
        assert_eq!(again.counts().queued, 27);
        assert_eq!(again.drain(), texts(1..9));
        let counts = again.counts();
        assert_eq!((counts.delivered, counts.queued, again.dropped(Reason::Unreadable)), (24, 0, 3));
    }
}

#[test]
fn what_the_disk_cannot_read_is_counted_and_the_rest_goes_on() {
    for opened_before in [true, false] {
        let disk = SimulatedDisk::new(1, u64::MAX);
        let small = DiskQueueOptions { segment_bytes: 40_000, head_bytes: 0, ..options() };
        let before = open(&disk, small.clone());
        (0..40).for_each(|at| before.store(vec![at; 5000], 1));
        disk.spoil(&segment::path(&folder(), 2), 8192..12288);
        let queue = if opened_before { before } else { open(&disk, small) };
        let queued = queue.counts().queued;
        let found = queue.drain().len() as u64;
        assert!((37..40).contains(&found), "{found}");
        assert_eq!(found + queue.dropped(Reason::Unreadable), queued);
    }
}

#[test]
fn a_full_disk_holds_sources_back_and_recovers_by_itself() {
    let disk = SimulatedDisk::new(1, 1500);
    let queue = open(&disk, options());
    (0..15).for_each(|at| queue.store(text(at), 1));
    queue.heard();
    queue.push(Bytes::from(vec![1; 800]), 1).unwrap();
    assert_eq!(queue.core.write_pending(), Wrote::NoRoom);
    assert_eq!(queue.push(text(99), 1), Err(Reason::QueueFull));
    assert!(!queue.core.has_room(1));
    queue.heard();
    assert_eq!(queue.core.write_pending(), Wrote::NoRoom);
    disk.set_capacity(1 << 20);
    assert_eq!(queue.core.write_pending(), Wrote::Group);
    assert_eq!(queue.heard(), [Verdict::Delivered]);
    assert!(queue.core.has_room(1));
    assert_eq!(queue.drain().len(), 16);
    assert_eq!(queue.counts().dropped_total(), 0);
}

#[test]
fn what_the_disk_knows_to_be_settled_stays_so_when_a_full_disk_takes_not_even_a_cursor() {
    for seed in 0..1000 {
        let disk = SimulatedDisk::new(seed, u64::MAX);
        let queue = open(&disk, DiskQueueOptions { segment_bytes: 200, reserve_bytes: 1000, ..options() });
        (0..4).for_each(|at| queue.store(text(at), 1));
        queue.drain();
        queue.core.keep_house(true);
        queue.store(text(4), 1);
        queue.drain();
        disk.set_capacity(disk.used_bytes());
        queue.push(text(5), 1).unwrap();
        // All is settled, so all is removed, and the cursor is noted anew, if there is time.
        disk.crash_after(seed % 25);
        queue.core.write_pending();
        disk.restart();
        disk.set_capacity(u64::MAX);
        let again = open(&disk, options()).drain();
        assert!(texts(0..4).iter().all(|known| !again.contains(known)), "seed {seed}: {again:?}");
    }
}

#[test]
fn the_reserve_of_the_file_system_is_kept() {
    let disk = SimulatedDisk::new(1, 100_000);
    let queue = open(&disk, DiskQueueOptions { reserve_bytes: 50_000, ..options() });
    let mut stored = 0;
    while queue.push(vec![0; 1000], 1).is_ok() && queue.core.write_pending() == Wrote::Group {
        stored += 1;
    }
    assert!((40..50).contains(&stored), "{stored}");
    assert!(disk.free_bytes(&folder()).unwrap() >= 50_000);
}

#[test]
fn a_failed_sync_sends_its_group_back_and_ends_its_segment() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    queue.store(text(0), 1);
    disk.set_faults(Faults { sync: 1.0, ..Faults::default() });
    queue.push(text(1), 1).unwrap();
    assert_eq!(queue.core.write_pending(), Wrote::Group);
    assert_eq!(queue.heard(), [Verdict::Delivered, Verdict::Retry]);
    assert_eq!(queue.dropped(Reason::NotStored), 1);
    disk.set_faults(Faults::default());
    queue.store(text(2), 1);
    assert_eq!(queue.core.state().segments.iter().map(|segment| segment.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(queue.drain(), [text(0), text(2)]);
}

#[test]
fn what_cannot_be_sent_again_waits_when_a_sync_fails_and_the_failure_is_shown() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    disk.set_faults(Faults { sync: 1.0, ..Faults::default() });
    queue.push(text(0), 1).unwrap();
    let mut poll = queue.entry(text(1), 1);
    poll.batch.receipt.settle(Verdict::Delivered);
    poll.batch.receipt = Receipt::unclaimed();
    queue.heard();
    queue.core.push(poll).unwrap();
    assert_eq!(queue.core.write_pending(), Wrote::NoRoom);
    assert_eq!((queue.heard(), queue.dropped(Reason::NotStored)), (vec![Verdict::Retry], 1));
    assert!(matches!(queue.core.shortage(1), Some(Shortage::Disk(_))));
    disk.set_faults(Faults::default());
    assert_eq!(queue.core.write_pending(), Wrote::Group);
    assert_eq!((queue.drain(), queue.core.shortage(1)), (vec![text(1)], None));
}

#[test]
fn a_row_goes_on_after_a_kill_as_if_there_was_none() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    (0..4).for_each(|at| queue.store(text(at), 10));
    queue.counts();
    queue.ledger.row(&Arc::from("source"), &Arc::from("backend"), Signal::Logs).accept_and_drop(3, Reason::Filtered);
    let mut taken = queue.take(TakeLimits { records: 30, ..ALL });
    let third = taken.pop().unwrap();
    for Taken { batch, account, .. } in taken {
        account.deliver(5);
        account.dead_letter(3);
        account.drop_in_flight(2, Reason::Expired);
        batch.receipt.settle(Verdict::Refused);
    }
    // Partly delivered, and then given back: all of it comes again, and counts once.
    third.account.deliver(4);
    drop(third);
    queue.core.keep_house(true);
    let before = queue.counts();
    assert_eq!((before.delivered, before.dead_lettered, before.queued, before.in_flight), (10, 6, 20, 0));
    std::mem::forget(queue.core);
    disk.restart();
    let again = open(&disk, options());
    assert_eq!(again.counts(), before);
    assert!(!again.report.begins_anew);
    let rows = ledger_rows(&disk, &folder(), &Arc::from("backend")).unwrap();
    assert_eq!(rows.into_iter().map(|(_, counts)| counts).collect::<Vec<_>>(), [before]);
}

#[test]
fn a_queue_opened_again_in_one_process_keeps_its_rows() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, options());
    queue.store(text(0), 5);
    queue.drain();
    queue.store(text(1), 7);
    queue.core.keep_house(true);
    let row = queue.ledger.row(&Arc::from("source"), &Arc::from("backend"), Signal::Logs);
    row.accept_and_drop(2, Reason::QueueFull);
    let before = queue.counts();
    let clock = Arc::new(|| 1000);
    let opened = Core::open(Arc::new(disk), folder(), &Arc::from("backend"), queue.ledger.clone(), options(), clock);
    assert_eq!((row.counts(), opened.is_ok()), (before, true));
}

#[test]
fn rows_go_on_while_an_exporter_has_no_queue_on_disk_and_when_it_has_one_again() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let (path, shared) = (PathBuf::from("data/ledger.json"), Arc::new(disk.clone()));
    let (source, exporter): (Arc<str>, Arc<str>) = (Arc::from("source"), Arc::from("backend"));
    let start = || {
        let ledger = Arc::new(Ledger::default());
        let file = LedgerFile::open(shared.clone(), path.clone(), &ledger);
        let row = ledger.row(&source, &exporter, Signal::Logs);
        (ledger, file, row)
    };
    let open = |ledger: &Arc<Ledger>| {
        let opened = Core::open(shared.clone(), folder(), &exporter, ledger.clone(), options(), Arc::new(|| 1000));
        let (core, report) = opened.unwrap();
        Fixture { core: Arc::new(core), ledger: ledger.clone(), report, heard: Arc::default() }
    };
    let deliver_without_queue = |row: &Row| {
        row.accept(7);
        row.take(7);
        row.deliver(7);
    };
    // On disk, then in memory by a reload, while the rest of the queue is delivered.
    let (ledger, file, row) = start();
    let queue = open(&ledger);
    queue.store(text(0), 5);
    queue.drain();
    queue.store(text(1), 3);
    queue.core.keep_house(true);
    file.save(&ledger).unwrap();
    assert_eq!(read(&disk, &path).unwrap().len(), 0, "the log has the row");
    ledger.has_no_queue("backend");
    deliver_without_queue(&row);
    queue.drain();
    queue.core.keep_house(true);
    file.save(&ledger).unwrap();
    assert_eq!(queue.counts().delivered, 15);
    drop((queue, file));
    // In memory after a restart too, then on disk by a reload.
    disk.restart();
    let (ledger, file, row) = start();
    deliver_without_queue(&row);
    row.accept_and_drop(1, Reason::Filtered);
    file.save(&ledger).unwrap();
    let queue = open(&ledger);
    assert_eq!((queue.counts().delivered, queue.dropped(Reason::Filtered)), (22, 1));
    queue.core.keep_house(true);
    queue.store(text(2), 2);
    queue.drain();
    queue.core.keep_house(true);
    drop(queue);
    // Whether the file still has the row or not: each counts once.
    for _ in 0..2 {
        disk.restart();
        let (ledger, file, row) = start();
        let queue = open(&ledger);
        assert_eq!((queue.counts().delivered, queue.dropped(Reason::Filtered)), (24, 1));
        file.save(&ledger).unwrap();
        assert_eq!(read(&disk, &path).unwrap().len(), 0, "the log has the row");
        assert_eq!(row.counts().queued, 0);
    }
}

#[test]
fn a_log_without_sums_opens_and_its_rows_begin_anew() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let mut bytes = segment::beginning([0; 8]).to_vec();
    let place = Place { segment: 1, offset: bytes.len() as u64 };
    Header::own(Kind::Cursor, 5, 1000, &[]).write(&mut bytes, place);
    let file = disk.create(&segment::path(&folder(), 1)).unwrap();
    file.append(&mut [std::io::IoSlice::new(&bytes)]).unwrap();
    let queue = open(&disk, options());
    assert!(queue.report.begins_anew && queue.report.damage.is_empty());
    queue.store(text(0), 1);
    queue.drain();
    queue.core.keep_house(true);
    let again = open(&disk, options());
    assert_eq!((again.report.begins_anew, again.counts().delivered), (false, 1));
}

#[test]
fn memory_that_is_short_holds_sources_back_but_never_deliveries() {
    let budget = MemoryBudget::new(20_000);
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, DiskQueueOptions { budget: Some(budget.clone()), ..options() });
    for at in 0..50 {
        queue.store(vec![at; 1000], 1);
        assert!(budget.used() <= 20_000, "what stands on the disk leaves memory");
    }
    let others = budget.reserve_anyway(20_000);
    assert!(matches!(queue.core.shortage(1000), Some(Shortage::Memory(20_000))));
    assert_eq!(queue.push(vec![0; 1000], 1), Err(Reason::MemoryFull));
    assert_eq!((queue.core.state().ready_bytes, budget.used()), (0, 20_000), "the head is given up");
    let found = queue.drain();
    assert_eq!(found.iter().map(|payload| payload[0]).collect::<Vec<_>>(), (0..50).collect::<Vec<u8>>());
    drop(others);
    assert_eq!(budget.used(), 0);
    queue.push(vec![0; 50_000], 1).unwrap();
    assert_eq!(queue.push(vec![0; 1], 1), Err(Reason::MemoryFull), "a large one passes alone");
}

#[test]
fn bounds_change_while_a_queue_is_open() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, DiskQueueOptions { limit_bytes: 10_000, ..options() });
    while queue.core.has_room(1000) {
        queue.store(vec![0; 1000], 1);
    }
    assert!(matches!(queue.core.shortage(1000), Some(Shortage::Bound(10_000))));
    queue.core.change_options(|options| options.limit_bytes = 20_000);
    assert!(queue.core.has_room(1000));
    queue.core.change_options(|options| (options.limit_bytes, options.when_full) = (5000, WhenFull::DropOldest));
    queue.store(vec![1; 1000], 1);
    assert!(queue.core.state().disk_bytes() <= 5000);
    assert_eq!(queue.drain().last().unwrap()[0], 1);
    queue.counts();
}

#[test]
fn a_full_queue_refuses_or_drops_its_oldest_and_never_exceeds_its_bound() {
    for when_full in [WhenFull::Block, WhenFull::DropOldest] {
        let disk = SimulatedDisk::new(1, u64::MAX);
        let limits = DiskQueueOptions { limit_bytes: 20_000, segment_bytes: 4000, when_full, ..options() };
        let queue = open(&disk, DiskQueueOptions { head_bytes: 3000, ..limits });
        let mut stored = 0;
        let under_way = loop {
            if stored == 3 {
                break queue.take(LIMITS);
            }
            queue.store(vec![0; 1000], 2);
            stored += 1;
        };
        for at in 1..100 {
            let bytes = vec![at; 1000];
            match when_full {
                WhenFull::Block if !queue.core.has_room(bytes.len()) => {
                    assert_eq!(queue.push(bytes, 2), Err(Reason::QueueFull));
                }
                _ => {
                    queue.store(bytes, 2);
                    stored += 1;
                }
            }
            assert!(queue.core.state().disk_bytes() <= 20_000);
        }
        under_way.into_iter().for_each(|taken| taken.batch.receipt.settle(Verdict::Delivered));
        let dropped = queue.dropped(Reason::QueueFull);
        let left = queue.drain();
        assert_eq!(2 * (left.len() as u64 + 1) + dropped, 2 * stored);
        if when_full == WhenFull::DropOldest {
            assert_eq!((stored, left.last().unwrap()[0]), (102, 99));
            assert!(left.len() > 10 && left.is_sorted_by(|a, b| a[0] <= b[0]), "{}", left.len());
        } else {
            assert_eq!((dropped, stored), (0, 18));
        }
    }
}

#[test]
fn a_batch_above_the_bound_goes_through_alone() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, DiskQueueOptions { limit_bytes: 5000, ..options() });
    queue.store(text(0), 1);
    assert!(!queue.core.has_room(10_000));
    queue.drain();
    assert!(queue.core.has_room(10_000));
    queue.store(vec![1; 10_000], 1);
    assert!(!queue.core.has_room(1));
    assert_eq!(queue.drain().len(), 1);
    assert!(queue.core.has_room(1));
}

#[test]
fn entries_that_are_too_old_are_dropped_and_counted_in_memory_and_on_disk() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let now_ms = Arc::new(AtomicI64::new(1_000_000));
    let aged =
        DiskQueueOptions { max_age: Some(Duration::from_secs(60)), head_bytes: 1500, segment_bytes: 300, ..options() };
    let queue = try_open(Arc::new(disk.clone()), &folder(), aged.clone(), now_ms.clone()).unwrap();
    (0..30).for_each(|at| queue.store(text(at), 1));
    now_ms.fetch_add(59_000, Ordering::Relaxed);
    queue.core.keep_house(true);
    assert_eq!(queue.counts().queued, 30);
    queue.store(text(30), 1);
    now_ms.fetch_add(2000, Ordering::Relaxed);
    queue.core.keep_house(true);
    assert!(queue.core.state().segments.len() <= 2, "disk space comes back without a take");
    assert_eq!(queue.drain(), [text(30)]);
    assert_eq!((queue.dropped(Reason::Expired), queue.counts().delivered), (30, 1));
    // Over a restart, the wall clock counts.
    queue.store(text(31), 1);
    now_ms.fetch_add(61_000, Ordering::Relaxed);
    let again = try_open(Arc::new(disk), &folder(), aged, now_ms).unwrap();
    assert_eq!((again.drain().len(), again.dropped(Reason::Expired)), (0, 31));
}

#[test]
fn queues_share_a_bound() {
    let shared = Arc::new(SharedQuota::new(10_000));
    let limits = DiskQueueOptions { shared: Some(shared.clone()), ..options() };
    let first = open(&SimulatedDisk::new(1, u64::MAX), limits.clone());
    let second = open(&SimulatedDisk::new(2, u64::MAX), limits);
    first.store(vec![0; 7000], 1);
    assert!(second.core.has_room(2000) && !second.core.has_room(4000));
    second.store(vec![0; 2000], 1);
    assert_eq!(second.push(vec![0; 2000], 1), Err(Reason::QueueFull));
    first.drain();
    first.core.keep_house(true);
    let used = shared.used_bytes();
    drop((first, second));
    assert!(used > 0 && shared.used_bytes() == 0);
}

#[test]
fn encrypted_payloads_are_hidden_and_another_key_is_a_question_to_a_person() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let locked = |byte| DiskQueueOptions { key: Some(Key::new([byte; 32])), ..options() };
    let queue = open(&disk, locked(1));
    (0..3).for_each(|at| queue.store(text(at), 1));
    drop(queue);
    let content = disk.content(&segment::path(&folder(), 1));
    assert!(!content.windows(14).any(|window| window == b"payload number"));
    for wrong in [locked(2), options()] {
        let refused = try_open(Arc::new(disk.clone()), &folder(), wrong, Arc::default());
        assert!(matches!(refused, Err(OpenError::Key { .. })));
    }
    assert!(verify(&disk, &folder()).unwrap().damage.is_empty(), "no key is needed to verify");
    let queue = open(&disk, DiskQueueOptions { head_bytes: 0, ..locked(1) });
    assert_eq!(queue.drain(), texts(0..3));
    queue.core.keep_house(true);
    // Nothing waits any more that needs the old key.
    assert!(try_open(Arc::new(disk), &folder(), locked(2), Arc::default()).is_ok());
}

#[test]
fn a_segment_of_a_later_version_stops_the_opening() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let mut bytes = segment::beginning([0; 8]);
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.to_le_bytes());
    let file = disk.create(&segment::path(&folder(), 1)).unwrap();
    file.append(&mut [std::io::IoSlice::new(&bytes)]).unwrap();
    let refused = try_open(Arc::new(disk), &folder(), options(), Arc::default());
    assert!(matches!(refused, Err(OpenError::Newer { version: 9, .. })));
}

#[test]
fn a_folder_of_anything_opens() {
    for seed in 0..300 {
        let disk = SimulatedDisk::new(seed, u64::MAX);
        let queue = open(&disk, options());
        (0..4).for_each(|at| queue.store(text(at), 1));
        drop(queue);
        let mut random = fastrand::Rng::with_seed(seed);
        for (number, name) in ["00000002.queue", "00000003.queue", "x.queue", "lock"].iter().enumerate() {
            let file = disk.create(&folder().join(name)).unwrap();
            let length = random.usize(..3000);
            let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            if number == 1 {
                // Looks like records, but elsewhere.
                bytes.extend_from_slice(&disk.content(&segment::path(&folder(), 1)));
            }
            file.append(&mut [std::io::IoSlice::new(&bytes)]).unwrap();
        }
        let again = open(&disk, options());
        assert_eq!(again.drain(), texts(0..4));
        again.store(text(4), 1);
        assert_eq!(again.drain(), texts(4..5));
    }
}

#[test]
fn people_can_look_at_a_queue() {
    let disk = SimulatedDisk::new(1, u64::MAX);
    let queue = open(&disk, DiskQueueOptions { segment_bytes: 300, ..options() });
    (0..10).for_each(|at| queue.store(text(at), 2));
    let taken = queue.take(LIMITS);
    taken.into_iter().for_each(|taken| taken.batch.receipt.settle(Verdict::Delivered));
    queue.core.keep_house(true);
    let found = inspect(&disk, &folder()).unwrap();
    assert_eq!(
        found.waiting().iter().map(|found| (&*found.origin, found.signal, found.records)).collect::<Vec<_>>(),
        [("source", Signal::Logs, 18)]
    );
    assert_eq!(found.segments.iter().map(|segment| segment.entries).sum::<u64>(), 10);
    assert_eq!(found.oldest_ms(), Some(1000));
    let mut exported = Vec::new();
    export(&disk, &folder(), None, |entry| {
        exported.push(entry.payload.unwrap());
        Ok(())
    })
    .unwrap();
    assert_eq!(exported, texts(1..10));
}

fn real(folder: &Path, options: DiskQueueOptions) -> (DiskQueue, Arc<Ledger>, OpenReport) {
    let ledger = Arc::new(Ledger::default());
    let disk = Arc::new(RealDisk);
    let (queue, report) =
        DiskQueue::open(disk, folder.join("a/queue"), &Arc::from("backend"), ledger.clone(), options).unwrap();
    (queue, ledger, report)
}

#[tokio::test]
async fn on_a_real_disk_batches_survive_the_queue() {
    let folder = tempfile::tempdir().unwrap();
    let (queue, ledger, _) = real(folder.path(), DiskQueueOptions { head_bytes: 3000, ..options() });
    let row = ledger.row(&Arc::from("source"), &Arc::from("backend"), Signal::Logs);
    let mut waits = Vec::new();
    for at in 0..100 {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let receipt = Receipt::new(move |settled| _ = sender.send(settled.verdict));
        let batch = Batch { origin: Arc::from("source"), payload: payload(text(at), 1), receipt };
        queue.push(Entry { batch, row: row.clone(), since: tokio::time::Instant::now() }).unwrap();
        waits.push(receiver);
    }
    for wait in waits {
        assert_eq!(wait.await.unwrap(), Verdict::Delivered);
    }
    let limits = TakeLimits { records: 60, bytes: 1 << 20, linger: Duration::from_secs(600) };
    let taken = queue.take(limits).await.unwrap();
    assert_eq!(taken.len(), 60);
    taken.into_iter().for_each(|taken| taken.batch.receipt.settle(Verdict::Delivered));
    assert_eq!(queue.status().records, 40);
    drop(queue);
    let (queue, ledger, report) = real(folder.path(), options());
    assert_eq!((report.waiting[0].records, report.damage.len()), (40, 0));
    assert_eq!(ledger.snapshot()[0].1.queued, 40);
    queue.close();
    let mut found = Vec::new();
    while let Some(taken) = queue.take(limits).await {
        found.extend(taken.iter().map(|taken| taken.batch.payload.wire().unwrap().bytes.clone()));
        taken.into_iter().for_each(|taken| taken.batch.receipt.settle(Verdict::Delivered));
    }
    assert_eq!(found, texts(60..100));
}

/// Records and bytes per second and per CPU second, for batches as the Collector's tests send them.
#[test]
#[ignore = "a measurement: cargo test --release -p weir-pipeline measure_ -- --ignored --nocapture"]
fn measure_batches_of_512_logs_through_the_disk() {
    let folder = tempfile::tempdir_in(std::env::var_os("WEIR_MEASURE").unwrap_or(".".into())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (name, head_bytes) in [("memory head", 64 << 20), ("read back", 0)] {
        let (queue, ledger, _) = real(&folder.path().join(name), DiskQueueOptions { head_bytes, ..options() });
        let row = ledger.row(&Arc::from("source"), &Arc::from("backend"), Signal::Logs);
        let bytes = Bytes::from(vec![7; 230 << 10]);
        let (batches, begun, cpu) = (4000, Instant::now(), cpu_seconds());
        let queue = &queue;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..batches {
                    let batch = Batch {
                        origin: Arc::from("source"),
                        payload: payload(bytes.clone(), 512),
                        receipt: Receipt::unclaimed(),
                    };
                    let entry = Entry { batch, row: row.clone(), since: tokio::time::Instant::now() };
                    while !queue.has_room(bytes.len()) {
                        std::thread::park_timeout(Duration::from_millis(1));
                    }
                    queue.push(entry).unwrap();
                }
            });
            let limits = TakeLimits { records: 8192, bytes: 3 << 20, linger: Duration::ZERO };
            let mut delivered = 0;
            while delivered < batches {
                for taken in runtime.block_on(queue.take(limits)).unwrap() {
                    delivered += 1;
                    taken.batch.receipt.settle(Verdict::Delivered);
                }
            }
        });
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let (records, megabytes) = (f64::from(batches * 512), f64::from(batches) * 0.230);
        println!(
            "{name}: {:.0} records/s, {:.0} MB/s; {:.0} records and {:.0} MB per CPU second",
            records / wall,
            megabytes / wall,
            records / cpu,
            megabytes / cpu
        );
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

#[test]
#[ignore = "a measurement: cargo test --release -p weir-pipeline measure_ -- --ignored --nocapture"]
fn measure_opening_of_a_gibibyte() {
    let folder = tempfile::tempdir_in(std::env::var_os("WEIR_MEASURE").unwrap_or(".".into())).unwrap();
    for payload_bytes in [1 << 10, 230 << 10] {
        let below = folder.path().join(payload_bytes.to_string());
        let large = DiskQueueOptions::new(4 << 30);
        let disk = Arc::new(RealDisk);
        let queue = try_open(disk.clone(), &below, large.clone(), Arc::new(AtomicI64::new(1))).unwrap();
        let bytes = Bytes::from(vec![7; payload_bytes]);
        let entries = (1 << 30) / payload_bytes;
        for _ in 0..entries {
            while queue.push(bytes.clone(), 1).is_err() {
                queue.core.write_pending();
            }
        }
        while queue.core.write_pending() == Wrote::Group {}
        // As after a kill: the newest segment is not ended.
        drop(queue);
        for (state, prepare) in [("cached", None), ("not cached", Some(forget_cached as fn(&Path)))] {
            if let Some(prepare) = prepare {
                prepare(&below);
            }
            let begun = Instant::now();
            let queue = try_open(disk.clone(), &below, large.clone(), Arc::new(AtomicI64::new(1))).unwrap();
            println!("{entries} entries of {payload_bytes} bytes, {state}: opened in {:?}", begun.elapsed());
            assert_eq!(queue.counts().queued, entries as u64);
        }
    }
}

/// Makes the system read the files of a folder from the disk again.
fn forget_cached(folder: &Path) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    }
}
