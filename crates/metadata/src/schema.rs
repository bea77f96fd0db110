//! The schema and its changes, embedded in the program.
//!
//! All missing steps run in one transaction that nobody else can run at the same time: on SQLite it
//! holds the right to write, on PostgreSQL a named lock. (sqlx's own migrator takes no lock on SQLite.)

use crate::database::{Database, Transaction, first};
use crate::{MetadataError, OpenError};

/// One step: its text runs on both databases.
struct Step {
    version: i64,
    sql: &'static str,
}

/// All steps, oldest first. A step that was released is never changed.
const STEPS: &[Step] = &[Step { version: 1, sql: include_str!("../migrations/0001_first.sql") }];

/// Brings the database to the newest step.
pub(crate) async fn bring_up(database: &Database, place: &str) -> Result<(), OpenError> {
    let known = STEPS.iter().map(|step| step.version).max().unwrap_or(0);
    let mut version = 0;
    let run = async {
        let mut transaction = database.begin().await?;
        let found = current(&mut transaction).await?;
        if found > known {
            return Ok(Some(found));
        }
        for step in STEPS.iter().filter(|step| step.version > found) {
            version = step.version;
            transaction.script(step.sql).await?;
            transaction.rows("INSERT INTO weir_schema (version) VALUES ($1)", vec![step.version.into()]).await?;
        }
        transaction.commit().await?;
        Ok::<_, MetadataError>(None)
    };
    match run.await {
        Ok(None) => Ok(()),
        Ok(Some(found)) => Err(OpenError::Newer { place: place.to_owned(), found, known }),
        Err(MetadataError::Unavailable { reason }) => Err(OpenError::Unavailable { place: place.to_owned(), reason }),
        Err(MetadataError::Internal { reason } | MetadataError::Corrupt { reason }) => {
            Err(OpenError::Migration { place: place.to_owned(), version, reason })
        }
        Err(other) => Err(OpenError::Migration { place: place.to_owned(), version, reason: other.to_string() }),
    }
}

/// The newest step that was applied; 0 in an empty database.
async fn current(transaction: &mut Transaction) -> Result<i64, MetadataError> {
    transaction.lock("weir_schema").await?;
    transaction.script("CREATE TABLE IF NOT EXISTS weir_schema (version BIGINT NOT NULL PRIMARY KEY)").await?;
    let rows = transaction.rows("SELECT COALESCE(MAX(version), 0) AS version FROM weir_schema", vec![]).await?;
    first(rows).map_or(Ok(0), |row| row.get("version"))
}
