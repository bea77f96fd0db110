//! OpenFinOps' telemetry.

use axum::Extension;
use axum::extract::{Request, State};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::body::{self, INGEST_LIMIT_BYTES};
use crate::error::{ApiError, ErrorBody};
use crate::ingest::{Stored, openfinops};
use crate::state::App;

/// What the AWS agent posts.
#[derive(Serialize, ToSchema)]
pub struct FlatTelemetry {
    /// The id under which the agent registered.
    #[schema(example = "aws-us-west-2")]
    pub agent_id: String,
    /// Seconds since 1970, or ISO 8601.
    #[schema(example = 1767268800.25)]
    pub timestamp: Option<Value>,
    /// Host that the agent runs on.
    pub hostname: Option<String>,
    /// Whose cloud it is.
    #[schema(example = "aws")]
    pub cloud_provider: Option<String>,
    /// Region of the cloud.
    #[schema(example = "us-west-2")]
    pub region: Option<String>,
    /// How long the agent has been running, seconds.
    pub uptime_seconds: Option<f64>,
    /// By service; one that failed is `{"service": ..., "error": ...}`.
    #[schema(value_type = Object)]
    pub services: Map<String, Value>,
    /// Sums over all services.
    #[schema(value_type = Option<Object>)]
    pub summary: Option<Map<String, Value>>,
}

/// What the Azure, GCP and generic agents post.
#[derive(Serialize, ToSchema)]
pub struct NestedTelemetry {
    /// The id under which the agent registered.
    #[schema(example = "azure-1")]
    pub agent_id: String,
    /// Seconds since 1970, or ISO 8601.
    #[schema(example = "2026-01-01T12:00:00")]
    pub timestamp: Option<Value>,
    /// By service, or `collectors` by name.
    #[schema(value_type = Object)]
    pub metrics: Map<String, Value>,
    /// What happened; kept with the body.
    #[schema(value_type = Option<Vec<Object>>)]
    pub events: Option<Vec<Value>>,
    /// How the agent is: `status`, `uptime`, `last_collection`, `metrics_count`.
    #[schema(value_type = Option<Object>)]
    pub agent_health: Option<Map<String, Value>>,
}

/// The bodies of `POST /api/v1/telemetry/ingest`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum TelemetryBody {
    /// Of the AWS agent.
    Flat(FlatTelemetry),
    /// Of the others.
    Nested(NestedTelemetry),
}

/// Stores what an OpenFinOps agent found. Every number becomes the metric `finops.` + its path; the newest body is kept
/// with the agent if it has at most 1 MiB.
#[utoipa::path(post, path = "/api/v1/telemetry/ingest", tag = "telemetry", operation_id = "ingestTelemetry", request_body = TelemetryBody, responses(
    (status = 200, description = "Stored, durably.", body = Stored),
    (status = 400, description = "It is not JSON, or a field is wrong; nothing is stored.", body = ErrorBody),
    (status = 404, description = "No agent has this id; register it first.", body = ErrorBody),
    (status = 413, description = "The body is larger than 16 MiB or has more than 20000 numbers.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "It cannot be stored now; `Retry-After` says when to come again.", body = ErrorBody),
))]
pub async fn ingest(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<axum::Json<Stored>, ApiError> {
    let body = body::read(request, INGEST_LIMIT_BYTES).await?;
    Ok(axum::Json(openfinops::take(&app, &caller, body).await?))
}
