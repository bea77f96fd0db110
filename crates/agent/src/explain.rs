//! `weir config explain`: every option in effect, with its value and where it comes from.

use std::fmt::Write;

use schemars::SchemaGenerator;
use serde_json::Value as Json;
use weir_config::{Block, Node, Value};
use weir_pipeline::Kind;

use crate::kinds::kinds;
use crate::load::Loaded;

/// The effective configuration as text: one option per line, with its origin.
pub fn explain(loaded: &Loaded) -> String {
    let mut out = String::new();
    let file = loaded.source.name();
    let settings = &loaded.settings;
    let tags: Vec<String> = settings.agent.tags.iter().map(|(key, value)| format!("{key}={value}")).collect();
    for (path, value) in [
        ("agent.name", loaded.host_name.clone()),
        ("agent.tags", tags.join(" ")),
        ("agent.interval", settings.agent.interval.to_string()),
        ("agent.heartbeat_interval", settings.agent.heartbeat_interval.to_string()),
        ("agent.data", loaded.data_folder.display().to_string()),
        ("limits.memory", settings.limits.memory.to_string()),
        ("limits.disk", settings.limits.disk.to_string()),
        ("limits.dead_letters", settings.limits.dead_letters.to_string()),
        ("limits.dead_letters_age", settings.limits.dead_letters_age.to_string()),
        ("delivery.acknowledge", format!("{:?}", settings.delivery.acknowledge).to_lowercase()),
        ("delivery.queue", format!("{:?}", settings.delivery.queue).to_lowercase()),
        ("delivery.sync", format!("{:?}", settings.delivery.sync).to_lowercase()),
    ] {
        line(&mut out, path, &value, "");
    }
    let kinds = kinds();
    let written = settings.integrations.iter();
    let defaults: Vec<Block> = kinds
        .iter()
        .filter(|kind| kind.on_by_default && !settings.integrations.iter().any(|block| block.kind == kind.name()))
        .map(|kind| weir_pipeline::plan::default_block(kind.name()))
        .collect();
    for block in written.chain(&defaults) {
        let Some(kind) = kinds.iter().find(|kind| kind.name() == block.kind) else { continue };
        out.push('\n');
        let state = if block.enabled { kind.role.name() } else { "off" };
        line(&mut out, &block.path(), state, kind.about.summary);
        if block.enabled {
            options(&mut out, kind, block, &file);
        }
    }
    out
}

fn options(out: &mut String, kind: &Kind, block: &Block, file: &str) {
    let mut generator = SchemaGenerator::default();
    let schema = kind.schema(&mut generator).to_value();
    let Some(properties) = schema.get("properties").and_then(Json::as_object) else { return };
    for (name, property) in properties.iter().filter(|(name, _)| *name != "enabled") {
        let secret =
            property.get("format").and_then(Json::as_str) == Some("secret") || property.get("writeOnly").is_some();
        let path = format!("  {name}");
        match block.node.get(name) {
            Some(node) => {
                let value =
                    if secret || holds_variable(node) { "[from a variable or secret]".to_owned() } else { shown(node) };
                line(out, &path, &value, &format!("{file}:{}", node.line));
            }
            None => match property.get("default").filter(|default| !default.is_null()) {
                Some(Json::String(text)) => line(out, &path, text, "default"),
                Some(value) => line(out, &path, &value.to_string(), "default"),
                None => line(out, &path, "-", "not set"),
            },
        }
    }
}

fn line(out: &mut String, path: &str, value: &str, origin: &str) {
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{}", format!("{path:<32} {value:<32} {origin}").trim_end());
}

fn holds_variable(node: &Node) -> bool {
    node.from_variable()
        || node.items().iter().any(holds_variable)
        || node.entries().iter().any(|(_, value)| holds_variable(value))
}

fn shown(node: &Node) -> String {
    match &node.value {
        Value::Sequence(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Mapping(entries) => {
            let pairs = entries.iter().map(|(key, value)| format!("{}: {}", key.name, shown(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::String(text) => text.clone(),
    }
}
