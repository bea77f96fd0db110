//! The files of the log, `00000001.queue` and so on, and how they are read in the midst of damage.
//!
//! A segment is written once, from its beginning to its end, by the process that made it. Numbers
//! ascend and none is used twice while a later one is there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use weir_model::{Encoding, Signal};

use crate::disk::{DiskFile, read_full};
use crate::queue::durable::cipher::{Key, KeyId};
use crate::queue::durable::record::{self, Header, Kind, MARKER, Parsed, Place};

/// How a segment begins: name of the format, version, name of the key, CRC-32C of these.
pub const BEGINNING_BYTES: usize = 24;
const NAME: [u8; 8] = *b"WEIRQUE\0";
const VERSION: u32 = 1;
const SUFFIX: &str = ".queue";

/// What is read at once to look at headers only.
pub const HEADERS_CHUNK_BYTES: usize = 16 << 10;
/// What is read at once to read payloads too.
pub const PAYLOADS_CHUNK_BYTES: usize = 256 << 10;
/// What is passed over where the disk cannot read.
const BLOCK_BYTES: u64 = 4096;

/// Where a segment lies.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}{SUFFIX}"))
}

/// The number of a segment by its name; `None` for other files.
pub fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let number = digits.parse().ok()?;
    (format!("{number:08}") == digits).then_some(number)
}

/// The beginning of a segment whose payloads are encrypted with a key, or with none (all zero).
pub fn beginning(key: KeyId) -> [u8; BEGINNING_BYTES] {
    let mut bytes = [0; BEGINNING_BYTES];
    let covered = NAME.into_iter().chain(VERSION.to_le_bytes()).chain(key);
    bytes.iter_mut().zip(covered).for_each(|(byte, value)| *byte = value);
    let crc = crc32c::crc32c(bytes.get(..20).unwrap_or_default());
    bytes.iter_mut().skip(20).zip(crc.to_le_bytes()).for_each(|(byte, value)| *byte = value);
    bytes
}

/// What the beginning of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// This version of the format, and its key.
    Known(KeyId),
    /// A version that this Weir does not know.
    Newer(u32),
    /// Damaged or not finished; records may follow all the same.
    Damaged,
}

/// Looks at the beginning of a segment.
pub fn read_beginning(file: &dyn DiskFile) -> Beginning {
    let mut bytes = [0; BEGINNING_BYTES];
    if !matches!(read_full(file, &mut bytes, 0), Ok(BEGINNING_BYTES)) {
        return Beginning::Damaged;
    }
    let [name @ .., v0, v1, v2, v3, k0, k1, k2, k3, k4, k5, k6, k7, c0, c1, c2, c3] = bytes;
    let crc = crc32c::crc32c(bytes.get(..20).unwrap_or_default());
    if name != NAME || crc != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Beginning::Damaged;
    }
    match u32::from_le_bytes([v0, v1, v2, v3]) {
        VERSION => Beginning::Known([k0, k1, k2, k3, k4, k5, k6, k7]),
        version => Beginning::Newer(version),
    }
}

/// An entry as its header describes it.
#[derive(Clone, Debug)]
pub struct EntryHeader {
    /// Where it stands.
    pub place: Place,
    /// Its number.
    pub sequence: u64,
    /// When it was queued, unix milliseconds.
    pub queued_ms: i64,
    /// Its records.
    pub records: u32,
    /// Where they came from.
    pub origin: Arc<str>,
    /// Their signal.
    pub signal: Signal,
    /// The encoding of the payload.
    pub encoding: Encoding,
    is_encrypted: bool,
    payload_at: u64,
    payload_bytes: u32,
    payload_crc: u32,
}

impl EntryHeader {
    /// Where it ends.
    pub fn end(&self) -> u64 {
        self.payload_at + u64::from(self.payload_bytes)
    }

    /// Its bytes in the file.
    pub fn stored_bytes(&self) -> u64 {
        self.end() - self.place.offset
    }

    /// The payload as it was queued; `None` if it is encrypted with another key.
    pub fn plain(&self, stored: Bytes, key: Option<&Key>) -> Option<Bytes> {
        if !self.is_encrypted {
            return Some(stored);
        }
        let kind = Kind::Entry { signal: self.signal, encoding: self.encoding, is_encrypted: true };
        let (sequence, queued_ms, records) = (self.sequence, self.queued_ms, self.records);
        let header =
            Header { kind, sequence, queued_ms, records, origin: &self.origin, payload_bytes: 0, payload_crc: 0 };
        let mut authenticated = Vec::new();
        header.authenticated(&mut authenticated);
        key?.open(&authenticated, &stored).map(Bytes::from)
    }
}

/// What stands in a segment.
#[derive(Clone, Debug)]
pub enum Found {
    /// An entry whose header is right.
    Entry(EntryHeader),
    /// How far the queue was settled, and the bytes that say what became of the records before.
    Cursor(u64, Bytes),
    /// What stood before in this segment, which ends here.
    Summary,
    /// Bytes that are no record.
    Damage {
        /// Where they begin.
        offset: u64,
        /// How many.
        bytes: u64,
        /// The end of a write that was never finished.
        is_torn: bool,
    },
}

/// What a record at a place is.
enum Attempt {
    Whole(Found, u64),
    /// It would go on beyond the end.
    Unfinished,
    Wrong,
}

/// Walks through a segment.
#[derive(Debug)]
pub struct Scan {
    file: Arc<dyn DiskFile>,
    segment: u64,
    at: u64,
    end: u64,
    chunk_bytes: usize,
    window: Bytes,
    window_at: u64,
    origins: Vec<Arc<str>>,
}

impl Scan {
    /// Walks from a place on to the offset `end`, reading so many bytes at once.
    pub fn new(file: Arc<dyn DiskFile>, from: Place, end: u64, chunk_bytes: usize) -> Self {
        let at = from.offset.max(BEGINNING_BYTES as u64);
        let (window, origins) = (Bytes::new(), Vec::new());
        Self { file, segment: from.segment, at, end, chunk_bytes, window, window_at: 0, origins }
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        Place { segment: self.segment, offset: self.at }
    }

    /// The segment has become longer.
    pub fn extend(&mut self, end: u64) {
        self.end = end;
    }

    /// What stands next; an entry's payload is not looked at.
    pub fn find(&mut self) -> Option<Found> {
        if self.at >= self.end {
            return None;
        }
        let offset = self.at;
        let first = self.attempt(offset);
        if let Attempt::Whole(found, next) = first {
            self.at = next;
            return Some(found);
        }
        let next = self.next_whole(offset + 1);
        self.at = next.unwrap_or(self.end);
        // File systems fill what was never written with zeros.
        let is_zero = |bytes: Bytes| bytes.iter().all(|byte| *byte == 0);
        let is_unfinished = matches!(first, Attempt::Unfinished) || self.view(offset, 64).is_ok_and(is_zero);
        Some(Found::Damage { offset, bytes: self.at - offset, is_torn: next.is_none() && is_unfinished })
    }

    /// The stored payload of an entry, if the disk gives back what was written.
    pub fn stored(&mut self, entry: &EntryHeader) -> Option<Bytes> {
        let length = usize::try_from(entry.payload_bytes).ok()?;
        let stored = self.view(entry.payload_at, length).ok()?;
        (stored.len() == length && crc32c::crc32c(&stored) == entry.payload_crc).then_some(stored)
    }

    /// At most so many bytes from an offset on; fewer only at the end.
    fn view(&mut self, at: u64, length: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let length = length.min(left);
        let start = at.checked_sub(self.window_at).and_then(|start| usize::try_from(start).ok());
        if let Some(start) = start
            && start.checked_add(length).is_some_and(|end| end <= self.window.len())
        {
            return Ok(self.window.slice(start..start + length));
        }
        let chunk = self.chunk_bytes.min(left);
        if chunk <= length || self.fill(at, chunk).is_err() {
            // Perhaps only what lies behind cannot be read.
            self.fill(at, length)?;
        }
        Ok(self.window.slice(..length.min(self.window.len())))
    }

    fn fill(&mut self, at: u64, length: usize) -> io::Result<()> {
        let mut buffer = vec![0; length];
        let read = read_full(&*self.file, &mut buffer, at)?;
        buffer.truncate(read);
        (self.window, self.window_at) = (Bytes::from(buffer), at);
        Ok(())
    }

    fn attempt(&mut self, offset: u64) -> Attempt {
        let place = Place { segment: self.segment, offset };
        let Ok(mut bytes) = self.view(offset, record::HEADER_BYTES + 64) else { return Attempt::Wrong };
        if let Parsed::Needs(needed) = Header::read(&bytes, place) {
            match self.view(offset, needed) {
                Ok(more) => bytes = more,
                Err(_) => return Attempt::Wrong,
            }
        }
        let header = match Header::read(&bytes, place) {
            Parsed::Whole(header) => header,
            Parsed::Needs(_) => return Attempt::Unfinished,
            Parsed::Wrong => return Attempt::Wrong,
        };
        let payload_at = offset + header.header_bytes() as u64;
        let end = payload_at + u64::from(header.payload_bytes);
        if end > self.end {
            return Attempt::Unfinished;
        }
        let (signal, encoding, is_encrypted) = match header.kind {
            Kind::Entry { signal, encoding, is_encrypted } => (signal, encoding, is_encrypted),
            Kind::Cursor | Kind::Summary => {
                let (kind, sequence, crc) = (header.kind, header.sequence, header.payload_crc);
                let length = header.payload_bytes as usize;
                return match self.view(payload_at, length) {
                    Ok(payload) if payload.len() == length && crc32c::crc32c(&payload) == crc => {
                        let is_cursor = kind == Kind::Cursor;
                        let found = if is_cursor { Found::Cursor(sequence, payload) } else { Found::Summary };
                        Attempt::Whole(found, end)
                    }
                    // The last one of a write that was never finished, or a damaged one: the one before counts.
                    _ if end == self.end => Attempt::Unfinished,
                    _ => Attempt::Wrong,
                };
            }
        };
        let entry = EntryHeader {
            place,
            sequence: header.sequence,
            queued_ms: header.queued_ms,
            records: header.records,
            origin: self.origin(header.origin),
            signal,
            encoding,
            is_encrypted,
            payload_at,
            payload_bytes: header.payload_bytes,
            payload_crc: header.payload_crc,
        };
        Attempt::Whole(Found::Entry(entry), end)
    }

    /// One name for all entries of an origin.
    fn origin(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.origins.iter().find(|known| ***known == *name) {
            return known.clone();
        }
        let origin: Arc<str> = Arc::from(name);
        self.origins.push(origin.clone());
        origin
    }

    /// The next place from an offset on where a record stands.
    fn next_whole(&mut self, offset: u64) -> Option<u64> {
        let mut at = offset;
        while at < self.end {
            let Ok(bytes) = self.view(at, PAYLOADS_CHUNK_BYTES) else {
                at = (at / BLOCK_BYTES + 1) * BLOCK_BYTES;
                continue;
            };
            match bytes.windows(MARKER.len()).position(|window| window == MARKER) {
                Some(position) => {
                    at += position as u64;
                    if matches!(self.attempt(at), Attempt::Whole(..)) {
                        return Some(at);
                    }
                    at += 1;
                }
                None if bytes.len() < MARKER.len() => return None,
                None => at += (bytes.len() - MARKER.len() + 1) as u64,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_the_same_thing() {
        assert_eq!(path(Path::new("q"), 12).to_str().unwrap(), "q/00000012.queue");
        for number in [0, 1, 99_999_999, 100_000_000, u64::MAX] {
            let path = path(Path::new(""), number);
            assert_eq!(super::number(path.to_str().unwrap()), Some(number));
        }
        for other in ["1.queue", "00000001.wal", "lock", "0000000x.queue", "+0000001.queue"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
