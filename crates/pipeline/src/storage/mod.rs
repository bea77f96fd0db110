//! What outlives the process: the queues on disk, the dead letters, the ledger of the rest.
//!
//! ```text
//! DATA/lock                      held while a process runs on the folder
//! DATA/queues/EXPORTER/*.queue   one queue per exporter
//! DATA/dead-letters.redb         what backends refused for good
//! DATA/ledger.json               rows whose records no queue on disk keeps
//! ```

mod open;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weir_config::{QueueKind, Settings, SyncPolicy};

use crate::disk::RealDisk;
use crate::ledger::{self, Counts, Key, Settled};
use crate::queue::{self, QueueStatus, Survey};

pub use open::Storage;

/// The file of the rows that no queue keeps.
const LEDGER_FILE: &str = "ledger.json";

/// What the configuration says about what outlives the process.
#[derive(Clone, Debug, PartialEq)]
pub struct StoragePlan {
    /// The data folder.
    pub folder: PathBuf,
    /// Whether it is opened even if no queue lies in it, for the ledger and the command line.
    pub is_wanted: bool,
    /// Where records wait for exporters that do not say it themselves.
    pub queue: QueueKind,
    /// When records count as being on the disk, for exporters that do not say it themselves.
    pub sync: SyncPolicy,
    /// Bytes of all queues together.
    pub disk_bytes: u64,
    /// Bytes of the file system that stay free.
    pub reserve_bytes: Option<u64>,
    /// Encrypts what waits.
    pub key_file: Option<PathBuf>,
    /// Bytes of all dead letters.
    pub dead_letters_bytes: u64,
    /// How long they are kept.
    pub dead_letters_age: std::time::Duration,
}

impl StoragePlan {
    /// As the settings have it.
    pub fn new(folder: &Path, settings: &Settings) -> Self {
        let (limits, delivery) = (&settings.limits, &settings.delivery);
        Self {
            folder: folder.to_owned(),
            is_wanted: false,
            queue: delivery.queue,
            sync: delivery.sync,
            disk_bytes: limits.disk.bytes(),
            reserve_bytes: limits.disk_reserve.map(|bytes| bytes.bytes()),
            key_file: delivery.key_file.clone(),
            dead_letters_bytes: limits.dead_letters.bytes(),
            dead_letters_age: limits.dead_letters_age.get(),
        }
    }

    /// Whether any of these exporters needs it.
    pub fn is_needed(&self, mut queues: impl Iterator<Item = Option<QueueKind>>) -> bool {
        self.is_wanted || queues.any(|queue| self.is_on_disk(queue))
    }

    /// Whether the queue of an exporter that says so, or nothing, is on disk.
    pub fn is_on_disk(&self, queue: Option<QueueKind>) -> bool {
        queue.unwrap_or(self.queue) == QueueKind::Disk
    }

    /// The settings that are others in another plan.
    pub fn differs(&self, other: &Self) -> Vec<&'static str> {
        let settings = [
            ("agent.data", self.folder != other.folder),
            ("delivery.queue", self.queue != other.queue),
            ("delivery.sync", self.sync != other.sync),
            ("delivery.key_file", self.key_file != other.key_file),
            ("limits.disk", self.disk_bytes != other.disk_bytes),
            ("limits.disk_reserve", self.reserve_bytes != other.reserve_bytes),
            ("limits.dead_letters", self.dead_letters_bytes != other.dead_letters_bytes),
            ("limits.dead_letters_age", self.dead_letters_age != other.dead_letters_age),
        ];
        settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// Where the queue of an exporter lies.
    pub fn queue_folder(&self, exporter: &str) -> PathBuf {
        queues(&self.folder).join(folder_name(exporter))
    }
}

/// A queue on disk that no exporter has: what was found in it, or left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The exporter that had it.
    pub exporter: Arc<str>,
    /// Records that wait.
    pub records: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// When the oldest of them was queued.
    pub oldest: Option<SystemTime>,
}

impl Kept {
    /// One that was just closed.
    pub fn new(exporter: Arc<str>, status: &QueueStatus) -> Self {
        let oldest = status.oldest.and_then(|age| SystemTime::now().checked_sub(age));
        Self { exporter, records: status.records, bytes: status.bytes as u64, oldest }
    }

    /// One that stands in its folder.
    fn found(exporter: Arc<str>, survey: &Survey) -> Self {
        let oldest_ms = survey.oldest_ms().and_then(|ms| u64::try_from(ms).ok());
        Self {
            exporter,
            records: survey.waiting().iter().map(|found| found.records).sum(),
            bytes: survey.segments.iter().map(|segment| segment.file_bytes).sum(),
            oldest: oldest_ms.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms)),
        }
    }
}

/// The folder of all queues in a data folder.
pub fn queues(data: &Path) -> PathBuf {
    data.join("queues")
}

/// The exporters that have a queue in a data folder, and where it lies.
///
/// # Errors
/// Those of the disk; a folder that is not there is an empty one.
pub fn queues_in(data: &Path) -> std::io::Result<Vec<(Arc<str>, PathBuf)>> {
    let entries = match std::fs::read_dir(queues(data)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(exporter_name);
        if let (Some(name), true) = (name, entry.file_type()?.is_dir()) {
            found.push((Arc::from(name), entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The ledger of a data folder on which no process runs.
///
/// # Errors
/// One line with what cannot be read.
pub fn ledger(data: &Path) -> Result<Vec<(Key, Counts)>, String> {
    let file = data.join(LEDGER_FILE);
    let rows = ledger::read(&RealDisk, &file).map_err(|error| error.to_string())?;
    let mut rows: BTreeMap<Key, Settled> = rows.into_iter().collect();
    let folders = queues_in(data).map_err(|error| format!("{}: {error}", data.display()))?;
    let mut all: Vec<(Key, Counts)> = Vec::new();
    for (exporter, folder) in folders {
        let logged = queue::ledger_rows(&RealDisk, &folder, &exporter).map_err(|error| error.to_string())?;
        for (key, counts) in logged {
            let counts = match rows.remove(&key) {
                // The queue was moved to memory, or from there.
                Some(settled) => ledger::joined(settled, counts),
                None => counts,
            };
            all.push((key, counts));
        }
    }
    all.extend(rows.into_iter().map(|(key, settled)| (key, settled.counts())));
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all)
}

/// A name, such as an exporter's, as that of a folder: what could mean something to a file system is `%` and
/// two hexadecimal digits (RFC 3986 §2.1).
pub fn folder_name(exporter: &str) -> String {
    let mut name = String::with_capacity(exporter.len());
    for byte in exporter.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02X}")),
        }
    }
    name
}

/// The exporter of a folder; `None` for folders of others.
fn exporter_name(folder: &str) -> Option<String> {
    let name = percent_encoding::percent_decode_str(folder).decode_utf8().ok()?.into_owned();
    (folder_name(&name) == folder).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_an_exporter_is_the_name_of_a_folder_and_back() {
        for name in ["otlp", "otlp/backup", "..", "a b%2F", "zürich/é"] {
            let folder = folder_name(name);
            assert!(!folder.contains(['/', '.']), "{folder}");
            assert_eq!(exporter_name(&folder).as_deref(), Some(name));
        }
        assert_eq!(exporter_name("lost+found"), None);
    }
}
