//! Reading from the head.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use crate::error::ReadError;
use crate::index::{Index, Postings, intersect, subtract};
use crate::labels::{NAME, SeriesRef};
use crate::select::{Condition, MatchOp, MetricEntry, Samples, Select, SeriesData, SeriesSource};
use crate::series::MemorySeries;
use crate::store::Store;

/// The series that meet all conditions, ascending.
fn matching(index: &Index, conditions: &[Condition<'_>]) -> Postings {
    // A condition that "" meets is met by series without the label, so it can only take away.
    let (mut narrowing, removing): (Vec<_>, Vec<_>) = conditions.iter().partition(|c| !c.accepts(""));
    // Equality first: it is one look-up and leaves the least.
    narrowing.sort_by_key(|condition| condition.matcher.op != MatchOp::Equal);
    let mut found: Option<Postings> = None;
    for condition in narrowing {
        let label = &condition.matcher.label;
        let meets = match condition.matcher.op {
            MatchOp::Equal => index.postings(label, &condition.matcher.value).to_vec(),
            _ => index.union(label, |value| condition.accepts(value)),
        };
        let narrowed = found.map_or_else(|| meets.clone(), |found| intersect(&found, &meets));
        if narrowed.is_empty() {
            return narrowed;
        }
        found = Some(narrowed);
    }
    let mut found = found.unwrap_or_else(|| index.all().to_vec());
    for condition in removing {
        found = subtract(&found, &index.union(&condition.matcher.label, |value| !condition.accepts(value)));
    }
    found
}

/// So many series are looked at under one lock, so that a question about everything does not keep samples from
/// being stored. Series beyond that may be seen at a slightly later moment.
const SERIES_PER_LOCK: usize = 4096;

/// Whether a series has a time that overlaps with the range.
fn overlaps(memory: &MemorySeries, select: &Select) -> bool {
    memory.newest_ms().is_some_and(|newest| newest >= select.start_ms)
        && memory.oldest_ms().is_some_and(|oldest| oldest <= select.end_ms)
}

impl Store {
    /// What `visit` makes of the selected series.
    fn visit<T>(&self, select: &Select, visit: impl Fn(&MemorySeries) -> Option<T>) -> Result<Vec<T>, ReadError> {
        let conditions = Condition::all(&select.matchers)?;
        let head = || self.head().read().unwrap_or_else(PoisonError::into_inner);
        let series = matching(head().index(), &conditions);
        let mut found = Vec::with_capacity(series.len());
        for series in series.chunks(SERIES_PER_LOCK) {
            let head = head();
            found.extend(series.iter().filter_map(|id| visit(head.get(*id)?)));
        }
        Ok(found)
    }

    /// The selected series whose time overlaps with the range.
    fn present(&self, select: &Select) -> Result<Vec<SeriesRef>, ReadError> {
        self.visit(select, |memory| overlaps(memory, select).then(|| memory.reference().clone()))
    }
}

impl SeriesSource for Store {
    fn select(&self, select: &Select) -> Result<Vec<SeriesData>, ReadError> {
        let mut found = self.visit(select, |memory| {
            let (start_ms, end_ms) = (select.start_ms, select.end_ms);
            overlaps(memory, select).then(|| SeriesData {
                series: memory.reference().clone(),
                samples: Samples::new(memory.parts(start_ms, end_ms), start_ms, end_ms),
            })
        })?;
        // Chunks are decoded without the lock.
        found.retain(|data| !data.samples.is_empty());
        found.sort_by(|a, b| a.series.labels.cmp(&b.series.labels));
        Ok(found)
    }

    fn last(&self, select: &Select) -> Result<Vec<(SeriesRef, i64, f64)>, ReadError> {
        self.visit(select, |memory| {
            let (time, value) = memory.last(select.start_ms, select.end_ms)?;
            Some((memory.reference().clone(), time, f64::from_bits(value)))
        })
    }

    fn label_names(&self, select: &Select) -> Result<Vec<String>, ReadError> {
        let present = self.present(select)?;
        let names: BTreeSet<&str> = present.iter().flat_map(|s| s.labels.iter().map(|(key, _)| key)).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn label_values(&self, label: &str, select: &Select) -> Result<Vec<String>, ReadError> {
        let present = self.present(select)?;
        let values: BTreeSet<&str> = present.iter().filter_map(|series| series.labels.get(label)).collect();
        Ok(values.into_iter().map(str::to_owned).collect())
    }

    fn metrics(&self) -> Vec<MetricEntry> {
        let head = self.head().read().unwrap_or_else(PoisonError::into_inner);
        let entry = |(name, series): (&std::sync::Arc<str>, &[u32])| {
            let newest = head.get(*series.last()?)?;
            Some(MetricEntry { name: name.clone(), info: newest.reference().info.clone() })
        };
        let mut metrics: Vec<MetricEntry> = head.index().values(NAME).filter_map(entry).collect();
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        metrics
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::labels::Labels;
    use crate::select::Matcher;

    proptest! {
        #[test]
        fn the_index_finds_what_looking_at_every_series_finds(
            hosts in prop::collection::vec(prop::option::of(0u8..4), 0..30),
            matchers in prop::collection::vec((prop_oneof![Just("a"), Just("b"), Just("none")], 0usize..4, prop_oneof![Just(""), Just("0"), Just("1"), Just("0|1"), Just(".*"), Just(".+"), Just("[12]?")]), 0..4),
        ) {
            const OPS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Matches, MatchOp::NotMatches];
            let labels: Vec<Labels> = hosts.iter().enumerate().map(|(at, host)| {
                Labels::new([("a".to_owned(), host.map_or(String::new(), |h| h.to_string())), ("b".to_owned(), (at % 3).to_string())])
            }).collect();
            let mut index = Index::default();
            for (id, labels) in (0u32..).zip(&labels) {
                index.insert(id, labels);
            }
            let matchers: Vec<Matcher> = matchers.iter().map(|(label, op, value)| Matcher::new(*label, OPS[*op], *value)).collect();
            let conditions = Condition::all(&matchers).unwrap();
            let expected: Vec<u32> = (0u32..).zip(&labels).filter(|(_, l)| conditions.iter().all(|c| c.accepts(l.get(&c.matcher.label).unwrap_or_default()))).map(|(id, _)| id).collect();
            prop_assert_eq!(matching(&index, &conditions), expected);
        }
    }
}
