//! JSON, reading: a pull parser over one text, so that a request becomes records without a tree in
//! between, and text without escapes becomes a range of the received buffer.
//!
//! Grammar: RFC 8259. A member whose value is `null` counts as absent, as in the protobuf mapping.

use std::borrow::Cow;

use super::error::{DecodeError, Fault};
use super::reader::MAX_NESTING;

/// How deep objects and arrays may be nested in a member that the schema does not know.
const MAX_UNKNOWN_NESTING: u32 = 200;

/// Reads one JSON text. Every object that the schema knows is one protobuf message, so the same
/// limit of nesting holds in both encodings.
#[derive(Clone, Debug)]
pub(crate) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    objects: u32,
}

/// An object or array that is being read.
pub(crate) struct Open {
    first: bool,
}

impl<'a> JsonReader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, objects: 0 }
    }

    /// Offset of the next byte.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is not white space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// What stands here, for error messages: the kind of value, and never more than a few bytes.
    fn found(&mut self) -> String {
        match self.peek() {
            None => "the end of the text".to_owned(),
            Some(b'{') => "an object".to_owned(),
            Some(b'[') => "an array".to_owned(),
            Some(b'"') => "a string".to_owned(),
            Some(b'-' | b'0'..=b'9') => "a number".to_owned(),
            Some(_) => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let word: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric()).take(12).collect();
                if word.is_empty() { rest.chars().take(1).map(|c| format!("{c:?}")).collect() } else { word }
            }
        }
    }

    #[cold]
    fn bad_syntax(&mut self, expected: &'static str) -> DecodeError {
        let found = self.found();
        DecodeError::at(self.at, Fault::Json { expected, found })
    }

    #[cold]
    fn bad_type(&mut self, expected: &'static str) -> DecodeError {
        match self.peek() {
            Some(b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') => {
                let found = self.found();
                DecodeError::at(self.at, Fault::JsonType { expected, found })
            }
            _ => self.bad_syntax("a value"),
        }
    }

    /// Begins an object.
    pub(crate) fn object(&mut self) -> Result<Open, DecodeError> {
        if !self.take(b'{') {
            return Err(self.bad_type("an object"));
        }
        self.objects += 1;
        // The request itself is not nested.
        if self.objects > MAX_NESTING + 1 {
            return Err(DecodeError::at(self.at, Fault::Nesting { limit: MAX_NESTING }));
        }
        Ok(Open { first: true })
    }

    /// The next key of an object whose value is not `null`; `None` at its end.
    pub(crate) fn key(&mut self, open: &mut Open) -> Result<Option<Cow<'a, str>>, DecodeError> {
        while let Some(key) = self.any_key(open)? {
            if self.peek() != Some(b'n') {
                return Ok(Some(key));
            }
            self.word("null")?;
        }
        self.objects = self.objects.saturating_sub(1);
        Ok(None)
    }

    fn any_key(&mut self, open: &mut Open) -> Result<Option<Cow<'a, str>>, DecodeError> {
        if self.take(b'}') {
            return Ok(None);
        }
        if !std::mem::take(&mut open.first) && !self.take(b',') {
            return Err(self.bad_syntax("a comma or the end of the object"));
        }
        if self.peek() != Some(b'"') {
            return Err(self.bad_syntax("a key in quotation marks"));
        }
        let key = self.string()?;
        if !self.take(b':') {
            return Err(self.bad_syntax("a colon"));
        }
        Ok(Some(key))
    }

    /// Begins an array.
    pub(crate) fn array(&mut self) -> Result<Open, DecodeError> {
        if self.take(b'[') { Ok(Open { first: true }) } else { Err(self.bad_type("an array")) }
    }

    /// Whether the array has another element, which comes next.
    pub(crate) fn element(&mut self, open: &mut Open) -> Result<bool, DecodeError> {
        if open.first {
            open.first = false;
            return Ok(!self.take(b']'));
        }
        if self.take(b',') {
            return Ok(true);
        }
        if self.take(b']') { Ok(false) } else { Err(self.bad_syntax("a comma or the end of the array")) }
    }

    fn word(&mut self, word: &'static str) -> Result<(), DecodeError> {
        if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.bad_syntax("a value"))
    }

    /// A string. Borrowed where it has no escapes; then it ends one byte before [`Self::at`].
    pub(crate) fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        if !self.take(b'"') {
            return Err(self.bad_type("a string"));
        }
        let start = self.at;
        self.plain();
        if self.byte() == Some(b'"') {
            let plain = self.text.get(start..self.at).unwrap_or_default();
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        let mut out = self.text.get(start..self.at).unwrap_or_default().to_owned();
        loop {
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => {
                    let escaped = self.escape()?;
                    out.push(escaped);
                }
                Some(byte) if byte >= 0x20 => {
                    let start = self.at;
                    self.plain();
                    out.push_str(self.text.get(start..self.at).unwrap_or_default());
                }
                _ => return Err(self.bad_string("the end of the string")),
            }
        }
    }

    #[cold]
    fn bad_string(&mut self, expected: &'static str) -> DecodeError {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(character) => format!("{character:?}"),
            None => "the end of the text".to_owned(),
        };
        DecodeError::at(self.at, Fault::Json { expected, found })
    }

    /// Moves over characters that stand for themselves.
    fn plain(&mut self) {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        self.at += plain.unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<char, DecodeError> {
        self.at += 1;
        let character = match self.byte() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return Err(self.bad_string("an escape sequence")),
        };
        self.at += 1;
        Ok(character)
    }

    /// The digits of `\uXXXX`; a character beyond 16 bits is two of them, a surrogate pair.
    fn unicode(&mut self) -> Result<char, DecodeError> {
        let start = self.at;
        let first = self.four_digits()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with("\\u")) {
                return Err(self.bad_string("the second half of a surrogate pair"));
            }
            self.at += 2;
            let second = self.four_digits()?;
            match second.checked_sub(0xdc00) {
                Some(low) if low < 0x400 => 0x1_0000 + ((first - 0xd800) << 10) + low,
                _ => return Err(self.bad_string("the second half of a surrogate pair")),
            }
        } else {
            first
        };
        match char::from_u32(code) {
            Some(character) => Ok(character),
            None => {
                self.at = start;
                Err(self.bad_string("a unicode character"))
            }
        }
    }

    fn four_digits(&mut self) -> Result<u32, DecodeError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
            Some(code) => {
                self.at += 4;
                Ok(code)
            }
            None => Err(self.bad_string("four hexadecimal digits")),
        }
    }

    /// A number as it is written.
    fn number(&mut self) -> Result<&'a str, DecodeError> {
        self.peek();
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(self.text.get(start..self.at).unwrap_or_default())
    }

    fn digits(&mut self) -> Result<(), DecodeError> {
        let start = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.bad_string("a digit")) } else { Ok(()) }
    }

    fn number_or_string(&mut self, expected: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number().map(Cow::Borrowed),
            _ => Err(self.bad_type(expected)),
        }
    }

    /// An integer between the bounds, as a number or as a string; `1.0` and `1e3` are integers too.
    fn integer(&mut self, low: i128, high: i128, expected: &'static str) -> Result<i128, DecodeError> {
        self.peek();
        let start = self.at;
        let written = self.number_or_string(expected)?;
        let value = written.parse::<i128>().ok().or_else(|| {
            let value = written.parse::<f64>().ok()?;
            // Beyond 2^64 the range check below refuses it in any case.
            (value.fract() == 0.0 && value.abs() < 1e20).then_some(value as i128)
        });
        match value {
            Some(value) if (low..=high).contains(&value) => Ok(value),
            _ => {
                let found: String = written.chars().take(40).collect();
                Err(DecodeError::at(start, Fault::JsonType { expected, found: format!("{found:?}") }))
            }
        }
    }

    /// An unsigned integer of 64 bits.
    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        let value = self.integer(0, u64::MAX.into(), "an unsigned integer of 64 bits")?;
        Ok(u64::try_from(value).unwrap_or_default())
    }

    /// A signed integer of 64 bits.
    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        let value = self.integer(i64::MIN.into(), i64::MAX.into(), "a signed integer of 64 bits")?;
        Ok(i64::try_from(value).unwrap_or_default())
    }

    /// An unsigned integer of 32 bits.
    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let value = self.integer(0, u32::MAX.into(), "an unsigned integer of 32 bits")?;
        Ok(u32::try_from(value).unwrap_or_default())
    }

    /// A signed integer of 32 bits, or an enumeration, which OTLP/JSON writes as an integer only.
    pub(crate) fn i32(&mut self) -> Result<i32, DecodeError> {
        let value = self.integer(i32::MIN.into(), i32::MAX.into(), "a signed integer of 32 bits")?;
        Ok(i32::try_from(value).unwrap_or_default())
    }

    /// A double, as a number or as a string; only strings say NaN and infinities.
    pub(crate) fn double(&mut self) -> Result<f64, DecodeError> {
        const EXPECTED: &str = "a number, \"NaN\", \"Infinity\" or \"-Infinity\"";
        self.peek();
        let start = self.at;
        let written = self.number_or_string(EXPECTED)?;
        let value = match &*written {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            // Rust reads more words as infinity, and numbers that are too large.
            other => other.parse::<f64>().ok().filter(|value| value.is_finite()),
        };
        value.ok_or_else(|| {
            let found: String = written.chars().take(40).collect();
            DecodeError::at(start, Fault::JsonType { expected: EXPECTED, found: format!("{found:?}") })
        })
    }

    /// `true` or `false`.
    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.peek() {
            Some(b't') => self.word("true").map(|()| true),
            Some(b'f') => self.word("false").map(|()| false),
            _ => Err(self.bad_type("true or false")),
        }
    }

    /// Skips a value that the schema does not know.
    pub(crate) fn skip(&mut self) -> Result<(), DecodeError> {
        self.skip_nested(0)
    }

    fn skip_nested(&mut self, depth: u32) -> Result<(), DecodeError> {
        if depth > MAX_UNKNOWN_NESTING {
            return Err(DecodeError::at(self.at, Fault::Nesting { limit: MAX_UNKNOWN_NESTING }));
        }
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                let mut open = Open { first: true };
                while self.any_key(&mut open)?.is_some() {
                    self.skip_nested(depth + 1)?;
                }
                Ok(())
            }
            Some(b'[') => {
                let mut open = self.array()?;
                while self.element(&mut open)? {
                    self.skip_nested(depth + 1)?;
                }
                Ok(())
            }
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => Err(self.bad_syntax("a value")),
        }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), DecodeError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.bad_syntax("the end of the text")) }
    }
}

/// Longest part of a key that is shown in an error.
const SHOWN_KEY_CHARACTERS: usize = 40;

/// The path of the value at an offset, for example `resourceLogs[0].scopeLogs[2].schemaUrl`.
pub(crate) fn path_at(text: &str, offset: usize) -> String {
    let mut path = String::new();
    locate(&mut JsonReader::new(text), offset, &mut path, 0);
    path
}

/// Whether the value that comes next holds the offset, or is damaged; then `path` leads to it.
fn locate(reader: &mut JsonReader<'_>, offset: usize, path: &mut String, depth: u32) -> bool {
    let before = path.len();
    let mut at = 0;
    match reader.peek() {
        Some(b'{') if depth <= MAX_UNKNOWN_NESTING => {
            reader.at += 1;
            let mut open = Open { first: true };
            loop {
                match reader.any_key(&mut open) {
                    Ok(Some(key)) => {
                        path.push_str(if before == 0 { "" } else { "." });
                        path.extend(key.chars().take(SHOWN_KEY_CHARACTERS));
                    }
                    Ok(None) => break,
                    Err(_) => return true,
                }
                if locate(reader, offset, path, depth + 1) {
                    return true;
                }
                path.truncate(before);
            }
        }
        Some(b'[') if depth <= MAX_UNKNOWN_NESTING => {
            let Ok(mut open) = reader.array() else { return true };
            loop {
                match reader.element(&mut open) {
                    Ok(true) => path.push_str(&format!("[{at}]")),
                    Ok(false) => break,
                    Err(_) => return true,
                }
                if locate(reader, offset, path, depth + 1) {
                    return true;
                }
                path.truncate(before);
                at += 1;
            }
        }
        _ => {
            if reader.skip().is_err() {
                return true;
            }
        }
    }
    offset < reader.at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skips(text: &str) -> bool {
        let mut reader = JsonReader::new(text);
        reader.skip().and_then(|()| reader.end()).is_ok()
    }

    #[test]
    fn the_grammar_is_that_of_an_independent_parser() {
        for text in [
            "{}",
            "[]",
            " [ 1 , 2 ] ",
            "[1,]",
            "{,}",
            "{\"a\":1,}",
            "{\"a\" 1}",
            "01",
            "-",
            "-0",
            "1.",
            ".5",
            "1e",
            "1e+5",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\ude00\"",
            "\"\\x\"",
            "\"a\nb\"",
            "\"a",
            "tru",
            "true",
            "nul",
            "null",
            "[null,true,false]",
            "{\"a\":{\"b\":[{}]}}",
            "{} {}",
            "",
            "\u{feff}{}",
            "{a:1}",
            "[1 2]",
            "\"\\ud800\\u0041\"",
            "\"\\u12\"",
            "1E-2",
            "--1",
            "+1",
            "NaN",
            "Infinity",
            "'a'",
            "[\"\\/\\b\\f\\n\\r\\t\\\"\\\\\"]",
            "{\"a\":1,\"a\":2}",
        ] {
            let expected = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(skips(text), expected, "{text}");
        }
    }

    #[test]
    fn escapes_mean_what_an_independent_parser_says() {
        for text in ["\"a\\u0000b\"", "\"\\ud83d\\ude00!\"", "\"x\\\\\\\"\\/\\b\\f\\n\\r\\t\"", "\"größer\\u00df\""] {
            let expected: String = serde_json::from_str(text).unwrap();
            assert_eq!(JsonReader::new(text).string().unwrap(), expected);
        }
    }

    #[test]
    fn integers_are_numbers_or_strings_and_never_wrap() {
        assert_eq!(JsonReader::new("\"18446744073709551615\"").u64().unwrap(), u64::MAX);
        assert_eq!(JsonReader::new("-9223372036854775808").i64().unwrap(), i64::MIN);
        assert_eq!(JsonReader::new("1e3").u32().unwrap(), 1000);
        for bad in ["-1", "18446744073709551616", "1.5", "\"\"", "\"x\"", "true", "1e300", "\"NaN\""] {
            assert!(JsonReader::new(bad).u64().is_err(), "{bad}");
        }
        assert!(JsonReader::new("4294967296").u32().is_err());
        assert!(JsonReader::new("\"SPAN_KIND_SERVER\"").i32().is_err());
    }

    #[test]
    fn doubles_beyond_the_range_are_refused_rather_than_infinite() {
        assert!(JsonReader::new("1e999").double().is_err());
        assert!(JsonReader::new("\"inf\"").double().is_err());
        assert_eq!(JsonReader::new("\"-Infinity\"").double().unwrap(), f64::NEG_INFINITY);
        assert_eq!(JsonReader::new("\"1.5\"").double().unwrap(), 1.5);
    }

    #[test]
    fn a_path_names_keys_and_positions() {
        let text = r#"{"a":[{"b":1},{"c":{"d":"x"}}],"e":2}"#;
        assert_eq!(path_at(text, text.find("\"x\"").unwrap()), "a[1].c.d");
        assert_eq!(path_at(text, text.find('2').unwrap()), "e");
    }
}
