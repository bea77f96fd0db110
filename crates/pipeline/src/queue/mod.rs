//! The queue in front of every exporter, bounded in bytes.
//!
//! [`MemoryQueue`] is not durable, so it never settles a receipt: a batch's receipt travels
//! through it and is settled when the exporter's backend has the batch. [`DiskQueue`] settles the
//! receipt once the batch is synced and hands out one of its own that moves its cursor.

mod durable;
mod memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;
use weir_model::Batch;

use crate::ledger::{Account, Reason, Row};
use crate::memory_budget::Reservation;

pub use durable::{
    Damage, DiskQueue, DiskQueueOptions, Exported, Found, Key, OpenError, OpenReport, SegmentSurvey, SharedQuota,
    Survey, SyncPolicy, export, inspect, ledger_rows, verify,
};
pub use memory::MemoryQueue;

/// A batch for one exporter, and the row of the ledger that it is counted in.
#[derive(Debug)]
pub struct Entry {
    /// The batch.
    pub batch: Batch,
    /// Its row.
    pub row: Arc<Row>,
    /// When it came.
    pub since: Instant,
}

/// An entry taken from a queue; its bytes count against the queue's bound until it is dropped.
#[derive(Debug)]
pub struct Taken {
    /// The batch. What its receipt means depends on the queue: see [`Queue::is_durable`].
    pub batch: Batch,
    /// Where its records are counted.
    pub account: Account,
    /// When it came.
    pub since: Instant,
    /// Keeps the bytes accounted for.
    pub hold: Arc<Hold>,
}

/// Bytes of a queue's bound that are in use.
#[derive(Debug)]
pub struct Hold {
    bytes: usize,
    used: Arc<AtomicUsize>,
    /// The same bytes of the process's memory.
    _reservation: Option<Reservation>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// How much one take may bring.
#[derive(Clone, Copy, Debug)]
pub struct TakeLimits {
    /// Most records.
    pub records: usize,
    /// Most bytes.
    pub bytes: usize,
    /// How long the oldest may wait for more when there is less.
    pub linger: Duration,
}

/// Where a queue keeps what waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueKind {
    /// In memory: nothing of it is left after the process.
    #[default]
    Memory,
    /// On disk.
    Disk,
}

impl QueueKind {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            QueueKind::Memory => "memory",
            QueueKind::Disk => "disk",
        }
    }
}

/// What waits in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Where it waits.
    pub kind: QueueKind,
    /// Records that wait.
    pub records: u64,
    /// Bytes that wait or are under way.
    pub bytes: usize,
    /// The bound in bytes.
    pub limit_bytes: usize,
    /// Age of the oldest that waits.
    pub oldest: Option<Duration>,
    /// Why nothing fits, or is not stored, at the moment, in words.
    pub is_short: Option<String>,
    /// What was lost because the disk did not give it back, in words; it stays until the process ends.
    pub is_damaged: Option<String>,
}

/// A bounded queue of batches for one exporter.
pub trait Queue: Send + Sync {
    /// Whether a batch of this size would be taken now without dropping another.
    fn has_room(&self, bytes: usize) -> bool;

    /// Takes an entry, counting it as accepted.
    ///
    /// # Errors
    /// Why it was not taken: [`Reason::QueueFull`], [`Reason::MemoryFull`] or, once closed,
    /// [`Reason::Stopped`]. The entry is dropped.
    fn push(&self, entry: Entry) -> Result<(), Reason>;

    /// Waits for entries of one origin and one signal that can travel together; `None` when the
    /// queue is closed and empty. Takes at least one entry, however large.
    fn take(&self, limits: TakeLimits) -> BoxFuture<'_, Option<Vec<Taken>>>;

    /// Whether it outlives the process. Then the receipt of a taken entry is the queue's own: settled
    /// as retry the entry is taken again, or, once the queue is closed, found at the next start; so what
    /// is dropped on purpose is settled as delivered. Otherwise it is the source's.
    fn is_durable(&self) -> bool;

    /// An entry comes back that was taken and of which nothing was settled: it is taken again, before
    /// all others.
    fn give_back(&self, taken: Taken);

    /// At most so many records may be given again after the end of the process, those under way included:
    /// beyond them nothing is given until what was settled is written down. Only what cannot be written,
    /// because the disk is full or fails, may come again beside them. Of a queue in memory nothing does.
    fn bound_repeats(&self, _records: u64) {}

    /// Takes no more; what waits can still be taken.
    fn close(&self);

    /// Takes and gives no more. A queue in memory drops all that waits, counting it; one on disk keeps it.
    fn abandon(&self, reason: Reason);

    /// What waits.
    fn status(&self) -> QueueStatus;
}

/// An exporter as sources see it.
pub struct Outlet {
    /// Its instance name.
    pub name: Arc<str>,
    /// Its queue.
    pub queue: Arc<dyn Queue>,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").field("name", &self.name).finish()
    }
}
