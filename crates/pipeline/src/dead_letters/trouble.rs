//! What can go wrong in the file.

use std::io;

/// Why a transaction failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The disk said no. Nothing of the transaction is there.
    Disk(io::Error),
    /// The file holds something else than was written.
    Damage(String),
    /// The file was closed after a failure in another thread: open it again.
    Closed,
    /// Another process has it.
    Taken,
}

pub(super) type Result<T> = std::result::Result<T, Trouble>;

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        match error {
            // A file that ends too early, or that is no database at all.
            redb::Error::Io(error)
                if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                Trouble::Damage(error.to_string())
            }
            redb::Error::Io(error) => Trouble::Disk(error),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed | redb::Error::LockPoisoned(_) => Trouble::Closed,
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Trouble::Taken,
            error @ (redb::Error::ValueTooLarge(_) | redb::Error::Unsupported) => {
                Trouble::Disk(io::Error::other(error))
            }
            error => Trouble::Damage(error.to_string()),
        }
    }
}

impl From<redb::StorageError> for Trouble {
    fn from(error: redb::StorageError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::TableError> for Trouble {
    fn from(error: redb::TableError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::TransactionError> for Trouble {
    fn from(error: redb::TransactionError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::CommitError> for Trouble {
    fn from(error: redb::CommitError) -> Self {
        redb::Error::from(error).into()
    }
}

impl From<redb::DatabaseError> for Trouble {
    fn from(error: redb::DatabaseError) -> Self {
        redb::Error::from(error).into()
    }
}
