//! Dead letters: records that a backend refused for good, kept with the reason until a person replays
//! or drops them.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use weir_model::Payload;

/// Records that an exporter's backend refused for good.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Where they came from.
    pub source: Arc<str>,
    /// The exporter.
    pub exporter: Arc<str>,
    /// The records; where the backend did not say which of them it refused, all that travelled together.
    pub payload: Payload,
    /// How many of them were refused.
    pub refused: u64,
    /// Why, in one line.
    pub reason: String,
    /// The HTTP status of the answer.
    pub status: Option<u16>,
    /// The beginning of the answer, at most 1 KiB.
    pub answer: Option<String>,
}

/// The dead letters of a process.
#[derive(Debug, Default)]
pub struct DeadLetters(Mutex<Vec<Letter>>);

impl DeadLetters {
    /// Keeps letters; when it returns they survive a crash.
    ///
    /// # Errors
    /// Those of the disk: then nothing of them is kept, and their records must stay where they are.
    pub async fn keep(&self, letters: Vec<Letter>) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(letters);
        Ok(())
    }
}
