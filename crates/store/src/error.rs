//! What can go wrong, for people: what, where, and what to do next.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::select::Matcher;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("another Weir uses this folder ({}): stop it, or choose another with --data", dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// Something else stands where the folder should be.
    #[error("{} is not a folder: move it away, or choose another folder with --data", path.display())]
    NotAFolder {
        /// The path.
        path: PathBuf,
    },
    /// A right is missing.
    #[error("cannot write to {}: {reason}: let Weir's user write there, or choose another folder with --data", path.display())]
    Denied {
        /// The path.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The disk is full.
    #[error("the disk of {} is full: free space there, or choose another folder with --data", path.display())]
    Full {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot open the store at {}: {reason}: look at its disk and at the messages of the kernel (`dmesg`)", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}

/// Whether an error means that no space is left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

impl OpenError {
    pub(crate) fn of(error: &io::Error, path: &Path) -> Self {
        let path = path.to_owned();
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                OpenError::Denied { path, reason: error.to_string() }
            }
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => OpenError::NotAFolder { path },
            _ if is_full(error) => OpenError::Full { path },
            _ => OpenError::Io { path, reason: error.to_string() },
        }
    }
}

/// Why samples are not stored. Nothing of them was taken, or it will not be counted twice: the same
/// samples may be appended again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The disk is full.
    #[error("the disk of {} is full: free space there; what was sent is not stored and may be sent again", dir.display())]
    Full {
        /// The folder of the log.
        dir: PathBuf,
    },
    /// The disk refuses.
    #[error("cannot write to the log in {}: {reason}: look at its disk and at the messages of the kernel (`dmesg`)", dir.display())]
    Io {
        /// The folder of the log.
        dir: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The store is closed.
    #[error("the store is closed: Weir is stopping")]
    Stopped,
}

impl AppendError {
    pub(crate) fn of(error: &io::Error, dir: &Path) -> Self {
        let dir = dir.to_owned();
        if is_full(error) { AppendError::Full { dir } } else { AppendError::Io { dir, reason: error.to_string() } }
    }
}

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A regular expression is wrong or too large.
    #[error("the regular expression \"{pattern}\" of label {label} cannot be used: {reason}")]
    Regex {
        /// The label.
        label: String,
        /// The expression.
        pattern: String,
        /// What is wrong.
        reason: String,
    },
}

impl ReadError {
    pub(crate) fn regex(matcher: &Matcher, error: &regex::Error) -> Self {
        let reason = match error {
            regex::Error::CompiledTooBig(_) => "it is too large: use fewer or smaller repetitions".to_owned(),
            // The library draws a picture over many lines; the last one says what is wrong.
            other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        };
        ReadError::Regex { label: matcher.label.clone(), pattern: matcher.value.clone(), reason }
    }
}
