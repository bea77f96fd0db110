//! How a collector makes metrics: series are built once and kept from poll to poll.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::arena::Text;
use crate::common::{Attributes, Common, Resource, Scope, Value, index};
use crate::metrics::{
    Data, Exemplar, HistogramPoint, Metric, Metrics, Number, NumberPoint, Numbers, PointRef, Series, SeriesTable,
    SummaryPoint, Temporality,
};

/// What a metric is: one entry of an integration's list of metrics, from which its page is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricDescription<'a> {
    /// Name, for example `system.cpu.time`.
    pub name: &'a str,
    /// UCUM unit, for example `s`.
    pub unit: &'a str,
    /// Kind.
    pub kind: Kind,
    /// What it measures, one sentence for people.
    pub help: &'a str,
}

/// A description, short enough for lists of constants.
pub const fn metric<'a>(name: &'a str, unit: &'a str, kind: Kind, help: &'a str) -> MetricDescription<'a> {
    MetricDescription { name, unit, kind, help }
}

/// The kind of a collected metric, in OpenTelemetry's words for instruments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that is sampled: cumulative only in the sense of "now".
    Gauge,
    /// Only grows until it resets: monotonic cumulative sum.
    Counter,
    /// Adds up over its attributes, may fall: non-monotonic cumulative sum.
    UpDownCounter,
    /// Cumulative explicit buckets.
    Histogram,
    /// Quantiles that the source computed.
    Summary,
}

impl Kind {
    /// The name that documentation shows.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::UpDownCounter => "updowncounter",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        }
    }

    fn data(self) -> Data {
        let temporality = Temporality::Cumulative;
        match self {
            Kind::Gauge => Data::Gauge,
            Kind::Counter => Data::Sum { temporality, monotonic: true },
            Kind::UpDownCounter => Data::Sum { temporality, monotonic: false },
            Kind::Histogram => Data::Histogram(temporality),
            Kind::Summary => Data::Summary,
        }
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Number::Double(value)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Number::Int(value)
    }
}

impl From<u64> for Number {
    /// OTLP has no unsigned integers: a counter beyond 2^63 goes on as a double.
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Number::Double(value as f64), Number::Int)
    }
}

/// A pair of label name and value.
pub type Label<'a> = (&'a str, &'a str);

/// A sampled measurement behind a point, its text borrowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampledMeasurement<'a> {
    /// Attributes that the series does not have.
    pub labels: &'a [Label<'a>],
    /// When it was measured, unix nanoseconds; 0 = the time of the poll.
    pub time_unix_nano: u64,
    /// The value.
    pub value: Number,
    /// 16 bytes, or empty.
    pub trace_id: &'a [u8],
    /// 8 bytes, or empty.
    pub span_id: &'a [u8],
}

/// Builds the metrics of one source, poll after poll.
///
/// A series that was seen before costs one look-up and no allocation. Series that did not appear
/// for a while are forgotten when the table holds more than twice what the last poll used.
#[derive(Debug)]
pub struct MetricsBuilder {
    scope_name: String,
    base: Vec<(String, String)>,
    table: Arc<SeriesTable>,
    resources: HashTable<(u64, u32)>,
    metrics: HashTable<(u64, u32)>,
    series: HashTable<(u64, u32)>,
    now: u64,
    start: u64,
    points: Metrics,
    resource: u32,
    used: usize,
    metadata: &'static [Label<'static>],
    last: Option<PointRef>,
    /// Text and attributes of this poll's exemplars. They differ from poll to poll, so they never
    /// enter the shared table.
    sampled: Common,
}

/// Tables smaller than this are never rebuilt.
const REBUILD_ABOVE_SERIES: usize = 1024;

impl MetricsBuilder {
    /// A builder whose metrics carry this scope name (the integration) and these resource attributes.
    pub fn new(scope_name: &str, resource: Vec<(String, String)>) -> Self {
        let mut builder = Self {
            scope_name: scope_name.to_owned(),
            base: resource,
            table: Arc::default(),
            resources: HashTable::new(),
            metrics: HashTable::new(),
            series: HashTable::new(),
            now: 0,
            start: 0,
            points: Metrics::default(),
            resource: 0,
            used: 0,
            metadata: &[],
            last: None,
            sampled: Common::default(),
        };
        builder.resource = builder.resource_index(&[]);
        builder
    }

    /// Starts a poll: points recorded from now on carry this time, and counters start at `start`
    /// (both unix nanoseconds; 0 = unknown start).
    pub fn begin(&mut self, now_unix_nano: u64, start_unix_nano: u64) {
        self.now = now_unix_nano;
        self.start = start_unix_nano;
        self.resource = self.resource_index(&[]);
        self.metadata = &[];
        let stale = self.series.len() > 2 * self.used.max(REBUILD_ABOVE_SERIES / 2);
        if stale && self.points.is_empty() {
            *self = Self::new(&std::mem::take(&mut self.scope_name), std::mem::take(&mut self.base));
            self.begin(now_unix_nano, start_unix_nano);
        }
    }

    /// The time of this poll, unix nanoseconds.
    pub fn now_unix_nano(&self) -> u64 {
        self.now
    }

    /// Records belong to the source's own resource plus these attributes from now on (a process, a
    /// scraped target). An empty list returns to the source's own.
    pub fn set_resource(&mut self, extra: &[Label<'_>]) {
        self.resource = self.resource_index(extra);
    }

    /// Metrics that are recorded for the first time from now on carry this metadata (OTLP
    /// `Metric.metadata`), until another is set or the next poll begins.
    pub fn set_metadata(&mut self, metadata: &'static [Label<'static>]) {
        self.metadata = metadata;
    }

    /// Records a point with the time of the poll.
    pub fn record(&mut self, metric: &MetricDescription<'_>, labels: &[Label<'_>], value: impl Into<Number>) {
        let start = if matches!(metric.kind, Kind::Counter) { self.start } else { 0 };
        let point = NumberPoint {
            start_time_unix_nano: start,
            time_unix_nano: self.now,
            value: value.into(),
            ..Default::default()
        };
        self.record_point(metric, labels, point);
    }

    /// Records a point with its own times and flags; its `series` is set here.
    pub fn record_point(&mut self, metric: &MetricDescription<'_>, labels: &[Label<'_>], point: NumberPoint) {
        let series = self.series_index(metric, labels);
        self.last = Some(PointRef::Number(index(self.points.numbers.len())));
        self.points.numbers.push(NumberPoint { series, ..point });
    }

    /// Records a histogram point; its series and, where zero, its time are set here.
    pub fn record_histogram(
        &mut self,
        metric: &MetricDescription<'_>,
        labels: &[Label<'_>],
        mut point: HistogramPoint,
    ) {
        point.distribution.series = self.series_index(metric, labels);
        if point.distribution.time_unix_nano == 0 {
            point.distribution.time_unix_nano = self.now;
        }
        self.last = Some(PointRef::Histogram(index(self.points.histograms.len())));
        self.points.histograms.push(point);
    }

    /// Records a summary point; its series and, where zero, its time are set here.
    pub fn record_summary(&mut self, metric: &MetricDescription<'_>, labels: &[Label<'_>], mut point: SummaryPoint) {
        point.series = self.series_index(metric, labels);
        if point.time_unix_nano == 0 {
            point.time_unix_nano = self.now;
        }
        self.last = None;
        self.points.summaries.push(point);
    }

    /// Adds an exemplar to the number or histogram point that was recorded last. Summaries have none.
    pub fn record_exemplar(&mut self, sampled: SampledMeasurement<'_>) {
        let Some(point) = self.last else { return };
        let filtered_attributes = self.sampled.add_texts(sampled.labels.iter().copied());
        let time_unix_nano = if sampled.time_unix_nano == 0 { self.now } else { sampled.time_unix_nano };
        let span_id = self.sampled.arena.add(sampled.span_id);
        let trace_id = self.sampled.arena.add(sampled.trace_id);
        let value = sampled.value;
        self.points.exemplars.push(Exemplar { point, filtered_attributes, time_unix_nano, value, span_id, trace_id });
    }

    /// How many points were recorded since the last [`MetricsBuilder::finish`].
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Forgets what was recorded since the last [`MetricsBuilder::finish`].
    pub fn discard(&mut self) {
        self.points = Metrics::default();
        self.sampled = Common::default();
        self.last = None;
    }

    /// The recorded points, sharing this builder's series.
    pub fn finish(&mut self) -> Metrics {
        self.used = self.points.len();
        let room = self.points.numbers.len();
        let mut points = std::mem::take(&mut self.points);
        points.table = self.table.clone();
        self.last = None;
        let sampled = std::mem::take(&mut self.sampled);
        if !points.exemplars.is_empty() {
            points.exemplars.sort_by_key(|exemplar| exemplar.point);
            move_exemplars(&mut points, &sampled);
        }
        self.points.numbers = Numbers {
            series: Vec::with_capacity(room),
            start_time_unix_nano: Vec::with_capacity(room),
            time_unix_nano: Vec::with_capacity(room),
            value: Vec::with_capacity(room),
            flags: Vec::with_capacity(room),
        };
        points
    }

    fn resource_index(&mut self, extra: &[Label<'_>]) -> u32 {
        let hash = hash_of(|state| extra.hash(state));
        let (table, base) = (&self.table, &self.base);
        let same = |&(_, at): &(u64, u32)| {
            let Some(resource) = table.common.resources.get(at as usize) else { return false };
            let own = table.common.list(resource.attributes).get(base.len()..).unwrap_or_default();
            own.len() == extra.len() && labels_equal(table, own, extra)
        };
        if let Some(&(_, at)) = self.resources.find(hash, same) {
            return at;
        }
        let table = Arc::make_mut(&mut self.table);
        let pairs = self.base.iter().map(|(k, v)| (k.as_str(), v.as_str())).chain(extra.iter().copied());
        let attributes = table.common.add_texts(pairs);
        let at = index(table.common.resources.len());
        table.common.resources.push(Resource { attributes, ..Resource::default() });
        let name = table.common.arena.add(self.scope_name.as_bytes());
        let version = table.common.arena.add(env!("CARGO_PKG_VERSION").as_bytes());
        table.common.scopes.push(Scope { resource: at, present: true, name, version, ..Scope::default() });
        self.resources.insert_unique(hash, (hash, at), |&(hash, _)| hash);
        at
    }

    fn metric_index(&mut self, metric: &MetricDescription<'_>) -> u32 {
        // One scope is made with every resource, so both have the same index.
        let scope = self.resource;
        let data = metric.kind.data();
        let hash = hash_of(|state| (scope, metric.name, metric.unit).hash(state));
        let table = &self.table;
        let same = |&(_, at): &(u64, u32)| {
            table.metrics.get(at as usize).is_some_and(|m| {
                m.scope == scope
                    && m.data == data
                    && table.common.text(m.name) == metric.name
                    && table.common.text(m.unit) == metric.unit
            })
        };
        if let Some(&(_, at)) = self.metrics.find(hash, same) {
            return at;
        }
        let table = Arc::make_mut(&mut self.table);
        let arena = &mut table.common.arena;
        let name = arena.add(metric.name.as_bytes());
        let unit = arena.add(metric.unit.as_bytes());
        let description = arena.add(metric.help.as_bytes());
        let metadata = if self.metadata.is_empty() {
            Attributes::EMPTY
        } else {
            table.common.add_texts(self.metadata.iter().copied())
        };
        let at = index(table.metrics.len());
        table.metrics.push(Metric { scope, name, description, unit, data, metadata });
        self.metrics.insert_unique(hash, (hash, at), |&(hash, _)| hash);
        at
    }

    fn series_index(&mut self, metric: &MetricDescription<'_>, labels: &[Label<'_>]) -> u32 {
        let metric = self.metric_index(metric);
        let hash = hash_of(|state| (metric, labels).hash(state));
        let table = &self.table;
        let same = |&(_, at): &(u64, u32)| {
            table.series.get(at as usize).is_some_and(|s| {
                s.metric == metric
                    && s.attributes.len() == labels.len()
                    && labels_equal(table, table.common.list(s.attributes), labels)
            })
        };
        if let Some(&(_, at)) = self.series.find(hash, same) {
            return at;
        }
        let table = Arc::make_mut(&mut self.table);
        let attributes = table.common.add_texts(labels.iter().copied());
        let at = index(table.series.len());
        table.series.push(Series { metric, attributes });
        self.series.insert_unique(hash, (hash, at), |&(hash, _)| hash);
        at
    }
}

/// Gives the exemplars of `points` their text in a table of their own, a copy of the shared one.
fn move_exemplars(points: &mut Metrics, sampled: &Common) {
    let table = Arc::make_mut(&mut points.table);
    let mut text = |from: Text| table.common.arena.add(sampled.arena.bytes(from));
    for exemplar in &mut points.exemplars {
        exemplar.span_id = text(exemplar.span_id);
        exemplar.trace_id = text(exemplar.trace_id);
    }
    for exemplar in &mut points.exemplars {
        let start = table.common.attributes.len();
        for attribute in sampled.list(exemplar.filtered_attributes) {
            let Value::String(value) = attribute.value else { continue };
            let key = table.common.arena.add(sampled.arena.bytes(attribute.key));
            let value = Value::String(table.common.arena.add(sampled.arena.bytes(value)));
            table.common.attributes.push(crate::common::Attribute { key, value });
        }
        exemplar.filtered_attributes = table.common.attributes_since(start);
    }
}

fn hash_of(feed: impl FnOnce(&mut <FixedState as BuildHasher>::Hasher)) -> u64 {
    // A fixed seed: label values of scraped targets could be chosen to collide, but the targets
    // are configured by the owner and their number of samples is limited.
    let mut state = FixedState::with_seed(0).build_hasher();
    feed(&mut state);
    state.finish()
}

fn labels_equal(table: &SeriesTable, own: &[crate::common::Attribute], labels: &[Label<'_>]) -> bool {
    own.iter().zip(labels).all(|(attribute, (key, value))| {
        let arena = &table.common.arena;
        arena.bytes(attribute.key) == key.as_bytes()
            && matches!(attribute.value, crate::common::Value::String(text) if arena.bytes(text) == value.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: MetricDescription<'static> =
        MetricDescription { name: "requests", unit: "{request}", kind: Kind::Counter, help: "Requests served." };

    fn builder() -> MetricsBuilder {
        MetricsBuilder::new("test", vec![("host.name".into(), "a".into())])
    }

    #[test]
    fn series_are_built_once_and_shared_by_later_polls() {
        let mut out = builder();
        out.begin(10, 1);
        out.record(&REQUESTS, &[("code", "200")], 1_u64);
        out.record(&REQUESTS, &[("code", "500")], 2_u64);
        let first = out.finish();
        out.begin(20, 1);
        out.record(&REQUESTS, &[("code", "500")], 3_u64);
        let second = out.finish();
        assert!(Arc::ptr_eq(&first.table, &second.table), "a known series must not copy the table");
        assert_eq!(first.numbers.series, [0, 1]);
        assert_eq!(second.numbers.series, [1]);
        assert_eq!(second.numbers.get(0).unwrap().time_unix_nano, 20);
        assert_eq!(second.table.metrics.len(), 1);
    }

    #[test]
    fn a_resource_of_its_own_keeps_equal_metrics_apart() {
        let mut out = builder();
        out.begin(10, 1);
        out.record(&REQUESTS, &[], 1_u64);
        out.set_resource(&[("process.pid", "7")]);
        out.record(&REQUESTS, &[], 2_u64);
        let metrics = out.finish();
        assert_eq!(metrics.table.series.len(), 2);
        assert_eq!(metrics.table.common.resources.len(), 2);
        let own = metrics.table.common.resources[1].attributes;
        assert!(metrics.table.common.find(own, "host.name").is_some(), "the base attributes stay");
        assert!(metrics.table.common.find(own, "process.pid").is_some());
    }

    #[test]
    fn series_that_no_longer_appear_are_forgotten() {
        let mut out = builder();
        for poll in 0..40_u64 {
            out.begin(poll, 1);
            for at in 0..100_u64 {
                out.record(&REQUESTS, &[("pod", &format!("{}", poll * 100 + at))], at);
            }
            assert!(out.finish().table.series.len() <= REBUILD_ABOVE_SERIES + 100);
        }
    }

    #[test]
    fn equal_names_with_different_units_are_different_metrics() {
        let mut out = builder();
        out.begin(10, 1);
        out.record(&REQUESTS, &[], 1_u64);
        out.record(&MetricDescription { unit: "By", ..REQUESTS }, &[], 1_u64);
        assert_eq!(out.finish().table.metrics.len(), 2);
    }

    #[test]
    fn metadata_is_set_on_the_metrics_of_one_poll() {
        let mut out = builder();
        out.begin(10, 1);
        out.set_metadata(&[("prometheus.type", "info")]);
        out.record(&REQUESTS, &[], 1_u64);
        out.begin(20, 1);
        out.record(&MetricDescription { name: "other", ..REQUESTS }, &[], 1_u64);
        let table = out.finish().table;
        assert!(table.common.find(table.metrics[0].metadata, "prometheus.type").is_some());
        assert!(table.metrics[1].metadata.is_empty(), "metadata must not leak into the next poll");
    }

    #[test]
    fn exemplars_stay_with_their_point_and_out_of_the_shared_table() {
        let mut out = builder();
        out.begin(10, 1);
        out.record(&REQUESTS, &[], 1_u64);
        let kept = out.finish().table;
        out.begin(20, 1);
        out.record_histogram(
            &MetricDescription { name: "h", kind: Kind::Histogram, ..REQUESTS },
            &[],
            HistogramPoint::default(),
        );
        out.record(&REQUESTS, &[], 2_u64);
        let sampled = SampledMeasurement {
            labels: &[("user", "a")],
            value: Number::Double(0.5),
            trace_id: &[7; 16],
            ..SampledMeasurement::default()
        };
        out.record_exemplar(sampled);
        let metrics = out.finish();
        let [exemplar] = metrics.exemplars_of(PointRef::Number(0)) else { panic!("one exemplar") };
        let common = &metrics.table.common;
        assert_eq!(common.arena.bytes(exemplar.trace_id), [7; 16]);
        assert!(common.find(exemplar.filtered_attributes, "user").is_some());
        assert_eq!(exemplar.time_unix_nano, 20);
        out.begin(30, 1);
        out.record(&REQUESTS, &[], 3_u64);
        let next = out.finish().table;
        assert!(next.common.arena.len() < common.arena.len() && kept.series.len() == 1);
    }
}
