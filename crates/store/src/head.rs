//! Everything that is kept, in memory: series, their samples and the index.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::chunk::{ARC_BYTES, Chunk};
use crate::index::Index;
use crate::labels::{Label, Series, SeriesRef, table_bytes};
use crate::series::{MemorySeries, Pushed};

/// The head.
#[derive(Debug)]
pub struct Head {
    series: HashMap<u32, MemorySeries, RandomState>,
    lookup: HashTable<SeriesRef>,
    index: Index,
    /// Longest time that one open chunk spans, milliseconds.
    span_ms: i64,
    /// Heap bytes of all samples.
    sample_bytes: usize,
    /// Heap bytes of all descriptions of series, not counting what they share.
    description_bytes: usize,
    /// Heap bytes of what the series share: text, resources.
    shared_bytes: usize,
    samples: usize,
}

/// How finely the time is divided to find what is oldest.
const AGE_STEPS: usize = 512;

fn description_bytes(series: &Series) -> usize {
    ARC_BYTES + size_of::<Series>() + size_of_val::<[Label]>(series.labels.own())
}

impl Head {
    /// An empty head whose open chunks span at most `span_ms` milliseconds.
    pub fn new(span_ms: i64) -> Self {
        Self {
            series: HashMap::default(),
            lookup: HashTable::new(),
            index: Index::default(),
            span_ms,
            sample_bytes: 0,
            description_bytes: 0,
            shared_bytes: 0,
            samples: 0,
        }
    }

    /// The series with this hash whose labels are the right ones.
    pub fn find(&self, hash: u64, is_it: impl Fn(&Series) -> bool) -> Option<&SeriesRef> {
        self.lookup.find(hash, |known| known.hash == hash && is_it(known))
    }

    /// Whether exactly this series is there, not a later one with the same labels.
    pub fn holds(&self, series: &SeriesRef) -> bool {
        self.series.get(&series.id).is_some_and(|known| Arc::ptr_eq(known.reference(), series))
    }

    /// Adds a sample; the series too if it is new.
    pub fn push(&mut self, series: &SeriesRef, time_ms: i64, value: u64) -> Pushed {
        if let Some(pushed) = self.push_to(series.id, time_ms, value) {
            return pushed;
        }
        self.description_bytes += description_bytes(series);
        self.index.insert(series.id, &series.labels);
        self.lookup.insert_unique(series.hash, series.clone(), |known| known.hash);
        self.series.insert(series.id, MemorySeries::new(series.clone()));
        self.push_to(series.id, time_ms, value).unwrap_or(Pushed::Duplicate)
    }

    /// Adds a sample to the series of a number, without a look at its description. `None` if there is no such series.
    pub fn push_to(&mut self, id: u32, time_ms: i64, value: u64) -> Option<Pushed> {
        let memory = self.series.get_mut(&id)?;
        let (bytes, samples) = (memory.sample_bytes(), memory.samples());
        let pushed = memory.push(time_ms, value, self.span_ms);
        self.sample_bytes = self.sample_bytes + memory.sample_bytes() - bytes;
        self.samples = self.samples + memory.samples() - samples;
        Some(pushed)
    }

    /// Lets go of everything older than a time. How many samples went.
    pub fn drop_before(&mut self, time_ms: i64) -> usize {
        let mut gone = Vec::new();
        let before = self.samples;
        for (id, memory) in &mut self.series {
            let (bytes, samples) = (memory.sample_bytes(), memory.samples());
            if memory.drop_before(time_ms) {
                self.sample_bytes = self.sample_bytes + memory.sample_bytes() - bytes;
                self.samples = self.samples + memory.samples() - samples;
            } else {
                gone.push(*id);
            }
        }
        self.remove(&gone);
        before - self.samples
    }

    fn remove(&mut self, ids: &[u32]) {
        if ids.is_empty() {
            return;
        }
        let gone: Vec<MemorySeries> = ids.iter().filter_map(|id| self.series.remove(id)).collect();
        for memory in &gone {
            let series = memory.reference();
            if let Ok(entry) = self.lookup.find_entry(series.hash, |known| Arc::ptr_eq(known, series)) {
                entry.remove();
            }
            self.sample_bytes -= memory.sample_bytes();
            self.samples -= memory.samples();
            self.description_bytes -= description_bytes(series);
        }
        self.index.remove(gone.iter().map(|memory| (memory.reference().id, &memory.reference().labels)));
        self.series.shrink_to_fit();
        self.lookup.shrink_to_fit(|known| known.hash);
    }

    /// Lets go of the oldest until at most `bytes` are held. How many samples went.
    pub fn evict(&mut self, bytes: usize, now_ms: i64) -> usize {
        let before = self.samples;
        if self.bytes() > bytes {
            let cut = self.age_that_frees(self.bytes() - bytes, now_ms);
            self.drop_before(cut);
        }
        if self.bytes() > bytes {
            self.evict_series(bytes);
        }
        before - self.samples
    }

    /// The time before which `bytes` are held.
    fn age_that_frees(&self, bytes: usize, now_ms: i64) -> i64 {
        let oldest = self.oldest_ms().unwrap_or(now_ms);
        // Clocks that are wrong must not stretch the steps.
        let step = (now_ms.saturating_sub(oldest) / AGE_STEPS as i64).max(1);
        let mut held = [0usize; AGE_STEPS];
        let mut add = |last_ms: i64, bytes: usize| {
            let at = usize::try_from(last_ms.saturating_sub(oldest) / step).unwrap_or(AGE_STEPS);
            if let Some(held) = held.get_mut(at.min(AGE_STEPS - 1)) {
                *held += bytes;
            }
        };
        let fixed = self.series_bytes() / self.series.len().max(1);
        for memory in self.series.values() {
            let mut chunks = 0;
            memory.each_part(|last_ms, bytes| {
                chunks += bytes;
                add(last_ms, bytes);
            });
            if let Some((newest, _)) = memory.newest() {
                add(newest, fixed + memory.sample_bytes().saturating_sub(chunks));
            }
        }
        let mut freed = 0;
        let steps = held.iter().take_while(|held| {
            let more = freed < bytes;
            freed += **held;
            more
        });
        oldest.saturating_add(step.saturating_mul(steps.count() as i64))
    }

    /// Drops whole series, those without news for the longest time first. Comes to this when
    /// memory is full of series rather than of samples.
    fn evict_series(&mut self, bytes: usize) {
        let mut series: Vec<(i64, u32)> =
            self.series.iter().map(|(id, memory)| (memory.newest().map_or(i64::MIN, |(time, _)| time), *id)).collect();
        series.sort_unstable();
        let each = (self.bytes() / series.len().max(1)).max(1);
        let mut rest = series.as_slice();
        while self.bytes() > bytes && !rest.is_empty() {
            let enough = ((self.bytes() - bytes) / each + 1).min(rest.len());
            let (now, later) = rest.split_at(enough);
            self.remove(&now.iter().map(|(_, id)| *id).collect::<Vec<_>>());
            rest = later;
        }
    }

    /// Tells how many bytes the series share.
    pub fn set_shared_bytes(&mut self, bytes: usize) {
        self.shared_bytes = bytes;
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// A series by its number.
    pub fn get(&self, id: u32) -> Option<&MemorySeries> {
        self.series.get(&id)
    }

    /// How many series.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// How many samples, replaced ones included.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// The oldest time.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.series.values().filter_map(MemorySeries::oldest_ms).min()
    }

    /// The newest time.
    pub fn newest_ms(&self) -> Option<i64> {
        self.series.values().filter_map(|memory| Some(memory.newest()?.0)).max()
    }

    /// Bytes of the samples.
    pub fn sample_bytes(&self) -> usize {
        self.sample_bytes
    }

    /// Bytes of everything but the samples: descriptions, text, tables, index.
    pub fn series_bytes(&self) -> usize {
        self.description_bytes
            + self.shared_bytes
            + table_bytes::<(u32, MemorySeries)>(self.series.capacity())
            + table_bytes::<SeriesRef>(self.lookup.capacity())
            + self.index.bytes()
    }

    /// Bytes of everything.
    pub fn bytes(&self) -> usize {
        self.sample_bytes + self.series_bytes()
    }
}

/// Chunks are shared with readers, who may hold them longer than the head does.
const _: fn() = || {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<Chunk>();
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::{LabelHasher, Labels, MetricInfo, MetricKind};

    fn series(id: u32) -> SeriesRef {
        let info = MetricInfo { unit: "1".into(), kind: MetricKind::Gauge, description: "".into() };
        let labels = Labels::new([("__name__".to_owned(), "m".to_owned()), ("n".to_owned(), id.to_string())]);
        let hash = LabelHasher::default().all(labels.iter());
        Arc::new(Series { id, labels, info: Arc::new(info), hash })
    }

    fn filled(series_count: u32, samples: i64) -> Head {
        let mut head = Head::new(i64::MAX);
        for id in 0..series_count {
            let series = series(id);
            for time in 0..samples {
                head.push(
                    &series,
                    1000 + time,
                    u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ time.cast_unsigned(),
                );
            }
        }
        head
    }

    #[test]
    fn the_oldest_samples_go_first_and_as_many_as_needed() {
        let mut head = filled(10, 2400);
        let bound = head.bytes() * 2 / 3;
        let gone = head.evict(bound, 1000 + 2400);
        assert!(head.bytes() <= bound, "{} > {bound}", head.bytes());
        assert_eq!(head.samples() + gone, 24_000);
        assert_eq!(head.len(), 10);
        assert_eq!(head.newest_ms(), Some(3399));
        // Not much more than needed went.
        assert!(gone < 24_000 / 2, "{gone}");
        assert!(head.oldest_ms() > Some(1240));
    }

    #[test]
    fn memory_full_of_series_of_one_time_is_bounded_too() {
        let mut head = filled(1000, 1);
        let bound = head.bytes() / 2;
        head.evict(bound, 5000);
        assert!(head.bytes() <= bound);
        assert_eq!(head.len(), head.index().all().len());
    }

    #[test]
    fn counted_bytes_return_to_nothing_with_the_last_series() {
        let mut head = filled(50, 300);
        head.drop_before(i64::MAX);
        assert_eq!((head.len(), head.samples(), head.sample_bytes(), head.description_bytes), (0, 0, 0, 0));
        assert_eq!(head.lookup.len(), 0);
    }
}
