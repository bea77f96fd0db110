//! What a queue on disk may use, and what it promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use weir_config::SyncPolicy;

use crate::memory_budget::MemoryBudget;
use crate::options::WhenFull;
use crate::queue::durable::cipher::Key;

/// Bounds and promises of a queue on disk.
#[derive(Clone, Debug)]
pub struct DiskQueueOptions {
    /// Most bytes of its files. One batch larger than that is taken when nothing else is there, and how far
    /// the queue is settled is noted beyond it, within one segment.
    pub limit_bytes: u64,
    /// What happens when they are reached.
    pub when_full: WhenFull,
    /// When sources hear that their batch is stored.
    pub sync: SyncPolicy,
    /// A segment that is longer is ended; at most a quarter of `limit_bytes`. Disk space comes back
    /// segment by segment.
    pub segment_bytes: u64,
    /// Most bytes of entries that stay in memory until they are taken; what comes beyond is read
    /// back from the disk.
    pub head_bytes: usize,
    /// Most bytes that wait in memory for the disk.
    pub pending_bytes: usize,
    /// Bytes of the file system that are left free for others.
    pub reserve_bytes: u64,
    /// Entries that are older are dropped, counted as expired. Without it age does not matter.
    pub max_age: Option<Duration>,
    /// Longest time until the disk knows what has been settled. Batches settled within it before a
    /// crash are delivered again.
    pub cursor_interval: Duration,
    /// Encrypts payloads.
    pub key: Option<Key>,
    /// A bound that several queues share.
    pub shared: Option<Arc<SharedQuota>>,
    /// What the process may hold in memory: entries that wait for the disk, the head, and what was taken.
    /// When it is short the head is given up and read back later.
    pub budget: Option<Arc<MemoryBudget>>,
}

impl DiskQueueOptions {
    /// The defaults for a queue of at most so many bytes.
    pub fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            when_full: WhenFull::Block,
            sync: SyncPolicy::Group,
            segment_bytes: (limit_bytes / 16).clamp(1 << 20, 32 << 20),
            head_bytes: 1 << 20,
            pending_bytes: 16 << 20,
            reserve_bytes: 256 << 20,
            max_age: None,
            cursor_interval: Duration::from_millis(200),
            key: None,
            shared: None,
            budget: None,
        }
    }

    /// A segment is at most a quarter of all, so that space comes back.
    pub(super) fn bound_segments(&mut self) {
        self.segment_bytes = self.segment_bytes.min(self.limit_bytes / 4);
    }
}

/// Bytes on disk that all queues of a process share.
#[derive(Debug)]
pub struct SharedQuota {
    limit_bytes: u64,
    used: AtomicU64,
}

impl SharedQuota {
    /// A quota of so many bytes.
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, used: AtomicU64::new(0) }
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }

    /// The quota in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Whether so many more fit.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.used_bytes().saturating_add(bytes) <= self.limit_bytes
    }

    /// Counts a file that is longer or shorter now.
    pub(super) fn change(&self, before: u64, now: u64) {
        if now >= before {
            self.used.fetch_add(now - before, Ordering::AcqRel);
        } else {
            self.used.fetch_sub(before - now, Ordering::AcqRel);
        }
    }
}
