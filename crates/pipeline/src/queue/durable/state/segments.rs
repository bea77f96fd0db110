//! The segments as the queue knows them: what waits in each, and which are needed no more.

use std::sync::Arc;

use weir_model::Signal;

use crate::ledger::{Reason, Row, Totals};
use crate::queue::durable::record::Place;
use crate::queue::durable::state::State;

/// Records of one row in a segment that wait and are on the disk only.
#[derive(Debug)]
pub struct Unread {
    /// Their source.
    pub origin: Arc<str>,
    /// Their signal.
    pub signal: Signal,
    /// Their row of the ledger.
    pub row: Arc<Row>,
    /// How many.
    pub records: u64,
}

/// A segment.
#[derive(Debug)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Where what is stored in it ends.
    pub end: u64,
    /// What it takes on the disk.
    pub file_bytes: u64,
    /// The numbers of its first and last entry.
    pub sequences: Option<(u64, u64)>,
    /// When its newest entry was queued, unix milliseconds.
    pub newest_ms: i64,
    /// What of it waits on the disk only.
    pub unread: Vec<Unread>,
    /// Offsets of entries that were found damaged when the queue was opened and never counted.
    pub damaged: Vec<u64>,
    /// Whether it is written no more.
    pub is_sealed: bool,
}

impl Segment {
    /// A segment without entries.
    pub fn new(number: u64) -> Self {
        let (unread, damaged) = (Vec::new(), Vec::new());
        Self { number, end: 0, file_bytes: 0, sequences: None, newest_ms: i64::MIN, unread, damaged, is_sealed: false }
    }

    /// Counts records that are on the disk only.
    pub fn add_unread(&mut self, origin: &Arc<str>, signal: Signal, row: &Arc<Row>, records: u64) {
        match self.unread.iter_mut().find(|unread| Arc::ptr_eq(&unread.row, row)) {
            Some(unread) => unread.records += records,
            None => self.unread.push(Unread { origin: origin.clone(), signal, row: row.clone(), records }),
        }
    }

    /// Takes records that were read off the sum; their row, unless they are not in it.
    pub fn subtract_unread(&mut self, origin: &str, signal: Signal, records: u64) -> Option<Arc<Row>> {
        let same = |unread: &&mut Unread| unread.signal == signal && *unread.origin == *origin;
        let unread = self.unread.iter_mut().find(same)?;
        unread.records = unread.records.checked_sub(records)?;
        Some(unread.row.clone())
    }
}

impl State {
    /// A segment by its number.
    pub fn segment(&mut self, number: u64) -> Option<&mut Segment> {
        let at = self.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
        self.segments.get_mut(at)
    }

    /// Bytes of all files.
    pub fn disk_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.file_bytes).sum()
    }

    /// Drops what of a segment is on the disk only: all that was read stands before it. How many records.
    pub fn drop_unread(&mut self, number: u64, reason: Reason) -> u64 {
        let unread = self.segment(number).map(|segment| std::mem::take(&mut segment.unread)).unwrap_or_default();
        let mut dropped = 0;
        for Unread { origin, signal, row, records } in unread.into_iter().filter(|unread| unread.records > 0) {
            row.drop_queued(records, reason);
            self.add_settled((origin, signal), &Totals::dropped(records, reason));
            dropped += records;
        }
        dropped
    }

    /// Drops all that waits in a segment and those before it. How many records.
    pub fn drop_segment(&mut self, number: u64, reason: Reason) -> u64 {
        let mut dropped = self.drop_ready_while(reason, |waiting| waiting.place.segment <= number);
        if self.read_at.is_none_or(|place| place.segment > number) {
            return dropped;
        }
        dropped += self.drop_unread(number, reason);
        // It may have been removed meanwhile, after everything in it was read and settled.
        if let Some(segment) = self.segment(number) {
            let until = segment.sequences.map_or(0, |(_, last)| last.saturating_add(1));
            self.read_until = self.read_until.max(until);
        }
        let next = self.segments.iter().find(|segment| segment.number > number && segment.sequences.is_some());
        self.read_at = next.map(|next| Place { segment: next.number, offset: 0 });
        dropped
    }

    /// The segments that nobody needs any more: all in them is settled, and nothing of them is still to be
    /// counted as lost.
    pub fn settled_segments(&self) -> Vec<u64> {
        let waits_from = self.ready.front().map_or(self.read_until, |waiting| waiting.sequence);
        let is_settled = |segment: &&Segment| {
            segment.is_sealed
                && segment.unread.iter().all(|unread| unread.records == 0)
                && segment.sequences.is_none_or(|(first, last)| {
                    last < waits_from && self.under_way.range(first..=last).next().is_none()
                })
        };
        self.segments.iter().filter(is_settled).map(|segment| segment.number).collect()
    }

    /// Whether segments in which all is settled hold disk space only until a cursor is noted.
    pub fn awaits_note(&self) -> bool {
        let noted = self.noted_segments();
        let has_entries = |number: &u64| {
            let at = self.segments.binary_search_by_key(number, |segment| segment.number).ok();
            at.and_then(|at| self.segments.get(at)).is_some_and(|segment| segment.sequences.is_some())
        };
        self.settled_segments().iter().any(|number| !noted.contains(number) && has_entries(number))
    }

    /// Those of them that the cursor on the disk has passed or names, so that nothing that became of their
    /// records can be forgotten, without the one where that cursor stands.
    pub fn noted_segments(&self) -> Vec<u64> {
        let is_noted = |segment: &Segment| {
            let is_said = |(first, last)| last < self.noted_cursor || self.noted_ranges.covers(first, last);
            segment.sequences.is_none_or(is_said)
        };
        let mut numbers = self.settled_segments();
        numbers.retain(|number| {
            let at = self.segments.binary_search_by_key(number, |segment| segment.number).ok();
            Some(*number) != self.cursor_segment && at.and_then(|at| self.segments.get(at)).is_some_and(is_noted)
        });
        numbers
    }
}
