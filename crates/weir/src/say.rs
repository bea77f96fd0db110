//! What the program says: results on the standard output, everything else on standard error.

use std::io::Write;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::FormatTime;

/// Writes a result. A reader that went away (`weir ... | head`) is not an error.
pub fn out(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("cannot write the result: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line for people to standard error.
pub fn note(line: &str) {
    // Where standard error is closed, nobody can be told.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Wall clock time of day in UTC: the log is read next to the data, which carries full times.
struct TimeOfDay;

impl FormatTime for TimeOfDay {
    fn format_time(&self, out: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let day = now % 86_400;
        write!(out, "{:02}:{:02}:{:02}", day / 3600, day / 60 % 60, day % 60)
    }
}

/// Weir's own log: standard error, level by `WEIR_LOG` (`info` by default).
pub fn install_log() {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| {
        EnvFilter::new("warn,weir=info,weir_pipeline=info,weir_agent=info,weir_system=info,weir_observability=info")
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(TimeOfDay)
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
}
