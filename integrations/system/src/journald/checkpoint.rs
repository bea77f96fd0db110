//! The position in the journal, kept over restarts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_pipeline::Fault;

use super::{nanoseconds, unix_now};
use crate::logs::progress::{self, Keeper};

/// A checkpoint. Notes that go on from it are cursors.
#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    #[serde(default)]
    saved_unix_nano: u64,
    cursor: String,
}

/// Reads the cursor of the last entry that was delivered, and what is wrong with its file.
pub fn load(path: &Path) -> (Option<String>, Option<String>) {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (None, None),
        Err(error) => {
            let problem = format!("cannot read {}: {error}: the journal is read as for the first time", path.display());
            return (None, Some(problem));
        }
    };
    match serde_json::from_slice::<Document>(&text) {
        Ok(Document { version: 1, saved_unix_nano, cursor }) => match progress::notes(path, saved_unix_nano) {
            Ok(mut noted) => (noted.pop().or(Some(cursor)), None),
            Err(error) => {
                let problem =
                    format!("cannot read the notes beside {}: {error}: records may come twice", path.display());
                (Some(cursor), Some(problem))
            }
        },
        damaged => {
            let why = damaged.err().map_or_else(|| "it is of another version".to_owned(), |error| error.to_string());
            let problem = format!(
                "{} is damaged ({why}): the journal is read as for the first time, and records may come twice",
                path.display()
            );
            (None, Some(problem))
        }
    }
}

/// Keeps the cursor.
#[derive(Debug)]
pub struct Saver {
    keeper: Keeper,
    cursor: Option<String>,
    /// When the last checkpoint was written: the next one is later, whatever the clock says.
    saved_unix_nano: u64,
    /// Whether the cursor moved since then.
    dirty: bool,
}

impl Saver {
    /// Keeps the cursor in this file, beginning with the one that the last run left.
    pub fn new(path: PathBuf, cursor: Option<String>, name: Arc<str>) -> Self {
        Saver { keeper: Keeper::new(path, name), dirty: cursor.is_some(), cursor, saved_unix_nano: 0 }
    }

    /// Whether there is something to save.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// A batch that ends with this entry was taken, and all before it: the cursor counts from now on, and is noted.
    ///
    /// # Errors
    /// Only if the task that writes panicked.
    pub async fn settle(&mut self, cursor: String) -> Result<(), Fault> {
        self.dirty = true;
        self.cursor = Some(cursor.clone());
        self.keeper.note(vec![cursor]).await
    }

    /// Writes the cursor if it moved. If that fails, reading goes on and it is tried again.
    ///
    /// # Errors
    /// Only if the task that writes panicked.
    pub async fn save(&mut self) -> Result<(), Fault> {
        let Some(cursor) = self.cursor.clone().filter(|_| self.dirty) else { return Ok(()) };
        self.saved_unix_nano = nanoseconds(unix_now()).max(self.saved_unix_nano.saturating_add(1));
        let document = Document { version: 1, saved_unix_nano: self.saved_unix_nano, cursor };
        self.dirty = !self.keeper.save(self.saved_unix_nano, document).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saver(path: &Path, cursor: Option<&str>) -> Saver {
        Saver::new(path.to_owned(), cursor.map(str::to_owned), Arc::from("journald"))
    }

    #[tokio::test]
    async fn what_was_taken_is_known_after_a_kill_without_another_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journald/a.json");
        assert_eq!(load(&path), (None, None));
        let mut first = saver(&path, None);
        first.save().await.unwrap();
        assert_eq!(load(&path), (None, None));
        first.settle("s=1;i=2".into()).await.unwrap();
        first.save().await.unwrap();
        assert_eq!(load(&path), (Some("s=1;i=2".into()), None));
        first.settle("s=1;i=3".into()).await.unwrap();
        first.settle("s=1;i=4".into()).await.unwrap();
        drop(first);
        assert_eq!(load(&path), (Some("s=1;i=4".into()), None));
        let mut second = saver(&path, Some("s=1;i=4"));
        second.save().await.unwrap();
        assert!(!second.is_dirty());
        second.settle("s=1;i=5".into()).await.unwrap();
        assert_eq!(load(&path), (Some("s=1;i=5".into()), None));
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        for text in ["", "{", "{\"version\":2,\"cursor\":\"x\"}", "[]"] {
            fs::write(&path, text).unwrap();
            let (cursor, problem) = load(&path);
            assert!(cursor.is_none() && problem.unwrap().contains("damaged"), "{text}");
        }
    }
}
