//! The series of one request: text stored once, labels sorted, samples in the order of time.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::native::NativeHistogram;

/// A sample that only says that its series ended (Prometheus `value.StaleNaN`).
pub(super) const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);
/// The one NaN that stands for a value that is not a number (Prometheus `value.NormalNaN`).
const NORMAL_NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0001);
/// The record of a sample that is none of the delivery's.
pub(super) const NO_RECORD: u32 = u32::MAX;

/// Prometheus' metric types; the numbers are the same in both versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum MetricType {
    #[default]
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    GaugeHistogram = 4,
    Summary = 5,
    Info = 6,
    StateSet = 7,
}

impl MetricType {
    pub fn number(self) -> u64 {
        self as u64
    }
}

/// Texts, each once; number 0 is the empty text.
#[derive(Debug)]
pub(super) struct Symbols {
    text: String,
    ends: Vec<u32>,
    by_text: HashTable<(u64, u32)>,
}

impl Default for Symbols {
    fn default() -> Self {
        Self { text: String::new(), ends: vec![0], by_text: HashTable::new() }
    }
}

impl Symbols {
    /// The number of a text.
    pub fn add(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let hash = FixedState::with_seed(0).hash_one(text);
        if let Some(&(_, at)) = self.by_text.find(hash, |&(_, at)| self.text(at) == text) {
            return at;
        }
        let at = number(self.ends.len());
        self.text.push_str(text);
        self.ends.push(number(self.text.len()));
        self.by_text.insert_unique(hash, (hash, at), |&(hash, _)| hash);
        at
    }

    pub fn text(&self, at: u32) -> &str {
        let at = at as usize;
        let end = self.ends.get(at).copied().unwrap_or(0) as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0) as usize;
        self.text.get(start..end).unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|at| self.text(number(at)))
    }
}

/// Requests are bounded far below 2^32 texts, bytes and series.
pub(super) fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Numbers of a label's name and value.
pub(super) type LabelRef = (u32, u32);

/// A range of the set's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LabelRange {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    /// With `__name__`, sorted by name.
    pub labels: LabelRange,
    /// Index into [`SeriesSet::families`].
    pub family: u32,
}

/// A metric, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Family {
    pub name: u32,
    pub kind: MetricType,
    pub help: u32,
    pub unit: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct SampleRow {
    pub series: u32,
    pub time_ms: i64,
    pub value: f64,
    /// 0 = unknown.
    pub start_ms: i64,
    /// Position in the delivery, or [`NO_RECORD`].
    pub record: u32,
}

#[derive(Clone, Debug)]
pub(super) struct HistogramRow {
    pub series: u32,
    pub time_ms: i64,
    pub start_ms: i64,
    pub record: u32,
    pub histogram: NativeHistogram,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ExemplarRow {
    pub series: u32,
    pub time_ms: i64,
    pub value: f64,
    pub labels: LabelRange,
}

/// A record that cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RefusedRecord {
    /// Position in the delivery.
    pub record: u32,
    pub why: &'static str,
}

/// The series of one request.
#[derive(Debug, Default)]
pub(super) struct SeriesSet {
    pub symbols: Symbols,
    pub series: Vec<Series>,
    pub families: Vec<Family>,
    pub samples: Vec<SampleRow>,
    pub histograms: Vec<HistogramRow>,
    pub exemplars: Vec<ExemplarRow>,
    pub refused: Vec<RefusedRecord>,
    labels: Vec<LabelRef>,
    by_labels: HashTable<(u64, u32)>,
}

impl SeriesSet {
    /// The labels of a range.
    pub fn labels(&self, range: LabelRange) -> &[LabelRef] {
        self.labels.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Sorts labels by the text of their name.
    pub fn sort(&self, labels: &mut [LabelRef]) {
        labels.sort_unstable_by(|a, b| self.symbols.text(a.0).cmp(self.symbols.text(b.0)));
    }

    /// Stores labels.
    pub fn push_labels(&mut self, labels: &[LabelRef]) -> LabelRange {
        let start = number(self.labels.len());
        self.labels.extend_from_slice(labels);
        LabelRange { start, end: number(self.labels.len()) }
    }

    /// The series with these labels, which are sorted and unique, added where it is new.
    pub fn series(&mut self, labels: &[LabelRef], family: u32) -> u32 {
        let hash = FixedState::with_seed(0).hash_one(labels);
        let same = |&(_, at): &(u64, u32)| {
            self.series.get(at as usize).is_some_and(|series| self.labels(series.labels) == labels)
        };
        if let Some(&(_, at)) = self.by_labels.find(hash, same) {
            return at;
        }
        let at = number(self.series.len());
        let labels = self.push_labels(labels);
        self.series.push(Series { labels, family });
        self.by_labels.insert_unique(hash, (hash, at), |&(hash, _)| hash);
        at
    }

    /// The family with this name; the first description of it stays.
    pub fn family(&mut self, family: Family) -> u32 {
        // A request has few families, and callers ask once per metric.
        let at = self.families.iter().position(|other| other.name == family.name);
        number(at.unwrap_or_else(|| {
            self.families.push(family);
            self.families.len() - 1
        }))
    }

    pub fn push_sample(&mut self, row: SampleRow) {
        // Any other NaN could be taken for the end of the series.
        let is_stale = row.value.to_bits() == STALE.to_bits();
        let value = if row.value.is_nan() && !is_stale { NORMAL_NAN } else { row.value };
        self.samples.push(SampleRow { value, ..row });
    }

    pub fn refuse(&mut self, record: u32, why: &'static str) {
        if record != NO_RECORD {
            self.refused.push(RefusedRecord { record, why });
        }
    }

    /// Puts everything in the order of series and time. Of several samples of a series at one
    /// millisecond the first stays: receivers refuse a whole request for the others.
    pub fn finish(&mut self) {
        const TWICE: &str = "another point of the same series has the same time";
        self.samples.sort_by_key(|row| (row.series, row.time_ms));
        self.histograms.sort_by_key(|row| (row.series, row.time_ms));
        self.exemplars.sort_by_key(|row| (row.series, row.time_ms));
        let mut refused = Vec::new();
        self.samples.dedup_by(|later, first| {
            let same = (later.series, later.time_ms) == (first.series, first.time_ms);
            if same && later.value.to_bits() != first.value.to_bits() {
                refused.push(later.record);
            }
            same
        });
        self.histograms.dedup_by(|later, first| {
            let same = (later.series, later.time_ms) == (first.series, first.time_ms);
            if same && later.histogram != first.histogram {
                refused.push(later.record);
            }
            same
        });
        refused.into_iter().for_each(|record| self.refuse(record, TWICE));
        self.refused.sort_by_key(|refused| refused.record);
        self.refused.dedup_by_key(|refused| refused.record);
    }
}
