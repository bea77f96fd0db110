//! Dead letters: records that a backend refused for good, kept with the reason until a person replays
//! or drops them.
//!
//! - [`letter`]: what a letter is for those who ask for one; [`prepare`]: one per refused record
//! - [`tables`]: what a transaction does; [`store`], [`trouble`]: the file, and what can go wrong in it
//! - [`replay`]: sending letters once more
//!
//! **The file** is one redb database, `dead-letters.redb`, made when the first letter comes. It is
//! checked in full when it is opened, repaired where that is possible, and else set aside as
//! `dead-letters.redb.damaged-` and the time, and begun anew: it never keeps Weir from starting. One process has
//! it open at a time.
//!
//! **One record, one letter.** Where the backend did not say which records of a request it refused,
//! they stay together as one letter. A record that is refused again by the same exporter is counted
//! in `times` and not stored twice, and neither are two equal records of one batch: they differ in
//! nothing.
//!
//! **Bounds**: [`Limits`], by bytes (records, reasons and answers; the file itself may be twice as
//! large) and by the age of the last refusal. The oldest letters go first, counted and logged. The
//! newest one always stays, however large it is.

mod letter;
mod prepare;
mod replay;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use weir_model::Payload;

use crate::dead_letters::prepare::prepare;
use crate::dead_letters::store::Store;
use crate::dead_letters::tables::Writing;
use crate::dead_letters::trouble::Result as Tried;

pub(crate) use letter::signal_schema;
pub use letter::{Filter, Id, Kept, NotAnId, Page, Scope, Selection, Stored, Summary};
pub use replay::{Replayed, Sent};
pub use store::FILE_NAME;

/// So many letters are looked at in one transaction, so that none takes long.
const LETTERS_AT_A_TIME: usize = 2_000;

/// So many letters are exported or replayed at a time, and so many bytes.
const PAGE_LETTERS: usize = 64;
const PAGE_BYTES: u64 = 4 << 20;

/// How often removed letters are logged.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Records that an exporter's backend refused for good.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where they came from.
    pub source: Arc<str>,
    /// The exporter.
    pub exporter: Arc<str>,
    /// The records; where the backend did not say which of them it refused, all that travelled together.
    pub payload: Payload,
    /// How many of them were refused.
    pub refused: u64,
    /// Why, in one line.
    pub reason: String,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// The status of the gRPC call that it answered, for example `INVALID_ARGUMENT (3)`.
    pub grpc_status: Option<String>,
    /// The beginning of the answer, at most 1 KiB.
    pub answer: Option<String>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all letters.
    pub bytes: u64,
    /// Since the last refusal.
    pub age: Duration,
}

impl Default for Limits {
    /// 256 MiB and 30 days.
    fn default() -> Self {
        Self { bytes: 256 << 20, age: Duration::from_secs(30 * 24 * 60 * 60) }
    }
}

/// The dead letters of a process. Cloning shares them.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    blocking: Blocking,
    replaying: Arc<tokio::sync::Mutex<()>>,
}

/// The dead letters of a process, for callers that may block: the command line, threads of their own.
#[derive(Clone, Debug)]
pub struct Blocking(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    limits: RwLock<Limits>,
    clock_ms: fn() -> i64,
    evicted: AtomicU64,
    expired: AtomicU64,
    /// When evictions were logged last, and how many were not.
    unlogged: Mutex<(Option<Instant>, u64)>,
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl Default for DeadLetters {
    /// Letters in memory, within the default limits.
    fn default() -> Self {
        Self::in_memory(Limits::default())
    }
}

impl DeadLetters {
    /// The dead letters of a data folder. Touches no file: the first use does, and
    /// [`DeadLetters::load`] on purpose.
    pub fn open(folder: &Path, limits: Limits) -> Self {
        Self::new(Store::in_folder(folder), limits, unix_ms)
    }

    /// Dead letters that are gone when the process ends.
    pub fn in_memory(limits: Limits) -> Self {
        Self::new(Store::in_memory(), limits, unix_ms)
    }

    fn new(store: Store, limits: Limits, clock_ms: fn() -> i64) -> Self {
        let inner = Inner {
            store,
            limits: RwLock::new(limits),
            clock_ms,
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            unlogged: Mutex::default(),
        };
        Self { blocking: Blocking(Arc::new(inner)), replaying: Arc::default() }
    }

    /// The same letters for callers that may block.
    pub fn blocking(&self) -> &Blocking {
        &self.blocking
    }

    /// Other limits, from the next letter on.
    pub fn set_limits(&self, limits: Limits) {
        *self.blocking.0.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Blocking) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let blocking = self.blocking.clone();
        tokio::task::spawn_blocking(move || work(&blocking)).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// As [`Blocking::load`].
    ///
    /// # Errors
    /// Those of the disk, or that another process has the file open.
    pub async fn load(&self) -> io::Result<()> {
        self.run(Blocking::load).await
    }

    /// Keeps letters; when it returns they survive a crash.
    ///
    /// # Errors
    /// Those of the disk: then all of them are kept (where the very last sync failed) or nothing, and
    /// their records must stay where they are until keeping them again succeeds.
    pub async fn keep(&self, letters: Vec<Letter>) -> io::Result<()> {
        self.run(move |blocking| blocking.keep(&letters)).await
    }

    /// As [`Blocking::list`].
    ///
    /// # Errors
    /// As [`DeadLetters::load`].
    pub async fn list(&self, filter: Filter) -> io::Result<Page> {
        self.run(move |blocking| blocking.list(&filter)).await
    }

    /// As [`Blocking::get`].
    ///
    /// # Errors
    /// As [`Blocking::get`].
    pub async fn get(&self, id: Id) -> io::Result<Option<Stored>> {
        self.run(move |blocking| blocking.get(id)).await
    }

    /// As [`Blocking::drop`].
    ///
    /// # Errors
    /// As [`DeadLetters::load`].
    pub async fn drop(&self, selection: Selection) -> io::Result<u64> {
        self.run(move |blocking| blocking.drop(&selection)).await
    }

    /// As [`Blocking::expire`]: for once an hour.
    ///
    /// # Errors
    /// As [`DeadLetters::load`].
    pub async fn expire(&self) -> io::Result<u64> {
        self.run(Blocking::expire).await
    }

    /// Letters by exporter, out of memory; nothing before the file was opened ([`DeadLetters::load`]).
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for ((exporter, ..), (letters, _)) in self.blocking.0.store.totals() {
            *counts.entry(exporter).or_default() += letters;
        }
        counts
    }

    /// Bytes of all letters, out of memory, as [`DeadLetters::counts`].
    pub fn bytes(&self) -> u64 {
        self.blocking.0.store.totals().values().map(|(_, bytes)| bytes).sum()
    }

    /// How many letters were removed because [`Limits::bytes`] were exceeded, since the start.
    pub fn evicted(&self) -> u64 {
        self.blocking.0.evicted.load(Ordering::Relaxed)
    }

    /// How many letters were removed because of [`Limits::age`], since the start.
    pub fn expired(&self) -> u64 {
        self.blocking.0.expired.load(Ordering::Relaxed)
    }

    /// Why the last use of the file failed, in one line; `None` once one succeeds.
    pub fn trouble(&self) -> Option<String> {
        self.blocking.0.store.trouble()
    }

    /// The file that was set aside because it could not be read, if there was one since the start.
    pub fn set_aside(&self) -> Option<PathBuf> {
        self.blocking.0.store.set_aside_as()
    }
}

impl Blocking {
    fn limits(&self) -> Limits {
        *self.0.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn oldest_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::try_from(self.limits().age.as_millis()).unwrap_or(i64::MAX))
    }

    /// Opens the file, if there is one, so that the counts are known.
    ///
    /// # Errors
    /// Those of the disk, or that another process has the file open.
    pub fn load(&self) -> io::Result<()> {
        self.0.store.read(|_| Ok(())).map(|_| ())
    }

    /// As [`DeadLetters::keep`].
    ///
    /// # Errors
    /// As [`DeadLetters::keep`].
    pub fn keep(&self, letters: &[Letter]) -> io::Result<()> {
        let prepared: Vec<_> = letters.iter().flat_map(prepare).collect();
        if prepared.is_empty() {
            return Ok(());
        }
        let now_ms = (self.0.clock_ms)();
        let (limits, oldest_ms) = (self.limits(), self.oldest_ms(now_ms));
        let write = |tables: &mut Writing<'_>| -> Tried<(u64, u64)> {
            for letter in &prepared {
                tables.keep(letter, now_ms)?;
            }
            let expired = tables.expire(oldest_ms, LETTERS_AT_A_TIME)?;
            Ok((expired, tables.evict(limits.bytes)?))
        };
        let kept = self.0.store.write(true, write)?;
        let (expired, evicted) = kept.ok_or_else(|| io::Error::other("there is no file for dead letters"))?;
        self.0.expired.fetch_add(expired, Ordering::Relaxed);
        self.0.evicted.fetch_add(evicted, Ordering::Relaxed);
        self.log_evicted(evicted);
        Ok(())
    }

    /// Logs at most once a minute, with how many it were since.
    fn log_evicted(&self, evicted: u64) {
        let mut unlogged = self.0.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        unlogged.1 += evicted;
        if unlogged.1 > 0 && unlogged.0.is_none_or(|last| last.elapsed() >= LOG_EVERY) {
            let limit_bytes = self.limits().bytes;
            tracing::warn!(letters = unlogged.1, limit_bytes, "the oldest dead letters were removed to make room");
            *unlogged = (Some(Instant::now()), 0);
        }
    }

    /// A page of the list, newest first.
    ///
    /// # Errors
    /// As [`Blocking::load`].
    pub fn list(&self, filter: &Filter) -> io::Result<Page> {
        Ok(self.0.store.read(|transaction| tables::list(transaction, filter))?.unwrap_or_default())
    }

    /// One letter with its records; `None` if there is none of that id.
    ///
    /// # Errors
    /// As [`Blocking::load`], or that the records cannot be read.
    pub fn get(&self, id: Id) -> io::Result<Option<Stored>> {
        let kept = self.0.store.read(|transaction| tables::get(transaction, id))?.flatten();
        kept.map(Kept::into_stored).transpose().map_err(io::Error::other)
    }

    /// Removes letters for good. Gives how many.
    ///
    /// # Errors
    /// As [`Blocking::load`]; what was removed until then stays removed.
    pub fn drop(&self, selection: &Selection) -> io::Result<u64> {
        let (mut after, mut dropped) = (Some(Id::FIRST), 0);
        while let Some(from) = after {
            let removed =
                self.0.store.write(false, |tables| tables.remove_selected(selection, from, LETTERS_AT_A_TIME))?;
            let Some((next, removed)) = removed else { break };
            dropped += removed;
            after = next;
        }
        self.0.store.compact()?;
        Ok(dropped)
    }

    /// Removes letters that are too old. Gives how many.
    ///
    /// # Errors
    /// As [`Blocking::load`].
    pub fn expire(&self) -> io::Result<u64> {
        let oldest_ms = self.oldest_ms((self.0.clock_ms)());
        let expired = self.0.store.write(false, |tables| {
            tables.forget_replayed(oldest_ms)?;
            tables.expire(oldest_ms, usize::MAX)
        })?;
        let expired = expired.unwrap_or_default();
        self.0.expired.fetch_add(expired, Ordering::Relaxed);
        self.log_evicted(0);
        if expired > 0 {
            self.0.store.compact()?;
        }
        Ok(expired)
    }

    /// Visits letters as lines of JSON ([`Kept::to_line`]), oldest first. Gives how many. Letters that
    /// come meanwhile are not visited.
    ///
    /// # Errors
    /// As [`Blocking::get`], or the visitor's own.
    pub fn export(&self, selection: &Selection, mut visit: impl FnMut(&str) -> io::Result<()>) -> io::Result<u64> {
        let until = self.newest()?;
        let (mut after, mut visited) = (Some(Id::FIRST), 0);
        while let Some(from) = after {
            let (letters, next) = self.page(selection, from, until)?;
            for letter in letters {
                visit(&letter.to_line().map_err(io::Error::other)?)?;
                visited += 1;
            }
            after = next;
        }
        Ok(visited)
    }

    /// The newest id that there is.
    fn newest(&self) -> io::Result<Id> {
        Ok(self.0.store.read(tables::last_id)?.unwrap_or(Id::FIRST))
    }

    /// Letters of a selection behind `after` and up to `until`, and where to go on.
    fn page(&self, selection: &Selection, after: Id, until: Id) -> io::Result<(Vec<Kept>, Option<Id>)> {
        let page = self
            .0
            .store
            .read(|transaction| tables::take(transaction, selection, (after, until), PAGE_LETTERS, PAGE_BYTES))?;
        Ok(page.unwrap_or_default())
    }
}
