//! Encoding OTLP/JSON: what all signals share. Members with their default value are left out, as
//! the protobuf mapping does.

use super::encode_common::{RESOURCE_DEPTH, SCOPE_DEPTH};
use super::error::DecodeError;
use super::json_decode_common::Keys;
use super::json_writer::JsonWriter;
use super::reader::{MAX_NESTING, Reader, WireType};
use crate::common::{Attribute, Attributes, Common, Resource, Scope, Value};

/// A member with a list of `KeyValue`, left out if there are none. `depth` is that of the message
/// around it, counted as in [`super::encode_common`].
pub(crate) fn attributes(out: &mut JsonWriter, common: &Common, key: &'static str, list: Attributes, depth: u32) {
    if !list.is_empty() {
        out.array(key);
        common.list(list).iter().for_each(|attribute| key_value(out, common, attribute, depth + 1));
        out.close(b']');
    }
}

fn key_value(out: &mut JsonWriter, common: &Common, attribute: &Attribute, depth: u32) {
    out.open(b'{');
    // Always there: many readers want it.
    out.key("key");
    out.string(common.text(attribute.key));
    if !matches!(attribute.value, Value::Empty) && depth < MAX_NESTING {
        out.key("value");
        any_value(out, common, attribute.value, depth + 1);
    }
    out.close(b'}');
}

/// An `AnyValue`, which stands at `depth`.
pub(crate) fn any_value(out: &mut JsonWriter, common: &Common, value: Value, depth: u32) {
    out.open(b'{');
    match value {
        Value::Empty => {}
        Value::String(text) => {
            out.key("stringValue");
            out.string(common.text(text));
        }
        Value::Bool(value) => out.bool("boolValue", value),
        Value::Int(value) => out.signed_long("intValue", value),
        Value::Double(value) => out.present_double("doubleValue", value),
        Value::Bytes(bytes) => out.base64("bytesValue", common.arena.bytes(bytes)),
        Value::Array(_) | Value::KeyValues(_) if depth + 1 > MAX_NESTING => {}
        Value::Array(range) => {
            out.object("arrayValue");
            out.array("values");
            if depth + 2 <= MAX_NESTING {
                common.elements(range).iter().for_each(|element| any_value(out, common, *element, depth + 2));
            }
            out.close(b']');
            out.close(b'}');
        }
        Value::KeyValues(range) => {
            out.object("kvlistValue");
            out.array("values");
            if depth + 2 <= MAX_NESTING {
                common.list(range).iter().for_each(|attribute| key_value(out, common, attribute, depth + 2));
            }
            out.close(b']');
            out.close(b'}');
        }
    }
    out.close(b'}');
}

fn resource(out: &mut JsonWriter, common: &Common, resource: &Resource) {
    let unknown = common.arena.bytes(resource.unknown);
    if resource.attributes.is_empty() && resource.dropped_attributes_count == 0 && unknown.is_empty() {
        return;
    }
    out.object("resource");
    attributes(out, common, "attributes", resource.attributes, RESOURCE_DEPTH);
    out.number("droppedAttributesCount", resource.dropped_attributes_count.into());
    if !unknown.is_empty() {
        out.array("entityRefs");
        // These bytes were checked when they were accepted.
        let _ = entity_refs(out, Reader::new(unknown));
        out.close(b']');
    }
    out.close(b'}');
}

/// Entity references from their protobuf form; other unknown fields have no form in JSON.
fn entity_refs(out: &mut JsonWriter, mut reader: Reader<'_>) -> Result<(), DecodeError> {
    while !reader.is_done() {
        match reader.key()? {
            (3, WireType::Length) => {
                let range = reader.length()?;
                entity_ref(out, reader.within(range))?;
            }
            (number, wire_type) => reader.skip(number, wire_type, 0)?,
        }
    }
    Ok(())
}

fn entity_ref(out: &mut JsonWriter, mut reader: Reader<'_>) -> Result<(), DecodeError> {
    let (mut schema_url, mut kind) = ("", "");
    let (mut id_keys, mut description_keys) = (Vec::new(), Vec::new());
    while !reader.is_done() {
        let (number, wire_type) = reader.key()?;
        if wire_type != WireType::Length {
            reader.skip(number, wire_type, 0)?;
            continue;
        }
        let range = reader.length()?;
        let text = std::str::from_utf8(reader.slice(range)).unwrap_or_default();
        match number {
            1 => schema_url = text,
            2 => kind = text,
            3 => id_keys.push(text),
            4 => description_keys.push(text),
            _ => {}
        }
    }
    // All members, even if empty: opentelemetry-proto's reader for Rust insists on them here.
    out.open(b'{');
    out.key("schemaUrl");
    out.string(schema_url);
    out.key("type");
    out.string(kind);
    for (key, texts) in [("idKeys", id_keys), ("descriptionKeys", description_keys)] {
        out.array(key);
        texts.into_iter().for_each(|text| out.string(text));
        out.close(b']');
    }
    out.close(b'}');
    Ok(())
}

fn scope(out: &mut JsonWriter, common: &Common, scope: &Scope) {
    let has_content = !scope.name.is_empty()
        || !scope.version.is_empty()
        || !scope.attributes.is_empty()
        || scope.dropped_attributes_count != 0;
    if !scope.present && !has_content {
        return;
    }
    out.object("scope");
    out.text("name", common.text(scope.name));
    out.text("version", common.text(scope.version));
    attributes(out, common, "attributes", scope.attributes, SCOPE_DEPTH);
    out.number("droppedAttributesCount", scope.dropped_attributes_count.into());
    out.close(b'}');
}

/// The two outer levels around items that are written first to last. Neighbours with the same scope
/// share an object.
pub(crate) struct JsonContainers<'a> {
    common: &'a Common,
    keys: &'static Keys,
    open: Option<(u32, u32)>,
}

impl<'a> JsonContainers<'a> {
    /// Begins a request.
    pub(crate) fn new(out: &mut JsonWriter, common: &'a Common, keys: &'static Keys) -> Self {
        out.open(b'{');
        out.array(keys.resources);
        Self { common, keys, open: None }
    }

    /// Says that the item written next belongs to this scope; see `Containers::enter` of protobuf.
    pub(crate) fn enter(&mut self, out: &mut JsonWriter, scope_index: u32) {
        if self.open.is_some_and(|(scope, _)| scope == scope_index) {
            return;
        }
        let this = self.common.scopes.get(scope_index as usize);
        let resource_index = this.map_or(u32::MAX, |scope| scope.resource);
        if self.open.is_some() {
            out.close(b']');
            out.close(b'}');
        }
        if self.open.is_none_or(|(_, resource)| resource != resource_index) {
            self.close_resource(out);
            out.open(b'{');
            if let Some(this) = self.common.resources.get(resource_index as usize) {
                resource(out, self.common, this);
                out.text("schemaUrl", self.common.text(this.schema_url));
            }
            out.array(self.keys.scopes);
        }
        out.open(b'{');
        if let Some(this) = this {
            scope(out, self.common, this);
            out.text("schemaUrl", self.common.text(this.schema_url));
        }
        out.array(self.keys.items);
        self.open = Some((scope_index, resource_index));
    }

    fn close_resource(&self, out: &mut JsonWriter) {
        if self.open.is_some() {
            out.close(b']');
            out.close(b'}');
        }
    }

    /// Closes what is open: the request is complete.
    pub(crate) fn finish(self, out: &mut JsonWriter) {
        if self.open.is_some() {
            out.close(b']');
            out.close(b'}');
        }
        self.close_resource(out);
        out.close(b']');
        out.close(b'}');
    }
}
