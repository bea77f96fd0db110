//! Stored series back as the objects that the seeds' clients posted.

use std::collections::BTreeMap;

use serde_json::{Number, Value};
use weir_store::{MatchOp, Matcher, NAME, ReadError, Select, SeriesSource};

use super::fields::Field;
use super::{custom, json, time};
use crate::error::{ApiError, Code};
use crate::hosts::older_names as older;
use crate::query_params::Params;
use crate::state::{App, now_ms};

const CPU: &str = "system.cpu.utilization";
const CPU_MODE: &str = "cpu.mode";
const FILESYSTEM_STATE: &str = "system.filesystem.state";
/// Modes in which a CPU waits for work.
const NOT_BUSY: [&str; 2] = ["idle", "iowait"];

/// What was measured at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Unix milliseconds.
    pub ms: i64,
    /// Values of custom metrics by their path.
    pub custom: BTreeMap<String, Value>,
    fields: BTreeMap<&'static str, f64>,
    /// Fraction of the time in which the CPUs waited, and whether `idle` is part of it.
    waiting: f64,
    knows_idle: bool,
}

impl Row {
    /// The value of a field, in the field's unit.
    pub fn number(&self, name: &str) -> Option<Number> {
        match json::number(*self.fields.get(name)?) {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// Rows that are put together from series.
#[derive(Debug)]
pub struct History {
    fields: &'static [Field],
    limit: usize,
    rows: BTreeMap<i64, Row>,
}

/// What a series is in a row.
enum Part {
    Field(&'static Field),
    Waiting { is_idle: bool },
    Custom(String, Option<String>, Option<String>),
}

impl History {
    /// Rows with these fields; the newest `limit`.
    pub fn new(fields: &'static [Field], limit: usize) -> Self {
        Self { fields, limit, rows: BTreeMap::new() }
    }

    /// Adds a series: its metric, its labels, and pairs of unix milliseconds and value.
    pub fn add<'l>(
        &mut self,
        metric: &str,
        label: impl Fn(&str) -> Option<&'l str>,
        samples: impl IntoIterator<Item = (i64, f64)>,
    ) {
        let Some(part) = self.part(metric, label) else { return };
        for (ms, value) in samples.into_iter().filter(|(_, value)| value.is_finite()) {
            let row = self.rows.entry(ms).or_insert_with(|| Row { ms, ..Row::default() });
            match &part {
                Part::Field(field) => {
                    row.fields.insert(field.name, field.of_metric(value));
                }
                Part::Waiting { is_idle } => {
                    row.waiting += value;
                    row.knows_idle |= is_idle;
                }
                Part::Custom(path, kind, text) => {
                    let value = custom::of_sample(kind.as_deref(), text.as_deref(), value);
                    row.custom.insert(path.clone(), value);
                }
            }
        }
        while self.rows.len() > self.limit {
            self.rows.pop_first();
        }
    }

    fn part<'l>(&self, metric: &str, label: impl Fn(&str) -> Option<&'l str>) -> Option<Part> {
        if let Some(path) = metric.strip_prefix(custom::PREFIX) {
            let own = |name| label(name).map(str::to_owned);
            return Some(Part::Custom(path.to_owned(), own(custom::TYPE), own(custom::TEXT)));
        }
        if let Some(mode) = label(CPU_MODE) {
            let is_part = metric == CPU && NOT_BUSY.contains(&mode);
            return is_part.then_some(Part::Waiting { is_idle: mode == "idle" });
        }
        // A host's own agent tells the other states too.
        if label(FILESYSTEM_STATE).is_some_and(|state| state != "used") {
            return None;
        }
        let fits = |field: &&Field| {
            let mut told = field.labels.iter();
            field.metric.name == metric && told.all(|(name, value)| label(name) == Some(value))
        };
        self.fields.iter().find(fits).map(Part::Field)
    }

    /// The rows, oldest first. Rows without any known value are left out.
    pub fn finish(self) -> Vec<Row> {
        let cpu = self.fields.iter().find(|field| field.metric.name == CPU);
        let whole = self.rows.into_values().map(|mut row| {
            if let (Some(field), true) = (cpu, row.knows_idle) {
                // What was posted as one figure is more exact than the sum of modes.
                row.fields.entry(field.name).or_insert_with(|| field.of_metric((1.0 - row.waiting).clamp(0.0, 1.0)));
            }
            row
        });
        whole.filter(|row| !row.fields.is_empty() || !row.custom.is_empty()).collect()
    }
}

/// Rows of one answer: by default, and at most.
const ROWS: usize = 10_000;
const MOST_ROWS: u64 = 100_000;

/// Which part of a history is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// How far back, milliseconds.
    span_ms: i64,
    /// The newest so many rows.
    limit: usize,
}

impl Window {
    /// The window of `hours` (24 by default) and `limit`.
    ///
    /// # Errors
    /// If one of them makes no sense.
    pub fn of(params: &Params) -> Result<Self, ApiError> {
        let span_ms = time::hours_ms(params.number("hours")?.unwrap_or(24.0))?;
        let limit = params.integer("limit", 1..=MOST_ROWS)?.and_then(|limit| usize::try_from(limit).ok());
        Ok(Self { span_ms, limit: limit.unwrap_or(ROWS) })
    }
}

/// The history of a host from the store.
///
/// # Errors
/// If the store cannot be read.
pub async fn read(app: &App, hostname: &str, fields: &'static [Field], window: Window) -> Result<Vec<Row>, ApiError> {
    let (state, hostname) = (app.state.clone(), hostname.to_owned());
    let end_ms = now_ms();
    let rows = move || rows_of(&state.store, &hostname, fields, window, end_ms);
    // Samples are decompressed: too long for a thread that answers others.
    let read = tokio::task::spawn_blocking(rows).await;
    let failed = |why: String| {
        tracing::error!("the history of a host cannot be read: {why}");
        ApiError::new(Code::Internal, "the store cannot be read; the server's log says why")
    };
    read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

fn rows_of(
    store: &dyn SeriesSource,
    hostname: &str,
    fields: &'static [Field],
    window: Window,
    end_ms: i64,
) -> Result<Vec<Row>, ReadError> {
    let mut names: Vec<Matcher> = fields.iter().map(|field| Matcher::name(field.metric.name)).collect();
    names.dedup();
    names.push(Matcher::new(NAME, MatchOp::Matches, r"custom\..+"));
    let mut history = History::new(fields, window.limit);
    for name in names {
        let matchers = vec![name, Matcher::equal("host.name", hostname)];
        // Senders' clocks may be ahead of this one by the tolerated minutes.
        let ahead_ms = end_ms.saturating_add(time::TOLERATED_AHEAD_MS);
        let select = Select { matchers, start_ms: end_ms.saturating_sub(window.span_ms), end_ms: ahead_ms };
        for data in store.select(&select)? {
            let labels = &data.series.labels;
            let label =
                |name: &str| labels.get(name).or_else(|| older(name).iter().find_map(|older| labels.get(older)));
            history.add(labels.get(NAME).unwrap_or_default(), label, data.samples.iter());
        }
    }
    Ok(history.finish())
}

#[cfg(test)]
mod tests {
    use super::super::fields::{AGENT_MONITOR, AGENTOPS};
    use super::*;
    use serde_json::json;

    fn label<'l>(labels: &'l [(&'l str, &'l str)]) -> impl Fn(&str) -> Option<&'l str> {
        |name| labels.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
    }

    #[test]
    fn samples_of_one_time_are_one_row_in_the_fields_units() {
        let mut history = History::new(&AGENTOPS, 10);
        history.add("system.cpu.utilization", label(&[]), [(1000, 0.452), (2000, 0.5)]);
        history.add("system.memory.limit", label(&[]), [(1000, 17_179_869_184.0)]);
        history.add("system.memory.utilization", label(&[("system.memory.state", "free")]), [(1000, 0.1)]);
        history.add(
            "system.filesystem.utilization",
            label(&[("system.filesystem.mountpoint", "/home")]),
            [(1000, 0.1)],
        );
        history.add("custom.gpu[0]", label(&[]), [(2000, 7.0)]);
        history.add("custom.ok", label(&[("type", "bool")]), [(2000, 1.0)]);
        history.add("custom.state", label(&[("text", "draining")]), [(2000, 1.0)]);
        let rows = history.finish();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].number("cpuUsage").unwrap().to_string(), "45.2");
        assert_eq!(rows[0].number("memoryTotal").unwrap().to_string(), "16384");
        assert_eq!(rows[0].number("memoryUsage"), None);
        assert_eq!(rows[0].number("diskUsage"), None);
        let custom = Value::Object(custom::nested(rows[1].custom.clone()));
        assert_eq!(custom, json!({"gpu": [7], "ok": true, "state": "draining"}));
    }

    #[test]
    fn a_hosts_own_agent_reports_modes_and_states() {
        let mut history = History::new(&AGENT_MONITOR, 10);
        for (mode, value) in [("user", 0.2), ("system", 0.1), ("idle", 0.6), ("iowait", 0.1)] {
            history.add("system.cpu.utilization", label(&[("cpu.mode", mode)]), [(1000, value)]);
        }
        let disk = |state| [("system.filesystem.mountpoint", "/"), ("system.filesystem.state", state)];
        history.add("system.filesystem.utilization", label(&disk("used")), [(1000, 0.25)]);
        history.add("system.filesystem.utilization", label(&disk("free")), [(1000, 0.75)]);
        let rows = history.finish();
        assert_eq!(rows[0].number("cpu_usage").unwrap().to_string(), "30");
        assert_eq!(rows[0].number("disk_usage").unwrap().to_string(), "25");
    }

    #[test]
    fn the_newest_rows_stay_and_gaps_stay_gaps() {
        let mut history = History::new(&AGENT_MONITOR, 3);
        history.add("system.cpu.utilization", label(&[]), (0..10).map(|at| (at, 0.5)));
        history.add("agent.response_time", label(&[]), (0..10).map(|at| (at, if at == 9 { f64::NAN } else { 0.1 })));
        history.add("unrelated", label(&[]), [(11, 1.0)]);
        let rows = history.finish();
        assert_eq!(rows.iter().map(|row| row.ms).collect::<Vec<_>>(), [7, 8, 9]);
        assert_eq!(rows[2].number("response_time"), None);
        assert_eq!(rows[1].number("response_time").unwrap().to_string(), "100");
    }
}
