//! What the server says about itself.

use std::sync::OnceLock;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ErrorBody;
use crate::state::{App, now_ms};

/// The server about itself.
#[derive(Serialize, ToSchema)]
pub struct StatusAnswer {
    /// Version of the server.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// The server's clock, unix milliseconds.
    now_ms: i64,
    /// When it started, unix milliseconds.
    started_ms: i64,
    /// Name of the machine that it runs on.
    #[schema(example = "web-1")]
    host_name: String,
    /// Address under which others reach it.
    #[schema(example = "http://10.0.0.5:8088")]
    public_url: String,
    /// Folder of the stored data.
    #[schema(example = "/var/lib/weir")]
    data_folder: String,
    /// How long metrics are kept, in seconds.
    #[schema(example = 86400)]
    retention_seconds: u64,
    /// Whether programs on the server's machine may send without a key.
    keyless_loopback: bool,
    /// The stored telemetry.
    store: StoreStatus,
    /// What this machine's own collectors watch.
    watching: Vec<WatchingRecord>,
}

/// The stored telemetry in numbers.
#[derive(Serialize, ToSchema)]
pub struct StoreStatus {
    /// Series that are kept.
    series: u64,
    /// Samples that are kept.
    samples: u64,
    /// Memory that they take, in bytes.
    memory_bytes: u64,
    /// Disk space that they take, in bytes.
    disk_bytes: u64,
    /// Time of the oldest sample, unix milliseconds; null while there is none.
    #[schema(required)]
    oldest_ms: Option<i64>,
}

/// What one collector watches.
#[derive(Serialize, ToSchema)]
pub struct WatchingRecord {
    /// Name of the integration.
    #[schema(example = "host")]
    integration: String,
    /// What it watches.
    #[schema(example = json!(["2 disks"]))]
    watched: Vec<String>,
    /// What it does not watch.
    not_watched: Vec<NotWatched>,
}

/// Something that is not watched.
#[derive(Serialize, ToSchema)]
pub struct NotWatched {
    /// What.
    #[schema(example = "temperatures")]
    what: String,
    /// Why.
    #[schema(example = "this machine has no sensors")]
    why: String,
}

fn store_status(stats: &weir_store::Stats) -> StoreStatus {
    StoreStatus {
        series: stats.series as u64,
        samples: stats.samples as u64,
        memory_bytes: stats.memory_bytes as u64,
        disk_bytes: stats.disk_bytes,
        oldest_ms: stats.oldest_ms,
    }
}

/// What the server is, what it keeps, and what it watches on its own machine.
#[utoipa::path(get, path = "/api/v1/status", tag = "server", responses(
    (status = 200, description = "The server about itself.", body = StatusAnswer),
))]
pub async fn status(State(app): State<App>) -> axum::Json<StatusAnswer> {
    let options = &app.options;
    let watching = options.watching.iter().map(|(integration, watching)| WatchingRecord {
        integration: integration.to_string(),
        watched: watching.watched.clone(),
        not_watched: watching
            .not_watched
            .iter()
            .map(|(what, why)| NotWatched { what: what.clone(), why: why.clone() })
            .collect(),
    });
    axum::Json(StatusAnswer {
        version: env!("CARGO_PKG_VERSION"),
        now_ms: now_ms(),
        started_ms: app.started_ms,
        host_name: options.host_name.clone(),
        public_url: options.public_url.clone(),
        data_folder: options.data_folder.display().to_string(),
        retention_seconds: options.retention.as_secs(),
        keyless_loopback: options.keyless_loopback,
        store: store_status(&app.store.stats()),
        watching: watching.collect(),
    })
}

/// The description of this API, made from the code that answers.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "server", responses(
    (status = 200, description = "The OpenAPI 3.1 document.", content_type = "application/json", body = serde_json::Value),
    (status = 500, description = "The document could not be made.", body = ErrorBody),
))]
pub async fn openapi() -> Response {
    // The same for the life of the process.
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    let text = match DOCUMENT.get() {
        Some(text) => text.clone(),
        None => match super::document().to_json() {
            Ok(text) => DOCUMENT.get_or_init(|| text).clone(),
            Err(error) => {
                let message = format!("the OpenAPI document cannot be written: {error}; please report this");
                return crate::error::ApiError::new(crate::error::Code::Internal, message).into_response();
            }
        },
    };
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weir_metadata::Scopes;
    use weir_pipeline::Watching;

    use crate::testing::TestServer;

    #[tokio::test]
    async fn the_server_says_what_it_is_and_what_it_watches() {
        let server = TestServer::with(|options| {
            let not_watched = vec![("temperatures".to_owned(), "no sensors".to_owned())];
            options.watching = vec![("host".into(), Watching { watched: vec!["2 disks".to_owned()], not_watched })];
        })
        .await;
        let got = server.get("/api/v1/status", &server.key(Scopes::READ).await).await.json();
        assert_eq!(got["host_name"], "web-1");
        assert_eq!(got["retention_seconds"], 86_400);
        assert_eq!(got["store"]["oldest_ms"], json!(null));
        let watching = json!([{"integration": "host", "watched": ["2 disks"],
            "not_watched": [{"what": "temperatures", "why": "no sensors"}]}]);
        assert_eq!(got["watching"], watching);
    }

    #[tokio::test]
    async fn the_document_has_every_path_and_says_which_need_no_key() {
        let server = TestServer::start().await;
        let got = server.get("/api/v1/openapi.json", &server.key(Scopes::READ).await).await.json();
        let paths = got["paths"].as_object().expect("paths");
        let mut open: Vec<&str> = Vec::new();
        for (path, operations) in paths {
            for operation in operations.as_object().expect("operations").values() {
                let needs_key = operation["responses"].get("401").is_some_and(|answer| answer.get("$ref").is_some());
                if !needs_key {
                    open.push(path);
                    assert_eq!(operation["security"], json!([{}]), "{path}");
                }
            }
        }
        open.sort_unstable();
        let public =
            ["/api/v1/agents/enroll", "/api/v1/login", "/health", "/join/{token}", "/join/{token}/weir", "/ready"];
        assert_eq!(open, public);
        for path in ["/api/v1/status", "/api/v1/keys", "/api/v1/tokens/{id}", "/metrics"] {
            assert!(paths.contains_key(path), "{path}");
        }
    }
}
