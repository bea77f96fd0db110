//! A PostgreSQL of this test run alone, and what happens when it refuses, vanishes or is not there.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use weir_metadata::{Location, Metadata, MetadataError, OpenError};

const PASSWORD: &str = "hunter2-of-weir";

/// A running server with data of its own on loopback; it ends with this value.
pub struct PostgresServer {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl PostgresServer {
    /// Starts one; `None` after saying that the test is skipped, because PostgreSQL is missing.
    pub fn start(test: &str) -> Option<PostgresServer> {
        let programs = match programs() {
            Ok(folder) => folder,
            Err(why) => {
                skip(test, &why);
                return None;
            }
        };
        let folder = tempfile::tempdir().expect("a folder");
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("the password's file");
        hand_over(folder.path());
        hand_over(&password);
        let data = folder.path().join("data");
        let made = as_server(&programs.join("initdb"))
            .arg("--pgdata")
            .arg(&data)
            .arg("--pwfile")
            .arg(&password)
            .args(["--username=weir", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--no-instructions"])
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let process = as_server(&programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("postgres starts");
        let mut server = PostgresServer { process, port, _folder: folder };
        server.wait_until_ready();
        Some(server)
    }

    fn wait_until_ready(&mut self) {
        let log = BufReader::new(self.process.stderr.take().expect("its log"));
        let (ready, readiness) = mpsc::channel::<Result<(), String>>();
        std::thread::spawn(move || {
            let mut seen = String::new();
            for line in log.lines().map_while(Result::ok) {
                seen.push_str(&line);
                seen.push('\n');
                if line.contains("database system is ready to accept connections") {
                    // Nobody asks again after the start; the log is read on so that the pipe never fills.
                    let _ = ready.send(Ok(()));
                }
            }
            let _ = ready.send(Err(seen));
        });
        let answer = readiness.recv_timeout(Duration::from_secs(60)).expect("PostgreSQL says something within 60 s");
        answer.expect("PostgreSQL is ready");
    }

    fn url(&self, password: &str, database: &str) -> String {
        format!("postgres://weir:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates a database.
    pub async fn empty_database(&self, name: &str) -> Location {
        let mut connection = PgConnection::connect(&self.url(PASSWORD, "postgres")).await.expect("connects");
        let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(sql).execute(&mut connection).await.expect("a new database");
        connection.close().await.expect("closes");
        Location::parse(&self.url(PASSWORD, name)).expect("a URL")
    }

    fn stop(&mut self) {
        let id = nix::unistd::Pid::from_raw(self.process.id().try_into().expect("a process id"));
        // SIGQUIT: "immediate shutdown", the children go with it.
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGQUIT).expect("it gets the signal");
        self.process.wait().expect("it ends");
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// Debian keeps a folder per version, off PATH; elsewhere they are on PATH.
fn programs() -> Result<PathBuf, String> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort();
    folders.reverse();
    folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let found = folders.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file());
    let found = found.ok_or("initdb is neither in /usr/lib/postgresql/*/bin nor on PATH")?;
    if nix::unistd::geteuid().is_root() && !matches!(nix::unistd::User::from_name("postgres"), Ok(Some(_))) {
        return Err("the tests run as root and there is no user postgres to run it".to_owned());
    }
    Ok(found)
}

/// PostgreSQL refuses to run as root.
fn as_server(program: &Path) -> Command {
    if !nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    // It goes with the test, also when that is killed.
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=QUIT", "--"]).arg(program);
    command
}

fn hand_over(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("postgres").expect("users").expect("the user postgres");
        nix::unistd::chown(path, Some(user.uid), Some(user.gid)).expect("a new owner");
    }
    if path.is_dir() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// As the end-to-end tests count what they skip; `tests/skipped.sh` reads the file.
fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED: {test} needs PostgreSQL (postgresql): {why}; tests/install.sh installs it");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target folder");
    let mut file =
        OpenOptions::new().create(true).append(true).open(target.join("skipped-peers.txt")).expect("its file");
    file.write_all(format!("{test}\tPostgreSQL (postgresql)\t{why}\n").as_bytes()).expect("a skipped test is counted");
}

fn assert_tells_no_password(text: &str) {
    assert!(!text.contains("hunter2") && !text.contains('\n'), "{text}");
}

#[tokio::test]
async fn an_absent_server_is_one_line_without_the_password() {
    let url = format!("postgres://weir:{PASSWORD}@127.0.0.1:{}/weir", free_port());
    let location = Location::parse(&url).expect("a URL");
    let error = Metadata::open(&location).await.expect_err("nobody listens");
    let text = error.to_string();
    assert!(text.contains("PostgreSQL at 127.0.0.1:") && text.contains("refused"), "{text}");
    assert_tells_no_password(&text);
    assert_tells_no_password(&format!("{error:?} {location:?} {location}"));
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let location = Location::parse(&format!("postgres://weir@127.0.0.1:{port}/weir")).expect("a URL");
    let error = Metadata::open(&location).await.expect_err("it says nothing");
    assert!(error.to_string().ends_with("no answer within 5 s"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_and_a_vanished_server_are_told_without_the_password() {
    let test = "a_wrong_password_and_a_vanished_server_are_told_without_the_password";
    let Some(mut server) = PostgresServer::start(test) else { return };
    let wrong = Location::parse(&server.url("hunter2-wrong", "postgres")).expect("a URL");
    let error = Metadata::open(&wrong).await.expect_err("a wrong password");
    assert!(matches!(error, OpenError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("password authentication failed"), "{error}");
    assert_tells_no_password(&error.to_string());

    let missing = Location::parse(&server.url(PASSWORD, "nowhere")).expect("a URL");
    let error = Metadata::open(&missing).await.expect_err("no such database").to_string();
    assert!(error.contains("\"nowhere\" does not exist"), "{error}");

    let location = server.empty_database("vanishing").await;
    let metadata = Metadata::open(&location).await.expect("opens");
    assert_tells_no_password(&format!("{metadata:?}"));
    metadata.ensure_server("web-1", None, 1).await.expect("writes");
    server.stop();
    let error = metadata.servers().await.expect_err("it is gone");
    assert!(matches!(error, MetadataError::Unavailable { .. }), "{error:?}");
    assert_tells_no_password(&error.to_string());
}
