//! Every route, grouped by the scope that it needs.
//!
//! A route stands in exactly one group, and what is in no group is not reachable: nobody can forget
//! to ask for a key. The OpenAPI document is made from the same lists.

pub mod agents;
pub mod alerts;
mod credentials;
pub mod health;
pub mod hosts;
pub mod join;
pub mod keys;
pub mod login;
pub mod metrics;
pub mod path;
pub mod pipeline;
pub mod query;
pub mod servers;
pub mod status;
pub mod telemetry;
pub mod tokens;
pub mod websocket;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth;
use crate::error::{ApiError, Code};
use crate::state::App;

/// The head of the document; its paths come from the routes.
#[derive(OpenApi)]
#[openapi(info(
    title = "Weir",
    description = "Weir's server. Every path but `/health` and `/ready` needs a key; how, says the security scheme."
))]
struct Document;

/// Needs no key.
fn public() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(login::login))
        .routes(routes!(join::script))
        .routes(routes!(join::program))
        .routes(routes!(join::enroll))
}

/// Needs the scope `ingest`.
fn ingest() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(metrics::post))
        .routes(routes!(agents::register))
        .routes(routes!(agents::heartbeat))
        .routes(routes!(agents::post_metrics))
        .routes(routes!(telemetry::ingest))
        .routes(routes!(servers::create))
        .routes(routes!(alerts::post))
}

/// Needs the scope `read`.
fn read() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::metrics))
        .routes(routes!(login::session))
        .routes(routes!(login::logout))
        .routes(routes!(status::status))
        .routes(routes!(status::openapi))
        .routes(routes!(metrics::get))
        .routes(routes!(agents::list))
        .routes(routes!(agents::get))
        .routes(routes!(agents::get_metrics))
        .routes(routes!(servers::list))
        .routes(routes!(servers::get))
        .routes(routes!(alerts::get))
        .routes(routes!(hosts::list))
        .routes(routes!(hosts::get))
        .routes(routes!(hosts::processes))
        .routes(routes!(hosts::probes))
        .routes(routes!(query::query))
        .routes(routes!(pipeline::ledger))
        .routes(routes!(pipeline::pipeline))
        .routes(routes!(pipeline::queues))
        .routes(routes!(pipeline::dead_letter))
        .routes(routes!(pipeline::dead_letters))
}

/// Needs the scope `admin`.
fn admin() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(servers::update))
        .routes(routes!(servers::delete))
        .routes(routes!(agents::delete))
        .routes(routes!(hosts::delete))
        .routes(routes!(pipeline::reload))
        .routes(routes!(pipeline::replay))
        .routes(routes!(pipeline::drop_dead_letters))
}

/// The OpenAPI document of all routes.
pub fn document() -> utoipa::openapi::OpenApi {
    let routes = public().merge(ingest()).merge(read()).merge(admin());
    let (_, mut document) = OpenApiRouter::with_openapi(Document::openapi()).merge(routes).split_for_parts();
    auth::describe(&mut document);
    document
}

/// The router of the server's listener.
pub fn router(app: App) -> Router {
    let needs = |scope| from_fn_with_state((app.clone(), scope), auth::require);
    let (router, _) = public()
        .merge(ingest().route_layer(needs(auth::Scope::Ingest)))
        .merge(read().route_layer(needs(auth::Scope::Read)))
        .merge(admin().route_layer(needs(auth::Scope::Admin)))
        .split_for_parts();
    router
        .merge(websocket::router(&app))
        .merge(crate::ingest::otlp::router(&app))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(axum::middleware::from_fn(auth::headers::secure))
        .with_state(app)
}

async fn method_not_allowed(request: Request) -> ApiError {
    let (method, path) = (request.method(), request.uri().path());
    ApiError::new(Code::MethodNotAllowed, format!("{method} is not supported at {path}"))
}

/// What is no route: a file of the dashboard, one of its views, or nothing.
async fn not_found(request: Request) -> Response {
    match crate::dashboard::file(&request) {
        Some(response) => response,
        None => {
            let path: String = request.uri().path().chars().take(100).collect();
            let slash = if path.ends_with('/') { " (paths have no slash at their end)" } else { "" };
            let message = format!("there is no {path}{slash}; GET /api/v1/openapi.json tells all paths");
            ApiError::new(Code::NotFound, message).into_response()
        }
    }
}
