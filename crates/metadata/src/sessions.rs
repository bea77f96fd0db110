//! One-time login tokens, the sessions of browsers, and the removal of what is over.

use crate::database::{Row, first};
use crate::{LoginText, Metadata, MetadataError, Scopes, SessionText, random};

/// How long a login token works, in milliseconds: 10 minutes.
pub const LOGIN_TOKEN_LIFE_MS: i64 = 10 * 60 * 1_000;
/// How long a session lives after its last use, in milliseconds: 30 days.
pub const SESSION_LIFE_MS: i64 = 30 * DAY_MS;
/// A session in use is extended once an hour, not by every request.
const EXTEND_AFTER_MS: i64 = 60 * 60 * 1_000;
/// How long keys and enrolment tokens stay listed after their end: whoever uses them late is told
/// "expired" and not "unknown".
const KEEP_ENDED_MS: i64 = 30 * DAY_MS;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// A person at the dashboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Who it is, as the login token said.
    pub name: String,
    /// What they may do.
    pub scopes: Scopes,
    /// When they logged in, unix milliseconds.
    pub created_ms: i64,
    /// When it ends unless it is used, unix milliseconds.
    pub expires_ms: i64,
}

fn session(row: &Row) -> Result<Session, MetadataError> {
    Ok(Session {
        name: row.get("name")?,
        scopes: Scopes::SESSION,
        created_ms: row.get("created_ms")?,
        expires_ms: row.get("expires_ms")?,
    })
}

impl Metadata {
    /// Creates a one-time login token that works for 10 minutes.
    ///
    /// # Errors
    /// The database fails.
    pub async fn create_login_token(&self, name: &str, now_ms: i64) -> Result<LoginText, MetadataError> {
        let text = random::secret()?;
        let values = vec![random::hash(&text).into(), name.into(), now_ms.saturating_add(LOGIN_TOKEN_LIFE_MS).into()];
        let sql = "INSERT INTO login_tokens (token_hash, name, expires_ms) VALUES ($1, $2, $3)";
        self.database.write(sql, values).await?;
        Ok(LoginText::new(text))
    }

    /// Turns a login token into a session; `None` when it is unknown, expired or was used.
    ///
    /// # Errors
    /// The database fails.
    pub async fn redeem_login_token(
        &self,
        text: &str,
        now_ms: i64,
    ) -> Result<Option<(SessionText, Session)>, MetadataError> {
        let mut transaction = self.database.begin().await?;
        let sql = "DELETE FROM login_tokens WHERE token_hash = $1 AND expires_ms > $2 RETURNING name";
        let taken = transaction.rows(sql, vec![random::hash(text).into(), now_ms.into()]).await?;
        let Some(row) = first(taken) else { return Ok(None) };
        let session = Session {
            name: row.get("name")?,
            scopes: Scopes::SESSION,
            created_ms: now_ms,
            expires_ms: now_ms.saturating_add(SESSION_LIFE_MS),
        };
        let text = random::secret()?;
        let values =
            vec![random::hash(&text).into(), session.name.as_str().into(), now_ms.into(), session.expires_ms.into()];
        let sql = "INSERT INTO sessions (token_hash, name, created_ms, expires_ms) VALUES ($1, $2, $3, $4)";
        transaction.rows(sql, values).await?;
        transaction.commit().await?;
        Ok(Some((SessionText::new(text), session)))
    }

    /// The session with this text, whose life starts anew; `None` when it is unknown or over.
    ///
    /// # Errors
    /// The database fails.
    pub async fn session(&self, text: &str, now_ms: i64) -> Result<Option<Session>, MetadataError> {
        let hash = random::hash(text);
        let sql = "SELECT name, created_ms, expires_ms FROM sessions WHERE token_hash = $1 AND expires_ms > $2";
        let rows = self.database.read(sql, vec![hash.as_str().into(), now_ms.into()]).await?;
        let Some(mut session) = rows.first().map(session).transpose()? else { return Ok(None) };
        let expires_ms = now_ms.saturating_add(SESSION_LIFE_MS);
        if expires_ms.saturating_sub(session.expires_ms) >= EXTEND_AFTER_MS {
            let sql = "UPDATE sessions SET expires_ms = $2 WHERE token_hash = $1 AND expires_ms < $2";
            self.database.write(sql, vec![hash.into(), expires_ms.into()]).await?;
            session.expires_ms = expires_ms;
        }
        Ok(Some(session))
    }

    /// Ends a session; one that is over stays so.
    ///
    /// # Errors
    /// The database fails.
    pub async fn end_session(&self, text: &str) -> Result<(), MetadataError> {
        let sql = "DELETE FROM sessions WHERE token_hash = $1";
        self.database.write(sql, vec![random::hash(text).into()]).await.map(drop)
    }

    /// Removes login tokens and sessions that are over, and keys and enrolment tokens that ended 30
    /// days ago. Returns how many rows went. Once an hour is plenty.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sweep(&self, now_ms: i64) -> Result<usize, MetadataError> {
        let long_ago = now_ms.saturating_sub(KEEP_ENDED_MS);
        let steps = [
            ("DELETE FROM login_tokens WHERE expires_ms <= $1 RETURNING token_hash", now_ms),
            ("DELETE FROM sessions WHERE expires_ms <= $1 RETURNING token_hash", now_ms),
            ("DELETE FROM enrolment_tokens WHERE expires_ms <= $1 OR revoked_ms <= $1 RETURNING id", long_ago),
            ("DELETE FROM api_keys WHERE expires_ms <= $1 OR revoked_ms <= $1 RETURNING id", long_ago),
        ];
        let mut removed = 0;
        for (sql, before_ms) in steps {
            removed += self.database.write(sql, vec![before_ms.into()]).await?.len();
        }
        Ok(removed)
    }
}
