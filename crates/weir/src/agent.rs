//! `weir agent`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use weir_agent::{Loaded, Pipeline, Source};
use weir_pipeline::Role;
use weir_pipeline::ledger::{Counts, Key};

use crate::{WRONG_CONFIGURATION, say};

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
        let loaded = match weir_agent::load(Source::find(config)) {
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
    // Installed before anything runs, so that an early Ctrl-C stops as cleanly as a late one.
    let (mut interrupted, mut terminated) = match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(interrupted), Ok(terminated)) => (interrupted, terminated),
        (Err(error), _) | (_, Err(error)) => {
            say::note(&format!("weir: cannot listen for Ctrl-C: {error}"));
            return ExitCode::FAILURE;
        }
    };
    say::note(&introduction(&mut loaded));
    let pipeline = match Pipeline::start(loaded.plan).await {
        Ok(pipeline) => pipeline,
        Err(error) => {
            say::note(&format!("weir: {error}"));
            return ExitCode::FAILURE;
        }
    };
    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    say::note("\nstopping: what is held is delivered first, 3 s at most (again Ctrl-C: at once)");
    tokio::select! {
        ledger = pipeline.stop() => {
            say::note(&closing(&ledger));
            if not_delivered(&ledger) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        _ = interrupted.recv() => ExitCode::FAILURE,
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

/// What a newcomer wants to know: what is watched, what is not and why, where it goes, and how to
/// send it elsewhere.
fn introduction(loaded: &mut Loaded) -> String {
    let kinds = weir_agent::kinds();
    let mut rows: Vec<(&str, String)> = Vec::new();
    let mut not_watched = Vec::new();
    for (name, watching) in loaded.plan.watching() {
        if &*name != "weir" {
            rows.push(("watching", format!("{name}: {}", watching.watched.join(", "))));
        }
        not_watched.extend(watching.not_watched.into_iter().map(|(what, why)| format!("{what}: {why}")));
    }
    let written = |kind: &str| loaded.settings.integrations.iter().any(|block| block.kind == kind);
    let off: Vec<&str> = kinds
        .iter()
        .filter(|kind| kind.role == Role::Collect && !kind.on_by_default && !written(kind.name()))
        .map(|kind| kind.name())
        .collect();
    if !off.is_empty() {
        not_watched.push(format!("{}: not configured (`weir integrations show NAME` says how)", off.join(", ")));
    }
    rows.extend(not_watched.into_iter().map(|line| ("not watching", line)));
    for (name, addresses) in loaded.plan.listening() {
        rows.push(("receiving", format!("{name}: {}", addresses.join(", "))));
    }
    let role_of = |name: &str| kinds.iter().find(|kind| kind.name() == name).map(|kind| kind.role);
    for block in loaded.settings.integrations.iter().filter(|block| block.enabled) {
        match role_of(&block.kind) {
            Some(Role::Export) if loaded.console_added => {
                rows.push(("sending to", "console: this terminal".to_owned()))
            }
            Some(Role::Export) => rows.push(("sending to", block.name.clone())),
            _ => {}
        }
    }
    let mut text = format!("weir {}  agent on {}", env!("CARGO_PKG_VERSION"), loaded.host_name);
    let mut before = "";
    for (title, line) in &rows {
        let shown = if *title == before { "" } else { title };
        for (at, part) in wrapped(line, TEXT_WIDTH).iter().enumerate() {
            let shown = if at == 0 { shown } else { "" };
            text.push_str(&format!("\n  {shown:<13} {part}"));
        }
        before = title;
    }
    if loaded.console_added {
        text.push_str(ELSEWHERE);
    }
    text.push_str("\n  stop with Ctrl-C\n");
    text
}

/// Columns of the introduction's text: with its titles it fits a terminal of 100.
const TEXT_WIDTH: usize = 82;

/// A text in lines of at most `width` characters where its words allow it, indented after the first.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines
}

const ELSEWHERE: &str = "
  send it on    write weir.yaml, then `weir agent --config weir.yaml`:
                  integrations:
                    prometheus: {endpoint: \"http://localhost:9090/api/v1/write\"}
                `weir integrations` lists all, `weir check --config weir.yaml` tries them";
