//! The samples of one series in memory.
//!
//! Samples that arrive in order are compressed at once. Late ones are kept apart and merged when they
//! are read. For one time the value that came last counts, so later parts win over earlier ones:
//! first the chunks in order, then the late chunks by age, then the late samples not compressed yet.

use crate::chunk::{CHUNK_SAMPLES, Chunk, Encoder, Sample};
use crate::labels::{SeriesRef, is_sparse};

/// Late samples are compressed when there are so many.
const LATE_SAMPLES: usize = 120;

/// With so many late chunks all samples are put in order anew: each of them would be looked into for every
/// late sample that follows.
const LATE_CHUNKS: usize = 8;

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is new.
    New,
    /// There was another value at that time; this one counts now.
    Replaced,
    /// The same value was there at that time.
    Duplicate,
}

/// A series with its samples.
#[derive(Debug)]
pub struct MemorySeries {
    reference: SeriesRef,
    sealed: Vec<Chunk>,
    open: Encoder,
    late: Option<Box<Late>>,
    /// Heap bytes of all complete chunks.
    chunk_bytes: usize,
    /// How many samples, replaced ones included.
    samples: usize,
}

#[derive(Debug, Default)]
struct Late {
    sealed: Vec<Chunk>,
    open: Vec<Sample>,
    /// What replaced the value of the newest sample.
    newest_value: Option<u64>,
}

/// Samples of a range: parts whose bits are shared with the store.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// In order, without overlap.
    pub ordered: Vec<Chunk>,
    /// May overlap with everything; later ones win.
    pub late: Vec<Chunk>,
    /// Ascending; wins over all chunks.
    pub latest: Vec<Sample>,
}

impl MemorySeries {
    /// A series without samples.
    pub fn new(reference: SeriesRef) -> Self {
        Self { reference, sealed: Vec::new(), open: Encoder::default(), late: None, chunk_bytes: 0, samples: 0 }
    }

    /// What it is.
    pub fn reference(&self) -> &SeriesRef {
        &self.reference
    }

    /// The newest sample.
    pub fn newest(&self) -> Option<Sample> {
        let replaced = self.late.as_ref().and_then(|late| late.newest_value);
        Some((self.newest_ms()?, replaced.unwrap_or(self.open.last_value())))
    }

    /// Time of the newest sample. It is always in the open chunk, whatever became of its value.
    pub fn newest_ms(&self) -> Option<i64> {
        (self.open.count() > 0).then(|| self.open.last_ms())
    }

    /// Whether [`MemorySeries::drop_before`] would let go of anything.
    pub fn has_before(&self, time_ms: i64) -> bool {
        let is_old = |chunk: &Chunk| chunk.last_ms < time_ms;
        self.newest_ms().is_none_or(|newest| newest < time_ms)
            || self.sealed.first().is_some_and(is_old)
            || self.late.as_ref().is_some_and(|late| {
                late.sealed.iter().any(is_old) || late.open.first().is_some_and(|(time, _)| *time < time_ms)
            })
    }

    /// How many samples are held, replaced ones included.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The oldest time.
    pub fn oldest_ms(&self) -> Option<i64> {
        let open = (self.open.count() > 0).then(|| self.open.first_ms());
        let ordered = self.sealed.first().map(|chunk| chunk.first_ms).or(open);
        let late = self.late.iter().flat_map(|late| {
            late.sealed.iter().map(|chunk| chunk.first_ms).chain(late.open.first().map(|(time, _)| *time))
        });
        late.chain(ordered).min()
    }

    /// Bytes on the heap for samples, besides the entry itself.
    pub fn sample_bytes(&self) -> usize {
        let late = self.late.as_ref().map_or(0, |late| {
            size_of::<Late>() + late.sealed.capacity() * size_of::<Chunk>() + late.open.capacity() * size_of::<Sample>()
        });
        self.chunk_bytes + self.sealed.capacity() * size_of::<Chunk>() + self.open.heap_bytes() + late
    }

    /// Adds a sample. An open chunk that would span more than `span_ms` is completed before, so that
    /// old samples of a slow series can go.
    pub fn push(&mut self, time_ms: i64, value: u64, span_ms: i64) -> Pushed {
        let newest_ms = self.newest_ms();
        if newest_ms.is_none_or(|newest| time_ms > newest) {
            if let Some(late) = &mut self.late {
                late.newest_value = None;
            }
            self.push_in_order(time_ms, value, span_ms);
            return Pushed::New;
        }
        let known = self.at(time_ms);
        if known == Some(value) {
            return Pushed::Duplicate;
        }
        self.push_late(time_ms, value, span_ms);
        // All may be in order again by now.
        if let Some(late) = self.late.as_mut().filter(|_| newest_ms == Some(time_ms)) {
            late.newest_value = Some(value);
        }
        if known.is_some() { Pushed::Replaced } else { Pushed::New }
    }

    fn push_in_order(&mut self, time_ms: i64, value: u64, span_ms: i64) {
        let is_long = self.open.count() > 0 && time_ms.saturating_sub(self.open.first_ms()) > span_ms;
        if self.open.count() >= CHUNK_SAMPLES || is_long {
            self.seal();
        }
        self.open.push(time_ms, value);
        self.samples += 1;
    }

    /// Puts everything in order. What was replaced goes.
    fn reorder(&mut self, span_ms: i64) {
        let all = self.parts(i64::MIN, i64::MAX).merged();
        (self.sealed, self.open, self.late) = (Vec::new(), Encoder::default(), None);
        (self.chunk_bytes, self.samples) = (0, 0);
        for (time_ms, value) in all {
            self.push_in_order(time_ms, value, span_ms);
        }
    }

    fn seal(&mut self) {
        if let Some(chunk) = self.open.chunk() {
            self.chunk_bytes += chunk.heap_bytes();
            self.sealed.push(chunk);
        }
        self.open = Encoder::default();
    }

    /// The value that counts at a time.
    fn at(&self, time_ms: i64) -> Option<u64> {
        if let Some((_, value)) = self.newest().filter(|(newest, _)| *newest == time_ms) {
            return Some(value);
        }
        if let Some(late) = &self.late {
            if let Ok(at) = late.open.binary_search_by_key(&time_ms, |(time, _)| *time) {
                return late.open.get(at).map(|(_, value)| *value);
            }
            let found = late.sealed.iter().rev().filter(|chunk| chunk.spans(time_ms)).find_map(|c| c.at(time_ms));
            if found.is_some() {
                return found;
            }
        }
        if self.open.count() > 0 && time_ms >= self.open.first_ms() {
            return self.open.chunk()?.at(time_ms);
        }
        let at = self.sealed.partition_point(|chunk| chunk.last_ms < time_ms);
        self.sealed.get(at).filter(|chunk| chunk.spans(time_ms))?.at(time_ms)
    }

    fn push_late(&mut self, time_ms: i64, value: u64, span_ms: i64) {
        let late = self.late.get_or_insert_default();
        match late.open.binary_search_by_key(&time_ms, |(time, _)| *time) {
            Ok(at) => {
                if let Some(sample) = late.open.get_mut(at) {
                    sample.1 = value;
                }
                return;
            }
            Err(at) => late.open.insert(at, (time_ms, value)),
        }
        self.samples += 1;
        if late.open.len() >= LATE_SAMPLES {
            if let Some(chunk) = Chunk::of(&late.open) {
                self.chunk_bytes += chunk.heap_bytes();
                late.sealed.push(chunk);
            }
            late.open = Vec::new();
            if late.sealed.len() >= LATE_CHUNKS {
                self.reorder(span_ms);
            }
        }
    }

    /// Lets go of what is completely older than a time. Whether anything is left. Of times before that which
    /// stay, because a chunk reaches beyond, a value that was replaced may count again.
    pub fn drop_before(&mut self, time_ms: i64) -> bool {
        if self.newest_ms().is_none_or(|newest| newest < time_ms) {
            return false;
        }
        let (bytes, samples) = (&mut self.chunk_bytes, &mut self.samples);
        let mut keep = |chunk: &Chunk| {
            let keep = chunk.last_ms >= time_ms;
            if !keep {
                *bytes -= chunk.heap_bytes();
                *samples -= usize::from(chunk.count);
            }
            keep
        };
        let before = self.sealed.len();
        self.sealed.retain(&mut keep);
        if self.sealed.len() < before {
            self.sealed.shrink_to_fit();
        }
        if let Some(late) = &mut self.late {
            late.sealed.retain(&mut keep);
            let old = late.open.partition_point(|(time, _)| *time < time_ms);
            late.open.drain(..old);
            if is_sparse(late.open.len(), late.open.capacity()) {
                late.open.shrink_to_fit();
            }
            *samples -= old;
            if late.sealed.is_empty() && late.open.is_empty() {
                self.late = None;
            }
        }
        true
    }

    /// Calls with last time and bytes of everything that [`MemorySeries::drop_before`] can let go of.
    pub fn each_part(&self, mut visit: impl FnMut(i64, usize)) {
        let late = self.late.iter().flat_map(|late| &late.sealed);
        for chunk in self.sealed.iter().chain(late) {
            visit(chunk.last_ms, chunk.heap_bytes() + size_of::<Chunk>());
        }
    }

    /// What there is from `start_ms` to `end_ms`, both included; parts may reach beyond.
    pub fn parts(&self, start_ms: i64, end_ms: i64) -> Parts {
        let overlaps = |chunk: &&Chunk| chunk.first_ms <= end_ms && chunk.last_ms >= start_ms;
        let from = self.sealed.partition_point(|chunk| chunk.last_ms < start_ms);
        let sealed = self.sealed.get(from..).unwrap_or_default();
        let mut ordered: Vec<Chunk> = sealed.iter().take_while(|chunk| chunk.first_ms <= end_ms).cloned().collect();
        if self.open.count() > 0 && self.open.first_ms() <= end_ms && self.open.last_ms() >= start_ms {
            ordered.extend(self.open.chunk());
        }
        let Some(late) = &self.late else { return Parts { ordered, ..Parts::default() } };
        let latest = late.open.iter().filter(|(time, _)| (start_ms..=end_ms).contains(time)).copied().collect();
        Parts { ordered, late: late.sealed.iter().filter(overlaps).cloned().collect(), latest }
    }

    /// The newest sample of a range.
    pub fn last(&self, start_ms: i64, end_ms: i64) -> Option<Sample> {
        let (newest, value) = self.newest()?;
        if newest < start_ms {
            return None;
        }
        if newest <= end_ms {
            return Some((newest, value));
        }
        self.parts(start_ms, end_ms).last(start_ms, end_ms)
    }
}

impl Parts {
    /// Late samples and those in order, merged.
    pub fn merged(&self) -> Vec<Sample> {
        let ordered = self.ordered.iter().flat_map(Chunk::samples);
        let late = self.late.iter().flat_map(Chunk::samples);
        let mut all: Vec<Sample> = ordered.chain(late).chain(self.latest.iter().copied()).collect();
        // A stable sort keeps the order of arrival among equal times; the last of them counts.
        all.sort_by_key(|(time, _)| *time);
        all.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = later.1;
            }
            same
        });
        all
    }

    fn last(mut self, start_ms: i64, end_ms: i64) -> Option<Sample> {
        let within = |(time, _): &Sample| (start_ms..=end_ms).contains(time);
        if self.late.is_empty() && self.latest.is_empty() {
            // Only the last two can hold it: the very last may begin before the end and have nothing in it.
            return self.ordered.iter().rev().find_map(|chunk| chunk.samples().filter(within).last());
        }
        self.ordered.retain(|chunk| chunk.last_ms >= start_ms);
        self.merged().into_iter().rfind(within)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::labels::{Labels, MetricInfo, MetricKind, Series};

    fn series() -> MemorySeries {
        let info = MetricInfo { unit: "1".into(), kind: MetricKind::Gauge, description: "".into() };
        let labels = Labels::new([("__name__", "m")]);
        MemorySeries::new(Series::new(1, labels, info))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn samples_in_any_order_are_found_as_in_a_plain_map(
            pushes in prop::collection::vec((0i64..600, 0u64..3), 1..1500),
            range in (0i64..600, 0i64..600),
        ) {
            let (mut series, mut model) = (series(), BTreeMap::new());
            for (time, value) in &pushes {
                let expected = match model.insert(*time, *value) {
                    None => Pushed::New,
                    Some(before) if before == *value => Pushed::Duplicate,
                    Some(_) => Pushed::Replaced,
                };
                prop_assert_eq!(series.push(*time, *value, 1000), expected);
            }
            let all: Vec<Sample> = model.iter().map(|(t, v)| (*t, *v)).collect();
            prop_assert_eq!(series.parts(0, 600).merged(), all);
            prop_assert_eq!(series.oldest_ms(), model.keys().next().copied());
            prop_assert_eq!(series.newest(), model.iter().next_back().map(|(t, v)| (*t, *v)));
            let (start, end) = (range.0.min(range.1), range.0.max(range.1));
            prop_assert_eq!(series.last(start, end), model.range(start..=end).next_back().map(|(t, v)| (*t, *v)));
        }

        #[test]
        fn what_is_dropped_is_older_and_what_is_counted_is_there(
            pushes in prop::collection::vec((0i64..5000, 0u64..3), 1..2000),
            before in 0i64..5000,
        ) {
            let (mut series, mut model) = (series(), BTreeMap::new());
            for (time, value) in &pushes {
                series.push(*time, *value, 100);
                model.insert(*time, *value);
            }
            let (has_before, held) = (series.has_before(before), series.samples());
            if series.drop_before(before) {
                prop_assert_eq!(has_before, series.samples() < held);
                let kept = series.parts(i64::MIN, i64::MAX);
                let merged: BTreeMap<i64, u64> = kept.merged().into_iter().collect();
                prop_assert!(model.range(before..).all(|(t, v)| merged.get(t) == Some(v)));
                prop_assert!(merged.iter().all(|(t, v)| model.get(t) == Some(v) || *t < before));
                let held = kept.ordered.iter().chain(&kept.late).map(|c| usize::from(c.count)).sum::<usize>() + kept.latest.len();
                prop_assert_eq!(series.samples(), held);
                let sealed: usize = series.sealed.iter().chain(series.late.iter().flat_map(|l| &l.sealed)).map(Chunk::heap_bytes).sum();
                prop_assert_eq!(series.chunk_bytes, sealed);
                prop_assert!(!series.has_before(before));
            } else {
                prop_assert!(model.keys().all(|time| *time < before));
            }
        }
    }
}
