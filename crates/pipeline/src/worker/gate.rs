//! The gate in front of one exporter's backend: while it is closed nothing is sent, whoever wants to.
//!
//! A backend that asks to wait is left alone by all deliveries, not only by the one that was told. One
//! that does not accept the credentials is asked by one delivery at a time, less and less often: they may
//! be rotated at any time, but hammering locks accounts.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::telemetry::Attempts;

/// How long credentials that were not accepted are not tried again, at first.
const UNAUTHORIZED_DELAY: Duration = Duration::from_secs(30);

/// How long they are not tried again at most.
const LONGEST_UNAUTHORIZED_DELAY: Duration = Duration::from_secs(300);

/// The longest time that a backend may ask for: a date from a wrong clock must not silence an
/// exporter for years.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// A time without success after which the first one is news to those who wait to try again.
const OUTAGE: Duration = Duration::from_secs(5);

/// The gate of one exporter.
#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    changed: Notify,
    recovered: Notify,
    attempts: Arc<Attempts>,
}

#[derive(Debug, Default)]
struct State {
    /// When the backend answered something other than "later".
    worked_at: Option<Instant>,
    /// Until when the backend asked to wait.
    paused_until: Option<Instant>,
    unauthorized: Option<Unauthorized>,
}

/// The credentials were not accepted.
#[derive(Debug)]
struct Unauthorized {
    until: Instant,
    delay: Duration,
    is_probing: bool,
}

/// Whether one may pass.
enum Way {
    Open,
    /// As the one that tries the credentials.
    Probe,
    Until(Instant),
    /// Another one tries the credentials.
    Probing,
}

impl State {
    fn enter(&mut self, now: Instant) -> Way {
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return Way::Until(until);
        }
        self.paused_until = None;
        match &mut self.unauthorized {
            None => Way::Open,
            Some(unauthorized) if unauthorized.is_probing => Way::Probing,
            Some(unauthorized) if unauthorized.until > now => Way::Until(unauthorized.until),
            Some(unauthorized) => {
                unauthorized.is_probing = true;
                Way::Probe
            }
        }
    }

    fn closed_until(&self) -> Option<Instant> {
        self.paused_until.max(self.unauthorized.as_ref().map(|unauthorized| unauthorized.until))
    }
}

impl Gate {
    /// An open gate; when it opens is shown in `attempts`.
    pub fn new(attempts: Arc<Attempts>) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), recovered: Notify::new(), attempts }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.closed_until();
        let changed = change(&mut state);
        let after = state.closed_until();
        if after != before {
            self.attempts.paused_until_ms.store(after.map_or(0, unix_ms), Ordering::Relaxed);
        }
        changed
    }

    /// Waits until the backend works again after an outage: then those who wait for their next attempt
    /// need not do so any longer. A single delivery that fails among others that do not is no outage.
    pub async fn recovered(&self) {
        self.recovered.notified().await;
    }

    /// Waits until one may send.
    pub async fn pass(&self) -> Pass<'_> {
        loop {
            let changed = self.changed.notified();
            match self.change(|state| state.enter(Instant::now())) {
                Way::Open => return Pass { gate: self, is_probe: false },
                Way::Probe => return Pass { gate: self, is_probe: true },
                Way::Probing => changed.await,
                Way::Until(until) => {
                    // Either it opened or closed for longer, or the time is over: looked at above.
                    let _ = tokio::time::timeout_at(until, changed).await;
                }
            }
        }
    }
}

/// When an instant of the future is, in unix milliseconds.
fn unix_ms(at: Instant) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let at = now.saturating_add(at.saturating_duration_since(Instant::now()));
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

/// The leave to send one request. Dropped without a word, the next one may try.
#[derive(Debug)]
pub struct Pass<'a> {
    gate: &'a Gate,
    is_probe: bool,
}

impl Pass<'_> {
    /// The backend answered, and the credentials were not what it minded.
    pub fn opens(self) {
        let (was_unauthorized, was_out) = self.gate.change(|state| {
            let before = state.worked_at.replace(Instant::now());
            (state.unauthorized.take().is_some(), before.is_none_or(|before| before.elapsed() >= OUTAGE))
        });
        if was_unauthorized {
            self.gate.changed.notify_waiters();
        }
        if was_out {
            self.gate.recovered.notify_waiters();
        }
    }

    /// The backend asked to wait for so long.
    pub fn pauses(self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_PAUSE);
        self.gate.change(|state| state.paused_until = state.paused_until.max(Some(until)));
    }

    /// The backend did not accept the credentials.
    pub fn unauthorized(self) {
        let is_probe = self.is_probe;
        self.gate.change(|state| match &mut state.unauthorized {
            None => {
                let until = Instant::now() + UNAUTHORIZED_DELAY;
                state.unauthorized = Some(Unauthorized { until, delay: UNAUTHORIZED_DELAY, is_probing: false });
            }
            Some(unauthorized) if is_probe => {
                unauthorized.delay = unauthorized.delay.saturating_mul(2).min(LONGEST_UNAUTHORIZED_DELAY);
                unauthorized.until = Instant::now() + unauthorized.delay;
            }
            // It was sent before the gate was closed.
            Some(_) => {}
        });
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.is_probe {
            return;
        }
        self.gate.change(|state| {
            if let Some(unauthorized) = &mut state.unauthorized {
                unauthorized.is_probing = false;
            }
        });
        self.gate.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(Arc::default())
    }

    /// How long the next one waits.
    async fn waits(gate: &Gate) -> (Duration, Pass<'_>) {
        let begun = Instant::now();
        let pass = gate.pass().await;
        (begun.elapsed(), pass)
    }

    fn about(time: Duration, seconds: u64) -> bool {
        time >= Duration::from_secs(seconds) && time < Duration::from_secs(seconds) + Duration::from_millis(10)
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody_and_a_success_of_before_does_not_end_it() {
        let gate = gate();
        let (earlier, told) = (gate.pass().await, gate.pass().await);
        told.pauses(Duration::from_secs(20));
        let shown = gate.attempts.paused_until_ms.load(Ordering::Relaxed);
        assert!(shown > unix_ms(Instant::now()) + 19_000);
        earlier.opens();
        let (time, _) = waits(&gate).await;
        assert!(about(time, 20), "{time:?}");
        assert_eq!(gate.attempts.paused_until_ms.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_pause_does_not_cut_a_longer_one_and_an_hour_is_the_most() {
        let gate = gate();
        let (first, second, third) = (gate.pass().await, gate.pass().await, gate.pass().await);
        first.pauses(Duration::from_secs(20));
        second.pauses(Duration::from_secs(5));
        let (time, _) = waits(&gate).await;
        assert!(about(time, 20), "{time:?}");
        third.pauses(Duration::MAX);
        let (time, _) = waits(&gate).await;
        assert!(about(time, 3600), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn bad_credentials_are_tried_by_one_at_a_time_and_less_and_less_often() {
        let gate = gate();
        gate.pass().await.unauthorized();
        for seconds in [30, 60, 120, 240, 300, 300] {
            let (time, probe) = waits(&gate).await;
            assert!(about(time, seconds), "{time:?} instead of {seconds} s");
            let second = tokio::time::timeout(Duration::from_secs(3600), gate.pass()).await;
            assert!(second.is_err(), "two at a time");
            probe.unauthorized();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_opens_at_once_for_all_who_wait() {
        let gate = gate();
        let under_way = gate.pass().await;
        gate.pass().await.unauthorized();
        let begun = Instant::now();
        let opens = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            under_way.opens();
        };
        tokio::join!(async { drop(gate.pass().await) }, async { drop(gate.pass().await) }, opens);
        assert!(about(begun.elapsed(), 1), "{:?}", begun.elapsed());
        assert_eq!(gate.attempts.paused_until_ms.load(Ordering::Relaxed), 0);
        // The next time begins with the shortest delay.
        gate.pass().await.unauthorized();
        let (time, _) = waits(&gate).await;
        assert!(about(time, 30), "{time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_given_up_lets_the_next_one_try() {
        let gate = gate();
        gate.pass().await.unauthorized();
        let (_, probe) = waits(&gate).await;
        let (next, ()) = tokio::join!(waits(&gate), async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(probe);
        });
        assert!(about(next.0, 2) && next.1.is_probe);
    }

    #[tokio::test(start_paused = true)]
    async fn several_that_are_turned_away_at_once_count_once() {
        let gate = gate();
        let (first, second, third) = (gate.pass().await, gate.pass().await, gate.pass().await);
        first.unauthorized();
        second.unauthorized();
        third.unauthorized();
        let (time, _) = waits(&gate).await;
        assert!(about(time, 30), "{time:?}");
    }
}
