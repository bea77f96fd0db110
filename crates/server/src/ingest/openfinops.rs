//! OpenFinOps' `POST /api/v1/telemetry/ingest`, both shapes of its body.
//!
//! Whatever is a number becomes the metric `finops.` + its path. What stands in a list has a
//! resource: the name or id of the list's element, as the label `finops.resource`; a list inside a
//! list gives `outer/inner`. A service that failed is `{"service": ..., "error": ...}`: it becomes
//! `finops.service.error`, and no zero instances.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use weir_model::build::{MetricDescription, MetricsBuilder, metric};
use weir_model::metrics::NumberPoint;
use weir_pipeline::MetricKind::Gauge;

use super::fields::unix_nano;
use super::json::{self, Object};
use super::{Stored, agents, builder, clock, offer, targets};
use crate::auth::Caller;
use crate::body::SMALL_LIMIT_BYTES;
use crate::error::{ApiError, Code};
use crate::state::App;

/// Numbers of one request, at most.
const LEAF_LIMIT: usize = 20_000;
/// Bytes of a metric's name and of a resource's.
const NAME_LIMIT_BYTES: usize = 250;

const RESOURCE: &str = "finops.resource";
const SERVICE: &str = "finops.service";
const ERROR: MetricDescription<'static> =
    metric("finops.service.error", "1", Gauge, "1 for a service that the agent could not read.");

/// Keys by which resources are known, the more telling ones first.
const NAMES: [&str; 13] = [
    "instance_id",
    "db_identifier",
    "db_instance_identifier",
    "instance_identifier",
    "function_name",
    "cluster_name",
    "nodegroup_name",
    "bucket_name",
    "bucket",
    "resource_id",
    "id",
    "name",
    "service",
];

/// A number of a body.
#[derive(Clone, Debug, PartialEq)]
struct Leaf {
    path: String,
    resource: String,
    value: f64,
    is_cost: bool,
}

/// What a body says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    leaves: Vec<Leaf>,
    failed_services: BTreeSet<String>,
}

/// Stores a body of `POST /api/v1/telemetry/ingest`, and the body itself as the agent's last heartbeat.
///
/// # Errors
/// 400 with the field's path, 403 and 404 for the agent, 413, 503. Nothing is stored then.
pub async fn take(app: &App, caller: &Caller, bytes: Bytes) -> Result<Stored, ApiError> {
    let length_bytes = bytes.len();
    let body = json::parse_apart(bytes).await?;
    let object = Object::of(&body, "")?;
    let Some(id) = object.text("agent_id", NAME_LIMIT_BYTES)? else {
        return Err(ApiError::field("agent_id", "the id under which the agent registered", "nothing"));
    };
    targets::may_speak_as(caller, &id)?;
    let instant = clock(app).instant(&object, "timestamp")?;
    let found = read(object.map)?;
    let told = object.text("hostname", NAME_LIMIT_BYTES)?;
    let provider = object.text("cloud_provider", NAME_LIMIT_BYTES)?;
    let region = object.text("region", NAME_LIMIT_BYTES)?;
    let agent = agents::known_or_registered(app, &id, told.as_deref(), "openfinops").await?;
    let mut resource = vec![("host.name", agent.hostname.as_str())];
    resource.extend(provider.as_deref().map(|provider| ("cloud.provider", provider)));
    resource.extend(region.as_deref().map(|region| ("cloud.region", region)));
    let mut metrics = builder("openfinops");
    metrics.set_resource(&resource);
    record(&mut metrics, &found, unix_nano(instant.ms));
    let stored = offer(app, metrics.finish()).await?;
    agents::take_heartbeat(app, &id, kept(body, length_bytes)).await?;
    Ok(Stored::new(stored, u64::from(instant.clamped)))
}

/// The heartbeat that a body stands for; the body is part of it unless it is too large.
fn kept(body: Value, length_bytes: usize) -> Value {
    if length_bytes <= SMALL_LIMIT_BYTES {
        json!({"status": "ok", "telemetry": body})
    } else {
        json!({"status": "ok", "telemetry_bytes": length_bytes})
    }
}

pub(super) fn read(map: &Map<String, Value>) -> Result<Found, ApiError> {
    let mut walk = Walk::default();
    walk.members(map)?;
    Ok(walk.found)
}

/// A walk through a body. Path and resource grow and shrink with it: were they made anew for every member, those below
/// a name of megabytes would take the memory bandwidth of minutes.
#[derive(Default)]
struct Walk {
    path: String,
    resource: String,
    found: Found,
}

impl Walk {
    fn members(&mut self, map: &Map<String, Value>) -> Result<(), ApiError> {
        let length = self.path.len();
        for (key, value) in map.iter().filter(|(key, _)| *key != "timestamp") {
            self.path.extend([if length == 0 { "" } else { "." }, key.as_str()]);
            let done = self.value(value);
            self.path.truncate(length);
            done?;
        }
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<(), ApiError> {
        match value {
            Value::Object(map) => {
                if let Some(service) = failed_service(map, &self.path) {
                    self.has_room()?;
                    self.found.failed_services.insert(service);
                }
                self.members(map)
            }
            Value::Array(items) => items.iter().enumerate().try_for_each(|(at, item)| self.element(at, item)),
            Value::Number(number) => match number.as_f64().filter(|value| value.is_finite()) {
                Some(value) => self.number(value),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn element(&mut self, at: usize, item: &Value) -> Result<(), ApiError> {
        let length = self.resource.len();
        let name = resource_name(item).unwrap_or_else(|| at.to_string());
        self.resource.extend([if length == 0 { "" } else { "/" }, name.as_str()]);
        let done = self.value(item);
        self.resource.truncate(length);
        done
    }

    fn has_room(&self) -> Result<(), ApiError> {
        if self.found.leaves.len() + self.found.failed_services.len() < LEAF_LIMIT {
            return Ok(());
        }
        let message = format!("more than {LEAF_LIMIT} numbers in one request; send fewer services at once");
        Err(ApiError::new(Code::TooLarge, message))
    }

    fn number(&mut self, value: f64) -> Result<(), ApiError> {
        self.has_room()?;
        let path = &self.path;
        if path.is_empty() || path.len() > NAME_LIMIT_BYTES || path.chars().any(char::is_control) {
            let expected = format!("names of together 1 to {NAME_LIMIT_BYTES} bytes without control characters");
            return Err(ApiError::field(json::shown_name(path), expected, &format!("{} bytes", path.len())));
        }
        let key = path.rsplit('.').next().unwrap_or(path);
        let is_cost = key == "cost" || key.ends_with("_cost") || key.ends_with("_costs");
        self.found.leaves.push(Leaf { path: path.clone(), resource: text(&self.resource), value, is_cost });
        Ok(())
    }
}

/// The service whose failure an object tells: by its own word, or by its place below `services` or `collectors`.
fn failed_service(map: &Map<String, Value>, path: &str) -> Option<String> {
    let Some(Value::String(_)) = map.get("error") else { return None };
    if let Some(Value::String(service)) = map.get("service") {
        return Some(text(service));
    }
    let (parent, name) = path.rsplit_once('.')?;
    let is_service = ["services", "collectors", "metrics"].iter().any(|end| parent.ends_with(end));
    is_service.then(|| text(name))
}

fn resource_name(item: &Value) -> Option<String> {
    let map = item.as_object()?;
    NAMES.iter().find_map(|name| match map.get(*name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// Text for a label: bounded, without control characters.
fn text(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars().filter(|c| !c.is_control()) {
        if text.len() + c.len_utf8() > NAME_LIMIT_BYTES {
            break;
        }
        text.push(c);
    }
    text
}

pub(super) fn record(out: &mut MetricsBuilder, found: &Found, time_unix_nano: u64) {
    let point = |value: f64| NumberPoint { time_unix_nano, value: value.into(), ..NumberPoint::default() };
    for leaf in &found.leaves {
        let name = format!("finops.{}", leaf.path);
        // OpenFinOps' agents tell costs in US dollars.
        let unit = if leaf.is_cost { "{USD}" } else { "" };
        let description = metric(&name, unit, Gauge, "A number that an OpenFinOps agent sent under this name.");
        let label = [(RESOURCE, leaf.resource.as_str())];
        let labels = if leaf.resource.is_empty() { &[][..] } else { &label[..] };
        out.record_point(&description, labels, point(leaf.value));
    }
    for service in &found.failed_services {
        out.record_point(&ERROR, &[(SERVICE, service)], point(1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(body: &Value) -> Found {
        read(body.as_object().unwrap()).unwrap()
    }

    fn value(found: &Found, path: &str, resource: &str) -> Option<f64> {
        found.leaves.iter().find(|leaf| leaf.path == path && leaf.resource == resource).map(|leaf| leaf.value)
    }

    #[test]
    fn the_flat_body_of_the_aws_agent_becomes_metrics_with_resources() {
        let body = json!({"agent_id": "aws-1", "timestamp": 1_767_268_800.25, "hostname": "h", "cloud_provider": "aws",
            "region": "us-west-2", "uptime_seconds": 12.5,
            "services": {
                "ec2": {"total_instances": 2, "total_hourly_cost": 0.2, "instances": [
                    {"instance_id": "i-1", "instance_type": "m5.large", "cpu_utilization": 10.5, "hourly_cost": 0.096, "tags": {"team": "a"}},
                    {"instance_id": "i-2", "cpu_utilization": null, "hourly_cost": 0.104}]},
                "eks": {"clusters": [{"cluster_name": "prod", "node_groups": [{"nodegroup_name": "blue", "desired_size": 3}]}]},
                "rds": {"service": "rds", "error": "AccessDenied"}},
            "summary": {"total_hourly_cost": 0.2}});
        let found = found(&body);
        assert_eq!(value(&found, "services.ec2.instances.cpu_utilization", "i-1"), Some(10.5));
        assert_eq!(value(&found, "services.ec2.instances.cpu_utilization", "i-2"), None);
        assert_eq!(value(&found, "services.eks.clusters.node_groups.desired_size", "prod/blue"), Some(3.0));
        assert_eq!(value(&found, "summary.total_hourly_cost", ""), Some(0.2));
        assert_eq!(value(&found, "uptime_seconds", ""), Some(12.5));
        assert_eq!(value(&found, "timestamp", ""), None);
        assert!(found.failed_services.iter().eq(["rds"]));
        assert!(!found.leaves.iter().any(|leaf| leaf.path.starts_with("services.rds")));
        let costs: Vec<bool> =
            found.leaves.iter().filter(|leaf| leaf.path.ends_with("cost")).map(|leaf| leaf.is_cost).collect();
        assert_eq!(costs, [true; 4]);
    }

    #[test]
    fn the_nested_body_of_the_other_agents_becomes_metrics() {
        let body = json!({"agent_id": "generic-1", "timestamp": "2026-01-01T12:00:00", "events": [],
            "agent_health": {"status": "healthy", "uptime": 60, "last_collection": 1_767_268_800, "metrics_count": 2},
            "metrics": {
                "virtual_machines": {"count": 1, "vms": [{"name": "vm-1", "cpu": 0.5}]},
                "aks": {"service": "aks", "error": "no permission"},
                "collectors": {"gpu_cluster": {"healthy": true, "error": null, "collection_time": 0.2,
                    "data": {"gpu_metrics": [{"gpu_utilization": 35.0}, {"gpu_utilization": 40.0}], "timestamp": 5}},
                    "broken": {"healthy": false, "error": "boom", "data": null}}}});
        let found = found(&body);
        assert_eq!(value(&found, "metrics.virtual_machines.vms.cpu", "vm-1"), Some(0.5));
        assert_eq!(value(&found, "metrics.collectors.gpu_cluster.data.gpu_metrics.gpu_utilization", "1"), Some(40.0));
        assert_eq!(value(&found, "agent_health.metrics_count", ""), Some(2.0));
        assert!(found.failed_services.iter().eq(["aks", "broken"]));
        assert!(!found.leaves.iter().any(|leaf| leaf.path.ends_with("timestamp")));
    }

    #[test]
    fn numbers_and_errors_are_points_of_the_bodys_time() {
        let body = json!({"services": {"rds": {"service": "rds", "error": "AccessDenied"}, "s3": {"monthly_cost": 2.5, "buckets": [{"name": "logs", "objects": 7}]}}});
        let mut out = builder("openfinops");
        record(&mut out, &found(&body), 5_000_000);
        let metrics = out.finish();
        let name = |point: NumberPoint| {
            let metric = *metrics.table.metric_of(point.series).unwrap();
            (metrics.table.common.text(metric.name).to_owned(), metrics.table.common.text(metric.unit).to_owned())
        };
        let names: Vec<(String, String)> = metrics.numbers.iter().map(name).collect();
        let pair = |name: &str, unit: &str| (name.to_owned(), unit.to_owned());
        assert_eq!(
            names,
            [
                pair("finops.services.s3.buckets.objects", ""),
                pair("finops.services.s3.monthly_cost", "{USD}"),
                pair("finops.service.error", "1")
            ]
        );
        assert!(metrics.numbers.iter().all(|point| point.time_unix_nano == 5_000_000));
    }

    #[test]
    fn too_many_numbers_and_too_long_names_are_refused() {
        let many = json!({"services": vec![1; LEAF_LIMIT + 1]});
        assert_eq!(read(many.as_object().unwrap()).unwrap_err().body().code, Code::TooLarge);
        let long = json!({"services": {"x".repeat(300): 1}});
        assert_eq!(read(long.as_object().unwrap()).unwrap_err().body().code, Code::InvalidField);
        let control = json!({"services": {"a\u{0}b": 1}});
        assert!(read(control.as_object().unwrap()).is_err());
        let resource = found(&json!({"list": [{"name": format!("{}\u{0}", "x".repeat(400)), "n": 1}]}));
        assert_eq!(resource.leaves[0].resource.len(), NAME_LIMIT_BYTES);
    }

    #[test]
    fn numbers_without_any_name_are_refused_and_the_error_says_where() {
        for (body, field) in [(json!({"": 1}), "\"\""), (json!({"\u{1}": 1}), "\u{fffd}")] {
            let error = read(body.as_object().unwrap()).unwrap_err();
            assert_eq!(error.body().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn a_name_of_megabytes_is_not_copied_for_everything_below_it() {
        // Copies of it for all of these would be 800 GB.
        let texts = vec!["text"; 100_000];
        let body = json!({"x".repeat(8 << 20): [{"name": "y".repeat(8 << 20), "list": texts}]});
        assert_eq!(found(&body), Found::default());
    }

    #[test]
    fn a_service_that_fails_again_and_again_is_one_and_many_are_too_many() {
        let same = json!({"services": {"x".repeat(240): vec![json!({"error": ""}); 50_000]}});
        assert_eq!(found(&same).failed_services.len(), 1);
        let many: Vec<Value> =
            (0..=LEAF_LIMIT).map(|at| json!({"service": at.to_string(), "error": "no permission"})).collect();
        let error = read(json!({"services": many}).as_object().unwrap()).unwrap_err();
        assert_eq!(error.body().code, Code::TooLarge);
    }

    #[test]
    fn a_body_that_is_too_large_to_keep_is_told_by_its_size() {
        assert_eq!(kept(json!({"a": 1}), 10), json!({"status": "ok", "telemetry": {"a": 1}}));
        assert_eq!(kept(json!({"a": 1}), 2 << 20), json!({"status": "ok", "telemetry_bytes": 2 << 20}));
    }
}
