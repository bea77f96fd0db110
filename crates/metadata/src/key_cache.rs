//! Keys that were verified a moment ago, so that ingestion does not ask the database for each request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Key;

/// How long a verified key is believed: a key that another process revokes works that long at most.
/// 5 s are promised.
pub(crate) const LIFE: Duration = Duration::from_secs(4);
/// How often the last use of a key is written, in milliseconds.
const TOUCH_INTERVAL_MS: i64 = 60_000;

/// Valid keys by SHA-256 of what was presented; unknown ones are not kept, so that nobody can fill it.
#[derive(Default)]
pub(crate) struct KeyCache {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: HashMap<[u8; 32], (Key, Instant)>,
    /// Changes whenever keys are forgotten: what was read before that is not believed after it.
    generation: u64,
    /// When the last use of each key was written, unix milliseconds.
    touched_ms: HashMap<String, i64>,
}

impl KeyCache {
    /// Nothing in here panics while it holds the lock, and each change is whole: a poisoned lock is usable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that was verified under this digest less than [`LIFE`] ago.
    pub(crate) fn get(&self, digest: &[u8; 32], at: Instant) -> Option<Key> {
        let mut state = self.state();
        let (key, since) = state.keys.get(digest)?;
        if at.saturating_duration_since(*since) < LIFE {
            return Some(key.clone());
        }
        state.keys.remove(digest);
        None
    }

    /// To be asked before the database is.
    pub(crate) fn generation(&self) -> u64 {
        self.state().generation
    }

    /// Keeps a key that was read since `generation`, unless keys were forgotten meanwhile.
    pub(crate) fn put(&self, digest: [u8; 32], key: Key, generation: u64, at: Instant) {
        let mut state = self.state();
        if state.generation == generation {
            state.keys.retain(|_, (_, since)| at.saturating_duration_since(*since) < LIFE);
            state.keys.insert(digest, (key, at));
        }
    }

    /// Forgets all keys: one of them was revoked or changed.
    pub(crate) fn forget_all(&self) {
        let mut state = self.state();
        state.keys.clear();
        state.generation = state.generation.wrapping_add(1);
    }

    /// Whether the last use of this key is to be written now; at most once a minute says yes.
    pub(crate) fn should_touch(&self, id: &str, now_ms: i64) -> bool {
        let mut state = self.state();
        match state.touched_ms.get_mut(id) {
            Some(touched) if now_ms.saturating_sub(*touched) < TOUCH_INTERVAL_MS => false,
            Some(touched) => {
                *touched = now_ms;
                true
            }
            None => {
                state.touched_ms.insert(id.to_owned(), now_ms);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scopes;

    fn key() -> Key {
        Key {
            id: "k".to_owned(),
            name: "test".to_owned(),
            scopes: Scopes::INGEST,
            agent_id: None,
            created_ms: 0,
            expires_ms: None,
            last_used_ms: None,
            revoked_ms: None,
        }
    }

    #[test]
    fn a_key_is_believed_for_less_than_five_seconds() {
        let (cache, start) = (KeyCache::default(), Instant::now());
        cache.put([1; 32], key(), cache.generation(), start);
        assert_eq!(cache.get(&[1; 32], start + LIFE - Duration::from_millis(1)), Some(key()));
        assert_eq!(cache.get(&[2; 32], start), None);
        assert_eq!(cache.get(&[1; 32], start + LIFE), None);
        assert_eq!(cache.get(&[1; 32], start), None, "an expired entry is removed");
    }

    #[test]
    fn a_key_that_was_read_before_a_revocation_is_not_kept_after_it() {
        let (cache, start) = (KeyCache::default(), Instant::now());
        let generation = cache.generation();
        cache.forget_all();
        cache.put([1; 32], key(), generation, start);
        assert_eq!(cache.get(&[1; 32], start), None);
    }

    #[test]
    fn old_entries_leave_when_new_ones_come() {
        let (cache, start) = (KeyCache::default(), Instant::now());
        cache.put([1; 32], key(), 0, start);
        cache.put([2; 32], key(), 0, start + LIFE);
        assert_eq!(cache.state().keys.len(), 1);
    }

    #[test]
    fn the_last_use_is_written_once_a_minute() {
        let cache = KeyCache::default();
        let written = [0, 1, 59_999, 60_000, 60_001, 120_000].map(|now_ms| cache.should_touch("k", now_ms));
        assert_eq!(written, [true, false, false, true, false, true]);
        assert!(cache.should_touch("other", 60_001));
    }
}
