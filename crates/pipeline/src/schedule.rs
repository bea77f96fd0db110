//! The schedule of collectors: interval, spread, timeout and what a poll that hangs must not do.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use weir_model::build::MetricsBuilder;
use weir_model::{Payload, Records, Signal};

use crate::intake::Intake;
use crate::outcome::{Fault, FaultKind};
use crate::role::{DynCollect, Stop};
use crate::telemetry::{Polls, Telemetry};

/// The second poll follows the first one so soon, because rates need two.
const SECOND_POLL: Duration = Duration::from_secs(1);

/// Intervals beyond these are treated as these: between them, times can be added without overflow,
/// and the polls that were skipped while one hung can be counted one by one.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);
const LONGEST_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs one collector.
pub struct Schedule {
    /// Its instance name.
    pub name: Arc<str>,
    /// The collector.
    pub collector: Box<dyn DynCollect>,
    /// Builds its metrics.
    pub builder: MetricsBuilder,
    /// Time between polls.
    pub interval: Duration,
    /// Longest time for one poll.
    pub timeout: Duration,
    /// Where its records go.
    pub intake: Intake,
    /// Where its health and its polls are counted.
    pub telemetry: Arc<Telemetry>,
    /// Bytes that the last poll gathered.
    pub last_bytes: usize,
}

/// The wall clock in unix nanoseconds.
pub fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Schedule {
    /// Polls at once, a second time soon after, then at its interval, until stopped.
    pub async fn run(mut self, stop: Stop) {
        self.interval = self.interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        let polls = self.telemetry.polls(&self.name);
        let started = unix_nanos(SystemTime::now());
        self.poll(&polls, started, &stop).await;
        let soon = SECOND_POLL.min(self.interval);
        tokio::select! {
            () = tokio::time::sleep(soon) => self.poll(&polls, started, &stop).await,
            () = stop.wait() => return,
        }
        let mut due = self.first_due();
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = stop.wait() => return,
            }
            self.poll(&polls, started, &stop).await;
            due += self.interval;
            let now = tokio::time::Instant::now();
            while due <= now {
                polls.overlapped(1);
                due += self.interval;
            }
        }
    }

    /// Polls twice, because rates need two, and sends only the second.
    pub async fn run_once(mut self) {
        let polls = self.telemetry.polls(&self.name);
        let started = unix_nanos(SystemTime::now());
        // What the first poll says, the second one says again.
        let _ = self.gather(started).await;
        self.builder.discard();
        tokio::time::sleep(SECOND_POLL).await;
        let never = Stop(tokio_util::sync::CancellationToken::new());
        self.poll(&polls, started, &never).await;
    }

    /// Collectors of one process do not all start at the same moment: each has its own place in
    /// the first tenth of the interval, the same at every start.
    fn first_due(&self) -> tokio::time::Instant {
        let sum = self.name.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let spread = self.interval.mul_f64(f64::from(sum % 100) / 1000.0);
        tokio::time::Instant::now() + self.interval + spread
    }

    /// One poll, and what it gathered handed in: all of it, or what there is when its time is over
    /// or the pipeline stops. Where nothing could keep it, nobody is asked: the next poll says more than
    /// one that is thrown away.
    async fn poll(&mut self, polls: &Polls, started: u64, stop: &Stop) {
        if self.intake.is_out_of_memory(Signal::Metrics, self.last_bytes) {
            polls.short_of_memory();
            let mebibytes = self.telemetry.memory.limit().div_ceil(1 << 20);
            let why = format!(
                "not polled while memory is used up: {mebibytes} MiB of records wait in the process; see which exporter \
                 does not deliver, or raise `limits.memory`"
            );
            return self.telemetry.health.unhealthy(&self.name, &why);
        }
        let begun = Instant::now();
        let result = tokio::select! {
            biased;
            result = self.gather(started) => Some(result),
            () = stop.wait() => None,
        };
        let metrics = self.builder.finish();
        if let Some(result) = result {
            polls.count(begun.elapsed(), metrics.len() as u64, result.as_ref().err());
            match &result {
                Ok(()) => self.telemetry.health.healthy(&self.name),
                Err(fault) => self.telemetry.health.unhealthy(&self.name, &fault.message),
            }
        }
        let payload = Payload::from_records(Records::Metrics(metrics));
        self.last_bytes = payload.size_bytes();
        self.intake.push(payload);
    }

    /// Lets the collector record, within its time; a panic is a fault.
    async fn gather(&mut self, started: u64) -> Result<(), Fault> {
        let now = unix_nanos(SystemTime::now());
        // A clock that was set back must not make counters start after their points.
        self.builder.begin(now, started.min(now));
        let poll = async { self.collector.collect(&mut self.builder).await };
        let poll = std::panic::AssertUnwindSafe(poll).catch_unwind();
        match tokio::time::timeout(self.timeout, poll).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Fault::new(FaultKind::Other, "the collector panicked; please report it")),
            Err(_) => {
                let seconds = self.timeout.as_secs_f64();
                let message = format!("the poll did not end within {seconds} s; raise `timeout` or look at its target");
                Err(Fault::new(FaultKind::TimedOut, message))
            }
        }
    }
}
