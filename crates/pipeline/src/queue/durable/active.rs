//! The segment that is written: how it begins and how it ends.

use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::queue::durable::core::Core;
use crate::queue::durable::options::SyncPolicy;
use crate::queue::durable::record::Place;
use crate::queue::durable::segment;
use crate::queue::durable::state::{Awaited, Pending, Segment};
use crate::queue::durable::summary::Summary;
use crate::queue::durable::survey::Found;
use crate::queue::durable::writer::{Writer, is_full};

/// The segment that is written.
#[derive(Debug)]
pub struct Active {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub file: Arc<dyn DiskFile>,
    /// Where the next write begins.
    pub length: u64,
    /// What stands in it besides cursors.
    pub summary: Option<Summary>,
    /// Whether its name is on the disk.
    is_listed: bool,
}

impl Active {
    /// An entry was written to it.
    pub fn count_in(&mut self, pending: &Pending, place: Place) {
        let (origin, signal) = (pending.origin.clone(), pending.payload.signal());
        let entry = Found { origin, signal, entries: 1, records: pending.records(), bytes: pending.stored_bytes };
        Summary::add(&mut self.summary, pending.sequence, place.offset, pending.queued_ms, entry);
    }
}

impl Core {
    /// After a write: waits for the disk as configured, and cuts off what is not whole. Whether it is synced:
    /// the first one of a segment always is, for its name.
    pub fn appended(
        &self,
        writer: &mut Writer,
        written: io::Result<()>,
        length: u64,
        survives: Awaited,
    ) -> io::Result<bool> {
        let Some(active) = &mut writer.active else { return Err(ErrorKind::NotFound.into()) };
        let path = segment::path(&self.folder, active.number);
        if let Err(error) = written {
            let is_cut = self.disk.truncate(&path, active.length).is_ok();
            if !is_cut || !is_full(&error) {
                self.seal(writer, if is_cut { 0 } else { length });
            }
            return Err(error);
        }
        let is_synced = survives == Awaited::Noted || !active.is_listed;
        let synced = if is_synced { self.sync(active) } else { Ok(()) };
        if let Err(error) = synced {
            // Nobody can tell what of it is on the disk, and no later sync will: it is written no more.
            let is_cut = self.disk.truncate(&path, active.length).is_ok();
            self.seal(writer, if is_cut { 0 } else { length });
            return Err(error);
        }
        active.length = length;
        let number = active.number;
        self.measure(number, length);
        Ok(is_synced)
    }

    fn sync(&self, active: &mut Active) -> io::Result<()> {
        if self.options().sync == SyncPolicy::Never {
            return Ok(());
        }
        active.file.sync()?;
        if !active.is_listed {
            self.disk.sync_folder(&self.folder)?;
            active.is_listed = true;
        }
        Ok(())
    }

    /// A segment's length is known anew.
    pub fn measure(&self, number: u64, file_bytes: u64) {
        let mut state = self.state();
        if let Some(segment) = state.segment(number) {
            if let Some(shared) = &self.options().shared {
                shared.change(segment.file_bytes, file_bytes);
            }
            segment.file_bytes = file_bytes;
        }
    }

    /// Makes sure that there is a segment with room for so many bytes.
    pub fn begin_segment(&self, writer: &mut Writer, bytes: u64) -> io::Result<()> {
        let segment_bytes = self.options().segment_bytes;
        let is_used = |active: &Active| active.summary.is_some() || active.length > segment_bytes / 4;
        let is_long = |active: &Active| is_used(active) && active.length + bytes > segment_bytes;
        if writer.active.as_ref().is_some_and(is_long) {
            self.end_segment(writer);
        }
        if writer.active.is_some() {
            return Ok(());
        }
        let number = writer.next_number;
        let file = self.disk.create(&segment::path(&self.folder, number));
        // Also if that failed: the name may be taken.
        writer.next_number += 1;
        self.state().segments.push_back(Segment::new(number));
        match file {
            Ok(file) => {
                writer.active = Some(Active { number, file, length: 0, summary: None, is_listed: false });
                Ok(())
            }
            Err(error) => {
                if let Some(segment) = self.state().segment(number) {
                    segment.is_sealed = true;
                }
                Err(error)
            }
        }
    }

    /// Ends the segment that is written, with its summary: without one, opening takes longer.
    pub fn end_segment(&self, writer: &mut Writer) {
        if let Err(error) = self.sum_up(writer) {
            tracing::debug!(folder = %self.folder.display(), %error, "a segment ends without its summary");
        }
        self.seal(writer, 0);
    }

    /// Writes what stands in the segment, once that is on the disk: else it might say what is not there. So
    /// where nothing is synced there is none.
    fn sum_up(&self, writer: &mut Writer) -> io::Result<()> {
        let Some(active) = &writer.active else { return Ok(()) };
        let Some(summary) = active.summary.as_ref().filter(|_| self.options().sync != SyncPolicy::Never) else {
            return Ok(());
        };
        active.file.sync()?;
        let (number, length) = (active.number, active.length);
        let record = summary.record(Place { segment: number, offset: length });
        let written = active.file.append(&mut [IoSlice::new(&record)]);
        let end = length + record.len() as u64;
        self.appended(writer, written, end, Awaited::Noted)?;
        if let Some(segment) = self.state().segment(number) {
            segment.end = end;
        }
        Ok(())
    }

    /// Ends the segment that is written as it is; its file may be longer than what is stored in it.
    pub fn seal(&self, writer: &mut Writer, file_bytes: u64) {
        let Some(active) = writer.active.take() else { return };
        self.measure(active.number, active.length.max(file_bytes));
        if let Some(segment) = self.state().segment(active.number) {
            segment.is_sealed = true;
        }
    }
}
