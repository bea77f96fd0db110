//! Encodings of log files, and where their lines end.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

/// How a file writes characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Encoding {
    /// UTF-8; lines that are not stay byte for byte.
    #[default]
    #[serde(rename = "utf-8")]
    Utf8,
    /// UTF-16, little end first, as Windows writes it.
    #[serde(rename = "utf-16le")]
    Utf16Le,
    /// UTF-16, big end first.
    #[serde(rename = "utf-16be")]
    Utf16Be,
    /// ISO 8859-1.
    #[serde(rename = "latin1")]
    Latin1,
}

/// The text of a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes that are no text in the encoding of the file, and the nearest text to it.
    Bytes(&'a [u8], String),
}

impl Encoding {
    /// Bytes per unit.
    pub fn width(self) -> usize {
        match self {
            Encoding::Utf8 | Encoding::Latin1 => 1,
            Encoding::Utf16Le | Encoding::Utf16Be => 2,
        }
    }

    /// Where the line that `from` lies in ends: behind its line end. `from` is a multiple of the
    /// width.
    pub fn line_end(self, bytes: &[u8], from: usize) -> Option<usize> {
        let line_end: [u8; 2] = match self {
            Encoding::Utf8 | Encoding::Latin1 => {
                return memchr::memchr(b'\n', bytes.get(from..)?).map(|at| from + at + 1);
            }
            Encoding::Utf16Le => [b'\n', 0],
            Encoding::Utf16Be => [0, b'\n'],
        };
        let units = bytes.get(from..)?.chunks_exact(2);
        units.into_iter().position(|unit| unit == line_end).map(|at| from + 2 * at + 2)
    }

    /// The text of a record: byte order mark and the last line end are taken off, the carriage
    /// returns of its other line ends too.
    pub fn decode(self, bytes: &[u8]) -> Decoded<'_> {
        let text = match self {
            Encoding::Utf8 => {
                let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
                match std::str::from_utf8(bytes) {
                    Ok(text) => Cow::Borrowed(text),
                    Err(_) => {
                        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
                        return Decoded::Bytes(bytes, String::from_utf8_lossy(bytes).into_owned());
                    }
                }
            }
            Encoding::Latin1 => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
            Encoding::Utf16Le => return utf16(bytes, u16::from_le_bytes),
            Encoding::Utf16Be => return utf16(bytes, u16::from_be_bytes),
        };
        Decoded::Text(without_line_ends(text))
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Decoded<'_> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| unit(*pair));
    let mut valid = rest.is_empty();
    let decoded = char::decode_utf16(units).map(|character| {
        character.unwrap_or_else(|_| {
            valid = false;
            char::REPLACEMENT_CHARACTER
        })
    });
    let text: String = decoded.collect();
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    let text = without_line_ends(Cow::Owned(text));
    if valid { Decoded::Text(text) } else { Decoded::Bytes(bytes, text.into_owned()) }
}

fn without_line_ends(text: Cow<'_, str>) -> Cow<'_, str> {
    let plain = |text: &str| text.strip_suffix('\n').map_or(text.len(), str::len);
    let end = plain(&text);
    let end = text.get(..end).and_then(|text| text.strip_suffix('\r')).map_or(end, str::len);
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(..end).unwrap_or_default()),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    };
    if text.contains("\r\n") { Cow::Owned(text.replace("\r\n", "\n")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Decoded<'_> {
        Decoded::Text(Cow::Borrowed(text))
    }

    #[test]
    fn line_ends_and_byte_order_marks_are_taken_off_and_nothing_else() {
        assert_eq!(Encoding::Utf8.decode(b"a\r\n"), text("a"));
        assert_eq!(Encoding::Utf8.decode(b"\xef\xbb\xbfa\r\n b\n"), text("a\n b"));
        assert_eq!(Encoding::Utf8.decode(b"a \r"), text("a "));
        assert_eq!(Encoding::Utf8.decode(b""), text(""));
        assert_eq!(Encoding::Latin1.decode(b"gr\xf6\xdfer\n"), text("größer"));
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_byte_for_byte() {
        assert_eq!(Encoding::Utf8.decode(b"a\xff\r\n"), Decoded::Bytes(b"a\xff", "a\u{fffd}".into()));
        let half = [b'a', 0, 0x00, 0xd8, b'b', 0];
        assert!(matches!(Encoding::Utf16Le.decode(&half), Decoded::Bytes(bytes, _) if bytes == half));
    }

    #[test]
    fn utf_16_lines_end_at_whole_units() {
        let bytes: Vec<u8> = "\u{feff}\u{0a00}ü\nb".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let end = Encoding::Utf16Le.line_end(&bytes, 0).unwrap();
        assert_eq!(Encoding::Utf16Le.decode(&bytes[..end]), text("\u{0a00}ü"));
        assert_eq!(Encoding::Utf16Le.line_end(&bytes, end), None);
        let bytes: Vec<u8> = "x\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(Encoding::Utf16Be.line_end(&bytes, 0), Some(4));
        assert_eq!(Encoding::Utf16Be.decode(&bytes), text("x"));
    }
}
