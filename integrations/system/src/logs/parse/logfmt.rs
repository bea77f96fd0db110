//! logfmt: `key=value key="a b" flag`.

use std::borrow::Cow;

use super::line::{Field, Line};

/// Reads pairs; a word without `=` is a flag that is true. Text before the first pair makes no
/// difference: it becomes flags. A line without any pair is not logfmt.
pub fn parse(text: &str) -> Line<'_> {
    let mut line = Line::default();
    let (mut rest, mut pairs) = (text.trim(), 0_usize);
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (key, behind) = rest.split_at(end);
        let Some(value) = behind.strip_prefix('=') else {
            line.attributes.push((Cow::Borrowed(key), Field::Bool(true)));
            rest = behind.trim_start();
            continue;
        };
        if key.is_empty() {
            return Line::unreadable("no logfmt: a value has no name");
        }
        pairs += 1;
        let (field, behind) = match value.strip_prefix('"') {
            Some(quoted) => match unquote(quoted) {
                Some((text, behind)) => (Field::Text(text), behind),
                None => return Line::unreadable("no logfmt: a quote is not closed"),
            },
            None => {
                let end = value.find(char::is_whitespace).unwrap_or(value.len());
                let (word, behind) = value.split_at(end);
                (scalar(word), behind)
            }
        };
        line.attributes.push((Cow::Borrowed(key), field));
        rest = behind.trim_start();
    }
    if pairs == 0 { Line::unreadable("no logfmt: no `key=value`") } else { line }
}

/// Bare words that are numbers or booleans are typed; text that only looks like one is quoted.
fn scalar(word: &str) -> Field<'_> {
    let looks_like_number = word.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    match word {
        "true" => Field::Bool(true),
        "false" => Field::Bool(false),
        _ if looks_like_number => match (word.parse::<i64>(), word.parse::<f64>()) {
            // Leading zeros mean something: an order number, a zip code.
            (Ok(number), _) if number.to_string() == word => Field::Int(number),
            (Err(_), Ok(number)) if number.is_finite() && word.contains('.') => Field::Float(number),
            _ => Field::text(word),
        },
        _ => Field::text(word),
    }
}

/// The text up to the closing quote, escapes replaced, and what follows it.
fn unquote(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut owned = String::new();
    let mut plain = 0;
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => {
                let tail = quoted.get(plain..at)?;
                let text = if owned.is_empty() { Cow::Borrowed(tail) } else { Cow::Owned(owned + tail) };
                return Some((text, quoted.get(at + 1..)?));
            }
            '\\' => {
                owned.push_str(quoted.get(plain..at)?);
                let (escaped_at, escaped) = characters.next()?;
                match escaped {
                    'n' => owned.push('\n'),
                    't' => owned.push('\t'),
                    'r' => owned.push('\r'),
                    '"' | '\\' => owned.push(escaped),
                    other => owned.extend(['\\', other]),
                }
                plain = escaped_at + escaped.len_utf8();
            }
            _ => {}
        }
    }
    None
}
