//! Reading a JSON Schema as `schemars` writes it: `$ref`, alternatives, types, names and bounds.

use serde_json::{Map, Value as Json};

use crate::node::{Node, Value};

/// `$ref`s and alternatives inside each other that are followed, at most.
const NESTING_LIMIT: usize = 16;

/// A JSON Schema object.
pub(crate) type Schema = Map<String, Json>;

/// The schemas of which a value must match one, with `$ref`s followed.
pub(crate) fn alternatives<'a>(schema: &'a Json, root: &'a Json, nesting: usize) -> Vec<&'a Schema> {
    let Json::Object(object) = schema else {
        return Vec::new();
    };
    if nesting > NESTING_LIMIT {
        return Vec::new();
    }
    if let Some(Json::String(reference)) = object.get("$ref") {
        let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
        return target.map_or_else(Vec::new, |target| alternatives(target, root, nesting + 1));
    }
    if object.contains_key("properties") {
        return vec![object];
    }
    let choices = ["anyOf", "oneOf", "allOf"].iter().find_map(|word| object.get(*word).and_then(Json::as_array));
    match choices {
        Some(choices) => choices.iter().flat_map(|choice| alternatives(choice, root, nesting + 1)).collect(),
        None => vec![object],
    }
}

/// The keys of a mapping.
pub(crate) fn property_names_of(schema: &Schema) -> impl Iterator<Item = &str> {
    let properties = schema.get("properties").and_then(Json::as_object);
    properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str))
}

/// The key with a fixed text in each of the schemas.
pub(crate) fn common_tag<'a>(schemas: &[&'a Schema]) -> Option<&'a str> {
    let (first, rest) = schemas.split_first()?;
    property_names_of(first)
        .find(|name| tag_name(first, name).is_some() && rest.iter().all(|schema| tag_name(schema, name).is_some()))
}

/// The fixed text of the key `tag`.
pub(crate) fn tag_name<'a>(schema: &'a Schema, tag: &str) -> Option<&'a str> {
    schema.get("properties")?.get(tag)?.get("const")?.as_str()
}

/// Whether the schema allows the type of the value.
pub(crate) fn takes(schema: &Schema, node: &Node) -> bool {
    let types = types_of(schema);
    let allows = |kind: &str| types.contains(&kind);
    types.is_empty()
        || match &node.value {
            Value::Null => allows("object") || allows("array") || (allows("string") && node.text().is_some()),
            Value::Bool(_) => allows("boolean") || (allows("string") && node.text().is_some()),
            Value::Int(_) | Value::UInt(_) | Value::Float(_) => {
                takes_number(schema, node) || (allows("string") && node.text().is_some())
            }
            Value::String(_) => allows("string"),
            Value::Sequence(_) => allows("array"),
            Value::Mapping(_) => allows("object"),
        }
}

/// Whether the schema takes the value as a number.
pub(crate) fn takes_number(schema: &Schema, node: &Node) -> bool {
    let types = types_of(schema);
    let is_whole = matches!(node.value, Value::Int(_) | Value::UInt(_));
    types.is_empty() || types.contains(&"number") || (is_whole && types.contains(&"integer"))
}

/// Whether a number lies within the bounds of the schema.
pub(crate) fn in_range(schema: &Schema, node: &Node) -> bool {
    let value = match &node.value {
        Value::Int(value) => serde_json::Number::from(*value),
        Value::UInt(value) => serde_json::Number::from(*value),
        Value::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(value) => value,
            None => return true,
        },
        _ => return true,
    };
    let not_below = |a: &serde_json::Number, b: &serde_json::Number| match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a >= b,
        _ => a.as_f64() >= b.as_f64(),
    };
    bound(schema, "minimum").is_none_or(|least| not_below(&value, &least))
        && bound(schema, "maximum").is_none_or(|most| not_below(&most, &value))
}

/// A bound of a number as it is written in the schema, or as the size of the integer type sets it.
pub(crate) fn bound(schema: &Schema, which: &str) -> Option<serde_json::Number> {
    if let Some(Json::Number(number)) = schema.get(which) {
        return Some(number.clone());
    }
    let (least, most) = match format_of(schema)? {
        "int32" => (i64::from(i32::MIN), i64::from(i32::MAX)),
        "uint32" => (0, i64::from(u32::MAX)),
        _ => return None,
    };
    Some(if which == "minimum" { least } else { most }.into())
}

/// A limit of a length, such as `minItems`.
pub(crate) fn limit(schema: &Schema, which: &str) -> Option<u64> {
    schema.get(which).and_then(Json::as_u64)
}

/// The format of a text, for example `duration`.
pub(crate) fn format_of(schema: &Schema) -> Option<&str> {
    schema.get("format").and_then(Json::as_str)
}

/// The types that a schema allows, `null` among them.
pub(crate) fn types_of(schema: &Schema) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(kind)) => vec![kind],
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).collect(),
        _ if schema.contains_key("properties") => vec!["object"],
        _ => Vec::new(),
    }
}

/// Whether the schema is a fixed list of texts, such as the names of an enum.
pub(crate) fn is_name(schema: &Schema) -> bool {
    schema.get("const").is_some_and(Json::is_string)
        || matches!(schema.get("enum"), Some(Json::Array(values)) if values.iter().any(Json::is_string))
}

/// The fixed texts that the alternatives allow.
pub(crate) fn names_of<'a>(alternatives: &[&'a Schema]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for schema in alternatives {
        names.extend(schema.get("const").and_then(Json::as_str));
        if let Some(Json::Array(values)) = schema.get("enum") {
            names.extend(values.iter().filter_map(Json::as_str));
        }
    }
    names
}
