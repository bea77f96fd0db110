//! Records as JSON objects that people and scripts read without knowing OTLP: one object per metric
//! point, log record or span. `webhook` sends them, `console` prints them.
//!
//! ```json
//! {"signal":"metric","name":"system.cpu.load_average.1m","unit":"{thread}","kind":"gauge","value":0.42,
//!  "time":"2025-01-07T12:03:10Z","attributes":{},"resource":{"host.name":"web-prod-01"},"scope":"host"}
//! ```
//!
//! Rules: a field without a value is left out. Times are RFC 3339 in UTC with up to nine digits of
//! fraction. NaN and infinities are the texts `NaN`, `Infinity` and `-Infinity`, as in OTLP/JSON,
//! because JSON has no such numbers. Ids and byte values are hexadecimal. What is left out for good
//! (exemplars, flags, descriptions, schema addresses, scope versions) is in `otlp_json`.

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap, Serializer};
use weir_model::metrics::{
    Buckets, Data, Distribution, ExponentialPoint, HistogramPoint, Metric, Metrics, SummaryPoint,
};
use weir_model::metrics::{Number, NumberPoint, Temporality};
use weir_model::{Attributes, Common, DecodeError, Records, Text, Value};
use weir_model::{logs::LogRecord, logs::Logs, traces::Span, traces::Traces};
use weir_pipeline::Delivery;

/// Every top-level field that an object can have, in the order in which they are written.
pub(crate) const FIELDS: [&str; 39] = [
    "signal",
    "name",
    "unit",
    "kind",
    "temporality",
    "value",
    "count",
    "sum",
    "min",
    "max",
    "bounds",
    "bucket_counts",
    "scale",
    "zero_count",
    "zero_threshold",
    "positive",
    "negative",
    "quantiles",
    "time",
    "start_time",
    "observed_time",
    "end_time",
    "duration_seconds",
    "severity",
    "severity_number",
    "body",
    "event_name",
    "status",
    "status_message",
    "trace_id",
    "span_id",
    "parent_span_id",
    "trace_state",
    "attributes",
    "events",
    "links",
    "resource",
    "scope",
    "dropped_attributes_count",
];

/// One record with what it needs to be read.
#[derive(Clone, Copy)]
pub(crate) enum Readable<'a> {
    /// A point of a gauge or sum.
    Number(&'a Metrics, NumberPoint),
    /// A point with explicit buckets.
    Histogram(&'a Metrics, &'a HistogramPoint),
    /// A point with exponential buckets.
    Exponential(&'a Metrics, &'a ExponentialPoint),
    /// A point with quantiles.
    Summary(&'a Metrics, &'a SummaryPoint),
    /// A log record.
    Log(&'a Logs, &'a LogRecord),
    /// A span.
    Span(&'a Traces, &'a Span),
}

/// The records of a delivery in the order in which the runner counts them.
///
/// # Errors
/// If a payload is not what its wire form claims to be.
pub(crate) fn decode(delivery: &Delivery) -> Result<Vec<&Records>, DecodeError> {
    delivery.payloads.iter().map(|payload| payload.records()).collect()
}

/// All records of decoded payloads.
pub(crate) fn all<'a>(decoded: &'a [&'a Records]) -> impl Iterator<Item = Readable<'a>> {
    decoded.iter().flat_map(|records| of(records))
}

/// All records of one payload.
pub(crate) fn of(records: &Records) -> Box<dyn Iterator<Item = Readable<'_>> + '_> {
    match records {
        Records::Metrics(metrics) => Box::new(
            (metrics.numbers.iter().map(move |point| Readable::Number(metrics, point)))
                .chain(metrics.histograms.iter().map(move |point| Readable::Histogram(metrics, point)))
                .chain(metrics.exponential.iter().map(move |point| Readable::Exponential(metrics, point)))
                .chain(metrics.summaries.iter().map(move |point| Readable::Summary(metrics, point))),
        ),
        Records::Logs(logs) => Box::new(logs.records.iter().map(move |record| Readable::Log(logs, record))),
        Records::Traces(traces) => Box::new(traces.spans.iter().map(move |span| Readable::Span(traces, span))),
    }
}

/// RFC 3339 in UTC; `None` for 0, which means unknown everywhere in the model.
pub(crate) fn rfc3339(unix_nano: u64) -> Option<String> {
    if unix_nano == 0 {
        return None;
    }
    // 2^64 ns end in the year 2554, far inside of what a timestamp holds.
    Timestamp::from_nanosecond(i128::from(unix_nano)).ok().map(|time| time.to_string())
}

/// The severity in one word: the short name of its range (OpenTelemetry logs data model), else the
/// source's own word.
pub(crate) fn severity<'a>(logs: &'a Logs, record: &LogRecord) -> &'a str {
    match record.severity_number {
        1..=4 => "TRACE",
        5..=8 => "DEBUG",
        9..=12 => "INFO",
        13..=16 => "WARN",
        17..=20 => "ERROR",
        21..=24 => "FATAL",
        _ => logs.common.text(record.severity_text),
    }
}

/// The kind of a metric in the words of OpenTelemetry's instruments.
pub(crate) fn kind(data: Data) -> &'static str {
    match data {
        Data::Gauge => "gauge",
        Data::Sum { monotonic: true, .. } => "counter",
        Data::Sum { monotonic: false, .. } => "updowncounter",
        Data::Histogram(_) => "histogram",
        Data::ExponentialHistogram(_) => "exponential_histogram",
        Data::Summary => "summary",
    }
}

pub(crate) fn temporality(data: Data) -> &'static str {
    match data {
        Data::Sum { temporality, .. } | Data::Histogram(temporality) | Data::ExponentialHistogram(temporality) => {
            match temporality {
                Temporality::Unspecified => "",
                Temporality::Delta => "delta",
                Temporality::Cumulative => "cumulative",
            }
        }
        Data::Gauge | Data::Summary => "",
    }
}

/// The kind of a span (OTLP `SpanKind`).
pub(crate) fn span_kind(kind: i32) -> &'static str {
    match kind {
        1 => "internal",
        2 => "server",
        3 => "client",
        4 => "producer",
        5 => "consumer",
        _ => "",
    }
}

/// How a span ended (OTLP `Status.code`); empty where nobody said.
pub(crate) fn span_status(span: &Span) -> &'static str {
    match span.status.map(|status| status.code) {
        Some(1) => "ok",
        Some(2) => "error",
        _ => "",
    }
}

/// How long a span took, in seconds; `None` where a time is missing or the end lies before the start.
pub(crate) fn span_seconds(span: &Span) -> Option<f64> {
    if span.start_time_unix_nano == 0 {
        return None;
    }
    let nanoseconds = span.end_time_unix_nano.checked_sub(span.start_time_unix_nano)?;
    Some(std::time::Duration::from_nanos(nanoseconds).as_secs_f64())
}

impl Serialize for Readable<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Object(serializer.serialize_map(None)?);
        match *self {
            Readable::Number(metrics, point) => {
                let Some(metric) = object.metric(metrics, point.series)? else { return object.0.end() };
                match point.value {
                    Number::Int(value) => object.0.serialize_entry("value", &value)?,
                    Number::Double(value) => object.0.serialize_entry("value", &Double(value))?,
                    Number::None => {}
                }
                object.times(point.time_unix_nano, point.start_time_unix_nano)?;
                object.series(metrics, point.series, metric)?;
            }
            Readable::Histogram(metrics, point) => {
                let Some(metric) = object.distribution(metrics, &point.distribution)? else { return object.0.end() };
                object.0.serialize_entry("bounds", &Doubles(&point.explicit_bounds))?;
                object.0.serialize_entry("bucket_counts", &point.bucket_counts)?;
                object.times(point.distribution.time_unix_nano, point.distribution.start_time_unix_nano)?;
                object.series(metrics, point.distribution.series, metric)?;
            }
            Readable::Exponential(metrics, point) => object.exponential(metrics, point)?,
            Readable::Summary(metrics, point) => {
                let Some(metric) = object.metric(metrics, point.series)? else { return object.0.end() };
                object.0.serialize_entry("count", &point.count)?;
                object.0.serialize_entry("sum", &Double(point.sum))?;
                object.0.serialize_entry("quantiles", &Quantiles(&point.quantiles))?;
                object.times(point.time_unix_nano, point.start_time_unix_nano)?;
                object.series(metrics, point.series, metric)?;
            }
            Readable::Log(logs, record) => object.log(logs, record)?,
            Readable::Span(traces, span) => object.span(traces, span)?,
        }
        object.0.end()
    }
}

/// An object that is being written.
struct Object<M>(M);

impl<M: SerializeMap> Object<M> {
    fn text(&mut self, key: &'static str, text: &str) -> Result<(), M::Error> {
        if text.is_empty() { Ok(()) } else { self.0.serialize_entry(key, text) }
    }

    fn time(&mut self, key: &'static str, unix_nano: u64) -> Result<(), M::Error> {
        rfc3339(unix_nano).map_or(Ok(()), |time| self.0.serialize_entry(key, &time))
    }

    fn times(&mut self, time: u64, start: u64) -> Result<(), M::Error> {
        self.time("time", time)?;
        self.time("start_time", start)
    }

    fn id(&mut self, key: &'static str, common: &Common, id: Text) -> Result<(), M::Error> {
        self.text(key, &hexadecimal(common.arena.bytes(id)))
    }

    fn double(&mut self, key: &'static str, value: Option<f64>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.0.serialize_entry(key, &Double(value)))
    }

    fn metric<'a>(&mut self, metrics: &'a Metrics, series: u32) -> Result<Option<&'a Metric>, M::Error> {
        self.0.serialize_entry("signal", "metric")?;
        let Some(metric) = metrics.table.metric_of(series) else { return Ok(None) };
        let common = &metrics.table.common;
        self.0.serialize_entry("name", common.text(metric.name))?;
        self.text("unit", common.text(metric.unit))?;
        self.0.serialize_entry("kind", kind(metric.data))?;
        self.text("temporality", temporality(metric.data))?;
        Ok(Some(metric))
    }

    fn distribution<'a>(&mut self, metrics: &'a Metrics, point: &Distribution) -> Result<Option<&'a Metric>, M::Error> {
        let metric = self.metric(metrics, point.series)?;
        self.0.serialize_entry("count", &point.count)?;
        self.double("sum", point.sum)?;
        self.double("min", point.min)?;
        self.double("max", point.max)?;
        Ok(metric)
    }

    fn exponential(&mut self, metrics: &Metrics, point: &ExponentialPoint) -> Result<(), M::Error> {
        let Some(metric) = self.distribution(metrics, &point.distribution)? else { return Ok(()) };
        self.0.serialize_entry("scale", &point.scale)?;
        self.0.serialize_entry("zero_count", &point.zero_count)?;
        self.0.serialize_entry("zero_threshold", &Double(point.zero_threshold))?;
        for (key, buckets) in [("positive", &point.positive), ("negative", &point.negative)] {
            if let Some(buckets) = buckets {
                self.0.serialize_entry(key, &BucketRange(buckets))?;
            }
        }
        self.times(point.distribution.time_unix_nano, point.distribution.start_time_unix_nano)?;
        self.series(metrics, point.distribution.series, metric)
    }

    fn series(&mut self, metrics: &Metrics, series: u32, metric: &Metric) -> Result<(), M::Error> {
        let attributes = metrics.table.series.get(series as usize).map_or(Attributes::EMPTY, |s| s.attributes);
        self.0.serialize_entry("attributes", &Pairs(&metrics.table.common, attributes))?;
        self.place(&metrics.table.common, metric.scope)
    }

    /// Resource and scope.
    fn place(&mut self, common: &Common, scope: u32) -> Result<(), M::Error> {
        let Some(scope) = common.scopes.get(scope as usize) else { return Ok(()) };
        let resource = common.resources.get(scope.resource as usize).map_or(Attributes::EMPTY, |r| r.attributes);
        self.0.serialize_entry("resource", &Pairs(common, resource))?;
        self.text("scope", common.text(scope.name))
    }

    fn dropped(&mut self, count: u32) -> Result<(), M::Error> {
        if count == 0 { Ok(()) } else { self.0.serialize_entry("dropped_attributes_count", &count) }
    }

    fn log(&mut self, logs: &Logs, record: &LogRecord) -> Result<(), M::Error> {
        let common = &logs.common;
        self.0.serialize_entry("signal", "log")?;
        self.time("time", record.time_unix_nano)?;
        self.time("observed_time", record.observed_time_unix_nano)?;
        self.text("severity", severity(logs, record))?;
        if record.severity_number != 0 {
            self.0.serialize_entry("severity_number", &record.severity_number)?;
        }
        if record.body != Value::Empty {
            self.0.serialize_entry("body", &Shown(common, record.body))?;
        }
        self.text("event_name", common.text(record.event_name))?;
        self.id("trace_id", common, record.trace_id)?;
        self.id("span_id", common, record.span_id)?;
        self.0.serialize_entry("attributes", &Pairs(common, record.attributes))?;
        self.place(common, record.scope)?;
        self.dropped(record.dropped_attributes_count)
    }

    fn span(&mut self, traces: &Traces, span: &Span) -> Result<(), M::Error> {
        let common = &traces.common;
        self.0.serialize_entry("signal", "span")?;
        self.text("name", common.text(span.name))?;
        self.text("kind", span_kind(span.kind))?;
        self.time("time", span.start_time_unix_nano)?;
        self.time("end_time", span.end_time_unix_nano)?;
        self.double("duration_seconds", span_seconds(span))?;
        self.text("status", span_status(span))?;
        self.text("status_message", span.status.map_or("", |status| common.text(status.message)))?;
        self.id("trace_id", common, span.trace_id)?;
        self.id("span_id", common, span.span_id)?;
        self.id("parent_span_id", common, span.parent_span_id)?;
        self.text("trace_state", common.text(span.trace_state))?;
        self.0.serialize_entry("attributes", &Pairs(common, span.attributes))?;
        if !traces.events_of(span).is_empty() {
            self.0.serialize_entry("events", &Events(traces, span))?;
        }
        if !traces.links_of(span).is_empty() {
            self.0.serialize_entry("links", &Links(traces, span))?;
        }
        self.place(common, span.scope)?;
        self.dropped(span.dropped_attributes_count)
    }
}

/// Lowercase hexadecimal, as OTLP/JSON writes ids.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A number that JSON may not know.
struct Double(f64);

impl Serialize for Double {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            value if value.is_nan() => serializer.serialize_str("NaN"),
            f64::INFINITY => serializer.serialize_str("Infinity"),
            f64::NEG_INFINITY => serializer.serialize_str("-Infinity"),
            value => serializer.serialize_f64(value),
        }
    }
}

struct Doubles<'a>(&'a [f64]);

impl Serialize for Doubles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|value| Double(*value)))
    }
}

struct Quantiles<'a>(&'a [(f64, f64)]);

impl Serialize for Quantiles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|(quantile, value)| Quantile(*quantile, *value)))
    }
}

struct Quantile(f64, f64);

impl Serialize for Quantile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("quantile", Double(self.0)), ("value", Double(self.1))])
    }
}

struct BucketRange<'a>(&'a Buckets);

impl Serialize for BucketRange<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(2))?;
        object.serialize_entry("offset", &self.0.offset)?;
        object.serialize_entry("counts", &self.0.counts)?;
        object.end()
    }
}

/// Attributes as an object.
struct Pairs<'a>(&'a Common, Attributes);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Pairs(common, attributes) = *self;
        let pairs = common.list(attributes).iter();
        serializer.collect_map(pairs.map(|pair| (common.text(pair.key), Shown(common, pair.value))))
    }
}

/// A value.
struct Shown<'a>(&'a Common, Value);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let common = self.0;
        match self.1 {
            Value::Empty => serializer.serialize_unit(),
            Value::String(text) => serializer.serialize_str(common.text(text)),
            Value::Bool(value) => serializer.serialize_bool(value),
            Value::Int(value) => serializer.serialize_i64(value),
            Value::Double(value) => Double(value).serialize(serializer),
            Value::Bytes(bytes) => serializer.serialize_str(&hexadecimal(common.arena.bytes(bytes))),
            Value::Array(range) => {
                serializer.collect_seq(common.elements(range).iter().map(|value| Shown(common, *value)))
            }
            Value::KeyValues(attributes) => Pairs(common, attributes).serialize(serializer),
        }
    }
}

struct Events<'a>(&'a Traces, &'a Span);

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.events_of(self.1).iter().map(|event| Event(&self.0.common, event)))
    }
}

struct Event<'a>(&'a Common, &'a weir_model::traces::Event);

impl Serialize for Event<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Object(serializer.serialize_map(None)?);
        object.text("name", self.0.text(self.1.name))?;
        object.time("time", self.1.time_unix_nano)?;
        object.0.serialize_entry("attributes", &Pairs(self.0, self.1.attributes))?;
        object.0.end()
    }
}

struct Links<'a>(&'a Traces, &'a Span);

impl Serialize for Links<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.links_of(self.1).iter().map(|link| Link(&self.0.common, link)))
    }
}

struct Link<'a>(&'a Common, &'a weir_model::traces::Link);

impl Serialize for Link<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = Object(serializer.serialize_map(None)?);
        object.id("trace_id", self.0, self.1.trace_id)?;
        object.id("span_id", self.0, self.1.span_id)?;
        object.0.serialize_entry("attributes", &Pairs(self.0, self.1.attributes))?;
        object.0.end()
    }
}
