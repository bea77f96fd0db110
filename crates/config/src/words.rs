//! What a schema expects and what a file holds, in words.

use crate::node::{Node, Value};
use crate::schema::{Schema, bound, format_of, is_name, limit, names_of, types_of};

/// Characters of a found text that an error shows, at most.
const SHOWN_CHARACTERS: usize = 40;

/// What any of the alternatives expects: "a duration such as `30s`".
pub(crate) fn expected(alternatives: &[&Schema]) -> String {
    let names = names_of(alternatives);
    let mut words: Vec<String> = Vec::new();
    if !names.is_empty() {
        words.push(format!("one of {}", quoted(names.iter().copied())));
    }
    for alternative in alternatives.iter().filter(|schema| !is_name(schema)) {
        for word in expected_of(alternative) {
            if !words.contains(&word) {
                words.push(word);
            }
        }
    }
    if words.is_empty() {
        return "nothing".to_owned();
    }
    words.join(", or ")
}

fn expected_of(schema: &Schema) -> Vec<String> {
    if let Some(words) = format_of(schema).and_then(format_words) {
        return vec![words.to_owned()];
    }
    types_of(schema).into_iter().filter(|kind| *kind != "null").map(|kind| type_words(kind, schema)).collect()
}

fn format_words(format: &str) -> Option<&'static str> {
    Some(match format {
        "duration" => "a duration such as `30s`",
        "byte-size" => "a size such as `64MiB`",
        "secret" | "text" => "text",
        "uri" => "a URL such as `https://example.com:4318`",
        "socket-address" => "an address such as `127.0.0.1:4317`",
        "ip" | "ipv4" | "ipv6" => "an IP address such as `192.0.2.1`",
        _ => return None,
    })
}

fn type_words(kind: &str, schema: &Schema) -> String {
    match kind {
        "string" if limit(schema, "minLength").is_some_and(|length| length > 0) => "text that is not empty".to_owned(),
        "string" => "text".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "integer" => format!("a whole number{}", range_words(schema)),
        "number" => format!("a number{}", range_words(schema)),
        "array" => match limit(schema, "minItems") {
            Some(1) => "a list of at least one item".to_owned(),
            Some(items) if items > 1 => format!("a list of at least {items} items"),
            _ => "a list".to_owned(),
        },
        "object" => "a mapping (`key: value` lines)".to_owned(),
        other => other.to_owned(),
    }
}

fn range_words(schema: &Schema) -> String {
    match (bound(schema, "minimum"), bound(schema, "maximum")) {
        (Some(least), Some(most)) => format!(" from {least} to {most}"),
        (Some(least), None) => format!(", {least} or more"),
        (None, Some(most)) => format!(", {most} or less"),
        (None, None) => String::new(),
    }
}

/// What the file holds. Nothing of the content where it may be a secret.
pub(crate) fn found(node: &Node, is_secret: bool) -> String {
    let kind = match &node.value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Int(_) | Value::UInt(_) => "an integer",
        Value::Float(_) => "a number",
        Value::String(text) if text.is_empty() => "an empty text",
        Value::String(_) => "text",
        Value::Sequence(items) if items.is_empty() => "an empty list",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
    };
    if node.from_variable() {
        let kind = if node.is_empty_text() { "empty" } else { kind };
        return format!("the value of {}, which is {kind}", variables(node));
    }
    if is_secret {
        return kind.to_owned();
    }
    let written = node.written.as_deref().unwrap_or_default();
    match &node.value {
        Value::Bool(value) => format!("`{value}`"),
        Value::Int(_) | Value::UInt(_) => format!("the integer {written}"),
        Value::Float(_) => format!("the number {written}"),
        Value::String(text) if !text.is_empty() => format!("the text `{}`", shown(text)),
        _ => kind.to_owned(),
    }
}

/// The references that made a value: "${HOST} and ${PORT}".
pub(crate) fn variables(node: &Node) -> String {
    node.variables.join(" and ")
}

/// The start of a text from the file, on one line.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN_CHARACTERS).is_some() {
        shown.push_str("...");
    }
    shown
}

/// What to do about a value of the wrong type, where the mistake is a known one.
pub(crate) fn wrong_type_help(alternatives: &[&Schema], node: &Node, is_secret: bool) -> Option<String> {
    let takes_text = || {
        let mut schemas = alternatives.iter().filter(|schema| types_of(schema).contains(&"string"));
        schemas.any(|schema| matches!(format_of(schema), None | Some("secret")))
    };
    let takes = |kind: &str| alternatives.iter().any(|schema| types_of(schema).contains(&kind));
    let is_format = |format: &str| alternatives.iter().any(|schema| format_of(schema) == Some(format));
    let written = node.written.as_deref().unwrap_or_default();
    let hidden = is_secret || node.from_variable();
    if node.from_variable() && node.is_empty_text() {
        return Some(format!("set {} to a value", variables(node)));
    }
    match &node.value {
        Value::Null => Some("write a value after the `:`, or remove the line".to_owned()),
        Value::Int(_) | Value::UInt(_) if is_format("duration") && !hidden => {
            Some(format!("add a unit: `{written}s` for seconds, `{written}ms` for milliseconds"))
        }
        Value::Int(_) | Value::UInt(_) | Value::Float(_) | Value::Bool(_) if takes_text() => {
            Some(if hidden { "put it in quotes".to_owned() } else { format!("put it in quotes: `\"{written}\"`") })
        }
        Value::String(text) if takes("boolean") => boolean_help(node, text),
        Value::String(_) if takes("integer") || takes("number") => number_help(node),
        Value::Sequence(_) | Value::Mapping(_) => None,
        _ if takes("object") => {
            Some("write it as `key: value` lines, with a `:` and a space after each key".to_owned())
        }
        _ if takes("array") && hidden => Some("write it as a list of one item".to_owned()),
        _ if takes("array") => {
            let text = node.as_str().unwrap_or(written);
            Some(format!("write it as a list: `[{}]`", shown(text)))
        }
        _ => None,
    }
}

fn boolean_help(node: &Node, text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    if node.from_variable() {
        let is_boolean = matches!(lower.as_str(), "true" | "false");
        return Some(variable_help(node, is_boolean, "`true` or `false`"));
    }
    match lower.as_str() {
        "true" | "false" => Some(format!("remove the quotes: `{lower}`")),
        "yes" | "on" => Some("write `true`".to_owned()),
        "no" | "off" => Some("write `false`".to_owned()),
        _ => None,
    }
}

fn number_help(node: &Node) -> Option<String> {
    let is_number = node.as_str()?.parse::<f64>().is_ok();
    if node.from_variable() {
        return Some(variable_help(node, is_number, "a number"));
    }
    is_number.then(|| "remove the quotes".to_owned())
}

/// What to do about a variable that should hold something else than text.
fn variable_help(node: &Node, is_right: bool, wanted: &str) -> String {
    let variables = variables(node);
    match (is_right, node.plain) {
        (true, _) => format!("remove the quotes around {variables}"),
        (false, true) => format!("set {variables} to {wanted}"),
        (false, false) => format!("set {variables} to {wanted}, and remove the quotes around it"),
    }
}

/// Names in backticks, with commas.
pub(crate) fn quoted<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
