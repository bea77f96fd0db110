//! Everything that is kept, in memory: series, their samples and the index.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::chunk::{ARC_BYTES, Chunk};
use crate::index::Index;
use crate::labels::{Label, Series, SeriesRef, is_sparse, table_bytes};
use crate::series::{MemorySeries, Pushed};

/// The head.
#[derive(Debug)]
pub struct Head {
    /// Boxed, so that the table stays small: it doubles all at once, and is moved when it does.
    series: HashMap<u32, Box<MemorySeries>, RandomState>,
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
    /// Times of the oldest and the newest sample.
    span: Option<(i64, i64)>,
}

/// How finely the time is divided to find what is oldest.
const AGE_STEPS: usize = 512;

/// What the head has let go of. Freeing it takes longer than others should wait for the head.
#[derive(Debug, Default)]
pub struct Gone {
    /// How many samples.
    pub samples: usize,
    /// Held until it is dropped.
    #[expect(clippy::vec_box, reason = "taking them out of their boxes would free those at once")]
    _series: Vec<Box<MemorySeries>>,
}

fn description_bytes(series: &Series) -> usize {
    size_of::<MemorySeries>() + ARC_BYTES + size_of::<Series>() + size_of_val::<[Label]>(series.labels.own())
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
            span: None,
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
        self.series.insert(series.id, Box::new(MemorySeries::new(series.clone())));
        self.push_to(series.id, time_ms, value).unwrap_or(Pushed::Duplicate)
    }

    /// Adds a sample to the series of a number, without a look at its description. `None` if there is no such series.
    pub fn push_to(&mut self, id: u32, time_ms: i64, value: u64) -> Option<Pushed> {
        let memory = self.series.get_mut(&id)?;
        let (bytes, samples) = (memory.sample_bytes(), memory.samples());
        let pushed = memory.push(time_ms, value, self.span_ms);
        self.sample_bytes = self.sample_bytes + memory.sample_bytes() - bytes;
        self.samples = self.samples + memory.samples() - samples;
        let (oldest, newest) = self.span.unwrap_or((time_ms, time_ms));
        self.span = Some((oldest.min(time_ms), newest.max(time_ms)));
        Some(pushed)
    }

    /// The series that hold anything older than a time, ascending.
    pub fn series_before(&self, time_ms: i64) -> Vec<u32> {
        let old = self.series.iter().filter(|(_, memory)| memory.has_before(time_ms));
        let mut ids: Vec<u32> = old.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Lets go of what these series hold that is older than a time.
    pub fn drop_before(&mut self, ids: &[u32], time_ms: i64) -> Gone {
        let before = self.samples;
        let mut empty = Vec::new();
        for id in ids {
            let Some(memory) = self.series.get_mut(id) else { continue };
            let (bytes, samples) = (memory.sample_bytes(), memory.samples());
            if memory.drop_before(time_ms) {
                self.sample_bytes = self.sample_bytes + memory.sample_bytes() - bytes;
                self.samples = self.samples + memory.samples() - samples;
            } else {
                empty.push(*id);
            }
        }
        let gone = self.remove(&empty);
        Gone { samples: before - self.samples, ..gone }
    }

    /// Lets go of these series, whose numbers ascend.
    pub fn remove(&mut self, ids: &[u32]) -> Gone {
        if ids.is_empty() {
            return Gone::default();
        }
        let before = self.samples;
        let gone: Vec<Box<MemorySeries>> = ids.iter().filter_map(|id| self.series.remove(id)).collect();
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
        if is_sparse(self.series.len(), self.series.capacity()) {
            self.series.shrink_to_fit();
        }
        if is_sparse(self.lookup.len(), self.lookup.capacity()) {
            self.lookup.shrink_to_fit(|known| known.hash);
        }
        Gone { samples: before - self.samples, _series: gone }
    }

    /// The time before which `bytes` are held, or an earlier one if whole series that are still alive would go
    /// with them: those are not chosen by a step of time.
    pub fn age_that_frees(&self, bytes: usize, now_ms: i64) -> i64 {
        let oldest = self.oldest_ms().unwrap_or(now_ms);
        // Clocks that are wrong must not stretch the steps.
        let step = (now_ms.saturating_sub(oldest) / AGE_STEPS as i64).max(1);
        // By step: bytes of chunks, and bytes of series that end in it.
        let mut held = [(0usize, 0usize); AGE_STEPS];
        let at = |last_ms: i64| {
            let step = usize::try_from(last_ms.saturating_sub(oldest) / step).unwrap_or(AGE_STEPS);
            step.min(AGE_STEPS - 1)
        };
        let fixed = self.series_bytes() / self.series.len().max(1);
        for memory in self.series.values() {
            let mut chunks = 0;
            memory.each_part(|last_ms, bytes| {
                chunks += bytes;
                if let Some((held, _)) = held.get_mut(at(last_ms)) {
                    *held += bytes;
                }
            });
            let whole = fixed + memory.sample_bytes().saturating_sub(chunks);
            if let Some((_, held)) = memory.newest_ms().and_then(|newest_ms| held.get_mut(at(newest_ms))) {
                *held += whole;
            }
        }
        let mut freed = 0;
        let steps = held.iter().take_while(|(chunks, series)| {
            let is_right = freed < bytes && freed + series <= bytes + bytes / 2;
            freed += chunks + series;
            is_right
        });
        oldest.saturating_add(step.saturating_mul(steps.count() as i64))
    }

    /// So many series that hold about so many bytes, those without news for the longest time;
    /// their numbers ascend.
    pub fn quietest_series(&self, bytes: usize) -> Vec<u32> {
        let each = (self.bytes() / self.series.len().max(1)).max(1);
        let count = (bytes / each + 1).min(self.series.len());
        let mut series: Vec<(i64, u32)> =
            self.series.iter().map(|(id, memory)| (memory.newest_ms().unwrap_or(i64::MIN), *id)).collect();
        if count < series.len() {
            series.select_nth_unstable(count);
        }
        let mut ids: Vec<u32> = series.into_iter().take(count).map(|(_, id)| id).collect();
        ids.sort_unstable();
        ids
    }

    /// Looks at every series for the times of the oldest and the newest sample.
    pub fn measure_span(&self) -> Option<(i64, i64)> {
        let spans = self.series.values().filter_map(|memory| Some((memory.oldest_ms()?, memory.newest_ms()?)));
        spans.reduce(|(oldest, newest), (first, last)| (oldest.min(first), newest.max(last)))
    }

    /// Tells the times of the oldest and the newest sample, after some have gone.
    pub fn set_span(&mut self, span: Option<(i64, i64)>) {
        self.span = span;
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
        self.series.get(&id).map(|memory| &**memory)
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
        self.span.map(|(oldest, _)| oldest)
    }

    /// The newest time.
    pub fn newest_ms(&self) -> Option<i64> {
        self.span.map(|(_, newest)| newest)
    }

    /// Bytes of the samples.
    pub fn sample_bytes(&self) -> usize {
        self.sample_bytes
    }

    /// Bytes of everything but the samples: descriptions, text, tables, index.
    pub fn series_bytes(&self) -> usize {
        self.description_bytes
            + self.shared_bytes
            + table_bytes::<(u32, Box<MemorySeries>)>(self.series.capacity())
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
