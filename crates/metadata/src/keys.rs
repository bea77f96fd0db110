//! API keys: created, imported, verified, revoked.

use std::time::Instant;

use subtle::ConstantTimeEq as _;

use crate::database::{Row, Transaction, all};
use crate::{KeyText, Metadata, MetadataError, Scopes, random};

/// The least characters of a key that an operator chooses.
pub const MINIMUM_KEY_CHARACTERS: usize = 16;
const ID_CHARACTERS: usize = 12;
const SECRET_CHARACTERS: usize = 43;

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its public part: 12 characters of base 32, in lower case.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// The only agent it may speak for.
    pub agent_id: Option<String>,
    /// When it was created, unix milliseconds.
    pub created_ms: i64,
    /// From when on it is refused, unix milliseconds.
    pub expires_ms: Option<i64>,
    /// When it was last used, unix milliseconds; written once a minute at most.
    pub last_used_ms: Option<i64>,
    /// When it was revoked, unix milliseconds.
    pub revoked_ms: Option<i64>,
}

impl Key {
    fn is_valid(&self, now_ms: i64) -> bool {
        self.revoked_ms.is_none() && self.expires_ms.is_none_or(|expires| now_ms < expires)
    }
}

/// A key to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// What people call it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// The only agent it may speak for; `None`: any.
    pub agent_id: Option<String>,
    /// From when on it is refused, unix milliseconds; `None`: never.
    pub expires_ms: Option<i64>,
}

/// `weir_<id>_<secret>`, cut.
fn cut(text: &str) -> Option<(&str, &str)> {
    let (id, rest) = text.strip_prefix("weir_")?.split_at_checked(ID_CHARACTERS)?;
    let secret = rest.strip_prefix('_').filter(|secret| secret.len() == SECRET_CHARACTERS)?;
    let plain = id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    plain.then_some((id, secret))
}

fn key(row: &Row) -> Result<Key, MetadataError> {
    let scopes: String = row.get("scopes")?;
    Ok(Key {
        id: row.get("id")?,
        name: row.get("name")?,
        scopes: scopes
            .parse()
            .map_err(|error| MetadataError::Corrupt { reason: format!("scopes of a key: {error}") })?,
        agent_id: row.get("agent_id")?,
        created_ms: row.get("created_ms")?,
        expires_ms: row.get("expires_ms")?,
        last_used_ms: row.get("last_used_ms")?,
        revoked_ms: row.get("revoked_ms")?,
    })
}

/// Creates a key within a transaction.
pub(crate) async fn create(
    transaction: &mut Transaction,
    new: NewKey,
    now_ms: i64,
) -> Result<(Key, KeyText), MetadataError> {
    let id = random::base32::<ID_CHARACTERS>()?.to_ascii_lowercase();
    let secret = random::secret()?;
    let values = vec![
        id.as_str().into(),
        new.name.as_str().into(),
        random::hash(&secret).into(),
        new.scopes.to_string().into(),
        new.agent_id.clone().into(),
        now_ms.into(),
        new.expires_ms.into(),
    ];
    transaction
        .rows(
            "INSERT INTO api_keys (id, name, secret_hash, scopes, imported, agent_id, created_ms, expires_ms) \
             VALUES ($1, $2, $3, $4, 0, $5, $6, $7)",
            values,
        )
        .await?;
    let text = KeyText::new(format!("weir_{id}_{secret}"));
    let key = Key {
        id,
        name: new.name,
        scopes: new.scopes,
        agent_id: new.agent_id,
        created_ms: now_ms,
        expires_ms: new.expires_ms,
        last_used_ms: None,
        revoked_ms: None,
    };
    Ok((key, text))
}

fn check_scopes(scopes: Scopes) -> Result<(), MetadataError> {
    if scopes == Scopes::default() {
        let reason = "a key needs at least one of ingest, read, admin".to_owned();
        return Err(MetadataError::Invalid { what: "scopes", reason });
    }
    Ok(())
}

impl Metadata {
    /// Creates a key. Its text is not kept: it cannot be shown again.
    ///
    /// # Errors
    /// [`MetadataError::Invalid`] without any scope.
    pub async fn create_key(&self, new: NewKey, now_ms: i64) -> Result<(Key, KeyText), MetadataError> {
        check_scopes(new.scopes)?;
        let mut transaction = self.database.begin().await?;
        let created = create(&mut transaction, new, now_ms).await?;
        transaction.commit().await?;
        Ok(created)
    }

    /// Makes a text that an operator chose a key (`WEIR_ADMIN_KEY`). Doing it again changes nothing
    /// but name and scopes, and makes a key that was revoked or has expired valid again. A key that was imported under the
    /// same name with another text is revoked: the new text replaces it.
    ///
    /// # Errors
    /// [`MetadataError::Invalid`] for a text under 16 characters, with blanks at its ends or without
    /// scopes; [`MetadataError::Conflict`] for a `weir_<id>_<secret>` whose id is another key's.
    pub async fn import_key(
        &self,
        text: &KeyText,
        scopes: Scopes,
        name: &str,
        now_ms: i64,
    ) -> Result<Key, MetadataError> {
        check_scopes(scopes)?;
        check_own_text(text.expose())?;
        let (id, secret) = match cut(text.expose()) {
            Some((id, secret)) => (id.to_owned(), secret),
            None => (random::base32::<ID_CHARACTERS>()?.to_ascii_lowercase(), text.expose()),
        };
        let hash = random::hash(secret);
        let mut transaction = self.database.begin().await?;
        let taken = "SELECT id FROM api_keys WHERE id = $1 AND secret_hash <> $2";
        if !transaction.rows(taken, vec![id.as_str().into(), hash.as_str().into()]).await?.is_empty() {
            return Err(MetadataError::Conflict { what: "key id", value: id });
        }
        let replaced = "UPDATE api_keys SET revoked_ms = $3 \
                        WHERE imported = 1 AND name = $1 AND secret_hash <> $2 AND revoked_ms IS NULL";
        transaction.rows(replaced, vec![name.into(), hash.as_str().into(), now_ms.into()]).await?;
        let rows = transaction
            .rows(
                "INSERT INTO api_keys (id, name, secret_hash, scopes, imported, created_ms) VALUES ($1, $2, $3, $4, 1, $5) \
                 ON CONFLICT (secret_hash) DO UPDATE SET name = excluded.name, scopes = excluded.scopes, \
                 imported = 1, agent_id = NULL, expires_ms = NULL, revoked_ms = NULL \
                 RETURNING id, name, scopes, agent_id, created_ms, expires_ms, last_used_ms, revoked_ms",
                vec![id.as_str().into(), name.into(), hash.into(), scopes.to_string().into(), now_ms.into()],
            )
            .await?;
        let imported = key(rows.first().ok_or(MetadataError::NotFound { what: "key", id })?)?;
        transaction.commit().await?;
        self.key_cache.forget_all();
        Ok(imported)
    }

    /// The key with this text; `None` when it is unknown, revoked or expired.
    ///
    /// A valid key is remembered for up to 5 seconds: what this process revokes is refused at once,
    /// what another process revokes (`weir keys revoke`) within that time.
    ///
    /// # Errors
    /// The database fails.
    pub async fn verify_key(&self, text: &str, now_ms: i64) -> Result<Option<Key>, MetadataError> {
        let digest = random::digest(text);
        if let Some(key) = self.key_cache.get(&digest, Instant::now()) {
            return Ok(Some(key).filter(|key| key.is_valid(now_ms)));
        }
        match cut(text) {
            Some((id, secret)) => self.check_key(digest, KEY_BY_ID, id.to_owned(), secret, now_ms).await,
            None => self.check_key(digest, IMPORTED_KEY_BY_HASH, random::hash(text), text, now_ms).await,
        }
    }

    /// The key with this id and secret; otherwise as [`Metadata::verify_key`].
    ///
    /// # Errors
    /// The database fails.
    pub async fn verify_key_pair(&self, id: &str, secret: &str, now_ms: i64) -> Result<Option<Key>, MetadataError> {
        // No text of a key has this byte, so that a pair never meets a text.
        let digest = random::digest(&format!("{id}\0{secret}"));
        if let Some(key) = self.key_cache.get(&digest, Instant::now()) {
            return Ok(Some(key).filter(|key| key.is_valid(now_ms)));
        }
        self.check_key(digest, KEY_BY_ID, id.to_owned(), secret, now_ms).await
    }

    async fn check_key(
        &self,
        digest: [u8; 32],
        sql: &'static str,
        value: String,
        secret: &str,
        now_ms: i64,
    ) -> Result<Option<Key>, MetadataError> {
        if value.contains('\0') {
            return Ok(None); // PostgreSQL has no such text
        }
        let (generation, at) = (self.key_cache.generation(), Instant::now());
        let rows = self.database.read(sql, vec![value.into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let stored: String = row.get("secret_hash")?;
        if !bool::from(stored.as_bytes().ct_eq(random::hash(secret).as_bytes())) {
            return Ok(None);
        }
        let key = key(row)?;
        if !key.is_valid(now_ms) {
            return Ok(None);
        }
        self.key_cache.put(digest, key.clone(), generation, at);
        Ok(Some(key))
    }

    /// All keys, newest first, revoked and expired ones too.
    ///
    /// # Errors
    /// The database fails.
    pub async fn keys(&self) -> Result<Vec<Key>, MetadataError> {
        let sql = "SELECT id, name, scopes, agent_id, created_ms, expires_ms, last_used_ms, revoked_ms \
                   FROM api_keys ORDER BY created_ms DESC, id";
        all(&self.database.read(sql, vec![]).await?, key)
    }

    /// Revokes a key; one that is revoked stays as it is.
    ///
    /// # Errors
    /// [`MetadataError::NotFound`].
    pub async fn revoke_key(&self, id: &str, now_ms: i64) -> Result<(), MetadataError> {
        let sql = "UPDATE api_keys SET revoked_ms = COALESCE(revoked_ms, $2) WHERE id = $1 RETURNING id";
        let rows = self.database.write(sql, vec![id.into(), now_ms.into()]).await?;
        self.key_cache.forget_all();
        if rows.is_empty() { Err(MetadataError::NotFound { what: "key", id: id.to_owned() }) } else { Ok(()) }
    }

    /// Writes when a key was last used, once a minute at most; may be called for every request.
    ///
    /// # Errors
    /// The database fails.
    pub async fn touch_key(&self, id: &str, now_ms: i64) -> Result<(), MetadataError> {
        if !self.key_cache.should_touch(id, now_ms) {
            return Ok(());
        }
        let sql = "UPDATE api_keys SET last_used_ms = $2 WHERE id = $1 AND (last_used_ms IS NULL OR last_used_ms < $2)";
        self.database.write(sql, vec![id.into(), now_ms.into()]).await.map(drop)
    }
}

const KEY_BY_ID: &str = "SELECT id, name, secret_hash, scopes, agent_id, created_ms, expires_ms, last_used_ms, revoked_ms \
                         FROM api_keys WHERE id = $1";
/// An operator's own text has no id in it.
const IMPORTED_KEY_BY_HASH: &str = "SELECT id, name, secret_hash, scopes, agent_id, created_ms, expires_ms, last_used_ms, \
                                    revoked_ms FROM api_keys WHERE secret_hash = $1 AND imported = 1";

fn check_own_text(text: &str) -> Result<(), MetadataError> {
    let reason = if text.trim() != text {
        "it starts or ends with a blank, which HTTP headers cannot carry".to_owned()
    } else if text.chars().any(char::is_control) {
        "it contains control characters, which HTTP headers cannot carry".to_owned()
    } else if text.chars().count() < MINIMUM_KEY_CHARACTERS {
        format!(
            "it has {} characters and needs at least {MINIMUM_KEY_CHARACTERS}, or it could be guessed; \
             `openssl rand -base64 32` makes a good one",
            text.chars().count()
        )
    } else {
        return Ok(());
    };
    Err(MetadataError::Invalid { what: "key", reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_cut_into_id_and_secret_and_nothing_else_is() {
        let secret = "S".repeat(43);
        assert_eq!(cut(&format!("weir_0123456789ab_{secret}")), Some(("0123456789ab", secret.as_str())));
        let underscores = format!("weir_0123456789ab_{}", "_".repeat(43));
        assert!(cut(&underscores).is_some());
        for wrong in [
            String::new(),
            "weir_".to_owned(),
            format!("weir_0123456789ab{secret}"),
            format!("weir_0123456789ab_{secret}x"),
            format!("weir_0123456789AB_{secret}"),
            format!("WEIR_0123456789ab_{secret}"),
            format!("weir_0123456789aé_{secret}"),
            format!("weir_01234567\u{20ac}_{secret}"),
        ] {
            assert_eq!(cut(&wrong), None, "{wrong}");
        }
    }
}
