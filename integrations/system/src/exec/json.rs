//! JSON: every number at any depth becomes a metric that is named by its path.

use serde_json::{Deserializer, Value};
use weir_model::metrics::Number;

use super::cell::{self, Cell};
use super::sample::{BadOutput, Sample, shown};

/// How JSON is read.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonOptions {
    /// Keys whose values are labels of everything in and below their object.
    pub label_keys: Vec<String>,
    /// Whether texts that are numbers count as numbers.
    pub numbers_in_strings: bool,
}

/// Reads one or several documents, one after the other. What stood before a mistake is kept.
///
/// Objects are joined with `.`; elements of arrays carry a label: those of `label_keys` that the
/// element has, or else their position as `index` (below a key: `KEY.index`). Booleans are 0 and 1.
pub(super) fn parse(output: &[u8], options: &JsonOptions, samples: &mut Vec<Sample>) -> Result<(), BadOutput> {
    if output.trim_ascii().is_empty() {
        return Err(BadOutput::new(1, "expected JSON, the output is empty"));
    }
    let mut walk = Walk { options, path: String::new(), labels: Vec::new(), samples };
    for document in Deserializer::from_slice(output).into_iter::<Value>() {
        let document = document.map_err(|error| {
            let line = u64::try_from(error.line()).unwrap_or(u64::MAX).max(1);
            let found = String::from_utf8_lossy(output);
            let found = found.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
            BadOutput::new(line, format!("expected JSON, found `{}` ({})", shown(found), cause(&error)))
        })?;
        walk.value(&document);
    }
    Ok(())
}

/// serde_json's sentence without its position, which is told already.
fn cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

struct Walk<'a> {
    options: &'a JsonOptions,
    path: String,
    labels: Vec<(String, String)>,
    samples: &'a mut Vec<Sample>,
}

impl Walk<'_> {
    /// serde_json refuses documents that are nested deeper than 128, so this recursion is bounded.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::Bool(truth) => self.number(Number::Int(i64::from(*truth))),
            Value::Number(number) => {
                if let Some(number) = as_number(number) {
                    self.number(number);
                }
            }
            Value::String(text) => {
                if self.options.numbers_in_strings
                    && let Cell::Number(number) = cell::read(text)
                {
                    self.number(number);
                }
            }
            Value::Array(elements) => self.array(elements),
            Value::Object(entries) => self.object(entries),
        }
    }

    fn number(&mut self, value: Number) {
        self.samples.push(Sample::gauge(self.path.clone(), self.labels.clone(), value));
    }

    fn array(&mut self, elements: &[Value]) {
        let key = if self.path.is_empty() { "index".to_owned() } else { format!("{}.index", self.path) };
        for (at, element) in elements.iter().enumerate() {
            let is_labelled = element.as_object().is_some_and(|entries| {
                self.options.label_keys.iter().any(|key| entries.get(key).and_then(label_text).is_some())
            });
            let before = self.labels.len();
            if !is_labelled {
                self.label(key.clone(), at.to_string());
            }
            self.value(element);
            self.labels.truncate(before);
        }
    }

    fn object(&mut self, entries: &serde_json::Map<String, Value>) {
        let before = self.labels.len();
        for key in &self.options.label_keys {
            let Some(text) = entries.get(key).and_then(label_text) else { continue };
            // The same key further out means something else: the path keeps them apart.
            let name = if self.has_label(key) { format!("{}.{key}", self.path) } else { key.clone() };
            self.label(name, text);
        }
        for (key, value) in entries {
            if self.options.label_keys.contains(key) && label_text(value).is_some() {
                continue;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(key);
            self.value(value);
            self.path.truncate(length);
        }
        self.labels.truncate(before);
    }
}

impl Walk<'_> {
    fn has_label(&self, name: &str) -> bool {
        self.labels.iter().any(|(taken, _)| taken == name)
    }

    /// Adds a label; arrays directly inside arrays have the same path and are told apart by depth.
    fn label(&mut self, mut name: String, value: String) {
        while self.has_label(&name) {
            name.push_str(".inner");
        }
        self.labels.push((name, value));
    }
}

/// Whole numbers stay whole; numbers beyond 2^63 go on as doubles.
fn as_number(number: &serde_json::Number) -> Option<Number> {
    number.as_i64().map(Number::Int).or_else(|| number.as_f64().filter(|value| value.is_finite()).map(Number::Double))
}

fn label_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, label_keys: &[&str], numbers_in_strings: bool) -> Vec<String> {
        let options =
            JsonOptions { label_keys: label_keys.iter().map(|key| (*key).to_owned()).collect(), numbers_in_strings };
        let mut samples = Vec::new();
        parse(text.as_bytes(), &options, &mut samples).unwrap();
        samples
            .iter()
            .map(|sample| {
                let labels: Vec<String> = sample.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
                format!("{}{{{}}} {}", sample.path, labels.join(","), sample.value.as_f64().unwrap())
            })
            .collect()
    }

    #[test]
    fn numbers_at_any_depth_are_named_by_their_path() {
        let text = r#"{"up": true, "queue": {"depth": 7, "lag": {"p99": 1.5}}, "version": "1.2", "next": null}"#;
        assert_eq!(read(text, &[], false), ["queue.depth{} 7", "queue.lag.p99{} 1.5", "up{} 1"]);
    }

    #[test]
    fn elements_of_arrays_are_told_apart_by_label_keys_or_position() {
        let text = r#"{"disks": [{"name": "sda", "used": 1, "parts": [{"name": "sda1", "used": 2}]}, {"used": 3}]}"#;
        assert_eq!(
            read(text, &["name"], false),
            [
                "disks.parts.used{name=sda,disks.parts.name=sda1} 2",
                "disks.used{name=sda} 1",
                "disks.used{disks.index=1} 3"
            ]
        );
        assert_eq!(read("[1, [2]]", &[], false), ["{index=0} 1", "{index=1,index.inner=0} 2"]);
    }

    #[test]
    fn texts_count_as_numbers_only_when_asked() {
        let text = r#"{"a": "35 %", "b": "N/A", "c": "x"}"#;
        assert_eq!(read(text, &[], true), ["a{} 35"]);
        assert!(read(text, &[], false).is_empty());
    }

    #[test]
    fn documents_one_per_line_are_all_read_and_a_mistake_names_its_line() {
        let mut samples = Vec::new();
        let error = parse(b"{\"a\": 1}\n{\"a\": 2}\nnot json\n", &JsonOptions::default(), &mut samples).unwrap_err();
        assert_eq!(samples.len(), 2);
        assert_eq!(error.line, 3);
        assert!(error.problem.contains("expected JSON, found `not json`"), "{}", error.problem);
    }

    #[test]
    fn deep_nesting_is_refused_and_not_a_stack_overflow() {
        let text = "[".repeat(100_000);
        assert!(parse(text.as_bytes(), &JsonOptions::default(), &mut Vec::new()).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let options = JsonOptions { label_keys: vec!["a".into()], numbers_in_strings: true };
            let _ = parse(&bytes, &options, &mut Vec::new());
        }

        #[test]
        fn arbitrary_json_like_text_never_panics(text in "[\\[\\]{}\",:a-c0-9.e+\\- \n]{0,60}") {
            let options = JsonOptions { label_keys: vec!["a".into()], numbers_in_strings: true };
            let _ = parse(text.as_bytes(), &options, &mut Vec::new());
        }
    }
}
