//! What a queue takes up: room for the next group, what is too old, what nobody needs any more.

use std::io::{self, ErrorKind};
use std::time::Instant;

use crate::ledger::Reason;
use crate::options::WhenFull;
use crate::queue::durable::active::Active;
use crate::queue::durable::core::Core;
use crate::queue::durable::record::Place;
use crate::queue::durable::segment::{self, BEGINNING_BYTES};
use crate::queue::durable::shortage::Shortage;
use crate::queue::durable::state::{Awaited, Mark};
use crate::queue::durable::writer::{LOOK_AROUND, Writer, is_full};

impl Core {
    /// Makes room for so many bytes by removing what can be removed.
    ///
    /// # Errors
    /// What there is too little of.
    pub fn make_room(&self, writer: &mut Writer, bytes: u64) -> Result<(), Shortage> {
        let options = self.options();
        loop {
            self.remove_noted();
            let state = self.state();
            let (is_settled, used) = (state.is_settled(), state.disk_bytes());
            let awaits_note = state.awaits_note();
            drop(state);
            let has_entries = writer.active.as_ref().is_some_and(|active| active.summary.is_some());
            // What is larger than the bound goes through alone.
            let is_alone = is_settled && !has_entries && !awaits_note;
            let fits = used.saturating_add(bytes) <= options.limit_bytes || is_alone;
            let fits_all = options
                .shared
                .as_ref()
                .is_none_or(|shared| shared.has_room(bytes) || (is_alone && shared.used_bytes() <= used));
            let shortage = if !fits {
                Shortage::Bound(options.limit_bytes)
            } else if !fits_all {
                Shortage::SharedBound(options.shared.as_ref().map_or(0, |shared| shared.limit_bytes()))
            } else if !self.is_free(bytes, options.reserve_bytes) {
                if options.reserve_bytes == 0 { Shortage::Full } else { Shortage::Reserve(options.reserve_bytes) }
            } else {
                return Ok(());
            };
            if self.note_settled(writer) {
                continue;
            }
            if is_settled && has_entries {
                self.seal(writer, 0);
            } else if options.when_full != WhenFull::DropOldest || !self.drop_oldest(writer) {
                return Err(shortage);
            }
        }
    }

    /// Notes the cursor if segments can be removed then. Whether there is more to remove, or less left.
    fn note_settled(&self, writer: &mut Writer) -> bool {
        if !self.state().awaits_note() {
            return false;
        }
        match self.note(writer) {
            Ok(()) => true,
            Err(error) if is_full(&error) => self.remove_unnoted(writer),
            Err(_) => false,
        }
    }

    /// Not even a cursor has room: what is removed before it is noted makes it. Whether anything was.
    fn remove_unnoted(&self, writer: &mut Writer) -> bool {
        let before = self.state().segments.len();
        self.remove_settled();
        let is_less = self.state().segments.len() < before;
        if is_less {
            // If it fails it is due, and tried again.
            let _ = self.note(writer);
        }
        is_less
    }

    /// Writes the cursor for its own sake, and syncs it.
    ///
    /// # Errors
    /// Those of the disk; it is logged.
    pub fn note(&self, writer: &mut Writer) -> io::Result<()> {
        let noted = self.write(writer, &[], BEGINNING_BYTES as u64, Awaited::Noted);
        if let Err(error) = &noted {
            writer.cursor_written = Instant::now();
            // A full disk is said by whoever waits for room, once.
            if !is_full(error) {
                tracing::warn!(folder = %self.folder.display(), %error, "cannot note what was delivered; after a crash it is delivered again");
            }
        }
        noted.map(drop)
    }

    /// Whether the file system keeps its reserve.
    fn is_free(&self, bytes: u64, reserve_bytes: u64) -> bool {
        let needed = bytes.saturating_add(reserve_bytes);
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

    /// As [`Core::tidy`]; what fails was logged and is tried again.
    pub fn keep_house(&self, must: bool) {
        let _ = self.tidy(must);
    }

    /// Drops what is too old, makes the cursor last if its time has come or it `must`, gives up memory
    /// that is short, and removes what nobody needs.
    ///
    /// # Errors
    /// Why the cursor could not be written.
    pub fn tidy(&self, must: bool) -> io::Result<()> {
        let options = self.options();
        let mut writer = self.writer();
        if let Some(expired_ms) = self.expired_ms() {
            self.drop_expired(expired_ms);
        }
        if options.budget.as_ref().is_some_and(|budget| budget.is_short()) {
            self.shrink_head();
        }
        let (is_behind, is_settled, awaited) = {
            let mut state = self.state();
            // The next entry finds out whether there is room again.
            if state.pending.is_empty() {
                state.is_short = None;
            }
            (state.is_behind(), state.is_settled(), state.awaited)
        };
        let pause = writer.cursor_written.elapsed();
        let is_due = is_behind && (must || awaited == Some(Awaited::Noted) || pause >= options.cursor_interval);
        let (mut noted, mut has_failed) = (Ok(()), false);
        if is_due || ((must || pause >= LOOK_AROUND) && self.has_asides()) {
            let is_long = |active: &Active| active.length > options.segment_bytes / 4;
            if is_settled && writer.active.as_ref().is_some_and(is_long) {
                self.seal(&mut writer, 0);
            }
            noted = self.note(&mut writer);
            has_failed = noted.is_err();
            if noted.as_ref().is_err_and(is_full) && self.remove_unnoted(&mut writer) {
                noted = Ok(());
            }
        } else if awaited.is_some() {
            noted = self.write(&mut writer, &[], BEGINNING_BYTES as u64, Awaited::Written).map(drop);
            has_failed = noted.is_err();
        }
        if has_failed {
            self.give_up_noting();
        }
        self.remove_noted();
        noted
    }

    /// Where nothing can be written, nobody waits for it: more comes again after a crash.
    fn give_up_noting(&self) {
        let mut state = self.state();
        (state.written, state.noted) = (state.settled, Mark { records: state.settled.records, ..state.noted });
        if state.awaited.take().is_some() {
            self.changed.notify_one();
        }
    }

    /// Removes the segments that nobody needs any more, after a crash either. Should they be there again
    /// then, the cursor says that they are settled.
    fn remove_noted(&self) {
        let numbers = self.state().noted_segments();
        numbers.into_iter().for_each(|number| self.remove(number));
    }

    /// Removes the segments that nobody needs, although the cursor on the disk does not say so. The one
    /// where it stands goes last, and only when the names of the others are gone from the disk: should they
    /// be there again after a crash, it must say as much as it does.
    fn remove_settled(&self) {
        let (numbers, cursor_segment) = {
            let mut state = self.state();
            state.is_ahead = true;
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
