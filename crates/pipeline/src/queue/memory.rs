//! The queue in memory: nothing of it is left after the process.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use weir_model::Verdict;

use crate::ledger::{Account, Reason};
use crate::memory_budget::{MemoryBudget, Reservation};
use crate::options::WhenFull;
use crate::queue::{Entry, Hold, Queue, QueueKind, QueueStatus, TakeLimits, Taken};

/// A queue in memory.
#[derive(Debug)]
pub struct MemoryQueue {
    limit_bytes: usize,
    when_full: WhenFull,
    budget: Option<Arc<MemoryBudget>>,
    used: Arc<AtomicUsize>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Waiting>,
    closed: bool,
}

/// An entry that waits.
#[derive(Debug)]
struct Waiting {
    entry: Entry,
    hold: Arc<Hold>,
}

/// What the front of a queue gives.
enum Front {
    Taken(Vec<Taken>),
    /// Too little; the oldest waits for more for so long.
    Lingers(Duration),
    Empty,
    /// Closed and empty, seen under one lock: nothing can come any more.
    Ended,
}

impl MemoryQueue {
    /// A queue of at most `limit_bytes`, what is under way included. One batch larger than that is
    /// taken when nothing else is there, so that it cannot wait for ever. All of it counts in the budget.
    pub fn new(limit_bytes: usize, when_full: WhenFull, budget: Option<Arc<MemoryBudget>>) -> Self {
        let (used, state, changed) = (Arc::default(), Mutex::default(), Notify::new());
        Self { limit_bytes, when_full, budget, used, state, changed }
    }

    /// Whether the bound has room for so many bytes.
    fn fits(&self, bytes: usize) -> bool {
        let used = self.used.load(Ordering::Acquire);
        used == 0 || used.saturating_add(bytes) <= self.limit_bytes
    }

    /// Why a batch of this size would not be taken, if it would not.
    fn shortage(&self, bytes: usize) -> Option<String> {
        let mebibytes = |bytes: usize| bytes.div_ceil(1 << 20);
        if self.when_full == WhenFull::DropOldest {
            return None;
        }
        if !self.fits(bytes) {
            return Some(format!("the queue is full: its {} MiB of memory are used", mebibytes(self.limit_bytes)));
        }
        let budget = self.budget.as_ref().filter(|budget| !budget.has_room(bytes))?;
        Some(format!("memory is used up: {} MiB wait in the process", mebibytes(budget.limit())))
    }

    /// Memory for an entry; without a budget there always is.
    fn reserve(&self, bytes: usize) -> Option<Option<Reservation>> {
        match &self.budget {
            Some(budget) => budget.try_reserve(bytes).map(Some),
            None => Some(None),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first entries that can travel together, if they fill a request or have waited long enough.
    fn grab(&self, limits: TakeLimits) -> Front {
        let mut state = self.lock();
        let Some(Waiting { entry: first, .. }) = state.entries.front() else {
            return if state.closed { Front::Ended } else { Front::Empty };
        };
        let (origin, signal, since) = (first.batch.origin.clone(), first.batch.payload.signal(), first.since);
        let (mut count, mut records, mut bytes) = (0, 0, 0);
        let mut full = state.closed;
        for waiting in &state.entries {
            let batch = &waiting.entry.batch;
            records += batch.payload.len();
            bytes += batch.payload.size_bytes();
            let fits = records <= limits.records && bytes <= limits.bytes;
            if batch.origin != origin || batch.payload.signal() != signal || (count > 0 && !fits) {
                full = true;
                break;
            }
            count += 1;
        }
        let full = full || records >= limits.records || bytes >= limits.bytes;
        if !full && !limits.linger.is_zero() {
            let left = limits.linger.saturating_sub(since.elapsed());
            if !left.is_zero() {
                return Front::Lingers(left);
            }
        }
        let take = |Waiting { entry, hold }: Waiting| {
            let Entry { batch, row, since } = entry;
            row.take(batch.payload.len() as u64);
            Taken { batch, account: Account::of(row), since, hold }
        };
        Front::Taken(state.entries.drain(..count).map(take).collect())
    }
}

impl Queue for MemoryQueue {
    fn has_room(&self, bytes: usize) -> bool {
        self.shortage(bytes).is_none()
    }

    fn push(&self, entry: Entry) -> Result<(), Reason> {
        let bytes = entry.batch.payload.size_bytes();
        // Settled at the end, when nothing is locked: whoever hears of it may come back here.
        let mut displaced = Vec::new();
        let mut state = self.lock();
        if state.closed {
            return Err(Reason::Stopped);
        }
        if !self.fits(bytes) && self.when_full == WhenFull::Block {
            return Err(Reason::QueueFull);
        }
        // Since it was looked at, others may have taken what is reserved here.
        let mut reserved = self.reserve(bytes);
        // What is under way cannot be dropped, so the loop ends when nothing waits.
        while (self.used.load(Ordering::Acquire).saturating_add(bytes) > self.limit_bytes || reserved.is_none())
            && self.when_full == WhenFull::DropOldest
        {
            let Some(Waiting { entry: oldest, hold }) = state.entries.pop_front() else { break };
            oldest.row.drop_unstored(oldest.batch.payload.len() as u64, Reason::QueueFull);
            displaced.push(oldest.batch.receipt);
            drop(hold);
            reserved = reserved.or_else(|| self.reserve(bytes));
        }
        let pushed = reserved.map(|reservation| {
            entry.row.accept(entry.batch.payload.len() as u64);
            self.used.fetch_add(bytes, Ordering::AcqRel);
            let hold = Arc::new(Hold { bytes, used: self.used.clone(), _reservation: reservation });
            state.entries.push_back(Waiting { entry, hold });
        });
        drop(state);
        self.changed.notify_one();
        // Dropped as configured: sent again, they would only displace newer ones.
        displaced.into_iter().for_each(|receipt| receipt.settle(Verdict::Delivered));
        pushed.ok_or(Reason::MemoryFull)
    }

    fn take(&self, limits: TakeLimits) -> BoxFuture<'_, Option<Vec<Taken>>> {
        Box::pin(async move {
            loop {
                let changed = self.changed.notified();
                match self.grab(limits) {
                    Front::Taken(taken) => return Some(taken),
                    Front::Lingers(left) => {
                        // Either more has come, or the wait is over: both are looked at above.
                        let _ = tokio::time::timeout(left, changed).await;
                    }
                    Front::Empty => changed.await,
                    Front::Ended => return None,
                }
            }
        })
    }

    fn is_durable(&self) -> bool {
        false
    }

    fn give_back(&self, taken: Taken) {
        let Taken { batch, account, since, hold } = taken;
        let row = account.row().clone();
        row.put_back(batch.payload.len() as u64);
        self.lock().entries.push_front(Waiting { entry: Entry { batch, row, since }, hold });
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    fn abandon(&self, reason: Reason) {
        let entries = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.entries)
        };
        for waiting in entries {
            waiting.entry.row.drop_unstored(waiting.entry.batch.payload.len() as u64, reason);
        }
    }

    fn status(&self) -> QueueStatus {
        let is_short = self.shortage(1);
        let state = self.lock();
        QueueStatus {
            kind: QueueKind::Memory,
            records: state.entries.iter().map(|t| t.entry.batch.payload.len() as u64).sum(),
            bytes: self.used.load(Ordering::Acquire),
            limit_bytes: self.limit_bytes,
            oldest: state.entries.front().map(|t| t.entry.since.elapsed()),
            is_short,
            is_damaged: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::Instant;
    use weir_model::{Batch, Encoding, Payload, Receipt, Signal, Wire};

    use super::*;
    use crate::ledger::Row;

    fn entry(row: &Arc<Row>, bytes: usize) -> Entry {
        let wire = Wire { encoding: Encoding::Protobuf, bytes: Bytes::from(vec![0; bytes]) };
        let payload = Payload::from_wire(Signal::Logs, wire, 1);
        let batch = Batch { origin: Arc::from("source"), payload, receipt: Receipt::unclaimed() };
        Entry { batch, row: row.clone(), since: Instant::now() }
    }

    #[tokio::test]
    async fn queues_share_a_budget_until_what_was_taken_is_let_go() {
        let (budget, row) = (MemoryBudget::new(1000), Arc::new(Row::default()));
        let queue = |when_full| MemoryQueue::new(10_000, when_full, Some(budget.clone()));
        let (first, second) = (queue(WhenFull::Block), queue(WhenFull::Block));
        first.push(entry(&row, 600)).unwrap();
        assert!(!second.has_room(600) && second.has_room(400));
        assert_eq!(second.push(entry(&row, 600)), Err(Reason::MemoryFull));
        assert!(second.status().is_short.is_none(), "a small one fits");
        second.push(entry(&row, 400)).unwrap();
        assert!(second.status().is_short.unwrap().contains("memory is used up"));
        let limits = TakeLimits { records: 1, bytes: 1, linger: Duration::ZERO };
        let taken = first.take(limits).await.unwrap();
        assert_eq!(budget.used(), 1000, "what is under way counts");
        drop(taken);
        assert_eq!(budget.used(), 400);
        // One that drops its oldest drops its own, not those of others.
        let drops = queue(WhenFull::DropOldest);
        drops.push(entry(&row, 500)).unwrap();
        drops.push(entry(&row, 600)).unwrap();
        assert_eq!((drops.status().records, second.status().records, budget.used()), (1, 1, 1000));
        assert_eq!(drops.push(entry(&row, 700)), Err(Reason::MemoryFull));
        drop((drops, second));
        assert_eq!(budget.used(), 0);
    }
}
