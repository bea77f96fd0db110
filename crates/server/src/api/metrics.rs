//! AgentOps' metrics: posted and read back.

use axum::Extension;
use axum::extract::{Request, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::body::{self, INGEST_LIMIT_BYTES};
use crate::error::{ApiError, ErrorBody};
use crate::ingest::agentops::{self, ServerMetrics, ServerMetricsBody};
use crate::ingest::fields::AGENTOPS;
use crate::ingest::{Stored, history, json};
use crate::query_params::Params;
use crate::state::App;

/// Stores metrics of servers: one object, a list, or a list below `metrics`. All of a request is stored or nothing.
#[utoipa::path(post, path = "/api/metrics", tag = "metrics", operation_id = "postMetrics", request_body(content = ServerMetricsBody, example = json!({
    "serverId": "web-prod-03", "cpuUsage": 45.2, "memoryUsage": 68.5, "memoryTotal": 16384, "diskUsage": 45.0,
    "diskTotal": 500, "networkLatency": 2.3, "networkThroughput": 125.5, "processCount": 127
})), responses(
    (status = 200, description = "Stored, durably.", body = Stored),
    (status = 400, description = "It is not JSON, or a field is wrong; nothing is stored.", body = ErrorBody),
    (status = 404, description = "No server has this id or hostname; nothing is stored.", body = ErrorBody),
    (status = 413, description = "The body is larger than 16 MiB or has too many values.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "It cannot be stored now; `Retry-After` says when to come again.", body = ErrorBody),
))]
pub async fn post(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<axum::Json<Stored>, ApiError> {
    let body = body::read(request, INGEST_LIMIT_BYTES).await?;
    let body = json::parse_apart(body).await?;
    Ok(axum::Json(agentops::take_value(&app, &caller, &body).await?))
}

/// The history of a server.
#[derive(Serialize, ToSchema)]
pub struct ServerHistory {
    /// Oldest first.
    metrics: Vec<ServerMetrics>,
}

/// The metrics of a server, with the fields and units of `POST /api/metrics`, whoever reported them.
#[utoipa::path(get, path = "/api/metrics", tag = "metrics", operation_id = "getMetrics", params(
    ("serverId" = String, Query, description = "Id or hostname of the server."),
    ("hours" = Option<f64>, Query, description = "How far back, 24 by default."),
    ("limit" = Option<u64>, Query, description = "The newest so many, 10000 by default, at most 100000."),
), responses(
    (status = 200, description = "The metrics, oldest first.", body = ServerHistory),
    (status = 400, description = "A parameter is missing or wrong.", body = ErrorBody),
    (status = 404, description = "No server has this id or hostname.", body = ErrorBody),
    (status = 503, description = "Servers cannot be read now.", body = ErrorBody),
))]
pub async fn get(State(app): State<App>, params: Params) -> Result<axum::Json<ServerHistory>, ApiError> {
    let id =
        params.text("serverId").ok_or_else(|| ApiError::field("serverId", "id or hostname of a server", "nothing"))?;
    let window = history::Window::of(&params)?;
    let server = super::servers::found(&app, id).await?;
    let rows = history::read(&app, &server.hostname, &AGENTOPS, window).await?;
    let metrics = rows.into_iter().map(|row| ServerMetrics::of(&server.id, row)).collect();
    Ok(axum::Json(ServerHistory { metrics }))
}
