//! What the operating system says about this process; nothing where it does not say.

use std::fs;

/// Clock ticks in a second of `/proc/PID/stat`: `USER_HZ`, 100 on every architecture that Weir runs on
/// (proc_pid_stat(5), time(7)).
const TICKS_PER_SECOND: f64 = 100.0;

/// This process.
#[derive(Debug, Default, PartialEq)]
pub struct Process {
    /// CPU time since it started, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory that is resident, in bytes.
    pub resident_bytes: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
}

impl Process {
    /// Asks now.
    pub fn now() -> Process {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Process {
            cpu_seconds: cpu_seconds(&read("/proc/self/stat")),
            resident_bytes: resident_bytes(&read("/proc/self/status")),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
        }
    }
}

/// Fields 14 and 15, counted behind the name, which may hold blanks and brackets.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_memory_are_read_from_what_linux_writes() {
        let stat = "4242 (we (i) r) S 1 4242 4242 0 -1 4194560 2400 0 3 0 152 48 0 0 20 0 9 0 51123 300 40 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(resident_bytes("Name:\tweir\nVmRSS:\t   20480 kB\nVmData:\t 1 kB\n"), Some(20_971_520));
        assert_eq!((cpu_seconds(""), resident_bytes("")), (None, None));
    }
}
