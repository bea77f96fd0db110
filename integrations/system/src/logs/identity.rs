//! Which file is which: inodes are reused at once, names change, and copies carry the same bytes.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::assemble::GUARD_BYTES;

/// Where a file system keeps a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId {
    /// Number of the device. It may change with a restart of the machine.
    pub device: u64,
    /// Number of the inode. It is given to another file once this one is deleted.
    pub inode: u64,
}

impl FileId {
    /// The id of an open or found file.
    pub fn of(metadata: &Metadata) -> Self {
        FileId { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// How many bytes of its beginning tell a file from others.
pub const HEAD_BYTES: usize = 1_000;

/// A checksum of some bytes of a file. State files must not hold what logs hold, so it is a hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// How many bytes.
    pub length: usize,
    /// The first 16 bytes of their SHA-256, in hexadecimal.
    pub hash: String,
}

impl Print {
    /// The print of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Print::default();
        }
        let hash = Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Print { length: bytes.len(), hash }
    }

    /// Whether these bytes begin with those that the print is of. Nothing begins with nothing.
    pub fn begins(&self, bytes: &[u8]) -> bool {
        self.length > 0 && bytes.get(..self.length).is_some_and(|bytes| Print::of(bytes) == *self)
    }

    /// Whether a file has these bytes right before an offset. A print of no bytes is before every
    /// offset.
    pub fn stands_before(&self, file: &File, offset: u64) -> io::Result<bool> {
        if self.length == 0 {
            return Ok(true);
        }
        let Some(start) = offset.checked_sub(self.length as u64).filter(|_| self.length <= GUARD_BYTES) else {
            return Ok(false);
        };
        let mut bytes = [0; GUARD_BYTES];
        let Some(bytes) = bytes.get_mut(..self.length) else { return Ok(false) };
        let read = read_at_most(file, bytes, start)?;
        Ok(Print::of(bytes.get(..read).unwrap_or_default()) == *self)
    }
}

/// Opens a file for reading without waiting: what looks like a file may have become a pipe.
pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)
}

/// Fills a buffer from an offset on, as far as the file goes.
pub fn read_at_most(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The beginning of what a file holds, and whether it is compressed with gzip (RFC 1952).
#[derive(Debug)]
pub struct Beginning {
    /// At most [`HEAD_BYTES`], decompressed.
    pub bytes: Vec<u8>,
    /// Whether the file is compressed.
    pub is_gzip: bool,
}

impl Beginning {
    /// Reads it.
    ///
    /// # Errors
    /// If the file cannot be read. What a damaged archive still gives is no error.
    pub fn read(file: &File) -> io::Result<Self> {
        let mut bytes = vec![0; HEAD_BYTES];
        let read = read_at_most(file, &mut bytes, 0)?;
        bytes.truncate(read);
        if !bytes.starts_with(&[0x1f, 0x8b, 8]) {
            return Ok(Beginning { bytes, is_gzip: false });
        }
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        // An archive that is still being written ends early.
        let _ = gzip(file)?.take(HEAD_BYTES as u64).read_to_end(&mut bytes);
        Ok(Beginning { bytes, is_gzip: true })
    }
}

/// What a compressed file holds, from its beginning; archives of several members are read as one.
pub type Gzip = MultiGzDecoder<BufReader<FromStart>>;

/// Opens an archive.
///
/// # Errors
/// If the file cannot be opened a second time.
pub fn gzip(file: &File) -> io::Result<Gzip> {
    Ok(MultiGzDecoder::new(BufReader::new(FromStart { file: file.try_clone()?, offset: 0 })))
}

/// Reads a file by offsets of its own: cloned handles share the one of the system.
#[derive(Debug)]
pub struct FromStart {
    file: File,
    offset: u64,
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// The name of a log without what rotation adds: `app.log.2.gz`, `app.log-20260102` and
/// `app-20260102.log` all come from `app.log`.
pub fn base_name(name: &str) -> String {
    let mut name = name.strip_suffix(".gz").unwrap_or(name).to_owned();
    loop {
        let Some(start) = rotation_mark(&name) else { return name };
        let end = name.get(start + 1..).and_then(|mark| mark.find(|c: char| !is_in_mark(c)));
        let end = end.map_or(name.len(), |at| start + 1 + at);
        // In front of an ending only a date is a mark: `web-1.log` and `web-2.log` are two logs.
        let digits = name.get(start..end).map_or(0, |mark| mark.chars().filter(char::is_ascii_digit).count());
        let is_infix = digits >= 6 && name.get(end..).is_some_and(|rest| rest.starts_with('.'));
        if start == 0 || !(end == name.len() || is_infix) {
            return name;
        }
        name.replace_range(start..end, "");
    }
}

fn is_in_mark(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '-' | '_' | 'T' | 'Z')
}

/// Where the last `.`, `-` or `_` stands that has a digit behind it.
fn rotation_mark(name: &str) -> Option<usize> {
    let bytes = name.as_bytes();
    let is_mark = |at: usize| {
        bytes.get(at).is_some_and(|byte| matches!(byte, b'.' | b'-' | b'_'))
            && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
    };
    // The first of several that belong to one date.
    let last = (0..bytes.len()).rev().find(|at| is_mark(*at))?;
    let mut first = last;
    while let Some(before) = (0..first).rev().find(|at| is_mark(*at)) {
        if !name.get(before + 1..first).is_some_and(|text| text.chars().all(is_in_mark)) {
            break;
        }
        first = before;
    }
    Some(first)
}

/// Whether a name is one that rotation gives.
pub fn is_rotated(name: &str) -> bool {
    base_name(name) != name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rotated_files_lead_to_the_name_of_the_log() {
        for (name, base) in [
            ("app.log", "app.log"),
            ("app.log.1", "app.log"),
            ("app.log.12.gz", "app.log"),
            ("app.log-20260102", "app.log"),
            ("app.log-20260102.gz", "app.log"),
            ("app-2026-01-02.log", "app.log"),
            ("app.2026-01-02T03-04-05.log", "app.log"),
            ("syslog.2", "syslog"),
            ("messages", "messages"),
            ("web-1.log", "web-1.log"),
            ("2026.log", "2026.log"),
            ("app.log.bak", "app.log.bak"),
        ] {
            assert_eq!(base_name(name), base, "{name}");
        }
        assert!(is_rotated("a.1") && !is_rotated("a.log") && is_rotated("a.gz"));
    }

    #[test]
    fn prints_recognise_beginnings_and_what_stands_before_an_offset() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "hello world").unwrap();
        let file = open(&path).unwrap();
        let print = Print::of(b"hello");
        assert!(print.begins(b"hello world") && !print.begins(b"hell") && !print.begins(b"jello"));
        assert!(!Print::default().begins(b"x"));
        assert!(Print::of(b"wor").stands_before(&file, 9).unwrap());
        assert!(!Print::of(b"wor").stands_before(&file, 8).unwrap());
        assert!(!Print::of(b"wor").stands_before(&file, 2).unwrap());
        assert!(!Print::of(b"wor").stands_before(&file, 900).unwrap());
    }
}
