//! The bytes that everything that waits may take in memory, for the process as a whole.
//!
//! Whoever wants to keep records reserves their bytes first and gives them back by dropping the
//! [`Reservation`]. A request is served within a budget ([`within`]): whoever reads its body takes the
//! bytes with [`take`], and they are given back when the request has its answer.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// A bound in bytes that many share.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: AtomicUsize,
    used: AtomicUsize,
    given_back: Notify,
}

impl Default for MemoryBudget {
    /// Without a bound.
    fn default() -> Self {
        Self { limit: AtomicUsize::new(usize::MAX), used: AtomicUsize::new(0), given_back: Notify::new() }
    }
}

impl MemoryBudget {
    /// A budget of so many bytes.
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit_bytes), used: AtomicUsize::new(0), given_back: Notify::new() })
    }

    /// Bytes that are reserved.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// The bound in bytes.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Acquire)
    }

    /// Changes the bound. What is reserved stays.
    pub fn set_limit(&self, limit_bytes: usize) {
        self.limit.store(limit_bytes, Ordering::Release);
        self.given_back.notify_waiters();
    }

    /// Whether so many bytes could be reserved now.
    pub fn has_room(&self, bytes: usize) -> bool {
        fits(self.used(), bytes, self.limit())
    }

    /// Whether so little is left that nobody should keep what can be read again.
    pub fn is_short(&self) -> bool {
        self.used() > self.limit() / 4 * 3
    }

    /// Reserves bytes, if they fit. More than the whole budget fits when nothing is reserved, so that
    /// nothing waits for ever.
    pub fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let limit = self.limit();
        let add = |used| fits(used, bytes, limit).then(|| used.saturating_add(bytes));
        self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        Some(Reservation { budget: self.clone(), bytes })
    }

    /// Reserves bytes whatever is left: for what has to be in memory so that others can leave it.
    pub fn reserve_anyway(self: &Arc<Self>, bytes: usize) -> Reservation {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        Reservation { budget: self.clone(), bytes }
    }

    /// Reserves bytes as soon as they fit.
    pub async fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        loop {
            let mut given_back = std::pin::pin!(self.given_back.notified());
            // Counts what is given back from here on, also before it is waited for.
            given_back.as_mut().enable();
            if let Some(reservation) = self.try_reserve(bytes) {
                return reservation;
            }
            given_back.await;
        }
    }
}

fn fits(used: usize, bytes: usize, limit: usize) -> bool {
    used == 0 || used.saturating_add(bytes) <= limit
}

/// Bytes that are reserved until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Reservation {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves more, if they fit. Whether they did.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let (limit, own) = (self.budget.limit(), self.bytes);
        // Alone, it may grow beyond the bound.
        let add = |used: usize| fits(used.saturating_sub(own), own.saturating_add(bytes), limit).then(|| used + bytes);
        let grown = self.budget.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok();
        if grown {
            self.bytes += bytes;
        }
        grown
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.given_back.notify_waiters();
    }
}

tokio::task_local! {
    static REQUEST: RefCell<(Arc<MemoryBudget>, Option<Reservation>)>;
}

/// Serves one request within a budget.
pub async fn within<T>(budget: Arc<MemoryBudget>, serve: impl Future<Output = T>) -> T {
    REQUEST.scope(RefCell::new((budget, None)), serve).await
}

/// Takes bytes for the request that is being served, before they are allocated. Whether there were
/// as many; outside of [`within`] there always are.
pub fn take(bytes: usize) -> bool {
    let taken = REQUEST.try_with(|request| {
        let (budget, reservation) = &mut *request.borrow_mut();
        match reservation {
            Some(reservation) => reservation.try_grow(bytes),
            None => {
                *reservation = budget.try_reserve(bytes);
                reservation.is_some()
            }
        }
    });
    taken.unwrap_or(true)
}

/// Gives back what the request that is being served has taken: whoever has taken over what it brought
/// counts it from now on.
pub fn hand_over() {
    // Outside of a request there is nothing to give back.
    let _ = REQUEST.try_with(|request| drop(request.borrow_mut().1.take()));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_bound_holds_and_what_is_dropped_is_given_back() {
        let budget = MemoryBudget::new(100);
        let mut first = budget.try_reserve(60).unwrap();
        assert!(budget.try_reserve(41).is_none() && budget.has_room(40));
        let second = budget.try_reserve(20).unwrap();
        assert!(first.try_grow(20) && !first.try_grow(1));
        assert_eq!((first.bytes(), budget.used()), (80, 100));
        assert!(budget.is_short());
        drop(first);
        assert_eq!(budget.used(), 20);
        drop(second);
        assert_eq!((budget.used(), budget.limit()), (0, 100));
    }

    #[test]
    fn more_than_the_bound_passes_when_nothing_else_is_there() {
        let budget = MemoryBudget::new(100);
        let small = budget.try_reserve(1).unwrap();
        assert!(budget.try_reserve(1000).is_none());
        drop(small);
        let mut large = budget.try_reserve(1000).unwrap();
        assert!(large.try_grow(1000) && budget.try_reserve(1).is_none());
        let forced = budget.reserve_anyway(5);
        assert!(!large.try_grow(1));
        drop((large, forced));
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_what_others_give_back() {
        let budget = MemoryBudget::new(100);
        let all = budget.try_reserve(100).unwrap();
        let waits: Vec<_> = (0..4)
            .map(|_| {
                let budget = budget.clone();
                tokio::spawn(async move { budget.reserve(50).await.bytes() })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(waits.iter().all(|wait| !wait.is_finished()));
        drop(all);
        for wait in waits {
            assert_eq!(wait.await.unwrap(), 50);
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_request_takes_what_it_reads_and_gives_it_back_with_its_answer() {
        let budget = MemoryBudget::new(100);
        let other = budget.try_reserve(30).unwrap();
        let fits = within(budget.clone(), async { (take(40), take(30), take(1), budget.used()) }).await;
        assert_eq!(fits, (true, true, false, 100));
        let handed_over = within(budget.clone(), async {
            let fits = take(70);
            hand_over();
            (fits, budget.used(), take(50), budget.used())
        });
        assert_eq!(handed_over.await, (true, 30, true, 80));
        hand_over();
        assert_eq!(budget.used(), 30);
        drop(other);
        assert!(take(1 << 40), "nobody bounds what is read outside of a request");
    }

    #[test]
    fn many_threads_never_exceed_the_bound() {
        let budget = MemoryBudget::new(1000);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..2000 {
                        let held = budget.try_reserve(random.usize(1..500));
                        assert!(budget.used() <= 1000);
                        drop(held);
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
