//! Signing browsers in and out.

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::SET_COOKIE;
use http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use weir_metadata::Scopes;

use crate::auth::{self, Caller, origin, session as cookies};
use crate::body;
use crate::error::{ApiError, Code, ErrorBody};
use crate::ingest::json;
use crate::state::{App, now_ms};

/// What signs a browser in.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "the document shows it; it is read by hand, for errors that say where")]
pub struct LoginBody {
    /// The text behind `#t=` of a login link. It works once, within 10 minutes.
    token: String,
}

/// Who is signed in.
#[derive(Serialize, ToSchema)]
pub struct SessionAnswer {
    /// What people call the session or key.
    #[schema(example = "dashboard")]
    name: String,
    /// What it may do: `ingest`, `read`, `admin`; `admin` means everything.
    #[schema(example = json!(["read", "admin"]))]
    scopes: Vec<&'static str>,
    /// Version of the server.
    #[schema(example = "0.1.0")]
    version: &'static str,
}

impl SessionAnswer {
    fn new(name: String, scopes: Scopes) -> Self {
        Self { name, scopes: scopes.names(), version: env!("CARGO_PKG_VERSION") }
    }
}

/// Starts a browser's session with the token of a login link.
#[utoipa::path(post, path = "/api/v1/login", tag = "sign-in", security(()), request_body = LoginBody, responses(
    (status = 200, description = "Signed in; the session is in the cookie.", body = SessionAnswer),
    (status = 400, description = "The body is no JSON object with a text `token`.", body = ErrorBody),
    (status = 401, description = "The token is unknown, was used, or is older than 10 minutes.", body = ErrorBody),
    (status = 403, description = "A page of another site asks.", body = ErrorBody),
    (status = 413, description = "The body is too large.", body = ErrorBody),
    (status = 429, description = "Too many wrong tokens came from this address.", body = ErrorBody),
    (status = 503, description = "Links cannot be looked up now.", body = ErrorBody),
))]
pub async fn login(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // Or another site could sign somebody in as somebody else.
    if origin::is_foreign(&parts, &app.options.public_url) {
        let message = "a page of another site cannot sign in; behind a proxy, `server.public_url` must be set";
        return Err(ApiError::new(Code::Forbidden, message));
    }
    let (address, secure) = (auth::peer(&parts), cookies::is_secure(&parts, &app.options.public_url));
    let body = body::read(Request::from_parts(parts, body), body::PUBLIC_LIMIT_BYTES).await?;
    let value = json::parse(&body)?;
    let Some(token) = value.get("token").and_then(serde_json::Value::as_str) else {
        // What was found is not shown: it may be a secret at the wrong place.
        return Err(ApiError::field("token", "the text behind `#t=` of a login link", "something else"));
    };
    let Some((text, session)) = app.metadata.redeem_login_token(token.trim(), now_ms()).await? else {
        let message =
            "this link is not known, was used already, or is older than 10 minutes; `weir login` prints a new one";
        return Err(auth::refused(&app, address, Code::Unauthorized, message));
    };
    let cookie = cookies::cookie(&text, secure);
    let answer = axum::Json(SessionAnswer::new(session.name, session.scopes));
    Ok(([(SET_COOKIE, cookie)], answer).into_response())
}

/// Says who is signed in.
#[utoipa::path(get, path = "/api/v1/session", tag = "sign-in", responses(
    (status = 200, description = "The session or key of this request.", body = SessionAnswer),
))]
pub async fn session(Extension(caller): Extension<Caller>) -> axum::Json<SessionAnswer> {
    axum::Json(SessionAnswer::new(caller.name, caller.scopes))
}

/// Ends the browser's session.
#[utoipa::path(post, path = "/api/v1/logout", tag = "sign-in", responses(
    (status = 204, description = "Signed out; a key stays as it is."),
))]
pub async fn logout(State(app): State<App>, parts: Parts) -> Result<Response, ApiError> {
    if let Some(text) = cookies::shown(&parts.headers) {
        app.metadata.end_session(text).await?;
    }
    let cookie = cookies::no_cookie(cookies::is_secure(&parts, &app.options.public_url));
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::testing::{Got, TestServer, request};

    const ORIGIN: (&str, &str) = ("origin", "http://10.0.0.5:8088");

    async fn sign_in(server: &TestServer, token: &str, header: (&str, &str)) -> Got {
        let request = request(Method::POST, "/api/v1/login").header(header.0, header.1);
        server.send(request, json!({"token": token}).to_string()).await
    }

    async fn token(server: &TestServer) -> String {
        let link = cookies::login_link(&server.app).await.expect("link");
        let (page, token) = link.split_once("/#t=").expect("form");
        assert_eq!(page, "http://10.0.0.5:8088");
        token.to_owned()
    }

    #[tokio::test]
    async fn a_link_signs_in_once_and_signing_out_ends_it() {
        let server = TestServer::start().await;
        let token = token(&server).await;
        let got = sign_in(&server, &token, ORIGIN).await;
        assert_eq!(got.status, 200);
        assert_eq!(got.json()["scopes"], json!(["read", "admin"]));
        assert_eq!(got.header("cache-control"), "no-store");
        let cookie = got.header("set-cookie").to_owned();
        assert!(cookie.ends_with("; HttpOnly; SameSite=Strict"), "{cookie}");
        let cookie = cookie.split(';').next().expect("pair");
        assert!(!got.text().contains(cookie.trim_start_matches("weir_session=")));

        let again = sign_in(&server, &token, ORIGIN).await;
        assert_eq!((again.status.as_u16(), again.code().as_str()), (401, "unauthorized"));
        assert!(!again.text().contains(&token));

        let ask = |method, path| request(method, path).header("cookie", cookie).header(ORIGIN.0, ORIGIN.1);
        let session = server.send(ask(Method::GET, "/api/v1/session"), Body::empty()).await;
        assert_eq!(session.json()["name"], "dashboard");
        let out = server.send(ask(Method::POST, "/api/v1/logout"), Body::empty()).await;
        assert_eq!(out.status, 204);
        assert!(out.header("set-cookie").contains("Max-Age=0"));
        assert_eq!(server.send(ask(Method::GET, "/api/v1/session"), Body::empty()).await.status, 401);
    }

    #[tokio::test]
    async fn the_cookie_is_secure_exactly_where_the_browser_came_by_https() {
        let server = TestServer::with(|options| options.public_url = "https://weir.example.org".to_owned()).await;
        for (host, secure) in [("weir.example.org", true), ("10.0.0.5:8088", false)] {
            let token = server.app.metadata.create_login_token("dashboard", now_ms()).await.expect("token");
            let request = Request::builder().method(Method::POST).uri("/api/v1/login").header("host", host);
            let body = json!({"token": token.expose()}).to_string();
            let got = server.send(request, body).await;
            assert_eq!(got.header("set-cookie").ends_with("; Secure"), secure, "{host}: {}", got.text());
        }
    }

    #[tokio::test]
    async fn another_site_cannot_sign_a_browser_in_and_does_not_use_up_the_link() {
        let server = TestServer::start().await;
        let token = token(&server).await;
        for foreign in [("origin", "http://evil.example"), ("sec-fetch-site", "cross-site")] {
            assert_eq!(sign_in(&server, &token, foreign).await.status, 403);
        }
        assert_eq!(sign_in(&server, &token, ORIGIN).await.status, 200);
    }

    #[tokio::test]
    async fn wrong_links_are_limited_and_a_right_one_still_works() {
        let server = TestServer::start().await;
        for _ in 0..10 {
            assert_eq!(sign_in(&server, "wrong", ORIGIN).await.status, 401);
        }
        let limited = sign_in(&server, "wrong", ORIGIN).await;
        assert_eq!(limited.status, 429);
        assert!(!limited.header("retry-after").is_empty());
        assert_eq!(sign_in(&server, &token(&server).await, ORIGIN).await.status, 200);
    }

    #[tokio::test]
    async fn who_has_shown_no_key_sends_little() {
        let server = TestServer::start().await;
        let body = "x".repeat(body::PUBLIC_LIMIT_BYTES + 1);
        for path in ["/api/v1/login", "/api/v1/agents/enroll"] {
            let got = server.send(request(Method::POST, path), body.clone()).await;
            assert_eq!((got.status.as_u16(), got.code().as_str()), (413, "too_large"), "{path}");
        }
    }

    #[tokio::test]
    async fn a_body_without_a_token_says_what_is_missing_and_repeats_nothing() {
        let server = TestServer::start().await;
        for (body, code) in [
            ("", "invalid_json"),
            ("[", "invalid_json"),
            (r#"{"tokn":"s3cret"}"#, "invalid_field"),
            (r#"{"token":["s3cret"]}"#, "invalid_field"),
        ] {
            let got = server.send(request(Method::POST, "/api/v1/login"), body).await;
            assert_eq!((got.status.as_u16(), got.code().as_str()), (400, code), "{body}");
            assert!(!got.text().contains("s3cret"));
        }
    }
}
