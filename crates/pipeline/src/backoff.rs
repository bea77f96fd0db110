//! Delays between attempts: exponential, with full jitter, never below what the backend asked for.

use std::time::Duration;

/// The delays of one batch.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// Delays that grow from `first` to `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { next: first.min(most), most }
    }

    /// The next delay: a random part of a bound that doubles ("full jitter"), so that many senders
    /// do not return at the same moment; `floor` is what the backend asked for.
    pub fn next(&mut self, floor: Option<Duration>) -> Duration {
        let jittered = self.next.mul_f64(fastrand::f64());
        self.next = self.next.saturating_mul(2).min(self.most);
        floor.map_or(jittered, |floor| floor.max(jittered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_a_bound_that_doubles_up_to_the_longest() {
        fastrand::seed(7);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        for bound in [1, 2, 4, 5, 5] {
            assert!(backoff.next(None) <= Duration::from_secs(bound));
        }
    }

    #[test]
    fn the_backends_own_delay_is_a_floor() {
        let mut backoff = Backoff::new(Duration::from_millis(1), Duration::from_secs(1));
        assert!(backoff.next(Some(Duration::from_secs(30))) >= Duration::from_secs(30));
    }
}
