//! SQLite and PostgreSQL behind one interface: statements with `$1`, values and rows of three types.
//!
//! An enum of two pools and not `sqlx::Any`: SQLite needs options that `Any` cannot carry, and
//! `BEGIN IMMEDIATE`, because a transaction that reads before it writes would fail at once when
//! another process writes in between.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgPool, PgRow};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Postgres, Row as _, Sqlite, Type};

use crate::MetadataError;

/// How long one statement may take: longer than SQLite waits for another process (5 s), shorter
/// than the network's own limits when PostgreSQL vanishes in the middle.
const STATEMENT_LIMIT: Duration = Duration::from_secs(10);

/// The connections.
#[derive(Clone)]
pub(crate) enum Database {
    /// One connection writes, so that writers of this process queue instead of polling the file's
    /// lock; the others read.
    Sqlite {
        /// One connection.
        write: SqlitePool,
        /// Several, read-only.
        read: SqlitePool,
        /// The file that they have open.
        file: Arc<OpenFile>,
    },
    /// PostgreSQL.
    Postgres(PgPool),
}

/// Which file is open. Connections go on with a file that was deleted or replaced under its name, and
/// what they write then is gone with them.
#[derive(Debug)]
pub(crate) struct OpenFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl OpenFile {
    pub(crate) fn at(path: &Path) -> io::Result<OpenFile> {
        Ok(OpenFile { path: path.to_owned(), identity: identity(path)? })
    }

    /// Whether the name still leads to the open file.
    fn check(&self) -> Result<(), MetadataError> {
        if identity(&self.path).is_ok_and(|there| there == self.identity) {
            return Ok(());
        }
        let reason = format!(
            "{} was deleted or replaced while Weir runs, so nothing can be kept in it; stop Weir, put the file where it \
             was, and start Weir again",
            self.path.display()
        );
        Err(MetadataError::Unavailable { reason })
    }
}

/// Device and inode.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// A value for a placeholder.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(Option<String>),
    Integer(Option<i64>),
    Real(Option<f64>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Value {
        Value::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Integer(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Value {
        Value::Integer(number)
    }
}

impl From<Option<f64>> for Value {
    fn from(number: Option<f64>) -> Value {
        Value::Real(number)
    }
}

/// A row of an answer.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The value of a column.
    pub(crate) fn get<'row, T>(&'row self, column: &'static str) -> Result<T, MetadataError>
    where
        T: sqlx::Decode<'row, Sqlite> + Type<Sqlite> + sqlx::Decode<'row, Postgres> + Type<Postgres>,
    {
        match self {
            Row::Sqlite(row) => Ok(row.try_get(column)?),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    /// The JSON in a column of text.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, MetadataError> {
        let text: String = self.get(column)?;
        serde_json::from_str(&text)
            .map_err(|error| MetadataError::Corrupt { reason: format!("the JSON in column {column}: {error}") })
    }
}

/// JSON for a column of text.
pub(crate) fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, MetadataError> {
    serde_json::to_string(value).map_err(|error| MetadataError::Invalid { what, reason: error.to_string() })
}

/// Binds the values in their order. A macro-free twin per database, because their types differ.
fn sqlite_query(
    sql: &'static str,
    values: Vec<Value>,
) -> sqlx::query::Query<'static, Sqlite, sqlx::sqlite::SqliteArguments> {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Integer(number) => query.bind(number),
        Value::Real(number) => query.bind(number),
    })
}

fn postgres_query(
    sql: &'static str,
    values: Vec<Value>,
) -> sqlx::query::Query<'static, Postgres, sqlx::postgres::PgArguments> {
    values.into_iter().fold(sqlx::query(sql), |query, value| match value {
        Value::Text(text) => query.bind(text),
        Value::Integer(number) => query.bind(number),
        Value::Real(number) => query.bind(number),
    })
}

async fn limited<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, MetadataError> {
    match tokio::time::timeout(STATEMENT_LIMIT, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(MetadataError::Unavailable {
            reason: format!("no answer within {} s; whether the change was made is unknown", STATEMENT_LIMIT.as_secs()),
        }),
    }
}

impl Database {
    /// Rows of a statement that only reads.
    pub(crate) async fn read(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, MetadataError> {
        match self {
            Database::Sqlite { read, .. } => sqlite_rows(read, sql, values).await,
            Database::Postgres(pool) => postgres_rows(pool, sql, values).await,
        }
    }

    /// One statement that writes, in a transaction of its own, and the rows it returns.
    pub(crate) async fn write(&self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, MetadataError> {
        match self {
            Database::Sqlite { write, file, .. } => {
                file.check()?;
                sqlite_rows(write, sql, values).await
            }
            Database::Postgres(pool) => postgres_rows(pool, sql, values).await,
        }
    }

    /// Starts a transaction that may write. Dropping it undoes it.
    pub(crate) async fn begin(&self) -> Result<Transaction, MetadataError> {
        match self {
            Database::Sqlite { write, file, .. } => {
                file.check()?;
                Ok(Transaction::Sqlite(limited(write.begin_with("BEGIN IMMEDIATE")).await?))
            }
            Database::Postgres(pool) => Ok(Transaction::Postgres(limited(pool.begin()).await?)),
        }
    }

    /// Whether it can be read, and what is written would last.
    pub(crate) async fn check(&self) -> Result<(), MetadataError> {
        if let Database::Sqlite { file, .. } = self {
            file.check()?;
        }
        self.read("SELECT 1 AS one", vec![]).await.map(drop)
    }

    pub(crate) async fn close(&self) {
        match self {
            Database::Sqlite { write, read, .. } => {
                read.close().await;
                write.close().await;
            }
            Database::Postgres(pool) => pool.close().await,
        }
    }
}

async fn sqlite_rows(pool: &SqlitePool, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, MetadataError> {
    let rows = limited(sqlite_query(sql, values).fetch_all(pool)).await?;
    Ok(rows.into_iter().map(Row::Sqlite).collect())
}

async fn postgres_rows(pool: &PgPool, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, MetadataError> {
    let rows = limited(postgres_query(sql, values).fetch_all(pool)).await?;
    Ok(rows.into_iter().map(Row::Postgres).collect())
}

/// A transaction. On SQLite it holds the right to write from its start.
pub(crate) enum Transaction {
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Transaction {
    /// One statement and the rows it returns.
    pub(crate) async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, MetadataError> {
        match self {
            Transaction::Sqlite(transaction) => {
                let rows = limited(sqlite_query(sql, values).fetch_all(&mut **transaction)).await?;
                Ok(rows.into_iter().map(Row::Sqlite).collect())
            }
            Transaction::Postgres(transaction) => {
                let rows = limited(postgres_query(sql, values).fetch_all(&mut **transaction)).await?;
                Ok(rows.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// Several statements in one text, without values.
    pub(crate) async fn script(&mut self, sql: &'static str) -> Result<(), MetadataError> {
        match self {
            Transaction::Sqlite(transaction) => {
                limited(sqlx::raw_sql(sql).execute(&mut **transaction)).await?;
            }
            Transaction::Postgres(transaction) => {
                limited(sqlx::raw_sql(sql).execute(&mut **transaction)).await?;
            }
        }
        Ok(())
    }

    /// Waits until no other transaction holds this name. SQLite has one writer anyway.
    pub(crate) async fn lock(&mut self, name: &str) -> Result<(), MetadataError> {
        if matches!(self, Transaction::Postgres(_)) {
            self.rows("SELECT 1 AS held FROM pg_advisory_xact_lock(hashtext($1))", vec![name.into()]).await?;
        }
        Ok(())
    }

    /// Makes it durable.
    pub(crate) async fn commit(self) -> Result<(), MetadataError> {
        match self {
            Transaction::Sqlite(transaction) => limited(transaction.commit()).await,
            Transaction::Postgres(transaction) => limited(transaction.commit()).await,
        }
    }
}

/// The first row of an answer.
pub(crate) fn first(rows: Vec<Row>) -> Option<Row> {
    rows.into_iter().next()
}

/// All rows of an answer as records.
pub(crate) fn all<T>(rows: &[Row], read: fn(&Row) -> Result<T, MetadataError>) -> Result<Vec<T>, MetadataError> {
    rows.iter().map(read).collect()
}
