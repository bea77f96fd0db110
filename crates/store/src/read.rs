//! Reading from the head.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use crate::error::ReadError;
use crate::head::Head;
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

impl Head {
    fn selected<'a>(&'a self, select: &Select) -> Result<impl Iterator<Item = &'a MemorySeries>, ReadError> {
        let conditions = Condition::all(&select.matchers)?;
        Ok(matching(self.index(), &conditions).into_iter().filter_map(|id| self.get(id)))
    }

    /// The selected series whose time overlaps with the range.
    fn present<'a>(&'a self, select: &'a Select) -> Result<impl Iterator<Item = &'a SeriesRef>, ReadError> {
        let overlaps = |memory: &&MemorySeries| {
            memory.newest().is_some_and(|(newest, _)| newest >= select.start_ms)
                && memory.oldest_ms().is_some_and(|oldest| oldest <= select.end_ms)
        };
        Ok(self.selected(select)?.filter(overlaps).map(MemorySeries::reference))
    }
}

impl SeriesSource for Store {
    fn select(&self, select: &Select) -> Result<Vec<SeriesData>, ReadError> {
        let mut found: Vec<SeriesData> = {
            let head = self.head().read().unwrap_or_else(PoisonError::into_inner);
            let data = |memory: &MemorySeries| {
                let parts = memory.parts(select.start_ms, select.end_ms);
                let samples = Samples::new(parts, select.start_ms, select.end_ms);
                SeriesData { series: memory.reference().clone(), samples }
            };
            head.selected(select)?.map(data).collect()
        };
        // Chunks are decoded without the lock.
        found.retain(|data| !data.samples.is_empty());
        found.sort_by(|a, b| a.series.labels.cmp(&b.series.labels));
        Ok(found)
    }

    fn last(&self, select: &Select) -> Result<Vec<(SeriesRef, i64, f64)>, ReadError> {
        let head = self.head().read().unwrap_or_else(PoisonError::into_inner);
        let last = |memory: &MemorySeries| {
            let (time, value) = memory.last(select.start_ms, select.end_ms)?;
            Some((memory.reference().clone(), time, f64::from_bits(value)))
        };
        Ok(head.selected(select)?.filter_map(last).collect())
    }

    fn label_names(&self, select: &Select) -> Result<Vec<String>, ReadError> {
        let head = self.head().read().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeSet<&str> = head.present(select)?.flat_map(|s| s.labels.iter().map(|(key, _)| key)).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn label_values(&self, label: &str, select: &Select) -> Result<Vec<String>, ReadError> {
        let head = self.head().read().unwrap_or_else(PoisonError::into_inner);
        let values: BTreeSet<&str> = head.present(select)?.filter_map(|series| series.labels.get(label)).collect();
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
