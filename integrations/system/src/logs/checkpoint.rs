//! Positions in files, kept over restarts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use weir_pipeline::Fault;

use super::identity::{FileId, Print};
use super::progress::{self, Keeper};

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

/// A checkpoint. Notes that go on from it are [`Kept`].
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    saved_unix_nano: u64,
    /// By then everything that was there was known.
    looked_unix_nano: Option<u64>,
    files: Vec<Kept>,
}

/// A position.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// The number of the file in the process that wrote this.
    #[serde(default)]
    key: u64,
    #[serde(flatten)]
    entry: Entry,
}

impl Document {
    fn new(positions: &Positions, saved_unix_nano: u64, looked_unix_nano: u64) -> Self {
        let files = positions.iter().map(|(key, entry)| Kept { key: *key, entry: entry.clone() }).collect();
        Document { version: 1, saved_unix_nano, looked_unix_nano: Some(looked_unix_nano), files }
    }
}

/// What the last run left.
#[derive(Debug, Default)]
pub struct Left {
    /// Its positions.
    pub files: Vec<Entry>,
    /// When it looked at folders last, and remembers all that it found, unix nanoseconds; 0 = never, or its file is damaged.
    pub looked_unix_nano: u64,
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
        Ok(document) if document.version == 1 => with_notes(path, document),
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

/// What a checkpoint says, and what was noted since.
fn with_notes(path: &Path, document: Document) -> Left {
    let Document { saved_unix_nano, looked_unix_nano, mut files, .. } = document;
    let (notes, problem) = match progress::notes::<Kept>(path, saved_unix_nano) {
        Ok(notes) => (notes, None),
        Err(error) => {
            let problem = format!("cannot read the notes beside {}: {error}: records may come twice", path.display());
            (Vec::new(), Some(problem))
        }
    };
    // The last one of a file counts.
    let noted: Positions = notes.into_iter().map(|kept| (kept.key, kept.entry)).collect();
    files.retain(|kept| !noted.contains_key(&kept.key));
    files.extend(noted.into_iter().map(|(key, entry)| Kept { key, entry }));
    files.sort_by_key(|kept| kept.key);
    let files = files.into_iter().map(|kept| kept.entry).collect();
    Left { files, looked_unix_nano: looked_unix_nano.unwrap_or(saved_unix_nano), problem }
}

/// What a batch moves once it is taken.
#[derive(Debug, Default)]
pub struct Moves {
    /// Positions.
    pub positions: Vec<(u64, Entry)>,
    /// When folders were looked at, if they were, and everything found is among the positions; unix nanoseconds.
    pub looked_unix_nano: Option<u64>,
}

impl Moves {
    /// Whether nothing is to be remembered.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.looked_unix_nano.is_none()
    }
}

/// Keeps positions.
#[derive(Debug)]
pub struct Saver {
    keeper: Keeper,
    positions: Positions,
    /// When the last checkpoint was written: the next one is later, whatever the clock says.
    saved_unix_nano: u64,
    looked_unix_nano: u64,
    /// Whether positions moved since then.
    dirty: bool,
}

impl Saver {
    /// Keeps positions in this file. They are to be saved at once: their numbers are those of this process.
    pub fn new(path: PathBuf, positions: Positions, looked_unix_nano: u64, name: Arc<str>) -> Self {
        Saver { keeper: Keeper::new(path, name), positions, saved_unix_nano: 0, looked_unix_nano, dirty: true }
    }

    /// Whether there is something to save.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Batches were taken, in this order: what they move counts from now on, and is noted.
    ///
    /// # Errors
    /// Only if the task that writes panicked.
    pub async fn settle(&mut self, taken: impl IntoIterator<Item = Moves>) -> Result<(), Fault> {
        let mut moved = Positions::new();
        for moves in taken {
            moved.extend(moves.positions);
            self.looked_unix_nano = moves.looked_unix_nano.unwrap_or(self.looked_unix_nano);
        }
        if moved.is_empty() {
            return Ok(());
        }
        self.dirty = true;
        let notes = moved.iter().map(|(key, entry)| Kept { key: *key, entry: entry.clone() }).collect();
        self.positions.append(&mut moved);
        self.keeper.note(notes).await
    }

    /// Writes the positions if they moved. If that fails, reading goes on and it is tried again.
    ///
    /// # Errors
    /// Only if the task that writes panicked.
    pub async fn save(&mut self) -> Result<(), Fault> {
        if !self.dirty {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        forget(&mut self.positions, now.as_secs());
        let now_unix_nano = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.saved_unix_nano = now_unix_nano.max(self.saved_unix_nano.saturating_add(1));
        let document = Document::new(&self.positions, self.saved_unix_nano, self.looked_unix_nano);
        self.dirty = !self.keeper.save(self.saved_unix_nano, document).await?;
        Ok(())
    }
}

/// Writes a checkpoint beside all asynchronous workers.
#[cfg(test)]
pub fn write(path: &Path, positions: &Positions, looked_unix_nano: u64) {
    fs::write(path, serde_json::to_vec(&Document::new(positions, looked_unix_nano, looked_unix_nano)).unwrap())
        .unwrap();
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

    fn saver(path: &Path, positions: Positions) -> Saver {
        Saver::new(path.to_owned(), positions, 42, Arc::from("logs"))
    }

    #[tokio::test]
    async fn positions_are_read_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/a.json");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let positions = Positions::from([(3, entry("/a", 0)), (4, entry("/b", now))]);
        saver(&path, positions).save().await.unwrap();
        let left = load(&path);
        assert_eq!((left.looked_unix_nano, left.problem), (42, None));
        assert_eq!(left.files, [entry("/a", 0), entry("/b", now)]);
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("head\":\"head") && !text.contains("guard\":\"guard"), "contents of logs in {text}");
    }

    #[tokio::test]
    async fn what_was_taken_is_known_after_a_kill_without_another_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let mut saver = saver(&path, Positions::from([(3, entry("/a", 0)), (4, entry("/b", 0))]));
        saver.save().await.unwrap();
        let moves = |key, offset| {
            let entry = Entry { offset, ..entry(&format!("/{key}"), 0) };
            Moves { positions: vec![(key, entry)], looked_unix_nano: Some(offset) }
        };
        for offset in [8, 9] {
            saver.settle([moves(4, offset), moves(9, offset * 10)]).await.unwrap();
        }
        // It is killed here.
        drop(saver);
        let left = load(&path);
        let found: Vec<(&str, u64)> = left.files.iter().map(|entry| (entry.path.as_str(), entry.offset)).collect();
        assert_eq!(found, [("/a", 7), ("/4", 9), ("/9", 90)]);
        assert_eq!(left.looked_unix_nano, 42, "an earlier one does no harm, a later one might");
    }

    #[tokio::test]
    async fn the_next_process_numbers_files_anew_and_passes_over_notes_of_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let mut first = saver(&path, Positions::from([(1, entry("/a", 0))]));
        first.save().await.unwrap();
        let moves = Moves { positions: vec![(5, entry("/b", 0))], looked_unix_nano: None };
        first.settle([moves]).await.unwrap();
        let notes = fs::read(path.with_extension("notes")).unwrap();
        let left = load(&path);
        let mut second = saver(&path, (1..).zip(left.files).collect());
        second.save().await.unwrap();
        // The machine fails before it is known that they are gone.
        fs::write(path.with_extension("notes"), notes).unwrap();
        assert_eq!(load(&path).files, [entry("/a", 0), entry("/b", 0)]);
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
