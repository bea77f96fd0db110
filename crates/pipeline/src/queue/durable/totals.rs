//! What became of entries: sums that the cursor carries, and the numbers behind it that are in them too.
//!
//! A row of the ledger is what these sums say plus what waits, so after a crash it is exact: an entry
//! is either before the cursor or named behind it, settled and in its sums, or it waits again and is in none.
//!
//! ```text
//! version    u8    1
//! settled:   number of ranges behind the cursor u32, each first and last sequence u64
//! each row:  length of the origin u16, origin, signal u8, accepted u64, delivered u64,
//!            dead-lettered u64, number of reasons u8,
//!            each reason: length of its name u8, name, records u64
//! ```
//!
//! Integers are little-endian.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_model::Signal;

use crate::ledger::{Reason, Settled, Totals};
use crate::queue::durable::ranges::Ranges;

/// Sums by origin and signal.
pub type RowTotals = BTreeMap<(Arc<str>, Signal), Totals>;

/// What a cursor carries besides its position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// What became of records.
    pub rows: RowTotals,
    /// Numbers behind it whose entries are settled.
    pub settled: Ranges,
}

const VERSION: u8 = 1;

/// Adds sums to those of a row.
pub fn add(to: &mut RowTotals, key: (Arc<str>, Signal), totals: &Totals) {
    to.entry(key).or_default().add(totals);
}

/// The sums as the cursor carries them.
pub fn encode(Sums { rows, settled }: &Sums) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&u32::try_from(settled.iter().len()).unwrap_or(u32::MAX).to_le_bytes());
    for (first, last) in settled.iter() {
        [first, last].into_iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
    for ((origin, signal), Totals { accepted, settled }) in rows {
        // Longer ones are not taken.
        out.extend_from_slice(&u16::try_from(origin.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(origin.as_bytes());
        out.push(signal_byte(*signal));
        for records in [accepted, &settled.delivered, &settled.dead_lettered] {
            out.extend_from_slice(&records.to_le_bytes());
        }
        out.push(u8::try_from(settled.dropped.len()).unwrap_or(u8::MAX));
        for (reason, records) in &settled.dropped {
            let name = reason.name();
            out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&records.to_le_bytes());
        }
    }
    out
}

/// Sums that a cursor carries; `None` if it has none (those of the first Weir), or those of a later version.
pub fn decode(bytes: &[u8]) -> Option<Sums> {
    let mut rest = Rest(bytes);
    if rest.byte()? != VERSION {
        return None;
    }
    let mut ranges = Ranges::default();
    for _ in 0..u32::from_le_bytes([rest.byte()?, rest.byte()?, rest.byte()?, rest.byte()?]) {
        ranges.add(rest.number()?, rest.number()?);
    }
    let mut rows = RowTotals::new();
    while !rest.0.is_empty() {
        let length = u16::from_le_bytes([rest.byte()?, rest.byte()?]);
        let origin = rest.text(usize::from(length))?;
        let signal = rest.signal()?;
        let (accepted, delivered, dead_lettered) = (rest.number()?, rest.number()?, rest.number()?);
        let mut settled = Settled { delivered, dead_lettered, ..Settled::default() };
        for _ in 0..rest.byte()? {
            let length = rest.byte()?;
            let reason = Reason::from_name(rest.text(usize::from(length))?)?;
            settled.dropped.insert(reason, rest.number()?);
        }
        rows.insert((Arc::from(origin), signal), Totals { accepted, settled });
    }
    Some(Sums { rows, settled: ranges })
}

/// How a signal is written.
pub fn signal_byte(signal: Signal) -> u8 {
    match signal {
        Signal::Metrics => 0,
        Signal::Logs => 1,
        Signal::Traces => 2,
    }
}

/// Bytes that were not read yet.
pub struct Rest<'a>(pub &'a [u8]);

impl<'a> Rest<'a> {
    /// The next signal, as [`signal_byte`] writes it.
    pub fn signal(&mut self) -> Option<Signal> {
        let byte = self.byte()?;
        Signal::ALL.into_iter().find(|signal| signal_byte(*signal) == byte)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next number.
    pub fn number(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    /// Text of so many bytes.
    pub fn text(&mut self, length: usize) -> Option<&'a str> {
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(first).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(origin: &str) -> (Arc<str>, Signal) {
        (Arc::from(origin), Signal::Logs)
    }

    #[test]
    fn sums_come_back_as_written_and_no_part_of_them_passes_for_all() {
        let mut all = RowTotals::new();
        add(&mut all, key("a"), &Totals::dropped(7, Reason::Expired));
        add(&mut all, key("a"), &Totals::dropped(u64::MAX - 7, Reason::MemoryFull));
        let settled = Settled { delivered: 3, dead_lettered: 2, ..Settled::default() };
        add(&mut all, (Arc::from("ü/b"), Signal::Traces), &Totals { accepted: 5, settled });
        let mut ranges = Ranges::default();
        ranges.add(8, 9);
        let all = Sums { rows: all, settled: ranges };
        let bytes = encode(&all);
        assert_eq!(decode(&bytes), Some(all));
        let wholes = (0..bytes.len()).filter(|length| decode(&bytes[..*length]).is_some()).count();
        assert_eq!(wholes, 2, "none and one of two rows; the CRC tells these apart");
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&encode(&Sums::default())), Some(Sums::default()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut begun = vec![VERSION, 0, 0, 0, 0];
            begun.extend_from_slice(&bytes);
            let _ = decode(&begun);
        }
    }
}
