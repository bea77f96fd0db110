//! The position in the journal, kept over restarts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_pipeline::Fault;

use crate::logs::blocking;

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
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
        Ok(Document { version: 1, cursor }) => (Some(cursor), None),
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

/// Writes the cursor so that a crash at any moment leaves the old or the new one.
///
/// # Errors
/// If the file cannot be written.
pub fn save(path: &Path, cursor: &str) -> io::Result<()> {
    let document = Document { version: 1, cursor: cursor.to_owned() };
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

/// Keeps the cursor.
pub struct Saver {
    path: PathBuf,
    /// The cursor, if it moved since it was written.
    cursor: Option<String>,
    /// Whether a batch was not taken: what came behind it does not count.
    gap: bool,
    /// Whether the last attempt failed: that is told once.
    failed: bool,
    name: Arc<str>,
}

impl Saver {
    /// Keeps the cursor in this file.
    pub fn new(path: PathBuf, name: Arc<str>) -> Self {
        Saver { path, cursor: None, gap: false, failed: false, name }
    }

    /// Whether the cursor moved since it was written.
    pub fn is_dirty(&self) -> bool {
        self.cursor.is_some()
    }

    /// A batch was taken: its cursor counts from now on; or, with `None`, it was not.
    pub fn settle(&mut self, handed: Option<String>) {
        match handed {
            Some(cursor) if !self.gap => self.cursor = Some(cursor),
            Some(_) => {}
            None => self.gap = true,
        }
    }

    /// Writes the cursor if it moved. If that fails, reading goes on and it is tried again.
    ///
    /// # Errors
    /// Only if the task that writes panicked.
    pub async fn save(&mut self) -> Result<(), Fault> {
        let Some(cursor) = self.cursor.take() else { return Ok(()) };
        let path = self.path.clone();
        let (cursor, saved) = blocking(move || {
            let saved = save(&path, &cursor);
            (cursor, saved)
        })
        .await?;
        let Err(error) = saved else {
            self.failed = false;
            return Ok(());
        };
        self.cursor = Some(cursor);
        if !std::mem::replace(&mut self.failed, true) {
            tracing::error!(
                "{}: cannot write the position to {}: {error}: after a restart records come twice; give the agent's user room and rights there",
                self.name,
                self.path.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journald/a.json");
        assert_eq!(load(&path), (None, None));
        save(&path, "s=1;i=2").unwrap();
        save(&path, "s=1;i=3").unwrap();
        assert_eq!(load(&path), (Some("s=1;i=3".into()), None));
        for text in ["", "{", "{\"version\":2,\"cursor\":\"x\"}", "[]"] {
            fs::write(&path, text).unwrap();
            let (cursor, problem) = load(&path);
            assert!(cursor.is_none() && problem.unwrap().contains("damaged"), "{text}");
        }
    }
}
