//! How a machine joins: one command on it downloads a script, the script this program, and the program
//! trades the token for a key of its own.

mod program;
mod script;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use weir_config::Secret;
use weir_metadata::{Agent, NewAgent, TokenRefused};

use super::path::PathText;
use crate::auth::{self, Scope, origin};
use crate::body;
use crate::error::{ApiError, Code, ErrorBody};
use crate::ingest::{agents, json};
use crate::state::{App, now_ms};

/// How often an agent that joins is asked for a sign of life, in seconds.
const HEARTBEAT_INTERVAL_SECONDS: u32 = 30;

/// An agent whose last sign of life is younger than this runs, milliseconds: three intervals of the
/// agents that wait longest between two.
const ALIVE_MS: i64 = 3 * 60 * 1000;

/// What a person types on a machine so that it joins.
pub fn command(public_url: &str, token: &Secret) -> String {
    format!("curl -fsSL {public_url}/join/{} | sh", token.expose())
}

fn code_of(refused: TokenRefused) -> Code {
    match refused {
        TokenRefused::Unknown => Code::TokenUnknown,
        TokenRefused::UsedUp => Code::TokenUsedUp,
        TokenRefused::Expired { .. } => Code::TokenExpired,
        TokenRefused::Revoked => Code::TokenRevoked,
    }
}

/// Whether a token may be used; takes no use.
async fn check(app: &App, token: &str, parts: &Parts) -> Result<(), ApiError> {
    let state = app.metadata.check_token(token, now_ms()).await?;
    state.map(drop).map_err(|why| auth::refused(app, auth::peer(parts), code_of(why), why.to_string()))
}

/// The script that makes a machine join.
///
/// It is 200 for a wrong token too: `curl -f` would keep the reason to itself, and the script tells it.
#[utoipa::path(get, path = "/join/{token}", tag = "join", security(()), params(("token" = String, Path, description = "An enrolment token.")), responses(
    (status = 200, description = "A script for `sh`; for a token that cannot be used one that says so and fails.", content_type = "text/x-shellscript", body = String),
))]
pub async fn script(State(app): State<App>, token: Result<PathText, ApiError>, parts: Parts) -> Response {
    let offered = match token {
        Ok(PathText(token)) => offer(&app, &token, &parts).await,
        Err(error) => Err(error),
    };
    let text = match offered {
        Ok(text) => text,
        Err(error) => script::refusal(&error.body().message),
    };
    ([(CONTENT_TYPE, "text/x-shellscript; charset=utf-8")], text).into_response()
}

async fn offer(app: &App, token: &str, parts: &Parts) -> Result<String, ApiError> {
    check(app, token, parts).await?;
    let program = program::get().await?;
    let url = reached_at(parts, &app.options.public_url);
    // Blanks count for nothing in a token, and would break the addresses that it becomes part of.
    let token: String = token.split_whitespace().collect();
    Ok(script::offer(&url, &token, program.sha256()))
}

/// The address by which the machine reached the server, because that is one that works from there.
fn reached_at(parts: &Parts, public_url: &str) -> String {
    let plain = |host: &&str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        !host.is_empty() && host.bytes().all(known)
    };
    let Some(host) = origin::host(parts).filter(plain) else { return public_url.to_owned() };
    if public_url.split_once("://").is_some_and(|(_, public)| public.split('/').next() == Some(host)) {
        return public_url.to_owned();
    }
    // Who joins is told what its own request said: a proxy that ends TLS is believed here.
    let by_https = parts.headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
    format!("{}://{host}", if by_https { "https" } else { "http" })
}

/// This program itself, for the server's own type of processor and Linux.
#[utoipa::path(get, path = "/join/{token}/weir", tag = "join", security(()), params(("token" = String, Path, description = "An enrolment token.")), responses(
    (status = 200, description = "The program.", content_type = "application/octet-stream", body = Vec<u8>),
    (status = 401, description = "The token was never given out.", body = ErrorBody),
    (status = 404, description = "The token is no text.", body = ErrorBody),
    (status = 410, description = "The token is used up, has expired, or was revoked.", body = ErrorBody),
    (status = 429, description = "Too many wrong tokens came from this address.", body = ErrorBody),
    (status = 503, description = "The program cannot be read.", body = ErrorBody),
))]
pub async fn program(State(app): State<App>, PathText(token): PathText, parts: Parts) -> Result<Response, ApiError> {
    check(&app, &token, &parts).await?;
    let program = program::get().await?;
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, program.length().to_string())];
    Ok((headers, Body::from_stream(program.stream())).into_response())
}

/// What an agent says that joins. It may say everything that `POST /api/v1/agents/register` takes.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "the document shows it; it is read by hand, for errors that say where")]
pub struct EnrollBody {
    /// An enrolment token.
    #[schema(example = "7K2M-9QXA-0V4T-PZ3C")]
    token: String,
    /// The host that it runs on.
    #[schema(example = "web-1")]
    hostname: String,
    /// Its id, if it has one: an agent that joins again keeps it.
    agent_id: Option<String>,
}

/// The agent has joined.
#[derive(Serialize, ToSchema)]
pub struct Enrolled {
    /// Always `success`.
    #[schema(example = "success")]
    status: &'static str,
    /// The agent's id.
    agent_id: String,
    /// The agent's key, shown this once: it sends, for this agent alone.
    key: String,
    /// How often the agent shall give a sign of life, in seconds.
    #[schema(example = 30)]
    heartbeat_interval_seconds: u32,
}

/// Makes an agent known and gives it a key of its own, for one use of a token.
#[utoipa::path(post, path = "/api/v1/agents/enroll", tag = "join", security(()), request_body = EnrollBody, responses(
    (status = 200, description = "It has joined.", body = Enrolled),
    (status = 400, description = "A field is missing or wrong.", body = ErrorBody),
    (status = 401, description = "The token was never given out.", body = ErrorBody),
    (status = 409, description = "The id belongs to an agent of another host, or another agent runs on this one.", body = ErrorBody),
    (status = 410, description = "The token is used up, has expired, or was revoked.", body = ErrorBody),
    (status = 413, description = "The body is too large.", body = ErrorBody),
    (status = 429, description = "Too many wrong tokens came from this address.", body = ErrorBody),
    (status = 503, description = "Agents cannot be written now.", body = ErrorBody),
))]
pub async fn enroll(State(app): State<App>, request: Request) -> Result<axum::Json<Enrolled>, ApiError> {
    let (parts, body) = request.into_parts();
    let address = auth::peer(&parts);
    let body = body::read(Request::from_parts(parts.clone(), body), body::PUBLIC_LIMIT_BYTES).await?;
    let mut value = json::parse(&body)?;
    // Taken out: what is left is stored with the agent.
    let token = match value.as_object_mut().and_then(|object| object.remove("token")) {
        Some(Value::String(token)) => token,
        _ => {
            return Err(ApiError::field(
                "token",
                "an enrolment token such as \"7K2M-9QXA-0V4T-PZ3C\"",
                "something else",
            ));
        }
    };
    let mut registration = agents::registration(&value)?;
    let refuse = |why: TokenRefused| auth::refused(&app, address, code_of(why), why.to_string());
    // Before anything is told about agents.
    app.metadata.check_token(&token, now_ms()).await?.map_err(refuse)?;
    is_free(&app, &parts, &registration.agent).await?;
    let enrolled = app.metadata.enroll(&token, registration.agent.clone(), now_ms()).await?;
    let (agent, key) = enrolled.map_err(refuse)?;
    registration.agent.id = Some(agent.id);
    let agent = agents::store(&app, registration).await?;
    tracing::info!("agent {:?} of {:?} has joined", agent.id, agent.hostname);
    Ok(axum::Json(Enrolled {
        status: "success",
        agent_id: agent.id,
        key: key.expose().to_owned(),
        heartbeat_interval_seconds: HEARTBEAT_INTERVAL_SECONDS,
    }))
}

/// Or a machine could join as the agent of another one: a token lets machines in, not each into the
/// place of any other. One that was installed anew takes its old place when its old agent is silent.
async fn is_free(app: &App, parts: &Parts, new: &NewAgent) -> Result<(), ApiError> {
    let conflict = |message: String| Err(ApiError::new(Code::Conflict, message));
    if let Some(id) = &new.id
        && let Some(agent) = app.metadata.agent(id).await?
        && agent.hostname != new.hostname
    {
        return conflict(format!(
            "agent_id: the agent {id:?} runs on another host; join without an agent_id, or delete that agent first"
        ));
    }
    let silent_since_ms = now_ms() - ALIVE_MS;
    for agent in app.metadata.agents_by_hostname(&new.hostname).await? {
        if agent.last_heartbeat_ms.is_some_and(|at_ms| at_ms > silent_since_ms)
            && !shows_key_of(app, parts, &agent).await
        {
            let (host, id) = (&agent.hostname, &agent.id);
            return conflict(format!(
                "hostname: an agent runs on {host:?} already, with the id {id:?}; if this is another machine, give it \
                 another name (`weir join --name NAME`); if it is the same, stop that agent and wait {} minutes, or \
                 delete it on the server first",
                ALIVE_MS / 60_000
            ));
        }
    }
    Ok(())
}

/// Whether whoever asks is that agent, or somebody who may do everything.
async fn shows_key_of(app: &App, parts: &Parts, agent: &Agent) -> bool {
    // A wrong key is no error here: the token is what lets in.
    let caller = auth::authenticate(app, parts).await.ok();
    caller.is_some_and(|caller| caller.agent_id.as_ref() == Some(&agent.id) || caller.scopes.allows(Scope::Admin))
}

#[cfg(test)]
mod tests;
