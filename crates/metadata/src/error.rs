//! What can go wrong, in words for operators. No text in here ever holds a credential.

use std::path::PathBuf;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The record that was asked for by its id is not there.
    #[error("there is no {what} {id:?}")]
    NotFound {
        /// What was looked for: `server`, `agent`, `key`, `token`.
        what: &'static str,
        /// By which id.
        id: String,
    },
    /// A unique value belongs to another record.
    #[error("the {what} {value:?} is taken; choose another one, or change or delete the record that has it")]
    Conflict {
        /// Which value: `id`, `hostname`, `key id`.
        what: &'static str,
        /// The value that is taken.
        value: String,
    },
    /// The caller's value cannot be stored.
    #[error("{what}: {reason}")]
    Invalid {
        /// Which value.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The database does not answer now; the same call may succeed later.
    #[error("the metadata database is unavailable: {reason}")]
    Unavailable {
        /// What it or the system said.
        reason: String,
    },
    /// The database holds what this program cannot read.
    #[error("the metadata database is damaged: {reason}; restore it from a backup")]
    Corrupt {
        /// Where and what.
        reason: String,
    },
    /// The database refused a statement of this program.
    #[error("the metadata database refused a statement: {reason}; this is a fault of Weir, please report it")]
    Internal {
        /// What it said.
        reason: String,
    },
}

/// Why the database cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The configured text names no database.
    #[error("metadata location: {0}")]
    Location(String),
    /// It cannot be reached, created or written.
    #[error("cannot open the metadata database ({place}): {reason}")]
    Unavailable {
        /// Which one, without credentials.
        place: String,
        /// What it or the system said, and what to do.
        reason: String,
    },
    /// The file holds something else.
    #[error("{} is not a SQLite database; move that file away, or name another one", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A newer Weir has changed the schema.
    #[error(
        "the metadata database ({place}) has schema {found}, and this Weir knows {known} at most; \
         start the newer Weir that wrote it, or name another database"
    )]
    Newer {
        /// Which one, without credentials.
        place: String,
        /// Its schema.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// The schema could not be created or changed; nothing was changed.
    #[error("cannot bring the metadata database ({place}) to schema {version}: {reason}")]
    Migration {
        /// Which one, without credentials.
        place: String,
        /// The step that failed.
        version: i64,
        /// What the database said.
        reason: String,
    },
}

/// The message of an error of the database, without sqlx's own prefix, with its causes.
pub(crate) fn reason(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(database) if is_full(&database.code().unwrap_or_default()) => {
            format!("{}; free some space on its disk", database.message())
        }
        sqlx::Error::Database(database) => database.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::PoolTimedOut => {
            "no connection in time: it does not answer, or all connections are busy".to_owned()
        }
        sqlx::Error::PoolClosed => "it is closed, because Weir is stopping".to_owned(),
        sqlx::Error::Tls(cause) => {
            let mut text = format!("TLS: {cause}");
            let mut next = cause.source();
            while let Some(deeper) = next {
                text.push_str(&format!(": {deeper}"));
                next = deeper.source();
            }
            text
        }
        other => other.to_string(),
    }
}

impl From<sqlx::Error> for MetadataError {
    fn from(error: sqlx::Error) -> MetadataError {
        let reason = reason(&error);
        match error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                match () {
                    () if database.is_unique_violation() => MetadataError::Conflict {
                        what: "value",
                        value: database.constraint().unwrap_or_default().to_owned(),
                    },
                    () if is_unavailable(&code) => MetadataError::Unavailable { reason },
                    () if is_corrupt(&code) => MetadataError::Corrupt { reason },
                    // "Data exception": text that PostgreSQL cannot hold, such as U+0000.
                    () if code.len() == 5 && code.starts_with("22") => MetadataError::Invalid { what: "value", reason },
                    () => MetadataError::Internal { reason },
                }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => MetadataError::Corrupt { reason },
            sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Encode(_)
            | sqlx::Error::InvalidArgument(_)
            | sqlx::Error::TypeNotFound { .. }
            | sqlx::Error::ColumnIndexOutOfBounds { .. } => MetadataError::Internal { reason },
            _ => MetadataError::Unavailable { reason },
        }
    }
}

/// SQLite: the primary result code in the low byte (sqlite.org/rescode.html). PostgreSQL: five
/// characters, the first two name the class (PostgreSQL manual, appendix A).
fn is_unavailable(code: &str) -> bool {
    match sqlite_primary(code) {
        // PERM, BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN
        Some(primary) => matches!(primary, 3 | 5 | 6 | 7 | 8 | 9 | 10 | 13 | 14),
        // Connection, authorisation, transaction rollback, resources, limits, operator intervention,
        // system error; and 25006: a standby that is read-only.
        None => {
            code == "25006"
                || ["08", "28", "40", "53", "54", "55", "57", "58"].iter().any(|class| code.starts_with(class))
        }
    }
}

/// FULL of SQLite; "disk full" of PostgreSQL.
fn is_full(code: &str) -> bool {
    sqlite_primary(code).map_or(code == "53100", |primary| primary == 13)
}

/// CORRUPT and NOTADB of SQLite; data and index corruption of PostgreSQL.
fn is_corrupt(code: &str) -> bool {
    match sqlite_primary(code) {
        Some(primary) => matches!(primary, 11 | 26),
        None => code.starts_with("XX"),
    }
}

/// Whether SQLite says that another connection holds the file (BUSY, LOCKED).
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    code(error).and_then(|code| sqlite_primary(&code)).is_some_and(|primary| matches!(primary, 5 | 6))
}

/// Whether SQLite says that the file is no database of its own (NOTADB).
pub(crate) fn is_not_a_database(error: &sqlx::Error) -> bool {
    code(error).and_then(|code| sqlite_primary(&code)) == Some(26)
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Codes of PostgreSQL have five characters; SQLite's are numbers below 10,000.
fn sqlite_primary(code: &str) -> Option<u32> {
    if code.len() == 5 { None } else { code.parse::<u32>().ok().map(|code| code & 0xff) }
}
