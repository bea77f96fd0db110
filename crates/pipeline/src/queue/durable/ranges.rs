//! Numbers behind the cursor whose entries are settled: what was delivered while an entry before it is
//! still under way does not come again after a crash.

use std::collections::BTreeMap;

/// Ranges of numbers that do not overlap, each with its first and its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range that overlaps no other.
    pub fn add(&mut self, first: u64, last: u64) {
        if first <= last {
            self.0.insert(first, last);
        }
    }

    /// They, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + DoubleEndedIterator {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a number is in one of them.
    pub fn contains(&self, number: u64) -> bool {
        self.covers(number, number)
    }

    /// Whether all from one number to another are in one of them.
    pub fn covers(&self, first: u64, last: u64) -> bool {
        self.0.range(..=first).next_back().is_some_and(|(_, end)| last <= *end)
    }

    /// Forgets those that the cursor has passed.
    pub fn pass(&mut self, cursor: u64) {
        self.0.retain(|_, last| *last >= cursor);
    }
}

/// What lies between numbers that ascend, and between the last of them and `end`, which is not a part of it.
pub fn between(numbers: impl IntoIterator<Item = u64>, end: u64) -> Ranges {
    let mut ranges = Ranges::default();
    let mut before: Option<u64> = None;
    for number in numbers.into_iter().chain([end]) {
        if let (Some(before), Some(last)) = (before, number.checked_sub(1)) {
            ranges.add(before.saturating_add(1), last);
        }
        before = Some(number);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_is_found_and_nothing_else() {
        let ranges = between([3, 4, 7, 12], 15);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(5, 6), (8, 11), (13, 14)]);
        assert!(between([], 9).is_empty() && between([8], 9).is_empty());
        let inside: Vec<u64> = (0..20).filter(|number| ranges.contains(*number)).collect();
        assert_eq!(inside, [5, 6, 8, 9, 10, 11, 13, 14]);
        assert!(ranges.covers(8, 11) && !ranges.covers(8, 12) && !ranges.covers(6, 8));
    }

    #[test]
    fn what_the_cursor_has_passed_is_forgotten() {
        let mut ranges = between([0, 3, 7], 9);
        ranges.pass(7);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(8, 8)]);
    }
}
