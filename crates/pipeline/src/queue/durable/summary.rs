//! How a segment ends that is written no more: with the sums of what stands in it, so that opening a queue
//! need not walk through all that waits.
//!
//! ```text
//! entries     u64
//! first, last u64 each   the numbers of its first and last entry
//! place       u64        offset of the first one
//! oldest      i64        when the first was queued, unix milliseconds
//! newest      i64        when the newest was
//! each row:   length of the origin u16, origin, signal u8, entries u64, records u64, bytes u64
//! own place   u64        offset of the summary's record: the last bytes of the file
//! ```
//!
//! Integers are little-endian. It is written when everything before it is synced, so a segment that has one
//! is whole: what is damaged in it was damaged later.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use weir_model::Signal;

use crate::disk::{DiskFile, read_full};
use crate::queue::durable::record::{HEADER_BYTES, Header, Kind, Parsed, Place};
use crate::queue::durable::survey::{self, Found};
use crate::queue::durable::totals::{Rest, signal_byte};

/// The length of its last field.
const PLACE_BYTES: u64 = 8;
/// A longer one is not believed: there are a few rows of a hundred bytes.
const MOST_BYTES: u64 = 1 << 20;

/// What stands in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Entries.
    pub entries: u64,
    /// The numbers of the first and last one.
    pub sequences: (u64, u64),
    /// Where the first one stands.
    pub first_at: u64,
    /// When the first was queued, unix milliseconds.
    pub oldest_ms: i64,
    /// When the newest was, unix milliseconds.
    pub newest_ms: i64,
    /// They by origin and signal.
    pub rows: Vec<Found>,
}

impl Summary {
    /// Counts an entry in that was written behind all others.
    pub fn add(summary: &mut Option<Summary>, sequence: u64, at: u64, queued_ms: i64, entry: Found) {
        let summary = summary.get_or_insert_with(|| Summary {
            entries: 0,
            sequences: (sequence, sequence),
            first_at: at,
            oldest_ms: queued_ms,
            newest_ms: queued_ms,
            rows: Vec::new(),
        });
        summary.entries += 1;
        summary.sequences.1 = sequence;
        summary.oldest_ms = summary.oldest_ms.min(queued_ms);
        summary.newest_ms = summary.newest_ms.max(queued_ms);
        survey::add(&mut summary.rows, &entry);
    }

    /// Its record as it stands at a place.
    pub fn record(&self, place: Place) -> Vec<u8> {
        let mut payload = Vec::new();
        let (first, last) = self.sequences;
        for value in [self.entries, first, last, self.first_at] {
            payload.extend_from_slice(&value.to_le_bytes());
        }
        for value in [self.oldest_ms, self.newest_ms] {
            payload.extend_from_slice(&value.to_le_bytes());
        }
        for Found { origin, signal, entries, records, bytes } in &self.rows {
            // Longer ones are not taken.
            payload.extend_from_slice(&u16::try_from(origin.len()).unwrap_or(u16::MAX).to_le_bytes());
            payload.extend_from_slice(origin.as_bytes());
            payload.push(signal_byte(*signal));
            for value in [entries, records, bytes] {
                payload.extend_from_slice(&value.to_le_bytes());
            }
        }
        payload.extend_from_slice(&place.offset.to_le_bytes());
        let mut record = Vec::with_capacity(HEADER_BYTES + payload.len());
        Header::own(Kind::Summary, last, self.newest_ms, &payload).write(&mut record, place);
        record.extend_from_slice(&payload);
        record
    }

    fn decode(payload: &[u8]) -> Option<Summary> {
        let (payload, _) = payload.split_last_chunk::<{ PLACE_BYTES as usize }>()?;
        let mut rest = Rest(payload);
        let (entries, first, last, first_at) = (rest.number()?, rest.number()?, rest.number()?, rest.number()?);
        let (oldest_ms, newest_ms) = (rest.number()?.cast_signed(), rest.number()?.cast_signed());
        let mut rows = Vec::new();
        while !rest.0.is_empty() {
            let length = u16::from_le_bytes([rest.byte()?, rest.byte()?]);
            let origin: Arc<str> = Arc::from(rest.text(usize::from(length))?);
            let signal: Signal = rest.signal()?;
            let (entries, records, bytes) = (rest.number()?, rest.number()?, rest.number()?);
            rows.push(Found { origin, signal, entries, records, bytes });
        }
        Some(Summary { entries, sequences: (first, last), first_at, oldest_ms, newest_ms, rows })
    }

    /// The one that a segment of so many bytes ends with, if it ends with one and the disk gives it back.
    pub fn read(file: &dyn DiskFile, segment: u64, file_bytes: u64) -> Option<Summary> {
        let place_at = file_bytes.checked_sub(PLACE_BYTES)?;
        let mut place = [0; PLACE_BYTES as usize];
        fill(file, &mut place, place_at).ok()?;
        let offset = u64::from_le_bytes(place);
        let length = file_bytes.checked_sub(offset).filter(|length| *length <= MOST_BYTES)?;
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        fill(file, &mut bytes, offset).ok()?;
        let Parsed::Whole(header) = Header::read(&bytes, Place { segment, offset }) else { return None };
        let payload = bytes.get(header.header_bytes()..)?;
        let is_whole = payload.len() as u64 == u64::from(header.payload_bytes);
        let is_right = header.kind == Kind::Summary && is_whole && crc32c::crc32c(payload) == header.payload_crc;
        is_right.then(|| Summary::decode(payload)).flatten()
    }
}

fn fill(file: &dyn DiskFile, bytes: &mut [u8], at: u64) -> io::Result<()> {
    if read_full(file, bytes, at)? == bytes.len() { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::disk::Disk;
    use crate::disk::simulated::SimulatedDisk;

    fn found(origin: &str, records: u64) -> Found {
        Found { origin: Arc::from(origin), signal: Signal::Traces, entries: 1, records, bytes: 100 }
    }

    fn summary() -> Summary {
        let mut summary = None;
        for (at, origin) in ["a", "ü/b", "a"].into_iter().enumerate() {
            let at = at as u64;
            Summary::add(&mut summary, 7 + at, 24 + 100 * at, -5 + at as i64, found(origin, 3));
        }
        summary.unwrap()
    }

    fn file(bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = SimulatedDisk::new(1, u64::MAX).create(Path::new("q/1")).unwrap();
        file.append(&mut [io::IoSlice::new(bytes)]).unwrap();
        file
    }

    #[test]
    fn it_comes_back_as_written_and_not_at_all_if_a_bit_of_it_is_flipped_or_something_follows() {
        let place = Place { segment: 3, offset: 324 };
        let mut bytes = vec![9; 324];
        bytes.extend_from_slice(&summary().record(place));
        let read = |bytes: &[u8]| Summary::read(&*file(bytes), 3, bytes.len() as u64);
        let back = read(&bytes).unwrap();
        assert_eq!(back, summary());
        assert_eq!((back.entries, back.sequences, back.first_at, back.rows[0].records), (3, (7, 9), 24, 6));
        assert_eq!(Summary::read(&*file(&bytes), 4, bytes.len() as u64), None, "of another segment");
        for bit in 324 * 8..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert_eq!(read(&bytes[..length]), None, "{length} bytes");
        }
        bytes.push(0);
        assert_eq!(read(&bytes), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Summary::decode(&bytes);
            let _ = Summary::read(&*file(&bytes), 1, bytes.len() as u64);
        }
    }
}
