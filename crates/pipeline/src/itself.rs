//! The integration `internal`: what Weir knows about itself, as metrics through the same pipeline.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use schemars::JsonSchema;
use serde::Deserialize;
use weir_model::Signal;
use weir_model::build::{Kind as Instrument, MetricDescription, MetricsBuilder, metric};

use crate::health::State;
use crate::kind::{About, Kind};
use crate::ledger::Reason;
use crate::outcome::Fault;
use crate::role::{Collect, Context, Watching};
use crate::telemetry::Telemetry;

const ACCEPTED: MetricDescription<'static> =
    metric("weir.ledger.accepted", "{record}", Instrument::Counter, "Records taken from a source for an exporter.");
const DELIVERED: MetricDescription<'static> =
    metric("weir.ledger.delivered", "{record}", Instrument::Counter, "Records that the exporter's backend has.");
const QUEUED: MetricDescription<'static> =
    metric("weir.ledger.queued", "{record}", Instrument::UpDownCounter, "Records that wait in the exporter's queue.");
const IN_FLIGHT: MetricDescription<'static> = metric(
    "weir.ledger.in_flight",
    "{record}",
    Instrument::UpDownCounter,
    "Records in a request under way or waiting to be sent again.",
);
const DEAD_LETTERED: MetricDescription<'static> = metric(
    "weir.ledger.dead_lettered",
    "{record}",
    Instrument::Counter,
    "Records that the exporter's backend refused for good and that are kept as dead letters.",
);
const DROPPED: MetricDescription<'static> =
    metric("weir.ledger.dropped", "{record}", Instrument::Counter, "Records that were not delivered, by reason.");
const DIFFERENCE: MetricDescription<'static> = metric(
    "weir.ledger.difference",
    "{record}",
    Instrument::Gauge,
    "What does not add up in the ledger: 0 unless Weir has an error.",
);
const HEALTHY: MetricDescription<'static> = metric(
    "weir.integration.healthy",
    "1",
    Instrument::Gauge,
    "1 if the last attempt of the integration worked, 0 if it failed; absent before the first.",
);
const POLLS: MetricDescription<'static> = metric(
    "weir.poll.count",
    "{poll}",
    Instrument::Counter,
    "Polls of a collector; those that failed carry `error.type`.",
);
const POLL_DURATION: MetricDescription<'static> =
    metric("weir.poll.duration", "s", Instrument::Gauge, "How long the last poll took.");
const POLL_POINTS: MetricDescription<'static> =
    metric("weir.poll.points", "{point}", Instrument::Gauge, "Points of the last poll.");
const POLL_SKIPPED: MetricDescription<'static> = metric(
    "weir.poll.skipped",
    "{poll}",
    Instrument::Counter,
    "Polls that were due and left out, by reason: `overlap`, an earlier one was under way; `memory_full`, nothing could \
     have kept what they gather.",
);
const REQUESTS: MetricDescription<'static> =
    metric("weir.export.requests", "{request}", Instrument::Counter, "Requests to a backend, by outcome.");
const QUEUE_BYTES: MetricDescription<'static> =
    metric("weir.queue.bytes", "By", Instrument::UpDownCounter, "Bytes in an exporter's queue and under way.");
const QUEUE_LIMIT: MetricDescription<'static> =
    metric("weir.queue.limit", "By", Instrument::UpDownCounter, "Bound of an exporter's queue.");
const OLDEST: MetricDescription<'static> = metric(
    "weir.queue.oldest_age",
    "s",
    Instrument::Gauge,
    "Age of the oldest record that waits; absent when none does.",
);

const IN_FLIGHT_LIMIT: MetricDescription<'static> = metric(
    "weir.export.in_flight_limit",
    "{request}",
    Instrument::Gauge,
    "Requests that may be under way at once, as the exporter's worker has found out.",
);
const DEAD_LETTERS: MetricDescription<'static> = metric(
    "weir.dead_letters.count",
    "{letter}",
    Instrument::UpDownCounter,
    "Dead letters that are kept, by exporter.",
);
const DEAD_LETTERS_BYTES: MetricDescription<'static> =
    metric("weir.dead_letters.bytes", "By", Instrument::UpDownCounter, "Bytes of all dead letters.");
const DEAD_LETTERS_EVICTED: MetricDescription<'static> = metric(
    "weir.dead_letters.evicted",
    "{letter}",
    Instrument::Counter,
    "Dead letters that made room for newer ones, or were too old.",
);
const MEMORY: MetricDescription<'static> = metric(
    "weir.memory.used",
    "By",
    Instrument::UpDownCounter,
    "Memory that records on their way take; the bound is `limits.memory`.",
);
const MEMORY_LIMIT: MetricDescription<'static> =
    metric("weir.memory.limit", "By", Instrument::UpDownCounter, "Memory that records on their way may take.");

/// The integration's page.
pub const ABOUT: About = About {
    name: "internal",
    summary: "Weir about itself: the ledger, health, polls and queues",
    details: "Runs by default, through the same pipeline as everything else. In every row of the ledger \
              `accepted = delivered + queued + in_flight + dead_lettered + dropped`; `weir.ledger.difference` says so, and anything \
              but 0 is an error of Weir. Switch it off with `internal: {enabled: false}`.",
    sample: "internal:\n  interval: 10s\n",
    metrics: &[
        ACCEPTED,
        DELIVERED,
        QUEUED,
        IN_FLIGHT,
        DEAD_LETTERED,
        DROPPED,
        DIFFERENCE,
        HEALTHY,
        POLLS,
        POLL_DURATION,
        POLL_POINTS,
        POLL_SKIPPED,
        REQUESTS,
        QUEUE_BYTES,
        QUEUE_LIMIT,
        OLDEST,
        IN_FLIGHT_LIMIT,
        DEAD_LETTERS,
        DEAD_LETTERS_BYTES,
        DEAD_LETTERS_EVICTED,
        MEMORY,
        MEMORY_LIMIT,
    ],
    signals: &[Signal::Metrics],
};

/// The entry of the list.
pub const KIND: Kind = Kind::collect::<Itself>(ABOUT).by_default();

/// No options besides those of every collector.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Options {}

/// Collects what [`Telemetry`] knows.
pub struct Itself(Arc<Telemetry>);

impl Collect for Itself {
    type Config = Options;

    fn new(_: Options, context: &Context) -> Result<Self, Fault> {
        Ok(Self(context.telemetry.clone()))
    }

    fn watching(&mut self) -> Watching {
        Watching { watched: vec!["its own ledger and health".into()], not_watched: Vec::new() }
    }

    async fn collect(&mut self, out: &mut MetricsBuilder) -> Result<(), Fault> {
        self.ledger(out);
        self.polls(out);
        self.exporters(out);
        self.dead_letters(out);
        let memory = &self.0.memory;
        out.record(&MEMORY, &[], memory.used() as u64);
        out.record(&MEMORY_LIMIT, &[], memory.limit() as u64);
        for (name, health) in self.0.health.snapshot() {
            let value = match health.state {
                State::Healthy => 1_i64,
                State::Unhealthy => 0,
                State::Disabled | State::Initializing => continue,
            };
            out.record(&HEALTHY, &[("weir.integration", &name)], value);
        }
        Ok(())
    }
}

impl Itself {
    fn ledger(&self, out: &mut MetricsBuilder) {
        for ((source, exporter, signal), counts) in self.0.ledger.snapshot() {
            let row = [("weir.source", &*source), ("weir.exporter", &*exporter), ("weir.signal", signal.name())];
            out.record(&ACCEPTED, &row, counts.accepted);
            out.record(&DELIVERED, &row, counts.delivered);
            out.record(&QUEUED, &row, counts.queued);
            out.record(&IN_FLIGHT, &row, counts.in_flight);
            out.record(&DEAD_LETTERED, &row, counts.dead_lettered);
            out.record(&DIFFERENCE, &row, i64::try_from(counts.difference()).unwrap_or(i64::MAX));
            for (reason, records) in &counts.dropped {
                let [source, exporter, signal] = row;
                out.record(&DROPPED, &[source, exporter, signal, ("weir.reason", reason.name())], *records);
            }
        }
    }

    fn polls(&self, out: &mut MetricsBuilder) {
        for (name, counts) in self.0.all_polls() {
            let label = ("weir.integration", &*name);
            out.record(&POLLS, &[label], counts.succeeded);
            for (kind, failed) in &counts.failed {
                out.record(&POLLS, &[label, ("error.type", kind)], *failed);
            }
            out.record(&POLL_SKIPPED, &[label, ("weir.reason", "overlap")], counts.overlapped);
            out.record(&POLL_SKIPPED, &[label, ("weir.reason", Reason::MemoryFull.name())], counts.short_of_memory);
            if counts.succeeded > 0 || !counts.failed.is_empty() {
                out.record(&POLL_DURATION, &[label], counts.duration.as_secs_f64());
                out.record(&POLL_POINTS, &[label], counts.points);
            }
        }
    }

    fn dead_letters(&self, out: &mut MetricsBuilder) {
        let Some(letters) = self.0.dead_letters() else { return };
        for (exporter, count) in letters.counts() {
            out.record(&DEAD_LETTERS, &[("weir.exporter", &exporter)], count);
        }
        out.record(&DEAD_LETTERS_BYTES, &[], letters.bytes());
        out.record(&DEAD_LETTERS_EVICTED, &[], letters.evicted() + letters.expired());
    }

    fn exporters(&self, out: &mut MetricsBuilder) {
        for (outlet, attempts) in self.0.exporters() {
            let label = ("weir.exporter", &*outlet.name);
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            out.record(&REQUESTS, &[label, ("weir.outcome", "succeeded")], read(&attempts.succeeded));
            out.record(&REQUESTS, &[label, ("weir.outcome", "failed")], read(&attempts.failed));
            out.record(&IN_FLIGHT_LIMIT, &[label], read(&attempts.in_flight_limit));
            let status = outlet.queue.status();
            out.record(&QUEUE_BYTES, &[label], status.bytes as u64);
            out.record(&QUEUE_LIMIT, &[label], status.limit_bytes as u64);
            if let Some(age) = status.oldest {
                out.record(&OLDEST, &[label], age.as_secs_f64());
            }
        }
    }
}
