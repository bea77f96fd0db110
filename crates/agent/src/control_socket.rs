//! The socket in the data folder through which the command line sees a running pipeline and asks of
//! it: HTTP over a Unix socket that only the owner of the folder reaches. The paths are those of the
//! server's API.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio_util::task::AbortOnDropHandle;
use weir_pipeline::control::{Control, LetterError, ListQuery, Selected};

/// The name of the socket in the data folder.
pub const CONTROL_SOCKET: &str = "control.sock";

/// The open socket; dropped, it is gone.
pub struct ControlSocket {
    path: PathBuf,
    _serving: AbortOnDropHandle<()>,
}

impl ControlSocket {
    /// Opens the socket in a data folder that this process has for itself.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn open(data_folder: &Path, control: Control) -> io::Result<Self> {
        let path = data_folder.join(CONTROL_SOCKET);
        // One that is left is of a process that was killed: the folder is ours.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router(control)).await {
                tracing::warn!("the command line cannot reach this process any more: {error}");
            }
        });
        Ok(Self { path, _serving: AbortOnDropHandle::new(serving) })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Should it stay, the next start removes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn router(control: Control) -> Router {
    Router::new()
        .route("/api/v1/ledger", get(async |State(control): State<Control>| Json(control.ledger())))
        .route("/api/v1/queues", get(async |State(control): State<Control>| Json(control.queues())))
        .route("/api/v1/pipeline", get(async |State(control): State<Control>| Json(control.pipeline())))
        .route("/api/v1/dead-letters", get(list))
        .route("/api/v1/dead-letters/{id}", get(show))
        .route("/api/v1/dead-letters/replay", post(replay))
        .route("/api/v1/dead-letters/drop", post(remove))
        .route("/api/v1/dead-letters/export", post(export))
        .route("/api/v1/reload", post(async |State(control): State<Control>| answer(control.reload().await)))
        .with_state(control)
}

/// The result, or its error as one line of text.
fn answer<T: Serialize>(result: Result<T, impl std::fmt::Display>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    }
}

async fn list(State(control): State<Control>, Query(query): Query<ListQuery>) -> Response {
    answer(control.list_dead_letters(&query).await)
}

async fn show(State(control): State<Control>, UrlPath(id): UrlPath<String>) -> Response {
    answer(control.dead_letter(&id).await)
}

async fn replay(State(control): State<Control>, Json(selected): Json<Selected>) -> Response {
    answer(control.replay_dead_letters(&selected).await)
}

async fn remove(State(control): State<Control>, Json(selected): Json<Selected>) -> Response {
    answer(control.drop_dead_letters(&selected).await)
}

async fn export(State(control): State<Control>, Json(selected): Json<Selected>) -> Response {
    let exported: Result<String, LetterError> = control.export_dead_letters(&selected).await;
    exported.map_or_else(|error| answer::<()>(Err(error)), IntoResponse::into_response)
}
