//! The agent monitor's `POST /api/v1/agents/{id}/metrics`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Number, Value};
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::custom::{self, Leaf};
use super::fields::{self, AGENT_MONITOR};
use super::history::Row;
use super::json::{self, Object};
use super::time::{self, Clock, Instant};
use super::{Stored, agents, builder, clock, items, let_others_run, offer, targets};
use crate::auth::Caller;
use crate::error::ApiError;
use crate::state::App;

/// A key that the agent monitor's client sends and its schema does not know.
const NETWORK_IO: &str = "network_io";

/// What one agent measured at one time; a field without a value is absent. Keys that are not named here are kept in
/// `custom_metrics`.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct AgentMetrics {
    /// When it was measured: ISO 8601 (without an offset it is UTC) or seconds since 1970; by default now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-01T12:00:00.123456")]
    pub timestamp: Option<String>,
    /// CPU time that was not idle, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 100, example = 45.2)]
    pub cpu_usage: Option<Number>,
    /// Memory in use, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 100, example = 68.5)]
    pub memory_usage: Option<Number>,
    /// Space in use on `/`, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 100, example = 45.0)]
    pub disk_usage: Option<Number>,
    /// A number, or an object of numbers such as `{"bytes_sent": 1024, "bytes_recv": 2048}`; kept as it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_io: Option<Value>,
    /// Time that what the agent watches took to answer, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, example = 12.5)]
    pub response_time: Option<Number>,
    /// Requests in a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, example = 120)]
    pub requests_per_minute: Option<Number>,
    /// Requests that failed, percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 100, example = 0.5)]
    pub error_rate: Option<Number>,
    /// Any JSON.
    #[schema(value_type = Object, required = false)]
    pub custom_metrics: Map<String, Value>,
}

/// The bodies of `POST /api/v1/agents/{id}/metrics`: one [`AgentMetrics`], a list, or a list below `metrics`.
///
/// Written by hand because every field of one object is optional: `oneOf`, which is derived for
/// enumerations, would say that a list below `metrics` is two things at once.
#[derive(Clone, Copy, Debug)]
pub struct AgentMetricsBody;

impl PartialSchema for AgentMetricsBody {
    fn schema() -> RefOr<Schema> {
        let one = || Ref::from_schema_name(AgentMetrics::name());
        let many = || ArrayBuilder::new().items(one());
        let wrapped = ObjectBuilder::new().property("metrics", many()).required("metrics");
        AnyOfBuilder::new().item(wrapped).item(many()).item(one()).into()
    }
}

impl ToSchema for AgentMetricsBody {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((AgentMetrics::name().into_owned(), AgentMetrics::schema()));
        AgentMetrics::schemas(schemas);
    }
}

impl AgentMetrics {
    /// A row of the history of an agent.
    pub fn of(row: Row) -> Self {
        let number = |name| row.number(name);
        let mut metrics = Self {
            timestamp: Some(time::rfc3339(row.ms)),
            cpu_usage: number("cpu_usage"),
            memory_usage: number("memory_usage"),
            disk_usage: number("disk_usage"),
            response_time: number("response_time"),
            requests_per_minute: number("requests_per_minute"),
            error_rate: number("error_rate"),
            ..Self::default()
        };
        metrics.custom_metrics = custom::nested(row.custom);
        metrics.network_io = metrics.custom_metrics.remove(NETWORK_IO);
        metrics
    }
}

/// Stores a body of `POST /api/v1/agents/{id}/metrics`.
///
/// # Errors
/// 400 with the field's path, 403 and 404 for the agent, 503. Nothing is stored then.
pub async fn take(app: &App, caller: &Caller, id: &str, body: Bytes) -> Result<Stored, ApiError> {
    targets::may_speak_as(caller, id)?;
    let body = json::parse_apart(body).await?;
    let clock = clock(app);
    let mut readings = Vec::new();
    for (at, (path, item)) in items(&body)?.into_iter().enumerate() {
        readings.push(read(&Object::of(item, &path)?, &clock)?);
        let_others_run(at).await;
    }
    let host = agents::known_or_registered(app, id, None, "agent_monitor").await?.hostname;
    let mut metrics = builder("agent_monitor");
    let mut clamped = 0;
    for (at, (instant, fields, custom)) in readings.iter().enumerate() {
        clamped += u64::from(instant.clamped);
        fields::record(&mut metrics, &host, instant.ms, fields, custom);
        let_others_run(at).await;
    }
    Ok(Stored::new(offer(app, metrics.finish()).await?, clamped))
}

pub(super) type Posted = (Instant, Vec<(&'static fields::Field, f64)>, BTreeMap<String, Leaf>);

pub(super) fn read(object: &Object<'_>, clock: &Clock) -> Result<Posted, ApiError> {
    let instant = clock.instant(object, "timestamp")?;
    let known = fields::read(object, &AGENT_MONITOR)?;
    let mut custom = BTreeMap::new();
    for (key, value) in object.map {
        match key.as_str() {
            // The path of the request says whose metrics these are.
            "timestamp" | "agent_id" => {}
            name if AGENT_MONITOR.iter().any(|field| field.name == name) => {}
            "custom_metrics" if value.is_object() => custom::flatten(value, "", &object.path_of(key), &mut custom)?,
            _ => custom::flatten(value, key, &object.path_of(key), &mut custom)?,
        }
    }
    Ok((instant, known, custom))
}

#[cfg(test)]
mod tests {
    use super::super::history::History;
    use super::*;
    use serde_json::json;

    const CLOCK: Clock = Clock { now_ms: 1_767_268_800_000, retention_ms: 30 * 86_400_000 };

    /// What comes back after a body went through the metrics of the pipeline.
    fn there_and_back(body: &Value) -> Value {
        let (instant, fields, custom) = read(&Object::of(body, "").unwrap(), &CLOCK).unwrap();
        let mut out = builder("agent_monitor");
        fields::record(&mut out, "web-1", instant.ms, &fields, &custom);
        let metrics = out.finish();
        let mut history = History::new(&AGENT_MONITOR, 10);
        for point in metrics.numbers.iter() {
            let table = &metrics.table;
            let (metric, series) = (table.metric_of(point.series).unwrap(), table.series[point.series as usize]);
            let scope = table.common.scopes[metric.scope as usize];
            let resource = table.common.resources[scope.resource as usize];
            let host = table.common.find(resource.attributes, "host.name").map(|host| table.common.value_text(host));
            assert_eq!(host.as_deref(), Some("web-1"));
            let labels: Vec<(String, String)> = table
                .common
                .list(series.attributes)
                .iter()
                .map(|a| (table.common.text(a.key).to_owned(), table.common.value_text(a.value)))
                .collect();
            let label = |name: &str| labels.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            let weir_model::metrics::Number::Double(value) = point.value else { panic!("{:?}", point.value) };
            let ms = i64::try_from(point.time_unix_nano / 1_000_000).unwrap();
            history.add(table.common.text(metric.name), label, [(ms, value)]);
        }
        let rows = history.finish();
        assert_eq!(rows.len(), 1);
        serde_json::to_value(AgentMetrics::of(rows[0].clone())).unwrap()
    }

    #[test]
    fn what_the_seeds_client_sends_comes_back() {
        let body = json!({"cpu_usage": 45.2, "memory_usage": 68.5, "disk_usage": 45, "response_time": 2.3,
            "requests_per_minute": 120, "error_rate": 0.7, "timestamp": "2026-01-01T11:59:30.250",
            "network_io": {"bytes_sent": 123_456_789, "bytes_recv": 5}, "custom_metrics": {"queue": {"depth": 3}, "up": true, "state": "ok"}});
        let mut expected = body.clone();
        expected["timestamp"] = json!("2026-01-01T11:59:30.25Z");
        assert_eq!(there_and_back(&body), expected);
    }

    #[test]
    fn unknown_keys_land_in_custom_metrics_and_a_plain_network_io_stays_plain() {
        let back =
            there_and_back(&json!({"cpu_usage": "12.5", "network_io": 77.5, "gpu": [1, 2], "memory_usage": null}));
        let expected = json!({"timestamp": "2026-01-01T12:00:00Z", "cpu_usage": 12.5, "network_io": 77.5, "custom_metrics": {"gpu": [1, 2]}});
        assert_eq!(back, expected);
    }

    #[test]
    fn one_bad_item_refuses_the_request_before_anything_is_built() {
        let body = json!({"metrics": [{"cpu_usage": 1}, {"cpu_usage": 2}, {"cpu_usage": 200}]});
        let result: Result<Vec<Posted>, ApiError> =
            items(&body).unwrap().into_iter().map(|(path, item)| read(&Object::of(item, &path)?, &CLOCK)).collect();
        assert_eq!(result.unwrap_err().body().field.as_deref(), Some("metrics[2].cpu_usage"));
    }
}
