//! The ledger: where every record is, exact to the record.
//!
//! For each source, exporter and signal, `accepted = delivered + queued + in flight + dead-lettered + dropped`.
//! Every change of state is one call that moves records from one column to another under one lock,
//! so a snapshot always adds up; [`Counts::difference`] ≠ 0 is an error of Weir and shows as one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use weir_model::Signal;

/// Why records were not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The backend refused them for good.
    Refused,
    /// The exporter's queue was full, and they could not wait at their source.
    QueueFull,
    /// They could not be delivered within `retry_max_age` or `retry_attempts`.
    Expired,
    /// Their sender gave up waiting and sends them again.
    Withdrawn,
    /// Weir was stopped before they could be delivered.
    Stopped,
    /// No route leads to an exporter that takes their signal.
    NoRoute,
    /// A route's `keep` left them out.
    Filtered,
    /// They give no point in the temporality that the backend wants (the first of a series).
    Temporality,
    /// They cannot be encoded for the backend.
    NotEncodable,
    /// The disk failed before their queue had them on it; their source sends them again if it can.
    NotStored,
    /// Their queue has them no more: the disk cannot read them, or gives back other bytes.
    Unreadable,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 11] = [
        Reason::Refused,
        Reason::QueueFull,
        Reason::Expired,
        Reason::Withdrawn,
        Reason::Stopped,
        Reason::NoRoute,
        Reason::Filtered,
        Reason::Temporality,
        Reason::NotEncodable,
        Reason::NotStored,
        Reason::Unreadable,
    ];

    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Refused => "refused",
            Reason::QueueFull => "queue_full",
            Reason::Expired => "expired",
            Reason::Withdrawn => "withdrawn",
            Reason::Stopped => "stopped",
            Reason::NoRoute => "no_route",
            Reason::Filtered => "filtered",
            Reason::Temporality => "temporality",
            Reason::NotEncodable => "not_encodable",
            Reason::NotStored => "not_stored",
            Reason::Unreadable => "unreadable",
        }
    }
}

/// The columns of one row, in records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken from the source for this exporter.
    pub accepted: u64,
    /// The exporter's backend has them.
    pub delivered: u64,
    /// Waiting in the exporter's queue.
    pub queued: u64,
    /// In a request under way, or waiting to be sent again.
    pub in_flight: u64,
    /// Refused for good and kept as dead letters. What is replayed is accepted anew, from the source
    /// [`DEAD_LETTERS`].
    pub dead_lettered: u64,
    /// Not delivered, by reason.
    pub dropped: BTreeMap<Reason, u64>,
}

impl Counts {
    /// All dropped records.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// What does not add up: 0 unless Weir has an error.
    pub fn difference(&self) -> i128 {
        let kept = [self.delivered, self.queued, self.in_flight, self.dead_lettered, self.dropped_total()];
        i128::from(self.accepted) - kept.into_iter().map(i128::from).sum::<i128>()
    }
}

/// One row: a source, an exporter and a signal.
#[derive(Debug, Default)]
pub struct Row(Mutex<Counts>);

impl Row {
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        // A poisoned lock only means that a panic happened between two additions elsewhere.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The columns now.
    pub fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Taken from the source into the queue.
    pub fn accept(&self, records: u64) {
        self.change(|c| {
            c.accepted += records;
            c.queued += records;
        });
    }

    /// Taken from the source and dropped at once.
    pub fn accept_and_drop(&self, records: u64, reason: Reason) {
        self.change(|c| {
            c.accepted += records;
            *c.dropped.entry(reason).or_default() += records;
        });
    }

    /// From the queue into a request.
    pub fn take(&self, records: u64) {
        self.change(|c| {
            c.queued = c.queued.saturating_sub(records);
            c.in_flight += records;
        });
    }

    /// From a request back into the queue, to be taken again.
    pub fn put_back(&self, records: u64) {
        self.change(|c| {
            c.in_flight = c.in_flight.saturating_sub(records);
            c.queued += records;
        });
    }

    /// From a request to the backend.
    pub fn deliver(&self, records: u64) {
        self.change(|c| {
            c.in_flight = c.in_flight.saturating_sub(records);
            c.delivered += records;
        });
    }

    /// From a request to nowhere.
    pub fn drop_in_flight(&self, records: u64, reason: Reason) {
        self.change(|c| {
            c.in_flight = c.in_flight.saturating_sub(records);
            *c.dropped.entry(reason).or_default() += records;
        });
    }

    /// From a request to the dead letters.
    pub fn dead_letter(&self, records: u64) {
        self.change(|c| {
            c.in_flight = c.in_flight.saturating_sub(records);
            c.dead_lettered += records;
        });
    }

    /// From the queue to nowhere.
    pub fn drop_queued(&self, records: u64, reason: Reason) {
        self.change(|c| {
            c.queued = c.queued.saturating_sub(records);
            *c.dropped.entry(reason).or_default() += records;
        });
    }
}

/// What became of the records of one entry that a queue on disk gave out: the queue folds it into
/// what its log keeps, once the entry is behind its cursor.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Settled>);

/// Records that are settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// The backend has them.
    pub delivered: u64,
    /// They are dead letters.
    pub dead_lettered: u64,
    /// They were dropped, by reason.
    pub dropped: BTreeMap<Reason, u64>,
}

impl Tally {
    fn change(&self, change: impl FnOnce(&mut Settled)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was settled of the entry so far.
    pub fn settled(&self) -> Settled {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where the records of one taken entry are counted: in their row, and for their queue if that
/// outlives the process.
#[derive(Clone, Debug)]
pub struct Account {
    row: Arc<Row>,
    tally: Option<Arc<Tally>>,
}

impl Account {
    /// Counts in a row alone.
    pub fn of(row: Arc<Row>) -> Self {
        Self { row, tally: None }
    }

    /// Counts in a row and for the entry's queue.
    pub fn with_tally(row: Arc<Row>, tally: Arc<Tally>) -> Self {
        Self { row, tally: Some(tally) }
    }

    /// The row.
    pub fn row(&self) -> &Arc<Row> {
        &self.row
    }

    fn tally(&self, change: impl FnOnce(&mut Settled)) {
        if let Some(tally) = &self.tally {
            tally.change(change);
        }
    }

    /// From a request to the backend.
    pub fn deliver(&self, records: u64) {
        self.row.deliver(records);
        self.tally(|settled| settled.delivered += records);
    }

    /// From a request to the dead letters.
    pub fn dead_letter(&self, records: u64) {
        self.row.dead_letter(records);
        self.tally(|settled| settled.dead_lettered += records);
    }

    /// From a request to nowhere.
    pub fn drop_in_flight(&self, records: u64, reason: Reason) {
        self.row.drop_in_flight(records, reason);
        self.tally(|settled| *settled.dropped.entry(reason).or_default() += records);
    }
}

/// The source of dead letters that are replayed.
pub const DEAD_LETTERS: &str = "dead_letters";

/// Which row: source, exporter, signal.
pub type Key = (Arc<str>, Arc<str>, Signal);

/// All rows of a process.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: RwLock<BTreeMap<Key, Arc<Row>>>,
}

impl Ledger {
    /// The row of a source, an exporter and a signal, made on first use.
    pub fn row(&self, source: &Arc<str>, exporter: &Arc<str>, signal: Signal) -> Arc<Row> {
        let key = (source.clone(), exporter.clone(), signal);
        if let Some(row) = self.rows.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return row.clone();
        }
        self.rows.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone()
    }

    /// All rows that ever had a record, each adding up by itself.
    pub fn snapshot(&self) -> Vec<(Key, Counts)> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let counted = rows.iter().map(|(key, row)| (key.clone(), row.counts()));
        counted.filter(|(_, counts)| counts.accepted > 0).collect()
    }
}
