//! A queue on disk without the thread that writes: opening, pushing, taking, settling.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use tokio::sync::Notify;
use weir_model::{Batch, Encoding, Receipt, Signal, Verdict};

use crate::disk::Disk;
use crate::ledger::{Account, Ledger, Reason, Row, Settled, Tally, Totals};
use crate::memory_budget::Reservation;
use crate::queue::durable::cipher::{self, KeyId};
use crate::queue::durable::options::{DiskQueueOptions, SyncPolicy};
use crate::queue::durable::reader::Reader;
use crate::queue::durable::record::{self, Place};
use crate::queue::durable::segment;
use crate::queue::durable::shortage::Shortage;
use crate::queue::durable::state::{Front, Pending, Segment, State, Waiting};
use crate::queue::durable::survey::{Damage, Depth, Found, OpenError, Survey, survey};
use crate::queue::durable::totals::{self, Sums};
use crate::queue::durable::writer::Writer;
use crate::queue::{Entry, Hold, TakeLimits, Taken};

/// What was found when a queue was opened.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// What waits, by origin and signal; these records are counted in the ledger again.
    pub waiting: Vec<Found>,
    /// What is damaged, and writes that were never finished. These bytes are passed over.
    pub damage: Vec<Damage>,
    /// Segments.
    pub segments: usize,
    /// Bytes of all segments.
    pub bytes: u64,
    /// The log does not say what became of earlier records, because it is damaged or of the first Weir: the
    /// rows of the ledger begin anew with what waits.
    pub begins_anew: bool,
}

/// Records of a row that never stood in the queue, and that its log has not noted.
pub struct Aside {
    /// Which row.
    pub key: (Arc<str>, Signal),
    /// The row.
    pub row: Arc<Row>,
    /// They.
    pub totals: Totals,
}

/// Tells the time in unix milliseconds.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// See the module. Locks are taken in the order writer, reader, state.
pub struct Core {
    /// Where the folder is.
    pub disk: Arc<dyn Disk>,
    /// Where the segments are.
    pub folder: PathBuf,
    /// The exporter.
    pub exporter: Arc<str>,
    /// Where its rows are.
    pub ledger: Arc<Ledger>,
    /// The number that the ledger gave to this queue.
    pub ledger_number: u64,
    /// Names the key of the options.
    pub key_id: KeyId,
    /// Tells the time.
    pub now_ms: Clock,
    /// Tells whoever takes that something came.
    pub changed: Notify,
    /// Tells the thread that writes that there is something to do.
    pub work: Condvar,
    /// Bytes of entries that whoever took them still holds.
    pub taken: Arc<AtomicUsize>,
    options: RwLock<Arc<DiskQueueOptions>>,
    state: Mutex<State>,
    writer: Mutex<Writer>,
    reader: Mutex<Reader>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Core {
    /// Opens the queue in a folder.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(
        disk: Arc<dyn Disk>,
        folder: PathBuf,
        exporter: &Arc<str>,
        ledger: Arc<Ledger>,
        mut options: DiskQueueOptions,
        now_ms: Clock,
    ) -> Result<(Self, OpenReport), OpenError> {
        let failed = |source| OpenError::Io { path: folder.clone(), source };
        disk.create_folder(&folder).map_err(failed)?;
        let found = survey(&*disk, &folder, Depth::Newest)?;
        let key_id = options.key.as_ref().map_or(Ok(KeyId::default()), cipher::Key::id).map_err(failed)?;
        let is_foreign = |key: KeyId| key != KeyId::default() && key != key_id;
        let foreign = found.segments.iter().find(|s| !s.waiting.is_empty() && s.key.is_some_and(is_foreign));
        if let Some(foreign) = foreign {
            return Err(OpenError::Key { path: segment::path(&folder, foreign.number) });
        }
        options.bound_segments();
        let next_number = found.segments.last().map_or(1, |newest| newest.number.saturating_add(1));
        let is_synced = options.sync == SyncPolicy::Never || is_cursor_synced(&*disk, &folder, &found);
        let (mut state, report) = recovered(found, &ledger, exporter, next_number);
        if !is_synced {
            (state.noted_cursor, state.noted_ranges) = Default::default();
        }
        if let Some(shared) = &options.shared {
            shared.change(0, state.disk_bytes());
        }
        let writer = Writer::new(next_number);
        let mut core = Self {
            disk,
            folder,
            exporter: exporter.clone(),
            ledger,
            ledger_number: 0,
            key_id,
            now_ms,
            changed: Notify::new(),
            work: Condvar::new(),
            taken: Arc::default(),
            options: RwLock::new(Arc::new(options)),
            state: Mutex::new(state),
            writer: Mutex::new(writer),
            reader: Mutex::default(),
        };
        let has_rows = core.state().cursor_segment.is_some() && !report.begins_anew;
        core.ledger_number = core.ledger.has_queue(exporter, has_rows && !core.has_asides());
        core.log(&report);
        core.cut_torn(&report.damage);
        Ok((core, report))
    }

    fn log(&self, report: &OpenReport) {
        if report.begins_anew {
            tracing::warn!(folder = %self.folder.display(), "a queue does not say what became of earlier records; its rows of the ledger begin anew");
        }
        for Damage { path, offset, bytes, is_torn, records } in &report.damage {
            let (segment, records) = (path.display(), records.map_or(-1, i64::from));
            if *is_torn {
                tracing::info!(%segment, offset, bytes, "the last write to a queue was never finished; it is cut off");
            } else {
                tracing::error!(%segment, offset, bytes, records, "damaged: these bytes of a queue are passed over");
            }
        }
    }

    /// Bounds and promises.
    pub fn options(&self) -> Arc<DiskQueueOptions> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes bounds and promises; the key and what is shared stay as they are.
    pub fn change_options(&self, change: impl FnOnce(&mut DiskQueueOptions)) {
        let mut options = self.options.write().unwrap_or_else(PoisonError::into_inner);
        let changed = Arc::make_mut(&mut options);
        change(changed);
        changed.bound_segments();
        drop(options);
        self.work.notify_one();
        self.changed.notify_one();
    }

    /// Cuts torn ends off, for they would be found again at every start.
    fn cut_torn(&self, damage: &[Damage]) {
        for Damage { path, offset, .. } in damage.iter().filter(|damage| damage.is_torn) {
            if let Err(error) = self.disk.truncate(path, *offset) {
                tracing::warn!(segment = %path.display(), %error, "cannot cut off a write that was never finished");
            }
        }
    }

    /// What it knows. A poisoned lock means a panic between two steps elsewhere; each leaves it whole.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to write.
    pub fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to read on.
    pub fn reader(&self) -> MutexGuard<'_, Reader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the record of a payload is.
    fn stored_bytes(&self, origin: &str, payload_bytes: usize) -> u64 {
        let overhead = if self.options().key.is_some() { cipher::OVERHEAD_BYTES } else { 0 };
        (record::HEADER_BYTES + origin.len() + payload_bytes + overhead) as u64
    }

    /// Whether a batch of this size would be taken.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.shortage(bytes).is_none()
    }

    /// Why a batch of this size would not be taken, if it would not.
    pub fn shortage(&self, bytes: usize) -> Option<Shortage> {
        let options = self.options();
        let shortage = self.state().shortage(self.stored_bytes("", bytes), bytes, &options);
        let memory = || {
            let budget = options.budget.as_ref().filter(|budget| !budget.has_room(bytes))?;
            self.shrink_head();
            (!budget.has_room(bytes)).then(|| Shortage::Memory(budget.limit()))
        };
        shortage.or_else(memory)
    }

    /// Gives up the head, unless somebody is reading just now.
    pub fn shrink_head(&self) {
        match self.reader.try_lock() {
            Ok(_reading) => self.state().shrink_head(),
            Err(TryLockError::Poisoned(_reading)) => self.state().shrink_head(),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    /// Memory for an entry that waits for the disk.
    fn reserve(&self, bytes: usize) -> Result<Option<Reservation>, Reason> {
        let options = self.options();
        let Some(budget) = &options.budget else { return Ok(None) };
        if let Some(reserved) = budget.try_reserve(bytes) {
            return Ok(Some(reserved));
        }
        self.shrink_head();
        budget.try_reserve(bytes).map(Some).ok_or(Reason::MemoryFull)
    }

    /// Takes an entry.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn push(&self, entry: Entry) -> Result<(), Reason> {
        let Entry { batch: Batch { origin, payload, receipt }, row, since } = entry;
        let (encoding, bytes) = match payload.wire() {
            Some(wire) => (wire.encoding, wire.bytes.clone()),
            None => (Encoding::Protobuf, payload.to_protobuf().map_err(|_| Reason::NotEncodable)?),
        };
        let stored_bytes = self.stored_bytes(&origin, bytes.len());
        let is_too_long = u32::try_from(stored_bytes).is_err() || u16::try_from(origin.len()).is_err();
        if is_too_long || u32::try_from(payload.len()).is_err() {
            return Err(Reason::NotEncodable);
        }
        let reservation = self.reserve(payload.size_bytes())?;
        let options = self.options();
        let mut state = self.state();
        if state.is_closed {
            return Err(Reason::Stopped);
        }
        if state.shortage(stored_bytes, payload.size_bytes(), &options).is_some() {
            return Err(Reason::QueueFull);
        }
        row.accept(payload.len() as u64);
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let queued_ms = (self.now_ms)();
        state.add_pending(Pending {
            sequence,
            origin,
            payload,
            bytes,
            encoding,
            receipt,
            row,
            queued_ms,
            since,
            stored_bytes,
            reservation,
        });
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// What the front gives.
    pub fn grab(&self, limits: TakeLimits) -> Front {
        self.state().grab(limits, self.expired_ms())
    }

    /// Entries queued before are too old.
    pub fn expired_ms(&self) -> Option<i64> {
        let age_ms = |age: Duration| i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.options().max_age.map(|age| (self.now_ms)().saturating_sub(age_ms(age)))
    }

    /// Entries as a worker gets them: with receipts that come back here.
    pub fn hand_out(self: &Arc<Self>, taken: Vec<Waiting>) -> Vec<Taken> {
        let hand_out = |waiting: Waiting| {
            let Waiting { sequence, origin, payload, row, since, reservation, .. } = waiting;
            let (core, tally) = (self.clone(), Arc::new(Tally::default()));
            let account = Account::with_tally(row, tally.clone());
            let receipt = Receipt::new(move |said| core.settle(sequence, said.verdict, tally.settled()));
            let bytes = payload.size_bytes();
            self.taken.fetch_add(bytes, Ordering::AcqRel);
            let hold = Arc::new(Hold { bytes, used: self.taken.clone(), _reservation: reservation });
            Taken { batch: Batch { origin, payload, receipt }, account, since, hold }
        };
        taken.into_iter().map(hand_out).collect()
    }

    fn settle(&self, sequence: u64, verdict: Verdict, settled: Settled) {
        let mut state = self.state();
        let was_behind = state.is_behind();
        state.settle(sequence, verdict, settled);
        let is_behind = state.is_behind();
        drop(state);
        if verdict == Verdict::Retry {
            self.changed.notify_one();
        }
        // Once per interval, not once per batch.
        if is_behind && !was_behind {
            self.work.notify_one();
        }
    }

    /// What the cursor has to carry now, and what of it never stood in the queue.
    pub fn sums(&self, state: &State) -> (Sums, Vec<Aside>) {
        let mut sums = Sums { rows: state.totals.clone(), settled: state.settled_ranges() };
        let mut asides = Vec::new();
        for (origin, signal, row) in self.ledger.rows_of(&self.exporter) {
            let totals = row.aside();
            if !totals.is_empty() {
                let key = (origin, signal);
                totals::add(&mut sums.rows, key.clone(), &totals);
                asides.push(Aside { key, row, totals });
            }
        }
        (sums, asides)
    }

    /// Whether there is something beside the queue that the cursor has to carry.
    pub fn has_asides(&self) -> bool {
        self.ledger.rows_of(&self.exporter).iter().any(|(_, _, row)| !row.aside().is_empty())
    }

    /// Takes no more entries, and gives none either if it is abandoned.
    pub fn close(&self, is_abandoned: bool) {
        let mut state = self.state();
        state.is_closed = true;
        state.is_abandoned |= is_abandoned;
        drop(state);
        self.changed.notify_one();
    }

    /// Ends the thread that writes.
    pub fn stop(&self) {
        let mut state = self.state();
        (state.is_closed, state.is_stopping) = (true, true);
        drop(state);
        self.work.notify_one();
        self.changed.notify_one();
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let bytes = self.state().disk_bytes();
        if let Some(shared) = &self.options().shared {
            shared.change(bytes, 0);
        }
        self.ledger.queue_closed(&self.exporter, self.ledger_number);
    }
}

/// A process that was killed may have written the cursor and never synced it: nothing may be removed on its
/// word before that is done. Whether it is.
fn is_cursor_synced(disk: &dyn Disk, folder: &Path, found: &Survey) -> bool {
    let Some(number) = found.cursor_segment else { return true };
    let path = segment::path(folder, number);
    let synced = disk.open(&path).and_then(|file| file.sync()).and_then(|()| disk.sync_folder(folder));
    if let Err(error) = &synced {
        tracing::warn!(segment = %path.display(), %error, "cannot sync how far a queue is settled; it is noted anew");
    }
    synced.is_ok()
}

/// What a queue knows after its folder was looked at.
fn recovered(found: Survey, ledger: &Ledger, exporter: &Arc<str>, next_number: u64) -> (State, OpenReport) {
    let waiting = found.waiting();
    let begins_anew = found.sums.is_none() && found.segments.iter().any(|segment| segment.file_bytes > 0);
    restore(&found, &waiting, ledger, exporter);
    let mut state = State {
        read_until: found.cursor,
        noted_cursor: found.cursor,
        cursor_segment: found.cursor_segment,
        read_ms: found.oldest_ms().unwrap_or_default(),
        ..State::default()
    };
    let sums = found.sums.unwrap_or_default();
    (state.totals, state.settled_before) = (sums.rows, sums.settled);
    state.noted_ranges = state.settled_before.clone();
    // A number for each segment's entries of its own, so that those of a segment that could not be
    // read this time are not given again: none holds 2^24 entries.
    state.next_sequence = found.cursor.max(next_number.saturating_mul(1 << 24));
    if let Some((_, last)) = state.settled_before.iter().next_back() {
        state.next_sequence = state.next_sequence.max(last.saturating_add(1));
    }
    for survey in found.segments {
        let mut segment = Segment::new(survey.number);
        let last = survey.sequences.map_or(0, |(_, last)| last.saturating_add(1));
        state.next_sequence = state.next_sequence.max(last);
        (segment.end, segment.file_bytes) = (survey.end, survey.end);
        // Of one that is settled behind the cursor nothing counts.
        let sequences = survey.sequences.filter(|(first, last)| !state.settled_before.covers(*first, *last));
        (segment.sequences, segment.damaged, segment.is_sealed) = (sequences, survey.damaged, true);
        segment.newest_ms = survey.newest_ms.unwrap_or(i64::MIN);
        for found in &survey.waiting {
            let row = ledger.row(&found.origin, exporter, found.signal);
            segment.add_unread(&found.origin, found.signal, &row, found.records);
        }
        let first = survey.first_waiting.map(|offset| Place { segment: survey.number, offset });
        state.read_at = state.read_at.or(first);
        state.segments.push_back(segment);
    }
    if state.read_at.is_none() && !state.settled_before.is_empty() {
        // What the cursor stands at is gone.
        state.read_until = state.next_sequence;
    }
    let (damage, segments, bytes) = (found.damage, state.segments.len(), state.disk_bytes());
    (state, OpenReport { waiting, damage, segments, bytes, begins_anew })
}

/// The rows of the exporter as its queue has them: also those of which nothing waits.
fn restore(found: &Survey, waiting: &[Found], ledger: &Ledger, exporter: &Arc<str>) {
    let known = ledger.rows_of(exporter).into_iter().map(|(origin, signal, _)| (origin, signal));
    let noted = found.sums.iter().flat_map(|sums| sums.rows.keys().cloned());
    let there = waiting.iter().map(|found| (found.origin.clone(), found.signal));
    let rows: BTreeSet<(Arc<str>, Signal)> = known.chain(noted).chain(there).collect();
    let is_keeper = ledger.is_left_to_queue(exporter);
    for key in rows {
        let waits = waiting.iter().find(|found| found.origin == key.0 && found.signal == key.1);
        let totals = found.sums.as_ref().map(|sums| sums.rows.get(&key).cloned().unwrap_or_default());
        ledger.row(&key.0, exporter, key.1).restore(totals.as_ref(), waits.map_or(0, |found| found.records), is_keeper);
    }
}
