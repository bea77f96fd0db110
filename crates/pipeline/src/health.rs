//! Health of every integration: a state, since when, and why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The states of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The health of all integrations. A change is logged once, a repetition never.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<Arc<str>, Health>>);

impl Board {
    fn set(&self, name: &Arc<str>, state: State, reason: Option<&str>) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = board.get(name);
        let changed = before.is_none_or(|h| h.state != state);
        if !changed && before.is_some_and(|h| h.reason.as_deref() == reason) {
            return;
        }
        let since = before.filter(|_| !changed).map_or_else(SystemTime::now, |h| h.since);
        let was = before.map(|h| h.state);
        board.insert(name.clone(), Health { state, since, reason: reason.map(str::to_owned) });
        drop(board);
        match (state, reason) {
            (State::Unhealthy, Some(reason)) if changed => tracing::warn!("{name} is unhealthy: {reason}"),
            (State::Unhealthy, Some(reason)) => tracing::warn!("{name} is still unhealthy: {reason}"),
            (State::Healthy, _) if was == Some(State::Unhealthy) => tracing::info!("{name} is healthy again"),
            _ => {}
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

    /// Everybody's health.
    pub fn snapshot(&self) -> BTreeMap<Arc<str>, Health> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
