//! Copies of logs, as `copytruncate` makes them: what each is a copy of, and from where on it is read.

use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::super::checkpoint::Entry;
use super::super::glob::Found;
use super::super::identity::{self, Beginning, FileId, Print};
use super::super::tail::{PASSED_OVER, Tail};
use super::compare::{begins_alike, fits, holds_the_same, is_copy_name};
use super::scan::CLOCK_SLACK;
use super::{Watch, unix_seconds};

/// How long a copy waits for its original to be truncated or deleted. Then it is nothing but a copy.
const COPY_WAIT: Duration = Duration::from_secs(60);

impl Watch {
    /// The file of the past that this one goes on with: at its path with what it held, or, under a
    /// name that rotation gives, a copy of it.
    pub(super) fn original_in_past(&self, found: &Found, beginning: &Beginning) -> Option<u64> {
        let file = identity::open(&found.path).ok()?;
        let now = unix_seconds();
        let is_original = |entry: &Entry| {
            let replaced = Path::new(&entry.path) == found.path
                && (entry.gone_since == 0 || now.saturating_sub(entry.gone_since) < CLOCK_SLACK.as_secs());
            replaced || is_copy_name(&found.path, Path::new(&entry.path))
        };
        let candidates = self.past.iter().filter(|(_, entry)| {
            entry.head.length > 0 && is_original(entry) && fits(entry, &file, &found.metadata, beginning)
        });
        let known = candidates.max_by_key(|(_, entry)| entry.offset).map(|(key, _)| *key);
        known.or_else(|| self.original_with_more(found, beginning))
    }

    /// The log that this file is a copy of and that was written to, and read, between its copy and its truncation: all
    /// that the copy holds was read. What it held when that was done is gone, so its beginning and the time decide.
    fn original_with_more(&self, found: &Found, beginning: &Beginning) -> Option<u64> {
        let modified = found.metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified = modified.unwrap_or_default().as_secs();
        let is_of_its_time =
            |entry: &Entry| entry.gone_since == 0 || entry.gone_since.abs_diff(modified) <= COPY_WAIT.as_secs();
        let candidates = self.past.iter().filter(|(_, entry)| {
            !entry.gzip
                && !beginning.is_gzip
                && found.metadata.len() < entry.offset
                && is_copy_name(&found.path, Path::new(&entry.path))
                && is_of_its_time(entry)
                && entry.head.begins(&beginning.bytes)
        });
        candidates.min_by_key(|(_, entry)| entry.offset).map(|(key, _)| *key)
    }

    /// The followed file that this one is a copy of, as far as beginnings tell.
    pub(super) fn living_original(&self, found: &Found, beginning: &Beginning) -> Option<u64> {
        let mut originals = self.tails.iter().filter(|(_, tail)| may_be_original(tail, found));
        originals.find(|(_, tail)| tail.head().begins(&beginning.bytes)).map(|(key, _)| *key)
    }

    /// The followed file that is perhaps being copied to this one: so far it holds less than a beginning, or nothing.
    pub(super) fn original_being_copied(&self, found: &Found, beginning: &Beginning) -> Option<u64> {
        if !found.metadata.modified().is_ok_and(|modified| modified >= self.before_last_scan()) {
            return None;
        }
        let beside = self.tails.iter().filter(|(_, tail)| tail.path.parent() == found.path.parent());
        let mut originals = beside.filter(|(_, tail)| may_be_original(tail, found));
        originals.find(|(_, tail)| begins_alike(tail, beginning) != Some(false)).map(|(key, _)| *key)
    }

    /// Follows a copy once it is known how far its original was read.
    pub(super) fn wait_as_copy(&mut self, found: Found, beginning: &Beginning, original: u64) {
        let (key, id) = (self.new_key(), FileId::of(&found.metadata));
        let mut tail = Tail::new(found.path, id, beginning, 0, Print::default(), &self.settings);
        tail.copy_of = Some((original, Instant::now()));
        self.tails.insert(key, tail);
    }

    /// Copies whose original was truncated or deleted go on where that one was read to.
    pub(super) fn resolve_copies(&mut self, now: Instant) {
        let waiting: Vec<(u64, u64, Instant)> =
            self.tails.iter().filter_map(|(key, tail)| tail.copy_of.map(|(of, since)| (*key, of, since))).collect();
        for (key, original, since) in waiting {
            let Some(tail) = self.tails.get(&key) else { continue };
            let (path, id, is_listed) = (tail.path.clone(), tail.id, tail.is_listed);
            let metadata = path.metadata().ok().filter(|metadata| FileId::of(metadata) == id);
            let Some((metadata, (_, beginning))) = metadata.and_then(|m| Some((m, self.look_into(&path)?))) else {
                if !is_listed {
                    self.tails.remove(&key);
                }
                continue;
            };
            let found = Found { path: path.clone(), metadata };
            let waited = now.saturating_duration_since(since) >= COPY_WAIT;
            if !self.resolve(key, original, waited, found, &beginning) {
                continue;
            }
            for tail in self.tails.values_mut().filter(|tail| tail.path == path) {
                tail.is_listed = is_listed;
            }
        }
    }

    /// Goes on with a copy, unless it has to wait still.
    fn resolve(&mut self, key: u64, original: u64, waited: bool, found: Found, beginning: &Beginning) -> bool {
        if let Some(past_key) = self.original_in_past(&found, beginning) {
            self.tails.remove(&key);
            self.resume(past_key, found, beginning);
            return true;
        }
        let original = self.tails.get(&original);
        if original.is_some_and(|original| begins_alike(original, beginning) == Some(false)) {
            // It began like another file, and went on differently.
            self.tails.remove(&key);
            self.admit_unknown(found, beginning, None);
            return true;
        }
        if original.is_some() && !waited {
            return false;
        }
        let (id, size) = (FileId::of(&found.metadata), found.metadata.len());
        let offset = match original {
            _ if beginning.is_gzip => PASSED_OVER,
            Some(original) if holds_the_same(&found, &original.path) => size,
            _ => 0,
        };
        let mut tail = Tail::new(found.path, id, beginning, offset, Print::default(), &self.settings);
        tail.size = size;
        self.tails.insert(key, tail);
        true
    }
}

/// Whether rotation may have copied a followed file to this one.
fn may_be_original(tail: &Tail, found: &Found) -> bool {
    tail.copy_of.is_none() && !tail.is_gzip() && is_copy_name(&found.path, &tail.path)
}
