//! How many requests may be under way at once: found out from what the backend does.
//!
//! The limit grows by one per round trip while all of it is used, more waits, and answers come about
//! as fast as they can; it shrinks when the backend asks to wait, or when answers take longer than twice
//! their least time, because then requests only queue up on the other side. Additive increase and
//! multiplicative decrease are those of TCP (RFC 5681 §3.1), the comparison with the least time is that
//! of TCP Vegas. [`Concurrency`] is the pure part, [`Slots`] lets deliveries and attempts wait for it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::telemetry::Attempts;

/// Where the limit begins.
const BEGINNING: usize = 4;

/// What is left of the limit when it shrinks.
const SHRINK: f64 = 0.7;

/// Answers that take more than so many times their least time show that requests queue up.
const SLOWER: u32 = 2;

/// Differences in time that say nothing: scheduling alone makes them.
const NOISE: Duration = Duration::from_millis(5);

/// How long a least time counts, at least. Then the limit is halved for a moment, so that the next one
/// is not that of a backend which is kept busy all the time.
const MEMORY: Duration = Duration::from_secs(150);

/// What an attempt says about the capacity of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// It took the request.
    Taken,
    /// It asked to wait, or did not answer.
    Overloaded,
    /// Nothing.
    Other,
}

/// An attempt under way.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    began: Instant,
    round: u64,
}

/// The requests of about one round trip.
#[derive(Debug, Default)]
struct Round {
    number: u64,
    taken: u32,
    time: Duration,
    /// Whether as many requests as the limit allows were under way.
    is_used: bool,
}

/// The least mean time of a round, over the last one or two [`MEMORY`] times.
#[derive(Debug, Default)]
struct Least {
    current: Option<Duration>,
    before: Option<Duration>,
    since: Option<Instant>,
}

impl Least {
    fn get(&self) -> Option<Duration> {
        [self.current, self.before].into_iter().flatten().min()
    }

    /// Notes a mean time; true if an old one is forgotten.
    fn note(&mut self, time: Duration, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let is_over = now.saturating_duration_since(since) >= MEMORY;
        if is_over {
            (self.before, self.since) = (self.current.take(), Some(now));
        }
        self.current = Some(self.current.map_or(time, |least| least.min(time)));
        is_over
    }
}

/// The limit of requests under way. It has no clock and no lock of its own.
#[derive(Debug)]
pub struct Concurrency {
    limit: f64,
    most: usize,
    round: Round,
    shrunk_at: Option<Instant>,
    least: Least,
}

impl Concurrency {
    /// A limit between 1 and `most`.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        let limit = f64::from(u32::try_from(most.min(BEGINNING)).unwrap_or(1));
        Self { limit, most, round: Round::default(), shrunk_at: None, least: Least::default() }
    }

    /// Most requests that may be under way.
    pub fn limit(&self) -> usize {
        // Between 1 and `most`, so the cast only cuts the fraction.
        (self.limit as usize).clamp(1, self.most)
    }

    /// A request begins; so many are under way with it.
    pub fn begin(&mut self, under_way: usize, now: Instant) -> Ticket {
        self.round.is_used |= under_way >= self.limit();
        Ticket { began: now, round: self.round.number }
    }

    /// A request ended. `more_waits` is asked only when it matters: whether at least as many records
    /// wait as it brought.
    pub fn end(&mut self, ticket: Ticket, sample: Sample, now: Instant, more_waits: impl FnOnce() -> bool) {
        match sample {
            Sample::Other => {}
            // Once per round trip: what was sent before the limit shrank says nothing about the new one.
            Sample::Overloaded if self.shrunk_at.is_none_or(|at| ticket.began >= at) => self.shrink(now),
            Sample::Overloaded => {}
            Sample::Taken => {
                self.round.taken = self.round.taken.saturating_add(1);
                self.round.time = self.round.time.saturating_add(now.saturating_duration_since(ticket.began));
                if ticket.round == self.round.number {
                    self.end_round(now, more_waits);
                }
            }
        }
    }

    /// All that was under way when the round began has ended.
    fn end_round(&mut self, now: Instant, more_waits: impl FnOnce() -> bool) {
        let next = Round { number: self.round.number + 1, ..Round::default() };
        let round = std::mem::replace(&mut self.round, next);
        // Small requests of a source that brings little say nothing about the time of full ones.
        if !round.is_used || !more_waits() {
            return;
        }
        let mean = round.time / round.taken.max(1);
        let is_slow = self.least.get().is_some_and(|least| mean > least.saturating_mul(SLOWER).saturating_add(NOISE));
        if is_slow {
            self.shrink(now);
        } else {
            self.limit = (self.limit + 1.0).min(self.most as f64);
        }
        if self.least.note(mean, now) {
            self.limit = (self.limit / 2.0).max(1.0);
        }
    }

    /// Most deliveries that may be held. One that is never taken must not keep the others from being
    /// sent, so there are some even where requests go one by one.
    pub fn deliveries(&self) -> usize {
        self.limit().max(BEGINNING.min(self.most))
    }

    fn shrink(&mut self, now: Instant) {
        self.limit = (self.limit * SHRINK).max(1.0);
        self.shrunk_at = Some(now);
        self.round = Round { number: self.round.number + 1, ..Round::default() };
    }
}

/// The places for deliveries and attempts of one exporter. A delivery keeps its place while it waits to
/// be sent again, an attempt only while it is under way.
#[derive(Debug)]
pub struct Slots {
    state: Mutex<State>,
    changed: Notify,
    attempts: Arc<Attempts>,
}

#[derive(Debug)]
struct State {
    concurrency: Concurrency,
    deliveries: usize,
    under_way: usize,
}

impl Slots {
    /// Places for at most `most` requests under way; the limit is shown in `attempts`.
    pub fn new(most: usize, attempts: Arc<Attempts>) -> Arc<Self> {
        let state = State { concurrency: Concurrency::new(most), deliveries: 0, under_way: 0 };
        let slots = Self { state: Mutex::new(state), changed: Notify::new(), attempts };
        slots.change(|_| {});
        Arc::new(slots)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut state);
        self.attempts.in_flight_limit.store(state.concurrency.limit() as u64, Ordering::Relaxed);
        changed
    }

    /// Waits until `enter` finds a place.
    async fn wait<T>(&self, enter: impl Fn(&mut State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            if let Some(entered) = self.change(&enter) {
                return entered;
            }
            changed.await;
        }
    }

    /// A place for a delivery.
    pub async fn delivery(self: &Arc<Self>) -> Slot {
        self.wait(|state| {
            let is_free = state.deliveries < state.concurrency.deliveries();
            state.deliveries += usize::from(is_free);
            is_free.then_some(())
        })
        .await;
        Slot(self.clone())
    }

    /// A place for an attempt.
    pub async fn attempt(&self) -> Permit<'_> {
        self.wait(|state| {
            let is_free = state.under_way < state.concurrency.limit();
            state.under_way += usize::from(is_free);
            is_free.then_some(())
        })
        .await;
        Permit { slots: self, ticket: None }
    }
}

/// The place of a delivery.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.change(|state| state.deliveries -= 1);
        self.0.changed.notify_waiters();
    }
}

/// The place of an attempt.
#[derive(Debug)]
pub struct Permit<'a> {
    slots: &'a Slots,
    ticket: Option<Ticket>,
}

impl Permit<'_> {
    /// The attempt begins now.
    pub fn begin(&mut self) {
        let begin = |state: &mut State| state.concurrency.begin(state.under_way, Instant::now());
        self.ticket = Some(self.slots.change(begin));
    }

    /// The attempt ended; see [`Concurrency::end`].
    pub fn end(self, sample: Sample, more_waits: impl FnOnce() -> bool) {
        if let Some(ticket) = self.ticket {
            self.slots.change(|state| state.concurrency.end(ticket, sample, Instant::now(), more_waits));
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.slots.change(|state| state.under_way -= 1);
        self.slots.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    /// A backend: it sees when a request comes and how many are there with it, and says when it answers
    /// and what.
    type Answering = dyn FnMut(Duration, usize) -> (Duration, Sample);

    struct Simulation {
        concurrency: Concurrency,
        start: Instant,
        now: Duration,
        /// End, number, ticket, sample.
        under_way: BinaryHeap<Reverse<(Duration, u64)>>,
        tickets: std::collections::BTreeMap<u64, (Ticket, Sample)>,
        taken: u64,
        refused: u64,
    }

    impl Simulation {
        fn new(most: usize) -> Self {
            Self {
                concurrency: Concurrency::new(most),
                start: Instant::now(),
                now: Duration::ZERO,
                under_way: BinaryHeap::new(),
                tickets: Default::default(),
                taken: 0,
                refused: 0,
            }
        }

        /// Sends as much as is allowed until the time is over; gives the mean limit.
        fn run(&mut self, time: Duration, backend: &mut Answering) -> f64 {
            let (end, mut limits, mut seen) = (self.now + time, 0, 0_u32);
            let mut number = self.tickets.keys().last().map_or(0, |last| last + 1);
            while self.now < end {
                while self.under_way.len() < self.concurrency.limit() {
                    let ticket = self.concurrency.begin(self.under_way.len() + 1, self.start + self.now);
                    let (takes, sample) = backend(self.now, self.under_way.len() + 1);
                    self.under_way.push(Reverse((self.now + takes, number)));
                    self.tickets.insert(number, (ticket, sample));
                    number += 1;
                }
                let Some(Reverse((at, number))) = self.under_way.pop() else { break };
                let (ticket, sample) = self.tickets.remove(&number).unwrap();
                self.now = at;
                match sample {
                    Sample::Taken => self.taken += 1,
                    _ => self.refused += 1,
                }
                self.concurrency.end(ticket, sample, self.start + at, || true);
                (limits, seen) = (limits + self.concurrency.limit(), seen + 1);
            }
            limits as f64 / f64::from(seen)
        }
    }

    /// Serves so many requests at once, each in so long; the others queue up.
    fn servers(count: usize, takes: Duration) -> impl FnMut(Duration, usize) -> (Duration, Sample) {
        let mut free = vec![Duration::ZERO; count];
        move |now, _| {
            let first = free.iter_mut().min().unwrap();
            *first = (*first).max(now) + takes;
            (*first - now, Sample::Taken)
        }
    }

    const SECOND: Duration = Duration::from_secs(1);
    const TAKES: Duration = Duration::from_millis(50);

    #[test]
    fn a_backend_of_fixed_capacity_is_kept_busy_without_piling_requests_up() {
        let mut backend = servers(8, TAKES);
        let mut simulation = Simulation::new(64);
        simulation.run(SECOND * 10, &mut backend);
        let before = simulation.taken;
        let limit = simulation.run(SECOND * 600, &mut backend);
        let rate = (simulation.taken - before) as f64 / 600.0;
        assert!(rate > 0.97 * 160.0, "{rate} of 160 requests per second");
        assert!((8.0..=20.0).contains(&limit), "{limit} under way for a capacity of 8");
    }

    #[test]
    fn a_backend_that_answers_as_fast_whatever_comes_is_used_up_to_the_bound() {
        let mut simulation = Simulation::new(16);
        assert_eq!(simulation.concurrency.limit(), 4);
        simulation.run(SECOND * 2, &mut |_, _| (TAKES, Sample::Taken));
        assert_eq!(simulation.concurrency.limit(), 16);
    }

    #[test]
    fn a_backend_that_limits_the_rate_is_asked_little_in_vain() {
        // 40 requests per second; what is too much is refused at once.
        let (mut tokens, mut last) = (0.0_f64, Duration::ZERO);
        let mut backend = move |now: Duration, _| {
            tokens = (tokens + (now - last).as_secs_f64() * 40.0).min(4.0);
            last = now;
            if tokens >= 1.0 {
                tokens -= 1.0;
                (TAKES, Sample::Taken)
            } else {
                (TAKES, Sample::Overloaded)
            }
        };
        let mut simulation = Simulation::new(64);
        let limit = simulation.run(SECOND * 120, &mut backend);
        let rate = simulation.taken as f64 / 120.0;
        assert!(limit < 4.0, "{limit}");
        assert!(rate > 0.8 * 40.0, "{rate} of 40 requests per second");
        assert!(
            simulation.refused < simulation.taken / 3,
            "{} in vain, {} taken",
            simulation.refused,
            simulation.taken
        );
    }

    #[test]
    fn a_backend_that_becomes_slow_for_good_is_learnt_anew() {
        let mut simulation = Simulation::new(16);
        simulation.run(SECOND * 20, &mut |_, _| (TAKES, Sample::Taken));
        let mut least = usize::MAX;
        for _ in 0..60 {
            simulation.run(SECOND * 10, &mut |_, _| (TAKES * 10, Sample::Taken));
            least = least.min(simulation.concurrency.limit());
        }
        assert_eq!(least, 1, "slower answers look like a queue on the other side at first");
        let limit = simulation.run(SECOND * 60, &mut |_, _| (TAKES * 10, Sample::Taken));
        assert!(limit > 8.0, "{limit}");
    }

    #[test]
    fn failures_of_one_round_trip_shrink_the_limit_once() {
        let now = Instant::now();
        let mut concurrency = Concurrency { limit: 10.0, ..Concurrency::new(16) };
        let tickets: Vec<Ticket> = (1..=10).map(|under_way| concurrency.begin(under_way, now)).collect();
        for ticket in tickets {
            concurrency.end(ticket, Sample::Overloaded, now + TAKES, || true);
        }
        assert_eq!(concurrency.limit(), 7);
        let next = concurrency.begin(1, now + TAKES);
        concurrency.end(next, Sample::Overloaded, now + TAKES * 2, || true);
        assert_eq!(concurrency.limit(), 4);
    }

    #[test]
    fn what_is_not_used_does_not_grow_and_the_limit_stays_within_its_bounds() {
        let now = Instant::now();
        let mut concurrency = Concurrency::new(6);
        let mut at = now;
        for _ in 0..20 {
            let ticket = concurrency.begin(1, at);
            at += TAKES;
            concurrency.end(ticket, Sample::Taken, at, || true);
        }
        assert_eq!(concurrency.limit(), 4, "one at a time needs no more");
        for _ in 0..20 {
            let ticket = concurrency.begin(6, at);
            at += TAKES;
            concurrency.end(ticket, Sample::Taken, at, || false);
        }
        assert_eq!(concurrency.limit(), 4, "nothing waits");
        for _ in 0..20 {
            let ticket = concurrency.begin(6, at);
            at += TAKES;
            concurrency.end(ticket, Sample::Taken, at, || true);
        }
        assert_eq!(concurrency.limit(), 6);
        for _ in 0..20 {
            let ticket = concurrency.begin(6, at);
            at += TAKES;
            concurrency.end(ticket, Sample::Overloaded, at, || true);
        }
        assert_eq!(concurrency.limit(), 1);
        assert_eq!((Concurrency::new(1).limit(), Concurrency::new(0).limit()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_up_to_the_limit_and_the_limit_is_shown() {
        let attempts = Arc::new(Attempts::default());
        let slots = Slots::new(2, attempts.clone());
        assert_eq!(attempts.in_flight_limit.load(Ordering::Relaxed), 2);
        let (first, _second) = (slots.attempt().await, slots.attempt().await);
        assert!(tokio::time::timeout(SECOND, slots.attempt()).await.is_err(), "there are two");
        drop(first);
        let mut third = slots.attempt().await;
        third.begin();
        third.end(Sample::Overloaded, || true);
        assert_eq!(attempts.in_flight_limit.load(Ordering::Relaxed), 1);
        assert!(tokio::time::timeout(SECOND, slots.attempt()).await.is_err(), "the second is still under way");
    }
}
