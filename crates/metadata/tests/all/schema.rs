//! Opening: again, at once, newer, foreign, closed.

use sqlx::{Connection, PgConnection, SqliteConnection};
use weir_metadata::{Location, Metadata, MetadataError, OpenError};

use crate::suite::open;

/// Runs SQL past the program.
pub async fn execute(location: &Location, sql: &'static str) {
    match location {
        Location::Sqlite(path) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
            let mut connection = SqliteConnection::connect_with(&options).await.expect("connects");
            sqlx::raw_sql(sql).execute(&mut connection).await.expect("runs");
            connection.close().await.expect("closes");
        }
        Location::Url(url) => {
            let mut connection = PgConnection::connect(url.expose()).await.expect("connects");
            sqlx::raw_sql(sql).execute(&mut connection).await.expect("runs");
            connection.close().await.expect("closes");
        }
    }
}

pub async fn opened_again(location: Location) {
    let metadata = open(&location).await;
    let server = metadata.ensure_server("web-1", Some("weir"), 1).await.expect("writes");
    metadata.close().await;
    let again = open(&location).await;
    assert_eq!(again.servers().await, Ok(vec![server]));
    assert_eq!(again.place(), location.to_string());
}

pub async fn opened_at_once(location: Location) {
    let tasks: Vec<_> = (0..8)
        .map(|number| {
            let location = location.clone();
            tokio::spawn(async move {
                let metadata = open(&location).await;
                metadata.ensure_server(&format!("web-{number}"), None, 1).await.expect("writes");
                metadata.close().await;
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(open(&location).await.servers().await.expect("lists").len(), 8);
}

pub async fn newer(location: Location) {
    open(&location).await.close().await;
    execute(&location, "INSERT INTO weir_schema (version) VALUES (99)").await;
    let error = Metadata::open(&location).await.expect_err("a newer schema");
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error:?}");
    assert!(error.to_string().contains("start the newer Weir"), "{error}");
}

pub async fn foreign_table(location: Location) {
    execute(&location, "CREATE TABLE alerts (mine TEXT); INSERT INTO alerts (mine) VALUES ('keep')").await;
    let error = Metadata::open(&location).await.expect_err("a foreign table");
    assert!(
        matches!(&error, OpenError::Migration { version: 1, reason, .. } if reason.contains("alerts")),
        "{error:?}"
    );
    // Nothing of the failed step stayed: these would fail otherwise.
    execute(&location, "CREATE TABLE servers (mine TEXT); CREATE TABLE weir_schema (mine TEXT)").await;
    execute(&location, "UPDATE alerts SET mine = 'kept' WHERE mine = 'keep'").await;
}

pub async fn closed(location: Location) {
    let metadata = open(&location).await;
    let clone = metadata.clone();
    metadata.close().await;
    let error = clone.servers().await.expect_err("closed");
    assert!(matches!(&error, MetadataError::Unavailable { reason } if reason.contains("stopping")), "{error:?}");
    let error = clone.heartbeat("a", 1, &serde_json::Value::Null).await.expect_err("closed");
    assert!(matches!(error, MetadataError::Unavailable { .. }), "{error:?}");
}
