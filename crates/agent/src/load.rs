//! Finding and reading the configuration.

use std::path::{Path, PathBuf};

use weir_config::{Environment, Problems, Settings};
use weir_pipeline::control::Control;
use weir_pipeline::plan::{Input, Plan, default_block};
use weir_pipeline::{Kind, Role};

use crate::agent_config_json;
use crate::kinds::{PLANNED, kinds};

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing is written: this machine is watched and shown in the terminal.
    Defaults,
    /// A file.
    File(PathBuf),
}

impl Source {
    /// The file that was named, else `/etc/weir/weir.yaml` if it is there, else the defaults.
    pub fn find(named: Option<&Path>) -> Source {
        let usual = Path::new("/etc/weir/weir.yaml");
        match named {
            Some(file) => Source::File(file.to_owned()),
            None if std::fs::metadata(usual).is_ok() => Source::File(usual.to_owned()),
            None => Source::Defaults,
        }
    }

    /// The name that errors carry.
    pub fn name(&self) -> String {
        match self {
            Source::Defaults => "defaults".to_owned(),
            Source::File(file) => file.display().to_string(),
        }
    }
}

/// The program that reads the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `weir agent`: what is collected and not exported anywhere is shown in the terminal.
    Agent,
    /// `weir up`: this machine and its processes are watched, and a server with a store is there.
    Up {
        /// Whether OTLP is received on its usual ports.
        otlp: bool,
    },
    /// `weir server`: only what others send, and what the file says.
    Server,
}

/// The names under which a server takes part in its own pipeline: what it is sent, and its store.
pub const SERVER_MEMBERS: &[(&str, Role)] = &[("api", Role::Receive), ("store", Role::Export)];

impl Program {
    /// The kinds, with those on by default that this program wants.
    fn kinds(self) -> Vec<Kind> {
        let mut kinds = kinds();
        for kind in &mut kinds {
            kind.on_by_default = match self {
                Program::Agent => kind.on_by_default,
                Program::Up { otlp } => {
                    kind.on_by_default || kind.name() == "process" || (otlp && kind.name() == "otlp_receiver")
                }
                Program::Server => kind.on_by_default && kind.name() == "internal",
            };
        }
        kinds
    }
}

/// A configuration that holds no problem, opened.
pub struct Loaded {
    /// Where it came from.
    pub source: Source,
    /// The settings as written, plus the integrations that run by default.
    pub settings: Settings,
    /// What is started.
    pub plan: Plan,
    /// Name under which this machine appears.
    pub host_name: String,
    /// Whether `console` was added because nothing else is exported to.
    pub console_added: bool,
    /// Folder for what must survive a restart. It may not be there yet.
    pub data_folder: PathBuf,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// It can be read, and is wrong.
    Wrong(Problems),
}

impl std::error::Error for LoadError {}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::Unreadable { file, error } => {
                write!(f, "cannot read {}: {error}; check the path and that this user may read it", file.display())
            }
            LoadError::Wrong(problems) => write!(f, "{problems}"),
        }
    }
}

/// The folder for what must survive a restart: the named one, else the configured one, else as root
/// that of services and otherwise that of the user. It may not be there yet.
pub fn data_folder(named: Option<&Path>, settings: &Settings) -> PathBuf {
    if let Some(folder) = named.or(settings.server.data.as_deref()).or(settings.agent.data.as_deref()) {
        return folder.to_owned();
    }
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/weir");
    }
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")));
    data.unwrap_or_else(|| PathBuf::from(".")).join("weir")
}

/// Reads the configuration and opens every integration; nothing runs yet. `data` is the folder that
/// was named on the command line for what must survive a restart.
///
/// # Errors
/// [`LoadError`] with all problems of the file.
pub fn load(source: Source, program: Program, data: Option<&Path>) -> Result<Loaded, LoadError> {
    load_again(source, program, data, Control::default())
}

/// Like [`load`], for the running pipeline that `control` belongs to.
///
/// # Errors
/// As [`load`].
pub fn load_again(
    source: Source,
    program: Program,
    data: Option<&Path>,
    control: Control,
) -> Result<Loaded, LoadError> {
    let name = source.name();
    let text = match &source {
        Source::Defaults => String::new(),
        Source::File(file) => {
            std::fs::read_to_string(file).map_err(|error| LoadError::Unreadable { file: file.clone(), error })?
        }
    };
    let (mut settings, problems) = read_settings(&name, &text);
    let kinds = program.kinds();
    let exports = |block: &weir_config::Block| {
        block.enabled && !kinds.iter().any(|kind| kind.name() == block.kind && kind.role != Role::Export)
    };
    let console_added = program == Program::Agent && problems.is_empty() && !settings.integrations.iter().any(exports);
    if console_added {
        settings.integrations.retain(|block| block.kind != "console");
        settings.integrations.push(default_block("console"));
    }
    let host_name = settings.agent.name.clone().unwrap_or_else(host_name);
    let mut resource = vec![("host.name".to_owned(), host_name.clone())];
    resource.extend(settings.agent.tags.iter().map(|(key, value)| (key.clone(), value.clone())));
    let added = if program == Program::Agent { &[] } else { SERVER_MEMBERS };
    let data_folder = data_folder(data, &settings);
    let input = Input {
        file: &name,
        settings: &settings,
        problems,
        kinds: &kinds,
        planned: PLANNED,
        added,
        resource,
        data_folder: data_folder.as_path().into(),
        control,
    };
    let plan = Plan::new(input).map_err(LoadError::Wrong)?;
    Ok(Loaded { source, settings, plan, host_name, console_added, data_folder })
}

/// The settings in a text: Weir's own YAML, or the agent monitor's JSON.
pub(crate) fn read_settings(file: &str, text: &str) -> (Settings, Problems) {
    agent_config_json::inspect(file, text).unwrap_or_else(|| Settings::inspect(file, text, &Environment))
}

/// The name of this machine; `localhost` where the system has none that is text.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}
