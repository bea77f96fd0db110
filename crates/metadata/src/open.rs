//! From a location to connections.

use std::fs::{OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::Instant;

use crate::database::{Database, OpenFile};
use crate::error::{is_busy, is_not_a_database, reason};
use crate::location::check_postgres;
use crate::{Location, OpenError, schema};

/// How long SQLite waits for a process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait for a connection, at the start and later.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Connections that read, SQLite; all of them, PostgreSQL.
const CONNECTIONS: u32 = 4;

pub(crate) async fn open(location: &Location) -> Result<Database, OpenError> {
    let database = match location {
        Location::Sqlite(path) => open_sqlite(path).await?,
        Location::Url(url) => open_postgres(location, url.expose()).await?,
    };
    match schema::bring_up(&database, &location.to_string()).await {
        Ok(()) => Ok(database),
        Err(error) => {
            database.close().await;
            Err(error)
        }
    }
}

async fn open_sqlite(path: &Path) -> Result<Database, OpenError> {
    create_private(path).map_err(|error| unavailable_file(path, &error))?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .disable_statement_logging();
    let write = first_connection(path, &options).await?;
    // A reader never changes the journal's mode: it is WAL since the connection above.
    let read_options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("query_only", "ON")
        .disable_statement_logging();
    let read = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(CONNECT_LIMIT)
        .max_lifetime(None)
        .connect_lazy_with(read_options);
    let file = OpenFile::at(path).map_err(|error| unavailable_file(path, &error))?;
    Ok(Database::Sqlite { write, read, file: Arc::new(file) })
}

/// Only the owner may read what is in there, and in the files that SQLite puts beside it: those
/// take the mode of the first.
fn create_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn unavailable_file(path: &Path, error: &io::Error) -> OpenError {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => "; create its folder",
        io::ErrorKind::PermissionDenied => "; let Weir's user own that file and its folder, or name another place",
        io::ErrorKind::ReadOnlyFilesystem => "; the file system is mounted read-only, name another place",
        io::ErrorKind::IsADirectory => "; name a file in that folder",
        _ => "",
    };
    OpenError::Unavailable { place: path.display().to_string(), reason: format!("{error}{advice}") }
}

/// Opens the connection that writes. The change to WAL does not wait for other processes by itself
/// (sqlite.org/wal.html: it needs the file for itself), so that two first starts at once would fail.
async fn first_connection(path: &Path, options: &SqliteConnectOptions) -> Result<SqlitePool, OpenError> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .min_connections(1)
        .acquire_timeout(CONNECT_LIMIT)
        .idle_timeout(None)
        .max_lifetime(None)
        // After errors such as a full disk SQLite undoes the transaction by itself (sqlite.org/lang_transaction.html),
        // sqlx cannot undo it again, and would refuse every later one on this connection.
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }));
    loop {
        let error = match pool.clone().connect_with(options.clone()).await {
            Ok(pool) => return Ok(pool),
            Err(error) => error,
        };
        if is_not_a_database(&error) {
            return Err(OpenError::NotADatabase { path: path.to_owned() });
        }
        if !is_busy(&error) || Instant::now() >= deadline {
            return Err(OpenError::Unavailable { place: path.display().to_string(), reason: reason(&error) });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn open_postgres(location: &Location, url: &str) -> Result<Database, OpenError> {
    check_postgres(url).map_err(OpenError::Location)?;
    let unavailable = |reason: String| OpenError::Unavailable { place: location.to_string(), reason };
    let options = PgConnectOptions::from_str(url)
        .map_err(|error| OpenError::Location(format!("the PostgreSQL URL cannot be used: {}", reason(&error))))?
        .disable_statement_logging();
    let options = if options.get_application_name().is_none() { options.application_name("weir") } else { options };
    // Once without the pool: that would hide the reason behind its own time limit.
    match tokio::time::timeout(CONNECT_LIMIT, options.connect()).await {
        Ok(Ok(connection)) => connection.close().await.map_err(|error| unavailable(reason(&error)))?,
        Ok(Err(error)) => return Err(unavailable(reason(&error))),
        Err(_) => return Err(unavailable(format!("no answer within {} s", CONNECT_LIMIT.as_secs()))),
    }
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECT_LIMIT);
    Ok(Database::Postgres(pool.connect_lazy_with(options)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transaction_that_sqlite_undid_by_itself_stops_no_later_one() {
        let folder = tempfile::tempdir().expect("folder");
        let location = Location::Sqlite(folder.path().join("metadata.sqlite"));
        let database = open(&location).await.expect("database");
        for _ in 0..3 {
            let mut transaction = database.begin().await.expect("a connection that can begin");
            // As after a full disk.
            transaction.rows("ROLLBACK", vec![]).await.expect("undone");
            drop(transaction);
        }
        let mut transaction = database.begin().await.expect("a connection that can begin");
        transaction.rows("INSERT INTO gaps (hostname, from_ms, to_ms) VALUES ('a', 1, 2)", vec![]).await.expect("row");
        transaction.commit().await.expect("durable");
        assert_eq!(database.read("SELECT to_ms FROM gaps", vec![]).await.expect("rows").len(), 1);
    }
}
