//! A machine at a glance: the `system.*` metrics of one poll as a block of a few lines.
//!
//! The names are OpenTelemetry's semantic conventions for system metrics (1.44), and for attributes
//! also those before them, which the Collector's `hostmetrics` receiver writes.

use std::collections::BTreeMap;

use unicode_width::UnicodeWidthStr;
use weir_model::metrics::{Metrics, NumberPoint};
use weir_model::{Attributes, Common, Value};

use super::rates::Rates;
use super::style::{Line, Paint, Style};
use super::units::{Bytes, duration, plain, short};

/// Above this fraction a part of the machine is about to run out: the only red in a block.
const ALARMING: f64 = 0.9;

/// Most rows of one sort; machines with many disks would fill the screen otherwise.
const MOST_ROWS: usize = 4;

/// Narrower terminals have no room for bars.
const WITH_BARS: usize = 80;

/// Whether whoever sends this metric is a machine, and gets a block.
pub(super) fn is_of_machine(name: &str) -> bool {
    matches!(name, "system.cpu.time" | "system.cpu.utilization" | "system.cpu.load_average.1m" | "system.memory.usage")
}

/// Whether a machine's metric is part of its block rather than of the list below it.
pub(super) fn is_of_block(name: &str) -> bool {
    name.starts_with("system.") || name.starts_with("hw.")
}

/// Values by state or mode.
type ByState<'a> = BTreeMap<&'a str, f64>;

/// Bytes per second in both directions: read and write, or receive and transmit.
type Traffic = [Option<f64>; 2];

/// What one poll says about one machine.
#[derive(Default)]
pub(super) struct Host<'a> {
    /// When, unix nanoseconds.
    pub(super) time: u64,
    /// How many series the block stands for.
    pub(super) series: usize,
    utilization: ByState<'a>,
    cpu_seconds: ByState<'a>,
    load: [Option<f64>; 3],
    memory: ByState<'a>,
    memory_limit: Option<f64>,
    memory_available: Option<f64>,
    swap: ByState<'a>,
    filesystems: BTreeMap<&'a str, ByState<'a>>,
    hung: Vec<&'a str>,
    disks: BTreeMap<&'a str, Traffic>,
    networks: BTreeMap<&'a str, Traffic>,
    processes: Option<f64>,
    uptime: Option<f64>,
    hottest: Option<f64>,
}

/// The text of the first of these attributes that is there.
fn label<'a>(common: &'a Common, attributes: Attributes, names: [&str; 2]) -> &'a str {
    match names.into_iter().find_map(|name| common.find(attributes, name)) {
        Some(Value::String(text)) => common.text(text),
        _ => "",
    }
}

impl<'a> Host<'a> {
    /// Takes one point of the machine called `title`.
    pub(super) fn take(&mut self, metrics: &'a Metrics, point: NumberPoint, title: &str, rates: &mut Rates) {
        self.series += 1;
        let table = &metrics.table;
        let (Some(metric), Some(series)) = (table.metric_of(point.series), table.series.get(point.series as usize))
        else {
            return;
        };
        let Some(value) = point.value.as_f64().filter(|value| value.is_finite()) else { return };
        self.time = self.time.max(point.time_unix_nano);
        let (common, attributes) = (&table.common, series.attributes);
        let of = |names: [&str; 2]| label(common, attributes, names);
        let state = |metric: &str| of([metric, "state"]);
        let mut rate = |name: &str, labels: [&str; 2]| {
            rates.per_second(format!("{title}\n{name}\n{}\n{}", labels[0], labels[1]), point.time_unix_nano, value)
        };
        match common.text(metric.name) {
            "system.cpu.utilization" => *self.utilization.entry(state("cpu.mode")).or_default() += value,
            name @ "system.cpu.time" => {
                let mode = state("cpu.mode");
                if let Some(rate) = rate(name, [mode, of(["cpu.logical_number", "cpu"])]) {
                    *self.cpu_seconds.entry(mode).or_default() += rate;
                }
            }
            "system.cpu.load_average.1m" => self.load[0] = Some(value),
            "system.cpu.load_average.5m" => self.load[1] = Some(value),
            "system.cpu.load_average.15m" => self.load[2] = Some(value),
            "system.memory.usage" => drop(self.memory.insert(state("system.memory.state"), value)),
            "system.memory.limit" => self.memory_limit = Some(value),
            "system.memory.linux.available" | "system.linux.memory.available" => self.memory_available = Some(value),
            "system.paging.usage" => *self.swap.entry(state("system.paging.state")).or_default() += value,
            "system.filesystem.usage" => {
                let mount = of(["system.filesystem.mountpoint", "mountpoint"]);
                self.filesystems.entry(mount).or_default().insert(state("system.filesystem.state"), value);
            }
            "system.filesystem.hung" => self.hung.push(of(["system.filesystem.mountpoint", "mountpoint"])),
            name @ "system.disk.io" => {
                let (device, direction) = (of(["system.device", "device"]), of(["disk.io.direction", "direction"]));
                put(&mut self.disks, device, direction, rate(name, [device, direction]));
            }
            name @ "system.network.io" => {
                let device = of(["network.interface.name", "device"]);
                let direction = of(["network.io.direction", "direction"]);
                if device != "lo" {
                    put(&mut self.networks, device, direction, rate(name, [device, direction]));
                }
            }
            "system.process.count" | "system.processes.count" => *self.processes.get_or_insert(0.0) += value,
            "system.uptime" => self.uptime = Some(value),
            "hw.temperature" => self.hottest = Some(self.hottest.map_or(value, |hottest| hottest.max(value))),
            _ => {}
        }
    }

    /// Writes the block's rows below its heading.
    pub(super) fn write(&self, style: &Style, out: &mut String) {
        let rows = self.rows();
        let widest = rows.iter().map(|row| row.label.width()).max().unwrap_or_default();
        for row in rows {
            row.write(widest.clamp(9, if style.width < WITH_BARS { 12 } else { 16 }), style, out);
        }
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        rows.extend(self.cpu());
        rows.extend(self.memory());
        rows.extend(self.filesystems());
        rows.extend(traffic(&self.disks, "disk", ["read", "write"]));
        rows.extend(traffic(&self.networks, "net", ["in", "out"]));
        rows.extend(self.rest());
        rows
    }

    fn cpu(&self) -> Option<Row> {
        let modes = if self.utilization.contains_key("idle") { &self.utilization } else { &self.cpu_seconds };
        let all: f64 = modes.values().sum();
        let of = |mode: &str| modes.get(mode).map(|part| part / all);
        let busy = (all > 0.0).then(|| 1.0 - of("idle").unwrap_or(0.0) - of("iowait").unwrap_or(0.0));
        let mut row = Row::new("cpu".into(), busy);
        if all > 0.0 {
            for mode in ["user", "system", "nice", "iowait", "steal"] {
                // Modes that nearly never occur only show when they do.
                let rare = matches!(mode, "nice" | "steal");
                row.detail_if(of(mode).filter(|part| !rare || *part >= 0.0005), mode, |part| one_decimal(part * 100.0));
            }
        }
        if let [Some(one), Some(five), Some(fifteen)] = self.load {
            row.detail("load", format!("{one:.2} {five:.2} {fifteen:.2}"));
        }
        (busy.is_some() || !row.details.is_empty()).then_some(row)
    }

    fn memory(&self) -> Option<Row> {
        let total = self.memory_limit.or_else(|| (!self.memory.is_empty()).then(|| self.memory.values().sum()))?;
        let used =
            self.memory_available.map(|available| total - available).or_else(|| self.memory.get("used").copied())?;
        let mut row = Row::new("memory".into(), fraction(used, total));
        row.detail("", Bytes::Binary.of(used, total));
        row.detail_if(self.memory_available, "available", |bytes| Bytes::Binary.text(bytes));
        let swap: f64 = self.swap.values().sum();
        if swap > 0.0 {
            row.detail("swap", Bytes::Binary.of(self.swap.get("used").copied().unwrap_or_default(), swap));
        }
        Some(row)
    }

    /// The root and the fullest others, then how many more there are.
    fn filesystems(&self) -> Vec<Row> {
        let mut found: Vec<(&str, f64, f64, f64)> = Vec::new();
        for (mount, states) in &self.filesystems {
            let of = |state: &str| states.get(state).copied().unwrap_or_default();
            // What is reserved for root is neither used nor free, as `df` counts.
            let (used, usable) = (of("used"), of("used") + of("free"));
            if let Some(full) = fraction(used, usable) {
                found.push((mount, full, used, usable + of("reserved")));
            }
        }
        found.sort_by(|a, b| (b.0 == "/").cmp(&(a.0 == "/")).then(b.1.total_cmp(&a.1)).then(a.0.cmp(b.0)));
        let more = found.len().saturating_sub(MOST_ROWS);
        let mut rows: Vec<Row> = found
            .into_iter()
            .take(MOST_ROWS)
            .map(|(mount, full, used, size)| {
                let mut row = Row::new(format!("disk {mount}"), Some(full));
                row.detail("", Bytes::Decimal.of(used, size));
                row
            })
            .collect();
        if let Some(last) = rows.last_mut().filter(|_| more > 0) {
            last.detail(&format!("and {more} more, less full"), String::new());
        }
        rows.extend(self.hung.iter().map(|mount| Row::alarm(format!("disk {mount}"), "does not answer")));
        rows
    }

    fn rest(&self) -> Option<Row> {
        let mut row = Row::new(String::new(), None);
        row.detail_if(self.uptime, "uptime", duration);
        row.detail_if(self.processes, "processes", plain);
        row.detail_if(self.hottest, "hottest sensor", |celsius| format!("{} °C", short(celsius)));
        // The first of them names the row.
        row.label = std::mem::take(&mut row.details.first_mut()?.0);
        Some(row)
    }
}

/// Percentages in one column look calm with one decimal each.
fn one_decimal(value: f64) -> String {
    format!("{value:.1}")
}

fn fraction(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn put<'a>(devices: &mut BTreeMap<&'a str, Traffic>, device: &'a str, direction: &str, rate: Option<f64>) {
    let traffic = devices.entry(device).or_default();
    match direction {
        "read" | "receive" => traffic[0] = rate,
        "write" | "transmit" => traffic[1] = rate,
        _ => {}
    }
}

/// The busiest devices, always in the order of their names.
fn traffic(devices: &BTreeMap<&str, Traffic>, sort: &str, names: [&str; 2]) -> Vec<Row> {
    let busy = |traffic: &Traffic| traffic.iter().flatten().sum::<f64>();
    let mut known: Vec<_> = devices.iter().filter(|(_, traffic)| traffic.iter().any(Option::is_some)).collect();
    known.sort_by(|a, b| busy(b.1).total_cmp(&busy(a.1)).then(a.0.cmp(b.0)));
    known.truncate(MOST_ROWS);
    known.sort_by_key(|(device, _)| **device);
    let row = |(device, [one, other]): (&&str, &Traffic)| {
        let mut row = Row::new(format!("{sort} {device}"), None);
        let text = |bytes| format!("{:<9}", format!("{}/s", Bytes::Decimal.text(bytes)));
        row.detail_if(*one, names[0], text);
        row.detail_if(*other, names[1], text);
        row
    };
    known.into_iter().map(row).collect()
}

/// One row of the block.
struct Row {
    label: String,
    /// How full, 0 to 1: a bar and a percentage.
    gauge: Option<f64>,
    /// Names and values; either may be empty.
    details: Vec<(String, String)>,
    alarm: Option<&'static str>,
}

impl Row {
    fn new(label: String, gauge: Option<f64>) -> Self {
        Self { label, gauge, details: Vec::new(), alarm: None }
    }

    fn alarm(label: String, what: &'static str) -> Self {
        Self { alarm: Some(what), ..Self::new(label, None) }
    }

    fn detail(&mut self, name: &str, value: String) {
        self.details.push((name.to_owned(), value));
    }

    fn detail_if(&mut self, value: Option<f64>, name: &str, text: impl Fn(f64) -> String) {
        if let Some(value) = value {
            self.detail(name, text(value));
        }
    }

    fn write(&self, label_columns: usize, style: &Style, out: &mut String) {
        const INDENT: usize = 4;
        const PERCENT: usize = 8;
        let mut line = Line::new(style, INDENT);
        line.push(&style.fit(&style.clean(&self.label), label_columns), Paint::Dim);
        let mut column = INDENT + label_columns + 2;
        line.pad_to(column);
        let bar_columns = if style.width < WITH_BARS { 0 } else { 11 };
        if let Some(full) = self.gauge {
            let paint = if full > ALARMING { Paint::Red } else { Paint::Plain };
            if bar_columns > 0 {
                let (filled, rest) = style.bar(full);
                line.push(&filled, paint).push(&rest, Paint::Dim);
            }
            line.right(&format!("{} %", one_decimal(full * 100.0)), column + bar_columns + PERCENT - 1, paint);
        }
        column += bar_columns + PERCENT + 2;
        if let Some(alarm) = self.alarm {
            line.pad_to(column).push(alarm, Paint::Red);
        }
        for (at, (name, value)) in self.details.iter().enumerate() {
            let is_last = at + 1 == self.details.len();
            let value = if is_last { value.trim_end() } else { value };
            let columns = name.width() + 1 + value.trim_end().width();
            if line.columns() > column && line.columns() + 3 + columns > style.width {
                line.write(out);
                line = Line::new(style, column);
            }
            let gap = if line.columns() > column { 3 } else { 0 };
            line.pad_to(column.max(line.columns() + gap));
            line.push(name, Paint::Dim);
            if !name.is_empty() && !value.is_empty() {
                line.push(" ", Paint::Plain);
            }
            line.push(value, Paint::Plain);
        }
        line.write(out);
    }
}
