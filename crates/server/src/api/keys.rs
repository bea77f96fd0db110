//! API keys: made, listed, revoked.

use axum::Extension;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_metadata::{Key, NewKey, Scopes};

use super::credentials::{self, NAME_LIMIT_BYTES};
use super::path::PathText;
use crate::auth::Caller;
use crate::body;
use crate::error::{ApiError, ErrorBody};
use crate::ingest::json::{self, Object};
use crate::state::{App, now_ms};

/// A key to make.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "the document shows it; it is read by hand, for errors that say where")]
pub struct NewKeyBody {
    /// What it is for.
    #[schema(example = "grafana")]
    name: String,
    /// What it may do: `ingest`, `read`, `admin`; `admin` means everything.
    #[schema(example = json!(["ingest"]))]
    scopes: Vec<String>,
    /// How long it is good, in seconds. Without it until it is revoked.
    expires_in_seconds: Option<i64>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub struct CreatedKey {
    /// Its public part, by which it is revoked.
    #[schema(example = "4kz1m8q0v7xw")]
    id: String,
    /// The key itself, shown this once.
    key: String,
    /// What it is for.
    name: String,
    /// What it may do.
    #[schema(example = json!(["ingest"]))]
    scopes: Vec<&'static str>,
    /// When it was made, unix milliseconds.
    created_ms: i64,
    /// From when on it is refused, unix milliseconds; null: never.
    #[schema(required)]
    expires_ms: Option<i64>,
}

/// A key, without its secret.
#[derive(Serialize, ToSchema)]
pub struct KeyRecord {
    /// Its public part, by which it is revoked.
    #[schema(example = "4kz1m8q0v7xw")]
    id: String,
    /// What it is for.
    name: String,
    /// What it may do.
    #[schema(example = json!(["ingest"]))]
    scopes: Vec<&'static str>,
    /// The only agent that it may speak for; null: any.
    #[schema(required)]
    agent_id: Option<String>,
    /// When it was made, unix milliseconds.
    created_ms: i64,
    /// From when on it is refused, unix milliseconds; null: never.
    #[schema(required)]
    expires_ms: Option<i64>,
    /// When it was last used, unix milliseconds, to the minute; null: never.
    #[schema(required)]
    last_used_ms: Option<i64>,
    /// When it was revoked, unix milliseconds; null: it was not.
    #[schema(required)]
    revoked_ms: Option<i64>,
}

impl From<Key> for KeyRecord {
    fn from(key: Key) -> Self {
        Self {
            id: key.id,
            name: key.name,
            scopes: key.scopes.names(),
            agent_id: key.agent_id,
            created_ms: key.created_ms,
            expires_ms: key.expires_ms,
            last_used_ms: key.last_used_ms,
            revoked_ms: key.revoked_ms,
        }
    }
}

/// All keys.
#[derive(Serialize, ToSchema)]
pub struct Keys {
    /// Newest first; revoked and expired ones too, for 30 days.
    keys: Vec<KeyRecord>,
}

/// Lists all keys, without their secrets.
#[utoipa::path(get, path = "/api/v1/keys", tag = "keys", responses(
    (status = 200, description = "All keys.", body = Keys),
    (status = 503, description = "Keys cannot be read now.", body = ErrorBody),
))]
pub async fn list(State(app): State<App>) -> Result<axum::Json<Keys>, ApiError> {
    let keys = app.metadata.keys().await?;
    Ok(axum::Json(Keys { keys: keys.into_iter().map(KeyRecord::from).collect() }))
}

/// Makes a key. It is shown in this answer and never again.
#[utoipa::path(post, path = "/api/v1/keys", tag = "keys", request_body = NewKeyBody, responses(
    (status = 201, description = "The key.", body = CreatedKey),
    (status = 400, description = "A field is missing or wrong.", body = ErrorBody),
    (status = 413, description = "The body is too large.", body = ErrorBody),
    (status = 503, description = "Keys cannot be written now.", body = ErrorBody),
))]
pub async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(StatusCode, axum::Json<CreatedKey>), ApiError> {
    let body = body::read(request, body::SMALL_LIMIT_BYTES).await?;
    let value = json::parse(&body)?;
    let new = read_new(&credentials::object(&value)?)?;
    let (key, text) = app.metadata.create_key(new, now_ms()).await?;
    tracing::info!("{:?} made key {} ({:?}, {})", caller.name, key.id, key.name, key.scopes);
    let created = CreatedKey {
        id: key.id,
        key: text.expose().to_owned(),
        name: key.name,
        scopes: key.scopes.names(),
        created_ms: key.created_ms,
        expires_ms: key.expires_ms,
    };
    Ok((StatusCode::CREATED, axum::Json(created)))
}

pub(crate) fn read_new(object: &Object<'_>) -> Result<NewKey, ApiError> {
    credentials::only(object, &["name", "scopes", "expires_in_seconds"])?;
    let name = object.text("name", NAME_LIMIT_BYTES)?;
    let name = name.ok_or_else(|| ApiError::field("name", "what the key is for", "nothing"))?;
    let scopes = object.texts("scopes", 20, 3)?.unwrap_or_default();
    let scopes = Scopes::from_names(scopes.iter().map(String::as_str)).map_err(|error| {
        let found = if error.name.is_empty() { "nothing".to_owned() } else { format!("{:?}", error.name) };
        ApiError::field("scopes", "at least one of \"ingest\", \"read\", \"admin\"", &found)
    })?;
    Ok(NewKey { name, scopes, agent_id: None, expires_ms: credentials::expires_ms(object)? })
}

/// Makes a key useless, at once.
#[utoipa::path(delete, path = "/api/v1/keys/{id}", tag = "keys", params(("id" = String, Path, description = "Its id.")), responses(
    (status = 204, description = "It is revoked."),
    (status = 404, description = "There is no such key.", body = ErrorBody),
    (status = 503, description = "Keys cannot be written now.", body = ErrorBody),
))]
pub async fn revoke(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    PathText(id): PathText,
) -> Result<StatusCode, ApiError> {
    app.metadata.revoke_key(&id, now_ms()).await?;
    tracing::info!("{:?} revoked key {id:?}", caller.name);
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::testing::TestServer;

    #[tokio::test]
    async fn a_key_is_shown_once_works_and_is_useless_at_once_when_revoked() {
        let server = TestServer::start().await;
        let admin = server.key(Scopes::ADMIN).await;
        let body = json!({"name": "grafana", "scopes": ["read"], "expires_in_seconds": 3600});
        let created = server.json(Method::POST, "/api/v1/keys", &admin, &body).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let created = created.json();
        let (key, id) = (created["key"].as_str().expect("key"), created["id"].as_str().expect("id"));
        assert!(key.starts_with(&format!("weir_{id}_")));
        assert_eq!(
            created["expires_ms"].as_i64().expect("time") - created["created_ms"].as_i64().expect("time"),
            3_600_000
        );
        assert_eq!(server.get("/api/v1/session", key).await.json()["scopes"], json!(["read"]));

        let list = server.get("/api/v1/keys", &admin).await;
        assert!(!list.text().contains(&key[18..]), "a list shows a secret");
        let list = list.json();
        let record = list["keys"].as_array().expect("list").iter().find(|key| key["id"] == id).expect("listed");
        assert_eq!((&record["revoked_ms"], &record["agent_id"]), (&json!(null), &json!(null)));

        let gone = server.json(Method::DELETE, &format!("/api/v1/keys/{id}"), &admin, &json!(null)).await;
        assert_eq!((gone.status.as_u16(), gone.body.len()), (204, 0));
        assert_eq!(server.get("/api/v1/session", key).await.status, 401);
        let missing = server.json(Method::DELETE, "/api/v1/keys/nothing", &admin, &json!(null)).await;
        assert_eq!((missing.status.as_u16(), missing.code().as_str()), (404, "not_found"));
        let unreadable = server.json(Method::DELETE, "/api/v1/keys/%ff", &admin, &json!(null)).await;
        assert_eq!((unreadable.status.as_u16(), unreadable.code().as_str()), (404, "not_found"));
    }

    #[tokio::test]
    async fn a_wrong_field_is_named_and_makes_no_key() {
        let server = TestServer::start().await;
        let admin = server.key(Scopes::ADMIN).await;
        for (body, field) in [
            (json!({"scopes": ["read"]}), "name"),
            (json!({"name": "a"}), "scopes"),
            (json!({"name": "a", "scopes": []}), "scopes"),
            (json!({"name": "a", "scopes": ["write"]}), "scopes"),
            (json!({"name": "a", "scopes": ["read"], "expires_in_seconds": 0}), "expires_in_seconds"),
            (json!({"name": "a", "scopes": ["read"], "expires_in_seconds": 1e300}), "expires_in_seconds"),
            (json!({"name": "a", "scopes": ["read"], "expires_in": 60}), "expires_in"),
            (json!([]), "body"),
        ] {
            let got = server.json(Method::POST, "/api/v1/keys", &admin, &body).await;
            assert_eq!(
                (got.status.as_u16(), got.json()["field"].as_str()),
                (400, Some(field)),
                "{body}: {}",
                got.text()
            );
        }
        assert_eq!(server.app.metadata.keys().await.expect("keys").len(), 1);
    }
}
