//! Gaps: stretches of time during which the server heard nothing from a host.

use crate::database::{Row, all};
use crate::{Metadata, MetadataError};

/// A stretch of time without data of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last sign of life before it, unix milliseconds.
    pub from_ms: i64,
    /// The first one after it, unix milliseconds.
    pub to_ms: i64,
}

fn gap(row: &Row) -> Result<Gap, MetadataError> {
    Ok(Gap { from_ms: row.get("from_ms")?, to_ms: row.get("to_ms")? })
}

impl Metadata {
    /// Keeps a gap; one with the same start grows. The newest 1,000 of a host are kept.
    ///
    /// # Errors
    /// [`MetadataError::Invalid`] when it ends before it starts.
    pub async fn record_gap(&self, hostname: &str, from_ms: i64, to_ms: i64) -> Result<(), MetadataError> {
        if to_ms < from_ms {
            return Err(MetadataError::Invalid { what: "gap", reason: "it ends before it starts".to_owned() });
        }
        let mut transaction = self.database.begin().await?;
        transaction
            .rows(
                "INSERT INTO gaps (hostname, from_ms, to_ms) VALUES ($1, $2, $3) ON CONFLICT (hostname, from_ms) \
                 DO UPDATE SET to_ms = CASE WHEN excluded.to_ms > gaps.to_ms THEN excluded.to_ms ELSE gaps.to_ms END",
                vec![hostname.into(), from_ms.into(), to_ms.into()],
            )
            .await?;
        transaction
            .rows(
                "DELETE FROM gaps WHERE hostname = $1 AND from_ms < (SELECT from_ms FROM gaps WHERE hostname = $1 \
                 ORDER BY from_ms DESC LIMIT 1 OFFSET 999)",
                vec![hostname.into()],
            )
            .await?;
        transaction.commit().await
    }

    /// The gaps of a host that touch this time, oldest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn gaps(&self, hostname: &str, from_ms: i64, to_ms: i64) -> Result<Vec<Gap>, MetadataError> {
        let sql =
            "SELECT from_ms, to_ms FROM gaps WHERE hostname = $1 AND to_ms >= $2 AND from_ms <= $3 ORDER BY from_ms";
        all(&self.database.read(sql, vec![hostname.into(), from_ms.into(), to_ms.into()]).await?, gap)
    }
}
