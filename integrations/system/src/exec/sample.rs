//! What the parsers hand over, and how it becomes a metric.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use weir_model::metrics::{Number, NumberPoint};
use weir_pipeline::{MetricDescription, MetricKind, MetricsBuilder};

/// One number that a program printed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    /// Where it stood: a JSON path, a column, `measurement.field`; empty where the output is one value.
    pub path: String,
    /// What tells it from its siblings.
    pub labels: Vec<(String, String)>,
    /// The number.
    pub value: Number,
    /// UCUM unit; empty where the format has none.
    pub unit: &'static str,
    /// Kind of the metric; a gauge where the format has none.
    pub kind: MetricKind,
    /// When it was measured, unix nanoseconds; 0 = now.
    pub time_unix_nano: u64,
}

impl Sample {
    /// A gauge of now.
    pub fn gauge(path: impl Into<String>, labels: Vec<(String, String)>, value: Number) -> Self {
        Self { path: path.into(), labels, value, unit: "", kind: MetricKind::Gauge, time_unix_nano: 0 }
    }
}

/// Output that does not have the configured format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadOutput {
    /// Line of the output, from 1.
    pub line: u64,
    /// What should have stood there, and what did.
    pub problem: String,
}

impl BadOutput {
    /// A problem at a line.
    pub fn new(line: u64, problem: impl Into<String>) -> Self {
        Self { line, problem: problem.into() }
    }
}

/// The beginning of what was found, for errors: one line, at most 60 characters.
pub(super) fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut start: String = line.chars().filter(|c| !c.is_control()).take(60).collect();
    if start.len() < line.len() {
        start.push_str("...");
    }
    start
}

/// The kind of a metric, as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueKind {
    /// A value of now.
    #[default]
    Gauge,
    /// Only grows until the program restarts.
    Counter,
    /// Adds up over its labels, may fall.
    UpDownCounter,
}

/// What becomes of one value of the output.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ValueConfig {
    /// Full name of the metric. Without it the prefix and the path of the value.
    pub name: Option<String>,
    /// UCUM unit of the metric, after scaling: `By`, `s`, `1`, `Cel`.
    pub unit: String,
    /// Kind of the metric.
    pub kind: ValueKind,
    /// Factor that brings the printed value to the unit, for example 1048576 from MiB to `By`. Default 1.
    pub scale: f64,
    /// What it measures, one sentence.
    pub description: String,
}

impl Default for ValueConfig {
    fn default() -> Self {
        Self { name: None, unit: String::new(), kind: ValueKind::Gauge, scale: 1.0, description: String::new() }
    }
}

/// How samples become metrics.
#[derive(Clone, Debug, Default)]
pub(super) struct Naming {
    /// Stands before the path with a dot; may be empty.
    pub prefix: String,
    /// Labels on every sample.
    pub labels: Vec<(String, String)>,
    /// What becomes of which path; empty = everything becomes a gauge.
    pub values: BTreeMap<String, ValueConfig>,
}

impl Naming {
    /// Records a sample; those that are not listed, where there is a list, are left out.
    pub fn record(&self, sample: &Sample, out: &mut MetricsBuilder) {
        let value_config = self.values.get(&sample.path);
        if value_config.is_none() && !self.values.is_empty() {
            return;
        }
        let name: Cow<'_, str> = match value_config.and_then(|value| value.name.as_deref()) {
            Some(name) => name.into(),
            None => joined(&self.prefix, &sample.path),
        };
        let description = MetricDescription {
            name: &name,
            unit: value_config.map_or(sample.unit, |value| &value.unit),
            kind: value_config.map_or(sample.kind, |value| match value.kind {
                ValueKind::Gauge => MetricKind::Gauge,
                ValueKind::Counter => MetricKind::Counter,
                ValueKind::UpDownCounter => MetricKind::UpDownCounter,
            }),
            help: value_config.map_or("", |value| &value.description),
        };
        let labels: Vec<(&str, &str)> = self
            .labels
            .iter()
            .filter(|(key, _)| !sample.labels.iter().any(|(own, _)| own == key))
            .chain(&sample.labels)
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let Some(value) = scaled(sample.value, value_config.map_or(1.0, |value| value.scale)) else { return };
        let time_unix_nano = if sample.time_unix_nano == 0 { out.now_unix_nano() } else { sample.time_unix_nano };
        out.record_point(&description, &labels, NumberPoint { time_unix_nano, value, ..NumberPoint::default() });
    }
}

fn joined<'a>(prefix: &'a str, path: &'a str) -> Cow<'a, str> {
    match (prefix, path) {
        ("", only) | (only, "") => only.into(),
        (prefix, path) => format!("{prefix}.{path}").into(),
    }
}

/// The value times the factor; whole numbers stay whole where the factor is. `None` beyond all doubles.
fn scaled(value: Number, scale: f64) -> Option<Number> {
    if scale == 1.0 {
        return Some(value);
    }
    let divisor = (1.0 / scale).round();
    // 35 / 100 is 0.35, while 35 * 0.01 is 0.35000000000000003.
    let product = if divisor * scale == 1.0 { value.as_f64()? / divisor } else { value.as_f64()? * scale };
    let exact = matches!(value, Number::Int(_)) && scale.fract() == 0.0 && product.abs() < MOST_EXACT;
    if exact {
        // Whole and below 2^53, so the conversion changes nothing.
        #[expect(clippy::cast_possible_truncation)]
        return Some(Number::Int(product as i64));
    }
    product.is_finite().then_some(Number::Double(product))
}

/// Doubles below 2^53 hold every whole number.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_keeps_whole_numbers_whole() {
        assert_eq!(scaled(Number::Int(1024), 1_048_576.0), Some(Number::Int(1_073_741_824)));
        assert_eq!(scaled(Number::Int(35), 0.01), Some(Number::Double(0.35)));
        assert_eq!(scaled(Number::Double(f64::MAX), 10.0), None);
    }

    #[test]
    fn what_is_shown_in_errors_is_short_and_printable() {
        assert_eq!(shown("a\u{7}b\nc"), "ab...");
        assert_eq!(shown(&"x".repeat(100)).len(), 63);
    }
}
