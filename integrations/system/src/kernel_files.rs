//! Reading the kernel's text files in `/proc` and `/sys` cheaply: files stay open and are read
//! again from their beginning into one shared buffer, and numbers are parsed where they stand.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use weir_pipeline::{Fault, FaultKind};

/// Where `/proc` and `/sys` are found.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    path: PathBuf,
}

impl Root {
    /// The root `/`, or the place where the watched machine's root is mounted.
    pub(crate) fn new(path: &str) -> Root {
        Root { path: PathBuf::from(path) }
    }

    /// A path below the root; `relative` has no leading slash.
    pub(crate) fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path.join(relative)
    }

    /// A file of the process whose mounts and network count: this one, or the first process of a
    /// machine that is watched from inside a container.
    pub(crate) fn view(&self, relative: &str) -> PathBuf {
        let process = if self.is_own() { "self" } else { "1" };
        self.path.join("proc").join(process).join(relative)
    }

    /// Whether the root is this process' own.
    pub(crate) fn is_own(&self) -> bool {
        self.path == Path::new("/")
    }
}

/// Longer files are not what they claim to be.
const LONGEST_FILE_BYTES: usize = 64 << 20;

/// The first room of a buffer: nearly every file of `/proc` fits.
const FIRST_ROOM_BYTES: usize = 16 << 10;

/// A file that is kept open from poll to poll.
#[derive(Debug)]
pub(crate) struct KernelFile {
    path: PathBuf,
    file: Option<File>,
}

impl KernelFile {
    /// The file at a path; it is opened at the first read.
    pub(crate) fn new(path: PathBuf) -> KernelFile {
        KernelFile { path, file: None }
    }

    /// Reads the file from its beginning.
    ///
    /// # Errors
    /// The cause as the system says it. After an error the file is opened anew.
    pub(crate) fn try_read<'b>(&mut self, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        let length = fill(&file, buffer)?;
        self.file = Some(file);
        Ok(buffer.get(..length).unwrap_or_default())
    }

    /// [`KernelFile::try_read`] with an error for people.
    ///
    /// # Errors
    /// A fault that names the file and the cause.
    pub(crate) fn read<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Fault> {
        match self.try_read(buffer) {
            Ok(text) => Ok(text),
            Err(error) => Err(unreadable(&self.path, &error)),
        }
    }

    /// The fault for a file whose content is not as documented.
    pub(crate) fn strange(&self, what: &str) -> Fault {
        let path = self.path.display();
        Fault::new(FaultKind::Decode, format!("{path} is not as expected: {what}"))
    }
}

/// Reads the whole of a file that is not kept open.
///
/// # Errors
/// The cause as the system says it.
pub(crate) fn read_once<'b>(path: &Path, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    let length = fill(&File::open(path)?, buffer)?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// The fault of a file or directory that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Fault {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => FaultKind::NotFound,
        io::ErrorKind::PermissionDenied => FaultKind::Permission,
        _ => FaultKind::Other,
    };
    Fault::new(kind, format!("cannot read {}: {error}", path.display()))
}

/// Fills the buffer from the beginning of a file; answers how many bytes it has. The buffer keeps
/// its length, so that no byte of it is set to zero twice.
fn fill(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            if filled >= LONGEST_FILE_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "longer than 64 MiB"));
            }
            buffer.resize((2 * filled).max(FIRST_ROOM_BYTES), 0);
        }
        match file.read_at(buffer.get_mut(filled..).unwrap_or_default(), filled as u64) {
            Ok(0) => return Ok(filled),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The lines that are not empty.
pub(crate) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

/// The words of a line.
pub(crate) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// A word of decimal digits.
pub(crate) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |value, &byte| {
        let digit = byte.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A word with a decimal fraction.
pub(crate) fn decimal(word: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// Bytes as text for labels; what is not UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_only_and_fit_64_bit() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(number(b"18446744073709551616"), None);
        for word in [&b""[..], b"-1", b"1.5", b"12kB", b" 1", b"+1"] {
            assert_eq!(number(word), None, "{word:?}");
        }
        assert_eq!(decimal(b"0.25"), Some(0.25));
        assert_eq!(decimal(b"nan"), None);
    }

    #[test]
    fn a_kept_file_shows_new_content_even_when_it_grows_beyond_the_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "one").unwrap();
        let mut file = KernelFile::new(path.clone());
        let mut buffer = Vec::new();
        assert_eq!(file.read(&mut buffer).unwrap(), b"one");
        let long = vec![b'x'; 3 * FIRST_ROOM_BYTES];
        std::fs::write(&path, &long).unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), long);
        std::fs::write(&path, "").unwrap();
        assert_eq!(file.read(&mut buffer).unwrap(), b"");
    }

    #[test]
    fn a_missing_file_is_named_and_found_once_it_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let mut file = KernelFile::new(path.clone());
        let fault = file.read(&mut Vec::new()).unwrap_err();
        assert_eq!(fault.kind, FaultKind::NotFound);
        assert!(fault.message.contains(path.to_str().unwrap()), "{}", fault.message);
        std::fs::write(&path, "here").unwrap();
        assert_eq!(file.read(&mut Vec::new()).unwrap(), b"here");
    }
}
