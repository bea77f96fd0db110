//! Delivery: takes from one exporter's queue, attempts, waits, splits, and says what became of it.
//!
//! - [`delivery`]: one delivery from its first attempt to its end; [`part`]: the entries that travel in it
//! - [`settle`]: which of them an answer is about; [`bisect`]: where the answer does not say
//! - [`gate`]: when nothing may be sent; [`concurrency`]: how much at once
//!
//! Exporters share nothing but the runtime, and no lock is held over an attempt.

mod bisect;
mod concurrency;
mod delivery;
mod gate;
mod part;
mod settle;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use weir_model::metrics::Temporality;
use weir_model::{Records, Signal};

use crate::dead_letters::DeadLetters;
use crate::health::Board;
use crate::ledger::Reason;
use crate::options::ExportOptions;
use crate::queue::{Queue, TakeLimits, Taken};
use crate::role::DynExport;
use crate::telemetry::Attempts;
use crate::temporality::Converter;
use crate::worker::concurrency::{Slot, Slots};
use crate::worker::delivery::Delivering;
use crate::worker::gate::Gate;
use crate::worker::part::{Because, Part, Refusal};

/// How long a worker that is released lets the requests under way end. An exporter's own timeout may
/// be longer; then the request is dropped, and what it carried may arrive twice.
const LETS_END: Duration = Duration::from_secs(5);

/// Series that the temporality conversion of one exporter remembers.
const CONVERTED_SERIES: usize = 500_000;

/// Runs one exporter.
pub struct Worker {
    /// Its instance name.
    pub name: Arc<str>,
    /// The exporter.
    pub exporter: Arc<dyn DynExport>,
    /// Its queue.
    pub queue: Arc<dyn Queue>,
    /// Its options.
    pub options: ExportOptions,
    /// Where its health is shown.
    pub board: Arc<Board>,
    /// What it has done.
    pub attempts: Arc<Attempts>,
    /// Where records go that the backend refuses for good; without it they are dropped and counted.
    pub dead_letters: Option<Arc<DeadLetters>>,
}

/// A worker at work.
struct Runner {
    worker: Worker,
    slots: Arc<Slots>,
    gate: Gate,
    converter: Option<Mutex<Converter>>,
    /// Deliveries with refused records that the disk does not take.
    unkept: AtomicUsize,
}

/// When to stop.
#[derive(Clone)]
struct Signals {
    /// Another worker goes on: what can go back to the queue does.
    release: CancellationToken,
    /// The time after a release is over: everything goes back.
    cut: CancellationToken,
    /// Everything ends now.
    abandon: CancellationToken,
}

impl Signals {
    /// Waits until a delivery must look up; one with entries that can go back to the queue does so
    /// at a release already.
    async fn interrupted(&self, at_release: bool) {
        tokio::select! {
            () = self.abandon.cancelled() => {}
            () = self.cut.cancelled() => {}
            () = self.release.cancelled(), if at_release => {}
        }
    }
}

/// Counts a delivery whose refused records the disk does not take.
struct Failing<'a>(&'a AtomicUsize);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Deliveries that end: their number, and what goes back to the queue.
type Tasks = JoinSet<(u64, Vec<Part>)>;

impl Worker {
    /// Delivers until the queue is closed and empty. When `release` is cancelled it takes no more, lets
    /// the requests under way end for at most 5 s, and gives back the rest, so that another worker can go
    /// on. When `abandon` is cancelled it lets go at once: a queue on disk keeps what is not delivered, of
    /// one in memory it is counted as stopped.
    pub async fn run(self, release: CancellationToken, abandon: CancellationToken) {
        let signals = Signals { release, cut: CancellationToken::new(), abandon };
        let runner = Arc::new(Runner::new(self));
        let mut tasks = Tasks::new();
        let (mut number, mut left) = (0_u64, Vec::new());
        while let Some((slot, taken)) = runner.next(&signals).await {
            while let Some(ended) = tasks.try_join_next() {
                left.extend(leftover(ended));
            }
            let (parts, unreadable) = runner.prepare(taken);
            if parts.is_empty() && unreadable.is_empty() {
                continue;
            }
            let delivering = Delivering::new(runner.clone(), signals.clone(), parts);
            number += 1;
            tasks.spawn(async move {
                let left = delivering.run(unreadable).await;
                drop(slot);
                (number, left)
            });
        }
        if signals.abandon.is_cancelled() {
            runner.worker.queue.abandon(Reason::Stopped);
        }
        left.extend(ends(tasks, &signals).await);
        runner.give_back(left);
        if signals.abandon.is_cancelled() {
            // What was given back before everything had to end.
            runner.worker.queue.abandon(Reason::Stopped);
        }
    }
}

/// What a delivery leaves to be given back, if anything.
fn leftover(ended: Result<(u64, Vec<Part>), JoinError>) -> Option<(u64, Vec<Part>)> {
    match ended {
        Ok((_, parts)) if parts.is_empty() => None,
        Ok(left) => Some(left),
        Err(error) => {
            tracing::error!(%error, "a delivery panicked; please report it");
            None
        }
    }
}

/// Waits until all deliveries have ended, for those of a release not too long.
async fn ends(mut tasks: Tasks, signals: &Signals) -> Vec<(u64, Vec<Part>)> {
    let mut left = Vec::new();
    let cut = async {
        signals.release.cancelled().await;
        tokio::time::sleep(LETS_END).await;
        signals.cut.cancel();
        std::future::pending::<()>().await;
    };
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            left.extend(leftover(ended));
        }
    };
    tokio::select! {
        () = all => {}
        () = cut => {}
    }
    left
}

impl Runner {
    fn new(worker: Worker) -> Self {
        let takes = worker.exporter.takes();
        let most = if takes.ordered { 1 } else { worker.options.max_in_flight.max(1) };
        let converter = match takes.temporality {
            Temporality::Unspecified => None,
            wanted => Some(Mutex::new(Converter::new(wanted, CONVERTED_SERIES))),
        };
        worker.queue.bound_repeats((worker.options.batch_size.max(1) as u64).saturating_mul(most as u64));
        let (slots, gate) = (Slots::new(most, worker.attempts.clone()), Gate::new(worker.attempts.clone()));
        Self { worker, slots, gate, converter, unkept: AtomicUsize::new(0) }
    }

    /// A place, and what to deliver in it; `None` when there will be no more.
    async fn next(&self, signals: &Signals) -> Option<(Slot, Vec<Taken>)> {
        let options = &self.worker.options;
        let limits = TakeLimits {
            records: options.batch_size.max(1),
            bytes: usize::try_from(options.batch_bytes.bytes()).unwrap_or(usize::MAX).max(1),
            linger: options.flush_interval.into(),
        };
        let next = async {
            let slot = self.slots.delivery().await;
            self.worker.queue.take(limits).await.map(|taken| (slot, taken))
        };
        tokio::select! {
            biased;
            () = signals.interrupted(true) => None,
            next = next => next,
        }
    }

    /// Entries as this exporter wants them, and those that cannot be read.
    fn prepare(&self, taken: Vec<Taken>) -> (Vec<Part>, Vec<Refusal>) {
        let is_durable = self.worker.queue.is_durable();
        let (mut parts, mut unreadable) = (Vec::new(), Vec::new());
        for part in taken.into_iter().map(|taken| Part::new(taken, is_durable)) {
            if part.is_withdrawn() {
                part.given_up(Reason::Withdrawn);
                continue;
            }
            let converter = self.converter.as_ref().filter(|_| part.payload.signal() == Signal::Metrics);
            let Some(converter) = converter else {
                parts.push(part);
                continue;
            };
            let mut converter = converter.lock().unwrap_or_else(PoisonError::into_inner);
            match part.payload.records() {
                Ok(Records::Metrics(metrics)) if converter.needs(metrics) => {
                    parts.extend(part.converted(|metrics| converter.convert(metrics).metrics));
                }
                Ok(_) => parts.push(part),
                Err(error) => {
                    let because = Because { reason: Reason::NotEncodable, why: error.to_string(), answer: None };
                    unreadable.push(part.refused(&because));
                }
            }
        }
        (parts, unreadable)
    }

    /// Back to the queue, in the order in which it was taken.
    fn give_back(&self, mut left: Vec<(u64, Vec<Part>)>) {
        left.sort_by_key(|(number, _)| *number);
        let parts = left.into_iter().flat_map(|(_, parts)| parts).rev();
        // Each goes before all others.
        parts.collect::<Vec<_>>().into_iter().for_each(|part| part.give_back(&*self.worker.queue));
    }

    fn keeping_fails(&self) -> Failing<'_> {
        self.unkept.fetch_add(1, Ordering::AcqRel);
        Failing(&self.unkept)
    }

    /// The backend took something. That does not help while the disk does not take what it refused.
    fn healthy(&self) {
        if self.unkept.load(Ordering::Acquire) == 0 {
            self.worker.board.healthy(&self.worker.name);
        }
    }
}
