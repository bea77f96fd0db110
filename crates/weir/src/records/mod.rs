//! Where the records are: `weir ledger`, `weir queue`, `weir dead-letters`, and `weir reload`. They ask
//! the process that runs on the data folder; without one they read the folder itself.

mod dead_letters;
mod ledger;
mod queue;
mod running;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use weir_agent::{Program, Source};
use weir_pipeline::control::Changes;

use crate::say;
use crate::records::running::Process;

pub use dead_letters::Command as DeadLetters;
pub use ledger::Arguments as Ledger;
pub use queue::Command as Queue;

/// Whose records.
#[derive(Args)]
pub struct Place {
    /// Data folder; by default the one that the configuration names
    #[arg(long, value_name = "DIR", env = "WEIR_DATA")]
    data: Option<PathBuf>,
    /// Configuration file; without it /etc/weir/weir.yaml, or what needs none
    #[arg(long, short, value_name = "FILE", env = "WEIR_CONFIG")]
    config: Option<PathBuf>,
}

/// A data folder, and the process that runs on it, if one does.
struct Folder {
    path: PathBuf,
    process: Option<Process>,
}

impl Place {
    /// Finds the folder and whoever runs on it.
    async fn find(&self) -> Result<Folder, String> {
        let path = match &self.data {
            Some(path) => path.clone(),
            None => {
                let source = Source::find(self.config.as_deref());
                weir_agent::load(source, Program::Agent, None).map_err(|error| error.to_string())?.data_folder
            }
        };
        if std::fs::metadata(&path).is_err() {
            let shown = path.display();
            return Err(format!("there is no data folder {shown}: nothing ran here with a queue on disk; name another with --data"));
        }
        let process = Process::of(&path).await?;
        Ok(Folder { path, process })
    }
}

/// Does what the command says.
pub fn ledger(arguments: &Ledger) -> ExitCode {
    run(ledger::run(arguments))
}

/// Does what the command says.
pub fn queue(command: &Queue) -> ExitCode {
    run(queue::run(command))
}

/// Does what the command says.
pub fn dead_letters(command: &DeadLetters) -> ExitCode {
    run(dead_letters::run(command))
}

/// Asks the running process to read its configuration again.
pub fn reload(place: &Place) -> ExitCode {
    run(async {
        let Folder { path, process } = place.find().await?;
        let process = process.ok_or_else(|| not_running(&path))?;
        let changes: Changes = process.post("/api/v1/reload", &()).await?;
        Ok(say::out(&format!("{}\n", crate::running::reloaded(&changes))))
    })
}

fn not_running(folder: &std::path::Path) -> String {
    format!("no Weir runs on {}; start it first, or name another folder with --data", folder.display())
}

fn run(work: impl Future<Output = Result<ExitCode, String>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::note(&format!("weir: cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(work).unwrap_or_else(|why| {
        say::note(&format!("weir: {why}"));
        ExitCode::FAILURE
    })
}
