//! The fields of the seeds' clients and the metrics that they are, both ways.
//!
//! Metrics have OpenTelemetry's names and units: percent becomes a fraction, MiB and GB become bytes,
//! milliseconds become seconds. Back, values are rounded to 14 digits, so that 45.2 stays 45.2.

use std::collections::BTreeMap;

use weir_model::build::{Label, MetricDescription, MetricsBuilder, metric};
use weir_model::metrics::NumberPoint;
use weir_pipeline::MetricKind::{Gauge, UpDownCounter};

use super::custom::{self, Leaf};
use super::json::{Object, Range};
use crate::error::ApiError;

/// How the number of a field becomes the number of its metric.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    /// Metric = field x this.
    Times(f64),
    /// Metric = field / this.
    Over(f64),
}

/// A field and its metric.
#[derive(Debug)]
pub struct Field {
    /// Name of the field in JSON.
    pub name: &'static str,
    /// The metric.
    pub metric: &'static MetricDescription<'static>,
    /// Labels of the metric.
    pub labels: &'static [Label<'static>],
    range: Range,
    scale: Scale,
}

impl Field {
    /// The field's number as the metric's.
    pub fn to_metric(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Times(factor) => value * factor,
            Scale::Over(divisor) => value / divisor,
        }
    }

    /// The metric's number as the field's.
    pub fn of_metric(&self, value: f64) -> f64 {
        rounded(match self.scale {
            Scale::Times(factor) => value / factor,
            Scale::Over(divisor) => value * divisor,
        })
    }
}

/// To 14 significant digits: what multiplying and dividing changed is gone.
fn rounded(value: f64) -> f64 {
    format!("{value:.13e}").parse().unwrap_or(value)
}

const CPU: MetricDescription<'static> =
    metric("system.cpu.utilization", "1", Gauge, "Fraction of the time of all CPUs that was not idle.");
const MEMORY: MetricDescription<'static> =
    metric("system.memory.utilization", "1", Gauge, "Fraction of the memory in each state.");
const MEMORY_LIMIT: MetricDescription<'static> =
    metric("system.memory.limit", "By", UpDownCounter, "Memory that the machine has.");
const DISK: MetricDescription<'static> =
    metric("system.filesystem.utilization", "1", Gauge, "Fraction of the space that is used.");
const DISK_LIMIT: MetricDescription<'static> =
    metric("system.filesystem.limit", "By", UpDownCounter, "Size of the filesystem.");
const PROCESSES: MetricDescription<'static> =
    metric("system.process.count", "{process}", UpDownCounter, "Processes, whatever their state.");
const LATENCY: MetricDescription<'static> =
    metric("network.latency", "s", Gauge, "Round trip that the machine's agent measured.");
const THROUGHPUT: MetricDescription<'static> =
    metric("network.throughput", "bit/s", Gauge, "Bits that all interfaces received and sent in a second.");
const RESPONSE_TIME: MetricDescription<'static> =
    metric("agent.response_time", "s", Gauge, "Time that what the agent watches took to answer.");
const REQUESTS: MetricDescription<'static> = metric(
    "agent.requests_per_minute",
    "{request}/min",
    Gauge,
    "Requests in a minute that the agent counted at what it watches.",
);
const ERRORS: MetricDescription<'static> =
    metric("agent.error_rate", "1", Gauge, "Fraction of the requests that failed at what the agent watches.");

/// The label of the memory that is in use.
pub const MEMORY_STATE: &str = "system.memory.state";
/// The label of a filesystem's place.
pub const MOUNTPOINT: &str = "system.filesystem.mountpoint";

const USED: &[Label<'static>] = &[(MEMORY_STATE, "used")];
const ROOT: &[Label<'static>] = &[(MOUNTPOINT, "/")];

const fn field(
    name: &'static str,
    metric: &'static MetricDescription<'static>,
    labels: &'static [Label<'static>],
    range: Range,
    scale: Scale,
) -> Field {
    Field { name, metric, labels, range, scale }
}

const MEBIBYTE: f64 = 1_048_576.0;

/// The fields of AgentOps' `POST /api/metrics`.
pub static AGENTOPS: [Field; 8] = [
    field("cpuUsage", &CPU, &[], Range::Percent, Scale::Over(100.0)),
    field("memoryUsage", &MEMORY, USED, Range::Percent, Scale::Over(100.0)),
    field("memoryTotal", &MEMORY_LIMIT, &[], Range::NotNegative, Scale::Times(MEBIBYTE)),
    field("diskUsage", &DISK, ROOT, Range::Percent, Scale::Over(100.0)),
    field("diskTotal", &DISK_LIMIT, ROOT, Range::NotNegative, Scale::Times(1e9)),
    field("networkLatency", &LATENCY, &[], Range::NotNegative, Scale::Over(1e3)),
    field("networkThroughput", &THROUGHPUT, &[], Range::NotNegative, Scale::Times(1e6)),
    field("processCount", &PROCESSES, &[], Range::NotNegative, Scale::Times(1.0)),
];

/// The fields of the agent monitor's `POST /api/v1/agents/{id}/metrics`.
pub static AGENT_MONITOR: [Field; 6] = [
    field("cpu_usage", &CPU, &[], Range::Percent, Scale::Over(100.0)),
    field("memory_usage", &MEMORY, USED, Range::Percent, Scale::Over(100.0)),
    field("disk_usage", &DISK, ROOT, Range::Percent, Scale::Over(100.0)),
    field("response_time", &RESPONSE_TIME, &[], Range::NotNegative, Scale::Over(1e3)),
    field("requests_per_minute", &REQUESTS, &[], Range::NotNegative, Scale::Times(1.0)),
    field("error_rate", &ERRORS, &[], Range::Percent, Scale::Over(100.0)),
];

/// The known fields of an object.
///
/// # Errors
/// For the first that is no number or out of range.
pub fn read(object: &Object<'_>, fields: &'static [Field]) -> Result<Vec<(&'static Field, f64)>, ApiError> {
    let mut found = Vec::with_capacity(fields.len());
    for field in fields {
        if let Some(value) = object.number(field.name, field.range)? {
            let value = field.to_metric(value);
            if !value.is_finite() {
                return Err(ApiError::field(object.path_of(field.name), "a number of a sensible size", "a larger one"));
            }
            found.push((field, value));
        }
    }
    Ok(found)
}

/// Unix nanoseconds of unix milliseconds.
pub fn unix_nano(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000)
}

/// Records what one object says about one machine at one time (unix milliseconds).
pub fn record(
    out: &mut MetricsBuilder,
    host: &str,
    ms: i64,
    fields: &[(&'static Field, f64)],
    custom: &BTreeMap<String, Leaf>,
) {
    out.set_resource(&[("host.name", host)]);
    let time_unix_nano = unix_nano(ms);
    for (field, value) in fields {
        let point = NumberPoint { time_unix_nano, value: (*value).into(), ..NumberPoint::default() };
        out.record_point(field.metric, field.labels, point);
    }
    custom::record(out, custom, time_unix_nano);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_field_comes_back_as_it_was_posted() {
        let spread = [0.0, 0.1, 1.0 / 3.0, 2.3, 45.2, 68.5, 99.99, 100.0, 33.333_333_333, 7.000_000_000_1];
        for field in AGENTOPS.iter().chain(&AGENT_MONITOR) {
            for value in spread.into_iter().chain((0..1000).map(|n| f64::from(n) / 10.0)) {
                let back = field.of_metric(field.to_metric(value));
                assert!((back - value).abs() <= value.abs() * 1e-13, "{}: {value} came back as {back}", field.name);
                if format!("{value}").len() <= 13 {
                    assert_eq!(back, value, "{}", field.name);
                }
            }
        }
    }

    #[test]
    fn the_seeds_example_has_the_metrics_units() {
        let body = json!({"cpuUsage": 45.2, "memoryUsage": 68.5, "memoryTotal": 16384, "diskUsage": 45.0, "diskTotal": 500,
            "networkLatency": 2.3, "networkThroughput": 125.5, "processCount": 127});
        let found = read(&Object::of(&body, "").unwrap(), &AGENTOPS).unwrap();
        let of = |name: &str| found.iter().find(|(field, _)| field.name == name).unwrap();
        assert_eq!(of("memoryTotal").1, 17_179_869_184.0);
        assert_eq!(of("diskTotal").1, 5e11);
        assert_eq!(of("networkThroughput").1, 125_500_000.0);
        assert!((of("networkLatency").1 - 0.0023).abs() < 1e-15);
        assert_eq!(of("cpuUsage").0.metric.name, "system.cpu.utilization");
        assert_eq!(of("memoryUsage").0.labels, USED);
        assert_eq!(found.len(), 8);
    }

    #[test]
    fn a_percentage_out_of_range_names_its_field() {
        for wrong in [json!(100.1), json!(-1), json!("101")] {
            let body = json!({"memory_usage": wrong});
            let error = read(&Object::of(&body, "metrics[7]").unwrap(), &AGENT_MONITOR).unwrap_err();
            assert_eq!(error.body().field.as_deref(), Some("metrics[7].memory_usage"));
        }
        let body = json!({"diskTotal": 1e308});
        assert!(read(&Object::of(&body, "").unwrap(), &AGENTOPS).is_err());
    }
}
