//! The readers of all bodies without the requests around them, for the fuzz target `server_json`.

use serde_json::Value;
use weir_metadata::{Alert, NewKey, NewServer, NewToken, ServerPatch};
use weir_model::metrics::Metrics;

use super::agents::{self, Registration};
use super::json::{self, Object};
use super::time::Clock;
use super::{agent_monitor, agentops, alerts, builder, fields, items, openfinops};
use crate::api::query::Asked;
use crate::api::websocket::messages;
use crate::api::{keys, servers, tokens};
use crate::error::ApiError;

/// The metrics of a body of `POST /api/metrics`.
///
/// # Errors
/// As the request.
pub fn agentops(body: &Value, clock: &Clock) -> Result<Metrics, ApiError> {
    let mut metrics = builder("agentops");
    for (path, item) in items(body)? {
        let posted = agentops::read(&Object::of(item, &path)?, clock)?;
        fields::record(&mut metrics, &posted.server, posted.instant.ms, &posted.fields, &posted.custom);
    }
    Ok(metrics.finish())
}

/// The metrics of a body of `POST /api/v1/agents/{id}/metrics`.
///
/// # Errors
/// As the request.
pub fn agent_monitor(body: &Value, clock: &Clock) -> Result<Metrics, ApiError> {
    let mut metrics = builder("agent_monitor");
    for (path, item) in items(body)? {
        let (instant, known, custom) = agent_monitor::read(&Object::of(item, &path)?, clock)?;
        fields::record(&mut metrics, "host", instant.ms, &known, &custom);
    }
    Ok(metrics.finish())
}

/// The metrics of a body of `POST /api/v1/telemetry/ingest`.
///
/// # Errors
/// As the request.
pub fn openfinops(body: &Value, clock: &Clock) -> Result<Metrics, ApiError> {
    let object = Object::of(body, "")?;
    let instant = clock.instant(&object, "timestamp")?;
    let mut metrics = builder("openfinops");
    openfinops::record(&mut metrics, &openfinops::read(object.map)?, fields::unix_nano(instant.ms));
    Ok(metrics.finish())
}

/// The alerts of a body of `POST /api/alerts`.
///
/// # Errors
/// As the request.
pub fn alerts(body: &Value, clock: &Clock) -> Result<Vec<Alert>, ApiError> {
    alerts::read(body, clock.now_ms)
}

/// A body of `POST /api/v1/agents/register`.
///
/// # Errors
/// As the request.
pub fn registration(body: &Value) -> Result<Registration, ApiError> {
    agents::registration(body)
}

/// What is kept of a body of `POST /api/v1/agents/{id}/heartbeat`.
///
/// # Errors
/// As the request.
pub fn heartbeat(body: Value) -> Result<Value, ApiError> {
    agents::check_heartbeat(&body)?;
    Ok(json::without_nul(body))
}

/// How many steps a body of `POST /api/v1/query` asks for, and the names and values in it.
///
/// # Errors
/// As the request.
pub fn query(body: &Value) -> Result<(usize, Vec<String>), ApiError> {
    let asked = Asked::read(body)?;
    let mut texts = Vec::new();
    for (query, _) in asked.queries {
        texts.extend([query.id, query.metric]);
        texts.extend(query.by);
        texts.extend(query.r#match.into_iter().flat_map(|(name, value)| [name, value]));
    }
    Ok((asked.steps.len(), texts))
}

/// A body of `POST /api/servers`.
///
/// # Errors
/// As the request.
pub fn server(body: &Value) -> Result<NewServer, ApiError> {
    servers::read_new(body)
}

/// A body of `PATCH /api/servers/{id}`.
///
/// # Errors
/// As the request.
pub fn server_patch(body: &Value) -> Result<ServerPatch, ApiError> {
    servers::read_patch(body)
}

/// A body of `POST /api/v1/keys`.
///
/// # Errors
/// As the request.
pub fn key(body: &Value) -> Result<NewKey, ApiError> {
    keys::read_new(&Object::of(body, "")?)
}

/// A body of `POST /api/v1/tokens`.
///
/// # Errors
/// As the request.
pub fn token(body: &Value) -> Result<NewToken, ApiError> {
    tokens::read_new(&Object::of(body, "")?)
}

/// The metrics of a WebSocket message, `None` of one that has none.
///
/// # Errors
/// What is answered to a message that is not understood.
pub fn websocket(body: &Value, clock: &Clock) -> Result<Option<Metrics>, ApiError> {
    match messages::read(body) {
        messages::Asked::Ping => Ok(None),
        messages::Asked::Metrics { data, .. } => agentops(data, clock).map(Some),
        messages::Asked::Unknown { error, .. } => Err(error),
    }
}
