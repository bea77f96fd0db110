//! JSON, writing: a buffer that puts commas by itself.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Writes one JSON text.
pub(crate) struct JsonWriter {
    out: Vec<u8>,
}

impl JsonWriter {
    /// A writer with room for about that many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes) }
    }

    /// What was written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// A comma, unless an object or array was just opened or a key just written. A text that ends
    /// with such a byte ends with a quotation mark here.
    fn separate(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b':')) {
            self.out.push(b',');
        }
    }

    pub(crate) fn open(&mut self, bracket: u8) {
        self.separate();
        self.out.push(bracket);
    }

    pub(crate) fn close(&mut self, bracket: u8) {
        self.out.push(bracket);
    }

    /// A key of the schema, which needs no escapes.
    pub(crate) fn key(&mut self, key: &'static str) {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A key and the beginning of its object.
    pub(crate) fn object(&mut self, key: &'static str) {
        self.key(key);
        self.out.push(b'{');
    }

    /// A key and the beginning of its array.
    pub(crate) fn array(&mut self, key: &'static str) {
        self.key(key);
        self.out.push(b'[');
    }

    /// A string value.
    pub(crate) fn string(&mut self, text: &str) {
        self.separate();
        // Writing a string into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.out, text);
    }

    /// A string member, left out if empty.
    pub(crate) fn text(&mut self, key: &'static str, text: &str) {
        if !text.is_empty() {
            self.key(key);
            self.string(text);
        }
    }

    /// An id in hexadecimal, left out if empty.
    pub(crate) fn id(&mut self, key: &'static str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.key(key);
            self.out.push(b'"');
            for byte in bytes {
                let _ = write!(self.out, "{byte:02x}");
            }
            self.out.push(b'"');
        }
    }

    /// Bytes in base64, even if empty.
    pub(crate) fn base64(&mut self, key: &'static str, bytes: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        self.out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        self.out.push(b'"');
    }

    /// An integer of 32 bits or an enumeration, left out if zero.
    pub(crate) fn number(&mut self, key: &'static str, value: i64) {
        if value != 0 {
            self.key(key);
            let _ = write!(self.out, "{value}");
        }
    }

    /// An integer of 64 bits, which is a string in JSON; left out if zero.
    pub(crate) fn long(&mut self, key: &'static str, value: u64) {
        if value != 0 {
            self.key(key);
            self.long_value(value);
        }
    }

    /// An integer of 64 bits as an element.
    pub(crate) fn long_value(&mut self, value: u64) {
        self.separate();
        let _ = write!(self.out, "\"{value}\"");
    }

    /// A signed integer of 64 bits, even if zero.
    pub(crate) fn signed_long(&mut self, key: &'static str, value: i64) {
        self.key(key);
        let _ = write!(self.out, "\"{value}\"");
    }

    /// `true` or `false`, even if false.
    pub(crate) fn bool(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// A double, left out if it is positive zero.
    pub(crate) fn double(&mut self, key: &'static str, value: f64) {
        if value.to_bits() != 0 {
            self.present_double(key, value);
        }
    }

    /// A double, even if zero.
    pub(crate) fn present_double(&mut self, key: &'static str, value: f64) {
        self.key(key);
        self.double_value(value);
    }

    /// A double as an element.
    pub(crate) fn double_value(&mut self, value: f64) {
        self.separate();
        if value.is_finite() {
            // The shortest text that reads back as the same number.
            let _ = serde_json::to_writer(&mut self.out, &value);
        } else if value.is_nan() {
            self.out.extend_from_slice(b"\"NaN\"");
        } else {
            self.out.extend_from_slice(if value > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
        }
    }
}
