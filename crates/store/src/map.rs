//! How OpenTelemetry's points become samples of series.
//!
//! A number is one sample. Distributions become the series that Prometheus has for them:
//! `name_bucket{le}` with counts that add up, `name_count`, `name_sum`; a summary
//! `name{quantile}`, `name_count`, `name_sum` (OpenTelemetry specification, "Prometheus and
//! OpenMetrics Compatibility"). Names stay OpenTelemetry's.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;
use weir_model::common::{Attributes, Common, Value};
use weir_model::metrics::{
    Buckets, Data, Distribution, ExponentialPoint, HistogramPoint, Metric, Metrics, NO_RECORDED_VALUE, NumberPoint,
    SummaryPoint, Temporality,
};

use crate::STALE_BITS;
use crate::labels::{LabelHasher, MetricKind, NAME, SCOPE_NAME};

/// Labels of one series hold at most so many bytes.
pub const LABEL_BYTES: usize = 256 << 10;

/// Units and descriptions are cut to so many bytes.
const DESCRIPTION_BYTES: usize = 1 << 10;

/// A pair of text that is borrowed where possible.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// A series as it came, not looked up yet.
#[derive(Debug)]
pub struct MappedSeries<'a> {
    /// Index into [`Mapped::scopes`].
    pub scope: usize,
    /// Its own labels, sorted.
    pub own: Vec<Pair<'a>>,
    /// Hash of all its labels.
    pub hash: u64,
    /// UCUM unit.
    pub unit: &'a str,
    /// Kind of number.
    pub kind: MetricKind,
    /// For people.
    pub description: &'a str,
}

/// Samples of series as they came.
#[derive(Debug, Default)]
pub struct Mapped<'a> {
    /// Labels that the series of a scope share, sorted.
    pub scopes: Vec<Vec<Pair<'a>>>,
    /// The series.
    pub series: Vec<MappedSeries<'a>>,
    /// Index of the series, unix milliseconds, bits of the value.
    pub samples: Vec<(usize, i64, u64)>,
    /// Points that cannot be stored: no name, no value, or labels beyond all measure.
    pub refused: u64,
    /// Points whose time is outside of the [`Window`].
    pub outside: u64,
}

/// The times that are stored, unix milliseconds. A clock that runs ahead by years would leave samples
/// behind that no retention removes.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// A point without time happened then.
    pub now_ms: i64,
    /// The oldest time that is kept.
    pub oldest_ms: i64,
    /// The newest time that is believed.
    pub newest_ms: i64,
}

/// The text of an attribute's value: bare, arrays and maps as JSON.
fn text(common: &Common, value: Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(common.text(text)),
        Value::Array(_) | Value::KeyValues(_) => Cow::Owned(json(common, value).to_string()),
        other => Cow::Owned(common.value_text(other)),
    }
}

fn json(common: &Common, value: Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Value::Empty => Json::Null,
        Value::Bool(value) => Json::Bool(value),
        Value::Int(value) => Json::from(value),
        // JSON has no infinities and no NaN.
        Value::Double(value) if value.is_finite() => Json::from(value),
        Value::Array(range) => common.elements(range).iter().map(|element| json(common, *element)).collect(),
        Value::KeyValues(range) => {
            let entry = |a: &weir_model::Attribute| (common.text(a.key).to_owned(), json(common, a.value));
            Json::Object(common.list(range).iter().map(entry).collect())
        }
        other => Json::String(common.value_text(other)),
    }
}

/// The beginning of a text for people.
fn limited(text: &str) -> &str {
    text.get(..text.floor_char_boundary(DESCRIPTION_BYTES)).unwrap_or(text)
}

/// A number as Prometheus writes it in `le` and `quantile`.
fn number_text(value: f64) -> String {
    if value == f64::INFINITY {
        return "+Inf".to_owned();
    }
    if value == f64::NEG_INFINITY {
        return "-Inf".to_owned();
    }
    let is_plain = value == 0.0 || (1e-6..1e21).contains(&value.abs());
    if is_plain { format!("{value}") } else { format!("{value:e}") }
}

/// Sorts, and leaves one of each key (the first that came) and none without value.
fn sorted(mut pairs: Vec<Pair<'_>>) -> Vec<Pair<'_>> {
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs.dedup_by(|later, kept| later.0 == kept.0);
    pairs.retain(|(_, value)| !value.is_empty());
    pairs
}

struct Mapper<'a> {
    metrics: &'a Metrics,
    common: &'a Common,
    hasher: &'a LabelHasher,
    window: Window,
    /// Hash of the shared labels of each scope.
    scope_hashes: Vec<u64>,
    /// Where series of numbers stand in the result; `None` if they cannot be stored.
    numbers: HashMap<u32, Option<usize>, RandomState>,
    out: Mapped<'a>,
}

/// Maps everything that happened inside of the window.
pub fn map<'a>(metrics: &'a Metrics, hasher: &'a LabelHasher, window: Window) -> Mapped<'a> {
    let common = &metrics.table.common;
    let mut mapper = Mapper {
        metrics,
        common,
        hasher,
        window,
        scope_hashes: Vec::new(),
        numbers: HashMap::default(),
        out: Mapped::default(),
    };
    for scope in &common.scopes {
        let resource = common.resources.get(scope.resource as usize);
        let attributes = resource.map_or(Attributes::EMPTY, |resource| resource.attributes);
        let mut pairs = vec![(Cow::Borrowed(SCOPE_NAME), Cow::Borrowed(common.text(scope.name)))];
        mapper.extend(&mut pairs, attributes);
        let shared = sorted(pairs);
        mapper.scope_hashes.push(hasher.all(shared.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))));
        mapper.out.scopes.push(shared);
    }
    metrics.numbers.iter().for_each(|point| mapper.number(point));
    metrics.histograms.iter().for_each(|point| mapper.histogram(point));
    metrics.exponential.iter().for_each(|point| mapper.exponential(point));
    metrics.summaries.iter().for_each(|point| mapper.summary(point));
    mapper.out
}

impl<'a> Mapper<'a> {
    fn extend(&self, pairs: &mut Vec<Pair<'a>>, attributes: Attributes) {
        let pair = |a: &weir_model::Attribute| (Cow::Borrowed(self.common.text(a.key)), text(self.common, a.value));
        pairs.extend(self.common.list(attributes).iter().map(pair));
    }

    /// The time of a point; `None`, counted, outside of the window.
    fn time_ms(&mut self, time_unix_nano: u64) -> Option<i64> {
        if time_unix_nano == 0 {
            return Some(self.window.now_ms);
        }
        let ms = i64::try_from(time_unix_nano / 1_000_000).unwrap_or(i64::MAX);
        let is_inside = (self.window.oldest_ms..=self.window.newest_ms).contains(&ms);
        self.out.outside += u64::from(!is_inside);
        is_inside.then_some(ms)
    }

    /// The metric and the attributes of a series.
    fn metric(&self, series: u32) -> Option<(&'a Metric, Attributes)> {
        let attributes = self.metrics.table.series.get(series as usize)?.attributes;
        let metric = self.metrics.table.metric_of(series)?;
        Some((metric, attributes)).filter(|(metric, _)| !metric.name.is_empty())
    }

    /// Adds a series of a metric: its name with a suffix, and one more label.
    fn series(
        &mut self,
        series: u32,
        suffix: &str,
        extra: Option<(&'static str, String)>,
        kind: MetricKind,
    ) -> Option<usize> {
        let (metric, attributes) = self.metric(series)?;
        let scope = metric.scope as usize;
        let shared = self.out.scopes.get(scope)?;
        let name = self.common.text(metric.name);
        let name = if suffix.is_empty() { Cow::Borrowed(name) } else { Cow::Owned(format!("{name}{suffix}")) };
        // What stands first wins over equal keys.
        let mut own = vec![(Cow::Borrowed(NAME), name)];
        own.extend(extra.map(|(key, value)| (Cow::Borrowed(key), Cow::Owned(value))));
        self.extend(&mut own, attributes);
        let own = sorted(own);
        let size = |pairs: &[Pair<'_>]| pairs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if size(shared) + size(&own) > LABEL_BYTES {
            return None;
        }
        let mut hash = *self.scope_hashes.get(scope)?;
        for (key, value) in &own {
            hash = hash.wrapping_add(self.hasher.pair(key, value));
            if let Ok(hidden) = shared.binary_search_by(|(shared, _)| shared.cmp(key)) {
                let hidden = shared.get(hidden)?;
                hash = hash.wrapping_sub(self.hasher.pair(&hidden.0, &hidden.1));
            }
        }
        let unit = match kind {
            MetricKind::HistogramBucket | MetricKind::HistogramCount | MetricKind::SummaryCount => "1",
            _ => limited(self.common.text(metric.unit)),
        };
        let description = limited(self.common.text(metric.description));
        self.out.series.push(MappedSeries { scope, own, hash, unit, kind, description });
        Some(self.out.series.len() - 1)
    }

    fn number(&mut self, point: NumberPoint) {
        let Some(time_ms) = self.time_ms(point.time_unix_nano) else { return };
        let value = match point.value.as_f64() {
            _ if point.flags & NO_RECORDED_VALUE != 0 => STALE_BITS,
            Some(value) => value.to_bits(),
            None => return self.out.refused += 1,
        };
        let series = match self.numbers.get(&point.series) {
            Some(known) => *known,
            None => {
                let kind = self.metric(point.series).map(|(metric, _)| match metric.data {
                    // A difference is no counter: what it means stands in the sample alone.
                    Data::Sum { temporality: Temporality::Delta, .. } => MetricKind::Gauge,
                    Data::Sum { monotonic: true, .. } => MetricKind::Counter,
                    Data::Sum { .. } => MetricKind::UpDownCounter,
                    _ => MetricKind::Gauge,
                });
                let new = kind.and_then(|kind| self.series(point.series, "", None, kind));
                self.numbers.insert(point.series, new);
                new
            }
        };
        match series {
            Some(series) => self.out.samples.push((series, time_ms, value)),
            None => self.out.refused += 1,
        }
    }

    /// Adds one sample of a part of a distribution.
    fn part(
        &mut self,
        (point, time_ms): (&Distribution, i64),
        (suffix, kind): (&str, MetricKind),
        extra: Option<(&'static str, String)>,
        value: f64,
    ) {
        let is_stale = point.flags & NO_RECORDED_VALUE != 0;
        let value = if is_stale { STALE_BITS } else { value.to_bits() };
        if let Some(series) = self.series(point.series, suffix, extra, kind) {
            self.out.samples.push((series, time_ms, value));
        }
    }

    /// Adds a distribution whose buckets are upper bounds with counts, not added up.
    fn distribution(&mut self, point: &Distribution, buckets: impl Iterator<Item = (f64, u64)>) {
        let Some(time_ms) = self.time_ms(point.time_unix_nano) else { return };
        let point = (point, time_ms);
        let before = self.out.samples.len();
        let mut sum = 0u64;
        for (bound, count) in buckets {
            sum = sum.saturating_add(count);
            self.bucket(point, bound, sum);
        }
        self.bucket(point, f64::INFINITY, point.0.count);
        self.part(point, ("_count", MetricKind::HistogramCount), None, point.0.count as f64);
        let is_stale = point.0.flags & NO_RECORDED_VALUE != 0;
        if let Some(sum) = point.0.sum.or(is_stale.then_some(0.0)) {
            self.part(point, ("_sum", MetricKind::HistogramSum), None, sum);
        }
        if self.out.samples.len() == before {
            self.out.refused += 1;
        }
    }

    fn bucket(&mut self, point: (&Distribution, i64), bound: f64, count: u64) {
        let le = Some(("le", number_text(bound)));
        self.part(point, ("_bucket", MetricKind::HistogramBucket), le, count as f64);
    }

    fn histogram(&mut self, point: &HistogramPoint) {
        let finite = point.explicit_bounds.iter().zip(&point.bucket_counts).filter(|(bound, _)| bound.is_finite());
        self.distribution(&point.distribution, finite.map(|(bound, count)| (*bound, *count)));
    }

    /// Buckets of values from the lowest to the highest; bucket `i` ends at base^(i+1).
    fn exponential(&mut self, point: &ExponentialPoint) {
        let bound = |index: i64| (index as f64 * (-f64::from(point.scale)).exp2()).exp2();
        let list = |side: &Option<Buckets>| -> Vec<(i64, u64)> {
            let Some(side) = side else { return Vec::new() };
            let offset = i64::from(side.offset);
            (offset..).zip(side.counts.iter().copied()).filter(|(_, count)| *count > 0).collect()
        };
        let mut all: Vec<(f64, u64)> =
            list(&point.negative).into_iter().rev().map(|(index, count)| (-bound(index), count)).collect();
        if point.zero_count > 0 {
            all.push((point.zero_threshold, point.zero_count));
        }
        all.extend(list(&point.positive).into_iter().map(|(index, count)| (bound(index + 1), count)));
        self.distribution(&point.distribution, all.into_iter().filter(|(bound, _)| bound.is_finite()));
    }

    fn summary(&mut self, point: &SummaryPoint) {
        let Some(time_ms) = self.time_ms(point.time_unix_nano) else { return };
        let before = self.out.samples.len();
        let shared = Distribution {
            series: point.series,
            time_unix_nano: point.time_unix_nano,
            flags: point.flags,
            ..Distribution::default()
        };
        for (quantile, value) in &point.quantiles {
            let extra = Some(("quantile", number_text(*quantile)));
            self.part((&shared, time_ms), ("", MetricKind::SummaryQuantile), extra, *value);
        }
        self.part((&shared, time_ms), ("_count", MetricKind::SummaryCount), None, point.count as f64);
        self.part((&shared, time_ms), ("_sum", MetricKind::SummarySum), None, point.sum);
        if self.out.samples.len() == before {
            self.out.refused += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_model::build::{Kind, MetricsBuilder, metric};
    use weir_model::common::Attribute;
    use weir_model::metrics::Number;

    use super::*;
    use crate::labels::merged;

    const NOW_MS: i64 = 1_700_000_000_000;
    const ALWAYS: Window = Window { now_ms: NOW_MS, oldest_ms: i64::MIN, newest_ms: i64::MAX };

    /// Every sample as `name{labels} value`, sorted, and the time where it is not 5 ms.
    fn mapped(metrics: &Metrics) -> Vec<String> {
        let hasher = LabelHasher::default();
        let mapped = map(metrics, &hasher, ALWAYS);
        let line = |(series, time, value): &(usize, i64, u64)| {
            let series = &mapped.series[*series];
            let shared = &mapped.scopes[series.scope];
            assert_eq!(series.hash, hasher.all(merged(shared, &series.own)));
            let mut labels: Vec<(&str, &str)> = merged(shared, &series.own).collect();
            let name = labels.remove(labels.iter().position(|(key, _)| *key == NAME).unwrap()).1;
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let time = if *time == 5 { String::new() } else { format!(" @{time}") };
            format!("{name}{{{}}} {}{time} {}", labels.join(","), f64::from_bits(*value), series.kind.name())
        };
        let mut lines: Vec<String> = mapped.samples.iter().map(line).collect();
        lines.sort();
        lines
    }

    fn builder() -> MetricsBuilder {
        let mut builder = MetricsBuilder::new("", vec![("host".to_owned(), "a".to_owned())]);
        builder.begin(5_999_999, 0);
        builder
    }

    #[test]
    fn numbers_keep_name_value_and_time_and_tell_their_kind() {
        let mut builder = builder();
        builder.record(&metric("g", "1", Kind::Gauge, ""), &[("cpu", "0")], 1.5);
        builder.record(&metric("c", "1", Kind::Counter, ""), &[], 7i64);
        builder.record(&metric("u", "1", Kind::UpDownCounter, ""), &[], -7i64);
        assert_eq!(
            mapped(&builder.finish()),
            ["c{host=a} 7 counter", "g{cpu=0,host=a} 1.5 gauge", "u{host=a} -7 updowncounter"]
        );
    }

    #[test]
    fn a_points_attribute_wins_over_its_resource_and_empty_ones_are_left_out() {
        let mut builder = MetricsBuilder::new("scope", vec![("host".to_owned(), "a".to_owned())]);
        builder.begin(5_000_000, 0);
        builder.record(&metric("g", "1", Kind::Gauge, ""), &[("host", "b"), ("zone", ""), (NAME, "forged")], 1.0);
        assert_eq!(mapped(&builder.finish()), ["g{host=b,otel.scope.name=scope} 1 gauge"]);
    }

    #[test]
    fn a_histogram_becomes_buckets_that_add_up_count_and_sum() {
        let mut builder = builder();
        let distribution = Distribution { count: 6, sum: Some(9.5), ..Default::default() };
        let point = HistogramPoint { distribution, explicit_bounds: vec![0.5, 10.0], bucket_counts: vec![1, 2, 3] };
        builder.record_histogram(&metric("h", "s", Kind::Histogram, ""), &[("le", "forged")], point);
        let expected = [
            "h_bucket{host=a,le=+Inf} 6 histogram_bucket",
            "h_bucket{host=a,le=0.5} 1 histogram_bucket",
            "h_bucket{host=a,le=10} 3 histogram_bucket",
            "h_count{host=a,le=forged} 6 histogram_count",
            "h_sum{host=a,le=forged} 9.5 histogram_sum",
        ];
        assert_eq!(mapped(&builder.finish()), expected);
    }

    #[test]
    fn an_exponential_histogram_becomes_its_populated_buckets() {
        let mut builder = builder();
        builder.record(&metric("e", "s", Kind::Gauge, ""), &[], 0.0);
        let mut metrics = builder.finish();
        metrics.numbers = Default::default();
        let distribution = Distribution { time_unix_nano: 5_000_000, count: 10, sum: None, ..Default::default() };
        // Scale 0: base 2. Positive (1,2] and (4,8]; negative [-4,-2).
        metrics.exponential.push(ExponentialPoint {
            distribution,
            scale: 0,
            zero_count: 1,
            zero_threshold: 0.25,
            positive: Some(Buckets { offset: 0, counts: vec![2, 0, 3] }),
            negative: Some(Buckets { offset: 1, counts: vec![4] }),
        });
        let expected = [
            "e_bucket{host=a,le=+Inf} 10 histogram_bucket",
            "e_bucket{host=a,le=-2} 4 histogram_bucket",
            "e_bucket{host=a,le=0.25} 5 histogram_bucket",
            "e_bucket{host=a,le=2} 7 histogram_bucket",
            "e_bucket{host=a,le=8} 10 histogram_bucket",
            "e_count{host=a} 10 histogram_count",
        ];
        assert_eq!(mapped(&metrics), expected);
    }

    #[test]
    fn a_summary_becomes_quantiles_count_and_sum() {
        let mut builder = builder();
        let point = SummaryPoint { count: 3, sum: 4.5, quantiles: vec![(0.5, 1.0), (0.99, 2.0)], ..Default::default() };
        builder.record_summary(&metric("s", "s", Kind::Summary, ""), &[], point);
        let expected = [
            "s_count{host=a} 3 summary_count",
            "s_sum{host=a} 4.5 summary_sum",
            "s{host=a,quantile=0.5} 1 summary_quantile",
            "s{host=a,quantile=0.99} 2 summary_quantile",
        ];
        assert_eq!(mapped(&builder.finish()), expected);
    }

    #[test]
    fn a_point_without_time_happened_now_and_one_without_value_ends_its_series_or_is_refused() {
        let mut builder = builder();
        let gauge = metric("g", "1", Kind::Gauge, "");
        builder.record_point(&gauge, &[], NumberPoint { value: Number::Double(1.0), ..Default::default() });
        let end = NumberPoint { flags: NO_RECORDED_VALUE, time_unix_nano: 6_000_000, ..Default::default() };
        builder.record_point(&gauge, &[], end);
        builder.record_point(&gauge, &[], NumberPoint::default());
        builder.record(&metric("", "1", Kind::Gauge, ""), &[], 1.0);
        builder.record(&gauge, &[("huge", &"x".repeat(LABEL_BYTES))], 1.0);
        let metrics = builder.finish();
        let hasher = LabelHasher::default();
        let mapped = map(&metrics, &hasher, ALWAYS);
        assert_eq!(mapped.samples, [(0, NOW_MS, 1.0f64.to_bits()), (0, 6, STALE_BITS)]);
        assert_eq!(mapped.refused, 3);
    }

    #[test]
    fn values_of_every_type_become_text_and_nested_ones_json() {
        let mut builder = builder();
        builder.record(&metric("g", "1", Kind::Gauge, &"ä".repeat(2000)), &[], 1.0);
        let mut metrics = builder.finish();
        let common = &mut Arc::make_mut(&mut metrics.table).common;
        let (text, key) = (common.arena.add("t\"x".as_bytes()), common.arena.add(b"k"));
        let start = common.values.len();
        common.values.extend([Value::Int(1), Value::Bool(true), Value::String(text), Value::Double(f64::NAN)]);
        let array = Value::Array(common.values_since(start));
        let start = common.attributes.len();
        common.attributes.push(Attribute { key, value: array });
        let map_value = Value::KeyValues(common.attributes_since(start));
        let start = common.attributes.len();
        for (name, value) in
            [("a", Value::Int(-3)), ("b", Value::Bool(false)), ("c", Value::Double(0.5)), ("d", map_value)]
        {
            let key = common.arena.add(name.as_bytes());
            common.attributes.push(Attribute { key, value });
        }
        let attributes = common.attributes_since(start);
        Arc::make_mut(&mut metrics.table).series[0].attributes = attributes;
        let line = "g{a=-3,b=false,c=0.5,d={\"k\":[1,true,\"t\\\"x\",\"NaN\"]},host=a} 1 gauge";
        assert_eq!(mapped(&metrics), [line]);
        let hasher = LabelHasher::default();
        assert_eq!(map(&metrics, &hasher, ALWAYS).series[0].description.len(), DESCRIPTION_BYTES);
    }
}
