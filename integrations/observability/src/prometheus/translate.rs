//! Points of a delivery as Prometheus' series.

use std::borrow::Cow;
use std::sync::Arc;

use weir_model::common::{Attribute, Attributes, Value};
use weir_model::exposition::PROMETHEUS_TYPE;
use weir_model::metrics::{
    Data, Distribution, Exemplar, ExponentialPoint, HistogramPoint, Metrics, NO_RECORDED_VALUE, Number, PointRef,
    SeriesTable, SummaryPoint, Temporality,
};

use super::names::{float_text, label_name, metric_name, plain_metric_name, unit_words};
use super::native::{NativeHistogram, native};
use super::series::{ExemplarRow, Family, HistogramRow, LabelRef, MetricType, STALE, SampleRow, SeriesSet, number};
use super::target::{Announced, Identity, Rules, TargetInfos};

/// OpenMetrics 1.0: names and values of an exemplar's labels together.
const EXEMPLAR_CHARACTERS: usize = 128;

/// What is known of a metric.
struct MetricPlan {
    name: String,
    family: u32,
    scope: usize,
    refused: Option<&'static str>,
    is_cumulative: bool,
}

/// What is known of one series table, which several payloads may share.
struct TablePlan {
    table: Arc<SeriesTable>,
    metrics: Vec<Option<Arc<MetricPlan>>>,
    scopes: Vec<Option<Arc<Identity>>>,
    /// The series of number points.
    numbers: Vec<Option<u32>>,
}

/// Builds the series of one delivery.
pub(super) struct Translation<'a> {
    pub set: SeriesSet,
    rules: &'a Rules,
    plans: Vec<TablePlan>,
    name_symbol: u32,
    /// Position of the next record in the delivery.
    record: u32,
    row: Vec<LabelRef>,
}

/// Times of a point.
#[derive(Clone, Copy)]
struct Times {
    time_ms: i64,
    start_ms: i64,
    is_stale: bool,
}

fn milliseconds(unix_nano: u64) -> i64 {
    // 2^64 nanoseconds are fewer than 2^63 milliseconds.
    i64::try_from(unix_nano / 1_000_000).unwrap_or(i64::MAX)
}

impl Times {
    fn of(start_unix_nano: u64, time_unix_nano: u64, flags: u32) -> Self {
        let (time_ms, start_ms) = (milliseconds(time_unix_nano), milliseconds(start_unix_nano));
        let start_ms = if start_ms < time_ms { start_ms } else { 0 };
        Self { time_ms, start_ms, is_stale: flags & NO_RECORDED_VALUE != 0 }
    }

    fn of_distribution(point: &Distribution) -> Self {
        Self::of(point.start_time_unix_nano, point.time_unix_nano, point.flags)
    }
}

impl<'a> Translation<'a> {
    pub fn new(rules: &'a Rules) -> Self {
        let mut set = SeriesSet::default();
        let name_symbol = set.symbols.add("__name__");
        Self { set, rules, plans: Vec::new(), name_symbol, record: 0, row: Vec::new() }
    }

    /// Adds the points of a payload. Records count in the order of [`weir_model::Records::len`].
    pub fn add(&mut self, metrics: &Metrics) {
        let known = self.plans.iter().position(|plan| Arc::ptr_eq(&plan.table, &metrics.table));
        let mut plan = match known {
            Some(at) => self.plans.swap_remove(at),
            None => TablePlan::new(&metrics.table),
        };
        for (at, point) in metrics.numbers.iter().enumerate() {
            let record = self.next_record();
            let times = Times::of(point.start_time_unix_nano, point.time_unix_nano, point.flags);
            let Some(metric) = self.metric(&mut plan, point.series, times, record) else { continue };
            let value = match (times.is_stale, point.value) {
                (true, _) => STALE,
                (false, Number::None) => {
                    self.set.refuse(record, "the point has no value");
                    continue;
                }
                (false, number) => number.as_f64().unwrap_or(STALE),
            };
            let series = match plan.numbers.get(point.series as usize).copied().flatten() {
                Some(series) => series,
                None => {
                    let series = self.plain_series(&plan, &metric, point.series, "", None);
                    if let Some(known) = plan.numbers.get_mut(point.series as usize) {
                        *known = Some(series);
                    }
                    series
                }
            };
            let start_ms = if metric.is_cumulative { times.start_ms } else { 0 };
            self.set.push_sample(SampleRow { series, time_ms: times.time_ms, value, start_ms, record });
            self.exemplars(metrics, PointRef::Number(number(at)), |_, _| series);
        }
        for (at, point) in metrics.histograms.iter().enumerate() {
            self.histogram(&mut plan, metrics, at, point);
        }
        for (at, point) in metrics.exponential.iter().enumerate() {
            self.exponential(&mut plan, metrics, at, point);
        }
        for point in &metrics.summaries {
            self.summary(&mut plan, point);
        }
        self.plans.push(plan);
    }

    /// The series in order, with `target_info` where it is time for it.
    pub fn finish(mut self, infos: &TargetInfos) -> (SeriesSet, Announced) {
        let identities = self.plans.iter().flat_map(|plan| plan.scopes.iter().flatten());
        let announced = infos.announce(identities.map(Arc::as_ref), &mut self.set);
        self.set.finish();
        (self.set, announced)
    }

    fn next_record(&mut self) -> u32 {
        let record = self.record;
        self.record = self.record.saturating_add(1);
        record
    }

    /// What is known of a point's metric; `None` if the point cannot be sent, which is noted.
    fn metric(&mut self, plan: &mut TablePlan, series: u32, times: Times, record: u32) -> Option<Arc<MetricPlan>> {
        let Some(at) = plan.table.series.get(series as usize).map(|series| series.metric as usize) else {
            self.set.refuse(record, "the point belongs to no series");
            return None;
        };
        let known = plan.metrics.get(at).and_then(Clone::clone);
        let metric = match known {
            Some(metric) => metric,
            None => {
                let metric = Arc::new(self.plan_metric(plan, at)?);
                if let Some(place) = plan.metrics.get_mut(at) {
                    *place = Some(metric.clone());
                }
                metric
            }
        };
        let why = if times.time_ms == 0 { Some("the point has no time") } else { metric.refused };
        if let Some(why) = why {
            self.set.refuse(record, why);
            return None;
        }
        if let Some(identity) = plan.scopes.get(metric.scope).and_then(Option::as_ref) {
            identity.saw(times.time_ms);
        }
        Some(metric)
    }

    fn plan_metric(&mut self, plan: &mut TablePlan, at: usize) -> Option<MetricPlan> {
        let table = plan.table.clone();
        let common = &table.common;
        let metric = table.metrics.get(at)?;
        let scope = metric.scope as usize;
        if let Some(place) = plan.scopes.get_mut(scope)
            && place.is_none()
        {
            *place = Some(Arc::new(self.rules.identity(common, scope, &mut self.set)));
        }
        let declared = common.find(metric.metadata, PROMETHEUS_TYPE).map(|value| common.value_text(value));
        let (name, unit) = (common.text(metric.name), common.text(metric.unit));
        let (full, unit) = match &declared {
            Some(_) => (plain_metric_name(name).into_owned(), Cow::Borrowed(unit)),
            None => (metric_name(name, unit, metric.data), Cow::Owned(unit_words(unit))),
        };
        let (kind, temporality) = kind_of(metric.data, declared.as_deref());
        let is_cumulative = temporality == Some(Temporality::Cumulative);
        let refused = match temporality {
            _ if full.is_empty() => Some("the metric has no name"),
            Some(Temporality::Delta) => Some("Prometheus takes no deltas"),
            Some(Temporality::Unspecified) => Some("the metric does not say whether it is cumulative"),
            _ => None,
        };
        let symbols = &mut self.set.symbols;
        let family = Family {
            name: symbols.add(&full),
            kind,
            help: symbols.add(common.text(metric.description)),
            unit: symbols.add(&unit),
        };
        let family = self.set.family(family);
        Some(MetricPlan { name: full, family, scope, refused, is_cumulative })
    }

    /// The series of a point, its name with a suffix. The name of the extra label is taken from the
    /// point's attributes; the label is added where it has a value.
    fn plain_series(
        &mut self,
        plan: &TablePlan,
        metric: &MetricPlan,
        series: u32,
        suffix: &str,
        extra: Option<(&str, &str)>,
    ) -> u32 {
        let attributes = plan.table.series.get(series as usize).map_or(Attributes::EMPTY, |series| series.attributes);
        let identity = plan.scopes.get(metric.scope).and_then(Option::as_ref);
        let mut row = std::mem::take(&mut self.row);
        self.labels_of(&plan.table, attributes, &mut row);
        let inherited = identity.map(|identity| identity.labels.as_slice()).unwrap_or_default();
        for &label in inherited {
            if !row.iter().any(|own| own.0 == label.0) {
                row.push(label);
            }
        }
        if let Some((name, value)) = extra {
            let (name, value) = (self.set.symbols.add(name), self.set.symbols.add(value));
            if let Some(at) = row.iter().position(|own| own.0 == name) {
                let exported = format!("exported_{}", self.set.symbols.text(name));
                let exported = self.set.symbols.add(&exported);
                if let Some(own) = row.get_mut(at) {
                    own.0 = exported;
                }
            }
            if value != 0 {
                row.push((name, value));
            }
        }
        let full = if suffix.is_empty() {
            self.set.symbols.add(&metric.name)
        } else {
            self.set.symbols.add(&format!("{}{suffix}", metric.name))
        };
        row.push((self.name_symbol, full));
        self.set.sort(&mut row);
        let found = self.set.series(&row, metric.family);
        self.row = row;
        found
    }

    /// Attributes as labels. Where several keys become one name, their values are joined with `;`
    /// in the order of the keys. A label without a value is no label.
    fn labels_of(&mut self, table: &SeriesTable, attributes: Attributes, row: &mut Vec<LabelRef>) {
        row.clear();
        let common = &table.common;
        let mut list: Cow<'_, [Attribute]> = Cow::Borrowed(common.list(attributes));
        let key = |attribute: &Attribute| common.text(attribute.key);
        if !list.is_sorted_by_key(key) {
            list.to_mut().sort_by_key(|attribute| common.text(attribute.key));
        }
        for attribute in list.iter() {
            let value = match attribute.value {
                Value::String(text) => Cow::Borrowed(common.text(text)),
                other => Cow::Owned(common.value_text(other)),
            };
            if value.is_empty() || key(attribute).is_empty() {
                continue;
            }
            let name = self.set.symbols.add(&label_name(key(attribute)));
            let value = self.set.symbols.add(&value);
            match row.iter().position(|own| own.0 == name) {
                None => row.push((name, value)),
                Some(at) => {
                    let symbols = &mut self.set.symbols;
                    let before = row.get(at).map_or(0, |own| own.1);
                    let joined = format!("{};{}", symbols.text(before), symbols.text(value));
                    let joined = symbols.add(&joined);
                    if let Some(own) = row.get_mut(at) {
                        own.1 = joined;
                    }
                }
            }
        }
    }

    fn histogram(&mut self, plan: &mut TablePlan, metrics: &Metrics, at: usize, point: &HistogramPoint) {
        let record = self.next_record();
        let own = &point.distribution;
        let times = Times::of_distribution(own);
        let Some(metric) = self.metric(plan, own.series, times, record) else { return };
        let buckets = point.bucket_counts.len();
        if buckets != 0 && buckets != point.explicit_bounds.len() + 1 {
            return self.set.refuse(record, "the histogram has not one bucket more than bounds");
        }
        let sample = |this: &mut Self, suffix: &str, bound: &str, value: f64| {
            let series = this.plain_series(plan, &metric, own.series, suffix, Some(("le", bound)));
            let value = if times.is_stale { STALE } else { value };
            let Times { time_ms, start_ms, .. } = times;
            this.set.push_sample(SampleRow { series, time_ms, value, start_ms, record });
            series
        };
        let mut series = Vec::with_capacity(buckets + 1);
        let mut cumulative = 0_u64;
        for (bound, count) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
            cumulative = cumulative.saturating_add(*count);
            series.push(sample(self, "_bucket", &float_text(*bound), cumulative as f64));
        }
        series.push(sample(self, "_bucket", "+Inf", own.count as f64));
        if let Some(sum) = own.sum {
            sample(self, "_sum", "", sum);
        }
        sample(self, "_count", "", own.count as f64);
        let last = series.last().copied().unwrap_or(0);
        self.exemplars(metrics, PointRef::Histogram(number(at)), |_, value| {
            let bucket = point.explicit_bounds.iter().position(|bound| value <= *bound);
            bucket.and_then(|bucket| series.get(bucket)).copied().unwrap_or(last)
        });
    }

    fn exponential(&mut self, plan: &mut TablePlan, metrics: &Metrics, at: usize, point: &ExponentialPoint) {
        let record = self.next_record();
        let own = &point.distribution;
        let times = Times::of_distribution(own);
        let Some(metric) = self.metric(plan, own.series, times, record) else { return };
        let histogram = if times.is_stale {
            // How Prometheus itself marks the end of a native histogram.
            NativeHistogram { sum: STALE, ..NativeHistogram::default() }
        } else {
            match native(point) {
                Ok(histogram) => histogram,
                Err(why) => return self.set.refuse(record, why),
            }
        };
        let series = self.plain_series(plan, &metric, own.series, "", None);
        let Times { time_ms, start_ms, .. } = times;
        self.set.histograms.push(HistogramRow { series, time_ms, start_ms, record, histogram });
        self.exemplars(metrics, PointRef::Exponential(number(at)), |_, _| series);
    }

    fn summary(&mut self, plan: &mut TablePlan, point: &SummaryPoint) {
        let record = self.next_record();
        let times = Times::of(point.start_time_unix_nano, point.time_unix_nano, point.flags);
        let Some(metric) = self.metric(plan, point.series, times, record) else { return };
        let sample = |this: &mut Self, suffix: &str, quantile: &str, value: f64| {
            let series = this.plain_series(plan, &metric, point.series, suffix, Some(("quantile", quantile)));
            let value = if times.is_stale { STALE } else { value };
            // A quantile has no start: it is no count.
            let start_ms = if quantile.is_empty() { times.start_ms } else { 0 };
            this.set.push_sample(SampleRow { series, time_ms: times.time_ms, value, start_ms, record });
        };
        for (quantile, value) in &point.quantiles {
            sample(self, "", &float_text(*quantile), *value);
        }
        sample(self, "_sum", "", point.sum);
        sample(self, "_count", "", point.count as f64);
    }

    fn exemplars(&mut self, metrics: &Metrics, point: PointRef, series_of: impl Fn(&Exemplar, f64) -> u32) {
        for exemplar in metrics.exemplars_of(point) {
            let Some(value) = exemplar.value.as_f64() else { continue };
            let mut labels = self.exemplar_labels(&metrics.table, exemplar);
            self.set.sort(&mut labels);
            let labels = self.set.push_labels(&labels);
            let time_ms = milliseconds(exemplar.time_unix_nano);
            self.set.exemplars.push(ExemplarRow { series: series_of(exemplar, value), time_ms, value, labels });
        }
    }

    /// The ids first, then other attributes as long as they fit.
    fn exemplar_labels(&mut self, table: &SeriesTable, exemplar: &Exemplar) -> Vec<LabelRef> {
        let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let arena = &table.common.arena;
        let mut pairs = vec![
            (Cow::Borrowed("trace_id"), hexadecimal(arena.bytes(exemplar.trace_id))),
            (Cow::Borrowed("span_id"), hexadecimal(arena.bytes(exemplar.span_id))),
        ];
        for attribute in table.common.list(exemplar.filtered_attributes) {
            pairs.push((label_name(table.common.text(attribute.key)), table.common.value_text(attribute.value)));
        }
        let (mut labels, mut left): (Vec<LabelRef>, _) = (Vec::new(), EXEMPLAR_CHARACTERS);
        for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
            let length = name.chars().count() + value.chars().count();
            let name = self.set.symbols.add(name);
            if length <= left && !labels.iter().any(|own| own.0 == name) {
                left -= length;
                labels.push((name, self.set.symbols.add(value)));
            }
        }
        labels
    }
}

impl TablePlan {
    fn new(table: &Arc<SeriesTable>) -> Self {
        Self {
            table: table.clone(),
            metrics: vec![None; table.metrics.len()],
            scopes: vec![None; table.common.scopes.len()],
            numbers: vec![None; table.series.len()],
        }
    }
}

/// The type for people, and the temporality of what has one.
fn kind_of(data: Data, declared: Option<&str>) -> (MetricType, Option<Temporality>) {
    let (kind, temporality) = match data {
        Data::Gauge => (MetricType::Gauge, None),
        Data::Sum { temporality, monotonic: true } => (MetricType::Counter, Some(temporality)),
        Data::Sum { temporality, monotonic: false } => (MetricType::Gauge, Some(temporality)),
        Data::Histogram(temporality) | Data::ExponentialHistogram(temporality) => {
            (MetricType::Histogram, Some(temporality))
        }
        Data::Summary => (MetricType::Summary, None),
    };
    let kind = match declared {
        Some("unknown") => MetricType::Unknown,
        Some("info") => MetricType::Info,
        Some("stateset") => MetricType::StateSet,
        Some("gaugehistogram") => MetricType::GaugeHistogram,
        _ => kind,
    };
    (kind, temporality)
}
