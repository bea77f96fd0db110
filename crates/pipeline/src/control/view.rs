//! A pipeline as JSON, for the API, the command line and the dashboard.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::control::{Control, ExporterShape, FlowShape, Shape};
use crate::dead_letters::signal_schema;
use crate::health::{Health, State};
use crate::kind::Role;
use crate::ledger::{Counts, Key};
use crate::options::WhenFull;
use crate::queue::{Outlet, QueueKind};
use crate::schedule::unix_nanos;
use crate::storage::Kept;
use crate::telemetry::PollCounts;

/// The ledger: where every record is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerView {
    /// One row for each source, exporter and signal.
    pub rows: Vec<LedgerRow>,
}

/// `accepted = delivered + queued + in_flight + dead_lettered + dropped`, in records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerRow {
    /// Where the records came from; `dead_letters` for those that are replayed.
    #[schema(example = "logs")]
    pub source: String,
    /// Where they go; `-` for those that no route takes.
    #[schema(example = "elasticsearch")]
    pub exporter: String,
    /// `metrics`, `logs` or `traces`.
    #[schema(schema_with = signal_schema)]
    pub signal: String,
    /// Taken from the source for this exporter.
    pub accepted: u64,
    /// The exporter's backend has them.
    pub delivered: u64,
    /// They wait in the exporter's queue.
    pub queued: u64,
    /// They are in a request under way, or wait to be sent again.
    pub in_flight: u64,
    /// The backend refused them for good; they are kept as dead letters.
    pub dead_lettered: u64,
    /// They were not delivered, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// What does not add up: 0 unless Weir has an error.
    pub difference: i64,
}

impl LedgerRow {
    /// A row as it is now.
    pub fn new((source, exporter, signal): &Key, counts: &Counts) -> Self {
        let dropped = counts.dropped.iter().map(|(reason, records)| (reason.name().to_owned(), *records));
        Self {
            source: source.to_string(),
            exporter: exporter.to_string(),
            signal: signal.name().to_owned(),
            accepted: counts.accepted,
            delivered: counts.delivered,
            queued: counts.queued,
            in_flight: counts.in_flight,
            dead_lettered: counts.dead_lettered,
            dropped: dropped.collect(),
            difference: i64::try_from(counts.difference()).unwrap_or(i64::MAX),
        }
    }
}

/// All rows as they are now.
pub fn ledger_rows(rows: &[(Key, Counts)]) -> LedgerView {
    LedgerView { rows: rows.iter().map(|(key, counts)| LedgerRow::new(key, counts)).collect() }
}

/// How an integration feels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthView {
    /// `disabled`, `initializing`, `healthy` or `unhealthy`.
    pub state: State,
    /// Since when, unix milliseconds.
    pub since_ms: u64,
    /// Why it is unhealthy.
    #[schema(required)]
    pub reason: Option<String>,
}

impl HealthView {
    fn new(health: Option<&Health>) -> Self {
        let (state, since) = health.map_or((State::Initializing, SystemTime::UNIX_EPOCH), |h| (h.state, h.since));
        let reason = health.and_then(|health| health.reason.clone());
        Self { state, since_ms: unix_nanos(since) / 1_000_000, reason }
    }
}

/// The pipeline: what brings records, which way they take, what takes them.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PipelineView {
    /// When it looked like this, unix milliseconds.
    pub time_ms: u64,
    /// What brings records.
    pub sources: Vec<SourceView>,
    /// The routes.
    pub routes: Vec<RouteView>,
    /// What takes records.
    pub exporters: Vec<ExporterView>,
    /// From every source to every exporter, what became of the records.
    pub flows: Vec<FlowView>,
}

/// A source.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SourceView {
    /// Its name.
    #[schema(example = "logs")]
    pub name: String,
    /// Its kind.
    #[schema(example = "logs")]
    pub kind: String,
    /// `collect` or `receive`.
    pub role: Role,
    /// How it feels.
    pub health: HealthView,
    /// Polls that were due and did not take place.
    pub skipped_polls: SkippedPollsView,
}

/// Polls of a collector that were due and did not take place, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SkippedPollsView {
    /// An earlier poll was under way.
    pub overlap: u64,
    /// Memory was used up: nothing could have kept what they gather.
    pub memory_full: u64,
}

impl SkippedPollsView {
    fn new(counts: &PollCounts) -> Self {
        Self { overlap: counts.overlapped, memory_full: counts.short_of_memory }
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RouteView {
    /// Its place in the configuration, or `everything`.
    #[schema(example = "route 1")]
    pub name: String,
    /// The condition that records must meet.
    #[schema(required)]
    pub keep: Option<String>,
    /// Resource attributes that it sets.
    pub set: BTreeMap<String, String>,
}

/// An exporter.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ExporterView {
    /// Its name.
    #[schema(example = "elasticsearch")]
    pub name: String,
    /// Its kind.
    #[schema(example = "elasticsearch")]
    pub kind: String,
    /// How it feels.
    pub health: HealthView,
    /// What waits for it.
    pub queue: QueueView,
    /// Requests that may be under way at once, as the worker has found out.
    pub in_flight_limit: u64,
    /// Until when nothing is sent, unix milliseconds.
    #[schema(required)]
    pub paused_until_ms: Option<u64>,
    /// Its requests.
    pub requests: RequestsView,
    /// Why the last request failed that did.
    #[schema(required)]
    pub last_error: Option<LastErrorView>,
    /// Records that its backend refused for good and that are kept.
    pub dead_letters: u64,
}

/// What waits for an exporter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    /// The exporter.
    #[schema(example = "elasticsearch")]
    pub exporter: String,
    /// `disk` or `memory`.
    pub kind: QueueKind,
    /// Records that wait.
    pub records: u64,
    /// Bytes that wait or are under way.
    pub bytes: u64,
    /// The bound in bytes.
    pub limit_bytes: u64,
    /// Age of the oldest record that waits.
    #[schema(required)]
    pub oldest_age_seconds: Option<f64>,
    /// What happens when it is full: `block` or `drop_oldest`.
    pub when_full: WhenFull,
    /// Why nothing more fits at the moment.
    #[schema(required)]
    pub short_of: Option<String>,
}

/// All queues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueuesView {
    /// One for each exporter.
    pub queues: Vec<QueueView>,
}

/// Requests of an exporter.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RequestsView {
    /// Those that were taken.
    pub succeeded: u64,
    /// Those that were not.
    pub failed: u64,
}

/// Why a request failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LastErrorView {
    /// In words.
    pub text: String,
    /// When, unix milliseconds.
    pub time_ms: u64,
}

/// The way from a source to an exporter for a signal, in records.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FlowView {
    /// The position of its route; none for what was configured before, is replayed, or no route takes.
    #[schema(required)]
    pub route: Option<usize>,
    /// What became of the records.
    #[serde(flatten)]
    pub row: LedgerRow,
}

fn kind_of(name: &str) -> String {
    name.split('/').next().unwrap_or_default().to_owned()
}

impl Control {
    /// Where every record is.
    pub fn ledger(&self) -> LedgerView {
        ledger_rows(&self.telemetry().ledger.snapshot())
    }

    /// What waits for every exporter, also for those that are not configured any more.
    pub fn queues(&self) -> QueuesView {
        let queues = self.with_shape(|shape| {
            let running = shape.exporters.iter().map(queue_view);
            let draining = shape.draining.iter().filter_map(Weak::upgrade);
            let draining = draining.map(|outlet| outlet_view(&outlet, WhenFull::Block));
            running.chain(draining).chain(shape.kept.iter().map(kept_view)).collect()
        });
        QueuesView { queues }
    }

    /// The ways between sources and exporters, and the rows of the ledger that are on none of them: what no
    /// route took, what is replayed, what was configured before.
    fn flows(&self, shape: &Shape) -> Vec<FlowView> {
        let configured = shape.flows.iter().map(|flow| {
            let key = (flow.source.clone(), flow.exporter.clone(), flow.signal);
            FlowView { route: Some(flow.route), row: LedgerRow::new(&key, &flow.row.counts()) }
        });
        let is_configured = |(source, exporter, signal): &Key| {
            let same =
                |flow: &FlowShape| flow.source == *source && flow.exporter == *exporter && flow.signal == *signal;
            shape.flows.iter().any(same)
        };
        let others = self.telemetry().ledger.snapshot().into_iter().filter(|(key, _)| !is_configured(key));
        let others = others.map(|(key, counts)| FlowView { route: None, row: LedgerRow::new(&key, &counts) });
        configured.chain(others).collect()
    }

    /// The pipeline as it is now.
    pub fn pipeline(&self) -> PipelineView {
        let health = self.telemetry().health.snapshot();
        let polls: BTreeMap<Arc<str>, PollCounts> = self.telemetry().all_polls().into_iter().collect();
        let letters = self.dead_letters().map(|letters| letters.counts()).unwrap_or_default();
        self.with_shape(|shape| PipelineView {
            time_ms: unix_nanos(SystemTime::now()) / 1_000_000,
            sources: shape
                .sources
                .iter()
                .map(|source| SourceView {
                    name: source.name.to_string(),
                    kind: kind_of(&source.name),
                    role: source.role,
                    health: HealthView::new(health.get(&source.name)),
                    skipped_polls: polls.get(&source.name).map(SkippedPollsView::new).unwrap_or_default(),
                })
                .collect(),
            routes: shape.routes.clone(),
            exporters: shape
                .exporters
                .iter()
                .map(|exporter| {
                    let name = &exporter.outlet.name;
                    let kept = letters.get(&**name).copied().unwrap_or(0);
                    exporter_view(exporter, HealthView::new(health.get(name)), kept)
                })
                .collect(),
            flows: self.flows(shape),
        })
    }
}

fn exporter_view(exporter: &ExporterShape, health: HealthView, dead_letters: u64) -> ExporterView {
    let attempts = &exporter.attempts;
    let paused = attempts.paused_until_ms.load(Ordering::Relaxed);
    ExporterView {
        name: exporter.outlet.name.to_string(),
        kind: kind_of(&exporter.outlet.name),
        health,
        queue: queue_view(exporter),
        in_flight_limit: attempts.in_flight_limit.load(Ordering::Relaxed),
        paused_until_ms: (paused > unix_nanos(SystemTime::now()) / 1_000_000).then_some(paused),
        requests: RequestsView {
            succeeded: attempts.succeeded.load(Ordering::Relaxed),
            failed: attempts.failed.load(Ordering::Relaxed),
        },
        last_error: attempts.last_error().map(|error| LastErrorView { text: error.text, time_ms: error.time_ms }),
        dead_letters,
    }
}

fn queue_view(exporter: &ExporterShape) -> QueueView {
    outlet_view(&exporter.outlet, exporter.when_full)
}

fn outlet_view(outlet: &Outlet, when_full: WhenFull) -> QueueView {
    let status = outlet.queue.status();
    QueueView {
        exporter: outlet.name.to_string(),
        kind: status.kind,
        records: status.records,
        bytes: status.bytes as u64,
        limit_bytes: status.limit_bytes as u64,
        oldest_age_seconds: status.oldest.map(|age| age.as_secs_f64()),
        when_full,
        short_of: status.is_short.or(status.is_damaged),
    }
}

/// A queue on disk that no exporter has.
fn kept_view(kept: &Kept) -> QueueView {
    let age = |oldest: SystemTime| SystemTime::now().duration_since(oldest).unwrap_or_default().as_secs_f64();
    QueueView {
        exporter: kept.exporter.to_string(),
        kind: QueueKind::Disk,
        records: kept.records,
        bytes: kept.bytes,
        limit_bytes: 0,
        oldest_age_seconds: kept.oldest.map(age),
        when_full: WhenFull::Block,
        short_of: Some("no exporter has this queue any more; configure it again to deliver what waits".to_owned()),
    }
}
