//! What Weir's server knows beside telemetry: servers, agents, keys, tokens, sessions, gaps and imported alerts.
//!
//! It lives in SQLite (one file, the default) or in PostgreSQL (by URL), with the same queries on
//! both. Where to read what:
//!
//! - `location.rs`, `open.rs`, `schema.rs`: from a configured text to an open database of this program's schema.
//! - `database.rs`: the two databases behind one small interface; `error.rs`: what can go wrong.
//! - `servers.rs`, `agents.rs`, `gaps.rs`, `alerts.rs`: records.
//! - `keys.rs` (with `scopes.rs`, `key_cache.rs`), `tokens.rs`, `sessions.rs`: credentials (`random.rs` makes them).
//!
//! Rules that hold everywhere:
//!
//! - An answer `Ok` means durable: SQLite syncs every commit, PostgreSQL does by default.
//! - Times are unix milliseconds, and the caller says what time it is.
//! - Credentials are stored as SHA-256 of their text. They are random (80 bits and more), or at
//!   least 16 characters that an operator chose, and their texts are [`weir_config::Secret`]s.

mod agents;
mod alerts;
mod database;
mod error;
mod gaps;
mod key_cache;
mod keys;
mod location;
mod open;
mod random;
mod schema;
mod scopes;
mod servers;
mod sessions;
mod tokens;

use std::fmt;
use std::sync::Arc;

use weir_config::Secret;

pub use agents::{Agent, NewAgent};
pub use alerts::Alert;
pub use error::{MetadataError, OpenError};
pub use gaps::Gap;
pub use keys::{Key, MINIMUM_KEY_CHARACTERS, NewKey};
pub use location::Location;
pub use scopes::{Scope, Scopes, UnknownScope};
pub use servers::{NewServer, Server, ServerPatch};
pub use sessions::{LOGIN_TOKEN_LIFE_MS, SESSION_LIFE_MS, Session};
pub use tokens::{MAXIMUM_TOKEN_USES, NewToken, Token, TokenRefused, TokenState};

use database::Database;
use key_cache::KeyCache;

/// The text of a key, shown once: `weir_<id>_<secret>`.
pub type KeyText = Secret;
/// The text of an enrolment token, shown once: `XXXX-XXXX-XXXX-XXXX`.
pub type TokenText = Secret;
/// The text of a one-time login token, shown once.
pub type LoginText = Secret;
/// The text of a session, for the browser's cookie.
pub type SessionText = Secret;

/// An open metadata database. Cloning is cheap; all clones share connections and cache.
#[derive(Clone)]
pub struct Metadata {
    database: Database,
    key_cache: Arc<KeyCache>,
    place: Arc<str>,
}

impl Metadata {
    /// Opens the database at `location`, creates it where it is missing, and brings its schema to
    /// this program's.
    ///
    /// # Errors
    /// It cannot be reached, is no database of ours, or was written by a newer Weir.
    pub async fn open(location: &Location) -> Result<Metadata, OpenError> {
        let database = open::open(location).await?;
        Ok(Metadata { database, key_cache: Arc::default(), place: location.to_string().into() })
    }

    /// Whether records can be read, and would last if they were written.
    ///
    /// # Errors
    /// [`MetadataError::Unavailable`] if not.
    pub async fn check(&self) -> Result<(), MetadataError> {
        self.database.check().await
    }

    /// Where the database is, without credentials.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Waits for running queries and closes all connections. Every later call answers
    /// [`MetadataError::Unavailable`].
    pub async fn close(&self) {
        self.database.close().await;
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata").field("place", &self.place).finish_non_exhaustive()
    }
}
