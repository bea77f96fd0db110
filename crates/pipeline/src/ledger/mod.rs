//! The ledger: where every record is, exact to the record.
//!
//! For each source, exporter and signal, `accepted = delivered + queued + in flight + dead-lettered + dropped`.
//! Every change of state is one call that moves records from one column to another under one lock,
//! so a snapshot always adds up; [`Counts::difference`] ≠ 0 is an error of Weir and shows as one.
//!
//! It outlives the process: a queue on disk keeps the rows of its exporter ([`Totals`]), a
//! [`LedgerFile`] all others.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use weir_model::Signal;

pub use file::{LedgerFile, ReadError, read};

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
    /// The memory of the process was used up, and they could not wait at their source.
    MemoryFull,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 12] = [
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
        Reason::MemoryFull,
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
            Reason::MemoryFull => "memory_full",
        }
    }

    /// The reason of a name; `None` for one of a later version.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
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
pub struct Row(Mutex<Columns>);

/// A row's columns, and what of them no queue on disk knows yet.
#[derive(Debug, Default)]
struct Columns {
    counts: Counts,
    /// Records that never came to stand in the queue, or came to it from elsewhere, and that its log
    /// has not noted yet.
    aside: Totals,
}

impl Row {
    fn with<T>(&self, change: impl FnOnce(&mut Columns) -> T) -> T {
        // A poisoned lock only means that a panic happened between two additions elsewhere.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, change: impl FnOnce(&mut Counts)) {
        self.with(|columns| change(&mut columns.counts));
    }

    /// The columns now.
    pub fn counts(&self) -> Counts {
        self.with(|columns| columns.counts.clone())
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
        self.with(|columns| {
            columns.counts.accepted += records;
            *columns.counts.dropped.entry(reason).or_default() += records;
            columns.aside.drop(records, reason);
        });
    }

    /// From the queue to nowhere, before the disk had them.
    pub(crate) fn drop_unstored(&self, records: u64, reason: Reason) {
        self.with(|columns| {
            columns.counts.queued = columns.counts.queued.saturating_sub(records);
            *columns.counts.dropped.entry(reason).or_default() += records;
            columns.aside.drop(records, reason);
        });
    }

    /// All of a taken entry back into the queue, also what was settled of it: it is taken again whole.
    pub(crate) fn revert(&self, records: u64, settled: &Settled) {
        self.change(|c| {
            c.in_flight = c.in_flight.saturating_sub(records.saturating_sub(settled.total()));
            c.delivered = c.delivered.saturating_sub(settled.delivered);
            c.dead_lettered = c.dead_lettered.saturating_sub(settled.dead_lettered);
            for (reason, dropped) in &settled.dropped {
                let column = c.dropped.entry(*reason).or_default();
                *column = column.saturating_sub(*dropped);
            }
            c.dropped.retain(|_, records| *records > 0);
            c.queued += records;
        });
    }

    /// What the queue's log has to note besides what went through the queue.
    pub(crate) fn aside(&self) -> Totals {
        self.with(|columns| columns.aside.clone())
    }

    /// The queue's log has noted so much of it.
    pub(crate) fn noted(&self, aside: &Totals) {
        self.with(|columns| columns.aside.subtract(aside));
    }

    /// The queue of the row was opened: its log says what is settled (nothing, where there is none yet),
    /// and so many records wait in it.
    pub(crate) fn restore(&self, totals: Option<&Totals>, waiting: u64) {
        self.with(|Columns { counts, aside }| {
            let mut all = aside.clone();
            match totals {
                Some(totals) => all.add(totals),
                // What the row had before it had a queue goes on in the log.
                None => {
                    all = Totals::of_settled(counts);
                    aside.clone_from(&all);
                }
            }
            *counts = all.into_counts(waiting);
        });
    }

    /// Continues with counts of an earlier process.
    fn resume(&self, settled: &Settled) {
        self.change(|counts| {
            counts.accepted += settled.total();
            counts.delivered += settled.delivered;
            counts.dead_lettered += settled.dead_lettered;
            for (reason, records) in &settled.dropped {
                *counts.dropped.entry(*reason).or_default() += records;
            }
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

impl Settled {
    /// A row of which nothing but this is known.
    pub fn counts(self) -> Counts {
        let accepted = self.total();
        let Settled { delivered, dead_lettered, dropped } = self;
        Counts { accepted, delivered, dead_lettered, dropped, ..Counts::default() }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.delivered + self.dead_lettered + self.dropped.values().sum::<u64>()
    }

    /// The settled columns of a row.
    pub(crate) fn of(counts: &Counts) -> Self {
        let Counts { delivered, dead_lettered, dropped, .. } = counts;
        Self { delivered: *delivered, dead_lettered: *dead_lettered, dropped: dropped.clone() }
    }

    /// Adds others.
    pub(crate) fn add(&mut self, other: &Settled) {
        self.delivered += other.delivered;
        self.dead_lettered += other.dead_lettered;
        for (reason, records) in &other.dropped {
            *self.dropped.entry(*reason).or_default() += records;
        }
    }
}

/// What is settled of a row for ever: the part of it that a queue's log keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records of settled entries, and those that were dropped before they stood in the queue.
    pub accepted: u64,
    /// What became of them. It adds up to `accepted` unless Weir has an error.
    pub settled: Settled,
}

impl Totals {
    /// Records that were dropped.
    pub(crate) fn dropped(records: u64, reason: Reason) -> Self {
        let mut totals = Self::default();
        totals.drop(records, reason);
        totals
    }

    fn of_settled(counts: &Counts) -> Self {
        let settled = Settled::of(counts);
        Self { accepted: settled.total(), settled }
    }

    fn drop(&mut self, records: u64, reason: Reason) {
        self.accepted += records;
        *self.settled.dropped.entry(reason).or_default() += records;
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds others.
    pub(crate) fn add(&mut self, other: &Totals) {
        self.accepted += other.accepted;
        self.settled.add(&other.settled);
    }

    fn subtract(&mut self, other: &Totals) {
        self.accepted = self.accepted.saturating_sub(other.accepted);
        self.settled.delivered = self.settled.delivered.saturating_sub(other.settled.delivered);
        self.settled.dead_lettered = self.settled.dead_lettered.saturating_sub(other.settled.dead_lettered);
        for (reason, records) in &other.settled.dropped {
            let left = self.settled.dropped.entry(*reason).or_default();
            *left = left.saturating_sub(*records);
        }
        self.settled.dropped.retain(|_, records| *records > 0);
    }

    /// The row of which these are settled and so many records wait.
    pub(crate) fn into_counts(self, waiting: u64) -> Counts {
        let Settled { delivered, dead_lettered, dropped } = self.settled;
        let (accepted, in_flight) = (self.accepted + waiting, 0);
        Counts { accepted, delivered, queued: waiting, in_flight, dead_lettered, dropped }
    }
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
    /// Exporters whose rows a queue on disk keeps.
    kept: RwLock<BTreeSet<Arc<str>>>,
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

    /// The rows of an exporter.
    pub(crate) fn rows_of(&self, exporter: &str) -> Vec<(Arc<str>, Signal, Arc<Row>)> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let of_exporter = rows.iter().filter(|((_, other, _), _)| **other == *exporter);
        of_exporter.map(|((source, _, signal), row)| (source.clone(), *signal, row.clone())).collect()
    }

    /// The log of a queue on disk has all rows of an exporter from now on.
    pub(crate) fn leave_to_queue(&self, exporter: &Arc<str>) {
        let is_known = self.kept.read().unwrap_or_else(PoisonError::into_inner).contains(exporter);
        if !is_known {
            self.kept.write().unwrap_or_else(PoisonError::into_inner).insert(exporter.clone());
        }
    }

    /// An exporter has no queue on disk any more: its rows are counted on from what they are.
    pub fn has_no_queue(&self, exporter: &str) {
        self.kept.write().unwrap_or_else(PoisonError::into_inner).remove(exporter);
    }

    /// What is settled of the rows that no queue on disk keeps.
    fn settled_elsewhere(&self) -> Vec<(Key, Settled)> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner).clone();
        let rows = self.snapshot().into_iter().filter(|((_, exporter, _), _)| !kept.contains(exporter));
        let settled = rows.map(|(key, counts)| (key, Settled::of(&counts)));
        settled.filter(|(_, settled)| settled.total() > 0).collect()
    }

    /// All rows that ever had a record, each adding up by itself.
    pub fn snapshot(&self) -> Vec<(Key, Counts)> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        let counted = rows.iter().map(|(key, row)| (key.clone(), row.counts()));
        counted.filter(|(_, counts)| counts.accepted > 0).collect()
    }
}
