//! Segments that were released: they lie behind the cursor, but all in them was settled and is in the
//! sums, because their space was needed while an entry before them was still under way. Should the file
//! of one be there again, its entries do not wait.

use std::collections::BTreeMap;

/// Sequences of released segments, of the first entry and the last, those of neighbours as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released(BTreeMap<u64, u64>);

impl Released {
    /// Adds a segment by the numbers of its first entry and its last.
    pub fn add(&mut self, first: u64, last: u64) {
        // Released again, because the cursor could not be noted: a longer range has it already.
        if !(self.contains(first) && self.contains(last)) {
            self.0.insert(first, last);
        }
    }

    /// They, each with its first number and its last, neighbours apart unless they were merged.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (u64, u64)> {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// Whether an entry was in one of them.
    pub fn contains(&self, sequence: u64) -> bool {
        self.0.range(..=sequence).next_back().is_some_and(|(_, last)| sequence <= *last)
    }

    /// Makes one of neighbours between which nothing lies that counts.
    pub fn merge(&mut self, lies_between: impl Fn(u64, u64) -> bool) {
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, last) in std::mem::take(&mut self.0) {
            match merged.last_mut() {
                Some((_, end)) if !lies_between(*end, first) => *end = last,
                _ => merged.push((first, last)),
            }
        }
        self.0 = merged.into_iter().collect();
    }

    /// Forgets what the cursor has passed.
    pub fn pass(&mut self, cursor: u64) {
        self.0.retain(|_, last| *last >= cursor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_neighbours_are_one_unless_something_lies_between() {
        let mut released = Released(BTreeMap::from([(1, 2), (5, 6), (9, 10)]));
        released.merge(|after, before| after < 7 && 7 < before);
        assert_eq!(released, Released(BTreeMap::from([(1, 6), (9, 10)])));
        released.pass(7);
        assert_eq!(released, Released(BTreeMap::from([(9, 10)])));
    }

    #[test]
    fn what_is_released_again_does_not_shorten_the_range_that_it_became_a_part_of() {
        let mut released = Released(BTreeMap::from([(3, 9)]));
        [(3, 4), (5, 6), (8, 9)].into_iter().for_each(|(first, last)| released.add(first, last));
        assert_eq!(released, Released(BTreeMap::from([(3, 9)])));
        released.add(1, 2);
        assert_eq!(released, Released(BTreeMap::from([(1, 2), (3, 9)])));
    }
}
