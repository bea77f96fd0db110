//! OTLP metrics as a flat list of numbers, made by a decoder that is not Weir's.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, metric::Data, number_data_point};
use serde_json::{Value as Json, json};

/// One number of a gauge or sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name of the metric.
    pub name: String,
    /// Attributes of the point.
    pub attributes: BTreeMap<String, String>,
    /// Attributes of its resource.
    pub resource: BTreeMap<String, String>,
    /// The number.
    pub value: f64,
    /// Its time.
    pub time: SystemTime,
}

impl Point {
    /// An attribute, empty if absent.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// A value as JSON; bytes as a list of numbers.
pub fn json_of(value: &AnyValue) -> Json {
    match &value.value {
        None => Json::Null,
        Some(Value::StringValue(text)) => json!(text),
        Some(Value::BoolValue(value)) => json!(value),
        Some(Value::IntValue(value)) => json!(value),
        Some(Value::DoubleValue(value)) => json!(value),
        Some(Value::ArrayValue(list)) => list.values.iter().map(json_of).collect(),
        Some(Value::KvlistValue(list)) => attributes_json(&list.values),
        Some(Value::BytesValue(bytes)) => json!(bytes),
        Some(other) => panic!("a kind of value that these tests do not send: {other:?}"),
    }
}

/// Attributes as a JSON object.
pub fn attributes_json(attributes: &[KeyValue]) -> Json {
    attributes.iter().map(|pair| (pair.key.clone(), pair.value.as_ref().map_or(Json::Null, json_of))).collect()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().map(json_of) {
        Some(Json::String(text)) => text,
        other => other.unwrap_or_default().to_string(),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

/// All numbers of a request.
pub fn points(request: &ExportMetricsServiceRequest) -> Vec<Point> {
    let mut found = Vec::new();
    for resource in &request.resource_metrics {
        let of_resource = resource.resource.as_ref().map(|resource| texts(&resource.attributes)).unwrap_or_default();
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let numbers: &[NumberDataPoint] = match &metric.data {
                Some(Data::Gauge(gauge)) => &gauge.data_points,
                Some(Data::Sum(sum)) => &sum.data_points,
                _ => &[],
            };
            found.extend(numbers.iter().map(|number| Point {
                name: metric.name.clone(),
                attributes: texts(&number.attributes),
                resource: of_resource.clone(),
                value: match number.value {
                    Some(number_data_point::Value::AsDouble(value)) => value,
                    Some(number_data_point::Value::AsInt(value)) => value as f64,
                    None => f64::NAN,
                },
                time: SystemTime::UNIX_EPOCH + Duration::from_nanos(number.time_unix_nano),
            }));
        }
    }
    found
}
