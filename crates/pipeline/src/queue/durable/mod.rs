//! The queue on disk: a log in segments, behind which a batch is safe from crashes.
//!
//! - [`record`], [`segment`]: the bytes of the log; [`cipher`]: their encryption
//! - [`survey`]: what a folder holds; [`summary`]: what a segment says of itself; [`core`]: opening one
//! - [`state`]: what waits, what is under way, what is settled; [`totals`], [`ranges`]: what the cursor
//!   says of that
//! - [`writer`]: groups of entries, one write and one sync each; [`active`]: the segment they go to; [`room`]: what may be removed, or must
//! - [`reader`]: what did not stay in memory
//! - [`inspect`]: for people
//!
//! **What it promises.** A source hears "delivered" after its batch was synced (`sync: never`: after it
//! was written). From then on the batch is found at every opening until the exporter has settled it,
//! it was dropped by a configured bound and counted, or the disk lost it, which is counted and logged.
//! Entries leave in the order in which they came.
//!
//! **What comes again.** The cursor says what is settled, also behind an entry that is still under way. It
//! is written before more is given than [`Queue::bound_repeats`] allows, and what was written survives the
//! end of the process: then at most so many records come again, those under way included. It is synced
//! every `cursor_interval`, with every group of entries, and before as many again are settled: what was
//! settled since comes again after the end of the machine.
//!
//! **What a receipt of a taken entry means.** Delivered or refused: done. Retry: it is taken again, or,
//! if the queue is closed, found at the next opening. So whoever drops an entry on purpose and counts it
//! settles it as delivered.

mod active;
mod cipher;
mod core;
mod inspect;
mod options;
mod ranges;
mod reader;
mod record;
mod room;
mod segment;
mod shortage;
mod state;
mod summary;
mod survey;
#[cfg(test)]
mod tests;
mod totals;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use weir_model::Verdict;

use crate::disk::Disk;
use crate::ledger::{Ledger, Reason};
use crate::options::WhenFull;
use crate::queue::durable::core::Core;
use crate::queue::durable::shortage::Shortage;
use crate::queue::durable::state::{Front, Repeats};
use crate::queue::durable::writer::Wrote;
use crate::queue::{Entry, Queue, QueueKind, QueueStatus, TakeLimits, Taken};

pub use cipher::Key;
pub use core::OpenReport;
pub use inspect::{Exported, export, inspect, ledger_rows, verify};
pub use options::{DiskQueueOptions, SharedQuota, SyncPolicy};
pub use survey::{Damage, Found, OpenError, SegmentSurvey, Survey};

/// Records that may come again after the end of the machine besides those under way, where fewer would
/// cost a sync for every few of them.
const LEAST_REPEATS_AFTER_CRASH: u64 = 1024;

/// How long a queue waits before it reads again where the system had no file to give.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// A queue of one exporter that survives crashes.
#[derive(Debug)]
pub struct DiskQueue {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

impl DiskQueue {
    /// Opens the queue of an exporter in a folder of its own, which is made if it is not there. What
    /// waits in it is counted in the exporter's rows of the ledger.
    ///
    /// Two processes must not have one folder open: whoever opens it holds a lock above.
    ///
    /// # Errors
    /// [`OpenError`] for what a person has to decide; never for damage.
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        exporter: &Arc<str>,
        ledger: Arc<Ledger>,
        options: DiskQueueOptions,
    ) -> Result<(Self, OpenReport), OpenError> {
        let failed = {
            let folder = folder.clone();
            move |source| OpenError::Io { path: folder, source }
        };
        let (core, report) = Core::open(disk, folder, exporter, ledger, options, Arc::new(unix_ms))?;
        let core = Arc::new(core);
        if core.has_asides() {
            // The rows that the exporter had without a queue are in its log before anything else.
            core.keep_house(true);
        }
        let writing = core.clone();
        let thread = std::thread::Builder::new()
            .name(format!("queue {exporter}"))
            .spawn(move || writing.run())
            .map_err(failed)?;
        Ok((Self { core, thread: Some(thread) }, report))
    }

    /// Changes bounds and promises while the queue is in use. What waits beyond a smaller bound stays until
    /// it is delivered, or is dropped with the next entry if the oldest make room.
    pub fn reconfigure(&self, limit_bytes: u64, when_full: WhenFull, sync: SyncPolicy, max_age: Option<Duration>) {
        self.core.change_options(|options| {
            (options.limit_bytes, options.when_full) = (limit_bytes, when_full);
            (options.sync, options.max_age) = (sync, max_age);
            options.segment_bytes = DiskQueueOptions::new(limit_bytes).segment_bytes;
        });
    }

    /// Brings to the disk what waits for it, and how far the queue is settled. It blocks while the disk works.
    ///
    /// # Errors
    /// Those of the disk, and that there is no room; what could not be written goes on waiting.
    pub fn sync(&self) -> io::Result<()> {
        loop {
            match self.core.write_pending() {
                Wrote::Group => {}
                Wrote::Nothing => return self.core.tidy(true),
                Wrote::NoRoom => {
                    let shortage = self.core.state().is_short.as_ref().map(ToString::to_string);
                    return Err(io::Error::other(shortage.unwrap_or_default()));
                }
            }
        }
    }
}

impl Drop for DiskQueue {
    // What waits for the disk is written and the cursor is made to last.
    fn drop(&mut self) {
        self.core.stop();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of a queue panicked; please report it");
        }
    }
}

/// Unix milliseconds.
fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Queue for DiskQueue {
    fn has_room(&self, bytes: usize) -> bool {
        self.core.has_room(bytes)
    }

    fn push(&self, entry: Entry) -> Result<(), Reason> {
        self.core.push(entry)
    }

    fn take(&self, limits: TakeLimits) -> BoxFuture<'_, Option<Vec<Taken>>> {
        Box::pin(async move {
            loop {
                let changed = self.core.changed.notified();
                match self.core.grab(limits) {
                    Front::Taken(taken) => return Some(self.core.hand_out(taken)),
                    Front::Lingers(left) => {
                        // Either more has come, or the wait is over: both are looked at above.
                        let _ = tokio::time::timeout(left, changed).await;
                    }
                    Front::Unread => {
                        let core = self.core.clone();
                        let read = tokio::task::spawn_blocking(move || core.refill(limits)).await;
                        if let Err(error) = read.unwrap_or_else(|error| Err(io::Error::other(error))) {
                            tracing::warn!(folder = %self.core.folder.display(), %error, "cannot read a queue; trying again");
                            tokio::time::sleep(READ_AGAIN).await;
                        }
                    }
                    Front::Unnoted => {
                        self.core.work.notify_one();
                        changed.await;
                    }
                    Front::Empty => changed.await,
                    Front::Ended => return None,
                }
            }
        })
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn give_back(&self, taken: Taken) {
        // Its own receipt brings it back.
        taken.batch.receipt.settle(Verdict::Retry);
    }

    fn bound_repeats(&self, records: u64) {
        let after_crash = records.max(LEAST_REPEATS_AFTER_CRASH);
        self.core.state().repeats = Some(Repeats { after_kill: records.max(1), after_crash });
    }

    fn close(&self) {
        self.core.close(false);
    }

    /// Nothing is dropped: what waits stays on the disk and is found at the next opening.
    fn abandon(&self, _: Reason) {
        self.core.close(true);
    }

    fn status(&self) -> QueueStatus {
        // The smallest batch: what has no room for it has room for nothing.
        let shortage = self.core.shortage(1).map(|shortage| shortage.to_string());
        let options = self.core.options();
        let state = self.core.state();
        let files = usize::try_from(state.disk_bytes()).unwrap_or(usize::MAX);
        let age = |queued_ms: i64| {
            let ms = (self.core.now_ms)().saturating_sub(queued_ms);
            Duration::from_millis(u64::try_from(ms).unwrap_or_default())
        };
        let failed = || state.disk_error.as_ref().map(|error| Shortage::Disk(error.clone()).to_string());
        QueueStatus {
            kind: QueueKind::Disk,
            records: state.waiting_records(),
            bytes: files.saturating_add(state.pending_memory_bytes),
            limit_bytes: usize::try_from(options.limit_bytes).unwrap_or(usize::MAX),
            oldest: state.oldest_ms().map(age),
            is_short: shortage.or_else(failed),
            is_damaged: state.lost.map(|(records, place)| {
                let path = segment::path(&self.core.folder, place.segment);
                format!("the disk did not give back {records} records; the last stood in {}", path.display())
            }),
        }
    }
}
