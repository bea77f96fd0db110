//! The agent monitor's `/etc/agent-monitor/config.json`, accepted as it is:
//!
//! ```json
//! {"agent_id": "web-server-01", "monitor_server": "http://monitoring:8000", "metrics_interval": 30, "heartbeat_interval": 60}
//! ```
//!
//! It becomes the settings of an agent with that name, with those intervals in seconds, and with
//! one exporter: `weir` to that server.

use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{
    Block, Document, Duration, Endpoint, Environment, KeyNode, Node, Problem, Problems, Secret, Settings, Value,
};

/// The file. Every key but `monitor_server` may be left out.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AgentConfig {
    /// Name of this agent and of its machine. Default: the host name.
    #[serde(default)]
    agent_id: Option<String>,
    /// Address of the server. Checked here, used as it stands in the file.
    #[serde(rename = "monitor_server")]
    _monitor_server: Endpoint,
    /// Seconds between two polls. Default: 10.
    #[serde(default)]
    metrics_interval: Option<u64>,
    /// Seconds between two signs of life. Default: 30.
    #[serde(default)]
    heartbeat_interval: Option<u64>,
    /// Key of the server, where it wants one.
    #[serde(default, rename = "api_key")]
    _api_key: Option<Secret>,
}

/// The settings of such a file; `None` if the text is something else, such as Weir's own YAML. Next
/// to problems the settings are those of an empty file.
pub(crate) fn inspect(file: &str, text: &str) -> Option<(Settings, Problems)> {
    if !is_agent_config(text) {
        return None;
    }
    // JSON is YAML too (YAML 1.2.2, section 1.2), and read as such it knows lines and columns.
    Some(match Document::parse(file, text, &Environment).and_then(|node| settings(file, &node)) {
        Ok(settings) => (settings, Problems::default()),
        Err(problems) => (Settings::default(), problems),
    })
}

/// Whether a text is JSON with one of the keys that only this file has.
pub(crate) fn is_agent_config(text: &str) -> bool {
    let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
    json.is_some_and(|json| ["agent_id", "monitor_server"].iter().any(|key| json.get(key).is_some()))
}

fn settings(file: &str, node: &Node) -> Result<Settings, Problems> {
    let read: AgentConfig = weir_config::read(file, node, "")?;
    let mut settings = Settings::default();
    if read.agent_id.as_ref().is_some_and(|id| !id.trim().is_empty()) {
        settings.agent.name = read.agent_id;
    }
    if let Some(interval) = seconds(file, node, "metrics_interval", read.metrics_interval)? {
        settings.agent.interval = interval;
    }
    if let Some(interval) = seconds(file, node, "heartbeat_interval", read.heartbeat_interval)? {
        settings.agent.heartbeat_interval = interval;
    }
    settings.integrations.push(exporter(node));
    Ok(settings)
}

fn seconds(file: &str, node: &Node, key: &str, value: Option<u64>) -> Result<Option<Duration>, Problems> {
    match value {
        Some(0) => {
            let problem =
                Problem::at(file, node.get(key).unwrap_or(node), key, "the interval must be longer than zero");
            Err(problem.with_help("write the interval in whole seconds, for example 30").into())
        }
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

/// The block `weir`, made of the file's own values, so that what is wrong with them is found there.
fn exporter(node: &Node) -> Block {
    let option = |key: &str, option: &str| {
        let (key, value) = node.entries().iter().find(|(name, _)| name.name == key)?;
        Some((KeyNode { name: option.to_owned(), ..key.clone() }, value.clone()))
    };
    let options = [option("monitor_server", "endpoint"), option("api_key", "api_key")];
    let mapping = Value::Mapping(options.into_iter().flatten().collect());
    let name = "weir".to_owned();
    let (line, column) = (node.line, node.column);
    Block { kind: name.clone(), name, enabled: true, node: Node::new(mapping, line, column), line, column }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file of the agent monitor's guide, letter by letter.
    const GUIDE: &str = r#"{
  "agent_id": "web-server-01",
  "monitor_server": "http://monitoring.company.com:8000",
  "metrics_interval": 30,
  "heartbeat_interval": 60
}
"#;

    fn problems(text: &str) -> String {
        inspect("config.json", text).expect("recognised").1.to_string()
    }

    #[test]
    fn the_guides_own_file_becomes_an_agent_with_its_name_intervals_and_server() {
        let (settings, problems) = inspect("config.json", GUIDE).unwrap();
        assert!(problems.is_empty(), "{problems}");
        assert_eq!(settings.agent.name.as_deref(), Some("web-server-01"));
        assert_eq!(settings.agent.interval, Duration::from_secs(30));
        assert_eq!(settings.agent.heartbeat_interval, Duration::from_secs(60));
        let [block] = settings.integrations.as_slice() else { panic!("one exporter") };
        assert_eq!((block.kind.as_str(), block.enabled), ("weir", true));
        assert_eq!(block.node.get("endpoint").unwrap().as_str(), Some("http://monitoring.company.com:8000"));
        assert!(block.node.get("api_key").is_none());
    }

    #[test]
    fn a_loaded_file_has_a_plan_with_the_exporter_and_no_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, GUIDE.replace("60\n", "60,\n  \"api_key\": \"weir_a_b\"\n")).unwrap();
        let loaded =
            crate::load(crate::Source::File(file), crate::Program::Agent, None).map_err(|e| e.to_string()).unwrap();
        assert_eq!(loaded.host_name, "web-server-01");
        assert!(!loaded.console_added);
        assert!(loaded.plan.members.iter().any(|member| &**member.name() == "weir"));
    }

    #[test]
    fn wrong_values_are_named_with_their_key_and_place() {
        for (from, to, words) in [
            ("30", "\"often\"", "config.json:4:23: metrics_interval"),
            ("60", "-5", "config.json:5:25: heartbeat_interval"),
            ("60", "0", "config.json:5:25: heartbeat_interval"),
            ("http://monitoring.company.com:8000", "monitoring:8000", "config.json:3:21: monitor_server"),
            ("monitor_server", "monitor_serve", "monitor_server"),
            ("metrics_interval", "metric_interval", "`metrics_interval`"),
        ] {
            let told = problems(&GUIDE.replace(from, to));
            assert!(told.contains(words), "{from} -> {to}: {told}");
        }
    }

    #[test]
    fn other_texts_are_left_to_weirs_own_reader() {
        for text in ["", "agent: {name: web-1}\n", "{\"agent\": {\"name\": \"web-1\"}}", "{\"agent_id\": "] {
            assert!(inspect("weir.yaml", text).is_none(), "{text}");
        }
    }
}
