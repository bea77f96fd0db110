//! Reading the log again when the store is opened. Damage is reported and passed over; it never
//! keeps the store from being opened.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

use crate::evict::evict;
use crate::head::Head;
use crate::labels::{Interner, LabelHasher, Series, SeriesRef, merged};
use crate::record::{Definition, Found, Visit, frame, read, scan};
use crate::segment::{HEADER_BYTES, Header, Sealed, header, list, path, read_header};

/// Makes series, so that equal labels are one series.
#[derive(Debug, Default)]
pub struct SeriesMaker {
    /// Shared with those who look series up.
    pub hasher: LabelHasher,
    /// Text that is held once.
    pub interner: Interner,
    next_id: u32,
}

/// The numbers of series are used up.
#[derive(Debug)]
pub struct NumbersUsedUp;

impl SeriesMaker {
    /// A new series.
    ///
    /// # Errors
    /// After 2^32 series.
    pub fn make(&mut self, definition: &Definition<'_>, hash: u64) -> Result<SeriesRef, NumbersUsedUp> {
        let id = self.next_id;
        self.next_id = id.checked_add(1).ok_or(NumbersUsedUp)?;
        let labels = self.interner.labels(definition.shared.iter().copied(), definition.own.iter().copied());
        let info = self.interner.info(definition.unit, definition.kind, definition.description);
        Ok(Arc::new(Series { id, labels, info, hash }))
    }
}

/// What was found in one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Samples that were read and are within the retention.
    pub samples: u64,
    /// Series that were defined.
    pub series: u64,
    /// Offset and length of what is damaged.
    pub damaged: Vec<(usize, usize)>,
    /// Where a write that was never finished begins.
    pub torn: Option<usize>,
    /// Samples whose series was defined in a damaged place, and in no segment before by the same run.
    pub orphans: u64,
    /// Time of the oldest sample within the retention, unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Time of the newest sample, unix milliseconds.
    pub newest_ms: Option<i64>,
}

/// By the number in the log: the number now, and the series.
type Numbered = HashMap<u32, (u32, SeriesRef), RandomState>;

/// The series of the segment before.
#[derive(Debug, Default)]
struct Known {
    /// Who wrote it. A number means one series within a run, so what is damaged here may stand there.
    run: Option<u64>,
    series: Numbered,
}

struct Replay<'a> {
    head: &'a mut Head,
    maker: &'a mut SeriesMaker,
    cutoff_ms: i64,
    series: Numbered,
    /// Those of the segment before, if the same run wrote it.
    before: Option<&'a Numbered>,
    found: Replayed,
}

impl Visit for Replay<'_> {
    fn definition(&mut self, definition: &Definition<'_>) {
        let hash = self.maker.hasher.all(merged(&definition.shared, &definition.own));
        let known = self.head.find(hash, |series| series.labels.are(&definition.shared, &definition.own));
        let series = match known {
            Some(known) => Ok(known.clone()),
            None => self.maker.make(definition, hash),
        };
        self.found.series += 1;
        if let Ok(series) = series {
            self.series.insert(definition.id, (series.id, series));
        }
    }

    fn sample(&mut self, id: u32, time_ms: i64, value: u64) {
        self.found.newest_ms = self.found.newest_ms.max(Some(time_ms));
        let known = self.series.get(&id).or_else(|| self.before?.get(&id));
        let Some((id, series)) = known else {
            self.found.orphans += 1;
            return;
        };
        if time_ms >= self.cutoff_ms {
            self.found.samples += 1;
            self.found.oldest_ms = Some(self.found.oldest_ms.map_or(time_ms, |oldest| oldest.min(time_ms)));
            if self.head.push_to(*id, time_ms, value).is_none() {
                self.head.push(series, time_ms, value);
            }
        }
    }
}

/// Reads a segment into the head.
fn replay(file: &[u8], head: &mut Head, maker: &mut SeriesMaker, known: &mut Known, cutoff_ms: i64) -> Replayed {
    let mut found = Replayed::default();
    let run = match read_header(file) {
        Header::Known(run) => run,
        Header::Unfinished => {
            found.torn = Some(0);
            return found;
        }
        Header::Newer(version) => {
            tracing::error!(version, "a newer Weir wrote this segment of the log; it is left as it is, and not read");
            found.damaged.push((0, file.len()));
            return found;
        }
        Header::Damaged => None,
    };
    if run.is_none() {
        found.damaged.push((0, HEADER_BYTES.min(file.len())));
    }
    let before = (run.is_some() && known.run == run).then_some(&known.series);
    let mut replay = Replay { head, maker, cutoff_ms, series: HashMap::default(), before, found };
    scan(file, HEADER_BYTES, |found| match found {
        Found::Payload(payload) => {
            if read(payload, &mut replay).is_none() {
                let offset = payload.as_ptr().addr() - file.as_ptr().addr();
                replay.found.damaged.push((offset, payload.len()));
            }
        }
        Found::Damage { offset, bytes } => replay.found.damaged.push((offset, bytes)),
        Found::Torn { offset } => replay.found.torn = Some(offset),
    });
    let Replay { series, found, .. } = replay;
    *known = Known { run, series };
    found
}

/// Reads the bytes of one segment, for tests that hand in any.
#[doc(hidden)]
pub fn replay_bytes(file: &[u8]) -> Replayed {
    replay(file, &mut Head::new(i64::MAX), &mut SeriesMaker::default(), &mut Known::default(), i64::MIN)
}

/// Reads the payload of one record as if its checksum were right, for fuzzing.
#[doc(hidden)]
pub fn replay_payload(payload: &[u8]) -> Replayed {
    let mut file = header(1);
    frame(payload, &mut file, 0);
    replay_bytes(&file)
}

/// All segments of a folder, read.
#[derive(Debug, Default)]
pub struct Opened {
    /// The segments.
    pub sealed: VecDeque<Sealed>,
    /// The number of the next one.
    pub next_number: u64,
    /// How many places are damaged.
    pub damaged: u64,
    /// Samples whose series is not known any more.
    pub orphaned: u64,
    /// Samples that had to go because memory is bounded.
    pub evicted: u64,
}

/// What bounds the reading.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Now, unix milliseconds.
    pub now_ms: i64,
    /// Samples before are not kept, unix milliseconds.
    pub cutoff_ms: i64,
    /// Most bytes that the head holds.
    pub memory_bytes: usize,
}

/// Reads all segments of a folder, the oldest first, and cuts torn ends off.
///
/// # Errors
/// If the folder or a segment cannot be looked at for want of permission.
pub fn open_folder(
    folder: &Path,
    head: &mut RwLock<Head>,
    maker: &mut SeriesMaker,
    limits: Limits,
) -> io::Result<Opened> {
    let mut opened = Opened { next_number: 1, ..Opened::default() };
    let mut known = Known::default();
    for number in list(folder)? {
        opened.next_number = number.saturating_add(1);
        let path = path(folder, number);
        let (file, written_ms) = match read_file(&path) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(error),
            Err(error) => {
                tracing::error!(segment = %path.display(), %error, "a segment of the log cannot be read and is left out");
                opened.damaged += 1;
                continue;
            }
        };
        let inner = head.get_mut().unwrap_or_else(PoisonError::into_inner);
        let found = replay(&file, inner, maker, &mut known, limits.cutoff_ms);
        report(&path, &found);
        opened.damaged += found.damaged.len() as u64;
        opened.orphaned += found.orphans;
        let length = cut(&path, &found, file.len());
        if length <= HEADER_BYTES && found.damaged.is_empty() {
            // A start that stored nothing.
            let _ = std::fs::remove_file(&path);
            continue;
        }
        opened.sealed.push_back(Sealed {
            number,
            bytes: length as u64,
            oldest_ms: found.oldest_ms.unwrap_or(i64::MAX),
            // Without a single sample that can be read, the file's own time says how old it is.
            newest_ms: found.newest_ms.unwrap_or(written_ms),
            samples: found.samples,
        });
        inner.set_shared_bytes(maker.interner.bytes());
        if inner.bytes() > limits.memory_bytes {
            // It would keep the text of series that go.
            known = Known::default();
            opened.evicted += evict(head, &mut maker.interner, limits.memory_bytes / 10 * 9, limits.now_ms) as u64;
        }
    }
    Ok(opened)
}

/// A file's content, and when it was written last in unix milliseconds.
fn read_file(path: &Path) -> io::Result<(Vec<u8>, i64)> {
    let mut file = File::open(path)?;
    let mut content = Vec::new();
    let about = file.metadata()?;
    content.reserve_exact(usize::try_from(about.len()).unwrap_or_default());
    file.read_to_end(&mut content)?;
    let written = about.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Ok((content, i64::try_from(written.as_millis()).unwrap_or(i64::MAX)))
}

/// Cuts a torn end off, for it would be found again at every start. How long the file is now.
fn cut(path: &Path, found: &Replayed, length: usize) -> usize {
    let Some(torn) = found.torn else { return length };
    let cut = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(torn as u64)?;
        file.sync_all()
    });
    match cut {
        Ok(()) => torn,
        Err(error) => {
            tracing::warn!(segment = %path.display(), %error, "cannot cut off a write that was never finished");
            length
        }
    }
}

fn report(path: &Path, found: &Replayed) {
    for (offset, bytes) in &found.damaged {
        tracing::error!(segment = %path.display(), offset, bytes, "damaged: these bytes of the log are passed over");
    }
    if found.orphans > 0 {
        let samples = found.orphans;
        tracing::error!(segment = %path.display(), samples, "lost: what their series were stood in a damaged place only");
    }
    if let Some(offset) = found.torn.filter(|offset| *offset > 0) {
        tracing::info!(segment = %path.display(), offset, "the last write was never finished; it is cut off");
    }
}
