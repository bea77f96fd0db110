//! Where the records are: `weir ledger`, `weir queue`, `weir dead-letters`, and `weir reload`. They ask
//! the process that runs on the data folder; without one they read the folder itself.

mod dead_letters;
mod ledger;
mod queue;
mod running;
mod table;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use weir_agent::{Program, Source};
use weir_config::{Environment, Settings};
use weir_pipeline::control::Changes;

use crate::records::running::Process;
use crate::say;

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
            None => configured(self.config.as_deref())?,
        };
        let shown = path.display();
        let is_there = match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => true,
            Ok(_) => return Err(format!("{shown} is not a folder; name the data folder with --data")),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => return Err(format!("cannot look into the data folder {shown}: {error}")),
        };
        let with_data = if is_there { Process::of(&path).await? } else { None };
        let process = match with_data {
            None => Process::without_data(&path).await?,
            found => found,
        };
        // The lock is there since the first start with something to keep.
        if process.is_none() && matches!(std::fs::exists(path.join("lock")), Ok(false)) {
            return Err(nothing_at(&path));
        }
        Ok(Folder { path, process })
    }
}

/// That nobody runs with a data folder, and nobody ever kept anything in it; and what to do.
fn nothing_at(data: &Path) -> String {
    let sockets = weir_agent::runtime_folders(data).into_iter().filter_map(|folder| Some(folder.parent()?.to_owned()));
    let sockets: Vec<String> = sockets.map(|folder| folder.display().to_string()).collect();
    format!(
        "no Weir runs with the data folder {}, and none has kept records there. If one runs, name its file with --config \
         or its data folder with --data, and do this as the user that it runs as. One with all its queues in memory is \
         looked for in {}; where it cannot write there, `kill -HUP` and its process id reload it",
        data.display(),
        sockets.join(" and ")
    )
}

/// The data folder that a configuration names. Nothing else in it matters, so that this works without the
/// variables and files of the service.
fn configured(file: Option<&Path>) -> Result<PathBuf, String> {
    let source = Source::find(file);
    if let Source::File(file) = &source
        && let Ok(text) = std::fs::read_to_string(file)
    {
        let (settings, problems) = Settings::inspect(&source.name(), &text, &Environment);
        let is_named = settings.server.data.is_some() || settings.agent.data.is_some();
        if is_named || problems.is_empty() {
            return Ok(weir_agent::data_folder(None, &settings));
        }
    }
    Ok(weir_agent::load(source, Program::Agent, None).map_err(|error| error.to_string())?.data_folder)
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

fn not_running(folder: &Path) -> String {
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
