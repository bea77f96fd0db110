//! What takes records: a queue and a worker for each exporter.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use weir_model::Signal;

use crate::control::{Changes, ExporterShape};
use crate::memory_budget::MemoryBudget;
use crate::options::{ExportOptions, WhenRemoved};
use crate::pipeline::StartError;
use crate::pipeline::draining::Draining;
use crate::plan::Identity;
use crate::queue::{DiskQueue, DiskQueueOptions, MemoryQueue, Outlet, Queue};
use crate::role::DynExport;
use crate::storage::{Kept, Storage};
use crate::telemetry::{Attempts, Telemetry};
use crate::worker::Worker;

/// How long a worker has to end its attempts when another takes its place.
const HAND_OVER: Duration = Duration::from_secs(6);

/// How long it is waited for a queue on disk that somebody still looks at to be closed.
const CLOSING: Duration = Duration::from_secs(1);

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
    running: BTreeMap<Arc<str>, Exporter>,
    draining: Draining,
    /// Those that were draining when everything was stopped.
    last: Vec<Exporter>,
    /// Every queue on disk that was opened: two on one folder would destroy each other.
    opened: BTreeMap<Arc<str>, Weak<DiskQueue>>,
    /// Queues on disk of exporters that are not configured with one any more.
    kept: BTreeMap<Arc<str>, Kept>,
    shared: Shared,
}

/// An exporter that runs.
pub struct Exporter {
    identity: Option<Identity>,
    options: ExportOptions,
    signals: &'static [Signal],
    /// What outlives its worker.
    pub line: Line,
    /// Ends its worker; what it holds goes back to the queue.
    pub release: CancellationToken,
    /// Delivers.
    pub worker: AbortOnDropHandle<()>,
}

/// What stays of an exporter when its worker changes.
#[derive(Clone)]
pub struct Line {
    /// The queue as sources see it.
    pub outlet: Arc<Outlet>,
    /// The queue, if it is on disk.
    disk: Option<Arc<DiskQueue>>,
    attempts: Arc<Attempts>,
}

impl Line {
    /// Lets go of the queue. One on disk is closed, unless somebody else has it still.
    pub async fn close(self) {
        let Line { outlet, disk, .. } = self;
        drop(outlet);
        if let Some(disk) = disk {
            // It waits for the disk. A panic there is told by the queue itself.
            let _ = tokio::task::spawn_blocking(move || drop(disk)).await;
        }
    }
}

/// What [`Exporters::prepare`] made.
pub struct Prepared {
    coming: Vec<Coming>,
    /// Their queue on disk is open still: an exporter whose queue moved to memory empties it.
    returning: Vec<Exporting>,
    going: Vec<Arc<str>>,
    unchanged: Vec<Arc<str>>,
    share: usize,
}

struct Coming {
    name: Arc<str>,
    identity: Option<Identity>,
    options: ExportOptions,
    exporter: Arc<dyn DynExport>,
    signals: &'static [Signal],
    line: Line,
}

impl Coming {
    fn new((name, identity, options, exporter): Exporting, line: Line) -> Self {
        let exporter: Arc<dyn DynExport> = Arc::from(exporter);
        let signals = exporter.takes().signals;
        Self { name, identity, options, exporter, signals, line }
    }
}

/// An exporter that is not needed any more in its place.
pub struct Removed {
    exporter: Exporter,
    /// It has another queue now.
    has_moved: bool,
}

impl Exporters {
    /// None yet. `kept` are queues on disk that no exporter has.
    pub fn new(shared: Shared, kept: Vec<Kept>) -> Self {
        let kept = kept.into_iter().map(|kept| (kept.exporter.clone(), kept)).collect();
        let (draining, opened) = (Draining::default(), BTreeMap::new());
        Self { running: BTreeMap::new(), draining, last: Vec::new(), opened, kept, shared }
    }

    /// Opens the queues of those that are new, and leaves out those that run unchanged.
    ///
    /// # Errors
    /// [`StartError`] for the first queue that cannot be opened; nothing has changed then.
    pub async fn prepare(&mut self, exporting: Vec<Exporting>, memory_bytes: usize) -> Result<Prepared, StartError> {
        let named: Vec<Arc<str>> = exporting.iter().map(|(name, ..)| name.clone()).collect();
        let others = || self.running.iter().filter(|(name, _)| !named.contains(name));
        let going =
            others().filter(|(_, exporter)| exporter.identity.is_some()).map(|(name, _)| name.clone()).collect();
        // What the program made stays, and needs its share.
        let staying = others().filter(|(_, exporter)| exporter.identity.is_none()).count();
        let share = memory_bytes / (named.len() + staying).max(1);
        let mut prepared = Prepared { coming: Vec::new(), returning: Vec::new(), going, unchanged: Vec::new(), share };
        for exporting in exporting {
            let (name, identity, options, _) = &exporting;
            let running = self.running.get(name);
            if running.is_some_and(|running| running.identity == *identity) {
                prepared.unchanged.push(name.clone());
                continue;
            }
            let keep = |before: &Exporter| self.keeps_queue(before, options).then(|| before.line.clone());
            let line = running.map_or_else(|| self.draining.find(name, keep), keep);
            if line.is_none() && self.storage(options).is_some() && self.is_open(name) {
                prepared.returning.push(exporting);
                continue;
            }
            let line = match line.map_or_else(|| self.line(name, options, share), Ok) {
                Ok(line) => line,
                Err(error) => {
                    self.give_up(prepared).await;
                    return Err(error);
                }
            };
            prepared.coming.push(Coming::new(exporting, line));
        }
        Ok(prepared)
    }

    /// Opens the queues that can be opened only when others let go of them: the last step that may fail.
    ///
    /// # Errors
    /// [`StartError`] for the first that cannot be opened; what waits in it stays on the disk.
    pub async fn reopen(&mut self, mut prepared: Prepared) -> Result<Prepared, StartError> {
        for exporting in std::mem::take(&mut prepared.returning) {
            let (name, _, options, _) = &exporting;
            let has_queue = |exporter: &Exporter| exporter.line.outlet.name == *name && exporter.line.disk.is_some();
            if let Some(exporter) = self.draining.take(has_queue) {
                self.put_away(exporter.hand_over().await).await;
            }
            self.closed(|open| open == name).await;
            let opened = if self.is_open(name) {
                let reason = "its queue on the disk is still in use; try again in a minute".to_owned();
                Err(StartError { integration: name.clone(), reason })
            } else {
                self.line(name, options, prepared.share)
            };
            match opened {
                Ok(line) => prepared.coming.push(Coming::new(exporting, line)),
                Err(error) => {
                    self.give_up(prepared).await;
                    return Err(error);
                }
            }
        }
        Ok(prepared)
    }

    /// Closes what was opened for a change that does not take place.
    pub async fn give_up(&self, prepared: Prepared) {
        for Coming { name, line, .. } in prepared.coming {
            let running = self.running.get(&name);
            if running.is_some_and(|running| running.line.disk.is_none()) && line.disk.is_some() {
                // Its rows are not those of the queue's log after all.
                self.shared.telemetry.ledger.has_no_queue(&name);
            }
            line.close().await;
        }
    }

    /// Whether the queue on disk of this name is open.
    fn is_open(&self, name: &str) -> bool {
        self.opened.get(name).is_some_and(|queue| queue.strong_count() > 0)
    }

    /// Waits until the queues on disk of some names are closed, for a while.
    async fn closed(&self, of: impl Fn(&Arc<str>) -> bool) {
        let deadline = Instant::now() + CLOSING;
        while self.opened.keys().any(|name| of(name) && self.is_open(name)) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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

    fn line(&mut self, name: &Arc<str>, options: &ExportOptions, share: usize) -> Result<Line, StartError> {
        let (queue, disk): (Arc<dyn Queue>, _) = match self.storage(options) {
            Some(storage) => {
                let bounds = storage.queue_options(options, &self.shared.budget);
                let failed = |reason| StartError { integration: name.clone(), reason };
                let queue = Arc::new(storage.queue(name, bounds, &self.shared.telemetry.ledger).map_err(failed)?);
                self.opened.insert(name.clone(), Arc::downgrade(&queue));
                (queue.clone(), Some(queue))
            }
            None => {
                let limit =
                    options.queue_size.map_or(share, |size| usize::try_from(size.bytes()).unwrap_or(usize::MAX));
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
    pub async fn commit(&mut self, prepared: Prepared, changes: &mut Changes) -> Vec<Removed> {
        let Prepared { coming, going, unchanged, .. } = prepared;
        changes.unchanged += unchanged.len();
        let gone = going.iter().filter_map(|name| self.running.remove(name));
        let mut removed: Vec<Removed> = gone.map(|exporter| Removed { exporter, has_moved: false }).collect();
        let mut handing_over = Vec::new();
        for Coming { name, line, .. } in &coming {
            let has_queue = |exporter: &Exporter| Arc::ptr_eq(&exporter.line.outlet, &line.outlet);
            let before = self.running.remove(name).or_else(|| self.draining.take(has_queue));
            let list = if before.is_some() { &mut changes.restarted } else { &mut changes.started };
            list.push(name.to_string());
            match before {
                Some(before) if has_queue(&before) => handing_over.push(before.hand_over()),
                // Its records are in another place: they are delivered as they were to be.
                Some(exporter) => removed.push(Removed { exporter, has_moved: true }),
                None => {}
            }
        }
        // All at once: each may have a request under way that takes its time.
        join_all(handing_over).await;
        coming.into_iter().for_each(|coming| self.start(coming));
        removed
    }

    fn start(&mut self, coming: Coming) {
        let Coming { name, identity, options, exporter, signals, line } = coming;
        let Shared { storage, budget, telemetry, abandon } = &self.shared;
        if let (Some(disk), Some(storage)) = (&line.disk, storage) {
            let DiskQueueOptions { limit_bytes, when_full, sync, max_age, .. } =
                storage.queue_options(&options, budget);
            disk.reconfigure(limit_bytes, when_full, sync, max_age);
            self.kept.remove(&name);
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
        let running = work(worker, release.clone(), abandon.clone());
        let worker = AbortOnDropHandle::new(tokio::spawn(running));
        self.running.insert(name, Exporter { identity, options, signals, line, release, worker });
    }

    /// Lets go of exporters that were removed, now that nothing is on its way to them: what waits is
    /// delivered first, or kept.
    pub async fn remove(&mut self, removed: Vec<Removed>, changes: &mut Changes) {
        let telemetry = self.shared.telemetry.clone();
        let mut handing_over = Vec::new();
        for Removed { exporter, has_moved } in removed {
            if !has_moved {
                changes.stopped.push(exporter.line.outlet.name.to_string());
            }
            let is_kept = exporter.options.when_removed == WhenRemoved::Keep && exporter.line.disk.is_some();
            if is_kept && !has_moved {
                handing_over.push(exporter.hand_over());
            } else {
                self.draining.add(exporter, has_moved, &telemetry);
            }
        }
        for line in join_all(handing_over).await {
            telemetry.forget_exporter(&line.outlet);
            self.put_away(line).await;
        }
    }

    /// Closes the queue of an exporter that has no worker any more; what waits is kept on the disk.
    async fn put_away(&mut self, line: Line) {
        let (name, status) = (line.outlet.name.clone(), line.outlet.queue.status());
        line.close().await;
        if status.records > 0 {
            self.kept.insert(name.clone(), Kept::new(name, &status));
        }
    }

    /// Whether one of this name runs.
    pub fn has(&self, name: &str) -> bool {
        self.running.contains_key(name)
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

    /// Queues without an exporter: those that are emptied, and those that wait for one.
    pub fn leaving(&self) -> (Vec<Weak<Outlet>>, Vec<Kept>) {
        (self.draining.outlets(), self.kept.values().cloned().collect())
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Exporter> {
        self.running.values_mut().chain(&mut self.last)
    }

    /// Takes no more records.
    pub fn close(&mut self) {
        self.last.extend(self.draining.take_all());
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

    /// Makes what the queues on disk know last, and closes them: call it when the workers have ended.
    pub async fn finish(&mut self) {
        let ended = std::mem::take(&mut self.running).into_values().chain(std::mem::take(&mut self.last));
        let disks: Vec<_> = ended
            .filter_map(|exporter| {
                let Line { outlet, disk, .. } = exporter.line;
                let disk = disk?;
                self.shared.telemetry.close_exporter(&outlet);
                Some(disk)
            })
            .collect();
        let sync = move || {
            for disk in disks {
                if let Err(error) = disk.sync() {
                    tracing::warn!(
                        "cannot note what was delivered ({error}); it may be delivered again after the next start"
                    );
                }
            }
        };
        // A panic there is told by the queue itself. A disk that hangs must not keep the process: what it
        // does not hear is delivered again.
        let _ = tokio::time::timeout(CLOSING, tokio::task::spawn_blocking(sync)).await;
        self.closed(|_| true).await;
    }
}

impl Exporter {
    /// Ends its worker; what it holds goes back to the queue.
    async fn hand_over(self) -> Line {
        self.release.cancel();
        if tokio::time::timeout(HAND_OVER, self.worker).await.is_err() {
            tracing::warn!("{}: the exporter did not let go in time and is ended", self.line.outlet.name);
        }
        self.line
    }
}

/// Runs a worker; one that panics is unhealthy.
async fn work(worker: Worker, release: CancellationToken, abandon: CancellationToken) {
    let (name, board) = (worker.name.clone(), worker.board.clone());
    if AssertUnwindSafe(worker.run(release, abandon)).catch_unwind().await.is_err() {
        board.unhealthy(&name, "the exporter panicked and delivers no more; please report it, and restart Weir");
    }
}
