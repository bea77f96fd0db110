//! One process per folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The name of the file that is locked.
const NAME: &str = "lock";

/// Why a folder cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "{} is in use by another weir{}; stop that one, or give this one a folder of its own",
        folder.display(),
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process, if it said who it is.
        pid: Option<u32>,
    },
    /// The file cannot be made or locked.
    #[error("cannot lock {}: {source}; make the folder writable for the user that runs weir", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The right of this process to a folder, until it is dropped or the process ends, however that happens.
#[derive(Debug)]
pub struct FolderLock {
    // Closing it gives the lock back.
    _file: File,
}

impl FolderLock {
    /// Takes the lock of a folder, at once or not at all.
    ///
    /// # Errors
    /// [`LockError`]
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(NAME);
        let failed = |source| LockError::Io { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Who it is only helps; that it is there is known.
                let read = (&file).take(20).read_to_string(&mut text);
                let pid = read.ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::InUse { folder: folder.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let named =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = named {
            // A full disk must not keep Weir from starting.
            tracing::warn!(path = %path.display(), %error, "cannot write down which process has the folder");
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_whose_name_the_others_hear() {
        let folder = tempfile::tempdir().unwrap();
        let lock = FolderLock::take(folder.path()).unwrap();
        let refused = FolderLock::take(folder.path()).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains(&format!("process {}", std::process::id())) && text.contains("of its own"), "{text}");
        drop(lock);
        FolderLock::take(folder.path()).unwrap();
        assert!(matches!(FolderLock::take(&folder.path().join("missing")), Err(LockError::Io { .. })));
    }
}
