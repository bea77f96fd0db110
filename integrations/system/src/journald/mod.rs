//! `journald`: follows the journal of systemd.
//!
//! - [`config`]: the configuration, its check, and the arguments that follow from it
//! - [`child`]: `journalctl` as a child process; [`export`]: what it prints
//! - [`entry`], [`batch`]: from an entry to a log record, and to the intake
//! - [`start`], [`checkpoint`]: where reading begins, and how far records are delivered
//! - [`run`]: all of it
//!
//! It runs like a receiver: what is handed in must be taken, or nothing more is read, and `journalctl` waits
//! at its full pipe. The cursor moves only after the intake answered, and over the contiguous prefix of
//! what it answered.
//!
//! Of `journalctl`'s formats it is `export`, not `json`: values are bytes with a length, so binary ones
//! come as they are (JSON makes a list of numbers of them, and leaves out those of more than 4 KiB unless
//! asked), a field with several values is so many fields, and reading it costs no unescaping.

mod batch;
mod checkpoint;
mod child;
mod config;
mod entry;
mod export;
mod run;
mod start;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use weir_model::build::metric;
use weir_model::{Payload, Records, Signal};
use weir_pipeline::MetricKind::Counter;
use weir_pipeline::health::Board;
use weir_pipeline::{About, Context, Fault, Intake, Kind, MetricDescription, MetricsBuilder, Mount, Receive, Stop};

use crate::logs::blocking;
use crate::logs::window::Window;
use batch::Making;
use checkpoint::Saver;
use config::{JournaldConfig, Settings};
use run::{Run, SHORTEST_DELAY};
use start::Start;

const DETAILS: &str = r"
Reads the journal through `journalctl` and follows it. Units, programs, severities and any fields narrow it down.

**Delivery.** The position (a cursor) moves only after records are as durable as `delivery.acknowledge` says; it is kept in
`journald/INSTANCE.json` of the data folder (and `INSTANCE.notes`, what moved since that was written). While exporters cannot
keep up the journal waits, and retried records keep their order. After a clean stop nothing comes twice; after a kill only what was
under way, at most 8 batches of 1,000 records; after a power failure also the last second. If the entry of the cursor is
gone because the journal was rotated meanwhile, that is reported, and reading goes on with the oldest entry behind it, or
with the oldest of all if there is none.

**First run.** What is older than `ignore_older` (1 day) is passed over. `from: end` reads only what is added.

**Records.** Body is `MESSAGE` (bytes, with `log.record.invalid_text`, if it is no text), time is when the journal got it,
severity comes from `PRIORITY`. Resource attribute `service.name` is the unit without `.service`, or else the
`SYSLOG_IDENTIFIER`; `host.name` is the agent's, or with `directory` or `merge` the record's. Attributes:
`process.pid` (`_PID`), `process.user.id`, `process.executable.name`, `process.executable.path`, `process.command_line`,
`thread.id`, `code.file.path`, `code.line.number`, `code.function.name`, `syslog.appname` (`SYSLOG_IDENTIFIER`), `syslog.procid`,
`syslog.facility`, `syslog.severity.code`, `systemd.unit`, `systemd.user_unit`, `journald.transport`, `journald.boot_id`,
`journald.message_id`. Fields that programs add become `journald.FIELD`; `fields: known` leaves them out, `fields: all` adds
what systemd knows besides. A field with several values is a list. Values longer than `max_field_size` are cut, and
`log.record.cut_bytes` says by how much.

**Needs.** `journalctl`, and membership in group `systemd-journal` (or `adm`) to see more than the records of the agent's own user. In
a container: `journalctl` in the image, and the host's `/var/log/journal` as `directory`.

**Limits.** `kernel: false` leaves out messages of the kernel; `units` and `identifiers` leave them out anyway, because they
belong to none (`identifiers: [kernel]` reads them alone). Patterns in `units` do not see units that appear later.

**Troubleshooting.** `journalctl ended (...)` with what it said last: it is started again, after 1 s first and 1 min at most. `No such
file or directory`: this machine keeps its journal elsewhere or none at all.
";

const ENTRIES: MetricDescription<'static> =
    metric("journald.entries", "{entry}", Counter, "Entries of the journal that were read.");
const CUT: MetricDescription<'static> = metric(
    "journald.cut_entries",
    "{entry}",
    Counter,
    "Entries of which a value was longer than the limit and was cut.",
);
const RESTARTS: MetricDescription<'static> =
    metric("journald.restarts", "{restart}", Counter, "How many times journalctl ended and was started again.");

const ABOUT: About = About {
    name: "journald",
    summary: "Journal of systemd: follows it from where it stopped, by unit, program and severity",
    details: DETAILS,
    sample: "journald:\n  units: [nginx.service, ssh.service]\n  priority: info\n",
    metrics: &[ENTRIES, CUT, RESTARTS],
    signals: &[Signal::Logs, Signal::Metrics],
};

/// The kind `journald`. It collects, although it runs like a receiver: nobody sends it anything.
pub const KIND: Kind = Kind::receive::<Journald>(ABOUT).that_collects();

/// The integration `journald`.
pub struct Journald {
    settings: Settings,
    board: Arc<Board>,
    report_interval: Duration,
    name: Arc<str>,
}

impl Receive for Journald {
    type Config = JournaldConfig;

    fn new(config: JournaldConfig, context: &Context) -> Result<Self, Fault> {
        let settings = config::checked(config, context)?;
        let board = context.telemetry.health.clone();
        Ok(Journald { settings, board, report_interval: context.interval, name: context.name.clone() })
    }

    fn mounts(&self, _intake: &Intake) -> Vec<Mount> {
        Vec::new()
    }

    async fn run(self, intake: Intake, stop: Stop) -> Result<(), Fault> {
        let path = self.settings.checkpoint.clone();
        let (cursor, problem) = blocking(move || checkpoint::load(&path)).await?;
        if let Some(problem) = problem {
            tracing::warn!("{}: {problem}", self.name);
        }
        let began = unix_now();
        let Journald { settings, board, report_interval, name } = self;
        let settings = Arc::new(settings);
        let run = Run {
            start: Start { settings: settings.clone(), name: name.clone(), began_unix_seconds: began.as_secs() },
            saver: Saver::new(settings.checkpoint.clone(), cursor.clone(), name.clone()),
            batch: Making::new(settings.clone()),
            window: Window::new(intake.clone(), name.clone()),
            intake,
            counts: Counts::new(settings.resource.clone(), began),
            board,
            name,
            cursor,
            next_start: Instant::now(),
            delay: SHORTEST_DELAY,
        };
        run.until(stop, report_interval).await
    }
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What was counted, as metrics.
struct Counts {
    entries: u64,
    cut: u64,
    restarts: u64,
    builder: MetricsBuilder,
    start_unix_nano: u64,
}

impl Counts {
    fn new(resource: Vec<(String, String)>, began: Duration) -> Self {
        let builder = MetricsBuilder::new(ABOUT.name, resource);
        Counts { entries: 0, cut: 0, restarts: 0, builder, start_unix_nano: nanoseconds(began) }
    }

    fn report(&mut self) -> Payload {
        self.builder.begin(nanoseconds(unix_now()), self.start_unix_nano);
        self.builder.record(&ENTRIES, &[], self.entries);
        self.builder.record(&CUT, &[], self.cut);
        self.builder.record(&RESTARTS, &[], self.restarts);
        Payload::from_records(Records::Metrics(self.builder.finish()))
    }
}
