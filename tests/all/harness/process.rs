//! A child process that ends with the test and shows its last words when the test fails.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Lines with the time after the start at which they came.
type Lines = Arc<Mutex<Vec<(Duration, Stream, String)>>>;

/// A running child process.
pub struct Process {
    name: String,
    child: Child,
    lines: Lines,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts a command with both outputs read line by line.
    pub fn start(name: &str, command: &mut Command) -> Process {
        let begun = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let lines = Lines::default();
        read(child.stdout.take().expect("piped"), Stream::Out, begun, lines.clone());
        read(child.stderr.take().expect("piped"), Stream::Err, begun, lines.clone());
        Process { name: name.to_owned(), child, lines, ended: None }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that a stream has brought so far.
    pub fn text(&self, stream: Stream) -> String {
        let lines = self.lines.lock().expect("the readers do not panic");
        lines.iter().filter(|line| line.1 == stream).map(|line| format!("{}\n", line.2)).collect()
    }

    /// Everything on standard error so far.
    pub fn stderr(&self) -> String {
        self.text(Stream::Err)
    }

    /// When a line with this text first came, after the start.
    pub fn when(&self, stream: Stream, text: &str) -> Option<Duration> {
        let lines = self.lines.lock().expect("the readers do not panic");
        lines.iter().find(|line| line.1 == stream && line.2.contains(text)).map(|line| line.0)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("the process is there");
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("it is our child");
        }
        self.ended
    }

    /// Waits until it ends; how it ended, and how long that took.
    pub async fn end(&mut self, longest: Duration) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let what = format!("{} ends", self.name);
        let status = super::wait_for(&what, longest, async || self.ended()).await;
        (status, begun.elapsed())
    }

    /// The number in a line of /proc/PID/status; `VmHWM` (the most memory so far) is in KiB.
    pub fn status_number(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let value = value.and_then(|value| value.split_whitespace().next());
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {line} in {status}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // It may end in this moment, which is as good.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let lines = self.lines.lock().map(|lines| lines.clone()).unwrap_or_default();
            eprintln!("--- the last lines of {}:", self.name);
            for (after, stream, line) in lines.iter().skip(lines.len().saturating_sub(60)) {
                eprintln!("{:>8.3} {stream:?} {line}", after.as_secs_f64());
            }
        }
    }
}

/// Reads a stream to its end, in a thread that ends with it.
fn read(stream: impl Read + Send + 'static, which: Stream, begun: Instant, lines: Lines) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.lock().expect("nobody panics with it").push((begun.elapsed(), which, line));
        }
    });
}
