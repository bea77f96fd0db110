//! The thread that owns the log: many appends, one sync.
//!
//! While the disk is waited for, appends gather; all of them are the next group. What is in the
//! head was in the log before, except with [`Sync::Never`](crate::Sync).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hashbrown::HashTable;
use tokio::sync::{OwnedSemaphorePermit, broadcast, oneshot};

use crate::error::AppendError;
use crate::evict::{drop_before, evict};
use crate::head::Head;
use crate::labels::{LabelHasher, MetricKind, SeriesRef};
use crate::map::Window;
use crate::record::Definition;
use crate::replay::SeriesMaker;
use crate::segment::Log;
use crate::series::Pushed;
use crate::store::{Appended, Committed};

/// Tells unix milliseconds.
pub type Clock = Arc<dyn Fn() -> i64 + Send + std::marker::Sync>;

/// What the thread and the others share.
pub struct Shared {
    pub head: RwLock<Head>,
    pub hasher: LabelHasher,
    pub clock: Clock,
    pub retention_ms: i64,
    pub duplicates: AtomicU64,
    pub outside: AtomicU64,
    pub evicted: AtomicU64,
    /// Places of the log that were damaged when it was read.
    pub damaged: u64,
    /// Samples whose series stood in one of them.
    pub orphaned: u64,
    pub disk_bytes: AtomicU64,
    pub syncs: AtomicU64,
    pub committed: broadcast::Sender<Arc<Committed>>,
}

impl Shared {
    /// Samples before this time are too old, unix milliseconds.
    pub fn cutoff_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.retention_ms)
    }

    /// What is stored now.
    pub fn window(&self) -> Window {
        let now_ms = (self.clock)();
        Window { now_ms, oldest_ms: self.cutoff_ms(now_ms), newest_ms: now_ms.saturating_add(AHEAD_MS) }
    }
}

/// Text pairs that are owned.
pub type OwnedPairs = Vec<(String, String)>;

/// A series that was not known when it was looked up.
#[derive(Debug)]
pub struct NewSeries {
    pub hash: u64,
    pub shared: Arc<OwnedPairs>,
    pub own: OwnedPairs,
    pub unit: String,
    pub kind: MetricKind,
    pub description: String,
}

/// A series of an append.
#[derive(Debug)]
pub enum Incoming {
    Known(SeriesRef),
    New(Box<NewSeries>),
}

/// How far the clocks of those who send may run ahead: an hour is a wrong time zone at most.
const AHEAD_MS: i64 = 3_600_000;

/// Samples to be stored.
#[derive(Debug, Default)]
pub struct Prepared {
    pub series: Vec<Incoming>,
    /// Index of the series, unix milliseconds, bits of the value.
    pub samples: Vec<(usize, i64, u64)>,
    pub refused: u64,
    pub outside: u64,
}

impl Prepared {
    /// What it weighs while it waits, in samples: the text of new series counts too.
    pub fn weight(&self) -> usize {
        let text = |incoming: &Incoming| match incoming {
            Incoming::Known(_) => 0,
            Incoming::New(new) => new.own.iter().map(|(key, value)| key.len() + value.len()).sum(),
        };
        let text: usize = self.series.iter().map(text).sum();
        self.samples.len() + text / size_of::<(usize, i64, u64)>()
    }
}

type Answer = oneshot::Sender<Result<Appended, AppendError>>;

/// Work for the thread.
pub enum Request {
    /// Stores samples.
    Append {
        prepared: Prepared,
        answer: Answer,
        /// Frees its share of what may wait when it is dropped.
        permit: Option<OwnedSemaphorePermit>,
    },
    /// Lets go of what is too old now.
    Maintain(oneshot::Sender<()>),
}

/// A group that has so many samples takes no more appends: those that wait for it should not wait for long.
const GROUP_SAMPLES: usize = 1 << 17;

/// So many samples come to the head while nobody reads from it.
const SAMPLES_PER_LOCK: usize = 4096;

/// The same trouble is logged once in this time.
const QUIET: Duration = Duration::from_secs(60);

pub struct Writer {
    pub shared: Arc<Shared>,
    pub log: Log,
    pub maker: SeriesMaker,
    pub memory_bytes: usize,
    pub maintain_every: Duration,
    pub last_complaint: Option<Instant>,
    /// Whether memory was full, so that the log may hold what memory does not.
    pub was_full: bool,
    /// Whether series were made that were never stored.
    pub is_unswept: bool,
}

/// The series of a group that the head does not hold yet.
#[derive(Default)]
struct Group {
    series: Vec<SeriesRef>,
    samples: Vec<(usize, i64, u64)>,
    new: HashTable<SeriesRef>,
    waiting: Vec<Waiting>,
}

/// An append of a group, and how far its samples go.
struct Waiting {
    answer: Answer,
    until: usize,
    appended: Appended,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Writer {
    /// Works until nobody can ask any more, then closes the log.
    pub fn run(mut self, requests: &Receiver<Request>) {
        let mut next = Instant::now() + self.maintain_every;
        loop {
            match requests.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Request::Maintain(done)) => {
                    self.maintain();
                    // Who asked may be gone.
                    let _ = done.send(());
                }
                Ok(Request::Append { prepared, answer, permit }) => self.group(requests, prepared, answer, permit),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next {
                self.maintain();
                next = Instant::now() + self.maintain_every;
            }
        }
        self.log.close();
    }

    /// Stores an append together with all that wait.
    fn group(
        &mut self,
        requests: &Receiver<Request>,
        first: Prepared,
        answer: Answer,
        permit: Option<OwnedSemaphorePermit>,
    ) {
        let now_ms = (self.shared.clock)();
        let mut group = Group::default();
        let mut maintained = Vec::new();
        self.add(&mut group, first, answer, permit);
        while group.samples.len() < GROUP_SAMPLES {
            match requests.try_recv() {
                Ok(Request::Append { prepared, answer, permit }) => {
                    self.add(&mut group, prepared, answer, permit);
                }
                Ok(Request::Maintain(done)) => maintained.push(done),
                Err(_) => break,
            }
        }
        self.commit(group, now_ms);
        if !maintained.is_empty() {
            self.maintain();
        }
        for done in maintained {
            let _ = done.send(());
        }
    }

    fn add(&mut self, group: &mut Group, prepared: Prepared, answer: Answer, permit: Option<OwnedSemaphorePermit>) {
        let appended = Appended { refused: prepared.refused, outside: prepared.outside, ..Appended::default() };
        let mut places = Vec::with_capacity(prepared.series.len());
        for incoming in prepared.series {
            match self.resolve(group, incoming) {
                Ok(series) => {
                    places.push(group.series.len());
                    group.series.push(series);
                }
                Err(reason) => {
                    let dir = self.log.folder().to_owned();
                    // Who asked may be gone.
                    let _ = answer.send(Err(AppendError::Io { dir, reason }));
                    return;
                }
            }
        }
        for (at, time_ms, value) in prepared.samples {
            if let Some(place) = places.get(at) {
                group.samples.push((*place, time_ms, value));
            }
        }
        let until = group.samples.len();
        group.waiting.push(Waiting { answer, until, appended, _permit: permit });
    }

    /// The one series with these labels.
    fn resolve(&mut self, group: &mut Group, incoming: Incoming) -> Result<SeriesRef, String> {
        let head = self.shared.head.read().unwrap_or_else(PoisonError::into_inner);
        let made = match &incoming {
            Incoming::Known(series) if head.holds(series) => return Ok(series.clone()),
            // Its last sample went meanwhile; perhaps somebody made it again already.
            Incoming::Known(series) => {
                let same = |known: &SeriesRef| known.hash == series.hash && known.labels == series.labels;
                let known = head.find(series.hash, |known| known.labels == series.labels);
                if let Some(known) = known.or_else(|| group.new.find(series.hash, same)) {
                    return Ok(known.clone());
                }
                series.clone()
            }
            Incoming::New(new) => {
                let same = |known: &SeriesRef| known.hash == new.hash && known.labels.are(&new.shared, &new.own);
                let known = head.find(new.hash, |known| known.labels.are(&new.shared, &new.own));
                if let Some(known) = known.or_else(|| group.new.find(new.hash, same)) {
                    return Ok(known.clone());
                }
                let definition = Definition {
                    id: 0,
                    kind: new.kind,
                    unit: &new.unit,
                    description: &new.description,
                    shared: new.shared.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
                    own: new.own.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
                };
                let used_up = |_| "the numbers of series are used up: restart Weir".to_owned();
                self.maker.make(&definition, new.hash).map_err(used_up)?
            }
        };
        group.new.insert_unique(made.hash, made.clone(), |series| series.hash);
        Ok(made)
    }

    /// Writes a group to the log, then to the head, then answers.
    fn commit(&mut self, mut group: Group, now_ms: i64) {
        let written =
            if group.samples.is_empty() { Ok(()) } else { self.log.write(&group.series, &group.samples, now_ms) };
        self.shared.syncs.store(self.log.syncs, Ordering::Relaxed);
        self.shared.disk_bytes.store(self.log.disk_bytes(), Ordering::Relaxed);
        if let Err(error) = written {
            self.complain(&error);
            self.is_unswept = true;
            let failed = AppendError::of(&error, self.log.folder());
            for waiting in group.waiting {
                let _ = waiting.answer.send(Err(failed.clone()));
            }
            return;
        }
        self.insert(&mut group);
        for waiting in group.waiting {
            self.shared.duplicates.fetch_add(waiting.appended.duplicates, Ordering::Relaxed);
            // Who asked may be gone; it is stored all the same.
            let _ = waiting.answer.send(Ok(waiting.appended));
        }
        self.keep_bounds(now_ms);
    }

    fn insert(&mut self, group: &mut Group) {
        let is_watched = self.shared.committed.receiver_count() > 0;
        let mut committed = Committed::default();
        let (mut at, mut waiting) = (0, group.waiting.iter_mut().peekable());
        for samples in group.samples.chunks(SAMPLES_PER_LOCK) {
            let mut head = self.shared.head.write().unwrap_or_else(PoisonError::into_inner);
            for (place, time_ms, value) in samples {
                while waiting.peek().is_some_and(|append| append.until <= at) {
                    waiting.next();
                }
                at += 1;
                let (Some(append), Some(series)) = (waiting.peek_mut(), group.series.get(*place)) else { continue };
                if head.push(series, *time_ms, *value) == Pushed::Duplicate {
                    append.appended.duplicates += 1;
                    continue;
                }
                append.appended.samples += 1;
                if is_watched {
                    committed.samples.push((series.clone(), *time_ms, f64::from_bits(*value)));
                }
            }
            head.set_shared_bytes(self.maker.interner.bytes());
        }
        if !committed.samples.is_empty() {
            // Nobody may be listening any more.
            let _ = self.shared.committed.send(Arc::new(committed));
        }
    }

    /// Lets the oldest go where memory is full. A tenth more than needed, so that this is rare.
    fn keep_bounds(&mut self, now_ms: i64) {
        if self.shared.head.read().unwrap_or_else(PoisonError::into_inner).bytes() > self.memory_bytes {
            let gone = evict(&self.shared.head, &mut self.maker.interner, self.memory_bytes / 10 * 9, now_ms);
            self.count_evicted(gone, "memory is full: the oldest samples were dropped before their time");
            self.was_full = true;
        }
        self.retain(now_ms);
    }

    fn retain(&mut self, now_ms: i64) {
        let oldest_ms = self.shared.head.read().unwrap_or_else(PoisonError::into_inner).oldest_ms();
        // What only the log holds is never read again, but would be at every start.
        let kept_ms = oldest_ms.filter(|_| self.was_full).unwrap_or(i64::MIN);
        self.log.retain(self.shared.cutoff_ms(now_ms), kept_ms);
        let removed = self.log.keep_bound();
        self.shared.disk_bytes.store(self.log.disk_bytes(), Ordering::Relaxed);
        let oldest_ms = self.log.oldest_ms();
        if removed > 0 && oldest_ms < i64::MAX {
            // What would be missing after a restart should not be seen before it.
            let gone = drop_before(&self.shared.head, &mut self.maker.interner, oldest_ms);
            self.count_evicted(
                gone,
                "the log is as large as it may be: its oldest samples were dropped before their time",
            );
        }
    }

    fn count_evicted(&self, samples: usize, what: &str) {
        if samples > 0 {
            self.shared.evicted.fetch_add(samples as u64, Ordering::Relaxed);
            tracing::warn!(samples, "{what}");
        }
    }

    /// Lets go of what is older than the retention.
    fn maintain(&mut self) {
        let now_ms = (self.shared.clock)();
        if std::mem::take(&mut self.is_unswept) {
            self.maker.interner.sweep();
        }
        drop_before(&self.shared.head, &mut self.maker.interner, self.shared.cutoff_ms(now_ms));
        self.retain(now_ms);
    }

    fn complain(&mut self, error: &io::Error) {
        if self.last_complaint.is_none_or(|last| last.elapsed() >= QUIET) {
            self.last_complaint = Some(Instant::now());
            tracing::error!(folder = %self.log.folder().display(), %error, "cannot write to the log; what comes in is not stored");
        }
    }
}
