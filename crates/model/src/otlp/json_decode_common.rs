//! Decoding OTLP/JSON: what all signals share.
//!
//! Rules: opentelemetry-proto 1.9, `docs/specification.md`, "JSON Protobuf Encoding". Keys are
//! lowerCamelCase, unknown keys are ignored, ids are hexadecimal, other bytes base64.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

use super::error::{DecodeError, Fault};
use super::json_reader::{JsonReader, path_at};
use super::writer::Writer;
use crate::arena::{Arena, Text};
use crate::common::{Attribute, Attributes, Common, Resource, Scope, Value, index};

/// Decodes into one [`Common`]. Text without escapes becomes a range of the received buffer.
pub(crate) struct JsonDecoder<'a> {
    pub(crate) json: JsonReader<'a>,
    pub(crate) common: Common,
    // Elements of lists that are still open; a list moves to the batch in one piece when it ends.
    open_attributes: Vec<Attribute>,
    open_values: Vec<Value>,
}

/// Reads a whole request with `read`; errors get their path.
pub(crate) fn decode_with<T>(
    bytes: &Bytes,
    read: impl FnOnce(&mut JsonDecoder<'_>) -> Result<T, DecodeError>,
) -> Result<(Common, T), DecodeError> {
    let arena = Arena::over(bytes.clone()).map_err(|_| DecodeError::new(Fault::TooLarge))?;
    let text = std::str::from_utf8(bytes).map_err(|error| DecodeError::at(error.valid_up_to(), Fault::Utf8))?;
    let mut decoder = JsonDecoder {
        json: JsonReader::new(text),
        common: Common { arena, ..Common::default() },
        open_attributes: Vec::new(),
        open_values: Vec::new(),
    };
    let result = read(&mut decoder).and_then(|records| decoder.json.end().map(|()| records));
    match result {
        Ok(records) => Ok((decoder.common, records)),
        Err(error) => {
            let path = error.offset().map(|offset| path_at(text, offset)).unwrap_or_default();
            Err(error.located(path))
        }
    }
}

impl<'a> JsonDecoder<'a> {
    /// A text field.
    pub(crate) fn text(&mut self) -> Result<Text, DecodeError> {
        match self.json.string()? {
            Cow::Borrowed(text) => {
                let end = self.json.at() - 1;
                Ok(self.common.arena.slice(end - text.len(), end))
            }
            Cow::Owned(text) => Ok(self.common.arena.add(text.as_bytes())),
        }
    }

    /// A trace or span id: hexadecimal digits, upper or lower case.
    pub(crate) fn id(&mut self) -> Result<Text, DecodeError> {
        let (at, written) = self.string_at()?;
        let (pairs, odd) = written.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
        match bytes {
            Some(bytes) if odd.is_empty() => Ok(self.common.arena.add(&bytes)),
            _ => Err(bad_text(at, "pairs of hexadecimal digits", &written)),
        }
    }

    fn base64(&mut self) -> Result<Text, DecodeError> {
        let (at, written) = self.string_at()?;
        // The protobuf mapping wants both alphabets accepted, with and without padding.
        let alphabet = if written.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        match GeneralPurpose::new(alphabet, config).decode(written.as_bytes()) {
            Ok(bytes) => Ok(self.common.arena.add(&bytes)),
            Err(_) => Err(bad_text(at, "base64", &written)),
        }
    }

    fn string_at(&mut self) -> Result<(usize, Cow<'a, str>), DecodeError> {
        self.json.peek();
        let at = self.json.at();
        Ok((at, self.json.string()?))
    }

    /// A list of `KeyValue`.
    pub(crate) fn attributes(&mut self) -> Result<Attributes, DecodeError> {
        let first = self.open_attributes.len();
        let mut array = self.json.array()?;
        while self.json.element(&mut array)? {
            let mut attribute = Attribute { key: Text::EMPTY, value: Value::Empty };
            let mut object = self.json.object()?;
            while let Some(key) = self.json.key(&mut object)? {
                match &*key {
                    "key" => attribute.key = self.text()?,
                    "value" => attribute.value = self.value()?,
                    _ => self.json.skip()?,
                }
            }
            self.open_attributes.push(attribute);
        }
        let start = self.common.attributes.len();
        self.common.attributes.extend(self.open_attributes.drain(first..));
        Ok(self.common.attributes_since(start))
    }

    /// An `AnyValue`. The nesting of objects limits the recursion.
    pub(crate) fn value(&mut self) -> Result<Value, DecodeError> {
        let mut value = Value::Empty;
        let mut object = self.json.object()?;
        while let Some(key) = self.json.key(&mut object)? {
            match &*key {
                "stringValue" => value = Value::String(self.text()?),
                "boolValue" => value = Value::Bool(self.json.bool()?),
                "intValue" => value = Value::Int(self.json.i64()?),
                "doubleValue" => value = Value::Double(self.json.double()?),
                "bytesValue" => value = Value::Bytes(self.base64()?),
                "arrayValue" => value = self.array_value()?,
                "kvlistValue" => value = self.key_value_list()?,
                _ => self.json.skip()?,
            }
        }
        Ok(value)
    }

    fn array_value(&mut self) -> Result<Value, DecodeError> {
        let first = self.open_values.len();
        let mut object = self.json.object()?;
        while let Some(key) = self.json.key(&mut object)? {
            if key != "values" {
                self.json.skip()?;
                continue;
            }
            let mut array = self.json.array()?;
            while self.json.element(&mut array)? {
                let element = self.value()?;
                self.open_values.push(element);
            }
        }
        let start = self.common.values.len();
        self.common.values.extend(self.open_values.drain(first..));
        Ok(Value::Array(self.common.values_since(start)))
    }

    fn key_value_list(&mut self) -> Result<Value, DecodeError> {
        let mut list = Attributes::EMPTY;
        let mut object = self.json.object()?;
        while let Some(key) = self.json.key(&mut object)? {
            match &*key {
                "values" => list = self.attributes()?,
                _ => self.json.skip()?,
            }
        }
        Ok(Value::KeyValues(list))
    }

    fn resource(&mut self) -> Result<Resource, DecodeError> {
        let mut resource = Resource::default();
        let mut object = self.json.object()?;
        while let Some(key) = self.json.key(&mut object)? {
            match &*key {
                "attributes" => resource.attributes = self.attributes()?,
                "droppedAttributesCount" => resource.dropped_attributes_count = self.json.u32()?,
                "entityRefs" => resource.unknown = self.entity_refs()?,
                _ => self.json.skip()?,
            }
        }
        Ok(resource)
    }

    /// `entityRefs`, kept in the form in which [`Resource::unknown`] keeps them: protobuf.
    fn entity_refs(&mut self) -> Result<Text, DecodeError> {
        let mut bytes = Vec::new();
        let mut array = self.json.array()?;
        while self.json.element(&mut array)? {
            let (mut schema_url, mut kind) = (String::new(), String::new());
            let (mut id_keys, mut description_keys) = (Vec::new(), Vec::new());
            let mut object = self.json.object()?;
            while let Some(key) = self.json.key(&mut object)? {
                match &*key {
                    "schemaUrl" => schema_url = self.json.string()?.into_owned(),
                    "type" => kind = self.json.string()?.into_owned(),
                    "idKeys" => id_keys = self.strings()?,
                    "descriptionKeys" => description_keys = self.strings()?,
                    _ => self.json.skip()?,
                }
            }
            let mut out = Writer::with_capacity(256);
            let end = out.begin();
            description_keys.iter().rev().for_each(|key| out.bytes(4, key.as_bytes()));
            id_keys.iter().rev().for_each(|key| out.bytes(3, key.as_bytes()));
            out.bytes_unless_empty(2, kind.as_bytes());
            out.bytes_unless_empty(1, schema_url.as_bytes());
            out.message(3, end);
            bytes.extend_from_slice(&out.finish());
        }
        Ok(self.common.arena.add(&bytes))
    }

    fn strings(&mut self) -> Result<Vec<String>, DecodeError> {
        let mut out = Vec::new();
        let mut array = self.json.array()?;
        while self.json.element(&mut array)? {
            out.push(self.json.string()?.into_owned());
        }
        Ok(out)
    }

    fn scope(&mut self) -> Result<Scope, DecodeError> {
        let mut scope = Scope { present: true, ..Scope::default() };
        let mut object = self.json.object()?;
        while let Some(key) = self.json.key(&mut object)? {
            match &*key {
                "name" => scope.name = self.text()?,
                "version" => scope.version = self.text()?,
                "attributes" => scope.attributes = self.attributes()?,
                "droppedAttributesCount" => scope.dropped_attributes_count = self.json.u32()?,
                _ => self.json.skip()?,
            }
        }
        Ok(scope)
    }

    /// Walks request, resources and scopes, whose keys differ by signal, and hands on every item
    /// with the index of its scope; `item` says how many records came of it. Containers without
    /// records are taken back.
    pub(crate) fn each_item(
        &mut self,
        keys: &Keys,
        item: &mut dyn FnMut(&mut Self, u32) -> Result<usize, DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut request = self.json.object()?;
        while let Some(key) = self.json.key(&mut request)? {
            if key != keys.resources {
                self.json.skip()?;
                continue;
            }
            let mut resources = self.json.array()?;
            while self.json.element(&mut resources)? {
                self.container(keys, item)?;
            }
        }
        Ok(())
    }

    fn container(
        &mut self,
        keys: &Keys,
        item: &mut dyn FnMut(&mut Self, u32) -> Result<usize, DecodeError>,
    ) -> Result<(), DecodeError> {
        let at = self.common.resources.len();
        let scopes_before = self.common.scopes.len();
        self.common.resources.push(Resource::default());
        let (mut resource, mut schema_url) = (Resource::default(), Text::EMPTY);
        let mut object = self.json.object()?;
        while let Some(key) = self.json.key(&mut object)? {
            if key == keys.scopes {
                let mut scopes = self.json.array()?;
                while self.json.element(&mut scopes)? {
                    self.scope_container(keys, index(at), item)?;
                }
                continue;
            }
            match &*key {
                "resource" => resource = self.resource()?,
                "schemaUrl" => schema_url = self.text()?,
                _ => self.json.skip()?,
            }
        }
        if self.common.scopes.len() == scopes_before {
            self.common.resources.truncate(at);
        } else if let Some(slot) = self.common.resources.get_mut(at) {
            *slot = Resource { schema_url, ..resource };
        }
        Ok(())
    }

    fn scope_container(
        &mut self,
        keys: &Keys,
        resource: u32,
        item: &mut dyn FnMut(&mut Self, u32) -> Result<usize, DecodeError>,
    ) -> Result<(), DecodeError> {
        let at = self.common.scopes.len();
        self.common.scopes.push(Scope::default());
        let (mut scope, mut schema_url, mut records) = (Scope::default(), Text::EMPTY, 0);
        let mut object = self.json.object()?;
        while let Some(key) = self.json.key(&mut object)? {
            if key == keys.items {
                let mut items = self.json.array()?;
                while self.json.element(&mut items)? {
                    records += item(self, index(at))?;
                }
                continue;
            }
            match &*key {
                "scope" => scope = self.scope()?,
                "schemaUrl" => schema_url = self.text()?,
                _ => self.json.skip()?,
            }
        }
        if records == 0 {
            self.common.scopes.truncate(at);
        } else if let Some(slot) = self.common.scopes.get_mut(at) {
            *slot = Scope { resource, schema_url, ..scope };
        }
        Ok(())
    }
}

/// The keys of a signal's containers.
pub(crate) struct Keys {
    pub(crate) resources: &'static str,
    pub(crate) scopes: &'static str,
    pub(crate) items: &'static str,
}

pub(crate) const METRICS_KEYS: Keys = Keys { resources: "resourceMetrics", scopes: "scopeMetrics", items: "metrics" };
pub(crate) const LOGS_KEYS: Keys = Keys { resources: "resourceLogs", scopes: "scopeLogs", items: "logRecords" };
pub(crate) const TRACES_KEYS: Keys = Keys { resources: "resourceSpans", scopes: "scopeSpans", items: "spans" };

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cold]
fn bad_text(at: usize, expected: &'static str, written: &str) -> DecodeError {
    let found: String = written.chars().take(40).collect();
    DecodeError::at(at, Fault::JsonType { expected, found: format!("{found:?}") })
}
