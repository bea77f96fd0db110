//! A delivery as text: machines as blocks, other series, logs and spans as aligned lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr;
use weir_model::logs::{LogRecord, Logs};
use weir_model::metrics::{Data, Distribution, Metrics, NumberPoint, SummaryPoint};
use weir_model::traces::{Span, Traces};
use weir_model::{Attributes, Common, DecodeError, Records, Value};
use weir_pipeline::Delivery;

use super::host::{self, Host};
use super::itself::{self, Itself};
use super::rates::{History, Rates};
use super::row;
use super::style::{BAR_COLUMNS, Line, Paint, Style};
use super::units::{duration, of_number, plain, with_unit};
use crate::readable;

/// Columns up to the end of a time of day with milliseconds.
const TIME_COLUMNS: usize = 14;

/// What is kept from delivery to delivery.
pub(super) struct State {
    rates: Rates,
    /// How busy the processors of every machine were.
    busy: History,
    /// The machine of the last block, and the columns of its labels.
    block: Option<(String, usize)>,
    last: Last,
    zone: TimeZone,
}

/// What was written last; it decides whether an empty line follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    /// A heading and what belongs to it.
    Block,
    /// Logs or spans.
    Lines,
}

impl State {
    /// Times are shown in this zone.
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { rates: Rates::default(), busy: History::default(), block: None, last: Last::Nothing, zone }
    }
}

/// What all parts of one delivery write into.
struct Page<'a> {
    style: &'a Style,
    state: &'a mut State,
    now: u64,
    out: String,
    lines: usize,
    left_out: usize,
}

/// The text of a delivery. `now` (unix nanoseconds) tells times of today from others.
///
/// # Errors
/// If the records cannot be decoded.
pub(super) fn render(delivery: &Delivery, state: &mut State, style: &Style, now: u64) -> Result<String, DecodeError> {
    let mut page = Page { style, state, now, out: String::new(), lines: 0, left_out: 0 };
    let decoded = readable::decode(delivery)?;
    for records in &decoded {
        match records {
            Records::Metrics(metrics) => page.metrics(metrics),
            Records::Logs(logs) => page.logs(logs),
            Records::Traces(traces) => page.spans(traces),
        }
    }
    if page.left_out > 0 {
        let what = match decoded.first() {
            Some(Records::Logs(_)) => "log record",
            Some(Records::Traces(_)) => "span",
            _ => "series",
        };
        let what = of_number(page.left_out as f64, what);
        let text = format!("{} and {} more {what} (console: max_lines)", style.ellipsis(), page.left_out);
        Line::new(style, 4).push(&text, Paint::Dim).write(&mut page.out);
    }
    Ok(page.out)
}

/// The text of the first of these resource attributes that is there.
fn resource_name<'a>(common: &'a Common, scope: u32, names: &[&str]) -> &'a str {
    let resource = common.scopes.get(scope as usize).and_then(|scope| common.resources.get(scope.resource as usize));
    let attributes = resource.map_or(Attributes::EMPTY, |resource| resource.attributes);
    match names.iter().find_map(|name| common.find(attributes, name)) {
        Some(Value::String(text)) => common.text(text),
        _ => "",
    }
}

/// A line of the list of series.
struct SeriesLine {
    name: String,
    labels: String,
    value: String,
    unit: String,
    more: String,
}

impl Page<'_> {
    /// Whether there is room for one more line.
    fn has_room(&mut self) -> bool {
        let room = self.lines < self.style.max_lines;
        if room {
            self.lines += 1;
        } else {
            self.left_out += 1;
        }
        room
    }

    /// A time of day, with the date where it is not today's; empty where it is unknown.
    fn time(&self, unix_nano: u64, format: &str) -> String {
        let zoned = |nanoseconds: u64| {
            let time = Timestamp::from_nanosecond(i128::from(nanoseconds)).ok()?;
            Some(time.to_zoned(self.state.zone.clone()))
        };
        let (Some(time), Some(now)) = (zoned(unix_nano).filter(|_| unix_nano > 0), zoned(self.now)) else {
            return String::new();
        };
        let date = if time.date() == now.date() { "" } else { "%Y-%m-%d " };
        time.strftime(&format!("{date}{format}")).to_string()
    }

    /// An empty line where something was written before.
    fn gap(&mut self) {
        if self.state.last != Last::Nothing {
            self.out.push('\n');
        }
        self.state.last = Last::Block;
    }

    /// Before a log record or span.
    fn begin_line(&mut self) {
        if self.state.last == Last::Block {
            self.out.push('\n');
        }
        self.state.last = Last::Lines;
    }

    fn heading(&mut self, unix_nano: u64, title: &str, note: &str, right: &str) {
        self.gap();
        let time = self.time(unix_nano, "%H:%M:%S");
        let mut line = Line::new(self.style, 2);
        line.push(&time, Paint::Dim).push(if time.is_empty() { "" } else { "  " }, Paint::Plain);
        line.push(&self.style.clean(title), Paint::Bold);
        if !note.is_empty() && note != title {
            line.push("  ", Paint::Plain).push(&self.style.clean(note), Paint::Dim);
        }
        if !right.is_empty() {
            line.push("  ", Paint::Plain).right(right, self.style.width, Paint::Dim);
        }
        line.write(&mut self.out);
    }

    fn metrics(&mut self, metrics: &Metrics) {
        let common = &metrics.table.common;
        let mut hosts: BTreeMap<u32, Host<'_>> =
            machines(metrics).map(|resource| (resource, Host::default())).collect();
        let mut own: BTreeMap<u32, Itself> = BTreeMap::new();
        let mut lists: BTreeMap<u32, (u64, Vec<SeriesLine>)> = BTreeMap::new();
        for point in metrics.numbers.iter() {
            let Some(metric) = metrics.table.metric_of(point.series) else { continue };
            let Some(scope) = common.scopes.get(metric.scope as usize) else { continue };
            let title = resource_name(common, metric.scope, &["host.name", "service.name"]);
            let name = common.text(metric.name);
            if itself::is_own(common.text(scope.name), name) {
                own.entry(scope.resource).or_default().take(metrics, point, title, &mut self.state.rates);
                continue;
            }
            let host = hosts.get_mut(&scope.resource).filter(|_| host::is_of_block(name));
            if let Some(host) = host {
                host.take(metrics, point, title, &mut self.state.rates);
            } else if let Some(line) = self.number(metrics, point, title) {
                let (time, list) = lists.entry(metric.scope).or_default();
                *time = point.time_unix_nano.max(*time);
                list.push(line);
            }
        }
        let distributions = (metrics.histograms.iter().map(|point| &point.distribution))
            .chain(metrics.exponential.iter().map(|point| &point.distribution))
            .filter_map(|point| Some((point.series, point.time_unix_nano, distribution(metrics, point)?)));
        let summaries = (metrics.summaries.iter())
            .filter_map(|point| Some((point.series, point.time_unix_nano, summary(metrics, point)?)));
        for (series, point_time, line) in distributions.chain(summaries) {
            let Some(metric) = metrics.table.metric_of(series) else { continue };
            let (time, list) = lists.entry(metric.scope).or_default();
            *time = point_time.max(*time);
            list.push(line);
        }
        for (resource, host) in hosts {
            self.machine(machine_name(common, resource), &host);
        }
        for (scope, (time, list)) in lists {
            self.list(common, scope, time, list);
        }
        for (resource, itself) in own {
            self.itself(machine_name(common, resource), &itself);
        }
    }

    fn machine(&mut self, title: &str, host: &Host<'_>) {
        self.heading(host.time, title, "", &format!("{} series", plain(host.series as f64)));
        let history = self.state.busy.with(title, host.cpu_busy(), BAR_COLUMNS);
        let rows = host.rows(history);
        let label_columns = row::label_columns(&rows, self.style);
        self.state.block = Some((title.to_owned(), label_columns));
        rows.into_iter().for_each(|row| row.write(label_columns, self.style, &mut self.out));
    }

    /// Below the block of the same machine, else on its own.
    fn itself(&mut self, title: &str, itself: &Itself) {
        if itself.has_just_begun() {
            return;
        }
        let rows = itself.rows();
        let below = self.state.block.as_ref().filter(|(machine, _)| machine == title).map(|(_, columns)| *columns);
        match below {
            Some(_) if self.state.last == Last::Block => {}
            Some(_) => self.gap(),
            None => self.heading(itself.time, title, "", ""),
        }
        let label_columns = below.unwrap_or_else(|| row::label_columns(&rows, self.style));
        rows.into_iter().for_each(|row| row.write(label_columns, self.style, &mut self.out));
    }

    fn list(&mut self, common: &Common, scope: u32, time: u64, list: Vec<SeriesLine>) {
        let list: Vec<SeriesLine> = list.into_iter().filter(|_| self.has_room()).collect();
        if list.is_empty() {
            return;
        }
        let service = resource_name(common, scope, &["service.name", "host.name"]);
        let scope_name = common.scopes.get(scope as usize).map_or("", |scope| common.text(scope.name));
        let (title, note) = if service.is_empty() { (scope_name, "") } else { (service, scope_name) };
        self.heading(time, title, note, "");
        let columns = |text: &str| text.width();
        let value_columns = list.iter().map(|line| columns(&line.value)).max().unwrap_or_default();
        let widest = list.iter().map(|line| columns(&line.name) + columns(&line.labels)).max().unwrap_or_default();
        // What stands behind the value keeps its place before long names do, up to two fifths.
        let behind = list.iter().map(|line| columns(&line.unit) + columns(&line.more) + 4).max().unwrap_or_default();
        let taken = 4 + 2 + value_columns + behind.min(self.style.width * 2 / 5);
        let most = if self.style.cut { self.style.width.saturating_sub(taken).max(16) } else { 72 };
        let name_columns = widest.min(most);
        for line in &list {
            self.series_line(line, name_columns, value_columns);
        }
    }

    fn series_line(&mut self, series: &SeriesLine, name_columns: usize, value_columns: usize) {
        let mut line = Line::new(self.style, 4);
        if self.style.cut {
            let name = self.style.fit(&series.name, name_columns);
            let labels = self.style.fit(&series.labels, name_columns.saturating_sub(name.width()));
            line.push(&name, Paint::Plain).push(&labels, Paint::Dim);
        } else {
            line.push(&series.name, Paint::Plain).push(&series.labels, Paint::Dim);
        }
        let end = 4 + name_columns + 2 + value_columns;
        line.push("  ", Paint::Plain).right(&self.style.sign(&series.value), end, Paint::Plain);
        if !series.unit.is_empty() {
            line.push(" ", Paint::Plain).push(&self.style.sign(&series.unit), Paint::Dim);
        }
        if !series.more.is_empty() {
            line.push("   ", Paint::Plain).push(&self.style.sign(&series.more), Paint::Dim);
        }
        line.write(&mut self.out);
    }

    fn number(&mut self, metrics: &Metrics, point: NumberPoint, title: &str) -> Option<SeriesLine> {
        let metric = metrics.table.metric_of(point.series)?;
        let (name, labels) = series_name(metrics, point.series)?;
        let unit = metrics.table.common.text(metric.unit);
        let Some(value) = point.value.as_f64() else {
            return Some(SeriesLine { name, labels, value: "ended".into(), unit: String::new(), more: String::new() });
        };
        let mut more = String::new();
        if let Data::Sum { monotonic: true, temporality: weir_model::metrics::Temporality::Cumulative } = metric.data {
            let key = format!("{title}\n{name}\n{labels}");
            if let Some(rate) = self.state.rates.per_second(key, point.time_unix_nano, value) {
                let of_bytes = if unit == "By" { "By/s" } else { "1" };
                let (rate, unit) = with_unit("", of_bytes, rate);
                more = if unit.is_empty() { format!("{rate}/s") } else { format!("{rate} {unit}") };
            }
        }
        let (value, unit) = with_unit(&name, unit, value);
        Some(SeriesLine { name, labels, value, unit, more })
    }

    fn logs(&mut self, logs: &Logs) {
        let common = &logs.common;
        let service = |record: &LogRecord| resource_name(common, record.scope, &["service.name", "host.name"]);
        let widest = logs.records.iter().map(|record| service(record).width()).max().unwrap_or_default();
        for record in &logs.records {
            if self.has_room() {
                self.begin_line();
                self.log(logs, record, service(record), widest.min(20));
            }
        }
    }

    fn log(&mut self, logs: &Logs, record: &LogRecord, service: &str, service_columns: usize) {
        let (common, style) = (&logs.common, self.style);
        let time = if record.time_unix_nano == 0 { record.observed_time_unix_nano } else { record.time_unix_nano };
        let severity = style.fit(&style.clean(readable::severity(logs, record)), 5);
        let paint = match record.severity_number {
            17.. => Paint::Red,
            13..=16 => Paint::Yellow,
            1..=8 => Paint::Dim,
            _ => Paint::Plain,
        };
        let mut line = Line::new(style, 2);
        line.push(&self.time(time, "%H:%M:%S%.3f"), Paint::Dim).pad_to(TIME_COLUMNS).push("  ", Paint::Plain);
        let column = line.columns();
        line.push(&severity, paint).pad_to(column + 7);
        let column = line.columns();
        if service_columns > 0 {
            line.push(&style.fit(&style.clean(service), service_columns), Paint::Dim)
                .pad_to(column + service_columns + 2);
        }
        let body = style.clean(&common.value_text(record.body));
        let body_paint = if paint == Paint::Dim { Paint::Dim } else { Paint::Plain };
        line.push(if body.is_empty() { common.text(record.event_name) } else { &body }, body_paint);
        let pairs = pairs(common, record.attributes, style, " ");
        if !pairs.is_empty() {
            line.push("  ", Paint::Plain).push(&pairs, Paint::Dim);
        }
        line.write(&mut self.out);
    }

    fn spans(&mut self, traces: &Traces) {
        let common = &traces.common;
        let service = |span: &Span| resource_name(common, span.scope, &["service.name", "host.name"]);
        let columns = |text: &str| text.width();
        let services = traces.spans.iter().map(|span| columns(service(span))).max().unwrap_or_default().min(20);
        let names = traces.spans.iter().map(|span| columns(common.text(span.name))).max().unwrap_or_default();
        let names = names.min((self.style.width / 3).max(16));
        for span in &traces.spans {
            if self.has_room() {
                self.begin_line();
                self.span(traces, span, service(span), (services, names));
            }
        }
    }

    fn span(&mut self, traces: &Traces, span: &Span, service: &str, (services, names): (usize, usize)) {
        let (common, style) = (&traces.common, self.style);
        let mut line = Line::new(style, 2);
        line.push(&self.time(span.start_time_unix_nano, "%H:%M:%S%.3f"), Paint::Dim)
            .pad_to(TIME_COLUMNS)
            .push("  ", Paint::Plain);
        let column = line.columns();
        if services > 0 {
            line.push(&style.fit(&style.clean(service), services), Paint::Dim).pad_to(column + services + 2);
        }
        let column = line.columns();
        line.push(&style.fit(&style.clean(common.text(span.name)), names), Paint::Plain);
        let length = readable::span_seconds(span).map(duration).unwrap_or_default();
        line.right(&style.sign(&length), column + names + 2 + 9, Paint::Plain).push("  ", Paint::Plain);
        let status = readable::span_status(span);
        line.push(status, if status == "error" { Paint::Red } else { Paint::Dim });
        let message = style.clean(span.status.map_or("", |status| common.text(status.message)));
        for text in [message, pairs(common, span.attributes, style, " ")] {
            if !text.is_empty() {
                line.push("  ", Paint::Plain).push(&text, Paint::Dim);
            }
        }
        line.write(&mut self.out);
    }
}

/// What a machine is called.
fn machine_name(common: &Common, resource: u32) -> &str {
    let scope = common.scopes.iter().position(|scope| scope.resource == resource).unwrap_or_default();
    let scope = u32::try_from(scope).unwrap_or_default();
    let name = resource_name(common, scope, &["host.name", "service.name"]);
    if name.is_empty() { "this machine" } else { name }
}

/// The resources of the points that are machines.
fn machines(metrics: &Metrics) -> impl Iterator<Item = u32> + '_ {
    let common = &metrics.table.common;
    metrics.numbers.series.iter().filter_map(|series| {
        let metric = metrics.table.metric_of(*series).filter(|metric| host::is_of_machine(common.text(metric.name)))?;
        common.scopes.get(metric.scope as usize).map(|scope| scope.resource)
    })
}

/// `key=value` pairs.
fn pairs(common: &Common, attributes: Attributes, style: &Style, between: &str) -> String {
    let mut text = String::new();
    for pair in common.list(attributes) {
        if !text.is_empty() {
            text.push_str(between);
        }
        // Writing into a String cannot fail.
        let _ = write!(text, "{}={}", common.text(pair.key), common.value_text(pair.value));
    }
    style.clean(&text)
}

/// Name and `{labels}` of a series.
fn series_name(metrics: &Metrics, series: u32) -> Option<(String, String)> {
    let (common, series) = (&metrics.table.common, metrics.table.series.get(series as usize)?);
    let metric = metrics.table.metrics.get(series.metric as usize)?;
    // Bars and marks do not occur here, so every style cleans alike.
    let style = Style { width: 0, cut: false, color: false, unicode: false, max_lines: 0 };
    let labels = pairs(common, series.attributes, &style, ",");
    let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
    Some((style.clean(common.text(metric.name)), labels))
}

/// Count, mean and extremes of a histogram.
fn distribution(metrics: &Metrics, point: &Distribution) -> Option<SeriesLine> {
    let metric = metrics.table.metric_of(point.series)?;
    let (name, labels) = series_name(metrics, point.series)?;
    let unit = metrics.table.common.text(metric.unit);
    let text = |value| join(with_unit(&name, unit, value));
    let mean = point.sum.filter(|_| point.count > 0).map(|sum| sum / point.count as f64);
    let parts = [("mean", mean), ("min", point.min), ("max", point.max)];
    let more: Vec<_> = parts.iter().filter_map(|(name, value)| Some(format!("{name} {}", text((*value)?)))).collect();
    let more = more.join("  ");
    Some(SeriesLine {
        value: plain(point.count as f64),
        unit: of_number(point.count as f64, "value"),
        more,
        name,
        labels,
    })
}

/// Count and quantiles of a summary.
fn summary(metrics: &Metrics, point: &SummaryPoint) -> Option<SeriesLine> {
    let metric = metrics.table.metric_of(point.series)?;
    let (name, labels) = series_name(metrics, point.series)?;
    let unit = metrics.table.common.text(metric.unit);
    let quantile = |(quantile, value): &(f64, f64)| {
        format!("p{} {}", plain(quantile * 100.0), join(with_unit(&name, unit, *value)))
    };
    let more = point.quantiles.iter().map(quantile).collect::<Vec<_>>().join("  ");
    Some(SeriesLine {
        value: plain(point.count as f64),
        unit: of_number(point.count as f64, "value"),
        more,
        name,
        labels,
    })
}

fn join((number, unit): (String, String)) -> String {
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}
