//! One connection.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use http::request::Parts;
use serde_json::Value;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use super::messages::{self, Asked};
use super::{ASK_AGAIN, SEND_TIMEOUT, Topics};
use crate::auth::{self, Caller, Scope};
use crate::error::{ApiError, Code};
use crate::ingest::{agentops, json};
use crate::state::{App, now_ms};

/// How often a connection does what it does.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Changes are told at most this often. Default: 1 s.
    pub tell: Duration,
    /// A ping goes out this often. Default: 20 s.
    pub ping: Duration,
    /// A client that sends nothing for this long, not even the answer to a ping, is gone. Default: 60 s.
    pub silence: Duration,
    /// It is asked again who it is this often. Default: [`ASK_AGAIN`].
    pub ask_again: Duration,
    /// A client that takes nothing for this long is dropped. Default: [`SEND_TIMEOUT`].
    pub send: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            tell: Duration::from_secs(1),
            ping: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            ask_again: ASK_AGAIN,
            send: SEND_TIMEOUT,
        }
    }
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    /// The client is gone, or takes nothing: there is nobody to tell.
    Gone,
    /// It is told why.
    Told(u16, Cow<'static, str>),
}

/// Serves a connection until it ends.
pub async fn serve(app: App, socket: WebSocket, topics: Topics, caller: Caller, credential: Parts, pace: Pace) {
    let alerts = topics.alerts.then(|| app.alert_feed.listen());
    // Live metrics begin now; the table begins with all of its rows.
    let seen = if topics.hosts { 0 } else { app.hosts.changes_since(0, now_ms()).version };
    let mut connection = Connection { app, socket, topics, caller, credential, pace, seen, is_first: true };
    let end = connection.run(alerts).await;
    if let End::Told(code, reason) = end {
        let frame = CloseFrame { code, reason: reason.as_ref().into() };
        // A client that does not take it is gone all the same.
        let _ = timeout(pace.send, connection.socket.send(Message::Close(Some(frame)))).await;
    }
}

struct Connection {
    app: App,
    socket: WebSocket,
    topics: Topics,
    caller: Caller,
    credential: Parts,
    pace: Pace,
    /// The version of the table that the client was told.
    seen: u64,
    is_first: bool,
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The next alert; never, if nobody asked for them.
async fn next_alert(alerts: &mut Option<broadcast::Receiver<Arc<str>>>) -> Result<Arc<str>, RecvError> {
    match alerts {
        Some(alerts) => alerts.recv().await,
        None => std::future::pending().await,
    }
}

impl Connection {
    async fn run(&mut self, mut alerts: Option<broadcast::Receiver<Arc<str>>>) -> End {
        let (mut tell, mut ping, mut ask) = (every(self.pace.tell), every(self.pace.ping), every(self.pace.ask_again));
        // The first ticks come at once; who it is was asked just now.
        ping.reset();
        ask.reset();
        let mut heard = Instant::now();
        loop {
            let done = tokio::select! {
                message = self.socket.recv() => match message {
                    Some(Ok(message)) => {
                        heard = Instant::now();
                        self.take(message).await
                    }
                    Some(Err(_)) | None => Err(End::Gone),
                },
                _ = tell.tick() => self.tell().await,
                alert = next_alert(&mut alerts) => self.tell_alert(alert).await,
                _ = ping.tick() => match heard.elapsed() > self.pace.silence {
                    true => Err(End::Gone),
                    false => self.send(Message::Ping(Default::default())).await,
                },
                _ = ask.tick() => self.ask_again().await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(self.pace.send, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => {
                tracing::debug!("a WebSocket of {:?} takes nothing and is dropped", self.caller.name);
                Err(End::Gone)
            }
        }
    }

    async fn send_text(&mut self, text: impl Into<String>) -> Result<(), End> {
        self.send(Message::Text(text.into().into())).await
    }

    /// Whether the key or session still counts. A metadata database that does not answer ends nothing.
    async fn ask_again(&mut self) -> Result<(), End> {
        match auth::authenticate(&self.app, &self.credential).await {
            Ok(caller) => self.caller = caller,
            Err(error) if matches!(error.body().code, Code::Unavailable | Code::Internal) => return Ok(()),
            Err(_) => return Err(End::Told(close_code::POLICY, "the key or session has ended".into())),
        }
        if self.topics != Topics::default() && !self.caller.scopes.allows(Scope::Read) {
            return Err(End::Told(close_code::POLICY, "the key may no longer read".into()));
        }
        Ok(())
    }

    /// Tells what changed since the last time.
    async fn tell(&mut self) -> Result<(), End> {
        if !self.topics.hosts && !self.topics.metrics {
            return Ok(());
        }
        let now_ms = now_ms();
        let changes = self.app.hosts.changes_since(self.seen, now_ms);
        let seen = std::mem::replace(&mut self.seen, changes.version);
        if changes.lost {
            return Err(End::Told(close_code::AGAIN, "too much has changed meanwhile; connect again".into()));
        }
        let is_first = std::mem::take(&mut self.is_first);
        if self.topics.hosts {
            if !changes.removed.is_empty() {
                self.send_text(messages::removed(&changes.removed)).await?;
            }
            if is_first || !changes.rows.is_empty() {
                self.send_text(messages::hosts(&changes, now_ms)).await?;
            }
        }
        // The first look at the table is not news.
        if self.topics.metrics && !(is_first && seen == 0) {
            for host in changes.rows.iter().filter(|host| host.data_version > seen) {
                if let Some(text) = messages::metrics(host) {
                    self.send_text(text).await?;
                }
            }
        }
        Ok(())
    }

    async fn tell_alert(&mut self, alert: Result<Arc<str>, RecvError>) -> Result<(), End> {
        match alert {
            Ok(text) => self.send_text(text.as_ref()).await,
            Err(RecvError::Lagged(missed)) => {
                let message = format!("{missed} alerts came faster than they were taken; GET /api/alerts tells all");
                self.send_text(messages::error(None, &ApiError::new(Code::TooManyRequests, message))).await
            }
            Err(RecvError::Closed) => Err(End::Told(close_code::AWAY, "the server stops".into())),
        }
    }

    async fn take(&mut self, message: Message) -> Result<(), End> {
        match message {
            Message::Text(text) => self.take_text(text.as_bytes()).await,
            Message::Binary(bytes) => self.take_text(&bytes).await,
            // Pings are answered by the protocol, and pongs only show that somebody is there.
            Message::Ping(_) | Message::Pong(_) => Ok(()),
            Message::Close(_) => Err(End::Gone),
        }
    }

    async fn take_text(&mut self, text: &[u8]) -> Result<(), End> {
        let body = match json::parse(text) {
            Ok(body) => body,
            Err(error) => return self.send_text(messages::error(None, &error)).await,
        };
        let answer = match messages::read(&body) {
            Asked::Ping => messages::PONG.to_owned(),
            Asked::Metrics { id, data } => store(&self.app, &self.caller, id, data).await,
            Asked::Unknown { id, error } => messages::error(id, &error),
        };
        self.send_text(answer).await
    }
}

/// Stores metrics as `POST /api/metrics` does; the answer in words.
async fn store(app: &App, caller: &Caller, id: Option<&Value>, data: &Value) -> String {
    let stored = match caller.needs(Scope::Ingest) {
        Ok(()) => agentops::take_value(app, caller, data).await,
        Err(error) => Err(error),
    };
    match stored {
        Ok(stored) => messages::ack(id, stored.stored),
        Err(error) => messages::error(id, &error),
    }
}
