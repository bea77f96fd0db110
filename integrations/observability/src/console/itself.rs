//! Weir about itself in one line: whether all is well, how many records came and went, and below it
//! what is wrong where something is. The metrics are those of the collector `internal`.

use weir_model::metrics::{Metrics, NumberPoint};

use super::host::label;
use super::rates::Rates;
use super::row::{Detail, Row};
use super::style::Paint;
use super::units::{counted, duration, plain};

/// The scope of what Weir records about itself.
const SCOPE: &str = "internal";

/// Whether a metric is one that Weir records about itself.
pub(super) fn is_own(scope: &str, metric: &str) -> bool {
    scope == SCOPE && metric.starts_with("weir.")
}

/// What one poll says about one Weir.
#[derive(Default)]
pub(super) struct Itself {
    /// When, unix nanoseconds.
    pub(super) time: u64,
    accepted: f64,
    delivered: f64,
    /// In queues and in requests.
    under_way: f64,
    /// Left out because a route said so.
    filtered: f64,
    dropped: f64,
    /// Seconds.
    longest_poll: Option<f64>,
    troubles: Vec<String>,
    /// Some row of the ledger does not add up.
    is_off: bool,
}

impl Itself {
    /// Takes one point of the Weir on the machine called `title`.
    pub(super) fn take(&mut self, metrics: &Metrics, point: NumberPoint, title: &str, rates: &mut Rates) {
        let table = &metrics.table;
        let (Some(metric), Some(series)) = (table.metric_of(point.series), table.series.get(point.series as usize))
        else {
            return;
        };
        let Some(value) = point.value.as_f64().filter(|value| value.is_finite()) else { return };
        // The points of one poll have one time; of several polls in one delivery the last one counts.
        if point.time_unix_nano < self.time {
            return;
        }
        if point.time_unix_nano > self.time {
            *self = Self { time: point.time_unix_nano, ..Self::default() };
        }
        let of = |name: &str| label(&table.common, series.attributes, [name, ""]);
        let (source, exporter) = (of("weir.source"), of("weir.exporter"));
        match table.common.text(metric.name) {
            "weir.ledger.accepted" => self.accepted += value,
            "weir.ledger.delivered" => self.delivered += value,
            "weir.ledger.queued" | "weir.ledger.in_flight" => self.under_way += value,
            "weir.ledger.dropped" if of("weir.reason") == "filtered" => self.filtered += value,
            name @ "weir.ledger.dropped" => {
                self.dropped += value;
                let (signal, reason) = (of("weir.signal"), of("weir.reason"));
                let key = format!("{title}\n{name}\n{source}\n{exporter}\n{signal}\n{reason}");
                // What was dropped long ago is in the sum; only what is new is a trouble.
                let growth = rates.per_second(key, point.time_unix_nano, value);
                if value > 0.0 && growth.is_none_or(|rate| rate > 0.0) {
                    let records = counted(value, "record");
                    let why = reason.replace('_', " ");
                    self.troubles.push(format!("{records} from {source} to {exporter} dropped so far: {why}"));
                }
            }
            "weir.ledger.difference" if value != 0.0 => {
                self.is_off = true;
                let off = counted(value, "record");
                let what = format!("the ledger from {source} to {exporter} is off by {off}");
                self.troubles.push(format!("{what}: an error of Weir, please report it"));
            }
            "weir.integration.healthy" if value == 0.0 => {
                self.troubles.push(format!("{} is unhealthy: `weir check` says why", of("weir.integration")));
            }
            "weir.poll.duration" if of("weir.integration") != SCOPE => {
                self.longest_poll = Some(self.longest_poll.map_or(value, |longest| longest.max(value)));
            }
            _ => {}
        }
    }

    /// Whether there is nothing to say yet: neither a delivery nor a trouble.
    pub(super) fn has_just_begun(&self) -> bool {
        self.delivered == 0.0 && self.troubles.is_empty()
    }

    /// One row, and one more for every trouble.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut row = Row::of_details("weir");
        row.add(match self.troubles.len() {
            0 => Detail::new("", "all well".into()),
            troubles => Detail::new("", counted(troubles as f64, "trouble")).paint(Paint::Red),
        });
        row.add(Detail::new("accepted", plain(self.accepted)).importance(2.0));
        row.add(Detail::new("delivered", plain(self.delivered)).importance(6.0));
        if self.under_way > 0.0 {
            row.add(Detail::new("under way", plain(self.under_way)).importance(3.0));
        }
        if self.filtered > 0.0 {
            row.add(Detail::new("filtered", plain(self.filtered)).importance(2.5));
        }
        let paint = if self.dropped > 0.0 { Paint::Yellow } else { Paint::Plain };
        row.add(Detail::new("dropped", plain(self.dropped)).importance(5.0).paint(paint));
        if !self.is_off {
            row.add(Detail::new("the ledger adds up", String::new()).importance(4.0));
        }
        if let Some(seconds) = self.longest_poll {
            row.add(Detail::new("longest poll", duration(seconds)).importance(1.0).or(0.5, "poll", duration(seconds)));
        }
        let mut rows = vec![row];
        for trouble in &self.troubles {
            let mut row = Row::of_details("");
            row.add(Detail::new("", trouble.clone()).paint(Paint::Red));
            rows.push(row);
        }
        rows
    }
}
