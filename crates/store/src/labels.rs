//! Labels, series, and the memory that they share.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::chunk::ARC_BYTES;

/// The label that holds the metric's name, as in Prometheus.
pub const NAME: &str = "__name__";

/// The label that holds the name of the instrumentation scope, as OpenTelemetry names it.
pub const SCOPE_NAME: &str = "otel.scope.name";

/// A key and its value.
pub type Label = (Arc<str>, Arc<str>);

/// Key and value pairs, sorted by key, each key once, no value empty; [`NAME`] among them.
///
/// What comes from the resource is held once for all its series; a series' own labels stand beside
/// and win over equal keys.
#[derive(Clone)]
pub struct Labels {
    shared: Arc<[Label]>,
    own: Box<[Label]>,
}

impl Labels {
    /// Labels of any pairs. Of equal keys the last wins; empty values are left out.
    pub fn new<K: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        let mut own: Vec<Label> = pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        own.reverse();
        own.sort_by(|a, b| a.0.cmp(&b.0));
        own.dedup_by(|later, kept| later.0 == kept.0);
        own.retain(|(_, value)| !value.is_empty());
        Self::from_parts(Arc::from([]), own)
    }

    /// Labels whose halves are sorted already.
    pub(crate) fn from_parts(shared: Arc<[Label]>, own: Vec<Label>) -> Self {
        Self { shared, own: own.into_boxed_slice() }
    }

    pub(crate) fn shared(&self) -> &Arc<[Label]> {
        &self.shared
    }

    pub(crate) fn own(&self) -> &[Label] {
        &self.own
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let find = |list: &'_ [Label]| list.binary_search_by(|(k, _)| (**k).cmp(key)).ok();
        let own = find(&self.own).and_then(|at| self.own.get(at));
        let (_, value) = own.or_else(|| self.shared.get(find(&self.shared)?))?;
        Some(value)
    }

    /// The metric's name; empty if there is none.
    pub fn name(&self) -> &str {
        self.get(NAME).unwrap_or_default()
    }

    /// The pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        merged(&self.shared, &self.own)
    }

    /// The pairs, sorted by key, with their shared text.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = &Label> {
        merge(self.shared.iter(), self.own.iter(), |label| &label.0)
    }

    /// Whether these are the pairs that the halves make.
    pub(crate) fn are<A: AsRef<str>, B: AsRef<str>>(&self, shared: &[(A, A)], own: &[(B, B)]) -> bool {
        self.iter().eq(merged(shared, own))
    }

    /// How many pairs.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.shared.is_empty()
    }
}

/// The pairs of a shared and an own half in order; the own half wins.
pub(crate) fn merged<'a, A, B>(shared: &'a [(A, A)], own: &'a [(B, B)]) -> impl Iterator<Item = (&'a str, &'a str)>
where
    A: AsRef<str>,
    B: AsRef<str>,
{
    let shared = shared.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
    let own = own.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
    merge(shared, own, |pair| pair.0)
}

/// Merges two ascending halves; of equal keys the own half's item comes, alone.
fn merge<T>(
    shared: impl Iterator<Item = T>,
    own: impl Iterator<Item = T>,
    key: impl Fn(&T) -> &str,
) -> impl Iterator<Item = T> {
    let (mut shared, mut own) = (shared.peekable(), own.peekable());
    std::iter::from_fn(move || {
        let order = match (shared.peek(), own.peek()) {
            (Some(a), Some(b)) => key(a).cmp(key(b)),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => shared.next(),
            Ordering::Equal => shared.next().and(own.next()),
            Ordering::Greater => own.next(),
        }
    })
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.shared, &other.shared) && self.own == other.own) || self.iter().eq(other.iter())
    }
}

impl Eq for Labels {}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for pair in self.iter() {
            pair.hash(state);
        }
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Hashes labels so that the halves can be hashed apart: the sum over the pairs, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelHasher(RandomState);

impl LabelHasher {
    /// The part of one pair.
    pub fn pair(&self, key: &str, value: &str) -> u64 {
        self.0.hash_one((key, value))
    }

    /// The hash of pairs that are merged already.
    pub fn all<'a>(&self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
        pairs.fold(0, |sum: u64, (key, value)| sum.wrapping_add(self.pair(key, value)))
    }
}

/// What kind of number the samples of a series are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricKind {
    /// A value that is sampled, or adds up since the last sample only (delta).
    Gauge,
    /// Only grows until it resets.
    Counter,
    /// Adds up, and may fall.
    UpDownCounter,
    /// How many values were at most `le`; grows until it resets.
    HistogramBucket,
    /// How many values; grows until it resets.
    HistogramCount,
    /// Their sum.
    HistogramSum,
    /// A quantile that the source computed.
    SummaryQuantile,
    /// How many values; grows until it resets.
    SummaryCount,
    /// Their sum.
    SummarySum,
}

impl MetricKind {
    /// All kinds; the position is what the log stores.
    pub(crate) const ALL: [MetricKind; 9] = [
        MetricKind::Gauge,
        MetricKind::Counter,
        MetricKind::UpDownCounter,
        MetricKind::HistogramBucket,
        MetricKind::HistogramCount,
        MetricKind::HistogramSum,
        MetricKind::SummaryQuantile,
        MetricKind::SummaryCount,
        MetricKind::SummarySum,
    ];

    /// One word, for example `counter`.
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
            MetricKind::UpDownCounter => "updowncounter",
            MetricKind::HistogramBucket => "histogram_bucket",
            MetricKind::HistogramCount => "histogram_count",
            MetricKind::HistogramSum => "histogram_sum",
            MetricKind::SummaryQuantile => "summary_quantile",
            MetricKind::SummaryCount => "summary_count",
            MetricKind::SummarySum => "summary_sum",
        }
    }

    /// Whether it grows until it resets, so that a rate makes sense.
    pub fn is_counter(self) -> bool {
        !matches!(self, MetricKind::Gauge | MetricKind::UpDownCounter | MetricKind::SummaryQuantile)
    }
}

/// What the series of a metric share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MetricInfo {
    /// UCUM unit, for example `By`; empty if not said.
    pub unit: Arc<str>,
    /// What kind of number.
    pub kind: MetricKind,
    /// What it measures, for people; may be empty.
    pub description: Arc<str>,
}

/// A series. Equal labels are one series.
#[derive(Debug)]
pub struct Series {
    /// Number of the series, never used twice while the store is open.
    pub id: u32,
    /// Its labels.
    pub labels: Labels,
    /// Unit, kind and description, as they were when the series began.
    pub info: Arc<MetricInfo>,
    pub(crate) hash: u64,
}

impl Series {
    /// A series of another source than this store. Its number matters to that source alone.
    pub fn new(id: u32, labels: Labels, info: MetricInfo) -> SeriesRef {
        Arc::new(Self { id, labels, info: Arc::new(info), hash: 0 })
    }
}

/// A shared series.
pub type SeriesRef = Arc<Series>;

/// Text, resources and descriptions, each held once. Owned by the one who makes series.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    texts: HashSet<Arc<str>, RandomState>,
    sets: HashSet<Arc<[Label]>, RandomState>,
    infos: HashSet<Arc<MetricInfo>, RandomState>,
    heap_bytes: usize,
}

impl Interner {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return known.clone();
        }
        let new: Arc<str> = Arc::from(text);
        self.heap_bytes += text.len() + ARC_BYTES;
        self.texts.insert(new.clone());
        new
    }

    fn list<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Label> {
        pairs.map(|(key, value)| (self.text(key), self.text(value))).collect()
    }

    /// Labels of a shared and an own half, both sorted.
    pub fn labels<'a>(
        &mut self,
        shared: impl Iterator<Item = (&'a str, &'a str)>,
        own: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Labels {
        let shared = self.list(shared);
        let shared = match self.sets.get(shared.as_slice()) {
            Some(known) => known.clone(),
            None => {
                let new: Arc<[Label]> = Arc::from(shared);
                self.heap_bytes += size_of_val(&*new) + ARC_BYTES;
                self.sets.insert(new.clone());
                new
            }
        };
        Labels::from_parts(shared, self.list(own))
    }

    /// A description of a metric.
    pub fn info(&mut self, unit: &str, kind: MetricKind, description: &str) -> Arc<MetricInfo> {
        let info = MetricInfo { unit: self.text(unit), kind, description: self.text(description) };
        if let Some(known) = self.infos.get(&info) {
            return known.clone();
        }
        let new = Arc::new(info);
        self.heap_bytes += size_of::<MetricInfo>() + ARC_BYTES;
        self.infos.insert(new.clone());
        new
    }

    /// Forgets what no series holds any more.
    pub fn sweep(&mut self) {
        self.sets.retain(|set| Arc::strong_count(set) > 1);
        self.infos.retain(|info| Arc::strong_count(info) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        if is_sparse(self.sets.len(), self.sets.capacity()) {
            self.sets.shrink_to_fit();
        }
        if is_sparse(self.infos.len(), self.infos.capacity()) {
            self.infos.shrink_to_fit();
        }
        if is_sparse(self.texts.len(), self.texts.capacity()) {
            self.texts.shrink_to_fit();
        }
        let texts: usize = self.texts.iter().map(|text| text.len() + ARC_BYTES).sum();
        let sets: usize = self.sets.iter().map(|set| size_of_val(&**set) + ARC_BYTES).sum();
        self.heap_bytes = texts + sets + self.infos.len() * (size_of::<MetricInfo>() + ARC_BYTES);
    }

    /// Bytes held, tables included.
    pub fn bytes(&self) -> usize {
        let tables = table_bytes::<Arc<str>>(self.texts.capacity())
            + table_bytes::<Arc<[Label]>>(self.sets.capacity())
            + table_bytes::<Arc<MetricInfo>>(self.infos.capacity());
        self.heap_bytes + tables
    }
}

/// Bytes of a hash table of this capacity: one control byte per slot, one slot in eight stays free.
pub(crate) fn table_bytes<T>(capacity: usize) -> usize {
    capacity.div_ceil(7).saturating_mul(8) * (size_of::<T>() + 1)
}

/// Whether something is so empty that it should be made smaller. Not with the first that goes: growing
/// again at once would cost more than the memory is worth.
pub(crate) fn is_sparse(length: usize, capacity: usize) -> bool {
    length < capacity / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(key: &str, value: &str) -> Label {
        (Arc::from(key), Arc::from(value))
    }

    #[test]
    fn labels_are_equal_however_they_are_halved_and_the_own_half_wins() {
        let whole = Labels::new([("b", "2"), ("a", "1"), (NAME, "m"), ("empty", "")]);
        let shared: Arc<[Label]> = Arc::from([label("a", "0"), label("b", "2")]);
        let halved = Labels::from_parts(shared, vec![label(NAME, "m"), label("a", "1")]);
        assert_eq!(whole, halved);
        assert_eq!(halved.iter().collect::<Vec<_>>(), [(NAME, "m"), ("a", "1"), ("b", "2")]);
        assert_eq!(halved.pairs().count(), 3);
        assert_eq!((halved.get("a"), halved.get("b"), halved.get("c")), (Some("1"), Some("2"), None));
        let hasher = LabelHasher::default();
        assert_eq!(hasher.all(whole.iter()), hasher.all(halved.iter()));
        assert_eq!(whole.cmp(&halved), Ordering::Equal);
    }

    #[test]
    fn equal_text_and_resources_are_held_once_and_forgotten_with_the_last_series() {
        let mut interner = Interner::default();
        let resource = [("host.name", "web-1"), ("os.type", "linux")];
        let a = interner.labels(resource.into_iter(), [(NAME, "m"), ("cpu", "0")].into_iter());
        let b = interner.labels(resource.into_iter(), [(NAME, "m"), ("cpu", "1")].into_iter());
        assert!(Arc::ptr_eq(a.shared(), b.shared()));
        assert!(Arc::ptr_eq(&a.own()[0].1, &b.own()[0].1));
        let held = interner.bytes();
        drop((a, b));
        interner.sweep();
        assert!(interner.texts.is_empty() && interner.sets.is_empty());
        assert!(interner.bytes() < held);
    }
}
