//! Runs one program: own process group, closed input, bounded output, bounded time.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use weir_config::Secret;

/// The only variables of the agent's environment that programs see; the rest may hold secrets.
const INHERITED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// How much of the error output is kept: its end tells most.
const STDERR_TAIL_BYTES: usize = 1024;

/// How long output is still read after the program has ended. Only a process that left the group
/// can keep the pipe open then, and it is not waited for.
const DRAIN: Duration = Duration::from_secs(1);

/// What to run.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// A path, or a name to be found on `PATH`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Where it starts; the agent's own directory if `None`.
    pub working_directory: Option<PathBuf>,
    /// Variables besides the inherited ones.
    pub environment: Vec<(String, Secret)>,
    /// The longest time it may take.
    pub timeout: Duration,
    /// The time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// The most bytes that it may print.
    pub max_output_bytes: usize,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal that somebody else sent.
    Signalled(i32),
    /// It took too long and was stopped.
    TimedOut,
    /// It printed too much and was stopped.
    TooMuchOutput,
}

/// What a program left behind.
#[derive(Debug)]
pub(super) struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// What it printed, at most `max_output_bytes`.
    pub stdout: Vec<u8>,
    /// The end of its error output.
    pub stderr_tail: Vec<u8>,
    /// How long it ran.
    pub duration: Duration,
}

/// All processes of a program: whatever happens, none of them outlives this value.
struct Group {
    id: Pid,
    is_running: bool,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // The only error that can come is that no process is left, which is what is wanted.
        let _ = killpg(self.id, signal);
    }

    /// Ends what is left after the program itself was reaped.
    async fn finish(&mut self) {
        self.signal(Signal::SIGKILL);
        self.is_running = false;
        // Orphans of the group become children of the init process. Where that is the agent itself
        // (a container without an init), nobody else reaps them.
        for _ in 0..20 {
            match waitpid(Pid::from_raw(-self.id.as_raw()), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => tokio::time::sleep(Duration::from_millis(5)).await,
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.is_running {
            self.signal(Signal::SIGKILL);
        }
    }
}

impl Program {
    /// Runs the program to its end, and everything in its process group with it.
    ///
    /// Dropping the future kills the group; the runtime reaps the program then.
    ///
    /// # Errors
    /// If it cannot be started.
    pub async fn run(&self) -> io::Result<Finished> {
        let started = Instant::now();
        let mut child = self.command().spawn()?;
        let id =
            child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| io::Error::other("it has no process id"))?;
        let mut group = Group { id: Pid::from_raw(id), is_running: true };
        let mut stdout = Vec::new();
        let mut stderr_tail = Vec::new();
        let ending = {
            let (out, err) = (child.stdout.take(), child.stderr.take());
            let reading = async {
                let bounded = read_bounded(out, self.max_output_bytes, &mut stdout);
                let tail = async {
                    read_tail(err, &mut stderr_tail).await;
                    Ok(())
                };
                tokio::try_join!(bounded, tail).is_ok()
            };
            tokio::pin!(reading);
            let mut is_whole = None;
            let waiting = wait(&mut child, &mut reading, &mut is_whole);
            match tokio::time::timeout(self.timeout, waiting).await {
                Ok(Some(status)) => {
                    group.finish().await;
                    if is_whole.is_none() {
                        is_whole = tokio::time::timeout(DRAIN, reading).await.ok();
                    }
                    if is_whole == Some(false) { Ending::TooMuchOutput } else { Ending::of(status?) }
                }
                Ok(None) => Ending::TooMuchOutput,
                Err(_) => Ending::TimedOut,
            }
        };
        if group.is_running {
            self.stop(&mut child, &mut group).await;
        }
        Ok(Finished { ending, stdout, stderr_tail, duration: started.elapsed() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, value) in &self.environment {
            command.env(name, value.expose());
        }
        if let Some(directory) = &self.working_directory {
            command.current_dir(directory);
        }
        command
    }

    /// Asks the group to end, and ends it after the grace.
    async fn stop(&self, child: &mut Child, group: &mut Group) {
        group.signal(Signal::SIGTERM);
        if tokio::time::timeout(self.grace, child.wait()).await.is_err() {
            group.signal(Signal::SIGKILL);
            // A process that hangs inside the kernel ends only when the kernel lets it; the runtime
            // reaps it then.
            let _ = tokio::time::timeout(self.grace, child.wait()).await;
        }
        group.finish().await;
    }
}

/// Waits for the program, or for more output than is allowed (`None`). That the output ends does
/// not mean that the program does.
async fn wait(
    child: &mut Child,
    reading: &mut (impl Future<Output = bool> + Unpin),
    is_whole: &mut Option<bool>,
) -> Option<io::Result<ExitStatus>> {
    let whole = tokio::select! {
        status = child.wait() => return Some(status),
        whole = reading => whole,
    };
    *is_whole = Some(whole);
    if whole { Some(child.wait().await) } else { None }
}

/// More output than is allowed.
struct TooMuch;

impl Ending {
    fn of(status: ExitStatus) -> Ending {
        match (status.code(), status.signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, signal) => Ending::Signalled(signal.unwrap_or_default()),
        }
    }
}

/// Reads everything, or `limit` bytes and then no more.
async fn read_bounded(from: Option<impl AsyncRead + Unpin>, limit: usize, into: &mut Vec<u8>) -> Result<(), TooMuch> {
    let Some(mut from) = from else { return Ok(()) };
    let mut piece = [0_u8; 8192];
    // A pipe that cannot be read any more has nothing more to give.
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let room = limit.saturating_sub(into.len());
        into.extend_from_slice(piece.get(..length.min(room)).unwrap_or_default());
        if length > room {
            return Err(TooMuch);
        }
    }
    Ok(())
}

/// Reads everything and keeps the end.
async fn read_tail(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut piece = [0_u8; 4096];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        into.extend_from_slice(piece.get(..length).unwrap_or_default());
        into.drain(..into.len().saturating_sub(STDERR_TAIL_BYTES));
    }
}
