//! Decoded metrics: a table of series that is shared, and points as columns.
//!
//! The label set is the cost of a metric pipeline, so the series (resource, scope, metric and
//! attributes) are built once and shared behind an [`Arc`]; a poll adds only series number, times
//! and value. Histograms, exponential histograms and summaries ride in side lists.

use std::sync::Arc;

use crate::arena::Text;
use crate::common::{Attributes, Common};

/// The metric points of one batch.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// The series that the points belong to; may hold series without a point in this batch.
    pub table: Arc<SeriesTable>,
    /// Points of gauges and sums.
    pub numbers: Numbers,
    /// Points of histograms.
    pub histograms: Vec<HistogramPoint>,
    /// Points of exponential histograms.
    pub exponential: Vec<ExponentialPoint>,
    /// Points of summaries.
    pub summaries: Vec<SummaryPoint>,
    /// Exemplars, ordered by the point that they belong to.
    pub exemplars: Vec<Exemplar>,
}

/// Resources, scopes, metrics and series.
#[derive(Clone, Debug, Default)]
pub struct SeriesTable {
    /// Text, attributes, resources and scopes.
    pub common: Common,
    /// Metrics; the metrics of one scope are neighbours when decoded from the wire.
    pub metrics: Vec<Metric>,
    /// One per metric and attribute set.
    pub series: Vec<Series>,
}

/// What all series of one metric share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Index into [`Common::scopes`].
    pub scope: u32,
    /// Name, for example `system.cpu.time`.
    pub name: Text,
    /// What it measures, for people.
    pub description: Text,
    /// UCUM unit, for example `By`, `s`, `1`, `{process}`.
    pub unit: Text,
    /// Kind and temporality.
    pub data: Data,
    /// Attributes of the metric itself (OTLP `Metric.metadata`).
    pub metadata: Attributes,
}

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// A value that is sampled.
    Gauge,
    /// A value that adds up.
    Sum {
        /// Whether points count from a fixed start or since the last point.
        temporality: Temporality,
        /// Whether it only grows (a counter).
        monotonic: bool,
    },
    /// Explicit buckets.
    Histogram(Temporality),
    /// Exponential buckets.
    ExponentialHistogram(Temporality),
    /// Quantiles that the source computed.
    Summary,
}

/// OTLP `AggregationTemporality`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Temporality {
    /// Not said (0), or a number that the schema does not name.
    #[default]
    Unspecified,
    /// Since the last point.
    Delta,
    /// Since the start time.
    Cumulative,
}

/// One series: a metric and its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Series {
    /// Index into [`SeriesTable::metrics`].
    pub metric: u32,
    /// The attributes that tell it from its siblings.
    pub attributes: Attributes,
}

/// A number as the source sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Number {
    /// The point carries no value (with the "no recorded value" flag: the series ended).
    #[default]
    None,
    /// A signed integer.
    Int(i64),
    /// A double.
    Double(f64),
}

impl Number {
    /// As a double; `None` where there is no value.
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Number::None => None,
            // Values beyond 2^53 lose their last digits, as in every backend that stores doubles.
            Number::Int(value) => Some(value as f64),
            Number::Double(value) => Some(value),
        }
    }
}

/// The flag of a point that has no value: the series ended (OTLP `FLAG_NO_RECORDED_VALUE`).
pub const NO_RECORDED_VALUE: u32 = 1;

/// Points of gauges and sums, as columns of equal length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbers {
    /// Index into [`SeriesTable::series`].
    pub series: Vec<u32>,
    /// Start of the counting, unix nanoseconds; 0 = unknown.
    pub start_time_unix_nano: Vec<u64>,
    /// When it was measured, unix nanoseconds.
    pub time_unix_nano: Vec<u64>,
    /// The values.
    pub value: Vec<Number>,
    /// OTLP data point flags.
    pub flags: Vec<u32>,
}

/// One point of [`Numbers`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct NumberPoint {
    /// Index into [`SeriesTable::series`].
    pub series: u32,
    /// Start of the counting, unix nanoseconds; 0 = unknown.
    pub start_time_unix_nano: u64,
    /// When it was measured, unix nanoseconds.
    pub time_unix_nano: u64,
    /// The value.
    pub value: Number,
    /// OTLP data point flags.
    pub flags: u32,
}

impl Numbers {
    /// How many points.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// Adds a point.
    pub fn push(&mut self, point: NumberPoint) {
        self.series.push(point.series);
        self.start_time_unix_nano.push(point.start_time_unix_nano);
        self.time_unix_nano.push(point.time_unix_nano);
        self.value.push(point.value);
        self.flags.push(point.flags);
    }

    /// The point at an index.
    pub fn get(&self, at: usize) -> Option<NumberPoint> {
        Some(NumberPoint {
            series: *self.series.get(at)?,
            start_time_unix_nano: *self.start_time_unix_nano.get(at)?,
            time_unix_nano: *self.time_unix_nano.get(at)?,
            value: *self.value.get(at)?,
            flags: *self.flags.get(at)?,
        })
    }

    /// All points in order.
    pub fn iter(&self) -> impl Iterator<Item = NumberPoint> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

/// What points of every histogram share.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Index into [`SeriesTable::series`].
    pub series: u32,
    /// Start of the counting, unix nanoseconds; 0 = unknown.
    pub start_time_unix_nano: u64,
    /// When it was measured, unix nanoseconds.
    pub time_unix_nano: u64,
    /// OTLP data point flags.
    pub flags: u32,
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
}

/// A histogram point. Bucket `i` counts values in `(bounds[i-1], bounds[i]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistogramPoint {
    /// Series, times, count and sum.
    pub distribution: Distribution,
    /// Upper bounds, one fewer than buckets.
    pub explicit_bounds: Vec<f64>,
    /// Counts per bucket, not cumulative.
    pub bucket_counts: Vec<u64>,
}

/// An exponential histogram point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExponentialPoint {
    /// Series, times, count and sum.
    pub distribution: Distribution,
    /// Resolution: base = 2^(2^-scale).
    pub scale: i32,
    /// Values too near to zero for a bucket.
    pub zero_count: u64,
    /// Width of the zero bucket.
    pub zero_threshold: f64,
    /// Buckets of positive values; `None` where the sender sent none.
    pub positive: Option<Buckets>,
    /// Buckets of negative values.
    pub negative: Option<Buckets>,
}

/// Consecutive exponential buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Index of the first bucket.
    pub offset: i32,
    /// Counts.
    pub counts: Vec<u64>,
}

/// A summary point.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SummaryPoint {
    /// Index into [`SeriesTable::series`].
    pub series: u32,
    /// Start of the counting, unix nanoseconds; 0 = unknown.
    pub start_time_unix_nano: u64,
    /// When it was measured, unix nanoseconds.
    pub time_unix_nano: u64,
    /// OTLP data point flags.
    pub flags: u32,
    /// How many values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Pairs of quantile (0 to 1) and value.
    pub quantiles: Vec<(f64, f64)>,
}

/// The point that an exemplar belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PointRef {
    /// Index into [`Metrics::numbers`].
    Number(u32),
    /// Index into [`Metrics::histograms`].
    Histogram(u32),
    /// Index into [`Metrics::exponential`].
    Exponential(u32),
}

/// A sampled measurement behind a point. Its attributes lie in the batch's table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The point.
    pub point: PointRef,
    /// Attributes that were filtered from the series.
    pub filtered_attributes: Attributes,
    /// When it was measured, unix nanoseconds.
    pub time_unix_nano: u64,
    /// The value.
    pub value: Number,
    /// 8 bytes, or empty.
    pub span_id: Text,
    /// 16 bytes, or empty.
    pub trace_id: Text,
}

impl Metrics {
    /// How many points of all kinds.
    pub fn len(&self) -> usize {
        self.numbers.len() + self.histograms.len() + self.exponential.len() + self.summaries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The exemplars of a point.
    pub fn exemplars_of(&self, point: PointRef) -> &[Exemplar] {
        let start = self.exemplars.partition_point(|e| e.point < point);
        let end = self.exemplars.partition_point(|e| e.point <= point);
        self.exemplars.get(start..end).unwrap_or_default()
    }

    /// Bytes held in memory, the shared table included.
    pub fn size_bytes(&self) -> usize {
        let numbers = self.numbers.len() * (4 + 8 + 8 + size_of::<Number>() + 4);
        let histograms: usize = self
            .histograms
            .iter()
            .map(|h| size_of::<HistogramPoint>() + 8 * (h.explicit_bounds.len() + h.bucket_counts.len()))
            .sum();
        let buckets = |b: &Option<Buckets>| b.as_ref().map_or(0, |b| 8 * b.counts.len());
        let exponential: usize = self
            .exponential
            .iter()
            .map(|e| size_of::<ExponentialPoint>() + buckets(&e.positive) + buckets(&e.negative))
            .sum();
        let summaries: usize = self.summaries.iter().map(|s| size_of::<SummaryPoint>() + 16 * s.quantiles.len()).sum();
        self.table.size_bytes()
            + numbers
            + histograms
            + exponential
            + summaries
            + self.exemplars.len() * size_of::<Exemplar>()
    }
}

impl SeriesTable {
    /// The metric of a series.
    pub fn metric_of(&self, series: u32) -> Option<&Metric> {
        self.metrics.get(self.series.get(series as usize)?.metric as usize)
    }

    /// Bytes held in memory.
    pub fn size_bytes(&self) -> usize {
        self.common.size_bytes() + self.metrics.len() * size_of::<Metric>() + self.series.len() * size_of::<Series>()
    }
}
