//! JSON as clients really send it, within bounds.
//!
//! Python's `json` writes `NaN`, `Infinity` and `-Infinity` bare: they are read as null, which means
//! absent everywhere below. One pass over the bytes replaces them, and refuses what is nested too
//! deeply or has so many values that it would take much more memory than it has bytes.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::{ApiError, Code};

/// Lists and objects inside each other, at most.
pub const DEPTH_LIMIT: usize = 64;

/// Values of one body, at most; an object counts as much as the memory that it takes.
const WEIGHT_LIMIT: usize = 2_000_000;

/// What an object costs compared with a number.
const OBJECT_WEIGHT: usize = 8;

/// Bodies above this many bytes take longer than others should wait.
const APART_ABOVE_BYTES: usize = 64 << 10;

/// Characters of a wrong value that an error shows.
const SHOWN_CHARS: usize = 40;

/// Characters of a member's name that a path shows.
const SHOWN_NAME_CHARS: usize = 100;

/// The JSON value of a body.
///
/// # Errors
/// `invalid_json` with line and column, or `too_large`.
pub fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if body.trim_ascii().is_empty() {
        return Err(invalid("the body is empty; send a JSON object, for example with curl's `-d '{...}'`"));
    }
    let readable = readable(body)?;
    serde_json::from_slice(&readable).map_err(|error| invalid(format!("the body is not JSON: {error}")))
}

/// As [`parse`], without holding up other requests: a large body is parsed on a thread of its own.
///
/// # Errors
/// As [`parse`].
pub async fn parse_apart(body: Bytes) -> Result<Value, ApiError> {
    if body.len() <= APART_ABOVE_BYTES {
        return parse(&body);
    }
    let parsed = tokio::task::spawn_blocking(move || parse(&body)).await;
    parsed.unwrap_or_else(|_| Err(ApiError::unavailable("the server is being stopped")))
}

/// As [`parse`]; an empty body is an empty object.
///
/// # Errors
/// As [`parse`].
pub fn parse_or_empty(body: &[u8]) -> Result<Value, ApiError> {
    if body.trim_ascii().is_empty() { Ok(Value::Object(Map::new())) } else { parse(body) }
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidJson, message)
}

/// The body with `null` for numbers that are none, checked against the bounds.
fn readable(body: &[u8]) -> Result<Cow<'_, [u8]>, ApiError> {
    let (mut depth, mut weight) = (0_usize, 0_usize);
    let mut replaced: Option<Vec<u8>> = None;
    // Everything before this was copied to `replaced` already.
    let mut copied = 0;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        at += match byte {
            b'"' => string_length(body.get(at..).unwrap_or_default()),
            b'{' | b'[' => {
                depth += 1;
                weight += if byte == b'{' { OBJECT_WEIGHT } else { 1 };
                1
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                1
            }
            b',' => {
                weight += 1;
                1
            }
            b'N' | b'I' | b'-' => {
                let rest = body.get(at..).unwrap_or_default();
                let word = [&b"NaN"[..], b"Infinity", b"-Infinity", b"-NaN"].into_iter().find(|w| rest.starts_with(w));
                if let Some(word) = word {
                    let out = replaced.get_or_insert_with(|| Vec::with_capacity(body.len()));
                    out.extend_from_slice(body.get(copied..at).unwrap_or_default());
                    out.extend_from_slice(b"null");
                    copied = at + word.len();
                }
                word.map_or(1, <[u8]>::len)
            }
            _ => 1,
        };
        if depth > DEPTH_LIMIT {
            return Err(invalid(format!("byte {at}: lists and objects are nested deeper than {DEPTH_LIMIT}")));
        }
        if weight > WEIGHT_LIMIT {
            return Err(ApiError::new(Code::TooLarge, "the body has too many values; send it in several requests"));
        }
    }
    Ok(match replaced {
        None => Cow::Borrowed(body),
        Some(mut out) => {
            out.extend_from_slice(body.get(copied..).unwrap_or_default());
            Cow::Owned(out)
        }
    })
}

/// Bytes of the string that starts here, its quotes included; the rest if it does not end.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// A value in the words of an error: `"high"`, `a list`, `12`.
pub fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.chars().count() > SHOWN_CHARS => {
            format!("{:?}...", text.chars().take(SHOWN_CHARS).collect::<String>())
        }
        Value::String(text) => format!("{text:?}"),
    }
}

/// A member's name as a path shows it: not too long, without control characters, and visible where it is empty.
pub fn shown_name(name: &str) -> Cow<'_, str> {
    match name.char_indices().nth(SHOWN_NAME_CHARS) {
        _ if name.is_empty() => Cow::Borrowed("\"\""),
        None if !name.chars().any(char::is_control) => Cow::Borrowed(name),
        long => {
            let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
            let shown = name.chars().take(SHOWN_NAME_CHARS).map(plain);
            Cow::Owned(shown.chain(long.iter().flat_map(|_| "...".chars())).collect())
        }
    }
}

/// The memory that a value takes, in bytes: an estimate that is rather too high.
pub fn memory_bytes(value: &Value) -> usize {
    /// A node of a map, and how many members it holds at least where there are several.
    const NODE_BYTES: usize = 640;
    const NODE_MEMBERS: usize = 5;
    let inner: usize = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(memory_bytes).sum(),
        Value::Object(map) => {
            let members: usize = map.iter().map(|(key, value)| key.len() + memory_bytes(value)).sum();
            members + map.len().div_ceil(NODE_MEMBERS) * NODE_BYTES
        }
        _ => 0,
    };
    size_of::<Value>() + inner
}

/// The error for a value that is not what was expected.
pub fn wrong(path: &str, expected: &str, value: &Value) -> ApiError {
    ApiError::field(path, expected, &shown(value))
}

/// A number as JSON writes it: whole numbers without `.0`; null where it is none.
pub fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        // Whole and below 2^53: nothing is lost.
        return Value::from(value as i64);
    }
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// The finite number that a value is, also where it is written as text; `Err` if it is something else.
fn numeric(value: &Value) -> Result<Option<f64>, ()> {
    match value {
        Value::Null => Ok(None),
        Value::Number(number) => Ok(number.as_f64().filter(|number| number.is_finite())),
        Value::String(text) => {
            let number: f64 = text.trim().parse().map_err(|_| ())?;
            Ok(Some(number).filter(|number| number.is_finite()))
        }
        _ => Err(()),
    }
}

/// An object of a body, and where it stands there.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// Its members.
    pub map: &'a Map<String, Value>,
    /// Path to it, empty for the body itself.
    pub path: &'a str,
}

/// Which numbers a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// 0 to 100.
    Percent,
    /// 0 and above.
    NotNegative,
    /// All.
    Any,
}

impl Range {
    fn words(self) -> &'static str {
        match self {
            Range::Percent => "a number from 0 to 100",
            Range::NotNegative => "a number of at least 0",
            Range::Any => "a number",
        }
    }

    fn takes(self, number: f64) -> bool {
        match self {
            Range::Percent => (0.0..=100.0).contains(&number),
            Range::NotNegative => number >= 0.0,
            Range::Any => true,
        }
    }
}

impl<'a> Object<'a> {
    /// A value that must be an object.
    ///
    /// # Errors
    /// If it is something else.
    pub fn of(value: &'a Value, path: &'a str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            _ => Err(wrong(if path.is_empty() { "body" } else { path }, "an object", value)),
        }
    }

    /// Path of a member.
    pub fn path_of(&self, key: &str) -> String {
        let name = shown_name(key);
        if self.path.is_empty() { name.into_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A member that is there and not null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A number, also where it is written as text; absent where it is missing, null or not finite.
    ///
    /// # Errors
    /// If it is something else or out of range.
    pub fn number(&self, key: &str, range: Range) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match numeric(value) {
            Ok(Some(number)) if range.takes(number) => Ok(Some(number)),
            Ok(None) => Ok(None),
            _ => Err(wrong(&self.path_of(key), range.words(), value)),
        }
    }

    /// Text of at most `limit` bytes without control characters; a number counts as its text.
    ///
    /// # Errors
    /// If it is something else, empty, too long, or has control characters.
    pub fn text(&self, key: &str, limit: usize) -> Result<Option<String>, ApiError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        text(value, &self.path_of(key), limit).map(Some)
    }

    /// A list of texts; a single text is a list of one.
    ///
    /// # Errors
    /// As [`Object::text`], or if there are more than `most`.
    pub fn texts(&self, key: &str, limit: usize, most: usize) -> Result<Option<Vec<String>>, ApiError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let path = self.path_of(key);
        match value {
            Value::Array(items) if items.len() > most => {
                Err(ApiError::field(path, format!("at most {most} texts"), &format!("{} values", items.len())))
            }
            Value::Array(items) => {
                items.iter().enumerate().map(|(at, item)| text(item, &format!("{path}[{at}]"), limit)).collect()
            }
            Value::String(_) => text(value, &path, limit).map(|text| vec![text]),
            _ => Err(wrong(&path, "a list of texts", value)),
        }
        .map(Some)
    }
}

/// A text of at most `limit` bytes, trimmed.
fn text(value: &Value, path: &str, limit: usize) -> Result<String, ApiError> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return Err(wrong(path, "a text", value)),
    };
    if text.is_empty() {
        return Err(ApiError::field(path, "a text", "an empty one"));
    }
    if text.len() > limit {
        return Err(ApiError::field(path, format!("at most {limit} bytes of text"), &format!("{} bytes", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong(path, "a text without control characters", value));
    }
    Ok(text)
}

/// A value without NUL characters in its texts and keys: PostgreSQL cannot keep them.
pub fn without_nul(value: Value) -> Value {
    let clean = |text: String| if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nul).collect()),
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(key, value)| (clean(key), without_nul(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(error: ApiError) -> String {
        error.body().message.clone()
    }

    #[test]
    fn numbers_that_python_writes_bare_are_absent_and_texts_stay() {
        let body = br#"{"a": NaN, "b": [Infinity, -Infinity,-NaN], "NaN": "NaN \" Infinity", "c": -1}"#;
        let expected = json!({"a": null, "b": [null, null, null], "NaN": "NaN \" Infinity", "c": -1});
        assert_eq!(parse(body).unwrap(), expected);
        assert_eq!(parse(b"NaN").unwrap(), Value::Null);
        assert!(parse(b"{\"a\": Nan}").is_err());
    }

    #[test]
    fn nesting_is_bounded_before_anything_recurses() {
        let deep = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(parse(&deep(DEPTH_LIMIT)).is_ok());
        let error = parse(&deep(DEPTH_LIMIT + 1)).unwrap_err();
        assert!(message(error).contains("nested deeper than 64"));
        assert!(parse(&vec![b'['; 16 << 20]).is_err());
        assert!(parse(&b"{\"a\":".repeat(1 << 20)).is_err());
    }

    #[test]
    fn a_body_of_too_many_objects_is_too_large() {
        let body = [b"[".to_vec(), b"{},".repeat(300_000), b"{}]".to_vec()].concat();
        assert_eq!(parse(&body).unwrap_err().body().code, Code::TooLarge);
    }

    #[test]
    fn what_is_no_json_says_where() {
        for (body, part) in [
            (&b""[..], "the body is empty"),
            (b" \r\n", "the body is empty"),
            (b"cpu=1", "line 1 column 1"),
            (b"{\"a\": 1,}", "line 1 column 9"),
            (b"{\"a\": \"\x00\"}", "control character"),
            (b"{\"a\": \"\xff\"}", "line 1"),
            (b"{\"a", "EOF"),
            (b"{} {}", "trailing"),
        ] {
            let error = parse(body).unwrap_err();
            assert_eq!(error.body().code, Code::InvalidJson);
            assert!(message(error.clone()).contains(part), "{}", message(error));
        }
        assert_eq!(parse_or_empty(b"").unwrap(), json!({}));
        assert_eq!(parse(b"\xef\xbb\xbf{}").unwrap(), json!({}));
    }

    #[test]
    fn numbers_may_be_text_and_errors_name_path_and_found_value() {
        let value = json!({"a": "45.2", "b": "NaN", "c": null, "d": "high", "e": 120, "f": [1], "g": " 7 "});
        let object = Object::of(&value, "metrics[2]").unwrap();
        assert_eq!(object.number("a", Range::Percent).unwrap(), Some(45.2));
        assert_eq!(object.number("b", Range::Percent).unwrap(), None);
        assert_eq!(object.number("c", Range::Percent).unwrap(), None);
        assert_eq!(object.number("none", Range::Percent).unwrap(), None);
        assert_eq!(object.number("g", Range::Any).unwrap(), Some(7.0));
        let error = object.number("d", Range::Percent).unwrap_err();
        assert_eq!(message(error), "metrics[2].d: expected a number from 0 to 100, found \"high\"");
        let error = object.number("e", Range::Percent).unwrap_err();
        assert_eq!(error.body().field.as_deref(), Some("metrics[2].e"));
        assert_eq!(error.body().expected.as_deref(), Some("a number from 0 to 100"));
        assert!(message(object.number("f", Range::Any).unwrap_err()).ends_with("found a list"));
    }

    #[test]
    fn paths_are_short_lines_whatever_the_names_in_a_body_are() {
        let value = json!({});
        let (body, inner) = (Object::of(&value, "").unwrap(), Object::of(&value, "[3]").unwrap());
        assert_eq!((body.path_of("cpu").as_str(), inner.path_of("cpu").as_str()), ("cpu", "[3].cpu"));
        assert_eq!((body.path_of("").as_str(), inner.path_of("").as_str()), ("\"\"", "[3].\"\""));
        assert_eq!(body.path_of("a\nb"), "a\u{fffd}b");
        assert_eq!(body.path_of(&"ü".repeat(100)), "ü".repeat(100));
        assert_eq!(body.path_of(&"ü".repeat(1 << 20)), format!("{}...", "ü".repeat(100)));
    }

    #[test]
    fn the_memory_of_a_value_is_rather_over_than_underestimated() {
        assert_eq!(memory_bytes(&json!(1)), 32);
        assert_eq!(memory_bytes(&json!("four")), 36);
        assert_eq!(memory_bytes(&json!([1, 2])), 96);
        assert!(memory_bytes(&json!({"a": 1})) > 632);
    }

    #[test]
    fn texts_have_bounds() {
        let value = json!({"nul": "a\u{0}b", "long": "x".repeat(300), "empty": " ", "list": ["a", 2], "one": "a"});
        let object = Object::of(&value, "").unwrap();
        assert!(object.text("nul", 100).is_err());
        assert!(message(object.text("long", 255).unwrap_err()).contains("at most 255 bytes"));
        assert!(object.text("empty", 10).is_err());
        assert_eq!(object.texts("list", 10, 5).unwrap(), Some(vec!["a".to_owned(), "2".to_owned()]));
        assert_eq!(object.texts("one", 10, 5).unwrap(), Some(vec!["a".to_owned()]));
        assert!(object.texts("list", 10, 1).is_err());
        assert_eq!(without_nul(json!({"a\0": ["\0"]})), json!({"a\u{fffd}": ["\u{fffd}"]}));
    }

    #[test]
    fn whole_numbers_are_written_without_a_fraction() {
        assert_eq!(number(16384.0).to_string(), "16384");
        assert_eq!(number(45.2).to_string(), "45.2");
        assert_eq!(number(1e300), json!(1e300));
        assert_eq!(number(f64::NAN), Value::Null);
    }
}
