//! The writing side: what came since the last write goes to the disk as one group, by one write and
//! one sync. Then its sources hear of it.

use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_model::{Receipt, Verdict};

use crate::ledger::Reason;
use crate::options::WhenFull;
use crate::queue::durable::active::Active;
use crate::queue::durable::core::{Aside, Core};
use crate::queue::durable::options::SyncPolicy;
use crate::queue::durable::ranges::Ranges;
use crate::queue::durable::record::{self, Header, Kind, Place};
use crate::queue::durable::segment;
use crate::queue::durable::shortage::Shortage;
use crate::queue::durable::state::{Awaited, Mark, Pending, State};
use crate::queue::durable::totals;

/// Most bytes of one write, and no more than a segment; unless a single entry is longer.
const GROUP_BYTES: u64 = 8 << 20;
/// How long the queue waits before it asks a full disk again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How often it looks for entries that are too old, memory that is short, and records beside the queue.
pub const LOOK_AROUND: Duration = Duration::from_secs(1);
/// The shortest interval between two cursors that are written for their own sake.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// What only the writing side knows.
#[derive(Debug)]
pub struct Writer {
    /// The segment that is written, if there is one.
    pub active: Option<Active>,
    /// The number of the next one.
    pub next_number: u64,
    /// Headers of a group.
    headers: Vec<u8>,
    /// When a cursor was written last, or could not be.
    pub cursor_written: Instant,
    /// How long that was.
    cursor_bytes: u64,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    segment: u64,
    /// Where the entries of the group stand.
    places: Vec<Place>,
    /// Where it ends.
    end: u64,
}

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// There was none.
    Nothing,
    /// It is on the disk, or its sources were told that it is not.
    Group,
    /// The disk has no room, or fails; it waits.
    NoRoom,
}

/// A cursor that is written.
struct Cursor {
    sequence: u64,
    payload: Vec<u8>,
    asides: Vec<Aside>,
    ranges: Ranges,
    /// What was settled when it was made.
    settled: Mark,
}

impl Writer {
    /// A writer that begins with a segment of that number when there is something to write.
    pub fn new(next_number: u64) -> Self {
        Self { active: None, next_number, headers: Vec::new(), cursor_written: Instant::now(), cursor_bytes: 0 }
    }
}

impl Core {
    /// Writes until it is told to stop.
    pub fn run(&self) {
        loop {
            let wrote = self.write_pending();
            self.keep_house(false);
            if wrote == Wrote::Group {
                continue;
            }
            // Looked at under the lock that is given up while waiting, so that no push is missed.
            let state = self.state();
            if (wrote == Wrote::Nothing && !state.pending.is_empty()) || state.awaited.is_some() {
                continue;
            }
            if state.is_stopping {
                break;
            }
            let pause = self.pause(wrote, &state);
            drop(self.work.wait_timeout(state, pause));
        }
        self.finish();
    }

    /// Gives up what could not be written, and makes the cursor last.
    pub fn finish(&self) {
        self.give_up_pending();
        self.keep_house(true);
        self.end_segment(&mut self.writer());
    }

    /// How long there is nothing to do, unless something comes.
    fn pause(&self, wrote: Wrote, state: &State) -> Duration {
        if wrote == Wrote::NoRoom || state.is_short.is_some() {
            return ASK_AGAIN;
        }
        if state.is_behind() {
            return self.options().cursor_interval.max(SHORTEST_PAUSE);
        }
        LOOK_AROUND
    }

    /// Writes what waits for the disk, as one group.
    pub fn write_pending(&self) -> Wrote {
        let mut writer = self.writer();
        let group = self.next_group();
        if group.is_empty() {
            return Wrote::Nothing;
        }
        let bytes = group.iter().map(|pending| pending.stored_bytes).sum::<u64>() + writer.cursor_bytes;
        let shortage = self.make_room(&mut writer, bytes).err();
        let has_room = shortage.is_none();
        self.state().is_short = shortage;
        if !has_room {
            self.wait_longer(group);
            return Wrote::NoRoom;
        }
        match self.write(&mut writer, &group, bytes, Awaited::Noted) {
            Ok(written) => self.commit(group, &written),
            Err(error) if is_full(&error) => {
                self.state().is_short = Some(Shortage::Full);
                // Room for the group is made by the next attempt, from the oldest, if that is configured.
                if self.options().when_full == WhenFull::DropOldest {
                    self.drop_oldest(&mut writer);
                }
                self.write_again(group);
                return Wrote::NoRoom;
            }
            Err(error) => return self.write_failed(group, &error),
        }
        Wrote::Group
    }

    /// A group could not be written, and nobody can tell what of it is on the disk. Sources that can are
    /// asked to send again; the rest is written again, to another segment.
    fn write_failed(&self, group: Vec<Pending>, error: &io::Error) -> Wrote {
        let (again, given_up): (Vec<Pending>, Vec<Pending>) =
            group.into_iter().partition(|pending| !pending.receipt.is_claimed());
        let sum = |entries: &[Pending]| entries.iter().map(Pending::records).sum::<u64>();
        let (records, kept) = (sum(&given_up), sum(&again));
        tracing::error!(folder = %self.folder.display(), %error, records, kept, "cannot store records; their sources are asked to send them again, and those that cannot be sent again are kept in memory");
        let wrote = if again.is_empty() { Wrote::Group } else { Wrote::NoRoom };
        {
            let mut state = self.state();
            state.disk_error = Some(error.to_string());
            if wrote == Wrote::NoRoom {
                state.is_short = Some(Shortage::Disk(error.to_string()));
            }
        }
        if !again.is_empty() {
            self.write_again(again);
        }
        self.give_up(given_up, Reason::NotStored);
        wrote
    }

    /// Puts a group back of which a part may stand on the disk: all that waits gets new numbers, for the old
    /// ones may be found after a crash with payloads that are not whole, and would count.
    fn write_again(&self, group: Vec<Pending>) {
        self.wait_longer(group);
        let mut state = self.state();
        let State { pending, next_sequence, .. } = &mut *state;
        for (pending, sequence) in pending.iter_mut().zip(*next_sequence..) {
            (pending.sequence, *next_sequence) = (sequence, sequence + 1);
        }
    }

    /// Takes the next group out; those whose sender gave up are dropped.
    fn next_group(&self) -> Vec<Pending> {
        let (mut group, mut withdrawn, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
        let options = self.options();
        let mut state = self.state();
        while let Some(next) = state.pending.front() {
            bytes = bytes.saturating_add(next.stored_bytes);
            let is_full = bytes > GROUP_BYTES.min(options.segment_bytes) || options.sync == SyncPolicy::Each;
            if is_full && !group.is_empty() {
                break;
            }
            let Some(next) = state.pending.pop_front() else { break };
            if next.receipt.is_withdrawn() { withdrawn.push(next) } else { group.push(next) }
        }
        drop(state);
        self.give_up(withdrawn, Reason::Withdrawn);
        group
    }

    /// Puts a group back to wait for the disk.
    fn wait_longer(&self, group: Vec<Pending>) {
        let mut state = self.state();
        group.into_iter().rev().for_each(|pending| state.pending.push_front(pending));
    }

    /// Entries that never came to the disk.
    fn give_up(&self, entries: Vec<Pending>, reason: Reason) {
        let mut state = self.state();
        for pending in &entries {
            state.count_out(pending);
            pending.row.drop_unstored(pending.records(), reason);
        }
        drop(state);
        // Told when nothing is locked: whoever hears of it may come back here.
        entries.into_iter().for_each(|pending| pending.receipt.settle(Verdict::Retry));
    }

    fn give_up_pending(&self) {
        let entries: Vec<Pending> = self.state().pending.drain(..).collect();
        self.give_up(entries, Reason::Stopped);
    }

    /// A group is on the disk.
    fn commit(&self, group: Vec<Pending>, written: &Written) {
        let options = self.options();
        // What is short is not kept for convenience.
        let is_short = options.budget.as_ref().is_some_and(|budget| budget.is_short());
        let head_bytes = if is_short { 0 } else { options.head_bytes };
        let mut state = self.state();
        state.disk_error = None;
        if let Some(segment) = state.segment(written.segment) {
            segment.end = written.end;
        }
        let committed = group.into_iter().zip(&written.places);
        let receipts: Vec<Receipt> =
            committed.map(|(pending, place)| state.commit(pending, *place, head_bytes)).collect();
        drop(state);
        receipts.into_iter().for_each(|receipt| receipt.settle(Verdict::Delivered));
        self.changed.notify_one();
    }

    /// Writes a group and waits for the disk as configured, unless it only has to be written. Without
    /// entries it notes the cursor.
    pub fn write(&self, writer: &mut Writer, group: &[Pending], bytes: u64, survives: Awaited) -> io::Result<Written> {
        let mut payloads = Vec::with_capacity(group.len());
        for pending in group {
            payloads.push(self.stored(pending)?);
        }
        self.begin_segment(writer, bytes)?;
        let cursor = self.due_cursor(writer, group.is_empty());
        let Writer { active: Some(active), headers, .. } = &mut *writer else { return Err(ErrorKind::NotFound.into()) };
        let (number, before) = (active.number, active.length);
        headers.clear();
        if before == 0 {
            headers.extend_from_slice(&segment::beginning(self.key_id));
        }
        if let Some(Cursor { sequence, payload, .. }) = &cursor {
            let place = Place { segment: number, offset: before + headers.len() as u64 };
            Header::own(Kind::Cursor, *sequence, (self.now_ms)(), payload).write(headers, place);
            headers.extend_from_slice(payload);
        }
        let (mut places, mut ends, mut length) = (Vec::with_capacity(group.len()), Vec::new(), before);
        length += headers.len() as u64;
        for (pending, payload) in group.iter().zip(&payloads) {
            let place = Place { segment: number, offset: length };
            let start = headers.len();
            self.header(pending, payload).write(headers, place);
            length += (headers.len() - start + payload.len()) as u64;
            places.push(place);
            ends.push(headers.len());
        }
        let mut parts = Vec::with_capacity(2 * group.len() + 1);
        let mut rest = headers.as_slice();
        let mut start = 0;
        for (end, payload) in ends.into_iter().zip(&payloads) {
            let Some((part, after)) = rest.split_at_checked(end - start) else { break };
            parts.extend([IoSlice::new(part), IoSlice::new(payload)]);
            (rest, start) = (after, end);
        }
        parts.push(IoSlice::new(rest));
        parts.retain(|part| !part.is_empty());
        let written = active.file.append(&mut parts);
        drop(parts);
        let is_synced = self.appended(writer, written, length, survives)?;
        if let Some(active) = &mut writer.active {
            group.iter().zip(&places).for_each(|(pending, place)| active.count_in(pending, *place));
        }
        if let Some(cursor) = cursor {
            self.noted(writer, cursor, number, is_synced);
        }
        Ok(Written { segment: number, places, end: length })
    }

    /// The cursor that the next write has to begin with, if it has to: each segment begins with one.
    fn due_cursor(&self, writer: &Writer, must: bool) -> Option<Cursor> {
        let is_first = writer.active.as_ref().is_none_or(|active| active.length == 0);
        let is_time = writer.cursor_written.elapsed() >= self.options().cursor_interval;
        let state = self.state();
        let sequence = state.cursor();
        let is_due = state.awaited.is_some() || is_time && state.is_behind();
        if !(must || is_first || is_due) {
            return None;
        }
        let (sums, asides) = self.sums(&state);
        let settled = state.settled;
        Some(Cursor { sequence, payload: totals::encode(&sums), asides, ranges: sums.settled, settled })
    }

    /// A cursor was written, and perhaps synced.
    fn noted(&self, writer: &mut Writer, cursor: Cursor, number: u64, is_synced: bool) {
        let Cursor { sequence, payload, asides, ranges, settled } = cursor;
        writer.cursor_bytes = (record::HEADER_BYTES + payload.len()) as u64;
        let mut state = self.state();
        state.written = settled;
        if state.awaited.take_if(|awaited| is_synced || *awaited == Awaited::Written).is_some() {
            self.changed.notify_one();
        }
        if !is_synced {
            return;
        }
        writer.cursor_written = Instant::now();
        (state.noted, state.noted_cursor, state.noted_ranges) = (settled, sequence, ranges);
        (state.cursor_segment, state.is_ahead) = (Some(number), false);
        state.settled_before.pass(sequence);
        for Aside { key, row, totals } in asides {
            row.noted(&totals);
            totals::add(&mut state.totals, key, &totals);
        }
        drop(state);
        self.ledger.leave_to_queue(&self.exporter, self.ledger_number);
    }

    /// The payload as it is stored.
    fn stored(&self, pending: &Pending) -> io::Result<Bytes> {
        let options = self.options();
        let Some(key) = &options.key else { return Ok(pending.bytes.clone()) };
        let mut authenticated = Vec::new();
        self.header(pending, &[]).authenticated(&mut authenticated);
        Ok(Bytes::from(key.seal(&authenticated, &pending.bytes)?))
    }

    fn header<'a>(&self, pending: &'a Pending, stored: &[u8]) -> Header<'a> {
        let signal = pending.payload.signal();
        Header {
            kind: Kind::Entry { signal, encoding: pending.encoding, is_encrypted: self.options().key.is_some() },
            sequence: pending.sequence,
            queued_ms: pending.queued_ms,
            // Both were checked when the entry came.
            records: u32::try_from(pending.payload.len()).unwrap_or(u32::MAX),
            origin: &pending.origin,
            payload_bytes: u32::try_from(stored.len()).unwrap_or(u32::MAX),
            payload_crc: crc32c::crc32c(stored),
        }
    }
}

/// Whether an error says that there is no room.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
