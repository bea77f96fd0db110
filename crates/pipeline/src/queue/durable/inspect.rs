//! A queue's folder for people, read-only; also while the queue is in use, for then the worst that
//! can happen is that the newest or the oldest is missing.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use weir_model::{Encoding, Signal};

use crate::disk::Disk;
use crate::ledger::{self, Counts};
use crate::queue::durable::cipher::Key;
use crate::queue::durable::segment::{Found, PAYLOADS_CHUNK_BYTES};
use crate::queue::durable::survey::{self, Depth, OpenError, Survey, survey};

/// An entry that waits.
#[derive(Clone, Debug)]
pub struct Exported {
    /// Its number: ascending, and never that of another entry of this folder.
    pub sequence: u64,
    /// Its source.
    pub origin: Arc<str>,
    /// Its signal.
    pub signal: Signal,
    /// The encoding of the payload.
    pub encoding: Encoding,
    /// Its records.
    pub records: u32,
    /// When it was queued, unix milliseconds.
    pub queued_ms: i64,
    /// An OTLP export request; `None` if it is damaged or encrypted with another key.
    pub payload: Option<Bytes>,
}

/// What a folder holds, by the headers of its records.
///
/// # Errors
/// [`OpenError`] if the folder or a file cannot be read, or is of a later version.
pub fn inspect(disk: &dyn Disk, folder: &Path) -> Result<Survey, OpenError> {
    survey(disk, folder, Depth::Headers)
}

/// What a folder holds, and whether every byte of it is as it was written. No key is needed.
///
/// # Errors
/// As [`inspect`].
pub fn verify(disk: &dyn Disk, folder: &Path) -> Result<Survey, OpenError> {
    survey(disk, folder, Depth::Everything)
}

/// The rows of the ledger that the queue of an exporter keeps in a folder; what waits is `queued`, also
/// what a running process has under way.
///
/// # Errors
/// As [`inspect`].
pub fn ledger_rows(
    disk: &dyn Disk,
    folder: &Path,
    exporter: &Arc<str>,
) -> Result<Vec<(ledger::Key, Counts)>, OpenError> {
    Ok(inspect(disk, folder)?.rows(exporter))
}

/// Visits what waits, the oldest first.
///
/// # Errors
/// As [`inspect`], or the visitor's own.
pub fn export(
    disk: &dyn Disk,
    folder: &Path,
    key: Option<&Key>,
    mut visit: impl FnMut(Exported) -> io::Result<()>,
) -> Result<(), OpenError> {
    let found = survey(disk, folder, Depth::Headers)?;
    let mut floor = found.cursor;
    let newest = found.segments.last().map(|segment| segment.number);
    for segment in &found.segments {
        let (number, end) = (segment.number, segment.end);
        let (_, Some(mut scan)) = survey::open(disk, folder, number, end, PAYLOADS_CHUNK_BYTES)? else { continue };
        while let Some(next) = scan.find() {
            let Found::Entry(entry) = next else { continue };
            let is_settled = found.sums.as_ref().is_some_and(|sums| sums.settled.contains(entry.sequence));
            if entry.sequence < floor || is_settled {
                continue;
            }
            let stored = scan.stored(&entry);
            // As at opening: what is damaged in the newest segment may be of a write that was never finished.
            if stored.is_some() || newest != Some(number) {
                floor = entry.sequence + 1;
            }
            let payload = stored.and_then(|stored| entry.plain(stored, key));
            let exported = Exported {
                sequence: entry.sequence,
                origin: entry.origin.clone(),
                signal: entry.signal,
                encoding: entry.encoding,
                records: entry.records,
                queued_ms: entry.queued_ms,
                payload,
            };
            visit(exported).map_err(|source| OpenError::Io { path: folder.to_owned(), source })?;
        }
    }
    Ok(())
}
