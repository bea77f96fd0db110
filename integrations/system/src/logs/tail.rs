//! One file: read as it grows, from a position on.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::archive::{Archive, Filled};
use super::assemble::{Assembler, GUARD_BYTES, Record};
use super::checkpoint::Entry;
use super::config::Settings;
use super::encoding::Decoded;
use super::identity::{Beginning, FileId, HEAD_BYTES, Print, gzip, read_at_most};
use super::parse::line::Field;
use super::parse::time::Clock;
use super::record::{Gathered, Origin, Read};
use super::rules::Rules;

/// Bytes that are read at once.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Bytes that one file may bring before the next one has its turn.
const TURN_BYTES: usize = 256 << 10;

/// Bytes of files in one batch.
const BATCH_BYTES: usize = 256 << 10;

/// Most records in one batch.
const BATCH_RECORDS: usize = 8_192;

/// Where the bytes come from.
enum Source {
    Closed,
    Plain(File),
    Gzip(Archive),
}

/// The offset of an archive of which nothing is to be read.
pub const PASSED_OVER: u64 = u64::MAX;

/// What all files share while they have their turns.
pub struct Work<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// Where records go.
    pub gathered: &'a mut Gathered,
    /// Who counts them.
    pub rules: &'a mut Rules,
    /// The time and zone.
    pub clock: &'a Clock,
    /// The moment of this round.
    pub now: Instant,
    /// Room for [`CHUNK_BYTES`].
    pub scratch: &'a mut [u8],
    /// Counts of what went wrong.
    pub counts: &'a mut Counts,
}

/// What went wrong with records, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Records that were cut.
    pub cut: u64,
    /// Records that are not in the configured format.
    pub unreadable: u64,
}

impl Work<'_> {
    /// Whether the batch is large enough.
    pub fn is_full(&self) -> bool {
        self.gathered.raw_bytes >= BATCH_BYTES || self.gathered.len() >= BATCH_RECORDS
    }
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// Nothing more is there now.
    AtEnd,
    /// There is more to read.
    More,
    /// The file holds something else than before: it was truncated or written anew.
    Truncated,
}

/// One file.
pub struct Tail {
    /// Where the file system keeps it.
    pub id: FileId,
    /// Its path now.
    pub path: PathBuf,
    /// Whether a pattern names it; rotated files are read to their end all the same.
    pub is_listed: bool,
    /// Since when no pattern names it.
    pub unlisted_since: Instant,
    /// When it last brought something.
    pub last_growth: Instant,
    /// Its size when it was last looked at.
    pub size: u64,
    /// The file that it is a copy of, and since when it waits to learn how far that one was read.
    pub copy_of: Option<(u64, Instant)>,
    is_gzip: bool,
    origin: Origin,
    shown_path: Arc<str>,
    source: Source,
    assembler: Assembler,
    head: Print,
    /// Next byte to read.
    read: u64,
    /// Up to where records have been handed on.
    done: u64,
    /// Where reading was taken up, and what stood before.
    resumed: (u64, Print),
    /// Nothing more will come from this archive while it has this size.
    finished_at_size: Option<u64>,
    /// When it was last written, as far as is known.
    modified: Option<SystemTime>,
    /// Offset and length of the beginning that were told last.
    told: Option<(u64, usize)>,
}

impl Tail {
    /// A file to be read from an offset on.
    pub fn new(
        path: PathBuf,
        id: FileId,
        beginning: &Beginning,
        offset: u64,
        guard: Print,
        settings: &Settings,
    ) -> Self {
        let now = Instant::now();
        Tail {
            id,
            origin: origin(&path),
            shown_path: shown(&path),
            path,
            is_listed: true,
            unlisted_since: now,
            last_growth: now,
            size: 0,
            copy_of: None,
            is_gzip: beginning.is_gzip,
            source: Source::Closed,
            assembler: Assembler::new(settings.shape.clone()),
            head: Print::of(&beginning.bytes),
            read: offset,
            done: offset,
            resumed: (offset, guard),
            finished_at_size: None,
            modified: None,
            told: None,
        }
    }

    /// What is to be remembered of it, if that has changed since it was asked last.
    pub fn news(&mut self) -> Option<Entry> {
        let now = (self.done, self.head.length);
        (self.told.replace(now) != Some(now)).then(|| self.entry())
    }

    /// What is remembered of it.
    pub fn entry(&mut self) -> Entry {
        let guard =
            if self.done == self.resumed.0 { self.resumed.1.clone() } else { Print::of(self.assembler.guard()) };
        Entry {
            path: self.shown_path.to_string(),
            id: self.id,
            gzip: self.is_gzip,
            head: self.head.clone(),
            offset: self.done,
            guard,
            gone_since: 0,
        }
    }

    /// Whether it is open and holds something else than before. Otherwise its beginning is known
    /// afterwards as far as it is written.
    pub fn is_rewritten(&mut self) -> bool {
        let is_rewritten = matches!(self.check(), Ok(Turned::Truncated));
        if !is_rewritten && let Err(error) = self.look_at_beginning() {
            // It is told when its turn comes.
            tracing::debug!("logs: cannot read {}: {error}", self.path.display());
        }
        is_rewritten
    }

    /// Its beginning.
    pub fn head(&self) -> &Print {
        &self.head
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        !matches!(self.source, Source::Closed)
    }

    /// Whether it is compressed.
    pub fn is_gzip(&self) -> bool {
        self.is_gzip
    }

    /// Whether nothing was left to read when it was last looked at.
    pub fn is_at_end(&self) -> bool {
        if self.is_gzip { self.finished_at_size == Some(self.size) } else { self.size == self.read }
    }

    /// Bytes that are not read yet, as far as is known.
    pub fn unread_bytes(&self) -> u64 {
        if self.is_gzip { 0 } else { self.size.saturating_sub(self.done) }
    }

    /// Whether its name is gone from the file system.
    pub fn is_deleted(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        match &self.source {
            Source::Plain(file) | Source::Gzip(Archive { file, .. }) => {
                file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
            }
            Source::Closed => false,
        }
    }

    /// Lets time pass. A file that has no name any more is not aged by whoever ages files by name.
    #[cfg(test)]
    pub fn age(&mut self, by: std::time::Duration) {
        self.unlisted_since -= by;
        self.last_growth -= by;
        self.modified = self.modified.map(|modified| modified - by);
        if let Some((_, since)) = &mut self.copy_of {
            *since -= by;
        }
        if let Source::Plain(file) | Source::Gzip(Archive { file, .. }) = &self.source
            && self.is_deleted()
        {
            file.set_modified(file.metadata().unwrap().modified().unwrap() - by).unwrap();
        }
    }

    /// It has another name now.
    pub fn renamed(&mut self, path: PathBuf) {
        self.origin = origin(&path);
        self.shown_path = shown(&path);
        self.path = path;
        self.told = None;
    }

    /// Takes the file that was opened at its path. It is another one if the id is, and has been
    /// written anew if its beginning is: then it is not taken.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(&mut self, file: File) -> io::Result<Turned> {
        let beginning = Beginning::read(&file)?;
        if beginning.is_gzip != self.is_gzip || (self.head.length > 0 && !self.head.begins(&beginning.bytes)) {
            self.source = Source::Plain(file);
            return Ok(Turned::Truncated);
        }
        self.source = if self.is_gzip {
            let decoder = Box::new(gzip(&file)?);
            if self.read == PASSED_OVER {
                self.size = file.metadata()?.len();
                self.finished_at_size = Some(self.size);
            }
            Source::Gzip(Archive { file, decoder, position: 0 })
        } else {
            Source::Plain(file)
        };
        Ok(Turned::AtEnd)
    }

    /// Closes the file; it can be opened again.
    pub fn close(&mut self) {
        self.source = Source::Closed;
    }

    /// Everything read so far becomes records, and reading begins anew with what the file holds now.
    pub fn restart(&mut self, work: &mut Work<'_>) -> Entry {
        self.flush(true, work);
        let entry = self.entry();
        self.assembler = Assembler::new(work.settings.shape.clone());
        (self.read, self.done, self.resumed) = (0, 0, (0, Print::default()));
        (self.finished_at_size, self.told) = (None, None);
        self.head = Print::default();
        let was_gzip = self.is_gzip;
        if let Source::Plain(file) | Source::Gzip(Archive { file, .. }) = &self.source
            && let Ok(beginning) = Beginning::read(file)
        {
            self.head = Print::of(&beginning.bytes);
            self.is_gzip = beginning.is_gzip;
        }
        if was_gzip || self.is_gzip {
            self.close();
        }
        entry
    }

    /// Makes records of everything that still waits for more.
    pub fn flush(&mut self, unfinished: bool, work: &mut Work<'_>) {
        while let Some(record) = self.assembler.flush(unfinished) {
            self.hand_on(record, work);
        }
    }

    /// Reads what there is, up to the share of one turn.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn turn(&mut self, work: &mut Work<'_>) -> io::Result<Turned> {
        if self.check()? == Turned::Truncated {
            return Ok(Turned::Truncated);
        }
        let (mut budget, before) = (TURN_BYTES, self.read);
        let mut turned = Turned::AtEnd;
        while self.is_open() && !(self.is_gzip && self.is_at_end()) {
            if budget == 0 || work.is_full() {
                turned = Turned::More;
                break;
            }
            let read = match self.fill(work.scratch)? {
                Filled::Bytes(0) => break,
                Filled::Bytes(read) => read,
                Filled::Skipped => {
                    turned = Turned::More;
                    break;
                }
            };
            budget = budget.saturating_sub(read);
            self.assembler.push(work.scratch.get(..read).unwrap_or_default());
            while let Some(record) = self.assembler.next() {
                self.hand_on(record, work);
            }
        }
        if self.read > before {
            self.last_growth = work.now;
            self.size = self.size.max(if self.is_gzip { 0 } else { self.read });
            self.look_at_beginning()?;
        } else {
            self.time_passes(work);
        }
        if turned == Turned::AtEnd {
            self.assembler.rest();
        }
        Ok(turned)
    }

    /// Whether the file still holds what was read of it.
    fn check(&mut self) -> io::Result<Turned> {
        let file = match &self.source {
            Source::Closed => return Ok(Turned::AtEnd),
            Source::Gzip(archive) => {
                self.size = archive.file.metadata()?.len();
                return Ok(Turned::AtEnd);
            }
            Source::Plain(file) => file,
        };
        let metadata = file.metadata()?;
        self.size = metadata.len();
        if self.size < self.read {
            return Ok(Turned::Truncated);
        }
        // Written anew it may have the size that it had.
        let modified = metadata.modified().ok();
        let before = std::mem::replace(&mut self.modified, modified);
        if before == modified && self.size == self.read {
            return Ok(Turned::AtEnd);
        }
        if self.size == 0 && before.is_some() && before != modified {
            return Ok(Turned::Truncated);
        }
        let holds = if self.done == self.resumed.0 {
            self.resumed.1.stands_before(file, self.done)?
        } else {
            let guard = self.assembler.guard();
            let mut there = [0; GUARD_BYTES];
            let there = there.get_mut(..guard.len()).unwrap_or_default();
            let read = read_at_most(file, there, self.done.saturating_sub(guard.len() as u64))?;
            there.get(..read) == Some(guard)
        };
        // Lines of programs often end alike, so what stands before the position is not enough.
        Ok(if holds && self.begins_as_before(file)? { Turned::AtEnd } else { Turned::Truncated })
    }

    /// Whether a file has the beginning that this one had.
    fn begins_as_before(&self, file: &File) -> io::Result<bool> {
        let mut beginning = vec![0; self.head.length];
        let read = read_at_most(file, &mut beginning, 0)?;
        beginning.truncate(read);
        Ok(self.head.length == 0 || self.head.begins(&beginning))
    }

    /// Reads a chunk at the position.
    fn fill(&mut self, scratch: &mut [u8]) -> io::Result<Filled> {
        let width = self.assembler.width();
        let read = match &mut self.source {
            Source::Closed => 0,
            Source::Plain(file) => {
                let read = read_at_most(file, scratch, self.read)?;
                read - read % width
            }
            Source::Gzip(archive) => match archive.read_at(self.read, scratch) {
                Ok(Filled::Skipped) => return Ok(Filled::Skipped),
                Ok(Filled::Bytes(read)) => {
                    if read == 0 {
                        self.finished_at_size = Some(self.size);
                    }
                    read - read % width
                }
                Err(error) => return self.archive_ends(&error),
            },
        };
        self.read += read as u64;
        Ok(Filled::Bytes(read))
    }

    /// An archive that ends early is being written still: it is tried again when it has grown.
    fn archive_ends(&mut self, error: &io::Error) -> io::Result<Filled> {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            tracing::warn!(
                "logs: {} is a damaged archive: what comes behind the damage is lost: {error}",
                self.path.display()
            );
        }
        self.finished_at_size = Some(self.size);
        self.close();
        Ok(Filled::Bytes(0))
    }

    /// Files that were shorter than a beginning are known better once they have grown.
    fn look_at_beginning(&mut self) -> io::Result<()> {
        if let Source::Plain(file) = &self.source
            && self.head.length < HEAD_BYTES
            && self.size > self.head.length as u64
        {
            self.head = Print::of(&Beginning::read(file)?.bytes);
        }
        Ok(())
    }

    /// What has waited long enough becomes a record without what it waits for.
    fn time_passes(&mut self, work: &mut Work<'_>) {
        let waited = work.now.saturating_duration_since(self.last_growth);
        let unfinished = self.assembler.has_unfinished_line();
        if unfinished && waited >= work.settings.unfinished_timeout {
            self.flush(true, work);
        } else if !unfinished && self.assembler.has_group() && waited >= work.settings.multiline_timeout {
            self.flush(false, work);
        }
        if self.is_gzip && self.finished_at_size.is_some() {
            self.flush(true, work);
            self.close();
        }
    }

    fn hand_on(&mut self, record: Record, work: &mut Work<'_>) {
        self.done += record.consumed;
        work.gathered.raw_bytes += usize::try_from(record.consumed).unwrap_or(usize::MAX);
        let text = work.settings.shape.encoding.decode(self.assembler.bytes(record));
        let plain: &str = match &text {
            Decoded::Text(text) => text,
            Decoded::Bytes(_, nearest) => nearest,
        };
        if plain.is_empty() && record.cut == 0 {
            return;
        }
        let line = work.settings.parser.parse(plain, work.clock);
        work.counts.cut += u64::from(record.cut > 0);
        work.counts.unreadable += u64::from(line.error.is_some());
        work.rules.see(plain, &line, &self.shown_path);
        let read = Read {
            text: &text,
            line: &line,
            cut: record.cut,
            observed_unix_nano: work.clock.now_unix_nano,
            original: work.settings.original,
            resource: Vec::new(),
        };
        work.gathered.add(&self.origin, read);
    }
}

fn shown(path: &Path) -> Arc<str> {
    Arc::from(path.to_string_lossy())
}

fn origin(path: &Path) -> Origin {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let text = |text: String| Field::Text(Cow::Owned(text));
    Arc::from([("log.file.name", text(name)), ("log.file.path", text(path.to_string_lossy().into_owned()))])
}
