//! What Weir knows about itself: ledger, health, polls, queues and attempts.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::dead_letters::DeadLetters;
use crate::health::Board;
use crate::ledger::Ledger;
use crate::memory_budget::MemoryBudget;
use crate::outcome::Fault;
use crate::queue::Outlet;

/// What one collector's polls came to.
#[derive(Debug, Default)]
pub struct Polls(Mutex<PollCounts>);

/// The numbers behind [`Polls`].
#[derive(Clone, Debug, Default)]
pub struct PollCounts {
    /// Polls that ended without a fault.
    pub succeeded: u64,
    /// Polls that ended with a fault, by its kind.
    pub failed: BTreeMap<&'static str, u64>,
    /// Polls that were due while an earlier one was under way.
    pub overlapped: u64,
    /// Polls that were left out because memory was short.
    pub short_of_memory: u64,
    /// Points of the last poll.
    pub points: u64,
    /// How long the last poll took.
    pub duration: Duration,
}

impl Polls {
    fn change(&self, change: impl FnOnce(&mut PollCounts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The numbers now.
    pub fn counts(&self) -> PollCounts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A poll ended.
    pub fn count(&self, duration: Duration, points: u64, fault: Option<&Fault>) {
        self.change(|counts| {
            counts.duration = duration;
            counts.points = points;
            match fault {
                None => counts.succeeded += 1,
                Some(fault) => *counts.failed.entry(fault.kind.name()).or_default() += 1,
            }
        });
    }

    /// Polls were due while an earlier one was under way.
    pub fn overlapped(&self, polls: u64) {
        self.change(|counts| counts.overlapped += polls);
    }

    /// A poll was left out because nothing could have kept what it gathers.
    pub fn short_of_memory(&self) {
        self.change(|counts| counts.short_of_memory += 1);
    }
}

/// What one exporter has done so far.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Requests that were taken.
    pub succeeded: AtomicU64,
    /// Requests that were not.
    pub failed: AtomicU64,
    /// Requests that may be under way at once, as the worker has found out.
    pub in_flight_limit: AtomicU64,
    /// Until when nothing is sent, unix milliseconds; 0 = it is.
    pub paused_until_ms: AtomicU64,
    last_error: Mutex<Option<LastError>>,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// In words.
    pub text: String,
    /// When, unix milliseconds.
    pub time_ms: u64,
}

impl Attempts {
    /// A request failed.
    pub fn failed_because(&self, why: &str) {
        let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let error = LastError { text: why.to_owned(), time_ms };
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Why the last request failed that did.
    pub fn last_error(&self) -> Option<LastError> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What Weir knows about itself. One per pipeline, shared by all its parts.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Where every record is.
    pub ledger: Arc<Ledger>,
    /// How every integration feels.
    pub health: Arc<Board>,
    /// Memory for records on their way.
    pub memory: Arc<MemoryBudget>,
    dead_letters: OnceLock<Arc<DeadLetters>>,
    polls: RwLock<BTreeMap<Arc<str>, Arc<Polls>>>,
    exporters: RwLock<Vec<(Arc<Outlet>, Arc<Attempts>)>>,
}

impl Telemetry {
    /// The polls of a collector.
    pub fn polls(&self, name: &Arc<str>) -> Arc<Polls> {
        self.polls.write().unwrap_or_else(PoisonError::into_inner).entry(name.clone()).or_default().clone()
    }

    /// An exporter was started, in the place of one of its name.
    pub fn exporter(&self, outlet: Arc<Outlet>, attempts: Arc<Attempts>) {
        let mut exporters = self.exporters.write().unwrap_or_else(PoisonError::into_inner);
        exporters.retain(|(other, _)| other.name != outlet.name);
        exporters.push((outlet, attempts));
    }

    /// A source is not there any more. Its rows of the ledger stay.
    pub fn forget(&self, name: &str) {
        self.health.forget(name);
        self.polls.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// An exporter is not there any more, unless another one has its place.
    pub fn forget_exporter(&self, outlet: &Arc<Outlet>) {
        if self.close_exporter(outlet) {
            self.health.forget(&outlet.name);
        }
    }

    /// An exporter has ended: its queue is let go of. Whether it was in its place still.
    pub(crate) fn close_exporter(&self, outlet: &Arc<Outlet>) -> bool {
        let mut exporters = self.exporters.write().unwrap_or_else(PoisonError::into_inner);
        let before = exporters.len();
        exporters.retain(|(other, _)| !Arc::ptr_eq(other, outlet));
        exporters.len() < before
    }

    /// The exporters that were started.
    pub fn exporters(&self) -> Vec<(Arc<Outlet>, Arc<Attempts>)> {
        self.exporters.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What backends refused for good; `None` before the start, and where everything is in memory.
    pub fn dead_letters(&self) -> Option<&Arc<DeadLetters>> {
        self.dead_letters.get()
    }

    pub(crate) fn set_dead_letters(&self, letters: Arc<DeadLetters>) {
        // A pipeline is started once.
        let _ = self.dead_letters.set(letters);
    }

    /// All collectors' polls.
    pub fn all_polls(&self) -> Vec<(Arc<str>, PollCounts)> {
        let polls = self.polls.read().unwrap_or_else(PoisonError::into_inner);
        polls.iter().map(|(name, polls)| (name.clone(), polls.counts())).collect()
    }
}
