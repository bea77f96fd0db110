//! One delivery: attempts, waits and halves until every record of it is delivered, refused, given up,
//! or given back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;
use weir_net::{AnswerNote, answer_note};

use crate::backoff::Backoff;
use crate::dead_letters::Letter;
use crate::ledger::Reason;
use crate::outcome::Outcome;
use crate::role::Delivery;
use crate::worker::bisect::Bisection;
use crate::worker::concurrency::{Permit, Sample};
use crate::worker::gate::{LONGEST_PAUSE, Pass};
use crate::worker::part::{Because, Part, Refusal, halve};
use crate::worker::settle::{reasons, settle_each, settle_partly};
use crate::worker::{Runner, Signals};

/// The longest time for one attempt, whatever the exporter's own timeouts are.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(300);

/// Delays before dead letters are written again that the disk did not take.
const KEEP_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Answers that say that there is too much to do: request timeout, too many requests, unavailable,
/// gateway timeout.
const OVERLOADED: [u16; 4] = [408, 429, 503, 504];

/// So many records take a while to be told apart.
const MANY_REFUSED: u64 = 64;

/// A delivery under way.
pub struct Delivering {
    runner: Arc<Runner>,
    signals: Signals,
    pieces: Bisection<Vec<Part>, Because>,
    /// What goes back to the queue at the end.
    left: Vec<Part>,
}

/// What became of a piece that was sent.
enum Sent {
    /// Nothing of it is left to send.
    Settled,
    /// The backend refused it and does not say why it would take a part of it.
    Never(Vec<Part>, Because),
    /// It is too large.
    TooLarge(Vec<Part>, Because),
}

/// Whether a piece may be sent.
enum Turn<'a> {
    Send(Permit<'a>, Pass<'a>),
    /// The gate stayed closed until something of it was too old.
    Expired,
    Interrupted,
}

/// What an outcome leaves to do.
enum Next {
    Sent(Sent),
    /// Send these again, because of this, not before so long.
    Again(Vec<Part>, String, Option<Duration>),
    /// Send these again when the credentials are accepted.
    Unauthorized(Vec<Part>, String),
}

impl Delivering {
    /// A delivery of these parts.
    pub fn new(runner: Arc<Runner>, signals: Signals, parts: Vec<Part>) -> Self {
        Self { runner, signals, pieces: Bisection::new(parts), left: Vec::new() }
    }

    /// Delivers; gives what goes back to the queue, in order. `unreadable` cannot be sent at all.
    pub async fn run(mut self, unreadable: Vec<Refusal>) -> Vec<Part> {
        self.refuse(unreadable).await;
        while let Some(parts) = self.pieces.next() {
            let refused = match self.send(parts).await {
                Sent::Settled => None,
                Sent::Never(parts, because) => self.pieces.refused(parts, because, halve),
                Sent::TooLarge(parts, because) => self.pieces.too_large(parts, because, halve),
            };
            if let Some((parts, because)) = refused {
                self.refuse_all(parts, &because).await;
            }
        }
        let rest = std::mem::replace(&mut self.pieces, Bisection::new(Vec::new()));
        for (parts, because) in rest.into_suspects() {
            let parts = self.stay(parts);
            self.refuse_all(parts, &because).await;
        }
        self.left
    }

    /// Sends a piece until it is settled, or must be taken apart.
    async fn send(&mut self, mut parts: Vec<Part>) -> Sent {
        let options = &self.runner.worker.options;
        let mut backoff = Backoff::new(options.retry_delay.into(), options.retry_max_delay.into());
        let (mut delivery, mut failures, mut last_why) = (None::<Delivery>, 0_u32, String::new());
        loop {
            let before = parts.len();
            parts = self.stay(without_withdrawn(parts));
            let Some(first) = parts.first() else { return Sent::Settled };
            if parts.len() < before {
                delivery = None;
            }
            let current = delivery.get_or_insert_with(|| Delivery {
                signal: first.payload.signal(),
                payloads: parts.iter().map(|part| part.payload.clone()).collect(),
                id: fastrand::u64(..),
            });
            let runner = self.runner.clone();
            let (permit, pass) = match self.turn(&runner, &parts).await {
                Turn::Send(permit, pass) => (permit, pass),
                Turn::Interrupted => continue,
                Turn::Expired => {
                    (parts, delivery) = (self.give_up_old(parts, failures, Duration::ZERO, false, &last_why), None);
                    continue;
                }
            };
            let Some((outcome, answer)) = self.attempt(current, permit, pass).await else { continue };
            let records_before = current.len();
            match self.settle(parts, outcome, answer).await {
                Next::Sent(sent) => return sent,
                Next::Unauthorized(left, why) => (parts, last_why) = (left, why),
                Next::Again(left, why, after) => {
                    failures = failures.saturating_add(1);
                    let delay = backoff.next(after.map(|after| after.min(LONGEST_PAUSE)));
                    let too_often = self.runner.worker.options.retry_attempts.is_some_and(|most| failures > most);
                    (parts, last_why) = (self.give_up_old(left, failures, delay, too_often, &why), why);
                    if parts.is_empty() {
                        return Sent::Settled;
                    }
                    let is_any_whole = parts.iter().any(Part::is_whole);
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = runner.gate.recovered() => {}
                        () = self.signals.interrupted(is_any_whole) => {}
                    }
                }
            }
            if parts.iter().map(|part| part.payload.len()).sum::<usize>() != records_before {
                delivery = None;
            }
        }
    }

    /// Waits for a place and for the gate.
    async fn turn<'a>(&self, runner: &'a Runner, parts: &[Part]) -> Turn<'a> {
        let interrupted = self.signals.interrupted(parts.iter().any(Part::is_whole));
        let expires = parts.iter().filter_map(|part| runner.expires(part)).min();
        let expired = async {
            match expires {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let granted = async {
            let permit = runner.slots.attempt().await;
            tokio::select! {
                biased;
                pass = runner.gate.pass() => Turn::Send(permit, pass),
                () = expired => Turn::Expired,
            }
        };
        tokio::select! {
            biased;
            () = interrupted => Turn::Interrupted,
            turn = granted => turn,
        }
    }

    /// One attempt, and what it says about the backend; `None` if it was cut off.
    async fn attempt(
        &self,
        delivery: &Delivery,
        mut permit: Permit<'_>,
        pass: Pass<'_>,
    ) -> Option<(Outcome, Option<AnswerNote>)> {
        permit.begin();
        let (outcome, answer) = tokio::select! {
            biased;
            () = self.signals.interrupted(false) => return None,
            answered = answer_note::watch(self.runner.attempt(delivery)) => answered,
        };
        let queue = &self.runner.worker.queue;
        permit.end(sample(&outcome, answer.as_ref()), || queue.status().records >= delivery.len() as u64);
        match wait_of(&outcome) {
            Some(wait) if !wait.is_zero() => pass.pauses(wait),
            _ => match outcome {
                Outcome::Unauthorized { .. } => pass.unauthorized(),
                Outcome::Later { .. } => drop(pass),
                _ => pass.opens(),
            },
        }
        self.note(&outcome);
        Some((outcome, answer))
    }

    /// Settles what an outcome decides.
    async fn settle(&mut self, parts: Vec<Part>, outcome: Outcome, answer: Option<AnswerNote>) -> Next {
        let keeps = self.runner.worker.dead_letters.is_some();
        let because =
            |why: &str| Because { reason: Reason::Refused, why: why.to_owned(), answer: answer.clone().map(Arc::new) };
        match outcome {
            Outcome::Accepted => {
                self.pieces.taken();
                parts.into_iter().for_each(Part::delivered);
            }
            Outcome::Partly { refused, why } => {
                self.pieces.taken();
                let (many, because) = (refused.count() > MANY_REFUSED, because(&why));
                let refusals = aside(many, move || settle_partly(parts, &refused, &because, keeps)).await;
                self.refuse(refusals.unwrap_or_default()).await;
            }
            Outcome::Each { refused, later, after, why } => {
                let (records, because) = (parts.iter().map(Part::records).sum::<u64>(), because(&why));
                if records > refused.len() as u64 + later.len() as u64 {
                    self.pieces.taken();
                }
                let many = refused.len() as u64 > MANY_REFUSED;
                let settled = aside(many, move || settle_each(parts, refused, later, &because, keeps)).await;
                let (refusals, left) = settled.unwrap_or_default();
                self.refuse(refusals).await;
                if !left.is_empty() {
                    return Next::Again(left, why, after);
                }
            }
            Outcome::Never { why } => return Next::Sent(Sent::Never(parts, because(&why))),
            Outcome::Split { why } => return Next::Sent(Sent::TooLarge(parts, because(&why))),
            Outcome::Unauthorized { why } => return Next::Unauthorized(parts, why),
            Outcome::Later { after, why } => return Next::Again(parts, why, after),
        }
        Next::Sent(Sent::Settled)
    }

    /// What stays here: nothing if all must end, and nothing that can go back to its queue if another
    /// worker is to go on.
    fn stay(&mut self, parts: Vec<Part>) -> Vec<Part> {
        if self.signals.abandon.is_cancelled() {
            parts.into_iter().for_each(Part::stopped);
            return Vec::new();
        }
        if !self.signals.release.is_cancelled() {
            return parts;
        }
        let is_cut = self.signals.cut.is_cancelled();
        let (back, here) = parts.into_iter().partition(|part| is_cut || part.is_whole());
        self.left.extend::<Vec<Part>>(back);
        here
    }

    /// Gives up the parts whose time or attempts are over before the next one, and answers the rest:
    /// each has its own time, whoever it travels with.
    fn give_up_old(&self, parts: Vec<Part>, failures: u32, delay: Duration, too_often: bool, why: &str) -> Vec<Part> {
        let runner = &self.runner;
        let next = Instant::now() + delay;
        let is_too_old = |part: &Part| runner.expires(part).is_some_and(|at| next >= at);
        let (over, here): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(|part| too_often || is_too_old(part));
        if !over.is_empty() {
            let records: u64 = over.iter().map(Part::records).sum();
            runner.worker.board.lost(&runner.worker.name, || {
                // Those that only waited at the gate do so for the sake of others.
                let last = runner.worker.attempts.last_error().map(|error| error.text).unwrap_or_default();
                let why = if why.is_empty() { &last } else { why };
                format!("{records} records are given up after {failures} attempts: {why}")
            });
            over.into_iter().for_each(|part| part.given_up(Reason::Expired));
        }
        here
    }

    /// All these records are refused for good.
    async fn refuse_all(&mut self, parts: Vec<Part>, because: &Because) {
        let worker = &self.runner.worker;
        if !parts.is_empty() && !self.pieces.is_any_taken() {
            worker.board.unhealthy(&worker.name, &because.why);
        }
        self.refuse(parts.into_iter().map(|part| part.refused(because)).collect()).await;
    }

    /// Keeps what was refused, or gives it back to its source. What the disk does not take is tried again.
    async fn refuse(&mut self, refusals: Vec<Refusal>) {
        if refusals.is_empty() {
            return;
        }
        let worker = &self.runner.worker;
        worker.board.lost(&worker.name, || reasons(&refusals));
        let dead_letters = worker.dead_letters.as_ref();
        let (mut kept, told): (Vec<Refusal>, Vec<Refusal>) =
            refusals.into_iter().partition(|refusal| dead_letters.is_some() && !refusal.is_heard());
        told.into_iter().for_each(Refusal::dropped);
        let Some(dead_letters) = dead_letters.filter(|_| !kept.is_empty()) else { return };
        let letters: Vec<Letter> = kept.iter().map(|refusal| refusal.letter(&worker.name)).collect();
        let mut backoff = Backoff::new(KEEP_DELAYS.0, KEEP_DELAYS.1);
        let mut failing = None;
        while let Err(error) = dead_letters.keep(letters.clone()).await {
            failing.get_or_insert_with(|| self.runner.keeping_fails());
            let why = format!(
                "the disk does not take the records that the backend refused ({error}); they wait: make room in the data folder"
            );
            worker.board.unhealthy(&worker.name, &why);
            tokio::select! {
                () = tokio::time::sleep(backoff.next(None)) => {}
                () = self.signals.interrupted(false) => {
                    let kept = std::mem::take(&mut kept);
                    if self.signals.abandon.is_cancelled() {
                        kept.into_iter().for_each(Refusal::stopped);
                    } else {
                        self.left.extend(kept.into_iter().map(Refusal::into_part));
                    }
                    return;
                }
            }
        }
        kept.into_iter().for_each(Refusal::kept);
    }

    /// Shows what an attempt came to.
    fn note(&self, outcome: &Outcome) {
        let (worker, attempts) = (&self.runner.worker, &self.runner.worker.attempts);
        let failed = |why: &str| {
            attempts.failed.fetch_add(1, Ordering::Relaxed);
            attempts.failed_because(why);
        };
        match outcome {
            Outcome::Each { later, after, why, .. } if !later.is_empty() => {
                failed(why);
                if *after != Some(Duration::ZERO) {
                    worker.board.unhealthy(&worker.name, why);
                }
            }
            Outcome::Accepted | Outcome::Partly { .. } | Outcome::Each { .. } => {
                attempts.succeeded.fetch_add(1, Ordering::Relaxed);
                self.runner.healthy();
            }
            // Whether it concerns all records, halves will show.
            Outcome::Split { why } | Outcome::Never { why } => failed(why),
            // "At once, in another way": versions of a protocol were settled, nothing is wrong.
            Outcome::Later { after: Some(Duration::ZERO), why } => {
                attempts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::info!("{}: {why}", worker.name);
            }
            Outcome::Later { why, .. } | Outcome::Unauthorized { why } => {
                failed(why);
                worker.board.unhealthy(&worker.name, why);
            }
        }
    }
}

impl Runner {
    /// One attempt; an exporter that panics has failed this once, and nothing is lost.
    async fn attempt(&self, delivery: &Delivery) -> Outcome {
        let attempt = async {
            // An exporter has its own, shorter timeouts; this one is for the error of having none.
            let hung =
                |_| Outcome::Later { after: None, why: format!("no answer within {} s", LONGEST_ATTEMPT.as_secs()) };
            tokio::time::timeout(LONGEST_ATTEMPT, self.worker.exporter.export(delivery)).await.unwrap_or_else(hung)
        };
        std::panic::AssertUnwindSafe(attempt)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Outcome::Later { after: None, why: "the exporter panicked; please report it".into() })
    }

    /// When a part is too old to be sent.
    fn expires(&self, part: &Part) -> Option<Instant> {
        let max_age = self.worker.options.retry_max_age.get();
        if max_age.is_zero() { None } else { part.since.checked_add(max_age) }
    }
}

/// Does work where it holds up nothing else if it is long; `None` if it panicked, which drops its
/// receipts unsettled.
async fn aside<T: Send + 'static>(is_long: bool, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if !is_long {
        return Some(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.inspect_err(|error| tracing::error!(%error, "settling a delivery failed; please report it")).ok()
}

/// Those whose senders still wait, or do not send again. Delivering the copies of the others would
/// only double them.
fn without_withdrawn(parts: Vec<Part>) -> Vec<Part> {
    if !parts.iter().any(Part::is_withdrawn) {
        return parts;
    }
    let (gone, here) = parts.into_iter().partition(Part::is_withdrawn);
    Vec::<Part>::into_iter(gone).for_each(|part| part.given_up(Reason::Withdrawn));
    here
}

/// How long the backend asked everybody to wait.
fn wait_of(outcome: &Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Later { after, .. } | Outcome::Each { after, .. } => *after,
        _ => None,
    }
}

/// What an attempt says about the capacity of the backend.
fn sample(outcome: &Outcome, answer: Option<&AnswerNote>) -> Sample {
    match outcome {
        Outcome::Accepted | Outcome::Partly { .. } => Sample::Taken,
        Outcome::Each { later, .. } if later.is_empty() => Sample::Taken,
        Outcome::Later { after: Some(Duration::ZERO), .. } => Sample::Other,
        Outcome::Each { .. } | Outcome::Later { after: Some(_), .. } => Sample::Overloaded,
        // An error that is none of capacity (500, 502) says so; no answer, or one that hides its error in
        // a success (gRPC), may be one.
        Outcome::Later { after: None, .. }
            if answer.is_none_or(|answer| answer.status < 400 || OVERLOADED.contains(&answer.status)) =>
        {
            Sample::Overloaded
        }
        _ => Sample::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_to_wait_or_does_not_answer_shows_that_there_is_too_much() {
        let later = |after| Outcome::Later { after, why: String::new() };
        let answered = |status| Some(AnswerNote { status, grpc_status: None, excerpt: String::new() });
        for (outcome, answer, expected) in [
            (Outcome::Accepted, answered(200), Sample::Taken),
            (later(Some(Duration::from_secs(1))), answered(500), Sample::Overloaded),
            (later(None), answered(429), Sample::Overloaded),
            (later(None), answered(503), Sample::Overloaded),
            (later(None), answered(200), Sample::Overloaded),
            (later(None), None, Sample::Overloaded),
            (later(None), answered(500), Sample::Other),
            (later(None), answered(502), Sample::Other),
            (later(Some(Duration::ZERO)), answered(429), Sample::Other),
            (Outcome::Never { why: String::new() }, answered(400), Sample::Other),
            (Outcome::Unauthorized { why: String::new() }, answered(401), Sample::Other),
        ] {
            assert_eq!(sample(&outcome, answer.as_ref()), expected, "{outcome:?} {answer:?}");
        }
    }
}
