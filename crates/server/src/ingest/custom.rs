//! Metrics that no schema names: any JSON as series, and back.
//!
//! | JSON | metric |
//! |---|---|
//! | number at `a.b` | `custom.a.b` |
//! | boolean | `custom.a.b`{type=bool}, 0 or 1 |
//! | text | `custom.a.b`{text=...}, always 1 |
//! | element 0 of a list | `custom.a[0]` |
//!
//! A key that has a dot itself comes back as an object inside an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use weir_model::build::{Label, MetricDescription, MetricsBuilder, metric};
use weir_model::metrics::NumberPoint;
use weir_pipeline::MetricKind::Gauge;

use super::json;
use crate::error::ApiError;

/// What the names of these metrics begin with.
pub const PREFIX: &str = "custom.";
/// The label of booleans.
pub const TYPE: &str = "type";
/// The label of texts.
pub const TEXT: &str = "text";

/// Values of one object, at most.
const LEAF_LIMIT: usize = 500;
/// Bytes of a path and of a text: both are kept with every series.
const PATH_LIMIT_BYTES: usize = 200;
const TEXT_LIMIT_BYTES: usize = 256;

/// A value of a custom metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Leaf {
    /// A finite number.
    Number(f64),
    /// A boolean.
    Bool(bool),
    /// Text.
    Text(String),
}

/// Adds all values below a member of a body to `found`.
///
/// # Errors
/// If there are too many, or a path or text is too long. `at` is the path in the body.
pub fn flatten(value: &Value, path: &str, at: &str, found: &mut BTreeMap<String, Leaf>) -> Result<(), ApiError> {
    Place { path: path.to_owned(), at: at.to_owned() }.flatten(value, found)
}

/// Where a value stands. There is one for all of a body: were paths made anew for every member, those below a name of
/// megabytes would take the memory bandwidth of minutes.
struct Place {
    /// Its path among the custom metrics.
    path: String,
    /// Its path in the body, as errors show it.
    at: String,
}

impl Place {
    fn flatten(&mut self, value: &Value, found: &mut BTreeMap<String, Leaf>) -> Result<(), ApiError> {
        let leaf = match value {
            Value::Null => return Ok(()),
            Value::Object(map) => {
                return map.iter().try_for_each(|(key, value)| {
                    let dot = if self.path.is_empty() { "" } else { "." };
                    self.below([dot, key], [".", &json::shown_name(key)], value, found)
                });
            }
            Value::Array(items) => {
                return items.iter().enumerate().try_for_each(|(index, value)| {
                    let index = format!("[{index}]");
                    self.below([&index, ""], [&index, ""], value, found)
                });
            }
            Value::Bool(value) => Leaf::Bool(*value),
            Value::Number(number) => match number.as_f64().filter(|number| number.is_finite()) {
                Some(number) => Leaf::Number(number),
                None => return Ok(()),
            },
            Value::String(text) if text.len() > TEXT_LIMIT_BYTES => {
                let expected = format!("at most {TEXT_LIMIT_BYTES} bytes of text");
                return Err(ApiError::field(&self.at, expected, &format!("{} bytes", text.len())));
            }
            Value::String(text) if text.contains('\0') => {
                return Err(json::wrong(&self.at, "a text without NUL characters", value));
            }
            Value::String(text) => Leaf::Text(text.clone()),
        };
        self.keep(leaf, found)
    }

    fn below(
        &mut self,
        path: [&str; 2],
        at: [&str; 2],
        value: &Value,
        found: &mut BTreeMap<String, Leaf>,
    ) -> Result<(), ApiError> {
        let (path_length, at_length) = (self.path.len(), self.at.len());
        self.path.extend(path);
        self.at.extend(at);
        let done = self.flatten(value, found);
        self.path.truncate(path_length);
        self.at.truncate(at_length);
        done
    }

    fn keep(&self, leaf: Leaf, found: &mut BTreeMap<String, Leaf>) -> Result<(), ApiError> {
        let (path, at) = (&self.path, &self.at);
        if path.is_empty() || path.len() > PATH_LIMIT_BYTES || path.chars().any(char::is_control) {
            let expected = format!("names of together 1 to {PATH_LIMIT_BYTES} bytes without control characters");
            return Err(ApiError::field(at, expected, &format!("{} bytes", path.len())));
        }
        if found.len() >= LEAF_LIMIT {
            return Err(ApiError::field(at, format!("at most {LEAF_LIMIT} values in one object"), "more"));
        }
        found.insert(path.clone(), leaf);
        Ok(())
    }
}

/// Records values with a time.
pub fn record(out: &mut MetricsBuilder, leaves: &BTreeMap<String, Leaf>, time_unix_nano: u64) {
    for (path, leaf) in leaves {
        let name = format!("{PREFIX}{path}");
        let description: MetricDescription<'_> =
            metric(&name, "", Gauge, "A value that a client sent under this name.");
        let (labels, value): (&[Label<'_>], f64) = match leaf {
            Leaf::Number(value) => (&[], *value),
            Leaf::Bool(value) => (&[(TYPE, "bool")], f64::from(u8::from(*value))),
            Leaf::Text(text) => (&[(TEXT, text)], 1.0),
        };
        let point = NumberPoint { time_unix_nano, value: value.into(), ..NumberPoint::default() };
        out.record_point(&description, labels, point);
    }
}

/// The value that a sample of a custom metric stands for.
pub fn of_sample(kind: Option<&str>, text: Option<&str>, value: f64) -> Value {
    match (kind, text) {
        (Some("bool"), _) => Value::Bool(value != 0.0),
        (_, Some(text)) => Value::String(text.to_owned()),
        _ => json::number(value),
    }
}

/// The JSON that has these values at these paths.
pub fn nested(values: BTreeMap<String, Value>) -> Map<String, Value> {
    let mut root = Map::new();
    for (path, value) in values {
        insert(&mut root, &parts(&path), value);
    }
    root.into_iter().map(|(key, value)| (key, lists(value))).collect()
}

/// `a.b[0]` as `a`, `b`, `[0]`.
fn parts(path: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for name in path.split('.') {
        let mut name = name;
        let mut indices = Vec::new();
        while let Some((head, index)) = name.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
            if index.is_empty() || !index.bytes().all(|byte| byte.is_ascii_digit()) {
                break;
            }
            indices.push(format!("[{index}]"));
            name = head;
        }
        parts.push(name.to_owned());
        parts.extend(indices.into_iter().rev());
    }
    parts
}

/// Where a value stands in the way, the rest of the path becomes one key.
fn insert(into: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        into.insert(first.clone(), value);
        return;
    }
    match into.entry(first.clone()).or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(inner) => insert(inner, rest, value),
        _ => {
            into.insert(path.join("."), value);
        }
    }
}

/// Objects whose keys are `[0]`, `[1]`, ... become lists.
fn lists(value: Value) -> Value {
    let Value::Object(mut map) = value else { return value };
    let is_list = !map.is_empty() && (0..map.len()).all(|index| map.contains_key(&format!("[{index}]")));
    if is_list {
        let items = (0..map.len()).filter_map(|index| map.remove(&format!("[{index}]")));
        return Value::Array(items.map(lists).collect());
    }
    Value::Object(map.into_iter().map(|(key, value)| (key, lists(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn there(value: &Value) -> Result<BTreeMap<String, Leaf>, ApiError> {
        let mut found = BTreeMap::new();
        flatten(value, "", "custom_metrics", &mut found)?;
        Ok(found)
    }

    fn there_and_back(value: &Value) -> Value {
        let values = there(value).unwrap().into_iter().map(|(path, leaf)| {
            let value = match &leaf {
                Leaf::Number(number) => of_sample(None, None, *number),
                Leaf::Bool(flag) => of_sample(Some("bool"), None, f64::from(u8::from(*flag))),
                Leaf::Text(text) => of_sample(None, Some(text), 1.0),
            };
            (path, value)
        });
        Value::Object(nested(values.collect()))
    }

    #[test]
    fn nested_values_of_every_type_come_back() {
        let value = json!({"queue": {"depth": 12, "busy": true, "state": "draining"}, "ratio": 0.25, "off": false,
            "disks": [{"name": "sda", "used": 1}, {"name": "sdb", "used": 2.5}], "grid": [[1, 2], [3]],
            "many": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], "empty": ""});
        assert_eq!(there_and_back(&value), value);
        assert_eq!(there_and_back(&json!({"gone": null, "kept": 1})), json!({"kept": 1}));
        assert_eq!(there_and_back(&json!({"a.b": 1})), json!({"a": {"b": 1}}));
    }

    #[test]
    fn hostile_names_neither_allocate_nor_collide() {
        assert_eq!(there_and_back(&json!({"a[999999999999]": 1})), json!({"a": {"[999999999999]": 1}}));
        assert_eq!(there_and_back(&json!({"a": 1, "a.b": 2})), json!({"a": 1, "a.b": 2}));
        assert_eq!(there_and_back(&json!({"a[x]": 1, "]": 2, "[": 3})), json!({"a[x]": 1, "]": 2, "[": 3}));
    }

    #[test]
    fn what_would_cost_too_much_is_refused_with_its_path() {
        let error = there(&json!({"note": "x".repeat(257)})).unwrap_err();
        assert_eq!(error.body().field.as_deref(), Some("custom_metrics.note"));
        assert!(there(&json!({"x".repeat(201): 1})).is_err());
        assert!(there(&json!({"": 1})).is_err());
        assert!(there(&json!({"nul\u{0}": 1})).is_err());
        assert!(there(&json!({"nul": "\u{0}"})).is_err());
        assert!(there(&json!({"many": vec![1; 501]})).is_err());
        assert!(there(&json!({"many": vec![1; 500]})).is_ok());
    }

    #[test]
    fn errors_stay_short_below_a_name_of_megabytes() {
        let error = there(&json!({"x".repeat(4 << 20): {"a": 1}})).unwrap_err();
        assert_eq!(error.body().field.as_deref(), Some(format!("custom_metrics.{}....a", "x".repeat(100)).as_str()));
        assert!(error.body().message.len() < 1000);
        let error = there(&json!({"": 1})).unwrap_err();
        assert_eq!(error.body().field.as_deref(), Some("custom_metrics.\"\""));
    }

    #[test]
    fn a_name_of_megabytes_is_not_copied_for_everything_below_it() {
        // Copies of it for all of these would be 800 GB.
        let nothing: Map<String, Value> = (0..100_000).map(|at| (at.to_string(), Value::Null)).collect();
        assert_eq!(there(&json!({"x".repeat(8 << 20): nothing})).unwrap(), BTreeMap::new());
    }
}
