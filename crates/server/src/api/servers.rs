//! AgentOps' servers: one record for every host of the dashboard.

use axum::Extension;
use axum::extract::{Request, State};
use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use weir_metadata::{NewServer, Server, ServerPatch};

use super::path::PathText;
use crate::auth::Caller;
use crate::body::{self, SMALL_LIMIT_BYTES};
use crate::error::{ApiError, Code, ErrorBody};
use crate::hosts::row::Status;
use crate::ingest::agents::{TAG_LIMIT, TAG_LIMIT_BYTES};
use crate::ingest::json::{self, Object};
use crate::ingest::{targets, time};
use crate::state::{App, now_ms};

/// Bytes of a name, an address, a place.
const NAME_LIMIT_BYTES: usize = 255;

/// The fields that a client may set.
const FIELDS: [&str; 6] = ["id", "hostname", "ipAddress", "environment", "location", "tags"];

/// A server to register.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewServerBody {
    /// Its id; by default a random one.
    pub id: Option<String>,
    /// Its name, as its data carries it.
    #[schema(example = "web-prod-03")]
    pub hostname: String,
    /// Its address.
    #[schema(example = "10.0.1.102")]
    pub ip_address: Option<String>,
    /// Such as `production`.
    #[schema(example = "production")]
    pub environment: Option<String>,
    /// Where it stands.
    #[schema(example = "us-west-2a")]
    pub location: Option<String>,
    /// Labels: words, or `key=value`.
    #[schema(example = json!(["web", "frontend", "nginx"]))]
    pub tags: Option<Vec<String>>,
}

/// Changes of a server: what is missing stays, `null` removes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerPatchBody {
    /// A new name.
    pub hostname: Option<String>,
    /// A new address.
    pub ip_address: Option<String>,
    /// A new environment.
    pub environment: Option<String>,
    /// A new place.
    pub location: Option<String>,
    /// All labels.
    pub tags: Option<Vec<String>>,
}

/// A server.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerRecord {
    /// Its id.
    pub id: String,
    /// Its name.
    #[schema(example = "web-prod-03")]
    pub hostname: String,
    /// Its address.
    #[schema(required)]
    pub ip_address: Option<String>,
    /// Such as `production`.
    #[schema(required)]
    pub environment: Option<String>,
    /// Where it stands.
    #[schema(required)]
    pub location: Option<String>,
    /// Labels.
    pub tags: Vec<String>,
    /// How it is doing.
    pub status: Status,
    /// When its data came last, RFC 3339.
    #[schema(required)]
    pub last_seen: Option<String>,
    /// When it was registered, RFC 3339.
    pub created_at: String,
}

impl ServerRecord {
    fn of(app: &App, server: Server) -> Self {
        let row = app.hosts.row(&server.hostname, now_ms());
        let (status, last_seen) = row.map_or((Status::Unknown, None), |row| (row.row.status, row.row.last_seen_ms));
        Self {
            id: server.id,
            hostname: server.hostname,
            ip_address: server.ip_address,
            environment: server.environment,
            location: server.location,
            tags: server.tags,
            status,
            last_seen: last_seen.map(time::rfc3339),
            created_at: time::rfc3339(server.created_ms),
        }
    }
}

/// The server with this id or hostname.
///
/// # Errors
/// 404 that says how a server becomes known.
pub async fn found(app: &App, id: &str) -> Result<Server, ApiError> {
    app.metadata.find_server(id).await?.ok_or_else(|| targets::unknown_server(id))
}

/// Tells the live table what is known about a server now.
async fn describe(app: &App, server: &Server) -> Result<(), ApiError> {
    let agent = app.metadata.agents_by_hostname(&server.hostname).await?.into_iter().next();
    app.hosts.describe(server, agent.as_ref());
    Ok(())
}

/// Registers a server.
#[utoipa::path(post, path = "/api/servers", tag = "servers", operation_id = "createServer", request_body = NewServerBody, responses(
    (status = 201, description = "The server.", body = ServerRecord, headers(("Location" = String, description = "Its path."))),
    (status = 400, description = "It is not JSON, or a field is wrong.", body = ErrorBody),
    (status = 409, description = "The hostname or the id is taken.", body = ErrorBody),
    (status = 413, description = "The body is larger than 1 MiB.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "It cannot be stored now.", body = ErrorBody),
))]
pub async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(StatusCode, [(HeaderName, HeaderValue); 1], axum::Json<ServerRecord>), ApiError> {
    // The server of its own host is made when it joins.
    targets::is_of_no_agent(&caller)?;
    let body = body::read(request, SMALL_LIMIT_BYTES).await?;
    let new = read_new(&json::parse(&body)?)?;
    let server = app.metadata.create_server(new, now_ms()).await?;
    describe(&app, &server).await?;
    let path = HeaderValue::try_from(format!("/api/servers/{}", path_segment(&server.id)));
    let path = path.map_err(|_| ApiError::new(Code::Internal, "the id makes no path"))?;
    Ok((StatusCode::CREATED, [(LOCATION, path)], axum::Json(ServerRecord::of(&app, server))))
}

/// Text as one segment of a path (RFC 3986 §3.3): everything but unreserved characters is percent-encoded.
fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

fn known_fields(object: &Object<'_>) -> Result<(), ApiError> {
    match object.map.keys().find(|key| !FIELDS.contains(&key.as_str())) {
        Some(unknown) => Err(ApiError::field(
            json::shown_name(unknown),
            format!("only the fields {}", FIELDS.join(", ")),
            "another one",
        )),
        None => Ok(()),
    }
}

pub(crate) fn read_new(body: &Value) -> Result<NewServer, ApiError> {
    let object = Object::of(body, "")?;
    known_fields(&object)?;
    let text = |key| object.text(key, NAME_LIMIT_BYTES);
    let hostname = text("hostname")?.ok_or_else(|| ApiError::field("hostname", "the server's name", "nothing"))?;
    Ok(NewServer {
        id: text("id")?,
        hostname,
        ip_address: text("ipAddress")?,
        environment: text("environment")?,
        location: text("location")?,
        tags: object.texts("tags", TAG_LIMIT_BYTES, TAG_LIMIT)?.unwrap_or_default(),
        ..NewServer::default()
    })
}

pub(crate) fn read_patch(body: &Value) -> Result<ServerPatch, ApiError> {
    let object = Object::of(body, "")?;
    known_fields(&object)?;
    if object.value("id").is_some() {
        return Err(ApiError::field("id", "no id: it cannot be changed", "one"));
    }
    let text = |key| match object.map.get(key) {
        None => Ok(None),
        Some(_) => object.text(key, NAME_LIMIT_BYTES).map(Some),
    };
    if object.map.get("hostname").is_some_and(Value::is_null) {
        return Err(ApiError::field("hostname", "the server's name", "nothing"));
    }
    let tags = match object.map.get("tags") {
        Some(Value::Null) => Some(Vec::new()),
        _ => object.texts("tags", TAG_LIMIT_BYTES, TAG_LIMIT)?,
    };
    Ok(ServerPatch {
        hostname: text("hostname")?.flatten(),
        ip_address: text("ipAddress")?,
        environment: text("environment")?,
        location: text("location")?,
        tags,
        ..ServerPatch::default()
    })
}

/// All servers.
#[derive(Serialize, ToSchema)]
pub struct Servers {
    /// By hostname.
    servers: Vec<ServerRecord>,
}

/// Lists all servers.
#[utoipa::path(get, path = "/api/servers", tag = "servers", operation_id = "listServers", responses(
    (status = 200, description = "All servers.", body = Servers),
    (status = 503, description = "Servers cannot be read now.", body = ErrorBody),
))]
pub async fn list(State(app): State<App>) -> Result<axum::Json<Servers>, ApiError> {
    let servers = app.metadata.servers().await?;
    Ok(axum::Json(Servers { servers: servers.into_iter().map(|server| ServerRecord::of(&app, server)).collect() }))
}

/// One server.
#[utoipa::path(get, path = "/api/servers/{id}", tag = "servers", operation_id = "getServer",
    params(("id" = String, Path, description = "Id or hostname of the server.")), responses(
    (status = 200, description = "The server.", body = ServerRecord),
    (status = 404, description = "No server has this id or hostname.", body = ErrorBody),
    (status = 503, description = "Servers cannot be read now.", body = ErrorBody),
))]
pub async fn get(State(app): State<App>, PathText(id): PathText) -> Result<axum::Json<ServerRecord>, ApiError> {
    let server = found(&app, &id).await?;
    Ok(axum::Json(ServerRecord::of(&app, server)))
}

/// Changes a server. What is missing stays, `null` removes.
#[utoipa::path(patch, path = "/api/servers/{id}", tag = "servers", operation_id = "updateServer",
    params(("id" = String, Path, description = "Id or hostname of the server.")), request_body = ServerPatchBody, responses(
    (status = 200, description = "The server as it is now.", body = ServerRecord),
    (status = 400, description = "It is not JSON, or a field is wrong.", body = ErrorBody),
    (status = 404, description = "No server has this id or hostname.", body = ErrorBody),
    (status = 409, description = "The hostname is taken.", body = ErrorBody),
    (status = 413, description = "The body is larger than 1 MiB.", body = ErrorBody),
    (status = 415, description = "The content encoding is not known.", body = ErrorBody),
    (status = 503, description = "It cannot be stored now.", body = ErrorBody),
))]
pub async fn update(
    State(app): State<App>,
    PathText(id): PathText,
    request: Request,
) -> Result<axum::Json<ServerRecord>, ApiError> {
    let body = body::read(request, SMALL_LIMIT_BYTES).await?;
    let patch = read_patch(&json::parse(&body)?)?;
    let before = found(&app, &id).await?;
    let server = app.metadata.update_server(&before.id, patch).await?;
    if server.hostname != before.hostname {
        app.hosts.forget(&before.hostname);
    }
    describe(&app, &server).await?;
    Ok(axum::Json(ServerRecord::of(&app, server)))
}

/// Removes a server. Its stored metrics stay until their retention ends; new data makes it known again.
#[utoipa::path(delete, path = "/api/servers/{id}", tag = "servers", operation_id = "deleteServer",
    params(("id" = String, Path, description = "Id or hostname of the server.")), responses(
    (status = 204, description = "It is removed."),
    (status = 404, description = "No server has this id or hostname.", body = ErrorBody),
    (status = 503, description = "Servers cannot be written now.", body = ErrorBody),
))]
pub async fn delete(State(app): State<App>, PathText(id): PathText) -> Result<StatusCode, ApiError> {
    let server = found(&app, &id).await?;
    app.metadata.delete_server(&server.id).await?;
    app.hosts.forget(&server.hostname);
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_seeds_server_is_read_as_it_stands() {
        let body = json!({"hostname": "web-prod-03", "ipAddress": "10.0.1.102", "environment": "production",
            "location": "us-west-2a", "tags": ["web", "frontend", "nginx"]});
        let new = read_new(&body).unwrap();
        assert_eq!((new.hostname.as_str(), new.ip_address.as_deref()), ("web-prod-03", Some("10.0.1.102")));
        assert_eq!((new.tags.len(), new.id), (3, None));
    }

    #[test]
    fn a_patch_tells_missing_from_removed() {
        let patch = read_patch(&json!({"environment": null, "location": "fra-1", "tags": null})).unwrap();
        assert_eq!((patch.environment, patch.location), (Some(None), Some(Some("fra-1".to_owned()))));
        assert_eq!((patch.ip_address, patch.hostname, patch.tags), (None, None, Some(Vec::new())));
        assert!(read_patch(&json!({"hostname": null})).is_err());
        assert!(read_patch(&json!({"id": "x"})).is_err());
        assert!(read_patch(&json!({"hostname": ""})).is_err());
    }

    #[test]
    fn unknown_fields_are_not_ignored_silently() {
        let error = read_new(&json!({"hostname": "a", "ip": "10.0.0.1"})).unwrap_err();
        assert_eq!(error.body().field.as_deref(), Some("ip"));
        assert!(error.body().message.contains("ipAddress"));
        assert!(read_new(&json!({"hostname": "a\u{0}"})).is_err());
        assert!(read_new(&json!({})).is_err());
    }

    #[test]
    fn any_id_makes_a_path() {
        assert_eq!(path_segment("web-1"), "web-1");
        assert_eq!(path_segment("a b/ü"), "a%20b%2F%C3%BC");
    }
}
