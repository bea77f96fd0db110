//! A pipeline from its start to its end: what changes it, and what it says when it stops.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use weir_agent::{ControlSocket, Heartbeats, Loaded, Pipeline, Program, Registration, Source, StartError};
use weir_config::Server;
use weir_pipeline::control::{Changes, Reload};
use weir_pipeline::ledger::{Counts, Key};
use weir_pipeline::queue::QueueKind;

use crate::introduction::Watched;
use crate::say;

/// Where the configuration was read from, to read it again.
#[derive(Clone)]
pub struct Origin {
    /// The file.
    pub source: Source,
    /// Who reads it.
    pub program: Program,
    /// The data folder that was named on the command line.
    pub data: Option<PathBuf>,
}

/// Why something could not be started.
pub enum Failure {
    /// The configuration cannot be used.
    Configuration(String),
    /// A queue or port cannot be opened.
    Start(StartError),
}

/// A pipeline with what belongs to it.
pub struct Running {
    pipeline: Pipeline,
    origin: Origin,
    /// The settings of the server that were there at the start, which are used until the end.
    server: Server,
    heartbeats: Heartbeats,
    reloads: Option<mpsc::Receiver<Reload>>,
    /// The ledger at the start, which goes on from earlier runs.
    before: Vec<(Key, Counts)>,
    _socket: Option<ControlSocket>,
}

impl Running {
    /// Starts what was loaded, the reports to the Weir servers among its exporters, and the socket of
    /// the command line.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn start(loaded: Loaded, watched: Watched, origin: Origin) -> Result<Self, Failure> {
        let registration =
            Registration::of(&loaded).map_err(|fault| Failure::Configuration(format!("weir: {fault}")))?;
        let (data_folder, server) = (loaded.data_folder.clone(), loaded.settings.server.clone());
        let pipeline = Pipeline::start(loaded.plan).await.map_err(Failure::Start)?;
        let heartbeats = registration.start(watched, pipeline.telemetry());
        let socket = control_socket(&pipeline, &data_folder);
        let reloads = pipeline.control().reloads();
        let before = pipeline.telemetry().ledger.snapshot();
        Ok(Self { pipeline, origin, server, heartbeats, reloads, before, _socket: socket })
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Waits until the program is told to stop, delivers what is held, and says what became of it.
    /// A hang-up, and whoever asks for it, make it read its configuration again.
    pub async fn run_to_the_end(mut self, signals: &mut StopSignals) -> ExitCode {
        loop {
            let asked = async {
                match &mut self.reloads {
                    Some(reloads) => reloads.recv().await,
                    None => None,
                }
            };
            let reload = tokio::select! {
                heard = signals.next() => match heard {
                    Heard::Stop => break,
                    Heard::Reload => None,
                },
                Some(reload) = asked => Some(reload),
            };
            let result = self.reload().await;
            say::note(&match &result {
                Ok(changes) => reloaded(changes),
                Err(why) => format!("{why}\nthe configuration cannot be used; what runs goes on as it is"),
            });
            if let Some(reload) = reload {
                reload.answer(result);
            }
        }
        self.stop(signals).await
    }

    /// Reads the configuration again and becomes what it says.
    async fn reload(&mut self) -> Result<Changes, String> {
        let Origin { source, program, data } = self.origin.clone();
        let control = self.pipeline.control().clone();
        let mut loaded =
            weir_agent::load_again(source, program, data.as_deref(), control).map_err(|e| e.to_string())?;
        let registration = Registration::of(&loaded).map_err(|fault| fault.to_string())?;
        let watched = loaded.plan.watching();
        let mut changes = self.pipeline.change(loaded.plan).await.map_err(|error| error.to_string())?;
        if program != Program::Agent {
            changes.pending_restart.extend(waiting(&self.server, &loaded.settings.server).map(str::to_owned));
        }
        self.heartbeats = registration.start(watched, self.pipeline.telemetry());
        Ok(changes)
    }

    /// Ends without a word.
    pub async fn end(self) {
        let Self { pipeline, _socket: socket, .. } = self;
        // As long as the folder is ours.
        drop(socket);
        pipeline.stop().await;
    }

    async fn stop(self, signals: &mut StopSignals) -> ExitCode {
        say::note("\nstopping: what is held is delivered first, 3 s at most (again Ctrl-C: at once)");
        let Self { pipeline, heartbeats, before, _socket: socket, .. } = self;
        drop(socket);
        let kept = pipeline.control().queues().queues.into_iter().filter(|queue| queue.kind == QueueKind::Disk);
        let kept: Vec<String> = kept.map(|queue| queue.exporter).collect();
        let code = tokio::select! {
            ledger = pipeline.stop() => {
                let ledger = since(&before, ledger);
                say::note(&closing(&ledger, &kept));
                if is_lost(&ledger, &kept) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
            }
            _ = signals.interrupted.recv() => ExitCode::FAILURE,
        };
        drop(heartbeats);
        code
    }
}

/// The socket for the command line: in the data folder where there is one.
fn control_socket(pipeline: &Pipeline, data_folder: &Path) -> Option<ControlSocket> {
    if !pipeline.has_storage() {
        let socket = ControlSocket::open_without_data(data_folder, pipeline.control());
        let explain = |error: &String| {
            tracing::info!(
                "`weir ledger` and `weir reload` do not reach this process, everything else works ({error}); let \
                 XDG_RUNTIME_DIR name a folder of its user, or make /run/weir for it"
            );
        };
        return socket.inspect_err(explain).ok();
    }
    let explain = |error: &std::io::Error| {
        let folder = data_folder.display();
        tracing::warn!("{folder}: the command line cannot reach this process ({error}); everything else works");
    };
    ControlSocket::open(data_folder, pipeline.control().clone()).inspect_err(explain).ok()
}

/// The settings of the server that are others in a new file: a reload does not change them.
fn waiting(now: &Server, new: &Server) -> impl Iterator<Item = &'static str> {
    let settings = [
        ("server.listen", now.listen != new.listen),
        ("server.public_url", now.public_url != new.public_url),
        ("server.metadata", now.metadata != new.metadata),
        ("server.retention", now.retention != new.retention),
        ("server.keyless_loopback", now.keyless_loopback != new.keyless_loopback),
        ("server.auto_register", now.auto_register != new.auto_register),
    ];
    settings.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name)
}

/// What a signal means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Heard {
    Stop,
    Reload,
}

/// Ctrl-C, the signal that service managers send to stop, and the one to read the configuration again.
pub struct StopSignals {
    interrupted: Signal,
    terminated: Signal,
    hang_up: Signal,
}

impl StopSignals {
    /// Listens before anything runs, so that an early Ctrl-C stops as cleanly as a late one.
    ///
    /// # Errors
    /// The exit code, after having said why.
    pub fn install() -> Result<Self, ExitCode> {
        let install = || -> std::io::Result<Self> {
            Ok(Self {
                interrupted: signal(SignalKind::interrupt())?,
                terminated: signal(SignalKind::terminate())?,
                hang_up: signal(SignalKind::hangup())?,
            })
        };
        install().map_err(|error| {
            say::note(&format!("weir: cannot listen for Ctrl-C: {error}"));
            ExitCode::FAILURE
        })
    }

    /// Waits for one that means the end.
    pub async fn wait(&mut self) {
        while self.next().await != Heard::Stop {}
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.interrupted.recv() => Heard::Stop,
            _ = self.terminated.recv() => Heard::Stop,
            _ = self.hang_up.recv() => Heard::Reload,
        }
    }
}

/// What a reload did, in one line, and in another what waits for the next start.
pub fn reloaded(changes: &Changes) -> String {
    let list = |what: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!(", {what} {}", names.join(", ")),
    };
    let Changes { started, stopped, restarted, unchanged, pending_restart } = changes;
    let changed = [list("started", started), list("restarted", restarted), list("stopped", stopped)].concat();
    let waiting = match &pending_restart[..] {
        [] => String::new(),
        [one] => format!("\n{one} has changed and is used after the next start; restart Weir to use it"),
        some => {
            format!("\n{} have changed and are used after the next start; restart Weir to use them", some.join(", "))
        }
    };
    format!("configuration read again: {unchanged} unchanged{changed}{waiting}")
}

/// What happened to records since the ledger looked like this; what waits counts as it is.
fn since(before: &[(Key, Counts)], mut now: Vec<(Key, Counts)>) -> Vec<(Key, Counts)> {
    for (key, counts) in &mut now {
        let Some((_, before)) = before.iter().find(|(other, _)| other == key) else { continue };
        counts.delivered = counts.delivered.saturating_sub(before.delivered);
        counts.dead_lettered = counts.dead_lettered.saturating_sub(before.dead_lettered);
        for (reason, records) in &before.dropped {
            let left = counts.dropped.get(reason).map_or(0, |now| now.saturating_sub(*records));
            counts.dropped.insert(*reason, left);
        }
        counts.dropped.retain(|_, records| *records > 0);
        let settled = counts.delivered + counts.dead_lettered + counts.dropped_total();
        counts.accepted = settled + counts.queued + counts.in_flight;
    }
    now
}

/// Whether records are not delivered and wait nowhere.
pub fn is_lost(ledger: &[(Key, Counts)], kept: &[String]) -> bool {
    let is_kept = |exporter: &str| kept.iter().any(|name| name == exporter);
    ledger.iter().any(|((_, exporter, _), counts)| {
        let waiting = if is_kept(exporter) { counts.queued + counts.in_flight } else { 0 };
        counts.delivered + counts.dead_lettered + waiting < counts.accepted
    })
}

/// Where every record went, in one line, and a line for each exporter that has not got all.
pub fn closing(ledger: &[(Key, Counts)], kept: &[String]) -> String {
    let delivered: u64 = ledger.iter().map(|(_, counts)| counts.delivered).sum();
    let mut text = format!("stopped: {delivered} records delivered");
    for ((source, exporter, signal), counts) in ledger {
        let missing = counts.accepted - counts.delivered.min(counts.accepted);
        if missing > 0 {
            let left = counts.queued + counts.in_flight;
            let is_kept = kept.iter().any(|name| **name == **exporter);
            let waits = if is_kept { "wait on the disk for the next start" } else { "unfinished" };
            let reasons = counts.dropped.iter().map(|(reason, records)| format!("{records} {}", reason.name()));
            let letters = (counts.dead_lettered > 0).then(|| format!("{} kept as dead letters", counts.dead_lettered));
            let reasons: Vec<String> =
                reasons.chain(letters).chain((left > 0).then(|| format!("{left} {waits}"))).collect();
            text.push_str(&format!(
                "\n  {source} → {exporter}: {missing} {} not delivered ({})",
                signal.name(),
                reasons.join(", ")
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_says_in_one_line_what_it_did_and_in_another_what_waits() {
        let changes = Changes { started: vec!["file".to_owned()], unchanged: 2, ..Changes::default() };
        assert_eq!(reloaded(&changes), "configuration read again: 2 unchanged, started file");
        let waiting = |names: &[&str]| {
            let pending_restart = names.iter().map(|name| (*name).to_owned()).collect();
            reloaded(&Changes { pending_restart, ..changes.clone() })
        };
        let one = waiting(&["limits.disk"]);
        assert!(one.ends_with("\nlimits.disk has changed and is used after the next start; restart Weir to use it"));
        let two = waiting(&["limits.disk", "server.listen"]);
        assert!(two.contains("\nlimits.disk, server.listen have changed and are used after the next start"), "{two}");
    }

    #[test]
    fn settings_of_the_server_that_differ_wait_for_the_next_start() {
        let now = Server::default();
        assert_eq!(waiting(&now, &now.clone()).count(), 0);
        let retention = Some(weir_config::Duration::from_secs(60));
        let new = Server { retention, auto_register: true, ..now.clone() };
        assert_eq!(waiting(&now, &new).collect::<Vec<_>>(), ["server.retention", "server.auto_register"]);
    }
}
