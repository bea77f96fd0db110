//! Protobuf wire format, reading: keys, numbers and lengths, always inside the bounds of a message.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>. What counts as damage follows the
//! official decoders: a key above 32 bits, field number 0, wire types 6 and 7, a number beyond 64
//! bits, groups that do not match.

use super::error::{DecodeError, Fault};

/// How deep messages may be nested below the request: the limit of the C++, Java and Rust
/// decoders. An `AnyValue` inside another one costs two levels (array) or three (key and value list).
pub(crate) const MAX_NESTING: u32 = 100;

/// Wire type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WireType {
    Varint,
    Fixed64,
    Length,
    GroupStart,
    GroupEnd,
    Fixed32,
}

impl WireType {
    /// The number on the wire.
    pub(crate) fn number(self) -> u8 {
        match self {
            WireType::Varint => 0,
            WireType::Fixed64 => 1,
            WireType::Length => 2,
            WireType::GroupStart => 3,
            WireType::GroupEnd => 4,
            WireType::Fixed32 => 5,
        }
    }
}

/// A range of byte offsets in the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Reads one message. Offsets are those of the whole request; `bytes` ends where the message ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads a whole request.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Reads the message in a range of the same request.
    pub(crate) fn within(self, range: Range) -> Self {
        // Ranges come from `length`, so they lie inside; anything else reads as an empty message.
        Self { bytes: self.bytes.get(..range.end).unwrap_or_default(), at: range.start }
    }

    /// Offset of the next byte.
    #[inline]
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Whether the message is read to its end.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The bytes of a range.
    #[inline]
    pub(crate) fn slice(&self, range: Range) -> &'a [u8] {
        self.bytes.get(range.start..range.end).unwrap_or_default()
    }

    fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// A variable-length number.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        // Nearly all keys and lengths take one byte or two.
        match self.bytes.get(self.at..) {
            Some([byte, ..]) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            Some([low, high, ..]) if *high < 0x80 => {
                self.at += 2;
                Ok(u64::from(low & 0x7f) | u64::from(*high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for (place, &byte) in self.bytes.get(self.at..).unwrap_or_default().iter().take(10).enumerate() {
            // The tenth byte has room for one bit.
            if place == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                self.at += place + 1;
                return Ok(value);
            }
        }
        Err(DecodeError::at(self.at, Fault::Varint))
    }

    /// A field key: field number and wire type.
    #[inline(always)]
    pub(crate) fn key(&mut self) -> Result<(u32, WireType), DecodeError> {
        let start = self.at;
        let key = self.varint()?;
        let wire_type = match key & 7 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Length,
            3 => WireType::GroupStart,
            4 => WireType::GroupEnd,
            5 => WireType::Fixed32,
            _ => return Err(DecodeError::at(start, Fault::Key(key))),
        };
        match u32::try_from(key) {
            Ok(key) if key >= 8 => Ok((key >> 3, wire_type)),
            _ => Err(DecodeError::at(start, Fault::Key(key))),
        }
    }

    /// A length and the range behind it.
    #[inline(always)]
    pub(crate) fn length(&mut self) -> Result<Range, DecodeError> {
        let start = self.at;
        let length = self.varint()?;
        let left = self.left();
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                let range = Range { start: self.at, end: self.at + length };
                self.at = range.end;
                Ok(range)
            }
            _ => Err(DecodeError::at(start, Fault::LengthPastEnd { length, left })),
        }
    }

    /// Eight bytes, little endian.
    #[inline]
    pub(crate) fn fixed64(&mut self) -> Result<u64, DecodeError> {
        self.fixed().map(u64::from_le_bytes)
    }

    /// Four bytes, little endian.
    #[inline]
    pub(crate) fn fixed32(&mut self) -> Result<u32, DecodeError> {
        self.fixed().map(u32::from_le_bytes)
    }

    /// A double.
    #[inline]
    pub(crate) fn double(&mut self) -> Result<f64, DecodeError> {
        self.fixed().map(f64::from_le_bytes)
    }

    #[inline]
    fn fixed<const WIDTH: usize>(&mut self) -> Result<[u8; WIDTH], DecodeError> {
        match self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<WIDTH>()) {
            Some(&bytes) => {
                self.at += WIDTH;
                Ok(bytes)
            }
            None => Err(DecodeError::at(self.at, Fault::FixedPastEnd { width: WIDTH, left: self.left() })),
        }
    }

    /// Skips a field that nobody reads. `depth` is that of the message around it.
    pub(crate) fn skip(&mut self, number: u32, wire_type: WireType, depth: u32) -> Result<(), DecodeError> {
        if depth >= MAX_NESTING {
            return Err(DecodeError::at(self.at, Fault::Nesting { limit: MAX_NESTING }));
        }
        match wire_type {
            WireType::Varint => self.varint().map(drop),
            WireType::Fixed64 => self.fixed64().map(drop),
            WireType::Fixed32 => self.fixed32().map(drop),
            WireType::Length => self.length().map(drop),
            WireType::GroupEnd => Err(DecodeError::at(self.at, Fault::Group)),
            WireType::GroupStart => loop {
                match self.key()? {
                    (end, WireType::GroupEnd) if end == number => return Ok(()),
                    (_, WireType::GroupEnd) => return Err(DecodeError::at(self.at, Fault::Group)),
                    (number, wire_type) => self.skip(number, wire_type, depth + 1)?,
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_may_use_ten_bytes_and_no_bit_beyond_64() {
        let mut longest = [0xff; 10];
        longest[9] = 1;
        assert_eq!(Reader::new(&longest).varint().unwrap(), u64::MAX);
        longest[9] = 2;
        assert!(Reader::new(&longest).varint().is_err());
        assert!(Reader::new(&[0x80; 3]).varint().is_err());
        assert!(Reader::new(&[]).varint().is_err());
    }

    #[test]
    fn a_length_beyond_the_message_is_an_error_even_when_the_request_goes_on() {
        let bytes = [3, b'a', b'b', b'c', b'd'];
        let message = Reader::new(&bytes).within(Range { start: 0, end: 3 });
        assert!({ message }.length().is_err());
        assert_eq!(Reader::new(&bytes).length().unwrap(), Range { start: 1, end: 4 });
    }

    #[test]
    fn groups_are_skipped_to_their_own_end() {
        // Field 1 begins a group that holds field 2 = 7 and a group 3.
        let bytes = [0x0b, 0x10, 7, 0x1b, 0x1c, 0x0c, 0x99];
        let mut reader = Reader::new(&bytes);
        let (number, wire_type) = reader.key().unwrap();
        reader.skip(number, wire_type, 0).unwrap();
        assert_eq!(reader.at(), 6);
        let crossed = [0x0b, 0x14];
        let mut reader = Reader::new(&crossed);
        let (number, wire_type) = reader.key().unwrap();
        assert!(reader.skip(number, wire_type, 0).is_err());
    }

    #[test]
    fn groups_without_end_stop_at_the_nesting_limit() {
        let bytes = [0x0b; 4096];
        let mut reader = Reader::new(&bytes);
        let (number, wire_type) = reader.key().unwrap();
        assert!(reader.skip(number, wire_type, 0).unwrap_err().to_string().contains("100 levels"));
    }
}
