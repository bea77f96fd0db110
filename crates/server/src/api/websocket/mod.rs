//! `GET /ws`: the live table, live metrics and alerts out; metrics in.
//!
//! Nothing is queued for a client but alerts, and those within bounds: once per second a connection
//! takes what changed since it last looked, so that one that is slow gets less often more. One that
//! takes nothing for [`SEND_TIMEOUT`] is dropped. Who it is, is asked again every [`ASK_AGAIN`].

mod connection;
pub(crate) mod messages;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::request::Parts;
use serde::Serialize;
use tokio::sync::{Semaphore, broadcast};

use crate::auth::{self, Caller, Scope};
use crate::error::{ApiError, Code};
use crate::query_params::Params;
use crate::state::{App, Peer};

pub use connection::Pace;

/// Most connections at once.
const MOST_CONNECTIONS: usize = 1024;

/// Longest message that is taken, bytes.
const MESSAGE_LIMIT_BYTES: usize = 1 << 20;

/// Alerts that may wait for one connection.
const ALERTS_WAITING: usize = 256;

/// A client that takes nothing for this long is dropped.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is asked again whether the key or session still counts.
pub const ASK_AGAIN: Duration = Duration::from_secs(20);

static CONNECTIONS: Semaphore = Semaphore::const_new(MOST_CONNECTIONS);

/// Alerts as they come.
#[derive(Debug)]
pub struct AlertFeed(broadcast::Sender<Arc<str>>);

impl Default for AlertFeed {
    fn default() -> Self {
        Self(broadcast::Sender::new(ALERTS_WAITING))
    }
}

impl AlertFeed {
    /// Tells an alert to everybody who listens. It must be an object.
    pub fn tell(&self, alert: &impl Serialize) {
        if self.0.receiver_count() == 0 {
            return;
        }
        if let Some(text) = messages::alert(alert) {
            // Nobody listens any more: then nobody misses it.
            let _ = self.0.send(text.into());
        }
    }

    fn listen(&self) -> broadcast::Receiver<Arc<str>> {
        self.0.subscribe()
    }
}

/// What a client wants to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Topics {
    hosts: bool,
    metrics: bool,
    alerts: bool,
}

impl Topics {
    fn read(text: Option<&str>) -> Result<Topics, ApiError> {
        let mut topics = Topics::default();
        for name in text.unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
            match name {
                "hosts" => topics.hosts = true,
                "metrics" => topics.metrics = true,
                "alerts" => topics.alerts = true,
                other => {
                    let shown: String = other.chars().take(40).collect();
                    return Err(ApiError::field("topics", "hosts, metrics or alerts", &format!("{shown:?}")));
                }
            }
        }
        Ok(topics)
    }

    /// What a caller is told: what it asks for, or live metrics if it asks for nothing and may read.
    fn of(text: Option<&str>, caller: &Caller) -> Result<Topics, ApiError> {
        let topics = Topics::read(text)?;
        if topics != Topics::default() {
            caller.needs(Scope::Read)?;
            return Ok(topics);
        }
        Ok(Topics { metrics: caller.scopes.allows(Scope::Read), ..topics })
    }
}

/// The route of the WebSocket.
pub fn router(_app: &App) -> Router<App> {
    at_pace(Pace::default())
}

fn at_pace(pace: Pace) -> Router<App> {
    let upgrade = move |State(app): State<App>, parts: Parts, socket: Upgrade| async move {
        match begin(app, parts, socket, pace).await {
            Ok(response) => response,
            Err(error) => error.into_response(),
        }
    };
    // HTTP/2 begins with CONNECT (RFC 8441), HTTP/1.1 with GET.
    Router::new().route("/ws", any(upgrade))
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn begin(app: App, parts: Parts, socket: Upgrade, pace: Pace) -> Result<Response, ApiError> {
    let caller = auth::authenticate(&app, &parts).await?;
    let topics = Topics::of(Params::of(&parts.uri)?.text("topics"), &caller)?;
    let socket = socket.map_err(|rejection| {
        let message = format!("this path is a WebSocket (RFC 6455): {}", rejection.body_text());
        ApiError::new(Code::InvalidField, message)
    })?;
    let place = CONNECTIONS
        .try_acquire()
        .map_err(|_| ApiError::unavailable(format!("{MOST_CONNECTIONS} WebSockets are open, which is the limit")))?;
    let credential = credential(parts);
    let socket = socket.max_message_size(MESSAGE_LIMIT_BYTES).max_frame_size(MESSAGE_LIMIT_BYTES);
    Ok(socket.on_upgrade(move |socket| async move {
        connection::serve(app, socket, topics, caller, credential, pace).await;
        drop(place);
    }))
}

/// What is needed to ask again who it is: the head of the request and the peer.
fn credential(parts: Parts) -> Parts {
    let peer = parts.extensions.get::<Peer>().copied();
    let mut kept = parts;
    kept.extensions = http::Extensions::new();
    if let Some(peer) = peer {
        kept.extensions.insert(peer);
    }
    kept
}
