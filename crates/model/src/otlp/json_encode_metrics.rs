//! Encoding metrics as OTLP/JSON.

use super::encode_metrics::{METRIC_DEPTH, POINT_DEPTH};
use super::grouping::{Entry, List, data_of, group};
use super::json_decode_common::METRICS_KEYS;
use super::json_encode_common::{JsonContainers, attributes};
use super::json_writer::JsonWriter;
use crate::common::Attributes;
use crate::metrics::{
    Buckets, Data, Distribution, Exemplar, ExponentialPoint, HistogramPoint, Metrics, Number, NumberPoint, PointRef,
    SummaryPoint, Temporality,
};

/// Encodes an `ExportMetricsServiceRequest`. Metrics without points are left out.
pub(crate) fn encode(metrics: &Metrics) -> Vec<u8> {
    let common = &metrics.table.common;
    let entries = group(metrics);
    let mut out = JsonWriter::with_capacity(256 * entries.len() + 256);
    let mut containers = JsonContainers::new(&mut out, common, &METRICS_KEYS);
    for points in entries.chunk_by(Entry::same_metric) {
        if let Some(first) = points.first() {
            containers.enter(&mut out, first.scope);
            metric(&mut out, metrics, first, points);
        }
    }
    containers.finish(&mut out);
    out.finish()
}

fn metric(out: &mut JsonWriter, metrics: &Metrics, first: &Entry, points: &[Entry]) {
    let table = &metrics.table;
    out.open(b'{');
    if let Some(metric) = table.metrics.get(first.metric as usize) {
        out.text("name", table.common.text(metric.name));
        out.text("description", table.common.text(metric.description));
        out.text("unit", table.common.text(metric.unit));
        attributes(out, &table.common, "metadata", metric.metadata, METRIC_DEPTH);
    }
    let (key, temporality, monotonic) = match data_of(table, first) {
        Data::Gauge => ("gauge", Temporality::Unspecified, false),
        Data::Sum { temporality, monotonic } => ("sum", temporality, monotonic),
        Data::Histogram(temporality) => ("histogram", temporality, false),
        Data::ExponentialHistogram(temporality) => ("exponentialHistogram", temporality, false),
        Data::Summary => ("summary", Temporality::Unspecified, false),
    };
    out.object(key);
    out.array("dataPoints");
    for entry in points {
        out.open(b'{');
        point(out, metrics, entry);
        out.close(b'}');
    }
    out.close(b']');
    out.number("aggregationTemporality", temporality.number().into());
    if monotonic {
        out.bool("isMonotonic", true);
    }
    out.close(b'}');
    out.close(b'}');
}

fn point(out: &mut JsonWriter, metrics: &Metrics, entry: &Entry) {
    let at = entry.point as usize;
    match entry.list {
        List::Numbers => {
            if let Some(point) = metrics.numbers.get(at) {
                number(out, metrics, &point, entry.point);
            }
        }
        List::Histograms => {
            if let Some(point) = metrics.histograms.get(at) {
                histogram(out, metrics, point, entry.point);
            }
        }
        List::Exponential => {
            if let Some(point) = metrics.exponential.get(at) {
                exponential(out, metrics, point, entry.point);
            }
        }
        List::Summaries => {
            if let Some(point) = metrics.summaries.get(at) {
                summary(out, metrics, point);
            }
        }
    }
}

fn series_attributes(out: &mut JsonWriter, metrics: &Metrics, series: u32) {
    let series = metrics.table.series.get(series as usize);
    let list = series.map_or(Attributes::EMPTY, |series| series.attributes);
    attributes(out, &metrics.table.common, "attributes", list, POINT_DEPTH);
}

fn number(out: &mut JsonWriter, metrics: &Metrics, point: &NumberPoint, at: u32) {
    series_attributes(out, metrics, point.series);
    out.long("startTimeUnixNano", point.start_time_unix_nano);
    out.long("timeUnixNano", point.time_unix_nano);
    number_value(out, point.value);
    exemplars(out, metrics, PointRef::Number(at));
    out.number("flags", point.flags.into());
}

fn number_value(out: &mut JsonWriter, value: Number) {
    match value {
        Number::None => {}
        Number::Int(value) => out.signed_long("asInt", value),
        Number::Double(value) => out.present_double("asDouble", value),
    }
}

fn distribution(out: &mut JsonWriter, metrics: &Metrics, point: &Distribution) {
    series_attributes(out, metrics, point.series);
    out.long("startTimeUnixNano", point.start_time_unix_nano);
    out.long("timeUnixNano", point.time_unix_nano);
    out.long("count", point.count);
    for (key, value) in [("sum", point.sum), ("min", point.min), ("max", point.max)] {
        if let Some(value) = value {
            out.present_double(key, value);
        }
    }
    out.number("flags", point.flags.into());
}

fn histogram(out: &mut JsonWriter, metrics: &Metrics, point: &HistogramPoint, at: u32) {
    distribution(out, metrics, &point.distribution);
    longs(out, "bucketCounts", &point.bucket_counts);
    if !point.explicit_bounds.is_empty() {
        out.array("explicitBounds");
        point.explicit_bounds.iter().for_each(|bound| out.double_value(*bound));
        out.close(b']');
    }
    exemplars(out, metrics, PointRef::Histogram(at));
}

fn exponential(out: &mut JsonWriter, metrics: &Metrics, point: &ExponentialPoint, at: u32) {
    distribution(out, metrics, &point.distribution);
    out.number("scale", point.scale.into());
    out.long("zeroCount", point.zero_count);
    buckets(out, "positive", point.positive.as_ref());
    buckets(out, "negative", point.negative.as_ref());
    exemplars(out, metrics, PointRef::Exponential(at));
    out.double("zeroThreshold", point.zero_threshold);
}

fn buckets(out: &mut JsonWriter, key: &'static str, buckets: Option<&Buckets>) {
    if let Some(buckets) = buckets {
        out.object(key);
        out.number("offset", buckets.offset.into());
        longs(out, "bucketCounts", &buckets.counts);
        out.close(b'}');
    }
}

fn longs(out: &mut JsonWriter, key: &'static str, values: &[u64]) {
    if !values.is_empty() {
        out.array(key);
        values.iter().for_each(|value| out.long_value(*value));
        out.close(b']');
    }
}

fn summary(out: &mut JsonWriter, metrics: &Metrics, point: &SummaryPoint) {
    series_attributes(out, metrics, point.series);
    out.long("startTimeUnixNano", point.start_time_unix_nano);
    out.long("timeUnixNano", point.time_unix_nano);
    out.long("count", point.count);
    out.double("sum", point.sum);
    if !point.quantiles.is_empty() {
        out.array("quantileValues");
        for (quantile, value) in &point.quantiles {
            out.open(b'{');
            out.double("quantile", *quantile);
            out.double("value", *value);
            out.close(b'}');
        }
        out.close(b']');
    }
    out.number("flags", point.flags.into());
}

fn exemplars(out: &mut JsonWriter, metrics: &Metrics, point: PointRef) {
    let exemplars = metrics.exemplars_of(point);
    if !exemplars.is_empty() {
        out.array("exemplars");
        for one in exemplars {
            out.open(b'{');
            exemplar(out, metrics, one);
            out.close(b'}');
        }
        out.close(b']');
    }
}

fn exemplar(out: &mut JsonWriter, metrics: &Metrics, exemplar: &Exemplar) {
    let common = &metrics.table.common;
    attributes(out, common, "filteredAttributes", exemplar.filtered_attributes, POINT_DEPTH + 1);
    out.long("timeUnixNano", exemplar.time_unix_nano);
    number_value(out, exemplar.value);
    out.id("spanId", common.arena.bytes(exemplar.span_id));
    out.id("traceId", common.arena.bytes(exemplar.trace_id));
}
