//! A PostgreSQL of one test, on loopback with a folder of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::{User, chown, geteuid};
use tempfile::TempDir;

use super::process::Process;
use super::{free_port, seconds, wait_for};

/// A running PostgreSQL with an empty database `postgres` of the user `weir`.
pub struct PostgreSql {
    process: Process,
    port: u16,
    _folder: TempDir,
}

/// The folder with `initdb` and `postgres`: Debian keeps one per version, off PATH.
///
/// # Errors
/// Why it cannot be run.
pub fn programs() -> Result<PathBuf, String> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let found = folders.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file());
    let found = found.ok_or("initdb is neither in /usr/lib/postgresql/*/bin nor on PATH")?;
    if geteuid().is_root() && !matches!(User::from_name("postgres"), Ok(Some(_))) {
        return Err("the tests run as root and there is no user postgres to run it".to_owned());
    }
    Ok(found)
}

/// PostgreSQL refuses to run as root.
fn as_its_user(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT", "--"]).arg(program);
    command
}

impl PostgreSql {
    /// Starts one with the programs of [`programs`] and waits until it takes connections.
    pub async fn start(programs: &Path) -> PostgreSql {
        let folder = tempfile::tempdir().expect("a temporary folder");
        if geteuid().is_root() {
            let user = User::from_name("postgres").expect("users").expect("the user postgres");
            chown(folder.path(), Some(user.uid), Some(user.gid)).expect("root may");
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("our own folder");
        let data = folder.path().join("data");
        let made = as_its_user(&programs.join("initdb"))
            .arg("--pgdata")
            .arg(&data)
            .args(["--username=weir", "--auth=trust", "--no-sync", "--encoding=UTF8", "--no-instructions"])
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let mut command = as_its_user(&programs.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(folder.path());
        command.args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        let process = Process::start("postgres", &mut command);
        let ready = "database system is ready to accept connections";
        wait_for("PostgreSQL is ready", seconds(60), async || process.stderr().contains(ready).then_some(())).await;
        PostgreSql { process, port, _folder: folder }
    }

    /// Its address for `server.metadata`.
    pub fn url(&self) -> String {
        format!("postgres://weir:unused@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends it at once, its children too: SIGQUIT is its "immediate shutdown".
    pub async fn stop(&mut self) {
        self.process.signal(Signal::SIGQUIT);
        self.process.end(seconds(20)).await;
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        if self.process.ended().is_none() {
            self.process.signal(Signal::SIGQUIT);
        }
    }
}
