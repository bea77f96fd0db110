//! The walk that checks a protobuf request against the schema and counts its records, in one pass
//! and without allocating. Pass-through depends on it: what it accepts, every decoder accepts.

use super::error::{DecodeError, Fault};
use super::reader::{MAX_NESTING, Range, Reader, WireType};
use super::schema::{Field, KEY_VALUE, Kind, Message, request};
use crate::batch::Signal;

/// Checks a request and counts its records.
///
/// # Errors
/// [`DecodeError`] with the path of the damaged message and the offset of the damage.
pub(crate) fn check(signal: Signal, bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut records = 0;
    message(Reader::new(bytes), request(signal), 0, &mut records)?;
    Ok(records)
}

fn message(mut reader: Reader<'_>, schema: &Message, depth: u32, records: &mut usize) -> Result<(), DecodeError> {
    // Of a metric's data only the field that came last counts.
    let (before, mut data) = (*records, 0);
    while !reader.is_done() {
        let (number, wire_type) = reader.key()?;
        let field = schema.field(number);
        let nested = match (field.kind, wire_type) {
            (Kind::Text, WireType::Length) => {
                let range = reader.length().map_err(|error| error.within(field.name))?;
                text(&reader, range).map_err(|error| error.within(field.name))?;
                continue;
            }
            (Kind::KeyValue, WireType::Length) => {
                let range = reader.length().map_err(|error| error.within(field.name))?;
                if !is_text_attribute(reader.slice(range), depth) {
                    enter(reader, range, &KEY_VALUE, depth, records).map_err(|error| error.within(field.name))?;
                }
                continue;
            }
            (Kind::Message(nested), WireType::Length) => nested,
            (Kind::Record(nested), WireType::Length) => {
                *records += 1;
                nested
            }
            (Kind::Data(nested), WireType::Length) => {
                if data != number {
                    (data, *records) = (number, before);
                }
                nested
            }
            _ => {
                scalar(&mut reader, field, number, wire_type, depth).map_err(|error| error.within(field.name))?;
                continue;
            }
        };
        reader
            .length()
            .and_then(|range| enter(reader, range, nested, depth, records))
            .map_err(|error| error.within(field.name))?;
    }
    Ok(())
}

fn enter(
    reader: Reader<'_>,
    range: Range,
    schema: &Message,
    depth: u32,
    records: &mut usize,
) -> Result<(), DecodeError> {
    if depth >= MAX_NESTING {
        return Err(DecodeError::at(range.start, Fault::Nesting { limit: MAX_NESTING }));
    }
    message(reader.within(range), schema, depth + 1, records)
}

#[inline]
fn text(reader: &Reader<'_>, range: Range) -> Result<(), DecodeError> {
    let bytes = reader.slice(range);
    if is_text(bytes) {
        return Ok(());
    }
    let valid = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    Err(DecodeError::at(range.start + valid, Fault::Utf8))
}

#[inline]
fn is_text(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// Whether this is a `KeyValue` in its most frequent form: a key and a text value, both short, each
/// once and in order. Anything else is left to the tables.
#[inline]
fn is_text_attribute(bytes: &[u8], depth: u32) -> bool {
    if depth + 2 > MAX_NESTING {
        return false;
    }
    let [0x0a, key_length, rest @ ..] = bytes else { return false };
    if *key_length >= 0x80 {
        return false;
    }
    let Some((key, [0x12, value_length, value @ ..])) = rest.split_at_checked(usize::from(*key_length)) else {
        return false;
    };
    if *value_length >= 0x80 || usize::from(*value_length) != value.len() {
        return false;
    }
    let [0x0a, text_length, text @ ..] = value else { return false };
    // A length below 128 is one byte, and a longer text would not fit into the value.
    // Keys and lengths are below 128 here, so ASCII can be judged in one go.
    usize::from(*text_length) == text.len() && (bytes.is_ascii() || is_text(key) && is_text(text))
}

fn scalar(
    reader: &mut Reader<'_>,
    field: &Field,
    number: u32,
    wire_type: WireType,
    depth: u32,
) -> Result<(), DecodeError> {
    let expected = match (field.kind, wire_type) {
        (Kind::Unknown, _) => return reader.skip(number, wire_type, depth),
        (Kind::Varint | Kind::PackedVarint, WireType::Varint) => return reader.varint().map(drop),
        (Kind::Fixed32, WireType::Fixed32) => return reader.fixed32().map(drop),
        (Kind::Fixed64 | Kind::PackedFixed64, WireType::Fixed64) => return reader.fixed64().map(drop),
        (Kind::Bytes, WireType::Length) => return reader.length().map(drop),
        (Kind::PackedVarint, WireType::Length) => {
            let mut packed = reader.length().map(|range| reader.within(range))?;
            while !packed.is_done() {
                packed.varint()?;
            }
            return Ok(());
        }
        (Kind::PackedFixed64, WireType::Length) => {
            let range = reader.length()?;
            let over = (range.end - range.start) % 8;
            if over == 0 {
                return Ok(());
            }
            return Err(DecodeError::at(range.end - over, Fault::FixedPastEnd { width: 8, left: over }));
        }
        (Kind::Varint, _) => "0 (variable-length number)",
        (Kind::Fixed32, _) => "5 (four bytes)",
        (Kind::Fixed64, _) => "1 (eight bytes)",
        (Kind::PackedVarint, _) => "0 or 2 (variable-length numbers)",
        (Kind::PackedFixed64, _) => "1 or 2 (eight-byte numbers)",
        (Kind::Text | Kind::Bytes, _) => "2 (length and bytes)",
        (Kind::Message(_) | Kind::Record(_) | Kind::Data(_) | Kind::KeyValue, _) => "2 (message)",
    };
    Err(DecodeError::at(reader.at(), Fault::WireType { found: wire_type.number(), expected }))
}
