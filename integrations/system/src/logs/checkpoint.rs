//! Positions in files, kept over restarts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::identity::{FileId, Print};

/// What is known about a file, and how far its records are delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its last path.
    pub path: String,
    /// Where the file system keeps it.
    #[serde(flatten)]
    pub id: FileId,
    /// Whether it is compressed; its offset counts decompressed bytes then.
    #[serde(default)]
    pub gzip: bool,
    /// Its beginning.
    pub head: Print,
    /// Up to where it is done with: always between two records.
    pub offset: u64,
    /// The bytes before the offset.
    pub guard: Print,
    /// Since when it is gone, unix seconds: a copy of it may still turn up. 0 = it is there.
    #[serde(default)]
    pub gone_since: u64,
}

#[cfg(test)]
impl Entry {
    /// Lets time pass.
    pub fn age(&mut self, by: std::time::Duration) {
        self.gone_since = self.gone_since.saturating_sub(by.as_secs());
    }
}

/// How long files that are gone are remembered: a copy that is compressed a rotation later (weekly
/// at most) is known then.
const REMEMBERED_SECONDS: u64 = 8 * 86_400;

/// How many files that are gone are remembered.
const MOST_GONE: usize = 4_096;

/// Positions by the number of the file in this process.
pub type Positions = BTreeMap<u64, Entry>;

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    saved_unix_nano: u64,
    files: Vec<Entry>,
}

/// What the last run left.
#[derive(Debug, Default)]
pub struct Left {
    /// Its positions.
    pub files: Vec<Entry>,
    /// When it wrote them, unix nanoseconds; 0 = there was none, or its file is damaged.
    pub saved_unix_nano: u64,
    /// What is wrong with its file.
    pub problem: Option<String>,
}

/// Reads the positions. A damaged file is set aside: it never stops the start.
pub fn load(path: &Path) -> Left {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Left::default(),
        Err(error) => {
            let problem =
                format!("cannot read {}: {error}: files are read as if seen for the first time", path.display());
            return Left { problem: Some(problem), ..Left::default() };
        }
    };
    match serde_json::from_slice::<Document>(&text) {
        Ok(document) if document.version == 1 => {
            Left { files: document.files, saved_unix_nano: document.saved_unix_nano, problem: None }
        }
        damaged => {
            let why = damaged.err().map_or_else(|| "it is of another version".to_owned(), |error| error.to_string());
            let aside = path.with_extension("damaged");
            let kept = match fs::rename(path, &aside) {
                Ok(()) => format!("it is kept as {}", aside.display()),
                Err(error) => format!("it cannot be set aside: {error}"),
            };
            let problem = format!(
                "{} is damaged ({why}); {kept}. Files are read as if seen for the first time: records may come twice",
                path.display()
            );
            Left { problem: Some(problem), ..Left::default() }
        }
    }
}

/// Writes the positions so that a crash at any moment leaves the old or the new ones.
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: &Path, positions: &Positions, now_unix_nano: u64) -> io::Result<()> {
    let document =
        Document { version: 1, saved_unix_nano: now_unix_nano, files: positions.values().cloned().collect() };
    let text = serde_json::to_vec(&document).map_err(io::Error::other)?;
    let folder = path.parent().ok_or_else(|| io::Error::other("it has no folder"))?;
    fs::create_dir_all(folder)?;
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

/// Forgets files that are gone for long, and the oldest of too many.
pub fn forget(positions: &mut Positions, now_seconds: u64) {
    positions
        .retain(|_, entry| entry.gone_since == 0 || now_seconds.saturating_sub(entry.gone_since) < REMEMBERED_SECONDS);
    let mut gone: Vec<(u64, u64)> =
        positions.iter().filter(|(_, e)| e.gone_since > 0).map(|(key, e)| (e.gone_since, *key)).collect();
    gone.sort_unstable();
    let surplus = gone.len().saturating_sub(MOST_GONE);
    for (_, key) in gone.iter().take(surplus) {
        positions.remove(key);
    }
}

/// Forgets paths of logs at which there has been none for long (unix seconds), and the oldest of too
/// many.
pub fn forget_logs(logs: &mut BTreeMap<PathBuf, u64>, now_seconds: u64) {
    logs.retain(|_, seen| now_seconds.saturating_sub(*seen) < REMEMBERED_SECONDS);
    if logs.len() <= MOST_GONE {
        return;
    }
    let mut missing: Vec<(u64, PathBuf)> =
        logs.iter().filter(|(_, seen)| **seen < now_seconds).map(|(path, seen)| (*seen, path.clone())).collect();
    missing.sort_unstable();
    let surplus = missing.len().saturating_sub(MOST_GONE);
    for (_, path) in missing.iter().take(surplus) {
        logs.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, gone_since: u64) -> Entry {
        Entry {
            path: path.into(),
            id: FileId { device: 1, inode: 2 },
            gzip: false,
            head: Print::of(b"head"),
            offset: 7,
            guard: Print::of(b"guard"),
            gone_since,
        }
    }

    #[test]
    fn positions_are_read_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/a.json");
        let positions = Positions::from([(3, entry("/a", 0)), (4, entry("/b", 9))]);
        save(&path, &positions, 42).unwrap();
        let left = load(&path);
        assert_eq!((left.saved_unix_nano, left.problem), (42, None));
        assert_eq!(left.files, [entry("/a", 0), entry("/b", 9)]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("head\":\"head") && !text.contains("guard\":\"guard"), "contents of logs in {text}");
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_named_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert_eq!(load(&path).problem, None);
        for text in ["", "{", "null", "{\"version\":2,\"saved_unix_nano\":0,\"files\":[]}", "\u{fffd}", "[1]"] {
            fs::write(&path, text).unwrap();
            let left = load(&path);
            assert!(left.problem.unwrap().contains("damaged") && left.files.is_empty());
            assert!(!path.try_exists().unwrap());
        }
    }

    #[test]
    fn files_that_are_gone_are_forgotten_after_a_while_and_when_they_are_too_many() {
        let mut positions = Positions::new();
        for key in 0..5_000 {
            positions.insert(key, entry("/gone", 1_000_000 + key));
        }
        positions.insert(9_999, entry("/there", 0));
        forget(&mut positions, 1_010_000);
        assert_eq!(positions.len(), MOST_GONE + 1);
        assert!(!positions.contains_key(&0) && positions.contains_key(&4_999));
        forget(&mut positions, 3_000_000);
        assert_eq!(positions.keys().collect::<Vec<_>>(), [&9_999]);
    }
}
