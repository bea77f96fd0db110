//! Points as lines (InfluxDB, "Line protocol", which both versions share).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use weir_model::metrics::{
    Buckets, Data, Distribution, ExponentialPoint, HistogramPoint, Metrics, NO_RECORDED_VALUE, Number, NumberPoint,
    SummaryPoint,
};
use weir_model::{Attributes, Value};
use weir_pipeline::Delivery;

use super::Precision;
use crate::readable::{self, Readable};

/// The scope's name as a tag, as OpenTelemetry's exporters to InfluxDB call it.
const SCOPE_TAG: &str = "otel.library.name";
/// Names that tags cannot have.
const RESERVED_TAGS: [&str; 3] = ["time", "_field", "_measurement"];

/// How lines are written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Form {
    pub(super) precision: Precision,
    /// Whether whole numbers are integers.
    pub(super) integers: bool,
}

/// One line of a request.
#[derive(Clone, Debug)]
struct Line {
    /// Position of its record in the delivery.
    record: u32,
    /// Where it stands, without its end.
    text: Range<usize>,
    /// As it was sent, in the unit of the request.
    time: u64,
}

/// The lines of a delivery.
#[derive(Debug, Default)]
pub(super) struct Lines {
    body: Bytes,
    lines: Vec<Line>,
    /// Records that have no line, and why.
    pub(super) refused: Vec<(u32, String)>,
    /// Records of the delivery.
    pub(super) records: u32,
}

impl Lines {
    /// # Errors
    /// If a payload cannot be decoded.
    pub(super) fn of(delivery: &Delivery, form: Form) -> Result<Self, String> {
        let decoded = readable::decode(delivery).map_err(|error| format!("the records cannot be read: {error}"))?;
        let (mut own, mut body) = (Self::default(), String::new());
        for record in readable::all(&decoded) {
            let start = body.len();
            match write(&mut body, record, form) {
                Ok(Some(time)) => {
                    own.lines.push(Line { record: own.records, text: start..body.len(), time });
                    body.push('\n');
                }
                Ok(None) => body.truncate(start),
                Err(why) => {
                    body.truncate(start);
                    own.refused.push((own.records, why.to_owned()));
                }
            }
            own.records = own.records.saturating_add(1);
        }
        own.body = body.into();
        Ok(own)
    }

    pub(super) fn body(&self) -> &Bytes {
        &self.body
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The records of all lines.
    pub(super) fn positions(&self) -> impl Iterator<Item = u32> + '_ {
        self.lines.iter().map(|line| line.record)
    }

    /// Records and lines.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &str)> + '_ {
        self.lines.iter().map(|line| {
            let text = self.body.get(line.text.clone()).unwrap_or_default();
            (line.record, std::str::from_utf8(text).unwrap_or_default())
        })
    }

    /// The records of a measurement.
    pub(super) fn of_measurement(&self, name: &str) -> Vec<u32> {
        let mut start = String::new();
        measurement(&mut start, name);
        let is_of = |line: &str| line.strip_prefix(start.as_str()).is_some_and(|rest| rest.starts_with([',', ' ']));
        self.iter().filter(|(_, line)| is_of(line)).map(|(record, _)| record).collect()
    }

    /// The records with the oldest times.
    pub(super) fn oldest(&self, count: usize) -> Vec<u32> {
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        lines.sort_by_key(|line| line.time);
        lines.into_iter().take(count).map(|line| line.record).collect()
    }
}

/// Writes a record as a line without its end and gives its time; `None` if it says nothing (the end
/// of a series).
///
/// # Errors
/// Why it has no form.
fn write(out: &mut String, record: Readable<'_>, form: Form) -> Result<Option<u64>, &'static str> {
    let (metrics, series, unix_nano, flags) = match record {
        Readable::Number(metrics, point) => (metrics, point.series, point.time_unix_nano, point.flags),
        Readable::Histogram(metrics, HistogramPoint { distribution: own, .. })
        | Readable::Exponential(metrics, ExponentialPoint { distribution: own, .. }) => {
            (metrics, own.series, own.time_unix_nano, own.flags)
        }
        Readable::Summary(metrics, point) => (metrics, point.series, point.time_unix_nano, point.flags),
        Readable::Log(..) | Readable::Span(..) => return Err("InfluxDB gets metrics only"),
    };
    if flags & NO_RECORDED_VALUE != 0 {
        return Ok(None);
    }
    let metric = metrics.table.metric_of(series).ok_or("the point belongs to no metric")?;
    let name = metrics.table.common.text(metric.name);
    if name.is_empty() {
        return Err("the metric has no name");
    }
    if name.starts_with('#') {
        return Err("a name that begins with `#` would make the line a comment");
    }
    // The largest time of InfluxDB is that of a signed 64-bit integer.
    if unix_nano == 0 || i64::try_from(unix_nano).is_err() {
        return Err("the point has no time, or one beyond the year 2262");
    }
    measurement(out, name);
    tags(out, metrics, series, metric.scope);
    out.push(' ');
    let mut fields = Fields { start: out.len(), out, integers: form.integers };
    match record {
        Readable::Number(_, NumberPoint { value: Number::None, .. }) => return Ok(None),
        Readable::Number(_, point) => fields.number(field_of(metric.data), point.value),
        Readable::Histogram(_, point) => fields.histogram(point),
        Readable::Exponential(_, point) => fields.exponential(point),
        Readable::Summary(_, point) => fields.summary(point),
        Readable::Log(..) | Readable::Span(..) => {}
    }
    if fields.is_empty() {
        return Err("its value is NaN or infinite, which line protocol has no form for");
    }
    let time = unix_nano / form.precision.nanoseconds();
    put(out, format_args!(" {time}"));
    Ok(Some(time))
}

/// Writing into a String cannot fail.
fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

fn field_of(data: Data) -> &'static str {
    match data {
        Data::Sum { monotonic: true, .. } => "counter",
        _ => "gauge",
    }
}

/// In measurements `,` and space are escaped.
fn measurement(out: &mut String, name: &str) {
    escape(out, name, &[',', ' ']);
}

/// In the names and values of tags and in the names of fields `,`, `=` and space are escaped.
fn key(out: &mut String, text: &str) {
    escape(out, text, &[',', '=', ' ']);
}

/// There is no escape for a backslash: before what follows a tag it would escape that, so it is left
/// out there, as Telegraf does. Nor is there one for the end of a line.
fn escape(out: &mut String, text: &str, special: &[char]) {
    for character in text.trim_end_matches('\\').chars() {
        match character {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            character => {
                if special.contains(&character) {
                    out.push('\\');
                }
                out.push(character);
            }
        }
    }
}

/// The attributes of the point, then those of its resource and its scope, sorted, each name once.
fn tags(out: &mut String, metrics: &Metrics, series: u32, scope: u32) {
    let common = &metrics.table.common;
    let own = metrics.table.series.get(series as usize).map_or(Attributes::EMPTY, |series| series.attributes);
    let scope = common.scopes.get(scope as usize).copied().unwrap_or_default();
    let resource = common.resources.get(scope.resource as usize).map_or(Attributes::EMPTY, |r| r.attributes);
    let mut tags: Vec<(&str, Cow<'_, str>)> = Vec::new();
    for attribute in common.list(own).iter().chain(common.list(resource)) {
        let value = match attribute.value {
            Value::String(text) => Cow::Borrowed(common.text(text)),
            other => Cow::Owned(common.value_text(other)),
        };
        tags.push((common.text(attribute.key), value));
    }
    tags.push((SCOPE_TAG, Cow::Borrowed(common.text(scope.name))));
    tags.retain(|(name, value)| !name.trim_end_matches('\\').is_empty() && !value.trim_end_matches('\\').is_empty());
    // Stable: the point's own attribute comes first and stays.
    tags.sort_by_key(|(name, _)| *name);
    tags.dedup_by_key(|(name, _)| *name);
    for (name, value) in tags {
        out.push(',');
        key(out, name);
        if RESERVED_TAGS.contains(&name) {
            out.push('_');
        }
        out.push('=');
        key(out, &value);
    }
}

/// The fields of a line; what has no form is left out.
struct Fields<'a> {
    out: &'a mut String,
    start: usize,
    integers: bool,
}

impl Fields<'_> {
    fn is_empty(&self) -> bool {
        self.out.len() == self.start
    }

    fn name(&mut self, name: &str) {
        if !self.is_empty() {
            self.out.push(',');
        }
        key(self.out, name);
        self.out.push('=');
    }

    fn float(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.name(name);
            put(self.out, format_args!("{value}"));
        }
    }

    fn integer(&mut self, name: &str, value: i64) {
        self.name(name);
        // As a float the digits stay the same, and the server rounds beyond 2^53.
        put(self.out, format_args!("{value}{}", if self.integers { "i" } else { "" }));
    }

    fn number(&mut self, name: &str, value: Number) {
        match value {
            Number::Int(value) => self.integer(name, value),
            Number::Double(value) => self.float(name, value),
            Number::None => {}
        }
    }

    fn count(&mut self, name: &str, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.integer(name, value),
            // Version 1 knows no unsigned integers.
            Err(_) => self.float(name, value as f64),
        }
    }

    fn distribution(&mut self, own: &Distribution) {
        self.count("count", own.count);
        for (name, value) in [("sum", own.sum), ("min", own.min), ("max", own.max)] {
            if let Some(value) = value {
                self.float(name, value);
            }
        }
    }

    /// The number of values up to every bound; the last one is that of all.
    fn histogram(&mut self, point: &HistogramPoint) {
        self.distribution(&point.distribution);
        let mut below = 0_u64;
        for (bound, count) in point.explicit_bounds.iter().zip(&point.bucket_counts) {
            below = below.saturating_add(*count);
            self.bucket(*bound, below);
        }
        if !point.bucket_counts.is_empty() && point.explicit_bounds.last().is_none_or(|bound| bound.is_finite()) {
            self.bucket(f64::INFINITY, point.distribution.count);
        }
    }

    fn bucket(&mut self, bound: f64, below: u64) {
        let name = if bound == f64::INFINITY { "+Inf".to_owned() } else { bound.to_string() };
        self.count(&name, below);
    }

    /// As an explicit histogram whose bounds are those of the buckets that are not empty. Bucket `i`
    /// of the positive ones is `(base^i, base^(i+1)]`, of the negative ones `[-base^(i+1), -base^i)`,
    /// with `base = 2^(2^-scale)`.
    fn exponential(&mut self, point: &ExponentialPoint) {
        self.distribution(&point.distribution);
        let power = |index: i64| (index as f64 * (-f64::from(point.scale)).exp2()).exp2();
        let side = |buckets: &Option<Buckets>| -> Vec<(i64, u64)> {
            let Some(buckets) = buckets else { return Vec::new() };
            let counted = buckets.counts.iter().enumerate().filter(|(_, count)| **count > 0);
            // A request holds far fewer buckets than 2^31.
            counted.map(|(at, count)| (i64::from(buckets.offset) + at as i64, *count)).collect()
        };
        let negative = side(&point.negative).into_iter().rev().map(|(index, count)| (-power(index), count));
        let zero = (point.zero_count > 0).then_some((point.zero_threshold, point.zero_count));
        let positive = side(&point.positive).into_iter().map(|(index, count)| (power(index + 1), count));
        let mut below = 0_u64;
        for (bound, count) in negative.chain(zero).chain(positive) {
            below = below.saturating_add(count);
            if bound.is_finite() {
                self.bucket(bound, below);
            }
        }
        self.bucket(f64::INFINITY, point.distribution.count);
    }

    fn summary(&mut self, point: &SummaryPoint) {
        self.count("count", point.count);
        self.float("sum", point.sum);
        for (quantile, value) in &point.quantiles {
            self.float(&quantile.to_string(), *value);
        }
    }
}
