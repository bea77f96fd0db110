//! What a queue knows, behind one lock that is never held while the disk works.
//!
//! Entries are numbered. Those in memory (`ready`) are the oldest that wait; what does not fit there
//! is on disk only, from `read_at` on, and of it nothing is kept but sums per segment. So memory does
//! not grow with what waits. The cursor is the lowest number that is not settled.

mod segments;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use weir_model::{Encoding, Payload, Receipt, Signal, Verdict};

use crate::ledger::{Reason, Row, Settled, Totals};
use crate::memory_budget::Reservation;
use crate::options::WhenFull;
use crate::queue::TakeLimits;
use crate::queue::durable::options::DiskQueueOptions;
use crate::queue::durable::record::Place;
use crate::queue::durable::released::Released;
use crate::queue::durable::shortage::Shortage;
use crate::queue::durable::totals::Outcomes;

pub use segments::Segment;

/// What an entry takes in memory besides its payload.
const ENTRY_BYTES: usize = 256;

/// An entry that is not on the disk yet.
#[derive(Debug)]
pub struct Pending {
    /// Its number.
    pub sequence: u64,
    /// Its source.
    pub origin: Arc<str>,
    /// Its records.
    pub payload: Payload,
    /// What is written of them.
    pub bytes: Bytes,
    /// How that is encoded.
    pub encoding: Encoding,
    /// What the source waits for.
    pub receipt: Receipt,
    /// Its row of the ledger.
    pub row: Arc<Row>,
    /// When it came, unix milliseconds.
    pub queued_ms: i64,
    /// The same on the clock that does not jump.
    pub since: Instant,
    /// How long its record is in the file.
    pub stored_bytes: u64,
    /// Its bytes of the process's memory.
    pub reservation: Option<Reservation>,
}

impl Pending {
    /// Its records.
    pub fn records(&self) -> u64 {
        self.payload.len() as u64
    }
}

/// An entry on the disk that is in memory too and waits to be taken.
#[derive(Debug)]
pub struct Waiting {
    /// Its number.
    pub sequence: u64,
    /// Where it stands.
    pub place: Place,
    /// Where it ends.
    pub end: u64,
    /// Its source.
    pub origin: Arc<str>,
    /// Its records.
    pub payload: Payload,
    /// Its row of the ledger.
    pub row: Arc<Row>,
    /// When it was queued, unix milliseconds.
    pub queued_ms: i64,
    /// The same on the clock that does not jump, as far as that reaches back.
    pub since: Instant,
    /// Its bytes of the process's memory.
    pub reservation: Option<Reservation>,
    /// Whether it was taken before, and came back.
    pub is_again: bool,
}

impl Waiting {
    fn records(&self) -> u64 {
        self.payload.len() as u64
    }

    /// What it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.payload.size_bytes() + ENTRY_BYTES
    }
}

/// An entry that was taken and is not settled.
#[derive(Clone, Debug)]
pub struct UnderWay {
    /// Where it stands.
    pub place: Place,
    /// Where it ends.
    pub end: u64,
    /// Its source.
    pub origin: Arc<str>,
    /// Their signal.
    pub signal: Signal,
    /// Its records.
    pub records: u64,
    /// Its row of the ledger.
    pub row: Arc<Row>,
    /// Whether it came back after the queue was closed: it waits for the next opening.
    pub is_left: bool,
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
    /// So much was settled that the disk has to know it first.
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
    /// What became of entries that are settled.
    pub outcomes: Outcomes,
    /// Whether segments were removed that the cursor on the disk has not passed: after a crash now the
    /// ledger would not know what became of their records.
    pub is_ahead: bool,
    /// Records that were settled since a cursor was written.
    pub unnoted_records: u64,
    /// How many of them there may be.
    pub most_unnoted_records: Option<u64>,
    /// Whether somebody waits for the next cursor.
    pub is_note_awaited: bool,
    /// The cursor that was written last.
    pub written_cursor: u64,
    /// The segment where that stands.
    pub cursor_segment: Option<u64>,
    /// The released segments that it names.
    pub written_released: Released,
    /// Taken, not settled.
    pub under_way: BTreeMap<u64, UnderWay>,
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

    /// The highest number below another that is not settled, of those that were read.
    fn blocker(&self, below: u64) -> Option<u64> {
        let under_way = self.under_way.range(..below).next_back().map(|(sequence, _)| *sequence);
        let at = self.ready.partition_point(|waiting| waiting.sequence < below);
        let ready = at.checked_sub(1).and_then(|at| self.ready.get(at)).map(|waiting| waiting.sequence);
        under_way.max(ready)
    }

    /// An entry is settled and neither ready nor under way any more.
    pub fn settled(&mut self, sequence: u64, segment: u64, key: (Arc<str>, Signal), totals: &Totals) {
        let blocker = self.blocker(sequence);
        self.outcomes.unblock(sequence, blocker);
        self.outcomes.settle(blocker, segment, key, totals);
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

    /// An entry that came back is in memory again, in its place.
    pub fn make_ready_again(&mut self, waiting: Waiting) {
        self.under_way.remove(&waiting.sequence);
        self.returned.remove(&waiting.sequence);
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
            self.settled(waiting.sequence, waiting.place.segment, key, &totals);
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
        if self.most_unnoted_records.is_some_and(|most| self.unnoted_records >= most) {
            self.is_note_awaited = true;
            return Front::Unnoted;
        }
        let (origin, signal, since) = (first.origin.clone(), first.payload.signal(), first.since);
        let (mut count, mut records, mut bytes) = (0, 0, 0);
        let mut is_full = self.is_closed && self.read_at.is_none();
        for waiting in &self.ready {
            records += waiting.payload.len();
            bytes += waiting.payload.size_bytes();
            let fits = records <= limits.records && bytes <= limits.bytes;
            if waiting.origin != origin || waiting.payload.signal() != signal || (count > 0 && !fits) {
                is_full = true;
                break;
            }
            count += 1;
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
                let Some(entry) = self.under_way.remove(&sequence) else { return };
                let UnderWay { place, origin, signal, records, .. } = entry;
                self.unnoted_records += records;
                self.settled(sequence, place.segment, (origin, signal), &Totals { accepted: records, settled });
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
