//! Alerts that other systems sent.

use serde_json::Value as Json;

use crate::database::{Row, all, to_json};
use crate::{Metadata, MetadataError};

/// An imported alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Chosen by the caller: storing the same id again replaces it.
    pub id: String,
    /// When it came, unix milliseconds.
    pub received_ms: i64,
    /// Who sent it, such as `alertmanager`.
    pub source: String,
    /// As the source calls it: `critical`, `warning`, ...
    pub severity: Option<String>,
    /// One line for people.
    pub title: String,
    /// The server it is about: id or hostname.
    pub server: Option<String>,
    /// As the source calls it: `firing`, `resolved`, ...
    pub status: Option<String>,
    /// What the source recognises it by.
    pub fingerprint: Option<String>,
    /// All of it, as it came.
    pub body: Json,
}

fn alert(row: &Row) -> Result<Alert, MetadataError> {
    Ok(Alert {
        id: row.get("id")?,
        received_ms: row.get("received_ms")?,
        source: row.get("source")?,
        severity: row.get("severity")?,
        title: row.get("title")?,
        server: row.get("server")?,
        status: row.get("status")?,
        fingerprint: row.get("fingerprint")?,
        body: row.json("body")?,
    })
}

impl Metadata {
    /// Stores alerts, all or none. The newest 10,000 are kept.
    ///
    /// # Errors
    /// The database fails.
    pub async fn store_alerts(&self, alerts: Vec<Alert>) -> Result<(), MetadataError> {
        let mut transaction = self.database.begin().await?;
        for alert in alerts {
            let values = vec![
                alert.id.into(),
                alert.received_ms.into(),
                alert.source.into(),
                alert.severity.into(),
                alert.title.into(),
                alert.server.into(),
                alert.status.into(),
                alert.fingerprint.into(),
                to_json("body", &alert.body)?.into(),
            ];
            transaction
                .rows(
                    "INSERT INTO alerts (id, received_ms, source, severity, title, server, status, fingerprint, body) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO UPDATE SET \
                     received_ms = excluded.received_ms, source = excluded.source, severity = excluded.severity, \
                     title = excluded.title, server = excluded.server, status = excluded.status, \
                     fingerprint = excluded.fingerprint, body = excluded.body",
                    values,
                )
                .await?;
        }
        transaction
            .rows(
                "DELETE FROM alerts WHERE (received_ms, id) < \
                 (SELECT received_ms, id FROM alerts ORDER BY received_ms DESC, id DESC LIMIT 1 OFFSET 9999)",
                vec![],
            )
            .await?;
        transaction.commit().await
    }

    /// The newest alerts that came before `before_ms`, newest first, `limit` at most.
    ///
    /// # Errors
    /// The database fails.
    pub async fn list_alerts(&self, limit: u32, before_ms: i64) -> Result<Vec<Alert>, MetadataError> {
        let sql = "SELECT id, received_ms, source, severity, title, server, status, fingerprint, body FROM alerts \
                   WHERE received_ms < $1 ORDER BY received_ms DESC, id DESC LIMIT $2";
        all(&self.database.read(sql, vec![before_ms.into(), i64::from(limit).into()]).await?, alert)
    }
}
