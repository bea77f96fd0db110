//! AgentOps' `POST /api/metrics`: one object, a list, or a list below `metrics`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Number, Value};
use utoipa::ToSchema;

use super::custom::{self, Leaf};
use super::fields::{self, AGENTOPS};
use super::history::Row;
use super::json::Object;
use super::time::{self, Clock, Instant};
use super::{Stored, builder, clock, items, let_others_run, offer, targets};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::state::App;

/// Bytes of an id or hostname.
const ID_LIMIT_BYTES: usize = 255;

/// What one server said about itself at one time; a field without a value is absent. Keys that are not named here
/// are kept in `custom`.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerMetrics {
    /// Id or hostname of the server.
    #[schema(example = "web-prod-03")]
    pub server_id: String,
    /// When it was measured: ISO 8601 (without an offset it is UTC) or seconds since 1970; by default now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// CPU time that was not idle, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 100, example = 45.2)]
    pub cpu_usage: Option<Number>,
    /// Memory in use, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 100, example = 68.5)]
    pub memory_usage: Option<Number>,
    /// Memory of the machine, MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, example = 16384)]
    pub memory_total: Option<Number>,
    /// Space in use on `/`, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 100, example = 45.0)]
    pub disk_usage: Option<Number>,
    /// Size of `/`, GB (1,000,000,000 bytes).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, example = 500)]
    pub disk_total: Option<Number>,
    /// Round trip, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, example = 2.3)]
    pub network_latency: Option<Number>,
    /// Received and sent by all interfaces, Mbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, example = 125.5)]
    pub network_throughput: Option<Number>,
    /// Processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, example = 127)]
    pub process_count: Option<Number>,
    /// Everything else.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub custom: Map<String, Value>,
}

/// The bodies of `POST /api/metrics`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ServerMetricsBody {
    /// One server at one time.
    One(ServerMetrics),
    /// Several.
    Many(Vec<ServerMetrics>),
    /// Several.
    Wrapped {
        /// All of them.
        metrics: Vec<ServerMetrics>,
    },
}

impl ServerMetrics {
    /// A row of the history of a server.
    pub fn of(server_id: &str, row: Row) -> Self {
        let number = |name| row.number(name);
        Self {
            server_id: server_id.to_owned(),
            timestamp: Some(time::rfc3339(row.ms)),
            cpu_usage: number("cpuUsage"),
            memory_usage: number("memoryUsage"),
            memory_total: number("memoryTotal"),
            disk_usage: number("diskUsage"),
            disk_total: number("diskTotal"),
            network_latency: number("networkLatency"),
            network_throughput: number("networkThroughput"),
            process_count: number("processCount"),
            custom: custom::nested(row.custom),
        }
    }
}

/// Stores a body of `POST /api/metrics`, from HTTP or the WebSocket.
///
/// # Errors
/// 400 with the field's path, 403 and 404 for servers, 413, 503. Nothing is stored then.
pub async fn take_value(app: &App, caller: &Caller, body: &Value) -> Result<Stored, ApiError> {
    let clock = clock(app);
    let mut all = Vec::new();
    for (at, (path, item)) in items(body)?.into_iter().enumerate() {
        all.push(read(&Object::of(item, &path)?, &clock)?);
        let_others_run(at).await;
    }
    let hostnames = targets::hostnames(app, caller, all.iter().map(|posted| posted.server.as_str())).await?;
    let mut metrics = builder("agentops");
    let mut clamped = 0;
    for (at, posted) in all.iter().enumerate() {
        clamped += u64::from(posted.instant.clamped);
        let host = hostnames.get(posted.server.as_str()).map_or("", String::as_str);
        fields::record(&mut metrics, host, posted.instant.ms, &posted.fields, &posted.custom);
        let_others_run(at).await;
    }
    Ok(Stored::new(offer(app, metrics.finish()).await?, clamped))
}

/// One object of a body.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) server: String,
    pub(super) instant: Instant,
    pub(super) fields: Vec<(&'static fields::Field, f64)>,
    pub(super) custom: BTreeMap<String, Leaf>,
}

pub(super) fn read(object: &Object<'_>, clock: &Clock) -> Result<Posted, ApiError> {
    let Some(server) = object.text("serverId", ID_LIMIT_BYTES)? else {
        let expected = "the id or hostname of a server that POST /api/servers registered";
        return Err(ApiError::field(object.path_of("serverId"), expected, "nothing"));
    };
    let instant = clock.instant(object, "timestamp")?;
    let fields = fields::read(object, &AGENTOPS)?;
    let mut custom = BTreeMap::new();
    for (key, value) in object.map {
        match key.as_str() {
            "serverId" | "timestamp" => {}
            name if AGENTOPS.iter().any(|field| field.name == name) => {}
            "custom" if value.is_object() => custom::flatten(value, "", &object.path_of(key), &mut custom)?,
            _ => custom::flatten(value, key, &object.path_of(key), &mut custom)?,
        }
    }
    Ok(Posted { server, instant, fields, custom })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CLOCK: Clock = Clock { now_ms: 1_767_268_800_000, retention_ms: 30 * 86_400_000 };

    #[test]
    fn the_seeds_body_is_read_as_it_stands() {
        let body = json!({"serverId": "server-uuid", "cpuUsage": 45.2, "memoryUsage": 68.5, "memoryTotal": 16384,
            "diskUsage": 45.0, "diskTotal": 500, "networkLatency": 2.3, "networkThroughput": 125.5, "processCount": 127});
        let posted = read(&Object::of(&body, "").unwrap(), &CLOCK).unwrap();
        assert_eq!(posted.server, "server-uuid");
        assert_eq!(posted.fields.len(), 8);
        assert_eq!(posted.instant, Instant { ms: CLOCK.now_ms, clamped: false });
        assert!(posted.custom.is_empty());
    }

    #[test]
    fn unknown_keys_are_kept() {
        let body = json!({"serverId": 7, "gpu": {"busy": 0.5}, "custom": {"a": 1}, "timestamp": 1_767_268_000});
        let posted = read(&Object::of(&body, "").unwrap(), &CLOCK).unwrap();
        assert_eq!(posted.server, "7");
        assert_eq!(posted.custom.keys().collect::<Vec<_>>(), ["a", "gpu.busy"]);
        assert_eq!(posted.instant.ms, 1_767_268_000_000);
    }

    #[test]
    fn a_missing_server_and_a_wrong_percentage_name_their_paths() {
        let error = read(&Object::of(&json!({}), "metrics[2]").unwrap(), &CLOCK).unwrap_err();
        assert_eq!(error.body().field.as_deref(), Some("metrics[2].serverId"));
        let body = json!({"serverId": "a", "cpuUsage": "high"});
        let error = read(&Object::of(&body, "metrics[2]").unwrap(), &CLOCK).unwrap_err();
        assert_eq!(error.body().message, "metrics[2].cpuUsage: expected a number from 0 to 100, found \"high\"");
    }
}
