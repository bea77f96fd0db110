//! The pipeline: where every record is, what waits, what backends refused, and reading the
//! configuration again.

use axum::extract::{Request, State};
use http::Uri;
use weir_pipeline::control::{
    Changes, DeadLettersView, DoneView, LedgerView, LetterError, ListQuery, PipelineView, QueuesView, Selected,
};
use weir_pipeline::dead_letters::Stored as DeadLetter;

use super::path::PathText;
use crate::body::{self, SMALL_LIMIT_BYTES};
use crate::error::{ApiError, Code, ErrorBody};
use crate::ingest::json;
use crate::query_params::Params;
use crate::state::App;

impl From<LetterError> for ApiError {
    fn from(error: LetterError) -> Self {
        match &error {
            LetterError::Request { field, message } => {
                let mut wrong = ApiError::new(Code::InvalidField, error.to_string());
                wrong.set_field(*field, message.clone());
                wrong
            }
            LetterError::Unknown(_) => ApiError::new(Code::NotFound, error.to_string()),
            LetterError::Unavailable(_) => ApiError::unavailable(error.to_string()),
        }
    }
}

/// Where every record is: for each source, exporter and signal
/// `accepted = delivered + queued + in_flight + dead_lettered + dropped`, exact to the record and over restarts.
#[utoipa::path(get, path = "/api/v1/ledger", tag = "pipeline", responses(
    (status = 200, description = "All rows, each adding up by itself.", body = LedgerView),
))]
pub async fn ledger(State(app): State<App>) -> axum::Json<LedgerView> {
    axum::Json(app.control.ledger())
}

/// The pipeline as it is now: sources, routes, exporters, and what flows between them.
#[utoipa::path(get, path = "/api/v1/pipeline", tag = "pipeline", responses(
    (status = 200, description = "The pipeline.", body = PipelineView),
))]
pub async fn pipeline(State(app): State<App>) -> axum::Json<PipelineView> {
    axum::Json(app.control.pipeline())
}

/// What waits for every exporter.
#[utoipa::path(get, path = "/api/v1/queues", tag = "pipeline", responses(
    (status = 200, description = "One queue for each exporter.", body = QueuesView),
))]
pub async fn queues(State(app): State<App>) -> axum::Json<QueuesView> {
    axum::Json(app.control.queues())
}

/// Reads the configuration again and becomes what it says: what stays the same runs on untouched, and no record
/// is lost. A file with problems changes nothing.
#[utoipa::path(post, path = "/api/v1/reload", tag = "pipeline", responses(
    (status = 200, description = "What has changed.", body = Changes),
    (status = 400, description = "The configuration cannot be used; nothing has changed.", body = ErrorBody),
))]
pub async fn reload(State(app): State<App>) -> Result<axum::Json<Changes>, ApiError> {
    let changes = app.control.reload().await.map_err(|why| ApiError::new(Code::InvalidField, why))?;
    Ok(axum::Json(changes))
}

/// Records that backends refused for good, newest first.
#[utoipa::path(get, path = "/api/v1/dead-letters", tag = "dead letters", params(ListQuery), responses(
    (status = 200, description = "A page of them.", body = DeadLettersView),
    (status = 400, description = "A parameter is wrong.", body = ErrorBody),
    (status = 503, description = "They cannot be read now.", body = ErrorBody),
))]
pub async fn dead_letters(State(app): State<App>, uri: Uri) -> Result<axum::Json<DeadLettersView>, ApiError> {
    let params = Params::of(&uri)?;
    let text = |name: &str| params.text(name).map(str::to_owned);
    let limit = params.integer("limit", 1..=1000)?.and_then(|limit| usize::try_from(limit).ok());
    let query = ListQuery {
        exporter: text("exporter"),
        source: text("source"),
        signal: text("signal"),
        before: text("before"),
        limit,
    };
    Ok(axum::Json(app.control.list_dead_letters(&query).await?))
}

/// One dead letter with its records, as an OTLP/JSON export request.
#[utoipa::path(get, path = "/api/v1/dead-letters/{id}", tag = "dead letters", params(
    ("id" = String, Path, description = "Its id."),
), responses(
    (status = 200, description = "The letter.", body = DeadLetter),
    (status = 400, description = "This is no id.", body = ErrorBody),
    (status = 404, description = "There is no letter of this id.", body = ErrorBody),
    (status = 503, description = "It cannot be read now.", body = ErrorBody),
))]
pub async fn dead_letter(State(app): State<App>, PathText(id): PathText) -> Result<axum::Json<DeadLetter>, ApiError> {
    Ok(axum::Json(app.control.dead_letter(&id).await?))
}

/// Hands dead letters to their exporters once more. Those that are queued or delivered again are gone.
#[utoipa::path(post, path = "/api/v1/dead-letters/replay", tag = "dead letters", request_body = Selected, responses(
    (status = 200, description = "What became of them.", body = DoneView),
    (status = 400, description = "The selection makes no sense.", body = ErrorBody),
    (status = 413, description = "The body is too large.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "They cannot be read now.", body = ErrorBody),
))]
pub async fn replay(State(app): State<App>, request: Request) -> Result<axum::Json<DoneView>, ApiError> {
    Ok(axum::Json(app.control.replay_dead_letters(&selected(request).await?).await?))
}

/// Removes dead letters for good.
#[utoipa::path(post, path = "/api/v1/dead-letters/drop", tag = "dead letters", request_body = Selected, responses(
    (status = 200, description = "How many are gone.", body = DoneView),
    (status = 400, description = "The selection makes no sense.", body = ErrorBody),
    (status = 413, description = "The body is too large.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "They cannot be removed now.", body = ErrorBody),
))]
pub async fn drop_dead_letters(State(app): State<App>, request: Request) -> Result<axum::Json<DoneView>, ApiError> {
    Ok(axum::Json(app.control.drop_dead_letters(&selected(request).await?).await?))
}

async fn selected(request: Request) -> Result<Selected, ApiError> {
    let body = body::read(request, SMALL_LIMIT_BYTES).await?;
    let value = json::parse(&body)?;
    serde_json::from_value(value).map_err(|error| {
        ApiError::new(
            Code::InvalidField,
            format!("expected {{\"ids\": [...]}}, {{\"exporter\": \"...\"}} or {{\"all\": true}}: {error}"),
        )
    })
}
