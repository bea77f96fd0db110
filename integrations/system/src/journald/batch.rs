//! Entries on their way to the intake.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_model::Payload;

use super::config::Settings;
use super::entry;
use super::export::Entry;
use crate::logs::record::{Gathered, Origin};

/// Most records and bytes of a batch, and how long the first record waits for others.
const BATCH_RECORDS: usize = 1_000;
const BATCH_BYTES: usize = 512 << 10;
const BATCH_WAIT: Duration = Duration::from_millis(200);

/// What a batch holds and up to where it goes.
pub struct Batch {
    /// Its records, unless all entries were left out.
    pub logs: Option<Payload>,
    /// Its last entry.
    pub cursor: String,
}

/// A batch in the making.
pub struct Making {
    /// What becomes of entries.
    pub settings: Arc<Settings>,
    gathered: Gathered,
    origin: Origin,
    /// The last entry that was added.
    pub cursor: Option<String>,
    since: Option<Instant>,
}

impl Making {
    /// An empty one.
    pub fn new(settings: Arc<Settings>) -> Self {
        let gathered = Gathered::new("journald", &settings.resource);
        Making { settings, gathered, origin: Arc::from([]), cursor: None, since: None }
    }

    /// Adds an entry.
    pub fn add(&mut self, entry: &Entry, observed_unix_nano: u64) {
        if entry::is_wanted(entry, &self.settings) {
            entry::gather(entry, &self.settings, &self.origin, observed_unix_nano, &mut self.gathered);
        }
        if let Some(cursor) = entry.cursor() {
            self.cursor = Some(cursor.to_owned());
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Whether it must be handed in before more is read.
    pub fn is_full(&self) -> bool {
        self.gathered.len() >= BATCH_RECORDS || self.gathered.size_bytes() >= BATCH_BYTES
    }

    /// When it is handed in, whether it is full or not.
    pub fn due(&self) -> Option<Instant> {
        self.since.map(|since| if self.is_full() { since } else { since + BATCH_WAIT })
    }

    /// What there is, if anything was added.
    pub fn take(&mut self) -> Option<Batch> {
        self.since = None;
        let cursor = self.cursor.take()?;
        let empty = Gathered::new("journald", &self.settings.resource);
        Some(Batch { logs: std::mem::replace(&mut self.gathered, empty).finish(), cursor })
    }
}
