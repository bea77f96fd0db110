//! All files of one instance: which there are, which of them are new, renamed, copied or gone, and
//! whose turn it is. Everything here blocks on files; it runs beside the asynchronous workers.

mod compare;
mod copies;
mod scan;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use weir_model::build::metric;
use weir_model::{Payload, Records};
use weir_pipeline::MetricDescription;
use weir_pipeline::MetricKind::{Counter, UpDownCounter};

use super::checkpoint::{Entry, Left, Moves};
use super::config::Settings;
use super::identity::{self, FileId};
use super::parse::time::Clock;
use super::record::Gathered;
use super::rules::Rules;
use super::tail::{CHUNK_BYTES, Counts, Tail, Turned, Work};

/// How often folders are looked at for files that come, go and change their names.
const RESCAN: Duration = Duration::from_secs(1);

pub(super) const FILES: MetricDescription<'static> =
    metric("log.source.files", "{file}", UpDownCounter, "Files that are followed, by whether they are kept open.");
pub(super) const UNREAD: MetricDescription<'static> =
    metric("log.source.unread", "By", UpDownCounter, "Bytes in followed files that are not read yet.");
pub(super) const CUT: MetricDescription<'static> =
    metric("log.source.cut_records", "{record}", Counter, "Records that were longer than the limit and were cut.");
pub(super) const UNREADABLE: MetricDescription<'static> = metric(
    "log.source.unreadable_records",
    "{record}",
    Counter,
    "Records that are not in the configured format; they are sent as they are.",
);

/// What one round brought.
#[derive(Debug, Default)]
pub struct Batch {
    /// Log records.
    pub logs: Option<Payload>,
    /// What the rules have counted, when a report is due.
    pub metrics: Option<Payload>,
    /// What is to be remembered once the records are delivered.
    pub moves: Moves,
    /// Whether there is more to read at once.
    pub more: bool,
}

/// All files of one instance.
pub struct Watch {
    settings: Settings,
    rules: Rules,
    clock: Clock,
    tails: BTreeMap<u64, Tail>,
    /// Files that are gone or were truncated: what is left of them may turn up as a copy.
    past: BTreeMap<u64, Entry>,
    next_key: u64,
    /// Whose turn is next.
    turn: u64,
    next_scan: Instant,
    /// When folders were last looked at; before the first time, when the last run ended.
    last_scan: SystemTime,
    is_first_scan: bool,
    /// Problems that have been told, by path.
    told: BTreeMap<PathBuf, String>,
    scratch: Vec<u8>,
    counts: Counts,
    report_interval: Duration,
    next_report: Instant,
    moves: Moves,
    /// Logs that were truncated since the last look: there may be copies of them.
    truncated: Vec<PathBuf>,
    /// Paths at which there are logs, or were, and when last, unix seconds: rotation takes them away
    /// for a while.
    logs: BTreeMap<PathBuf, u64>,
}

impl Watch {
    /// Nothing is looked at yet. Gives also what the last run left, by the keys that it has here.
    pub fn new(
        settings: Settings,
        mut rules: Rules,
        left: Left,
        report_interval: Duration,
    ) -> (Self, BTreeMap<u64, Entry>) {
        let now_unix_nano = now_unix_nano();
        rules.starts(now_unix_nano);
        let past: BTreeMap<u64, Entry> = (1..).zip(left.files).collect();
        let last_seconds = left.looked_unix_nano / 1_000_000_000;
        let watch = Watch {
            clock: Clock { zone: settings.zone.clone(), now_unix_nano },
            settings,
            rules,
            tails: BTreeMap::new(),
            next_key: past.len() as u64 + 1,
            past: past.clone(),
            turn: 0,
            next_scan: Instant::now(),
            last_scan: UNIX_EPOCH + Duration::from_nanos(left.looked_unix_nano),
            is_first_scan: true,
            told: BTreeMap::new(),
            scratch: vec![0; CHUNK_BYTES],
            counts: Counts::default(),
            report_interval,
            next_report: Instant::now() + report_interval,
            moves: Moves::default(),
            truncated: Vec::new(),
            logs: compare::logs_of(past.values(), last_seconds),
        };
        (watch, past)
    }

    /// One round: looks for files if it is time, and gives every file its turn until the batch is full.
    pub fn step(&mut self) -> Batch {
        let now = Instant::now();
        self.clock.now_unix_nano = now_unix_nano();
        let mut gathered = Gathered::new("logs", &self.settings.resource);
        if now >= self.next_scan {
            self.next_scan = now + RESCAN;
            self.scan(now, &mut gathered);
        }
        let more = self.turns(now, &mut gathered);
        let metrics = (now >= self.next_report).then(|| {
            self.next_report = now + self.report_interval;
            self.report()
        });
        Batch { logs: gathered.finish(), metrics, moves: std::mem::take(&mut self.moves), more }
    }

    /// Looks at the folders in the next round.
    #[cfg(test)]
    pub fn look_now(&mut self) {
        self.next_scan = Instant::now();
    }

    /// Lets time pass: everything that happened lies further back.
    #[cfg(test)]
    pub fn age(&mut self, by: Duration) {
        self.last_scan -= by;
        self.logs.values_mut().for_each(|seen| *seen -= by.as_secs());
        self.past.values_mut().for_each(|entry| entry.age(by));
        self.tails.values_mut().for_each(|tail| tail.age(by));
    }

    fn report(&mut self) -> Payload {
        let open = self.open_files() as u64;
        let closed = self.tails.len() as u64 - open;
        let unread: u64 = self.tails.values().map(Tail::unread_bytes).fold(0, u64::saturating_add);
        let counts = &self.counts;
        let metrics = self.rules.report(self.clock.now_unix_nano, |out| {
            out.record(&FILES, &[("state", "open")], open);
            out.record(&FILES, &[("state", "closed")], closed);
            out.record(&UNREAD, &[], unread);
            out.record(&CUT, &[], counts.cut);
            out.record(&UNREADABLE, &[], counts.unreadable);
        });
        Payload::from_records(Records::Metrics(metrics))
    }

    /// Gives files their turns, beginning behind the one that had the last; whether there is more.
    fn turns(&mut self, now: Instant, gathered: &mut Gathered) -> bool {
        let keys: Vec<u64> = self.tails.range(self.turn..).chain(self.tails.range(..self.turn)).map(|t| *t.0).collect();
        let mut more = false;
        // Quiet files are kept open too while there is room: then they can be read even if they
        // are deleted.
        let mut room = self.settings.max_open_files.saturating_sub(self.open_files());
        for key in keys {
            if let Some(tail) = self.tails.get(&key).filter(|_| room > 0)
                && !tail.is_open()
                && tail.is_listed
                && tail.is_at_end()
                && tail.copy_of.is_none()
                && !tail.is_gzip()
            {
                room -= 1;
                self.open(key, now, gathered);
            }
            if self.work(now, gathered).0.is_full() {
                self.turn = key;
                return true;
            }
            more |= self.turn_of(key, now, gathered);
        }
        more
    }

    /// The turn of one file; whether it has more.
    fn turn_of(&mut self, key: u64, now: Instant, gathered: &mut Gathered) -> bool {
        let Some(tail) = self.tails.get(&key).filter(|tail| tail.copy_of.is_none()) else { return false };
        if !tail.is_open() && !tail.is_at_end() && !self.open(key, now, gathered) {
            return false;
        }
        let (mut work, tails) = self.work(now, gathered);
        let Some(tail) = tails.get_mut(&key) else { return false };
        let more = match tail.turn(&mut work) {
            Ok(Turned::AtEnd) => false,
            Ok(Turned::More) => true,
            Ok(Turned::Truncated) => {
                self.truncated(key, now, gathered);
                true
            }
            Err(error) => {
                let path = tail.path.clone();
                tail.close();
                self.problem(&path, &error);
                false
            }
        };
        if let Some(entry) = self.tails.get_mut(&key).and_then(Tail::news) {
            self.moves.positions.push((key, entry));
        }
        more
    }

    /// What files need for their turns, and the files.
    fn work<'a>(&'a mut self, now: Instant, gathered: &'a mut Gathered) -> (Work<'a>, &'a mut BTreeMap<u64, Tail>) {
        let work = Work {
            settings: &self.settings,
            gathered,
            rules: &mut self.rules,
            clock: &self.clock,
            now,
            scratch: &mut self.scratch,
            counts: &mut self.counts,
        };
        (work, &mut self.tails)
    }

    /// A file holds something else than before. What was read of it is remembered: a copy of it
    /// may hold more.
    fn truncated(&mut self, key: u64, now: Instant, gathered: &mut Gathered) {
        let (mut work, tails) = self.work(now, gathered);
        let Some(tail) = tails.get_mut(&key) else { return };
        let mut entry = tail.restart(&mut work);
        let path = tail.path.clone();
        tracing::debug!("logs: {} was truncated or written anew: it is read from its beginning", tail.path.display());
        entry.gone_since = unix_seconds();
        self.truncated.push(path);
        // The copy may soon be gone.
        self.next_scan = now;
        if entry.head.length > 0 {
            let past_key = self.new_key();
            self.remember(past_key, entry);
        }
    }

    fn remember(&mut self, key: u64, entry: Entry) {
        self.moves.positions.push((key, entry.clone()));
        self.past.insert(key, entry);
    }

    fn new_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key - 1
    }

    fn open_files(&self) -> usize {
        self.tails.values().filter(|tail| tail.is_open()).count()
    }

    /// Opens a file for its turn, closing another one if there are too many.
    fn open(&mut self, key: u64, now: Instant, gathered: &mut Gathered) -> bool {
        let Some(path) = self.tails.get(&key).map(|tail| tail.path.clone()) else { return false };
        let file = match identity::open(&path) {
            Ok(file) => file,
            Err(error) => {
                self.problem(&path, &error);
                return false;
            }
        };
        self.told.remove(&path);
        self.make_room(key);
        let Some(tail) = self.tails.get_mut(&key) else { return false };
        // Renamed since the folder was looked at: the next look finds where it is.
        if !file.metadata().is_ok_and(|metadata| FileId::of(&metadata) == tail.id) {
            return false;
        }
        match tail.open(file) {
            Ok(Turned::Truncated) => {
                self.truncated(key, now, gathered);
                false
            }
            Ok(_) => true,
            Err(error) => {
                self.problem(&path, &error);
                false
            }
        }
    }

    /// Closes the file that was quiet for longest; those that can be opened again come first.
    fn make_room(&mut self, for_key: u64) {
        if self.open_files() < self.settings.max_open_files {
            return;
        }
        let open = self.tails.iter_mut().filter(|(key, tail)| tail.is_open() && **key != for_key);
        let victim = open.min_by_key(|(_, tail)| (!tail.is_listed, !tail.is_at_end(), tail.last_growth));
        if let Some((_, tail)) = victim {
            tail.close();
        }
    }

    /// Tells a problem with a path once, until it is gone.
    fn problem(&mut self, path: &Path, error: &io::Error) {
        // Files vanish between looking and opening, and patterns name folders that are not there yet.
        if error.kind() != io::ErrorKind::NotFound && !self.told.contains_key(path) {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    ": give the agent's user the right to read it, for example by the group `adm`"
                }
                _ => "",
            };
            let problem = format!("cannot read {}: {error}{remedy}", path.display());
            tracing::warn!("logs: {problem}; the other files are read");
            self.told.insert(path.to_owned(), problem);
        }
    }

    /// What cannot be read now, for people; `None` if everything can.
    pub fn problems(&self) -> Option<String> {
        let first = self.told.values().next()?;
        Some(match self.told.len() - 1 {
            0 => first.clone(),
            more => format!("{first}; and {more} more files"),
        })
    }
}

fn now_unix_nano() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
