//! What outlives the process, open.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::dead_letters::{self, DeadLetters};
use crate::disk::{Disk, FolderLock, RealDisk};
use crate::ledger::{self, Counts, Ledger, LedgerFile, Settled, Totals};
use crate::memory_budget::MemoryBudget;
use crate::options::ExportOptions;
use crate::queue::{self, DiskQueue, DiskQueueOptions, Key, SharedQuota};
use crate::storage::{Kept, LEDGER_FILE, StoragePlan, queues_in};

/// Bytes of one exporter's queue where nothing is configured.
const QUEUE_BYTES: u64 = 1 << 30;

/// Bytes of the file system that stay free where nothing is configured, unless it is small.
const RESERVE_BYTES: u64 = 256 << 20;

/// What outlives the process, open.
#[derive(Debug)]
pub struct Storage {
    plan: StoragePlan,
    disk: Arc<dyn Disk>,
    key: Option<Key>,
    shared: Arc<SharedQuota>,
    ledger_file: LedgerFile,
    /// Whether the ledger could not be written down the last time.
    is_unsaved: AtomicBool,
    /// What backends refused for good.
    pub dead_letters: Arc<DeadLetters>,
    _lock: FolderLock,
}

impl Storage {
    /// Opens the data folder for this process alone, and counts in the ledger what no queue keeps.
    ///
    /// # Errors
    /// One line with cause and remedy.
    pub fn open(plan: StoragePlan, ledger: &Ledger) -> Result<Self, String> {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let shown = plan.folder.display();
        let remedy =
            "choose another folder with `agent.data`, or keep records in memory with `delivery: {queue: memory}`";
        disk.create_folder(&plan.folder)
            .map_err(|error| format!("cannot make the folder {shown}: {error}; {remedy}"))?;
        let lock = FolderLock::take(&plan.folder).map_err(|error| format!("{error}; {remedy}"))?;
        let key = plan.key_file.as_deref().map(Key::read).transpose();
        let key = key.map_err(|error| format!("delivery.key_file: {error}"))?;
        let ledger_file = LedgerFile::open(disk.clone(), plan.folder.join(LEDGER_FILE), ledger);
        let limits = dead_letters::Limits { bytes: plan.dead_letters_bytes, age: plan.dead_letters_age };
        let dead_letters = Arc::new(DeadLetters::open(&plan.folder, limits));
        if let Err(error) = dead_letters.blocking().load() {
            tracing::warn!(folder = %plan.folder.display(), %error, "the dead letters cannot be read; trying again when they are needed");
        }
        let shared = Arc::new(SharedQuota::new(plan.disk_bytes));
        Ok(Self { plan, disk, key, shared, ledger_file, is_unsaved: AtomicBool::new(false), dead_letters, _lock: lock })
    }

    /// Whether an exporter's records wait on the disk.
    pub fn keeps(&self, options: &ExportOptions) -> bool {
        self.plan.is_on_disk(options.queue)
    }

    /// Bounds and promises of an exporter's queue.
    pub fn queue_options(&self, options: &ExportOptions, budget: &Arc<MemoryBudget>) -> DiskQueueOptions {
        let mut queue = DiskQueueOptions::new(options.queue_size.map_or(QUEUE_BYTES, |size| size.bytes()));
        queue.when_full = options.when_full;
        queue.sync = options.queue_sync.unwrap_or(self.plan.sync);
        queue.reserve_bytes = self.plan.reserve_bytes.unwrap_or_else(|| default_reserve_bytes(&self.plan.folder));
        let age: Duration = options.retry_max_age.get();
        queue.max_age = (!age.is_zero()).then_some(age);
        queue.key = self.key.clone();
        queue.shared = Some(self.shared.clone());
        queue.budget = Some(budget.clone());
        queue
    }

    /// Opens an exporter's queue; what waits in it is counted in the ledger.
    ///
    /// # Errors
    /// One line with cause and remedy.
    pub fn queue(
        &self,
        exporter: &Arc<str>,
        options: DiskQueueOptions,
        ledger: &Arc<Ledger>,
    ) -> Result<DiskQueue, String> {
        let folder = self.plan.queue_folder(exporter);
        let opened = DiskQueue::open(self.disk.clone(), folder, exporter, ledger.clone(), options);
        let (queue, report) = opened.map_err(|error| error.to_string())?;
        let records: u64 = report.waiting.iter().map(|found| found.records).sum();
        if records > 0 {
            tracing::info!("{exporter}: {records} records wait on the disk from before");
        }
        Ok(queue)
    }

    /// Writes down the rows of the ledger that no queue keeps. It blocks while the disk works.
    pub fn save(&self, ledger: &Ledger) {
        let folder = self.plan.folder.display();
        match self.ledger_file.save(ledger) {
            Ok(_) => self.is_unsaved.store(false, Ordering::Relaxed),
            // It is tried every few seconds, and said once.
            Err(error) if !self.is_unsaved.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%folder, %error, "cannot write the ledger down; trying again");
            }
            Err(_) => {}
        }
    }

    /// Removes dead letters that are too old.
    pub async fn expire(&self) {
        if let Err(error) = self.dead_letters.expire().await {
            tracing::warn!(folder = %self.plan.folder.display(), %error, "cannot remove old dead letters; trying again");
        }
    }

    /// What the configuration said at the start.
    pub fn plan(&self) -> &StoragePlan {
        &self.plan
    }

    /// Counts in the ledger what stands in queues on disk that no exporter has: their records wait until
    /// one has them again. It is said which they are.
    pub fn recall(&self, ledger: &Ledger, has_queue: impl Fn(&str) -> bool) -> Vec<Kept> {
        let folder = self.plan.folder.display();
        let found = queues_in(&self.plan.folder).unwrap_or_else(|error| {
            tracing::warn!(%folder, %error, "cannot look for queues of former exporters");
            Vec::new()
        });
        let mut all = Vec::new();
        for (exporter, path) in found.into_iter().filter(|(name, _)| !has_queue(name)) {
            let survey = match queue::inspect(&*self.disk, &path) {
                Ok(survey) => survey,
                Err(error) => {
                    tracing::warn!("{exporter}: cannot read what waits on the disk for this former exporter: {error}");
                    continue;
                }
            };
            recount(ledger, &exporter, survey.rows(&exporter));
            let kept = Kept::found(exporter, &survey);
            if kept.records > 0 {
                let Kept { exporter, records, .. } = &kept;
                tracing::warn!(
                    "{exporter}: {records} records wait on the disk, and no exporter of this name has its queue there; \
                     configure it again to deliver them, or write them out with `weir queue export`"
                );
                all.push(kept);
            }
        }
        all
    }
}

/// The rows of an exporter as its queue on disk has them, and what the ledger's file had besides.
fn recount(ledger: &Ledger, exporter: &Arc<str>, logged: Vec<(ledger::Key, Counts)>) {
    for (source, signal, row) in ledger.rows_of(exporter) {
        if !logged.iter().any(|((other, _, of), _)| *other == source && *of == signal) {
            row.restore(Some(&Totals::default()), 0, false);
        }
    }
    for ((source, _, signal), counts) in logged {
        let settled = Settled::of(&counts);
        let totals = Totals { accepted: settled.total(), settled };
        ledger.row(&source, exporter, signal).restore(Some(&totals), counts.queued, false);
    }
    let is_in_log = ledger.rows_of(exporter).iter().all(|(_, _, row)| row.aside().is_empty());
    ledger.has_queue(exporter, is_in_log);
}

/// What stays free of the folder's file system: never more than a tenth of it.
fn default_reserve_bytes(folder: &Path) -> u64 {
    let total = nix::sys::statvfs::statvfs(folder).map(|space| space.blocks() * space.fragment_size());
    total.map_or(RESERVE_BYTES, |total| RESERVE_BYTES.min(total / 10))
}
