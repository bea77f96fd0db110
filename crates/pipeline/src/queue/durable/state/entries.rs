//! An entry on its way through the queue: not on the disk yet, waiting, under way.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use weir_model::{Encoding, Payload, Receipt, Signal};

use crate::ledger::Row;
use crate::memory_budget::Reservation;
use crate::queue::durable::record::Place;

/// What an entry takes in memory besides its payload.
const ENTRY_BYTES: usize = 256;

/// An entry that is not on the disk yet.
#[derive(Debug)]
pub struct Pending {
    /// Its number.
    pub sequence: u64,
    /// Its source.
    pub origin: Arc<str>,
    /// Its records.
    pub payload: Payload,
    /// What is written of them.
    pub bytes: Bytes,
    /// How that is encoded.
    pub encoding: Encoding,
    /// What the source waits for.
    pub receipt: Receipt,
    /// Its row of the ledger.
    pub row: Arc<Row>,
    /// When it came, unix milliseconds.
    pub queued_ms: i64,
    /// The same on the clock that does not jump.
    pub since: Instant,
    /// How long its record is in the file.
    pub stored_bytes: u64,
    /// Its bytes of the process's memory.
    pub reservation: Option<Reservation>,
}

impl Pending {
    /// Its records.
    pub fn records(&self) -> u64 {
        self.payload.len() as u64
    }
}

/// An entry on the disk that is in memory too and waits to be taken.
#[derive(Debug)]
pub struct Waiting {
    /// Its number.
    pub sequence: u64,
    /// Where it stands.
    pub place: Place,
    /// Where it ends.
    pub end: u64,
    /// Its source.
    pub origin: Arc<str>,
    /// Its records.
    pub payload: Payload,
    /// Its row of the ledger.
    pub row: Arc<Row>,
    /// When it was queued, unix milliseconds.
    pub queued_ms: i64,
    /// The same on the clock that does not jump, as far as that reaches back.
    pub since: Instant,
    /// Its bytes of the process's memory.
    pub reservation: Option<Reservation>,
    /// Whether it was taken before, and came back.
    pub is_again: bool,
}

impl Waiting {
    /// Its records.
    pub fn records(&self) -> u64 {
        self.payload.len() as u64
    }

    /// What it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.payload.size_bytes() + ENTRY_BYTES
    }
}

/// An entry that was taken and is not settled.
#[derive(Clone, Debug)]
pub struct UnderWay {
    /// Where it stands.
    pub place: Place,
    /// Where it ends.
    pub end: u64,
    /// Its source.
    pub origin: Arc<str>,
    /// Their signal.
    pub signal: Signal,
    /// Its records.
    pub records: u64,
    /// Its row of the ledger.
    pub row: Arc<Row>,
    /// Whether it came back after the queue was closed: it waits for the next opening.
    pub is_left: bool,
}
