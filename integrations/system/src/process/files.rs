//! The files of one process (proc_pid_stat(5), proc_pid_status(5), proc_pid_io(5)).

use std::io;
use std::path::{Path, PathBuf};

use crate::kernel_files::{Root, lines, number, read_once, text, words};

/// The numbers of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
    pub(super) threads: u64,
    /// Ticks from the machine's start to the process'.
    pub(super) start_ticks: u64,
    pub(super) virtual_bytes: u64,
    pub(super) resident_pages: u64,
}

impl Stat {
    /// The name of the command, at most 15 bytes, and the numbers. The name stands in parentheses
    /// and may contain spaces and parentheses itself, so it ends at the last one.
    pub(super) fn parse(stat: &[u8]) -> Option<(&[u8], Stat)> {
        let open = stat.iter().position(|&byte| byte == b'(')?;
        let close = stat.iter().rposition(|&byte| byte == b')')?;
        let name = stat.get(open + 1..close)?;
        // The manual counts fields from 1; the first behind the name is 3, the state.
        let mut fields = [&b""[..]; 22];
        let mut words = words(stat.get(close + 1..)?);
        for field in &mut fields {
            *field = words.next()?;
        }
        let [
            _,
            _,
            _,
            _,
            _,
            _,
            _,
            minor,
            _,
            major,
            _,
            user,
            system,
            _,
            _,
            _,
            _,
            threads,
            _,
            start,
            virtual_bytes,
            pages,
        ] = fields;
        let stat = Stat {
            minor_faults: number(minor)?,
            major_faults: number(major)?,
            user_ticks: number(user)?,
            system_ticks: number(system)?,
            threads: number(threads)?,
            start_ticks: number(start)?,
            virtual_bytes: number(virtual_bytes)?,
            resident_pages: number(pages)?,
        };
        Some((name, stat))
    }

    /// CPU time in both modes.
    pub(super) fn cpu_ticks(&self) -> u64 {
        self.user_ticks.saturating_add(self.system_ticks)
    }
}

/// What is read from `/proc/PID/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) user_id: Option<u64>,
    pub(super) voluntary_switches: Option<u64>,
    pub(super) involuntary_switches: Option<u64>,
}

impl Status {
    pub(super) fn parse(status: &[u8]) -> Status {
        let mut found = Status::default();
        for line in lines(status) {
            let mut words = words(line);
            match words.next() {
                // Real, effective, saved and filesystem user: the effective one owns the process.
                Some(b"Uid:") => found.user_id = words.nth(1).and_then(number),
                Some(b"voluntary_ctxt_switches:") => found.voluntary_switches = words.next().and_then(number),
                Some(b"nonvoluntary_ctxt_switches:") => found.involuntary_switches = words.next().and_then(number),
                _ => {}
            }
        }
        found
    }
}

/// Bytes read from and written to storage, from `/proc/PID/io`.
pub(super) fn storage_bytes(io: &[u8]) -> Option<(u64, u64)> {
    let value = |key: &[u8]| lines(io).find_map(|line| number(line.strip_prefix(key)?.trim_ascii()));
    Some((value(b"read_bytes:")?, value(b"write_bytes:")?))
}

/// The folders of processes.
#[derive(Debug)]
pub(super) struct Folders {
    folder: PathBuf,
}

impl Folders {
    pub(super) fn new(root: &Root) -> Folders {
        Folders { folder: root.join("proc") }
    }

    /// Where they are.
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// The numbers of all processes.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            pids.extend(number(name.as_encoded_bytes()).and_then(|pid| u32::try_from(pid).ok()));
        }
        Ok(pids)
    }

    fn of(&self, pid: u32, file: &str) -> PathBuf {
        self.folder.join(format!("{pid}/{file}"))
    }

    /// A file of a process; `None` if the process is gone or the right to read it is missing.
    pub(super) fn read<'b>(&self, pid: u32, file: &str, buffer: &'b mut Vec<u8>) -> Option<&'b [u8]> {
        read_once(&self.of(pid, file), buffer).ok()
    }

    /// The file name of the program that a process runs; `None` for the kernel's threads and where
    /// the right is missing.
    pub(super) fn program(&self, pid: u32) -> Option<String> {
        let path = std::fs::read_link(self.of(pid, "exe")).ok()?;
        let name = path.file_name()?.to_string_lossy();
        // The file was replaced by an update while the program runs.
        Some(name.strip_suffix(" (deleted)").unwrap_or(&name).to_owned())
    }

    /// How many files a process has open.
    pub(super) fn open_files(&self, pid: u32) -> Option<u64> {
        let folder = self.of(pid, "fd");
        // Since Linux 6.2 the size of the folder is the number.
        let size = std::fs::metadata(&folder).ok()?.len();
        if size > 0 {
            return Some(size);
        }
        u64::try_from(std::fs::read_dir(&folder).ok()?.count()).ok()
    }

    /// The command with its arguments.
    pub(super) fn command_line(&self, pid: u32, buffer: &mut Vec<u8>) -> Option<String> {
        const LONGEST_BYTES: usize = 4096;
        let bytes = self.read(pid, "cmdline", buffer)?;
        let bytes = bytes.get(..LONGEST_BYTES).unwrap_or(bytes);
        let line = text(bytes).replace('\0', " ").trim_end().to_owned();
        Some(line).filter(|line| !line.is_empty())
    }
}

/// The name of a user in a `passwd` file (passwd(5)). The file is read by ourselves because the
/// system's own way may ask servers, and may wait for them.
pub(super) fn user_name(passwd: &[u8], user_id: u64) -> Option<String> {
    lines(passwd).find_map(|line| {
        let mut fields = line.split(|&byte| byte == b':');
        let name = fields.next()?;
        (number(fields.nth(1)?)? == user_id).then(|| text(name).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_ends_at_the_last_one() {
        let line = b"42 (a) R 1 (b (c)) S 1 42 42 0 -1 4194560 10 20 30 40 50 60 70 80 20 0 3 0 1234 9000 77 18446744073709551615 1";
        let (name, stat) = Stat::parse(line).unwrap();
        assert_eq!(name, b"a) R 1 (b (c)");
        let expected = Stat {
            minor_faults: 10,
            major_faults: 30,
            user_ticks: 50,
            system_ticks: 60,
            threads: 3,
            start_ticks: 1234,
            virtual_bytes: 9000,
            resident_pages: 77,
        };
        assert_eq!(stat, expected);
        for torn in [&b""[..], b"42 (x", b"42 x) S 1", b"42 (x) S 1 2 3", b")("] {
            assert_eq!(Stat::parse(torn), None);
        }
    }

    #[test]
    fn status_gives_the_effective_user() {
        let status = Status::parse(
            b"Name:\tx\nUid:\t1000\t33\t33\t33\nvoluntary_ctxt_switches:\t377\nnonvoluntary_ctxt_switches:\t33\n",
        );
        assert_eq!(status.user_id, Some(33));
        assert_eq!((status.voluntary_switches, status.involuntary_switches), (Some(377), Some(33)));
    }

    #[test]
    fn storage_bytes_are_not_those_of_system_calls() {
        let io = b"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 7\n";
        assert_eq!(storage_bytes(io), Some((5, 6)));
    }

    #[test]
    fn users_are_found_by_number() {
        let passwd = b"root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\ntorn\n";
        assert_eq!(user_name(passwd, 33).as_deref(), Some("www-data"));
        assert_eq!(user_name(passwd, 34), None);
    }
}
