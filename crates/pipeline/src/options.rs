//! The options that the runner understands for every integration of a role; they stand in the same
//! block as the integration's own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_config::{ByteSize, Duration, QueueKind, SyncPolicy};

/// The longest time for one poll where nothing is configured and the interval is longer.
pub const LONGEST_POLL: std::time::Duration = std::time::Duration::from_secs(30);

/// Options of every collector.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CollectOptions {
    /// Time between polls. Without it `agent.interval` applies.
    pub interval: Option<Duration>,
    /// Longest time for one poll. Without it the interval, at most 30 s.
    pub timeout: Option<Duration>,
}

/// What happens to new records when an exporter's queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// The source waits: receivers answer "later", polls leave this exporter out (counted).
    #[default]
    Block,
    /// The oldest records make room (counted).
    DropOldest,
}

/// What becomes of the records that wait for an exporter when a reload takes it out of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenRemoved {
    /// They are delivered first.
    #[default]
    Drain,
    /// A queue on disk keeps them until the exporter is there again; one in memory is drained all the same.
    Keep,
}

/// Options of every exporter.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// Most records in one request.
    #[schemars(range(min = 1))]
    pub batch_size: usize,
    /// Most bytes in one request, before compression.
    pub batch_bytes: ByteSize,
    /// How long records may wait for others to fill a request. `0s` sends as soon as the backend is
    /// ready; records that arrive meanwhile travel together in the next request.
    pub flush_interval: Duration,
    /// Most requests under way at once. How many really are follows the backend: more while it answers
    /// fast, fewer when it slows down or asks to wait. Backends that need an order have one, whatever stands here.
    #[schemars(range(min = 1))]
    pub max_in_flight: usize,
    /// Where records wait for this exporter. Without it `delivery.queue` applies, and `memory` for what
    /// only shows or stores records on this machine.
    pub queue: Option<QueueKind>,
    /// Most bytes that wait for this exporter. Without it 1 GiB on disk, or an equal share of `limits.memory`.
    pub queue_size: Option<ByteSize>,
    /// When a record that waits on the disk counts as safe. Without it `delivery.sync` applies.
    pub queue_sync: Option<SyncPolicy>,
    /// What happens when the queue is full.
    pub when_full: WhenFull,
    /// What becomes of waiting records when a reload takes the exporter out of the configuration.
    pub when_removed: WhenRemoved,
    /// First delay before a failed request is sent again; it doubles up to `retry_max_delay`, with full jitter.
    pub retry_delay: Duration,
    /// Longest delay before a failed request is sent again.
    pub retry_max_delay: Duration,
    /// How long after they came records are tried at most; after that they are dropped and counted.
    /// `0s` = without end.
    pub retry_max_age: Duration,
    /// How many times a failed request is sent again at most. Without it only the age counts.
    pub retry_attempts: Option<u32>,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            batch_size: 8192,
            batch_bytes: ByteSize::from_mebibytes(3),
            flush_interval: Duration::from_secs(0),
            max_in_flight: 16,
            queue: None,
            queue_size: None,
            queue_sync: None,
            when_full: WhenFull::Block,
            when_removed: WhenRemoved::Drain,
            retry_delay: Duration::from_secs(1),
            retry_max_delay: Duration::from_secs(60),
            retry_max_age: Duration::from_secs(7 * 24 * 3600),
            retry_attempts: None,
        }
    }
}
