//! Alerts of other systems.

use axum::Extension;
use axum::extract::{Request, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::body::{self, SMALL_LIMIT_BYTES};
use crate::error::{ApiError, ErrorBody};
use crate::ingest::alerts::{self, AlertBody, AlertRecord};
use crate::ingest::{Stored, json, targets};
use crate::query_params::Params;
use crate::state::{App, now_ms};

/// Stores alerts: AgentOps' flat body, a list of them, or Alertmanager's version 4 envelope. The same alert again replaces
/// the one before.
#[utoipa::path(post, path = "/api/alerts", tag = "alerts", operation_id = "postAlerts", request_body(content = AlertBody, example = json!({
    "source": "prometheus", "severity": "critical", "title": "High CPU Usage", "server": "web-prod-01",
    "metric": "cpu_usage", "value": 95.2, "threshold": 85.0
})), responses(
    (status = 200, description = "Stored, durably.", body = Stored),
    (status = 400, description = "It is not JSON, or a field is wrong; nothing is stored.", body = ErrorBody),
    (status = 413, description = "The body is larger than 1 MiB or has more than 1000 alerts.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "It cannot be stored now; `Retry-After` says when to come again.", body = ErrorBody),
))]
pub async fn post(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<axum::Json<Stored>, ApiError> {
    // An alert replaces the one of the same fingerprint, whoever sent that.
    targets::is_of_no_agent(&caller)?;
    let body = body::read(request, SMALL_LIMIT_BYTES).await?;
    let alerts = alerts::read(&json::parse(&body)?, now_ms())?;
    let records: Vec<AlertRecord> = alerts.iter().cloned().map(AlertRecord::from).collect();
    app.metadata.store_alerts(alerts).await?;
    for record in &records {
        app.alert_feed.tell(record);
    }
    Ok(axum::Json(Stored::new(records.len() as u64, 0)))
}

/// Stored alerts.
#[derive(Serialize, ToSchema)]
pub struct Alerts {
    /// Newest first.
    alerts: Vec<AlertRecord>,
}

/// The newest alerts. The server keeps 10,000.
#[utoipa::path(get, path = "/api/alerts", tag = "alerts", operation_id = "getAlerts", params(
    ("limit" = Option<u32>, Query, description = "At most so many, 100 by default, at most 1000."),
    ("before_ms" = Option<i64>, Query, description = "Only alerts that came before this time, unix milliseconds."),
), responses(
    (status = 200, description = "The alerts, newest first.", body = Alerts),
    (status = 400, description = "A parameter is wrong.", body = ErrorBody),
    (status = 503, description = "Alerts cannot be read now.", body = ErrorBody),
))]
pub async fn get(State(app): State<App>, params: Params) -> Result<axum::Json<Alerts>, ApiError> {
    let limit = params.integer("limit", 1..=1000)?.unwrap_or(100);
    let before = params.integer("before_ms", 0..=9_000_000_000_000_000)?;
    let limit = u32::try_from(limit).unwrap_or(100);
    let before_ms = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
    let alerts = app.metadata.list_alerts(limit, before_ms).await?;
    Ok(axum::Json(Alerts { alerts: alerts.into_iter().map(AlertRecord::from).collect() }))
}
