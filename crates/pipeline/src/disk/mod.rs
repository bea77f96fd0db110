//! The file operations of everything that must survive a crash, behind one trait, so that tests
//! have disks that fail and forget.
//!
//! What a caller may rely on is what POSIX promises and no more: bytes are on the disk after
//! [`DiskFile::sync`], a name that was made or removed is after [`Disk::sync_folder`], and after a
//! crash everything else may be there in any part and any order.

mod lock;
mod real;
#[cfg(test)]
pub mod simulated;

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

pub use lock::{FolderLock, LockError};
pub use real::RealDisk;

/// A file in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name; names that are not UTF-8 are not listed.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// Where files are. Errors are those of the operating system.
pub trait Disk: Send + Sync + Debug {
    /// Makes a folder and those above it, so that they survive a crash.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;

    /// The files of a folder, in no order.
    fn list(&self, folder: &Path) -> io::Result<Vec<Listed>>;

    /// Makes a new file, to be appended to and read. Its name survives a crash only after
    /// [`Disk::sync_folder`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file to be read.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Cuts a file to a length. Its next sync makes that survive a crash.
    fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name in its folder, in the place of a file of that name. After a crash either
    /// the old or the new file has it; [`Disk::sync_folder`] makes sure that it is the new one. What the
    /// file holds must be synced before.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Waits until the names in a folder are on the disk.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Bytes that are free for this process on the file system of a folder.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Appends all parts, one after another. After an error any beginning of them may be there. The
    /// parts are used up.
    fn append(&self, parts: &mut [IoSlice<'_>]) -> io::Result<()>;

    /// Reads at an offset; fewer bytes than asked for are no sign of the end, none are.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Waits until the file's bytes and length are on the disk. After an error nobody can tell
    /// which of them are, and another sync that succeeds says nothing about them.
    fn sync(&self) -> io::Result<()>;
}

/// Reads until the buffer is full or the file ends; how many bytes came.
///
/// # Errors
/// Those of the disk.
pub fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
