//! Weir's own metrics as Prometheus reads them: text format 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use weir_pipeline::health::State;
use weir_pipeline::telemetry::Telemetry;
use weir_store::Stats;

use super::process::Process;
use crate::state::{App, now_ms};

/// What a metric is.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// The text that is being written.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// One metric with all its lines; nothing where it has none.
    fn family<'a, L: AsRef<[(&'a str, &'a str)]>>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        lines: impl IntoIterator<Item = (L, f64)>,
    ) {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_none() {
            return;
        }
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // Writing to a text in memory cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in lines {
            self.0.push_str(name);
            self.labels(labels.as_ref());
            let _ = writeln!(self.0, " {value}");
        }
    }

    fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl Into<Option<f64>>) {
        self.family(name, kind, help, value.into().map(|value| ([], value)));
    }

    fn labels(&mut self, labels: &[(&str, &str)]) {
        for (number, (name, value)) in labels.iter().enumerate() {
            self.0.push(if number == 0 { '{' } else { ',' });
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{name}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
    }
}

/// Counts and bytes stay exact in a double up to 2^53.
fn number(value: u64) -> f64 {
    value as f64
}

/// All of it.
pub fn text(app: &App) -> String {
    let mut out = Exposition::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    out.family("weir_build_info", Kind::Gauge, "The program that answers; always 1.", [(version, 1.0)]);
    let uptime_ms = now_ms().saturating_sub(app.started_ms).max(0);
    out.one("weir_uptime_seconds", Kind::Gauge, "Time since the server started.", uptime_ms as f64 / 1000.0);
    out.one("weir_hosts", Kind::Gauge, "Hosts in the table.", number(app.hosts.len() as u64));
    process(&mut out, &Process::now());
    store(&mut out, &app.store.stats());
    ledger(&mut out, &app.telemetry);
    queues(&mut out, &app.telemetry);
    integrations(&mut out, &app.telemetry);
    out.0
}

fn process(out: &mut Exposition, process: &Process) {
    let resident = process.resident_bytes.map(number);
    out.one("process_cpu_seconds_total", Kind::Counter, "CPU time of this process.", process.cpu_seconds);
    out.one("process_resident_memory_bytes", Kind::Gauge, "Resident memory of this process.", resident);
    out.one("process_open_fds", Kind::Gauge, "Open files of this process.", process.open_files.map(number));
}

fn store(out: &mut Exposition, store: &Stats) {
    let gauges = [
        ("weir_store_series", "Series that are kept.", number(store.series as u64)),
        ("weir_store_samples", "Samples that are kept.", number(store.samples as u64)),
        ("weir_store_memory_bytes", "Memory of what is kept.", number(store.memory_bytes as u64)),
        ("weir_store_disk_bytes", "Disk space of what is kept.", number(store.disk_bytes)),
    ];
    for (name, help, value) in gauges {
        out.one(name, Kind::Gauge, help, value);
    }
    let oldest = store.oldest_ms.map(|ms| ms as f64 / 1000.0);
    out.one("weir_store_oldest_timestamp_seconds", Kind::Gauge, "Time of the oldest sample.", oldest);
    let counters = [
        ("weir_store_duplicates_total", "Samples that came again unchanged.", store.duplicates),
        (
            "weir_store_outside_total",
            "Points that were older than the retention or far ahead of the clock when they came.",
            store.outside,
        ),
        ("weir_store_evicted_total", "Samples that went before their time because a bound was reached.", store.evicted),
        ("weir_store_damaged_records_total", "Damaged places in the log when it was read.", store.damaged_records),
        ("weir_store_syncs_total", "How often the disk was waited for.", store.syncs),
    ];
    for (name, help, value) in counters {
        out.one(name, Kind::Counter, help, number(value));
    }
}

/// One row for a source, an exporter and a signal; `accepted` is the sum of the others.
fn ledger(out: &mut Exposition, telemetry: &Telemetry) {
    let rows = telemetry.ledger.snapshot();
    let column =
        |out: &mut Exposition, name: &str, kind: Kind, help: &str, of: fn(&weir_pipeline::ledger::Counts) -> f64| {
            let lines = rows.iter().map(|((source, exporter, signal), counts)| {
                ([("source", &**source), ("exporter", &**exporter), ("signal", signal.name())], of(counts))
            });
            out.family(name, kind, help, lines);
        };
    let counter = Kind::Counter;
    column(out, "weir_ledger_accepted_total", counter, "Records taken for an exporter.", |c| number(c.accepted));
    column(out, "weir_ledger_delivered_total", counter, "Records that the exporter's backend has.", |c| {
        number(c.delivered)
    });
    column(out, "weir_ledger_queued", Kind::Gauge, "Records that wait.", |c| number(c.queued));
    column(out, "weir_ledger_in_flight", Kind::Gauge, "Records in a request under way.", |c| number(c.in_flight));
    let difference = "What does not add up: 0 unless Weir has an error.";
    column(out, "weir_ledger_difference", Kind::Gauge, difference, |c| c.difference() as f64);
    let dropped = rows.iter().flat_map(|((source, exporter, signal), counts)| {
        let row = [("source", &**source), ("exporter", &**exporter), ("signal", signal.name())];
        counts.dropped.iter().map(move |(reason, records)| {
            let [source, exporter, signal] = row;
            ([source, exporter, signal, ("reason", reason.name())], number(*records))
        })
    });
    out.family("weir_ledger_dropped_total", counter, "Records that were not delivered.", dropped);
}

fn queues(out: &mut Exposition, telemetry: &Telemetry) {
    let exporters: Vec<_> = telemetry
        .exporters()
        .into_iter()
        .map(|(outlet, attempts)| {
            let status = outlet.queue.status();
            let read = |counter: &std::sync::atomic::AtomicU64| number(counter.load(Ordering::Relaxed));
            (outlet.name.clone(), status, read(&attempts.succeeded), read(&attempts.failed))
        })
        .collect();
    let requests = exporters.iter().flat_map(|(name, _, succeeded, failed)| {
        let name = ("exporter", &**name);
        [([name, ("outcome", "succeeded")], *succeeded), ([name, ("outcome", "failed")], *failed)]
    });
    out.family("weir_export_requests_total", Kind::Counter, "Requests to a backend.", requests);
    let bytes = exporters.iter().map(|(name, status, ..)| ([("exporter", &**name)], number(status.bytes as u64)));
    out.family("weir_queue_bytes", Kind::Gauge, "Bytes in a queue and under way.", bytes);
    let limit = exporters.iter().map(|(name, status, ..)| ([("exporter", &**name)], number(status.limit_bytes as u64)));
    out.family("weir_queue_limit_bytes", Kind::Gauge, "Bound of a queue.", limit);
    let oldest = exporters
        .iter()
        .filter_map(|(name, status, ..)| status.oldest.map(|age| ([("exporter", &**name)], age.as_secs_f64())));
    out.family("weir_queue_oldest_age_seconds", Kind::Gauge, "Age of the oldest record that waits.", oldest);
}

fn integrations(out: &mut Exposition, telemetry: &Telemetry) {
    let health = telemetry.health.snapshot();
    let healthy = health.iter().filter_map(|(name, health)| {
        let value = match health.state {
            State::Healthy => 1.0,
            State::Unhealthy => 0.0,
            State::Disabled | State::Initializing => return None,
        };
        Some(([("integration", &**name)], value))
    });
    out.family("weir_integration_healthy", Kind::Gauge, "1 if the last attempt worked, else 0.", healthy);
    let polls = telemetry.all_polls();
    let succeeded = polls.iter().map(|(name, counts)| ([("integration", &**name)], number(counts.succeeded)));
    out.family("weir_polls_succeeded_total", Kind::Counter, "Polls that ended without a fault.", succeeded);
    let failed = polls.iter().flat_map(|(name, counts)| {
        counts.failed.iter().map(move |(kind, failed)| ([("integration", &**name), ("kind", *kind)], number(*failed)))
    });
    out.family("weir_polls_failed_total", Kind::Counter, "Polls that ended with a fault.", failed);
    let skipped = polls.iter().flat_map(|(name, counts)| {
        [("overlap", counts.overlapped), ("memory_full", counts.short_of_memory)]
            .map(|(reason, polls)| ([("integration", &**name), ("reason", reason)], number(polls)))
    });
    out.family(
        "weir_polls_skipped_total",
        Kind::Counter,
        "Polls left out: an earlier one was under way, or nothing could have kept what they gather.",
        skipped,
    );
    let duration = polls.iter().map(|(name, counts)| ([("integration", &**name)], counts.duration.as_secs_f64()));
    out.family("weir_poll_duration_seconds", Kind::Gauge, "How long the last poll took.", duration);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use weir_model::Signal;
    use weir_pipeline::ledger::Reason;

    use super::*;

    #[test]
    fn the_ledger_is_written_as_prometheus_reads_it() {
        let telemetry = Telemetry::default();
        let source: Arc<str> = "tail \"a\\b\"\n".into();
        let row = telemetry.ledger.row(&source, &"store".into(), Signal::Metrics);
        row.accept(7);
        row.take(4);
        row.deliver(3);
        row.drop_in_flight(1, Reason::Refused);
        let mut out = Exposition::default();
        ledger(&mut out, &telemetry);
        let labels = r#"source="tail \"a\\b\"\n",exporter="store",signal="metrics""#;
        for line in [
            "# TYPE weir_ledger_accepted_total counter".to_owned(),
            format!("weir_ledger_accepted_total{{{labels}}} 7"),
            format!("weir_ledger_delivered_total{{{labels}}} 3"),
            format!("weir_ledger_queued{{{labels}}} 3"),
            format!("weir_ledger_in_flight{{{labels}}} 0"),
            format!("weir_ledger_difference{{{labels}}} 0"),
            format!("weir_ledger_dropped_total{{{labels},reason=\"refused\"}} 1"),
        ] {
            assert!(out.0.lines().any(|written| written == line), "{line}\nin\n{}", out.0);
        }
    }

    #[test]
    fn a_metric_without_values_is_absent_with_its_head() {
        let mut out = Exposition::default();
        process(&mut out, &Process { resident_bytes: Some(1024), ..Process::default() });
        assert_eq!(
            out.0,
            "# HELP process_resident_memory_bytes Resident memory of this process.\n\
             # TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 1024\n"
        );
    }
}
