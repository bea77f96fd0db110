//! Records of the log: how series and samples are written, and found again among damage.
//!
//! A record is a marker (4 bytes), the length of its payload (u32), a CRC-32C (u32) of its offset in
//! the file, its length and its payload, and the payload; integers little-endian. The marker lets a
//! reader find the next record behind a damaged one. The offset below the CRC keeps text that a
//! sender chose from passing for a record.
//!
//! A payload is a list of definitions and a list of samples. Text stands once per record and is
//! referred to by number after that. A sample is a control byte, the difference of its series'
//! number to the one before (unless it is the next), the difference of its time (unless it is the
//! same), and the bytes of its value without the zeros at the end.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::labels::{MetricKind, Series};

const MARKER: [u8; 4] = [0xf5, b'W', b'r', 0xa7];
/// Marker, length, CRC.
const HEADER_BYTES: usize = 12;
/// A record ends when its payload has so many bytes, so that damage takes little with it.
const PAYLOAD_BYTES: usize = 32 << 10;
/// No payload is longer: one definition at most above [`PAYLOAD_BYTES`].
const PAYLOAD_LIMIT_BYTES: usize = 1 << 20;

/// In the control byte: how many bytes of the value follow.
const VALUE_BYTES: u8 = 0b0000_1111;
/// In the control byte: the time is that of the sample before.
const SAME_TIME: u8 = 0b0001_0000;
/// In the control byte: the series is the one after that of the sample before.
const NEXT_SERIES: u8 = 0b0010_0000;

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        // Seven bits and the sign that more follow.
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// The CRC of a record that begins at an offset of its file.
fn checksum(offset: u64, payload: &[u8]) -> u32 {
    let head = crc32c::crc32c(&offset.to_le_bytes());
    let length = crc32c::crc32c_append(head, &(payload.len() as u64).to_le_bytes());
    crc32c::crc32c_append(length, payload)
}

/// Puts samples into records.
#[derive(Debug, Default)]
pub struct RecordWriter {
    definitions: Vec<u8>,
    definition_count: u64,
    texts: HashMap<Arc<str>, u64, RandomState>,
    samples: Vec<u8>,
    sample_count: u64,
    last_id: u32,
    last_ms: i64,
}

impl RecordWriter {
    /// Adds the definition of a series to the record that is being made.
    pub fn define(&mut self, series: &Series) {
        self.definition_count += 1;
        put_varint(&mut self.definitions, u64::from(series.id));
        let kind = MetricKind::ALL.iter().position(|kind| *kind == series.info.kind).unwrap_or_default();
        put_varint(&mut self.definitions, kind as u64);
        self.text(&series.info.unit);
        self.text(&series.info.description);
        for half in [&**series.labels.shared(), series.labels.own()] {
            put_varint(&mut self.definitions, half.len() as u64);
            for (key, value) in half {
                self.text(key);
                self.text(value);
            }
        }
    }

    /// The text's number if it was there before, else 0 and the text.
    fn text(&mut self, text: &Arc<str>) {
        if let Some(number) = self.texts.get(text) {
            return put_varint(&mut self.definitions, *number);
        }
        self.texts.insert(text.clone(), self.texts.len() as u64 + 1);
        put_varint(&mut self.definitions, 0);
        put_varint(&mut self.definitions, text.len() as u64);
        self.definitions.extend_from_slice(text.as_bytes());
    }

    /// Adds a sample of a series that is defined before in this file.
    pub fn sample(&mut self, id: u32, time_ms: i64, value: u64) {
        self.sample_count += 1;
        let zero_bytes = (value.trailing_zeros() / 8).min(8);
        let length = 8 - zero_bytes as usize;
        let is_next = id == self.last_id.wrapping_add(1);
        let is_same_time = time_ms == self.last_ms;
        let flags = if is_next { NEXT_SERIES } else { 0 } | if is_same_time { SAME_TIME } else { 0 };
        // At most 8.
        self.samples.push(flags | length as u8);
        if !is_next {
            put_varint(&mut self.samples, zigzag(i64::from(id) - i64::from(self.last_id)));
        }
        if !is_same_time {
            put_varint(&mut self.samples, zigzag(time_ms.wrapping_sub(self.last_ms)));
        }
        self.samples.extend(value.to_be_bytes().iter().take(length));
        (self.last_id, self.last_ms) = (id, time_ms);
    }

    /// Whether the record is long enough to be ended.
    pub fn is_full(&self) -> bool {
        self.definitions.len() + self.samples.len() >= PAYLOAD_BYTES
    }

    /// Ends the record: appends it to `out`, whose first byte will stand at `start` in the file.
    pub fn end(&mut self, out: &mut Vec<u8>, start: u64) {
        if self.definition_count + self.sample_count == 0 {
            return;
        }
        let mut payload = Vec::with_capacity(self.definitions.len() + self.samples.len() + 20);
        put_varint(&mut payload, self.definition_count);
        payload.append(&mut self.definitions);
        put_varint(&mut payload, self.sample_count);
        payload.append(&mut self.samples);
        frame(&payload, out, start);
        *self = Self::default();
    }
}

/// Appends a payload as a record to `out`, whose first byte will stand at `start` in the file.
pub fn frame(payload: &[u8], out: &mut Vec<u8>, start: u64) {
    let offset = start + out.len() as u64;
    out.extend_from_slice(&MARKER);
    // Far below 4 GiB: see PAYLOAD_LIMIT_BYTES.
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&checksum(offset, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

/// What stands in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// The payload of a record whose CRC is right.
    Payload(&'a [u8]),
    /// Bytes that are no record although records follow, or a record at the end whose CRC is wrong.
    Damage {
        /// Where they begin.
        offset: usize,
        /// How many.
        bytes: usize,
    },
    /// The end of a write that was never finished: cut it off here.
    Torn {
        /// Where it begins.
        offset: usize,
    },
}

/// What a record at a place is.
enum Attempt<'a> {
    /// Whole; the next one begins at the offset.
    Whole(&'a [u8], usize),
    /// It would go on beyond the end of the file.
    Unfinished,
    Wrong,
}

fn attempt(file: &[u8], offset: usize) -> Attempt<'_> {
    let rest = file.get(offset..).unwrap_or_default();
    let Some((header, after)) = rest.split_at_checked(HEADER_BYTES) else {
        let is_beginning = rest.iter().zip(MARKER).all(|(found, expected)| *found == expected);
        return if is_beginning { Attempt::Unfinished } else { Attempt::Wrong };
    };
    let &[a, b, c, d, l0, l1, l2, l3, c0, c1, c2, c3] = header else { return Attempt::Wrong };
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if [a, b, c, d] != MARKER || length > PAYLOAD_LIMIT_BYTES {
        return Attempt::Wrong;
    }
    match after.get(..length) {
        None => Attempt::Unfinished,
        Some(payload) if checksum(offset as u64, payload) == u32::from_le_bytes([c0, c1, c2, c3]) => {
            Attempt::Whole(payload, offset + HEADER_BYTES + length)
        }
        Some(_) => Attempt::Wrong,
    }
}

/// The next place from `offset` on where a whole record stands.
fn next_whole(file: &[u8], offset: usize) -> Option<usize> {
    let mut at = offset;
    loop {
        let rest = file.get(at..)?;
        at += rest.windows(MARKER.len()).position(|window| window == MARKER)?;
        if matches!(attempt(file, at), Attempt::Whole(..)) {
            return Some(at);
        }
        at += 1;
    }
}

/// Visits what stands in a file from `offset` on.
pub fn scan<'a>(file: &'a [u8], mut offset: usize, mut visit: impl FnMut(Found<'a>)) {
    while offset < file.len() {
        let first = attempt(file, offset);
        if let Attempt::Whole(payload, next) = first {
            visit(Found::Payload(payload));
            offset = next;
            continue;
        }
        if let Some(next) = next_whole(file, offset + 1) {
            visit(Found::Damage { offset, bytes: next - offset });
            offset = next;
            continue;
        }
        // Nothing follows. File systems fill what was never written with zeros.
        let rest = file.get(offset..).unwrap_or_default();
        let is_torn = matches!(first, Attempt::Unfinished) || rest.iter().all(|byte| *byte == 0);
        visit(if is_torn { Found::Torn { offset } } else { Found::Damage { offset, bytes: rest.len() } });
        return;
    }
}

/// A series as a record defines it.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition<'a> {
    /// Its number in this file.
    pub id: u32,
    /// Kind of number.
    pub kind: MetricKind,
    /// UCUM unit.
    pub unit: &'a str,
    /// For people.
    pub description: &'a str,
    /// Labels that it shares with others.
    pub shared: Vec<(&'a str, &'a str)>,
    /// Its own labels.
    pub own: Vec<(&'a str, &'a str)>,
}

/// Who is told what a payload holds.
pub trait Visit {
    /// A series is defined.
    fn definition(&mut self, definition: &Definition<'_>);
    /// A sample of a series.
    fn sample(&mut self, id: u32, time_ms: i64, value: u64);
}

struct Reader<'a> {
    rest: &'a [u8],
    texts: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        match self.length()?.checked_sub(1) {
            Some(before) => self.texts.get(before).copied(),
            None => {
                let length = self.length()?;
                let text = std::str::from_utf8(self.bytes(length)?).ok()?;
                self.texts.push(text);
                Some(text)
            }
        }
    }

    fn pairs(&mut self) -> Option<Vec<(&'a str, &'a str)>> {
        // Grows as pairs are read, never by what a length claims.
        (0..self.varint()?).map(|_| Some((self.text()?, self.text()?))).collect()
    }

    fn definition(&mut self) -> Option<Definition<'a>> {
        Some(Definition {
            id: u32::try_from(self.varint()?).ok()?,
            kind: *MetricKind::ALL.get(self.length()?)?,
            unit: self.text()?,
            description: self.text()?,
            shared: self.pairs()?,
            own: self.pairs()?,
        })
    }

    fn samples(&mut self, visit: &mut impl Visit) -> Option<()> {
        let (mut id, mut time_ms) = (0u32, 0i64);
        for _ in 0..self.varint()? {
            let control = self.byte()?;
            id = if control & NEXT_SERIES != 0 {
                id.wrapping_add(1)
            } else {
                u32::try_from(i64::from(id).checked_add(unzigzag(self.varint()?))?).ok()?
            };
            if control & SAME_TIME == 0 {
                time_ms = time_ms.wrapping_add(unzigzag(self.varint()?));
            }
            let mut value = [0; 8];
            let length = usize::from(control & VALUE_BYTES);
            value.get_mut(..length)?.copy_from_slice(self.bytes(length)?);
            visit.sample(id, time_ms, u64::from_be_bytes(value));
        }
        Some(())
    }
}

/// Reads a payload. `None` if it is none that Weir wrote; what was read before was visited.
pub fn read(payload: &[u8], visit: &mut impl Visit) -> Option<()> {
    let mut reader = Reader { rest: payload, texts: Vec::new() };
    for _ in 0..reader.varint()? {
        visit.definition(&reader.definition()?);
    }
    reader.samples(visit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::labels::{Labels, MetricInfo, SeriesRef};

    #[derive(Default, Debug, PartialEq)]
    struct Seen(Vec<(u32, Labels, MetricKind)>, Vec<(u32, i64, u64)>);

    impl Visit for Seen {
        fn definition(&mut self, d: &Definition<'_>) {
            let pairs = d.shared.iter().chain(&d.own).map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            self.0.push((d.id, Labels::new(pairs), d.kind));
        }
        fn sample(&mut self, id: u32, time_ms: i64, value: u64) {
            self.1.push((id, time_ms, value));
        }
    }

    fn series(id: u32, host: &str) -> SeriesRef {
        let info = MetricInfo { unit: "By".into(), kind: MetricKind::HistogramSum, description: "all".into() };
        Series::new(id, Labels::new([("__name__", "m"), ("host", host)]), info)
    }

    proptest! {
        #[test]
        fn records_come_back_as_written(
            samples in prop::collection::vec((any::<u32>(), any::<i64>(), any::<u64>()), 0..200),
            start in 0u64..100,
        ) {
            let mut writer = RecordWriter::default();
            writer.define(&series(7, "a"));
            writer.define(&series(u32::MAX, "b"));
            samples.iter().for_each(|(id, time, value)| writer.sample(*id, *time, *value));
            let mut file = vec![0u8; start as usize];
            let mut out = Vec::new();
            writer.end(&mut out, start);
            file.extend(out);
            let mut seen = Seen::default();
            scan(&file, start as usize, |found| match found {
                Found::Payload(payload) => read(payload, &mut seen).unwrap(),
                other => panic!("{other:?}"),
            });
            prop_assert_eq!(&seen.1, &samples);
            prop_assert_eq!(seen.0.len(), 2);
            prop_assert_eq!(&seen.0[1], &(u32::MAX, series(0, "b").labels.clone(), MetricKind::HistogramSum));
        }

        #[test]
        fn any_payload_is_read_or_refused_without_panic(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&payload, &mut Seen::default());
        }
    }

    #[test]
    fn a_record_inside_a_damaged_one_is_not_taken_for_one() {
        // What a sender would have to send as a label to smuggle in samples.
        let mut inner = Vec::new();
        let mut writer = RecordWriter::default();
        writer.sample(1, 1, 1);
        writer.end(&mut inner, 0);
        let mut file = Vec::new();
        writer.sample(2, 2, 2);
        writer.end(&mut file, 0);
        file.extend(&inner);
        writer.sample(3, 3, 3);
        let mut last = Vec::new();
        writer.end(&mut last, file.len() as u64);
        file.extend(last);
        let mut found = Vec::new();
        scan(&file, 0, |f| found.push(matches!(f, Found::Payload(_))));
        assert_eq!(found, [true, false, true]);
    }

    #[test]
    fn a_sample_of_a_steady_batch_costs_few_bytes() {
        let mut writer = RecordWriter::default();
        (1..=1000u32).for_each(|id| writer.sample(id, 1_700_000_000_000, f64::from(id).to_bits()));
        assert!(writer.samples.len() < 4 * 1000 + 20, "{}", writer.samples.len());
    }
}
