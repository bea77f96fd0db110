//! Which series have which label: for every pair of label and value, the numbers of its series.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::labels::{Label, Labels, is_sparse, table_bytes};

/// Numbers of series, ascending.
pub type Postings = Vec<u32>;

type Values = HashMap<Arc<str>, Postings, RandomState>;

/// The inverted index.
#[derive(Debug, Default)]
pub struct Index {
    labels: HashMap<Arc<str>, Values, RandomState>,
    all: Postings,
    /// Heap bytes of all postings.
    posting_bytes: usize,
}

/// Adds a number. How many bytes more are held.
fn insert(postings: &mut Postings, id: u32) -> usize {
    let before = postings.capacity();
    // Numbers ascend, so this is nearly always the end.
    if let Err(at) = postings.binary_search(&id) {
        if postings.len() == before {
            // By a quarter: doubling would leave much unused in the many lists that are long.
            postings.reserve_exact((before / 4).max(1));
        }
        postings.insert(at, id);
    }
    (postings.capacity() - before) * size_of::<u32>()
}

/// Removes ascending numbers. How many bytes less are held.
fn remove(postings: &mut Postings, gone: &[u32]) -> usize {
    let before = postings.capacity();
    let (Some(first), Some(last)) = (gone.first(), gone.last()) else { return 0 };
    let from = postings.partition_point(|id| id < first);
    let until = postings.partition_point(|id| id <= last);
    let mut rest = gone;
    let mut is_kept = |id: &u32| {
        while let Some((next, later)) = rest.split_first().filter(|(next, _)| *next <= id) {
            if next == id {
                return false;
            }
            rest = later;
        }
        true
    };
    // Only what lies between the first and the last is looked at, for lists can be very long.
    let between = postings.get(from..until).unwrap_or_default();
    let kept: Vec<u32> = between.iter().copied().filter(|id| is_kept(id)).collect();
    postings.splice(from..until, kept);
    if is_sparse(postings.len(), before) {
        postings.shrink_to_fit();
    }
    before.saturating_sub(postings.capacity()) * size_of::<u32>()
}

impl Index {
    /// Adds a series.
    pub fn insert(&mut self, id: u32, labels: &Labels) {
        self.posting_bytes += insert(&mut self.all, id);
        for (key, value) in labels.pairs() {
            let values = self.labels.entry(key.clone()).or_default();
            let postings = values.entry(value.clone()).or_default();
            self.posting_bytes += insert(postings, id);
        }
    }

    /// Removes series, whose numbers ascend.
    pub fn remove<'a>(&mut self, series: impl Iterator<Item = (u32, &'a Labels)>) {
        let mut gone = Vec::new();
        let mut pairs: HashSet<Label, RandomState> = HashSet::default();
        for (id, labels) in series {
            gone.push(id);
            for pair in labels.pairs() {
                if !pairs.contains(pair) {
                    pairs.insert(pair.clone());
                }
            }
        }
        for (key, value) in pairs {
            let Some(values) = self.labels.get_mut(&key) else { continue };
            let Some(postings) = values.get_mut(&value) else { continue };
            self.posting_bytes -= remove(postings, &gone);
            if postings.is_empty() {
                self.posting_bytes -= postings.capacity() * size_of::<u32>();
                values.remove(&value);
            }
            if values.is_empty() {
                self.labels.remove(&key);
            } else if is_sparse(values.len(), values.capacity()) {
                values.shrink_to_fit();
            }
        }
        self.posting_bytes -= remove(&mut self.all, &gone);
    }

    /// All series.
    pub fn all(&self) -> &[u32] {
        &self.all
    }

    /// The values of a label with their series, in no order.
    pub fn values(&self, label: &str) -> impl Iterator<Item = (&Arc<str>, &[u32])> {
        self.labels.get(label).into_iter().flatten().map(|(value, postings)| (value, postings.as_slice()))
    }

    /// The series that have this value of this label.
    pub fn postings(&self, label: &str, value: &str) -> &[u32] {
        self.labels.get(label).and_then(|values| values.get(value)).map_or(&[], Vec::as_slice)
    }

    /// The series with a label whose value `accepts`, ascending.
    pub fn union(&self, label: &str, mut accepts: impl FnMut(&str) -> bool) -> Postings {
        // A series has one value of a label, so nothing comes twice.
        let lists = self.values(label).filter(|(value, _)| accepts(value));
        let mut union: Postings = lists.flat_map(|(_, postings)| postings).copied().collect();
        union.sort_unstable();
        union
    }

    /// Bytes held, its tables included.
    pub fn bytes(&self) -> usize {
        let values: usize = self.labels.values().map(|v| table_bytes::<(Arc<str>, Postings)>(v.capacity())).sum();
        self.posting_bytes + values + table_bytes::<(Arc<str>, Values)>(self.labels.capacity())
    }
}

/// What is in both.
pub fn intersect(a: &[u32], b: &[u32]) -> Postings {
    let (small, large) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    small.iter().filter(|id| large.binary_search(id).is_ok()).copied().collect()
}

/// What is in `a` only.
pub fn subtract(a: &[u32], b: &[u32]) -> Postings {
    a.iter().filter(|id| b.binary_search(id).is_err()).copied().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn held_bytes(index: &Index) -> usize {
        let postings: usize = index.labels.values().flat_map(HashMap::values).map(Vec::capacity).sum();
        (postings + index.all.capacity()) * size_of::<u32>()
    }

    proptest! {
        #[test]
        fn a_list_without_numbers_is_as_if_they_had_never_come(
            numbers in prop::collection::btree_set(0u32..300, 0..200),
            gone in prop::collection::btree_set(0u32..300, 0..200),
        ) {
            let mut postings = Postings::new();
            let mut bytes = numbers.iter().map(|id| insert(&mut postings, *id)).sum::<usize>();
            bytes -= remove(&mut postings, &gone.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(&postings, &numbers.difference(&gone).copied().collect::<Vec<_>>());
            prop_assert_eq!(bytes, postings.capacity() * size_of::<u32>());
        }
    }

    #[test]
    fn series_that_come_and_go_leave_no_bytes_behind() {
        let mut index = Index::default();
        let labels =
            |id: u32| Labels::new([("__name__".to_owned(), "m".to_owned()), ("pid".to_owned(), id.to_string())]);
        let mut most = 0;
        for id in 0..20_000u32 {
            index.insert(id, &labels(id));
            if let Some(gone) = id.checked_sub(500) {
                index.remove([(gone, &labels(gone))].into_iter());
            }
            most = most.max(index.bytes());
            if id == 2000 {
                most = index.bytes();
            }
        }
        assert_eq!(index.all().len(), 500);
        assert_eq!(index.posting_bytes, held_bytes(&index));
        // As many as at any time, and no more for all those that were there before.
        assert!(most < 500 * 400, "{most}");
    }

    #[test]
    fn a_removed_series_leaves_nothing_behind() {
        let mut index = Index::default();
        let labels = |host: &str| Labels::new([("__name__", "m"), ("host", host)]);
        for (id, host) in [(1, "a"), (2, "b"), (3, "c")] {
            index.insert(id, &labels(host));
        }
        assert_eq!(index.postings("__name__", "m"), [1, 2, 3]);
        assert_eq!(index.union("host", |v| v > "a"), [2, 3]);
        index.remove([(2, &labels("b"))].into_iter());
        assert_eq!(index.all(), [1, 3]);
        assert_eq!(index.postings("__name__", "m"), [1, 3]);
        assert!(index.postings("host", "b").is_empty());
        assert_eq!(index.posting_bytes, held_bytes(&index));
        index.remove([(1, &labels("a")), (3, &labels("c"))].into_iter());
        assert!(index.labels.is_empty());
        assert_eq!(index.posting_bytes, 0);
    }

    #[test]
    fn sets_of_ascending_numbers() {
        assert_eq!(intersect(&[1, 3, 5, 9], &[3, 4, 9, 11, 12]), [3, 9]);
        assert_eq!(subtract(&[1, 3, 5, 9], &[3, 4, 9]), [1, 5]);
    }
}
