//! Encoding metrics.

use bytes::Bytes;

use super::encode_common::{Containers, attributes};
use super::grouping::{Entry, List, data_of, group};
use super::writer::{End, Writer};
use crate::common::Attributes;
use crate::metrics::{
    Buckets, Data, Exemplar, ExponentialPoint, HistogramPoint, Metrics, Number, NumberPoint, PointRef, SummaryPoint,
};

/// Depths of messages, counted as in [`super::encode_common`].
pub(crate) const METRIC_DEPTH: u32 = 3;
pub(crate) const POINT_DEPTH: u32 = 5;

/// Encodes an `ExportMetricsServiceRequest`. Metrics without points are left out.
pub(crate) fn encode(metrics: &Metrics) -> Bytes {
    let common = &metrics.table.common;
    let entries = group(metrics);
    let mut out = Writer::with_capacity(96 * entries.len() + 64 * metrics.exemplars.len() + 256);
    let mut containers = Containers::new(common);
    for points in entries.chunk_by(Entry::same_metric).rev() {
        if let Some(first) = points.first() {
            containers.enter(&mut out, first.scope);
            metric(&mut out, metrics, first, points);
        }
    }
    containers.finish(&mut out);
    out.finish()
}

fn metric(out: &mut Writer, metrics: &Metrics, first: &Entry, points: &[Entry]) {
    let table = &metrics.table;
    let end = out.begin();
    let metric = table.metrics.get(first.metric as usize);
    if let Some(metric) = metric {
        attributes(out, &table.common, 12, metric.metadata, METRIC_DEPTH);
    }
    let data_end = out.begin();
    let field = match data_of(table, first) {
        Data::Gauge => 5,
        Data::Sum { temporality, monotonic } => {
            out.unsigned(3, u32::from(monotonic));
            out.signed(2, temporality.number());
            7
        }
        Data::Histogram(temporality) => {
            out.signed(2, temporality.number());
            9
        }
        Data::ExponentialHistogram(temporality) => {
            out.signed(2, temporality.number());
            10
        }
        Data::Summary => 11,
    };
    for entry in points.iter().rev() {
        point(out, metrics, entry);
    }
    out.message(field, data_end);
    if let Some(metric) = metric {
        out.bytes_unless_empty(3, table.common.arena.bytes(metric.unit));
        out.bytes_unless_empty(2, table.common.arena.bytes(metric.description));
        out.bytes_unless_empty(1, table.common.arena.bytes(metric.name));
    }
    out.message(2, end);
}

fn point(out: &mut Writer, metrics: &Metrics, entry: &Entry) {
    let (end, at) = (out.begin(), entry.point as usize);
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
    out.message(1, end);
}

fn series_attributes(out: &mut Writer, metrics: &Metrics, number: u32, series: u32) {
    let series = metrics.table.series.get(series as usize);
    let list = series.map_or(Attributes::EMPTY, |series| series.attributes);
    attributes(out, &metrics.table.common, number, list, POINT_DEPTH);
}

fn number(out: &mut Writer, metrics: &Metrics, point: &NumberPoint, at: u32) {
    out.unsigned(8, point.flags);
    series_attributes(out, metrics, 7, point.series);
    // As protobuf encoders do: ascending field numbers, though both are fields of one choice.
    if let Number::Int(value) = point.value {
        out.eight_bytes(6, value.to_le_bytes());
    }
    exemplars(out, metrics, 5, PointRef::Number(at));
    if let Number::Double(value) = point.value {
        out.eight_bytes(4, value.to_le_bytes());
    }
    out.fixed64(3, point.time_unix_nano);
    out.fixed64(2, point.start_time_unix_nano);
}

fn histogram(out: &mut Writer, metrics: &Metrics, point: &HistogramPoint, at: u32) {
    let distribution = &point.distribution;
    out.optional_double(12, distribution.max);
    out.optional_double(11, distribution.min);
    out.unsigned(10, distribution.flags);
    series_attributes(out, metrics, 9, distribution.series);
    exemplars(out, metrics, 8, PointRef::Histogram(at));
    out.packed_fixed64(7, &point.explicit_bounds, f64::to_le_bytes);
    out.packed_fixed64(6, &point.bucket_counts, u64::to_le_bytes);
    out.optional_double(5, distribution.sum);
    out.fixed64(4, distribution.count);
    out.fixed64(3, distribution.time_unix_nano);
    out.fixed64(2, distribution.start_time_unix_nano);
}

fn exponential(out: &mut Writer, metrics: &Metrics, point: &ExponentialPoint, at: u32) {
    let distribution = &point.distribution;
    out.double(14, point.zero_threshold);
    out.optional_double(13, distribution.max);
    out.optional_double(12, distribution.min);
    exemplars(out, metrics, 11, PointRef::Exponential(at));
    out.unsigned(10, distribution.flags);
    buckets(out, 9, point.negative.as_ref());
    buckets(out, 8, point.positive.as_ref());
    out.fixed64(7, point.zero_count);
    out.zigzag(6, point.scale);
    out.optional_double(5, distribution.sum);
    out.fixed64(4, distribution.count);
    out.fixed64(3, distribution.time_unix_nano);
    out.fixed64(2, distribution.start_time_unix_nano);
    series_attributes(out, metrics, 1, distribution.series);
}

fn buckets(out: &mut Writer, number: u32, buckets: Option<&Buckets>) {
    if let Some(buckets) = buckets {
        let end: End = out.begin();
        out.packed_varint(2, &buckets.counts);
        out.zigzag(1, buckets.offset);
        out.message(number, end);
    }
}

fn summary(out: &mut Writer, metrics: &Metrics, point: &SummaryPoint) {
    out.unsigned(8, point.flags);
    series_attributes(out, metrics, 7, point.series);
    for (quantile, value) in point.quantiles.iter().rev() {
        let end = out.begin();
        out.double(2, *value);
        out.double(1, *quantile);
        out.message(6, end);
    }
    out.double(5, point.sum);
    out.fixed64(4, point.count);
    out.fixed64(3, point.time_unix_nano);
    out.fixed64(2, point.start_time_unix_nano);
}

fn exemplars(out: &mut Writer, metrics: &Metrics, number: u32, point: PointRef) {
    if metrics.exemplars.is_empty() {
        return;
    }
    for one in metrics.exemplars_of(point).iter().rev() {
        let end = out.begin();
        exemplar(out, metrics, one);
        out.message(number, end);
    }
}

fn exemplar(out: &mut Writer, metrics: &Metrics, exemplar: &Exemplar) {
    let common = &metrics.table.common;
    attributes(out, common, 7, exemplar.filtered_attributes, POINT_DEPTH + 1);
    if let Number::Int(value) = exemplar.value {
        out.eight_bytes(6, value.to_le_bytes());
    }
    out.bytes_unless_empty(5, common.arena.bytes(exemplar.trace_id));
    out.bytes_unless_empty(4, common.arena.bytes(exemplar.span_id));
    if let Number::Double(value) = exemplar.value {
        out.eight_bytes(3, value.to_le_bytes());
    }
    out.fixed64(2, exemplar.time_unix_nano);
}
