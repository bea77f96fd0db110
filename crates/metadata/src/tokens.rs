//! Enrolment tokens: with one a machine joins, and gets a key of its own.

use crate::database::{Row, Transaction, all, first};
use crate::{Agent, KeyText, Metadata, MetadataError, NewAgent, NewKey, Scopes, TokenText, agents, keys, random};

/// The most uses of a token.
pub const MAXIMUM_TOKEN_USES: i64 = 1_000;
const TOKEN_CHARACTERS: usize = 16;

/// An enrolment token, without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// By which it is listed and revoked.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// How many machines may join with it.
    pub uses: i64,
    /// How many did.
    pub used: i64,
    /// When it was created, unix milliseconds.
    pub created_ms: i64,
    /// From when on it is refused, unix milliseconds.
    pub expires_ms: i64,
    /// When it was revoked, unix milliseconds.
    pub revoked_ms: Option<i64>,
}

/// A token to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// What people call it; may be empty.
    pub name: String,
    /// How many machines may join with it: 1 to 1,000.
    pub uses: i64,
    /// From when on it is refused, unix milliseconds.
    pub expires_ms: i64,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// No token has this text.
    #[error(
        "this enrolment token is unknown; copy it again, or create a new one on the server with `weir tokens create`"
    )]
    Unknown,
    /// As many machines joined as it allows.
    #[error("this enrolment token is used up; create a new one on the server with `weir tokens create`")]
    UsedUp,
    /// Its time is over.
    #[error("this enrolment token has expired; create a new one on the server with `weir tokens create`")]
    Expired {
        /// Since when, unix milliseconds.
        at_ms: i64,
    },
    /// Someone revoked it.
    #[error("this enrolment token was revoked; create a new one on the server with `weir tokens create`")]
    Revoked,
}

/// A token that may be used, or why not.
pub type TokenState = Result<Token, TokenRefused>;

fn token(row: &Row) -> Result<Token, MetadataError> {
    Ok(Token {
        id: row.get("id")?,
        name: row.get("name")?,
        uses: row.get("uses")?,
        used: row.get("used")?,
        created_ms: row.get("created_ms")?,
        expires_ms: row.get("expires_ms")?,
        revoked_ms: row.get("revoked_ms")?,
    })
}

fn state(token: Token, now_ms: i64) -> TokenState {
    if token.revoked_ms.is_some() {
        Err(TokenRefused::Revoked)
    } else if now_ms >= token.expires_ms {
        Err(TokenRefused::Expired { at_ms: token.expires_ms })
    } else if token.used >= token.uses {
        Err(TokenRefused::UsedUp)
    } else {
        Ok(token)
    }
}

fn hash_of(text: &str) -> Option<String> {
    random::normal_base32(text, TOKEN_CHARACTERS).map(|normal| random::hash(&normal))
}

/// Takes one use: one statement, so that of two callers at once only one gets the last.
async fn take_use(transaction: &mut Transaction, text: &str, now_ms: i64) -> Result<TokenState, MetadataError> {
    let Some(hash) = hash_of(text) else { return Ok(Err(TokenRefused::Unknown)) };
    let taken = transaction
        .rows(
            "UPDATE enrolment_tokens SET used = used + 1 \
             WHERE token_hash = $1 AND revoked_ms IS NULL AND expires_ms > $2 AND used < uses \
             RETURNING id, name, uses, used, created_ms, expires_ms, revoked_ms",
            vec![hash.as_str().into(), now_ms.into()],
        )
        .await?;
    if let Some(row) = first(taken) {
        return Ok(Ok(token(&row)?));
    }
    let rows = transaction.rows(TOKEN_BY_HASH, vec![hash.into()]).await?;
    let Some(row) = first(rows) else { return Ok(Err(TokenRefused::Unknown)) };
    // It can only look usable here when its last use was given back in between.
    Ok(Err(state(token(&row)?, now_ms).err().unwrap_or(TokenRefused::UsedUp)))
}

const TOKEN_BY_HASH: &str = "SELECT id, name, uses, used, created_ms, expires_ms, revoked_ms \
                             FROM enrolment_tokens WHERE token_hash = $1";

impl Metadata {
    /// Creates a token. Its text is not kept: it cannot be shown again.
    ///
    /// # Errors
    /// [`MetadataError::Invalid`] for uses outside of 1 to 1,000.
    pub async fn create_token(&self, new: NewToken, now_ms: i64) -> Result<(Token, TokenText), MetadataError> {
        if !(1..=MAXIMUM_TOKEN_USES).contains(&new.uses) {
            let reason = format!("expected 1 to {MAXIMUM_TOKEN_USES}, found {}", new.uses);
            return Err(MetadataError::Invalid { what: "uses", reason });
        }
        let text = random::base32::<TOKEN_CHARACTERS>()?;
        let token = Token {
            id: random::base32::<12>()?.to_ascii_lowercase(),
            name: new.name,
            uses: new.uses,
            used: 0,
            created_ms: now_ms,
            expires_ms: new.expires_ms,
            revoked_ms: None,
        };
        let values = vec![
            token.id.as_str().into(),
            token.name.as_str().into(),
            random::hash(&text).into(),
            token.uses.into(),
            now_ms.into(),
            token.expires_ms.into(),
        ];
        self.database
            .write(
                "INSERT INTO enrolment_tokens (id, name, token_hash, uses, used, created_ms, expires_ms) \
                 VALUES ($1, $2, $3, $4, 0, $5, $6)",
                values,
            )
            .await?;
        let groups: Vec<String> =
            text.as_bytes().chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()).collect();
        Ok((token, TokenText::new(groups.join("-"))))
    }

    /// Whether a machine could join with this text now; takes no use.
    ///
    /// # Errors
    /// The database fails.
    pub async fn check_token(&self, text: &str, now_ms: i64) -> Result<TokenState, MetadataError> {
        let Some(hash) = hash_of(text) else { return Ok(Err(TokenRefused::Unknown)) };
        let rows = self.database.read(TOKEN_BY_HASH, vec![hash.into()]).await?;
        let Some(row) = first(rows) else { return Ok(Err(TokenRefused::Unknown)) };
        Ok(state(token(&row)?, now_ms))
    }

    /// Takes one use of a token; the answer counts it already.
    ///
    /// # Errors
    /// The database fails.
    pub async fn redeem_token(&self, text: &str, now_ms: i64) -> Result<TokenState, MetadataError> {
        let mut transaction = self.database.begin().await?;
        let state = take_use(&mut transaction, text, now_ms).await?;
        transaction.commit().await?;
        Ok(state)
    }

    /// A machine joins: takes one use of the token, registers the agent and creates its key (scope
    /// `ingest`, for this agent alone). All of it happens or nothing.
    ///
    /// # Errors
    /// Outside: the database fails. Inside: the token is refused.
    pub async fn enroll(
        &self,
        text: &str,
        agent: NewAgent,
        now_ms: i64,
    ) -> Result<Result<(Agent, KeyText), TokenRefused>, MetadataError> {
        let mut transaction = self.database.begin().await?;
        if let Err(refused) = take_use(&mut transaction, text, now_ms).await? {
            return Ok(Err(refused));
        }
        let agent = agents::register(&mut transaction, agent, now_ms).await?;
        let key = NewKey {
            name: format!("agent {}", agent.hostname),
            scopes: Scopes::INGEST,
            agent_id: Some(agent.id.clone()),
            expires_ms: None,
        };
        let (_, text) = keys::create(&mut transaction, key, now_ms).await?;
        transaction.commit().await?;
        Ok(Ok((agent, text)))
    }

    /// All tokens, newest first, without their texts.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tokens(&self) -> Result<Vec<Token>, MetadataError> {
        let sql = "SELECT id, name, uses, used, created_ms, expires_ms, revoked_ms \
                   FROM enrolment_tokens ORDER BY created_ms DESC, id";
        all(&self.database.read(sql, vec![]).await?, token)
    }

    /// Revokes a token; agents that joined with it keep their keys.
    ///
    /// # Errors
    /// [`MetadataError::NotFound`].
    pub async fn revoke_token(&self, id: &str, now_ms: i64) -> Result<(), MetadataError> {
        let sql = "UPDATE enrolment_tokens SET revoked_ms = COALESCE(revoked_ms, $2) WHERE id = $1 RETURNING id";
        let rows = self.database.write(sql, vec![id.into(), now_ms.into()]).await?;
        if rows.is_empty() { Err(MetadataError::NotFound { what: "token", id: id.to_owned() }) } else { Ok(()) }
    }
}
