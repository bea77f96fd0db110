//! `journalctl` as a child process. The library of systemd is not linked: building Weir needs no headers
//! of it, and a damaged journal ends a child, not the agent.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use weir_pipeline::{Fault, FaultKind};

use super::config::Settings;
use super::export::{Decoder, Entry};

/// How much of the error output is kept: its end tells most.
const STDERR_TAIL_BYTES: usize = 1024;

/// How long a search for one entry may take: journals are large, and disks slow.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the error output of a child that ended is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where to read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Behind the entry of this cursor, or, if it is gone, from the next one that is there.
    Cursor(String),
    /// From this time on, unix seconds.
    Since(u64),
    /// From the oldest entry.
    Oldest,
}

/// What a search for a cursor found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its entry.
    It,
    /// Only later entries: its own is gone.
    Later,
    /// Nothing, or the cursor means nothing to this journal.
    Nothing,
}

/// A child that follows the journal.
pub struct Follower {
    child: Child,
    stdout: ChildStdout,
    stderr: Stderr,
}

/// The end of a child's error output, read as it comes: a full pipe would stop the child.
struct Stderr {
    tail: Arc<Mutex<Vec<u8>>>,
    reading: JoinSet<()>,
}

impl Stderr {
    fn of(stderr: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let (tail, mut reading) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        if let Some(mut stderr) = stderr {
            let tail = tail.clone();
            reading.spawn(async move {
                let mut piece = [0_u8; 1024];
                while let Ok(length @ 1..) = stderr.read(&mut piece).await {
                    let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
                    tail.extend_from_slice(piece.get(..length).unwrap_or_default());
                    let surplus = tail.len().saturating_sub(STDERR_TAIL_BYTES);
                    tail.drain(..surplus);
                }
            });
        }
        Stderr { tail, reading }
    }

    /// Everything that the child said last, in one line.
    async fn last_words(mut self) -> String {
        let _ = tokio::time::timeout(LAST_WORDS, self.reading.join_next()).await;
        self.so_far()
    }

    fn so_far(&self) -> String {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail);
        text.split('\n').map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

impl Follower {
    /// Starts to follow.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(settings: &Settings, position: &Position) -> Result<Follower, Fault> {
        let mut command = command(settings);
        command.args(["--follow", "--no-tail"]).args(&settings.filter);
        match position {
            Position::Cursor(cursor) => command.arg(format!("--cursor={cursor}")),
            Position::Since(seconds) => command.arg(format!("--since=@{seconds}")),
            Position::Oldest => &mut command,
        };
        let mut child = command.spawn().map_err(|error| cannot_start(settings, &error))?;
        let stdout = child.stdout.take().ok_or_else(|| Fault::new(FaultKind::Other, "journalctl has no output"))?;
        let stderr = Stderr::of(child.stderr.take());
        Ok(Follower { child, stdout, stderr })
    }

    /// Reads what there is; 0 = the child ended. Nothing is lost if the future is dropped.
    ///
    /// # Errors
    /// If the pipe cannot be read.
    pub async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stdout.read(into).await
    }

    /// What it complained about so far, empty if nothing.
    pub fn complaint(&self) -> String {
        self.stderr.so_far()
    }

    /// Ends the child if it still runs, and says how it ended.
    pub async fn end(mut self) -> String {
        let status = match tokio::time::timeout(LAST_WORDS, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => match self.child.kill().await {
                Ok(()) => self.child.wait().await,
                Err(error) => Err(error),
            },
        };
        ended(status, &self.stderr.last_words().await)
    }

    /// Ends the child.
    pub async fn stop(mut self) {
        // The only error is that it has ended already.
        let _ = self.child.kill().await;
    }
}

fn command(settings: &Settings) -> Command {
    let mut command = Command::new(&settings.journalctl);
    // Nothing of the agent's environment, which may hold secrets; nothing from the terminal, so that
    // Ctrl-C reaches the agent first.
    command.env_clear().env("LC_ALL", "C").envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.args(["--no-pager", "--output=export"]).args(&settings.source);
    command
}

fn cannot_start(settings: &Settings, error: &io::Error) -> Fault {
    let program = &settings.journalctl;
    match error.kind() {
        io::ErrorKind::NotFound => Fault::new(
            FaultKind::NotFound,
            format!(
                "`{program}` is not there: the journal is read through systemd's journalctl; install it, set `journalctl` to its path, or remove `journald` on a machine without systemd"
            ),
        ),
        io::ErrorKind::PermissionDenied => Fault::new(
            FaultKind::Permission,
            format!("`{program}` may not be run: {error}; give the agent's user the right"),
        ),
        _ => Fault::new(FaultKind::Other, format!("`{program}` cannot be started: {error}")),
    }
}

fn ended(status: io::Result<ExitStatus>, last_words: &str) -> String {
    let how = match status {
        Ok(status) => format!("journalctl ended ({status})"),
        Err(error) => format!("journalctl ended: {error}"),
    };
    let hint =
        if last_words.contains("permission") { "; add the agent's user to the group systemd-journal" } else { "" };
    if last_words.is_empty() { how } else { format!("{how}: {last_words}{hint}") }
}

/// Looks for the entry of a cursor, whatever the filters say.
///
/// # Errors
/// If the journal cannot be read.
pub async fn find(settings: &Settings, cursor: &str) -> Result<Found, Fault> {
    match first(settings, &[format!("--cursor={cursor}")]).await? {
        Ok(Some(entry)) if entry.cursor() == Some(cursor) => Ok(Found::It),
        Ok(Some(_)) => Ok(Found::Later),
        Ok(None) => Ok(Found::Nothing),
        Err(complaint) if complaint.contains("seek to cursor") => Ok(Found::Nothing),
        Err(complaint) => Err(Fault::new(FaultKind::Other, complaint)),
    }
}

/// The cursor of the newest entry; `None` in an empty journal.
///
/// # Errors
/// If the journal cannot be read.
pub async fn newest(settings: &Settings) -> Result<Option<String>, Fault> {
    let found = first(settings, &[]).await?.map_err(|complaint| Fault::new(FaultKind::Other, complaint))?;
    Ok(found.and_then(|entry| entry.cursor().map(str::to_owned)))
}

/// One entry, or how the child ended instead.
async fn first(settings: &Settings, arguments: &[String]) -> Result<Result<Option<Entry>, String>, Fault> {
    let mut command = command(settings);
    command.args(["--lines=1", "--output-fields=PRIORITY"]).args(arguments);
    let mut child = command.spawn().map_err(|error| cannot_start(settings, &error))?;
    let stderr = Stderr::of(child.stderr.take());
    let stdout = child.stdout.take();
    let searching = async {
        let (mut decoder, mut entries, mut piece) = (Decoder::new(settings.max_field_bytes), Vec::new(), [0_u8; 4096]);
        if let Some(mut stdout) = stdout {
            while let Ok(length @ 1..) = stdout.read(&mut piece).await {
                decoder
                    .feed(piece.get(..length).unwrap_or_default(), &mut entries)
                    .map_err(|error| Fault::new(FaultKind::Decode, error.to_string()))?;
                entries.truncate(1);
            }
        }
        Ok::<_, Fault>(entries.into_iter().next())
    };
    let found = tokio::time::timeout(SEARCH_TIMEOUT, searching).await.map_err(|_| {
        let seconds = SEARCH_TIMEOUT.as_secs();
        Fault::new(FaultKind::TimedOut, format!("journalctl did not find its place within {seconds} s"))
    })??;
    let status = child.wait().await;
    let failed = !status.as_ref().is_ok_and(ExitStatus::success);
    if found.is_none() && failed {
        return Ok(Err(ended(status, &stderr.last_words().await)));
    }
    Ok(Ok(found))
}
