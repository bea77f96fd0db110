//! What takes records: a queue and a worker for each exporter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use weir_model::Signal;

use crate::control::{Changes, ExporterShape};
use crate::memory_budget::MemoryBudget;
use crate::options::{ExportOptions, WhenRemoved};
use crate::pipeline::StartError;
use crate::plan::Identity;
use crate::queue::{DiskQueue, DiskQueueOptions, MemoryQueue, Outlet, Queue};
use crate::role::DynExport;
use crate::storage::Storage;
use crate::telemetry::{Attempts, Telemetry};
use crate::worker::Worker;

/// How long a worker has to end its attempts when another takes its place.
const HAND_OVER: Duration = Duration::from_secs(6);

/// How often it is looked whether a queue that is drained is empty.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// An exporter of a plan.
pub type Exporting = (Arc<str>, Option<Identity>, ExportOptions, Box<dyn DynExport>);

/// What all exporters share.
#[derive(Clone)]
pub struct Shared {
    /// Where queues on disk lie, if any does.
    pub storage: Option<Arc<Storage>>,
    /// Bounds what is in memory.
    pub budget: Arc<MemoryBudget>,
    /// Ledger and health.
    pub telemetry: Arc<Telemetry>,
    /// Ends all workers at once.
    pub abandon: CancellationToken,
}

/// All exporters of a pipeline.
pub struct Exporters {
    shared: Shared,
    running: BTreeMap<Arc<str>, Exporter>,
    /// Those that were removed and deliver what waits for them.
    draining: BTreeMap<Arc<str>, Exporter>,
}

/// An exporter that runs.
struct Exporter {
    identity: Option<Identity>,
    options: ExportOptions,
    signals: &'static [Signal],
    line: Line,
    release: CancellationToken,
    worker: AbortOnDropHandle<()>,
}

/// What stays of an exporter when its worker changes.
#[derive(Clone)]
struct Line {
    outlet: Arc<Outlet>,
    /// The queue, if it is on disk.
    disk: Option<Arc<DiskQueue>>,
    attempts: Arc<Attempts>,
}

/// What [`Exporters::prepare`] made.
pub struct Prepared {
    coming: Vec<Coming>,
    going: Vec<Arc<str>>,
    unchanged: Vec<Arc<str>>,
}

struct Coming {
    name: Arc<str>,
    identity: Option<Identity>,
    options: ExportOptions,
    exporter: Arc<dyn DynExport>,
    signals: &'static [Signal],
    line: Line,
}

impl Exporters {
    /// None yet.
    pub fn new(shared: Shared) -> Self {
        Self { shared, running: BTreeMap::new(), draining: BTreeMap::new() }
    }

    /// Opens the queues of those that are new, and leaves out those that run unchanged.
    ///
    /// # Errors
    /// [`StartError`] for the first queue that cannot be opened.
    pub fn prepare(&self, exporting: Vec<Exporting>, memory_bytes: usize) -> Result<Prepared, StartError> {
        let named: Vec<&Arc<str>> = exporting.iter().map(|(name, ..)| name).collect();
        let is_going = |(name, exporter): &(&Arc<str>, &Exporter)| exporter.identity.is_some() && !named.contains(name);
        let going = self.running.iter().filter(is_going).map(|(name, _)| name.clone()).collect();
        let share = memory_bytes / exporting.len().max(1);
        let mut prepared = Prepared { coming: Vec::new(), going, unchanged: Vec::new() };
        for (name, identity, options, exporter) in exporting {
            let running = self.running.get(&name);
            if running.is_some_and(|running| running.identity == identity) {
                prepared.unchanged.push(name);
                continue;
            }
            let before = running.or_else(|| self.draining.get(&name));
            let line = match before.filter(|before| self.keeps_queue(before, &options)) {
                Some(before) => before.line.clone(),
                None => self.line(&name, &options, share)?,
            };
            let exporter: Arc<dyn DynExport> = Arc::from(exporter);
            let signals = exporter.takes().signals;
            prepared.coming.push(Coming { name, identity, options, exporter, signals, line });
        }
        Ok(prepared)
    }

    /// Where the exporter's records wait, if on disk.
    fn storage(&self, options: &ExportOptions) -> Option<&Arc<Storage>> {
        self.shared.storage.as_ref().filter(|storage| storage.keeps(options))
    }

    /// Whether an exporter that runs with other options afterwards keeps its queue.
    fn keeps_queue(&self, before: &Exporter, options: &ExportOptions) -> bool {
        match (&before.line.disk, self.storage(options)) {
            (Some(_), Some(_)) => true,
            (None, None) => {
                before.options.queue_size == options.queue_size && before.options.when_full == options.when_full
            }
            _ => false,
        }
    }

    fn line(&self, name: &Arc<str>, options: &ExportOptions, share: usize) -> Result<Line, StartError> {
        let (queue, disk): (Arc<dyn Queue>, _) = match self.storage(options) {
            Some(storage) => {
                let bounds = storage.queue_options(options, &self.shared.budget);
                let failed = |reason| StartError { integration: name.clone(), reason };
                let queue = Arc::new(storage.queue(name, bounds, &self.shared.telemetry.ledger).map_err(failed)?);
                (queue.clone(), Some(queue))
            }
            None => {
                let limit = options.queue_size.map_or(share, |size| usize::try_from(size.bytes()).unwrap_or(usize::MAX));
                (Arc::new(MemoryQueue::new(limit, options.when_full, Some(self.shared.budget.clone()))), None)
            }
        };
        let outlet = Arc::new(Outlet { name: name.clone(), queue });
        Ok(Line { outlet, disk, attempts: Arc::default() })
    }

    /// The outlets of all exporters as they are to be, and what each takes.
    pub fn outlets(&self, prepared: &Prepared) -> Vec<(Arc<Outlet>, &'static [Signal])> {
        let stays = |name: &&Arc<str>| {
            !prepared.going.contains(name) && !prepared.coming.iter().any(|coming| coming.name == **name)
        };
        let running = self.running.keys().filter(stays).filter_map(|name| self.running.get(name));
        let running = running.map(|exporter| (exporter.line.outlet.clone(), exporter.signals));
        let coming = prepared.coming.iter().map(|coming| (coming.line.outlet.clone(), coming.signals));
        let mut outlets: Vec<_> = running.chain(coming).collect();
        outlets.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
        outlets
    }

    /// Starts what comes; a worker that runs with other options afterwards hands over what it holds.
    /// Those that go are given back: they are let go of when nothing is on its way to them.
    pub async fn commit(&mut self, prepared: Prepared, changes: &mut Changes) -> Vec<(Arc<str>, WhenRemoved)> {
        let Prepared { coming, going, unchanged } = prepared;
        changes.unchanged += unchanged.len();
        let mut removed: Vec<(Arc<str>, WhenRemoved)> = Vec::new();
        for name in going {
            if let Some(exporter) = self.running.remove(&name) {
                removed.push((name.clone(), exporter.options.when_removed));
                self.draining.insert(name, exporter);
            }
        }
        for coming in coming {
            let name = coming.name.clone();
            let before = self.running.remove(&name).or_else(|| self.draining.remove(&name));
            let list = if before.is_some() { &mut changes.restarted } else { &mut changes.started };
            list.push(name.to_string());
            if let Some(before) = before {
                if Arc::ptr_eq(&before.line.outlet, &coming.line.outlet) {
                    before.hand_over().await;
                } else {
                    // Its records are in another place: they are delivered as they were to be.
                    self.drain(&before);
                    self.draining.insert(Arc::from(format!("{name} (before)")), before);
                }
            }
            self.start(coming);
        }
        removed
    }

    fn start(&mut self, coming: Coming) {
        let Coming { name, identity, options, exporter, signals, line } = coming;
        let Shared { storage, budget, telemetry, abandon } = &self.shared;
        if let (Some(disk), Some(storage)) = (&line.disk, storage) {
            let DiskQueueOptions { limit_bytes, when_full, sync, max_age, .. } = storage.queue_options(&options, budget);
            disk.reconfigure(limit_bytes, when_full, sync, max_age);
        }
        if line.disk.is_none() {
            // It may have had one before: the file of the ledger has its rows from now on.
            telemetry.ledger.has_no_queue(&name);
        }
        telemetry.health.initializing(&name);
        telemetry.exporter(line.outlet.clone(), line.attempts.clone());
        let release = CancellationToken::new();
        let worker = Worker {
            name: name.clone(),
            exporter,
            queue: line.outlet.queue.clone(),
            options: options.clone(),
            board: telemetry.health.clone(),
            attempts: line.attempts.clone(),
            // The program's own exporters answer their senders.
            dead_letters: storage.as_ref().filter(|_| identity.is_some()).map(|storage| storage.dead_letters.clone()),
        };
        let worker = AbortOnDropHandle::new(tokio::spawn(worker.run(release.clone(), abandon.clone())));
        self.running.insert(name, Exporter { identity, options, signals, line, release, worker });
    }

    /// Ends the worker of an exporter when nothing waits any more.
    fn drain(&self, exporter: &Exporter) {
        let (outlet, release) = (exporter.line.outlet.clone(), exporter.release.clone());
        let telemetry = self.shared.telemetry.clone();
        tokio::spawn(async move {
            while !release.is_cancelled() && !is_done(&telemetry, &outlet) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            release.cancel();
        });
    }

    /// Lets go of exporters that were removed, now that nothing is on its way to them: what waits is
    /// delivered first, or kept.
    pub async fn remove(&mut self, removed: Vec<(Arc<str>, WhenRemoved)>, changes: &mut Changes) {
        for (name, how) in removed {
            changes.stopped.push(name.to_string());
            let is_kept = how == WhenRemoved::Keep;
            match self.draining.get(&name) {
                Some(exporter) if !is_kept || exporter.line.disk.is_none() => self.drain(exporter),
                _ => {
                    let Some(exporter) = self.draining.remove(&name) else { continue };
                    exporter.hand_over().await;
                    self.shared.telemetry.forget(&name);
                }
            }
        }
    }

    /// Forgets those that were removed and have delivered everything.
    pub fn forget_drained(&mut self) {
        let telemetry = &self.shared.telemetry;
        self.draining.retain(|name, exporter| {
            let is_over = exporter.worker.is_finished();
            if is_over && !self.running.contains_key(name) {
                telemetry.forget(name);
            }
            !is_over
        });
    }

    /// What they are.
    pub fn shapes(&self) -> Vec<ExporterShape> {
        let shape = |exporter: &Exporter| ExporterShape {
            outlet: exporter.line.outlet.clone(),
            attempts: exporter.line.attempts.clone(),
            when_full: exporter.options.when_full,
        };
        self.running.values().map(shape).collect()
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Exporter> {
        self.running.values_mut().chain(self.draining.values_mut())
    }

    /// Takes no more records.
    pub fn close(&mut self) {
        self.all().for_each(|exporter| exporter.line.outlet.queue.close());
    }

    /// Waits until every worker has delivered what it can.
    pub async fn ended(&mut self) {
        let unfinished = self.all().filter(|exporter| !exporter.worker.is_finished());
        join_all(unfinished.map(|exporter| &mut exporter.worker)).await;
    }

    /// Ends all workers at once.
    pub fn abandon(&self) {
        self.shared.abandon.cancel();
    }

    /// Makes what the queues on disk know last: call it when the workers have ended.
    pub async fn finish(&mut self) {
        let disks: Vec<_> = self.all().filter_map(|exporter| exporter.line.disk.clone()).collect();
        let sync = move || {
            for disk in disks {
                if let Err(error) = disk.sync() {
                    tracing::warn!("cannot note what was delivered ({error}); it may be delivered again after the next start");
                }
            }
        };
        // A panic there is told by the queue itself.
        let _ = tokio::task::spawn_blocking(sync).await;
    }
}

impl Exporter {
    /// Ends its worker; what it holds goes back to the queue.
    async fn hand_over(self) {
        self.release.cancel();
        if tokio::time::timeout(HAND_OVER, self.worker).await.is_err() {
            tracing::warn!("{}: the exporter did not let go in time and is ended", self.line.outlet.name);
        }
    }
}

/// Whether nothing waits for an exporter and nothing is under way.
fn is_done(telemetry: &Telemetry, outlet: &Outlet) -> bool {
    let own = telemetry.ledger.snapshot().into_iter().filter(|((_, exporter, _), _)| *exporter == outlet.name);
    own.map(|(_, counts)| counts.queued + counts.in_flight).sum::<u64>() == 0
}
