//! The messages of the WebSocket: those of clients are read, those of the server are written as text.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::api::hosts::write_rows;
use crate::error::ApiError;
use crate::hosts::host::Published;
use crate::hosts::table::Changes;
use crate::ingest::fields::AGENTOPS;
use crate::ingest::{json as numbers, time};

/// What a client says.
#[derive(Debug)]
pub enum Asked<'a> {
    /// It wants to hear that somebody is there.
    Ping,
    /// Metrics to store.
    Metrics {
        /// Comes back in the answer.
        id: Option<&'a Value>,
        /// As the body of `POST /api/metrics`.
        data: &'a Value,
    },
    /// Something else.
    Unknown {
        /// Comes back in the answer.
        id: Option<&'a Value>,
        /// What is wrong with it.
        error: ApiError,
    },
}

/// Reads a message. Without a `type` it is the body of `POST /api/metrics` itself.
pub fn read(message: &Value) -> Asked<'_> {
    let Some(kind) = message.get("type").and_then(Value::as_str) else {
        return Asked::Metrics { id: None, data: message };
    };
    let id = message.get("id");
    match (kind, message.get("data")) {
        ("ping", _) => Asked::Ping,
        ("metrics", Some(data)) => Asked::Metrics { id, data },
        ("metrics", None) => {
            Asked::Unknown { id, error: ApiError::field("data", "the body of POST /api/metrics", "nothing") }
        }
        (other, _) => {
            let shown: String = other.chars().take(40).collect();
            Asked::Unknown { id, error: ApiError::field("type", "metrics or ping", &format!("{shown:?}")) }
        }
    }
}

/// Rows of the table: all of them first, then those that changed.
pub fn hosts(changes: &Changes, now_ms: i64) -> String {
    let mut text = format!("{{\"type\":\"hosts\",\"now_ms\":{now_ms},\"rows\":");
    write_rows(&changes.rows, &mut text);
    text.push('}');
    text
}

/// Hosts that are no longer there.
pub fn removed(names: &[String]) -> String {
    json!({"type": "removed", "names": names}).to_string()
}

/// The newest figures of a host, with the fields and units of `POST /api/metrics`.
pub fn metrics(host: &Published) -> Option<String> {
    let row = &host.row;
    let both_directions = || {
        let bytes = row.network_receive_bytes_per_second? + row.network_transmit_bytes_per_second?;
        Some(bytes * 8.0)
    };
    let mut message = Map::new();
    for field in &AGENTOPS {
        let value = match field.name {
            "cpuUsage" => row.cpu,
            "memoryUsage" => row.memory,
            "memoryTotal" => row.memory_total_bytes,
            "diskUsage" => row.disk,
            "diskTotal" => row.disk_total_bytes,
            "networkLatency" => host.latency_seconds,
            "networkThroughput" => row.network_bits_per_second.or_else(both_directions),
            "processCount" => row.process_count,
            _ => None,
        };
        if let Some(value) = value {
            message.insert(field.name.to_owned(), numbers::number(field.of_metric(value)));
        }
    }
    if message.is_empty() {
        return None;
    }
    message.insert("type".to_owned(), "metrics".into());
    message.insert("serverId".to_owned(), row.id.clone().into());
    message.insert("hostname".to_owned(), row.name.clone().into());
    message.insert("timestamp".to_owned(), time::rfc3339(host.newest_ms?).into());
    Some(Value::Object(message).to_string())
}

/// An alert; `None` if it is no object.
pub fn alert(alert: &impl Serialize) -> Option<String> {
    let Ok(Value::Object(mut message)) = serde_json::to_value(alert) else { return None };
    message.insert("type".to_owned(), "alert".into());
    Some(Value::Object(message).to_string())
}

/// Metrics are stored.
pub fn ack(id: Option<&Value>, stored: u64) -> String {
    let mut message = json!({"type": "ack", "stored": stored});
    set_id(&mut message, id);
    message.to_string()
}

/// Something is wrong.
pub fn error(id: Option<&Value>, error: &ApiError) -> String {
    let mut message = serde_json::to_value(error.body()).unwrap_or_else(|_| json!({}));
    if let Value::Object(map) = &mut message {
        map.insert("type".to_owned(), "error".into());
    }
    set_id(&mut message, id);
    message.to_string()
}

/// The answer to a ping in JSON.
pub const PONG: &str = r#"{"type":"pong"}"#;

fn set_id(message: &mut Value, id: Option<&Value>) {
    if let (Value::Object(map), Some(id)) = (message, id) {
        map.insert("id".to_owned(), id.clone());
    }
}
