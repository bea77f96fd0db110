//! `logs`: reads log files as they grow, through every kind of rotation, and turns their lines
//! into log records and, by rules, into metrics.
//!
//! - [`config`]: the configuration and its check
//! - [`glob`], [`identity`], [`checkpoint`]: which files there are, which is which, and how far each is delivered
//! - [`progress`]: how that is kept
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
pub(crate) mod progress;
pub(crate) mod record;
mod rules;
mod tail;
mod watch;
pub(crate) mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_model::Signal;
use weir_pipeline::health::Board;
use weir_pipeline::{About, Context, Fault, FaultKind, Intake, Kind, Mount, Receive, Stop};

use checkpoint::{Moves, Saver};
use config::{LogsConfig, Settings};
use rules::Rules;
use watch::{Batch, Watch};
use window::Window;

const DETAILS: &str = r"
Reads files that match `paths`, from the beginning, and follows them as they grow. Files that appear
later are found within a second.

**Rotation.** A renamed file is read to its end; a truncated one (`copytruncate`) is read anew, and its
copy from where the original was read to, also when the copy is being made, or both happened while Weir was
stopped; a deleted one is read to its end while Weir has it open.
Rotated siblings (`app.log.1`, `app.log-20260102`, `app.log.2.gz`) need not match `paths`: they are
looked for when a log was rotated, also while Weir was not running. Files compressed with gzip are
decompressed. A file is recognised by device, inode, its first 1000 bytes and the bytes before its
position, so neither a reused inode nor a file with the same beginning is mistaken for it. With
`copytruncate`, what is written between the copy and the truncation is lost by the program that
rotates unless Weir has read it by then; no reader can help that. A copy of less than 1000 bytes of a log that was written
to in between is read again: it cannot be told from another file.

**Delivery.** Positions move only after records are as durable as `delivery.acknowledge` says; they are
kept in `logs/INSTANCE.json` of the data folder (and `INSTANCE.notes`, what moved since that was written). While exporters
cannot keep up the files wait. After a clean stop nothing comes twice; after a kill only what was under way, at most 8 batches of
256 KiB; after a power failure also the last 0.2 s.

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
            let mut left = checkpoint::load(&settings.checkpoint);
            let (problem, looked_unix_nano) = (left.problem.take(), left.looked_unix_nano);
            (Watch::new(settings, rules, left, report_interval), looked_unix_nano, problem)
        });
        let ((watch, positions), looked_unix_nano, problem) = opened.await?;
        if let Some(problem) = problem {
            tracing::warn!("{name}: {problem}");
        }
        let saver = Saver::new(path, positions, looked_unix_nano, name.clone());
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
    window: Window<Moves>,
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
        self.saver.save().await?;
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
                // Noted before more is handed in: a kill repeats what is in the window, at most.
                Some(taken) = self.window.next() => self.saver.settle(taken).await?,
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
                    if batch.logs.is_some() || !batch.moves.is_empty() {
                        self.window.push(batch.logs, batch.moves);
                    }
                }
                () = tokio::time::sleep_until(next_round), if may_read && reading.is_none() => {}
                () = tokio::time::sleep_until(next_save), if self.saver.is_dirty() => {
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
        self.window.close();
        while let Some(taken) = self.window.next().await {
            self.saver.settle(taken).await?;
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
