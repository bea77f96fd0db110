//! `logs`: reads log files as they grow, through every kind of rotation, and turns their lines
//! into log records and, by rules, into metrics.
//!
//! - [`config`]: the configuration and its check
//! - [`glob`], [`identity`], [`checkpoint`]: which files there are, which is which, and how far each is delivered
//! - [`watch`], [`tail`], [`archive`]: all files, one file, a compressed one
//! - [`window`]: batches on their way into the pipeline
//! - [`encoding`], [`assemble`], [`multiline`]: from bytes to records
//! - [`parse`], [`record`], [`rules`]: what a record says, as a log record and as metrics
//!
//! It runs like a receiver: what a tail hands in must be taken, or the tail waits. A position moves
//! only after the intake answered, and over the contiguous prefix of what it answered.
//!
//! The file system is polled. Notifications (inotify) would save little, since quiet files cost
//! one system call a second, and they do not exist on network file systems and overlays.

mod archive;
mod assemble;
mod checkpoint;
pub(crate) mod config;
pub(crate) mod encoding;
mod glob;
mod identity;
mod multiline;
pub(crate) mod parse;
pub(crate) mod record;
mod rules;
mod tail;
mod watch;
mod window;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_model::{Payload, Signal};
use weir_pipeline::health::Board;
use weir_pipeline::{About, Answer, Context, Fault, FaultKind, Intake, Kind, Mount, Receive, Stop};

use checkpoint::{Entry, Left, Positions};
use config::{LogsConfig, Settings};
use rules::Rules;
use watch::{Batch, Watch};
use window::Window;

const DETAILS: &str = r"
Reads files that match `paths`, from the beginning, and follows them as they grow. Files that appear
later are found within a second.

**Rotation.** A renamed file is read to its end; a truncated one (`copytruncate`) is read anew, and its
copy from where the original was read to; a deleted one is read to its end while Weir has it open.
Rotated siblings (`app.log.1`, `app.log-20260102`, `app.log.2.gz`) need not match `paths`: they are
looked for when a log was rotated, also while Weir was not running. Files compressed with gzip are
decompressed. A file is recognised by device, inode, its first 1000 bytes and the bytes before its
position, so neither a reused inode nor a file with the same beginning is mistaken for it. With
`copytruncate`, what is written between the copy and the truncation is lost by the program that
rotates; no reader can help that.

**Delivery.** Positions move only after records are as durable as `delivery.acknowledge` says; they are
kept in `logs/INSTANCE.json` of the data folder. While exporters cannot keep up the files wait. After a clean stop
nothing comes twice; after a crash at most what was under way and the last 0.2 s.

**First run.** Files are read from their beginning, except those that were last written more than
`ignore_older` ago (1 day); of those only what is added counts. `from: end` reads only what is added.

**Records.** Body is the message, or the line where the format has no message (`nginx`, `apache`). Time
and level are taken from the line; times without a zone are local. Attributes: `log.file.name`,
`log.file.path`, and what the format holds; `log.record.cut_bytes` where a record was longer than
`max_line_size`, `log.record.invalid_text` where it is no text (its body is bytes then), `_parse_error` where
it is not in the format (its body is the line then). Empty lines are left out.

**Metrics.** `patterns` count records and read numbers from them:

```yaml
patterns:
  - {name: slow_query, regex: 'duration: (?<ms>[0-9.]+) ms', value: ms, unit: ms}
```

Built-in rules count warnings and errors (`severity`), `http_5xx`, `out_of_memory`, `segfault`, `io_error`
and `stack_trace`; `builtin_patterns: false` switches them off.

**Limits.** Patterns run on an engine of linear time, which has no look-around. A file that is rotated
away, deleted and closed because of `max_open_files` is lost. Names that are not UTF-8 are not matched.

**Troubleshooting.** `cannot read ...: Permission denied`: logs below `/var/log` mostly belong to group `adm`;
add the agent's user to it.
";

const ABOUT: About = About {
    name: "logs",
    summary: "Log files: tailing through every rotation, 11 formats, multi-line records, metrics from patterns",
    details: DETAILS,
    sample: "logs:\n  paths: [/var/log/nginx/*.log]\n  format: nginx\n",
    metrics: &[rules::EVENTS, rules::VALUE, watch::FILES, watch::UNREAD, watch::CUT, watch::UNREADABLE],
    signals: &[Signal::Logs, Signal::Metrics],
};

/// The kind `logs`. It collects, although it runs like a receiver: nobody sends it anything.
pub const KIND: Kind = Kind::receive::<Logs>(ABOUT).that_collects();

/// Batches that are under way at once. Several are needed where an answer means delivery.
const WINDOW: usize = 8;

/// Pauses between rounds that found nothing: they grow while nothing happens.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often positions are written while they move.
const SAVE_INTERVAL: Duration = Duration::from_millis(200);

/// The integration `logs`.
pub struct Logs {
    settings: Settings,
    rules: Rules,
    report_interval: Duration,
    name: Arc<str>,
    board: Arc<Board>,
}

impl Receive for Logs {
    type Config = LogsConfig;

    fn new(config: LogsConfig, context: &Context) -> Result<Self, Fault> {
        let (settings, rules) = config::checked(config, context)?;
        let (name, board) = (context.name.clone(), context.telemetry.health.clone());
        Ok(Logs { settings, rules, report_interval: context.interval, name, board })
    }

    fn mounts(&self, _intake: &Intake) -> Vec<Mount> {
        Vec::new()
    }

    async fn run(self, intake: Intake, stop: Stop) -> Result<(), Fault> {
        let Logs { settings, rules, report_interval, name, board } = self;
        let path = settings.checkpoint.clone();
        let opened = blocking(move || {
            let Left { files, saved_unix_nano, problem } = checkpoint::load(&settings.checkpoint);
            let (problem, left) = (problem, Left { files, saved_unix_nano, problem: None });
            (Watch::new(settings, rules, left, report_interval), problem)
        });
        let ((watch, positions), problem) = opened.await?;
        if let Some(problem) = problem {
            tracing::warn!("{name}: {problem}");
        }
        let saver = Saver { path, positions, dirty: true, failed: false, name: name.clone() };
        let window = Window::new(intake.clone(), name.clone());
        Run { watch: Some(watch), saver, intake, window, name, board, problems: None }.until(stop).await
    }
}

/// Work that blocks, beside the asynchronous workers.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| {
        Fault::new(FaultKind::Other, format!("reading files ended unexpectedly: {error}; please report it"))
    })
}

/// A running instance.
struct Run {
    watch: Option<Watch>,
    saver: Saver,
    intake: Intake,
    window: Window<Vec<(u64, Entry)>>,
    name: Arc<str>,
    board: Arc<Board>,
    /// What could not be read at the last look.
    problems: Option<String>,
}

impl Run {
    /// A file that cannot be read shows in the health, until it can.
    fn tell(&mut self, problems: Option<String>) {
        if self.problems == problems {
            return;
        }
        match &problems {
            Some(problems) => self.board.unhealthy(&self.name, problems),
            None => self.board.healthy(&self.name),
        }
        self.problems = problems;
    }

    async fn until(mut self, stop: Stop) -> Result<(), Fault> {
        let (mut next_round, mut pause) = (Instant::now(), SHORTEST_PAUSE);
        let mut next_save = Instant::now() + SAVE_INTERVAL;
        let mut reading: Option<JoinHandle<(Watch, Batch)>> = None;
        loop {
            let may_read = reading.is_none() && self.window.len() < WINDOW && !self.window.is_full();
            if may_read
                && Instant::now() >= next_round
                && let Some(mut watch) = self.watch.take()
            {
                reading = Some(tokio::task::spawn_blocking(move || {
                    let batch = watch.step();
                    (watch, batch)
                }));
            }
            tokio::select! {
                biased;
                () = stop.wait() => break,
                Some(positions) = self.window.next() => self.saver.settle(positions),
                read = joined(&mut reading) => {
                    reading = None;
                    let (watch, mut batch) = read?;
                    self.tell(watch.problems());
                    self.watch = Some(watch);
                    if let Some(metrics) = batch.metrics.take() {
                        self.intake.push(metrics);
                    }
                    let found_something = batch.more || batch.logs.is_some();
                    pause = if found_something { SHORTEST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                    next_round = Instant::now() + if batch.more { Duration::ZERO } else { pause };
                    if batch.logs.is_some() || !batch.positions.is_empty() {
                        self.window.push(batch.logs, batch.positions);
                    }
                }
                () = tokio::time::sleep_until(next_round), if may_read && reading.is_none() => {}
                () = tokio::time::sleep_until(next_save), if self.saver.dirty => {
                    next_save = Instant::now() + SAVE_INTERVAL;
                    self.saver.save().await?;
                }
            }
        }
        // What is being read now is not handed in: it is read again after the next start.
        if let Some(reading) = reading {
            drop(reading.await);
        }
        self.finish().await
    }

    /// Waits for the answers to what was handed in, and keeps the last positions.
    async fn finish(mut self) -> Result<(), Fault> {
        self.saver.save().await?;
        self.window.close();
        while let Some(positions) = self.window.next().await {
            self.saver.settle(positions);
            self.saver.save().await?;
        }
        self.saver.save().await
    }
}

/// The result of a round that is under way; for ever pending without one.
async fn joined(reading: &mut Option<JoinHandle<(Watch, Batch)>>) -> Result<(Watch, Batch), Fault> {
    match reading {
        Some(reading) => reading.await.map_err(|error| {
            Fault::new(FaultKind::Other, format!("reading log files ended unexpectedly: {error}; please report it"))
        }),
        None => std::future::pending().await,
    }
}

/// Offers a batch again and again until it is taken; whether it was before the stop. Meanwhile `full`
/// counts it.
pub(crate) async fn taken(intake: &Intake, stop: &Stop, full: &AtomicUsize, name: &str, logs: Payload) -> bool {
    loop {
        let after = match intake.offer(logs.clone()).await {
            Answer::Stored => return true,
            Answer::Refused { records, why } => {
                // They are counted in the ledger; reading goes on.
                tracing::warn!("{name}: {records} records are refused: {why}");
                return true;
            }
            Answer::Later { after, .. } => after,
        };
        full.fetch_add(1, Ordering::AcqRel);
        let stopped = tokio::select! {
            () = stop.wait() => true,
            () = tokio::time::sleep(after) => false,
        };
        full.fetch_sub(1, Ordering::AcqRel);
        if stopped {
            return false;
        }
    }
}

/// Keeps positions.
struct Saver {
    path: PathBuf,
    positions: Positions,
    dirty: bool,
    /// Whether the last attempt failed: that is told once.
    failed: bool,
    name: Arc<str>,
}

impl Saver {
    /// A batch was taken: its positions count from now on.
    fn settle(&mut self, positions: Vec<(u64, Entry)>) {
        for (key, entry) in positions {
            self.dirty = true;
            self.positions.insert(key, entry);
        }
    }

    /// Writes the positions if they moved. If that fails, reading goes on and it is tried again.
    async fn save(&mut self) -> Result<(), Fault> {
        if !self.dirty {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        checkpoint::forget(&mut self.positions, now.as_secs());
        let (path, positions): (PathBuf, BTreeMap<u64, Entry>) = (self.path.clone(), self.positions.clone());
        let now_unix_nano = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let saved = blocking(move || checkpoint::save(&path, &positions, now_unix_nano)).await?;
        match saved {
            Ok(()) => (self.dirty, self.failed) = (false, false),
            Err(error) if !std::mem::replace(&mut self.failed, true) => tracing::error!(
                "{}: cannot write the positions to {}: {error}: after a restart records come twice; give the agent's user room and rights there",
                self.name,
                self.path.display()
            ),
            Err(_) => {}
        }
        Ok(())
    }
}
