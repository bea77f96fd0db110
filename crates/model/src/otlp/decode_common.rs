//! Decoding what all signals share: resources, scopes, attributes and values.
//!
//! Text becomes ranges of the received buffer and attributes go into one list per batch, so nothing
//! is allocated per record. Decoding does not recurse: nested values wait in a list until the
//! attributes around them are complete, which keeps every list in one piece.

use bytes::Bytes;

use super::error::{DecodeError, Fault};
use super::reader::{Range, Reader, WireType};
use crate::arena::{Arena, Text};
use crate::common::{Attribute, Attributes, Common, Resource, Scope, Value, ValueRange, index};

/// A nested value whose elements are not decoded yet. Its [`Value`] holds their byte range.
enum Waiting {
    Attribute(usize),
    Element(usize),
}

/// Decodes into one [`Common`].
pub(crate) struct Decoder<'a> {
    pub(crate) common: Common,
    pub(crate) request: Reader<'a>,
    waiting: Vec<Waiting>,
}

impl<'a> Decoder<'a> {
    /// A decoder of a request; `base` holds the same bytes as `bytes`.
    pub(crate) fn new(base: &Bytes, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let arena = Arena::over(base.clone()).map_err(|_| DecodeError::new(Fault::TooLarge))?;
        let common = Common { arena, ..Common::default() };
        Ok(Self { common, request: Reader::new(bytes), waiting: Vec::new() })
    }

    /// Reads the message in a range.
    pub(crate) fn reader(&self, range: Range) -> Reader<'a> {
        self.request.within(range)
    }

    /// A text field.
    #[inline]
    pub(crate) fn text(&self, reader: &mut Reader<'_>) -> Result<Text, DecodeError> {
        let range = reader.length()?;
        Ok(self.common.arena.slice(range.start, range.end))
    }

    /// Adds a `KeyValue` to the list of attributes.
    #[inline]
    pub(crate) fn attribute(&mut self, range: Range) -> Result<(), DecodeError> {
        let mut reader = self.reader(range);
        let mut attribute = Attribute { key: Text::EMPTY, value: Value::Empty };
        while !reader.is_done() {
            match reader.key()? {
                (1, WireType::Length) => attribute.key = self.text(&mut reader)?,
                (2, WireType::Length) => attribute.value = self.shallow(reader.length()?)?,
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        if is_nested(attribute.value) {
            self.waiting.push(Waiting::Attribute(self.common.attributes.len()));
        }
        self.common.attributes.push(attribute);
        Ok(())
    }

    /// The attributes since `start`, with the nested values that waited for the end of the list.
    #[inline]
    pub(crate) fn attributes_since(&mut self, start: usize) -> Result<Attributes, DecodeError> {
        let attributes = self.common.attributes_since(start);
        self.decode_waiting()?;
        Ok(attributes)
    }

    /// A whole `AnyValue`.
    pub(crate) fn value(&mut self, range: Range) -> Result<Value, DecodeError> {
        let value = self.shallow(range)?;
        if !is_nested(value) {
            return Ok(value);
        }
        let value = self.expand(value)?;
        self.decode_waiting()?;
        Ok(value)
    }

    /// An `AnyValue`; if it is a list, its range counts bytes of the request until [`Self::expand`].
    /// Of several fields the last one wins. A reference into a dictionary of strings (field 8, used
    /// by profiles only) counts as no value, as the schema asks for.
    #[inline]
    fn shallow(&self, range: Range) -> Result<Value, DecodeError> {
        let mut reader = self.reader(range);
        let mut value = Value::Empty;
        while !reader.is_done() {
            value = match reader.key()? {
                (1, WireType::Length) => Value::String(self.text(&mut reader)?),
                (2, WireType::Varint) => Value::Bool(reader.varint()? != 0),
                (3, WireType::Varint) => Value::Int(reader.varint()?.cast_signed()),
                (4, WireType::Fixed64) => Value::Double(reader.double()?),
                (5, WireType::Length) => {
                    let list = reader.length()?;
                    Value::Array(ValueRange { start: index(list.start), length: index(list.end - list.start) })
                }
                (6, WireType::Length) => {
                    let list = reader.length()?;
                    Value::KeyValues(Attributes { start: index(list.start), length: index(list.end - list.start) })
                }
                (7, WireType::Length) => Value::Bytes(self.text(&mut reader)?),
                (8, WireType::Varint) => {
                    reader.varint()?;
                    Value::Empty
                }
                (number, wire_type) => {
                    reader.skip(number, wire_type, 0)?;
                    value
                }
            };
        }
        Ok(value)
    }

    fn decode_waiting(&mut self) -> Result<(), DecodeError> {
        while let Some(waiting) = self.waiting.pop() {
            let value = match waiting {
                Waiting::Attribute(at) => self.common.attributes.get(at).map(|attribute| attribute.value),
                Waiting::Element(at) => self.common.values.get(at).copied(),
            };
            let value = self.expand(value.unwrap_or_default())?;
            let slot = match waiting {
                Waiting::Attribute(at) => self.common.attributes.get_mut(at).map(|attribute| &mut attribute.value),
                Waiting::Element(at) => self.common.values.get_mut(at),
            };
            if let Some(slot) = slot {
                *slot = value;
            }
        }
        Ok(())
    }

    /// Decodes the elements of a list whose range counts bytes; lists among them wait.
    fn expand(&mut self, value: Value) -> Result<Value, DecodeError> {
        match value {
            Value::Array(bytes) => {
                let start = self.common.values.len();
                let mut reader = self.reader(byte_range(bytes.start, bytes.length));
                while !reader.is_done() {
                    match reader.key()? {
                        (1, WireType::Length) => {
                            let element = self.shallow(reader.length()?)?;
                            if is_nested(element) {
                                self.waiting.push(Waiting::Element(self.common.values.len()));
                            }
                            self.common.values.push(element);
                        }
                        (number, wire_type) => reader.skip(number, wire_type, 0)?,
                    }
                }
                Ok(Value::Array(self.common.values_since(start)))
            }
            Value::KeyValues(bytes) => {
                let start = self.common.attributes.len();
                let mut reader = self.reader(byte_range(bytes.start, bytes.length));
                while !reader.is_done() {
                    match reader.key()? {
                        (1, WireType::Length) => self.attribute(reader.length()?)?,
                        (number, wire_type) => reader.skip(number, wire_type, 0)?,
                    }
                }
                Ok(Value::KeyValues(self.common.attributes_since(start)))
            }
            scalar => Ok(scalar),
        }
    }

    /// A `Resource`. Fields that the model does not name are kept as they came.
    pub(crate) fn resource(&mut self, range: Range) -> Result<Resource, DecodeError> {
        let mut resource = Resource::default();
        let start = self.common.attributes.len();
        let mut unknown: Vec<Range> = Vec::new();
        let mut reader = self.reader(range);
        while !reader.is_done() {
            let field = reader.at();
            match reader.key()? {
                (1, WireType::Length) => self.attribute(reader.length()?)?,
                (2, WireType::Varint) => resource.dropped_attributes_count = low_32_bits(reader.varint()?),
                (number, wire_type) => {
                    reader.skip(number, wire_type, 0)?;
                    match unknown.last_mut() {
                        Some(last) if last.end == field => last.end = reader.at(),
                        _ => unknown.push(Range { start: field, end: reader.at() }),
                    }
                }
            }
        }
        resource.attributes = self.attributes_since(start)?;
        resource.unknown = match unknown.as_slice() {
            [] => Text::EMPTY,
            [one] => self.common.arena.slice(one.start, one.end),
            several => {
                let bytes: Vec<u8> = several.iter().flat_map(|range| self.request.slice(*range)).copied().collect();
                self.common.arena.add(&bytes)
            }
        };
        Ok(resource)
    }

    /// An `InstrumentationScope`.
    pub(crate) fn scope(&mut self, range: Range) -> Result<Scope, DecodeError> {
        let mut scope = Scope { present: true, ..Scope::default() };
        let start = self.common.attributes.len();
        let mut reader = self.reader(range);
        while !reader.is_done() {
            match reader.key()? {
                (1, WireType::Length) => scope.name = self.text(&mut reader)?,
                (2, WireType::Length) => scope.version = self.text(&mut reader)?,
                (3, WireType::Length) => self.attribute(reader.length()?)?,
                (4, WireType::Varint) => scope.dropped_attributes_count = low_32_bits(reader.varint()?),
                (number, wire_type) => reader.skip(number, wire_type, 0)?,
            }
        }
        scope.attributes = self.attributes_since(start)?;
        Ok(scope)
    }
}

/// Where the records being decoded belong. Resource and scope are added when the first record needs
/// them, so containers without records leave nothing behind.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    resource: Option<Range>,
    resource_schema_url: Text,
    resource_index: Option<u32>,
    scope: Option<Range>,
    scope_schema_url: Text,
    scope_index: Option<u32>,
}

impl Place {
    /// The index of the scope, which is added with its resource on the first call.
    pub(crate) fn scope_index(&mut self, decoder: &mut Decoder<'_>) -> Result<u32, DecodeError> {
        if let Some(known) = self.scope_index {
            return Ok(known);
        }
        let resource = match self.resource_index {
            Some(known) => known,
            None => {
                let mut resource = match self.resource {
                    Some(range) => decoder.resource(range)?,
                    None => Resource::default(),
                };
                resource.schema_url = self.resource_schema_url;
                decoder.common.resources.push(resource);
                index(decoder.common.resources.len() - 1)
            }
        };
        self.resource_index = Some(resource);
        let mut scope = match self.scope {
            Some(range) => decoder.scope(range)?,
            None => Scope::default(),
        };
        scope.resource = resource;
        scope.schema_url = self.scope_schema_url;
        decoder.common.scopes.push(scope);
        let scope = index(decoder.common.scopes.len() - 1);
        self.scope_index = Some(scope);
        Ok(scope)
    }
}

/// Walks the two outer levels, which have the same field numbers in all signals, and hands on every
/// item (log record, span, metric) with its place; `reserve` hears how many items a scope has.
/// A resource or scope message that appears twice in one container: the last one wins.
pub(crate) fn each_item<'a, T>(
    target: &mut T,
    decoder: fn(&mut T) -> &mut Decoder<'a>,
    reserve: fn(&mut T, usize),
    mut item: impl FnMut(&mut T, Range, &mut Place) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let mut request = decoder(target).request;
    while !request.is_done() {
        let (number, wire_type) = request.key()?;
        if (number, wire_type) != (1, WireType::Length) {
            request.skip(number, wire_type, 0)?;
            continue;
        }
        let container = request.length()?;
        let outer = header(decoder(target), container)?;
        let mut place = Place { resource: outer.message, resource_schema_url: outer.schema_url, ..Place::default() };
        let mut scopes = decoder(target).reader(container);
        while let Some(container) = next(&mut scopes, 2)? {
            let inner = header(decoder(target), container)?;
            place.scope = inner.message;
            place.scope_schema_url = inner.schema_url;
            place.scope_index = None;
            reserve(target, inner.items);
            let mut items = decoder(target).reader(container);
            while let Some(range) = next(&mut items, 2)? {
                item(target, range, &mut place)?;
            }
        }
    }
    Ok(())
}

/// What stands in a container beside its items.
struct Header {
    message: Option<Range>,
    schema_url: Text,
    items: usize,
}

fn header(decoder: &Decoder<'_>, range: Range) -> Result<Header, DecodeError> {
    let mut header = Header { message: None, schema_url: Text::EMPTY, items: 0 };
    let mut reader = decoder.reader(range);
    while !reader.is_done() {
        match reader.key()? {
            (1, WireType::Length) => header.message = Some(reader.length()?),
            (2, WireType::Length) => {
                reader.length()?;
                header.items += 1;
            }
            (3, WireType::Length) => header.schema_url = decoder.text(&mut reader)?,
            (number, wire_type) => reader.skip(number, wire_type, 0)?,
        }
    }
    Ok(header)
}

/// The next message with a field number, or none before the end.
pub(crate) fn next(reader: &mut Reader<'_>, wanted: u32) -> Result<Option<Range>, DecodeError> {
    while !reader.is_done() {
        match reader.key()? {
            (number, WireType::Length) if number == wanted => return reader.length().map(Some),
            (number, wire_type) => reader.skip(number, wire_type, 0)?,
        }
    }
    Ok(None)
}

/// Numbers of 32 bits travel as numbers of variable length; what is beyond 32 bits is cut off, as
/// protobuf prescribes.
#[inline]
pub(crate) fn low_32_bits(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// As [`low_32_bits`], signed: `int32` and enumerations.
#[inline]
pub(crate) fn low_signed(value: u64) -> i32 {
    low_32_bits(value).cast_signed()
}

fn is_nested(value: Value) -> bool {
    matches!(value, Value::Array(_) | Value::KeyValues(_))
}

fn byte_range(start: u32, length: u32) -> Range {
    Range { start: start as usize, end: start as usize + length as usize }
}
