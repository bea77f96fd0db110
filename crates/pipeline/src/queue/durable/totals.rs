//! What became of entries: sums that the cursor carries, and those of entries that it has not passed.
//!
//! A row of the ledger is what these sums say plus what waits, so after a crash it is exact: an entry
//! is either before the cursor, settled and in its sums, or it waits again and is in none.
//!
//! ```text
//! version    u8    1
//! released:  number of ranges u32, each first and last sequence u64
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
use crate::queue::durable::released::Released;

/// Sums by origin and signal.
pub type RowTotals = BTreeMap<(Arc<str>, Signal), Totals>;

/// What a cursor carries besides its position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// What became of records.
    pub rows: RowTotals,
    /// Segments that do not count any more.
    pub released: Released,
}

const VERSION: u8 = 1;

/// Adds sums to those of a row.
pub fn add(to: &mut RowTotals, key: (Arc<str>, Signal), totals: &Totals) {
    to.entry(key).or_default().add(totals);
}

/// What became of entries.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// Of those before the cursor, and of records that never stood in the queue, as far as the log has them.
    pub totals: RowTotals,
    /// Segments behind the cursor that are in the totals too.
    pub released: Released,
    /// Of those behind it, by the number of the entry they wait for (the next lower one that is not
    /// settled), and by their segment. So there are no more of these sums than entries under way and
    /// segments.
    behind: BTreeMap<u64, BTreeMap<u64, RowTotals>>,
}

impl Outcomes {
    /// An entry is settled that waits for another, or for none.
    pub fn settle(&mut self, blocker: Option<u64>, segment: u64, key: (Arc<str>, Signal), totals: &Totals) {
        let sums = match blocker {
            Some(blocker) => self.behind.entry(blocker).or_default().entry(segment).or_default(),
            None => &mut self.totals,
        };
        add(sums, key, totals);
    }

    /// What waited for an entry waits for another now, or for none.
    pub fn unblock(&mut self, sequence: u64, blocker: Option<u64>) {
        for (segment, rows) in self.behind.remove(&sequence).unwrap_or_default() {
            for (key, totals) in rows {
                self.settle(blocker, segment, key, &totals);
            }
        }
    }

    /// A segment in which all is settled need not wait for the cursor.
    pub fn release(&mut self, segment: u64, sequences: (u64, u64)) {
        for rows in self.behind.values_mut().filter_map(|segments| segments.remove(&segment)) {
            for (key, totals) in rows {
                add(&mut self.totals, key, &totals);
            }
        }
        self.released.add(sequences.0, sequences.1);
    }
}

/// The sums as the cursor carries them.
pub fn encode(Sums { rows, released }: &Sums) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&u32::try_from(released.ranges().len()).unwrap_or(u32::MAX).to_le_bytes());
    for (first, last) in released.ranges() {
        [first, last].into_iter().for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
    }
    for ((origin, signal), Totals { accepted, settled }) in rows {
        // Longer ones are not taken.
        out.extend_from_slice(&u16::try_from(origin.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(origin.as_bytes());
        out.push(match signal {
            Signal::Metrics => 0,
            Signal::Logs => 1,
            Signal::Traces => 2,
        });
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
    let mut released = Released::default();
    for _ in 0..u32::from_le_bytes([rest.byte()?, rest.byte()?, rest.byte()?, rest.byte()?]) {
        released.add(rest.number()?, rest.number()?);
    }
    let mut rows = RowTotals::new();
    while !rest.0.is_empty() {
        let length = u16::from_le_bytes([rest.byte()?, rest.byte()?]);
        let origin = rest.text(usize::from(length))?;
        let signal = match rest.byte()? {
            0 => Signal::Metrics,
            1 => Signal::Logs,
            2 => Signal::Traces,
            _ => return None,
        };
        let (accepted, delivered, dead_lettered) = (rest.number()?, rest.number()?, rest.number()?);
        let mut settled = Settled { delivered, dead_lettered, ..Settled::default() };
        for _ in 0..rest.byte()? {
            let length = rest.byte()?;
            let reason = Reason::from_name(rest.text(usize::from(length))?)?;
            settled.dropped.insert(reason, rest.number()?);
        }
        rows.insert((Arc::from(origin), signal), Totals { accepted, settled });
    }
    Some(Sums { rows, released })
}

/// Bytes that were not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    fn text(&mut self, length: usize) -> Option<&'a str> {
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
        let mut released = Released::default();
        released.add(8, 9);
        let all = Sums { rows: all, released };
        let bytes = encode(&all);
        assert_eq!(decode(&bytes), Some(all));
        let wholes = (0..bytes.len()).filter(|length| decode(&bytes[..*length]).is_some()).count();
        assert_eq!(wholes, 2, "none and one of two rows; the CRC tells these apart");
        assert_eq!(decode(&[]), None);
        assert_eq!(decode(&encode(&Sums::default())), Some(Sums::default()));
    }

    #[test]
    fn an_outcome_counts_once_everything_before_it_is_settled() {
        let mut outcomes = Outcomes::default();
        let one = Totals { accepted: 1, settled: Settled { delivered: 1, ..Settled::default() } };
        // 1 and 3 are under way; 2, 4 and 5 are settled, then 3, then 1.
        outcomes.settle(Some(1), 1, key("a"), &one);
        outcomes.settle(Some(3), 2, key("a"), &one);
        outcomes.settle(Some(3), 3, key("a"), &one);
        outcomes.unblock(3, Some(1));
        outcomes.settle(Some(1), 2, key("a"), &one);
        assert!(outcomes.totals.is_empty());
        outcomes.release(3, (5, 5));
        assert_eq!(outcomes.totals[&key("a")].accepted, 1);
        let released = |sequence| outcomes.released.contains(sequence);
        assert!(released(5) && !released(4) && !released(6));
        outcomes.unblock(1, None);
        outcomes.settle(None, 1, key("a"), &one);
        assert_eq!(outcomes.totals[&key("a")].accepted, 5);
        assert!(outcomes.behind.is_empty());
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
