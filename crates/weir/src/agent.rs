//! `weir agent`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use weir_agent::{Heartbeats, Loaded, Pipeline, Program, Registration, Source};
use weir_pipeline::ledger::{Counts, Key};

use crate::introduction::Watched;
use crate::{WRONG_CONFIGURATION, introduction, say};

/// Runs the agent until it is interrupted, or once.
pub fn run(config: Option<&Path>, once: bool) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::note(&format!("weir: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let loaded = match weir_agent::load(Source::find(config), Program::Agent, None) {
            Ok(loaded) => loaded,
            Err(error) => {
                say::note(&format!("{error}"));
                return ExitCode::from(WRONG_CONFIGURATION);
            }
        };
        if once { run_once(loaded).await } else { run_until_stopped(loaded).await }
    });
    // A thread that hangs in a dead mount must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// Two workers are enough for an agent, and each thread costs memory.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
}

async fn run_once(loaded: Loaded) -> ExitCode {
    let (telemetry, ledger) = Pipeline::once(loaded.plan).await;
    let mut failed = not_delivered(&ledger);
    for (name, health) in telemetry.health.snapshot() {
        if let Some(reason) = health.reason {
            failed = true;
            say::note(&format!("{name}: {reason}"));
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn run_until_stopped(mut loaded: Loaded) -> ExitCode {
    let mut stop = match StopSignals::install() {
        Ok(stop) => stop,
        Err(code) => return code,
    };
    let watched = loaded.plan.watching();
    say::note(&introduction(&loaded, &watched));
    match start(loaded, watched).await {
        Ok((pipeline, _heartbeats)) => run_to_the_end(pipeline, &mut stop).await,
        Err(code) => code,
    }
}

/// Starts what was loaded, and the reports to the Weir servers among its exporters; they last as
/// long as they are held.
///
/// # Errors
/// The exit code, after having said why.
pub async fn start(loaded: Loaded, watched: Watched) -> Result<(Pipeline, Heartbeats), ExitCode> {
    let registration = Registration::of(&loaded).map_err(|fault| {
        say::note(&format!("weir: {fault}"));
        ExitCode::from(WRONG_CONFIGURATION)
    })?;
    let pipeline = Pipeline::start(loaded.plan).await.map_err(|error| {
        say::note(&format!("weir: {error}"));
        ExitCode::FAILURE
    })?;
    let heartbeats = registration.start(watched, pipeline.telemetry());
    Ok((pipeline, heartbeats))
}

/// Ctrl-C and the signal that service managers send.
pub struct StopSignals {
    interrupted: Signal,
    terminated: Signal,
}

impl StopSignals {
    /// Listens before anything runs, so that an early Ctrl-C stops as cleanly as a late one.
    ///
    /// # Errors
    /// The exit code, after having said why.
    pub fn install() -> Result<Self, ExitCode> {
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(interrupted), Ok(terminated)) => Ok(Self { interrupted, terminated }),
            (Err(error), _) | (_, Err(error)) => {
                say::note(&format!("weir: cannot listen for Ctrl-C: {error}"));
                Err(ExitCode::FAILURE)
            }
        }
    }

    /// Waits for one of them.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupted.recv() => {}
            _ = self.terminated.recv() => {}
        }
    }
}

/// Waits until the program is told to stop, delivers what is held, and says what became of it.
pub async fn run_to_the_end(pipeline: Pipeline, stop: &mut StopSignals) -> ExitCode {
    stop.wait().await;
    say::note("\nstopping: what is held is delivered first, 3 s at most (again Ctrl-C: at once)");
    tokio::select! {
        ledger = pipeline.stop() => {
            say::note(&closing(&ledger));
            if not_delivered(&ledger) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        _ = stop.interrupted.recv() => ExitCode::FAILURE,
    }
}

fn not_delivered(ledger: &[(Key, Counts)]) -> bool {
    ledger.iter().any(|(_, counts)| counts.delivered != counts.accepted)
}

/// Where every record went, in one line, and a line for each exporter that has not got all.
fn closing(ledger: &[(Key, Counts)]) -> String {
    let delivered: u64 = ledger.iter().map(|(_, counts)| counts.delivered).sum();
    let mut text = format!("stopped: {delivered} records delivered");
    for ((source, exporter, signal), counts) in ledger {
        let missing = counts.accepted - counts.delivered.min(counts.accepted);
        if missing > 0 {
            let reasons = counts.dropped.iter().map(|(reason, records)| format!("{records} {}", reason.name()));
            let left = counts.queued + counts.in_flight;
            let reasons: Vec<String> = reasons.chain((left > 0).then(|| format!("{left} unfinished"))).collect();
            text.push_str(&format!(
                "\n  {source} → {exporter}: {missing} {} not delivered ({})",
                signal.name(),
                reasons.join(", ")
            ));
        }
    }
    text
}

/// What a newcomer wants to know, and how to send it elsewhere.
fn introduction(loaded: &Loaded, watched: &Watched) -> String {
    let headline = format!("weir {}  agent on {}", env!("CARGO_PKG_VERSION"), loaded.host_name);
    let mut text = introduction::text(&headline, &introduction::rows(loaded, watched));
    if loaded.console_added {
        text.push_str(ELSEWHERE);
    }
    text.push_str("\n  stop with Ctrl-C\n");
    text
}

const ELSEWHERE: &str = "
  send it on    write weir.yaml, then `weir agent --config weir.yaml`:
                  integrations:
                    prometheus: {endpoint: \"http://localhost:9090/api/v1/write\"}
                `weir integrations` lists all, `weir check --config weir.yaml` tries them";
