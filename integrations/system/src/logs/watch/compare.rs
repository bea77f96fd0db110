//! What is remembered of files, against what is there.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};

use super::super::assemble::GUARD_BYTES;
use super::super::checkpoint::Entry;
use super::super::glob::Found;
use super::super::identity::{self, Beginning, FileId, Print, base_name, is_rotated};
use super::super::tail::Tail;

/// The logs that remembered files are parts of, and when they were there last, unix seconds.
pub(super) fn logs_of<'a>(files: impl Iterator<Item = &'a Entry>, last_look: u64) -> BTreeMap<PathBuf, u64> {
    let mut logs = BTreeMap::new();
    for entry in files {
        let Some(log) = log_of(Path::new(&entry.path)) else { continue };
        let seen = if entry.gone_since == 0 { last_look } else { entry.gone_since };
        let latest: &mut u64 = logs.entry(log).or_default();
        *latest = seen.max(*latest);
    }
    logs
}

/// Whether what is remembered of a file fits what one holds.
pub(super) fn fits(entry: &Entry, file: &File, metadata: &Metadata, beginning: &Beginning) -> bool {
    // Nothing was read of it and nothing was in it: every file fits, so the inode decides.
    if entry.head.length == 0 {
        return entry.offset == 0 && entry.id == FileId::of(metadata);
    }
    if !entry.head.begins(&beginning.bytes) {
        return false;
    }
    // What stands at an offset of an archive is known only when it is read.
    beginning.is_gzip
        || (!entry.gzip
            && metadata.len() >= entry.offset
            && entry.guard.stands_before(file, entry.offset).unwrap_or(false))
}

/// Whether what a file holds so far is the beginning of what a followed one holds. `None` = that one is being
/// truncated, so it cannot be told now.
pub(super) fn begins_alike(original: &Tail, beginning: &Beginning) -> Option<bool> {
    let head = original.head();
    if beginning.bytes.len() >= head.length {
        return Some(head.begins(&beginning.bytes));
    }
    if !is_at(original.id, &original.path) {
        return Some(false);
    }
    let there = identity::open(&original.path).and_then(|file| Beginning::read(&file)).ok()?;
    head.begins(&there.bytes).then(|| there.bytes.starts_with(&beginning.bytes))
}

/// Where the last line of a file begins that has no end yet; far from any line end it is the end.
pub(super) fn last_line_start(found: &Found) -> u64 {
    let length = found.metadata.len();
    let (mut end, start) = ([0; 4096], length.saturating_sub(4096));
    let read = identity::open(&found.path).and_then(|file| identity::read_at_most(&file, &mut end, start));
    let end = end.get(..read.unwrap_or(0)).unwrap_or_default();
    memchr::memrchr(b'\n', end).map_or(length & !1, |at| start + at as u64 + 1)
}

/// Whether a file is at a path.
pub(super) fn is_at(id: FileId, path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| FileId::of(&metadata) == id)
}

/// Whether the end of a file stands at the same place in another one.
pub(super) fn holds_the_same(found: &Found, original: &Path) -> bool {
    let look = || {
        let (length, mut end) = (found.metadata.len(), [0; GUARD_BYTES]);
        let read =
            identity::read_at_most(&identity::open(&found.path)?, &mut end, length.saturating_sub(GUARD_BYTES as u64))?;
        Print::of(end.get(..read).unwrap_or_default()).stands_before(&identity::open(original)?, length)
    };
    look().unwrap_or(false)
}

/// The log that a file is a rotated part of, or the file itself.
pub(super) fn log_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str())?;
    Some(path.with_file_name(base_name(name)))
}

/// Whether rotation gives a copy of `original` this name.
pub(super) fn is_copy_name(copy: &Path, original: &Path) -> bool {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let Some((copy, original)) = name(copy).zip(name(original)) else { return false };
    copy != original && is_rotated(&copy) && base_name(&copy) == base_name(&original)
}
