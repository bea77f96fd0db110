//! OTLP over HTTP and gRPC, on the server's own port.

use axum::Router;
use axum::middleware::from_fn_with_state;

use crate::auth;
use crate::body::INGEST_LIMIT_BYTES;
use crate::state::App;

/// The paths of OTLP; they need the scope `ingest`.
pub fn router(app: &App) -> Router<App> {
    weir_observability::otlp_routes(app.intake.clone(), INGEST_LIMIT_BYTES)
        .route_layer(from_fn_with_state((app.clone(), auth::Scope::Ingest), auth::require))
        .with_state(())
}
