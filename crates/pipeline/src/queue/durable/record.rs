//! One record of the log: a header of fixed length, the name of the origin, the payload.
//!
//! ```text
//!  0  marker                4 bytes
//!  4  CRC of the header     u32   CRC-32C of segment number, offset, bytes 8 to 40 and the origin
//!  8  length of the payload u32   as it is stored
//! 12  CRC of the payload    u32   CRC-32C of the stored bytes
//! 16  sequence              u64   ascending; of a cursor: the lowest that is not settled
//! 24  time queued           i64   unix milliseconds
//! 32  records               u32
//! 36  length of the origin  u16
//! 38  kind                  u8    signal, encoding, encrypted; or a cursor; or a summary
//! 39  reserved              u8    0
//! ```
//!
//! Integers are little-endian. The header has a CRC of its own, so that a flipped bit in a payload
//! costs this record alone and a flipped bit in a length is not believed. Number and offset below
//! that CRC keep text that a sender chose, and old blocks of a disk, from passing for a record.
//!
//! The payload of a cursor is what [`super::totals`] says, that of a summary what [`super::summary`] does.

use weir_model::{Encoding, Signal};

use crate::queue::durable::totals::signal_byte;

/// How a record begins.
pub const MARKER: [u8; 4] = [0xf6, b'W', b'q', 0xa5];
/// Length of a header without the origin.
pub const HEADER_BYTES: usize = 40;

const CURSOR: u8 = 0x80;
const SUMMARY: u8 = 0x81;
const ENCRYPTED: u8 = 0x08;
const JSON: u8 = 0x04;
const SIGNAL: u8 = 0x03;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The number of its segment.
    pub segment: u64,
    /// Its offset in that file.
    pub offset: u64,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// How far the queue was settled when the record was written.
    Cursor,
    /// What stands in the segment that it ends.
    Summary,
    /// An entry.
    Entry {
        /// Its signal.
        signal: Signal,
        /// The encoding of its payload.
        encoding: Encoding,
        /// Whether the payload is encrypted.
        is_encrypted: bool,
    },
}

impl Kind {
    fn to_byte(self) -> u8 {
        match self {
            Kind::Cursor => CURSOR,
            Kind::Summary => SUMMARY,
            Kind::Entry { signal, encoding, is_encrypted } => {
                let signal = signal_byte(signal);
                let encoding = if encoding == Encoding::Json { JSON } else { 0 };
                signal | encoding | if is_encrypted { ENCRYPTED } else { 0 }
            }
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            CURSOR => return Some(Kind::Cursor),
            SUMMARY => return Some(Kind::Summary),
            _ => {}
        }
        let signal = Signal::ALL.into_iter().find(|signal| signal_byte(*signal) == byte & SIGNAL)?;
        let encoding = if byte & JSON == 0 { Encoding::Protobuf } else { Encoding::Json };
        let is_known = byte & !(SIGNAL | JSON | ENCRYPTED) == 0;
        is_known.then_some(Kind::Entry { signal, encoding, is_encrypted: byte & ENCRYPTED != 0 })
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its number, or where the cursor stands.
    pub sequence: u64,
    /// When it was queued, unix milliseconds.
    pub queued_ms: i64,
    /// Its records.
    pub records: u32,
    /// Where they came from.
    pub origin: &'a str,
    /// Length of the stored payload.
    pub payload_bytes: u32,
    /// CRC of the stored payload.
    pub payload_crc: u32,
}

impl<'a> Header<'a> {
    /// The header of a record that is the queue's own, a cursor or a summary, with this payload.
    pub fn own(kind: Kind, sequence: u64, queued_ms: i64, payload: &[u8]) -> Header<'static> {
        Header {
            kind,
            sequence,
            queued_ms,
            records: 0,
            origin: "",
            // A hundred bytes for each of a few rows.
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX),
            payload_crc: crc32c::crc32c(payload),
        }
    }

    /// Appends it as it stands at a place. The origin is at most 64 KiB long.
    pub fn write(&self, out: &mut Vec<u8>, place: Place) {
        let start = out.len();
        out.extend_from_slice(&MARKER);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        self.authenticated(out);
        let crc = out.get(start + 8..).map_or(0, |rest| checksum(place, rest));
        if let Some(field) = out.get_mut(start + 4..start + 8) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Appends the part that encryption authenticates: everything that does not depend on the
    /// stored bytes.
    pub fn authenticated(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.queued_ms.to_le_bytes());
        out.extend_from_slice(&self.records.to_le_bytes());
        out.extend_from_slice(&u16::try_from(self.origin.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&[self.kind.to_byte(), 0]);
        out.extend_from_slice(self.origin.as_bytes());
    }

    /// Length of header and origin.
    pub fn header_bytes(&self) -> usize {
        HEADER_BYTES + self.origin.len()
    }

    /// Reads the header at the beginning of `bytes`.
    pub fn read(bytes: &'a [u8], place: Place) -> Parsed<'a> {
        let Some(fixed) = bytes.first_chunk::<HEADER_BYTES>() else {
            let is_beginning = bytes.iter().zip(MARKER).all(|(found, expected)| *found == expected);
            return if is_beginning { Parsed::Needs(HEADER_BYTES) } else { Parsed::Wrong };
        };
        #[rustfmt::skip]
        let &[
            m0, m1, m2, m3, c0, c1, c2, c3, l0, l1, l2, l3, p0, p1, p2, p3,
            s0, s1, s2, s3, s4, s5, s6, s7, t0, t1, t2, t3, t4, t5, t6, t7,
            r0, r1, r2, r3, o0, o1, kind, _,
        ] = fixed;
        if [m0, m1, m2, m3] != MARKER {
            return Parsed::Wrong;
        }
        let end = HEADER_BYTES + usize::from(u16::from_le_bytes([o0, o1]));
        let (Some(covered), Some(origin)) = (bytes.get(8..end), bytes.get(HEADER_BYTES..end)) else {
            return Parsed::Needs(end);
        };
        if checksum(place, covered) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Parsed::Wrong;
        }
        let (Some(kind), Ok(origin)) = (Kind::from_byte(kind), std::str::from_utf8(origin)) else {
            return Parsed::Wrong;
        };
        Parsed::Whole(Header {
            kind,
            sequence: u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
            queued_ms: i64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]),
            records: u32::from_le_bytes([r0, r1, r2, r3]),
            origin,
            payload_bytes: u32::from_le_bytes([l0, l1, l2, l3]),
            payload_crc: u32::from_le_bytes([p0, p1, p2, p3]),
        })
    }
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A header whose CRC is right.
    Whole(Header<'a>),
    /// Perhaps a header, once so many bytes are there.
    Needs(usize),
    /// No header.
    Wrong,
}

/// The CRC of a header from its length field on.
fn checksum(place: Place, covered: &[u8]) -> u32 {
    let number = crc32c::crc32c(&place.segment.to_le_bytes());
    let offset = crc32c::crc32c_append(number, &place.offset.to_le_bytes());
    crc32c::crc32c_append(offset, covered)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header<'static> {
        let kind = Kind::Entry { signal: Signal::Traces, encoding: Encoding::Json, is_encrypted: true };
        Header {
            kind,
            sequence: 0x0102_0304_0506_0708,
            queued_ms: -5,
            records: 512,
            origin: "otlp_receiver/a",
            payload_bytes: 77,
            payload_crc: 0xdead_beef,
        }
    }

    #[test]
    fn a_header_comes_back_as_written_and_nowhere_else() {
        let place = Place { segment: 3, offset: 99 };
        for header in [header(), Header::own(Kind::Cursor, 12, 34, b"sums")] {
            let mut bytes = b"before".to_vec();
            header.write(&mut bytes, place);
            let bytes = &bytes[6..];
            assert_eq!(bytes.len(), header.header_bytes());
            assert_eq!(Header::read(bytes, place), Parsed::Whole(header));
            assert_eq!(Header::read(bytes, Place { segment: 4, ..place }), Parsed::Wrong);
            assert_eq!(Header::read(bytes, Place { offset: 98, ..place }), Parsed::Wrong);
        }
    }

    #[test]
    fn no_flipped_bit_of_a_header_goes_unnoticed() {
        let place = Place { segment: 1, offset: 0 };
        let mut bytes = Vec::new();
        header().write(&mut bytes, place);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(Header::read(&bytes, place), Parsed::Whole(_)), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert!(matches!(Header::read(&bytes[..length], place), Parsed::Needs(_)), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut begun = MARKER.to_vec();
            begun.extend_from_slice(&bytes);
            let _ = Header::read(&begun, Place { segment: 0, offset: 0 });
            let _ = Header::read(&bytes, Place { segment: 0, offset: 0 });
        }
    }
}
