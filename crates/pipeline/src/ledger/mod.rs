//! The ledger: where every record is, exact to the record.
//!
//! For each source, exporter and signal, `accepted = delivered + queued + in flight + dead-lettered + dropped`.
//! Every change of state is one call that moves records from one column to another under one lock,
//! so a snapshot always adds up; [`Counts::difference`] ≠ 0 is an error of Weir and shows as one.
//!
//! It outlives the process: a queue on disk keeps the rows of its exporter ([`Totals`]), a
//! [`LedgerFile`] all others.

mod counts;
mod file;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use weir_model::Signal;

pub use counts::{Counts, Reason};
pub use file::{LedgerFile, ReadError, read};

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
    /// and so many records wait in it. Unless its log `is_keeper` of the row already, what the row had
    /// without it goes on in the log: while its exporter had no queue it was counted on from what the log
    /// says.
    pub(crate) fn restore(&self, totals: Option<&Totals>, waiting: u64, is_keeper: bool) {
        self.with(|Columns { counts, aside }| {
            let settled = Totals::of_settled(counts);
            let noted = totals.cloned().unwrap_or_default();
            let is_later = !is_keeper && settled.accepted.saturating_sub(aside.accepted) > noted.accepted;
            if totals.is_none() || is_later {
                *aside = settled;
                aside.subtract(&noted);
                // A column may be smaller: what was counted of an entry that came back to the queue.
                aside.accepted = aside.settled.total();
            }
            let mut all = noted;
            all.add(aside);
            // What waits or is under way besides has nothing to do with this queue: it came before it.
            let others = (counts.queued + counts.in_flight).saturating_sub(waiting);
            let in_flight = counts.in_flight.min(others);
            *counts = all.into_counts(waiting);
            counts.accepted += others;
            counts.queued += others - in_flight;
            counts.in_flight = in_flight;
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

/// A row of which a ledger's file and the log of a queue both say something: the one that says more was
/// written later, for neither takes anything back. What waits stands in the log.
pub(crate) fn joined(file: Settled, log: Counts) -> Counts {
    if file.total() <= Settled::of(&log).total() {
        return log;
    }
    Totals { accepted: file.total(), settled: file }.into_counts(log.queued)
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

    /// Counts for the entry's queue. What comes from a queue in memory never stands in one on disk, and
    /// the log of the one that its exporter may have by now has to note it.
    fn tally(&self, change: impl FnOnce(&mut Settled)) {
        match &self.tally {
            Some(tally) => tally.change(change),
            None => self.row.with(|columns| {
                change(&mut columns.aside.settled);
                columns.aside.accepted = columns.aside.settled.total();
            }),
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
    /// Exporters with a queue on disk.
    queues: RwLock<BTreeMap<Arc<str>, Keeper>>,
    /// Queues so far.
    queues_opened: AtomicU64,
}

/// A queue on disk that keeps the rows of its exporter.
#[derive(Clone, Copy, Debug)]
struct Keeper {
    /// Which queue.
    queue: u64,
    /// Whether its log has all rows: until then the file has them.
    has_all: bool,
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

    /// An exporter has a queue on disk from now on, whose log has all rows already or not. The number of
    /// that queue.
    pub(crate) fn has_queue(&self, exporter: &Arc<str>, has_all: bool) -> u64 {
        let queue = self.queues_opened.fetch_add(1, Ordering::Relaxed);
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        queues.insert(exporter.clone(), Keeper { queue, has_all });
        queue
    }

    /// The log of a queue has all rows of its exporter from now on, unless the exporter has another one or
    /// none any more.
    pub(crate) fn leave_to_queue(&self, exporter: &str, queue: u64) {
        let keeper = self.queues.read().unwrap_or_else(PoisonError::into_inner).get(exporter).copied();
        if keeper.is_some_and(|keeper| keeper.queue == queue && !keeper.has_all)
            && let Some(keeper) = self.queues.write().unwrap_or_else(PoisonError::into_inner).get_mut(exporter)
        {
            keeper.has_all |= keeper.queue == queue;
        }
    }

    /// Whether the log of a queue has all rows of an exporter.
    pub(crate) fn is_left_to_queue(&self, exporter: &str) -> bool {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        queues.get(exporter).is_some_and(|keeper| keeper.has_all)
    }

    /// An exporter has no queue on disk any more: its rows are counted on from what they are, although a
    /// queue that it had may go on to be emptied.
    pub fn has_no_queue(&self, exporter: &str) {
        self.queues.write().unwrap_or_else(PoisonError::into_inner).remove(exporter);
    }

    /// A queue was closed, which may have been opened in vain.
    pub(crate) fn queue_closed(&self, exporter: &str, queue: u64) {
        let mut queues = self.queues.write().unwrap_or_else(PoisonError::into_inner);
        if queues.get(exporter).is_some_and(|keeper| keeper.queue == queue) {
            queues.remove(exporter);
        }
    }

    /// What is settled of the rows that no queue on disk keeps.
    fn settled_elsewhere(&self) -> Vec<(Key, Settled)> {
        let rows = self.snapshot().into_iter().filter(|((_, exporter, _), _)| !self.is_left_to_queue(exporter));
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
