//! The judge of delivery: which records arrived, which twice, which damaged, told by the ids in them.

use std::ops::Range;
use std::time::Instant;

use crate::load::{BODY, END, MARK};

/// Digits of an id.
const DIGITS: usize = 12;
/// Ids from here on were never sent: they are damage.
const LARGEST_ID: usize = 1 << 32;

/// What one request holds.
#[derive(Default)]
pub struct Found {
    ids: Vec<usize>,
    damaged: u64,
}

impl Found {
    /// Looks for records in a body of any format that leaves their text as it is.
    pub fn in_body(bytes: &[u8]) -> Found {
        let mut found = Found::default();
        let mut marks = memchr::memmem::find_iter(bytes, MARK).peekable();
        while let Some(at) = marks.next() {
            let begins = at + MARK.len();
            let digits = bytes.get(begins..begins + DIGITS).and_then(|digits| std::str::from_utf8(digits).ok());
            let id = digits.and_then(|digits| digits.parse::<usize>().ok()).filter(|id| *id < LARGEST_ID);
            // A record is whole if its end comes before the next one and not later than its length allows.
            let limit = marks.peek().copied().unwrap_or(bytes.len()).min(at + BODY);
            let whole = bytes.get(begins..limit).is_some_and(|rest| memchr::memmem::find(rest, END).is_some());
            match id {
                Some(id) if whole => found.ids.push(id),
                _ => found.damaged += 1,
            }
        }
        found
    }
}

/// What arrived so far.
#[derive(Default)]
pub struct Oracle {
    seen: Vec<bool>,
    /// Different records.
    pub records: u64,
    /// Records that came more than once, counted for each time after the first.
    pub duplicates: u64,
    /// Records without a readable id or without their end. Their ids count as lost.
    pub damaged: u64,
    /// Requests.
    pub requests: u64,
    /// When the last new record came.
    pub last_new: Option<Instant>,
}

impl Oracle {
    /// Counts what a request held.
    pub fn count(&mut self, found: &Found) {
        self.requests += 1;
        self.damaged += found.damaged;
        for &id in &found.ids {
            if self.seen.len() <= id {
                self.seen.resize(id + 1, false);
            }
            if std::mem::replace(&mut self.seen[id], true) { self.duplicates += 1 } else { self.records += 1 }
        }
        if !found.ids.is_empty() {
            self.last_new = Some(Instant::now());
        }
    }

    /// How many of these ids never came.
    pub fn missing(&self, ids: Range<u64>) -> u64 {
        ids.filter(|&id| !self.seen.get(id as usize).copied().unwrap_or(false)).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: usize) -> String {
        format!("{{\"body\":\"INFO record-id={id:012} GET / the quick fox=end\"}}\n")
    }

    #[test]
    fn every_id_counts_once_and_what_comes_again_is_a_duplicate() {
        let mut oracle = Oracle::default();
        let body: String = (0..100).map(record).collect();
        oracle.count(&Found::in_body(body.as_bytes()));
        oracle.count(&Found::in_body(record(7).as_bytes()));
        assert_eq!((oracle.records, oracle.duplicates, oracle.damaged, oracle.requests), (100, 1, 0, 2));
        assert_eq!((oracle.missing(0..100), oracle.missing(50..110)), (0, 10));
    }

    #[test]
    fn a_record_that_was_cut_or_has_no_number_is_damaged_and_its_id_is_missing() {
        let mut oracle = Oracle::default();
        let cut = record(1).replace("fox=end", "fox");
        let garbled = record(2).replace("000000000002", "00000000000x");
        oracle.count(&Found::in_body(format!("{cut}{garbled}{}", record(3)).as_bytes()));
        assert_eq!((oracle.records, oracle.damaged, oracle.missing(1..4)), (1, 2, 2));
    }
}
