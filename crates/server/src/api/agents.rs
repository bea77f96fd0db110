//! Agents: registered, alive, their metrics.

use axum::Extension;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use weir_metadata::Agent;

use super::path::PathText;
use crate::auth::Caller;
use crate::body::{self, INGEST_LIMIT_BYTES, SMALL_LIMIT_BYTES};
use crate::error::{ApiError, ErrorBody};
use crate::hosts::row::Status;
use crate::ingest::agent_monitor::{self, AgentMetrics, AgentMetricsBody};
use crate::ingest::fields::AGENT_MONITOR;
use crate::ingest::{Stored, agents, history, json, targets};
use crate::query_params::Params;
use crate::state::{App, now_ms};

/// An agent that registers: the agent monitor's, OpenFinOps' or Weir's. Whatever it says beside these fields is kept.
#[derive(Serialize, ToSchema)]
pub struct RegisterBody {
    /// Its id; `id` is understood too. Without one the server makes it.
    #[schema(example = "web-server-01")]
    pub agent_id: Option<String>,
    /// The host that it runs on; by default its id.
    #[schema(example = "web-prod-03")]
    pub hostname: Option<String>,
    /// Such as `weir`, `aws`, `generic`.
    pub agent_type: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Labels: words, or `key=value`. An object of texts is understood too.
    pub tags: Option<Vec<String>>,
    /// The machine: `os`, `kernel`, `architecture`, `cpu_count`, `memory_bytes`, `ip_address`.
    #[schema(value_type = Option<Object>)]
    pub system: Option<Value>,
    /// Region of the cloud.
    pub region: Option<String>,
    /// Whose cloud it is.
    pub cloud_provider: Option<String>,
    /// How the agent is configured.
    #[schema(value_type = Option<Object>)]
    pub config: Option<Value>,
    /// What the agent can do.
    pub capabilities: Option<Vec<String>>,
    /// What the agent collects.
    pub collectors: Option<Vec<String>>,
}

/// The answer to an agent that registered.
#[derive(Serialize, ToSchema)]
pub struct Registered {
    /// Always `success`.
    #[schema(example = "success")]
    pub status: &'static str,
    /// Its id.
    #[schema(example = "web-server-01")]
    pub agent_id: String,
}

/// Registers an agent, or replaces what it said before.
#[utoipa::path(post, path = "/api/v1/agents/register", tag = "agents", operation_id = "registerAgent", request_body = RegisterBody, responses(
    (status = 200, description = "It is known.", body = Registered),
    (status = 400, description = "It is not JSON, or a field is wrong.", body = ErrorBody),
    (status = 413, description = "The body is larger than 1 MiB.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "It cannot be stored now.", body = ErrorBody),
))]
pub async fn register(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<axum::Json<Registered>, ApiError> {
    let body = body::read(request, SMALL_LIMIT_BYTES).await?;
    let agent = agents::register(&app, &caller, &json::parse(&body)?).await?;
    Ok(axum::Json(Registered { status: "success", agent_id: agent.id }))
}

/// A sign of life. All of it may be missing; whatever it says beside these fields is kept.
#[derive(Serialize, ToSchema)]
pub struct HeartbeatBody {
    /// How the agent is, in its own words.
    #[schema(example = "healthy")]
    pub status: Option<String>,
    /// The agent's time; the server takes its own.
    pub timestamp: Option<Value>,
    /// The machine: `os`, `kernel`, `architecture`, `cpu_count`, `memory_bytes`, `uptime_seconds`, `ip_address`.
    #[schema(value_type = Option<Object>)]
    pub system: Option<Value>,
    /// Version of the agent.
    pub agent_version: Option<String>,
    /// What it watches: `[{"name", "watched": [..], "not_watched": [{"what", "why"}], "health"}]`.
    #[schema(value_type = Option<Vec<Object>>)]
    pub integrations: Option<Value>,
    /// How often it reports, seconds.
    pub interval_seconds: Option<f64>,
}

/// The answer to a heartbeat.
#[derive(Serialize, ToSchema)]
pub struct Alive {
    /// Always `success`.
    #[schema(example = "success")]
    pub status: &'static str,
    /// The server's time, unix milliseconds.
    pub server_time_ms: i64,
}

/// Keeps a sign of life. The body may be empty.
#[utoipa::path(post, path = "/api/v1/agents/{id}/heartbeat", tag = "agents", operation_id = "sendHeartbeat",
    params(("id" = String, Path, description = "Id of the agent.")), request_body = Option<HeartbeatBody>, responses(
    (status = 200, description = "It is kept.", body = Alive),
    (status = 400, description = "It is not JSON, or a field is wrong.", body = ErrorBody),
    (status = 404, description = "No agent has this id; register it first.", body = ErrorBody),
    (status = 413, description = "The body is larger than 1 MiB.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "It cannot be stored now.", body = ErrorBody),
))]
pub async fn heartbeat(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    PathText(id): PathText,
    request: Request,
) -> Result<axum::Json<Alive>, ApiError> {
    targets::may_speak_as(&caller, &id)?;
    let body = body::read(request, SMALL_LIMIT_BYTES).await?;
    agents::take_heartbeat(&app, &id, json::parse_or_empty(&body)?).await?;
    Ok(axum::Json(Alive { status: "success", server_time_ms: now_ms() }))
}

/// Stores metrics of an agent: one object, a list, or a list below `metrics`. All of a request is stored or nothing.
#[utoipa::path(post, path = "/api/v1/agents/{id}/metrics", tag = "agents", operation_id = "postAgentMetrics",
    params(("id" = String, Path, description = "Id of the agent.")),
    request_body(content = AgentMetricsBody, example = json!({
        "cpu_usage": 45.2, "memory_usage": 68.5, "disk_usage": 45.0, "network_io": {"bytes_sent": 1024, "bytes_recv": 2048},
        "response_time": 12.5, "timestamp": "2026-01-01T12:00:00.123456", "custom_metrics": {"queue": {"depth": 3}}
    })), responses(
    (status = 200, description = "Stored, durably.", body = Stored),
    (status = 400, description = "It is not JSON, or a field is wrong; nothing is stored.", body = ErrorBody),
    (status = 404, description = "No agent has this id; register it first.", body = ErrorBody),
    (status = 413, description = "The body is larger than 16 MiB or has too many values.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "It cannot be stored now; `Retry-After` says when to come again.", body = ErrorBody),
))]
pub async fn post_metrics(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    PathText(id): PathText,
    request: Request,
) -> Result<axum::Json<Stored>, ApiError> {
    let body = body::read(request, INGEST_LIMIT_BYTES).await?;
    Ok(axum::Json(agent_monitor::take(&app, &caller, &id, body).await?))
}

/// The history of an agent.
#[derive(Serialize, ToSchema)]
pub struct AgentHistory {
    /// Oldest first.
    metrics: Vec<AgentMetrics>,
}

/// The metrics of an agent's host, with the fields and units of the POST, whoever reported them.
#[utoipa::path(get, path = "/api/v1/agents/{id}/metrics", tag = "agents", operation_id = "getAgentMetrics", params(
    ("id" = String, Path, description = "Id of the agent."),
    ("hours" = Option<f64>, Query, description = "How far back, 24 by default."),
    ("limit" = Option<u64>, Query, description = "The newest so many, 10000 by default, at most 100000."),
), responses(
    (status = 200, description = "The metrics, oldest first.", body = AgentHistory),
    (status = 400, description = "A parameter is wrong.", body = ErrorBody),
    (status = 404, description = "No agent has this id.", body = ErrorBody),
    (status = 503, description = "Agents cannot be read now.", body = ErrorBody),
))]
pub async fn get_metrics(
    State(app): State<App>,
    PathText(id): PathText,
    params: Params,
) -> Result<axum::Json<AgentHistory>, ApiError> {
    let window = history::Window::of(&params)?;
    let agent = found(&app, &id).await?;
    let rows = history::read(&app, &agent.hostname, &AGENT_MONITOR, window).await?;
    Ok(axum::Json(AgentHistory { metrics: rows.into_iter().map(AgentMetrics::of).collect() }))
}

/// An agent.
#[derive(Serialize, ToSchema)]
pub struct AgentRecord {
    /// Its id.
    #[schema(example = "web-server-01")]
    pub id: String,
    /// The host that it runs on.
    #[schema(example = "web-prod-03")]
    pub hostname: String,
    /// Such as `weir`, `aws`, `generic`.
    #[schema(required)]
    pub agent_type: Option<String>,
    /// How its host is doing.
    pub status: Status,
    /// Its version.
    #[schema(required)]
    pub version: Option<String>,
    /// When it registered first, unix milliseconds.
    pub registered_ms: i64,
    /// When its last heartbeat came, unix milliseconds.
    #[schema(required)]
    pub last_heartbeat_ms: Option<i64>,
    /// Labels.
    pub tags: Vec<String>,
}

impl AgentRecord {
    fn of(app: &App, agent: &Agent) -> Self {
        let row = app.hosts.row(&agent.hostname, now_ms());
        Self {
            id: agent.id.clone(),
            hostname: agent.hostname.clone(),
            agent_type: agent.agent_type.clone(),
            status: row.map_or(Status::Unknown, |row| row.row.status),
            version: agent.version.clone(),
            registered_ms: agent.registered_ms,
            last_heartbeat_ms: agent.last_heartbeat_ms,
            tags: agent.tags.clone(),
        }
    }
}

/// All agents.
#[derive(Serialize, ToSchema)]
pub struct Agents {
    /// By hostname and id.
    agents: Vec<AgentRecord>,
}

/// Lists all agents.
#[utoipa::path(get, path = "/api/v1/agents", tag = "agents", operation_id = "listAgents", responses(
    (status = 200, description = "All agents.", body = Agents),
    (status = 503, description = "Agents cannot be read now.", body = ErrorBody),
))]
pub async fn list(State(app): State<App>) -> Result<axum::Json<Agents>, ApiError> {
    let agents = app.metadata.agents().await?;
    Ok(axum::Json(Agents { agents: agents.iter().map(|agent| AgentRecord::of(&app, agent)).collect() }))
}

/// An agent with all that it said.
#[derive(Serialize, ToSchema)]
pub struct AgentDetails {
    /// What all agents have.
    #[serde(flatten)]
    pub agent: AgentRecord,
    /// What else it said when it registered.
    #[schema(value_type = Object)]
    pub attributes: Value,
    /// Its last heartbeat, or the last body of an OpenFinOps agent below `telemetry`.
    #[schema(value_type = Option<Object>, required)]
    pub heartbeat: Value,
    /// How often it reports, seconds.
    #[schema(required)]
    pub interval_seconds: Option<f64>,
}

/// One agent with all that it said.
#[utoipa::path(get, path = "/api/v1/agents/{id}", tag = "agents", operation_id = "getAgent",
    params(("id" = String, Path, description = "Id of the agent.")), responses(
    (status = 200, description = "The agent.", body = AgentDetails),
    (status = 404, description = "No agent has this id.", body = ErrorBody),
    (status = 503, description = "Agents cannot be read now.", body = ErrorBody),
))]
pub async fn get(State(app): State<App>, PathText(id): PathText) -> Result<axum::Json<AgentDetails>, ApiError> {
    let agent = found(&app, &id).await?;
    let attributes = if agent.attributes.is_object() { agent.attributes.clone() } else { Value::Object(Map::new()) };
    Ok(axum::Json(AgentDetails {
        agent: AgentRecord::of(&app, &agent),
        attributes,
        heartbeat: agent.heartbeat,
        interval_seconds: agent.interval_seconds,
    }))
}

/// Forgets an agent and revokes its keys. The metrics of its host stay.
#[utoipa::path(delete, path = "/api/v1/agents/{id}", tag = "agents", operation_id = "deleteAgent",
    params(("id" = String, Path, description = "Id of the agent.")), responses(
    (status = 204, description = "It is forgotten."),
    (status = 404, description = "No agent has this id.", body = ErrorBody),
    (status = 503, description = "Agents cannot be written now.", body = ErrorBody),
))]
pub async fn delete(State(app): State<App>, PathText(id): PathText) -> Result<StatusCode, ApiError> {
    let agent = found(&app, &id).await?;
    app.metadata.delete_agent(&agent.id, now_ms()).await?;
    if let Some(server) = app.metadata.server_by_hostname(&agent.hostname).await? {
        let left = app.metadata.agents_by_hostname(&agent.hostname).await?.into_iter().next();
        app.hosts.describe(&server, left.as_ref());
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn found(app: &App, id: &str) -> Result<Agent, ApiError> {
    app.metadata.agent(id).await?.ok_or_else(|| targets::unknown_agent(id))
}
