//! Looking for files: which are there, which is which, and which are followed from where on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::super::checkpoint::{self, Entry};
use super::super::config::From;
use super::super::glob::Found;
use super::super::identity::{self, Beginning, FileId, Print, base_name, is_rotated};
use super::super::record::Gathered;
use super::super::tail::{PASSED_OVER, Tail};
use super::compare::{fits, is_at, last_line_start, log_of};
use super::{Watch, unix_seconds};

/// How long a renamed file is kept open after its last byte: daemons write into it until they are
/// told to reopen their log.
const RENAMED_WAIT: Duration = Duration::from_secs(60);

/// The same for a deleted one.
const DELETED_WAIT: Duration = Duration::from_secs(5);

/// How far a file's time may lie before the look at its folder and still count as new: file
/// systems have coarse clocks.
pub(super) const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// In folders with more logs, siblings are looked for only where a log itself gives reason to. Of those
/// that are not there any more the latest count.
const MOST_LOGS_IN_FOLDER: usize = 64;

impl Watch {
    /// Looks at the folders.
    pub(super) fn scan(&mut self, now: Instant, gathered: &mut Gathered) {
        let scan_began = SystemTime::now();
        // Copies are told from new files by what the files of now hold.
        let rewritten = self.tails.iter_mut().filter_map(|(key, tail)| tail.is_rewritten().then_some(*key));
        for key in rewritten.collect::<Vec<u64>>() {
            self.truncated(key, now, gathered);
        }
        let mut found = self.find();
        self.forget_replaced(&found, now, gathered);
        let mut rotated = self.missing_logs(&found);
        rotated.extend(self.recognise(&mut found, now));
        rotated.extend(std::mem::take(&mut self.truncated));
        rotated.extend(self.logs_in_changed_folders());
        if !self.is_first_scan {
            // Whoever writes a log anew may have done so more than once since the last look.
            rotated.extend(found.values().map(|found| found.path.clone()));
        }
        let mut new: Vec<Found> = found.into_values().collect();
        // Older files first: their records come first.
        new.sort_by_key(|found| (found.metadata.modified().ok(), found.path.clone()));
        self.admit(new);
        // The siblings of a log are looked for once, however many of them gave reason to.
        let logs: BTreeSet<PathBuf> = rotated.iter().filter_map(|path| log_of(path)).collect();
        for log in logs {
            self.adopt_rotated(&log, self.before_last_scan(), now, gathered);
        }
        if self.is_first_scan {
            self.look_for_missing(now, gathered);
        }
        self.find_closed(now, gathered);
        self.resolve_copies(now);
        self.let_go(now, gathered);
        (self.last_scan, self.is_first_scan) = (scan_began, false);
        self.remember_found(scan_began);
    }

    /// What was found is remembered before any of it is delivered: whoever starts next takes files that are unknown and
    /// older than this look for those that it need not read.
    fn remember_found(&mut self, scan_began: SystemTime) {
        let of_now = self.tails.iter_mut().filter(|(_, tail)| tail.copy_of.is_none());
        self.moves.positions.extend(of_now.filter_map(|(key, tail)| Some((*key, tail.news()?))));
        // What a copy holds is not known before its original is truncated.
        if self.tails.values().all(|tail| tail.copy_of.is_none()) {
            let since = scan_began.duration_since(UNIX_EPOCH).unwrap_or_default();
            self.moves.looked_unix_nano = Some(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Every file that the patterns name, once, however many names and links lead to it.
    fn find(&mut self) -> HashMap<FileId, Found> {
        let (mut all, mut problems) = (Vec::new(), Vec::new());
        for pattern in &self.settings.patterns {
            pattern.find(&mut all, &mut |path, error| problems.push((path.to_owned(), io::Error::from(error.kind()))));
        }
        for (path, error) in problems {
            self.problem(&path, &error);
        }
        all.retain(|found| !self.settings.exclude.leaves_out(&found.path));
        let current: BTreeSet<&Path> = self.tails.values().map(|tail| tail.path.as_path()).collect();
        let mut files: HashMap<FileId, Found> = HashMap::new();
        for found in all {
            let id = FileId::of(&found.metadata);
            // Of several names the one under which it is known stays.
            if !files.contains_key(&id) || current.contains(found.path.as_path()) {
                files.insert(id, found);
            }
        }
        files
    }

    /// Files that were written at this time or later are news.
    pub(super) fn before_last_scan(&self) -> SystemTime {
        self.last_scan.checked_sub(CLOCK_SLACK).unwrap_or(UNIX_EPOCH)
    }

    /// The inode of a closed file may have been given to another one: what has a new name or size
    /// is looked at before it is taken for the same file.
    fn forget_replaced(&mut self, found: &HashMap<FileId, Found>, now: Instant, gathered: &mut Gathered) {
        let mut replaced = Vec::new();
        for (key, tail) in &mut self.tails {
            let Some(found) = found.get(&tail.id).filter(|_| !tail.is_open()) else { continue };
            if tail.path == found.path && tail.size == found.metadata.len() {
                continue;
            }
            // Whatever stands in it was not in the empty one: it is found as a new file.
            let is_other = tail.head().length == 0 && found.metadata.len() > 0 && tail.path != found.path;
            let looked = identity::open(&found.path).and_then(|file| {
                let beginning = Beginning::read(&file)?;
                Ok(!is_other && fits(&tail.entry(), &file, &found.metadata, &beginning))
            });
            if looked.is_ok_and(|fits| !fits) {
                replaced.push(*key);
            }
        }
        for key in replaced {
            self.forget_tail(key, now, gathered);
        }
    }

    /// Stops following a file. What was read of it becomes records, and a copy of it goes on there.
    fn forget_tail(&mut self, key: u64, now: Instant, gathered: &mut Gathered) {
        let (mut work, tails) = self.work(now, gathered);
        let Some(mut tail) = tails.remove(&key) else { return };
        tail.flush(true, &mut work);
        let mut entry = tail.entry();
        entry.gone_since = unix_seconds();
        self.remember(key, entry);
    }

    /// Paths of logs at which there has been none for a short while.
    fn missing_logs(&mut self, found: &HashMap<FileId, Found>) -> BTreeSet<PathBuf> {
        let now = unix_seconds();
        let there: BTreeSet<&PathBuf> = found.values().map(|found| &found.path).collect();
        self.logs.extend(there.iter().map(|path| ((*path).clone(), now)));
        checkpoint::forget_logs(&mut self.logs, now);
        let lately = self.logs.iter().filter(|(_, seen)| now.saturating_sub(**seen) < RENAMED_WAIT.as_secs());
        lately.map(|(path, _)| path).filter(|path| !there.contains(path)).cloned().collect()
    }

    /// Logs in whose folders something came or went: an empty log, or one that is not there, may
    /// have been written, rotated and emptied again, which only the rotated file tells.
    fn logs_in_changed_folders(&self) -> Vec<PathBuf> {
        let mut folders: BTreeMap<&Path, Vec<(u64, &PathBuf)>> = BTreeMap::new();
        for (log, seen) in &self.logs {
            folders.entry(log.parent().unwrap_or(log)).or_default().push((*seen, log));
        }
        let is_changed = |folder: &Path| {
            folder.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|at| at >= self.before_last_scan())
        };
        folders.retain(|folder, _| is_changed(folder));
        let lately = folders.into_values().flat_map(|mut logs| {
            logs.sort_unstable_by(|a, b| b.cmp(a));
            let last = logs.first().map_or(0, |(seen, _)| *seen);
            let there = logs.iter().filter(|(seen, _)| *seen == last).count();
            logs.truncate(if there > MOST_LOGS_IN_FOLDER { 0 } else { MOST_LOGS_IN_FOLDER });
            logs
        });
        lately.map(|(_, log)| log.clone()).collect()
    }

    /// Takes the files that are known out of what was found. Gives the paths that known files left.
    fn recognise(&mut self, found: &mut HashMap<FileId, Found>, now: Instant) -> BTreeSet<PathBuf> {
        let mut left = BTreeSet::new();
        for tail in self.tails.values_mut() {
            match found.remove(&tail.id) {
                Some(found) => {
                    tail.is_listed = true;
                    tail.size = found.metadata.len();
                    if tail.path != found.path {
                        left.insert(tail.path.clone());
                        tail.renamed(found.path);
                    }
                }
                None if tail.is_listed => {
                    tail.is_listed = false;
                    tail.unlisted_since = now;
                    left.insert(tail.path.clone());
                }
                None => {}
            }
        }
        left
    }

    /// Begins to follow new files. Those that the last run knew by inode are recognised before
    /// those that are known by what they hold.
    fn admit(&mut self, new: Vec<Found>) {
        let mut rest = Vec::new();
        for found in new {
            let Some((file, beginning)) = self.look_into(&found.path) else { continue };
            match self.same_in_past(&found, &file, &beginning) {
                Some(key) => self.resume(key, found, &beginning),
                None => rest.push((found, beginning)),
            }
        }
        for (found, beginning) in rest {
            self.admit_unknown(found, &beginning, None);
        }
    }

    /// The file of the past that this one is, by its inode and by what it holds.
    fn same_in_past(&self, found: &Found, file: &File, beginning: &Beginning) -> Option<u64> {
        let id = FileId::of(&found.metadata);
        let mut known = self.past.iter().filter(|(_, entry)| entry.id == id && entry.head.length > 0);
        known.find(|(_, entry)| fits(entry, file, &found.metadata, beginning)).map(|(key, _)| *key)
    }

    /// The file of the past that was empty and has the inode of this one. As long as it was there
    /// it may be this one, if nothing else tells what this one is.
    fn empty_in_past(&self, id: FileId) -> Option<u64> {
        let mut empty = self.past.iter().filter(|(_, entry)| entry.head.length == 0 && entry.offset == 0);
        empty.find(|(_, entry)| entry.id == id && entry.gone_since == 0).map(|(key, _)| *key)
    }

    pub(super) fn look_into(&mut self, path: &Path) -> Option<(File, Beginning)> {
        let look = identity::open(path).and_then(|file| Beginning::read(&file).map(|beginning| (file, beginning)));
        match look {
            Ok(looked) => {
                self.told.remove(path);
                Some(looked)
            }
            Err(error) => {
                self.problem(path, &error);
                None
            }
        }
    }

    /// A file that no inode tells: a copy of a known one, or a new one. `only_since` = new ones
    /// count only if they were written since then.
    pub(super) fn admit_unknown(&mut self, found: Found, beginning: &Beginning, only_since: Option<SystemTime>) {
        if let Some(key) = self.original_in_past(&found, beginning) {
            self.resume(key, found, beginning);
            return;
        }
        let id = FileId::of(&found.metadata);
        if let Some(original) = self.living_original(&found, beginning) {
            self.wait_as_copy(found, beginning, original);
            return;
        }
        if let Some(key) = self.empty_in_past(id) {
            self.resume(key, found, beginning);
            return;
        }
        if let Some(original) = self.original_being_copied(&found, beginning) {
            self.wait_as_copy(found, beginning, original);
            return;
        }
        if only_since.is_some_and(|since| !found.metadata.modified().is_ok_and(|modified| modified >= since)) {
            return;
        }
        let offset = self.first_offset(&found, beginning);
        let key = self.new_key();
        let mut tail = Tail::new(found.path, id, beginning, offset, Print::default(), &self.settings);
        tail.size = found.metadata.len();
        self.tails.insert(key, tail);
    }

    /// Goes on with a file that is known from before; at its end if it holds less than was read.
    pub(super) fn resume(&mut self, key: u64, found: Found, beginning: &Beginning) {
        let Some(Entry { mut offset, mut guard, .. }) = self.past.remove(&key) else { return };
        let (id, size) = (FileId::of(&found.metadata), found.metadata.len());
        if !beginning.is_gzip && size < offset {
            (offset, guard) = (size, Print::default());
        }
        let mut tail = Tail::new(found.path, id, beginning, offset, guard, &self.settings);
        tail.size = size;
        self.tails.insert(key, tail);
    }

    /// Where reading begins in a file that is seen for the first time.
    fn first_offset(&self, found: &Found, beginning: &Beginning) -> u64 {
        let modified = found.metadata.modified().unwrap_or(UNIX_EPOCH);
        let knows_the_past = self.last_scan > UNIX_EPOCH;
        if !self.is_first_scan || (knows_the_past && modified >= self.before_last_scan()) {
            return 0;
        }
        let ignore = self.settings.ignore_older;
        let is_old = !ignore.is_zero() && SystemTime::now().duration_since(modified).is_ok_and(|age| age > ignore);
        if self.settings.from == From::Beginning && !is_old {
            return 0;
        }
        if beginning.is_gzip { PASSED_OVER } else { last_line_start(found) }
    }

    /// Files that the last run read and that no pattern names now: they were rotated away while
    /// nobody looked, and so may others have been.
    fn look_for_missing(&mut self, now: Instant, gathered: &mut Gathered) {
        let missing: Vec<(u64, PathBuf)> = self
            .past
            .iter()
            .filter(|(_, entry)| entry.gone_since == 0)
            .map(|(key, entry)| (*key, PathBuf::from(&entry.path)))
            .collect();
        for (key, path) in missing {
            self.adopt_rotated(&path, self.before_last_scan(), now, gathered);
            let Some(mut entry) = self.past.remove(&key) else { continue };
            tracing::info!("logs: {path:?} is gone; what it still held could not be read");
            entry.gone_since = unix_seconds();
            self.remember(key, entry);
        }
    }

    /// Files that are closed and that no pattern names have no handle that goes with them when they
    /// are renamed: they are looked for.
    fn find_closed(&mut self, now: Instant, gathered: &mut Gathered) {
        let astray = |tail: &Tail| !tail.is_listed && !tail.is_open() && !is_at(tail.id, &tail.path);
        let paths: BTreeSet<PathBuf> = self.tails.values().filter(|t| astray(t)).map(|t| t.path.clone()).collect();
        for path in paths {
            self.adopt_rotated(&path, SystemTime::now(), now, gathered);
        }
    }

    /// Files beside a log that rotation made of it. Links are passed over: they name what is looked
    /// at anyway.
    fn siblings(&self, log: &Path) -> HashMap<FileId, Found> {
        let name = log.file_name().and_then(|name| name.to_str());
        let Some((entries, name)) = log.parent().and_then(|folder| folder.read_dir().ok()).zip(name) else {
            return HashMap::new();
        };
        let base = base_name(name);
        let is_sibling = |name: &str| is_rotated(name) && base_name(name) == base;
        let found = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_sibling));
        let found = found.filter_map(|entry| Some(Found { path: entry.path(), metadata: entry.metadata().ok()? }));
        let found = found.filter(|found| found.metadata.is_file() && !self.settings.exclude.leaves_out(&found.path));
        found.map(|found| (FileId::of(&found.metadata), found)).collect()
    }

    /// Follows the rotated siblings of a log that no pattern names: those that are known, and
    /// those that were written since a time.
    fn adopt_rotated(&mut self, log: &Path, since: SystemTime, now: Instant, gathered: &mut Gathered) {
        let mut found = self.siblings(log);
        self.forget_replaced(&found, now, gathered);
        for tail in self.tails.values_mut() {
            let Some(found) = found.remove(&tail.id).filter(|_| !tail.is_listed) else { continue };
            tail.size = found.metadata.len();
            if tail.path != found.path {
                tail.renamed(found.path);
            }
        }
        let mut siblings: Vec<Found> = found.into_values().collect();
        siblings.sort_by_key(|found| found.metadata.modified().ok());
        for found in siblings {
            let Some((file, beginning)) = self.look_into(&found.path) else { continue };
            let path = found.path.clone();
            match self.same_in_past(&found, &file, &beginning) {
                Some(key) => self.resume(key, found, &beginning),
                None => self.admit_unknown(found, &beginning, Some(since)),
            }
            for tail in self.tails.values_mut().filter(|tail| tail.path == path) {
                (tail.is_listed, tail.unlisted_since) = (false, Instant::now());
            }
        }
    }

    /// Lets go of files that no pattern names and that have brought nothing for a while.
    fn let_go(&mut self, now: Instant, gathered: &mut Gathered) {
        let over: Vec<u64> = self
            .tails
            .iter()
            .filter(|(_, tail)| !tail.is_listed && tail.copy_of.is_none())
            .filter(|(_, tail)| {
                let quiet = now.saturating_duration_since(tail.last_growth.max(tail.unlisted_since));
                match (tail.is_open(), tail.is_at_end()) {
                    (true, true) => quiet >= if tail.is_deleted() { DELETED_WAIT } else { RENAMED_WAIT },
                    (true, false) => false,
                    // A closed one is found again by its name, if it still has one.
                    (false, at_end) => !is_at(tail.id, &tail.path) || (at_end && quiet >= RENAMED_WAIT),
                }
            })
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            if let Some(tail) = self.tails.get(&key).filter(|tail| !tail.is_at_end() && !tail.is_gzip()) {
                let (path, bytes) = (tail.path.display(), tail.unread_bytes());
                tracing::warn!(
                    "logs: {path} was deleted while it was closed: {bytes} bytes of it are lost; raise `max_open_files`"
                );
            }
            self.forget_tail(key, now, gathered);
        }
        checkpoint::forget(&mut self.past, unix_seconds());
    }
}
