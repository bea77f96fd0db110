//! `weir agent`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use weir_agent::{Loaded, Pipeline, Program, Source};

use crate::introduction::Watched;
use crate::running::{Failure, Origin, Running, StopSignals, is_lost};
use crate::{WRONG_CONFIGURATION, introduction, say};

/// Runs the agent until it is interrupted, or once.
pub fn run(config: Option<&Path>, data: Option<PathBuf>, once: bool) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::note(&format!("weir: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let origin = Origin { source: Source::find(config), program: Program::Agent, data };
        let loaded = match weir_agent::load(origin.source.clone(), origin.program, origin.data.as_deref()) {
            Ok(loaded) => loaded,
            Err(error) => {
                say::note(&format!("{error}"));
                return ExitCode::from(WRONG_CONFIGURATION);
            }
        };
        if once { run_once(loaded).await } else { run_until_stopped(loaded, origin).await }
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
    let (telemetry, ledger) = match Pipeline::once(loaded.plan).await {
        Ok(done) => done,
        Err(error) => return failed(&Failure::Start(error)),
    };
    let mut failed = is_lost(&ledger, &[]);
    for (name, health) in telemetry.health.snapshot() {
        if let Some(reason) = health.reason {
            failed = true;
            say::note(&format!("{name}: {reason}"));
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn run_until_stopped(mut loaded: Loaded, origin: Origin) -> ExitCode {
    let mut signals = match StopSignals::install() {
        Ok(signals) => signals,
        Err(code) => return code,
    };
    let watched = loaded.plan.watching();
    say::note(&introduction(&loaded, &watched));
    match Running::start(loaded, watched, origin).await {
        Ok(running) => running.run_to_the_end(&mut signals).await,
        Err(failure) => failed(&failure),
    }
}

/// Says why nothing runs.
pub fn failed(failure: &Failure) -> ExitCode {
    match failure {
        Failure::Configuration(text) => {
            say::note(text);
            ExitCode::from(WRONG_CONFIGURATION)
        }
        Failure::Start(error) => {
            say::note(&format!("weir: {error}"));
            ExitCode::FAILURE
        }
    }
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
