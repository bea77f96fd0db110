//! How far a source has come, kept over restarts: a checkpoint, which is synchronised with the disk every so
//! often, and notes of all that was taken since, which are only written.
//!
//! What a process has written is not lost when it is killed. So after a kill only what was not taken yet comes
//! again; after a power failure, everything since the last checkpoint.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use weir_pipeline::Fault;

use super::blocking;

/// Most bytes of notes between two checkpoints: no more are taken where checkpoints cannot be written.
const MOST_NOTED_BYTES: usize = 16 << 20;

/// A line of the notes.
#[derive(Serialize, Deserialize)]
struct Note<N> {
    /// The checkpoint that it goes on from.
    since: u64,
    now: N,
}

/// Keeps the progress of an instance.
#[derive(Debug)]
pub(crate) struct Keeper {
    place: Arc<Mutex<Place>>,
    path: PathBuf,
    /// Whether the last checkpoint failed: that is told once.
    failed: bool,
    name: Arc<str>,
}

impl Keeper {
    /// A keeper for the instance `name`. There are no notes before its first checkpoint.
    pub(crate) fn new(path: PathBuf, name: Arc<str>) -> Self {
        let place = Place { checkpoint: path.clone(), id: 0, notes: None, noted_bytes: 0 };
        Keeper { place: Arc::new(Mutex::new(place)), path, failed: false, name }
    }

    /// Notes what has changed since the last checkpoint. If that fails, it is in the next one.
    ///
    /// # Errors
    /// Only if the task that writes panicked.
    pub(crate) async fn note<N: Serialize + Send + 'static>(&self, news: Vec<N>) -> Result<(), Fault> {
        let place = self.place.clone();
        let noted = blocking(move || place.lock().unwrap_or_else(PoisonError::into_inner).note(&news)).await?;
        if let Err(error) = noted {
            tracing::debug!("{}: cannot write notes beside {}: {error}", self.name, self.path.display());
        }
        Ok(())
    }

    /// Writes a checkpoint, whose `id` no other one has, so that a crash at any moment leaves the old or the new
    /// one; whether that succeeded.
    ///
    /// # Errors
    /// Only if the task that writes panicked.
    pub(crate) async fn save<C: Serialize + Send + 'static>(&mut self, id: u64, checkpoint: C) -> Result<bool, Fault> {
        let place = self.place.clone();
        let saved = move || {
            let text = serde_json::to_vec(&checkpoint).map_err(io::Error::other)?;
            place.lock().unwrap_or_else(PoisonError::into_inner).save(id, &text)
        };
        let Err(error) = blocking(saved).await? else {
            self.failed = false;
            return Ok(true);
        };
        if !std::mem::replace(&mut self.failed, true) {
            tracing::error!(
                "{}: cannot write the position to {}: {error}: after a restart records come twice; give the agent's user room and rights there",
                self.name,
                self.path.display()
            );
        }
        Ok(false)
    }
}

/// The notes that go on from the checkpoint with this id, in order. A torn one, and what is behind it, never was.
///
/// # Errors
/// If they cannot be read.
pub(crate) fn notes<N: DeserializeOwned>(checkpoint: &Path, id: u64) -> io::Result<Vec<N>> {
    let text = match fs::read(notes_path(checkpoint)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let whole = text.split_inclusive(|byte| *byte == b'\n').map_while(|line| line.strip_suffix(b"\n"));
    let notes = whole.map_while(|line| serde_json::from_slice::<Note<N>>(line).ok());
    Ok(notes.filter(|note| note.since == id).map(|note| note.now).collect())
}

fn notes_path(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("notes")
}

/// The files.
#[derive(Debug)]
struct Place {
    checkpoint: PathBuf,
    /// The id of the checkpoint.
    id: u64,
    notes: Option<File>,
    noted_bytes: usize,
}

impl Place {
    fn save(&mut self, id: u64, text: &[u8]) -> io::Result<()> {
        let folder = self.checkpoint.parent().ok_or_else(|| io::Error::other("it has no folder"))?;
        fs::create_dir_all(folder)?;
        let fresh = self.checkpoint.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.checkpoint)?;
        // They go on from the one that is gone.
        self.notes = None;
        File::open(folder)?.sync_all()?;
        self.notes = Some(File::create(notes_path(&self.checkpoint))?);
        (self.id, self.noted_bytes) = (id, 0);
        Ok(())
    }

    fn note<N: Serialize>(&mut self, news: &[N]) -> io::Result<()> {
        let Some(file) = &mut self.notes else { return Ok(()) };
        let mut text = Vec::new();
        for now in news {
            serde_json::to_writer(&mut text, &Note { since: self.id, now })?;
            text.push(b'\n');
        }
        self.noted_bytes += text.len();
        let written = file.write_all(&text);
        if written.is_err() || self.noted_bytes > MOST_NOTED_BYTES {
            // What would come behind a torn one would not be read.
            self.notes = None;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(folder: &Path) -> Place {
        Place { checkpoint: folder.join("logs/a.json"), id: 0, notes: None, noted_bytes: 0 }
    }

    fn read(place: &Place, id: u64) -> Vec<String> {
        notes(&place.checkpoint, id).unwrap()
    }

    #[test]
    fn notes_are_read_back_until_the_next_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut place = place(folder.path());
        place.note(&["before any checkpoint"]).unwrap();
        assert_eq!(read(&place, 0), [""; 0]);
        place.save(7, b"{}").unwrap();
        place.note(&["a", "b"]).unwrap();
        place.note(&["c"]).unwrap();
        assert_eq!(read(&place, 7), ["a", "b", "c"]);
        assert_eq!(read(&place, 8), [""; 0], "notes of another checkpoint");
        place.save(8, b"{}").unwrap();
        assert_eq!(read(&place, 7), [""; 0]);
        place.note(&["d"]).unwrap();
        assert_eq!(read(&place, 8), ["d"]);
    }

    #[test]
    fn notes_end_before_the_first_one_that_is_torn_wherever_that_is() {
        let folder = tempfile::tempdir().unwrap();
        let mut place = place(folder.path());
        place.save(7, b"{}").unwrap();
        place.note(&["first", "second", "third"]).unwrap();
        let path = notes_path(&place.checkpoint);
        let whole = fs::read(&path).unwrap();
        let ends: Vec<usize> = (1..=whole.len()).filter(|end| whole[end - 1] == b'\n').collect();
        for length in 0..=whole.len() {
            let known = ends.iter().filter(|end| **end <= length).count();
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(&place, 7).len(), known, "{length} of {} bytes", whole.len());
            // What a file system gives for blocks that it never wrote.
            let holes = vec![0; whole.len() - length];
            fs::write(&path, [&whole[..length], &holes].concat()).unwrap();
            assert_eq!(read(&place, 7).len(), known, "{length} of {} bytes and a hole", whole.len());
        }
    }

    #[test]
    fn notes_that_cannot_be_written_wait_for_the_next_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut place = place(folder.path());
        place.save(7, b"{}").unwrap();
        place.note(&["a"]).unwrap();
        place.notes = Some(File::open(notes_path(&place.checkpoint)).unwrap());
        place.note(&["read only"]).unwrap_err();
        place.note(&["nobody would read it"]).unwrap();
        assert_eq!(read(&place, 7), ["a"]);
        place.save(8, b"{}").unwrap();
        place.note(&["b"]).unwrap();
        assert_eq!(read(&place, 8), ["b"]);
    }

    #[test]
    fn notes_take_no_more_than_their_room_where_no_checkpoint_follows() {
        let folder = tempfile::tempdir().unwrap();
        let mut place = place(folder.path());
        place.save(7, b"{}").unwrap();
        let much = "x".repeat(1 << 20);
        for _ in 0..40 {
            place.note(&[&much]).unwrap();
        }
        let length = fs::metadata(notes_path(&place.checkpoint)).unwrap().len();
        assert!(length <= (MOST_NOTED_BYTES + much.len() + 100) as u64, "{length}");
    }
}
