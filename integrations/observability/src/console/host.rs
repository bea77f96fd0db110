//! A machine at a glance: the `system.*` metrics of one poll as a block of a few lines.
//!
//! The names are OpenTelemetry's semantic conventions for system metrics (1.44), and for attributes
//! also those before them, which the Collector's `hostmetrics` receiver writes.

use std::collections::BTreeMap;

use weir_model::metrics::{Metrics, NumberPoint};
use weir_model::{Attributes, Common, Value};

use super::rates::Rates;
use super::row::{Detail, Row};
use super::units::{Bytes, duration, plain, short};

/// Most rows of one sort; machines with many disks would fill the screen otherwise.
const MOST_ROWS: usize = 4;

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
    /// Counters of processor time came, whether or not there are rates yet.
    has_cpu_time: bool,
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
pub(super) fn label<'a>(common: &'a Common, attributes: Attributes, names: [&str; 2]) -> &'a str {
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
                self.has_cpu_time = true;
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

    /// How busy the processors are, 0 to 1, and the parts of it.
    fn busy(&self) -> Option<(f64, impl Fn(&str) -> Option<f64>)> {
        let modes = if self.utilization.contains_key("idle") { &self.utilization } else { &self.cpu_seconds };
        let all: f64 = modes.values().sum();
        let of = move |mode: &str| modes.get(mode).map(|part| part / all);
        (all > 0.0).then(|| (1.0 - of("idle").unwrap_or(0.0) - of("iowait").unwrap_or(0.0), of))
    }

    /// How busy the processors are, 0 to 1; unknown before the second poll of counters.
    pub(super) fn cpu_busy(&self) -> Option<f64> {
        self.busy().map(|(busy, _)| busy)
    }

    /// The block's rows below its heading. `history` holds [`Host::cpu_busy`] of the last polls.
    pub(super) fn rows(&self, history: Vec<f64>) -> Vec<Row> {
        let mut rows = Vec::new();
        rows.extend(self.cpu(history));
        rows.extend(self.memory());
        rows.extend(self.filesystems());
        rows.extend(traffic(&self.disks, "disk", ["read", "write"]));
        rows.extend(traffic(&self.networks, "net", ["in", "out"]));
        rows.extend(self.rest());
        rows
    }

    fn cpu(&self, history: Vec<f64>) -> Option<Row> {
        /// What gives way on narrow terminals: first modes below this share, then the longer averages of the load.
        const LITTLE: f64 = 0.005;
        let busy = self.busy();
        let mut row = Row::new("cpu".into(), busy.as_ref().map(|(busy, _)| *busy)).with_history(history);
        if let Some((_, of)) = busy {
            for mode in ["user", "system", "nice", "iowait", "steal"] {
                let usual = matches!(mode, "user" | "system");
                // Modes that nearly never occur only show when they do.
                let rare = matches!(mode, "nice" | "steal");
                if let Some(part) = of(mode).filter(|part| !rare || *part >= 0.0005) {
                    let importance = if usual { LITTLE + part } else { part };
                    row.add(Detail::new(mode, format!("{:.1}", part * 100.0)).importance(importance));
                }
            }
        } else if self.has_cpu_time {
            row = row.measuring();
        }
        if let [Some(one), Some(five), Some(fifteen)] = self.load {
            let all = format!("{one:.2} {five:.2} {fifteen:.2}");
            row.add(Detail::new("load", all).or(LITTLE, "load", format!("{one:.2}")));
        }
        row.says_something().then_some(row)
    }

    fn memory(&self) -> Option<Row> {
        let total = self.memory_limit.or_else(|| (!self.memory.is_empty()).then(|| self.memory.values().sum()))?;
        let used =
            self.memory_available.map(|available| total - available).or_else(|| self.memory.get("used").copied())?;
        let mut row = Row::new("memory".into(), fraction(used, total));
        row.detail("", Bytes::Binary.of(used, total));
        if let Some(available) = self.memory_available {
            // The difference to the total is there already.
            row.add(Detail::new("available", Bytes::Binary.text(available)).importance(1.0));
        }
        let swap: f64 = self.swap.values().sum();
        if swap > 0.0 {
            let used = self.swap.get("used").copied().unwrap_or_default();
            let percent = format!("{:.1} %", used / swap * 100.0);
            row.add(Detail::new("swap", Bytes::Binary.of(used, swap)).importance(3.0).or(2.0, "swap", percent));
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
            let short = format!("and {more} more");
            let detail = Detail::new(&format!("{short}, less full"), String::new());
            last.add(detail.importance(2.0).or(1.0, &short, String::new()));
        }
        rows.extend(self.hung.iter().map(|mount| Row::alarm(format!("disk {mount}"), "does not answer")));
        rows
    }

    fn rest(&self) -> Option<Row> {
        let mut row = Row::new(String::new(), None);
        row.detail_if(self.uptime, "uptime", duration);
        if let Some(processes) = self.processes {
            row.add(Detail::new("processes", plain(processes)).importance(1.0));
        }
        row.detail_if(self.hottest, "hottest sensor", |celsius| format!("{} °C", short(celsius)));
        row.named_by_its_first()
    }
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
        let text = |bytes| format!("{}/s", Bytes::Decimal.text(bytes));
        // The second direction stands in one column.
        row.detail_if(
            *one,
            names[0],
            |bytes| if other.is_some() { format!("{:<9}", text(bytes)) } else { text(bytes) },
        );
        row.detail_if(*other, names[1], text);
        row
    };
    known.into_iter().map(row).collect()
}
