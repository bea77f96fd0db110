//! What a folder holds, found by its headers: for opening a queue, and for people who look at one.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_model::Signal;

use crate::disk::{Disk, Listed};
use crate::ledger::{Counts, Key, Totals};
use crate::queue::durable::cipher::KeyId;
use crate::queue::durable::record::Place;
use crate::queue::durable::segment::{
    self, BEGINNING_BYTES, Beginning, EntryHeader, HEADERS_CHUNK_BYTES, PAYLOADS_CHUNK_BYTES, Scan,
};
use crate::queue::durable::summary::Summary;
use crate::queue::durable::totals::{self, Sums};

/// Why a queue cannot be opened: what a person has to decide. Damage is no reason.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or listed, or a file of it not be opened.
    #[error("cannot open {}: {source}; make it readable and writable for the user that runs weir", path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A segment of a later version.
    #[error("{} was written by a later version of weir (format {version}); use that version or move the file away", path.display())]
    Newer {
        /// The segment.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// A segment that is encrypted with another key.
    #[error("{} is encrypted with another key than the configured one; configure the key that it was written with, or move the file away to give its records up", path.display())]
    Key {
        /// The segment.
        path: PathBuf,
    },
}

/// Bytes of a segment that are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Where they begin.
    pub offset: u64,
    /// How many.
    pub bytes: u64,
    /// The end of a write that was never finished; nobody was told that it is stored.
    pub is_torn: bool,
    /// How many records were there, where the header still says it.
    pub records: Option<u32>,
}

/// What waits of one origin and one signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The source.
    pub origin: Arc<str>,
    /// The signal.
    pub signal: Signal,
    /// Entries.
    pub entries: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes in the files.
    pub bytes: u64,
}

/// What stands in one segment.
#[derive(Clone, Debug)]
pub struct SegmentSurvey {
    /// Its number.
    pub number: u64,
    /// Its length.
    pub file_bytes: u64,
    /// Whether its payloads are encrypted; `None` if its beginning is damaged.
    pub is_encrypted: Option<bool>,
    /// Its entries, settled ones included.
    pub entries: u64,
    /// What waits in it.
    pub waiting: Vec<Found>,
    /// When its oldest waiting entry was queued, unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// When its newest entry was queued, unix milliseconds.
    pub newest_ms: Option<i64>,
    /// The sequences of its first and last entry.
    pub sequences: Option<(u64, u64)>,
    /// Where its first waiting entry stands.
    pub(super) first_waiting: Option<u64>,
    /// Where it ends, a torn end left out.
    pub(super) end: u64,
    /// Offsets of entries whose payload is damaged.
    pub(super) damaged: Vec<u64>,
    pub(super) key: Option<KeyId>,
}

/// What a folder holds.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Entries below this sequence are settled.
    pub cursor: u64,
    /// The segment where the cursor stands.
    pub(super) cursor_segment: Option<u64>,
    /// What the cursor says besides; `None` if no cursor says it.
    pub(super) sums: Option<Sums>,
    /// The segments, the oldest first.
    pub segments: Vec<SegmentSurvey>,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

impl Survey {
    /// What waits, by origin and signal.
    pub fn waiting(&self) -> Vec<Found> {
        let mut sums: Vec<Found> = Vec::new();
        for found in self.segments.iter().flat_map(|segment| &segment.waiting) {
            add(&mut sums, found);
        }
        sums
    }

    /// The rows of the ledger that the folder keeps: what became of the records before the cursor, and
    /// what waits.
    pub fn rows(&self, exporter: &Arc<str>) -> Vec<(Key, Counts)> {
        let mut rows = self.sums.clone().unwrap_or_default().rows;
        let mut waiting = BTreeMap::new();
        for found in self.waiting() {
            rows.entry((found.origin.clone(), found.signal)).or_default();
            waiting.insert((found.origin, found.signal), found.records);
        }
        let row = |((origin, signal), totals): ((Arc<str>, Signal), Totals)| {
            let waits = waiting.get(&(origin.clone(), signal)).copied().unwrap_or_default();
            ((origin, exporter.clone(), signal), totals.into_counts(waits))
        };
        rows.into_iter().map(row).collect()
    }

    /// When the oldest waiting entry was queued, unix milliseconds.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.segments.iter().filter_map(|segment| segment.oldest_ms).min()
    }
}

/// Adds to the sum of the same origin and signal.
pub fn add(sums: &mut Vec<Found>, found: &Found) {
    match sums.iter_mut().find(|sum| sum.signal == found.signal && sum.origin == found.origin) {
        Some(sum) => {
            sum.entries += found.entries;
            sum.records += found.records;
            sum.bytes += found.bytes;
        }
        None => sums.push(found.clone()),
    }
}

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At headers only.
    Headers,
    /// At the payloads of the newest segment too, unless it was ended: only there may be a write that was
    /// never finished.
    Newest,
    /// At every byte.
    Everything,
}

/// Looks at a folder, changing nothing.
///
/// # Errors
/// [`OpenError`] if the folder cannot be listed, a file not be opened, or the format is a later one.
pub fn survey(disk: &dyn Disk, folder: &Path, depth: Depth) -> Result<Survey, OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let listed = disk.list(folder).map_err(failed(folder))?;
    let mut files: Vec<(u64, u64)> =
        listed.iter().filter_map(|Listed { name, bytes }| Some((segment::number(name)?, *bytes))).collect();
    files.sort_unstable();
    let newest = newest_cursor(disk, folder, &files)?;
    let (cursor_segment, cursor, sums) =
        newest.map_or((None, 0, None), |(segment, cursor, sums)| (Some(segment), cursor, sums));
    let mut survey = Survey { cursor, cursor_segment, sums, ..Survey::default() };
    let mut floor = survey.cursor;
    for (at, (number, file_bytes)) in files.iter().enumerate() {
        let is_newest = at + 1 == files.len();
        let looks = depth == Depth::Everything || (depth == Depth::Newest && is_newest);
        let sums = survey.sums.as_ref();
        let must_look = depth == Depth::Everything;
        let mut walk =
            Walk { disk, folder, must_look, looks_at_payloads: looks, floor, sums, damage: &mut survey.damage };
        let segment = walk.segment(*number, *file_bytes)?;
        floor = floor.max(segment.sequences.map_or(0, |(_, last)| last.saturating_add(1)));
        survey.segments.push(segment);
    }
    Ok(survey)
}

/// Segment, position and sums of a cursor.
type NewestCursor = (u64, u64, Option<Sums>);

/// The cursor that was written last, and its segment: every segment begins with one and they only
/// advance.
fn newest_cursor(disk: &dyn Disk, folder: &Path, files: &[(u64, u64)]) -> Result<Option<NewestCursor>, OpenError> {
    for (number, file_bytes) in files.iter().rev() {
        let Some(mut scan) = open(disk, folder, *number, *file_bytes, HEADERS_CHUNK_BYTES)?.1 else { continue };
        let mut newest = None;
        while let Some(found) = scan.find() {
            if let segment::Found::Cursor(cursor, sums) = found {
                newest = Some((cursor, sums));
            }
        }
        if let Some((cursor, sums)) = newest {
            return Ok(Some((*number, cursor, totals::decode(&sums))));
        }
    }
    Ok(None)
}

/// Opens a segment; no scan if the disk cannot read it at all.
pub fn open(
    disk: &dyn Disk,
    folder: &Path,
    number: u64,
    end: u64,
    chunk_bytes: usize,
) -> Result<(Beginning, Option<Scan>), OpenError> {
    let path = segment::path(folder, number);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if is_lost(&error) => return Ok((Beginning::Damaged, None)),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let beginning = segment::read_beginning(&*file);
    if let Beginning::Newer(version) = beginning {
        return Err(OpenError::Newer { path, version });
    }
    let from = Place { segment: number, offset: 0 };
    Ok((beginning, Some(Scan::new(file, from, end, chunk_bytes))))
}

/// Whether an error says that the disk does not have a file any more, now or later.
pub fn is_lost(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::EIO)
}

struct Walk<'a> {
    disk: &'a dyn Disk,
    folder: &'a Path,
    looks_at_payloads: bool,
    /// Whether the summary of a segment is not enough.
    must_look: bool,
    /// Entries below are settled, or were found before.
    floor: u64,
    /// Names those that are settled behind the cursor.
    sums: Option<&'a Sums>,
    damage: &'a mut Vec<Damage>,
}

impl Walk<'_> {
    fn segment(&mut self, number: u64, file_bytes: u64) -> Result<SegmentSurvey, OpenError> {
        if !self.must_look
            && let Some(summed) = self.summed(number, file_bytes)?
        {
            return Ok(summed);
        }
        let chunk = if self.looks_at_payloads { PAYLOADS_CHUNK_BYTES } else { HEADERS_CHUNK_BYTES };
        let (beginning, scan) = open(self.disk, self.folder, number, file_bytes, chunk)?;
        let key = if let Beginning::Known(key) = beginning { Some(key) } else { None };
        let mut segment = SegmentSurvey {
            number,
            file_bytes,
            is_encrypted: key.map(|key| key != KeyId::default()),
            entries: 0,
            waiting: Vec::new(),
            oldest_ms: None,
            newest_ms: None,
            sequences: None,
            first_waiting: None,
            end: file_bytes,
            damaged: Vec::new(),
            key,
        };
        let Some(mut scan) = scan else {
            self.report(number, 0, file_bytes, false, None);
            return Ok(segment);
        };
        if key.is_none() {
            let bytes = file_bytes.min(BEGINNING_BYTES as u64);
            let is_torn = bytes == file_bytes;
            if is_torn {
                segment.end = 0;
            }
            self.report(number, 0, bytes, is_torn, None);
        }
        while let Some(found) = scan.find() {
            match found {
                segment::Found::Entry(entry) => self.entry(&mut segment, &mut scan, &entry),
                segment::Found::Cursor(..) | segment::Found::Summary => {}
                segment::Found::Damage { offset, bytes, is_torn } => {
                    if is_torn {
                        segment.end = offset;
                    }
                    self.report(number, offset, bytes, is_torn, None);
                }
            }
        }
        Ok(segment)
    }

    /// What the summary of a segment says, if it has one and either all in it waits or nothing does.
    fn summed(&mut self, number: u64, file_bytes: u64) -> Result<Option<SegmentSurvey>, OpenError> {
        let path = segment::path(self.folder, number);
        let Ok(file) = self.disk.open(&path) else { return Ok(None) };
        let Beginning::Known(key) = segment::read_beginning(&*file) else { return Ok(None) };
        let Some(summary) = Summary::read(&*file, number, file_bytes) else { return Ok(None) };
        let (first, last) = summary.sequences;
        let is_settled = last < self.floor || self.sums.is_some_and(|sums| sums.settled.covers(first, last));
        let touches = |sums: &Sums| sums.settled.iter().any(|(from, to)| from <= last && first <= to);
        if !is_settled && (first < self.floor || self.sums.is_some_and(touches)) {
            return Ok(None);
        }
        Ok(Some(SegmentSurvey {
            number,
            file_bytes,
            is_encrypted: Some(key != KeyId::default()),
            entries: summary.entries,
            waiting: if is_settled { Vec::new() } else { summary.rows },
            oldest_ms: (!is_settled).then_some(summary.oldest_ms),
            newest_ms: Some(summary.newest_ms),
            sequences: Some(summary.sequences),
            first_waiting: (!is_settled).then_some(summary.first_at),
            end: file_bytes,
            damaged: Vec::new(),
            key: Some(key),
        }))
    }

    fn entry(&mut self, segment: &mut SegmentSurvey, scan: &mut Scan, entry: &EntryHeader) {
        segment.entries += 1;
        let (first, last) = segment.sequences.unwrap_or((entry.sequence, entry.sequence));
        segment.sequences = Some((first.min(entry.sequence), last.max(entry.sequence)));
        segment.newest_ms = segment.newest_ms.max(Some(entry.queued_ms));
        if self.looks_at_payloads && scan.stored(entry).is_none() {
            segment.damaged.push(entry.place.offset);
            let (offset, bytes) = (entry.place.offset, entry.stored_bytes());
            self.report(entry.place.segment, offset, bytes, false, Some(entry.records));
            return;
        }
        if entry.sequence < self.floor || self.sums.is_some_and(|sums| sums.settled.contains(entry.sequence)) {
            return;
        }
        self.floor = entry.sequence + 1;
        segment.first_waiting.get_or_insert(entry.place.offset);
        segment.oldest_ms = Some(segment.oldest_ms.map_or(entry.queued_ms, |oldest| oldest.min(entry.queued_ms)));
        let (origin, signal, records) = (entry.origin.clone(), entry.signal, u64::from(entry.records));
        add(&mut segment.waiting, &Found { origin, signal, entries: 1, records, bytes: entry.stored_bytes() });
    }

    fn report(&mut self, number: u64, offset: u64, bytes: u64, is_torn: bool, records: Option<u32>) {
        let path = segment::path(self.folder, number);
        self.damage.push(Damage { path, offset, bytes, is_torn, records });
    }
}
