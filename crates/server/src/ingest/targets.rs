//! Whom a request writes for: servers and agents by their ids, and what a key may write.

use std::collections::HashMap;

use weir_metadata::{Agent, Server};

use crate::auth::Caller;
use crate::error::{ApiError, Code};
use crate::state::{App, State, now_ms};

/// The agent that the caller's key belongs to; `None` for keys that may write for all.
///
/// # Errors
/// 403 if the agent was deleted.
pub async fn bound_agent(state: &State, caller: &Caller) -> Result<Option<Agent>, ApiError> {
    let Some(id) = &caller.agent_id else { return Ok(None) };
    let agent = state.metadata.agent(id).await?;
    let gone = || ApiError::new(Code::Forbidden, format!("the agent {id:?} of this key was deleted; join again"));
    agent.map(Some).ok_or_else(gone)
}

/// Refuses a key of one agent for the data of another host.
///
/// # Errors
/// 403.
pub fn may_write(bound: Option<&Agent>, hostname: &str) -> Result<(), ApiError> {
    match bound {
        Some(agent) if agent.hostname != hostname => {
            let own = &agent.hostname;
            let message = format!("this key belongs to an agent of {own:?} and may not write for {hostname:?}");
            Err(ApiError::new(Code::Forbidden, message))
        }
        _ => Ok(()),
    }
}

/// Refuses a key of one agent for what concerns more than that agent.
///
/// # Errors
/// 403.
pub fn is_of_no_agent(caller: &Caller) -> Result<(), ApiError> {
    let Some(own) = &caller.agent_id else { return Ok(()) };
    let message = format!(
        "this key belongs to the agent {own:?}: it sends that agent's telemetry and heartbeats, and nothing else; \
         `weir keys create NAME --scope ingest` makes a key that may do this"
    );
    Err(ApiError::new(Code::Forbidden, message))
}

/// Whether a host has agents, and `own` is none of them.
///
/// # Errors
/// The metadata database fails.
pub async fn is_of_another(state: &State, own: &str, hostname: &str) -> Result<bool, ApiError> {
    let agents = state.metadata.agents_by_hostname(hostname).await?;
    Ok(!agents.is_empty() && agents.iter().all(|agent| agent.id != own))
}

/// Refuses a key of one agent for the id of another.
///
/// # Errors
/// 403.
pub fn may_speak_as(caller: &Caller, id: &str) -> Result<(), ApiError> {
    match &caller.agent_id {
        Some(own) if own != id => {
            let message = format!("this key belongs to the agent {own:?} and may not write for {id:?}");
            Err(ApiError::new(Code::Forbidden, message))
        }
        _ => Ok(()),
    }
}

/// Servers of one request, at most: each is looked up, and may be registered.
pub const SERVER_LIMIT: usize = 1000;

/// The hostnames of servers by their ids or hostnames, each looked up once.
///
/// # Errors
/// 404 for an unknown one, 403 for one that the key may not write for, 413 if there are too many.
pub async fn hostnames<'a>(
    app: &App,
    caller: &Caller,
    ids: impl Iterator<Item = &'a str>,
) -> Result<HashMap<&'a str, String>, ApiError> {
    let bound = bound_agent(app, caller).await?;
    let mut hostnames: HashMap<&str, String> = ids.map(|id| (id, String::new())).collect();
    if hostnames.len() > SERVER_LIMIT {
        let message = format!("more than {SERVER_LIMIT} servers in one request; send it in several");
        return Err(ApiError::new(Code::TooLarge, message));
    }
    for (id, hostname) in &mut hostnames {
        *hostname = host_of(app, bound.as_ref(), id).await?;
    }
    Ok(hostnames)
}

async fn host_of(app: &App, bound: Option<&Agent>, id: &str) -> Result<String, ApiError> {
    let known = app.metadata.find_server(id).await?;
    if known.is_none() && !app.options.auto_register {
        return Err(unknown_server(id));
    }
    let hostname = known.as_ref().map_or(id, |server| &server.hostname);
    may_write(bound, hostname)?;
    if known.as_ref().is_none_or(|server| server.kind.is_none()) {
        ensure(app, hostname, "agentops").await?;
    }
    Ok(hostname.to_owned())
}

/// The server of a host, made where it is missing; the live table knows it afterwards.
///
/// # Errors
/// The metadata database fails.
pub async fn ensure(state: &State, hostname: &str, kind: &str) -> Result<Server, ApiError> {
    let server = state.metadata.ensure_server(hostname, Some(kind), now_ms()).await?;
    let agent = state.metadata.agents_by_hostname(hostname).await?.into_iter().next();
    state.hosts.describe(&server, agent.as_ref());
    Ok(server)
}

/// 404 that says how a server becomes known.
pub fn unknown_server(id: &str) -> ApiError {
    let message = format!(
        "serverId: no server has the id or hostname {id:?}; register it first with POST /api/servers \
         {{\"hostname\": {id:?}}}, or set `server.auto_register: true`"
    );
    ApiError::new(Code::NotFound, message)
}

/// 404 that says how an agent becomes known.
pub fn unknown_agent(id: &str) -> ApiError {
    let message = format!(
        "no agent has the id {id:?}; register it first with POST /api/v1/agents/register \
         {{\"agent_id\": {id:?}, \"hostname\": \"...\"}}, or set `server.auto_register: true`"
    );
    ApiError::new(Code::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_about_unknown_ids_say_how_to_register() {
        let error = unknown_agent("web-server-01");
        assert_eq!(error.body().code, Code::NotFound);
        let call = "POST /api/v1/agents/register {\"agent_id\": \"web-server-01\", \"hostname\": \"...\"}";
        assert!(error.body().message.contains(call), "{}", error.body().message);
        assert!(unknown_server("a").body().message.contains("POST /api/servers {\"hostname\": \"a\"}"));
    }
}
