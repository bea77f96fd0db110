//! The store as everybody sees it.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{Semaphore, broadcast, oneshot};
use weir_model::metrics::Metrics;

use crate::error::{AppendError, OpenError};
use crate::head::Head;
use crate::labels::{Label, Series, SeriesRef};
use crate::map::{Mapped, MappedSeries, map};
use crate::replay::{Limits, Opened, SeriesMaker, open_folder};
use crate::segment::{Bounds, Create, Log, create_files, sync_folder};
use crate::stats::Stats;
use crate::writer::{Clock, Incoming, NewSeries, OwnedPairs, Prepared, Request, Shared, Writer};

/// When an append is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sync {
    /// When it is on the disk; appends that wait share one sync.
    #[default]
    Group,
    /// When the system has it: a crash of the machine can take the last half minute.
    Never,
}

/// How much is kept, and how safely.
#[derive(Clone, Debug)]
pub struct Options {
    /// Older samples are let go of. Default: 24 hours.
    pub retention: Duration,
    /// Most bytes of the log. Default: 8 GiB.
    pub disk_bytes: u64,
    /// Most bytes in memory. Default: 1 GiB.
    pub memory_bytes: usize,
    /// A file of the log is ended at this size. Default: 64 MiB.
    pub segment_bytes: u64,
    /// When an append is answered. Default: [`Sync::Group`].
    pub sync: Sync,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention: Duration::from_hours(24),
            disk_bytes: 8 << 30,
            memory_bytes: 1 << 30,
            segment_bytes: 64 << 20,
            sync: Sync::Group,
        }
    }
}

/// What became of an append.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// Samples that are stored, those that replaced another value among them.
    pub samples: u64,
    /// Samples that were there already, with the same time and value.
    pub duplicates: u64,
    /// Points older than the retention, or more than an hour ahead of this machine's clock; they are not stored.
    pub outside: u64,
    /// Points that cannot be stored: without name, without value, or with labels of more than 256 KiB.
    pub refused: u64,
}

/// What was just stored.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// Series, unix milliseconds, value.
    pub samples: Vec<(SeriesRef, i64, f64)>,
}

/// How many [`Committed`] a slow listener may be behind before it misses some.
const COMMITTED_WAITING: usize = 64;

/// An open chunk or a segment spans at most this part of the retention, so that little is kept longer.
const SPANS_PER_RETENTION: u32 = 8;

/// Samples that may wait for the thread, all appends together.
const SAMPLES_WAITING: u32 = 4 << 20;

/// The embedded store. Cloning shares it; it is closed with the last clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    folder: PathBuf,
    waiting: Arc<Semaphore>,
    requests: Mutex<Option<Sender<Request>>>,
    thread: Mutex<Option<(JoinHandle<()>, Flock<File>)>>,
}

/// Unix milliseconds now.
fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Makes a folder, and those above it, unless it is there. It is still there after the machine has lost power.
fn make_folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    match (std::fs::create_dir(path), parent) {
        (Ok(()), Some(parent)) => match sync_folder(parent) {
            // Who may not list the parent cannot do more.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        },
        (Err(error), Some(parent)) if error.kind() == ErrorKind::NotFound => {
            make_folder(parent)?;
            make_folder(path)
        }
        // Right if it is a folder, also behind a link.
        (Err(error), _) if error.kind() == ErrorKind::AlreadyExists => std::fs::create_dir_all(path),
        (made, _) => made,
    }
}

/// Takes the folder for this process alone.
fn lock(dir: &Path) -> Result<Flock<File>, OpenError> {
    let path = dir.join("lock");
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o640).open(&path);
    let file = open.map_err(|error| OpenError::of(&error, &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => OpenError::InUse { dir: dir.to_owned() },
        other => OpenError::of(&other.into(), &path),
    })
}

impl Store {
    /// Opens the store in a folder, which is made if there is none, and reads its log. Blocks.
    ///
    /// # Errors
    /// If another process has it open, or the folder cannot be used. Damage in the log is no error.
    pub fn open(dir: &Path, options: Options) -> Result<Store, OpenError> {
        Self::open_with(dir, &options, Arc::new(wall_clock_ms), create_files())
    }

    /// [`Store::open`] with another clock and other files.
    pub(crate) fn open_with(dir: &Path, options: &Options, clock: Clock, create: Create) -> Result<Store, OpenError> {
        let folder = dir.join("wal");
        make_folder(dir).map_err(|error| OpenError::of(&error, dir))?;
        let lock = lock(dir)?;
        make_folder(&folder).map_err(|error| OpenError::of(&error, &folder))?;
        let now_ms = clock();
        let retention_ms = milliseconds(options.retention);
        let span_ms = milliseconds(options.retention / SPANS_PER_RETENTION);
        let cutoff_ms = now_ms.saturating_sub(retention_ms);
        let limits = Limits { now_ms, cutoff_ms, memory_bytes: options.memory_bytes };
        let (mut head, mut maker) = (RwLock::new(Head::new(span_ms)), SeriesMaker::default());
        let opened = open_folder(&folder, &mut head, &mut maker, limits).map_err(|e| OpenError::of(&e, &folder))?;
        let Opened { sealed, next_number, damaged, orphaned, evicted } = opened;
        let bounds = Bounds {
            segment_bytes: options.segment_bytes.min(options.disk_bytes / u64::from(SPANS_PER_RETENTION)),
            span_ms,
            disk_bytes: options.disk_bytes,
            sync: options.sync == Sync::Group,
        };
        let log = Log::begin(folder.clone(), create, bounds, sealed, next_number, now_ms)
            .map_err(|error| OpenError::of(&error, &folder))?;
        let shared = Arc::new(Shared {
            head,
            hasher: maker.hasher.clone(),
            clock,
            retention_ms,
            duplicates: AtomicU64::new(0),
            outside: AtomicU64::new(0),
            evicted: AtomicU64::new(evicted),
            damaged,
            orphaned,
            disk_bytes: AtomicU64::new(log.disk_bytes()),
            syncs: AtomicU64::new(0),
            committed: broadcast::Sender::new(COMMITTED_WAITING),
        });
        let writer = Writer {
            shared: shared.clone(),
            log,
            maker,
            memory_bytes: options.memory_bytes,
            maintain_every: (options.retention / 16).clamp(Duration::from_secs(1), Duration::from_secs(60)),
            last_complaint: None,
            was_full: evicted > 0,
            is_unswept: false,
        };
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("weir-store".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|error| OpenError::of(&error, dir))?;
        let inner = Inner {
            shared,
            folder: dir.to_owned(),
            waiting: Arc::new(Semaphore::new(SAMPLES_WAITING as usize)),
            requests: Mutex::new(Some(sender)),
            thread: Mutex::new(Some((thread, lock))),
        };
        Ok(Store { inner: Arc::new(inner) })
    }

    pub(crate) fn head(&self) -> &RwLock<Head> {
        &self.inner.shared.head
    }

    /// The folder of the store.
    pub fn folder(&self) -> &Path {
        &self.inner.folder
    }

    /// Stores metrics. Answers when they are as safe as [`Options::sync`] says, and can be read.
    ///
    /// # Errors
    /// If they are not stored; the same metrics may be appended again.
    pub async fn append(&self, metrics: &Metrics) -> Result<Appended, AppendError> {
        let prepared = self.prepare(metrics);
        self.commit(prepared).await
    }

    /// Looks up the series; does not wait for anything but the processor.
    pub(crate) fn prepare(&self, metrics: &Metrics) -> Prepared {
        let shared = &self.inner.shared;
        let mapped = map(metrics, &shared.hasher, shared.window());
        shared.outside.fetch_add(mapped.outside, Ordering::Relaxed);
        let head = shared.head.read().unwrap_or_else(PoisonError::into_inner);
        let mut lookup = Lookup { mapped: &mapped, head: &head, scopes: vec![Scope::default(); mapped.scopes.len()] };
        let series = mapped.series.iter().map(|series| lookup.incoming(series)).collect();
        drop(head);
        Prepared { series, refused: mapped.refused, outside: mapped.outside, samples: mapped.samples }
    }

    /// Stores what was prepared.
    pub(crate) async fn commit(&self, prepared: Prepared) -> Result<Appended, AppendError> {
        if prepared.samples.is_empty() {
            return Ok(Appended { refused: prepared.refused, outside: prepared.outside, ..Appended::default() });
        }
        let share = u32::try_from(prepared.weight()).unwrap_or(SAMPLES_WAITING).min(SAMPLES_WAITING);
        let permit = self.inner.waiting.clone().acquire_many_owned(share).await.ok();
        let (answer, answered) = oneshot::channel();
        self.send(Request::Append { prepared, answer, permit })?;
        answered.await.unwrap_or(Err(AppendError::Stopped))
    }

    fn send(&self, request: Request) -> Result<(), AppendError> {
        let requests = self.inner.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = requests.as_ref().ok_or(AppendError::Stopped)?;
        sender.send(request).map_err(|_| AppendError::Stopped)
    }

    /// Lets go of what is too old, now. Happens by itself every minute.
    ///
    /// # Errors
    /// If the store is closed.
    pub async fn maintain(&self) -> Result<(), AppendError> {
        let (done, finished) = oneshot::channel();
        self.send(Request::Maintain(done))?;
        finished.await.map_err(|_| AppendError::Stopped)
    }

    /// What is stored from now on. A listener that is too slow misses some and is told so.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.inner.shared.committed.subscribe()
    }

    /// Numbers about the store.
    pub fn stats(&self) -> Stats {
        let shared = &self.inner.shared;
        let head = shared.head.read().unwrap_or_else(PoisonError::into_inner);
        Stats {
            series: head.len(),
            samples: head.samples(),
            memory_bytes: head.bytes(),
            series_bytes: head.series_bytes(),
            sample_bytes: head.sample_bytes(),
            disk_bytes: shared.disk_bytes.load(Ordering::Relaxed),
            oldest_ms: head.oldest_ms(),
            newest_ms: head.newest_ms(),
            duplicates: shared.duplicates.load(Ordering::Relaxed),
            outside: shared.outside.load(Ordering::Relaxed),
            evicted: shared.evicted.load(Ordering::Relaxed),
            damaged_records: shared.damaged,
            orphaned: shared.orphaned,
            syncs: shared.syncs.load(Ordering::Relaxed),
        }
    }

    /// Stores what waits, waits for the disk and gives the folder back. Blocks. Appends after this are
    /// refused; reading goes on.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        let running = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((thread, lock)) = running else { return };
        if thread.join().is_err() {
            tracing::error!(folder = %self.folder.display(), "the store's thread has panicked; what was answered is in the log");
        }
        drop(lock);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// What the series of one scope have in common, as far as it was needed.
#[derive(Clone, Default)]
struct Scope {
    /// Shared labels that a known series of this scope has: equal to those that came.
    matched: Option<Arc<[Label]>>,
    owned: Option<Arc<OwnedPairs>>,
}

struct Lookup<'a> {
    mapped: &'a Mapped<'a>,
    head: &'a Head,
    scopes: Vec<Scope>,
}

impl Lookup<'_> {
    fn incoming(&mut self, series: &MappedSeries<'_>) -> Incoming {
        let shared = self.mapped.scopes.get(series.scope).map(Vec::as_slice).unwrap_or_default();
        let mut unmatched = Scope::default();
        let scope = self.scopes.get_mut(series.scope).unwrap_or(&mut unmatched);
        let has_own = |known: &Series| {
            let own = known.labels.own().iter().map(|(key, value)| (&**key, &**value));
            own.eq(series.own.iter().map(|(key, value)| (key.as_ref(), value.as_ref())))
        };
        let found = self.head.find(series.hash, |known| {
            // Comparing every label of every series would cost more than all the rest.
            let is_matched = scope.matched.as_ref().is_some_and(|matched| Arc::ptr_eq(matched, known.labels.shared()));
            (is_matched && has_own(known)) || known.labels.are(shared, &series.own)
        });
        if let Some(found) = found {
            if scope.matched.is_none() && has_own(found) {
                scope.matched = Some(found.labels.shared().clone()).filter(|known| {
                    let pairs = known.iter().map(|(key, value)| (&**key, &**value));
                    pairs.eq(shared.iter().map(|(key, value)| (key.as_ref(), value.as_ref())))
                });
            }
            return Incoming::Known(found.clone());
        }
        let owned = |pairs: &[crate::map::Pair<'_>]| -> OwnedPairs {
            pairs.iter().map(|(key, value)| (key.clone().into_owned(), value.clone().into_owned())).collect()
        };
        Incoming::New(Box::new(NewSeries {
            hash: series.hash,
            shared: scope.owned.get_or_insert_with(|| Arc::new(owned(shared))).clone(),
            own: owned(&series.own),
            unit: series.unit.to_owned(),
            kind: series.kind,
            description: series.description.to_owned(),
        }))
    }
}
