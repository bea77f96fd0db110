//! Who may do what.
//!
//! - here: who asks ([`Caller`]), and whether that is enough ([`require`])
//! - [`origin`]: which site and which machine a request comes from
//! - [`session`]: people at the dashboard: cookies and login links
//! - [`limit`]: failed attempts; [`headers`]: what every answer says to browsers
//! - [`document`](describe): the same for readers of the OpenAPI document

mod document;
pub mod headers;
pub mod limit;
pub mod origin;
pub mod session;

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method};
use weir_metadata::Key;

pub use document::describe;
pub use weir_metadata::{Scope, Scopes};

use crate::error::{ApiError, Code};
use crate::state::{App, Peer, now_ms};

const KEY: HeaderName = HeaderName::from_static("x-api-key");
const KEY_ID: HeaderName = HeaderName::from_static("x-api-key-id");
const KEY_SECRET: HeaderName = HeaderName::from_static("x-api-key-secret");

/// What proved who a caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A key.
    Key,
    /// A browser's session.
    Session,
    /// Nothing but running on this machine.
    Loopback,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What people call the key or the session.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// The only agent that it may speak for; `None`: any.
    pub agent_id: Option<String>,
    /// What proved it.
    pub by: By,
}

impl Caller {
    fn of_key(key: Key) -> Caller {
        Caller { name: key.name, scopes: key.scopes, agent_id: key.agent_id, by: By::Key }
    }

    /// Whether the caller has a right.
    ///
    /// # Errors
    /// 403 without it; 401 where nothing was shown that could have it.
    pub fn needs(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.allows(scope) {
            return Ok(());
        }
        if self.by == By::Loopback {
            let message = "programs on this machine may send without a key, and nothing else: this needs one";
            return Err(ApiError::new(Code::Unauthorized, format!("{message}; {}", how_to_get(scope))));
        }
        let message =
            format!("{:?} may not do this: it needs the scope `{scope}` and has `{}`", self.name, self.scopes);
        Err(ApiError::new(Code::Forbidden, format!("{message}; {}", how_to_get(scope))))
    }
}

fn how_to_get(scope: Scope) -> String {
    format!("make a key with `weir keys create NAME --scope {scope}` and send it as `Authorization: Bearer KEY`")
}

/// Lets a request through if its caller has the scope, and puts the [`Caller`] into its extensions.
pub async fn require(State((app, scope)): State<(App, Scope)>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let caller = match authenticate(&app, &parts).await {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    if let Err(error) = caller.needs(scope) {
        return error.into_response();
    }
    parts.extensions.insert(caller);
    next.run(Request::from_parts(parts, body)).await
}

/// The address of the other end of the connection.
pub fn peer(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Peer>().map(|peer| peer.0.ip().to_canonical())
}

/// Counts a wrong credential of an address: 401, or 429 above the limit.
pub fn refused(app: &App, address: Option<IpAddr>, code: Code, message: impl Into<String>) -> ApiError {
    let Some(wait) = app.limiter.fail(address) else { return ApiError::new(code, message) };
    let wait_seconds = wait.as_secs() + 1;
    let message = format!("too many wrong keys or tokens came from this address; try again in {wait_seconds} s");
    ApiError::new(Code::TooManyRequests, message).after(wait)
}

/// What a request shows. Never printed.
enum Shown<'a> {
    Key(&'a str),
    Pair(&'a str, &'a str),
    Session(&'a str),
    Nothing,
}

/// A key goes before a cookie: whoever sets a header means it. An empty header is none: programs
/// send it whose key is not configured. A header that is not text is a key that nobody has.
fn shown(headers: &HeaderMap) -> Shown<'_> {
    let text = |name: &HeaderName| {
        let value = headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
        value.filter(|value| !value.is_empty())
    };
    if let Some(key) = text(&AUTHORIZATION).and_then(bearer).or_else(|| text(&KEY)) {
        return Shown::Key(key);
    }
    if let (Some(id), Some(secret)) = (text(&KEY_ID), text(&KEY_SECRET)) {
        return Shown::Pair(id, secret);
    }
    session::shown(headers).map_or(Shown::Nothing, Shown::Session)
}

/// The key of `Bearer KEY` (RFC 6750). Other schemes belong to a proxy in front.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Who asks.
///
/// # Errors
/// 401 without a key, or with a wrong one; 429 after too many wrong ones; 403 if a cookie comes from
/// another site; 503 while keys cannot be read.
pub async fn authenticate(app: &App, parts: &Parts) -> Result<Caller, ApiError> {
    let key = match shown(&parts.headers) {
        Shown::Key(text) => app.metadata.verify_key(text, now_ms()).await?,
        Shown::Pair(id, secret) => app.metadata.verify_key_pair(id, secret, now_ms()).await?,
        Shown::Session(text) => return by_session(app, parts, text).await,
        Shown::Nothing => return without_credential(app, parts),
    };
    let Some(key) = key else {
        let message = "this key is not known, has expired or was revoked; `weir keys list` shows all keys";
        return Err(refused(app, peer(parts), Code::Unauthorized, message));
    };
    if let Err(error) = app.metadata.touch_key(&key.id, now_ms()).await {
        tracing::debug!("the time of last use of key {} was not kept: {error}", key.id);
    }
    Ok(Caller::of_key(key))
}

/// A browser sends its cookie with whatever any site makes it send, so that what changes something
/// must also come from the dashboard itself.
async fn by_session(app: &App, parts: &Parts, text: &str) -> Result<Caller, ApiError> {
    let Some(session) = app.metadata.session(text, now_ms()).await? else {
        // Not counted as an attempt: a browser that was away for long asks several times at once, and
        // must be told 401 each time, so that it shows how to sign in.
        let message = "the session has ended; `weir login` prints a link that starts another";
        return Err(ApiError::new(Code::Unauthorized, message));
    };
    if !is_harmless(parts) && !origin::is_own(parts, &app.options.public_url) {
        let message = "a session works from the dashboard of this server alone, and this request came from \
                       elsewhere; programs use a key, and behind a proxy `server.public_url` must be set";
        return Err(ApiError::new(Code::Forbidden, message));
    }
    Ok(Caller { name: session.name, scopes: session.scopes, agent_id: None, by: By::Session })
}

/// Whether a request only reads. A WebSocket begins as a GET, but can be read and used by the site
/// that opens it, whichever it is.
fn is_harmless(parts: &Parts) -> bool {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    reads && !parts.headers.contains_key(http::header::UPGRADE)
}

fn without_credential(app: &App, parts: &Parts) -> Result<Caller, ApiError> {
    let local = if app.options.keyless_loopback { origin::local_program(parts, peer(parts)) } else { Err(None) };
    match local {
        Ok(()) => Ok(Caller {
            name: "a program on this machine".to_owned(),
            scopes: Scopes::INGEST,
            agent_id: None,
            by: By::Loopback,
        }),
        Err(why) => {
            let why = why.map_or_else(String::new, |why| {
                format!("; without one only programs on this machine may send, and {why}")
            });
            let message = "a key is needed: send `Authorization: Bearer KEY` or `X-API-Key: KEY`; \
                           `weir keys create NAME` makes one";
            Err(ApiError::new(Code::Unauthorized, format!("{message}{why}")))
        }
    }
}

#[cfg(test)]
mod tests;
