//! Health of every integration: a state, since when, and why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

/// The states of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = HealthState)]
pub enum State {
    /// Configured, but switched off.
    Disabled,
    /// Started, has not worked yet.
    Initializing,
    /// The last attempt worked.
    Healthy,
    /// The last attempt failed.
    Unhealthy,
}

impl State {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            State::Disabled => "disabled",
            State::Initializing => "initializing",
            State::Healthy => "healthy",
            State::Unhealthy => "unhealthy",
        }
    }
}

/// How one integration feels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The state.
    pub state: State,
    /// Since when.
    pub since: SystemTime,
    /// Why it is unhealthy, for people.
    pub reason: Option<String>,
}

/// Least time between two warnings of one kind about one integration: reasons may differ in every
/// attempt (a port, a time), and states may change with every request.
const QUIET: Duration = Duration::from_secs(60);

/// One integration, and what was said of it.
#[derive(Debug)]
struct Entry {
    health: Health,
    /// The reason that was said, while nobody has said that it is healthy again.
    said: Option<String>,
    said_at: Option<Instant>,
    lost_at: Option<Instant>,
}

/// What is worth a line in the log.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Unhealthy,
    StillUnhealthy,
    HealthyAgain,
}

impl Entry {
    fn new() -> Self {
        let health = Health { state: State::Initializing, since: SystemTime::now(), reason: None };
        Self { health, said: None, said_at: None, lost_at: None }
    }

    fn change(&mut self, state: State, reason: Option<&str>) -> Option<News> {
        if self.health.state != state {
            (self.health.state, self.health.since) = (state, SystemTime::now());
        }
        if self.health.reason.as_deref() != reason {
            self.health.reason = reason.map(str::to_owned);
        }
        let Some(reason) = reason else {
            // Only what was said needs to be taken back.
            return self.said.take().filter(|_| state == State::Healthy).map(|_| News::HealthyAgain);
        };
        if self.said.as_deref() == Some(reason) || !quiet_is_over(&mut self.said_at) {
            return None;
        }
        let before = self.said.replace(reason.to_owned());
        Some(if before.is_none() { News::Unhealthy } else { News::StillUnhealthy })
    }
}

/// Whether something may be said now; then the next quiet time begins.
fn quiet_is_over(last: &mut Option<Instant>) -> bool {
    let over = last.is_none_or(|at| at.elapsed() >= QUIET);
    if over {
        *last = Some(Instant::now());
    }
    over
}

/// The health of all integrations. A change is logged once, a repetition never, and no more than
/// one warning of a kind in a minute.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<Arc<str>, Entry>>);

impl Board {
    fn with<T>(&self, name: &Arc<str>, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match board.get_mut(name) {
            Some(entry) => change(entry),
            None => change(board.entry(name.clone()).or_insert_with(Entry::new)),
        }
    }

    fn set(&self, name: &Arc<str>, state: State, reason: Option<&str>) {
        match (self.with(name, |entry| entry.change(state, reason)), reason.unwrap_or_default()) {
            (Some(News::Unhealthy), reason) => tracing::warn!("{name} is unhealthy: {reason}"),
            (Some(News::StillUnhealthy), reason) => tracing::warn!("{name} is still unhealthy: {reason}"),
            (Some(News::HealthyAgain), _) => tracing::info!("{name} is healthy again"),
            (None, _) => {}
        }
    }

    /// It lost records, whatever its health. The ledger counts them all; the log names one case a minute.
    pub fn lost(&self, name: &Arc<str>, what: impl FnOnce() -> String) {
        if self.with(name, |entry| quiet_is_over(&mut entry.lost_at)) {
            tracing::warn!("{name}: {}", what());
        }
    }

    /// It exists and is switched off.
    pub fn disabled(&self, name: &Arc<str>) {
        self.set(name, State::Disabled, None);
    }

    /// It was started.
    pub fn initializing(&self, name: &Arc<str>) {
        self.set(name, State::Initializing, None);
    }

    /// It worked.
    pub fn healthy(&self, name: &Arc<str>) {
        self.set(name, State::Healthy, None);
    }

    /// It failed.
    pub fn unhealthy(&self, name: &Arc<str>, reason: &str) {
        self.set(name, State::Unhealthy, Some(reason));
    }

    /// It is not there any more.
    pub fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Everybody's health.
    pub fn snapshot(&self) -> BTreeMap<Arc<str>, Health> {
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        board.iter().map(|(name, entry)| (name.clone(), entry.health.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(entry: &mut Entry, reason: &str) -> Option<News> {
        entry.change(State::Unhealthy, Some(reason))
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_that_differ_every_time_are_said_once_a_minute_and_shown_at_once() {
        let mut entry = Entry::new();
        let mut said = Vec::new();
        for second in 0..180 {
            said.extend(fails(&mut entry, &format!("port {second}")));
            assert_eq!(entry.health.reason, Some(format!("port {second}")));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(said, [News::Unhealthy, News::StillUnhealthy, News::StillUnhealthy]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_that_flaps_is_said_twice_a_minute_and_the_log_ends_with_the_truth() {
        let mut entry = Entry::new();
        let mut said = Vec::new();
        for _ in 0..60 {
            said.extend(fails(&mut entry, "refused"));
            said.extend(entry.change(State::Healthy, None));
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert_eq!(said, [News::Unhealthy, News::HealthyAgain]);
        // A failure that stays is said, if later.
        assert_eq!(fails(&mut entry, "refused"), None);
        tokio::time::advance(QUIET).await;
        assert_eq!(fails(&mut entry, "refused"), Some(News::Unhealthy));
        tokio::time::advance(QUIET).await;
        assert_eq!(fails(&mut entry, "refused"), None, "a repetition is never said");
    }
}
