//! The file of the rows that no queue on disk keeps: those of queues in memory, and what no route took.
//!
//! One line with the name of the format and the CRC-32C of the rest, then JSON. It is replaced as a
//! whole, so after a crash it is the one before or the one after.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use weir_model::Signal;

use crate::disk::{Disk, read_full};
use crate::ledger::{Key, Ledger, Reason, Settled};

/// How the first line begins.
const NAME: &str = "weir-ledger 1 crc32c ";

/// The longest file that is read: a hundred thousand rows.
const LONGEST_BYTES: u64 = 64 << 20;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk does not give it.
    #[error("cannot read {}: {source}; make it readable for the user that runs weir", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was written, or of a later version.
    #[error("{} is damaged ({what}); move it away, and its counts begin anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

/// What is settled of rows.
type Rows = Vec<(Key, Settled)>;

/// A row as it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
struct SavedRow {
    source: String,
    exporter: String,
    signal: String,
    delivered: u64,
    dead_lettered: u64,
    dropped: BTreeMap<String, u64>,
}

impl SavedRow {
    fn new((source, exporter, signal): &Key, settled: &Settled) -> Self {
        Self {
            source: source.to_string(),
            exporter: exporter.to_string(),
            signal: signal.name().to_owned(),
            delivered: settled.delivered,
            dead_lettered: settled.dead_lettered,
            dropped: settled.dropped.iter().map(|(reason, records)| (reason.name().to_owned(), *records)).collect(),
        }
    }

    fn row(self) -> Result<(Key, Settled), String> {
        let signal = Signal::ALL.into_iter().find(|signal| signal.name() == self.signal);
        let signal = signal.ok_or_else(|| format!("unknown signal {:?}", self.signal))?;
        let mut settled =
            Settled { delivered: self.delivered, dead_lettered: self.dead_lettered, ..Settled::default() };
        for (name, records) in self.dropped {
            let reason = Reason::from_name(&name).ok_or_else(|| format!("unknown reason {name:?}"))?;
            settled.dropped.insert(reason, records);
        }
        Ok(((Arc::from(self.source), Arc::from(self.exporter), signal), settled))
    }
}

fn encode(rows: &[(Key, Settled)]) -> io::Result<Vec<u8>> {
    let saved: Vec<SavedRow> = rows.iter().map(|(key, settled)| SavedRow::new(key, settled)).collect();
    let body = serde_json::to_vec_pretty(&saved)?;
    let mut bytes = format!("{NAME}{:08x}\n", crc32c::crc32c(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Rows, String> {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (first, body) = (parts.next().unwrap_or_default(), parts.next().ok_or("it ends too early")?);
    let expected = format!("{NAME}{:08x}", crc32c::crc32c(body));
    if first != expected.as_bytes() {
        return Err("its checksum is wrong".to_owned());
    }
    let saved: Vec<SavedRow> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    saved.into_iter().map(SavedRow::row).collect()
}

/// What a file says, changing nothing; a file that is not there says nothing.
///
/// # Errors
/// [`ReadError`]
pub fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<(Key, Settled)>, ReadError> {
    Ok(read_bytes(disk, path)?.0)
}

/// The rows of a file, and its bytes.
fn read_bytes(disk: &dyn Disk, path: &Path) -> Result<(Rows, Vec<u8>), ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
        file => file.map_err(failed)?,
    };
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let read = read_full(&*file, &mut buffer, bytes.len() as u64).map_err(failed)?;
        bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
        if read < buffer.len() || bytes.len() as u64 > LONGEST_BYTES {
            break;
        }
    }
    let rows = decode(&bytes).map_err(|what| ReadError::Damaged { path: path.to_owned(), what })?;
    Ok((rows, bytes))
}

/// A path with something behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Keeps the rows that no queue on disk keeps.
#[derive(Debug)]
pub struct LedgerFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// What stands in the file.
    saved: Mutex<Vec<u8>>,
    damage: Option<String>,
}

impl LedgerFile {
    /// Opens the file, and counts its rows on in the ledger. What is damaged is renamed, logged, and begun
    /// anew: it never keeps Weir from starting.
    pub fn open(disk: Arc<dyn Disk>, path: PathBuf, ledger: &Ledger) -> Self {
        let (rows, saved, damage) = match read_bytes(&*disk, &path) {
            Ok((rows, saved)) => (rows, saved, None),
            Err(error) => {
                let aside = beside(&path, ".damaged");
                let moved = match disk.rename(&path, &aside) {
                    Ok(()) => format!("{error}; it is {} now", aside.display()),
                    Err(failure) => format!("{error}; it could not be renamed: {failure}"),
                };
                tracing::error!("{moved}");
                (Vec::new(), Vec::new(), Some(moved))
            }
        };
        for ((source, exporter, signal), settled) in rows {
            ledger.row(&source, &exporter, signal).resume(&settled);
        }
        Self { disk, path, saved: Mutex::new(saved), damage }
    }

    /// What was wrong with the file when it was opened; its counts began anew.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Writes the rows down if they have changed. Whether they had.
    ///
    /// # Errors
    /// Those of the disk; the file stays as it is, and the next call tries again.
    pub fn save(&self, ledger: &Ledger) -> io::Result<bool> {
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = ledger.settled_elsewhere();
        if rows.is_empty() && saved.is_empty() {
            return Ok(false);
        }
        let bytes = encode(&rows)?;
        if bytes == *saved {
            return Ok(false);
        }
        self.replace(&bytes)?;
        *saved = bytes;
        Ok(true)
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let new = beside(&self.path, ".new");
        match self.disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.disk.create(&new)?;
        file.append(&mut [IoSlice::new(bytes)])?;
        file.sync()?;
        self.disk.rename(&new, &self.path)?;
        match self.path.parent() {
            Some(folder) => self.disk.sync_folder(folder),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::simulated::{Faults, SimulatedDisk};

    fn path() -> PathBuf {
        PathBuf::from("data/ledger.json")
    }

    fn open(disk: &SimulatedDisk) -> (LedgerFile, Ledger) {
        let ledger = Ledger::default();
        let file = LedgerFile::open(Arc::new(disk.clone()), path(), &ledger);
        (file, ledger)
    }

    fn row(ledger: &Ledger, exporter: &str) -> Arc<crate::ledger::Row> {
        ledger.row(&Arc::from("host"), &Arc::from(exporter), Signal::Metrics)
    }

    #[test]
    fn rows_go_on_after_a_restart_and_what_waited_in_memory_is_not_in_them() {
        let disk = SimulatedDisk::new(1, u64::MAX);
        let (file, ledger) = open(&disk);
        assert!(!file.save(&ledger).unwrap());
        let one = row(&ledger, "one");
        one.accept(10);
        one.take(6);
        one.deliver(3);
        one.dead_letter(2);
        row(&ledger, "-").accept_and_drop(5, Reason::NoRoute);
        assert!(file.save(&ledger).unwrap());
        assert!(!file.save(&ledger).unwrap(), "nothing has changed");
        disk.restart();
        let (file, again) = open(&disk);
        assert_eq!(file.damage(), None);
        let counts = row(&again, "one").counts();
        assert_eq!((counts.accepted, counts.delivered, counts.dead_lettered), (5, 3, 2));
        assert_eq!(counts.difference(), 0);
        assert_eq!(row(&again, "-").counts().dropped, BTreeMap::from([(Reason::NoRoute, 5)]));
        assert!(!file.save(&again).unwrap(), "nothing has changed");
        assert_eq!(read(&disk, &path()).unwrap().len(), 2);
    }

    #[test]
    fn rows_that_a_queue_keeps_are_left_out() {
        let disk = SimulatedDisk::new(1, u64::MAX);
        let (file, ledger) = open(&disk);
        for exporter in ["one", "two"] {
            row(&ledger, exporter).accept_and_drop(1, Reason::Filtered);
        }
        let saved = || {
            file.save(&ledger).unwrap();
            let rows = read(&disk, &path()).unwrap();
            rows.into_iter().map(|((_, exporter, _), _)| exporter.to_string()).collect::<Vec<_>>()
        };
        let queue = ledger.has_queue(&Arc::from("one"), false);
        assert_eq!(saved(), ["one", "two"], "its log has nothing yet");
        ledger.leave_to_queue("one", queue);
        assert_eq!(saved(), ["two"]);
        ledger.has_no_queue("one");
        ledger.leave_to_queue("one", queue);
        assert_eq!(saved(), ["one", "two"], "the log of a queue that it had before counts no more");
        let again = ledger.has_queue(&Arc::from("one"), true);
        ledger.queue_closed("one", queue);
        assert_eq!(saved(), ["two"]);
        ledger.queue_closed("one", again);
        assert_eq!(saved(), ["one", "two"], "a queue that was opened in vain keeps nothing");
    }

    #[test]
    fn after_a_crash_at_any_time_the_file_is_the_one_before_or_the_one_after() {
        let mut found = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let disk = SimulatedDisk::new(seed, u64::MAX);
            let (file, ledger) = open(&disk);
            row(&ledger, "one").accept_and_drop(1, Reason::Filtered);
            file.save(&ledger).unwrap();
            row(&ledger, "one").accept_and_drop(1, Reason::Filtered);
            disk.set_faults(Faults { sync: 0.2, full: 0.1, write: 0.1, short_read: 0.0 });
            disk.crash_after(seed % 8);
            let is_saved = file.save(&ledger).is_ok();
            disk.set_faults(Faults::default());
            disk.restart();
            let (file, again) = open(&disk);
            assert_eq!(file.damage(), None, "seed {seed}");
            let accepted = row(&again, "one").counts().accepted;
            assert!(accepted == 2 || (accepted == 1 && !is_saved), "seed {seed}: {accepted}");
            found.insert((is_saved, accepted));
        }
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed_and_a_damaged_file_is_kept_aside() {
        let disk = SimulatedDisk::new(1, u64::MAX);
        let (file, ledger) = open(&disk);
        row(&ledger, "one").accept_and_drop(7, Reason::Filtered);
        file.save(&ledger).unwrap();
        let bits = disk.content(&path()).len() * 8;
        for bit in 0..bits {
            disk.flip(&path(), bit);
            assert!(matches!(read(&disk, &path()), Err(ReadError::Damaged { .. })), "bit {bit}");
            disk.flip(&path(), bit);
        }
        disk.flip(&path(), bits / 2);
        let (file, again) = open(&disk);
        assert!(file.damage().unwrap().contains("ledger.json.damaged"), "{:?}", file.damage());
        assert!(again.snapshot().is_empty());
        row(&again, "one").accept_and_drop(1, Reason::Filtered);
        assert!(file.save(&again).unwrap());
        assert_eq!(read(&disk, &path()).unwrap().len(), 1);
        assert_eq!(disk.content(&beside(&path(), ".damaged")).len() * 8, bits);
    }
}
