//! The files of the log: `wal/00000001.wal` and so on.
//!
//! A segment holds everything that is needed to read it, so old ones are removed whole. Only the
//! newest is written. One whose sync failed is never written again: after that nobody can tell
//! what of it is on the disk.

use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::hash::BuildHasher;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use foldhash::fast::RandomState;

use crate::error::is_full;
use crate::labels::SeriesRef;
use crate::record::RecordWriter;

/// How a file begins: name of the format, version, CRC-32C of both; the number of the run that wrote
/// it and its CRC-32C.
pub const HEADER_BYTES: usize = FORMAT_BYTES + 12;
/// How every version begins.
const FORMAT_BYTES: usize = 16;
const NAME: [u8; 8] = *b"WEIRWAL\0";
const VERSION: u32 = 1;

/// The beginning that all segments of this version have.
fn format() -> Vec<u8> {
    let mut format = NAME.to_vec();
    format.extend_from_slice(&VERSION.to_le_bytes());
    format.extend_from_slice(&crc32c::crc32c(&format).to_le_bytes());
    format
}

/// The beginning of a segment.
pub fn header(run: u64) -> Vec<u8> {
    let (mut header, run) = (format(), run.to_le_bytes());
    header.extend_from_slice(&run);
    header.extend_from_slice(&crc32c::crc32c(&run).to_le_bytes());
    header
}

/// What the beginning of a segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// This version of the format, and the run if its number is whole. Within a run a number means one series.
    Known(Option<u64>),
    /// A version that this Weir does not know.
    Newer(u32),
    /// The file ends within the header.
    Unfinished,
    /// Damaged; records may follow all the same.
    Damaged,
}

/// Looks at the beginning of a segment.
pub fn read_header(file: &[u8]) -> Header {
    let expected = format();
    let is_known = file.starts_with(&expected);
    if file.len() < HEADER_BYTES && (is_known || expected.starts_with(file)) {
        return Header::Unfinished;
    }
    if is_known {
        return Header::Known(file.get(FORMAT_BYTES..HEADER_BYTES).and_then(read_run));
    }
    match file.first_chunk::<FORMAT_BYTES>() {
        Some([name @ .., v0, v1, v2, v3, c0, c1, c2, c3]) if *name == NAME => {
            let version = [*v0, *v1, *v2, *v3];
            let is_right =
                crc32c::crc32c_append(crc32c::crc32c(name), &version) == u32::from_le_bytes([*c0, *c1, *c2, *c3]);
            if is_right { Header::Newer(u32::from_le_bytes(version)) } else { Header::Damaged }
        }
        _ => Header::Damaged,
    }
}

fn read_run(bytes: &[u8]) -> Option<u64> {
    let (run, checksum) = bytes.split_first_chunk::<8>()?;
    (crc32c::crc32c(run).to_le_bytes() == *checksum).then_some(u64::from_le_bytes(*run))
}

/// A file that is written. Behind a trait so that tests have disks that fail.
pub trait LogFile: Send {
    /// Writes all bytes at an offset.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Waits until everything is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to a length.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl LogFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Makes a new file at a path.
pub type Create = Box<dyn Fn(&Path) -> io::Result<Box<dyn LogFile>> + Send>;

/// Makes real files. Telemetry can hold what not everybody should read.
pub fn create_files() -> Create {
    Box::new(|path| {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
        Ok(Box::new(file))
    })
}

/// A segment that is not written any more.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its number.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
    /// Time of its oldest sample, unix milliseconds; none known: the latest time there is.
    pub oldest_ms: i64,
    /// Time of its newest sample, unix milliseconds. Of a file in which none can be read, when it was written;
    /// of one in which none was stored, the earliest time there is.
    pub newest_ms: i64,
    /// How many samples it holds that can be read.
    pub samples: u64,
}

struct Active {
    file: Box<dyn LogFile>,
    about: Sealed,
    opened_ms: i64,
    /// The series that are defined in it.
    defined: HashSet<u32, RandomState>,
}

/// What bounds the log.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// A segment that is longer is ended.
    pub segment_bytes: u64,
    /// A segment that is older is ended, milliseconds.
    pub span_ms: i64,
    /// All segments together.
    pub disk_bytes: u64,
    /// Whether writes wait for the disk.
    pub sync: bool,
}

/// All segments.
pub struct Log {
    folder: PathBuf,
    create: Create,
    bounds: Bounds,
    sealed: VecDeque<Sealed>,
    active: Option<Active>,
    next_number: u64,
    run: u64,
    /// How often the disk was waited for.
    pub syncs: u64,
}

/// Waits until the names in a folder are on the disk, which a sync of the files does not do (fsync(2)).
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Where a segment lies.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.wal"))
}

/// The numbers of the segments in a folder, ascending. Other files are none of our business.
pub fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".wal")?.parse().ok());
        numbers.extend(number.filter(|number| path(folder, *number).file_name() == Some(&name)));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl Log {
    /// A log with these older segments, which begins a new one. If the disk is full, it does so once there
    /// is space: what is there can be read meanwhile.
    ///
    /// # Errors
    /// If no file can be made.
    pub fn begin(
        folder: PathBuf,
        create: Create,
        bounds: Bounds,
        sealed: VecDeque<Sealed>,
        next_number: u64,
        now_ms: i64,
    ) -> io::Result<Self> {
        // Seeded by the system for every process and call.
        let run = std::hash::RandomState::new().hash_one(std::process::id());
        let mut log = Self { folder, create, bounds, sealed, active: None, next_number, run, syncs: 0 };
        match log.begin_segment(now_ms) {
            Ok(active) => log.active = Some(active),
            Err(error) if is_full(&error) => {
                let folder = log.folder.display();
                tracing::error!(%folder, "the disk is full: what comes in is not stored until there is space");
            }
            Err(error) => return Err(error),
        }
        Ok(log)
    }

    /// Where the segments lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn begin_segment(&mut self, now_ms: i64) -> io::Result<Active> {
        let number = self.next_number;
        let path = path(&self.folder, number);
        let mut file = (self.create)(&path)?;
        // Also if what follows fails: the name is taken then, should it not be removed.
        self.next_number += 1;
        let header = header(self.run);
        let synced = |()| if self.bounds.sync { sync_folder(&self.folder) } else { Ok(()) };
        let written = file.write_at(&header, 0).and_then(synced);
        if let Err(error) = written {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        let bytes = header.len() as u64;
        let about = Sealed { number, bytes, oldest_ms: i64::MAX, newest_ms: i64::MIN, samples: 0 };
        Ok(Active { file, about, opened_ms: now_ms, defined: HashSet::default() })
    }

    /// The segment to write to, a new one where the last is long or old.
    fn writable(&mut self, now_ms: i64) -> io::Result<Active> {
        let active = match self.active.take() {
            None => return self.begin_segment(now_ms),
            Some(active) => active,
        };
        // Either way: a clock that is set back must not keep a segment open until it has caught up.
        let is_old = now_ms.abs_diff(active.opened_ms) > self.bounds.span_ms.unsigned_abs();
        let is_used = active.about.samples > 0;
        if is_used && (active.about.bytes >= self.bounds.segment_bytes || is_old) {
            self.sealed.push_back(active.about);
            return self.begin_segment(now_ms);
        }
        Ok(active)
    }

    /// Writes samples and waits for the disk once. After an error nothing of them counts as stored.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn write(&mut self, series: &[SeriesRef], samples: &[(usize, i64, u64)], now_ms: i64) -> io::Result<()> {
        let mut active = self.writable(now_ms)?;
        let mut group = Vec::new();
        let mut defined_now = Vec::new();
        let mut writer = RecordWriter::default();
        let before = active.about.clone();
        for (at, time_ms, value) in samples {
            let Some(series) = series.get(*at) else { continue };
            if active.defined.insert(series.id) {
                defined_now.push(series.id);
                writer.define(series);
            }
            writer.sample(series.id, *time_ms, *value);
            active.about.oldest_ms = active.about.oldest_ms.min(*time_ms);
            active.about.newest_ms = active.about.newest_ms.max(*time_ms);
            if writer.is_full() {
                writer.end(&mut group, before.bytes);
            }
        }
        writer.end(&mut group, before.bytes);
        if let Err(error) = active.file.write_at(&group, before.bytes) {
            active.about = before;
            defined_now.iter().for_each(|id| {
                active.defined.remove(id);
            });
            // Part of it may be there; what follows must not stand behind it.
            match active.file.cut(active.about.bytes) {
                Ok(()) => self.active = Some(active),
                Err(_) => self.sealed.push_back(active.about),
            }
            return Err(error);
        }
        active.about.bytes += group.len() as u64;
        active.about.samples += samples.len() as u64;
        if self.bounds.sync {
            self.syncs += 1;
            if let Err(error) = active.file.sync() {
                // Nobody was told that this is stored, so it should not be found later, or half of it.
                let is_cut = active.file.cut(before.bytes).is_ok();
                self.sealed.push_back(if is_cut { before } else { active.about });
                return Err(error);
            }
        }
        self.active = Some(active);
        Ok(())
    }

    /// Removes segments that hold nothing after `cutoff_ms`, or nothing that is readable and after `kept_ms`.
    pub fn retain(&mut self, cutoff_ms: i64, kept_ms: i64) {
        let folder = &self.folder;
        // What cannot be read, perhaps by this version only, stays until it is too old.
        let is_kept =
            |sealed: &Sealed| sealed.newest_ms >= if sealed.samples > 0 { kept_ms.max(cutoff_ms) } else { cutoff_ms };
        self.sealed.retain(|sealed| is_kept(sealed) || !remove(folder, sealed.number));
    }

    /// Removes the oldest segments until the bound is kept. How many samples they held.
    pub fn keep_bound(&mut self) -> u64 {
        let mut removed = 0;
        while self.disk_bytes() > self.bounds.disk_bytes {
            let Some(oldest) = self.sealed.front() else { break };
            if !remove(&self.folder, oldest.number) {
                break;
            }
            removed += oldest.samples;
            self.sealed.pop_front();
        }
        removed
    }

    /// Time of the oldest sample in any segment, unix milliseconds; without samples the latest time there is.
    pub fn oldest_ms(&self) -> i64 {
        let active = self.active.iter().map(|active| &active.about);
        self.sealed.iter().chain(active).map(|about| about.oldest_ms).min().unwrap_or(i64::MAX)
    }

    /// Bytes of all segments.
    pub fn disk_bytes(&self) -> u64 {
        let active = self.active.as_ref().map_or(0, |active| active.about.bytes);
        self.sealed.iter().map(|sealed| sealed.bytes).sum::<u64>() + active
    }

    /// Waits for the disk a last time, and leaves no empty segment behind.
    pub fn close(&mut self) {
        let Some(mut active) = self.active.take() else { return };
        if active.about.samples == 0 {
            remove(&self.folder, active.about.number);
        } else if let Err(error) = active.file.sync() {
            tracing::error!(folder = %self.folder.display(), %error, "the last samples may not be on the disk");
        }
    }
}

/// Removes a segment. Whether it is gone.
fn remove(folder: &Path, number: u64) -> bool {
    let path = path(folder, number);
    match std::fs::remove_file(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::warn!(segment = %path.display(), %error, "cannot remove an old segment of the log");
            false
        }
    }
}
