//! Protobuf wire format, writing: from the end of a buffer to its front.
//!
//! A length stands before its content, and is known only when the content is written. Written
//! backwards, nothing needs to be measured first: fields in descending order, content before length.

use bytes::Bytes;

use super::reader::WireType;

/// What a finished buffer may leave empty: one part in so many of what is in it.
const LARGEST_WASTE: usize = 4;

/// A buffer that fills from its end.
pub(crate) struct Writer {
    buffer: Vec<u8>,
    /// Everything from here on is written.
    at: usize,
}

/// How much was written when a message was begun (at its end).
#[derive(Clone, Copy, Debug)]
pub(crate) struct End(usize);

impl Writer {
    /// A writer with room for about that many bytes; it grows as needed.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let bytes = bytes.max(64);
        Self { buffer: vec![0; bytes], at: bytes }
    }

    /// What was written, in a buffer of its own if much of this one is left empty: it may wait for long.
    pub(crate) fn finish(self) -> Bytes {
        let written = self.buffer.get(self.at..).unwrap_or_default();
        if self.at > written.len() / LARGEST_WASTE {
            return Bytes::copy_from_slice(written);
        }
        Bytes::from(self.buffer).slice(self.at..)
    }

    fn written(&self) -> usize {
        self.buffer.len() - self.at
    }

    #[cold]
    fn grow(&mut self, needed: usize) {
        let mut larger = vec![0; self.buffer.len().saturating_mul(2).saturating_add(needed)];
        let written = self.buffer.get(self.at..).unwrap_or_default();
        let at = larger.len() - written.len();
        if let Some(tail) = larger.get_mut(at..) {
            tail.copy_from_slice(written);
        }
        (self.buffer, self.at) = (larger, at);
    }

    /// Puts raw bytes in front.
    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if self.at < bytes.len() {
            self.grow(bytes.len());
        }
        let start = self.at - bytes.len();
        if let Some(room) = self.buffer.get_mut(start..self.at) {
            room.copy_from_slice(bytes);
            self.at = start;
        }
    }

    #[inline]
    fn varint(&mut self, mut value: u64) {
        if value < 0x80 {
            return self.raw(&[low_byte(value)]);
        }
        let mut bytes = [0; 10];
        let mut length = 0;
        for byte in &mut bytes {
            length += 1;
            *byte = low_byte(value) & 0x7f;
            value >>= 7;
            if value == 0 {
                break;
            }
            *byte |= 0x80;
        }
        self.raw(bytes.get(..length).unwrap_or_default());
    }

    #[inline]
    fn key(&mut self, number: u32, wire_type: WireType) {
        self.varint(u64::from(number << 3) | u64::from(wire_type.number()));
    }

    /// Marks the end of a message; its fields follow, the last one first.
    #[inline]
    pub(crate) fn begin(&self) -> End {
        End(self.written())
    }

    /// Puts length and key in front of the message that ends at `end`.
    #[inline]
    pub(crate) fn message(&mut self, number: u32, end: End) {
        self.varint((self.written() - end.0) as u64);
        self.key(number, WireType::Length);
    }

    /// Whether nothing was written since `end`.
    pub(crate) fn is_empty_since(&self, end: End) -> bool {
        self.written() == end.0
    }

    /// A text or bytes field, even if empty.
    #[inline]
    pub(crate) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.raw(bytes);
        self.varint(bytes.len() as u64);
        self.key(number, WireType::Length);
    }

    /// A text or bytes field, left out if empty.
    #[inline]
    pub(crate) fn bytes_unless_empty(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes(number, bytes);
        }
    }

    /// A number of variable length, even if zero.
    #[inline]
    pub(crate) fn number(&mut self, number: u32, value: u64) {
        self.varint(value);
        self.key(number, WireType::Varint);
    }

    /// A number of variable length, left out if zero.
    #[inline]
    pub(crate) fn unsigned(&mut self, number: u32, value: u32) {
        if value != 0 {
            self.number(number, u64::from(value));
        }
    }

    /// An `int32` or enumeration, left out if zero; negative ones take ten bytes.
    #[inline]
    pub(crate) fn signed(&mut self, number: u32, value: i32) {
        if value != 0 {
            self.number(number, i64::from(value).cast_unsigned());
        }
    }

    /// An `sint32`, left out if zero.
    pub(crate) fn zigzag(&mut self, number: u32, value: i32) {
        self.unsigned(number, ((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// Four bytes, left out if zero.
    #[inline]
    pub(crate) fn fixed32(&mut self, number: u32, value: u32) {
        if value != 0 {
            self.raw(&value.to_le_bytes());
            self.key(number, WireType::Fixed32);
        }
    }

    /// Eight bytes, even if zero.
    #[inline]
    pub(crate) fn eight_bytes(&mut self, number: u32, value: [u8; 8]) {
        self.raw(&value);
        self.key(number, WireType::Fixed64);
    }

    /// Eight bytes, left out if zero.
    #[inline]
    pub(crate) fn fixed64(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.eight_bytes(number, value.to_le_bytes());
        }
    }

    /// A double, left out if it is positive zero.
    #[inline]
    pub(crate) fn double(&mut self, number: u32, value: f64) {
        self.fixed64(number, value.to_bits());
    }

    /// A double whose presence means something.
    #[inline]
    pub(crate) fn optional_double(&mut self, number: u32, value: Option<f64>) {
        if let Some(value) = value {
            self.eight_bytes(number, value.to_le_bytes());
        }
    }

    /// Packed numbers of eight bytes, left out if there are none.
    pub(crate) fn packed_fixed64<T: Copy>(&mut self, number: u32, values: &[T], convert: fn(T) -> [u8; 8]) {
        if !values.is_empty() {
            let end = self.begin();
            values.iter().rev().for_each(|value| self.raw(&convert(*value)));
            self.message(number, end);
        }
    }

    /// Packed numbers of variable length, left out if there are none.
    pub(crate) fn packed_varint(&mut self, number: u32, values: &[u64]) {
        if !values.is_empty() {
            let end = self.begin();
            values.iter().rev().for_each(|value| self.varint(*value));
            self.message(number, end);
        }
    }
}

#[inline]
fn low_byte(value: u64) -> u8 {
    (value & 0xff) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_gets_its_length_after_its_content_and_the_buffer_grows() {
        let mut out = Writer::with_capacity(0);
        let end = out.begin();
        out.bytes(2, &[7; 300]);
        out.number(1, 150);
        out.message(3, end);
        let bytes = out.finish();
        // The example of the protobuf guide, `08 96 01`, inside a message of 306 bytes.
        assert_eq!(bytes.get(..8).unwrap(), [0x1a, 0xb2, 0x02, 0x08, 0x96, 0x01, 0x12, 0xac]);
        assert_eq!(bytes.len(), 309);
    }

    #[test]
    fn what_was_written_holds_little_more_memory_than_it_needs() {
        for room in [1000, 1200, 1300, 100_000] {
            let mut out = Writer::with_capacity(room);
            out.raw(&[7; 1000]);
            let bytes = Vec::from(out.finish());
            assert_eq!(bytes, [7; 1000]);
            assert!(bytes.capacity() <= 1250, "{room} bytes of room became {}", bytes.capacity());
        }
    }

    #[test]
    fn the_longest_numbers_take_ten_bytes() {
        let mut out = Writer::with_capacity(16);
        out.signed(1, -1);
        assert_eq!(out.finish().as_ref(), [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        let mut out = Writer::with_capacity(16);
        out.zigzag(1, i32::MIN);
        assert_eq!(out.finish().as_ref(), [8, 255, 255, 255, 255, 15]);
    }
}
