//! The program under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::process::Process;

/// The folder that cargo builds into: this test binary lies in `TARGET/PROFILE/deps`.
pub fn target_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    test.ancestors().nth(3).expect("TARGET/PROFILE/deps/TEST").to_owned()
}

/// The program, built on the first call so that it is never older than its source. `WEIR_BIN`
/// names another one, for example a release build.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(named) = std::env::var_os("WEIR_BIN").filter(|named| !named.is_empty()) {
            return PathBuf::from(named);
        }
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "weir", "--target-dir"])
            .arg(target_folder())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(built.status.success(), "cargo build -p weir:\n{}", String::from_utf8_lossy(&built.stderr));
        target_folder().join("debug/weir")
    })
}

/// A command of the program, with nothing of the caller's own configuration and a data folder of its own.
pub fn command() -> Command {
    static FOLDERS: OnceLock<TempDir> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let folders = FOLDERS.get_or_init(|| tempfile::tempdir().expect("a temporary folder"));
    let mut command = Command::new(program());
    command.env_remove("WEIR_CONFIG").env_remove("RUST_LOG");
    command.env("RUNTIME_DIRECTORY", folders.path().join("run"));
    command.env("WEIR_DATA", folders.path().join(NEXT.fetch_add(1, Ordering::Relaxed).to_string()));
    command
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("weir runs")
}

/// A configuration file in a folder of its own.
pub struct ConfigFile {
    folder: TempDir,
    path: PathBuf,
}

impl ConfigFile {
    /// Writes `weir.yaml`.
    pub fn new(yaml: &str) -> ConfigFile {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("weir.yaml");
        std::fs::write(&path, yaml).expect("writable");
        ConfigFile { folder, path }
    }

    /// The folder, for other files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The path of `weir.yaml`.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("a temporary folder has a plain name")
    }
}

/// A running agent.
pub struct Agent {
    /// Its process.
    pub process: Process,
    _config: ConfigFile,
}

impl Agent {
    /// Starts `weir agent` with this configuration.
    pub fn start(name: &str, yaml: &str) -> Agent {
        let config = ConfigFile::new(yaml);
        let process = Process::start(name, command().args(["agent", "--config", config.path()]));
        Agent { process, _config: config }
    }
}

/// What a finished program said: standard output, then standard error.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// That a log holds no warning.
pub fn assert_calm(log: &str) {
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
}
