//! What a queue knows, behind one lock that is never held while the disk works.
//!
//! Entries are numbered. Those in memory (`ready`) are the oldest that wait; what does not fit there
//! is on disk only, from `read_at` on, and of it nothing is kept but sums per segment. So memory does
//! not grow with what waits. The cursor is the lowest number that is not settled.

mod entries;
mod segments;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use weir_model::{Receipt, Signal, Verdict};

use crate::ledger::{Reason, Settled, Totals};
use crate::options::WhenFull;
use crate::queue::TakeLimits;
use crate::queue::durable::options::DiskQueueOptions;
use crate::queue::durable::ranges::{self, Ranges};
use crate::queue::durable::record::Place;
use crate::queue::durable::shortage::Shortage;
use crate::queue::durable::totals::{self, RowTotals};

pub use entries::{Pending, UnderWay, Waiting};
pub use segments::Segment;

/// How much was settled up to some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// How often something was.
    pub times: u64,
    /// Records that were delivered, or refused.
    pub records: u64,
}

/// How many records may come again.
#[derive(Clone, Copy, Debug)]
pub struct Repeats {
    /// After the end of the process, those under way included.
    pub after_kill: u64,
    /// After the end of the machine, beside those under way.
    pub after_crash: u64,
}

/// What a cursor has to survive that somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Awaited {
    /// The end of the process: it is written.
    Written,
    /// The end of the machine: it is synced too.
    Noted,
}

/// What the front of the queue gives.
#[derive(Debug)]
pub enum Front {
    /// These entries; they count as under way now.
    Taken(Vec<Waiting>),
    /// Too little; the oldest waits for more for so long.
    Lingers(Duration),
    /// More has to be read from the disk first.
    Unread,
    /// So much was settled that a cursor has to say it first.
    Unnoted,
    /// Nothing waits.
    Empty,
    /// Nothing can come any more.
    Ended,
}

/// See the module.
#[derive(Debug, Default)]
pub struct State {
    /// Takes no more entries.
    pub is_closed: bool,
    /// Gives no more entries.
    pub is_abandoned: bool,
    /// The thread that writes must end.
    pub is_stopping: bool,
    /// Why what waits for the disk cannot be written at the moment.
    pub is_short: Option<Shortage>,
    /// What the disk said when it failed last, unless it has worked since.
    pub disk_error: Option<String>,
    /// Records that the disk did not give back since the queue was opened, and where the last stood.
    pub lost: Option<(u64, Place)>,
    /// The number of the next entry.
    pub next_sequence: u64,
    /// What waits for the disk, and what is being written: its bytes in files and in memory.
    pub pending: VecDeque<Pending>,
    /// Bytes in files of all that is not committed.
    pub pending_stored_bytes: u64,
    /// Bytes in memory of all that is not committed.
    pub pending_memory_bytes: usize,
    /// The oldest that wait, in memory.
    pub ready: VecDeque<Waiting>,
    /// Their bytes in memory.
    pub ready_bytes: usize,
    /// Where the first entry behind `ready` stands, if there are any on the disk only.
    pub read_at: Option<Place>,
    /// All entries below are in `ready` or were taken or dropped.
    pub read_until: u64,
    /// When the newest entry that was ever ready was queued, unix milliseconds.
    pub read_ms: i64,
    /// What became of entries that are settled, and of records that never stood in the queue as far as the
    /// log has them.
    pub totals: RowTotals,
    /// Numbers that were settled behind the cursor when the queue was opened.
    pub settled_before: Ranges,
    /// Whether segments were removed of which no cursor on the disk says that they are settled: after a
    /// crash now the ledger would not know what became of their records.
    pub is_ahead: bool,
    /// How much was settled since the queue was opened,
    pub settled: Mark,
    /// of that what a cursor says that was written: it survives the end of the process,
    pub written: Mark,
    /// and what one says that was synced: it survives the end of the machine.
    pub noted: Mark,
    /// How many records may come again after either.
    pub repeats: Option<Repeats>,
    /// What somebody waits for before more is given.
    pub awaited: Option<Awaited>,
    /// The cursor that was noted last.
    pub noted_cursor: u64,
    /// The segment where that stands.
    pub cursor_segment: Option<u64>,
    /// The numbers behind it that it names.
    pub noted_ranges: Ranges,
    /// Taken, not settled.
    pub under_way: BTreeMap<u64, UnderWay>,
    /// Their records.
    pub under_way_records: u64,
    /// Those of them that came back and must be taken again.
    pub returned: BTreeSet<u64>,
    /// The segments, the oldest first.
    pub segments: VecDeque<Segment>,
}

impl State {
    /// The lowest number that is not settled.
    pub fn cursor(&self) -> u64 {
        let under_way = self.under_way.keys().next().copied();
        let ready = self.ready.front().map(|waiting| waiting.sequence);
        under_way.into_iter().chain(ready).fold(self.read_until, u64::min)
    }

    /// Whether nothing on the disk is needed any more.
    pub fn is_settled(&self) -> bool {
        self.ready.is_empty() && self.read_at.is_none() && self.under_way.is_empty()
    }

    /// Records that wait.
    pub fn waiting_records(&self) -> u64 {
        let pending: u64 = self.pending.iter().map(Pending::records).sum();
        let ready: u64 = self.ready.iter().map(Waiting::records).sum();
        let returned = self.returned.iter().filter_map(|sequence| self.under_way.get(sequence));
        let left = self.under_way.values().filter(|entry| entry.is_left);
        let unread = self.segments.iter().flat_map(|segment| &segment.unread).map(|unread| unread.records);
        pending + ready + returned.chain(left).map(|entry| entry.records).sum::<u64>() + unread.sum::<u64>()
    }

    /// The numbers behind the cursor whose entries are settled.
    pub fn settled_ranges(&self) -> Ranges {
        // What came back stands before what was never taken.
        let again = self.ready.iter().take_while(|waiting| waiting.is_again).map(|waiting| waiting.sequence);
        let mut open: Vec<u64> = self.under_way.keys().copied().chain(again).collect();
        open.sort_unstable();
        let fresh = self.ready.iter().find(|waiting| !waiting.is_again);
        let end = fresh.map_or(self.read_until, |waiting| waiting.sequence);
        let mut ranges = ranges::between(open, end);
        for (first, last) in self.settled_before.iter() {
            ranges.add(first.max(end), last);
        }
        ranges
    }

    /// Whether something was settled that no cursor on the disk says.
    pub fn is_behind(&self) -> bool {
        self.settled != self.noted || self.cursor() != self.noted_cursor || self.is_ahead
    }

    /// Records of an entry, or of several, are settled, and wait no more nor are under way.
    pub fn add_settled(&mut self, key: (Arc<str>, Signal), totals: &Totals) {
        self.settled.times += 1;
        totals::add(&mut self.totals, key, totals);
    }

    /// What has to be written before so many more records are taken.
    fn awaits(&self, records: u64) -> Option<Awaited> {
        let Repeats { after_kill, after_crash } = self.repeats?;
        let (unnoted, unwritten) =
            (self.settled.records - self.noted.records, self.settled.records - self.written.records);
        if unnoted >= after_crash {
            return Some(Awaited::Noted);
        }
        (unwritten > 0 && self.under_way_records + unwritten + records > after_kill).then_some(Awaited::Written)
    }

    /// When the oldest that waits was queued, unix milliseconds: exactly if it is in memory, else no
    /// earlier than that.
    pub fn oldest_ms(&self) -> Option<i64> {
        let ready = self.ready.front().map(|waiting| waiting.queued_ms);
        let unread = self.read_at.map(|_| self.read_ms);
        ready.or(unread).or(self.pending.front().map(|pending| pending.queued_ms))
    }

    /// Why an entry that takes so many bytes in files and in memory has no room, if it has none.
    pub fn shortage(&self, stored_bytes: u64, memory_bytes: usize, options: &DiskQueueOptions) -> Option<Shortage> {
        let is_idle = self.pending_stored_bytes == 0;
        if !is_idle && self.pending_memory_bytes.saturating_add(memory_bytes) > options.pending_bytes {
            return Some(self.is_short.clone().unwrap_or(Shortage::Slow));
        }
        if options.when_full == WhenFull::DropOldest {
            return None;
        }
        let more = self.pending_stored_bytes.saturating_add(stored_bytes);
        let fits = self.disk_bytes().saturating_add(more) <= options.limit_bytes;
        let fits_all = options.shared.as_ref().is_none_or(|shared| shared.has_room(more));
        // When nothing else is there, what takes up the disk can go.
        let is_alone = is_idle && self.is_settled();
        let is_alone_in_all = options.shared.as_ref().is_none_or(|shared| shared.used_bytes() <= self.disk_bytes());
        if self.is_short.is_some() {
            self.is_short.clone()
        } else if !fits && !is_alone {
            Some(Shortage::Bound(options.limit_bytes))
        } else if !(fits_all || is_alone && is_alone_in_all) {
            Some(Shortage::SharedBound(options.shared.as_ref().map_or(0, |shared| shared.limit_bytes())))
        } else {
            None
        }
    }

    /// Adds an entry to what waits for the disk.
    pub fn add_pending(&mut self, pending: Pending) {
        self.pending_stored_bytes += pending.stored_bytes;
        self.pending_memory_bytes += pending.payload.size_bytes();
        self.pending.push_back(pending);
    }

    /// Counts an entry out that is on the disk now, or given up.
    pub fn count_out(&mut self, pending: &Pending) {
        self.pending_stored_bytes = self.pending_stored_bytes.saturating_sub(pending.stored_bytes);
        self.pending_memory_bytes = self.pending_memory_bytes.saturating_sub(pending.payload.size_bytes());
    }

    /// An entry stands on the disk. The receipt that its source waits for.
    pub fn commit(&mut self, pending: Pending, place: Place, head_bytes: usize) -> Receipt {
        self.count_out(&pending);
        let records = pending.records();
        let Pending { sequence, origin, payload, receipt, row, queued_ms, since, stored_bytes, reservation, .. } =
            pending;
        let end = place.offset + stored_bytes;
        let is_again = false;
        let waiting = Waiting { sequence, place, end, origin, payload, row, queued_ms, since, reservation, is_again };
        let fits = self.ready_bytes.saturating_add(waiting.memory_bytes()) <= head_bytes;
        if let Some(segment) = self.segment(place.segment) {
            let first = segment.sequences.map_or(sequence, |(first, _)| first);
            segment.sequences = Some((first, sequence));
            segment.newest_ms = segment.newest_ms.max(queued_ms);
        }
        if self.read_at.is_none() && fits {
            self.make_ready(waiting);
            return receipt;
        }
        self.read_at.get_or_insert(place);
        if let Some(segment) = self.segment(place.segment) {
            segment.add_unread(&waiting.origin, waiting.payload.signal(), &waiting.row, records);
        }
        receipt
    }

    /// An entry is in memory and can be taken.
    pub fn make_ready(&mut self, waiting: Waiting) {
        self.read_until = waiting.sequence + 1;
        self.read_ms = waiting.queued_ms;
        self.ready_bytes += waiting.memory_bytes();
        self.ready.push_back(waiting);
    }

    /// An entry is under way no more.
    pub fn leave(&mut self, sequence: u64) -> Option<UnderWay> {
        self.returned.remove(&sequence);
        let entry = self.under_way.remove(&sequence)?;
        self.under_way_records -= entry.records;
        Some(entry)
    }

    /// An entry that came back is in memory again, in its place.
    pub fn make_ready_again(&mut self, waiting: Waiting) {
        self.leave(waiting.sequence);
        self.ready_bytes += waiting.memory_bytes();
        let at = self.ready.partition_point(|other| other.sequence < waiting.sequence);
        self.ready.insert(at, waiting);
    }

    /// Gives up what of the head was never taken: it is read back later.
    pub fn shrink_head(&mut self) {
        // Behind an entry that came back there may be settled ones, which must not be read again.
        while let Some(waiting) = self.ready.pop_back_if(|waiting| !waiting.is_again) {
            self.ready_bytes = self.ready_bytes.saturating_sub(waiting.memory_bytes());
            (self.read_until, self.read_ms) = (waiting.sequence, waiting.queued_ms);
            self.read_at = Some(waiting.place);
            if let Some(segment) = self.segment(waiting.place.segment) {
                segment.add_unread(&waiting.origin, waiting.payload.signal(), &waiting.row, waiting.records());
            }
        }
    }

    fn pop_ready(&mut self) -> Option<Waiting> {
        let waiting = self.ready.pop_front()?;
        self.ready_bytes = self.ready_bytes.saturating_sub(waiting.memory_bytes());
        Some(waiting)
    }

    /// Drops entries at the front of `ready` as long as they meet a condition. How many records.
    pub fn drop_ready_while(&mut self, reason: Reason, condition: impl Fn(&Waiting) -> bool) -> u64 {
        let mut dropped = 0;
        while self.ready.front().is_some_and(&condition) {
            let Some(waiting) = self.pop_ready() else { break };
            let records = waiting.records();
            waiting.row.drop_queued(records, reason);
            let totals = Totals::dropped(records, reason);
            let key = (waiting.origin.clone(), waiting.payload.signal());
            self.add_settled(key, &totals);
            dropped += records;
        }
        dropped
    }

    /// The first entries that can travel together, if they fill a request or have waited long enough.
    /// Those queued before `expired_ms` are dropped.
    pub fn grab(&mut self, limits: TakeLimits, expired_ms: Option<i64>) -> Front {
        if let Some(expired_ms) = expired_ms {
            self.drop_ready_while(Reason::Expired, |waiting| waiting.queued_ms < expired_ms);
        }
        if self.is_abandoned {
            return Front::Ended;
        }
        if !self.returned.is_empty() {
            return Front::Unread;
        }
        let Some(first) = self.ready.front() else {
            return match self.read_at {
                Some(_) => Front::Unread,
                None if self.is_closed && self.pending_stored_bytes == 0 => Front::Ended,
                None => Front::Empty,
            };
        };
        let (origin, signal, since) = (first.origin.clone(), first.payload.signal(), first.since);
        let (mut count, mut records, mut bytes) = (0, 0, 0);
        let mut is_full = self.is_closed && self.read_at.is_none();
        for waiting in &self.ready {
            let (more, more_bytes) = (records + waiting.payload.len(), bytes + waiting.payload.size_bytes());
            let fits = more <= limits.records && more_bytes <= limits.bytes;
            if waiting.origin != origin || waiting.payload.signal() != signal || (count > 0 && !fits) {
                is_full = true;
                break;
            }
            (count, records, bytes) = (count + 1, more, more_bytes);
        }
        if !is_full && records < limits.records && bytes < limits.bytes {
            if self.read_at.is_some() {
                return Front::Unread;
            }
            let left = limits.linger.saturating_sub(since.elapsed());
            if !limits.linger.is_zero() && !left.is_zero() {
                return Front::Lingers(left);
            }
        }
        let awaited = self.awaits(records as u64);
        if awaited.is_some() {
            self.awaited = self.awaited.max(awaited);
            return Front::Unnoted;
        }
        self.under_way_records += records as u64;
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let Some(waiting) = self.pop_ready() else { break };
            let records = waiting.records();
            waiting.row.take(records);
            let Waiting { sequence, place, end, row, .. } = &waiting;
            let (place, end, row, is_left) = (*place, *end, row.clone(), false);
            let under_way = UnderWay { place, end, origin: origin.clone(), signal, records, row, is_left };
            self.under_way.insert(*sequence, under_way);
            taken.push(waiting);
        }
        Front::Taken(taken)
    }

    /// What became of an entry that was taken, and of its records as far as they were counted.
    pub fn settle(&mut self, sequence: u64, verdict: Verdict, settled: Settled) {
        match verdict {
            Verdict::Delivered | Verdict::Refused => {
                let Some(UnderWay { origin, signal, records, .. }) = self.leave(sequence) else { return };
                self.settled.records += records;
                self.add_settled((origin, signal), &Totals { accepted: records, settled });
            }
            Verdict::Retry => {
                let Some(entry) = self.under_way.get_mut(&sequence) else { return };
                // All of it comes again, also what was counted.
                entry.row.revert(entry.records, &settled);
                if self.is_closed {
                    // It stays on the disk, not settled, and is found when the queue is opened again.
                    entry.is_left = true;
                } else {
                    self.returned.insert(sequence);
                }
            }
        }
    }
}
