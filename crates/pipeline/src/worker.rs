//! Delivery: takes from one exporter's queue, attempts, waits, splits, and says what became of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weir_model::metrics::Temporality;
use weir_model::{Payload, Receipt, Records, Verdict};

use crate::backoff::Backoff;
use crate::health::Board;
use crate::ledger::{Reason, Row};
use crate::options::ExportOptions;
use crate::outcome::{Outcome, Refused};
use crate::queue::{Hold, Queue, TakeLimits, Taken};
use crate::role::{Delivery, DynExport};
use crate::temporality::Converter;

/// How long a worker waits before it tries again with credentials that were not accepted: they may
/// be rotated at any time, but hammering locks accounts.
const UNAUTHORIZED_DELAY: Duration = Duration::from_secs(30);

/// Series that the temporality conversion of one exporter remembers.
const CONVERTED_SERIES: usize = 500_000;

/// What one exporter has done so far.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Requests that were taken.
    pub succeeded: AtomicU64,
    /// Requests that were not.
    pub failed: AtomicU64,
}

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
}

/// A part of a delivery: one payload, its receipt and the row it is counted in.
struct Part {
    payload: Payload,
    receipt: Receipt,
    row: Arc<Row>,
    since: Instant,
    /// Keeps the queue's bytes accounted for until this part is settled.
    _hold: Arc<Hold>,
}

impl Part {
    fn records(&self) -> u64 {
        self.payload.len() as u64
    }

    fn delivered(self) {
        self.row.deliver(self.records());
        self.receipt.settle(Verdict::Delivered);
    }

    fn refused(self, why: &str) {
        let records = self.records();
        self.row.drop_in_flight(records, Reason::Refused);
        self.receipt.refuse(records, why);
    }

    /// Dropped by Weir, and the source must send again if it can.
    fn given_up(self, reason: Reason) {
        self.row.drop_in_flight(self.records(), reason);
        self.receipt.settle(Verdict::Retry);
    }
}

impl Worker {
    /// Delivers until the queue is closed and empty. When `abandon` is cancelled, everything that
    /// is not delivered yet is counted as stopped.
    pub async fn run(self, abandon: CancellationToken) {
        let takes = self.exporter.takes();
        let in_flight = if takes.ordered { 1 } else { self.options.max_in_flight.max(1) };
        let limits = TakeLimits {
            records: self.options.batch_size.max(1),
            bytes: usize::try_from(self.options.batch_bytes.bytes()).unwrap_or(usize::MAX).max(1),
            linger: self.options.flush_interval.into(),
        };
        let converter = match takes.temporality {
            Temporality::Unspecified => None,
            wanted => Some(Mutex::new(Converter::new(wanted, CONVERTED_SERIES))),
        };
        let worker = Arc::new(self);
        let slots = Arc::new(Semaphore::new(in_flight));
        let mut tasks = JoinSet::new();
        loop {
            // The semaphore is never closed, so a slot always comes.
            let Ok(slot) = slots.clone().acquire_owned().await else { break };
            let taken = tokio::select! {
                taken = worker.queue.take(limits) => taken,
                () = abandon.cancelled() => None,
            };
            let Some(taken) = taken else { break };
            let parts: Vec<Part> = taken.into_iter().filter_map(|taken| worker.prepare(taken, converter.as_ref())).collect();
            if parts.is_empty() {
                continue;
            }
            while tasks.try_join_next().is_some() {}
            let (worker, abandon) = (worker.clone(), abandon.clone());
            tasks.spawn(async move {
                worker.deliver(parts, &abandon).await;
                drop(slot);
            });
        }
        worker.queue.abandon(Reason::Stopped);
        while tasks.join_next().await.is_some() {}
    }

    /// An entry as this exporter wants it; `None` if nothing of it is left to deliver.
    fn prepare(&self, taken: Taken, converter: Option<&Mutex<Converter>>) -> Option<Part> {
        let Taken { entry, hold } = taken;
        let mut part = Part {
            payload: entry.batch.payload,
            receipt: entry.batch.receipt,
            row: entry.row,
            since: entry.since,
            _hold: hold,
        };
        if part.receipt.is_withdrawn() {
            part.given_up(Reason::Withdrawn);
            return None;
        }
        let Some(converter) = converter else { return Some(part) };
        let mut converter = converter.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = match part.payload.records() {
            Ok(Records::Metrics(metrics)) => converter.needs(metrics),
            Ok(_) => false,
            Err(error) => {
                part.row.drop_in_flight(part.records(), Reason::NotEncodable);
                part.receipt.refuse(part.payload.len() as u64, &error.to_string());
                return None;
            }
        };
        if !needed {
            return Some(part);
        }
        let before = part.records();
        // It was decoded above, so this cannot fail.
        let Ok(Records::Metrics(metrics)) = part.payload.clone().into_records() else { return Some(part) };
        let converted = converter.convert(metrics);
        part.payload = Payload::from_records(Records::Metrics(converted.metrics));
        let left_out = before.saturating_sub(part.records());
        part.row.drop_in_flight(left_out, Reason::Temporality);
        if part.payload.is_empty() {
            part.receipt.settle(Verdict::Delivered);
            return None;
        }
        Some(part)
    }

    /// Delivers parts, halving them where the backend asks for less or names no culprit.
    async fn deliver(&self, parts: Vec<Part>, abandon: &CancellationToken) {
        let mut waiting = VecDeque::from([parts]);
        while let Some(parts) = waiting.pop_front() {
            if let Some((first, second)) = self.attempt_until_settled(parts, abandon).await {
                waiting.push_front(second);
                waiting.push_front(first);
            }
        }
    }

    /// Attempts until everything is settled, or gives the halves that must travel apart.
    async fn attempt_until_settled(&self, parts: Vec<Part>, abandon: &CancellationToken) -> Option<(Vec<Part>, Vec<Part>)> {
        let (mut parts, mut delivery) = (parts, None::<Delivery>);
        let mut backoff = Backoff::new(self.options.retry_delay.into(), self.options.retry_max_delay.into());
        let mut attempt = 0_u32;
        loop {
            // Senders that gave up send again: delivering their copies too would only double them.
            if parts.iter().any(|part| part.receipt.is_withdrawn()) {
                let (gone, left) = parts.into_iter().partition(|part| part.receipt.is_withdrawn());
                Vec::<Part>::into_iter(gone).for_each(|part| part.given_up(Reason::Withdrawn));
                (parts, delivery) = (left, None);
            }
            let Some(first) = parts.first() else { return None };
            let signal = first.payload.signal();
            let delivery = delivery.get_or_insert_with(|| Delivery {
                signal,
                payloads: parts.iter().map(|part| part.payload.clone()).collect(),
                id: fastrand::u64(..),
            });
            let outcome = tokio::select! {
                outcome = self.attempt(delivery) => outcome,
                () = abandon.cancelled() => {
                    parts.into_iter().for_each(|part| part.given_up(Reason::Stopped));
                    return None;
                }
            };
            self.note(&outcome);
            let (after, why) = match outcome {
                Outcome::Accepted => {
                    parts.into_iter().for_each(Part::delivered);
                    return None;
                }
                Outcome::Partly { refused, why } => {
                    settle_partly(parts, &refused, &why);
                    return None;
                }
                Outcome::Never { why } => {
                    parts.into_iter().for_each(|part| part.refused(&why));
                    return None;
                }
                Outcome::Split { why } => return halve(parts, &why),
                Outcome::Unauthorized { why } => (Some(UNAUTHORIZED_DELAY), why),
                Outcome::Later { after, why } => (after, why),
            };
            attempt += 1;
            let delay = backoff.next(after);
            if self.is_over(attempt, delay, &parts) {
                tracing::warn!("{}: {} records are given up after {attempt} attempts: {why}", self.name, delivery.len());
                parts.into_iter().for_each(|part| part.given_up(Reason::Expired));
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = abandon.cancelled() => {}
            }
        }
    }

    /// One attempt; an exporter that panics has failed this once, and nothing is lost.
    async fn attempt(&self, delivery: &Delivery) -> Outcome {
        let attempt = async { self.exporter.export(delivery).await };
        std::panic::AssertUnwindSafe(attempt).catch_unwind().await.unwrap_or_else(|_| Outcome::Later { after: None, why: "the exporter panicked; please report it".into() })
    }

    fn is_over(&self, attempt: u32, delay: Duration, parts: &[Part]) -> bool {
        let oldest = parts.iter().map(|part| part.since.elapsed()).max().unwrap_or_default();
        let max_age = self.options.retry_max_age.get();
        let too_old = !max_age.is_zero() && oldest + delay > max_age;
        too_old || self.options.retry_attempts.is_some_and(|most| attempt > most)
    }

    fn note(&self, outcome: &Outcome) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Accepted => {
                count(&self.attempts.succeeded);
                self.board.healthy(&self.name);
            }
            Outcome::Partly { refused, why } => {
                count(&self.attempts.succeeded);
                self.board.healthy(&self.name);
                tracing::warn!("{}: the backend refused {} records for good: {why}", self.name, refused.count());
            }
            Outcome::Split { .. } => {
                count(&self.attempts.failed);
            }
            Outcome::Never { why } | Outcome::Later { why, .. } | Outcome::Unauthorized { why } => {
                count(&self.attempts.failed);
                self.board.unhealthy(&self.name, why);
            }
        }
    }
}

/// The backend took some records and refused others.
fn settle_partly(parts: Vec<Part>, refused: &Refused, why: &str) {
    let mut left = refused.count();
    let mut start = 0_u64;
    for part in parts {
        let records = part.records();
        let own = match refused {
            // The backend does not say which: they are counted from the first part on.
            Refused::Count(_) => left.min(records),
            Refused::Records(at) => {
                at.iter().filter(|at| (start..start + records).contains(&u64::from(**at))).count() as u64
            }
        };
        left -= own.min(left);
        start += records;
        part.row.deliver(records - own);
        part.row.drop_in_flight(own, Reason::Refused);
        if own == 0 { part.receipt.settle(Verdict::Delivered) } else { part.receipt.refuse(own, why) }
    }
}

/// Two halves of what was too much for one request; a single record that is too much is refused.
fn halve(mut parts: Vec<Part>, why: &str) -> Option<(Vec<Part>, Vec<Part>)> {
    if parts.len() > 1 {
        let second = parts.split_off(parts.len() / 2);
        return Some((parts, second));
    }
    let part = parts.pop()?;
    if part.payload.len() < 2 {
        part.refused(why);
        return None;
    }
    let Ok(records) = part.payload.records() else {
        part.refused(why);
        return None;
    };
    let (first, second) = records.split_at(part.payload.len() / 2);
    let half = |records: Records| Part {
        payload: Payload::from_records(records),
        receipt: part.receipt.split(),
        row: part.row.clone(),
        since: part.since,
        _hold: part._hold.clone(),
    };
    let halves = (vec![half(first)], vec![half(second)]);
    // This part's own claim lives on in its halves.
    part.receipt.settle(Verdict::Delivered);
    Some(halves)
}
