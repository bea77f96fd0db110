//! Records as documents; the field names are described for people in the module above.

use jiff::Timestamp;
use serde::Serialize;
use weir_model::logs::{LogRecord, Logs};
use weir_model::metrics::{
    Buckets, Data, Distribution, ExponentialPoint, HistogramPoint, Metrics, NO_RECORDED_VALUE, Number, NumberPoint,
    SummaryPoint,
};
use weir_model::traces::{Span, Traces};
use weir_model::{Attributes, Value};

use super::labels::{self, Place, id};
use crate::readable::{self, Readable, rfc3339};

/// Why a record is no document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoDocument {
    /// It says nothing: the end of a series.
    Empty,
    /// It cannot be said.
    Refused(&'static str),
}

/// The members of a JSON object that is being written.
pub(super) struct Fields<'a> {
    out: &'a mut Vec<u8>,
    is_first: bool,
}

impl<'a> Fields<'a> {
    /// Members that are appended as they are; braces are the caller's.
    pub(super) fn continuing(out: &'a mut Vec<u8>) -> Self {
        Self { out, is_first: true }
    }

    fn comma(&mut self) {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(b',');
        }
    }

    fn name(&mut self, name: &str) {
        self.comma();
        self.value(name);
        self.out.push(b':');
    }

    fn value(&mut self, value: impl Serialize) {
        // Text and numbers always have a form, and memory takes everything.
        let _ = serde_json::to_writer(&mut *self.out, &value);
    }

    /// Members that were written before.
    pub(super) fn copied(&mut self, members: &[u8]) {
        if !members.is_empty() {
            self.comma();
            self.out.extend_from_slice(members);
        }
    }

    pub(super) fn json(&mut self, name: &str, value: impl Serialize) {
        self.name(name);
        self.value(value);
    }

    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.json(name, text);
    }

    pub(super) fn text_unless_empty(&mut self, name: &str, text: &str) {
        if !text.is_empty() {
            self.text(name, text);
        }
    }

    pub(super) fn raw(&mut self, name: &str, json: &str) {
        self.name(name);
        self.out.extend_from_slice(json.as_bytes());
    }

    pub(super) fn int(&mut self, name: &str, value: i64) {
        self.json(name, value);
    }

    /// A finite number.
    pub(super) fn double(&mut self, name: &str, value: f64) {
        self.json(name, value);
    }

    fn double_if_finite(&mut self, name: &str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.double(name, value);
        }
    }

    pub(super) fn object(&mut self, name: &str, write: impl FnOnce(&mut Fields<'_>)) {
        self.name(name);
        self.element_object(write);
    }

    fn element_object(&mut self, write: impl FnOnce(&mut Fields<'_>)) {
        self.out.push(b'{');
        write(&mut Fields { out: self.out, is_first: true });
        self.out.push(b'}');
    }

    pub(super) fn list<T>(
        &mut self,
        name: &str,
        elements: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Fields<'_>, T),
    ) {
        self.name(name);
        self.out.push(b'[');
        for (at, element) in elements.into_iter().enumerate() {
            if at > 0 {
                self.out.push(b',');
            }
            write(&mut Fields { out: self.out, is_first: true }, element);
        }
        self.out.push(b']');
    }

    pub(super) fn element_text(&mut self, text: &str) {
        self.value(text);
    }

    pub(super) fn element_int(&mut self, value: i64) {
        self.value(value);
    }

    pub(super) fn element_double(&mut self, value: f64) {
        self.value(value);
    }

    fn time_unless_unknown(&mut self, name: &str, unix_nano: u64) {
        if let Some(time) = rfc3339(unix_nano) {
            self.text(name, &time);
        }
    }
}

/// When a record happened, unix nanoseconds; 0 if it does not say.
pub(super) fn time_unix_nano(record: Readable<'_>) -> u64 {
    match record {
        Readable::Number(_, point) => point.time_unix_nano,
        Readable::Histogram(_, point) => point.distribution.time_unix_nano,
        Readable::Exponential(_, point) => point.distribution.time_unix_nano,
        Readable::Summary(_, point) => point.time_unix_nano,
        Readable::Log(_, record) if record.time_unix_nano == 0 => record.observed_time_unix_nano,
        Readable::Log(_, record) => record.time_unix_nano,
        Readable::Span(_, span) => span.start_time_unix_nano,
    }
}

/// The scope of a record.
pub(super) fn scope(record: Readable<'_>) -> u32 {
    let of_series =
        |metrics: &Metrics, series: u32| metrics.table.metric_of(series).map_or(u32::MAX, |metric| metric.scope);
    match record {
        Readable::Number(metrics, point) => of_series(metrics, point.series),
        Readable::Histogram(metrics, point) => of_series(metrics, point.distribution.series),
        Readable::Exponential(metrics, point) => of_series(metrics, point.distribution.series),
        Readable::Summary(metrics, point) => of_series(metrics, point.series),
        Readable::Log(_, record) => record.scope,
        Readable::Span(_, span) => span.scope,
    }
}

/// Appends a record as one line of JSON, without the line's end. `time` is its time, or that of the
/// request where it has none.
///
/// # Errors
/// Why there is no document; then nothing is appended.
pub(super) fn write(out: &mut Vec<u8>, record: Readable<'_>, time: Timestamp, place: &Place) -> Result<(), NoDocument> {
    sayable(record)?;
    out.push(b'{');
    let mut fields = Fields::continuing(out);
    fields.text("@timestamp", &time.to_string());
    match record {
        Readable::Number(metrics, point) => number(&mut fields, metrics, point, place),
        Readable::Histogram(metrics, point) => histogram(&mut fields, metrics, point, place),
        Readable::Exponential(metrics, point) => exponential(&mut fields, metrics, point, place),
        Readable::Summary(metrics, point) => summary(&mut fields, metrics, point, place),
        Readable::Log(logs, record) => log(&mut fields, logs, record, place),
        Readable::Span(traces, span) => self::span(&mut fields, traces, span, place),
    }
    out.push(b'}');
    Ok(())
}

fn sayable(record: Readable<'_>) -> Result<(), NoDocument> {
    let (flags, metrics, series, time) = match record {
        Readable::Number(metrics, point) => (point.flags, metrics, point.series, point.time_unix_nano),
        Readable::Histogram(metrics, HistogramPoint { distribution: own, .. })
        | Readable::Exponential(metrics, ExponentialPoint { distribution: own, .. }) => {
            (own.flags, metrics, own.series, own.time_unix_nano)
        }
        Readable::Summary(metrics, point) => (point.flags, metrics, point.series, point.time_unix_nano),
        Readable::Log(..) | Readable::Span(..) => return Ok(()),
    };
    if flags & NO_RECORDED_VALUE != 0 {
        return Err(NoDocument::Empty);
    }
    if metrics.table.metric_of(series).is_none() {
        return Err(NoDocument::Refused("the point belongs to no metric"));
    }
    if time == 0 {
        return Err(NoDocument::Refused("the point has no time"));
    }
    match record {
        Readable::Number(_, NumberPoint { value: Number::None, .. }) => Err(NoDocument::Empty),
        Readable::Number(_, NumberPoint { value: Number::Double(value), .. }) if !value.is_finite() => {
            Err(NoDocument::Refused("the value is NaN or infinite, which JSON has no form for"))
        }
        _ => Ok(()),
    }
}

/// The object `metric`, then what surrounds it.
fn metric(
    fields: &mut Fields<'_>,
    metrics: &Metrics,
    series: u32,
    start_time_unix_nano: u64,
    place: &Place,
    write: impl FnOnce(&mut Fields<'_>),
) {
    let Some(metric) = metrics.table.metric_of(series) else { return };
    let common = &metrics.table.common;
    fields.object("metric", |fields| {
        fields.text("name", common.text(metric.name));
        fields.text("type", readable::kind(metric.data));
        fields.text_unless_empty("unit", common.text(metric.unit));
        fields.text_unless_empty("temporality", readable::temporality(metric.data));
        write(fields);
        if !matches!(metric.data, Data::Gauge) {
            fields.time_unless_unknown("start_time", start_time_unix_nano);
        }
    });
    let attributes = metrics.table.series.get(series as usize).map_or(Attributes::EMPTY, |series| series.attributes);
    fields.copied(&place.fields);
    labels::write(fields, common, attributes, place);
}

fn number(fields: &mut Fields<'_>, metrics: &Metrics, point: NumberPoint, place: &Place) {
    metric(fields, metrics, point.series, point.start_time_unix_nano, place, |fields| match point.value {
        // An integer in the first document would make the field one, and cut what comes later: within
        // what a double holds exactly, integers are written as doubles.
        Number::Int(value) if value.unsigned_abs() <= 1 << 53 => fields.double("value", value as f64),
        Number::Int(value) => fields.int("value", value),
        Number::Double(value) => fields.double("value", value),
        Number::None => {}
    });
}

fn distribution(fields: &mut Fields<'_>, own: &Distribution) {
    fields.json("count", own.count);
    fields.double_if_finite("sum", own.sum);
    fields.double_if_finite("min", own.min);
    fields.double_if_finite("max", own.max);
}

fn histogram(fields: &mut Fields<'_>, metrics: &Metrics, point: &HistogramPoint, place: &Place) {
    let own = &point.distribution;
    metric(fields, metrics, own.series, own.start_time_unix_nano, place, |fields| {
        distribution(fields, own);
        let bounds: Vec<f64> = point.explicit_bounds.iter().copied().filter(|bound| bound.is_finite()).collect();
        fields.json("bounds", &bounds);
        fields.json("bucket_counts", &point.bucket_counts);
        values_and_counts(fields, &explicit_middles(point));
    });
}

/// The field type `histogram` of Elasticsearch: ascending values, and how often each came.
fn values_and_counts(fields: &mut Fields<'_>, buckets: &[(f64, u64)]) {
    let full = || buckets.iter().filter(|(value, count)| *count > 0 && value.is_finite());
    if full().next().is_none() {
        return;
    }
    fields.object("histogram", |fields| {
        fields.list("values", full(), |fields, (value, _)| fields.element_double(*value));
        fields.list("counts", full(), |fields, (_, count)| fields.value(*count));
    });
}

/// Every bucket at its middle; the first, which is open below, at half of its bound or at the bound
/// where that is not above zero, the last at its lower bound.
fn explicit_middles(point: &HistogramPoint) -> Vec<(f64, u64)> {
    let bounds = &point.explicit_bounds;
    let middle = |at: usize| match (at.checked_sub(1).and_then(|below| bounds.get(below)), bounds.get(at)) {
        (None, Some(upper)) if *upper > 0.0 => upper / 2.0,
        (None, Some(upper)) => *upper,
        (Some(lower), Some(upper)) => lower + (upper - lower) / 2.0,
        (Some(lower), None) => *lower,
        (None, None) => 0.0,
    };
    point.bucket_counts.iter().enumerate().map(|(at, count)| (middle(at), *count)).collect()
}

fn exponential(fields: &mut Fields<'_>, metrics: &Metrics, point: &ExponentialPoint, place: &Place) {
    let own = &point.distribution;
    metric(fields, metrics, own.series, own.start_time_unix_nano, place, |fields| {
        distribution(fields, own);
        fields.json("scale", point.scale);
        fields.json("zero_count", point.zero_count);
        values_and_counts(fields, &exponential_middles(point));
    });
}

/// Every bucket at its middle, in ascending order. Bucket `i` is `(base^i, base^(i+1)]` with
/// `base = 2^(2^-scale)`.
fn exponential_middles(point: &ExponentialPoint) -> Vec<(f64, u64)> {
    let exponent = |index: i64| (index as f64 * (-f64::from(point.scale)).exp2()).exp2();
    let side = |buckets: &Option<Buckets>, sign: f64| -> Vec<(f64, u64)> {
        let Some(buckets) = buckets else { return Vec::new() };
        let middle = |at: usize| {
            // A request holds far fewer buckets than 2^31.
            let index = i64::from(buckets.offset) + at as i64;
            sign * (exponent(index) + exponent(index + 1)) / 2.0
        };
        buckets.counts.iter().enumerate().map(|(at, count)| (middle(at), *count)).collect()
    };
    let mut all = side(&point.negative, -1.0);
    all.reverse();
    all.push((0.0, point.zero_count));
    all.extend(side(&point.positive, 1.0));
    all
}

fn summary(fields: &mut Fields<'_>, metrics: &Metrics, point: &SummaryPoint, place: &Place) {
    metric(fields, metrics, point.series, point.start_time_unix_nano, place, |fields| {
        fields.json("count", point.count);
        fields.double_if_finite("sum", Some(point.sum));
        let finite = point.quantiles.iter().filter(|(quantile, value)| quantile.is_finite() && value.is_finite());
        fields.list("quantiles", finite, |fields, (quantile, value)| {
            fields.element_object(|fields| {
                fields.double("quantile", *quantile);
                fields.double("value", *value);
            });
        });
    });
}

fn log(fields: &mut Fields<'_>, logs: &Logs, record: &LogRecord, place: &Place) {
    let common = &logs.common;
    if record.body != Value::Empty {
        fields.text("message", &common.value_text(record.body));
    }
    fields.text_unless_empty("log.level", &readable::severity(logs, record).to_lowercase());
    if record.severity_number != 0 {
        fields.int("event.severity", i64::from(record.severity_number));
    }
    fields.text_unless_empty("event.action", common.text(record.event_name));
    if record.time_unix_nano != 0 {
        fields.time_unless_unknown("event.created", record.observed_time_unix_nano);
    }
    id(fields, "trace.id", common, record.trace_id);
    id(fields, "span.id", common, record.span_id);
    fields.copied(&place.fields);
    labels::write(fields, common, record.attributes, place);
}

fn span(fields: &mut Fields<'_>, traces: &Traces, span: &Span, place: &Place) {
    let common = &traces.common;
    fields.text_unless_empty("span.name", common.text(span.name));
    fields.text_unless_empty("span.kind", readable::span_kind(span.kind));
    if span.start_time_unix_nano != 0
        && let Some(duration) = span.end_time_unix_nano.checked_sub(span.start_time_unix_nano)
    {
        fields.json("event.duration", duration);
    }
    let outcome = match readable::span_status(span) {
        "ok" => "success",
        "error" => "failure",
        _ => "unknown",
    };
    fields.text("event.outcome", outcome);
    fields.text_unless_empty("event.reason", span.status.map_or("", |status| common.text(status.message)));
    id(fields, "trace.id", common, span.trace_id);
    id(fields, "span.id", common, span.span_id);
    id(fields, "parent.id", common, span.parent_span_id);
    let (events, links) = (traces.events_of(span), traces.links_of(span));
    let none = Place::default();
    if !events.is_empty() {
        fields.list("span.events", events, |fields, event| {
            fields.element_object(|fields| {
                fields.time_unless_unknown("@timestamp", event.time_unix_nano);
                fields.text_unless_empty("name", common.text(event.name));
                labels::write(fields, common, event.attributes, &none);
            });
        });
    }
    if !links.is_empty() {
        fields.list("span.links", links, |fields, link| {
            fields.element_object(|fields| {
                id(fields, "trace.id", common, link.trace_id);
                id(fields, "span.id", common, link.span_id);
                labels::write(fields, common, link.attributes, &none);
            });
        });
    }
    fields.copied(&place.fields);
    labels::write(fields, common, span.attributes, place);
}
