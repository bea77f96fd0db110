//! Delivery: takes from one exporter's queue, attempts, waits, splits, and says what became of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_model::metrics::Temporality;
use weir_model::{DecodeError, Payload, Receipt, Records, Signal, Verdict};

use crate::backoff::Backoff;
use crate::dead_letters::DeadLetters;
use crate::health::Board;
use crate::ledger::{Account, Reason};
use crate::options::ExportOptions;
use crate::outcome::{Outcome, Refused};
use crate::queue::{Hold, Queue, TakeLimits, Taken};
use crate::role::{Delivery, DynExport};
use crate::telemetry::Attempts;
use crate::temporality::Converter;

/// How long a worker waits before it tries again with credentials that were not accepted: they may
/// be rotated at any time, but hammering locks accounts.
const UNAUTHORIZED_DELAY: Duration = Duration::from_secs(30);

/// The longest time that a backend may ask for: a date from a wrong clock must not silence an
/// exporter for years.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// The longest time for one attempt, whatever the exporter's own timeouts are.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(300);

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

/// A part of a delivery: one payload, its receipt and the row it is counted in.
struct Part {
    payload: Payload,
    receipt: Receipt,
    account: Account,
    since: Instant,
    /// Whether its temporality was converted. Sent again, the same points would be out of order
    /// and give nothing, so this part is delivered even if its sender gave up waiting.
    converted: bool,
    /// Records of the same batch that were refused, once it has been split.
    refused_before: Option<Arc<AtomicU64>>,
    /// Keeps the queue's bytes accounted for until this part is settled.
    _hold: Arc<Hold>,
}

impl Part {
    fn records(&self) -> u64 {
        self.payload.len() as u64
    }

    fn delivered(self) {
        self.account.deliver(self.records());
        self.receipt.settle(Verdict::Delivered);
    }

    fn refused(self, why: &str) {
        let records = self.records();
        self.partly_refused(records, why);
    }

    /// The backend took all but so many records. Those of the pieces of one batch add up.
    fn partly_refused(self, refused: u64, why: &str) {
        self.account.deliver(self.records() - refused);
        self.account.drop_in_flight(refused, Reason::Refused);
        let before = self.refused_before.as_ref().map_or(0, |before| before.fetch_add(refused, Ordering::Relaxed));
        self.receipt.refuse(before + refused, why);
    }

    /// The backend took all but the refused records and those at the positions `later`; what is left
    /// to send again, if anything.
    fn settle_each(mut self, refused: u64, why: &str, later: &[usize]) -> Option<Part> {
        if later.is_empty() {
            match refused {
                0 => self.delivered(),
                _ => self.partly_refused(refused, why),
            }
            return None;
        }
        // Without its records a part can only be sent again whole. Who names records has read them,
        // so this is an error of Weir.
        let Ok(records) = self.payload.records() else { return Some(self) };
        if later.len() == records.len() {
            return Some(self);
        }
        let left = records.select(|position| later.binary_search(&position).is_ok());
        self.account.deliver(self.records().saturating_sub(refused + later.len() as u64));
        if refused > 0 {
            self.account.drop_in_flight(refused, Reason::Refused);
            let before = self.refused_before.get_or_insert_default().fetch_add(refused, Ordering::Relaxed);
            self.receipt.split().refuse(before + refused, why);
        }
        self.payload = Payload::from_records(left);
        Some(self)
    }

    /// Its sender gave up and sends it again: delivering this copy too would only double it.
    fn is_withdrawn(&self) -> bool {
        !self.converted && self.receipt.is_withdrawn()
    }

    /// Dropped by Weir, and the source must send again if it can.
    fn given_up(self, reason: Reason) {
        self.account.drop_in_flight(self.records(), reason);
        self.receipt.settle(Verdict::Retry);
    }
}

impl Worker {
    /// Delivers until the queue is closed and empty. When `release` is cancelled it takes no more, ends
    /// what is under way and gives back the rest, so that another worker can go on; when `abandon` is
    /// cancelled it lets go at once: a queue on disk keeps what is not delivered, of one in memory it
    /// is counted as stopped.
    pub async fn run(self, release: CancellationToken, abandon: CancellationToken) {
        let _ = &release;
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
                biased;
                () = abandon.cancelled() => None,
                taken = worker.queue.take(limits) => taken,
            };
            let Some(taken) = taken else { break };
            let parts: Vec<Part> =
                taken.into_iter().filter_map(|taken| worker.prepare(taken, converter.as_ref())).collect();
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
        let Taken { batch, account, since, hold } = taken;
        let mut part = Part {
            payload: batch.payload,
            receipt: batch.receipt,
            account,
            since,
            converted: false,
            refused_before: None,
            _hold: hold,
        };
        if part.is_withdrawn() {
            part.given_up(Reason::Withdrawn);
            return None;
        }
        let Some(converter) = converter.filter(|_| part.payload.signal() == Signal::Metrics) else { return Some(part) };
        let before = part.records();
        let mut converter = converter.lock().unwrap_or_else(PoisonError::into_inner);
        match convert(&mut converter, part.payload) {
            Ok((payload, converted)) => (part.payload, part.converted) = (payload, converted),
            Err(error) => {
                part.account.drop_in_flight(before, Reason::NotEncodable);
                part.receipt.refuse(before, &error.to_string());
                return None;
            }
        }
        let left_out = before.saturating_sub(part.records());
        if left_out > 0 {
            part.account.drop_in_flight(left_out, Reason::Temporality);
        }
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
    async fn attempt_until_settled(
        &self,
        parts: Vec<Part>,
        abandon: &CancellationToken,
    ) -> Option<(Vec<Part>, Vec<Part>)> {
        let (mut parts, mut delivery) = (parts, None::<Delivery>);
        let mut backoff = Backoff::new(self.options.retry_delay.into(), self.options.retry_max_delay.into());
        let mut attempt = 0_u32;
        loop {
            // Senders that gave up send again: delivering their copies too would only double them.
            if parts.iter().any(Part::is_withdrawn) {
                let (gone, left) = parts.into_iter().partition(Part::is_withdrawn);
                Vec::<Part>::into_iter(gone).for_each(|part| part.given_up(Reason::Withdrawn));
                (parts, delivery) = (left, None);
            }
            let signal = parts.first()?.payload.signal();
            let current = delivery.get_or_insert_with(|| Delivery {
                signal,
                payloads: parts.iter().map(|part| part.payload.clone()).collect(),
                id: fastrand::u64(..),
            });
            let outcome = tokio::select! {
                biased;
                () = abandon.cancelled() => {
                    parts.into_iter().for_each(|part| part.given_up(Reason::Stopped));
                    return None;
                }
                outcome = self.attempt(current) => outcome,
            };
            self.note(&outcome);
            let (after, why) = match outcome {
                Outcome::Accepted => {
                    parts.into_iter().for_each(Part::delivered);
                    return None;
                }
                Outcome::Partly { refused, why } => {
                    settle_partly(parts, refused, &why);
                    return None;
                }
                Outcome::Each { refused, later, after, why } => {
                    (parts, delivery) = (settle_each(parts, refused, later), None);
                    (after, why)
                }
                Outcome::Never { why } => {
                    parts.into_iter().for_each(|part| part.refused(&why));
                    return None;
                }
                Outcome::Split { why } => return halve(parts, &why),
                Outcome::Unauthorized { why } => (Some(UNAUTHORIZED_DELAY), why),
                Outcome::Later { after, why } => (after, why),
            };
            if parts.is_empty() {
                return None;
            }
            attempt += 1;
            let delay = backoff.next(after.map(|after| after.min(LONGEST_PAUSE)));
            let before = parts.len();
            parts = self.give_up_old(parts, attempt, delay, &why);
            if parts.is_empty() {
                return None;
            }
            if parts.len() < before {
                delivery = None;
            }
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = abandon.cancelled() => {}
            }
        }
    }

    /// One attempt; an exporter that panics has failed this once, and nothing is lost.
    async fn attempt(&self, delivery: &Delivery) -> Outcome {
        let attempt = async {
            // An exporter has its own, shorter timeouts; this one is for the error of having none.
            let hung =
                |_| Outcome::Later { after: None, why: format!("no answer within {} s", LONGEST_ATTEMPT.as_secs()) };
            tokio::time::timeout(LONGEST_ATTEMPT, self.exporter.export(delivery)).await.unwrap_or_else(hung)
        };
        std::panic::AssertUnwindSafe(attempt)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Outcome::Later { after: None, why: "the exporter panicked; please report it".into() })
    }

    /// Gives up the parts whose time or attempts are over before the next one, and answers the rest:
    /// each has its own time, whoever it travels with.
    fn give_up_old(&self, parts: Vec<Part>, attempt: u32, delay: Duration, why: &str) -> Vec<Part> {
        let max_age = self.options.retry_max_age.get();
        let too_often = self.options.retry_attempts.is_some_and(|most| attempt > most);
        let too_old = |part: &Part| !max_age.is_zero() && part.since.elapsed().saturating_add(delay) >= max_age;
        let (over, left): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(|part| too_often || too_old(part));
        if !over.is_empty() {
            let records: u64 = over.iter().map(Part::records).sum();
            self.board.lost(&self.name, || format!("{records} records are given up after {attempt} attempts: {why}"));
            over.into_iter().for_each(|part| part.given_up(Reason::Expired));
        }
        left
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
                self.board
                    .lost(&self.name, || format!("the backend refused {} records for good: {why}", refused.count()));
            }
            Outcome::Each { refused, later, after, why } => {
                if !refused.is_empty() {
                    self.board
                        .lost(&self.name, || format!("the backend refused {} records for good: {why}", refused.len()));
                }
                if later.is_empty() {
                    count(&self.attempts.succeeded);
                    self.board.healthy(&self.name);
                } else {
                    count(&self.attempts.failed);
                    if *after != Some(Duration::ZERO) {
                        self.board.unhealthy(&self.name, why);
                    }
                }
            }
            Outcome::Split { .. } => {
                count(&self.attempts.failed);
            }
            // "At once, in another way": versions of a protocol were settled, nothing is wrong.
            Outcome::Later { after: Some(Duration::ZERO), why } => {
                count(&self.attempts.failed);
                tracing::info!("{}: {why}", self.name);
            }
            Outcome::Never { why } | Outcome::Later { why, .. } | Outcome::Unauthorized { why } => {
                count(&self.attempts.failed);
                self.board.unhealthy(&self.name, why);
            }
        }
    }
}

/// Metrics in the temporality that the exporter wants, and whether that changed them.
fn convert(converter: &mut Converter, payload: Payload) -> Result<(Payload, bool), DecodeError> {
    match payload.records()? {
        Records::Metrics(metrics) if converter.needs(metrics) => {}
        _ => return Ok((payload, false)),
    }
    // Taken apart, not copied, where nobody else holds it.
    match payload.into_records()? {
        Records::Metrics(metrics) => {
            let converted = converter.convert(metrics).metrics;
            Ok((Payload::from_records(Records::Metrics(converted)), true))
        }
        other => Ok((Payload::from_records(other), false)),
    }
}

/// The backend took some records and refused others. What a backend names twice is refused once.
fn settle_partly(parts: Vec<Part>, mut refused: Refused, why: &str) {
    if let Refused::Records(at) = &mut refused {
        at.sort_unstable();
        at.dedup();
    }
    let below = |at: &[u32], end: u64| at.partition_point(|at| u64::from(*at) < end);
    let mut start = 0_u64;
    for part in parts {
        let end = start + part.records();
        let own = match &refused {
            // The backend does not say which: they are counted from the first part on.
            Refused::Count(count) => count.saturating_sub(start).min(part.records()),
            Refused::Records(at) => (below(at, end) - below(at, start)) as u64,
        };
        start = end;
        if own == 0 { part.delivered() } else { part.partly_refused(own, why) }
    }
}

/// Settles what the backend took or refused; what is left is sent again. A record that a backend
/// names twice is settled once.
fn settle_each(parts: Vec<Part>, mut refused: Vec<(u32, String)>, mut later: Vec<u32>) -> Vec<Part> {
    refused.sort_by_key(|(at, _)| *at);
    refused.dedup_by_key(|(at, _)| *at);
    later.retain(|at| refused.binary_search_by_key(at, |(at, _)| *at).is_err());
    later.sort_unstable();
    later.dedup();
    let (mut refused, mut later) = (refused.into_iter().peekable(), later.into_iter().peekable());
    let (mut left, mut start) = (Vec::new(), 0_u64);
    for part in parts {
        let end = start + part.records();
        let (mut count, mut why) = (0, String::new());
        while let Some((_, reason)) = refused.next_if(|(at, _)| u64::from(*at) < end) {
            if count == 0 {
                why = reason;
            }
            count += 1;
        }
        let mut own = Vec::new();
        while let Some(at) = later.next_if(|at| u64::from(*at) < end) {
            // Below the number of records of one part.
            own.push(usize::try_from(u64::from(at) - start).unwrap_or(usize::MAX));
        }
        left.extend(part.settle_each(count, &why, &own));
        start = end;
    }
    left
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
    let refused_before = part.refused_before.clone().unwrap_or_default();
    let half = |records: Records| Part {
        payload: Payload::from_records(records),
        receipt: part.receipt.split(),
        account: part.account.clone(),
        since: part.since,
        converted: part.converted,
        refused_before: Some(refused_before.clone()),
        _hold: part._hold.clone(),
    };
    let halves = (vec![half(first)], vec![half(second)]);
    // This part's own claim lives on in its halves.
    part.receipt.settle(Verdict::Delivered);
    Some(halves)
}
