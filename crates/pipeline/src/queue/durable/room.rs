//! What a queue takes up: room for the next group, what is too old, what nobody needs any more.

use std::io::ErrorKind;
use std::time::Instant;

use crate::ledger::Reason;
use crate::options::WhenFull;
use crate::queue::durable::core::Core;
use crate::queue::durable::record::Place;
use crate::queue::durable::segment::{self, BEGINNING_BYTES};
use crate::queue::durable::writer::{Active, Writer};

impl Core {
    /// Whether there is room for so many bytes, after what can be removed was removed.
    pub fn make_room(&self, writer: &mut Writer, bytes: u64) -> bool {
        loop {
            self.remove_settled();
            let state = self.state();
            let (is_settled, used) = (state.is_settled(), state.disk_bytes());
            drop(state);
            let has_entries = writer.active.as_ref().is_some_and(|active| active.has_entries);
            // What is larger than the bound goes through alone.
            let is_alone = is_settled && !has_entries;
            let fits = used.saturating_add(bytes) <= self.options.limit_bytes || is_alone;
            let fits_all = self
                .options
                .shared
                .as_ref()
                .is_none_or(|shared| shared.has_room(bytes) || (is_alone && shared.used_bytes() <= used));
            if fits && fits_all && self.is_free(bytes) {
                return true;
            }
            if is_settled && has_entries {
                self.seal(writer, 0);
            } else if self.options.when_full != WhenFull::DropOldest || !self.drop_oldest(writer) {
                return false;
            }
        }
    }

    /// Whether the file system keeps its reserve.
    fn is_free(&self, bytes: u64) -> bool {
        if self.options.reserve_bytes == 0 {
            return true;
        }
        let needed = bytes.saturating_add(self.options.reserve_bytes);
        // A file system that does not say says so when it is full.
        self.disk.free_bytes(&self.folder).map_or(true, |free| free >= needed)
    }

    /// Drops what waits in the oldest segment where anything waits. Whether there was anything.
    pub fn drop_oldest(&self, writer: &mut Writer) -> bool {
        let _reading = self.reader();
        let mut state = self.state();
        let first = state.ready.front().map(|waiting| waiting.place.segment);
        let Some(number) = first.or(state.read_at.map(|place| place.segment)) else { return false };
        let records = state.drop_segment(number, Reason::QueueFull);
        drop(state);
        if writer.active.as_ref().is_some_and(|active| active.number == number) {
            self.seal(writer, 0);
        }
        tracing::warn!(folder = %self.folder.display(), records, "the queue is full; its oldest records are dropped");
        true
    }

    /// Drops what is too old.
    fn drop_expired(&self, expired_ms: i64) {
        let _reading = self.reader();
        let mut state = self.state();
        let mut records = state.drop_ready_while(Reason::Expired, |waiting| waiting.queued_ms < expired_ms);
        // On the disk, a segment whose newest entry is too old; the rest when it is read.
        while state.ready.is_empty()
            && let Some(Place { segment: number, .. }) = state.read_at
            && state.segment(number).is_some_and(|segment| segment.newest_ms < expired_ms)
        {
            records += state.drop_segment(number, Reason::Expired);
        }
        drop(state);
        if records > 0 {
            tracing::warn!(folder = %self.folder.display(), records, "records waited longer than allowed; they are dropped");
        }
    }

    /// Drops what is too old, makes the cursor last if its time has come or it `must`, and removes
    /// what nobody needs.
    pub fn keep_house(&self, must: bool) {
        let mut writer = self.writer();
        if let Some(expired_ms) = self.expired_ms() {
            self.drop_expired(expired_ms);
        }
        let (is_behind, is_settled) = {
            let mut state = self.state();
            // The next entry finds out whether there is room again.
            state.is_short &= !state.pending.is_empty();
            (state.cursor() != state.written_cursor, state.is_settled())
        };
        let is_due = must || writer.cursor_written.elapsed() >= self.options.cursor_interval;
        if is_due && is_behind {
            let is_long = |active: &Active| active.length > self.options.segment_bytes / 4;
            if is_settled && writer.active.as_ref().is_some_and(is_long) {
                self.seal(&mut writer, 0);
            }
            if let Err(error) = self.write(&mut writer, &[], BEGINNING_BYTES as u64) {
                writer.cursor_written = Instant::now();
                tracing::warn!(folder = %self.folder.display(), %error, "cannot note what was delivered; after a crash it is delivered again");
            }
        }
        self.remove_settled();
    }

    /// Removes the segments that nobody needs. The one where the cursor stands goes last, and only
    /// when the names of the others are gone from the disk: should they be there again after a crash,
    /// the cursor must say that they are settled.
    fn remove_settled(&self) {
        let (numbers, cursor_segment) = {
            let state = self.state();
            (state.settled_segments(), state.cursor_segment)
        };
        let (last, others): (Vec<u64>, Vec<u64>) =
            numbers.into_iter().partition(|number| Some(*number) == cursor_segment);
        others.into_iter().for_each(|number| self.remove(number));
        let Some(number) = last.first() else { return };
        let is_only = self.state().segments.iter().all(|other| other.number == *number || other.sequences.is_none());
        if is_only && self.disk.sync_folder(&self.folder).is_ok() {
            self.remove(*number);
        }
    }

    fn remove(&self, number: u64) {
        let path = segment::path(&self.folder, number);
        match self.disk.remove(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(segment = %path.display(), %error, "cannot remove a segment of a queue; trying again");
            }
            _ => {
                self.measure(number, 0);
                self.state().segments.retain(|segment| segment.number != number);
            }
        }
    }
}
