//! Reads, hands in, and keeps the cursor, until the stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use weir_pipeline::health::Board;
use weir_pipeline::{Fault, Intake, Stop};

use super::batch::Making;
use super::checkpoint::Saver;
use super::child::Follower;
use super::export::Decoder;
use super::start::{Start, Started, Starting};
use super::{Counts, nanoseconds, unix_now};
use crate::logs::window::Window;

/// Batches that are under way at once. Several are needed where an answer means delivery.
const WINDOW: usize = 8;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// How often the cursor is written while it moves.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long it is waited before a child that ended is started again.
pub const SHORTEST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// A child that has run for so long works, whether there were entries or not.
const PROVEN: Duration = Duration::from_secs(5);

/// A running instance.
pub struct Run {
    /// How reading begins.
    pub start: Start,
    /// The cursor of what is delivered.
    pub saver: Saver,
    /// What was read.
    pub batch: Making,
    /// What was handed in, with the cursors of its last entries.
    pub window: Window<String>,
    /// Where metrics go.
    pub intake: Intake,
    /// What was counted.
    pub counts: Counts,
    /// Where health is told.
    pub board: Arc<Board>,
    /// The instance.
    pub name: Arc<str>,
    /// The entry that was read last, whether it is delivered or not.
    pub cursor: Option<String>,
    /// When and how long after a failure the child is started again.
    pub next_start: Instant,
    /// The next delay.
    pub delay: Duration,
}

/// A child that is being read.
struct Reading {
    follower: Follower,
    decoder: Decoder,
    known: Option<String>,
    proven: bool,
    since: Instant,
}

impl Reading {
    fn new(started: Started, most_value_bytes: usize) -> Self {
        let Started { follower, known } = started;
        Reading { follower, decoder: Decoder::new(most_value_bytes), known, proven: false, since: Instant::now() }
    }
}

/// Why a child is of no use any more.
enum End {
    /// It ended.
    OfOutput,
    /// This happened.
    Because(String),
}

impl Run {
    /// Reads until the stop.
    ///
    /// # Errors
    /// Only if the task that writes the cursor panicked.
    pub async fn until(mut self, stop: Stop, report_interval: Duration) -> Result<(), Fault> {
        let mut starting: Option<Starting> = Some(self.start.begin(self.cursor.clone()));
        let mut reading: Option<Reading> = None;
        let mut next_save = Instant::now() + SAVE_INTERVAL;
        let mut next_report = Instant::now() + report_interval;
        let mut chunk = vec![0_u8; CHUNK_BYTES];
        self.saver.save().await?;
        loop {
            let may_hand_in = self.window.len() < WINDOW && !self.window.is_full();
            let may_read = may_hand_in && !self.batch.is_full();
            let is_idle = starting.is_none() && reading.is_none();
            let proof = reading.as_ref().filter(|reading| !reading.proven).map(|reading| reading.since + PROVEN);
            tokio::select! {
                biased;
                () = stop.wait() => break,
                // Noted before more is handed in: a kill repeats what is in the window, at most.
                Some(taken) = self.window.next() => self.settle(taken).await?,
                () = at(self.batch.due()), if may_hand_in => {
                    if let Some(batch) = self.batch.take() {
                        self.window.push(batch.logs, batch.cursor);
                    }
                }
                read = read(&mut reading, &mut chunk), if may_read => {
                    let piece = read.map(|length| chunk.get(..length).unwrap_or_default());
                    if let Some(child) = &mut reading
                        && let Err(end) = self.take(child, piece)
                        && let Some(child) = reading.take()
                    {
                        self.ended(child, end).await;
                    }
                }
                (cursor, started) = begun(&mut starting) => {
                    starting = None;
                    self.began(cursor).await?;
                    match started {
                        Ok(started) => reading = Some(Reading::new(started, self.batch.settings.max_field_bytes)),
                        Err(fault) => self.fails(&fault.message),
                    }
                }
                () = tokio::time::sleep_until(self.next_start), if is_idle => {
                    starting = Some(self.start.begin(self.cursor.clone()));
                }
                () = at(proof) => {
                    if let Some(child) = &mut reading {
                        self.works(child);
                    }
                }
                () = tokio::time::sleep_until(next_save), if self.saver.is_dirty() => {
                    next_save = Instant::now() + SAVE_INTERVAL;
                    self.saver.save().await?;
                }
                () = tokio::time::sleep_until(next_report) => {
                    next_report = Instant::now() + report_interval;
                    self.intake.push(self.counts.report());
                }
            }
        }
        if let Some(reading) = reading {
            reading.follower.stop().await;
        }
        // What was read and not handed in is read again after the next start.
        self.finish().await
    }

    /// A start found where to begin.
    async fn began(&mut self, cursor: Option<String>) -> Result<(), Fault> {
        if self.cursor.is_none()
            && let Some(cursor) = cursor
        {
            // With `from: end`: a restart goes on here, even if nothing comes until then.
            self.cursor = Some(cursor.clone());
            self.saver.settle(cursor).await?;
            self.saver.save().await?;
        }
        Ok(())
    }

    /// Batches were taken: the last one's cursor counts.
    async fn settle(&mut self, mut taken: Vec<String>) -> Result<(), Fault> {
        match taken.pop() {
            Some(cursor) => self.saver.settle(cursor).await,
            None => Ok(()),
        }
    }

    /// What was read becomes records.
    fn take(&mut self, child: &mut Reading, piece: std::io::Result<&[u8]>) -> Result<(), End> {
        let mut entries = Vec::new();
        let decoded = match piece {
            Ok([]) => return Err(End::OfOutput),
            Ok(piece) => child.decoder.feed(piece, &mut entries).map_err(|error| End::Because(error.to_string())),
            Err(error) => Err(End::Because(format!("the output of journalctl cannot be read: {error}"))),
        };
        let now = nanoseconds(unix_now());
        for entry in &entries {
            // Reading begins with the entry that was read last.
            let cursor = entry.cursor();
            if child.known.take().is_some_and(|known| cursor == Some(&known)) {
                continue;
            }
            self.counts.entries += 1;
            self.counts.cut += u64::from(entry.cut_bytes > 0);
            self.batch.add(entry, now);
            self.cursor = cursor.map(str::to_owned).or(self.cursor.take());
        }
        if !entries.is_empty() && !child.proven {
            self.works(child);
        }
        decoded
    }

    /// The child is of no use any more.
    async fn ended(&mut self, child: Reading, end: End) {
        self.counts.restarts += 1;
        if child.proven {
            self.delay = SHORTEST_DELAY;
        }
        let reason = match end {
            End::OfOutput => child.follower.end().await,
            End::Because(reason) => {
                child.follower.stop().await;
                reason
            }
        };
        self.fails(&reason);
    }

    fn fails(&mut self, reason: &str) {
        self.board.unhealthy(&self.name, &format!("{reason}; it is tried again in {} s", self.delay.as_secs()));
        self.next_start = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }

    fn works(&mut self, child: &mut Reading) {
        child.proven = true;
        // For example that the records of others are not to be seen.
        let complaint = child.follower.complaint();
        if !complaint.is_empty() {
            tracing::warn!("{}: journalctl says: {complaint}", self.name);
        }
        self.board.healthy(&self.name);
    }

    /// Waits for the answers to what was handed in, and keeps the last cursor.
    async fn finish(mut self) -> Result<(), Fault> {
        self.window.close();
        while let Some(taken) = self.window.next().await {
            self.settle(taken).await?;
        }
        self.saver.save().await
    }
}

/// Waits for a moment; for ever without one.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Reads from the child; for ever pending without one.
async fn read(reading: &mut Option<Reading>, chunk: &mut [u8]) -> std::io::Result<usize> {
    match reading {
        Some(reading) => reading.follower.read(chunk).await,
        None => std::future::pending().await,
    }
}

/// The result of a start that is under way; for ever pending without one.
async fn begun(starting: &mut Option<Starting>) -> (Option<String>, Result<Started, Fault>) {
    match starting {
        Some(starting) => starting.await,
        None => std::future::pending().await,
    }
}
