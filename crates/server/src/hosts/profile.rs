//! What the metadata says about a host, as far as its row shows it.

use serde_json::Value;
use weir_metadata::{Agent, Server};

use super::row::Reporter;

/// What the record of a server says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Id among the servers.
    pub id: String,
    /// Which program reports it.
    pub kind: Reporter,
    /// Environment.
    pub environment: Option<String>,
    /// Location.
    pub location: Option<String>,
    /// IP address, as a person or a registration gave it.
    pub ip_address: Option<String>,
    /// Tags.
    pub tags: Vec<String>,
}

/// What the agent of a host says about itself and the machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentProfile {
    /// Version of the agent.
    pub version: Option<String>,
    /// Operating system.
    pub os: Option<String>,
    /// IP address that it sees.
    pub ip_address: Option<String>,
    /// Tags of its configuration.
    pub tags: Vec<String>,
    /// How often it reports, milliseconds.
    pub interval_ms: Option<i64>,
}

impl Profile {
    /// From the metadata.
    pub fn of(server: &Server) -> Profile {
        Profile {
            id: server.id.clone(),
            kind: server.kind.as_deref().and_then(Reporter::of_name).unwrap_or_default(),
            environment: server.environment.clone(),
            location: server.location.clone(),
            ip_address: server.ip_address.clone(),
            tags: server.tags.clone(),
        }
    }

    /// Its tags and those of the agent, each once.
    pub fn tags_with(&self, agent: &AgentProfile) -> Vec<String> {
        let more = agent.tags.iter().filter(|tag| !self.tags.contains(tag));
        self.tags.iter().chain(more).cloned().collect()
    }
}

/// Longest interval that an agent may announce: a day.
const LONGEST_INTERVAL_SECONDS: f64 = 86_400.0;

impl AgentProfile {
    /// From the metadata.
    pub fn of(agent: &Agent) -> AgentProfile {
        let interval = agent.interval_seconds.filter(|seconds| (0.0..=LONGEST_INTERVAL_SECONDS).contains(seconds));
        AgentProfile {
            version: agent.version.clone(),
            os: system(agent, "os").map(str::to_owned),
            ip_address: system(agent, "ip_address").map(str::to_owned),
            tags: agent.tags.clone(),
            // Within a day, so nothing is cut off but fractions of milliseconds.
            interval_ms: interval.map(|seconds| (seconds * 1000.0) as i64),
        }
    }
}

/// A text about the machine, from the last heartbeat, else from the registration.
pub fn system<'a>(agent: &'a Agent, key: &str) -> Option<&'a str> {
    system_value(agent, key)?.as_str().filter(|text| !text.is_empty())
}

/// A value about the machine, from the last heartbeat, else from the registration.
pub fn system_value<'a>(agent: &'a Agent, key: &str) -> Option<&'a Value> {
    let of = |value: &'a Value| value.get("system")?.get(key).filter(|value| !value.is_null());
    of(&agent.heartbeat).or_else(|| of(&agent.attributes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_heartbeat_counts_more_than_the_registration() {
        let agent = Agent {
            id: "a".into(),
            hostname: "h".into(),
            agent_type: None,
            version: Some("1.2".into()),
            tags: vec!["web".into(), "x".into()],
            attributes: json!({"system": {"os": "Debian 12", "ip_address": "10.0.0.1"}}),
            registered_ms: 0,
            last_heartbeat_ms: Some(1),
            heartbeat: json!({"system": {"os": "Debian 13", "ip_address": null}}),
            interval_seconds: Some(1e300),
        };
        let profile = AgentProfile::of(&agent);
        assert_eq!((profile.os.as_deref(), profile.ip_address.as_deref()), (Some("Debian 13"), Some("10.0.0.1")));
        assert_eq!((profile.version.as_deref(), profile.interval_ms), (Some("1.2"), None));
        let server = Profile { tags: vec!["web".into(), "team=core".into()], ..Profile::default() };
        assert_eq!(server.tags_with(&profile), ["web", "team=core", "x"]);
    }
}
