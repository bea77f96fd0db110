//! Enrolment tokens: made, listed, revoked. With one, machines join.

use axum::Extension;
use axum::extract::{Request, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_metadata::{MAXIMUM_TOKEN_USES, NewToken, Token};

use super::credentials::{self, NAME_LIMIT_BYTES};
use super::join;
use super::path::PathText;
use crate::auth::Caller;
use crate::body;
use crate::error::{ApiError, ErrorBody};
use crate::ingest::json::{self, Object};
use crate::state::{App, now_ms};

/// How many machines join with a token that does not say.
const USES: i64 = 10;

/// How long a token is good that does not say, in milliseconds: a day.
const LIFE_MS: i64 = 24 * 3600 * 1000;

/// A token to make; every field may be left out, and so may the body.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "the document shows it; it is read by hand, for errors that say where")]
pub struct NewTokenBody {
    /// What it is for.
    #[schema(example = "rack 4")]
    name: Option<String>,
    /// How many machines may join with it, 1 to 1,000. Default: 10.
    uses: Option<i64>,
    /// How long it is good, in seconds. Default: 86,400, a day.
    expires_in_seconds: Option<i64>,
}

/// A token that was just made.
#[derive(Serialize, ToSchema)]
pub struct CreatedToken {
    /// By which it is revoked.
    id: String,
    /// The token itself, shown this once.
    #[schema(example = "7K2M-9QXA-0V4T-PZ3C")]
    token: String,
    /// What a person types on the machine that joins.
    #[schema(example = "curl -fsSL http://10.0.0.5:8088/join/7K2M-9QXA-0V4T-PZ3C | sh")]
    command: String,
    /// What it is for; empty where nobody said.
    name: String,
    /// How many machines may join with it.
    uses: i64,
    /// How many did.
    used: i64,
    /// When it was made, unix milliseconds.
    created_ms: i64,
    /// From when on it is refused, unix milliseconds.
    expires_ms: i64,
}

/// A token, without its text.
#[derive(Serialize, ToSchema)]
pub struct TokenRecord {
    /// By which it is revoked.
    id: String,
    /// What it is for; empty where nobody said.
    name: String,
    /// How many machines may join with it.
    uses: i64,
    /// How many did.
    used: i64,
    /// When it was made, unix milliseconds.
    created_ms: i64,
    /// From when on it is refused, unix milliseconds.
    expires_ms: i64,
    /// When it was revoked, unix milliseconds; null: it was not.
    #[schema(required)]
    revoked_ms: Option<i64>,
}

impl From<Token> for TokenRecord {
    fn from(token: Token) -> Self {
        Self {
            id: token.id,
            name: token.name,
            uses: token.uses,
            used: token.used,
            created_ms: token.created_ms,
            expires_ms: token.expires_ms,
            revoked_ms: token.revoked_ms,
        }
    }
}

/// All tokens.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    /// Newest first; those that ended too, for 30 days.
    tokens: Vec<TokenRecord>,
}

/// Lists all tokens, without their texts.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "keys", responses(
    (status = 200, description = "All tokens.", body = Tokens),
    (status = 503, description = "Tokens cannot be read now.", body = ErrorBody),
))]
pub async fn list(State(app): State<App>) -> Result<axum::Json<Tokens>, ApiError> {
    let tokens = app.metadata.tokens().await?;
    Ok(axum::Json(Tokens { tokens: tokens.into_iter().map(TokenRecord::from).collect() }))
}

/// Makes a token and the command with which machines join. It is shown in this answer and never again.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "keys", request_body = Option<NewTokenBody>, responses(
    (status = 201, description = "The token.", body = CreatedToken),
    (status = 400, description = "A field is wrong.", body = ErrorBody),
    (status = 413, description = "The body is too large.", body = ErrorBody),
    (status = 503, description = "Tokens cannot be written now.", body = ErrorBody),
))]
pub async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(StatusCode, axum::Json<CreatedToken>), ApiError> {
    let body = body::read(request, body::SMALL_LIMIT_BYTES).await?;
    let value = json::parse_or_empty(&body)?;
    let new = read_new(&credentials::object(&value)?)?;
    let (token, text) = app.metadata.create_token(new, now_ms()).await?;
    tracing::info!("{:?} made enrolment token {} for {} machines", caller.name, token.id, token.uses);
    let created = CreatedToken {
        id: token.id,
        command: join::command(&app.options.public_url, &text),
        token: text.expose().to_owned(),
        name: token.name,
        uses: token.uses,
        used: token.used,
        created_ms: token.created_ms,
        expires_ms: token.expires_ms,
    };
    Ok((StatusCode::CREATED, axum::Json(created)))
}

pub(crate) fn read_new(object: &Object<'_>) -> Result<NewToken, ApiError> {
    credentials::only(object, &["name", "uses", "expires_in_seconds"])?;
    let name = object.text("name", NAME_LIMIT_BYTES)?.unwrap_or_default();
    let uses = credentials::whole(object, "uses", 1, MAXIMUM_TOKEN_USES)?.unwrap_or(USES);
    let expires_ms = credentials::expires_ms(object)?.unwrap_or_else(|| now_ms().saturating_add(LIFE_MS));
    Ok(NewToken { name, uses, expires_ms })
}

/// Makes a token useless, at once. Machines that joined with it stay.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "keys", params(("id" = String, Path, description = "Its id.")), responses(
    (status = 204, description = "It is revoked."),
    (status = 404, description = "There is no such token.", body = ErrorBody),
    (status = 503, description = "Tokens cannot be written now.", body = ErrorBody),
))]
pub async fn revoke(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    PathText(id): PathText,
) -> Result<StatusCode, ApiError> {
    app.metadata.revoke_token(&id, now_ms()).await?;
    tracing::info!("{:?} revoked enrolment token {id:?}", caller.name);
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Method;
    use serde_json::json;
    use weir_metadata::Scopes;

    use crate::testing::{TestServer, request};

    #[tokio::test]
    async fn a_token_comes_with_the_command_to_type_and_is_never_shown_again() {
        let server = TestServer::start().await;
        let admin = server.key(Scopes::ADMIN).await;
        // Without any body: everything has a default.
        let bare = request(Method::POST, "/api/v1/tokens").header("x-api-key", &admin);
        let created = server.send(bare, Body::empty()).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let created = created.json();
        let (token, id) = (created["token"].as_str().expect("token"), created["id"].as_str().expect("id"));
        assert_eq!(created["command"], format!("curl -fsSL http://10.0.0.5:8088/join/{token} | sh"));
        assert_eq!((&created["uses"], &created["used"]), (&json!(10), &json!(0)));
        let life = created["expires_ms"].as_i64().expect("time") - created["created_ms"].as_i64().expect("time");
        assert!((86_399_000..=86_401_000).contains(&life), "{life}");
        let list = server.get("/api/v1/tokens", &admin).await;
        assert!(list.text().contains(id) && !list.text().contains(token));

        let gone = server.json(Method::DELETE, &format!("/api/v1/tokens/{id}"), &admin, &json!(null)).await;
        assert_eq!(gone.status, 204);
        assert!(server.get("/api/v1/tokens", &admin).await.json()["tokens"][0]["revoked_ms"].is_i64());
        for wrong in [json!({"uses": 0}), json!({"uses": 1001}), json!({"uses": "many"}), json!({"use": 1})] {
            let got = server.json(Method::POST, "/api/v1/tokens", &admin, &wrong).await;
            assert_eq!((got.status.as_u16(), got.code().as_str()), (400, "invalid_field"), "{wrong}");
        }
    }
}
