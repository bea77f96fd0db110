//! Whether the server lives, whether it is ready, and its own metrics.

mod exposition;
mod process;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use serde::Serialize;
use utoipa::ToSchema;
use weir_pipeline::health::State as HealthState;

use crate::state::{App, now_ms};

/// The name under which the store is an exporter of the pipeline.
const STORE: &str = "store";

/// The server lives.
#[derive(Serialize, ToSchema)]
pub struct HealthAnswer {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Version of the server.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// Seconds since it started.
    uptime_seconds: i64,
}

/// Whether the server can take and answer requests.
#[derive(Serialize, ToSchema)]
pub struct ReadyAnswer {
    /// `ready` or `not_ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// Why it is not, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Whether the process lives; asks nothing else.
#[utoipa::path(get, path = "/health", tag = "server", security(()), responses(
    (status = 200, description = "It lives.", body = HealthAnswer),
))]
pub async fn health(State(app): State<App>) -> axum::Json<HealthAnswer> {
    let uptime_seconds = now_ms().saturating_sub(app.started_ms).max(0) / 1000;
    axum::Json(HealthAnswer { status: "ok", version: env!("CARGO_PKG_VERSION"), uptime_seconds })
}

/// Whether what is sent now would be stored. Without a key it says no more than that.
#[utoipa::path(get, path = "/ready", tag = "server", security(()), responses(
    (status = 200, description = "It takes and answers requests.", body = ReadyAnswer),
    (status = 503, description = "It does not, or not yet.", body = ReadyAnswer),
))]
pub async fn ready(State(app): State<App>) -> Response {
    match not_ready(&app).await {
        None => axum::Json(ReadyAnswer { status: "ready", reason: None }).into_response(),
        Some(reason) => {
            let answer = axum::Json(ReadyAnswer { status: "not_ready", reason: Some(reason) });
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "2")], answer).into_response()
        }
    }
}

async fn not_ready(app: &App) -> Option<&'static str> {
    let health = app.telemetry.health.snapshot();
    if health.get(STORE).is_some_and(|store| store.state == HealthState::Unhealthy) {
        return Some("the store cannot be written; the server's log says why");
    }
    match app.metadata.check().await {
        Ok(()) => None,
        Err(_) => Some("servers, agents and keys cannot be read; the server's log says why"),
    }
}

/// Weir's own metrics, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server", responses(
    (status = 200, description = "Prometheus text format 0.0.4.", content_type = "text/plain", body = String),
))]
pub async fn metrics(State(app): State<App>) -> Response {
    let text = exposition::text(&app);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Method;
    use weir_metadata::Scopes;

    use crate::testing::{TestServer, request};

    #[tokio::test]
    async fn health_and_readiness_need_no_key_and_readiness_tells_a_store_that_cannot_be_written() {
        let server = TestServer::start().await;
        let get = async |path: &str| server.send(request(Method::GET, path), Body::empty()).await;
        assert_eq!(get("/health").await.json()["status"], "ok");
        assert_eq!(get("/ready").await.json()["status"], "ready");
        server.app.telemetry.health.unhealthy(&"store".into(), "/secret/folder: disk full");
        let not_ready = get("/ready").await;
        assert_eq!((not_ready.status.as_u16(), not_ready.json()["status"].as_str()), (503, Some("not_ready")));
        assert!(!not_ready.text().contains("/secret"), "details are for those with a key");
        server.app.telemetry.health.healthy(&"store".into());
        server.app.metadata.close().await;
        assert_eq!(get("/ready").await.status, 503);
        assert_eq!(get("/health").await.status, 200);
    }

    #[tokio::test]
    async fn own_metrics_need_a_key_and_are_prometheus_text() {
        let server = TestServer::start().await;
        assert_eq!(server.send(request(Method::GET, "/metrics"), Body::empty()).await.status, 401);
        let got = server.get("/metrics", &server.key(Scopes::READ).await).await;
        assert_eq!(got.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        let text = got.text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
            line.trim().parse().expect("number")
        };
        assert_eq!(value("weir_store_series "), 0.0);
        assert!(value("process_resident_memory_bytes ") > 1e6);
        assert!(text.contains(concat!("weir_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1\n")));
    }
}
