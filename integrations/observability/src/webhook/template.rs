//! Templates of the text encoding: `{{time}} {{name}} {{value}}`.

use serde_json::Value;

use crate::readable::FIELDS;

/// A line with fields to fill in.
#[derive(Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Literal(String),
    /// A field of the object, and the key inside of it for attributes and resource attributes.
    Field(String, Option<String>),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// A field that no record has, or a `{{` without its `}}`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((literal, after)) = rest.split_once("{{") {
            let Some((name, after)) = after.split_once("}}") else {
                return Err("template: a `{{` has no `}}` behind it".into());
            };
            parts.push(Part::Literal(literal.to_owned()));
            parts.push(field(name.trim())?);
            rest = after;
        }
        parts.push(Part::Literal(rest.to_owned()));
        Ok(Self(parts))
    }

    /// Writes one record as a line. Fields that the record does not have leave nothing.
    pub(super) fn write(&self, record: &Value, out: &mut String) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Field(name, None) => write_value(record.get(name), out),
                Part::Field(name, Some(key)) => write_value(record.get(name).and_then(|inner| inner.get(key)), out),
            }
        }
        out.push('\n');
    }
}

fn field(name: &str) -> Result<Part, String> {
    let (top, key) = match name.split_once('.') {
        Some((top @ ("attributes" | "resource"), key)) => (top, Some(key.to_owned())),
        _ => (name, None),
    };
    if FIELDS.contains(&top) {
        return Ok(Part::Field(top.to_owned(), key));
    }
    let near = weir_config::nearest(top, FIELDS).map(|near| format!("; did you mean `{{{{{near}}}}}`?"));
    Err(format!(
        "template: no record has a field `{top}`{}; attributes are written as `{{{{attributes.http.route}}}}` and `{{{{resource.host.name}}}}`",
        near.unwrap_or_default()
    ))
}

fn write_value(value: Option<&Value>, out: &mut String) {
    match value {
        None | Some(Value::Null) => {}
        // A line per record: what would break it is written as in JSON.
        Some(Value::String(text)) => text.chars().for_each(|c| match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }),
        Some(other) => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, record: &Value) -> String {
        let mut out = String::new();
        Template::parse(template).unwrap().write(record, &mut out);
        out
    }

    #[test]
    fn fields_attributes_and_resource_are_filled_in_and_missing_ones_leave_nothing() {
        let record = serde_json::json!({"name": "cpu", "value": 0.5, "resource": {"host.name": "a"}, "attributes": {}});
        let line = filled("{{ resource.host.name }} {{name}}={{value}} [{{attributes.core}}{{unit}}]", &record);
        assert_eq!(line, "a cpu=0.5 []\n");
    }

    #[test]
    fn a_record_with_line_breaks_stays_on_one_line() {
        assert_eq!(filled("{{body}}", &serde_json::json!({"body": "a\r\nb"})), "a\\r\\nb\n");
    }

    #[test]
    fn unknown_and_unfinished_fields_are_refused_with_the_nearest_name() {
        let error = Template::parse("{{nmae}}").unwrap_err();
        assert!(error.contains("`nmae`") && error.contains("{{name}}"), "{error}");
        assert!(Template::parse("{{time").unwrap_err().contains("}}"));
    }
}
