//! Attributes as fields: resource attributes at the top, the rest in `labels` and `numeric_labels`.
//!
//! Source of the form: Elastic Common Schema, "Base fields" (`labels`), and Elastic APM's
//! `numeric_labels`, where dots in keys become `_`.

use std::borrow::Cow;

use weir_model::common::{Attribute, Attributes, Value};
use weir_model::{Common, Text};

use super::document::Fields;
use crate::readable::hexadecimal;

/// First parts of names that documents use themselves.
const OWN: [&str; 11] = [
    "@timestamp",
    "message",
    "metric",
    "labels",
    "numeric_labels",
    "event",
    "trace",
    "span",
    "parent",
    "error",
    "otel",
];

/// Attributes of records that have a name of their own in ECS.
const RENAMED: [(&str, &str); 3] = [
    ("exception.type", "error.type"),
    ("exception.message", "error.message"),
    ("exception.stacktrace", "error.stack_trace"),
];

/// A value of a label.
#[derive(Clone, Debug, PartialEq)]
enum Label<'a> {
    Text(Cow<'a, str>),
    Int(i64),
    Double(f64),
}

/// What all records of one scope share: the fields of their resource, ready to be copied, and
/// those attributes of it that are labels.
#[derive(Default)]
pub(super) struct Place {
    /// `"host.name":"a","os.type":"linux"`, without braces.
    pub(super) fields: Vec<u8>,
    labels: Vec<Attribute>,
}

impl Place {
    pub(super) fn new(common: &Common, scope: u32) -> Self {
        let scope = common.scopes.get(scope as usize).copied().unwrap_or_default();
        let resource = common.resources.get(scope.resource as usize).map_or(Attributes::EMPTY, |r| r.attributes);
        let (mut buffer, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::<Cow<'_, str>>::new());
        let mut fields = Fields::continuing(&mut buffer);
        for attribute in common.list(resource) {
            let key = common.text(attribute.key);
            let name = field_name(key);
            // A name within another one would be a value and an object at once.
            let clashes = |other: &Cow<'_, str>| within(other, &name) || within(&name, other);
            if !stands_at_the_top(&name, attribute.value) || names.iter().any(clashes) {
                labels.push(*attribute);
                continue;
            }
            if write_top(&mut fields, &name, common, attribute.value) {
                names.push(name);
            }
        }
        for (name, text) in [("otel.scope.name", scope.name), ("otel.scope.version", scope.version)] {
            fields.text_unless_empty(name, common.text(text));
        }
        Self { fields: buffer, labels }
    }
}

/// The field of a resource attribute.
fn field_name(key: &str) -> Cow<'_, str> {
    match key {
        "deployment.environment.name" | "deployment.environment" => Cow::Borrowed("service.environment"),
        _ => Cow::Borrowed(key),
    }
}

/// Whether `inner` is `outer` or one of its fields.
fn within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Names without a dot are tags of people, who may choose `service` or `host`: as fields they would
/// clash with `service.name`.
fn stands_at_the_top(name: &str, value: Value) -> bool {
    let mut parts = name.split('.');
    let first = parts.next().unwrap_or_default();
    let is_object = matches!(value, Value::KeyValues(_));
    let is_named = |part: &str| !part.trim().is_empty();
    name.contains('.')
        && !is_object
        && !first.starts_with('_')
        && is_named(first)
        && parts.all(is_named)
        && !OWN.contains(&first)
}

fn write_top(fields: &mut Fields<'_>, name: &str, common: &Common, value: Value) -> bool {
    match value {
        Value::Empty | Value::KeyValues(_) => return false,
        Value::String(text) => fields.text(name, common.text(text)),
        Value::Bool(value) => fields.raw(name, if value { "true" } else { "false" }),
        Value::Int(value) => fields.int(name, value),
        Value::Double(value) if value.is_finite() => fields.double(name, value),
        Value::Double(value) => fields.text(name, &value.to_string()),
        Value::Bytes(bytes) => fields.text(name, &hexadecimal(common.arena.bytes(bytes))),
        Value::Array(range) => {
            let elements: Vec<String> = common.elements(range).iter().map(|value| common.value_text(*value)).collect();
            fields.json(name, &elements);
        }
    }
    true
}

/// `http.route` to `http_route`; what cannot be a name of a field is `_`.
fn label_name(key: &str) -> Cow<'_, str> {
    if key.trim().is_empty() {
        return Cow::Borrowed("_");
    }
    if key.contains('.') { Cow::Owned(key.replace('.', "_")) } else { Cow::Borrowed(key) }
}

/// Writes the attributes of a record, and the labels of its resource that it does not have itself.
/// `exception.*` and `log.file.*` have fields of their own in ECS.
pub(super) fn write(fields: &mut Fields<'_>, common: &Common, own: Attributes, place: &Place) {
    let own = common.list(own);
    let key = |attribute: &Attribute| common.text(attribute.key);
    let inherited = place.labels.iter().filter(|label| !own.iter().any(|own| key(own) == key(label)));
    let mut labels = Vec::new();
    let mut named: Vec<&str> = Vec::new();
    for attribute in own.iter().chain(inherited) {
        let key = key(attribute);
        let renamed = RENAMED.iter().find(|(from, _)| *from == key).map(|(_, to)| *to);
        let field = renamed.or_else(|| matches!(key, "log.file.path" | "log.file.name").then_some(key));
        match (field, attribute.value) {
            (Some(field), Value::String(text)) if !named.contains(&field) => {
                named.push(field);
                fields.text(field, common.text(text));
            }
            _ => push_labels(&mut labels, label_name(key), common, attribute.value),
        }
    }
    // Stable: values that share a name stay in their order.
    labels.sort_by(|a, b| a.0.cmp(&b.0));
    let (numbers, texts): (Vec<_>, Vec<_>) =
        labels.into_iter().partition(|(_, label)| !matches!(label, Label::Text(_)));
    write_group(fields, "labels", &texts);
    write_group(fields, "numeric_labels", &numbers);
}

fn push_labels<'a>(labels: &mut Vec<(Cow<'a, str>, Label<'a>)>, name: Cow<'a, str>, common: &'a Common, value: Value) {
    let label = match value {
        Value::Empty => return,
        Value::String(text) => Label::Text(Cow::Borrowed(common.text(text))),
        Value::Int(value) => Label::Int(value),
        Value::Double(value) if value.is_finite() => Label::Double(value),
        Value::Array(range) => {
            let texts = common.elements(range).iter().map(|element| common.value_text(*element));
            labels.extend(texts.map(|text| (name.clone(), Label::Text(Cow::Owned(text)))));
            return;
        }
        other => Label::Text(Cow::Owned(common.value_text(other))),
    };
    labels.push((name, label));
}

/// Labels in the order of their names; several of one name as a list, since an object cannot have
/// a name twice.
fn write_group(fields: &mut Fields<'_>, group: &str, labels: &[(Cow<'_, str>, Label<'_>)]) {
    if labels.is_empty() {
        return;
    }
    fields.object(group, |fields| {
        for same in labels.chunk_by(|a, b| a.0 == b.0) {
            match same {
                [(name, Label::Text(text))] => fields.text(name, text),
                [(name, Label::Int(value))] => fields.int(name, *value),
                [(name, Label::Double(value))] => fields.double(name, *value),
                [(name, _), ..] => {
                    fields.list(name, same.iter().map(|(_, label)| label), |fields, label| match label {
                        Label::Text(text) => fields.element_text(text),
                        Label::Int(value) => fields.element_int(*value),
                        Label::Double(value) => fields.element_double(*value),
                    })
                }
                [] => {}
            }
        }
    });
}

/// Lowercase hexadecimal of an id, if there is one.
pub(super) fn id(fields: &mut Fields<'_>, name: &str, common: &Common, id: Text) {
    let bytes = common.arena.bytes(id);
    if !bytes.is_empty() {
        fields.text(name, &hexadecimal(bytes));
    }
}
