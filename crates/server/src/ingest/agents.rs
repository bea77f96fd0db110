//! Agents that register, and their heartbeats: the agent monitor's, OpenFinOps' and Weir's own.

use serde_json::{Map, Value};
use weir_metadata::{Agent, MetadataError, NewAgent, ServerPatch};

use super::json::{self, Object, Range};
use super::targets;
use crate::auth::Caller;
use crate::error::{ApiError, Code};
use crate::state::{State, now_ms};

/// Bytes of an id, a name, a label.
const ID_LIMIT_BYTES: usize = 128;
const NAME_LIMIT_BYTES: usize = 255;
/// Labels of one agent or server.
pub(crate) const TAG_LIMIT: usize = 64;
pub(crate) const TAG_LIMIT_BYTES: usize = 256;

/// Keys of a registration that OpenFinOps' agents send and the others do not.
const OPENFINOPS_KEYS: [&str; 6] =
    ["cloud_provider", "config", "capabilities", "collectors", "subscription_id", "project_id"];

/// A registration, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// What is stored.
    pub agent: NewAgent,
    /// Who reports the host: `weir`, `openfinops` or `agent_monitor`.
    pub kind: &'static str,
    /// Environment of the host, if the agent knows it.
    pub environment: Option<String>,
    /// Place of the host, if the agent knows it.
    pub location: Option<String>,
    /// Address of the host, if the agent knows it.
    pub ip_address: Option<String>,
}

/// Reads the body of a registration. Without a hostname the agent's id names the host.
///
/// # Errors
/// 400 with the field's path.
pub fn registration(body: &Value) -> Result<Registration, ApiError> {
    let object = Object::of(body, "")?;
    let id = match object.text("agent_id", ID_LIMIT_BYTES)? {
        Some(id) => Some(id),
        None => object.text("id", ID_LIMIT_BYTES)?,
    };
    let hostname = match object.text("hostname", NAME_LIMIT_BYTES)?.or_else(|| id.clone()) {
        Some(hostname) => hostname,
        None => return Err(ApiError::field("hostname", "the host's name (or an `agent_id`)", "nothing")),
    };
    let agent_type = object.text("agent_type", NAME_LIMIT_BYTES)?;
    // OpenFinOps' agents use either name.
    let version = match object.text("version", NAME_LIMIT_BYTES)? {
        Some(version) => Some(version),
        None => object.text("agent_version", NAME_LIMIT_BYTES)?,
    };
    let known = ["agent_id", "id", "hostname", "agent_type", "version", "tags"];
    let others = object.map.iter().filter(|(key, _)| !known.contains(&key.as_str()));
    let attributes: Map<String, Value> = others.map(|(key, value)| (key.clone(), value.clone())).collect();
    let kind = match agent_type.as_deref() {
        Some("weir") => "weir",
        _ if OPENFINOPS_KEYS.iter().any(|key| object.map.contains_key(*key)) => "openfinops",
        _ => "agent_monitor",
    };
    let place = object.text("location", NAME_LIMIT_BYTES)?;
    let region = object.text("region", NAME_LIMIT_BYTES)?;
    let environment = object.text("environment", NAME_LIMIT_BYTES)?;
    let ip_address = ip_address(&object)?;
    let agent = NewAgent {
        id,
        hostname,
        agent_type,
        version,
        tags: tags(&object)?,
        attributes: match json::without_nul(Value::Object(attributes)) {
            Value::Object(map) => map,
            _ => Map::new(),
        },
    };
    Ok(Registration { agent, kind, environment, location: place.or(region), ip_address })
}

/// The address, by itself or below `system`.
fn ip_address(object: &Object<'_>) -> Result<Option<String>, ApiError> {
    if let Some(address) = object.text("ip_address", NAME_LIMIT_BYTES)? {
        return Ok(Some(address));
    }
    match object.value("system") {
        Some(system @ Value::Object(_)) => Object::of(system, "system")?.text("ip_address", NAME_LIMIT_BYTES),
        _ => Ok(None),
    }
}

/// Labels as a list, or as an object of names and values.
fn tags(object: &Object<'_>) -> Result<Vec<String>, ApiError> {
    let Some(Value::Object(map)) = object.value("tags") else {
        return Ok(object.texts("tags", TAG_LIMIT_BYTES, TAG_LIMIT)?.unwrap_or_default());
    };
    let inner = Object { map, path: "tags" };
    if map.len() > TAG_LIMIT {
        return Err(ApiError::field("tags", format!("at most {TAG_LIMIT} labels"), &format!("{}", map.len())));
    }
    let tag = |key: &String| {
        let Some(value) = inner.text(key, TAG_LIMIT_BYTES)? else { return Ok(None) };
        let tag = format!("{key}={value}");
        if tag.len() > TAG_LIMIT_BYTES || key.chars().any(char::is_control) {
            let expected = format!("name and value of together at most {TAG_LIMIT_BYTES} bytes, no control characters");
            return Err(ApiError::field(inner.path_of(key), expected, &format!("{} bytes", tag.len())));
        }
        Ok(Some(tag))
    };
    map.keys().filter_map(|key| tag(key).transpose()).collect()
}

/// Registers an agent or replaces what it said before, and makes its host known.
///
/// # Errors
/// 400 with the field's path, 403 for a key that belongs to another agent.
pub async fn register(state: &State, caller: &Caller, body: &Value) -> Result<Agent, ApiError> {
    let mut registration = registration(body)?;
    if let Some(own) = &caller.agent_id {
        let id = registration.agent.id.get_or_insert_with(|| own.clone());
        targets::may_speak_as(caller, id)?;
        keeps_to_its_host(state, own, &registration.agent.hostname).await?;
    }
    store(state, registration).await
}

/// Stores a registration that was allowed, for a caller that showed its right in another way.
///
/// # Errors
/// The metadata database fails.
pub async fn store(state: &State, registration: Registration) -> Result<Agent, ApiError> {
    let Registration { agent, kind, environment, location, ip_address } = registration;
    let agent = state.metadata.register_agent(agent, now_ms()).await?;
    let mut server = targets::ensure(state, &agent.hostname, kind).await?;
    // What a person or another program said about the server counts more.
    let missing = |known: &Option<String>, told: Option<String>| if known.is_none() { told.map(Some) } else { None };
    let patch = ServerPatch {
        environment: missing(&server.environment, environment),
        location: missing(&server.location, location),
        ip_address: missing(&server.ip_address, ip_address),
        ..ServerPatch::default()
    };
    if patch != ServerPatch::default() {
        server = state.metadata.update_server(&server.id, patch).await?;
    }
    state.hosts.describe(&server, Some(&agent));
    Ok(agent)
}

/// Refuses a key of one agent that would take over the host of another.
async fn keeps_to_its_host(state: &State, own: &str, hostname: &str) -> Result<(), ApiError> {
    if !targets::is_of_another(state, own, hostname).await? {
        return Ok(());
    }
    let message = format!("this key belongs to the agent {own:?}, and {hostname:?} is the host of another agent");
    Err(ApiError::new(Code::Forbidden, message))
}

/// The agent with this id; where it is unknown and the server is told so, it is registered now.
///
/// # Errors
/// 404 that says how to register.
pub async fn known_or_registered(
    state: &State,
    id: &str,
    hostname: Option<&str>,
    kind: &'static str,
) -> Result<Agent, ApiError> {
    if let Some(agent) = state.metadata.agent(id).await? {
        return Ok(agent);
    }
    if !state.options.auto_register {
        return Err(targets::unknown_agent(id));
    }
    let mut body = Map::from_iter([("agent_id".to_owned(), Value::from(id))]);
    body.extend(hostname.map(|hostname| ("hostname".to_owned(), Value::from(hostname))));
    let registration = registration(&Value::Object(body))?;
    store(state, Registration { kind, ..registration }).await
}

/// Keeps a heartbeat of an agent; the live table knows it afterwards.
///
/// # Errors
/// 400 with the field's path, 404 for an unknown agent.
pub async fn take_heartbeat(state: &State, id: &str, body: Value) -> Result<(), ApiError> {
    check_heartbeat(&body)?;
    let body = json::without_nul(body);
    match state.metadata.heartbeat(id, now_ms(), &body).await {
        Err(MetadataError::NotFound { .. }) => return Err(targets::unknown_agent(id)),
        other => other?,
    }
    let Some(agent) = state.metadata.agent(id).await? else { return Err(targets::unknown_agent(id)) };
    let server = state.metadata.ensure_server(&agent.hostname, None, now_ms()).await?;
    state.hosts.describe(&server, Some(&agent));
    Ok(())
}

pub(super) fn check_heartbeat(body: &Value) -> Result<(), ApiError> {
    let object = Object::of(body, "")?;
    object.number("interval_seconds", Range::NotNegative)?;
    object.text("status", NAME_LIMIT_BYTES)?;
    object.text("agent_version", NAME_LIMIT_BYTES)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_seeds_registration_is_understood() {
        let monitor = registration(&json!({"id": "web-server-01", "tags": ["web"]})).unwrap();
        assert_eq!(monitor.agent.hostname, "web-server-01");
        assert_eq!((monitor.kind, monitor.agent.tags), ("agent_monitor", vec!["web".to_owned()]));

        let aws = json!({"agent_id": "aws-1", "hostname": "collector", "cloud_provider": "aws", "region": "us-west-2",
            "config": {"services": ["ec2"], "collection_interval": 300, "cost_tracking": true}});
        let aws = registration(&aws).unwrap();
        assert_eq!((aws.kind, aws.location.as_deref()), ("openfinops", Some("us-west-2")));
        assert_eq!(aws.agent.attributes["config"]["collection_interval"], 300);
        assert_eq!(aws.agent.attributes["region"], "us-west-2");

        let azure = json!({"agent_id": "azure-1", "agent_type": "azure", "hostname": "h", "capabilities": ["vm"],
            "subscription_id": "s", "version": 2, "registration_time": 1_767_268_800.5});
        let azure = registration(&azure).unwrap();
        assert_eq!((azure.kind, azure.agent.version.as_deref()), ("openfinops", Some("2")));

        let own = json!({"hostname": "web-1", "agent_type": "weir", "tags": {"team": "core"}, "capabilities": [],
            "system": {"ip_address": "10.0.0.5", "cpu_count": 4}, "environment": "production"});
        let own = registration(&own).unwrap();
        assert_eq!((own.kind, own.agent.id), ("weir", None));
        assert_eq!(own.agent.tags, ["team=core"]);
        assert_eq!((own.ip_address.as_deref(), own.environment.as_deref()), (Some("10.0.0.5"), Some("production")));
    }

    #[test]
    fn a_registration_without_any_name_or_with_a_wrong_one_is_refused() {
        for (body, field) in [
            (json!({}), "hostname"),
            (json!({"hostname": "a\u{0}"}), "hostname"),
            (json!({"hostname": ["a"]}), "hostname"),
            (json!({"agent_id": "x".repeat(129)}), "agent_id"),
            (json!({"hostname": "a", "tags": [{}]}), "tags[0]"),
            (json!({"hostname": "a", "tags": {"x".repeat(300): "y"}}), format!("tags.{}...", "x".repeat(100)).as_str()),
            (json!({"hostname": "a", "tags": {"nul\u{0}": "y"}}), "tags.nul\u{fffd}"),
            (json!([]), "body"),
        ] {
            assert_eq!(registration(&body).unwrap_err().body().field.as_deref(), Some(field), "{body}");
        }
    }

    #[test]
    fn a_heartbeat_may_be_empty_and_is_checked_where_it_is_used() {
        check_heartbeat(&json!({})).unwrap();
        check_heartbeat(&json!({"status": "healthy", "interval_seconds": 30, "anything": [1]})).unwrap();
        let error = check_heartbeat(&json!({"interval_seconds": -1})).unwrap_err();
        assert_eq!(error.body().field.as_deref(), Some("interval_seconds"));
    }
}
