//! The reference pages of the integrations, made from the same lists that run them.

use std::fmt::Write;

use schemars::SchemaGenerator;
use serde_json::Value as Json;
use weir_pipeline::{Kind, Role};

/// The page of one integration, as Markdown.
pub fn page(kind: &Kind) -> String {
    let about = &kind.about;
    let mut out = String::new();
    let signals: Vec<&str> = about.signals.iter().map(|signal| signal.name()).collect();
    let default = if kind.on_by_default { ", on by default" } else { "" };
    // Writing into a String cannot fail.
    let _ = writeln!(out, "# {}\n\n{}.\n", about.name, about.summary);
    let _ = writeln!(out, "Role: {}{default}. Signals: {}.\n", kind.role.name(), signals.join(", "));
    let _ = writeln!(out, "{}\n", about.details.trim());
    let indented: String = about.sample.trim_end().lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{}", format!("  {line}").trim_end());
        text
    });
    let _ = writeln!(out, "## Example\n\n```yaml\nintegrations:\n{indented}```\n");
    let _ = writeln!(out, "## Options\n\n| option | type | default | meaning |\n|---|---|---|---|");
    options(&mut out, kind);
    if !about.metrics.is_empty() {
        let _ = writeln!(out, "\n## Metrics\n\n| metric | kind | unit | meaning |\n|---|---|---|---|");
        for metric in about.metrics {
            let _ = writeln!(
                out,
                "| `{}` | {} | `{}` | {} |",
                metric.name,
                metric.kind.name(),
                metric.unit,
                cell(metric.help)
            );
        }
    }
    out.push_str("\n<!-- made by `make docs`; change the source of the integration instead -->\n");
    out
}

/// The list of all integrations, as Markdown.
pub fn index(kinds: &[Kind]) -> String {
    let mut out = String::from("# Integrations\n");
    for (role, title) in [
        (Role::Collect, "Collect: go and fetch"),
        (Role::Receive, "Receive: listen"),
        (Role::Export, "Export: send on"),
    ] {
        let _ = writeln!(out, "\n## {title}\n\n| integration | what it does | signals |\n|---|---|---|");
        for kind in kinds.iter().filter(|kind| kind.role == role) {
            let signals: Vec<&str> = kind.about.signals.iter().map(|signal| signal.name()).collect();
            let name = kind.name();
            let _ = writeln!(out, "| [{name}]({name}.md) | {} | {} |", kind.about.summary, signals.join(", "));
        }
    }
    out.push_str("\n<!-- made by `make docs` -->\n");
    out
}

fn options(out: &mut String, kind: &Kind) {
    let mut generator = SchemaGenerator::default();
    let schema = kind.schema(&mut generator).to_value();
    let definitions = Json::Object(generator.take_definitions(true));
    let required: Vec<&str> =
        schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect();
    properties(out, &schema, &definitions, "", &required, 0);
}

/// Rows for the properties of an object; nested objects and lists of objects follow with their path.
fn properties(out: &mut String, schema: &Json, definitions: &Json, prefix: &str, required: &[&str], depth: usize) {
    let Some(properties_of) = schema.get("properties").and_then(Json::as_object) else { return };
    for (name, property) in properties_of {
        let target = resolve(property, definitions);
        let path = format!("{prefix}{name}");
        let default = match property.get("default") {
            Some(Json::String(text)) if !text.is_empty() => format!("`{text}`"),
            Some(Json::Null) | None if required.contains(&name.as_str()) => "required".to_owned(),
            Some(value) if !value.is_null() && *value != Json::String(String::new()) && !is_empty(value) => {
                format!("`{value}`")
            }
            _ => String::new(),
        };
        let text = property
            .get("description")
            .or_else(|| target.get("description"))
            .and_then(Json::as_str)
            .unwrap_or_default();
        let _ = writeln!(out, "| `{path}` | {} | {default} | {} |", type_of(target, definitions), cell(text));
        if depth < 2 {
            properties(out, target, definitions, &format!("{path}."), &[], depth + 1);
            if let Some(items) = target.get("items") {
                properties(out, resolve(items, definitions), definitions, &format!("{path}[]."), &[], depth + 1);
            }
        }
    }
}

fn is_empty(value: &Json) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Follows a reference, and looks through "or null".
fn resolve<'a>(schema: &'a Json, definitions: &'a Json) -> &'a Json {
    if let Some(name) = schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.rsplit('/').next()) {
        return definitions.get(name).map_or(schema, |target| resolve(target, definitions));
    }
    let choices = schema.get("anyOf").and_then(Json::as_array);
    // Of a short and a long form, the long one has options to be explained.
    let real = choices.and_then(|choices| {
        let resolved = || choices.iter().map(|choice| resolve(choice, definitions));
        let has = |name: &'static str| move |choice: &&Json| choice.get(name).is_some();
        resolved()
            .find(has("items"))
            .or_else(|| resolved().find(has("properties")))
            .or_else(|| resolved().find(|choice| choice.get("type").and_then(Json::as_str) != Some("null")))
    });
    real.unwrap_or(schema)
}

fn type_of(schema: &Json, definitions: &Json) -> String {
    if let Some(format) = schema.get("format").and_then(Json::as_str)
        && !matches!(
            format,
            "uint" | "uint8" | "uint16" | "uint32" | "uint64" | "int" | "int32" | "int64" | "double" | "float"
        )
    {
        return format.replace('-', " ");
    }
    let names = |list: &[Json]| {
        list.iter()
            .filter_map(|v| v.as_str().or_else(|| v.get("const").and_then(Json::as_str)))
            .map(|v| format!("`{v}`"))
            .collect::<Vec<_>>()
    };
    if let Some(values) = schema.get("enum").or_else(|| schema.get("oneOf")).and_then(Json::as_array) {
        let names = names(values);
        if !names.is_empty() {
            return names.join(", ");
        }
    }
    let kind = match schema.get("type") {
        Some(Json::String(kind)) => kind.as_str(),
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).find(|kind| *kind != "null").unwrap_or("any"),
        _ => return "any".to_owned(),
    };
    match (kind, schema.get("items")) {
        ("array", Some(items)) => format!("list of {}", type_of(resolve(items, definitions), definitions)),
        ("object", _) => "mapping".to_owned(),
        (kind, _) => kind.to_owned(),
    }
}

fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
