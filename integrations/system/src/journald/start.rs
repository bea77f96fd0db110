//! How reading begins: behind the entry that was read last, if it is still there.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use weir_pipeline::Fault;

use super::child::{self, Follower, Found, Position};
use super::config::Settings;
use crate::logs::config::From;

/// A child that was started, and the cursor whose entry is known already.
pub struct Started {
    /// The child.
    pub follower: Follower,
    /// The cursor: the entry that it stands for, if it comes first, is known.
    pub known: Option<String>,
}

/// How reading begins.
pub struct Start {
    /// Which journal, and where to begin for the first time.
    pub settings: Arc<Settings>,
    /// The instance.
    pub name: Arc<str>,
    /// When the agent began, unix seconds.
    pub began_unix_seconds: u64,
}

/// A start that is under way. The cursor is where to begin from now on.
pub type Starting = BoxFuture<'static, (Option<String>, Result<Started, Fault>)>;

impl Start {
    /// Starts behind a cursor, or as for the first time.
    pub fn begin(&self, cursor: Option<String>) -> Starting {
        let (settings, name, began) = (self.settings.clone(), self.name.clone(), self.began_unix_seconds);
        Box::pin(async move {
            let cursor = match cursor {
                None if settings.from == From::End => match child::newest(&settings).await {
                    Ok(newest) => newest,
                    Err(fault) => return (None, Err(fault)),
                },
                cursor => cursor,
            };
            let started = follow(&settings, &name, cursor.clone(), began).await;
            (cursor, started)
        })
    }
}

async fn follow(settings: &Settings, name: &str, cursor: Option<String>, began: u64) -> Result<Started, Fault> {
    let position = match &cursor {
        Some(cursor) => match child::find(settings, cursor).await? {
            Found::It => Position::Cursor(cursor.clone()),
            Found::Later => {
                tracing::warn!(
                    "{name}: the entry that was read last is gone from the journal: what was rotated away meanwhile is lost; reading goes on with the oldest entry behind it"
                );
                Position::Cursor(cursor.clone())
            }
            Found::Nothing => {
                tracing::warn!(
                    "{name}: neither the entry that was read last nor a later one is in the journal: reading begins with its oldest entry"
                );
                Position::Oldest
            }
        },
        // With `from: end`, the journal is empty here: whatever comes is new.
        None if settings.from == From::End || settings.ignore_older.is_zero() => Position::Oldest,
        None => Position::Since(began.saturating_sub(settings.ignore_older.as_secs())),
    };
    Ok(Started { follower: Follower::start(settings, &position)?, known: cursor })
}
